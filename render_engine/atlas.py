"""Glyph coverage: FreeType's own bitmaps in one flat array, found by an integer key, bounded in memory.

A bitmap is the same whether it was cached or not, so the cache can never change a picture. Measured: a miss costs 4.6
(Latin) to 12.6 us (Chinese), a hit 5 ns; a full Chinese strike takes 30 ms to fill.
"""

import ctypes
import functools

import freetype
import numpy as np
import numpy.typing as npt
from numba import njit

from render_engine.face import Face
from render_engine.native import call_int, copy_bytes, read_int32, read_int64
from render_engine.spec import RenderError

LOAD_FLAGS = {
    "none": freetype.FT_LOAD_NO_HINTING | freetype.FT_LOAD_NO_BITMAP,
    "light": freetype.FT_LOAD_TARGET_LIGHT | freetype.FT_LOAD_NO_BITMAP,
    "full": freetype.FT_LOAD_TARGET_NORMAL | freetype.FT_LOAD_NO_BITMAP,
}
LCD = "_lcd"
"""Behind the name of a hinting: three coverages a pixel, side by side, for the stripes of a screen."""
PHASE_26_6 = 16
"""A quarter of a pixel."""
MAX_BITMAP_PX = 4096
EMPTY = -1
MAX_BYTES = 200_000_000
"""Room for all that 22 faces draw at 16 sizes of English and Chinese texts: 1.14 million bitmaps after 24,000 pages."""
LEAST_BYTES = 64
"""A bitmap takes about so much with its entry in the smallest sizes."""


