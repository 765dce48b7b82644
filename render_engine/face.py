"""An open face: FreeType for the pixels, HarfBuzz for the advances, over the same file.

Text is shaped in font units, where nothing is rounded, and kept in units of 1 / EM of an em. A pen position is
`(sum * size_26_6) >> 20`, FreeType's own 26.6 fixed point at the size it draws: boxes and pixels cannot drift apart,
and one shaping serves all sizes. HarfBuzz at that 26.6 scale rounds every advance first: 1/128 px a glyph at most.
"""

import ctypes
import functools
import mmap
import os
import threading
import weakref
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import freetype
import numpy as np
import numpy.typing as npt

from fonts_manifest.coverage import draws, gb2312_level_1, open_freetype
from fonts_manifest.errors import BadInput
from fonts_manifest.manifest import FontFace, sha256_of
from render_engine.harfbuzz import Shaper

EM_BITS = 20
EM = 1 << EM_BITS
"""Advances and offsets are integers in 1 / EM of an em: exact to 2e-5 px at 20 px."""

DEFAULT_IGNORABLE = (
    (0xAD, 0xAD),
    (0x34F, 0x34F),
    (0x61C, 0x61C),
    (0x115F, 0x1160),
    (0x17B4, 0x17B5),
    (0x180B, 0x180F),
    (0x200B, 0x200F),
    (0x202A, 0x202E),
    (0x2060, 0x206F),
    (0x3164, 0x3164),
    (0xFE00, 0xFE0F),
    (0xFEFF, 0xFEFF),
    (0xFFA0, 0xFFA0),
    (0xFFF0, 0xFFF8),
    (0x1BCA0, 0x1BCA3),
    (0x1D173, 0x1D17A),
    (0xE0000, 0xE0FFF),
)
"""Characters that are invisible by definition (Unicode, Default_Ignorable_Code_Point): HarfBuzz hides them."""


@functools.cache
def is_ignorable(code: int) -> bool:
    """Whether the character is invisible by definition."""
    return any(first <= code <= last for first, last in DEFAULT_IGNORABLE)


@functools.cache
def known_codes(scripts: tuple[str, ...]) -> frozenset[int]:
    """Code points that a face of these scripts draws, as its manifest says (`FontFace.scripts`)."""
    latin = range(0x20, 0x7F) if "latin" in scripts else ()
    return frozenset(latin).union(map(ord, gb2312_level_1()) if "han" in scripts else ())


@dataclass(slots=True)
class Face:
    """A face opened once in a process. Not to be shared between threads: FreeType keeps one size and one glyph slot."""

    font: FontFace
    freetype_face: freetype.Face
    shaper: Shaper
    units_per_em: int
    kerns_blanks: bool
    """Some pair of an ASCII character and a blank is kerned: words may not be shaped apart."""
    _drawn: npt.NDArray[np.int8] = field(default_factory=lambda: np.full(1 << 16, -1, np.int8))
    """By code point: 1 when it is drawn, 0 when not, -1 not known yet."""
    _inked: npt.NDArray[np.int8] = field(default_factory=lambda: np.full(1 << 16, -1, np.int8))
    """By glyph: 1 with an outline, 0 without, -1 not known yet."""

    @property
    def handle(self) -> Any:
        """FT_Face for the raw calls."""
        return self.freetype_face._FT_Face

    def nominal_glyph(self, code: int) -> int:
        """The glyph that HarfBuzz finds for a character by itself, -1 when it finds none."""
        return int(self.shaper.nominal_glyphs(np.array([code], np.uint32))[0])

    def draws(self, code: int) -> bool:
        """Whether the face really draws the character (`fonts_manifest.coverage.draws`), remembered."""
        if code >= len(self._drawn):
            return self._draws(code)
        if self._drawn[code] < 0:
            self._drawn[code] = self._draws(code)
        return bool(self._drawn[code])

    def _draws(self, code: int) -> bool:
        known = code in known_codes(self.font.scripts)
        return known or (self.nominal_glyph(code) >= 0 and draws(self.freetype_face, code))

    def inked(self, glyphs: npt.NDArray[np.int32]) -> npt.NDArray[np.bool_]:
        """(glyphs,) whether each has ink, glyph 0 never; 5 us for a glyph that is asked for the first time."""
        found = self._inked[glyphs]
        if (found < 0).any():
            for glyph in np.unique(glyphs[found < 0]).tolist():
                left, right = self.ink_span(glyph)
                self._inked[glyph] = glyph != 0 and left < right
            found = self._inked[glyphs]
        return found == 1

    def ink_span(self, glyph: int) -> tuple[int, int]:
        """Left and right edge of a glyph's ink from its pen, in 1 / EM of an em; equal when it has none."""
        left, width, height = self.shaper.ink(glyph)
        if not width or not height:
            return 0, 0
        left = left * EM // self.units_per_em
        return left, left + width * EM // self.units_per_em


