"""The plan of a mixture: its ratios and epochs are those that training will have."""

from pathlib import Path

import pytest
from PIL import Image
from vae_runs import stripes, write_run

from fonts_manifest.errors import BadInput
from vae.curriculum import StageConfig
from vae.feed import StagedFeed
from vae.mix_plan import draw_mixture, mixture_table, supplies
from vae.recipes import TrainRecipe
from vae.source import LiveConfig, SourceConfig


@pytest.fixture(scope="module")
def recipe(tmp_path_factory: pytest.TempPathFactory) -> TrainRecipe:
    run = write_run(tmp_path_factory.mktemp("run") / "run", stripes(24, 64))
    return TrainRecipe(
        kind="train",
        sources=(
            SourceConfig(name="real", run=str(run), weights=((0, 3.0), (20, 1.0))),
            SourceConfig(name="text", run=str(run), weights=((0, 1.0),)),
        ),
        steps=40,
        batch=6,
        crop_px=64,
        hold_out=0.2,
        stages=(StageConfig(from_step=30, crop_px=32, batch=2),),
    )


def test_the_counts_and_epochs_are_those_of_training(recipe: TrainRecipe) -> None:
    lines = mixture_table(recipe, supplies(recipe))
    header, *table = [line.split() for line in lines[: lines.index("")]]
    assert header == ["step", "batch", "real", "so", "far", "text", "so", "far"]
    by_step = {line[0]: line[1:] for line in table}
    assert list(by_step) == ["0", "20", "30", "39"]
    assert by_step["30"][:2] == ["2", "50.0%"]
    feed = StagedFeed(recipe.curriculum, recipe.sources, recipe.hold_out)
    taken = [0, 0]
    for step in range(40):
        if str(step) in by_step:
            assert [int(by_step[str(step)][2]), int(by_step[str(step)][4])] == taken
        for source in feed.batch(step).source_ids:
            taken[source] += 1
    rows = feed.sources[0].train_rows
    ends = lines[lines.index("") + 1 :]
    assert [line.split("  ")[-1] for line in ends] == [
        f"{count:,} pictures, {count / rows:,.2f} epochs of {rows}" for count in taken
    ]


def test_the_curves_show_who_fills_the_batch(recipe: TrainRecipe) -> None:
    lines = mixture_table(recipe, supplies(recipe))
    real, text = (line.split("  ")[1] for line in lines[-2:])
    assert (len(real), real[0], real[-1]) == (40, "▆", "▄")
    assert (text[0], text[-1]) == ("▂", "▄")


def test_sources_that_cannot_be_counted_say_why(recipe: TrainRecipe) -> None:
    live = SourceConfig(name="live", live=LiveConfig(recipe="pure"))
    gone = SourceConfig(name="gone", run="no/such/run")
    lines = mixture_table(
        recipe.model_copy(update={"sources": (live, gone)}),
        supplies(recipe.model_copy(update={"sources": (live, gone)})),
    )
    assert lines[-2].endswith("pictures, drawn on the way, never repeated")
    assert "epochs unknown: no/such/run: no finished run" in lines[-1]


def test_a_drawing_is_the_same_for_the_same_mixture(recipe: TrainRecipe, tmp_path: Path) -> None:
    found = supplies(recipe)
    for name in ("a.svg", "b.svg", "a.png"):
        draw_mixture(recipe, found, tmp_path / name)
    assert (tmp_path / "a.svg").read_bytes() == (tmp_path / "b.svg").read_bytes()
    with Image.open(tmp_path / "a.png") as drawing:
        assert drawing.size == (1080, 720)
    with pytest.raises(BadInput, match=r"a\.pdf: a plan is drawn as \.svg or \.png"):
        draw_mixture(recipe, found, tmp_path / "a.pdf")
