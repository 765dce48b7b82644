"""Colours against what lies underneath: the ground of a line is measured, its ink moved until it can be read."""

import functools

import numpy as np
import numpy.typing as npt
from numba import njit

from render_engine.compose import ink_share, linear_tables, mix, mix_linear
from render_engine.lanes import MOST_SUMMED, SUMMED, sum_pixels
from render_engine.spec import RGB


@functools.cache
def luminance_table() -> npt.NDArray[np.float64]:
    """(256,) sRGB value -> linear light, 0 to 1 (WCAG 2.2, "relative luminance")."""
    value = np.arange(256) / 255
    return np.where(value <= 0.04045, value / 12.92, ((value + 0.055) / 1.055) ** 2.4)


def relative_luminance(rgb: RGB) -> float:
    """WCAG 2.2 relative luminance of an sRGB colour, 0 to 1."""
    red, green, blue = luminance_table()[list(rgb)].tolist()
    return float(0.2126 * red + 0.7152 * green + 0.0722 * blue)


def contrast_ratio(one: RGB, other: RGB) -> float:
    """WCAG 2.2 contrast ratio, 1 to 21."""
    low, high = sorted((relative_luminance(one), relative_luminance(other)))
    return (high + 0.05) / (low + 0.05)


@njit(cache=True, nogil=True)
def measure_lines(
    image_HW3: npt.NDArray[np.uint8],
    entries: npt.NDArray[np.int32],
    found: npt.NDArray[np.int32],
    pens: npt.NDArray[np.int32],
    lines: npt.NDArray[np.int32],
    cap_heights_px: npt.NDArray[np.float64],
    ink_boxes: npt.NDArray[np.int32],
    boxes: npt.NDArray[np.float64],
    grounds: npt.NDArray[np.float64],
) -> None:
    """Where the ink of every line stands and what lies under it.

    cap_heights_px: (blocks,). Fills, for each line: ink_boxes (4) x0, y0, x1, y1 of all its bitmaps, all 0 when it has
    none; boxes (4) the same, widened to the pen's way and the height of a capital, so that "..." has a box of use;
    grounds (4) mean red, green, blue of the ground in that box and the standard deviation of its BT.601 luma, 0 to 255.
    """
    height = image_HW3.shape[0]
    width = image_HW3.shape[1]
    flat = image_HW3.reshape(-1)
    sums = np.zeros(5, np.int64)
    for k in range(len(lines)):
        x0 = 1 << 30
        y0 = 1 << 30
        x1 = -(1 << 30)
        y1 = -(1 << 30)
        for glyph in range(lines[k, 5], lines[k, 6]):
            entry = found[glyph]
            columns = entries[entry, 1]
            rows = entries[entry, 2]
            if columns == 0:
                continue
            left = pens[glyph, 0] + entries[entry, 3]
            top = pens[glyph, 1] - entries[entry, 4]
            x0 = min(x0, left)
            y0 = min(y0, top)
            x1 = max(x1, left + columns)
            y1 = max(y1, top + rows)
        if x1 < x0:
            ink_boxes[k, :] = 0
            boxes[k, :] = 0
            grounds[k, :] = 0
            continue
        ink_boxes[k, 0] = x0
        ink_boxes[k, 1] = y0
        ink_boxes[k, 2] = x1
        ink_boxes[k, 3] = y1
        boxes[k, 0] = min(float(x0), lines[k, 2] / 64)
        boxes[k, 1] = min(float(y0), lines[k, 4] - cap_heights_px[lines[k, 7]])
        boxes[k, 2] = max(float(x1), lines[k, 3] / 64)
        boxes[k, 3] = max(float(y1), float(lines[k, 4]))
        left = min(max(int(np.floor(boxes[k, 0])), 0), width - 1)
        top = min(max(int(np.floor(boxes[k, 1])), 0), height - 1)
        right = max(min(int(np.ceil(boxes[k, 2])), width), left + 1)
        bottom = max(min(int(np.ceil(boxes[k, 3])), height), top + 1)
        sums[:] = 0
        for y in range(top, bottom):
            _add_row(flat, 3 * (y * width + left), right - left, sums)
        count = (right - left) * (bottom - top)
        grounds[k, 0] = sums[0] / count
        grounds[k, 1] = sums[1] / count
        grounds[k, 2] = sums[2] / count
        grounds[k, 3] = np.sqrt(max(0.0, sums[4] / count - (sums[3] / count) ** 2))


@njit(cache=True, nogil=True)
def _add_row(flat: npt.NDArray[np.uint8], start: int, count: int, sums: npt.NDArray[np.int64]) -> None:
    """Add to `sums` the red, green, blue, luma and squared luma of `count` pixels from `flat[start]` on."""
    address = flat.ctypes.data + start
    while count >= SUMMED:
        some = min(count, MOST_SUMMED)
        red, green, blue, luma, squares = sum_pixels(address, some)
        sums[0] += red
        sums[1] += green
        sums[2] += blue
        sums[3] += luma
        sums[4] += squares
        count -= some
        start += 3 * some
        address += 3 * some
    for at in range(start, start + 3 * count, 3):
        red, green, blue = np.int64(flat[at]), np.int64(flat[at + 1]), np.int64(flat[at + 2])
        luma = (77 * red + 150 * green + 29 * blue) >> 8
        sums[0] += red
        sums[1] += green
        sums[2] += blue
        sums[3] += luma
        sums[4] += luma * luma


