"""The package's only randomness, with `choose` and `fill`: from a distribution over pages to one `PageSpec`."""

from collections.abc import Sequence

import numpy as np

from fonts_manifest.manifest import FontFace
from render_engine.arrange import columns, mosaic, sparse
from render_engine.choose import PageChoices, photo_crop
from render_engine.distribution import Language, PageDistribution, Photo, TextSource, between, pick
from render_engine.fill import fill_page
from render_engine.spec import PageSpec, PlainGround
from render_engine.template import bundled_templates, load_template


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
    width, height = pages.page_sizes_px[int(rng.integers(len(pages.page_sizes_px)))]
    lang = pick(rng, pages.languages)
    family = pick(rng, pages.families)
    if family == "complex":
        return _complex(rng, pages, faces, texts, lang, photos, width, height)
    background = photo_crop(rng, pages, photos, width, height) if family == "background" else _plain(rng)
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
    return PageSpec(
        width_px=width,
        height_px=height,
        family=family,
        background=background,
        blocks=tuple(blocks),
        hinting=pick(rng, pages.hinting),
        blend=pick(rng, pages.blend),
    )


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
