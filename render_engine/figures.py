"""Tables and charts: numbers nobody believes, set as in reports."""

import re
from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np

from render_engine.choose import PageChoices
from render_engine.distribution import pick
from render_engine.spec import Box, FilledBox, LayoutNode, Polyline, Role, Shape, TextBlock
from render_engine.template import Palette

MAX_CELLS = 240
TOTAL = {"en": "Total", "zh": "合计"}


@dataclass(slots=True)
class Canvas:
    """A page being made: shapes in drawing order, blocks in reading order, the tree of its parts."""

    shapes: list[Shape] = field(default_factory=list)
    blocks: list[TextBlock] = field(default_factory=list)
    layout: list[LayoutNode] = field(default_factory=list)

    def group(self, role: Role, parent: int, box: Box) -> int:
        """Add a part to the tree; its number."""
        x0, y0, x1, y1 = box
        node = LayoutNode(role=role, parent=parent, box_px=(round(x0, 2), round(y0, 2), round(x1, 2), round(y1, 2)))
        self.layout.append(node)
        return len(self.layout) - 1

    def bar(self, x0: float, y0: float, x1: float, y1: float, rgb: tuple[int, int, int]) -> None:
        """A plain filled box."""
        self.shapes.append(FilledBox(box_px=(round(x0, 2), round(y0, 2), round(x1, 2), round(y1, 2)), rgb=rgb))


def number_text(rng: np.random.Generator, style: str) -> str:
    """A figure as tables hold them."""
    if style == "percent":
        return f"{rng.normal(8, 15):.1f}%"
    if style == "year":
        return str(int(rng.integers(1995, 2030)))
    if style == "decimal":
        return f"{rng.uniform(0, 100):.2f}"
    value = int(np.exp(rng.uniform(2, 14)))
    if style == "money" and rng.random() < 0.2:
        return f"({value:,})"
    return f"{value:,}"


def short_number(text: str) -> str:
    """The first three digits of a number, without what groups and surrounds them."""
    return re.sub(r"\D", "", text)[:3]


def _value(text: str) -> int:
    """Of a whole number as tables hold it: in brackets it is below 0."""
    value = int(re.sub(r"\D", "", text))
    return -value if text.startswith("(") else value


def column_texts(rng: np.random.Generator, style: str, count: int, most_characters: int, *, summed: bool) -> list[str]:
    """So many numbers of a style, none longer than that if three digits are not; summed: the last is the sum of the
    others, where a style can be summed."""
    texts = [number_text(rng, style) for _ in range(count)]
    texts = [text if len(text) <= most_characters else short_number(text) for text in texts]
    if not summed or count < 2 or style not in ("money", "count"):
        return texts
    values = [_value(text) for text in texts[:-1]]
    while len(_sum_text(values)) > most_characters and any(values):
        values = [int(value / 10) for value in values]
    return [*(f"({-value:,})" if value < 0 else f"{value:,}" for value in values), _sum_text(values)]


def _sum_text(values: Sequence[int]) -> str:
    total = sum(values)
    return f"({-total:,})" if total < 0 else f"{total:,}"


