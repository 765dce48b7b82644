"""Is the text of a synthetic page legible? By reading it, or by a rule calibrated on pages that were read.

A line is judged against the clean print of the same line (black on white, same face and size): below 8 px the reader
fails even on perfect print, and what it cannot read there is not the fault of the picture.
"""

import hashlib
import json
import os
import uuid
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from pydantic import Field

from datagen.calibrate import LegibilityModel, fit_legibility, line_features, wilson_interval
from datagen.ocr import Recognizer, count_characters, ned
from datagen.verdict import Verdict
from fonts_manifest.config import Config
from fonts_manifest.errors import BadInput
from render_engine.spec import RenderedLine, RenderedPage

if TYPE_CHECKING:
    from render_engine.render import Assets

CLEAN_BELOW_PX = 8.0
"""From this em on, clean print is read at .99 and better (11 faces, English and Chinese): its NED is taken as 1.0."""
_CLEAN_BELOW_INK_PX = 6.0  # the same for faces that draw small for their em
_NOTHING_TO_GAIN = 0.98  # NED above which dividing by the clean NED cannot matter
_CERTIFIABLE = 0.3
"""Clean NED under which the reader knows nothing about a line (LXGW WenKai at 5 px: .16): contrast decides then."""
_FOLDS = 5


class JudgeConfig(Config):
    """When text counts as legible."""

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
    sample_pages: int = Field(default=320, ge=300)
    """Pages that are read in full: the sample of the calibration and the audit of the rules."""


@dataclass(frozen=True, slots=True, kw_only=True)
class LineReading:
    """What reading a line came to."""

    read_ned: float
    """NED of the text in the picture against the text drawn."""
    clean_ned: float
    """The same for the clean print of the line; 1.0 where it was not read because it could not matter."""
    features: tuple[float, ...] = ()
    """`calibrate.line_features` of the line, so that a calibration needs no pixels."""

    @property
    def relative_ned(self) -> float | None:
        """`read_ned / clean_ned`, at most 1; None when the clean print cannot be read either."""
        return min(1.0, self.read_ned / self.clean_ned) if self.clean_ned >= _CERTIFIABLE else None


def read_lines(recognizer: Recognizer, page: RenderedPage, assets: "Assets") -> list[LineReading]:
    """Read every line of `page` at its known place, and its clean print where that matters (small and misread)."""
    from render_engine.render import render_clean_line

    readings = []
    features_NF = line_features(page.lines, page.image_HW3)
    seen = recognizer.read_lines(page.image_HW3, [_with_margin(line) for line in page.lines])
    for line, reading, features_F in zip(page.lines, seen, features_NF, strict=True):
        read_ned, clean_ned = ned(line.text, reading.text), 1.0
        small = line.size_px < CLEAN_BELOW_PX or line.ink_height_px < _CLEAN_BELOW_INK_PX
        if small and read_ned < _NOTHING_TO_GAIN:
            clean_HW3 = render_clean_line(line, assets)
            height, width = clean_HW3.shape[:2]
            whole = (0.0, 0.0, float(width), 0.0, float(width), float(height), 0.0, float(height))
            clean_ned = ned(line.text, recognizer.read_lines(clean_HW3, [whole])[0].text)
        readings.append(LineReading(read_ned=read_ned, clean_ned=clean_ned, features=tuple(features_F.tolist())))
    return readings


def _with_margin(line: RenderedLine) -> list[float]:
    """The line's quad grown by a fifth of its ink height above and below, a tenth before and behind.

    The reader was trained on boxes with some air: 1,860 drawn lines are read at .788 so and at .777 without, those
    below 8 px at .659 and .640.
    """
    start_top, end_top, end_bottom, start_bottom = np.asarray(line.quad_px, np.float64).reshape(4, 2)
    along, down = end_top - start_top, start_bottom - start_top
    along *= 0.1 * line.ink_height_px / max(1e-6, float(np.linalg.norm(along)))
    down *= 0.2 * line.ink_height_px / max(1e-6, float(np.linalg.norm(down)))
    corners = (start_top - along - down, end_top + along - down, end_bottom + along + down, start_bottom - along + down)
    return np.concatenate(corners).tolist()


