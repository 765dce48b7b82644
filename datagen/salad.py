"""Chinese put together from real words: the characters, marks and line breaks of Chinese without a meaning."""

import bisect
import collections
import functools
import hashlib
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

import numpy as np
import numpy.typing as npt
from numba import njit

from datagen.dictionary import code_points, read_dictionary
from datagen.prose import Lang, is_han
from fonts_manifest.coverage import gb2312_level_1, gb2312_level_2, general_standard
from fonts_manifest.errors import BadInput

Balance = Literal["dictionary", "gb2312", "general"]
"""Which characters are drawn equally often for their own sake: those of the dictionary, the 6,763 of GB 2312, or the
8,105 of the List of General Standard Characters."""

MARKS = "，。、；：！？"
_MARKS_CUMULATIVE = (0.55, 0.81, 0.89, 0.93, 0.96, 0.98)
_PAIRS_CUMULATIVE = (0.4, 0.67, 0.87, 0.95)
_GUIDED = 1 << 16
_LONGEST = 32
"""More than a word, its marks and a full stop."""


def mark_of(chance: float) -> str:
    """A mark between or after clauses; chance: uniform in [0, 1)."""
    return MARKS[bisect.bisect_right(_MARKS_CUMULATIVE, chance)]


@dataclass(frozen=True)
class Words:
    """Chinese word salad: real words at their real frequencies (flattened as asked), in clauses without a grammar.

    Shapes, characters, punctuation and line breaks are those of Chinese; the sentences mean nothing.
    """

    lang: Lang
    weight: float
    place: str
    licence: str
    codes: npt.NDArray[np.uint32]
    """Code points of the words, all Han, a line feed behind each: as strings they would take ten times the memory."""
    first: npt.NDArray[np.int32]
    """(words + 1,) where each begins in `codes`."""
    cumulative: npt.NDArray[np.float64]
    """Cumulative probability of the words; the last is 1."""
    flatten: float
    rare_share: float = 0.0
    """Of the words, those drawn for one of their characters, all characters equally often."""
    by_character: npt.NDArray[np.int32] = field(default_factory=lambda: np.empty(0, np.int32))
    """Numbers of words, those of the first character, of the second, ...; empty when no words are drawn so."""
    character_first: npt.NDArray[np.int64] = field(default_factory=lambda: np.zeros(1, np.int64))
    """(characters + 1,) where each begins in `by_character`."""

    @property
    def text(self) -> str:
        """The words, a line feed behind each."""
        return self.codes.tobytes().decode("utf-32-le")

    @functools.cached_property
    def guide(self) -> npt.NDArray[np.int32]:
        """(`_GUIDED` + 1,) the first word that a chance of number / `_GUIDED` or more may mean."""
        return np.searchsorted(self.cumulative, np.arange(_GUIDED + 1) / _GUIDED, side="right").astype(np.int32)

    @property
    def digest(self) -> str:
        """SHA-256 of the words and their probabilities' exponent."""
        frequencies = np.diff(self.cumulative, prepend=0.0).astype(np.float32).tobytes()
        share = f"\n{self.rare_share}" if self.rare_share else ""
        return hashlib.sha256((self.text[:-1] + share).encode() + frequencies).hexdigest()

    def __len__(self) -> int:
        """How many words."""
        return len(self.first) - 1

    def draw(self, rng: np.random.Generator, characters: int) -> str:
        """Clauses of 2 to 7 words; under 13 characters a label without punctuation."""
        out = np.empty(characters + _LONGEST, np.uint32)
        words = (self.codes, self.first, self.cumulative, self.guide)
        balance = (self.rare_share, self.by_character, self.character_first)
        return out[: _write_clauses(rng, characters, *words, *balance, out)].tobytes().decode("utf-32-le")

    def facts(self) -> dict[str, Any]:
        """Sizes, licence, digest, and how much of GB 2312 the draws show."""
        chances = np.diff(self.cumulative, prepend=0.0) * (1 - self.rare_share)
        if self.rare_share:
            of_character = np.diff(self.character_first)
            chance = np.repeat(self.rare_share / len(of_character) / of_character, of_character)
            chances += np.bincount(self.by_character, chance, len(self))
        weights = np.bincount(self.codes, np.repeat(chances, np.diff(self.first)))
        counts = {chr(code): float(weights[code]) for code in np.unique(self.codes).tolist() if code != ord("\n")}
        return {
            "place": self.place,
            "licence": self.licence,
            "lang": self.lang,
            "kind": "word salad: real words by frequency, no grammar",
            "words": len(self),
            "flatten": self.flatten,
            "rare_share": self.rare_share,
            "distinct_characters": len(counts),
            "sha256": self.digest,
        } | gb2312_facts(counts)


