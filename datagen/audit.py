"""Which pages of a run are read by OCR, and the rules calibrated on them that judge all the others."""

from collections.abc import Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass

import msgspec
import numpy as np

from datagen.child import Child, ChildDied
from datagen.commit import committed_shards
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
from datagen.ocr import open_recognizer
from datagen.plan import Address, GeneratePlan, Judgement
from datagen.progress import ProgressReport, silent
from datagen.rows import open_workshop, sample_rows
from datagen.seeds import rng_for_run
from datagen.storage import Folder
from fonts_manifest.errors import BadInput
from render_engine.render import Assets
from render_engine.spec import RenderedPage

CALIBRATION = "calibration.json"
READINGS = "readings"
"""A file for every few pages that were read."""

_AUDIT = 1  # purpose of rng_for_run


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
    progress: ProgressReport = silent,
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
    tasks = run_tasks(
        _read_chunk, plan, todo, executor=executor, workers=workers, address=address, rescue=_read_chunk_with_care
    )
    with closing(tasks) as results:
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
    _publish_readings(plan, number, [_read_page(plan, address) for address in _chunks(plan)[number]])


def _read_chunk_with_care(plan: GeneratePlan, number: int) -> None:
    """The same, every page in a process beside this one; pages that kill it are left out as well."""
    found: list[tuple[LineReading, ...] | None] = []
    with Child(plan) as child:
        for address in _chunks(plan)[number]:
            try:
                found.append(child.call(_read_page, address))
            except ChildDied:
                found.append(None)
    _publish_readings(plan, number, found)


def _read_page(plan: GeneratePlan, address: Address) -> tuple[LineReading, ...] | None:
    """What was read on the first page of an audit row; None when it has no line."""
    workshop = open_workshop(plan)
    page = workshop.draw(plan, address).page
    if page is None or not page.lines:
        return None
    return tuple(read_lines(open_recognizer(plan.judge_config.recognizer), page, workshop.assets))


def _publish_readings(plan: GeneratePlan, number: int, found: Sequence[tuple[LineReading, ...] | None]) -> None:
    pairs = zip(_chunks(plan)[number], found, strict=True)
    encoded = msgspec.json.encode([(address, readings) for address, readings in pairs if readings is not None])
    Folder(plan.out).publish(f"{READINGS}/{_chunk_name(number)}", encoded)


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
