"""`glyphmill coverage`: which characters a run shows, how often and at which sizes, against the standard sets."""

import collections
import itertools
import json
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np

from datagen.commit import read_manifest
from datagen.page import facts, folded, paragraph, table, write_page
from datagen.plan import FONTS, read_fonts
from datagen.shards import read_table
from datagen.storage import Folder
from fonts_manifest.coverage import drawn_characters, named_sets
from fonts_manifest.errors import BadInput
from fonts_manifest.manifest import FontFace

EDGES_PX = (0.0, 6.0, 8.0, 10.0, 13.0, 16.0, 20.5, float("inf"))
"""Bands of the em in px; a band holds its lower edge."""
SELDOM = 10
"""A character shown fewer times than this is listed as seldom."""


@dataclass(frozen=True, slots=True, kw_only=True)
class SetCoverage:
    """One set of characters."""

    name: str
    characters: int
    drawn: int
    """Characters of the set shown at least once."""
    seldom: int
    """Of these, those shown fewer than `SELDOM` times."""
    median: float
    """Times that the middle character of the set is shown, those never shown among them."""
    times: int
    """Characters of the set shown in all, repetitions counted."""
    drawn_at: dict[str, int]
    """Band of sizes -> characters of the set shown in it."""
    missing: str
    """The characters never shown, in the order of the set."""
    without_face: str | None
    """Those of the missing that no face of the run draws; None when its font files are not on this machine."""
    rarest: str
    """Those shown seldom, the rarest first."""


@dataclass(frozen=True, slots=True, kw_only=True)
class RunCoverage:
    """What `glyphmill coverage` says of a run."""

    run: str
    rows: int
    characters: int
    """Shown in all, blanks left out."""
    distinct: int
    sets: tuple[SetCoverage, ...]
    counts: dict[str, list[int]]
    """Character -> how often in each band of sizes, the last for lines whose size is not known."""


def band_names() -> list[str]:
    """The bands of sizes in words, the unknown last."""
    names = [f"{low:g} to {high:g} px" for low, high in itertools.pairwise(EDGES_PX[1:-1])]
    return [f"under {EDGES_PX[1]:g} px", *names, f"{EDGES_PX[-2]:g} px and more", "size unknown"]


def run_coverage(run: Folder | Path | str) -> RunCoverage:
    """Count the characters of all kept rows of a finished run, file by file. Raises BadInput when it is none."""
    folder = run if isinstance(run, Folder) else Folder(str(run))
    n_bands = len(band_names())
    counters: list[collections.Counter[str]] = [collections.Counter() for _ in range(n_bands)]
    rows = 0
    for file in read_manifest(folder).to_pylist():
        if not file["keep"]:
            continue
        lines = read_table(folder.read(file["path"]), columns=["lines"]).column("lines")
        rows += len(lines)
        texts: list[list[str]] = [[] for _ in range(n_bands)]
        for line in lines.combine_chunks().flatten().to_pylist():
            texts[_band(line["size_px"])].append(line["text"] or "")
        for counter, parts in zip(counters, texts, strict=True):
            counter.update("".join("".join(parts).split()))
    if not rows:
        raise BadInput(f"{folder.name}: holds no kept row to count characters in")
    counts = {character: [counter[character] for counter in counters] for character in sorted(set().union(*counters))}
    faces = _faces_of(folder)
    return RunCoverage(
        run=folder.name,
        rows=rows,
        characters=sum(map(sum, counts.values())),
        distinct=len(counts),
        sets=tuple(_set_coverage(name, characters, counts, faces) for name, characters in named_sets().items()),
        counts=counts,
    )


def _band(size_px: float | None) -> int:
    if size_px is None:
        return len(EDGES_PX) - 1
    return int(np.searchsorted(EDGES_PX, size_px, side="right")) - 1


def _faces_of(folder: Folder) -> tuple[FontFace, ...]:
    """The faces a run was drawn with; none for a run of real pictures, or when one of their files is not here."""
    if not folder.exists(FONTS):
        return ()
    faces = read_fonts(folder).faces
    return faces if all(Path(face.path).is_file() for face in faces) else ()


