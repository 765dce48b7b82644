"""HarfBuzz through its C interface: faces over bytes that are mapped already, glyphs read without an object for each.

uharfbuzz's extension module exports HarfBuzz's own functions (Linux, macOS). Its Python objects take .13 us for a field
of a glyph, which is more than shaping it, and open a file by themselves, which maps it a second time beside FreeType.
"""

import ctypes
import functools
from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
from numba import njit
from uharfbuzz import _harfbuzz

from render_engine.native import call_int, read_int32

GlyphRows = npt.NDArray[np.int32]
"""(glyphs, 6): glyph, cluster (character in the text), advance, x and y offset in font units (y up), and 1 where a line
must not be broken before the glyph (HarfBuzz would shape the parts otherwise)."""

_READ_ONLY, _LEFT_TO_RIGHT = 1, 4  # hb_memory_mode_t, hb_direction_t
_INFO_BYTES, _POSITION_BYTES = 20, 20  # of hb_glyph_info_t and hb_glyph_position_t
_COMMON = {"Zyyy", "Zinh", "Zzzz", ""}
"""Scripts that say nothing of the language."""


class _Extents(ctypes.Structure):
    """hb_glyph_extents_t."""

    _fields_ = [(name, ctypes.c_int32) for name in ("x_bearing", "y_bearing", "width", "height")]


class _Feature(ctypes.Structure):
    """hb_feature_t."""

    _fields_ = [(name, ctypes.c_uint32) for name in ("tag", "value", "start", "end")]


@functools.cache
def _library() -> ctypes.CDLL:
    """HarfBuzz's functions that are used here, their arguments declared."""
    library = ctypes.CDLL(_harfbuzz.__file__)
    pointer, integer = ctypes.c_void_p, ctypes.c_uint32
    for name, result, *arguments in (
        ("hb_blob_create", pointer, pointer, integer, integer, pointer, pointer),
        ("hb_blob_destroy", None, pointer),
        ("hb_face_create", pointer, pointer, integer),
        ("hb_face_destroy", None, pointer),
        ("hb_face_get_upem", integer, pointer),
        ("hb_font_create", pointer, pointer),
        ("hb_font_destroy", None, pointer),
        ("hb_font_get_nominal_glyph", integer, pointer, integer, pointer),
        ("hb_font_get_glyph_extents", integer, pointer, integer, pointer),
        ("hb_font_get_glyph_h_advance", ctypes.c_int32, pointer, integer),
        ("hb_buffer_create", pointer),
        ("hb_buffer_destroy", None, pointer),
        ("hb_buffer_clear_contents", None, pointer),
        ("hb_buffer_add_codepoints", None, pointer, pointer, integer, integer, integer),
        ("hb_buffer_guess_segment_properties", None, pointer),
        ("hb_buffer_get_script", integer, pointer),
        ("hb_buffer_set_script", None, pointer, integer),
        ("hb_buffer_set_direction", None, pointer, integer),
        ("hb_buffer_set_language", None, pointer, pointer),
        ("hb_buffer_get_glyph_infos", pointer, pointer, pointer),
        ("hb_buffer_get_glyph_positions", pointer, pointer, pointer),
        ("hb_language_from_string", pointer, ctypes.c_char_p, ctypes.c_int32),
        ("hb_shape", None, pointer, pointer, pointer, integer),
    ):
        function = getattr(library, name)
        function.restype, function.argtypes = result, arguments
    return library


