"""How faithful a model is: the trained weights beside what a linear map does without any network.

Legend: B pictures, H W pixels.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt
import torch

from datagen.ocr import Recognizer
from fonts_manifest.errors import BadInput
from vae.batch import to_uint8, to_unit_range
from vae.metrics import page_text, psnr, reading_ned, ssim
from vae.model import GSCAutoencoder
from vae.skip import LinearSkip

Codec = Callable[[torch.Tensor], torch.Tensor]
"""Pictures (B, 3, H, W) in [-1, 1] to reconstructions of the same shape, not clamped."""

Pictures = npt.NDArray[np.uint8]
"""(B, H, W, 3) sRGB."""

MIN_CHARACTERS = 5
"""Originals on which the reader finds fewer have no NED: one letter more or less would decide."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Figure:
    """The mean of one metric over the pictures of a set."""

    mean: float
    low: float
    """2.5 % point of the bootstrap distribution of the mean."""
    high: float
    """97.5 % point."""
    pictures: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Row:
    """One codec on one set."""

    codec: str
    set_name: str
    psnr_db: Figure
    ssim: Figure
    ned: Figure | None
    """None when no reader was given or the reader finds no text in the set."""


def load_model(folder: Path) -> GSCAutoencoder:
    """A saved model, ready to reconstruct. Raises BadInput when there is none."""
    if not (folder / "config.json").is_file():
        raise BadInput(f"{folder}: holds no model (config.json is missing); train one first")
    try:
        return GSCAutoencoder.from_pretrained(folder).eval().to(memory_format=torch.channels_last)
    except (OSError, ValueError, RuntimeError, KeyError, TypeError) as error:
        raise BadInput(f"{folder}: the model cannot be read ({error})") from error


def network(model: GSCAutoencoder) -> Codec:
    """The model as a codec."""
    return lambda images: model(images).sample


def bare_skip(model: GSCAutoencoder) -> Codec:
    """The linear skip that training started from, as a codec without the network.

    Of a model without one (`lsc`, `nsc`, `gsc_deep`): the group mean, the literal skip of the paper.
    """
    skip = model.linear_skip or LinearSkip(model.compression, model.config.latent_channels, "mean")
    return lambda images: skip.decode(skip.encode(images))


def linear_codec(factor: int, channels: int, fit_images_B3HW: torch.Tensor | None = None) -> Codec:
    """The DCT of the model's shape as a codec; with pictures in [-1, 1] to fit, the PCA of their cells."""
    skip = LinearSkip(factor, channels, "dct" if fit_images_B3HW is None else "pca")
    if fit_images_B3HW is not None:
        skip.fit(fit_images_B3HW)
    return lambda images: skip.decode(skip.encode(images))


@torch.no_grad()
def reconstruct(codec: Codec, pictures_BHW3: Pictures, batch: int = 4) -> Pictures:
    """What a file of each reconstruction would hold, uint8. Sides must be multiples of the compression."""
    parts = [pictures_BHW3[i : i + batch] for i in range(0, len(pictures_BHW3), batch)]
    return np.concatenate([to_uint8(codec(to_unit_range(part))) for part in parts])


def evaluate(
    codecs: Mapping[str, Codec],
    sets: Mapping[str, Pictures],
    recognizer: Recognizer | None = None,
    read_at_most: int = 32,
    advance: Callable[[], object] = lambda: None,
) -> list[Row]:
    """Every codec on every set, in the order given.

    sets: name -> pictures of one size. recognizer: reads originals and reconstructions, of each set the first
    `read_at_most`. advance: called after each codec on each set. Raises BadInput for an empty set.
    """
    for name, pictures in sets.items():
        if not len(pictures):
            raise BadInput(f"the set {name} has no pictures")
    texts = {name: _texts(recognizer, pictures[:read_at_most]) for name, pictures in sets.items()}
    rows = []
    for codec_name, codec in codecs.items():
        for set_name, pictures in sets.items():
            outputs = reconstruct(codec, pictures)
            target, output = _unit(pictures), _unit(outputs)
            neds = None
            if recognizer is not None and texts[set_name]:
                readable = texts[set_name]
                neds = reading_ned(recognizer, [outputs[i] for i in readable], list(readable.values()))
            rows.append(
                Row(
                    codec=codec_name,
                    set_name=set_name,
                    # Equal pictures have no finite PSNR: 100 dB stands above anything 8 bits can differ by (48 to 98).
                    psnr_db=bootstrap(psnr(output, target).clamp_max(100).numpy()),
                    ssim=bootstrap(ssim(output, target).numpy()),
                    ned=None if neds is None else bootstrap(np.array(neds)),
                )
            )
            advance()
    return rows


def bootstrap(values: npt.NDArray[np.float64], draws: int = 1000) -> Figure:
    """The mean and its 95 % interval over `draws` resamplings of the pictures, from a fixed seed."""
    rng = np.random.Generator(np.random.Philox(0))
    means = values[rng.integers(len(values), size=(draws, len(values)))].mean(axis=1)
    low, high = np.quantile(means, (0.025, 0.975))
    return Figure(mean=float(values.mean()), low=float(low), high=float(high), pictures=len(values))


def _texts(recognizer: Recognizer | None, pictures: Pictures) -> dict[int, str]:
    """Index -> what is read on the original, where there is enough to read."""
    if recognizer is None:
        return {}
    found = {i: page_text(recognizer, picture) for i, picture in enumerate(pictures)}
    return {i: text for i, text in found.items() if len("".join(text.split())) >= MIN_CHARACTERS}


def _unit(pictures_BHW3: Pictures) -> torch.Tensor:
    return torch.from_numpy(pictures_BHW3).permute(0, 3, 1, 2).float() / 255
