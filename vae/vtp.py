"""VTP as MiniMax publishes it: a vision transformer with a bottleneck, and one that paints patches, in both directions

The folder of its transformers model: config.json and safetensors. Of the whole only what reconstructs is opened; the
text encoder stays closed. Yao et al. 2025, "Towards Scalable Pre-training of Visual Tokenizers for Generation".

Legend: B pictures, N tokens, C channels, D width, h w patches.
"""

import json
import math
from pathlib import Path
from typing import Literal

import torch
import torch.nn.functional as F
from diffusers.models.autoencoders.vae import DecoderOutput, EncoderOutput
from pydantic import ConfigDict, Field, ValidationError
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import nn

from fonts_manifest.config import Config
from fonts_manifest.errors import BadInput

_Ffn = Literal["mlp", "swiglu", "swiglu32", "swiglu64", "swiglu128"]
_Norm = Literal["layernorm", "layernormbf16", "rmsnorm"]


class _VTPConfig(Config):
    """What config.json says of the parts that reconstruct."""

    model_config = ConfigDict(extra="ignore")

    model_type: Literal["vtp"]
    train_reconstruction: Literal[True]
    vision_patch_size: Literal[16]
    vision_embed_dim: int = Field(ge=4)
    vision_depth: int = Field(ge=1)
    vision_num_heads: int = Field(ge=1)
    vision_mlp_ratio: float = 4.0
    vision_ffn_layer: _Ffn
    vision_norm_layer: _Norm
    vision_init_values: float | None = None
    vision_use_qk_norm: bool = False
    vision_feature_bottleneck: int = Field(ge=1)
    decoder_embed_dim: int = Field(ge=4)
    decoder_depth: int = Field(ge=1)
    decoder_num_heads: int = Field(ge=1)
    decoder_ffn_layer: _Ffn
    decoder_norm_layer: _Norm
    decoder_init_values: float | None = None
    decoder_use_qk_norm: bool = False


