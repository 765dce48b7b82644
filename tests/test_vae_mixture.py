"""The mixture: exact quotas, an order that is a function of the address, held-out rows."""

import math
from collections import Counter
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from vae_runs import stripes, write_run

from fonts_manifest.errors import BadInput
from vae.feed import Feed, open_source
from vae.mixture import Mixture
from vae.source import Reader, SourceConfig, held_out_pictures, hold_out_key
from vae.stored import WINDOW_GROUPS, StoredReader, StoredSource, open_stored

FLAT = ((0, 1.0),)


@st.composite
def mixtures(draw: st.DrawFn) -> Mixture:
    k = draw(st.integers(1, 4))
    weights = []
    for _ in range(k):
        steps = sorted(draw(st.sets(st.integers(0, 60), min_size=1, max_size=4)))
        weights.append(tuple((step, draw(st.sampled_from([0.0, 0.1, 0.3, 1.0, 2.5]))) for step in steps))
    weights[0] = tuple((step, max(weight, 0.1)) for step, weight in weights[0])  # some weight at every knot
    batch = draw(st.integers(max(1, k * (k - 1)), 40))
    return Mixture(names=tuple("abcd"[:k]), weights=tuple(weights), batch=batch)


@given(mixtures())
@settings(max_examples=60, deadline=None)
def test_quotas_are_exact(mixture: Mixture) -> None:
    k = len(mixture.names)
    knots = sorted({0} | {step for line in mixture.weights for step, _ in line})
    at_knots = [[np.interp(knot, *np.transpose(line)) for line in mixture.weights] for knot in knots]
    shares = [np.array(values) / sum(values) for values in at_knots]
    taken, wanted = np.zeros(k, np.int64), np.zeros(k)
    for step in range(70):
        quotas = mixture.quotas(step)
        assert sum(quotas) == mixture.batch
        assert min(quotas) >= 0
        taken += quotas
        assert tuple(taken) == mixture.counts_before(step + 1)
        # The integral by midpoints, which is exact for lines: another way than the trapezoids of the program.
        middle = [np.interp(step + 0.5, knots, [share[source] for share in shares]) for source in range(k)]
        wanted += mixture.batch * np.array(middle)
        # Each change of the largest source may leave less than K pictures with the one before.
        assert np.abs(taken - wanted).max() < k * len(mixture._segments) + 1e-6


def test_constant_weights_are_off_by_less_than_one_picture_a_source() -> None:
    mixture = Mixture(names=("a", "b", "c"), weights=(((0, 7.0),), ((0, 2.0),), ((0, 1.0),)), batch=16)
    for step in range(1, 2000):
        a, b, c = mixture.counts_before(step)
        assert abs(b - 16 * step * 0.2) < 1
        assert abs(c - 16 * step * 0.1) < 1
        assert abs(a - 16 * step * 0.7) < 2  # the largest takes the remainder of both


def test_a_ramp_is_followed() -> None:
    mixture = Mixture(names=("real", "text"), weights=(FLAT, ((10, 0.0), (30, 1.0))), batch=100)
    assert [mixture.quotas(step)[1] for step in (0, 9)] == [0, 0]
    # At step 20 the line stands at a quarter: shares, not weights, are linear between knots.
    assert mixture.quotas(20)[1] in (25, 26, 27)
    assert mixture.quotas(30) == (50, 50)
    assert mixture.quotas(10**9) == (50, 50)
    assert mixture.share(1, 20) == pytest.approx(0.25 + 0.5 * 0.5 / 20)


