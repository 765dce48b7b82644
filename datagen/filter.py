"""Real files -> kept and rejected rows of the one schema, cheapest rule first, every drop with a reason.

Three passes: every picture is scored and judged by itself; copies among those that passed are found by their
fingerprints; then kept and rejected rows are written with their pictures. The first and the last are tasks over shards,
each a pure function. Kept rows carry `density_class`, so that a mixture can tell pages of text from general pictures.
"""

import collections
import functools
import platform
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass
from typing import Any

import msgspec
import pyarrow as pa

from datagen.card import CARD, dataset_card
from datagen.child import Child, ChildDied
from datagen.commit import CommitRecord, RunIdentity, finish_run, publish_shard, start_run
from datagen.criteria import FilterRecipe, crashed_row, score_item
from datagen.decode import ImageProblem
from datagen.dedup import Benchmark, Copy, DuplicatesConfig, Fingerprint, find_copies, perceptual_hash
from datagen.execute import Executor, run_tasks
from datagen.files import bare_name
from datagen.ingest import (
    IngestConfig,
    RealItem,
    RealPlace,
    capture_items,
    items_digest,
    list_items,
    pixel_columns,
    read_item,
    real_row,
)
from datagen.ocr import open_recognizer
from datagen.progress import ProgressReport, silent
from datagen.recipes import library_versions
from datagen.schema import SCHEMA, with_metadata
from datagen.shards import ShardBuilder, read_table
from datagen.storage import Folder
from fonts_manifest.errors import BadInput

_LIBRARIES = (
    "glyphmill",
    "numpy",
    "opencv-python",
    "pillow",
    "pypdfium2",
    "isal",
    "imagehash",
    "rensa",
    "pyarrow",
    "rapidocr",
    "onnxruntime",
)
"""Whose versions decide a shard's bytes."""

SCORES = "_scores"
"""Folder of a run with what the first pass found: rows without pictures, one file a shard."""
_BENCHMARK = "_benchmark.json"


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

    @functools.cached_property
    def score_schema(self) -> pa.Schema:
        """Of the rows of the first pass: all columns but the picture."""
        return pa.schema([field for field in self.schema if field.name != "image"])

    def scores_path(self, shard: int) -> str:
        """Where the first pass leaves a shard's rows."""
        return f"{SCORES}/{self.recipe_hash[:12]}-{shard:08d}.parquet"


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


def filter_corpus(
    config: FilterRecipe,
    recipe_hash: str,
    out: str,
    *,
    executor: Executor = "ray",
    workers: int | None = None,
    address: str | None = None,
    recipe_yaml: str = "",
    progress: ProgressReport = silent,
) -> FilterReport:
    """Look at every picture of `config.input` and write the run folder `out`, or go on with it.

    Kept rows in `data/`, rejected ones in `rejected/` with their reason and, when it could be decoded, their picture.
    Raises BadInput when a place is missing, nothing is found, a file changes meanwhile, the disk is full, or `out`
    belongs to another run; what is finished is kept and the same call goes on from there.
    """
    started = time.perf_counter()
    folder = Folder(out)
    items = tuple(list_items(config.input, capture_items(config.input, folder)))
    benchmark_items = _benchmark_items(config)
    versions = {"python": platform.python_version(), **library_versions(_LIBRARIES)}
    schema = with_metadata(SCHEMA, {"recipe_hash": recipe_hash, "recipe": recipe_yaml})
    plan = FilterPlan(config=config, recipe_hash=recipe_hash, items=items, schema=schema, out=out)
    inputs = {"files": items_digest(items)} | ({"benchmark": items_digest(benchmark_items)} if benchmark_items else {})
    identity = RunIdentity(recipe_hash=recipe_hash, shards=plan.shards, inputs=inputs, versions=versions)
    before = start_run(folder, identity)
    if recipe_yaml and not folder.exists("recipe.yaml"):
        folder.publish("recipe.yaml", recipe_yaml.encode())
    if len(before) < plan.shards:
        tasks = functools.partial(run_tasks, executor=executor, workers=workers, address=address)
        _score(plan, folder, tasks, progress)
        copies = _find_copies(plan, folder, benchmark_items)
        _write(plan, copies, before, tasks, progress)
    totals = finish_run(folder, plan.shards)
    if not folder.exists(CARD):
        licences = {"Pictures and documents": _licences(config.input, items)}
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


