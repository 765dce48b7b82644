"""OmniDoc-TokenBench, made from any pages: text blocks cut, scaled to one character size, read, filtered, deduplicated.

After section 5 of the Qwen-Image-VAE-2.0 report. Every candidate is listed with its reason, kept or not.

OUT/images/NAME.png         kept crops, 256 x 256: what `--gt` takes
OUT/images_512/NAME.png     the same regions at 512 x 512, for f32
OUT/benchmark.json          one record a kept crop: language, category, page, box, text
OUT/candidates.json         the same for every candidate, with the reason why it was dropped
OUT/candidates/             crops of all candidates that were cut; readings/ what was found on each page
"""

import hashlib
import json
import math
import re
import shutil
from collections import Counter
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any, Literal, get_args

import numpy as np
import numpy.typing as npt
from PIL import Image
from pydantic import Field, model_validator

from datagen.codec import encode_png
from datagen.decode import SUFFIXES, ImageProblem, decode_image
from datagen.execute import Executor, run_tasks
from datagen.ngrams import ngrams, shared_share
from datagen.ocr import count_characters, open_recognizer
from datagen.progress import ProgressReport, silent
from datagen.quality import blank_share, sharpness
from datagen.recipes import library_versions, recipe_hash, recipe_to_yaml
from datagen.storage import Folder
from fonts_manifest.config import Config
from fonts_manifest.errors import BadInput
from fonts_manifest.places import find_files
from vae.textblocks import Box, Lang, Page, TextBlock, detect_blocks, read_annotations

Picture = npt.NDArray[np.uint8]

CANDIDATES, BENCHMARK, DECISIONS = "candidates.json", "benchmark.json", "decisions.json"

Reason = Literal[
    "",  # kept
    "other_category",  # no block of running text
    "ignored",  # by the annotators
    "turned",  # rotated, or lines from top to bottom
    "other_language",
    "unknown_size",  # no text to learn the size of a character from
    "too_few_lines",
    "enlarged",  # its characters are smaller than the reference: enlarging them shows nothing but blur
    "beyond_page",
    "expected_too_few",  # the blocks inside the crop cannot hold enough characters: not read
    "blank",
    "blurred",
    "too_few_characters",
    "too_many_characters",
    "unsure_reading",
    "same_page_duplicate",
    "same_category_duplicate",
    "human_dropped",
]
REASONS: tuple[str, ...] = get_args(Reason)


class LanguageRule(Config):
    """What holds for the crops of one language."""

    cell_px: float = Field(gt=0)
    """Side of the square that a character takes in the crop, its advance times the line pitch; the em is smaller."""
    characters: tuple[int, int]
    """Fewest and most characters that may be read in a crop, blanks not counted."""
    ngram: int = Field(ge=1)
    """Length of the character runs by which duplicates are told."""


class TokenBenchRecipe(Config):
    """Make an OCR benchmark of reconstruction from pages."""

    kind: Literal["tokenbench"]
    """Which command reads this recipe."""
    zh: LanguageRule = LanguageRule(cell_px=16, characters=(200, 600), ngram=3)
    """Chinese."""
    en: LanguageRule = LanguageRule(cell_px=10, characters=(300, 600), ngram=5)
    """English."""
    side_px: int = Field(default=256, ge=64)
    """Side of a crop."""
    large_side_px: int | None = Field(default=512, ge=64)
    """Side of the variant for f32: the same region, so an f32 latent is as many cells as an f16 one; null for none."""
    categories: tuple[str, ...] = ("text_block", "detected")
    """Annotated categories that are running text; detected blocks are called "detected"."""
    min_lines: int = Field(default=3, ge=1)
    """Of blocks whose lines are known: fewer are titles and captions."""
    max_enlargement: float = Field(default=1.0, gt=0)
    """Largest scale from page to crop."""
    max_large_enlargement: float = Field(default=1.5, gt=0)
    """The same for the large variant; a crop beyond it has none."""
    max_blank_share: float = Field(default=0.35, ge=0, le=1)
    """Share of 32 px tiles without structure."""
    min_sharpness: float = -1.5
    """As `datagen.quality.sharpness` measures it: 90 real crops lie above -0.85, blurred by 1 px all below -2.0."""
    min_score: float = Field(default=0.85, ge=0, le=1)
    """Mean probability of the characters read; below it the reader is no judge of this print."""
    page_overlap: float = Field(default=0.2, ge=0, le=1)
    """Two crops of one page sharing more of their n-grams are duplicates."""
    category_overlap: float = Field(default=0.3, ge=0, le=1)
    """The same for two crops of one category and language."""
    max_megapixels: float = Field(default=64.0, gt=0, le=64)
    """Larger pages are left out undecoded."""

    @model_validator(mode="after")
    def _ranges_rise(self) -> "TokenBenchRecipe":
        for name, rule in (("zh", self.zh), ("en", self.en)):
            if not 0 <= rule.characters[0] <= rule.characters[1]:
                raise ValueError(f"{name}.characters must be [fewest, most], got {list(rule.characters)}")
        return self

    def rule(self, lang: Lang) -> LanguageRule:
        """The rule of a language."""
        return self.zh if lang == "zh" else self.en


