"""Codecs of the leaderboard: the classes behind the paper's baselines with tiny random weights, files, linear maps."""

import io
from pathlib import Path

import diffusers
import numpy as np
import pytest
import skimage.data
import torch
from PIL import Image
from pydantic import TypeAdapter

from fonts_manifest.errors import BadInput
from vae.codecs import CodecConfig, DiffusersCodec, fit_file, names_of, open_codec
from vae.vavae import load_vavae

BLOCK = {"down_block_types": ("DownEncoderBlock2D",) * 2, "up_block_types": ("UpDecoderBlock2D",) * 2}
KL = {**BLOCK, "block_out_channels": (8, 8), "layers_per_block": 1, "norm_num_groups": 4}
QWEN = {
    "base_dim": 8,
    "z_dim": 4,
    "dim_mult": [1, 1, 1, 1],
    "num_res_blocks": 1,
    "temperal_downsample": [False, True, True],
}
TINY = {
    "AutoencoderKL": (KL | {"latent_channels": 4}, 2, 4),
    "AutoencoderKLFlux2": (KL | {"latent_channels": 4, "patch_size": (2, 2)}, 2, 4),
    "AutoencoderDC": (
        {
            "latent_channels": 8,
            "attention_head_dim": 4,
            "encoder_block_types": ("ResBlock", "ResBlock"),
            "decoder_block_types": ("ResBlock", "ResBlock"),
            "encoder_block_out_channels": (8, 16),
            "decoder_block_out_channels": (8, 16),
            "encoder_layers_per_block": (1, 1),
            "decoder_layers_per_block": (1, 1),
            "encoder_qkv_multiscales": ((), ()),
            "decoder_qkv_multiscales": ((), ()),
            "upsample_block_type": "interpolate",
            "downsample_block_type": "stride_conv",
        },
        2,
        8,
    ),
    "AutoencoderKLWan": (QWEN, 8, 4),
    "AutoencoderKLQwenImage": (QWEN, 8, 4),
    "AutoencoderKLQwenImage21": (QWEN, 8, 4),
    "AutoencoderKLHunyuanVideo": (
        {
            "latent_channels": 4,
            "block_out_channels": (8, 8, 8, 8),
            "layers_per_block": 1,
            "norm_num_groups": 4,
        },
        8,
        4,
    ),
    "AutoencoderKLHunyuanImage": (
        {
            "in_channels": 3,
            "out_channels": 3,
            "latent_channels": 8,
            "block_out_channels": (32, 32),
            "layers_per_block": 1,
            "spatial_compression_ratio": 2,
            "sample_size": 32,
        },
        2,
        8,
    ),
    "AutoencoderKLCosmos": (
        {
            "latent_channels": 4,
            "encoder_block_out_channels": (8, 8, 8, 8),
            "decode_block_out_channels": (8, 8, 8, 8),
            "attention_resolutions": (8,),
            "resolution": 64,
            "num_layers": 1,
        },
        8,
        4,
    ),
    "AutoencoderKLLTXVideo": (
        {
            "latent_channels": 8,
            "block_out_channels": (8, 8, 8, 8),
            "decoder_block_out_channels": (8, 8, 8, 8),
            "layers_per_block": (1, 1, 1, 1, 1),
            "decoder_layers_per_block": (1, 1, 1, 1, 1),
        },
        32,
        8,
    ),
    "AutoencoderKLLTX2Video": (
        {
            "latent_channels": 8,
            "block_out_channels": (8, 8, 8, 8),
            "decoder_block_out_channels": (8, 16, 32),
            "layers_per_block": (1, 1, 1, 1, 1),
            "decoder_layers_per_block": (1, 1, 1, 1),
        },
        32,
        8,
    ),
    "AutoencoderKLHunyuanVideo15": (
        {
            "latent_channels": 8,
            "block_out_channels": (32, 32, 64, 128, 128),
            "layers_per_block": 1,
        },
        16,
        8,
    ),
    "AutoencoderRAE": (
        {
            "encoder_hidden_size": 64,
            "encoder_num_hidden_layers": 1,
            "decoder_hidden_size": 32,
            "decoder_num_hidden_layers": 1,
            "decoder_num_attention_heads": 2,
            "decoder_intermediate_size": 32,
            "encoder_input_size": 56,
            "patch_size": 16,
            "image_size": 64,
        },
        16,
        64,
    ),
}