def _licences(config: IngestConfig, items: Sequence[RealItem]) -> list[tuple[str, str]]:
    """(name, licence): the places, and how many rows have which licence of their own; never a name a picture."""
    places = [(bare_name(source.place), source.licence) for source in config.places]
    stated = {licence for _, licence in places}
    own = collections.Counter(item.licence for item in items if item.licence not in stated)
    return places + [(f"{count:,} by their own rows", licence) for licence, count in own.most_common(100)]


def _score(plan: FilterPlan, folder: Folder, tasks: Any, progress: ProgressReport) -> None:
    """The first pass, over the shards whose scores are not there."""
    there = set(folder.names(SCORES))
    todo = [shard for shard in range(plan.shards) if plan.scores_path(shard).rpartition("/")[2] not in there]
    done = len(plan.items) - sum(len(plan.items_in(shard)) for shard in todo)
    reasons: collections.Counter[str] = collections.Counter()
    progress("score", done, len(plan.items), reasons)
    with closing(tasks(score_shard, plan, todo, rescue=score_shard_carefully)) as results:
        for shard, dropped in results:
            done += len(plan.items_in(shard))
            reasons.update(dropped)
            progress("score", done, len(plan.items), reasons)


def _write(
    plan: FilterPlan, copies: Mapping[str, Copy], before: frozenset[int], tasks: Any, progress: ProgressReport
) -> None:
    """The last pass, over the shards that are not finished."""
    done = sum(len(plan.items_in(shard)) for shard in before)
    reasons: collections.Counter[str] = collections.Counter()
    progress("write", done, len(plan.items), reasons)
    todo = (shard for shard in range(plan.shards) if shard not in before)
    with closing(tasks(write_shard, (plan, copies), todo)) as results:
        for shard, record in results:
            done += len(plan.items_in(shard))
            reasons.update(record.reasons)
            progress("write", done, len(plan.items), reasons)


def score_shard(plan: FilterPlan, shard: int) -> dict[str, int]:
    """Measure and judge the pictures of one shard; returns how many were dropped for which reason."""
    return _publish_scores(plan, shard, (score_item(plan.config, item) for item in plan.items_in(shard)))


def score_shard_carefully(plan: FilterPlan, shard: int) -> dict[str, int]:
    """The same, each picture in a process beside this one: what crashes it is dropped as "crashed"."""
    with Child(plan.config) as child:
        return _publish_scores(plan, shard, (_score_beside(child, item) for item in plan.items_in(shard)))


def _score_beside(child: Child[FilterRecipe], item: RealItem) -> dict[str, Any]:
    try:
        return child.call(score_item, item)
    except ChildDied as death:
        return crashed_row(item, str(death))


def _publish_scores(plan: FilterPlan, shard: int, scored: Iterator[dict[str, Any]]) -> dict[str, int]:
    rows = ShardBuilder(plan.score_schema)
    reasons: collections.Counter[str] = collections.Counter()
    for number, row in enumerate(scored):
        if not row["keep"]:
            reasons[row["reason"]] += 1
        rows.add(row | {"recipe_hash": plan.recipe_hash, "shard": shard, "row": number})
    Folder(plan.out).publish(plan.scores_path(shard), rows.finish().data)
    return dict(reasons)


