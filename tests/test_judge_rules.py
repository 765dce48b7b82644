"""Verdicts from readings, and the rules that stand in for reading: arithmetic, no reader."""

import json
import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from datagen.calibrate import FEATURES, fit_legibility, line_features, wilson_interval
from datagen.judge import (
    JudgeConfig,
    LineReading,
    calibrate,
    calibration_from_json,
    calibration_to_json,
    judge_by_rules,
    judge_read,
    load_calibration,
    page_ned,
    save_calibration,
)
from fonts_manifest.errors import BadInput
from render_engine.spec import RenderedLine, RenderedPage

CONFIG = JudgeConfig()


def line(text: str = "ten letters", *, top: int = 0, size_px: float = 12.0, contrast: float = 9.0) -> RenderedLine:
    grey = round(255 - 25 * min(contrast, 10.0))
    return RenderedLine(
        text=text,
        lang="en",
        quad_px=(2, top, 90, top, 90, top + 12, 2, top + 12),
        size_px=size_px,
        ink_height_px=size_px * 0.9,
        face_id="Sans",
        ink_rgb=(grey, grey, grey),
        ground_rgb=(255, 255, 255),
        contrast=contrast,
        clutter=0.0,
        opacity=1.0,
        block=0,
    )


def page(*lines: RenderedLine) -> RenderedPage:
    """Stripes of each line's ink where its text would be."""
    image = np.full((96, 96, 3), 255, np.uint8)
    for each in lines:
        top = int(each.quad_px[1])
        image[top + 2 : top + 10, 4:88:4] = each.ink_rgb
    return RenderedPage(image_HW3=image, lines=lines)


def read(*values: float, clean: float = 1.0) -> list[LineReading]:
    return [LineReading(read_ned=value, clean_ned=clean) for value in values]


def test_a_line_is_measured_against_its_clean_print():
    assert LineReading(read_ned=0.4, clean_ned=0.5).relative_ned == 0.8
    assert LineReading(read_ned=0.9, clean_ned=0.8).relative_ned == 1.0
    assert LineReading(read_ned=0.1, clean_ned=0.2).relative_ned is None


def test_a_page_that_is_read_is_kept_with_its_mean_weighted_by_characters():
    two = page(line("aaaaaaaa"), line("bb", top=20))
    verdict = judge_read(read(1.0, 0.7), two, CONFIG)
    assert verdict.keep
    assert verdict.score == pytest.approx((8 * 1.0 + 2 * 0.7) / 10)
    assert page_ned(read(1.0, 0.7), two) == pytest.approx(0.94)


def test_small_text_that_nobody_could_read_better_stays():
    assert judge_read(read(0.4, clean=0.45), page(line(size_px=5)), CONFIG).keep
    assert judge_read(read(0.4, clean=1.0), page(line(size_px=5)), CONFIG).reason == "illegible"


def test_a_faint_page_goes_for_its_contrast_and_a_cluttered_one_as_illegible():
    assert judge_read(read(0.1), page(line(contrast=1.2)), CONFIG).reason == "low_contrast"
    assert judge_read(read(0.1), page(line(contrast=6.0)), CONFIG).reason == "illegible"


def test_one_bad_line_of_four_is_forgiven_and_two_are_not():
    four = page(*(line(top=20 * n) for n in range(4)))
    assert judge_read(read(1, 1, 1, 0.5), four, CONFIG).keep
    assert judge_read(read(1, 1, 0.5, 0.5), four, CONFIG).reason == "illegible"


def test_contrast_decides_where_even_clean_print_is_not_read():
    assert judge_read(read(0.0, clean=0.1), page(line(size_px=5, contrast=4)), CONFIG).keep
    assert judge_read(read(0.0, clean=0.1), page(line(size_px=5, contrast=1.1)), CONFIG).reason == "low_contrast"
    assert page_ned(read(0.0, clean=0.1), page(line())) is None


