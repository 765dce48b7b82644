"""How much text stands in a picture, by OCR: the detector first, the recogniser only where it found something."""

from dataclasses import dataclass
from typing import Literal

import numpy as np
import numpy.typing as npt

from datagen.ocr import PageLine, Recognizer, count_characters, quad_heights

DensityClass = Literal["none", "sparse", "medium", "dense"]

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


def measure_density(recognizer: Recognizer, image_HW3: npt.NDArray[np.uint8]) -> Density:
    """Count the characters of `image_HW3` (uint8 sRGB): 0.8 s a megapixel without text, 30 ms a line of text more."""
    quads = recognizer.detect(image_HW3)
    readings = recognizer.read_lines(image_HW3, quads)
    lines = tuple(
        PageLine(text=reading.text, score=reading.score, quad_px=quad)
        for reading, quad in zip(readings, quads, strict=True)
        if reading.score >= MIN_SCORE and reading.text.strip()
    )
    height, width = image_HW3.shape[:2]
    counts = [count_characters(line.text) for line in lines]
    characters = sum(counts)
    han = sum(_is_han(character) for line in lines for character in line.text)
    heights = np.repeat(quad_heights([line.quad_px for line in lines]), counts)
    return Density(
        characters=characters,
        characters_per_mp=characters / (width * height / 1e6),
        text_area=min(1.0, sum(quad_area(line.quad_px) for line in lines) / (width * height)),
        median_glyph_height_px=float(np.median(heights)) if characters else float("nan"),
        han_share=han / characters if characters else 0.0,
        lines=lines,
    )


def quad_area(quad: tuple[float, ...]) -> float:
    """Area of a quad in px^2 (shoelace formula)."""
    x, y = np.asarray(quad, np.float64).reshape(4, 2).T
    return float(abs(np.dot(x, np.roll(y, -1)) - np.dot(y, np.roll(x, -1))) / 2)


def _is_han(character: str) -> bool:
    # CJK Unified Ideographs, extension A, compatibility ideographs, extensions B and up.
    code = ord(character)
    return (
        0x4E00 <= code <= 0x9FFF or 0x3400 <= code <= 0x4DBF or 0xF900 <= code <= 0xFAFF or 0x20000 <= code <= 0x3FFFF
    )