def judge_read(readings: Sequence[LineReading], page: RenderedPage, config: JudgeConfig) -> Verdict:
    """The verdict of OCR. Its score is the page's mean relative NED, weighted by characters."""
    legibility = [_read_legibility(r, line, config) for r, line in zip(readings, page.lines, strict=True)]
    return _page_verdict(page.lines, legibility, config, config.min_line_ned, config.min_page_ned)


def page_ned(readings: Sequence[LineReading], page: RenderedPage) -> float | None:
    """Mean relative NED over the lines that can be certified, weighted by characters; None when there is none."""
    pairs = [
        (reading.relative_ned, count_characters(line.text)) for reading, line in zip(readings, page.lines, strict=True)
    ]
    known = [(value, weight) for value, weight in pairs if value is not None and weight]
    return sum(value * weight for value, weight in known) / sum(weight for _, weight in known) if known else None


def _visible(line: RenderedLine, config: JudgeConfig) -> bool:
    difference = np.subtract(line.ink_rgb, line.ground_rgb, dtype=np.float64)
    return float(line.opacity * np.sqrt((difference**2).mean())) >= config.min_colour_step


def _read_legibility(reading: LineReading, line: RenderedLine, config: JudgeConfig) -> float:
    relative = reading.relative_ned
    return relative if relative is not None else float(line.contrast >= config.min_contrast)


def _page_verdict(
    lines: Sequence[RenderedLine],
    legibility: Sequence[float],
    config: JudgeConfig,
    line_floor: float,
    page_floor: float,
) -> Verdict:
    characters = [count_characters(line.text) for line in lines]
    if not sum(characters):
        return Verdict(keep=False, reason="no_text", score=0.0)
    if sum(characters) < config.min_characters:
        return Verdict(keep=False, reason="too_few_characters", score=float(sum(characters)))
    visible = [_visible(line, config) for line in lines]
    legibility = [value if seen else 0.0 for value, seen in zip(legibility, visible, strict=True)]
    score = sum(value * weight for value, weight in zip(legibility, characters, strict=True)) / sum(characters)
    bad = [number for number in range(len(lines)) if legibility[number] < line_floor or not visible[number]]
    if score >= page_floor and len(bad) <= config.max_bad_lines * len(lines):
        return Verdict(keep=True, score=score)
    faint = sum(lines[number].contrast < config.min_contrast or not visible[number] for number in bad)
    return Verdict(keep=False, reason="low_contrast" if faint * 2 > len(bad) else "illegible", score=score)


@dataclass(frozen=True, slots=True, kw_only=True)
class Agreement:
    """Decisions of the rules beside those of OCR on pages (or lines) that the rules had not seen."""

    both_keep: int
    both_drop: int
    false_keep: int
    """Kept by the rules, dropped by OCR."""
    false_drop: int
    """Dropped by the rules, kept by OCR."""

    @property
    def trials(self) -> int:
        """How many were compared."""
        return self.both_keep + self.both_drop + self.false_keep + self.false_drop

    @property
    def share(self) -> float:
        """Equal decisions over all, 0 to 1."""
        return (self.both_keep + self.both_drop) / self.trials if self.trials else 1.0

    @property
    def interval(self) -> tuple[float, float]:
        """95 % interval of `share`."""
        return wilson_interval(self.both_keep + self.both_drop, self.trials)


