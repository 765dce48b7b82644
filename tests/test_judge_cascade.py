"""The cascade without a reader: features of pixels, the model, its curve, which lines are read, what is counted."""

import dataclasses

import msgspec
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from test_judge_rules import line, page

from datagen.agreement import Agreement, clustered_interval, compare, wilson_interval
from datagen.audit import judged_of
from datagen.cascade import (
    Calibration,
    CurvePoint,
    SampledLine,
    calibrate,
    calibration_from_json,
    calibration_to_json,
    check_calibration,
    decide_lines,
)
from datagen.judge import JudgeConfig, LineReading, reading_px
from datagen.legibility import FEATURES, explain_by_ink, fit_legibility, line_features
from fonts_manifest.errors import BadInput

CONFIG = JudgeConfig()


# features


def named(each, ink_HW=None) -> dict[str, float]:
    """Features of the one line of a page; its ink is where `page` draws it unless given."""
    image = each.image_HW3
    if ink_HW is None:
        ink_HW = np.where((image != 255).any(axis=2), 255, 0).astype(np.uint8)
    (row,) = line_features(each, ink_HW)
    return dict(zip(FEATURES, row, strict=True))


def test_features_follow_their_names():
    found = named(page(line("Ab 12,", size_px=4.0, contrast=9.0)))
    assert len(found) == len(FEATURES) == len(set(FEATURES))
    assert found["log2 size below 8 px"] == -1.0
    assert found["log contrast"] == pytest.approx(np.log(9))
    assert found["log characters"] == pytest.approx(np.log(5))
    assert found["share of digits"] == pytest.approx(0.4)
    assert found["share of marks"] == found["share of capitals"] == pytest.approx(0.2)
    assert found["log step, mean"] == pytest.approx(np.log(225 + 2), abs=1e-6)
    assert found["log noise"] == pytest.approx(np.log(2), abs=1e-6)
    assert line_features(page(), np.zeros((96, 96), np.uint8)).shape == (0, len(FEATURES))


def test_least_squares_split_a_line_into_ink_and_noise():
    # The oracle is numpy's own regression of every channel on the ink.
    rng = np.random.default_rng(0)
    ink_hw = rng.integers(0, 256, (12, 10)).astype(np.uint8)
    line_hw3 = np.clip(200 - 0.5 * ink_hw[:, :, None] + rng.normal(0, 9, (12, 10, 3)), 0, 255).astype(np.uint8)
    ((step, noise, edge, edge_noise, ink),) = explain_by_ink(line_hw3, ink_hw, 10)
    design = np.column_stack([np.ones(120), ink_hw.reshape(-1)])
    slopes, left, _, _ = np.linalg.lstsq(design, line_hw3.reshape(-1, 3).astype(float), rcond=None)
    assert step == pytest.approx(255 * np.sqrt((slopes[1] ** 2).mean()))
    assert noise == pytest.approx(np.sqrt(left.sum() / 360))
    changes = [
        np.concatenate([np.diff(a, axis=0).ravel(), np.diff(a, axis=1).ravel()])
        for a in (ink_hw.astype(float), *line_hw3.astype(float).transpose(2, 0, 1))
    ]
    slopes = [(changes[0] @ seen) / (changes[0] @ changes[0]) for seen in changes[1:]]
    rest = [seen - slope * changes[0] for slope, seen in zip(slopes, changes[1:], strict=True)]
    assert edge == pytest.approx(255 * np.sqrt(np.mean(np.square(slopes))))
    assert edge_noise == pytest.approx(np.sqrt(np.mean(np.square(rest))))
    assert ink == pytest.approx(ink_hw.mean() / 255)


def test_a_slow_change_of_the_ground_is_noise_in_levels_and_not_in_edges():
    flat = page(line())
    shaded = dataclasses.replace(flat, image_HW3=flat.image_HW3.copy())
    ink_HW = np.where((flat.image_HW3 != 255).any(axis=2), 255, 0).astype(np.uint8)
    ramp_W = np.linspace(0, 120, 96).astype(np.uint8)
    shaded.image_HW3[:] = np.where(ink_HW[:, :, None] > 0, flat.image_HW3, 255 - ramp_W[None, :, None])
    before, after = named(flat, ink_HW), named(shaded, ink_HW)
    assert after["log noise"] - before["log noise"] > 0.5
    assert after["log edge / noise, median"] > 1.0


