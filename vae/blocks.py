"""The pieces of the autoencoder: 3x3 convolutions, norms of single pixels, and reshapes without parameters.

Legend: B batch, C channels, H W pixels of the feature map.
"""

import torch
import torch.nn.functional as F
from torch import nn

from vae.fused import rms_silu


class PixelRMSNormSiLU(nn.Module):
    """`rms_silu` with a gain per channel; each pixel on its own, so tiles stay exact."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.gamma = nn.Parameter(torch.ones(channels))

    def forward(self, x_BCHW: torch.Tensor) -> torch.Tensor:
        return rms_silu(x_BCHW, self.gamma)


class ResBlock(nn.Module):
    """RMS, SiLU, conv3x3, RMS, SiLU, conv3x3, plus the input (by a 1x1 convolution when the widths differ)."""

    def __init__(self, in_channels: int, out_channels: int) -> None:
        super().__init__()
        self.norm1 = PixelRMSNormSiLU(in_channels)
        self.conv1 = nn.Conv2d(in_channels, out_channels, 3, padding=1)
        self.norm2 = PixelRMSNormSiLU(out_channels)
        self.conv2 = nn.Conv2d(out_channels, out_channels, 3, padding=1)
        self.shortcut = nn.Identity() if in_channels == out_channels else nn.Conv2d(in_channels, out_channels, 1)

    def forward(self, x_BCHW: torch.Tensor) -> torch.Tensor:
        h_BCHW = self.conv1(self.norm1(x_BCHW))
        h_BCHW = self.conv2(self.norm2(h_BCHW))
        return self.shortcut(x_BCHW) + h_BCHW


class Downsample(nn.Module):
    """Halve height and width: one zero row and column after the end, then a 3x3 convolution of stride 2."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.conv = nn.Conv2d(channels, channels, 3, stride=2)

    def forward(self, x_BCHW: torch.Tensor) -> torch.Tensor:
        return self.conv(F.pad(x_BCHW, (0, 1, 0, 1)))


class Upsample(nn.Module):
    """Double height and width: nearest neighbour, then a 3x3 convolution, as one transposed convolution."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.conv = nn.Conv2d(channels, channels, 3, padding=1)

    def forward(self, x_BCHW: torch.Tensor) -> torch.Tensor:
        weight_IO44 = fold_nearest(self.conv.weight)
        return F.conv_transpose2d(x_BCHW, weight_IO44, self.conv.bias, stride=2, padding=1)


def fold_nearest(weight_OI33: torch.Tensor) -> torch.Tensor:
    """4x4 weights of the transposed convolution of stride 2 that equals nearest x2 and then these 3x3 weights.

    Each of the four phases of the result sees 2 x 2 pixels of the input, of which the 3x3 window shows some twice: 16
    multiplications a pixel of the input instead of 36, and the doubled map is never written.
    """
    for axis in (2, 3):
        first, middle, last = weight_OI33.unbind(axis)
        weight_OI33 = torch.stack((last, middle + last, first + middle, first), axis)
    return weight_OI33.transpose(0, 1)


def space_to_channel_mean(x_BCHW: torch.Tensor, factor: int, out_channels: int) -> torch.Tensor:
    """Fold `factor` x `factor` pixels into channels and average groups of neighbours down to `out_channels`.

    Raises ValueError when C * factor^2 is no multiple of `out_channels`.
    """
    folded = F.pixel_unshuffle(x_BCHW, factor) if factor > 1 else x_BCHW
    if folded.shape[1] % out_channels:
        raise ValueError(f"{folded.shape[1]} folded channels do not divide into {out_channels} groups")
    if folded.shape[1] == out_channels:
        return folded
    return folded.unflatten(1, (out_channels, -1)).mean(dim=2)


def channel_duplicate_to_space(x_BCHW: torch.Tensor, factor: int, out_channels: int) -> torch.Tensor:
    """The mirror of `space_to_channel_mean`: repeat each channel, then unfold channels into `factor` x `factor` pixels.

    Raises ValueError when `out_channels` * factor^2 is no multiple of C.
    """
    repeats, rest = divmod(out_channels * factor * factor, x_BCHW.shape[1])
    if rest:
        raise ValueError(
            f"{out_channels} channels of {factor}x{factor} pixels cannot be filled from {x_BCHW.shape[1]} channels"
        )
    repeated = x_BCHW.repeat_interleave(repeats, dim=1)
    return F.pixel_shuffle(repeated, factor) if factor > 1 else repeated


class EncoderLevel(nn.Module):
    """Residual blocks at one resolution, then a downsampling (all but the last level).

    With `local_skip` the level's input, folded and averaged, is added to its output (LSC; DC-AE's shortcut). Raises
    ValueError when it cannot be divided into the features of the level.
    """

    def __init__(self, in_channels: int, out_channels: int, blocks: int, *, down: bool, local_skip: bool) -> None:
        super().__init__()
        if local_skip and in_channels * (4 if down else 1) % out_channels:
            raise ValueError(f"skip lsc: {in_channels} features cannot be folded into the {out_channels} of a level")
        self.blocks = nn.ModuleList(
            ResBlock(in_channels if i == 0 else out_channels, out_channels) for i in range(blocks)
        )
        self.down = Downsample(out_channels) if down else None
        self.out_channels = out_channels
        self.local_skip = local_skip

    def forward(self, x_BCHW: torch.Tensor) -> torch.Tensor:
        h_BCHW = x_BCHW
        for block in self.blocks:
            h_BCHW = block(h_BCHW)
        if self.down is not None:
            h_BCHW = self.down(h_BCHW)
        if self.local_skip:
            h_BCHW = h_BCHW + space_to_channel_mean(x_BCHW, 1 if self.down is None else 2, self.out_channels)
        return h_BCHW


class DecoderLevel(nn.Module):
    """Residual blocks at one resolution, then an upsampling (all but the last level).

    With `local_skip` the level's input, repeated and unfolded, is added to its output (LSC), except on the last level.
    Raises ValueError when it does not divide into that.
    """

    def __init__(self, in_channels: int, out_channels: int, blocks: int, *, up: bool, local_skip: bool) -> None:
        super().__init__()
        if local_skip and up and out_channels * 4 % in_channels:
            raise ValueError(f"skip lsc: {in_channels} features cannot be unfolded into the {out_channels} of a level")
        self.blocks = nn.ModuleList(
            ResBlock(in_channels if i == 0 else out_channels, out_channels) for i in range(blocks)
        )
        self.up = Upsample(out_channels) if up else None
        self.out_channels = out_channels
        self.local_skip = local_skip and up

    def forward(self, x_BCHW: torch.Tensor) -> torch.Tensor:
        h_BCHW = x_BCHW
        for block in self.blocks:
            h_BCHW = block(h_BCHW)
        if self.up is not None:
            h_BCHW = self.up(h_BCHW)
        if self.local_skip:
            h_BCHW = h_BCHW + channel_duplicate_to_space(x_BCHW, 2, self.out_channels)
        return h_BCHW
