"""How the engine scales on this machine: shards drawn in one process, on one Ray worker, on several."""

import json
import os
import statistics
import tempfile
import time
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import NamedTuple

from datagen.execute import Executor, ray_session, run_tasks
from datagen.generate import generate
from datagen.plan import GenerateRecipe, KeepAll
from datagen.recipes import recipe_hash, recipe_to_yaml
from fonts_manifest.errors import BadInput
from fonts_manifest.scan import scan_fonts

_TASKS = 4000
_WARM_TASKS = 2000


@dataclass(frozen=True, slots=True, kw_only=True)
class ScaleFigures:
    """What `glyphmill bench scale --json` prints: medians over the repeats, workers warm, Ray started before."""

    rows_per_worker: int
    """In each run."""
    workers: int
    rows_per_s_serial: float
    rows_per_s_one: float
    """On one Ray worker."""
    rows_per_s_all: float
    """On `workers` of them."""
    speedup: float
    """rows_per_s_all over rows_per_s_one; `workers` would be perfect. Wall time: true on a calm machine only."""
    cpu_ms_per_row_serial: float
    """CPU time of this process and all below it, raylet and Ray's other servants too."""
    cpu_ms_per_row_one: float
    cpu_ms_per_row_all: float
    ray_overhead: float
    """CPU of one Ray worker and all its servants over that of the serial run, minus one."""
    driver_bytes_per_task: float
    """Growth of this process over 2,000 empty tasks, after 2,000: Ray's own tables fill first."""


def bench_scale(recipe: GenerateRecipe, *, workers: int, shards: int, repeats: int) -> ScaleFigures:
    """Draw `shards` shards of the recipe's size in each way, `repeats` times; nothing is judged.

    Every repeat has a seed of its own, the same in each way: pages that no process has drawn before. Several workers
    draw as many shards each, so that each has as much in its caches as the single one.
    Raises BadInput without Linux's /proc, or when Ray cannot start.
    """
    if not Path("/proc/self/stat").exists():
        raise BadInput("bench scale: reads CPU times of other processes from /proc, which this machine does not have")
    manifest, _ = scan_fonts(recipe.fonts.all_places())

    def draw(repeat: int, executor: Executor, tasks: int) -> _Run:
        rows = tasks * shards * recipe.rows_per_shard
        seeded = recipe.model_copy(update={"seed": recipe.seed + repeat, "rows": rows})
        with tempfile.TemporaryDirectory() as out:
            began, cpu = time.perf_counter(), tree_cpu_s()
            generate(
                seeded,
                recipe_hash(seeded),
                recipe_to_yaml(seeded),
                out,
                executor=executor,
                workers=tasks,
                manifest=manifest,
                judge=KeepAll(),
            )
            return _Run(
                rows_per_s=rows / (time.perf_counter() - began),
                cpu_ms_per_row=1000 * (tree_cpu_s() - cpu) / rows,
            )

    serial, one, many = [], [], []
    # Repeat 0 compiles, opens fonts and fills caches. One worker has a Ray of its own: of several Ray takes any.
    with ray_session(1):
        for repeat in range(repeats + 1):
            serial.append(draw(repeat, "serial", 1))
            one.append(draw(repeat, "ray", 1))
    with ray_session(workers):
        for repeat in range(repeats + 1):
            many.append(draw(repeat, "ray", workers))
        growth = _driver_growth(workers)
    pairs = list(zip(serial, one, many, strict=True))[1:]
    return ScaleFigures(
        rows_per_worker=shards * recipe.rows_per_shard,
        workers=workers,
        rows_per_s_serial=statistics.median(run.rows_per_s for run in serial[1:]),
        rows_per_s_one=statistics.median(run.rows_per_s for run in one[1:]),
        rows_per_s_all=statistics.median(run.rows_per_s for run in many[1:]),
        speedup=statistics.median(several.rows_per_s / single.rows_per_s for _, single, several in pairs),
        cpu_ms_per_row_serial=statistics.median(run.cpu_ms_per_row for run in serial[1:]),
        cpu_ms_per_row_one=statistics.median(run.cpu_ms_per_row for run in one[1:]),
        cpu_ms_per_row_all=statistics.median(run.cpu_ms_per_row for run in many[1:]),
        ray_overhead=statistics.median(single.cpu_ms_per_row / here.cpu_ms_per_row for here, single, _ in pairs) - 1,
        driver_bytes_per_task=growth,
    )


class _Run(NamedTuple):
    rows_per_s: float
    cpu_ms_per_row: float


def _driver_growth(workers: int) -> float:
    """Bytes that a task adds to this process, and that stay."""
    after_warm_up = 0
    for number, _ in enumerate(run_tasks(_nothing, None, range(_TASKS), workers=workers)):
        if number == _WARM_TASKS:
            after_warm_up = _resident_bytes()
    return (_resident_bytes() - after_warm_up) / (_TASKS - _WARM_TASKS)


def _nothing(_: None, item: int) -> int:
    return item


def _resident_bytes() -> int:
    return int(Path("/proc/self/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")


def tree_cpu_s() -> float:
    """CPU seconds, user and system, of this process and of all that live below it."""
    ticks: dict[int, int] = {}
    parents: dict[int, int] = {}
    for folder in Path("/proc").glob("[0-9]*"):
        try:
            # The name stands in brackets and may hold anything; what follows the last one is numbers (proc(5)).
            fields = (folder / "stat").read_text().rpartition(")")[2].split()
        except OSError:
            continue  # it has just ended
        parents[int(folder.name)] = int(fields[1])
        ticks[int(folder.name)] = int(fields[11]) + int(fields[12])
    total, here = 0, {os.getpid()}
    while here:
        total += sum(ticks.get(pid, 0) for pid in here)
        here = {pid for pid, parent in parents.items() if parent in here}
    return total / os.sysconf("SC_CLK_TCK")


def as_json(figures: ScaleFigures) -> str:
    """One JSON object."""
    return json.dumps(asdict(figures))


def as_text(figures: ScaleFigures) -> str:
    """Lines for a person."""
    rows = (
        ("serial", figures.rows_per_s_serial, figures.cpu_ms_per_row_serial),
        ("1 Ray worker", figures.rows_per_s_one, figures.cpu_ms_per_row_one),
        (f"{figures.workers} Ray workers", figures.rows_per_s_all, figures.cpu_ms_per_row_all),
    )
    lines = [f"{name:16}{rate:8,.1f} rows/s, {cost:.1f} ms of CPU a row" for name, rate, cost in rows]
    lines.append(f"speedup         {figures.speedup:8.2f} times on {figures.workers} workers")
    lines.append(f"Ray's overhead  {figures.ray_overhead:8.1%} of the serial run's CPU")
    lines.append(f"driver memory   {figures.driver_bytes_per_task:8,.0f} bytes a task")
    return "\n".join(lines)
