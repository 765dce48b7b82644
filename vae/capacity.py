"""Memory that does not suffice, on a GPU or a CPU, as one sentence on what to lower"""

from collections.abc import Callable, Iterator
from contextlib import contextmanager

import torch

from fonts_manifest.errors import BadInput

_CPU_ALLOCATOR = "DefaultCPUAllocator: can't allocate memory"
"""How torch says on a CPU what it has an exception of its own for on a GPU: in the text of a plain RuntimeError."""


@contextmanager
def memory_explained(sentence: Callable[[], str]) -> Iterator[None]:
    """Raises BadInput with `sentence()` when the work inside lacks memory; every other failure goes on as it is."""
    try:
        yield
    except (torch.OutOfMemoryError, MemoryError) as error:
        raise BadInput(sentence()) from error
    except RuntimeError as error:
        if _CPU_ALLOCATOR not in str(error):
            raise
        raise BadInput(sentence()) from error
