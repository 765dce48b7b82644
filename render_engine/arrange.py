"""Text alone on a page: columns, lists, many small blocks, a few lines."""

from typing import Literal

from render_engine.choose import ADVANCE_EM, PageChoices
from render_engine.distribution import between, pick
from render_engine.spec import Box, TextBlock

LEAST_CELL_EM = {"en": 9.0, "mixed": 7.0, "zh": 5.0}
"""Narrower cells are for smaller text: words would be cut."""
GAP_EM = 0.4
"""Left free at both sides of a cell."""


def columns(page: PageChoices, area: Box, *, listed: bool) -> list[TextBlock]:
    """Body text (or lists) in columns, often under a heading, filling the area."""
    x0, y0, x1, y1 = area
    size = page.size_px()
    pitch = between(page.rng, page.pages.line_pitch_em)
    ink = page.ink(page.ink_kind)
    blocks: list[TextBlock] = []
    if page.rng.random() < page.pages.heading:
        largest = max(band.high_px for band in page.pages.bands)
        step = page.pages.size_step_px
        head = max(size, step * round(min(largest, size * float(page.rng.uniform(1.2, 2.0))) / step))
        text = page.one_line((x1 - x0) / (head * ADVANCE_EM[page.lang]))
        box = (x0, y0, x1, min(y1, y0 + 1.5 * head))
        align: Literal["start", "center"] = "center" if page.rng.random() < 0.5 else "start"
        head_ink = page.ink("colour") if page.rng.random() < 0.3 else ink
        faces = page.face_ids() if page.rng.random() < 0.5 else page.body_faces
        blocks.append(
            page.block(
                box, head, face_ids=faces, ink_rgb=head_ink, align=align, pitch_em=1.4, text=text, role="heading"
            )
        )
        y0 = min(y1, y0 + 1.5 * head + 0.5 * size)
    count = pick(page.rng, page.pages.columns)
    gutter = size * float(page.rng.uniform(1.0, 2.5))
    while count > 1 and (x1 - x0 - (count - 1) * gutter) / count < 10 * size:
        count -= 1
    wide = (x1 - x0 - (count - 1) * gutter) / count
    alignment = "start" if listed else pick(page.rng, page.pages.align)
    indent = 2.0 if page.lang != "en" and not listed and page.rng.random() < 0.6 else 0.0
    for column in range(count):
        left = x0 + column * (wide + gutter)
        box = (round(left, 2), round(y0, 2), round(left + wide, 2), y1)
        text_of_list = page.list_text(box, size, pitch) if listed else None
        blocks.append(
            page.block(
                box,
                size,
                face_ids=page.body_faces,
                ink_rgb=ink,
                align=alignment,
                pitch_em=pitch,
                text=text_of_list,
                indent_em=indent,
            )
        )
    return blocks


def mosaic(page: PageChoices, area: Box) -> list[TextBlock]:
    """The area cut into cells, each a block of its own size, face, colour and alignment."""
    cells = _cut(page, area, depth=0)
    blocks = []
    for cell in cells:
        size = _size_in(page, cell)
        # large text needs more room beside it than the cut leaves, or two cells are read as one line
        x0, y0, x1, y1 = cell
        room = min(GAP_EM * size, (x1 - x0) / 8)
        cell = (round(x0 + room, 2), y0, round(x1 - room, 2), y1)
        faces = page.face_ids() if page.rng.random() < 0.5 else page.body_faces
        blocks.append(
            page.block(
                cell,
                size,
                face_ids=faces,
                ink_rgb=page.ink(pick(page.rng, page.pages.inks)),
                align=pick(page.rng, page.pages.align),
                pitch_em=between(page.rng, page.pages.line_pitch_em),
            )
        )
    return blocks


def _size_in(page: PageChoices, cell: Box) -> float:
    """A size of which lines fit the cell and words its lines; the least of all where a few draws bring none."""
    for _ in range(4):
        size = page.size_px()
        if cell[3] - cell[1] >= 1.4 * size and cell[2] - cell[0] >= LEAST_CELL_EM[page.lang] * size:
            return size
    return min(band.low_px for band in page.pages.bands)


def _cut(page: PageChoices, area: Box, depth: int) -> list[Box]:
    x0, y0, x1, y1 = area
    wide, high = x1 - x0, y1 - y0
    if depth == 4 or (depth >= 2 and page.rng.random() < 0.35) or max(wide, high) < 100:
        return [area]
    gutter = float(page.rng.integers(3, 11))
    share = float(page.rng.uniform(0.3, 0.7))
    # Cells are kept wider than high: lines need room.
    if wide > 1.6 * high or (wide > 120 and page.rng.random() < 0.35):
        middle = round(x0 + wide * share)
        parts = [(x0, y0, middle - gutter / 2, y1), (middle + gutter / 2, y0, x1, y1)]
    else:
        middle = round(y0 + high * share)
        parts = [(x0, y0, x1, middle - gutter / 2), (x0, middle + gutter / 2, x1, y1)]
    return [cell for part in parts for cell in _cut(page, part, depth + 1)]


def sparse(page: PageChoices, area: Box) -> list[TextBlock]:
    """One to three short blocks somewhere on the page."""
    x0, y0, x1, y1 = area
    blocks: list[TextBlock] = []
    count = int(page.rng.integers(1, 4))
    band = (y1 - y0) / count
    for at in range(count):
        size = page.size_px()
        pitch = between(page.rng, page.pages.line_pitch_em)
        wide = (x1 - x0) * float(page.rng.uniform(0.4, 1.0))
        high = min(band, pitch * size * int(page.rng.integers(1, 5)) + size)
        left = float(page.rng.uniform(x0, x1 - wide))
        top = y0 + at * band + float(page.rng.uniform(0, band - high))
        box = (round(left, 2), round(top, 2), round(left + wide, 2), round(top + high, 2))
        blocks.append(
            page.block(
                box,
                size,
                face_ids=page.body_faces,
                ink_rgb=page.ink(pick(page.rng, page.pages.inks)),
                align=pick(page.rng, page.pages.align),
                pitch_em=pitch,
            )
        )
    return blocks
