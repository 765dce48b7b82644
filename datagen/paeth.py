"""PNG's Paeth filter there and back (PNG, third edition, 9.4): every byte minus the nearest of left, above and corner.

The first row is filtered by its left neighbours alone ("sub"): Paeth's filter comes to that without a row above.
"""

from typing import Any

import numpy as np
import numpy.typing as npt
from llvmlite import ir
from numba import njit, types
from numba.extending import intrinsic

from render_engine.native import LANES, read_lanes, write_lanes

SUB, PAETH = 1, 4
_THREE = np.uint64(3)
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


@intrinsic
def _undone(typing: Any, left: Any, above: Any, corner: Any, residual: Any) -> Any:
    """A pixel from its neighbours and from what the filter left of it, all channels at once (`native.LANES`)."""

    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        left, above, corner, residual = (builder.bitcast(argument, LANES) for argument in arguments)

        def distance(difference: Any) -> Any:
            negative = builder.neg(difference)
            return builder.select(builder.icmp_signed(">", difference, negative), difference, negative)

        to_left = distance(builder.sub(above, corner))
        to_above = distance(builder.sub(left, corner))
        to_corner = distance(builder.add(left, builder.sub(above, builder.add(corner, corner))))
        is_above = builder.icmp_signed("<=", to_above, to_corner)
        other, to_other = builder.select(is_above, above, corner), builder.select(is_above, to_above, to_corner)
        nearest = builder.select(builder.icmp_signed("<=", to_left, to_other), left, other)
        value = builder.and_(builder.add(nearest, residual), ir.Constant(LANES, [255] * 4))
        return builder.bitcast(value, ir.IntType(64))

    return types.uint64(*[types.uint64] * 4), generate


@njit(cache=True, nogil=True)
def undo_rows(filtered: npt.NDArray[np.uint8], image_HW3: npt.NDArray[np.uint8]) -> None:
    """Fill `image_HW3` from what `filter_rows` made of it.

    Every pixel waits for its left neighbour: two rows are undone side by side, the lower one pixel behind, so that one
    has work while the other waits.
    """
    height, width = image_HW3.shape[:2]
    flat = image_HW3.reshape(-1)
    n = np.uint64(3 * width)
    for i in range(_THREE):
        flat[i] = filtered[_ONE + i]
    for i in range(_THREE, n):
        flat[i] = filtered[_ONE + i] + flat[i - _THREE]
    row = 1
    # A pixel is read and written with a fourth byte that is the next one's: not in the last row, where there is none.
    while row + 2 < height:
        _undo_two_rows(filtered, np.uint64(row) * (n + _ONE) + _ONE, flat, np.uint64(row) * n, n)
        row += 2
    for last in range(row, height):
        _undo_row(filtered, np.uint64(last) * (n + _ONE) + _ONE, flat, np.uint64(last) * n, n)


@njit(cache=True, nogil=True)
def _undo_row(filtered: npt.NDArray[np.uint8], source: int, flat: npt.NDArray[np.uint8], at: int, n: int) -> None:
    """The row of `n` bytes at `flat[at]` from `filtered[source]` on."""
    for i in range(_THREE):
        flat[at + i] = filtered[source + i] + flat[at + i - n]
    for i in range(_THREE, n):
        left = np.int32(flat[at + i - _THREE])
        above = np.int32(flat[at + i - n])
        corner = np.int32(flat[at + i - n - _THREE])
        flat[at + i] = np.uint8(np.int32(filtered[source + i]) + _nearest(left, above, corner))


@njit(cache=True, nogil=True)
def _undo_two_rows(filtered: npt.NDArray[np.uint8], source: int, flat: npt.NDArray[np.uint8], at: int, n: int) -> None:
    """The rows of `n` bytes each at `flat[at]` and behind it, from `filtered[source]` on."""
    read = np.uint64(filtered.ctypes.data) + source
    write = np.uint64(flat.ctypes.data) + at
    read_lower, write_lower = read + n + _ONE, write + n
    zero = np.uint64(0)
    upper = _undone(zero, read_lanes(write - n), zero, read_lanes(read))
    corner, lower, lower_corner = read_lanes(write - n), zero, zero
    write_lanes(write, upper)
    offset = _THREE
    while offset < n:
        above = read_lanes(write + offset - n)
        following = _undone(upper, above, corner, read_lanes(read + offset))
        lower = _undone(lower, upper, lower_corner, read_lanes(read_lower + offset - _THREE))
        write_lanes(write + offset, following)
        write_lanes(write_lower + offset - _THREE, lower)
        lower_corner, corner, upper = upper, above, following
        offset += _THREE
    lower = _undone(lower, upper, lower_corner, read_lanes(read_lower + n - _THREE))
    write_lanes(write_lower + n - _THREE, lower)
    # The fourth byte of the upper row's last pixel was written over the first of the lower row.
    flat[at + n] = filtered[source + n + _ONE] + flat[at]
