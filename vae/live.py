"""Pictures drawn while they are trained on: the stream of the shards that `glyphmill generate` would write.

The pages are those that the judge of the recipe keeps when a calibrated one is named, otherwise all that can be drawn;
in both cases row after row as shards hold them, held-out ones left out. After the rows of the recipe new ones come.
"""

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from datagen.live import Drawer, LivePlan, Tee, finish_tee, open_live, start_tee
from datagen.plan import Address
from datagen.rows import row_id_of
from fonts_manifest.errors import BadInput
from vae.batch import Shape
from vae.source import NO_QUADS, LiveConfig, Picture, SourceConfig, hold_out_key, hold_out_limit


@dataclass(frozen=True, slots=True)
class LiveSource:
    """The rows of a run that is drawn on the way, some of them held out (`Source`)."""

    name: str
    live: LivePlan
    held_out: npt.NDArray[np.int64]
    """Numbers of the rows held out, rising."""
    tee: str | None = None
    too_small: int = 0
    other_density: int = 0

    @property
    def train_rows(self) -> int:
        """Pictures to train on before there are more than the recipe has rows."""
        return self.live.plan.rows - len(self.held_out)

    @property
    def held_out_rows(self) -> int:
        """Pictures never trained on."""
        return len(self.held_out)

    @property
    def digest(self) -> str:
        """Of the run and of what is held out."""
        return hashlib.sha256(self.live.digest.encode() + self.held_out.tobytes()).hexdigest()

    def reader(self, seed: int, number: int, *, with_quads: bool = False, apart: bool = True) -> "LiveReader":
        """The pictures to train on; their order is that of the recipe, not of the mixture's seed."""
        tee = None if self.tee is None else Tee(self.live.plan, self.tee, frozenset(self.held_out.tolist()))
        return LiveReader(Drawer(self.live.plan, apart=apart, tee=tee), self, with_quads)

    def held_out_reader(self) -> "LiveReader":
        """The pictures held out."""
        return LiveReader(Drawer(self.live.plan, apart=True), self, False, held_out=True)

    def finish(self) -> None:
        """Finish the run of the tee when all its shards are there; rows of other shards go."""
        if self.tee is not None:
            finish_tee(self.live.plan, self.tee)


class LiveReader:
    """Pictures of a live source by ordinal."""

    def __init__(self, drawer: Drawer, source: LiveSource, with_quads: bool, *, held_out: bool = False) -> None:
        self._drawer = drawer
        self._source = source
        self._with_quads = with_quads
        self._held_out = held_out
        # How many rows for training stand before each of the rows held out.
        self._before = source.held_out - np.arange(len(source.held_out))

    def number(self, ordinal: int) -> int:
        """The row of the run that is the n-th picture."""
        if self._held_out:
            return int(self._source.held_out[ordinal])
        return ordinal + int(np.searchsorted(self._before, ordinal, side="right"))

    def fetch(self, ordinal: int) -> Picture:
        """The n-th picture. Raises BadInput when the judge keeps none of the pages drawn for its row."""
        drawn = self._drawer.draw(*divmod(self.number(ordinal), self._source.live.plan.rows_per_shard))
        return Picture(drawn.row_id, drawn.image_HW3, drawn.quads_px if self._with_quads else NO_QUADS)


def open_drawn(config: SourceConfig, live: LiveConfig, shapes: Sequence[Shape], hold_out: float) -> list[LiveSource]:
    """A live source for crops of each shape; all draw the same pictures.

    Raises BadInput when the recipe or one of its inputs is unusable, or its pages are smaller than a crop.
    """
    drawn = open_live(live.recipe, live.overrides, live.judge)
    for height, width in shapes:
        for page in drawn.plan.pages.page_sizes_px:
            if page[0] < width or page[1] < height:
                raise BadInput(
                    f"source {config.name}: {live.recipe} draws pages of {page[0]}x{page[1]} px, from which crops of "
                    f"{width}x{height} px cannot be cut; set live.overrides to [pages.page_sizes_px=...]"
                )
    if live.tee is not None:
        start_tee(drawn, live.tee)
    source = LiveSource(config.name, drawn, _held_out(drawn, hold_out), live.tee)
    if not source.train_rows:
        raise BadInput(f"source {config.name}: {live.recipe} has no rows to train on, all are held out")
    return [source] * len(shapes)


def _held_out(live: LivePlan, share: float) -> npt.NDArray[np.int64]:
    """Of the recipe's rows; of what is drawn after them nothing is held out."""
    addresses = (Address(*divmod(number, live.plan.rows_per_shard)) for number in range(live.plan.rows))
    ids = (row_id_of(live.plan, address) for address in addresses)
    keys = np.array([hold_out_key("synthetic", row_id, None) for row_id in ids])
    return np.flatnonzero(keys < hold_out_limit(keys, share))
