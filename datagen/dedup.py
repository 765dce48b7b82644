"""Copies: equal pictures, nearly equal ones, the same text again, and whatever stands in a benchmark."""

import itertools
from collections import Counter, defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import cached_property

import cv2
import numpy as np
import numpy.typing as npt
from pydantic import Field

from datagen.density import is_han
from datagen.ngrams import ngrams, shared_share
from fonts_manifest.config import Config

MIN_NGRAMS = 20
"""Texts with fewer n-grams say nothing about copies: a page number stands in many pictures."""

_PERMUTATIONS, _BANDS = 128, 32
"""Of MinHash: 32 bands of 4: texts that share 40 % of all their n-grams meet with even odds, from 70 % on always."""


class DuplicatesConfig(Config):
    """When a picture is a copy of another one. The one with the most pixels stays, of equal ones the first."""

    hash_distance: int = Field(default=6, ge=0, le=16)
    """Bits of 64 in which perceptual hashes of copies differ at most. Over one background 15 of 15 different texts lie
    within it, so pictures with text must share their text too."""
    text_overlap: float = Field(default=0.5, gt=0, le=1)
    """Share of the smaller text's n-grams (3 Han characters, else 5) that pictures with close hashes must share to go
    as "near_duplicate"."""
    same_text_overlap: float | None = Field(default=0.8, gt=0, le=1)
    """Pictures that share so much text go as "same_text" whatever they look like: another scan, another resolution.
    null: they stay."""


class BenchmarkConfig(Config):
    """Pictures that must not be trained on."""

    place: str
    """Their folder; they are read by the same reader."""
    text_overlap: float = Field(default=0.3, gt=0, le=1)
    """Share of the smaller text's n-grams from which a picture goes as "benchmark"; OmniDoc-TokenBench calls pages .2
    and pages of one category .3 copies."""


@dataclass(frozen=True, kw_only=True)
class Fingerprint:
    """What is compared of a picture."""

    row_id: str
    pixels: int
    """Width x height."""
    pixels_xxh3: str
    phash: int
    """Perceptual hash, 64 bits."""
    text: str

    @cached_property
    def ngrams(self) -> frozenset[str]:
        """Runs of 3 characters in texts that are mostly Han, of 5 in others; empty for texts that say nothing."""
        found = ngrams(self.text, 3 if is_mostly_han(self.text) else 5)
        return found if len(found) >= MIN_NGRAMS else frozenset()


@dataclass(frozen=True, slots=True, kw_only=True)
class Copy:
    """Why a picture goes, and what it is a copy of."""

    reason: str
    """duplicate, near_duplicate, same_text or benchmark."""
    of: str


def is_mostly_han(text: str) -> bool:
    """Whether at least three in ten characters are Han."""
    return sum(map(is_han, text)) >= 0.3 * max(1, len("".join(text.split())))


def perceptual_hash(image_HW3: npt.NDArray[np.uint8]) -> str:
    """imagehash's pHash (signs of the 8 x 8 lowest DCT coefficients about their median), 16 hex digits."""
    import imagehash
    from PIL import Image

    # Shrunk to twice imagehash's own 32 px by area first: its filter over all pixels costs 20 ms a megapixel.
    small_HW = cv2.resize(
        cv2.cvtColor(np.ascontiguousarray(image_HW3), cv2.COLOR_RGB2GRAY), (64, 64), interpolation=cv2.INTER_AREA
    )
    return str(imagehash.phash(Image.fromarray(small_HW)))


def find_copies(fingerprints: Sequence[Fingerprint], config: DuplicatesConfig) -> dict[str, Copy]:
    """row_id -> of what it is a copy, for every picture that is one. The order of `fingerprints` breaks ties."""
    order = sorted(range(len(fingerprints)), key=lambda n: (-fingerprints[n].pixels, n))
    copies: dict[str, Copy] = {}
    by_pixels: dict[str, str] = {}
    hashes = _HashIndex(config.hash_distance)
    texts = _TextIndex()
    for number in order:
        one = fingerprints[number]
        copy = _copy_of(one, fingerprints, by_pixels, hashes, texts, config)
        if copy is not None:
            copies[one.row_id] = copy
            continue
        by_pixels[one.pixels_xxh3] = one.row_id
        hashes.add(number, one.phash)
        if config.same_text_overlap is not None:
            texts.add(number, one.ngrams)
    return copies


