"""Semantic alignment: features of the layer that was asked for, at the right places, for any shape."""

from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn
from transformers import Dinov2Config, Dinov2Model, ViTConfig, ViTModel

from fonts_manifest.errors import BadInput
from vae.alignment import MAX_POSITIONS, adaptive_weight, alignment_terms, load_dinov2, sample_positions
from vae.losses import l_mcos, l_mdms

RNG = np.random.default_rng(0)


@pytest.fixture(scope="module")
def dinov2(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A DINOv2 of four narrow blocks with random weights, saved as `transformers` does."""
    folder = tmp_path_factory.mktemp("dinov2")
    with torch.random.fork_rng():
        torch.manual_seed(0)
        network = Dinov2Model(
            Dinov2Config(hidden_size=24, num_hidden_layers=4, num_attention_heads=2, image_size=70, patch_size=14)
        )
        for parameter in network.parameters():
            nn.init.normal_(parameter, std=0.2)
        network.save_pretrained(folder)
    return folder


def pictures(height: int, width: int, count: int = 2) -> torch.Tensor:
    return torch.from_numpy(RNG.uniform(-1, 1, (count, 3, height, width)).astype(np.float32))


@pytest.mark.parametrize(("height", "width"), [(64, 64), (48, 96), (160, 32)])
def test_features_are_the_hidden_states_of_the_layer(dinov2: Path, height: int, width: int) -> None:
    images = pictures(height, width)
    features = load_dinov2(str(dinov2), layer=2, compression=16)(images)
    whole = Dinov2Model.from_pretrained(dinov2)
    resized = nn.functional.interpolate(
        (images + 1) / 2, (height // 16 * 14, width // 16 * 14), mode="bicubic", antialias=True, align_corners=False
    )
    mean, std = torch.tensor([0.485, 0.456, 0.406]), torch.tensor([0.229, 0.224, 0.225])
    normalised = (resized - mean[:, None, None]) / std[:, None, None]
    states = whole(pixel_values=normalised, output_hidden_states=True).hidden_states
    assert features.shape == (2, height // 16 * (width // 16), 24)
    torch.testing.assert_close(features, states[2][:, 1:].detach(), atol=1e-5, rtol=1e-5)
    assert not torch.allclose(features, states[3][:, 1:], atol=1e-2)


def test_an_f32_latent_meets_the_mean_of_2x2_patches(dinov2: Path) -> None:
    images = pictures(64, 128)
    fine = load_dinov2(str(dinov2), 3, 16)(images).unflatten(1, (4, 8))
    coarse = load_dinov2(str(dinov2), 3, 32)(images).unflatten(1, (2, 4))
    for row in range(2):
        for column in range(4):
            cell = fine[:, 2 * row : 2 * row + 2, 2 * column : 2 * column + 2].mean((1, 2))
            torch.testing.assert_close(coarse[:, row, column], cell)


def test_a_small_compression_has_a_patch_a_cell(dinov2: Path) -> None:
    assert load_dinov2(str(dinov2), 1, 4)(pictures(16, 24)).shape == (2, 24, 24)


def test_it_is_frozen_and_pictures_get_no_gradient_from_it(dinov2: Path) -> None:
    encoder = load_dinov2(str(dinov2), 2, 16)
    images = pictures(32, 32).requires_grad_()
    assert not encoder(images).requires_grad
    assert not any(parameter.requires_grad for parameter in encoder.parameters())
    assert len(encoder.network.encoder.layer) == 2


def test_terms_use_all_positions_or_the_sampled_ones() -> None:
    projected = torch.from_numpy(RNG.normal(size=(2, 24, 3, 4)).astype(np.float32)).requires_grad_()
    features = torch.from_numpy(RNG.normal(size=(2, 12, 24)).astype(np.float32))
    flat = projected.flatten(2).transpose(1, 2)
    terms = alignment_terms(projected, features, 0.5, 0.25)
    torch.testing.assert_close(terms["mcos"], l_mcos(flat, features, 0.5))
    torch.testing.assert_close(terms["mdms"], l_mdms(flat, features, 0.25))
    chosen = torch.tensor([0, 5, 11])
    sampled = alignment_terms(projected, features, 0.5, 0.0, chosen)
    torch.testing.assert_close(sampled["mcos"], terms["mcos"])
    torch.testing.assert_close(sampled["mdms"], l_mdms(flat[:, chosen], features[:, chosen], 0.0))
    (gradient,) = torch.autograd.grad(sampled["mdms"].sum(), projected)
    reached = gradient.abs().sum((0, 1)).flatten() > 0
    assert reached.nonzero().flatten().tolist() == [0, 5, 11]


def test_sampled_positions_depend_on_seed_and_step_alone() -> None:
    assert sample_positions(MAX_POSITIONS, 0, 0) is None
    first = sample_positions(4096, 1, 7)
    assert first is not None
    assert len(first.unique()) == MAX_POSITIONS
    assert int(first.max()) < 4096
    assert torch.equal(first, sample_positions(4096, 1, 7))  # type: ignore[arg-type]
    for other in (sample_positions(4096, 1, 8), sample_positions(4096, 2, 7)):
        assert other is not None
        assert not torch.equal(first, other)
    # Every position has the same chance: 400 draws of 10 of 40 give each 100, with a deviation of 8.7.
    drawn = torch.cat([sample_positions(40, 0, step, most=10) for step in range(400)])  # type: ignore[misc]
    assert drawn.bincount(minlength=40).sub(100).abs().max() < 5 * 8.7


def test_the_adaptive_weight_is_va_vaes_quotient() -> None:
    layer = nn.Parameter(torch.tensor([1.0, 2.0]))
    reconstruction, alignment = 3 * layer.sum(), (4 * layer[0] + 3 * layer[1])
    weight = adaptive_weight(reconstruction, alignment, layer)
    assert float(weight) == pytest.approx(3 * 2**0.5 / (5 + 1e-4), rel=1e-6)
    assert not weight.requires_grad
    halved = adaptive_weight(reconstruction, alignment, layer, lambda gradient: gradient / 2)
    assert float(halved) == pytest.approx(1.5 * 2**0.5 / (2.5 + 1e-4), rel=1e-6)
    assert float(adaptive_weight(reconstruction, 0 * layer.sum(), layer)) == pytest.approx(3 * 2**0.5 / 1e-4, rel=1e-5)


def test_what_is_missing_is_said(dinov2: Path, tmp_path: Path) -> None:
    with pytest.raises(BadInput, match=r"nowhere/dinov2: no DINOv2 here .* or set losses\.align to 0"):
        load_dinov2("nowhere/dinov2", 2, 16)
    with pytest.raises(BadInput, match=r"align_layer must be 1 to 4 for .*, got 5"):
        load_dinov2(str(dinov2), 5, 16)
    ViTModel(ViTConfig(hidden_size=8, num_hidden_layers=1, num_attention_heads=1, intermediate_size=8)).save_pretrained(
        tmp_path
    )
    with pytest.raises(BadInput, match="holds a vit, the alignment term needs a dinov2"):
        load_dinov2(str(tmp_path), 1, 16)
