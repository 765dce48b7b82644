"""How often two judges agree, and how sure that is."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

Array = npt.NDArray[np.float64]


@dataclass(frozen=True, slots=True, kw_only=True)
class Agreement:
    """Decisions of the cascade beside those of full OCR on the same lines, or the same pages."""

    same: int
    false_keep: int
    """Kept by the cascade, dropped by OCR."""
    false_drop: int
    """Dropped by the cascade, kept by OCR."""

    @property
    def trials(self) -> int:
        """How many were compared."""
        return self.same + self.false_keep + self.false_drop

    @property
    def share(self) -> float:
        """Equal decisions over all, 0 to 1; 1 without trials."""
        return self.same / self.trials if self.trials else 1.0

    def __add__(self, other: "Agreement") -> "Agreement":
        return Agreement(
            same=self.same + other.same,
            false_keep=self.false_keep + other.false_keep,
            false_drop=self.false_drop + other.false_drop,
        )


def compare(cascade_keeps: Sequence[bool], ocr_keeps: Sequence[bool]) -> Agreement:
    """Count equal decisions and both errors."""
    pairs = list(zip(cascade_keeps, ocr_keeps, strict=True))
    false_keep = sum(kept and not good for kept, good in pairs)
    false_drop = sum(good and not kept for kept, good in pairs)
    return Agreement(same=len(pairs) - false_keep - false_drop, false_keep=false_keep, false_drop=false_drop)


def wilson_interval(hits: float, trials: float) -> tuple[float, float]:
    """95 % interval of a share (Wilson 1927); (0, 1) without trials."""
    if trials <= 0:
        return 0.0, 1.0
    z = 1.959964
    share = hits / trials
    centre = (share + z * z / (2 * trials)) / (1 + z * z / trials)
    half = z / (1 + z * z / trials) * np.sqrt(share * (1 - share) / trials + z * z / (4 * trials * trials))
    return max(0.0, float(centre - half)), min(1.0, float(centre + half))


def clustered_interval(hits_P: Array, trials_P: Array) -> tuple[float, float]:
    """95 % interval of sum(hits) / sum(trials) when trials come in clusters, such as the lines of P pages.

    Lines of one page share its face, size and photograph, so 50 of them tell less than 50 pages. Wilson's interval over
    as many independent trials as would vary as much: the variance of a ratio of sums, linearised (Cochran 1977, 6.3);
    never more of them than there are lines, never fewer than pages.
    """
    trials = float(trials_P.sum())
    if trials <= 0:
        return 0.0, 1.0
    share = float(hits_P.sum()) / trials
    pages = int((trials_P > 0).sum())
    residual_P = hits_P - share * trials_P
    variance = float((residual_P**2).sum()) / trials**2 * pages / max(1, pages - 1)
    independent = share * (1 - share) / variance if variance > 0 else trials**2 / float((trials_P**2).sum())
    independent = min(max(independent, 1.0), trials)
    return wilson_interval(share * independent, independent)
