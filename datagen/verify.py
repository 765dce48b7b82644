"""Is a finished run whole? Files against the manifest, rows against their addresses, pictures against their specs."""

import collections
import hashlib
from itertools import groupby
from pathlib import Path
from typing import Any

import numpy as np
import yaml
from pyarrow import compute as pc

from datagen.audit import JUDGED_COLUMNS, judged_of
from datagen.codec import decode_png, pixels_digest
from datagen.commit import KEPT, MANIFEST, REJECTED, Judged, read_identity, read_manifest
from datagen.decode import ImageProblem
from datagen.plan import FONTS, RECIPE
from datagen.redraw import RunAssets
from datagen.seeds import rng_for_run
from datagen.shards import read_table
from datagen.storage import Folder
from fonts_manifest.errors import BadInput

_VERIFY = 2  # purpose of rng_for_run
_Attempts = dict[bool, dict[tuple[int, int], set[int]]]
"""Kept or not -> (shard, row) -> attempts seen."""
_CHECKED = ["row_id", "source", "shard", "row", "attempt", "keep", "reason", "pixels_xxh3"]


def verify_run(run: Folder | Path | str, sample: int = 20) -> str:
    """Check a finished run and say in a sentence what was checked.

    The manifest: every shard of the run's identity is in it, every file once, and the rows kept are those that the
    recipe asks for. Every file: its size, SHA-256, rows, digest of the pixels, what was audited. Every row: kept or
    rejected as its file says, its id unique; synthetic rows: each address kept exactly once, every earlier attempt
    rejected beside it. `sample` rows, the same ones every time: the stored picture decodes to its digest and, when
    synthetic, is drawn again equal. Shards are looked at one by one, so memory does not grow with the rows of synthetic
    pictures.
    Raises BadInput with the first thing that is wrong.
    """
    folder = run if isinstance(run, Folder) else Folder(str(run))
    manifest = read_manifest(folder).to_pylist()
    _check_manifest(folder, manifest)
    ids: set[str] = set()  # of real files; those of synthetic rows are their addresses
    rejected = 0
    with_picture: list[tuple[str, int]] = []  # file, its pictures
    for _, files in groupby(manifest, key=lambda file: file["shard"]):
        attempts: _Attempts = {keep: collections.defaultdict(set) for keep in (True, False)}
        for file in files:
            rows = _checked_file(folder, file)
            for number, row in enumerate(rows):
                _check_row(row, file, f"{folder.describe(file['path'])}, row {number}", ids, attempts)
            rejected += 0 if file["keep"] else len(rows)
            with_picture.append((file["path"], sum(bool(row["pixels_xxh3"]) for row in rows)))
        _check_addresses(folder, attempts)
    redrawn, decoded = _check_sample(folder, with_picture, sample)
    known = {file["path"] for file in manifest}
    strangers = [name for sub in (KEPT, REJECTED) for name in folder.names(sub) if f"{sub}/{name}" not in known]
    kept = sum(file["rows"] for file in manifest if file["keep"])
    return (
        f"{folder.name}: whole: {len(manifest)} files, {kept:,} rows kept, {rejected:,} rejected; "
        f"{decoded} pictures decoded, {redrawn} of them drawn again, pixel for pixel equal"
        + (f"; {len(strangers)} files belong to no run, `glyphmill gc` removes them" if strangers else "")
    )


def _check_manifest(folder: Folder, manifest: list[dict[str, Any]]) -> None:
    """Every shard is there, no file twice, and as many rows are kept as the recipe says."""
    name = folder.describe(MANIFEST)
    identity = read_identity(folder)
    missing = set(range(identity.shards)) - {file["shard"] for file in manifest}
    if missing:
        raise BadInput(f"{name}: {len(missing)} of {identity.shards} shards are not in it, the first is {min(missing)}")
    if len({file["path"] for file in manifest}) != len(manifest):
        raise BadInput(f"{name}: names a file twice")
    if any(file["shard"] >= identity.shards or not _is_inside(file["path"]) for file in manifest):
        raise BadInput(f"{name}: names a file that is none of this run's")
    recipe = yaml.safe_load(folder.read(RECIPE)) if folder.exists(RECIPE) else None
    if isinstance(recipe, dict) and recipe.get("kind") == "generate":
        kept = sum(file["rows"] for file in manifest if file["keep"])
        if kept != recipe.get("rows"):
            raise BadInput(f"{name}: {kept} rows are kept, the recipe asks for {recipe.get('rows')}")


