"""The loss of a step: which terms it has, what they weigh, and a run with all of them."""

from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn
from transformers import Dinov2Config, Dinov2Model
from vae_runs import stripes, write_run

from fonts_manifest.errors import BadInput
from vae.alignment import alignment_terms, load_dinov2
from vae.family import GSCConfig
from vae.logs import read_metrics
from vae.losses import LossConfig, gradient_l1, l1, mse
from vae.objective import Objective
from vae.perceptual import VGG_FILE, VGG16Features, load_lpips
from vae.recipes import TrainRecipe
from vae.source import SourceConfig
from vae.train import train
from vae.trainee import Reconstruction

RNG = np.random.default_rng(0)


def random(*shape: int) -> torch.Tensor:
    return torch.from_numpy(RNG.uniform(-1, 1, shape).astype(np.float32))


@pytest.fixture(scope="module")
def vgg(tmp_path_factory: pytest.TempPathFactory) -> str:
    path = tmp_path_factory.mktemp("vgg") / VGG_FILE
    with torch.random.fork_rng():
        torch.manual_seed(0)
        torch.save(VGG16Features().state_dict(), path)
    return str(path)


@pytest.fixture(scope="module")
def dinov2(tmp_path_factory: pytest.TempPathFactory) -> str:
    folder = tmp_path_factory.mktemp("dinov2")
    with torch.random.fork_rng():
        torch.manual_seed(0)
        Dinov2Model(
            Dinov2Config(hidden_size=16, num_hidden_layers=2, num_attention_heads=2, image_size=28)
        ).save_pretrained(folder)
    return str(folder)


def no_autocast() -> torch.autocast:
    return torch.autocast("cpu", enabled=False)


def terms(config: LossConfig, step: int, projected: torch.Tensor | None = None) -> dict[str, torch.Tensor]:
    objective = Objective(config, 4, seed=0)
    return objective.terms(step, TARGET, Reconstruction(OUTPUT, OUTPUT, projected), (), no_autocast)


OUTPUT, TARGET = random(2, 3, 32, 48), random(2, 3, 32, 48)


def test_each_term_has_its_weight_of_the_step() -> None:
    config = LossConfig(l1=0.5, mse=((0, 0.0), (10, 2.0)), gradient=((0, 1.0), (4, 0.0)))
    first, middle = terms(config, 0), terms(config, 5)
    assert list(first) == ["l1", "gradient"]
    assert list(middle) == ["l1", "mse"]
    torch.testing.assert_close(first["l1"], 0.5 * l1(OUTPUT, TARGET))
    torch.testing.assert_close(first["gradient"], gradient_l1(OUTPUT, TARGET))
    torch.testing.assert_close(middle["mse"], 1.0 * mse(OUTPUT, TARGET))


def test_lpips_is_one_of_them(vgg: str) -> None:
    found = terms(LossConfig(l1=0.0, lpips=0.3, vgg_weights=vgg), 0)
    torch.testing.assert_close(found["lpips"], 0.3 * load_lpips(Path(vgg))(OUTPUT, TARGET))


def test_alignment_has_the_margins_of_the_step(dinov2: str) -> None:
    margins = {"margin_cos": ((0, 0.0), (10, 0.5)), "margin_dist": ((0, 0.0), (10, 0.2))}
    config = LossConfig(align=((0, 0.5), (10, 0.1), (11, 0.0)), align_model=dinov2, align_layer=1, **margins)
    projected = random(2, 16, 8, 12).requires_grad_()
    features = load_dinov2(dinov2, 1, 4)(TARGET)
    for step, weight, cos, dist in ((0, 0.5, 0.0, 0.0), (10, 0.1, 0.5, 0.2)):
        found = terms(config, step, projected)
        for name, expected in alignment_terms(projected, features, cos, dist).items():
            torch.testing.assert_close(found[name], weight * expected)
    # At weight 0 the projection still has a gradient, of zero: processes wait for it.
    idle = terms(config, 11, projected)
    (gradient,) = torch.autograd.grad(idle["mcos"].sum(), projected)
    assert gradient.eq(0).all()


def test_the_adaptive_weight_balances_the_gradients(dinov2: str) -> None:
    config = LossConfig(align=0.5, align_model=dinov2, align_layer=1, align_adaptive=True)
    objective = Objective(config, 4, seed=0)
    layer = nn.Parameter(random(3, 3))
    output = torch.einsum("bchw,cd->bdhw", OUTPUT, layer)
    projected = torch.einsum("bchw,cd->bdhw", random(2, 3, 8, 12), layer).repeat(1, 6, 1, 1)[:, :16]
    result = Reconstruction(output, output, projected)
    found = objective.terms(0, TARGET, result, (), no_autocast, layer)
    lengths = [
        float(torch.autograd.grad(sum(found[name] for name in names).mean(), layer, retain_graph=True)[0].norm())  # type: ignore[union-attr]
        for names in (("l1",), ("mcos", "mdms"))
    ]
    assert lengths[1] == pytest.approx(0.5 * lengths[0], rel=1e-2)


def test_a_loss_without_reconstruction_is_refused() -> None:
    with pytest.raises(BadInput, match="no reconstruction term has a weight above 0"):
        Objective(LossConfig(l1=0.0, read=1.0), 4, 0)


def test_a_run_with_every_term_goes_on_bit_for_bit(
    vgg: str, dinov2: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    quad = [4.0, 17.0, 44.0, 17.0, 44.0, 29.0, 4.0, 29.0]  # in every crop
    run = write_run(tmp_path / "run", stripes(16, 48), quads=[[quad]] * 16)
    recipe = TrainRecipe(
        kind="train",
        sources=(SourceConfig(name="stripes", run=str(run)),),
        model=GSCConfig(encoder_widths=(8, 8, 16), decoder_widths=(8, 8, 16), latent_channels=6, encoder_blocks=1),
        losses=LossConfig(
            lpips=0.2,
            vgg_weights=vgg,
            align=((0, 0.5), (2, 0.0)),
            align_model=dinov2,
            align_layer=1,
            align_adaptive=True,
            read=0.1,
            read_every=2,
        ),
        steps=4,
        batch=2,
        crop_px=32,
        validate_px=48,
        validate_pictures=1,
        checkpoint_every=2,
    )
    train(recipe, "h", tmp_path / "out")
    records = [record for record in read_metrics(tmp_path / "out") if record["kind"] == "step"]
    read = {"read_features", "read_characters", "read_places"}
    assert [set(record["terms"]) for record in records] == [
        {"l1", "lpips", "mcos", "mdms"} | read,
        {"l1", "lpips", "mcos", "mdms"},
        {"l1", "lpips", "mcos"} | read,
        {"l1", "lpips", "mcos"},
    ]
    assert records[0]["terms"]["read_features"] > 0
    for file in (tmp_path / "out/checkpoints/00000004").iterdir():
        file.write_bytes(b"")
    (tmp_path / "out/report.json").unlink()
    before = (tmp_path / "out/model/diffusion_pytorch_model.safetensors").read_bytes()
    train(recipe, "h", tmp_path / "out")
    assert (tmp_path / "out/model/diffusion_pytorch_model.safetensors").read_bytes() == before
    again = [record for record in read_metrics(tmp_path / "out") if record["kind"] == "step"]
    assert [record["loss"] for record in again] == [record["loss"] for record in records]
