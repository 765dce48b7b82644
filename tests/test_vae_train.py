"""The trainer: it learns, survives being killed to the bit, and says what is wrong."""

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load_file
from vae_runs import stripes, write_run

import vae.train
from fonts_manifest.errors import BadInput
from vae.checkpoint import latest_checkpoint
from vae.family import GSCConfig
from vae.logs import read_metrics, read_report
from vae.losses import LossConfig
from vae.mixture import Feed, SourceConfig
from vae.model import GSCAutoencoder
from vae.objective import Objective
from vae.optim import MovingAverage, OptimConfig, build_optimizer, learning_rate
from vae.recipes import TrainRecipe
from vae.train import train

HASH = "0123456789abcdef"


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("data") / "run"
    return write_run(folder, stripes(40, 48), shards=2)


def recipe(run: Path, **changes: object) -> TrainRecipe:
    values: dict[str, object] = {
        "kind": "train",
        "sources": (SourceConfig(name="stripes", run=str(run)),),
        "model": GSCConfig(
            encoder_widths=(8, 8, 48),
            decoder_widths=(8, 8, 48),
            latent_channels=6,
            encoder_blocks=1,
            decoder_blocks=1,
            skip="gsc_both",
            skip_basis="dct",
            decoder_mirror=True,
        ),
        "losses": LossConfig(l1=0.0, mse=1.0),
        "optim": OptimConfig(lr=2e-3, warmup_steps=5, ema_decay=0.9),
        "seed": 1,
        "steps": 30,
        "batch": 4,
        "crop_px": 32,
        "hold_out": 0.2,
        "validate_every": 10,
        "validate_pictures": 4,
        "validate_px": 48,
        "checkpoint_every": 5,
    }
    return TrainRecipe(**{**values, **changes})  # type: ignore[arg-type]


def weights(out: Path) -> dict[str, torch.Tensor]:
    found = {}
    for name in ("model", "ema"):
        tensors = load_file(out / name / "diffusion_pytorch_model.safetensors")
        found.update({f"{name}/{key}": value for key, value in tensors.items()})
    checkpoint, _ = latest_checkpoint(out / "checkpoints")
    assert checkpoint is not None
    found.update(load_file(checkpoint.folder / "optimizer.safetensors"))
    return found


