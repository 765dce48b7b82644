"""Live sources: the stream of the shards that would have been written, whoever draws it, crashes or not."""

import random
import shutil
from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path
from queue import SimpleQueue

import numpy as np
import pytest
from engine_runs import DropSome, Segfault, data_bytes, make_inputs, make_recipe, run
from pydantic import ValidationError

from datagen.audit import CALIBRATION
from datagen.commit import read_rows
from datagen.generate import generate, generate_shard_with_care
from datagen.judge import JudgeConfig
from datagen.live import Drawer, LivePlan, Tee, finish_tee, open_live, start_tee
from datagen.plan import Judge, KeepAll, make_plan
from datagen.recipes import recipe_hash, recipe_to_yaml
from datagen.storage import Folder
from fonts_manifest.errors import BadInput
from render_engine.distribution import PageDistribution
from vae.batch import Batch
from vae.curriculum import Curriculum, StageConfig
from vae.feed import StagedFeed
from vae.live import LiveSource, _held_out
from vae.loader import arrivals
from vae.source import LiveConfig, Reader, SourceConfig, held_out_pictures
from vae.stored import StoredSource, open_stored

HOLD_OUT = 0.2


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What pages are made of, and a recipe of 30 of them in 5 shards."""
    path = make_inputs(tmp_path_factory.mktemp("inputs"))
    (path / "mine.yaml").write_text(recipe_to_yaml(make_recipe(path)))
    return path


@pytest.fixture(scope="module")
def judged(folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Shards whose judge rejects the first attempt of every fourth row."""
    out = tmp_path_factory.mktemp("judged") / "run"
    run(folder, out)
    return out


