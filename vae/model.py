"""The GSC autoencoder as a diffusers model: attention-free, asymmetric, deterministic, with a global skip connection.

The only architecture of its kind that fits all eight parameter counts of Table 1 of the Qwen-Image-VAE-2.0 report
(arXiv:2605.13565): see `vae/family.py` and the test of the counts.

Legend: B batch, C latent channels, F features, H W pixels, h w latent cells, f = H / h the compression.
"""

import json
import math
import os
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, Literal

import torch
import torch.nn.functional as F
from diffusers.configuration_utils import ConfigMixin, register_to_config
from diffusers.models.autoencoders.vae import AutoencoderMixin, DecoderOutput, DiagonalGaussianDistribution
from diffusers.models.modeling_outputs import AutoencoderKLOutput
from diffusers.models.modeling_utils import ModelMixin
from diffusers.utils.accelerate_utils import apply_forward_hook
from torch import nn

from vae.blocks import DecoderLevel, EncoderLevel, PixelRMSNormSiLU, ResBlock
from vae.portable import CLASS_FILE, portable_source
from vae.skip import Basis, CellMoments, GroupOrder, LinearSkip, SkipBasis, cells_of

SkipMode = Literal["gsc", "gsc_deep", "gsc_both", "lsc", "nsc"]
"""gsc: pixels into the latent; gsc_deep: pixels into the features before the middle blocks; gsc_both: into both; lsc: a
shortcut around every level, as in DC-AE; nsc: none. The parameter counts are equal, so that the ablation is clean."""


class Encoder(nn.Module):
    """Pixels (B, 3, H, W) in [-1, 1] to 2C numbers a cell (B, 2C, h, w), of which the first C are used: no KL.

    `deep_skip`, when there is one, adds pixels to the features that enter the middle blocks.
    """

    def __init__(
        self, widths: tuple[int, ...], latent_channels: int, blocks: int, local_skip: bool, deep_skip: LinearSkip | None
    ) -> None:
        super().__init__()
        levels = len(widths)
        self.deep_skip = deep_skip
        self.conv_in = nn.Conv2d(3, widths[0], 3, padding=1)
        self.levels = nn.ModuleList(
            EncoderLevel(widths[max(i - 1, 0)], widths[i], blocks, down=i < levels - 1, local_skip=local_skip)
            for i in range(levels)
        )
        self.middle = nn.ModuleList(ResBlock(widths[-1], widths[-1]) for _ in range(2))
        self.norm_out = PixelRMSNormSiLU(widths[-1])
        self.conv_out = nn.Conv2d(widths[-1], 2 * latent_channels, 3, padding=1)
        self.gradient_checkpointing = False

    def forward(self, images_B3HW: torch.Tensor) -> torch.Tensor:
        run = _runner(self)
        h_BFHW = self.conv_in(images_B3HW)
        for level in self.levels:
            h_BFHW = run(level, h_BFHW)
        if self.deep_skip is not None:
            pixels_BFhw = self.deep_skip.encode(images_B3HW)
            h_BFHW = h_BFHW + F.pad(pixels_BFhw, (0, 0, 0, 0, 0, h_BFHW.shape[1] - pixels_BFhw.shape[1]))
        for block in self.middle:
            h_BFHW = run(block, h_BFHW)
        return self.conv_out(self.norm_out(h_BFHW))


class Decoder(nn.Module):
    """Latents (B, C, h, w) to pixels (B, 3, H, W), not clamped.

    `deep_mirror`, when there is one, adds the features that leave the middle blocks to the pixels.
    """

    def __init__(
        self,
        widths: tuple[int, ...],
        latent_channels: int,
        blocks: int,
        local_skip: bool,
        deep_mirror: LinearSkip | None,
    ) -> None:
        super().__init__()
        levels = len(widths)
        reverse = widths[::-1]
        self.deep_mirror = deep_mirror
        self.conv_in = nn.Conv2d(latent_channels, reverse[0], 3, padding=1)
        self.middle = nn.ModuleList(ResBlock(reverse[0], reverse[0]) for _ in range(2))
        self.levels = nn.ModuleList(
            DecoderLevel(reverse[max(i - 1, 0)], reverse[i], blocks, up=i < levels - 1, local_skip=local_skip)
            for i in range(levels)
        )
        self.norm_out = PixelRMSNormSiLU(widths[0])
        self.conv_out = nn.Conv2d(widths[0], 3, 3, padding=1)
        self.gradient_checkpointing = False

    def forward(self, latents_BChw: torch.Tensor) -> torch.Tensor:
        run = _runner(self)
        h_BFHW = self.conv_in(latents_BChw)
        for block in self.middle:
            h_BFHW = run(block, h_BFHW)
        deep_BFhw = h_BFHW
        for level in self.levels:
            h_BFHW = run(level, h_BFHW)
        pixels_B3HW = self.conv_out(self.norm_out(h_BFHW))
        if self.deep_mirror is None:
            return pixels_B3HW
        return pixels_B3HW + self.deep_mirror.decode(deep_BFhw[:, : self.deep_mirror.basis.shape[0]])


