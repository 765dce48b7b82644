"""What reading costs: every back end that is there, full OCR and the cascade, beside plain rapidocr in the same run.

One process, one thread, CPU time (of child processes too), turn about page by page, so that a busy machine slows all
alike. The pages stand at addresses that no calibration has seen.
"""

import importlib.util
import json
import os
import shutil
import tempfile
import time
from collections import Counter
from collections.abc import Callable
from dataclasses import asdict, dataclass, replace
from functools import partial
from typing import Any, TypeVar

import numpy as np

from datagen.agreement import clustered_interval, compare
from datagen.audit import TEST_SHARD, CascadeJudge, calibrate_recipe, calibration_of_run, open_judge
from datagen.cascade import Calibration
from datagen.judge import judge_read, read_legibility, read_lines
from datagen.lines import Image, Recognizer
from datagen.ocr import READERS, ned, open_recognizer
from datagen.plan import Address, GeneratePlan, GenerateRecipe, make_plan
from datagen.progress import ProgressReport, silent
from datagen.recipes import recipe_hash, recipe_to_yaml
from datagen.rows import SampledPage, sample_rows
from fonts_manifest.errors import BadInput
from render_engine.render import Assets
from render_engine.spec import RenderedPage

T = TypeVar("T")

_BACKEND_LINES = 16
"""Read by each back end but the judge's own, on the first pages."""
_BACKEND_PAGES = 2


@dataclass(frozen=True, slots=True, kw_only=True)
class BackendFigures:
    """One reader on lines of known place, and on pages whose lines it has to find."""

    lines_per_s: float | None
    pages_per_s: float | None
    mean_ned: float | None
    """Of those lines, not relative to clean print."""
    missing: str = ""
    """Why there are no figures."""


@dataclass(frozen=True, slots=True, kw_only=True)
class OcrFigures:
    """What `glyphmill bench ocr --json` prints. One thread, CPU time."""

    agreement: float
    """Share of the lines that the cascade decides as full OCR does."""
    agreement_low: float
    agreement_high: float
    """95 % interval, lines clustered in pages."""
    keep_all_agreement: float
    """What "keep everything" would agree on."""
    bad_lines_found: float | None
    """Of the lines that full OCR calls illegible, the share that the cascade does too; null without such lines."""
    page_agreement: float
    """The same for whole pages."""
    cost_ratio: float
    """CPU of the cascade over that of full OCR of the same lines at their known places."""
    cost_ratio_with_audit: float
    """The same with the share of pages that the recipe audits."""
    cost_ratio_to_plain: float
    """CPU of the cascade over that of plain `RapidOCR()(image)`."""
    pages_per_s: float
    """Judged by the cascade."""
    full_ocr_pages_per_s: float
    """Judged by reading every line at its known place."""
    plain_pages_per_s: float
    """The baseline: `RapidOCR()(image)`, detection and all, nothing judged."""
    lines_per_s: float
    full_ocr_lines_per_s: float
    pages: int
    lines: int
    lines_read: int
    """By the cascade."""
    calibration: str
    """SHA-256."""
    backends: dict[str, BackendFigures]


