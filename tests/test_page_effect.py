"""What reading some lines of a page says about the others: against sums over every possibility."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from datagen.page_effect import (
    _LEGIBLE,
    _NODES_K,
    _PRIOR_K,
    PageBelief,
    PageEffect,
    _levels_NKJ,
    fit_page_effect,
    level_of,
    own_worth,
    read_where_it_pays,
    worth,
)

EFFECT = PageEffect(slope=1.0, offsets=(2.0, 0.5, -1.5), spread=1.5)
LOGITS = st.lists(st.floats(-6, 6), min_size=1, max_size=5).map(np.array)


def test_levels_are_cut_at_half_the_limit_at_it_and_half_way_to_perfect():
    assert [level_of(value, 0.6) for value in (0, 0.29, 0.3, 0.59, 0.6, 0.79, 0.8, 1)] == [0, 0, 1, 1, 2, 2, 3, 3]


def brute_force(logits: np.ndarray, read: dict[int, int]) -> np.ndarray:
    """Chances by Bayes' rule, node by node and line by line, in plain sums."""
    likelihood = [float(weight) for weight in _PRIOR_K]
    table = _levels_NKJ(logits, EFFECT)
    table = table / table.sum(axis=2, keepdims=True)
    for number, level in read.items():
        likelihood = [a * b for a, b in zip(likelihood, table[number, :, level], strict=True)]
    legible = table[:, :, _LEGIBLE:].sum(axis=2)
    return np.array([sum(a * b for a, b in zip(likelihood, row, strict=True)) / sum(likelihood) for row in legible])


@settings(deadline=None)
@given(LOGITS, st.data())
def test_belief_is_bayes_rule(logits, data):
    belief, read = PageBelief(logits, EFFECT), {}
    for number in range(len(logits)):
        if data.draw(st.booleans()):
            read[number] = data.draw(st.integers(0, 3))
            belief.learn(number, read[number])
    assert belief.chances() == pytest.approx(brute_force(logits, read), abs=2e-5)
    for number, chance in enumerate(belief.chances_by_others()):
        others = {n: level for n, level in read.items() if n != number}
        assert chance == pytest.approx(brute_force(logits, others)[number], abs=2e-5)


@settings(deadline=None)
@given(LOGITS)
def test_a_reading_is_worth_the_doubt_that_it_is_expected_to_take_away(logits):
    belief = PageBelief(logits, EFFECT)
    prices = np.full(len(logits), 100.0)
    before = belief.chances()
    table = _levels_NKJ(logits, EFFECT)
    values = []
    for number in range(len(logits)):
        saved = (2 * before * (1 - before)).sum()
        for level, chance in enumerate(_PRIOR_K @ table[number] / (_PRIOR_K @ table[number]).sum()):
            after = np.delete(brute_force(logits, {number: level}), number)
            saved -= chance * (2 * after * (1 - after)).sum()
        values.append(1000 * saved / 100)
    number, value = belief.next_line(prices, np.zeros(len(logits)))
    assert value == pytest.approx(max(values), abs=2e-3)
    assert values[number] == pytest.approx(max(values), abs=2e-3)
    assert max(values) > -1e-9


def test_the_page_is_asked_where_it_is_doubtful_and_cheap():
    doubtful = PageBelief(np.array([4.0, 0.0, -4.0]), EFFECT)
    assert doubtful.next_line(np.full(3, 100.0), np.zeros(3))[0] == 1
    alike = PageBelief(np.zeros(3), EFFECT)
    assert alike.next_line(np.array([300.0, 100.0, 200.0]), np.zeros(3))[0] == 1
    assert alike.next_line(np.full(3, 100.0), np.array([100.0, 100.0, 0.0]))[0] == 2  # no clean print to be read


def test_of_thousands_of_lines_the_most_doubtful_are_asked_about():
    logits = np.full(4000, 5.0)
    logits[[7, 3001]] = 0.5, 0.0
    many = PageBelief(logits, EFFECT)
    first = many.next_line(np.full(4000, 100.0), np.zeros(4000))[0]
    many.learn(first, 3)
    assert {first, many.next_line(np.full(4000, 100.0), np.zeros(4000))[0]} == {7, 3001}


def test_lines_are_read_until_none_is_worth_it_and_bad_news_asks_for_more():
    def read_page(level: int) -> list[int]:
        return read_where_it_pays(
            PageBelief(np.full(20, 3.0), EFFECT), np.full(20, 100.0), np.zeros(20), 2.0, lambda _: level
        )

    assert 0 < len(read_page(3)) < len(read_page(1))
    assert read_where_it_pays(PageBelief(np.zeros(4), EFFECT), np.ones(4), np.zeros(4), -1.0, lambda _: 3) == [
        0,
        1,
        2,
        3,
    ]
    assert read_where_it_pays(PageBelief(np.zeros(4), EFFECT), np.ones(4), np.zeros(4), 1e9, lambda _: 3) == []


def test_worth_is_doubt_for_the_expected_price():
    assert worth(0.5, 0.25, 100, 100) == pytest.approx(1000 * 0.5 / 175)  # in three cases of four clean print is read
    assert own_worth(0.5, 100, 0) == 5
    assert own_worth(0.1, 100, 0) == own_worth(0.9, 100, 0) == pytest.approx(1.8)


def test_the_fit_finds_the_effect_that_pages_were_made_with():
    rng = np.random.default_rng(0)
    truth = PageEffect(slope=0.8, offsets=(1.5, 0.0, -1.0), spread=1.5)
    page_N = np.repeat(np.arange(400), 10)
    logit_N = rng.normal(1, 2, 4000)
    at_N = truth.slope * logit_N + truth.spread * rng.normal(size=400)[page_N]
    chance_N3 = 1 / (1 + np.exp(-(at_N[:, None] + np.array(truth.offsets))))
    level_N = (rng.random(4000)[:, None] < chance_N3).sum(axis=1)
    found = fit_page_effect(logit_N, level_N, page_N, np.ones(4000))
    assert found.slope == pytest.approx(truth.slope, abs=0.1)
    assert found.spread == pytest.approx(truth.spread, abs=0.2)
    assert found.offsets == pytest.approx(truth.offsets, abs=0.25)
    alone = fit_page_effect(logit_N, level_N, rng.permutation(page_N), np.ones(4000))
    assert alone.spread < 0.5  # lines that were dealt out to pages at random have nothing in common


def test_nodes_are_a_standard_normal():
    assert _PRIOR_K.sum() == pytest.approx(1)
    moments = _NODES_K @ _PRIOR_K, _NODES_K**2 @ _PRIOR_K
    assert moments == pytest.approx((0, 1), abs=0.03)
