"""VTP's folder opened here gives what its published code gives, and a folder of something else is one sentence."""

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import save_file

from fonts_manifest.errors import BadInput
from vae.codecs import VTPCodec, open_codec
from vae.vtp import load_vtp

PLAIN = {
    "model_type": "vtp",
    "train_reconstruction": True,
    "train_clip": True,
    "vision_patch_size": 16,
    "vision_embed_dim": 32,
    "vision_depth": 2,
    "vision_num_heads": 2,
    "vision_ffn_layer": "swiglu",
    "vision_norm_layer": "rmsnorm",
    "vision_init_values": None,
    "vision_feature_bottleneck": 6,
    "decoder_embed_dim": 24,
    "decoder_depth": 2,
    "decoder_num_heads": 2,
    "decoder_ffn_layer": "swiglu",
    "decoder_norm_layer": "layernorm",
    "decoder_init_values": None,
}
OTHER = PLAIN | {
    "vision_ffn_layer": "mlp",
    "vision_norm_layer": "layernorm",
    "vision_init_values": 1e-5,
    "vision_use_qk_norm": True,
    "decoder_ffn_layer": "swiglu64",
    "decoder_norm_layer": "rmsnorm",
    "decoder_init_values": 0.1,
    "decoder_use_qk_norm": True,
}

# Of MiniMax-AI/VTP at 2026-04-15 (VTPModel.get_reconstruction_latents, get_latents_decoded_images, ImageNet's
# normalisation taken back), with the weights of `filled`: every 17th number of the latents, every 1999th of pictures.
PUBLISHED = [
    (PLAIN, 64, [1.28032, -0.66665, -0.89204, 0.44869, -0.65046], [-0.62853, -0.732, -0.26553, 0.05738, -0.42055]),
    (OTHER, 76, [0.04347, -1.66127, 0.93493, -3.19334, 1.7096], [-0.29315, -0.37425, 0.27117, -0.01369, -0.21474]),
]


