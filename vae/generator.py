"""A small SiT trained on cached latents, and sampled: the generator of the diffusability probe.

Every stage goes on with what is there; order, noise, times and labels depend on the seed alone, never on the VAE.

Legend: B samples, C channels, h w latent cells.
"""

import math
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np
import torch
from pydantic import Field
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file

from datagen.seeds import rng_for_run
from datagen.storage import Folder
from fonts_manifest.config import Config
from fonts_manifest.errors import BadInput
from vae.latents import Autoencoder, LatentSet, ListedPicture, PictureSet, Progress, cache_latents, list_pictures
from vae.optim import MovingAverage
from vae.sit import SiT, SiTConfig
from vae.transport import Sampler, Velocity, sample, velocity_loss

_ORDER, _LABELS, _SPLIT = 1, 2, 3  # purposes of random draws of a run


class ProbeRecipe(Config):
    """Train a small generator on the latents of one autoencoder and measure it; compare runs that differ in `vae`."""

    kind: Literal["probe"]
    """Which command reads this recipe."""
    vae: str
    """Folder of a saved autoencoder: ours, or any of diffusers' with latents (B, C, h, w)."""
    pictures: PictureSet
    """What the generator learns to make."""
    hold_out: int = Field(default=256, ge=2)
    """Pictures never trained on: for the held-out loss, the proxies and the floor of the FID."""
    model: SiTConfig = SiTConfig()
    """The generator; the same for all autoencoders that are compared."""
    seed: int = Field(default=0, ge=0)
    """Of weights, order, noise, times and labels. Two or three seeds tell a gap from chance."""
    steps: int = Field(ge=1)
    """Optimizer steps."""
    batch: int = Field(default=256, ge=1)
    """Latents a step."""
    lr: float = Field(default=1e-4, gt=0)
    """Of AdamW, constant, as in SiT."""
    max_grad_norm: float = Field(default=1.0, gt=0)
    """Gradients are scaled down to this norm."""
    ema_decay: float = Field(default=0.9999, ge=0, lt=1)
    """Of the moving average that is sampled; reached gradually: step t uses at most (1 + t) / (10 + t)."""
    checkpoint_every: int = Field(default=1000, ge=1)
    """Steps between two checkpoints; there is one at the end too."""
    samples: int = Field(default=10_000, ge=2)
    """Pictures each sampler makes."""
    samplers: tuple[Sampler, ...] = Field(default=("heun", "sde"), min_length=1)
    """euler, heun: the probability flow; sde: Euler-Maruyama. No guidance: its best strength differs between VAEs."""
    sampling_steps: int = Field(default=50, ge=2)
    """Steps of every sampler; heun evaluates the network twice in each."""
    encode_batch: int = Field(default=32, ge=1)
    """Pictures encoded, sampled and decoded at a time."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Trained:
    """A generator after its last step, its weights the moving average."""

    model: SiT
    losses: tuple[float, ...]
    """Of every step."""
    seconds: float
    """Of the steps of all sittings."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Prepared:
    """All that the later stages need."""

    autoencoder: Autoencoder
    train: LatentSet
    held_out: LatentSet
    held_out_listed: tuple[ListedPicture, ...]
    train_listed: tuple[ListedPicture, ...]


def prepare(recipe: ProbeRecipe, autoencoder: Autoencoder, out: Path, progress: Progress) -> Prepared:
    """Split the pictures and encode both parts. Raises BadInput when nothing is left to train on."""
    listed = list_pictures(recipe.pictures)
    if len(listed) - recipe.hold_out < 2:
        raise BadInput(
            f"{recipe.pictures.place}: of {len(listed)} pictures {recipe.hold_out} are held out, "
            "nothing is left to train on; lower hold_out"
        )
    order = rng_for_run(recipe.seed, _SPLIT).permutation(len(listed))
    held = set(order[: recipe.hold_out].tolist())
    held_listed = [item for number, item in enumerate(listed) if number in held]
    train_listed = [item for number, item in enumerate(listed) if number not in held]
    plain = recipe.pictures.model_copy(update={"mirror": False})
    classes = tuple(sorted({item.label for item in listed}))
    batch = recipe.encode_batch
    held_out = cache_latents(autoencoder, held_listed, plain, classes, out / "held_out", batch, progress)
    train = cache_latents(autoencoder, train_listed, recipe.pictures, classes, out / "latents", batch, progress)
    return Prepared(
        autoencoder=autoencoder,
        train=train,
        held_out=held_out,
        held_out_listed=tuple(held_listed),
        train_listed=tuple(train_listed),
    )


# ---- training --------------------------------------------------------------------------------------------------------


