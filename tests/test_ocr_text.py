"""NED and reading order: what can be said without a reader."""

import unicodedata

import pytest
from hypothesis import given
from hypothesis import strategies as st
from rapidfuzz.distance import Levenshtein

from datagen.ocr import _ONE_EACH, count_characters, ned, reading_order

WORDS = st.text(alphabet="abcxyz你好世界", max_size=30)


def box(x0: float, y0: float, x1: float, y1: float) -> tuple[float, ...]:
    return (x0, y0, x1, y0, x1, y1, x0, y1)


def test_one_wrong_letter_of_six_costs_a_sixth():
    assert ned("orange", "orango") == pytest.approx(5 / 6)


def test_two_empty_texts_agree_and_an_unread_one_does_not():
    assert ned("", "") == 1.0
    assert ned(" \n", "") == 1.0
    assert ned("abc", "") == 0.0
    assert ned("", "abc") == 0.0


def test_blanks_and_widths_of_marks_are_no_errors():
    assert ned("你好，世界 (1)", "你好,世界（1）") == 1.0
    assert ned("a　b c", "abc") == 1.0


def test_han_differ_from_each_other():
    assert ned("已经", "己经") == 0.5


@given(WORDS, WORDS)
def test_ned_is_symmetric_and_equals_its_definition(a: str, b: str):
    longest = max(len(a), len(b))
    assert ned(a, b) == ned(b, a)
    assert ned(a, b) == (1 - Levenshtein.distance(a, b) / longest if longest else 1.0)


def test_characters_are_counted_without_blanks():
    assert count_characters("ab 你\n好　c") == 5


@given(
    st.text()
    | st.text(alphabet="aZ09!~ \n你好，。、；：！？“”《》（）「」·—…　ﬁÅe\u0301Ａ％㎏가\u1100\u1161", max_size=12)
)
def test_characters_are_those_of_the_normalised_text(text):
    assert count_characters(text) == len("".join(unicodedata.normalize("NFKC", text).split()))


def test_what_counts_as_one_character_each_is_one_whatever_stands_beside_it():
    for code in range(0x110000):
        if _ONE_EACH.fullmatch(chr(code)):
            folded = unicodedata.normalize("NFKC", chr(code))
            # neither a mark that joins what is before it, nor a blank of another kind
            assert len(folded) == 1
            assert not unicodedata.combining(folded)
            assert folded.isspace() == (chr(code) in " \n")


@given(st.floats(5, 60), st.integers(1, 12), st.integers(1, 4), st.randoms(use_true_random=False))
def test_rows_of_any_height_come_top_down_and_left_to_right(pitch, rows, columns, random):
    # 0.35 of the pitch is the most that lines of one row may be apart: a third of the line height of 0.9 pitches.
    expected, quads = [], []
    for row in range(rows):
        for column in range(columns):
            y = row * pitch + random.uniform(0, 0.3) * pitch
            quads.append(box(column * 100, y, column * 100 + 90, y + 0.9 * pitch))
            expected.append(len(quads) - 1)
    shuffled = expected.copy()
    random.shuffle(shuffled)
    order = reading_order([quads[index] for index in shuffled])
    assert [shuffled[index] for index in order] == expected


def test_two_columns_half_a_line_apart_do_not_melt_into_one_row():
    # Centres 5 px apart all down, the threshold is 5.5: comparing neighbours instead of a row's first line would
    # join all of them and read the left column before the right one.
    left = [box(0, y, 90, y + 11) for y in range(0, 100, 10)]
    right = [box(100, y + 5, 190, y + 16) for y in range(0, 100, 10)]
    tops = [(left + right)[index][1] for index in reading_order(left + right)]
    assert tops == sorted(tops)


def test_no_lines_have_no_order():
    assert reading_order([]) == []
