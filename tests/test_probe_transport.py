"""The straight path and the network on it: samplers against an exact answer, sizes as in the paper."""

import pytest
import torch

from vae.sit import SiT, SiTConfig
from vae.transport import Sampler, on_the_path, sample, score, velocity_loss

MEAN, SPREAD = 1.5, 0.4


def gaussian_velocity(x_BChw: torch.Tensor, t_B: torch.Tensor) -> torch.Tensor:
    """E[e - x | x_t] when latents are N(MEAN, SPREAD^2): linear in x_t."""
    t = t_B.view(-1, 1, 1, 1)
    variance = (1 - t) ** 2 * SPREAD**2 + t**2
    centred = x_BChw - (1 - t) * MEAN
    return t / variance * centred - (MEAN + (1 - t) * SPREAD**2 / variance * centred)


def noise(count: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(count, 1, 1, 1, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def test_the_velocity_is_the_slope_of_the_path() -> None:
    x, e = noise(5, 1), noise(5, 2)
    here, velocity = on_the_path(x, e, torch.full((5,), 0.3, dtype=torch.float64))
    there, _ = on_the_path(x, e, torch.full((5,), 0.31, dtype=torch.float64))
    torch.testing.assert_close((there - here) / 0.01, velocity)


def test_the_score_is_the_gradient_of_the_exact_log_density() -> None:
    t = 0.35
    x = noise(7).requires_grad_()
    variance = (1 - t) ** 2 * SPREAD**2 + t**2
    log_density = (-((x - (1 - t) * MEAN) ** 2) / (2 * variance)).sum()
    (exact,) = torch.autograd.grad(log_density, x)
    velocity = gaussian_velocity(x, torch.full((7,), t, dtype=torch.float64))
    torch.testing.assert_close(score(x, velocity, t), exact)


@pytest.mark.parametrize(("sampler", "order"), [("euler", 1), ("heun", 2)])
def test_the_flow_converges_to_the_exact_map_with_its_order(sampler: Sampler, order: int) -> None:
    e = noise(64)
    exact = MEAN + SPREAD * e  # the probability flow of a Gaussian is linear
    errors = [float((sample(gaussian_velocity, e, steps, sampler) - exact).abs().max()) for steps in (40, 80, 160)]
    ratios = [errors[0] / errors[1], errors[1] / errors[2]]
    assert ratios == pytest.approx([2**order] * 2, rel=0.15)
    assert errors[-1] < (0.02 if order == 1 else 2e-4)


def test_the_sde_draws_the_distribution_and_not_the_map() -> None:
    e = noise(20_000)
    drawn = sample(gaussian_velocity, e, 200, "sde", torch.Generator().manual_seed(1))
    assert float(drawn.mean()) == pytest.approx(MEAN, abs=0.02)
    assert float(drawn.std()) == pytest.approx(SPREAD, abs=0.02)
    correlation = float(torch.corrcoef(torch.stack([drawn.flatten(), e.flatten()]))[0, 1])
    assert abs(correlation) < 0.5  # its noise forgets where it started
    again = sample(gaussian_velocity, e, 200, "sde", torch.Generator().manual_seed(1))
    assert torch.equal(drawn, again)


def test_too_few_steps_are_refused() -> None:
    with pytest.raises(ValueError, match="at least 2 for sde, got 1"):
        sample(gaussian_velocity, noise(1), 1, "sde")


def test_the_loss_of_the_exact_velocity_is_what_cannot_be_known() -> None:
    # Var[e - x | x_t] of two Gaussians: SPREAD^2 / ((1 - t)^2 SPREAD^2 + t^2).
    x, e = MEAN + SPREAD * noise(40_000, 1), noise(40_000, 2)
    t_B = torch.full((40_000,), 0.5, dtype=torch.float64)
    expected = SPREAD**2 / (0.25 * SPREAD**2 + 0.25)
    assert float(velocity_loss(gaussian_velocity, x, e, t_B).mean()) == pytest.approx(expected, rel=0.03)


@pytest.mark.parametrize(
    ("width", "depth", "heads", "millions"),
    [(384, 12, 6, 33), (768, 12, 12, 130), (1024, 24, 16, 458), (1152, 28, 16, 675)],
)
def test_the_sizes_are_those_of_the_paper(width: int, depth: int, heads: int, millions: int) -> None:
    # SiT, table 1 (S, B, L, XL with patch 2 on 4 channels); it counts 1,001 labels.
    with torch.device("meta"):
        model = SiT(SiTConfig(width=width, depth=depth, heads=heads, patch=2), 4, 32, 1001)
    assert round(sum(p.numel() for p in model.parameters()) / 1e6) == pytest.approx(millions, abs=0.6)


def test_an_untrained_network_gives_no_velocity() -> None:
    model = SiT(SiTConfig(width=32, depth=2, heads=4, patch=2), 3, 8, 5)
    x = torch.randn(2, 3, 8, 8)
    assert torch.equal(model(x, torch.rand(2), torch.tensor([0, 4])), torch.zeros(2, 3, 8, 8))


def test_patches_come_back_to_their_place() -> None:
    model = SiT(SiTConfig(width=48, depth=1, heads=4, patch=2), 3, 4, 1)
    torch.nn.init.eye_(model.embed_patch.weight.data.view(48, 12))
    torch.nn.init.zeros_(model.position_1ND)
    x = torch.arange(48.0).view(1, 3, 4, 4)
    tokens = model.embed_patch(x).flatten(2).transpose(1, 2)[0, :, :12]  # channel, row, column inside the patch
    model.blocks = torch.nn.ModuleList()
    model.norm = torch.nn.Identity()  # type: ignore[assignment]
    inside = tokens.view(4, 3, 2, 2).permute(0, 2, 3, 1).reshape(4, 12)  # the order that the last layer speaks
    model.project = torch.nn.Module()  # type: ignore[assignment]
    model.project.forward = lambda _: inside[None]  # type: ignore[method-assign]
    assert torch.equal(model(x, torch.zeros(1), torch.zeros(1, dtype=torch.long)), x)


def test_time_and_label_reach_the_output() -> None:
    torch.manual_seed(0)
    model = SiT(SiTConfig(width=32, depth=2, heads=4), 3, 4, 2)
    for parameter in model.parameters():
        torch.nn.init.normal_(parameter, std=0.2)
    x = torch.randn(1, 3, 4, 4)

    def out(t: float, label: int) -> torch.Tensor:
        return model(x, torch.tensor([t]), torch.tensor([label]))

    assert not torch.allclose(out(0.1, 0), out(0.9, 0))
    assert not torch.allclose(out(0.1, 0), out(0.1, 1))


def test_heads_that_do_not_divide_are_refused() -> None:
    with pytest.raises(ValueError, match="got 30 and 4"):
        SiTConfig(width=30, heads=4)
    with pytest.raises(ValueError, match="7 latent cells"):
        SiT(SiTConfig(width=32, heads=4, patch=2), 3, 7, 1)
