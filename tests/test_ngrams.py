"""Overlap of texts by character n-grams."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from datagen.ngrams import ngram_overlap, ngrams

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
    assert ngram_overlap(a, b, n) == pytest.approx(overlap)


@given(TEXTS, TEXTS, st.integers(1, 6))
def test_overlap_is_symmetric_and_bounded(a: str, b: str, n: int) -> None:
    assert 0.0 <= ngram_overlap(a, b, n) == ngram_overlap(b, a, n) <= 1.0


@given(TEXTS, TEXTS, TEXTS, st.integers(1, 6))
def test_a_text_inside_another_overlaps_wholly(before: str, inner: str, after: str, n: int) -> None:
    # NFKC of the parts is NFKC of the whole for these characters.
    assert ngram_overlap(before + inner + after, inner, n) == (1.0 if ngrams(inner, n) else 0.0)


def test_n_below_one_is_refused() -> None:
    with pytest.raises(ValueError, match="got 0"):
        ngrams("abc", 0)
