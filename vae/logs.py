"""What a training run says of itself: `metrics.jsonl`, TensorBoard, other trackers through accelerate, its report.

Legend: B pictures, H W pixels.
"""

import contextlib
import json
import os
from collections import deque
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np

from datagen.recipes import library_versions
from fonts_manifest.errors import BadInput
from vae.source import Source
from vae.validation import HeldOut, Validation

SHOWN = 4
"""Pictures of each source that are shown beside their reconstructions."""

_WINDOW = 50
"""Steps over which speed and waiting are averaged."""


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
    first_data_seconds: float = 0.0
    """The part of that before the first step of every sitting, in which what makes batches starts."""
    skipped_steps: int
    """Steps left out because loss or gradient was not finite, or the gradient a spike."""
    sources: dict[str, dict[str, int]]
    """Name -> pictures for training, held out, too small, of other density; for the first stage."""
    psnr_start_db: dict[str, float]
    """Name -> mean over the held-out pictures before the first step: with a mirror, the bare linear skip."""
    psnr_end_db: dict[str, float]
    """The same after the last step, with the moving average of the weights."""
    model: str
    """Folder of the trained weights, relative to the run folder."""
    ema: str
    """Folder of their moving average."""

    @property
    def data_wait_share(self) -> float:
        """Of the steps' time, the part that waited for pictures once they had begun to come, 0 to 1."""
        flowing_s = self.seconds - self.first_data_seconds
        return (self.data_seconds - self.first_data_seconds) / max(flowing_s, 1e-9)


class TrainLog:
    """One line a step, a validation, a note; lines after the checkpoint that a run goes on from are dropped."""

    def __init__(
        self, out: Path, start: int, trackers: Sequence[str] = (), settings: dict[str, Any] | None = None
    ) -> None:
        """settings: the recipe, for trackers. Raises BadInput when a file cannot be written or a tracker is absent."""
        from torch.utils.tensorboard import SummaryWriter  # 2 s: only when training

        self._out = out
        self._trackers = [_open_tracker(name, out, settings or {}) for name in trackers]
        self._recent: deque[dict[str, float]] = deque(maxlen=_WINDOW)
        with explained(out):
            out.mkdir(parents=True, exist_ok=True)
            # A validation or a note belongs to the number of finished steps, a step's line to the one before.
            kept = [r for r in read_metrics(out) if r["step"] + (r["kind"] == "step") <= start] if start else []
            temporary = out / ".metrics.jsonl.tmp"
            temporary.write_text("".join(json.dumps(record) + "\n" for record in kept))
            os.replace(temporary, out / "metrics.jsonl")
            self._file = (out / "metrics.jsonl").open("a")
        self._events = SummaryWriter(str(out / "tensorboard"), purge_step=start)

    def step(self, record: dict[str, Any]) -> None:
        """A finished step: `vae/train.py` says what stands in it."""
        self._write({"kind": "step", **record})
        self._recent.append({key: record[key] for key in ("seconds", "data_seconds", "pictures")})
        seconds = sum(one["seconds"] for one in self._recent)
        scalars = {f"train/{name}": record[name] for name in ("loss", "lr", "grad_norm")}
        scalars |= {f"terms/{name}": value for name, value in record["terms"].items()}
        scalars |= {f"loss_by_source/{name}": loss for name, (_, loss) in record["by_source"].items()}
        for source, terms in record["terms_by_source"].items():
            scalars |= {f"terms_by_source/{source}/{name}": value for name, value in terms.items()}
        for kind in ("share_scheduled", "share_realised"):
            scalars |= {f"{kind}/{name}": share for name, share in record[kind].items()}
        scalars["speed/images_per_s"] = sum(one["pictures"] for one in self._recent) / seconds
        scalars["speed/data_wait_share"] = sum(one["data_seconds"] for one in self._recent) / seconds
        self._send(scalars, record["step"])

    def validation(self, step: int, measured: Validation, held_out: Sequence[HeldOut]) -> None:
        """Figures and pictures of a validation after `step` steps."""
        figures = {"psnr_db": measured.psnr_db, "ssim": measured.ssim, "ned": measured.ned}
        self._write({"kind": "validation", "step": step, **figures})
        self._send({f"validation_{metric}/{name}": v for metric, of in figures.items() for name, v in of.items()}, step)
        for part in held_out:
            pair = [pictures[:SHOWN] for pictures in (part.pictures_BHW3, measured.outputs[part.name])]
            sheet_HW3 = np.concatenate([np.concatenate(list(row), axis=1) for row in pair], axis=0)
            self._events.add_image(f"original_above_reconstruction/{part.name}", sheet_HW3, step, dataformats="HWC")
        self.flush()

    def note(self, step: int, text: str) -> None:
        """Something that a person should know."""
        self._write({"kind": "note", "step": step, "text": text})
        self._events.add_text("notes", text, step)

    def flush(self) -> None:
        """A checkpoint must not be ahead of the log on the disk."""
        with explained(self._out):
            self._file.flush()
            os.fsync(self._file.fileno())
            self._events.flush()

    def __enter__(self) -> "TrainLog":
        return self

    def __exit__(self, *_: object) -> None:
        self.flush()
        self._file.close()
        self._events.close()
        for tracker in self._trackers:
            tracker.finish()

    def _write(self, record: dict[str, Any]) -> None:
        with explained(self._out):
            self._file.write(json.dumps(record) + "\n")

    def _send(self, scalars: dict[str, float], step: int) -> None:
        for name, value in scalars.items():
            self._events.add_scalar(name, value, step)
        for tracker in self._trackers:
            tracker.log(scalars, step=step)


