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
import re
import shutil
from collections import Counter
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path

from datagen.decode import SUFFIXES
from datagen.execute import Executor, run_tasks
from datagen.progress import ProgressReport, silent
from datagen.recipes import library_versions, recipe_hash, recipe_to_yaml
from datagen.storage import Folder
from fonts_manifest.errors import BadInput
from fonts_manifest.places import find_files
from vae.candidates import Candidate, TokenBenchRecipe, drop_duplicates
from vae.textblocks import Page, read_annotations
from vae.textcrops import PageTask, crop_page, large_name

CANDIDATES, BENCHMARK, DECISIONS = "candidates.json", "benchmark.json", "decisions.json"


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
    shared = PageTask(recipe=recipe, pages=str(pages.absolute()), reader=reader)
    stems = _unique_stems(listed)
    missing = [(page, stem) for page, stem in zip(listed, stems, strict=True) if not _is_read(store, page, stem, pages)]
    done = len(listed) - len(missing)
    progress("pages", done, len(listed), {})
    found = 0
    for (page, stem), (record, pictures) in run_tasks(crop_page, shared, missing, executor=executor, workers=workers):
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
        candidates += [Candidate.from_dict(entry) for entry in record["candidates"]]
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
    return [Candidate.from_dict(entry) for entry in json.loads(Folder(str(out)).read(CANDIDATES))["candidates"]]


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
        folders.append((f"images_{recipe.large_side_px}", [(c.file, large_name(c.file)) for c in kept if c.large]))
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


def _to_json(value: object) -> bytes:
    return (json.dumps(value, ensure_ascii=False, indent=1) + "\n").encode()
