"""Picture files through a saved model, as anybody would look at it first."""

from pathlib import Path

import numpy as np
import numpy.typing as npt
import torch

from datagen.codec import encode_png
from datagen.decode import SUFFIXES, ImageProblem, decode_image
from fonts_manifest.errors import BadInput
from fonts_manifest.places import find_files
from vae.batch import to_uint8, to_unit_range
from vae.capacity import memory_explained
from vae.model import GSCAutoencoder
from vae.saved import load_model


def reconstruct_files(
    model_folder: Path, place: str, out: Path, *, device: str = "cpu", tile_cells: int = 64
) -> tuple[int, list[tuple[str, str]]]:
    """Write `out`/NAME.png for every picture at `place`, of its size; returns how many, and the (name, problem) of
    those left out.

    Of two pictures whose names differ in the suffix only, the second is left out. Large pictures go through in tiles of
    `tile_cells` latent cells a side, which changes nothing but the memory needed. Raises BadInput when there is no
    model or no picture, `out` cannot be written, or memory does not suffice.
    """
    model = load_model(model_folder).to(device)
    model.register_to_config(tile_latents=tile_cells)
    model.enable_tiling()
    files = find_files([place], SUFFIXES)
    if not files:
        raise BadInput(f"{place}: no picture found ({', '.join(sorted(SUFFIXES))})")
    problems: list[tuple[str, str]] = []
    written: set[str] = set()
    try:
        out.mkdir(parents=True, exist_ok=True)
        for path in files:
            if path.stem in written:
                problems.append((str(path), f"{path.stem}.png is taken by another picture of that name"))
                continue
            try:
                image_HW3 = decode_image(path)
            except ImageProblem as problem:
                problems.append((str(path), str(problem)))
                continue
            (out / f"{path.stem}.png").write_bytes(encode_png(reconstruct_picture(model, image_HW3)))
            written.add(path.stem)
    except OSError as error:
        raise BadInput(f"{out}: cannot be written ({error.strerror})") from None
    return len(written), problems


@torch.no_grad()
def reconstruct_picture(model: GSCAutoencoder, image_HW3: npt.NDArray[np.uint8]) -> npt.NDArray[np.uint8]:
    """A picture of any size through the model: its last row and column are repeated up to whole cells, and what comes
    back is cut to its size. Raises BadInput when memory does not suffice."""
    height, width = image_HW3.shape[:2]
    f = model.compression
    padded_HW3 = np.pad(image_HW3, ((0, -height % f), (0, -width % f), (0, 0)), mode="edge")
    images = to_unit_range(padded_HW3[None]).to(model.device, model.dtype)
    tile = model.config.tile_latents
    what = f"memory does not suffice for {width}x{height} px in tiles of {tile} cells: lower --tile (now {tile})"
    with memory_explained(lambda: what):
        output = to_uint8(model(images).sample)[0, :height, :width]
    return np.ascontiguousarray(output)
