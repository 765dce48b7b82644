"""The GSC autoencoder: counts, skips, tiles, files."""

from collections.abc import Callable

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from diffusers.models.autoencoders.autoencoder_kl_qwenimage21 import QwenImage21Decoder3d, QwenImage21Encoder3d
from scipy.fft import dctn
from sklearn.decomposition import PCA
from vae_runs import stripes

from fonts_manifest.errors import BadInput
from vae.batch import to_unit_range
from vae.blocks import PixelRMSNormSiLU, Upsample, channel_duplicate_to_space, space_to_channel_mean
from vae.facts import (
    decode_receptive_field_cells,
    describe_model,
    encode_receptive_field_px,
    saved_bytes_per_picture,
    shape_only,
)
from vae.family import FAMILY, GSCConfig, build_model, f16c64, f32c192
from vae.model import GSCAutoencoder
from vae.skip import LinearSkip, cells_of, dct_basis, mean_basis, morton_order

IMAGES = to_unit_range(np.stack(stripes(3, side=64)))
MODES = ["gsc", "gsc_deep", "gsc_both", "lsc", "nsc"]


def small(**changes: object) -> GSCAutoencoder:
    """Three levels (f = 4), 12 latent channels, one block a level, weights away from their quiet start."""
    torch.manual_seed(0)
    shape = {
        "encoder_widths": (8, 16, 16),
        "decoder_widths": (8, 16, 16),
        "latent_channels": 12,
        "encoder_blocks": 1,
        "decoder_blocks": 1,
        "skip_basis": "dct",
    }
    return build_model(GSCConfig(**{**shape, **changes})).eval()  # type: ignore[arg-type]


def shaken(**changes: object) -> GSCAutoencoder:
    model = small(**changes)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(torch.randn_like(parameter) * 0.1)
    return model


@pytest.mark.parametrize(
    ("name", "encoder", "decoder"),
    [
        ("f16c64", 75_536_192, 247_750_851),
        ("f16c128", 76_421_056, 248_414_403),
        ("f32c128", 76_836_640, 249_722_643),
        ("f32c192", 77_721_504, 250_386_195),
    ],
)
def test_published_models_have_the_published_counts(name: str, encoder: int, decoder: int) -> None:
    facts = describe_model(name, sizes_px=())
    assert (facts["encoder_params"], facts["decoder_params"]) == (encoder, decoder)
    assert (facts["encode_halo"], facts["decode_halo"]) == (14, 18)


def test_a_forward_pass_costs_what_the_architecture_says() -> None:
    f16, f32 = describe_model("f16c64", (256,)), describe_model("f32c192", (1024,))
    assert f16["encode_tflop_256"] == pytest.approx(0.193, abs=5e-4)
    assert f16["decode_tflop_256"] == pytest.approx(1.057, abs=5e-4)
    assert f32["encode_tflop_1024"] == pytest.approx(1.52, abs=5e-3)
    assert f32["decode_tflop_1024"] == pytest.approx(6.98, abs=5e-3)
    # Four 2x2 phases instead of 3x3 over the doubled map save 17 % of the decoder.
    assert f16["decode_run_tflop_256"] / f16["decode_tflop_256"] == pytest.approx(0.833, abs=1e-3)


def test_a_training_step_keeps_the_inputs_of_norms_and_convolutions_alone() -> None:
    model = shape_only(
        GSCConfig(encoder_widths=(8, 16), decoder_widths=(8, 16), latent_channels=6, encoder_blocks=1)
    ).bfloat16()
    inputs: dict[int, torch.Tensor] = {}
    norms: list[torch.Tensor] = []

    def note(module: torch.nn.Module, arguments: tuple[torch.Tensor, ...], _: torch.Tensor) -> None:
        inputs[id(arguments[0])] = arguments[0]
        norms.extend(arguments if isinstance(module, PixelRMSNormSiLU) else ())

    for module in model.modules():
        if isinstance(module, torch.nn.Conv2d | PixelRMSNormSiLU | Upsample):
            module.register_forward_hook(note)
    picture = torch.empty(1, 3, 64, 64, device="meta", dtype=torch.bfloat16)
    model(picture)
    maps = 2 * sum(x.numel() for x in inputs.values())
    scales = 4 * sum(x[:, 0].numel() for x in norms)  # float32, one a pixel
    distribution = 2 * 6 * 32 * 32  # of which the latents are the first half
    assert saved_bytes_per_picture(model, 64) == maps + scales + distribution
    assert describe_model("f16c64", (256,))["saved_gib_256"] == pytest.approx(0.718, abs=1e-3)


