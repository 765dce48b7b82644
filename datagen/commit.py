"""Exactly once: what of a run is finished, and how a run that was cut off goes on.

A run folder holds
- `run.json`: what decides every byte of the run (recipe hash, digests of the inputs, library versions), written first;
- `data/` and `rejected/`: shards, `{first 12 digits of the recipe hash}-{shard:08d}.parquet`;
- `_commits/{shard:08d}.json`: written after the files it names are published, so what it names is complete;
- `manifest.parquet`, then `_SUCCESS`: written when every shard is committed. Readers trust the manifest, no listing.

A task may run twice, on two machines at once even: it writes equal bytes under equal names, so nothing is lost or
doubled. Going on after a crash takes one listing of `_commits/`.

Two different runs that start in one folder at the same moment cannot both get it: each first writes a claim into
`_claims/` and then lists them, so at least one sees the other and withdraws. That needs no more of a store than that a
listing shows what was written before it (a disk, S3 and Google's store do).
"""

import collections
import hashlib
from collections.abc import Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass, field
from itertools import islice
from pathlib import Path

import msgspec
import pyarrow as pa
from pyarrow import parquet as pq

from datagen.schema import SCHEMA
from datagen.shards import RowGroup, Shard, read_table
from datagen.storage import Folder
from fonts_manifest.errors import BadInput

RUN = "run.json"
COMMITS = "_commits"
CLAIMS = "_claims"
KEPT = "data"
REJECTED = "rejected"
MANIFEST = "manifest.parquet"
SUCCESS = "_SUCCESS"

_READERS = 32
"""Records read at a time: one GET takes some 20 ms in an object store, and a large run has a million of them."""
_SHARDS_A_BATCH = 2048
"""Shards whose records are in memory at a time."""

JUDGED = pa.struct(
    [
        pa.field("calibration", pa.string()),  # SHA-256 of calibration.json
        pa.field("pages", pa.int64()),  # that were judged
        pa.field("lines", pa.int64()),
        pa.field("lines_read", pa.int64()),  # by OCR, audited ones too
        pa.field("audited_pages", pa.int64()),  # taken at random and read in full
        pa.field("audited_lines", pa.int64()),
        pa.field("pages_false_keep", pa.int64()),  # audited pages that the cascade would have kept and OCR drops
        pa.field("pages_false_drop", pa.int64()),
        pa.field("lines_false_keep", pa.int64()),  # audited lines that the cascade calls legible and OCR does not
        pa.field("lines_false_drop", pa.int64()),
    ]
)
"""What was read of the pages in one file, and how often the cascade erred where OCR looked beside it."""

MANIFEST_SCHEMA = pa.schema(
    [
        pa.field("path", pa.string()),  # relative to the run folder
        pa.field("shard", pa.int32()),
        pa.field("keep", pa.bool_()),  # of every row in the file
        pa.field("rows", pa.int64()),
        pa.field("bytes", pa.int64()),
        pa.field("sha256", pa.string()),
        pa.field("pixels_sha256", pa.string()),
        pa.field(
            "row_groups",
            pa.list_(
                pa.struct([pa.field("rows", pa.int64()), pa.field("offset", pa.int64()), pa.field("size", pa.int64())])
            ),
        ),
        pa.field(
            "reasons", pa.list_(pa.struct([pa.field("reason", pa.string()), pa.field("count", pa.int64())]))
        ),  # of rejected files, sorted by reason
        pa.field("judged", JUDGED),  # null where no cascade judged
    ]
)


