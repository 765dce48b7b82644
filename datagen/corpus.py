"""Text to draw: paragraphs of real documents, and Chinese put together from real words.

Paragraphs are told apart by their script: Han is "zh", Latin is taken for English ("en": French would pass for it),
both together are "mixed", the rest is left out. Whatever is drawn is NFC, without control and format characters, and
never ends inside a word (a run of Latin letters and digits, a word of the dictionary; running Chinese text does not say
where its words end: there a cut falls behind a punctuation mark when one is near, else between two characters).
"""

import ast
import collections
import hashlib
import json
import re
import unicodedata
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
import numpy.typing as npt
import pyarrow as pa
from pyarrow import parquet as pq
from pydantic import Field

from fonts_manifest.config import Config
from fonts_manifest.coverage import gb2312_level_1, gb2312_level_2
from fonts_manifest.errors import BadInput
from fonts_manifest.places import find_files

Lang = Literal["en", "zh", "mixed"]

_MAX_LINE = 1 << 20
"""Characters of one line read at a time: a file without line ends does not fill the memory."""


class TextPlace(Config):
    """One place with text under one licence."""

    place: str
    """A file, a folder (searched to the bottom), a glob, or `package:NAME/...` inside an installed package."""
    format: Literal["text", "lines", "jsonl", "parquet", "topics", "words"] = "text"
    """text: paragraphs between blank lines (.txt, .md); lines: every line is a paragraph; jsonl, parquet: `field` of
    every row; topics: Python's `pydoc_data/topics.py`, its English prose without code and tables; words: a dictionary
    of "word frequency ..." lines as jieba's, from which Chinese sentences are put together."""
    field: str = "text"
    """Key of a JSONL object or column of a Parquet file."""
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
    beyond_gb2312: bool = False
    """Keep dictionary words with characters outside GB 2312, which few fonts and fewer readers know. jieba's dictionary
    lists 5,000 such characters with made-up frequencies."""
    english_share: float = Field(default=0.35, ge=0, le=1)
    """Share of characters of English words and sentences inside "mixed" text."""


