"""What changes over the steps of a recipe, as a table and as a drawing, before anything is trained."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from fonts_manifest.errors import BadInput
from vae.curriculum import StageConfig
from vae.optim import learning_rate
from vae.recipes import TrainRecipe
from vae.schedule import Knots, ever, knots_of, value_at

_DRAWN_STEPS = 600
"""Points of a curve: more than a drawing has pixels for would show nothing."""


def plan_table(recipe: TrainRecipe) -> list[str]:
    """One line for every step at which something begins, bends or ends: a header and the lines, columns aligned.

    Raises BadInput when the stages are none.
    """
    curriculum = recipe.curriculum
    scheduled = _scheduled(recipe)
    header = ["step", "crops px", "batch", "pictures so far", "lr", *curriculum.names, *scheduled]
    rows = [header]
    for step in _steps_of_interest(recipe):
        stage = _stage_at(recipe, step)
        shapes = "" if len(stage.aspect_ratios) == 1 else f" in {len(stage.aspect_ratios)} ratios"
        rows.append(
            [
                f"{step:,}",
                f"{stage.crop_px}{shapes}",
                str(curriculum.batch_at(step)),
                f"{sum(curriculum.counts_before(step)):,}",
                f"{learning_rate(recipe.optim, step, recipe.steps):.2e}",
                *(f"{float(share):.0%}" for share in curriculum.shares_at(step)),
                *(f"{value_at(knots, step):.4g}" for knots in scheduled.values()),
            ]
        )
    widths = [max(len(row[i]) for row in rows) for i in range(len(header))]
    return ["  ".join(cell.rjust(width) for cell, width in zip(row, widths, strict=True)) for row in rows]


def draw_plan(recipe: TrainRecipe, path: Path) -> None:
    """Draw crops and batch, shares of the sources, learning rate, weights and margins over the steps, as SVG or PNG.

    Equal recipes give equal files. Raises BadInput for another kind of file, or one that cannot be written.
    """
    if path.suffix not in {".svg", ".png"}:
        raise BadInput(f"{path}: a plan is drawn as .svg or .png")
    import matplotlib as mpl
    from matplotlib.figure import Figure

    curriculum = recipe.curriculum
    stride = max(1, recipe.steps // _DRAWN_STEPS)
    steps = sorted({*range(0, recipe.steps, stride), *_steps_of_interest(recipe)})
    scheduled = _scheduled(recipe)
    margins = {name: scheduled.pop(name) for name in list(scheduled) if name.startswith("margin")}
    with mpl.rc_context({"svg.hashsalt": "glyphmill", "font.size": 9}):
        figure = Figure(figsize=(9, 10), layout="constrained")
        panels = figure.subplots(5, 1, sharex=True)
        shares = [[float(share) for share in curriculum.shares_at(step)] for step in steps]
        panels[0].stackplot(steps, list(zip(*shares, strict=True)), labels=curriculum.names, alpha=0.8)
        panels[0].set_ylabel("share of the batch")
        sides = [_stage_at(recipe, step).crop_px for step in steps]
        _steps(panels[1], steps, sides, "crop, px (root of its area)")
        _steps(panels[1].twinx(), steps, [curriculum.batch_at(step) for step in steps], "batch", "C1")
        panels[2].plot(steps, [learning_rate(recipe.optim, step, recipe.steps) for step in steps])
        panels[2].set_ylabel("learning rate")
        for panel, curves, label in ((panels[3], scheduled, "weight"), (panels[4], margins, "margin")):
            for name, knots in curves.items():
                panel.plot(steps, [value_at(knots, step) for step in steps], label=name)
            panel.set_ylabel(label)
        panels[4].set_xlabel("step")
        for panel in panels:
            if panel.get_legend_handles_labels()[0]:
                panel.legend(loc="center left", bbox_to_anchor=(1.0, 0.5), frameon=False)
            panel.grid(alpha=0.3)
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            figure.savefig(path, dpi=120, metadata={"Date": None} if path.suffix == ".svg" else {"Software": None})
        except OSError as error:
            raise BadInput(f"{path}: cannot be written ({error})") from error


def _steps(panel: Any, steps: Sequence[int], values: Sequence[float], label: str, colour: str = "C0") -> None:
    panel.step(steps, values, where="post", color=colour)
    panel.set_ylabel(label, color=colour)
    panel.set_ylim(bottom=0)


def _stage_at(recipe: TrainRecipe, step: int) -> StageConfig:
    return next(stage for stage in reversed(recipe.all_stages) if stage.from_step <= step)


def _scheduled(recipe: TrainRecipe) -> dict[str, Knots]:
    """The loss weights that are ever above zero, and the margins where latents are aligned."""
    losses = recipe.losses
    weights = {
        name: knots
        for name in type(losses).model_fields
        if isinstance(knots := getattr(losses, name), tuple) and not name.startswith("margin") and ever(knots)
    }
    if ever(losses.align):
        weights |= {"margin_cos": losses.margin_cos, "margin_dist": losses.margin_dist}
    return weights


def _steps_of_interest(recipe: TrainRecipe) -> list[int]:
    found = {0, min(recipe.optim.warmup_steps, recipe.steps - 1), recipe.steps - 1}
    found |= {stage.from_step for stage in recipe.stages}
    found |= set(knots_of([recipe.optim.stage_lr, *_scheduled(recipe).values(), *(s.weights for s in recipe.sources)]))
    return sorted(step for step in found if step < recipe.steps)
