"""datagen.quality and the arithmetic of datagen.density: each number against what was done to the picture."""

import io
import math

import cv2
import numpy as np
import pytest
import skimage
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from datagen.criteria import DEFAULT_RULES
from datagen.decode import decode_image
from datagen.density import density_class, quad_area
from datagen.marks import repeated_marks
from datagen.quality import aspect, blank_share, jpeg_history, jpeg_quality, noise, sharpness, tones, upscale

PICTURES = ["astronaut.png", "chelsea.png", "coffee.png", "rocket.jpg", "motorcycle_left.png", "page.png", "text.png"]
MIN_SHARPNESS = -2.4  # the default rule "blurred"


def load(name: str) -> np.ndarray:
    return decode_image(f"{skimage.__path__[0]}/data/{name}")


@pytest.mark.parametrize("name", PICTURES)
def test_the_default_threshold_parts_sharp_pictures_from_their_blurred_and_enlarged_copies(name):
    image = load(name)
    height, width = image.shape[:2]
    small = cv2.resize(image, (width // 3, height // 3), interpolation=cv2.INTER_AREA)
    enlarged = cv2.resize(small, (width, height), interpolation=cv2.INTER_CUBIC)
    assert sharpness(image) > MIN_SHARPNESS
    assert sharpness(enlarged) < MIN_SHARPNESS
    for sigma_px in (1.5, 2.0, 4.0, 8.0):
        assert sharpness(cv2.GaussianBlur(image, (0, 0), sigma_px)) < MIN_SHARPNESS, sigma_px


def test_sharpness_does_not_depend_on_contrast():
    image = load("coffee.png")
    faint = (image // 2 + 60).astype(np.uint8)
    assert sharpness(faint) == pytest.approx(sharpness(image), abs=0.1)


def test_a_blank_picture_has_no_sharpness():
    assert math.isnan(sharpness(np.full((200, 200, 3), 250, np.uint8)))
    assert math.isnan(sharpness(np.zeros((8, 200, 3), np.uint8)))


@pytest.mark.parametrize("quality", [1, 10, 30, 49, 50, 75, 90, 95, 100])
def test_jpeg_quality_is_what_the_encoder_was_told(quality):
    file = io.BytesIO()
    Image.fromarray(load("coffee.png")).save(file, "JPEG", quality=quality)
    assert jpeg_quality(file.getvalue()) == pytest.approx(quality, abs=0.5)


def test_other_formats_have_no_jpeg_quality():
    assert jpeg_quality(f"{skimage.__path__[0]}/data/coffee.png") is None


def test_blank_tiles_are_counted():
    image = np.full((128, 128, 3), 255, np.uint8)
    assert blank_share(image) == 1.0
    image[:64, :32] = np.random.default_rng(0).integers(0, 256, (64, 32, 3))
    assert blank_share(image) == 14 / 16


@given(st.integers(1, 5000), st.integers(1, 5000))
def test_aspect_is_at_least_one_and_symmetric(width, height):
    assert aspect(width, height) == aspect(height, width) >= 1


@pytest.mark.parametrize(
    ("characters", "per_mp", "expected"),
    [
        (0, 0.0, "none"),
        (4, 400.0, "none"),
        (29, 29.9, "none"),
        (30, 30.0, "sparse"),
        (280, 299.0, "sparse"),
        (500, 300.0, "medium"),
        (899, 899.0, "medium"),
        (900, 900.0, "dense"),
    ],
)
def test_classes_begin_at_their_thresholds(characters, per_mp, expected):
    assert density_class(characters, per_mp) == expected


def test_a_quads_area_is_the_shoelace_formulas():
    assert quad_area((0, 0, 4, 0, 4, 3, 0, 3)) == 12
    assert quad_area((1, 0, 2, 1, 1, 2, 0, 1)) == 2


def test_the_thresholds_here_are_those_of_the_default_rules():
    assert DEFAULT_RULES["blurred"].endswith(f"sharpness >= {MIN_SHARPNESS}")


def as_jpeg(image: np.ndarray, quality: int) -> np.ndarray:
    file = io.BytesIO()
    Image.fromarray(image).save(file, "JPEG", quality=quality)
    return decode_image(file.getvalue())


@pytest.mark.parametrize("quality", [10, 30, 50, 75])
def test_pixels_tell_the_quality_of_the_jpeg_they_once_were(quality):
    for name in ("astronaut.png", "coffee.png", "chelsea.png"):
        assert jpeg_history(as_jpeg(load(name), quality)) == quality, name


@pytest.mark.parametrize("quality", [10, 30, 33, 50])
def test_text_on_white_tells_it_too_though_its_pixels_are_clipped(quality):
    page = np.full((320, 400, 3), 255, np.uint8)
    for row in range(15):
        cv2.putText(
            page, "Quarterly figures of 1987, all", (8, 20 + 20 * row), cv2.FONT_HERSHEY_SIMPLEX, 0.6, (0, 0, 0), 1
        )
    page = cv2.GaussianBlur(page, (0, 0), 0.5)
    assert jpeg_history(page) is None
    assert jpeg_history(as_jpeg(page, quality)) == pytest.approx(quality, abs=1)


def test_pixels_without_a_past_and_pixels_off_the_grid_show_none():
    assert jpeg_history(load("text.png")) is None
    damaged = as_jpeg(load("coffee.png"), 30)
    small = cv2.resize(damaged, None, fx=0.7, fy=0.7, interpolation=cv2.INTER_AREA)
    assert jpeg_history(small) is None
    assert jpeg_history(np.full((64, 64, 3), 7, np.uint8)) is None


def test_a_history_survives_a_second_save_at_high_quality():
    assert jpeg_history(as_jpeg(as_jpeg(load("coffee.png"), 30), 95)) == 30


@pytest.mark.parametrize(("factor", "low", "high"), [(1, 1.0, 1.2), (2, 1.3, 2.2), (3, 1.8, 3.4), (4, 2.4, 4.5)])
def test_upscale_follows_the_factor_of_enlarging(factor, low, high):
    image = load("coffee.png")
    height, width = image.shape[:2]
    small = cv2.resize(image, (width // factor, height // factor), interpolation=cv2.INTER_AREA)
    assert low <= upscale(cv2.resize(small, (width, height), interpolation=cv2.INTER_CUBIC)) <= high


@pytest.mark.parametrize("sigma", [4, 8, 16])
def test_noise_is_measured_in_luma_levels(sigma):
    clean = cv2.GaussianBlur(load("coffee.png"), (0, 0), 2)
    luma_noise = np.random.default_rng(1).normal(0, sigma, clean.shape[:2])[:, :, None]
    noisy = np.clip(clean // 2 + 64 + luma_noise, 0, 255).astype(np.uint8)
    assert noise(clean) < 1
    # The tile at the tenth percentile of the tiles lies a little below the mean; 0.77 corrects for it.
    assert noise(noisy) == pytest.approx(sigma, rel=0.15)


def test_tones_of_known_pictures():
    image = np.zeros((64, 64, 3), np.uint8)
    image[:, 32:] = 255
    found = tones(image)
    assert (found.luma_mean, found.clipped_dark, found.clipped_bright) == (127.5, 0.5, 0.5)
    assert (found.entropy, found.saturation) == (1.0, 0.0)
    assert tones(np.full((8, 8, 3), (200, 0, 100), np.uint8)).saturation == 1.0
    assert tones(np.full((8, 8, 3), (200, 0, 100), np.uint8)).entropy == 0.0


def test_a_faint_mark_all_over_a_picture_stands_out():
    image = cv2.resize(load("coffee.png"), None, fx=1.5, fy=1.5, interpolation=cv2.INTER_AREA)
    mark = np.zeros(image.shape[:2], np.uint8)
    for row, y in enumerate(range(20, image.shape[0], 100)):
        for x in range(-60 * (row % 2), image.shape[1], 190):
            cv2.putText(mark, "SAMPLE", (x, y), cv2.FONT_HERSHEY_SIMPLEX, 1.0, 255, 2)
    marked = np.clip(image + 0.3 * mark[:, :, None].astype(np.float32), 0, 255).astype(np.uint8)
    assert repeated_marks(image) < 0.03
    assert repeated_marks(marked) > 0.065
    assert repeated_marks(np.full((300, 300, 3), 9, np.uint8)) == 0.0