@dataclass(frozen=True, slots=True, kw_only=True)
class RunIdentity:
    """Two runs with equal identities write equal bytes."""

    recipe_hash: str
    shards: int
    inputs: dict[str, str] = field(default_factory=dict)
    """Name -> digest of what the recipe only names: fonts, photographs, texts, calibration."""
    versions: dict[str, str] = field(default_factory=dict)
    """Library -> version."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Judged:
    """Counts of the cascade and its audit, see JUDGED."""

    calibration: str
    pages: int
    lines: int
    lines_read: int
    audited_pages: int
    audited_lines: int
    pages_false_keep: int
    pages_false_drop: int
    lines_false_keep: int
    lines_false_drop: int


@dataclass(frozen=True, slots=True, kw_only=True)
class FileRecord:
    """One published file."""

    path: str
    keep: bool
    rows: int
    bytes: int
    sha256: str
    pixels_sha256: str
    row_groups: tuple[RowGroup, ...]
    reasons: dict[str, int] = field(default_factory=dict)
    """Why the rows of a rejected file were rejected."""
    judged: Judged | None = None
    """None where no cascade judged."""


@dataclass(frozen=True, slots=True, kw_only=True)
class CommitRecord:
    """One finished shard."""

    shard: int
    files: tuple[FileRecord, ...]
    seconds: float = 0.0
    """Wall time of its making; not repeated in the manifest, which holds only what is the same in every run."""
    poisoned: tuple[tuple[int, int], ...] = ()
    """(row, attempt) that killed the process whenever they were drawn; they stand among the rejected as "crashed"."""

    @property
    def kept(self) -> int:
        """Rows kept."""
        return sum(file.rows for file in self.files if file.keep)

    @property
    def reasons(self) -> dict[str, int]:
        """Why rows were rejected, how often."""
        return {reason: count for file in self.files for reason, count in file.reasons.items()}


@dataclass(frozen=True, slots=True, kw_only=True)
class RunTotals:
    """What all shards of a finished run hold."""

    kept: int
    reasons: dict[str, int]
    """Why rows were rejected, how often, most frequent first."""
    judged: dict[str, int] | None = None
    """Sums of the counts in JUDGED; None when no cascade judged."""


def shard_path(recipe_hash: str, shard: int, keep: bool) -> str:
    """Where a shard stands in its run folder."""
    return f"{KEPT if keep else REJECTED}/{recipe_hash[:12]}-{shard:08d}.parquet"


def start_run(folder: Folder, identity: RunIdentity) -> frozenset[int]:
    """Claim `folder` for a run, or go on with the same run in it; returns the shards that are finished already.

    Raises BadInput when the folder belongs to a run with another recipe, other inputs or other library versions: its
    shards would not be those that this run makes.
    """
    if not folder.exists(RUN):
        if committed_shards(folder) or folder.exists(MANIFEST):
            raise BadInput(
                f"{folder.name}: holds shards but no {RUN}, so it cannot be gone on with; name another folder"
            )
        _claim(folder, msgspec.json.format(msgspec.json.encode(identity), indent=1))
    before = read_identity(folder)
    differences = _differences(before, identity)
    if differences:
        raise BadInput(
            f"{folder.name}: cannot go on with the run in it: {'; '.join(differences)}. "
            "Name another folder, or remove this one to start over"
        )
    return committed_shards(folder)


def _claim(folder: Folder, identity: bytes) -> None:
    """Publish `identity` as the folder's, unless another was there first. Raises BadInput when two come at once."""
    mine = f"{hashlib.sha256(identity).hexdigest()[:16]}.json"
    folder.publish(f"{CLAIMS}/{mine}", identity)
    others = [name for name in folder.names(CLAIMS) if name != mine]
    # Asked again after the claim: whoever is gone from `_claims` by now has left its identity here.
    if not others and not folder.exists(RUN):
        folder.publish(RUN, identity)
    folder.delete(f"{CLAIMS}/{mine}", missing_ok=True)
    if others and not folder.exists(RUN):
        raise BadInput(
            f"{folder.name}: another run is starting in this folder at this moment; name another folder, or, when "
            f"nothing is running, remove {folder.describe(CLAIMS)}"
        )


def read_identity(folder: Folder) -> RunIdentity:
    """The identity that `start_run` wrote. Raises BadInput when there is none."""
    try:
        return msgspec.json.decode(folder.read(RUN), type=RunIdentity)
    except msgspec.MsgspecError as error:
        raise BadInput(f"{folder.describe(RUN)}: damaged ({error})") from None


def _differences(before: RunIdentity, now: RunIdentity) -> list[str]:
    found = []
    if before.recipe_hash != now.recipe_hash:
        found.append(f"the recipe hash was {before.recipe_hash} and is {now.recipe_hash}")
    elif before.shards != now.shards:
        found.append(f"it had {before.shards} shards and now has {now.shards}")
    for word, old, new in (("digest of", before.inputs, now.inputs), ("version of", before.versions, now.versions)):
        for name in sorted(old.keys() | new.keys()):
            was, is_ = old.get(name, "absent"), new.get(name, "absent")
            if was != is_:
                found.append(f"the {word} {name} was {was[:12]} and is {is_[:12]}")
    return found


