"""The trainer: a plain loop over a curriculum, whose every step is a function of the recipe and the step number.

A run folder holds
- `checkpoints/`   see `vae/checkpoint.py`
- `metrics.jsonl`  one line a step (losses by source and term, learning rate, gradient norm, seconds), one a validation
- `tensorboard/`   the same as events, and reconstructions as pictures
- `model/`, `ema/` the finished models, for `GSCAutoencoder.from_pretrained`
- `recipe.yaml`, `versions.json`  what was asked for, and of which libraries
- `report.json`    written last: a folder that holds it is finished
"""

import itertools
import os
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager
from dataclasses import dataclass
from pathlib import Path

import torch

from datagen.ocr import Recognizer, open_recognizer
from fonts_manifest.errors import BadInput
from vae.blocks import ResBlock
from vae.checkpoint import Trained, latest_checkpoint, load_checkpoint, save_checkpoint
from vae.distributed import Ranks, joined, parallel, whole
from vae.family import build_model
from vae.feed import StagedFeed
from vae.guard import PATIENCE, Guard
from vae.loader import Arrival, arrivals
from vae.logs import SilentLog, TrainLog, TrainReport, describe, explained, read_report, write_report
from vae.model import GSCAutoencoder
from vae.objective import Objective
from vae.optim import MovingAverage, build_optimizer
from vae.recipes import TrainRecipe
from vae.step import Run, train_step
from vae.trainee import Trainee, initial_autoencoder
from vae.validation import HeldOut, open_held_out, validate

Progress = Callable[[str, int, int, Mapping[str, int | str]], object]
"""Called with a stage, how much of it is done, of how much, and what to show beside it."""

FIT_CELLS = 20_000
"""Cells from which a PCA basis is fitted: 26 for each of the 768 numbers of an f16 cell."""


def train(
    recipe: TrainRecipe,
    recipe_hash: str,
    out: Path,
    *,
    recipe_yaml: str = "",
    progress: Progress = lambda stage, done, total, counts: None,
) -> TrainReport:
    """Train to the end, going on from the newest whole checkpoint in `out`; a finished folder is only read.

    Killed at any moment, the run that goes on gives the same weights bit for bit (on a CPU, with the same number of
    threads and processes). Started by `torchrun` or `accelerate launch`, all processes call this alike. `recipe_yaml`
    is kept beside the output; `progress` is called after every step (`datagen.progress` draws the bar). Raises BadInput
    for data or a recipe that does not fit, a folder of another recipe, a full disk or memory, training that diverges.
    """
    finished = read_report(out)
    if finished is not None:
        _check_hash(out, finished.recipe_hash, recipe_hash)
        return finished
    with joined(recipe.machine.device) as ranks:
        run = _prepare(recipe, ranks)
        judge = _Judge.open(run)
        start, notes = _resume(run, out / "checkpoints", recipe_hash)
        ranks.wait()  # nobody writes before everybody has read
        with _open_log(run, out, start, recipe_yaml) as log:
            for note in notes:
                log.note(start, note)
            with _arrivals(run, start) as coming:
                if start == 0:
                    judge.validate(run, log, 0)
                _loop(run, judge, out, recipe_hash, coming, log, progress)
        _save_models(run, out)
        if ranks.is_main:
            for source in run.feed.sources:
                source.finish()
            write_report(out, recipe_hash, run.feed.sources)
        ranks.wait()
    report = read_report(out)
    assert report is not None, "written above"  # noqa: S101
    return report


def _arrivals(run: Run, start: int) -> AbstractContextManager[Iterator[Arrival]]:
    """The batches of all steps from `start` on, made as the machine's settings say."""
    machine = run.recipe.machine
    # On a CPU a thread would take turns with OpenMP's.
    on_gpu = run.ranks.device.type == "cuda"
    return arrivals(
        run.feed, start, run.recipe.steps, workers=machine.loader_workers, ahead=on_gpu, ray=machine.loader_ray
    )