@dataclass(frozen=True, slots=True, kw_only=True)
class Candidate:
    """One text block of one page, and what became of it. What was not measured because it was out before is None."""

    file: str
    """Of the crop, in `images/` or `candidates/`; unique."""
    lang: Lang | None
    category: str
    """Kind of document."""
    page: str
    block_category: str
    block_box_px: Box
    """On the page."""
    cell_px: float | None
    """On the page."""
    reason: Reason = ""
    detail: str = ""
    """Of the reason: which rule, which value."""
    crop_box_px: Box | None = None
    scale: float | None = None
    """From page to crop."""
    expected_characters: int | None = None
    characters: int | None = None
    score: float | None = None
    text: str | None = None
    """Lines in mended reading order, joined by line feeds."""
    sharpness: float | None = None
    blank_share: float | None = None
    large: bool = False
    """Whether there is a large variant."""

    def dropped(self, reason: Reason, detail: str = "") -> "Candidate":
        """The same with a reason."""
        return replace(self, reason=reason, detail=detail)


@dataclass(frozen=True, slots=True, kw_only=True)
class BuildReport:
    """What a build made."""

    kept: int
    candidates: int
    reasons: dict[str, int]
    kept_by: dict[str, int]
    """"language category" -> kept crops."""
    page_problems: dict[str, str]
    """Pages that could not be read, with why."""


@dataclass(frozen=True, slots=True, kw_only=True)
class _Shared:
    """What every page's task needs."""

    recipe: TokenBenchRecipe
    pages: str
    reader: str


def build(
    recipe: TokenBenchRecipe,
    pages: Path,
    annotations: Path | None,
    out: Path,
    *,
    executor: Executor = "serial",
    workers: int | None = None,
    reader: str = "rapidocr",
    progress: ProgressReport = silent,
) -> BuildReport:
    """Make the benchmark in `out`; what was read of a page stays there, so a run that was cut off goes on.

    pages: folder of page pictures. annotations: see `read_annotations`; without them blocks are detected. Decisions of
    a human inspection in `out` are applied again. Raises BadInput when nothing can be read, or `out` holds another run.
    """
    listed = _list_pages(pages, annotations)
    store = Folder(str(out))
    key = f"{recipe_hash(recipe)} {reader} {'annotated' if annotations else 'detected'}"
    _claim(store, key, recipe)
    shared = _Shared(recipe=recipe, pages=str(pages.absolute()), reader=reader)
    stems = _unique_stems(listed)
    missing = [(page, stem) for page, stem in zip(listed, stems, strict=True) if not _is_read(store, page, stem, pages)]
    done = len(listed) - len(missing)
    progress("pages", done, len(listed), {})
    found = 0
    for (page, stem), (record, pictures) in run_tasks(_read_page, shared, missing, executor=executor, workers=workers):
        for name, png in pictures.items():
            store.publish(f"candidates/{name}", png)
        store.publish(f"readings/{stem}.json", _to_json(record | {"key": _page_key(page, pages)}))
        done, found = done + 1, found + sum(not c["reason"] for c in record["candidates"])
        progress("pages", done, len(listed), {"usable crops": found})
    return assemble(out, stems, recipe)


