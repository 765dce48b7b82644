"""Any autoencoder of diffusers' kind as pictures see it: of video too, with alpha, or in [0, 1]

Legend: B pictures, C channels, H W pixels, h w latent cells.
"""

from typing import Any

import torch

from fonts_manifest.errors import BadInput

OF_VIDEO = frozenset(
    {
        "AutoencoderKLAllegro",
        "AutoencoderKLCogVideoX",
        "AutoencoderKLCosmos",
        "AutoencoderKLHunyuanVideo",
        "AutoencoderKLHunyuanVideo15",
        "AutoencoderKLLTXVideo",
        "AutoencoderKLLTX2Video",
        "AutoencoderKLMagvit",
        "AutoencoderKLMochi",
        "AutoencoderKLQwenImage",
        "AutoencoderKLQwenImage21",
        "AutoencoderKLWan",
    }
)
"""Take (B, 3, frames, H, W): a picture is one frame."""

ONE_BY_ONE = frozenset({"AutoencoderKLHunyuanVideo15"})
"""Cannot take several pictures: its attention mask (diffusers 0.42.1) has the batch where the heads stand."""


class ImageAutoencoder:
    """Pictures (B, 3, H, W) in [-1, 1] -> latents (B, C, h, w) -> pictures, whatever the class behind it takes.

    The mode of the posterior, unscaled; gradients are off.
    """

    def __init__(self, model: Any, device: torch.device) -> None:
        self.model = model.eval().to(device).requires_grad_(False)
        self.device = device
        name = type(model).__name__
        self._video = name in OF_VIDEO
        self._at_once = 1 if name in ONE_BY_ONE else None
        self._from_zero = name == "AutoencoderRAE"  # it takes and gives [0, 1]
        self._opaque = getattr(model, "config", {}).get("in_channels") == 4  # with alpha: Qwen-Image-2.1
        self.dtype = next((weight.dtype for weight in model.parameters()), torch.float32)

    @torch.no_grad()
    def encode(self, image_B3HW: torch.Tensor) -> torch.Tensor:
        """Latents (B, C, h, w) on the device. Raises BadInput when the model gives another shape."""
        image = image_B3HW.to(self.device, self.dtype)
        image = image / 2 + 0.5 if self._from_zero else image
        if self._opaque:
            image = torch.cat((image, torch.ones_like(image[:, :1])), dim=1)
        parts = image.split(self._at_once or len(image))
        latent = torch.cat([self._latent(part[:, :, None] if self._video else part) for part in parts])
        if self._video:
            latent = latent.squeeze(2)
        if latent.ndim != 4:
            raise BadInput(f"{type(self.model).__name__} gives latents of shape {tuple(latent.shape)}, no (B, C, h, w)")
        return latent

    @torch.no_grad()
    def decode(self, latent_BChw: torch.Tensor) -> torch.Tensor:
        """Pictures (B, 3, H, W) on the device, not clamped."""
        latent = latent_BChw.to(self.device, self.dtype)
        parts = (latent[:, :, None] if self._video else latent).split(self._at_once or len(latent))
        image = torch.cat([self.model.decode(part).sample for part in parts])
        image = (image[:, :, 0] if self._video else image)[:, :3]
        return image * 2 - 1 if self._from_zero else image

    def _latent(self, image: torch.Tensor) -> torch.Tensor:
        encoded = self.model.encode(image)
        if hasattr(encoded, "latent_dist"):
            latent: torch.Tensor = encoded.latent_dist.mode()
            return latent
        return encoded.latents if hasattr(encoded, "latents") else encoded.latent
