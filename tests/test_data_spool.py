"""datagen.spool, and that shards pass through it: written as they come, published in pieces, never half."""

import collections
import errno
import gc
import hashlib
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from datagen import shards, spool, storage
from datagen.shards import ShardBuilder, build_shard
from datagen.spool import Spool
from datagen.storage import Folder
from fonts_manifest.errors import BadInput

FIXTURES = settings(max_examples=50, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])


def _row(number: int) -> dict[str, object]:
    noise = hashlib.shake_128(bytes([number])).digest(3000)
    return {"image": {"bytes": noise, "path": None}, "row_id": f"r-{number}", "text": f"row {number}", "keep": True}


def _filled(*parts: bytes) -> Spool:
    filled = Spool()
    for part in parts:
        assert filled.write(part) == len(part)
    return filled


@FIXTURES
@given(parts=st.lists(st.binary(max_size=40)), chunk_bytes=st.integers(1, 30), written=st.integers(1, 50))
def test_what_is_written_is_read_back_in_chunks(
    parts: list[bytes], chunk_bytes: int, written: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    write = os.write
    with monkeypatch.context() as patched:
        patched.setattr(spool, "CHUNK_BYTES", chunk_bytes)
        # A nearly full disk takes less than it is given.
        patched.setattr(os, "write", lambda descriptor, data: write(descriptor, data[:written]))
        filled = _filled(*parts)
        chunks = list(filled.chunks())
    whole = b"".join(parts)
    assert b"".join(chunks) == whole
    assert all(len(chunk) == chunk_bytes for chunk in chunks[:-1])
    assert filled.size == filled.tell() == len(whole)
    assert filled.sha256 == hashlib.sha256(whole).hexdigest()


def test_it_has_no_name_and_goes_with_its_last_reference(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    filled = _filled(b"something")
    descriptor = filled.file.fileno()
    assert os.readlink(f"/proc/self/fd/{descriptor}").startswith(str(tmp_path))
    assert list(tmp_path.iterdir()) == []
    del filled
    with pytest.raises(OSError, match="Bad file descriptor"):
        os.fstat(descriptor)


class _InMemory(Spool):
    """What a shard was built in before: the same calls, one growing array."""

    def __init__(self) -> None:
        super().__init__()
        self.data = bytearray()

    def _write(self, left: memoryview) -> None:
        super()._write(left)
        self.data += left


def test_a_shard_in_a_file_holds_the_bytes_that_the_writer_gave(monkeypatch: pytest.MonkeyPatch) -> None:
    expected = build_shard(map(_row, range(30)))
    monkeypatch.setattr(shards, "Spool", _InMemory)
    in_memory = build_shard(map(_row, range(30)))
    assert bytes(expected.data) == bytes(in_memory.data.data)
    assert (expected.sha256, expected.row_groups) == (in_memory.sha256, in_memory.row_groups)


class _Target:
    """A stream of an object store that remembers what was asked of it."""

    def __init__(self) -> None:
        self.asked: list[int | str] = []
        self.data = b""

    def write(self, data: bytes) -> None:
        self.asked.append(len(data))
        self.data += data

    def flush(self) -> None:
        self.asked.append("flush")

    def close(self) -> None:
        self.asked.append("close")


def test_an_upload_is_given_a_chunk_at_a_time_and_waits_for_some_to_be_sent(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(spool, "CHUNK_BYTES", 10)
    target, whole = _Target(), bytes(range(95))
    storage._upload(target, _filled(whole))
    assert target.asked == [10, 10, 10, 10, "flush", 10, 10, 10, 10, "flush", 10, 5, "close"]
    assert target.data == whole


def test_a_file_here_is_written_a_chunk_at_a_time(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(spool, "CHUNK_BYTES", 1000)
    read: list[int] = []
    pread = os.pread
    monkeypatch.setattr(os, "pread", lambda descriptor, count, at: read.append(count) or pread(descriptor, count, at))
    shard = build_shard(map(_row, range(5)))
    Folder(str(tmp_path)).publish("a.parquet", shard.data)
    assert hashlib.sha256((tmp_path / "a.parquet").read_bytes()).hexdigest() == shard.sha256
    assert max(read) == 1000
    assert sum(read) == shard.data.size == (tmp_path / "a.parquet").stat().st_size


@pytest.mark.parametrize("error", [KeyboardInterrupt(), OSError(errno.EIO, "Input/output error")])
def test_a_copy_that_breaks_off_leaves_nothing_here(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, error: BaseException
) -> None:
    monkeypatch.setattr(spool, "CHUNK_BYTES", 1000)
    pread = os.pread

    def failing(descriptor: int, count: int, start: int) -> bytes:
        if start >= 2000:
            raise error
        return pread(descriptor, count, start)

    monkeypatch.setattr(os, "pread", failing)
    folder = Folder(str(tmp_path))
    with pytest.raises(KeyboardInterrupt if isinstance(error, KeyboardInterrupt) else BadInput):
        folder.publish("data/a", build_shard(map(_row, range(5))).data)
    assert list((tmp_path / "data").iterdir()) == []


def test_a_full_disk_of_temporary_files_is_one_sentence(monkeypatch: pytest.MonkeyPatch) -> None:
    left = 40_000
    write = os.write

    def full(descriptor: int, data: bytes) -> int:
        nonlocal left
        if left == 0:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        written = write(descriptor, data[:left])
        left -= written
        return written

    monkeypatch.setattr(os, "write", full)
    builder = ShardBuilder(row_group_bytes=9000)
    said = "the disk is full; a shard lies here until it is published: make room or set TMPDIR to another folder"
    with pytest.raises(BadInput, match=said):
        collections.deque(map(builder.add, map(_row, range(40))))
    # Whoever goes on regardless gets no shard.
    with pytest.raises(BadInput, match="the disk is full"):
        list(builder._spool.chunks())
    del builder
    gc.collect()


FULL = """
import resource, sys
from datagen.shards import ShardBuilder
from fonts_manifest.errors import run
sys.path.insert(0, sys.argv[1])
from test_data_spool import _row

def build():
    resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, resource.RLIM_INFINITY))
    builder = ShardBuilder(row_group_bytes=9000)
    for number in range(100):
        builder.add(_row(number))

run(build)
"""


def _in_a_process(code: str, *arguments: str) -> "subprocess.CompletedProcess[str]":
    environment = os.environ | {"PYTHONPATH": os.pathsep.join(filter(None, sys.path))}
    return subprocess.run([sys.executable, "-c", code, *arguments], env=environment, capture_output=True, text=True)


def test_a_limit_that_the_system_sets_is_one_sentence_and_nothing_else_is_said() -> None:
    # Arrow's writer finishes its file when it goes, and so meets the limit again.
    ended = _in_a_process(FULL, str(Path(__file__).parent))
    assert ended.returncode == 2, ended.stderr
    assert len(ended.stderr.splitlines()) == 1
    assert "no file can be written here (File too large); a shard lies here until it is published" in ended.stderr


def test_no_folder_for_temporary_files_is_one_sentence(monkeypatch: pytest.MonkeyPatch) -> None:
    def none() -> Iterator[None]:
        raise FileNotFoundError(errno.ENOENT, "No usable temporary directory found in ['/gone']")

    monkeypatch.setattr("tempfile.tempdir", None)
    monkeypatch.setattr("tempfile.gettempdir", none)
    with pytest.raises(BadInput, match=r"No usable temporary directory found in \['/gone'\]"):
        Spool()
