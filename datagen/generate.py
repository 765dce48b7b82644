"""Synthetic pictures at scale: a recipe becomes shards, each a pure function of (recipe hash, shard number).

A row's address is (shard, row, attempt). Its page is sampled from the address alone, drawn, judged and encoded. A page
that is rejected is kept in the shard beside with its reason, and the row is drawn again at the next attempt: a shard is
always full. Executors, worker counts, retries and crashes cannot change a byte.
"""

import collections
import time
from collections.abc import Callable, Generator, Mapping
from contextlib import closing, suppress
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from datagen.audit import JUDGED_COLUMNS, FullJudge, calibration_of_run, is_read_in_full, judged_of, open_judge
from datagen.card import CARD, dataset_card
from datagen.cascade import Calibration
from datagen.child import Child, ChildDied
from datagen.commit import CommitRecord, RunTotals, finish_run, publish_shard, start_run
from datagen.corpus import open_corpus
from datagen.execute import Executor, run_tasks
from datagen.plan import TEXTS, Address, GeneratePlan, GenerateRecipe, Judge, describe_run, make_plan
from datagen.progress import ProgressReport, silent
from datagen.rows import CRASHED, crashed_row, draw_row, open_workshop, sample_page
from datagen.shards import ShardBuilder
from datagen.storage import Folder
from fonts_manifest.errors import BadInput
from fonts_manifest.manifest import Manifest

NOTE = "_drawing"
"""The shard that a run without workers is drawing: there after a crash."""

CRASHES = 2
"""Deaths of a process over one address, alone with it, after which the address is poisoned."""

MAX_ATTEMPTS = 20
"""Draws of one row that may be rejected before the run is ended: a recipe of which 5 % is kept is a mistake."""


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
    judged: dict[str, int] | None
    """What was read, and what the audit found: sums of `commit.JUDGED`."""


def report_to_json(report: RunReport) -> dict[str, Any]:
    """The report as numbers and strings: kept, reasons, shards, shards_before, seconds, judged."""
    names = ("kept", "reasons", "shards", "shards_before", "seconds", "judged")
    return {name: getattr(report, name) for name in names}


def describe_judged(judged: Mapping[str, int]) -> str:
    """What was read and what the audit found, in a sentence."""
    lines, compared = judged["lines"], judged["audited_lines"]
    wrong = judged["lines_false_keep"] + judged["lines_false_drop"]
    if judged["lines_read"] == lines:
        return f"judged: all {lines:,} lines read by OCR"
    text = f"judged: {judged['lines_read']:,} of {lines:,} lines read by OCR"
    if not compared:
        return f"{text}; no page fell into the audit"
    right = f"{compared - wrong:,} of {compared:,} lines decided as by full OCR ({(compared - wrong) / compared:.2%})"
    return f"{text}; audit of {judged['audited_pages']} pages: {right}"


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
    progress: ProgressReport = silent,
) -> RunReport:
    """Make the run in the folder `out`, or go on with it; returns when every shard is finished.

    Without `judge` the cascade judges, calibrated by `recipe.judge.calibration` or on a sample that is read first
    (`calibration.json`, `readings/`); small runs are read in full instead. Beside the shards lie `recipe.yaml`,
    `fonts.json`, `photos.json`, `texts.json`, `versions.json`. Raises BadInput for bad input, a full disk, or a folder
    of another run; what is finished is kept and the same call goes on from there.
    """
    started = time.perf_counter()
    corpus = open_corpus(recipe.texts)
    plan = make_plan(recipe, recipe_hash, recipe_yaml, out, manifest=manifest, corpus=corpus)
    folder = Folder(out)
    before = start_run(folder, plan.identity)
    if not folder.exists(TEXTS):
        describe_run(folder, plan, recipe_yaml, corpus)
    if executor == "serial":
        open_workshop(plan, corpus)
    calibration = None
    if judge is None and is_read_in_full(plan):
        judge = FullJudge(config=recipe.judge)
    if judge is None:
        calibration = calibration_of_run(plan, executor=executor, workers=workers, address=address, progress=progress)
        judge = open_judge(plan, calibration)
    plan = replace(plan, judge=judge, calibration="" if calibration is None else calibration.digest)
    done = sum(plan.rows_in(shard) for shard in before)
    reasons: collections.Counter[str] = collections.Counter()
    progress("draw", done, plan.rows, reasons)
    with closing(_make_shards(plan, before, executor, workers, address)) as records:
        for record in records:
            done += record.kept
            reasons.update(record.reasons)
            progress("draw", done, plan.rows, reasons)
    totals = finish_run(folder, plan.shards)
    if not folder.exists(CARD):
        folder.publish(CARD, _card(plan, totals).encode())
    return RunReport(
        kept=totals.kept,
        reasons=totals.reasons,
        shards=plan.shards,
        shards_before=len(before),
        seconds=time.perf_counter() - started,
        calibration=calibration,
        judged=totals.judged,
    )


