"""Batches ahead of the trainer: in a thread of its own process, in processes beside it, or on a Ray cluster.

A batch is a function of its step, so whoever makes it, and again after a crash, it is the same.
"""

import time
from collections import deque
from collections.abc import Callable, Generator, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import AbstractContextManager, ExitStack, closing, contextmanager, nullcontext
from itertools import islice
from queue import SimpleQueue
from typing import NamedTuple

from datagen.child import Child, ChildDied
from fonts_manifest.errors import BadInput
from vae.batch import Batch
from vae.feed import StagedFeed

AHEAD = 2
"""Batches a process may be ahead: one that it makes, one that waits."""


class Arrival(NamedTuple):
    """A batch where it is used."""

    step: int
    batch: Batch
    waited_s: float
    """How long for it."""
    first: bool
    """Of this sitting: it waits for what makes batches to start."""


@contextmanager
def arrivals(
    feed: StagedFeed, start: int, end: int, *, workers: int = 0, ahead: bool = False, ray: str | None = None
) -> Generator[Iterator[Arrival], None, None]:
    """The batches of the steps from `start` to `end`, in order; what makes them ahead begins at once.

    workers: processes beside this one; 0: this process makes them, with `ahead` in a thread while the last is used.
    ray: make them on Ray instead, as many at a time: the address of a cluster, or "local". No more batches are ever
    under way than AHEAD times the workers, so a slow trainer holds its makers back. Raises BadInput as the feed does.
    """
    steps = range(start, end)
    makers: AbstractContextManager[Iterator[Batch]]
    if ray is not None:
        makers = _on_ray(feed, steps, workers or None, None if ray == "local" else ray)
    elif workers:
        makers = _beside(feed, steps, workers)
    elif ahead:
        makers = _in_window(feed.batch, steps, threads=1, window=1)
    else:
        makers = nullcontext(map(feed.batch, steps))
    with makers as batches:
        yield _timed(steps, batches)


def _timed(steps: range, batches: Iterator[Batch]) -> Iterator[Arrival]:
    for step in steps:
        began = time.perf_counter()
        batch = next(batches)
        yield Arrival(step, batch, time.perf_counter() - began, step == steps.start)


@contextmanager
def _beside(feed: StagedFeed, steps: range, workers: int) -> Generator[Iterator[Batch], None, None]:
    """From processes that may die: then the batch is made once more, with live pictures drawn in yet another process,
    where an address that crashes a library costs one attempt."""
    bold, careful = feed.beside(apart=False), feed.beside(apart=True)
    free: SimpleQueue[Child[tuple[StagedFeed, StagedFeed]]] = SimpleQueue()

    def make(step: int) -> Batch:
        child = free.get()
        try:
            try:
                return child.call(_bold_batch, step)
            except ChildDied:
                return child.call(_careful_batch, step)
        except ChildDied as death:
            raise BadInput(f"the batch of step {step} cannot be made: {death}, again and again") from None
        finally:
            free.put(child)

    with ExitStack() as stack:
        for _ in range(workers):
            free.put(stack.enter_context(Child((bold, careful))))
        yield stack.enter_context(_in_window(make, steps, threads=workers, window=AHEAD * workers))


def _bold_batch(feeds: tuple[StagedFeed, StagedFeed], step: int) -> Batch:
    return feeds[0].batch(step)


def _careful_batch(feeds: tuple[StagedFeed, StagedFeed], step: int) -> Batch:
    return feeds[1].batch(step)


@contextmanager
def _in_window(
    make: Callable[[int], Batch], steps: range, *, threads: int, window: int
) -> Generator[Iterator[Batch], None, None]:
    """What `make` gives for every step, in order; while one is used, `window` others are under way or waiting."""
    left = iter(steps)
    with ThreadPoolExecutor(threads) as pool:
        coming = deque(pool.submit(make, step) for step in islice(left, window))

        def batches() -> Iterator[Batch]:
            while coming:
                batch = coming.popleft().result()
                coming.extend(pool.submit(make, step) for step in islice(left, 1))
                yield batch

        try:
            yield batches()
        finally:
            for future in coming:
                future.cancel()


@contextmanager
def _on_ray(
    feed: StagedFeed, steps: range, workers: int | None, address: str | None
) -> Generator[Iterator[Batch], None, None]:
    from datagen.execute import run_tasks

    feeds = (feed.beside(apart=False), feed.beside(apart=True))
    tasks = run_tasks(
        _bold_batch,
        feeds,
        steps,
        workers=workers,
        address=address,
        retries=0,
        rescue=_careful_batch,
        in_order=True,
    )
    with closing(tasks) as results:
        yield (batch for _, batch in results)