class _OpenFaces(threading.local):
    """The faces of a thread: FreeType keeps one size and one glyph slot for each."""

    def __init__(self) -> None:
        self.of: dict[tuple[object, ...], Face | BadInput] = {}


_OPEN = _OpenFaces()
MAX_OPEN = 1024
"""Faces that a thread keeps open; behind them it starts afresh."""


def open_face(font: FontFace) -> Face:
    """The face of the manifest, opened once in a thread (1 ms, and .7 ms for every MB of its file).

    Raises BadInput when its file is gone, broken, or another than was scanned.
    """
    try:
        found = os.stat(font.path)
    except (OSError, ValueError) as error:  # ValueError: a NUL in the path
        raise BadInput(f"{font.path}: cannot be read ({error})") from None
    key = (font, found.st_ino, found.st_size, found.st_mtime_ns)
    face = _OPEN.of.get(key)
    if face is None:
        if len(_OPEN.of) >= MAX_OPEN:
            _OPEN.of.clear()
        try:
            face = _open(font)
        except BadInput as error:
            face = error
        _OPEN.of[key] = face
    if isinstance(face, BadInput):
        raise BadInput(str(face))
    return face


def _open(font: FontFace) -> Face:
    try:
        unchanged = sha256_of(Path(font.path)) == font.sha256
        data = _mapped(font.path, font.sha256) if unchanged else None
    except (OSError, ValueError) as error:  # ValueError: an empty file
        raise BadInput(f"{font.path}: cannot be read ({error})") from None
    if data is None:
        raise BadInput(f"{font.path}: has changed since the scan; scan again")
    if not font.has_sane_metrics:
        raise BadInput(f"{font.path}: the manifest gives it metrics that leave no line to write on")
    handle = open_freetype(font.path, font.face_index, _Mapped(data))
    shaper = Shaper(data, font.face_index)
    return Face(font, handle, shaper, handle.units_per_EM, _kerns_blanks(shaper))


class _Mapped:
    """A font file in memory, as `freetype.Face` asks for it."""

    def __init__(self, data: "ctypes.Array[ctypes.c_char]") -> None:
        self._data = data

    def read(self) -> "ctypes.Array[ctypes.c_char]":
        return self._data


_MAPPED: "weakref.WeakValueDictionary[tuple[str, str], ctypes.Array[ctypes.c_char]]" = weakref.WeakValueDictionary()


def _mapped(path: str, sha256: str) -> "ctypes.Array[ctypes.c_char]":
    """The bytes of a file, in memory once for all its faces and for both libraries: 16 MB for Noto Sans CJK."""
    data = _MAPPED.get((path, sha256))
    if data is None:
        with open(path, "rb") as file:
            pages = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_COPY)
        data = _MAPPED[path, sha256] = (ctypes.c_char * len(pages)).from_buffer(pages)
    return data


def _kerns_blanks(shaper: Shaper) -> bool:
    """Whether "a b c ..." comes out wider or narrower than the sum of its glyphs."""
    text = " " + " ".join(map(chr, range(0x21, 0x7F))) + " "
    rows = shaper.shape(np.frombuffer(text.encode("utf-32-le"), np.uint32), "en", script="Latn")
    return any(advance != shaper.advance(glyph) for glyph, advance in rows[:, [0, 2]].tolist())
