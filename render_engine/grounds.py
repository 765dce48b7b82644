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
        # a row pixel by pixel, then the others as whole rows: six times faster
        image_HW3[0] = _colour(ground.rgb)
        image_HW3[1:] = image_HW3[0]
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
def _spread(row: int, cell: int, seed: int, sides: npt.NDArray[np.int32]) -> None:
    """Spread a row of a lattice of hashes over pixels: sides (2, width), its points left and right of every pixel."""
    left = np.int32((hash_32(0, row, seed) >> 16) - 32768)
    for first in range(0, sides.shape[1], cell):
        right = np.int32((hash_32(first // cell + 1, row, seed) >> 16) - 32768)
        for x in range(first, min(first + cell, sides.shape[1])):
            sides[0, np.uint64(x)] = left
            sides[1, np.uint64(x)] = right
        left = right


@njit(cache=True, nogil=True)
def _paper(image_HW3: npt.NDArray[np.uint8], rgb: npt.NDArray[np.int64], seed: int, grain: int, cell: int) -> None:
    """Mottle, fibres that lie along both axes, and grain of single pixels, 3 : 3 : 2.

    All but the grain is value noise: hashes at the points of a lattice, mixed bilinearly in steps of 1/256. A row of
    the lattice is spread over the pixels once; the mixing and the grain then run over whole rows, which become vector
    instructions (19 ms for 1,024 x 1,024 px pixel by pixel, 4 ms so).
    """
    height, width = image_HW3.shape[:2]
    sums = np.empty(width, np.int32)
    across = np.empty((3, width), np.int32)
    # of every layer the lattice's rows above and below the pixels, left and right of each
    nodes = np.empty((3, 2, 2, width), np.int32)
    cells_x, cells_y = (cell, 9, 2), (cell, 2, 7)
    for layer in range(3):
        for x in range(width):
            across[layer, x] = x % cells_x[layer] * 256 // cells_x[layer]
    # what the noise makes of each channel, by its change
    changed = np.empty((3, 2 * grain + 1), np.uint8)
    for channel in range(3):
        for change in range(-grain, grain + 1):
            changed[channel, change + grain] = min(255, max(0, rgb[channel] + change))
    for y in range(height):
        for x in range(width):
            sums[x] = 2 * ((hash_32(x, y, seed + 3) >> 16) - 32768)
        for layer in range(3):
            cell_y = cells_y[layer]
            row = y // cell_y
            if y == 0:
                _spread(0, cells_x[layer], seed + layer, nodes[layer, 1])
            if y % cell_y == 0:
                nodes[layer, 0] = nodes[layer, 1]
                _spread(row + 1, cells_x[layer], seed + layer, nodes[layer, 1])
            down = np.int32((y - row * cell_y) * 256 // cell_y)
            _mix_layer(sums, nodes[layer], across[layer], down, np.int32(3 - layer))
        for x in range(width):
            change = int((np.int64(sums[x]) * grain + (1 << 17)) >> 18) + grain
            image_HW3[y, x, 0] = changed[0, change]
            image_HW3[y, x, 1] = changed[1, change]
            image_HW3[y, x, 2] = changed[2, change]


@njit(cache=True, nogil=True)
def _mix_layer(
    sums: npt.NDArray[np.int32],
    nodes: npt.NDArray[np.int32],
    across: npt.NDArray[np.int32],
    down: np.int32,
    weight: np.int32,
) -> None:
    """Add `weight` times a row of the layer to the sums."""
    up = np.int32(np.int32(256) - down)
    eight = np.int32(8)
    for x in range(len(sums)):
        left = np.int32(nodes[0, 0, x] * up + nodes[1, 0, x] * down)
        right = np.int32(nodes[0, 1, x] * up + nodes[1, 1, x] * down)
        one = across[x]
        mixed = np.int32((left >> eight) * np.int32(np.int32(256) - one) + (right >> eight) * one)
        sums[x] = np.int32(sums[x] + weight * np.int32(mixed >> eight))
