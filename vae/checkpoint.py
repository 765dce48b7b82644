"""Checkpoints: whole or not there, checked when read, nothing pickled.

checkpoints/00000300/model.safetensors      weights and buffers
                     ema.safetensors        moving average of the weights
                     optimizer.safetensors  "{parameter}/{state}" -> tensor
                     state.json             integers, the recipe's hash, SHA-256 of the other files
"""

import hashlib
import json
import os
import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import nn

from fonts_manifest.errors import BadInput
from vae.optim import MovingAverage

STATE = "state.json"
FILES = ("model.safetensors", "ema.safetensors", "optimizer.safetensors")


@dataclass(frozen=True, slots=True, kw_only=True)
class Checkpoint:
    """A checkpoint whose files were found whole."""

    folder: Path
    step: int
    """Steps finished."""
    recipe_hash: str
    data: dict[str, object]
    """What `Feed.state` gave."""


def save_checkpoint(
    root: Path,
    step: int,
    recipe_hash: str,
    data: dict[str, object],
    model: nn.Module,
    ema: MovingAverage,
    optimizer: torch.optim.Optimizer,
    keep_last: int,
) -> Path:
    """Write under a temporary name, flush to the disk, rename; then remove all but the last `keep_last`.

    Raises BadInput when the disk is full or cannot be written; what was there stays.
    """
    target, temporary = root / f"{step:08d}", root / f".{step:08d}.tmp"
    tensors = (
        _contiguous(model.state_dict()),
        _contiguous(ema.shadow),
        _contiguous(_optimizer_tensors(model, optimizer)),
    )
    try:
        shutil.rmtree(temporary, ignore_errors=True)
        temporary.mkdir(parents=True)
        for name, content in zip(FILES, tensors, strict=True):
            save_file(content, temporary / name)
        state = {
            "step": step,
            "recipe_hash": recipe_hash,
            "data": data,
            "sha256": {name: _sha256(temporary / name) for name in FILES},
        }
        (temporary / STATE).write_text(json.dumps(state, indent=1))
        for name in (*FILES, STATE):
            _flush(temporary / name)
        shutil.rmtree(target, ignore_errors=True)  # left by a run that was set back to an earlier checkpoint
        os.replace(temporary, target)
        _flush(root)
    except (OSError, SafetensorError) as error:
        shutil.rmtree(temporary, ignore_errors=True)
        raise BadInput(f"{target}: the checkpoint cannot be written ({error})") from error
    for old in _folders(root)[:-keep_last]:
        shutil.rmtree(old, ignore_errors=True)
    return target


def latest_checkpoint(root: Path) -> tuple[Checkpoint | None, list[str]]:
    """The newest checkpoint that is whole, and a sentence for each newer one that is not."""
    problems: list[str] = []
    for folder in reversed(_folders(root)):
        try:
            state = json.loads((folder / STATE).read_text())
            damaged = [name for name in FILES if _sha256(folder / name) != state["sha256"][name]]
            if not damaged:
                found = Checkpoint(
                    folder=folder, step=int(state["step"]), recipe_hash=state["recipe_hash"], data=state["data"]
                )
                return found, problems
            problems.append(f"{folder}: {', '.join(damaged)} is not what was written; passed over")
        except (OSError, ValueError, KeyError, TypeError) as error:
            problems.append(f"{folder}: damaged ({type(error).__name__}: {error}); passed over")
    return None, problems


def load_checkpoint(
    checkpoint: Checkpoint, model: nn.Module, ema: MovingAverage, optimizer: torch.optim.Optimizer
) -> None:
    """Bring model, moving average and optimizer to where they were. Raises BadInput for another model's checkpoint."""
    try:
        weights, average, states = (load_file(checkpoint.folder / name) for name in FILES)
        model.load_state_dict(weights)
    except (OSError, SafetensorError, RuntimeError) as error:
        raise BadInput(f"{checkpoint.folder}: holds no checkpoint of this model ({error})") from error
    for name, tensor in ema.shadow.items():
        tensor.copy_(average[name])
    names = _parameter_names(model)
    for group in optimizer.param_groups:
        for parameter in group["params"]:
            prefix = names[parameter] + "/"
            # Into the layout of the parameter: a resumed run must add up in the same order.
            optimizer.state[parameter] = {
                key.removeprefix(prefix): _like(parameter, value)
                for key, value in states.items()
                if key.startswith(prefix)
            }


def _like(parameter: torch.Tensor, value: torch.Tensor) -> torch.Tensor:
    return torch.empty_like(parameter).copy_(value) if value.shape == parameter.shape else value


def _optimizer_tensors(model: nn.Module, optimizer: torch.optim.Optimizer) -> dict[str, torch.Tensor]:
    names = _parameter_names(model)
    return {
        f"{names[parameter]}/{key}": value
        for parameter, state in optimizer.state.items()
        for key, value in state.items()
    }


def _parameter_names(model: nn.Module) -> dict[Any, str]:
    return {parameter: name for name, parameter in model.named_parameters()}


def _contiguous(tensors: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    return {name: tensor.detach().contiguous() for name, tensor in tensors.items()}


def _folders(root: Path) -> list[Path]:
    """Checkpoint folders, oldest first."""
    return sorted(path for path in root.glob("[0-9]*") if path.is_dir() and path.name.isdigit())


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _flush(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
