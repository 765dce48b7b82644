"""Blocks of text on a page, from annotations as OmniDocBench has them or from detected lines: where, how large, what"""

import json
import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
import numpy.typing as npt
from pydantic import BaseModel, ConfigDict, Field, ValidationError

from datagen.ocr import Recognizer, quad_heights
from fonts_manifest.errors import BadInput

Lang = Literal["zh", "en"]
Box = tuple[float, float, float, float]
"""Left, top, right, bottom in px of the page."""

HAN_SHARE_OF_CHINESE = 0.2
"""Texts with more Han among their characters are Chinese: technical Chinese is half Latin (real crops: .45 to .94)."""

MAX_ANNOTATION_BYTES = 1 << 30
_READ_LINES = 8
"""Lines of a detected block that are read to learn how wide its characters are; 39 ms each."""


@dataclass(frozen=True, slots=True, kw_only=True)
class TextBlock:
    """One block of a page before anything is cut."""

    box_px: Box
    category: str
    """OmniDocBench's `category_type`; "detected" when there were no annotations."""
    lang: Lang | None
    """None when it is neither of the two, or there is nothing to tell it by."""
    cell_px: float | None
    """Side of a square as large as a character's own place, its advance times the line pitch; None when unknown."""
    lines: int | None
    """None when the annotation does not tell."""
    turned: bool = False
    """Rotated or set in columns from top to bottom."""
    ignored: bool = False
    """The annotators took it out of every evaluation."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Page:
    """One picture of a page, and what is known of it without looking."""

    file: str
    """Relative to the folder of the pages, with `/`."""
    category: str
    """Kind of document (OmniDocBench's `data_source`), or the folder the page lies in; "page" when it lies in none."""
    size_px: tuple[float, float] | None
    """Width and height that the boxes refer to; None: the picture's own."""
    blocks: tuple[TextBlock, ...] | None
    """None: nothing is annotated, they have to be detected."""


def han_share(text: str) -> float:
    """Share of Han among the characters of `text` that are no blanks, 0 to 1."""
    characters = [c for c in text if not c.isspace()]
    return sum("\u3400" <= c <= "\u9fff" or c >= "\U00020000" for c in characters) / max(1, len(characters))


def language_of(text: str) -> Lang | None:
    """Chinese or English by the share of Han; None for a text without a letter."""
    if not any(c.isalpha() for c in text):
        return None
    return "zh" if han_share(text) > HAN_SHARE_OF_CHINESE else "en"


# ---- annotations -----------------------------------------------------------------------------------------------------


class _Annotation(BaseModel):
    """Foreign data: what is read of it is checked, the rest is left alone."""

    model_config = ConfigDict(extra="ignore", frozen=True)


class _Span(_Annotation):
    poly: tuple[float, ...] = ()
    text: str | None = None


class _Detection(_Annotation):
    category_type: str
    poly: tuple[float, ...] = Field(min_length=8, max_length=8)
    ignore: bool = False
    order: int | None = None
    text: str | None = None
    attribute: dict[str, Any] | None = None
    line_with_spans: tuple[_Span, ...] | None = None
    merge_list: tuple["_Detection", ...] | None = None


class _PageInfo(_Annotation):
    image_path: str = Field(min_length=1)
    width: float = Field(gt=0)
    height: float = Field(gt=0)
    page_attribute: dict[str, Any] = {}


class _AnnotatedPage(_Annotation):
    layout_dets: tuple[_Detection, ...]
    page_info: _PageInfo


_LANGUAGES: dict[str, Lang | None] = {
    "english": "en",
    "text_en": "en",
    "text_english": "en",
    "simplified_chinese": "zh",
    "text_simplified_chinese": "zh",
    "traditional_chinese": None,
    "text_traditional_chinese": None,
    "other": None,
    "text_other": None,
}
"""OmniDocBench's values of `language` and `text_language`; mixed ones are told by the text itself."""


def read_annotations(path: Path) -> list[Page]:
    """The pages of a file as OmniDocBench has it: a JSON list of `page_info` and `layout_dets`.

    Blocks stand in their reading order (`order`; those without one come last). Raises BadInput naming the entry.
    """
    try:
        if path.stat().st_size > MAX_ANNOTATION_BYTES:
            raise BadInput(f"{path}: over 1 GiB, this is no file of annotations")
        entries = json.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise BadInput(f"{path}: cannot be read ({error.strerror})") from None
    except ValueError as error:
        raise BadInput(f"{path}: is no JSON ({error})") from None
    if not isinstance(entries, list) or not entries:
        raise BadInput(f"{path}: must be a JSON list with an entry for every page, as OmniDocBench.json is")
    pages = []
    for number, entry in enumerate(entries):
        try:
            pages.append(_page_of(_AnnotatedPage.model_validate(entry)))
        except ValidationError as problem:
            first = problem.errors()[0]
            where = ".".join(str(part) for part in first["loc"])
            raise BadInput(f"{path}, entry {number}: {where}: {first['msg']}; see OmniDocBench's format") from None
    return pages


def _page_of(annotated: _AnnotatedPage) -> Page:
    info = annotated.page_info
    ordered = sorted(
        annotated.layout_dets, key=lambda block: (block.order is None, block.order or 0, block.poly[1], block.poly[0])
    )
    return Page(
        file=info.image_path,
        category=str(info.page_attribute.get("data_source", "page")),
        size_px=(info.width, info.height),
        blocks=tuple(_block_of(block, str(info.page_attribute.get("language", ""))) for block in ordered),
    )


def _block_of(block: _Detection, page_language: str) -> TextBlock:
    attribute = block.attribute or {}
    text = block.text or ""
    told = str(attribute.get("text_language") or page_language)
    lang = _LANGUAGES[told] if told in _LANGUAGES else language_of(text)
    pieces = [block, *(block.merge_list or ())]
    spans = [span for piece in pieces for span in piece.line_with_spans or () if span.text and len(span.poly) == 8]
    rows = _rows([_box(span.poly) for span in spans])
    return TextBlock(
        box_px=_box(block.poly),
        category=block.category_type,
        lang=lang,
        cell_px=_cell_of_lines(rows, sum(len(span.text or "") for span in spans)) or _cell_of_area(block.poly, text),
        lines=len(rows) or None,
        turned=str(attribute.get("text_rotate") or "normal") != "normal",
        ignored=block.ignore,
    )


def _box(poly: Sequence[float]) -> Box:
    x, y = np.asarray(poly, np.float64).reshape(4, 2).T
    return float(x.min()), float(y.min()), float(x.max()), float(y.max())


def _rows(boxes: Sequence[Box]) -> list[Box]:
    """Spans of one line joined: a box joins the row in whose height its centre lies."""
    rows: list[Box] = []
    for left, top, right, bottom in sorted(boxes, key=lambda box: box[1] + box[3]):
        if rows and rows[-1][1] < (top + bottom) / 2 < rows[-1][3]:
            row = rows[-1]
            rows[-1] = min(row[0], left), min(row[1], top), max(row[2], right), max(row[3], bottom)
        else:
            rows.append((left, top, right, bottom))
    return rows


def _cell_of_lines(rows: Sequence[Box], characters: int) -> float | None:
    """sqrt(advance x pitch) from lines with `characters` in them, blanks included: they take their place too."""
    if len(rows) < 2 or not characters:
        return None
    centres = np.array([(row[1] + row[3]) / 2 for row in rows])
    pitch = float(np.median(np.diff(centres)))
    advance = sum(row[2] - row[0] for row in rows) / characters
    return math.sqrt(advance * pitch) if advance > 0 and pitch > 0 else None


def _cell_of_area(poly: Sequence[float], text: str) -> float | None:
    left, top, right, bottom = _box(poly)
    characters = len(" ".join(text.split()))
    area = (right - left) * (bottom - top)
    return math.sqrt(area / characters) if characters and area > 0 else None


# ---- detection -------------------------------------------------------------------------------------------------------


def detect_blocks(recognizer: Recognizer, image_HW3: npt.NDArray[np.uint8]) -> tuple[TextBlock, ...]:
    """Blocks of a page nobody annotated, from top to bottom: detected lines joined, a few lines of each read.

    image_HW3: uint8 sRGB. Costs a detection and up to eight line readings a block.
    """
    quads = recognizer.detect(image_HW3)
    blocks = []
    for members in group_lines(quads):
        boxes = [_box(quads[index]) for index in members]
        rows = _rows(boxes)
        sample = members[:_READ_LINES] if len(rows) > 1 else []
        readings = recognizer.read_lines(image_HW3, [quads[index] for index in sample])
        text = "\n".join(reading.text for reading in readings)
        characters = sum(len(reading.text) for reading in readings)
        advance = sum(_box(quads[i])[2] - _box(quads[i])[0] for i in sample) / characters if characters else 0.0
        pitch = float(np.median(np.diff([(row[1] + row[3]) / 2 for row in rows]))) if len(rows) > 1 else 0.0
        corners = np.array(boxes)
        blocks.append(
            TextBlock(
                box_px=(*map(float, corners[:, :2].min(axis=0)), *map(float, corners[:, 2:].max(axis=0))),  # type: ignore[arg-type]
                category="detected",
                lang=language_of(text),
                cell_px=math.sqrt(advance * pitch) if advance > 0 and pitch > 0 else None,
                lines=len(rows),
                turned=_mostly_upright(boxes),
            )
        )
    return tuple(sorted(blocks, key=lambda block: (block.box_px[1], block.box_px[0])))


def group_lines(quads: Sequence[Sequence[float]]) -> list[list[int]]:
    """Indices of lines that belong to one block, each block in the order of `quads`, blocks by their first line.

    Two lines are neighbours when their heights differ by less than half, and either one stands below the other within
    a line's height, as wide as it or flush with it on one side, or they stand in one row less than a height apart.
    """
    if not quads:
        return []
    left, top, right, bottom = np.array([_box(quad) for quad in quads]).T
    height = quad_heights(quads)
    width = right - left
    typical = np.minimum(height[:, None], height[None, :])
    alike = np.maximum(height[:, None], height[None, :]) < 1.5 * typical
    overlap_x = np.minimum(right[:, None], right[None, :]) - np.maximum(left[:, None], left[None, :])
    gap_y = np.maximum(top[:, None], top[None, :]) - np.minimum(bottom[:, None], bottom[None, :])
    as_wide = overlap_x > 0.6 * np.maximum(width[:, None], width[None, :])
    flush = (np.abs(left[:, None] - left[None, :]) < 1.5 * typical) | (
        np.abs(right[:, None] - right[None, :]) < 1.5 * typical
    )
    below = (gap_y < typical) & (gap_y > -0.5 * typical) & (as_wide | (flush & (overlap_x > 0)))
    one_row = (gap_y < -0.5 * typical) & (-overlap_x < typical)
    linked = alike & (below | one_row)
    return _components(linked)


def _components(linked: npt.NDArray[np.bool_]) -> list[list[int]]:
    """Connected components of a symmetric relation, by their smallest member."""
    unseen = set(range(len(linked)))
    components = []
    for first in range(len(linked)):
        if first not in unseen:
            continue
        unseen.discard(first)
        members, frontier = [first], [first]
        while frontier:
            near = [int(i) for i in np.flatnonzero(linked[frontier.pop()]) if int(i) in unseen]
            unseen.difference_update(near)
            members += near
            frontier += near
        components.append(sorted(members))
    return components


def _mostly_upright(boxes: Sequence[Box]) -> bool:
    """Whether most lines are higher than wide: text turned or set from top to bottom."""
    return sum(bottom - top > 1.5 * (right - left) for left, top, right, bottom in boxes) * 2 > len(boxes)
