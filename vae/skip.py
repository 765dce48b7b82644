"""The global skip: one fixed linear map from the pixels of a cell to numbers of the network, and back.

A cell is f x f pixels of three colours in the channel order of `torch.nn.functional.pixel_unshuffle`
(colour, row, column): D = 3 f^2 numbers. A basis holds C orthonormal rows over them, each with a scale s:

    z = basis (x - centre) / s,        x' = basis^T (s z) + centre

For the `mean` basis s = sqrt(D / C): z is the mean over groups of D / C pixels and x' repeats it, which is the paper's
global skip connection (its section 2) to the letter. `dct` and `pca` are better bases of the same shape, without
parameters either; their s is the typical deviation of a coefficient, so that z has channels of like size.
Without a network the pair is a linear codec: the yardstick that every trained model must beat.

Legend: N cells, C latent channels, D numbers of a cell, B batch, H W pixels, h w cells.
"""

from typing import Literal, NamedTuple

import numpy as np
import numpy.typing as npt
import torch
import torch.nn.functional as F
from torch import nn

SkipBasis = Literal["mean", "dct", "pca"]
GroupOrder = Literal["raster", "morton"]


def morton_order(factor: int) -> npt.NDArray[np.int64]:
    """Raster index of the n-th pixel of a factor x factor square along the Z curve; factor is a power of two."""
    index = np.arange(factor * factor)
    row, column = np.zeros_like(index), np.zeros_like(index)
    for bit in range(factor.bit_length() - 1):
        column |= ((index >> (2 * bit)) & 1) << bit
        row |= ((index >> (2 * bit + 1)) & 1) << bit
    return row * factor + column


