"""What a source of pictures is, stored or drawn on the way: one interface, and which of its pictures are held out.

Legend: H W pixels, L lines.
"""

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal, Protocol, Self, TypeVar

import numpy as np
import numpy.typing as npt
from pydantic import Field, model_validator

from fonts_manifest.config import Config

Density = Literal["none", "sparse", "medium", "dense"]


class LiveConfig(Config):
    """Pictures drawn while they are trained on: those, and in the order, in which `glyphmill generate` stores them."""

    recipe: str
    """A recipe of `glyphmill generate`: a bundled one's name, or a .yaml file."""
    overrides: tuple[str, ...] = ()
    """key.sub=value: changes to it, as on the command line."""
    judge: str | None = None
    """Run folder of that recipe in which its judge is calibrated (`generate` does it before the first shard): the
    pictures are then those it keeps. Without it nothing is judged."""
    tee: str | None = None
    """Run folder in which what is drawn is left as shards; those that training did not come to, `generate` draws."""

    @model_validator(mode="after")
    def _judged_like_shards(self) -> Self:
        if self.tee is not None and self.judge is None:
            raise ValueError("tee leaves the shards that generate would: name the run folder of their judge too")
        return self


class SourceConfig(Config):
    """One stream of pictures and how much of every batch it fills."""

    name: str
    """What logs call it."""
    run: str = ""
    """Folder of a finished run: `manifest.parquet` and the shards it names."""
    live: LiveConfig | None = None
    """In place of a run: pictures drawn on the way."""
    shuffle: bool = True
    """Rows of a run in another order every epoch; false: as they are stored, which is how a live source draws them."""
    density: tuple[Density, ...] | None = None
    """Only pictures of these classes of text density (`datagen.density`); all when not given."""
    weights: tuple[tuple[int, float], ...] = Field(default=((0, 1.0),), min_length=1)
    """(step, weight) knots, steps rising: linear between them, constant before the first and after the last."""

    @model_validator(mode="after")
    def _has_one_origin(self) -> Self:
        if (self.run == "") == (self.live is None):
            raise ValueError(f"source {self.name}: give it a run or live, one of the two")
        if self.live is not None and self.density is not None:
            raise ValueError(f"source {self.name}: the density of live pictures is what their recipe draws")
        return self


NO_QUADS = np.empty((0, 4, 2), np.float32)


@dataclass(frozen=True, slots=True)
class Picture:
    """One picture with what is known of it."""

    row_id: str
    image_HW3: npt.NDArray[np.uint8]
    quads_px: npt.NDArray[np.float32]
    """(L, 4, 2) corners of its lines; none where the row knows none or nobody asked."""


class Reader(Protocol):
    """Pictures by number."""

    def fetch(self, ordinal: int) -> Picture:
        """The n-th one. Raises BadInput when it cannot be had."""


class Source(Protocol):
    """Pictures for training, without end, and some held out from it; what there is is known before any is read."""

    @property
    def name(self) -> str:
        """What logs call it."""

    @property
    def train_rows(self) -> int:
        """Different pictures to train on; a live source then goes on with new ones."""

    @property
    def held_out_rows(self) -> int:
        """Pictures never trained on."""

    @property
    def too_small(self) -> int:
        """Pictures left out because a side is shorter than the training crop."""

    @property
    def other_density(self) -> int:
        """Pictures left out by the density filter."""

    @property
    def digest(self) -> str:
        """Equal ones give equal pictures: a resumed run must find the same data."""

    def reader(self, seed: int, number: int, *, with_quads: bool = False, apart: bool = True) -> Reader:
        """The pictures to train on, of source `number` of a mixture with this seed.

        apart: what may crash a native library happens in a process beside this one.
        """

    def held_out_reader(self) -> Reader:
        """The pictures held out, `held_out_rows` of them."""

    def finish(self) -> None:
        """Training is over: finish what was written on the way."""


def hold_out_key(source: str, row_id: str, origin: str | None) -> float:
    """A number in [0, 1) by which rows are held out: of the origin of real pictures, so that the crops of one page stay
    together, and of the address of synthetic ones, however many draws of it were rejected before ("run-shard-row" of
    the row id "run-shard-row-attempt")."""
    key = origin if source == "real" and origin else row_id.rpartition("-")[0] or row_id
    return int.from_bytes(hashlib.blake2b(key.encode(), digest_size=8).digest(), "big") / 2**64


def hold_out_limit(keys: npt.NDArray[np.float64], share: float) -> float:
    """Rows whose key is below it are held out: `share` of them, or the one of smallest key where that is nobody."""
    return float(max(share, np.nextafter(keys.min(), 1))) if share and len(keys) else 0.0


def held_out_pictures(source: Source, count: int, size_px: int) -> list[tuple[str, npt.NDArray[np.uint8]]]:
    """Row id and a size x size crop of held-out pictures, `count` of them where the source holds enough.

    Pictures are taken evenly over the rows, the middle of each; where there are fewer than `count`, each large one
    gives several crops that do not overlap, evenly over its area. Smaller pictures give none.
    """
    reader = source.held_out_reader()
    each = -(-count // source.held_out_rows) if source.held_out_rows else 0
    crops = []
    for number in _evenly(range(source.held_out_rows), count):
        picture = reader.fetch(number)
        height, width = picture.image_HW3.shape[:2]
        down, across = height // size_px, width // size_px
        cells = [(i, j) for i in range(down) for j in range(across)]
        if each == 1 and cells:
            down, across, cells = 1, 1, [(0, 0)]
        for i, j in _evenly(cells, each):
            top, left = (height - down * size_px) // 2 + i * size_px, (width - across * size_px) // 2 + j * size_px
            crops.append((picture.row_id, picture.image_HW3[top : top + size_px, left : left + size_px]))
    return crops[:count]


T = TypeVar("T")


def _evenly(items: Sequence[T], count: int) -> Sequence[T]:
    """At most `count` of the items, the middles of equal parts of the list."""
    if len(items) <= count:
        return items
    return [items[(2 * i + 1) * len(items) // (2 * count)] for i in range(count)]
