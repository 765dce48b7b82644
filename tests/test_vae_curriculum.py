"""Stages: shapes, batches, counts and data of every step are functions of the step."""

from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import TypeAdapter, ValidationError
from vae_runs import stripes, write_run

from fonts_manifest.errors import BadInput
from vae.curriculum import Curriculum, StageConfig, bucket_shapes
from vae.feed import StagedFeed
from vae.schedule import Knots, Schedule, ever, value_at
from vae.source import SourceConfig

READ = TypeAdapter(Schedule)


def test_a_schedule_is_straight_between_knots_and_constant_outside() -> None:
    knots = READ.validate_python([[10, 2.0], [20, 4.0], [21, 0.0]])
    assert [value_at(knots, step) for step in (0, 10, 15, 20, 21, 99)] == [2, 2, 3, 4, 0, 0]
    assert READ.validate_python(0.5) == ((0, 0.5),)
    assert [ever(knots), ever(((0, 0.0), (5, 0.0)))] == [True, False]


@pytest.mark.parametrize("wrong", [[[5, 1], [5, 2]], [[-1, 1]], [], [[0, -0.1]], [[0, float("nan")]], True])
def test_a_schedule_that_is_none_is_refused(wrong: object) -> None:
    with pytest.raises(ValidationError):
        READ.validate_python(wrong)


def stage(from_step: int = 0, crop_px: int = 32, batch: int = 6, ratios: tuple[float, ...] = (1.0,)) -> StageConfig:
    return StageConfig(from_step=from_step, crop_px=crop_px, batch=batch, aspect_ratios=ratios)


def test_buckets_have_about_the_area_of_the_square_and_whole_cells() -> None:
    shapes = bucket_shapes(stage(crop_px=256, ratios=(1.0, 4 / 3, 3 / 4, 16 / 9, 1.01)), 16)
    assert shapes == ((256, 256), (224, 288), (288, 224), (192, 336))
    with pytest.raises(BadInput, match="crop_px must be a multiple of the compression 16, got 40"):
        bucket_shapes(stage(crop_px=40), 16)
    with pytest.raises(BadInput, match=r"aspect ratio 9000\.0 of crops of 32 px leaves no cell of 16 px"):
        bucket_shapes(stage(ratios=(9000.0,)), 16)
    with pytest.raises(BadInput, match=r"aspect ratio -1\.0"):
        bucket_shapes(stage(ratios=(-1.0,)), 16)


def curriculum(*stages: StageConfig, weights: tuple[Knots, ...] = (((0, 1.0),),), seed: int = 0) -> Curriculum:
    sources = [SourceConfig(name=f"s{i}", run="nowhere", weights=knots) for i, knots in enumerate(weights)]
    return Curriculum(sources, stages, 4, seed)


@given(
    st.lists(st.tuples(st.integers(1, 40), st.integers(2, 30)), min_size=1, max_size=4),
    st.lists(st.integers(1, 9), min_size=2, max_size=2),
    st.lists(st.integers(0, 9), min_size=2, max_size=2),
)
@settings(max_examples=40, deadline=None)
def test_counts_go_on_through_all_stages(lengths: list[tuple[int, int]], before: list[int], after: list[int]) -> None:
    starts = np.cumsum([0, *(length for length, _ in lengths)])
    stages = [stage(int(start), batch=batch) for start, (_, batch) in zip(starts, lengths, strict=False)]
    weights = tuple(((0, float(a)), (50, float(b) + 1e-3)) for a, b in zip(before, after, strict=True))
    plan = curriculum(*stages, weights=weights)
    total = np.zeros(2, np.int64)
    for step in range(int(starts[-1]) + 3):
        assert plan.counts_before(step) == tuple(total)
        quotas = plan.quotas(step)
        assert sum(quotas) == plan.batch_at(step) == len(plan.slots(step))
        assert min(quotas) >= 0
        total += quotas


def test_every_block_of_steps_holds_each_shape_once_in_another_order() -> None:
    plan = curriculum(stage(ratios=(1.0, 2.0, 0.5)), stage(30, crop_px=64, batch=2))
    assert plan.shapes == ((32, 32), (24, 44), (44, 24), (64, 64))
    blocks = [tuple(plan.shape_at(step) for step in range(start, start + 3)) for start in range(0, 30, 3)]
    assert all(set(block) == set(plan.shapes[:3]) for block in blocks)
    assert len(set(blocks)) > 3
    assert {plan.shape_at(step) for step in range(30, 40)} == {(64, 64)}
    assert [plan.batch_at(step) for step in (0, 29, 30)] == [6, 6, 2]
    other = curriculum(stage(ratios=(1.0, 2.0, 0.5)), seed=1)
    assert [plan.shape_at(step) for step in range(30)] != [other.shape_at(step) for step in range(30)]


