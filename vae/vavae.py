"""VA-VAE as LightningDiT publishes it: one checkpoint of the LDM autoencoder, opened as diffusers' AutoencoderKL"""

import pickle
from collections.abc import Mapping
from pathlib import Path

import torch
from torch import nn

from fonts_manifest.errors import BadInput

_PARTS = ("encoder.", "decoder.", "quant_conv.", "post_quant_conv.")
_LEVELS = 5
_NAMES = (
    (".nin_shortcut.", ".conv_shortcut."),
    (".downsample.conv.", ".downsamplers.0.conv."),
    (".upsample.conv.", ".upsamplers.0.conv."),
    (".mid.block_1.", ".mid_block.resnets.0."),
    (".mid.block_2.", ".mid_block.resnets.1."),
    (".mid.attn_1.", ".mid_block.attentions.0."),
    (".norm_out.", ".conv_norm_out."),
    (".block.", ".resnets."),
    (".attn.", ".attentions."),
)
_ATTENTION = ((".norm.", ".group_norm."), (".q.", ".to_q."), (".k.", ".to_k."), (".v.", ".to_v."))


def load_vavae(path: Path) -> nn.Module:
    """VA-VAE's checkpoint as diffusers' AutoencoderKL: the same layers under other names, attention in 1x1 convolutions
    as linear maps. Raises BadInput."""
    from diffusers import AutoencoderKL

    try:
        state = torch.load(path, map_location="cpu", weights_only=True)
    except (OSError, RuntimeError, ValueError, EOFError, pickle.UnpicklingError) as error:
        raise BadInput(f"{path}: cannot be read as a checkpoint ({str(error).splitlines()[0]})") from error
    state = state.get("state_dict", state)
    weights = {_key(key): value for key, value in state.items() if key.startswith(_PARTS)}
    if "encoder.conv_in.weight" not in weights:
        raise BadInput(f"{path}: holds no LDM autoencoder (encoder.conv_in.weight is missing)")
    widths = _widths(weights)
    attends = [f"encoder.down_blocks.{level}.attentions.0.to_q.weight" in weights for level in range(len(widths))]
    model = AutoencoderKL(
        latent_channels=weights["decoder.conv_in.weight"].shape[1],
        block_out_channels=tuple(widths),
        layers_per_block=2,
        down_block_types=tuple("AttnDownEncoderBlock2D" if has else "DownEncoderBlock2D" for has in attends),
        up_block_types=tuple("AttnUpDecoderBlock2D" if has else "UpDecoderBlock2D" for has in reversed(attends)),
    )
    own = model.state_dict()
    missing = own.keys() - weights.keys()
    if missing or any(value.numel() != own[key].numel() for key, value in weights.items() if key in own):
        raise BadInput(f"{path}: is another autoencoder than VA-VAE's ({len(missing)} weights are missing)")
    model.load_state_dict({key: weights[key].reshape(own[key].shape) for key in own})
    return model


def _key(key: str) -> str:
    """A name of the LDM autoencoder as diffusers says it; levels of the decoder count from the other end."""
    parts = key.split(".")
    if parts[1] == "down":
        parts[1] = "down_blocks"
    elif parts[1] == "up":
        parts[1:3] = ["up_blocks", str(_LEVELS - 1 - int(parts[2]))]
    name = ".".join(parts)
    for theirs, ours in _NAMES:
        name = name.replace(theirs, ours)
    if ".attentions." in name:
        for theirs, ours in (*_ATTENTION, (".proj_out.", ".to_out.0.")):
            name = name.replace(theirs, ours)
    return name


def _widths(weights: Mapping[str, torch.Tensor]) -> list[int]:
    keys = (f"encoder.down_blocks.{level}.resnets.0.conv1.weight" for level in range(_LEVELS))
    return [int(weights[key].shape[0]) for key in keys if key in weights]
