"""The trainer: it learns, survives being killed to the bit, and says what is wrong."""

import io
import json
import os
import shutil
import signal
import subprocess
import sys
import types
from pathlib import Path
from typing import Any

import accelerate.tracking
import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import load_file, save_file
from vae_runs import stripes, write_run

import vae.guard
import vae.train
from fonts_manifest.errors import BadInput
from vae.checkpoint import latest_checkpoint
from vae.family import GSCConfig
from vae.feed import Feed, open_source
from vae.logs import read_metrics, read_report
from vae.losses import LossConfig
from vae.model import GSCAutoencoder
from vae.objective import Objective
from vae.optim import MovingAverage, OptimConfig, build_optimizer, learning_rate
from vae.recipes import MachineConfig, TrainRecipe
from vae.source import SourceConfig, held_out_pictures
from vae.train import train
from vae.trainee import Trainee

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


def kill_at(asked: TrainRecipe, out: Path, steps: int) -> None:
    """Train in a process of its own and kill it without warning once so many steps stand in its log."""
    program = (
        "import sys, vae_runs; from pathlib import Path;"
        "from vae.train import train; from vae.recipes import TrainRecipe;"
        "train(TrainRecipe.model_validate_json(sys.argv[1]), sys.argv[2], Path(sys.argv[3]),"
        " progress=lambda stage, done, total, counts: print(done, flush=True))"
    )
    here = Path(__file__).parent
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join((str(here), str(here.parent)))}
    arguments = [sys.executable, "-c", program, asked.model_dump_json(), HASH, str(out)]
    process = subprocess.Popen(arguments, env=environment, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True)
    with process:
        assert process.stdout is not None
        assert any(int(line) >= steps for line in process.stdout), "the run ended before it could be killed"
        process.send_signal(signal.SIGKILL)
    assert read_report(out) is None


def test_a_killed_process_goes_on_bit_for_bit(run: Path, whole: Path, tmp_path: Path) -> None:
    kill_at(recipe(run), tmp_path / "out", 12)
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


def terms_scaled(monkeypatch: pytest.MonkeyPatch, factors: dict[int, float]) -> None:
    """Multiply the loss of some steps, so that their gradients are spikes."""
    ordinary = Objective.terms

    def scaled(objective: Objective, step: int, *arguments: Any) -> dict[str, torch.Tensor]:
        terms = ordinary(objective, step, *arguments)
        return {name: term * factors.get(step, 1.0) for name, term in terms.items()}

    monkeypatch.setattr(Objective, "terms", scaled)