def _make_shards(
    plan: GeneratePlan, before: frozenset[int], executor: Executor, workers: int | None, address: str | None
) -> Generator[CommitRecord, None, None]:
    """The records of all shards but those made `before`, as they get ready."""
    todo = (shard for shard in range(plan.shards) if shard not in before)
    if executor == "serial":
        folder = Folder(plan.out)
        noted = int(folder.read(NOTE)) if folder.exists(NOTE) else None
        for shard in todo:
            yield generate_shard_with_care(plan, shard) if shard == noted else _generate_shard_here(plan, shard)
            if shard == noted:
                folder.delete(NOTE, missing_ok=True)
        return
    tasks = run_tasks(
        generate_shard, plan, todo, executor=executor, workers=workers, address=address, rescue=generate_shard_with_care
    )
    with closing(tasks) as results:
        for _, record in results:
            yield record


def generate_shard(plan: GeneratePlan, shard: int) -> CommitRecord:
    """Make, publish and commit one shard: a pure function of the plan and the number.

    Raises BadInput when a row is rejected MAX_ATTEMPTS times, an input has changed, or the disk is full.
    """
    record = make_shard(plan, shard, lambda address: draw_row(plan, address))
    open_workshop(plan).rest()
    return record


def generate_shard_with_care(plan: GeneratePlan, shard: int) -> CommitRecord:
    """The same, every row drawn in a process beside this one.

    An address that kills it twice is rejected as "crashed", named in the commit record, and its row drawn at the next
    attempt like any rejected one: the shard is full, and the same whoever makes it.
    """
    with Child(plan) as child:
        return make_shard(plan, shard, lambda address: row_or_crash(child, plan, address))


def row_or_crash(child: Child[GeneratePlan], plan: GeneratePlan, address: Address) -> dict[str, Any]:
    """The row of an address, drawn in `child`; a rejected one when that kills it CRASHES times."""
    for _ in range(CRASHES):
        with suppress(ChildDied):
            return child.call(draw_row, address)
    spec = None
    with suppress(ChildDied):
        spec = child.call(sample_page, address)
    return crashed_row(plan, address, spec)


def make_shard(plan: GeneratePlan, shard: int, make_row: Callable[[Address], dict[str, Any]]) -> CommitRecord:
    """Publish and commit one shard of the rows that `make_row` gives for every attempt, until one is kept."""
    started = time.perf_counter()
    kept, rejected = ShardBuilder(plan.schema), ShardBuilder(plan.schema)
    reasons: collections.Counter[str] = collections.Counter()
    poisoned = []
    judged: dict[bool, list[dict[str, Any]]] = {True: [], False: []}
    for number in range(plan.rows_in(shard)):
        of_row: collections.Counter[str] = collections.Counter()
        for attempt in range(MAX_ATTEMPTS):
            row = make_row(Address(shard, number, attempt))
            (kept if row["keep"] else rejected).add(row)
            if row["judged_by"] != "none":
                judged[row["keep"]].append({name: row.get(name) for name in JUDGED_COLUMNS})
            if row["keep"]:
                break
            of_row[row["reason"]] += 1
            if row["reason"] == CRASHED:
                poisoned.append((number, attempt))
        else:
            most = ", ".join(f"{count} {reason}" for reason, count in of_row.most_common(3))
            raise BadInput(
                f"shard {shard}, row {number}: {MAX_ATTEMPTS} pages in a row were rejected ({most}); "
                "ask less of the judge, or let the recipe draw more legible pages"
            )
        reasons.update(of_row)
    return publish_shard(
        Folder(plan.out),
        plan.recipe_hash,
        shard,
        kept.finish(),
        rejected.finish(),
        reasons,
        seconds=time.perf_counter() - started,
        poisoned=poisoned,
        judged={keep: judged_of(rows, plan.calibration) for keep, rows in judged.items()},
    )


def _generate_shard_here(plan: GeneratePlan, shard: int) -> CommitRecord:
    """For a run in this process: a crash ends it, so the shard is noted, and the next start takes care with it."""
    folder = Folder(plan.out)
    folder.publish(NOTE, f"{shard}\n".encode())
    try:
        return generate_shard(plan, shard)
    finally:
        folder.delete(NOTE, missing_ok=True)


def _card(plan: GeneratePlan, totals: RunTotals) -> str:
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
    return dataset_card(title, "glyphmill generate", totals, licences, notes)
