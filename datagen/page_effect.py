"""Lines of a page stand or fall together: what reading some says about the others, and which one is to be read next.

Face, ground and camera are the page's, so a model of single lines errs on whole pages. Here every page has an unknown
of its own, an amount by which all its lines are easier or harder to read than they look (a random intercept in an
ordered logistic regression: McCullagh 1980). Each reading narrows it down.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

# N lines, P pages, K nodes of the page's unknown, J levels of legibility, R lines not read yet, A of them asked about

Array = npt.NDArray[np.float64]

_NODES_K = np.linspace(-3, 3, 13)
"""Values of the page's unknown, in standard deviations."""
_PRIOR_K = np.exp(-(_NODES_K**2) / 2) / np.exp(-(_NODES_K**2) / 2).sum()
_LEAST = 1e-6
_MOST_ASKED = 256


def level_of(legibility: float, min_legibility: float) -> int:
    """How well a line was read, in four levels: hopeless, poor, fair, good. From the third on it is legible.

    A line that was missed by a little says less about its neighbours than one of which nothing was read.
    """
    return (
        int(legibility >= min_legibility / 2)
        + int(legibility >= min_legibility)
        + int(legibility >= _good(min_legibility))
    )


def _good(min_legibility: float) -> float:
    return (1 + min_legibility) / 2


_LEGIBLE = 2
"""The first level at which a line is legible."""


@dataclass(frozen=True, slots=True, kw_only=True)
class PageEffect:
    """P(level >= j) = logistic(slope x logit + offsets[j - 1] + spread x the page's unknown), that one standard normal.

    logit: what the model of single lines says.
    """

    slope: float
    offsets: tuple[float, float, float]
    """Falling."""
    spread: float


def fit_page_effect(
    logit_N: Array, level_N: npt.NDArray[np.intp], page_N: npt.NDArray[np.intp], weight_N: Array
) -> PageEffect:
    """Maximum likelihood, the page's unknown integrated out, with weak priors: a slope of 1, a spread of 1.

    logit_N: of a model that has not seen these lines. weight_N: the same for all lines of a page.
    """
    from scipy.optimize import minimize  # where a calibration is made, not in the workers

    pages, page_N = np.unique(page_N, return_inverse=True)
    weight_P = np.bincount(page_N, weight_N) / np.bincount(page_N)
    weight_P /= weight_P.mean()

    def loss(free: Array) -> float:
        likelihood_NK = _levels_NKJ(logit_N, _effect(free))[np.arange(len(logit_N)), :, level_N]
        log_PK = np.zeros((len(pages), len(_NODES_K)))
        np.add.at(log_PK, page_N, np.log(likelihood_NK))
        most_P = log_PK.max(axis=1)
        evidence_P = np.log(np.exp(log_PK - most_P[:, None]) @ _PRIOR_K) + most_P
        prior = 2 * (free[0] - 1) ** 2 + 0.25 * free[1] ** 2 + 0.5 * (free[2:] ** 2).sum()
        return float(prior - weight_P @ evidence_P)

    fitted = _effect(minimize(loss, [1.0, 0.0, 0.0, 0.0, 0.0], method="BFGS").x)
    # Three digits: a minimum by differences has hardly more, and the last ones are the processor's.
    high, middle, low = (round(offset, 3) for offset in fitted.offsets)
    return PageEffect(slope=round(fitted.slope, 3), offsets=(high, middle, low), spread=round(fitted.spread, 3))


def _effect(free: Array) -> PageEffect:
    """free: slope, middle offset, log spread, logs of the gaps above and below."""
    above, below = np.exp(np.clip(free[3:], -5, 3)).tolist()
    middle = float(free[1])
    spread = float(np.exp(np.clip(free[2], -5, 2)))
    return PageEffect(slope=max(0.0, float(free[0])), offsets=(middle + above, middle, middle - below), spread=spread)


def _levels_NKJ(logit_N: Array, effect: PageEffect) -> Array:
    """Probability of each level of each line if the page's unknown were at each node."""
    at_NK = effect.slope * logit_N[:, None] + effect.spread * _NODES_K
    least_NKJ = 1 / (1 + np.exp(-np.clip(at_NK[:, :, None] + np.array(effect.offsets), -40, 40)))
    bounds_NKJ = np.concatenate([np.ones((*at_NK.shape, 1)), least_NKJ, np.zeros((*at_NK.shape, 1))], axis=2)
    return np.maximum(bounds_NKJ[:, :, :-1] - bounds_NKJ[:, :, 1:], _LEAST)


