"""A run on a thousand workers, on paper: failures event by event, over the commit logic that real runs go by.

Time, workers, failures and the object store are simulated; claiming a folder, publishing a shard, going on after one
listing, writing the manifest are `commit.py` itself, called for every shard. So the figures come from a model, but that
nothing is lost or doubled is tried, not assumed.
"""

import hashlib
import heapq
from collections import Counter, deque
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import count
from typing import NamedTuple

import numpy as np
import pyarrow as pa

from datagen.commit import RunIdentity, finish_run, publish_shard, read_manifest, start_run
from datagen.execute import RETRIES
from datagen.memory import MemoryFolder, StoreModel
from datagen.shards import Shard

_HASH = "5" * 16
_CARE = 1.3  # time of a shard drawn row by row in a process beside the worker, over that of a plain one
_PROCESS_START_S = 5.0  # a new worker process on the same machine
_REJECTED_SHARE = 0.05


@dataclass(frozen=True, slots=True, kw_only=True)
class Scenario:
    """What is simulated. Times between failures are exponential, times of shards and requests lognormal."""

    shards: int = 20_000
    workers: int = 1000
    rows_per_shard: int = 1024
    shard_s: float = 8.7
    """Median time of a shard on a worker: 1,024 rows of 8.5 ms."""
    shard_sigma: float = 0.25
    """Standard deviation of its logarithm."""
    upload_s: float = 2.0
    """Median time to publish a shard's file (300 MB at 150 MB/s)."""
    request_s: float = 0.05
    """Median time of a small request to the store, or of a page of a listing."""
    worker_mtbf_h: float = 24.0
    """Mean time between failures of one worker's machine; it takes the shard in work with it."""
    worker_restart_s: float = 120.0
    driver_mtbf_h: float = 1.0
    """Mean time between failures of the driver; all work in flight goes with it."""
    driver_restart_s: float = 120.0
    zombies: float = 0.1
    """Share of the lost workers that are only cut off: given up by the driver, they go on, and write what is made."""
    poisoned: float = 1e-4
    """Share of shards with a row that kills its worker."""
    seed: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class Outcome:
    """What came of it. Hours are worker hours, but for the makespan."""

    makespan_h: float
    ideal_h: float
    """Makespan without failures, store and spread: shards times median time over workers."""
    lost_h: float
    """Work that had to be done again."""
    lost_share: float
    """Of all work."""
    worker_failures: int
    driver_failures: int
    shards_with_care: int
    rewrites: int
    """Files written again with equal bytes, by zombies and by retries after half a publication."""
    conflicting_writes: int
    """Files written again with other bytes; must be 0."""
    lost_rows: int
    """Must be 0."""
    doubled_rows: int
    """Must be 0."""
    put_requests: int
    list_requests: int
    """Over all starts: one listing each, a request a thousand records."""
    get_requests: int
    resume_s: float
    """Longest listing of a start."""
    finish_s: float
    """From the last shard to `_SUCCESS`."""
    manifest_bytes: int


class _WorkerDied(Exception):
    """In the middle of a publication."""


class _TimedFolder(MemoryFolder):
    """Operations take time; one that would end after the death of its worker never happens."""

    def __init__(self, store: StoreModel, scenario: Scenario, rng: np.random.Generator) -> None:
        super().__init__(store)
        clock = _Clock(scenario=scenario, rng=rng)
        object.__setattr__(self, "clock", clock)

    clock: "_Clock"

    def before(self, operation: str, path: str) -> None:
        """Let time pass."""
        self.clock.pass_for(operation, path, len(self.store.objects))


