"""Exactly once, on the real thing: processes killed, disks filled, runs racing, here and on a real S3 endpoint.

What is compared is every byte that readers look at, with a run that nobody disturbed.
"""

import os
import random
import subprocess
import sys
import threading
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import psutil
import pytest
from engine_driver import Drivers, drivers
from engine_runs import DropSome, data_bytes, make_inputs, run
from s3_server import ACCESS, S3Server, s3_server

from datagen import commit
from datagen.plan import Address, Judgement
from datagen.storage import TEMPORARY, Folder
from datagen.verify import verify_run
from fonts_manifest.errors import BadInput
from render_engine.render import Assets
from render_engine.spec import PageSpec, RenderedPage

ROWS = 240
"""In 40 shards."""


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_inputs(tmp_path_factory.mktemp("inputs"))


@pytest.fixture(scope="module")
def undisturbed(folder: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    """The bytes of a run of 40 shards that nobody disturbed."""
    out = tmp_path_factory.mktemp("undisturbed")
    assert run(folder, out, rows=ROWS).shards == 40
    return data_bytes(out)


@pytest.fixture(scope="module")
def small(folder: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    """The same of 5 shards."""
    out = tmp_path_factory.mktemp("small")
    run(folder, out)
    return data_bytes(out)


@pytest.fixture(scope="module")
def store() -> Iterator[S3Server]:
    with pytest.MonkeyPatch.context() as patch:
        for name, value in ACCESS.items():
            patch.setenv(name, value)
        with s3_server() as server:
            yield server


@pytest.fixture(scope="module")
def forking(store: S3Server) -> Iterator[Drivers]:
    with drivers() as process:
        yield process


@pytest.fixture(scope="module")
def second(store: S3Server) -> Iterator[Drivers]:
    """For a driver beside that of `forking`."""
    with drivers() as process:
        yield process


def place_in(where: str, store: S3Server, tmp_path: Path) -> str:
    return str(tmp_path / "run") if where == "disk" else store.place(str(tmp_path).strip("/"))


def assert_only_whole_shards(out: str, expected: dict[str, str]) -> None:
    """Whatever stands under a shard's name is, to the byte, the shard of the undisturbed run."""
    for path, digest in data_bytes(out).items():
        if path.endswith(".parquet") and TEMPORARY not in path and path != commit.MANIFEST:
            assert digest == expected[path], path


def assert_same(out: str, expected: dict[str, str]) -> None:
    """Nothing lost, nothing doubled, and once `gc` has been nothing left over."""
    verify_run(out, 5)
    commit.gc(out)
    assert data_bytes(out) == expected


# the driver is killed


def kill_drivers(
    kills: int, seed: int, forking: Drivers, folder: Path, out: str, expected: dict[str, str]
) -> list[int]:
    """Kill the driver of a run of 40 shards `kills` times at random, then let it end; returns the shards found then."""
    rng = random.Random(seed)
    found = []
    for _ in range(kills):
        code = forking.run_and_kill(rng.uniform(0.0, 1.2), folder, out, rows=ROWS)
        assert code in (-9, 0)
        assert_only_whole_shards(out, expected)
        found.append(len(commit.committed_shards(Folder(out))))
    assert found == sorted(found)
    forking.start(folder, out, rows=ROWS)
    assert forking.end() == 0
    return found


@pytest.mark.parametrize("where", ["disk", "s3"])
def test_a_driver_killed_three_times_loses_nothing(
    where: str, forking: Drivers, store: S3Server, folder: Path, undisturbed: dict[str, str], tmp_path: Path
) -> None:
    out = place_in(where, store, tmp_path)
    kill_drivers(3, 1, forking, folder, out, undisturbed)
    assert_same(out, undisturbed)


@pytest.mark.slow
@pytest.mark.parametrize("where", ["disk", "s3"])
def test_drivers_killed_twenty_times_at_random_moments_lose_nothing(
    where: str, forking: Drivers, store: S3Server, folder: Path, undisturbed: dict[str, str], tmp_path: Path
) -> None:
    kills = 0
    for seed in range(20):
        out = place_in(where, store, tmp_path / f"run-{seed}")
        found = kill_drivers(5, seed, forking, folder, out, undisturbed)
        kills += sum(shards < 40 for shards in found)
        assert_same(out, undisturbed)
        if kills >= 20:
            break
    print(f"{where}: {kills} drivers killed before their end, in {seed + 1} runs")
    assert kills >= 20


@pytest.mark.slow
@pytest.mark.parametrize("where", ["disk", "s3"])
def test_a_driver_of_ray_killed_at_random_moments_loses_nothing(
    where: str, store: S3Server, folder: Path, undisturbed: dict[str, str], tmp_path: Path
) -> None:
    out = place_in(where, store, tmp_path)
    script = (
        "from pathlib import Path; from engine_runs import DropSome, run\n"
        f"run(Path({str(folder)!r}), {out!r}, executor='ray', workers=2, rows={ROWS}, judge=DropSome(seconds=0.03))\n"
    )
    environment = os.environ | {"PYTHONPATH": os.pathsep.join((str(Path(__file__).parent), *filter(None, sys.path)))}
    rng, kills = random.Random(3), 0
    for _ in range(4):
        before = len(commit.committed_shards(Folder(out)))
        wanted = before + rng.randrange(1, 9)
        driver = subprocess.Popen([sys.executable, "-c", script], env=environment)
        while driver.poll() is None and len(commit.committed_shards(Folder(out))) < wanted:
            threading.Event().wait(0.05)
        driver.kill()
        kills += driver.wait() == -9
        assert_only_whole_shards(out, undisturbed)
    assert kills == 4
    run(folder, out, rows=ROWS)
    assert_same(out, undisturbed)


# workers are killed


def workers_of_ray() -> list[psutil.Process]:
    """The processes of this process's Ray that are drawing at this moment."""
    found = []
    for process in psutil.Process().children(recursive=True):
        try:
            if process.cmdline()[:1] == ["ray::_call"]:
                found.append(process)
        except psutil.Error:
            pass  # it ended while we looked
    return found


def run_while_workers_are_killed(kills: int, folder: Path, out: str) -> int:
    """A run of 40 shards on two Ray workers, a random one of them killed again and again; returns how often."""
    rng, over, killed = random.Random(5), threading.Event(), 0

    def kill() -> None:
        nonlocal killed
        while killed < kills and not over.wait(rng.uniform(0.1, 0.6)):
            workers = workers_of_ray()
            if workers:
                rng.choice(workers).kill()
                killed += 1

    killer = threading.Thread(target=kill)
    killer.start()
    try:
        report = run(folder, out, executor="ray", workers=2, rows=ROWS, judge=DropSome(seconds=0.03))
    finally:
        over.set()
        killer.join()
    assert report.kept == ROWS
    return killed


@pytest.mark.parametrize(
    ("where", "kills"),
    [("disk", 3), pytest.param("disk", 15, marks=pytest.mark.slow), pytest.param("s3", 10, marks=pytest.mark.slow)],
)
def test_random_workers_killed_during_a_run_of_forty_shards_change_nothing(
    where: str,
    kills: int,
    ray_session: None,
    store: S3Server,
    folder: Path,
    undisturbed: dict[str, str],
    tmp_path: Path,
) -> None:
    out = place_in(where, store, tmp_path)
    assert run_while_workers_are_killed(kills, folder, out) == kills
    assert_same(out, undisturbed)


# two runs in one folder


@pytest.mark.parametrize("where", [pytest.param("disk", marks=pytest.mark.slow), "s3"])
def test_two_drivers_of_one_recipe_racing_for_one_output_write_it_once(
    where: str, forking: Drivers, second: Drivers, store: S3Server, folder: Path, small: dict[str, str], tmp_path: Path
) -> None:
    out = place_in(where, store, tmp_path)
    for each in (forking, second):
        each.start(folder, out, seconds=0.005)
    assert [forking.end(), second.end()] == [0, 0]
    assert_same(out, small)


@pytest.mark.parametrize("where", [pytest.param("disk", marks=pytest.mark.slow), "s3"])
def test_two_drivers_of_two_recipes_never_both_get_the_folder(
    where: str, forking: Drivers, second: Drivers, store: S3Server, folder: Path, small: dict[str, str], tmp_path: Path
) -> None:
    for number in range(3):
        out = place_in(where, store, tmp_path / f"run-{number}")
        forking.start(folder, out)
        second.start(folder, out, rows=31)
        codes = [forking.end(), second.end()]
        assert sorted(codes) in ([0, 2], [2, 2])
        if codes[0] == 0:
            assert_same(out, small)


# a full disk, an exception while a shard is made


def test_a_full_disk_ends_the_run_and_room_lets_it_go_on(folder: Path, small: dict[str, str], tmp_path: Path) -> None:
    out = tmp_path / "disk"
    out.mkdir()
    mounted = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", "size=300k", "tmpfs", str(out)], capture_output=True, check=False
    )
    if mounted.returncode:
        pytest.skip("only root may mount a small disk; tests/test_data_generate.py injects the error instead")
    try:
        with pytest.raises(BadInput, match="the disk is full; make room and run the same command again"):
            run(folder, out)
        assert_only_whole_shards(str(out), small)
        assert not list(out.rglob(f"{TEMPORARY}*"))
        before = len(commit.committed_shards(Folder(str(out))))
        assert 1 <= before < 5
        subprocess.run(["mount", "-o", "remount,size=8m", str(out)], check=True)
        assert run(folder, out).shards_before == before
        assert_same(str(out), small)
    finally:
        subprocess.run(["umount", str(out)], check=True)


@dataclass(frozen=True)
class FailOnce:
    """As DropSome, but raises in the middle of the third shard."""

    def __call__(self, page: RenderedPage, spec: PageSpec, assets: Assets, address: Address) -> Judgement:
        if (address.shard, address.row) == (2, 3):
            raise RuntimeError("a bug in a judge")
        return DropSome()(page, spec, assets, address)


@pytest.mark.parametrize("where", [pytest.param("disk", marks=pytest.mark.slow), "s3"])
def test_an_exception_while_a_shard_is_made_leaves_no_part_of_it(
    where: str, store: S3Server, folder: Path, small: dict[str, str], tmp_path: Path
) -> None:
    out = place_in(where, store, tmp_path)
    with pytest.raises(RuntimeError, match="a bug in a judge"):
        run(folder, out, judge=FailOnce())
    names = Folder(out).names("data")
    assert [name[-9] for name in names] == ["0", "1"]
    assert_only_whole_shards(out, small)
    run(folder, out)
    assert_same(out, small)
