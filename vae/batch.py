"""What the trainer sees of the data: one batch.

Legend: B pictures, H W pixels.
"""

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

if TYPE_CHECKING:
    import torch  # loader workers import this file and need none of it: 2 s and 200 MB a process


@dataclass(frozen=True, slots=True, kw_only=True)
class Batch:
    """The pictures of one step, or the part of them that one rank works on."""

    levels_B3HW: npt.NDArray[np.uint8]
    """sRGB, contiguous: a quarter of the bytes to move, turned into numbers where they are used."""
    source_ids: tuple[int, ...]
    """Index of each picture's source in the mixture."""
    row_ids: tuple[str, ...]
    """Column `row_id` of each picture."""
    step: int
    quads_px: tuple[npt.NDArray[np.float32], ...] = ()
    """(L, 4, 2) corners of the lines known on each picture, in px of the crop, some of them outside; when asked for."""

    @property
    def images_B3HW(self) -> "torch.Tensor":
        """float32 sRGB in [-1, 1], contiguous; made anew at every call."""
        import torch

        return levels_to_unit_range(torch.from_numpy(self.levels_B3HW))


def to_unit_range(images_BHW3: npt.NDArray[np.uint8]) -> "torch.Tensor":
    """uint8 (B, H, W, 3) to float32 (B, 3, H, W) in [-1, 1]; 0 and 255 become exactly -1 and 1."""
    import torch

    return levels_to_unit_range(torch.from_numpy(images_BHW3).permute(0, 3, 1, 2)).contiguous()


def levels_to_unit_range(levels_B3HW: "torch.Tensor") -> "torch.Tensor":
    """uint8 to float32 in [-1, 1] on the same device; 0 and 255 become exactly -1 and 1."""
    return levels_B3HW.float().div_(127.5).sub_(1.0)


def to_uint8(images_B3HW: "torch.Tensor") -> npt.NDArray[np.uint8]:
    """The way back, rounded and clamped: (B, H, W, 3)."""
    import torch

    levels = images_B3HW.float().add(1.0).mul(127.5).round().clamp(0, 255).to(torch.uint8)
    return np.ascontiguousarray(levels.permute(0, 2, 3, 1).cpu().numpy())


Shape = tuple[int, int]
"""Height and width in pixels."""


def crop_places(seed: int, step: int, batch: int) -> npt.NDArray[np.float64]:
    """(B, 2) where in its picture each crop of a global batch lies, down and across, in [0, 1): a function of its place
    in training alone, whoever asks for which part of the batch."""
    return np.random.Generator(np.random.Philox(np.random.SeedSequence(seed, spawn_key=(1, step)))).random((batch, 2))


def crop_corner(place_2: npt.NDArray[np.float64], picture: Shape, crop: Shape) -> tuple[int, int]:
    """Top and left of a crop, all equally likely.

    Raises ValueError when the picture is smaller than the crop: pictures are never resized.
    """
    spare_down, spare_across = picture[0] - crop[0], picture[1] - crop[1]
    if spare_down < 0 or spare_across < 0:
        raise ValueError(f"a picture of {picture[1]}x{picture[0]} px cannot give a crop of {crop[1]}x{crop[0]} px")
    return int(place_2[0] * (spare_down + 1)), int(place_2[1] * (spare_across + 1))
