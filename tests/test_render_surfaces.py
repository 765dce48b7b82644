"""Text on things in photographs: the projection is exact, and boxes hold their ink after it."""

import cv2
import msgspec
import numpy as np
import pytest
from hypothesis import HealthCheck, assume, given, settings
from hypothesis import strategies as st
from test_render_pixels import ASSETS, FACES, NOTO, PHOTO, TEXTS, digest

from fonts_manifest.errors import BadInput
from render_engine.distribution import PageDistribution, SizeBand
from render_engine.render import Assets, render
from render_engine.sample import sample_spec
from render_engine.spec import (
    PageSpec,
    PhotoCrop,
    PlainGround,
    RenderError,
    Surface,
    TextBlock,
    spec_from_json,
    spec_to_json,
)
from render_engine.surfaces import HABITS
from render_engine.warp import project

KINDS = tuple(HABITS)
SQUARE = (10.0, 10.0, 90.0, 10.0, 90.0, 90.0, 10.0, 90.0)


def compositional(seed: int, kind: str = "", size: tuple[int, int] = (256, 256)) -> PageSpec:
    pages = PageDistribution(
        page_sizes_px=(size,),
        families={"compositional": 1},
        size_bands=(SizeBand(low_px=7, high_px=14, weight=1),),
        surfaces={kind: 1} if kind else dict.fromkeys(KINDS, 1.0),
    )
    return sample_spec(np.random.default_rng([8, seed]), pages, FACES, TEXTS, [PHOTO])


def surface_page(*blocks: TextBlock, surface: Surface) -> PageSpec:
    crop = PhotoCrop(photo_id=PHOTO.photo_id, box_px=(0, 0, 300, 300))
    return PageSpec(
        width_px=100, height_px=100, family="compositional", background=crop, blocks=blocks, surface=surface
    )


def surface(quad=SQUARE, **choices) -> Surface:
    ground = PlainGround(rgb=(240, 230, 200))
    return Surface(
        **({"kind": "sheet", "width_px": 160, "height_px": 160, "ground": ground, "quad_px": quad} | choices)
    )


def inside(quad, points_N2: np.ndarray) -> np.ndarray:
    corners = np.array(quad).reshape(4, 2)
    held = np.ones(len(points_N2), bool)
    for start, end in zip(corners, np.roll(corners, -1, axis=0), strict=True):
        way, to = end - start, points_N2 - start
        held &= way[0] * to[:, 1] - way[1] * to[:, 0] >= -1e-6
    return held


def test_the_projection_is_opencvs_homography():
    quad = (12.0, 20.0, 200.0, 5.0, 230.0, 180.0, 30.0, 210.0)
    projection = project(surface(quad, width_px=300, height_px=200))
    corners = np.array([[0, 0], [300, 0], [300, 200], [0, 200]], np.float32)
    oracle = cv2.getPerspectiveTransform(corners, np.array(quad, np.float32).reshape(4, 2))
    points = np.random.default_rng(0).uniform(0, 200, (50, 2))
    expected = cv2.perspectiveTransform(points[None].astype(np.float64), oracle)[0]
    assert np.abs(projection(points) - expected).max() < 1e-3


def test_a_bow_hangs_in_the_middle_and_keeps_the_sides():
    projection = project(surface(bow=0.1))
    points = np.array([[0, 40], [80, 40], [160, 40]], np.float64)
    straight = project(surface())(points)
    assert projection(points)[[0, 2]] == pytest.approx(straight[[0, 2]])
    assert projection(points)[1] - straight[1] == pytest.approx([0, 0.1 * 80])


def test_a_surface_that_is_looked_at_straight_shows_means_of_two_by_two_pixels():
    rng = np.random.default_rng(2)
    background = rng.integers(0, 256, (160, 160, 3)).astype(np.uint8)

    class Same:
        def crop(self, photo_id, box_px, width_px, height_px):
            return background[:height_px, :width_px].copy()

    crop = PhotoCrop(photo_id="0", box_px=(0, 0, 100, 100))
    flat = Surface(kind="screen", width_px=160, height_px=160, ground=crop, quad_px=SQUARE)
    spec = PageSpec(width_px=100, height_px=100, family="compositional", background=crop, blocks=(), surface=flat)
    picture = render(spec, Assets(FACES, Same())).image_HW3
    assert np.array_equal(picture[:10], background[:10, :100])
    assert np.array_equal(picture[90:], background[90:100, :100])
    assert np.array_equal(picture[:, :10], background[:100, :10])
    expected = background[:160, :160].reshape(80, 2, 80, 2, 3).mean(axis=(1, 3))
    assert np.abs(picture[10:90, 10:90] - expected).max() <= 0.5


