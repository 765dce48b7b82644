"""Paragraphs into lines inside a box: greedy line filling over UAX #14 opportunities, alignment, justification.

Widths are exact integers: 1 / 2**26 px (font advances in 1 / 2**20 em times the size in 1 / 64 px). Baselines stand on
whole pixels, as all desktop text does.
"""

import math
from dataclasses import dataclass, field

import numpy as np
import numpy.typing as npt
from numba import njit

from render_engine.breaking import find_breaks
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
    glyph_count: int = 0
    line_count: int = 0

    def reserve(self, glyphs: int, lines: int) -> None:
        """Make room for so many more."""
        while self.glyph_count + glyphs > len(self.keys):
            self.keys = np.concatenate((self.keys, np.empty_like(self.keys)))
            self.pens = np.concatenate((self.pens, np.empty_like(self.pens)))
        while self.line_count + lines > len(self.lines):
            self.lines = np.concatenate((self.lines, np.empty_like(self.lines)))


def line_box(ascender: float, descender: float) -> tuple[float, float]:
    """Room of a line above and below its baseline in em.

    Faces for many scripts claim up to 1.5 em (Noto Sans CJK), which none of our text fills: what exceeds 1.2 em is
    shrunk in proportion.
    """
    shrink = min(1.0, 1.2 / (ascender - descender))
    return ascender * shrink, -descender * shrink


def lay_out_block(
    block: TextBlock,
    number: int,
    stack: FontStack,
    strikes: npt.NDArray[np.int64],
    size_26_6: int,
    whole_pixels: bool,
    scratch: LayoutScratch,
) -> None:
    """Append the lines of `block` that fit its box to `scratch`.

    strikes: (faces,) number of the strike of every face of the stack. whole_pixels: advances and pens on whole pixels
    (full hinting). Raises RenderError for characters that cannot be drawn.
    """
    try:
        codes = np.frombuffer(block.text.encode("utf-32-le"), np.uint32)
    except UnicodeEncodeError:
        raise RenderError("missing_glyph", "a lone surrogate is no character") from None
    if len(codes) == 0:
        return
    x0, y0, x1, y1 = block.box_px
    face = stack.faces[0].font
    above, below = line_box(face.ascender, face.descender)
    pitch = block.line_pitch_em * block.size_px
    # Half of what the pitch leaves stands above the first line, as in CSS.
    first_baseline = y0 + max(0.0, (pitch - (above + below) * block.size_px) / 2) + above * block.size_px
    room = y1 - below * block.size_px - first_baseline
    max_lines = min(math.floor(room / pitch + 1e-6) + 1, len(codes)) if room >= 0 else 0
    if max_lines <= 0:
        return
    starts, words, table = stack.words_of(block.text, codes)
    scratch.reserve(int(stack.word_count[words].sum()) + len(codes), max_lines)
    settings = np.array(
        [
            size_26_6,
            whole_pixels,
            round(block.letter_spacing_em * size_26_6 * (1 << EM_BITS)),
            round(block.first_line_indent_em * size_26_6 * (1 << EM_BITS)),
            round((x1 - x0) * PX),
            round(x0 * PX),
            ALIGNMENTS[block.align],
            max_lines,
            number,
            round(MAX_JUSTIFIED_GAP_EM * size_26_6 * (1 << EM_BITS)),
        ],
        np.int64,
    )
    breaks = np.empty(len(codes), np.uint8)
    find_breaks(codes, table, breaks)
    scratch.glyph_count, scratch.line_count = _fill_lines(
        codes,
        table,
        breaks,
        stack.single_glyph,
        stack.single_advance,
        starts,
        words,
        stack.word_first,
        stack.word_count,
        stack.word_glyphs,
        strikes,
        settings,
        first_baseline,
        pitch,
        scratch.keys,
        scratch.pens,
        scratch.lines,
        scratch.glyph_count,
        scratch.line_count,
    )