def _is_inside(path: str) -> bool:
    return path.startswith((f"{KEPT}/", f"{REJECTED}/")) and ".." not in path


def _check_row(row: dict[str, Any], file: dict[str, Any], what: str, ids: set[str], attempts: _Attempts) -> None:
    if row["keep"] != file["keep"] or (row["reason"] == "") != row["keep"]:
        raise BadInput(f"{what}: kept is {row['keep']} and its reason {row['reason']!r}, which its file belies")
    if row["source"] == "synthetic":
        if row["shard"] != file["shard"] or not row["row_id"].endswith(
            f"-{row['shard']}-{row['row']}-{row['attempt']}"
        ):
            raise BadInput(f"{what}: the id {row['row_id']} is not that of its address in shard {file['shard']}")
        if row["attempt"] in attempts[row["keep"]][row["shard"], row["row"]]:
            raise BadInput(f"{what}: the id {row['row_id']} stands in the run twice")
        attempts[row["keep"]][row["shard"], row["row"]].add(row["attempt"])
        return
    if row["row_id"] in ids:
        raise BadInput(f"{what}: the id {row['row_id']} stands in the run twice")
    ids.add(row["row_id"])


def _checked_file(folder: Folder, file: dict[str, Any]) -> list[dict[str, Any]]:
    path = str(file["path"])
    raw = folder.read(path)
    name = folder.describe(path)
    if len(raw) != file["bytes"] or hashlib.sha256(raw).hexdigest() != file["sha256"]:
        raise BadInput(f"{name}: its {len(raw)} bytes are not those that the manifest names; make the run again")
    judged = [] if file["judged"] is None else [name for name in JUDGED_COLUMNS if name not in _CHECKED]
    rows: list[dict[str, Any]] = read_table(raw, columns=_CHECKED + judged).to_pylist()
    if len(rows) != file["rows"]:
        raise BadInput(f"{name}: holds {len(rows)} rows, the manifest says {file['rows']}")
    digest = hashlib.sha256("".join(f"{row['pixels_xxh3'] or ''}\n" for row in rows).encode()).hexdigest()
    if digest != file["pixels_sha256"]:
        raise BadInput(f"{name}: the digest of its pixels is not the one in the manifest")
    if judged and judged_of(rows, file["judged"]["calibration"]) != Judged(**file["judged"]):
        raise BadInput(f"{name}: what was read and audited is not what the manifest says")
    return rows


def _check_addresses(folder: Folder, attempts: _Attempts) -> None:
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


def _check_sample(folder: Folder, files: list[tuple[str, int]], sample: int) -> tuple[int, int]:
    """files: (path, rows with a picture). Returns how many were drawn again, and how many decoded."""
    total = sum(pictures for _, pictures in files)
    count = min(sample, total)
    chosen = sorted(rng_for_run(0, _VERIFY).choice(total, count, replace=False).tolist()) if count else []
    by_file: dict[str, list[int]] = {}
    start = 0
    for path, pictures in files:
        of_file = [number - start for number in chosen if start <= number < start + pictures]
        if of_file:
            by_file[path] = of_file
        start += pictures
    assets = RunAssets(folder) if folder.exists(FONTS) else None
    redrawn = 0
    for path, numbers in by_file.items():
        columns = ["image", "spec", "pixels_xxh3"]
        table = read_table(folder.read(path), columns=columns)
        table = table.filter(pc.is_valid(table["pixels_xxh3"])).take(numbers)
        for number, row in zip(numbers, table.to_pylist(), strict=True):
            what = f"{folder.describe(path)}, picture {number}"
            try:
                stored_HW3 = decode_png(row["image"]["bytes"])
            except ImageProblem as problem:
                raise BadInput(f"{what}: its picture does not decode ({problem})") from None
            if pixels_digest(stored_HW3) != row["pixels_xxh3"]:
                raise BadInput(f"{what}: its picture is not the one whose digest stands in the row")
            if row["spec"] is not None and assets is not None:
                if not np.array_equal(assets.draw(row["spec"], what), stored_HW3):
                    raise BadInput(f"{what}: drawn again it differs; a library has changed since the run")
                redrawn += 1
    return redrawn, count