def test_far_steps_cost_no_loop_and_stay_exact() -> None:
    mixture = Mixture(names=("a", "b"), weights=(((0, 1.0),), ((0, 2.0),)), batch=256)
    step = 9_000_000
    assert mixture.counts_before(step) == (256 * step // 3, 256 * step - 256 * step // 3)


@pytest.mark.parametrize(
    ("names", "weights", "batch", "message"),
    [
        ((), (), 4, "sources with different names"),
        (("a", "a"), (FLAT, FLAT), 4, "sources with different names"),
        (("a", "b", "c"), (FLAT, FLAT, FLAT), 5, "batch of 5 cannot be split among 3 sources: at least 6"),
        (("a",), (((5, 1.0), (5, 2.0)),), 4, "source a: weights need rising steps"),
        (("a",), (((0, -1.0),),), 4, "numbers of at least 0"),
        (("a",), (((0, math.nan),),), 4, "numbers of at least 0"),
        (("a", "b"), (((0, 1.0), (9, 0.0)), ((0, 0.0),)), 4, "at step 9 every source has weight 0"),
    ],
)
def test_what_is_no_schedule_is_refused(names: tuple, weights: tuple, batch: int, message: str) -> None:
    with pytest.raises(BadInput, match=message):
        Mixture(names=names, weights=weights, batch=batch)


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """50 pictures of 32 px in 3 shards with row groups of 4, 5 rejected ones."""
    folder = tmp_path_factory.mktemp("run") / "run"
    return write_run(folder, stripes(50, 32), shards=3, group_rows=4, rejected=stripes(5, 32))


def config(folder: Path, **changes: object) -> SourceConfig:
    return SourceConfig(name="s", run=str(folder), **changes)  # type: ignore[arg-type]


def stored(folder: Path) -> StoredSource:
    """Its rows for crops of 32 px, a fifth held out."""
    return open_stored(config(folder), folder, [(32, 32)], 0.2)[0]


def ids_of(reader: Reader, count: int) -> set[str]:
    return {reader.fetch(n).row_id for n in range(count)}


def test_rows_are_kept_ones_and_never_in_both_halves(run: Path) -> None:
    source = open_source(config(run), 32, 0.2)
    assert source.train_rows + source.held_out_rows == 50
    ids = {False: ids_of(source.reader(0, 0), source.train_rows)}
    ids[True] = ids_of(source.held_out_reader(), source.held_out_rows)
    assert ids[True] == {f"r{i}" for i in range(50) if hold_out_key("synthetic", f"r{i}", None) < 0.2}
    assert ids[False] == {f"r{i}" for i in range(50)} - ids[True]
    assert 3 < len(ids[True]) < 20


def test_every_epoch_holds_every_picture_once_in_another_order(run: Path) -> None:
    source = stored(run)
    reader = StoredReader(source.train, 7, 0)
    epochs = [[reader.fetch(n).row_id for n in range(e * reader.rows, (e + 1) * reader.rows)] for e in range(3)]
    assert all(Counter(epoch) == Counter(epochs[0]) for epoch in epochs)
    assert len(set(epochs[0])) == source.train_rows
    assert epochs[0] != epochs[1] != epochs[2]
    assert [StoredReader(source.train, 7, 0).fetch(n).row_id for n in range(5)] == epochs[0][:5]
    assert [StoredReader(source.train, 8, 0).fetch(n).row_id for n in range(5)] != epochs[0][:5]
    assert [StoredReader(source.train, 7, 1).fetch(n).row_id for n in range(5)] != epochs[0][:5]


def test_rows_are_shuffled_within_windows_of_row_groups(run: Path) -> None:
    source = stored(run)
    reader = StoredReader(source.train, 7, 0)
    groups = [reader.locate(n)[0] for n in range(reader.rows)]
    order = list(dict.fromkeys(groups))
    assert order != sorted(order)
    # A group's rows never stray further than its window, and within it they are mixed.
    first = {g: groups.index(g) for g in order}
    last = {g: len(groups) - 1 - groups[::-1].index(g) for g in order}
    rows_of_window = WINDOW_GROUPS * 4
    assert all(last[g] - first[g] < rows_of_window for g in order)
    assert groups[:rows_of_window] != sorted(groups[:rows_of_window], key=order.index)


def test_rows_come_as_they_are_stored_when_not_shuffled(run: Path) -> None:
    source = open_source(config(run, shuffle=False), 32, 0.2)
    rows = [f"r{i}" for shard in range(3) for i in range(shard, 50, 3)]  # as `write_run` deals them out
    expected = [row for row in rows if hold_out_key("synthetic", row, None) >= 0.2]
    assert [source.reader(7, 0).fetch(n).row_id for n in range(len(expected))] == expected
    assert source.reader(8, 0).fetch(len(expected) + 3).row_id == expected[3]  # every epoch alike


def test_how_often_a_row_was_drawn_before_does_not_decide_whether_it_is_held_out() -> None:
    assert hold_out_key("synthetic", "0123456789ab-4-17-0", None) == hold_out_key(
        "synthetic", "0123456789ab-4-17-3", None
    )
    assert hold_out_key("synthetic", "0123456789ab-4-17-0", None) != hold_out_key(
        "synthetic", "0123456789ab-4-18-0", None
    )


def test_a_picture_is_the_one_that_was_written(run: Path) -> None:
    source = stored(run)
    reader = StoredReader(source.train, 0, 0)
    pictures = stripes(50, 32)
    for n in range(reader.rows):
        picture = reader.fetch(n)
        np.testing.assert_array_equal(picture.image_HW3, pictures[int(picture.row_id[1:])])


@pytest.mark.parametrize("world", [1, 2, 4])
def test_the_global_batch_is_the_same_for_any_world(run: Path, world: int) -> None:
    sources = [open_source(config(run), 16, 0.2), open_source(config(run), 16, 0.5)]
    mixture = Mixture(names=("a", "b"), weights=(FLAT, ((0, 0.0), (4, 3.0))), batch=8)
    whole = Feed(mixture, sources, seed=3, crop_px=16)
    ranks = [Feed(mixture, sources, seed=3, crop_px=16, rank=rank, world=world) for rank in range(world)]
    for step in (0, 3, 17):
        expected = whole.batch(step)
        assert expected.images_B3HW.shape == (8, 3, 16, 16)
        for rank, feed in enumerate(ranks):
            part = feed.batch(step)
            assert part.row_ids == expected.row_ids[rank::world]
            assert part.source_ids == expected.source_ids[rank::world]
            assert part.images_B3HW.equal(expected.images_B3HW[rank::world])


def test_steps_follow_one_another_without_gap_or_repetition(run: Path) -> None:
    source = open_source(config(run), 32, 0.2)
    feed = Feed(Mixture(names=("s",), weights=(FLAT,), batch=6), [source], seed=1, crop_px=32)
    ordinals = [ordinal for step in range(9) for _, ordinal in feed.slots(step)]
    assert ordinals == list(range(54))


def test_crops_are_cut_from_the_picture(run: Path) -> None:
    source = open_source(config(run), 8, 0.2)
    feed = Feed(Mixture(names=("s",), weights=(FLAT,), batch=4), [source], seed=1, crop_px=8)
    pictures = stripes(50, 32)
    batch = feed.batch(5)
    for row_id, crop in zip(batch.row_ids, batch.images_B3HW, strict=True):
        wanted = ((crop.permute(1, 2, 0) + 1) * 127.5).round().numpy().astype(np.uint8)
        windows = np.lib.stride_tricks.sliding_window_view(pictures[int(row_id[1:])], (8, 8), axis=(0, 1))
        assert (windows == wanted.transpose(2, 0, 1)).all(axis=(2, 3, 4)).any()


def test_a_batch_that_ranks_cannot_share_is_refused(run: Path) -> None:
    source = open_source(config(run), 8, 0.2)
    mixture = Mixture(names=("s",), weights=(FLAT,), batch=6)
    with pytest.raises(BadInput, match="batch of 6 cannot be split among 4 processes"):
        Feed(mixture, [source], seed=1, crop_px=8, world=4)


def test_pages_never_straddle(tmp_path: Path) -> None:
    origins = [f"book.pdf page {i // 5}" for i in range(40)]
    run = write_run(tmp_path / "real", stripes(40, 16), origins=origins)
    source = open_source(config(run), 16, 0.3)
    held = {int(row_id[1:]) for row_id in ids_of(source.held_out_reader(), source.held_out_rows)}
    assert held
    assert held == {i for i in range(40) if i // 5 in {h // 5 for h in held}}


def test_a_small_folder_holds_out_something(tmp_path: Path) -> None:
    run = write_run(tmp_path / "real", stripes(4, 16), origins=[f"photo {i}" for i in range(4)])
    source = open_source(config(run), 16, 1e-9)
    assert (source.train_rows, source.held_out_rows) == (3, 1)


def test_small_pictures_are_counted_and_left_out(tmp_path: Path) -> None:
    run = write_run(tmp_path / "run", stripes(6, 16) + stripes(10, 32))
    source = open_source(config(run), 24, 0.1)
    assert source.too_small == 6
    assert source.train_rows + source.held_out_rows == 10
    with pytest.raises(BadInput, match=r"no rows to train on .16 pictures are smaller than 64 px"):
        open_source(config(run), 64, 0.1)


def test_density_chooses_rows(tmp_path: Path) -> None:
    # Characters are a density times the area: 64 px hold 4 characters at 1,000 a megapixel, which is too few to count.
    run = write_run(tmp_path / "run", stripes(12, 128), per_mp=[0.0, 1200.0, 500.0] * 4)
    dense = open_source(config(run, density=("dense",)), 16, 0.1)
    assert (dense.train_rows + dense.held_out_rows, dense.other_density) == (4, 8)
    both = open_source(config(run, density=("dense", "medium")), 16, 0.1)
    assert both.train_rows + both.held_out_rows == 8


def test_folders_that_are_no_finished_run_are_refused(tmp_path: Path) -> None:
    with pytest.raises(BadInput, match="no finished run"):
        open_source(config(tmp_path), 16, 0.1)
    run = write_run(tmp_path / "cut", stripes(4, 16))
    (run / "data/00000000.parquet").write_bytes(b"PAR1 and nothing more")
    with pytest.raises(BadInput, match=r"00000000\.parquet: cannot be read as a shard"):
        open_source(config(run), 16, 0.1)


def test_a_manifest_cannot_point_outside(tmp_path: Path) -> None:
    run = write_run(tmp_path / "run", stripes(4, 16))
    pq.write_table(pa.table({"path": ["../secret.parquet"], "keep": [True]}), run / "manifest.parquet")
    with pytest.raises(BadInput, match="names a file outside the run folder"):
        open_source(config(run), 16, 0.1)


def test_a_row_that_is_no_picture_is_named(tmp_path: Path) -> None:
    run = write_run(tmp_path / "run", stripes(4, 16))
    path = run / "data/00000000.parquet"
    rows = pq.read_table(path).to_pylist()
    for row in rows:
        row["image"]["bytes"] = b"GIF89a"
    pq.write_table(pa.Table.from_pylist(rows, schema=pq.read_schema(path)), path)
    source = open_source(config(run), 16, 0.1)
    with pytest.raises(BadInput, match=r"00000000\.parquet: row r\d is no picture"):
        source.reader(0, 0).fetch(0)


def test_a_checkpoint_knows_its_data(run: Path, tmp_path: Path) -> None:
    mixture = Mixture(names=("s",), weights=(FLAT,), batch=6)
    feed = Feed(mixture, [open_source(config(run), 8, 0.2)], seed=1, crop_px=8)
    state = feed.state(10)
    assert state["counts"] == [60]
    feed.check_state(10, state)
    other = write_run(tmp_path / "other", stripes(49, 32))
    changed = Feed(mixture, [open_source(config(other), 8, 0.2)], seed=1, crop_px=8)
    with pytest.raises(BadInput, match="trained on other data"):
        changed.check_state(10, state)


def test_held_out_pictures_are_middles_spread_over_the_run(run: Path) -> None:
    source = open_source(config(run), 8, 0.5)
    pictures = stripes(50, 32)
    got = held_out_pictures(source, 5, 16)
    assert len({row_id for row_id, _ in got}) == 5
    for row_id, image in got:
        np.testing.assert_array_equal(image, pictures[int(row_id[1:])][8:24, 8:24])
    assert len(held_out_pictures(source, source.held_out_rows, 16)) == source.held_out_rows
    assert held_out_pictures(source, 5, 64) == []


def test_few_large_held_out_pictures_give_crops_that_do_not_overlap(run: Path) -> None:
    source = open_source(config(run), 8, 0.5)
    pictures = stripes(50, 32)
    got = held_out_pictures(source, 10**6, 16)
    assert len(got) == 4 * source.held_out_rows
    for first in range(0, len(got), 4):
        picture = pictures[int(got[first][0][1:])]
        joined = [np.hstack([got[first][1], got[first + 1][1]]), np.hstack([got[first + 2][1], got[first + 3][1]])]
        np.testing.assert_array_equal(np.vstack(joined), picture)
