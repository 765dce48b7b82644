"""Bilinear resampling in integers: equal on every processor, to the bit what OpenCV calls INTER_LINEAR_EXACT.

Weights are multiples of 1/256. Rows are stretched first and kept while the rows of the result need them: enlarging, a
row of the source is stretched once, and what is left is one pass of vector instructions over the result.
"""

import functools

import numpy as np
import numpy.typing as npt
from numba import njit

from render_engine.native import write_uint64

_ONE, _TWO, _THREE = np.uint64(1), np.uint64(2), np.uint64(3)
_WHOLE = np.uint64(256)


def resample(
    image_HW3: npt.NDArray[np.uint8], box_px: tuple[int, int, int, int], width_px: int, height_px: int
) -> npt.NDArray[np.uint8]:
    """The box x0, y0, x1, y1 of `image_HW3` (uint8, C-contiguous) at another size: (height_px, width_px, 3) uint8.

    The array is a fresh one. What lies outside the box has no part in it.
    """
    left, top, right, bottom = box_px
    out_HW3 = np.empty((height_px, width_px, 3), np.uint8)
    taps = (*_taps(right - left, width_px), *_taps(bottom - top, height_px))
    _resample(image_HW3, left, top, right - left, *taps, out_HW3)
    return out_HW3


@functools.lru_cache(256)
def _taps(source: int, target: int) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.uint16]]:
    """(target,) the first of the two source pixels behind each target pixel, and the weight of the second in 1/256."""
    at = (np.arange(target) + 0.5) * (1.0 / (target / source)) - 0.5
    first = np.floor(at)
    weight = np.rint((at - first) * 256)
    # Beyond the centres of the outermost pixels there is only the one.
    weight[first < 0] = 0
    weight[first >= source - 1] = 0
    return np.clip(first, 0, source - 1).astype(np.int64), weight.astype(np.uint16)


@njit(cache=True, nogil=True)
def _stretch(
    flat: npt.NDArray[np.uint8],
    start: int,
    first: npt.NDArray[np.int64],
    weight: npt.NDArray[np.uint16],
    lanes: npt.NDArray[np.uint64],
    stretched: npt.NDArray[np.uint16],
) -> None:
    """The row of the source from `flat[start]` on at the width of the result, in 1/256.

    The three channels of a pixel lie side by side in 16 bits each of one number, and are weighted at once.
    """
    at = np.uint64(start)
    for x in range(np.uint64(len(lanes))):
        green, blue = np.uint64(flat[at + _ONE]), np.uint64(flat[at + _TWO])
        lanes[x] = np.uint64(flat[at]) | green << np.uint64(16) | blue << np.uint64(32)
        at += _THREE
    address = np.uint64(stretched.ctypes.data)
    last = np.uint64(len(lanes) - 1)
    for x in range(np.uint64(len(first))):
        left, second = np.uint64(first[x]), np.uint64(weight[x])
        right = min(left + _ONE, last)
        # The empty fourth number falls on the next pixel, which is written after it.
        write_uint64(address, lanes[left] * (_WHOLE - second) + lanes[right] * second)
        address += np.uint64(6)


@njit(cache=True, nogil=True)
def _mix_rows(
    upper: npt.NDArray[np.uint16], lower: npt.NDArray[np.uint16], weight: int, out_N: npt.NDArray[np.uint8]
) -> None:
    second = np.uint32(weight)
    whole = np.uint32(256) - second
    for i in range(np.uint64(len(out_N))):
        out_N[i] = np.uint8((upper[i] * whole + lower[i] * second + np.uint32(32768)) >> np.uint32(16))


@njit(cache=True, nogil=True)
def _resample(
    image_HW3: npt.NDArray[np.uint8],
    left: int,
    top: int,
    box_width: int,
    first_x: npt.NDArray[np.int64],
    weight_x: npt.NDArray[np.uint16],
    first_y: npt.NDArray[np.int64],
    weight_y: npt.NDArray[np.uint16],
    out_HW3: npt.NDArray[np.uint8],
) -> None:
    height, width = out_HW3.shape[:2]
    upper, lower = np.empty(3 * width + 1, np.uint16), np.empty(3 * width + 1, np.uint16)
    lanes = np.empty(box_width, np.uint64)
    upper_row = lower_row = np.int64(-1)
    source = image_HW3.reshape(-1)
    stride = 3 * image_HW3.shape[1]
    start = top * stride + 3 * left
    out_HN = out_HW3.reshape(height, 3 * width)
    for y in range(height):
        first = first_y[y]
        second = first + 1 if weight_y[y] else first
        if first != upper_row:
            if first == lower_row:
                upper, lower = lower, upper
                lower_row = upper_row
            else:
                _stretch(source, start + first * stride, first_x, weight_x, lanes, upper)
            upper_row = first
        if weight_y[y] and second != lower_row:
            _stretch(source, start + second * stride, first_x, weight_x, lanes, lower)
            lower_row = second
        _mix_rows(upper, lower if weight_y[y] else upper, weight_y[y], out_HN[y])
