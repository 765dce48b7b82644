"""Glyphs and lines of a page in compiled passes: measure every character, squeeze and space, fill the lines.

Greedy filling over UAX #14 opportunities. Widths are exact integers: 1 / 2**26 px (font advances in 1 / 2**20 em times
the size in 1 / 64 px). Baselines stand on whole pixels, as all desktop text does.
"""

import math

import numpy as np
import numpy.typing as npt
from numba import njit

# Rows of `characters`, (n, 5) int64: ADVANCE, first glyph in `measured`, FLAGS with the number of glyphs above them,
# HEAD: blank that goes when the character begins a line, TAIL: blank that goes, or may go, when it ends one.
ADVANCE, FIRST_GLYPH, FLAGS, HEAD, TAIL = range(5)

CLUSTER = 1  # a cluster begins here
OPPORTUNITY = 2  # and the line may be broken before it
DIVIDES = 4  # and its word may be divided before it, with a hyphen
BLANK = 8
SPACE = 16  # U+0020
FEED = 32  # a line feed
WIDE = 64  # East_Asian_Width F, W or H
HAN = 128
NARROW = 256  # a letter or digit that is not wide
MARK = 512  # a full-width mark that can be squeezed
SPACED = 1024  # its TAIL is the space between Chinese and Latin: gone at the end of any line
NO_START = 2048  # no line begins with it, even where none of its places for a break is in reach
NO_END = 4096  # and no line ends with it
GLYPHS_SHIFT = 16
ONE_GLYPH = 1 << GLYPHS_SHIFT

# Columns of `blocks`, (blocks, 16) int64
(
    FIRST, LAST, SIZE, WHOLE_PIXELS, SPACING, INDENT, WIDTH, LEFT, ALIGN, MAX_LINES, NUMBER, MAX_GAP, AUTOSPACE,
    HYPHEN, HYPHEN_ADVANCE, HYPHEN_ZONE,
) = range(16)  # fmt: skip
START, CENTER, END, JUSTIFY = range(4)
BLANK_STRETCH = 3
MAX_HYPHENS = 2
"""Lines in a row that may end with a hyphen."""

# Of break_properties; repeated because a compiled function freezes what it takes from another file.
_CLASS_MASK, _EAST_ASIAN = 0x3F, 0x40
_CL, _CP, _EX, _NS, _OP, _IS = 17, 18, 19, 21, 22, 24


@njit(cache=True, nogil=True)
def _kind(code: int, table: npt.NDArray[np.uint16]) -> int:
    """The flags of a character that depend on nothing else."""
    if code == 0x20:
        return BLANK | SPACE
    if code == 0x0A:
        return FEED
    if table[code] & _EAST_ASIAN:
        if code == 0x3000:
            return BLANK | WIDE
        han = 0x3400 <= code <= 0x9FFF or 0x20000 <= code <= 0x323AF
        return WIDE | HAN if han else WIDE | _edges(table[code])
    if 0x30 <= code <= 0x39 or 0x41 <= code <= 0x5A or 0x61 <= code <= 0x7A:
        return NARROW
    if code < 0xC0:
        return _edges(table[code])
    return NARROW if 0xC0 <= code < 0x250 and code != 0xD7 and code != 0xF7 else 0


@njit(cache=True, nogil=True)
def _edges(properties: int) -> int:
    kind = properties & _CLASS_MASK
    if kind == _OP:
        return NO_END
    return NO_START if kind in (_CL, _CP, _EX, _NS, _IS) else 0


