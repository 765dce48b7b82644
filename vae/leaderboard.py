"""Every codec on every set: pictures reconstructed, scored as `glyphmill eval` scores them, and set in one table.

OUT/sets/SET/NAME.png                  the originals, cut to the size asked for
OUT/reconstructed/CODEC/SET/NAME.png   what a codec makes of them
OUT/scores/CODEC/SET/                  results of `glyphmill eval`
OUT/readings/SET.jsonl                 what readers found on originals and reconstructions, read once
OUT/leaderboard.md, .csv, .html        the table; worst cases side by side

Killed and started again it goes on: a reconstruction that lies there is not made again unless its codec has changed.
"""

import dataclasses
import json
import os
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, Literal

import cv2
import numpy as np
import numpy.typing as npt
from PIL import Image
from pyarrow import parquet as pq
from pydantic import Field

from datagen.codec import encode_png
from datagen.decode import SUFFIXES, ImageProblem, decode_image
from datagen.progress import ProgressReport, silent
from datagen.reading import ReaderChoice
from datagen.recipes import recipe_hash
from fonts_manifest.config import Config
from fonts_manifest.errors import BadInput
from fonts_manifest.places import find_files
from vae.capacity import memory_explained
from vae.codecs import (
    Codec,
    CodecConfig,
    CodecFacts,
    FolderCodec,
    Pictures,
    ProgramCodec,
    names_of,
    open_codec,
    run_program,
)
from vae.leaderboard_tables import Entry, write_tables
from vae.pixels import PixelChoice
from vae.score import choose_second, find_weights, score_folders
from vae.scorecard import ScoreChoice


class SetConfig(Config):
    """Pictures that every codec reconstructs."""

    name: str
    """In the tables; also the name of a folder."""
    place: str
    """A folder, file or glob of pictures, or a Parquet file (or a folder of them) with an `image` column."""
    size_px: int | None = Field(default=None, ge=16)
    """Pictures are scaled so that the shorter side fits and cut to this square in the middle, as ImageNet and FFHQ are
    judged at 256 and 1024. None: as they are, all of one size, cut to a multiple of 64."""
    limit: int | None = Field(default=None, ge=1)
    """The first so many, in the order of their names."""
    text: bool = True
    """Whether text is read (NED)."""


class LeaderboardRecipe(Config):
    """Which codecs are compared, on what, by which readers."""

    kind: Literal["leaderboard"]
    """Which command reads this recipe."""
    codecs: tuple[CodecConfig, ...] = Field(min_length=1)
    """Rows of the table, in this order."""
    sets: tuple[SetConfig, ...] = Field(min_length=1)
    """Columns of the table."""
    reader: Literal["rapidocr", "paddleocr", "torch", "tesseract"] = "rapidocr"
    """Who reads for NED."""
    second_reader: Literal["auto", "none", "rapidocr", "paddleocr", "torch", "tesseract"] = "auto"
    """Another engine beside it; auto: tesseract where it is installed."""
    fast: bool = False
    """Read about twice as fast; texts differ a little, so such figures are compared among themselves alone."""
    vgg_weights: Path | None = None
    """Of LPIPS: torchvision's vgg16 file; without it, where torch keeps what it has loaded before."""
    inception_weights: Path | None = None
    """Of FID: pytorch-fid's file."""
    device: str = "cpu"
    """cpu, cuda, cuda:1, ..."""
    workers: int | None = Field(default=None, ge=1)
    """Processes that read and compare; one for each CPU unless given, at most two of those that share a GPU."""
    batch: int = Field(default=4, ge=1)
    """Pictures at a time."""
    worst: int = Field(default=6, ge=0)
    """Pictures of each set that are shown side by side: those that the codecs lose most of."""


def run_leaderboard(recipe: LeaderboardRecipe, out: Path, progress: ProgressReport = silent) -> list[Entry]:
    """Reconstruct, score and write the tables into `out`; one entry for each codec on each set, in their order.

    The tables are written anew after every entry, so that a run that takes hours can be looked at.
    A codec that cannot be opened or fails has its reason in the table, the others go on. Raises BadInput for a set
    without pictures and for readers or weights that cannot be opened.
    """
    names_of(recipe.codecs)
    for number, chosen in enumerate(recipe.sets):
        progress("sets", number, len(recipe.sets), {})
        write_set(chosen, out / "sets" / chosen.name)
    progress("sets", len(recipe.sets), len(recipe.sets), {})
    entries = []
    total = len(recipe.codecs) * len(recipe.sets)
    progress("codecs", 0, total, {})
    for config in recipe.codecs:
        for chosen, entry in _reconstruct_all(config, recipe, out):
            if not entry.problem:
                _score(entry, config, chosen, recipe, out, progress)
            entries.append(entry)
            write_tables(entries, out)
            progress("codecs", len(entries), total, {})
    return entries