TINY["AutoencoderKLWan of 2.2"] = (
    QWEN | {"is_residual": True, "in_channels": 12, "out_channels": 12, "patch_size": 2, "scale_factor_spatial": 16},
    16,
    4,
)


@pytest.fixture(scope="module")
def pictures() -> np.ndarray:
    return np.stack([skimage.data.astronaut()[:64, 200:264], skimage.data.coffee()[100:164, 200:264]])


@pytest.mark.parametrize("class_name", TINY)
def test_every_class_reconstructs_pictures_of_the_size_it_was_given(
    class_name: str, pictures: np.ndarray, tmp_path: Path
) -> None:
    settings, compression, channels = TINY[class_name]
    class_name = class_name.split()[0]
    torch.manual_seed(0)
    model = getattr(diffusers, class_name)(**settings)
    model.save_pretrained(tmp_path)
    codec = open_codec(DiffusersCodec(kind="diffusers", name="x", class_name=class_name, path=tmp_path))
    outputs = codec.reconstruct(pictures)
    assert outputs.shape == pictures.shape
    assert outputs.dtype == np.uint8
    facts = codec.facts(64)
    assert (facts.compression, facts.channels) == (compression, channels)
    assert facts.encoder_params == sum(weight.numel() for weight in model.encoder.parameters())
    assert facts.decoder_params == sum(weight.numel() for weight in model.decoder.parameters())
    assert facts.encode_tflop > 0
    assert facts.decode_tflop > 0


