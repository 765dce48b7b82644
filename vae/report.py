"""The demo's page: what was drawn, what was kept, what was learned, in one file for a person to look at."""

import os
import platform
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from html import escape
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from datagen.charts import lines_svg
from datagen.commit import read_rows
from datagen.page import facts, figure, grid, paragraph, table, write_page
from datagen.report import run_sections
from vae.bootstrap import Figure
from vae.evaluate import Row
from vae.logs import TrainReport, read_metrics, read_report

_SMOOTH = 20
"""Steps of the moving mean in the curve of the loss."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Comparison:
    """A held-out picture beside what codecs make of it, all uint8 (H, W, 3)."""

    set_name: str
    original_HW3: npt.NDArray[np.uint8]
    by_codec: Mapping[str, npt.NDArray[np.uint8]]


def write_demo_report(
    out: Path, rows: Sequence[Row], comparisons: Sequence[Comparison], seconds: Mapping[str, float]
) -> None:
    """Write `out`/report.html from the demo's finished stages. seconds: stage -> wall time over all sittings."""
    trained = read_report(out / "vae")
    assert trained is not None  # noqa: S101 - train() has just returned it
    sections = [
        ("The chain", _overview(out, seconds)),
        *((f"Synthetic: {heading.lower()}", html) for heading, html in run_sections(out / "synthetic")),
        *((f"Real: {heading.lower()}", html) for heading, html in run_sections(out / "real")),
        ("Training", _training(out, trained)),
        ("What the network adds to its skip", _figures(rows, trained) + _pictures(comparisons)),
    ]
    lead = "From font files to a measured autoencoder, on this machine, by one command: make demo."
    write_page(out / "report.html", "Glyphmill demo", lead, sections)


def _overview(out: Path, seconds: Mapping[str, float]) -> str:
    synthetic = read_rows(out / "synthetic", columns=["keep", "photo_id", "spec"]).to_pylist()
    real = read_rows(out / "real", columns=["keep"]).to_pylist()
    figures = [
        (f"{sum(row['keep'] for row in synthetic):,}", "synthetic pictures kept"),
        (f"{sum(not row['keep'] for row in synthetic):,}", "synthetic pictures dropped"),
        (f"{len({row['photo_id'] for row in synthetic})}", "photographs behind them"),
        (f"{sum(row['keep'] for row in real)} of {len(real)}", "real pictures and pages kept"),
        (f"{sum(seconds.values()) / 60:.1f} min", "wall time of all stages"),
    ]
    machine = f"{os.cpu_count()} cores, {platform.machine()}, Python {platform.python_version()}, {platform.system()}"
    stages = table(["stage", "seconds"], [[name, f"{value:.1f}"] for name, value in seconds.items()])
    return facts(figures) + stages + paragraph(f"Machine: {machine}.", note=True)


def _training(out: Path, trained: TrainReport) -> str:
    records = read_metrics(out / "vae")
    steps = [record for record in records if record["kind"] == "step"]
    checks = [record for record in records if record["kind"] == "validation"]
    losses = np.array([record["loss"] for record in steps])
    window = min(_SMOOTH, len(losses))
    smooth = np.convolve(losses, np.ones(window) / window, "valid")
    psnr = {
        source: ([record["step"] for record in checks], [record["psnr_db"][source] for record in checks])
        for source in checks[0]["psnr_db"]
    }
    gained = {source: (at, [value - values[0] for value in values]) for source, (at, values) in psnr.items()}
    shares = {source: (range(window - 1, len(steps)), _share(steps, source, window)) for source in trained.sources}
    charts = [
        lines_svg(
            {
                "every step": (range(len(losses)), list(losses)),
                f"mean of {window}": (range(window - 1, len(losses)), list(smooth)),
            },
            x_label="step",
            y_label="training loss",
            log_y=True,
        ),
        lines_svg(psnr, x_label="step", y_label="held-out PSNR, dB"),
        lines_svg(gained, x_label="step", y_label="PSNR gained over the skip, dB"),
        lines_svg(shares, x_label="step", y_label=f"share of the batch, mean of {window}"),
    ]
    pairs = [
        (f"{trained.steps:,}", "steps"),
        (f"{trained.pictures:,}", "crops trained on"),
        (f"{trained.seconds / 60:.1f} min", "wall time of the steps"),
        (f"{trained.data_wait_share:.1%}", "of it waiting for data"),
    ]
    header = ["source", "training", "held out", "too small", "of other density"]
    sources = [
        [name, *(f"{counts[key]:,}" for key in ("train", "held_out", "too_small", "other_density"))]
        for name, counts in trained.sources.items()
    ]
    return facts(pairs) + grid(charts, wide=True) + table(header, sources)


def _share(steps: Sequence[Mapping[str, Any]], source: str, window: int) -> list[float]:
    """The source's share of the pictures, moving mean over `window` steps."""
    shares = [
        step["by_source"].get(source, [0])[0] / sum(number for number, _ in step["by_source"].values())
        for step in steps
    ]
    return list(np.convolve(shares, np.ones(window) / window, "valid"))


def _figures(rows: Sequence[Row], trained: TrainReport) -> str:
    header = ["set and codec", "pictures", "PSNR dB", "gain dB", "SSIM", "NED", "read"]
    cells = []
    for row in rows:
        ned = ["not measured", "0"] if row.ned is None else [_figure(row.ned, 3), str(row.ned.pictures)]
        name = f"{row.set_name}: {row.codec}"
        gain = "" if row.gain_db is None or not row.gain_db.mean else _figure(row.gain_db, 2)
        cells.append([name, str(row.psnr_db.pictures), _figure(row.psnr_db, 2), gain, _figure(row.ssim, 3), *ned])
    cells.sort(key=lambda cell: cell[0].split(":")[0])
    gains = ", ".join(
        f"{name} {trained.psnr_end_db[name] - before:+.2f} dB" for name, before in trained.psnr_start_db.items()
    )
    note = (
        "Held-out pictures; brackets are 95 % bootstrap intervals of the mean. NED compares what OCR reads on the "
        "reconstruction with what it reads on the original; the first stage of that reader took part in the training "
        "too (losses.read). The untrained linear skip is the model before its first "
        "step: the difference is what was learned. Minutes on a CPU are a beginning, not the paper's training. "
        f"During training, on the smaller validation set: {gains}."
    )
    return table(header, cells) + paragraph(note, note=True)


def _figure(value: Figure, digits: int) -> str:
    return f"{value.mean:.{digits}f} [{value.low:.{digits}f}, {value.high:.{digits}f}]"


def _pictures(comparisons: Sequence[Comparison]) -> str:
    figures = []
    for comparison in comparisons:
        figures.append(figure(comparison.original_HW3, f"{escape(comparison.set_name)}: original"))
        figures += [figure(image_HW3, escape(codec)) for codec, image_HW3 in comparison.by_codec.items()]
    return f'<div class="grid three">{"".join(figures)}</div>'
