"""Memory of a process that makes rows: what it frees stays with it, and what it never needs is not loaded.

Getting freed memory back from the system takes longer than compressing what it holds.
"""

import ctypes
import importlib.abc
import sys
from typing import Any

import pyarrow as pa

# From <malloc.h>.
_M_TRIM_THRESHOLD, _M_MMAP_THRESHOLD = -1, -3
_LARGEST_KEPT_BYTES = 32 << 20
"""The most that glibc takes. A row group of 12 MB lies in up to 24 before it is written: getting those anew took .35 ms
a row of 512 px. Whole shards go back to the system."""
_MOST_UNUSED_BYTES = 32 << 20
"""64 MB took 38 MB more and saved .07 ms of a row's 6.3."""


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


class _WithoutPandas(importlib.abc.MetaPathFinder):
    """Nobody finds pandas."""

    def find_spec(self, fullname: str, path: Any, target: Any = None) -> None:
        if fullname == "pandas":
            raise ModuleNotFoundError(fullname, name=fullname)


def leave_pandas_out() -> None:
    """Arrow looks for pandas when it makes its first array: let it find none, 50 MB and half a second less.

    It looks no more then, but where an array is made without a type; who asks it for a data frame still gets one.
    """
    if "pandas" in sys.modules:
        return
    finder = _WithoutPandas()
    sys.meta_path.insert(0, finder)
    try:
        pa.array([0], pa.int8())
    finally:
        sys.meta_path.remove(finder)