def batch_indices(seed: int, step: int, batch: int, rows: int) -> list[int]:
    """Which latents step `step` takes: epochs of Philox permutations, one after the other."""
    found: list[int] = []
    place = step * batch
    while len(found) < batch:
        epoch, start = divmod(place + len(found), rows)
        order = np.random.Generator(
            np.random.Philox(np.random.SeedSequence(seed, spawn_key=(_ORDER, epoch)))
        ).permutation(rows)
        found += order[start : start + batch - len(found)].tolist()
    return found


def step_noise(seed: int, step: int, shape: tuple[int, ...]) -> tuple[torch.Tensor, torch.Tensor]:
    """Noise of `shape` and uniform times (B,) of one step, drawn on the CPU: the same on every device."""
    generator = torch.Generator().manual_seed((seed << 32) + step)
    return torch.randn(shape, generator=generator), torch.rand(shape[0], generator=generator)


def train_generator(
    recipe: ProbeRecipe,
    latents: LatentSet,
    shape_Chw: tuple[int, int, int],
    out: Path,
    device: torch.device,
    progress: Progress = lambda stage, done, total, counts: None,
) -> Trained:
    """Train a SiT to the last step, going on from the checkpoint in `out`; bf16 autocast on CUDA, float32 elsewhere.

    Killed at any moment, the run that goes on gives the same weights bit for bit (on a CPU with equal threads).
    Raises BadInput when the loss is not finite or the disk is full.
    """
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(recipe.seed)
        model = SiT(recipe.model, shape_Chw[0], shape_Chw[1], len(latents.classes)).to(device)
    optimizer = torch.optim.AdamW(model.parameters(), lr=recipe.lr, betas=(0.9, 0.999), weight_decay=0.0, fused=True)
    ema = MovingAverage(model, recipe.ema_decay)
    path = out / "sit.safetensors"
    start, seconds = _restore(path, model, ema, optimizer)
    losses = _read_losses(out, start)
    timer = _Timer(device)
    for step in range(start, recipe.steps):
        indices = batch_indices(recipe.seed, step, recipe.batch, len(latents))
        noise_BChw, t_B = (x.to(device) for x in step_noise(recipe.seed, step, (recipe.batch, *shape_Chw)))
        latents_BChw = latents.read(indices).to(device)
        label_B = torch.from_numpy(latents.labels_N[indices]).to(device)
        with torch.autocast(device.type, torch.bfloat16, enabled=device.type == "cuda"):
            loss = velocity_loss(_of_labels(model, label_B), latents_BChw, noise_BChw, t_B).mean()
        losses.append(float(loss.detach()))
        if not math.isfinite(losses[-1]):
            raise BadInput(
                f"{out}: the loss of step {step} is not finite; lower lr (now {recipe.lr:g}) in a new folder"
            )
        optimizer.zero_grad(set_to_none=True)
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), recipe.max_grad_norm)
        optimizer.step()
        ema.update(model, step)
        done = step + 1
        if done % recipe.checkpoint_every == 0 or done == recipe.steps:
            Folder(str(out)).publish("loss.jsonl", "".join(f"{value:.6f}\n" for value in losses).encode())
            _store(path, model, ema, optimizer, done, seconds + timer.seconds())
        progress("train", done, recipe.steps, {"loss": f"{losses[-1]:.4f}"})
    total = seconds + timer.seconds()
    ema.swap(model)
    return Trained(model=model.eval(), losses=tuple(losses), seconds=total)


class _Timer:
    """Wall seconds since it was made, after all that the device has been told to do."""

    def __init__(self, device: torch.device) -> None:
        self._device, self._began = device, time.perf_counter()

    def seconds(self) -> float:
        if self._device.type == "cuda":
            torch.cuda.synchronize(self._device)
        return time.perf_counter() - self._began


def _of_labels(model: SiT, label_B: torch.Tensor) -> Velocity:
    return lambda x_BChw, t_B: model(x_BChw, t_B, label_B)


def _read_losses(out: Path, start: int) -> list[float]:
    if not start:
        return []
    return [float(line) for line in (out / "loss.jsonl").read_text().splitlines()[:start]]


def _store(
    path: Path, model: SiT, ema: MovingAverage, optimizer: torch.optim.Optimizer, step: int, seconds: float
) -> None:
    names: dict[torch.Tensor, str] = {parameter: name for name, parameter in model.named_parameters()}
    tensors = {f"model/{name}": tensor for name, tensor in model.state_dict().items()}
    tensors |= {f"ema/{name}": tensor for name, tensor in ema.shadow.items()}
    for parameter, state in optimizer.state.items():
        tensors |= {f"optimizer/{names[parameter]}/{key}": value for key, value in state.items()}
    plain = {name: tensor.detach().cpu().contiguous() for name, tensor in tensors.items()}
    temporary = path.with_name(f".{path.name}.tmp")
    try:
        save_file(plain, temporary, {"step": str(step), "seconds": f"{seconds:.3f}"})
        temporary.replace(path)
    except (OSError, SafetensorError) as error:
        temporary.unlink(missing_ok=True)
        raise BadInput(f"{path}: the checkpoint cannot be written ({error})") from None


