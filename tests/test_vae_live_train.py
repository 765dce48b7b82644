"""Training on pictures drawn on the way: killed without warning it goes on bit for bit, and a tee leaves the shards."""

from pathlib import Path

from engine_runs import make_inputs, make_recipe
from train_runs import HASH, kill_at, recipe, same_weights
from vae_runs import stripes, write_run

from datagen.recipes import recipe_to_yaml
from vae.logs import read_report
from vae.recipes import MachineConfig
from vae.source import LiveConfig, SourceConfig
from vae.train import train


def test_a_killed_run_on_live_pictures_goes_on_bit_for_bit(tmp_path: Path) -> None:
    folder = make_inputs(tmp_path)
    (tmp_path / "mine.yaml").write_text(recipe_to_yaml(make_recipe(folder)))
    stored = write_run(tmp_path / "run", stripes(24, 48))
    asked = recipe(
        stored,
        sources=(
            SourceConfig(name="live", live=LiveConfig(recipe=str(tmp_path / "mine.yaml")), weights=((0, 2.0),)),
            SourceConfig(name="stripes", run=str(stored)),
        ),
        steps=9,
        checkpoint_every=3,
        validate_every=9,
        validate_pictures=2,
        machine=MachineConfig(loader_workers=1),
    )
    kill_at(asked, tmp_path / "killed", 4)
    train(asked, HASH, tmp_path / "killed")
    # Without a worker the pictures are the same, and so are the weights.
    train(asked.model_copy(update={"machine": MachineConfig()}), HASH, tmp_path / "whole")
    assert same_weights(tmp_path / "killed", tmp_path / "whole")
    report = read_report(tmp_path / "killed")
    assert report is not None
    assert report.sources["live"]["train"] + report.sources["live"]["held_out"] == 30