def gb2312_facts(weights: dict[str, float]) -> dict[str, Any]:
    """How much of GB 2312 is there, and its share of all. weights: character -> how often it is drawn, in any unit."""
    han = sum(weight for character, weight in weights.items() if is_han(character))
    facts: dict[str, Any] = {}
    for name, characters in (("level_1", gb2312_level_1()), ("level_2", gb2312_level_2())):
        drawn = [weights[character] for character in characters if character in weights]
        facts[f"gb2312_{name}_covered"] = f"{len(drawn)} of {len(characters)}"
        facts[f"gb2312_{name}_share"] = round(sum(drawn) / han, 4) if han else 0.0
    return facts


def read_words(
    paths: Iterable[Path],
    place: str,
    licence: str,
    weight: float,
    flatten: float,
    rare_share: float,
    beyond_gb2312: bool,
    *,
    balance: Balance = "dictionary",
    dropped: collections.Counter[str],
) -> Words:
    """The dictionary in these files, of "word frequency ..." lines; what is left out is counted in `dropped`.

    Raises BadInput when a file cannot be read or no line fits.
    """
    balanced = balanced_characters(balance)
    allowed = None if beyond_gb2312 else gb2312_level_1() + gb2312_level_2() + balanced
    text, frequencies = read_dictionary(paths, allowed, dropped)
    if not text:
        raise BadInput(f"{place}: no line of the form 'word frequency' with a Chinese word")
    chances = frequencies.astype(np.float64) ** (1.0 - flatten)
    if rare_share:
        # What no word holds stands alone, and is drawn for its own sake only.
        alone = sorted(set(balanced).difference(text))
        text += "".join(f"{character}\n" for character in alone)
        chances = np.append(chances, np.zeros(len(alone)))
    cumulative = np.cumsum(chances)
    codes = code_points(text)
    first = np.append(0, np.flatnonzero(codes == ord("\n")) + 1).astype(np.int32)
    return Words(
        lang="zh",
        weight=weight,
        place=place,
        licence=licence,
        codes=codes,
        first=first,
        cumulative=cumulative / cumulative[-1],
        flatten=flatten,
        rare_share=rare_share,
        **(_index(codes, first, balanced) if rare_share else {}),
    )


def balanced_characters(balance: Balance) -> str:
    """The characters named by a balance; "" for those of the dictionary."""
    if balance == "gb2312":
        return gb2312_level_1() + gb2312_level_2()
    return "".join(general_standard()) if balance == "general" else ""


def _index(codes: npt.NDArray[np.uint32], first: npt.NDArray[np.int32], balanced: str) -> dict[str, Any]:
    """`by_character` and `character_first`, characters in the order of their code points; all when `balanced` is "".

    codes: of the words' text; first: as in `Words`.
    """
    inside = np.isin(codes, code_points(balanced)) if balanced else codes != ord("\n")
    numbers = np.repeat(np.arange(len(first) - 1, dtype=np.int32), np.diff(first))[inside]
    counts = np.bincount(codes[inside])
    characters = np.flatnonzero(counts)
    # Sorting numbers of 16 bits takes a tenth of the time of 32.
    ranks = np.zeros(len(counts), np.min_scalar_type(len(characters)))
    ranks[characters] = np.arange(len(characters))
    return {
        "by_character": numbers[np.argsort(ranks[codes[inside]], kind="stable")],
        "character_first": np.append(0, np.cumsum(counts[characters])),
    }


_MARK_CODES = code_points(MARKS)
_PAIR_CODES = code_points("“”《》（）「」【】").reshape(-1, 2)
"""Around one word in 25: without them no page would show two marks side by side."""
_ENDS = code_points("。！？")
_COUNTERS = code_points("个万元次人米天")
_YEAR, _MONTH, _DAY, _ORDINAL, _FULL_STOP = code_points("年月日第。").tolist()
_PERCENT, _POINT, _ZERO, _LINE_FEED = code_points("%.0\n").tolist()


