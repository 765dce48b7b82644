"""Loss terms and picture metrics against independent implementations."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from skimage.metrics import peak_signal_noise_ratio, structural_similarity
from vae_runs import stripes

from datagen.ocr import PageLine
from vae.batch import crop_corner, crop_places, to_uint8, to_unit_range
from vae.losses import gradient_l1, l1, l_mcos, l_mdms, mse
from vae.metrics import psnr, reading_ned, ssim

RNG = np.random.default_rng(0)
X = torch.from_numpy(RNG.uniform(-1, 1, (3, 3, 16, 24)).astype(np.float32))
Y = torch.from_numpy(RNG.uniform(-1, 1, (3, 3, 16, 24)).astype(np.float32))
Z = RNG.normal(size=(2, 5, 7)).astype(np.float32)
FEATURES = RNG.normal(size=(2, 5, 7)).astype(np.float32)


def cosine(a: np.ndarray, b: np.ndarray) -> float:
    return float(a @ b / np.sqrt((a @ a) * (b @ b)))


def test_l1_and_mse_are_means_of_each_picture() -> None:
    difference = X.numpy().astype(np.float64) - Y.numpy()
    np.testing.assert_allclose(l1(X, Y), [np.abs(d).mean() for d in difference], rtol=1e-5)
    np.testing.assert_allclose(mse(X, Y), [(d * d).mean() for d in difference], rtol=1e-5)


def test_gradient_l1_at_one_scale() -> None:
    d = X.numpy().astype(np.float64) - Y.numpy()
    expected = [(np.abs(np.diff(one, axis=2)).mean() + np.abs(np.diff(one, axis=1)).mean()) / 2 for one in d]
    np.testing.assert_allclose(gradient_l1(X, Y, scales=1), expected, rtol=1e-5)
    # A constant error has no edges at any scale.
    np.testing.assert_allclose(gradient_l1(X, X + 0.3), 0, atol=1e-6)


@pytest.mark.parametrize("margin", [0.0, 0.5])
def test_l_mcos_is_the_papers_sum(margin: float) -> None:
    expected = [
        np.mean([max(0.0, 1 - cosine(z, f) - margin) for z, f in zip(zs, fs, strict=True)])
        for zs, fs in zip(Z, FEATURES, strict=True)
    ]
    got = l_mcos(torch.from_numpy(Z), torch.from_numpy(FEATURES), margin)
    np.testing.assert_allclose(got, expected, rtol=1e-5)


@pytest.mark.parametrize("margin", [0.0, 0.25])
def test_l_mdms_is_the_papers_double_sum(margin: float) -> None:
    expected = [
        np.mean(
            [max(0.0, abs(cosine(zs[p], zs[q]) - cosine(fs[p], fs[q])) - margin) for p in range(5) for q in range(5)]
        )
        for zs, fs in zip(Z, FEATURES, strict=True)
    ]
    got = l_mdms(torch.from_numpy(Z), torch.from_numpy(FEATURES), margin)
    np.testing.assert_allclose(got, expected, rtol=1e-4)
    assert l_mdms(torch.from_numpy(Z), torch.from_numpy(3 * Z), 0.0).max() < 1e-6


def test_alignment_has_a_gradient_for_the_latents() -> None:
    z = torch.from_numpy(Z).requires_grad_()
    (l_mcos(z, torch.from_numpy(FEATURES), 0.0) + l_mdms(z, torch.from_numpy(FEATURES), 0.0)).sum().backward()
    assert z.grad is not None
    assert (z.grad.abs().sum(2) > 0).all()


def test_psnr_is_scikit_images() -> None:
    a, b = (X + 1) / 2, (Y + 1) / 2
    expected = [peak_signal_noise_ratio(t.numpy(), o.numpy(), data_range=1) for o, t in zip(a, b, strict=True)]
    np.testing.assert_allclose(psnr(a, b), expected, atol=1e-5)
    assert psnr(a, a).isinf().all()


def test_ssim_is_scikit_images() -> None:
    pictures = np.stack(stripes(3, side=48))
    noisy = np.clip(pictures + RNG.normal(0, 20, pictures.shape), 0, 255).astype(np.uint8)
    expected = [
        structural_similarity(
            t, o, channel_axis=2, gaussian_weights=True, sigma=1.5, use_sample_covariance=False, data_range=255
        )
        for t, o in zip(pictures, noisy, strict=True)
    ]
    got = ssim((to_unit_range(noisy) + 1) / 2, (to_unit_range(pictures) + 1) / 2)
    np.testing.assert_allclose(got, expected, atol=1e-5)
    with pytest.raises(ValueError, match=r"at least 11x11 px, got \(10, 48\)"):
        ssim(torch.zeros(1, 3, 10, 48), torch.zeros(1, 3, 10, 48))


class Reader:
    """Reads the red value of the first pixel as that many letters."""

    name = "red"

    def read_page(self, image_HW3: np.ndarray, order: str = "mended") -> list[PageLine]:
        return [PageLine(text="a" * int(image_HW3[0, 0, 0]), score=1.0, quad_px=(0.0,) * 8)]


def test_reading_ned_compares_what_is_read() -> None:
    image = np.zeros((4, 4, 3), np.uint8)
    image[0, 0, 0] = 6
    assert reading_ned(Reader(), [image], ["a" * 8]) == [0.75]  # type: ignore[arg-type]


def test_8_bit_pictures_survive_the_way_to_tensors_and_back() -> None:
    every_level = np.arange(256, dtype=np.uint8).repeat(3).reshape(1, 16, 16, 3)
    there = to_unit_range(every_level)
    assert (float(there.min()), float(there.max())) == (-1.0, 1.0)
    np.testing.assert_array_equal(to_uint8(there), every_level)
    np.testing.assert_array_equal(to_uint8(torch.tensor([[[[-1.7]], [[0.0]], [[1.7]]]])).ravel(), [0, 128, 255])


def corner(seed: int, step: int, slot: int, picture: tuple[int, int]) -> tuple[int, int]:
    """Of a crop of 8 px, in a batch that is just large enough."""
    return crop_corner(crop_places(seed, step, slot + 1)[slot], picture, (8, 8))


def test_the_size_of_a_batch_does_not_move_its_first_crops() -> None:
    np.testing.assert_array_equal(crop_places(3, 7, 5), crop_places(3, 7, 9)[:5])


@given(st.integers(0, 2**32), st.integers(0, 10**7), st.integers(0, 4096), st.integers(8, 40), st.integers(8, 40))
@settings(max_examples=50)
def test_crops_lie_inside_and_are_functions_of_their_address(
    seed: int, step: int, slot: int, height: int, width: int
) -> None:
    top, left = corner(seed, step, slot, (height, width))
    assert 0 <= top <= height - 8
    assert 0 <= left <= width - 8
    assert corner(seed, step, slot, (height, width)) == (top, left)


def test_crops_reach_both_ends() -> None:
    corners = {corner(1, step, 0, (9, 8)) for step in range(40)}
    assert corners == {(0, 0), (1, 0)}
    assert len({corner(1, 0, slot, (99, 99)) for slot in range(20)}) > 10
    assert len({corner(seed, 0, 0, (99, 99)) for seed in range(20)}) > 10
    with pytest.raises(ValueError, match="7x9 px cannot give a crop of 8x8 px"):
        corner(1, 0, 0, (9, 7))
