"""`glyphmill inspect`: one page about a run folder, synthetic or real, for a person to look at."""

import itertools
import json
from collections import Counter, defaultdict
from collections.abc import Mapping
from html import escape
from pathlib import Path
from typing import Any

import yaml

from datagen.charts import histogram_svg
from datagen.commit import read_manifest
from datagen.explain import threshold_figures
from datagen.judge_report import judged_section
from datagen.page import facts, figure, folded, grid, heat_table, paragraph, table, write_page
from datagen.samples import light_rows, picture_of, rows_by_id, spread, with_boxes
from datagen.storage import Folder

_SCALARS = (
    "row_id", "source", "lang", "width", "height", "licence", "origin", "photo_id", "characters", "characters_per_mp",
    "text_area", "ned", "sharpness", "keep", "reason", "judged_by", "lines", "density_class", "glyph_height_px",
)  # fmt: skip
_SHEET = 24
_BOXES = 6
_BOX_LINES = 3
"""A picture with fewer lines shows little of where they stand."""
_REJECTED = 12
_NEAREST = 4
_FACES = 40
_SIZES_PX = (0, 7, 9, 12, 16, 1000)
"""Edges of the size bands in the table of faces: below 7 px no reader is sure, above 16 all are."""
_LICENCES = 12


def inspect_run(run: str | Path, out: Path) -> None:
    """Write one self-contained HTML page about the run folder `run` to `out`.

    Raises BadInput when `run` is no finished run folder.
    """
    place = str(run)
    write_page(out, f"{place.rstrip('/').rpartition('/')[2]}: what was made", place, run_sections(place))


def run_sections(run: str | Path) -> list[tuple[str, str]]:
    """The (heading, HTML) sections of a run: figures, boxes, kept beside dropped, histograms, faces, provenance."""
    place = str(run)
    rows = light_rows(place, _SCALARS)
    kept = [row for row in rows if row["keep"]]
    dropped = [row for row in rows if not row["keep"]]
    sections = [("Pictures", _overview(place, rows, kept, dropped) + _sheet(place, kept))]
    boxes = _boxes(place, kept)
    if boxes:
        sections.append(("Where the lines stand", boxes))
    if dropped:
        compared = _reasons(dropped) + _at_threshold(place, rows) + _rejected_sheet(place, dropped)
        sections.append(("Kept beside dropped", compared))
    judged = judged_section(place)
    if judged:
        sections.append(("How they were judged", judged))
    sections.append(("What is in them", _histograms(kept, dropped)))
    listed = _listed(place, "fonts.json", "faces")
    faces = _faces(rows, {face["face_id"]: f"{face['family']} {face['style']}" for face in listed})
    if faces:
        sections.append(("Which faces and sizes pass", faces))
    sections.append(("Where they come from", _provenance(place, rows)))
    return sections


def _overview(run: str, rows: list[dict[str, Any]], kept: list[dict[str, Any]], dropped: list[dict[str, Any]]) -> str:
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


def _sheet(run: str, kept: list[dict[str, Any]]) -> str:
    note = "Click a picture to see its pixels."
    if kept and kept[0]["source"] == "synthetic":
        note += " Every one can be drawn again from the spec in its row: glyphmill redraw."
    return paragraph(note, note=True) + _figures(run, spread(kept, _SHEET))


def _figures(run: str, chosen: list[dict[str, Any]]) -> str:
    """The pictures of these rows, in their order; rows without one are left out."""
    stored = rows_by_id(run, [row["row_id"] for row in chosen])
    shown = ((picture_of(stored[row["row_id"]]), row) for row in chosen if row["row_id"] in stored)
    return grid([figure(image_HW3, _caption(row)) for image_HW3, row in shown if image_HW3 is not None])


def _boxes(run: str, kept: list[dict[str, Any]]) -> str:
    """Kept pictures with the quads of their lines drawn over them."""
    placed = [row for row in kept if sum(line["quad_px"] is not None for line in row["lines"] or ()) >= _BOX_LINES]
    chosen = spread(placed, _BOXES)
    stored = rows_by_id(run, [row["row_id"] for row in chosen])
    figures = []
    for row in chosen:
        image_HW3 = picture_of(stored[row["row_id"]])
        if image_HW3 is not None:
            figures.append(figure(with_boxes(image_HW3, row["lines"]), _caption(row)))
    if not figures:
        return ""
    note = "Each line of text with its quad; the red side is where it starts."
    return paragraph(note, note=True) + grid(figures)


def _at_threshold(run: str, rows: list[dict[str, Any]]) -> str:
    """Both sides of the edge: by the OCR score of synthetic pages, or by each rule of a filter run."""
    scored = sorted((row for row in rows if row["ned"] is not None), key=lambda row: (row["ned"], row["row_id"]))
    nearest = [row for row in scored if row["keep"]][:_NEAREST] + [row for row in scored if not row["keep"]][-_NEAREST:]
    if nearest:
        heading = "<h3>At the threshold: the lowest scores that were kept, the highest that were dropped</h3>"
        return heading + _figures(run, nearest)
    if rows[0]["source"] != "real" or not Folder(run).exists("recipe.yaml"):
        return ""
    note = "The nearest that were dropped, then the nearest that were kept; glyphmill filter explain RUN shows more."
    return paragraph(note, note=True) + threshold_figures(run)


