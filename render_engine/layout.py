"""Paragraphs into lines inside a box: greedy line filling over UAX #14 opportunities, alignment, justification.

Widths are exact integers: 1 / 2**26 px (font advances in 1 / 2**20 em times the size in 1 / 64 px). Baselines stand on
whole pixels, as all desktop text does.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np
import numpy.typing as npt
from numba import njit

from render_engine.breaking import break_properties, find_breaks
from render_engine.face import EM_BITS
from render_engine.shape import FontStack
from render_engine.spec import RenderError, TextBlock

PX = 1 << (EM_BITS + 6)
"""One pixel in layout units."""
ALIGNMENTS = {"start": 0, "center": 1, "end": 2, "justify": 3}
MAX_JUSTIFIED_GAP_EM = 1.0
"""A line whose gaps would grow by more is left as it is: rivers look worse than a ragged edge."""

# Flags of break_properties; repeated because a compiled function freezes what it takes from another file.
_EAST_ASIAN = 0x40

# Flags of `LayoutScratch.characters`
CLUSTER = 1  # a cluster begins here
OPPORTUNITY = 2  # and the line may be broken before it
BLANK = 4
SPACE = 8  # U+0020
FEED = 16  # a line feed
WIDE = 32  # as wide as high, or half of it: Chinese, Japanese, Korean
GLYPHS_SHIFT = 8
ONE_GLYPH = 1 << GLYPHS_SHIFT

# Rows of `LayoutScratch.lines`
START, END, X0, X1, BASELINE, FIRST_GLYPH, LAST_GLYPH, BLOCK = range(8)


@dataclass(slots=True)
class LayoutScratch:
    """Glyphs and lines of the page being laid out; grows when needed, reused from page to page."""

    keys: npt.NDArray[np.int64] = field(default_factory=lambda: np.empty(4096, np.int64))
    """(glyphs,) atlas key of each glyph: `strike << 18 | glyph << 2 | phase`."""
    pens: npt.NDArray[np.int32] = field(default_factory=lambda: np.empty((4096, 3), np.int32))
    """(glyphs, 3) whole pixels x and y of the pen, number of the line."""
    lines: npt.NDArray[np.int32] = field(default_factory=lambda: np.empty((256, 8), np.int32))
    """(lines, 8) first and last character of the block's text, x0 and x1 of the pen in 1/64 px, baseline in px, first
    and last glyph, number of the block."""
    measured: npt.NDArray[np.int64] = field(default_factory=lambda: np.empty((4096, 3), np.int64))
    """(glyphs, 3) what `_measure` found, in no order: key without phase, x from the pen of its character, and y up in
    px twice, odd when it stands on whole pixels."""
    characters: npt.NDArray[np.int64] = field(default_factory=lambda: np.empty((4096, 3), np.int64))
    """(characters, 3) of all blocks: advance, first glyph in `measured`, glyphs << 8 | flags."""
    glyph_count: int = 0
    line_count: int = 0

    def reserve(self, glyphs: int, characters: int, lines: int) -> None:
        """Make room for a page of so many."""
        if glyphs > len(self.keys):
            self.keys = np.empty(2 * glyphs, np.int64)
            self.pens = np.empty((2 * glyphs, 3), np.int32)
            self.measured = np.empty((2 * glyphs, 3), np.int64)
        if characters > len(self.characters):
            self.characters = np.empty((2 * characters, 3), np.int64)
        if lines > len(self.lines):
            self.lines = np.empty((2 * lines, 8), np.int32)


def line_box(ascender: float, descender: float) -> tuple[float, float]:
    """Room of a line above and below its baseline in em.

    Faces for many scripts claim up to 1.5 em (Noto Sans CJK), which none of our text fills: what exceeds 1.2 em is
    shrunk in proportion.
    """
    shrink = min(1.0, 1.2 / (ascender - descender))
    return ascender * shrink, -descender * shrink


def lay_out_blocks(
    blocks: Sequence[TextBlock],
    stacks: Sequence[FontStack],
    strikes: Sequence[Sequence[int]],
    whole_pixels: bool,
    scratch: LayoutScratch,
) -> None:
    """The lines of all blocks that fit their boxes, into `scratch`.

    stacks, strikes: of every block its faces, and the number of the strike of each of them. whole_pixels: advances and
    pens on whole pixels (full hinting). Raises RenderError for characters that cannot be drawn.
    """
    scratch.glyph_count = scratch.line_count = 0
    settings, heights, texts = [], [], []
    parts: dict[int, list[tuple[int, int, int, int, int]]] = {}  # by stack: first, last character, size, spacing, block
    n = 0
    for number, block in enumerate(blocks):
        size_26_6 = size_of(block)
        x0, y0, x1, y1 = block.box_px
        face = stacks[number].faces[0].font
        above, below = line_box(face.ascender, face.descender)
        pitch = block.line_pitch_em * block.size_px
        # Half of what the pitch leaves stands above the first line, as in CSS.
        first_baseline = y0 + max(0.0, (pitch - (above + below) * block.size_px) / 2) + above * block.size_px
        room = y1 - below * block.size_px - first_baseline
        length = len(block.text)
        max_lines = min(math.floor(room / pitch + 1e-6) + 1, length) if room >= 0 else 0
        if max_lines <= 0:
            continue
        em = size_26_6 << EM_BITS
        spacing = round(block.letter_spacing_em * em)
        settings.append(
            (
                *(n, n + length, size_26_6, whole_pixels, spacing, round(block.first_line_indent_em * em)),
                *(round((x1 - x0) * PX), round(x0 * PX), ALIGNMENTS[block.align], max_lines, number),
                round(MAX_JUSTIFIED_GAP_EM * em),
            )
        )
        heights.append((first_baseline, pitch))
        texts.append(block.text)
        parts.setdefault(id(stacks[number]), []).append((n, n + length, size_26_6, spacing, number))
        n += length + 1
    if not settings:
        return
    text = "\n".join(texts)
    try:
        codes = np.frombuffer(text.encode("utf-32-le"), np.uint32)
    except UnicodeEncodeError:
        raise RenderError("missing_glyph", "a lone surrogate is no character") from None
    table = break_properties(codes)
    breaks = np.empty(n - 1, np.uint8)
    find_breaks(codes, table, breaks)
    measured = 0
    found = []
    for own in parts.values():
        stack = stacks[own[0][4]]
        ranges = np.array(own, np.int32)
        starts, ends, words = stack.words_of(text, codes, ranges)
        found.append((stack, ranges, np.array([strikes[part[4]] for part in own], np.int64), starts, ends, words))
        measured += int((stack.word_first[words + 1] - stack.word_first[words]).sum())
    scratch.reserve(measured + n, n, sum(one[9] for one in settings))
    count = 0
    for stack, ranges, own_strikes, starts, ends, words in found:
        count = _measure(
            codes,
            table,
            breaks,
            ranges,
            own_strikes,
            whole_pixels,
            stack.singles,
            starts,
            ends,
            words,
            stack.word_first,
            stack.word_glyphs,
            scratch.measured,
            scratch.characters,
            count,
        )
    scratch.glyph_count, scratch.line_count = _fill_lines(
        np.array(settings, np.int64),
        np.array(heights),
        scratch.characters,
        scratch.measured,
        scratch.keys,
        scratch.pens,
        scratch.lines,
    )


def size_of(block: TextBlock) -> int:
    """The em of a block in 1/64 px, FreeType's own unit."""
    return round(block.size_px * 64)


