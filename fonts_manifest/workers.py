"""Font files examined in processes of their own: one that crashes or stalls its library costs one file, not the run."""

import os
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from pydantic import TypeAdapter

from fonts_manifest.apart import Died, answers, serve
from fonts_manifest.examine import FontFile, examine

LIMIT_S = 60.0
"""For one file. The slowest seen, a Chinese collection of two faces, takes .1 s."""
FILES_PER_PROCESS = 64
"""A process takes .3 s to start, about as long as this many Latin fonts."""
MODULE = "fonts_manifest.workers"

_FONT_FILE = TypeAdapter(FontFile)


def examine_all(
    paths: Sequence[Path], processes: int | None = None, progress: Callable[[int, int], None] | None = None
) -> list[FontFile]:
    """What `examine` finds in every file, in their order.

    processes: how many work at the same time; None: one for each CPU, fewer when there is little to do.
    progress: called with (files done, files in all). Raises RuntimeError for an exception of `examine`: that is a bug
    of ours and no font's, its traceback is on stderr.
    """
    cpus = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    count = processes or min(cpus, 1 + len(paths) // FILES_PER_PROCESS)
    found: dict[int, FontFile] = {}
    if progress is not None:
        progress(0, len(paths))
    for number, answer in answers(MODULE, None, [str(path) for path in paths], processes=count, limit_s=LIMIT_S):
        found[number] = (
            _left_out(paths[number], answer) if isinstance(answer, Died) else _FONT_FILE.validate_python(answer)
        )
        if progress is not None:
            progress(len(found), len(paths))
    return [found[number] for number in range(len(paths))]


def _left_out(path: Path, died: Died) -> FontFile:
    if died.by_itself:
        raise RuntimeError(f"examining {path} {died.reason}: the traceback stands above")
    return FontFile("", (), ((str(path), died.reason),))


def open_examiner(_: None) -> Callable[[str], dict[str, Any]]:
    """What a worker does with a path: `examine`, as JSON."""
    return lambda path: _FONT_FILE.dump_python(examine(Path(path)), mode="json")


if __name__ == "__main__":
    serve(open_examiner)