def mean_basis(factor: int, channels: int, order: GroupOrder = "raster") -> npt.NDArray[np.float32]:
    """(C, D) rows that average D / C neighbours of one colour, along rows or along the Z curve.

    Raises ValueError when 3 f^2 is no multiple of C.
    """
    size = 3 * factor * factor
    group, rest = divmod(size, channels)
    if rest:
        raise ValueError(f"3 x {factor} x {factor} = {size} numbers of a cell do not divide into {channels} groups")
    square = morton_order(factor) if order == "morton" else np.arange(factor * factor)
    place = np.concatenate([square + colour * factor * factor for colour in range(3)])
    basis = np.zeros((channels, size), np.float32)
    basis[np.arange(size) // group, place] = 1 / np.sqrt(group)
    return basis


def dct_basis(factor: int, channels: int) -> tuple[npt.NDArray[np.float32], npt.NDArray[np.float32]]:
    """(C, D) rows of the two-dimensional DCT-II, low frequencies first: C/16 for either chroma axis, the rest for grey.

    Colours are turned by the orthonormal axes (1, 1, 1), (1, 0, -1), (1, -2, 1): equal shares for both chroma axes make
    the choice inside their plane irrelevant. Beside it (C,) the scale of each row: natural pictures have spectra that
    fall as 1 / frequency (on photographs under text the measured deviations lie within a factor of 2 of it).
    Raises ValueError when C is above 3 f^2.
    """
    if channels > 3 * factor * factor:
        raise ValueError(
            f"a cell of {factor}x{factor} pixels has {3 * factor * factor} numbers, {channels} were asked for"
        )
    n = np.arange(factor)
    cosine = np.cos(np.pi * (2 * n[None] + 1) * n[:, None] / (2 * factor)) * np.sqrt(2 / factor)
    cosine[0] /= np.sqrt(2)
    row, column = np.divmod(np.arange(factor * factor), factor)
    low_first = np.lexsort((row, row * row + column * column))
    axes = np.array([[1, 1, 1], [1, 0, -1], [1, -2, 1]]) / np.sqrt([[3], [2], [6]])
    chroma = max(channels // 16, (channels - factor * factor + 1) // 2)
    rows, scales = [], []
    for axis, count, strength in zip(axes, (channels - 2 * chroma, chroma, chroma), (1.0, 0.3, 0.3), strict=True):
        for k in low_first[:count]:
            rows.append(np.einsum("c,i,j->cij", axis, cosine[row[k]], cosine[column[k]]).ravel())
            radius = np.hypot(row[k], column[k])
            scales.append(strength * factor * (0.25 / (1 + radius) if radius else 0.8))
    return np.array(rows, np.float32), np.array(scales, np.float32)


class CellMoments:
    """Mean and covariance of cells that need not fit into memory together."""

    def __init__(self, size: int) -> None:
        self.count = 0
        self._sum_D = np.zeros(size)
        self._products_DD = np.zeros((size, size))

    def add(self, cells_ND: npt.NDArray[np.float32]) -> None:
        """Take in more cells."""
        for start in range(0, len(cells_ND), 4096):
            part_ND = cells_ND[start : start + 4096].astype(np.float64)
            self._sum_D += part_ND.sum(axis=0)
            self._products_DD += part_ND.T @ part_ND
        self.count += len(cells_ND)

    @property
    def variance(self) -> float:
        """Of all numbers of a cell together."""
        centre_D = self._sum_D / self.count
        return float(self._products_DD.trace() / self.count - centre_D @ centre_D)

    def components(self, channels: int) -> "Basis":
        """The C principal components, strongest first, their deviations and the mean cell.

        The sign of a row is fixed (its largest entry is positive), so equal cells give equal rows on any machine.
        Raises ValueError when there are fewer than C cells, or D is below C.
        """
        size = len(self._sum_D)
        if not channels <= min(self.count, size):
            raise ValueError(
                f"{channels} components need as many cells of as many numbers at least, got {self.count} of {size}"
            )
        centre_D = self._sum_D / self.count
        covariance_DD = self._products_DD / self.count - np.outer(centre_D, centre_D)
        values, vectors = np.linalg.eigh(covariance_DD)
        rows = vectors.T[::-1][:channels]
        rows = rows * np.sign(rows[np.arange(channels), np.abs(rows).argmax(axis=1)])[:, None]
        scales = np.sqrt(np.maximum(values[::-1][:channels], 1e-8))
        return Basis(rows.astype(np.float32), scales.astype(np.float32), centre_D.astype(np.float32))


class Basis(NamedTuple):
    """Numbers of a linear skip."""

    rows_CD: npt.NDArray[np.float32]
    """Orthonormal."""
    scales_C: npt.NDArray[np.float32]
    centre_D: npt.NDArray[np.float32]


def cells_of(images_B3HW: torch.Tensor, factor: int) -> npt.NDArray[np.float32]:
    """All cells (N, D) of images in [-1, 1] whose sides are multiples of `factor`."""
    return F.pixel_unshuffle(images_B3HW, factor).permute(0, 2, 3, 1).reshape(-1, 3 * factor * factor).numpy()


class LinearSkip(nn.Module):
    """The fixed linear codec. Its numbers are buffers: they travel with the weights and are no parameters."""

    basis: torch.Tensor
    scale: torch.Tensor
    centre: torch.Tensor

    def __init__(self, factor: int, channels: int, basis: SkipBasis = "mean", order: GroupOrder = "raster") -> None:
        super().__init__()
        self.factor = factor
        if basis == "mean":
            rows = mean_basis(factor, channels, order)
            scale = np.full(channels, (3 * factor * factor / channels) ** 0.5, np.float32)
        else:  # a PCA must be loaded or fitted; until then its place is held by the DCT
            rows, scale = dct_basis(factor, channels)
        self.register_buffer("basis", torch.from_numpy(rows))
        self.register_buffer("scale", torch.from_numpy(scale))
        self.register_buffer("centre", torch.from_numpy(np.zeros(3 * factor * factor, np.float32)))

    def use(self, basis: Basis) -> None:
        """Take the first C rows of a basis of this compression."""
        channels = len(self.basis)
        self.basis.copy_(torch.from_numpy(basis.rows_CD[:channels]))
        self.scale.copy_(torch.from_numpy(basis.scales_C[:channels]))
        self.centre.copy_(torch.from_numpy(basis.centre_D))

    def fit(self, images_B3HW: torch.Tensor) -> None:
        """Take the principal components of these images, float32 in [-1, 1]."""
        moments = CellMoments(self.basis.shape[1])
        moments.add(cells_of(images_B3HW, self.factor))
        self.use(moments.components(len(self.basis)))

    def encode(self, images_B3HW: torch.Tensor) -> torch.Tensor:
        """Latents (B, C, h, w)."""
        weight = self.basis / self.scale[:, None]
        cells = F.pixel_unshuffle(images_B3HW, self.factor)
        return F.conv2d(cells, weight[:, :, None, None], -(weight @ self.centre))

    def decode(self, latents_BChw: torch.Tensor) -> torch.Tensor:
        """Pictures (B, 3, H, W), not clamped."""
        weight = self.basis.T * self.scale
        return F.pixel_shuffle(F.conv2d(latents_BChw, weight[:, :, None, None], self.centre), self.factor)