@pytest.fixture(scope="module")
def whole(run: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run of 30 steps that nothing disturbed."""
    out = tmp_path_factory.mktemp("whole") / "out"
    train(recipe(run), HASH, out)
    return out


def same_weights(a: Path, b: Path) -> bool:
    left, right = weights(a), weights(b)
    return left.keys() == right.keys() and all(torch.equal(left[key], right[key]) for key in left)


def test_it_learns_more_than_its_linear_skip(run: Path, tmp_path: Path) -> None:
    report = train(recipe(run, steps=120, checkpoint_every=120), HASH, tmp_path / "out")
    assert report.psnr_end_db["stripes"] > report.psnr_start_db["stripes"] + 0.3
    assert report.pictures == 480
    assert report.skipped_steps == 0


def test_the_output_says_what_made_it(run: Path, tmp_path: Path) -> None:
    calls: list[tuple[object, ...]] = []
    train(recipe(run, steps=2), HASH, tmp_path, recipe_yaml="kind: train", progress=lambda *call: calls.append(call))
    assert (tmp_path / "recipe.yaml").read_text() == "kind: train"
    assert json.loads((tmp_path / "versions.json").read_text())["torch"] == torch.__version__
    assert [call[:3] for call in calls] == [("train", 1, 2), ("train", 2, 2)]


def test_two_runs_give_the_same_weights(run: Path, whole: Path, tmp_path: Path) -> None:
    train(recipe(run), HASH, tmp_path / "out")
    assert same_weights(whole, tmp_path / "out")


def test_another_seed_gives_other_weights(run: Path, whole: Path, tmp_path: Path) -> None:
    train(recipe(run, seed=2), HASH, tmp_path / "out")
    assert not same_weights(whole, tmp_path / "out")


@pytest.mark.parametrize("stops", [(3,), (12, 13, 27)])
def test_a_stopped_run_goes_on_bit_for_bit(
    run: Path, whole: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, stops: tuple[int, ...]
) -> None:
    ordinary = Feed.batch
    for stop in stops:

        def interrupted(feed: Feed, step: int, stop: int = stop) -> object:
            if step == stop:
                raise KeyboardInterrupt
            return ordinary(feed, step)

        monkeypatch.setattr(Feed, "batch", interrupted)
        with pytest.raises(KeyboardInterrupt):
            train(recipe(run), HASH, tmp_path / "out")
    monkeypatch.setattr(Feed, "batch", ordinary)
    train(recipe(run), HASH, tmp_path / "out")
    assert same_weights(whole, tmp_path / "out")
    steps = [record["step"] for record in read_metrics(tmp_path / "out") if record["kind"] == "step"]
    assert steps == list(range(30))
    validations = [record["step"] for record in read_metrics(tmp_path / "out") if record["kind"] == "validation"]
    assert validations == [0, 10, 20, 30]


def test_a_killed_process_goes_on_bit_for_bit(run: Path, whole: Path, tmp_path: Path) -> None:
    program = (
        "import sys, vae_runs; from pathlib import Path;"
        "from vae.train import train; from vae.recipes import TrainRecipe;"
        "train(TrainRecipe.model_validate_json(sys.argv[1]), sys.argv[2], Path(sys.argv[3]))"
    )
    here = Path(__file__).parent
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join((str(here), str(here.parent)))}
    arguments = [sys.executable, "-c", program, recipe(run).model_dump_json(), HASH, str(tmp_path / "out")]
    process = subprocess.Popen(arguments, env=environment, stderr=subprocess.DEVNULL)
    while not (tmp_path / "out/checkpoints/00000010").exists():
        assert process.poll() is None, "the run ended before it could be killed"
        time.sleep(0.005)
    process.send_signal(signal.SIGKILL)
    process.wait()
    assert read_report(tmp_path / "out") is None
    train(recipe(run), HASH, tmp_path / "out")
    assert same_weights(whole, tmp_path / "out")


def test_a_damaged_checkpoint_is_passed_over(run: Path, whole: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    shutil.copytree(whole, out)
    (out / "report.json").unlink()
    newest = out / "checkpoints/00000030/ema.safetensors"
    data = bytearray(newest.read_bytes())
    data[-1] ^= 1
    newest.write_bytes(data)
    found, problems = latest_checkpoint(out / "checkpoints")
    assert found is not None
    assert found.step == 25
    assert len(problems) == 1
    assert "ema.safetensors is not what was written" in problems[0]
    train(recipe(run), HASH, out)
    assert same_weights(whole, out)
    assert [r["text"] for r in read_metrics(out) if r["kind"] == "note"] == problems


def test_checkpoints_hold_nothing_pickled_and_the_last_ones_stay(whole: Path) -> None:
    assert sorted(path.name for path in (whole / "checkpoints").iterdir()) == ["00000025", "00000030"]
    files = sorted(path.name for path in (whole / "checkpoints/00000030").iterdir())
    assert files == ["ema.safetensors", "model.safetensors", "optimizer.safetensors", "state.json"]
    state = json.loads((whole / "checkpoints/00000030/state.json").read_text())
    assert state["data"]["counts"] == [120]


def test_a_checkpoint_that_cannot_be_written_leaves_the_one_before(
    run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import vae.checkpoint

    ordinary = vae.checkpoint.save_file

    def full(tensors: dict[str, torch.Tensor], path: Path) -> None:
        if "00000010" in str(path) and path.name.startswith("optimizer"):
            raise OSError(28, "No space left on device")
        ordinary(tensors, path)

    monkeypatch.setattr(vae.checkpoint, "save_file", full)
    with pytest.raises(BadInput, match=r"00000010: the checkpoint cannot be written .*No space left"):
        train(recipe(run), HASH, tmp_path / "out")
    assert [path.name for path in (tmp_path / "out/checkpoints").iterdir()] == ["00000005"]


def test_a_finished_run_is_only_read(run: Path, whole: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(vae.train, "_prepare", None)
    report = train(recipe(run), HASH, whole)
    assert report == read_report(whole)
    with pytest.raises(BadInput, match="trained by another recipe"):
        train(recipe(run), "f" * 16, whole)


def test_an_unfinished_run_of_another_recipe_is_refused(run: Path, whole: Path, tmp_path: Path) -> None:
    shutil.copytree(whole / "checkpoints", tmp_path / "out/checkpoints")
    with pytest.raises(BadInput, match="hash 0123456789abcdef, this one has ffff"):
        train(recipe(run), "f" * 16, tmp_path / "out")


def test_the_saved_models_are_what_was_trained(run: Path, whole: Path) -> None:
    ema = GSCAutoencoder.from_pretrained(whole / "ema")
    checkpoint = load_file(whole / "checkpoints/00000030/ema.safetensors")
    for name, parameter in ema.named_parameters():
        assert torch.equal(parameter, checkpoint[name])
    assert len(ema.config.latents_mean) == len(ema.config.latents_std) == 6
    assert min(ema.config.latents_std) > 0
    assert not torch.equal(
        ema.encoder.conv_in.weight, GSCAutoencoder.from_pretrained(whole / "model").encoder.conv_in.weight
    )


def test_the_log_tells_sources_apart(run: Path, tmp_path: Path) -> None:
    other = write_run(tmp_path / "other", stripes(20, 48, seed=5), origins=[f"p{i}" for i in range(20)])
    sources = (
        SourceConfig(name="stripes", run=str(run), weights=((0, 3.0),)),
        SourceConfig(name="other", run=str(other)),
    )
    train(recipe(run, sources=sources, steps=4), HASH, tmp_path / "out")
    record = read_metrics(tmp_path / "out")[1]
    assert {name: count for name, (count, _) in record["by_source"].items()} == {"stripes": 3, "other": 1}
    mean = sum(count * loss for count, loss in record["by_source"].values()) / 4
    assert mean == pytest.approx(record["loss"], rel=1e-4)
    assert record["terms"] == {"mse": pytest.approx(record["loss"], rel=1e-5)}
    assert list((tmp_path / "out/tensorboard").glob("events.out.tfevents.*"))


def test_a_step_without_finite_loss_is_left_out(run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    ordinary = Objective.terms
    calls = []

    def broken(objective: Objective, *arguments: object) -> dict[str, torch.Tensor]:
        terms = ordinary(objective, *arguments)  # type: ignore[arg-type]
        calls.append(0)
        return {name: term * float("nan") if len(calls) == 3 else term for name, term in terms.items()}

    monkeypatch.setattr(Objective, "terms", broken)
    report = train(recipe(run, steps=6), HASH, tmp_path / "out")
    assert report.skipped_steps == 1
    assert [r["finite"] for r in read_metrics(tmp_path / "out") if r["kind"] == "step"] == [True] * 2 + [False] + [
        True
    ] * 3
    assert all(tensor.isfinite().all() for tensor in weights(tmp_path / "out").values())


def test_training_that_diverges_ends_with_a_sentence(
    run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def broken(objective: Objective, step: int, images: torch.Tensor, result: Any, *_: object) -> dict[str, Any]:
        return {"mse": result.output_B3HW.flatten(1).mean(1) * float("inf")}

    monkeypatch.setattr(Objective, "terms", broken)
    with pytest.raises(BadInput, match=r"not finite, .* for 10 steps up to step 9: lower optim\.lr"):
        train(recipe(run, checkpoint_every=100), HASH, tmp_path / "out")


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"crop_px": 30}, "crop_px must be a multiple of the compression 4, got 30"),
        ({"validate_px": 50}, "validate_px must be a multiple of the compression 4, got 50"),
        ({"validate_px": 64}, "none of its .* held-out pictures has 64 px a side"),
        ({"crop_px": 64}, "no rows to train on"),
    ],
)
def test_recipes_that_do_not_fit_the_data_are_refused(
    run: Path, tmp_path: Path, changes: dict[str, object], message: str
) -> None:
    with pytest.raises(BadInput, match=message):
        train(recipe(run, **changes), HASH, tmp_path / "out")


def test_a_damaged_report_is_named(tmp_path: Path) -> None:
    (tmp_path / "report.json").write_text("{")
    with pytest.raises(BadInput, match=r"report\.json: is no report"):
        read_report(tmp_path)


def test_a_pca_skip_is_fitted_to_the_training_pictures(run: Path, tmp_path: Path) -> None:
    shape = recipe(run).model.model_copy(update={"skip_basis": "pca"})
    report = train(recipe(run, model=shape, steps=1), HASH, tmp_path / "out")
    logged = read_metrics(tmp_path / "out")[0]["psnr_db"]["stripes"]
    assert report.psnr_start_db["stripes"] == logged
    plain = train(recipe(run, steps=1), HASH, tmp_path / "plain")
    assert report.psnr_start_db["stripes"] > plain.psnr_start_db["stripes"] + 0.5


def test_learning_rate_warms_up_and_follows_a_cosine() -> None:
    config = OptimConfig(lr=1.0, warmup_steps=10, min_lr_share=0.1)
    rates = [learning_rate(config, step, 111) for step in range(111)]
    assert rates[0] == pytest.approx(0.1)
    assert rates[9] == rates[10] == 1.0
    assert rates[60] == pytest.approx(0.55)  # half of the cosine lies in the middle between 1 and 0.1
    assert rates[110] == pytest.approx(0.1)
    assert learning_rate(OptimConfig(lr=1.0, warmup_steps=0), 0, 1) == 1.0


def test_the_moving_average_is_the_recurrence() -> None:
    layer = torch.nn.Linear(1, 1, bias=False)
    with torch.no_grad():
        layer.weight.fill_(1.0)
        average = MovingAverage(layer, 0.5)
        expected = 1.0
        for step, value in enumerate((2.0, 3.0, 5.0, 8.0)):
            layer.weight.fill_(value)
            average.update(layer, step)
            keep = min(0.5, (1 + step) / (10 + step))
            expected = keep * expected + (1 - keep) * value
    assert float(average.shadow["weight"]) == pytest.approx(expected)
    average.swap(layer)
    assert layer.weight.item() == pytest.approx(expected)
    average.swap(layer)
    assert layer.weight.item() == 8.0


def test_gains_and_biases_do_not_decay() -> None:
    optimizer = build_optimizer(torch.nn.Conv2d(2, 3, 1), OptimConfig(weight_decay=0.1))
    decays = {tuple(p.shape): group["weight_decay"] for group in optimizer.param_groups for p in group["params"]}
    assert decays == {(3, 2, 1, 1): 0.1, (3,): 0.0}


def test_figures_in_the_log_are_numbers_of_finished_pictures(whole: Path) -> None:
    report = read_report(whole)
    assert report is not None
    assert report.sources["stripes"]["train"] + report.sources["stripes"]["held_out"] == 40
    assert 0 < report.data_seconds < report.seconds
    assert np.isfinite(list(report.psnr_end_db.values())).all()
