"""The leaderboard for a person: the table, and the pictures that codecs lose most of, side by side, by letter."""

from collections.abc import Iterable, Mapping, Sequence
from html import escape
from pathlib import Path
from typing import Any

import numpy as np
from rapidfuzz.distance import Levenshtein

from datagen.decode import decode_image
from datagen.page import figure, grid, paragraph, table, write_page
from vae.codecs import FolderCodec
from vae.leaderboard import LeaderboardRecipe
from vae.leaderboard_tables import COLUMNS, Entry, cells, interval_table, notes, paired_table
from vae.scorecard import PairScore

MAX_LETTERS = 600
"""Of a picture's text that are compared on the page."""


def write_leaderboard_page(entries: Sequence[Entry], recipe: LeaderboardRecipe, out: Path) -> Path:
    """Write OUT/leaderboard.html, one file that needs nothing else."""
    sections = [("All codecs", _tables(entries, recipe))]
    for title, (header, rows) in (
        ("How sure the means are", interval_table(entries)),
        ("Picture by picture against the first codec", paired_table(entries)),
    ):
        if rows:
            place = header.index("Set")
            shown = [row if len(recipe.sets) > 1 else row[:place] + row[place + 1 :] for row in (header, *rows)]
            sections.append((title, table(shown[0], shown[1:])))
    for chosen in recipe.sets:
        of_set = [entry for entry in entries if entry.set_name == chosen.name]
        if recipe.worst and any(entry.report for entry in of_set):
            sections.append((f"{chosen.name}: what is lost most", _worst(of_set, recipe, out)))
    sections.append(("What the figures do not say", "".join(map(paragraph, notes(entries)))))
    problems = [f"{entry.codec} on {entry.set_name}: {entry.problem}" for entry in entries if entry.problem]
    if problems:
        sections.append(("Without figures", "".join(map(paragraph, problems))))
    names = ", ".join(chosen.name for chosen in recipe.sets)
    path = out / "leaderboard.html"
    lead = f"{len(recipe.codecs)} codecs on {names}. A click enlarges a picture, arrow keys then change the codec."
    write_page(path, "Leaderboard", lead, sections)
    return path


_FIRST = ("Codec", "f", "C", "bpp", "PSNR", "SSIM", "LPIPS", "FID", "NED", "NED mended", "NED second", "Images/s")
_ORDER = (*_FIRST, *(column for column in COLUMNS if column not in (*_FIRST, "Set")))
"""Of the columns on the page: what is compared stands where nobody has to scroll for it."""


def _tables(entries: Sequence[Entry], recipe: LeaderboardRecipe) -> str:
    """One table a set, under its name where there are several, without the columns that nobody fills."""
    parts = []
    for chosen in recipe.sets:
        rows = [cells(entry) for entry in entries if entry.set_name == chosen.name]
        rows = [[*row[:-1], row[-1] if len(row[-1]) < 8 else "see below"] for row in rows]
        used = [COLUMNS.index(name) for name in _ORDER if any(row[COLUMNS.index(name)] for row in rows)]
        header = [COLUMNS[column] for column in used]
        if len(recipe.sets) > 1:
            parts.append(f"<h3>{escape(chosen.name)}</h3>")
        column = COLUMNS.index("NED")
        neds = [float(row[column] or 0) for row in rows]
        best = int(np.argmax(neds)) if max(neds) > 0 else None
        parts.append(table(header, [[row[column] for column in used] for row in rows], best_row=best))
    read = any(entry.report and entry.report.results.get("NED") for entry in entries)
    note = "bpp: bits per pixel of the files. A latent of C channels at 16 bits has 16 C / f^2."
    return "".join(parts) + paragraph(note + " The best NED is set off." * read, note=True)


def _worst(entries: Sequence[Entry], recipe: LeaderboardRecipe, out: Path) -> str:
    """Pictures in the order of what codecs lose on them: text where it was read, else PSNR."""
    scores: dict[str, dict[str, PairScore]] = {}
    texts: dict[str, dict[str, tuple[str, str]]] = {}
    for entry in entries:
        if entry.report is None:
            continue
        for score in entry.report.pairs:
            scores.setdefault(score.name, {})[entry.codec] = score
        texts[entry.codec] = _texts(entry.report.ned_details)
    ranked = sorted(scores, key=lambda name: (_quality(scores[name].values()), name))[: recipe.worst]
    places = {codec.name: codec.path for codec in recipe.codecs if isinstance(codec, FolderCodec)}
    set_name = entries[0].set_name
    parts = []
    for name in ranked:
        original = decode_image(out / "sets" / set_name / name)
        figures = [figure(original, f"<b>{escape(Path(name).stem)}</b><br>original")]
        for entry in entries:
            pair = scores[name].get(entry.codec)
            folder = places.get(entry.codec, out / "reconstructed" / entry.codec) / set_name
            if pair is not None and (folder / name).is_file():
                picture = decode_image(folder / name)
                figures.append(figure(picture, _caption(entry.codec, pair, texts[entry.codec].get(name))))
        parts.append(grid(figures))
    return "".join(parts)


def _quality(pairs: Iterable[PairScore]) -> float:
    """Lower is worse; what was read comes before what was not."""
    pairs = list(pairs)
    neds = [pair.ned for pair in pairs if pair.ned is not None]
    return float(np.mean(neds)) if neds else 1 + float(np.mean([pair.psnr_db or 0 for pair in pairs]))


def _texts(details: Mapping[str, Any] | None) -> dict[str, tuple[str, str]]:
    """Name -> text read on the original and on the reconstruction."""
    return {} if details is None else {d["file"]: (d["gt_text"], d["rec_text"]) for d in details["details"]}


def _caption(codec: str, pair: PairScore, texts: tuple[str, str] | None) -> str:
    figures = [f"{pair.psnr_db:.2f} dB" if pair.psnr_db is not None else ""]
    figures.append(f"NED {pair.ned:.3f}" if pair.ned is not None else "")
    caption = f"<b>{escape(codec)}</b> {', '.join(filter(None, figures))}"
    if texts is None:
        return caption
    return f"{caption}<details><summary>letters</summary>{differences(*texts)}</details>"


def differences(truth: str, read: str) -> str:
    """HTML of what was read: lost letters struck through, letters that are not there underlined."""
    truth, read = truth[:MAX_LETTERS], read[:MAX_LETTERS]
    parts = []
    for step in Levenshtein.opcodes(truth, read):
        lost, new = escape(truth[step.src_start : step.src_end]), escape(read[step.dest_start : step.dest_end])
        if step.tag == "equal":
            parts.append(lost)
            continue
        parts.append((f"<del>{lost}</del>" if lost else "") + (f"<ins>{new}</ins>" if new else ""))
    return "".join(parts)
