"""Latents of a set of pictures, encoded once: shards of safetensors and the statistics of every channel.

Legend: B pictures, N latents of a set, C channels, H W pixels, h w latent cells.
"""

import hashlib
import json
import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
import numpy.typing as npt
import torch
from PIL import Image
from pydantic import Field
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file

from datagen.decode import SUFFIXES, ImageProblem, decode_image
from datagen.shards import read_table
from fonts_manifest.config import Config
from fonts_manifest.errors import BadInput
from fonts_manifest.places import find_files
from vae.autoencoders import ImageAutoencoder
from vae.batch import to_unit_range

Picture = npt.NDArray[np.uint8]

Progress = Callable[[str, int, int, Mapping[str, int | str]], object]
"""Called with a stage, how much of it is done, of how much, and what to show beside it."""

SHARD_ROWS = 1024
"""Latents a file: 32 MB of f16c64 at 256 px."""


class PictureSet(Config):
    """Which pictures a probe learns to make."""

    place: str
    """A folder (searched to the bottom) or a glob of pictures, or the folder of a finished run of ours."""
    size_px: int = Field(default=256, ge=16)
    """Side of the square pictures: 256 for f8 and f16, 512 for f32, so that all give 256 tokens."""
    fit: Literal["resize", "crop"] = "resize"
    """resize: the short side becomes `size_px` (antialiased), then the middle; crop: the middle as it is."""
    mirror: bool = False
    """Whether every picture is cached mirrored too, as is usual for ImageNet; never for text."""
    label_column: str | None = None
    """Column of a run that holds the class. Of a folder the class is the name of the first folder inside it."""
    at_most: int | None = Field(default=None, ge=2)
    """Pictures taken, evenly spread over the list; all when not given."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ListedPicture:
    """One picture, not read yet."""

    name: str
    label: str
    path: Path
    row: int | None = None
    """Row of a Parquet file of pictures; None for a picture file."""


class Autoencoder:
    """An autoencoder and what its latents of one size of pictures look like."""

    def __init__(self, model: torch.nn.Module, device: torch.device, size_px: int) -> None:
        self._whole = ImageAutoencoder(model, device)
        self.model, self.device = self._whole.model, device
        _, self.channels, self.cells, _ = self.encode(torch.zeros(1, 3, size_px, size_px)).shape

    def encode(self, images_B3HW: torch.Tensor) -> torch.Tensor:
        """Latents (B, C, h, w), float32 on the device: the mode of the posterior, unscaled."""
        return self._whole.encode(images_B3HW).float()

    def decode(self, latents_BChw: torch.Tensor) -> torch.Tensor:
        """Pictures (B, 3, H, W), float32, not clamped, on the device."""
        return self._whole.decode(latents_BChw).float()


def open_autoencoder(folder: Path, device: torch.device, size_px: int) -> Autoencoder:
    """A saved autoencoder, ours or one of diffusers'. Raises BadInput when there is none or the size does not fit."""
    import diffusers

    from vae.model import GSCAutoencoder

    try:
        name = json.loads((folder / "config.json").read_text(encoding="utf-8"))["_class_name"]
    except (OSError, ValueError, KeyError, TypeError):
        raise BadInput(f"{folder}: holds no model (config.json with _class_name is missing)") from None
    kind: Any = GSCAutoencoder if name == "GSCAutoencoder" else getattr(diffusers, str(name), None)
    if not (callable(getattr(kind, "from_pretrained", None)) and hasattr(kind, "encode")):
        raise BadInput(f"{folder}: {name!r} is no autoencoder of ours or of diffusers")
    try:
        return Autoencoder(kind.from_pretrained(folder), device, size_px)
    except BadInput:
        raise
    except (OSError, ValueError, RuntimeError, KeyError, TypeError) as error:
        raise BadInput(f"{folder}: the model cannot be used on {size_px} px pictures ({error})") from error


# ---- pictures --------------------------------------------------------------------------------------------------------


def list_pictures(pictures: PictureSet) -> list[ListedPicture]:
    """The pictures of a set in a fixed order. Raises BadInput when there are fewer than two, or a run is damaged."""
    root = Path(pictures.place)
    listed = _list_run(root, pictures) if (root / "manifest.parquet").is_file() else _list_files(root, pictures)
    if pictures.at_most is not None and pictures.at_most < len(listed):
        chosen = np.linspace(0, len(listed) - 1, pictures.at_most).round().astype(int)
        listed = [listed[index] for index in chosen]
    if len(listed) < 2:
        raise BadInput(f"{pictures.place}: {len(listed)} usable pictures, at least 2 are needed")
    return listed


def _list_files(root: Path, pictures: PictureSet) -> list[ListedPicture]:
    listed = []
    for path in find_files([pictures.place], SUFFIXES):
        inside = path.relative_to(root) if root.is_dir() else Path(path.name)
        listed.append(
            ListedPicture(name=inside.as_posix(), label=inside.parts[0] if len(inside.parts) > 1 else "", path=path)
        )
    return listed