class SilentLog(TrainLog):
    """The log of the processes that write none."""

    def __init__(self) -> None:
        self._trackers = []

    def step(self, record: dict[str, Any]) -> None:
        """Nothing."""

    def validation(self, step: int, measured: Validation, held_out: Sequence[HeldOut]) -> None:
        """Nothing."""

    def note(self, step: int, text: str) -> None:
        """Nothing."""

    def flush(self) -> None:
        """Nothing."""

    def __exit__(self, *_: object) -> None:
        """Nothing."""


def _open_tracker(name: str, out: Path, settings: dict[str, Any]) -> Any:
    from accelerate import PartialState
    from accelerate.tracking import LOGGER_TYPE_TO_CLASS, get_available_trackers

    if name not in get_available_trackers():
        raise BadInput(f"machine.trackers: {name} is not installed; install it, or take it off the list")
    PartialState()  # the trackers ask it whether this is the process that logs
    tracker = LOGGER_TYPE_TO_CLASS[name](out.resolve().name)
    tracker.start()
    tracker.store_init_configuration(settings)
    return tracker


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


def describe(out: Path, recipe_yaml: str) -> None:
    """Leave the resolved recipe and the versions of the libraries beside the output."""
    versions = library_versions(("glyphmill", "torch", "diffusers", "numpy", "safetensors", "pyarrow"))
    with explained(out):
        for name, text in (("recipe.yaml", recipe_yaml), ("versions.json", json.dumps(versions, indent=1))):
            if text:
                (out / name).write_text(text)


def read_report(out: Path) -> TrainReport | None:
    """The report of a finished run; None when the run in `out` is not finished. Raises BadInput when it is damaged."""
    path = out / "report.json"
    if not path.exists():
        return None
    try:
        return TrainReport(**json.loads(path.read_text()))
    except (ValueError, TypeError, OSError) as error:
        raise BadInput(f"{path}: is no report of a training run ({error})") from error


def write_report(
    out: Path, recipe_hash: str, sources: Sequence[Source], *, model: str = "model", ema: str = "ema"
) -> TrainReport:
    """Sum up the log of a run that has come to its end; the file is written whole or not at all."""
    records = read_metrics(out)
    steps = [record for record in records if record["kind"] == "step"]
    validations = [record for record in records if record["kind"] == "validation"]
    report = TrainReport(
        recipe_hash=recipe_hash,
        steps=len(steps),
        pictures=sum(record["pictures"] for record in steps),
        seconds=round(sum(record["seconds"] for record in steps), 3),
        data_seconds=round(sum(record["data_seconds"] for record in steps), 3),
        first_data_seconds=round(sum(record["data_seconds"] for record in steps if record.get("first")), 3),
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
        model=model,
        ema=ema,
    )
    with explained(out):
        temporary = out / ".report.json.tmp"
        temporary.write_text(json.dumps(asdict(report), indent=1))
        os.replace(temporary, out / "report.json")
    return report


@contextlib.contextmanager
def explained(out: Path) -> Iterator[None]:
    """A full or missing disk ends the command with a sentence."""
    try:
        yield
    except OSError as error:
        raise BadInput(f"{out}: cannot be written ({error})") from error