def test_a_line_that_was_blurred_or_vanishes_in_places_is_seen_in_the_pixels():
    sharp = page(line())
    ink_HW = np.where((sharp.image_HW3 != 255).any(axis=2), 255, 0).astype(np.uint8)
    half = dataclasses.replace(sharp, image_HW3=sharp.image_HW3.copy())
    half.image_HW3[:, 50:] = sharp.lines[0].ink_rgb  # stands on its own colour there
    lost = "share of cells with an edge below 15"
    assert named(sharp, ink_HW)[lost] == 0
    assert 0.3 < named(half, ink_HW)[lost] < 0.7
    mean = (sharp.image_HW3.astype(int) + np.roll(sharp.image_HW3, 1, 1) + np.roll(sharp.image_HW3, -1, 1)) // 3
    soft = dataclasses.replace(sharp, image_HW3=mean.astype(np.uint8))
    key = "log edge / step: sharpness"
    assert named(soft, ink_HW)[key] < named(sharp, ink_HW)[key] - 0.05


def test_a_line_knows_what_stands_upon_it_and_beside_it():
    alone = named(page(line()))
    assert alone["covered by other lines"] == alone["ink of others in what is read"] == 0
    assert alone["quad height / ink height"] == pytest.approx(12 / 10.8)
    two = page(line(), line(top=9))
    ink_HW = np.where((two.image_HW3 != 255).any(axis=2), 255, 0).astype(np.uint8)
    first, second = (dict(zip(FEATURES, row, strict=True)) for row in line_features(two, ink_HW))
    # Quads are 12 px high and overlap by 3, and cv2 fills the row that ends the first as well.
    assert first["covered by other lines"] == pytest.approx(3 / 12, abs=0.09)
    assert second["covered by other lines"] == pytest.approx(4 / 12, abs=0.09)
    assert first["ink of others in what is read"] > 0.1  # a fifth of the ink's height below the quad is read, too
    assert np.allclose(line_features(two, ink_HW, [1])[0], list(second.values()))


def test_a_line_outside_the_picture_has_features_too():
    outside = page(line(top=200))
    found = named(outside)
    assert found["beyond the edge"] == 1.0
    assert np.isfinite(list(found.values())).all()


def test_logistic_regression_finds_the_coefficients_it_was_made_with():
    rng = np.random.default_rng(0)
    x = np.column_stack([np.ones(4000), rng.normal(0, 1, (4000, 2))])
    expected = 1 / (1 + np.exp(-(0.5 + 1.5 * x[:, 1] - 0.8 * x[:, 2])))
    model = fit_legibility(x, expected, np.ones(4000))
    assert np.abs(model.predict(x) - expected).max() < 0.01
    heavy = np.where(x[:, 1] > 0, 5.0, 1.0)
    assert np.abs(fit_legibility(x, expected, heavy).predict(x) - expected).max() < 0.01


# the calibration


def sampled(score: float, legible: bool, price_px: int = 100, weight: float = 1.0, clean_px: int = 0) -> SampledLine:
    features = (1.0, score, *(0.0,) * (len(FEATURES) - 2))
    return SampledLine(
        features=features,
        legibility=0.97 if legible else 0.2,
        legible=legible,
        visible=True,
        read_ned=0.9 if legible else 0.2,
        price_px=price_px,
        clean_px=clean_px,
        weight=weight,
    )


def sample(pages: int, seed: int = 0, steep: float = 4.0) -> list[list[SampledLine]]:
    """Pages of 8 lines, legible with a chance that one feature decides; half of the lines cost twice as much."""
    rng = np.random.default_rng(seed)
    made = []
    for _ in range(pages):
        scores = rng.normal(0.7, 1, 8)
        chances = 1 / (1 + np.exp(-steep * scores))
        prices = rng.choice([100, 200], 8).tolist()
        made.append(
            [sampled(s, bool(rng.random() < c), p) for s, c, p in zip(scores.tolist(), chances, prices, strict=True)]
        )
    return made


@pytest.fixture(scope="module")
def calibration() -> Calibration:
    return calibrate(sample(300), CONFIG, reader="made up", made_for={"pages": "a", "fonts": "b"})