def write_shard(shared: tuple[FilterPlan, Mapping[str, Copy]], shard: int) -> CommitRecord:
    """Publish and commit one shard: its scored rows, copies rejected, with their pictures."""
    plan, copies = shared
    started = time.perf_counter()
    kept, rejected = ShardBuilder(plan.schema), ShardBuilder(plan.schema)
    reasons: collections.Counter[str] = collections.Counter()
    folder = Folder(plan.out)
    scored = read_table(folder.read(plan.scores_path(shard))).to_pylist()
    for item, row in zip(plan.items_in(shard), scored, strict=True):
        copy = copies.get(row["row_id"]) if row["keep"] else None
        if copy is not None:
            row |= {"keep": False, "reason": copy.reason, "duplicate_of": copy.of, "detail": f"a copy of {copy.of}"}
        row |= _pictured(item, row, plan.config)
        (kept if row["keep"] else rejected).add(row)
        if not row["keep"]:
            reasons[row["reason"]] += 1
    seconds = time.perf_counter() - started
    return publish_shard(folder, plan.recipe_hash, shard, kept.finish(), rejected.finish(), reasons, seconds=seconds)


def _pictured(item: RealItem, row: Mapping[str, Any], config: FilterRecipe) -> dict[str, Any]:
    """The columns that hold the picture; without it where there is none."""
    wanted = row["keep"] or (config.rejected_pictures and row["judged_by"] != "none")
    if not wanted:
        return {"image": {"bytes": None, "path": item.origin}}
    try:
        return real_row(item, read_item(item, config.input))
    except ImageProblem as problem:
        if row["keep"]:
            raise BadInput(f"{item.origin}: could be read before and cannot now ({problem})") from None
        # Dropped by its header: what is behind it was never decoded.
        return {"image": {"bytes": None, "path": item.origin}}


def _benchmark_items(config: FilterRecipe) -> list[RealItem]:
    if config.benchmark is None:
        return []
    place = RealPlace(place=config.benchmark.place, licence="benchmark")
    return list_items(config.input.model_copy(update={"places": (place,)}))


def _find_copies(plan: FilterPlan, folder: Folder, benchmark_items: list[RealItem]) -> dict[str, Copy]:
    """row_id -> of what it is a copy, for the pictures that passed all rules."""
    config = plan.config
    if config.duplicates is None and config.benchmark is None:
        return {}
    passed = list(_fingerprints(plan, folder))
    copies: dict[str, Copy] = {}
    if config.benchmark is not None:
        distance = (config.duplicates or DuplicatesConfig()).hash_distance
        benchmark = Benchmark(_benchmark_fingerprints(plan, folder, benchmark_items), config.benchmark, distance)
        copies = {one.row_id: copy for one in passed if (copy := benchmark.find(one)) is not None}
    if config.duplicates is not None:
        copies |= find_copies([one for one in passed if one.row_id not in copies], config.duplicates)
    return copies


def _fingerprints(plan: FilterPlan, folder: Folder) -> Iterator[Fingerprint]:
    columns = ["row_id", "keep", "width", "height", "pixels_xxh3", "phash", "text"]
    for shard in range(plan.shards):
        table = read_table(folder.read(plan.scores_path(shard)), columns=columns)
        for row in table.to_pylist():
            if row["keep"]:
                yield Fingerprint(
                    row_id=row["row_id"],
                    pixels=row["width"] * row["height"],
                    pixels_xxh3=row["pixels_xxh3"],
                    phash=int(row["phash"], 16),
                    text=row["text"] or "",
                )


def _benchmark_fingerprints(plan: FilterPlan, folder: Folder, items: list[RealItem]) -> list[Fingerprint]:
    """Of the benchmark's pictures, read once a run; what cannot be read is left out."""
    if folder.exists(_BENCHMARK):
        return [Fingerprint(**one) for one in msgspec.json.decode(folder.read(_BENCHMARK))]
    found = []
    recognizer = open_recognizer(plan.config.recognizer)
    for item in items:
        try:
            image_HW3 = read_item(item, plan.config.input)
        except ImageProblem:
            continue
        text = "\n".join(line.text for line in recognizer.read_page(image_HW3))
        pixels = pixel_columns(image_HW3)
        found.append(
            {
                "row_id": item.origin,
                "pixels": pixels["width"] * pixels["height"],
                "pixels_xxh3": pixels["pixels_xxh3"],
                "phash": int(perceptual_hash(image_HW3), 16),
                "text": text,
            }
        )
    folder.publish(_BENCHMARK, msgspec.json.encode(found))
    return [Fingerprint(**one) for one in found]
