"""FID against its formula; its network is compared with the package `pytorch-fid` in test_eval_score.py."""

from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from fonts_manifest.errors import BadInput
from vae.fid import InceptionV3, frechet_distance, load_inception


def random_inception() -> InceptionV3:
    """Weights and statistics that keep features alive."""
    with torch.random.fork_rng():
        torch.manual_seed(0)
        model = InceptionV3()
        for name, buffer in model.named_buffers():
            if name.endswith("running_mean"):
                buffer.normal_(0, 0.05)
            elif name.endswith("running_var"):
                buffer.uniform_(0.5, 1.5)
        for parameter in model.parameters():
            if parameter.dim() == 4:
                torch.nn.init.kaiming_normal_(parameter)
    return model


def formula(first: np.ndarray, second: np.ndarray) -> float:
    """The definition, by the eigenvalues of C1 C2."""
    covariances = np.cov(first, rowvar=False), np.cov(second, rowvar=False)
    roots = np.sqrt(np.linalg.eigvals(covariances[0] @ covariances[1]).real.clip(0)).sum()
    return ((first.mean(0) - second.mean(0)) ** 2).sum() + np.trace(covariances[0] + covariances[1]) - 2 * roots


@given(st.integers(2, 12), st.integers(2, 12), st.integers(2, 6), st.integers(0, 99))
def test_the_distance_is_its_formula_whatever_is_longer(n_first: int, n_second: int, dims: int, seed: int) -> None:
    rng = np.random.default_rng(seed)
    first, second = rng.normal(size=(n_first, dims)), rng.normal(1, 2, size=(n_second, dims))
    assert frechet_distance(first, second) == pytest.approx(formula(first, second), rel=1e-5, abs=1e-6)
    assert frechet_distance(first, first) == pytest.approx(0, abs=1e-9)


def test_two_gaussians_lie_apart_as_theory_says() -> None:
    rng = np.random.default_rng(1)
    first, second = rng.normal(0, 1, (200_000, 3)), rng.normal(2, 3, (200_000, 3))
    assert frechet_distance(first, second) == pytest.approx(3 * 2**2 + 3 * (1 + 9 - 2 * 3), rel=0.01)


def test_one_picture_is_no_set() -> None:
    with pytest.raises(ValueError, match="got 1 and 3"):
        frechet_distance(np.zeros((1, 4)), np.zeros((3, 4)))


def test_weights_that_are_missing_or_something_else_are_one_sentence(tmp_path: Path) -> None:
    with pytest.raises(BadInput, match="missing, which FID needs"):
        load_inception(tmp_path / "none.pth")
    (tmp_path / "text.pth").write_text("no weights")
    with pytest.raises(BadInput, match="no weights of the Inception network"):
        load_inception(tmp_path / "text.pth")
    torch.save({"fc.weight": torch.zeros(2)}, tmp_path / "other.pth")
    with pytest.raises(BadInput, match="no weights of the Inception network"):
        load_inception(tmp_path / "other.pth")
