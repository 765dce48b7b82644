"""datagen.codec: lossless, read by everybody, and closed to damaged or hostile files."""

import io
import struct
import zlib

import cv2
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from PIL import Image

from datagen import codec
from datagen.decode import ImageProblem

PICTURES = hnp.arrays(np.uint8, st.tuples(st.integers(1, 24), st.integers(1, 24), st.just(3)))


@given(PICTURES)
def test_pillow_opencv_and_we_read_back_exactly_what_was_written(image_HW3: np.ndarray) -> None:
    data = codec.encode_png(image_HW3)
    pillow = Image.open(io.BytesIO(data))
    assert pillow.mode == "RGB"
    np.testing.assert_array_equal(np.asarray(pillow), image_HW3)
    np.testing.assert_array_equal(cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_COLOR)[:, :, ::-1], image_HW3)
    ours_HW3 = codec.decode_png(data)
    np.testing.assert_array_equal(ours_HW3, image_HW3)
    assert ours_HW3.flags.writeable
    assert ours_HW3.flags.c_contiguous


@given(PICTURES, st.sampled_from([0, 1, 9]))
def test_files_of_other_makers_are_read_too(image_HW3: np.ndarray, level: int) -> None:
    raw = io.BytesIO()
    Image.fromarray(image_HW3).save(raw, "PNG", compress_level=level)
    np.testing.assert_array_equal(codec.decode_png(raw.getvalue()), image_HW3)


def test_a_view_that_is_not_contiguous_is_written_as_it_looks() -> None:
    image_HW3 = np.random.default_rng(0).integers(0, 256, (20, 30, 3), np.uint8)[::-1, ::2]
    np.testing.assert_array_equal(codec.decode_png(codec.encode_png(image_HW3)), image_HW3)


def test_equal_pixels_give_equal_bytes_and_every_row_is_up_filtered() -> None:
    image_HW3 = np.random.default_rng(1).integers(0, 256, (9, 7, 3), np.uint8)
    data = codec.encode_png(image_HW3)
    assert codec.encode_png(image_HW3.copy()) == data
    (length,) = struct.unpack(">I", data[33:37])
    raw = np.frombuffer(zlib.decompress(data[41 : 41 + length]), np.uint8).reshape(9, 22)
    assert set(raw[:, 0]) == {2}


@pytest.mark.parametrize(
    "image", [np.zeros((4, 4), np.uint8), np.zeros((4, 4, 3), np.float32), np.zeros((0, 4, 3), np.uint8)]
)
def test_only_rgb_bytes_are_pictures(image: np.ndarray) -> None:
    with pytest.raises(ValueError, match="uint8 of shape"):
        codec.encode_png(image)


@given(PICTURES, st.data())
def test_no_flipped_byte_goes_unnoticed(image_HW3: np.ndarray, data: st.DataObject) -> None:
    raw = bytearray(codec.encode_png(image_HW3))
    at = data.draw(st.integers(0, len(raw) - 1))
    raw[at] ^= data.draw(st.integers(1, 255))
    try:
        read = codec.decode_png(bytes(raw))
    except ImageProblem:
        return
    np.testing.assert_array_equal(read, image_HW3)


@given(PICTURES, st.data())
def test_truncated_files_are_refused_or_complete(image_HW3: np.ndarray, data: st.DataObject) -> None:
    raw = codec.encode_png(image_HW3)
    cut = data.draw(st.integers(0, len(raw) - 1))
    try:
        read = codec.decode_png(raw[:cut])
    except ImageProblem:
        return
    np.testing.assert_array_equal(read, image_HW3)  # what was cut off held no pixels
    assert len(raw) - cut < 32


def _png(width: int, height: int, raw: bytes) -> bytes:
    return b"".join(
        [
            b"\x89PNG\r\n\x1a\n",
            codec._chunk(b"IHDR", struct.pack(">II", width, height) + bytes((8, 2, 0, 0, 0))),
            codec._chunk(b"IDAT", zlib.compress(raw)),
            codec._chunk(b"IEND", b""),
        ]
    )


def test_a_header_that_promises_too_much_is_refused_before_inflating() -> None:
    with pytest.raises(ImageProblem, match="too_many_pixels"):
        codec.decode_png(_png(100_000, 100_000, b"\2"))
    with pytest.raises(ImageProblem, match="too_many_pixels"):
        codec.decode_png(codec.encode_png(np.zeros((10, 11, 3), np.uint8)), max_pixels=109)
    codec.decode_png(codec.encode_png(np.zeros((10, 11, 3), np.uint8)), max_pixels=110)


def test_a_stream_longer_or_shorter_than_the_header_says_is_damage() -> None:
    with pytest.raises(ImageProblem, match="damaged"):
        codec.decode_png(_png(1, 2, bytes(50_000_000)))
    with pytest.raises(ImageProblem, match="damaged"):
        codec.decode_png(_png(1, 2, b"\2abc"))
