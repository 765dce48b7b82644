"""Small runs of the data engine, for the tests that break them."""

import ctypes
import hashlib
import time
import uuid
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image
from pyarrow import fs

from datagen.audit import SAMPLE_SHARD
from datagen.cascade import SampledLine
from datagen.corpus import CorpusConfig, TextPlace
from datagen.criteria import FilterRecipe, score_item
from datagen.execute import Executor
from datagen.generate import RunReport, generate
from datagen.ingest import RealItem
from datagen.photos import PhotoPlace, PhotosConfig
from datagen.plan import Address, GeneratePlan, GenerateRecipe, Judge, Judgement
from datagen.recipes import recipe_hash, recipe_to_yaml
from datagen.verdict import Verdict
from fonts_manifest.manifest import Manifest
from fonts_manifest.scan import FontsConfig
from render_engine.distribution import PageDistribution
from render_engine.render import Assets
from render_engine.spec import PageSpec, RenderedPage

TEXT = """The committee met on Tuesday to consider the proposals that had been sent in during the summer.

Most of them were short; a few ran to forty pages, with tables, drawings and a list of names at the end.

Nobody had read all of them. It was agreed that the chairman would write to every author before Christmas."""


@dataclass(frozen=True)
class DropSome:
    """Rejects the first attempt of every fourth row, and takes its time when asked to."""

    seconds: float = 0.0

    def __call__(self, page: RenderedPage, spec: PageSpec, assets: Assets, address: Address) -> Judgement:
        time.sleep(self.seconds)
        dropped = address.row % 4 == 1 and address.attempt == 0
        return Judgement(verdict=Verdict(keep=not dropped, reason="tired" if dropped else ""), judged_by="none")


def make_recipe(folder: Path, **changes: object) -> GenerateRecipe:
    """30 pages of 96 x 80 px in 5 shards, English in DejaVu Sans over two photographs."""
    settings = {
        "kind": "generate",
        "seed": 5,
        "rows": 30,
        "rows_per_shard": 6,
        "fonts": FontsConfig(places=("package:matplotlib/mpl-data/fonts/ttf/DejaVuSans.ttf",), system=False),
        "photos": PhotosConfig(places=(PhotoPlace(place=str(folder / "photos"), licence="CC0-1.0"),), min_side_px=100),
        "texts": CorpusConfig(places=(TextPlace(place=str(folder / "texts"), licence="CC0-1.0"),)),
        "pages": PageDistribution(page_sizes_px=((96, 80),), languages={"en": 1.0}),
    }
    return GenerateRecipe.model_validate(settings | changes)


def run(
    folder: Path,
    out: Path | str,
    *,
    executor: Executor = "serial",
    workers: int = 1,
    judge: Judge = DropSome(),
    rows: int = 30,
    manifest: Manifest | None = None,
) -> RunReport:
    """`generate` with the recipe of `folder`."""
    recipe = make_recipe(folder, rows=rows)
    return generate(
        recipe,
        recipe_hash(recipe),
        recipe_to_yaml(recipe),
        str(out),
        executor=executor,
        workers=workers,
        judge=judge,
        manifest=manifest,
    )


def data_bytes(out: Path | str) -> dict[str, str]:
    """Relative path -> SHA-256 of every file that readers look at, here or in an object store."""
    filesystem, root = fs.FileSystem.from_uri(str(out)) if "://" in str(out) else (fs.LocalFileSystem(), str(out))
    found = {}
    for info in filesystem.get_file_info(fs.FileSelector(root, recursive=True, allow_not_found=True)):
        path = info.path.removeprefix(f"{root}/")
        if info.is_file and not path.startswith("_commits"):
            with filesystem.open_input_file(info.path) as file:
                found[path] = hashlib.sha256(file.read()).hexdigest()
    return dict(sorted(found.items()))


@dataclass(frozen=True)
class Segfault:
    """As DropSome, but at some addresses it reads memory that is not there, as a broken library does."""

    at: frozenset[tuple[int, int, int]]
    deaths: str = ""
    """A folder in which every death leaves a file, to be counted."""

    def __call__(self, page: RenderedPage, spec: PageSpec, assets: Assets, address: Address) -> Judgement:
        if tuple(address) in self.at:
            if self.deaths:
                Path(self.deaths, uuid.uuid4().hex).touch()
            ctypes.string_at(0)
        return DropSome()(page, spec, assets, address)


def make_inputs(path: Path) -> Path:
    """A text, two photographs and a broken one in `path`."""
    (path / "photos").mkdir()
    (path / "texts").mkdir()
    (path / "texts" / "a.txt").write_text(TEXT)
    for seed in range(2):
        pixels = np.random.default_rng(seed).integers(0, 256, (150, 160, 3), np.uint8)
        Image.fromarray(pixels).save(path / "photos" / f"{seed}.png")
    (path / "photos" / "broken.jpg").write_bytes(b"\xff\xd8\xff\xe0 not a picture")
    return path


def score_or_crash(config: FilterRecipe, item: RealItem) -> dict[str, Any]:
    """`criteria.score_item`, but a picture named poison.png reads memory that is not there."""
    if item.path.endswith("poison.png"):
        ctypes.string_at(0)
    return score_item(config, item)


def read_or_crash(plan: GeneratePlan, address: Address) -> list[SampledLine]:
    """A line for every page but the second, which reads memory that is not there."""
    page = address.shard - SAMPLE_SHARD
    if page == 1:
        ctypes.string_at(0)
    return [
        SampledLine(
            features=(float(page),),
            legibility=1.0,
            legible=True,
            visible=True,
            read_ned=1.0,
            price_px=1,
            clean_px=0,
            weight=1.0,
        ),
    ]
