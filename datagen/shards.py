"""Rows -> one Parquet file, built whole in a file without a name, checked, and only then published.

Equal rows give equal bytes with one version of pyarrow (the file names its writer), so the SHA-256 of a file tests
determinism; the digest of the pixels holds across versions.
"""

import hashlib
import itertools
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
from pyarrow import parquet as pq

from datagen.heap import leave_pandas_out
from datagen.line_columns import DrawnLines, line_array
from datagen.schema import SCHEMA
from datagen.spool import Spool

ROW_GROUP_BYTES = 12 << 20
"""Image bytes after which a row group is closed: a random row costs 0.7 ms at 5 MB, 3.5 at 21, 9.5 at 84."""

_UNIQUE = ("image.bytes", "image.path", "row_id", "text", "lines.list.element.text", "spec", "pixels_xxh3")
"""Leaves whose values hardly repeat: a dictionary would only be built to be thrown away."""


@dataclass(frozen=True, slots=True, kw_only=True)
class RowGroup:
    """Where to find some rows without reading the footer first."""

    rows: int
    offset: int
    """First byte in the file."""
    size: int
    """Bytes."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Shard:
    """A finished Parquet file that has no name yet."""

    data: Spool | pa.Buffer
    rows: int
    sha256: str
    """Of the file."""
    pixels_sha256: str
    """Of the rows' `pixels_xxh3` in order, each followed by a line feed (empty for rows without a picture)."""
    row_groups: tuple[RowGroup, ...]


class ShardBuilder:
    """Collects rows and makes a `Shard` of them.

    Memory holds a row group of it, whatever the shard's size; the rest lies in a `Spool`. Never at the final name:
    leaving `pq.ParquetWriter` by an exception *finishes* the file, and a valid, truncated shard would stand there (300
    of 1,000 rows, when tried). Everything but the constructor may raise BadInput: the disk of temporary files is full.
    """

    def __init__(self, schema: pa.Schema = SCHEMA, row_group_bytes: int = ROW_GROUP_BYTES) -> None:
        """schema: `SCHEMA`, or that with the metadata of `schema.with_metadata`."""
        leave_pandas_out()
        self._schema = schema
        self._row_group_bytes = row_group_bytes
        self._spool = Spool()
        leaves = _leaves(schema)
        self._writer = pq.ParquetWriter(
            pa.PythonFile(self._spool, mode="w"),
            schema,
            compression={leaf: "NONE" if leaf == "image.bytes" else "ZSTD" for leaf in leaves},
            use_dictionary=[leaf for leaf in leaves if leaf not in _UNIQUE],
            # Minimum and maximum of pictures and texts help no reader and fill the footer.
            write_statistics=[leaf for leaf in leaves if leaf not in _UNIQUE],
            write_page_index=True,
        )
        self._pending: list[Mapping[str, Any]] = []
        self._images = _Images(row_group_bytes)
        self._rows = 0
        self._pixels = hashlib.sha256()

    @property
    def rows(self) -> int:
        """Rows added so far."""
        return self._rows

    def add(self, row: Mapping[str, Any]) -> None:
        """Append one row; columns that it lacks become null. Its `lines` are dicts or `DrawnLines`.

        Raises ValueError for a column that the schema lacks.
        """
        unknown = row.keys() - set(self._schema.names)
        if unknown:
            raise ValueError(f"no such column: {', '.join(sorted(unknown))}")
        self._images.add(row.get("image"))
        self._pending.append({**row, "image": None})
        self._rows += 1
        self._pixels.update(f"{row.get('pixels_xxh3') or ''}\n".encode())
        if self._images.bytes >= self._row_group_bytes:
            self._flush()

    def finish(self) -> Shard:
        """Close the file, open it again and count. Raises RuntimeError when it does not hold what was added."""
        self._flush()
        self._writer.close()
        metadata = pq.read_metadata(self._spool.file)
        if metadata.num_rows != self._rows:
            raise RuntimeError(f"the finished shard holds {metadata.num_rows} rows, {self._rows} were added")
        groups = []
        for number in range(metadata.num_row_groups):
            group = metadata.row_group(number)
            columns = [group.column(column) for column in range(group.num_columns)]
            offset = min(
                column.dictionary_page_offset if column.has_dictionary_page else column.data_page_offset
                for column in columns
            )
            size = sum(column.total_compressed_size for column in columns)
            groups.append(RowGroup(rows=group.num_rows, offset=offset, size=size))
        return Shard(
            data=self._spool,
            rows=self._rows,
            sha256=self._spool.sha256,
            pixels_sha256=self._pixels.hexdigest(),
            row_groups=tuple(groups),
        )

    def _flush(self) -> None:
        if self._pending:
            columns = [self._column(field) for field in self._schema]
            table = pa.Table.from_arrays(columns, schema=self._schema)
            self._writer.write_table(table, row_group_size=len(self._pending))
            self._pending = []
            self._images.clear()

    def _column(self, field: pa.Field) -> pa.Array:
        if field.name == "image":
            return self._images.column(field.type)
        values = [row.get(field.name) for row in self._pending]
        return _lists(values, field.type) if field.name == "lines" else pa.array(values, field.type)


