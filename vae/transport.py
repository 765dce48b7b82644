"""The straight path between latents and noise: what a velocity network is trained on, and how it is sampled.

x_t = (1 - t) x + t e with noise e ~ N(0, 1) and t in [0, 1]; the velocity is v = e - x (SiT, Ma et al. 2024,
arXiv:2401.08740, linear interpolant). Legend: B samples, C channels, h w latent cells.
"""

import itertools
from collections.abc import Callable
from typing import Literal

import torch

Velocity = Callable[[torch.Tensor, torch.Tensor], torch.Tensor]
"""(x_BChw, t_B) to the velocity (B, C, h, w) there."""

Sampler = Literal["euler", "heun", "sde"]

LAST_SDE_TIME = 0.04
"""The last step of the SDE goes from here to 0 without noise: the error of the score is divided by t (as REPA)."""


def on_the_path(
    latents_BChw: torch.Tensor, noise_BChw: torch.Tensor, t_B: torch.Tensor
) -> tuple[torch.Tensor, torch.Tensor]:
    """x_t and the velocity there, both (B, C, h, w)."""
    t_B111 = t_B.view(-1, 1, 1, 1)
    return (1 - t_B111) * latents_BChw + t_B111 * noise_BChw, noise_BChw - latents_BChw


def velocity_loss(
    velocity: Velocity, latents_BChw: torch.Tensor, noise_BChw: torch.Tensor, t_B: torch.Tensor
) -> torch.Tensor:
    """(B,) mean squared error of the predicted velocity; of standardised latents a network that gives 0 has 2."""
    x_BChw, target_BChw = on_the_path(latents_BChw, noise_BChw, t_B)
    return (velocity(x_BChw, t_B).float() - target_BChw.float()).square().flatten(1).mean(1)


def score(x_BChw: torch.Tensor, velocity_BChw: torch.Tensor, t: float) -> torch.Tensor:
    """Gradient of the log density of x_t: -E[e | x_t] / t, and E[e | x_t] = x_t + (1 - t) v on this path."""
    return -(x_BChw + (1 - t) * velocity_BChw) / t


@torch.no_grad()
def sample(
    velocity: Velocity,
    noise_BChw: torch.Tensor,
    steps: int,
    sampler: Sampler,
    generator: torch.Generator | None = None,
) -> torch.Tensor:
    """Latents (B, C, h, w) from noise by `steps` steps of equal length from t = 1 to 0.

    euler, heun: the probability flow, one and two evaluations a step, errors of first and second order. sde:
    Euler-Maruyama with diffusion w(t) = 2 t, the last step without noise; `generator` draws its noise on the CPU.
    Raises ValueError for less than one step (two for the SDE).
    """
    if steps < (2 if sampler == "sde" else 1):
        raise ValueError(f"steps must be at least {2 if sampler == 'sde' else 1} for {sampler}, got {steps}")
    if sampler == "sde":
        return _sample_sde(velocity, noise_BChw, steps, generator)
    x_BChw = noise_BChw
    times = torch.linspace(1, 0, steps + 1, dtype=torch.float64).tolist()
    for t, t_next in itertools.pairwise(times):
        v_BChw = _at(velocity, x_BChw, t)
        ahead_BChw = x_BChw + (t_next - t) * v_BChw
        if sampler == "heun":
            ahead_BChw = x_BChw + (t_next - t) / 2 * (v_BChw + _at(velocity, ahead_BChw, t_next))
        x_BChw = ahead_BChw
    return x_BChw


def _sample_sde(
    velocity: Velocity, noise_BChw: torch.Tensor, steps: int, generator: torch.Generator | None
) -> torch.Tensor:
    x_BChw = noise_BChw
    times = [*torch.linspace(1, LAST_SDE_TIME, steps, dtype=torch.float64).tolist(), 0.0]
    for t, t_next in itertools.pairwise(times):
        v_BChw = _at(velocity, x_BChw, t)
        diffusion = 2 * t
        drift_BChw = v_BChw - 0.5 * diffusion * score(x_BChw, v_BChw, t)
        x_BChw = x_BChw + (t_next - t) * drift_BChw
        if t_next > 0:
            drawn_BChw = torch.randn(x_BChw.shape, generator=generator, dtype=x_BChw.dtype).to(x_BChw.device)
            x_BChw = x_BChw + (diffusion * (t - t_next)) ** 0.5 * drawn_BChw
    return x_BChw


def _at(velocity: Velocity, x_BChw: torch.Tensor, t: float) -> torch.Tensor:
    return velocity(x_BChw, torch.full((len(x_BChw),), t, dtype=x_BChw.dtype, device=x_BChw.device)).to(x_BChw.dtype)
