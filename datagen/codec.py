"""The picture codec: lossless PNG that every reader opens, written and read several times faster than by the libraries.

Two ways of writing, chosen by how much of a picture repeats the row above it. Photographs: Paeth's filter and Huffman
codes alone (`datagen.paeth`, `datagen.deflate`). Paper and screens, FLAT_SHARE of whose bytes and more repeat: the "up"
filter and ISA-L's deflate at level 1. Reading: files of our own make take the way back; every other picture goes
through `datagen.decode`.

40 pages of small text over smooth noise, least CPU time a page of several rounds, freed memory kept (`datagen.heap`),
one core of a 2-core machine, one run:

|                         | 256x256 write | read    | kB  | 512x512 write | read    | kB  |
|-------------------------|---------------|---------|-----|---------------|---------|-----|
| Paeth, Huffman          | 0.27 ms       | 0.61 ms | 134 | 1.06 ms       | 2.42 ms | 534 |
| the same, read by cv2   |               | 2.37 ms |     |               | 9.17 ms |     |
| up, ISA-L level 1       | 0.71 ms       | 0.74 ms | 140 | 2.75 ms       | 2.36 ms | 557 |
| cv2, level 1            | 6.71 ms       | 2.46 ms | 145 | 26.9 ms       | 9.36 ms | 577 |
| Pillow, level 1         | 8.71 ms       | 2.96 ms | 145 | 34.8 ms       | 11.5 ms | 577 |

Since then codes are written two bytes at a time: .87 to .98 instead of 1.11 ms in pairs of runs at 512x512.
"""

import functools
import struct
import zlib

import numpy as np
import numpy.typing as npt
import xxhash
from isal import isal_zlib

from datagen.decode import MAX_PIXELS, ImageProblem, decode_image
from datagen.deflate import deflate
from datagen.paeth import PAETH, SUB, filter_rows, undo_rows

FLAT_SHARE = 0.35
"""From here on a match finder earns its time: without one files of 156 real pages, crops and photographs whose share
is .25 to .65 were 12 to 20 % larger. At .3 to .35 they were 8 % larger, below -1 to 4 %; a match finder takes two to
three times as long."""

_SIGNATURE = b"\x89PNG\r\n\x1a\n"
_START = _SIGNATURE + b"\x00\x00\x00\rIHDR"
_UP = 2
_END = b"\x00\x00\x00\x00IEND\xaeB`\x82"
# 8 bits a channel, colour type 2 (RGB), deflate, adaptive filters, not interlaced (PNG, third edition, 11.2.2).
_RGB8 = bytes((8, 2, 0, 0, 0))

_Parts = tuple[bytes | memoryview, ...]


def encode_png(image_HW3: npt.NDArray[np.uint8]) -> bytes:
    """`image_HW3` (uint8 sRGB, at least 1 x 1) as a PNG file, without loss.

    Equal pixels give equal bytes; those of flat pictures only with one version of ISA-L on one kind of processor (its
    match finder differs between instruction sets): across machines compare `pixels_xxh3`, not files. Raises
    ValueError on another shape or dtype.
    """
    if image_HW3.dtype != np.uint8 or image_HW3.ndim != 3 or image_HW3.shape[2] != 3 or not image_HW3.size:
        raise ValueError(f"a picture is uint8 of shape (H, W, 3), got {image_HW3.dtype} {image_HW3.shape}")
    height, width = image_HW3.shape[:2]
    image_HW3 = np.ascontiguousarray(image_HW3)
    header = _chunk(b"IHDR", struct.pack(">II", width, height) + _RGB8)
    compress = _compress_flat if _repeats(image_HW3) >= FLAT_SHARE else _compress_photo
    # Joined once: every further copy of half a megabyte takes a quarter of the time of the filter.
    return b"".join((_SIGNATURE, *header, *_chunk(b"IDAT", *compress(image_HW3)), _END))


def _repeats(image_HW3: npt.NDArray[np.uint8]) -> float:
    """Share of the bytes, of every eighth row, that equal the byte above."""
    sampled = image_HW3[8::8]
    return np.count_nonzero(sampled == image_HW3[7:-1:8]) / sampled.size if sampled.size else 1.0


def _compress_flat(image_HW3: npt.NDArray[np.uint8]) -> _Parts:
    """A zlib stream in parts."""
    height, width = image_HW3.shape[:2]
    flat = image_HW3.reshape(height, width * 3)
    filtered = np.empty((height, 1 + width * 3), np.uint8)
    filtered[:, 0] = _UP
    filtered[0, 1:] = flat[0]
    np.subtract(flat[1:], flat[:-1], out=filtered[1:, 1:])
    return (isal_zlib.compress(filtered, 1),)


