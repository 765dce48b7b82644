"""Chinese put together from real words: the characters, marks and line breaks of Chinese without a meaning."""

import bisect
import collections
import hashlib
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

import numpy as np
import numpy.typing as npt

from datagen.dictionary import code_points, read_dictionary
from datagen.prose import Lang, is_han
from fonts_manifest.coverage import gb2312_level_1, gb2312_level_2, general_standard
from fonts_manifest.errors import BadInput

Balance = Literal["dictionary", "gb2312", "general"]
"""Which characters are drawn equally often for their own sake: those of the dictionary, the 6,763 of GB 2312, or the
8,105 of the List of General Standard Characters."""

MARKS = "，。、；：！？"
_MARKS_CUMULATIVE = (0.55, 0.81, 0.89, 0.93, 0.96, 0.98)

_PAIRS = ("“”", "《》", "（）", "「」", "【】")
"""Around one word in 25: without them no page would show two marks side by side."""
_PAIRS_CUMULATIVE = (0.4, 0.67, 0.87, 0.95)


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
    text: str
    """The words, all Han, a line feed behind each: as strings of their own they would take ten times the memory."""
    first: npt.NDArray[np.int32]
    """(words + 1,) where each begins in `text`."""
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
        # The mean word has two characters; what is missing is drawn in further rounds.
        parts: list[str] = []
        length = 0
        label = characters < 13
        in_clause = int(rng.integers(2, 8))
        sentences_left = int(rng.integers(2, 7))
        while length < characters:
            count = (characters - length) // 2 + 1
            numbers = self._numbers(rng, count)
            starts, ends = self.first[numbers].tolist(), (self.first[numbers + 1] - 1).tolist()
            # A generator asked for one number at a time takes longer than all the rest.
            for start, end, (numeral, paired, pair, mark_chance) in zip(
                starts, ends, rng.random((count, 4)).tolist(), strict=True
            ):
                left = characters - length
                # A full stop still has to fit behind the last word.
                word = self._numeral(rng) if parts and numeral < 0.04 else self.text[start:end]
                if not label and left > len(word) + 8 and paired < 0.04:
                    marks = _PAIRS[bisect.bisect_right(_PAIRS_CUMULATIVE, pair)]
                    word = f"{marks[0]}{word}{marks[1]}"
                parts.append(word)
                length += len(word)
                in_clause -= 1
                if length >= characters:
                    break
                if label or in_clause or left < 6:
                    continue
                in_clause = int(rng.integers(2, 8))
                mark = mark_of(mark_chance)
                parts.append(mark)
                length += 1
                if mark in "。！？":
                    sentences_left -= 1
                    if not sentences_left and characters - length > 20:
                        parts.append("\n")
                        length += 1
                        sentences_left = int(rng.integers(2, 7))
        if not label:
            parts.append("。")
        return "".join(parts)

    def _numbers(self, rng: np.random.Generator, count: int) -> npt.NDArray[np.int64]:
        """Numbers of so many words: by frequency, some of them for a character of theirs."""
        numbers = np.minimum(np.searchsorted(self.cumulative, rng.random(count), side="right"), len(self) - 1)
        if self.rare_share:
            rare = np.flatnonzero(rng.random(count) < self.rare_share)
            characters = rng.integers(len(self.character_first) - 1, size=len(rare))
            first, last = self.character_first[characters], self.character_first[characters + 1]
            numbers[rare] = self.by_character[rng.integers(first, last)]
        return numbers

    @staticmethod
    def _numeral(rng: np.random.Generator) -> str:
        kind, value = int(rng.integers(5)), int(rng.integers(1, 1000))
        if kind == 0:
            return f"{1900 + value % 131}年"
        if kind == 1:
            return f"{1 + value % 12}月{1 + int(rng.integers(28))}日"
        if kind == 2:
            return f"{value / 10:g}%"
        return f"{value}{'个万元次人米天'[value % 7]}" if kind == 3 else f"第{value}"

    def facts(self) -> dict[str, Any]:
        """Sizes, licence, digest, and how much of GB 2312 the draws show."""
        chances = np.diff(self.cumulative, prepend=0.0) * (1 - self.rare_share)
        if self.rare_share:
            of_character = np.diff(self.character_first)
            chance = np.repeat(self.rare_share / len(of_character) / of_character, of_character)
            chances += np.bincount(self.by_character, chance, len(self))
        codes = code_points(self.text)
        weights = np.bincount(codes, np.repeat(chances, np.diff(self.first)))
        counts = {chr(code): float(weights[code]) for code in np.unique(codes).tolist() if code != ord("\n")}
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
        text=text,
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
