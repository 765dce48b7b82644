"""Which picture comes at which step: arithmetic over sources, no state but the step.

A source is the kept rows of a finished run folder. The weights of the sources are piecewise linear over the steps; the
quotas of a step are floor differences of their closed-form integral, and the largest source of the step takes the
remainder. The n-th picture of a source is a function of (seed, source, n): Philox permutes the row groups of an epoch,
then the rows inside windows of row groups. So the global batch of step t is a function of (seed, t), for any number of
ranks and after any crash.

Legend: K sources, B pictures of a global batch, H W pixels.
"""

import functools
import hashlib
import itertools
from bisect import bisect_right
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from fractions import Fraction
from pathlib import Path
from typing import Literal, Protocol

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.parquet as pq
from pydantic import Field

from datagen.decode import ImageProblem
from fonts_manifest.config import Config
from fonts_manifest.errors import BadInput
from vae.batch import Batch, Shape, crop_corner, to_unit_range

WINDOW_GROUPS = 4
"""Row groups whose rows are shuffled together: 4 of 8 to 16 MiB are held in memory, each is read once an epoch."""

Density = Literal["none", "sparse", "medium", "dense"]


class SourceConfig(Config):
    """One stream of pictures and how much of every batch it fills."""

    name: str
    """What logs call it."""
    run: str
    """Folder of a finished run: `manifest.parquet` and the shards it names."""
    density: tuple[Density, ...] | None = None
    """Only pictures of these classes of text density (`datagen.density`); all when not given."""
    weights: tuple[tuple[int, float], ...] = Field(default=((0, 1.0),), min_length=1)
    """(step, weight) knots, steps rising: linear between them, constant before the first and after the last."""


@dataclass(frozen=True, slots=True)
class _Segment:
    """Steps [start, end) in which one source is the largest and all proportions are linear."""

    start: int
    end: int
    largest: int
    floors_start: tuple[int, ...]
    counts_start: tuple[int, ...]


