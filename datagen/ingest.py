"""Real files -> pictures with an origin and a licence: folders, buckets, tars, tables, PDFs, web pages; without loss.

A file that cannot be used becomes an item or a picture with a reason; only a missing place here ends a run.
"""

import hashlib
import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import numpy.typing as npt
from pydantic import Field

from datagen.codec import encode_png, pixels_digest
from datagen.containers import (
    ARROW,
    COMPRESSED,
    CONTAINERS,
    PICTURES,
    TAR,
    Columns,
    Part,
    is_compressed_archive,
    list_table,
    list_tar,
    read_member,
    read_row,
)
from datagen.decode import ImageProblem, Problem, decode_image
from datagen.documents import count_pdf_pages, draw_pdf_page, is_pdf
from datagen.files import FoundFile, bare_name, find_sources, open_file, read_file
from datagen.storage import Folder
from datagen.web import WebConfig, capture_pages
from fonts_manifest.config import Config
from fonts_manifest.errors import BadInput

_WANTED = PICTURES | CONTAINERS | {suffix[suffix.rindex(".") :] for suffix in COMPRESSED}
_HASH_BLOCK = 1 << 22


class RealPlace(Config):
    """One place with pictures or documents under one licence."""

    place: str
    """A file, a folder (searched to the bottom), a glob, `package:NAME/...` inside an installed package, a bucket
    (`s3://`, `gs://`), or the address of a web page (`http://`, `https://`)."""
    licence: str
    """SPDX identifier or a sentence; it is written into every row made from these files unless a row has its own."""


class IngestConfig(Config):
    """Which real files are read, and how. Pictures, PDFs, WebDataset tars, Parquet and Arrow tables are found by their
    names and told apart by their content."""

    places: tuple[RealPlace, ...] = Field(min_length=1)
    """A file found in two places counts once, under the licence of the first; equal files count once ("duplicate")."""
    columns: Columns = Columns()
    """Names of the columns of tables."""
    pdf_dpi: int = Field(default=150, ge=36, le=600)
    """Resolution at which PDF pages are drawn; 10 point text has an em of 21 px at 150."""
    max_pdf_pages: int = Field(default=100, ge=1)
    """Pages taken from one document, from its first on; the others are not listed."""
    max_megapixels: float = Field(default=40.0, gt=0, le=64)
    """Larger pictures and pages are left out as "too_many_pixels" before anything is decoded or drawn."""
    max_file_megabytes: float = Field(default=500.0, gt=0)
    """Larger pictures and documents are left out as "file_too_large"; tars and tables may be larger."""
    web: WebConfig = WebConfig()
    """How web pages are drawn."""

    @property
    def max_pixels(self) -> int:
        """Of one picture or page."""
        return int(self.max_megapixels * 1e6)

    @property
    def max_bytes(self) -> int:
        """Of one picture or document."""
        return int(self.max_file_megabytes * 1e6)


@dataclass(frozen=True, slots=True, kw_only=True)
class RealItem:
    """A picture that a file promises: the file itself, a part of it, or one page of it."""

    path: str
    """What `files.open_file` takes."""
    origin: str
    """How rows name it: the place as the recipe has it, the path inside it, `#member` or `#row=1` for a part of it, and
    `#page=1` and up for documents."""
    licence: str
    sha256: str
    """Of the file (in a bucket: of its name, size and time); "" when it could not be read."""
    part: Part | None = None
    """The part of a tar or a table; None for a file of its own."""
    page: int | None = None
    """Page of a document, from 0; None for a picture."""
    caption: str | None = None
    """The picture in words, where the source had some."""
    problem: Problem | None = None
    """Why the file yields no picture, when that was seen at once."""
    detail: str = ""
    """What exactly was wrong."""


