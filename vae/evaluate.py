"""How faithful a model is: the trained weights beside what a linear map does without any network.

Legend: B pictures, H W pixels.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import torch

from datagen.ocr import Recognizer
from fonts_manifest.errors import BadInput
from vae.batch import to_uint8, to_unit_range
from vae.bootstrap import Figure, bootstrap
from vae.metrics import page_text, psnr, reading_ned, ssim
from vae.model import GSCAutoencoder
from vae.skip import LinearSkip

Codec = Callable[[torch.Tensor], torch.Tensor]
"""Pictures (B, 3, H, W) in [-1, 1] to reconstructions of the same shape, not clamped."""

Pictures = npt.NDArray[np.uint8]
"""(B, H, W, 3) sRGB."""

_Values = npt.NDArray[np.float64]

MIN_CHARACTERS = 5
"""Originals on which the reader finds fewer have no NED: one letter more or less would decide."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Row:
    """One codec on one set."""

    codec: str
    set_name: str
    psnr_db: Figure
    ssim: Figure
    ned: Figure | None
    """None when no reader was given or the reader finds no text in the set."""
    gain_db: Figure | None
    """PSNR over the baseline's, picture by picture: pictures differ by more than codecs do. None without a baseline."""

    @classmethod
    def from_dict(cls, record: dict[str, Any]) -> "Row":
        """Back from `dataclasses.asdict`, through JSON or not."""
        figures = {name: record[name] and Figure(**record[name]) for name in ("psnr_db", "ssim", "ned", "gain_db")}
        return cls(codec=record["codec"], set_name=record["set_name"], **figures)


def network(model: GSCAutoencoder) -> Codec:
    """The model as a codec."""
    return lambda images: model(images).sample


def bare_skip(model: GSCAutoencoder) -> Codec:
    """The linear skip that training started from, as a codec without the network.

    Of a model without one (`lsc`, `nsc`, `gsc_deep`): the group mean, the literal skip of the paper.
    """
    skip = model.linear_skip or LinearSkip(model.compression, model.config.latent_channels, "mean")
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
    *,
    baseline: str | None = None,
    read_at_most: int = 32,
    advance: Callable[[], object] = lambda: None,
) -> list[Row]:
    """Every codec on every set, in the order given.

    sets: name -> pictures of one size. baseline: name of the codec that gains are measured against. recognizer: reads
    originals and reconstructions, of each set the first `read_at_most`. advance: called after each codec on each set.
    Raises BadInput for an empty set or an unknown baseline.
    """
    if baseline is not None and baseline not in codecs:
        raise BadInput(f"the baseline {baseline!r} is none of the codecs: {', '.join(codecs)}")
    for name, pictures in sets.items():
        if not len(pictures):
            raise BadInput(f"the set {name} has no pictures")
    texts = {name: _texts(recognizer, pictures[:read_at_most]) for name, pictures in sets.items()}
    measured: dict[tuple[str, str], tuple[_Values, _Values, _Values | None]] = {}
    for codec_name, codec in codecs.items():
        for set_name, pictures in sets.items():
            measured[codec_name, set_name] = _measure(codec, pictures, recognizer, texts[set_name])
            advance()
    rows = []
    for (codec_name, set_name), (psnr_db, ssim_values, neds) in measured.items():
        gain = None if baseline is None else bootstrap(psnr_db - measured[baseline, set_name][0])
        rows.append(
            Row(
                codec=codec_name,
                set_name=set_name,
                psnr_db=bootstrap(psnr_db),
                ssim=bootstrap(ssim_values),
                ned=None if neds is None else bootstrap(neds),
                gain_db=gain,
            )
        )
    return rows


def _measure(
    codec: Codec, pictures: Pictures, recognizer: Recognizer | None, texts: dict[int, str]
) -> tuple[_Values, _Values, _Values | None]:
    """PSNR, SSIM and NED of each picture (of each readable one)."""
    outputs = reconstruct(codec, pictures)
    target, output = _unit(pictures), _unit(outputs)
    # Equal pictures have no finite PSNR: 100 dB stands above anything that 8 bits can differ by.
    psnr_db, ssim_values = psnr(output, target).clamp_max(100).numpy(), ssim(output, target).numpy()
    if recognizer is None or not texts:
        return psnr_db, ssim_values, None
    return psnr_db, ssim_values, np.array(reading_ned(recognizer, [outputs[i] for i in texts], list(texts.values())))


def _texts(recognizer: Recognizer | None, pictures: Pictures) -> dict[int, str]:
    """Index -> what is read on the original, where there is enough to read."""
    if recognizer is None:
        return {}
    found = {i: page_text(recognizer, picture) for i, picture in enumerate(pictures)}
    return {i: text for i, text in found.items() if len("".join(text.split())) >= MIN_CHARACTERS}


def _unit(pictures_BHW3: Pictures) -> torch.Tensor:
    return torch.from_numpy(pictures_BHW3).permute(0, 3, 1, 2).float() / 255
