"""datagen.photos: every unusable file is listed with its reason, every crop shows the right pixels."""

import io
import struct
import zlib
from pathlib import Path

import cv2
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from datagen.photos import (
    PhotoIndex,
    PhotoPlace,
    PhotosConfig,
    PhotoStore,
    index_from_json,
    index_photos,
    index_to_json,
)
from datagen.resample import resample
from fonts_manifest.errors import BadInput


def _noise(height: int, width: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 256, (height, width, 3), np.uint8)


def _index(*places: Path, **settings_: object) -> PhotoIndex:
    sources = tuple(PhotoPlace(place=str(place), licence="CC0-1.0") for place in places)
    return index_photos(PhotosConfig(places=sources, **settings_))


def _bomb() -> bytes:
    """A PNG of 300 bytes whose header promises 10 gigapixels."""

    def chunk(kind: bytes, body: bytes) -> bytes:
        return struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))

    header = struct.pack(">IIBBBBB", 100_000, 100_000, 8, 2, 0, 0, 0)
    return (
        b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(bytes(1000))) + chunk(b"IEND", b"")
    )


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    good = Image.fromarray(_noise(64, 80))
    good.save(tmp_path / "good.png")
    good.save(tmp_path / "same.png")
    Image.fromarray(_noise(64, 15)).save(tmp_path / "narrow.png")
    (tmp_path / "bomb.png").write_bytes(_bomb())
    (tmp_path / "empty.jpg").write_bytes(b"")
    (tmp_path / "page.jpg").write_text("<html>not found</html>")
    jpeg = io.BytesIO()
    good.save(jpeg, "JPEG")
    (tmp_path / "cut.jpg").write_bytes(jpeg.getvalue()[: len(jpeg.getvalue()) // 2])
    good.save(tmp_path / "moving.webp", save_all=True, append_images=[Image.fromarray(_noise(64, 80, 1))])
    (tmp_path / "notes.txt").write_text("no picture, not looked at")
    return tmp_path


def test_every_unusable_file_is_listed_with_its_reason(folder: Path) -> None:
    index = _index(folder, min_side_px=16)
    assert [(Path(photo.path).name, photo.width_px, photo.height_px) for photo in index.photos] == [
        ("good.png", 80, 64)
    ]
    assert {Path(dropped.path).name: dropped.reason for dropped in index.dropped} == {
        "same.png": "duplicate",
        "narrow.png": "too_small",
        "bomb.png": "too_many_pixels",
        "empty.jpg": "empty_file",
        "page.jpg": "not_an_image",
        "cut.jpg": "damaged",
        "moving.webp": "animated",
    }
    assert index.dropped_by_reason()["damaged"] == 1


def test_no_usable_photograph_is_one_sentence_with_the_reasons(folder: Path) -> None:
    with pytest.raises(BadInput, match=r"no usable photograph \(.*3 too_small.*1 damaged"):
        _index(folder, min_side_px=1000)
    (folder / "empty").mkdir()
    with pytest.raises(BadInput, match="no image files at all"):
        _index(folder / "empty")
    with pytest.raises(BadInput, match="no such file or folder"):
        _index(folder / "missing")


def test_grey_photographs_are_flagged_and_come_out_as_rgb(tmp_path: Path) -> None:
    grey_HW = _noise(64, 64)[:, :, 0]
    Image.fromarray(grey_HW).save(tmp_path / "grey.png")
    Image.fromarray(_noise(64, 64, 2)).save(tmp_path / "colour.png")
    index = _index(tmp_path, min_side_px=16)
    flags = {Path(photo.path).name: photo for photo in index.photos}
    assert flags["grey.png"].grey
    assert not flags["colour.png"].grey
    crop_HW3 = PhotoStore(index.photos).crop(flags["grey.png"].photo_id, (0, 0, 64, 64), 64, 64)
    np.testing.assert_array_equal(crop_HW3, np.repeat(grey_HW[:, :, None], 3, axis=2))


def test_a_photograph_on_its_side_is_indexed_and_cut_upright(tmp_path: Path) -> None:
    exif = Image.Exif()
    exif[0x0112] = 6  # turn a quarter clockwise to see it upright
    image_HW3 = _noise(40, 70)
    Image.fromarray(image_HW3).save(tmp_path / "side.png", exif=exif)
    (photo,) = _index(tmp_path, min_side_px=16).photos
    assert (photo.width_px, photo.height_px) == (40, 70)
    crop_HW3 = PhotoStore([photo]).crop(photo.photo_id, (0, 0, 40, 70), 40, 70)
    np.testing.assert_array_equal(crop_HW3, np.rot90(image_HW3, -1))


def test_the_index_is_the_same_wherever_the_files_lie_and_reads_back(
    folder: Path, tmp_path_factory: pytest.TempPathFactory
) -> None:
    elsewhere = tmp_path_factory.mktemp("elsewhere")
    Image.fromarray(_noise(70, 70, 3)).save(folder / "other.png")
    for name in ("good.png", "other.png"):
        (elsewhere / f"renamed_{name}").write_bytes((folder / name).read_bytes())
    here, there = _index(folder, min_side_px=16), _index(elsewhere, min_side_px=16)
    assert here.digest == there.digest
    assert [photo.photo_id for photo in here.photos] == [photo.photo_id for photo in there.photos]
    assert index_from_json(index_to_json(here)) == here
    with pytest.raises(BadInput, match="is no list of photographs"):
        index_from_json('{"photos": [{"photo": 1}]}')


def test_a_crop_of_its_own_size_is_the_photograph_itself(tmp_path: Path) -> None:
    image_HW3 = _noise(90, 120)
    Image.fromarray(image_HW3).save(tmp_path / "a.png")
    (photo,) = _index(tmp_path, min_side_px=16).photos
    store = PhotoStore([photo])
    crop_HW3 = store.crop(photo.photo_id, (7, 3, 47, 53), 40, 50)
    np.testing.assert_array_equal(crop_HW3, image_HW3[3:53, 7:47])
    crop_HW3[:] = 0  # own memory: the next crop is not touched
    np.testing.assert_array_equal(store.crop(photo.photo_id, (7, 3, 47, 53), 40, 50), image_HW3[3:53, 7:47])
    with pytest.raises(ValueError, match="leaves the photograph"):
        store.crop(photo.photo_id, (100, 0, 121, 10), 8, 8)


def test_a_reduced_crop_at_the_edge_of_an_odd_photograph_reads_nothing_beyond_it(tmp_path: Path) -> None:
    image_HW3 = np.zeros((141, 161, 3), np.uint8)
    image_HW3[:, 80:] = image_HW3[70:] = 255
    Image.fromarray(image_HW3).save(tmp_path / "odd.png")
    (photo,) = _index(tmp_path, min_side_px=16).photos
    store = PhotoStore([photo])
    # The halving has 70 x 80 px; a column behind it is the dark begin of the next row, a row behind it no picture.
    crop_HW3 = store.crop(photo.photo_id, (1, 1, 161, 141), 50, 50)
    assert (crop_HW3[:, 30:] == 255).all()
    assert (crop_HW3[30:] == 255).all()
    assert store.crop(photo.photo_id, (81, 71, 161, 141), 40, 35).shape == (35, 40, 3)
    assert store.crop(photo.photo_id, (159, 139, 161, 141), 1, 1).shape == (1, 1, 3)


@settings(max_examples=12, deadline=None)
@given(st.integers(0, 2**32 - 1), st.integers(0, 200), st.integers(0, 150), st.integers(2, 468), st.integers(2, 418))
def test_a_reduced_crop_shows_what_an_exact_mean_over_the_box_shows(
    tmp_path_factory: pytest.TempPathFactory, seed: int, x0: int, y0: int, width: int, height: int
) -> None:
    # Smooth content: any right reduction gives nearly the same picture, a shifted or wrong one does not.
    coarse = np.random.default_rng(seed).integers(0, 256, (5, 6, 3), np.uint8)
    image_HW3 = cv2.resize(coarse, (700, 600), interpolation=cv2.INTER_CUBIC)
    path = tmp_path_factory.mktemp("crop") / "a.png"
    Image.fromarray(image_HW3).save(path)
    (photo,) = _index(path, min_side_px=16).photos
    box = (x0, y0, x0 + 32 + width, y0 + 32 + height)
    crop_HW3 = PhotoStore([photo]).crop(photo.photo_id, box, 32, 32)
    exact = Image.fromarray(image_HW3).resize((32, 32), Image.Resampling.BOX, box=box)
    assert np.abs(crop_HW3.astype(int) - np.asarray(exact)).max() <= 20
    assert np.abs(crop_HW3.astype(int) - np.asarray(exact)).mean() <= 3


def test_the_cache_stays_under_its_bound_and_forgets_the_oldest(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for seed in range(4):
        Image.fromarray(_noise(63, 63, seed)).save(tmp_path / f"{seed}.png")
    photos = _index(tmp_path, min_side_px=16).photos
    store = PhotoStore(photos, cache_bytes=2 * 63 * 63 * 3)
    decoded: list[str] = []
    original = store._decode
    monkeypatch.setattr(store, "_decode", lambda photo: decoded.append(photo.photo_id) or original(photo))
    a, b, c, _ = (photo.photo_id for photo in photos)
    for photo_id in (a, b, a, c, a, b):  # c pushes b out, b pushes c out
        store.crop(photo_id, (0, 0, 20, 20), 20, 20)
    assert decoded == [a, b, c, b]
    assert store._held_bytes == sum(level.nbytes for levels in store._pyramids.values() for level in levels)
    assert store._held_bytes <= 2 * 63 * 63 * 3


def test_a_photograph_that_changed_or_vanished_is_named(tmp_path: Path) -> None:
    Image.fromarray(_noise(64, 64)).save(tmp_path / "a.png")
    (photo,) = _index(tmp_path, min_side_px=16).photos
    Image.fromarray(_noise(64, 64, 9)).save(tmp_path / "a.png")
    with pytest.raises(BadInput, match=r"a\.png: the photograph has changed"):
        PhotoStore([photo]).crop(photo.photo_id, (0, 0, 8, 8), 8, 8)
    (tmp_path / "a.png").unlink()
    with pytest.raises(BadInput, match=r"a\.png: the photograph cannot be read any more"):
        PhotoStore([photo]).crop(photo.photo_id, (0, 0, 8, 8), 8, 8)
    with pytest.raises(KeyError):
        PhotoStore([photo]).crop("0" * 16, (0, 0, 8, 8), 8, 8)


@settings(max_examples=60, deadline=None)
@given(
    st.tuples(*[st.integers(1, 40)] * 4),
    st.tuples(*[st.integers(0, 5)] * 4),
    st.integers(0, 2**32 - 1),
)
def test_a_resampled_box_is_opencvs_exact_bilinear_one_to_the_bit(sides, margins, seed: int) -> None:
    (height, width, new_height, new_width), (left, top, right, bottom) = sides, margins
    shape = (top + height + bottom, left + width + right, 3)
    image_HW3 = np.random.default_rng(seed).integers(0, 256, shape, np.uint8)
    part_HW3 = image_HW3[top : top + height, left : left + width]
    expected_HW3 = cv2.resize(part_HW3, (new_width, new_height), interpolation=cv2.INTER_LINEAR_EXACT)
    box = (left, top, left + width, top + height)
    np.testing.assert_array_equal(resample(image_HW3, box, new_width, new_height), expected_HW3)
