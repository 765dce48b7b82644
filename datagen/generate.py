"""Synthetic pictures at scale: a recipe becomes shards, each a pure function of (recipe hash, shard number).

A row's address is (shard, row, attempt). Its page is sampled from the address alone, drawn, judged and encoded. A page
that is rejected is kept in the shard beside with its reason, and the row is drawn again at the next attempt: a shard is
always full. Executors, worker counts, retries and crashes cannot change a byte.
"""

import collections
import time
from collections.abc import Sequence
from contextlib import closing
from dataclasses import dataclass, replace
from pathlib import Path

from datagen.audit import CalibratedJudge, audit_rows, calibrate_run
from datagen.card import CARD, dataset_card
from datagen.commit import CommitRecord, finish_run, publish_shard, start_run
from datagen.execute import Executor, run_tasks
from datagen.judge import Calibration
from datagen.plan import TEXTS, Address, GeneratePlan, GenerateRecipe, Judge, Judgement, describe_run, make_plan
from datagen.progress import ProgressReport, silent
from datagen.rows import open_workshop, to_row
from datagen.shards import ShardBuilder
from datagen.storage import Folder
from datagen.verdict import Verdict
from fonts_manifest.errors import BadInput
from fonts_manifest.manifest import Manifest

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
        describe_run(folder, plan, recipe_yaml)
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
    workshop = open_workshop(plan)
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
            (kept if judgement.verdict.keep else rejected).add(to_row(plan, sampled, judgement, licences))
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
