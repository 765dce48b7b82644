"""The trainer: it learns, survives being killed to the bit, and saves what it has learned."""

import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file
from train_runs import HASH, kill_at, recipe, same_weights, weights

import vae.guard
import vae.train
from fonts_manifest.errors import BadInput
from vae.checkpoint import latest_checkpoint
from vae.feed import Feed
from vae.logs import read_metrics, read_report
from vae.model import GSCAutoencoder
from vae.recipes import MachineConfig
from vae.train import train


def test_it_learns_more_than_its_linear_skip(run: Path, tmp_path: Path) -> None:
    report = train(recipe(run, steps=120, checkpoint_every=120), HASH, tmp_path / "out")
    assert report.psnr_end_db["stripes"] > report.psnr_start_db["stripes"] + 0.3
    assert report.pictures == 480
    assert report.skipped_steps == 0


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
    records = [record for record in read_metrics(tmp_path / "out") if record["kind"] == "step"]
    assert [record["step"] for record in records] == list(range(30))
    assert {record["step"] for record in records if record["first"]} == {0, *(stop - stop % 5 for stop in stops)}
    validations = [record["step"] for record in read_metrics(tmp_path / "out") if record["kind"] == "validation"]
    assert validations == [0, 10, 20, 30]


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


@pytest.mark.slow
def test_sixty_steps_survive_three_kills_bit_for_bit(run: Path, tmp_path: Path) -> None:
    long = recipe(run, steps=60, checkpoint_every=7)
    train(long, HASH, tmp_path / "whole")
    for stop in (9, 26, 51):
        kill_at(long, tmp_path / "out", stop)
    train(long, HASH, tmp_path / "out")
    assert same_weights(tmp_path / "whole", tmp_path / "out")


def test_a_pca_skip_is_fitted_to_the_training_pictures(run: Path, tmp_path: Path) -> None:
    shape = recipe(run).model.model_copy(update={"skip_basis": "pca"})
    report = train(recipe(run, model=shape, steps=1), HASH, tmp_path / "out")
    logged = read_metrics(tmp_path / "out")[0]["psnr_db"]["stripes"]
    assert report.psnr_start_db["stripes"] == logged
    plain = train(recipe(run, steps=1), HASH, tmp_path / "plain")
    assert report.psnr_start_db["stripes"] > plain.psnr_start_db["stripes"] + 0.5