def test_the_curve_goes_from_reading_nothing_to_reading_everything(calibration):
    first, last = calibration.curve[0], calibration.curve[-1]
    assert (first.cost_share, first.lines_share) == (0, 0)
    assert (last.cost_share, last.lines_share, last.agreement) == (1, 1, 1)  # these lines have no clean print to skip
    costs = [point.cost_share for point in calibration.curve]
    agreements = [point.agreement for point in calibration.curve]
    assert costs == sorted(costs)
    assert max(np.maximum.accumulate(agreements) - agreements) < 0.005  # steps down are chance
    assert all(point.low <= point.agreement <= point.high for point in calibration.curve)
    assert first.agreement > calibration.legible_share + 0.05  # knows more than "keep everything"


def run_cascade(calibration: Calibration, pages: list[list[SampledLine]], threshold: float) -> tuple[float, float]:
    """Share of the cost and of right decisions on whole pages, line by line as a run does it."""
    right, cost, total, lines = 0, 0, 0, 0
    for each in pages:
        drawn = [line(f"line {number}", top=14 * number) for number in range(len(each))]
        read: list[int] = []

        def reading(number: int, each=each, read=read) -> LineReading:
            read.append(number)
            return LineReading(read_ned=each[number].read_ned, clean_ned=1.0)

        features = np.array([one.features for one in each])
        chances = decide_lines(calibration, features, drawn, CONFIG, threshold, reading)
        right += sum(
            n in read or (c >= 0.5) == one.legible for n, (c, one) in enumerate(zip(chances, each, strict=True))
        )
        cost, total, lines = cost + len(read), total + len(each), lines + len(each)
        assert len(set(read)) == len(read)
    return cost / total, right / lines


def test_the_curve_holds_on_pages_the_model_has_not_seen(calibration):
    # Lines of `line` all cost the same: so must those of the sample.
    pages = [[msgspec.structs.replace(one, price_px=reading_px(line())) for one in page] for page in sample(300)]
    fitted = calibrate(pages, CONFIG)
    point = fitted.operating_point(CONFIG.model_copy(update={"ocr_share": 0.1, "agreement": 1.0}))
    cost, agreement = run_cascade(fitted, sample(300, seed=9), point.threshold)
    assert agreement == pytest.approx(point.agreement, abs=0.015)
    assert cost == pytest.approx(point.cost_share, abs=0.025)


def test_what_is_read_of_a_page_decides_its_other_lines():
    # All lines look alike; those of three pages of ten are illegible together.
    rng = np.random.default_rng(1)
    made = [[sampled(0.5, legible, reading_px(line()))] * 8 for legible in rng.random(400) < 0.7]
    fitted = calibrate(made[:200], CONFIG)
    assert fitted.page_effect.spread > 2
    assert fitted.curve[0].agreement == pytest.approx(0.7, abs=0.07)
    point = next(point for point in fitted.curve if point.agreement > 0.97)
    assert point.cost_share < 0.35  # two of eight lines, or a few more
    cost, agreement = run_cascade(fitted, made[200:], point.threshold)
    assert agreement > 0.97
    assert cost == pytest.approx(point.cost_share, abs=0.05)


def test_eight_lines_of_a_page_tell_what_all_of_them_will_cost_and_bring():
    rng = np.random.default_rng(5)
    whole = []
    for _ in range(240):
        scores = rng.normal(0.9, 0.6, 32)
        chances = 1 / (1 + np.exp(-4 * scores - 1.5 * rng.normal()))
        legible = (rng.random(32) < chances).tolist()
        whole.append([sampled(*each, reading_px(line()), 4.0) for each in zip(scores.tolist(), legible, strict=True)])
    fitted = calibrate([page[:8] for page in whole[:180]], CONFIG)
    costs, agreements = [p.cost_share for p in fitted.curve], [p.agreement for p in fitted.curve]
    for point in (next(p for p in fitted.curve if p.cost_share > share) for share in (0.1, 0.25)):
        cost, agreement = run_cascade(fitted, whole[180:], point.threshold)
        # A choice among 32 lines is a little better than one among 8: the curve promises no more than there is.
        assert -0.01 < agreement - np.interp(cost, costs, agreements) < 0.03
        assert cost == pytest.approx(point.cost_share, rel=0.3)