def test_receptive_fields_are_those_that_gradients_reach() -> None:
    config = GSCConfig(
        encoder_widths=(4, 4, 4), decoder_widths=(4, 4, 4), latent_channels=12, encoder_blocks=1, decoder_blocks=2,
        skip="nsc",
    )  # fmt: skip
    model = shaken(**config.model_dump(include=config.model_fields_set)).double()
    cells, middle = 64, 32

    def reached(function: Callable[[torch.Tensor], torch.Tensor], x: torch.Tensor, at: int) -> int:
        x.requires_grad_()
        function(x)[..., at].abs().sum().backward()
        assert x.grad is not None
        columns = x.grad.abs().sum((0, 1, 2)).nonzero().flatten()
        return int(columns.max() - columns.min()) + 1

    pixels = torch.rand(1, 3, 4, 4 * cells, dtype=torch.float64)
    assert reached(model._encode, pixels, middle) == encode_receptive_field_px(config)
    latents = torch.rand(1, 12, 1, cells, dtype=torch.float64)
    widest = max(reached(model._decode, latents.detach().clone(), 4 * middle + phase) for phase in range(4))
    assert widest == decode_receptive_field_cells(config)
    assert (encode_receptive_field_px(f16c64()), encode_receptive_field_px(f32c192())) == (441, 889)


@pytest.mark.parametrize("mode", MODES)
def test_skips_and_their_mirror_have_no_parameters(mode: str) -> None:
    def count(model: GSCAutoencoder) -> int:
        return sum(p.numel() for p in model.parameters())

    assert count(small(skip=mode)) == count(small(skip="nsc"))
    if mode.startswith("gsc"):
        assert count(small(skip=mode, decoder_mirror=True)) == count(small(skip="nsc"))


def test_an_unknown_model_is_named() -> None:
    with pytest.raises(BadInput, match="no model is called 'f8c4'; there are f16c64"):
        describe_model("f8c4")


def test_every_member_of_the_family_is_described() -> None:
    assert {describe_model(name, ())["compression"] for name in FAMILY} == {16, 32}


@pytest.mark.parametrize(("factor", "channels"), [(16, 64), (16, 128), (32, 128), (32, 192)])
def test_mean_basis_is_the_papers_group_mean(factor: int, channels: int) -> None:
    skip = LinearSkip(factor, channels, "mean")
    x = torch.randn(1, 3, 2 * factor, factor)
    group = 3 * factor * factor // channels
    literal = F.pixel_unshuffle(x, factor).reshape(1, channels, group, 2, 1).mean(2)
    torch.testing.assert_close(skip.encode(x), literal, atol=1e-6, rtol=0)
    mirror = F.pixel_shuffle(literal.repeat_interleave(group, dim=1), factor)
    torch.testing.assert_close(skip.decode(literal), mirror, atol=1e-5, rtol=0)


