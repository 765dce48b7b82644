"""From an address to a row of the schema: sampled, drawn, encoded."""

import gc
import itertools
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import cv2
import numpy as np
import numpy.typing as npt
from numba import njit

from datagen.codec import encode_png, pixels_digest
from datagen.corpus import Corpus, open_corpus
from datagen.heap import keep_freed_memory, leave_scipy_out, let_go_of_files
from datagen.line_columns import DrawnLines
from datagen.ocr import count_characters
from datagen.photos import PhotoStore
from datagen.plan import Address, GeneratePlan, Judgement
from datagen.seeds import rng_for, rng_for_shard
from datagen.verdict import Verdict
from fonts_manifest.errors import BadInput
from fonts_manifest.manifest import FontFace
from render_engine.caption import caption
from render_engine.choose import faces_of_shard, sizes_of_shard
from render_engine.distribution import PageDistribution
from render_engine.render import Assets, render
from render_engine.sample import sample_spec
from render_engine.spec import PageSpec, RenderedPage, RenderError, photo_ids_of, spec_to_json

CRASHED = "crashed"
"""Reason of a row that kills the process that draws it, every time."""


@dataclass(frozen=True, slots=True, kw_only=True)
class SampledPage:
    """A page of one address, drawn or not."""

    address: Address
    spec: PageSpec
    page: RenderedPage | None
    """None when it cannot be drawn as specified."""
    reason: str = ""
    """Why not."""


def sample_rows(plan: GeneratePlan, addresses: Iterable[Address]) -> Iterator[SampledPage]:
    """The pages of these addresses, drawn and not judged, in this process."""
    workshop = open_workshop(plan)
    for address in addresses:
        yield workshop.draw(plan, address)


class Workshop:
    """What stays open in a process from one task to the next: faces, glyphs, photographs, texts."""

    def __init__(self, plan: GeneratePlan, corpus: Corpus | None = None) -> None:
        """corpus: the plan's texts, when they are open already."""
        # One process a core: threads of OpenCV would only take the core of the next worker.
        cv2.setNumThreads(1)
        keep_freed_memory()
        leave_scipy_out()
        self.corpus = corpus or open_corpus(plan.texts)
        if self.corpus.digest != plan.texts_digest:
            raise BadInput("texts: the files have changed since the run was planned, or differ on this machine")
        self.assets = Assets(plan.manifest.faces, PhotoStore(plan.photos.photos))
        self._font_files = frozenset(face.path for face in plan.manifest.faces)
        self.licences = {photo.photo_id: photo.licence for photo in plan.photos.photos}
        # What is open now is never garbage, and need not be looked through again and again.
        gc.collect()
        gc.freeze()
        self._choices: tuple[object, tuple[FontFace, ...], PageDistribution] = (None, (), PageDistribution())

    def rest(self) -> None:
        """Between two shards: what of fonts, texts and code is not needed any more goes back to the system."""
        let_go_of_files(self._font_files)

    def sample(self, plan: GeneratePlan, address: Address) -> PageSpec:
        """What the page of this address will be."""
        rng = rng_for(plan.seed, *address)
        faces, pages = self._choices_of(plan, address.shard)
        return sample_spec(rng, pages, faces, self.corpus, plan.photos.photos)

    def draw(self, plan: GeneratePlan, address: Address) -> SampledPage:
        """The page of this address."""
        spec = self.sample(plan, address)
        try:
            return SampledPage(address=address, spec=spec, page=render(spec, self.assets))
        except RenderError as error:
            return SampledPage(address=address, spec=spec, page=None, reason=error.reason)

    def _choices_of(self, plan: GeneratePlan, shard: int) -> tuple[tuple[FontFace, ...], PageDistribution]:
        """The faces of a shard, and the pages with its sizes."""
        of = (plan.seed, plan.recipe_hash, plan.pages, shard)  # one process may work on several runs
        if self._choices[0] != of:
            rng = rng_for_shard(plan.seed, shard)
            faces = faces_of_shard(rng, plan.pages, plan.manifest.faces)
            self._choices = (of, faces, sizes_of_shard(rng, plan.pages))
        return self._choices[1:]


