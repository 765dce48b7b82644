"""Several pixels at a time: mixed and summed as one by one."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from render_engine.compose import draw_glyphs, linear_tables
from render_engine.paint import measure_lines


@settings(max_examples=200, deadline=None)
@given(seed=st.integers(0, 1 << 30), spare=st.sampled_from([0, 3, 8, 100]))
def test_every_pixel_of_a_glyph_is_mixed_alike_wherever_it_stands(seed, spare):
    """Several pixels are mixed at a time, but not at the end of the picture and of the atlas (`spare` bytes behind)."""
    rng = np.random.default_rng(seed)
    width, height = int(rng.integers(1, 40)), int(rng.integers(1, 20))
    columns, rows = int(rng.integers(1, 30)), int(rng.integers(1, 12))
    x, y = int(rng.integers(-columns, width + 1)), int(rng.integers(-rows, height + 1))
    image_HW3 = rng.integers(0, 256, (height, width, 3)).astype(np.uint8)
    pixels = rng.integers(0, 256, columns * rows + spare).astype(np.uint8)
    ink, opacity = rng.integers(0, 256, 3), int(rng.integers(0, 256))
    shares = np.zeros((height + 2 * rows, width + 2 * columns), np.int64)
    coverage_hw = pixels[: columns * rows].reshape(rows, columns).astype(np.int64)
    shares[y + rows : y + 2 * rows, x + columns : x + 2 * columns] = coverage_hw * opacity * 33026 >> 15
    share_HW1 = shares[rows : rows + height, columns : columns + width, None]
    expected_HW3 = image_HW3 + ((ink - image_HW3.astype(np.int64)) * share_HW1 + 32768 >> 16)
    draw_glyphs(
        *(image_HW3, np.array([[0, columns, rows, 0, 0]], np.int32), pixels, np.zeros(1, np.int32)),
        *(np.array([[x, y, 0]], np.int32), ink[None].astype(np.uint8), np.array([opacity], np.int32), False),
        *linear_tables(),
    )
    assert (image_HW3 == expected_HW3).all()


@settings(max_examples=100, deadline=None)
@given(seed=st.integers(0, 1 << 30), width=st.one_of(st.integers(1, 70), st.sampled_from([4095, 4097, 8192])))
def test_the_ground_of_a_line_is_the_mean_of_its_box_and_its_clutter_the_deviation_of_its_luma(seed, width):
    rng = np.random.default_rng(seed)
    image_HW3 = rng.integers(rng.integers(0, 256), 256, (3, width, 3)).astype(np.uint8)
    ink_boxes, boxes, grounds = np.empty((1, 4), np.int32), np.empty((1, 4)), np.empty((1, 4))
    lines = np.array([[0, 1, 0, width * 64, 2, 0, 1, 0, 0]], np.int32)
    measure_lines(
        *(image_HW3, np.array([[0, width, 2, 0, 0]], np.int32), np.zeros(1, np.int32), np.zeros((1, 3), np.int32)),
        *(lines, np.array([2.0]), ink_boxes, boxes, grounds),
    )
    under_N3 = image_HW3[:2].reshape(-1, 3).astype(np.int64)
    luma_N = under_N3 @ np.array([77, 150, 29]) >> 8
    assert boxes.tolist() == [[0, 0, width, 2]]
    assert grounds[0] == pytest.approx([*under_N3.mean(axis=0), luma_N.std()], abs=1e-6)