@njit(cache=True, nogil=True)
def _measure(
    codes: npt.NDArray[np.uint32],
    table: npt.NDArray[np.uint16],
    breaks: npt.NDArray[np.uint8],
    ranges: npt.NDArray[np.int32],
    strikes: npt.NDArray[np.int64],
    whole_pixels: bool,
    singles: npt.NDArray[np.int32],
    starts: npt.NDArray[np.int32],
    ends: npt.NDArray[np.int32],
    words: npt.NDArray[np.int32],
    word_first: npt.NDArray[np.int32],
    word_glyphs: npt.NDArray[np.int32],
    measured: npt.NDArray[np.int64],
    characters: npt.NDArray[np.int64],
    count: int,
) -> int:
    """Glyphs and advances of every character of the parts that one stack sets; see `LayoutScratch`.

    ranges: (parts, 5) first and last character, size in 1/64 px, letter spacing, block. count: glyphs measured so far.
    Returns their number.
    """
    half = np.int64(1) << 25
    word = 0
    for part in range(len(ranges)):
        last = ranges[part, 1]
        size = np.int64(ranges[part, 2])
        spacing = np.int64(ranges[part, 3])
        on_whole = whole_pixels or size & 63 == 0
        i = ranges[part, 0]
        while i < last:
            if word < len(words) and starts[word] == i:
                end = ends[word]
                row = word_first[words[word]]
                row_end = word_first[words[word] + 1]
                for at in range(i, end):
                    characters[at, 0] = 0
                    characters[at, 2] = 0
                inner = np.int64(0)
                owner = np.int64(-1)
                while row < row_end:
                    if i + word_glyphs[row, 1] != owner:
                        owner = i + word_glyphs[row, 1]
                        characters[owner, 0] = spacing
                        characters[owner, 1] = count
                        characters[owner, 2] = CLUSTER
                        if word_glyphs[row, 5] == 0 and breaks[owner] != 0:
                            characters[owner, 2] = CLUSTER | OPPORTUNITY
                        inner = np.int64(0)
                    reference = word_glyphs[row, 0]
                    measured[count, 0] = strikes[part, reference >> 16] << 18 | np.int64(reference & 0xFFFF) << 2
                    measured[count, 1] = inner + word_glyphs[row, 3] * size
                    measured[count, 2] = ((word_glyphs[row, 4] * size + half) >> 26) << 1 | whole_pixels
                    step = word_glyphs[row, 2] * size
                    if whole_pixels:
                        step = ((step + half) >> 26) << 26
                    inner += step
                    characters[owner, 0] += step
                    characters[owner, 2] += ONE_GLYPH
                    count += 1
                    row += 1
                characters[i, 2] |= CLUSTER
                if breaks[i] != 0:
                    characters[i, 2] |= OPPORTUNITY
                while i < end:
                    characters[i, 2] |= _kind(codes[i], table)
                    i += 1
                word += 1
                continue
            code = codes[i]
            flags = CLUSTER | _kind(code, table)
            if breaks[i] != 0:
                flags |= OPPORTUNITY
            reference = singles[code, 0]
            characters[i, 0] = 0
            if reference >= 0:
                step = singles[code, 1] * size
                if whole_pixels:
                    step = ((step + half) >> 26) << 26
                characters[i, 0] = step + spacing
                if flags & BLANK == 0:
                    characters[i, 1] = count
                    measured[count, 0] = strikes[part, reference >> 16] << 18 | np.int64(reference & 0xFFFF) << 2
                    measured[count, 1] = 0
                    # Chinese at whole sizes stands on whole pixels: one bitmap instead of four.
                    measured[count, 2] = on_whole
                    flags += ONE_GLYPH
                    count += 1
            characters[i, 2] = flags
            i += 1
    return count


