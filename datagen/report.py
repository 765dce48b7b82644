"""`glyphmill inspect`: one page about a run folder, synthetic or real, for a person to look at."""

from collections import Counter
from html import escape
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
from pyarrow import compute as pc

from datagen.charts import histogram_svg
from datagen.codec import decode_png
from datagen.commit import read_manifest, read_rows
from datagen.page import facts, figure, folded, grid, paragraph, table, write_page

_SCALARS = [
    "row_id", "source", "lang", "width", "height", "licence", "origin", "photo_id", "characters", "characters_per_mp",
    "text_area", "ned", "sharpness", "keep", "reason", "judged_by", "lines", "density_class",
]  # fmt: skip
_SHEET = 24
_REJECTED = 12
_NEAREST = 4


def inspect_run(run: Path, out: Path) -> None:
    """Write one self-contained HTML page about the run folder `run` to `out`.

    Raises BadInput when `run` is no finished run folder.
    """
    write_page(out, f"{run.name}: what was made", f"{run.resolve()}", run_sections(run))


def run_sections(run: Path) -> list[tuple[str, str]]:
    """The (heading, HTML) sections of a run: figures, kept beside dropped, histograms, provenance."""
    table_all = read_rows(run, columns=_SCALARS)
    rows = table_all.to_pylist()
    kept = [row for row in rows if row["keep"]]
    dropped = [row for row in rows if not row["keep"]]
    sections = [("Pictures", _overview(run, rows, kept, dropped) + _sheet(run, kept[0]["source"] if kept else ""))]
    if dropped:
        sections.append(("Kept beside dropped", _reasons(dropped) + _at_threshold(run, rows) + _rejected_sheet(run)))
    sections.append(("What is in them", _histograms(kept, dropped)))
    sections.append(("Where they come from", _provenance(run, rows)))
    return sections


def _overview(run: Path, rows: list[dict[str, Any]], kept: list[dict[str, Any]], dropped: list[dict[str, Any]]) -> str:
    manifest = read_manifest(run)
    read = sum(row["judged_by"] == "ocr" for row in rows)
    languages = Counter(row["lang"] or "no text" for row in kept)
    pairs = [
        (f"{len(kept):,}", "pictures kept"),
        (f"{len(dropped):,}", "pictures dropped, with reasons"),
        (f"{sum(row['characters'] or 0 for row in kept):,}", "characters in the kept ones"),
        (f"{read:,}", "pictures read in full by OCR"),
        (f"{manifest.num_rows}", "Parquet files"),
        (
            ", ".join(f"{language} {count:,}" for language, count in sorted(languages.items())),
            "kept, by language",
        ),
    ]
    return facts(pairs)


def _sheet(run: Path, source: str) -> str:
    sample = _spread(read_rows(run, keep=True), _SHEET)
    note = "Click a picture to see its pixels." + (
        " Every one can be drawn again from the spec in its row: glyphmill redraw." if source == "synthetic" else ""
    )
    return paragraph(note, note=True) + grid(
        [figure(decode_png(row["image"]["bytes"]), _caption(row)) for row in sample]
    )


def _at_threshold(run: Path, rows: list[dict[str, Any]]) -> str:
    """The kept pictures with the lowest scores beside the dropped ones with the highest, as far as OCR read them."""
    scored = sorted((row for row in rows if row["ned"] is not None), key=lambda row: (row["ned"], row["row_id"]))
    nearest = [row["row_id"] for row in scored if row["keep"]][:_NEAREST]
    nearest += [row["row_id"] for row in scored if not row["keep"]][-_NEAREST:]
    if not nearest:
        return ""
    everything = read_rows(run)
    chosen = everything.filter(pc.is_in(everything["row_id"], pa.array(nearest))).to_pylist()
    by_id = {row["row_id"]: row for row in chosen}
    figures = [figure(decode_png(by_id[key]["image"]["bytes"]), _caption(by_id[key])) for key in nearest]
    heading = "<h3>At the threshold: the lowest scores that were kept, the highest that were dropped</h3>"
    return heading + grid(figures)


