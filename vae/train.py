"""The trainer: a plain loop over a mixture, whose every step is a function of the recipe and the step number.

A run folder holds
- `checkpoints/`   see `vae/checkpoint.py`
- `metrics.jsonl`  one line a step (losses, by source too, learning rate, gradient norm, seconds), one a validation
- `tensorboard/`   the same as events
- `model/`, `ema/` the finished models, for `GSCAutoencoder.from_pretrained`
- `recipe.yaml`, `versions.json`  what was asked for, and of which libraries
- `report.json`    written last: a folder that holds it is finished

Legend: B pictures, H W pixels.
"""

import contextlib
import json
import math
import os
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch

from datagen.recipes import library_versions
from fonts_manifest.errors import BadInput
from vae.batch import Batch
from vae.checkpoint import latest_checkpoint, load_checkpoint, save_checkpoint
from vae.evaluate import Pictures, network, reconstruct
from vae.family import build_model
from vae.losses import reconstruction_terms
from vae.metrics import psnr
from vae.mixture import Feed, Mixture, Source, held_out_pictures, open_source
from vae.model import GSCAutoencoder
from vae.optim import MovingAverage, build_optimizer, learning_rate
from vae.recipes import TrainRecipe

Progress = Callable[[str, int, int, Mapping[str, int | str]], object]
"""Called with a stage, how much of it is done, of how much, and what to show beside it."""

MAX_SKIPPED_IN_A_ROW = 10
"""After so many non-finite steps one after the other training has diverged."""

FIT_CELLS = 20_000
"""Cells from which a PCA basis is fitted: 26 for each of the 768 numbers of an f16 cell."""


@dataclass(frozen=True, slots=True, kw_only=True)
class TrainReport:
    """What a finished run says of itself."""

    recipe_hash: str
    steps: int
    pictures: int
    """Crops trained on, with repetitions."""
    seconds: float
    """Wall time of the steps of all sittings, without validation and checkpoints."""
    data_seconds: float
    """The part of them that waited for pictures."""
    skipped_steps: int
    """Steps left out because loss or gradient was not finite."""
    sources: dict[str, dict[str, int]]
    """Name -> pictures for training, held out, too small, of other density."""
    psnr_start_db: dict[str, float]
    """Name -> mean over the held-out pictures before the first step: with a mirror, the bare linear skip."""
    psnr_end_db: dict[str, float]
    """The same after the last step, with the moving average of the weights."""
    model: str
    """Folder of the trained weights, relative to the run folder."""
    ema: str
    """Folder of their moving average."""


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
    threads). `recipe_yaml` is kept beside the output; `progress` is called after every step (`datagen.progress` draws
    the bar). Raises BadInput for data or a recipe that does not fit, a folder of another recipe, a full disk, or
    training that diverges.
    """
    finished = read_report(out)
    if finished is not None:
        _check_hash(out, finished.recipe_hash, recipe_hash)
        return finished
    model, feed, sources = _prepare(recipe)
    optimizer = build_optimizer(model, recipe.optim)
    ema = MovingAverage(model, recipe.optim.ema_decay)
    checkpoint, problems = latest_checkpoint(out / "checkpoints")
    start = 0
    if checkpoint is not None:
        _check_hash(checkpoint.folder, checkpoint.recipe_hash, recipe_hash)
        feed.check_state(checkpoint.step, checkpoint.data)
        load_checkpoint(checkpoint, model, ema, optimizer)
        start = checkpoint.step
    held_out = {source.name: _validation_pictures(source, recipe) for source in sources}
    skipped_in_a_row = 0

    with _Log(out, start) as log:
        _describe(out, recipe_yaml)
        for problem in problems:
            log.write({"kind": "note", "step": start, "text": problem})
        if start == 0:
            log.write({"kind": "validation", "step": 0, "psnr_db": validate(model, held_out)})
        for step in range(start, recipe.steps):
            began = time.perf_counter()
            batch = feed.batch(step)
            waited = time.perf_counter() - began
            rate = learning_rate(recipe.optim, step, recipe.steps)
            record = train_step(recipe, model, optimizer, batch, rate)
            ema.update(model, step)
            skipped_in_a_row = 0 if record["finite"] else skipped_in_a_row + 1
            record["by_source"] = _by_source(record.pop("each"), batch, feed)
            seconds = {"seconds": time.perf_counter() - began, "data_seconds": waited}
            log.write({"kind": "step", "step": step, **record, **seconds})
            if skipped_in_a_row == MAX_SKIPPED_IN_A_ROW:
                raise BadInput(
                    f"the loss was not finite for {skipped_in_a_row} steps up to step {step}: lower optim.lr (now "
                    f"{recipe.optim.lr}) and start again in another output folder"
                )
            done = step + 1
            if done % recipe.validate_every == 0 or done == recipe.steps:
                ema.swap(model)
                log.write({"kind": "validation", "step": done, "psnr_db": validate(model, held_out)})
                ema.swap(model)
            if done % recipe.checkpoint_every == 0 or done == recipe.steps:
                log.flush()
                folder, data = out / "checkpoints", feed.state(done)
                save_checkpoint(folder, done, recipe_hash, data, model, ema, optimizer, recipe.keep_checkpoints)
            progress("train", done, recipe.steps, {"loss": f"{record['loss']:.4f}"})
    _save_models(model, ema, feed, recipe, out)
    return _write_report(recipe, recipe_hash, sources, out)


def train_step(
    recipe: TrainRecipe, model: GSCAutoencoder, optimizer: torch.optim.Optimizer, batch: Batch, rate: float
) -> dict[str, Any]:
    """One optimizer step, left out when loss or gradient is not finite. Returns what the log keeps of it."""
    for group in optimizer.param_groups:
        group["lr"] = rate
    images_B3HW = batch.images_B3HW.contiguous(memory_format=torch.channels_last)
    terms = reconstruction_terms(recipe.losses, model(images_B3HW).sample, images_B3HW)
    each_B = torch.stack(list(terms.values())).sum(0)
    optimizer.zero_grad(set_to_none=True)
    each_B.mean().backward()
    norm = torch.nn.utils.clip_grad_norm_(model.parameters(), recipe.optim.max_grad_norm)
    finite = bool(torch.isfinite(norm)) and bool(torch.isfinite(each_B).all())
    if finite:
        optimizer.step()
    return {
        "finite": finite,
        "loss": float(each_B.detach().mean()),
        "terms": {name: float(term.detach().mean()) for name, term in terms.items()},
        "each": [round(value, 6) for value in each_B.detach().tolist()],
        "lr": rate,
        "grad_norm": float(norm),
    }


def validate(model: GSCAutoencoder, held_out: dict[str, Pictures]) -> dict[str, float]:
    """Mean PSNR in dB of each source's held-out pictures (B, H, W, 3), measured on 8-bit reconstructions."""
    figures = {}
    for name, pictures_BHW3 in held_out.items():
        output, target = (
            torch.from_numpy(x).double() / 255 for x in (reconstruct(network(model), pictures_BHW3), pictures_BHW3)
        )
        figures[name] = float(psnr(output, target).mean())
    return figures


