"""Synthetic pictures at scale: a recipe becomes shards, each a pure function of (recipe hash, shard number).

A row's address is (shard, row, attempt). Its page is sampled from the address alone, drawn, judged and encoded. A page
that is rejected is kept in the shard beside with its reason, and the row is drawn again at the next attempt: a shard is
always full. Executors, worker counts, retries and crashes cannot change a byte.
"""

import collections
import hashlib
import json
import platform
import tempfile
import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal, NamedTuple, Protocol

import cv2
import msgspec
import numpy as np
import pyarrow as pa
from pydantic import Field

from datagen.card import CARD, dataset_card
from datagen.codec import encode_png
from datagen.commit import CommitRecord, RunIdentity, committed_shards, finish_run, publish_shard, start_run
from datagen.corpus import Corpus, CorpusConfig, open_corpus
from datagen.execute import Executor, run_tasks
from datagen.judge import (
    Calibration,
    JudgeConfig,
    LineReading,
    calibrate,
    calibration_from_json,
    calibration_to_json,
    judge_by_rules,
    judge_read,
    page_ned,
    read_lines,
)
from datagen.ocr import count_characters, open_recognizer
from datagen.photos import PhotoIndex, PhotosConfig, PhotoStore, index_photos, index_to_json
from datagen.recipes import library_versions
from datagen.schema import SCHEMA, with_metadata
from datagen.seeds import rng_for, rng_for_run, rng_for_shard
from datagen.shards import ShardBuilder
from datagen.storage import Folder
from datagen.verdict import Verdict
from fonts_manifest.config import Config
from fonts_manifest.errors import BadInput
from fonts_manifest.manifest import FontFace, Manifest, load_manifest, save_manifest
from fonts_manifest.scan import FontsConfig, scan_fonts
from render_engine.caption import caption
from render_engine.choose import faces_of_shard
from render_engine.distribution import PageDistribution
from render_engine.render import Assets, render
from render_engine.sample import sample_spec
from render_engine.spec import PageSpec, RenderedPage, RenderError, photo_ids_of, spec_to_json
from render_engine.template import bundled_templates, templates_digest

FONTS = "fonts.json"
PHOTOS = "photos.json"
TEXTS = "texts.json"
VERSIONS = "versions.json"
RECIPE = "recipe.yaml"
CALIBRATION = "calibration.json"
READINGS = "readings"
"""A file for every few pages that were read."""

MAX_ATTEMPTS = 20
"""Draws of one row that may be rejected before the run is ended: a recipe of which 5 % is kept is a mistake."""

_AUDIT = 1  # purposes of rng_for_run
_LIBRARIES = (
    *("glyphmill", "numpy", "numba", "opencv-python", "pillow", "isal", "pyarrow", "datasets", "msgspec", "pydantic"),
    *("freetype-py", "uharfbuzz", "uniseg", "rapidocr", "onnxruntime"),
)
"""Whose versions decide a shard's bytes."""


class GenerateRecipe(Config):
    """What `glyphmill generate` draws and how it judges it."""

    kind: Literal["generate"]
    """What this recipe is for."""
    seed: int = Field(0, ge=0)
    """Start of all randomness: the same recipe and seed give the same bytes."""
    rows: int = Field(ge=1)
    """Pictures to keep; rejected ones are drawn anew and stand beside them."""
    rows_per_shard: int = Field(1000, ge=1)
    """Pictures a Parquet file and a task: 256 to 512 MB or half a minute for large runs."""
    fonts: FontsConfig = FontsConfig()
    """Where the faces come from."""
    photos: PhotosConfig
    """Where the backgrounds come from."""
    texts: CorpusConfig
    """Where the texts come from."""
    pages: PageDistribution = PageDistribution()
    """Which pages are drawn, and how often."""
    judge: JudgeConfig = JudgeConfig()
    """When text counts as legible, and how many pages OCR reads to calibrate the rules for the others."""


class Address(NamedTuple):
    """Where the randomness of a page comes from, with the run's seed."""

    shard: int
    row: int
    attempt: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class Judgement:
    """A verdict and what led to it."""

    verdict: Verdict
    judged_by: Literal["ocr", "rules", "none"]
    readings: tuple[LineReading, ...] | None = None
    """One for each line; None when the page was not read."""
    legibility: tuple[float, ...] | None = None
    """Predicted by the rules, one for each line; None without rules."""
    ned: float | None = None


