"""The cascade: a calibrated model decides the clear lines, OCR reads the uncertain ones.

Reading everything costs a hundred times the drawing. Most lines are plainly legible or plainly not, so reading is spent
where it changes most decisions for its cost: on lines whose chance is near one half, narrow ones first.
"""

import hashlib
import json
from collections.abc import Mapping, Sequence
from typing import Any

import msgspec
import numpy as np
import numpy.typing as npt

from datagen.agreement import clustered_interval
from datagen.judge import JudgeConfig, is_visible, reading_px
from datagen.legibility import FEATURES, LegibilityModel, fit_legibility
from fonts_manifest.errors import BadInput
from render_engine.spec import RenderedLine

_FOLDS = 5
_RIDGES = (3.0, 10.0, 30.0)
_MIN_LINES = 200
_CURVE_POINTS = 80
_BINS = 10
RULES = ("recognizer", "min_line_ned", "min_contrast", "min_colour_step")
"""Fields of `JudgeConfig` that decide whether a line is legible: a calibration holds for these only."""

COST = ("agreement", "ocr_share", "audit")
"""Fields that choose a point on its curve, and what is read beside."""

Array = npt.NDArray[np.float64]


class SampledLine(msgspec.Struct, frozen=True, kw_only=True):
    """A line that was read for a calibration."""

    features: tuple[float, ...]
    """`legibility.line_features`."""
    legibility: float
    """By OCR, see `judge.read_legibility`."""
    legible: bool
    """Whether that is enough."""
    visible: bool
    price_px: int
    """`judge.reading_px`: what reading it was thought to cost."""
    weight: float
    """Lines of its page over lines of it that were read: pages with many lines count with all of them."""


class CurvePoint(msgspec.Struct, frozen=True, kw_only=True):
    """What reading more lines brings."""

    threshold: float
    """Lines whose uncertainty (`worth`) is above this are read."""
    cost_share: float
    """Of reading every line, in pixels of the recogniser's input, 0 to 1."""
    lines_share: float
    """Share of the lines that are read."""
    agreement: float
    """Share of the lines decided as full OCR decides them, cross-validated."""
    low: float
    high: float
    """95 % interval of the agreement, lines clustered in pages."""


class Reliability(msgspec.Struct, frozen=True, kw_only=True):
    """Of the lines for which the model gave about this chance, how many were legible."""

    chance: float
    legible: float
    lines: int


class Calibration(msgspec.Struct, frozen=True, kw_only=True):
    """The model, what it was fitted on, and how far it can be trusted: the artefact beside a run."""

    model: LegibilityModel
    legibility_good: float
    """Mean relative NED of legible lines."""
    legibility_bad: float
    """The same of the others: what an unread line is worth to its page lies between the two."""
    curve: tuple[CurvePoint, ...]
    """From reading nothing to reading everything."""
    reliability: tuple[Reliability, ...]
    pages: int
    lines: int
    legible_share: float
    """Share of legible lines: what "keep everything" would agree on."""
    reader: str
    """Engine and models that read."""
    rules: dict[str, Any]
    """The fields RULES of the judge."""
    made_for: dict[str, str]
    """Name -> digest: pages, fonts, photographs, texts."""

    @property
    def digest(self) -> str:
        """SHA-256 of the whole calibration."""
        return hashlib.sha256(calibration_to_json(self)).hexdigest()

    def operating_point(self, config: JudgeConfig) -> CurvePoint:
        """The cheapest point of the curve with `config.agreement`; the dearest within `config.ocr_share` if none is."""
        within = [point for point in self.curve if point.cost_share <= config.ocr_share]
        return next((point for point in within if point.agreement >= config.agreement), within[-1])

    def expected_legibility(self, chance: float) -> float:
        """Relative NED to expect of a line with that chance of being legible."""
        return chance * self.legibility_good + (1 - chance) * self.legibility_bad


def line_chances(
    model: LegibilityModel, features_NF: Array, lines: Sequence[RenderedLine], config: JudgeConfig
) -> list[float]:
    """Chance of each line to be legible; 0 for those that nobody can see, which are illegible without any doubt."""
    chances = model.predict(features_NF).tolist() if lines else []
    return [chance if is_visible(line, config) else 0.0 for chance, line in zip(chances, lines, strict=True)]


