"""Letters that shaping makes invisible: a substitution of the face put .notdef or an empty glyph in their place."""

import unicodedata

import numpy as np
import numpy.typing as npt

from render_engine.face import EM, Face, is_ignorable

NEAR = EM // 10
"""Ink this near to the place of an empty glyph may be that of its letters."""


def keeps_ink(face: Face, text: str, rows: npt.NDArray[np.int32]) -> bool:
    """Whether every visible character of a text that was shaped with one face shows in its glyphs.

    rows: (glyphs, 4 or more): glyph id in the lower 16 bits, cluster (character of the text), advance and x offset in
    1 / EM of an em. Faces for programmers draw "->" as an empty glyph and a wide one that reaches back over it: an
    empty place counts as inked when a neighbour that was itself substituted stands in it.
    """
    glyphs = rows[:, 0] & 0xFFFF
    inked = face.inked(glyphs)
    if inked.all():
        return True
    if not glyphs.all():
        return False
    clusters = rows[:, 1].tolist()
    starts = sorted(set(clusters))
    ends = dict(zip(starts, [*starts[1:], len(text)], strict=True))
    with_ink = set(rows[inked, 1].tolist())
    lost = [start for start in starts if start not in with_ink and any(map(_is_visible, text[start : ends[start]]))]
    if not lost:
        return True
    pens = np.concatenate(([0], np.cumsum(rows[:, 2], dtype=np.int64)))
    places = []
    for at in np.flatnonzero(inked).tolist():
        if glyphs[at] != face.nominal_glyph(ord(text[clusters[at]])):
            left, right = face.ink_span(int(glyphs[at]))
            pen = int(pens[at]) + int(rows[at, 3])
            places.append((pen + left - NEAR, pen + right + NEAR))
    for start in lost:
        own = [at for at, cluster in enumerate(clusters) if cluster == start]
        first, last = int(pens[own[0]]), int(pens[own[-1] + 1])
        if not any(left <= last and first <= right for left, right in places):
            return False
    return True


def _is_visible(character: str) -> bool:
    return unicodedata.category(character)[0] not in "ZC" and not is_ignorable(ord(character))
