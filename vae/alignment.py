"""Semantic alignment: the latents, linearly projected, resemble one middle layer of a DINOv2, cell by cell.

Qwen-Image-VAE-2.0 report (arXiv:2605.13565), section 4.2, after VA-VAE (arXiv:2501.01423). The network is frozen, is
loaded from a local folder or from what `transformers` has in its cache, and sees the original pictures, never the
reconstructions.

Legend: B pictures, H W pixels, h w latent cells, N = h w positions, C latent channels, D feature width.
"""

from collections.abc import Callable
from typing import TYPE_CHECKING

import numpy as np
import torch
import torch.nn.functional as F
from torch import nn

from fonts_manifest.errors import BadInput
from vae.losses import l_mcos, l_mdms

if TYPE_CHECKING:
    from transformers import Dinov2Model

MAX_POSITIONS = 1024
"""Above so many the pairs of L_mdms are those of sampled positions: at 2,048 px 16,384 positions are 1 GiB a matrix."""

_PATCHES_PX = 16
"""The picture is resized so that a patch of the network covers so many of its pixels, as a cell of an f16 latent."""

_IMAGENET_MEAN, _IMAGENET_STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)


class SemanticEncoder(nn.Module):
    """Pictures to one feature a latent cell, from the output of block `layer` of a DINOv2, without its last norm."""

    mean: torch.Tensor
    std: torch.Tensor

    def __init__(self, network: "Dinov2Model", layer: int, compression: int) -> None:
        super().__init__()
        network.encoder.layer = network.encoder.layer[:layer]  # what lies above is never needed
        network.layernorm = nn.Identity()  # type: ignore[assignment]
        self.network = network
        self.width: int = network.config.hidden_size
        self.patch_px = int(network.config.patch_size)  # type: ignore[arg-type]
        self.compression = compression
        self.register_buffer("mean", torch.tensor(_IMAGENET_MEAN).view(1, 3, 1, 1))
        self.register_buffer("std", torch.tensor(_IMAGENET_STD).view(1, 3, 1, 1))
        self.eval().requires_grad_(False)

    @torch.no_grad()
    def forward(self, images_B3HW: torch.Tensor) -> torch.Tensor:
        """(B, N, D) features, float32, of pictures in [-1, 1] with sides that are multiples of the compression.

        The patch grid is the latent grid of an f16 model (for smaller compressions that of the model itself); for f32
        the features of 2 x 2 patches are averaged. Positional embeddings are interpolated: any aspect ratio.
        """
        height, width = images_B3HW.shape[2:]
        patch_source_px = min(self.compression, _PATCHES_PX)
        grid_hw = (height // patch_source_px, width // patch_source_px)
        size_HW = (grid_hw[0] * self.patch_px, grid_hw[1] * self.patch_px)
        unit_B3HW = (images_B3HW.float() + 1) / 2
        resized_B3HW = F.interpolate(unit_B3HW, size_HW, mode="bicubic", align_corners=False, antialias=True)
        tokens_BTD = self.network(pixel_values=(resized_B3HW - self.mean) / self.std).last_hidden_state
        features_BDhw = tokens_BTD[:, 1:].float().transpose(1, 2).unflatten(2, grid_hw)
        pooled_BDhw = F.avg_pool2d(features_BDhw, self.compression // patch_source_px)
        return pooled_BDhw.flatten(2).transpose(1, 2)


def load_dinov2(place: str, layer: int, compression: int) -> SemanticEncoder:
    """A frozen DINOv2 up to its block `layer` (from 1), from a folder or from the cache of `transformers`.

    Nothing is downloaded. Raises BadInput when it is not there, is no DINOv2 without registers, or has fewer blocks.
    """
    from transformers import AutoConfig, Dinov2Model  # 2 s: only where the term is used
    from transformers.utils import logging

    logging.disable_progress_bar()
    try:
        config = AutoConfig.from_pretrained(place, local_files_only=True)
        if config.model_type != "dinov2":
            raise BadInput(f"{place}: holds a {config.model_type}, the alignment term needs a dinov2")
        if not 1 <= layer <= config.num_hidden_layers:
            raise BadInput(f"losses.align_layer must be 1 to {config.num_hidden_layers} for {place}, got {layer}")
        network = Dinov2Model.from_pretrained(place, local_files_only=True, use_safetensors=True)
    except OSError as error:
        raise BadInput(
            f"{place}: no DINOv2 here nor in the cache of transformers, which the alignment term needs; fetch it with "
            f"`hf download {place}`, name a folder as losses.align_model, or set losses.align to 0"
        ) from error
    return SemanticEncoder(network, layer, compression)


def sample_positions(count: int, seed: int, step: int, most: int = MAX_POSITIONS) -> torch.Tensor | None:
    """`most` different positions out of `count`, rising, a function of (seed, step) alone; None when all are used."""
    if count <= most:
        return None
    rng = np.random.Generator(np.random.Philox(np.random.SeedSequence(seed, spawn_key=(2, step))))
    return torch.from_numpy(np.sort(rng.choice(count, most, replace=False)))


def alignment_terms(
    projected_BDhw: torch.Tensor,
    features_BND: torch.Tensor,
    margin_cos: float,
    margin_dist: float,
    positions: torch.Tensor | None = None,
) -> dict[str, torch.Tensor]:
    """L_mcos over all positions and L_mdms over the pairs of `positions` (of all, when None), each (B,).

    projected: z' = W z, the latents through a learned 1x1 convolution without bias.
    """
    projected_BND = projected_BDhw.flatten(2).transpose(1, 2)
    pairs = (projected_BND, features_BND)
    if positions is not None:
        index = positions.to(projected_BND.device)
        pairs = (projected_BND[:, index], features_BND[:, index])
    return {
        "mcos": l_mcos(projected_BND, features_BND, margin_cos),
        "mdms": l_mdms(*pairs, margin_dist),
    }


def adaptive_weight(
    reconstruction: torch.Tensor,
    alignment: torch.Tensor,
    last_layer: torch.Tensor,
    reduce: Callable[[torch.Tensor], torch.Tensor] = lambda gradient: gradient,
) -> torch.Tensor:
    """||grad of the reconstruction loss|| / ||grad of the alignment loss|| at the encoder's last layer, a constant.

    VA-VAE's adaptive weighting: multiplied with it, both pull equally on the latents. `reduce` averages a gradient
    over the processes of a job, so that their number changes nothing.
    """
    norms = []
    for loss in (reconstruction, alignment):
        (gradient,) = torch.autograd.grad(loss, last_layer, retain_graph=True)
        norms.append(torch.linalg.vector_norm(reduce(gradient)))
    return (norms[0] / (norms[1] + 1e-4)).clamp(0, 1e8).detach()