def test_morton_order_walks_the_z_curve() -> None:
    assert morton_order(4).tolist() == [0, 1, 4, 5, 2, 3, 6, 7, 8, 9, 12, 13, 10, 11, 14, 15]
    assert sorted(morton_order(32).tolist()) == list(range(1024))
    # 12 pixels of a 16-px cell: rasters group most of a row, the Z curve a compact patch.
    first = mean_basis(16, 64, "morton")[0].nonzero()[0]
    assert {int(i) // 16 for i in first} == {0, 1, 2, 3}


def test_dct_basis_is_scipys_transform() -> None:
    rows, _ = dct_basis(8, 64)
    np.testing.assert_allclose(rows @ rows.T, np.eye(64), atol=1e-5)
    x = np.random.default_rng(0).normal(size=(3, 8, 8)).astype(np.float32)
    got = rows @ x.ravel()
    grey = dctn(x.sum(0) / np.sqrt(3), norm="ortho")
    # 56 grey rows from the lowest radius on, then 4 for each chroma axis.
    np.testing.assert_allclose(got[:3], [grey[0, 0], grey[0, 1], grey[1, 0]], atol=1e-5)
    radius = np.add.outer(np.arange(8) ** 2, np.arange(8) ** 2).ravel()
    kept = np.argsort(radius, kind="stable")[:56]
    np.testing.assert_allclose((got[:56] ** 2).sum(), (grey.ravel()[kept] ** 2).sum(), rtol=1e-3)
    np.testing.assert_allclose(got[56], dctn((x[0] - x[2]) / np.sqrt(2), norm="ortho")[0, 0], rtol=1e-4)


def test_complete_bases_lose_nothing() -> None:
    for basis in ("mean", "dct"):
        skip = LinearSkip(4, 48, basis)  # type: ignore[arg-type]
        torch.testing.assert_close(skip.decode(skip.encode(IMAGES)), IMAGES, atol=1e-5, rtol=0)


def test_pca_basis_spans_what_sklearn_finds() -> None:
    skip = LinearSkip(4, 10, "pca")
    skip.fit(IMAGES)
    cells = cells_of(IMAGES, 4)
    ours = skip.decode(skip.encode(IMAGES))
    oracle = PCA(10, svd_solver="full").fit(cells)
    theirs = oracle.inverse_transform(oracle.transform(cells))
    np.testing.assert_allclose(cells_of(ours, 4), theirs, atol=2e-4)
    np.testing.assert_allclose(skip.encode(IMAGES).std((0, 2, 3)).numpy(), 1, atol=2e-2)


@pytest.mark.parametrize(("skip", "basis"), [("gsc", "mean"), ("gsc", "dct"), ("gsc_both", "dct"), ("gsc_both", "pca")])
def test_training_starts_at_the_bare_skip(skip: str, basis: str) -> None:
    model = small(skip=skip, skip_basis=basis, decoder_mirror=True, decoder_widths=(8, 16, 48))
    if basis == "pca":
        model.fit_skip(IMAGES)
    assert model.linear_skip is not None
    bare = model.linear_skip.decode(model.linear_skip.encode(IMAGES))
    with torch.no_grad():
        error = (model(IMAGES).sample - bare).abs().max()
    assert 0 < error < 0.01  # the encoder starts at a thousandth, not in the saddle at zero


def test_the_start_has_a_gradient_in_the_encoder() -> None:
    model = small(skip="gsc_both", decoder_mirror=True)
    F.mse_loss(model(IMAGES).sample, IMAGES).backward()
    assert model.encoder.conv_out.weight.grad is not None
    assert model.encoder.conv_out.weight.grad[:12].abs().max() > 0
    # The second half of the encoder's output is not used: no KL.
    assert model.encoder.conv_out.weight.grad[12:].abs().max() == 0


def test_latents_are_the_encoders_mean_plus_the_skip() -> None:
    model = shaken(skip="gsc")
    with torch.no_grad():
        z = model.encode(IMAGES).latent_dist
        assert model.linear_skip is not None
        expected = model.encoder(IMAGES)[:, :12] + model.linear_skip.encode(IMAGES)
    torch.testing.assert_close(z.mode(), expected)
    torch.testing.assert_close(z.sample(), z.mode())
    assert z.mode().shape == (3, 12, 16, 16)


def test_local_shortcuts_average_and_duplicate() -> None:
    x = torch.arange(8.0).view(1, 2, 2, 2)
    # 2 channels x 4 pixels into 4: pairs of neighbours of one channel.
    assert space_to_channel_mean(x, 2, 4).flatten().tolist() == [0.5, 2.5, 4.5, 6.5]
    up = channel_duplicate_to_space(torch.tensor([1.0, 2.0]).view(1, 2, 1, 1), 2, 1)
    assert up.flatten().tolist() == [1, 1, 2, 2]
    with pytest.raises(ValueError, match="8 folded channels do not divide into 3"):
        space_to_channel_mean(x, 2, 3)


def test_lsc_is_diffusers_residual_autoencoder_without_attention() -> None:
    torch.manual_seed(0)
    shape = {"dim": 8, "dim_mult": [1, 2, 2], "num_res_blocks": 2, "is_residual": True}
    encoder = QwenImage21Encoder3d(z_dim=24, temperal_downsample=[False, False], **shape)
    decoder = QwenImage21Decoder3d(z_dim=12, temperal_upsample=[False, False], **shape)
    ours = shaken(skip="lsc", encoder_blocks=2, decoder_blocks=3)
    with torch.no_grad():
        for theirs, mine in ((encoder, ours.encoder), (decoder, ours.decoder)):
            torch.nn.init.zeros_(theirs.mid_block.attentions[0].proj.weight)
            torch.nn.init.zeros_(theirs.mid_block.attentions[0].proj.bias)
            theirs_parameters = [p for name, p in theirs.named_parameters() if "attentions" not in name]
            for a, b in zip(theirs_parameters, mine.parameters(), strict=True):
                a.copy_(b.view_as(a))
        latents = ours.encode(IMAGES).latent_dist.mode()
        torch.testing.assert_close(latents, encoder(IMAGES[:, :, None])[:, :12, 0], atol=1e-5, rtol=1e-5)
        sample = ours.decode(latents).sample
        torch.testing.assert_close(sample, decoder(latents[:, :, None])[:, :, 0], atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("mirror", [False, True])
def test_tiles_equal_the_whole(mode: str, mirror: bool) -> None:
    if mirror and not mode.startswith("gsc"):
        with pytest.raises(BadInput, match="mirrors global skips"):
            small(skip=mode, decoder_mirror=True)
        return
    model = shaken(skip=mode, decoder_mirror=mirror)
    image = torch.rand(1, 3, 4 * 11, 4 * 25) * 2 - 1
    with torch.no_grad():
        latent = model.encode(image).latent_dist.mode()
        whole = model.decode(latent).sample
        model.register_to_config(tile_latents=8)
        model.enable_tiling()
        tiled_latent = model.encode(image).latent_dist.mode()
        tiled = model.decode(latent).sample
    torch.testing.assert_close(tiled_latent, latent, atol=1e-5, rtol=1e-5)
    torch.testing.assert_close(tiled, whole, atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("side", ["encode", "decode"])
def test_the_halo_is_deep_enough_and_no_deeper(side: str) -> None:
    model = shaken(skip="nsc").double()
    function = model._encode if side == "encode" else model._decode
    halo = model.encode_halo if side == "encode" else model.decode_halo
    cells, step_in, step_out = 4 * halo, (4, 1)[side == "decode"], (1, 4)[side == "decode"]
    x = torch.rand(1, 3 if side == "encode" else 12, step_in, cells * step_in, dtype=torch.float64, requires_grad=True)
    middle = 2 * halo
    function(x)[..., middle * step_out : (middle + 1) * step_out].abs().sum().backward()
    assert x.grad is not None
    reached = x.grad.abs().sum((0, 1, 2)).view(cells, step_in).sum(1).nonzero().flatten()
    reach = max(middle - int(reached.min()), int(reached.max()) - middle)
    assert reach == halo


def test_slices_equal_the_batch() -> None:
    model = shaken()
    with torch.no_grad():
        whole = model(IMAGES).sample
        model.enable_slicing()
        torch.testing.assert_close(model(IMAGES).sample, whole, atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("basis", ["mean", "dct", "pca"])
def test_a_saved_model_comes_back_with_its_basis(tmp_path, basis: str) -> None:  # type: ignore[no-untyped-def]
    model = shaken(skip="gsc_both", skip_basis=basis, decoder_mirror=True, encoder_widths=(8, 16, 48))
    if basis == "pca":
        model.fit_skip(IMAGES)
    model.register_to_config(latents_mean=[0.5] * 12, latents_std=[2.0] * 12)
    model.save_pretrained(tmp_path)
    assert (tmp_path / "diffusion_pytorch_model.safetensors").is_file()
    back = GSCAutoencoder.from_pretrained(tmp_path)
    assert back.config.latents_std == [2.0] * 12
    with torch.no_grad():
        assert torch.equal(back(IMAGES).sample, model(IMAGES).sample)


def test_checkpointed_gradients_are_the_same() -> None:
    model = shaken(decoder_mirror=True)
    model(IMAGES).sample.square().mean().backward()
    plain = [p.grad.clone() for p in model.parameters() if p.grad is not None]
    model.zero_grad()
    model.enable_gradient_checkpointing()
    assert model.encoder.gradient_checkpointing
    model(IMAGES).sample.square().mean().backward()
    again = [p.grad for p in model.parameters() if p.grad is not None]
    for a, b in zip(plain, again, strict=True):
        torch.testing.assert_close(a, b)


def test_bfloat16_keeps_its_type_and_stays_close() -> None:
    model = shaken(decoder_mirror=True)
    with torch.no_grad():
        exact = model(IMAGES).sample
        half = model.to(torch.bfloat16)(IMAGES.bfloat16()).sample
    assert half.dtype == torch.bfloat16
    assert (half.float() - exact).abs().mean() < 0.03 * exact.abs().mean()


def test_shapes_that_do_not_fit_are_refused() -> None:
    model = small()
    with pytest.raises(ValueError, match=r"multiple of 4, got \(1, 3, 64, 66\)"):
        model.encode(torch.zeros(1, 3, 64, 66))
    with pytest.raises(ValueError, match=r"\(B, 12, h, w\), got \(1, 11, 4, 4\)"):
        model.decode(torch.zeros(1, 11, 4, 4))
    with pytest.raises(BadInput, match="48 numbers of a cell do not divide into 13"):
        small(latent_channels=13, skip_basis="mean")
    with pytest.raises(BadInput, match="equally many levels, got 2 and 3"):
        small(encoder_widths=(8, 16))
