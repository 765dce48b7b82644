"""The words a stack of faces has shaped, found by their spelling: the compiled side of `shape`."""

import numpy as np
import numpy.typing as npt
from numba import njit

UNKNOWN = -2
WORD = -1
LINE_FEED = -3
UNSEEN = 0xFFFF
"""Of a character that no stack has met."""

# Classes of break_properties; repeated because a compiled function freezes what it takes from another file.
_CLASS_MASK = 0x3F
_CM, _ZWJ = 4, 11


@njit(cache=True, nogil=True)
def _hash(codes: npt.NDArray[np.uint32], first: int, last: int) -> np.int64:
    """FNV-1a over code points."""
    value = np.uint64(0xCBF29CE484222325)
    for i in range(first, last):
        value = (value ^ np.uint64(codes[i])) * np.uint64(0x100000001B3)
    return np.int64((value ^ (value >> np.uint64(32))) & np.uint64(0x7FFFFFFF))


@njit(cache=True, nogil=True)
def enter_words(
    slots: npt.NDArray[np.int32],
    spelling_first: npt.NDArray[np.int32],
    spellings: npt.NDArray[np.uint32],
    first: int,
    last: int,
) -> None:
    """Enter the words `first` to `last` into the hash table `slots` (a power of 2 long, 0 empty, else word + 1)."""
    mask = len(slots) - 1
    for word in range(first, last):
        at = _hash(spellings, spelling_first[word], spelling_first[word + 1]) & mask
        while slots[at] != 0:
            at = (at + 1) & mask
        slots[at] = word + 1


@njit(cache=True, nogil=True)
def _look_up(
    codes: npt.NDArray[np.uint32],
    start: int,
    end: int,
    slots: npt.NDArray[np.int32],
    spelling_first: npt.NDArray[np.int32],
    spellings: npt.NDArray[np.uint32],
) -> int:
    """Index of the word that is spelled as `codes[start:end]`, -1 when it is not known."""
    mask = len(slots) - 1
    at = _hash(codes, start, end) & mask
    while slots[at] != 0:
        word = slots[at] - 1
        first = spelling_first[word]
        if spelling_first[word + 1] - first == end - start:
            same = True
            for i in range(end - start):
                if spellings[first + i] != codes[start + i]:
                    same = False
                    break
            if same:
                return word
        at = (at + 1) & mask
    return -1


@njit(cache=True, nogil=True)
def find_words(
    codes: npt.NDArray[np.uint32],
    ranges: npt.NDArray[np.int32],
    table: npt.NDArray[np.uint16],
    row_of: npt.NDArray[np.uint16],
    singles: npt.NDArray[np.int32],
    slots: npt.NDArray[np.int32],
    spelling_first: npt.NDArray[np.int32],
    spellings: npt.NDArray[np.uint32],
    found: npt.NDArray[np.int32],
) -> tuple[int, bool, bool]:
    """Maximal runs of characters that are no singles, into `found` (3, n): their starts, ends, and indices or -1.

    ranges: (parts, 2 or more) first and last character of the parts to look at. row_of: (65536,) row of `singles` of
    each character; those behind its last row are unknown.
    A mark joins the single character before it to its word. Returns (number of words, whether a single is unknown,
    whether a word is).
    """
    count = 0
    unknown = missing = inside = False
    for part in range(len(ranges)):
        first, last = ranges[part, 0], ranges[part, 1]
        start = first
        for i in range(first, last + 1):
            reference = np.int32(LINE_FEED)
            if i < last:
                row = row_of[codes[i]] if codes[i] < 0x10000 else np.uint16(0)
                reference = singles[row, 0] if row < len(singles) else np.int32(UNKNOWN)
            if reference == WORD:
                if not inside:
                    start = i
                    kind = table[codes[i]] & _CLASS_MASK
                    if (kind in (_CM, _ZWJ)) and i > first and codes[i - 1] != 0x0A and codes[i - 1] != 0x20:
                        start = i - 1
                    inside = True
                continue
            unknown = unknown or reference == UNKNOWN
            if inside:
                found[0, count] = start
                found[1, count] = i
                word = _look_up(codes, start, i, slots, spelling_first, spellings)
                found[2, count] = word
                missing = missing or word < 0
                count += 1
                inside = False
    return count, unknown, missing


@njit(cache=True, nogil=True)
def find_new(
    codes: npt.NDArray[np.uint32],
    slots: npt.NDArray[np.int32],
    spelling_first: npt.NDArray[np.int32],
    spellings: npt.NDArray[np.uint32],
    found: npt.NDArray[np.int32],
) -> None:
    """The indices of the words of `found` (3, words) that had none."""
    for at in range(found.shape[1]):
        if found[2, at] < 0:
            found[2, at] = _look_up(codes, found[0, at], found[1, at], slots, spelling_first, spellings)


@njit(cache=True, nogil=True)
def cut_rows(rows: npt.NDArray[np.int32], ends: npt.NDArray[np.int64], counts: npt.NDArray[np.int64]) -> int:
    """Of the glyphs of several texts, which stood in one buffer, keep those that belong to a text, in place.

    rows: (glyphs, 2 or more), the cluster in the second column, which becomes that in its own text. ends: (texts + 1,)
    where what stands before the first text, between two and behind the last lies. Counts the glyphs of each text and
    returns their number.
    """
    kept = 0
    for i in range(len(rows)):
        cluster = rows[i, 1]
        part = np.searchsorted(ends, cluster, side="right") - 1
        if part < 0 or part >= len(counts) or cluster == ends[part]:
            continue
        rows[kept] = rows[i]
        rows[kept, 1] = cluster - ends[part] - 1
        counts[part] += 1
        kept += 1
    return kept