def list_items(config: IngestConfig, captures: Sequence[RealItem] = ()) -> list[RealItem]:
    """Every picture behind `config.places`, in the order of the places and of the names in them.

    Each file here is read once, to hash it, to count the pages of documents and the members of archives; nothing is
    decoded. captures: what `web` made of the addresses among the places. Raises BadInput when a local place does not
    exist or nothing at all is found.
    """
    items: list[RealItem] = []
    seen_paths: set[str] = set()
    seen_files: set[str] = set()
    for source in config.places:
        if is_web(source.place):
            items.extend(
                item for item in captures if source.place in (item.origin, item.origin.rpartition("#screen=")[0])
            )
            continue
        try:
            found = find_sources(source.place, _WANTED)
        except ImageProblem as problem:
            name = bare_name(source.place)
            items.append(_broken(RealItem(path="", origin=name, licence=source.licence, sha256=""), problem))
            continue
        for file in found:
            if file.path in seen_paths:
                continue
            seen_paths.add(file.path)
            items.extend(_items_of(file, source.licence, config, seen_files))
    if not items:
        places = ", ".join(bare_name(source.place) for source in config.places)
        raise BadInput(f"{places}: no picture, PDF, tar, Parquet or Arrow file found; name other places")
    return items


def capture_items(config: IngestConfig, folder: Folder) -> list[RealItem]:
    """The screens of the web pages among the places, taken into `folder` or found there. Raises BadInput."""
    licences = {source.place: source.licence for source in config.places if is_web(source.place)}
    if not licences:
        return []
    return [
        RealItem(
            path=folder.describe(screen.path) if screen.path else "",
            origin=f"{screen.address}#screen={screen.number + 1}" if screen.path else screen.address,
            licence=licences[screen.address],
            sha256=screen.sha256,
            caption=screen.title or None,
            problem=screen.problem,
            detail=screen.detail,
        )
        for screen in capture_pages(list(licences), config.web, folder)
    ]


def is_web(place: str) -> bool:
    """Whether a place is the address of a web page."""
    return place.startswith(("http://", "https://"))


def _broken(item: RealItem, problem: ImageProblem) -> RealItem:
    return replace(item, problem=problem.reason, detail=problem.detail)


def _items_of(file: FoundFile, licence: str, config: IngestConfig, seen_files: set[str]) -> Iterator[RealItem]:
    item = RealItem(path=file.path, origin=file.name, licence=licence, sha256="")
    try:
        head = _head(file.path)
        container = _container_of(file.name, head)
        if container is None and file.size > config.max_bytes:
            raise ImageProblem("file_too_large", f"{file.size / 1e6:.0f} MB")
        if container is None and head and is_compressed_archive(file.name):
            raise ImageProblem("compressed_archive", "unpack it, or store it as a plain .tar")
        item = replace(item, sha256=fingerprint(file.path, file.stamp))
        if item.sha256 in seen_files and file.size:
            raise ImageProblem("duplicate", "the same bytes as a file before")
        seen_files.add(item.sha256)
        if container is None:
            yield from _pages_of(item, head, config)
            return
        parts = list_tar(file.path, config.columns) if container == TAR else list_table(file.path, config.columns)
        for part in parts:
            yield from _items_of_part(item, part, config)
    except ImageProblem as problem:
        yield _broken(item, problem)


def _head(path: str) -> bytes:
    with open_file(path) as file:
        try:
            return bytes(file.read(2048))
        except OSError as error:
            raise ImageProblem("unreadable_file", str(error)) from None


def _container_of(name: str, head: bytes) -> str | None:
    """Which kind of container a file is, by its content: a picture called .tar is a picture."""
    if head[257:262] == b"ustar":
        return TAR
    if head.startswith(b"PAR1"):
        return ".parquet"
    if head.startswith(b"ARROW1") or (name.endswith(ARROW) and head.startswith(b"\xff\xff\xff\xff")):
        return ARROW
    return None


def fingerprint(path: str, stamp: str = "") -> str:
    """SHA-256 of a file here; of the name and the stamp of one in a bucket. Raises ImageProblem."""
    if stamp:
        return hashlib.sha256(f"{bare_name(path)} {stamp}".encode()).hexdigest()
    digest = hashlib.sha256()
    with open_file(path) as file:
        try:
            while block := file.read(_HASH_BLOCK):
                digest.update(block)
        except OSError as error:
            raise ImageProblem("unreadable_file", str(error)) from None
    return digest.hexdigest()


def _items_of_part(file: RealItem, part: Part, config: IngestConfig) -> Iterator[RealItem]:
    name = part.origin or (f"{file.origin}#{part.name}" if part.row < 0 else f"{file.origin}#row={part.row + 1}")
    item = replace(
        file,
        origin=name,
        licence=part.licence or file.licence,
        part=part,
        caption=part.caption,
        problem=part.problem,
        detail=part.detail,
    )
    if part.problem is None and part.name.lower().endswith(".pdf"):
        try:
            yield from _pages_of(item, read_member(file.path, part, config.max_bytes), config)
        except ImageProblem as problem:
            yield _broken(item, problem)
        return
    yield item


