"""An image file -> 8-bit sRGB pixels, or the reason why not. The one place where foreign image files are opened."""

import io
import struct
import warnings
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Literal, get_args

import numpy as np
import numpy.typing as npt
from PIL import Image, ImageCms, ImageOps, UnidentifiedImageError

MAX_PIXELS = 64_000_000
"""Default limit, 192 MB decoded. Pillow's own (89 Mpx) holds above it: nothing larger is ever decoded."""

FORMATS = ("PNG", "JPEG", "WEBP", "GIF", "BMP", "TIFF", "PPM", "JPEG2000", "AVIF")
"""Pillow's decoders that may run; its rarer ones (FLI, PSD, ...) are old code that only hostile files would reach."""

SUFFIXES = frozenset(
    {".png", ".jpg", ".jpeg", ".webp", ".gif", ".bmp", ".tif", ".tiff", ".ppm", ".pgm", ".jp2", ".avif"}
)
"""Lower-case suffixes to look for in folders. The content decides, not the name."""

Problem = Literal[
    "unreadable_file",  # missing, a folder, no permission
    "empty_file",
    "not_an_image",  # no decoder knows the content, whatever the name says
    "damaged",  # truncated, or a decoder gave up
    "too_many_pixels",  # more than the limit; told from the header, nothing was decoded
    "animated",
    "several_pages",  # multi-page TIFF: one page of it would be a silent loss
    "unknown_range",  # 32-bit integers or floats: what is white is not written in the file
    "encrypted",  # a document that wants a password
    "file_too_large",
    "duplicate",  # the same bytes as a file listed before
    "unreadable_place",  # a bucket or an address that cannot be listed
    "no_image_column",  # a table without the column that the recipe names
    "no_picture",  # a row of a table whose picture is null or lies elsewhere
    "compressed_archive",  # .tar.gz and the like: no member can be found without unpacking all before it
    "unreachable_page",  # a web page that did not load
]
PROBLEMS: tuple[str, ...] = get_args(Problem)

# What Pillow's decoders raise on damaged files, found by flipping and cutting bytes of every format above.
_DECODER_ERRORS = (
    OSError,
    SyntaxError,
    ValueError,
    TypeError,
    LookupError,
    EOFError,
    ArithmeticError,
    RuntimeError,
    MemoryError,
    struct.error,
    zlib.error,
)


class ImageProblem(Exception):
    """An image file that cannot be used; `reason` is the label that gets counted."""

    def __init__(self, reason: Problem, detail: str = "") -> None:
        super().__init__(f"{reason}: {detail}" if detail else reason)
        self.reason: Problem = reason
        self.detail = detail

    def __reduce__(self) -> tuple[type["ImageProblem"], tuple[Problem, str]]:
        """Travels between processes whole."""
        return ImageProblem, (self.reason, self.detail)


def decode_image(source: Path | str | bytes, max_pixels: int = MAX_PIXELS) -> npt.NDArray[np.uint8]:
    """The picture as uint8 sRGB (H, W, 3), upright, C-contiguous and writable.

    source: a path, or the file's bytes. Turned as EXIF says; an embedded ICC profile is converted to sRGB (a broken
    one is ignored, as browsers do); transparency is laid over white; grey, palette, bilevel and CMYK become RGB;
    16-bit grey is scaled by 255 / 65535 and 16-bit RGB loses its low bytes (Pillow). Raises ImageProblem.
    """
    with _loaded(source, max_pixels) as image:
        return _to_srgb(image)


def decode_plainly(source: Path | str | bytes, max_pixels: int = MAX_PIXELS) -> tuple[npt.NDArray[np.uint8], list[str]]:
    """The picture as Pillow's `convert("RGB")` gives it, and what that left out: for figures equal to other scripts'.

    Transparency is dropped (what lies under it shows), EXIF's orientation and ICC profiles are ignored; each that
    changes something is named in the list. 16-bit grey is scaled, where Pillow would clip it. Raises ImageProblem.
    """
    with _loaded(source, max_pixels) as image:
        left_out = []
        if image.getexif().get(0x0112, 1) != 1:
            left_out.append("orientation ignored")
        if image.info.get("icc_profile"):
            left_out.append("colour profile ignored")
        if "transparency" in image.info or "A" in image.getbands():
            if np.asarray(image.convert("RGBA"))[:, :, 3].min() < 255:
                left_out.append("transparency dropped")
            return np.array(image.convert("RGB"), dtype=np.uint8, order="C"), left_out
        if image.mode.startswith("I;16"):
            return _sixteen_bits(image), [*left_out, "16 bits scaled to 8"]
        if image.mode in ("I", "F"):
            raise ImageProblem("unknown_range", f"mode {image.mode}")
        return np.array(image.convert("RGB"), dtype=np.uint8, order="C"), left_out