def _set_record(folder: Path) -> Path:
    """What a set was made from; FOLDER.json would be taken for the labels of its pictures."""
    return folder.with_name(f"{folder.name}.made-from")


def _unreadable_record(folder: Path) -> Path:
    """Pictures of a set that could not be opened, with why."""
    return folder.with_name(f"{folder.name}.unreadable")


def _labels_of(chosen: SetConfig) -> Path | None:
    """Language and category of the pictures, where a list lies beside their folder."""
    place = Path(chosen.place)
    beside = place.with_name(f"{place.name}.json")
    return beside if place.is_dir() and beside.is_file() else None


def write_set(chosen: SetConfig, folder: Path) -> None:
    """The originals as PNG files of one size, beside them which ones could not be opened.

    Raises BadInput when there is none or sizes differ.
    """
    done, record = _set_record(folder), _unreadable_record(folder)
    identity = json.dumps([chosen.model_dump(mode="json")], sort_keys=True)
    if done.is_file() and done.read_text() == identity and record.is_file():
        return
    folder.mkdir(parents=True, exist_ok=True)
    for stale in folder.glob("*.png"):
        stale.unlink()
    shapes: dict[tuple[int, ...], str] = {}
    unreadable: dict[str, str] = {}
    for name, image_HW3 in _pictures_of(chosen):
        if isinstance(image_HW3, ImageProblem):
            unreadable[name.encode("utf-8", "backslashreplace").decode()] = str(image_HW3)
            continue
        picture_HW3 = _cut(image_HW3, chosen.size_px)
        shapes.setdefault(picture_HW3.shape, name)
        if (folder / f"{name}.png").is_file():
            raise BadInput(f"{chosen.place}: two pictures of the set would be called {name}.png; rename one of them")
        if len(shapes) > 1:
            sizes = ", ".join(f"{shape[1]}x{shape[0]} ({example})" for shape, example in shapes.items())
            raise BadInput(f"{chosen.place}: pictures of a set have one size, these differ: {sizes}; give size_px")
        (folder / f"{name}.png").write_bytes(encode_png(picture_HW3))
    if not shapes:
        raise BadInput(f"{chosen.place}: no picture that can be used for the set {chosen.name}")
    record.write_text(json.dumps(unreadable, ensure_ascii=False), encoding="utf-8")
    done.write_text(identity)


def _pictures_of(chosen: SetConfig) -> Iterator[tuple[str, npt.NDArray[np.uint8] | ImageProblem]]:
    """(name, pixels, or why there are none) in the order of the names."""
    files = find_files([chosen.place], SUFFIXES)
    found: Iterator[tuple[str, bytes | Path]] = ((path.stem, path) for path in files)
    if not files:
        found = _parquet_rows(find_files([chosen.place], frozenset({".parquet"})))
    count = 0
    for name, data in found:
        try:
            yield name, decode_image(data)
        except ImageProblem as problem:
            yield name, problem
            continue
        count += 1
        if count == chosen.limit:
            return


def _parquet_rows(files: Sequence[Path]) -> Iterator[tuple[str, bytes | Path]]:
    number = 0
    for path in files:
        table = pq.ParquetFile(path)
        if "image" not in table.schema_arrow.names:
            raise BadInput(f"{path}: has no column `image`")
        for batch in table.iter_batches(batch_size=16, columns=["image"]):
            for image in batch.column(0).to_pylist():
                yield f"{number:06d}", (image["bytes"] if isinstance(image, dict) else image) or b""
                number += 1


def _cut(image_HW3: npt.NDArray[np.uint8], size_px: int | None) -> npt.NDArray[np.uint8]:
    height, width = image_HW3.shape[:2]
    if size_px is None:
        return image_HW3[: max(64, height - height % 64), : max(64, width - width % 64)]
    scale = size_px / min(height, width)
    if scale != 1:
        sides = (max(size_px, round(width * scale)), max(size_px, round(height * scale)))
        image_HW3 = np.asarray(Image.fromarray(image_HW3).resize(sides, Image.Resampling.BICUBIC))
    top, left = (image_HW3.shape[0] - size_px) // 2, (image_HW3.shape[1] - size_px) // 2
    return image_HW3[top : top + size_px, left : left + size_px]