@njit(cache=True, nogil=True)
def measure(
    codes: npt.NDArray[np.uint32],
    table: npt.NDArray[np.uint16],
    breaks: npt.NDArray[np.uint8],
    hyphens: npt.NDArray[np.uint8],
    ranges: npt.NDArray[np.int32],
    strikes: npt.NDArray[np.int64],
    whole_pixels: bool,
    row_of: npt.NDArray[np.uint16],
    singles: npt.NDArray[np.int32],
    starts: npt.NDArray[np.int32],
    ends: npt.NDArray[np.int32],
    words: npt.NDArray[np.int32],
    word_first: npt.NDArray[np.int32],
    word_glyphs: npt.NDArray[np.int32],
    offsets: npt.NDArray[np.int32],
    measured: npt.NDArray[np.int64],
    characters: npt.NDArray[np.int64],
    count: int,
) -> int:
    """Glyphs and advances of every character of the parts that one stack sets, into `measured` and `characters`.

    hyphens: (n,) 1 where a word may be divided, or (0,). ranges: (parts, 6) first and last character, block, size in
    1/64 px, letter spacing, whether marks are squeezed. strikes: (parts, faces). starts, ends, words: those of the
    stack in the text; row_of and the tables between: see `shape.FontStack`. count: glyphs measured so far. Returns
    their number.
    """
    half = np.int64(1) << 25
    word = 0
    for part in range(len(ranges)):
        last = ranges[part, 1]
        size = np.int64(ranges[part, 3])
        spacing = np.int64(ranges[part, 4])
        squeezed = ranges[part, 5] != 0
        on_whole = whole_pixels or size & 63 == 0
        i = ranges[part, 0]
        while i < last:
            if word < len(words) and starts[word] == i:
                end = ends[word]
                row = word_first[words[word]]
                row_end = word_first[words[word] + 1]
                for at in range(i, end):
                    characters[at, ADVANCE] = characters[at, FLAGS] = 0
                inner = np.int64(0)
                owner = np.int64(-1)
                while row < row_end:
                    cluster = i + (word_glyphs[row, 1] >> 1)
                    if cluster != owner:
                        owner = cluster
                        characters[owner, ADVANCE] = spacing
                        characters[owner, FIRST_GLYPH] = count
                        flags = CLUSTER
                        if word_glyphs[row, 1] & 1 == 0:
                            # Behind a soft hyphen the line is broken with a hyphen.
                            soft = owner > 0 and codes[owner - 1] == 0xAD
                            if (breaks[owner] != 0 and soft) or (len(hyphens) > 0 and hyphens[owner] != 0):
                                flags |= DIVIDES
                            elif breaks[owner] != 0:
                                flags |= OPPORTUNITY
                        characters[owner, FLAGS] = flags
                        inner = np.int64(0)
                    reference = word_glyphs[row, 0]
                    measured[count, 0] = strikes[part, reference >> 16] << 18 | np.int64(reference & 0xFFFF) << 2
                    measured[count, 1] = inner
                    measured[count, 2] = whole_pixels
                    moved = word_glyphs[row, 3]
                    if moved != 0:
                        measured[count, 1] += offsets[moved, 0] * size
                        measured[count, 2] |= ((offsets[moved, 1] * size + half) >> 26) << 1
                    step = word_glyphs[row, 2] * size
                    if whole_pixels:
                        step = ((step + half) >> 26) << 26
                    inner += step
                    characters[owner, ADVANCE] += step
                    characters[owner, FLAGS] += ONE_GLYPH
                    count += 1
                    row += 1
                characters[i, FLAGS] |= CLUSTER
                if breaks[i] != 0:
                    characters[i, FLAGS] |= OPPORTUNITY
                while i < end:
                    characters[i, FLAGS] |= _kind(codes[i], table)
                    code = codes[i]
                    single = row_of[code] if code < 0x10000 else np.uint16(0)
                    _squeezable(characters, singles, i, single, size, spacing, squeezed, whole_pixels)
                    i += 1
                word += 1
                continue
            code = codes[i]
            flags = CLUSTER | _kind(code, table)
            if breaks[i] != 0:
                flags |= OPPORTUNITY
            single = row_of[code]
            reference = singles[single, 0]
            characters[i, ADVANCE] = 0
            if reference >= 0:
                step = singles[single, 1] * size
                if whole_pixels:
                    step = ((step + half) >> 26) << 26
                characters[i, ADVANCE] = step + spacing
                if flags & BLANK == 0:
                    characters[i, FIRST_GLYPH] = count
                    measured[count, 0] = strikes[part, reference >> 16] << 18 | np.int64(reference & 0xFFFF) << 2
                    measured[count, 1] = 0
                    # Chinese at whole sizes stands on whole pixels: one bitmap instead of four.
                    measured[count, 2] = on_whole
                    flags += ONE_GLYPH
                    count += 1
            characters[i, FLAGS] = flags
            _squeezable(characters, singles, i, single, size, spacing, squeezed, whole_pixels)
            i += 1
    return count


@njit(cache=True, nogil=True)
def _squeezable(
    characters: npt.NDArray[np.int64],
    singles: npt.NDArray[np.int32],
    i: int,
    single: int,
    size: int,
    spacing: int,
    squeezed: bool,
    whole_pixels: bool,
) -> None:
    """HEAD and TAIL of a character as it stands alone: what a full-width mark can lose."""
    characters[i, HEAD] = characters[i, TAIL] = 0
    if not squeezed or singles[single, 2] + singles[single, 3] == 0:
        return
    if characters[i, ADVANCE] - spacing < size * (9 << 20) // 10:
        return  # its narrow form, in an English word
    for side in (HEAD, TAIL):
        blank = np.int64(singles[single, side - HEAD + 2]) * size
        if whole_pixels:
            blank = (blank >> 26) << 26
        characters[i, side] = blank
    characters[i, FLAGS] |= MARK


