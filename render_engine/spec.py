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
    "missing_glyph",
    "low_contrast",
    "right_to_left",
    "no_text",
    "unknown_face",
    "broken_face",
    "unknown_photo",
    "bad_spec",
]
"""missing_glyph: a character no face of the block can draw. low_contrast: no ink reaches the block's floor.
right_to_left: the script is not supported. no_text: nothing fits its box. unknown_face, unknown_photo: the spec names
what the assets lack. broken_face: the file of a face is gone, damaged or another than was scanned. bad_spec: a size,
box or ratio out of range."""


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


def is_rgb(rgb: RGB | None) -> bool:
    """Whether a colour can be drawn; none at all can."""
    return rgb is None or all(0 <= value <= 255 for value in rgb)


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


class GradientGround(msgspec.Struct, frozen=True, kw_only=True, tag="gradient", forbid_unknown_fields=True):
    """A colour that runs evenly into another, from edge to edge."""

    start_rgb: RGB
    end_rgb: RGB
    direction: tuple[int, int]
    """x and y of the way it runs, each -16 to 16, not both 0: (1, 0) left to right, (0, 1) top to bottom."""


class PaperGround(msgspec.Struct, frozen=True, kw_only=True, tag="paper", forbid_unknown_fields=True):
    """A sheet of paper: a colour with fibres and grain made by an integer hash, so it needs no file."""

    rgb: RGB
    seed: int
    """Which sheet: 0 to 2**31 - 1."""
    grain: int
    """Largest difference from `rgb` that the texture makes, in 8-bit steps, 0 to 64."""
    cell_px: int
    """Size of the coarsest mottle in px, 2 to 256."""


Ground = PhotoCrop | PlainGround | GradientGround | PaperGround


class FilledBox(msgspec.Struct, frozen=True, kw_only=True, tag="box", forbid_unknown_fields=True):
    """A rectangle: rule lines, bars, cells, cards, buttons, frames."""

    box_px: Box
    """Rounded to whole pixels; at least one pixel wide and high is drawn."""
    rgb: RGB | None = None
    """Its inside; None draws only the border."""
    opacity: float = 1.0
    """Of the inside, 0 to 1: a scrim is a dark box of half opacity."""
    radius_px: int = 0
    """Of its corners."""
    border_rgb: RGB | None = None
    border_px: int = 1


class Polyline(msgspec.Struct, frozen=True, kw_only=True, tag="line", forbid_unknown_fields=True):
    """Straight strokes from point to point: curves of charts, ticks, arrows."""

    points_px: tuple[tuple[float, float], ...]
    rgb: RGB
    width_px: int = 1


class Picture(msgspec.Struct, frozen=True, kw_only=True, tag="picture", forbid_unknown_fields=True):
    """A crop of a photograph inside the page."""

    box_px: Box
    """Rounded to whole pixels."""
    crop: PhotoCrop
    radius_px: int = 0


Shape = FilledBox | Polyline | Picture

Role = Literal[
    "title", "heading", "paragraph", "list", "table", "cell", "caption", "header", "footer", "page_number", "label",
    "field", "button", "figure", "chart", "page", "row", "column", "card",
]  # fmt: skip
"""What a part of a page is to its reader."""


