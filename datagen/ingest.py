"""Real files -> pictures with an origin and a licence: image folders and PDFs, without loss, page by page.

A file that cannot be used becomes an item or a picture with a reason; only a missing place ends a run.
"""

import hashlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from pydantic import Field

from datagen.codec import encode_png
from datagen.decode import SUFFIXES, ImageProblem, Problem, decode_image
from fonts_manifest.config import Config
from fonts_manifest.errors import BadInput
from fonts_manifest.places import find_files, resolve_place

POINTS_PER_INCH = 72


class RealPlace(Config):
    """One place with pictures or documents under one licence."""

    place: str
    """A file, a folder (searched to the bottom), a glob, or `package:NAME/...` inside an installed package."""
    licence: str
    """SPDX identifier or a sentence; it is written into every row made from these files."""


class IngestConfig(Config):
    """Which real files are read, and how."""

    places: tuple[RealPlace, ...] = Field(min_length=1)
    """A file found in two places counts once, under the licence of the first; equal files count once ("duplicate")."""
    pdf_dpi: int = Field(default=150, ge=36, le=600)
    """Resolution at which PDF pages are drawn; 10 point text has an em of 21 px at 150."""
    max_pdf_pages: int = Field(default=100, ge=1)
    """Pages taken from one document, from its first on; the others are not listed."""
    max_megapixels: float = Field(default=40.0, gt=0, le=64)
    """Larger pictures and pages are left out as "too_many_pixels" before anything is decoded or drawn."""
    max_file_megabytes: float = Field(default=500.0, gt=0)
    """Larger files are left out as "file_too_large" unread."""


@dataclass(frozen=True, slots=True, kw_only=True)
class RealItem:
    """A picture that a file promises: the file itself, or one page of it."""

    path: str
    """Absolute."""
    origin: str
    """How rows name it: the place as the recipe has it, the path inside it, and `#page=1` and up for documents."""
    licence: str
    sha256: str
    """Of the file; "" when it could not be read."""
    page: int | None = None
    """Page of a document, from 0; None for an image file."""
    problem: Problem | None = None
    """Why the file yields no picture, when that was seen at once."""


def list_items(config: IngestConfig) -> list[RealItem]:
    """Every picture behind `config.places`, in the order of the places and of the names in them.

    Each file is read once, to hash it and to count the pages of documents. Raises BadInput when a place does not exist
    or nothing at all is found.
    """
    items: list[RealItem] = []
    seen_paths: set[Path] = set()
    seen_files: set[str] = set()
    for source in config.places:
        root = resolve_place(source.place)
        for path in find_files([source.place], SUFFIXES | {".pdf"}):
            if path.resolve() in seen_paths:
                continue
            seen_paths.add(path.resolve())
            inside = path.relative_to(root).as_posix() if root.is_dir() else ""
            if not inside and path.as_posix() != root.as_posix():
                inside = path.name  # a glob
            origin = "/".join(part for part in (source.place.rstrip("/"), inside) if part)
            items.extend(_items_of(path, origin, source.licence, config, seen_files))
    if not items:
        places = ", ".join(source.place for source in config.places)
        raise BadInput(f"{places}: no image and no PDF found; name other places")
    return items


def _items_of(path: Path, origin: str, licence: str, config: IngestConfig, seen_files: set[str]) -> Iterator[RealItem]:
    def item(sha256: str = "", problem: Problem | None = None, page: int | None = None) -> RealItem:
        name = origin if page is None else f"{origin}#page={page + 1}"
        return RealItem(
            path=str(path.absolute()), origin=name, licence=licence, sha256=sha256, page=page, problem=problem
        )

    try:
        if path.stat().st_size > config.max_file_megabytes * 1e6:
            yield item(problem="file_too_large")
            return
        data = path.read_bytes()
    except OSError:
        yield item(problem="unreadable_file")
        return
    sha256 = hashlib.sha256(data).hexdigest()
    if sha256 in seen_files and data:
        yield item(sha256, "duplicate")
        return
    seen_files.add(sha256)
    # The content decides: a PDF begins with %PDF- within its first kilobyte (ISO 32000-1, 7.5.2 and annex H).
    if b"%PDF-" not in data[:1024]:
        yield item(sha256)
        return
    try:
        pages = count_pdf_pages(data)
    except ImageProblem as problem:
        yield item(sha256, problem.reason)
        return
    for page in range(min(pages, config.max_pdf_pages)):
        yield item(sha256, page=page)


