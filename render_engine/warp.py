"""Surfaces: a flat page bent, tilted and laid into a photograph, its annotations with it.

The way from the flat page to the picture is a bow along its height, then a homography: both have exact inverses made of
the four basic operations, so pixels and boxes agree and bytes are equal on every processor.
"""

from dataclasses import dataclass

import cv2
import msgspec
import numpy as np
import numpy.typing as npt
from numba import njit

from render_engine.degrade import blur
from render_engine.paint import contrast_ratio
from render_engine.spec import RGB, RenderedLine, RenderError, Surface

EDGE_SAMPLES = 4
"""Looks at the flat page along each side of a pixel at its edge; two are enough inside it, at twice the size."""
_REACH_PX = 0.5 + (EDGE_SAMPLES - 1) / (2 * EDGE_SAMPLES)
"""How far the edge of a pixel is from the farthest point that colours it: half a pixel and the samples' spread."""


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


def lay_on(image_HW3: npt.NDArray[np.uint8], flat_hw3: npt.NDArray[np.uint8], surface: Surface) -> None:
    """Lay the flat page and its shadow over the photograph, in place. Raises RenderError as `project` does."""
    projection = project(surface)
    if not (all(0 <= value <= 2 for value in surface.light) and 0 <= surface.shadow_opacity <= 1):
        raise RenderError("bad_spec", "light or shadow_opacity of the surface is out of range")
    if not (0 < surface.shadow_blur_px <= 64 and max(map(abs, surface.shadow_offset_px)) <= 1024):
        raise RenderError("bad_spec", "the shadow of the surface is out of range")
    outline_N2 = projection(_outline(0.0, 0.0, surface.width_px, surface.height_px))
    if surface.shadow_opacity > 0:
        _cast_shadow(image_HW3, outline_N2, surface)
    height, width = image_HW3.shape[:2]
    left, top = np.clip(np.floor(outline_N2.min(axis=0)) - 1, 0, (width, height)).astype(np.int64).tolist()
    right, bottom = np.clip(np.ceil(outline_N2.max(axis=0)) + 1, 0, (width, height)).astype(np.int64).tolist()
    light = np.array([*surface.light, surface.bow], np.float64)
    _sample(image_HW3, flat_hw3, _adjugate(projection.matrix_33), light, left, top, right, bottom)


def seen_lines(lines: tuple[RenderedLine, ...], surface: Surface) -> tuple[RenderedLine, ...]:
    """The annotations of the flat page as seen in the picture: quads, sizes, glyph boxes, colours, contrast."""
    projection = project(surface)
    return tuple(_seen(line, surface, projection) for line in lines)


def _seen(line: RenderedLine, surface: Surface, projection: Projection) -> RenderedLine:
    x0, y0, x1, _, _, y1, _, _ = line.quad_px
    middle = ((x0 + x1) / 2, (y0 + y1) / 2)
    at = projection(np.array([middle, (middle[0] + 1, middle[1]), (middle[0], middle[1] + 1)]))
    along, down = at[1] - at[0], at[2] - at[0]
    scale = float((along[0] * down[1] - along[1] * down[0]) / np.sqrt((along * along).sum()))
    light = brightness(surface, middle[0] / surface.width_px, middle[1] / surface.height_px)
    ink, ground = _lit(line.ink_rgb, light), _lit(line.ground_rgb, light)
    drawn = tuple(round(g + (i - g) * line.opacity) for i, g in zip(ink, ground, strict=True))
    boxes = line.glyph_boxes_px
    if boxes is not None:
        boxes = np.array([_bounds(projection, box) for box in boxes.tolist()], np.float32).reshape(-1, 4)
    return msgspec.structs.replace(
        line,
        quad_px=_seen_quad(projection, (x0, y0, x1, y1)),
        size_px=line.size_px * scale,
        ink_height_px=line.ink_height_px * scale,
        ink_rgb=ink,
        ground_rgb=ground,
        contrast=contrast_ratio((drawn[0], drawn[1], drawn[2]), ground),
        glyph_boxes_px=boxes,
    )


def brightness(surface: Surface, across: float, down: float) -> float:
    """What sRGB values are multiplied by at a point of the unit square; a bow is darker where it turns away."""
    first, second, third = surface.light
    return (first + (second - first) * across + (third - first) * down) * (1 + surface.bow * (2 * across - 1))


