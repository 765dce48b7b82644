"""What a training run is: one frozen configuration, composed of those that stand beside the code that reads them."""

from typing import Literal

from pydantic import Field

from fonts_manifest.config import Config
from vae.family import GSCConfig
from vae.losses import LossConfig
from vae.mixture import SourceConfig
from vae.optim import OptimConfig


class TrainRecipe(Config):
    """Train a GSC autoencoder on a mixture of finished runs."""

    kind: Literal["train"]
    """Which command reads this recipe."""
    sources: tuple[SourceConfig, ...] = Field(min_length=1)
    """Where the pictures come from and at which ratios over the steps."""
    model: GSCConfig = GSCConfig()
    """The shape of the model."""
    losses: LossConfig = LossConfig()
    """Terms and their weights."""
    optim: OptimConfig = OptimConfig()
    """Optimizer, learning rate, moving average."""
    seed: int = Field(default=0, ge=0)
    """Of the initial weights, the order of the pictures and the crops."""
    steps: int = Field(ge=1)
    """Optimizer steps."""
    batch: int = Field(ge=1)
    """Pictures a step, over all processes."""
    crop_px: int = Field(default=256, ge=1)
    """Side of the random training crop, a multiple of the compression; smaller pictures are left out, never resized."""
    hold_out: float = Field(default=0.05, gt=0, lt=1)
    """Share of the pictures (of the files, for real ones) that is never trained on."""
    validate_every: int = Field(default=100, ge=1)
    """Steps between two measurements on held-out pictures."""
    validate_pictures: int = Field(default=8, ge=1)
    """Held-out pictures of each source measured then."""
    validate_px: int = Field(default=256, ge=1)
    """Side of the middle crop they are measured on."""
    checkpoint_every: int = Field(default=100, ge=1)
    """Steps between two checkpoints; there is one at the end too."""
    keep_checkpoints: int = Field(default=2, ge=1)
    """How many stay on the disk."""
