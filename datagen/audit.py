"""What a run reads by OCR: a sample before it that calibrates the cascade, uncertain lines, and an audit at random."""

import hashlib
from collections.abc import Iterable, Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Unpack

import msgspec
import numpy as np

from datagen.agreement import Agreement, compare
from datagen.cascade import (
    COST,
    Calibration,
    SampledLine,
    calibrate,
    calibration_from_json,
    calibration_to_json,
    check_calibration,
    decide_lines,
)
from datagen.child import Child, ChildDied
from datagen.commit import Judged, committed_shards, start_run
from datagen.execute import Crew, run_tasks
from datagen.judge import (
    JudgeConfig,
    LineReading,
    clean_px,
    is_small,
    is_visible,
    judge_page,
    judge_read,
    page_ned,
    read_legibility,
    read_lines,
    reading_px,
)
from datagen.legibility import line_features
from datagen.line_columns import DrawnLines
from datagen.ocr import open_recognizer
from datagen.plan import Address, GeneratePlan, GenerateRecipe, Judgement, PageAudit, make_plan
from datagen.progress import ProgressReport, silent
from datagen.recipes import recipe_hash, recipe_to_yaml
from datagen.rows import open_workshop
from datagen.seeds import rng_for_page
from datagen.storage import Folder
from datagen.verdict import Verdict
from fonts_manifest.errors import BadInput
from render_engine.render import Assets, render_ink
from render_engine.spec import PageSpec, RenderedLine, RenderedPage

CALIBRATION = "calibration.json"
READINGS = "readings"
"""A file for every few pages that were read for the calibration."""

SAMPLE_SHARD = 1 << 30
"""Pages of the calibration stand at shards from here on, where no run has any: the audit is an honest test."""
TEST_SHARD = SAMPLE_SHARD + (1 << 29)
"""Pages to try a calibration on, in no run and no calibration."""
LINES_A_PAGE = 8
"""Lines of one page resemble each other: eight each of 400 pages teach as much as all of 300 (docs/judge.md)."""
_PAGES_A_CHUNK = 8

JUDGED_COLUMNS = ("keep", "judged_by", "audit", "lines")
"""Of a row: what `judged_of` counts."""

_AUDIT, _SAMPLE = 1, 2  # purposes of rng_for_page


@dataclass(frozen=True, kw_only=True)
class CascadeJudge:
    """The calibrated model decides clear lines, OCR reads uncertain ones, and all lines of audited pages."""

    calibration: Calibration
    config: JudgeConfig
    threshold: float
    """`page_effect.worth` above which a line is read."""
    seed: int

    def __call__(self, page: RenderedPage, spec: PageSpec, assets: Assets, address: Address) -> Judgement:
        """The judgement of one page."""
        config, lines = self.config, page.lines
        features_NF = line_features(page, render_ink(spec, assets)) if lines else np.zeros((0, 0))
        audited = bool(lines) and rng_for_page(self.seed, address, _AUDIT).random() < config.audit
        whole = read_lines(open_recognizer(config.recognizer), page, assets) if audited else None
        readings: dict[int, LineReading] = {}

        def read(number: int) -> LineReading:
            if whole is not None:
                readings[number] = whole[number]
            else:
                reader, enough = open_recognizer(config.recognizer), config.min_line_ned
                (readings[number],) = read_lines(reader, page, assets, [number], good_enough=enough)
            return readings[number]

        chances = decide_lines(self.calibration, features_NF, lines, config, self.threshold, read)
        verdict, legible = self._decide(page, chances, readings)
        judgement = Judgement(
            verdict=verdict,
            judged_by="cascade",
            readings=tuple(readings.get(number) for number in range(len(lines))),
            legibility=tuple(chances),
        )
        return judgement if whole is None else self._audited(judgement, whole, legible, page)

    def _decide(
        self, page: RenderedPage, chances: Sequence[float], readings: Mapping[int, LineReading]
    ) -> tuple[Verdict, list[bool]]:
        """The verdict, and which lines count as legible, when only `readings` have been made."""
        legibility, legible = [], []
        for number, (line, chance) in enumerate(zip(page.lines, chances, strict=True)):
            if number in readings:
                value = self._legibility(readings[number], line)
                legible.append(value >= self.config.min_line_ned)
            else:
                value = self.calibration.expected_legibility(chance) if is_visible(line, self.config) else 0.0
                legible.append(chance >= 0.5)
            legibility.append(value)
        return judge_page(page.lines, legibility, legible, self.config), legible

    def _legibility(self, reading: LineReading, line: RenderedLine) -> float:
        """Of a line that was read. Small print that is legible whatever its clean print says is worth at least as much
        as legible lines mostly are, also where an audit has read the clean print."""
        if is_small(line) and reading.read_ned >= self.config.min_line_ned:
            return max(reading.read_ned, self.calibration.legibility_good)
        return read_legibility(reading, line, self.config)

    def _audited(
        self, judgement: Judgement, readings: Sequence[LineReading], legible: Sequence[bool], page: RenderedPage
    ) -> Judgement:
        """The judgement of OCR on a page read in full, with what the cascade made of it beside."""
        truth = [
            read_legibility(reading, line, self.config) >= self.config.min_line_ned
            for reading, line in zip(readings, page.lines, strict=True)
        ]
        return Judgement(
            verdict=judge_read(readings, page, self.config),
            judged_by="ocr",
            readings=tuple(readings),
            legibility=judgement.legibility,
            ned=page_ned(readings, page),
            audit=PageAudit(keep=judgement.verdict.keep, lines=compare(legible, truth)),
        )


