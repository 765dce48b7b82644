"""How fast rows are made: a stream of distinct pages over faces and sizes, stage by stage, others beside it.

One process, a new one as a worker is, and one thread. Text and photographs are those of a recipe; every page is
another one.
"""

import itertools
import json
import multiprocessing
import os
import pickle
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from contextlib import contextmanager
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Literal

import numpy as np
import numpy.typing as npt
from PIL import ImageFont, features

from datagen.codec import encode_png
from datagen.execute import WORKER_ENVIRONMENT
from datagen.peers import Pillow, draw_timed, ratio_to, ratio_to_skia
from datagen.plan import Address, GeneratePlan, GenerateRecipe, Judgement, make_plan
from datagen.rows import SampledPage, Workshop, to_row
from datagen.seeds import rng_for
from datagen.shards import ShardBuilder
from datagen.verdict import Verdict
from render_engine.atlas import Atlas
from render_engine.compose import draw_glyphs, linear_tables
from render_engine.distribution import PageDistribution, SizeBand
from render_engine.render import Assets, choose, composite, ground, lay_out, render
from render_engine.sample import sample_spec
from render_engine.spec import PageSpec, RenderedPage, RenderError

STAGES = ("sample", "crop", "layout", "ink", "composite", "annotate", "encode", "row", "parquet")
BESIDE = ("sample", "parquet")
"""Before and behind a row: what is drawn, and the file."""
KEEP = Judgement(verdict=Verdict(keep=True), judged_by="none")
MISSES_WHEN_WARM = 0.005
"""Share of glyphs that are new to the atlas, below which caches count as warm."""
WARM_UP_PAGES = 200
"""Pages between two looks at that share."""
ROWS_PER_SHARD = 100


LEAST_GLYPHS, MEAN_GLYPHS = 1000, 1200
"""What a page of 512 px holds at least, and in the mean at most, whose row is timed; four times as much of 1024 px."""


@dataclass(frozen=True, slots=True, kw_only=True)
class RowFigures:
    """Rows of some pages of a stream."""

    pages: int
    glyphs: float
    """Mean visible glyphs a page."""
    least_glyphs: int
    rows_per_s: float
    """Pages made ready for Parquet: crop, text, boxes, PNG, row. Without choosing what is drawn."""
    rows_per_s_with_sampling: float
    """The same with the choice of text, faces, sizes and colours before and the Parquet file behind."""
    stage_ms: dict[str, float]
    """Mean milliseconds a page of `STAGES`; the file's are those of the whole stream."""


@dataclass(frozen=True, slots=True, kw_only=True)
class RenderFigures:
    """What `glyphmill bench render --json` prints. One process, one thread, CPU time."""

    text_glyphs_per_s: float
    """Visible glyphs laid out, painted, composed and annotated a second on 512 px pages, steady state."""
    rows_per_s_512: float
    """Of `usual_512`."""
    rows_per_s_1024: float
    """Of `usual_1024`."""
    usual_512: RowFigures
    """Pages of 1,000 glyphs and more: of those in the stream the sparsest, as many as have 1,200 in the mean."""
    dense_512: RowFigures
    """All pages of the stream."""
    usual_1024: RowFigures
    """The same density: pages of 4,000 glyphs and more, 4,800 in the mean."""
    dense_1024: RowFigures
    rows_per_s_complex: float
    """Structured pages of 512 x 512, from crop to PNG."""
    rows_per_s_compositional: float
    """Text on things inside photographs, 512 x 512, from crop to PNG."""
    ratio_to_pillow: float
    """Time of Pillow's ImageDraw for the same lines at the same places over that of our layout and compositing, in
    `pillow_layout`: what Pillow takes unless told otherwise."""
    ratio_to_pillow_text_stage: float
    """The same over our whole text stage: grounds measured, inks chosen and lines annotated too, as Pillow does not."""
    pillow_layout: Literal["raqm", "basic"]
    """raqm: shaped by HarfBuzz, kerned and with ligatures as our page is; basic: where Pillow was built without it."""
    ratio_to_pillow_basic: float
    """`ratio_to_pillow` with Pillow's basic layout: the `kern` table alone, no ligatures."""
    ratio_to_skia: float | None
    """The same for skia-python's drawString; null where it is not installed."""
    rss_mb: float
    """Peak resident memory of a process in a worker's environment up to its last row of 512 px, atlas, texts and
    photographs in it."""
    first_page_s: float
    """From the start of a new Python process to its first row of 512 px, compiled code in numba's cache: texts opened
    and read, the page chosen, drawn and encoded."""
    cold_glyphs_per_s: float
    """The text stage of the first pages of a process, whose glyphs are all new to it."""
    warm_up_pages: int
    """Pages whose glyphs the process knew before `text_glyphs_per_s` was measured."""
    new_glyphs: float
    """Share of the glyphs of the measured pages that had to be rasterised."""
    faces: int
    sizes: int
    floor_ms_512: float
    """What cannot be left out of `dense_512`: the crop, one pass over the glyphs' pixels, the PNG."""
    dropped: int
    """Pages that ended in a RenderError."""