class _Rotary(nn.Module):
    """DINOv3's positions: rows and columns in (-1, 1), in bfloat16 as in its training."""

    periods: torch.Tensor

    def __init__(self, head_width: int) -> None:
        super().__init__()
        quarter = torch.arange(head_width // 4, dtype=torch.bfloat16)
        self.register_buffer("periods", 100.0 ** (2 * quarter / (head_width // 2)))

    def forward(self, h: int, w: int) -> tuple[torch.Tensor, torch.Tensor]:
        """Sines and cosines (h w, head width)."""
        rows, columns = (
            torch.arange(0.5, count, device=self.periods.device, dtype=torch.bfloat16) / count for count in (h, w)
        )
        places_N2 = torch.stack(torch.meshgrid(rows, columns, indexing="ij"), dim=-1).flatten(0, 1) * 2.0 - 1.0
        angles = (2 * math.pi * places_N2[:, :, None] / self.periods).flatten(1).tile(2)
        return angles.sin(), angles.cos()


def _turn(x: torch.Tensor, sine: torch.Tensor, cosine: torch.Tensor) -> torch.Tensor:
    """The last tokens of (B, heads, N, width), as many as there are angles, turned; those before have no place."""
    before, placed = x.split([x.shape[2] - len(sine), len(sine)], dim=2)
    placed = placed.to(sine.dtype)
    first, second = placed.chunk(2, dim=-1)
    turned = placed * cosine + torch.cat((-second, first), dim=-1) * sine
    return torch.cat((before, turned.to(x.dtype)), dim=2)


class _Attention(nn.Module):
    def __init__(self, width: int, heads: int, norm: bool) -> None:
        super().__init__()
        self.heads = heads
        self.qkv, self.proj = nn.Linear(width, 3 * width), nn.Linear(width, width)
        self.q_norm, self.k_norm = (nn.RMSNorm(width // heads, eps=1e-5) if norm else nn.Identity() for _ in range(2))

    def forward(self, x_BND: torch.Tensor, angles: tuple[torch.Tensor, torch.Tensor]) -> torch.Tensor:
        query, key, value = self.qkv(x_BND).unflatten(2, (3, self.heads, -1)).permute(2, 0, 3, 1, 4)
        query, key = _turn(self.q_norm(query), *angles), _turn(self.k_norm(key), *angles)
        seen = F.scaled_dot_product_attention(query, key, value)
        out: torch.Tensor = self.proj(seen.transpose(1, 2).flatten(2))
        return out


class _Mlp(nn.Module):
    def __init__(self, width: int, hidden: int) -> None:
        super().__init__()
        self.fc1, self.fc2 = nn.Linear(width, hidden), nn.Linear(hidden, width)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        out: torch.Tensor = self.fc2(F.gelu(self.fc1(x)))
        return out


class _SwiGLU(nn.Module):
    def __init__(self, width: int, hidden: int, multiple: int) -> None:
        super().__init__()
        hidden = math.ceil(int(hidden * 2 / 3) / multiple) * multiple
        self.w1, self.w2 = nn.Linear(width, hidden), nn.Linear(width, hidden)
        self.w3 = nn.Linear(hidden, width)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        out: torch.Tensor = self.w3(F.silu(self.w1(x)) * self.w2(x))
        return out


class _Scale(nn.Module):
    def __init__(self, width: int) -> None:
        super().__init__()
        self.gamma = nn.Parameter(torch.ones(width))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x * self.gamma


def _norm(kind: _Norm, width: int) -> nn.Module:
    if kind == "rmsnorm":
        return nn.RMSNorm(width, eps=1e-5)
    return nn.LayerNorm(width, eps=1e-6 if kind == "layernorm" else 1e-5)


class _Block(nn.Module):
    def __init__(self, width: int, heads: int, ratio: float, ffn: _Ffn, norm: _Norm, scaled: bool, qk: bool) -> None:
        super().__init__()
        hidden = int(width * ratio)
        self.norm1, self.norm2 = _norm(norm, width), _norm(norm, width)
        self.attn = _Attention(width, heads, qk)
        self.mlp = _Mlp(width, hidden) if ffn == "mlp" else _SwiGLU(width, hidden, int(ffn[6:] or 8))
        self.ls1, self.ls2 = (_Scale(width) if scaled else nn.Identity() for _ in range(2))

    def forward(self, x_BND: torch.Tensor, angles: tuple[torch.Tensor, torch.Tensor]) -> torch.Tensor:
        x_BND = x_BND + self.ls1(self.attn(self.norm1(x_BND), angles))
        return x_BND + self.ls2(self.mlp(self.norm2(x_BND)))


class _PatchEmbed(nn.Module):
    def __init__(self, width: int, patch: int) -> None:
        super().__init__()
        self.proj = nn.Conv2d(3, width, patch, patch)


class _Encoder(nn.Module):
    def __init__(self, config: _VTPConfig) -> None:
        super().__init__()
        width, heads = config.vision_embed_dim, config.vision_num_heads
        kind = config.vision_ffn_layer, config.vision_norm_layer
        scaled, qk = config.vision_init_values is not None, config.vision_use_qk_norm
        self.patch_embed = _PatchEmbed(width, config.vision_patch_size)
        self.cls_token = nn.Parameter(torch.zeros(1, 1, width))
        self.rope_embed = _Rotary(width // heads)
        self.blocks = nn.ModuleList(
            _Block(width, heads, config.vision_mlp_ratio, *kind, scaled, qk) for _ in range(config.vision_depth)
        )
        self.norm = _norm(config.vision_norm_layer, width)
        narrow = config.vision_feature_bottleneck
        self.feature_bottleneck = nn.Identity() if narrow == width else nn.Linear(width, narrow, bias=False)

    def forward(self, image_B3HW: torch.Tensor) -> torch.Tensor:
        """Latents (B, C, h, w)."""
        patches_BDhw = self.patch_embed.proj(image_B3HW)
        h, w = patches_BDhw.shape[2:]
        angles = self.rope_embed(h, w)
        x_BND = torch.cat(
            (self.cls_token.expand(len(image_B3HW), -1, -1), patches_BDhw.flatten(2).transpose(1, 2)), dim=1
        )
        for block in self.blocks:
            x_BND = block(x_BND, angles)
        latent_BNC: torch.Tensor = self.feature_bottleneck(self.norm(x_BND)[:, 1:])
        return latent_BNC.transpose(1, 2).unflatten(2, (h, w))


class _Decoder(nn.Module):
    def __init__(self, config: _VTPConfig) -> None:
        super().__init__()
        width, heads = config.decoder_embed_dim, config.decoder_num_heads
        kind = config.decoder_ffn_layer, config.decoder_norm_layer
        scaled, qk = config.decoder_init_values is not None, config.decoder_use_qk_norm
        self.patch = config.vision_patch_size
        self.proj_in = nn.Conv2d(config.vision_feature_bottleneck, width, 1)
        self.rope_embed = _Rotary(width // heads)
        self.blocks = nn.ModuleList(_Block(width, heads, 4.0, *kind, scaled, qk) for _ in range(config.decoder_depth))
        self.norm = _norm(config.decoder_norm_layer, width)
        self.proj_out = nn.Conv2d(width, 3 * self.patch**2, 1)

    def forward(self, latent_BChw: torch.Tensor) -> torch.Tensor:
        """Pictures as the encoder takes them."""
        h, w = latent_BChw.shape[2:]
        angles = self.rope_embed(h, w)
        x_BND = self.proj_in(latent_BChw).flatten(2).transpose(1, 2)
        for block in self.blocks:
            x_BND = block(x_BND, angles)
        return F.pixel_shuffle(self.proj_out(self.norm(x_BND).transpose(1, 2).unflatten(2, (h, w))), self.patch)


class VTP(nn.Module):
    """Encoder and decoder, pictures (B, 3, H, W) in [-1, 1] with sides that are multiples of 16, as diffusers' have."""

    mean_311: torch.Tensor
    std_311: torch.Tensor

    def __init__(self, config: _VTPConfig) -> None:
        super().__init__()
        self.config: dict[str, int] = {}
        self.compression = config.vision_patch_size
        self.encoder, self.decoder = _Encoder(config), _Decoder(config)
        # Inside, ImageNet's mean and deviation of pictures in [0, 1].
        self.register_buffer("mean_311", torch.tensor([0.485, 0.456, 0.406]).view(3, 1, 1) * 2 - 1, persistent=False)
        self.register_buffer("std_311", torch.tensor([0.229, 0.224, 0.225]).view(3, 1, 1) * 2, persistent=False)

    def encode(self, image_B3HW: torch.Tensor) -> EncoderOutput:
        """`latent`: (B, C, H/16, W/16)."""
        return EncoderOutput(latent=self.encoder((image_B3HW - self.mean_311) / self.std_311))

    def decode(self, latent_BChw: torch.Tensor) -> DecoderOutput:
        """`sample`: (B, 3, 16 h, 16 w), not clamped."""
        return DecoderOutput(sample=self.decoder(latent_BChw) * self.std_311 + self.mean_311)


def load_vtp(folder: Path) -> VTP:
    """The folder's model. Raises BadInput when it holds another one, or none."""
    try:
        config = _VTPConfig.model_validate(json.loads((folder / "config.json").read_text(encoding="utf-8")))
    except (OSError, ValidationError, ValueError) as error:
        reason = error.errors()[0]["loc"] if isinstance(error, ValidationError) else error
        raise BadInput(f"{folder}: holds no config.json of a VTP that reconstructs ({reason})") from error
    weights: dict[str, torch.Tensor] = {}
    try:
        for path in sorted(folder.glob("*.safetensors")):
            weights |= load_file(path)
    except (OSError, SafetensorError) as error:
        raise BadInput(f"{folder}: its safetensors cannot be read ({error})") from error
    parts = {"trunk": "encoder", "pixel_decoder": "decoder"}
    named = {key.partition(".")[::2]: value for key, value in weights.items()}
    own = {f"{parts[part]}.{name}": value for (part, name), value in named.items() if part in parts}
    own.pop("encoder.mask_token", None)  # for training alone
    model = VTP(config)
    try:
        model.load_state_dict(own)
    except RuntimeError as error:
        raise BadInput(f"{folder}: weights and config.json disagree ({str(error).splitlines()[-1].strip()})") from error
    return model
