"""Chooses things inside photographs and writes on them: where they stand, how they are tilted, lit and curled."""

from collections.abc import Sequence
from typing import Literal, NamedTuple

import msgspec
import numpy as np

from fonts_manifest.manifest import FontFace
from render_engine.choose import PageChoices, photo_crop
from render_engine.distribution import Language, PageDistribution, Photo, SizeBand, TextSource, between, pick
from render_engine.fill import fill_page
from render_engine.spec import RGB, FilledBox, PageSpec, PlainGround, RenderError, Surface
from render_engine.template import load_template
from render_engine.warp import project

FLAT_SCALE = 2
"""The flat page has so many pixels to one of the picture: looked at nine times a pixel, strokes stay sharp."""
Quad = tuple[float, float, float, float, float, float, float, float]
Kind = Literal["sheet", "note", "board", "sign", "label", "screen"]


class _Habits(NamedTuple):
    """How a kind of thing is met with."""

    aspects: tuple[float, float]
    """Least and largest width over height."""
    tilt: float
    """Largest change of the length of a side by perspective, as a fraction."""
    roll_degrees: float
    bow: float
    shadow: float
    """Largest opacity of its shadow."""
    templates: tuple[str, ...]
    frame: tuple[float, float] = (0.0, 0.0)
    """Least and largest width of the frame around its page, as a fraction of the shorter side."""


_DOCUMENTS = ("paper", "exam", "book", "form", "notes", "financial_report")
HABITS: dict[Kind, tuple[_Habits, ...]] = {
    "sheet": (
        _Habits((0.65, 0.9), 0.25, 20, 0.05, 0.6, ("surfaces/sheet",)),
        _Habits((0.65, 0.8), 0.25, 20, 0.05, 0.6, _DOCUMENTS),
        _Habits((1.2, 1.5), 0.25, 12, 0.04, 0.6, ("surfaces/sheet", "textbook", "slide")),
    ),
    "note": (_Habits((0.85, 1.15), 0.2, 15, 0.07, 0.55, ("surfaces/note",)),),
    "board": (
        _Habits((1.1, 1.7), 0.25, 4, 0.0, 0.5, ("surfaces/board",)),
        _Habits((0.65, 0.85), 0.2, 4, 0.0, 0.5, ("surfaces/board",)),
    ),
    "sign": (
        _Habits((0.8, 1.3), 0.3, 4, 0.0, 0.4, ("surfaces/sign",)),
        _Habits((1.5, 2.4), 0.3, 4, 0.0, 0.4, ("surfaces/sign",)),
    ),
    "label": (_Habits((0.8, 1.6), 0.12, 8, 0.05, 0.25, ("surfaces/label",)),),
    "screen": (
        _Habits((1.3, 1.8), 0.25, 6, 0.0, 0.5, ("web", "web", "slide"), (0.015, 0.035)),  # a monitor
        _Habits((0.48, 0.6), 0.15, 15, 0.0, 0.5, ("app",), (0.025, 0.05)),  # a telephone
        _Habits((0.7, 0.78), 0.2, 12, 0.0, 0.5, ("app", "web", "magazine"), (0.03, 0.06)),  # a tablet
    ),
}
"""Ways to meet each kind of thing, each as likely as the others."""
FRAMES: tuple[RGB, ...] = ((24, 24, 27), (12, 12, 12), (58, 60, 66), (196, 198, 203))
MAX_FRAME_PX = 64


def sample_surface(
    rng: np.random.Generator,
    pages: PageDistribution,
    faces: Sequence[FontFace],
    texts: TextSource,
    lang: Language,
    photos: Sequence[Photo],
    width_px: int,
    height_px: int,
) -> PageSpec:
    """A page on a thing inside a photograph. Raises BadInput without photographs."""
    kind = pick(rng, pages.surfaces)
    habits = HABITS[kind][int(rng.integers(len(HABITS[kind])))]
    background = photo_crop(rng, pages, photos, width_px, height_px)
    quad, seen_width, seen_height = _stand(rng, habits, width_px, height_px, pages.surface_share)
    flat_width, flat_height = max(16, round(FLAT_SCALE * seen_width)), max(16, round(FLAT_SCALE * seen_height))
    bow = round(float(rng.uniform(-habits.bow, habits.bow)), 3) if habits.bow and rng.random() < 0.6 else 0.0
    bright = float(rng.uniform(0.82, 1.02)) if kind != "screen" else 1.0
    fall = rng.uniform(-0.14, 0.08, 2) if kind != "screen" else (0.0, 0.0)
    shadow = round(float(rng.uniform(0.15, 1)) * habits.shadow, 2)
    reach = max(2, round(min(width_px, height_px) / 50))
    surface = Surface(
        kind=kind,
        width_px=flat_width,
        height_px=flat_height,
        ground=PlainGround(rgb=(255, 255, 255)),  # its own below
        quad_px=quad,
        bow=bow,
        light=(round(bright, 3), round(bright + float(fall[0]), 3), round(bright + float(fall[1]), 3)),
        shadow_opacity=shadow,
        shadow_offset_px=(int(rng.integers(-reach, reach + 1)), int(rng.integers(0, reach + 1))),
        shadow_blur_px=round(float(rng.uniform(0.3, 0.8)) * reach, 2),
    )
    flat_pages = pages.model_copy(
        update={
            "size_bands": _flat_bands(pages, surface),
            "difficulty": None,
            "size_step_px": pages.size_step_px * FLAT_SCALE,
        }
    )
    name = habits.templates[int(rng.integers(len(habits.templates)))]
    page = PageChoices(rng, flat_pages, faces, texts, lang, 1.0)
    frame = min(MAX_FRAME_PX, round(between(rng, habits.frame) * min(flat_width, flat_height)))
    ground, canvas = fill_page(page, load_template(name), flat_width, flat_height, photos, frame_px=frame)
    if frame:
        whole = (0.0, 0.0, float(flat_width), float(flat_height))
        rgb = FRAMES[int(rng.integers(len(FRAMES)))]
        canvas.shapes.append(FilledBox(box_px=whole, border_rgb=rgb, border_px=frame))
    return PageSpec(
        width_px=width_px,
        height_px=height_px,
        family="compositional",
        background=background,
        blocks=tuple(canvas.blocks),
        hinting=pick(rng, pages.hinting),
        blend=pick(rng, pages.blend),
        shapes=tuple(canvas.shapes),
        layout=tuple(canvas.layout),
        template=name,
        surface=msgspec.structs.replace(surface, ground=ground),
    )


