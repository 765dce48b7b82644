"""Fixtures shared by all tests."""

import logging
import os
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from benchmark_pages import Scribe


@pytest.fixture(scope="session")
def ray_session() -> Iterator[None]:
    """One local Ray of two CPUs for all tests that need one: starting it takes four seconds."""
    # Workers import the tests' own functions by name; Ray hands on the folder of the script, which is pytest's.
    os.environ["PYTHONPATH"] = os.pathsep.join(filter(None, (str(Path(__file__).parent), os.environ.get("PYTHONPATH"))))
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
    os.environ.setdefault("RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO", "0")
    import ray

    ray.init(
        num_cpus=2,
        include_dashboard=False,
        log_to_driver=False,
        logging_level=logging.ERROR,
        object_store_memory=128 << 20,
    )
    yield
    ray.shutdown()


@pytest.fixture(scope="session")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A finished run to train on, only read: 40 pictures of 48 px in two shards."""
    from vae_runs import stripes, write_run

    return write_run(tmp_path_factory.mktemp("data") / "run", stripes(40, 48), shards=2)


@pytest.fixture(scope="session")
def whole(run: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A training of 30 steps over `run` that nothing disturbed, only read."""
    from train_runs import HASH, recipe

    from vae.train import train

    out = tmp_path_factory.mktemp("whole") / "out"
    train(recipe(run), HASH, out)
    return out


@pytest.fixture
def pages(tmp_path: Path) -> Path:
    """A folder for the pages of a benchmark, still empty."""
    folder = tmp_path / "pages"
    folder.mkdir()
    return folder


@pytest.fixture
def built(pages: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> "tuple[Path, Scribe, Path]":
    """A benchmark with one candidate of every outcome: its folder, its reader, its annotations."""
    from benchmark_pages import build_one_of_each

    return build_one_of_each(pages, tmp_path, monkeypatch)
