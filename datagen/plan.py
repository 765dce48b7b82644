"""What a run of synthetic pictures is: its recipe, and the plan that holds all a worker needs for any of its shards."""

import json
import platform
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, NamedTuple, Protocol

import pyarrow as pa
from pydantic import Field

from datagen.agreement import Agreement
from datagen.commit import RunIdentity
from datagen.corpus import Corpus, CorpusConfig, open_corpus
from datagen.judge import JudgeConfig, LineReading
from datagen.photos import PhotoIndex, PhotosConfig, index_photos, index_to_json
from datagen.recipes import library_versions
from datagen.schema import SCHEMA, with_metadata
from datagen.storage import Folder
from datagen.verdict import Verdict
from fonts_manifest.config import Config
from fonts_manifest.errors import BadInput
from fonts_manifest.manifest import Manifest, load_manifest, save_manifest
from fonts_manifest.scan import FontsConfig, scan_fonts
from render_engine.distribution import PageDistribution
from render_engine.render import Assets
from render_engine.spec import PageSpec, RenderedPage
from render_engine.template import bundled_templates, templates_digest

FONTS = "fonts.json"
PHOTOS = "photos.json"
TEXTS = "texts.json"
VERSIONS = "versions.json"
RECIPE = "recipe.yaml"

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
    """When text counts as legible, and how much of it OCR reads to know."""


class Address(NamedTuple):
    """Where the randomness of a page comes from, with the run's seed."""

    shard: int
    row: int
    attempt: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class PageAudit:
    """What the cascade made of a page that was read in full beside."""

    keep: bool
    lines: Agreement


@dataclass(frozen=True, slots=True, kw_only=True)
class Judgement:
    """A verdict and what led to it."""

    verdict: Verdict
    judged_by: Literal["ocr", "cascade", "none"]
    """ocr: every line was read, in an audit. cascade: uncertain ones at most."""
    readings: tuple[LineReading | None, ...] | None = None
    """One for each line, None for a line that was not read; None when nothing was judged."""
    legibility: tuple[float, ...] | None = None
    """Chance of each line to be legible, by the cascade's model; None without."""
    ned: float | None = None
    """Of a page read in full."""
    audit: PageAudit | None = None


class Judge(Protocol):
    """Decides what is kept: a pure function of the page, its spec and its address. Picklable."""

    def __call__(self, page: RenderedPage, spec: PageSpec, assets: Assets, address: Address) -> Judgement: ...


@dataclass(frozen=True, slots=True)
class KeepAll:
    """Judges nothing."""

    def __call__(self, page: RenderedPage, spec: PageSpec, assets: Assets, address: Address) -> Judgement:
        """Keep."""
        return Judgement(verdict=Verdict(keep=True), judged_by="none")


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
    calibration: str = ""
    """Digest of what the cascade goes by; "" when another judge decides."""

    @property
    def shards(self) -> int:
        """Number of shards; the last may be smaller."""
        return -(-self.rows // self.rows_per_shard)

    def rows_in(self, shard: int) -> int:
        """Rows of one shard."""
        return min(self.rows_per_shard, self.rows - shard * self.rows_per_shard)

    @property
    def identity(self) -> RunIdentity:
        """What must be equal to go on with a run."""
        inputs = {"fonts": self.manifest.digest, "photographs": self.photos.digest, "texts": self.texts_digest}
        if self.templates_digest:
            inputs["templates"] = self.templates_digest
        return RunIdentity(recipe_hash=self.recipe_hash, shards=self.shards, inputs=inputs, versions=self.versions)


def make_plan(
    recipe: GenerateRecipe,
    recipe_hash: str,
    recipe_yaml: str,
    out: str = "",
    *,
    manifest: Manifest | None = None,
    corpus: Corpus | None = None,
) -> GeneratePlan:
    """Look at all that the recipe names: fonts and texts (unless `manifest` and `corpus` are given), photographs.

    Raises BadInput when one of them is missing or unusable.
    """
    if manifest is None:
        manifest, _ = scan_fonts(recipe.fonts.all_places())
    versions = {"python": platform.python_version(), **library_versions(_LIBRARIES)}
    corpus = corpus or open_corpus(recipe.texts)
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


def describe_run(folder: Folder, plan: GeneratePlan, recipe_yaml: str, corpus: Corpus | None = None) -> None:
    """Publish the recipe and what it named: fonts, photographs, texts (those of `corpus`, when given), versions."""
    folder.publish(RECIPE, recipe_yaml.encode())
    folder.publish(FONTS, _manifest_bytes(plan.manifest))
    folder.publish(PHOTOS, index_to_json(plan.photos).encode())
    folder.publish(VERSIONS, (json.dumps(plan.versions, indent=1) + "\n").encode())
    facts = (corpus or open_corpus(plan.texts)).facts()
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
