"""Files that hold many pictures: WebDataset tars, Parquet tables, Arrow files of `datasets`. Listed, read one by one.

Nothing is ever unpacked: a member's name is only a name, and its bytes are read where they lie.
"""

import bisect
import json
import tarfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, replace
from functools import lru_cache
from pathlib import PurePosixPath
from typing import Any, BinaryIO

from datagen.decode import SUFFIXES, ImageProblem, Problem
from datagen.files import is_bucket, joined, open_file
from fonts_manifest.config import Config

TAR, PARQUET, ARROW = ".tar", ".parquet", ".arrow"
CONTAINERS = frozenset({TAR, PARQUET, ARROW})
COMPRESSED = (".tar.gz", ".tgz", ".tar.bz2", ".tar.xz", ".tar.zst")
PICTURES = SUFFIXES | {".pdf"}
"""Suffixes of members that are pictures or hold some."""

MAX_ROW_GROUP_BYTES = 4 << 30
"""Larger row groups are refused: one is held in memory while its rows are read."""

_SIDECAR_BYTES = 1 << 20
_MAX_TEXT = 20_000


class Columns(Config):
    """Where a table, or the .json beside a picture in a tar, keeps what belongs to a picture."""

    image: str = "image"
    """The picture: bytes, or the `Image` struct {bytes, path} of Hugging Face datasets."""
    caption: str = "caption"
    """The picture in words; in tars the .txt beside it too."""
    licence: str = "license"
    """Licence of the one picture; the place's own where it is missing or null."""
    origin: str = "url"
    """Where the picture came from."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Part:
    """Where one picture lies inside a file: a range of bytes (tar), or a row of a table."""

    name: str
    """Of the member or row, for provenance."""
    offset: int = 0
    size: int = -1
    """-1 in tables."""
    row: int = -1
    """-1 in tars."""
    problem: Problem | None = None
    detail: str = ""
    caption: str | None = None
    licence: str | None = None
    origin: str | None = None


def is_compressed_archive(name: str) -> bool:
    """Whether a file is an archive whose members cannot be reached one by one."""
    return name.lower().endswith(COMPRESSED)


def list_tar(path: str, columns: Columns) -> Iterator[Part]:
    """The pictures of a WebDataset tar in its order, each with the caption, licence and origin that stand beside it.

    Members are named KEY.SUFFIX; members of one key follow each other. A tar that is cut off yields what was before,
    then a part with "damaged".
    """
    with open_file(path) as file:
        key, pictures, beside = "", list[Part](), dict[str, Any]()
        try:
            size = file.seek(0, 2)
            file.seek(0)
            with tarfile.open(fileobj=file, mode="r:") as tar:
                while (member := tar.next()) is not None:
                    tar.members = []  # type: ignore[attr-defined]  # tarfile would keep every header of the archive
                    if not member.isfile():
                        continue  # links and devices hold no picture
                    if _key_of(member.name) != key:
                        yield from (_described(part, beside, columns) for part in pictures)
                        key, pictures, beside = _key_of(member.name), [], {}
                    suffix = PurePosixPath(member.name).suffix.lower()
                    if suffix in PICTURES:
                        pictures.append(_member(member, size))
                        if pictures[-1].problem == "damaged" and member.offset_data + member.size > size:
                            break  # behind it there is nothing
                    elif suffix in (".txt", ".json") and member.size <= _SIDECAR_BYTES:
                        beside |= _beside(_read_at(file, member.offset_data, member.size), suffix, columns)
        except (tarfile.TarError, OSError, ValueError, EOFError) as error:
            pictures.append(Part(name="", problem="damaged", detail=str(error)[:200]))
        yield from (_described(part, beside, columns) for part in pictures)


def _key_of(name: str) -> str:
    path = PurePosixPath(name)
    return str(path.with_name(path.name.partition(".")[0] or path.name))


def _member(member: tarfile.TarInfo, archive_size: int) -> Part:
    cut = member.offset_data + member.size > archive_size
    problem: Problem | None = "damaged" if cut or member.issparse() else None
    detail = "the archive ends inside it" if cut else "stored with holes" if problem else ""
    return Part(name=member.name, offset=member.offset_data, size=member.size, problem=problem, detail=detail)


def _read_at(file: BinaryIO, offset: int, size: int) -> bytes:
    before = file.tell()
    file.seek(offset)
    data = file.read(size)
    file.seek(before)
    return data


def _beside(data: bytes, suffix: str, columns: Columns) -> dict[str, Any]:
    """What the .txt or .json beside a picture says; a help, no condition, so what is not understood is nothing."""
    text = data.decode("utf-8", errors="replace")
    if suffix == ".txt":
        return {columns.caption: text.strip()}
    try:
        values = json.loads(text)
    except (ValueError, RecursionError):
        return {}
    return values if isinstance(values, dict) else {}


def _described(part: Part, values: Mapping[str, Any], columns: Columns) -> Part:
    def text(column: str) -> str | None:
        value = values.get(column)
        return value[:_MAX_TEXT] if isinstance(value, str) and value else None

    return replace(part, caption=text(columns.caption), licence=text(columns.licence), origin=text(columns.origin))


def read_member(path: str, part: Part, limit_bytes: int) -> bytes:
    """The bytes of a tar's member. Raises ImageProblem."""
    if part.size > limit_bytes:
        raise ImageProblem("file_too_large", f"{part.size / 1e6:.0f} MB")
    with open_file(path) as file:
        file.seek(part.offset)
        data = bytes(file.read(part.size))
    if len(data) != part.size:
        raise ImageProblem("damaged", "the archive ends inside it")
    return data


