"""How much text stands in a picture, by OCR: the detector first, the recogniser only where it found something."""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import cv2
import numpy as np
import numpy.typing as npt

from datagen.ocr import PageLine, Quad, Recognizer, count_characters, quad_heights

DensityClass = Literal["none", "sparse", "medium", "dense"]

GLANCE_PX = 736
"""Long side of the picture that the first look of the detector sees."""

MIN_SCORE = 0.5
"""Readings below it are not text: patterns and textures give single letters at .1 to .5 (rapidocr's own limit too)."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Density:
    """The text of one picture."""

    characters: int
    """Blanks not counted."""
    characters_per_mp: float
    """Characters over megapixels."""
    text_area: float
    """Share of the picture inside the quads of the lines, 0 to 1 (overlaps counted twice, then cut at 1)."""
    median_glyph_height_px: float
    """Median over the characters of the height of their line's quad, px; nan without text."""
    han_share: float
    """Han characters among all, 0 to 1; 0 without text."""
    read_score: float
    """The reader's mean confidence over the characters, 0 to 1; nan without text."""
    repeated_text: float
    """Share of characters in lines (of four and more) that stand in the picture three times and more: marks laid over
    it, or a form."""
    lines: tuple[PageLine, ...]
    """In mended reading order."""

    @property
    def density_class(self) -> DensityClass:
        """See `density_class`."""
        return density_class(self.characters, self.characters_per_mp)


def density_class(characters: int, characters_per_mp: float) -> DensityClass:
    """none below 5 characters or 30 a megapixel, sparse below 300, medium below 900, dense from there on.

    On 42 real pictures labelled by eye the medians are 0, 65, 503 and 2,272; labelled sparse reach 279, dense start at
    982. Scattered signs and pages of text part between 700 and 1,000.
    """
    if characters < 5 or characters_per_mp < 30:
        return "none"
    if characters_per_mp < 300:
        return "sparse"
    return "medium" if characters_per_mp < 900 else "dense"


def glance(recognizer: Recognizer, image_HW3: npt.NDArray[np.uint8]) -> tuple[list[Quad], bool]:
    """Where text seems to stand, found on the picture shrunk to a long side of 736 px, and whether it had to be shrunk.

    A quarter of the detector's full cost at 1280 px. Quads are in px of the picture itself.
    """
    shrink = max(image_HW3.shape[:2]) / GLANCE_PX
    if shrink <= 1:
        return list(recognizer.detect(image_HW3)), False
    height, width = (max(1, round(side / shrink)) for side in image_HW3.shape[:2])
    small_HW3 = cv2.resize(image_HW3, (width, height), interpolation=cv2.INTER_AREA)
    return [tuple(shrink * v for v in quad) for quad in recognizer.detect(small_HW3)], True


def character_bounds(quads: Sequence[Quad], *, glanced: bool) -> tuple[float, float]:
    """(fewest, most) characters that stand in `quads`, told from their shapes.

    Length over height, summed, is 1 for a Han character and 2 to 3 for Latin ones. On 52 labelled pictures, 15 crops
    and 5 pages the true count was 1.2 to 2.9 times that (1.2 to 14.4 after a glance, which runs small lines together,
    and up to 4 characters where a glance saw nothing); the bounds leave more room.
    """
    if not quads:
        return 0.0, 100.0 if glanced else 0.0
    corners_N42 = np.asarray(quads, np.float64).reshape(-1, 4, 2)
    side_N4 = np.linalg.norm(np.roll(corners_N42, -1, axis=1) - corners_N42, axis=2)
    across_N, down_N = side_N4[:, ::2].mean(axis=1), side_N4[:, 1::2].mean(axis=1)
    lengths = float((np.maximum(across_N, down_N) / np.maximum(1.0, np.minimum(across_N, down_N))).sum())
    # Patterns give single quads that turn out to hold nothing, so few quads promise nothing.
    fewest = max(0.0, 0.8 * lengths - 20)
    return fewest, (25 * lengths + 100) if glanced else (4 * lengths + 10)


def measure_density(
    recognizer: Recognizer, image_HW3: npt.NDArray[np.uint8], quads: Sequence[Quad] | None = None
) -> Density:
    """Count the characters of `image_HW3` (uint8 sRGB): 0.5 s a megapixel without text, 30 ms a line of text more.

    quads: the detector's, when it has already looked.
    """
    quads = recognizer.detect(image_HW3) if quads is None else quads
    readings = recognizer.read_lines(image_HW3, quads)
    lines = tuple(
        PageLine(text=reading.text, score=reading.score, quad_px=quad)
        for reading, quad in zip(readings, quads, strict=True)
        if reading.score >= MIN_SCORE and reading.text.strip()
    )
    height, width = image_HW3.shape[:2]
    counts = [count_characters(line.text) for line in lines]
    characters = sum(counts)
    han = sum(is_han(character) for line in lines for character in line.text)
    heights = np.repeat(quad_heights([line.quad_px for line in lines]), counts)
    return Density(
        characters=characters,
        characters_per_mp=characters / (width * height / 1e6),
        text_area=min(1.0, sum(quad_area(line.quad_px) for line in lines) / (width * height)),
        median_glyph_height_px=float(np.median(heights)) if characters else float("nan"),
        han_share=han / characters if characters else 0.0,
        read_score=float(np.average([line.score for line in lines], weights=counts)) if characters else float("nan"),
        repeated_text=_repeated_text([line.text for line in lines], counts),
        lines=lines,
    )


def _repeated_text(texts: Sequence[str], counts: Sequence[int]) -> float:
    """Share of the characters in lines of four characters and more whose text stands there three times and more."""
    times = Counter(text.casefold().strip() for text in texts)
    again = sum(n for text, n in zip(texts, counts, strict=True) if n >= 4 and times[text.casefold().strip()] >= 3)
    return again / sum(counts) if sum(counts) else 0.0


def quad_area(quad: tuple[float, ...]) -> float:
    """Area of a quad in px^2 (shoelace formula)."""
    x, y = np.asarray(quad, np.float64).reshape(4, 2).T
    return float(abs(np.dot(x, np.roll(y, -1)) - np.dot(y, np.roll(x, -1))) / 2)


def is_han(character: str) -> bool:
    """Whether it is a Han character."""
    # CJK Unified Ideographs, extension A, compatibility ideographs, extensions B and up.
    code = ord(character)
    return (
        0x4E00 <= code <= 0x9FFF or 0x3400 <= code <= 0x4DBF or 0xF900 <= code <= 0xFAFF or 0x20000 <= code <= 0x3FFFF
    )
