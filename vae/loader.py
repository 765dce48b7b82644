"""Batches ahead of the trainer: in a thread of its own process, in processes beside it, or on a Ray cluster.

A batch is a function of its step, so whoever makes it, and again after a crash, it is the same.
"""

import time
from collections import deque
from collections.abc import Callable, Generator, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import ExitStack, closing
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


def arrivals(
    feed: StagedFeed, start: int, end: int, *, workers: int = 0, ahead: bool = False, ray: str | None = None
) -> Iterator[Arrival]:
    """The batches of the steps from `start` to `end`, in order.

    workers: processes beside this one; 0: this process makes them, with `ahead` in a thread while the last is used.
    ray: make them on Ray instead, as many at a time: the address of a cluster, or "local". No more batches are ever
    under way than AHEAD times the workers, so a slow trainer holds its makers back. Raises BadInput as the feed does.
    """
    if ray is not None:
        batches = _on_ray(feed, start, end, workers or None, None if ray == "local" else ray)
    elif workers:
        batches = _beside(feed, start, end, workers)
    else:
        batches = _here(feed, start, end, ahead)
    with closing(batches):
        for step in range(start, end):
            began = time.perf_counter()
            batch = next(batches)
            yield Arrival(step, batch, time.perf_counter() - began)


def _here(feed: StagedFeed, start: int, end: int, ahead: bool) -> Generator[Batch, None, None]:
    if not ahead:
        yield from map(feed.batch, range(start, end))
        return
    with ThreadPoolExecutor(1) as pool:
        yield from _in_window(pool, feed.batch, start, end, 1)


def _beside(feed: StagedFeed, start: int, end: int, workers: int) -> Generator[Batch, None, None]:
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
        pool = stack.enter_context(ThreadPoolExecutor(workers))
        yield from _in_window(pool, make, start, end, AHEAD * workers)


def _bold_batch(feeds: tuple[StagedFeed, StagedFeed], step: int) -> Batch:
    return feeds[0].batch(step)


def _careful_batch(feeds: tuple[StagedFeed, StagedFeed], step: int) -> Batch:
    return feeds[1].batch(step)


def _in_window(
    pool: ThreadPoolExecutor, make: Callable[[int], Batch], start: int, end: int, window: int
) -> Generator[Batch, None, None]:
    """What `make` gives for every step, in order, at most `window` of them under way or waiting."""
    coming: deque[Future[Batch]] = deque()
    steps = iter(range(start, end))
    try:
        while True:
            while len(coming) < window and (step := next(steps, None)) is not None:
                coming.append(pool.submit(make, step))
            if not coming:
                return
            yield coming.popleft().result()
    finally:
        for future in coming:
            future.cancel()


def _on_ray(
    feed: StagedFeed, start: int, end: int, workers: int | None, address: str | None
) -> Generator[Batch, None, None]:
    from datagen.execute import run_tasks

    feeds = (feed.beside(apart=False), feed.beside(apart=True))
    tasks = run_tasks(
        _bold_batch,
        feeds,
        range(start, end),
        workers=workers,
        address=address,
        retries=0,
        rescue=_careful_batch,
        in_order=True,
    )
    with closing(tasks) as results:
        for _, batch in results:
            yield batch
