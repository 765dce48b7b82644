"""Pictures stored in a finished run: which rows a source takes, and the n-th of them in an order of the seed.

Philox permutes the row groups of an epoch, then the rows inside windows of row groups: the n-th picture of a source is
a function of (seed, source, n), and each row group is read about once an epoch.

Legend: H W pixels, L lines.
"""

import functools
import hashlib
import itertools
import mmap
from bisect import bisect_right
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.parquet as pq

from datagen.decode import ImageProblem
from datagen.pages import plain_values
from datagen.shards import read_table
from fonts_manifest.errors import BadInput
from vae.batch import Shape
from vae.source import NO_QUADS, Picture, SourceConfig, hold_out_key, hold_out_limit

WINDOW_GROUPS = 4
"""Row groups whose rows are shuffled together: 4 of 8 to 16 MiB are held in memory, each is read once an epoch."""

KEPT_BYTES = 64 << 20
"""A source whose pixels take no more is decoded once: a few whole pages come again and again for small crops."""


@dataclass(frozen=True, slots=True)
class RowGroupRows:
    """The rows of one row group that a source uses."""

    path: Path
    group: int
    rows: npt.NDArray[np.int64]


@dataclass(frozen=True, slots=True)
class StoredSource:
    """The rows of a run that passed a source's filter, split into those for training and those held out (`Source`)."""

    name: str
    train: tuple[RowGroupRows, ...]
    held_out: tuple[RowGroupRows, ...]
    too_small: int
    other_density: int
    digest: str
    """Of the row ids in order, held out ones marked."""
    train_bytes: int
    """Of the pixels of all pictures to train on."""
    shuffle: bool = True

    @property
    def train_rows(self) -> int:
        """Pictures to train on."""
        return sum(len(group.rows) for group in self.train)

    @property
    def held_out_rows(self) -> int:
        """Pictures never trained on."""
        return sum(len(group.rows) for group in self.held_out)

    def reader(self, seed: int, number: int, *, with_quads: bool = False, apart: bool = True) -> "StoredReader":
        """The pictures to train on, epoch after epoch; decoding what stands in a run needs no process of its own."""
        keep = self.train_bytes <= KEPT_BYTES
        return StoredReader(self.train, seed, number, with_quads=with_quads, shuffle=self.shuffle, keep=keep)

    def held_out_reader(self) -> "StoredReader":
        """The pictures held out, as they are stored."""
        return StoredReader(self.held_out, 0, 0, shuffle=False)

    def finish(self) -> None:
        """Nothing was written."""


def open_stored(config: SourceConfig, run: Path, shapes: Sequence[Shape], hold_out: float) -> list[StoredSource]:
    """Read the small columns of a finished run (no picture) and choose the rows from which each shape can be cropped.

    hold_out: share of rows that are never trained on, 0 to 1; when it is above 0 at least one of the rows of the first
    shape is held out, and what is held out there is held out from every shape.
    Raises BadInput when there is no finished run, a shard is damaged, or nothing is left to train on.
    """
    columns = ["row_id", "source", "origin", "width", "height", "characters", "characters_per_mp"]
    groups: list[_Group] = []
    for path in _kept_files(run):
        for number, table in enumerate(_read_groups(path, columns)):
            ids, kinds, origins = (table[name].to_pylist() for name in ("row_id", "source", "origin"))
            keys = np.array([hold_out_key(*row) for row in zip(kinds, ids, origins, strict=True)], np.float64)
            wanted = np.ones(len(table), bool) if config.density is None else _of_density(table, config.density)
            size_N2 = np.stack([_numbers(table, "height"), _numbers(table, "width")], axis=1)
            groups.append(_Group(RowGroupRows(path, number, np.arange(len(table))), ids, keys, wanted, size_N2))
    first = np.concatenate([g.keys[g.fitting(shapes[0]) & g.wanted] for g in groups]) if groups else np.empty(0)
    limit = hold_out_limit(first, hold_out)
    return [_fitting_rows(config, groups, shape, limit) for shape in shapes]


@dataclass(frozen=True, slots=True)
class _Group:
    """What is known of the rows of a row group before any picture is read."""

    place: RowGroupRows
    ids: list[str]
    keys: npt.NDArray[np.float64]
    wanted: npt.NDArray[np.bool_]
    size_N2: npt.NDArray[np.float64]

    def fitting(self, shape: Shape) -> npt.NDArray[np.bool_]:
        return np.all(self.size_N2 >= shape, axis=1)

    def rows(self, chosen: npt.NDArray[np.bool_]) -> tuple[RowGroupRows, ...]:
        found = np.flatnonzero(chosen)
        return (RowGroupRows(self.place.path, self.place.group, found),) if len(found) else ()