def _pages_of(item: RealItem, head: bytes, config: IngestConfig) -> Iterator[RealItem]:
    """The item itself, or the pages of the document that it is. Raises ImageProblem."""
    if not is_pdf(head):
        yield item
        return
    pages = count_pdf_pages(item_bytes(item, config))
    for page in range(min(pages, config.max_pdf_pages)):
        yield replace(item, origin=f"{item.origin}#page={page + 1}", page=page)


def items_digest(items: Sequence[RealItem]) -> str:
    """SHA-256 of the contents, names and licences of all items: equal digests give equal rows."""
    lines = (
        json.dumps(
            [i.sha256, i.part and (i.part.offset, i.part.row), i.page, i.problem, i.licence, i.origin, i.caption]
        )
        for i in items
    )
    return hashlib.sha256("\n".join(lines).encode()).hexdigest()


def item_bytes(item: RealItem, config: IngestConfig) -> bytes:
    """The encoded picture or document.

    Raises ImageProblem, and BadInput when a file that could be listed cannot be read any more: a lost network is no
    property of a picture.
    """
    if item.problem:
        raise ImageProblem(item.problem, item.detail)
    try:
        if item.part is None:
            return read_file(item.path, config.max_bytes)
        if item.part.row < 0:
            return read_member(item.path, item.part, config.max_bytes)
        return read_row(item.path, item.part, config.columns, config.max_bytes)
    except ImageProblem as problem:
        if problem.reason != "unreadable_file":
            raise
        raise BadInput(f"{bare_name(item.path)}: cannot be read any more ({problem.detail})") from None


def decode_item(item: RealItem, data: bytes, config: IngestConfig) -> npt.NDArray[np.uint8]:
    """The picture in `data`, uint8 sRGB (H, W, 3). Raises ImageProblem."""
    if item.page is None:
        return decode_image(data, config.max_pixels)
    return draw_pdf_page(data, item.page, config.pdf_dpi, config.max_pixels)


def check_unchanged(item: RealItem, data: bytes) -> None:
    """Raises BadInput when a file that was hashed alone is another one now."""
    if item.part is None and not item.path.partition("://")[1] and hashlib.sha256(data).hexdigest() != item.sha256:
        raise BadInput(f"{item.path}: has changed since this run listed it; start the run again in another folder")


def read_item(item: RealItem, config: IngestConfig) -> npt.NDArray[np.uint8]:
    """The picture of one item, uint8 sRGB (H, W, 3). Raises ImageProblem, and BadInput when the file has changed."""
    data = item_bytes(item, config)
    check_unchanged(item, data)
    return decode_item(item, data, config)


def row_id(item: RealItem) -> str:
    """Unique in a run: the digest of the file, with the part and the page."""
    # Files that could not be read, and copies of others, are told apart by their names.
    named = not item.sha256 or item.problem == "duplicate"
    parts = [(hashlib.sha256(item.origin.encode()).hexdigest() if named else item.sha256)[:32]]
    if item.part is not None:
        parts.append(f"r{item.part.row}" if item.part.row >= 0 else f"o{item.part.offset}")
    if item.page is not None:
        parts.append(str(item.page))
    return "-".join(parts)


def real_row(item: RealItem, image_HW3: npt.NDArray[np.uint8] | None) -> dict[str, Any]:
    """The columns of `schema.SCHEMA` that come from the file alone; without `image_HW3` the picture is null."""
    row: dict[str, Any] = {
        "image": {"bytes": None, "path": item.origin},
        "row_id": row_id(item),
        "source": "real",
        "origin": item.origin,
        "licence": item.licence,
        "caption": item.caption,
    }
    if image_HW3 is None:
        return row
    return row | pixel_columns(image_HW3) | {"image": {"bytes": encode_png(image_HW3), "path": item.origin}}


def pixel_columns(image_HW3: npt.NDArray[np.uint8]) -> dict[str, Any]:
    """Size and digest of a decoded picture."""
    height, width = image_HW3.shape[:2]
    return {"width": width, "height": height, "pixels_xxh3": pixels_digest(image_HW3)}