def _compress_photo(image_HW3: npt.NDArray[np.uint8]) -> _Parts:
    """The same."""
    height, width = image_HW3.shape[:2]
    byte_count = height * (1 + width * 3)
    words = np.empty(-(-byte_count // 8), np.uint64)
    filtered = words.view(np.uint8)[:byte_count]
    filter_rows(image_HW3, filtered)
    # zlib's frame: a window of 32 KiB, the fastest level (RFC 1950)
    return b"\x78\x01", deflate(words, byte_count).data, struct.pack(">I", isal_zlib.adler32(filtered))


def pixels_digest(image_HW3: npt.NDArray[np.uint8]) -> str:
    """XXH3 (128 bits, hexadecimal) of the pixels, C-contiguous: tells pictures apart, is no proof against a forger.

    .02 ms for 512 x 512 px; SHA-256 took .55, with the processor's own instructions for it.
    """
    return xxhash.xxh3_128_hexdigest(image_HW3.data)


def decode_png(data: bytes | memoryview, max_pixels: int = MAX_PIXELS) -> npt.NDArray[np.uint8]:
    """The pixels of an image file as uint8 sRGB (H, W, 3), C-contiguous and writable.

    Raises ImageProblem when it is none, is damaged, or its header promises more than `max_pixels` (nothing is inflated
    then).
    """
    ours_HW3 = _decode_ours(data, max_pixels)
    return decode_image(bytes(data), max_pixels) if ours_HW3 is None else ours_HW3


def _decode_ours(data: bytes | memoryview, max_pixels: int) -> npt.NDArray[np.uint8] | None:
    """The way back of `encode_png`; None when the file is not laid out exactly as `encode_png` does it."""
    if len(data) < 57 or data[:16] != _START or data[24:29] != _RGB8 or data[37:41] != b"IDAT" or data[-12:] != _END:
        return None
    if zlib.crc32(data[12:29]) != struct.unpack_from(">I", data, 29)[0]:
        raise ImageProblem("damaged", "the checksum of the header does not match")
    width, height = struct.unpack_from(">II", data, 16)
    if width * height > max_pixels:
        raise ImageProblem("too_many_pixels", f"{width} x {height}, the limit is {max_pixels}")
    (length,) = struct.unpack_from(">I", data, 33)
    end = 41 + length
    if end + 4 + len(_END) != len(data):
        return None
    if isal_zlib.crc32(memoryview(data)[37:end]) != struct.unpack_from(">I", data, end)[0]:
        raise ImageProblem("damaged", "the checksum of the pixels does not match")
    stride = 1 + width * 3
    try:
        # One byte more than the header promises is the most that a hostile stream can inflate to here.
        raw = isal_zlib.decompressobj().decompress(memoryview(data)[41:end], height * stride + 1)
    except isal_zlib.error as error:  # type: ignore[misc]  # the stub gives it a type, not a class
        raise ImageProblem("damaged", str(error)) from None
    if len(raw) != height * stride or not raw:
        raise ImageProblem("damaged", f"{len(raw)} bytes of pixels instead of {height * stride}")
    filtered = np.frombuffer(raw, np.uint8).reshape(height, stride)
    image_HW3 = np.empty((height, width, 3), np.uint8)
    if filtered[0, 0] == SUB and (filtered[1:, 0] == PAETH).all():
        undo_rows(filtered.reshape(-1), image_HW3)
        return image_HW3
    if not (filtered[:, 0] == _UP).all():
        return None
    flat = image_HW3.reshape(height, width * 3)
    flat[0] = filtered[0, 1:]
    # A loop over rows: np.add.accumulate(axis=0) walks down single columns and took 1.4 ms of 512 x 512, this 0.3.
    for row in range(1, height):
        np.add(filtered[row, 1:], flat[row - 1], out=flat[row])
    return image_HW3


def _chunk(kind: bytes, *body: bytes | memoryview) -> _Parts:
    """A chunk of PNG in parts: length, kind, body, checksum."""
    checksum = functools.reduce(lambda before, part: isal_zlib.crc32(part, before), (kind, *body), 0)
    return struct.pack(">I", sum(map(len, body))), kind, *body, struct.pack(">I", checksum)
