"""The loss of a step: the terms of a recipe over the networks they need.

Legend: B pictures, H W pixels, D feature width, h w latent cells.
"""

from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import numpy.typing as npt
import torch
from torch import nn

from fonts_manifest.errors import BadInput
from vae.alignment import SemanticEncoder, adaptive_weight, alignment_terms, load_dinov2, sample_positions
from vae.losses import LossConfig, gradient_l1, l1, mse
from vae.perceptual import LPIPS, load_lpips
from vae.reading import ReadingLoss, StrokeLoss, load_reading_loss
from vae.schedule import ever, value_at
from vae.trainee import Reconstruction


class Objective(nn.Module):
    """The weighted terms of every step; the networks inside are frozen and only there when a term uses them."""

    def __init__(self, config: LossConfig, compression: int, seed: int) -> None:
        """Raises BadInput when weights are missing or no term is ever above zero."""
        super().__init__()
        if not ever(config.l1, config.mse, config.gradient, config.lpips):
            raise BadInput("losses: no reconstruction term has a weight above 0 at any step")
        self.config = config
        self.seed = seed
        vgg = None if config.vgg_weights is None else Path(config.vgg_weights)
        self.lpips: LPIPS | None = load_lpips(vgg) if ever(config.lpips) else None
        self.semantic: SemanticEncoder | None = (
            load_dinov2(config.align_model, config.align_layer, compression) if ever(config.align) else None
        )
        self.reading: ReadingLoss | StrokeLoss | None = (
            load_reading_loss(config.read_lines, config.read_depth) if ever(config.read) else None
        )

    @property
    def wants_quads(self) -> bool:
        """Whether a term looks at lines of known place."""
        return self.reading is not None

    @property
    def feature_width(self) -> int | None:
        """D, when latents are aligned with features."""
        return None if self.semantic is None else self.semantic.width

    def terms(
        self,
        step: int,
        images_B3HW: torch.Tensor,
        result: Reconstruction,
        quads_px: Sequence[npt.NDArray[np.float32]],
        autocast: Callable[[], torch.autocast],
        last_layer: torch.Tensor | None = None,
        reduce: Callable[[torch.Tensor], torch.Tensor] = lambda gradient: gradient,
    ) -> dict[str, torch.Tensor]:
        """Each active term, weighted, (B,); their sum is the loss of each picture.

        quads_px: the lines known on each picture. autocast: the context in which the frozen networks run; the
        arithmetic of the terms is float32 always.
        last_layer, reduce: for the adaptive weight (`vae/alignment.py`).
        """
        config, output = self.config, result.output_B3HW.float()
        weights = {"l1": config.l1, "mse": config.mse, "gradient": config.gradient, "lpips": config.lpips}
        now = {name: value_at(knots, step) for name, knots in weights.items()}
        terms = {
            name: now[name] * term(output, images_B3HW)
            for name, term in (("l1", l1), ("mse", mse), ("gradient", gradient_l1))
            if now[name]
        }
        if self.lpips is not None and now["lpips"]:
            with autocast():
                terms["lpips"] = now["lpips"] * self.lpips(output, images_B3HW)
        weight = value_at(config.read, step) * config.read_every
        if self.reading is not None and weight and step % config.read_every == 0:
            with autocast():
                read = self.reading(output, images_B3HW, quads_px)
            terms |= {name: weight * term for name, term in read.items()}
        if result.projected_BDhw is not None:
            terms |= self._alignment(step, images_B3HW, result.projected_BDhw, terms, autocast, last_layer, reduce)
        return terms

    def _alignment(
        self,
        step: int,
        images_B3HW: torch.Tensor,
        projected_BDhw: torch.Tensor,
        reconstruction: dict[str, torch.Tensor],
        autocast: Callable[[], torch.autocast],
        last_layer: torch.Tensor | None,
        reduce: Callable[[torch.Tensor], torch.Tensor],
    ) -> dict[str, torch.Tensor]:
        weight = value_at(self.config.align, step)
        if not weight or self.semantic is None:
            # Without a gradient of zero the processes of a job would wait for that of the projection for ever.
            return {"mcos": 0.0 * projected_BDhw.float().flatten(1).sum(1)}
        with autocast():
            features_BND = self.semantic(images_B3HW)
        terms = alignment_terms(
            projected_BDhw.float(),
            features_BND,
            value_at(self.config.margin_cos, step),
            value_at(self.config.margin_dist, step),
            sample_positions(features_BND.shape[1], self.seed, step),
        )
        scale: torch.Tensor | float = weight
        if self.config.align_adaptive and last_layer is not None:
            known, aligned = (torch.stack(list(some.values())).sum(0).mean() for some in (reconstruction, terms))
            scale = weight * adaptive_weight(known, aligned, last_layer, reduce)
        return {name: scale * term for name, term in terms.items()}
