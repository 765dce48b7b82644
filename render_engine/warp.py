"""Surfaces: where a flat page that is bent and tilted stands in a photograph, and its annotations with it.

The way from the flat page to the picture is a bow along its height, then a homography: both have exact inverses made of
the four basic operations, so pixels and boxes agree and bytes are equal on every processor.
"""

from dataclasses import dataclass
from typing import Any

import msgspec
import numpy as np
import numpy.typing as npt
from numba import njit

from render_engine.paint import luminance_table
from render_engine.spec import RenderedLine, RenderError, Surface

_REACH_PX = 0.51
"""How far the edge of a pixel is from the point that colours it: half a pixel, and the rounding of that point."""
STEPS = 16
"""Points along each side of a box that is followed through the bow."""


@dataclass(frozen=True, slots=True)
class Projection:
    """From pixels of the flat page to pixels of the picture."""

    matrix_33: npt.NDArray[np.float64]
    """From the unit square to the picture, up to scale."""
    width_px: int
    height_px: int
    bow: float

    def __call__(self, points_N2: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
        """(N, 2) x, y of the flat page -> (N, 2) x, y of the picture."""
        across, down = points_N2[:, 0] / self.width_px, points_N2[:, 1] / self.height_px
        down = down + 4 * self.bow * across * (1 - across)
        x, y, depth = (row[0] * across + row[1] * down + row[2] for row in self.matrix_33)
        return np.stack((x / depth, y / depth), axis=1)

    @property
    def numbers(self) -> tuple[npt.NDArray[np.float64], float, float, float]:
        """What compiled functions take of it."""
        return self.matrix_33, float(self.width_px), float(self.height_px), self.bow


def project(surface: Surface) -> Projection:
    """The projection of a surface. Raises RenderError("bad_spec") when its quad is not convex, clockwise and in front.

    The homography from the unit square is Heckbert's ("Fundamentals of Texture Mapping", 1989, section 2.2.3).
    """
    corners = np.array(surface.quad_px, np.float64).reshape(4, 2)
    if not (np.isfinite(corners).all() and np.abs(corners).max() <= 65536 and abs(surface.bow) <= 0.2):
        raise RenderError("bad_spec", "quad_px or bow of the surface is out of range")
    edges = np.roll(corners, -1, axis=0) - corners
    following = np.roll(edges, -1, axis=0)
    if (edges[:, 0] * following[:, 1] - edges[:, 1] * following[:, 0] <= 1).any():
        raise RenderError("bad_spec", "the corners of the surface are not convex and clockwise")
    (x0, y0), (x1, y1), (x2, y2), (x3, y3) = corners.tolist()
    dx1, dx2, sum_x = x1 - x2, x3 - x2, x0 - x1 + x2 - x3
    dy1, dy2, sum_y = y1 - y2, y3 - y2, y0 - y1 + y2 - y3
    area = dx1 * dy2 - dx2 * dy1
    g, h = (sum_x * dy2 - dx2 * sum_y) / area, (dx1 * sum_y - sum_x * dy1) / area
    matrix_33 = np.array(
        [[x1 - x0 + g * x1, x3 - x0 + h * x3, x0], [y1 - y0 + g * y1, y3 - y0 + h * y3, y0], [g, h, 1.0]]
    )
    # The bow reaches 0.2 heights beyond the quad: nothing of it may lie behind the eye.
    if min(g * across + h * down + 1 for across in (0, 1) for down in (-0.2, 1.2)) <= 0.05:
        raise RenderError("bad_spec", "the surface is tilted out of sight")
    return Projection(matrix_33, surface.width_px, surface.height_px, surface.bow)


def seen_lines(lines: tuple[RenderedLine, ...], surface: Surface) -> tuple[RenderedLine, ...]:
    """The annotations of the flat page as seen in the picture: quads, sizes, glyph boxes, colours, contrast."""
    if not lines:
        return ()
    projection = project(surface)
    numbers = projection.numbers
    # What hangs over the edge of the thing is not drawn, and may lie behind the eye.
    boxes_L4 = _on_thing(np.array([line.quad_px for line in lines])[:, [0, 1, 4, 5]], surface)
    middles_L2 = (boxes_L4[:, :2] + boxes_L4[:, 2:]) / 2
    at_L2, right_L2, below_L2 = (projection(middles_L2 + step) for step in ((0, 0), (1, 0), (0, 1)))
    along, down = (right_L2 - at_L2).T, (below_L2 - at_L2).T
    scales = (along[0] * down[1] - along[1] * down[0]) / np.sqrt(along[0] * along[0] + along[1] * along[1])
    light_L1 = brightness(surface, *(middles_L2 / (surface.width_px, surface.height_px)).T)[:, None]
    ink_L3 = _lit(np.array([line.ink_rgb for line in lines]), light_L1)
    ground_L3 = _lit(np.array([line.ground_rgb for line in lines]), light_L1)
    opacity_L1 = np.array([[line.opacity] for line in lines])
    drawn_L3 = np.rint(ground_L3 + (ink_L3 - ground_L3) * opacity_L1).astype(np.int64)
    return tuple(
        msgspec.structs.replace(
            line,
            quad_px=tuple(quad),
            size_px=line.size_px * scale,
            ink_height_px=line.ink_height_px * scale,
            ink_rgb=tuple(ink),
            ground_rgb=tuple(ground),
            contrast=contrast,
            glyph_boxes_px=None if boxes is None else _seen_boxes(_on_thing(boxes, surface), *numbers),
        )
        for line, boxes, quad, scale, ink, ground, contrast in zip(
            lines,
            [line.glyph_boxes_px for line in lines],
            _seen_quads(boxes_L4, *numbers).tolist(),
            scales.tolist(),
            ink_L3.tolist(),
            ground_L3.tolist(),
            _contrasts(drawn_L3, ground_L3).tolist(),
            strict=True,
        )
    )


def _on_thing(boxes_N4: npt.NDArray[Any], surface: Surface) -> npt.NDArray[Any]:
    """The parts of the boxes that lie on the flat thing, without those that do not."""
    sides = (surface.width_px, surface.height_px) * 2
    clipped_N4 = np.clip(boxes_N4, 0, np.array(sides, boxes_N4.dtype))
    return clipped_N4[(clipped_N4[:, 0] < clipped_N4[:, 2]) & (clipped_N4[:, 1] < clipped_N4[:, 3])]


def brightness(
    surface: Surface, across: npt.NDArray[np.float64], down: npt.NDArray[np.float64]
) -> npt.NDArray[np.float64]:
    """What sRGB values are multiplied by at points of the unit square; a bow is darker where it turns away."""
    first, second, third = surface.light
    lit = (first + (second - first) * across + (third - first) * down) * (1 + surface.bow * (2 * across - 1))
    return np.maximum(0.0, lit)


def _lit(rgb_L3: npt.NDArray[np.int64], light_L1: npt.NDArray[np.float64]) -> npt.NDArray[np.int64]:
    return np.minimum(255, (rgb_L3 * light_L1 + 0.5).astype(np.int64))


def _contrasts(one_L3: npt.NDArray[np.int64], other_L3: npt.NDArray[np.int64]) -> npt.NDArray[np.float64]:
    """(L,) WCAG 2.2 contrast ratios, 1 to 21."""
    table = luminance_table()
    one, other = (
        0.2126 * table[rgb[:, 0]] + 0.7152 * table[rgb[:, 1]] + 0.0722 * table[rgb[:, 2]] + 0.05
        for rgb in (one_L3, other_L3)
    )
    return np.maximum(one, other) / np.minimum(one, other)


@njit(cache=True, nogil=True)
def outline(
    matrix_33: npt.NDArray[np.float64],
    width: float,
    height: float,
    bow: float,
    x0: float,
    y0: float,
    x1: float,
    y1: float,
) -> npt.NDArray[np.float64]:
    """(64, 2) points in the picture around a box of the flat page, clockwise: corners at 0, 16, 32, 48."""
    points_N2 = np.empty((4 * STEPS, 2))
    for side in range(4):
        for step in range(STEPS):
            gone = step / STEPS
            if side == 0:
                x, y = x0 + (x1 - x0) * gone, y0
            elif side == 1:
                x, y = x1, y0 + (y1 - y0) * gone
            elif side == 2:
                x, y = x1 - (x1 - x0) * gone, y1
            else:
                x, y = x0, y1 - (y1 - y0) * gone
            across = x / width
            down = y / height + 4 * bow * across * (1 - across)
            depth = matrix_33[2, 0] * across + matrix_33[2, 1] * down + matrix_33[2, 2]
            for axis in range(2):
                seen = matrix_33[axis, 0] * across + matrix_33[axis, 1] * down + matrix_33[axis, 2]
                points_N2[side * STEPS + step, axis] = seen / depth
    return points_N2


@njit(cache=True, nogil=True)
def _grown(
    matrix_33: npt.NDArray[np.float64], width: float, height: float, bow: float, box: npt.NDArray[np.float64]
) -> npt.NDArray[np.float64]:
    # A pixel of the flat page is smeared by one of its pixels; the chord of a bow between two of the points is nearer
    # to its arc than the other half.
    return outline(matrix_33, width, height, bow, box[0] - 1.5, box[1] - 1.5, box[2] + 1.5, box[3] + 1.5)


@njit(cache=True, nogil=True)
def _seen_quads(
    boxes_L4: npt.NDArray[np.float64], matrix_33: npt.NDArray[np.float64], width: float, height: float, bow: float
) -> npt.NDArray[np.float64]:
    """(L, 8): for each box the least quad with edges along its seen chords that holds every pixel it colours."""
    quads_L8 = np.empty((len(boxes_L4), 8))
    edges_43 = np.empty((4, 3))
    for number in range(len(boxes_L4)):
        points_N2 = _grown(matrix_33, width, height, bow, boxes_L4[number])
        for side in range(4):
            start, end = points_N2[side * STEPS], points_N2[(side + 1) * STEPS % (4 * STEPS)]
            way_x, way_y = end[0] - start[0], end[1] - start[1]
            length = np.sqrt(way_x * way_x + way_y * way_y)
            out_x, out_y = way_y / length, -way_x / length  # corners run clockwise, y down
            reach = -1e30
            for point in points_N2:
                reach = max(reach, point[0] * out_x + point[1] * out_y)
            edges_43[side] = out_x, out_y, reach + _REACH_PX * (abs(out_x) + abs(out_y))
        for corner in range(4):
            before_x, before_y, before_reach = edges_43[corner - 1]
            after_x, after_y, after_reach = edges_43[corner]
            area = before_x * after_y - before_y * after_x
            quads_L8[number, 2 * corner] = (before_reach * after_y - before_y * after_reach) / area
            quads_L8[number, 2 * corner + 1] = (before_x * after_reach - before_reach * after_x) / area
    return quads_L8


@njit(cache=True, nogil=True)
def _seen_boxes(
    boxes_N4: npt.NDArray[np.float32], matrix_33: npt.NDArray[np.float64], width: float, height: float, bow: float
) -> npt.NDArray[np.float32]:
    """(N, 4): upright boxes around boxes of the flat page as seen."""
    seen_N4 = np.empty((len(boxes_N4), 4), np.float32)
    for number in range(len(boxes_N4)):
        points_N2 = _grown(matrix_33, width, height, bow, boxes_N4[number].astype(np.float64))
        for axis in range(2):
            seen_N4[number, axis] = points_N2[:, axis].min() - _REACH_PX
            seen_N4[number, axis + 2] = points_N2[:, axis].max() + _REACH_PX
    return seen_N4