@njit(cache=True, nogil=True)
def _rounded(value: float) -> int:
    return int(np.rint(value))


@njit(cache=True, nogil=True)
def _clipped(value: int) -> int:
    return min(max(value, 0), 255)


@njit(cache=True, nogil=True)
def _moved(asked: int, target: int, step: int) -> int:
    """`asked` moved by step / 255 of its way to `target`, rounded."""
    return asked + ((target - asked) * step * 2 + 255) // 510


@njit(cache=True, nogil=True)
def _signed_contrast(
    ground: tuple[int, int, int],
    asked: tuple[int, int, int],
    target: int,
    step: int,
    share: int,
    linear: bool,
    to_linear: npt.NDArray[np.uint32],
    from_linear: npt.NDArray[np.uint8],
    luminance: npt.NDArray[np.float64],
) -> float:
    """Contrast of the moved ink as drawn, share / 65536 of it over the ground; below 1 on the wrong side of it."""
    ink_light = 0.0
    ground_light = 0.0
    for channel in range(3):
        weight = 0.2126 if channel == 0 else 0.7152 if channel == 1 else 0.0722
        value = _moved(asked[channel], target, step)
        if linear:
            seen = mix_linear(np.uint8(ground[channel]), to_linear[value], share, to_linear, from_linear)
        else:
            seen = mix(np.uint8(ground[channel]), np.int32(value), share)
        ink_light += weight * luminance[seen]
        ground_light += weight * luminance[ground[channel]]
    ratio = (ink_light + 0.05) / (ground_light + 0.05)
    return 1 / ratio if target == 0 else ratio


@njit(cache=True, nogil=True)
def choose_inks(
    grounds: npt.NDArray[np.float64],
    line_blocks: npt.NDArray[np.int32],
    asked_inks: npt.NDArray[np.int64],
    opacities: npt.NDArray[np.int64],
    floors: npt.NDArray[np.float64],
    linear: bool,
    to_linear: npt.NDArray[np.uint32],
    from_linear: npt.NDArray[np.uint8],
    luminance: npt.NDArray[np.float64],
    inks: npt.NDArray[np.uint8],
    contrasts: npt.NDArray[np.float64],
) -> int:
    """The ink of every line, moved from the one asked for towards black or white no further than its floor demands.

    The floor must hold against the mean ground and, where any ink can, against the ground one standard deviation
    nearer to the ink: what lies under a line is not one colour. Of the ink and its inverse the one is taken that needs
    the smaller step: a dark ink on a dark ground becomes as light as it was dark, as a designer would have it, and not
    the dullest grey that passes. A line follows the line above it in its block as long as the floor can be met so.
    asked_inks (blocks, 3), opacities (blocks,) 0 to 255, floors (blocks,) WCAG ratios. Fills inks (lines, 3) and
    contrasts (lines,) of the ink as seen, at its opacity over the mean ground. Returns the first line whose floor
    cannot be reached, or -1.
    """
    kept_block = -1
    kept_choice = -1
    best_choice = -1
    for k in range(len(line_blocks)):
        block = line_blocks[k]
        ground = (_rounded(grounds[k, 0]), _rounded(grounds[k, 1]), _rounded(grounds[k, 2]))
        clutter = _rounded(grounds[k, 3])
        asked = (asked_inks[block, 0], asked_inks[block, 1], asked_inks[block, 2])
        inverse = (255 - asked[0], 255 - asked[1], 255 - asked[2])
        share = ink_share(np.uint8(255), np.uint32(opacities[block]))
        floor = floors[block]
        best_step = 0
        ink = asked
        target = 0
        if floor > 1:
            best_step = 256
            # 0: as the line above, 1 to 4: ink or inverse towards black or white; then the same against the mean ground
            for attempt in range(10):
                if best_step < 256 and attempt in (1, 5, 6):
                    break
                choice = kept_choice if attempt % 5 == 0 else attempt % 5 - 1
                if choice < 0 or (attempt % 5 == 0 and kept_block != block):
                    continue
                tried = asked if choice < 2 else inverse
                towards = 255 * (choice % 2)
                shift = (clutter if towards == 255 else -clutter) if attempt < 5 else 0
                harder = (_clipped(ground[0] + shift), _clipped(ground[1] + shift), _clipped(ground[2] + shift))
                # The light seen grows or falls with every step, so the least step is found by halving; mostly it is
                # none, or the last but one does not do either.
                low = 0
                high = best_step
                middle = 0
                while low < high:
                    if floor <= _signed_contrast(
                        harder, tried, towards, middle, share, linear, to_linear, from_linear, luminance
                    ):
                        high = middle
                    else:
                        low = middle + 1
                    middle = best_step - 1 if low == 1 and high == best_step else (low + high) // 2
                if low < best_step:
                    best_step = low
                    ink = tried
                    target = towards
                    best_choice = choice
            if best_step == 256:
                return k
            kept_block = block
            kept_choice = best_choice
        for channel in range(3):
            inks[k, channel] = _moved(ink[channel], target, best_step)
        contrast = _signed_contrast(ground, ink, target, best_step, share, linear, to_linear, from_linear, luminance)
        contrasts[k] = max(contrast, 1 / contrast)
    return -1


def tables() -> tuple[npt.NDArray[np.uint32], npt.NDArray[np.uint8], npt.NDArray[np.float64]]:
    """What `choose_inks` looks up: sRGB to linear integers, back, and relative luminance."""
    return (*linear_tables(), luminance_table())
