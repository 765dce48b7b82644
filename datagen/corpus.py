"""Text to draw: paragraphs of real documents, and Chinese put together from real words.

Whatever is drawn is NFC, without control and format characters, and never ends inside a word (a run of Latin letters
and digits, a word of the dictionary; running Chinese text does not say where its words end: there a cut falls behind a
punctuation mark when one is near, else between two characters). Paragraphs are told apart by their script, see `prose`.
"""

import bisect
import collections
import contextlib
import functools
import hashlib
import itertools
import mmap
import re
import tempfile
from array import array
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import IO, Any, Literal

import numpy as np
import numpy.typing as npt
import pyarrow as pa
from pydantic import Field

from datagen.prose import SENTENCE_START, WORD_START, Lang, begun, clean, cut, divided, judge_paragraph, phrase
from datagen.salad import Balance, Words, gb2312_facts, mark_of, read_words
from datagen.texts import READERS, dataset_paragraphs
from fonts_manifest.config import Config
from fonts_manifest.errors import BadInput
from fonts_manifest.places import find_files

SPOOL_BYTES = 64 << 20
"""Paragraphs of one language and place beyond this lie in a file without a name, mapped into memory where they are
read: a corpus may be larger than the memory."""
_REMEMBERED = 4096
MAX_SEEN = 5_000_000
"""Paragraphs remembered to leave out copies of them, 100 bytes each; of those behind, copies stay."""


class TextPlace(Config):
    """One place with text under one licence."""

    place: str
    """A file, a folder (searched to the bottom), a glob, or `package:NAME/...` inside an installed package."""
    format: Literal["text", "lines", "jsonl", "parquet", "dataset", "topics", "words"] = "text"
    """text: paragraphs between blank lines (.txt, .md); lines: every line is a paragraph; jsonl, parquet: `field` of
    every row; dataset: the same of a Hugging Face data set, a local folder or `hub:OWNER/NAME`, streamed; topics:
    Python's `pydoc_data/topics.py`, its English prose without code and tables; words: a dictionary of "word frequency
    ..." lines as jieba's, from which Chinese sentences are put together."""
    field: str = "text"
    """Key of a JSONL object, column of a Parquet file or of a data set."""
    split: str = "train"
    """Of a data set."""
    most: int | None = Field(default=None, ge=1)
    """Take no more than the first so many paragraphs that can be used; a hub's data set may have no end."""
    licence: str
    """SPDX identifier or a sentence."""
    weight: float = Field(default=1.0, gt=0)
    """Share of the draws of its language, relative to the other places."""


class CorpusConfig(Config):
    """Where the text comes from."""

    places: tuple[TextPlace, ...] = Field(min_length=1)
    """Files in UTF-8."""
    min_characters: int = Field(default=20, ge=1)
    """Shorter paragraphs are left out (headings, page numbers)."""
    max_characters: int = Field(default=2000, ge=100)
    """Longer paragraphs are divided, behind a sentence where that is possible."""
    flatten: float = Field(default=0.3, ge=0, le=1)
    """Dictionary words are drawn by frequency ** (1 - flatten): 0 is natural, 1 draws every word equally often. Natural
    frequencies all but never show the rarer characters."""
    rare_share: float = Field(default=0.05, ge=0, le=1)
    """Share of the dictionary words that are drawn for one of their characters, every character of the dictionary
    equally often: the rarest of 6,763 comes once in 135,000 words at least."""
    balance: Balance = "dictionary"
    """Which characters `rare_share` draws equally often: dictionary, those of the dictionary (jieba's lacks 703 of the
    8,105 general standard characters); gb2312, its 6,763; general, the 8,105. Those that no word holds stand between
    the words alone; `glyphmill coverage` says what a run shows. Every one of 8,105 comes ten times in 300,000 words
    with `rare_share: 0.5`."""
    beyond_gb2312: bool = False
    """Keep dictionary words with characters outside GB 2312, which few fonts and fewer readers know. jieba's dictionary
    lists 5,000 such characters with made-up frequencies."""
    english_share: float = Field(default=0.35, ge=0, le=1)
    """Share of characters of English words and sentences inside "mixed" text."""


