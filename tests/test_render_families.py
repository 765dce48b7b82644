"""All families alike: annotations hold their ink, pages of any size are drawn, reading order follows the tree."""

import collections
import itertools

import msgspec
import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from pydantic import ValidationError
from test_render_pixels import ASSETS, FACES, PHOTO, TEXTS
from test_render_surfaces import inside

from datagen.preview import bent_outline
from render_engine.distribution import PageDistribution, SizeBand
from render_engine.render import render
from render_engine.sample import sample_spec
from render_engine.spec import FilledBox, PageSpec, Picture, PlainGround, Surface
from render_engine.surfaces import HABITS
from render_engine.template import bundled_templates

FAMILIES = ("background", "pure", "compositional", "complex")


def sampled(family: str, seed: int, size: tuple[int, int], **choices) -> PageSpec:
    pages = PageDistribution(
        page_sizes_px=(size,),
        families={family: 1},
        size_bands=(SizeBand(low_px=6, high_px=18, weight=1),),
        **choices,
    )
    return sample_spec(np.random.default_rng([9, seed]), pages, FACES, TEXTS, [PHOTO])


@pytest.mark.parametrize("family", FAMILIES)
@settings(max_examples=15, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(
    seed=st.integers(0, 1 << 40),
    size=st.sampled_from([(256, 256), (400, 96), (96, 320)]),
    antialias=st.sampled_from(["grey", "lcd_rgb"]),
    hinting=st.sampled_from(["none", "full"]),
)
def test_every_quad_and_glyph_box_holds_its_ink(family, seed, size, antialias, hinting):
    spec = sampled(family, seed, size, antialias={antialias: 1}, hinting={hinting: 1})
    picture = render(spec, ASSETS, glyph_boxes=True)
    empty = render(msgspec.structs.replace(spec, blocks=()), ASSETS)
    rows, columns = np.nonzero((picture.image_HW3 != empty.image_HW3).any(axis=2))
    assert len(rows)
    # all four corners of every pixel that the text changed
    corners = [np.stack((columns + dx, rows + dy), axis=1).astype(float) for dx in (0, 1) for dy in (0, 1)]
    held = np.zeros(len(rows), bool)
    boxed = np.zeros(picture.image_HW3.shape[:2], bool)
    for line in picture.lines:
        held |= np.logical_and.reduce([inside(line.quad_px, points) for points in corners])
        for left, top, right, bottom in line.glyph_boxes_px:
            x0, y0 = max(0, int(np.ceil(left - 1e-3))), max(0, int(np.ceil(top - 1e-3)))
            boxed[y0 : max(0, int(bottom + 1e-3)), x0 : max(0, int(right + 1e-3))] = True
    assert held.all()
    assert boxed[rows, columns].all() or any(block.underline for block in spec.blocks)


@pytest.mark.parametrize("size", [(2048, 512), (320, 1280), (256, 256)])
@pytest.mark.parametrize("family", FAMILIES)
def test_pages_of_any_size_and_shape_are_drawn(family, size):
    for seed in range(3):
        picture = render(sampled(family, seed, size), ASSETS)
        assert picture.image_HW3.shape == (size[1], size[0], 3)
        assert picture.lines
        corners = np.array([line.quad_px for line in picture.lines]).reshape(-1, 2)
        # the boxes of letters may reach a little beyond the margin of a picture, and those of tilted things
        assert corners.min() >= -8
        assert (corners <= np.array(size) + 8).all()


def test_page_sizes_are_drawn_by_their_weights():
    pages = PageDistribution(page_sizes_px=((64, 48), (96, 32, 3.0)), families={"pure": 1})
    assert pages.page_size_weights == (1, 3)
    specs = [sample_spec(np.random.default_rng(seed), pages, FACES, TEXTS, []) for seed in range(80)]
    counts = collections.Counter((spec.width_px, spec.height_px) for spec in specs)
    assert set(counts) == {(64, 48), (96, 32)}
    assert 48 <= counts[96, 32] <= 72  # 60, three deviations
    with pytest.raises(ValidationError, match="weights of page_sizes_px must be more than 0"):
        PageDistribution(page_sizes_px=((64, 48, 0.0),))


@pytest.mark.parametrize("template", bundled_templates())
def test_blocks_and_parts_are_listed_in_reading_order(template):
    for seed in range(4):
        spec = sampled("complex", seed, (480, 560), templates={template: 1}, languages={"en": 1})
        parts = collections.defaultdict(list)
        for number, node in enumerate(spec.layout):
            # a table is read row by row, the labels of a chart as they come
            if node.parent >= 0:
                parts[node.parent].append(node.box_px)
            if node.role not in ("table", "chart"):
                blocks = [block.box_px for block in spec.blocks if block.parent == number]
                assert _in_order(blocks), (node, blocks)
        for number, boxes in parts.items():
            assert _in_order(boxes), (spec.layout[number].role, boxes)
        # the parts of the tree come in the order of their first blocks
        first = {}
        for at, block in enumerate(spec.blocks):
            first.setdefault(block.parent, at)
        siblings = collections.defaultdict(list)
        for number in sorted(first):
            siblings[spec.layout[number].parent].append(first[number])
        for order in siblings.values():
            assert order == sorted(order)


def _in_order(boxes) -> bool:
    """Each begins right of the one before, or below it."""
    pairs = list(itertools.pairwise(boxes))
    return all(after[1] >= before[3] - 1 for before, after in pairs) or all(
        after[0] >= before[2] - 1 for before, after in pairs
    )


def test_things_are_met_in_several_ways_and_screens_have_frames():
    shapes = set()
    for seed in range(30):
        spec = sampled("compositional", seed, (320, 240), surfaces={"screen": 1})
        surface, frame = spec.surface, spec.shapes[-1]
        assert isinstance(frame, FilledBox)
        assert frame.box_px == (0, 0, surface.width_px, surface.height_px)
        assert 1 <= frame.border_px <= 0.07 * min(surface.width_px, surface.height_px) + 1
        inner = (frame.border_px, surface.width_px - frame.border_px, surface.height_px - frame.border_px)
        for block in spec.blocks:
            x0, y0, x1, y1 = block.box_px
            assert min(x0, y0) >= inner[0]
            assert x1 <= inner[1]
            assert y1 <= inner[2]
        shapes.add(surface.width_px > surface.height_px)
    assert shapes == {True, False}


@pytest.mark.parametrize("kind", tuple(HABITS))
def test_nothing_that_carries_text_stays_blank(kind):
    for seed in range(15):
        spec = sampled("compositional", seed, (128, 96), surfaces={kind: 1})
        assert spec.blocks
        assert render(spec, ASSETS).lines


@pytest.mark.parametrize("template", sorted(set(bundled_templates()) - {"poster", "magazine"}))
def test_the_colours_of_a_template_can_be_read_as_they_are(template):
    """Pages whose inks the contrast floor has to move look as nobody designed them; over photographs it may."""
    for seed in range(3):
        spec = sampled("complex", seed, (480, 560), templates={template: 1}, min_contrast=(4.5, 4.5))
        for line in render(spec, ASSETS).lines:
            assert line.ink_rgb == spec.blocks[line.block].ink_rgb, (line.text, line.ground_rgb)


def test_a_page_much_wider_than_high_has_a_body_and_not_only_a_bar():
    for seed in range(8):
        spec = sampled("complex", seed, (1024, 256), templates={"web": 1}, languages={"en": 1})
        written = {block.role for block in spec.blocks} & {"paragraph", "list", "cell", "title"}
        assert written or any(isinstance(shape, Picture) for shape in spec.shapes)


def test_the_outline_of_a_part_in_the_preview_is_bent_with_its_thing():
    surface = Surface(
        kind="label",
        width_px=200,
        height_px=100,
        ground=PlainGround(rgb=(255, 255, 255)),
        quad_px=(10.0, 20.0, 110.0, 20.0, 110.0, 70.0, 10.0, 70.0),
        bow=0.1,
    )
    outline_n2 = bent_outline(np.array([(0.0, 0.0), (200.0, 0.0), (200.0, 100.0), (0.0, 100.0)]), surface)
    top_n2 = outline_n2[:16]
    sag = np.interp(60.0, top_n2[:, 0], top_n2[:, 1]) - top_n2[0, 1]
    assert 4 <= sag <= 6  # a tenth of the height of the thing
