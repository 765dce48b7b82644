"""Pixels: FreeType's coverage, Pillow's blending, boxes that hold their ink, the same bytes everywhere."""

import hashlib
import pickle
import subprocess
import sys
from pathlib import Path

import freetype
import numpy as np
import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st
from PIL import Image, ImageDraw, ImageFont

from fonts_manifest.scan import scan_fonts
from render_engine.atlas import rasterise, set_size
from render_engine.choose import reachable_contrast
from render_engine.compose import draw_glyphs, linear_tables
from render_engine.distribution import PageDistribution, SizeBand
from render_engine.face import open_face
from render_engine.paint import contrast_ratio
from render_engine.render import Assets, render, render_clean_line
from render_engine.sample import sample_spec
from render_engine.spec import PageSpec, PhotoCrop, PlainGround, RenderError, TextBlock, spec_from_json, spec_to_json

FACES = scan_fonts(["package:matplotlib/mpl-data/fonts/ttf", "package:mpl_font/fonts"])[0].faces
SANS = next(face for face in FACES if (face.family, face.weight, face.italic) == ("DejaVu Sans", 400, False))
ITALIC = next(face for face in FACES if (face.family, face.weight, face.italic) == ("DejaVu Serif", 400, True))
NOTO = next(face for face in FACES if (face.family, face.style) == ("Noto Sans CJK SC", "Regular"))
WORDS = ["Sphinx", "of", "black", "quartz", "1234567890", "(fjord)", "QWERTY,", "jigging", "office;", "Ångström", "ñ"]
HAN = "天地玄黄宇宙洪荒日月盈昃辰宿列张寒来暑往秋收冬藏，。「」（）——"


class Noise:
    """One photograph of noise over a gradient, 400 x 300."""

    photo_id, width_px, height_px = "5" * 16, 400, 300

    def __init__(self) -> None:
        rng = np.random.default_rng(5)
        ramp = np.linspace(0, 200, 400)[None, :, None]
        self.picture = (ramp + rng.integers(0, 56, (300, 400, 3))).astype(np.uint8)

    def crop(self, photo_id, box_px, width_px, height_px):
        if photo_id != self.photo_id:
            raise KeyError(photo_id)
        rows = np.linspace(box_px[1], box_px[3] - 1, height_px).astype(int)
        columns = np.linspace(box_px[0], box_px[2] - 1, width_px).astype(int)
        return self.picture[rows][:, columns].copy()