def fill_table(
    page: PageChoices,
    canvas: Canvas,
    palette: Palette,
    size_px: float,
    box: Box,
    parent: int,
    labels: Sequence[str] = (),
) -> bool:
    """A table of labels and numbers that fills its box with whole rows; False, and nothing, when it is too small.

    labels: of the rows, to choose from; none takes words of the corpus.
    """
    rng = page.rng
    x0, y0, x1, y1 = box
    row_px = round(size_px * float(rng.uniform(1.6, 2.3)))
    pad = 0.45 * size_px
    n_rows = int((y1 - y0) // row_px)
    label_em = float(rng.uniform(5.5, 11)) if page.lang != "en" else float(rng.uniform(7, 14))
    cell_em = float(rng.uniform(5.0, 7.5))
    label_em = min(label_em, max(4.0, (x1 - x0) / size_px - cell_em))
    n_columns = min(8, int(((x1 - x0) / size_px - label_em) / cell_em + 1e-6))
    n_rows = min(n_rows, MAX_CELLS // (n_columns + 1)) if n_columns > 0 else 0
    if n_columns < 1 or n_rows < 2:
        return False
    table = canvas.group("table", parent, (x0, y0, x1, y0 + n_rows * row_px))
    style = pick(rng, {"lines": 0.4, "grid": 0.25, "zebra": 0.2, "three": 0.15})
    filled_head = style != "three" and rng.random() < 0.5
    step = (x1 - x0 - label_em * size_px) / n_columns
    edges = [x0, *(x1 - step * (n_columns - at) for at in range(n_columns + 1))]
    kinds = [pick(rng, {"money": 0.4, "count": 0.2, "percent": 0.2, "decimal": 0.2}) for _ in range(n_columns)]
    bottom = y0 + n_rows * row_px
    rule = palette.rgb("line")
    if style == "zebra":
        for row in range(1, n_rows, 2):
            canvas.bar(x0, y0 + row * row_px, x1, y0 + (row + 1) * row_px, palette.rgb("soft"))
    if filled_head:
        canvas.bar(x0, y0, x1, y0 + row_px, palette.rgb("accent"))
    if style in ("lines", "grid"):
        for row in range(n_rows + 1):
            canvas.bar(x0, y0 + row * row_px, x1, y0 + row * row_px + 1, rule)
    if style == "grid":
        for edge in edges:
            canvas.bar(min(edge, x1 - 1), y0, min(edge, x1 - 1) + 1, bottom + 1, rule)
    if style == "three":  # rules above, under the head and below, as journals have it
        thick = max(1.0, size_px / 8)
        canvas.bar(x0, y0, x1, y0 + thick, palette.rgb("ink"))
        canvas.bar(x0, y0 + row_px, x1, y0 + row_px + 1, palette.rgb("ink"))
        canvas.bar(x0, bottom, x1, bottom + thick, palette.rgb("ink"))
    bold = page.bold(page.body_faces)
    years = bool(labels) or rng.random() < 0.5
    first_year = int(rng.integers(1995, 2025))
    summed = style != "zebra"
    most_characters = int((step - 2 * pad) / (0.62 * size_px))
    if labels:  # amounts of the years side by side
        kinds = ["money"] * n_columns
    numbers = [column_texts(rng, kind, n_rows - 1, most_characters, summed=summed) for kind in kinds]
    room_em = (edges[1] - edges[0] - 2 * pad) / np.ceil(size_px)
    fitting = [label for label in labels if page.estimated_em(label) <= room_em]
    named = [fitting[at] for at in rng.permutation(len(fitting)).tolist()]
    last = TOTAL["en" if page.lang == "en" else "zh"]
    for row in range(n_rows):
        total = row == n_rows - 1 and summed
        for column in range(n_columns + 1):
            left, right = edges[column] + pad, edges[column + 1] - pad
            if row == 0 and column and years:
                text = str(first_year + column)
            elif row and column:
                text = numbers[column - 1][row - 1]
            elif total and page.estimated_em(last) * 1.1 <= room_em:
                text = last
            elif row and named:
                text = named.pop()
            elif row == 0 and labels:
                text = ""
            else:
                wide_em = (right - left) / size_px
                text = page.fitted(wide_em, 0.85) or page.fitted(wide_em, 1.0) or number_text(rng, "year")
            if not text.strip():
                continue
            # tall faces have lines of 1.2 em, and so has the cell at least
            top = y0 + row * row_px + (row_px - 1.25 * size_px) / 2
            canvas.blocks.append(
                page.block(
                    (round(left, 2), round(top, 2), round(right, 2), round(top + 1.3 * size_px, 2)),
                    size_px,
                    face_ids=bold if row == 0 or total else page.body_faces,
                    ink_rgb=palette.rgb("on_accent" if row == 0 and filled_head else "ink"),
                    align="end" if column else "start",
                    pitch_em=1.25,
                    text=text,
                    role="cell",
                    parent=table,
                )
            )
    return True


def fill_chart(page: PageChoices, canvas: Canvas, palette: Palette, size_px: float, box: Box, parent: int) -> bool:
    """Bars or a curve over an axis with labels; False, and nothing, when its box is too small."""
    rng = page.rng
    x0, y0, x1, y1 = box
    if x1 - x0 < 12 * size_px or y1 - y0 < 6 * size_px:
        return False
    axis_x, axis_y = x0 + 3.4 * size_px, y1 - 1.6 * size_px
    top = y0 + 0.7 * size_px
    count = int(np.clip((x1 - axis_x) / (4.2 * size_px), 0, 8))
    if count < 3:
        return False
    chart = canvas.group("chart", parent, box)
    step = (x1 - axis_x) / count
    values = rng.uniform(0.15, 0.95, count)
    ticks = int(np.clip((axis_y - top) / (2.2 * size_px), 2, 6))
    unit = int(rng.choice([1, 2, 5, 10, 20, 25, 50, 100]))
    for tick in range(ticks + 1):
        y = axis_y - (axis_y - top) * tick / ticks
        canvas.bar(axis_x, y, x1, y + 1, palette.rgb("line"))
        label_box = (x0, round(y - 0.6 * size_px, 2), round(axis_x - 0.4 * size_px, 2), round(y + 0.7 * size_px, 2))
        canvas.blocks.append(_label(page, palette, size_px, label_box, str(unit * tick), "end", chart))
    if rng.random() < 0.6:
        for at, value in enumerate(values.tolist()):
            left = axis_x + (at + 0.2) * step
            canvas.bar(left, axis_y - value * (axis_y - top), left + 0.6 * step, axis_y, palette.rgb("accent"))
    else:
        points = tuple(
            (round(axis_x + (at + 0.5) * step, 2), round(axis_y - value * (axis_y - top), 2))
            for at, value in enumerate(values.tolist())
        )
        canvas.shapes.append(Polyline(points_px=points, rgb=palette.rgb("accent"), width_px=2))
    years = rng.random() < 0.6
    first_year = int(rng.integers(1995, 2025))
    texts = [] if years else [page.fitted(step / size_px - 0.6, 0.9) for _ in range(count)]
    for at in range(count):
        # a name for each, or else a year
        text = texts[at] if all(texts) and texts else str(first_year + at)
        left = axis_x + at * step
        label_box = (round(left, 2), round(axis_y + 0.25 * size_px, 2), round(left + step, 2), round(y1, 2))
        canvas.blocks.append(_label(page, palette, size_px, label_box, text, "center", chart))
    return True


def _label(
    page: PageChoices, palette: Palette, size_px: float, box: Box, text: str, align: str, parent: int
) -> TextBlock:
    return page.block(
        box,
        size_px,
        face_ids=page.body_faces,
        ink_rgb=palette.rgb("muted"),
        align="end" if align == "end" else "center",
        pitch_em=1.25,
        text=text,
        role="label",
        parent=parent,
    )