def _runner(module: nn.Module) -> Callable[[nn.Module, torch.Tensor], torch.Tensor]:
    """Call a child, through diffusers' checkpointing function where that is on and gradients are wanted."""
    if module.gradient_checkpointing and torch.is_grad_enabled():
        return module._gradient_checkpointing_func  # type: ignore[return-value]
    return lambda child, x: child(x)


class GSCAutoencoder(ModelMixin, AutoencoderMixin, ConfigMixin):
    """An autoencoder with compression f = 2^(levels - 1) and C channels.

    `encode(x).latent_dist.mode()` and `decode(z).sample` as with every diffusers autoencoder; x is float in [-1, 1],
    (B, 3, H, W), its sides multiples of f; z is (B, C, H / f, W / f), raw: standardise it with `latents_mean` and
    `latents_std`, which are measured after training. The distribution is deterministic: `sample()` equals `mode()`.

    Parameters
        block_out_channels, decoder_block_out_channels: features of each level, finest first.
        latent_channels: C.
        layers_per_block, decoder_layers_per_block: residual blocks of a level.
        skip: SkipMode. skip_basis, group_order: which linear maps the global skips are (vae/skip.py).
        decoder_mirror: whether the transposes of the encoder's global skips join the decoder's output. The report does
            not say whether a mirror exists; it has no parameters.
        tile_latents: side of a tile without its halo, in cells, when tiling is on.
        scaling_factor, shift_factor, latents_mean, latents_std: for pipelines; per-channel lists of C numbers or None.

    Raises ValueError when the widths disagree in length or 3 f^2 is no multiple of C (`mean` basis).
    """

    _supports_gradient_checkpointing = True
    _no_split_modules = ["ResBlock"]  # noqa: RUF012 - diffusers reads a list

    @register_to_config
    def __init__(
        self,
        block_out_channels: tuple[int, ...] = (96, 192, 384, 768, 768),
        decoder_block_out_channels: tuple[int, ...] = (144, 288, 576, 1152, 1152),
        latent_channels: int = 64,
        layers_per_block: int = 2,
        decoder_layers_per_block: int = 3,
        skip: SkipMode = "gsc",
        skip_basis: SkipBasis = "mean",
        group_order: GroupOrder = "raster",
        decoder_mirror: bool = False,
        tile_latents: int = 64,
        scaling_factor: float = 1.0,
        shift_factor: float = 0.0,
        latents_mean: list[float] | None = None,
        latents_std: list[float] | None = None,
    ) -> None:
        super().__init__()
        if len(block_out_channels) != len(decoder_block_out_channels):
            raise ValueError(
                "encoder and decoder need equally many levels, got "
                f"{len(block_out_channels)} and {len(decoder_block_out_channels)}"
            )
        if decoder_mirror and not skip.startswith("gsc"):
            raise ValueError(f"the decoder mirrors global skips: skip must be gsc, gsc_deep or gsc_both, got {skip}")
        self.compression = factor = 2 ** (len(block_out_channels) - 1)

        def deep_skip(width: int, wanted: bool) -> LinearSkip | None:
            return LinearSkip(factor, min(width, 3 * factor * factor), skip_basis, group_order) if wanted else None

        deep = skip in ("gsc_deep", "gsc_both")
        self.encoder = Encoder(
            tuple(block_out_channels),
            latent_channels,
            layers_per_block,
            skip == "lsc",
            deep_skip(block_out_channels[-1], deep),
        )
        self.decoder = Decoder(
            tuple(decoder_block_out_channels),
            latent_channels,
            decoder_layers_per_block,
            skip == "lsc",
            deep_skip(decoder_block_out_channels[-1], deep and decoder_mirror),
        )
        into_latent = skip in ("gsc", "gsc_both")
        self.linear_skip = LinearSkip(factor, latent_channels, skip_basis, group_order) if into_latent else None
        self.use_slicing = False
        self.use_tiling = False
        self._start_at_the_skip()

    def _start_at_the_skip(self) -> None:
        """Initialise so that training starts at the bare linear codec wherever the skips form one, not below it.

        The encoder's last convolution starts a thousandth of its usual size, not at zero: the pair (encoder adds
        nothing, decoder reads nothing more) is a saddle without gradient, and with an orthonormal basis training stayed
        in it for hundreds of steps.
        """
        with torch.no_grad():
            if self.linear_skip is not None:
                self.encoder.conv_out.weight.mul_(1e-3)
                nn.init.zeros_(self.encoder.conv_out.bias)  # type: ignore[arg-type]
            if not self.config.decoder_mirror:
                return
            nn.init.zeros_(self.decoder.conv_out.weight)
            nn.init.zeros_(self.decoder.conv_out.bias)  # type: ignore[arg-type]
            if self.decoder.deep_mirror is not None and self.linear_skip is not None:
                self.reset_deep_mirror()

    @torch.no_grad()
    def reset_deep_mirror(self) -> None:
        """Make the first convolution and the deep mirror undo the latent skip, the blocks between adding nothing.

        Exact when the deep basis spans the latent one (equal bases, deep width at least C).
        """
        deep, skip = self.decoder.deep_mirror, self.linear_skip
        if deep is None or skip is None:
            raise ValueError("this model has no deep mirror")
        analysis = deep.basis / deep.scale[:, None]
        convolution = self.decoder.conv_in
        weight = analysis @ (skip.basis.T * skip.scale)
        convolution.weight[: len(weight)] = 0
        convolution.weight[: len(weight), :, 1, 1] = weight
        convolution.bias[: len(weight)] = analysis @ (skip.centre - deep.centre)  # type: ignore[index]
        for block in self.decoder.middle:
            nn.init.zeros_(block.get_parameter("conv2.weight"))
            nn.init.zeros_(block.get_parameter("conv2.bias"))

    @property
    def skips(self) -> tuple[LinearSkip, ...]:
        """Into the latent, into the deep features, and the deep mirror: those that this model has."""
        places = (self.linear_skip, self.encoder.deep_skip, self.decoder.deep_mirror)
        return tuple(skip for skip in places if skip is not None)

    @torch.no_grad()
    def use_basis(self, basis: Basis) -> None:
        """Give a model with skip_basis `pca` its basis, before training.

        Raises ValueError when the basis is of another compression or has too few rows.
        """
        if self.config.skip_basis != "pca":
            raise ValueError(f"only a pca basis is fitted, this model has {self.config.skip_basis}")
        size, wanted = 3 * self.compression**2, max((len(skip.basis) for skip in self.skips), default=0)
        if basis.rows_CD.shape[1] != size or len(basis.rows_CD) < wanted:
            raise ValueError(f"the skips need {wanted} rows of {size} numbers, the basis has {basis.rows_CD.shape}")
        for skip in self.skips:
            skip.use(basis)
        if self.decoder.deep_mirror is not None and self.linear_skip is not None:
            self.reset_deep_mirror()

    def fit_skip(self, images: torch.Tensor) -> None:
        """Fit the basis of a model with skip_basis `pca` to pictures (B, 3, H, W) in [-1, 1], before training."""
        moments = CellMoments(3 * self.compression**2)
        moments.add(cells_of(images, self.compression))
        self.use_basis(moments.components(max(len(skip.basis) for skip in self.skips)))

    @property
    def encode_halo(self) -> int:
        """Cells around a tile beyond which no pixel can reach its latents (14 for f16c64)."""
        pixels = 1.0  # conv_in
        for level in range(len(self.config.block_out_channels)):
            pixels += 2 * self.config.layers_per_block * 2**level
        # The downsamplings look to the right only: 2 pixels of their level, f - 1 of which lie inside the cell.
        right = 2 * (self.compression - 1) - (self.compression - 1)
        pixels += (2 * 2 + 1) * self.compression + right
        return math.ceil(pixels / self.compression)

    @property
    def decode_halo(self) -> int:
        """Cells around a tile beyond which no latent can reach its pixels (18 for f16c64)."""
        cells = 1.0 + 2 * 2  # conv_in, middle
        levels = len(self.config.decoder_block_out_channels)
        for level in range(levels):
            cells += 2 * self.config.decoder_layers_per_block / 2**level
            if level < levels - 1:
                cells += 1 / 2 ** (level + 1)
        return math.ceil(cells + 1 / self.compression)

    def save_pretrained(self, save_directory: str | os.PathLike[str], *args: Any, **kwargs: Any) -> None:
        """As diffusers does it; this class goes with the weights, for programs that have none of ours."""
        super().save_pretrained(save_directory, *args, **kwargs)
        if kwargs.get("is_main_process", True):
            Path(save_directory, f"{CLASS_FILE}.py").write_text(portable_source(), encoding="utf-8")

    def to_json_string(self) -> str:
        """The text of config.json, in which `diffusers.AutoModel` finds the class."""
        config = json.loads(super().to_json_string())
        config["auto_map"] = {"AutoModel": f"{CLASS_FILE}.{type(self).__name__}"}
        return json.dumps(config, indent=2, sort_keys=True) + "\n"

    @classmethod
    def extract_init_dict(cls, config_dict: dict[str, Any], **kwargs: Any) -> Any:
        """As diffusers does it, which would warn of `auto_map`."""
        return super().extract_init_dict({k: v for k, v in config_dict.items() if k != "auto_map"}, **kwargs)

    def _encode(self, images_B3HW: torch.Tensor) -> torch.Tensor:
        mean_BChw = self.encoder(images_B3HW)[:, : self.config.latent_channels]
        return mean_BChw if self.linear_skip is None else mean_BChw + self.linear_skip.encode(images_B3HW)

    def _decode(self, latents_BChw: torch.Tensor) -> torch.Tensor:
        pixels_B3HW = self.decoder(latents_BChw)
        if self.linear_skip is None or not self.config.decoder_mirror or self.decoder.deep_mirror is not None:
            return pixels_B3HW
        return pixels_B3HW + self.linear_skip.decode(latents_BChw)

    def _by_tiles(
        self, function: Callable[[torch.Tensor], torch.Tensor], x: torch.Tensor, cell_in: int, cell_out: int, halo: int
    ) -> torch.Tensor:
        """`function(x)` tile by tile. A tile carries a halo as deep as the receptive field and meets the true border
        where the picture does, so the result is the untiled one to rounding, without blending."""
        side = self.config.tile_latents
        rows = [
            torch.cat(
                [
                    function(x[:, :, top * cell_in : bottom * cell_in, left * cell_in : right * cell_in])[
                        :,
                        :,
                        (y0 - top) * cell_out : (y1 - top) * cell_out,
                        (x0 - left) * cell_out : (x1 - left) * cell_out,
                    ]
                    for x0, x1, left, right in _tiles(x.shape[3] // cell_in, side, halo)
                ],
                dim=3,
            )
            for y0, y1, top, bottom in _tiles(x.shape[2] // cell_in, side, halo)
        ]
        return torch.cat(rows, dim=2)

    @apply_forward_hook
    def encode(
        self, x: torch.Tensor, return_dict: bool = True
    ) -> AutoencoderKLOutput | tuple[DiagonalGaussianDistribution]:
        """Pictures (B, 3, H, W), float in [-1, 1], to a deterministic distribution over latents (B, C, H / f, W / f).

        Raises ValueError when the shape does not fit.
        """
        if x.ndim != 4 or x.shape[1] != 3 or x.shape[2] % self.compression or x.shape[3] % self.compression:
            raise ValueError(
                f"pictures must be (B, 3, H, W) with sides a multiple of {self.compression}, got {tuple(x.shape)}"
            )

        def function(images: torch.Tensor) -> torch.Tensor:
            if self.use_tiling and max(images.shape[2:]) > self.config.tile_latents * self.compression:
                return self._by_tiles(self._encode, images, self.compression, 1, self.encode_halo)
            return self._encode(images)

        mean = torch.cat([function(one) for one in x.split(1)]) if self.use_slicing else function(x)
        posterior = DiagonalGaussianDistribution(torch.cat([mean, torch.zeros_like(mean)], dim=1), deterministic=True)
        return AutoencoderKLOutput(latent_dist=posterior) if return_dict else (posterior,)

    @apply_forward_hook
    def decode(
        self, z: torch.Tensor, return_dict: bool = True, generator: torch.Generator | None = None
    ) -> DecoderOutput | tuple[torch.Tensor]:
        """Latents (B, C, h, w) to pictures (B, 3, h f, w f), not clamped; `generator` is only diffusers' interface."""
        if z.ndim != 4 or z.shape[1] != self.config.latent_channels:
            raise ValueError(f"latents must be (B, {self.config.latent_channels}, h, w), got {tuple(z.shape)}")

        def function(latents: torch.Tensor) -> torch.Tensor:
            if self.use_tiling and max(latents.shape[2:]) > self.config.tile_latents:
                return self._by_tiles(self._decode, latents, 1, self.compression, self.decode_halo)
            return self._decode(latents)

        sample = torch.cat([function(one) for one in z.split(1)]) if self.use_slicing else function(z)
        return DecoderOutput(sample=sample) if return_dict else (sample,)

    def forward(
        self,
        sample: torch.Tensor,
        sample_posterior: bool = False,
        return_dict: bool = True,
        generator: torch.Generator | None = None,
    ) -> DecoderOutput | tuple[torch.Tensor]:
        """Encode and decode. The two middle arguments are diffusers' interface; a deterministic latent ignores them."""
        return self.decode(self.encode(sample).latent_dist.mode(), return_dict=return_dict)


def _tiles(cells: int, side: int, halo: int) -> Iterator[tuple[int, int, int, int]]:
    """Start and end of each tile, then the same with its halo, in cells, clipped to the picture."""
    for start in range(0, cells, side):
        end = min(start + side, cells)
        yield start, end, max(start - halo, 0), min(end + halo, cells)
