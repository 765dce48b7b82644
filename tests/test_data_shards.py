"""datagen.storage, shards, commit: files appear whole or not at all, and open everywhere."""

import errno
import hashlib
import os
import pickle
import subprocess
import sys
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest
import xxhash
from hypothesis import given, settings
from hypothesis import strategies as st
from pyarrow import parquet as pq

from datagen import commit
from datagen.codec import encode_png
from datagen.line_columns import DrawnLines
from datagen.schema import SCHEMA, with_metadata
from datagen.shards import RowGroup, Shard, ShardBuilder, build_shard, read_table
from datagen.storage import Folder
from fonts_manifest.errors import BadInput
from render_engine.spec import RenderedLine

HASH = "0123456789abcdef"


def _picture(number: int) -> np.ndarray:
    return np.random.default_rng(number).integers(0, 256, (16, 24, 3), np.uint8)


def _row(number: int, keep: bool = True) -> dict[str, object]:
    image_HW3 = _picture(number)
    line = {
        "text": f"line {number}",
        "lang": "en",
        "quad_px": [0, 0, 9, 0, 9, 5, 0, 5],
        "size_px": 5.5,
        "face_id": "f-0",
    }
    return {
        "image": {"bytes": encode_png(image_HW3), "path": None},
        "row_id": f"r-{number}",
        "source": "synthetic",
        "width": 24,
        "height": 16,
        "lang": "en",
        "text": f"line {number}",
        "lines": [line | {"ink_rgb": [1, 2, 3], "ground_rgb": [250, 251, 252]}],
        "pixels_xxh3": xxhash.xxh3_128_hexdigest(image_HW3),
        "keep": keep,
        "reason": "" if keep else "low_ned",
    }


# storage


