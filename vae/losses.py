"""Loss terms as pure functions: one value a picture, so that logs can tell sources apart.

Legend: B pictures, H W pixels, C channels, N = h w positions, D feature width.
"""

from typing import Literal

import torch
import torch.nn.functional as F
from pydantic import Field

from fonts_manifest.config import Config
from vae.schedule import Schedule


class LossConfig(Config):
    """Weights of the terms, each a number or knots `[[step, value], ...]`; a term of weight 0 is not computed.

    L = l1 L1 + lpips LPIPS + align (L_mcos + L_mdms) in the report; no KL, no GAN. The others are this project's.
    """

    l1: Schedule = ((0, 1.0),)
    """Mean absolute error, the paper's reconstruction term."""
    mse: Schedule = ((0, 0.0),)
    """Mean squared error: near the linear skip its gradient grows with the error, and short runs gain most by it."""
    gradient: Schedule = ((0, 0.0),)
    """Error of the picture's gradients at three scales."""
    lpips: Schedule = ((0, 0.0),)
    """Perceptual distance on VGG16 (1 in the report's terms)."""
    vgg_weights: str | None = None
    """torchvision's file of VGG16; without it torch's cache of downloads is searched."""
    align: Schedule = ((0, 0.0),)
    """Semantic alignment of the latents with DINOv2, L_mcos + L_mdms."""
    margin_cos: Schedule = ((0, 0.0),)
    """m_cos: by how much a cosine may fall short of 1. Strict is 0, VA-VAE trains with 0.5."""
    margin_dist: Schedule = ((0, 0.0),)
    """m_dist: by how much two similarities may differ. Strict is 0, VA-VAE trains with 0.25."""
    align_model: str = "facebook/dinov2-large"
    """A name in the cache of `transformers`, or a folder."""
    align_layer: int = Field(default=12, ge=1)
    """The block whose output is aligned with: a middle one; the report does not say which."""
    read: Schedule = ((0, 0.0),)
    """What PP-OCR's recogniser and detector see on the reconstruction against the original."""
    read_lines: int = Field(default=4, ge=1)
    """Lines of known place that are read on each picture, at most."""
    read_depth: Literal["all", "early"] = "all"
    """all: features, characters, places; early: the first stage of the recogniser alone, for a fraction of the cost."""
    read_every: int = Field(default=1, ge=1)
    """The reader looks at every so many steps, and its weight is as many times larger then: it costs more than a small
    model."""
    align_adaptive: bool = False
    """Scale the alignment so that its gradient at the encoder's end is as long as the reconstruction's (VA-VAE)."""


def l1(output_B3HW: torch.Tensor, target_B3HW: torch.Tensor) -> torch.Tensor:
    """(B,) mean |y - x| over colours and pixels, in float32."""
    return (output_B3HW.float() - target_B3HW.float()).abs().flatten(1).mean(1)


def mse(output_B3HW: torch.Tensor, target_B3HW: torch.Tensor) -> torch.Tensor:
    """(B,) mean (y - x)^2 over colours and pixels, in float32."""
    return (output_B3HW.float() - target_B3HW.float()).square().flatten(1).mean(1)


def gradient_l1(output_B3HW: torch.Tensor, target_B3HW: torch.Tensor, scales: int = 3) -> torch.Tensor:
    """(B,) mean |grad y - grad x| over horizontal and vertical neighbours, averaged over `scales` halvings.

    A cheap term for edges that needs no weights; H and W are at least 2^scales px.
    """
    error = output_B3HW.float() - target_B3HW.float()  # the gradient is linear
    total = torch.zeros(len(error), device=error.device)
    for _ in range(scales):
        across, down = error.diff(dim=3), error.diff(dim=2)
        total = total + (across.abs().flatten(1).mean(1) + down.abs().flatten(1).mean(1)) / 2
        error = F.avg_pool2d(error, 2)
    return total / scales


def l_mcos(projected_BND: torch.Tensor, feature_BND: torch.Tensor, margin: float) -> torch.Tensor:
    """(B,) marginal cosine loss (Qwen-Image-VAE-2.0 report, section 4.2):

    L_mcos = 1/N sum_p ReLU(1 - cos(z'_p, f_p) - m_cos)

    projected: the latents through the learned projection, z' = W z; feature: the semantic encoder's.
    """
    cosine_BN = F.cosine_similarity(projected_BND.float(), feature_BND.float(), dim=2)
    return F.relu(1 - cosine_BN - margin).mean(1)


def l_mdms(projected_BND: torch.Tensor, feature_BND: torch.Tensor, margin: float) -> torch.Tensor:
    """(B,) marginal distance matrix similarity loss (the same section):

    L_mdms = 1/N^2 sum_p sum_q ReLU(|cos(z'_p, z'_q) - cos(f_p, f_q)| - m_dist)

    Memory grows with N^2: sample positions above some 1,024 before calling.
    """
    z_BND, f_BND = F.normalize(projected_BND.float(), dim=2), F.normalize(feature_BND.float(), dim=2)
    difference_BNN = z_BND @ z_BND.transpose(1, 2) - f_BND @ f_BND.transpose(1, 2)
    return F.relu(difference_BNN.abs() - margin).flatten(1).mean(1)