@njit(cache=True, nogil=True)
def _write_clauses(
    rng: np.random.Generator,
    characters: int,
    codes: npt.NDArray[np.uint32],
    first: npt.NDArray[np.int32],
    cumulative: npt.NDArray[np.float64],
    guide: npt.NDArray[np.int32],
    rare_share: float,
    by_character: npt.NDArray[np.int32],
    character_first: npt.NDArray[np.int64],
    out: npt.NDArray[np.uint32],
) -> int:
    """See `Words.draw`. Fills `out` with code points; returns how many.

    Compiled: a text takes 10 us and .1 a word, in Python it took 40 and 1.
    """
    at = 0
    label = characters < 13
    in_clause = rng.integers(2, 8)
    sentences_left = rng.integers(2, 7)
    while at < characters:
        # The mean word has two characters; what is missing is drawn in further rounds.
        count = (characters - at) // 2 + 1
        numbers = _draw_words(rng, count, cumulative, guide, rare_share, by_character, character_first)
        chances = rng.random((count, 4))
        for turn in range(count):
            left = characters - at
            begin = at
            # A full stop still has to fit behind the last word.
            if at > 0 and chances[turn, 0] < 0.04:
                at = _write_numeral(rng, out, at)
            else:
                for place in range(first[numbers[turn]], first[numbers[turn] + 1] - 1):
                    out[at] = codes[place]
                    at += 1
            if not label and left > at - begin + 8 and chances[turn, 1] < 0.04:
                pair = _PAIR_CODES[np.searchsorted(_PAIRS_CUMULATIVE, chances[turn, 2], side="right")]
                for place in range(at, begin, -1):
                    out[place] = out[place - 1]
                out[begin], out[at + 1] = pair[0], pair[1]
                at += 2
            in_clause -= 1
            if at >= characters:
                break
            if label or in_clause or left < 6:
                continue
            in_clause = rng.integers(2, 8)
            mark = _MARK_CODES[np.searchsorted(_MARKS_CUMULATIVE, chances[turn, 3], side="right")]
            out[at] = mark
            at += 1
            if mark in _ENDS:
                sentences_left -= 1
                if not sentences_left and characters - at > 20:
                    out[at] = _LINE_FEED
                    at += 1
                    sentences_left = rng.integers(2, 7)
    if not label:
        out[at] = _FULL_STOP
        at += 1
    return at


@njit(cache=True, nogil=True)
def _draw_words(
    rng: np.random.Generator,
    count: int,
    cumulative: npt.NDArray[np.float64],
    guide: npt.NDArray[np.int32],
    rare_share: float,
    by_character: npt.NDArray[np.int32],
    character_first: npt.NDArray[np.int64],
) -> npt.NDArray[np.int64]:
    """Numbers of so many words: by frequency, some of them for a character of theirs."""
    numbers = np.empty(count, np.int64)
    for turn in range(count):
        chance = rng.random()
        low = guide[int(chance * _GUIDED)]
        high = guide[int(chance * _GUIDED) + 1]
        while low < high:
            middle = (low + high) // 2
            if cumulative[middle] <= chance:
                low = middle + 1
            else:
                high = middle
        numbers[turn] = min(low, len(cumulative) - 1)
    if rare_share:
        rare = np.flatnonzero(rng.random(count) < rare_share)
        characters = np.empty(len(rare), np.int64)
        for turn in range(len(rare)):
            characters[turn] = rng.integers(0, len(character_first) - 1)
        for turn in range(len(rare)):
            character = characters[turn]
            numbers[rare[turn]] = by_character[rng.integers(character_first[character], character_first[character + 1])]
    return numbers


@njit(cache=True, nogil=True)
def _write_numeral(rng: np.random.Generator, out: npt.NDArray[np.uint32], at: int) -> int:
    """A year, a day, a percentage, a quantity or an ordinal; returns where it ends."""
    kind, value = rng.integers(0, 5), rng.integers(1, 1000)
    if kind == 0:
        at = _write_number(1900 + value % 131, out, at)
        out[at] = _YEAR
    elif kind == 1:
        at = _write_number(1 + value % 12, out, at)
        out[at] = _MONTH
        at = _write_number(1 + rng.integers(0, 28), out, at + 1)
        out[at] = _DAY
    elif kind == 2:
        at = _write_number(value // 10, out, at)
        if value % 10:
            out[at], out[at + 1] = _POINT, _ZERO + value % 10
            at += 2
        out[at] = _PERCENT
    elif kind == 3:
        at = _write_number(value, out, at)
        out[at] = _COUNTERS[value % 7]
    else:
        out[at] = _ORDINAL
        return _write_number(value, out, at + 1)
    return at + 1


@njit(cache=True, nogil=True)
def _write_number(value: int, out: npt.NDArray[np.uint32], at: int) -> int:
    """Decimal digits; returns where they end."""
    size = 10
    while size <= value:
        size *= 10
    while size > 1:
        size //= 10
        out[at] = _ZERO + value // size % 10
        at += 1
    return at
