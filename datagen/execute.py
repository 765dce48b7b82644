"""The only file that knows Ray: pure functions over many items, here or on many machines, results as they come.

Each task is big (a shard: half a minute and more): a task an image costs 2 to 3 ms of overhead an image where tasks of
100 images cost 0.4.
"""

import logging
import os
import socket
from collections.abc import Callable, Generator, Iterable, Iterator
from contextlib import contextmanager
from itertools import islice
from typing import Any, Literal, TypedDict, TypeVar

from fonts_manifest.errors import BadInput

S = TypeVar("S")
T = TypeVar("T")
R = TypeVar("R")

Executor = Literal["serial", "ray"]


class Crew(TypedDict, total=False):
    """Who works on tasks: what `run_tasks` takes by these names, for those who pass it on."""

    executor: Executor
    workers: int | None
    address: str | None


RETRIES = 3
"""How often a task is started again after the process that ran it died."""

WORKER_ENVIRONMENT = {
    # One task, one core: Ray sets OMP_NUM_THREADS to 1 for tasks of one CPU, these have variables of their own.
    "NUMBA_NUM_THREADS": "1",
    "OPENBLAS_NUM_THREADS": "1",
    "MKL_NUM_THREADS": "1",
    # Arrow's own allocator keeps 44 MB of a row group for itself; the system's lends them to the next picture.
    "ARROW_DEFAULT_MEMORY_POOL": "system",
}
"""Of a process that works on tasks, from its start."""
_DRIVER_ENVIRONMENT = {
    "RAY_USAGE_STATS_ENABLED": "0",  # nothing is sent anywhere
    "RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO": "0",  # the behaviour to come; without it Ray prints a FutureWarning
}
# The plan and a few small results pass through Ray's object store, no pictures. Its default is 30 % of the memory.
_OBJECT_STORE_BYTES = 256 << 20


class WorkerLost(BadInput):
    """The process that ran a task died again and again: a crash inside a native library, or memory ran out."""

    def __init__(self, item: object, attempts: int, cause: str) -> None:
        super().__init__(
            f"task {item}: its worker died {attempts} times ({cause}), by a crash inside a native library or for want "
            "of memory; what is finished is kept"
        )
        self.item = item


def run_tasks(
    function: Callable[[S, T], R],
    shared: S,
    items: Iterable[T],
    *,
    executor: Executor = "ray",
    workers: int | None = None,
    address: str | None = None,
    retries: int = RETRIES,
    rescue: Callable[[S, T], R] | None = None,
    in_order: bool = False,
) -> Generator[tuple[T, R], None, None]:
    """`(item, function(shared, item))` for every item, in the order in which they get ready, or that of the items.

    function: importable by name on the workers. shared: what all tasks need, shipped once. workers: tasks at a time;
    None is all cores of this machine, or all of the cluster at `address` (`ray://` or `host:port`).
    At most two tasks a worker are in flight, so `items` may be endless and memory stays flat; results that nobody has
    taken count among them, so a slow consumer holds the workers back.

    An exception of `function` comes out here (BadInput as it was raised) and ends the run. A dead worker's task is
    started again up to `retries` times; then `rescue` takes its place, which does the same with more care and gets as
    many trials; after it, or without it, WorkerLost. In this process (serial) a crash is the end of everything.
    Closing the iterator, Ctrl-C included, cancels what is in flight. Raises BadInput when Ray cannot start. Ray that
    is already running in this process is used and left running.
    """
    if executor == "serial":
        return ((item, function(shared, item)) for item in items)
    return _run_on_ray(function, shared, items, workers, address, retries, rescue, in_order)


@contextmanager
def ray_session(workers: int | None = None, address: str | None = None) -> Iterator[None]:
    """Ray for as long as the context lasts: runs inside it start none of their own. Raises BadInput when it fails."""
    ray, started = _start_ray(workers, address)
    try:
        yield
    finally:
        if started:
            ray.shutdown()


