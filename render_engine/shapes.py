"""Filled boxes, strokes and pictures under the text. Corners and edges are OpenCV's integer rasteriser's."""

from collections.abc import Callable

import cv2
import numpy as np
import numpy.typing as npt
from numba import njit

from render_engine.spec import Box, FilledBox, PhotoCrop, Polyline, RenderError, Shape, is_rgb

CropPhoto = Callable[[PhotoCrop, int, int], npt.NDArray[np.uint8]]
"""(crop, width_px, height_px) -> (height_px, width_px, 3) uint8 sRGB."""


def draw_shapes(image_HW3: npt.NDArray[np.uint8], shapes: tuple[Shape, ...], crop_photo: CropPhoto) -> None:
    """Lay the shapes over `image_HW3` (uint8 sRGB), in place and in order, clipped at its edges."""
    for shape in shapes:
        if isinstance(shape, FilledBox):
            _draw_box(image_HW3, shape)
        elif isinstance(shape, Polyline):
            points_N2 = np.rint(np.array(shape.points_px, np.float64) * 16 - 8).astype(np.int32)
            cv2.polylines(image_HW3, [points_N2], False, shape.rgb, max(1, shape.width_px), cv2.LINE_AA, 4)
        else:
            left, top, right, bottom = whole_box(shape.box_px)
            crop_HW3 = crop_photo(shape.crop, right - left, bottom - top)
            _mix(image_HW3, (left, top, right, bottom), crop_HW3, 1.0, shape.radius_px)


def check_shapes(shapes: tuple[Shape, ...], max_side_px: int) -> None:
    """Raises RenderError("bad_spec") when a number is out of its range."""
    for shape in shapes:
        numbers: list[float] = []
        if isinstance(shape, Polyline):
            numbers += [value for point in shape.points_px for value in point]
            if len(shape.points_px) < 2 or not 1 <= shape.width_px <= 64:
                raise RenderError("bad_spec", "a stroke needs two points and a width of 1 to 64 px")
            if not is_rgb(shape.rgb):
                raise RenderError("bad_spec", f"colours are 0 to 255, got {shape.rgb}")
        else:
            numbers += shape.box_px
            if not 0 <= shape.radius_px <= max_side_px:
                raise RenderError("bad_spec", "radius_px is out of range")
        if isinstance(shape, FilledBox) and not (0 <= shape.opacity <= 1 and 1 <= shape.border_px <= 64):
            raise RenderError("bad_spec", "opacity or border_px of a box is out of range")
        if isinstance(shape, FilledBox) and not (is_rgb(shape.rgb) and is_rgb(shape.border_rgb)):
            raise RenderError("bad_spec", f"colours are 0 to 255, got {shape.rgb} and {shape.border_rgb}")
        if not all(abs(value) <= max_side_px for value in numbers):  # NaN fails too
            raise RenderError("bad_spec", "a shape lies outside all pages")


def whole_box(box_px: Box) -> tuple[int, int, int, int]:
    """The box on whole pixels, at least one pixel wide and high."""
    left, top, right, bottom = (int(np.floor(edge + 0.5)) for edge in box_px)
    return left, top, max(left + 1, right), max(top + 1, bottom)


def _draw_box(image_HW3: npt.NDArray[np.uint8], box: FilledBox) -> None:
    edges = whole_box(box.box_px)
    inset = box.border_px if box.border_rgb is not None else 0
    inner = (edges[0] + inset, edges[1] + inset, edges[2] - inset, edges[3] - inset)
    hollow = inner[0] < inner[2] and inner[1] < inner[3]
    inner_radius = max(0, box.radius_px - inset)
    if box.border_rgb is not None:
        kept = _cut_out(image_HW3, inner) if hollow and (box.rgb is None or box.opacity < 1) else None
        _mix(image_HW3, edges, np.array(box.border_rgb, np.uint8), 1.0, box.radius_px)
        if kept is not None:
            _mix(image_HW3, inner, kept, 1.0, inner_radius)
    if box.rgb is not None and hollow:
        _mix(image_HW3, inner, np.array(box.rgb, np.uint8), box.opacity, inner_radius)


