"""Proxies of diffusability against latents whose answer is known."""

import math

import numpy as np
import pytest
import torch

from vae.proxies import (
    effective_channels,
    equivariance_errors,
    high_share,
    knn_accuracy,
    radial_spectrum,
    spectral_slope,
)


def test_white_noise_is_flat_and_a_blur_is_not() -> None:
    white = torch.randn(64, 3, 16, 16, generator=torch.Generator().manual_seed(0))
    frequency, power = radial_spectrum(white)
    assert frequency.tolist() == [n / 16 for n in range(1, 9)]
    assert power == pytest.approx(1 / 8, rel=0.15)
    assert spectral_slope(frequency, power) == pytest.approx(0, abs=0.1)
    assert high_share(frequency, power) == pytest.approx(0.5, abs=0.02)
    blurred = torch.nn.functional.avg_pool2d(white, 3, stride=1, padding=1)
    assert high_share(*radial_spectrum(blurred)) < 0.2
    assert spectral_slope(*radial_spectrum(blurred)) < -1


def test_a_wave_stands_at_its_frequency() -> None:
    x = torch.arange(16.0)
    wave = torch.sin(2 * math.pi * x * 4 / 16 + 0.3).expand(1, 1, 16, 16)
    frequency, power = radial_spectrum(wave)
    assert frequency[power.argmax()] == 0.25
    with pytest.raises(ValueError, match="4 x 4"):
        radial_spectrum(torch.zeros(1, 1, 3, 8))


def test_channels_that_repeat_each_other_count_once() -> None:
    base = torch.randn(50, 2, 4, 4, generator=torch.Generator().manual_seed(0))
    assert effective_channels(base) == pytest.approx(2, abs=0.05)
    assert effective_channels(torch.cat([base[:, :1], -base[:, :1], base[:, :1]], 1)) == pytest.approx(1, abs=1e-6)


def test_neighbours_know_a_class_that_is_there() -> None:
    generator = torch.Generator().manual_seed(0)
    labels = np.arange(60) % 3
    directions = torch.randn(3, 8, 4, 4, generator=generator)
    clear = directions[labels] + 0.3 * torch.randn(60, 8, 4, 4, generator=generator)
    assert knn_accuracy(clear, labels, 5) == (1.0, pytest.approx(1 / 3))
    blind, _ = knn_accuracy(torch.randn(60, 8, 4, 4, generator=generator), labels, 5)
    assert blind < 0.6
    with pytest.raises(ValueError, match="2 classes"):
        knn_accuracy(clear, np.zeros(60, np.int64), 5)


def test_a_mean_of_pixels_is_equivariant_and_a_fixed_pattern_is_not() -> None:
    images = torch.rand(4, 3, 32, 32, generator=torch.Generator().manual_seed(0)) * 2 - 1
    pool, unpool = torch.nn.AvgPool2d(4), torch.nn.Upsample(scale_factor=4)
    errors = equivariance_errors(pool, unpool, images)
    assert {name: error for name, (error, _) in errors.items()} == pytest.approx(dict.fromkeys(errors, 0), abs=1e-9)
    pattern = torch.linspace(-1, 1, 8).expand(1, 3, 8, 8)
    biased = equivariance_errors(lambda x: pool(x) + pattern[..., : x.shape[2] // 4, : x.shape[3] // 4], unpool, images)
    assert biased["turned 180"][0] > 0.5
    assert biased["turned 180"][1] < errors["turned 180"][1]
