"""Dictionaries of "word frequency ..." lines, as jieba's: read by array operations, thousands of words at once."""

import collections
import unicodedata
from collections.abc import Iterable
from pathlib import Path

import numpy as np
import numpy.typing as npt

from datagen.prose import HAN
from fonts_manifest.errors import BadInput

_CHARACTERS_AT_ONCE = 1 << 17
_MAX_CHARACTERS = 12
_MAX_DIGITS = 18
_BLANK, _LINE_FEED, _ZERO = 32, 10, 48
_CODES = 0x110000

Numbers = npt.NDArray[np.int64]


def read_dictionary(
    paths: Iterable[Path], allowed: str | None, dropped: collections.Counter[str]
) -> tuple[str, Numbers]:
    """(words of Han in NFC with a line feed behind each, their frequencies), in the order of the files.

    allowed: the only characters that words may hold, None for all. What is left out is counted in `dropped`. Raises
    BadInput when a file cannot be read.
    """
    found = []
    for path in paths:
        try:
            with path.open(encoding="utf-8-sig") as file:
                while lines := file.read(_CHARACTERS_AT_ONCE) + file.readline():
                    found.append(_entries(code_points(lines), allowed, dropped))
        except (OSError, UnicodeDecodeError) as error:
            raise BadInput(f"{path}: cannot be read as a dictionary in UTF-8 ({error})") from None
    words = "".join(text for text, _ in found)
    return words, np.concatenate([frequencies for _, frequencies in found] or [np.empty(0, np.int64)])


def code_points(text: str) -> npt.NDArray[np.uint32]:
    """(characters,) their Unicode numbers."""
    return np.frombuffer(text.encode("utf-32-le", "surrogatepass"), np.uint32)


def _entries(
    codes: npt.NDArray[np.uint32], allowed: str | None, dropped: collections.Counter[str]
) -> tuple[str, Numbers]:
    """The words of some lines and their frequencies."""
    starts, ends = _stripped_lines(codes)
    blanks = np.append(np.flatnonzero(codes == _BLANK), len(codes))
    word_ends = np.minimum(blanks[np.searchsorted(blanks, starts)], ends)
    number_starts = np.minimum(word_ends + 1, ends)
    number_ends = np.minimum(blanks[np.searchsorted(blanks, number_starts)], ends)
    frequencies = _numbers(codes, number_starts, number_ends)

    is_han = np.zeros(_CODES, np.bool_)
    for first, last in HAN:
        is_han[first : last + 1] = True
    is_allowed = is_han
    if allowed is not None:
        is_allowed = np.zeros(_CODES, np.bool_)
        is_allowed[code_points(allowed)] = True
    without_frequency = frequencies == 0
    not_han = _hold_others(codes, is_han, starts, word_ends) | (word_ends - starts > _MAX_CHARACTERS)
    beyond = _hold_others(codes, is_allowed, starts, word_ends)
    kept = ~(without_frequency | not_han | beyond)
    for reason, lines in (
        ("word_without_frequency", without_frequency),
        ("word_not_han", not_han & ~without_frequency),
        ("word_beyond_gb2312", beyond & ~not_han & ~without_frequency),
    ):
        if lines.any():
            dropped[reason] += int(lines.sum())

    # The blank behind every word goes with it and becomes a line feed.
    borders = np.zeros(len(codes) + 1, np.int8)
    borders[starts[kept]] = 1
    borders[word_ends[kept] + 1] = -1
    words = codes[np.cumsum(borders[:-1], dtype=np.int8).view(np.bool_)]
    words[words == _BLANK] = _LINE_FEED
    # Of Han NFC changes the compatibility ideographs alone, one by one.
    return unicodedata.normalize("NFC", words.tobytes().decode("utf-32-le")), frequencies[kept]


def _stripped_lines(codes: npt.NDArray[np.uint32]) -> tuple[Numbers, Numbers]:
    """Where the lines that hold something start and end, without the spaces around them."""
    borders = np.flatnonzero(codes == _LINE_FEED)
    starts, ends = np.append(0, borders + 1), np.append(borders, len(codes))
    filled = ends > starts
    starts, ends = starts[filled], ends[filled]
    edges = np.stack((codes[starts], codes[ends - 1]))
    spaces = [code for code in np.flatnonzero(np.bincount(edges.ravel())).tolist() if chr(code).isspace()]
    for line in np.flatnonzero(np.isin(edges, spaces).any(0)).tolist():
        text = codes[starts[line] : ends[line]].tobytes().decode("utf-32-le")
        ends[line] -= len(text) - len(text.rstrip())
        starts[line] = ends[line] - len(text.strip())
    filled = ends > starts
    return starts[filled], ends[filled]


def _numbers(codes: npt.NDArray[np.uint32], starts: Numbers, ends: Numbers) -> Numbers:
    """What the digits from each start to its end say; 0 where there are none, too many, or others between them."""
    values = np.zeros(len(starts), np.int64)
    lengths = ends - starts
    lengths[lengths > _MAX_DIGITS] = 0
    is_number = lengths > 0
    for at in range(int(lengths.max(initial=0))):
        lines = np.flatnonzero(lengths > at)
        digits = codes[starts[lines] + at].astype(np.int64) - _ZERO
        is_number[lines] &= (digits >= 0) & (digits < 10)
        values[lines] = 10 * values[lines] + digits
    return np.where(is_number, values, 0)


def _hold_others(
    codes: npt.NDArray[np.uint32], known: npt.NDArray[np.bool_], starts: Numbers, ends: Numbers
) -> npt.NDArray[np.bool_]:
    """Which stretches hold a character that is not `known`."""
    others = np.zeros(len(codes) + 1, np.int32)
    np.cumsum(~known[codes], out=others[1:])
    return others[ends] > others[starts]