def _loop(
    run: Run,
    judge: "_Judge",
    out: Path,
    recipe_hash: str,
    coming: Iterator[Arrival],
    log: TrainLog,
    progress: Progress,
) -> None:
    """All steps that come: train, log, set back what went astray, validate, keep."""
    recipe, stage_starts = run.recipe, {stage.from_step for stage in run.recipe.stages}
    for step, batch, waited, first in coming:
        began = time.perf_counter()
        if step in stage_starts:
            run.guard.forget()
        record = train_step(run, step, batch)
        run.trained.ema.update(run.trainee.autoencoder, step)
        seconds = time.perf_counter() - began + waited
        log.step({**record, "seconds": seconds, "data_seconds": waited, "first": first})
        done, score = step + 1, None
        astray = run.guard.astray
        if astray:
            log.note(done, _set_back(run, out / "checkpoints", step))
        if done % recipe.validate_every == 0 or done == recipe.steps:
            score = judge.validate(run, log, done)
        if astray or done % recipe.checkpoint_every == 0 or done == recipe.steps:
            log.flush()
            save_checkpoint(
                out / "checkpoints",
                done,
                run.trained,
                recipe_hash=recipe_hash,
                data=run.feed.state(done),
                guard=run.guard.state(),
                keep_last=recipe.keep_checkpoints,
                score=score,
                writes=run.ranks.is_main,
            )
            run.ranks.wait()
        progress("train", done, recipe.steps, {"loss": f"{record['loss']:.4f}"})


def _prepare(recipe: TrainRecipe, ranks: Ranks) -> Run:
    """Data, model at its start, losses, optimizer. Raises BadInput."""
    curriculum = recipe.curriculum
    autoencoder = initial_autoencoder(recipe.model, recipe.start_from, recipe.seed)
    if recipe.validate_px % autoencoder.compression:
        raise BadInput(
            f"validate_px must be a multiple of the compression {autoencoder.compression}, got {recipe.validate_px}"
        )
    objective = Objective(recipe.losses, autoencoder.compression, recipe.seed).to(ranks.device)
    place = {"rank": ranks.rank, "world": ranks.world}
    feed = StagedFeed(curriculum, recipe.sources, recipe.hold_out, with_quads=objective.wants_quads, **place)
    if recipe.model.skip_basis == "pca" and recipe.model.basis_file is None and recipe.start_from is None:
        _fit_skip(feed.alone(), autoencoder)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(recipe.seed + 1)
        trainee = Trainee(autoencoder, objective.feature_width, recipe.trained)
    # Convolutions in this layout take 0.42 s a step instead of 0.68 (16 crops of 64 px, one core).
    if recipe.machine.strategy == "ddp":  # FSDP2 shares rows out, and refuses another layout
        trainee.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    trainee.train()
    if recipe.machine.activation_checkpointing:
        autoencoder.enable_gradient_checkpointing()
    if recipe.machine.compile:
        torch._dynamo.config.recompile_limit = max(8, 2 * len(curriculum.shapes))
        autoencoder.encoder.compile()
        autoencoder.decoder.compile()
    module = parallel(trainee, ranks, recipe.machine.strategy, ResBlock)
    trained = Trained(
        trainee, MovingAverage(autoencoder, recipe.optim.ema_decay), build_optimizer(trainee, recipe.optim)
    )
    return Run(recipe, ranks, feed, trained, trainee, module, objective, Guard(recipe.spike_factor))


def _fit_skip(feed: StagedFeed, model: GSCAutoencoder) -> None:
    """The principal components of the first batches, whole ones, so that the number of processes changes nothing."""
    side, cells_N3ff = model.compression, torch.empty(0, 3, model.compression, model.compression)
    for step in itertools.count():
        cells_B3hwff = feed.batch(step).images_B3HW.unfold(2, side, side).unfold(3, side, side)
        cells_N3ff = torch.cat([cells_N3ff, cells_B3hwff.permute(0, 2, 3, 1, 4, 5).flatten(0, 2)])
        if len(cells_N3ff) >= FIT_CELLS:
            break
    model.fit_skip(cells_N3ff)


