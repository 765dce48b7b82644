"""Checkpoints: whole or not there, checked when read, nothing pickled.

checkpoints/00000300/model.safetensors      weights and buffers of the trainee
                     ema.safetensors        moving average of the weights
                     optimizer.safetensors  "{parameter}/{state}" -> tensor
                     state.json             numbers, the recipe's hash, SHA-256 of the other files
"""

import hashlib
import json
import math
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
from vae.distributed import fill, whole
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
    data: dict[str, Any]
    """What the feed's `state` gave."""
    guard: dict[str, Any]
    """What `Guard.state` gave."""


@dataclass(frozen=True, slots=True)
class Trained:
    """All that changes in training."""

    trainee: nn.Module
    ema: MovingAverage
    optimizer: torch.optim.Optimizer


def save_checkpoint(
    root: Path,
    step: int,
    trained: Trained,
    *,
    recipe_hash: str,
    data: dict[str, Any],
    guard: dict[str, Any],
    keep_last: int,
    score: float | None = None,
    writes: bool = True,
) -> None:
    """Write under a temporary name, flush to the disk, rename; then remove all but the last `keep_last` and the best.

    score: how good the weights are, larger is better, when that was measured. Sharded weights are put together, so
    every process must call this; `writes` is true in one of them. What is written is the same for any number of
    processes. Raises BadInput when the disk is full or cannot be written; what was there stays.
    """
    tensors = [
        {name: whole(tensor.detach()).contiguous() for name, tensor in part.items()}
        for part in (
            trained.trainee.state_dict(),
            trained.ema.shadow,
            _optimizer_tensors(trained.trainee, trained.optimizer),
        )
    ]
    if not writes:
        return
    target, temporary = root / f"{step:08d}", root / f".{step:08d}.tmp"
    try:
        shutil.rmtree(temporary, ignore_errors=True)
        temporary.mkdir(parents=True)
        for name, content in zip(FILES, tensors, strict=True):
            save_file(content, temporary / name)
        state = {
            "step": step,
            "recipe_hash": recipe_hash,
            "data": data,
            "guard": guard,
            "score": score,
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
    folders = _folders(root)
    best = max(folders, key=_score)
    for old in folders[:-keep_last]:
        if old != best or _score(best) == -math.inf:
            shutil.rmtree(old, ignore_errors=True)


def _score(folder: Path) -> float:
    try:
        score = json.loads((folder / STATE).read_text())["score"]
    except (OSError, ValueError, KeyError):
        score = None  # damaged: certainly not the best
    return -math.inf if score is None else float(score)


def latest_checkpoint(root: Path) -> tuple[Checkpoint | None, list[str]]:
    """The newest checkpoint that is whole, and a sentence for each newer one that is not."""
    problems: list[str] = []
    for folder in reversed(_folders(root)):
        try:
            state = json.loads((folder / STATE).read_text())
            damaged = [name for name in FILES if _sha256(folder / name) != state["sha256"][name]]
            if not damaged:
                found = Checkpoint(
                    folder=folder,
                    step=int(state["step"]),
                    recipe_hash=state["recipe_hash"],
                    data=state["data"],
                    guard=state["guard"],
                )
                return found, problems
            problems.append(f"{folder}: {', '.join(damaged)} is not what was written; passed over")
        except (OSError, ValueError, KeyError, TypeError) as error:
            problems.append(f"{folder}: damaged ({type(error).__name__}: {error}); passed over")
    return None, problems


@torch.no_grad()
def load_checkpoint(checkpoint: Checkpoint, trained: Trained) -> None:
    """Bring weights, their average and the optimizer to where they were, sharded or not.

    Raises BadInput for another model's checkpoint.
    """
    ours = trained.trainee.state_dict()
    try:
        weights, average, states = (load_file(checkpoint.folder / name) for name in FILES)
    except (OSError, SafetensorError) as error:
        raise BadInput(f"{checkpoint.folder}: cannot be read ({error})") from error
    shapes = [{name: tuple(tensor.shape) for name, tensor in some.items()} for some in (ours, weights)]
    if shapes[0] != shapes[1]:
        other = sorted(dict(shapes[0].items() ^ shapes[1].items()))
        raise BadInput(f"{checkpoint.folder}: is of another model; {len(other)} tensors differ, such as {other[0]}")
    for name, tensor in ours.items():
        fill(tensor, weights[name])
    for name, tensor in trained.ema.shadow.items():
        fill(tensor, average[name])
    names = _parameter_names(trained.trainee)
    for group in trained.optimizer.param_groups:
        for parameter in group["params"]:
            prefix = names[parameter] + "/"
            # Into the layout of the parameter: a resumed run must add up in the same order.
            trained.optimizer.state[parameter] = {
                key.removeprefix(prefix): _like(parameter, value)
                for key, value in states.items()
                if key.startswith(prefix)
            }


def _like(parameter: torch.Tensor, value: torch.Tensor) -> torch.Tensor:
    if value.shape != parameter.shape:
        return value.to(parameter.device)
    tensor = torch.empty_like(parameter)
    fill(tensor, value)
    return tensor


def _optimizer_tensors(model: nn.Module, optimizer: torch.optim.Optimizer) -> dict[str, torch.Tensor]:
    names = _parameter_names(model)
    return {
        f"{names[parameter]}/{key}": value
        for parameter, state in optimizer.state.items()
        for key, value in state.items()
    }


def _parameter_names(model: nn.Module) -> dict[Any, str]:
    return {parameter: name for name, parameter in model.named_parameters()}


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
