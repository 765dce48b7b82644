"""How sure a mean is: intervals by resampling the pictures."""

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

_INDICES_AT_ONCE = 2_000_000


@dataclass(frozen=True, slots=True, kw_only=True)
class Figure:
    """The mean of one metric over the pictures of a set."""

    mean: float
    low: float
    """2.5 % point of the bootstrap distribution of the mean."""
    high: float
    """97.5 % point."""
    pictures: int


def bootstrap(values: npt.NDArray[np.float64], draws: int = 1000) -> Figure:
    """The mean and its 95 % interval over `draws` resamplings of the pictures, from a fixed seed."""
    rng = np.random.Generator(np.random.Philox(0))
    count = len(values)
    part = max(1, _INDICES_AT_ONCE // count)
    sizes = [min(part, draws - start) for start in range(0, draws, part)]
    means = np.concatenate([values[rng.integers(count, size=(size, count))].mean(axis=1) for size in sizes])
    low, high = np.quantile(means, (0.025, 0.975))
    return Figure(mean=float(values.mean()), low=float(low), high=float(high), pictures=count)