def _rejected_sheet(run: str, dropped: list[dict[str, Any]]) -> str:
    return "<h3>Dropped, at even distances</h3>" + _figures(run, spread(dropped, _REJECTED))


def _listed(run: str, name: str, key: str) -> list[dict[str, Any]]:
    """The entries of `key` in a JSON file beside the shards: faces or photographs; none when there is no such file."""
    folder = Folder(run)
    entries: list[dict[str, Any]] = json.loads(folder.read(name)).get(key, []) if folder.exists(name) else []
    return entries


def _faces(rows: list[dict[str, Any]], names: Mapping[str, str]) -> str:
    """Share of the lines that stand in kept pictures, by face, size and language; "" where faces are not known.

    names: face_id -> what people call the face.
    """
    counts: defaultdict[tuple[str, str, int], list[int]] = defaultdict(lambda: [0, 0])
    totals: Counter[tuple[str, str]] = Counter()
    for row in rows:
        for line in row["lines"] or ():
            if line["face_id"] is None or line["size_px"] is None:
                continue
            band = next(n for n, edge in enumerate(_SIZES_PX[1:]) if line["size_px"] < edge)
            tally = counts[line["lang"] or "?", line["face_id"], band]
            tally[0] += row["keep"]
            tally[1] += 1
            totals[line["lang"] or "?", line["face_id"]] += 1
    if not totals:
        return ""
    bands = [f"{low} to {high} px" for low, high in itertools.pairwise(_SIZES_PX[1:-1])]
    header = ["face", f"below {_SIZES_PX[1]} px", *bands, f"{_SIZES_PX[-2]} px and more"]
    parts = [paragraph("Share of the lines whose picture was kept, and how many lines there are.", note=True)]
    for language in sorted({language for language, _ in totals}):
        faces = [face for (lang, face), _ in totals.most_common(_FACES) if lang == language]
        faces.sort(key=lambda face: names.get(face, face))
        lines: list[tuple[str, list[tuple[float, int] | None]]] = []
        for face in faces:
            tallies = [counts.get((language, face, band)) for band in range(len(header) - 1)]
            name = names.get(face, face)
            lines.append((name, [None if tally is None else (tally[0] / tally[1], tally[1]) for tally in tallies]))
        parts.append(f"<h3>{escape(language)}</h3>" + heat_table(header, lines))
    return "".join(parts)


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


def _provenance(run: str, rows: list[dict[str, Any]]) -> str:
    """Licences, places, the recipe and the versions."""
    folder = Folder(run)
    by_licence: defaultdict[str, list[dict[str, Any]]] = defaultdict(list)
    for row in rows:
        by_licence[row["licence"] or "not stated"].append(row)
    most = sorted(by_licence.items(), key=lambda one: (-len(one[1]), one[0]))[:_LICENCES]
    lines = [
        [licence, f"{len(of_it):,}", f"{sum(row['keep'] for row in of_it):,}", _examples(of_it)]
        for licence, of_it in most
    ]
    parts = []
    if list(by_licence) != ["not stated"]:
        parts.append(table(["licence", "pictures", "kept", "for example"], lines))
    used = {line["face_id"] for row in rows for line in row["lines"] or ()}
    faces = [face for face in _listed(run, "fonts.json", "faces") if face["face_id"] in used]
    if faces:
        counted = Counter(face["licence"] for face in faces).most_common()
        parts.append(table(["licence of the faces in them", "faces"], [[licence, f"{n:,}"] for licence, n in counted]))
    photos = Counter(photo["licence"] for photo in _listed(run, "photos.json", "photos"))
    if photos:
        counted = photos.most_common(_LICENCES)
        parts.append(table(["licence of the photographs", "photographs"], [[lic, f"{n:,}"] for lic, n in counted]))
    if len(by_licence) > _LICENCES:
        parts.append(
            paragraph(f"And {len(by_licence) - _LICENCES} more licences; the column `licence` has all.", note=True)
        )
    if folder.exists("recipe.yaml"):
        recipe = folder.read("recipe.yaml").decode()
        if isinstance(yaml.safe_load(recipe), dict):
            parts.append(folded("The resolved recipe", recipe))
    if folder.exists("run.json"):
        parts.append(folded("Digests of the inputs, library versions", folder.read("run.json").decode()))
    return "".join(parts)


def _examples(rows: list[dict[str, Any]]) -> str:
    """Where some of these pictures come from."""
    names = dict.fromkeys(Path(row["origin"] or row["photo_id"] or "").name for row in rows)
    shown = [name for name in names if name][:3]
    return ", ".join(shown)