@dataclass(frozen=True, kw_only=True)
class FullJudge:
    """OCR reads every line: for runs so small that a calibration would cost more."""

    config: JudgeConfig

    def __call__(self, page: RenderedPage, spec: PageSpec, assets: Assets, address: Address) -> Judgement:
        """The judgement of one page."""
        readings = read_lines(open_recognizer(self.config.recognizer), page, assets)
        verdict = judge_read(readings, page, self.config)
        return Judgement(verdict=verdict, judged_by="ocr", readings=tuple(readings), ned=page_ned(readings, page))


def is_read_in_full(plan: GeneratePlan) -> bool:
    """Whether a run has so few pages that reading their lines costs less than a calibration, which takes LINES_A_PAGE
    of each of its pages where a page has some thirty."""
    return plan.judge_config.calibration is None and plan.rows <= plan.judge_config.sample_pages // 4


def open_judge(plan: GeneratePlan, calibration: Calibration) -> CascadeJudge:
    """The judge of a run."""
    config = plan.judge_config
    return CascadeJudge(
        calibration=calibration,
        config=config,
        threshold=calibration.operating_point(config).threshold,
        seed=plan.seed,
    )


def judged_of(rows: Iterable[Mapping[str, Any]], calibration: str = "") -> Judged | None:
    """What was read and how often the cascade erred, from rows of the schema (JUDGED_COLUMNS); None without OCR.

    rows: their lines as dicts or as `DrawnLines`. calibration: digest of the cascade's, "" when everything is read.
    """
    counts = dict.fromkeys(("pages", "lines", "lines_read", "audited_pages"), 0)
    of_pages, of_lines = Agreement(same=0, false_keep=0, false_drop=0), Agreement(same=0, false_keep=0, false_drop=0)
    for row in rows:
        if row.get("judged_by") not in ("cascade", "ocr"):
            continue
        lines, audit = row.get("lines") or (), row.get("audit")
        counts["pages"] += 1
        counts["lines"] += len(lines)
        if isinstance(lines, DrawnLines):
            counts["lines_read"] += lines.lines_read
        else:
            counts["lines_read"] += sum(line["read_ned"] is not None for line in lines)
        if audit is not None:
            counts["audited_pages"] += 1
            of_pages += compare([audit["keep"]], [row["keep"]])
            wrong = audit["false_keep"] + audit["false_drop"]
            of_lines += Agreement(
                same=len(lines) - wrong, false_keep=audit["false_keep"], false_drop=audit["false_drop"]
            )
    if not counts["pages"]:
        return None
    return Judged(
        calibration=calibration,
        **counts,
        audited_lines=of_lines.trials,
        pages_false_keep=of_pages.false_keep,
        pages_false_drop=of_pages.false_drop,
        lines_false_keep=of_lines.false_keep,
        lines_false_drop=of_lines.false_drop,
    )


