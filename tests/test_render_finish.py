"""Effects, sub-pixel anti-aliasing, degradations, grounds of paper, difficulty, captions."""

import subprocess
import sys
from pathlib import Path

import freetype
import msgspec
import numpy as np
import pytest
from pydantic import ValidationError
from test_render_pixels import ASSETS, FACES, NOTO, PHOTO, SANS, TEXTS, coverage_of, digest, plain_page

from render_engine.atlas import set_size
from render_engine.caption import caption
from render_engine.degrade import degrade
from render_engine.distribution import DIFFICULTIES, DegradationRanges, PageDistribution
from render_engine.face import open_face
from render_engine.render import render
from render_engine.sample import sample_spec
from render_engine.spec import (
    Degradation,
    GradientGround,
    Outline,
    PageSpec,
    PaperGround,
    PlainGround,
    Plate,
    RenderError,
    Shadow,
    photo_ids_of,
)
from render_engine.template import load_template


def sampled(seed: int, **choices) -> PageSpec:
    return sample_spec(np.random.default_rng([6, seed]), PageDistribution(**choices), FACES, TEXTS, [PHOTO])


def with_block(spec: PageSpec, **choices) -> PageSpec:
    return msgspec.structs.replace(spec, blocks=(msgspec.structs.replace(spec.blocks[0], **choices),))


# Effects


def test_a_plate_lies_under_its_line_and_is_the_ground_of_its_contrast():
    spec = plain_page("底板", NOTO, 16, background=(90, 90, 90), ink_rgb=(255, 255, 255))
    plated = with_block(spec, plate=Plate(rgb=(10, 20, 30), opacity=1.0, pad_em=0.25))
    (line,) = render(plated, ASSETS).lines
    assert line.ground_rgb == (10, 20, 30)
    assert line.contrast > 15
    x0, y0, _, _, x1, y1, _, _ = line.quad_px
    under = (render(plated, ASSETS).image_HW3 != 90).any(axis=2)
    ys, xs = np.nonzero(under)
    assert (xs.min(), ys.min(), xs.max() + 1, ys.max() + 1) == tuple(
        int(np.floor(edge + 0.5)) for edge in (x0 - 4, y0 - 4, x1 + 4, y1 + 4)
    )


@pytest.mark.parametrize(("ink", "seen"), [((255, 255, 255), 0), ((0, 0, 0), 255)])
def test_a_shadow_is_the_letter_moved_and_the_other_way_round(ink, seen):
    spec = plain_page("永", NOTO, 20, background=(128, 128, 128), ink_rgb=ink)
    letter = render(spec, ASSETS).image_HW3
    shadowed = render(with_block(spec, shadow=Shadow(opacity=1.0, offset_px=(22, 12))), ASSETS).image_HW3
    only = (shadowed != letter).any(axis=2)
    other = render(with_block(spec, ink_rgb=(seen, seen, seen)), ASSETS).image_HW3
    assert np.array_equal(only, np.roll((other != 128).any(axis=2), (12, 22), axis=(0, 1)))
    assert (shadowed[only].min(), shadowed[only].max())[seen == 255] == seen


def test_an_outline_surrounds_the_letter_by_one_pixel():
    spec = plain_page("口", NOTO, 24, background=(128, 128, 128), ink_rgb=(255, 255, 255))
    letter = (render(spec, ASSETS).image_HW3 != 128).any(axis=2)
    outlined = render(with_block(spec, outline=Outline()), ASSETS)
    around = (outlined.image_HW3 != 128).any(axis=2)
    grown = np.zeros_like(letter)
    for dy in (-1, 0, 1):
        for dx in (-1, 0, 1):
            grown |= np.roll(letter, (dy, dx), axis=(0, 1))
    assert np.array_equal(around, grown)
    assert outlined.image_HW3.min() == 0


