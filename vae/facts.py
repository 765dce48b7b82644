"""What can be said of a model before it is trained: counts, cost, memory, receptive field.

All of it is computed on torch's meta device: shapes without numbers, in a second and without memory.

Legend: B batch, C latent channels, H W pixels, h w latent cells.
"""

from collections.abc import Callable
from typing import Any

import torch
from torch import nn
from torch.multiprocessing.reductions import StorageWeakRef
from torch.utils.flop_counter import FlopCounterMode, conv_flop_count

from vae.family import GSCConfig, build_model, model_config
from vae.model import GSCAutoencoder

SIZES_PX = (256, 1024)


def describe_model(name: str, sizes_px: tuple[int, ...] = SIZES_PX) -> dict[str, Any]:
    """What can be said of a member of the family, flat, for tables and JSON.

    Keys: name, compression, latent_channels, encoder_params, decoder_params; encode_receptive_field_px (side of the
    square of pixels that a latent cell sees), decode_receptive_field_cells (the cells that a pixel sees); encode_halo
    and decode_halo (cells of context that a tile needs); and for each size of a square picture encode_tflop_{px} and
    decode_tflop_{px} (a multiplication and an addition are two; of the architecture as it is written),
    decode_run_tflop_{px} (as it runs, upsampling folded) and saved_gib_{px} (activations that a training step keeps for
    the backward pass, GiB a picture in bfloat16). Raises BadInput for an unknown name.
    """
    config = model_config(name)
    model = shape_only(config)
    facts: dict[str, Any] = {
        "name": name,
        "compression": model.compression,
        "latent_channels": config.latent_channels,
        "encoder_params": sum(p.numel() for p in model.encoder.parameters()),
        "decoder_params": sum(p.numel() for p in model.decoder.parameters()),
        "encode_receptive_field_px": encode_receptive_field_px(config),
        "decode_receptive_field_cells": decode_receptive_field_cells(config),
        "encode_halo": model.encode_halo,
        "decode_halo": model.decode_halo,
    }
    for size in sizes_px:
        image = torch.empty(1, 3, size, size, device="meta")
        cells = size // model.compression
        latent = torch.empty(1, config.latent_channels, cells, cells, device="meta")
        facts[f"encode_tflop_{size}"] = tflop(model.encode, image, as_written=True)
        facts[f"decode_tflop_{size}"] = tflop(model.decode, latent, as_written=True)
        facts[f"decode_run_tflop_{size}"] = tflop(model.decode, latent)
    model = model.bfloat16().train()
    for size in sizes_px:
        facts[f"saved_gib_{size}"] = saved_bytes_per_picture(model, size) / 2**30
    return facts


def shape_only(config: GSCConfig) -> GSCAutoencoder:
    """The model without memory. Raises BadInput when the shape cannot be built."""
    with torch.device("meta"):
        return build_model(config).to("meta")  # the bases come from NumPy, which the context leaves alone


def tflop(function: Callable[[torch.Tensor], object], argument: torch.Tensor, *, as_written: bool = False) -> float:
    """10^12 operations of the convolutions and products in a call.

    as_written: upsampling counts as nearest neighbour and a 3x3 convolution, not as the transposed one that runs.
    """
    written = {torch.ops.aten.convolution: _flop_as_written} if as_written else {}
    with FlopCounterMode(display=False, custom_mapping=written) as counter, torch.no_grad():
        function(argument)
    return counter.get_total_flops() / 1e12


def _flop_as_written(
    x: torch.Size,
    weight: torch.Size,
    bias: object,
    stride: object,
    padding: object,
    dilation: object,
    transposed: bool,
    *rest: object,
    out_shape: torch.Size,
    **more: object,
) -> int:
    if transposed:  # 4x4 weights over the input stand for 3x3 over an output of four times its size
        return 2 * out_shape.numel() * weight[0] * 9
    return conv_flop_count(list(x), list(weight), list(out_shape))


def saved_bytes_per_picture(model: nn.Module, size_px: int) -> int:
    """What one more square picture makes a training step of a diffusers autoencoder keep for its backward pass.

    In the model's dtype, and on its device: on the meta device nothing is computed.
    """
    weight = next(model.parameters())
    one, two = (torch.empty(n, 3, size_px, size_px, device=weight.device, dtype=weight.dtype) for n in (1, 2))
    return saved_bytes(model, two) - saved_bytes(model, one)


def saved_bytes(model: nn.Module, images_B3HW: torch.Tensor) -> int:
    """What a forward pass of a diffusers autoencoder makes autograd keep, every block of memory once and whole."""
    kept: dict[StorageWeakRef, int] = {}

    def keep(tensor: torch.Tensor) -> torch.Tensor:
        storage = tensor.untyped_storage()
        kept[StorageWeakRef(storage)] = storage.nbytes()
        return tensor.detach()  # itself, when it is a result, would keep its own graph alive

    with torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor):
        output = model(images_B3HW).sample
    still_kept = sum(size for storage, size in kept.items() if not storage.expired())
    del output  # holds the graph, and so what is kept
    return still_kept


def encode_receptive_field_px(config: GSCConfig) -> int:
    """Side of the square of pixels that reaches a latent cell through the network."""
    levels, blocks = len(config.encoder_widths), config.encoder_blocks
    low = high = 0
    reach = 1 + 2 * 2  # conv_out and the middle blocks
    for level in reversed(range(levels)):
        reach += 2 * blocks
        low, high, reach = low - reach, high + reach, 0
        if level:
            low, high = 2 * low, 2 * high + 2  # a stride-2 convolution that looks to the right
    return high - low + 1 + 2  # conv_in


def decode_receptive_field_cells(config: GSCConfig) -> int:
    """Side of the square of latent cells that reach a pixel, for the pixel of a cell that sees most."""
    levels, blocks = len(config.decoder_widths), config.decoder_blocks
    widest = 0
    for pixel in range(2 ** (levels - 1)):
        low, high = pixel - 1, pixel + 1  # conv_out
        for level in range(levels):
            low, high = low - 2 * blocks, high + 2 * blocks
            if level < levels - 1:
                low, high = (low - 1) // 2, (high + 1) // 2
        widest = max(widest, high - low + 1 + 2 * (2 * 2 + 1))  # the middle blocks and conv_in
    return widest
