"""The pipeline on one screen: a spec and its assets in, a picture with annotations out."""

import math
from collections.abc import Iterable
from functools import partial
from typing import Protocol

import cv2
import msgspec
import numpy as np
import numpy.typing as npt

from fonts_manifest.errors import BadInput
from fonts_manifest.manifest import FontFace
from render_engine.annotate import InkedLines, annotate
from render_engine.atlas import LCD, MAX_BYTES, Atlas
from render_engine.compose import draw_glyphs, draw_glyphs_lcd, linear_tables
from render_engine.controls import plain_texts
from render_engine.degrade import degrade
from render_engine.effects import draw_plates, draw_under, draw_underlines, underlines
from render_engine.face import Face, open_face
from render_engine.grounds import draw_ground
from render_engine.layout import LayoutScratch, lay_out_blocks
from render_engine.overlay import lay_on
from render_engine.paint import choose_inks, measure_lines, tables
from render_engine.shape import LANGUAGE_TAGS, FontStack
from render_engine.shapes import check_shapes, draw_shapes
from render_engine.spec import (
    Ground,
    PageSpec,
    PhotoCrop,
    PlainGround,
    RenderedLine,
    RenderedPage,
    RenderError,
    TextBlock,
    is_rgb,
)
from render_engine.warp import seen_lines

MAX_SIDE_PX = 8192
MAX_SIZE_PX = 512
MAX_STACKS = 128
"""Stacks of faces kept open with all they have shaped (.1 MB and their words each)."""


class PhotoSource(Protocol):
    """Where photographs come from."""

    def crop(
        self, photo_id: str, box_px: tuple[int, int, int, int], width_px: int, height_px: int
    ) -> npt.NDArray[np.uint8]:
        """The rectangle x0, y0, x1, y1 of a photograph resampled to (height_px, width_px, 3) uint8 sRGB.

        The picture is drawn into the array that is returned: it must be a fresh one. Raises KeyError for an unknown id,
        BadInput when the photograph is gone, another ValueError when the box leaves it.
        """
        ...


class Assets:
    """What specs name: faces and photographs, and the caches of one process. Not to be shared between threads."""

    def __init__(
        self, faces: Iterable[FontFace], photos: PhotoSource | None = None, *, atlas_bytes: int = MAX_BYTES
    ) -> None:
        self.fonts = {face.face_id: face for face in faces}
        self.photos = photos
        self.atlas = Atlas(atlas_bytes)
        self.scratch = LayoutScratch()
        self._open: dict[str, Face] = {}
        self._stacks: dict[tuple[tuple[str, ...], str], FontStack] = {}

    def face(self, face_id: str) -> Face:
        """The open face. Raises RenderError: "unknown_face", or "broken_face" when its file is not what was scanned."""
        face = self._open.get(face_id)
        if face is None:
            if face_id not in self.fonts:
                raise RenderError("unknown_face", f"{face_id} is not in the manifest")
            try:
                face = self._open[face_id] = open_face(self.fonts[face_id])
            except BadInput as error:
                raise RenderError("broken_face", str(error)) from None
        return face

    def stack(self, face_ids: tuple[str, ...], lang: str) -> FontStack:
        """The faces as one, for one language."""
        key = (face_ids, LANGUAGE_TAGS[lang])
        stack = self._stacks.get(key)
        if stack is None:
            if len(self._stacks) >= MAX_STACKS:
                del self._stacks[next(iter(self._stacks))]
            faces = tuple(map(self.face, face_ids))
            stack = self._stacks[key] = FontStack(faces, key[1])
        return stack


def render(spec: PageSpec, assets: Assets, *, glyph_boxes: bool = False) -> RenderedPage:
    """Draw a page: the same spec gives the same bytes in any process, on any day.

    Raises RenderError with its label when the page cannot be drawn as specified; nothing is ever drawn as a box.
    """
    check(spec)
    spec = plain_texts(spec)
    scratch = lay_out(spec, assets)
    image_HW3 = ground(spec, assets)
    if spec.blocks and scratch.line_count == 0:
        raise RenderError("no_text", "nothing fits the boxes of the page")
    surface, flat_hw3 = spec.surface, image_HW3
    if surface is not None:
        flat_hw3 = _canvas(surface.ground, surface.width_px, surface.height_px, assets)
        draw_shapes(flat_hw3, spec.shapes, partial(_crop, assets))
    inked = choose(spec, assets, scratch, flat_hw3)
    composite(spec, assets, inked, flat_hw3)
    lines = annotate(spec, inked, assets.atlas.entries if glyph_boxes else None)
    if surface is not None:
        lay_on(image_HW3, flat_hw3, surface)
        lines = seen_lines(lines, surface)
    if spec.degradation is not None:
        image_HW3 = degrade(image_HW3, spec.degradation)
    return RenderedPage(image_HW3=image_HW3, lines=lines)