def test_a_tilted_surface_is_opencvs_warp_of_the_flat_page():
    rng = np.random.default_rng(4)
    small = rng.integers(0, 256, (12, 12, 3)).astype(np.uint8)
    texture = cv2.resize(small, (300, 200), interpolation=cv2.INTER_CUBIC)

    class Same:
        def crop(self, photo_id, box_px, width_px, height_px):
            return texture[:height_px, :width_px].copy()

    quad = (12.0, 20.0, 140.0, 5.0, 130.0, 90.0, 20.0, 110.0)
    crop = PhotoCrop(photo_id="0", box_px=(0, 0, 300, 200))
    flat = Surface(kind="screen", width_px=300, height_px=200, ground=crop, quad_px=quad)
    spec = PageSpec(width_px=150, height_px=120, family="compositional", background=crop, blocks=(), surface=flat)
    picture = render(spec, Assets(FACES, Same())).image_HW3
    # OpenCV takes the middle of the first pixel for 0, 0
    corners = np.array([[0, 0], [300, 0], [300, 200], [0, 200]], np.float32) - 0.5
    way = cv2.getPerspectiveTransform(corners, np.array(quad, np.float32).reshape(4, 2) - 0.5)
    oracle = cv2.warpPerspective(cv2.blur(texture, (2, 2)), way, (150, 120)).astype(int)
    # OpenCV's blur of two by two lies half a pixel off
    moved = cv2.warpPerspective(cv2.blur(texture, (2, 2), anchor=(0, 0)), way, (150, 120)).astype(int)
    inside = cv2.erode(cv2.warpPerspective(np.ones((200, 300), np.uint8), way, (150, 120)), np.ones((5, 5))) > 0
    assert inside.sum() > 5000
    difference = np.abs(picture.astype(int) - (oracle + moved) / 2)[inside]
    assert difference.max() <= 6
    assert difference.mean() < 0.7


def test_light_and_shadow_are_as_asked():
    lit = render(surface_page(surface=surface(light=(0.5, 1.0, 0.5))), ASSETS).image_HW3
    assert np.abs(lit[50, 11].astype(int) - np.array([240, 230, 200]) * (0.5 + 0.5 * 1.5 / 80)).max() <= 1
    assert np.abs(lit[50, 88].astype(int) - np.array([240, 230, 200]) * (0.5 + 0.5 * 78.5 / 80)).max() <= 1
    plain = render(surface_page(surface=surface()), ASSETS).image_HW3
    shaded = render(
        surface_page(surface=surface(shadow_opacity=0.5, shadow_offset_px=(8, 0), shadow_blur_px=1.0)), ASSETS
    ).image_HW3
    assert np.array_equal(plain[:, :5], shaded[:, :5])
    assert np.abs(shaded[50, 93].astype(int) - plain[50, 93] * 0.5).max() <= 1
    assert np.array_equal(plain[12:88, 12:88], shaded[12:88, 12:88])


def test_sizes_and_contrast_are_those_that_are_seen():
    block = TextBlock(text="永国", lang="zh", box_px=(20.0, 20.0, 150.0, 150.0), face_ids=(NOTO.face_id,), size_px=32)
    (line,) = render(surface_page(block, surface=surface()), ASSETS).lines
    assert line.size_px == pytest.approx(16)
    (dim,) = render(surface_page(block, surface=surface(light=(0.5, 0.5, 0.5))), ASSETS).lines
    assert (line.ground_rgb, dim.ground_rgb) == ((240, 230, 200), (120, 115, 100))
    assert dim.contrast < line.contrast
    # nearer at the bottom: what stands there is seen larger
    tilted = surface((30.0, 10.0, 70.0, 10.0, 95.0, 90.0, 5.0, 90.0))
    top, bottom = render(
        surface_page(
            block,
            msgspec.structs.replace(block, box_px=(20.0, 100.0, 150.0, 160.0)),
            surface=tilted,
        ),
        ASSETS,
    ).lines
    assert bottom.size_px > 1.2 * top.size_px


@settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(seed=st.integers(0, 1 << 40), bow=st.sampled_from([0.0, 0.1, -0.06]))
def test_every_seen_quad_and_glyph_box_holds_its_ink(seed, bow):
    spec = compositional(seed)
    assume(spec.blocks)  # a note too small for its text stays empty; the judge drops it as no_text
    spec = msgspec.structs.replace(spec, surface=msgspec.structs.replace(spec.surface, bow=bow))
    picture = render(spec, ASSETS, glyph_boxes=True)
    assert picture.lines
    empty = render(msgspec.structs.replace(spec, blocks=()), ASSETS)
    changed = (picture.image_HW3 != empty.image_HW3).any(axis=2)
    rows, columns = np.nonzero(changed)
    assert len(rows)
    # all four corners of every pixel that the text changed
    corners = [np.stack((columns + dx, rows + dy), axis=1).astype(float) for dx in (0, 1) for dy in (0, 1)]
    held = np.zeros(len(rows), bool)
    boxed = np.zeros_like(changed)
    for line in picture.lines:
        whole = np.ones(len(rows), bool)
        for points in corners:
            whole &= inside(line.quad_px, points)
        held |= whole
        for left, top, right, bottom in line.glyph_boxes_px:
            x0, y0 = max(0, int(np.ceil(left - 1e-3))), max(0, int(np.ceil(top - 1e-3)))
            boxed[y0 : int(bottom + 1e-3), x0 : int(right + 1e-3)] = True
    underlined = any(block.underline for block in spec.blocks)
    assert held.all()
    assert underlined or boxed[rows, columns].all()


def test_quads_are_tight_around_a_seen_line():
    block = TextBlock(
        text="国国国国", lang="zh", box_px=(20.0, 60.0, 150.0, 150.0), face_ids=(NOTO.face_id,), size_px=24
    )
    tilted = surface((20.0, 5.0, 95.0, 15.0, 85.0, 90.0, 8.0, 80.0))
    (line,) = render(surface_page(block, surface=tilted), ASSETS).lines
    corners = np.array(line.quad_px).reshape(4, 2)
    area = cv2.contourArea(corners.astype(np.float32))
    width = np.linalg.norm(corners[1] - corners[0])
    # no more than two pixels of room around the ink
    assert area <= (line.ink_height_px + 4) * (width + 1)
    assert line.ink_height_px < 13


@pytest.mark.parametrize("kind", KINDS)
def test_things_stand_inside_their_picture(kind):
    for seed in range(12):
        spec = compositional(seed, kind, (320, 240))
        assert spec.family == "compositional"
        assert spec.surface.kind == kind
        outline = project(spec.surface)(
            np.array([[x, y] for x in (0, 0.5, 1) for y in (0, 1)], np.float64)
            * (spec.surface.width_px, spec.surface.height_px)
        )
        assert outline.min() >= -1
        assert (outline <= np.array([321, 241])).all()
        render(spec, ASSETS)


@pytest.mark.parametrize("kind", KINDS)
def test_text_on_things_is_seen_in_the_sizes_asked_for_wherever_it_stands(kind):
    sizes = []
    for seed in range(16):
        spec = compositional(seed, kind)
        roles = [block.role for block in spec.blocks]
        sizes += [line.size_px for line in render(spec, ASSETS).lines if roles[line.block] in ("paragraph", "list")]
    assert len(sizes) >= 8
    assert min(sizes) >= 7
    # what is turned away so far that no size is right at both of its ends keeps to the smaller one
    assert np.quantile(sizes, 0.9) <= 14
    assert max(sizes) <= 16


def test_the_same_generator_gives_the_same_thing_and_the_spec_draws_it_again():
    for seed in range(4):
        spec = compositional(seed)
        assert compositional(seed) == spec
        again = spec_from_json(spec_to_json(spec))
        assert again == spec
        assert digest(again, ASSETS) == digest(spec, ASSETS)


def test_things_need_photographs():
    pages = PageDistribution(families={"compositional": 1})
    with pytest.raises(BadInput, match="'compositional' need photographs"):
        sample_spec(np.random.default_rng(0), pages, FACES, TEXTS, [])


@pytest.mark.parametrize(
    "wrong",
    [
        {"quad_px": SQUARE[2:] + SQUARE[:2], "bow": 0.5},
        {"quad_px": (10.0, 10.0, 10.0, 90.0, 90.0, 90.0, 90.0, 10.0)},
        {"quad_px": (0.0, 0.0, 50.0, 50.0, 100.0, 100.0, 0.0, 100.0)},
        {"quad_px": (float("nan"), *SQUARE[1:])},
        {"light": (3.0, 1.0, 1.0)},
        {"shadow_opacity": 0.5, "shadow_blur_px": 1e9},
        {"width_px": 0},
    ],
)
def test_a_surface_out_of_range_is_labelled(wrong):
    with pytest.raises(RenderError) as caught:
        render(surface_page(surface=surface(**wrong)), ASSETS)
    assert caught.value.reason == "bad_spec"
