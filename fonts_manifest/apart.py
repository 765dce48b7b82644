"""Work in processes of their own: what crashes or stalls a native library costs one task, not the run.

A worker is `python -m MODULE`, whose main calls `serve`. It is sent a setup and then one task after the other, each a
line of JSON, and answers each with a line. What its libraries print goes to stderr.
"""

import json
import os
import selectors
import subprocess
import sys
import time
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import IO, Any, cast

from fonts_manifest.errors import BadInput

OPENING_S = 300.0
"""For a worker to load its models; PaddleOCR takes 10 s on a calm machine."""
_OPENING = -1


@dataclass(frozen=True, slots=True)
class Died:
    """In place of an answer: the process ended, or was ended, over its task."""

    reason: str
    by_itself: bool = False
    """By an exception of the worker's own code, whose traceback is on stderr."""


def process_environment() -> dict[str, str]:
    """For a process that imports what this one does. More threads than one each would only fight for the same CPUs."""
    return {"OMP_NUM_THREADS": "1"} | os.environ | {"PYTHONPATH": os.pathsep.join(sys.path)}


class _Worker:
    def __init__(self, module: str, setup: Any) -> None:
        self.process = subprocess.Popen(
            (sys.executable, "-m", module),
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            env=process_environment(),
            start_new_session=True,  # Ctrl-C is for us alone; the worker ends when its stdin does
        )
        self.questions, self.answers = cast(IO[bytes], self.process.stdin), cast(IO[bytes], self.process.stdout)
        self.ask(_OPENING, setup, OPENING_S)

    def ask(self, number: int, task: Any, limit_s: float) -> None:
        """Raises nothing when the worker has died since its last answer: that shows when the answer is read."""
        self.number, self.limit_s, self.due_s = number, limit_s, time.monotonic() + limit_s
        try:
            self.questions.write(json.dumps(task).encode() + b"\n")
            self.questions.flush()
        except BrokenPipeError:
            return

    def answer(self, ready: bool) -> Any:
        """What it says, or `Died`."""
        if not ready:
            return Died(f"took longer than {self.limit_s:g} s")
        line = self.answers.readline()
        if line.endswith(b"\n"):
            return json.loads(line)
        code = self.process.wait()
        if code < 0:
            return Died(f"ended the process (signal {-code})")
        return Died(f"failed (exit code {code}, see above)", by_itself=True)

    def end(self) -> None:
        self.process.kill()
        self.process.wait()
        for pipe in (self.questions, self.answers):
            try:
                pipe.close()
            except BrokenPipeError:  # something was left to flush
                continue


def answers(
    module: str, setup: Any, tasks: Sequence[Any], *, processes: int, limit_s: float
) -> Iterator[tuple[int, Any]]:
    """(number of the task, its answer or `Died`) as they come, each task once.

    setup, tasks, answers: JSON. limit_s: for one task. Raises BadInput with the worker's sentence when it refuses its
    setup, and when it dies over it.
    """
    waiting = deque(range(len(tasks)))
    with selectors.DefaultSelector() as selector:

        def start() -> None:
            worker = _Worker(module, setup)
            selector.register(worker.answers, selectors.EVENT_READ, worker)

        try:
            for _ in range(min(processes, len(tasks))):
                start()
            while selector.get_map():
                for worker, ready in _next(selector):
                    number, answer = worker.number, worker.answer(ready)
                    if number == _OPENING and answer is not None:
                        raise BadInput(answer.reason if isinstance(answer, Died) else answer)
                    died = isinstance(answer, Died)
                    if waiting and not died:
                        following = waiting.popleft()
                        worker.ask(following, tasks[following], limit_s)
                    else:
                        selector.unregister(worker.answers)
                        worker.end()
                        if waiting:
                            start()
                    if number != _OPENING:
                        yield number, answer
        finally:
            for key in list(selector.get_map().values()):
                key.data.end()


def answers_in_groups(
    module: str, setup: Any, tasks: Sequence[Any], *, size: int, processes: int, limit_s: float
) -> Iterator[tuple[int, Any]]:
    """As `answers`, of a worker that takes up to `size` tasks at once and answers each in a list.

    Of a group whose process died every task is tried again by itself. limit_s: for a group.
    """
    groups: list[Sequence[int]] = [range(len(tasks))[start : start + size] for start in range(0, len(tasks), size)]
    while groups:
        again: list[Sequence[int]] = []
        asked = [[tasks[number] for number in group] for group in groups]
        for place, answer in answers(module, setup, asked, processes=processes, limit_s=limit_s):
            group = groups[place]
            if not isinstance(answer, Died):
                yield from zip(group, answer, strict=True)
            elif len(group) == 1:
                yield group[0], answer
            else:
                again += [[number] for number in group]
        groups = again


def _next(selector: selectors.BaseSelector) -> list[tuple[_Worker, bool]]:
    """The workers that have something to read (True) or are late (False); waits for the first."""
    workers: list[_Worker] = [key.data for key in selector.get_map().values()]
    wait_s = min(worker.due_s for worker in workers) - time.monotonic()
    ready = [key.data for key, _ in selector.select(max(0.0, wait_s))]
    now = time.monotonic()
    return [(worker, True) for worker in ready] or [(worker, False) for worker in workers if worker.due_s <= now]


def serve(open_for: Callable[[Any], Callable[[Any], Any]]) -> None:
    """The worker's side: `open_for(setup)` gives the function that answers tasks; a BadInput of it is its refusal."""
    talk = os.fdopen(os.dup(1), "wb")
    os.dup2(2, 1)

    def say(answer: Any) -> None:
        try:
            talk.write(json.dumps(answer).encode() + b"\n")
            talk.flush()
        except BrokenPipeError:  # whoever asked is gone
            os._exit(1)

    setup = json.loads(sys.stdin.buffer.readline())
    try:
        answer = open_for(setup)
    except BadInput as refusal:
        say(str(refusal))
        return
    say(None)
    for line in sys.stdin.buffer:
        say(answer(json.loads(line)))
