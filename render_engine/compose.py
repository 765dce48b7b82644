"""Coverage over the picture: every glyph of a page in one compiled call, integers only, so bytes never differ.

Grey: one coverage a pixel. Sub-pixel: the red, green and blue stripe of a screen's pixel each have one of their own.
"""

import functools

import numpy as np
import numpy.typing as npt
from numba import njit

from render_engine.lanes import MIXED, mix_pixels
from render_engine.native import prefetch

AHEAD = 6
"""Glyphs between the one that is drawn and the one whose bitmap is asked for."""


@functools.cache
def linear_tables() -> tuple[npt.NDArray[np.uint32], npt.NDArray[np.uint8]]:
    """(256,) sRGB value -> linear light in 1/65535, and (65536,) back, rounded (IEC 61966-2-1)."""
    value = np.arange(256) / 255
    linear = np.where(value <= 0.04045, value / 12.92, ((value + 0.055) / 1.055) ** 2.4)
    light = np.arange(65536) / 65535
    encoded = np.where(light <= 0.0031308, light * 12.92, 1.055 * light ** (1 / 2.4) - 0.055)
    return np.rint(linear * 65535).astype(np.uint32), np.rint(encoded * 255).astype(np.uint8)


@njit(cache=True, nogil=True)
def ink_share(coverage: np.uint8, opacity: np.uint32) -> np.int32:
    """Of the ink in 1/65536: full coverage at opacity 255 is the ink itself, to the bit."""
    return np.int32((np.uint32(coverage) * opacity * np.uint32(33026)) >> np.uint32(15))


@njit(cache=True, nogil=True)
def mix(ground: np.uint8, ink: np.int32, share: np.int32) -> np.uint8:
    """share / 65536 of the ink over the ground, rounded."""
    below = np.int32(ground)
    return np.uint8((below * np.int32(65536) + (ink - below) * share + np.int32(32768)) >> np.int32(16))


@njit(cache=True, nogil=True)
def mix_linear(
    ground: np.uint8,
    light: np.uint32,
    share: np.int32,
    to_linear: npt.NDArray[np.uint32],
    from_linear: npt.NDArray[np.uint8],
) -> np.uint8:
    """The same in linear light, which the ink is given in: `to_linear[ink]`. 32 bits hold it (65,535 * 65,536)."""
    of_ink = np.uint32(share)
    mixed = to_linear[ground] * (np.uint32(65536) - of_ink) + light * of_ink + np.uint32(32768)
    return from_linear[np.uint32(mixed) >> np.uint32(16)]