def dense_pages(pages: PageDistribution, side_px: int) -> PageDistribution:
    """The recipe's pages at one size, full of text: over 1,000 glyphs on 512 px, every whole size from 5 to 20."""
    changes = {
        "page_sizes_px": ((side_px, side_px),),
        "size_bands": (
            SizeBand(low_px=5, high_px=7, weight=0.1),
            SizeBand(low_px=8, high_px=12, weight=0.5),
            SizeBand(low_px=13, high_px=20, weight=0.4),
        ),
        "difficulty": None,
        "size_step_px": 1.0,
        "families": {"background": 1.0},
        "effects": {"none": 1.0},
        "layouts": {"columns": 0.6, "list": 0.2, "mosaic": 0.2},
    }
    return pages.model_copy(update=changes)


@dataclass(frozen=True, slots=True, kw_only=True)
class Measured:
    """CPU seconds and glyphs of pages of a stream."""

    numbers: list[int]
    """Of the pages, whose specs no worker would keep: `Stream.spec` makes them again."""
    glyphs_P: npt.NDArray[np.int64]
    seconds_PS: npt.NDArray[np.float64]
    """(pages, `STAGES`)."""
    dropped: int
    """Pages that ended in a RenderError beside them."""

    def seconds(self, *stages: str) -> float:
        """Of all pages."""
        return float(self.seconds_PS[:, [STAGES.index(stage) for stage in stages]].sum())

    def usual(self, least: int, mean: int) -> npt.NDArray[np.int64]:
        """Of the pages with `least` glyphs and more the sparsest, as many as have `mean` in the mean; one at least."""
        order = np.argsort(self.glyphs_P, kind="stable")
        order = order[np.searchsorted(self.glyphs_P[order], min(least, self.glyphs_P.max())) :]
        means = np.cumsum(self.glyphs_P[order]) / np.arange(1, len(order) + 1)
        return order[: max(1, int(np.searchsorted(means, mean, side="right")))]

    def rows(self, pages: npt.NDArray[np.int64] | slice = slice(None)) -> RowFigures:
        """Figures of some pages, all by default."""
        glyphs_P = self.glyphs_P[pages]
        seconds = self.seconds_PS[pages].mean(axis=0)
        # Whichever page fills a row group bears the time of its writing.
        seconds[STAGES.index("parquet")] = self.seconds("parquet") / len(self.numbers)
        stage_s = dict(zip(STAGES, seconds.tolist(), strict=True))
        return RowFigures(
            pages=len(glyphs_P),
            glyphs=float(glyphs_P.mean()),
            least_glyphs=int(glyphs_P.min()),
            rows_per_s=1 / sum(stage_s[stage] for stage in STAGES if stage not in BESIDE),
            rows_per_s_with_sampling=1 / sum(stage_s.values()),
            stage_ms={stage: 1000 * stage_s[stage] for stage in STAGES},
        )


