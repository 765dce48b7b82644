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

from datagen.decode import decode_image
from datagen.density import density_class, quad_area
from datagen.filter import FilterRecipe
from datagen.ingest import IngestConfig, RealPlace
from datagen.quality import aspect, blank_share, jpeg_quality, sharpness

PICTURES = ["astronaut.png", "chelsea.png", "coffee.png", "rocket.jpg", "motorcycle_left.png", "page.png", "text.png"]
CONFIG = FilterRecipe(input=IngestConfig(places=(RealPlace(place="x", licence="x"),)))


def load(name: str) -> np.ndarray:
    return decode_image(f"{skimage.__path__[0]}/data/{name}")


@pytest.mark.parametrize("name", PICTURES)
def test_the_default_threshold_parts_sharp_pictures_from_their_blurred_and_enlarged_copies(name):
    image = load(name)
    height, width = image.shape[:2]
    small = cv2.resize(image, (width // 3, height // 3), interpolation=cv2.INTER_AREA)
    enlarged = cv2.resize(small, (width, height), interpolation=cv2.INTER_CUBIC)
    assert sharpness(image) > CONFIG.min_sharpness
    assert sharpness(enlarged) < CONFIG.min_sharpness
    for sigma_px in (1.5, 2.0, 4.0, 8.0):
        assert sharpness(cv2.GaussianBlur(image, (0, 0), sigma_px)) < CONFIG.min_sharpness, sigma_px


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