def check(spec: PageSpec) -> None:
    """Raises RenderError("bad_spec") when a number is out of its range."""
    rules = [(1 <= spec.width_px <= MAX_SIDE_PX and 1 <= spec.height_px <= MAX_SIDE_PX, "side of the page")]
    if spec.surface is not None:
        sides = (spec.surface.width_px, spec.surface.height_px)
        rules.append((min(sides) >= 1 and max(sides) <= MAX_SIDE_PX, "side of the surface"))
        rules.append((spec.antialias == "grey", "antialias on a surface"))
    for block in spec.blocks:
        if block.plate is not None:
            plausible = 0 <= block.plate.opacity <= 1 and 0 <= block.plate.pad_em <= 10
            rules.append((plausible and is_rgb(block.plate.rgb), "plate"))
        if block.shadow is not None:
            near = max(map(abs, block.shadow.offset_px)) <= MAX_SIZE_PX
            rules.append((near and 0 <= block.shadow.opacity <= 1 and is_rgb(block.shadow.rgb), "shadow"))
        if block.outline is not None:
            rules.append((is_rgb(block.outline.rgb), "outline"))
        numbers = (
            *block.box_px,
            block.size_px,
            block.line_pitch_em,
            block.first_line_indent_em,
            block.letter_spacing_em,
        )
        rules += [
            (all(map(math.isfinite, numbers)) and max(map(abs, numbers)) <= MAX_SIDE_PX, "number of a block"),
            (1 <= block.size_px <= MAX_SIZE_PX, "size_px"),
            (0.5 <= block.line_pitch_em <= 100, "line_pitch_em"),
            (abs(block.first_line_indent_em) <= 100 and abs(block.letter_spacing_em) <= 10, "indent or letter spacing"),
            (0 <= block.autospace_em <= 1, "autospace_em"),
            (_in_order(block), "a run of a block"),
            (0 <= block.opacity <= 1, "opacity"),
            (1 <= block.min_contrast <= 21, "min_contrast"),
            (is_rgb(block.ink_rgb), "ink_rgb"),
        ]
    check_shapes(spec.shapes, MAX_SIDE_PX)
    for right, name in rules:
        if not right:
            raise RenderError("bad_spec", f"{name} is out of range")


def _in_order(block: TextBlock) -> bool:
    """Whether the runs of the block stand in its text, one behind the other."""
    ends = [0, *(at for run in block.runs for at in (run.start, run.end)), len(block.text)]
    return ends == sorted(ends)


def lay_out(spec: PageSpec, assets: Assets) -> LayoutScratch:
    """All blocks of the page as glyphs and lines, the glyphs' bitmaps looked up; valid until the next page is laid out
    with these assets."""
    scratch, atlas = assets.scratch, assets.atlas
    atlas.make_room()
    mode = spec.hinting if spec.antialias == "grey" else spec.hinting + LCD

    def strikes_of(stack: FontStack, size_26_6: int) -> list[int]:
        return [atlas.strike(face, size_26_6, mode) for face in stack.faces]

    lay_out_blocks(spec.blocks, assets.stack, strikes_of, spec.hinting != "none", scratch)
    scratch.found = atlas.find(scratch.keys[: scratch.glyph_count])
    return scratch


def ground(spec: PageSpec, assets: Assets) -> npt.NDArray[np.uint8]:
    """(H, W, 3) uint8 sRGB: the page before anything is written on it."""
    image_HW3 = _canvas(spec.background, spec.width_px, spec.height_px, assets)
    if spec.surface is None:
        draw_shapes(image_HW3, spec.shapes, partial(_crop, assets))
    return image_HW3


def _canvas(background: Ground, width_px: int, height_px: int, assets: Assets) -> npt.NDArray[np.uint8]:
    if isinstance(background, PhotoCrop):
        return _crop(assets, background, width_px, height_px)
    return draw_ground(background, width_px, height_px)


def _crop(assets: Assets, crop: PhotoCrop, width_px: int, height_px: int) -> npt.NDArray[np.uint8]:
    if assets.photos is None:
        raise RenderError("unknown_photo", f"there are no photographs, {crop.photo_id} is asked for")
    try:
        image_HW3 = assets.photos.crop(crop.photo_id, crop.box_px, width_px, height_px)
    except KeyError:
        raise RenderError("unknown_photo", f"{crop.photo_id} is not among the photographs") from None
    except BadInput:
        raise
    except ValueError as error:
        raise RenderError("bad_spec", str(error)) from None
    if crop.mirrored:
        image_HW3 = cv2.flip(image_HW3, 1)  # .05 ms at 512 px, seven times faster than NumPy's [:, ::-1]
    return np.ascontiguousarray(image_HW3)