class Corpus:
    """Implements the renderer's `TextSource`. A draw costs time for the characters drawn, whatever the corpus holds.

    Memory, in every process: 8 bytes for each paragraph and 64 MB of text for every language of a place, the rest of it
    in a temporary file; a dictionary of 350,000 words is 13 MB. Where a paragraph stands depends on the files alone.
    """

    def __init__(
        self,
        pools: Sequence["Paragraphs | Words"],
        *,
        english_share: float = 0.35,
        dropped: dict[str, int] | None = None,
    ) -> None:
        """pools: at least one. english_share and dropped: as in `CorpusConfig` and `facts`."""
        self._pools = tuple(pools)
        self._english_share = english_share
        self.dropped = dict(dropped or {})
        """Why paragraphs and files were left out, how many."""
        self._of: dict[str, tuple[Sequence[Paragraphs | Words], list[float]]] = {}
        for lang in ("en", "zh", "mixed"):
            of_lang = [pool for pool in pools if pool.lang == lang]
            weights = np.cumsum([pool.weight for pool in of_lang])
            self._of[lang] = (of_lang, (weights / weights[-1]).tolist() if of_lang else [])
        found: list[Lang] = [lang for lang in ("en", "zh") if self._of[lang][0]]
        self.languages: tuple[Lang, ...] = tuple(found)
        """What `draw` can give."""
        if self._of["mixed"][0] or len(found) == 2:
            self.languages = (*found, "mixed")

    @property
    def digest(self) -> str:
        """SHA-256 of all that decides what is drawn: contents, weights, settings."""
        sha256 = hashlib.sha256(f"{self._english_share}\n".encode())
        for pool in self._pools:
            sha256.update(f"{pool.lang} {pool.weight} {pool.digest}\n".encode())
        return sha256.hexdigest()

    def draw(self, rng: np.random.Generator, lang: str, characters: int) -> str:
        """About `characters` characters (a word more or less), paragraphs separated by "\\n"; none of the marks that no
        text begins with stands first.

        Raises BadInput when the corpus holds no such text, ValueError when `characters` is below 1.
        """
        if characters < 1:
            raise ValueError(f"characters must be at least 1, got {characters}")
        if lang not in self.languages:
            have = ", ".join(self.languages)
            raise BadInput(
                f"the corpus holds no {lang!r} text, only {have}; add a place with it or take it off the pages"
            )
        return begun(self._drawn(rng, lang, characters))

    def _drawn(self, rng: np.random.Generator, lang: Lang, characters: int) -> str:
        if lang != "mixed":
            return self._pool(rng, lang).draw(rng, characters)
        # Documents that are mixed by themselves are better than ours: half of the draws, when there are any.
        if self._of["mixed"][0] and (rng.random() < 0.5 or not (self._of["en"][0] and self._of["zh"][0])):
            return self._pool(rng, "mixed").draw(rng, characters)
        return self._draw_mixed(rng, characters)

    def _pool(self, rng: np.random.Generator, lang: Lang) -> "Paragraphs | Words":
        pools, cumulative = self._of[lang]
        return pools[min(bisect.bisect_right(cumulative, rng.random()), len(pools) - 1)]

    def _draw_mixed(self, rng: np.random.Generator, characters: int) -> str:
        """Chinese with English words between and behind its clauses, and English sentences between its sentences."""
        english, chinese = self._pool(rng, "en"), self._pool(rng, "zh")
        # Both habits are common in print: "使用 Python 编写" and "使用Python编写".
        blank = " " if rng.random() < 0.5 else ""
        parts: list[str] = []
        length = length_en = 0
        while length < characters:
            left = characters - length
            piece = chinese.draw(rng, max(2, min(left // 2, int(rng.integers(6, 30)))))
            piece = piece.replace("\n", "").rstrip("。！？；，、")
            parts.append(piece)
            length += len(piece)
            if length_en <= self._english_share * length:
                foreign, ends = _english_piece(rng, english, blank, whole_sentence=left > 60 and rng.random() < 0.2)
                parts.append(foreign)
                length += len(foreign)
                length_en += len(foreign)
                if ends:
                    continue
            mark = mark_of(rng.random())
            parts.append(mark)
            length += 1
            if mark in "。！？" and left > 80 and rng.random() < 0.15:
                parts.append("\n")
        text = "".join(parts).strip()
        # A short text keeps its English word, though that makes it a word too long.
        return text if characters < 30 else cut(text, characters)

    def facts(self) -> dict[str, Any]:
        """What a manifest should say of the texts: sizes, digests, coverage of GB 2312, what was left out and why."""
        return {
            "digest": self.digest,
            "languages": list(self.languages),
            "pools": [pool.facts() for pool in self._pools],
            "dropped": dict(sorted(self.dropped.items())),
        }


@dataclass(frozen=True)
class Paragraphs:
    """Paragraphs of one language from one place, in the order of their documents."""

    lang: Lang
    weight: float
    place: str
    licence: str
    blob: bytes | mmap.mmap
    """All of them in UTF-8, one behind the other."""
    offsets: npt.NDArray[np.int64]
    """(paragraphs + 1,) where each begins in `blob`."""

    @property
    def digest(self) -> str:
        """SHA-256 of the paragraphs."""
        sha256 = hashlib.sha256(self.offsets.tobytes())
        sha256.update(self.blob)
        return sha256.hexdigest()

    @functools.cached_property
    def _starts(self) -> Callable[[int, bool], "array[int]"]:
        """Where the words (or else the sentences) of a paragraph begin, remembered for the last ones asked for."""

        def starts(number: int, words: bool) -> "array[int]":
            text = self.paragraph(number)
            found = array("i", [0, *map(re.Match.end, (WORD_START if words else SENTENCE_START).finditer(text))])
            if len(found) > 1 and found[-1] == len(text):
                found.pop()
            return found

        return functools.lru_cache(_REMEMBERED)(starts)

    def paragraph(self, number: int) -> str:
        """One paragraph."""
        return self.blob[self.offsets[number] : self.offsets[number + 1]].decode()

    def draw(self, rng: np.random.Generator, characters: int) -> str:
        """From the beginning of a random sentence (of a random word, for a label of under 40 characters) onwards."""
        count = len(self.offsets) - 1
        number = int(rng.integers(count))
        text = self.paragraph(number)
        starts = self._starts(number, characters < 40)
        parts = [text[starts[int(rng.integers(len(starts)))] :]]
        length = len(parts[0])
        while length < characters:
            number = (number + 1) % count
            parts.append(self.paragraph(number))
            length += 1 + len(parts[-1])
        return cut("\n".join(parts), characters)

    def facts(self) -> dict[str, Any]:
        """Sizes, licence, digest; coverage of GB 2312 when there is any Han."""
        counts: collections.Counter[str] = collections.Counter()
        for first in range(0, len(self.offsets) - 1, 1024):
            last = min(first + 1024, len(self.offsets) - 1)
            counts.update(self.blob[self.offsets[first] : self.offsets[last]].decode())
        return {
            "place": self.place,
            "licence": self.licence,
            "lang": self.lang,
            "kind": "paragraphs of documents",
            "paragraphs": len(self.offsets) - 1,
            "characters": counts.total(),
            "distinct_characters": len(counts),
            "sha256": self.digest,
        } | (gb2312_facts({c: float(n) for c, n in counts.items()}) if self.lang != "en" else {})


def _english_piece(
    rng: np.random.Generator, english: "Paragraphs | Words", blank: str, *, whole_sentence: bool
) -> tuple[str, bool]:
    """(English as it stands in Chinese text, whether a mark behind it is out of place)."""
    text = english.draw(rng, int(rng.integers(50, 160)) if whole_sentence else int(rng.integers(3, 18)))
    text = text.replace("\n", " ")
    # A sentence to its end; where it is too long, a phrase.
    ended = _SENTENCE.match(text) if whole_sentence else None
    in_brackets = rng.random() < 0.25
    if ended is not None:
        return f"。{ended.group().strip()} ", True
    words = phrase(cut(text, 30))
    if not words:
        return "", False
    return (f"（{words}）", False) if in_brackets else (f"{blank}{words}{blank}", True)


_SENTENCE = re.compile(r"[^.!?]{12,160}[.!?](?=\s|$)")


def open_corpus(config: CorpusConfig) -> Corpus:
    """Read every place. Raises BadInput when a place does not exist or no usable text is found anywhere."""
    dropped: collections.Counter[str] = collections.Counter()
    pools: list[Paragraphs | Words] = []
    seen: set[bytes] = set()
    for source in config.places:
        if source.format == "words":
            paths = find_files([source.place], frozenset({".txt"}))
            settings = (config.flatten, config.rare_share, config.beyond_gb2312)
            about = (source.place, source.licence, source.weight)
            pools.append(read_words(paths, *about, *settings, balance=config.balance, dropped=dropped))
        else:
            pools.extend(_read_paragraphs(source, config, dropped, seen))
    if not pools:
        places = ", ".join(source.place for source in config.places)
        reasons = ", ".join(f"{count} {reason}" for reason, count in dropped.most_common())
        raise BadInput(f"{places}: no usable text ({reasons or 'no text files at all'}); name other places")
    return Corpus(pools, english_share=config.english_share, dropped=dict(dropped))


@dataclass(slots=True)
class _Pile:
    """The paragraphs of one language while they are read."""

    file: IO[bytes]
    lengths: "array[int]" = field(default_factory=lambda: array("q"))

    def add(self, data: bytes) -> None:
        self.file.write(data)
        self.lengths.append(len(data))

    def closed(self) -> tuple[bytes | mmap.mmap, npt.NDArray[np.int64]]:
        """(blob, offsets); a map outlives its file."""
        offsets = np.zeros(len(self.lengths) + 1, np.int64)
        np.cumsum(self.lengths, out=offsets[1:])
        self.file.seek(0)
        if offsets[-1] <= SPOOL_BYTES:
            return self.file.read(), offsets
        self.file.flush()
        return mmap.mmap(self.file.fileno(), 0, access=mmap.ACCESS_READ), offsets


def _read_paragraphs(
    source: TextPlace, config: CorpusConfig, dropped: collections.Counter[str], seen: set[bytes]
) -> Iterator[Paragraphs]:
    languages: tuple[Lang, ...] = ("en", "zh", "mixed")
    with contextlib.ExitStack() as files:
        piles = {lang: _Pile(files.enter_context(tempfile.SpooledTemporaryFile(SPOOL_BYTES))) for lang in languages}
        for lang, data in itertools.islice(_usable(source, config, dropped, seen), source.most):
            piles[lang].add(data)
        for lang, pile in piles.items():
            if pile.lengths:
                blob, offsets = pile.closed()
                yield Paragraphs(lang, source.weight, source.place, source.licence, blob, offsets)


def _usable(
    source: TextPlace, config: CorpusConfig, dropped: collections.Counter[str], seen: set[bytes]
) -> Iterator[tuple[Lang, bytes]]:
    """(language, UTF-8) of every paragraph that can be drawn, in the order of the place; the others are counted."""
    for raw in _raw_paragraphs(source, dropped):
        for paragraph in divided(clean(raw), config.max_characters):
            reason, lang = judge_paragraph(paragraph, config.min_characters)
            data = paragraph.encode()
            key = hashlib.blake2b(data, digest_size=8).digest()
            if lang is None:
                dropped[reason] += 1
            elif key in seen:
                dropped["duplicate"] += 1
            else:
                if len(seen) < MAX_SEEN:
                    seen.add(key)
                yield lang, data


def _raw_paragraphs(source: TextPlace, dropped: collections.Counter[str]) -> Iterator[str]:
    if source.format == "dataset":
        yield from dataset_paragraphs(source.place, source.field, source.split)
        return
    read, suffixes = READERS[source.format]
    for path in find_files([source.place], suffixes):
        try:
            yield from read(path, source.field)
        except UnicodeDecodeError:
            dropped["file_not_utf8"] += 1
        except KeyError:
            dropped[f"file_without_{source.field}"] += 1
        except (OSError, SyntaxError, pa.ArrowException):
            dropped["file_unreadable"] += 1
