"""The renderer against what others make of the same page: FreeType, HarfBuzz, Pillow, and the formulas of sRGB."""

import functools
from pathlib import Path

import cv2
import freetype
import hostile_fonts
import numpy as np
import pytest
import uharfbuzz as hb
from fontTools.pens.recordingPen import DecomposingRecordingPen
from fontTools.ttLib import TTFont
from hypothesis import HealthCheck, assume, given, settings
from hypothesis import strategies as st
from PIL import Image, ImageDraw, ImageFont

from fonts_manifest.manifest import FontFace
from fonts_manifest.scan import scan_fonts
from render_engine.render import Assets, render
from render_engine.spec import PageSpec, PhotoCrop, PlainGround, TextBlock

FACES = scan_fonts(["package:matplotlib/mpl-data/fonts/ttf", "package:mpl_font/fonts"])[0].faces
SANS = next(face for face in FACES if (face.family, face.weight, face.italic) == ("DejaVu Sans", 400, False))
NOTO = next(face for face in FACES if (face.family, face.style) == ("Noto Sans CJK SC", "Regular"))
WQY = next(face for face in FACES if face.family == "WenQuanYi Micro Hei")
ENGLISH = "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789.,;:!?()-'"
CHINESE = "天地玄黄宇宙洪荒日月盈昃辰宿列张寒来暑往秋收冬藏闰余成岁律吕调阳，。、；：？！（）《》"
SIZES = st.one_of(st.sampled_from([5.0, 8.0, 12.0, 20.0]), st.integers(5 * 64, 20 * 64).map(lambda size: size / 64))
QUIET = [HealthCheck.too_slow, HealthCheck.filter_too_much]


class Noise:
    """One photograph."""

    picture = np.random.default_rng(7).integers(0, 256, (400, 400, 3), np.uint8)

    def crop(self, photo_id, box_px, width_px, height_px):
        return self.picture[:height_px, :width_px].copy()


@pytest.fixture(scope="module")
def variable(tmp_path_factory) -> tuple[FontFace, ...]:
    path = tmp_path_factory.mktemp("variable") / "variable.ttf"
    path.write_bytes(hostile_fonts.variable())
    return scan_fonts([str(path)])[0].faces


@pytest.fixture(scope="module")
def assets(variable) -> Assets:
    return Assets((*FACES, *variable), Noise())


def page(text: str, face: FontFace, size_px: float, width: int = 200, height: int = 64, **choices) -> PageSpec:
    """One block over noise, or over a plain colour when `ground` says so."""
    in_block = {
        name: choices.pop(name) for name in ("ink_rgb", "opacity", "lang", "letter_spacing_em") if name in choices
    }
    ground = choices.pop("ground", None)
    return PageSpec(
        width_px=width,
        height_px=height,
        family="pure" if ground else "background",
        background=PlainGround(rgb=ground) if ground else PhotoCrop(photo_id="0", box_px=(0, 0, width, height)),
        blocks=(
            TextBlock(
                **({"lang": "zh"} | in_block),
                text=text,
                box_px=(8.0, 4.0, float(width), float(height)),
                face_ids=(face.face_id,),
                size_px=size_px,
            ),
        ),
        **choices,
    )


@functools.cache
def opened(path: str, index: int) -> freetype.Face:
    return freetype.Face(path, index)


def drawn(assets: Assets) -> list[tuple[int, int, int, int]]:
    """(glyph, quarter pixels, x, y) of every glyph of the last page."""
    count = assets.scratch.glyph_count
    keys, pens = assets.scratch.keys[:count], assets.scratch.pens[:count]
    return [(key >> 2 & 0xFFFF, key & 3, x, y) for key, (x, y, _) in zip(keys.tolist(), pens.tolist(), strict=True)]


# Coverage: FreeType through its other door, FT_Glyph, which moves outlines itself


FLAGS = {
    "none": freetype.FT_LOAD_NO_HINTING,
    "light": freetype.FT_LOAD_TARGET_LIGHT,
    "full": freetype.FT_LOAD_TARGET_NORMAL,
}


