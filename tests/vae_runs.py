"""Run folders for the tests of `vae`, written with the schema that the data engine writes."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.parquet as pq
import torch

from datagen.codec import encode_png
from datagen.schema import SCHEMA
from vae.family import GSCConfig

torch.set_num_threads(1)  # pytest runs as many workers as there are cores

Picture = npt.NDArray[np.uint8]

SMALL = GSCConfig(
    encoder_widths=(8, 8, 16),
    decoder_widths=(8, 8, 16),
    latent_channels=12,
    encoder_blocks=1,
    decoder_blocks=1,
    skip_basis="dct",
    decoder_mirror=True,
)
"""f4: trained and run in seconds."""


def stripes(count: int, side: int = 64, seed: int = 0) -> list[Picture]:
    """Pictures with edges, gradients and colour: enough for a model to learn something."""
    rng = np.random.default_rng(seed)
    y, x = np.mgrid[:side, :side]
    pictures = []
    for _ in range(count):
        angle, period, colour = rng.uniform(0, np.pi), rng.uniform(4, 20), rng.uniform(60, 255, 3)
        wave = np.sign(np.sin((x * np.cos(angle) + y * np.sin(angle)) * 2 * np.pi / period))
        pictures.append(np.clip(colour * (0.6 + 0.4 * wave[..., None]), 0, 255).astype(np.uint8))
    return pictures


def write_run(
    folder: Path,
    pictures: Sequence[Picture],
    *,
    shards: int = 1,
    group_rows: int = 8,
    origins: Sequence[str] | None = None,
    per_mp: Sequence[float] | None = None,
    quads: Sequence[Sequence[Sequence[float]]] | None = None,
    rejected: Sequence[Picture] = (),
) -> Path:
    """A finished run; real pictures when `origins` are given. Row ids are "r0", "r1", ..., rejected ones "x0", ..."""
    rows = [
        _row(f"r{i}", picture, origins[i] if origins else None, per_mp[i] if per_mp else 0.0)
        for i, picture in enumerate(pictures)
    ]
    manifest = []
    for row, known in zip(rows, quads or (), strict=False):
        row["lines"] = [{"quad_px": quad} for quad in known]
    (folder / "data").mkdir(parents=True)
    (folder / "rejected").mkdir()
    for shard in range(shards):
        part = rows[shard::shards]
        path = f"data/{shard:08d}.parquet"
        pq.write_table(pa.Table.from_pylist(part, schema=SCHEMA), folder / path, row_group_size=group_rows)
        manifest.append({"path": path, "keep": True, "rows": len(part)})
    if rejected:
        bad = [_row(f"x{i}", picture, None, 0.0) for i, picture in enumerate(rejected)]
        pq.write_table(pa.Table.from_pylist(bad, schema=SCHEMA), folder / "rejected/0.parquet")
        manifest.append({"path": "rejected/0.parquet", "keep": False, "rows": len(bad)})
    pq.write_table(pa.Table.from_pylist(manifest), folder / "manifest.parquet")
    return folder


def _row(row_id: str, picture: Picture, origin: str | None, per_mp: float) -> dict[str, object]:
    return {
        "image": {"bytes": encode_png(picture), "path": None},
        "row_id": row_id,
        "source": "real" if origin else "synthetic",
        "origin": origin,
        "width": picture.shape[1],
        "height": picture.shape[0],
        "characters": round(per_mp * picture.shape[0] * picture.shape[1] / 1e6),
        "characters_per_mp": per_mp,
        "keep": True,
        "reason": "",
    }
