"""datagen.execute: the serial and the Ray executor do the same; dead workers are replaced; errors arrive whole."""

import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from datagen.execute import WorkerLost, run_tasks
from fonts_manifest.errors import BadInput


def _power(base: int, exponent: int) -> int:
    return base**exponent


def _refuse(limit: int, item: int) -> int:
    if item >= limit:
        raise BadInput(f"item must be below {limit}, got {item}")
    return item


def _divide(shared: int, item: int) -> float:
    return shared / item


def _die_once(folder: str, item: int) -> int:
    marker = Path(folder, str(item))
    if item % 2 and not marker.exists():
        marker.touch()
        os.kill(os.getpid(), signal.SIGKILL)
    return item


def _die(_: None, item: int) -> int:
    os.kill(os.getpid(), signal.SIGKILL)
    return item


def _environment(_: None, item: int) -> tuple[str | None, ...]:
    return tuple(os.environ.get(name) for name in ("OMP_NUM_THREADS", "NUMBA_NUM_THREADS", "OPENBLAS_NUM_THREADS"))


@pytest.mark.parametrize("executor", ["serial", "ray"])
def test_every_item_comes_back_once_with_its_result(ray_session: None, executor: str) -> None:
    results = list(run_tasks(_power, 3, iter(range(9)), executor=executor, workers=2))
    assert sorted(results) == [(exponent, 3**exponent) for exponent in range(9)]


@pytest.mark.parametrize("executor", ["serial", "ray"])
def test_bad_input_in_a_task_ends_the_run_with_its_own_sentence(ray_session: None, executor: str) -> None:
    with pytest.raises(BadInput) as raised:
        list(run_tasks(_refuse, 2, range(5), executor=executor, workers=2))
    assert str(raised.value) in {f"item must be below 2, got {item}" for item in (2, 3, 4)}
    assert type(raised.value) is BadInput


def test_a_bug_in_a_task_keeps_the_traceback_of_the_worker(ray_session: None) -> None:
    with pytest.raises(ZeroDivisionError, match="in _divide"):
        list(run_tasks(_divide, 1, [0], executor="ray", workers=2))


def test_no_more_than_two_tasks_a_worker_are_taken_ahead(ray_session: None) -> None:
    taken: list[int] = []

    def endless() -> Iterator[int]:
        item = 0
        while True:
            taken.append(item)
            yield item
            item += 1

    results = run_tasks(_power, 1, endless(), executor="ray", workers=2)
    for done in range(1, 6):
        next(results)
        assert len(taken) <= done + 4
    results.close()


def test_tasks_of_killed_workers_are_run_again(ray_session: None, tmp_path: Path) -> None:
    results = sorted(run_tasks(_die_once, str(tmp_path), range(6), executor="ray", workers=2))
    assert results == [(item, item) for item in range(6)]
    assert sorted(path.name for path in tmp_path.iterdir()) == ["1", "3", "5"]


def test_a_task_that_always_kills_its_worker_is_named(ray_session: None) -> None:
    with pytest.raises(WorkerLost, match="task 7: its worker died 2 times") as raised:
        list(run_tasks(_die, None, [7], executor="ray", workers=2, retries=1))
    assert raised.value.item == 7


def test_workers_use_one_thread_each(ray_session: None) -> None:
    ((_, environment),) = run_tasks(_environment, None, [0], executor="ray", workers=2)
    assert environment == ("1", "1", "1")


@pytest.mark.parametrize(
    ("before", "address", "message"),
    [
        ("", "127.0.0.1:1", "127.0.0.1:1: no Ray cluster answers there"),
        ("import sys; sys.modules['ray'] = None", None, "Ray cannot be imported"),
    ],
)
def test_ray_that_cannot_start_is_one_sentence(before: str, address: str | None, message: str) -> None:
    script = (
        f"{before}\nfrom datagen.execute import run_tasks\nfrom fonts_manifest.errors import run\n"
        f"run(lambda: list(run_tasks(max, 1, [2], executor='ray', address={address!r})))\n"
    )
    ended = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, timeout=60, check=False)
    assert ended.returncode == 2, ended.stderr
    assert ended.stderr.startswith(f"glyphmill: {message}")
    assert len(ended.stderr.splitlines()) == 1
