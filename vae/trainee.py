"""What gradients reach: the autoencoder, and the projection of its latents when they are aligned.

Legend: B pictures, H W pixels, C latent channels, h w cells, D feature width.
"""

from contextlib import nullcontext
from pathlib import Path
from typing import Literal, NamedTuple

import torch
from torch import nn

from fonts_manifest.errors import BadInput
from vae.family import GSCConfig, build_model
from vae.model import GSCAutoencoder
from vae.saved import load_model

Trained = Literal["all", "decoder"]
"""decoder: the encoder and so the latent space stay as they are, as Qwen-Image adapted its VAE to text."""


class Reconstruction(NamedTuple):
    """What comes out of a step's forward pass."""

    output_B3HW: torch.Tensor
    latents_BChw: torch.Tensor
    projected_BDhw: torch.Tensor | None
    """W z, for the alignment."""


class Trainee(nn.Module):
    """The autoencoder and, with a feature width, the projection W of its latents: 1x1, without bias."""

    def __init__(self, autoencoder: GSCAutoencoder, feature_width: int | None, trained: Trained) -> None:
        super().__init__()
        self.autoencoder = autoencoder
        channels = autoencoder.config.latent_channels
        self.projection = None if feature_width is None else nn.Conv2d(channels, feature_width, 1, bias=False)
        self.encoder_frozen = trained == "decoder"
        if self.encoder_frozen:
            autoencoder.encoder.requires_grad_(False)

    def forward(self, images_B3HW: torch.Tensor) -> Reconstruction:
        """Encode, decode, project; no gradient is kept for a frozen encoder."""
        with torch.no_grad() if self.encoder_frozen else nullcontext():
            latents_BChw = self.autoencoder.encode(images_B3HW).latent_dist.mode()
        output_B3HW = self.autoencoder.decode(latents_BChw).sample
        projected_BDhw = None if self.projection is None else self.projection(latents_BChw)
        # A copy, for the mode is a view, and FSDP2 warns of views that leave a module.
        return Reconstruction(output_B3HW, latents_BChw.clone(), projected_BDhw)

    @property
    def last_encoder_weight(self) -> torch.Tensor:
        """Where the alignment meets the reconstruction (VA-VAE's adaptive weight)."""
        return self.autoencoder.encoder.conv_out.weight


def initial_autoencoder(config: GSCConfig, start_from: str | None, seed: int) -> GSCAutoencoder:
    """Freshly initialised from the seed, or with the weights of a saved model of the same shape.

    Raises BadInput when the shape cannot be built, or the folder holds no model, another one, or weights that are no
    numbers.
    """
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        model = build_model(config)
    if start_from is None:
        return model
    folder = Path(start_from)
    try:
        saved = load_model(folder)
    except BadInput as error:
        raise BadInput(f"start_from: {error}") from error
    for name in _SHAPE:
        wanted, found = model.config[name], saved.config[name]
        if (tuple(wanted) if isinstance(wanted, list | tuple) else wanted) != (
            tuple(found) if isinstance(found, list | tuple) else found
        ):
            raise BadInput(f"start_from: {folder} is another model: {name} is {found}, the recipe's model has {wanted}")
    if not all(weight.isfinite().all() for weight in saved.parameters()):
        raise BadInput(f"start_from: {folder} holds weights that are not finite: its training diverged; take another")
    model.load_state_dict(saved.state_dict())
    return model


_SHAPE = (
    "block_out_channels",
    "decoder_block_out_channels",
    "latent_channels",
    "layers_per_block",
    "decoder_layers_per_block",
    "skip",
    "skip_basis",
    "group_order",
    "decoder_mirror",
)