@dataclass(frozen=True, slots=True, kw_only=True)
class Calibration:
    """The rules, what they were fitted on, and how far they can be trusted."""

    model: LegibilityModel
    line_threshold: float
    """Predicted legibility under which a line counts as bad."""
    page_threshold: float
    """Predicted mean legibility under which a page goes."""
    pages_read: int
    lines_read: int
    lines_uncertifiable: int
    """Lines whose clean print the reader cannot read, or that nobody can see: contrast or colour decided for them, and
    the model was not fitted on them."""
    page_agreement: Agreement
    """Cross-validated in 5 folds of pages, thresholds included."""
    line_agreement: Agreement
    read_keep_share: float
    """Share of the sample that OCR keeps: what "keep everything" would agree on."""
    recognizer: str
    config: JudgeConfig
    addresses: tuple[tuple[int, int, int], ...]
    """(shard, row, attempt) of the pages that were read."""

    @property
    def digest(self) -> str:
        """SHA-256 of the whole calibration."""
        return hashlib.sha256(calibration_to_json(self).encode()).hexdigest()


def calibrate(
    readings: Sequence[Sequence[LineReading]],
    pages: Sequence[RenderedPage],
    config: JudgeConfig,
    *,
    addresses: Sequence[tuple[int, int, int]] = (),
    recognizer: str = "",
) -> Calibration:
    """Fit the rules to pages that were read; only their lines are used, the pixels went into `LineReading.features`.

    Raises BadInput when fewer than 50 lines could be read: nothing can be learned from so few.
    """
    lines = [line for page in pages for line in page.lines]
    page_N = np.repeat(np.arange(len(pages)), [len(page.lines) for page in pages])
    flat = [reading for page_readings in readings for reading in page_readings]
    known_N = np.array(
        [r.relative_ned is not None and _visible(line, config) for r, line in zip(flat, lines, strict=True)], bool
    )
    if known_N.sum() < 50:
        raise BadInput(
            f"judge: only {int(known_N.sum())} lines of {len(pages)} pages could be read, a calibration needs 50; "
            "read more pages"
        )
    truth_N = np.array([_read_legibility(r, line, config) for r, line in zip(flat, lines, strict=True)])
    features_NF = np.array([reading.features for reading in flat])
    weight_N = np.sqrt([max(1, count_characters(line.text)) for line in lines])
    truth_keep = [judge_read(r, page, config).keep for r, page in zip(readings, pages, strict=True)]

    def fit(take_N: Any) -> tuple[LegibilityModel, float, float]:
        chosen_N = take_N & known_N
        model = fit_legibility(features_NF[chosen_N], truth_N[chosen_N], weight_N[chosen_N])
        predicted_N = model.predict(features_NF)
        line_floor = _best_threshold(predicted_N[chosen_N], truth_N[chosen_N] >= config.min_line_ned)
        inside = [number for number in range(len(pages)) if take_N[page_N == number].any()]
        page_floor = _best_page_threshold(
            [(pages[n].lines, predicted_N[page_N == n], truth_keep[n]) for n in inside], config, line_floor
        )
        return model, line_floor, page_floor

    page_counts, line_counts = np.zeros((2, 2), int), np.zeros((2, 2), int)
    for fold in range(_FOLDS):
        held_N = page_N % _FOLDS == fold
        model, line_floor, page_floor = fit(~held_N)
        predicted_N = model.predict(features_NF)
        for number in range(fold, len(pages), _FOLDS):
            verdict = _page_verdict(
                pages[number].lines, predicted_N[page_N == number].tolist(), config, line_floor, page_floor
            )
            page_counts[int(verdict.keep), int(truth_keep[number])] += 1
        for kept, is_good in zip(
            predicted_N[held_N & known_N] >= line_floor, truth_N[held_N & known_N] >= config.min_line_ned, strict=True
        ):
            line_counts[int(kept), int(is_good)] += 1
    model, line_floor, page_floor = fit(np.ones(len(lines), bool))
    return Calibration(
        model=model,
        line_threshold=round(line_floor, 6),
        page_threshold=round(page_floor, 6),
        pages_read=len(pages),
        lines_read=int(known_N.sum()),
        lines_uncertifiable=int((~known_N).sum()),
        page_agreement=_agreement(page_counts),
        line_agreement=_agreement(line_counts),
        read_keep_share=sum(truth_keep) / len(truth_keep),
        recognizer=recognizer,
        config=config,
        addresses=tuple(addresses),
    )