def _copy_of(
    one: Fingerprint,
    fingerprints: Sequence[Fingerprint],
    by_pixels: dict[str, str],
    hashes: "_HashIndex",
    texts: "_TextIndex",
    config: DuplicatesConfig,
) -> Copy | None:
    if one.pixels_xxh3 in by_pixels:
        return Copy(reason="duplicate", of=by_pixels[one.pixels_xxh3])
    for number in hashes.near(one.phash):
        other = fingerprints[number]
        if same_picture(one, other, config.text_overlap):
            return Copy(reason="near_duplicate", of=other.row_id)
    if config.same_text_overlap is not None:
        for number in texts.near(one.ngrams):
            if shared_share(one.ngrams, fingerprints[number].ngrams) >= config.same_text_overlap:
                return Copy(reason="same_text", of=fingerprints[number].row_id)
    return None


def same_picture(one: Fingerprint, other: Fingerprint, text_overlap: float) -> bool:
    """Whether two pictures with close hashes are copies: neither holds text, or they share it."""
    if not one.ngrams and not other.ngrams:
        # Too little text to compare by n-grams must be equal where it is anything.
        return "".join(one.text.split()) == "".join(other.text.split()) or min(len(one.text), len(other.text)) < 5
    return shared_share(one.ngrams, other.ngrams) >= text_overlap


class Benchmark:
    """An index over the pictures of a benchmark."""

    def __init__(self, fingerprints: Iterable[Fingerprint], config: BenchmarkConfig, hash_distance: int) -> None:
        """fingerprints: of the benchmark's pictures; their `row_id` is the name of the file."""
        self._all = list(fingerprints)
        self._config = config
        self._hashes = _HashIndex(hash_distance)
        self._holders: defaultdict[str, list[int]] = defaultdict(list)
        for number, one in enumerate(self._all):
            self._hashes.add(number, one.phash)
            for ngram in one.ngrams:
                self._holders[ngram].append(number)

    def find(self, one: Fingerprint) -> Copy | None:
        """The benchmark's picture that `one` is or contains a part of, if any."""
        for number in self._hashes.near(one.phash):
            if same_picture(one, self._all[number], self._config.text_overlap):
                return Copy(reason="benchmark", of=self._all[number].row_id)
        common = Counter(number for ngram in one.ngrams for number in self._holders.get(ngram, ()))
        for number, count in sorted(common.items(), key=lambda found: (-found[1], found[0])):
            if count / min(len(one.ngrams), len(self._all[number].ngrams)) >= self._config.text_overlap:
                return Copy(reason="benchmark", of=self._all[number].row_id)
        return None


class _HashIndex:
    """Hashes within a distance, by the pigeonhole principle: of distance + 1 pieces of a hash one must be equal."""

    def __init__(self, distance: int) -> None:
        self._distance = distance
        edges = np.linspace(0, 64, distance + 2).round().astype(int)
        self._pieces = [(int(low), (1 << int(high - low)) - 1) for low, high in itertools.pairwise(edges)]
        self._buckets: defaultdict[tuple[int, int], list[int]] = defaultdict(list)
        self._hashes: dict[int, int] = {}

    def add(self, number: int, phash: int) -> None:
        self._hashes[number] = phash
        for piece, (shift, mask) in enumerate(self._pieces):
            self._buckets[piece, phash >> shift & mask].append(number)

    def near(self, phash: int) -> list[int]:
        """Numbers with a hash within the distance, sorted."""
        found: dict[int, None] = {}
        for piece, (shift, mask) in enumerate(self._pieces):
            for number in self._buckets.get((piece, phash >> shift & mask), ()):
                if number not in found and (self._hashes[number] ^ phash).bit_count() <= self._distance:
                    found[number] = None
        return sorted(found)


class _TextIndex:
    """Texts that may share much of their n-grams, by MinHash and banding (rensa)."""

    def __init__(self) -> None:
        from rensa import RMinHashLSH

        self._lsh = RMinHashLSH(0.5, _PERMUTATIONS, _BANDS)

    def add(self, number: int, found: frozenset[str]) -> None:
        if found:
            self._lsh.insert(number, _minhash(found))

    def near(self, found: frozenset[str]) -> list[int]:
        return sorted(self._lsh.query(_minhash(found))) if found else []


def _minhash(found: frozenset[str]) -> object:
    from rensa import RMinHash

    minhash = RMinHash(num_perm=_PERMUTATIONS, seed=1)
    minhash.update(sorted(found))
    return minhash
