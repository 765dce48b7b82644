"""How many pictures of each source every step takes: arithmetic over the steps, no state but the step.

The weights of the sources are piecewise linear over the steps; the quotas of a step are floor differences of their
closed-form integral, and the largest source of the step takes the remainder.

Legend: K sources.
"""

import itertools
from bisect import bisect_right
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from fractions import Fraction
from typing import Protocol

from fonts_manifest.errors import BadInput


class Quotas(Protocol):
    """How many pictures of each source every step takes; `Mixture` for one size of batch."""

    @property
    def names(self) -> tuple[str, ...]:
        """Of the sources."""

    def quotas(self, step: int) -> tuple[int, ...]:
        """Pictures of each source in the batch of `step`."""

    def counts_before(self, step: int) -> tuple[int, ...]:
        """Pictures of each source in all batches before `step`."""


@dataclass(frozen=True, slots=True)
class _Segment:
    """Steps [start, end) in which one source is the largest and all proportions are linear."""

    start: int
    end: int
    largest: int
    floors_start: tuple[int, ...]
    counts_start: tuple[int, ...]


@dataclass(frozen=True)
class Mixture:
    """How many pictures of each source every step takes: exact, in rational numbers, for any step without a loop.

    weights: for each source its (step, weight) knots. batch: pictures of a global batch.
    Raises BadInput when the weights are no schedule, or the batch is too small to be split among K sources (less than
    K (K - 1)).
    """

    names: tuple[str, ...]
    weights: tuple[tuple[tuple[int, float], ...], ...]
    batch: int
    _knots: tuple[int, ...] = field(init=False, repr=False)
    _shares: tuple[tuple[Fraction, ...], ...] = field(init=False, repr=False)
    _segments: tuple[_Segment, ...] = field(init=False, repr=False)

    def __post_init__(self) -> None:
        k = len(self.names)
        if not k or len(self.weights) != k or len(set(self.names)) != k:
            raise BadInput(
                f"a mixture needs sources with different names and one schedule each, got {list(self.names)}"
            )
        if self.batch < max(1, k * (k - 1)):
            raise BadInput(f"a batch of {self.batch} cannot be split among {k} sources: at least {max(1, k * (k - 1))}")
        for name, line in zip(self.names, self.weights, strict=True):
            steps = [step for step, _ in line]
            if (
                not line
                or steps != sorted(set(steps))
                or steps[0] < 0
                or any(not 0 <= w < float("inf") for _, w in line)
            ):
                raise BadInput(f"source {name}: weights need rising steps from 0 and numbers of at least 0, got {line}")
        knots = tuple(sorted({0} | {step for one in self.weights for step, _ in one}))
        shares = []
        for step in knots:
            values = [_at(one, step) for one in self.weights]
            if not sum(values):
                raise BadInput(f"at step {step} every source has weight 0")
            shares.append(tuple(value / sum(values) for value in values))
        object.__setattr__(self, "_knots", knots)
        object.__setattr__(self, "_shares", tuple(shares))
        object.__setattr__(self, "_segments", tuple(self._find_segments()))

    def share(self, source: int, step: int) -> float:
        """The proportion of a source in the batch of a step, 0 to 1, as scheduled."""
        return float(self._step_shares(step)[source])

    def shares(self, step: int) -> tuple[Fraction, ...]:
        """The proportion of every source in the batch of a step, 0 to 1, as scheduled."""
        return self._step_shares(step)

    def quotas(self, step: int) -> tuple[int, ...]:
        """Pictures of each source in the batch of `step`; they sum to the batch."""
        return tuple(b - a for a, b in zip(self.counts_before(step), self.counts_before(step + 1), strict=True))

    def counts_before(self, step: int) -> tuple[int, ...]:
        """Pictures of each source in all batches before `step`: the next ordinal of each."""
        segment = self._segments[bisect_right([s.start for s in self._segments], step) - 1]
        return self._counts_in(segment, step)

    def _counts_in(self, segment: _Segment, step: int) -> tuple[int, ...]:
        floors = self._floors(step)
        counts = [c + f - f0 for c, f, f0 in zip(segment.counts_start, floors, segment.floors_start, strict=True)]
        counts[segment.largest] += self.batch * step - sum(counts)
        return tuple(counts)

    def _floors(self, step: int) -> tuple[int, ...]:
        return tuple((self.batch * area).__floor__() for area in self._integral(step))

    def _integral(self, step: int) -> tuple[Fraction, ...]:
        """The integral of every share from 0 to `step`, exactly (trapezoids)."""
        areas = [Fraction(0)] * len(self.names)
        for i, (start, shares) in enumerate(zip(self._knots, self._shares, strict=True)):
            if step <= start:
                break
            last = i + 1 == len(self._knots)
            end = step if last else min(step, self._knots[i + 1])
            for k, share in enumerate(shares):
                if last:
                    areas[k] += share * (end - start)
                else:
                    slope = (self._shares[i + 1][k] - share) / (self._knots[i + 1] - start)
                    areas[k] += (share + slope * Fraction(end - start, 2)) * (end - start)
        return tuple(areas)

    def _find_segments(self) -> Iterable[_Segment]:
        """Cut the schedule where a line ends or another source becomes the largest of a step.

        Within a segment the remainder always goes to one source, so the counts telescope and the error stays below K.
        """
        counts = tuple(0 for _ in self.names)
        for i, start in enumerate(self._knots):
            last = i + 1 == len(self._knots)
            stop = start + 1 if last else self._knots[i + 1]
            here = start
            while here < stop:
                shares = self._step_shares(here)
                largest = max(range(len(shares)), key=lambda k: (shares[k], -k))
                end = stop
                if not last:
                    slopes = [
                        (b - a) / (stop - start) for a, b in zip(self._shares[i], self._shares[i + 1], strict=True)
                    ]
                    for k, slope in enumerate(slopes):
                        gain = slope - slopes[largest]
                        if gain > 0:
                            end = min(end, here + ((shares[largest] - shares[k]) / gain).__floor__() + 1)
                segment = _Segment(here, end, largest, self._floors(here), counts)
                yield segment
                counts = self._counts_in(segment, end)
                here = end

    def _step_shares(self, step: int) -> tuple[Fraction, ...]:
        return tuple(b - a for a, b in zip(self._integral(step), self._integral(step + 1), strict=True))


def _at(knots: Sequence[tuple[int, float]], step: int) -> Fraction:
    """The weight at a step, exactly."""
    if step <= knots[0][0]:
        return Fraction(knots[0][1])
    for (s0, w0), (s1, w1) in itertools.pairwise(knots):
        if step <= s1:
            return Fraction(w0) + (Fraction(w1) - Fraction(w0)) * Fraction(step - s0, s1 - s0)
    return Fraction(knots[-1][1])