def image_size(source: Path | str | bytes) -> tuple[int, int]:
    """(width, height) in px from the header alone, upright as EXIF says. Raises ImageProblem."""
    with _opened(source) as image:
        turned = image.getexif().get(0x0112, 1) in (5, 6, 7, 8)
        return (image.height, image.width) if turned else (image.width, image.height)


def image_format(source: Path | str | bytes) -> str:
    """Name of the format in lower case, by the content: png, jpeg, ... Raises ImageProblem."""
    with _opened(source) as image:
        # MPO is a JPEG with more pictures behind it.
        return "jpeg" if image.format == "MPO" else (image.format or "").lower()


def jpeg_tables(source: Path | str | bytes) -> dict[int, list[int]] | None:
    """The quantisation tables of a JPEG, 64 steps each, from its header; None for others. Raises ImageProblem."""
    with _opened(source) as image:
        tables = getattr(image, "quantization", None)
        return {int(number): list(steps) for number, steps in tables.items()} if tables else None


@contextmanager
def _opened(source: Path | str | bytes) -> Iterator[Image.Image]:
    """The picture with its header read; whatever goes wrong inside the block comes out as ImageProblem."""
    raw = _read(source)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # damaged EXIF and the like: what matters is what the pixels say
        warnings.simplefilter("error", Image.DecompressionBombWarning)
        try:
            with Image.open(raw, formats=FORMATS) as image:
                yield image
        except UnidentifiedImageError as error:
            raise ImageProblem("not_an_image") from error
        except (Image.DecompressionBombError, Image.DecompressionBombWarning) as error:
            raise ImageProblem("too_many_pixels", str(error)) from error
        except _DECODER_ERRORS as error:
            raise ImageProblem("damaged", f"{type(error).__name__}: {error}") from error


@contextmanager
def _loaded(source: Path | str | bytes, max_pixels: int) -> Iterator[Image.Image]:
    """As `_opened`, decoded: one picture, and of so many pixels at most."""
    with _opened(source) as image:
        if image.width * image.height > max_pixels:
            raise ImageProblem("too_many_pixels", f"{image.width} x {image.height}, the limit is {max_pixels}")
        # MPO: a JPEG with more pictures behind it (depth, gain map, second eye); the first is the photograph.
        if image.format != "MPO" and getattr(image, "is_animated", False):
            raise ImageProblem("several_pages" if image.format == "TIFF" else "animated")
        image.load()
        yield image


def _read(source: Path | str | bytes) -> io.BytesIO:
    if isinstance(source, bytes):
        data = source
    else:
        try:
            data = Path(source).read_bytes()
        except OSError as error:
            raise ImageProblem("unreadable_file", str(error)) from error
    if not data:
        raise ImageProblem("empty_file")
    return io.BytesIO(data)


def _sixteen_bits(image: Image.Image) -> npt.NDArray[np.uint8]:
    # Pillow's own convert("L") clips at 255: nearly every 16-bit picture would come out white.
    grey_HW = np.asarray(image).astype(np.uint32)
    return np.repeat(((grey_HW * 255 + 32767) // 65535).astype(np.uint8)[:, :, None], 3, axis=2)


def _to_srgb(image: Image.Image) -> npt.NDArray[np.uint8]:
    profile = image.info.get("icc_profile")
    image = ImageOps.exif_transpose(image)
    if image.mode.startswith("I;16"):
        return _sixteen_bits(image)
    if image.mode in ("I", "F"):
        raise ImageProblem("unknown_range", f"mode {image.mode}")
    if "transparency" in image.info or image.mode in ("PA", "LA", "La", "RGBa", "RGBA"):
        image = image.convert("RGBA")
        white = Image.new("RGBA", image.size, (255, 255, 255, 255))
        image = Image.alpha_composite(white, image).convert("RGB")
    elif image.mode in ("P", "1"):
        image = image.convert("RGB")
    if profile:
        image = _convert_profile(image, profile)
    if image.mode != "RGB":
        image = image.convert("RGB")
    return np.array(image, dtype=np.uint8, order="C")


def _convert_profile(image: Image.Image, profile: bytes) -> Image.Image:
    try:
        source = ImageCms.ImageCmsProfile(io.BytesIO(profile))
        # Most files carry sRGB itself: converting it costs 20 ns/px and moves values by 1.
        if "srgb" in ImageCms.getProfileDescription(source).lower():
            return image
        converted = ImageCms.profileToProfile(image, source, ImageCms.createProfile("sRGB"), outputMode="RGB")
    except (ImageCms.PyCMSError, OSError, ValueError, TypeError):
        return image
    return image if converted is None else converted
