"""Characters that are set one by one: blanks, Chinese characters, Chinese punctuation; a row for each in a process."""

import functools
import threading

import numpy as np
import numpy.typing as npt

from render_engine.lexicon import UNSEEN

SINGLE_RANGES = (
    (0x20, 0x20),
    (0x3000, 0x3003),
    (0x3005, 0x3011),
    (0x3014, 0x301F),
    (0x3400, 0x4DBF),
    (0x4E00, 0x9FFF),
    (0xFF01, 0xFF60),
    (0xFFE0, 0xFFE6),
)
QUOTES = frozenset("‘’“”")


class Singles:
    """Rows of single characters in the tables of all stacks, in the order in which the process met them.

    Tables by code point would take 1 MB a stack, and what a page needs of them would lie far apart.
    """

    def __init__(self) -> None:
        self.row_of = np.zeros(0x10000, np.uint16)
        """By code point; 0 for what stands in words only, UNSEEN for singles without a row."""
        for first, last in SINGLE_RANGES:
            self.row_of[first : last + 1] = UNSEEN
        self._new = threading.Lock()
        self.rows = 1
        self.enter(np.array([0x0A, 0x20, *map(ord, sorted(QUOTES))], np.uint32))

    def enter(self, codes: npt.NDArray[np.uint32]) -> None:
        """Give every code point a row that has none."""
        with self._new:
            new = np.unique(codes)
            new = new[(self.row_of[new] == UNSEEN) | (self.rows == 1)]
            self.row_of[new] = np.arange(self.rows, self.rows + len(new))
            self.rows += len(new)


@functools.cache
def singles() -> Singles:
    """Those of this process."""
    return Singles()
