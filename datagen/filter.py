"""Real files -> kept and rejected rows of the one schema, cheapest rule first, every drop with a reason.

Kept rows carry `density_class`, so that a mixture can tell pages of text from general pictures.
"""

import collections
import math
import platform
import time
from collections.abc import Mapping
from contextlib import closing
from dataclasses import dataclass
from typing import Any, Literal, Protocol

import numpy as np
import numpy.typing as npt
import pyarrow as pa
from pydantic import Field

from datagen.card import CARD, dataset_card
from datagen.commit import CommitRecord, RunIdentity, finish_run, publish_shard, start_run
from datagen.decode import ImageProblem, image_size
from datagen.density import Density, DensityClass, measure_density
from datagen.execute import Executor, run_tasks
from datagen.ingest import IngestConfig, RealItem, items_digest, list_items, read_item, real_row
from datagen.ocr import open_recognizer
from datagen.quality import aspect, blank_share, jpeg_quality, sharpness
from datagen.recipes import library_versions
from datagen.schema import SCHEMA, with_metadata
from datagen.shards import ShardBuilder
from datagen.storage import Folder
from datagen.verdict import Verdict
from fonts_manifest.config import Config

_LIBRARIES = (
    "glyphmill",
    "numpy",
    "opencv-python",
    "pillow",
    "pypdfium2",
    "isal",
    "pyarrow",
    "rapidocr",
    "onnxruntime",
)
"""Whose versions decide a shard's bytes."""


class FilterRecipe(Config):
    """What a real picture must be to be kept. The rules are asked in the order of the fields; the first that fails is
    the reason."""

    kind: Literal["filter"] = "filter"
    """What this recipe is for."""
    input: IngestConfig
    """The files."""
    min_side_px: int = Field(default=256, ge=16)
    """Shorter side; smaller ones go as "too_small"."""
    max_aspect: float = Field(default=5.0, ge=1)
    """Long side over short side; narrower ones go as "too_narrow"."""
    min_jpeg_quality: float = Field(default=40.0, ge=1, le=100)
    """JPEG files of lower quality, by their quantisation tables, go as "jpeg_damage": at 30 there are rings around
    every letter, at 60 they are hard to see."""
    max_blank_share: float = Field(default=0.97, ge=0, le=1)
    """Share of 32 px tiles of one colour; above it "blank" (real slides reach .82, title pages .95)."""
    min_sharpness: float = -2.4
    """Log ratio of spectral powers (`quality.sharpness`); below it "blurred". Of 118 sharp real pictures 2 lie below,
    of the same blurred by a Gaussian of 1, 2, 4 and 8 px all."""
    recognizer: str = "rapidocr"
    """The reader that counts characters."""
    keep: tuple[DensityClass, ...] = ("none", "medium", "dense")
    """Classes that are kept: none (general pictures) below 30 characters a megapixel, sparse below 300, medium below
    900, dense from there on; others go as "sparse_text" and so on. A few words in a photograph serve neither the text
    set nor the general one."""
    rows_per_shard: int = Field(default=64, ge=1)
    """Pictures looked at by one task; its kept and rejected rows are two files."""


