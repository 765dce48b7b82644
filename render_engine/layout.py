"""Blocks of text into the lines that fit their boxes: what Python has to say before `typeset` runs over a page."""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

import numpy as np
import numpy.typing as npt

from render_engine.breaking import break_properties, find_breaks, find_hyphens, known_properties
from render_engine.face import EM_BITS
from render_engine.shape import FontStack
from render_engine.singles import singles
from render_engine.spec import RenderError, TextBlock
from render_engine.typeset import (
    CENTER,
    END,
    JUSTIFY,
    MAX_LINES,
    START,
    WHOLE_PIXELS,
    fill_lines,
    measure,
    squeeze_and_space,
)

PX = 1 << (EM_BITS + 6)
"""One pixel in layout units."""
ALIGNMENTS = {"start": START, "center": CENTER, "end": END, "justify": JUSTIFY}
MAX_JUSTIFIED_GAP_EM = 1.0
"""A line whose gaps would grow by more is left as it is: rivers look worse than a ragged edge."""
HYPHEN_ZONE_EM = 1.5
"""A word is divided only where the line would lack more than this without it."""
NO_HYPHENS = np.empty(0, np.uint8)

StackOf = Callable[[tuple[str, ...], str], FontStack]
"""Faces by their ids, and language -> the stack."""
StrikesOf = Callable[[FontStack, int], list[int]]
"""Number of the strike of every face of a stack at a size in 1/64 px."""


@dataclass(slots=True)
class LayoutScratch:
    """Glyphs and lines of the page being laid out; grows when needed, reused from page to page."""

    keys: npt.NDArray[np.int64] = field(default_factory=lambda: np.empty(4096, np.int64))
    """(glyphs,) atlas key of each glyph: `strike << 18 | glyph << 2 | phase`."""
    pens: npt.NDArray[np.int32] = field(default_factory=lambda: np.empty((4096, 3), np.int32))
    """(glyphs, 3) whole pixels x and y of the pen, number of the line."""
    lines: npt.NDArray[np.int32] = field(default_factory=lambda: np.empty((256, 9), np.int32))
    """(lines, 9) first and last character of the block's text, x0 and x1 of the pen in 1/64 px, baseline in px, first
    and last glyph, number of the block, 1 when a hyphen was added."""
    measured: npt.NDArray[np.int64] = field(default_factory=lambda: np.empty((4096, 3), np.int64))
    """(glyphs, 3) in no order: key without phase, x from the pen of its character, and y up in px twice, odd when it
    stands on whole pixels."""
    characters: npt.NDArray[np.int64] = field(default_factory=lambda: np.empty((4096, 5), np.int64))
    """(characters, 5) of all blocks; see `typeset`."""
    found: npt.NDArray[np.int32] = field(default_factory=lambda: np.empty(0, np.int32))
    """(glyphs,) row of `Atlas.entries` of each glyph."""
    glyph_count: int = 0
    line_count: int = 0

    def reserve(self, glyphs: int, characters: int, lines: int) -> None:
        """Make room for a page of so many."""
        if glyphs > len(self.keys):
            self.keys = np.empty(2 * glyphs, np.int64)
            self.pens = np.empty((2 * glyphs, 3), np.int32)
            self.measured = np.empty((2 * glyphs, 3), np.int64)
        if characters > len(self.characters):
            self.characters = np.empty((2 * characters, 5), np.int64)
        if lines > len(self.lines):
            self.lines = np.empty((2 * lines, 9), np.int32)


def line_box(ascender: float, descender: float) -> tuple[float, float]:
    """Room of a line above and below its baseline in em.

    Faces for many scripts claim up to 1.5 em (Noto Sans CJK), which none of our text fills: what exceeds 1.2 em is
    shrunk in proportion.
    """
    shrink = min(1.0, 1.2 / (ascender - descender))
    return ascender * shrink, -descender * shrink


@dataclass(slots=True)
class _Parts:
    """All that one stack sets on a page."""

    stack: FontStack
    ranges: list[tuple[int, int, int, int, int, int]] = field(default_factory=list)
    """See `typeset.measure`."""
    strikes: list[list[int]] = field(default_factory=list)


