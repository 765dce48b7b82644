"""Font files examined in processes of their own: one that crashes or stalls its library costs one file, not the run."""

import json
import os
import selectors
import subprocess
import sys
import time
from collections import deque
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import IO, cast

from pydantic import TypeAdapter

from fonts_manifest.examine import FontFile, examine

LIMIT_S = 60.0
"""For one file. The slowest seen, a Chinese collection of two faces, takes .1 s."""
FILES_PER_PROCESS = 64
"""A process takes .3 s to start, about as long as this many Latin fonts."""
COMMAND = (sys.executable, "-m", "fonts_manifest.workers")

_FONT_FILE = TypeAdapter(FontFile)


class _Worker:
    """A process that is sent one path after the other and answers each with a line of JSON."""

    def __init__(self) -> None:
        self.process = subprocess.Popen(
            COMMAND,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            env=os.environ | {"PYTHONPATH": os.pathsep.join(sys.path)},
            start_new_session=True,  # Ctrl-C is for us alone; the worker ends when its stdin does
        )
        self.questions, self.answers = cast(IO[bytes], self.process.stdin), cast(IO[bytes], self.process.stdout)
        self.file = -1
        """Number of the file it has."""
        self.due_s = 0.0

    def ask(self, number: int, path: Path) -> None:
        self.file, self.due_s = number, time.monotonic() + LIMIT_S
        self.questions.write(json.dumps(str(path)).encode() + b"\n")
        self.questions.flush()

    def answer(self) -> FontFile | None:
        """None when the process died over the file."""
        line = self.answers.readline()
        return _FONT_FILE.validate_json(line) if line.endswith(b"\n") else None

    def end(self) -> None:
        self.process.kill()
        self.process.wait()
        self.questions.close()
        self.answers.close()


def examine_all(
    paths: Sequence[Path], processes: int | None = None, progress: Callable[[int, int], None] | None = None
) -> list[FontFile]:
    """What `examine` finds in every file, in their order.

    processes: how many work at the same time; None: one for each CPU, fewer when there is little to do.
    progress: called with (files done, files in all).
    """
    cpus = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    count = min(len(paths), processes or min(cpus, 1 + len(paths) // FILES_PER_PROCESS))
    waiting = deque(range(len(paths)))
    found: dict[int, FontFile] = {}
    if progress is not None:
        progress(0, len(paths))
    with selectors.DefaultSelector() as selector:
        try:
            for _ in range(count):
                _start(selector, waiting, paths)
            while len(found) < len(paths):
                for worker, ready in _next(selector):
                    answer = worker.answer() if ready else _left_out(paths[worker.file], f"took over {LIMIT_S:g} s")
                    alive = ready and answer is not None
                    found[worker.file] = answer or _left_out(paths[worker.file], _cause_of_death(worker))
                    if progress is not None:
                        progress(len(found), len(paths))
                    if alive and waiting:
                        number = waiting.popleft()
                        worker.ask(number, paths[number])
                        continue
                    selector.unregister(worker.answers)
                    worker.end()
                    if waiting:
                        _start(selector, waiting, paths)
        finally:
            for key in list(selector.get_map().values()):
                key.data.end()
    return [found[number] for number in range(len(paths))]


def _start(selector: selectors.BaseSelector, waiting: deque[int], paths: Sequence[Path]) -> None:
    """A new worker with a file to look at."""
    worker = _Worker()
    selector.register(worker.answers, selectors.EVENT_READ, worker)
    number = waiting.popleft()
    worker.ask(number, paths[number])


def _next(selector: selectors.BaseSelector) -> list[tuple[_Worker, bool]]:
    """The workers that have something to read (True) or are late (False); waits for the first."""
    workers: list[_Worker] = [key.data for key in selector.get_map().values()]
    wait_s = min(worker.due_s for worker in workers) - time.monotonic()
    ready = [key.data for key, _ in selector.select(max(0.0, wait_s))]
    now = time.monotonic()
    return [(worker, True) for worker in ready] or [(worker, False) for worker in workers if worker.due_s <= now]


def _left_out(path: Path, reason: str) -> FontFile:
    return FontFile("", (), ((str(path), reason),))


def _cause_of_death(worker: _Worker) -> str:
    """Raises RuntimeError when the process ended by itself: that is a bug of ours, and its traceback is on stderr."""
    code = worker.process.wait()
    if code >= 0:
        raise RuntimeError(f"examining a font ended with exit code {code}; the traceback stands above")
    return f"ends the process that reads it (signal {-code})"


def serve() -> None:
    """Answer every path on stdin with a line on stdout."""
    for line in sys.stdin.buffer:
        sys.stdout.buffer.write(_FONT_FILE.dump_json(examine(Path(json.loads(line)))) + b"\n")
        sys.stdout.buffer.flush()


if __name__ == "__main__":
    serve()