def test_an_underline_stands_below_its_line_inside_the_quad():
    spec = plain_page("under", SANS, 16, width=120, ink_rgb=(0, 0, 0))
    (plain,) = render(spec, ASSETS).lines
    page = render(with_block(spec, underline=True), ASSETS)
    (line,) = page.lines
    rows = np.nonzero((page.image_HW3[:, 21:60] == 0).all(axis=(1, 2)))[0]
    assert len(rows) == 1
    assert line.quad_px[5] >= rows[0] + 1 > plain.quad_px[5] - 1
    changed = np.argwhere((page.image_HW3 != 255).any(axis=2))
    assert changed[:, 1].min() >= line.quad_px[0]
    assert changed[:, 1].max() + 1 <= line.quad_px[2]


@pytest.mark.parametrize("effect", ["plate", "scrim", "shadow", "outline"])
def test_effects_are_sampled_over_photographs_only(effect):
    spec = sampled(1, families={"background": 1}, effects={effect: 1})
    plain = sampled(1, families={"background": 1})
    if effect == "scrim":
        assert len(spec.shapes) == 1
        assert spec.blocks == plain.blocks
    elif effect != "outline":
        assert all(getattr(block, effect) is not None for block in spec.blocks)
    assert [block.text for block in spec.blocks] == [block.text for block in plain.blocks]
    assert render(spec, ASSETS).lines
    pure = sampled(1, families={"pure": 1}, effects={effect: 1})
    assert pure == sampled(1, families={"pure": 1})


# Sub-pixel anti-aliasing


@pytest.mark.parametrize("hinting", ["none", "light", "full"])
def test_lcd_coverage_is_freetypes_own(hinting):
    flags = {"none": freetype.FT_LOAD_NO_HINTING, "light": freetype.FT_LOAD_TARGET_LIGHT, "full": 0}[hinting]
    face, oracle = open_face(SANS), freetype.Face(SANS.path, SANS.face_index)
    oracle.set_char_size(13 * 64)
    set_size(face, 13 * 64)
    for character in "AgW":
        oracle.load_char(character, flags | freetype.FT_LOAD_NO_BITMAP)
        oracle.glyph.render(freetype.FT_RENDER_MODE_LCD)
        bitmap = oracle.glyph.bitmap
        expected = np.array(bitmap.buffer).reshape(bitmap.rows, bitmap.pitch)[:, : bitmap.width]
        coverage_HW, left, top = coverage_of(face, f"{hinting}_lcd", oracle.get_char_index(character))
        assert (left, top) == (oracle.glyph.bitmap_left, oracle.glyph.bitmap_top)
        assert np.array_equal(coverage_HW, expected)


def test_stripes_make_coloured_edges_and_bgr_is_rgb_mirrored():
    spec = plain_page("H", SANS, 15, ink_rgb=(0, 0, 0))
    grey, rgb, bgr = (
        render(msgspec.structs.replace(spec, antialias=mode), ASSETS) for mode in ("grey", "lcd_rgb", "lcd_bgr")
    )
    assert (grey.image_HW3 == grey.image_HW3[..., :1]).all()
    assert (rgb.image_HW3 != rgb.image_HW3[..., :1]).any()
    assert np.array_equal(rgb.image_HW3, bgr.image_HW3[..., ::-1])
    # the same amount of ink, spread over the stripes
    inks = [(255 - picture.image_HW3.astype(float)).sum() for picture in (grey, rgb)]
    assert inks[1] == pytest.approx(inks[0], rel=0.03)
    changed = np.argwhere((rgb.image_HW3 != 255).any(axis=2))
    x0, y0, _, _, x1, y1, _, _ = rgb.lines[0].quad_px
    assert y0 <= changed[:, 0].min() <= changed[:, 0].max() < y1
    assert x0 <= changed[:, 1].min() <= changed[:, 1].max() < x1


# Degradations


def test_a_blur_has_its_sigma():
    point = np.zeros((41, 41, 3), np.uint8)
    point[20, 20] = 255
    wide = np.repeat(np.repeat(point, 5, axis=0), 5, axis=1)
    blurred = degrade(wide, Degradation(blur_sigma_px=6.0))[..., 0].astype(float)
    at = np.arange(205) - blurred.sum(axis=0) @ np.arange(205) / blurred.sum()
    # a square of 5 px has a variance of 2 px2
    assert (blurred.sum(axis=0) @ at**2 / blurred.sum()) == pytest.approx(36 + 2, rel=0.08)