def assemble(out: Path, stems: Sequence[str] | None = None, recipe: TokenBenchRecipe | None = None) -> BuildReport:
    """From what was read on each page to the benchmark: duplicates out, human decisions in, files beside their list.

    Reads nothing but `out`, so it can be done again after every inspection. Raises BadInput when no build is there.
    """
    store = Folder(str(out))
    if recipe is None or stems is None:
        recipe, stems = _read_claim(store)
    store.publish("pages.json", _to_json({"pages": list(stems)}))
    candidates: list[Candidate] = []
    problems: dict[str, str] = {}
    for stem in stems:
        record = json.loads(store.read(f"readings/{stem}.json"))
        candidates += [_candidate(entry) for entry in record["candidates"]]
        if record["problem"]:
            problems[record["page"]] = record["problem"]
    candidates = drop_duplicates(candidates, recipe)
    decisions = json.loads(store.read(DECISIONS))["decisions"] if store.exists(DECISIONS) else {}
    candidates = [_decided(candidate, decisions.get(candidate.file)) for candidate in candidates]
    kept = [candidate for candidate in candidates if not candidate.reason]
    _lay_out(out, kept, recipe)
    reasons = Counter(candidate.reason for candidate in candidates if candidate.reason)
    kept_by = Counter(f"{candidate.lang} {candidate.category}" for candidate in kept)
    report = BuildReport(
        kept=len(kept),
        candidates=len(candidates),
        reasons=dict(sorted(reasons.items(), key=lambda pair: (-pair[1], pair[0]))),
        kept_by=dict(sorted(kept_by.items())),
        page_problems=problems,
    )
    store.publish(CANDIDATES, _to_json({"summary": asdict(report), "candidates": [asdict(c) for c in candidates]}))
    store.publish(BENCHMARK, _to_json([asdict(candidate) for candidate in kept]))
    return report


def read_candidates(out: Path) -> list[Candidate]:
    """All candidates of a finished build. Raises BadInput when there is none."""
    return [_candidate(entry) for entry in json.loads(Folder(str(out)).read(CANDIDATES))["candidates"]]


def drop_duplicates(candidates: Sequence[Candidate], recipe: TokenBenchRecipe) -> list[Candidate]:
    """The candidates in their order, of those that overlap only the one with the most characters kept.

    Greedy from the most characters down (ties: by name): a crop is dropped when it overlaps a kept one. So no two kept
    ones overlap, every dropped one names a kept one with at least as many characters, and of a chain A-B-C whose ends
    have nothing in common both ends stay.
    """
    usable = [c for c in candidates if not c.reason]
    grams = {c.file: ngrams(c.text or "", recipe.rule(c.lang).ngram) for c in usable if c.lang}
    kept: list[Candidate] = []
    verdicts: dict[str, Candidate] = {}
    for candidate in sorted(usable, key=lambda c: (-(c.characters or 0), c.file)):
        verdict = candidate
        for other in kept:
            if other.lang != candidate.lang or other.category != candidate.category:
                continue
            share = shared_share(grams[candidate.file], grams[other.file])
            same_page = other.page == candidate.page
            if share > (recipe.page_overlap if same_page else recipe.category_overlap):
                reason: Reason = "same_page_duplicate" if same_page else "same_category_duplicate"
                verdict = candidate.dropped(reason, f"shares {share:.2f} of its n-grams with {other.file}")
                break
        if not verdict.reason:
            kept.append(candidate)
        verdicts[candidate.file] = verdict
    return [verdicts.get(candidate.file, candidate) for candidate in candidates]


# ---- one page --------------------------------------------------------------------------------------------------------