def bench_ocr(recipe: GenerateRecipe, *, pages: int, progress: ProgressReport = silent) -> OcrFigures:
    """Measure on `pages` pages of the recipe, with its `judge.calibration`, or one that is made first (minutes)."""
    plan, calibration = _plan_and_calibration(recipe, progress)
    judge = open_judge(plan, calibration)
    judge = replace(judge, config=recipe.judge.model_copy(update={"audit": 0.0}))
    reader, plain = open_recognizer(recipe.judge.recognizer), _plain_rapidocr()
    seconds: Counter[str] = Counter()
    counts: list[tuple[int, int, int, int, int]] = []  # of each page: lines, right, good, bad, bad that were found
    pages_right, lines_read = 0, 0
    drawn = _test_pages(plan, pages)
    assets = Assets(plan.manifest.faces)
    _warm_up(judge, drawn[0], assets, reader, plain)
    for number, sampled in enumerate(drawn):
        progress("bench", number, len(drawn), {})
        page = _page_of(sampled)
        _timed(seconds, "plain", partial(plain, page.image_HW3))
        readings = _timed(seconds, "full", partial(read_lines, reader, page, assets))
        judged = _timed(seconds, "cascade", partial(judge, page, sampled.spec, assets, sampled.address))
        config = judge.config
        truth = [
            read_legibility(reading, line, config) >= config.min_line_ned
            for reading, line in zip(readings, page.lines, strict=True)
        ]
        assert judged.readings is not None and judged.legibility is not None  # noqa: S101, PT018 - a cascade judged it
        decided = [
            chance >= 0.5 if reading is None else read_legibility(reading, line, config) >= config.min_line_ned
            for line, chance, reading in zip(page.lines, judged.legibility, judged.readings, strict=True)
        ]
        found = compare(decided, truth)
        bad = len(truth) - sum(truth)
        counts.append((found.trials, found.same, sum(truth), bad, bad - found.false_keep))
        lines_read += sum(reading is not None for reading in judged.readings)
        pages_right += judged.verdict.keep == judge_read(readings, page, config).keep
    progress("bench", len(drawn), len(drawn), {})
    lines_P, right_P, good_P, bad_P, found_P = np.array(counts, np.float64).T
    low, high = clustered_interval(right_P, lines_P)
    lines, ratio = float(lines_P.sum()), seconds["cascade"] / seconds["full"]
    return OcrFigures(
        agreement=float(right_P.sum()) / lines,
        agreement_low=low,
        agreement_high=high,
        keep_all_agreement=float(good_P.sum()) / lines,
        bad_lines_found=float(found_P.sum() / bad_P.sum()) if bad_P.sum() else None,
        page_agreement=pages_right / len(drawn),
        cost_ratio=ratio,
        cost_ratio_with_audit=ratio + recipe.judge.audit,
        cost_ratio_to_plain=seconds["cascade"] / seconds["plain"],
        pages_per_s=len(drawn) / seconds["cascade"],
        full_ocr_pages_per_s=len(drawn) / seconds["full"],
        plain_pages_per_s=len(drawn) / seconds["plain"],
        lines_per_s=lines / seconds["cascade"],
        full_ocr_lines_per_s=lines / seconds["full"],
        pages=len(drawn),
        lines=int(lines),
        lines_read=lines_read,
        calibration=calibration.digest,
        backends={name: _backend(name, drawn[:_BACKEND_PAGES]) for name in READERS},
    )


def _plan_and_calibration(recipe: GenerateRecipe, progress: ProgressReport) -> tuple[GeneratePlan, Calibration]:
    with tempfile.TemporaryDirectory() as folder:
        plan = make_plan(recipe, recipe_hash(recipe), recipe_to_yaml(recipe), folder)
        if recipe.judge.calibration is not None:
            return plan, calibration_of_run(plan)
        return plan, calibrate_recipe(recipe, folder, executor="serial", progress=progress)


def _test_pages(plan: GeneratePlan, pages: int) -> list[SampledPage]:
    """Pages with lines; those that cannot be drawn are passed over."""
    addresses = (Address(TEST_SHARD + number, 0) for number in range(4 * pages))
    found = []
    for sampled in sample_rows(plan, addresses):
        if sampled.page is not None and sampled.page.lines:
            found.append(sampled)
        if len(found) == pages:
            return found
    raise BadInput("bench ocr: hardly a page of this recipe has text on it")


def _page_of(sampled: SampledPage) -> RenderedPage:
    assert sampled.page is not None  # noqa: S101 - `_test_pages` passes over the others
    return sampled.page


def _plain_rapidocr() -> Callable[[Image], Any]:
    """The library as its manual shows it, on one thread."""
    from rapidocr import RapidOCR

    threads = {f"EngineConfig.onnxruntime.{kind}_op_num_threads": 1 for kind in ("intra", "inter")}
    engine = RapidOCR(params={"Global.log_level": "critical", **threads})
    return lambda image_HW3: engine(np.ascontiguousarray(image_HW3[:, :, ::-1]))