@njit(cache=True, nogil=True)
def _kind(code: int, table: npt.NDArray[np.uint16]) -> int:
    """The flags of a character that depend on nothing else."""
    kind = WIDE if table[code] & _EAST_ASIAN else 0
    if code == 0x20:
        kind |= BLANK | SPACE
    elif code == 0x3000:
        kind |= BLANK
    elif code == 0x0A:
        kind |= FEED
    return kind


@njit(cache=True, nogil=True)
def _is_gap(here: int, following: int) -> bool:
    """Whether justification may widen the line between two characters: at a blank, on either side of a wide one."""
    return following & CLUSTER != 0 and (here & SPACE != 0 or (here | following) & WIDE != 0)


@njit(cache=True, nogil=True)
def _fill_lines(
    settings: npt.NDArray[np.int64],
    heights: npt.NDArray[np.float64],
    characters: npt.NDArray[np.int64],
    measured: npt.NDArray[np.int64],
    keys: npt.NDArray[np.int64],
    pens: npt.NDArray[np.int32],
    lines: npt.NDArray[np.int32],
) -> tuple[int, int]:
    """The lines of all blocks; see `lay_out_blocks`. Returns (glyphs, lines)."""
    half = np.int64(1) << 25
    glyph_count = line_count = 0
    for b in range(len(settings)):
        first, last, _, whole, spacing, indent, width, left, align, max_lines, block, max_gap = settings[b]
        whole_pixels = whole != 0
        start = first
        row = 0
        opens = True  # the next line opens a paragraph
        while start < last and row < max_lines:
            if characters[start, 2] & FEED:
                if opens:
                    row += 1  # an empty paragraph: an empty line
                opens = True
                start += 1
                continue
            room = width - (indent if opens else 0)
            pen = np.int64(0)
            # Where the line ends without its last blanks, as far as it is set; and at the last place for a break.
            stop, solid = start, np.int64(0)
            end, end_stop, end_solid = np.int64(-1), start, np.int64(0)
            certain = False
            closes = True
            lead, leading = np.int64(-1), np.int64(0)
            i = start
            while i < last:
                flags = characters[i, 2]
                if flags & (CLUSTER | FEED):
                    if flags & FEED:
                        break
                    if i > start and (flags & OPPORTUNITY or not certain):
                        # Anywhere between two clusters when the line has no better place.
                        certain = certain or flags & OPPORTUNITY != 0
                        end, end_stop, end_solid = i, stop, solid
                advance = characters[i, 0]
                # Blanks hang over the end of a line; so does the spacing after the last letter.
                if flags & BLANK:
                    pen += advance
                    i += 1
                    continue
                if pen + advance - spacing > room:
                    closes = False
                    break
                if lead < 0:
                    lead, leading = i, pen
                pen += advance
                i += 1
                stop, solid = i, pen
            if closes:
                end, end_stop, end_solid = i, stop, solid
            if end <= start:
                break  # the box is narrower than one character: nothing more can be set
            # Blanks at the head of a paragraph move the line but are no part of it.
            if lead < 0 or lead >= end_stop:
                lead, leading = end_stop, end_solid
            natural = end_solid - leading - (spacing if end_stop > lead else 0)
            spare = room - leading - natural
            origin = left + leading + (indent if opens else 0)
            stretch = gaps = np.int64(0)
            if align == 1:
                origin += spare // 2
            elif align == 2:
                origin += spare
            elif align == 3 and not closes and spare > 0:
                for i in range(lead, end_stop - 1):
                    gaps += _is_gap(characters[i, 2], characters[i + 1, 2])
                if spare <= max_gap * gaps:
                    stretch = spare
            if whole_pixels or align == 0 or align == 3:
                origin = ((origin + half) >> 26) << 26
            baseline = math.floor(heights[b, 0] + row * heights[b, 1] + 0.5)
            first_glyph = glyph_count
            pen = origin
            gap = 0
            for i in range(lead, end_stop):
                flags = characters[i, 2]
                if flags & BLANK == 0:
                    glyph = characters[i, 1]
                    for g in range(glyph, glyph + (flags >> GLYPHS_SHIFT)):
                        x = pen + measured[g, 1]
                        if measured[g, 2] & 1:
                            x = (x + half) >> 26
                            phase = np.int64(0)
                        else:
                            quarter = (x + (half >> 2)) >> 24
                            x = quarter >> 2
                            phase = quarter & 3
                        keys[glyph_count] = measured[g, 0] | phase
                        pens[glyph_count, 0] = x
                        pens[glyph_count, 1] = baseline - (measured[g, 2] >> 1)
                        pens[glyph_count, 2] = line_count
                        glyph_count += 1
                pen += characters[i, 0]
                if stretch > 0 and i + 1 < end_stop and _is_gap(flags, characters[i + 1, 2]):
                    pen += stretch * (gap + 1) // gaps - stretch * gap // gaps
                    gap += 1
            if whole_pixels and stretch > 0:
                pen = ((pen + half) >> 26) << 26
            if glyph_count > first_glyph:
                lines[line_count, 0] = lead - first
                lines[line_count, 1] = end_stop - first
                lines[line_count, 2] = origin >> 20
                lines[line_count, 3] = (pen - spacing) >> 20
                lines[line_count, 4] = baseline
                lines[line_count, 5] = first_glyph
                lines[line_count, 6] = glyph_count
                lines[line_count, 7] = block
                line_count += 1
            row += 1
            opens = closes
            start = end
            if closes and start < last:
                start += 1  # the line feed
                opens = True
    return glyph_count, line_count
