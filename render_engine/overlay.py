"""A flat page laid into a photograph: every pixel looked up, lit, its shadow under it; integers where it counts."""

import cv2
import numpy as np
import numpy.typing as npt
from numba import njit

from render_engine.degrade import blur
from render_engine.spec import RenderError, Surface
from render_engine.warp import STEPS, outline, project

EDGE_SAMPLES = 4
"""Looks along each side of a pixel at the edge of the thing: how much of the pixel it covers, in sixteenths."""


def lay_on(image_HW3: npt.NDArray[np.uint8], flat_hw3: npt.NDArray[np.uint8], surface: Surface) -> None:
    """Lay the flat page and its shadow over the photograph, in place. Raises RenderError as `project` does.

    Every pixel is the mean of two by two pixels of the flat page, mixed bilinearly at its place: sharp when the flat
    page has about two pixels to one of the picture.
    """
    projection = project(surface)
    if not (all(0 <= value <= 2 for value in surface.light) and 0 <= surface.shadow_opacity <= 1):
        raise RenderError("bad_spec", "light or shadow_opacity of the surface is out of range")
    if not (0 < surface.shadow_blur_px <= 64 and max(map(abs, surface.shadow_offset_px)) <= 1024):
        raise RenderError("bad_spec", "the shadow of the surface is out of range")
    outline_N2 = outline(*projection.numbers, 0.0, 0.0, float(surface.width_px), float(surface.height_px))
    if surface.shadow_opacity > 0:
        _cast_shadow(image_HW3, outline_N2, surface)
    light = np.array(surface.light, np.float64)
    spans_H2 = _spans(outline_N2, *image_HW3.shape[:2])
    _sample(
        image_HW3, _sums_of_four(flat_hw3), _adjugate(projection.matrix_33), surface.bow, light, outline_N2, spans_H2
    )


