"""LPIPS against the package that defines it, and what happens when its weights are missing."""

from pathlib import Path

import numpy as np
import oracles
import pytest
import torch
from torch import nn
from vae_runs import stripes

from fonts_manifest.errors import BadInput
from vae.batch import to_unit_range
from vae.perceptual import LPIPS, VGG_FILE, VGG16Features, load_lpips

PACKAGE = """
import sys, warnings, numpy, torch
for name in ("normal_", "kaiming_normal_", "kaiming_uniform_"):  # 10 s for numbers that are replaced below
    setattr(torch.nn.init, name, lambda tensor, *a, **k: tensor)
import lpips
warnings.simplefilter("ignore")
metric = lpips.LPIPS(net="vgg", pnet_rand=True, verbose=False)
weights = torch.load(sys.argv[1], weights_only=True)
for stage in (metric.net.slice1, metric.net.slice2, metric.net.slice3, metric.net.slice4, metric.net.slice5):
    stage.load_state_dict({name: weights["features." + name] for name in stage.state_dict()})
pictures = torch.from_numpy(numpy.load(sys.argv[2])).requires_grad_()
value = metric(pictures[:3], pictures[3:])
value.sum().backward()
numpy.savez(sys.argv[3], value=value.detach().flatten().numpy(), gradient=pictures.grad[:3].numpy())
"""


@pytest.fixture(scope="module")
def weights(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A state dict as torchvision writes it, with random weights that keep features alive, and its classifier."""
    with torch.random.fork_rng():
        torch.manual_seed(0)
        vgg = VGG16Features()
        for layer in vgg.features:
            if isinstance(layer, nn.Conv2d):
                nn.init.kaiming_normal_(layer.weight)
                nn.init.normal_(layer.bias, std=0.1)  # type: ignore[arg-type]
    path = tmp_path_factory.mktemp("weights") / VGG_FILE
    torch.save({**vgg.state_dict(), "classifier.0.weight": torch.zeros(2, 2)}, path)
    return path


@pytest.fixture(scope="module")
def pictures() -> torch.Tensor:
    """Three pictures and three others, (6, 3, 48, 40) in [-1, 1]."""
    noise = np.random.default_rng(0).integers(0, 80, (6, 48, 48, 3))
    return to_unit_range(np.clip(np.stack(stripes(6, 48)) + noise, 0, 255).astype(np.uint8))[:, :, :, :40].contiguous()


def test_values_and_gradients_are_those_of_the_package(weights: Path, pictures: torch.Tensor, tmp_path: Path) -> None:
    np.save(tmp_path / "pictures.npy", pictures.numpy())
    oracles.ask(PACKAGE, str(weights), str(tmp_path / "pictures.npy"), str(tmp_path / "answer.npz"))
    answer = np.load(tmp_path / "answer.npz")
    output = pictures[:3].clone().requires_grad_()
    distance = load_lpips(weights)(output, pictures[3:])
    assert distance.shape == (3,)
    np.testing.assert_allclose(distance.detach(), answer["value"], rtol=1e-5)
    distance.sum().backward()
    assert output.grad is not None
    largest = np.abs(answer["gradient"]).max()
    assert largest > 0
    np.testing.assert_allclose(output.grad, answer["gradient"], atol=1e-4 * largest)


def test_equal_pictures_have_distance_zero_and_a_gradient_of_zero(weights: Path, pictures: torch.Tensor) -> None:
    output = pictures[:2].clone().requires_grad_()
    distance = load_lpips(weights)(output, pictures[:2])
    distance.sum().backward()
    assert distance.tolist() == [0, 0]
    assert output.grad is not None
    assert output.grad.eq(0).all()


def test_dead_features_leave_the_gradient_finite(pictures: torch.Tensor) -> None:
    metric = LPIPS()  # the last convolution is silenced: no feature of relu5_3 is active anywhere
    with torch.no_grad():
        metric.vgg.features[28].weight.zero_()
        metric.vgg.features[28].bias.fill_(-1)
        for weight in metric.linear:
            weight.fill_(1)
    output = pictures[:1].clone().requires_grad_()
    metric(output, pictures[1:2]).sum().backward()
    assert output.grad is not None
    assert output.grad.isfinite().all()
    assert output.grad.abs().sum() > 0


def test_its_own_weights_are_frozen_and_nothing_is_left_at_zero(weights: Path) -> None:
    metric = load_lpips(weights)
    assert not any(parameter.requires_grad for parameter in metric.parameters())
    assert all(parameter.abs().sum() > 0 for parameter in metric.parameters())
    assert not metric.training


def test_the_cache_of_torch_is_the_default_place(
    weights: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("TORCH_HOME", str(tmp_path))
    with pytest.raises(BadInput, match=rf"{VGG_FILE}: the weights of VGG16 are missing.*or set losses\.lpips to 0"):
        load_lpips()
    (tmp_path / "hub/checkpoints").mkdir(parents=True)
    (tmp_path / "hub/checkpoints" / VGG_FILE).symlink_to(weights)
    first = load_lpips().vgg.features[0].weight
    assert torch.equal(first, load_lpips(weights).vgg.features[0].weight)


def test_other_files_are_refused(weights: Path, tmp_path: Path) -> None:
    (tmp_path / "text.pth").write_text("no weights")
    with pytest.raises(BadInput, match=r"text\.pth: cannot be read as weights"):
        load_lpips(tmp_path / "text.pth")
    torch.save([1], tmp_path / "list.pth")
    with pytest.raises(BadInput, match="holds list, not the state dict"):
        load_lpips(tmp_path / "list.pth")
    found = torch.load(weights, weights_only=True)
    del found["features.5.bias"]
    torch.save(found, tmp_path / "part.pth")
    with pytest.raises(BadInput, match=r"part\.pth: does not fit .*features\.5\.bias"):
        load_lpips(tmp_path / "part.pth")


def test_pickled_code_is_not_run(tmp_path: Path) -> None:
    class Trap:
        def __reduce__(self) -> tuple[object, tuple[str]]:
            return exec, (f"open({str(tmp_path / 'sprung')!r}, 'w')",)

    torch.save({"features.0.weight": Trap()}, tmp_path / "trap.pth")
    with pytest.raises(BadInput, match=r"trap\.pth: cannot be read as weights"):
        load_lpips(tmp_path / "trap.pth")
    assert not (tmp_path / "sprung").exists()


def test_pictures_too_small_for_five_scales_are_refused() -> None:
    with pytest.raises(ValueError, match=r"at least 16 px a side, got \(1, 3, 15, 40\)"):
        LPIPS()(torch.zeros(1, 3, 15, 40), torch.zeros(1, 3, 15, 40))