def judge_by_rules(page: RenderedPage, calibration: Calibration, config: JudgeConfig) -> tuple[Verdict, list[float]]:
    """The verdict of the calibrated rules, and the predicted legibility of every line, 0 to 1."""
    legibility = calibration.model.predict(line_features(page.lines, page.image_HW3)).tolist()
    floors = (calibration.line_threshold, calibration.page_threshold)
    return _page_verdict(page.lines, legibility, config, *floors), legibility


def _agreement(counts_rules_truth: Any) -> Agreement:
    (both_drop, false_drop), (false_keep, both_keep) = counts_rules_truth.tolist()
    return Agreement(both_keep=both_keep, both_drop=both_drop, false_keep=false_keep, false_drop=false_drop)


def _best_threshold(predicted_N: Any, good_N: Any) -> float:
    """The cut between two predictions that separates good lines from bad ones with the fewest errors."""
    order = np.argsort(predicted_N, kind="stable")
    sorted_N, good_sorted_N = predicted_N[order], good_N[order]
    # Cut k: the k lowest are called bad. Errors: good ones below, bad ones above.
    errors = np.concatenate(([0], np.cumsum(good_sorted_N))) + np.concatenate(
        ([(~good_sorted_N).sum()], (~good_sorted_N).sum() - np.cumsum(~good_sorted_N))
    )
    best = int(errors.argmin())
    edges = np.concatenate(([0.0], sorted_N, [1.0]))
    return float((edges[best] + edges[best + 1]) / 2) if best else 0.0


def _best_page_threshold(
    pages: Sequence[tuple[Sequence[RenderedLine], Any, bool]], config: JudgeConfig, line_floor: float
) -> float:
    candidates = np.linspace(0.0, 0.95, 39)
    errors = [
        sum(
            _page_verdict(lines, predicted.tolist(), config, line_floor, float(floor)).keep != keep
            for lines, predicted, keep in pages
        )
        for floor in candidates
    ]
    ties = np.flatnonzero(np.array(errors) == min(errors))
    return float(candidates[ties[len(ties) // 2]])


def calibration_to_json(calibration: Calibration) -> str:
    """The calibration as JSON; equal calibrations give equal strings."""
    data = asdict(calibration) | {"config": calibration.config.model_dump(mode="json")}
    return json.dumps(data, ensure_ascii=False, sort_keys=True, indent=1) + "\n"


def calibration_from_json(text: str, name: str = "calibration.json") -> Calibration:
    """Read back what `calibration_to_json` wrote. Raises BadInput when it is none."""
    try:
        data: dict[str, Any] = json.loads(text)
        model = {key: tuple(values) for key, values in data.pop("model").items()}
        return Calibration(
            model=LegibilityModel(**model),
            page_agreement=Agreement(**data.pop("page_agreement")),
            line_agreement=Agreement(**data.pop("line_agreement")),
            config=JudgeConfig.model_validate(data.pop("config")),
            addresses=tuple((int(s), int(r), int(a)) for s, r, a in data.pop("addresses")),
            **data,
        )
    except (ValueError, TypeError, KeyError, AttributeError) as error:
        raise BadInput(f"{name}: is no calibration of this version ({type(error).__name__}: {error})") from None


def save_calibration(calibration: Calibration, path: Path) -> None:
    """Write the calibration so that readers see all of it or nothing."""
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name}.{uuid.uuid4().hex}")
    try:
        temporary.write_text(calibration_to_json(calibration), encoding="utf-8")
        os.replace(temporary, path)
    except OSError as error:
        temporary.unlink(missing_ok=True)
        raise BadInput(f"{path}: cannot be written ({error.strerror})") from None


def load_calibration(path: Path) -> Calibration:
    """Read what `save_calibration` wrote. Raises BadInput when it is missing or damaged."""
    try:
        return calibration_from_json(path.read_text(encoding="utf-8"), str(path))
    except (OSError, UnicodeDecodeError) as error:
        raise BadInput(f"{path}: cannot be read ({error})") from None
