"""Pictures of a synthetic run one by one, drawn when they are asked for: those that its shards hold, or would hold.

A picture is a function of its address, so it does not matter who draws it, when, and whether its neighbours are drawn
too. Which attempt of a row is kept, the judge of the recipe decides, as it does for shards.
"""

import hashlib
import weakref
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, replace
from typing import Any, NamedTuple, TypeVar

import msgspec
import numpy as np
import numpy.typing as npt

from datagen.audit import CALIBRATION, calibrate_run, open_judge
from datagen.child import Child, ChildDied
from datagen.codec import decode_png
from datagen.commit import COMMITS, committed_shards, finish_run, start_run
from datagen.generate import CRASHES, MAX_ATTEMPTS, make_shard, row_or_crash
from datagen.line_columns import line_array
from datagen.plan import FONTS, TEXTS, Address, GeneratePlan, GenerateRecipe, describe_run, make_plan, read_fonts
from datagen.recipes import BUNDLED, find_recipe, load_recipe, recipe_hash, recipe_to_yaml
from datagen.rows import draw_row, judged_page, row_id_of
from datagen.storage import Folder
from fonts_manifest.errors import BadInput

ROWS = "_tee"
"""Folder of a run with rows whose shard is not together."""

T = TypeVar("T")


class DrawnPicture(NamedTuple):
    """A picture that was kept."""

    row_id: str
    image_HW3: npt.NDArray[np.uint8]
    quads_px: npt.NDArray[np.float32]
    """(L, 4, 2) corners of its lines."""


@dataclass(frozen=True)
class LivePlan:
    """A run whose pictures are drawn on the way."""

    plan: GeneratePlan
    recipe_yaml: str

    @property
    def digest(self) -> str:
        """Equal ones draw equal pictures: recipe, fonts, photographs, texts, library versions, calibration."""
        return hashlib.sha256(msgspec.json.encode((self.plan.identity, self.plan.calibration))).hexdigest()


def open_live(recipe: str, overrides: tuple[str, ...] = (), judge: str | None = None) -> LivePlan:
    """The run that `glyphmill generate RECIPE` would make.

    judge: a folder in which the judge of these pages is calibrated; without one every page that can be drawn is kept.
    Raises BadInput when an input is missing, or the calibration is another recipe's.
    """
    loaded = load_recipe(find_recipe(recipe, [BUNDLED]), GenerateRecipe, overrides)
    recipe_yaml = recipe_to_yaml(loaded)
    if judge is None:
        return LivePlan(make_plan(loaded, recipe_hash(loaded), recipe_yaml), recipe_yaml)
    folder = Folder(judge)
    if not folder.exists(CALIBRATION):
        raise BadInput(
            f"{folder.describe(CALIBRATION)}: is missing; `glyphmill generate` with this recipe and that folder makes "
            "it before the first shard, `glyphmill judge calibrate` makes nothing else"
        )
    manifest = read_fonts(folder) if folder.exists(FONTS) else None
    plan = make_plan(loaded, recipe_hash(loaded), recipe_yaml, judge, manifest=manifest)
    calibration = calibrate_run(plan, executor="serial")
    return LivePlan(replace(plan, judge=open_judge(plan, calibration), calibration=calibration.digest), recipe_yaml)


def start_tee(live: LivePlan, tee: str) -> None:
    """Begin, or go on with, the run in the folder `tee`, with the calibration of the folder that judges.

    Raises BadInput when the folder belongs to another run.
    """
    folder = Folder(tee)
    start_run(folder, live.plan.identity)
    if not folder.exists(TEXTS):
        describe_run(folder, live.plan, live.recipe_yaml)
    if not folder.exists(CALIBRATION):
        folder.publish(CALIBRATION, Folder(live.plan.out).read(CALIBRATION))


def finish_tee(plan: GeneratePlan, tee: str) -> bool:
    """Whether every shard is there; then the run is finished. Rows of shards that are not go."""
    folder = Folder(tee)
    there = committed_shards(folder)
    for shard in range(plan.shards):
        for name in folder.names(f"{ROWS}/{shard:08d}") if shard not in there else ():
            folder.delete(f"{ROWS}/{shard:08d}/{name}", missing_ok=True)
    if len(there) < plan.shards:
        return False
    finish_run(folder, plan.shards)
    return True


