"""Picture metrics: one value a picture.

Legend: B pictures, H W pixels.
"""

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt
import torch
import torch.nn.functional as F

from datagen.ocr import Recognizer, ned


def psnr(output_B3HW: torch.Tensor, target_B3HW: torch.Tensor) -> torch.Tensor:
    """(B,) peak signal-to-noise ratio in dB of pictures in [0, 1] (peak 1); inf where they are equal."""
    error = (output_B3HW.double() - target_B3HW.double()).square().flatten(1).mean(1)
    return -10 * torch.log10(error)


def psnr_as_piq(output_B3HW: torch.Tensor, target_B3HW: torch.Tensor) -> torch.Tensor:
    """(B,) PSNR in dB as `piq.psnr` has it, which adds 1e-8 to the squared error: 80 dB where pictures are equal.

    The public benchmark reports this one: .004 dB lower than `psnr` at 50 dB, .4 dB at 70 dB.
    """
    error = (output_B3HW.double() - target_B3HW.double()).square().flatten(1).mean(1)
    return -10 * torch.log10(error + 1e-8)


def ssim(output_B3HW: torch.Tensor, target_B3HW: torch.Tensor) -> torch.Tensor:
    """(B,) structural similarity, at most 1, of pictures in [0, 1] (Wang et al. 2004).

    Gaussian window of 11 px, sigma 1.5, K1 = .01, K2 = .03, biased covariances, windows wholly inside the picture, mean
    over colours: scikit-image's `gaussian_weights=True, use_sample_covariance=False`, piq's `downsample=False`.
    Raises ValueError for pictures smaller than the window.
    """
    if min(output_B3HW.shape[2:]) < 11:
        raise ValueError(f"SSIM needs at least 11x11 px, got {tuple(output_B3HW.shape[2:])}")
    x, y = output_B3HW.double(), target_B3HW.double()
    place = torch.arange(11, dtype=torch.float64, device=x.device) - 5
    line = torch.exp(-(place**2) / (2 * 1.5**2))
    line = line / line.sum()

    def blur(a_B3HW: torch.Tensor) -> torch.Tensor:
        a_N1HW = a_B3HW.flatten(0, 1).unsqueeze(1)
        a_N1HW = F.conv2d(F.conv2d(a_N1HW, line.view(1, 1, 11, 1)), line.view(1, 1, 1, 11))
        return a_N1HW.view(*a_B3HW.shape[:2], *a_N1HW.shape[2:])

    mean_x, mean_y = blur(x), blur(y)
    var_x, var_y = blur(x * x) - mean_x**2, blur(y * y) - mean_y**2
    covariance = blur(x * y) - mean_x * mean_y
    c1, c2 = 0.01**2, 0.03**2
    value = ((2 * mean_x * mean_y + c1) * (2 * covariance + c2)) / ((mean_x**2 + mean_y**2 + c1) * (var_x + var_y + c2))
    return value.flatten(1).mean(1)


def ssim_as_piq(output_B3HW: torch.Tensor, target_B3HW: torch.Tensor) -> torch.Tensor:
    """(B,) SSIM as `piq.ssim(downsample=False)` computes it: the same formula in float32, windows in one convolution.

    On nearly blank pages float32 moves a picture's SSIM by 1e-4 (variances are differences of numbers near 1), and the
    public benchmark reports it so. Raises ValueError for pictures smaller than the window.
    """
    if min(output_B3HW.shape[2:]) < 11:
        raise ValueError(f"SSIM needs at least 11x11 px, got {tuple(output_B3HW.shape[2:])}")
    x, y = output_B3HW.float(), target_B3HW.float()
    square = (torch.arange(11, dtype=torch.float32, device=x.device) - 5) ** 2
    window = (-(square[None] + square[:, None]) / (2 * 1.5**2)).exp()
    kernel_3111 = (window / window.sum()).repeat(3, 1, 1, 1)

    def blur(a_B3HW: torch.Tensor) -> torch.Tensor:
        return F.conv2d(a_B3HW, kernel_3111, groups=3)

    mean_x, mean_y = blur(x), blur(y)
    square_x, square_y, product = mean_x**2, mean_y**2, mean_x * mean_y
    var_x, var_y, covariance = blur(x**2) - square_x, blur(y**2) - square_y, blur(x * y) - product
    c1, c2 = 0.01**2, 0.03**2
    contrast = (2 * covariance + c2) / (var_x + var_y + c2)
    value = (2 * product + c1) / (square_x + square_y + c1) * contrast
    return value.mean((2, 3)).mean(1)


def page_text(recognizer: Recognizer, image_HW3: npt.NDArray[np.uint8]) -> str:
    """All that the reader finds on a picture, lines in mended reading order, joined by line feeds."""
    return "\n".join(line.text for line in recognizer.read_page(image_HW3))


def reading_ned(
    recognizer: Recognizer, outputs: Sequence[npt.NDArray[np.uint8]], target_texts: Sequence[str]
) -> list[float]:
    """NED in [0, 1] of each reconstruction: what is read on it against what was read on the original (`target_texts`).

    The reader's own mistakes fall out, as in OmniDoc-TokenBench. Originals without text have no NED: leave them out.
    """
    return [ned(text, page_text(recognizer, image)) for image, text in zip(outputs, target_texts, strict=True)]
