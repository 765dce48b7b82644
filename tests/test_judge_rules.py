"""Verdicts from readings: arithmetic, no reader."""

import msgspec
import numpy as np
import pytest

from datagen.judge import JudgeConfig, LineReading, clean_px, judge_page, judge_read, page_ned, reading_px
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


def test_what_nobody_can_see_is_bad_whatever_was_read():
    assert judge_read(read(1.0), page(line(contrast=0.3)), CONFIG).reason == "low_contrast"  # a step of 8 of 255


def test_a_page_is_judged_by_its_lines_however_they_were_found_out():
    three = page(*(line(top=20 * n) for n in range(3)))
    assert judge_page(three.lines, [0.9, 0.9, 0.9], [True, True, True], CONFIG).score == pytest.approx(0.9)
    assert not judge_page(three.lines, [0.9, 0.9, 0.9], [True, True, False], CONFIG).keep  # a third is bad
    assert not judge_page(three.lines, [0.65, 0.65, 0.65], [True, True, True], CONFIG).keep  # the mean is too low


def test_reading_costs_the_width_of_the_input_and_small_lines_their_clean_print():
    wide = line()
    narrow = msgspec.structs.replace(wide, quad_px=(2, 0, 46, 0, 46, 12, 2, 12))
    # 88 x 12 px, grown by .1 and .2 of the 10.8 px of ink: 90.16 x 16.32, x 48 / 16.32 x .85 = 225.4 -> 240.
    assert reading_px(wide) == 240
    assert reading_px(narrow) == 128  # 46.16 px -> 115.4
    upright = msgspec.structs.replace(wide, quad_px=(2, 0, 14, 0, 14, 88, 2, 88))
    assert 160 < reading_px(upright) < 280  # turned before it is read
    assert clean_px(wide) == 0
    assert clean_px(line(size_px=7.9)) > reading_px(line(size_px=7.9))
