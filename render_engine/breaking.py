"""Where a line may break: UAX #14 (Unicode 16), in one compiled pass; where English words may be divided.

The classes are Unicode's own, read once per character from `uniseg`; its rule engine takes 62 us a character (this
one 11 ns) and serves as the oracle of the tests. Chinese line-start and line-end rules (kinsoku) follow from the
classes: closing marks (CL) and stops (CL, EX, NS) never start a line, opening marks (OP) never end one, dashes (B2) and
dots (IN) stay together, and the quotation marks of Chinese text open and close by LB19a.
"""

import functools
import re
import unicodedata

import numpy as np
import numpy.typing as npt
import pyphen
from numba import njit
from uniseg.emoji import extended_pictographic
from uniseg.linebreak import line_break

# fmt: off
NAMES = (
    "XX", "BK", "CR", "LF", "CM", "NL", "SG", "WJ", "ZW", "GL", "SP", "ZWJ", "B2", "BA", "BB", "HY",
    "CB", "CL", "CP", "EX", "IN", "NS", "OP", "QU", "IS", "NU", "PO", "PR", "SY", "AI", "AK", "AL",
    "AP", "AS", "CJ", "EB", "EM", "H2", "H3", "HL", "ID", "JL", "JV", "JT", "RI", "SA", "VF", "VI",
)
(
    XX, BK, CR, LF, CM, NL, SG, WJ, ZW, GL, SP, ZWJ, B2, BA, BB, HY,
    CB, CL, CP, EX, IN, NS, OP, QU, IS, NU, PO, PR, SY, AI, AK, AL,
    AP, AS, CJ, EB, EM, H2, H3, HL, ID, JL, JV, JT, RI, SA, VF, VI,
) = range(48)
# fmt: on

CLASS_MASK = 0x3F
EAST_ASIAN = 0x40  # East_Asian_Width F, W or H
INITIAL_QUOTE = 0x80  # general category Pi
FINAL_QUOTE = 0x100  # general category Pf
UNASSIGNED_PICTOGRAPH = 0x200
DOTTED_CIRCLE = 0x400  # U+25CC
HYPHEN = 0x800  # U+2010
KNOWN = 0x8000


@functools.cache
def known_properties() -> npt.NDArray[np.uint16]:
    """(0x110000,) class and flags of every character seen so far in this process; 0 where not yet looked up."""
    return np.zeros(0x110000, np.uint16)


def break_properties(codes: npt.NDArray[np.uint32]) -> npt.NDArray[np.uint16]:
    """The table of break properties, complete for `codes`: `table[codes]` are class and flags. 1 us a new one."""
    table = known_properties()
    new = codes[table[codes] == 0]
    if len(new):
        for code in np.unique(new).tolist():
            table[code] = _property(code)
    return table


def _property(code: int) -> int:
    character = chr(code)
    category = unicodedata.category(character)
    name = str(line_break(character).value)
    # LB1: resolve what depends on context the way Unicode proposes by default.
    if name in ("AI", "SG", "XX"):
        name = "AL"
    elif name == "SA":
        name = "CM" if category in ("Mn", "Mc") else "AL"
    elif name == "CJ":
        name = "NS"
    bits = NAMES.index(name) | KNOWN
    if unicodedata.east_asian_width(character) in "FWH":
        bits |= EAST_ASIAN
    bits |= {"Pi": INITIAL_QUOTE, "Pf": FINAL_QUOTE}.get(category, 0)
    if category == "Cn" and extended_pictographic(character):
        bits |= UNASSIGNED_PICTOGRAPH
    return bits | {0x25CC: DOTTED_CIRCLE, 0x2010: HYPHEN}.get(code, 0)


DIVISIBLE = re.compile(r"(?<![\w./@:'’-])[A-Za-z][a-z]{5,}(?![\w/@'’-]|[.:]\w)")
"""Words that may be divided: six letters and more, no part of a compound, an abbreviation or an address."""