class Stream:
    """Distinct pages of a plan, one after the other, and what each stage took."""

    def __init__(self, plan: GeneratePlan, pages: PageDistribution) -> None:
        self.plan, self.pages = plan, pages
        self.workshop = Workshop(plan)
        self.licences = {photo.photo_id: photo.licence for photo in plan.photos.photos}
        self.drawn = 0

    def specs(self, count: int) -> Iterator[PageSpec]:
        """The next `count` pages, over all faces of the plan, one at a time as a worker has them."""
        for _ in range(count):
            self.drawn += 1
            yield self.spec(self.drawn - 1)

    def spec(self, number: int) -> PageSpec:
        """The page of this number."""
        workshop, plan = self.workshop, self.plan
        rng = rng_for(plan.seed, 0, number, 0)
        return sample_spec(rng, self.pages, plan.manifest.faces, workshop.corpus, plan.photos.photos)

    def warm_up(self, most_pages: int) -> tuple[int, float]:
        """Lay out pages until next to no glyph is new: how many; glyphs a second of the first, drawn as well."""
        assets, atlas = self.workshop.assets, self.workshop.assets.atlas
        pages, cold = 0, 0.0
        while pages < most_pages:
            known, glyphs, seconds = atlas.rasterised, 0, 0.0
            for spec in self.specs(min(WARM_UP_PAGES, most_pages - pages)):
                image_HW3 = ground(spec, assets) if pages == 0 else None
                start = time.process_time()
                try:
                    scratch = lay_out(spec, assets)
                    if image_HW3 is not None:
                        composite(spec, assets, choose(spec, assets, scratch, image_HW3), image_HW3)
                except RenderError:
                    continue
                seconds += time.process_time() - start
                glyphs += scratch.glyph_count
            pages += WARM_UP_PAGES
            self.workshop.rest()
            cold = cold or glyphs / seconds
            if atlas.rasterised - known < MISSES_WHEN_WARM * glyphs:
                break
        return pages, cold

    def measure(self, count: int) -> Measured:
        """CPU seconds of every stage over the next `count` pages."""
        seconds, glyphs, numbers, builder = [], [], [], ShardBuilder(self.plan.schema)
        self.workshop.rest()
        for number in range(self.drawn, self.drawn + count):
            marks = [time.process_time()]
            spec = self.spec(number)
            marks.append(time.process_time())
            try:
                glyphs.append(self._row(spec, number, builder, marks))
            except RenderError:
                continue
            numbers.append(number)
            if builder.rows == ROWS_PER_SHARD or number == self.drawn + count - 1:
                builder.finish()
                builder = ShardBuilder(self.plan.schema)
                self.workshop.rest()
                marks[-1] = time.process_time()
            seconds.append(np.diff(marks))
        self.drawn += count
        return Measured(
            numbers=numbers,
            glyphs_P=np.array(glyphs, np.int64),
            seconds_PS=np.array(seconds),
            dropped=count - len(numbers),
        )

    def _row(self, spec: PageSpec, number: int, builder: ShardBuilder, marks: list[float]) -> int:
        assets = self.workshop.assets
        image_HW3 = ground(spec, assets)
        marks.append(time.process_time())
        page = RenderedPage(image_HW3=image_HW3, lines=draw_timed(spec, assets, image_HW3, marks))
        png = encode_png(image_HW3)
        marks.append(time.process_time())
        sampled = SampledPage(address=Address(0, number), spec=spec, page=page)
        row = to_row(self.plan, sampled, KEEP, self.licences, png)
        marks.append(time.process_time())
        builder.add(row)
        marks.append(time.process_time())
        return assets.scratch.glyph_count


def bench_render(recipe: GenerateRecipe, *, pages: int = 400, warm_up_pages: int = 40_000) -> RenderFigures:
    """Figures for the recipe's faces, photographs and texts: `pages` pages of 512 px, a quarter as many of 1024.

    Raises BadInput when something that the recipe names is missing.
    """
    plan = make_plan(recipe, "", "")
    with _environment_of_a_worker(), ProcessPoolExecutor(1, multiprocessing.get_context("spawn")) as worker:
        return worker.submit(_measure, plan, pages, warm_up_pages).result()


@contextmanager
def _environment_of_a_worker() -> Iterator[None]:
    """For processes that are started as long as the context lasts."""
    before = os.environ.copy()
    os.environ |= WORKER_ENVIRONMENT
    try:
        yield
    finally:
        os.environ.clear()
        os.environ |= before


