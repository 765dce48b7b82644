"""One door to the disk and to object stores: a folder whose files appear whole or not at all."""

import ctypes
import errno
import os
import urllib.parse
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path, PurePosixPath
from typing import TypeAlias

import pyarrow as pa
from pyarrow import fs

from datagen.spool import Spool
from fonts_manifest.errors import BadInput

Data: TypeAlias = bytes | pa.Buffer | Spool
"""What can be published."""
TEMPORARY = ".part-"
"""Prefix of files that are being written; nobody but `gc` looks at them."""

_DENIED = (
    *("ACCESS_DENIED", "INVALID_ACCESS_KEY_ID", "SIGNATURE_DOES_NOT_MATCH", "EXPIRED_TOKEN", "InvalidAccessKeyId"),
    *("PERMISSION_DENIED", "UNAUTHENTICATED", "OAuth2 access token", "response code 401", "response code 403"),
)
_UNREACHABLE = ("NETWORK_CONNECTION", "UNAVAILABLE", "Could not connect", "Could not resolve")
_SETTINGS = {
    # Small objects (every commit record) in one request, not three: start, part, complete.
    "s3": "allow_delayed_open=true",
    # The library's own limit is 15 minutes of silence before it says that nobody answers.
    "gs": "retry_limit_seconds=60",
}
_PARTS_IN_FLIGHT = 4
"""Chunks of a spool that wait for their upload in memory, at most."""
_CREDENTIALS = {
    "s3": "; set AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, or AWS_PROFILE",
    "gs": "; set GOOGLE_APPLICATION_CREDENTIALS, or run `gcloud auth application-default login`",
}


@dataclass(frozen=True)
class Folder:
    """A folder on this machine, or an address such as `s3://bucket/folder` that `pyarrow.fs` can open.

    Settings of an address stand behind a question mark: `s3://bucket/folder?endpoint_override=host:port&scheme=http`
    for a store of one's own (the variable AWS_ENDPOINT_URL does the same), `region=...`. Credentials come from where
    the store's own tools find them. `path` arguments are relative and may not leave the folder. Picklable: connections
    are opened where they are used.
    """

    place: str

    @cached_property
    def name(self) -> str:
        """The folder as a person would write it: without settings, and without a password in the address."""
        if self.local is not None:
            return self.place.rstrip("/") or "/"
        parts = urllib.parse.urlsplit(self.place)
        return f"{parts.scheme}://{parts.netloc.rpartition('@')[2]}{parts.path.rstrip('/')}"

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
        parts = urllib.parse.urlsplit(self.place)
        setting = _SETTINGS.get(parts.scheme, "")
        if setting and setting.partition("=")[0] not in parts.query:
            parts = parts._replace(query="&".join(filter(None, (parts.query, setting))))
        try:
            filesystem, root = fs.FileSystem.from_uri(parts.geturl())
        except (pa.ArrowException, OSError, ValueError) as error:
            reason = self._store_reason(error) or f"is no folder and no address that can be opened ({_first(error)})"
            raise BadInput(f"{self.name}: {reason}") from None
        return filesystem, root

    def __getstate__(self) -> dict[str, str]:
        return {"place": self.place}

    def describe(self, path: str) -> str:
        """`path` as a person would write it, for messages."""
        return f"{self.name}/{path}" if self.name != "/" else f"/{path}"

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
        # Not `open_input_stream`: from an object store that reads 256 KiB a request, 100 requests for 25 MiB.
        with self._clear_errors(path), self._opened[0].open_input_file(self._full(path)) as file:
            return bytes(file.read())

    @contextmanager
    def open(self, path: str) -> Iterator[pa.NativeFile]:
        """The file for reading at random places. Raises BadInput when it is missing or cannot be read."""
        with self._clear_errors(path):
            file = self._opened[0].open_input_file(self._full(path))
        with file:
            yield file

    def publish(self, path: str, data: Data) -> None:
        """Put `data` at `path`: readers see all of it or nothing (or what stood there before), after a power cut too.

        Here: a temporary file beside it, fsync, `os.replace`, fsync of the folder. In an object store: one object.
        A `Spool` is never in memory as a whole. Raises BadInput when the disk is full or the place cannot be written;
        nothing half-written is left then.
        """
        with self._clear_errors(path):
            if self.local is not None:
                _publish_here(Path(self._full(path)), data)
            else:
                _upload(self._opened[0].open_output_stream(self._full(path), compression=None), data)

    def delete(self, path: str, *, missing_ok: bool = False) -> None:
        """Remove a file. Raises BadInput when that fails."""
        with self._clear_errors(path):
            try:
                self._opened[0].delete_file(self._full(path))
            except FileNotFoundError:
                if not missing_ok:
                    raise

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
            what = self._store_reason(error) or (
                f"cannot be read or written ({getattr(error, 'strerror', None) or _first(error)})"
            )
        return BadInput(f"{self.describe(path)}: {what}")

    def _store_reason(self, error: Exception) -> str | None:
        """What an object store's answer means to the person who gave the address; None when it is something else."""
        if self.local is not None:
            return None
        answer = str(error)
        if "NO_SUCH_BUCKET" in answer or "NoSuchBucket" in answer:
            return "there is no such bucket; create it or name another"
        if any(word in answer for word in _DENIED):
            variables = _CREDENTIALS.get(urllib.parse.urlsplit(self.place).scheme, "")
            return f"may not be read or written with the credentials at hand{variables}"
        if any(word in answer for word in _UNREACHABLE):
            return "cannot be reached; check the address, its endpoint and the network"
        return None


def _first(error: Exception) -> str:
    return (str(error).strip() or type(error).__name__).splitlines()[0]


def _chunks(data: Data) -> Iterator[bytes | pa.Buffer]:
    return data.chunks() if isinstance(data, Spool) else iter((data,))


def _upload(stream: pa.NativeFile, data: Data) -> None:
    """Write and close the stream: closing is what publishes the object."""
    try:
        for number, chunk in enumerate(_chunks(data), start=1):
            stream.write(chunk)
            # The stream takes all it is given and sends it behind our back: on a slow line it would hold a whole shard.
            if number % _PARTS_IN_FLIGHT == 0:
                stream.flush()
        stream.close()
    except BaseException:
        # Left alone, the stream would close itself with its last reference and publish what it was given so far. It can
        # be told neither to stop nor that something failed between two chunks, so its last reference never goes.
        ctypes.pythonapi.Py_IncRef(ctypes.py_object(stream))
        raise


def _publish_here(target: Path, data: Data) -> None:
    target.parent.mkdir(parents=True, exist_ok=True)
    temporary = target.with_name(f"{TEMPORARY}{uuid.uuid4().hex}")
    try:
        with temporary.open("xb") as file:
            for chunk in _chunks(data):
                file.write(chunk)
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