class LayoutNode(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A part of a page that holds others."""

    role: Role
    parent: int
    """Index into `PageSpec.layout`, less than the node's own; -1 for the root."""
    box_px: Box


class Plate(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A flat colour under every line of a block, as subtitles have it."""

    rgb: RGB
    opacity: float
    pad_em: float = 0.25
    """How far it reaches beyond the line on every side."""


class Shadow(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """The letters once more under themselves, moved by whole pixels."""

    rgb: RGB | None = None
    """None: black under light ink, white under dark ink, whatever the contrast floor made of it."""
    opacity: float = 0.6
    offset_px: tuple[int, int] = (1, 1)


class Outline(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A border of one pixel around the letters."""

    rgb: RGB | None = None
    """None: black around light ink, white around dark ink."""


class TextRun(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A part of a block's text in other faces: bold or italic words."""

    start: int
    """First character, an index into the block's text."""
    end: int
    """Behind the last character."""
    face_ids: tuple[str, ...]


class TextBlock(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A run of paragraphs set in one box; what does not fit the box is not drawn (never cut inside a line)."""

    text: str
    """NFC text; paragraphs are separated by a line feed. Other controls are drawn as `controls.without_controls` says:
    tabs as blanks, line ends of every kind as line feeds, the rest not at all."""
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
    hyphenate: bool = False
    """English words may be divided at the end of a line that would otherwise lack more than 1.5 em. A soft hyphen
    (U+00AD) in the text is such a place anyhow; it is drawn only where the line is broken."""
    squeeze: bool = False
    """Full-width marks lose half an em of blank where two of them meet, at the head of a line, and at its end when it
    would not fit otherwise (CLREQ 3.1.6, JLREQ 3.1.4)."""
    autospace_em: float = 0.0
    """Between Chinese and Latin letters or digits that touch, 0 to 1; a quarter in good print."""
    runs: tuple[TextRun, ...] = ()
    """Parts of the text in other faces, in order, without overlap."""
    ink_rgb: RGB = (0, 0, 0)
    """The colour asked for; `paint` moves it away from the ground when the contrast floor demands it."""
    opacity: float = 1.0
    min_contrast: float = 1.0
    """Floor of the WCAG 2.2 contrast ratio (1 to 21) of ink against the ground under each line; 1 turns it off."""
    role: Role = "paragraph"
    parent: int = -1
    """Index into `PageSpec.layout` of the part it stands in; -1 when the page has no tree."""
    underline: bool = False
    plate: Plate | None = None
    shadow: Shadow | None = None
    outline: Outline | None = None


class Surface(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A flat thing with writing on it, seen inside a photograph."""

    kind: Literal["sheet", "note", "board", "sign", "label", "screen"]
    width_px: int
    """Of the flat thing. Blocks, shapes and layout of the page are in pixels of it, not of the picture."""
    height_px: int
    ground: Ground
    """What the flat thing is made of."""
    quad_px: tuple[float, float, float, float, float, float, float, float]
    """Where its corners stand in the picture: x, y of left-top, right-top, right-bottom, left-bottom."""
    bow: float = 0.0
    """Curl about its upright axis: how far the middle hangs below the sides, in heights of the thing, -0.2 to 0.2."""
    light: tuple[float, float, float] = (1.0, 1.0, 1.0)
    """Brightness at the left-top, right-top and left-bottom corner, linear between them, times sRGB values, 0 to 2."""
    shadow_opacity: float = 0.0
    """Of the shadow that it throws on the photograph, 0 to 1."""
    shadow_offset_px: tuple[int, int] = (0, 0)
    shadow_blur_px: float = 4.0
    """Standard deviation of the shadow's edge."""


class Degradation(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What a camera, a scanner or a network did to the finished picture, in this order; each off by default."""

    blur_sigma_px: float = 0.0
    """Gaussian blur, 0 to 20."""
    resample: float = 1.0
    """The picture is made this many times smaller and larger again, 1 to 8."""
    noise_sigma: float = 0.0
    """Standard deviation of the noise in 8-bit steps, 0 to 64."""
    noise_seed: int = 0
    jpeg_quality: int | None = None
    """Encoded and decoded as JPEG, 1 to 100."""


class PageSpec(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Every choice behind one picture. `render(spec, assets)` is a pure function of it."""

    version: Literal[1] = 1
    width_px: int
    height_px: int
    family: Literal["background", "pure", "compositional", "complex"]
    """background: text over a photograph (paper, section 3). The others are Qwen-Image's (section 3.4): pure, over a
    plain ground; compositional, on a thing inside a photograph; complex, a structured page."""
    background: Ground
    blocks: tuple[TextBlock, ...]
    """In reading order."""
    hinting: Literal["none", "light", "full"] = "none"
    """light: stems on whole pixels vertically; full: as the face's own program or FreeType's hinter wants them. With
    either, letters stand on whole pixels, as on desktops that hint; without, on quarters of a pixel."""
    blend: Literal["srgb", "linear"] = "srgb"
    """srgb: coverage mixes 8-bit values, as desktop text does; linear: in linear light."""
    antialias: Literal["grey", "lcd_rgb", "lcd_bgr"] = "grey"
    """lcd: the three stripes of a screen's pixel have coverages of their own, as ClearType has it; for upright text on
    opaque grounds, and never on a `surface`, whose pixels are not those of the picture."""
    shapes: tuple[Shape, ...] = ()
    """Drawn over the background and under all text, in this order."""
    layout: tuple[LayoutNode, ...] = ()
    """The tree of the page's parts, parents before their children."""
    template: str = ""
    """Name of the template that a complex page was made from."""
    surface: Surface | None = None
    """The thing that carries the blocks; None when they stand in the picture itself."""
    degradation: Degradation | None = None


def photo_ids_of(spec: PageSpec) -> tuple[str, ...]:
    """The photographs that the picture shows, each once: the background first, then the pictures in the page."""
    crops = [ground for ground in (spec.background, spec.surface and spec.surface.ground) if ground]
    crops += [shape.crop for shape in spec.shapes if isinstance(shape, Picture)]
    return tuple(dict.fromkeys(crop.photo_id for crop in crops if isinstance(crop, PhotoCrop)))


def spec_to_json(spec: PageSpec) -> str:
    """The spec as compact JSON with fields in a fixed order: equal specs give equal strings."""
    return msgspec.json.encode(spec).decode()


def spec_from_json(text: str) -> PageSpec:
    """Read back what `spec_to_json` wrote. Raises `msgspec.ValidationError` when it is no PageSpec of this version."""
    return msgspec.json.decode(text.encode(), type=PageSpec)


class RenderedLine(msgspec.Struct, frozen=True, kw_only=True, gc=False):
    """One line of text as it stands in the picture."""

    text: str
    """What was drawn, in reading order, without the blanks that end a line."""
    lang: str
    quad_px: tuple[float, float, float, float, float, float, float, float]
    """Corners x, y: start-top, end-top, end-bottom, start-bottom. Every pixel of ink lies inside. Shadows, outlines
    and plates are no ink."""
    size_px: float
    """The em in px as seen: on a surface, at the middle of the line."""
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
    """(glyphs, 4) x0, y0, x1, y1 of every visible glyph's ink; None unless asked for. On a surface the upright box
    around the ink as seen."""


@dataclass(frozen=True, slots=True, kw_only=True)
class RenderedPage:
    """A finished picture with exact annotations."""

    image_HW3: npt.NDArray[np.uint8]
    lines: tuple[RenderedLine, ...]