@pytest.fixture(scope="module")
def unjudged(folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("unjudged") / "run"
    run(folder, out, judge=KeepAll())
    return out


def live_plan(folder: Path, judge: Judge, out: str = "") -> LivePlan:
    recipe = make_recipe(folder)
    plan = make_plan(recipe, recipe_hash(recipe), recipe_to_yaml(recipe), out)
    return LivePlan(replace(plan, judge=judge), recipe_to_yaml(recipe))


def live_source(folder: Path, judge: Judge, tee: str | None = None) -> LiveSource:
    plan = live_plan(folder, judge)
    return LiveSource("live", plan, _held_out(plan, HOLD_OUT), tee)


def stored_source(folder: Path) -> StoredSource:
    config = SourceConfig(name="stored", run=str(folder), shuffle=False)
    return open_stored(config, folder, [(32, 32)], HOLD_OUT)[0]


def check_equal(one: Reader, other: Reader, count: int) -> None:
    for number in range(count):
        a, b = one.fetch(number), other.fetch(number)
        assert a.row_id == b.row_id
        np.testing.assert_array_equal(a.image_HW3, b.image_HW3)
        np.testing.assert_array_equal(a.quads_px, b.quads_px)


def test_a_live_source_is_the_stream_of_the_shards_after_their_judge(folder: Path, judged: Path) -> None:
    live, stored = live_source(folder, DropSome()), stored_source(judged)
    assert (live.train_rows, live.held_out_rows) == (stored.train_rows, stored.held_out_rows)
    assert live.held_out_rows > 2
    reader = live.reader(3, 0, with_quads=True, apart=False)
    check_equal(reader, stored.reader(9, 1, with_quads=True), stored.train_rows)
    assert len(reader.fetch(0).quads_px) > 0
    assert {reader.fetch(n).row_id.rpartition("-")[2] for n in range(live.train_rows)} >= {"0", "1"}
    check_equal(live.held_out_reader(), stored.held_out_reader(), stored.held_out_rows)
    assert [row_id for row_id, _ in held_out_pictures(live, 3, 64)] == [
        row_id for row_id, _ in held_out_pictures(stored, 3, 64)
    ]


@pytest.mark.slow
def test_a_live_source_judged_by_the_real_cascade_is_the_stream_of_its_shards(folder: Path, tmp_path: Path) -> None:
    pages = PageDistribution(page_sizes_px=((160, 128),), languages={"en": 1.0})
    judge = JudgeConfig(sample_pages=50, agreement=1.0, ocr_share=0.3, audit=0.1)
    recipe = make_recipe(folder, rows=20, pages=pages, judge=judge)
    (tmp_path / "mine.yaml").write_text(recipe_to_yaml(recipe))
    report = generate(recipe, recipe_hash(recipe), recipe_to_yaml(recipe), str(tmp_path / "run"), executor="serial")
    assert 0 < report.judged["lines_read"] < report.judged["lines"]
    assert any(row["judged_by"] == "cascade" and not row["keep"] for row in read_rows(tmp_path / "run").to_pylist())
    live = open_live(str(tmp_path / "mine.yaml"), (), str(tmp_path / "run"))
    source, stored = LiveSource("live", live, _held_out(live, HOLD_OUT), None), stored_source(tmp_path / "run")
    assert (source.train_rows, source.held_out_rows) == (stored.train_rows, stored.held_out_rows)
    reader = source.reader(3, 0, with_quads=True, apart=False)
    check_equal(reader, stored.reader(9, 1, with_quads=True), stored.train_rows)


def test_after_the_rows_of_the_recipe_new_ones_come(folder: Path) -> None:
    source = live_source(folder, KeepAll())
    reader = source.reader(0, 0, apart=False)
    numbers = [reader.number(n) for n in range(40)]
    assert numbers == sorted(set(range(40 + source.held_out_rows)) - set(source.held_out.tolist()))
    first_new = reader.fetch(source.train_rows)
    assert first_new.row_id.split("-")[1:] == ["5", "0", "0"]
    assert not any(np.array_equal(first_new.image_HW3, reader.fetch(n).image_HW3) for n in range(6))


def test_an_address_that_crashes_a_library_costs_one_attempt_as_in_shards(folder: Path, tmp_path: Path) -> None:
    poison = Segfault(at=frozenset({(0, 2, 0)}))
    plan = live_plan(folder, poison, str(tmp_path)).plan
    generate_shard_with_care(plan, 0)
    drawer = Drawer(plan, apart=True)
    assert [drawer.draw(0, row).row_id.split("-")[2:] for row in (1, 2, 3)] == [["1", "1"], ["2", "1"], ["3", "0"]]
    stored = data_bytes(tmp_path)
    tee = Tee(live_plan(folder, poison).plan, str(tmp_path / "tee"), frozenset())
    Folder(str(tmp_path / "tee")).publish("x", b"")
    careful = Drawer(plan, apart=True, tee=tee)
    for row in range(6):
        careful.draw(0, row)
    assert {name: digest for name, digest in data_bytes(tmp_path / "tee").items() if name != "x"} == stored


STAGES = (
    StageConfig(from_step=0, crop_px=32, batch=6, aspect_ratios=(1.0, 1.6)),
    StageConfig(from_step=3, crop_px=64, batch=4),
)


def feed_of(sources: list[SourceConfig], rank: int = 0, world: int = 1) -> StagedFeed:
    return StagedFeed(
        Curriculum(sources, STAGES, 8, seed=4), sources, HOLD_OUT, with_quads=True, rank=rank, world=world
    )


def same_batch(a: Batch, b: Batch) -> bool:
    return (
        (a.row_ids, a.source_ids, a.step) == (b.row_ids, b.source_ids, b.step)
        and np.array_equal(a.levels_B3HW, b.levels_B3HW)
        and all(np.array_equal(x, y) for x, y in zip(a.quads_px, b.quads_px, strict=True))
    )


@pytest.fixture(scope="module")
def sources(folder: Path, unjudged: Path) -> list[SourceConfig]:
    """A live source beside a stored one; the first becomes rarer."""
    return [
        SourceConfig(name="live", live=LiveConfig(recipe=str(folder / "mine.yaml")), weights=((0, 3.0), (5, 1.0))),
        SourceConfig(name="stored", run=str(unjudged)),
    ]


@pytest.fixture(scope="module")
def expected(sources: list[SourceConfig], unjudged: Path) -> list[Batch]:
    """The batches when the live source is read from shards instead."""
    replaced = sources[0].model_copy(update={"live": None, "run": str(unjudged), "shuffle": False})
    feed = feed_of([replaced, sources[1]])
    return [feed.batch(step) for step in range(5)]


@pytest.mark.parametrize("workers", [0, 2])
def test_any_number_of_loader_workers_gives_the_batches_of_the_shards(
    sources: list[SourceConfig], expected: list[Batch], workers: int
) -> None:
    with arrivals(feed_of(sources), 0, 5, workers=workers) as coming:
        for arrival, batch in zip(coming, expected, strict=True):
            assert same_batch(arrival.batch, batch)
            assert arrival.first == (arrival.step == 0)


def test_two_processes_share_the_same_global_batches(sources: list[SourceConfig], expected: list[Batch]) -> None:
    with ExitStack() as stack:
        feeds = [feed_of(sources, rank, 2) for rank in range(2)]
        ranks = [stack.enter_context(arrivals(feed, 2, 5, ahead=True)) for feed in feeds]
        for step, parts in enumerate(zip(*ranks, strict=True), 2):
            for rank, part in enumerate(parts):
                assert part.batch.row_ids == expected[step].row_ids[rank::2]
                np.testing.assert_array_equal(part.batch.levels_B3HW, expected[step].levels_B3HW[rank::2])


def test_ray_draws_the_same_batches_in_order(
    ray_session: None, sources: list[SourceConfig], expected: list[Batch]
) -> None:
    with arrivals(feed_of(sources), 0, 5, workers=2, ray="local") as coming:
        got = [arrival.batch for arrival in coming]
    assert all(same_batch(a, b) for a, b in zip(got, expected, strict=True))


def test_a_worker_that_crashes_over_a_page_is_replaced_and_the_page_drawn_anew(
    sources: list[SourceConfig], folder: Path
) -> None:
    feed = feed_of(sources[:1])
    held_out = live_source(folder, DropSome()).held_out  # which rows, follows from the folder's path
    train = [number for number in range(30) if number not in held_out][:6]
    poisoned = live_source(folder, Segfault(at=frozenset({(train[2] // 6, train[2] % 6, 0)})))
    for shape in feed._sources:
        feed._sources[shape] = [poisoned]
    with arrivals(feed, 0, 1, workers=1) as coming:
        rows = [row.split("-", 1)[1] for arrival in coming for row in arrival.batch.row_ids]
    # Besides the poisoned attempt, the first of every fourth row is rejected.
    assert rows == [f"{n // 6}-{n % 6}-{int(n == train[2] or n % 6 in (1, 5))}" for n in train]


def test_the_next_batch_is_made_while_one_is_used_and_no_more(unjudged: Path) -> None:
    feed = feed_of([SourceConfig(name="stored", run=str(unjudged))])
    made: SimpleQueue[int] = SimpleQueue()
    ordinary = feed.batch

    def watched(step: int) -> Batch:
        batch = ordinary(step)
        made.put(step)
        return batch

    feed.batch = watched  # type: ignore[method-assign]
    with arrivals(feed, 0, 50, ahead=True) as coming:
        assert made.get(timeout=60) == 0, "before anybody asks"
        for step in range(3):
            assert next(coming).step == step
            assert made.get(timeout=60) == step + 1, "while this one is used"
            assert made.empty()
    assert made.empty()


@pytest.mark.parametrize("order", [0, 1])
def test_a_tee_leaves_the_shards_of_generate_whatever_the_order(
    folder: Path, judged: Path, tmp_path: Path, order: int
) -> None:
    (judged / CALIBRATION).touch()  # of a judge that needs none
    live = live_plan(folder, DropSome(), str(judged))
    out = str(tmp_path / "tee")
    start_tee(live, out)
    assert not finish_tee(live.plan, out)
    held_out = frozenset(_held_out(live, HOLD_OUT).tolist())
    drawer = Drawer(live.plan, tee=Tee(live.plan, out, held_out))
    numbers = [number for number in range(32) if number not in held_out]
    random.Random(order).shuffle(numbers)
    for number in numbers[:-1]:
        drawer.draw(*divmod(number, 6))
    last = numbers[-1] // 6
    commits = {path.stem for path in (tmp_path / "tee/_commits").iterdir()}
    assert commits == {f"{shard:08d}" for shard in range(5) if shard != last}
    Drawer(live.plan, tee=Tee(live.plan, out, held_out)).draw(*divmod(numbers[-1], 6))
    assert finish_tee(live.plan, out)
    files, wanted = data_bytes(out), data_bytes(judged)
    assert {name: files[name] for name in wanted if name.endswith((".parquet", "_SUCCESS"))} == {
        name: digest for name, digest in wanted.items() if name.endswith((".parquet", "_SUCCESS"))
    }
    assert not [name for name in files if name.startswith("_tee")]


def test_what_cannot_be_is_said(folder: Path, judged: Path, tmp_path: Path) -> None:
    with pytest.raises(ValidationError, match="give it a run or live, one of the two"):
        SourceConfig(name="s")
    with pytest.raises(ValidationError, match="name the run folder of their judge too"):
        LiveConfig(recipe="pure", tee="x")
    with pytest.raises(ValidationError, match="density of live pictures"):
        SourceConfig(name="s", live=LiveConfig(recipe="pure"), density=("dense",))
    config = [SourceConfig(name="s", live=LiveConfig(recipe=str(folder / "mine.yaml"), overrides=("rows=3",)))]
    small = Curriculum(config, [StageConfig(from_step=0, crop_px=96, batch=4)], 8, seed=0)
    with pytest.raises(BadInput, match="pages of 96x80 px, from which crops of 96x96 px cannot be cut"):
        StagedFeed(small, config, HOLD_OUT)
    shutil.copytree(judged, tmp_path / "copy")
    (tmp_path / "copy" / CALIBRATION).unlink(missing_ok=True)
    with pytest.raises(BadInput, match=r"calibration\.json: is missing"):
        open_live(str(folder / "mine.yaml"), (), str(tmp_path / "copy"))
    with pytest.raises(BadInput, match="the recipe hash was"):
        start_tee(open_live(str(folder / "mine.yaml"), ("seed=6",)), str(judged))