class Judge(Protocol):
    """Decides what is kept: a pure function of the page and its address. Picklable."""

    def __call__(self, page: RenderedPage, assets: Assets, address: Address) -> Judgement: ...


@dataclass(frozen=True, slots=True)
class KeepAll:
    """Judges nothing."""

    def __call__(self, page: RenderedPage, assets: Assets, address: Address) -> Judgement:
        """Keep."""
        return Judgement(verdict=Verdict(keep=True), judged_by="none")


@dataclass(frozen=True, kw_only=True)
class CalibratedJudge:
    """Audit rows are read and judged by OCR, all others by the rules calibrated on them."""

    calibration: Calibration
    config: JudgeConfig
    audit: frozenset[tuple[int, int]]
    """(shard, row): every attempt of these rows is read."""
    readings: Mapping[Address, tuple[LineReading, ...]]
    """What the calibration has read already; a page that is not here is read when it comes."""

    def __call__(self, page: RenderedPage, assets: Assets, address: Address) -> Judgement:
        """The judgement of one page."""
        verdict, legibility = judge_by_rules(page, self.calibration, self.config)
        if (address.shard, address.row) not in self.audit:
            return Judgement(verdict=verdict, judged_by="rules", legibility=tuple(legibility))
        readings = self.readings.get(address)
        if readings is None:
            readings = tuple(read_lines(open_recognizer(self.config.recognizer), page, assets))
        return Judgement(
            verdict=judge_read(readings, page, self.config),
            judged_by="ocr",
            readings=readings,
            legibility=tuple(legibility),
            ned=page_ned(readings, page),
        )


