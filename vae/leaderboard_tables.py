"""What a leaderboard found, as tables: all figures, intervals by language, and codecs compared picture by picture"""

import csv
import io
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import numpy.typing as npt

from vae.bootstrap import Figure, bootstrap
from vae.codecs import CodecFacts
from vae.scorecard import Report, shortened

_NAMES = {"ned": "NED", "ned_second": "NED second", "psnr_db": "PSNR", "ssim": "SSIM", "lpips": "LPIPS"}
"""Metrics of single pictures, what is read first; the mended order hardly ever differs from the reader's own."""
_DIGITS = {"psnr_db": 2}
"""Of the others 3."""
_LESS_IS_BETTER = frozenset({"lpips"})


@dataclass(slots=True, kw_only=True)
class Entry:
    """One codec on one set."""

    codec: str
    set_name: str
    facts: CodecFacts = field(default_factory=CodecFacts)
    images_per_s: float | None = None
    """Encoded and decoded on `device`, without files; None for pictures and programs from elsewhere."""
    report: Report | None = None
    unreadable: dict[str, str] = field(default_factory=dict)
    """Pictures of the set that could not be opened, with why: no codec has seen them."""
    problem: str = ""
    """Why there are no figures."""


COLUMNS = (
    *("Codec", "f", "C", "Encoder M", "Decoder M", "Encode TFLOP", "Decode TFLOP", "Images/s", "bpp"),
    *("Set", "Pictures", "PSNR", "SSIM", "LPIPS", "FID", "NED", "NED mended", "NED second", "Left out"),
)


def cells(entry: Entry) -> list[str]:
    """An entry as `COLUMNS`; what is not known is empty, a problem stands in the last column."""
    facts, report = entry.facts, entry.report

    def number(value: float | None, digits: int, scale: float = 1.0) -> str:
        return "" if value is None else f"{value / scale:.{digits}f}"

    row = [
        entry.codec,
        *(number(facts.compression, 0), number(facts.channels, 0)),
        *(number(facts.encoder_params, 1, 1e6), number(facts.decoder_params, 1, 1e6)),
        *(number(facts.encode_tflop, 3), number(facts.decode_tflop, 3)),
        *(number(entry.images_per_s, 2), number(facts.bits_per_pixel, 2), entry.set_name),
    ]
    if report is None:
        return [*row, *[""] * 8, entry.problem]
    results = report.results
    digits = {"PSNR": 2, "SSIM": 4, "LPIPS": 4, "FID": 3, "NED": 4, "NED_mended": 4, "NED_second": 4}
    figures = [number(results.get(name), places) for name, places in digits.items()]
    left_out = sum(bool(pair.left_out) for pair in report.pairs) + len(report.folders.missing) + len(entry.unreadable)
    return [*row, str(results["num_samples"]), *figures, str(left_out) if left_out else ""]


def notes(entries: Sequence[Entry]) -> list[str]:
    """What the figures do not say, each sentence once, with the codecs and sets that it is about."""
    about: dict[str, list[str]] = {}
    for entry in entries:
        lost = [f"{name} ({why})" for name, why in entry.unreadable.items()]
        own = [f"{len(lost)} pictures of the set cannot be opened and are left out: {shortened(lost)}"] if lost else []
        for note in [*own, *entry.report.notes] if entry.report else ():
            about.setdefault(note, []).append(f"{entry.codec} on {entry.set_name}")
    every = sum(entry.report is not None for entry in entries)
    return [note if len(where) == every else f"{', '.join(where)}: {note}" for note, where in about.items()]