def _read_page(shared: _Shared, item: tuple[Page, str]) -> tuple[dict[str, Any], dict[str, bytes]]:
    """What one page gives: its record for `readings/`, and the PNG files of its crops by name."""
    page, stem = item
    record: dict[str, Any] = {"page": page.file, "problem": "", "candidates": []}
    try:
        image_HW3 = decode_image(Path(shared.pages) / page.file, int(shared.recipe.max_megapixels * 1e6))
    except ImageProblem as problem:
        return record | {"problem": str(problem)}, {}
    blocks = page.blocks
    if blocks is None:
        blocks = detect_blocks(open_recognizer(shared.reader), image_HW3)
    elif page.size_px is not None:
        # Annotations may refer to another resolution of the page than the picture at hand.
        height, width = image_HW3.shape[:2]
        blocks = tuple(_scaled(block, width / page.size_px[0], height / page.size_px[1]) for block in blocks)
    pictures: dict[str, bytes] = {}
    for number, block in enumerate(blocks):
        candidate = Candidate(
            file=f"{block.lang or 'xx'}_{stem}_{number:03d}.png",
            lang=block.lang,
            category=page.category,
            page=page.file,
            block_category=block.category,
            block_box_px=tuple(round(v, 2) for v in block.box_px),  # type: ignore[arg-type]
            cell_px=None if block.cell_px is None else round(block.cell_px, 3),
        )
        judged, crops = _judge(candidate, block, blocks, image_HW3, shared)
        record["candidates"].append(asdict(judged))
        pictures |= crops
    return record, pictures


def _judge(
    candidate: Candidate, block: TextBlock, blocks: Sequence[TextBlock], image_HW3: Picture, shared: _Shared
) -> tuple[Candidate, dict[str, bytes]]:
    """The candidate with all that could be measured before a rule dropped it, cheapest rule first; and its crops."""
    recipe = shared.recipe
    candidate = _place(candidate, block, blocks, image_HW3.shape, recipe)
    lang, box, scale = candidate.lang, candidate.crop_box_px, candidate.scale
    if candidate.reason or lang is None or box is None or scale is None:
        return candidate, {}
    crop_HW3 = cut(image_HW3, box, recipe.side_px)
    pictures = {candidate.file: encode_png(crop_HW3)}
    if recipe.large_side_px and scale * recipe.large_side_px / recipe.side_px <= recipe.max_large_enlargement:
        candidate = replace(candidate, large=True)
        large_HW3 = cut(image_HW3, box, recipe.large_side_px)
        pictures[_large_name(candidate.file)] = encode_png(large_HW3)
    blank, sharp = blank_share(crop_HW3), sharpness(crop_HW3)
    candidate = replace(
        candidate, blank_share=round(blank, 4), sharpness=round(sharp, 4) if math.isfinite(sharp) else None
    )
    if blank > recipe.max_blank_share:
        return candidate.dropped("blank", f"{blank:.2f} of its tiles hold nothing"), pictures
    if not sharp >= recipe.min_sharpness:
        return candidate.dropped("blurred", f"sharpness {sharp:.2f}, below {recipe.min_sharpness:g}"), pictures
    lines = open_recognizer(shared.reader).read_page(crop_HW3)
    counts = [count_characters(line.text) for line in lines]
    characters = sum(counts)
    score = sum(line.score * count for line, count in zip(lines, counts, strict=True)) / max(1, characters)
    candidate = replace(
        candidate, characters=characters, score=round(score, 4), text="\n".join(line.text for line in lines)
    )
    fewest, most = recipe.rule(lang).characters
    if characters < fewest:
        return candidate.dropped("too_few_characters", f"{characters}, below {fewest}"), pictures
    if characters > most:
        return candidate.dropped("too_many_characters", f"{characters}, above {most}"), pictures
    if score < recipe.min_score:
        return candidate.dropped("unsure_reading", f"mean score {score:.2f}, below {recipe.min_score:g}"), pictures
    return candidate, pictures