def _warm_up(
    judge: CascadeJudge, sampled: SampledPage, assets: Assets, reader: Recognizer, plain: Callable[[Image], Any]
) -> None:
    """Compiled code, open networks and glyphs are no cost of a long run."""
    page = _page_of(sampled)
    plain(page.image_HW3)
    reader.read_lines(page.image_HW3, [page.lines[0].quad_px])
    judge(page, sampled.spec, assets, sampled.address)


def _backend(name: str, drawn: list[SampledPage]) -> BackendFigures:
    """One reader on a few lines and pages; one that is missing, or gives no answer, says why."""
    if name == "tesseract" and shutil.which("tesseract") is None:
        return BackendFigures(lines_per_s=None, pages_per_s=None, mean_ned=None, missing="no program of that name")
    if name == "torch" and importlib.util.find_spec("torch") is None:
        return BackendFigures(lines_per_s=None, pages_per_s=None, mean_ned=None, missing="torch is not installed")
    try:
        return _measure_backend(open_recognizer(name), drawn)
    except BadInput as error:
        return BackendFigures(lines_per_s=None, pages_per_s=None, mean_ned=None, missing=str(error))


def _measure_backend(reader: Recognizer, drawn: list[SampledPage]) -> BackendFigures:
    seconds: Counter[str] = Counter()
    page = _page_of(drawn[0])
    lines = page.lines[:_BACKEND_LINES]
    reader.read_lines(page.image_HW3, [lines[0].quad_px])
    read = _timed(seconds, "lines", lambda: reader.read_lines(page.image_HW3, [line.quad_px for line in lines]))
    for sampled in drawn:
        image_HW3 = _page_of(sampled).image_HW3
        _timed(seconds, "pages", partial(reader.read_page, image_HW3))
    return BackendFigures(
        lines_per_s=len(lines) / seconds["lines"],
        pages_per_s=len(drawn) / seconds["pages"],
        mean_ned=float(np.mean([ned(line.text, one.text) for line, one in zip(lines, read, strict=True)])),
    )


def _timed(seconds: Counter[str], name: str, work: Callable[[], T]) -> T:
    before = _cpu_s()
    result = work()
    seconds[name] += _cpu_s() - before  # type: ignore[assignment]  # a Counter of seconds
    return result


def _cpu_s() -> float:
    """CPU time of this process and of the children that have ended."""
    times = os.times()
    return time.process_time() + times.children_user + times.children_system


def as_json(figures: OcrFigures) -> str:
    """One JSON object."""
    return json.dumps(asdict(figures))


def as_text(figures: OcrFigures) -> str:
    """The figures as lines for a terminal."""
    f = figures
    found = "" if f.bad_lines_found is None else f"; {f.bad_lines_found:.0%} of the illegible lines found"
    lines = [
        f"{f.pages} pages, {f.lines:,} lines, of which the cascade read {f.lines_read:,}",
        f"decided as by full OCR: {f.agreement:.4f} of the lines [{f.agreement_low:.3f}, {f.agreement_high:.3f}]",
        f"  and {f.page_agreement:.3f} of the pages",
        f'"keep everything" agrees on {f.keep_all_agreement:.4f}{found}',
        f"cost: {f.cost_ratio:.3f} of full OCR ({f.cost_ratio_with_audit:.3f} with the audit)",
        f"  and {f.cost_ratio_to_plain:.3f} of plain RapidOCR",
        "",
        f"{'':22} {'pages/s':>8} {'lines/s':>8}",
        f"{'cascade':22} {f.pages_per_s:8.2f} {f.lines_per_s:8.1f}",
        f"{'full OCR, known lines':22} {f.full_ocr_pages_per_s:8.2f} {f.full_ocr_lines_per_s:8.1f}",
        f"{'plain RapidOCR()':22} {f.plain_pages_per_s:8.2f}",
    ]
    for name, backend in f.backends.items():
        if backend.lines_per_s is None or backend.pages_per_s is None or backend.mean_ned is None:
            lines.append(f"{name:22} not measured: {backend.missing}")
        else:
            speed = f"{backend.pages_per_s:8.2f} {backend.lines_per_s:8.1f}"
            lines.append(f"{name:22} {speed}   NED {backend.mean_ned:.3f}")
    return "\n".join(lines)
