"""The batches of a run: `batch(step)` is a function of (seed, step) and of the data, whoever asks and how often.

So the same global batches come for any number of processes, loader workers and crashes; a checkpoint keeps a few
integers.

Legend: K sources, B pictures of a global batch, H W pixels.
"""

import copy
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import cv2
import numpy as np

from fonts_manifest.errors import BadInput
from vae.batch import Batch, Shape, crop_corner, crop_places
from vae.curriculum import Curriculum
from vae.mixture import Quotas
from vae.source import NO_QUADS, Reader, Source, SourceConfig
from vae.stored import open_stored


def open_source(config: SourceConfig, min_side_px: int, hold_out: float) -> Source:
    """`open_shapes` for squares of one size."""
    return open_shapes(config, [(min_side_px, min_side_px)], hold_out)[0]


def open_shapes(config: SourceConfig, shapes: Sequence[Shape], hold_out: float) -> list[Source]:
    """What a source holds for crops of each shape.

    hold_out: share of the pictures that are never trained on, 0 to 1; when it is above 0 at least one of those for the
    first shape is held out, and what is held out there is held out from every shape.
    Raises BadInput when the source cannot be opened, or has nothing to train on for a shape.
    """
    if config.live is not None:
        from vae.live import open_drawn  # brings the renderer: only where it is asked for

        return list(open_drawn(config, config.live, shapes, hold_out))
    return list(open_stored(config, Path(config.run), shapes, hold_out))


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
        readers: Sequence[Reader] | None = None,
    ) -> None:
        batch = sum(mixture.quotas(0))
        if batch % world:
            raise BadInput(f"a batch of {batch} cannot be split among {world} processes")
        self.mixture = mixture
        self.seed = seed
        self.crop: Shape = (crop_px, crop_px) if isinstance(crop_px, int) else crop_px
        self.rank = rank
        self.world = world
        self.readers = readers or [source.reader(seed, i) for i, source in enumerate(sources)]
        self.digests = [source.digest for source in sources]

    def slots(self, step: int) -> list[tuple[int, int]]:
        """(source, ordinal) of every slot of the global batch."""
        before, after = self.mixture.counts_before(step), self.mixture.counts_before(step + 1)
        return [(k, n) for k, (first, end) in enumerate(zip(before, after, strict=True)) for n in range(first, end)]

    def batch(self, step: int) -> Batch:
        """The crops of this rank at this step."""
        slots = self.slots(step)
        places_B2 = crop_places(self.seed, step, len(slots))[self.rank :: self.world]
        slots = slots[self.rank :: self.world]
        height, width = self.crop
        levels_B3HW = np.empty((len(slots), 3, height, width), np.uint8)
        row_ids, quads_px = [], []
        for levels_3HW, place_2, (source, ordinal) in zip(levels_B3HW, places_B2, slots, strict=True):
            picture = self.readers[source].fetch(ordinal)
            top, left = crop_corner(place_2, picture.image_HW3.shape[:2], self.crop)
            # One pass over the crop: 20 us for 256 px, where stacking and permuting took 300.
            cv2.split(picture.image_HW3[top : top + height, left : left + width], list(levels_3HW))
            row_ids.append(picture.row_id)
            quads_px.append(picture.quads_px - np.array([left, top], np.float32) if len(picture.quads_px) else NO_QUADS)
        return Batch(
            levels_B3HW=levels_B3HW,
            source_ids=tuple(source for source, _ in slots),
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


class StagedFeed:
    """The batches of all stages: `batch(step)` is a function of (seed, step) and of the data.

    A picture gives crops of every shape that fits into it and none of the others: pictures are never resized.
    Raises BadInput when the processes do not divide a batch, or a source holds nothing for a shape.
    """

    def __init__(
        self,
        curriculum: Curriculum,
        sources: Sequence[SourceConfig],
        hold_out: float,
        *,
        with_quads: bool = False,
        rank: int = 0,
        world: int = 1,
    ) -> None:
        """hold_out: share of the rows never trained on. with_quads: batches know the places of the lines too."""
        for batch in curriculum.batches:
            if batch % world:
                raise BadInput(f"a batch of {batch} cannot be split among {world} processes")
        self.curriculum = curriculum
        self._rank, self._world, self._with_quads, self._apart = rank, world, with_quads, True
        opened = [open_shapes(source, curriculum.shapes, hold_out) for source in sources]
        self._sources: dict[Shape, list[Source]] = {
            shape: [source[i] for source in opened] for i, shape in enumerate(curriculum.shapes)
        }
        self._feeds: dict[Shape, Feed] = {}

    @property
    def sources(self) -> list[Source]:
        """What each source holds for the first stage."""
        return self._sources[self.curriculum.shapes[0]]

    def __getstate__(self) -> dict[str, Any]:
        """Without the open readers: every process opens its own."""
        return self.__dict__ | {"_feeds": {}}

    def alone(self) -> "StagedFeed":
        """The same batches, whole, for one process."""
        return self._copy(_rank=0, _world=1)

    def beside(self, *, apart: bool) -> "StagedFeed":
        """The same batches, for a process that may crash (not `apart`): then live pictures are drawn in it."""
        return self._copy(_apart=apart)

    def _copy(self, **changes: object) -> "StagedFeed":
        other = copy.copy(self)
        other.__dict__.update(changes, _feeds={})
        return other

    def batch(self, step: int) -> Batch:
        """The crops of this rank at this step."""
        shape = self.curriculum.shape_at(step)
        if shape not in self._feeds:
            self._feeds[shape] = self._open(shape)
        return self._feeds[shape].batch(step)

    def state(self, step: int) -> dict[str, object]:
        """What a checkpoint keeps of the data: integers and digests."""
        digests = {f"{h}x{w}": [source.digest for source in found] for (h, w), found in self._sources.items()}
        counts = list(self.curriculum.counts_before(step))
        return {"counts": counts, "seed": self.curriculum.seed, "digests": digests}

    def check_state(self, step: int, state: dict[str, object]) -> None:
        """Raises BadInput when a checkpoint of `step` was made from other data or another mixture."""
        if state != self.state(step):
            raise BadInput(
                f"the checkpoint of step {step} was trained on other data or another mixture; "
                "name another output folder, or bring the data back"
            )

    def _open(self, shape: Shape) -> Feed:
        """A feed of crops of this shape. Where its rows are those of an open feed the readers are shared, so that a row
        comes once an epoch whatever the shape, and is read through one cache."""
        sources, seed = self._sources[shape], self.curriculum.seed
        held = {
            (i, digest): reader
            for feed in self._feeds.values()
            for i, (digest, reader) in enumerate(zip(feed.digests, feed.readers, strict=True))
        }
        readers = [
            held.get((i, source.digest)) or source.reader(seed, i, with_quads=self._with_quads, apart=self._apart)
            for i, source in enumerate(sources)
        ]
        return Feed(
            self.curriculum, sources, seed=seed, crop_px=shape, rank=self._rank, world=self._world, readers=readers
        )