@dataclass(frozen=True)
class Mixture:
    """How many pictures of each source every step takes: exact, in rational numbers, for any step without a loop.

    weights: for each source its (step, weight) knots. batch: pictures of a global batch.
    Raises BadInput when the weights are no schedule, or the batch is too small to be split among K sources (less than
    K (K - 1)).
    """

    names: tuple[str, ...]
    weights: tuple[tuple[tuple[int, float], ...], ...]
    batch: int
    _knots: tuple[int, ...] = field(init=False, repr=False)
    _shares: tuple[tuple[Fraction, ...], ...] = field(init=False, repr=False)
    _segments: tuple[_Segment, ...] = field(init=False, repr=False)

    def __post_init__(self) -> None:
        k = len(self.names)
        if not k or len(self.weights) != k or len(set(self.names)) != k:
            raise BadInput(
                f"a mixture needs sources with different names and one schedule each, got {list(self.names)}"
            )
        if self.batch < max(1, k * (k - 1)):
            raise BadInput(f"a batch of {self.batch} cannot be split among {k} sources: at least {max(1, k * (k - 1))}")
        for name, line in zip(self.names, self.weights, strict=True):
            steps = [step for step, _ in line]
            if (
                not line
                or steps != sorted(set(steps))
                or steps[0] < 0
                or any(not 0 <= w < float("inf") for _, w in line)
            ):
                raise BadInput(f"source {name}: weights need rising steps from 0 and numbers of at least 0, got {line}")
        knots = tuple(sorted({0} | {step for one in self.weights for step, _ in one}))
        shares = []
        for step in knots:
            values = [_at(one, step) for one in self.weights]
            if not sum(values):
                raise BadInput(f"at step {step} every source has weight 0")
            shares.append(tuple(value / sum(values) for value in values))
        object.__setattr__(self, "_knots", knots)
        object.__setattr__(self, "_shares", tuple(shares))
        object.__setattr__(self, "_segments", tuple(self._find_segments()))

    def share(self, source: int, step: int) -> float:
        """The proportion of a source in the batch of a step, 0 to 1, as scheduled."""
        return float(self._step_shares(step)[source])

    def shares(self, step: int) -> tuple[Fraction, ...]:
        """The proportion of every source in the batch of a step, 0 to 1, as scheduled."""
        return self._step_shares(step)

    def quotas(self, step: int) -> tuple[int, ...]:
        """Pictures of each source in the batch of `step`; they sum to the batch."""
        return tuple(b - a for a, b in zip(self.counts_before(step), self.counts_before(step + 1), strict=True))

    def counts_before(self, step: int) -> tuple[int, ...]:
        """Pictures of each source in all batches before `step`: the next ordinal of each."""
        segment = self._segments[bisect_right([s.start for s in self._segments], step) - 1]
        return self._counts_in(segment, step)

    def _counts_in(self, segment: _Segment, step: int) -> tuple[int, ...]:
        floors = self._floors(step)
        counts = [c + f - f0 for c, f, f0 in zip(segment.counts_start, floors, segment.floors_start, strict=True)]
        counts[segment.largest] += self.batch * step - sum(counts)
        return tuple(counts)

    def _floors(self, step: int) -> tuple[int, ...]:
        return tuple((self.batch * area).__floor__() for area in self._integral(step))

    def _integral(self, step: int) -> tuple[Fraction, ...]:
        """The integral of every share from 0 to `step`, exactly (trapezoids)."""
        areas = [Fraction(0)] * len(self.names)
        for i, (start, shares) in enumerate(zip(self._knots, self._shares, strict=True)):
            if step <= start:
                break
            last = i + 1 == len(self._knots)
            end = step if last else min(step, self._knots[i + 1])
            for k, share in enumerate(shares):
                if last:
                    areas[k] += share * (end - start)
                else:
                    slope = (self._shares[i + 1][k] - share) / (self._knots[i + 1] - start)
                    areas[k] += (share + slope * Fraction(end - start, 2)) * (end - start)
        return tuple(areas)

    def _find_segments(self) -> Iterable[_Segment]:
        """Cut the schedule where a line ends or another source becomes the largest of a step.

        Within a segment the remainder always goes to one source, so the counts telescope and the error stays below K.
        """
        counts = tuple(0 for _ in self.names)
        for i, start in enumerate(self._knots):
            last = i + 1 == len(self._knots)
            stop = start + 1 if last else self._knots[i + 1]
            here = start
            while here < stop:
                shares = self._step_shares(here)
                largest = max(range(len(shares)), key=lambda k: (shares[k], -k))
                end = stop
                if not last:
                    slopes = [
                        (b - a) / (stop - start) for a, b in zip(self._shares[i], self._shares[i + 1], strict=True)
                    ]
                    for k, slope in enumerate(slopes):
                        gain = slope - slopes[largest]
                        if gain > 0:
                            end = min(end, here + ((shares[largest] - shares[k]) / gain).__floor__() + 1)
                segment = _Segment(here, end, largest, self._floors(here), counts)
                yield segment
                counts = self._counts_in(segment, end)
                here = end

    def _step_shares(self, step: int) -> tuple[Fraction, ...]:
        return tuple(b - a for a, b in zip(self._integral(step), self._integral(step + 1), strict=True))


def _at(knots: Sequence[tuple[int, float]], step: int) -> Fraction:
    """The weight at a step, exactly."""
    if step <= knots[0][0]:
        return Fraction(knots[0][1])
    for (s0, w0), (s1, w1) in itertools.pairwise(knots):
        if step <= s1:
            return Fraction(w0) + (Fraction(w1) - Fraction(w0)) * Fraction(step - s0, s1 - s0)
    return Fraction(knots[-1][1])


@dataclass(frozen=True, slots=True)
class RowGroupRows:
    """The rows of one row group that a source uses."""

    path: Path
    group: int
    rows: npt.NDArray[np.int64]


@dataclass(frozen=True, slots=True)
class Source:
    """The rows of a run that passed a source's filter, split into those for training and those held out."""

    name: str
    train: tuple[RowGroupRows, ...]
    held_out: tuple[RowGroupRows, ...]
    too_small: int
    """Pictures left out because a side is shorter than the training crop."""
    other_density: int
    """Pictures left out by the density filter."""
    digest: str
    """Of the row ids in order: a resumed run must find the same data."""

    @property
    def train_rows(self) -> int:
        """Pictures to train on."""
        return sum(len(group.rows) for group in self.train)

    @property
    def held_out_rows(self) -> int:
        """Pictures never trained on."""
        return sum(len(group.rows) for group in self.held_out)