@njit(cache=True, nogil=True)
def _is_gap(
    codes: npt.NDArray[np.uint32],
    table: npt.NDArray[np.uint16],
    boundary: npt.NDArray[np.uint8],
    i: int,
    stop: int,
) -> int:
    """1 where justification may widen the line after character i: at a blank, on either side of a wide character."""
    if i + 1 >= stop or boundary[i + 1] == 0:
        return 0
    return 1 if codes[i] == 0x20 or (table[codes[i]] | table[codes[i + 1]]) & _EAST_ASIAN else 0


@njit(cache=True, nogil=True)
def _fill_lines(
    codes: npt.NDArray[np.uint32],
    table: npt.NDArray[np.uint16],
    breaks: npt.NDArray[np.uint8],
    single_glyph: npt.NDArray[np.int32],
    single_advance: npt.NDArray[np.int32],
    word_starts: npt.NDArray[np.int32],
    words: npt.NDArray[np.int32],
    word_first: npt.NDArray[np.int32],
    word_count: npt.NDArray[np.int32],
    word_glyphs: npt.NDArray[np.int32],
    strikes: npt.NDArray[np.int64],
    settings: npt.NDArray[np.int64],
    first_baseline: float,
    pitch: float,
    keys: npt.NDArray[np.int64],
    pens: npt.NDArray[np.int32],
    lines: npt.NDArray[np.int32],
    glyph_count: int,
    line_count: int,
) -> tuple[int, int]:
    """One block; see `lay_out_block`. Returns the new (glyph_count, line_count)."""
    n = len(codes)
    size = settings[0]
    whole_pixels = settings[1] != 0
    letter_spacing = settings[2]
    indent = settings[3]
    width = settings[4]
    left = settings[5]
    align = settings[6]
    max_lines = settings[7]
    block = settings[8]
    max_gap = settings[9]
    half = np.int64(1) << 25

    # Per character: advance, first glyph in word_glyphs (or -1 - reference of a single), glyphs, cluster start or not.
    advance = np.zeros(n, np.int64)
    source = np.zeros(n, np.int32)
    glyphs = np.zeros(n, np.int32)
    boundary = np.zeros(n, np.uint8)  # 1: a cluster starts here; 2: and the line may be broken before it
    word = 0
    i = 0
    while i < n:
        if word < len(words) and word_starts[word] == i:
            first = word_first[words[word]]
            last = first + word_count[words[word]]
            for g in range(first, last):
                at = i + word_glyphs[g, 1]
                if glyphs[at] == 0:
                    source[at] = g
                    boundary[at] = 1 if word_glyphs[g, 5] else 2
                glyphs[at] += 1
                step = word_glyphs[g, 2] * size
                if whole_pixels:
                    step = ((step + half) >> 26) << 26
                advance[at] += step
            boundary[i] = 2
            # The word reaches to the next single character after it.
            word += 1
            stop = word_starts[word] if word < len(words) else n
            i += 1
            while i < stop:
                code = codes[i]
                if code < 0x10000 and single_glyph[code] != -1:
                    break
                i += 1
            continue
        code = codes[i]
        reference = single_glyph[code]
        boundary[i] = 2
        if reference >= 0:
            source[i] = -1 - reference
            glyphs[i] = 1
            step = single_advance[code] * size
            if whole_pixels:
                step = ((step + half) >> 26) << 26
            advance[i] = step
        i += 1
    if letter_spacing != 0:
        for i in range(n):
            if glyphs[i] > 0:
                advance[i] += letter_spacing

    start = 0
    row = 0
    opens = True  # the next line opens a paragraph
    while start < n and row < max_lines:
        if codes[start] == 0x0A:
            if opens:
                row += 1  # an empty paragraph: an empty line
            opens = True
            start += 1
            continue
        room = width - (indent if opens else 0)
        pen = np.int64(0)
        end = -1  # where the next line starts
        opportunity = -1
        cluster = -1
        i = start
        while i < n and codes[i] != 0x0A:
            if i > start and boundary[i] != 0:
                cluster = i
                if breaks[i] != 0 and boundary[i] == 2:
                    opportunity = i
            blank = codes[i] == 0x20 or codes[i] == 0x3000
            # Blanks hang over the end of a line; so does the spacing after the last letter.
            if not blank and pen + advance[i] - letter_spacing > room:
                end = opportunity if opportunity > 0 else cluster
                break
            pen += advance[i]
            i += 1
        closes = (end == -1 and i == n) or (end == -1 and codes[i] == 0x0A)
        if closes:
            end = i
        if end <= start:
            break  # the box is narrower than one character: nothing more can be set
        stop = end
        while stop > start and (codes[stop - 1] == 0x20 or codes[stop - 1] == 0x3000):
            stop -= 1
        # Blanks at the head of a paragraph move the line but are no part of it.
        lead = start
        leading = np.int64(0)
        while lead < stop and (codes[lead] == 0x20 or codes[lead] == 0x3000):
            leading += advance[lead]
            lead += 1
        natural = np.int64(0)
        gaps = 0
        for i in range(lead, stop):
            natural += advance[i]
            gaps += _is_gap(codes, table, boundary, i, stop)
        if stop > lead:
            natural -= letter_spacing
        spare = room - leading - natural
        origin = left + leading + (indent if opens else 0)
        stretch = np.int64(0)
        if align == 1:
            origin += spare // 2
        elif align == 2:
            origin += spare
        elif align == 3 and not closes and gaps > 0 and 0 < spare <= max_gap * gaps:
            stretch = spare
        if whole_pixels or align == 0 or align == 3:
            origin = ((origin + half) >> 26) << 26
        baseline = math.floor(first_baseline + row * pitch + 0.5)
        first_glyph = glyph_count
        pen = origin
        gap = 0
        for i in range(lead, stop):
            if glyphs[i] > 0 and codes[i] != 0x20 and codes[i] != 0x3000:
                if source[i] < 0:
                    reference = -1 - source[i]
                    strike = strikes[reference >> 16]
                    # Chinese at whole sizes stands on whole pixels: one bitmap instead of four.
                    if whole_pixels or size & 63 == 0:
                        x = (pen + half) >> 26
                        phase = np.int64(0)
                    else:
                        quarter = (pen + (half >> 2)) >> 24
                        x = quarter >> 2
                        phase = quarter & 3
                    keys[glyph_count] = strike << 18 | np.int64(reference & 0xFFFF) << 2 | phase
                    pens[glyph_count, 0] = x
                    pens[glyph_count, 1] = baseline
                    pens[glyph_count, 2] = line_count
                    glyph_count += 1
                else:
                    inner = pen
                    for g in range(source[i], source[i] + glyphs[i]):
                        reference = word_glyphs[g, 0]
                        strike = strikes[reference >> 16]
                        at = inner + word_glyphs[g, 3] * size
                        if whole_pixels:
                            x = (at + half) >> 26
                            phase = np.int64(0)
                        else:
                            quarter = (at + (half >> 2)) >> 24
                            x = quarter >> 2
                            phase = quarter & 3
                        keys[glyph_count] = strike << 18 | np.int64(reference & 0xFFFF) << 2 | phase
                        pens[glyph_count, 0] = x
                        pens[glyph_count, 1] = baseline - ((word_glyphs[g, 4] * size + half) >> 26)
                        pens[glyph_count, 2] = line_count
                        glyph_count += 1
                        step = word_glyphs[g, 2] * size
                        if whole_pixels:
                            step = ((step + half) >> 26) << 26
                        inner += step
            pen += advance[i]
            if stretch > 0 and _is_gap(codes, table, boundary, i, stop):
                pen += stretch * (gap + 1) // gaps - stretch * gap // gaps
                gap += 1
        if whole_pixels and stretch > 0:
            pen = ((pen + half) >> 26) << 26
        if glyph_count > first_glyph:
            lines[line_count, 0] = lead
            lines[line_count, 1] = stop
            lines[line_count, 2] = origin >> 20
            lines[line_count, 3] = (pen - letter_spacing) >> 20
            lines[line_count, 4] = baseline
            lines[line_count, 5] = first_glyph
            lines[line_count, 6] = glyph_count
            lines[line_count, 7] = block
            line_count += 1
        row += 1
        opens = closes
        start = end
        if closes and start < n:
            start += 1  # the line feed
            opens = True
    return glyph_count, line_count
