"""SiT: the diffusion transformer that learns a velocity field over latents (Peebles & Xie 2022; Ma et al. 2024).

Legend: B samples, C channels, h w latent cells, N tokens, D width.
"""

import math

import torch
import torch.nn.functional as F
from pydantic import Field, model_validator
from torch import nn

from fonts_manifest.config import Config

_FREQUENCIES = 256  # of the time embedding


class SiTConfig(Config):
    """Size of the transformer; the default is SiT-B/1. S: 384, 12, 6. L: 1024, 24, 16. XL: 1152, 28, 16."""

    width: int = Field(default=768, ge=8)
    """Numbers a token."""
    depth: int = Field(default=12, ge=1)
    """Blocks."""
    heads: int = Field(default=12, ge=1)
    """Attention heads; they divide the width."""
    patch: int = Field(default=1, ge=1)
    """Latent cells a side in one token: 1 for f16 and f32, 2 for f8, so that every VAE gives as many tokens."""

    @model_validator(mode="after")
    def _heads_divide(self) -> "SiTConfig":
        if self.width % self.heads or self.width % 4:
            raise ValueError(f"the width must be a multiple of the heads and of 4, got {self.width} and {self.heads}")
        return self


class SiT(nn.Module):
    """v(x, t, label): latents (B, C, h, w), times (B,) in [0, 1], labels (B,) to velocities (B, C, h, w).

    Blocks are modulated by time and label (adaLN-Zero), so an untrained network gives 0. Raises ValueError when the
    latents cannot be cut into patches.
    """

    position_1ND: torch.Tensor

    def __init__(self, config: SiTConfig, channels: int, cells: int, classes: int) -> None:
        super().__init__()
        if cells % config.patch:
            raise ValueError(f"{cells} latent cells a side are no multiple of the patch {config.patch}")
        self.config = config
        self.channels = channels
        tokens = cells // config.patch
        self.embed_patch = nn.Conv2d(channels, config.width, config.patch, config.patch)
        self.embed_time = nn.Sequential(
            nn.Linear(_FREQUENCIES, config.width), nn.SiLU(), nn.Linear(config.width, config.width)
        )
        self.embed_label = nn.Embedding(classes, config.width)
        self.register_buffer("position_1ND", _positions(tokens, config.width), persistent=False)
        self.blocks = nn.ModuleList(_Block(config.width, config.heads) for _ in range(config.depth))
        self.norm = nn.LayerNorm(config.width, elementwise_affine=False, eps=1e-6)
        self.modulate_out = nn.Linear(config.width, 2 * config.width)
        self.project = nn.Linear(config.width, config.patch**2 * channels)
        self._initialise()

    def _initialise(self) -> None:
        for module in self.modules():
            if isinstance(module, nn.Linear):
                nn.init.xavier_uniform_(module.weight)
                nn.init.zeros_(module.bias)
        nn.init.xavier_uniform_(self.embed_patch.weight.flatten(1))
        nn.init.zeros_(self.embed_patch.bias)  # type: ignore[arg-type]
        for embedding in (self.embed_label, self.embed_time[0], self.embed_time[2]):
            nn.init.normal_(embedding.weight, std=0.02)  # type: ignore[arg-type]
        for name, parameter in self.named_parameters():
            if name.startswith(("modulate_out", "project")) or ".modulate." in name:
                nn.init.zeros_(parameter)

    def forward(self, x_BChw: torch.Tensor, t_B: torch.Tensor, label_B: torch.Tensor) -> torch.Tensor:
        """See the class."""
        height, width = (side // self.config.patch for side in x_BChw.shape[2:])
        x_BND = self.embed_patch(x_BChw).flatten(2).transpose(1, 2) + self.position_1ND
        condition_BD = F.silu(self.embed_time(time_waves(t_B).to(x_BND.dtype)) + self.embed_label(label_B))
        for block in self.blocks:
            x_BND = block(x_BND, condition_BD)
        shift_B1D, scale_B1D = self.modulate_out(condition_BD).unsqueeze(1).chunk(2, dim=2)
        patches = self.project(self.norm(x_BND) * (1 + scale_B1D) + shift_B1D)
        patches = patches.view(-1, height, width, self.config.patch, self.config.patch, self.channels)
        return patches.permute(0, 5, 1, 3, 2, 4).reshape(x_BChw.shape)


class _Block(nn.Module):
    """Attention and an MLP, each scaled, shifted and gated by the condition; gates start at 0."""

    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.norm = nn.LayerNorm(width, elementwise_affine=False, eps=1e-6)
        self.qkv = nn.Linear(width, 3 * width)
        self.attended = nn.Linear(width, width)
        self.mlp = nn.Sequential(nn.Linear(width, 4 * width), nn.GELU(approximate="tanh"), nn.Linear(4 * width, width))
        self.modulate = nn.Linear(width, 6 * width)

    def forward(self, x_BND: torch.Tensor, condition_BD: torch.Tensor) -> torch.Tensor:
        shift_a, scale_a, gate_a, shift_m, scale_m, gate_m = self.modulate(condition_BD).unsqueeze(1).chunk(6, dim=2)
        x_BND = x_BND + gate_a * self._attend(self.norm(x_BND) * (1 + scale_a) + shift_a)
        return x_BND + gate_m * self.mlp(self.norm(x_BND) * (1 + scale_m) + shift_m)

    def _attend(self, x_BND: torch.Tensor) -> torch.Tensor:
        batch, tokens, width = x_BND.shape
        qkv = self.qkv(x_BND).view(batch, tokens, 3, self.heads, width // self.heads).permute(2, 0, 3, 1, 4)
        return self.attended(F.scaled_dot_product_attention(*qkv).transpose(1, 2).reshape(x_BND.shape))


def time_waves(t_B: torch.Tensor) -> torch.Tensor:
    """(B, 256) cosines and sines of the times at frequencies from 1 to 1/10,000 (DiT's, without its factor 1,000)."""
    half = _FREQUENCIES // 2
    frequency = torch.exp(-math.log(10_000) * torch.arange(half, dtype=torch.float32, device=t_B.device) / half)
    angle = t_B.float()[:, None] * frequency[None]
    return torch.cat([angle.cos(), angle.sin()], dim=1)


def _positions(side: int, width: int) -> torch.Tensor:
    """(1, side^2, width) sines and cosines of column and row, fixed."""
    frequency = 1 / 10_000 ** (torch.arange(width // 4, dtype=torch.float64) / (width / 4))
    wave = torch.arange(side, dtype=torch.float64)[:, None] * frequency[None]
    line = torch.cat([wave.sin(), wave.cos()], dim=1)
    across = line[None].expand(side, side, -1)
    down = line[:, None].expand(side, side, -1)
    return torch.cat([across, down], dim=2).reshape(1, side * side, width).float()