def worth(chance: float, price_px: float) -> float:
    """What reading a line is worth: the chance that its unread decision is wrong, per 1,000 px of reading."""
    return 1000 * min(chance, 1 - chance) / price_px


def uncertain_lines(chances: Sequence[float], lines: Sequence[RenderedLine], threshold: float) -> list[int]:
    """Numbers of the lines that are to be read."""
    return [
        number
        for number, (chance, line) in enumerate(zip(chances, lines, strict=True))
        if chance and worth(chance, reading_px(line)) > threshold
    ]


def calibrate(
    pages: Sequence[Sequence[SampledLine]],
    config: JudgeConfig,
    *,
    reader: str = "",
    made_for: Mapping[str, str] | None = None,
) -> Calibration:
    """Fit the model to lines that were read; `pages` are those lines page by page.

    The curve and the reliability are cross-validated in 5 folds of pages: every line is judged by a model that has seen
    nothing of its page. Raises BadInput when there are fewer than 200 lines: nothing can be learned from so few.
    """
    lines = [line for page in pages for line in page]
    if len(lines) < _MIN_LINES:
        raise BadInput(
            f"judge: only {len(lines)} lines of {len(pages)} pages could be read, a calibration needs {_MIN_LINES}; "
            "raise judge.sample_pages"
        )
    page_N = np.repeat(np.arange(len(pages)), [len(page) for page in pages])
    features_NF = np.array([line.features for line in lines])
    legible_N = np.array([line.legible for line in lines])
    visible_N = np.array([line.visible for line in lines])
    weight_N = np.array([line.weight for line in lines])
    legibility_N = np.array([line.legibility for line in lines])

    def fit(take_N: npt.NDArray[np.bool_], ridge: float) -> LegibilityModel:
        # Half way between pages and lines: whole weights would leave the fit to the few pages with hundreds of lines.
        return fit_legibility(features_NF[take_N], legible_N[take_N], np.sqrt(weight_N[take_N]), ridge)

    def cross_validated(ridge: float) -> Array:
        chance_N = np.zeros(len(lines))
        for fold in range(_FOLDS):
            held_N = page_N % _FOLDS == fold
            if held_N.any():
                chance_N[held_N] = fit(~held_N & visible_N, ridge).predict(features_NF[held_N])
        chance_N[~visible_N] = 0.0
        return chance_N

    def deviance(chance_N: Array) -> float:
        likelihood_N = np.where(legible_N, chance_N, 1 - chance_N)
        return float(-(weight_N * np.log(np.maximum(likelihood_N, 1e-4)))[visible_N].sum())

    # Few lines, or hardly an illegible one, want a strong prior; the demo's hard pages a weak one.
    by_ridge = {ridge: cross_validated(ridge) for ridge in _RIDGES}
    ridge = min(by_ridge, key=lambda ridge: deviance(by_ridge[ridge]))
    chance_N = by_ridge[ridge]
    price_N = np.array([line.price_px for line in lines], np.float64)
    return Calibration(
        model=fit(visible_N, ridge),
        legibility_good=_mean(legibility_N[legible_N & visible_N], 1.0),
        legibility_bad=_mean(legibility_N[~legible_N & visible_N], 0.0),
        curve=_curve(chance_N, legible_N, price_N, weight_N, page_N),
        reliability=_reliability(chance_N, legible_N, weight_N),
        pages=len(pages),
        lines=len(lines),
        legible_share=_rounded(float((weight_N * legible_N).sum() / weight_N.sum())),
        reader=reader,
        rules=rules_of(config),
        made_for=dict(made_for or {}),
    )


def rules_of(config: JudgeConfig) -> dict[str, Any]:
    """What decides whether a line is legible."""
    return {name: getattr(config, name) for name in RULES}