@njit(cache=True, nogil=True)
def squeeze_and_space(
    blocks: npt.NDArray[np.int64], characters: npt.NDArray[np.int64], measured: npt.NDArray[np.int64]
) -> None:
    """Two marks side by side lose half an em between them; Chinese and Latin that touch are moved apart.

    In place. CLREQ 3.1.6 and 3.2.2, JLREQ 3.1.4: of a closing and an opening mark only one is squeezed.
    """
    for b in range(len(blocks)):
        half_em = blocks[b, SIZE] << 19
        space = blocks[b, AUTOSPACE]
        for i in range(blocks[b, FIRST], blocks[b, LAST] - 1):
            here, following = characters[i, FLAGS], characters[i + 1, FLAGS]
            if here & following & MARK:
                cut = min(half_em, characters[i, TAIL])
                characters[i, ADVANCE] -= cut
                characters[i, TAIL] -= cut
                cut = min(half_em - cut, characters[i + 1, HEAD])
                characters[i + 1, ADVANCE] -= cut
                characters[i + 1, HEAD] -= cut
                glyph = characters[i + 1, FIRST_GLYPH]
                for g in range(glyph, glyph + (following >> GLYPHS_SHIFT)):
                    measured[g, 1] -= cut
            elif space and ((here & HAN and following & NARROW) or (here & NARROW and following & HAN)):
                characters[i, ADVANCE] += space
                characters[i, TAIL] = space
                characters[i, FLAGS] |= SPACED


@njit(cache=True, nogil=True)
def _elastic(here: int, following: int) -> int:
    """How much justification may widen the line between two characters: a blank three times as much as a place where a
    line can be broken beside a wide character; nothing before a closing or behind an opening mark."""
    if following & CLUSTER == 0:
        return 0
    if here & SPACE:
        return BLANK_STRETCH
    return 1 if (here | following) & WIDE and following & OPPORTUNITY else 0


@njit(cache=True, nogil=True)
def _quarter(x: int, on_whole: int) -> int:
    """A pen in quarters of a pixel, the nearest; on a whole pixel where the glyph has one bitmap only."""
    if on_whole:
        return ((x + (1 << 25)) >> 26) << 2
    return (x + (1 << 23)) >> 24


