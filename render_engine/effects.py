"""What stands with the letters: plates, shadows and outlines under them, rules below them."""

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from render_engine.atlas import Atlas
from render_engine.compose import draw_glyphs, draw_glyphs_lcd
from render_engine.shapes import draw_shapes
from render_engine.spec import RGB, FilledBox, PhotoCrop, TextBlock

Tables = tuple[npt.NDArray[np.uint32], npt.NDArray[np.uint8]]
AROUND = tuple((x, y) for y in (-1, 0, 1) for x in (-1, 0, 1) if x or y)
_START_PX, _END_PX, _BASELINE, _BLOCK = 2, 3, 4, 7


def draw_plates(
    image_HW3: npt.NDArray[np.uint8],
    lines: npt.NDArray[np.int32],
    boxes: npt.NDArray[np.float64],
    blocks: Sequence[TextBlock],
) -> bool:
    """Lay the plates of the blocks under their lines, in place; whether there was any.

    lines: rows of `LayoutScratch.lines`. boxes: (lines, 4) in px, all 0 for a line without ink.
    """
    if all(block.plate is None for block in blocks):
        return False
    drawn = False
    for number, (x0, y0, x1, y1) in zip(lines[:, _BLOCK].tolist(), boxes.tolist(), strict=True):
        block = blocks[number]
        if block.plate is None or x1 <= x0:
            continue
        pad = block.plate.pad_em * block.size_px
        box = (x0 - pad, y0 - pad, x1 + pad, y1 + pad)
        plate = FilledBox(box_px=box, rgb=block.plate.rgb, opacity=block.plate.opacity)
        draw_shapes(image_HW3, (plate,), _no_photo)
        drawn = True
    return drawn


def draw_under(
    image_HW3: npt.NDArray[np.uint8],
    atlas: Atlas,
    found: npt.NDArray[np.int32],
    pens: npt.NDArray[np.int32],
    lines: npt.NDArray[np.int32],
    inks: npt.NDArray[np.uint8],
    blocks: Sequence[TextBlock],
    linear: bool,
    tables: Tables,
    lcd: bool,
) -> None:
    """Shadows, then outlines, of the blocks that have one, in place. lcd: the bitmaps are those of stripes.

    inks: (lines, 3), of the letters.
    """
    if not any(block.shadow or block.outline for block in blocks):
        return
    luma_L = inks @ np.array([0.299, 0.587, 0.114])
    in_block = lines[pens[:, 2], _BLOCK]
    for number, block in enumerate(blocks):
        copies: list[tuple[tuple[int, int], RGB | None, float]] = []
        if block.shadow is not None:
            copies.append((block.shadow.offset_px, block.shadow.rgb, block.shadow.opacity))
        if block.outline is not None:
            copies += [(offset, block.outline.rgb, 1.0) for offset in AROUND]
        if not copies:
            continue
        own = in_block == number
        own_found = found[own]
        for (dx, dy), rgb, opacity in copies:
            moved = pens[own] + np.array((dx, dy, 0), np.int32)
            # WCAG's contrast with black and with white is equal at a luma of about 118
            own_inks = np.where(luma_L > 118, 0, 255)[:, None] if rgb is None else np.array(rgb)[None, :]
            colours = np.ascontiguousarray(np.broadcast_to(own_inks, (len(lines), 3)), np.uint8)
            opacities = np.full(len(lines), round(opacity * block.opacity * 255), np.int32)
            drawing = (image_HW3, atlas.entries, atlas.pixels, own_found, moved, colours, opacities, linear, *tables)
            if lcd:
                draw_glyphs_lcd(*drawing, False)
            else:
                draw_glyphs(*drawing)


def underlines(
    lines: npt.NDArray[np.int32], blocks: Sequence[TextBlock]
) -> list[tuple[int, tuple[int, int, int, int]]]:
    """(line, box in whole px) of every rule below a line: from the first pen to the last, clear of the baseline."""
    rules: list[tuple[int, tuple[int, int, int, int]]] = []
    if not any(block.underline for block in blocks):
        return rules
    for number, line in enumerate(lines.tolist()):
        block = blocks[line[_BLOCK]]
        if block.underline:
            top = line[_BASELINE] + max(1, round(0.12 * block.size_px))
            thick = max(1, round(block.size_px / 16))
            rules.append((number, (line[_START_PX] >> 6, top, -(-line[_END_PX] >> 6), top + thick)))
    return rules


def draw_underlines(
    image_HW3: npt.NDArray[np.uint8],
    rules: Sequence[tuple[int, tuple[int, int, int, int]]],
    lines: npt.NDArray[np.int32],
    inks: npt.NDArray[np.uint8],
    blocks: Sequence[TextBlock],
) -> None:
    """The rules in the ink of their lines, in place."""
    for number, box in rules:
        red, green, blue = inks[number].tolist()
        opacity = blocks[lines[number, _BLOCK]].opacity
        draw_shapes(image_HW3, (FilledBox(box_px=box, rgb=(red, green, blue), opacity=opacity),), _no_photo)


def _no_photo(crop: PhotoCrop, width_px: int, height_px: int) -> npt.NDArray[np.uint8]:
    raise AssertionError("plates and rules hold no photographs")
