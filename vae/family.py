"""The four published sizes and the small ones for CPUs."""

from collections.abc import Callable
from pathlib import Path

from pydantic import Field

from fonts_manifest.config import Config
from fonts_manifest.errors import BadInput
from vae.basis import load_basis
from vae.model import GSCAutoencoder, SkipMode
from vae.skip import GroupOrder, SkipBasis


class GSCConfig(Config):
    """The shape of a GSC autoencoder; the widths and counts of the published ones stand in `FAMILY`."""

    encoder_widths: tuple[int, ...] = (96, 192, 384, 768, 768)
    """Features of each encoder level, finest first; the compression is 2^(levels - 1)."""
    decoder_widths: tuple[int, ...] = (144, 288, 576, 1152, 1152)
    """Features of each decoder level, finest first."""
    latent_channels: int = Field(default=64, ge=1)
    """Numbers a latent cell."""
    encoder_blocks: int = Field(default=2, ge=1)
    """Residual blocks of an encoder level."""
    decoder_blocks: int = Field(default=3, ge=1)
    """Residual blocks of a decoder level."""
    skip: SkipMode = "gsc"
    """gsc: pixels into the latent; gsc_deep: into the middle features; gsc_both; lsc: around each level; nsc: none."""
    skip_basis: SkipBasis = "mean"
    """mean: the paper's group mean; dct, pca: fixed orthonormal bases that start 2 to 9 dB higher."""
    basis_file: str | None = None
    """For pca: a file of `glyphmill model fit-basis`; without it training fits the basis to its first pictures."""
    group_order: GroupOrder = "raster"
    """Which pixels the mean basis groups: neighbours along rows, or along the Z curve."""
    decoder_mirror: bool = False
    """Whether the transposes of the encoder's global skips join the decoder's output."""


def build_model(config: GSCConfig) -> GSCAutoencoder:
    """A freshly initialised model (torch's global generator). Raises BadInput when the shape cannot be built."""
    if config.basis_file is not None and config.skip_basis != "pca":
        raise BadInput(f"basis_file is for skip_basis pca, this model has {config.skip_basis}")
    try:
        model = GSCAutoencoder(
            block_out_channels=config.encoder_widths,
            decoder_block_out_channels=config.decoder_widths,
            latent_channels=config.latent_channels,
            layers_per_block=config.encoder_blocks,
            decoder_layers_per_block=config.decoder_blocks,
            skip=config.skip,
            skip_basis=config.skip_basis,
            group_order=config.group_order,
            decoder_mirror=config.decoder_mirror,
        )
    except ValueError as error:
        raise BadInput(f"this model cannot be built: {error}") from error
    if config.basis_file is not None:
        rows = max((len(skip.basis) for skip in model.skips), default=0)
        model.use_basis(load_basis(Path(config.basis_file), model.compression, rows))
    return model


def f16c64() -> GSCConfig:
    """Table 1: 76 M and 248 M parameters."""
    return GSCConfig()


def f16c128() -> GSCConfig:
    """Table 1: 76 M and 248 M parameters."""
    return GSCConfig(latent_channels=128)


def f32c128() -> GSCConfig:
    """Table 1: 77 M and 250 M parameters."""
    return GSCConfig(
        encoder_widths=(96, 96, 192, 384, 768, 768),
        decoder_widths=(144, 144, 288, 576, 1152, 1152),
        latent_channels=128,
    )


def f32c192() -> GSCConfig:
    """Table 1: 78 M and 250 M parameters."""
    return f32c128().model_copy(update={"latent_channels": 192})


def demo_f16c64() -> GSCConfig:
    """The architecture at widths that two cores train in minutes.

    The skips bring the pixels to the deepest level: without the levels above it the same blocks gained as much over the
    linear skip in as many steps (0.14 dB on synthetic text, 0.2 on documents), so those are kept narrow.
    """
    return GSCConfig(
        encoder_widths=(8, 8, 16, 32, 256),
        decoder_widths=(8, 8, 16, 32, 256),
        encoder_blocks=1,
        decoder_blocks=1,
        skip="gsc_both",
        skip_basis="pca",
        decoder_mirror=True,
    )


FAMILY: dict[str, Callable[[], GSCConfig]] = {
    "f16c64": f16c64,
    "f16c128": f16c128,
    "f32c128": f32c128,
    "f32c192": f32c192,
    "demo_f16c64": demo_f16c64,
}


def model_config(name: str) -> GSCConfig:
    """The configuration of a member of the family. Raises BadInput for another name."""
    if name not in FAMILY:
        raise BadInput(f"no model is called {name!r}; there are {', '.join(FAMILY)}")
    return FAMILY[name]()