def freetype_page(
    face: FontFace, size_px: float, hinting: str, lcd: bool, glyphs, shape: tuple[int, int]
) -> np.ndarray:
    """(H, W, 3) black glyphs on white as FreeType alone sets them; where two meet their light is multiplied."""
    handle = opened(face.path, face.face_index)
    handle.set_char_size(round(size_px * 64))
    light = np.ones((*shape, 3))
    for glyph, quarters, x, y in glyphs:
        handle.load_glyph(glyph, FLAGS[hinting] | freetype.FT_LOAD_NO_BITMAP)
        mode = freetype.FT_RENDER_MODE_LCD if lcd else freetype.FT_RENDER_MODE_NORMAL
        outline = handle.glyph.get_glyph()
        image = outline.to_bitmap(mode, freetype.Vector(16 * quarters, 0), False)
        rows, width = image.bitmap.rows, image.bitmap.width
        if rows == 0:
            continue
        coverage = np.array(image.bitmap.buffer).reshape(rows, image.bitmap.pitch)[:, :width] / 255
        coverage = coverage.reshape(rows, -1, 3) if lcd else np.repeat(coverage[..., None], 3, axis=2)
        top, left = y - image.top, x + image.left
        down, across = slice(max(0, top), max(0, top + rows)), slice(max(0, left), max(0, left + coverage.shape[1]))
        seen = light[down, across]
        first_row, first_column = max(0, -top), max(0, -left)
        seen *= 1 - coverage[first_row : first_row + seen.shape[0], first_column : first_column + seen.shape[1]]
    return 255 * light


@settings(max_examples=60, deadline=None, suppress_health_check=QUIET)
@given(
    number=st.integers(0, len(FACES) + 2),
    letters=st.text(ENGLISH, min_size=2, max_size=12),
    han=st.text(CHINESE, max_size=6),
    size_px=st.one_of(
        st.sampled_from([5.0, 8.0, 12.0, 20.0]), st.integers(5 * 64, 20 * 64).map(lambda size: size / 64)
    ),
    hinting=st.sampled_from(["none", "light", "full"]),
    antialias=st.sampled_from(["grey", "lcd_rgb", "lcd_bgr"]),
)
def test_every_pixel_is_freetypes(assets, variable, number, letters, han, size_px, hinting, antialias):
    """All faces, named instances among them, all sizes, hintings, anti-aliasings and sub-pixel phases."""
    face = (*FACES, *variable)[number]
    text = letters + (han if "han" in face.scripts else "")
    spec = page(text, face, size_px, hinting=hinting, antialias=antialias, ground=(255, 255, 255))
    picture = render(spec, assets).image_HW3
    glyphs = drawn(assets)
    assert len(glyphs) >= 1
    expected = freetype_page(face, size_px, hinting, antialias != "grey", glyphs, picture.shape[:2])
    if antialias == "lcd_bgr":
        expected = expected[..., ::-1]
    # half a step of rounding where one glyph is, one and a half where two meet
    assert np.abs(picture - expected).max() <= 1.5
    assert (np.abs(picture - expected) <= 0.51).mean() > 0.99
    assert expected.min() < 200


def test_phases_are_all_four_where_sizes_are_not_whole(assets):
    render(page(ENGLISH[:26], SANS, 9.3, width=400), assets)
    assert {quarters for _, quarters, _, _ in drawn(assets)} == {0, 1, 2, 3}
    render(page(CHINESE[:10], NOTO, 12), assets)
    assert {quarters for _, quarters, _, _ in drawn(assets)} == {0}


# Coverage without FreeType: outlines read by fontTools, filled by OpenCV 64 times as large