def hold_out_key(source: str, row_id: str, origin: str | None) -> float:
    """A number in [0, 1) by which rows are held out: of the origin of real pictures, so that the crops of one page stay
    together, and of the row id of synthetic ones."""
    key = origin if source == "real" and origin else row_id
    return int.from_bytes(hashlib.blake2b(key.encode(), digest_size=8).digest(), "big") / 2**64


def open_source(config: SourceConfig, min_side_px: int, hold_out: float) -> Source:
    """`open_shapes` for squares of one size."""
    return open_shapes(config, [(min_side_px, min_side_px)], hold_out)[0]


def open_shapes(config: SourceConfig, shapes: Sequence[Shape], hold_out: float) -> list[Source]:
    """Read the small columns of a finished run (no picture) and choose the rows from which each shape can be cropped.

    hold_out: share of rows that are never trained on, 0 to 1; when it is above 0 at least one of the rows of the first
    shape is held out, and what is held out there is held out from every shape.
    Raises BadInput when there is no finished run, a shard is damaged, or nothing is left to train on.
    """
    columns = ["row_id", "source", "origin", "width", "height", "characters", "characters_per_mp"]
    groups: list[_Group] = []
    for path in _kept_files(Path(config.run)):
        for number, table in enumerate(_read_groups(path, columns)):
            ids, kinds, origins = (table[name].to_pylist() for name in ("row_id", "source", "origin"))
            keys = np.array([hold_out_key(*row) for row in zip(kinds, ids, origins, strict=True)], np.float64)
            wanted = np.ones(len(table), bool) if config.density is None else _of_density(table, config.density)
            size_N2 = np.stack([_numbers(table, "height"), _numbers(table, "width")], axis=1)
            groups.append(_Group(RowGroupRows(path, number, np.arange(len(table))), ids, keys, wanted, size_N2))
    first = np.concatenate([g.keys[g.fitting(shapes[0]) & g.wanted] for g in groups]) if groups else np.empty(0)
    # In a small folder the share may fall on nobody: then the smallest key is held out.
    limit = max(hold_out, np.nextafter(first.min(), 1)) if hold_out and len(first) else 0.0
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