def _list_run(root: Path, pictures: PictureSet) -> list[ListedPicture]:
    import pyarrow.parquet as pq

    listed = []
    for entry in read_table(root / "manifest.parquet", columns=["path", "keep"]).to_pylist():
        if not entry["keep"]:
            continue
        path = root / entry["path"]
        if not path.resolve().is_relative_to(root.resolve()):
            raise BadInput(f"{root}: the manifest names a file outside the run ({entry['path']})")
        columns = ["row_id", "width", "height", *([pictures.label_column] if pictures.label_column else [])]
        missing = set(columns) - set(pq.read_schema(path).names)
        if missing:
            raise BadInput(f"{path}: has no column {sorted(missing)[0]!r}")
        for number, row in enumerate(read_table(path, columns=columns).to_pylist()):
            if min(row["width"], row["height"]) >= pictures.size_px:
                label = str(row[pictures.label_column]) if pictures.label_column else ""
                listed.append(ListedPicture(name=row["row_id"], label=label, path=path, row=number))
    return listed


def fit_square(image_HW3: Picture, size_px: int, fit: Literal["resize", "crop"]) -> Picture:
    """The middle square of a picture as uint8 (size_px, size_px, 3). Raises ValueError when it is too small."""
    height, width = image_HW3.shape[:2]
    side = min(height, width) if fit == "resize" else size_px
    if side > min(height, width):
        raise ValueError(f"a picture of {width} x {height} px has no middle of {size_px} px")
    left, top = (width - side) // 2, (height - side) // 2
    square_HW3 = image_HW3[top : top + side, left : left + side]
    if side == size_px:
        return np.ascontiguousarray(square_HW3)
    return np.asarray(Image.fromarray(square_HW3).resize((size_px, size_px), Image.Resampling.LANCZOS))


def read_pictures(listed: Sequence[ListedPicture], pictures: PictureSet) -> Iterator[tuple[int, Picture]]:
    """(place in the list, uint8 square) of every picture that can be read and is large enough, in order."""

    opened: tuple[Path, Any] | None = None
    for place, item in enumerate(listed):
        if item.row is not None and (opened is None or opened[0] != item.path):
            opened = item.path, read_table(item.path, columns=["image"])["image"]
        try:
            data = item.path if item.row is None or opened is None else opened[1][item.row].as_py()["bytes"]
            yield place, fit_square(decode_image(data), pictures.size_px, pictures.fit)
        except (ImageProblem, ValueError):
            continue  # counted by who compares the numbers: `LatentSet.left_out`


# ---- the cache -------------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True, kw_only=True)
class LatentSet:
    """Cached latents: float16, raw; training sees them standardised by `mean_C` and `std_C`."""

    shards: tuple[Path, ...]
    rows: tuple[int, ...]
    labels_N: npt.NDArray[np.int64]
    classes: tuple[str, ...]
    mean_C: torch.Tensor
    std_C: torch.Tensor
    left_out: int
    """Pictures that could not be read or are too small."""

    def __len__(self) -> int:
        return sum(self.rows)

    def read(self, indices: Sequence[int]) -> torch.Tensor:
        """Standardised latents (B, C, h, w), float32."""
        ends = np.cumsum(self.rows)
        parts: dict[int, torch.Tensor] = {}
        by_shard: dict[int, list[int]] = {}
        for place, index in enumerate(indices):
            by_shard.setdefault(int(np.searchsorted(ends, index, side="right")), []).append(place)
        for shard, places in by_shard.items():
            start = int(ends[shard]) - self.rows[shard]
            # Memory-mapped: only the rows asked for are read.
            with safe_open(self.shards[shard], "pt") as file:
                rows = file.get_slice("latents")
                for place in places:
                    parts[place] = rows[indices[place] - start : indices[place] - start + 1]
        raw_BChw = torch.cat([parts[place] for place in range(len(indices))]).float()
        return self.standardise(raw_BChw)

    def standardise(self, raw_BChw: torch.Tensor) -> torch.Tensor:
        """Mean 0 and standard deviation 1 in every channel."""
        return (raw_BChw - self.mean_C.view(1, -1, 1, 1)) / self.std_C.view(1, -1, 1, 1)

    def restore(self, latents_BChw: torch.Tensor) -> torch.Tensor:
        """The way back to what the decoder takes."""
        return latents_BChw * self.std_C.view(1, -1, 1, 1) + self.mean_C.view(1, -1, 1, 1)