class _Images:
    """The picture files of a row group, one behind the other in memory that is used again for the next.

    As an array of Arrow's every file would be copied once more, into memory that the system has to hand out anew.
    """

    def __init__(self, expected_bytes: int) -> None:
        self._expected_bytes = expected_bytes
        self._files = np.empty(0, np.uint8)
        self.clear()

    def clear(self) -> None:
        """Begin anew."""
        self._ends: list[int] = [0]
        self._without: list[tuple[bool, bool]] = []  # picture, file
        self._paths: list[str | None] = []

    @property
    def bytes(self) -> int:
        """Of all files."""
        return self._ends[-1]

    def add(self, image: Mapping[str, Any] | None) -> None:
        """Append the value of a row's `image`."""
        file = None if image is None else image.get("bytes")
        start, end = self.bytes, self.bytes + len(file or b"")
        if end > len(self._files):
            larger = np.empty(max(end, self._expected_bytes + (end - start)), np.uint8)
            larger[:start] = self._files[:start]
            self._files = larger
        self._files[start:end] = np.frombuffer(file or b"", np.uint8)
        self._ends.append(end)
        self._without.append((image is None, file is None))
        self._paths.append(None if image is None else image.get("path"))

    def column(self, kind: pa.StructType) -> pa.StructArray:
        """All of them; valid until the next is added."""
        without_image, without_file = np.array(self._without).T
        buffers = [
            pa.py_buffer(np.packbits(~without_file, bitorder="little")) if without_file.any() else None,
            pa.py_buffer(np.array(self._ends, np.int32)),
            pa.py_buffer(self._files),
        ]
        files = pa.BinaryArray.from_buffers(pa.binary(), len(without_file), buffers, int(without_file.sum()))
        paths = pa.array(self._paths, pa.string())
        return pa.StructArray.from_arrays([files, paths], fields=list(kind), mask=pa.array(without_image))


def _lists(values: Sequence[Any], kind: pa.ListType) -> pa.ListArray:
    """A list for each value: `DrawnLines`, dicts, or None."""
    arrays = []
    for drawn, group in itertools.groupby(values, lambda value: isinstance(value, DrawnLines)):
        some = [value for value in group if value]
        dicts = itertools.chain.from_iterable(some)
        arrays.append(line_array(some) if drawn else pa.array(dicts, kind.value_type))
    offsets = pa.array(np.cumsum([0, *(len(value or ()) for value in values)]), pa.int32())
    missing = pa.array([value is None for value in values], pa.bool_())
    return pa.ListArray.from_arrays(offsets, pa.concat_arrays(arrays), kind, mask=missing)


def build_shard(rows: Iterable[Mapping[str, Any]], schema: pa.Schema = SCHEMA) -> Shard:
    """`rows` as one finished Parquet file."""
    builder = ShardBuilder(schema)
    for row in rows:
        builder.add(row)
    return builder.finish()


def read_table(source: Path | pa.Buffer | bytes, columns: Sequence[str] | None = None) -> pa.Table:
    """A whole Parquet file, or some of its columns. Raises pa.ArrowException when it is damaged.

    In the calling thread: `pyarrow.parquet.read_table` leaves threads of Arrow's pools behind, over which a process on
    a busy machine now and then aborts at its end.
    """
    file = source if isinstance(source, Path) else pa.BufferReader(source)
    with pq.ParquetFile(file, pre_buffer=False) as parquet:
        return parquet.read(columns=columns, use_threads=False)


def _leaves(schema: pa.Schema) -> tuple[str, ...]:
    return _leaves_of(schema.remove_metadata())


@cache
def _leaves_of(schema: pa.Schema) -> tuple[str, ...]:
    """Paths of the columns as Parquet stores them, "lines.list.element.text": options under other names are ignored."""
    sink = pa.BufferOutputStream()
    pq.write_table(schema.empty_table(), sink)
    stored = pq.ParquetFile(pa.BufferReader(sink.getvalue())).schema
    return tuple(stored.column(number).path for number in range(len(stored)))
