"""A small training run for the tests of the trainer."""

import os
import signal
import subprocess
import sys
from pathlib import Path

import torch
from safetensors.torch import load_file

from vae.checkpoint import latest_checkpoint
from vae.family import GSCConfig
from vae.logs import read_report
from vae.losses import LossConfig
from vae.optim import OptimConfig
from vae.recipes import TrainRecipe
from vae.source import SourceConfig

HASH = "0123456789abcdef"


def recipe(run: Path, **changes: object) -> TrainRecipe:
    values: dict[str, object] = {
        "kind": "train",
        "sources": (SourceConfig(name="stripes", run=str(run)),),
        "model": GSCConfig(
            encoder_widths=(8, 8, 48),
            decoder_widths=(8, 8, 48),
            latent_channels=6,
            encoder_blocks=1,
            decoder_blocks=1,
            skip="gsc_both",
            skip_basis="dct",
            decoder_mirror=True,
        ),
        "losses": LossConfig(l1=0.0, mse=1.0),
        "optim": OptimConfig(lr=2e-3, warmup_steps=5, ema_decay=0.9),
        "seed": 1,
        "steps": 30,
        "batch": 4,
        "crop_px": 32,
        "hold_out": 0.2,
        "validate_every": 10,
        "validate_pictures": 4,
        "validate_px": 48,
        "checkpoint_every": 5,
    }
    return TrainRecipe(**{**values, **changes})  # type: ignore[arg-type]


def weights(out: Path) -> dict[str, torch.Tensor]:
    found = {}
    for name in ("model", "ema"):
        tensors = load_file(out / name / "diffusion_pytorch_model.safetensors")
        found.update({f"{name}/{key}": value for key, value in tensors.items()})
    checkpoint, _ = latest_checkpoint(out / "checkpoints")
    assert checkpoint is not None
    found.update(load_file(checkpoint.folder / "optimizer.safetensors"))
    return found


def same_weights(a: Path, b: Path) -> bool:
    left, right = weights(a), weights(b)
    return left.keys() == right.keys() and all(torch.equal(left[key], right[key]) for key in left)


def kill_at(asked: TrainRecipe, out: Path, steps: int) -> None:
    """Train in a process of its own and kill it without warning once so many steps stand in its log."""
    program = (
        "import sys, vae_runs; from pathlib import Path;"
        "from vae.train import train; from vae.recipes import TrainRecipe;"
        "train(TrainRecipe.model_validate_json(sys.argv[1]), sys.argv[2], Path(sys.argv[3]),"
        " progress=lambda stage, done, total, counts: print(done, flush=True))"
    )
    here = Path(__file__).parent
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join((str(here), str(here.parent)))}
    arguments = [sys.executable, "-c", program, asked.model_dump_json(), HASH, str(out)]
    process = subprocess.Popen(arguments, env=environment, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True)
    with process:
        assert process.stdout is not None
        assert any(int(line) >= steps for line in process.stdout), "the run ended before it could be killed"
        process.send_signal(signal.SIGKILL)
    assert read_report(out) is None