def _fitting_rows(config: SourceConfig, groups: Sequence[_Group], shape: Shape, limit: float) -> StoredSource:
    digest = hashlib.sha256()
    train: list[RowGroupRows] = []
    held_out: list[RowGroupRows] = []
    too_small = other_density = train_bytes = 0
    for group in groups:
        large = group.fitting(shape)
        chosen = large & group.wanted
        too_small += int((~large).sum())
        other_density += int((large & ~group.wanted).sum())
        for row in np.flatnonzero(chosen):
            digest.update(group.ids[row].encode() + (b"\n" if group.keys[row] >= limit else b" held out\n"))
        trained = chosen & (group.keys >= limit)
        train_bytes += 3 * int(group.size_N2[trained].prod(1).sum())
        train += group.rows(trained)
        held_out += group.rows(chosen & (group.keys < limit))
    source = StoredSource(
        name=config.name,
        train=tuple(train),
        held_out=tuple(held_out),
        too_small=too_small,
        other_density=other_density,
        digest=digest.hexdigest(),
        train_bytes=train_bytes,
        shuffle=config.shuffle,
    )
    if not source.train_rows:
        size = f"{shape[0]} px" if shape[0] == shape[1] else f"{shape[1]}x{shape[0]} px"
        raise BadInput(
            f"source {config.name}: {config.run} has no rows to train on ({too_small} pictures are smaller than "
            f"{size}, {other_density} have another text density, {source.held_out_rows} are held out)"
        )
    return source


def _kept_files(run: Path) -> list[Path]:
    manifest = run / "manifest.parquet"
    if not manifest.is_file():
        raise BadInput(
            f"{run}: no finished run (manifest.parquet is missing); run the command that makes it to its end"
        )
    try:
        table = read_table(manifest, columns=["path", "keep"])
    except (pa.ArrowException, OSError) as error:
        raise BadInput(f"{manifest}: damaged ({error})") from error
    files = []
    for name, keep in zip(table["path"].to_pylist(), table["keep"].to_pylist(), strict=True):
        path = run / name
        if not path.resolve().is_relative_to(run.resolve()):
            raise BadInput(f"{manifest}: names a file outside the run folder ({name})")
        if keep:
            files.append(path)
    return files


def _read_groups(path: Path, columns: list[str]) -> Iterable[pa.Table]:
    try:
        with pq.ParquetFile(path) as file:
            for number in range(file.num_row_groups):
                yield file.read_row_group(number, columns=columns)
    except (pa.ArrowException, OSError) as error:
        raise BadInput(f"{path}: cannot be read as a shard ({error})") from error


def _numbers(table: pa.Table, name: str) -> npt.NDArray[np.float64]:
    return np.array(table[name].to_pylist(), np.float64)


def _of_density(table: pa.Table, wanted: Sequence[str]) -> npt.NDArray[np.bool_]:
    from datagen.density import density_class  # brings OpenCV: only where it is asked for

    pairs = zip(table["characters"].to_pylist(), table["characters_per_mp"].to_pylist(), strict=True)
    return np.array([n is not None and density_class(n, per_mp) in wanted for n, per_mp in pairs], bool)


