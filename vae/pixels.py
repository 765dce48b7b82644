"""Pairs of picture files -> PSNR, SSIM, LPIPS and Inception features; `python -m vae.pixels` is a process that does it.

Legend: B pictures, H W pixels.
"""

import base64
import dataclasses
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from PIL import Image

from datagen.decode import ImageProblem, decode_plainly
from fonts_manifest.apart import Died, answers_in_groups, serve
from fonts_manifest.errors import BadInput
from vae.fid import load_inception
from vae.metrics import psnr_as_piq, ssim_as_piq
from vae.pairs import Pair
from vae.perceptual import MIN_SIDE_PX as LPIPS_MIN_PX
from vae.perceptual import load_lpips

LIMIT_S = 900.0
"""For one batch."""
SSIM_MIN_PX = 11


@dataclass(frozen=True, slots=True, kw_only=True)
class PixelChoice:
    """What is measured, and on what."""

    vgg_weights: str | None
    """None: no LPIPS."""
    inception_weights: str | None
    """None: no features."""
    resize: bool = False
    """Reconstructions of another size are resized to the original's (bicubic), as the public script does in silence."""
    device: str = "cpu"


@dataclass(frozen=True, slots=True, kw_only=True)
class PixelScore:
    """One pair."""

    psnr_db: float
    ssim: float | None
    """None for pictures smaller than its window."""
    lpips: float | None
    """None without weights, and for pictures smaller than VGG's poolings."""
    features: tuple[str, str] | None
    """Of original and reconstruction: 2,048 float32, little-endian, base64. None without weights."""
    equal: bool
    """Every pixel is the original's."""
    notes: tuple[str, ...]
    """What was left out of a file, and a resize."""

    @classmethod
    def from_dict(cls, record: dict[str, Any]) -> "PixelScore":
        """Back from `dataclasses.asdict`, through JSON."""
        features = record["features"]
        return cls(**record | {"notes": tuple(record["notes"]), "features": features and tuple(features)})


def unpack_features(packed: str) -> npt.NDArray[np.float32]:
    """(2048,) of one picture."""
    return np.frombuffer(base64.b64decode(packed), "<f4")


def score_pairs(
    pairs: Sequence[Pair], choice: PixelChoice, *, processes: int = 1, batch: int = 8, limit_s: float = LIMIT_S
) -> Iterator[tuple[int, PixelScore | Died]]:
    """(number of the pair, its score) as they come; `Died` with the reason where a file cannot be compared.

    Of a batch whose process died every pair is tried again alone. Raises BadInput for weights that cannot be read.
    """
    setup, tasks = dataclasses.asdict(choice), [(str(pair.target), str(pair.output)) for pair in pairs]
    for number, answer in answers_in_groups(
        "vae.pixels", setup, tasks, size=batch, processes=processes, limit_s=limit_s
    ):
        if isinstance(answer, Died):
            yield number, Died(f"comparing it {answer.reason}")
        elif isinstance(answer, str):
            yield number, Died(answer)
        else:
            yield number, PixelScore.from_dict(answer)


def _open(setup: dict[str, Any]) -> Callable[[list[tuple[str, str]]], list[Any]]:
    choice = PixelChoice(**setup)
    torch.set_num_threads(1)
    try:
        device = torch.device(choice.device)
        torch.zeros(1, device=device)
    except (RuntimeError, AssertionError) as error:
        reason = str(error).splitlines()[0]
        raise BadInput(f"torch cannot use the device {choice.device!r} ({reason})") from error
    lpips = load_lpips(Path(choice.vgg_weights)).to(device) if choice.vgg_weights else None
    inception = load_inception(Path(choice.inception_weights)).to(device) if choice.inception_weights else None

    @torch.inference_mode()
    def score(pictures: list[tuple[npt.NDArray[np.uint8], npt.NDArray[np.uint8]]]) -> list[dict[str, Any]]:
        """Pairs of one size."""
        bytes_2BHW3 = torch.from_numpy(np.stack([np.stack(side) for side in zip(*pictures, strict=True)])).to(device)
        target_B3HW, output_B3HW = (side.permute(0, 3, 1, 2).float() / 255 for side in bytes_2BHW3)
        side_px = min(target_B3HW.shape[2:])
        columns = {
            "psnr_db": psnr_as_piq(output_B3HW, target_B3HW).tolist(),
            "ssim": ssim_as_piq(output_B3HW, target_B3HW).tolist() if side_px >= SSIM_MIN_PX else None,
            "lpips": lpips(output_B3HW * 2 - 1, target_B3HW * 2 - 1).tolist()
            if lpips and side_px >= LPIPS_MIN_PX
            else None,
            "features": list(zip(*(_pack(inception(side)) for side in (target_B3HW, output_B3HW)), strict=True))
            if inception
            else None,
            "equal": (bytes_2BHW3[0] == bytes_2BHW3[1]).flatten(1).all(1).tolist(),
        }
        return [{name: values and values[i] for name, values in columns.items()} for i in range(len(pictures))]

    def answer(task: list[tuple[str, str]]) -> list[Any]:
        found: list[Any] = []
        by_size: dict[tuple[int, ...], list[int]] = {}
        opened: dict[int, tuple[npt.NDArray[np.uint8], npt.NDArray[np.uint8]]] = {}
        for index, (target, output) in enumerate(task):
            try:
                target_HW3, output_HW3, notes = _open_pair(target, output, choice.resize)
            except (ImageProblem, BadInput) as problem:
                found.append(str(problem))
                continue
            found.append({"notes": notes})
            opened[index] = target_HW3, output_HW3
            by_size.setdefault(target_HW3.shape, []).append(index)
        for members in by_size.values():
            for index, scored in zip(members, score([opened[index] for index in members]), strict=True):
                found[index] |= scored
        return found

    return answer


def _open_pair(
    target: str, output: str, resize: bool
) -> tuple[npt.NDArray[np.uint8], npt.NDArray[np.uint8], list[str]]:
    sides, notes = [], []
    for role, path in (("original", target), ("reconstruction", output)):
        try:
            image_HW3, left_out = decode_plainly(path)
        except ImageProblem as problem:
            raise BadInput(f"the {role} cannot be opened: {problem}") from problem
        sides.append(image_HW3)
        notes += [f"{role}: {note}" for note in left_out]
    target_HW3, output_HW3 = sides
    if target_HW3.shape != output_HW3.shape:
        (height, width), (other_height, other_width) = target_HW3.shape[:2], output_HW3.shape[:2]
        if not resize:
            raise BadInput(f"sizes differ: original {width}x{height}, reconstruction {other_width}x{other_height}")
        # Pillow's bicubic, as in the public script: other libraries' kernels differ.
        output_HW3 = np.array(Image.fromarray(output_HW3).resize((width, height), Image.Resampling.BICUBIC))
        notes.append("reconstruction: resized")
    return target_HW3, output_HW3, notes


def _pack(features_BD: torch.Tensor) -> list[str]:
    return [base64.b64encode(row.astype("<f4").tobytes()).decode() for row in features_BD.float().cpu().numpy()]


if __name__ == "__main__":
    serve(_open)
