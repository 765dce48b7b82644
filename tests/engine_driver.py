"""A warm process that forks a driver whenever it is told to, so that drivers can be killed dozens of times a minute.

`python engine_driver.py`: reads lines of JSON (arguments of `engine_runs.run`), answers each with the driver's pid, and
with its wait status when it has ended. A driver that ends with BadInput says so and ends with 2.
"""

import json
import os
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from engine_runs import DropSome, make_recipe, run

from datagen.plan import Address, make_plan
from datagen.rows import sample_rows
from fonts_manifest.errors import BadInput


def serve() -> None:
    """The forking process. It opens no object store and no Ray: neither survives a fork."""
    manifest = None
    for line in sys.stdin:
        arguments = json.loads(line)
        folder, out, seconds = Path(arguments.pop("folder")), arguments.pop("out"), arguments.pop("seconds", 0.0)
        if manifest is None:
            plan = make_plan(make_recipe(folder), "0" * 16, "")
            manifest = plan.manifest
            list(sample_rows(plan, [Address(0, 0)]))
        pid = os.fork()
        if pid == 0:
            try:
                run(folder, out, judge=DropSome(seconds=seconds), manifest=manifest, **arguments)
            except BadInput as error:
                print(f"driver: {error}", file=sys.stderr, flush=True)
                os._exit(2)
            os._exit(0)
        print(pid, flush=True)
        print(os.waitpid(pid, 0)[1], flush=True)


class Drivers:
    """The other end of `serve`: one driver at a time."""

    def __init__(self, process: "subprocess.Popen[str]") -> None:
        self._process = process

    def start(self, folder: Path, out: Path | str, **arguments: object) -> int:
        """Start a driver; returns its pid."""
        assert self._process.stdin is not None
        self._process.stdin.write(json.dumps({"folder": str(folder), "out": str(out), **arguments}) + "\n")
        self._process.stdin.flush()
        return int(self._read())

    def end(self) -> int:
        """Wait for the driver; returns its exit code, or minus the signal that killed it."""
        return os.waitstatus_to_exitcode(int(self._read()))

    def run_and_kill(self, after_s: float, folder: Path, out: Path | str, **arguments: object) -> int:
        """Start a driver, kill it after `after_s` seconds unless it has ended; returns as `end`."""
        pid = self.start(folder, out, **arguments)
        time.sleep(after_s)
        with suppress(ProcessLookupError):  # it was faster
            os.kill(pid, 9)
        return self.end()

    def _read(self) -> str:
        assert self._process.stdout is not None
        line = self._process.stdout.readline()
        assert line, "the forking process has ended"
        return line


@contextmanager
def drivers() -> Iterator[Drivers]:
    """A forking process for as long as the context lasts."""
    environment = os.environ | {"PYTHONPATH": os.pathsep.join((str(Path(__file__).parent), *filter(None, sys.path)))}
    command = [sys.executable, __file__]
    with subprocess.Popen(
        command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, env=environment
    ) as process:
        yield Drivers(process)
        assert process.stdin is not None
        process.stdin.close()


if __name__ == "__main__":
    serve()