def _lit(rgb: RGB, light: float) -> RGB:
    red, green, blue = (min(255, int(value * light + 0.5)) for value in rgb)
    return red, green, blue


def _outline(x0: float, y0: float, x1: float, y1: float) -> npt.NDArray[np.float64]:
    """(64, 2) points around a box of the flat page, clockwise: 16 on each side, corners at 0, 16, 32, 48."""
    step = np.arange(16) / 16
    sides = [
        np.stack((x0 + (x1 - x0) * step, np.full(16, y0)), axis=1),
        np.stack((np.full(16, x1), y0 + (y1 - y0) * step), axis=1),
        np.stack((x1 - (x1 - x0) * step, np.full(16, y1)), axis=1),
        np.stack((np.full(16, x0), y1 - (y1 - y0) * step), axis=1),
    ]
    return np.concatenate(sides)


def _grown(box: list[float] | tuple[float, float, float, float]) -> npt.NDArray[np.float64]:
    # Bilinear sampling smears a pixel of the flat page by half a pixel; the chord of a bow between two of the points
    # is nearer to its arc than the other half.
    x0, y0, x1, y1 = box
    return _outline(x0 - 1, y0 - 1, x1 + 1, y1 + 1)


def _seen_quad(
    projection: Projection, box: tuple[float, float, float, float]
) -> tuple[float, float, float, float, float, float, float, float]:
    """The least quad with edges along the seen box's chords that holds every pixel it colours."""
    points_N2 = projection(_grown(box))
    corners = points_N2[::16]
    edges = []
    for start, end in zip(corners, np.roll(corners, -1, axis=0), strict=True):
        way = end - start
        normal = np.array([way[1], -way[0]]) / np.sqrt((way * way).sum())  # outwards: corners run clockwise, y down
        edges.append((normal, float((points_N2 @ normal).max() + _REACH_PX * np.abs(normal).sum())))
    quad: list[float] = []
    for (before, reach_before), (after, reach_after) in zip([edges[3], *edges[:3]], edges, strict=True):
        area = before[0] * after[1] - before[1] * after[0]
        quad.append(float((reach_before * after[1] - before[1] * reach_after) / area))
        quad.append(float((before[0] * reach_after - reach_before * after[0]) / area))
    return quad[0], quad[1], quad[2], quad[3], quad[4], quad[5], quad[6], quad[7]


def _bounds(projection: Projection, box: list[float]) -> list[float]:
    points_N2 = projection(_grown(box))
    least, most = points_N2.min(axis=0) - _REACH_PX, points_N2.max(axis=0) + _REACH_PX
    return [*least.tolist(), *most.tolist()]


def _cast_shadow(image_HW3: npt.NDArray[np.uint8], outline_N2: npt.NDArray[np.float64], surface: Surface) -> None:
    cast_N2 = outline_N2 + np.array(surface.shadow_offset_px)
    reach = np.ceil(3 * surface.shadow_blur_px) + 1
    sides = np.array(image_HW3.shape[1::-1])
    left, top = np.clip(np.floor(cast_N2.min(axis=0)) - reach, 0, sides).astype(np.int64).tolist()
    right, bottom = np.clip(np.ceil(cast_N2.max(axis=0)) + reach, 0, sides).astype(np.int64).tolist()
    if left >= right or top >= bottom:
        return
    mask_HW = np.zeros((bottom - top, right - left), np.uint8)
    points = np.rint((cast_N2 - (left + 0.5, top + 0.5)) * 16).astype(np.int32)
    cv2.fillPoly(mask_HW, [points], (255,), cv2.LINE_AA, 4)
    opacity = round(surface.shadow_opacity * 256)
    _darken(image_HW3[top:bottom, left:right], blur(mask_HW, surface.shadow_blur_px), opacity)