def items_digest(items: Sequence[RealItem]) -> str:
    """SHA-256 of the contents, names and licences of all items: equal digests give equal rows."""
    lines = (f"{item.sha256} {item.page} {item.problem} {item.licence} {item.origin}\n" for item in items)
    return hashlib.sha256("".join(lines).encode()).hexdigest()


def read_item(item: RealItem, config: IngestConfig) -> npt.NDArray[np.uint8]:
    """The picture of one item, uint8 sRGB (H, W, 3). Raises ImageProblem, and BadInput when the file has changed."""
    if item.problem:
        raise ImageProblem(item.problem)
    try:
        data = Path(item.path).read_bytes()
    except OSError as error:
        raise BadInput(f"{item.path}: cannot be read any more ({error.strerror})") from None
    if hashlib.sha256(data).hexdigest() != item.sha256:
        raise BadInput(f"{item.path}: has changed since this run listed it; start the run again in another folder")
    max_pixels = int(config.max_megapixels * 1e6)
    return (
        decode_image(data, max_pixels)
        if item.page is None
        else draw_pdf_page(data, item.page, config.pdf_dpi, max_pixels)
    )


def count_pdf_pages(data: bytes) -> int:
    """Number of pages. Raises ImageProblem: "encrypted" when a password is needed, "damaged" when it is no PDF."""
    document = _open_pdf(data)
    try:
        if len(document) == 0:
            raise ImageProblem("damaged", "a document without pages")
        return len(document)
    finally:
        document.close()


def draw_pdf_page(data: bytes, page: int, dpi: int, max_pixels: int) -> npt.NDArray[np.uint8]:
    """Page `page` (from 0) of a PDF on white, uint8 sRGB (H, W, 3), annotations and filled forms included.

    Raises ImageProblem; a page whose size promises more than `max_pixels` is not drawn.
    """
    import pypdfium2

    document = _open_pdf(data)
    try:
        document.init_forms()
        pdf_page = document[page]
        width, height = (side * dpi / POINTS_PER_INCH for side in pdf_page.get_size())
        if width * height > max_pixels:
            raise ImageProblem("too_many_pixels", f"{width:.0f} x {height:.0f}, the limit is {max_pixels}")
        if width < 1 or height < 1:
            raise ImageProblem("damaged", f"a page of {width:.2f} x {height:.2f} px")
        bitmap = pdf_page.render(scale=dpi / POINTS_PER_INCH, rev_byteorder=True)
        image_HWC = bitmap.to_numpy()
        # Grey pages come with one channel, pages with transparency with four (already laid over white).
        if image_HWC.ndim == 2 or image_HWC.shape[2] == 1:
            return np.repeat(image_HWC.reshape(*image_HWC.shape[:2], 1), 3, axis=2)
        return np.array(image_HWC[:, :, :3], order="C")
    except pypdfium2.PdfiumError as error:
        raise ImageProblem("damaged", str(error)) from error
    finally:
        document.close()


def _open_pdf(data: bytes) -> Any:
    import pypdfium2

    try:
        return pypdfium2.PdfDocument(data)
    except pypdfium2.PdfiumError as error:
        if "password" in str(error).lower() or "security" in str(error).lower():
            raise ImageProblem("encrypted", str(error)) from error
        raise ImageProblem("damaged", str(error)) from error


def real_row(item: RealItem, image_HW3: npt.NDArray[np.uint8] | None) -> dict[str, Any]:
    """The columns of `schema.SCHEMA` that come from the file alone; without `image_HW3` the picture is null."""
    suffix = "" if item.page is None else f"-{item.page}"
    row: dict[str, Any] = {
        "image": {"bytes": None, "path": item.origin},
        "row_id": f"{(item.sha256 or hashlib.sha256(item.origin.encode()).hexdigest())[:32]}{suffix}",
        "source": "real",
        "origin": item.origin,
        "licence": item.licence,
    }
    if image_HW3 is None:
        return row
    height, width = image_HW3.shape[:2]
    return row | {
        "image": {"bytes": encode_png(image_HW3), "path": item.origin},
        "width": width,
        "height": height,
        "pixels_sha256": hashlib.sha256(image_HW3.tobytes()).hexdigest(),
    }