def cache_latents(
    autoencoder: Autoencoder,
    listed: Sequence[ListedPicture],
    pictures: PictureSet,
    classes: tuple[str, ...],
    folder: Path,
    batch: int,
    progress: Progress,
) -> LatentSet:
    """Encode `listed` into `folder`, going on with what is there.

    classes: the labels of all pictures of a run, in the order of their numbers. A shard is written whole or not at all
    and carries its labels and the sums of every channel. Raises BadInput when
    `folder` holds latents of other pictures or another model, or nothing could be encoded.
    """
    digest = _digest(autoencoder, listed, pictures, classes)
    claim = folder / "cache.json"
    folder.mkdir(parents=True, exist_ok=True)
    if claim.is_file():
        if json.loads(claim.read_text())["digest"] != digest:
            raise BadInput(f"{folder}: holds latents of another model or other pictures; name another folder")
    else:
        _publish(claim, json.dumps({"digest": digest}).encode())
    shards = []
    for start in range(0, len(listed), SHARD_ROWS):
        part = listed[start : start + SHARD_ROWS]
        path = folder / f"{start // SHARD_ROWS:06d}.safetensors"
        if not _is_whole(path):
            _write_shard(autoencoder, part, pictures, classes, path, batch)
        shards.append(path)
        progress("encode", min(start + SHARD_ROWS, len(listed)), len(listed), {})
    return _open_cache(shards, classes, len(listed) * (2 if pictures.mirror else 1))


def _write_shard(
    autoencoder: Autoencoder,
    part: Sequence[ListedPicture],
    pictures: PictureSet,
    classes: tuple[str, ...],
    path: Path,
    batch: int,
) -> None:
    latents: list[torch.Tensor] = []
    labels: list[int] = []
    waiting: list[Picture] = []

    def flush() -> None:
        if waiting:
            encoded = autoencoder.encode(to_unit_range(np.stack(waiting))).cpu()
            if not bool(torch.isfinite(encoded).all()) or float(encoded.abs().max()) > 65_000:
                raise BadInput(f"{path}: a latent is not finite or above 65,000, which float16 cannot hold")
            latents.append(encoded.half())
            waiting.clear()

    for place, square_HW3 in read_pictures(part, pictures):
        versions = [square_HW3, square_HW3[:, ::-1]] if pictures.mirror else [square_HW3]
        for version in versions:
            waiting.append(np.ascontiguousarray(version))
            labels.append(classes.index(part[place].label))
            if len(waiting) == batch:
                flush()
    flush()
    shape = (0, autoencoder.channels, autoencoder.cells, autoencoder.cells)
    latents_NChw = torch.cat(latents) if latents else torch.empty(shape, dtype=torch.float16)
    flat_CM = latents_NChw.double().transpose(0, 1).flatten(1)
    tensors = {
        "latents": latents_NChw.contiguous(),
        "labels": torch.tensor(labels, dtype=torch.int64),
        "sum": flat_CM.sum(1),
        "square_sum": flat_CM.square().sum(1),
    }
    temporary = path.with_name(f".{path.name}.tmp")
    try:
        save_file(tensors, temporary)
        os.replace(temporary, path)
    except (OSError, SafetensorError) as error:
        temporary.unlink(missing_ok=True)
        raise BadInput(f"{path}: cannot be written ({error})") from None


def _open_cache(shards: Sequence[Path], classes: tuple[str, ...], expected: int) -> LatentSet:
    rows, labels = [], []
    sums, squares, cells = 0.0, 0.0, 0
    for path in shards:
        with safe_open(path, "pt") as file:
            shape = file.get_slice("latents").get_shape()
            rows.append(int(shape[0]))
            labels.append(file.get_tensor("labels").numpy())
            sums = sums + file.get_tensor("sum")
            squares = squares + file.get_tensor("square_sum")
            cells += int(shape[0] * shape[2] * shape[3])
    if sum(rows) < 2:
        raise BadInput(f"{shards[0].parent}: fewer than 2 pictures could be read")
    mean_C = torch.as_tensor(sums / cells)
    variance_C = (torch.as_tensor(squares / cells) - mean_C**2).clamp_min(0)
    std_C = variance_C.sqrt()
    # A channel that never changes would be divided by 0; it stays 0 instead.
    std_C = torch.where(std_C < 1e-8, torch.ones_like(std_C), std_C)
    return LatentSet(
        shards=tuple(shards),
        rows=tuple(rows),
        labels_N=np.concatenate(labels),
        classes=classes,
        mean_C=mean_C.float(),
        std_C=std_C.float(),
        left_out=expected - sum(rows),
    )


def _is_whole(path: Path) -> bool:
    try:
        with safe_open(path, "pt") as file:
            return set(file.keys()) == {"latents", "labels", "sum", "square_sum"}
    except (OSError, SafetensorError):
        return False


def _digest(
    autoencoder: Autoencoder, listed: Sequence[ListedPicture], pictures: PictureSet, classes: tuple[str, ...]
) -> str:
    """Of the weights, the list and how pictures are cut: equal digests give equal latents."""
    digest = hashlib.sha256(f"{pictures.model_dump_json()} {classes}".encode())
    for name, tensor in autoencoder.model.state_dict().items():
        digest.update(name.encode() + tensor.detach().cpu().contiguous().flatten().view(torch.uint8).numpy().tobytes())
    for item in listed:
        digest.update(f"{item.name}\n{item.label}\n".encode())
    return digest.hexdigest()[:32]


def _publish(path: Path, data: bytes) -> None:
    temporary = path.with_name(f".{path.name}.tmp")
    try:
        temporary.write_bytes(data)
        os.replace(temporary, path)
    except OSError as error:
        raise BadInput(f"{path}: cannot be written ({error.strerror})") from None
