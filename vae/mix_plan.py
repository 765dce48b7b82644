"""`glyphmill mix plan`: how much of every batch each source fills over the steps, and how often its pictures return."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from fonts_manifest.errors import BadInput
from vae.feed import open_source
from vae.plan import aligned, draw_shares, drawing, drawn_steps, steps_of_interest
from vae.recipes import TrainRecipe

_BARS = " \u2581\u2582\u2583\u2584\u2585\u2586\u2587\u2588"
_WIDTH = 60
"""Characters of a curve on a terminal."""


@dataclass(frozen=True, slots=True)
class Supply:
    """What a source holds for the crops of the first stage."""

    rows: int | None
    """Different pictures to train on; None where the source cannot be opened here, or never repeats."""
    note: str
    """Why it is None; "" otherwise."""


def supplies(recipe: TrainRecipe) -> list[Supply]:
    """What each source holds, as far as it can be opened on this machine."""
    found = []
    for source in recipe.sources:
        if source.live is not None:
            found.append(Supply(None, "drawn on the way, never repeated"))
            continue
        try:
            opened = open_source(source, recipe.crop_px, recipe.hold_out)
        except BadInput as problem:
            found.append(Supply(None, f"epochs unknown: {problem}"))
        else:
            found.append(Supply(opened.train_rows, ""))
    return found


def mixture_table(recipe: TrainRecipe, found: Sequence[Supply]) -> list[str]:
    """For every step at which something changes, the share of each source and its pictures so far; at the end a curve
    for each source, the pictures it gives and its epochs. Raises BadInput when the stages are none."""
    curriculum, names = recipe.curriculum, recipe.curriculum.names
    rows = [["step", "batch", *(cell for name in names for cell in (name, "so far"))]]
    for step in steps_of_interest(recipe):
        shares, counts = curriculum.shares_at(step), curriculum.counts_before(step)
        cells = [(f"{float(share):.1%}", f"{count:,}") for share, count in zip(shares, counts, strict=True)]
        rows.append([f"{step:,}", f"{curriculum.batch_at(step):,}", *(cell for pair in cells for cell in pair)])
    total = curriculum.counts_before(recipe.steps)
    wide = max(map(len, names))
    ends = []
    for number, (name, supply) in enumerate(zip(names, found, strict=True)):
        said = f"{epochs(total[number], supply.rows):,.2f} epochs of {supply.rows:,}" if supply.rows else supply.note
        ends.append(f"{name:{wide}}  {_curve(recipe, number)}  {total[number]:,} pictures, {said}")
    return [*aligned(rows), "", *ends]


def epochs(pictures: int, rows: int) -> float:
    """How often every picture of a source has come."""
    return pictures / rows


def _curve(recipe: TrainRecipe, source: int) -> str:
    """The share of a source from the first step to the last, full height being the whole batch."""
    curriculum = recipe.curriculum
    steps = [recipe.steps * column // _WIDTH for column in range(min(_WIDTH, recipe.steps))]
    return "".join(_BARS[round(8 * float(curriculum.shares_at(step)[source]))] for step in steps)


def draw_mixture(recipe: TrainRecipe, found: Sequence[Supply], path: Path) -> None:
    """Draw the shares and the epochs of the sources over the steps, as SVG or PNG. Raises BadInput as `drawing`."""
    curriculum, steps = recipe.curriculum, drawn_steps(recipe)
    with drawing(path, 3) as panels:
        draw_shares(panels[0], recipe, steps)
        counts = [curriculum.counts_before(step) for step in steps]
        for number, (name, supply) in enumerate(zip(curriculum.names, found, strict=True)):
            taken = [count[number] for count in counts]
            panels[1].plot(steps, taken, label=name)
            if supply.rows:
                panels[2].plot(steps, [epochs(count, supply.rows) for count in taken], color=f"C{number}", label=name)
        panels[1].set_ylabel("pictures so far")
        panels[2].set_ylabel("epochs")
