"""The cascade: a calibrated model decides the clear lines, OCR reads the uncertain ones.

Reading everything costs a hundred times the drawing. Most lines are plainly legible or plainly not, so reading is spent
where it saves most wrong decisions for its cost: on lines whose chance is near one half, narrow ones first, and on the
lines of pages that may be other than they look.
"""

import hashlib
import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import msgspec
import numpy as np
import numpy.typing as npt

from datagen.agreement import clustered_interval
from datagen.judge import NOTHING_TO_GAIN, JudgeConfig, LineReading, clean_px, is_visible, read_legibility, reading_px
from datagen.legibility import FEATURES, LegibilityModel, fit_legibility
from datagen.page_effect import PageBelief, PageEffect, fit_page_effect, level_of, own_worth, read_where_it_pays
from fonts_manifest.errors import BadInput
from render_engine.spec import RenderedLine

_FOLDS = 10
_RIDGES = (3.0, 10.0, 30.0)
_MIN_LINES = 200
_CURVE_POINTS = 80
_LOWEST = 1e-5  # of thresholds, over the highest
_MOST_DEVIANCE = 9.2  # of a line: -log 1e-4; one mistake must not decide
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
    read_ned: float
    """Of the line as it stands in the picture."""
    price_px: int
    """`judge.reading_px`: what reading it costs."""
    clean_px: int
    """`judge.clean_px`: what its clean print costs on top, where that has to be read."""
    weight: float
    """Lines of its page over lines of it that were read: pages with many lines count with all of them."""


class CurvePoint(msgspec.Struct, frozen=True, kw_only=True):
    """What reading more lines brings."""

    threshold: float
    """Lines that are worth more than this are read, see `page_effect.worth`."""
    cost_share: float
    """Of full OCR's cost, in pixels of the recogniser's input, 0 to 1: below 1 even when every line is read, since
    the cascade reads clean print only where it decides."""
    lines_share: float
    """Share of the lines that are read."""
    agreement: float
    """Share of the lines decided as full OCR decides them, cross-validated. Small steps down are chance."""
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
    page_effect: PageEffect
    """How lines of a page hang together."""
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


def decide_lines(
    calibration: Calibration,
    features_NF: Array,
    lines: Sequence[RenderedLine],
    config: JudgeConfig,
    threshold: float,
    read: Callable[[int], LineReading],
) -> list[float]:
    """Chance of each line of a page to be legible, after the lines that are worth more than `threshold` were read.

    read: reads the line of that number, its clean print only where it decides. Lines that nobody can see are illegible
    without any doubt: 0, and never read.
    """
    visible = [number for number, line in enumerate(lines) if is_visible(line, config)]
    chances = [0.0] * len(lines)
    if not visible:
        return chances

    def level(place: int) -> int:
        reading = read(visible[place])
        seen = legibility_seen(reading.read_ned, read_legibility(reading, lines[visible[place]], config), config)
        return level_of(seen, config.min_line_ned)

    belief = PageBelief(calibration.model.logits(features_NF[visible]), calibration.page_effect)
    price_N = np.array([reading_px(lines[number]) for number in visible], np.float64)
    clean_N = np.array([clean_px(lines[number]) for number in visible], np.float64)
    read_where_it_pays(belief, price_N, clean_N, threshold, level)
    for number, chance in zip(visible, belief.chances().tolist(), strict=True):
        chances[number] = chance
    return chances


def legibility_seen(read_ned: float, legibility: float, config: JudgeConfig) -> float:
    """What the cascade gets to know of a line: less than full OCR where it does not read the clean print."""
    return read_ned if read_ned >= config.min_line_ned else legibility


