"""Is a finished run whole? Files against the manifest, rows against their addresses, pictures against their specs."""

import collections
import hashlib
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
from pyarrow import parquet as pq

from datagen.codec import decode_png
from datagen.commit import KEPT, REJECTED, read_manifest
from datagen.decode import ImageProblem
from datagen.plan import FONTS
from datagen.redraw import RunAssets
from datagen.seeds import rng_for_run
from datagen.storage import Folder
from fonts_manifest.errors import BadInput

_VERIFY = 2  # purpose of rng_for_run
_CHECKED = ["row_id", "source", "shard", "row", "attempt", "keep", "reason", "pixels_sha256"]


def verify_run(run: Folder | Path | str, sample: int = 20) -> str:
    """Check a finished run and say in a sentence what was checked.

    Every file: its size, SHA-256, number of rows, digest of the pixels. Every row: kept or rejected as its file says,
    its id unique; synthetic rows: each address kept exactly once, every earlier attempt rejected beside it. `sample`
    rows, the same ones every time: the stored picture decodes to its digest and, when synthetic, is drawn again equal.
    Raises BadInput with the first thing that is wrong.
    """
    folder = run if isinstance(run, Folder) else Folder(str(run))
    manifest = read_manifest(folder).to_pylist()
    ids: set[str] = set()
    attempts: dict[bool, dict[tuple[int, int], set[int]]] = {
        keep: collections.defaultdict(set) for keep in (True, False)
    }
    with_picture: list[tuple[str, int]] = []
    for file in manifest:
        rows = _checked_file(folder, file)
        for number, row in enumerate(rows):
            what = f"{folder.describe(file['path'])}, row {number}"
            if row["keep"] != file["keep"] or (row["reason"] == "") != row["keep"]:
                raise BadInput(f"{what}: kept is {row['keep']} and its reason {row['reason']!r}, which its file belies")
            if row["row_id"] in ids:
                raise BadInput(f"{what}: the id {row['row_id']} stands in the run twice")
            ids.add(row["row_id"])
            if row["source"] == "synthetic":
                attempts[row["keep"]][row["shard"], row["row"]].add(row["attempt"])
            if row["pixels_sha256"]:
                with_picture.append((file["path"], number))
    _check_addresses(folder, attempts)
    redrawn = _check_sample(folder, with_picture, sample)
    known = {file["path"] for file in manifest}
    strangers = [name for sub in (KEPT, REJECTED) for name in folder.names(sub) if f"{sub}/{name}" not in known]
    kept = sum(file["rows"] for file in manifest if file["keep"])
    return (
        f"{folder.name}: whole: {len(manifest)} files, {kept:,} rows kept, {len(ids) - kept:,} rejected; "
        f"{min(sample, len(with_picture))} pictures decoded, {redrawn} of them drawn again, pixel for pixel equal"
        + (f"; {len(strangers)} files belong to no run, `glyphmill gc` removes them" if strangers else "")
    )


def _checked_file(folder: Folder, file: dict[str, Any]) -> list[dict[str, Any]]:
    path = str(file["path"])
    raw = folder.read(path)
    name = folder.describe(path)
    if len(raw) != file["bytes"] or hashlib.sha256(raw).hexdigest() != file["sha256"]:
        raise BadInput(f"{name}: its {len(raw)} bytes are not those that the manifest names; make the run again")
    rows: list[dict[str, Any]] = pq.read_table(pa.BufferReader(raw), columns=_CHECKED).to_pylist()
    if len(rows) != file["rows"]:
        raise BadInput(f"{name}: holds {len(rows)} rows, the manifest says {file['rows']}")
    digest = hashlib.sha256("".join(f"{row['pixels_sha256'] or ''}\n" for row in rows).encode()).hexdigest()
    if digest != file["pixels_sha256"]:
        raise BadInput(f"{name}: the digest of its pixels is not the one in the manifest")
    return rows


def _check_addresses(folder: Folder, attempts: dict[bool, dict[tuple[int, int], set[int]]]) -> None:
    kept, rejected = attempts[True], attempts[False]
    per_shard: dict[int, int] = collections.Counter(shard for shard, _ in kept)
    for (shard, row), of_row in kept.items():
        if len(of_row) != 1:
            raise BadInput(f"{folder.name}: row {row} of shard {shard} is kept {len(of_row)} times")
        if row >= per_shard[shard]:
            raise BadInput(f"{folder.name}: shard {shard} holds {per_shard[shard]} rows, yet one is numbered {row}")
        if rejected.get((shard, row), set()) != set(range(min(of_row))):
            raise BadInput(f"{folder.name}: the rejected attempts of row {row} of shard {shard} are not complete")
    lost = rejected.keys() - kept.keys()
    if lost:
        shard, row = min(lost)
        raise BadInput(f"{folder.name}: row {row} of shard {shard} was rejected and never kept")


def _check_sample(folder: Folder, candidates: list[tuple[str, int]], sample: int) -> int:
    """How many were drawn again."""
    count = min(sample, len(candidates))
    chosen = sorted(rng_for_run(0, _VERIFY).choice(len(candidates), count, replace=False).tolist()) if count else []
    by_file: dict[str, list[int]] = collections.defaultdict(list)
    for number in chosen:
        path, row = candidates[number]
        by_file[path].append(row)
    assets = RunAssets(folder) if folder.exists(FONTS) else None
    redrawn = 0
    for path, numbers in by_file.items():
        columns = ["image", "spec", "pixels_sha256"]
        table = pq.read_table(pa.BufferReader(folder.read(path)), columns=columns).take(numbers)
        for number, row in zip(numbers, table.to_pylist(), strict=True):
            what = f"{folder.describe(path)}, row {number}"
            try:
                stored_HW3 = decode_png(row["image"]["bytes"])
            except ImageProblem as problem:
                raise BadInput(f"{what}: its picture does not decode ({problem})") from None
            if hashlib.sha256(stored_HW3.tobytes()).hexdigest() != row["pixels_sha256"]:
                raise BadInput(f"{what}: its picture is not the one whose digest stands in the row")
            if row["spec"] is not None and assets is not None:
                if not np.array_equal(assets.draw(row["spec"], what), stored_HW3):
                    raise BadInput(f"{what}: drawn again it differs; a library has changed since the run")
                redrawn += 1
    return redrawn
