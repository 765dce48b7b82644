"""Where the pictures of a shard lie in its file, so that they are decoded from the page cache without a copy between.

Arrow copies a column that it reads, 12 MB a row group: feeding training reached .74 of the decoder's own speed with it
(.81 with `datagen.heap`), .87 to .89 without. Pages of values in full length without compression, as `datagen.shards`
writes pictures, need no more than their headers (Parquet format, PageHeader in Thrift's compact protocol). Whatever
looks otherwise is left to Arrow.
"""

import struct
from typing import Any

_DATA_PAGE, _PLAIN = 0, 0
_STOP, _TRUE, _FALSE, _BYTE, _DOUBLE, _BINARY, _STRUCT = 0, 1, 2, 3, 7, 8, 12
_INTEGERS = (4, 5, 6)
_MAX_DEPTH = 4

_TYPE, _RAW_SIZE, _SIZE, _DATA_HEADER = 1, 2, 3, 5
"""Fields of PageHeader."""
_VALUES, _ENCODING = 1, 2
"""Fields of DataPageHeader."""


def plain_values(file: memoryview, offset: int, values: int) -> list[tuple[int, int]] | None:
    """First byte and end of every value of a column chunk of byte arrays that are optional and not repeated.

    file: the bytes of a Parquet file. offset: of the chunk's first data page. values: how many it has. None when the
    chunk is compressed, encoded, holds nulls or is in any other way not laid out so.
    """
    found: list[tuple[int, int]] = []
    try:
        while len(found) < values:
            header, body = _read_struct(file, offset, 0)
            offset = body + header[_SIZE]
            page = header[_DATA_HEADER]
            if header[_TYPE] != _DATA_PAGE or page[_ENCODING] != _PLAIN or header[_SIZE] != header[_RAW_SIZE]:
                return None
            # Before the values stand the levels that tell nulls; with one of them the values do not fill the page.
            at = body + 4 + _u32(file, body)
            for _ in range(page[_VALUES]):
                start = at + 4
                at = start + _u32(file, at)
                found.append((start, at))
            if at != offset or at > len(file):
                return None
    except (KeyError, IndexError, TypeError, ValueError, struct.error):
        return None
    return found if len(found) == values else None


def _u32(file: memoryview, at: int) -> int:
    value: int = struct.unpack_from("<I", file, at)[0]
    return value


def _varint(file: memoryview, at: int) -> tuple[int, int]:
    value = shift = 0
    while True:
        byte = file[at]
        at += 1
        value |= (byte & 0x7F) << shift
        if byte < 0x80:
            return value, at
        shift += 7
        if shift > 63:
            raise ValueError("no number is that long")


def _read_struct(file: memoryview, at: int, depth: int) -> tuple[dict[int, Any], int]:
    """The integers and structs among the fields, by number, and where what follows begins. Raises ValueError."""
    fields: dict[int, Any] = {}
    if depth > _MAX_DEPTH:
        raise ValueError("no page header is that deep")
    number = 0
    while (head := file[at]) != _STOP:
        at += 1
        kind, step = head & 0x0F, head >> 4
        if step:
            number += step
        else:
            zigzag, at = _varint(file, at)
            number = (zigzag >> 1) ^ -(zigzag & 1)
        if kind in _INTEGERS:
            zigzag, at = _varint(file, at)
            fields[number] = (zigzag >> 1) ^ -(zigzag & 1)
        elif kind == _STRUCT:
            fields[number], at = _read_struct(file, at, depth + 1)
        elif kind == _BINARY:
            length, at = _varint(file, at)
            at += length
        elif kind in (_TRUE, _FALSE):
            fields[number] = int(kind == _TRUE)
        elif kind in (_BYTE, _DOUBLE):
            at += 1 if kind == _BYTE else 8
        else:  # lists and maps stand in no page header
            raise ValueError(f"a field of kind {kind}")
    return fields, at + 1
