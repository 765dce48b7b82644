"""A folder in memory that behaves like an object store and counts what is asked of it: for simulations and tests."""

from collections import Counter
from dataclasses import dataclass, field, replace

import msgspec

from datagen.commit import COMMITS, CommitRecord
from datagen.storage import Data, Folder
from fonts_manifest.errors import BadInput

_LIST_PAGE = 1000
"""Keys an answer of a listing, in S3 and in Google's store."""


@dataclass
class StoreModel:
    """An object store: whole objects that appear at once, at the end of their writing; listings show all of them."""

    objects: dict[str, bytes] = field(default_factory=dict)
    requests: Counter[str] = field(default_factory=Counter)
    rewrites: int = 0
    conflicts: int = 0

    def put(self, path: str, data: bytes) -> None:
        """Write one object, and note whether that changes it."""
        before = self.objects.get(path)
        if before is not None:
            self.rewrites += 1
            self.conflicts += _without_seconds(path, before) != _without_seconds(path, data)
        self.objects[path] = data


def _without_seconds(path: str, data: bytes) -> object:
    if not path.startswith(COMMITS):
        return data
    return replace(msgspec.json.decode(data, type=CommitRecord), seconds=0.0)


class MemoryFolder(Folder):
    """A folder in a `StoreModel`, with a hook before every operation that tests and the simulation use as a clock."""

    def __init__(self, store: StoreModel) -> None:
        super().__init__("memory://run")
        object.__setattr__(self, "store", store)

    store: StoreModel

    def before(self, operation: str, path: str) -> None:
        """Called with "PUT", "GET", "HEAD", "LIST" or "DELETE" before it happens."""

    def names(self, path: str) -> list[str]:
        """As in the base class."""
        self.before("LIST", path)
        prefix = "" if path == "." else f"{path}/"
        found = [name.removeprefix(prefix) for name in self.store.objects if name.startswith(prefix)]
        found = sorted(name for name in found if "/" not in name)
        self.store.requests["LIST"] += max(1, -(-len(found) // _LIST_PAGE))
        return found

    def unfinished(self, path: str) -> list[str]:
        """Objects are whole or not there."""
        return []

    def exists(self, path: str) -> bool:
        """As in the base class."""
        self.before("HEAD", path)
        self.store.requests["HEAD"] += 1
        return path in self.store.objects

    def read(self, path: str) -> bytes:
        """As in the base class."""
        self.before("GET", path)
        self.store.requests["GET"] += 1
        try:
            return self.store.objects[path]
        except KeyError:
            raise BadInput(f"{self.describe(path)}: no such file") from None

    def publish(self, path: str, data: Data) -> None:
        """As in the base class."""
        self.before("PUT", path)
        self.store.requests["PUT"] += 1
        self.store.put(path, bytes(data))

    def delete(self, path: str, *, missing_ok: bool = False) -> None:
        """As in the base class."""
        self.before("DELETE", path)
        self.store.objects.pop(path, None)
