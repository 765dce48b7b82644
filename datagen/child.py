"""A process beside this one, for work that may crash inside a native library: its death is an exception here."""

import signal
import subprocess
import sys
from collections.abc import Callable
from multiprocessing.connection import Connection, Pipe
from types import TracebackType
from typing import Any, Generic, Self, TypeVar

from fonts_manifest.apart import process_environment
from fonts_manifest.errors import BadInput

S = TypeVar("S")
T = TypeVar("T")
R = TypeVar("R")


class ChildDied(Exception):
    """The process ended in the middle of a call."""


class Child(Generic[S]):
    """Calls `function(shared, item)` in one process of its own, which stays warm from call to call.

    Not `multiprocessing.Process`: that would import the main script again, and in a Ray worker that is Ray's own. A
    context manager; the process ends with it, or when this process dies.
    """

    def __init__(self, shared: S) -> None:
        """shared: what all calls need, shipped once a process."""
        self._shared = shared
        self._process: subprocess.Popen[bytes] | None = None
        self._connection: Connection | None = None

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.end()

    def call(self, function: Callable[[S, T], R], item: T) -> R:
        """The result of `function(shared, item)`; function: importable by name.

        Raises ChildDied when the process dies (the next call starts a new one), and what `function` raises: BadInput
        as it was raised, anything else as a RuntimeError with its traceback in the message.
        """
        connection = self._start() if self._connection is None else self._connection
        try:
            connection.send((function, item))
            fine, result = connection.recv()
        except (EOFError, OSError):
            raise ChildDied(f"the process that made {item} ended by {self.end()}") from None
        if fine:
            return result
        raise result

    def _start(self) -> Connection:
        here, there = Pipe()
        code = f"from datagen.child import _serve; _serve({there.fileno()})"
        self._process = subprocess.Popen(
            [sys.executable, "-c", code], pass_fds=[there.fileno()], env=process_environment(), stdin=subprocess.DEVNULL
        )
        there.close()
        self._connection = here
        here.send(self._shared)
        return here

    def end(self) -> str:
        """End the process; returns how it ended, in words."""
        if self._connection is not None:
            self._connection.close()
            self._connection = None
        if self._process is None:
            return "itself"
        # A closed pipe ends it, but only after its present call: nobody waits for that.
        if self._process.poll() is None:
            try:
                self._process.wait(timeout=1)
            except subprocess.TimeoutExpired:
                self._process.kill()
        code = self._process.wait()
        self._process = None
        return signal.Signals(-code).name if code < 0 else f"exit code {code}"


def _serve(descriptor: int) -> None:
    """The other end: answer calls until the pipe is closed."""
    with Connection(descriptor) as connection:
        try:
            shared: Any = connection.recv()
            while True:
                function, item = connection.recv()
                connection.send(_answer(function, shared, item))
        except (EOFError, BrokenPipeError):
            return


def _answer(function: Callable[[Any, Any], Any], shared: Any, item: Any) -> tuple[bool, Any]:
    import traceback

    try:
        return True, function(shared, item)
    except BadInput as error:
        return False, BadInput(str(error))
    except Exception:  # noqa: BLE001 - it is raised again on the other side
        return False, RuntimeError(traceback.format_exc())