def supersampled(face: FontFace, character: str, size_px: float, shape: tuple[int, int], x: int, y: int) -> np.ndarray:
    """(H, W) how much of each pixel the character covers, 0 to 255."""
    with TTFont(face.path, fontNumber=face.face_index, lazy=True) as font:
        glyphs = font.getGlyphSet()
        pen = DecomposingRecordingPen(glyphs)
        glyphs[font.getBestCmap()[ord(character)]].draw(pen)
        scale, times = size_px / font["head"].unitsPerEm, 64
    contours, steps = [], np.linspace(0, 1, 33)[1:, None]
    for name, points in pen.value:
        at = np.array([point for point in points if point is not None], np.float64).reshape(-1, 2)
        if name == "moveTo":
            contours.append([at[0][None]])
        elif name == "lineTo":
            contours[-1].append(at)
        elif name == "qCurveTo":
            ends = [*((at[:-2] + at[1:-1]) / 2), at[-1]]
            for control, end in zip(at[:-1], ends, strict=True):
                start = contours[-1][-1][-1]
                contours[-1].append((1 - steps) ** 2 * start + 2 * steps * (1 - steps) * control + steps**2 * end)
        elif name == "curveTo":
            start = contours[-1][-1][-1]
            weights = ((1 - steps) ** 3, 3 * steps * (1 - steps) ** 2, 3 * steps**2 * (1 - steps), steps**3)
            parts = zip(weights, (start, *at), strict=True)
            contours[-1].append(sum(weight * point for weight, point in parts))
    large = np.zeros((shape[0] * times, shape[1] * times), np.uint8)
    polygons = [
        np.rint((np.concatenate(contour) * (scale, -scale) + (x, y)) * times * 16 - 8).astype(np.int32)
        for contour in contours
    ]
    cv2.fillPoly(large, polygons, (255,), cv2.LINE_8, 4)
    return large.reshape(shape[0], times, shape[1], times).mean(axis=(1, 3))


@pytest.mark.parametrize("size_px", [6.5, 12.0, 19.25])
@pytest.mark.parametrize(("face", "characters"), [(SANS, "gR8&"), (NOTO, "Q鬱回"), (WQY, "藏s")])
def test_unhinted_coverage_is_the_area_of_the_outline(assets, face, characters, size_px):
    for character in characters:
        spec = page(character, face, size_px, width=40, height=40, ground=(255, 255, 255))
        coverage_HW = 255 - render(spec, assets).image_HW3[..., 0].astype(float)
        ((_, quarters, x, y),) = drawn(assets)
        expected_HW = supersampled(face, character, size_px, coverage_HW.shape, x + quarters / 4, y)
        # points of the outline are rounded to 1/64 px, and OpenCV fills the 1/64 px that edges touch
        assert np.abs(coverage_HW - expected_HW).max() <= 40
        assert np.abs(coverage_HW - expected_HW).mean() <= 1.5
        assert coverage_HW.sum() == pytest.approx(expected_HW.sum(), rel=0.06)


# Whole pages: Pillow, which hints fully and mixes sRGB


PILLOWS_FACES = [face for face in FACES if face.family.startswith(("DejaVu", "Noto"))]
"""Those with instructions or hints of their own: FreeType's auto-hinter is another one in the version inside Pillow."""


@settings(max_examples=25, deadline=None, suppress_health_check=QUIET)
@given(
    face=st.sampled_from(PILLOWS_FACES),
    letters=st.lists(st.text(ENGLISH, min_size=1, max_size=8), min_size=1, max_size=20).map(" ".join),
    han=st.text(CHINESE, max_size=40),
    size=st.integers(5, 20),
    ink=st.tuples(*[st.integers(0, 255)] * 3),
)
def test_pages_over_a_photograph_equal_pillows_within_one(assets, face, letters, han, size, ink):
    text = letters + (han if "han" in face.scripts else "")
    spec = page(text, face, size, width=240, height=160, hinting="full", ink_rgb=ink)
    picture = render(spec, assets).image_HW3.astype(int)
    font = ImageFont.truetype(face.path, size, index=face.face_index, layout_engine=ImageFont.Layout.BASIC)
    character_of = {opened(face.path, face.face_index).get_char_index(one): one for one in ENGLISH + CHINESE}
    expected = Image.fromarray(Noise.picture[:160, :240].copy())
    touched = np.zeros((160, 240), int)
    for glyph, _, x, y in drawn(assets):
        assume(glyph in character_of)  # no ligature
        ImageDraw.Draw(expected).text((x, y), character_of[glyph], fill=ink, font=font, anchor="ls")
        alone = Image.new("L", (240, 160))
        ImageDraw.Draw(alone).text((x, y), character_of[glyph], fill=255, font=font, anchor="ls")
        touched += np.asarray(alone) > 0
    difference = np.abs(picture - np.asarray(expected)).max(axis=2)
    assert difference[touched <= 1].max() <= 1
    assert difference.max() <= 2  # a step for each of two letters that meet
    assert touched.max() >= 1


