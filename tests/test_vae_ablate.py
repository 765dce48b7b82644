"""Ablations: variants are trained alike, cut-off runs go on, tables hold the mean and spread over the seeds."""

import json
from pathlib import Path
from statistics import mean, stdev
from typing import Any

import numpy as np
import pytest
from PIL import Image
from vae_runs import stripes

from datagen.ingest import IngestConfig, RealPlace
from datagen.recipes import load_recipe
from fonts_manifest.errors import BadInput
from vae import ablate
from vae.ablate import AblationRecipe, Curve, ablation_markdown, draw_ablation, run_ablation
from vae.cli import BUNDLED
from vae.logs import read_metrics
from vae.recipes import TrainRecipe
from vae.train import train


@pytest.fixture(scope="module")
def recipe(tmp_path_factory: pytest.TempPathFactory) -> AblationRecipe:
    folder = tmp_path_factory.mktemp("pictures")
    for number, picture in enumerate(stripes(12, 48)):
        Image.fromarray(picture).save(folder / f"{number}.png")
    shared = {
        "kind": "train",
        "sources": [{"name": "stripes", "run": "found"}],
        "model": {"encoder_widths": [8, 8, 12], "decoder_widths": [8, 8, 12], "latent_channels": 6, "skip": "nsc"},
        "steps": 4,
        "batch": 2,
        "crop_px": 16,
        "hold_out": 0.3,
        "validate_every": 2,
        "validate_px": 48,
        "checkpoint_every": 2,
    }
    return AblationRecipe(
        kind="ablate",
        real={"found": IngestConfig(places=(RealPlace(place=str(folder), licence="CC0-1.0"),))},
        train=TrainRecipe.model_validate(shared),
        variants={"none": {}, "dct": {"model": {"skip": "gsc", "skip_basis": "dct", "decoder_mirror": True}}},
        seeds=(0, 1),
    )


def test_a_variant_changes_what_it_names_and_nothing_else(recipe: AblationRecipe) -> None:
    changed = recipe.variant("dct", 7)
    assert (changed.model.skip, changed.model.encoder_widths, changed.seed) == ("gsc", (8, 8, 12), 7)
    back = changed.model.model_copy(update={"skip": "nsc", "skip_basis": "mean", "decoder_mirror": False})
    assert changed.model_copy(update={"model": back, "seed": 0}) == recipe.train
    assert recipe.variant("none", 0) == recipe.train


def test_every_variant_sees_the_same_pictures_and_a_second_call_trains_nothing(
    recipe: AblationRecipe, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    out = tmp_path / "out"
    stopped: list[Path] = []

    def stop_in_the_third(*given: Any, **named: Any) -> Any:
        stopped.append(given[2])
        if len(stopped) == 3:
            raise KeyboardInterrupt
        return train(*given, **named)

    monkeypatch.setattr(ablate, "train", stop_in_the_third)
    with pytest.raises(KeyboardInterrupt):
        run_ablation(recipe, out)
    assert "Seeds: 0." in (out / "ablation.md").read_text()
    monkeypatch.setattr(ablate, "train", train)
    curves = run_ablation(recipe, out)
    assert [(curve.variant, curve.seed) for curve in curves] == [("none", 0), ("dct", 0), ("none", 1), ("dct", 1)]
    runs = sorted(path.name for path in (out / "runs").iterdir())
    assert runs == ["dct, seed 0", "dct, seed 1", "none, seed 0", "none, seed 1"]
    for curve in curves:
        assert curve.steps == [0, 2, 4]
        found = [r for r in read_metrics(out / "runs" / f"{curve.variant}, seed {curve.seed}") if r["kind"] == "step"]
        assert len(found) == 4
    states = [json.loads((out / f"runs/{name}/checkpoints/00000004/state.json").read_text())["data"] for name in runs]
    assert states[0] == states[2]
    assert states[1] == states[3]
    for number, curve in enumerate(curves):
        if curve.variant == "dct":
            assert curve.values["psnr_db"]["stripes"][0] > curves[number - 1].values["psnr_db"]["stripes"][0] + 3
    assert json.loads((out / "ablation.json").read_text())[1]["variant"] == "dct"
    with Image.open(out / "ablation.png") as drawing:
        assert np.asarray(drawing).std() > 10
    before = (out / "ablation.md").read_bytes()
    run_ablation(recipe, out)
    assert (out / "ablation.md").read_bytes() == before


def curve(variant: str, seed: int, *psnr_db: float) -> Curve:
    steps = [100 * i for i in range(len(psnr_db))]
    values = {"psnr_db": {"text": list(psnr_db)}, "ned": {}, "ssim": {}}
    return Curve(variant=variant, seed=seed, steps=steps, values=values, seconds=10.0 + seed)


def test_tables_hold_mean_and_spread_and_gains_paired_by_seed(tmp_path: Path) -> None:
    curves = [curve("a", 0, 10, 12), curve("a", 1, 11, 17), curve("b", 0, 20, 22.5), curve("b", 1, 20, 27.7)]
    lines = ablation_markdown(curves).splitlines()
    assert "| 100 | 14.50 ± 3.54 | 25.10 ± 3.68 |" in lines
    assert f"| above a |  | {mean([10.5, 10.7]):+.2f} ± {stdev([10.5, 10.7]):.2f} |" in lines
    assert "| s of steps | 10 | 10 |" in lines
    draw_ablation(curves[:1], tmp_path / "one.png")  # one seed has no spread
    assert "| 100 | 12.00 |" in ablation_markdown(curves[:1])


def test_what_is_no_variant_is_refused(recipe: AblationRecipe, tmp_path: Path) -> None:
    def changed(**fields: object) -> AblationRecipe:
        return AblationRecipe.model_validate({**recipe.model_dump(), **fields})

    with pytest.raises(ValueError, match=r"variant b: model\.skip: Input should be 'gsc'"):
        changed(variants={"a": {}, "b": {"model": {"skip": "some"}}})
    with pytest.raises(ValueError, match=r"variant b: stepz: Extra inputs are not permitted"):
        changed(variants={"a": {}, "b": {"stepz": 1}})
    with pytest.raises(ValueError, match=r"'\.\./b' is no name for a folder"):
        changed(variants={"a": {}, "../b": {}})
    elsewhere = recipe.train.sources[0].model_copy(update={"run": str(tmp_path / "none")})
    without = changed(train={**recipe.train.model_dump(), "sources": [elsewhere.model_dump()]})
    with pytest.raises(BadInput, match=r"no finished run \(manifest\.parquet is missing\)"):
        run_ablation(without, tmp_path / "out")


def test_the_bundled_recipe_compares_the_skips_at_equal_widths() -> None:
    loaded = load_recipe(BUNDLED / "ablate-skips.yaml", AblationRecipe)
    asked = [loaded.variant(name, 0) for name in loaded.variants]
    kinds = [(one.model.skip, one.model.skip_basis) for one in asked]
    assert kinds == [("nsc", "mean"), ("lsc", "mean"), ("gsc", "mean"), ("gsc", "dct"), ("gsc", "pca")]
    assert len({(one.model.encoder_widths, one.model.decoder_widths, one.steps, one.optim) for one in asked}) == 1
    assert len(loaded.seeds) >= 3