def _set_coverage(name: str, characters: str, counts: dict[str, list[int]], faces: tuple[FontFace, ...]) -> SetCoverage:
    visible = [character for character in characters if not character.isspace()]
    times = {character: sum(counts.get(character, ())) for character in visible}
    drawn = [character for character in visible if times[character]]
    missing = "".join(character for character in visible if not times[character])
    with_face: set[str] = set()
    for face in faces:
        with_face |= drawn_characters(face, [one for one in missing if one not in with_face])
    seldom = sorted((one for one in drawn if times[one] < SELDOM), key=lambda one: (times[one], one))
    return SetCoverage(
        name=name,
        characters=len(visible),
        drawn=len(drawn),
        seldom=len(seldom),
        median=float(np.median(list(times.values()))),
        times=sum(times.values()),
        drawn_at={band: sum(counts[character][at] > 0 for character in drawn) for at, band in enumerate(band_names())},
        missing=missing,
        without_face="".join(one for one in missing if one not in with_face) if faces else None,
        rarest="".join(seldom),
    )


def as_json(found: RunCoverage) -> str:
    """All figures and the counts of every character as one JSON object."""
    return json.dumps({**asdict(found), "bands_px": band_names()}, ensure_ascii=False)


def as_text(found: RunCoverage) -> str:
    """A line for each set, then its bands of sizes."""
    lines = [f"{found.run}: {found.characters:,} characters in {found.rows:,} rows, {found.distinct:,} different ones"]
    for one in found.sets:
        share = one.drawn / one.characters
        lines.append(
            f"{one.name:18}{one.drawn:6,} of {one.characters:5,} drawn ({_percent(share)}), {one.seldom:,} of them"
            f" fewer than {SELDOM} times; the middle one {one.median:g} times"
        )
        shares = [(band, count / one.characters) for band, count in one.drawn_at.items() if count]
        lines.append("  " + ", ".join(f"{band} {_percent(share)}" for band, share in shares))
        if one.missing:
            more = " ..." if len(one.missing) > 60 else ""
            lines.append(f"  never: {one.missing[:60]}{more}")
        if one.missing and one.without_face is not None:
            lines.append(f"  drawn by no face of the run: {len(one.without_face):,} of the {len(one.missing):,}")
    return "\n".join(lines)


def _percent(share: float) -> str:
    """Cut, not rounded: 100 % means all."""
    return f"{int(share * 1000) / 10:.1f} %"


def write_coverage_page(found: RunCoverage, out: Path) -> None:
    """One self-contained HTML page."""
    bands = [band for band in band_names() if any(one.drawn_at[band] for one in found.sets)]
    header = ["", "characters", "drawn", "share", f"under {SELDOM} times", "median", *bands]
    rows = [
        [
            *(one.name, f"{one.characters:,}", f"{one.drawn:,}", _percent(one.drawn / one.characters)),
            *(f"{one.seldom:,}", f"{one.median:g}", *(f"{one.drawn_at[band]:,}" for band in bands)),
        ]
        for one in found.sets
    ]
    overview = facts(
        [
            (f"{found.rows:,}", "pictures"),
            (f"{found.characters:,}", "characters in their lines"),
            (f"{found.distinct:,}", "different ones"),
        ]
    )
    note = "The last columns: characters of the set that are shown at least once at such a size (the em in px)."
    lists = "".join(
        folded(f"{one.name}: {what}, {len(characters):,}", "\n".join(_wrapped(characters)))
        for one in found.sets
        for what, characters in (
            ("never shown", one.missing),
            ("drawn by no face of the run", one.without_face),
            (f"fewer than {SELDOM} times", one.rarest),
        )
        if characters
    )
    sections = [("Sets", overview + table(header, rows) + paragraph(note, note=True)), ("Lists", lists)]
    write_page(out, f"{found.run}: characters", "Which characters the run shows, how often and how large", sections)


def _wrapped(characters: str) -> list[str]:
    return [characters[at : at + 50] for at in range(0, len(characters), 50)]
