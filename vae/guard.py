"""Steps that would do harm are left out, and weights that went astray are set back."""

import math
from collections import deque
from statistics import median
from typing import Any

HISTORY = 200
"""Accepted steps whose gradient norms are remembered."""

MIN_HISTORY = 50
"""So many are needed before a norm can be called a spike: a run begins with large and changing ones."""

PATIENCE = 10
"""After so many refused steps one after the other the weights themselves are at fault."""

MAX_ROLLBACKS = 2
"""So often weights are set back without an accepted step between."""


class Guard:
    """Judges each step by its loss and gradient norm, alike on every process and after every resume."""

    def __init__(self, spike_factor: float) -> None:
        self.spike_factor = spike_factor
        self._norms: deque[float] = deque(maxlen=HISTORY)
        self.refused_in_a_row = 0
        self.rollbacks_in_a_row = 0

    def accepts(self, loss: float, norm: float) -> bool:
        """False when loss or norm is not finite, or the norm is above `spike_factor` times the median of the last."""
        good = math.isfinite(loss) and math.isfinite(norm)
        if good and self.spike_factor and len(self._norms) >= MIN_HISTORY:
            good = norm <= self.spike_factor * median(self._norms)
        if good:
            self._norms.append(norm)
            self.refused_in_a_row = self.rollbacks_in_a_row = 0
        else:
            self.refused_in_a_row += 1
        return good

    @property
    def astray(self) -> bool:
        """Whether so many steps were refused that the weights should be set back."""
        return self.refused_in_a_row >= PATIENCE

    @property
    def hopeless(self) -> bool:
        """Whether setting back has not helped before."""
        return self.rollbacks_in_a_row >= MAX_ROLLBACKS

    def set_back(self) -> None:
        """The weights were set back: norms are learned anew, for what looked like a spike may be the new normal."""
        self._norms.clear()
        self.refused_in_a_row = 0
        self.rollbacks_in_a_row += 1

    def forget(self) -> None:
        """Another stage begins, and with it other gradient norms."""
        self._norms.clear()

    def state(self) -> dict[str, Any]:
        """What a checkpoint keeps; JSON gives the numbers back exactly."""
        return {"norms": list(self._norms), "refused": self.refused_in_a_row, "rollbacks": self.rollbacks_in_a_row}

    def load(self, state: dict[str, Any]) -> None:
        """Go on where `state` was taken."""
        self._norms = deque(state["norms"], maxlen=HISTORY)
        self.refused_in_a_row, self.rollbacks_in_a_row = state["refused"], state["rollbacks"]