def test_a_write_that_fails_leaves_what_stood_there_before_and_no_leftovers(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = Folder(str(tmp_path))
    folder.publish("data/a", b"old")

    def full(descriptor: int) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    with monkeypatch.context() as patched:
        patched.setattr(os, "fsync", full)
        with pytest.raises(BadInput, match=r"data/a: the disk is full; make room"):
            folder.publish("data/a", b"new")
        with pytest.raises(BadInput, match="the disk is full"):
            folder.publish("data/b", b"new")
    assert folder.read("data/a") == b"old"
    assert [path.name for path in (tmp_path / "data").iterdir()] == ["a"]


def test_a_file_appears_under_its_name_only_when_it_is_complete(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = Folder(str(tmp_path))
    seen: list[tuple[list[str], list[bytes]]] = []
    replace = os.replace

    def watched(source: str, target: str) -> None:
        parts = [(tmp_path / name).read_bytes() for name in folder.unfinished(".")]
        seen.append((folder.names("."), parts))
        replace(source, target)

    monkeypatch.setattr(os, "replace", watched)
    folder.publish("a", b"all of it")
    assert seen == [([], [b"all of it"])]
    assert folder.names(".") == ["a"]
    assert folder.unfinished(".") == []


def test_paths_may_not_leave_the_folder(tmp_path: Path) -> None:
    folder = Folder(str(tmp_path / "run"))
    for path in ("../x", "/etc/passwd", "data/../../x"):
        with pytest.raises(ValueError, match="must stay inside the folder"):
            folder.publish(path, b"")


def test_a_folder_opens_again_in_another_process(tmp_path: Path) -> None:
    folder = Folder(str(tmp_path))
    folder.publish("a", b"1")
    assert pickle.loads(pickle.dumps(folder)).read("a") == b"1"  # noqa: S301 - our own bytes


def test_unusable_places_are_one_sentence(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(BadInput, match=r"file/a: cannot be read or written"):
        Folder(str(tmp_path / "file")).publish("a", b"")
    with pytest.raises(BadInput, match="no such file"):
        Folder(str(tmp_path)).read("missing")
    with pytest.raises(BadInput, match="no address that can be opened"):
        Folder("gopher://host/folder").names(".")


# shards


def test_equal_rows_give_equal_bytes_and_other_rows_others() -> None:
    first, second = build_shard(map(_row, range(5))), build_shard(map(_row, range(5)))
    assert bytes(first.data) == bytes(second.data)
    assert first.sha256 == hashlib.sha256(bytes(first.data)).hexdigest() == second.sha256
    assert build_shard(map(_row, range(1, 6))).sha256 != first.sha256
    expected = "".join(f"{_row(number)['pixels_xxh3']}\n" for number in range(5))
    assert first.pixels_sha256 == hashlib.sha256(expected.encode()).hexdigest()


def test_pictures_are_stored_as_they_are_and_everything_else_is_zstd_with_a_page_index() -> None:
    shard = build_shard(map(_row, range(3)))
    metadata = pq.read_metadata(shard.data.file).row_group(0)
    columns = {(column := metadata.column(i)).path_in_schema: column for i in range(metadata.num_columns)}
    assert columns["image.bytes"].compression == "UNCOMPRESSED"
    assert not columns["image.bytes"].has_dictionary_page
    assert {column.compression for path, column in columns.items() if path != "image.bytes"} == {"ZSTD"}
    assert "lines.list.element.text" in columns
    assert all(column.has_column_index or path != "reason" for path, column in columns.items())
    assert columns["image.bytes"].has_offset_index


def test_row_groups_close_at_the_byte_target_and_their_offsets_are_true() -> None:
    rows = [_row(number) for number in range(10)]
    size = min(len(row["image"]["bytes"]) for row in rows)
    builder = ShardBuilder(row_group_bytes=3 * size)
    for row in rows:
        builder.add(row)
    shard = builder.finish()
    assert [group.rows for group in shard.row_groups] == [3, 3, 3, 1]
    # The bytes between the offsets hold exactly the pictures of the group: nothing else names them.
    raw = bytes(shard.data)
    start = 0
    for group in shard.row_groups:
        for row in rows[start : start + group.rows]:
            assert group.offset <= raw.index(row["image"]["bytes"]) < group.offset + group.size
        start += group.rows


PAGES = st.lists(
    st.one_of(
        st.none(),
        st.lists(st.tuples(st.text(max_size=4), st.floats(-1e3, 1e3), st.none() | st.floats(0, 1)), max_size=3),
    ),
    max_size=6,
)


@settings(max_examples=50, deadline=None)
@given(pages=PAGES, images=st.lists(st.none() | st.binary(max_size=9), min_size=6, max_size=6))
def test_rows_that_hold_drawn_lines_and_files_are_those_that_arrow_makes_of_dicts(
    pages: list[list[tuple[str, float, float | None]] | None], images: list[bytes | None]
) -> None:
    rows, plain = [], []
    for page, image in zip(pages, images, strict=False):
        dicts = [
            {
                "text": text,
                "lang": "zh",
                "face_id": f"f-{text}",
                "block": number,
                "quad_px": [number + at / 3 for at in range(8)],
                "ink_rgb": [1, 2, 255],
                "ground_rgb": [0, 9, 8],
                **dict.fromkeys(("size_px", "ink_height_px", "contrast", "clutter", "opacity"), size),
            }
            for number, (text, size, _) in enumerate(page or ())
        ]
        lines = [RenderedLine(**{k: tuple(v) if isinstance(v, list) else v for k, v in line.items()}) for line in dicts]
        neds = tuple(ned for _, _, ned in page or ())
        drawn = DrawnLines(lines=tuple(lines), roles=("cell",) * len(lines), read_ned=neds if image else None)
        for number, line in enumerate(dicts):
            line |= {"role": "cell", "read_ned": neds[number] if image else None}
        row = {"image": None if image == b"" else {"bytes": image, "path": "p" if image else None}}
        rows.append(row | {"lines": None if page is None else drawn})
        plain.append(row | {"lines": None if page is None else dicts})
    expected = pa.Table.from_pylist(plain, schema=SCHEMA)
    for given_rows in (rows, plain, [*rows[:2], *plain[2:]]):
        builder = ShardBuilder(row_group_bytes=20)
        for row in given_rows:
            builder.add(row)
        assert read_table(bytes(builder.finish().data)).equals(expected)


def test_a_column_that_does_not_exist_is_refused() -> None:
    with pytest.raises(ValueError, match="no such column: legibilty"):
        ShardBuilder().add({"legibilty": 1.0})


def test_datasets_opens_the_file_with_pictures_decoded_map_style_and_streaming(tmp_path: Path) -> None:
    import datasets

    path = tmp_path / "a.parquet"
    path.write_bytes(bytes(build_shard(map(_row, range(4)), with_metadata(SCHEMA, {"recipe": "x: 1"})).data))
    options = {"split": "train", "cache_dir": str(tmp_path / "cache")}
    table = datasets.load_dataset("parquet", data_files=str(path), **options)
    stream = datasets.load_dataset("parquet", data_files=str(path), streaming=True, **options)
    assert len(table) == 4
    for rows in (table, stream):
        for number, row in enumerate(rows):
            np.testing.assert_array_equal(np.asarray(row["image"]), _picture(number))
            assert row["lines"][0]["text"] == f"line {number}"
    assert pq.read_schema(path).metadata[b"recipe"] == b"x: 1"


# commits


def _identity(**changes: object) -> commit.RunIdentity:
    settings = {"recipe_hash": HASH, "shards": 2, "inputs": {"fonts": "a" * 64}, "versions": {"numpy": "2.3.5"}}
    return commit.RunIdentity(**(settings | changes))


def _publish(folder: Folder, shard: int) -> commit.CommitRecord:
    kept = build_shard(_row(10 * shard + number) for number in range(3))
    rejected = build_shard([_row(99, keep=False)]) if shard else None
    return commit.publish_shard(folder, HASH, shard, kept, rejected, {"low_ned": 1} if shard else {}, seconds=1.23456)


def test_a_run_is_started_interrupted_resumed_and_finished(tmp_path: Path) -> None:
    folder = Folder(str(tmp_path))
    assert commit.start_run(folder, _identity()) == frozenset()
    record = _publish(folder, 1)
    assert (record.kept, record.reasons) == (3, {"low_ned": 1})
    assert commit.start_run(folder, _identity()) == {1}
    with pytest.raises(BadInput, match="1 of 2 shards are not finished, the first is 0"):
        commit.finish_run(folder, 2)
    with pytest.raises(BadInput, match="no finished run"):
        commit.read_manifest(folder)
    _publish(folder, 0)
    assert commit.read_commit(folder, 1) == record
    assert commit.finish_run(folder, 2) == commit.RunTotals(kept=6, reasons={"low_ned": 1})
    manifest = commit.read_manifest(tmp_path)
    assert manifest.select(["path", "shard", "keep", "rows"]).to_pylist() == [
        {"path": "data/0123456789ab-00000000.parquet", "shard": 0, "keep": True, "rows": 3},
        {"path": "data/0123456789ab-00000001.parquet", "shard": 1, "keep": True, "rows": 3},
        {"path": "rejected/0123456789ab-00000001.parquet", "shard": 1, "keep": False, "rows": 1},
    ]
    for row in manifest.to_pylist():
        raw = (tmp_path / row["path"]).read_bytes()
        assert (row["bytes"], row["sha256"]) == (len(raw), hashlib.sha256(raw).hexdigest())
    assert manifest["reasons"].to_pylist()[2] == [{"reason": "low_ned", "count": 1}]
    assert commit.read_rows(tmp_path, ["row_id"], keep=True)["row_id"].to_pylist() == [
        f"r-{n}" for n in (0, 1, 2, 10, 11, 12)
    ]
    assert commit.read_rows(tmp_path, ["row_id"], keep=False)["row_id"].to_pylist() == ["r-99"]
    assert commit.read_rows(tmp_path).num_rows == 7


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({"recipe_hash": "f" * 16}, "the recipe hash was 0123456789abcdef and is ffffffffffffffff"),
        ({"versions": {"numpy": "2.4.0"}}, "the version of numpy was 2.3.5 and is 2.4.0"),
        ({"versions": {}}, "the version of numpy was 2.3.5 and is absent"),
        ({"inputs": {"fonts": "b" * 64}}, "the digest of fonts was aaaaaaaaaaaa and is bbbbbbbbbbbb"),
        ({"shards": 3}, "it had 2 shards and now has 3"),
    ],
)
def test_a_folder_of_another_run_is_refused_saying_what_differs(
    tmp_path: Path, changed: dict[str, object], message: str
) -> None:
    folder = Folder(str(tmp_path))
    commit.start_run(folder, _identity())
    with pytest.raises(BadInput, match=message):
        commit.start_run(folder, _identity(**changed))


def test_shards_without_an_identity_are_not_gone_on_with(tmp_path: Path) -> None:
    folder = Folder(str(tmp_path))
    _publish(folder, 0)
    with pytest.raises(BadInput, match=r"holds shards but no run\.json"):
        commit.start_run(folder, _identity())


def test_what_was_never_committed_is_invisible_and_gc_removes_only_that(tmp_path: Path) -> None:
    folder = Folder(str(tmp_path))
    commit.start_run(folder, _identity(shards=1))
    _publish(folder, 0)
    folder.publish(commit.shard_path(HASH, 1, True), b"published by a run that died before its commit")
    (tmp_path / "data" / ".part-1234").write_bytes(b"cut off")
    assert commit.committed_shards(folder) == {0}
    commit.finish_run(folder, 1)
    assert commit.read_rows(tmp_path).num_rows == 3
    assert commit.gc(tmp_path) == ["data/0123456789ab-00000001.parquet", "data/.part-1234"]
    assert commit.gc(tmp_path) == []
    assert commit.read_rows(tmp_path).num_rows == 3


def test_a_failure_between_the_files_of_a_shard_commits_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = Folder(str(tmp_path))
    publish = Folder.publish

    def failing(self: Folder, path: str, data: bytes) -> None:
        if path.startswith("rejected/"):
            raise BadInput("the disk is full")
        publish(self, path, data)

    monkeypatch.setattr(Folder, "publish", failing)
    with pytest.raises(BadInput):
        _publish(folder, 1)
    assert commit.committed_shards(folder) == frozenset()


def test_a_record_that_names_files_outside_the_folder_is_refused(tmp_path: Path) -> None:
    folder = Folder(str(tmp_path))
    shard = Shard(
        data=pa.py_buffer(b"x"), rows=1, sha256="", pixels_sha256="", row_groups=(RowGroup(rows=1, offset=0, size=1),)
    )
    commit.publish_shard(folder, HASH, 0, shard)
    record = tmp_path / "_commits" / "00000000.json"
    record.write_text(record.read_text().replace("data/", "../../data/"))
    with pytest.raises(BadInput, match="names a file outside the run folder"):
        commit.read_commit(folder, 0)
    record.write_text("{")
    with pytest.raises(BadInput, match="damaged"):
        commit.read_commit(folder, 0)


THREADS = """
import os, sys
from pathlib import Path
from datagen.shards import read_table
before = len(os.listdir("/proc/self/task"))
rows = read_table(Path(sys.argv[1]), ["row_id", "image"]).num_rows
print(rows, len(os.listdir("/proc/self/task")) - before)
"""


@pytest.mark.skipif(not Path("/proc/self/task").exists(), reason="threads are counted in Linux's /proc")
def test_reading_a_shard_starts_no_threads(tmp_path: Path) -> None:
    # Arrow's own `read_table` starts two, over which a process now and then aborts at its end.
    path = tmp_path / "shard.parquet"
    path.write_bytes(bytes(build_shard(_row(number) for number in range(4)).data))
    environment = os.environ | {"PYTHONPATH": os.pathsep.join(filter(None, sys.path))}
    command = [sys.executable, "-c", THREADS, str(path)]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=True)
    assert done.stdout.split() == ["4", "0"]


def test_a_shard_is_read_as_arrow_reads_it() -> None:
    data = bytes(build_shard(_row(number) for number in range(4)).data)
    columns = ["row_id", "lines"]
    assert read_table(data).equals(pq.read_table(pa.BufferReader(data)))
    assert read_table(data, columns).equals(pq.read_table(pa.BufferReader(data), columns=columns))