def _place(
    candidate: Candidate,
    block: TextBlock,
    blocks: Sequence[TextBlock],
    page_shape: tuple[int, ...],
    recipe: TokenBenchRecipe,
) -> Candidate:
    """Where the crop of a block lies on its page, or why there is none."""
    if block.category not in recipe.categories:
        return candidate.dropped("other_category", block.category)
    if block.ignored:
        return candidate.dropped("ignored")
    if block.turned:
        return candidate.dropped("turned")
    if block.lines is not None and block.lines < recipe.min_lines:
        return candidate.dropped("too_few_lines", f"{block.lines}, below {recipe.min_lines}")
    if block.cell_px is None:
        return candidate.dropped("unknown_size")
    if block.lang is None:
        return candidate.dropped("other_language", "neither Chinese nor English, or without a letter")
    rule = recipe.rule(block.lang)
    scale = rule.cell_px / block.cell_px
    side = recipe.side_px / scale
    left, top = max(0.0, block.box_px[0]), max(0.0, block.box_px[1])
    box: Box = (left, top, left + side, top + side)
    expected = round(sum(_cells_inside(other, box) for other in blocks))
    candidate = replace(
        candidate,
        scale=round(scale, 4),
        crop_box_px=tuple(round(v, 2) for v in box),  # type: ignore[arg-type]
        expected_characters=expected,
    )
    if scale > recipe.max_enlargement:
        return candidate.dropped("enlarged", f"by {scale:.2f}, above {recipe.max_enlargement:g}")
    height, width = page_shape[:2]
    if box[2] > width or box[3] > height:
        return candidate.dropped(
            "beyond_page", f"needs {box[2]:.0f} x {box[3]:.0f} px, the page has {width} x {height}"
        )
    # Half: areas of annotated blocks tell the number of characters to a third or so, and reading decides.
    if expected < rule.characters[0] / 2:
        return candidate.dropped("expected_too_few", f"about {expected}, half of {rule.characters[0]} is needed")
    return candidate


def _cells_inside(block: TextBlock, box: Box) -> float:
    """How many character cells of a block lie in `box`."""
    if block.cell_px is None:
        return 0.0
    width = min(block.box_px[2], box[2]) - max(block.box_px[0], box[0])
    height = min(block.box_px[3], box[3]) - max(block.box_px[1], box[1])
    return max(0.0, width) * max(0.0, height) / block.cell_px**2


def cut(image_HW3: Picture, box_px: Box, side_px: int) -> Picture:
    """The region of a page as a square of `side_px`, uint8 sRGB, antialiased (Lanczos, corners at fractions of px)."""
    resized = Image.fromarray(image_HW3).resize((side_px, side_px), Image.Resampling.LANCZOS, box=box_px)
    return np.asarray(resized)


def _scaled(block: TextBlock, x: float, y: float) -> TextBlock:
    left, top, right, bottom = block.box_px
    cell = None if block.cell_px is None else block.cell_px * math.sqrt(x * y)
    return replace(block, box_px=(left * x, top * y, right * x, bottom * y), cell_px=cell)


# ---- files -----------------------------------------------------------------------------------------------------------


def _list_pages(pages: Path, annotations: Path | None) -> list[Page]:
    if not pages.is_dir():
        raise BadInput(f"{pages}: is no folder of page pictures")
    if annotations is None:
        files = find_files([str(pages)], SUFFIXES)
        if not files:
            raise BadInput(f"{pages}: holds no picture ({', '.join(sorted(SUFFIXES))})")
        inside = [path.relative_to(pages).as_posix() for path in files]
        return [
            Page(file=name, category=name.split("/")[0] if "/" in name else "page", size_px=None, blocks=None)
            for name in inside
        ]
    listed = read_annotations(annotations)
    root = pages.resolve()
    for page in listed:
        if not (root / page.file).resolve().is_relative_to(root):
            raise BadInput(f"{annotations}: image_path {page.file!r} lies outside {pages}")
    repeated = [name for name, count in Counter(page.file for page in listed).items() if count > 1]
    if repeated:
        raise BadInput(f"{annotations}: {repeated[0]!r} has several entries; a page needs one")
    if not any((root / page.file).is_file() for page in listed):
        raise BadInput(
            f"{annotations}: none of its {len(listed)} pages lies in {pages} (the first: {listed[0].file!r})"
        )
    return listed


