"""Lines as they were drawn -> annotations: what stands where, in which ink, on which ground."""

from collections.abc import Iterator
from dataclasses import dataclass, field

import numpy as np
import numpy.typing as npt

from render_engine.layout import line_text
from render_engine.spec import RGB, PageSpec, RenderedLine

Rule = tuple[int, tuple[int, int, int, int]]


@dataclass(slots=True)
class InkedLines:
    """The glyphs and lines of a page with the ink chosen for each line and the ground that was found under it."""

    found: npt.NDArray[np.int32]
    """(glyphs,) rows of `Atlas.entries`."""
    pens: npt.NDArray[np.int32]
    """(glyphs, 3), see `layout.LayoutScratch`."""
    lines: npt.NDArray[np.int32]
    """(lines, 9), see `layout.LayoutScratch`."""
    opacities: npt.NDArray[np.int32]
    """(lines,) 0 to 255."""
    ink_boxes: npt.NDArray[np.int32] = field(init=False)
    """(lines, 4) x0, y0, x1, y1 of the ink in px; all 0 when there is none."""
    boxes: npt.NDArray[np.float64] = field(init=False)
    """(lines, 4) the same, widened to the pen's way and the height of a capital."""
    grounds: npt.NDArray[np.float64] = field(init=False)
    """(lines, 4) mean red, green and blue in that box and the standard deviation of its luma, 0 to 255."""
    inks: npt.NDArray[np.uint8] = field(init=False)
    """(lines, 3) sRGB."""
    contrasts: npt.NDArray[np.float64] = field(init=False)
    """(lines,) WCAG ratio of the ink as seen against the mean ground."""
    rules: list[Rule] = field(default_factory=list)
    """See `effects.underlines`."""

    def __post_init__(self) -> None:
        n = len(self.lines)
        self.ink_boxes = np.empty((n, 4), np.int32)
        self.boxes = np.empty((n, 4))
        self.grounds = np.empty((n, 4))
        self.inks = np.empty((n, 3), np.uint8)
        self.contrasts = np.empty(n)


def annotate(
    spec: PageSpec, inked: InkedLines, entries: npt.NDArray[np.int32] | None = None
) -> tuple[RenderedLine, ...]:
    """One `RenderedLine` for every line that has ink on the page.

    entries: those of the atlas, for the boxes of single glyphs; None for none.
    """
    canvas = spec.surface or spec
    width, height = canvas.width_px, canvas.height_px
    glyph_boxes = None if entries is None else _glyph_boxes(entries, inked.found, inked.pens)
    # Sixty lines of three blocks: what the lines of a block share is looked up once.
    shared = [
        (block, block.text, "\u00ad" in block.text, block.lang, block.size_px, block.face_ids[0], block.opacity)
        for block in spec.blocks
    ]
    rows = zip(
        inked.lines.tolist(),
        inked.ink_boxes.tolist(),
        inked.boxes.tolist(),
        _triples(np.rint(inked.grounds[:, :3]).astype(np.uint8)),
        inked.grounds[:, 3].tolist(),
        _triples(inked.inks),
        inked.contrasts.tolist(),
        strict=True,
    )
    annotated = []
    for line, (left, top, right, bottom), (x0, y0, x1, y1), ground_rgb, clutter, ink_rgb, contrast in rows:
        if right <= 0 or bottom <= 0 or left >= width or top >= height:
            continue
        start, end, _, _, _, first_glyph, last_glyph, number, divided = line
        block, text, soft, lang, size_px, face_id, opacity = shared[number]
        own_boxes = None
        if glyph_boxes is not None:
            own_boxes = glyph_boxes[first_glyph:last_glyph]
            own_boxes = own_boxes[own_boxes[:, 2] > own_boxes[:, 0]]
        annotated.append(
            RenderedLine(
                text=line_text(block, start, end, divided) if divided or soft else text[start:end],
                lang=lang,
                quad_px=(x0, y0, x1, y0, x1, y1, x0, y1),
                size_px=size_px,
                ink_height_px=float(bottom - top),
                face_id=face_id,
                ink_rgb=ink_rgb,
                ground_rgb=ground_rgb,
                contrast=contrast,
                clutter=clutter,
                opacity=opacity,
                block=number,
                glyph_boxes_px=own_boxes,
            )
        )
    return tuple(annotated)


def _triples(colours_L3: npt.NDArray[np.uint8]) -> Iterator[RGB]:
    values = iter(colours_L3.ravel().tolist())
    return zip(values, values, values, strict=True)


def _glyph_boxes(
    entries: npt.NDArray[np.int32], found: npt.NDArray[np.int32], pens: npt.NDArray[np.int32]
) -> npt.NDArray[np.float32]:
    """(glyphs, 4) x0, y0, x1, y1 of each bitmap in the picture."""
    _, width, height, left, top = entries[found].T
    x0, y0 = pens[:, 0] + left, pens[:, 1] - top
    return np.stack((x0, y0, x0 + width, y0 + height), axis=1).astype(np.float32)
