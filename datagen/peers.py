"""What others take for a page of ours: Pillow's `ImageDraw` and skia-python's `Canvas`, in the same process.

They are given our lines at our places, cut where the face changes, with their fonts opened before: they break no line,
look for no fallback, justify and space nothing, measure no ground and keep no boxes.
"""

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

import numpy as np
import numpy.typing as npt
from PIL import Image, ImageDraw, ImageFont

from render_engine.annotate import annotate
from render_engine.render import Assets, choose, composite, ground, lay_out
from render_engine.spec import RGB, PageSpec, RenderedLine, RenderError

Image3 = npt.NDArray[np.uint8]


@dataclass(frozen=True, slots=True, kw_only=True)
class Run:
    """Characters of a line that one face draws."""

    text: str
    face_id: str
    size_px: float
    left_px: float
    bottom_px: float
    ink_rgb: RGB


Peer = Callable[[Image3, Sequence[Run]], float]
"""Draws runs over a picture; the CPU seconds that took, without opening fonts."""


@dataclass(frozen=True, slots=True)
class Ratio:
    """A peer's time for some pages over ours."""

    drawing: float
    """Over our layout and compositing: lines known, grounds not measured, inks given, nothing annotated."""
    text_stage: float
    """Over all that we do between the crop and the encoder."""


def draw_timed(spec: PageSpec, assets: Assets, image_HW3: Image3, marks: list[float]) -> tuple[RenderedLine, ...]:
    """Write the page over its ground; the process's CPU time after layout, ink, composite and annotate into `marks`."""
    scratch = lay_out(spec, assets)
    marks.append(time.process_time())
    inked = choose(spec, assets, scratch, image_HW3)
    marks.append(time.process_time())
    composite(spec, assets, inked, image_HW3)
    marks.append(time.process_time())
    lines = annotate(spec, inked)
    marks.append(time.process_time())
    return lines


def ratio_to(peer: Peer, specs: Sequence[PageSpec], assets: Assets) -> Ratio:
    """The peer and we draw the same pages, turn by turn."""
    drawing = beside = theirs = 0.0
    for spec in specs:
        image_HW3 = ground(spec, assets)
        canvas_HW3 = image_HW3.copy()
        marks = [time.process_time()]
        try:
            lines = draw_timed(spec, assets, image_HW3, marks)
        except RenderError:
            continue
        layout, choosing, compositing, annotating = np.diff(marks).tolist()
        drawing += layout + compositing
        beside += choosing + annotating
        theirs += peer(canvas_HW3, [run for line in lines for run in _runs(line, spec, assets)])
    return Ratio(drawing=theirs / drawing, text_stage=theirs / (drawing + beside))


def _runs(line: RenderedLine, spec: PageSpec, assets: Assets) -> list[Run]:
    """A line cut where its characters come from another face of its block: a peer that draws it with the first face
    draws boxes."""
    stack = assets.stack(spec.blocks[line.block].face_ids, line.lang)
    slots = [stack.slot_of(character) for character in line.text]
    cuts = [0, *(at for at in range(1, len(slots)) if slots[at] != slots[at - 1]), len(slots)]
    x0, x1, width = line.quad_px[0], line.quad_px[2], len(line.text)
    return [
        Run(
            text=line.text[first:last],
            face_id=stack.faces[slots[first]].font.face_id,
            size_px=line.size_px,
            left_px=x0 + (x1 - x0) * first / width,
            bottom_px=line.quad_px[7],
            ink_rgb=line.ink_rgb,
        )
        for first, last in pairwise(cuts)
    ]


class Pillow:
    """`ImageDraw.text`, one call a run."""

    def __init__(self, assets: Assets, layout: ImageFont.Layout) -> None:
        self._fonts = assets.fonts
        self._layout = layout
        self._open: dict[tuple[str, float], ImageFont.FreeTypeFont] = {}

    def __call__(self, canvas_HW3: Image3, runs: Sequence[Run]) -> float:
        for run in runs:
            if (run.face_id, run.size_px) not in self._open:
                font = self._fonts[run.face_id]
                self._open[run.face_id, run.size_px] = ImageFont.truetype(
                    font.path, run.size_px, index=font.face_index, layout_engine=self._layout
                )
        picture = Image.fromarray(canvas_HW3)
        start = time.process_time()
        pen = ImageDraw.Draw(picture)
        for run in runs:
            place = (run.left_px, run.bottom_px)
            pen.text(place, run.text, fill=run.ink_rgb, font=self._open[run.face_id, run.size_px], anchor="lb")
        return time.process_time() - start


def ratio_to_skia(specs: Sequence[PageSpec], assets: Assets) -> Ratio | None:
    """`Canvas.drawString`, one call a run, sub-pixel positions, unhinted; None where skia-python is not installed."""
    try:
        import skia
    except ImportError:
        return None
    faces: dict[str, Any] = {}
    fonts: dict[tuple[str, float], Any] = {}

    def peer(canvas_HW3: Image3, runs: Sequence[Run]) -> float:
        for run in runs:
            font = assets.fonts[run.face_id]
            if run.face_id not in faces:
                faces[run.face_id] = skia.Typeface.MakeFromFile(font.path, font.face_index)
            if (run.face_id, run.size_px) not in fonts:
                opened = fonts[run.face_id, run.size_px] = skia.Font(faces[run.face_id], run.size_px)
                opened.setSubpixel(True)
                opened.setHinting(skia.FontHinting.kNone)
        pixels_HW4 = np.dstack((canvas_HW3, np.full(canvas_HW3.shape[:2], 255, np.uint8)))
        surface = skia.Surface(pixels_HW4)  # draws into the array and keeps no reference to it
        canvas = surface.getCanvas()
        start = time.process_time()
        for run in runs:
            paint = skia.Paint(Color=skia.Color(*run.ink_rgb), AntiAlias=True)
            canvas.drawString(run.text, run.left_px, run.bottom_px, fonts[run.face_id, run.size_px], paint)
        return time.process_time() - start

    return ratio_to(peer, specs, assets)
