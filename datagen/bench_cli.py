"""`glyphmill bench render|ocr|scale`: the verbs that measure the data engine; `glyphmill` binds them."""

from pathlib import Path
from typing import Annotated

import typer

from datagen.options import AsJson, Overrides, Recipe, load_named

bench_app = typer.Typer(no_args_is_help=True, help="Measure on this machine, against others in the same run.")


@bench_app.callback()
def bench() -> None:
    """Measure on this machine, against others in the same run."""


@bench_app.command("render")
def bench_render(
    recipe: Recipe = "background",
    overrides: Overrides = None,
    pages: Annotated[int, typer.Option(min=8, help="Distinct pages of 512 px in the measured pass.")] = 400,
    warm_up: Annotated[int, typer.Option(min=1, help="Pages whose glyphs are drawn before, at most.")] = 40_000,
    as_json: AsJson = False,
) -> None:
    """Draw distinct pages on one core: glyphs/s, rows/s, shares of the stages, Pillow and skia beside it."""
    from datagen import bench as figures_of
    from datagen.plan import GenerateRecipe

    loaded = load_named(recipe, GenerateRecipe, overrides)
    figures = figures_of.bench_render(loaded, pages=pages, warm_up_pages=warm_up)
    typer.echo(figures_of.as_json(figures) if as_json else figures_of.as_text(figures))


@bench_app.command("ocr")
def bench_ocr(
    recipe: Recipe = "mixed",
    overrides: Overrides = None,
    calibration: Annotated[
        Path | None, typer.Option(help="A calibration.json of `judge calibrate`; made first unless given (minutes).")
    ] = None,
    pages: Annotated[int, typer.Option(min=2, help="Pages, all lines of which are read once.")] = 40,
    as_json: AsJson = False,
) -> None:
    """Read pages by every back end, by full OCR and by the cascade, beside plain RapidOCR: lines/s, agreement, cost."""
    from datagen import ocr_bench as figures_of
    from datagen.plan import GenerateRecipe
    from datagen.progress import show_progress

    loaded = load_named(recipe, GenerateRecipe, overrides, **{"judge.calibration": calibration})
    with show_progress() as progress:
        figures = figures_of.bench_ocr(loaded, pages=pages, progress=progress)
    typer.echo(figures_of.as_json(figures) if as_json else figures_of.as_text(figures))


@bench_app.command("scale")
def bench_scale(
    recipe: Recipe = "background",
    overrides: Overrides = None,
    workers: Annotated[int, typer.Option(min=2, help="Ray workers beside which one is measured.")] = 2,
    shards: Annotated[int, typer.Option(min=1, help="Shards that each worker draws in a run.")] = 4,
    repeats: Annotated[int, typer.Option(min=1, help="Runs of each kind, turn about.")] = 3,
    as_json: AsJson = False,
) -> None:
    """Draw shards in one process, on one Ray worker, as many on each of several: rows/s, CPU a row, driver memory."""
    from datagen import scaling
    from datagen.plan import GenerateRecipe

    loaded = load_named(recipe, GenerateRecipe, overrides)
    figures = scaling.bench_scale(loaded, workers=workers, shards=shards, repeats=repeats)
    typer.echo(scaling.as_json(figures) if as_json else scaling.as_text(figures))
