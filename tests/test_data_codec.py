"""datagen.codec: lossless, read by everybody, and closed to damaged or hostile files."""

import io
import struct
import subprocess
import sys
import zlib

import cv2
import numpy as np
import pytest
import skimage.data
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from PIL import Image

from datagen import codec
from datagen.decode import ImageProblem
from datagen.deflate import deflate

SMALL = hnp.arrays(np.uint8, st.tuples(st.integers(1, 24), st.integers(1, 24), st.just(3)))


@st.composite
def textured(draw: st.DrawFn) -> np.ndarray:
    """Noise of any strength: written by Huffman codes alone unless it is too weak."""
    height, width, high = draw(st.integers(9, 40)), draw(st.integers(1, 40)), draw(st.integers(2, 256))
    return np.random.default_rng(draw(st.integers(0, 99))).integers(0, high, (height, width, 3), np.uint8)


PICTURES = st.one_of(SMALL, textured())


@pytest.fixture(autouse=True, scope="module")
def compiled() -> None:
    """Compiling takes longer than Hypothesis allows one example."""
    codec.decode_png(codec.encode_png(np.random.default_rng(0).integers(0, 256, (20, 20, 3), np.uint8)))


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


def filter_types(image_HW3: np.ndarray) -> list[int]:
    data = codec.encode_png(image_HW3)
    assert codec.encode_png(image_HW3.copy()) == data
    (length,) = struct.unpack(">I", data[33:37])
    raw = np.frombuffer(zlib.decompress(data[41 : 41 + length]), np.uint8)
    return raw.reshape(len(image_HW3), -1)[:, 0].tolist()


def test_photographs_are_filtered_by_paeth_and_paper_by_the_row_above() -> None:
    noise_HW3 = np.random.default_rng(1).integers(0, 256, (20, 7, 3), np.uint8)
    assert filter_types(noise_HW3) == [1] + 19 * [4]
    paper_HW3 = noise_HW3.copy()
    paper_HW3[1:, 2:] = 255  # 5 of 7 columns repeat
    assert filter_types(paper_HW3) == 20 * [2]


def test_a_photograph_is_written_smaller_than_opencv_writes_it() -> None:
    image_HW3 = skimage.data.astronaut()
    by_opencv = cv2.imencode(".png", image_HW3, [cv2.IMWRITE_PNG_COMPRESSION, 1])[1]
    assert len(codec.encode_png(image_HW3)) < 0.95 * len(by_opencv)


@given(
    st.integers(0, 99),
    st.integers(0, 3000),
    st.sampled_from([0, 0.3, 0.9, 0.999, 1]),
    st.sampled_from([1, 2, 16, 255]),
    st.sampled_from([1, 60]),
)
def test_zlib_inflates_what_we_deflate(seed: int, count: int, zeros: float, high: int, times: int) -> None:
    rng = np.random.default_rng(seed)
    words = np.zeros(count * times // 8 + 1, np.uint64)
    body = np.where(rng.random(count) < zeros, 0, rng.integers(0, high, count, endpoint=True)).astype(np.uint8)
    words.view(np.uint8)[: count * times] = np.tile(body, times)  # 180,000 bytes are three blocks
    reader = zlib.decompressobj(-15)
    assert reader.decompress(deflate(words, count * times).tobytes()) == np.tile(body, times).tobytes()
    assert reader.eof
    assert reader.unused_data == b""


def test_counts_that_want_longer_codes_than_we_allow_still_make_a_complete_code() -> None:
    # Fibonacci's numbers make Huffman's longest codes: 25 bits here, cut to 12
    fibonacci = [1, 1]
    while len(fibonacci) < 26:
        fibonacci.append(fibonacci[-1] + fibonacci[-2])
    body = np.repeat(np.arange(1, 27), fibonacci).astype(np.uint8)
    words = np.zeros(len(body) // 8 + 1, np.uint64)
    words.view(np.uint8)[: len(body)] = np.random.default_rng(0).permutation(body)
    assert (
        zlib.decompress(deflate(words, len(body)).tobytes(), wbits=-15) == words.view(np.uint8)[: len(body)].tobytes()
    )


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
            *codec._chunk(b"IHDR", struct.pack(">II", width, height) + bytes((8, 2, 0, 0, 0))),
            *codec._chunk(b"IDAT", zlib.compress(raw)),
            *codec._chunk(b"IEND", b""),
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


@pytest.mark.skipif(sys.platform != "linux", reason="glibc's allocator alone is told to keep what is freed")
def test_a_process_that_keeps_freed_memory_asks_for_none_when_it_encodes_again() -> None:
    code = """
import resource, sys
import numpy as np
from datagen.codec import encode_png
from datagen.heap import keep_freed_memory
if sys.argv[1] == "keep":
    keep_freed_memory()
image_HW3 = np.random.default_rng(0).integers(0, 256, (512, 512, 3), np.uint8)
for _ in range(4):
    before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
    encode_png(image_HW3)
print(resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before)
"""
    kept, asked = (
        int(subprocess.run([sys.executable, "-c", code, how], check=True, capture_output=True, text=True).stdout)
        for how in ("keep", "not")
    )
    assert kept < 20 < asked
