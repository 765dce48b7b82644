"""What changes over the steps of a recipe, as a table and as a drawing, before anything is trained."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
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
    for step in steps_of_interest(recipe):
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
    return aligned(rows)


def aligned(rows: Sequence[Sequence[str]]) -> list[str]:
    """One line a row, columns flush right."""
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    return ["  ".join(cell.rjust(width) for cell, width in zip(row, widths, strict=True)) for row in rows]


def draw_plan(recipe: TrainRecipe, path: Path) -> None:
    """Draw crops and batch, shares of the sources, learning rate, weights and margins over the steps, as SVG or PNG.

    Equal recipes give equal files. Raises BadInput for another kind of file, or one that cannot be written.
    """
    curriculum, steps = recipe.curriculum, drawn_steps(recipe)
    scheduled = _scheduled(recipe)
    margins = {name: scheduled.pop(name) for name in list(scheduled) if name.startswith("margin")}
    with drawing(path, 5) as panels:
        draw_shares(panels[0], recipe, steps)
        sides = [_stage_at(recipe, step).crop_px for step in steps]
        _steps(panels[1], steps, sides, "crop, px (root of its area)")
        _steps(panels[1].twinx(), steps, [curriculum.batch_at(step) for step in steps], "batch", "C1")
        panels[2].plot(steps, [learning_rate(recipe.optim, step, recipe.steps) for step in steps])
        panels[2].set_ylabel("learning rate")
        for panel, curves, label in ((panels[3], scheduled, "weight"), (panels[4], margins, "margin")):
            for name, knots in curves.items():
                panel.plot(steps, [value_at(knots, step) for step in steps], label=name)
            panel.set_ylabel(label)


def drawn_steps(recipe: TrainRecipe) -> list[int]:
    """The steps at which a curve of the recipe is drawn."""
    stride = max(1, recipe.steps // _DRAWN_STEPS)
    return sorted({*range(0, recipe.steps, stride), *steps_of_interest(recipe)})


def draw_shares(panel: Any, recipe: TrainRecipe, steps: Sequence[int]) -> None:
    """The share of the batch of every source, one upon the other."""
    curriculum = recipe.curriculum
    shares = [[float(share) for share in curriculum.shares_at(step)] for step in steps]
    panel.stackplot(steps, list(zip(*shares, strict=True)), labels=curriculum.names, alpha=0.8)
    panel.set_ylabel("share of the batch")


@contextmanager
def drawing(path: Path, panels: int) -> Iterator[Sequence[Any]]:
    """Panels one below the other over the steps, written to `path` afterwards, equal ones as equal files.

    Raises BadInput for a file that is neither SVG nor PNG, or cannot be written.
    """
    if path.suffix not in {".svg", ".png"}:
        raise BadInput(f"{path}: a plan is drawn as .svg or .png")
    import matplotlib as mpl
    from matplotlib.figure import Figure

    with mpl.rc_context({"svg.hashsalt": "glyphmill", "font.size": 9}):
        figure = Figure(figsize=(9, 2 * panels), layout="constrained")
        axes = figure.subplots(panels, 1, sharex=True)
        yield axes
        axes[-1].set_xlabel("step")
        for panel in axes:
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


def steps_of_interest(recipe: TrainRecipe) -> list[int]:
    """Those at which something begins, bends or ends."""
    found = {0, min(recipe.optim.warmup_steps, recipe.steps - 1), recipe.steps - 1}
    found |= {stage.from_step for stage in recipe.stages}
    found |= set(knots_of([recipe.optim.stage_lr, *_scheduled(recipe).values(), *(s.weights for s in recipe.sources)]))
    return sorted(step for step in found if step < recipe.steps)
