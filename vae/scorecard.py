"""What `glyphmill eval` found: figures with intervals, by group, what was left out and why, and the files it writes."""

import csv
import dataclasses
import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

import numpy as np

from datagen.reading import ReaderChoice
from vae.bootstrap import Figure, bootstrap
from vae.pairs import Folders
from vae.pixels import PixelChoice

Mode = Literal["ned", "pixel", "all"]

METRICS = {"psnr_db": "PSNR", "ssim": "SSIM", "lpips": "LPIPS"}
NEDS = {"ned": "NED", "ned_mended": "NED_mended", "ned_second": "NED_second"}
EQUAL_DB = 80.0
"""PSNR of equal pictures, by the 1e-8 that piq adds to the squared error."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ScoreChoice:
    """What is measured, and with what."""

    mode: Mode
    reader: ReaderChoice
    second: ReaderChoice | None = None
    """Another engine: a model trained against one reader must not be judged by it alone."""
    pixels: PixelChoice
    processes: int = 1
    batch: int = 8
    """Pairs that a process compares at once."""
    labels: Path | None = None
    readings: Path | None = None
    """A journal of readings to share between runs: originals are read once for any number of models."""


@dataclass(slots=True, kw_only=True)
class PairScore:
    """All that was measured on one pair; None where it was not, or could not be."""

    name: str
    groups: dict[str, str]
    """Kind of group (language, category) -> this picture's."""
    psnr_db: float | None = None
    ssim: float | None = None
    lpips: float | None = None
    ned: float | None = None
    """In the reader's own order of lines: the public benchmark's figure."""
    ned_mended: float | None = None
    """Lines in `reading_order`, of the same reading."""
    ned_second: float | None = None
    """By the second reader, in its own order."""
    equal: bool = False
    notes: list[str] = field(default_factory=list)
    left_out: dict[str, str] = field(default_factory=dict)
    """pixels, ned or ned_second -> why there is no figure."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Report:
    """A scored pair of folders."""

    results: dict[str, Any]
    """What results.json holds."""
    figures: dict[str, Figure | None]
    groups: dict[str, dict[str, dict[str, Figure | None]]]
    """Kind -> group -> metric -> figure."""
    pairs: list[PairScore]
    folders: Folders
    readers: dict[str, str]
    notes: list[str]
    """Sentences on everything that is not as the figures alone would make one think."""
    ned_details: dict[str, Any] | None


def _figure(scores: Iterable[PairScore], metric: str) -> Figure | None:
    values = [value for score in scores if (value := getattr(score, metric)) is not None]
    return bootstrap(np.array(values)) if values else None


def summarise(
    folders: Folders,
    scores: list[PairScore],
    fid: float | None,
    details: dict[str, Any] | None,
    readers: dict[str, str],
    choice: ScoreChoice,
) -> Report:
    names = (METRICS if choice.mode != "ned" else {}) | (NEDS if choice.mode != "pixel" else {})
    figures = {metric: _figure(scores, metric) for metric in names}
    kinds = sorted({kind for score in scores for kind in score.groups})
    groups = {
        kind: {
            group: {metric: _figure(members, metric) for metric in names}
            for group in sorted({score.groups[kind] for score in scores if kind in score.groups})
            if (members := [score for score in scores if score.groups.get(kind) == group])
        }
        for kind in kinds
    }
    total = len(folders.pairs) + len(folders.missing)
    means = {names[metric]: figure and round(figure.mean, 4) for metric, figure in figures.items()}
    results: dict[str, Any] = {"num_samples": total}
    if choice.mode != "ned":
        results |= {name: means[name] for name in METRICS.values()} | {"FID": None if fid is None else round(fid, 4)}
    if choice.mode != "pixel":
        read = figures["ned"].pictures if figures["ned"] else 0
        results |= {"NED": means["NED"], "NED_samples": read}
        results |= {name: means[name] for name in ("NED_mended", "NED_second")}
    notes = list(_notes(folders, scores, results, choice))
    if details is not None:
        details = {
            "avg_ned": results["NED"],
            "total_samples": total,
            "valid_samples": results["NED_samples"],
            "reader": readers.get("ned"),
            **details,
        }
    return Report(
        results=results | {"notes": notes},
        figures=figures,
        groups=groups,
        pairs=scores,
        folders=folders,
        readers=readers,
        notes=notes,
        ned_details=details,
    )


def _notes(folders: Folders, scores: list[PairScore], results: Mapping[str, Any], choice: ScoreChoice) -> Iterable[str]:
    """Sentences, each on one thing that the figures do not say."""
    for names, what in (
        (folders.missing, "originals have no reconstruction and are left out"),
        (folders.extra, "reconstructions belong to no original and are left out"),
        (folders.ignored, "files beside the originals are no pictures by their suffix"),
        (folders.not_entered, "folders beside the originals are not looked into"),
    ):
        if names:
            yield f"{len(names)} {what}: {shortened(names)}"
    for part, metrics in (("pixels", "PSNR, SSIM, LPIPS and FID"), ("ned", "NED"), ("ned_second", "NED_second")):
        reasons: dict[str, list[str]] = {}
        for score in scores:
            if part in score.left_out:
                reasons.setdefault(score.left_out[part], []).append(score.name)
        for reason, members in sorted(reasons.items(), key=lambda entry: -len(entry[1]))[:20]:
            yield f"{len(members)} of {len(scores)} pairs have no {metrics}: {reason}: {shortened(members)}"
        if len(reasons) > 20:
            yield f"{sum(map(len, reasons.values()))} pairs have no {metrics} in all; report.json names each"
    by_note: dict[str, list[str]] = {}
    for score in scores:
        for note in score.notes:
            by_note.setdefault(note, []).append(score.name)
    for note, members in sorted(by_note.items()):
        yield f"{len(members)} pairs: {note}: {shortened(members)}"
    equal = [score.name for score in scores if score.equal]
    if equal:
        counted = f"each counts as {EQUAL_DB:g} dB, as in piq"
        yield f"{len(equal)} pairs are equal to the last bit; {counted}: {shortened(equal)}"
    if choice.mode != "ned":
        if choice.pixels.vgg_weights is None:
            yield "LPIPS is null: it needs VGG16's weights (vgg16-397923af.pth); give them with --vgg-weights"
        if choice.pixels.inception_weights is None:
            yield "FID is null: it needs pytorch-fid's Inception weights; give them with --inception-weights"
        elif results["FID"] is None:
            yield "FID is null: it compares at least two pairs"
        for metric, name, least in (("ssim", "SSIM", 11), ("lpips", "LPIPS", 16)):
            small = [score.name for score in scores if score.psnr_db is not None and getattr(score, metric) is None]
            if small and (metric == "ssim" or choice.pixels.vgg_weights):
                yield f"{len(small)} pairs have no {name}: it needs {least}x{least} px: {shortened(small)}"
    if choice.mode != "pixel" and choice.second is None:
        yield "NED_second is null: there is no second reader; install tesseract, or name one with --second"


def as_table(report: Report) -> str:
    """Figures with their intervals, in all and by group, for a terminal."""
    lines = ["=" * 36]
    lines += [
        f"  {name:>12}: {'null' if value is None else value}"
        for name, value in report.results.items()
        if name != "notes"
    ]
    lines.append("=" * 36)
    names = METRICS | NEDS
    shown = [metric for metric, figure in report.figures.items() if figure]
    rows = [("all", report.figures)]
    rows += [
        (f"{kind} {group}", figures) for kind, groups in report.groups.items() for group, figures in groups.items()
    ]
    lines.append(" " * 24 + "".join(f"{names[metric]:>26}" for metric in shown))
    for title, figures in rows:
        cells = []
        for metric in shown:
            figure = figures[metric]
            digits = 2 if metric == "psnr_db" else 4
            cells.append(
                f"{figure.mean:.{digits}f} [{figure.low:.{digits}f}, {figure.high:.{digits}f}]" if figure else "-"
            )
        lines.append(f"{title[:23]:24}" + "".join(f"{cell:>26}" for cell in cells))
    return "\n".join(lines)


def shortened(names: Sequence[str], at_most: int = 5) -> str:
    """The first of the names, and how many more there are."""
    more = f" and {len(names) - at_most} more" if len(names) > at_most else ""
    return ", ".join(names[:at_most]) + more


def write_report(out: Path, report: Report, choice: ScoreChoice) -> None:
    """results.json and ned_details.json with the public script's keys, report.json and pairs.csv with everything."""
    out.mkdir(parents=True, exist_ok=True)
    _write_json(out / "results.json", report.results)
    if report.ned_details is not None:
        _write_json(out / "ned_details.json", report.ned_details)
    chosen = dataclasses.asdict(choice) | {"labels": str(choice.labels), "readings": str(choice.readings)}
    whole = {
        "results": report.results,
        "settings": chosen,
        "readers": report.readers,
        "figures": {metric: figure and dataclasses.asdict(figure) for metric, figure in report.figures.items()},
        "groups": {
            kind: {
                group: {metric: figure and dataclasses.asdict(figure) for metric, figure in figures.items()}
                for group, figures in members.items()
            }
            for kind, members in report.groups.items()
        },
        "missing": report.folders.missing,
        "extra": report.folders.extra,
        "ignored": report.folders.ignored,
        "not_entered": report.folders.not_entered,
        "left_out": [{"file": score.name, **score.left_out} for score in report.pairs if score.left_out],
    }
    _write_json(out / "report.json", whole)
    kinds = sorted(report.groups)
    metrics = [*METRICS, *NEDS]
    with (out / "pairs.csv").open("w", encoding="utf-8", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(["file", *kinds, *metrics, "left_out"])
        for score in report.pairs:
            cells = [score.groups.get(kind, "") for kind in kinds]
            cells += ["" if (value := getattr(score, metric)) is None else f"{value:.6g}" for metric in metrics]
            writer.writerow([score.name, *cells, "; ".join(f"{k}: {v}" for k, v in score.left_out.items())])


def _write_json(path: Path, value: Any) -> None:
    text = json.dumps(value, ensure_ascii=False, indent=2)
    part = path.with_suffix(".part")
    part.write_text(text + "\n", encoding="utf-8")
    part.replace(path)
