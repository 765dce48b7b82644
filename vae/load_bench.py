"""`glyphmill bench load`: what feeding training costs a core, beside the bare decoding of the same files.

CPU time, one thread, batch by batch turn about: the machine may be busy otherwise.
"""

import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import torch

from datagen.codec import decode_png
from datagen.decode import decode_image
from fonts_manifest.errors import BadInput
from vae.feed import Feed, open_shapes
from vae.mixture import Mixture
from vae.source import SourceConfig
from vae.stored import StoredReader

Decoder = Callable[[bytes], Any]

DECODERS: dict[str, Decoder] = {
    "glyphmill's codec": decode_png,
    "OpenCV": lambda data: cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_COLOR),
    "Pillow": decode_image,
}
"""Whole pictures out of files in memory. The fastest on the files at hand is the limit."""


def bench_load(run: Path, *, crop_px: int, batch: int, pictures: int) -> dict[str, Any]:
    """Decoded images/s a core of the trainer's feed over a finished run, and of the fastest decoder on the same files.

    The feed reads row groups, decodes, crops, splits into planes and collates; it begins with nothing read. After each
    of its batches the same files, in memory, are decoded and nothing else. Raises BadInput when the run has too few
    pictures of that size for one batch.
    """
    source = open_shapes(SourceConfig(name="run", run=str(run)), [(crop_px, crop_px)], 0.0)[0]
    steps = min(pictures, source.train_rows) // batch
    if not steps:
        raise BadInput(f"{run}: {source.train_rows} pictures of {crop_px} px are fewer than a batch of {batch}")
    reader = source.reader(0, 0)
    if not isinstance(reader, StoredReader):
        raise TypeError(f"a run is read by a StoredReader, not by {type(reader).__name__}")
    mixture = Mixture(("run",), (((0, 1.0),),), batch)
    with _one_thread():
        Feed(mixture, [source], seed=0, crop_px=crop_px).batch(0)  # compiles what is compiled
        first = [reader.file(ordinal) for ordinal in range(batch)]
        alone = {name: batch / min(_decode(decoder, first) for _ in range(3)) for name, decoder in DECODERS.items()}
        limit = max(alone, key=lambda name: alone[name])
        feed, feed_s, decode_s, file_bytes = Feed(mixture, [source], seed=0, crop_px=crop_px), 0.0, 0.0, 0
        for step in range(steps):
            began = time.process_time()
            feed.batch(step)
            feed_s += time.process_time() - began
            files = [reader.file(ordinal) for _, ordinal in feed.slots(step)]
            file_bytes += sum(map(len, files))
            decode_s += _decode(DECODERS[limit], files)
    count = steps * batch
    return {
        "pictures": count,
        "mean_file_kb": file_bytes / count / 1e3,
        "crop_px": crop_px,
        "batch": batch,
        "images_per_s_per_core": count / feed_s,
        "decoder": limit,
        "decode_limit_images_per_s_per_core": count / decode_s,
        "decoders_images_per_s_per_core": alone,
        "fraction_of_decode_limit": decode_s / feed_s,
    }


def _decode(decoder: Decoder, files: Sequence[bytes]) -> float:
    """CPU seconds for all files."""
    began = time.process_time()
    for data in files:
        decoder(data)
    return time.process_time() - began


@contextmanager
def _one_thread() -> Iterator[None]:
    threads, cv_threads = torch.get_num_threads(), cv2.getNumThreads()
    torch.set_num_threads(1)
    cv2.setNumThreads(1)
    try:
        yield
    finally:
        torch.set_num_threads(threads)
        cv2.setNumThreads(cv_threads)


def drawn_run(out: Path, side_px: int, pictures: int) -> Path:
    """A finished run of pages of that size, text over photographs, for want of another. Nothing is judged."""
    from datagen.generate import generate
    from datagen.plan import GenerateRecipe, KeepAll
    from datagen.recipes import BUNDLED, find_recipe, load_recipe

    changes = [f"rows={pictures}", f"rows_per_shard={pictures}", f"pages.page_sizes_px=[[{side_px}, {side_px}]]"]
    recipe = load_recipe(find_recipe("background", [BUNDLED]), GenerateRecipe, changes)
    generate(recipe, "0" * 16, "", str(out), executor="serial", judge=KeepAll())
    return out


def as_text(figures: dict[str, Any]) -> str:
    """The figures for a person."""
    of = f"{figures['pictures']} pictures of {figures['mean_file_kb']:.0f} kB"
    share = f"{figures['fraction_of_decode_limit']:.0%} of the decode limit ({figures['decoder']})"
    lines = [
        f"{of}, crops of {figures['crop_px']} px, batches of {figures['batch']}, one core",
        f"feed                {figures['images_per_s_per_core']:8.0f} decoded images/s, {share}",
    ]
    for name, per_s in figures["decoders_images_per_s_per_core"].items():
        lines.append(f"{name:19} {per_s:8.0f} files/s, decoding alone")
    return "\n".join(lines)
