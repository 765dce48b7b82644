"""Which characters a face really draws: in its cmap AND with ink in the outline, and never glyph 0 (.notdef)."""

import functools
import unicodedata
from collections.abc import Iterable
from pathlib import Path

import freetype

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


def named_sets() -> dict[str, str]:
    """Name -> characters of every set that coverage is reported for."""
    return {
        "ASCII": ASCII,
        "Latin-1": LATIN_1,
        "GB 2312 level 1": gb2312_level_1(),
        "GB 2312 level 2": gb2312_level_2(),
    }


def draws(handle: freetype.Face, code: int) -> bool:
    """Whether the open FreeType face draws the character `code`: blanks may be empty, all else must have an outline."""
    glyph = freetype.FT_Get_Char_Index(handle._FT_Face, code)
    if glyph == 0 or freetype.FT_Load_Glyph(handle._FT_Face, glyph, LOAD_FLAGS) != 0:
        return False
    slot = handle._FT_Face.contents.glyph.contents
    return slot.outline.n_points > 0 or unicodedata.category(chr(code)) == "Zs"


def open_freetype(path: str | Path, face_index: int) -> freetype.Face:
    """The face with its Unicode cmap selected. Raises BadInput when FreeType cannot open it or it has no such cmap."""
    try:
        handle = freetype.Face(str(path), face_index)
        handle.select_charmap(freetype.FT_ENCODING_UNICODE)
    except freetype.FT_Exception as error:
        raise BadInput(f"{path}: face {face_index} cannot be opened ({error})") from None
    return handle


def drawn_characters(face: FontFace, characters: Iterable[str]) -> frozenset[str]:
    """Those of `characters` that the face really draws. 4 us a character. Raises BadInput when it does not open."""
    handle = open_freetype(face.path, face.face_index)
    return frozenset(character for character in characters if draws(handle, ord(character)))


def coverage(face: FontFace) -> dict[str, tuple[int, int]]:
    """Name of every named set -> (characters drawn, characters in the set). Raises BadInput when it does not open."""
    handle = open_freetype(face.path, face.face_index)
    return {
        name: (sum(draws(handle, ord(character)) for character in characters), len(characters))
        for name, characters in named_sets().items()
    }