class StoredReader:
    """Pictures of a list of row groups by ordinal: epoch after epoch, each in an order of its own when shuffled."""

    def __init__(
        self,
        groups: tuple[RowGroupRows, ...],
        seed: int,
        source: int,
        *,
        with_quads: bool = False,
        shuffle: bool = True,
        keep: bool = False,
    ) -> None:
        """keep: whether pictures stay decoded."""
        self.groups = groups
        self.seed = seed
        self.source = source
        self.with_quads = with_quads
        self.shuffle = shuffle
        self.sizes = np.array([len(group.rows) for group in groups], np.int64)
        self.rows = int(self.sizes.sum())
        self._epoch = functools.lru_cache(maxsize=2)(self._order_groups)
        self._window = functools.lru_cache(maxsize=2)(self._order_rows)
        self._pictures = functools.lru_cache(maxsize=WINDOW_GROUPS + 1)(self._read_group)
        self._decoded = functools.lru_cache(maxsize=None if keep else 0)(self._decode)
        self._quads = functools.lru_cache(maxsize=WINDOW_GROUPS + 1)(self._read_quads)

    def locate(self, ordinal: int) -> tuple[int, int]:
        """Row group and row of the n-th picture."""
        epoch, place = divmod(ordinal, self.rows)
        _, ends = self._epoch(epoch)
        window = bisect_right(ends, place)
        start = ends[window - 1] if window else 0
        return self._window(epoch, window)[place - start]

    def fetch(self, ordinal: int) -> Picture:
        """The n-th picture. Raises BadInput when it cannot be decoded."""
        return self._decoded(*self.locate(ordinal))

    def file(self, ordinal: int) -> bytes:
        """The file of the n-th picture, not decoded."""
        group, row = self.locate(ordinal)
        return self._pictures(group).picture(row).tobytes()

    def _decode(self, group: int, row: int) -> Picture:
        stored = self._pictures(group)
        try:
            image_HW3 = decode_picture(stored.picture(row))
        except ImageProblem as error:
            raise BadInput(f"{self.groups[group].path}: row {stored.ids[row]} is no picture: {error}") from error
        return Picture(stored.ids[row], image_HW3, self._quads_of(group, row))

    def _quads_of(self, group: int, row: int) -> npt.NDArray[np.float32]:
        if not self.with_quads:
            return NO_QUADS
        return np.array([line["quad_px"] for line in self._quads(group)[row] or ()], np.float32).reshape(-1, 4, 2)

    def _rng(self, *address: int) -> np.random.Generator:
        return np.random.Generator(
            np.random.Philox(np.random.SeedSequence(self.seed, spawn_key=(0, self.source, *address)))
        )

    def _order_groups(self, epoch: int) -> tuple[npt.NDArray[np.int64], list[int]]:
        """The row groups in this epoch's order, and where each window of them ends."""
        order = self._rng(epoch).permutation(len(self.groups)) if self.shuffle else np.arange(len(self.groups))
        ends = np.cumsum(self.sizes[order])
        last = np.append(np.arange(WINDOW_GROUPS, len(order), WINDOW_GROUPS), len(order)) - 1
        return order, ends[last].tolist()

    def _order_rows(self, epoch: int, window: int) -> list[tuple[int, int]]:
        """Row group and row of every picture of a window."""
        order, _ = self._epoch(epoch)
        groups = order[window * WINDOW_GROUPS : (window + 1) * WINDOW_GROUPS]
        pairs = np.concatenate(
            [np.stack([np.full_like(self.groups[g].rows, g), self.groups[g].rows], axis=1) for g in groups]
        )
        if self.shuffle:
            pairs = self._rng(epoch, window + 1).permutation(pairs)
        return [(group, row) for group, row in pairs.tolist()]

    def _read_quads(self, group: int) -> list[list[dict[str, list[float]]] | None]:
        with self._opened(group) as (file, place):
            columns = ["lines.list.element.quad_px"]
            return file.read_row_group(place.group, columns=columns, use_threads=False)["lines"].to_pylist()

    def _read_group(self, group: int) -> "_Stored":
        with self._opened(group) as (file, place):
            ids = file.read_row_group(place.group, columns=["row_id"], use_threads=False)["row_id"].to_pylist()
            mapped = _mapped(place.path, file.metadata.row_group(place.group), ids)
            if mapped is not None:
                return mapped
            table = file.read_row_group(place.group, columns=["image.bytes"], use_threads=False)
            return _copied(table["image"], ids)

    @contextmanager
    def _opened(self, group: int) -> Iterator[tuple[pq.ParquetFile, RowGroupRows]]:
        place = self.groups[group]
        try:
            with pq.ParquetFile(place.path, pre_buffer=False) as file:
                yield file, place
        except (pa.ArrowException, OSError) as error:
            raise BadInput(f"{place.path}: cannot be read as a shard ({error})") from error


@dataclass(frozen=True, slots=True)
class _Stored:
    """The pictures of a row group: bytes, and where in them each one lies."""

    ids: list[str]
    places: list[tuple[int, int]]
    data: memoryview

    def picture(self, row: int) -> memoryview:
        """The file of one row."""
        start, end = self.places[row]
        return self.data[start:end]


def _mapped(path: Path, metadata: pq.RowGroupMetaData, ids: list[str]) -> _Stored | None:
    """A row group as it lies in the file; None when it is not laid out as `datagen.shards` does it."""
    for column in (metadata.column(number) for number in range(metadata.num_columns)):
        if column.path_in_schema == "image.bytes" and column.dictionary_page_offset is None:
            with path.open("rb") as file:
                mapped = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)
            data, first = memoryview(mapped), column.data_page_offset
            mapped.madvise(mmap.MADV_WILLNEED, first - first % mmap.PAGESIZE, column.total_compressed_size)
            places = plain_values(data, first, column.num_values)
            return None if places is None else _Stored(ids, places, data)
    return None


def _copied(images: pa.ChunkedArray, ids: list[str]) -> _Stored:
    """A row group as Arrow reads it. Its pictures are found by their places: a scalar for each takes 95 us."""
    pictures = images.combine_chunks().field("bytes")
    _, offsets, data = pictures.buffers()
    bounds = np.frombuffer(offsets, np.int32)[pictures.offset :][: len(pictures) + 1].tolist()
    return _Stored(ids, list(itertools.pairwise(bounds)), memoryview(data or b"").cast("B"))


def decode_picture(data: bytes | memoryview) -> npt.NDArray[np.uint8]:
    """Pixels (H, W, 3) of an image file; by ISA-L where it is installed (0.5 instead of 2 ms for 256 px), equal pixels.

    Raises ImageProblem.
    """
    try:
        from datagen.codec import decode_png
    except ImportError:  # a training machine may lack the extra [data]
        from datagen.decode import decode_image

        return decode_image(bytes(data))
    return decode_png(data)