_workshops: dict[tuple[str, ...], Workshop] = {}


def sample_page(plan: GeneratePlan, address: Address) -> PageSpec:
    """The page of this address, not drawn: no native library has a hand in it but NumPy."""
    return open_workshop(plan).sample(plan, address)


def draw_row(plan: GeneratePlan, address: Address) -> dict[str, Any]:
    """The row of this address, drawn, judged and encoded: a pure function of both."""
    sampled, judgement = judged_page(plan, address)
    return to_row(plan, sampled, judgement, open_workshop(plan).licences)


def judged_page(plan: GeneratePlan, address: Address) -> tuple[SampledPage, Judgement]:
    """The page of this address, drawn, and what the run's judge says of it."""
    workshop = open_workshop(plan)
    sampled = workshop.draw(plan, address)
    if sampled.page is None:
        return sampled, Judgement(verdict=Verdict(keep=False, reason=sampled.reason), judged_by="none")
    return sampled, plan.judge(sampled.page, sampled.spec, workshop.assets, sampled.address)


def crashed_row(plan: GeneratePlan, address: Address, spec: PageSpec | None) -> dict[str, Any]:
    """The row of an address whose drawing kills the process, with its spec unless sampling it does the same."""
    judgement = Judgement(verdict=Verdict(keep=False, reason=CRASHED), judged_by="none")
    if spec is not None:
        return to_row(plan, SampledPage(address=address, spec=spec, page=None, reason=CRASHED), judgement, {})
    return _address_columns(plan, address) | _verdict_columns(judgement)


def open_workshop(plan: GeneratePlan, corpus: Corpus | None = None) -> Workshop:
    """The workshop of a plan in this process, opened once; corpus: the plan's texts, when they are open already."""
    # Digests do not tell folders apart, and a run may be made again from files that have moved.
    places = (plan.manifest.faces[0].path, plan.photos.photos[0].path if plan.photos.photos else "")
    key = (plan.texts_digest, plan.texts.model_dump_json(), plan.manifest.digest, plan.photos.digest, *places)
    if key not in _workshops:
        _workshops.clear()
        _workshops[key] = Workshop(plan, corpus)
    return _workshops[key]


def to_row(
    plan: GeneratePlan,
    sampled: SampledPage,
    judgement: Judgement,
    licences: Mapping[str, str],
    png: bytes | None = None,
) -> dict[str, Any]:
    """A row of `SCHEMA`, its lines as `DrawnLines`. png: the encoded picture, when that was done before."""
    spec, page, address = sampled.spec, sampled.page, sampled.address
    photo_ids = photo_ids_of(spec)
    photo_licences = dict.fromkeys(licences[photo_id] for photo_id in photo_ids if photo_id in licences)
    languages = {block.lang for block in spec.blocks}
    row: dict[str, Any] = _address_columns(plan, address) | {
        "width": spec.width_px,
        "height": spec.height_px,
        "lang": languages.pop() if len(languages) == 1 else "mixed",
        "spec": spec_to_json(spec),
        "photo_id": ",".join(photo_ids) or None,
        "licence": "; ".join(photo_licences) or None,
        **_verdict_columns(judgement),
    }
    if page is None:
        return row
    text = "\n".join(line.text for line in page.lines)
    characters = count_characters(text)
    return row | {
        "image": {"bytes": png or encode_png(page.image_HW3), "path": None},
        "text": text,
        "lines": _lines(spec, page, judgement),
        "caption": caption(spec, page.lines),
        "pixels_xxh3": pixels_digest(page.image_HW3),
        "characters": characters,
        "characters_per_mp": characters / (spec.width_px * spec.height_px / 1e6),
        "text_area": text_area(page),
    }


