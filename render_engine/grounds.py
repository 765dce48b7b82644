"""What a page stands on: plain colours, gradients and paper, from integers alone, so bytes are equal everywhere."""

import numpy as np
import numpy.typing as npt
from numba import njit

from render_engine.spec import GradientGround, PaperGround, PlainGround, RenderError


def draw_ground(
    ground: PlainGround | GradientGround | PaperGround, width_px: int, height_px: int
) -> npt.NDArray[np.uint8]:
    """(H, W, 3) uint8 sRGB. Raises RenderError("bad_spec") for numbers out of their range."""
    image_HW3 = np.empty((height_px, width_px, 3), np.uint8)
    if isinstance(ground, PlainGround):
        image_HW3[:] = _colour(ground.rgb)
    elif isinstance(ground, GradientGround):
        dx, dy = ground.direction
        if (dx, dy) == (0, 0) or max(abs(dx), abs(dy)) > 16:
            raise RenderError("bad_spec", f"direction must hold -16 to 16 and not be 0, 0, got {ground.direction}")
        _gradient(image_HW3, _colour(ground.start_rgb), _colour(ground.end_rgb), dx, dy)
    else:
        if not (0 <= ground.seed < 1 << 31 and 0 <= ground.grain <= 64 and 2 <= ground.cell_px <= 256):
            raise RenderError("bad_spec", "seed, grain or cell_px of the paper is out of range")
        _paper(image_HW3, _colour(ground.rgb), ground.seed, ground.grain, ground.cell_px)
    return image_HW3


def _colour(rgb: tuple[int, int, int]) -> npt.NDArray[np.int64]:
    if not all(0 <= value <= 255 for value in rgb):
        raise RenderError("bad_spec", f"colours are 0 to 255, got {rgb}")
    return np.array(rgb, np.int64)


@njit(cache=True, nogil=True)
def _gradient(
    image_HW3: npt.NDArray[np.uint8], start: npt.NDArray[np.int64], end: npt.NDArray[np.int64], dx: int, dy: int
) -> None:
    height, width = image_HW3.shape[:2]
    way = abs(dx) * (width - 1) + abs(dy) * (height - 1)
    for y in range(height):
        for x in range(width):
            gone = (x * dx if dx >= 0 else (width - 1 - x) * -dx) + (y * dy if dy >= 0 else (height - 1 - y) * -dy)
            for channel in range(3):
                step = (end[channel] - start[channel]) * gone
                image_HW3[y, x, channel] = start[channel] + (2 * step + way) // max(1, 2 * way)


@njit(cache=True, nogil=True)
def hash_32(x: int, y: int, seed: int) -> int:
    """32 well-mixed bits of two coordinates and a seed ("lowbias32" rounds)."""
    mixed = np.uint32(x * 0x9E3779B1 + y * 0x85EBCA77 + seed * 0xC2B2AE3D)
    mixed = np.uint32(mixed ^ (mixed >> np.uint32(16)))
    mixed = np.uint32(mixed * np.uint32(0x7FEB352D))
    mixed = np.uint32(mixed ^ (mixed >> np.uint32(15)))
    mixed = np.uint32(mixed * np.uint32(0x846CA68B))
    mixed = np.uint32(mixed ^ (mixed >> np.uint32(16)))
    return int(mixed)


@njit(cache=True, nogil=True)
def _paper(image_HW3: npt.NDArray[np.uint8], rgb: npt.NDArray[np.int64], seed: int, grain: int, cell: int) -> None:
    """Mottle, fibres that lie along both axes, and grain of single pixels, 3 : 3 : 2.

    All but the grain is value noise: hashes at the points of a lattice, mixed bilinearly in steps of 1/256.
    """
    height, width = image_HW3.shape[:2]
    sum_HW = np.zeros((height, width), np.int32)
    for layer in range(3):
        cell_x = cell if layer == 0 else 9 if layer == 1 else 2
        cell_y = cell if layer == 0 else 2 if layer == 1 else 7
        weight = 3 - layer
        nodes = np.zeros((height // cell_y + 2, width // cell_x + 2), np.int32)
        for row in range(nodes.shape[0]):
            for column in range(nodes.shape[1]):
                nodes[row, column] = (hash_32(column, row, seed + layer) >> 16) - 32768
        for y in range(height):
            row = y // cell_y
            down = np.int32((y - row * cell_y) * 256 // cell_y)
            column = 0
            inside = 0
            for x in range(width):
                if inside == cell_x:
                    inside = 0
                    column += 1
                across = np.int32(inside * 256 // cell_x)
                left = nodes[row, column] * (np.int32(256) - down) + nodes[row + 1, column] * down
                right = nodes[row, column + 1] * (np.int32(256) - down) + nodes[row + 1, column + 1] * down
                mixed = (left >> 8) * (np.int32(256) - across) + (right >> 8) * across
                sum_HW[y, x] += weight * (mixed >> 8)
                inside += 1
    for y in range(height):
        for x in range(width):
            noise = sum_HW[y, x] + 2 * ((hash_32(x, y, seed + 3) >> 16) - 32768)
            change = (noise * grain + (1 << 17)) >> 18
            for channel in range(3):
                image_HW3[y, x, channel] = min(255, max(0, rgb[channel] + change))