def test_noise_has_its_sigma_and_no_mean():
    grey = np.full((200, 200, 3), 128, np.uint8)
    noisy = degrade(grey, Degradation(noise_sigma=5.0, noise_seed=3)).astype(float) - 128
    assert noisy.std() == pytest.approx(5.0, rel=0.02)
    assert noisy.mean() == pytest.approx(0, abs=0.06)
    assert np.corrcoef(noisy[..., 0].ravel(), noisy[..., 1].ravel())[0, 1] == pytest.approx(0, abs=0.02)
    assert (degrade(grey, Degradation(noise_sigma=5.0, noise_seed=4)) != noisy + 128).any()
    assert (grey == 128).all()


def test_jpeg_and_resampling_lose_what_they_should():
    picture = render(plain_page("细节", NOTO, 12), ASSETS).image_HW3
    good = degrade(picture, Degradation(jpeg_quality=95)).astype(int) - picture
    bad = degrade(picture, Degradation(jpeg_quality=20)).astype(int) - picture
    assert 0 < np.abs(good).mean() < np.abs(bad).mean()
    small = degrade(picture, Degradation(resample=3.0))
    assert small.shape == picture.shape
    assert small.min() > picture.min() + 30
    assert small.mean() == pytest.approx(picture.mean(), abs=1)
    assert degrade(picture, Degradation()) is picture


def test_degradations_are_off_unless_asked_for():
    assert all(sampled(seed).degradation is None for seed in range(20))
    found = [sampled(seed, degraded=1.0).degradation for seed in range(60)]
    for one in found:
        ranges = DegradationRanges()
        assert one.blur_sigma_px == 0 or ranges.blur_sigma_px[0] <= one.blur_sigma_px <= ranges.blur_sigma_px[1]
        assert one.blur_sigma_px or one.noise_sigma or one.jpeg_quality or one.resample > 1
    assert {one.jpeg_quality is None for one in found} == {True, False}


@pytest.mark.parametrize(
    "wrong",
    [
        {"degradation": Degradation(blur_sigma_px=99)},
        {"degradation": Degradation(resample=0.5)},
        {"degradation": Degradation(jpeg_quality=0)},
        {"background": PaperGround(rgb=(1, 2, 3), seed=-1, grain=3, cell_px=9)},
        {"background": PaperGround(rgb=(1, 2, 300), seed=1, grain=3, cell_px=9)},
        {"background": GradientGround(start_rgb=(0, 0, 0), end_rgb=(9, 9, 9), direction=(0, 0))},
    ],
)
def test_what_is_out_of_range_is_labelled(wrong):
    spec = PageSpec(width_px=9, height_px=9, family="pure", background=PlainGround(rgb=(0, 0, 0)), blocks=())
    with pytest.raises(RenderError) as caught:
        render(msgspec.structs.replace(spec, **wrong), ASSETS)
    assert caught.value.reason == "bad_spec"


# Grounds


def test_paper_stays_within_its_grain_and_keeps_its_mean():
    def paper(seed: int) -> np.ndarray:
        ground = PaperGround(rgb=(200, 190, 170), seed=seed, grain=20, cell_px=24)
        spec = PageSpec(width_px=256, height_px=256, family="pure", background=ground, blocks=())
        return render(spec, ASSETS).image_HW3.astype(int)

    first = paper(5)
    assert np.abs(first - (200, 190, 170)).max() <= 20
    assert np.abs(first - (200, 190, 170)).max() >= 10
    assert first.mean(axis=(0, 1)) == pytest.approx([200, 190, 170], abs=1.5)
    assert (paper(6) != first).mean() > 0.5
    assert np.array_equal(paper(5), first)


def test_pure_pages_stand_on_the_grounds_asked_for():
    for kind, ground in (("gradient", GradientGround), ("paper", PaperGround), ("plain", PlainGround)):
        for seed in range(5):
            spec = sampled(seed, families={"pure": 1}, grounds={kind: 1}, antialias={"lcd_rgb": 1})
            assert isinstance(spec.background, ground)
            assert spec.antialias == "lcd_rgb"
            assert digest(spec, ASSETS)


# Difficulty


