"""datagen.dedup: copies are found by picture and by text, and different texts over one background are no copies."""

import cv2
import numpy as np
import pytest
import skimage
import xxhash
from hypothesis import given, settings
from hypothesis import strategies as st

from datagen.decode import decode_image
from datagen.dedup import (
    Benchmark,
    BenchmarkConfig,
    DuplicatesConfig,
    Fingerprint,
    _HashIndex,
    find_copies,
    perceptual_hash,
)

COFFEE = decode_image(f"{skimage.__path__[0]}/data/coffee.png")
CAT = decode_image(f"{skimage.__path__[0]}/data/chelsea.png")
ENGLISH = "The miller grinds wheat between two stones and the river turns the wheel through the whole of the night. "
OTHER = "Nobody had expected that a letter of nine pixels would survive being folded into a grid of small numbers. "
CHINESE = "磨坊主在两块石头之间磨麦子，河水整夜推动着水轮，直到天亮时面粉装满了所有的口袋，没有人知道他从哪里来。"


def of(name: str, image: np.ndarray, text: str = "") -> Fingerprint:
    height, width = image.shape[:2]
    return Fingerprint(
        row_id=name,
        pixels=height * width,
        pixels_xxh3=xxhash.xxh3_128_hexdigest(image.tobytes()),
        phash=int(perceptual_hash(image), 16),
        text=text,
    )


def reasons(*found: Fingerprint, **settings: object) -> dict[str, tuple[str, str]]:
    copies = find_copies(found, DuplicatesConfig(**settings))
    return {name: (copy.reason, copy.of) for name, copy in copies.items()}


def smaller(image: np.ndarray, factor: float) -> np.ndarray:
    return cv2.resize(image, None, fx=factor, fy=factor, interpolation=cv2.INTER_AREA)


def test_equal_pixels_are_duplicates_and_the_first_stays():
    assert reasons(of("a", COFFEE), of("b", COFFEE), of("c", CAT)) == {"b": ("duplicate", "a")}


def test_a_smaller_or_recompressed_photograph_is_a_near_duplicate_of_the_larger():
    _, data = cv2.imencode(".jpg", COFFEE, [cv2.IMWRITE_JPEG_QUALITY, 40])
    found = reasons(of("small", smaller(COFFEE, 0.5)), of("jpeg", cv2.imdecode(data, 1)), of("full", COFFEE))
    assert found["small"] == ("near_duplicate", "jpeg")  # of two with the most pixels the first stays
    assert found["full"] == ("near_duplicate", "jpeg")


def test_different_texts_over_one_background_are_no_copies_and_the_same_text_is():
    light = np.clip(COFFEE.astype(int) + 2, 0, 255).astype(np.uint8)
    assert reasons(of("a", COFFEE, ENGLISH), of("b", light, OTHER)) == {}
    assert reasons(of("a", COFFEE, ENGLISH), of("b", light, ENGLISH)) == {"b": ("near_duplicate", "a")}
    assert reasons(of("a", COFFEE, ENGLISH), of("b", light)) == {}  # one with text, one without
    assert reasons(of("a", COFFEE, "42"), of("b", light, "43")) == {"b": ("near_duplicate", "a")}
    assert reasons(of("a", COFFEE, "Chapter One"), of("b", light, "Chapter Two")) == {}


@pytest.mark.parametrize("text", [ENGLISH, CHINESE])
def test_the_same_text_in_other_pictures_goes_by_its_text(text):
    misread = text[:20] + "x" + text[21:]
    found = (of("a", COFFEE, text), of("b", CAT, misread), of("c", smaller(CAT[::-1], 0.7), OTHER))
    assert reasons(*found) == {"b": ("same_text", "a")}
    assert reasons(*found, same_text_overlap=None) == {}


def test_a_crop_of_a_benchmark_page_and_a_page_around_it_are_found():
    page = of("page", COFFEE, ENGLISH * 3 + OTHER)
    crop = of("bench/0.png", smaller(CAT, 0.4), OTHER)
    benchmark = Benchmark([crop, of("bench/cat.png", CAT[:, ::-1])], BenchmarkConfig(place="x"), 6)
    assert benchmark.find(page).of == "bench/0.png"
    assert benchmark.find(of("mirrored", smaller(CAT[:, ::-1], 0.8))).of == "bench/cat.png"
    assert benchmark.find(of("other", COFFEE, CHINESE)) is None
    assert benchmark.find(of("short", COFFEE, OTHER[:12])) is None  # a few common words are no proof


@settings(deadline=None, max_examples=60)
@given(
    st.lists(st.integers(0, 2**64 - 1), min_size=1, max_size=30),
    st.integers(0, 2**64 - 1),
    st.lists(st.integers(0, 63), max_size=9, unique=True),
    st.integers(0, 8),
)
def test_the_index_finds_exactly_the_hashes_within_the_distance(others, near, flips, distance):
    query = near
    for bit in flips:
        query ^= 1 << bit
    index = _HashIndex(distance)
    hashes = [near, *others]
    for number, value in enumerate(hashes):
        index.add(number, value)
    assert index.near(query) == [n for n, value in enumerate(hashes) if (value ^ query).bit_count() <= distance]