def find_hyphens(text: str) -> list[int]:
    """Where an English word may be divided before that character (TeX's patterns, as pyphen has them), two letters left
    before it and three behind it at least."""
    return [word.start() + inside for word in DIVISIBLE.finditer(text) for inside in _points_of(word.group().lower())]


@functools.lru_cache(1 << 16)
def _points_of(word: str) -> tuple[int, ...]:
    return tuple(_patterns().positions(word))


@functools.cache
def _patterns() -> pyphen.Pyphen:
    return pyphen.Pyphen(lang="en_US", left=2, right=3)


@njit(cache=True, nogil=True, inline="never")
def _ends_line(kind: int) -> bool:
    return kind in (BK, CR, LF, NL)


@njit(cache=True, nogil=True)
def find_breaks(codes: npt.NDArray[np.uint32], table: npt.NDArray[np.uint16], breaks: npt.NDArray[np.uint8]) -> bool:
    """Fill `breaks` (n,) with 1 where UAX #14 allows or demands a break before character i.

    Returns False, `breaks` unfinished, when `table` (`known_properties`) lacks one of `codes`.
    """
    n = len(codes)
    if n == 0:
        return True
    # Kept characters: all but marks attached to a base (LB9); `bits` holds class (after LB10) and flags of each.
    kept = np.empty(n, np.int32)
    bits = np.empty(n, np.int32)
    count = 0
    for i in range(n):
        bit = np.int32(table[codes[i]])
        if bit == 0:
            return False
        kind = bit & CLASS_MASK
        breaks[i] = 0
        if kind in (CM, ZWJ):
            attached = False
            if count > 0:
                base = bits[count - 1] & CLASS_MASK
                attached = not (_ends_line(base) or base in (SP, ZW))
            if attached:
                continue
            bit = np.int32(AL | KNOWN)  # LB10
        kept[count] = i
        bits[count] = bit
        count += 1
    breaks[0] = 0
    regional = 0  # regional indicators directly before (LB30a)
    for k in range(1, count):
        i = kept[k]
        before = bits[k - 1]
        here = bits[k]
        p = before & CLASS_MASK
        c = here & CLASS_MASK
        if p == RI:
            regional += 1
        else:
            regional = 0
        # Simple pairs first: they decide nearly all positions.
        if p == AL and c == AL and kept[k - 1] == i - 1:  # LB28
            continue
        if c in (SP, ZW) and not _ends_line(p):  # LB7
            continue
        if _ends_line(p):  # LB4, LB5
            breaks[i] = 0 if p == CR and c == LF else 1
            continue
        if _ends_line(c):  # LB6
            continue
        # LB8: ZW SP* break
        j = k - 1
        while j >= 0 and (bits[j] & CLASS_MASK) == SP:
            j -= 1
        q = (bits[j] & CLASS_MASK) if j >= 0 else -1  # class before the blanks
        if q == ZW:
            breaks[i] = 1
            continue
        if (table[codes[i - 1]] & CLASS_MASK) == ZWJ:  # LB8a
            continue
        if c == WJ or p in (WJ, GL):  # LB11, LB12
            continue
        if c == GL and p != SP and p != BA and p != HY:  # LB12a
            continue
        if c in (CL, CP, EX, SY):  # LB13
            continue
        if q == OP:  # LB14
            continue
        if q == QU and bits[j] & INITIAL_QUOTE:  # LB15a
            r = (bits[j - 1] & CLASS_MASK) if j > 0 else -1
            if r == -1 or _ends_line(r) or r in (OP, QU, GL, SP, ZW):
                continue
        following = (bits[k + 1] & CLASS_MASK) if k + 1 < count else -1
        if c == QU and here & FINAL_QUOTE:  # LB15b
            f = following
            if f == -1 or f in (SP, GL, WJ, CL, QU, CP, EX):
                continue
            if f in (IS, SY, ZW) or _ends_line(f):
                continue
        if p == SP and c == IS and following == NU:  # LB15c
            breaks[i] = 1
            continue
        if c == IS:  # LB15d
            continue
        if (q in (CL, CP)) and c == NS:  # LB16
            continue
        if q == B2 and c == B2:  # LB17
            continue
        if p == SP:  # LB18
            breaks[i] = 1
            continue
        if (c == QU and not here & INITIAL_QUOTE) or (p == QU and not before & FINAL_QUOTE):  # LB19
            continue
        if c == QU and (not before & EAST_ASIAN or k + 1 >= count or not bits[k + 1] & EAST_ASIAN):  # LB19a
            continue
        if p == QU and (not here & EAST_ASIAN or k < 2 or not bits[k - 2] & EAST_ASIAN):
            continue
        if c == CB or p == CB:  # LB20
            breaks[i] = 1
            continue
        if c == AL and (p == HY or before & HYPHEN):  # LB20a
            r = (bits[k - 2] & CLASS_MASK) if k > 1 else -1
            if r == -1 or _ends_line(r) or r in (SP, ZW, CB, GL):
                continue
        if c in (BA, HY, NS) or p == BB:  # LB21
            continue
        if (p in (HY, BA)) and k > 1 and (bits[k - 2] & CLASS_MASK) == HL and c != HL:  # LB21a
            continue
        if p == SY and c == HL:  # LB21b
            continue
        if c == IN:  # LB22
            continue
        letter_before = p in (AL, HL)
        letter = c in (AL, HL)
        if (letter_before and c == NU) or (p == NU and letter):  # LB23
            continue
        if (p == PR and (c in (ID, EB, EM))) or ((p in (ID, EB, EM)) and c == PO):  # LB23a
            continue
        if ((p in (PR, PO)) and letter) or (letter_before and (c in (PR, PO))):  # LB24
            continue
        # LB25: numbers
        j = k - 1
        if (c in (PO, PR)) and (p in (CL, CP)):
            j -= 1
        if c in (PO, PR, NU):
            while j >= 0 and ((bits[j] & CLASS_MASK) == SY or (bits[j] & CLASS_MASK) == IS):
                j -= 1
            if j >= 0 and (bits[j] & CLASS_MASK) == NU:
                continue
        if (p in (PO, PR)) and c == OP:
            if following == NU:
                continue
            if following == IS and k + 2 < count and (bits[k + 2] & CLASS_MASK) == NU:
                continue
        if (p in (PO, PR, HY, IS)) and c == NU:
            continue
        # LB26, LB27: Hangul
        if p == JL and (c in (JL, JV, H2, H3)):
            continue
        if (p in (JV, H2)) and (c in (JV, JT)):
            continue
        if (p in (JT, H3)) and c == JT:
            continue
        if (p in (JL, JV, JT, H2, H3)) and c == PO:
            continue
        if p == PR and (c in (JL, JV, JT, H2, H3)):
            continue
        if letter_before and letter:  # LB28
            continue
        # LB28a: Brahmic syllables
        aksara = c in (AK, AS) or here & DOTTED_CIRCLE
        aksara_before = p in (AK, AS) or before & DOTTED_CIRCLE
        if p == AP and aksara:
            continue
        if aksara_before and (c in (VF, VI)):
            continue
        if k > 1 and p == VI and (c == AK or here & DOTTED_CIRCLE):
            r = bits[k - 2]
            if (r & CLASS_MASK) == AK or (r & CLASS_MASK) == AS or r & DOTTED_CIRCLE:
                continue
        if aksara_before and aksara and following == VF:
            continue
        if p == IS and letter:  # LB29
            continue
        if (letter_before or p == NU) and c == OP and not here & EAST_ASIAN:  # LB30
            continue
        if p == CP and not before & EAST_ASIAN and (letter or c == NU):
            continue
        if p == RI and c == RI and regional % 2 == 1:  # LB30a
            continue
        if c == EM and (p == EB or before & UNASSIGNED_PICTOGRAPH):  # LB30b
            continue
        breaks[i] = 1  # LB31
    return True
