"""A number over the steps of a run: straight lines between knots, or one number for all of them."""

import itertools
from collections.abc import Sequence
from typing import Annotated, Any

from pydantic import AfterValidator, BeforeValidator

Knots = tuple[tuple[int, float], ...]
"""(step, value), steps rising: linear between two, constant before the first and after the last."""


def _as_knots(given: Any) -> Any:
    return ((0, given),) if isinstance(given, int | float) and not isinstance(given, bool) else given


def _checked(knots: Knots) -> Knots:
    steps = [step for step, _ in knots]
    if not knots or steps != sorted(set(steps)) or steps[0] < 0:
        raise ValueError("knots need steps that rise from 0 or later")
    if any(not 0 <= value < float("inf") for _, value in knots):
        raise ValueError("values must be numbers of at least 0")
    return knots


Schedule = Annotated[Knots, BeforeValidator(_as_knots), AfterValidator(_checked)]
"""A field of a recipe: `0.5`, or `[[0, 0.5], [1000, 0.1]]`. A jump is two knots one step apart."""


def value_at(knots: Knots, step: int) -> float:
    """The value of a schedule at a step."""
    if step <= knots[0][0]:
        return float(knots[0][1])
    for (start, before), (end, after) in itertools.pairwise(knots):
        if step <= end:
            return before + (after - before) * (step - start) / (end - start)
    return float(knots[-1][1])


def ever(*schedules: Knots) -> bool:
    """Whether any of the schedules is above zero at some step."""
    return any(value > 0 for knots in schedules for _, value in knots)


def knots_of(schedules: Sequence[Knots]) -> list[int]:
    """All steps at which one of the schedules bends, rising."""
    return sorted({step for knots in schedules for step, _ in knots})
