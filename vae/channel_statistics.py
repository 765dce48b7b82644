"""Mean and deviation of every latent channel over a set of pictures, written into a saved model.

Without a KL term latents are far from N(0, 1): whoever trains a generator on them standardises them with these.
"""

import json
import os
from collections.abc import Iterable
from pathlib import Path

import numpy as np
import numpy.typing as npt
import torch

from datagen.decode import SUFFIXES, ImageProblem, decode_image
from fonts_manifest.errors import BadInput
from fonts_manifest.places import find_files
from vae.batch import to_unit_range
from vae.model import GSCAutoencoder
from vae.saved import load_model


@torch.no_grad()
def measure_channels(
    model: GSCAutoencoder, pictures: Iterable[npt.NDArray[np.uint8]]
) -> tuple[list[float], list[float], int]:
    """Means, deviations and the number of latent cells. Sides lose what is no whole cell."""
    channels = model.config.latent_channels
    count, total_C, squares_C = 0, torch.zeros(channels).double(), torch.zeros(channels).double()
    for picture_HW3 in pictures:
        height, width = (side - side % model.compression for side in picture_HW3.shape[:2])
        if not height or not width:
            continue
        images = to_unit_range(picture_HW3[None, :height, :width]).to(model.device, model.dtype)
        cells_CN = model.encode(images).latent_dist.mode()[0].flatten(1).double().cpu()
        count += cells_CN.shape[1]
        total_C += cells_CN.sum(1)
        squares_C += cells_CN.square().sum(1)
    if count < 2:
        raise BadInput(f"no picture is larger than a latent cell of {model.compression} px: nothing to measure")
    mean_C = total_C / count
    variance_C = (squares_C - count * mean_C.square()) / (count - 1)
    return mean_C.tolist(), variance_C.clamp_min(0).sqrt().tolist(), count


def write_channel_statistics(folder: Path, place: str) -> tuple[int, list[tuple[str, str]]]:
    """Put `latents_mean` and `latents_std` of the pictures at `place` into config.json of a saved model; the weights
    are not touched. Returns how many cells were measured, and (name, problem) of pictures that could not be read.

    Raises BadInput when there is no model, no picture, or the file cannot be written.
    """
    model = load_model(folder)
    model.enable_tiling()
    problems: list[tuple[str, str]] = []

    def readable() -> Iterable[npt.NDArray[np.uint8]]:
        for path in find_files([place], SUFFIXES):
            try:
                yield decode_image(path)
            except ImageProblem as problem:
                problems.append((str(path), str(problem)))

    mean, deviation, cells = measure_channels(model, readable())
    path, unfinished = folder / "config.json", folder / ".config.json.tmp"
    try:
        config = json.loads(path.read_text(encoding="utf-8")) | {"latents_mean": mean, "latents_std": deviation}
        unfinished.write_text(json.dumps(config, indent=2, sort_keys=True) + "\n", encoding="utf-8")
        os.replace(unfinished, path)
    except OSError as error:
        raise BadInput(f"{path}: cannot be written ({error.strerror})") from None
    return cells, problems