@dataclass(kw_only=True)
class _Clock:
    scenario: Scenario
    rng: np.random.Generator
    now: float = 0.0
    dies_at: float = float("inf")
    running: bool = True

    def pass_for(self, operation: str, path: str, objects: int) -> None:
        if not self.running:
            return
        median = self.scenario.request_s
        if operation == "PUT" and path.endswith(".parquet"):
            median = self.scenario.upload_s
        seconds = median * float(self.rng.lognormal(0.0, 0.5))
        if operation == "LIST":
            seconds *= max(1, objects // 3 // 1000)  # of three objects a shard one is a record
        if self.now + seconds > self.dies_at:
            raise _WorkerDied
        self.now += seconds

    @contextmanager
    def stopped(self) -> Iterator[None]:
        """Operations take no time: for those that are made in parallel and accounted for as a whole."""
        self.running = False
        try:
            yield
        finally:
            self.running = True


def simulated_shard(scenario: Scenario, shard: int) -> tuple[Shard, Shard, dict[str, int]]:
    """Stand-ins for the files of a shard, kept and rejected, the same whenever they are asked for."""
    rejected = int(scenario.rows_per_shard * _REJECTED_SHARE)
    return _file(shard, True, scenario.rows_per_shard), _file(shard, False, rejected), {"illegible": rejected}


def _file(shard: int, keep: bool, rows: int) -> Shard:
    data = f"{shard} {keep} {rows}".encode()
    digest = hashlib.sha256(data).hexdigest()
    return Shard(data=pa.py_buffer(data), rows=rows, sha256=digest, pixels_sha256=digest, row_groups=())


class _Event(NamedTuple):
    """Something that will happen, sorted by time."""

    time: float
    order: int
    what: str
    epoch: int
    """Of the driver that it belongs to."""
    worker: int
    shard: int
    began: float
    """When the work on the shard did."""


class _Run:
    """The state of one simulation: who works on what, and what happens next."""

    def __init__(self, scenario: Scenario) -> None:
        self.scenario = scenario
        self.rng = np.random.default_rng(scenario.seed)
        self.store = StoreModel()
        self.folder = _TimedFolder(self.store, scenario, self.rng)
        self.identity = RunIdentity(recipe_hash=_HASH, shards=scenario.shards)
        self.poisoned = set(np.flatnonzero(self.rng.random(scenario.shards) < scenario.poisoned).tolist())
        self.events: list[_Event] = []
        self.order = count()
        self.epoch = 0  # of the driver; what belongs to an earlier one is nobody's any more
        self.queue: deque[int] = deque()
        self.tries: Counter[int] = Counter()
        self.dies_at = [self._lifetime(0.0) for _ in range(scenario.workers)]
        self.free: list[int] = []
        self.left = scenario.shards
        self.done: set[int] = set()
        self.lost_s = self.worked_s = self.resume_s = 0.0
        self.failures: Counter[str] = Counter()

    def _lifetime(self, now: float) -> float:
        return now + float(self.rng.exponential(3600 * self.scenario.worker_mtbf_h))

    def _later(self, time: float, what: str, worker: int = -1, shard: int = -1, began: float = 0.0) -> None:
        heapq.heappush(self.events, _Event(time, next(self.order), what, self.epoch, worker, shard, began))

    def start_driver(self, now: float) -> None:
        """One listing, and everybody gets work."""
        clock = self.folder.clock
        clock.now, clock.dies_at = now, float("inf")
        self.done = set(start_run(self.folder, self.identity))
        self.resume_s = max(self.resume_s, clock.now - now)
        self.left = self.scenario.shards - len(self.done)
        self.queue = deque(shard for shard in range(self.scenario.shards) if shard not in self.done)
        self.free = list(range(self.scenario.workers))
        self._later(clock.now + float(self.rng.exponential(3600 * self.scenario.driver_mtbf_h)), "driver")
        self.hand_out(clock.now)

    def hand_out(self, now: float) -> None:
        """A shard for every free worker."""
        while self.free and self.queue:
            worker, shard = self.free.pop(), self.queue.popleft()
            if self.dies_at[worker] <= now:
                self.dies_at[worker] = self._lifetime(now)
            seconds = self.scenario.shard_s * float(self.rng.lognormal(0.0, self.scenario.shard_sigma))
            careful = self.tries[shard] > RETRIES
            if shard in self.poisoned and not careful:
                self._later(now + seconds * float(self.rng.random()), "poison", worker, shard, now)
            elif now + seconds * (_CARE if careful else 1.0) >= self.dies_at[worker]:
                self._later(self.dies_at[worker], "death", worker, shard, now)
            else:
                end = now + seconds * (_CARE if careful else 1.0)
                self._later(end, "made", worker, shard, now)

    def publish(self, now: float, worker: int, shard: int) -> float | None:
        """The real publication; returns when it was over, None when the worker died in the middle of it."""
        clock = self.folder.clock
        clock.now, clock.dies_at = now, self.dies_at[worker]
        kept, rejected, reasons = simulated_shard(self.scenario, shard)
        poisoned = ((0, 0),) if shard in self.poisoned else ()
        try:
            publish_shard(self.folder, _HASH, shard, kept, rejected, reasons, seconds=now, poisoned=poisoned)
        except _WorkerDied:
            return None
        return clock.now

    def publish_unasked(self, event: _Event) -> None:
        """By a worker that nobody counts on any more."""
        self.dies_at[event.worker], before = float("inf"), self.dies_at[event.worker]
        self.publish(event.time, event.worker, event.shard)
        self.dies_at[event.worker] = before

    def lose(self, event: _Event) -> None:
        """The work of a dead worker is given to another; a worker that was only cut off goes on with it unasked."""
        self.lost_s += event.time - event.began
        self.tries[event.shard] += 1
        self.queue.appendleft(event.shard)
        if event.what == "death" and self.rng.random() < self.scenario.zombies:
            left = float(self.rng.exponential(2 * self.scenario.shard_s))
            self._later(event.time + left, "zombie", event.worker, event.shard, event.began)

    def run(self) -> float:
        """Until every shard is committed and the driver knows it; returns when."""
        self.start_driver(0.0)
        while self.left:
            event = heapq.heappop(self.events)
            if event.what == "restart":
                self.start_driver(event.time)
            elif event.what == "zombie":
                self.publish_unasked(event)
            elif event.epoch != self.epoch:
                # The driver of this work is dead. Most workers end with it; some were about to publish and do.
                if event.what == "made" and self.rng.random() < self.scenario.zombies:
                    self.publish_unasked(event)
            else:
                self.happen(event)
        return event.time

    def happen(self, event: _Event) -> None:
        """One event under the present driver."""
        now, worker, shard = event.time, event.worker, event.shard
        match event.what:
            case "driver":
                self.failures["driver"] += 1
                at_work = {other.worker: other.began for other in self.events if self.is_at_work(other)}
                self.lost_s += sum(now - began for began in at_work.values())
                self.epoch += 1
                self._later(now + self.scenario.driver_restart_s, "restart")
            case "made":
                over = self.publish(now, worker, shard)
                if over is None:
                    self._later(self.dies_at[worker], "death", worker, shard, event.began)
                else:
                    self._later(over, "told", worker, shard, event.began)
            case "told":
                self.worked_s += now - event.began
                self.left -= shard not in self.done
                self.done.add(shard)
                self.free.append(worker)
            case "back":
                self.free.append(worker)
            case "death" | "poison":  # of the machine, or of the process alone
                self.failures[event.what] += 1
                self.lose(event)
                wait = _PROCESS_START_S if event.what == "poison" else self.scenario.worker_restart_s
                if event.what == "death":
                    self.dies_at[worker] = self._lifetime(now + wait)
                self._later(now + wait, "back", worker)
        if event.what != "driver":
            self.hand_out(now)

    def is_at_work(self, event: _Event) -> bool:
        """Whether a worker of the present driver has a shard in hand until this event."""
        return event.epoch == self.epoch and event.what in ("made", "death", "poison")


def simulate(scenario: Scenario) -> Outcome:
    """Run the scenario to its `_SUCCESS` and count. Deterministic in the seed."""
    run = _Run(scenario)
    ended = run.run()
    gets = run.store.requests["GET"]
    with run.folder.clock.stopped():
        finish_run(run.folder, scenario.shards)
        manifest = read_manifest(run.folder).select(["shard", "keep", "rows", "sha256"]).to_pylist()
    # Records are read 32 at a time, see commit.py.
    finish_s = (run.store.requests["GET"] - gets) / 32 * scenario.request_s
    kept: Counter[int] = Counter()
    for file in manifest:
        if file["keep"] and file["sha256"] == simulated_shard(scenario, file["shard"])[0].sha256:
            kept[file["shard"]] += file["rows"]
    return Outcome(
        makespan_h=(ended + finish_s) / 3600,
        ideal_h=scenario.shards * scenario.shard_s / scenario.workers / 3600,
        lost_h=run.lost_s / 3600,
        lost_share=run.lost_s / (run.worked_s + run.lost_s),
        worker_failures=run.failures["death"] + run.failures["poison"],
        driver_failures=run.failures["driver"],
        shards_with_care=sum(tries > RETRIES for tries in run.tries.values()),
        rewrites=run.store.rewrites,
        conflicting_writes=run.store.conflicts,
        lost_rows=sum(max(0, scenario.rows_per_shard - kept[shard]) for shard in range(scenario.shards)),
        doubled_rows=sum(max(0, rows - scenario.rows_per_shard) for rows in kept.values()),
        put_requests=run.store.requests["PUT"],
        list_requests=run.store.requests["LIST"],
        get_requests=run.store.requests["GET"],
        resume_s=run.resume_s,
        finish_s=finish_s,
        manifest_bytes=len(run.store.objects["manifest.parquet"]),
    )


def describe_outcome(scenario: Scenario, outcome: Outcome) -> str:
    """The figures as lines for a person."""
    rows = (
        ("makespan", f"{outcome.makespan_h:.2f} h, without any failure or waiting {outcome.ideal_h:.2f} h"),
        ("failures", f"{outcome.worker_failures:,} of workers, {outcome.driver_failures:,} of the driver"),
        ("lost work", f"{outcome.lost_h:,.1f} worker hours, {outcome.lost_share:.2%} of all"),
        ("made with care", f"{outcome.shards_with_care:,} shards, after {RETRIES + 1} deaths each"),
        ("start again", f"{outcome.resume_s:.0f} s at most, one listing"),
        ("finish", f"{outcome.finish_s:.0f} s, a manifest of {outcome.manifest_bytes / 1e6:,.1f} MB"),
        (
            "requests",
            f"{outcome.put_requests:,} PUT, {outcome.get_requests:,} GET, {outcome.list_requests:,} LIST",
        ),
        ("rewrites", f"{outcome.rewrites:,} with equal bytes, {outcome.conflicting_writes:,} with other bytes"),
        ("rows", f"{outcome.lost_rows:,} lost, {outcome.doubled_rows:,} doubled"),
    )
    head = f"{scenario.shards:,} shards of {scenario.rows_per_shard:,} on {scenario.workers:,} workers"
    return "\n".join((head, *(f"  {name:15} {text}" for name, text in rows)))
