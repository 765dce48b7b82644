"""`glyphmill demo`: the whole chain on embedded defaults, from fonts inside wheels to one report page.

Every stage leaves a finished folder and is only read when the demo runs again; a stage that was cut off goes on.
"""

import json
import os
import sys
import tarfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from itertools import count
from pathlib import Path

import numpy as np
from pydantic import TypeAdapter
from rich.console import Console

from datagen.criteria import FilterRecipe
from datagen.execute import Executor
from datagen.filter import filter_corpus
from datagen.generate import generate
from datagen.ingest import RealPlace
from datagen.ocr import open_recognizer
from datagen.plan import GenerateRecipe
from datagen.progress import Bars, show_progress
from datagen.recipes import find_recipe, load_recipe, recipe_hash, recipe_to_yaml
from fonts_manifest.manifest import load_manifest, save_manifest
from fonts_manifest.scan import scan_fonts
from vae.evaluate import Codec, Pictures, Row, bare_skip, evaluate, network, reconstruct
from vae.feed import open_source
from vae.recipes import TrainRecipe, training_hash
from vae.report import Comparison, write_demo_report
from vae.saved import load_model
from vae.source import held_out_pictures
from vae.train import train

_PACKAGES = Path(__file__).parents[1]
_RECIPES = (_PACKAGES / "datagen" / "bundled", _PACKAGES / "vae" / "bundled")

DOCUMENTS = {
    "GeoBase_NHNC1_Data_Model_UML_EN.pdf": "Crown copyright (Natural Resources Canada), distributed with pypdf",
    "Seige_of_Vicksburg_Sample_OCR.pdf": "public domain (book of the 19th century), distributed with pypdf",
    "SF424_page2.pdf": "public domain (U.S. government form), distributed with pypdf",
}
"""Real documents that `make setup` brings, and their licences."""

_MAX_DOCUMENT_BYTES = 20 << 20

EVALUATED = {"synthetic": 18, "real text": 12, "photographs": 8}
"""Held-out crops of each source of the bundled recipe."""

BASELINE = "untrained linear skip"

SHOWN = 6
"""Of them, how many the report shows."""


def run_demo(out: Path, *, executor: Executor = "ray", console: Console | None = None) -> Path:
    """Run every stage that is not finished; returns the report's path. Raises BadInput as the stages do."""
    console = console or Console(stderr=True)
    out.mkdir(parents=True, exist_ok=True)
    clock = _Clock(out / "timings.json", console)
    with show_progress(console) as bars:
        with clock.stage("1 fonts: faces, coverage, licences"):
            synthetic = load_recipe(find_recipe("demo-generate", _RECIPES), GenerateRecipe)
            fonts = out / "fonts.json"
            if not fonts.is_file():
                manifest, left_out = scan_fonts(synthetic.fonts.all_places())
                save_manifest(manifest, fonts)
                console.print(f"  {len(manifest.faces)} faces, {len(left_out)} left out with a reason", highlight=False)
        with clock.stage("2 pictures: drawn through Ray, judged with OCR, written as Parquet"):
            generate(
                synthetic,
                recipe_hash(synthetic),
                recipe_to_yaml(synthetic),
                str(out / "synthetic"),
                executor=executor,
                manifest=load_manifest(fonts),
                progress=bars,
            )
        with clock.stage("3 real pictures and pages: filtered by character density"):
            _filter_real(out, executor, bars, console)
        with clock.stage("4 training: a small GSC VAE on the mixture"):
            recipe = _train_recipe(out)
            train(recipe, training_hash(recipe), out / "vae", recipe_yaml=recipe_to_yaml(recipe), progress=bars)
        with clock.stage("5 evaluation: held-out pictures, beside the untrained linear skip"):
            rows, comparisons = _evaluate(out, recipe, bars)
        with clock.stage("6 report"):
            write_demo_report(out, rows, comparisons, clock.seconds)
    console.print(f"finished; look at {out / 'report.html'}", highlight=False)
    return out / "report.html"


