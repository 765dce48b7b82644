"""How far a run is: a live bar on a terminal, a line every 30 seconds in a log."""

import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Protocol

from rich.console import Console
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    TaskID,
    TextColumn,
    TimeElapsedColumn,
    TimeRemainingColumn,
)

_LOG_SECONDS = 30.0


class ProgressReport(Protocol):
    """Told how far a run is."""

    def __call__(self, stage: str, done: int, total: int, counts: Mapping[str, int], /) -> None:
        """stage: what is being done. done, total: of its units. counts: why some were dropped, in this start."""


def silent(stage: str, done: int, total: int, counts: Mapping[str, int]) -> None:
    """Says nothing."""


class Bars:
    """One bar a stage. Call it with the stage's name, how much is done, of how much, and counts to show beside it."""

    def __init__(self, console: Console, progress: Progress | None) -> None:
        self._console = console
        self._progress = progress
        self._tasks: dict[str, TaskID] = {}
        self._logged: dict[str, tuple[float, int]] = {}

    def __call__(self, stage: str, done: int, total: int, counts: Mapping[str, int | str]) -> None:
        """Show the state of `stage`; a stage that was not seen before gets a new bar."""
        beside = ", ".join(f"{name} {value}" for name, value in counts.items())
        if self._progress is not None:
            if stage not in self._tasks:
                self._tasks[stage] = self._progress.add_task(stage, total=total, beside=beside)
            self._progress.update(self._tasks[stage], completed=done, total=total, beside=beside)
            return
        now = time.monotonic()
        last, before = self._logged.get(stage, (-_LOG_SECONDS, -1))
        if done != before and (now - last >= _LOG_SECONDS or done == total):
            self._logged[stage] = (now, done)
            self._console.print(f"{stage}: {done:,} of {total:,}" + (f"; {beside}" if beside else ""), highlight=False)


@contextmanager
def show_progress(console: Console | None = None) -> Iterator[Bars]:
    """Bars for as long as the context lasts, on stderr unless a console is given."""
    console = console or Console(stderr=True)
    if not console.is_terminal:
        yield Bars(console, None)
        return
    columns = (
        TextColumn("{task.description:>12}"),
        BarColumn(),
        MofNCompleteColumn(),
        TimeElapsedColumn(),
        TimeRemainingColumn(),
        TextColumn("[dim]{task.fields[beside]}"),
    )
    with Progress(*columns, console=console) as progress:
        yield Bars(console, progress)
