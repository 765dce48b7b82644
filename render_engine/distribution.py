"""Which pages are drawn and how often: the distribution behind every sampled spec."""

import bisect
import itertools
from collections.abc import Mapping
from typing import Literal, Protocol, TypeVar

import numpy as np
from pydantic import Field, PositiveFloat, model_validator

from fonts_manifest.config import Config

Language = Literal["en", "zh", "mixed"]
T = TypeVar("T")


class TextSource(Protocol):
    """Where texts come from."""

    def draw(self, rng: np.random.Generator, lang: str, characters: int) -> str:
        """About `characters` characters of NFC text, paragraphs separated by a line feed, never cut inside a word."""
        ...


class Photo(Protocol):
    """What the sampler must know of a photograph."""

    @property
    def photo_id(self) -> str:
        """First 16 hex digits of the SHA-256 of its file."""
        ...

    @property
    def width_px(self) -> int:
        """Width of the whole photograph."""
        ...

    @property
    def height_px(self) -> int:
        """Height of the whole photograph."""
        ...


class SizeBand(Config):
    """A range of text sizes and how often it is drawn."""

    low_px: float = Field(ge=2, le=200)
    """Smallest em in px."""
    high_px: float = Field(ge=2, le=200)
    """Largest em in px, itself included."""
    weight: float = Field(gt=0)
    """Relative frequency of the band among the blocks of body text."""

    @model_validator(mode="after")
    def _ordered(self) -> "SizeBand":
        if self.high_px < self.low_px:
            raise ValueError(f"high_px must not be less than low_px, got {self.low_px} to {self.high_px}")
        return self


DIFFICULTIES: dict[Literal["f8", "f16", "f32"], tuple[SizeBand, ...]] = {
    "f8": (
        SizeBand(low_px=5, high_px=8, weight=0.4),
        SizeBand(low_px=8, high_px=12, weight=0.4),
        SizeBand(low_px=12, high_px=20, weight=0.2),
    ),
    "f16": (
        SizeBand(low_px=5, high_px=8, weight=0.15),
        SizeBand(low_px=8, high_px=12, weight=0.4),
        SizeBand(low_px=12, high_px=20, weight=0.45),
    ),
    "f32": (
        SizeBand(low_px=8, high_px=12, weight=0.2),
        SizeBand(low_px=12, high_px=20, weight=0.5),
        SizeBand(low_px=20, high_px=32, weight=0.3),
    ),
}
"""Sizes of body text for an autoencoder whose latent cell is 8, 16 or 32 px wide: most text spans from half a cell to
two and a half cells for f8, from half a cell to one and a quarter for f16, and from a third of a cell to one for f32;
the shares shift to where the text is hard but not lost. A starting point, not a measurement: weigh `size_bands` of your
own by what your model fails on."""


class DegradationRanges(Config):
    """How bad pictures may become; each of the four befalls half of the degraded pictures, and one at least each."""

    blur_sigma_px: tuple[float, float] = (0.3, 0.9)
    """Gaussian blur."""
    resample: tuple[float, float] = (1.15, 1.8)
    """Times smaller and larger again."""
    noise_sigma: tuple[float, float] = (1.0, 6.0)
    """In 8-bit steps."""
    jpeg_quality: tuple[int, int] = (50, 95)
    """As in libjpeg."""

    @model_validator(mode="after")
    def _ordered(self) -> "DegradationRanges":
        for name, least, most in (
            ("blur_sigma_px", 0, 20),
            ("resample", 1, 8),
            ("noise_sigma", 0, 64),
            ("jpeg_quality", 1, 100),
        ):
            low, high = getattr(self, name)
            if not least <= low <= high <= most:
                raise ValueError(
                    f"{name} must hold two numbers in order between {least} and {most}, got {low} and {high}"
                )
        return self


