"""How far a run is: a live table on a terminal, a line every 30 seconds in a log, JSON lines for programs."""

import json
import sys
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Protocol, TextIO

from rich.console import Console, Group
from rich.live import Live
from rich.padding import Padding
from rich.progress_bar import ProgressBar
from rich.table import Table

_LOG_SECONDS = 30.0
_JSON_SECONDS = 1.0
_REFRESHES_PER_S = 4


class ProgressReport(Protocol):
    """Told how far a run is."""

    def __call__(self, stage: str, done: int, total: int, counts: Mapping[str, int], /) -> None:
        """stage: what is being done. done, total: of its units. counts: why some were dropped, in this start."""


def silent(stage: str, done: int, total: int, counts: Mapping[str, int]) -> None:
    """Says nothing."""


@dataclass(slots=True)
class _Stage:
    """What is known of one stage."""

    done: int
    total: int
    counts: Mapping[str, int | str]
    began: float
    before: int
    """Of `done`, finished before this start."""

    def per_s(self, now: float) -> float:
        """Units a second, since the stage was first heard of."""
        return (self.done - self.before) / (now - self.began) if now > self.began else 0.0

    def seconds_left(self, now: float) -> float | None:
        """At that rate; None while nothing is done."""
        rate = self.per_s(now)
        return (self.total - self.done) / rate if rate else None


class Bars:
    """Call it with the stage's name, how much is done, of how much, and counts to show beside it.

    On a terminal the stages stand one under another in a live table, the counts of the present one below. Elsewhere
    a line comes when a stage begins and ends and every 30 seconds between, whether or not anything was finished.
    """

    def __init__(self, console: Console, clock: Callable[[], float] = time.monotonic) -> None:
        self._console = console
        self._clock = clock
        self._stages: dict[str, _Stage] = {}
        self._present = ""
        self._lock = threading.Lock()  # the table and the line are drawn by threads of their own

    def __call__(self, stage: str, done: int, total: int, counts: Mapping[str, int | str]) -> None:
        """The state of `stage`; a stage that was not heard of before gets a new row."""
        with self._lock:
            known = self._stages.get(stage)
            if known is None:
                known = self._stages[stage] = _Stage(done, total, dict(counts), self._clock(), done)
            ends = done == total and (self._present != stage or known.done != done)
            begins = self._present != stage
            known.done, known.total, known.counts = done, total, dict(counts)
            self._present = stage
        if (begins or ends) and not self._console.is_terminal:
            self.print_line()

    def print_line(self) -> None:
        """The state of the present stage as one line of a log."""
        with self._lock:
            if not self._present:
                return
            stage, now = self._stages[self._present], self._clock()
            parts = [f"{self._present}: {stage.done:,} of {stage.total:,}"]
            if stage.done > stage.before:
                parts.append(f"{stage.per_s(now):,.3g}/s")
                if stage.done < stage.total:
                    parts.append(f"{_duration(stage.seconds_left(now))} left")
            text = ", ".join(parts) + "".join(f"; {name} {value}" for name, value in stage.counts.items())
        self._console.print(text, highlight=False, soft_wrap=True)

    def table(self) -> Group:
        """All stages, and the counts of the present one."""
        with self._lock:
            now = self._clock()
            stages = Table.grid(padding=(0, 2))
            for _ in range(5):
                stages.add_column(justify="right")
            for name, stage in self._stages.items():
                stages.add_row(
                    name,
                    ProgressBar(total=max(1, stage.total), completed=stage.done, width=32),
                    f"{stage.done:,} of {stage.total:,}",
                    f"{stage.per_s(now):,.3g}/s",
                    "" if stage.done == stage.total else f"{_duration(stage.seconds_left(now))} left",
                )
            return Group(stages, Padding(_counts_table(self._stages[self._present]) if self._present else "", (0, 4)))


def _counts_table(stage: _Stage) -> Table:
    table = Table.grid(padding=(0, 2))
    seen = stage.done - stage.before + sum(value for value in stage.counts.values() if isinstance(value, int))
    for name, value in stage.counts.items():
        share = f"{value / seen:.1%}" if isinstance(value, int) and seen else ""
        table.add_row(f"[dim]{name}", f"{value:,}" if isinstance(value, int) else value, f"[dim]{share}")
    return table


def _duration(seconds: float | None) -> str:
    if seconds is None:
        return "? s"
    if seconds < 100:
        return f"{seconds:.0f} s"
    minutes = round(seconds / 60)
    return f"{minutes} min" if minutes < 100 else f"{minutes // 60} h {minutes % 60} min"


class JsonLines:
    """The same for programs: one JSON object a line, at most one a second and stage, the first and the last always.

    Keys: event ("progress"), stage, done, total, per_s, seconds_left (null at first), counts.
    """

    def __init__(self, stream: TextIO, clock: Callable[[], float] = time.monotonic) -> None:
        self._stream = stream
        self._clock = clock
        self._stages: dict[str, _Stage] = {}
        self._said: dict[str, float] = {}

    def __call__(self, stage: str, done: int, total: int, counts: Mapping[str, int | str]) -> None:
        """Write a line, unless the last one of this stage is fresh."""
        now = self._clock()
        known = self._stages.setdefault(stage, _Stage(done, total, counts, now, done))
        known.done, known.total = done, total
        if stage in self._said and done < total and now - self._said[stage] < _JSON_SECONDS:
            return
        self._said[stage] = now
        left = known.seconds_left(now)
        self.event(
            "progress",
            stage=stage,
            done=done,
            total=total,
            per_s=round(known.per_s(now), 3),
            seconds_left=None if left is None else round(left, 1),
            counts=dict(counts),
        )

    def event(self, name: str, **values: object) -> None:
        """Write one event."""
        self._stream.write(json.dumps({"event": name, **values}, ensure_ascii=False) + "\n")
        self._stream.flush()


@contextmanager
def show_progress(console: Console | None = None) -> Iterator[Bars]:
    """A table or lines for as long as the context lasts, on stderr unless a console is given."""
    console = console or Console(stderr=True)
    bars = Bars(console)
    if console.is_terminal:
        with Live(get_renderable=bars.table, console=console, refresh_per_second=_REFRESHES_PER_S):
            yield bars
        return
    over = threading.Event()

    def tick() -> None:
        while not over.wait(_LOG_SECONDS):
            bars.print_line()

    ticker = threading.Thread(target=tick, daemon=True)
    ticker.start()
    try:
        yield bars
    finally:
        over.set()
        ticker.join()


@contextmanager
def json_progress(stream: TextIO | None = None) -> Iterator[JsonLines]:
    """JSON lines on stdout unless a stream is given; an exception becomes the event "failed" and goes on its way."""
    lines = JsonLines(stream or sys.stdout)
    try:
        yield lines
    except Exception as error:
        lines.event("failed", reason=str(error))
        raise
