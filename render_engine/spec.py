"""What a picture is before it is drawn (`PageSpec`) and after (`RenderedPage`).

Coordinates are pixels of the finished picture, x to the right, y down, (0, 0) the outer corner of the first pixel.
Colours are 8-bit sRGB triples.
"""

from dataclasses import dataclass
from typing import Literal

import msgspec
import numpy as np
import numpy.typing as npt

Reason = Literal[
    "missing_glyph", "low_contrast", "right_to_left", "no_text", "unknown_face", "unknown_photo", "bad_spec"
]
"""missing_glyph: a character no face of the block can draw. low_contrast: no ink reaches the block's floor.
right_to_left: the script is not supported. no_text: nothing fits its box. unknown_face, unknown_photo: the spec names
what the assets lack. bad_spec: a size, box or ratio out of range."""


class RenderError(Exception):
    """A picture that cannot be made as specified: an expected drop, counted by its label."""

    def __init__(self, reason: Reason, detail: str = "") -> None:
        super().__init__(f"{reason}: {detail}" if detail else reason)
        self.reason = reason
        """Label for manifests."""

    def __reduce__(self) -> tuple[type["RenderError"], tuple[str, str]]:
        """Travels between processes whole."""
        return RenderError, (self.reason, str(self).removeprefix(self.reason).removeprefix(": "))


RGB = tuple[int, int, int]
Box = tuple[float, float, float, float]
"""x0, y0, x1, y1 in px, x1 and y1 exclusive."""


class PhotoCrop(msgspec.Struct, frozen=True, kw_only=True, tag="photo", forbid_unknown_fields=True):
    """A rectangle of a photograph, resampled to the size of the page."""

    photo_id: str
    """First 16 hex digits of the SHA-256 of the photograph's file."""
    box_px: tuple[int, int, int, int]
    """x0, y0, x1, y1 in pixels of the photograph."""
    mirrored: bool = False


class PlainGround(msgspec.Struct, frozen=True, kw_only=True, tag="plain", forbid_unknown_fields=True):
    """One colour everywhere."""

    rgb: RGB


class TextBlock(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A run of paragraphs set in one box; what does not fit the box is not drawn (never cut inside a line)."""

    text: str
    """NFC text; paragraphs are separated by a line feed."""
    lang: Literal["en", "zh", "mixed"]
    box_px: Box
    face_ids: tuple[str, ...]
    """The face of the block, then its fallbacks in order, for characters the first cannot draw."""
    size_px: float
    """The em in px, 5 to 20 in the paper (section 3)."""
    line_pitch_em: float = 1.4
    """Distance of two baselines over the em."""
    align: Literal["start", "center", "end", "justify"] = "start"
    first_line_indent_em: float = 0.0
    letter_spacing_em: float = 0.0
    ink_rgb: RGB = (0, 0, 0)
    """The colour asked for; `paint` moves it away from the ground when the contrast floor demands it."""
    opacity: float = 1.0
    min_contrast: float = 1.0
    """Floor of the WCAG 2.2 contrast ratio (1 to 21) of ink against the ground under each line; 1 turns it off."""


class PageSpec(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Every choice behind one picture. `render(spec, assets)` is a pure function of it."""

    version: Literal[1] = 1
    width_px: int
    height_px: int
    family: Literal["background", "pure"]
    """background: text over a photograph (paper, section 3); pure: over a plain ground (Qwen-Image, section 3.4)."""
    background: PhotoCrop | PlainGround
    blocks: tuple[TextBlock, ...]
    hinting: Literal["none", "light", "full"] = "none"
    blend: Literal["srgb", "linear"] = "srgb"
    """srgb: coverage mixes 8-bit values, as desktop text does; linear: in linear light."""


def spec_to_json(spec: PageSpec) -> str:
    """The spec as compact JSON with fields in a fixed order: equal specs give equal strings."""
    return msgspec.json.encode(spec).decode()


def spec_from_json(text: str) -> PageSpec:
    """Read back what `spec_to_json` wrote. Raises `msgspec.ValidationError` when it is no PageSpec of this version."""
    return msgspec.json.decode(text.encode(), type=PageSpec)


@dataclass(frozen=True, slots=True, kw_only=True)
class RenderedLine:
    """One line of text as it stands in the picture."""

    text: str
    """What was drawn, in reading order, without the blanks that end a line."""
    lang: str
    quad_px: tuple[float, float, float, float, float, float, float, float]
    """Corners x, y: start-top, end-top, end-bottom, start-bottom. Every pixel of ink lies inside."""
    size_px: float
    ink_height_px: float
    """Height of the ink of the line in px."""
    face_id: str
    """The block's face (characters from a fallback face are not listed apart)."""
    ink_rgb: RGB
    """The colour drawn, after the contrast floor."""
    ground_rgb: RGB
    """Mean colour of the ground under the line."""
    contrast: float
    """WCAG 2.2 contrast ratio, 1 to 21, of `ink_rgb` at its opacity against `ground_rgb`."""
    clutter: float
    """Standard deviation of the ground's luma under the line, 0 to 127.5."""
    opacity: float
    block: int
    """Index into `PageSpec.blocks`."""
    glyph_boxes_px: npt.NDArray[np.float32] | None = None
    """(glyphs, 4) x0, y0, x1, y1 of every visible glyph's ink; None unless asked for."""


@dataclass(frozen=True, slots=True, kw_only=True)
class RenderedPage:
    """A finished picture with exact annotations."""

    image_HW3: npt.NDArray[np.uint8]
    lines: tuple[RenderedLine, ...]
