"""What cameras, scanners and networks do to a finished picture, in physical units; integers, so bytes stay equal."""

import math

import cv2
import numpy as np
import numpy.typing as npt
from numba import njit

from render_engine.grounds import hash_32
from render_engine.spec import Degradation, RenderError


def degrade(image_HW3: npt.NDArray[np.uint8], degradation: Degradation) -> npt.NDArray[np.uint8]:
    """The picture after blur, resampling, noise and JPEG, in this order: (H, W, 3) uint8 sRGB.

    Raises RenderError("bad_spec") for numbers out of their range.
    """
    _check(degradation)
    if degradation.blur_sigma_px > 0:
        image_HW3 = blur(image_HW3, degradation.blur_sigma_px)
    if degradation.resample > 1:
        image_HW3 = _resample(image_HW3, degradation.resample)
    if degradation.noise_sigma > 0:
        image_HW3 = image_HW3.copy()
        _add_noise(image_HW3, round(degradation.noise_sigma * 256), degradation.noise_seed)
    if degradation.jpeg_quality is not None:
        image_HW3 = _jpeg(image_HW3, degradation.jpeg_quality)
    return image_HW3


def _check(degradation: Degradation) -> None:
    quality = degradation.jpeg_quality
    for right, name in (
        (0 <= degradation.blur_sigma_px <= 20, "blur_sigma_px"),
        (1 <= degradation.resample <= 8, "resample"),
        (0 <= degradation.noise_sigma <= 64, "noise_sigma"),
        (0 <= degradation.noise_seed < 1 << 31, "noise_seed"),
        (quality is None or 1 <= quality <= 100, "jpeg_quality"),
    ):
        if not right:
            raise RenderError("bad_spec", f"{name} is out of range")


def blur(image: npt.NDArray[np.uint8], sigma_px: float) -> npt.NDArray[np.uint8]:
    """Gaussian blur to 3 sigma; OpenCV's 8-bit Gaussian is fixed-point, equal on every processor."""
    side = 2 * math.ceil(3 * sigma_px) + 1
    return cv2.GaussianBlur(image, (side, side), sigma_px, borderType=cv2.BORDER_REFLECT_101)


def _resample(image_HW3: npt.NDArray[np.uint8], factor: float) -> npt.NDArray[np.uint8]:
    """Smaller and larger again, with a low-pass of .4 of the larger pixel first so that nothing aliases."""
    height, width = image_HW3.shape[:2]
    size = (max(1, round(width / factor)), max(1, round(height / factor)))
    small_hw3 = cv2.resize(blur(image_HW3, 0.4 * factor), size, interpolation=cv2.INTER_LINEAR_EXACT)
    return cv2.resize(small_hw3, (width, height), interpolation=cv2.INTER_LINEAR_EXACT)


@njit(cache=True, nogil=True)
def _add_noise(image_HW3: npt.NDArray[np.uint8], sigma_256: int, seed: int) -> None:
    """Normal noise, the sum of four uniform numbers; each channel its own. In place."""
    height, width = image_HW3.shape[:2]
    for y in range(height):
        for x in range(width):
            for channel in range(3):
                one = hash_32(3 * x + channel, y, seed)
                two = hash_32(3 * x + channel, y, seed + 1)
                deviation = (one >> 16) + (one & 0xFFFF) + (two >> 16) + (two & 0xFFFF) - 131070
                # the sum of four uniform 16-bit numbers has a standard deviation of 37,837
                change = (deviation * sigma_256 + 37837 * 128) // (37837 * 256)
                image_HW3[y, x, channel] = min(255, max(0, image_HW3[y, x, channel] + change))


def _jpeg(image_HW3: npt.NDArray[np.uint8], quality: int) -> npt.NDArray[np.uint8]:
    done, data = cv2.imencode(".jpg", image_HW3[:, :, ::-1], (cv2.IMWRITE_JPEG_QUALITY, quality))
    if not done:
        raise RenderError("bad_spec", "the picture cannot be encoded as JPEG")
    return np.ascontiguousarray(cv2.imdecode(data, cv2.IMREAD_COLOR)[:, :, ::-1])
