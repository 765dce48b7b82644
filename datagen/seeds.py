"""The address of every random draw."""

import numpy as np


def rng_for(seed: int, shard: int, row: int, attempt: int = 0) -> np.random.Generator:
    """The generator of one row: the same for any number of workers, in any order, after any crash.

    All four are non-negative integers. Philox keyed by NumPy's SeedSequence: distinct addresses, independent streams
    (Salmon et al. 2011, "Parallel random numbers: as easy as 1, 2, 3").
    """
    return np.random.Generator(np.random.Philox(np.random.SeedSequence(seed, spawn_key=(shard, row, attempt))))


def rng_for_shard(seed: int, shard: int) -> np.random.Generator:
    """A generator for a choice that concerns a whole shard, apart from every row's (its key has another length)."""
    return np.random.Generator(np.random.Philox(np.random.SeedSequence(seed, spawn_key=(shard, 0))))


def rng_for_page(seed: int, address: tuple[int, int, int], purpose: int) -> np.random.Generator:
    """A generator for a choice about a page (shard, row, attempt) beside its drawing (its key has another length)."""
    return np.random.Generator(np.random.Philox(np.random.SeedSequence(seed, spawn_key=(*address, purpose))))


def rng_for_run(seed: int, purpose: int) -> np.random.Generator:
    """A generator for a choice that concerns a whole run, apart from every row's (its key has another length)."""
    return np.random.Generator(np.random.Philox(np.random.SeedSequence(seed, spawn_key=(purpose,))))