# ---- the calibration ----


def made_for(plan: GeneratePlan) -> dict[str, str]:
    """Name -> digest of all that decides how lines look."""
    pages = hashlib.sha256(plan.pages.model_dump_json().encode()).hexdigest()
    return {"pages": pages} | plan.identity.inputs


def calibration_of_run(plan: GeneratePlan, *, progress: ProgressReport = silent, **crew: Unpack[Crew]) -> Calibration:
    """What the cascade of a run goes by: the calibration that the recipe names, or one made now. It lies in the run
    folder afterwards.

    Raises BadInput when the named one cannot be read, was made for another recipe, or is not the one that the run began
    with.
    """
    name = plan.judge_config.calibration
    if name is None:
        return calibrate_run(plan, progress=progress, **crew)
    calibration, folder = _named_calibration(plan, name), Folder(plan.out)
    if not folder.exists(CALIBRATION):
        folder.publish(CALIBRATION, calibration_to_json(calibration))
    elif folder.read(CALIBRATION) != calibration_to_json(calibration):
        raise BadInput(f"{name}: is not the calibration that the run in {folder.name} began with")
    return calibration


def _named_calibration(plan: GeneratePlan, name: str) -> Calibration:
    try:
        calibration = calibration_from_json(Path(name).read_bytes(), name)
    except OSError as error:
        raise BadInput(f"{name}: cannot be read ({error.strerror}); `glyphmill judge calibrate` makes one") from None
    check_calibration(calibration, plan.judge_config, made_for(plan), name)
    return calibration


def calibrate_recipe(
    recipe: GenerateRecipe, out: str, *, progress: ProgressReport = silent, **crew: Unpack[Crew]
) -> Calibration:
    """Calibrate for a recipe in a folder of its own; what was read there before for the same recipe is used again.

    Raises BadInput when the folder holds the readings of another recipe.
    """
    # A calibration is for every run of these pages: how many there are and how much is read is none of its business.
    cost = {"calibration": None} | {name: JudgeConfig.model_fields[name].default for name in COST}
    settings = recipe.judge.model_copy(update=cost)
    recipe = recipe.model_copy(update={"rows": 1, "rows_per_shard": 1, "judge": settings})
    plan = make_plan(recipe, recipe_hash(recipe), recipe_to_yaml(recipe), out)
    start_run(Folder(out), plan.identity)
    return calibrate_run(plan, progress=progress, **crew)


def calibrate_run(plan: GeneratePlan, *, progress: ProgressReport = silent, **crew: Unpack[Crew]) -> Calibration:
    """Read a sample of lines and calibrate the cascade on it, or take the calibration from the run folder.

    What a run that was cut off has read is not read again. Raises BadInput when shards are there whose calibration is
    gone.
    """
    folder = Folder(plan.out)
    if folder.exists(CALIBRATION):
        name = folder.describe(CALIBRATION)
        calibration = calibration_from_json(folder.read(CALIBRATION), name)
        check_calibration(calibration, plan.judge_config, made_for(plan), name)
        return calibration
    if committed_shards(folder):
        raise BadInput(f"{folder.describe(CALIBRATION)}: is gone, but the shards depend on it; remove the folder")
    pages = _read_sample(plan, folder, progress, **crew)
    reader = open_recognizer(plan.judge_config.recognizer).name
    calibration = calibrate(pages, plan.judge_config, reader=reader, made_for=made_for(plan))
    folder.publish(CALIBRATION, calibration_to_json(calibration))
    return calibration