def committed_shards(folder: Folder) -> frozenset[int]:
    """Numbers of the finished shards, by one listing."""
    stems = (name.removesuffix(".json") for name in folder.names(COMMITS) if name.endswith(".json"))
    return frozenset(int(stem) for stem in stems if stem.isdigit())


def publish_shard(
    folder: Folder,
    recipe_hash: str,
    shard: int,
    kept: Shard | None,
    rejected: Shard | None = None,
    reasons: Mapping[str, int] | None = None,
    seconds: float = 0.0,
    poisoned: Iterable[tuple[int, int]] = (),
    judged: Mapping[bool, Judged | None] | None = None,
) -> CommitRecord:
    """Publish the files of one shard, then its commit record. A shard of no rows (None) leaves no file.

    reasons: why the rows of `rejected` were rejected, how often. judged: of the kept rows (True) and the rejected
    ones (False). Raises BadInput when the disk is full.
    """
    files = []
    for built, keep in ((kept, True), (rejected, False)):
        if built is None or not built.rows:
            continue
        path = shard_path(recipe_hash, shard, keep)
        folder.publish(path, built.data)
        files.append(
            FileRecord(
                path=path,
                keep=keep,
                rows=built.rows,
                bytes=built.data.size,
                sha256=built.sha256,
                pixels_sha256=built.pixels_sha256,
                row_groups=built.row_groups,
                reasons={} if keep else dict(sorted((reasons or {}).items())),
                judged=(judged or {}).get(keep),
            )
        )
    record = CommitRecord(shard=shard, files=tuple(files), seconds=round(seconds, 3), poisoned=tuple(poisoned))
    folder.publish(f"{COMMITS}/{shard:08d}.json", msgspec.json.encode(record))
    return record


def read_commit(folder: Folder, shard: int) -> CommitRecord:
    """The record of a finished shard. Raises BadInput when there is none or it is damaged."""
    path = f"{COMMITS}/{shard:08d}.json"
    try:
        record = msgspec.json.decode(folder.read(path), type=CommitRecord)
    except msgspec.MsgspecError as error:
        raise BadInput(f"{folder.describe(path)}: damaged ({error})") from None
    for file in record.files:
        if Path(file.path).is_absolute() or ".." in Path(file.path).parts:
            raise BadInput(f"{folder.describe(path)}: names a file outside the run folder ({file.path})")
    return record


def finish_run(folder: Folder, shards: int) -> RunTotals:
    """Write the manifest, then `_SUCCESS`, unless they are there. Memory stays flat but for the manifest itself.

    Raises BadInput when one of the `shards` shards is not committed.
    """
    if not folder.exists(SUCCESS):
        there = committed_shards(folder)
        missing = [shard for shard in range(shards) if shard not in there]
        if missing:
            raise BadInput(
                f"{folder.name}: {len(missing)} of {shards} shards are not finished, the first is {missing[0]}"
            )
        sink = pa.BufferOutputStream()
        writer = pq.ParquetWriter(sink, MANIFEST_SCHEMA, compression="zstd")
        for records in read_commits(folder, shards):
            writer.write_table(_manifest(records))
        writer.close()
        folder.publish(MANIFEST, sink.getvalue())
        folder.publish(SUCCESS, b"")
    return run_totals(folder)


def read_commits(folder: Folder, shards: int) -> Iterator[list[CommitRecord]]:
    """The records of shards 0 to `shards` - 1 in order, some thousand at a time, many read at once."""
    with ThreadPoolExecutor(_READERS) as readers:
        numbers = iter(range(shards))
        while batch := list(islice(numbers, _SHARDS_A_BATCH)):
            yield list(readers.map(lambda shard: read_commit(folder, shard), batch))


