"""Rows of a finished run by what they are: all of them without pictures, or a few with theirs. Memory stays small."""

from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import numpy.typing as npt
import pyarrow as pa
from pyarrow import compute as pc
from pyarrow import parquet as pq

from datagen.codec import decode_png
from datagen.commit import read_manifest, read_rows
from datagen.storage import Folder


def light_rows(run: str | Path, columns: Sequence[str]) -> list[dict[str, Any]]:
    """All rows of a run, kept and rejected, without pictures."""
    rows: list[dict[str, Any]] = read_rows(str(run), columns=list(columns)).to_pylist()
    return rows


def rows_by_id(run: str | Path, row_ids: Iterable[str]) -> dict[str, dict[str, Any]]:
    """The whole rows of `row_ids`, pictures included; only the row groups that hold them are read."""
    wanted = pa.array(sorted(set(row_ids)), pa.string())
    found: dict[str, dict[str, Any]] = {}
    if not len(wanted):
        return found
    folder = Folder(str(run))
    for path in read_manifest(folder)["path"].to_pylist():
        with folder.open(path) as file:
            parquet = pq.ParquetFile(file)
            for group in range(parquet.num_row_groups):
                here = pc.is_in(parquet.read_row_group(group, columns=["row_id"])["row_id"], wanted)
                if pc.any(here).as_py():
                    rows = parquet.read_row_group(group).filter(here).to_pylist()
                    found |= {row["row_id"]: row for row in rows}
    return found


def spread(rows: Sequence[Any], count: int) -> list[Any]:
    """At most `count` of `rows` at even distances: the same ones every time."""
    picked = np.unique(np.linspace(0, len(rows) - 1, min(count, len(rows))).round().astype(int))
    return [rows[number] for number in picked]


def picture_of(row: dict[str, Any]) -> npt.NDArray[np.uint8] | None:
    """The picture of a row, uint8 (H, W, 3); None where it has none."""
    data = (row.get("image") or {}).get("bytes")
    return None if data is None else decode_png(data)


def with_boxes(image_HW3: npt.NDArray[np.uint8], lines: Sequence[dict[str, Any]]) -> npt.NDArray[np.uint8]:
    """A copy of the picture with the quad of every line drawn over it, its start side in red."""
    drawn_HW3 = image_HW3.copy()
    width = max(1, round(max(image_HW3.shape[:2]) / 700))
    for line in lines:
        if line["quad_px"] is None:
            continue
        quad_42 = np.round(np.asarray(line["quad_px"], np.float64).reshape(4, 2)).astype(np.int32)
        cv2.polylines(drawn_HW3, [quad_42], True, (0, 120, 255), width, cv2.LINE_AA)
        cv2.line(drawn_HW3, quad_42[0].tolist(), quad_42[3].tolist(), (230, 30, 60), 2 * width, cv2.LINE_AA)
    return drawn_HW3
