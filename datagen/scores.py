"""Every score a rule may use, measured only when a rule asks, cheap ones first."""

import math
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
import numpy.typing as npt

from datagen.decode import image_format, image_size
from datagen.density import Density, DensityClass, character_bounds, density_class, glance, measure_density
from datagen.ingest import IngestConfig, RealItem, check_unchanged, decode_item, item_bytes
from datagen.marks import repeated_marks
from datagen.ocr import Quad, open_recognizer
from datagen.quality import Tones, aspect, blank_share, jpeg_history, jpeg_quality, noise, sharpness, tones, upscale
from datagen.rules import Interval, Kind, Name, OneOf, Value

HEADER, PIXELS, SPECTRUM, MARKS, TEXT = range(5)
"""Stages by cost, about 0.1, 10, 30, 20 and 500 ms a megapixel; reading adds 30 ms a line."""


def _name(stage: int, meaning: str, kind: Kind = "number") -> Name:
    return Name(kind=kind, stage=stage, meaning=meaning)


NAMES: dict[str, Name] = {
    "licence": _name(HEADER, "licence of the picture, as its place or its row states it", "text"),
    "origin": _name(HEADER, "file, member, row or page that the picture comes from", "text"),
    "format": _name(HEADER, "png, jpeg, webp, gif, bmp, tiff, ppm, jpeg2000, avif or pdf", "text"),
    "width": _name(HEADER, "px, upright"),
    "height": _name(HEADER, "px, upright"),
    "min_side": _name(HEADER, "shorter side, px"),
    "megapixels": _name(HEADER, "width x height / 1,000,000"),
    "aspect": _name(HEADER, "long side over short side, 1 and up"),
    "jpeg_quality": _name(HEADER, "1 to 100 by the file's quantisation tables; none for other formats"),
    "luma_mean": _name(PIXELS, "0 black to 255 white"),
    "luma_range": _name(PIXELS, "1st to 99th percentile of luma, 0 to 255"),
    "clipped_dark": _name(PIXELS, "share of pixels at black, 0 to 1"),
    "clipped_bright": _name(PIXELS, "share of pixels at white, 0 to 1; paper counts"),
    "saturation": _name(PIXELS, "mean, 0 grey to 1"),
    "entropy": _name(PIXELS, "of the luma histogram, bits, 0 to 8"),
    "blank_share": _name(PIXELS, "share of 32 px tiles of one colour, 0 to 1"),
    "noise": _name(PIXELS, "visible grain, luma levels"),
    "sharpness": _name(SPECTRUM, "log ratio of spectral powers, -5 to 0, higher is sharper; none when blank"),
    "upscale": _name(SPECTRUM, "how many times larger the picture is than its detail, 1 and up; none when blank"),
    "jpeg_history": _name(SPECTRUM, "quality of a JPEG that the pixels once were; none when they show none"),
    "repeated_marks": _name(MARKS, "strength of a faint mark that repeats all over the picture, 0 to 1"),
    "characters": _name(TEXT, "read by OCR, without blanks"),
    "characters_per_mp": _name(TEXT, "characters a megapixel"),
    "density_class": _name(TEXT, "none, sparse, medium or dense, by characters_per_mp", "text"),
    "text_area": _name(TEXT, "share of the picture inside lines of text, 0 to 1"),
    "glyph_height_px": _name(TEXT, "median height of the lines over their characters; none without text"),
    "han_share": _name(TEXT, "Han characters among all, 0 to 1; none without text"),
    "read_score": _name(TEXT, "the reader's mean confidence, 0 to 1; none without text"),
    "repeated_text": _name(TEXT, "share of characters in lines that stand there three times and more"),
}
ALIASES = {"chars": "characters", "chars_per_mp": "characters_per_mp"}
KNOWN = NAMES | {alias: NAMES[name] for alias, name in ALIASES.items()}

_DERIVED = ("min_side", "megapixels", "aspect")
COLUMNS = tuple(name for name in NAMES if name not in _DERIVED)
"""Scores that are columns of their own."""

GLANCE, DETECT, READ = 1, 2, 3
"""How well the text is known: by a look at the shrunk picture, by the detector, by reading it."""