def _restore(path: Path, model: SiT, ema: MovingAverage, optimizer: torch.optim.Optimizer) -> tuple[int, float]:
    """Steps finished and their seconds; 0 without a checkpoint."""
    if not path.is_file():
        return 0, 0.0
    try:
        with safe_open(path, "pt") as file:
            metadata = file.metadata()
            names = list(file.keys())
            weights = [name for name in names if name.startswith("model/")]
            model.load_state_dict({name.removeprefix("model/"): file.get_tensor(name) for name in weights})
            for name, tensor in ema.shadow.items():
                tensor.copy_(file.get_tensor(f"ema/{name}"))
            for name, parameter in model.named_parameters():
                prefix = f"optimizer/{name}/"
                optimizer.state[parameter] = {
                    key.removeprefix(prefix): _beside(parameter, key.removeprefix(prefix), file.get_tensor(key))
                    for key in names
                    if key.startswith(prefix)
                }
        return int(metadata["step"]), float(metadata["seconds"])
    except (OSError, SafetensorError, RuntimeError, KeyError, ValueError) as error:
        raise BadInput(f"{path}: is no checkpoint of this probe ({error}); remove it to start over") from None


def _beside(parameter: torch.Tensor, key: str, value: torch.Tensor) -> torch.Tensor:
    # AdamW's fused kernel wants its step counts where the parameters are, as float32.
    return value.to(parameter.device, torch.float32 if key == "step" else parameter.dtype)


# ---- sampling --------------------------------------------------------------------------------------------------------


def held_out_loss(recipe: ProbeRecipe, trained: Trained, prepared: Prepared, device: torch.device) -> float:
    """Velocity loss on held-out latents over 8 fixed times each. Of VAEs of different C it compares nothing."""
    latents = prepared.held_out
    values = []
    for start in range(0, len(latents), recipe.encode_batch):
        indices = list(range(start, min(start + recipe.encode_batch, len(latents))))
        raw = prepared.held_out.restore(latents.read(indices))
        standard_BChw = prepared.train.standardise(raw).to(device)
        label_B = torch.from_numpy(latents.labels_N[indices]).to(device)
        for number in range(8):
            noise_BChw, _ = step_noise(recipe.seed, (1 << 30) + start * 8 + number, tuple(standard_BChw.shape))
            t_B = torch.full((len(indices),), (number + 0.5) / 8, device=device)
            with torch.no_grad():
                loss_B = velocity_loss(_of_labels(trained.model, label_B), standard_BChw, noise_BChw.to(device), t_B)
            values += loss_B.tolist()
    return float(np.mean(values))


def draw_samples(
    recipe: ProbeRecipe,
    trained: Trained,
    prepared: Prepared,
    sampler: Sampler,
    out: Path,
    device: torch.device,
    progress: Progress = lambda stage, done, total, counts: None,
) -> list[Path]:
    """Files of sampled latents, raw as the decoder takes them, float16; batches that are there are not drawn again.

    Labels are drawn from those of the training pictures; noise and labels depend on the seed and the batch alone.
    """
    folder = out / "samples" / sampler
    folder.mkdir(parents=True, exist_ok=True)
    labels_N = rng_for_run(recipe.seed, _LABELS).choice(prepared.train.labels_N, recipe.samples)
    shape = (prepared.autoencoder.channels, prepared.autoencoder.cells, prepared.autoencoder.cells)
    files = []
    for start in range(0, recipe.samples, recipe.encode_batch):
        label_B = torch.from_numpy(labels_N[start : start + recipe.encode_batch]).to(device)
        path = folder / f"{start:08d}.safetensors"
        if not path.is_file():
            noise_BChw, _ = step_noise(recipe.seed, (1 << 31) + start, (len(label_B), *shape))
            generator = torch.Generator().manual_seed((recipe.seed << 32) + (3 << 30) + start)
            with torch.autocast(device.type, torch.bfloat16, enabled=device.type == "cuda"):
                latents_BChw = sample(
                    _of_labels(trained.model, label_B),
                    noise_BChw.to(device),
                    recipe.sampling_steps,
                    sampler,
                    generator,
                )
            raw = prepared.train.restore(latents_BChw.float().cpu()).half()
            temporary = path.with_name(f".{path.name}.tmp")
            save_file({"latents": raw.contiguous(), "labels": label_B.cpu()}, temporary)
            temporary.replace(path)
        files.append(path)
        progress(f"sample {sampler}", min(start + recipe.encode_batch, recipe.samples), recipe.samples, {})
    return files


def read_samples(path: Path) -> torch.Tensor:
    """Raw latents (B, C, h, w) of one file, float32."""
    with safe_open(path, "pt") as file:
        return torch.as_tensor(file.get_tensor("latents")).float()
