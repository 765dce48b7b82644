"""datagen.decode: every kind of image file is read right or set aside with its reason."""

import io
import pickle
import struct
import zlib
from pathlib import Path

import cv2
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image, ImageCms

from datagen.decode import PROBLEMS, ImageProblem, decode_image, image_size, jpeg_tables


def picture(height: int = 24, width: int = 32) -> np.ndarray:
    y, x = np.mgrid[0:height, 0:width]
    return np.stack([x * 8 % 256, y * 10 % 256, (x + y) * 4 % 256], axis=2).astype(np.uint8)


def encoded(image: Image.Image, kind: str, **options: object) -> bytes:
    file = io.BytesIO()
    image.save(file, kind, **options)
    return file.getvalue()


def reason_of(source: object) -> str:
    with pytest.raises(ImageProblem) as caught:
        decode_image(source)
    return caught.value.reason


@pytest.mark.parametrize(
    ("kind", "options"),
    [
        ("PNG", {}),
        ("WEBP", {"lossless": True}),
        ("BMP", {}),
        ("TIFF", {"compression": "tiff_lzw"}),
        ("PPM", {}),
        ("JPEG2000", {"irreversible": False}),
    ],
)
def test_lossless_files_come_back_exactly(kind, options):
    image = decode_image(encoded(Image.fromarray(picture()), kind, **options))
    np.testing.assert_array_equal(image, picture())
    assert image.flags.c_contiguous
    assert image.flags.writeable


def test_the_content_decides_not_the_name(tmp_path: Path):
    path = tmp_path / "photo.jpg"
    path.write_bytes(encoded(Image.fromarray(picture()), "PNG"))
    np.testing.assert_array_equal(decode_image(path), picture())
    path.write_text("<html>404</html>")
    assert reason_of(path) == "not_an_image"


def test_sixteen_bit_grey_is_scaled_not_clipped():
    values = np.array([[0, 128, 129, 257, 32896, 65535]], np.uint16)
    for kind in ("PNG", "TIFF"):
        grey = decode_image(encoded(Image.fromarray(values), kind))
        # Pillow's own conversion gives 0 128 129 255 255 255 here.
        np.testing.assert_array_equal(grey[0, :, 0], [0, 0, 1, 1, 128, 255])
        np.testing.assert_array_equal(grey[:, :, 0], grey[:, :, 2])


def test_sixteen_bit_colour_keeps_its_high_bytes():
    values = np.zeros((2, 2, 3), np.uint16)
    values[0, 0] = (0x1234, 0x8000, 0xFFFF)  # blue, green, red: OpenCV's order
    _, data = cv2.imencode(".png", values)
    assert decode_image(data.tobytes())[0, 0].tolist() == [0xFF, 0x80, 0x12]


def test_float_pixels_have_no_known_range():
    assert reason_of(encoded(Image.fromarray(np.ones((4, 4), np.float32)), "TIFF")) == "unknown_range"


def test_cmyk_palette_and_bilevel_become_rgb():
    cmyk = encoded(Image.new("CMYK", (8, 8), (0, 255, 255, 0)), "TIFF")
    assert decode_image(cmyk)[0, 0].tolist() == [255, 0, 0]
    palette = Image.new("P", (4, 4), 1)
    palette.putpalette([0, 0, 0, 10, 200, 30])
    assert decode_image(encoded(palette, "PNG"))[0, 0].tolist() == [10, 200, 30]
    assert decode_image(encoded(Image.new("1", (4, 4), 1), "PNG"))[0, 0].tolist() == [255, 255, 255]


def test_transparency_is_laid_over_white():
    half = encoded(Image.new("RGBA", (4, 4), (255, 0, 0, 128)), "PNG")
    assert decode_image(half)[0, 0].tolist() == [255, 127, 127]
    palette = Image.new("P", (4, 4), 1)
    palette.putpalette([0, 0, 0, 10, 200, 30])
    assert decode_image(encoded(palette, "PNG", transparency=1))[0, 0].tolist() == [255, 255, 255]
    grey = encoded(Image.new("LA", (4, 4), (0, 0)), "PNG")
    assert decode_image(grey)[0, 0].tolist() == [255, 255, 255]


def test_exif_turns_the_picture_upright():
    exif = Image.Exif()
    exif[0x0112] = 6  # the camera was turned: rotate by 90 degrees clockwise to see it
    data = encoded(Image.fromarray(picture(20, 30)), "PNG", exif=exif)
    np.testing.assert_array_equal(decode_image(data), np.rot90(picture(20, 30), -1))
    assert image_size(data) == (20, 30)