def read_report(out: Path) -> TrainReport | None:
    """The report of a finished run; None when the run in `out` is not finished. Raises BadInput when it is damaged."""
    path = out / "report.json"
    if not path.exists():
        return None
    try:
        return TrainReport(**json.loads(path.read_text()))
    except (ValueError, TypeError, OSError) as error:
        raise BadInput(f"{path}: is no report of a training run ({error})") from error


def read_metrics(out: Path) -> list[dict[str, Any]]:
    """The lines of `metrics.jsonl`; a last line that was cut off is left out."""
    path = out / "metrics.jsonl"
    if not path.exists():
        return []
    records = []
    for line in path.read_text().splitlines():
        try:
            records.append(json.loads(line))
        except ValueError:
            break  # the writer was killed inside this line
    return records


def _prepare(recipe: TrainRecipe) -> tuple[GSCAutoencoder, Feed, list[Source]]:
    """The model at its start, the batches, the sources. Raises BadInput."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(recipe.seed)
        model = build_model(recipe.model)
    for name, size in (("crop_px", recipe.crop_px), ("validate_px", recipe.validate_px)):
        if size % model.compression:
            raise BadInput(f"{name} must be a multiple of the compression {model.compression}, got {size}")
    mixture = Mixture(
        names=tuple(source.name for source in recipe.sources),
        weights=tuple(source.weights for source in recipe.sources),
        batch=recipe.batch,
    )
    sources = [open_source(source, recipe.crop_px, recipe.hold_out) for source in recipe.sources]
    feed = Feed(mixture, sources, seed=recipe.seed, crop_px=recipe.crop_px)
    if recipe.model.skip_basis == "pca":
        cells = (recipe.crop_px // model.compression) ** 2 * recipe.batch
        model.fit_skip(torch.cat([feed.batch(step).images_B3HW for step in range(math.ceil(FIT_CELLS / cells))]))
    # Convolutions in this layout take 0.42 s a step instead of 0.68 (16 crops of 64 px, one core).
    return model.to(memory_format=torch.channels_last).train(), feed, sources


def _validation_pictures(source: Source, recipe: TrainRecipe) -> Pictures:
    pictures = held_out_pictures(source, recipe.validate_pictures, recipe.validate_px)
    if not pictures:
        raise BadInput(
            f"source {source.name}: none of its {source.held_out_rows} held-out pictures has {recipe.validate_px} px "
            "a side; lower validate_px or raise hold_out"
        )
    return np.stack([image for _, image in pictures])


def _by_source(each: list[float], batch: Batch, feed: Feed) -> dict[str, list[float]]:
    """Source name -> number of its pictures in the batch and their mean loss."""
    found: dict[str, list[float]] = {}
    for index, loss in zip(batch.source_ids, each, strict=True):
        found.setdefault(feed.mixture.names[index], []).append(loss)
    return {name: [len(losses), sum(losses) / len(losses)] for name, losses in found.items()}


def _describe(out: Path, recipe_yaml: str) -> None:
    """Leave the resolved recipe and the versions of the libraries beside the output."""
    versions = library_versions(("glyphmill", "torch", "diffusers", "numpy", "safetensors", "pyarrow"))
    with _explained(out):
        for name, text in (("recipe.yaml", recipe_yaml), ("versions.json", json.dumps(versions, indent=1))):
            if text:
                (out / name).write_text(text)


@contextlib.contextmanager
def _explained(out: Path) -> Iterator[None]:
    """A full or missing disk ends the command with a sentence."""
    try:
        yield
    except OSError as error:
        raise BadInput(f"{out}: cannot be written ({error})") from error


def _check_hash(where: Path, found: str, wanted: str) -> None:
    if found != wanted:
        raise BadInput(
            f"{where}: was trained by another recipe (hash {found}, this one has {wanted}); name another folder, "
            "or remove this one to start over"
        )


def _save_models(model: GSCAutoencoder, ema: MovingAverage, feed: Feed, recipe: TrainRecipe, out: Path) -> None:
    for name in ("model", "ema"):
        if name == "ema":
            ema.swap(model)
        latents = []
        with torch.no_grad():
            for step in range(min(8, recipe.steps)):
                latents.append(model.encode(feed.batch(step).images_B3HW).latent_dist.mode())
        flat_CN = torch.cat(latents).transpose(0, 1).flatten(1)
        model.register_to_config(latents_mean=flat_CN.mean(1).tolist(), latents_std=flat_CN.std(1).tolist())
        with _explained(out):
            model.save_pretrained(out / name)


def _write_report(recipe: TrainRecipe, recipe_hash: str, sources: list[Source], out: Path) -> TrainReport:
    records = read_metrics(out)
    steps = [record for record in records if record["kind"] == "step"]
    validations = [record for record in records if record["kind"] == "validation"]
    report = TrainReport(
        recipe_hash=recipe_hash,
        steps=recipe.steps,
        pictures=recipe.steps * recipe.batch,
        seconds=round(sum(record["seconds"] for record in steps), 3),
        data_seconds=round(sum(record["data_seconds"] for record in steps), 3),
        skipped_steps=sum(not record["finite"] for record in steps),
        sources={
            s.name: {
                "train": s.train_rows,
                "held_out": s.held_out_rows,
                "too_small": s.too_small,
                "other_density": s.other_density,
            }
            for s in sources
        },
        psnr_start_db=validations[0]["psnr_db"],
        psnr_end_db=validations[-1]["psnr_db"],
        model="model",
        ema="ema",
    )
    with _explained(out):
        temporary = out / ".report.json.tmp"
        temporary.write_text(json.dumps(asdict(report), indent=1))
        os.replace(temporary, out / "report.json")
    return report


class _Log:
    """`metrics.jsonl` and TensorBoard events; lines after the checkpoint that a run goes on from are dropped."""

    def __init__(self, out: Path, start: int) -> None:
        from torch.utils.tensorboard import SummaryWriter  # 2 s: only when training

        self._out = out
        with _explained(out):
            out.mkdir(parents=True, exist_ok=True)
            # A validation or a note belongs to the number of finished steps, a step's line to the one before.
            kept = [r for r in read_metrics(out) if r["step"] + (r["kind"] == "step") <= start] if start else []
            temporary = out / ".metrics.jsonl.tmp"
            temporary.write_text("".join(json.dumps(record) + "\n" for record in kept))
            os.replace(temporary, out / "metrics.jsonl")
            self._file = (out / "metrics.jsonl").open("a")
        self._events = SummaryWriter(str(out / "tensorboard"), purge_step=start)

    def write(self, record: dict[str, Any]) -> None:
        with _explained(self._out):
            self._file.write(json.dumps(record) + "\n")
        if record["kind"] == "step":
            for name in ("loss", "lr", "grad_norm"):
                self._events.add_scalar(f"train/{name}", record[name], record["step"])
            for name, (_, loss) in record["by_source"].items():
                self._events.add_scalar(f"loss_by_source/{name}", loss, record["step"])
        elif record["kind"] == "validation":
            for name, value in record["psnr_db"].items():
                self._events.add_scalar(f"validation_psnr_db/{name}", value, record["step"])
            self.flush()

    def __enter__(self) -> "_Log":
        return self

    def __exit__(self, *_: object) -> None:
        self.flush()
        self._file.close()
        self._events.close()

    def flush(self) -> None:
        """A checkpoint must not be ahead of the log on the disk."""
        with _explained(self._out):
            self._file.flush()
            os.fsync(self._file.fileno())
            self._events.flush()
