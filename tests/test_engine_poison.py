"""Rows that crash a native library: found, recorded, skipped; the shard is full and the same whoever makes it."""

import os
import signal
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from engine_runs import Segfault, data_bytes, make_inputs, make_recipe, read_or_crash, run, score_or_crash
from PIL import Image

from datagen import audit, commit
from datagen import filter as filtering
from datagen.child import Child, ChildDied
from datagen.criteria import FilterRecipe
from datagen.generate import NOTE, generate_shard_with_care
from datagen.ingest import IngestConfig, RealPlace
from datagen.plan import make_plan
from datagen.recipes import recipe_hash, recipe_to_yaml
from datagen.rows import CRASHED
from datagen.storage import Folder
from datagen.verify import verify_run
from fonts_manifest.errors import BadInput

POISON = frozenset({(3, 5, 1)})
"""The second attempt of a row whose first is rejected."""


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_inputs(tmp_path_factory.mktemp("inputs"))


@pytest.fixture(scope="module")
def poisoned(ray_session: None, folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run of two Ray workers in which one address is a segmentation fault."""
    out = tmp_path_factory.mktemp("poisoned")
    deaths = tmp_path_factory.mktemp("deaths")
    report = run(folder, out, executor="ray", workers=2, judge=Segfault(at=POISON, deaths=str(deaths)))
    assert report.kept == 30
    assert report.reasons[CRASHED] == 1
    # The task and its three retries, then twice alone in a process of its own.
    assert len(list(deaths.iterdir())) == 4 + 2
    return out


def test_a_run_with_segfaults_ends_well_and_names_their_addresses(poisoned: Path) -> None:
    folder = Folder(str(poisoned))
    named = {(shard, *address) for shard in range(5) for address in commit.read_commit(folder, shard).poisoned}
    assert named == POISON
    rejected = commit.read_rows(poisoned, keep=False).to_pylist()
    crashed = [row for row in rejected if row["reason"] == CRASHED]
    assert {(row["shard"], row["row"], row["attempt"]) for row in crashed} == POISON
    assert all(row["image"] is None and row["spec"] and not row["keep"] for row in crashed)
    kept = commit.read_rows(poisoned, ["shard", "row", "attempt"], keep=True).to_pylist()
    attempts = {(row["shard"], row["row"]): row["attempt"] for row in kept}
    assert len(attempts) == 30
    assert attempts[3, 5] >= 2
    assert "30 rows kept" in verify_run(poisoned)


def test_shards_without_poison_are_as_if_nothing_had_happened(folder: Path, poisoned: Path, tmp_path: Path) -> None:
    run(folder, tmp_path)
    healthy = {path: digest for path, digest in data_bytes(tmp_path).items() if path.endswith(".parquet")}
    same = {path for path, digest in data_bytes(poisoned).items() if healthy.get(path) == digest}
    name = recipe_hash(make_recipe(folder))[:12]
    assert same == {f"{part}/{name}-{shard:08d}.parquet" for part in ("data", "rejected") for shard in (0, 1, 2, 4)}


@pytest.mark.slow
def test_a_poisoned_shard_is_the_same_whoever_makes_it(folder: Path, poisoned: Path, tmp_path: Path) -> None:
    recipe = make_recipe(folder)
    plan = make_plan(recipe, recipe_hash(recipe), recipe_to_yaml(recipe), str(tmp_path))
    for shard in (2, 3):  # the first has no poison: care alone changes nothing
        generate_shard_with_care(replace(plan, judge=Segfault(at=POISON)), shard)
    made, expected = data_bytes(tmp_path), data_bytes(poisoned)
    assert len(made) == 4
    assert made == {path: expected[path] for path in made}


def test_without_workers_the_next_start_takes_care_of_the_shard_that_crashed(
    folder: Path, poisoned: Path, tmp_path: Path
) -> None:
    script = (
        "from pathlib import Path; from engine_runs import Segfault, run\n"
        f"run(Path({str(folder)!r}), {str(tmp_path)!r}, judge=Segfault(at=frozenset({set(POISON)!r})))\n"
    )
    environment = os.environ | {"PYTHONPATH": os.pathsep.join((str(Path(__file__).parent), *filter(None, sys.path)))}
    codes = [subprocess.run([sys.executable, "-c", script], env=environment, check=False).returncode for _ in range(2)]
    assert codes == [-signal.SIGSEGV, 0]
    assert data_bytes(tmp_path) == data_bytes(poisoned)
    assert not (tmp_path / NOTE).exists()


def _half(limit: int, item: int) -> float:
    if item > limit:
        raise BadInput(f"item must be at most {limit}, got {item}")
    if item < 0:
        os.kill(os.getpid(), signal.SIGKILL)
    return 1 / item


def test_a_child_answers_raises_dies_and_is_replaced() -> None:
    with Child(4) as child:
        assert child.call(_half, 2) == 0.5
        with pytest.raises(BadInput, match=r"^item must be at most 4, got 5$"):
            child.call(_half, 5)
        with pytest.raises(RuntimeError, match="ZeroDivisionError"):
            child.call(_half, 0)
        assert child.call(_half, 4) == 0.25
        with pytest.raises(ChildDied, match="the process that made -1 ended by SIGKILL"):
            child.call(_half, -1)
        assert child.call(_half, 1) == 1.0


def test_a_page_that_crashes_the_reader_is_left_out_of_the_calibration(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    recipe = make_recipe(folder)
    recipe = recipe.model_copy(update={"judge": recipe.judge.model_copy(update={"sample_pages": 100})})
    plan = make_plan(recipe, recipe_hash(recipe), recipe_to_yaml(recipe), str(tmp_path))
    monkeypatch.setattr(audit, "read_sample_page", read_or_crash)
    audit._read_chunk_with_care(plan, 0)
    pages = audit._load_sample(Folder(str(tmp_path)), 1)
    # Eight pages a chunk; a page without lines is none of the sample.
    assert [line.features for page in pages for line in page] == [
        (0.0,),
        (2.0,),
        (3.0,),
        (4.0,),
        (5.0,),
        (6.0,),
        (7.0,),
    ]


def test_a_picture_that_crashes_its_decoder_is_dropped_and_the_others_are_scored(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "in").mkdir()
    for number, name in enumerate(("a.png", "poison.png", "z.png")):
        pixels = np.random.default_rng(number).integers(0, 256, (150, 160, 3), np.uint8)
        Image.fromarray(pixels).save(tmp_path / "in" / name)
    place = RealPlace(place=str(tmp_path / "in"), licence="CC0-1.0")
    recipe = FilterRecipe(input=IngestConfig(places=(place,)))
    monkeypatch.setattr(filtering, "score_item", score_or_crash)
    monkeypatch.setattr(filtering, "score_shard", filtering.score_shard_carefully)
    report = filtering.filter_corpus(recipe, "0123456789abcdef", str(tmp_path / "out"), executor="serial")
    assert report.seen == 3
    assert report.reasons["crashed"] == 1
    rows = [
        *commit.read_rows(tmp_path / "out").to_pylist(),
        *commit.read_rows(tmp_path / "out", keep=False).to_pylist(),
    ]
    reasons = {Path(row["origin"]).name: row["reason"] for row in rows}
    assert reasons.keys() == {"a.png", "poison.png", "z.png"}
    assert [name for name, reason in reasons.items() if reason == "crashed"] == ["poison.png"]
