"""What is known already: records by key in a file that only grows, so that a killed run goes on where it was."""

import hashlib
import json
from pathlib import Path
from types import TracebackType
from typing import Any

from fonts_manifest.errors import BadInput


class Journal:
    """A JSON object a line, `{"key": ..., "record": ...}`. A last line that was cut off is written again.

    One process writes at a time. Raises BadInput when the file is something else.
    """

    def __init__(self, path: Path) -> None:
        self._records: dict[str, Any] = {}
        path.parent.mkdir(parents=True, exist_ok=True)
        whole = 0
        if path.exists():
            with path.open("rb") as file:
                for line in file:
                    if not line.endswith(b"\n"):
                        break
                    self._take(path, line)
                    whole += len(line)
        self._file = path.open("ab")
        self._file.truncate(whole)

    def _take(self, path: Path, line: bytes) -> None:
        try:
            entry = json.loads(line)
            self._records[entry["key"]] = entry["record"]
        except (ValueError, KeyError, TypeError) as error:
            raise BadInput(f"{path}: is no journal of ours; name another file, or remove it") from error

    def __contains__(self, key: str) -> bool:
        return key in self._records

    def __getitem__(self, key: str) -> Any:
        return self._records[key]

    def add(self, key: str, record: Any) -> None:
        """Kept from now on, even when the process is killed the next moment."""
        self._records[key] = record
        self._file.write(json.dumps({"key": key, "record": record}, ensure_ascii=False).encode() + b"\n")
        self._file.flush()

    def __enter__(self) -> "Journal":
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self._file.close()


def file_key(path: Path) -> str:
    """SHA-256 of a file's bytes; a name that says so for one that cannot be read: its reader will say why."""
    try:
        with path.open("rb") as file:
            return hashlib.file_digest(file, "sha256").hexdigest()
    except OSError:
        return f"unreadable {path}"
