"""Sampling: the same generator gives the same page, and every page is one that was asked for and can be drawn."""

import numpy as np
import pytest
from pydantic import ValidationError
from test_render_pixels import ASSETS, FACES, PHOTO, TEXTS

from fonts_manifest.errors import BadInput
from render_engine.choose import faces_of_shard, sizes_of_shard
from render_engine.distribution import PageDistribution, SizeBand, pick
from render_engine.render import render
from render_engine.sample import sample_spec
from render_engine.spec import PhotoCrop, PlainGround, spec_to_json

LATIN = [face for face in FACES if "han" not in face.scripts]


def specs(count: int, **choices: object) -> list:
    pages = PageDistribution(**choices)
    return [sample_spec(np.random.default_rng([9, at]), pages, FACES, TEXTS, [PHOTO]) for at in range(count)]


def test_a_shard_has_few_sizes_of_each_band_and_all_shards_together_have_all() -> None:
    bands = (SizeBand(low_px=5, high_px=8, weight=1), SizeBand(low_px=12, high_px=20, weight=3))
    pages = PageDistribution(size_bands=bands, size_step_px=0.5, sizes_per_band=2)
    shards = [sizes_of_shard(np.random.default_rng(shard), pages) for shard in range(200)]
    for shard in shards:
        sizes = [band.low_px for band in shard.bands]
        assert sizes == sorted(set(sizes))
        assert [5 <= size <= 8 for size in sizes] == [True, True, False, False]
        assert [band.weight for band in shard.bands] == [0.5, 0.5, 1.5, 1.5]
    drawn = {band.low_px for shard in shards for band in shard.bands}
    assert drawn == {step / 2 for step in (*range(10, 17), *range(24, 41))}
    assert all(band.high_px == band.low_px for shard in shards for band in shard.bands)


def test_the_same_generator_gives_the_same_page_and_another_one_another():
    one, again = specs(20), specs(20)
    assert one == again
    assert len({spec_to_json(spec) for spec in one}) == 20


def test_every_sampled_page_can_be_drawn_with_its_floor_kept():
    for spec in specs(60, translucent=0.5):
        picture = render(spec, ASSETS)
        for line in picture.lines:
            assert line.contrast >= spec.blocks[line.block].min_contrast >= 2


def test_dense_pages_are_covered_and_sparse_ones_are_not():
    def covered(layout: str) -> float:
        shares = []
        for spec in specs(20, layouts={layout: 1.0}, page_sizes_px=((256, 256),)):
            boxes = [line.quad_px for line in render(spec, ASSETS).lines]
            shares.append(sum((box[2] - box[0]) * (box[5] - box[1]) for box in boxes) / 256**2)
        return float(np.mean(shares))

    assert covered("columns") > 0.35
    assert covered("mosaic") > 0.3
    assert covered("sparse") < 0.25


def test_weights_of_zero_are_never_drawn():
    for spec in specs(
        40,
        languages={"zh": 1.0, "en": 0.0},
        families={"pure": 1.0},
        hinting={"light": 1.0},
        blend={"linear": 1.0},
        align={"justify": 1.0},
        translucent=0.0,
        layouts={"mosaic": 1.0},
    ):
        assert isinstance(spec.background, PlainGround)
        assert (spec.family, spec.hinting, spec.blend) == ("pure", "light", "linear")
        for block in spec.blocks:
            assert (block.lang, block.align, block.opacity) == ("zh", "justify", 1.0)


def test_sizes_are_in_their_bands_and_on_their_grid():
    bands = (SizeBand(low_px=5, high_px=6, weight=1), SizeBand(low_px=10, high_px=12, weight=1))
    drawn = {block.size_px for spec in specs(80, size_bands=bands, heading=0.0) for block in spec.blocks}
    assert drawn == {5.0, 5.5, 6.0, 10.0, 10.5, 11.0, 11.5, 12.0}


def test_headings_are_never_larger_than_the_largest_band():
    sizes = [block.size_px for spec in specs(60, heading=1.0) for block in spec.blocks]
    assert max(sizes) == 20


def test_blocks_and_crops_lie_inside_their_pages():
    sizes = ((256, 192), (512, 300))
    seen = set()
    for spec in specs(60, page_sizes_px=sizes, photo_scale=(0.5, 8.0)):
        seen.add((spec.width_px, spec.height_px))
        for block in spec.blocks:
            x0, y0, x1, y1 = block.box_px
            assert 0 <= x0 < x1 <= spec.width_px
            assert 0 <= y0 < y1 <= spec.height_px
        if isinstance(spec.background, PhotoCrop):
            x0, y0, x1, y1 = spec.background.box_px
            assert 0 <= x0 < x1 <= PHOTO.width_px
            assert 0 <= y0 < y1 <= PHOTO.height_px
            # the crop keeps the shape of the page: nothing is squeezed
            assert (x1 - x0) / (y1 - y0) == pytest.approx(spec.width_px / spec.height_px, rel=0.03)
    assert seen == set(sizes)