def _cast_shadow(image_HW3: npt.NDArray[np.uint8], outline_N2: npt.NDArray[np.float64], surface: Surface) -> None:
    # A soft shadow has no detail: a quarter of its pixels or fewer say all of it (5.4 ms at full size, sigma 5 px).
    coarse = 1 if surface.shadow_blur_px < 2 else 2 if surface.shadow_blur_px < 4 else 4
    cast_N2 = outline_N2 + np.array(surface.shadow_offset_px)
    reach = np.ceil(3 * surface.shadow_blur_px) + coarse
    sides = np.array(image_HW3.shape[1::-1])
    left, top = np.clip(np.floor(cast_N2.min(axis=0)) - reach, 0, sides).astype(np.int64).tolist()
    right, bottom = np.clip(np.ceil(cast_N2.max(axis=0)) + reach, 0, sides).astype(np.int64).tolist()
    if left >= right or top >= bottom:
        return
    width, height = -(-(right - left) // coarse), -(-(bottom - top) // coarse)
    mask_HW = np.zeros((height, width), np.uint8)
    points = np.rint(((cast_N2 - (left, top)) / coarse - 0.5) * 16).astype(np.int32)
    cv2.fillPoly(mask_HW, [points], (255,), cv2.LINE_AA, 4)
    mask_HW = blur(mask_HW, surface.shadow_blur_px / coarse)
    if coarse > 1:
        mask_HW = cv2.resize(mask_HW, (width * coarse, height * coarse), interpolation=cv2.INTER_LINEAR_EXACT)
    kept = 65536 - (np.arange(256) * round(surface.shadow_opacity * 256) * 256 + 127) // 255
    _darken(image_HW3, mask_HW, kept.astype(np.uint32), left, top, right, bottom)


@njit(cache=True, nogil=True)
def _darken(
    image_HW3: npt.NDArray[np.uint8],
    mask_HW: npt.NDArray[np.uint8],
    kept: npt.NDArray[np.uint32],
    left: int,
    top: int,
    right: int,
    bottom: int,
) -> None:
    """Leave kept[mask] / 65536 of the light of the box, in place."""
    for y in range(top, bottom):
        for x in range(left, right):
            masked = mask_HW[y - top, x - left]
            if masked:
                share = kept[masked]
                for channel in range(3):
                    image_HW3[y, x, channel] = (image_HW3[y, x, channel] * share + np.uint32(32768)) >> np.uint32(16)


def _adjugate(m: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
    """The inverse up to scale; NumPy's own goes through LAPACK, whose roundings differ from machine to machine."""
    (a, b, c), (d, e, f), (g, h, i) = m.tolist()
    return np.array(
        [
            [e * i - f * h, c * h - b * i, b * f - c * e],
            [f * g - d * i, a * i - c * g, c * d - a * f],
            [d * h - e * g, b * g - a * h, a * e - b * d],
        ]
    )


@njit(cache=True, nogil=True)
def _spans(outline_N2: npt.NDArray[np.float64], height: int, width: int) -> npt.NDArray[np.int64]:
    """(height, 2) first and last column + 1 of every row that the outline may touch, both 0 where it does not."""
    spans_H2 = np.zeros((height, 2), np.int64)
    spans_H2[:, 0] = width
    for at in range(len(outline_N2)):
        x0, y0 = outline_N2[at - 1]
        x1, y1 = outline_N2[at]
        left, right = min(x0, x1) - 2, max(x0, x1) + 2
        slope = (x1 - x0) / (y1 - y0) if abs(y1 - y0) > 1 else 0.0
        for y in range(max(0, int(np.floor(min(y0, y1))) - 2), min(height, int(np.ceil(max(y0, y1))) + 2)):
            low, high = left, right
            if slope != 0:  # the piece of the edge from two pixels above the row to two below it
                one, other = x0 + (y - 2 - y0) * slope, x0 + (y + 3 - y0) * slope
                low, high = max(low, min(one, other) - 2), min(high, max(one, other) + 2)
            spans_H2[y, 0] = min(spans_H2[y, 0], max(0, int(np.floor(low))))
            spans_H2[y, 1] = max(spans_H2[y, 1], min(width, int(np.ceil(high))))
    return spans_H2


_LANE = 21
"""Bits between two channels in a packed pixel: the sum of four 8-bit values times 1024 shares needs 20."""


@njit(cache=True, nogil=True)
def _sums_of_four(flat_hw3: npt.NDArray[np.uint8]) -> npt.NDArray[np.uint64]:
    """(h + 1, w + 1): for every corner of a pixel the sums of the four around it, three channels in one number.

    One multiplication weighs three channels, and a look at the mean of two by two costs four reads, not sixteen.
    """
    high, wide = flat_hw3.shape[:2]
    flat = flat_hw3.reshape(-1)
    sums = np.empty((high + 1, wide + 1), np.uint64)
    above = np.empty(wide, np.uint64)
    three, one, two = np.uint64(3), np.uint64(1), np.uint64(2)
    for y in range(high + 1):
        row = np.uint64(3 * wide * min(y, high - 1))
        before = np.uint64(0)
        for x in range(wide):
            at = row + three * np.uint64(x)
            packed = (
                np.uint64(flat[at])
                | np.uint64(flat[at + one]) << np.uint64(_LANE)
                | np.uint64(flat[at + two]) << np.uint64(2 * _LANE)
            )
            column = packed + (above[np.uint64(x)] if y else packed)
            above[np.uint64(x)] = packed
            sums[np.uint64(y), np.uint64(x)] = column + (before if x else column)
            before = column
        sums[np.uint64(y), np.uint64(wide)] = before + before
    return sums


@njit(cache=True, nogil=True)
def _sample(
    image_HW3: npt.NDArray[np.uint8],
    sums: npt.NDArray[np.uint64],
    inverse_33: npt.NDArray[np.float64],
    bow: float,
    light: npt.NDArray[np.float64],
    outline_N2: npt.NDArray[np.float64],
    spans_H2: npt.NDArray[np.int64],
) -> None:
    """Every pixel of the spans: a bilinear look at the flat page, lit, over what was there.

    sums: of `_sums_of_four`. light: the three corners'. inverse_33: from the picture to the unit square, positive where
    it is seen.
    """
    high, wide = sums.shape[0] - 1, sums.shape[1] - 1
    flat = sums.reshape(-1)
    stride = np.uint64(wide + 1)
    picture = image_HW3.reshape(-1)
    width = image_HW3.shape[1]
    # in registers: what is read from an array is read anew after every pixel written
    m00, m01, m02 = inverse_33[0, 0], inverse_33[0, 1], inverse_33[0, 2]
    m10, m11, m12 = inverse_33[1, 0], inverse_33[1, 1], inverse_33[1, 2]
    m20, m21, m22 = inverse_33[2, 0], inverse_33[2, 1], inverse_33[2, 2]
    first, light_x, light_y = light[0], light[1] - light[0], light[2] - light[0]
    # how far the corners of a pixel are from its middle in the unit square, at the farthest corner of the thing
    edge_x = 0.0
    edge_y = 0.0
    for point in outline_N2[::STEPS]:
        turned = 1 / max(1e-9, m20 * point[0] + m21 * point[1] + m22)
        across = (m00 * point[0] + m01 * point[1] + m02) * turned
        down = (m10 * point[0] + m11 * point[1] + m12) * turned
        reach_x = (abs(m00 - across * m20) + abs(m01 - across * m21)) * turned
        reach_y = (abs(m10 - down * m20) + abs(m11 - down * m21)) * turned
        edge_x = max(edge_x, 0.6 * reach_x)
        edge_y = max(edge_y, 0.6 * (reach_y + 4 * abs(bow) * reach_x))
    lane = np.uint64((1 << _LANE) - 1)
    whole = EDGE_SAMPLES * EDGE_SAMPLES
    for y in range(len(spans_H2)):
        py = y + 0.5
        row_x, row_y, row_z = m01 * py + m02, m11 * py + m12, m21 * py + m22
        for x in range(spans_H2[y, 0], spans_H2[y, 1]):
            px = x + 0.5
            turned = 1 / max(1e-9, m20 * px + row_z)
            across = (m00 * px + row_x) * turned
            down = (m10 * px + row_y) * turned - 4 * bow * across * (1 - across)
            hits = whole
            if not (edge_x < across < 1 - edge_x and edge_y < down < 1 - edge_y):
                if across < -edge_x or across > 1 + edge_x or down < -edge_y or down > 1 + edge_y:
                    continue
                hits = _hits(x, y, inverse_33, bow)
                if hits == 0:
                    continue
                across = min(max(across, 0.0), 1.0)
                down = min(max(down, 0.0), 1.0)
            shade = max(0.0, (first + light_x * across + light_y * down) * (1 + bow * (2 * across - 1)))
            # in steps of 1/32 of a pixel of the flat page
            column = int(across * wide * 32)
            row = int(down * high * 32)
            one_x, one_y = np.uint64(column & 31), np.uint64(row & 31)
            column >>= 5
            row >>= 5
            if column >= wide:
                column = wide - 1
                one_x = np.uint64(32)
            if row >= high:
                row = high - 1
                one_y = np.uint64(32)
            at = np.uint64(row) * stride + np.uint64(column)
            none_x, none_y = np.uint64(32) - one_x, np.uint64(32) - one_y
            packed = (flat[at] * none_x + flat[at + np.uint64(1)] * one_x) * none_y
            at += stride
            packed += (flat[at] * none_x + flat[at + np.uint64(1)] * one_x) * one_y
            # 4096 is the whole of a sum of four; shade at most 2.4
            scale = np.int64(shade * 16384)
            target = np.uint64(3 * (y * width + x))
            for channel in range(3):
                value = np.int64((packed >> np.uint64(_LANE * channel)) & lane)
                value = min(np.int64(255), (value * scale + (1 << 25)) >> 26)
                if hits < whole:
                    value = (value * hits + picture[target] * (whole - hits) + whole // 2) // whole
                picture[target] = value
                target += np.uint64(1)


@njit(cache=True, nogil=True)
def _hits(x: int, y: int, inverse_33: npt.NDArray[np.float64], bow: float) -> int:
    """How many of the looks at a pixel meet the thing."""
    hits = 0
    for sample in range(EDGE_SAMPLES * EDGE_SAMPLES):
        px = x + (sample % EDGE_SAMPLES + 0.5) / EDGE_SAMPLES
        py = y + (sample // EDGE_SAMPLES + 0.5) / EDGE_SAMPLES
        turned = 1 / max(1e-9, inverse_33[2, 0] * px + inverse_33[2, 1] * py + inverse_33[2, 2])
        across = (inverse_33[0, 0] * px + inverse_33[0, 1] * py + inverse_33[0, 2]) * turned
        down = (inverse_33[1, 0] * px + inverse_33[1, 1] * py + inverse_33[1, 2]) * turned
        down -= 4 * bow * across * (1 - across)
        if 0 <= across < 1 and 0 <= down < 1:
            hits += 1
    return hits