def _cut_out(image_HW3: npt.NDArray[np.uint8], edges: tuple[int, int, int, int]) -> npt.NDArray[np.uint8]:
    """A copy of the box, of its full size; black where it lies outside the picture."""
    left, top, right, bottom = edges
    height, width = image_HW3.shape[:2]
    cut_hw3 = np.zeros((bottom - top, right - left, 3), np.uint8)
    x0, y0, x1, y1 = max(0, left), max(0, top), min(width, right), min(height, bottom)
    if x0 < x1 and y0 < y1:
        cut_hw3[y0 - top : y1 - top, x0 - left : x1 - left] = image_HW3[y0:y1, x0:x1]
    return cut_hw3


def _mix(
    image_HW3: npt.NDArray[np.uint8],
    edges: tuple[int, int, int, int],
    ink: npt.NDArray[np.uint8],
    opacity: float,
    radius: int,
) -> None:
    """Lay `ink` (a colour, or pixels of the size of the box) over the box."""
    left, top, right, bottom = edges
    height, width = image_HW3.shape[:2]
    x0, y0, x1, y1 = max(0, left), max(0, top), min(width, right), min(height, bottom)
    if x0 >= x1 or y0 >= y1:
        return
    part_HW3 = image_HW3[y0:y1, x0:x1]
    rows, columns = slice(y0 - top, y1 - top), slice(x0 - left, x1 - left)
    if ink.ndim == 3:
        ink = ink[rows, columns]
    radius = min(radius, (right - left) // 2, (bottom - top) // 2)
    share = round(opacity * 256)
    corners = []
    if radius:
        mask_HW1 = _rounded(right - left, bottom - top, radius)[rows, columns, None].astype(np.int32) * share
        # only the corners are not covered whole
        for corner_rows in (slice(0, max(0, radius - (y0 - top))), slice(max(0, bottom - radius - y0), None)):
            for corner in (slice(0, max(0, radius - (x0 - left))), slice(max(0, right - radius - x0), None)):
                at = (corner_rows, corner)
                corners.append((at, _mixed(part_HW3[at], ink[at] if ink.ndim == 3 else ink, mask_HW1[at])))
    if opacity < 1:
        _lay_veil(part_HW3, ink[None, None] if ink.ndim == 1 else ink, share)
    elif ink.ndim == 3:
        part_HW3[:] = ink
    else:
        # a row pixel by pixel, then the others as whole rows
        part_HW3[0] = ink
        part_HW3[1:] = part_HW3[0]
    for at, mixed in corners:
        part_HW3[at] = mixed


@njit(cache=True, nogil=True)
def _lay_veil(part_HW3: npt.NDArray[np.uint8], ink: npt.NDArray[np.uint8], share: int) -> None:
    """Mix share / 256 of the ink, (H, W, 3) or (1, 1, 3), into the part, in place."""
    height, width = part_HW3.shape[:2]
    kept = np.int32(256 - share)
    plain = ink.shape[0] == 1 and ink.shape[1] == 1
    for y in range(height):
        for x in range(width):
            for channel in range(3):
                above = np.int32(ink[0, 0, channel] if plain else ink[y, x, channel])
                part_HW3[y, x, channel] = (part_HW3[y, x, channel] * kept + above * np.int32(share) + 128) >> 8


def _mixed(
    below: npt.NDArray[np.uint8], ink: npt.NDArray[np.uint8], share: npt.NDArray[np.int32]
) -> npt.NDArray[np.int32]:
    """share / 65280 of the ink over what is below, rounded."""
    ground = below.astype(np.int32)
    return (ground * 65280 + (ink.astype(np.int32) - ground) * share + 32640) // 65280


def _rounded(width: int, height: int, radius: int) -> npt.NDArray[np.uint8]:
    """(height, width) coverage 0 to 255 of a box with round corners: 16 samples a pixel, counted exactly."""
    mask_HW = np.full((height, width), 255, np.uint8)
    if radius > 0:
        at = np.arange(radius * 4) * 2 + 1 - 8 * radius  # centres of quarter pixels from the corner's centre, in 1/8 px
        inside = (at[:, None] ** 2 + at[None, :] ** 2 <= (8 * radius) ** 2).astype(np.int32)
        quarter = (inside.reshape(radius, 4, radius, 4).sum(axis=(1, 3)) * 255 + 8) // 16
        mask_HW[:radius, :radius] = quarter
        mask_HW[:radius, width - radius :] = quarter[:, ::-1]
        mask_HW[height - radius :, :radius] = quarter[::-1]
        mask_HW[height - radius :, width - radius :] = quarter[::-1, ::-1]
    return mask_HW