def _unique_stems(listed: Sequence[Page]) -> list[str]:
    """A file name for each page: its own, without what a file system or a shell dislikes; numbered when taken."""
    taken: Counter[str] = Counter()
    stems = []
    for page in listed:
        stem = re.sub(r"[^\w.-]+", "_", page.file.rpartition(".")[0] or page.file).strip("._")[-60:] or "page"
        taken[stem.lower()] += 1
        stems.append(stem if taken[stem.lower()] == 1 else f"{stem}~{taken[stem.lower()]}")
    return stems


def _page_key(page: Page, pages: Path) -> str:
    """Hash of a page's picture and annotations: what its record was made from."""
    path = pages / page.file
    try:
        with path.open("rb") as file:
            picture = hashlib.file_digest(file, "sha256").hexdigest()
    except OSError:
        picture = "missing"
    return hashlib.sha256(f"{picture} {page!r}".encode()).hexdigest()[:32]


def _is_read(store: Folder, page: Page, stem: str, pages: Path) -> bool:
    path = f"readings/{stem}.json"
    if not store.exists(path):
        return False
    try:
        return bool(json.loads(store.read(path))["key"] == _page_key(page, pages))
    except (ValueError, KeyError):
        return False


def _claim(store: Folder, key: str, recipe: TokenBenchRecipe) -> None:
    """The folder belongs to one recipe and one way of finding blocks. Raises BadInput when it is another's."""
    if store.exists("build.json"):
        other = json.loads(store.read("build.json"))["key"]
        if other != key:
            raise BadInput(
                f"{store.place}: holds a benchmark made otherwise ({other}, this is {key}); name another folder"
            )
        return
    versions = library_versions(["rapidocr", "onnxruntime", "pillow", "numpy", "opencv-python"])
    store.publish("recipe.yaml", recipe_to_yaml(recipe).encode())
    store.publish("build.json", _to_json({"key": key, "recipe": recipe.model_dump(mode="json"), "versions": versions}))


def _read_claim(store: Folder) -> tuple[TokenBenchRecipe, list[str]]:
    if not (store.exists("build.json") and store.exists("pages.json")):
        raise BadInput(f"{store.place}: holds no finished benchmark; run tokenbench build first")
    recipe = TokenBenchRecipe.model_validate(json.loads(store.read("build.json"))["recipe"])
    return recipe, json.loads(store.read("pages.json"))["pages"]


def _candidate(entry: dict[str, Any]) -> Candidate:
    """Back from JSON, where tuples are lists."""
    boxes = {name: entry[name] and tuple(entry[name]) for name in ("block_box_px", "crop_box_px")}
    return Candidate(**(entry | boxes))


def _decided(candidate: Candidate, decision: dict[str, str] | None) -> Candidate:
    """A human's word stands above every rule, as long as there is a crop."""
    if decision is None or candidate.characters is None:
        return candidate
    if decision["decision"] == "drop":
        return candidate.dropped("human_dropped", decision.get("why", ""))
    return replace(candidate, reason="", detail=f"kept by hand, was {candidate.reason}" if candidate.reason else "")


def _lay_out(out: Path, kept: Sequence[Candidate], recipe: TokenBenchRecipe) -> None:
    """`images/` and its large twin hold the kept crops and nothing else."""
    folders = [("images", [(c.file, c.file) for c in kept])]
    if recipe.large_side_px:
        folders.append((f"images_{recipe.large_side_px}", [(c.file, _large_name(c.file)) for c in kept if c.large]))
    try:
        for name, files in folders:
            folder = out / name
            folder.mkdir(parents=True, exist_ok=True)
            wanted = {file for file, _ in files}
            for stale in [path for path in folder.iterdir() if path.name not in wanted]:
                stale.unlink()
            for file, source in files:
                if not (folder / file).is_file():
                    shutil.copyfile(out / "candidates" / source, folder / file)
    except OSError as error:
        raise BadInput(f"{out}: cannot be written ({error.strerror})") from None


def _large_name(file: str) -> str:
    return f"{file.removesuffix('.png')}.large.png"


def _to_json(value: object) -> bytes:
    return (json.dumps(value, ensure_ascii=False, indent=1) + "\n").encode()
