"""What can be said of latents without training a generator: cheap, and none of it decides.

Legend: B N pictures, C channels, h w latent cells, H W pixels.
"""

import math
from collections.abc import Callable, Sequence

import numpy as np
import numpy.typing as npt
import torch
import torch.nn.functional as F

_Values = npt.NDArray[np.float64]


def radial_spectrum(latents_BChw: torch.Tensor) -> tuple[_Values, _Values]:
    """Frequencies in cycles a cell, (K,) up to 0.5, and the mean power of each ring, (K,), summing to 1 over the rings.

    Averaged over pictures and channels, the mean of every channel taken off, a Hann window against the wrap at the
    borders. White noise has equal power in every ring, pictures fall like 1 / f^2. Raises ValueError below 4 cells.
    """
    height, width = latents_BChw.shape[2:]
    if min(height, width) < 4:
        raise ValueError(f"a spectrum needs at least 4 x 4 cells, got {height} x {width}")
    window = torch.outer(torch.hann_window(height + 2)[1:-1], torch.hann_window(width + 2)[1:-1])
    centred = latents_BChw.float() - latents_BChw.float().mean(dim=(0, 2, 3), keepdim=True)
    power_hw = torch.fft.rfft2(centred * window.to(centred.device)).abs().square().mean(dim=(0, 1)).cpu().double()
    radius = torch.hypot(torch.fft.fftfreq(height)[:, None], torch.fft.rfftfreq(width)[None]).double()
    rings = min(height, width) // 2
    ring = torch.clamp((radius * 2 * rings).round().long(), max=rings)
    inside = (ring >= 1) & (radius <= 0.5)
    total = torch.zeros(rings + 1, dtype=torch.float64).index_add_(0, ring[inside], power_hw[inside])
    count = torch.zeros(rings + 1, dtype=torch.float64).index_add_(0, ring[inside], torch.ones_like(power_hw[inside]))
    mean = (total / count.clamp_min(1))[1:]
    share = mean / mean.sum().clamp_min(1e-30)
    return np.arange(1, rings + 1) / (2 * rings), share.numpy()


def spectral_slope(frequency_K: _Values, power_K: _Values) -> float:
    """Exponent of power over frequency, least squares in log-log: 0 for white noise, -2 for pictures."""
    positive = power_K > 0
    slope, _ = np.polyfit(np.log(frequency_K[positive]), np.log(power_K[positive]), 1)
    return float(slope)


def high_share(frequency_K: _Values, power_K: _Values) -> float:
    """Share of the power of the rings above half the finest frequency, 0 to 1; white noise has 1/2."""
    return float(power_K[frequency_K > 0.25].sum() / power_K.sum())


def effective_channels(latents_BChw: torch.Tensor) -> float:
    """Participation ratio of the eigenvalues of the channels' covariance, 1 to C: how many channels there really are.

    Of standardised latents, so a channel of large numbers counts no more than others.
    """
    flat_CM = latents_BChw.double().transpose(0, 1).flatten(1)
    eigenvalues = torch.linalg.eigvalsh(torch.cov(flat_CM).reshape(len(flat_CM), len(flat_CM)))
    return float(eigenvalues.sum() ** 2 / eigenvalues.square().sum())


def knn_accuracy(latents_NChw: torch.Tensor, labels_N: npt.NDArray[np.int64], k: int = 10) -> tuple[float, float]:
    """Share of pictures whose class most of their k nearest others have, and what the commonest class alone would give.

    By cosine between latents averaged to at most 4 x 4 cells; ties go to the nearer class. Raises ValueError for fewer
    than two classes or k + 1 pictures.
    """
    classes = len(np.unique(labels_N))
    if classes < 2 or len(labels_N) <= k:
        raise ValueError(f"kNN needs 2 classes and more than {k} pictures, got {classes} and {len(labels_N)}")
    side = min(4, *latents_NChw.shape[2:])
    features = F.normalize(F.adaptive_avg_pool2d(latents_NChw.float(), side).flatten(1), dim=1)
    labels = torch.from_numpy(labels_N).to(features.device)
    similarity = features @ features.T
    similarity.fill_diagonal_(-math.inf)
    nearest = similarity.topk(k, dim=1)
    votes = F.one_hot(labels[nearest.indices], int(labels.max()) + 1).float()
    # Weights below any whole vote: the nearer class wins a tie.
    votes = (votes * (1 + nearest.values.unsqueeze(2).clamp(-1, 1) / (4 * k))).sum(1)
    found = float((votes.argmax(1) == labels).float().mean())
    return found, float(np.bincount(labels_N).max() / len(labels_N))


def equivariance_errors(
    encode: Callable[[torch.Tensor], torch.Tensor],
    decode: Callable[[torch.Tensor], torch.Tensor],
    images_B3HW: torch.Tensor,
) -> dict[str, tuple[float, float]]:
    """Name -> (error in the latents, PSNR in dB of the pictures) for a half in scale and turns by 90, 180, 270 degrees.

    Latents: mean squared difference of encode(T x) and T encode(x) over the variance of encode(T x); 0 is equivariant,
    1 is as bad as a constant. Pictures: T of the latent decoded against T of the picture, in [-1, 1] (EQ-VAE,
    arXiv:2502.09509). A scale of 1/2 averages 2 x 2 pixels or cells; sizes must allow it.
    """

    def half(x: torch.Tensor) -> torch.Tensor:
        return F.avg_pool2d(x, 2)

    latents = encode(images_B3HW)
    found = {}
    transforms: Sequence[tuple[str, Callable[[torch.Tensor], torch.Tensor]]] = (
        ("half size", half),
        *((f"turned {90 * turns}", lambda x, turns=turns: torch.rot90(x, turns, (2, 3))) for turns in (1, 2, 3)),
    )
    for name, transform in transforms:
        images = transform(images_B3HW)
        wanted, moved = encode(images), transform(latents)
        error = (wanted - moved).square().mean() / wanted.var().clamp_min(1e-12)
        picture = decode(moved)[..., : images.shape[2], : images.shape[3]].clamp(-1, 1)
        squared = (picture - images.to(picture.device)).square().mean()
        found[name] = float(error), float(10 * torch.log10(4 / squared.clamp_min(1e-12)))
    return found