def interval_table(entries: Sequence[Entry]) -> tuple[list[str], list[list[str]]]:
    """Header and rows: every mean with its 95 % interval over the pictures, NED also by language."""
    scored = [(entry, entry.report) for entry in entries if entry.report]
    metrics = [metric for metric in _NAMES if any(report.figures.get(metric) for _, report in scored)]
    languages: list[str] = []
    if "ned" in metrics:
        languages = sorted({name for _, report in scored for name in report.groups.get("language", {})})
    header = ["Codec", "Set", *(_NAMES[metric] for metric in metrics), *(f"NED, {name}" for name in languages)]
    rows = []
    for entry, report in scored:
        whole = [_with_interval(metric, report.figures.get(metric)) for metric in metrics]
        members = report.groups.get("language", {})
        parts = [_with_interval("ned", members.get(name, {}).get("ned")) for name in languages]
        rows.append([entry.codec, entry.set_name, *whole, *parts])
    return header, rows


def paired_table(entries: Sequence[Entry]) -> tuple[list[str], list[list[str]]]:
    """Header and rows: how far every codec stands above the first one of its set, over the pictures that both have.

    The mean difference with its 95 % interval, and on how many pictures it is better and worse. Much smaller gaps can
    be told from chance than by two intervals side by side: hard pictures are hard for all.
    """
    first: dict[str, Entry] = {}
    found: list[tuple[Entry, Entry]] = []
    for entry in entries:
        if entry.report is not None:
            base = first.setdefault(entry.set_name, entry)
            found += [(entry, base)] if base is not entry else []
    metrics = [m for m in _NAMES if any(_differences(m, *pair).size for pair in found)]
    header = ["Codec", "above", "Set", *(cell for m in metrics for cell in (_NAMES[m], "better, worse"))]
    rows = []
    for entry, base in found:
        row = [entry.codec, base.codec, entry.set_name]
        for metric in metrics:
            values_N = _differences(metric, entry, base)
            gains_N = -values_N if metric in _LESS_IS_BETTER else values_N
            figure = bootstrap(values_N) if values_N.size else None
            better = f"{(gains_N > 0).sum()}, {(gains_N < 0).sum()}" if values_N.size else ""
            row += [_with_interval(metric, figure, sign="+"), better]
        rows.append(row)
    return header, rows


def _differences(metric: str, entry: Entry, base: Entry) -> npt.NDArray[np.float64]:
    """`metric` of `entry` less that of `base`, over the pictures that both have it of."""
    sides = []
    for one in (entry, base):
        pairs = one.report.pairs if one.report else []
        sides.append({pair.name: value for pair in pairs if (value := getattr(pair, metric)) is not None})
    return np.array([sides[0][name] - sides[1][name] for name in sides[0] if name in sides[1]])


def _with_interval(metric: str, figure: Figure | None, sign: str = "") -> str:
    if figure is None:
        return ""
    digits = _DIGITS.get(metric, 3)
    return f"{figure.mean:{sign}.{digits}f} ({figure.low:{sign}.{digits}f} to {figure.high:{sign}.{digits}f})"


def write_tables(entries: Sequence[Entry], out: Path) -> None:
    """leaderboard.md, with intervals and comparisons picture by picture, and leaderboard.csv, the first table alone."""
    rows = [cells(entry) for entry in entries]
    lines = [*_markdown(COLUMNS, rows), "", *(f"- {note}" for note in notes(entries))]
    for title, (header, members) in (
        ("Means with their 95 % intervals over the pictures", interval_table(entries)),
        ("Picture by picture against the first codec: mean difference, its 95 % interval", paired_table(entries)),
    ):
        if members:
            lines += ["", f"**{title}**", "", *_markdown(header, members)]
    (out / "leaderboard.md").write_text("\n".join(lines) + "\n", encoding="utf-8")
    buffer = io.StringIO()
    csv.writer(buffer, lineterminator="\n").writerows([COLUMNS, *rows])
    (out / "leaderboard.csv").write_text(buffer.getvalue(), encoding="utf-8")


def _markdown(header: Sequence[str], rows: Sequence[Sequence[str]]) -> list[str]:
    cleaned = [[cell.replace("|", "/").replace("\n", " ") for cell in row] for row in rows]
    return [f"| {' | '.join(row)} |" for row in (header, ["---"] * len(header), *cleaned)]