def _run_on_ray(
    function: Callable[[S, T], R],
    shared: S,
    items: Iterable[T],
    workers: int | None,
    address: str | None,
    retries: int,
    rescue: Callable[[S, T], R] | None,
    in_order: bool,
) -> Generator[tuple[T, R], None, None]:
    ray, started = _start_ray(workers, address)
    in_flight: dict[Any, tuple[T, Callable[[S, T], R]]] = {}
    try:
        task = ray.remote(_call).options(num_cpus=1, max_retries=retries, runtime_env={"env_vars": WORKER_ENVIRONMENT})
        parallel = workers or max(1, int(ray.cluster_resources().get("CPU", 1)))
        shared_once = ray.put(shared)
        waiting = iter(items)
        # A second task for each worker waits beside the first; Ray that others started would run both at once.
        window = 2 * parallel if started or workers is None else parallel
        for item in islice(waiting, window):
            in_flight[task.remote(function, shared_once, item)] = (item, function)
        while in_flight:
            (ready, *_), _ = ray.wait(list(in_flight)[: 1 if in_order else None], num_returns=1)
            item, called = in_flight.pop(ready)
            try:
                result = _fetch(ray, ready, item, retries)
            except WorkerLost:
                if rescue is None or called is rescue:
                    raise
                in_flight = {task.remote(rescue, shared_once, item): (item, rescue), **in_flight}
                continue
            for following in islice(waiting, 1):
                in_flight[task.remote(function, shared_once, following)] = (following, function)
            yield item, result
    finally:
        for reference in in_flight:
            ray.cancel(reference, force=True)
        if started:
            ray.shutdown()


def _call(function: Callable[[S, T], R], shared: S, item: T) -> R:
    return function(shared, item)


def _fetch(ray: Any, reference: Any, item: object, retries: int) -> Any:
    try:
        return ray.get(reference)
    except ray.exceptions.RayTaskError as error:
        if isinstance(error.cause, BadInput):
            raise error.cause from None
        raise
    except (
        ray.exceptions.WorkerCrashedError,
        ray.exceptions.OutOfMemoryError,
        ray.exceptions.NodeDiedError,
        ray.exceptions.LocalRayletDiedError,
    ) as error:
        raise WorkerLost(item, retries + 1, type(error).__name__) from None


def _reach(address: str) -> None:
    """Raises BadInput when nothing listens at `host:port`: Ray's own client would end this process there and then."""
    host, _, port = address.rpartition(":")
    if not host or not port.isdigit() or "/" in host:
        return  # "auto" or ray://, which fail with exceptions
    try:
        socket.create_connection((host.strip("[]"), int(port)), timeout=10).close()
    except (OSError, OverflowError) as error:
        raise BadInput(f"{address}: no Ray cluster answers there ({error})") from None


def _start_ray(workers: int | None, address: str | None) -> tuple[Any, bool]:
    """The module `ray`, connected, and whether it was started here. Raises BadInput when that fails."""
    for name, value in _DRIVER_ENVIRONMENT.items():
        os.environ.setdefault(name, value)
    try:
        import ray
    except ImportError as error:
        raise BadInput(
            f"Ray cannot be imported ({error}); install glyphmill[data] or take the executor serial"
        ) from None
    if address is not None:
        _reach(address)
    if ray.is_initialized():
        return ray, False
    settings: dict[str, Any] = {"log_to_driver": False, "logging_level": logging.ERROR}
    if address is None:
        settings |= {"num_cpus": workers, "include_dashboard": False, "object_store_memory": _OBJECT_STORE_BYTES}
    else:
        settings |= {"address": address}
    try:
        ray.init(**settings)
    except (OSError, RuntimeError, ValueError, AssertionError) as error:
        reason = (str(error).strip() or type(error).__name__).splitlines()[0]
        raise BadInput(
            f"Ray cannot be started ({reason}); the executor serial does the same work in this process"
        ) from None
    return ray, True