def calibrate(
    pages: Sequence[Sequence[SampledLine]],
    config: JudgeConfig,
    *,
    reader: str = "",
    made_for: Mapping[str, str] | None = None,
) -> Calibration:
    """Fit the model to lines that were read; `pages` are those lines page by page.

    The curve and the reliability are cross-validated in 10 folds of pages: every line is judged by a model that has
    seen nothing of its page. Raises BadInput when there are fewer than 200 lines: nothing is learned from so few.
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
        logit_N = np.zeros(len(lines))
        for fold in range(_FOLDS):
            held_N = page_N % _FOLDS == fold
            if held_N.any():
                logit_N[held_N] = fit(~held_N & visible_N, ridge).logits(features_NF[held_N])
        return logit_N

    def deviance(logit_N: Array) -> float:
        wrong_N = np.logaddexp(0, np.where(legible_N, -logit_N, logit_N))
        return float((weight_N * np.minimum(wrong_N, _MOST_DEVIANCE))[visible_N].sum())

    # Few lines, or hardly an illegible one, want a strong prior; the demo's hard pages a weak one.
    by_ridge = {ridge: cross_validated(ridge) for ridge in _RIDGES}
    ridge = min(by_ridge, key=lambda ridge: deviance(by_ridge[ridge]))
    logit_N = by_ridge[ridge]
    levels = [level_of(legibility_seen(line.read_ned, line.legibility, config), config.min_line_ned) for line in lines]
    level_N = np.array(levels, np.intp)
    effect = fit_page_effect(logit_N[visible_N], level_N[visible_N], page_N[visible_N], np.sqrt(weight_N[visible_N]))
    sampled = [
        _sample_page(page, logit_N[page_N == number], level_N[page_N == number], effect, config)
        for number, page in enumerate(pages)
    ]
    return Calibration(
        model=fit(visible_N, ridge),
        legibility_good=_mean(legibility_N[legible_N & visible_N], 1.0),
        legibility_bad=_mean(legibility_N[~legible_N & visible_N], 0.0),
        page_effect=effect,
        curve=_curve(sampled),
        reliability=_reliability(np.concatenate([page.first_chance_n for page in sampled]), legible_N, weight_N),
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


@dataclass(frozen=True, slots=True)
class _State:
    """A page of the sample after some readings. n lines that can be seen."""

    worth: float
    """What the next reading is worth; no more than any before it."""
    read_n: npt.NDArray[np.bool_]
    own_worth_n: Array
    wrong_n: npt.NDArray[np.bool_]
    """Whether the line would be decided wrongly unread, by what the others say."""


@dataclass(frozen=True, slots=True)
class _SampledPage:
    """What the cascade would do to a page of which a sample of lines was read, at any threshold."""

    first_chance_n: Array
    """Of all lines, before any is read."""
    stands_for: float
    lines: float
    full_px: float
    paid_px_n: Array
    states: tuple[_State, ...]

    def outcome(self, threshold: float) -> tuple[float, float, float]:
        """Pixels paid, lines read and wrong decisions on the whole page.

        Every line stands for some of the page that are like it. Those worth reading for their own sake are all read; of
        the others only the one that was read for what it says about its page.
        """
        state = next((state for state in self.states if state.worth <= threshold), self.states[-1])
        read_n = np.where(state.own_worth_n > threshold, self.stands_for, np.where(state.read_n, 1.0, 0.0))
        return (
            float(read_n @ self.paid_px_n),
            float(read_n.sum()),
            float((self.stands_for - read_n) @ state.wrong_n),
        )


def _sample_page(
    lines: Sequence[SampledLine], logit_n: Array, level_n: npt.NDArray[np.intp], effect: PageEffect, config: JudgeConfig
) -> _SampledPage:
    """Read the lines of a page in the order of the cascade, to the last."""
    visible_n = np.array([line.visible for line in lines])
    seen = [line for line in lines if line.visible]
    stands_for = lines[0].weight
    belief = PageBelief(logit_n[visible_n], effect, stands_for=stands_for)
    first_chance_n = np.zeros(len(lines))
    first_chance_n[visible_n] = belief.chances()
    price_n = np.array([line.price_px for line in seen], np.float64)
    clean_n = np.array([line.clean_px for line in seen], np.float64)
    legible_n = np.array([line.legible for line in seen])
    states, read_n, least = [], np.zeros(len(seen), bool), np.inf
    while True:
        number, value = belief.next_line(price_n, clean_n)
        least = min(least, value)
        chances = belief.chances_by_others().tolist()
        own = [own_worth(c, line.price_px, line.clean_px) for c, line in zip(chances, seen, strict=True)]
        states.append(
            _State(
                least if number >= 0 else -np.inf, read_n.copy(), np.array(own), (np.array(chances) >= 0.5) != legible_n
            )
        )
        if number < 0:
            break
        belief.learn(number, int(level_n[visible_n][number]))
        read_n[number] = True
    return _SampledPage(
        first_chance_n=first_chance_n,
        stands_for=stands_for,
        lines=stands_for * len(lines),
        full_px=stands_for * float(_paid_px(lines, NOTHING_TO_GAIN).sum()),
        paid_px_n=_paid_px(seen, config.min_line_ned),
        states=tuple(states),
    )


def _paid_px(lines: Sequence[SampledLine], good_enough: float) -> Array:
    """What reading each line came to, its clean print included when it was read below `good_enough`."""
    return np.array([line.price_px + line.clean_px * (line.read_ned < good_enough) for line in lines], np.float64)


def _curve(pages: Sequence[_SampledPage]) -> tuple[CurvePoint, ...]:
    """Agreement against cost, from the threshold above which nothing is worth reading to reading everything."""
    lines_P, full_px = np.array([page.lines for page in pages]), sum(page.full_px for page in pages)
    highest = max(max(page.states[0].worth, *page.states[0].own_worth_n.tolist(), 0.0) for page in pages)
    points = []
    for threshold in [*(highest * np.geomspace(1, _LOWEST, _CURVE_POINTS)).tolist(), -1.0]:
        paid_P, read_P, wrong_P = np.array([page.outcome(threshold) for page in pages]).T
        low, high = clustered_interval(lines_P - wrong_P, lines_P)
        points.append(
            CurvePoint(
                threshold=_rounded(threshold),
                cost_share=_rounded(float(paid_P.sum()) / full_px),
                lines_share=_rounded(float(read_P.sum() / lines_P.sum())),
                agreement=_rounded(1 - float(wrong_P.sum() / lines_P.sum())),
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
