"""PNG's Paeth filter there and back (PNG, third edition, 9.4): every byte minus the nearest of left, above and corner.

The first row is filtered by its left neighbours alone ("sub"): Paeth's filter comes to that without a row above.
"""

import numpy as np
import numpy.typing as npt
from numba import njit

SUB, PAETH = 1, 4
_THREE = np.uint64(3)
_TWO = np.uint64(2)
_ONE = np.uint64(1)


@njit(cache=True, nogil=True)
def filter_rows(image_HW3: npt.NDArray[np.uint8], filtered: npt.NDArray[np.uint8]) -> None:
    """Fill `filtered`, H rows of 1 + 3 W bytes one after the other: the type of the filter, then what it leaves."""
    height, width = image_HW3.shape[:2]
    flat = image_HW3.reshape(-1)
    n = np.uint64(3 * width)
    filtered[0] = SUB
    for i in range(3):
        filtered[1 + i] = flat[i]
    for i in range(3, n):
        filtered[1 + i] = flat[i] - flat[i - 3]
    for row in range(1, height):
        at = np.uint64(row) * (n + _ONE)
        filtered[at] = PAETH
        _filter_row(flat, np.uint64(row) * n, n, filtered, at + _ONE)


@njit(cache=True, nogil=True)
def _filter_row(flat: npt.NDArray[np.uint8], start: int, n: int, filtered: npt.NDArray[np.uint8], at: int) -> None:
    """One row of `n` bytes from `flat[start]` on, in 8 bits and unsigned indices: 32 bytes an instruction.

    left + above - corner lies as far from `left` as `above` from `corner`, as far from `above` as `left` from `corner`,
    and from `corner` by the sum of both where both lie on one side of it, else by their difference.
    """
    for i in range(_THREE):
        filtered[at + i] = flat[start + i] - flat[start + i - n]
    for i in range(_THREE, n):
        left = flat[start + i - _THREE]
        above = flat[start + i - n]
        corner = flat[start + i - n - _THREE]
        to_above = np.uint8(left - corner) if left >= corner else np.uint8(corner - left)
        to_left = np.uint8(above - corner) if above >= corner else np.uint8(corner - above)
        difference = np.uint8(to_left - to_above) if to_left >= to_above else np.uint8(to_above - to_left)
        # A sum is never the least of the three, nor is 255 less than any of the others.
        to_corner = np.uint8(255) if (left >= corner) == (above >= corner) else difference
        other = above if to_above <= to_corner else corner
        nearest = left if (to_left <= to_above) & (to_left <= to_corner) else other
        filtered[at + i] = np.uint8(flat[start + i] - nearest)


@njit(cache=True, nogil=True)
def _nearest(left: int, above: int, corner: int) -> int:
    to_left = abs(above - corner)
    to_above = abs(left - corner)
    to_corner = abs(left + above - 2 * corner)
    other = above if to_above <= to_corner else corner
    return left if to_left <= min(to_above, to_corner) else other


@njit(cache=True, nogil=True)
def undo_rows(filtered: npt.NDArray[np.uint8], image_HW3: npt.NDArray[np.uint8]) -> None:
    """Fill `image_HW3` from what `filter_rows` made of it: three channels side by side, as none waits for another."""
    height, width = image_HW3.shape[:2]
    flat = image_HW3.reshape(-1)
    n = np.uint64(3 * width)
    for i in range(3):
        flat[i] = filtered[1 + i]
    for i in range(3, n):
        flat[i] = filtered[1 + i] + flat[i - 3]
    for row in range(1, height):
        source = np.uint64(row) * (n + _ONE) + _ONE
        at = np.uint64(row) * n
        red = green = blue = corner_red = corner_green = corner_blue = np.int32(0)
        for _ in range(np.uint64(width)):
            above_red = np.int32(flat[at - n])
            above_green = np.int32(flat[at + _ONE - n])
            above_blue = np.int32(flat[at + _TWO - n])
            red = (np.int32(filtered[source]) + _nearest(red, above_red, corner_red)) & 255
            green = (np.int32(filtered[source + _ONE]) + _nearest(green, above_green, corner_green)) & 255
            blue = (np.int32(filtered[source + _TWO]) + _nearest(blue, above_blue, corner_blue)) & 255
            flat[at] = np.uint8(red)
            flat[at + _ONE] = np.uint8(green)
            flat[at + _TWO] = np.uint8(blue)
            corner_red, corner_green, corner_blue = above_red, above_green, above_blue
            source += _THREE
            at += _THREE
