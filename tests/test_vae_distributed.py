"""Two processes on the CPU train what one trains, started as users start them."""

import os
import shutil
import socket
import subprocess
import sys
import traceback
from pathlib import Path

import pytest
import torch
import yaml
from safetensors.torch import load_file
from vae_runs import stripes, write_run

from datagen.recipes import load_recipe
from fonts_manifest.errors import BadInput
from vae.distributed import Ranks, joined, whole
from vae.logs import read_metrics, read_report
from vae.recipes import TrainRecipe, training_hash
from vae.train import train

ROOT = Path(__file__).parents[1]
TORCHRUN = ("-m", "torch.distributed.run", "--nnodes=1", "--nproc-per-node=2", "--rdzv-backend=c10d",
            "--rdzv-endpoint=localhost:0", "-m", "vae", "train")  # fmt: skip
ACCELERATE = ("-m", "accelerate.commands.launch", "--cpu", "--num_processes=2", "--num_machines=1",
              "--mixed_precision=no", "--dynamo_backend=no", "--main_process_port=0", "-m", "vae", "train")  # fmt: skip


@pytest.fixture(scope="module")
def recipe(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Twelve steps of a small model over two sources, two stages."""
    folder = tmp_path_factory.mktemp("run")
    write_run(folder / "a", stripes(24, 48), shards=2)
    write_run(folder / "b", stripes(24, 48, seed=1))
    model = {"encoder_widths": [8, 8, 24], "decoder_widths": [8, 8, 24], "latent_channels": 6}
    settings = {
        "kind": "train",
        "sources": [{"name": name, "run": str(folder / name)} for name in "ab"],
        "model": {**model, "encoder_blocks": 1, "decoder_blocks": 1, "skip_basis": "pca", "decoder_mirror": True},
        "losses": {"l1": 0.5, "mse": 1.0},
        "optim": {"lr": 0.002, "warmup_steps": 3},
        "steps": 12,
        "batch": 8,
        "crop_px": 32,
        "aspect_ratios": [1.0, 2.0],
        "stages": [{"from_step": 8, "crop_px": 48, "batch": 4}],
        "validate_px": 48,
        "validate_pictures": 2,
        "checkpoint_every": 6,
        "machine": {"device": "cpu"},
    }
    path = folder / "recipe.yaml"
    path.write_text(yaml.safe_dump(settings))
    return path


def start(launcher: tuple[str, ...], recipe: Path, out: Path, *overrides: str) -> subprocess.CompletedProcess[str]:
    """As users do; ten seconds of imports a process."""
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1", "MKL_NUM_THREADS": "1"}
    command = [sys.executable, *launcher, str(recipe), *overrides, "--out", str(out)]
    return subprocess.run(command, env=environment, capture_output=True, text=True, check=False)


def together(world: int, recipe: Path, out: Path, *overrides: str) -> None:
    """The same processes as forks of this one, which has imported everything."""
    loaded = load_recipe(recipe, TrainRecipe, overrides)
    with socket.socket() as free:
        free.bind(("localhost", 0))
        port = str(free.getsockname()[1])
    children = []
    for rank in range(world):
        child = os.fork()
        if not child:
            launched = {"RANK": str(rank), "LOCAL_RANK": str(rank), "WORLD_SIZE": str(world)}
            os.environ.update(launched, MASTER_ADDR="localhost", MASTER_PORT=port)
            try:
                train(loaded, training_hash(loaded), out)
                os._exit(0)
            except BaseException:  # noqa: BLE001 - a fork must never return into pytest
                traceback.print_exc()
                os._exit(1)
        children.append(child)
    assert [os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) for child in children] == [0] * world


@pytest.fixture(scope="module")
def alone(recipe: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("alone") / "out"
    loaded = load_recipe(recipe, TrainRecipe)
    train(loaded, training_hash(loaded), out)
    return out


def agree(alone: Path, together: Path) -> None:
    """Losses, gradients, sources and weights of both runs."""
    pairs = list(zip(read_metrics(alone), read_metrics(together), strict=True))
    assert len(pairs) == 14
    for one, two in pairs:
        assert (one["kind"], one["step"]) == (two["kind"], two["step"])
        if one["kind"] == "step":
            assert two["loss"] == pytest.approx(one["loss"], abs=1e-5, rel=1e-5)
            assert two["grad_norm"] == pytest.approx(one["grad_norm"], rel=1e-3)
            assert {s: n for s, (n, _) in one["by_source"].items()} == {s: n for s, (n, _) in two["by_source"].items()}
            for source, (_, loss) in one["by_source"].items():
                assert two["by_source"][source][1] == pytest.approx(loss, abs=1e-5, rel=1e-5)
        else:
            assert two["psnr_db"] == pytest.approx(one["psnr_db"], abs=1e-3)
    for name in ("model", "ema"):
        weights = [load_file(out / name / "diffusion_pytorch_model.safetensors") for out in (alone, together)]
        for key, tensor in weights[0].items():
            torch.testing.assert_close(weights[1][key], tensor, atol=2e-4, rtol=1e-3)


@pytest.mark.parametrize(
    "launcher",
    [pytest.param(TORCHRUN, id="torchrun"), pytest.param(ACCELERATE, id="accelerate", marks=pytest.mark.slow)],
)
def test_launched_processes_have_the_losses_of_one(
    recipe: Path, alone: Path, tmp_path: Path, launcher: tuple[str, ...]
) -> None:
    done = start(launcher, recipe, tmp_path / "out")
    assert done.returncode == 0, done.stderr[-2000:]
    agree(alone, tmp_path / "out")
    assert done.stdout.count("held-out PSNR") == 2  # one process speaks of the two sources


@pytest.mark.parametrize("overrides", [(), ("machine.strategy=fsdp",)], ids=["ddp", "fsdp"])
def test_two_processes_have_the_losses_of_one(
    recipe: Path, alone: Path, tmp_path: Path, overrides: tuple[str, ...]
) -> None:
    together(2, recipe, tmp_path / "out", *overrides)
    agree(alone, tmp_path / "out")


def test_accumulated_parts_have_the_losses_of_a_whole_batch(recipe: Path, alone: Path, tmp_path: Path) -> None:
    together(1, recipe, tmp_path / "out", "machine.accumulate=4", "machine.activation_checkpointing=true")
    agree(alone, tmp_path / "out")
    together(2, recipe, tmp_path / "two", "machine.accumulate=2")
    agree(alone, tmp_path / "two")


def test_what_two_sharded_processes_began_one_finishes(recipe: Path, alone: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    together(2, recipe, out, "machine.strategy=fsdp")
    (out / "report.json").unlink()
    shutil.rmtree(out / "checkpoints/00000012")
    assert [folder.name for folder in (out / "checkpoints").iterdir()] == ["00000006"]
    together(1, recipe, out)
    agree(alone, out)


def test_a_batch_that_cannot_be_split_is_one_sentence(recipe: Path, tmp_path: Path) -> None:
    done = start(TORCHRUN, recipe, tmp_path / "out", "batch=9")
    assert done.returncode != 0
    assert "glyphmill: a batch of 9 cannot be split among 2 processes" in done.stderr
    assert read_report(tmp_path / "out") is None
    loaded = load_recipe(recipe, TrainRecipe, ["machine.accumulate=3"])
    with pytest.raises(BadInput, match=r"machine\.accumulate 3 does not divide the 8 pictures of a process"):
        train(loaded, training_hash(loaded), tmp_path / "out")


def test_one_process_needs_no_launcher(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("WORLD_SIZE", "RANK", "LOCAL_RANK"):
        monkeypatch.delenv(name, raising=False)
    with joined("cpu") as ranks:
        assert ranks == Ranks(0, 1, torch.device("cpu"))
        values = torch.arange(6.0).view(2, 3)
        assert torch.equal(ranks.gather(values), values)
        assert torch.equal(whole(ranks.mean(values)), values)
    if not torch.cuda.is_available():
        with pytest.raises(BadInput, match=r"machine\.device is cuda, but torch sees no GPU"), joined("cuda"):
            pass
