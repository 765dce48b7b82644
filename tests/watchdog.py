"""A process that tells of its cases, one by one, and is ended when one of them hangs, stalls or kills it."""

import os
import select
import subprocess
import sys
import time
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path

HANG_S = 5.0
"""Of CPU, for one page: the other processes of a busy machine are not counted."""
STALL_S = 60.0
"""Of wall time without any CPU: a page that waits for what never comes."""


@dataclass
class Report:
    """How the cases of a process ended."""

    outcomes: Counter[str] = field(default_factory=Counter)
    slowest_s: float = 0.0
    """CPU of the slowest page."""
    failure: str = ""


def cpu_s(pid: int) -> float:
    """CPU that a process has taken, user and system."""
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def watched(code: str, case: Path, hang_s: float = HANG_S, stall_s: float = STALL_S, **environment: str) -> Report:
    """Run Python code that prints "start" and how it ended, a line each, for every case; end it when one is too slow.

    case: a file with the case that is at work, for the report.
    """
    here = Path(__file__).parent
    path = os.pathsep.join((str(here.parent), str(here)))
    with subprocess.Popen(
        [sys.executable, "-W", "error", "-c", code],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        env=os.environ | {"PYTHONPATH": path, "PYTHONFAULTHANDLER": "1"} | environment,
        cwd=here,
    ) as process:
        report = _follow(process, hang_s, stall_s)
        if report.failure:
            process.kill()
        _, said = process.communicate()
    if not report.failure and process.returncode != 0:
        # Hypothesis repeats the whole spec behind the traceback
        traceback = said.decode(errors="replace").split("Failing test case")[0].split("Falsifying example")[0]
        report.failure = f"ended with {process.returncode}: {traceback[-3000:]}"
    if report.failure and case.exists():
        report.failure += f"\nwhile drawing {case.read_text()[:3000]}"
    return report


def _follow(process: subprocess.Popen[bytes], hang_s: float, stall_s: float) -> Report:
    report, case_cpu_s = Report(), None
    busy_cpu_s, busy_s = 0.0, time.monotonic()  # when it was last seen to do something
    assert process.stdout is not None
    os.set_blocking(process.stdout.fileno(), False)
    rest = b""
    while True:
        ready, _, _ = select.select([process.stdout], [], [], 0.25)
        said = process.stdout.read() if ready else None
        if ready and not said:
            return report
        used_s = cpu_s(process.pid) if process.poll() is None else busy_cpu_s
        *lines, rest = (rest + (said or b"")).split(b"\n")
        for line in lines:
            if line == b"start":
                case_cpu_s = used_s
            else:
                report.outcomes[line.decode()] += 1
                report.slowest_s = max(report.slowest_s, used_s - (used_s if case_cpu_s is None else case_cpu_s))
                case_cpu_s = None
        if case_cpu_s is not None and used_s - case_cpu_s > hang_s:
            report.failure = f"hangs: {used_s - case_cpu_s:.1f} s of CPU and no end"
            return report
        if used_s > busy_cpu_s + 0.02:
            busy_cpu_s, busy_s = used_s, time.monotonic()
        elif time.monotonic() - busy_s > stall_s:
            report.failure = f"stalls: has done nothing for {stall_s:g} s"
            return report