def choose(spec: PageSpec, assets: Assets, scratch: LayoutScratch, image_HW3: npt.NDArray[np.uint8]) -> InkedLines:
    """Measure the ground under every line, lay plates on it, and choose the inks.

    Raises RenderError("low_contrast") when no ink reaches a block's floor.
    """
    atlas, blocks = assets.atlas, spec.blocks
    lines = scratch.lines[: scratch.line_count]
    pens = scratch.pens[: scratch.glyph_count]
    found = scratch.found
    opacities = np.array([round(block.opacity * 255) for block in blocks], np.int64)
    inked = InkedLines(found, pens, lines, opacities[lines[:, 7]].astype(np.int32))
    if len(lines) == 0:
        return inked
    caps_px = np.array([assets.fonts[block.face_ids[0]].cap_height * block.size_px for block in blocks])
    measured = (lines, caps_px, inked.ink_boxes, inked.boxes, inked.grounds)
    measure_lines(image_HW3, atlas.entries, found, pens, *measured)
    if draw_plates(image_HW3, lines, inked.boxes, blocks):
        measure_lines(image_HW3, atlas.entries, found, pens, *measured)
    inked.rules = underlines(lines, blocks)
    for number, (x0, _, x1, bottom) in inked.rules:
        box = inked.boxes[number]
        if box[2] > box[0]:
            inked.ink_boxes[number, 3] = max(inked.ink_boxes[number, 3], bottom)
            box[:] = min(box[0], x0), box[1], max(box[2], x1), max(box[3], bottom)
    to_linear, from_linear, luminance = tables()
    low = choose_inks(
        *(inked.grounds, lines[:, 7], np.array([block.ink_rgb for block in blocks]), opacities),
        *(np.array([block.min_contrast for block in blocks]), spec.blend == "linear"),
        *(to_linear, from_linear, luminance, inked.inks, inked.contrasts),
    )
    if low >= 0:
        block = blocks[lines[low, 7]]
        raise RenderError("low_contrast", f"no ink reaches {block.min_contrast} at opacity {block.opacity}")
    return inked


def composite(spec: PageSpec, assets: Assets, inked: InkedLines, image_HW3: npt.NDArray[np.uint8]) -> None:
    """Lay the lines, and what stands under and below their letters, over `image_HW3`, in place."""
    atlas, linear = assets.atlas, spec.blend == "linear"
    found, pens, lines, inks = inked.found, inked.pens, inked.lines, inked.inks
    draw_under(
        *(image_HW3, atlas, found, pens, lines, inks, spec.blocks, linear),
        *(linear_tables(), spec.antialias != "grey"),
    )
    drawing = (
        *(image_HW3, atlas.entries, atlas.pixels, found, pens, inks, inked.opacities, linear),
        *linear_tables(),
    )
    if spec.antialias == "grey":
        draw_glyphs(*drawing)
    else:
        draw_glyphs_lcd(*drawing, spec.antialias == "lcd_bgr")
    draw_underlines(image_HW3, inked.rules, lines, inks, spec.blocks)


def render_ink(spec: PageSpec, assets: Assets) -> npt.NDArray[np.uint8]:
    """(H, W) uint8: how much of each pixel the letters of the page cover, 0 to 255, before anything was done to it.

    The page once more in black on white: no ground, no effects, no degradation, but the same places, bent and tilted
    alike. Raises RenderError as `render` does.
    """
    white = PlainGround(rgb=(255, 255, 255))
    plain = {"ink_rgb": (0, 0, 0), "opacity": 1.0, "min_contrast": 1.0, "plate": None, "shadow": None, "outline": None}
    surface = spec.surface
    if surface is not None:
        surface = msgspec.structs.replace(surface, ground=white, light=(1.0, 1.0, 1.0), shadow_opacity=0.0)
    bare = msgspec.structs.replace(
        spec,
        background=white,
        blocks=tuple(msgspec.structs.replace(block, **plain) for block in spec.blocks),
        antialias="grey",
        blend="srgb",
        shapes=(),
        surface=surface,
        degradation=None,
    )
    return 255 - render(bare, assets).image_HW3[:, :, 1]


def render_clean_line(line: RenderedLine, assets: Assets) -> npt.NDArray[np.uint8]:
    """The same text in the same face and size, black on white with a margin of .4 em: (h, w, 3) uint8 sRGB.

    What a reader makes of it is the most he can make of the line; unhinted, in sRGB. Characters the face cannot draw
    come from the first face of the manifest that can. Raises RenderError as `render` does.
    """
    fallbacks = tuple(face_id for face_id in assets.fonts if face_id != line.face_id)
    margin = max(2, round(0.4 * line.size_px))
    height = math.ceil(4 * line.size_px) + 2 * margin
    indent = margin + math.ceil(line.size_px)
    block = TextBlock(
        text=line.text,
        lang="en" if line.lang == "en" else "zh",
        box_px=(float(indent), line.size_px + margin, float(MAX_SIDE_PX), float(height)),
        face_ids=(line.face_id, *fallbacks)[:128],
        size_px=line.size_px,
        line_pitch_em=3.0,
    )
    white = PlainGround(rgb=(255, 255, 255))
    spec = PageSpec(width_px=MAX_SIDE_PX, height_px=height, family="pure", background=white, blocks=(block,))
    page = render(spec, assets)
    x0, y0, _, _, x1, y1, _, _ = page.lines[0].quad_px
    left, top, right, bottom = math.floor(x0), math.floor(y0), math.ceil(x1), math.ceil(y1)
    return page.image_HW3[top - margin : bottom + margin, left - margin : right + margin].copy()
