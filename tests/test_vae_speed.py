"""What makes the autoencoder fast equals what it stands for, on a CPU and, where there is one, on a GPU."""

import shutil

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st

from vae.blocks import Upsample
from vae.fused import _backward, _forward, rms_silu

DEVICES = [
    "cpu",
    pytest.param(
        "cuda", marks=[pytest.mark.gpu, pytest.mark.skipif(not torch.cuda.is_available(), reason="torch sees no GPU")]
    ),
]


def written_out(x_BCHW: torch.Tensor, gain_C: torch.Tensor) -> torch.Tensor:
    return F.silu(F.normalize(x_BCHW, dim=1) * x_BCHW.shape[1] ** 0.5 * gain_C.view(1, -1, 1, 1))


def features(seed: int, channels: int, height: int = 5, width: int = 3, count: int = 2) -> torch.Tensor:
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(count, channels, height, width, generator=generator)


def test_rms_silu_of_one_pixel() -> None:
    out = rms_silu(torch.tensor([3.0, 4.0]).view(1, 2, 1, 1), torch.tensor([1.0, 2.0])).flatten()
    # 3-4-5: (3/5, 4/5) sqrt(2) gain
    y = np.sqrt(2) * np.array([0.6, 1.6])
    np.testing.assert_allclose(out, y / (1 + np.exp(-y)), rtol=1e-6)


@given(
    st.integers(0, 1000), st.integers(1, 40), st.integers(1, 6), st.integers(1, 6), st.sampled_from([1e-3, 1.0, 1e3])
)
@settings(deadline=None, max_examples=30)
def test_rms_silu_and_its_gradients_are_the_written_out_ones(
    seed: int, channels: int, height: int, width: int, size: float
) -> None:
    x = features(seed, channels, height, width).double().mul(size).requires_grad_()
    gain = torch.randn(channels, generator=torch.Generator().manual_seed(seed)).double().requires_grad_()
    weight = features(seed + 1, channels, height, width).double()
    found, wanted = rms_silu(x, gain), written_out(x, gain)
    torch.testing.assert_close(found, wanted)
    for ours, theirs in zip(
        torch.autograd.grad((found * weight).sum(), (x, gain)),
        torch.autograd.grad((wanted * weight).sum(), (x, gain)),
        strict=True,
    ):
        torch.testing.assert_close(ours, theirs, rtol=1e-6, atol=1e-9 / size)


def test_rms_silu_has_the_gradient_of_finite_differences() -> None:
    x = features(0, 5).double().requires_grad_()
    assert torch.autograd.gradcheck(rms_silu, (x, torch.rand(5, dtype=torch.double, requires_grad=True)))


def test_a_pixel_of_zeros_stays_zero() -> None:
    assert rms_silu(torch.zeros(1, 3, 2, 2), torch.ones(3)).abs().max() == 0


@pytest.mark.parametrize("device", DEVICES)
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_rms_silu_rounds_once(dtype: torch.dtype, device: str) -> None:
    x = features(0, 96).to(device, dtype).to(memory_format=torch.channels_last).requires_grad_()
    gain = torch.rand(96, device=device, requires_grad=True)
    found = rms_silu(x, gain)
    assert found.dtype == dtype
    assert found.is_contiguous(memory_format=torch.channels_last)
    exact = written_out(x.double(), gain.double())
    step = 4 * torch.finfo(torch.float32).eps if dtype == torch.float32 else torch.finfo(dtype).eps
    torch.testing.assert_close(found.double(), exact, rtol=step, atol=step)
    weight = torch.randn_like(found)
    ours = torch.autograd.grad((found * weight).sum(), (x, gain))
    theirs = torch.autograd.grad((exact * weight.double()).sum(), (x, gain))
    assert [grad.dtype for grad in ours] == [dtype, torch.float32]
    torch.testing.assert_close(ours[0].double(), theirs[0].double(), rtol=2 * step, atol=2 * step)
    torch.testing.assert_close(ours[1].double(), theirs[1].double(), rtol=1e-2 if step > 1e-3 else 1e-4, atol=1e-2)


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore::DeprecationWarning:torch")
@pytest.mark.skipif(shutil.which("g++") is None, reason="torch.compile for CPUs needs g++")
def test_compiled_kernels_equal_the_eager_ones_at_any_shape() -> None:
    compiled = torch.compile(_forward, dynamic=True), torch.compile(_backward, dynamic=True)
    for channels, height, width in ((32, 8, 8), (96, 4, 24), (48, 16, 5)):
        x = features(0, channels, height, width).to(memory_format=torch.channels_last)
        gain = torch.rand(channels)
        output, scale = _forward(x, gain)
        for ours, eager in zip(compiled[0](x, gain), (output, scale), strict=True):
            torch.testing.assert_close(ours, eager)
        for ours, eager in zip(compiled[1](output, x, gain, scale), _backward(output, x, gain, scale), strict=True):
            torch.testing.assert_close(ours, eager, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("device", DEVICES)
@given(st.integers(0, 1000), st.integers(1, 9), st.integers(1, 7), st.integers(1, 7))
@settings(deadline=None, max_examples=20)
def test_the_folded_upsampling_is_nearest_then_a_convolution(
    device: str, seed: int, channels: int, height: int, width: int
) -> None:
    torch.manual_seed(seed)
    up = Upsample(channels).double().to(device)
    x = features(seed, channels, height, width).double().to(device).requires_grad_()
    wanted = up.conv(F.interpolate(x, scale_factor=2.0, mode="nearest"))
    found = up(x)
    torch.testing.assert_close(found, wanted)
    weight = torch.randn_like(found)
    of = (x, up.conv.weight, up.conv.bias)
    for ours, theirs in zip(
        torch.autograd.grad((found * weight).sum(), of), torch.autograd.grad((wanted * weight).sum(), of), strict=True
    ):
        torch.testing.assert_close(ours, theirs)
