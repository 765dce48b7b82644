"""Marks laid all over a picture: faint names that repeat at a fixed distance, as stock agencies print them."""

import cv2
import numpy as np
import numpy.typing as npt

_SIDE_PX = 512
_CLIP = 6.0
"""Luma levels: what stands out further is the picture, not a faint mark over it."""
_COLOUR = 0.4
"""How much of the spectrum's own shape stays: 1 is the plain autocorrelation, 0 compares phases alone."""
_NEAREST_PX = 28
"""Marks repeat at this distance of the shrunk picture or more; nearer are textures and lines of text."""


def repeated_marks(image_HW3: npt.NDArray[np.uint8]) -> float:
    """Strength of a faint pattern that repeats, 0 to 1: the sharpest peak of the autocorrelation away from its centre.

    Edges are clipped to a few luma levels, so that a mark counts in every place and a strong edge no more than it. The
    height of a peak is taken over its surroundings: lines of text and stripes correlate along whole ridges.
    """
    luma_HW = cv2.cvtColor(np.ascontiguousarray(image_HW3), cv2.COLOR_RGB2GRAY)
    shrink = max(1.0, max(luma_HW.shape) / _SIDE_PX)
    size = (round(luma_HW.shape[1] / shrink), round(luma_HW.shape[0] / shrink))
    if min(size) < 4 * _NEAREST_PX:
        return 0.0
    small_hw = cv2.resize(luma_HW, size, interpolation=cv2.INTER_AREA).astype(np.float32)
    detail_hw = np.clip(small_hw - cv2.GaussianBlur(small_hw, (0, 0), 3), -_CLIP, _CLIP)
    detail_hw -= detail_hw.mean()
    correlation_hw = _autocorrelation(detail_hw)
    if correlation_hw is None:
        return 0.0
    smooth_hw = cv2.GaussianBlur(correlation_hw, (0, 0), 1.0)
    around_hw = np.maximum(_stripe_mean(smooth_hw, 0), _stripe_mean(smooth_hw, 1))
    rise_hw = smooth_hw - around_hw
    height, width = rise_hw.shape
    y, x = np.mgrid[:height, :width]
    near = np.hypot(y, x - width // 2) < _NEAREST_PX
    rise_hw[near] = 0
    return float(np.clip(rise_hw.max(), 0, 1))


def _stripe_mean(correlation_hw: npt.NDArray[np.float32], axis: int) -> npt.NDArray[np.float32]:
    """The larger of two means along `axis`, just before and just after each place."""
    length, gap = 13, 4
    kernel = np.zeros(2 * (length + gap) + 1, np.float32)
    kernel[:length] = 1 / length
    ahead, behind = kernel, kernel[::-1].copy()
    ones = np.ones(1, np.float32)

    def along(k: npt.NDArray[np.float32]) -> npt.NDArray[np.float32]:
        kx, ky = (k, ones) if axis == 1 else (ones, k)
        filtered: npt.NDArray[np.float32] = cv2.sepFilter2D(correlation_hw, -1, kx, ky)
        return filtered

    return np.maximum(along(ahead), along(behind))


def _autocorrelation(detail_hw: npt.NDArray[np.float32]) -> npt.NDArray[np.float32] | None:
    """Correlation of the picture with itself moved by (dy, dx): rows dy from 0 to 0.45 of the height, columns dx from
    -0.45 to 0.45 of the width, each over the part that overlaps; None for a picture of one colour."""
    height, width = detail_hw.shape
    if not detail_hw.any():
        return None
    power = np.abs(np.fft.rfft2(detail_hw, (2 * height, 2 * width))) ** 2
    # Partly whitened: a texture's broad bands weigh less, a lattice's lines more.
    broad = cv2.blur(power.astype(np.float32), (31, 31)) + 1e-3 * float(power.mean())
    products = np.fft.irfft2(power / broad ** (1 - _COLOUR), (2 * height, 2 * width))
    most_y, most_x = int(0.45 * height), int(0.45 * width)
    dy, dx = np.arange(most_y + 1), np.arange(-most_x, most_x + 1)
    overlap = (height - dy)[:, None] * (width - np.abs(dx))[None, :]
    moved = products[: most_y + 1][:, dx]
    return (moved / overlap * (detail_hw.size / products[0, 0])).astype(np.float32)