def _resume(run: Run, checkpoints: Path, recipe_hash: str) -> tuple[int, list[str]]:
    """Go on from the newest whole checkpoint: the step to begin with, and what was found damaged."""
    checkpoint, problems = latest_checkpoint(checkpoints)
    if checkpoint is None:
        return 0, problems
    _check_hash(checkpoint.folder, checkpoint.recipe_hash, recipe_hash)
    run.feed.check_state(checkpoint.step, checkpoint.data)
    load_checkpoint(checkpoint, run.trained)
    run.guard.load(checkpoint.guard)
    return checkpoint.step, problems


def _set_back(run: Run, checkpoints: Path, step: int) -> str:
    """Bring back the weights of the last checkpoint and go on with the pictures that come next; says so.

    Raises BadInput when there is none, or it has not helped before.
    """
    checkpoint, _ = latest_checkpoint(checkpoints)
    if checkpoint is None or run.guard.hopeless:
        raise BadInput(
            f"the loss was not finite, or its gradient a spike, for {PATIENCE} steps up to step {step}: lower optim.lr "
            f"(now {run.recipe.optim.lr}) and start again in another output folder"
        )
    load_checkpoint(checkpoint, run.trained)
    run.guard.set_back()
    return (
        f"{PATIENCE} steps up to step {step} were refused (loss not finite, or gradient a spike): "
        f"the weights are those of step {checkpoint.step} again"
    )


@dataclass(frozen=True, slots=True)
class _Judge:
    """Measures the moving average of the weights on held-out pictures."""

    held_out: list[HeldOut]
    recognizer: Recognizer | None

    @classmethod
    def open(cls, run: Run) -> "_Judge":
        recipe = run.recipe
        wanted = recipe.validate_read and run.ranks.is_main
        recognizer = open_recognizer("rapidocr", threads=os.cpu_count() or 1) if wanted else None
        pictures = (recipe.validate_pictures, recipe.validate_px, recognizer, recipe.validate_read)
        return cls(open_held_out(run.feed.sources, *pictures), recognizer)

    def validate(self, run: Run, log: TrainLog, step: int) -> float | None:
        """The score after `step` steps; None on processes that take no part."""
        if not run.takes_part:
            return None
        average = run.trained.ema
        if step:
            average.swap(run.trainee.autoencoder)
        measured = validate(run.reconstruct, self.held_out, self.recognizer)
        if step:
            average.swap(run.trainee.autoencoder)
        log.validation(step, measured, self.held_out)
        return measured.score


def _open_log(run: Run, out: Path, start: int, recipe_yaml: str) -> TrainLog:
    if not run.ranks.is_main:
        return SilentLog()
    log = TrainLog(out, start, run.recipe.machine.trackers, run.recipe.model_dump(mode="json"))
    describe(out, recipe_yaml)
    return log


def _check_hash(where: Path, found: str, wanted: str) -> None:
    if found != wanted:
        raise BadInput(
            f"{where}: was trained by another recipe (hash {found}, this one has {wanted}); name another folder, "
            "or remove this one to start over"
        )


@torch.no_grad()
def _save_models(run: Run, out: Path) -> None:
    """The trained weights and their average, each with the statistics of its latents."""
    if not run.takes_part:
        return
    model, whole_feed = run.trainee.autoencoder, run.feed.alone()
    for name in ("model", "ema"):
        if name == "ema":
            run.trained.ema.swap(model)
        latents = []
        for step in range(min(8, run.recipe.steps)):
            images = whole_feed.batch(step).images_B3HW.to(run.ranks.device)
            latents.append(run.trainee(images).latents_BChw.transpose(0, 1).flatten(1).float())
        flat_CN = torch.cat(latents, dim=1)
        weights = {key: whole(tensor).cpu() for key, tensor in model.state_dict().items()}
        if run.ranks.is_main:
            saved = build_model(run.recipe.model.model_copy(update={"basis_file": None}))  # it is in the weights
            saved.load_state_dict(weights)
            saved.register_to_config(latents_mean=flat_CN.mean(1).tolist(), latents_std=flat_CN.std(1).tolist())
            with explained(out):
                saved.save_pretrained(out / name)
