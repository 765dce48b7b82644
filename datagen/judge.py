"""Is the text of a synthetic page legible? The rules of the judge, and what reading a line says.

A line is judged against the clean print of the same line (black on white, same face and size): below 8 px the reader
fails even on perfect print, and what it cannot read there is not the fault of the picture. Which lines are read at all
is decided in `cascade`.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from pydantic import Field

from datagen.legibility import colour_step, quad_as_read
from datagen.ocr import Recognizer, count_characters, ned
from datagen.ppocr import input_width
from datagen.verdict import Verdict
from fonts_manifest.config import Config
from render_engine.spec import RenderedLine, RenderedPage

if TYPE_CHECKING:
    from render_engine.render import Assets

CLEAN_BELOW_PX = 8.0
"""From this em on, clean print is read at .99 and better (11 faces, English and Chinese): its NED is taken as 1.0."""
_CLEAN_BELOW_INK_PX = 6.0  # the same for faces that draw small for their em
NOTHING_TO_GAIN = 0.98
"""NED above which dividing by the clean NED cannot matter."""
_DRAWING_PX = 60
"""Pixels of the recogniser's input that cost as much as drawing clean print (6 ms where a pixel takes .1)."""
_NO_RULES = {ord("_"): None, ord("\uff3f"): None}
_CERTIFIABLE = 0.3
"""Clean NED under which the reader knows nothing about a line (LXGW WenKai at 5 px: .16): contrast decides then."""


class JudgeConfig(Config):
    """When text counts as legible, and how much of it is read to know. docs/judge.md explains the cascade."""

    recognizer: str = "rapidocr"
    """The reader, as `glyphmill bench ocr` lists them."""
    min_line_ned: float = Field(default=0.6, ge=0, le=1)
    """A line is bad when its NED relative to its clean print is below this. Hard but legible text should stay."""
    max_bad_lines: float = Field(default=0.3, ge=0, le=1)
    """A page goes when a larger share of its lines is bad."""
    min_page_ned: float = Field(default=0.7, ge=0, le=1)
    """A page goes when the mean of its lines' relative NED, weighted by characters, is below this."""
    min_characters: int = Field(default=4, ge=1)
    """A page with fewer characters (blanks not counted) goes."""
    min_contrast: float = Field(default=1.5, ge=1, le=21)
    """WCAG ratio that decides for a line whose clean print the reader cannot read either; it also tells "low_contrast"
    from "illegible" as the reason of a drop."""
    min_colour_step: float = Field(default=16.0, ge=0, le=255)
    """Least difference of ink (at its opacity) and mean ground, RMS over RGB. A line below it is bad whatever OCR says:
    PP-OCR reads 254 on 255, which nobody can see. 16 is a WCAG ratio of 1.15 on white."""
    calibration: str | None = None
    """A calibration.json of `glyphmill judge calibrate` for the same pages, fonts, photographs and texts; null: one is
    made when the run starts."""
    sample_pages: int = Field(default=400, ge=50)
    """Pages of which a few lines each are read to calibrate; they are none of the run's. A run of at most a quarter as
    many is read in full instead, which costs less."""
    agreement: float = Field(default=0.99, ge=0.5, le=1)
    """So many decisions about lines should be those of full OCR: uncertain lines are read until that is expected."""
    ocr_share: float = Field(default=0.05, ge=0, le=1)
    """The most that reading uncertain lines may cost, as a share of reading every line; an expectation. Runs of some
    fifty pages have cost half as much again: with .05 they stay below a tenth."""
    audit: float = Field(default=0.01, ge=0, le=1)
    """Share of the pages, taken at random, that are read in full to measure the error; it comes on top."""


@dataclass(frozen=True, slots=True, kw_only=True)
class LineReading:
    """What reading a line came to."""

    read_ned: float
    """NED of the text in the picture against the text drawn."""
    clean_ned: float
    """The same for the clean print of the line; 1.0 where it was not read because it could not matter."""

    @property
    def relative_ned(self) -> float | None:
        """`read_ned / clean_ned`, at most 1; None when the clean print cannot be read either."""
        return min(1.0, self.read_ned / self.clean_ned) if self.clean_ned >= _CERTIFIABLE else None


