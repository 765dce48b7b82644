"""What a training run is: one frozen configuration, composed of those that stand beside the code that reads them."""

from typing import Literal, Self

from pydantic import Field, model_validator

from datagen.recipes import recipe_hash
from fonts_manifest.config import Config
from vae.curriculum import Curriculum, StageConfig
from vae.distributed import Strategy
from vae.family import GSCConfig
from vae.losses import LossConfig
from vae.optim import OptimConfig
from vae.schedule import ever
from vae.source import SourceConfig
from vae.trainee import Trained


class MachineConfig(Config):
    """How the machine does it. Nothing here changes what is trained, so a run may go on with other settings."""

    device: Literal["auto", "cpu", "cuda"] = "auto"
    """auto: a GPU where there is one."""
    precision: Literal["float32", "bfloat16"] = "float32"
    """bfloat16: of the networks' arithmetic (autocast); weights, optimizer and losses stay float32."""
    strategy: Strategy = "ddp"
    """ddp: every process holds the whole model; fsdp: each a part of every weight, for larger decoders."""
    accumulate: int = Field(default=1, ge=1)
    """Parts into which a process splits its share of a batch, one after the other: less memory, the same step."""
    activation_checkpointing: bool = False
    """Compute activations twice instead of keeping them: less memory, a third more time."""
    compile: bool = False
    """Compile encoder and decoder (torch.compile); every shape of crops is compiled once."""
    loader_workers: int = Field(default=0, ge=0)
    """Processes beside every trainer process that make batches ahead; 0: it makes them itself, on a GPU in a thread."""
    loader_ray: str | None = None
    """Make them on Ray instead, loader_workers at a time (0: all its cores): a cluster's HOST:PORT, or local."""
    trackers: tuple[Literal["wandb", "trackio"], ...] = ()
    """Beside TensorBoard; each must be installed."""


class TrainRecipe(Config):
    """Train a GSC autoencoder on a mixture of finished runs."""

    kind: Literal["train"]
    """Which command reads this recipe."""
    sources: tuple[SourceConfig, ...] = Field(min_length=1)
    """Where the pictures come from and at which ratios over the steps."""
    model: GSCConfig = GSCConfig()
    """The shape of the model."""
    start_from: str | None = None
    """Folder of a saved model of that shape whose weights training starts from."""
    trained: Trained = "all"
    """all; decoder: the encoder stays frozen, and so the latent space."""
    losses: LossConfig = LossConfig()
    """Terms and their weights."""
    optim: OptimConfig = OptimConfig()
    """Optimizer, learning rate, moving average."""
    seed: int = Field(default=0, ge=0)
    """Of the initial weights, the order of the pictures and the crops."""
    steps: int = Field(ge=1)
    """Optimizer steps."""
    batch: int = Field(ge=1)
    """Pictures a step, over all processes; of the first stage."""
    crop_px: int = Field(default=256, ge=1)
    """Side of the random training crop, a multiple of the compression; smaller pictures are left out, never resized."""
    aspect_ratios: tuple[float, ...] = Field(default=(1.0,), min_length=1)
    """Width over height of the crops of the first stage: one a step, each equally often, of about the same area."""
    stages: tuple[StageConfig, ...] = ()
    """Later stages with crops and batches of their own."""
    hold_out: float = Field(default=0.05, gt=0, lt=1)
    """Share of the pictures (of the files, for real ones) that is never trained on."""
    validate_every: int = Field(default=100, ge=1)
    """Steps between two measurements on held-out pictures."""
    validate_pictures: int = Field(default=8, ge=1)
    """Held-out pictures of each source measured then."""
    validate_px: int = Field(default=256, ge=1)
    """Side of the middle crop they are measured on."""
    validate_read: int = Field(default=0, ge=0)
    """How many of them are read by OCR for the NED, which takes about a second each of 256 px."""
    checkpoint_every: int = Field(default=100, ge=1)
    """Steps between two checkpoints; there is one at the end too."""
    keep_checkpoints: int = Field(default=2, ge=1)
    """How many of the last stay on the disk, beside the best."""
    spike_factor: float = Field(default=10.0, ge=0)
    """A step whose gradient norm is above so many times the median of the last is left out; 0: only non-finite ones."""
    machine: MachineConfig = MachineConfig()
    """Device, precision, memory, processes."""

    @property
    def all_stages(self) -> tuple[StageConfig, ...]:
        """The first stage and the later ones."""
        first = StageConfig(from_step=0, crop_px=self.crop_px, batch=self.batch, aspect_ratios=self.aspect_ratios)
        return (first, *self.stages)

    @property
    def curriculum(self) -> Curriculum:
        """Shapes, batches and sources of every step. Raises BadInput when the stages are none."""
        compression = 2 ** (len(self.model.encoder_widths) - 1)
        return Curriculum(self.sources, self.all_stages, compression, self.seed)

    @model_validator(mode="after")
    def _fits_together(self) -> Self:
        if self.trained == "decoder" and self.start_from is None:
            raise ValueError("trained: decoder keeps the encoder of a saved model: name it as start_from")
        if self.trained == "decoder" and ever(self.losses.align):
            raise ValueError("trained: decoder leaves the latents as they are: losses.align must be 0")
        if self.machine.strategy == "fsdp" and self.losses.align_adaptive:
            raise ValueError("losses.align_adaptive needs whole weights: machine.strategy must be ddp")
        if any(stage.from_step >= self.steps for stage in self.stages):
            raise ValueError(f"stages: every stage must begin before the last of the {self.steps} steps")
        return self


def training_hash(recipe: TrainRecipe) -> str:
    """`recipe_hash` of what is trained: the machine's settings left out, which may change between two sittings."""
    return recipe_hash(recipe.model_copy(update={"machine": MachineConfig()}))
