"""Diffusability probe: how fast a small SiT learns to make the latents of an autoencoder, and cheap proxies beside it.

A run folder holds
- `latents/`, `held_out/`  see `vae/latents.py`
- `sit.safetensors`        network, moving average, optimizer after the last checkpoint
- `loss.jsonl`             one line a step
- `samples/`               latents that each sampler made
- `report.json`, `report.md`, `report.html`

Every stage goes on with what is there; pictures, order, noise and labels depend on the seed alone, never on the VAE.

Legend: B samples, C channels, H W pixels, h w latent cells.
"""

import json
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch

from datagen.recipes import library_versions, recipe_to_yaml
from datagen.storage import Folder
from fonts_manifest.errors import BadInput
from vae.generator import Prepared, ProbeRecipe, Trained, draw_samples, held_out_loss, prepare, train_generator
from vae.latents import Progress, open_autoencoder
from vae.probe_measure import measure_generation, measure_proxies, open_inception
from vae.probe_report import WHAT_IT_IS_NOT, probe_markdown, write_probe_page

Device = Literal["auto", "cpu", "cuda"]


def run_probe(
    recipe: ProbeRecipe,
    recipe_hash: str,
    out: Path,
    *,
    device: Device = "auto",
    inception: Path | None = None,
    progress: Progress = lambda stage, done, total, counts: None,
) -> dict[str, Any]:
    """Everything from pictures to the three reports in `out`, going on with what is there; returns the report.

    inception: weight file of FID's network; without it gFID and IS are null with a sentence, and a later run with it
    adds them without training again. Raises BadInput for what does not fit.
    """
    where = pick_device(device)
    look = None if inception is None else open_inception(inception, where)
    claim_folder(out, recipe_hash, recipe_to_yaml(recipe))
    autoencoder = open_autoencoder(Path(recipe.vae), where, recipe.pictures.size_px)
    prepared = prepare(recipe, autoencoder, out, progress)
    shape = (autoencoder.channels, autoencoder.cells, autoencoder.cells)
    trained = train_generator(recipe, prepared.train, shape, out, where, progress)
    samples = {
        str(name): draw_samples(recipe, trained, prepared, name, out, where, progress) for name in recipe.samplers
    }
    report = _describe(recipe, recipe_hash, prepared, trained, where)
    report["training"]["held_out_loss"] = held_out_loss(recipe, trained, prepared, where)
    report["proxies"], spectra = measure_proxies(recipe, prepared)
    report["generation"], shown = measure_generation(recipe, prepared, samples, look, progress)
    store = Folder(str(out))
    store.publish("report.json", (json.dumps(report, indent=1, ensure_ascii=False) + "\n").encode())
    store.publish("report.md", probe_markdown(report).encode())
    write_probe_page(out / "report.html", recipe, report, trained, spectra, shown)
    return report


def _describe(
    recipe: ProbeRecipe, recipe_hash: str, prepared: Prepared, trained: Trained, device: torch.device
) -> dict[str, Any]:
    autoencoder, tail = prepared.autoencoder, trained.losses[-max(1, len(trained.losses) // 10) :]
    return {
        "what_it_is_not": WHAT_IT_IS_NOT,
        "recipe_hash": recipe_hash,
        "vae": {
            "folder": recipe.vae,
            "class": type(autoencoder.model).__name__,
            "channels": autoencoder.channels,
            "compression": recipe.pictures.size_px / autoencoder.cells,
            "tokens": (autoencoder.cells // recipe.model.patch) ** 2,
            "latents_mean": prepared.train.mean_C.tolist(),
            "latents_std": prepared.train.std_C.tolist(),
        },
        "pictures": {
            "train": len(prepared.train),
            "held_out": len(prepared.held_out),
            "left_out": prepared.train.left_out + prepared.held_out.left_out,
            "classes": len(prepared.train.classes),
            "size_px": recipe.pictures.size_px,
        },
        "training": {
            "parameters": sum(p.numel() for p in trained.model.parameters()),
            "steps": recipe.steps,
            "batch": recipe.batch,
            "epochs": recipe.steps * recipe.batch / len(prepared.train),
            "seconds": round(trained.seconds, 1),
            "device": torch.cuda.get_device_name(device) if device.type == "cuda" else "cpu",
            "first_loss": trained.losses[0],
            "last_loss": float(np.mean(tail)),
        },
    }


def pick_device(device: Device) -> torch.device:
    """auto: CUDA when there is one. Raises BadInput when CUDA is asked for and absent."""
    if device == "cuda" and not torch.cuda.is_available():
        raise BadInput("--device cuda: this machine has no CUDA device that torch can use; take cpu or auto")
    if device == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    return torch.device(device)


def claim_folder(out: Path, recipe_hash: str, recipe_yaml: str) -> None:
    """The folder belongs to one recipe. Raises BadInput when it holds another's run."""
    store = Folder(str(out))
    if store.exists("run.json"):
        found = json.loads(store.read("run.json"))["recipe_hash"]
        if found != recipe_hash:
            raise BadInput(f"{out}: holds a probe by another recipe (hash {found}, this one has {recipe_hash})")
        return
    versions = library_versions(["glyphmill", "torch", "diffusers", "numpy", "safetensors"])
    store.publish("recipe.yaml", recipe_yaml.encode())
    store.publish("run.json", json.dumps({"recipe_hash": recipe_hash, "versions": versions}, indent=1).encode())