def run_totals(run: Folder | Path | str) -> RunTotals:
    """What a finished run holds, by its manifest alone. Raises BadInput when it is not finished."""
    manifest = read_manifest(run)
    kept = int(manifest["rows"].to_numpy()[manifest["keep"].to_numpy()].sum())
    reasons: collections.Counter[str] = collections.Counter()
    for of_file in manifest["reasons"].to_pylist():
        reasons.update({entry["reason"]: entry["count"] for entry in of_file})
    judged: collections.Counter[str] = collections.Counter()
    for of_file in filter(None, manifest["judged"].to_pylist()):
        judged.update({name: count for name, count in of_file.items() if name != "calibration"})
    return RunTotals(
        kept=kept,
        reasons=dict(sorted(reasons.items(), key=lambda item: (-item[1], item[0]))),
        judged=dict(judged) or None,
    )


def _manifest(records: Iterable[CommitRecord]) -> pa.Table:
    rows = [
        {
            "path": file.path,
            "shard": record.shard,
            "keep": file.keep,
            "rows": file.rows,
            "bytes": file.bytes,
            "sha256": file.sha256,
            "pixels_sha256": file.pixels_sha256,
            "row_groups": [
                {"rows": group.rows, "offset": group.offset, "size": group.size} for group in file.row_groups
            ],
            "reasons": [{"reason": reason, "count": count} for reason, count in sorted(file.reasons.items())],
            "judged": None if file.judged is None else asdict(file.judged),
        }
        for record in records
        for file in record.files
    ]
    return pa.Table.from_pylist(rows, schema=MANIFEST_SCHEMA)


def is_finished(run: Folder | Path | str) -> bool:
    """Whether the run in this folder has ended well."""
    return _folder(run).exists(SUCCESS)


def read_manifest(run: Folder | Path | str) -> pa.Table:
    """The files of a finished run (`MANIFEST_SCHEMA`), kept before rejected within a shard. Raises BadInput."""
    folder = _folder(run)
    if not is_finished(folder):
        raise BadInput(
            f"{folder.name}: no finished run ({SUCCESS} is missing); run the command that makes it to its end"
        )
    try:
        table = read_table(folder.read(MANIFEST))
    except pa.ArrowException as error:
        raise BadInput(f"{folder.describe(MANIFEST)}: damaged ({error})") from None
    if not table.schema.equals(MANIFEST_SCHEMA):
        raise BadInput(f"{folder.describe(MANIFEST)}: is no manifest of this version")
    return table


def read_rows(run: Folder | Path | str, columns: Sequence[str] | None = None, keep: bool | None = None) -> pa.Table:
    """Rows of a finished run in order of shards: all, or only kept (True) or rejected (False) ones.

    All in memory at once, pictures too unless `columns` leaves them out: for reports and tests, not for training.
    """
    folder = _folder(run)
    manifest = read_manifest(folder)
    if keep is not None:
        manifest = manifest.filter(pa.array(manifest["keep"].to_numpy() == keep))
    tables = []
    for path in manifest["path"].to_pylist():
        try:
            tables.append(read_table(folder.read(path), columns=columns))
        except pa.ArrowException as error:
            raise BadInput(f"{folder.describe(path)}: damaged ({error})") from None
    if not tables:
        return SCHEMA.empty_table() if columns is None else SCHEMA.empty_table().select(columns)
    # Files of one run carry metadata of their own only where shards differ; the columns are the same.
    return pa.concat_tables([table.replace_schema_metadata(None) for table in tables])


def gc(run: Folder | Path | str) -> list[str]:
    """Remove what was written but never committed, and files whose writing was cut off; returns their paths.

    Not while a run is writing here: what it has published and not yet committed would go.
    """
    folder = _folder(run)
    named = {file.path for shard in committed_shards(folder) for file in read_commit(folder, shard).files}
    doomed = [f"{sub}/{name}" for sub in (KEPT, REJECTED) for name in folder.names(sub) if f"{sub}/{name}" not in named]
    doomed += [f"{sub}/{name}" for sub in (KEPT, REJECTED, COMMITS, CLAIMS, ".") for name in folder.unfinished(sub)]
    doomed += [f"{CLAIMS}/{name}" for name in folder.names(CLAIMS)]
    for path in doomed:
        folder.delete(path, missing_ok=True)
    return doomed


def _folder(run: Folder | Path | str) -> Folder:
    return run if isinstance(run, Folder) else Folder(str(run))
