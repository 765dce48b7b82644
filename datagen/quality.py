"""What a picture's pixels say about its quality: pure functions, each one number with its unit and range."""

import functools
from pathlib import Path

import cv2
import numpy as np
import numpy.typing as npt

from datagen.decode import jpeg_tables

Image = npt.NDArray[np.uint8]

_TILE_PX = 128
_LOW, _MIDDLE, _HIGH = (0.02, 0.06), (0.08, 0.20), (0.30, 0.50)
"""Bands in cycles per px; 0.5 is the finest pattern that pixels can hold."""
_ROUNDING = 1 / 12
"""Power a frequency of rounding to whole luma values, the floor under every spectrum."""
_LOW_BAND_SHIFT = 0.9
"""Puts middle over low on the scale of high over middle: the largest shift at which a blur of 4 px is still caught."""


def sharpness(image_HW3: Image) -> float:
    """Log ratio of spectral power in neighbouring bands; no unit; about -5 to 0, higher is sharper; nan when blank.

    The smaller of log10(high / middle) and log10(middle / low) + 0.9, over tiles of 128 px under a Hann window; tiles
    without structure are left out and the power of rounding is taken off. Power falls like 1/f^2 in natural pictures
    and slower in print, whatever they show; blur cuts it off. The second ratio is for blurs of 4 px and more, which
    leave nothing but rounding in the two upper bands, so that the first ratio alone rises again (area under the curve
    .75 at 4 px, .00 at 8 px).

    118 real pictures, photograph to page, lie from -2.5 to -0.6. Area under the curve against the same blurred by a
    Gaussian of 1, 2, 4, 8 px: .9999 and better; 70 of them blurred by 2 px and saved as JPEG 85: .998, enlarged
    threefold .999, twofold .984. 8 ms a megapixel.
    """
    luma_HW = cv2.cvtColor(np.ascontiguousarray(image_HW3), cv2.COLOR_RGB2GRAY)
    height, width = luma_HW.shape
    tile = min(_TILE_PX, height, width)
    if tile < 64:  # fewer pixels have no frequency in the low band
        return float("nan")
    bands = _bands(tile)
    window = np.outer(np.hanning(tile), np.hanning(tile)).astype(np.float32)
    norm = float((window**2).sum())
    powers = []
    for top in range(0, height - tile + 1, tile):
        for left in range(0, width - tile + 1, tile):
            tile_HW = luma_HW[top : top + tile, left : left + tile].astype(np.float32)
            spectrum = np.abs(np.fft.rfft2((tile_HW - tile_HW.mean()) * window)) ** 2 / norm
            powers.append([float(spectrum[band].mean()) for band in bands])
    power_T3 = np.array(powers)
    coarse_T3 = power_T3[power_T3[:, 0] > 4 * _ROUNDING]
    if not len(coarse_T3):
        return float("nan")
    low, middle, _ = coarse_T3.mean(axis=0)
    second = np.log10(_above_rounding(middle) / low) + _LOW_BAND_SHIFT
    fine_T3 = power_T3[power_T3[:, 1] > 4 * _ROUNDING]
    if not len(fine_T3):
        return float(second)
    _, middle, high = fine_T3.mean(axis=0)
    return float(min(second, np.log10(_above_rounding(high) / middle)))


def _above_rounding(power: float) -> float:
    # At least a fiftieth of it stays: what is hidden in the rounding is not known to be nothing.
    return max(power - _ROUNDING, 0.02 * power, 1e-6)


@functools.cache
def _bands(tile: int) -> tuple[npt.NDArray[np.bool_], ...]:
    radius = np.hypot(np.fft.fftfreq(tile)[:, None], np.fft.rfftfreq(tile)[None, :])
    return tuple((radius >= low) & (radius < high) for low, high in (_LOW, _MIDDLE, _HIGH))


def jpeg_quality(source: Path | str | bytes) -> float | None:
    """Quality 1 to 100 on the scale of the Independent JPEG Group; None when the file is no JPEG. Raises ImageProblem.

    From the sum of the luma quantisation table, so a camera's own table gets the quality of equal mean step; exact for
    files of libjpeg. A picture that was once a JPEG and is stored as PNG now has no table and is not recognised.
    """
    tables = jpeg_tables(source)
    if not tables:
        return None
    total = float(sum(tables[min(tables)]))
    sums = _standard_sums()
    # np.interp wants rising abscissae; the sum of steps falls with quality.
    return float(np.interp(-total, [-s for s in sums], range(1, 101)))


# ITU-T T.81, table K.1 (luminance).
_STANDARD_LUMA = (
    16, 11, 10, 16, 24, 40, 51, 61, 12, 12, 14, 19, 26, 58, 60, 55, 14, 13, 16, 24, 40, 57, 69, 56,
    14, 17, 22, 29, 51, 87, 80, 62, 18, 22, 37, 56, 68, 109, 103, 77, 24, 35, 55, 64, 81, 104, 113, 92,
    49, 64, 78, 87, 103, 121, 120, 101, 72, 92, 95, 98, 112, 100, 103, 99,
)  # fmt: skip


@functools.cache
def _standard_sums() -> tuple[int, ...]:
    """Sum of libjpeg's luma table at quality 1, 2, ... 100."""
    sums = []
    for quality in range(1, 101):
        scale = 5000 // quality if quality < 50 else 200 - 2 * quality
        sums.append(sum(min(255, max(1, (step * scale + 50) // 100)) for step in _STANDARD_LUMA))
    return tuple(sums)


def blank_share(image_HW3: Image) -> float:
    """Share of 32 x 32 px tiles that are nearly one colour (luma deviates by less than 2 of 255), 0 to 1."""
    luma_HW = cv2.cvtColor(np.ascontiguousarray(image_HW3), cv2.COLOR_RGB2GRAY)
    height, width = luma_HW.shape
    tile = min(32, height, width)
    rows, columns = height // tile, width // tile
    tiles = luma_HW[: rows * tile, : columns * tile].reshape(rows, tile, columns, tile).astype(np.float32)
    return float((tiles.std(axis=(1, 3)) < 2.0).mean())


def aspect(width_px: int, height_px: int) -> float:
    """Long side over short side, 1 and up."""
    return max(width_px, height_px) / min(width_px, height_px)