def row_id_of(plan: GeneratePlan, address: Address) -> str:
    """The name of an address, unique among all runs."""
    return f"{plan.recipe_hash[:12]}-{address.shard}-{address.row}-{address.attempt}"


def _address_columns(plan: GeneratePlan, address: Address) -> dict[str, Any]:
    return {
        "row_id": row_id_of(plan, address),
        "source": "synthetic",
        "recipe_hash": plan.recipe_hash,
        "seed": plan.seed,
        "shard": address.shard,
        "row": address.row,
        "attempt": address.attempt,
    }


def _verdict_columns(judgement: Judgement) -> dict[str, Any]:
    return {
        "keep": judgement.verdict.keep,
        "reason": judgement.verdict.reason,
        "judged_by": judgement.judged_by,
        "ned": judgement.ned,
        "audit": None
        if judgement.audit is None
        else {
            "keep": judgement.audit.keep,
            "false_keep": judgement.audit.lines.false_keep,
            "false_drop": judgement.audit.lines.false_drop,
        },
    }


def _lines(spec: PageSpec, page: RenderedPage, judgement: Judgement) -> DrawnLines:
    readings = judgement.readings
    return DrawnLines(
        lines=page.lines,
        roles=tuple([spec.blocks[line.block].role for line in page.lines]),
        read_ned=None if readings is None else tuple([r.read_ned if r else None for r in readings]),
        clean_ned=None if readings is None else tuple([r.clean_ned if r else None for r in readings]),
        legibility=judgement.legibility,
    )


def text_area(page: RenderedPage) -> float:
    """Share of the page's pixels whose centre lies in the quad of a line, 0 to 1; overlaps count once."""
    height, width = page.image_HW3.shape[:2]
    corners = itertools.chain.from_iterable([line.quad_px for line in page.lines])
    corners_L42 = np.fromiter(corners, np.float64, 8 * len(page.lines)).reshape(-1, 4, 2)
    return float(np.bitwise_count(_covered(corners_L42, height, width)).sum() / (height * width))


@njit(cache=True, nogil=True)
def _covered(corners_L42: npt.NDArray[np.float64], height: int, width: int) -> npt.NDArray[np.uint64]:
    """A bit for every pixel, set where its centre lies in a convex quad, corners clockwise on the screen (y down).

    OpenCV's fillConvexPoly also fills pixels that the edges only touch: 7 % too many for a line of 50 x 20 px.
    """
    # Bits, because a stretch of a row is then a few words.
    covered_Hw = np.zeros((height, (width + 63) // 64), np.uint64)
    ones, low_bits = np.uint64(0xFFFFFFFFFFFFFFFF), np.uint64(63)
    for quad in range(len(corners_L42)):
        corners_42 = corners_L42[quad]
        top = max(int(np.floor(corners_42[:, 1].min())), 0)
        bottom = min(int(np.ceil(corners_42[:, 1].max())), height)
        for row in range(top, bottom):
            # Of a convex quad every row holds one stretch: each edge bounds it at one side.
            first, last = 0.0, float(width)
            for edge in range(4):
                x0, y0 = corners_42[edge]
                x1, y1 = corners_42[(edge + 1) % 4]
                if y0 == y1:
                    if (x1 - x0) * (row + 0.5 - y0) < 0:
                        last = -1.0
                    continue
                crossing = x0 + (x1 - x0) * (row + 0.5 - y0) / (y1 - y0)
                if y1 > y0:
                    last = min(last, crossing)
                else:
                    first = max(first, crossing)
            start, stop = int(np.ceil(first - 0.5)), min(int(np.floor(last - 0.5)) + 1, width)
            if start >= stop:
                continue
            start_mask = ones << (np.uint64(start) & low_bits)
            stop_mask = ones >> (low_bits - (np.uint64(stop - 1) & low_bits))
            for word in range(start >> 6, ((stop - 1) >> 6) + 1):
                mask = start_mask if word == start >> 6 else ones
                covered_Hw[row, word] |= mask & stop_mask if word == (stop - 1) >> 6 else mask
    return covered_Hw
