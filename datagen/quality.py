"""What a picture's pixels say about its quality: pure functions, each one number with its unit and range."""

import functools
from collections.abc import Iterator
from dataclasses import dataclass
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
    powers = [[float(power_hw[band].mean()) for band in bands] for power_hw in _tile_powers(luma_HW, tile)]
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


# ITU-T T.81, table K.1 (luminance), row by row.
_STANDARD_LUMA = (
    16, 11, 10, 16, 24, 40, 51, 61, 12, 12, 14, 19, 26, 58, 60, 55, 14, 13, 16, 24, 40, 57, 69, 56,
    14, 17, 22, 29, 51, 87, 80, 62, 18, 22, 37, 56, 68, 109, 103, 77, 24, 35, 55, 64, 81, 104, 113, 92,
    49, 64, 78, 87, 103, 121, 120, 101, 72, 92, 95, 98, 112, 100, 103, 99,
)  # fmt: skip


@functools.cache
def _standard_sums() -> tuple[int, ...]:
    """Sum of libjpeg's luma table at quality 1, 2, ... 100."""
    return tuple(sum(_standard_table(quality)) for quality in range(1, 101))


def _standard_table(quality: int) -> list[int]:
    """libjpeg's luma steps at `quality`, 64, row by row."""
    scale = 5000 // quality if quality < 50 else 200 - 2 * quality
    return [min(255, max(1, (step * scale + 50) // 100)) for step in _STANDARD_LUMA]


_GHOST_SIDE_PX = 768
_GHOST_QUALITIES = range(4, 97, 2)
_GHOST_REACH = 4
"""A dip is measured against the errors so many places before and behind it."""
_GHOST_DIP = 0.5
"""How far ln(error) must dip below the line between those two. 65 real pictures saved at 30, 33, 47 and 50 all dip
there, and those of them that never were a JPEG dip nowhere; at .7 four would be missed, at .35 three others dip."""


def jpeg_history(image_HW3: Image) -> float | None:
    """Quality 4 to 88 of a JPEG that these pixels once were, whatever file holds them now; None when they show none, as
    after any resize or crop off the grid of 8 px, or under 64 px.

    JPEG ghosts (Farid 2009, "Exposing digital forgeries from JPEG ghosts"): luma is saved again at every quality, and
    at the one it was saved with before it hardly changes. Clipped pixels, of which text on white is full, spoil the DCT
    coefficients of their blocks but not this. The middle 768 x 768 px are looked at, 90 ms.
    """
    luma_HW = cv2.cvtColor(np.ascontiguousarray(image_HW3), cv2.COLOR_RGB2GRAY)
    height, width = (min(side // 8 * 8, _GHOST_SIDE_PX) for side in luma_HW.shape)
    if min(height, width) < 64:
        return None
    top, left = ((side - kept) // 16 * 8 for side, kept in zip(luma_HW.shape, (height, width), strict=True))
    luma_HW = np.ascontiguousarray(luma_HW[top : top + height, left : left + width])
    if float(luma_HW.std()) < 2.0:
        return None  # nothing that could have suffered
    error_Q, reach = np.array([_saved_again(luma_HW, quality) for quality in _GHOST_QUALITIES]), _GHOST_REACH
    # At the lower end the line goes on from the two errors above.
    lower_Q = np.concatenate((2 * error_Q[reach : 2 * reach] - error_Q[2 * reach : 3 * reach], error_Q))
    dip_Q = error_Q[:-reach] - (lower_Q[: -2 * reach] + error_Q[reach:]) / 2
    dip_Q[:reach] = error_Q[:reach] - lower_Q[:reach]
    deepest = int(np.argmin(dip_Q))
    if dip_Q[deepest] >= -_GHOST_DIP:
        return None
    nearest = _GHOST_QUALITIES[deepest]
    return float(min((nearest, nearest - 1, nearest + 1), key=lambda quality: _saved_again(luma_HW, quality)))


def _saved_again(luma_HW: npt.NDArray[np.uint8], quality: int) -> float:
    """ln of the mean squared change by one more JPEG."""
    _, data = cv2.imencode(".jpg", luma_HW, [cv2.IMWRITE_JPEG_QUALITY, quality])
    error = cv2.norm(cv2.imdecode(data, cv2.IMREAD_GRAYSCALE), luma_HW, cv2.NORM_L2SQR) / luma_HW.size
    return float(np.log(error + 0.02))  # a pixel in fifty off by one: less is no error


_RING_EDGES = np.linspace(0.02, 0.5, 25)


def upscale(image_HW3: Image) -> float:
    """How many times larger a picture is than its detail, 1 to 20; nan when blank. Blur counts like enlarging.

    Half over the highest frequency whose whitened power (radius^2 x power, rounding taken off) reaches a hundredth of
    the largest: natural power falls like 1/f^2, so sharp pictures stay level up to 0.5 cycles per px. Medians over 73
    real pictures: 1.02 as they are, 1.43, 2.2, 2.9 when shrunk (area) and enlarged (cubic) 2, 3, 4 times; area under
    the curve .88 at 1.5 times, .98 from 2 times on.
    """
    luma_HW = cv2.cvtColor(np.ascontiguousarray(image_HW3), cv2.COLOR_RGB2GRAY)
    tile = min(_TILE_PX, *luma_HW.shape)
    if tile < 64:
        return float("nan")
    rings, sizes = _rings(tile)
    powers = []
    for power_hw in _tile_powers(luma_HW, tile):
        ring_power = np.bincount(rings.ravel(), power_hw.ravel(), len(_RING_EDGES) + 1)[1:-1] / sizes
        if ring_power[:2].mean() > 1.0:  # a tile without structure has no detail to lose
            powers.append(ring_power)
    if not powers:
        return float("nan")
    centres = (_RING_EDGES[:-1] + _RING_EDGES[1:]) / 2
    whitened = np.maximum(np.mean(powers, axis=0) - _ROUNDING, 0.0) * centres**2
    highest = centres[np.flatnonzero(whitened >= 0.01 * whitened.max())[-1]]
    return float(max(1.0, 0.5 / highest))


@functools.cache
def _rings(tile: int) -> tuple[npt.NDArray[np.intp], npt.NDArray[np.intp]]:
    """Ring of every frequency of a tile (0 and 25 are outside), and the number of frequencies in each ring."""
    radius = np.hypot(np.fft.fftfreq(tile)[:, None], np.fft.rfftfreq(tile)[None, :])
    rings = np.digitize(radius, _RING_EDGES)
    return rings, np.bincount(rings.ravel(), minlength=len(_RING_EDGES) + 1)[1:-1]


def _tile_powers(luma_HW: npt.NDArray[np.uint8], tile: int) -> Iterator[npt.NDArray[np.floating]]:
    """Power spectra of the tiles under a Hann window, each (tile, tile // 2 + 1)."""
    window = np.outer(np.hanning(tile), np.hanning(tile)).astype(np.float32)
    norm = float((window**2).sum())
    height, width = luma_HW.shape
    for top in range(0, height - tile + 1, tile):
        for left in range(0, width - tile + 1, tile):
            tile_HW = luma_HW[top : top + tile, left : left + tile].astype(np.float32)
            yield np.abs(np.fft.rfft2((tile_HW - tile_HW.mean()) * window)) ** 2 / norm


def noise(image_HW3: Image) -> float:
    """Standard deviation of visible grain, luma levels, 0 and up.

    Diagonal differences of neighbouring pixels in tiles of 8 px, the tile at the tenth percentile: print, paper and sky
    leave somewhere smooth, grain does not. Gaussian noise of 2, 4, 8, 16 levels a channel reads 1.5, 2.8, 5.5, 10.5
    over photographs (luma averages the channels) and a third less over white paper, which clips half of it.
    """
    luma_HW = cv2.cvtColor(np.ascontiguousarray(image_HW3), cv2.COLOR_RGB2GRAY).astype(np.float32)
    rows, columns = (side // 8 for side in luma_HW.shape)
    if rows == 0 or columns == 0:
        return 0.0
    luma_HW = luma_HW[: rows * 8, : columns * 8]
    diagonal_hw = (luma_HW[::2, ::2] - luma_HW[::2, 1::2] - luma_HW[1::2, ::2] + luma_HW[1::2, 1::2]) / 2
    power_rc = (diagonal_hw**2).reshape(rows, 4, columns, 4).mean(axis=(1, 3))
    # The tenth percentile of 16 squared normal values' mean root lies at .77 of the deviation.
    return float(np.sqrt(np.percentile(power_rc, 10)) / 0.77)


@dataclass(frozen=True, slots=True, kw_only=True)
class Tones:
    """Exposure and colour of a picture."""

    luma_mean: float
    """0 black to 255 white."""
    luma_range: float
    """1st to 99th percentile of luma, 0 to 255: below 40 a picture is a fog."""
    clipped_dark: float
    """Share of pixels with luma of 2 and less, 0 to 1."""
    clipped_bright: float
    """Share of pixels with luma of 253 and more, 0 to 1; white paper counts, so text pages lie near 1."""
    saturation: float
    """Mean of (max - min) / max over the channels, 0 grey to 1."""
    entropy: float
    """Shannon entropy of the luma histogram, bits, 0 to 8."""


def tones(image_HW3: Image) -> Tones:
    """Exposure and colour, 3 ms a megapixel (larger pictures are sampled at every second or third pixel)."""
    stride = max(1, round((image_HW3.shape[0] * image_HW3.shape[1] / 1e6) ** 0.5))
    sample_HW3 = np.ascontiguousarray(image_HW3[::stride, ::stride])
    luma_HW = cv2.cvtColor(sample_HW3, cv2.COLOR_RGB2GRAY)
    counts = np.bincount(luma_HW.ravel(), minlength=256)
    share = counts / counts.sum()
    cumulative = np.cumsum(share)
    low, high = np.searchsorted(cumulative, [0.01, 0.99])
    seen = share[share > 0]
    red_HW, green_HW, blue_HW = cv2.split(sample_HW3)  # NumPy's max over the last axis takes 30 times as long
    most_HW = cv2.max(cv2.max(red_HW, green_HW), blue_HW).astype(np.float32)
    least_HW = cv2.min(cv2.min(red_HW, green_HW), blue_HW)
    return Tones(
        luma_mean=float(share @ np.arange(256)),
        luma_range=float(high - low),
        clipped_dark=float(share[:3].sum()),
        clipped_bright=float(share[253:].sum()),
        saturation=float(((most_HW - least_HW) / np.maximum(most_HW, 1.0)).mean()),
        entropy=float(-(seen * np.log2(seen)).sum()) + 0.0,
    )


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