@dataclass(slots=True)
class Picture:
    """One picture of a corpus and what has been measured of it so far. Reading it may raise ImageProblem."""

    item: RealItem
    config: IngestConfig
    recognizer: str
    precision: int = GLANCE
    """How well text has to be known from here on; `lookup` answers with intervals until it is READ."""
    known: dict[str, float | str | None] = field(default_factory=dict)
    """Scores by name, those that are settled."""
    density: Density | None = None
    _data: bytes | None = None
    _image_HW3: npt.NDArray[np.uint8] | None = None
    _glanced: tuple[list[Quad], bool] | None = None
    _quads: list[Quad] | None = None

    @classmethod
    def of_bytes(cls, data: bytes, like: "Picture") -> "Picture":
        """The encoded picture `data`, treated as `like` is."""
        picture = cls(item=replace(like.item, page=None), config=like.config, recognizer=like.recognizer)
        picture._data = data
        return picture

    def data(self) -> bytes:
        """The encoded picture or document."""
        if self._data is None:
            data = item_bytes(self.item, self.config)
            check_unchanged(self.item, data)
            self._data = data
        return self._data

    def image_HW3(self) -> npt.NDArray[np.uint8]:
        """Decoded, uint8 sRGB."""
        if self._image_HW3 is None:
            self._image_HW3 = decode_item(self.item, self.data(), self.config)
        return self._image_HW3

    def lookup(self, name: str) -> Value:
        """The score called `name` (of `KNOWN`)."""
        name = ALIASES.get(name, name)
        if name in self.known:
            return self.known[name]
        stage = NAMES[name].stage
        if stage == TEXT:
            return self._text(name)
        if stage == HEADER:
            found = self._header()
        elif stage == PIXELS:
            found = self._pixels()
        else:
            found = self._spectrum() if stage == SPECTRUM else self._marks()
        self.known.update({key: _finite(value) for key, value in found.items()})
        return self.known[name]

    def read(self) -> Density:
        """The text, read in full."""
        self.precision = READ
        self._text("characters")
        assert self.density is not None  # noqa: S101 - _text has just read it
        return self.density

    def columns(self) -> dict[str, Any]:
        """What is known, as columns of `schema.SCHEMA`."""
        return {name: self.known.get(name) for name in COLUMNS if self.known.get(name) is not None}

    def _header(self) -> dict[str, float | str | None]:
        item = self.item
        if item.page is not None:
            height, width = self.image_HW3().shape[:2]
            kind, quality = "pdf", None
        else:
            width, height = image_size(self.data())
            kind, quality = image_format(self.data()), jpeg_quality(self.data())
        return {
            "licence": item.licence,
            "origin": item.origin,
            "format": kind,
            "width": width,
            "height": height,
            "min_side": min(width, height),
            "megapixels": width * height / 1e6,
            "aspect": aspect(width, height),
            "jpeg_quality": quality,
        }

    def _pixels(self) -> dict[str, float | str | None]:
        image_HW3 = self.image_HW3()
        measured: Tones = tones(image_HW3)
        found: dict[str, float | str | None] = {name: getattr(measured, name) for name in Tones.__slots__}
        return found | {"blank_share": blank_share(image_HW3), "noise": noise(image_HW3)}

    def _spectrum(self) -> dict[str, float | str | None]:
        image_HW3 = self.image_HW3()
        return {
            "sharpness": sharpness(image_HW3),
            "upscale": upscale(image_HW3),
            "jpeg_history": jpeg_history(image_HW3) if self.item.page is None else None,
        }

    def _marks(self) -> dict[str, float | str | None]:
        return {"repeated_marks": repeated_marks(self.image_HW3())}

    def _text(self, name: str) -> Value:
        image_HW3 = self.image_HW3()
        recognizer = open_recognizer(self.recognizer)
        if self._glanced is None and self._quads is None and self.precision == GLANCE:
            quads, shrunk = glance(recognizer, image_HW3)
            self._glanced = quads, shrunk
            if not shrunk:
                self._quads = quads
        if self._quads is None and self.precision > GLANCE:
            self._quads = recognizer.detect(image_HW3)
        if self._quads is not None and (self.precision == READ or not self._quads):
            self.density = measure_density(recognizer, image_HW3, self._quads)
            self.known.update({key: _finite(value) for key, value in text_scores(self.density).items()})
            return self.known[name]
        if self._quads is not None:
            bounds = character_bounds(self._quads, glanced=False)
        else:
            assert self._glanced is not None  # noqa: S101 - one of the two has looked
            bounds = character_bounds(self._glanced[0], glanced=True)
        return _bounded(name, bounds, image_HW3.shape[0] * image_HW3.shape[1] / 1e6)


def text_scores(density: Density) -> dict[str, float | str | None]:
    """The scores of stage TEXT."""
    return {
        "characters": density.characters,
        "characters_per_mp": density.characters_per_mp,
        "density_class": density.density_class,
        "text_area": density.text_area,
        "glyph_height_px": density.median_glyph_height_px,
        "han_share": density.han_share if density.characters else None,
        "read_score": density.read_score,
        "repeated_text": density.repeated_text,
    }


_CLASSES: tuple[DensityClass, ...] = ("none", "sparse", "medium", "dense")


def _bounded(name: str, bounds: tuple[float, float], megapixels: float) -> Value:
    """What a count of characters between `bounds` says of a score."""
    fewest, most = bounds
    per_mp = fewest / megapixels, most / megapixels
    if name == "characters":
        return Interval(fewest, most)
    if name == "characters_per_mp":
        return Interval(*per_mp)
    if name == "density_class":
        first, last = (_CLASSES.index(density_class(round(n), p)) for n, p in zip(bounds, per_mp, strict=True))
        return OneOf(frozenset(_CLASSES[first : last + 1]))
    return Interval(0.0, math.inf if name == "glyph_height_px" else 1.0)


def _finite(value: float | str | None) -> float | str | None:
    return None if isinstance(value, float) and not math.isfinite(value) else value
