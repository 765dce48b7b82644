"""Which characters a face really draws: in its cmap AND with ink in the outline, never .notdef or a copy of it."""

import ctypes
import functools
import unicodedata
import weakref
from collections.abc import Iterable
from pathlib import Path

import freetype
import uharfbuzz as hb

from fonts_manifest.errors import BadInput
from fonts_manifest.manifest import FontFace

LOAD_FLAGS = freetype.FT_LOAD_NO_SCALE | freetype.FT_LOAD_NO_HINTING | freetype.FT_LOAD_NO_BITMAP

ASCII = "".join(map(chr, range(0x20, 0x7F)))
"""The 95 printable ASCII characters, the blank among them."""
LATIN_1 = ASCII + "".join(map(chr, (code for code in range(0xA0, 0x100) if code != 0xAD)))
"""ASCII and the upper half of ISO 8859-1 without the soft hyphen, which is invisible by definition."""


def _gb2312_rows(first: int, last: int) -> str:
    """Characters of rows `first` to `last` of GB 2312 in order, by Python's own codec."""
    characters = []
    for row in range(first, last + 1):
        for cell in range(1, 95):
            try:
                characters.append(bytes((0xA0 + row, 0xA0 + cell)).decode("gb2312"))
            except UnicodeDecodeError:  # five empty cells at the end of row 55
                continue
    return "".join(characters)


@functools.cache
def gb2312_level_1() -> str:
    """The 3,755 commonest simplified characters (GB 2312-80, rows 16 to 55, in order of pinyin)."""
    return _gb2312_rows(16, 55)


@functools.cache
def gb2312_level_2() -> str:
    """The 3,008 less common characters (GB 2312-80, rows 56 to 87, in order of radical)."""
    return _gb2312_rows(56, 87)


@functools.cache
def general_standard() -> tuple[str, str, str]:
    """The 3,500, 3,000 and 1,605 characters of the three levels of the 2013 List of General Standard Characters.

    In the list's own order (Unicode's Unihan database, field kTGH). 196 of the 8,105 lie beyond the first plane.
    """
    text = (Path(__file__).parent / "general_standard.txt").read_text(encoding="utf-8")
    common, less_common, special = text.split()
    return common, less_common, special


@functools.cache
def named_sets() -> dict[str, str]:
    """Name -> characters of every set that coverage is reported for."""
    return {
        "ASCII": ASCII,
        "Latin-1": LATIN_1,
        "GB 2312 level 1": gb2312_level_1(),
        "GB 2312 level 2": gb2312_level_2(),
        "8,105 general": "".join(general_standard()),
    }


_NOTDEF: "weakref.WeakKeyDictionary[freetype.Face, bytes]" = weakref.WeakKeyDictionary()
"""Outline of glyph 0 of the faces that are open: asked for with every character."""


def _load_outline(handle: freetype.Face, glyph: int) -> int:
    """Load a glyph in font units; returns how many points its outline has, -1 when it cannot be loaded."""
    if freetype.FT_Load_Glyph(handle._FT_Face, glyph, LOAD_FLAGS) != 0:
        return -1
    return int(handle._FT_Face.contents.glyph.contents.outline.n_points)


def _points(handle: freetype.Face) -> bytes:
    """The loaded outline's points as they lie in memory."""
    outline = handle._FT_Face.contents.glyph.contents.outline
    return ctypes.string_at(outline.points, outline.n_points * ctypes.sizeof(freetype.FT_Vector))


def _notdef(handle: freetype.Face) -> bytes:
    """The points of glyph 0; empty when there are none."""
    points = _NOTDEF.get(handle)
    if points is None:
        points = _NOTDEF[handle] = _points(handle) if _load_outline(handle, 0) > 0 else b""
    return points


def draws(handle: freetype.Face, code: int) -> bool:
    """Whether the open FreeType face draws the character `code`: blanks may be empty, all else must have an outline.

    Some fonts map what they lack to a copy of .notdef under another number: its box is no character either.
    """
    glyph = freetype.FT_Get_Char_Index(handle._FT_Face, code)
    if glyph == 0:
        return False
    notdef = _notdef(handle)
    points = _load_outline(handle, glyph)
    if points <= 0:
        return points == 0 and unicodedata.category(chr(code)) == "Zs"
    return points * ctypes.sizeof(freetype.FT_Vector) != len(notdef) or _points(handle) != notdef


def open_freetype(path: str | Path, face_index: int, data: object = None) -> freetype.Face:
    """The face with its Unicode cmap selected. Raises BadInput when FreeType cannot open it or it has no such cmap.

    data: something whose `read()` gives the bytes of the file, where they are in memory already.
    """
    try:
        handle = freetype.Face(str(path) if data is None else data, face_index)
        handle.select_charmap(freetype.FT_ENCODING_UNICODE)
    except freetype.FT_Exception as error:
        raise BadInput(f"{path}: cannot be opened, or has no Unicode cmap ({error})") from None
    return handle


def drawn_characters(face: FontFace, characters: Iterable[str]) -> frozenset[str]:
    """Those of `characters` that the face really draws. 4 us a character. Raises BadInput when it does not open."""
    handle = open_freetype(face.path, face.face_index)
    # What HarfBuzz does not find in the cmap cannot be drawn; asking it for all at once costs next to nothing.
    mapped = set(hb.Face(hb.Blob.from_file_path(face.path), face.face_index).unicodes)
    return frozenset(
        character for character in characters if ord(character) in mapped and draws(handle, ord(character))
    )


def coverage(face: FontFace) -> dict[str, tuple[int, int]]:
    """Name of every named set -> (characters drawn, characters in the set). Raises BadInput when it does not open."""
    drawn = drawn_characters(face, set().union(*named_sets().values()))
    return {name: (len(drawn.intersection(characters)), len(characters)) for name, characters in named_sets().items()}