def test_clean_print_is_paid_for_where_it_decides():
    # Legible lines are read at .9: full OCR reads their clean print as well, the cascade does not.
    pages = [[msgspec.structs.replace(each, clean_px=100) for each in page] for page in sample(100)]
    curve = calibrate(pages, CONFIG).curve
    share = np.mean([not each.legible for page in pages for each in page])
    price = np.mean([each.price_px for page in pages for each in page])
    assert curve[-1].agreement == 1
    assert curve[-1].cost_share == pytest.approx((price + 100 * share) / (price + 100), rel=1e-5)


def test_the_operating_point_is_the_cheapest_that_agrees_enough_or_the_dearest_that_is_allowed(calibration):
    def point(agreement: float, share: float) -> CurvePoint:
        return calibration.operating_point(CONFIG.model_copy(update={"agreement": agreement, "ocr_share": share}))

    cheap = point(0.93, 1.0)
    before = calibration.curve[calibration.curve.index(cheap) - 1]
    assert before.agreement < 0.93 <= cheap.agreement
    dear = point(1.0, 0.05)
    after = calibration.curve[calibration.curve.index(dear) + 1]
    assert dear.cost_share <= 0.05 < after.cost_share
    assert point(1.0, 0.0).cost_share == 0


def test_agreement_is_measured_on_pages_the_model_has_not_seen():
    # Whether a line is legible has nothing to do with its features, which are noise, the same all over its page: a
    # model that had seen the page would know it by heart, one that has not can only guess.
    rng = np.random.default_rng(3)
    pages = []
    for legible in rng.permutation([True, False] * 40).tolist():
        features = tuple(rng.normal(size=len(FEATURES)).tolist())
        pages.append([msgspec.structs.replace(sampled(0, legible), features=features)] * 5)
    blind = calibrate(pages, CONFIG)
    assert blind.legible_share == 0.5
    assert blind.curve[0].agreement < 0.65


def test_chances_are_what_happens(calibration):
    for part in calibration.reliability:
        assert part.legible == pytest.approx(part.chance, abs=0.12)
    assert sum(part.lines for part in calibration.reliability) == calibration.lines == 2400


def test_pages_with_many_lines_count_with_all_of_them():
    good = [[sampled(2, True) for _ in range(4)] for _ in range(50)]
    bad = [[sampled(-2, False, weight=9.0) for _ in range(4)] for _ in range(50)]
    assert calibrate(good + bad, CONFIG).legible_share == pytest.approx(0.1)


def test_a_sample_without_a_bad_line_gives_a_model_that_keeps_and_reads_nothing():
    rules = calibrate([[sampled(1, True)] * 5 for _ in range(60)], CONFIG)
    point = rules.operating_point(CONFIG)
    assert (point.cost_share, point.agreement) == (0, 1)
    assert rules.model.predict(np.array([sampled(1, True).features]))[0] > 0.95


def test_too_small_a_sample_is_bad_input():
    with pytest.raises(
        BadInput, match=r"only 80 lines of 10 pages could be read, a calibration needs 200; raise judge"
    ):
        calibrate(sample(10), CONFIG)


def test_a_calibration_survives_its_file(calibration):
    data = calibration_to_json(calibration)
    assert calibration_from_json(data) == calibration
    assert calibration_from_json(data).digest == calibration.digest
    assert msgspec.structs.replace(calibration, legible_share=0.123).digest != calibration.digest


@pytest.mark.parametrize("data", [b"", b"[]", b"{}", b'{"model": 1}', b"null"])
def test_a_damaged_calibration_is_bad_input(data):
    with pytest.raises(BadInput, match=r"calibration\.json: is no calibration"):
        calibration_from_json(data)


def test_a_calibration_with_other_features_is_bad_input(calibration):
    data = msgspec.json.decode(calibration_to_json(calibration))
    data["model"] = {name: values[:-1] for name, values in data["model"].items()}
    with pytest.raises(BadInput, match="it has other features"):
        calibration_from_json(msgspec.json.encode(data))