def _flat_bands(pages: PageDistribution, surface: Surface) -> tuple[SizeBand, ...]:
    """The bands say how large text is seen, and the flat page is larger; but what is turned away is seen smaller than
    the middle: no text is so small that it falls below the smallest band there, none so large that it rises above the
    largest where the thing is nearest."""
    scales = _seen_scales(surface)
    step = pages.size_step_px * FLAT_SCALE
    least = step * np.ceil(min(band.low_px for band in pages.bands) / scales[0] / step)
    most = max(least, step * np.floor(max(band.high_px for band in pages.bands) / scales[1] / step))
    return tuple(
        SizeBand(
            low_px=float(np.clip(band.low_px * FLAT_SCALE, least, most)),
            high_px=float(np.clip(band.high_px * FLAT_SCALE, least, most)),
            weight=band.weight,
        )
        for band in pages.bands
    )


def _seen_scales(surface: Surface) -> tuple[float, float]:
    """Least and largest height in px of the picture that a pixel of the flat page has."""
    across, down = np.meshgrid((0.0, 0.5, 1.0), (0.0, 0.5, 1.0))
    points = np.stack((across.ravel() * surface.width_px, down.ravel() * surface.height_px), axis=1)
    try:
        seen = project(surface)
    except RenderError:  # too small a thing to be drawn: told when it is
        return 1 / FLAT_SCALE, 1 / FLAT_SCALE
    middle = seen(points)
    right, below = (seen(points + np.array(step)) - middle for step in ((1.0, 0.0), (0.0, 1.0)))
    scales = (right[:, 0] * below[:, 1] - right[:, 1] * below[:, 0]) / np.hypot(right[:, 0], right[:, 1])
    return float(scales.min()), float(scales.max())


def _stand(
    rng: np.random.Generator, habits: _Habits, width_px: int, height_px: int, shares: tuple[float, float]
) -> tuple[Quad, float, float]:
    """(corners in the picture, width, height of the thing as seen): inside the picture, convex, as large as asked."""
    aspect = between(rng, habits.aspects)
    # A side shrinks towards the far end: by turning about the upright axis, and about the level one.
    turn, nod = rng.uniform(-habits.tilt, habits.tilt, 2)
    half_x, half_y = aspect / 2, 0.5
    left, right = half_y * (1 - max(0.0, turn)), half_y * (1 + min(0.0, turn))
    top, bottom = half_x * (1 - max(0.0, nod)), half_x * (1 + min(0.0, nod))
    # what is turned away is also narrower
    narrow_x, narrow_y = 1 - abs(turn) / 2, 1 - abs(nod) / 2
    corners = np.array([(-top, -left), (top, -right), (bottom, right), (-bottom, left)]) * (narrow_x, narrow_y)
    angle = np.radians(rng.uniform(-habits.roll_degrees, habits.roll_degrees))
    turned = np.array([[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]])
    corners = corners @ turned.T
    room = (1 + 2 * habits.bow) * np.ptp(corners, axis=0)
    scale = min(width_px / room[0], height_px / room[1]) * between(rng, shares)
    corners = (corners - corners.min(axis=0)) * scale
    spare = np.array((width_px, height_px)) - np.ptp(corners, axis=0)
    hang = habits.bow * np.ptp(corners[:, 1])
    low, high = np.array((0.0, min(hang, spare[1] / 2))), np.array((spare[0], max(spare[1] - hang, spare[1] / 2)))
    corners = np.round(corners + rng.uniform(low, high), 2)
    sides = np.hypot(*(np.roll(corners, -1, axis=0) - corners).T)
    flat = corners.ravel().tolist()
    quad = (flat[0], flat[1], flat[2], flat[3], flat[4], flat[5], flat[6], flat[7])
    return quad, float(sides[0] + sides[2]) / 2, float(sides[1] + sides[3]) / 2