def test_pages_without_enough_text_go():
    assert judge_read([], page(), CONFIG).reason == "no_text"
    assert judge_read(read(1.0), page(line(" ")), CONFIG).reason == "no_text"
    assert judge_read(read(1.0), page(line("ab c")), CONFIG).reason == "too_few_characters"
    assert judge_read(read(1.0), page(line("ab cd")), CONFIG).keep


def test_the_audit_is_never_smaller_than_300_pages():
    with pytest.raises(ValueError, match="300"):
        JudgeConfig(sample_pages=299)


def sample(pages: int, noise: float, seed: int = 0) -> tuple[list[list[LineReading]], list[RenderedPage]]:
    """Pages whose lines are read the better the higher their contrast, give or take `noise`."""
    rng = np.random.default_rng(seed)
    readings, drawn = [], []
    for _ in range(pages):
        contrast = rng.uniform(1.0, 9.0)
        lines = [line(top=20 * n, contrast=contrast * rng.uniform(0.9, 1.1)) for n in range(3)]
        each = page(*lines)
        features = line_features(each.lines, each.image_HW3)
        reads = [
            float(np.clip(1 / (1 + math.exp(-2 * (one.contrast - 3))) + rng.normal(0, noise), 0, 1)) for one in lines
        ]
        readings.append(
            [
                LineReading(read_ned=value, clean_ned=1.0, features=tuple(row.tolist()))
                for value, row in zip(reads, features, strict=True)
            ]
        )
        drawn.append(each)
    return readings, drawn


@pytest.fixture(scope="module")
def calibration():
    readings, pages = sample(200, noise=0.03)
    return calibrate(readings, pages, CONFIG, addresses=[(0, row, 0) for row in range(200)], recognizer="made up")


def test_rules_learn_what_decides_and_say_how_well(calibration):
    assert calibration.page_agreement.share > 0.95
    assert calibration.line_agreement.share > 0.95
    assert calibration.page_agreement.trials == 200
    assert (calibration.pages_read, calibration.lines_read, calibration.lines_uncertifiable) == (200, 600, 0)
    fresh, pages = sample(200, noise=0.03, seed=1)
    agree = [
        judge_by_rules(each, calibration, CONFIG)[0].keep == judge_read(reading, each, CONFIG).keep
        for reading, each in zip(fresh, pages, strict=True)
    ]
    assert np.mean(agree) > 0.95


def test_rules_name_the_same_reasons_as_reading(calibration):
    clear, _ = judge_by_rules(page(line(contrast=9)), calibration, CONFIG)
    faint, legibility = judge_by_rules(page(line(contrast=1.05)), calibration, CONFIG)
    assert clear.keep
    assert faint.reason == "low_contrast"
    assert legibility == pytest.approx([faint.score])
    assert judge_by_rules(page(), calibration, CONFIG)[0].reason == "no_text"


def test_agreement_is_measured_on_pages_the_rules_have_not_seen():
    # Whether a page is read has nothing to do with its features, which are noise: rules that had seen the page they are
    # tested on would know it by heart (20 features, 60 pages), rules that have not can only guess.
    rng = np.random.default_rng(3)
    _, pages = sample(60, noise=0.0)
    readings = [
        [LineReading(read_ned=float(keep), clean_ned=1.0, features=tuple(noise))] * len(each.lines)
        for each, keep, noise in zip(
            pages, rng.permutation([0, 1] * 30), rng.normal(size=(60, len(FEATURES))).tolist(), strict=True
        )
    ]
    blind = calibrate(readings, pages, CONFIG)
    assert blind.read_keep_share == 0.5
    assert blind.page_agreement.share < 0.65
    low, high = blind.page_agreement.interval
    assert low < blind.page_agreement.share < high


def test_a_sample_without_a_bad_line_gives_rules_that_keep_it():
    readings, pages = sample(60, noise=0.0)
    perfect = [[LineReading(read_ned=1.0, clean_ned=1.0, features=one.features) for one in r] for r in readings]
    rules = calibrate(perfect, pages, CONFIG)
    assert rules.page_agreement.share == 1.0
    assert all(judge_by_rules(each, rules, CONFIG)[0].keep for each in pages)