class Drawer:
    """Draws rows of a run until one is kept. What is kept in memory (faces, glyphs, texts) is the process's."""

    def __init__(self, plan: GeneratePlan, *, apart: bool = False, tee: "Tee | None" = None) -> None:
        """apart: in a process beside this one, so that an address which crashes a native library costs one attempt, as
        it does in shards. tee: where to leave what is drawn."""
        self._plan = plan
        self._child: Child[GeneratePlan] | None = None
        self._tee = tee
        if apart:
            self._child = Child(plan)
            weakref.finalize(self, self._child.end)

    def draw(self, shard: int, row: int) -> DrawnPicture:
        """The picture kept of a row. Raises BadInput when MAX_ATTEMPTS pages in a row are rejected."""
        if self._tee is not None:
            return self._tee.draw(shard, row, self._row)
        pages = _until_kept(shard, row, self._page, lambda page: page is not None)
        assert pages[-1] is not None, "the last is the one that was kept"  # noqa: S101
        return pages[-1]

    def _page(self, address: Address) -> DrawnPicture | None:
        if self._child is None:
            return draw_attempt(self._plan, address)
        for _ in range(CRASHES):
            with suppress(ChildDied):
                return self._child.call(draw_attempt, address)
        return None

    def _row(self, address: Address) -> dict[str, Any]:
        if self._child is None:
            return draw_row(self._plan, address)
        return row_or_crash(self._child, self._plan, address)


def draw_attempt(plan: GeneratePlan, address: Address) -> DrawnPicture | None:
    """One attempt of a row; None when it is rejected."""
    sampled, judgement = judged_page(plan, address)
    if sampled.page is None or not judgement.verdict.keep:
        return None
    quads_px = [line.quad_px for line in sampled.page.lines]
    return DrawnPicture(row_id_of(plan, address), sampled.page.image_HW3, _corners(quads_px))


def _with_dicts(row: dict[str, Any]) -> dict[str, Any]:
    """The row with its lines as they come back from a shard."""
    lines = row.get("lines")
    return row if lines is None else {**row, "lines": line_array([lines]).to_pylist()}


def _corners(quads_px: list[Any]) -> npt.NDArray[np.float32]:
    return np.array(quads_px, np.float32).reshape(-1, 4, 2)


def _until_kept(shard: int, row: int, make: Callable[[Address], T], kept: Callable[[T], bool]) -> list[T]:
    """Every attempt of a row up to the one that is kept. Raises BadInput when there is none."""
    found = []
    for attempt in range(MAX_ATTEMPTS):
        found.append(make(Address(shard, row, attempt)))
        if kept(found[-1]):
            return found
    raise BadInput(
        f"shard {shard}, row {row}: {MAX_ATTEMPTS} pages in a row were rejected; ask less of the judge, or let the "
        "recipe draw more legible pages"
    )


class Tee:
    """Leaves what is drawn in a run folder: rows in `_tee/` until those of a shard are together, then the shard.

    Shards are those that `glyphmill generate` writes, byte for byte, so that it can go on with the folder. Rows that
    nobody asks for (held out from training) are drawn when their shard is put together. Any number of processes may
    write: equal rows under equal names, and whoever leaves the last row of a shard makes it.
    """

    def __init__(self, plan: GeneratePlan, tee: str, unasked: frozenset[int]) -> None:
        """tee: folder of the run, begun by `start_tee`. unasked: numbers of the rows that nobody will ask for."""
        self._plan = replace(plan, out=tee)
        self._folder = Folder(tee)
        self._unasked = unasked
        self._done = set(committed_shards(self._folder))

    def draw(self, shard: int, row: int, make_row: Callable[[Address], dict[str, Any]]) -> DrawnPicture:
        """The picture kept of a row, which is left in the folder with all that were rejected before."""
        rows = _until_kept(shard, row, make_row, lambda row: bool(row["keep"]))
        if shard not in self._done and shard * self._plan.rows_per_shard + row < self._plan.rows:
            self._folder.publish(self._path(shard, row), msgspec.msgpack.encode([_with_dicts(made) for made in rows]))
            self._put_together(shard, make_row)
        kept = rows[-1]
        quads_px = [line.quad_px for line in kept["lines"].lines]
        return DrawnPicture(kept["row_id"], decode_png(kept["image"]["bytes"]), _corners(quads_px))

    def _path(self, shard: int, row: int) -> str:
        return f"{ROWS}/{shard:08d}/{row:08d}.msgpack"

    def _put_together(self, shard: int, make_row: Callable[[Address], dict[str, Any]]) -> None:
        rows = self._plan.rows_in(shard)
        there = {int(name.partition(".")[0]) for name in self._folder.names(f"{ROWS}/{shard:08d}")}
        first = shard * self._plan.rows_per_shard
        if any(row not in there and first + row not in self._unasked for row in range(rows)):
            return
        self._done.add(shard)
        if self._folder.exists(f"{COMMITS}/{shard:08d}.json"):
            return
        left: dict[int, list[dict[str, Any]]] = {}

        def row_of(address: Address) -> dict[str, Any]:
            path = self._path(shard, address.row)
            if address.row in there and address.row not in left and self._folder.exists(path):
                left[address.row] = msgspec.msgpack.decode(self._folder.read(path))
            attempts = left.get(address.row, ())
            return attempts[address.attempt] if address.attempt < len(attempts) else make_row(address)

        make_shard(self._plan, shard, row_of)
        for row in range(rows):
            self._folder.delete(self._path(shard, row), missing_ok=True)
