"""Every kind of bad or unusual file in one corpus: counted, set aside with its reason, never fatal, never misread."""

import io
import struct
import zlib
from pathlib import Path

import numpy as np
import pypdfium2
import pytest
from PIL import Image

from datagen.codec import decode_png
from datagen.commit import read_rows
from datagen.criteria import ingest_recipe
from datagen.filter import filter_corpus

RED, GREEN = (200, 30, 30), (30, 200, 30)


def colours() -> Image.Image:
    """16 x 24 px: red above, green below."""
    image = Image.new("RGB", (16, 24), RED)
    image.paste(GREEN, (0, 12, 16, 24))
    return image


def encoded(image: Image.Image, kind: str, **options: object) -> bytes:
    file = io.BytesIO()
    image.save(file, kind, **options)
    return file.getvalue()


def bomb(side: int) -> bytes:
    def chunk(kind: bytes, body: bytes) -> bytes:
        return struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))

    header = struct.pack(">IIBBBBB", side, side, 8, 2, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(bytes(1000)))


def noisy(kind: str, **options: object) -> bytes:
    image = Image.fromarray(np.random.default_rng(0).integers(0, 256, (64, 64, 3)).astype(np.uint8))
    return encoded(image.quantize(16) if kind == "GIF" else image, kind, **options)


def cut(kind: str) -> bytes:
    data = noisy(kind)
    return data[: len(data) * 2 // 3]


def huge_page() -> bytes:
    document = pypdfium2.PdfDocument.new()
    document.new_page(14_000, 14_000)
    file = io.BytesIO()
    document.save(file)
    return file.getvalue()


def turned(orientation: int) -> bytes:
    exif = Image.Exif()
    exif[0x0112] = orientation
    return encoded(colours(), "PNG", exif=exif)


ENCRYPTED = b"""%%PDF-1.4
1 0 obj <</Type/Catalog/Pages 2 0 R>> endobj
2 0 obj <</Type/Pages/Kids[3 0 R]/Count 1>> endobj
3 0 obj <</Type/Page/Parent 2 0 R/MediaBox[0 0 100 100]>> endobj
4 0 obj <</Filter/Standard/V 1/R 2/O<%s>/U<%s>/P -4>> endobj
trailer <</Root 1 0 R/Size 5/Encrypt 4 0 R/ID[<00><00>]>>
%%%%EOF
""" % (b"11" * 32, b"22" * 32)

BAD: dict[str, tuple[bytes, str]] = {
    "empty.png": (b"", "empty_file"),
    "text.jpg": (b"<html>404</html>", "not_an_image"),
    "bomb_12k.png": (bomb(12_000), "too_many_pixels"),
    "bomb_100k.png": (bomb(100_000), "too_many_pixels"),
    "moving.gif": (encoded(colours(), "GIF", save_all=True, append_images=[Image.new("RGB", (16, 24))]), "animated"),
    "moving.webp": (encoded(colours(), "WEBP", save_all=True, append_images=[Image.new("RGB", (16, 24))]), "animated"),
    "pages.tif": (encoded(colours(), "TIFF", save_all=True, append_images=[colours()]), "several_pages"),
    "float.tif": (encoded(Image.fromarray(np.ones((9, 9), np.float32)), "TIFF"), "unknown_range"),
    "cut.png": (cut("PNG"), "damaged"),
    "cut.jpg": (cut("JPEG"), "damaged"),
    "cut_progressive.jpg": (noisy("JPEG", progressive=True)[:2500], "damaged"),
    "cut.webp": (cut("WEBP"), "damaged"),
    "cut.bmp": (cut("BMP"), "damaged"),
    "cut.tif": (cut("TIFF"), "damaged"),
    "cut.gif": (cut("GIF"), "damaged"),
    "cut.ppm": (cut("PPM"), "damaged"),
    "cut.jp2": (cut("JPEG2000"), "damaged"),
    "cut.avif": (cut("AVIF"), "not_an_image"),  # its decoder wants the whole file before it knows it
    "locked.pdf": (ENCRYPTED, "encrypted"),
    "torn.pdf": (b"%PDF-1.7\nnothing of use", "damaged"),
    "huge.pdf": (huge_page(), "too_many_pixels"),
    "table.parquet": (b"PAR1 and nothing behind it", "damaged"),
    "archive.tar.gz": (b"\x1f\x8b\x08 and so on", "compressed_archive"),
}

GOOD: dict[str, tuple[bytes, tuple[int, int, int], tuple[int, int, int]]] = {
    # name: (bytes, colour of the first pixel, colour of the last), as a person would see them upright
    "wrong_name.jpg": (encoded(colours(), "PNG"), RED, GREEN),
    "upside_down.png": (turned(3), GREEN, RED),
    "on_its_side.png": (turned(6), GREEN, RED),
    "palette.png": (encoded(colours().quantize(4), "PNG"), RED, GREEN),
    "still.gif": (encoded(colours().quantize(4), "GIF"), RED, GREEN),
    "cmyk.tif": (encoded(Image.new("CMYK", (9, 9), (0, 255, 255, 0)), "TIFF"), (255, 0, 0), (255, 0, 0)),
    "cmyk.jpg": (encoded(Image.new("CMYK", (9, 9), (0, 0, 0, 0)), "JPEG"), (255, 255, 255), (255, 255, 255)),
    "deep.png": (encoded(Image.fromarray(np.full((9, 9), 32896, np.uint16)), "PNG"), (128,) * 3, (128,) * 3),
    "clear.png": (encoded(Image.new("RGBA", (9, 9), (255, 0, 0, 0)), "PNG"), (255,) * 3, (255,) * 3),
}


@pytest.fixture(scope="module")
def rows(tmp_path_factory) -> dict[str, dict]:
    source, out = tmp_path_factory.mktemp("in"), tmp_path_factory.mktemp("out") / "run"
    for name, (data, *_) in {**BAD, **GOOD}.items():
        (source / name).write_bytes(data)
    report = filter_corpus(ingest_recipe([str(source)], "CC0-1.0"), "0" * 16, str(out), executor="serial")
    assert (report.seen, report.kept) == (len(BAD) + len(GOOD), len(GOOD))
    return {Path(row["origin"].partition("#")[0]).name: row for row in read_rows(out).to_pylist()}


@pytest.mark.parametrize("name", BAD)
def test_a_bad_file_is_set_aside_with_its_reason(rows, name):
    row = rows[name]
    assert (row["keep"], row["reason"], row["judged_by"]) == (False, BAD[name][1], "none")
    assert row["image"]["bytes"] is None


@pytest.mark.parametrize("name", GOOD)
def test_an_unusual_file_is_read_as_a_person_sees_it(rows, name):
    image = decode_png(rows[name]["image"]["bytes"])
    _, first, last = GOOD[name]
    np.testing.assert_allclose(image[0, 0], first, atol=3)
    np.testing.assert_allclose(image[-1, -1], last, atol=3)


def test_a_picture_on_its_side_is_turned_whole(rows):
    assert (rows["on_its_side.png"]["width"], rows["on_its_side.png"]["height"]) == (24, 16)
