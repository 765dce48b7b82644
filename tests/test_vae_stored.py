"""Pictures out of shards: found in their pages where they lie, read by Arrow where the pages are laid out otherwise."""

from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from vae_runs import stripes, write_run

import vae.stored
from datagen.pages import plain_values
from datagen.shards import build_shard
from vae.load_bench import bench_load
from vae.source import SourceConfig
from vae.stored import open_stored


def chunk_of(data: bytes, group: int, name: str) -> tuple[int, int]:
    metadata = pq.ParquetFile(pa.BufferReader(data)).metadata.row_group(group)
    columns = [metadata.column(number) for number in range(metadata.num_columns)]
    (column,) = [column for column in columns if column.path_in_schema == name]
    return column.data_page_offset, column.num_values


def written(values: list[bytes | None], **settings: object) -> bytes:
    sink = pa.BufferOutputStream()
    options = {"compression": "NONE", "use_dictionary": False, "write_statistics": False} | settings
    pq.write_table(pa.table({"v": pa.array(values, pa.binary())}), sink, **options)
    return sink.getvalue().to_pybytes()


@given(
    st.lists(st.binary(max_size=300), min_size=1, max_size=60),
    st.sampled_from([1, 64, 1000, 1 << 20]),
    st.booleans(),
)
@settings(max_examples=60, deadline=None)
def test_values_are_found_where_arrow_reads_them(values: list[bytes], page_bytes: int, statistics: bool) -> None:
    data = written(values, data_page_size=page_bytes, write_batch_size=3, write_statistics=statistics)
    places = plain_values(memoryview(data), *chunk_of(data, 0, "v"))
    assert places is not None
    assert [data[start:end] for start, end in places] == values


@pytest.mark.parametrize(
    ("values", "settings"),
    [
        ([b"ab", None, b"c"], {}),
        ([b"ab"] * 40, {"use_dictionary": True}),
        ([b"ab" * 90] * 9, {"compression": "ZSTD"}),
        ([b"ab", b"c"], {"use_dictionary": False, "column_encoding": {"v": "DELTA_LENGTH_BYTE_ARRAY"}}),
        ([b"ab", b"c"], {"data_page_version": "2.0"}),
    ],
    ids=["nulls", "dictionary", "compressed", "delta", "version 2"],
)
def test_other_pages_are_left_to_arrow(values: list[bytes | None], settings: dict[str, object]) -> None:
    data = written(values, **settings)
    assert plain_values(memoryview(data), *chunk_of(data, 0, "v")) is None


@given(st.binary(max_size=200), st.integers(0, 250), st.integers(1, 9))
@settings(max_examples=300, deadline=None)
def test_noise_is_no_page(noise: bytes, offset: int, values: int) -> None:
    found = plain_values(memoryview(noise), offset, values)
    assert found is None or all(0 <= start <= end <= len(noise) for start, end in found)


def test_the_pictures_of_our_own_shards_are_read_in_place() -> None:
    rows = [{"image": {"bytes": bytes([n]) * (9 + n), "path": None}, "row_id": f"r{n}"} for n in range(20)]
    data = bytes(build_shard(rows).data)
    places = plain_values(memoryview(data), *chunk_of(data, 0, "image.bytes"))
    assert places is not None
    assert [data[start:end] for start, end in places] == [row["image"]["bytes"] for row in rows]  # type: ignore[index]


@pytest.fixture(scope="module")
def compressed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run whose pictures stand in compressed pages, as other writers leave them."""
    return write_run(tmp_path_factory.mktemp("run") / "run", stripes(12, 32), group_rows=4)


@pytest.fixture(scope="module")
def plain(compressed: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The same rows as `datagen.shards` writes them."""
    rows = pq.read_table(compressed / "data/00000000.parquet").to_pylist()
    folder = tmp_path_factory.mktemp("plain")
    (folder / "data").mkdir()
    (folder / "data/00000000.parquet").write_bytes(bytes(build_shard(rows).data))
    pq.write_table(pq.read_table(compressed / "manifest.parquet"), folder / "manifest.parquet")
    return folder


def test_both_ways_of_reading_give_the_same_pictures(
    compressed: Path, plain: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    readers = {}
    for run in (compressed, plain):
        config = SourceConfig(name="s", run=str(run), shuffle=False)
        readers[run] = open_stored(config, run, [(32, 32)], 0.0)[0].reader(0, 0)
    mapped: list[bool] = []
    ordinary = vae.stored._mapped

    def watched(*given: Any) -> object:
        found = ordinary(*given)
        mapped.append(found is not None)
        return found

    monkeypatch.setattr(vae.stored, "_mapped", watched)
    for number in range(12):
        one, other = (readers[run].fetch(number) for run in (compressed, plain))
        assert one.row_id == other.row_id
        np.testing.assert_array_equal(one.image_HW3, other.image_HW3)
    assert mapped == [False, True, False, False]  # three row groups, and one


@pytest.mark.parametrize(("kept_bytes", "each"), [(12 * 32 * 32 * 3, 1), (12 * 32 * 32 * 3 - 1, 3)])
def test_a_source_that_fits_is_decoded_once(
    plain: Path, monkeypatch: pytest.MonkeyPatch, kept_bytes: int, each: int
) -> None:
    monkeypatch.setattr(vae.stored, "KEPT_BYTES", kept_bytes)
    decoded: list[bytes] = []
    ordinary = vae.stored.decode_picture

    def watched(data: memoryview) -> Any:
        decoded.append(bytes(data))
        return ordinary(data)

    monkeypatch.setattr(vae.stored, "decode_picture", watched)
    reader = open_stored(SourceConfig(name="s", run=str(plain)), plain, [(32, 32)], 0.0)[0].reader(0, 0)
    seen = [reader.fetch(n) for n in range(36)]
    assert sorted(Counter(decoded).values()) == [each] * 12
    again = [picture for picture in seen if picture.row_id == seen[0].row_id]
    assert len(again) == 3
    for picture in again:
        np.testing.assert_array_equal(picture.image_HW3, seen[0].image_HW3)


def test_the_benchmark_counts_every_picture_once(plain: Path) -> None:
    figures = bench_load(plain, crop_px=16, batch=5, pictures=100)
    assert figures["pictures"] == 10
    assert figures["fraction_of_decode_limit"] == pytest.approx(
        figures["images_per_s_per_core"] / figures["decode_limit_images_per_s_per_core"]
    )
    best = max(figures["decoders_images_per_s_per_core"], key=figures["decoders_images_per_s_per_core"].get)
    assert figures["decoder"] == best
