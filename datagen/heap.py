"""Memory of a process that makes rows: what it frees stays with it, and what it never needs is not loaded.

Getting freed memory back from the system takes longer than compressing what it holds.
"""

import ctypes
import importlib.abc
import mmap
import sys
from collections.abc import Container, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pyarrow as pa

# From <malloc.h>.
_M_TRIM_THRESHOLD, _M_MMAP_THRESHOLD = -1, -3
_LARGEST_KEPT_BYTES = 32 << 20
"""The most that glibc takes. A row group of 12 MB lies in up to 24 before it is written: getting those anew took .35 ms
a row of 512 px. Whole shards go back to the system."""
_MOST_UNUSED_BYTES = 64 << 20
"""Between two row groups 40 MB lie idle, which raises no peak. With 32 MB a row's part in its file took 1.0 ms instead
of .57."""

_READ_ONLY = ("r-xp", "r--p", "r--s")


def keep_freed_memory() -> None:
    """From now on glibc reuses what pictures and their files have freed; elsewhere nothing changes.

    A page of 4 kB that the system hands out anew cost 2.5 us in a virtual machine: 1.0 of the 2.8 ms in which a picture
    of 512 x 512 px was encoded.
    """
    if sys.platform != "linux":
        return
    libc = ctypes.CDLL(None)
    if hasattr(libc, "gnu_get_libc_version"):
        libc.mallopt(_M_MMAP_THRESHOLD, _LARGEST_KEPT_BYTES)
        libc.mallopt(_M_TRIM_THRESHOLD, _MOST_UNUSED_BYTES)
        pa.set_memory_pool(pa.system_memory_pool())


def let_go_of_files(read_only: Container[str] = frozenset()) -> None:
    """Give back the resident pages of libraries, of files mapped for reading, and of the files named `read_only`.

    What is looked at again comes back from the page cache. Of a worker's 200 MB of libraries and fonts less than 60 are
    needed for rows, LLVM only to load functions; it takes 15 to 25 ms. read_only: paths of files mapped so that they
    may be written in memory, which nobody does.
    """
    if sys.platform != "linux":
        return
    libc = ctypes.CDLL(None)
    for line in Path("/proc/self/smaps").read_text().splitlines():
        if not line[0].isupper():
            addresses, access, _, _, inode, *path = line.split(maxsplit=5)
            continue
        # Never what was written: a library's loader has put addresses into pages that are read-only since.
        unwritten = line.startswith("Anonymous:") and line.endswith(" 0 kB")
        if unwritten and inode != "0" and (access in _READ_ONLY or path[0] in read_only):
            start, end = (int(address, 16) for address in addresses.split("-"))
            libc.madvise(ctypes.c_void_p(start), ctypes.c_size_t(end - start), mmap.MADV_DONTNEED)


class _Without(importlib.abc.MetaPathFinder):
    """Nobody finds one module."""

    def __init__(self, name: str) -> None:
        self._name = name

    def find_spec(self, fullname: str, path: Any, target: Any = None) -> None:
        if fullname == self._name:
            raise ModuleNotFoundError(fullname, name=fullname)


@contextmanager
def _without(name: str) -> Iterator[None]:
    """A module that is not there as long as the context lasts, unless it is loaded already."""
    finder = _Without(name)
    sys.meta_path.insert(0, finder)
    try:
        yield
    finally:
        sys.meta_path.remove(finder)


def leave_pandas_out() -> None:
    """Arrow looks for pandas when it makes its first array: let it find none, 50 MB and half a second less.

    It looks no more then, but where an array is made without a type; who asks it for a data frame still gets one.
    """
    with _without("pandas"):
        pa.array([0], pa.int8())


def leave_scipy_out() -> None:
    """Numba looks for SciPy's linear algebra when it loads its first function: let it find none, 17 MB and .1 s less.

    It looks again when a function that multiplies matrices is compiled.
    """
    from numba.core.registry import cpu_target

    with _without("scipy.linalg"):
        cpu_target.target_context.refresh()