class Shaper:
    """One face at its own scale, font units. Not to be shared between threads."""

    def __init__(self, data: "ctypes.Array[ctypes.c_char]", face_index: int) -> None:
        """data: a font file, which must not change any more. face_index: as in `FontFace`, named instances included."""
        library = self._library = _library()
        self._data = data
        blob = library.hb_blob_create(ctypes.addressof(data), len(data), _READ_ONLY, None, None)
        face = library.hb_face_create(blob, face_index)
        self.units_per_em = int(library.hb_face_get_upem(face))
        self._font = library.hb_font_create(face)
        self._buffer = library.hb_buffer_create()
        # The font keeps what it is made of.
        library.hb_face_destroy(face)
        library.hb_blob_destroy(blob)

    def __del__(self) -> None:
        self._library.hb_buffer_destroy(self._buffer)
        self._library.hb_font_destroy(self._font)

    def nominal_glyphs(self, codes: npt.NDArray[np.uint32]) -> npt.NDArray[np.int32]:
        """(codes,) the glyph that the character map names, -1 where it names none."""
        glyphs = np.empty(len(codes), np.int32)
        _nominal_glyphs(_address("hb_font_get_nominal_glyph"), self._font, codes, glyphs)
        return glyphs

    def advance(self, glyph: int) -> int:
        """Of a glyph that stands alone."""
        return int(self._library.hb_font_get_glyph_h_advance(self._font, glyph))

    def ink(self, glyph: int) -> tuple[int, int, int]:
        """Left edge of a glyph's ink from its pen, its width and its height (below 0, for y points up)."""
        extents = _Extents()
        self._library.hb_font_get_glyph_extents(self._font, glyph, ctypes.byref(extents))
        return extents.x_bearing, extents.width, extents.height

    def shape(
        self,
        codes: npt.NDArray[np.uint32],
        language: str,
        *,
        script: str = "",
        default_script: str = "",
        features: Sequence[tuple[str, int]] = (),
    ) -> GlyphRows:
        """The glyphs of a text from left to right. language: BCP 47.

        script: ISO 15924; without one HarfBuzz looks at the text, and takes `default_script` where that has none.
        """
        library, buffer = self._library, self._buffer
        library.hb_buffer_clear_contents(buffer)
        library.hb_buffer_add_codepoints(buffer, codes.ctypes.data, len(codes), 0, len(codes))
        if not script:
            library.hb_buffer_guess_segment_properties(buffer)
            guessed = library.hb_buffer_get_script(buffer).to_bytes(4, "big").decode("latin-1").strip("\0")
            script = default_script if guessed in _COMMON else guessed
        library.hb_buffer_set_script(buffer, _tag(script))
        library.hb_buffer_set_direction(buffer, _LEFT_TO_RIGHT)
        library.hb_buffer_set_language(buffer, _language(language))
        asked = (_Feature * len(features))(*(_Feature(_tag(name), value, 0, 0xFFFFFFFF) for name, value in features))
        library.hb_shape(self._font, buffer, asked, len(features))
        count = ctypes.c_uint32()
        infos = library.hb_buffer_get_glyph_infos(buffer, ctypes.byref(count)) or 0
        positions = library.hb_buffer_get_glyph_positions(buffer, ctypes.byref(count)) or 0
        rows = np.empty((count.value, 6), np.int32)
        _read_glyphs(infos, positions, rows)
        return rows


@functools.cache
def _address(name: str) -> int:
    return ctypes.cast(getattr(_library(), name), ctypes.c_void_p).value or 0


def _tag(name: str) -> int:
    return int.from_bytes(name.encode("ascii"), "big")


@functools.cache
def _language(name: str) -> Any:
    return _library().hb_language_from_string(name.encode("ascii"), -1)


@njit(cache=True, nogil=True)
def _read_glyphs(infos: int, positions: int, rows: GlyphRows) -> None:
    """What lies at two addresses, hb_glyph_info_t and hb_glyph_position_t, as rows."""
    for i in range(len(rows)):
        info, position = infos + i * _INFO_BYTES, positions + i * _POSITION_BYTES
        rows[i, 0] = read_int32(info)
        rows[i, 1] = read_int32(info + 8)
        rows[i, 2] = read_int32(position)
        rows[i, 3] = read_int32(position + 8)
        rows[i, 4] = read_int32(position + 12)
        rows[i, 5] = read_int32(info + 4) & 1  # HB_GLYPH_FLAG_UNSAFE_TO_BREAK


@njit(cache=True, nogil=True)
def _nominal_glyphs(function: int, font: int, codes: npt.NDArray[np.uint32], glyphs: npt.NDArray[np.int32]) -> None:
    for i in range(len(codes)):
        if call_int(function, font, np.int64(codes[i]), glyphs.ctypes.data + 4 * i) == 0:
            glyphs[i] = -1