def test_the_first_face_covers_its_language():
    scripts = {face.face_id: face.scripts for face in FACES}
    for spec in specs(60):
        for block in spec.blocks:
            if block.lang == "zh":
                assert "han" in scripts[block.face_ids[0]]
            assert any("han" in scripts[face_id] for face_id in block.face_ids)
            assert len(set(block.face_ids)) == len(block.face_ids)


def test_a_language_without_a_face_and_a_photograph_that_is_not_there_are_bad_input():
    rng = np.random.default_rng(0)
    with pytest.raises(BadInput, match="no face of the manifest covers GB 2312 level 1"):
        sample_spec(rng, PageDistribution(languages={"zh": 1.0}, families={"pure": 1.0}), LATIN, TEXTS, [])
    with pytest.raises(BadInput, match="need photographs"):
        sample_spec(rng, PageDistribution(families={"background": 1.0}), FACES, TEXTS, [])


@pytest.mark.parametrize(
    ("choices", "message"),
    [
        ({"languages": {}}, "languages must hold weights"),
        ({"inks": {"dark": 0.0}}, "inks must hold weights"),
        ({"align": {"start": -1.0, "end": 2.0}}, "align must hold weights"),
        ({"opacity": (0.9, 0.5)}, "opacity must hold two numbers in order"),
        ({"columns": {9: 1.0}}, "columns must be 1 to 6"),
        ({"page_sizes_px": ((8, 8),)}, "page_sizes_px must lie between 32 and 4096"),
        ({"size_bands": ({"low_px": 9, "high_px": 5, "weight": 1},)}, "high_px must not be less"),
        ({"sizes": 3}, "Extra inputs are not permitted"),
        ({"languages": {"fr": 1.0}}, "Input should be 'en', 'zh' or 'mixed'"),
    ],
)
def test_a_distribution_that_cannot_be_is_refused(choices, message):
    with pytest.raises(ValidationError, match=message):
        PageDistribution.model_validate(choices)


def test_every_field_of_the_distribution_says_what_it_means():
    for config in (PageDistribution, SizeBand):
        for name, field in config.model_fields.items():
            assert field.description, name


def test_pick_follows_its_weights():
    rng = np.random.default_rng(1)
    drawn = [pick(rng, {"a": 3, "b": 0, "c": 1}) for _ in range(4000)]
    assert drawn.count("b") == 0
    assert drawn.count("a") / 4000 == pytest.approx(0.75, abs=0.03)


def test_a_shard_draws_with_few_faces_of_every_script_it_needs():
    pages = PageDistribution(faces_per_shard=6, languages={"en": 0.5, "zh": 0.5})
    sets = [faces_of_shard(np.random.default_rng(shard), pages, FACES) for shard in range(30)]
    for faces in sets:
        assert len(faces) == 6
        assert sum("han" in face.scripts for face in faces) == 3
    assert {face for faces in sets for face in faces} == set(FACES)
    english = PageDistribution(faces_per_shard=6, languages={"en": 1.0})
    assert not any("han" in face.scripts for face in faces_of_shard(np.random.default_rng(0), english, FACES))
    assert len(faces_of_shard(np.random.default_rng(0), pages, FACES[:3] + FACES[-1:])) == 4
    with pytest.raises(BadInput, match="covers GB 2312"):
        faces_of_shard(np.random.default_rng(0), pages, LATIN)


def test_blocks_side_by_side_are_half_an_em_apart_and_more():
    beside = 0
    for spec in specs(40, layouts={"mosaic": 1.0}, page_sizes_px=((512, 512),)):
        for one in spec.blocks:
            for other in spec.blocks:
                rows = min(one.box_px[3], other.box_px[3]) - max(one.box_px[1], other.box_px[1])
                gap = other.box_px[0] - one.box_px[2]
                if rows > 20 and 0 <= gap < 60:
                    assert gap >= min(0.4 * (one.size_px + other.size_px), 8)
                    beside += 1
    assert beside >= 40


def test_english_cells_have_room_for_words():
    for spec in specs(40, layouts={"mosaic": 1.0}, languages={"en": 1.0}, page_sizes_px=((512, 512),)):
        for block in spec.blocks:
            assert block.box_px[2] - block.box_px[0] >= 8 * block.size_px or block.size_px == 5