def _fitting_rows(config: SourceConfig, groups: Sequence[_Group], shape: Shape, limit: float) -> Source:
    digest = hashlib.sha256()
    train: list[RowGroupRows] = []
    held_out: list[RowGroupRows] = []
    too_small = other_density = 0
    for group in groups:
        large = group.fitting(shape)
        chosen = large & group.wanted
        too_small += int((~large).sum())
        other_density += int((large & ~group.wanted).sum())
        for row in np.flatnonzero(chosen):
            digest.update(group.ids[row].encode() + b"\n")
        train += group.rows(chosen & (group.keys >= limit))
        held_out += group.rows(chosen & (group.keys < limit))
    source = Source(
        name=config.name,
        train=tuple(train),
        held_out=tuple(held_out),
        too_small=too_small,
        other_density=other_density,
        digest=digest.hexdigest(),
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
        table = pq.read_table(manifest, columns=["path", "keep"])
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


class SourceReader:
    """Pictures of one list of row groups by ordinal: epoch after epoch, each in its own order."""

    def __init__(self, groups: tuple[RowGroupRows, ...], seed: int, source: int, *, with_quads: bool = False) -> None:
        self.groups = groups
        self.seed = seed
        self.source = source
        self.with_quads = with_quads
        self.sizes = np.array([len(group.rows) for group in groups], np.int64)
        self.rows = int(self.sizes.sum())
        self._epoch = functools.lru_cache(maxsize=2)(self._order_groups)
        self._window = functools.lru_cache(maxsize=2)(self._order_rows)
        self._pictures = functools.lru_cache(maxsize=WINDOW_GROUPS + 1)(self._read_group)
        self._quads = functools.lru_cache(maxsize=WINDOW_GROUPS + 1)(self._read_quads)

    def locate(self, ordinal: int) -> tuple[int, int]:
        """Row group and row of the n-th picture."""
        epoch, place = divmod(ordinal, self.rows)
        _, ends = self._epoch(epoch)
        window = int(np.searchsorted(ends, place, side="right"))
        start = int(ends[window - 1]) if window else 0
        group, row = self._window(epoch, window)[place - start]
        return int(group), int(row)

    def fetch(self, ordinal: int) -> tuple[str, npt.NDArray[np.uint8]]:
        """Row id and pixels (H, W, 3) of the n-th picture. Raises BadInput when it cannot be decoded."""
        group, row = self.locate(ordinal)
        return self.picture(group, row)

    def picture(self, group: int, row: int) -> tuple[str, npt.NDArray[np.uint8]]:
        """Row id and pixels of one row."""
        ids, pictures = self._pictures(group)
        try:
            return ids[row], decode_picture(pictures[row].as_py())
        except ImageProblem as error:
            raise BadInput(f"{self.groups[group].path}: row {ids[row]} is no picture: {error}") from error

    def quads(self, ordinal: int) -> npt.NDArray[np.float32]:
        """(L, 4, 2) corners of the lines of the n-th picture, none where the row knows none or they are not wanted."""
        group, row = self.locate(ordinal)
        found = self._quads(group)[row] if self.with_quads else None
        return np.array([line["quad_px"] for line in found or ()], np.float32).reshape(-1, 4, 2)

    def _rng(self, *address: int) -> np.random.Generator:
        return np.random.Generator(
            np.random.Philox(np.random.SeedSequence(self.seed, spawn_key=(0, self.source, *address)))
        )

    def _order_groups(self, epoch: int) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.int64]]:
        """The row groups in this epoch's order, and where each window of them ends."""
        order = self._rng(epoch).permutation(len(self.groups))
        ends = np.cumsum(self.sizes[order])
        last = np.append(np.arange(WINDOW_GROUPS, len(order), WINDOW_GROUPS), len(order)) - 1
        return order, ends[last]

    def _order_rows(self, epoch: int, window: int) -> npt.NDArray[np.int64]:
        """(rows, 2) row group and row of every picture of a window, shuffled."""
        order, _ = self._epoch(epoch)
        groups = order[window * WINDOW_GROUPS : (window + 1) * WINDOW_GROUPS]
        pairs = np.concatenate(
            [np.stack([np.full_like(self.groups[g].rows, g), self.groups[g].rows], axis=1) for g in groups]
        )
        return self._rng(epoch, window + 1).permutation(pairs)

    def _read_quads(self, group: int) -> list[list[dict[str, list[float]]] | None]:
        return self._read_columns(group, ["lines.list.element.quad_px"])["lines"].to_pylist()

    def _read_columns(self, group: int, columns: list[str]) -> pa.Table:
        place = self.groups[group]
        try:
            with pq.ParquetFile(place.path) as file:
                return file.read_row_group(place.group, columns=columns)
        except (pa.ArrowException, OSError) as error:
            raise BadInput(f"{place.path}: cannot be read as a shard ({error})") from error

    def _read_group(self, group: int) -> tuple[list[str], pa.ChunkedArray]:
        table = self._read_columns(group, ["row_id", "image.bytes"])
        return table["row_id"].to_pylist(), table["image"].combine_chunks().field("bytes")


def decode_picture(data: bytes) -> npt.NDArray[np.uint8]:
    """Pixels (H, W, 3) of an image file; by ISA-L where it is installed (0.5 instead of 2 ms for 256 px), equal pixels.

    Raises ImageProblem.
    """
    try:
        from datagen.codec import decode_png
    except ImportError:  # a training machine may lack the extra [data]
        from datagen.decode import decode_image

        return decode_image(data)
    return decode_png(data)


class Quotas(Protocol):
    """How many pictures of each source every step takes; `Mixture` for one size of batch."""

    @property
    def names(self) -> tuple[str, ...]:
        """Of the sources."""

    def quotas(self, step: int) -> tuple[int, ...]:
        """Pictures of each source in the batch of `step`."""

    def counts_before(self, step: int) -> tuple[int, ...]:
        """Pictures of each source in all batches before `step`."""