class Corpus:
    """Implements the renderer's `TextSource`. A draw costs time for the characters drawn, whatever the corpus holds.

    Memory: the UTF-8 of all paragraphs and 8 bytes for each of them, in every process; a dictionary of 350,000 words
    is 9 MB.
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
        self._of: dict[str, tuple[Sequence[Paragraphs | Words], npt.NDArray[np.float64]]] = {}
        for lang in ("en", "zh", "mixed"):
            of_lang = [pool for pool in pools if pool.lang == lang]
            weights = np.cumsum([pool.weight for pool in of_lang])
            self._of[lang] = (of_lang, weights / weights[-1] if of_lang else weights)

    @property
    def languages(self) -> tuple[Lang, ...]:
        """What `draw` can give."""
        found: list[Lang] = [lang for lang in ("en", "zh") if self._of[lang][0]]
        return (*found, "mixed") if self._of["mixed"][0] or len(found) == 2 else tuple(found)

    @property
    def digest(self) -> str:
        """SHA-256 of all that decides what is drawn: contents, weights, settings."""
        sha256 = hashlib.sha256(f"{self._english_share}\n".encode())
        for pool in self._pools:
            sha256.update(f"{pool.lang} {pool.weight} {pool.digest}\n".encode())
        return sha256.hexdigest()

    def draw(self, rng: np.random.Generator, lang: str, characters: int) -> str:
        """About `characters` characters (a word more or less), paragraphs separated by "\\n".

        Raises BadInput when the corpus holds no such text, ValueError when `characters` is below 1.
        """
        if characters < 1:
            raise ValueError(f"characters must be at least 1, got {characters}")
        if lang not in self.languages:
            have = ", ".join(self.languages)
            raise BadInput(
                f"the corpus holds no {lang!r} text, only {have}; add a place with it or take it off the pages"
            )
        if lang != "mixed":
            return self._pool(rng, lang).draw(rng, characters)
        # Documents that are mixed by themselves are better than ours: half of the draws, when there are any.
        if self._of["mixed"][0] and (rng.random() < 0.5 or not (self._of["en"][0] and self._of["zh"][0])):
            return self._pool(rng, "mixed").draw(rng, characters)
        return self._draw_mixed(rng, characters)

    def _pool(self, rng: np.random.Generator, lang: Lang) -> "Paragraphs | Words":
        pools, cumulative = self._of[lang]
        return pools[min(int(np.searchsorted(cumulative, rng.random(), side="right")), len(pools) - 1)]

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
                whole_sentence = left > 60 and rng.random() < 0.2
                foreign = english.draw(rng, int(rng.integers(30, 70)) if whole_sentence else int(rng.integers(3, 18)))
                foreign = foreign.replace("\n", " ").strip(" ,;:.()[]\"'")
                form = rng.random()
                if whole_sentence:
                    parts.append(f"。{foreign}.{blank}")
                elif form < 0.25:
                    parts.append(f"（{foreign}）")
                else:
                    parts.append(f"{blank}{foreign}{blank}")
                length += len(parts[-1])
                length_en += len(foreign)
                if whole_sentence or form >= 0.25:
                    continue
            mark = _MARKS[min(int(np.searchsorted(_MARKS_CUMULATIVE, rng.random(), side="right")), len(_MARKS) - 1)]
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


_MARKS = "，。、；：！？"
_MARKS_CUMULATIVE = np.cumsum([0.55, 0.26, 0.08, 0.04, 0.03, 0.02, 0.02])


@dataclass(frozen=True)
class Paragraphs:
    """Paragraphs of one language from one place, in the order of their documents."""

    lang: Lang
    weight: float
    place: str
    licence: str
    blob: bytes
    """All of them in UTF-8, one behind the other."""
    offsets: npt.NDArray[np.int64]
    """(paragraphs + 1,) where each begins in `blob`."""

    @property
    def digest(self) -> str:
        """SHA-256 of the paragraphs."""
        return hashlib.sha256(self.offsets.tobytes() + self.blob).hexdigest()

    def paragraph(self, number: int) -> str:
        """One paragraph."""
        return self.blob[self.offsets[number] : self.offsets[number + 1]].decode()

    def draw(self, rng: np.random.Generator, characters: int) -> str:
        """From the beginning of a random sentence (of a random word, for a label of under 40 characters) onwards."""
        count = len(self.offsets) - 1
        number = int(rng.integers(count))
        text = self.paragraph(number)
        borders = _WORD_START if characters < 40 else _SENTENCE_START
        starts = [0, *(match.end() for match in borders.finditer(text) if match.end() < len(text))]
        parts = [text[starts[int(rng.integers(len(starts)))] :]]
        length = len(parts[0])
        while length < characters:
            number = (number + 1) % count
            parts.append(self.paragraph(number))
            length += 1 + len(parts[-1])
        return cut("\n".join(parts), characters)

    def facts(self) -> dict[str, Any]:
        """Sizes, licence, digest; coverage of GB 2312 when there is any Han."""
        text = self.blob.decode()
        counts = collections.Counter(text)
        return {
            "place": self.place,
            "licence": self.licence,
            "lang": self.lang,
            "kind": "paragraphs of documents",
            "paragraphs": len(self.offsets) - 1,
            "characters": len(text),
            "distinct_characters": len(counts),
            "sha256": self.digest,
        } | (_gb2312_facts({c: float(n) for c, n in counts.items()}) if self.lang != "en" else {})


@dataclass(frozen=True)
class Words:
    """Chinese word salad: real words at their real frequencies (flattened as asked), in clauses without a grammar.

    Shapes, characters, punctuation and line breaks are those of Chinese; the sentences mean nothing.
    """

    lang: Lang
    weight: float
    place: str
    licence: str
    words: tuple[str, ...]
    """All Han."""
    cumulative: npt.NDArray[np.float64]
    """Cumulative probability of the words; the last is 1."""
    flatten: float

    @property
    def digest(self) -> str:
        """SHA-256 of the words and their probabilities' exponent."""
        frequencies = np.diff(self.cumulative, prepend=0.0).astype(np.float32).tobytes()
        return hashlib.sha256("\n".join(self.words).encode() + frequencies).hexdigest()

    def draw(self, rng: np.random.Generator, characters: int) -> str:
        """Clauses of 2 to 7 words; under 13 characters a label without punctuation."""
        # The mean word has two characters; what is missing is drawn in further rounds.
        parts: list[str] = []
        length = 0
        label = characters < 13
        in_clause = int(rng.integers(2, 8))
        sentences_left = int(rng.integers(2, 7))
        while length < characters:
            for number in np.searchsorted(self.cumulative, rng.random((characters - length) // 2 + 1), side="right"):
                left = characters - length
                # A full stop still has to fit behind the last word.
                word = (
                    self._numeral(rng)
                    if parts and rng.random() < 0.04
                    else self.words[min(int(number), len(self.words) - 1)]
                )
                parts.append(word)
                length += len(word)
                in_clause -= 1
                if length >= characters:
                    break
                if label or in_clause or left < 6:
                    continue
                in_clause = int(rng.integers(2, 8))
                mark = _MARKS[min(int(np.searchsorted(_MARKS_CUMULATIVE, rng.random(), side="right")), len(_MARKS) - 1)]
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
        chances = np.diff(self.cumulative, prepend=0.0)
        counts: dict[str, float] = collections.defaultdict(float)
        for word, chance in zip(self.words, chances.tolist(), strict=True):
            for character in word:
                counts[character] += chance
        return {
            "place": self.place,
            "licence": self.licence,
            "lang": self.lang,
            "kind": "word salad: real words by frequency, no grammar",
            "words": len(self.words),
            "flatten": self.flatten,
            "distinct_characters": len(counts),
            "sha256": self.digest,
        } | _gb2312_facts(counts)


def _gb2312_facts(weights: dict[str, float]) -> dict[str, Any]:
    """weights: character -> how often it is drawn, in any unit."""
    han = sum(weight for character, weight in weights.items() if _is_han(character))
    facts: dict[str, Any] = {}
    for name, characters in (("level_1", gb2312_level_1()), ("level_2", gb2312_level_2())):
        drawn = [weights[character] for character in characters if character in weights]
        facts[f"gb2312_{name}_covered"] = f"{len(drawn)} of {len(characters)}"
        facts[f"gb2312_{name}_share"] = round(sum(drawn) / han, 4) if han else 0.0
    return facts


def open_corpus(config: CorpusConfig) -> Corpus:
    """Read every place. Raises BadInput when a place does not exist or no usable text is found anywhere."""
    dropped: collections.Counter[str] = collections.Counter()
    pools: list[Paragraphs | Words] = []
    seen: set[bytes] = set()
    for source in config.places:
        if source.format == "words":
            pools.append(_read_words(source, config, dropped))
        else:
            pools.extend(_read_paragraphs(source, config, dropped, seen))
    if not pools:
        places = ", ".join(source.place for source in config.places)
        reasons = ", ".join(f"{count} {reason}" for reason, count in dropped.most_common())
        raise BadInput(f"{places}: no usable text ({reasons or 'no text files at all'}); name other places")
    return Corpus(pools, english_share=config.english_share, dropped=dict(dropped))


def _read_words(source: TextPlace, config: CorpusConfig, dropped: collections.Counter[str]) -> Words:
    allowed = frozenset(gb2312_level_1() + gb2312_level_2())
    words: list[str] = []
    frequencies: list[int] = []
    for path in find_files([source.place], frozenset({".txt"})):
        try:
            with path.open(encoding="utf-8-sig") as file:
                for line in file:
                    word, _, rest = line.strip().partition(" ")
                    frequency = rest.partition(" ")[0]
                    if not frequency.isascii() or not frequency.isdigit() or not int(frequency):
                        dropped["word_without_frequency"] += bool(word)
                    elif not all(map(_is_han, word)) or len(word) > 12:
                        dropped["word_not_han"] += 1
                    elif not config.beyond_gb2312 and not allowed.issuperset(word):
                        dropped["word_beyond_gb2312"] += 1
                    else:
                        words.append(unicodedata.normalize("NFC", word))
                        frequencies.append(int(frequency))
        except (OSError, UnicodeDecodeError) as error:
            raise BadInput(f"{path}: cannot be read as a dictionary in UTF-8 ({error})") from None
    if not words:
        raise BadInput(f"{source.place}: no line of the form 'word frequency' with a Chinese word")
    chances = np.asarray(frequencies, np.float64) ** (1.0 - config.flatten)
    cumulative = np.cumsum(chances)
    return Words(
        lang="zh",
        weight=source.weight,
        place=source.place,
        licence=source.licence,
        words=tuple(words),
        cumulative=cumulative / cumulative[-1],
        flatten=config.flatten,
    )


def _read_paragraphs(
    source: TextPlace, config: CorpusConfig, dropped: collections.Counter[str], seen: set[bytes]
) -> Iterator[Paragraphs]:
    blobs: dict[Lang, list[bytes]] = {"en": [], "zh": [], "mixed": []}
    read, suffixes = _READERS[source.format]
    for path in find_files([source.place], suffixes):
        try:
            for raw in read(path, source.field):
                for paragraph in _divided(clean(raw), config.max_characters):
                    reason, lang = judge_paragraph(paragraph, config.min_characters)
                    data = paragraph.encode()
                    key = hashlib.blake2b(data, digest_size=8).digest()
                    if lang is None:
                        dropped[reason] += 1
                    elif key in seen:
                        dropped["duplicate"] += 1
                    else:
                        seen.add(key)
                        blobs[lang].append(data)
        except UnicodeDecodeError:
            dropped["file_not_utf8"] += 1
        except KeyError:
            dropped[f"file_without_{source.field}"] += 1
        except (OSError, SyntaxError, pa.ArrowException):
            dropped["file_unreadable"] += 1
    for lang, found in blobs.items():
        if found:
            offsets = np.zeros(len(found) + 1, np.int64)
            np.cumsum([len(data) for data in found], out=offsets[1:])
            yield Paragraphs(
                lang=lang,
                weight=source.weight,
                place=source.place,
                licence=source.licence,
                blob=b"".join(found),
                offsets=offsets,
            )


def _lines_of(path: Path) -> Iterator[str]:
    with path.open(encoding="utf-8-sig", newline=None) as file:
        while line := file.readline(_MAX_LINE):
            yield line


def _text_paragraphs(path: Path, _: str) -> Iterator[str]:
    block: list[str] = []
    size = 0
    for line in _lines_of(path):
        if line.strip() and size < _MAX_LINE:
            block.append(line.strip())
            size += len(line)
        else:
            yield join_lines(block)
            block, size = ([line.strip()], len(line)) if line.strip() else ([], 0)
    yield join_lines(block)


def _line_paragraphs(path: Path, _: str) -> Iterator[str]:
    yield from _lines_of(path)


def _jsonl_paragraphs(path: Path, field: str) -> Iterator[str]:
    for line in _lines_of(path):
        try:
            row = json.loads(line)
        except ValueError:
            yield ""  # counted as too short
            continue
        text = row.get(field) if isinstance(row, dict) else None
        yield from text.split("\n") if isinstance(text, str) else ("",)


def _parquet_paragraphs(path: Path, field: str) -> Iterator[str]:
    with pq.ParquetFile(path) as file:
        column = file.schema_arrow.field(field)
        if not (pa.types.is_string(column.type) or pa.types.is_large_string(column.type)):
            raise KeyError(field)
        for batch in file.iter_batches(batch_size=1024, columns=[field]):
            for text in batch.column(0).to_pylist():
                yield from (text or "").split("\n")


def _topic_paragraphs(path: Path, _: str) -> Iterator[str]:
    # Parsed, not imported: the file is one dictionary literal.
    for node in ast.parse(path.read_text(encoding="utf-8")).body:
        if isinstance(node, ast.Assign) and isinstance(node.value, ast.Dict):
            for text in ast.literal_eval(node.value).values():
                yield from english_prose(text)


_READERS: dict[str, tuple[Callable[[Path, str], Iterator[str]], frozenset[str]]] = {
    "text": (_text_paragraphs, frozenset({".txt", ".md", ".text"})),
    "lines": (_line_paragraphs, frozenset({".txt", ".text"})),
    "jsonl": (_jsonl_paragraphs, frozenset({".jsonl", ".ndjson"})),
    "parquet": (_parquet_paragraphs, frozenset({".parquet"})),
    "topics": (_topic_paragraphs, frozenset({".py"})),
}


def english_prose(text: str) -> Iterator[str]:
    """The running prose of a document as Sphinx's text builder writes it: no headings, grammar, code or tables.

    Bullets and emphasis marks are taken off, lines joined.
    """
    blocks = re.split(r"\n\s*\n", text)
    after_colons = False
    for block in blocks:
        lines = block.strip("\n").split("\n")
        indent = len(lines[0]) - len(lines[0].lstrip())
        code = after_colons and indent >= 3
        after_colons = block.rstrip().endswith("::") or (code and indent >= 3)
        if code:
            continue
        joined = join_lines([line.strip() for line in lines])
        joined = re.sub(r"^(?:[*+-]|\d+\.|\(\d+\)|\[\d+\])\s+", "", joined)
        joined = re.sub(r"(?<![\w*])\*{1,2}([^*\s](?:[^*]*[^*\s])?)\*{1,2}(?![\w*])", r"\1", joined)
        joined = re.sub(r"``([^`]+)``", r"\1", joined).replace("::", ":")
        if _reads_as_english(joined):
            yield joined


_STOP_WORDS = frozenset(
    (
        *("a", "an", "and", "are", "as", "at", "be", "by", "can", "for", "from", "has", "if", "in", "is", "it", "may"),
        *("not", "of", "on", "or", "that", "the", "this", "to", "when", "with"),
    )
)


def _reads_as_english(text: str) -> bool:
    """A capital first, an end mark last, and no more signs of code than a sentence about code holds."""
    words = text.split()
    if len(words) < 6 or not (text[0].isupper() or text[0] in "\"'“(") or text[-1] not in ".!?:)":
        return False
    if re.search(r"::=|>>>|\+--|\|.*\||===|\*\*\*\*|----|\.\. |[{}<>]|\\", text):
        return False
    plain = sum(bool(re.fullmatch(r"[\"'“‘(]*[A-Za-z]+(?:[-'’][A-Za-z]+)*[.,;:!?)\"'”’]*", word)) for word in words)
    common = sum(word.lower().strip(".,;:()\"'") in _STOP_WORDS for word in words)
    return plain >= 0.85 * len(words) and common >= 0.15 * len(words)


def join_lines(lines: Sequence[str]) -> str:
    """Hard-wrapped lines as one; a blank between them, but none between two Chinese characters."""
    joined = ""
    for line in lines:
        no_blank = not joined or not line or (_is_cjk(joined[-1]) and _is_cjk(line[0]))
        # Most text is wrapped behind the hyphens it has ("pre-" / "existing"); hyphens put in by a typesetter stay too.
        compound = joined[-2:-1].isalpha() and joined[-1:] == "-" and line[:1].islower()
        glue = "" if no_blank or compound else " "
        joined += glue + line
    return joined


def clean(text: str) -> str:
    """NFC, blanks of every kind as one " ", without control, format, private and unassigned characters."""
    text = unicodedata.normalize("NFC", text)
    if not text.isascii() or not text.isprintable():
        text = "".join(
            " " if character.isspace() else character
            for character in text
            if character.isspace() or unicodedata.category(character) not in _INVISIBLE
        )
    # Taking characters out can bring two together that NFC joins: normalise what stands at the end.
    return unicodedata.normalize("NFC", " ".join(text.split()))


_INVISIBLE = frozenset({"Cc", "Cf", "Co", "Cn", "Cs", "Zl", "Zp"})


def judge_paragraph(paragraph: str, min_characters: int) -> tuple[str, Lang | None]:
    """("", language by script), or (why the paragraph is left out, None)."""
    if len(paragraph) < min_characters:
        return "too_short", None
    if "\ufffd" in paragraph:
        return "damaged_characters", None
    han = latin = letters = 0
    visible = len(paragraph) - paragraph.count(" ")
    for character in paragraph:
        if character.isalpha():
            letters += 1
            if _is_han(character):
                han += 1
            elif character.isascii() or unicodedata.name(character, "").startswith("LATIN"):
                latin += 1
    if letters < 0.6 * visible:
        return "not_prose", None  # tables, code, numbers
    if han + latin < 0.95 * letters:
        return "other_script", None
    if han >= 0.9 * letters:
        return "", "zh"
    return "", "en" if not han else "mixed"


def _is_han(character: str) -> bool:
    code = ord(character)
    return 0x4E00 <= code <= 0x9FFF or 0x3400 <= code <= 0x4DBF or 0x20000 <= code <= 0x323AF


def _is_cjk(character: str) -> bool:
    """Han, or punctuation that stands with it."""
    code = ord(character)
    return _is_han(character) or 0x3000 <= code <= 0x303F or 0xFF00 <= code <= 0xFF60 or character in "“”‘’…—"


_SENTENCE_START = re.compile(r"[.!?][\"'”’)\]]*\s+(?=[\"'“‘(\[]*[A-Z])|[。！？…]+[”’」』）]*(?=.)")
_WORD_START = re.compile(r"\s+|[，。！？；：、…]+[”’」』）]*(?=.)")
_ENDS = "。！？；，、：…”』」）.!?;,"


def cut(text: str, characters: int) -> str:
    """The longest beginning of at most `characters` characters that ends with a whole word (one word at least).

    In Chinese it ends behind a punctuation mark when there is one among the last 12 characters.
    """
    if len(text) <= characters:
        return text.rstrip()
    end = characters
    while end > 0 and not _may_end(text, end):
        end -= 1
    if end == 0:  # the first word is longer than that
        end = characters
        while end < len(text) and not _may_end(text, end):
            end += 1
    if _is_cjk(text[end - 1]):
        for earlier in range(end, max(end - 12, 1), -1):
            if text[earlier - 1] in _ENDS:
                end = earlier
                break
    return text[:end].rstrip().rstrip("（(《“‘「『[") or text[:end]


def _may_end(text: str, end: int) -> bool:
    before, after = text[end - 1], text[end]
    return before.isspace() or after.isspace() or _is_cjk(before) or _is_cjk(after)


def _divided(paragraph: str, max_characters: int) -> Iterator[str]:
    while len(paragraph) > max_characters:
        borders = [match.end() for match in _SENTENCE_START.finditer(paragraph, max_characters // 2, max_characters)]
        head = paragraph[: borders[-1]] if borders else cut(paragraph, max_characters)
        yield head.rstrip()
        paragraph = paragraph[len(head) :].lstrip()
    yield paragraph
