"""Bytes on their way to a name: in a file without one, never in memory as a whole."""

import errno
import hashlib
import os
import tempfile
import weakref
from collections.abc import Iterator
from typing import BinaryIO

from fonts_manifest.errors import BadInput

CHUNK_BYTES = 10 << 20
"""Read back at a time. pyarrow uploads parts of this size: a chunk that is a part is not copied once more."""


class Spool:
    """A file that is written once from front to back and then read in chunks; the `sink` that Arrow asks for.

    It lies where temporary files do (the variable TMPDIR names the folder) and has no name there: it goes with the last
    reference to it, with the process at the latest. Raises BadInput when there is no such folder or its disk is full.
    """

    def __init__(self) -> None:
        try:
            self.file: BinaryIO = tempfile.TemporaryFile(buffering=0)  # noqa: SIM115 - as long as the object
        except OSError as error:
            raise _explained(error) from None
        weakref.finalize(self, self.file.close)
        self.size = 0
        """Bytes written."""
        self._sha256 = hashlib.sha256()
        self._failed: BadInput | None = None
        self.closed = False

    @property
    def sha256(self) -> str:
        """Of what was written, in hex digits."""
        return self._sha256.hexdigest()

    def write(self, data: bytes) -> int:
        """Append."""
        # A writer of Parquet finishes its file when it goes, which may be because the disk is full. It was said once.
        if self._failed is None:
            self._write(memoryview(data))
        return len(data)

    def _write(self, left: memoryview) -> None:
        self._sha256.update(left)
        self.size += len(left)
        try:
            while left:
                left = left[os.write(self.file.fileno(), left) :]
        except OSError as error:
            self._failed = _explained(error)
            raise self._failed from None

    def tell(self) -> int:
        """Bytes written."""
        return self.size

    def flush(self) -> None:
        """Nothing waits."""

    def close(self) -> None:
        """Nothing comes any more."""
        self.closed = True

    def chunks(self) -> Iterator[bytes]:
        """All that was written, `CHUNK_BYTES` at a time. Raises BadInput when it cannot be read back."""
        if self._failed is not None:
            raise self._failed
        for start in range(0, self.size, CHUNK_BYTES):
            expected = min(CHUNK_BYTES, self.size - start)
            try:
                chunk = os.pread(self.file.fileno(), expected, start)
            except OSError as error:
                raise _explained(error) from None
            if len(chunk) < expected:
                raise BadInput(f"{tempfile.gettempdir()}: a temporary file is shorter than what was written into it")
            yield chunk

    def __bytes__(self) -> bytes:
        """All that was written, in memory: for small files."""
        return b"".join(self.chunks())


def _explained(error: OSError) -> BadInput:
    folder = tempfile.tempdir or "temporary files"
    full = error.errno in (errno.ENOSPC, errno.EDQUOT)
    what = "the disk is full" if full else f"no file can be written here ({error.strerror})"
    return BadInput(
        f"{folder}: {what}; a shard lies here until it is published: make room or set TMPDIR to another folder, and "
        "run the same command again, what is finished is kept"
    )