class Feed:
    """The batches of a run: `batch(step)` is a function of (seed, step) and of the data.

    crop_px: side of the crops, or their height and width. readers: for sources that are read elsewhere already.
    Ranks of a job take every `world`-th slot of the same global batch. Raises BadInput when `world` does not divide it.
    """

    def __init__(
        self,
        mixture: Quotas,
        sources: Sequence[Source],
        *,
        seed: int,
        crop_px: int | Shape,
        rank: int = 0,
        world: int = 1,
        readers: Sequence[SourceReader] | None = None,
    ) -> None:
        batch = sum(mixture.quotas(0))
        if batch % world:
            raise BadInput(f"a batch of {batch} cannot be split among {world} processes")
        self.mixture = mixture
        self.seed = seed
        self.crop: Shape = (crop_px, crop_px) if isinstance(crop_px, int) else crop_px
        self.rank = rank
        self.world = world
        self.readers = readers or [SourceReader(source.train, seed, i) for i, source in enumerate(sources)]
        self.digests = [source.digest for source in sources]

    def slots(self, step: int) -> list[tuple[int, int]]:
        """(source, ordinal) of every slot of the global batch."""
        counts = self.mixture.counts_before(step)
        quotas = self.mixture.quotas(step)
        return [(k, counts[k] + i) for k, quota in enumerate(quotas) for i in range(quota)]

    def batch(self, step: int) -> Batch:
        """The crops of this rank at this step."""
        crops, sources, row_ids, quads_px = [], [], [], []
        for slot, (source, ordinal) in list(enumerate(self.slots(step)))[self.rank :: self.world]:
            row_id, image_HW3 = self.readers[source].fetch(ordinal)
            top, left = crop_corner(self.seed, step, slot, image_HW3.shape[:2], self.crop)
            crops.append(image_HW3[top : top + self.crop[0], left : left + self.crop[1]])
            sources.append(source)
            row_ids.append(row_id)
            quads_px.append(self.readers[source].quads(ordinal) - np.array([left, top], np.float32))
        return Batch(
            images_B3HW=to_unit_range(np.stack(crops)),
            source_ids=tuple(sources),
            row_ids=tuple(row_ids),
            step=step,
            quads_px=tuple(quads_px),
        )

    def state(self, step: int) -> dict[str, object]:
        """What a checkpoint keeps of the data: integers and digests."""
        return {"counts": list(self.mixture.counts_before(step)), "seed": self.seed, "digests": self.digests}

    def check_state(self, step: int, state: dict[str, object]) -> None:
        """Raises BadInput when a checkpoint of `step` was made from other data or another mixture."""
        if state != self.state(step):
            raise BadInput(
                f"the checkpoint of step {step} was trained on other data or another mixture; "
                "name another output folder, or bring the data back"
            )


def held_out_pictures(source: Source, count: int, size_px: int) -> list[tuple[str, npt.NDArray[np.uint8]]]:
    """Row id and a size x size crop of held-out pictures, `count` of them where the source holds enough.

    Pictures are taken evenly over the rows, the middle of each; where there are fewer than `count`, each large one
    gives several crops that do not overlap, evenly over its area. Smaller pictures give none.
    """
    reader = SourceReader(source.held_out, 0, 0)
    places = [(g, int(row)) for g, group in enumerate(source.held_out) for row in group.rows]
    each = -(-count // len(places)) if places else 0
    crops = []
    for group, row in _evenly(places, count):
        row_id, image_HW3 = reader.picture(group, row)
        height, width = image_HW3.shape[:2]
        down, across = height // size_px, width // size_px
        cells = [(i, j) for i in range(down) for j in range(across)]
        if each == 1 and cells:
            down, across, cells = 1, 1, [(0, 0)]
        for i, j in _evenly(cells, each):
            top, left = (height - down * size_px) // 2 + i * size_px, (width - across * size_px) // 2 + j * size_px
            crops.append((row_id, image_HW3[top : top + size_px, left : left + size_px]))
    return crops[:count]


def _evenly(items: list[tuple[int, int]], count: int) -> list[tuple[int, int]]:
    """At most `count` of the items, the middles of equal parts of the list."""
    if len(items) <= count:
        return items
    return [items[(2 * i + 1) * len(items) // (2 * count)] for i in range(count)]
