"""Foreign files, here or in a bucket: found, named without passwords, and opened at any place inside."""

import urllib.parse
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any, BinaryIO

from datagen.decode import ImageProblem
from fonts_manifest.places import find_files, resolve_place

BUCKETS = ("s3", "gs", "gcs", "hdfs", "abfs")
"""Schemes that `pyarrow.fs` opens."""


@dataclass(frozen=True, slots=True, kw_only=True)
class FoundFile:
    """One file of a place."""

    path: str
    """What `open_file` takes: an absolute path, or an address with all that is needed to open it."""
    name: str
    """How provenance names it: the place as the recipe has it and the path inside; never a password or a query."""
    size: int
    """Bytes."""
    stamp: str
    """Changes when a file in a bucket changes; "" for files here, which are hashed."""


def is_bucket(place: str) -> bool:
    """Whether `place` is an address of an object store."""
    return urllib.parse.urlsplit(place).scheme in BUCKETS


def find_sources(place: str, suffixes: frozenset[str]) -> list[FoundFile]:
    """The files of a place with a suffix of `suffixes`, sorted by name; a file named outright needs none.

    Raises BadInput when a local place does not exist, ImageProblem("unreadable_place") for a bucket.
    """
    return _in_bucket(place, suffixes) if is_bucket(place) else list(_here(place, suffixes))


def _here(place: str, suffixes: frozenset[str]) -> Iterator[FoundFile]:
    root = resolve_place(place)
    for path in find_files([place], suffixes):
        inside = path.relative_to(root).as_posix() if root.is_dir() else ""
        if not inside and path.as_posix() != root.as_posix():
            inside = path.name  # a glob
        name = "/".join(part for part in (place.rstrip("/"), inside) if part)
        try:
            size = path.stat().st_size
        except OSError:
            size = 0  # reading it will say why
        yield FoundFile(path=str(path.absolute()), name=name, size=size, stamp="")


def _in_bucket(place: str, suffixes: frozenset[str]) -> list[FoundFile]:
    import pyarrow as pa
    from pyarrow import fs

    parts = urllib.parse.urlsplit(place)
    bare = f"{parts.scheme}://{parts.hostname or ''}{parts.path}"
    try:
        filesystem, root = _filesystem(place)
        info = filesystem.get_file_info(root)
        if info.type == fs.FileType.File:
            found = [info]
        else:
            found = filesystem.get_file_info(fs.FileSelector(root, recursive=True))
    except (pa.ArrowException, OSError, ValueError) as error:
        raise ImageProblem("unreadable_place", f"{bare}: {_first_line(error)}") from None
    files = [
        one
        for one in found
        if one.type == fs.FileType.File and (one.path == root or Path(one.path).suffix.lower() in suffixes)
    ]
    return [
        FoundFile(
            path=_address_of(parts, one.path),
            name=f"{parts.scheme}://{one.path}",
            size=one.size,
            stamp=str(one.mtime_ns),
        )
        for one in sorted(files, key=lambda one: one.path)
    ]


def _address_of(parts: urllib.parse.SplitResult, key: str) -> str:
    """The place's address with another path: `key` begins with the bucket, which is the host."""
    _, _, path = key.partition("/")
    return urllib.parse.urlunsplit(parts._replace(path="/" + urllib.parse.quote(path)))


def bare_name(place: str) -> str:
    """`place` without password and query."""
    if "://" not in place:
        return place
    parts = urllib.parse.urlsplit(place)
    port = f":{parts.port}" if parts.port else ""
    return urllib.parse.urlunsplit(parts._replace(netloc=f"{parts.hostname or ''}{port}", query="", fragment=""))


@lru_cache(maxsize=64)
def _connected(root: str) -> tuple[Any, str]:
    from pyarrow import fs

    filesystem, path = fs.FileSystem.from_uri(root)
    return filesystem, path


def _filesystem(address: str) -> tuple[Any, str]:
    """(filesystem, path in it); connections are kept for the life of the process."""
    parts = urllib.parse.urlsplit(address)
    filesystem, bucket = _connected(urllib.parse.urlunsplit(parts._replace(path="")))
    inside = urllib.parse.unquote(parts.path).strip("/")
    return filesystem, f"{bucket}/{inside}" if inside else bucket


@contextmanager
def open_file(path: str) -> Iterator[BinaryIO]:
    """The file for reading at random places. Raises ImageProblem("unreadable_file")."""
    try:
        if is_bucket(path):
            filesystem, key = _filesystem(path)
            file = filesystem.open_input_file(key)
        else:
            file = open(path, "rb")  # noqa: SIM115 - closed below
    except (OSError, ValueError) as error:
        raise ImageProblem("unreadable_file", _first_line(error)) from None
    with file:
        yield file


def read_file(path: str, limit_bytes: int) -> bytes:
    """All bytes of a file. Raises ImageProblem: "unreadable_file", or "file_too_large" before more is read."""
    with open_file(path) as file:
        try:
            data = bytes(file.read(limit_bytes + 1))
        except (OSError, ValueError) as error:
            raise ImageProblem("unreadable_file", _first_line(error)) from None
    if len(data) > limit_bytes:
        raise ImageProblem("file_too_large", f"more than {limit_bytes / 1e6:g} MB")
    return data


def joined(names: Iterable[str], most: int = 12) -> str:
    """Names for a message, the first `most` of them."""
    listed = list(names)
    return ", ".join(listed[:most]) + (f" and {len(listed) - most} more" if len(listed) > most else "")


def _first_line(error: BaseException) -> str:
    return (str(error).strip() or type(error).__name__).splitlines()[0][:200]