@dataclass(frozen=True, kw_only=True)
class FilterPlan:
    """All that a worker needs to make any shard of a run."""

    config: FilterRecipe
    recipe_hash: str
    items: tuple[RealItem, ...]
    schema: pa.Schema
    out: str
    """The run folder."""

    @property
    def shards(self) -> int:
        """Number of shards; the last may be smaller."""
        return -(-len(self.items) // self.config.rows_per_shard)

    def items_in(self, shard: int) -> tuple[RealItem, ...]:
        """Items of one shard."""
        return self.items[shard * self.config.rows_per_shard :][: self.config.rows_per_shard]


@dataclass(frozen=True, slots=True, kw_only=True)
class FilterReport:
    """What a run came to."""

    seen: int
    """Pictures and pages, unusable files included."""
    kept: int
    reasons: dict[str, int]
    """Why pictures were rejected, how often, most frequent first."""
    shards: int
    shards_before: int
    """Of them, finished before this start."""
    seconds: float


class ProgressReport(Protocol):
    """Told how far a run is."""

    def __call__(self, stage: str, done: int, total: int, reasons: Mapping[str, int], /) -> None:
        """stage: "filter". done, total: pictures. reasons: rejected so far, in this start."""


def _silent(stage: str, done: int, total: int, reasons: Mapping[str, int]) -> None:
    """Says nothing."""


def filter_corpus(
    config: FilterRecipe,
    recipe_hash: str,
    out: str,
    *,
    executor: Executor = "ray",
    workers: int | None = None,
    address: str | None = None,
    recipe_yaml: str = "",
    progress: ProgressReport = _silent,
) -> FilterReport:
    """Look at every picture of `config.input` and write the run folder `out`, or go on with it.

    Kept rows in `data/`, rejected ones in `rejected/` with their reason and, when it could be decoded, their picture.
    Raises BadInput when a place is missing, nothing is found, a file changes meanwhile, the disk is full, or `out`
    belongs to another run; what is finished is kept and the same call goes on from there.
    """
    started = time.perf_counter()
    items = tuple(list_items(config.input))
    versions = {"python": platform.python_version(), **library_versions(_LIBRARIES)}
    schema = with_metadata(SCHEMA, {"recipe_hash": recipe_hash, "recipe": recipe_yaml})
    plan = FilterPlan(config=config, recipe_hash=recipe_hash, items=items, schema=schema, out=out)
    folder = Folder(out)
    identity = RunIdentity(
        recipe_hash=recipe_hash, shards=plan.shards, inputs={"files": items_digest(items)}, versions=versions
    )
    before = start_run(folder, identity)
    if recipe_yaml and not folder.exists("recipe.yaml"):
        folder.publish("recipe.yaml", recipe_yaml.encode())
    done = sum(len(plan.items_in(shard)) for shard in before)
    reasons: collections.Counter[str] = collections.Counter()
    progress("filter", done, len(items), reasons)
    todo = (shard for shard in range(plan.shards) if shard not in before)
    with closing(run_tasks(filter_shard, plan, todo, executor=executor, workers=workers, address=address)) as results:
        for shard, record in results:
            done += len(plan.items_in(shard))
            reasons.update(record.reasons)
            progress("filter", done, len(items), reasons)
    totals = finish_run(folder, plan.shards)
    if not folder.exists(CARD):
        licences = {"Pictures and documents": [(item.origin.partition("#")[0], item.licence) for item in items]}
        card = dataset_card("Real pictures and pages, filtered", "glyphmill filter", totals, licences)
        folder.publish(CARD, card.encode())
    return FilterReport(
        seen=len(items),
        kept=totals.kept,
        reasons=totals.reasons,
        shards=plan.shards,
        shards_before=len(before),
        seconds=time.perf_counter() - started,
    )


def filter_shard(plan: FilterPlan, shard: int) -> CommitRecord:
    """Judge, publish and commit one shard: a pure function of the plan and the number."""
    started = time.perf_counter()
    kept, rejected = ShardBuilder(plan.schema), ShardBuilder(plan.schema)
    reasons: collections.Counter[str] = collections.Counter()
    for number, item in enumerate(plan.items_in(shard)):
        row = filter_item(item, plan.config) | {"recipe_hash": plan.recipe_hash, "shard": shard, "row": number}
        (kept if row["keep"] else rejected).add(row)
        if not row["keep"]:
            reasons[row["reason"]] += 1
    seconds = time.perf_counter() - started
    return publish_shard(
        Folder(plan.out), plan.recipe_hash, shard, kept.finish(), rejected.finish(), reasons, seconds=seconds
    )


def filter_item(item: RealItem, config: FilterRecipe) -> dict[str, Any]:
    """The row of one picture, kept or not (columns of `schema.SCHEMA`); scores that were not reached are missing."""
    try:
        verdict = _by_header(item, config)
        image_HW3 = read_item(item, config.input)
    except ImageProblem as problem:
        return real_row(item, None) | _verdict_columns(Verdict(keep=False, reason=problem.reason), "none")
    row = real_row(item, image_HW3)
    if verdict is None:
        verdict = by_size(image_HW3.shape[1], image_HW3.shape[0], config)
    if verdict is None:
        verdict, scores = _by_pixels(image_HW3, config)
        row |= scores
    if verdict is not None:
        return row | _verdict_columns(verdict, "rules")
    density = measure_density(open_recognizer(config.recognizer), image_HW3)
    return row | density_columns(density) | _verdict_columns(by_density(density, config), "ocr")


def _by_header(item: RealItem, config: FilterRecipe) -> Verdict | None:
    """What the file's header decides before anything is decoded; None when nothing. Raises ImageProblem."""
    if item.page is not None or item.problem:
        return None
    too_small = by_size(*image_size(item.path), config)
    if too_small is not None:
        return too_small
    quality = jpeg_quality(item.path)
    if quality is not None and quality < config.min_jpeg_quality:
        return Verdict(keep=False, reason="jpeg_damage", score=quality)
    return None


def by_size(width_px: int, height_px: int, config: FilterRecipe) -> Verdict | None:
    """A drop for size or shape, or None."""
    if min(width_px, height_px) < config.min_side_px:
        return Verdict(keep=False, reason="too_small", score=float(min(width_px, height_px)))
    if aspect(width_px, height_px) > config.max_aspect:
        return Verdict(keep=False, reason="too_narrow", score=aspect(width_px, height_px))
    return None


def _by_pixels(image_HW3: npt.NDArray[np.uint8], config: FilterRecipe) -> tuple[Verdict | None, dict[str, Any]]:
    blank = blank_share(image_HW3)
    if blank > config.max_blank_share:
        return Verdict(keep=False, reason="blank", score=blank), {}
    sharp = sharpness(image_HW3)
    if math.isnan(sharp):
        return Verdict(keep=False, reason="blank", score=blank), {}
    if sharp < config.min_sharpness:
        return Verdict(keep=False, reason="blurred", score=sharp), {"sharpness": sharp}
    return None, {"sharpness": sharp}


def by_density(density: Density, config: FilterRecipe) -> Verdict:
    """Keep the classes asked for."""
    if density.density_class in config.keep:
        return Verdict(keep=True, score=density.characters_per_mp)
    reason = "no_text" if density.density_class == "none" else f"{density.density_class}_text"
    return Verdict(keep=False, reason=reason, score=density.characters_per_mp)


def density_columns(density: Density) -> dict[str, Any]:
    """The columns of `schema.SCHEMA` that reading the picture fills."""
    lang = None
    if density.characters:
        lang = "zh" if density.han_share >= 0.5 else "en" if density.han_share < 0.05 else "mixed"
    lines = [{"text": line.text, "lang": lang, "quad_px": list(line.quad_px), "block": 0} for line in density.lines]
    return {
        "lang": lang,
        "text": "\n".join(line.text for line in density.lines),
        "lines": lines,
        "characters": density.characters,
        "characters_per_mp": density.characters_per_mp,
        "text_area": density.text_area,
        "density_class": density.density_class,
    }


def _verdict_columns(verdict: Verdict, judged_by: str) -> dict[str, Any]:
    return {"keep": verdict.keep, "reason": verdict.reason, "judged_by": judged_by}