@njit(cache=True, nogil=True)
def _darken(image_HW3: npt.NDArray[np.uint8], mask_HW: npt.NDArray[np.uint8], opacity: int) -> None:
    """Take opacity / 256 of the light where the mask is 255, in place."""
    height, width = mask_HW.shape
    for y in range(height):
        for x in range(width):
            if mask_HW[y, x]:
                kept = 65280 - np.int64(mask_HW[y, x]) * opacity
                for channel in range(3):
                    image_HW3[y, x, channel] = (image_HW3[y, x, channel] * kept + 32640) // 65280


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
def _sample(
    image_HW3: npt.NDArray[np.uint8],
    flat_hw3: npt.NDArray[np.uint8],
    inverse_33: npt.NDArray[np.float64],
    light: npt.NDArray[np.float64],
    left: int,
    top: int,
    right: int,
    bottom: int,
) -> None:
    """Every pixel of the box: bilinear looks at the flat page, lit, over what was there.

    light: the three corners' and the bow. inverse_33: from the picture to the unit square, positive where it is seen.
    """
    high, wide = flat_hw3.shape[:2]
    # two pixels of the picture or so
    edge_x = 4 / wide
    edge_y = 4 / high
    # in registers: what is read from an array is read anew after every pixel written
    m00, m01, m02 = inverse_33[0, 0], inverse_33[0, 1], inverse_33[0, 2]
    m10, m11, m12 = inverse_33[1, 0], inverse_33[1, 1], inverse_33[1, 2]
    m20, m21, m22 = inverse_33[2, 0], inverse_33[2, 1], inverse_33[2, 2]
    first, light_x, light_y, bow = light[0], light[1] - light[0], light[2] - light[0], light[3]
    for y in range(top, bottom):
        for x in range(left, right):
            # Two looks a side are enough away from the edges; whether a look hits the page is asked for each.
            turned = 1 / max(1e-9, m20 * (x + 0.5) + m21 * (y + 0.5) + m22)
            across = (m00 * (x + 0.5) + m01 * (y + 0.5) + m02) * turned
            down = (m10 * (x + 0.5) + m11 * (y + 0.5) + m12) * turned - 4 * bow * across * (1 - across)
            side = 2 if edge_x < across < 1 - edge_x and edge_y < down < 1 - edge_y else EDGE_SAMPLES
            if across < -edge_x or across > 1 + edge_x or down < -edge_y or down > 1 + edge_y:
                continue
            shade = max(0.0, (first + light_x * across + light_y * down) * (1 + bow * (2 * across - 1)))
            hits = 0
            red = np.int64(0)
            green = np.int64(0)
            blue = np.int64(0)
            step = 1.0 / side
            px = x - 0.5 * step
            py = y + 0.5 * step
            for _ in range(side * side):
                px += step
                if px > x + 1:
                    px -= 1
                    py += step
                turned = 1 / max(1e-9, m20 * px + m21 * py + m22)
                across = (m00 * px + m01 * py + m02) * turned
                down = (m10 * px + m11 * py + m12) * turned - 4 * bow * across * (1 - across)
                if not (0 <= across < 1 and 0 <= down < 1):
                    continue
                hits += 1
                # whole and fractional parts of the place between the centres of four pixels
                fx = across * wide + 0.5
                fy = down * high + 0.5
                next_column = int(fx)
                next_row = int(fy)
                # in steps of 1/256: with floats a full picture of 512 px took 18.8 ms, so it takes 15.3
                one_x = int((fx - next_column) * 256)
                one_y = int((fy - next_row) * 256)
                column = max(next_column - 1, 0)
                row = max(next_row - 1, 0)
                next_column = min(next_column, wide - 1)
                next_row = min(next_row, high - 1)
                one = (256 - one_x) * (256 - one_y)
                two = one_x * (256 - one_y)
                three = (256 - one_x) * one_y
                four = one_x * one_y
                red += flat_hw3[row, column, 0] * one + flat_hw3[row, next_column, 0] * two
                red += flat_hw3[next_row, column, 0] * three + flat_hw3[next_row, next_column, 0] * four
                green += flat_hw3[row, column, 1] * one + flat_hw3[row, next_column, 1] * two
                green += flat_hw3[next_row, column, 1] * three + flat_hw3[next_row, next_column, 1] * four
                blue += flat_hw3[row, column, 2] * one + flat_hw3[row, next_column, 2] * two
                blue += flat_hw3[next_row, column, 2] * three + flat_hw3[next_row, next_column, 2] * four
            if hits:
                count = side * side
                outside = count - hits
                scale = shade / 65536
                image_HW3[y, x, 0] = min(255, int((red * scale + image_HW3[y, x, 0] * outside) / count + 0.5))
                image_HW3[y, x, 1] = min(255, int((green * scale + image_HW3[y, x, 1] * outside) / count + 0.5))
                image_HW3[y, x, 2] = min(255, int((blue * scale + image_HW3[y, x, 2] * outside) / count + 0.5))
