"""Training that cannot go on: steps left out, weights set back, and the sentence when nothing helps."""

from pathlib import Path
from typing import Any

import pytest
import torch
from train_runs import HASH, recipe, same_weights, weights

import vae.guard
import vae.train
from fonts_manifest.errors import BadInput
from vae.family import GSCConfig
from vae.feed import Feed
from vae.logs import read_metrics
from vae.objective import Objective
from vae.recipes import MachineConfig
from vae.train import train
from vae.trainee import Trainee


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


def test_too_little_memory_says_what_to_lower(run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    ordinary = Trainee.forward

    def full(trainee: Trainee, images: torch.Tensor) -> object:
        if torch.is_grad_enabled() and images.shape[0] > 2:
            torch.empty(1 << 60)  # a CPU's own way to say it; a GPU has an exception for it
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
