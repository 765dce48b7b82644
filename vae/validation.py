"""Held-out pictures, measured during training: PSNR, SSIM and, where a reader is wanted, NED of every source.

Legend: B pictures, H W pixels.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch

from datagen.ocr import Recognizer
from fonts_manifest.errors import BadInput
from vae.evaluate import MIN_CHARACTERS, Codec, Pictures, reconstruct
from vae.metrics import page_text, psnr, reading_ned, ssim
from vae.source import Source, held_out_pictures

_EQUAL_DB = 100.0
"""Equal pictures have no finite PSNR; this stands above anything that 8 bits can differ by."""


@dataclass(frozen=True, slots=True)
class HeldOut:
    """What one source is measured on."""

    name: str
    pictures_BHW3: Pictures
    texts: dict[int, str]
    """Index -> what is read on it, of those with enough to read."""


@dataclass(frozen=True, slots=True)
class Validation:
    """What was measured, source by source; a source without text has no NED."""

    psnr_db: dict[str, float]
    ssim: dict[str, float]
    ned: dict[str, float]
    outputs: dict[str, Pictures]

    @property
    def score(self) -> float:
        """By which the best checkpoint is chosen: the mean PSNR of the sources."""
        return sum(self.psnr_db.values()) / len(self.psnr_db)


def open_held_out(
    sources: Sequence[Source], count: int, size_px: int, recognizer: Recognizer | None, read_at_most: int
) -> list[HeldOut]:
    """`count` crops of every source, the first `read_at_most` of them read. Raises BadInput when a source has none."""
    found = []
    for source in sources:
        pictures = held_out_pictures(source, count, size_px)
        if not pictures:
            raise BadInput(
                f"source {source.name}: none of its {source.held_out_rows} held-out pictures has {size_px} px "
                "a side; lower validate_px or raise hold_out"
            )
        images_BHW3 = np.stack([image for _, image in pictures])
        texts: dict[int, str] = {}
        if recognizer is not None:
            texts = {i: page_text(recognizer, image) for i, image in enumerate(images_BHW3[:read_at_most])}
        enough = {i: text for i, text in texts.items() if len("".join(text.split())) >= MIN_CHARACTERS}
        found.append(HeldOut(source.name, images_BHW3, enough))
    return found


@torch.no_grad()
def validate(codec: Codec, held_out: Sequence[HeldOut], recognizer: Recognizer | None = None) -> Validation:
    """Means over the pictures of each source, of reconstructions as files would hold them."""
    measured = Validation({}, {}, {}, {})
    for part in held_out:
        output_BHW3 = reconstruct(codec, part.pictures_BHW3)
        output, target = (torch.from_numpy(x).permute(0, 3, 1, 2) / 255 for x in (output_BHW3, part.pictures_BHW3))
        measured.psnr_db[part.name] = float(psnr(output, target).clamp_max(_EQUAL_DB).mean())
        measured.ssim[part.name] = float(ssim(output, target).mean())
        measured.outputs[part.name] = output_BHW3
        if recognizer is not None and part.texts:
            read = [output_BHW3[i] for i in part.texts]
            measured.ned[part.name] = float(np.mean(reading_ned(recognizer, read, list(part.texts.values()))))
    return measured