def _rejected_sheet(run: Path) -> str:
    dropped = _spread(read_rows(run, keep=False), _REJECTED)
    return "<h3>Dropped, at even distances</h3>" + grid(
        [figure(decode_png(row["image"]["bytes"]), _caption(row)) for row in dropped if row["image"]["bytes"]]
    )


def _spread(rows: pa.Table, count: int) -> list[dict[str, Any]]:
    """At most `count` rows at even distances: the same ones every time."""
    picked = np.unique(np.linspace(0, rows.num_rows - 1, min(count, rows.num_rows)).round().astype(int))
    return [rows.slice(int(number), 1).to_pylist()[0] for number in picked]


def _caption(row: dict[str, Any]) -> str:
    lines = row["lines"] or []
    sizes = sorted({round(line["size_px"], 1) for line in lines if line["size_px"] is not None})
    parts = [f"{row['lang']}" if row["lang"] else "", f"{len(lines)} lines", f"{row['characters'] or 0} characters"]
    if sizes:
        parts.append("/".join(f"{size:g}" for size in sizes[:4]) + " px")
    contrasts = [line["contrast"] for line in lines if line["contrast"] is not None]
    if contrasts:
        parts.append(f"contrast {min(contrasts):.1f}:1 and up")
    if row["ned"] is not None:
        parts.append(f"OCR {row['ned']:.2f}")
    if row["origin"]:
        parts.append(Path(row["origin"]).name)
    verdict = f'<span class="keep">kept</span> by {row["judged_by"]}'
    if not row["keep"]:
        verdict = f'<span class="drop">{escape(row["reason"])}</span> by {row["judged_by"]}'
    return f"{escape(', '.join(part for part in parts if part))}<br>{verdict}"


def _reasons(dropped: list[dict[str, Any]]) -> str:
    counts = Counter((row["reason"], row["judged_by"]) for row in dropped)
    return table(
        ["reason", "judged by", "pictures"], [[reason, by, f"{n:,}"] for (reason, by), n in counts.most_common()]
    )


def _histograms(kept: list[dict[str, Any]], dropped: list[dict[str, Any]]) -> str:
    def of_lines(rows: list[dict[str, Any]], key: str) -> list[float]:
        return [line[key] for row in rows for line in row["lines"] or [] if line[key] is not None]

    def of_rows(rows: list[dict[str, Any]], key: str) -> list[float]:
        return [row[key] for row in rows if row[key] is not None]

    charts = []
    for key, label, value_range in (
        ("size_px", "em of each line, px", None),
        ("contrast", "contrast of each line (WCAG ratio)", (1.0, 21.0)),
        ("ink_height_px", "ink height of each line, px", None),
    ):
        groups = {"kept": of_lines(kept, key), "dropped": of_lines(dropped, key)}
        if any(groups.values()):
            charts.append(histogram_svg(groups, label=label, value_range=value_range, counted="lines"))
    for key, label, value_range in (
        ("ned", "OCR score: read correctly, relative to the clean line", (0.0, 1.0)),
        ("characters", "characters a picture", None),
        ("characters_per_mp", "characters per megapixel", None),
        ("sharpness", "sharpness: log ratio of high to middle spectral power", None),
    ):
        groups = {"kept": of_rows(kept, key), "dropped": of_rows(dropped, key)}
        if any(groups.values()):
            charts.append(histogram_svg(groups, label=label, value_range=value_range, counted="pictures"))
    return grid(charts, wide=True)


def _provenance(run: Path, rows: list[dict[str, Any]]) -> str:
    licences = Counter(row["licence"] or "not stated" for row in rows)
    parts = [table(["licence", "pictures"], [[licence, f"{count:,}"] for licence, count in licences.most_common(12)])]
    recipe = run / "recipe.yaml"
    if recipe.is_file():
        parts.append(folded("The resolved recipe", recipe.read_text(encoding="utf-8")))
    versions = run / "versions.json"
    if versions.is_file():
        parts.append(folded("Library versions", versions.read_text(encoding="utf-8")))
    return "".join(parts)
