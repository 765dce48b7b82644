"""The package's only randomness, with `choose` and `fill`: from a distribution over pages to one `PageSpec`."""

from collections.abc import Mapping, Sequence
from typing import TypeVar

import msgspec
import numpy as np

from fonts_manifest.manifest import FontFace
from render_engine.arrange import columns, mosaic, sparse
from render_engine.choose import PageChoices, photo_crop
from render_engine.distribution import DegradationRanges, Language, PageDistribution, Photo, TextSource, between, pick
from render_engine.fill import fill_page
from render_engine.spec import (
    Degradation,
    FilledBox,
    GradientGround,
    Outline,
    PageSpec,
    PaperGround,
    PlainGround,
    Plate,
    Shadow,
)
from render_engine.surfaces import sample_surface
from render_engine.template import bundled_templates, load_template

T = TypeVar("T")


def sample_spec(
    rng: np.random.Generator,
    pages: PageDistribution,
    faces: Sequence[FontFace],
    texts: TextSource,
    photos: Sequence[Photo],
) -> PageSpec:
    """One page: every choice behind it is made here.

    Raises BadInput when a language has no face that covers it, or photographs are wanted and there are none.
    """
    width, height = _page_size(rng, pages)
    lang = pick(rng, pages.languages)
    family = pick(rng, pages.families)
    if family == "complex":
        return _finish(rng, pages, _complex(rng, pages, faces, texts, lang, photos, width, height))
    if family == "compositional":
        return _finish(rng, pages, sample_surface(rng, pages, faces, texts, lang, photos, width, height))
    background = photo_crop(rng, pages, photos, width, height) if family == "background" else _ground(rng, pages)
    opacity = 1.0
    if rng.random() < pages.translucent:
        opacity = round(between(rng, pages.opacity), 2)
    page = PageChoices(rng, pages, faces, texts, lang, opacity)
    margin = int(rng.integers(pages.margin_px[0], pages.margin_px[1] + 1))
    margin = min(margin, min(width, height) // 6)
    area = (float(margin), float(margin), float(width - margin), float(height - margin))
    layout = pick(rng, pages.layouts)
    if layout == "mosaic":
        blocks = mosaic(page, area)
    elif layout == "sparse":
        blocks = sparse(page, area)
    else:
        blocks = columns(page, area, listed=layout == "list")
    spec = PageSpec(
        width_px=width,
        height_px=height,
        family=family,
        background=background,
        blocks=tuple(blocks),
        hinting=pick(rng, pages.hinting),
        blend=pick(rng, pages.blend),
    )
    return _finish(rng, pages, spec)


def _page_size(rng: np.random.Generator, pages: PageDistribution) -> tuple[int, int]:
    weights = pages.page_size_weights
    equal = len(set(weights)) == 1
    at = int(rng.integers(len(weights))) if equal else pick(rng, dict(enumerate(weights)))
    return pages.page_sizes_px[at][:2]


def _complex(
    rng: np.random.Generator,
    pages: PageDistribution,
    faces: Sequence[FontFace],
    texts: TextSource,
    lang: Language,
    photos: Sequence[Photo],
    width: int,
    height: int,
) -> PageSpec:
    """A structured page from one of the templates."""
    name = pick(rng, pages.templates or dict.fromkeys(bundled_templates(), 1.0))
    page = PageChoices(rng, pages, faces, texts, lang, 1.0)
    ground, canvas = fill_page(page, load_template(name), width, height, photos)
    return PageSpec(
        width_px=width,
        height_px=height,
        family="complex",
        background=ground,
        blocks=tuple(canvas.blocks),
        hinting=pick(rng, pages.hinting),
        blend=pick(rng, pages.blend),
        shapes=tuple(canvas.shapes),
        layout=tuple(canvas.layout),
        template=name,
    )


def _finish(rng: np.random.Generator, pages: PageDistribution, spec: PageSpec) -> PageSpec:
    """The page with its effects, anti-aliasing and degradation. Nothing is drawn for what cannot happen."""
    if spec.family == "background" and _varies(pages.effects, "none"):
        spec = _with_effect(rng, spec, pick(rng, pages.effects))
    if spec.surface is None and _varies(pages.antialias, "grey"):
        spec = msgspec.structs.replace(spec, antialias=pick(rng, pages.antialias))
    if pages.degraded and rng.random() < pages.degraded:
        spec = msgspec.structs.replace(spec, degradation=_degradation(rng, pages.degradation))
    return spec


def _varies(weights: Mapping[T, float], usual: T) -> bool:
    return any(weight > 0 for key, weight in weights.items() if key != usual)


def _with_effect(rng: np.random.Generator, spec: PageSpec, effect: str) -> PageSpec:
    if effect == "scrim":
        grey = int(rng.choice((0, 0, 255)))
        veil = FilledBox(
            box_px=(0.0, 0.0, float(spec.width_px), float(spec.height_px)),
            rgb=(grey, grey, grey),
            opacity=round(float(rng.uniform(0.35, 0.65)), 2),
        )
        return msgspec.structs.replace(spec, shapes=(veil,))
    blocks = spec.blocks
    if effect == "plate":
        grey = int(rng.choice((0, 20, 240, 255)))
        opacity, pad = round(float(rng.uniform(0.5, 1)), 2), round(float(rng.uniform(0.05, 0.2)), 2)
        plate = Plate(rgb=(grey, grey, grey), opacity=opacity, pad_em=pad)
        blocks = tuple(msgspec.structs.replace(block, plate=plate) for block in blocks)
    elif effect == "shadow":
        reach = int(rng.integers(1, 3))
        shadow = Shadow(opacity=round(float(rng.uniform(0.4, 0.8)), 2), offset_px=(reach, reach))
        blocks = tuple(msgspec.structs.replace(block, shadow=shadow) for block in blocks)
    elif effect == "outline":
        # a border of a pixel closes the counters of letters smaller than this
        blocks = tuple(
            msgspec.structs.replace(block, outline=Outline()) if block.size_px >= 10 else block for block in blocks
        )
    return msgspec.structs.replace(spec, blocks=blocks)


def _degradation(rng: np.random.Generator, ranges: DegradationRanges) -> Degradation:
    happens = rng.random(4) < 0.5
    happens[int(rng.integers(4))] = True
    blur, resample, noise = (
        round(between(rng, limits), 2) for limits in (ranges.blur_sigma_px, ranges.resample, ranges.noise_sigma)
    )
    quality = int(rng.integers(ranges.jpeg_quality[0], ranges.jpeg_quality[1] + 1))
    return Degradation(
        blur_sigma_px=blur if happens[0] else 0.0,
        resample=resample if happens[1] else 1.0,
        noise_sigma=noise if happens[2] else 0.0,
        noise_seed=int(rng.integers(1 << 31)),
        jpeg_quality=quality if happens[3] else None,
    )


def _ground(rng: np.random.Generator, pages: PageDistribution) -> PlainGround | GradientGround | PaperGround:
    kind = pick(rng, pages.grounds) if _varies(pages.grounds, "plain") else "plain"
    first = _plain(rng)
    if kind == "gradient":
        # an end not far from the start: text has to be read on both
        change = rng.integers(-70, 71, 3)
        red, green, blue = np.clip(np.array(first.rgb) + change, 0, 255).tolist()
        turns = ((1, 0), (0, 1), (1, 1), (-1, 1), (-1, 0), (0, -1))
        return GradientGround(
            start_rgb=first.rgb, end_rgb=(red, green, blue), direction=turns[int(rng.integers(len(turns)))]
        )
    if kind == "paper":
        grain, cell = int(rng.integers(4, 22)), int(rng.integers(6, 80))
        return PaperGround(rgb=first.rgb, seed=int(rng.integers(1 << 31)), grain=grain, cell_px=cell)
    return first


def _plain(rng: np.random.Generator) -> PlainGround:
    """White, paper, dark screen or any colour."""
    kind = pick(rng, {"white": 0.4, "paper": 0.3, "dark": 0.15, "colour": 0.15})
    if kind == "white":
        return PlainGround(rgb=(255, 255, 255))
    if kind == "paper":
        level = int(rng.integers(225, 253))
        warmth = int(rng.integers(0, 22))
        return PlainGround(rgb=(level, level - warmth // 2, level - warmth))
    low, high = (0, 60) if kind == "dark" else (0, 256)
    red, green, blue = rng.integers(low, high, 3).tolist()
    return PlainGround(rgb=(red, green, blue))