@njit(cache=True, nogil=True)
def fill_lines(
    blocks: npt.NDArray[np.int64],
    heights: npt.NDArray[np.float64],
    characters: npt.NDArray[np.int64],
    measured: npt.NDArray[np.int64],
    keys: npt.NDArray[np.int64],
    pens: npt.NDArray[np.int32],
    lines: npt.NDArray[np.int32],
) -> tuple[int, int]:
    """The lines of all blocks that fit, into `keys`, `pens` and `lines` (see `layout.LayoutScratch`).

    heights: (blocks, 2) first baseline and distance of two, in px. Returns (glyphs, lines).
    """
    half = np.int64(1) << 25
    glyph_count = line_count = 0
    for b in range(len(blocks)):
        first, last, spacing, indent = blocks[b, FIRST], blocks[b, LAST], blocks[b, SPACING], blocks[b, INDENT]
        hyphen_advance = blocks[b, HYPHEN_ADVANCE]
        align = blocks[b, ALIGN]
        whole_pixels = blocks[b, WHOLE_PIXELS] != 0
        start = first
        row = 0
        opens = True  # the next line opens a paragraph
        hyphened = 0  # lines in a row that end with a hyphen
        while start < last and row < blocks[b, MAX_LINES]:
            if characters[start, FLAGS] & FEED:
                if opens:
                    row += 1  # an empty paragraph: an empty line
                opens = True
                start += 1
                continue
            room = blocks[b, WIDTH] - (indent if opens else 0)
            pen = np.int64(0)
            # Where the line ends without its last blanks, as far as it is set; at the last place for a break; and at
            # the last place where a word can be divided.
            stop, solid = start, np.int64(0)
            end, end_stop, end_solid = np.int64(-1), start, np.int64(0)
            cut, cut_solid = np.int64(-1), np.int64(0)
            certain = False
            forced = True  # no place better than beside a mark
            closes = True
            lead, leading = np.int64(-1), np.int64(0)
            head = np.int64(0)
            i = start
            while i < last:
                flags = characters[i, FLAGS]
                if flags & FEED:
                    break
                if flags & CLUSTER and i > start:
                    if flags & OPPORTUNITY:
                        certain = True
                        end, end_stop, end_solid = i, stop, solid
                    elif not certain:
                        # Anywhere between two clusters when there is no better place, beside a mark when that is all.
                        beside = flags & NO_START != 0 or characters[i - 1, FLAGS] & NO_END != 0
                        if forced or not beside:
                            forced = beside
                            end, end_stop, end_solid = i, stop, solid
                    if flags & DIVIDES and pen + hyphen_advance <= room:
                        cut, cut_solid = i, solid
                advance = characters[i, ADVANCE]
                # Blanks hang over the end of a line; so does the spacing after the last letter.
                if flags & BLANK:
                    pen += advance
                    i += 1
                    continue
                if lead < 0:
                    lead, leading = i, pen
                    if not opens:
                        head = characters[i, HEAD]
                        pen -= head
                if pen + advance - spacing - characters[i, TAIL] > room:
                    closes = False
                    break
                pen += advance
                i += 1
                stop, solid = i, pen
            if closes:
                end, end_stop, end_solid = i, stop, solid
            divided = False
            if not closes and (cut > end or (cut >= 0 and not certain)):
                loose = room - end_solid > blocks[b, HYPHEN_ZONE]
                if not certain or (loose and hyphened < MAX_HYPHENS):
                    divided = True
                    end, end_stop, end_solid = cut, cut, cut_solid + hyphen_advance + spacing
            if end <= start:
                break  # the box is narrower than one character: nothing more can be set
            hyphened = hyphened + 1 if divided else 0
            # Blanks at the head of a paragraph move the line but are no part of it.
            if lead < 0 or lead >= end_stop:
                lead, leading = end_stop, end_solid
            natural = end_solid - leading
            tail = np.int64(0)
            if end_stop > lead:
                natural -= spacing
                if not divided:
                    tail = characters[end_stop - 1, TAIL]
                    if characters[end_stop - 1, FLAGS] & SPACED == 0 and natural <= room - leading:
                        tail = np.int64(0)
                    natural -= tail
            spare = room - leading - natural
            origin = blocks[b, LEFT] + leading + (indent if opens else 0)
            stretch = gaps = np.int64(0)
            if align == CENTER:
                origin += spare // 2
            elif align == END:
                origin += spare
            elif align == JUSTIFY and not closes and spare > 0:
                for i in range(lead, end_stop - 1):
                    gaps += _elastic(characters[i, FLAGS], characters[i + 1, FLAGS])
                if spare * BLANK_STRETCH <= blocks[b, MAX_GAP] * gaps:
                    stretch = spare
            if whole_pixels or align in (START, JUSTIFY):
                origin = ((origin + half) >> 26) << 26
            baseline = math.floor(heights[b, 0] + row * heights[b, 1] + 0.5)
            first_glyph = glyph_count
            pen = origin - head
            gap = 0
            for i in range(lead, end_stop):
                flags = characters[i, FLAGS]
                if flags & BLANK == 0:
                    glyph = characters[i, FIRST_GLYPH]
                    for g in range(glyph, glyph + (flags >> GLYPHS_SHIFT)):
                        quarter = _quarter(pen + measured[g, 1], measured[g, 2] & 1)
                        keys[glyph_count] = measured[g, 0] | (quarter & 3)
                        pens[glyph_count, 0] = quarter >> 2
                        pens[glyph_count, 1] = baseline - (measured[g, 2] >> 1)
                        pens[glyph_count, 2] = line_count
                        glyph_count += 1
                pen += characters[i, ADVANCE]
                if stretch > 0 and i + 1 < end_stop:
                    wider = gap + _elastic(flags, characters[i + 1, FLAGS])
                    pen += stretch * wider // gaps - stretch * gap // gaps
                    gap = wider
            if divided:
                quarter = _quarter(pen, blocks[b, WHOLE_PIXELS])
                keys[glyph_count] = blocks[b, HYPHEN] | (quarter & 3)
                pens[glyph_count, 0] = quarter >> 2
                pens[glyph_count, 1] = baseline
                pens[glyph_count, 2] = line_count
                glyph_count += 1
                pen += hyphen_advance + spacing
            if whole_pixels and stretch > 0:
                pen = ((pen + half) >> 26) << 26
            if glyph_count > first_glyph:
                lines[line_count, 0] = lead - first
                lines[line_count, 1] = end_stop - first
                lines[line_count, 2] = origin >> 20
                lines[line_count, 3] = (pen - spacing - tail) >> 20
                lines[line_count, 4] = baseline
                lines[line_count, 5] = first_glyph
                lines[line_count, 6] = glyph_count
                lines[line_count, 7] = blocks[b, NUMBER]
                lines[line_count, 8] = divided
                line_count += 1
            row += 1
            opens = closes
            start = end
            if closes and start < last:
                start += 1  # the line feed
                opens = True
    return glyph_count, line_count