@dataclass(frozen=True, kw_only=True)
class GeneratePlan:
    """All that a worker needs to make any shard of a run."""

    recipe_hash: str
    seed: int
    rows: int
    rows_per_shard: int
    pages: PageDistribution
    judge_config: JudgeConfig
    texts: CorpusConfig
    texts_digest: str
    manifest: Manifest
    photos: PhotoIndex
    versions: dict[str, str]
    templates_digest: str
    """Of the templates that the pages may be made from; "" when there are none."""
    schema: pa.Schema
    """`SCHEMA` with the recipe and the versions in its metadata."""
    out: str = ""
    """The run folder; "" when nothing is written."""
    judge: Judge = KeepAll()

    @property
    def shards(self) -> int:
        """Number of shards; the last may be smaller."""
        return -(-self.rows // self.rows_per_shard)

    def rows_in(self, shard: int) -> int:
        """Rows of one shard."""
        return min(self.rows_per_shard, self.rows - shard * self.rows_per_shard)

    def addresses(self) -> Iterator[Address]:
        """Every row's first attempt, in order."""
        return (Address(shard, row) for shard in range(self.shards) for row in range(self.rows_in(shard)))

    @property
    def identity(self) -> RunIdentity:
        """What must be equal to go on with a run."""
        inputs = {"fonts": self.manifest.digest, "photographs": self.photos.digest, "texts": self.texts_digest}
        if self.templates_digest:
            inputs["templates"] = self.templates_digest
        return RunIdentity(recipe_hash=self.recipe_hash, shards=self.shards, inputs=inputs, versions=self.versions)


@dataclass(frozen=True, slots=True, kw_only=True)
class SampledPage:
    """A page of one address, drawn or not."""

    address: Address
    spec: PageSpec
    page: RenderedPage | None
    """None when it cannot be drawn as specified."""
    reason: str = ""
    """Why not."""


@dataclass(frozen=True, slots=True, kw_only=True)
class RunReport:
    """What a run came to."""

    kept: int
    reasons: dict[str, int]
    """Why pages were rejected, how often."""
    shards: int
    shards_before: int
    """Of them, finished before this start."""
    seconds: float
    calibration: Calibration | None


class ProgressReport(Protocol):
    """Told how far a run is."""

    def __call__(self, stage: str, done: int, total: int, reasons: Mapping[str, int], /) -> None:
        """stage: "read" (pages for the calibration) or "draw" (rows). reasons: rejected so far, in this start."""


def _silent(stage: str, done: int, total: int, reasons: Mapping[str, int]) -> None:
    """Says nothing."""


def make_plan(
    recipe: GenerateRecipe, recipe_hash: str, recipe_yaml: str, out: str = "", *, manifest: Manifest | None = None
) -> GeneratePlan:
    """Look at all that the recipe names: fonts (unless `manifest` is given), photographs, texts.

    Raises BadInput when one of them is missing or unusable.
    """
    if manifest is None:
        manifest, _ = scan_fonts(recipe.fonts.all_places())
    versions = {"python": platform.python_version(), **library_versions(_LIBRARIES)}
    corpus = open_corpus(recipe.texts)
    missing = [lang for lang, weight in recipe.pages.languages.items() if weight and lang not in corpus.languages]
    if missing:
        raise BadInput(
            f"texts: no {missing[0]!r} text in the places named; add some, or set the language's weight to 0"
        )
    metadata = {"recipe_hash": recipe_hash, "recipe": recipe_yaml, "versions": json.dumps(versions)}
    return GeneratePlan(
        recipe_hash=recipe_hash,
        seed=recipe.seed,
        rows=recipe.rows,
        rows_per_shard=recipe.rows_per_shard,
        pages=recipe.pages,
        judge_config=recipe.judge,
        texts=recipe.texts,
        texts_digest=corpus.digest,
        manifest=manifest,
        photos=_photos_of(recipe),
        templates_digest=_templates_of(recipe.pages),
        versions=versions,
        schema=with_metadata(SCHEMA, metadata),
        out=out,
    )


def _photos_of(recipe: GenerateRecipe) -> PhotoIndex:
    """Pages over and inside photographs need some; structured pages take them for their pictures when there are any."""
    families = recipe.pages.families
    wanted = families.get("background") or families.get("compositional")
    if wanted or (families.get("complex") and recipe.photos.places):
        return index_photos(recipe.photos)
    return PhotoIndex(photos=())


def _templates_of(pages: PageDistribution) -> str:
    if not (pages.families.get("complex") or pages.families.get("compositional")):
        return ""
    return templates_digest(pages.templates or bundled_templates())


def generate(
    recipe: GenerateRecipe,
    recipe_hash: str,
    recipe_yaml: str,
    out: str,
    *,
    executor: Executor = "ray",
    workers: int | None = None,
    address: str | None = None,
    manifest: Manifest | None = None,
    judge: Judge | None = None,
    progress: ProgressReport = _silent,
) -> RunReport:
    """Make the run in the folder `out`, or go on with it; returns when every shard is finished.

    Without `judge` a sample of `recipe.judge.sample_pages` rows is read by OCR first, and the rules are calibrated on
    it (`calibration.json`, `readings/`). Beside the shards lie `recipe.yaml`, `fonts.json`, `photos.json`,
    `texts.json`, `versions.json`. Raises BadInput for bad input, a full disk, or a folder of another run; what is
    finished is kept and the same call goes on from there.
    """
    started = time.perf_counter()
    plan = make_plan(recipe, recipe_hash, recipe_yaml, out, manifest=manifest)
    folder = Folder(out)
    before = start_run(folder, plan.identity)
    if not folder.exists(TEXTS):
        _describe_run(folder, plan, recipe_yaml)
    calibration = None
    if judge is None:
        calibration, readings = calibrate_run(
            plan, executor=executor, workers=workers, address=address, progress=progress
        )
        audit = frozenset((address_.shard, address_.row) for address_ in audit_rows(plan))
        judge = CalibratedJudge(calibration=calibration, config=recipe.judge, audit=audit, readings=readings)
    plan = replace(plan, judge=judge)
    done = sum(plan.rows_in(shard) for shard in before)
    reasons: collections.Counter[str] = collections.Counter()
    progress("draw", done, plan.rows, reasons)
    todo = (shard for shard in range(plan.shards) if shard not in before)
    with closing(run_tasks(generate_shard, plan, todo, executor=executor, workers=workers, address=address)) as results:
        for _, record in results:
            done += record.kept
            reasons.update(record.reasons)
            progress("draw", done, plan.rows, reasons)
    records = finish_run(folder, plan.shards)
    if not folder.exists(CARD):
        folder.publish(CARD, _card(plan, records).encode())
    total: collections.Counter[str] = collections.Counter()
    for record in records:
        total.update(record.reasons)
    return RunReport(
        kept=sum(record.kept for record in records),
        reasons=dict(total.most_common()),
        shards=plan.shards,
        shards_before=len(before),
        seconds=time.perf_counter() - started,
        calibration=calibration,
    )


def generate_shard(plan: GeneratePlan, shard: int) -> CommitRecord:
    """Make, publish and commit one shard: a pure function of the plan and the number.

    Raises BadInput when a row is rejected MAX_ATTEMPTS times, an input has changed, or the disk is full.
    """
    started = time.perf_counter()
    workshop = _workshop(plan)
    licences = {photo.photo_id: photo.licence for photo in plan.photos.photos}
    kept, rejected = ShardBuilder(plan.schema), ShardBuilder(plan.schema)
    reasons: collections.Counter[str] = collections.Counter()
    for row in range(plan.rows_in(shard)):
        of_row: collections.Counter[str] = collections.Counter()
        for attempt in range(MAX_ATTEMPTS):
            sampled = workshop.draw(plan, Address(shard, row, attempt))
            if sampled.page is None:
                judgement = Judgement(verdict=Verdict(keep=False, reason=sampled.reason), judged_by="none")
            else:
                judgement = plan.judge(sampled.page, workshop.assets, sampled.address)
            (kept if judgement.verdict.keep else rejected).add(_to_row(plan, sampled, judgement, licences))
            if judgement.verdict.keep:
                break
            of_row[judgement.verdict.reason] += 1
        else:
            most = ", ".join(f"{count} {reason}" for reason, count in of_row.most_common(3))
            raise BadInput(
                f"shard {shard}, row {row}: {MAX_ATTEMPTS} pages in a row were rejected ({most}); "
                "ask less of the judge, or let the recipe draw more legible pages"
            )
        reasons.update(of_row)
    seconds = time.perf_counter() - started
    return publish_shard(
        Folder(plan.out), plan.recipe_hash, shard, kept.finish(), rejected.finish(), reasons, seconds=seconds
    )


def sample_rows(plan: GeneratePlan, addresses: Iterable[Address]) -> Iterator[SampledPage]:
    """The pages of these addresses, drawn and not judged, in this process."""
    workshop = _workshop(plan)
    for address in addresses:
        yield workshop.draw(plan, address)


def audit_rows(plan: GeneratePlan) -> list[Address]:
    """The rows that are read in full, in order: `judge.sample_pages` of all, each equally likely, by the seed."""
    rng = rng_for_run(plan.seed, _AUDIT)
    count = min(plan.judge_config.sample_pages, plan.rows)
    numbers = np.sort(rng.choice(plan.rows, count, replace=False, shuffle=False)).tolist()
    return [Address(*divmod(number, plan.rows_per_shard)) for number in numbers]


def calibrate_run(
    plan: GeneratePlan,
    *,
    executor: Executor = "ray",
    workers: int | None = None,
    address: str | None = None,
    progress: ProgressReport = _silent,
) -> tuple[Calibration, dict[Address, tuple[LineReading, ...]]]:
    """Read the audit rows' first pages and calibrate the rules on them, or take both from the run folder.

    What a run that was cut off has read is not read again. Raises BadInput when shards are there whose calibration is
    gone.
    """
    folder = Folder(plan.out)
    chunks = _chunks(plan)
    if folder.exists(CALIBRATION):
        name = folder.describe(CALIBRATION)
        return calibration_from_json(folder.read(CALIBRATION).decode(), name), _load_readings(folder, len(chunks))
    if committed_shards(folder):
        raise BadInput(f"{folder.describe(CALIBRATION)}: is gone, but the shards depend on it; remove the folder")
    there = set(folder.names(READINGS))
    todo = [number for number in range(len(chunks)) if _chunk_name(number) not in there]
    total = sum(map(len, chunks))
    done = total - sum(len(chunks[number]) for number in todo)
    progress("read", done, total, {})
    with closing(run_tasks(_read_chunk, plan, todo, executor=executor, workers=workers, address=address)) as results:
        for number, _ in results:
            done += len(chunks[number])
            progress("read", done, total, {})
    readings = _load_readings(folder, len(chunks))
    # Drawing a page again takes a hundredth of the time that reading it took.
    pages = {sampled.address: sampled.page for sampled in sample_rows(plan, readings)}
    calibration = calibrate(
        list(readings.values()),
        [page for page in pages.values() if page is not None],
        plan.judge_config,
        addresses=list(readings),
        recognizer=plan.judge_config.recognizer,
    )
    folder.publish(CALIBRATION, calibration_to_json(calibration).encode())
    return calibration, readings


def _chunks(plan: GeneratePlan) -> list[list[Address]]:
    """The audit rows in small tasks, so that every worker is busy to the end: reading a page takes a second."""
    addresses = audit_rows(plan)
    return [addresses[start : start + 8] for start in range(0, len(addresses), 8)]


def _chunk_name(number: int) -> str:
    return f"{number:05d}.json"


def _read_chunk(plan: GeneratePlan, number: int) -> None:
    """Read the pages of one chunk of the audit rows and publish what was read; pages without a line are left out."""
    workshop = _workshop(plan)
    recognizer = open_recognizer(plan.judge_config.recognizer)
    found = []
    for address in _chunks(plan)[number]:
        page = workshop.draw(plan, address).page
        if page is not None and page.lines:
            found.append((address, tuple(read_lines(recognizer, page, workshop.assets))))
    Folder(plan.out).publish(f"{READINGS}/{_chunk_name(number)}", msgspec.json.encode(found))


def _load_readings(folder: Folder, chunks: int) -> dict[Address, tuple[LineReading, ...]]:
    """Everything that was read, in order of addresses."""
    readings: dict[Address, tuple[LineReading, ...]] = {}
    for number in range(chunks):
        path = f"{READINGS}/{_chunk_name(number)}"
        try:
            readings |= dict(msgspec.json.decode(folder.read(path), type=list[tuple[Address, tuple[LineReading, ...]]]))
        except msgspec.MsgspecError as error:
            raise BadInput(f"{folder.describe(path)}: damaged ({error}); remove it to read those pages again") from None
    return readings


def _card(plan: GeneratePlan, records: Sequence[CommitRecord]) -> str:
    licences = {
        "Fonts": [(face.family, face.licence) for face in plan.manifest.faces],
        "Photographs": [(Path(photo.path).name, photo.licence) for photo in plan.photos.photos],
        "Texts": [(place.place, place.licence) for place in plan.texts.places],
    }
    notes = []
    if any(place.format == "words" for place in plan.texts.places):
        notes.append(
            "Chinese text put together from a dictionary is word salad: real words at their frequencies (flattened, so "
            "that rare characters are seen), without meaning."
        )
    title = "Synthetic text-rich pictures"
    return dataset_card(title, "glyphmill generate", records, licences, notes)


def _describe_run(folder: Folder, plan: GeneratePlan, recipe_yaml: str) -> None:
    folder.publish(RECIPE, recipe_yaml.encode())
    folder.publish(FONTS, _manifest_bytes(plan.manifest))
    folder.publish(PHOTOS, index_to_json(plan.photos).encode())
    folder.publish(VERSIONS, (json.dumps(plan.versions, indent=1) + "\n").encode())
    facts = open_corpus(plan.texts).facts()
    folder.publish(TEXTS, (json.dumps(facts, ensure_ascii=False, indent=1) + "\n").encode())


def _manifest_bytes(manifest: Manifest) -> bytes:
    with tempfile.TemporaryDirectory() as temporary:
        path = Path(temporary, FONTS)
        save_manifest(manifest, path)
        return path.read_bytes()


def read_fonts(folder: Folder) -> Manifest:
    """The faces of a run. Raises BadInput."""
    if folder.local is not None:
        return load_manifest(folder.local / FONTS, verify=False)
    with tempfile.TemporaryDirectory() as temporary:
        path = Path(temporary, FONTS)
        path.write_bytes(folder.read(FONTS))
        return load_manifest(path, verify=False)


class _Workshop:
    """What stays open in a process from one task to the next: faces, glyphs, photographs, texts."""

    def __init__(self, plan: GeneratePlan) -> None:
        # One process a core: threads of OpenCV would only take the core of the next worker.
        cv2.setNumThreads(1)
        self.corpus: Corpus = open_corpus(plan.texts)
        if self.corpus.digest != plan.texts_digest:
            raise BadInput("texts: the files have changed since the run was planned, or differ on this machine")
        self.assets = Assets(plan.manifest.faces, PhotoStore(plan.photos.photos))
        self._faces: tuple[int, tuple[FontFace, ...]] = (-1, ())

    def draw(self, plan: GeneratePlan, address: Address) -> SampledPage:
        rng = rng_for(plan.seed, *address)
        spec = sample_spec(rng, plan.pages, self._faces_of(plan, address.shard), self.corpus, plan.photos.photos)
        try:
            return SampledPage(address=address, spec=spec, page=render(spec, self.assets))
        except RenderError as error:
            return SampledPage(address=address, spec=spec, page=None, reason=error.reason)

    def _faces_of(self, plan: GeneratePlan, shard: int) -> tuple[FontFace, ...]:
        if self._faces[0] != shard:
            rng = rng_for_shard(plan.seed, shard)
            self._faces = (shard, faces_of_shard(rng, plan.pages, plan.manifest.faces))
        return self._faces[1]


_workshops: dict[tuple[str, ...], _Workshop] = {}


def _workshop(plan: GeneratePlan) -> _Workshop:
    # Digests do not tell folders apart, and a run may be made again from files that have moved.
    places = (plan.manifest.faces[0].path, plan.photos.photos[0].path if plan.photos.photos else "")
    key = (plan.texts_digest, plan.texts.model_dump_json(), plan.manifest.digest, plan.photos.digest, *places)
    if key not in _workshops:
        _workshops.clear()
        _workshops[key] = _Workshop(plan)
    return _workshops[key]


def _to_row(
    plan: GeneratePlan, sampled: SampledPage, judgement: Judgement, licences: Mapping[str, str]
) -> dict[str, Any]:
    spec, page, address = sampled.spec, sampled.page, sampled.address
    photo_ids = photo_ids_of(spec)
    photo_licences = dict.fromkeys(licences[photo_id] for photo_id in photo_ids if photo_id in licences)
    languages = {block.lang for block in spec.blocks}
    row: dict[str, Any] = {
        "row_id": f"{plan.recipe_hash[:12]}-{address.shard}-{address.row}-{address.attempt}",
        "source": "synthetic",
        "width": spec.width_px,
        "height": spec.height_px,
        "lang": languages.pop() if len(languages) == 1 else "mixed",
        "spec": spec_to_json(spec),
        "recipe_hash": plan.recipe_hash,
        "seed": plan.seed,
        "shard": address.shard,
        "row": address.row,
        "attempt": address.attempt,
        "photo_id": ",".join(photo_ids) or None,
        "licence": "; ".join(photo_licences) or None,
        "keep": judgement.verdict.keep,
        "reason": judgement.verdict.reason,
        "judged_by": judgement.judged_by,
        "ned": judgement.ned,
    }
    if page is None:
        return row
    text = "\n".join(line.text for line in page.lines)
    characters = count_characters(text)
    return row | {
        "image": {"bytes": encode_png(page.image_HW3), "path": None},
        "text": text,
        "lines": _lines(spec, page, judgement),
        "caption": caption(spec, page.lines),
        "pixels_sha256": hashlib.sha256(page.image_HW3.tobytes()).hexdigest(),
        "characters": characters,
        "characters_per_mp": characters / (spec.width_px * spec.height_px / 1e6),
        "text_area": text_area(page),
    }


def _lines(spec: PageSpec, page: RenderedPage, judgement: Judgement) -> list[dict[str, Any]]:
    rows = []
    for number, line in enumerate(page.lines):
        reading = judgement.readings[number] if judgement.readings is not None else None
        rows.append(
            {
                "text": line.text,
                "lang": line.lang,
                "quad_px": list(line.quad_px),
                "size_px": line.size_px,
                "ink_height_px": line.ink_height_px,
                "face_id": line.face_id,
                "ink_rgb": list(line.ink_rgb),
                "ground_rgb": list(line.ground_rgb),
                "contrast": line.contrast,
                "clutter": line.clutter,
                "opacity": line.opacity,
                "block": line.block,
                "role": spec.blocks[line.block].role,
                "read_ned": reading.read_ned if reading else None,
                "clean_ned": reading.clean_ned if reading else None,
                "legibility": judgement.legibility[number] if judgement.legibility is not None else None,
            }
        )
    return rows


def text_area(page: RenderedPage) -> float:
    """Share of the page's pixels whose centre lies in the quad of a line, 0 to 1; overlaps count once."""
    height, width = page.image_HW3.shape[:2]
    covered_HW = np.zeros((height, width), bool)
    for line in page.lines:
        corners_42 = np.array(line.quad_px, np.float64).reshape(4, 2)
        left, top = np.clip(np.floor(corners_42.min(axis=0)), 0, (width, height)).astype(int)
        right, bottom = np.clip(np.ceil(corners_42.max(axis=0)), 0, (width, height)).astype(int)
        # OpenCV's fillConvexPoly also fills pixels that the edges only touch: 7 % too many for a line of 50 x 20 px.
        y_HW, x_HW = np.mgrid[top:bottom, left:right] + 0.5
        inside_HW = np.ones(y_HW.shape, bool)
        for (x0, y0), (x1, y1) in zip(corners_42, np.roll(corners_42, -1, axis=0), strict=True):
            # Corners run clockwise on the screen (y down): the inside lies where the cross product is positive.
            inside_HW &= (x1 - x0) * (y_HW - y0) - (y1 - y0) * (x_HW - x0) >= 0
        covered_HW[top:bottom, left:right] |= inside_HW
    return float(covered_HW.mean())