@pytest.mark.parametrize("difficulty", ["f8", "f16", "f32"])
def test_a_difficulty_brings_its_bands(difficulty):
    bands = DIFFICULTIES[difficulty]
    sizes = [
        block.size_px
        for seed in range(60)
        for block in sampled(seed, difficulty=difficulty, families={"pure": 1}, heading=0.0).blocks
    ]
    assert min(sizes) >= bands[0].low_px
    assert max(sizes) <= bands[-1].high_px
    assert max(sizes) > 0.9 * bands[-1].high_px


def test_a_difficulty_and_bands_of_ones_own_exclude_each_other():
    with pytest.raises(ValidationError, match="give one of the two"):
        PageDistribution(difficulty="f8", size_bands=({"low_px": 5, "high_px": 6, "weight": 1},))


# Captions


def test_a_caption_says_what_where_how_large_and_in_which_language():
    spec = plain_page("字", NOTO, 12, background=(255, 255, 255), ink_rgb=(0, 0, 0))
    assert caption(spec) == ("Text in Chinese on a white ground. The text is 12 px large, black, in one block.")
    damaged = msgspec.structs.replace(spec, degradation=Degradation(jpeg_quality=40))
    assert caption(damaged).endswith(" It was JPEG of quality 40.")
    titled = with_block(spec, role="title", text="春天\n来了")
    assert ', headed "春天 来了".' in caption(titled)
    quoting = with_block(spec, role="title", text='Call "next()"')
    assert """, headed "Call 'next()'".""" in caption(quoting)


def test_a_caption_of_a_drawn_picture_tells_what_was_drawn():
    spec = plain_page("夜", NOTO, 20, background=(10, 10, 30), ink_rgb=(20, 25, 20), min_contrast=4)
    assert "meant to be nearly black" in caption(spec)
    assert "20 px large, off-white, in one block" in caption(spec, render(spec, ASSETS).lines)


@pytest.mark.parametrize("family", ["background", "pure", "compositional", "complex"])
def test_captions_of_every_family_name_language_and_sizes(family):
    languages = {"en": "English", "zh": "Chinese", "mixed": "Chinese mixed with English"}
    for seed in range(12):
        spec = sampled(seed, families={family: 1}, page_sizes_px=((320, 320),))
        lines = render(spec, ASSETS).lines
        words = caption(spec, lines)
        assert f"in {languages[spec.blocks[0].lang]}" in words
        assert f"{min(line.size_px for line in lines):.3g}" in words
        assert f"{max(line.size_px for line in lines):.3g} px large" in words
        assert ("photograph" in words) == (family in ("background", "compositional"))
        assert words == caption(spec, lines)
        if family == "complex":
            assert words.lower().startswith(load_template(spec.template).description.lower())


def test_photographs_of_a_page_are_listed_once():
    spec = sampled(3, families={"complex": 1}, templates={"newspaper": 1}, page_sizes_px=((512, 512),))
    assert photo_ids_of(spec) == (PHOTO.photo_id,)
    assert photo_ids_of(sampled(1, families={"pure": 1})) == ()


# Purity


def digests() -> list[str]:
    """Of two pages of every family, with all that can befall them."""
    choices = {
        "page_sizes_px": ((256, 224),),
        "degraded": 1.0,
        "effects": {"plate": 1, "shadow": 1, "outline": 1},
        "grounds": {"gradient": 1, "paper": 1},
        "antialias": {"grey": 1, "lcd_rgb": 1},
    }
    families = ("background", "pure", "compositional", "complex")
    return [digest(sampled(seed, families={family: 1}, **choices), ASSETS) for family in families for seed in (1, 2)]


def test_every_family_has_the_same_bytes_in_another_process():
    here = Path(__file__).parent
    answer = subprocess.run(
        [sys.executable, "-W", "error", "-c", "import test_render_finish as t; print(*t.digests())"],
        capture_output=True,
        text=True,
        check=True,
        cwd=here,
        env={"PYTHONPATH": f"{here.parent}:{here}", "PYTHONHASHSEED": "5"},
    )
    assert answer.stdout.split() == digests()
    assert len(set(digests())) == 8