def list_table(path: str, columns: Columns) -> Iterator[Part]:
    """The rows of a Parquet or Arrow file. Raises ImageProblem: "damaged", or "no_image_column" which names those there
    are."""
    with _damage():
        schema, rows = _table_shape(path)
        if columns.image not in schema.names:
            raise ImageProblem(
                "no_image_column", f"no column {columns.image!r} among {joined(schema.names)}; set input.columns.image"
            )
        if not _holds_bytes(schema.field(columns.image).type):
            kind = schema.field(columns.image).type
            raise ImageProblem("no_image_column", f"column {columns.image!r} holds {kind}, neither bytes nor pictures")
        present = [name for name in (columns.caption, columns.licence, columns.origin) if name in schema.names]
        if not present:
            yield from (Part(name=str(row), row=row) for row in range(rows))
            return
        for row, values in enumerate(_rows_of(path, present)):
            yield _described(Part(name=str(row), row=row), values, columns)


def read_row(path: str, part: Part, columns: Columns, limit_bytes: int) -> bytes:
    """The picture's bytes of a table's row. Raises ImageProblem: "no_picture" when it is null or only a path."""
    with _damage():
        column, row = _column_around(path, columns.image, part.row)
        value = column[row].as_py()
    data = value.get("bytes") if isinstance(value, dict) else value
    if data is None:
        where = value.get("path") if isinstance(value, dict) else None
        # A path from data is never opened: it could name any file of this machine.
        raise ImageProblem("no_picture", f"only a path, {where!r}" if where else "null")
    if len(data) > limit_bytes:
        raise ImageProblem("file_too_large", f"{len(data) / 1e6:.0f} MB")
    return bytes(data)


def _holds_bytes(kind: Any) -> bool:
    import pyarrow as pa

    if pa.types.is_struct(kind):
        return kind.get_field_index("bytes") >= 0 and _holds_bytes(kind.field("bytes").type)
    return bool(pa.types.is_binary(kind) or pa.types.is_large_binary(kind) or pa.types.is_binary_view(kind))


@contextmanager
def _damage() -> Iterator[None]:
    import pyarrow as pa

    try:
        yield
    except (pa.ArrowException, OSError, ValueError, EOFError) as error:
        raise ImageProblem("damaged", (str(error).strip() or type(error).__name__).splitlines()[0][:200]) from None


def _is_arrow(path: str) -> bool:
    return PurePosixPath(path.partition("?")[0]).suffix == ARROW


def _table_shape(path: str) -> tuple[Any, int]:
    """(schema, rows)."""
    from pyarrow import parquet as pq

    if _is_arrow(path):
        table = _arrow_table(path)
        return table.schema, table.num_rows
    with open_file(path) as file:
        parquet = pq.ParquetFile(file)
        return parquet.schema_arrow, parquet.metadata.num_rows


def _rows_of(path: str, names: list[str]) -> Iterator[dict[str, Any]]:
    from pyarrow import parquet as pq

    if _is_arrow(path):
        for batch in _arrow_table(path).select(names).to_batches():
            yield from batch.to_pylist()
        return
    with open_file(path) as file:
        for batch in pq.ParquetFile(file).iter_batches(columns=names):
            yield from batch.to_pylist()


@lru_cache(maxsize=1)
def _arrow_table(path: str) -> Any:
    """The table of a `datasets` cache file (a stream, or a file with a footer), mapped, not read."""
    import pyarrow as pa

    if not is_bucket(path):
        mapped = pa.memory_map(path)
        try:
            return pa.ipc.open_stream(mapped).read_all()
        except pa.ArrowInvalid:
            return pa.ipc.open_file(mapped).read_all()
    with open_file(path) as file:
        return pa.ipc.open_stream(file).read_all()


@lru_cache(maxsize=1)
def _row_groups(path: str) -> list[tuple[int, int]]:
    """(first row, bytes) of every row group of a Parquet file."""
    from pyarrow import parquet as pq

    with open_file(path) as file:
        metadata = pq.ParquetFile(file).metadata
    groups, first = [], 0
    for number in range(metadata.num_row_groups):
        groups.append((first, metadata.row_group(number).total_byte_size))
        first += metadata.row_group(number).num_rows
    return groups


@lru_cache(maxsize=1)
def _row_group(path: str, column: str, number: int) -> Any:
    # Rows are asked for in order, so each row group is read once.
    from pyarrow import parquet as pq

    with open_file(path) as file:
        return pq.ParquetFile(file).read_row_group(number, columns=[column])[column]


def _column_around(path: str, column: str, row: int) -> tuple[Any, int]:
    """A piece of the column that holds `row`, and the row's number in it."""
    if _is_arrow(path):
        return _arrow_table(path)[column], row
    groups = _row_groups(path)
    number = bisect.bisect_right([first for first, _ in groups], row) - 1
    if groups[number][1] > MAX_ROW_GROUP_BYTES:
        raise ImageProblem("file_too_large", f"a row group of {groups[number][1] / 1e9:.1f} GB")
    return _row_group(path, column, number), row - groups[number][0]