def test_a_spike_is_left_out(run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(vae.guard, "MIN_HISTORY", 5)
    terms_scaled(monkeypatch, {2: 1e4, 12: 1e4, 15: 3.0})
    report = train(recipe(run, steps=20), HASH, tmp_path / "out")
    finite = [r["finite"] for r in read_metrics(tmp_path / "out") if r["kind"] == "step"]
    assert [step for step, good in enumerate(finite) if not good] == [12]  # 2: too early to know, 15: no spike
    assert report.skipped_steps == 1


def test_weights_that_went_astray_are_set_back_and_the_run_goes_on(
    run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    terms_scaled(monkeypatch, {step: float("nan") for step in range(12, 22)})
    train(recipe(run), HASH, tmp_path / "out")
    records = read_metrics(tmp_path / "out")
    (note,) = [r for r in records if r["kind"] == "note"]
    assert note["step"] == 22
    assert "the weights are those of step 20 again" in note["text"]
    assert [r["finite"] for r in records if r["kind"] == "step"] == [True] * 12 + [False] * 10 + [True] * 8
    # The same again, stopped in the middle of it: the guard remembers through the checkpoint of step 15.
    ordinary = Feed.batch

    def interrupted(feed: Feed, step: int) -> object:
        if step == 17:
            raise KeyboardInterrupt
        return ordinary(feed, step)

    monkeypatch.setattr(Feed, "batch", interrupted)
    with pytest.raises(KeyboardInterrupt):
        train(recipe(run), HASH, tmp_path / "again")
    monkeypatch.setattr(Feed, "batch", ordinary)
    train(recipe(run), HASH, tmp_path / "again")
    assert same_weights(tmp_path / "out", tmp_path / "again")
    assert [r for r in read_metrics(tmp_path / "again") if r["kind"] == "note"] == [note]


def test_what_does_not_help_twice_is_not_tried_again(
    run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(vae.guard, "PATIENCE", 2)
    terms_scaled(monkeypatch, {step: float("nan") for step in range(6, 30)})
    with pytest.raises(BadInput, match=r"spike, for 10 steps up to step 11: lower optim\.lr"):
        train(recipe(run), HASH, tmp_path / "out")
    assert len([r for r in read_metrics(tmp_path / "out") if r["kind"] == "note"]) == 2


def test_the_best_checkpoint_stays_beside_the_last(run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    ordinary, scores = vae.train.validate, iter([0.0, 30.0, 40.0, 35.0])

    def scored(*arguments: Any) -> Any:
        measured = ordinary(*arguments)
        measured.psnr_db["stripes"] = next(scores)
        return measured

    monkeypatch.setattr(vae.train, "validate", scored)
    train(recipe(run), HASH, tmp_path / "out")
    kept = sorted(path.name for path in (tmp_path / "out/checkpoints").iterdir())
    assert kept == ["00000020", "00000025", "00000030"]


def test_too_little_memory_says_what_to_lower(run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    ordinary = Trainee.forward

    def full(trainee: Trainee, images: torch.Tensor) -> object:
        if torch.is_grad_enabled() and images.shape[0] > 2:
            raise torch.OutOfMemoryError("CUDA out of memory")
        return ordinary(trainee, images)

    monkeypatch.setattr(Trainee, "forward", full)
    expected = (
        r"memory does not suffice for 4 pictures of 32x32 px at once in step 0: raise machine\.accumulate \(now 1\), "
        r"or set machine\.activation_checkpointing to true, or lower batch"
    )
    with pytest.raises(BadInput, match=expected):
        train(recipe(run, steps=2), HASH, tmp_path / "out")
    report = train(recipe(run, steps=2, machine=MachineConfig(accumulate=2)), HASH, tmp_path / "out")
    assert report.skipped_steps == 0


def test_a_decoder_is_tuned_while_the_encoder_stays(run: Path, whole: Path, tmp_path: Path) -> None:
    tuned = recipe(run, steps=4, trained="decoder", start_from=str(whole / "ema"))
    train(tuned, HASH, tmp_path / "out")
    before, after = (GSCAutoencoder.from_pretrained(folder) for folder in (whole / "ema", tmp_path / "out/model"))
    for name, tensor in before.state_dict().items():
        same = torch.equal(tensor, after.state_dict()[name])
        assert same == (not name.startswith("decoder") or "deep_mirror" in name), name
    assert after.config.latents_mean is not None


def test_another_model_is_no_start(run: Path, whole: Path, tmp_path: Path) -> None:
    other = recipe(run).model.model_copy(update={"latent_channels": 12})
    with pytest.raises(BadInput, match=r"is another model: latent_channels is 6, the recipe's model has 12"):
        train(recipe(run, model=other, start_from=str(whole / "ema")), HASH, tmp_path / "out")
    with pytest.raises(BadInput, match=r"start_from: .* holds no model"):
        train(recipe(run, start_from=str(tmp_path)), HASH, tmp_path / "out")
    shutil.copytree(whole / "ema", tmp_path / "diverged")
    file = tmp_path / "diverged/diffusion_pytorch_model.safetensors"
    tensors = load_file(file)
    tensors["decoder.conv_in.bias"][0] = float("nan")
    save_file(tensors, file, {"format": "pt"})
    with pytest.raises(BadInput, match=r"diverged holds weights that are not finite"):
        train(recipe(run, start_from=str(tmp_path / "diverged")), HASH, tmp_path / "out")
    shutil.copytree(whole / "checkpoints", tmp_path / "other/checkpoints")
    with pytest.raises(BadInput, match=r"00000030: is of another model; \d+ tensors differ, such as autoencoder\."):
        train(recipe(run, model=other), HASH, tmp_path / "other")


def test_bf16_trains_within_its_precision(run: Path, tmp_path: Path) -> None:
    losses = []
    for precision in ("float32", "bfloat16"):
        train(recipe(run, steps=8, machine=MachineConfig(precision=precision)), HASH, tmp_path / precision)
        losses.append([r["loss"] for r in read_metrics(tmp_path / precision) if r["kind"] == "step"])
    np.testing.assert_allclose(losses[1], losses[0], rtol=0.02)
    assert losses[0] != losses[1]
    assert all(tensor.dtype == torch.float32 for tensor in weights(tmp_path / "bfloat16").values())


def test_events_hold_curves_and_pictures(run: Path, whole: Path) -> None:
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    events = EventAccumulator(str(whole / "tensorboard"), size_guidance={"images": 0})
    events.Reload()
    tags = events.Tags()
    expected = ["train/loss", "train/grad_norm", "terms/mse", "terms_by_source/stripes/mse", "share_realised/stripes"]
    expected += ["speed/images_per_s", "speed/data_wait_share", "validation_psnr_db/stripes", "validation_ssim/stripes"]
    assert set(expected) <= set(tags["scalars"])
    assert [event.step for event in events.Images("original_above_reconstruction/stripes")] == [0, 10, 20, 30]
    assert events.Images("original_above_reconstruction/stripes")[0].height == 96
    assert [event.value for event in events.Scalars("share_realised/stripes")] == [1.0] * 30
    records = [record for record in read_metrics(whole) if record["kind"] == "step"]
    logged = {
        "train/loss": [record["loss"] for record in records],
        "train/lr": [record["lr"] for record in records],
        "train/grad_norm": [record["grad_norm"] for record in records],
        "terms_by_source/stripes/mse": [record["terms_by_source"]["stripes"]["mse"] for record in records],
    }
    for tag, values in logged.items():
        assert [event.step for event in events.Scalars(tag)] == list(range(30)), tag
        assert [event.value for event in events.Scalars(tag)] == pytest.approx(values, rel=1e-6), tag
    waited = [event.value for event in events.Scalars("speed/data_wait_share")]
    seconds, data = (sum(record[name] for record in records) for name in ("seconds", "data_seconds"))
    assert waited[-1] == pytest.approx(data / seconds, rel=1e-3)
    speed = events.Scalars("speed/images_per_s")[-1].value
    assert speed == pytest.approx(sum(record["pictures"] for record in records) / seconds, rel=1e-3)
    # Above the pictures as they were held out, below what the weights of that step make of them.
    first, last = (
        np.asarray(
            Image.open(io.BytesIO(events.Images("original_above_reconstruction/stripes")[i].encoded_image_string))
        )
        for i in (0, -1)
    )
    source = open_source(SourceConfig(name="stripes", run=str(run)), 32, 0.2)
    originals = np.concatenate([picture for _, picture in held_out_pictures(source, 4, 48)], axis=1)
    assert np.array_equal(first[:48], originals)
    assert np.array_equal(last[:48], originals)
    error = [np.square(sheet[48:].astype(float) - originals).mean() for sheet in (first, last)]
    assert error[1] < error[0]


def test_other_trackers_come_through_accelerate(run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("wandb", "trackio"):
        with pytest.raises(BadInput, match=rf"machine\.trackers: {name} is not installed"):
            train(recipe(run, steps=1, machine=MachineConfig(trackers=(name,))), HASH, tmp_path / "none")  # type: ignore[arg-type]
    seen: list[tuple[str, object]] = []
    run_of = types.SimpleNamespace(
        log=lambda values, step: seen.append(("log", values)), finish=lambda: seen.append(("finish", None))
    )
    settings = types.SimpleNamespace(update=lambda values, allow_val_change: seen.append(("settings", values)))
    trackio = types.SimpleNamespace(init=lambda project: run_of, config=settings)
    monkeypatch.setitem(sys.modules, "trackio", trackio)
    monkeypatch.setattr(accelerate.tracking, "get_available_trackers", lambda: ["trackio"])
    train(recipe(run, steps=1, machine=MachineConfig(trackers=("trackio",))), HASH, tmp_path / "out")
    assert [kind for kind, _ in seen] == ["settings", "log", "log", "log", "finish"]
    assert seen[0][1]["steps"] == 1  # type: ignore[index]
    assert "validation_psnr_db/stripes" in seen[1][1]  # type: ignore[operator]
    assert "train/loss" in seen[2][1]  # type: ignore[operator]


def test_text_is_read_at_a_validation(run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    class Reader:
        def read_page(self, image_HW3: np.ndarray) -> list[Any]:
            word = "abcdefgh"[: 6 + int(image_HW3.mean()) % 2]
            return [types.SimpleNamespace(text=word)]

    monkeypatch.setattr(vae.train, "open_recognizer", lambda name, threads: Reader())
    train(recipe(run, steps=1, validate_read=2), HASH, tmp_path / "out")
    ends = [r["ned"]["stripes"] for r in read_metrics(tmp_path / "out") if r["kind"] == "validation"]
    assert len(ends) == 2
    assert all(6 / 7 <= ned <= 1 for ned in ends)
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    events = EventAccumulator(str(tmp_path / "out/tensorboard"))
    events.Reload()
    assert [event.value for event in events.Scalars("validation_ned/stripes")] == pytest.approx(ends)


@pytest.mark.slow
def test_sixty_steps_survive_three_kills_bit_for_bit(run: Path, tmp_path: Path) -> None:
    long = recipe(run, steps=60, checkpoint_every=7)
    train(long, HASH, tmp_path / "whole")
    for stop in (9, 26, 51):
        kill_at(long, tmp_path / "out", stop)
    train(long, HASH, tmp_path / "out")
    assert same_weights(tmp_path / "whole", tmp_path / "out")


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
        (
            {"model": GSCConfig(encoder_widths=(8, 8, 48), decoder_widths=(8, 8, 16), latent_channels=6, skip="lsc")},
            "this model cannot be built: skip lsc: 8 features cannot be folded into the 48 of a level",
        ),
        (
            {"model": GSCConfig(encoder_widths=(8, 8, 8), decoder_widths=(8, 8, 24), latent_channels=6, skip="lsc")},
            "skip lsc: 24 features cannot be unfolded into the 8 of a level",
        ),
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
