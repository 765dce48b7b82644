"""The plan of a recipe says and draws what the trainer will do."""

from pathlib import Path

import pytest
from PIL import Image

from datagen.recipes import load_recipe
from fonts_manifest.errors import BadInput
from vae.cli import BUNDLED
from vae.curriculum import StageConfig
from vae.family import model_config
from vae.losses import LossConfig
from vae.optim import OptimConfig
from vae.plan import draw_plan, plan_table
from vae.recipes import TrainRecipe, training_hash
from vae.source import SourceConfig

RECIPE = TrainRecipe(
    kind="train",
    sources=(
        SourceConfig(name="general", run="a", weights=((0, 1.0), (100, 1.0))),
        SourceConfig(name="text", run="b", weights=((0, 0.0), (100, 1.0))),
    ),
    losses=LossConfig(lpips=0.5, align=((0, 0.5), (40, 0.1)), margin_cos=((0, 0.0), (80, 0.5))),
    optim=OptimConfig(lr=1e-3, warmup_steps=10),
    steps=200,
    batch=8,
    stages=(StageConfig(from_step=60, crop_px=512, batch=4, aspect_ratios=(1.0, 2.0)),),
)


def test_a_line_stands_for_every_step_where_something_changes() -> None:
    lines = [line.split("  ") for line in plan_table(RECIPE)]
    table = [[cell.strip() for cell in line if cell.strip()] for line in lines]
    names = ["step", "crops px", "batch", "pictures so far", "lr", "general", "text", "l1", "lpips", "align"]
    assert table[0] == [*names, "margin_cos", "margin_dist"]
    assert [line[0] for line in table[1:]] == ["0", "10", "40", "60", "80", "100", "199"]
    by_step = {line[0]: dict(zip(table[0], line, strict=True)) for line in table[1:]}
    assert by_step["60"]["crops px"] == "512 in 2 ratios"
    assert (by_step["40"]["batch"], by_step["60"]["batch"]) == ("8", "4")
    assert by_step["80"]["pictures so far"] == str(60 * 8 + 20 * 4)
    assert (by_step["40"]["align"], by_step["40"]["margin_cos"]) == ("0.1", "0.25")
    assert by_step["10"]["lr"] == "1.00e-03"
    assert (by_step["100"]["general"], by_step["100"]["text"]) == ("50%", "50%")


def test_a_drawing_is_the_same_for_the_same_recipe(tmp_path: Path) -> None:
    for name in ("a.svg", "b.svg", "a.png"):
        draw_plan(RECIPE, tmp_path / name)
    assert (tmp_path / "a.svg").read_bytes() == (tmp_path / "b.svg").read_bytes()
    with Image.open(tmp_path / "a.png") as drawing:
        assert drawing.size == (1080, 1200)
    with pytest.raises(BadInput, match=r"a\.pdf: a plan is drawn as \.svg or \.png"):
        draw_plan(RECIPE, tmp_path / "a.pdf")


def test_the_machine_is_no_part_of_what_is_trained() -> None:
    other = RECIPE.model_copy(update={"machine": RECIPE.machine.model_copy(update={"accumulate": 4})})
    assert training_hash(other) == training_hash(RECIPE)
    assert training_hash(RECIPE.model_copy(update={"seed": 1})) != training_hash(RECIPE)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"trained": "decoder"}, "keeps the encoder of a saved model: name it as start_from"),
        ({"trained": "decoder", "start_from": "x"}, "losses.align must be 0"),
        ({"steps": 60}, "every stage must begin before the last of the 60 steps"),
    ],
)
def test_settings_that_contradict_each_other_are_refused(changes: dict[str, object], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        TrainRecipe.model_validate({**RECIPE.model_dump(), **changes})


@pytest.mark.parametrize("name", ["f16c64", "f16c128", "f32c128", "f32c192"])
def test_a_bundled_recipe_trains_each_published_model(name: str) -> None:
    loaded = load_recipe(BUNDLED / f"train-{name}.yaml", TrainRecipe)
    assert loaded.model == model_config(name)
    assert [stage.crop_px for stage in loaded.all_stages] == [256, 512, 1024, 2048]
    assert all(batch % 32 == 0 for batch in loaded.curriculum.batches)  # eight processes, four parts each
    assert [round(float(share), 2) for share in loaded.curriculum.shares_at(0)] == [1, 0, 0, 0, 0]
    assert float(loaded.curriculum.shares_at(399_999)[0]) == pytest.approx(0.5, abs=0.01)
    assert len(plan_table(loaded)) > 10


@pytest.mark.parametrize("name", ["small-gpu", "decoder", "demo"])
def test_the_other_bundled_recipes_have_a_plan(name: str) -> None:
    path = BUNDLED / ("demo-train.yaml" if name == "demo" else f"train-{name}.yaml")
    loaded = load_recipe(path, TrainRecipe)
    assert len(plan_table(loaded)) > 2
    assert all(batch % loaded.machine.accumulate == 0 for batch in loaded.curriculum.batches)