class _Clock:
    """Prints the stages and remembers how long each took, over all sittings."""

    def __init__(self, path: Path, console: Console) -> None:
        self._path = path
        self._console = console
        self.seconds: dict[str, float] = json.loads(path.read_text()) if path.is_file() else {}

    @contextmanager
    def stage(self, name: str) -> Iterator[None]:
        self._console.print(name, style="bold", highlight=False)
        began = time.perf_counter()
        try:
            yield
        finally:
            self.seconds[name] = self.seconds.get(name, 0.0) + time.perf_counter() - began
            unfinished = self._path.with_suffix(".part")
            unfinished.write_text(json.dumps(self.seconds, indent=1))
            os.replace(unfinished, self._path)


def unpack_documents(archive: Path, out: Path) -> list[RealPlace]:
    """The DOCUMENTS inside a source distribution as places for the filter; what is missing is left out.

    Only members of those names that are plain files of at most 20 MiB are read; nothing else is written.
    """
    places = []
    out.mkdir(parents=True, exist_ok=True)
    with tarfile.open(archive, "r:gz") as tar:
        for member in tar:
            name = Path(member.name).name
            if name not in DOCUMENTS or not member.isfile() or member.size > _MAX_DOCUMENT_BYTES:
                continue
            content = tar.extractfile(member)
            if content is not None:
                (out / name).write_bytes(content.read())
                places.append(RealPlace(place=str(out / name), licence=DOCUMENTS[name]))
    return sorted(places, key=lambda place: place.place)


def _filter_real(out: Path, executor: Executor, bars: Bars, console: Console) -> None:
    recipe = load_recipe(find_recipe("demo-filter", _RECIPES), FilterRecipe)
    archives = sorted((Path(sys.prefix) / "share" / "glyphmill").glob("pypdf-*.tar.gz"))
    if archives:
        places = (*recipe.input.places, *unpack_documents(archives[-1], out / "documents"))
        recipe = recipe.model_copy(update={"input": recipe.input.model_copy(update={"places": places})})
    else:
        console.print("  no PDF documents (`make setup` brings them): the pages inside wheels only", highlight=False)
    filter_corpus(
        recipe,
        recipe_hash(recipe),
        str(out / "real"),
        executor=executor,
        recipe_yaml=recipe_to_yaml(recipe),
        progress=bars,
    )


def _train_recipe(out: Path) -> TrainRecipe:
    """The bundled recipe, its sources taken from this demo's folders."""
    recipe = load_recipe(find_recipe("demo-train", _RECIPES), TrainRecipe)
    sources = tuple(source.model_copy(update={"run": str(out / Path(source.run).name)}) for source in recipe.sources)
    return recipe.model_copy(update={"sources": sources})


def _evaluate(out: Path, recipe: TrainRecipe, bars: Bars) -> tuple[list[Row], list[Comparison]]:
    """Figures of every codec on every set of held-out pictures, and pictures to look at."""
    model = load_model(out / "vae" / "ema")
    sets: dict[str, Pictures] = {}
    for config in recipe.sources:
        source = open_source(config, recipe.crop_px, recipe.hold_out)
        found = held_out_pictures(source, EVALUATED[config.name], recipe.validate_px)
        sets[config.name] = np.stack([image_HW3 for _, image_HW3 in found])
    codecs: dict[str, Codec] = {"trained GSC VAE": network(model), BASELINE: bare_skip(model)}
    saved = out / "evaluation.json"
    if saved.is_file():
        rows = TypeAdapter(list[Row]).validate_json(saved.read_bytes())
    else:
        steps = count(1)
        total = len(codecs) * len(sets)
        bars("evaluate", 0, total, {})
        recognizer = open_recognizer("rapidocr", threads=os.cpu_count() or 1)
        rows = evaluate(
            codecs,
            sets,
            baseline=BASELINE,
            recognizer=recognizer,
            advance=lambda: bars("evaluate", next(steps), total, {}),
        )
        unfinished = saved.with_suffix(".part")
        unfinished.write_bytes(TypeAdapter(list[Row]).dump_json(rows, indent=1))
        os.replace(unfinished, saved)
    comparisons = []
    for name, originals in sets.items():
        shown = originals[:SHOWN]
        outputs = {codec: reconstruct(function, shown) for codec, function in codecs.items()}
        for number, original_HW3 in enumerate(shown):
            by_codec = {codec: output[number] for codec, output in outputs.items()}
            comparisons.append(Comparison(set_name=name, original_HW3=original_HW3, by_codec=by_codec))
    return rows, comparisons