def test_stages_begin_at_rising_steps() -> None:
    with pytest.raises(BadInput, match=r"stages must begin at rising steps after 0, got \[5, 5\]"):
        curriculum(stage(), stage(5), stage(5))


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> list[SourceConfig]:
    """Two sources; of the first half the pictures are 64 px a side, the others 40 px."""
    folder = tmp_path_factory.mktemp("data")
    write_run(folder / "a", [*stripes(12, 64), *stripes(12, 40, seed=1)], shards=2)
    write_run(folder / "b", stripes(12, 64, seed=2))
    return [SourceConfig(name=name, run=str(folder / name)) for name in "ab"]


STAGES = (stage(ratios=(1.0, 1.6)), stage(4, crop_px=48, batch=4))


def test_batches_have_the_shape_and_the_sources_of_their_step(data: list[SourceConfig]) -> None:
    plan = Curriculum(data, STAGES, 4, seed=3)
    feed = StagedFeed(plan, data, 0.2)
    for step in range(8):
        batch = feed.batch(step)
        assert batch.images_B3HW.shape == (plan.batch_at(step), 3, *plan.shape_at(step))
        assert list(batch.source_ids) == plan.slots(step)
        assert batch.step == step


@pytest.mark.parametrize("world", [1, 2])
def test_any_number_of_processes_gives_the_same_batches(data: list[SourceConfig], world: int) -> None:
    plan = Curriculum(data, STAGES, 4, seed=3)
    whole = StagedFeed(plan, data, 0.2)
    ranks = [StagedFeed(plan, data, 0.2, rank=rank, world=world) for rank in range(world)]
    for step in (5, 0, 3, 7):  # in any order: nothing is remembered
        parts = [feed.batch(step) for feed in ranks]
        expected = whole.batch(step)
        for rank, part in enumerate(parts):
            torch.testing.assert_close(part.images_B3HW, expected.images_B3HW[rank::world], rtol=0, atol=0)
            assert part.row_ids == expected.row_ids[rank::world]
        torch.testing.assert_close(ranks[-1].alone().batch(step).images_B3HW, expected.images_B3HW)


def test_no_picture_held_out_from_the_first_shape_is_trained_on_in_another(data: list[SourceConfig]) -> None:
    feed = StagedFeed(Curriculum(data, STAGES, 4, seed=3), data, 0.2)
    held_out = {(str(group.path), group.group, int(row)) for group in feed.sources[0].held_out for row in group.rows}
    assert held_out
    for sources in feed._sources.values():
        trained = {(str(g.path), g.group, int(row)) for g in sources[0].train for row in g.rows}
        assert not trained & held_out
        assert trained


def test_while_all_pictures_fit_every_row_comes_once_an_epoch_whatever_its_shape(data: list[SourceConfig]) -> None:
    only = [data[1]]
    plan = Curriculum(only, [stage(batch=3, ratios=(1.0, 2.0, 0.5))], 4, seed=0)
    feed = StagedFeed(plan, only, 0.2)
    rows = feed.sources[0].train_rows
    seen = [row for step in range(rows) for row in feed.batch(step).row_ids]
    assert len(seen) == 3 * rows
    for epoch in range(3):
        assert len(set(seen[epoch * rows : (epoch + 1) * rows])) == rows


def test_what_does_not_fit_is_said(data: list[SourceConfig], tmp_path: Path) -> None:
    with pytest.raises(BadInput, match="a batch of 4 cannot be split among 3 processes"):
        StagedFeed(Curriculum(data, STAGES, 4, seed=3), data, 0.2, world=3)
    with pytest.raises(BadInput, match=r"source a: .* no rows to train on \(24 pictures are smaller than 128 px"):
        StagedFeed(Curriculum(data, [stage(), stage(3, crop_px=128)], 4, seed=3), data, 0.2)
    feed = StagedFeed(Curriculum(data, STAGES, 4, seed=3), data, 0.2)
    feed.check_state(6, feed.state(6))
    with pytest.raises(BadInput, match="the checkpoint of step 6 was trained on other data"):
        feed.check_state(6, feed.state(5))