class PageDistribution(Config):
    """Which pages are drawn, and how often. Weights need not sum to 1."""

    page_sizes_px: tuple[tuple[int, int] | tuple[int, int, float], ...] = Field(default=((256, 256),), min_length=1)
    """Width and height of the pictures, 32 to 4,096 px, and a weight where they are not equally likely:
    [[512, 512], [2048, 512, 0.5]]."""
    size_bands: tuple[SizeBand, ...] = Field(
        default=(
            SizeBand(low_px=5, high_px=8, weight=0.3),
            SizeBand(low_px=8, high_px=12, weight=0.4),
            SizeBand(low_px=12, high_px=20, weight=0.3),
        ),
        min_length=1,
    )
    """Sizes of body text, the em in px (5 to 20 in the paper, section 3). Headings over columns and lists may be larger
    up to the largest, in templates as their `size` says."""
    difficulty: Literal["f8", "f16", "f32"] | None = None
    """Compression factor of the autoencoder to be trained: takes the bands of `DIFFICULTIES` instead of
    `size_bands`."""
    size_step_px: PositiveFloat = 0.5
    """Sizes are multiples of this: each size of a face is a strike that must be rasterised once a process."""
    languages: dict[Language, float] = Field(default={"en": 0.4, "zh": 0.4, "mixed": 0.2})
    """Weights of English, Chinese and Chinese with English words."""
    families: dict[Literal["background", "pure", "compositional", "complex"], float] = Field(
        default={"background": 0.7, "pure": 0.3}
    )
    """Weights of text over photographs (paper, section 3), over plain grounds, on things inside photographs, and in
    structured pages (Qwen-Image, section 3.4)."""
    templates: dict[str, float] = Field(default={})
    """Weights of the templates of complex pages: bundled names, or paths of files of yours ending in .yaml (see
    docs/templates.md). Empty: every bundled one, equally often."""
    layouts: dict[Literal["columns", "list", "mosaic", "sparse"], float] = Field(
        default={
            "columns": 0.5,
            "list": 0.15,
            "mosaic": 0.25,
            "sparse": 0.1,
        }
    )
    """Weights of body text in columns, lists, many blocks of different sizes and colours, and a few lines alone."""
    grounds: dict[Literal["plain", "gradient", "paper"], float] = Field(default={"plain": 1.0})
    """Weights of the grounds of pure pages: one colour, two that run into each other, the texture of paper."""
    effects: dict[Literal["none", "plate", "scrim", "shadow", "outline"], float] = Field(default={"none": 1.0})
    """Weights of what designers put between text and a photograph: a plate under every line, a veil over the whole
    picture, a shadow or an outline of the letters. Only for the family background."""
    antialias: dict[Literal["grey", "lcd_rgb", "lcd_bgr"], float] = Field(default={"grey": 1.0})
    """Weights of grey and of sub-pixel anti-aliasing for a screen's order of stripes; text on things in photographs
    is always grey."""
    degraded: float = Field(default=0.0, ge=0, le=1)
    """Probability that the finished picture is degraded: 0, because the picture is what the autoencoder must return."""
    degradation: DegradationRanges = DegradationRanges()
    """How much, where it is."""
    surfaces: dict[Literal["sheet", "note", "board", "sign", "label", "screen"], float] = Field(
        default={"sheet": 0.3, "note": 0.15, "board": 0.15, "sign": 0.15, "label": 0.1, "screen": 0.15}
    )
    """Weights of the things that carry the text of compositional pages."""
    surface_share: tuple[float, float] = (0.75, 0.98)
    """Least and largest part of the picture's width or height (whichever is reached first) that the thing takes."""
    columns: dict[int, float] = Field(default={1: 0.6, 2: 0.3, 3: 0.1})
    """Weights of the number of columns (1 to 6); a column narrower than ten em is given up."""
    heading: float = Field(default=0.4, ge=0, le=1)
    """Probability of a heading over columns and lists."""
    margin_px: tuple[int, int] = (4, 20)
    """Least and largest margin at every edge."""
    align: dict[Literal["start", "center", "end", "justify"], float] = Field(
        default={
            "start": 0.5,
            "justify": 0.35,
            "center": 0.1,
            "end": 0.05,
        }
    )
    """Weights of the alignment of body text."""
    line_pitch_em: tuple[float, float] = (1.15, 1.8)
    """Least and largest distance of two baselines, in em."""
    letter_spacing: float = Field(default=0.1, ge=0, le=1)
    """Probability that a block is spaced out or in, by -0.02 to 0.1 em."""
    hyphenation: float = Field(default=0.7, ge=0, le=1)
    """Probability that a page divides English words in its justified blocks, as books and journals do; a quarter of it
    in ragged ones."""
    squeezed: float = Field(default=0.5, ge=0, le=1)
    """Probability that a page with Chinese squeezes its full-width marks, as InDesign, Word and newer browsers do."""
    autospaced: float = Field(default=0.4, ge=0, le=1)
    """Probability that a page with Chinese sets Latin words and numbers off by a quarter or an eighth of an em."""
    emphasis: float = Field(default=0.15, ge=0, le=1)
    """Probability that a paragraph or list has bold or italic words, where its family has such faces."""
    inks: dict[Literal["dark", "light", "colour"], float] = Field(default={"dark": 0.5, "light": 0.3, "colour": 0.2})
    """Weights of nearly black, nearly white and coloured ink; the contrast floor moves each when it must."""
    min_contrast: tuple[float, float] = (3.0, 4.5)
    """Least and largest floor of the WCAG contrast of a block; any ground allows 4.58 at full opacity."""
    translucent: float = Field(default=0.2, ge=0, le=1)
    """Probability that the text of a page is not opaque."""
    opacity: tuple[float, float] = (0.7, 0.98)
    """Least and largest opacity of translucent text."""
    hinting: dict[Literal["none", "light", "full"], float] = Field(default={"none": 0.7, "light": 0.2, "full": 0.1})
    """Weights of the hinting of a page."""
    blend: dict[Literal["srgb", "linear"], float] = Field(default={"srgb": 0.8, "linear": 0.2})
    """Weights of mixing coverage in sRGB, as desktops do, or in linear light."""
    faces_per_shard: int = Field(default=12, ge=2)
    """Faces drawn for one shard (`faces_of_shard`): every face at every size is a strike to rasterise, and 1,000 pages
    over 64 strikes cost 1 ms a page for it; the next shard has others."""
    sizes_per_band: int = Field(default=3, ge=1)
    """Sizes of every band drawn for one shard (`sizes_of_shard`), for the same reason; others in the next."""
    photo_scale: tuple[float, float] = (0.8, 3.0)
    """Least and largest number of photograph pixels to a picture pixel, as far as the photograph is large enough."""

    @model_validator(mode="after")
    def _sensible(self) -> "PageDistribution":
        for name in (
            "languages",
            "families",
            "layouts",
            "columns",
            "align",
            "inks",
            "hinting",
            "blend",
            "surfaces",
            "grounds",
            "effects",
            "antialias",
        ):
            weights = getattr(self, name)
            if not weights or min(weights.values()) < 0 or sum(weights.values()) <= 0:
                raise ValueError(f"{name} must hold weights of at least 0 that do not sum to 0, got {weights}")
        for name, least, most in (
            ("margin_px", 0, 1000),
            ("line_pitch_em", 0.8, 10),
            ("min_contrast", 1, 21),
            ("opacity", 0.05, 1),
            ("photo_scale", 0.05, 100),
            ("surface_share", 0.1, 1),
        ):
            low, high = getattr(self, name)
            if not least <= low <= high <= most:
                raise ValueError(
                    f"{name} must hold two numbers in order between {least} and {most}, got {low} and {high}"
                )
        if not all(1 <= count <= 6 for count in self.columns):
            raise ValueError(f"columns must be 1 to 6, got {sorted(self.columns)}")
        if not all(32 <= side <= 4096 for size in self.page_sizes_px for side in size[:2]):
            raise ValueError(f"page_sizes_px must lie between 32 and 4096, got {self.page_sizes_px}")
        if not all(0 < weight < float("inf") for weight in self.page_size_weights):
            raise ValueError(f"weights of page_sizes_px must be more than 0, got {self.page_sizes_px}")
        if self.difficulty is not None and "size_bands" in self.model_fields_set:
            raise ValueError("difficulty brings its own size_bands: give one of the two")
        return self

    @property
    def page_size_weights(self) -> tuple[float, ...]:
        """The weight of every page size."""
        return tuple(size[2] if len(size) == 3 else 1.0 for size in self.page_sizes_px)

    @property
    def bands(self) -> tuple[SizeBand, ...]:
        """The bands that sizes are drawn from."""
        return self.size_bands if self.difficulty is None else DIFFICULTIES[self.difficulty]


def pick(rng: np.random.Generator, weights: Mapping[T, float]) -> T:
    """One of the keys, as often as its weight says."""
    total = list(itertools.accumulate(weights.values()))
    return list(weights)[bisect.bisect_right(total, rng.random() * total[-1])]


def between(rng: np.random.Generator, limits: tuple[float, float]) -> float:
    """A number between the two."""
    return float(rng.uniform(limits[0], limits[1]))
