"""Fills a template: its ranges become lengths, its slots text, tables and pictures of one page."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Literal

import numpy as np

from render_engine.choose import PageChoices, estimated_em, photo_crop
from render_engine.distribution import Photo, between, pick
from render_engine.figures import Canvas, fill_chart, fill_table, number_text, short_number
from render_engine.spec import Box, FilledBox, PaperGround, PhotoCrop, Picture, PlainGround, Role
from render_engine.template import Colour, Node, Palette, Template
from render_engine.wording import Wording

LEAST_TEXT_EM = 2.5
"""Text is not set in boxes narrower than this."""
LEAST_COLUMN_EM = {"en": 10.0, "mixed": 9.0, "zh": 7.0}
"""Paragraphs, lists and tables are not set in columns narrower than this: words would not find room on their lines."""
WRAPPED = ("paragraph", "list")
HEAD_PITCH_EM = 1.25
HEADS = ("title", "heading", "caption", "header", "label", "rule")
"""Slots that say what follows them: alone they are left out."""
LEAST_HEIGHT = 0.55
"""Least height of a page in `least_em` of its template."""
MOST_SMALLER = 3
"""So often a page is drawn again for want of a part."""
ATTEMPTS = 8
"""Pages without any text are drawn again, each a fifth smaller than the one before."""


@dataclass(slots=True)
class _Part:
    """A node with its ranges drawn."""

    node: Node
    size_px: float
    number: int
    text_px: float | None
    """Height of its `lines`."""
    share: float | None
    ems_px: float | None
    repeated: bool = False
    """Not the first of its repetitions."""
    children: list["_Part"] = field(default_factory=list)
    natural: dict[bool, float | None] = field(default_factory=dict)
    """Heights that `_Filler.natural_px` found before."""


def fill_page(
    page: PageChoices,
    template: Template,
    width_px: int,
    height_px: int,
    photos: Sequence[Photo],
    frame_px: float = 0.0,
) -> tuple[PlainGround | PaperGround, Canvas]:
    """A page of that template: its ground, and its shapes, blocks and layout tree on the canvas.

    frame_px: width of a frame around the page that is left free.
    """
    rng = page.rng
    palette = template.palettes[int(rng.integers(len(template.palettes)))]
    # a page much wider than high has few lines: its text is smaller than the width alone would allow
    most = min(width_px / template.least_em, height_px / (LEAST_HEIGHT * template.least_em))
    size = page.body_size_px(min(width_px / template.most_em, most), most)
    page.body_faces = page.text_face_ids()
    page.spacing_em = page.drawn_spacing_em()
    margin = between(rng, template.margin) * min(width_px, height_px)
    ground: PlainGround | PaperGround = PlainGround(rgb=palette.rgb("ground"))
    if template.paper and rng.random() < template.paper:
        seed, grain, cell = int(rng.integers(1 << 31)), int(rng.integers(4, 16)), int(rng.integers(8, 64))
        ground = PaperGround(rgb=palette.rgb("ground"), seed=seed, grain=grain, cell_px=cell)
    whole = (frame_px, frame_px, width_px - frame_px, height_px - frame_px)
    box = (whole[0] + margin, whole[1] + margin, whole[2] - margin, whole[3] - margin)
    for attempt in range(ATTEMPTS):
        # Nothing may be left of a page by chance, or for lack of room; and its body must not be what is left out.
        filler = _Filler(page, template, palette, page.on_grid(size * 0.8**attempt), photos)
        root = filler.drawn(template.page, 1)[0]
        filler.root = root
        filler.place(root, box, filler.canvas.group("page", -1, whole))
        if filler.canvas.blocks and (attempt >= MOST_SMALLER or not filler.lacking):
            break
    else:  # too small for what the template asks for: text alone
        filler.text(filler.draw(Node(slot="paragraph"), 1), "paragraph", box, 0)
    return ground, filler.canvas


class _Filler:
    """One page being filled."""

    def __init__(
        self, page: PageChoices, template: Template, palette: Palette, size_px: float, photos: Sequence[Photo]
    ) -> None:
        self.page, self.rng, self.palette, self.photos = page, page.rng, palette, photos
        self.body_px = size_px
        self.pitch_em = between(page.rng, template.pitch)
        self.align = template.align[int(page.rng.integers(len(template.align)))]
        self.indented = template.indent
        self.words_in: Literal["en", "zh"] = "en" if page.lang == "en" else "zh"
        self.canvas = Canvas()
        self.root: _Part | None = None
        self.lacking = False
        """Whether a part of the page itself or of a card was left out, or all that a heading stands over."""
        self.wording = Wording(page)

    def draw(self, node: Node, number: int) -> _Part:
        """Every random length of the part and of all inside it."""
        size = self.page.on_grid(self.body_px * between(self.rng, node.size))
        pitch = node.pitch or (self.pitch_em if node.slot in WRAPPED else HEAD_PITCH_EM)
        text = None
        if node.lines is not None:
            # a line more than its pitch: faces with tall ascenders need it
            text = size * (pitch * int(self.rng.integers(node.lines[0], node.lines[1] + 1)) + 0.1)
        part = _Part(
            node=node,
            size_px=size,
            number=number,
            text_px=text,
            share=None if node.share is None else between(self.rng, node.share),
            ems_px=None if node.ems is None else between(self.rng, node.ems) * self.body_px,
        )
        for child in node.rows or node.columns:
            # parts whose children are all absent by chance leave no gap
            part.children += [one for one in self.drawn(child, number) if one.children or not one.node.children]
        if node.flip and self.rng.random() < node.flip:
            part.children.reverse()
        return part

    def drawn(self, node: Node, number: int) -> list[_Part]:
        """The part as often as it comes, which may be never."""
        if node.chance < 1 and self.rng.random() >= node.chance:
            return []
        return self.repeated(node, number)

    def repeated(self, node: Node, number: int) -> list[_Part]:
        """The part as often as it comes."""
        count = int(self.rng.integers(node.repeat[0], node.repeat[1] + 1))
        parts: list[_Part] = []
        for at in range(count):
            # {n} counts the nearest repetition around it
            own = number if node.repeat == (1, 1) else at + 1
            if node.one_of:
                choice = pick(self.rng, {at: one.chance for at, one in enumerate(node.one_of)})
                drawn = self.repeated(node.one_of[choice], own)
            else:
                drawn = [self.draw(node, own)]
            for one in drawn if at else drawn[1:]:
                one.repeated = True
            parts += drawn
        return parts

    def natural_px(self, part: _Part, down: bool = True) -> float | None:
        """The height that a part needs of its own; None when it takes what it gets. down: it stands in rows, where
        `ems` and `share` are heights and not widths."""
        if down not in part.natural:
            part.natural[down] = self._natural_px(part, down)
        return part.natural[down]

    def _natural_px(self, part: _Part, down: bool) -> float | None:
        node, pad = part.node, 2 * part.node.pad * self.body_px
        if down and part.ems_px is not None:
            return part.ems_px
        if part.text_px is not None:
            return part.text_px + pad
        if (down and part.share is not None) or not part.children:
            return None
        heights = [self.natural_px(child, bool(node.rows)) for child in part.children]
        known = [height for height in heights if height is not None]
        if node.columns:
            # Figures, rules and empty room are as high as what stands beside them.
            open_ended = any(
                height is None and (child.children or child.node.slot in (*WRAPPED, "table", "chart"))
                for child, height in zip(part.children, heights, strict=True)
            )
            return max(known) + pad if known and not open_ended else None
        if len(known) < len(heights):
            return None
        return sum(known) + (len(known) - 1) * node.gap * self.body_px + pad

    def place(self, part: _Part, box: Box, parent: int) -> None:
        """Put a part into its box, and all inside it."""
        node = part.node
        shapes, blocks = self.canvas.shapes, self.canvas.blocks
        n_shapes, n_blocks = len(shapes), len(blocks)
        radius = round(node.radius * self.body_px)
        if node.fill == "photo":
            self.figure(box, radius)
        elif node.fill is not None:
            self.canvas.shapes.append(FilledBox(box_px=_rounded(box), rgb=self.rgb(node.fill), radius_px=radius))
        if node.scrim is not None:
            veil = round(between(self.rng, node.scrim), 2)
            self.canvas.shapes.append(FilledBox(box_px=_rounded(box), rgb=(0, 0, 0), opacity=veil, radius_px=radius))
        pad = node.pad * self.body_px
        inner = (box[0] + pad, box[1] + pad, box[2] - pad, box[3] - pad)
        if inner[2] - inner[0] >= 1 and inner[3] - inner[1] >= 1:
            self.place_inside(part, box, inner, parent)
        if node.border is not None:  # over the fills of what is in it
            thick = max(1, round(node.border_em * self.body_px))
            frame = FilledBox(box_px=_rounded(box), border_rgb=self.rgb(node.border), border_px=thick, radius_px=radius)
            self.canvas.shapes.append(frame)
        if node.slot == "button" and len(blocks) == n_blocks:
            del shapes[n_shapes:]  # what says nothing is no button

    def place_inside(self, part: _Part, box: Box, inner: Box, parent: int) -> None:
        """What stands in the part's box, inside its padding."""
        node, page = part.node, self.page
        if part.children:
            role: Role = "card" if node.fill or node.border else "row" if node.columns else "column"
            group = self.canvas.group(role, parent, box)
            placed = self.divide(part, inner)
            for child, child_box in placed:
                self.place(child, child_box, group)
            self.dividers(part, placed)
        elif node.slot == "rule":
            thick = max(1.0, part.size_px / 14)
            x, y = (inner[0] + inner[2]) / 2, (inner[1] + inner[3]) / 2
            upright = inner[3] - inner[1] > inner[2] - inner[0]
            line = (x, inner[1], x + thick, inner[3]) if upright else (inner[0], y, inner[2], y + thick)
            self.canvas.bar(*line, self.rgb(node.ink))
        elif node.slot == "figure":
            self.canvas.group("figure", parent, inner)
            self.figure(inner, round(node.radius * self.body_px))
        elif node.slot in ("table", "chart"):
            labels = node.text.get(self.words_in, ())
            if not (
                fill_table(page, self.canvas, self.palette, part.size_px, inner, parent, labels)
                if node.slot == "table"
                else fill_chart(page, self.canvas, self.palette, part.size_px, inner, parent)
            ):
                self.lacking = True
                self.text(part, "paragraph", inner, parent)
        elif node.slot is not None:
            self.text(part, node.slot, inner, parent)

    def divide(self, part: _Part, box: Box) -> list[tuple[_Part, Box]]:
        """The children that fit with their boxes; the last ones are left out when there is no room for all."""
        node = part.node
        down = bool(node.rows)
        start, end = (box[1], box[3]) if down else (box[0], box[2])
        gap = node.gap * self.body_px
        children = list(part.children)
        lengths = [self._fixed_px(child, down, end - start) for child in children]
        least = [self._least_px(child, down) for child in children]
        squeezed = -1
        while children:
            fixed = [None if at == squeezed else length for at, length in enumerate(lengths)]
            free = end - start - gap * (len(children) - 1) - sum(length for length in fixed if length is not None)
            shares = sum(child.node.weight for child, length in zip(children, fixed, strict=True) if length is None)
            given = [
                free * child.node.weight / shares if length is None else length
                for child, length in zip(children, fixed, strict=True)
            ]
            if free >= -0.01 and all(one >= other for one, other in zip(given, least, strict=True)):
                if not (down and len(children) < len(part.children) and children[-1].node.slot in HEADS):
                    break
                del children[-1], lengths[-1], least[-1]  # what it speaks of is left out
                continue
            # The last repetition goes first, or else the last part: cut short if that helps, then left out.
            last = max((at for at, child in enumerate(children) if child.repeated), default=len(children) - 1)
            if down and squeezed != last and children[last].node.rows and fixed[last] is not None:
                squeezed = last
            else:
                of_page = part is self.root and not _is_head(children[last])
                if (of_page or node.fill or node.border) and not children[last].repeated:
                    self.lacking = True
                del children[last], lengths[last], least[last]
                squeezed = -1
        if down and len(children) < len(part.children) and all(map(_is_head, children)):
            self.lacking = True
        placed = []
        for child, length in zip(children, given if children else (), strict=False):
            child_box = (box[0], start, box[2], start + length) if down else (start, box[1], start + length, box[3])
            placed.append((child, child_box))
            start += length + gap
        return placed

    def dividers(self, part: _Part, placed: list[tuple[_Part, Box]]) -> None:
        """Lines in the gaps between the children."""
        if part.node.divider is None:
            return
        gap = part.node.gap * self.body_px
        for _, (x0, y0, x1, y1) in placed[1:]:
            line = (
                (x0, y0 - gap / 2, x1, y0 - gap / 2 + 1) if part.node.rows else (x0 - gap / 2, y0, x0 - gap / 2 + 1, y1)
            )
            self.canvas.bar(*line, self.rgb(part.node.divider))

    def _fixed_px(self, part: _Part, down: bool, whole: float) -> float | None:
        if part.share is not None:
            return part.share * whole
        return self.natural_px(part) if down else part.ems_px

    def _least_px(self, part: _Part, down: bool) -> float:
        """What a part cannot do without; empty room and rules can do without any."""
        if not down and part.ems_px is not None:
            return part.ems_px
        natural = self.natural_px(part) if down else None
        if natural is not None and not part.node.rows:
            return natural
        if part.children:
            pad = 2 * part.node.pad * self.body_px
            if not part.node.rows:
                return self._least_px(part.children[0], down) + pad
            if not down:
                return max(self._least_px(child, False) for child in part.children) + pad
            # a heading and what it stands over
            length = 0.0
            for child in part.children:
                length += self._least_px(child, True)
                if not _is_head(child):
                    break
                length += part.node.gap * self.body_px
            return length + pad if natural is None else min(length + pad, natural)
        if part.node.slot in (None, "rule"):
            return 0.0
        if down:
            # one line is no paragraph
            lines = 1.3 + (self.pitch_em if part.node.slot in WRAPPED else 0.0)
            return lines * part.size_px + 2 * part.node.pad * self.body_px
        if part.node.slot in (*WRAPPED, "table"):
            return LEAST_COLUMN_EM[self.page.lang] * part.size_px
        return (LEAST_TEXT_EM if part.node.lines else 6.0) * part.size_px

    def text(self, part: _Part, slot: Role, box: Box, parent: int) -> None:
        """A block of text in its box."""
        node, page, size = part.node, self.page, part.size_px
        wide, high = box[2] - box[0], box[3] - box[1]
        pitch = node.pitch or (self.pitch_em if slot in WRAPPED else HEAD_PITCH_EM)
        if (wide < LEAST_TEXT_EM * size and not node.text) or high < 1.2 * size:
            return
        n_lines = max(1, int(high / (pitch * size)))
        wrapped = slot in WRAPPED or n_lines > 1
        if not wrapped:  # in the middle of its box
            top = box[1] + max(0.0, (high - 1.3 * size) / 2)
            box = (box[0], top, box[2], top + min(high, 1.3 * size))
            pitch = min(pitch, 1.3)
        prefix = node.prefix.get(self.words_in, "")
        indented = slot == "paragraph" and (self.indented if node.indent is None else node.indent)
        indent = (1.5 if page.lang == "en" else 2.0) if indented else 0.0
        if node.text and node.slot != "table":
            # hinted letters may be as wide as those of the next whole size
            text = self.wording.fixed(node.text[self.words_in], part.number, wide * n_lines / np.ceil(size), node.bold)
            self.lacking = self.lacking or not text
        elif slot == "page_number":
            text = str(int(self.rng.integers(1, 600)))
        elif slot == "list":
            text = page.items(wide / size, n_lines)
        elif slot == "paragraph":
            text = self.wording.paragraph(wide / size, n_lines, indent + estimated_em(prefix))
        else:
            text = self.wording.words(wide / size, n_lines, len(prefix))
            if prefix and not text:
                text = short_number(number_text(self.rng, "count"))
        if not text.strip():
            return
        text = self.wording.filled(prefix, part.number) + text
        align = node.align or (self.align if slot == "paragraph" else "start")
        block = page.block(
            _rounded(box),
            size,
            face_ids=page.bold(page.body_faces) if node.bold else page.body_faces,
            ink_rgb=self.rgb(node.ink),
            align=align,
            pitch_em=pitch,
            text=text,
            indent_em=indent,
            role=slot,
            parent=parent,
            underline=node.underline,
        )
        self.canvas.blocks.append(block)

    def figure(self, box: Box, radius_px: int) -> None:
        """A crop of a photograph, or a grey box where there is none."""
        width, height = max(1, round(box[2] - box[0])), max(1, round(box[3] - box[1]))
        if not self.photos:
            grey = FilledBox(box_px=_rounded(box), rgb=self.rgb("line"), radius_px=radius_px)
            self.canvas.shapes.append(grey)
            return
        crop: PhotoCrop = photo_crop(self.rng, self.page.pages, self.photos, width, height)
        self.canvas.shapes.append(Picture(box_px=_rounded(box), crop=crop, radius_px=radius_px))

    def rgb(self, colour: Colour) -> tuple[int, int, int]:
        """A colour of the page's palette."""
        return self.palette.rgb(colour)


def _is_head(part: _Part) -> bool:
    if not part.children:
        return part.node.slot in HEADS or (part.node.slot is None and part.node.fill is None)
    return all(_is_head(child) for child in part.children)


def _rounded(box: Box) -> Box:
    return round(box[0], 2), round(box[1], 2), round(box[2], 2), round(box[3], 2)
