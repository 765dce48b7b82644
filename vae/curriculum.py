"""The stages of a run: which crops, how many and from where at every step.

Qwen-Image-VAE-2.0 report, section 4.3: resolution from 256 px to 2K at many aspect ratios, general images first, real
text next, synthetic text last. What else changes over the steps (weights of losses, margins, learning rate) are
schedules of their own: `vae/schedule.py`.

Legend: K sources, H W pixels, f the compression.
"""

from bisect import bisect_right
from collections.abc import Sequence
from dataclasses import dataclass
from fractions import Fraction

import numpy as np
from pydantic import Field

from fonts_manifest.config import Config
from fonts_manifest.errors import BadInput
from vae.batch import Shape
from vae.mixture import Mixture
from vae.source import SourceConfig


class StageConfig(Config):
    """Crops and batches from a step on."""

    from_step: int = Field(ge=0)
    """First step of the stage."""
    crop_px: int = Field(ge=1)
    """Side of a square crop; crops of another aspect ratio have about its area."""
    batch: int = Field(ge=1)
    """Pictures a step, over all processes."""
    aspect_ratios: tuple[float, ...] = Field(default=(1.0,), min_length=1)
    """Width over height of the crops: one a step, each equally often."""


def bucket_shapes(stage: StageConfig, compression: int) -> tuple[Shape, ...]:
    """Height and width of the crops for each aspect ratio, the nearest multiples of the compression, none twice.

    Raises BadInput when the side is no multiple of it or a ratio leaves less than one cell.
    """
    if stage.crop_px % compression:
        raise BadInput(f"crop_px must be a multiple of the compression {compression}, got {stage.crop_px}")
    cells = stage.crop_px // compression
    found: dict[Shape, None] = {}
    for ratio in stage.aspect_ratios:
        height, width = (round(cells / ratio**0.5), round(cells * ratio**0.5)) if 0 < ratio < float("inf") else (0, 0)
        if not height or not width:
            raise BadInput(f"aspect ratio {ratio} of crops of {stage.crop_px} px leaves no cell of {compression} px")
        found[height * compression, width * compression] = None
    return tuple(found)


@dataclass(frozen=True, slots=True)
class _Part:
    """A stage with what follows from it."""

    start: int
    shapes: tuple[Shape, ...]
    mixture: Mixture
    counts: tuple[int, ...]
    """Pictures of each source in all batches before the stage."""


class Curriculum:
    """Shape and size of the batch of every step, and how many pictures of each source it holds (`Quotas`).

    Stages begin at rising steps, the first at 0. Within a stage every block of as many steps as it has shapes takes
    each once, in an order drawn for the block; the counts of the sources go on through all stages.
    Raises BadInput for stages or weights that are none.
    """

    def __init__(self, sources: Sequence[SourceConfig], stages: Sequence[StageConfig], compression: int, seed: int):
        starts = [stage.from_step for stage in stages]
        if not stages or starts[0] != 0 or starts != sorted(set(starts)):
            raise BadInput(f"stages must begin at rising steps after 0, got {starts[1:]}")
        self.names = tuple(source.name for source in sources)
        self.seed = seed
        weights = tuple(source.weights for source in sources)
        self._parts: list[_Part] = []
        for stage in stages:
            counts = self.counts_before(stage.from_step) if self._parts else (0,) * len(sources)
            mixture = Mixture(names=self.names, weights=weights, batch=stage.batch)
            self._parts.append(_Part(stage.from_step, bucket_shapes(stage, compression), mixture, counts))

    @property
    def shapes(self) -> tuple[Shape, ...]:
        """Of all stages, in the order in which they come, none twice."""
        return tuple(dict.fromkeys(shape for part in self._parts for shape in part.shapes))

    @property
    def batches(self) -> tuple[int, ...]:
        """Pictures a step of each stage."""
        return tuple(part.mixture.batch for part in self._parts)

    def batch_at(self, step: int) -> int:
        """Pictures of the batch of a step."""
        return self._part(step).mixture.batch

    def shape_at(self, step: int) -> Shape:
        """Height and width of its crops."""
        part = self._part(step)
        block, place = divmod(step - part.start, len(part.shapes))
        if len(part.shapes) == 1:
            return part.shapes[0]
        address = np.random.SeedSequence(self.seed, spawn_key=(3, part.start, block))
        return part.shapes[np.random.Generator(np.random.Philox(address)).permutation(len(part.shapes))[place]]

    def shares_at(self, step: int) -> tuple[Fraction, ...]:
        """The proportion of each source, as scheduled."""
        return self._part(step).mixture.shares(step)

    def quotas(self, step: int) -> tuple[int, ...]:
        """Pictures of each source in the batch of `step`."""
        return self._part(step).mixture.quotas(step)

    def counts_before(self, step: int) -> tuple[int, ...]:
        """Pictures of each source in all batches before `step`."""
        part = self._part(step)
        now, then = part.mixture.counts_before(step), part.mixture.counts_before(part.start)
        return tuple(c + a - b for c, a, b in zip(part.counts, now, then, strict=True))

    def slots(self, step: int) -> list[int]:
        """The source of every picture of the global batch."""
        return [source for source, quota in enumerate(self.quotas(step)) for _ in range(quota)]

    def _part(self, step: int) -> _Part:
        return self._parts[bisect_right([part.start for part in self._parts], step) - 1]