def read_lines(
    recognizer: Recognizer,
    page: RenderedPage,
    assets: "Assets",
    numbers: Sequence[int] | None = None,
    *,
    good_enough: float = NOTHING_TO_GAIN,
) -> list[LineReading]:
    """Read lines of `page` at their known places, and their clean print where that matters (small and misread).

    numbers: which lines, all unless given; the readings come in their order. good_enough: NED from which the clean
    print is not read: `min_line_ned` for those who only want to know whether the line is legible.
    """
    from render_engine.render import render_clean_line

    readings = []
    lines = page.lines if numbers is None else [page.lines[number] for number in numbers]
    seen = recognizer.read_lines(page.image_HW3, [quad_as_read(line) for line in lines])
    for line, reading in zip(lines, seen, strict=True):
        read_ned, clean_ned = _ned(line.text, reading.text), 1.0
        if is_small(line) and read_ned < good_enough:
            clean_HW3 = render_clean_line(line, assets)
            height, width = clean_HW3.shape[:2]
            whole = (0.0, 0.0, float(width), 0.0, float(width), float(height), 0.0, float(height))
            clean_ned = _ned(line.text, recognizer.read_lines(clean_HW3, [whole])[0].text)
        readings.append(LineReading(read_ned=read_ned, clean_ned=clean_ned))
    return readings


def _ned(text: str, read: str) -> float:
    """`ned` without the rules that a form leaves to be written on: they are drawn as characters, and no reader spells
    them ("Name: ______" is read as "Name:" on the cleanest print)."""
    return ned(text.translate(_NO_RULES), read.translate(_NO_RULES))


def is_small(line: RenderedLine) -> bool:
    """Whether even the clean print of a line may be misread."""
    return line.size_px < CLEAN_BELOW_PX or line.ink_height_px < _CLEAN_BELOW_INK_PX


def reading_px(line: RenderedLine) -> int:
    """What reading a line costs, in pixels of the recogniser's input: its width. What else there is to do is below a
    millisecond."""
    corners_42 = np.asarray(quad_as_read(line)).reshape(4, 2)
    along, down = (float(np.linalg.norm(corners_42[corner] - corners_42[0])) for corner in (1, 3))
    width, height = (along, down) if down < 1.5 * along else (down, along)
    return input_width(width, max(1.0, height))


def clean_px(line: RenderedLine) -> int:
    """What drawing and reading its clean print costs, which is about as wide; 0 where it is taken as read."""
    return reading_px(line) + _DRAWING_PX if is_small(line) else 0


def read_legibility(reading: LineReading, line: RenderedLine, config: JudgeConfig) -> float:
    """Relative NED of a line that was read, 0 to 1; contrast decides (0 or 1) where clean print cannot be read either,
    and what nobody can see is 0."""
    if not is_visible(line, config):
        return 0.0
    relative = reading.relative_ned
    return relative if relative is not None else float(line.contrast >= config.min_contrast)


def is_visible(line: RenderedLine, config: JudgeConfig) -> bool:
    """Whether anybody could see the line at all."""
    return colour_step(line) >= config.min_colour_step


def judge_read(readings: Sequence[LineReading], page: RenderedPage, config: JudgeConfig) -> Verdict:
    """The verdict of OCR on a page read in full. Its score is the mean relative NED, weighted by characters."""
    legibility = [read_legibility(r, line, config) for r, line in zip(readings, page.lines, strict=True)]
    return judge_page(page.lines, legibility, [value >= config.min_line_ned for value in legibility], config)


def page_ned(readings: Sequence[LineReading], page: RenderedPage) -> float | None:
    """Mean relative NED over the lines that can be certified, weighted by characters; None when there is none."""
    pairs = [
        (reading.relative_ned, count_characters(line.text)) for reading, line in zip(readings, page.lines, strict=True)
    ]
    known = [(value, weight) for value, weight in pairs if value is not None and weight]
    return sum(value * weight for value, weight in known) / sum(weight for _, weight in known) if known else None


def judge_page(
    lines: Sequence[RenderedLine], legibility: Sequence[float], legible: Sequence[bool], config: JudgeConfig
) -> Verdict:
    """The verdict on a page from its lines: their (expected) relative NED, and which of them count as legible."""
    characters = [count_characters(line.text) for line in lines]
    if not sum(characters):
        return Verdict(keep=False, reason="no_text", score=0.0)
    if sum(characters) < config.min_characters:
        return Verdict(keep=False, reason="too_few_characters", score=float(sum(characters)))
    score = sum(value * weight for value, weight in zip(legibility, characters, strict=True)) / sum(characters)
    bad = [line for line, good in zip(lines, legible, strict=True) if not good]
    if score >= config.min_page_ned and len(bad) <= config.max_bad_lines * len(lines):
        return Verdict(keep=True, score=score)
    faint = sum(line.contrast < config.min_contrast or not is_visible(line, config) for line in bad)
    return Verdict(keep=False, reason="low_contrast" if faint * 2 > len(bad) else "illegible", score=score)