def _read_sample(
    plan: GeneratePlan, folder: Folder, progress: ProgressReport, **crew: Unpack[Crew]
) -> list[list[SampledLine]]:
    """The lines of every page of the sample, read in this start or before."""
    total = plan.judge_config.sample_pages
    chunks = -(-total // _PAGES_A_CHUNK)
    there = set(folder.names(READINGS))
    todo = [chunk for chunk in range(chunks) if _chunk_name(chunk) not in there]
    done = total - sum(len(_chunk(plan, chunk)) for chunk in todo)
    progress("read", done, total, {})
    tasks = run_tasks(_read_chunk, plan, todo, rescue=_read_chunk_with_care, **crew)
    with closing(tasks) as results:
        for chunk, _ in results:
            done += len(_chunk(plan, chunk))
            progress("read", done, total, {})
    return _load_sample(folder, chunks)


def _chunk(plan: GeneratePlan, chunk: int) -> list[Address]:
    """Pages of the sample in small tasks, so that every worker is busy to the end."""
    first = chunk * _PAGES_A_CHUNK
    count = min(_PAGES_A_CHUNK, plan.judge_config.sample_pages - first)
    # Every page is of a shard of its own: other faces and sizes, of which a shard has few.
    return [Address(SAMPLE_SHARD + first + page, 0) for page in range(count)]


def _chunk_name(chunk: int) -> str:
    return f"{chunk:05d}.json"


def _read_chunk(plan: GeneratePlan, chunk: int) -> None:
    """Read lines of the pages of one chunk and publish what was read."""
    _publish_readings(plan, chunk, [read_sample_page(plan, address) for address in _chunk(plan, chunk)])


def _read_chunk_with_care(plan: GeneratePlan, chunk: int) -> None:
    """The same, every page in a process beside this one; pages that kill it are left out."""
    found: list[list[SampledLine]] = []
    with Child(plan) as child:
        for address in _chunk(plan, chunk):
            try:
                found.append(child.call(read_sample_page, address))
            except ChildDied:
                found.append([])
    _publish_readings(plan, chunk, found)


def read_sample_page(plan: GeneratePlan, address: Address) -> list[SampledLine]:
    """Some lines of a page, chosen by its address and read; none when it has no line."""
    workshop, config = open_workshop(plan), plan.judge_config
    sampled = workshop.draw(plan, address)
    page = sampled.page
    if page is None or not page.lines:
        return []
    rng = rng_for_page(plan.seed, address, _SAMPLE)
    count = min(LINES_A_PAGE, len(page.lines))
    numbers = np.sort(rng.choice(len(page.lines), count, replace=False)).tolist()
    lines = [page.lines[number] for number in numbers]
    features_NF = line_features(page, render_ink(sampled.spec, workshop.assets), numbers)
    readings = read_lines(open_recognizer(config.recognizer), page, workshop.assets, numbers)
    found = []
    for line, reading, features_F in zip(lines, readings, features_NF, strict=True):
        legibility = read_legibility(reading, line, config)
        found.append(
            SampledLine(
                features=tuple(features_F.tolist()),
                legibility=legibility,
                legible=legibility >= config.min_line_ned,
                visible=is_visible(line, config),
                read_ned=reading.read_ned,
                price_px=reading_px(line),
                clean_px=clean_px(line),
                weight=len(page.lines) / count,
            )
        )
    return found


def _publish_readings(plan: GeneratePlan, chunk: int, found: Sequence[Sequence[SampledLine]]) -> None:
    Folder(plan.out).publish(f"{READINGS}/{_chunk_name(chunk)}", msgspec.json.encode(found))


def _load_sample(folder: Folder, chunks: int) -> list[list[SampledLine]]:
    pages: list[list[SampledLine]] = []
    for chunk in range(chunks):
        path = f"{READINGS}/{_chunk_name(chunk)}"
        try:
            pages += msgspec.json.decode(folder.read(path), type=list[list[SampledLine]])
        except msgspec.MsgspecError as error:
            raise BadInput(f"{folder.describe(path)}: damaged ({error}); remove it to read those pages again") from None
    return [page for page in pages if page]
