"""RMS norm and SiLU as one operation that keeps only its input for the backward pass.

Written out, autograd keeps the input, its norm, the normed values and more, in float32: a third to a half of all that a
training step keeps. Here the backward pass computes them again; on a GPU either direction is compiled into one kernel.

Legend: B batch, C channels, H W pixels.
"""

import functools
import importlib.util
from collections.abc import Callable
from typing import Any

import torch
import torch.nn.functional as F
from torch.autograd.function import once_differentiable

_LEAST_NORM = 1e-12


def rms_silu(x_BCHW: torch.Tensor, gain_C: torch.Tensor) -> torch.Tensor:
    """silu(x / ||x||_2 * sqrt(C) * gain), the norm over the channels of each pixel alone; in the dtype of x.

    Computed in float32 at least: a sum of squares over 1,152 channels leaves bfloat16 with two digits.
    """
    result: torch.Tensor = _RMSSiLU.apply(x_BCHW, gain_C)
    return result


class _RMSSiLU(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x_BCHW: torch.Tensor, gain_C: torch.Tensor) -> torch.Tensor:
        output_BCHW, scale_B1HW = _kernels(x_BCHW.is_cuda)[0](x_BCHW, gain_C)
        ctx.save_for_backward(x_BCHW, gain_C, scale_B1HW)
        return output_BCHW

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad_BCHW: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        x_BCHW, gain_C, scale_B1HW = ctx.saved_tensors
        return _kernels(x_BCHW.is_cuda)[1](grad_BCHW, x_BCHW, gain_C, scale_B1HW)


def _forward(x_BCHW: torch.Tensor, gain_C: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """The output and sqrt(C) / ||x||, (B, 1, H, W)."""
    wide_BCHW = x_BCHW.to(torch.promote_types(x_BCHW.dtype, torch.float32))
    norm_B1HW = torch.linalg.vector_norm(wide_BCHW, dim=1, keepdim=True).clamp_min(_LEAST_NORM)
    scale_B1HW = x_BCHW.shape[1] ** 0.5 / norm_B1HW
    scaled_BCHW = (wide_BCHW * scale_B1HW).mul_(gain_C.to(wide_BCHW.dtype).view(1, -1, 1, 1))
    return F.silu(scaled_BCHW, inplace=True).to(x_BCHW.dtype), scale_B1HW


def _backward(
    grad_BCHW: torch.Tensor, x_BCHW: torch.Tensor, gain_C: torch.Tensor, scale_B1HW: torch.Tensor
) -> tuple[torch.Tensor, torch.Tensor]:
    """Gradients of x and of the gain, in place where it can be: fresh memory costs a CPU more than the arithmetic.

    With n = x scale and y = n gain, and because the mean of n^2 is 1: dx = scale (dn - n mean_C(n dn)).
    """
    wide = scale_B1HW.dtype
    gain_1C11 = gain_C.to(wide).view(1, -1, 1, 1)
    normed_BCHW = x_BCHW.to(wide) * scale_B1HW
    grad_BCHW = torch.ops.aten.silu_backward(grad_BCHW.to(wide), normed_BCHW * gain_1C11)  # of y
    along_BCHW = grad_BCHW * normed_BCHW
    grad_gain_C = along_BCHW.sum((0, 2, 3))
    along_B1HW = along_BCHW.mul_(gain_1C11).mean(1, keepdim=True)
    grad_x_BCHW = grad_BCHW.mul_(gain_1C11).sub_(normed_BCHW.mul_(along_B1HW)).mul_(scale_B1HW)
    return grad_x_BCHW.to(x_BCHW.dtype), grad_gain_C.to(gain_C.dtype)


@functools.cache
def _kernels(on_gpu: bool) -> tuple[Callable[..., Any], Callable[..., Any]]:
    """Forward and backward: compiled for GPUs where Triton is at hand, one kernel for all shapes; eager elsewhere."""
    if on_gpu and importlib.util.find_spec("triton") is not None:
        return torch.compile(_forward, dynamic=True), torch.compile(_backward, dynamic=True)
    return _forward, _backward