def _measure(plan: GeneratePlan, pages: int, warm_up_pages: int) -> RenderFigures:
    small = Stream(plan, dense_pages(plan.pages, 512))
    assets = small.workshop.assets
    warmed, cold = small.warm_up(warm_up_pages)
    known = assets.atlas.rasterised
    of_512 = small.measure(pages)
    glyphs = int(of_512.glyphs_P.sum())
    new_glyphs = (assets.atlas.rasterised - known) / glyphs
    rss_mb = _peak_resident_mb()
    specs = [small.spec(number) for number in of_512.numbers]
    large = Stream(plan, dense_pages(plan.pages, 1024))
    large.workshop.assets = assets
    large.warm_up(WARM_UP_PAGES)
    of_1024 = large.measure(max(8, pages // 4))
    peers = specs[: max(8, pages // 4)]
    layout = ImageFont.Layout.RAQM if features.check("raqm") else ImageFont.Layout.BASIC
    pillow, skia = ratio_to(Pillow(assets, layout), peers, assets), ratio_to_skia(peers, assets)
    usual_512 = of_512.rows(of_512.usual(LEAST_GLYPHS, MEAN_GLYPHS))
    usual_1024 = of_1024.rows(of_1024.usual(4 * LEAST_GLYPHS, 4 * MEAN_GLYPHS))
    return RenderFigures(
        text_glyphs_per_s=glyphs / of_512.seconds("layout", "ink", "composite", "annotate"),
        rows_per_s_512=usual_512.rows_per_s,
        rows_per_s_1024=usual_1024.rows_per_s,
        usual_512=usual_512,
        dense_512=of_512.rows(),
        usual_1024=usual_1024,
        dense_1024=of_1024.rows(),
        rows_per_s_complex=_family_rows_per_s(plan, assets, "complex", max(8, pages // 4)),
        rows_per_s_compositional=_family_rows_per_s(plan, assets, "compositional", max(8, pages // 4)),
        ratio_to_pillow=pillow.drawing,
        ratio_to_pillow_text_stage=pillow.text_stage,
        pillow_layout="raqm" if layout == ImageFont.Layout.RAQM else "basic",
        ratio_to_pillow_basic=ratio_to(Pillow(assets, ImageFont.Layout.BASIC), peers, assets).drawing,
        ratio_to_skia=None if skia is None else skia.drawing,
        rss_mb=rss_mb,
        first_page_s=_first_page_s(replace(plan, pages=small.pages)),
        cold_glyphs_per_s=cold,
        warm_up_pages=warmed,
        new_glyphs=new_glyphs,
        faces=len({face_id for spec in specs for block in spec.blocks for face_id in block.face_ids[:1]}),
        sizes=len({block.size_px for spec in specs for block in spec.blocks}),
        floor_ms_512=1000 * of_512.seconds("crop", "encode") / len(specs) + _composing_ms(peers, assets),
        dropped=of_512.dropped + of_1024.dropped,
    )


def _family_rows_per_s(plan: GeneratePlan, assets: Assets, family: str, count: int) -> float:
    """Rows from crop to PNG, in a process that has drawn other pages; the first half warms up."""
    pages = plan.pages.model_copy(update={"page_sizes_px": ((512, 512),), "families": {family: 1.0}, "degraded": 0.0})
    stream = Stream(plan, pages)
    seconds = 0.0
    drawn = 0
    for number, spec in enumerate(stream.specs(2 * count)):
        start = time.process_time()
        try:
            encode_png(render(spec, assets).image_HW3)
        except RenderError:
            continue
        if number >= count:
            seconds += time.process_time() - start
            drawn += 1
    return drawn / seconds


def _composing_ms(specs: Sequence[PageSpec], assets: Assets) -> float:
    """One pass over the pixels of a page's glyphs, in black, nothing measured or chosen."""
    seconds = 0.0
    for spec in specs:
        image_HW3 = ground(spec, assets)
        scratch = lay_out(spec, assets)
        glyphs, lines = scratch.glyph_count, scratch.line_count
        atlas: Atlas = assets.atlas
        inks, opacities = np.zeros((lines, 3), np.uint8), np.full(lines, 255, np.int32)
        start = time.process_time()
        draw_glyphs(
            *(image_HW3, atlas.entries, atlas.pixels, scratch.found, scratch.pens[:glyphs], inks, opacities, False),
            *linear_tables(),
        )
        seconds += time.process_time() - start
    return 1000 * seconds / len(specs)


def _peak_resident_mb() -> float:
    """Of this process alone: ru_maxrss would begin with that of the process it was forked from."""
    peak = next(line for line in Path("/proc/self/status").read_text().splitlines() if line.startswith("VmHWM"))
    return int(peak.split()[1]) / 1024


def _first_page_s(plan: GeneratePlan) -> float:
    """From the start of a new process to the first row of the plan."""
    # As multiprocessing hands a plan to a worker that it starts.
    code = "import pickle, sys; from datagen.bench import draw_first; draw_first(pickle.load(sys.stdin.buffer))"
    pickled = pickle.dumps(plan)
    start = time.time()
    done = subprocess.run([sys.executable, "-c", code], input=pickled, check=True, capture_output=True)
    return float(done.stdout) - start


def draw_first(plan: GeneratePlan) -> None:
    """Make the plan's first row that can be drawn; print when it was ready."""
    workshop = Workshop(plan)
    pages = (workshop.draw(plan, Address(0, row)) for row in itertools.count())
    sampled = next(one for one in pages if one.page is not None)
    to_row(plan, sampled, KEEP, workshop.licences)
    print(time.time())


def as_json(figures: RenderFigures) -> str:
    """One JSON object, figures rounded to three decimals."""
    rounded = json.loads(json.dumps(asdict(figures)), parse_float=lambda text: round(float(text), 3))
    return json.dumps(rounded, indent=1)


def as_text(figures: RenderFigures) -> str:
    """A table for a person."""
    skia = "" if figures.ratio_to_skia is None else f", {figures.ratio_to_skia:.1f} times as fast as skia-python"
    whole = f"{figures.ratio_to_pillow_text_stage:.1f} with grounds, inks and annotations, which Pillow has not"
    pillow = f"{figures.pillow_layout} layout; {whole}; {figures.ratio_to_pillow_basic:.1f} times its basic layout"
    stream = f"{figures.faces} faces, {figures.sizes} sizes, {figures.dense_512.glyphs:,.0f} glyphs a page of 512 x 512"
    cold = f"{figures.cold_glyphs_per_s:,.0f} in a process's first pages"
    lines = [
        f"{stream}; {figures.new_glyphs:.1%} of them new after {figures.warm_up_pages:,} pages",
        f"text stage      {figures.text_glyphs_per_s:12,.0f} glyphs/s ({cold})",
        f"                {figures.ratio_to_pillow:12.1f} times as fast as Pillow ({pillow}){skia}",
        *_row_lines("whole rows", "512 x 512, usual", figures.usual_512),
        *_row_lines("", "512 x 512, the whole stream", figures.dense_512),
        *_row_lines("", "1024 x 1024, usual", figures.usual_1024),
        *_row_lines("", "1024 x 1024, the whole stream", figures.dense_1024),
        f"complex pages   {figures.rows_per_s_complex:12,.0f} /s of 512 x 512",
        f"compositional   {figures.rows_per_s_compositional:12,.0f} /s of 512 x 512",
        f"memory          {figures.rss_mb:12,.0f} MB resident at most",
        f"first page      {figures.first_page_s:12.2f} s after the start of a process, texts read, page chosen",
        f"ms a page       {'512, usual':>12}{'stream':>10}{'1024, usual':>14}{'stream':>10}",
    ]
    columns = (figures.usual_512, figures.dense_512, figures.usual_1024, figures.dense_1024)
    for stage in STAGES:
        each = "".join(
            f"{rows.stage_ms[stage]:{width}.3f}" for rows, width in zip(columns, (12, 10, 14, 10), strict=True)
        )
        lines.append(f"  {stage:14}{each}")
    total = 1000 / figures.dense_512.rows_per_s
    floor = f"a row takes {total / figures.floor_ms_512:.2f} times the crop, one pass over the glyphs and PNG"
    lines.append(f"  {'floor':14}{'':12}{figures.floor_ms_512:10.3f}; {floor}")
    if figures.dropped:
        lines.append(f"  {figures.dropped} pages were dropped with a label")
    return "\n".join(lines)


def _row_lines(label: str, what: str, rows: RowFigures) -> list[str]:
    glyphs = f"{rows.pages} pages of {rows.least_glyphs:,} glyphs and more, {rows.glyphs:,.0f} in the mean"
    sampled = f"{rows.rows_per_s_with_sampling:,.0f} with the choice of what is drawn and the Parquet file"
    return [f"{label:16}{rows.rows_per_s:12,.0f} /s of {what}: {glyphs}", f"{'':28} ({sampled})"]