def to_ldm(state: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """diffusers' names as the LDM autoencoder has them, by hand."""
    renamed = {}
    for key, value in state.items():
        part, _, rest = key.partition(".")
        fields = rest.split(".")
        if fields[0] == "down_blocks":
            kind = {"resnets": "block", "attentions": "attn", "downsamplers": "downsample"}[fields[2]]
            fields = ["down", fields[1], kind, *(fields[4:] if kind == "downsample" else fields[3:])]
        elif fields[0] == "up_blocks":
            kind = {"resnets": "block", "attentions": "attn", "upsamplers": "upsample"}[fields[2]]
            fields = ["up", str(4 - int(fields[1])), kind, *(fields[4:] if kind == "upsample" else fields[3:])]
        elif fields[0] == "mid_block":
            fields = ["mid", {"resnets": f"block_{int(fields[2]) + 1}", "attentions": "attn_1"}[fields[1]], *fields[3:]]
        elif fields[0] == "conv_norm_out":
            fields[0] = "norm_out"
        named = {"conv_shortcut": "nin_shortcut", "group_norm": "norm", "to_q": "q", "to_k": "k", "to_v": "v"}
        if "attn" in rest or "attentions" in rest:
            fields = [named.get(field, field) for field in fields]
            if "to_out" in fields:
                at = fields.index("to_out")
                fields[at : at + 2] = ["proj_out"]
            if fields[-1] == "weight" and value.ndim == 2:
                value = value[:, :, None, None]
        else:
            fields = [named.get(field, field) if field == "conv_shortcut" else field for field in fields]
        renamed[".".join([part, *fields])] = value
    return renamed


def test_a_checkpoint_of_va_vae_is_the_autoencoder_it_came_from(pictures: np.ndarray, tmp_path: Path) -> None:
    torch.manual_seed(1)
    down = ("DownEncoderBlock2D",) * 4 + ("AttnDownEncoderBlock2D",)
    up = ("AttnUpDecoderBlock2D",) + ("UpDecoderBlock2D",) * 4
    widths = (32, 32, 64, 64, 64)
    model = diffusers.AutoencoderKL(
        latent_channels=6, block_out_channels=widths, layers_per_block=2, down_block_types=down, up_block_types=up
    ).eval()
    state = to_ldm(model.state_dict())
    assert {"encoder.down.4.attn.0.q.weight", "decoder.up.4.attn.2.proj_out.weight", "quant_conv.bias"} <= state.keys()
    torch.save({"state_dict": state | {"loss.logvar": torch.zeros(1)}}, tmp_path / "vavae.pt")
    loaded = load_vavae(tmp_path / "vavae.pt").eval()
    image = torch.from_numpy(pictures).permute(0, 3, 1, 2) / 127.5 - 1
    with torch.no_grad():
        assert torch.equal(loaded(image).sample, model(image).sample)


def test_a_file_that_is_no_checkpoint_of_va_vae_is_named(tmp_path: Path) -> None:
    torch.save({"state_dict": {"encoder.x": torch.zeros(1)}}, tmp_path / "other.pt")
    with pytest.raises(BadInput, match="holds no LDM autoencoder"):
        load_vavae(tmp_path / "other.pt")
    (tmp_path / "text.pt").write_text("no checkpoint")
    with pytest.raises(BadInput, match="cannot be read as a checkpoint"):
        load_vavae(tmp_path / "text.pt")


@pytest.mark.parametrize("kind", ["jpeg", "webp", "avif"])
def test_a_format_fills_the_bits_it_is_given_and_no_more(kind: str) -> None:
    image_HW3 = np.ascontiguousarray(skimage.data.coffee()[:128, 200:328])
    sizes, errors = [], []
    for most_bytes in (1500, 3000, 6000):
        data = fit_file(image_HW3, kind, most_bytes)
        assert len(data) <= most_bytes
        sizes.append(len(data))
        output_HW3 = np.asarray(Image.open(io.BytesIO(data)).convert("RGB"))
        errors.append(np.square(output_HW3.astype(float) - image_HW3).mean())
    assert sizes[0] < sizes[1] < sizes[2]
    assert errors[0] > errors[1] > errors[2]
    assert sizes[2] > 4500


def test_the_linear_codec_is_its_skip_and_needs_pictures_for_a_pca(pictures: np.ndarray, tmp_path: Path) -> None:
    adapter = TypeAdapter(CodecConfig)
    linear = {"kind": "linear", "name": "x", "factor": 8, "channels": 192}
    codec = open_codec(adapter.validate_python(linear))
    assert np.abs(codec.reconstruct(pictures).astype(int) - pictures).max() <= 1, "192 of 192 numbers lose nothing"
    with pytest.raises(BadInput, match="a PCA needs a basis_file, or pictures to fit"):
        open_codec(adapter.validate_python(linear | {"basis": "pca"}))
    for number, picture_HW3 in enumerate(pictures):
        Image.fromarray(picture_HW3).save(tmp_path / f"{number}.png")
    few = {"channels": 12, "fit": tmp_path}
    errors = [
        np.square(
            open_codec(adapter.validate_python(linear | few | {"basis": basis})).reconstruct(pictures) - 1.0 * pictures
        )
        for basis in ("pca", "mean")
    ]
    assert errors[0].mean() < 0.5 * errors[1].mean()


def test_what_cannot_be_opened_says_so(tmp_path: Path) -> None:
    missing = DiffusersCodec(kind="diffusers", name="flux", class_name="AutoencoderKL", path=tmp_path)
    with pytest.raises(BadInput, match=r"flux: .* holds no config.json"):
        open_codec(missing)
    (tmp_path / "config.json").write_text("{}")
    with pytest.raises(BadInput, match="cannot be read as AutoencoderKL"):
        open_codec(missing)
    with pytest.raises(BadInput, match="'a' must be the only codec of that name"):
        names_of([missing.model_copy(update={"name": "a"})] * 2)
    with pytest.raises(BadInput, match="a name a folder can have"):
        names_of([missing.model_copy(update={"name": "../a"})])