def _reconstruct_all(config: CodecConfig, recipe: LeaderboardRecipe, out: Path) -> Iterator[tuple[SetConfig, Entry]]:
    """One codec on every set; opened at the first set that is not yet done."""
    codec: Codec | None = None
    for chosen in recipe.sets:
        unreadable = _unreadable_record(out / "sets" / chosen.name)
        entry = Entry(codec=config.name, set_name=chosen.name, unreadable=json.loads(unreadable.read_text("utf-8")))
        if isinstance(config, FolderCodec):
            if not (config.path / chosen.name).is_dir():
                entry.problem = f"{config.path / chosen.name}: no such folder"
            yield chosen, entry
            continue
        folder = out / "reconstructed" / config.name / chosen.name
        facts = folder.with_name(f"{folder.name}.json")
        identity = recipe_hash(config) + _set_record(out / "sets" / chosen.name).read_text()
        known = json.loads(facts.read_text()) if facts.is_file() else {}
        if known.get("identity") != identity:
            try:
                if isinstance(config, ProgramCodec):
                    made = _run_on_set(config, out / "sets" / chosen.name, folder)
                else:
                    codec = codec or open_codec(config, recipe.device)
                    with memory_explained(lambda: f"out of memory with {recipe.batch} pictures at a time; lower batch"):
                        made = _reconstruct_set(codec, out / "sets" / chosen.name, folder, recipe.batch)
                known = {"identity": identity} | made
                facts.write_text(json.dumps(known))
            except (BadInput, RuntimeError, ValueError, TypeError) as error:
                entry.problem = str(error).splitlines()[0]
        if not entry.problem:
            entry.facts, entry.images_per_s = CodecFacts(**known["facts"]), known["images_per_s"]
        yield chosen, entry


def _run_on_set(config: ProgramCodec, originals: Path, folder: Path) -> dict[str, Any]:
    """As `_reconstruct_set`; its speed includes the start of the program, so it is not told."""
    folder.mkdir(parents=True, exist_ok=True)
    for stale in folder.glob("*.png"):
        stale.unlink()
    return {"facts": dataclasses.asdict(run_program(config, originals, folder)), "images_per_s": None}


def _reconstruct_set(codec: Codec, originals: Path, folder: Path, batch: int) -> dict[str, Any]:
    """Writes every reconstruction; its facts and speed."""
    folder.mkdir(parents=True, exist_ok=True)
    files = sorted(originals.glob("*.png"))
    seconds = 0.0
    for first in range(0, len(files), batch):
        group = files[first : first + batch]
        pictures_BHW3: Pictures = np.stack([decode_image(path) for path in group])
        start = time.perf_counter()
        outputs_BHW3 = codec.reconstruct(_padded(pictures_BHW3, codec.multiple))
        seconds += time.perf_counter() - start
        height, width = pictures_BHW3.shape[1:3]
        for path, output_HW3 in zip(group, outputs_BHW3, strict=True):
            (folder / path.name).write_bytes(encode_png(output_HW3[:height, :width]))
    facts = codec.facts(min(pictures_BHW3.shape[1:3]))
    return {"facts": dataclasses.asdict(facts), "images_per_s": len(files) / seconds}


def _padded(pictures_BHW3: Pictures, multiple: int) -> Pictures:
    """Sides to the next multiple by repeating the last row and column; nothing is scaled."""
    height, width = pictures_BHW3.shape[1:3]
    below, right = -height % multiple, -width % multiple
    if not below and not right:
        return pictures_BHW3
    return np.stack([cv2.copyMakeBorder(p, 0, below, 0, right, cv2.BORDER_REPLICATE) for p in pictures_BHW3])


def _score(
    entry: Entry,
    config: CodecConfig,
    chosen: SetConfig,
    recipe: LeaderboardRecipe,
    out: Path,
    progress: ProgressReport,
) -> None:
    vgg, inception = find_weights(recipe.vgg_weights, recipe.inception_weights)
    made = config.path / chosen.name if isinstance(config, FolderCodec) else None
    readings = out / "readings" / f"{chosen.name}.jsonl"
    readings.parent.mkdir(parents=True, exist_ok=True)
    choice = ScoreChoice(
        mode="all" if chosen.text else "pixel",
        reader=ReaderChoice(name=recipe.reader, device=recipe.device, fast=recipe.fast),
        second=choose_second(recipe.second_reader, recipe.reader) if chosen.text else None,
        pixels=PixelChoice(vgg_weights=vgg, inception_weights=inception, device=recipe.device),
        processes=recipe.workers or len(os.sched_getaffinity(0)),
        batch=recipe.batch,
        labels=_labels_of(chosen),
        readings=readings,
    )
    outputs = made or out / "reconstructed" / entry.codec / chosen.name
    entry.report = score_folders(
        out / "sets" / chosen.name,
        outputs,
        out / "scores" / entry.codec / chosen.name,
        choice,
        lambda stage, done, total, counts: progress(f"{entry.codec}, {chosen.name}: {stage}", done, total, counts),
    )