def _curve(
    chance_N: Array, legible_N: npt.NDArray[np.bool_], price_N: Array, weight_N: Array, page_N: npt.NDArray[np.intp]
) -> tuple[CurvePoint, ...]:
    """Agreement against cost when the lines of the highest worth are read."""
    worth_N = 1000 * np.minimum(chance_N, 1 - chance_N) / price_N
    order_N = np.argsort(-worth_N, kind="stable")
    wrong_N = (chance_N >= 0.5) != legible_N
    cost_N = np.cumsum((weight_N * price_N)[order_N]) / (weight_N * price_N).sum()
    pages = int(page_N.max()) + 1
    trials_P = np.bincount(page_N, weight_N, pages).astype(np.float64)
    points = []
    # Close together where a cascade works, a tenth of the cost and less.
    for share in np.linspace(0, 1, _CURVE_POINTS) ** 2:
        count = int(np.searchsorted(cost_N, share, side="right"))
        unread_N = order_N[count:]
        wrong_P = np.bincount(page_N[unread_N], (weight_N * wrong_N)[unread_N], pages)
        right_P = trials_P - wrong_P.astype(np.float64)
        low, high = clustered_interval(right_P, trials_P)
        points.append(
            CurvePoint(
                # Between the last line that is read and the first that is not.
                threshold=_rounded(float(worth_N[unread_N[0]])) if len(unread_N) else -1.0,
                cost_share=_rounded(float(cost_N[count - 1]) if count else 0.0),
                lines_share=_rounded(1 - float(weight_N[unread_N].sum() / weight_N.sum())),
                agreement=_rounded(float(right_P.sum() / trials_P.sum())),
                low=_rounded(low),
                high=_rounded(high),
            )
        )
    return tuple(points)


def _reliability(chance_N: Array, legible_N: npt.NDArray[np.bool_], weight_N: Array) -> tuple[Reliability, ...]:
    """Lines in order of their chance, in ten parts that hold equally many illegible ones where there are any."""
    order_N = np.argsort(chance_N, kind="stable")
    mass_N = np.cumsum(weight_N[order_N] * (0.02 + ~legible_N[order_N]))
    parts_N = np.minimum((_BINS * mass_N / mass_N[-1]).astype(int), _BINS - 1)
    found = []
    for part in np.unique(parts_N):
        of_part_N = order_N[parts_N == part]
        weights_N = weight_N[of_part_N]
        found.append(
            Reliability(
                chance=_rounded(float(np.average(chance_N[of_part_N], weights=weights_N))),
                legible=_rounded(float(np.average(legible_N[of_part_N], weights=weights_N))),
                lines=len(of_part_N),
            )
        )
    return tuple(found)


def _mean(values_N: Array, default: float) -> float:
    return _rounded(float(values_N.mean())) if len(values_N) else default


def _rounded(value: float) -> float:
    return float(f"{value:.6g}")


def check_calibration(
    calibration: Calibration, config: JudgeConfig, made_for: Mapping[str, str], name: str = "calibration.json"
) -> None:
    """Raises BadInput when a calibration was made for other pages, inputs or rules: its figures would mean nothing."""
    theirs, ours = calibration.made_for | calibration.rules, dict(made_for) | rules_of(config)
    different = sorted(key for key in theirs.keys() | ours.keys() if theirs.get(key) != ours.get(key))
    if different:
        raise BadInput(
            f"{name}: was made for another recipe ({', '.join(different)} differ); "
            "run `glyphmill judge calibrate` with this one"
        )


def calibration_to_json(calibration: Calibration) -> bytes:
    """The calibration as JSON; equal calibrations give equal bytes."""
    return msgspec.json.format(msgspec.json.encode(calibration, order="sorted"), indent=1) + b"\n"


def calibration_from_json(data: bytes, name: str = "calibration.json") -> Calibration:
    """Read back what `calibration_to_json` wrote. Raises BadInput when it is none, or of another version."""
    try:
        calibration = msgspec.json.decode(data, type=Calibration)
        columns = {len(values) for values in json.loads(data)["model"].values()}
    except (msgspec.MsgspecError, ValueError) as error:
        raise BadInput(f"{name}: is no calibration of this version ({error})") from None
    if columns != {len(FEATURES)} or not calibration.curve or calibration.curve[0].cost_share:
        raise BadInput(f"{name}: is no calibration of this version (it has other features, or no curve)")
    return calibration