def test_uncertifiable_lines_are_counted_and_do_not_teach():
    readings, pages = sample(60, noise=0.0)
    readings[0] = [LineReading(read_ned=0.0, clean_ned=0.1, features=one.features) for one in readings[0]]
    assert calibrate(readings, pages, CONFIG).lines_uncertifiable == 3


def test_too_small_a_sample_is_bad_input():
    readings, pages = sample(10, noise=0.0)
    with pytest.raises(BadInput, match="only 30 lines of 10 pages could be read, a calibration needs 50"):
        calibrate(readings, pages, CONFIG)


def test_a_calibration_survives_its_file(calibration, tmp_path):
    path = tmp_path / "deep" / "calibration.json"
    save_calibration(calibration, path)
    assert load_calibration(path) == calibration
    assert load_calibration(path).digest == calibration.digest
    assert [file.name for file in path.parent.iterdir()] == ["calibration.json"]
    changed = json.loads(calibration_to_json(calibration)) | {"page_threshold": 0.123}
    assert calibration_from_json(json.dumps(changed)).digest != calibration.digest


@pytest.mark.parametrize("text", ["", "[]", "{}", '{"model": 1}', "null"])
def test_a_damaged_calibration_is_bad_input(text):
    with pytest.raises(BadInput, match=r"calibration\.json: is no calibration"):
        calibration_from_json(text)


def test_a_missing_calibration_is_bad_input(tmp_path):
    with pytest.raises(BadInput, match="cannot be read"):
        load_calibration(tmp_path / "none.json")


def test_fractional_regression_finds_the_coefficients_it_was_made_with():
    rng = np.random.default_rng(0)
    x = np.column_stack([np.ones(4000), rng.normal(0, 1, (4000, 2))])
    expected = 1 / (1 + np.exp(-(0.5 + 1.5 * x[:, 1] - 0.8 * x[:, 2])))
    model = fit_legibility(x, expected, np.ones(4000))
    assert np.abs(model.predict(x) - expected).max() < 0.01


def test_features_follow_their_names():
    one = page(line(size_px=4.0, contrast=9.0))
    (row,) = line_features(one.lines, one.image_HW3)
    named = dict(zip(FEATURES, row, strict=True))
    assert len(row) == len(FEATURES)
    assert named["log2 size below 8 px"] == -1.0
    assert named["log contrast"] == pytest.approx(math.log(9))
    assert named["log step seen, mean"] == pytest.approx(math.log(225 + 2), abs=0.3)
    assert line_features([], one.image_HW3).shape == (0, len(FEATURES))


def test_a_line_across_its_own_colour_is_seen_in_the_pixels():
    image = np.full((40, 100, 3), 255, np.uint8)
    image[:, 50:] = 40
    one = line(contrast=5.0)  # its mean ground hides that half of it stands on its own colour
    image[4:10, 4:90:5] = 30
    (row,) = line_features([one], image)
    named = dict(zip(FEATURES, row, strict=True))
    assert 0.3 < named["share of cells with a step below 15"] < 0.7


@given(st.integers(0, 200), st.integers(1, 200))
def test_the_interval_holds_the_share_and_shrinks_with_the_trials(hits, trials):
    hits = min(hits, trials)
    low, high = wilson_interval(hits, trials)
    assert 0 <= low <= hits / trials + 1e-12
    assert hits / trials - 1e-12 <= high <= 1
    wide = wilson_interval(hits, trials)
    narrow = wilson_interval(hits * 10, trials * 10)
    assert narrow[1] - narrow[0] < wide[1] - wide[0]


def test_the_interval_equals_the_published_one():
    # Newcombe 1998, table I: 81 of 263, Wilson score interval .2553 to .3662.
    assert wilson_interval(81, 263) == pytest.approx((0.2553, 0.3662), abs=5e-5)
