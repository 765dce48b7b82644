"""The lines of drawn pages -> columns of Arrow, all lines of a row group at once."""

import itertools
import operator
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from datagen.schema import LINE
from render_engine.spec import RenderedLine

_FLOATS = ("size_px", "ink_height_px", "contrast", "clutter", "opacity")
_STRINGS = ("text", "lang", "face_id")
_floats_of, _strings_of = operator.attrgetter(*_FLOATS), operator.attrgetter(*_STRINGS)


@dataclass(frozen=True, slots=True, kw_only=True)
class DrawnLines:
    """`lines` of a row, not yet in Arrow: as dicts 60 lines of a page took twice as long on their way to a file."""

    lines: tuple[RenderedLine, ...]
    roles: tuple[str, ...]
    """Of every line's block."""
    read_ned: tuple[float | None, ...] | None = None
    """None when no line was read."""
    clean_ned: tuple[float | None, ...] | None = None
    legibility: tuple[float, ...] | None = None
    """None without a model."""

    def __len__(self) -> int:
        """Lines."""
        return len(self.lines)

    @property
    def lines_read(self) -> int:
        """How many were read."""
        return sum(ned is not None for ned in self.read_ned or ())


def line_array(pages: Sequence[DrawnLines]) -> pa.StructArray:
    """The lines of all pages as `schema.LINE`, one behind the other."""
    lines = [line for page in pages for line in page.lines]
    columns: dict[str, Any] = {
        "role": list(itertools.chain.from_iterable(page.roles for page in pages)),
        "block": np.fromiter((line.block for line in lines), np.int32, len(lines)),
        "quad_px": _numbers([line.quad_px for line in lines], 8),
        "ink_rgb": _numbers([line.ink_rgb for line in lines], 3),
        "ground_rgb": _numbers([line.ground_rgb for line in lines], 3),
    }
    columns |= zip(_FLOATS, _numbers(list(map(_floats_of, lines)), len(_FLOATS)).T, strict=True)
    columns |= zip(_STRINGS, zip(*map(_strings_of, lines), strict=True), strict=False)
    for name in ("read_ned", "clean_ned", "legibility"):
        of_pages = [getattr(page, name) for page in pages]
        if any(of_page is not None for of_page in of_pages):
            parts = (of_page or (None,) * len(page) for page, of_page in zip(pages, of_pages, strict=True))
            columns[name] = list(itertools.chain.from_iterable(parts))
    arrays = [_array(columns.get(field.name), field.type, len(lines)) for field in LINE]
    return pa.StructArray.from_arrays(arrays, fields=list(LINE))


def _numbers(rows: Sequence[tuple[float, ...]], width: int) -> npt.NDArray[np.float64]:
    """(rows, width)."""
    flat = itertools.chain.from_iterable(rows)
    return np.fromiter(flat, np.float64, len(rows) * width).reshape(-1, width)


def _array(values: Any, kind: pa.DataType, length: int) -> pa.Array:
    if values is None:
        return pa.nulls(length, kind)
    if pa.types.is_fixed_size_list(kind):
        flat = values.astype(kind.value_type.to_pandas_dtype()).ravel()
        return pa.FixedSizeListArray.from_arrays(pa.array(flat), type=kind)
    if isinstance(values, np.ndarray):
        values = np.ascontiguousarray(values, kind.to_pandas_dtype())
    return pa.array(values, kind)
