"""How the engine scales on this machine: one process, one Ray worker, several, the same shards, turn about."""

import json
import os
import statistics
import tempfile
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path

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

    rows: int
    """Of each run."""
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

    Raises BadInput without Linux's /proc, or when Ray cannot start.
    """
    if not Path("/proc/self/stat").exists():
        raise BadInput("bench scale: reads CPU times of other processes from /proc, which this machine does not have")
    recipe = recipe.model_copy(update={"rows": shards * recipe.rows_per_shard})
    manifest, _ = scan_fonts(recipe.fonts.all_places())

    def draw(executor: Executor, tasks: int) -> tuple[float, float]:
        with tempfile.TemporaryDirectory() as out:
            began, cpu = time.perf_counter(), tree_cpu_s()
            generate(
                recipe,
                recipe_hash(recipe),
                recipe_to_yaml(recipe),
                out,
                executor=executor,
                workers=tasks,
                manifest=manifest,
                judge=KeepAll(),
            )
            return time.perf_counter() - began, tree_cpu_s() - cpu

    ways: dict[str, Callable[[], tuple[float, float]]] = {
        "serial": lambda: draw("serial", 1),
        "one": lambda: draw("ray", 1),
        "all": lambda: draw("ray", workers),
    }
    wall: dict[str, list[float]] = {name: [] for name in ways}
    cpu: dict[str, list[float]] = {name: [] for name in ways}
    with ray_session(workers):
        for warm in (ways["serial"], ways["all"]):
            warm()
        for _ in range(repeats):
            for name, way in ways.items():
                seconds, cpu_s = way()
                wall[name].append(recipe.rows / seconds)
                cpu[name].append(1000 * cpu_s / recipe.rows)
        growth = _driver_growth(workers)
    rates = {name: statistics.median(values) for name, values in wall.items()}
    costs = {name: statistics.median(values) for name, values in cpu.items()}
    return ScaleFigures(
        rows=recipe.rows,
        workers=workers,
        rows_per_s_serial=rates["serial"],
        rows_per_s_one=rates["one"],
        rows_per_s_all=rates["all"],
        speedup=statistics.median(many / one for many, one in zip(wall["all"], wall["one"], strict=True)),
        cpu_ms_per_row_serial=costs["serial"],
        cpu_ms_per_row_one=costs["one"],
        cpu_ms_per_row_all=costs["all"],
        ray_overhead=statistics.median(one / here for one, here in zip(cpu["one"], cpu["serial"], strict=True)) - 1,
        driver_bytes_per_task=growth,
    )


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
