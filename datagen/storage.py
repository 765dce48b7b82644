"""One door to the disk and to object stores: a folder whose files appear whole or not at all."""

import errno
import os
import urllib.parse
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path, PurePosixPath

import pyarrow as pa
from pyarrow import fs

from fonts_manifest.errors import BadInput

TEMPORARY = ".part-"
"""Prefix of files that are being written; nobody but `gc` looks at them."""


@dataclass(frozen=True)
class Folder:
    """A folder on this machine, or an address such as `s3://bucket/folder` that `pyarrow.fs` can open.

    `path` arguments are relative and may not leave the folder. Picklable: connections are opened where they are used.
    """

    place: str

    @cached_property
    def local(self) -> Path | None:
        """The folder's absolute path on this machine; None when it lies elsewhere."""
        # One letter is a drive, not a scheme.
        if len(urllib.parse.urlsplit(self.place).scheme) > 1:
            return None
        return Path(self.place).expanduser().absolute()

    @cached_property
    def _opened(self) -> tuple[fs.FileSystem, str]:
        if self.local is not None:
            return fs.LocalFileSystem(), str(self.local)
        try:
            filesystem, root = fs.FileSystem.from_uri(self.place)
        except (pa.ArrowException, OSError, ValueError) as error:
            raise BadInput(f"{self.place}: is no folder and no address that can be opened ({error})") from None
        return filesystem, root

    def __getstate__(self) -> dict[str, str]:
        return {"place": self.place}

    def describe(self, path: str) -> str:
        """`path` as a person would write it, for messages."""
        return f"{self.place.rstrip('/')}/{path}"

    def _full(self, path: str) -> str:
        parts = PurePosixPath(path).parts
        if PurePosixPath(path).is_absolute() or ".." in parts:
            raise ValueError(f"path must stay inside the folder, got {path!r}")
        return "/".join((self._opened[1].rstrip("/"), *parts))

    def names(self, path: str) -> list[str]:
        """Names of the files directly in the folder `path`, sorted, by one listing; [] when there is no such folder.

        Files still being written are left out.
        """
        return [name for name in self._listed(path) if not name.startswith(TEMPORARY)]

    def unfinished(self, path: str) -> list[str]:
        """Names of files in `path` whose writing was cut off (or goes on right now)."""
        return [name for name in self._listed(path) if name.startswith(TEMPORARY)]

    def _listed(self, path: str) -> list[str]:
        with self._clear_errors(path):
            found = self._opened[0].get_file_info(fs.FileSelector(self._full(path), allow_not_found=True))
        return sorted(info.base_name for info in found if info.type == fs.FileType.File)

    def exists(self, path: str) -> bool:
        """Whether the file `path` is there."""
        with self._clear_errors(path):
            return bool(self._opened[0].get_file_info(self._full(path)).type == fs.FileType.File)

    def read(self, path: str) -> bytes:
        """All bytes of a file. Raises BadInput when it is missing or cannot be read."""
        with self._clear_errors(path), self._opened[0].open_input_stream(self._full(path), compression=None) as stream:
            return bytes(stream.read())

    @contextmanager
    def open(self, path: str) -> Iterator[pa.NativeFile]:
        """The file for reading at random places. Raises BadInput when it is missing or cannot be read."""
        with self._clear_errors(path):
            file = self._opened[0].open_input_file(self._full(path))
        with file:
            yield file

    def publish(self, path: str, data: bytes | pa.Buffer) -> None:
        """Put `data` at `path`: readers see all of it or nothing (or what stood there before), after a power cut too.

        Here: a temporary file beside it, fsync, `os.replace`, fsync of the folder. In an object store: one object.
        Raises BadInput when the disk is full or the place cannot be written; nothing half-written is left then.
        """
        with self._clear_errors(path):
            if self.local is not None:
                _publish_here(Path(self._full(path)), data)
                return
            stream = self._opened[0].open_output_stream(self._full(path), compression=None)
            # Not `with`: leaving it by an exception would close the stream, and closing is what publishes the object.
            stream.write(data)
            stream.close()

    def delete(self, path: str) -> None:
        """Remove a file. Raises BadInput when that fails."""
        with self._clear_errors(path):
            self._opened[0].delete_file(self._full(path))

    @contextmanager
    def _clear_errors(self, path: str) -> Iterator[None]:
        try:
            yield
        except FileNotFoundError:
            raise BadInput(f"{self.describe(path)}: no such file") from None
        except (OSError, pa.ArrowException) as error:
            raise self._explained(path, error) from None

    def _explained(self, path: str, error: OSError | pa.ArrowException) -> BadInput:
        number = getattr(error, "errno", None)
        if number in (errno.ENOSPC, errno.EDQUOT):
            what = "the disk is full; make room and run the same command again, what is finished is kept"
        elif number in (errno.EACCES, errno.EPERM, errno.EROFS):
            what = "may not be read or written here; change its permissions or name another folder"
        else:
            what = f"cannot be read or written ({getattr(error, 'strerror', None) or str(error).splitlines()[0]})"
        return BadInput(f"{self.describe(path)}: {what}")


def _publish_here(target: Path, data: bytes | pa.Buffer) -> None:
    target.parent.mkdir(parents=True, exist_ok=True)
    temporary = target.with_name(f"{TEMPORARY}{uuid.uuid4().hex}")
    try:
        with temporary.open("xb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        os.replace(temporary, target)
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise
    # The new name is only safe from a power cut when the folder itself is on the disk.
    folder = os.open(target.parent, os.O_RDONLY)
    try:
        os.fsync(folder)
    finally:
        os.close(folder)
