"""Overlap of texts by character n-grams."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from datagen.ngrams import ngrams, shared_share

TEXTS = st.text(alphabet="abc 字典，１", max_size=30)


@pytest.mark.parametrize(
    ("a", "b", "n", "overlap"),
    [
        ("abcde", "abcde", 5, 1.0),
        ("abcdef", "bcdefg", 5, 0.5),
        ("abcd", "cdab", 3, 0.0),
        ("今天天气很好", "天天气很好吗", 3, 0.75),
        ("abc def", "abcdef", 5, 1.0),  # blanks do not count
        ("１２３４５", "12345", 3, 1.0),  # nor does the width of a digit
        ("ab", "ab", 3, 0.0),  # too short to tell
        ("", "", 1, 0.0),
        ("aaaaaaaa", "aaa", 3, 1.0),  # distinct n-grams, not their counts
    ],
)
def test_overlap_is_the_share_of_the_smaller_set(a: str, b: str, n: int, overlap: float) -> None:
    assert shared_share(ngrams(a, n), ngrams(b, n)) == pytest.approx(overlap)


@given(TEXTS, TEXTS, st.integers(1, 6))
def test_overlap_is_symmetric_and_bounded(a: str, b: str, n: int) -> None:
    one, other = ngrams(a, n), ngrams(b, n)
    assert 0.0 <= shared_share(one, other) == shared_share(other, one) <= 1.0


@given(TEXTS, TEXTS, TEXTS, st.integers(1, 6))
def test_a_text_inside_another_overlaps_wholly(before: str, inner: str, after: str, n: int) -> None:
    # NFKC of the parts is NFKC of the whole for these characters.
    part = ngrams(inner, n)
    assert shared_share(ngrams(before + inner + after, n), part) == (1.0 if part else 0.0)


def test_n_below_one_is_refused() -> None:
    with pytest.raises(ValueError, match="got 0"):
        ngrams("abc", 0)