@njit(cache=True, nogil=True)
def draw_glyphs(
    image_HW3: npt.NDArray[np.uint8],
    entries: npt.NDArray[np.int32],
    pixels: npt.NDArray[np.uint8],
    found: npt.NDArray[np.int32],
    pens: npt.NDArray[np.int32],
    line_inks: npt.NDArray[np.uint8],
    line_opacities: npt.NDArray[np.int32],
    linear: bool,
    to_linear: npt.NDArray[np.uint32],
    from_linear: npt.NDArray[np.uint8],
) -> None:
    """Lay every glyph over `image_HW3` (uint8 sRGB), in place, clipped at its edges (Porter-Duff "over").

    entries, pixels: the atlas. found: (glyphs,) rows of `entries`. pens: (glyphs, 3) x, y, line. line_inks: (lines, 3)
    sRGB. line_opacities: (lines,) 0 to 255. linear: mix linear light instead of sRGB values.
    Half coverage (128) of white on black gives 128 in sRGB, 188 in linear light.
    """
    height = image_HW3.shape[0]
    width = image_HW3.shape[1]
    flat = image_HW3.reshape(-1)
    one, two = np.uint64(1), np.uint64(2)
    coverages, target = pixels.ctypes.data, image_HW3.ctypes.data
    for g in range(len(found)):
        if g + AHEAD < len(found):
            # A bitmap of text is two or three lines of the cache; in an atlas of 100 MB they lie anywhere.
            ahead = coverages + entries[found[g + AHEAD], 0]
            for line_of_cache in range(3):
                prefetch(ahead + 64 * line_of_cache)
        entry = found[g]
        columns = entries[entry, 1]
        x0 = pens[g, 0] + entries[entry, 3]
        y0 = pens[g, 1] - entries[entry, 4]
        first, last = max(0, -x0), min(columns, width - x0)
        top, bottom = max(0, -y0), min(entries[entry, 2], height - y0)
        line = pens[g, 2]
        opacity = np.uint32(line_opacities[line])
        red = np.int32(line_inks[line, 0])
        green = np.int32(line_inks[line, 1])
        blue = np.int32(line_inks[line, 2])
        light = (to_linear[red], to_linear[green], to_linear[blue])
        # Several pixels at a time, those beyond the glyph as they are, where such lie behind its last one.
        behind_bitmap = entries[entry, 0] + bottom * columns + MIXED <= len(pixels)
        several = not linear and behind_bitmap and 3 * ((y0 + bottom) * width + MIXED) <= len(flat)
        for row in range(top, bottom):
            source = entries[entry, 0] + row * columns
            start = (y0 + row) * width + x0
            if several:
                for column in range(first, last, MIXED):
                    at = target + 3 * (start + column)
                    mix_pixels(at, coverages + source + column, last - column, opacity, red, green, blue)
                continue
            for column in range(first, last):
                # Unsigned indices: signed ones cost a test for "from the end" at every access, a third of the time.
                coverage = pixels[np.uint64(source + column)]
                if coverage == 0:
                    continue
                share = ink_share(coverage, opacity)
                at = np.uint64(3 * (start + column))
                below = (flat[at], flat[at + one], flat[at + two])
                # All three are read before one is written: for all a compiler knows, the tables lie in the picture.
                if linear:
                    mixed = (
                        mix_linear(below[0], light[0], share, to_linear, from_linear),
                        mix_linear(below[1], light[1], share, to_linear, from_linear),
                        mix_linear(below[2], light[2], share, to_linear, from_linear),
                    )
                else:
                    mixed = (mix(below[0], red, share), mix(below[1], green, share), mix(below[2], blue, share))
                flat[at], flat[at + one], flat[at + two] = mixed


@njit(cache=True, nogil=True)
def draw_glyphs_lcd(
    image_HW3: npt.NDArray[np.uint8],
    entries: npt.NDArray[np.int32],
    pixels: npt.NDArray[np.uint8],
    found: npt.NDArray[np.int32],
    pens: npt.NDArray[np.int32],
    line_inks: npt.NDArray[np.uint8],
    line_opacities: npt.NDArray[np.int32],
    linear: bool,
    to_linear: npt.NDArray[np.uint32],
    from_linear: npt.NDArray[np.uint8],
    blue_first: bool,
) -> None:
    """As `draw_glyphs`, with bitmaps of three coverages a pixel (FreeType's FT_RENDER_MODE_LCD: the left third of the
    pixel first). blue_first: the screen's left stripe is blue."""
    height = image_HW3.shape[0]
    width = image_HW3.shape[1]
    for g in range(len(found)):
        entry = found[g]
        columns = entries[entry, 1]
        x0 = pens[g, 0] + entries[entry, 3]
        y0 = pens[g, 1] - entries[entry, 4]
        line = pens[g, 2]
        opacity = np.uint32(line_opacities[line])
        for row in range(max(0, -y0), min(entries[entry, 2], height - y0)):
            for column in range(max(0, -x0), min(columns, width - x0)):
                base = entries[entry, 0] + (row * columns + column) * 3
                for channel in range(3):
                    share = ink_share(pixels[base + (2 - channel if blue_first else channel)], opacity)
                    ink = np.int32(line_inks[line, channel])
                    below = image_HW3[y0 + row, x0 + column, channel]
                    if linear:
                        image_HW3[y0 + row, x0 + column, channel] = mix_linear(
                            below, to_linear[ink], share, to_linear, from_linear
                        )
                    else:
                        image_HW3[y0 + row, x0 + column, channel] = mix(below, ink, share)