class Babble:
    """Words and characters at random."""

    def draw(self, rng, lang, characters):
        pool = WORDS if lang == "en" else list(HAN) if lang == "zh" else [*HAN, *(f" {word} " for word in WORDS[:6])]
        return (" " if lang == "en" else "").join(rng.choice(pool, max(1, characters // (6 if lang == "en" else 1))))


PHOTO, TEXTS = Noise(), Babble()
ASSETS = Assets(FACES, PHOTO)


def sampled(seed: int) -> PageSpec:
    bands = (SizeBand(low_px=5, high_px=20, weight=1),)
    pages = PageDistribution(page_sizes_px=((160, 120), (256, 256)), size_bands=bands, size_step_px=0.25)
    return sample_spec(np.random.default_rng(seed), pages, FACES, TEXTS, [PHOTO])


def plain_page(text: str, face, size: float, *, background=(255, 255, 255), width=64, height=64, **choices) -> PageSpec:
    page_choices = {name: choices.pop(name) for name in ("hinting", "blend") if name in choices}
    block = TextBlock(
        text=text,
        lang="zh",
        box_px=choices.pop("box_px", (20.0, 10.0, float(width), float(height))),
        face_ids=(face.face_id,),
        size_px=size,
        **choices,
    )
    return PageSpec(
        width_px=width,
        height_px=height,
        family="pure",
        background=PlainGround(rgb=background),
        blocks=(block,),
        **page_choices,
    )


# Coverage


def coverage_of(face, hinting: str, glyph: int, phase: int = 0) -> tuple[np.ndarray, int, int]:
    """(H, W) uint8, left of the pen, top above the baseline; of sub-pixel coverage W is three times the pixels."""
    pixels, entries = np.zeros(10_000, np.uint8), np.zeros((1, 5), np.int32)
    assert rasterise(face, hinting, np.array([glyph << 2 | phase]), pixels, 7, entries)[::2] == (1, 0)
    offset, width, height, left, top = entries[0].tolist()
    assert offset == 7
    return pixels[7:].reshape(-1)[: height * width * (3 if "lcd" in hinting else 1)].reshape(height, -1), left, top


@pytest.mark.parametrize("hinting", ["none", "light", "full"])
@pytest.mark.parametrize("size_px", [5, 9.5, 16, 20])
@pytest.mark.parametrize(("font", "characters"), [(SANS, "Agijx@"), (ITALIC, "fQ"), (NOTO, "Ag中，鬱")])
def test_coverage_is_freetypes_own_bitmap(font, characters, size_px, hinting):
    flags = {
        "none": freetype.FT_LOAD_NO_HINTING,
        "light": freetype.FT_LOAD_TARGET_LIGHT,
        "full": freetype.FT_LOAD_TARGET_NORMAL,
    }[hinting]
    face, oracle = open_face(font), freetype.Face(font.path, font.face_index)
    oracle.set_char_size(round(size_px * 64))
    set_size(face, round(size_px * 64))
    for character in characters:
        oracle.load_char(character, flags | freetype.FT_LOAD_NO_BITMAP | freetype.FT_LOAD_RENDER)
        expected = oracle.glyph.bitmap
        coverage_HW, left, top = coverage_of(face, hinting, oracle.get_char_index(character))
        assert coverage_HW.shape == (expected.rows, expected.width)
        assert (left, top) == (oracle.glyph.bitmap_left, oracle.glyph.bitmap_top)
        assert coverage_HW.ravel().tolist() == expected.buffer
        assert coverage_HW.max() > 80


def test_a_phase_moves_the_outline_by_a_quarter_of_a_pixel():
    face = open_face(SANS)
    set_size(face, 20 * 64)
    centres = []
    for phase in range(4):
        coverage_HW, left, _ = coverage_of(face, "none", face.freetype_face.get_char_index("o"), phase)
        coverage = coverage_HW.sum(axis=0)
        centres.append(left + (coverage * np.arange(len(coverage))).sum() / coverage.sum())
    assert np.diff(centres) == pytest.approx([0.25] * 3, abs=0.01)


def test_glyphs_that_do_not_fit_are_left_for_a_larger_array_and_errors_name_the_glyph():
    face = open_face(SANS)
    set_size(face, 20 * 64)
    keys = np.array([face.freetype_face.get_char_index(letter) << 2 for letter in "WM"])
    entries = np.zeros((2, 5), np.int32)
    whole = np.zeros(10_000, np.uint8)
    done, used_bytes, error = rasterise(face, "none", keys, whole, 0, entries)
    assert (done, error) == (2, 0)
    assert rasterise(face, "none", keys, np.zeros(used_bytes - 1, np.uint8), 0, entries) == (1, entries[1, 0], 0)
    done, _, error = rasterise(face, "none", np.array([keys[0], 65535 << 2]), whole, 0, entries)
    assert (done, error) == (1, 0x06), "FT_Err_Invalid_Argument"


def test_an_atlas_that_must_grow_draws_what_a_large_one_draws():
    text = "".join(chr(code) for code in range(0x4E00, 0x4E00 + 2500))
    spec = plain_page(text, NOTO, 20, width=1100, height=1300)
    growing, large = Assets([NOTO]), Assets([NOTO])
    growing.atlas.pixels = np.zeros(1000, np.uint8)
    assert np.array_equal(render(spec, growing).image_HW3, render(spec, large).image_HW3)
    assert growing.atlas.used_bytes > 400_000


def pillow_glyph(character: str, font, size: int, x: int, baseline: int, ink, ground: np.ndarray) -> np.ndarray:
    picture = Image.fromarray(ground.copy())
    opened = ImageFont.truetype(font.path, size, index=font.face_index, layout_engine=ImageFont.Layout.BASIC)
    ImageDraw.Draw(picture).text((x, baseline), character, fill=ink, font=opened, anchor="ls")
    return np.asarray(picture)


@pytest.mark.parametrize("size", [8, 12, 19])
@pytest.mark.parametrize(("font", "character"), [(SANS, "g"), (SANS, "W"), (ITALIC, "f"), (NOTO, "鬱"), (NOTO, "Q")])
def test_a_glyph_on_a_photograph_equals_pillows_within_one(font, character, size):
    spec = PageSpec(
        width_px=64,
        height_px=64,
        family="background",
        background=PhotoCrop(photo_id=PHOTO.photo_id, box_px=(0, 0, 400, 300)),
        blocks=plain_page(character, font, size, ink_rgb=(200, 30, 90)).blocks,
        hinting="full",  # Pillow draws with FreeType's default hinting
    )
    picture = render(spec, ASSETS)
    x, baseline, _ = ASSETS.scratch.pens[0].tolist()
    ground = PHOTO.crop(PHOTO.photo_id, (0, 0, 400, 300), 64, 64)
    expected = pillow_glyph(character, font, size, x, baseline, (200, 30, 90), ground)
    assert np.abs(picture.image_HW3.astype(int) - expected).max() <= 1
    assert np.abs(expected.astype(int) - ground).max() > 50


# Blending


def laid_over(coverage: int, ink: int, ground: int, *, linear: bool, opacity: int = 255) -> int:
    image_HW3 = np.full((1, 1, 3), ground, np.uint8)
    entries = np.array([[0, 1, 1, 0, 1]], np.int32)
    pens = np.array([[0, 1, 0]], np.int32)
    pixels, inks = np.array([coverage], np.uint8), np.full((1, 3), ink, np.uint8)
    opacities, found = np.array([opacity], np.int32), np.zeros(1, np.int32)
    draw_glyphs(image_HW3, entries, pixels, found, pens, inks, opacities, linear, *linear_tables())
    assert (image_HW3 == image_HW3[0, 0, 0]).all()
    return int(image_HW3[0, 0, 0])


def test_half_coverage_of_white_on_black_is_188_in_linear_light_and_128_in_srgb():
    assert laid_over(128, 255, 0, linear=True) == 188
    assert laid_over(128, 255, 0, linear=False) == 128


@settings(max_examples=300, deadline=None)
@given(ink=st.integers(0, 255), ground=st.integers(0, 255), coverage=st.integers(0, 255), linear=st.booleans())
def test_blending_is_exact_at_its_ends_and_rounded_between(ink, ground, coverage, linear):
    assert laid_over(255, ink, ground, linear=linear) == ink
    assert laid_over(0, ink, ground, linear=linear) == ground
    assert laid_over(coverage, ink, ground, linear=linear, opacity=0) == ground
    half = laid_over(255, ink, ground, linear=linear, opacity=coverage)
    assert half == laid_over(coverage, ink, ground, linear=linear)
    if not linear:
        assert half == pytest.approx(ground + (ink - ground) * coverage / 255, abs=0.51)


def test_glyphs_are_cut_at_the_edges_of_the_page():
    whole = render(plain_page("国", SANS_HAN := NOTO, 20), ASSETS).image_HW3
    cut = plain_page("国", SANS_HAN, 20, width=30, height=20, box_px=(20.0, 10.0, 64.0, 64.0))
    assert np.array_equal(render(cut, ASSETS).image_HW3, whole[:20, :30])
    left = plain_page("国", NOTO, 20, box_px=(-10.0, 0.0, 64.0, 64.0))
    shifted = plain_page("国", NOTO, 20, box_px=(20.0, 0.0, 94.0, 64.0), width=94)
    assert np.array_equal(render(left, ASSETS).image_HW3, render(shifted, ASSETS).image_HW3[:, 30:])


# Annotations


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(seed=st.integers(0, 1 << 40))
def test_every_quad_holds_its_ink(seed):
    spec = sampled(seed)
    picture = render(spec, ASSETS, glyph_boxes=True)
    empty = render(PageSpec(**{name: getattr(spec, name) for name in spec.__struct_fields__} | {"blocks": ()}), ASSETS)
    changed = (picture.image_HW3 != empty.image_HW3).any(axis=2)
    assert changed.any()
    in_quads, in_boxes = np.zeros_like(changed), np.zeros_like(changed)
    for line in picture.lines:
        x0, y0, x1, _, x2, y1, x3, y2 = line.quad_px
        assert (x0, x1, y1) == (x3, x2, y2)
        # whole pixels inside the quad only: the ink's own box is in it
        in_quads[max(0, int(np.ceil(y0))) : int(y1), max(0, int(np.ceil(x0))) : int(x1)] = True
        boxes = line.glyph_boxes_px
        assert len(boxes) >= 1
        assert boxes[:, 0].min() >= x0
        assert boxes[:, 1].min() >= y0
        assert boxes[:, 2].max() <= x1
        assert boxes[:, 3].max() <= y1
        assert line.ink_height_px == boxes[:, 3].max() - boxes[:, 1].min()
        for left, top, right, bottom in np.maximum(boxes, 0).astype(int):
            in_boxes[top:bottom, left:right] = True
    assert not (changed & ~in_quads).any()
    assert not (changed & ~in_boxes).any()


def test_a_line_knows_its_ground_and_its_contrast():
    spec = plain_page("对比度", NOTO, 12, background=(200, 180, 40), ink_rgb=(10, 20, 30))
    (line,) = render(spec, ASSETS).lines
    assert (line.ground_rgb, line.ink_rgb, line.clutter) == ((200, 180, 40), (10, 20, 30), 0)
    assert line.contrast == pytest.approx(contrast_ratio((200, 180, 40), (10, 20, 30)))


def test_clutter_is_the_deviation_of_luma_under_the_line():
    spec = PageSpec(
        width_px=400,
        height_px=300,
        family="background",
        background=PhotoCrop(photo_id=PHOTO.photo_id, box_px=(0, 0, 400, 300)),
        blocks=plain_page("杂乱的背景" * 5, NOTO, 16, width=400, height=300).blocks,
    )
    line = render(spec, ASSETS).lines[0]
    x0, y0, x1, _, _, y1, _, _ = line.quad_px
    under = PHOTO.picture[int(np.floor(y0)) : int(np.ceil(y1)), int(np.floor(x0)) : int(np.ceil(x1))].astype(float)
    assert line.clutter == pytest.approx((under @ [0.299, 0.587, 0.114]).std(), abs=0.5)
    assert line.ground_rgb == tuple(np.rint(under.mean(axis=(0, 1))).astype(int))


# Contrast


def test_contrast_ratios_are_those_of_wcag():
    assert contrast_ratio((0, 0, 0), (255, 255, 255)) == pytest.approx(21)
    assert contrast_ratio((119, 119, 119), (255, 255, 255)) == pytest.approx(4.48, abs=0.005)
    assert contrast_ratio((9, 9, 9), (9, 9, 9)) == 1


@settings(max_examples=150, deadline=None)
@given(
    ground=st.tuples(*[st.integers(0, 255)] * 3),
    ink=st.tuples(*[st.integers(0, 255)] * 3),
    opacity=st.sampled_from([0.6, 0.85, 1.0]),
    floor=st.floats(1, 6),
    blend=st.sampled_from(["srgb", "linear"]),
)
@example(ground=(0, 0, 198), ink=(0, 0, 13), opacity=0.85, floor=1.0, blend="linear")
def test_the_ink_meets_its_floor_or_the_page_is_dropped(ground, ink, opacity, floor, blend):
    spec = plain_page("墨", NOTO, 30, background=ground, ink_rgb=ink, opacity=opacity, min_contrast=floor, blend=blend)
    # the seen colours of black and white at that opacity, exactly as drawn
    if max(seen_contrast(ground, extreme, opacity, blend) for extreme in ((0, 0, 0), (255, 255, 255))) < floor:
        with pytest.raises(RenderError, match="low_contrast"):
            render(spec, ASSETS)
        return
    (line,) = render(spec, ASSETS).lines
    assert line.contrast >= floor
    assert line.contrast == pytest.approx(seen_contrast(ground, line.ink_rgb, opacity, blend))
    if seen_contrast(ground, ink, opacity, blend) >= floor:
        assert line.ink_rgb == ink  # moved only when it must be


def seen_contrast(ground, ink, opacity: float, blend: str) -> float:
    seen = [
        laid_over(255, one, below, linear=blend == "linear", opacity=round(opacity * 255))
        for one, below in zip(ink, ground, strict=True)
    ]
    return contrast_ratio(tuple(seen), ground)


def test_dark_ink_on_a_dark_ground_becomes_as_light_as_it_was_dark():
    (line,) = render(
        plain_page("夜", NOTO, 20, background=(10, 10, 30), ink_rgb=(20, 25, 20), min_contrast=4), ASSETS
    ).lines
    assert line.ink_rgb == (235, 230, 235)


def test_a_line_follows_the_line_above_it_as_long_as_it_can_be_read():
    steps = np.repeat(np.array([90, 128, 230], np.uint8), 20)[:, None, None]

    class Steps:
        def crop(self, photo_id, box_px, width_px, height_px):
            return np.broadcast_to(steps, (60, 200, 3)).copy()

    block = plain_page("一\n二\n三", NOTO, 10, width=200, height=60, line_pitch_em=2, ink_rgb=(250, 250, 250)).blocks[0]
    block = TextBlock(
        **{name: getattr(block, name) for name in block.__struct_fields__} | {"box_px": (9.0, 0.0, 90.0, 60.0)}
    )

    def inks(floor: float) -> list[bool]:
        asked = TextBlock(**{name: getattr(block, name) for name in block.__struct_fields__} | {"min_contrast": floor})
        crop = PhotoCrop(photo_id="0", box_px=(0, 0, 1, 1))
        spec = PageSpec(width_px=200, height_px=60, family="background", background=crop, blocks=(asked,))
        return [line.ink_rgb[0] > 128 for line in render(spec, Assets(FACES, Steps())).lines]

    # white reaches 3.9 on 128 and 1.2 on 230
    assert inks(3.0) == [True, True, False]
    assert inks(4.2) == [True, False, False]


def test_a_floor_of_one_moves_nothing():
    (line,) = render(plain_page("隐", NOTO, 20, background=(10, 10, 30), ink_rgb=(10, 11, 30)), ASSETS).lines
    assert line.ink_rgb == (10, 11, 30)


@pytest.mark.parametrize("opacity", [0.5, 0.7, 1.0])
@pytest.mark.parametrize("blend", ["srgb", "linear"])
def test_the_reachable_contrast_is_reached_on_every_grey(opacity, blend):
    reach = 0.97 * reachable_contrast(opacity)
    for grey in range(0, 256, 15):
        spec = plain_page("灰", NOTO, 20, background=(grey,) * 3, opacity=opacity, min_contrast=reach, blend=blend)
        assert render(spec, ASSETS).lines[0].contrast >= reach
    assert reachable_contrast(1.0) == pytest.approx(21**0.5, abs=0.03)


# Purity


def digest(spec: PageSpec, assets: Assets) -> str:
    picture = render(spec, assets, glyph_boxes=True)
    lines = [(line.text, line.quad_px, line.ink_rgb, line.contrast, line.clutter) for line in picture.lines]
    boxes = b"".join(line.glyph_boxes_px.tobytes() for line in picture.lines)
    return hashlib.sha256(picture.image_HW3.tobytes() + repr(lines).encode() + boxes).hexdigest()


def test_what_was_drawn_before_changes_nothing():
    specs = [sampled(seed) for seed in range(12)]
    used = [digest(spec, ASSETS) for spec in specs]
    # an atlas so small that it starts afresh with every page, pages in another order
    fresh = Assets(FACES, PHOTO, atlas_bytes=1)
    assert [digest(spec, fresh) for spec in reversed(specs)] == used[::-1]


def test_the_same_spec_gives_the_same_bytes_in_another_process():
    code = "import test_render_pixels as t; print(*(t.digest(t.sampled(s), t.ASSETS) for s in (7, 3)))"
    here = Path(__file__).parent
    answer = subprocess.run(
        [sys.executable, "-W", "error", "-c", code],
        capture_output=True,
        text=True,
        check=True,
        cwd=here,
        env={"PYTHONPATH": f"{here.parent}:{here}", "PYTHONHASHSEED": "77"},
    )
    assert answer.stdout.split() == [digest(sampled(seed), ASSETS) for seed in (7, 3)]


def test_a_spec_survives_json_and_draws_the_same():
    spec = sampled(11)
    assert spec_from_json(spec_to_json(spec)) == spec
    assert digest(spec_from_json(spec_to_json(spec)), ASSETS) == digest(spec, ASSETS)


def test_a_mirrored_crop_is_the_crop_mirrored():
    crops = [
        PhotoCrop(photo_id=PHOTO.photo_id, box_px=(10, 20, 110, 120), mirrored=mirrored) for mirrored in (False, True)
    ]
    pictures = [
        render(PageSpec(width_px=50, height_px=40, family="background", background=crop, blocks=()), ASSETS)
        for crop in crops
    ]
    assert np.array_equal(pictures[0].image_HW3[:, ::-1], pictures[1].image_HW3)
    assert pictures[0].lines == ()


# The clean line


@pytest.mark.parametrize("text", ["Quick, fjord (g)", "天地玄黄，宇宙", "f", "j.", "混 mixed 排"])
@pytest.mark.parametrize("face", [ITALIC, NOTO], ids=lambda face: face.family)
def test_a_clean_line_is_black_on_white_and_whole(text, face):
    spec = plain_page(text, NOTO, 13, width=400, ink_rgb=(90, 0, 200), background=(240, 200, 180))
    blocks = (
        TextBlock(
            text=text, lang="mixed", box_px=(20.0, 10.0, 400.0, 60.0), face_ids=(face.face_id, NOTO.face_id), size_px=13
        ),
    )
    (line,) = render(
        PageSpec(width_px=400, height_px=64, family="pure", background=spec.background, blocks=blocks), ASSETS
    ).lines
    clean = render_clean_line(line, ASSETS)
    dark = np.argwhere(clean.min(axis=2) < 255)
    margin = round(0.4 * 13)
    assert clean.dtype == np.uint8
    assert clean.min() < 100
    assert (clean == clean[..., :1]).all()
    assert dark.min() >= margin
    assert (dark.max(axis=0) < np.array(clean.shape[:2]) - margin).all()
    height = line.quad_px[5] - line.quad_px[1]
    assert abs(clean.shape[0] - 2 * margin - height) <= 2


# Bad specs


@pytest.mark.parametrize(
    "change",
    [
        {"size_px": 0.0},
        {"size_px": float("nan")},
        {"size_px": 1e9},
        {"box_px": (0.0, 0.0, float("inf"), 10.0)},
        {"line_pitch_em": 0.0},
        {"opacity": 1.5},
        {"min_contrast": 0.5},
        {"ink_rgb": (0, 0, 256)},
        {"letter_spacing_em": 99.0},
        {"face_ids": ()},
    ],
    ids=lambda change: f"{next(iter(change))}={next(iter(change.values()))}",
)
def test_a_number_out_of_range_is_labelled(change):
    choices = {
        "text": "字",
        "lang": "zh",
        "box_px": (0.0, 0.0, 60.0, 60.0),
        "face_ids": (NOTO.face_id,),
        "size_px": 12.0,
    }
    block = TextBlock(**(choices | change))
    spec = PageSpec(width_px=64, height_px=64, family="pure", background=PlainGround(rgb=(0, 0, 0)), blocks=(block,))
    with pytest.raises(RenderError) as caught:
        render(spec, ASSETS)
    assert caught.value.reason == "bad_spec"


def test_an_unknown_face_and_an_unknown_photograph_are_labelled():
    unknown = plain_page("字", NOTO, 12)
    with pytest.raises(RenderError) as caught:
        render(unknown, Assets([SANS]))
    assert caught.value.reason == "unknown_face"
    crop = PhotoCrop(photo_id="f" * 16, box_px=(0, 0, 4, 4))
    page = PageSpec(width_px=8, height_px=8, family="background", background=crop, blocks=())
    for assets in (ASSETS, Assets(FACES)):
        with pytest.raises(RenderError) as caught:
            render(page, assets)
        assert caught.value.reason == "unknown_photo"


def test_a_render_error_travels_between_processes():
    error = pickle.loads(pickle.dumps(RenderError("low_contrast", "no ink")))  # noqa: S301
    assert (error.reason, str(error)) == ("low_contrast", "low_contrast: no ink")