def test_an_embedded_profile_is_converted_and_a_broken_one_ignored():
    # Primaries swapped: what is stored as red is green. Made from sRGB by exchanging two tags of equal size.
    profile = bytearray(ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes())
    red, green = profile.index(b"rXYZ"), profile.index(b"gXYZ")
    profile[red : red + 4], profile[green : green + 4] = b"gXYZ", b"rXYZ"
    description = bytes(profile).replace("sRGB".encode("utf-16-be"), "abcd".encode("utf-16-be"))
    red_picture = Image.new("RGB", (4, 4), (255, 0, 0))
    converted = decode_image(encoded(red_picture, "PNG", icc_profile=description))[0, 0]
    assert converted[1] > 250
    assert converted[0] < 5
    assert decode_image(encoded(red_picture, "PNG", icc_profile=b"no profile"))[0, 0].tolist() == [255, 0, 0]


def test_moving_pictures_and_several_pages_are_set_aside():
    frames = [Image.fromarray(picture()), Image.fromarray(255 - picture())]
    for kind in ("GIF", "WEBP", "PNG"):
        data = encoded(frames[0], kind, save_all=True, append_images=frames[1:])
        assert reason_of(data) == "animated", kind
    assert reason_of(encoded(frames[0], "TIFF", save_all=True, append_images=frames[1:])) == "several_pages"
    np.testing.assert_array_equal(
        decode_image(encoded(frames[0].quantize(64), "GIF")), np.array(frames[0].quantize(64).convert("RGB"))
    )


def test_empty_missing_and_cut_files(tmp_path: Path):
    (tmp_path / "empty.png").touch()
    assert reason_of(tmp_path / "empty.png") == "empty_file"
    assert reason_of(tmp_path / "missing.png") == "unreadable_file"
    assert reason_of(tmp_path) == "unreadable_file"
    for kind in ("PNG", "JPEG", "WEBP", "BMP", "TIFF"):
        data = encoded(Image.fromarray(picture(64, 64)), kind)
        assert reason_of(data[: len(data) // 2]) in ("damaged", "not_an_image"), kind


def test_a_bomb_is_told_by_its_header():
    def chunk(kind: bytes, body: bytes) -> bytes:
        return struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))

    for side in (9_000, 12_000, 100_000):  # within Pillow's limit, warned of by it, refused by it
        header = chunk(b"IHDR", struct.pack(">IIBBBBB", side, side, 8, 2, 0, 0, 0))
        assert reason_of(b"\x89PNG\r\n\x1a\n" + header + chunk(b"IDAT", zlib.compress(bytes(100)))) == "too_many_pixels"


def test_the_limit_is_the_callers():
    data = encoded(Image.fromarray(picture(10, 10)), "PNG")
    assert decode_image(data, max_pixels=100).shape == (10, 10, 3)
    with pytest.raises(ImageProblem, match="10 x 10, the limit is 99"):
        decode_image(data, max_pixels=99)


SEEDS = {kind: encoded(Image.fromarray(picture()), kind) for kind in ("PNG", "JPEG", "WEBP", "GIF", "BMP", "PPM")}


@settings(max_examples=150, deadline=None)
@given(st.sampled_from(sorted(SEEDS)), st.data())
def test_damaged_bytes_end_in_a_picture_or_a_reason(kind, data):
    damaged = bytearray(SEEDS[kind])
    for _ in range(data.draw(st.integers(1, 6))):
        damaged[data.draw(st.integers(0, len(damaged) - 1))] = data.draw(st.integers(0, 255))
    cut = data.draw(st.integers(1, len(damaged)))
    try:
        image, reason = decode_image(bytes(damaged[:cut]), max_pixels=1_000_000), None
    except ImageProblem as problem:
        image, reason = None, problem.reason
    assert reason in PROBLEMS or (image.dtype == np.uint8 and image.shape[2] == 3)


def test_tables_belong_to_jpeg_files_only():
    assert jpeg_tables(encoded(Image.fromarray(picture()), "PNG")) is None
    tables = jpeg_tables(encoded(Image.fromarray(picture()), "JPEG", quality=50))
    assert tables[0][0] == 16  # ITU-T T.81, table K.1


def test_a_problem_travels_between_processes():
    copy = pickle.loads(pickle.dumps(ImageProblem("damaged", "cut off")))  # noqa: S301
    assert (copy.reason, str(copy)) == ("damaged", "damaged: cut off")