class PageBelief:
    """What is known of one page: nothing at first, more with every line that is read."""

    def __init__(self, logit_N: Array, effect: PageEffect, *, stands_for: float = 1.0) -> None:
        """stands_for: how many lines of the page each of these stands for, when they are a sample of it."""
        self._levels_NKJ = _levels_NKJ(logit_N, effect)
        self._legible_NK = self._levels_NKJ[:, :, _LEGIBLE:].sum(axis=2) / self._levels_NKJ.sum(axis=2)
        self._log_K = np.log(_PRIOR_K)
        self._stands_for = stands_for
        self._read: dict[int, Array] = {}

    def learn(self, number: int, level: int) -> None:
        """Line `number` was read, see `level_of`."""
        self._read[number] = np.log(self._levels_NKJ[number, :, level])
        self._log_K = self._log_K + self._read[number]

    def chances(self) -> Array:
        """(N,) in [0, 1], to six digits: the last bits are the processor's."""
        return np.round(self._legible_NK @ _normalised(self._log_K), 6)

    def chances_by_others(self) -> Array:
        """The same, each line by what all the others say."""
        log_NK = np.tile(self._log_K, (len(self._legible_NK), 1))
        for number, own_K in self._read.items():
            log_NK[number] -= own_K
        weight_NK = np.exp(log_NK - log_NK.max(axis=1, keepdims=True))
        return np.round((self._legible_NK * weight_NK).sum(axis=1) / weight_NK.sum(axis=1), 6)

    def next_line(self, price_N: Array, clean_N: Array) -> tuple[int, float]:
        """The line that is worth most, and its `worth`; (-1, 0.0) when all have been read.

        The doubt about a line is 2 p (1 - p): the chance that its decision is wrong if it is drawn by lot from its
        chance. Unlike min(p, 1 - p) it falls with every reading that says anything, so that a first reading is worth
        something even if only the second would change decisions. price_N, clean_N: see `worth`.
        """
        left_R = np.array([number for number in range(len(price_N)) if number not in self._read], np.intp)
        if not len(left_R):
            return -1, 0.0
        belief_K = _normalised(self._log_K)
        legible_RK = self._legible_NK[left_R]
        chance_R = legible_RK @ belief_K
        # Of thousands of lines only the most doubtful are asked about: every one of them against all would fill memory.
        asked_A = np.sort(np.argsort(-_doubt(chance_R), kind="stable")[:_MOST_ASKED])
        joint_AJK = (self._levels_NKJ[left_R[asked_A]] * belief_K[None, :, None]).transpose(0, 2, 1)
        level_AJ = joint_AJK.sum(axis=2)
        # Of every line, after each of the levels at which one of them may be read.
        after_AJR = np.clip(joint_AJK @ legible_RK.T / level_AJ[:, :, None], 0, 1)
        doubt_AR = (level_AJ[:, :, None] * _doubt(after_AJR)).sum(axis=1) / level_AJ.sum(axis=1)[:, None]
        # Others are known better, the line itself is known.
        saved_A = self._stands_for * (_doubt(chance_R).sum() - doubt_AR.sum(axis=1))
        saved_A += doubt_AR[np.arange(len(asked_A)), asked_A]
        number_A = left_R[asked_A]
        offers = zip(saved_A, chance_R[asked_A], price_N[number_A], clean_N[number_A], strict=True)
        worth_A = np.array([worth(*offer) for offer in offers])
        best = int(worth_A.argmax())
        return int(number_A[best]), float(worth_A[best])


def own_worth(chance: float, price_px: float, clean_px: float) -> float:
    """`worth` of a line that says nothing about others."""
    return worth(float(_doubt(chance)), chance, price_px, clean_px)


def worth(saved: float, chance: float, price_px: float, clean_px: float) -> float:
    """Wrong decisions that reading a line is expected to save, per 1,000 px of the recogniser's input that it will
    cost, to six digits. Its clean print is read when it turns out to be misread."""
    return round(1000 * float(saved) / (price_px + (1 - chance) * clean_px), 6)


def _doubt(chance: Any) -> Any:
    return 2 * chance * (1 - chance)


def _normalised(log_K: Array) -> Array:
    weight_K = np.exp(log_K - log_K.max())
    return weight_K / weight_K.sum()


def read_where_it_pays(
    belief: PageBelief, price_N: Array, clean_N: Array, threshold: float, read: Callable[[int], int]
) -> list[int]:
    """Read line after line, always the one that is worth most, while that is above `threshold`.

    read: reads a line and returns its level. Returns the numbers of the lines that were read.
    """
    numbers: list[int] = []
    while True:
        number, value = belief.next_line(price_N, clean_N)
        if number < 0 or value <= threshold:
            return numbers
        belief.learn(number, read(number))
        numbers.append(number)