def lay_out_blocks(
    blocks: Sequence[TextBlock], stack_of: StackOf, strikes_of: StrikesOf, whole_pixels: bool, scratch: LayoutScratch
) -> None:
    """The lines of all blocks that fit their boxes, into `scratch`.

    whole_pixels: advances and pens on whole pixels (hinted text). Raises RenderError for characters that cannot be
    drawn.
    """
    scratch.glyph_count = scratch.line_count = 0
    settings: list[tuple[int, ...]] = []
    heights, texts = [], []
    hyphens: list[int] = []
    parts: dict[int, _Parts] = {}
    n = 0
    for number, block in enumerate(blocks):
        stack = stack_of(block.face_ids, block.lang)
        first_baseline, pitch, max_lines = _baselines(block, stack)
        if max_lines <= 0:
            continue
        size_26_6 = round(block.size_px * 64)
        em = size_26_6 << EM_BITS
        spacing = round(block.letter_spacing_em * em)
        hyphen = (0, 0)
        if block.hyphenate or "\u00ad" in block.text:
            reference, advance = stack.hyphen
            strike = strikes_of(stack, size_26_6)[reference >> 16]
            hyphen = (strike << 18 | (reference & 0xFFFF) << 2, _on_grid(advance * size_26_6, whole_pixels))
        settings.append(
            (
                *(n, n + len(block.text), size_26_6, whole_pixels, spacing, round(block.first_line_indent_em * em)),
                *(round((block.box_px[2] - block.box_px[0]) * PX), round(block.box_px[0] * PX)),
                *(ALIGNMENTS[block.align], max_lines, number, round(MAX_JUSTIFIED_GAP_EM * em)),
                *(_on_grid(round(block.autospace_em * em), whole_pixels), *hyphen, round(HYPHEN_ZONE_EM * em)),
            )
        )
        heights.append((first_baseline, pitch))
        if block.hyphenate:
            hyphens += [n + at for at in find_hyphens(block.text)]
        for first, last, face_ids in _runs(block):
            own = stack if face_ids == block.face_ids else stack_of(face_ids, block.lang)
            part = parts.setdefault(id(own), _Parts(own))
            part.ranges.append((n + first, n + last, number, size_26_6, spacing, block.squeeze))
            part.strikes.append(strikes_of(own, size_26_6))
        texts.append(block.text)
        n += len(block.text) + 1
    if settings:
        spaced = [block for block in blocks if block.squeeze or block.autospace_em]
        _typeset("\n".join(texts), settings, heights, list(parts.values()), bool(spaced), hyphens, scratch)


def _typeset(
    text: str,
    settings: list[tuple[int, ...]],
    heights: list[tuple[float, float]],
    parts: list[_Parts],
    spaced: bool,
    hyphens: list[int],
    scratch: LayoutScratch,
) -> None:
    """The compiled passes over the texts of all blocks, joined by line feeds. hyphens: where words may be divided."""
    try:
        codes = np.frombuffer(text.encode("utf-32-le"), np.uint32)
    except UnicodeEncodeError:
        raise RenderError("missing_glyph", "a lone surrogate is no character") from None
    table = known_properties()
    breaks = np.empty(len(codes), np.uint8)
    if not find_breaks(codes, table, breaks):
        find_breaks(codes, break_properties(codes), breaks)
    divisible = NO_HYPHENS
    if hyphens:
        divisible = np.zeros(len(codes), np.uint8)
        divisible[hyphens] = 1
    blocks = np.array(settings, np.int64)
    found = []
    glyphs = 0
    for part in parts:
        ranges = np.array(part.ranges, np.int32)
        starts, ends, words = part.stack.words_of(text, codes, ranges, table)
        first = part.stack.word_first
        glyphs += int((first[words + 1] - first[words]).sum())
        found.append((ranges, np.array(part.strikes, np.int64), starts, ends, words))
    # A hyphen for every line.
    lines = int(blocks[:, MAX_LINES].sum())
    scratch.reserve(glyphs + len(codes) + lines, len(codes), lines)
    whole_pixels = bool(blocks[0, WHOLE_PIXELS])
    count, row_of = 0, singles().row_of
    for part, (ranges, strikes, *words_found) in zip(parts, found, strict=True):
        stack = part.stack
        count = measure(
            *(codes, table, breaks, divisible, ranges, strikes, whole_pixels, row_of, stack.singles, *words_found),
            *(stack.word_first, stack.word_glyphs, stack.offsets, scratch.measured, scratch.characters, count),
        )
    if spaced:
        squeeze_and_space(blocks, scratch.characters, scratch.measured)
    scratch.glyph_count, scratch.line_count = fill_lines(
        *(blocks, np.array(heights), scratch.characters, scratch.measured, scratch.keys, scratch.pens, scratch.lines)
    )


def _baselines(block: TextBlock, stack: FontStack) -> tuple[float, float, int]:
    """First baseline and distance of two in px, and how many lines the box holds."""
    _, y0, _, y1 = block.box_px
    face = stack.faces[0].font
    above, below = line_box(face.ascender, face.descender)
    pitch = block.line_pitch_em * block.size_px
    # Half of what the pitch leaves stands above the first line, as in CSS.
    first_baseline = y0 + max(0.0, (pitch - (above + below) * block.size_px) / 2) + above * block.size_px
    room = y1 - below * block.size_px - first_baseline
    # A line has at least one character.
    fits = min(math.floor(room / pitch + 1e-6) + 1, len(block.text)) if room >= 0 else 0
    return first_baseline, pitch, fits


def _runs(block: TextBlock) -> list[tuple[int, int, tuple[str, ...]]]:
    """(first, last, faces) of the parts of a block's text, in order and without a hole."""
    runs = []
    at = 0
    for run in block.runs:
        runs += [(at, run.start, block.face_ids), (run.start, run.end, run.face_ids)]
        at = run.end
    runs.append((at, len(block.text), block.face_ids))
    return [run for run in runs if run[1] > run[0]]


def _on_grid(length: int, whole_pixels: bool) -> int:
    """A length in layout units, on whole pixels where those are asked for."""
    return round(length / PX) * PX if whole_pixels else length


def line_text(block: TextBlock, first: int, last: int, divided: bool) -> str:
    """What a line shows of its block: soft hyphens only where they are drawn, at its end."""
    text = block.text[first:last].replace("\u00ad", "")
    return text + "-" if divided else text