def shapes(config: dict[str, object]) -> dict[str, tuple[int, ...]]:
    """Names and shapes of VTP's weights, written down from its published code."""
    found: dict[str, tuple[int, ...]] = {}
    for part, side, ratio in (("trunk", "vision", 4), ("pixel_decoder", "decoder", 4)):
        width, heads = int(config[f"{side}_embed_dim"]), int(config[f"{side}_num_heads"])
        norm_bias, ffn = config[f"{side}_norm_layer"] == "layernorm", str(config[f"{side}_ffn_layer"])
        for block in range(int(config[f"{side}_depth"])):
            name = f"{part}.blocks.{block}"
            layers = {"attn.qkv": (3 * width, width), "attn.proj": (width, width)}
            if ffn == "mlp":
                layers |= {"mlp.fc1": (ratio * width, width), "mlp.fc2": (width, ratio * width)}
            else:
                step = int(ffn[6:] or 8)
                hidden = -(-int(ratio * width * 2 / 3) // step) * step
                layers |= {"mlp.w1": (hidden, width), "mlp.w2": (hidden, width), "mlp.w3": (width, hidden)}
            for layer, shape in layers.items():
                found |= {f"{name}.{layer}.weight": shape, f"{name}.{layer}.bias": shape[:1]}
            for norm in ("norm1", "norm2"):
                found |= {f"{name}.{norm}.weight": (width,)} | ({f"{name}.{norm}.bias": (width,)} if norm_bias else {})
            if config.get(f"{side}_use_qk_norm"):
                found |= {f"{name}.attn.{norm}.weight": (width // heads,) for norm in ("q_norm", "k_norm")}
            if config[f"{side}_init_values"] is not None:
                found |= {f"{name}.{scale}.gamma": (width,) for scale in ("ls1", "ls2")}
        found |= {f"{part}.norm.weight": (width,)} | ({f"{part}.norm.bias": (width,)} if norm_bias else {})
    wide, tall, narrow = (
        int(config[k]) for k in ("vision_embed_dim", "decoder_embed_dim", "vision_feature_bottleneck")
    )
    return found | {
        "trunk.patch_embed.proj.weight": (wide, 3, 16, 16),
        "trunk.patch_embed.proj.bias": (wide,),
        "trunk.cls_token": (1, 1, wide),
        "trunk.mask_token": (1, wide),
        "trunk.feature_bottleneck.weight": (narrow, wide),
        "pixel_decoder.proj_in.weight": (tall, narrow, 1, 1),
        "pixel_decoder.proj_in.bias": (tall,),
        "pixel_decoder.proj_out.weight": (768, tall, 1, 1),
        "pixel_decoder.proj_out.bias": (768,),
    }


def filled(config: dict[str, object]) -> dict[str, torch.Tensor]:
    return {
        name: torch.from_numpy(np.random.RandomState(number).normal(0, 0.4, shape)).float()
        for number, (name, shape) in enumerate(sorted(shapes(config).items()))
    }


def save(folder: Path, config: dict[str, object], weights: dict[str, torch.Tensor]) -> Path:
    periods = {"trunk": 16, "pixel_decoder": 12}
    buffers = {
        f"{part}.rope_embed.periods": 100 ** (2 * torch.arange(width // 4, dtype=torch.bfloat16) / (width // 2))
        for part, width in periods.items()
    }
    save_file(weights | buffers | {"visual_proj.weight": torch.zeros(3, 3)}, folder / "model.safetensors")
    (folder / "config.json").write_text(json.dumps(config))
    return folder


@pytest.mark.parametrize(("config", "count", "latents", "pixels"), PUBLISHED)
def test_it_gives_what_the_published_code_gives(
    config: dict[str, object], count: int, latents: list[float], pixels: list[float], tmp_path: Path
) -> None:
    weights = filled(config)
    assert len(weights) == count
    model = load_vtp(save(tmp_path, config, weights)).eval()
    image = torch.from_numpy(np.random.RandomState(99).uniform(-1, 1, (2, 3, 32, 48))).float()
    with torch.no_grad():
        latent = model.encode(image).latent
        output = model.decode(latent).sample
    assert latent.shape == (2, 6, 2, 3)
    assert output.shape == image.shape
    torch.testing.assert_close(latent.flatten()[::17][:5], torch.tensor(latents), atol=2e-5, rtol=1e-4)
    torch.testing.assert_close(output.flatten()[::1999][:5], torch.tensor(pixels), atol=2e-5, rtol=1e-4)


def test_it_stands_on_the_leaderboard(tmp_path: Path) -> None:
    save(tmp_path, PLAIN, filled(PLAIN))
    codec = open_codec(VTPCodec(kind="vtp", name="VTP", path=tmp_path))
    pictures = np.random.default_rng(0).integers(0, 256, (2, 32, 32, 3), dtype=np.uint8)
    assert codec.reconstruct(pictures).shape == pictures.shape
    facts = codec.facts(32)
    assert (facts.compression, facts.channels, codec.multiple) == (16, 6, 16)
    sizes = {part: sum(int(np.prod(s)) for n, s in shapes(PLAIN).items() if n.startswith(part)) for part in ("t", "p")}
    assert (facts.encoder_params, facts.decoder_params) == (sizes["t"] - 32, sizes["p"])  # without the mask token


def test_a_folder_of_something_else_is_one_sentence(tmp_path: Path) -> None:
    with pytest.raises(BadInput, match=r"holds no config\.json of a VTP"):
        load_vtp(tmp_path)
    save(tmp_path, PLAIN | {"train_reconstruction": False}, filled(PLAIN))
    with pytest.raises(BadInput, match=r"of a VTP that reconstructs .*train_reconstruction"):
        load_vtp(tmp_path)
    save(tmp_path, PLAIN | {"vision_depth": 3}, filled(PLAIN))
    with pytest.raises(BadInput, match=r"weights and config\.json disagree"):
        load_vtp(tmp_path)
    (tmp_path / "model.safetensors").write_bytes(b"no weights")
    with pytest.raises(BadInput, match="cannot be read"):
        load_vtp(tmp_path)