# Blending: the formulas in floating point


def mixed(ground: np.ndarray, ink: np.ndarray, share: float, linear: bool) -> np.ndarray:
    """Porter-Duff "over" of sRGB values 0 to 255, by IEC 61966-2-1 when in linear light."""
    if not linear:
        return ground + (ink - ground) * share

    def light(value):
        value = value / 255
        return np.where(value <= 0.04045, value / 12.92, ((value + 0.055) / 1.055) ** 2.4)

    mix = light(ground) + (light(ink) - light(ground)) * share
    return 255 * np.where(mix <= 0.0031308, mix * 12.92, 1.055 * mix ** (1 / 2.4) - 0.055)


@settings(max_examples=120, deadline=None)
@given(
    ink=st.tuples(*[st.integers(0, 255)] * 3),
    ground=st.tuples(*[st.integers(0, 255)] * 3),
    opacity=st.floats(0, 1),
    blend=st.sampled_from(["srgb", "linear"]),
    antialias=st.sampled_from(["grey", "lcd_rgb"]),
)
def test_ink_is_mixed_by_the_formulas(assets, ink, ground, opacity, blend, antialias):
    # a full block: the middle of it is covered whole
    spec = page("█", SANS, 40, ground=ground, ink_rgb=ink, opacity=opacity, blend=blend, antialias=antialias)
    picture = render(spec, assets).image_HW3
    ((_, _, x, y),) = drawn(assets)
    expected = mixed(np.array(ground), np.array(ink), round(opacity * 255) / 255, blend == "linear")
    # linear light is kept in 16 bits: near black one of them is a tenth of a step
    assert np.abs(picture[y - 12, x + 12] - expected).max() <= (0.51 if blend == "srgb" else 0.65)


# Advances: HarfBuzz with the whole text in one buffer, at the size drawn


@settings(max_examples=80, deadline=None, suppress_health_check=QUIET)
@given(
    number=st.integers(0, len(FACES) + 2),
    letters=st.lists(st.text("AVTWafijlovy.,'()1/4-", min_size=1, max_size=9), min_size=1, max_size=12).map(" ".join),
    size_px=SIZES,
    spacing_em=st.sampled_from([0.0, 0.0, 0.25]),
)
def test_pens_stand_where_harfbuzz_puts_them(assets, variable, number, letters, size_px, spacing_em):
    face = (*FACES, *variable)[number]
    spec = page(letters, face, size_px, width=4000, lang="en", letter_spacing_em=spacing_em)
    assume(len(render(spec, assets).lines) == 1)
    shaper = hb.Font(hb.Face(hb.Blob.from_file_path(face.path), face.face_index))
    if face.coordinates:  # said once more in words: the index must not be what it depends on
        shaper = hb.Font(hb.Face(hb.Blob.from_file_path(face.path)))
        shaper.set_variations(dict(face.coordinates))
    buffer = hb.Buffer()
    buffer.add_str(letters)
    buffer.script, buffer.language, buffer.direction = "Latn", "en", "ltr"
    hb.shape(shaper, buffer)
    pen, expected, clusters = 8.0, [], []
    for info, position in zip(buffer.glyph_infos, buffer.glyph_positions, strict=True):
        if letters[info.cluster] != " ":
            expected.append((info.codepoint, pen + position.x_offset * size_px / shaper.face.upem))
            clusters.append(info.cluster)
        pen += position.x_advance * size_px / shaper.face.upem + spacing_em * round(size_px * 64) / 64
    found = [(glyph, x + quarters / 4) for glyph, quarters, x, _ in drawn(assets)]
    assert [glyph for glyph, _ in found] == [glyph for glyph, _ in expected]
    whole = size_px == int(size_px)  # stands on whole pixels
    distance = max(abs(one - other) for (_, one), (_, other) in zip(found, expected, strict=True))
    assert distance <= (0.5 if whole else 0.125) + 0.01


def test_the_fonts_of_these_tests_are_files(variable):
    assert all(Path(face.path).is_file() for face in (*FACES, *variable))