class Atlas:
    """Coverage bitmaps of one process. `pixels` holds them row by row, one after the other; `entries` says where."""

    def __init__(self, max_bytes: int = MAX_BYTES) -> None:
        self.max_bytes = max_bytes
        """The atlas starts afresh when a page finds it larger than this."""
        self.rasterised = 0
        """Bitmaps drawn by FreeType so far, those forgotten since included."""
        # All of it at once: what is not touched takes no memory, and growing would copy what is there.
        self.pixels = np.empty(max(1 << 20, max_bytes), np.uint8)
        self.entries = np.empty((max(4096, max_bytes // LEAST_BYTES), 5), np.int32)
        """(glyphs, 5): offset in `pixels`, width, height, left of the pen, top above the baseline, all in px."""
        self._keys = np.empty(len(self.entries), np.int64)
        self._start_afresh()

    def _start_afresh(self) -> None:
        self._slots = np.full(16384, EMPTY, np.int32)
        self.used_bytes = 0
        self.count = 0
        self._strikes: dict[tuple[str, int, str], int] = {}
        self._strike_faces: list[tuple[Face, int, str]] = []

    def make_room(self) -> None:
        """Call between pages: forget everything when the atlas has outgrown its bound."""
        if self.used_bytes + self.entries[: self.count].nbytes > self.max_bytes:
            self._start_afresh()

    def strike(self, face: Face, size_26_6: int, hinting: str) -> int:
        """Number of a face at a size, the upper part of a key; valid until `make_room`."""
        key = (face.font.face_id, size_26_6, hinting)
        number = self._strikes.get(key)
        if number is None:
            number = self._strikes[key] = len(self._strike_faces)
            self._strike_faces.append((face, size_26_6, hinting))
        return number

    def find(self, keys: npt.NDArray[np.int64]) -> npt.NDArray[np.int32]:
        """Row of `entries` for every key (`strike << 18 | glyph << 2 | phase`); rasterises what is new."""
        found = np.empty(len(keys), np.int32)
        if _look_up(keys, self._slots, self._keys, found):
            self._rasterise(np.unique(keys[found < 0]))
            _look_up(keys, self._slots, self._keys, found)
        return found

    def _rasterise(self, keys: npt.NDArray[np.int64]) -> None:
        """Add the bitmaps of `keys` (sorted, none of them known), strike by strike, each in one compiled call."""
        while self.count + len(keys) > len(self.entries):
            self.entries = np.concatenate((self.entries, np.empty_like(self.entries)))
            self._keys = np.concatenate((self._keys, np.empty_like(self._keys)))
        entries = self.entries[self.count : self.count + len(keys)]
        used_bytes = self.used_bytes
        strikes = keys >> 18
        starts = np.flatnonzero(np.diff(strikes, prepend=-1)).tolist()
        for start, stop in zip(starts, [*starts[1:], len(keys)], strict=True):
            face, size_26_6, hinting = self._strike_faces[strikes[start]]
            set_size(face, size_26_6)
            while True:
                done, used_bytes, error = rasterise(
                    face, hinting, keys[start:stop], self.pixels, used_bytes, entries[start:]
                )
                start += done
                if start == stop:
                    break
                if error:
                    reason = f"FreeType error {error}" if error > 0 else f"a bitmap of more than {MAX_BITMAP_PX} px"
                    glyph = keys[start] >> 2 & 0xFFFF
                    raise RenderError("missing_glyph", f"{reason} in glyph {glyph} of {face.font.family}")
                self.pixels = np.concatenate((self.pixels, np.empty_like(self.pixels)))
        first, self.count = self.count, self.count + len(keys)
        self._keys[first : self.count] = keys
        if 4 * self.count > 3 * len(self._slots):
            self._slots = np.full(1 << (2 * self.count).bit_length(), EMPTY, np.int32)
            first = 0
        _enter(self._keys, first, self.count, self._slots)
        self.used_bytes = used_bytes
        self.rasterised += len(keys)


def set_size(face: Face, size_26_6: int) -> None:
    """Scale the face; every `rasterise` after it draws at this size. Raises RenderError when FreeType refuses."""
    error = freetype.FT_Set_Char_Size(face.handle, size_26_6, size_26_6, 72, 72)
    if error:
        raise RenderError("bad_spec", f"FreeType error {error} at {size_26_6 / 64} px in {face.font.family}")


def rasterise(
    face: Face,
    hinting: str,
    keys: npt.NDArray[np.int64],
    pixels: npt.NDArray[np.uint8],
    used_bytes: int,
    entries: npt.NDArray[np.int32],
) -> tuple[int, int, int]:
    """FreeType's grey coverage of glyphs (`glyph << 2 | phase` in the low 18 bits of each key) behind `used_bytes`.

    phase: quarter pixels to the right. Fills `entries` as `Atlas.entries` has them. Returns how many glyphs were done,
    the bytes used then, and FreeType's error in the glyph after them, -1 when its bitmap is too large, 0 when all are
    done or `pixels` is full.
    """
    lcd = hinting.endswith(LCD)
    mode = freetype.FT_RENDER_MODE_LCD if lcd else freetype.FT_RENDER_MODE_NORMAL
    handle = ctypes.cast(face.handle, ctypes.c_void_p).value or 0
    slot = ctypes.cast(face.handle.contents.glyph, ctypes.c_void_p).value or 0
    settings = np.array(
        [handle, slot, LOAD_FLAGS[hinting.removesuffix(LCD)], mode, 3 if lcd else 1, *_addresses()], np.int64
    )
    done, used, error = _rasterise_all(keys, settings, pixels, used_bytes, entries)
    return int(done), int(used), int(error)


@functools.cache
def _addresses() -> tuple[int, ...]:
    """Where FreeType's three functions start and where the fields of its glyph slot lie (bytes from the slot)."""
    functions = (freetype.FT_Load_Glyph, freetype.FT_Outline_Translate, freetype.FT_Render_Glyph)
    starts = [ctypes.cast(function, ctypes.c_void_p).value or 0 for function in functions]
    slot, bitmap = freetype.FT_GlyphSlotRec, freetype.FT_Bitmap
    fields = [getattr(bitmap, name).offset for name in ("rows", "width", "pitch", "buffer")]
    offsets = [slot.bitmap.offset + offset for offset in fields]
    return (*starts, slot.outline.offset, *offsets, slot.bitmap_left.offset, slot.bitmap_top.offset)


@njit(cache=True, nogil=True)
def _rasterise_all(
    keys: npt.NDArray[np.int64],
    settings: npt.NDArray[np.int64],
    pixels: npt.NDArray[np.uint8],
    used_bytes: int,
    entries: npt.NDArray[np.int32],
) -> tuple[int, int, int]:
    """See `rasterise`. Compiled, a miss costs what FreeType takes for it: 3 us less than through ctypes, of 8 to 13."""
    handle, slot, flags, mode, stripes, load, translate, render = settings[:8]
    outline, rows_at, width_at, pitch_at, buffer_at, left_at, top_at = settings[8:]
    for k in range(len(keys)):
        glyph = (keys[k] >> 2) & 0xFFFF
        error = call_int(load, handle, glyph, flags)
        if error == 0:
            if keys[k] & 3:
                call_int(translate, slot + outline, (keys[k] & 3) * PHASE_26_6, 0)
            error = call_int(render, slot, mode, 0)
        if error != 0:
            return k, used_bytes, error
        rows, width = read_int32(slot + rows_at), read_int32(slot + width_at)
        pitch, buffer = read_int32(slot + pitch_at), read_int64(slot + buffer_at)
        if rows == 0 or width == 0:
            entries[k, :] = 0
            entries[k, 0] = used_bytes
            continue
        if rows > MAX_BITMAP_PX or width > MAX_BITMAP_PX or pitch < width:
            return k, used_bytes, -1
        if used_bytes + rows * width > len(pixels):
            return k, used_bytes, 0
        entries[k, 0] = used_bytes
        entries[k, 1] = width // stripes
        entries[k, 2] = rows
        entries[k, 3] = read_int32(slot + left_at)
        entries[k, 4] = read_int32(slot + top_at)
        for row in range(rows):
            copy_bytes(pixels, used_bytes, buffer + row * pitch, width)
            used_bytes += width
    return len(keys), used_bytes, 0


@njit(cache=True, nogil=True)
def _slot(key: int, mask: int) -> int:
    """Where a key's search starts (Fibonacci hashing)."""
    return ((key * 0x1E3779B97F4A7C15) >> 32) & mask


@njit(cache=True, nogil=True)
def _look_up(
    keys: npt.NDArray[np.int64],
    slots: npt.NDArray[np.int32],
    known: npt.NDArray[np.int64],
    found: npt.NDArray[np.int32],
) -> int:
    """Rows of `keys` in `known` into `found`, -1 where there is none; returns how many there are of those.

    slots: a hash table (a power of 2 long) of rows of `known`, -1 where there is none.
    """
    mask = len(slots) - 1
    missing = 0
    for i in range(len(keys)):
        at = _slot(keys[i], mask)
        while slots[at] != -1 and known[slots[at]] != keys[i]:
            at = (at + 1) & mask
        found[i] = slots[at]
        if slots[at] == -1:
            missing += 1
    return missing


@njit(cache=True, nogil=True)
def _enter(known: npt.NDArray[np.int64], first: int, last: int, slots: npt.NDArray[np.int32]) -> None:
    """The rows `first` to `last` of `known` into `slots`, which must have room."""
    mask = len(slots) - 1
    for row in range(first, last):
        at = _slot(known[row], mask)
        while slots[at] != -1:
            at = (at + 1) & mask
        slots[at] = row