def test_a_calibration_of_another_recipe_or_rule_is_refused_with_what_differs(calibration):
    check_calibration(calibration, CONFIG, {"pages": "a", "fonts": "b"})
    with pytest.raises(BadInput, match=r"made for another recipe \(pages differ\)"):
        check_calibration(calibration, CONFIG, {"pages": "x", "fonts": "b"})
    other = CONFIG.model_copy(update={"min_line_ned": 0.7})
    with pytest.raises(BadInput, match=r"\(min_line_ned, templates differ\)"):
        check_calibration(calibration, other, {"pages": "a", "fonts": "b", "templates": "c"})
    cheaper = CONFIG.model_copy(update={"ocr_share": 0.01, "audit": 0.5, "sample_pages": 77})
    check_calibration(calibration, cheaper, {"pages": "a", "fonts": "b"})


# decisions


def test_lines_that_nobody_can_see_are_illegible_and_never_read(calibration):
    lines = [line("one"), line("invisible", top=20, contrast=0.3)]
    features = np.array([sampled(0.1, True).features] * 2)
    read: list[int] = []

    def reading(number: int) -> LineReading:
        read.append(number)
        return LineReading(read_ned=0.9, clean_ned=1.0)

    chances = decide_lines(calibration, features, lines, CONFIG, -1.0, reading)
    assert read == [0]
    assert chances[1] == 0 < chances[0]
    assert decide_lines(calibration, features[1:], lines[1:], CONFIG, -1.0, reading) == [0]


# arithmetic


@given(st.lists(st.tuples(st.booleans(), st.booleans())))
def test_decisions_are_compared_pair_by_pair(pairs):
    found = compare([kept for kept, _ in pairs], [good for _, good in pairs])
    assert found.trials == len(pairs)
    assert found.false_keep == sum(kept and not good for kept, good in pairs)
    assert found.share == (np.mean([kept == good for kept, good in pairs]) if pairs else 1.0)


@given(st.integers(0, 200), st.integers(1, 200))
def test_the_interval_holds_the_share_and_shrinks_with_the_trials(hits, trials):
    hits = min(hits, trials)
    low, high = wilson_interval(hits, trials)
    assert 0 <= low <= hits / trials + 1e-12
    assert hits / trials - 1e-12 <= high <= 1
    narrow = wilson_interval(hits * 10, trials * 10)
    assert narrow[1] - narrow[0] < high - low


def test_the_interval_equals_the_published_one():
    # Newcombe 1998, table I: 81 of 263, Wilson score interval .2553 to .3662.
    assert wilson_interval(81, 263) == pytest.approx((0.2553, 0.3662), abs=5e-5)


def test_lines_that_stand_or_fall_with_their_page_count_as_pages():
    ten = np.full(100, 10.0)
    together = np.where(np.arange(100) < 80, 10.0, 0.0)
    assert clustered_interval(together, ten) == pytest.approx(wilson_interval(80, 100), abs=2e-3)
    apart = np.random.default_rng(0).binomial(10, 0.8, 100).astype(float)
    low, high = clustered_interval(apart, ten)
    assert (high - low) == pytest.approx(np.subtract(*wilson_interval(apart.sum(), 1000)[::-1]), rel=0.25)
    assert clustered_interval(np.zeros(0), np.zeros(0)) == (0, 1)
    # No error seen: as many trials as there are pages, not lines.
    assert clustered_interval(ten, ten) == pytest.approx(wilson_interval(100, 100))


def test_what_was_read_and_audited_is_counted_from_the_rows():
    def row(keep, reads, audit=None, by="cascade"):
        lines = [{"read_ned": value} for value in reads]
        return {"keep": keep, "judged_by": by, "audit": audit, "lines": lines}

    judged = judged_of(
        [
            row(True, [None, None, 0.9]),
            row(True, [0.9, 0.8], {"keep": True, "false_keep": 1, "false_drop": 0}, "ocr"),
            row(True, [0.9, 0.8, 0.7], {"keep": False, "false_keep": 0, "false_drop": 2}, "ocr"),
            row(True, [None], by="none"),
        ],
        "abc",
    )
    assert (judged.calibration, judged.pages, judged.lines, judged.lines_read) == ("abc", 3, 8, 6)
    assert (judged.audited_pages, judged.audited_lines) == (2, 5)
    assert (judged.lines_false_keep, judged.lines_false_drop) == (1, 2)
    assert (judged.pages_false_keep, judged.pages_false_drop) == (0, 1)
    assert judged_of([row(True, [None], by="none")]) is None
    assert Agreement(same=2, false_keep=1, false_drop=1).share == 0.5
