"""The verbs of training and judging; `python -m vae` and `glyphmill` both bind them."""

import json
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import typer

if TYPE_CHECKING:
    from vae.tokenbench import BuildReport

BUNDLED = Path(__file__).parent / "bundled"

Recipe = Annotated[str, typer.Argument(help="A bundled recipe's name (see `glyphmill recipes`), or a .yaml file.")]
Overrides = Annotated[list[str] | None, typer.Argument(help="key.sub=value: change a field of the recipe.")]

app = typer.Typer(no_args_is_help=True, add_completion=False, pretty_exceptions_enable=False)
tokenbench_app = typer.Typer(
    help="Make an OCR benchmark of reconstruction from pages, as OmniDoc-TokenBench was made.", no_args_is_help=True
)
app.add_typer(tokenbench_app, name="tokenbench", rich_help_panel="Train and judge")


@app.command(rich_help_panel="Train and judge")
def train(
    recipe: Recipe,
    overrides: Overrides = None,
    out: Annotated[Path, typer.Option(help="Folder of the run; the same command goes on with what is in it.")] = Path(
        "out/vae"
    ),
) -> None:
    """Train a GSC autoencoder on a mixture of finished runs; killed and started again it goes on bit for bit."""
    from datagen.progress import show_progress
    from datagen.recipes import find_recipe, load_recipe, recipe_hash, recipe_to_yaml
    from vae import train as trainer
    from vae.recipes import TrainRecipe

    loaded = load_recipe(find_recipe(recipe, [BUNDLED]), TrainRecipe, overrides or [])
    with show_progress() as progress:
        report = trainer.train(loaded, recipe_hash(loaded), out, recipe_yaml=recipe_to_yaml(loaded), progress=progress)
    for source, after in report.psnr_end_db.items():
        typer.echo(f"{source}: held-out PSNR {report.psnr_start_db[source]:.2f} -> {after:.2f} dB")
    typer.echo(str(out / report.ema))


@app.command(rich_help_panel="Train and judge")
def reconstruct(
    vae: Annotated[Path, typer.Option(help="Folder of a saved model.")],
    images: Annotated[str, typer.Option(help="A picture, a folder of pictures, or a glob.")],
    out: Annotated[Path, typer.Option(help="Folder for the reconstructions, PNG under the same names.")],
) -> None:
    """Encode and decode pictures; sides that are no multiple of the compression lose their last pixels."""
    from vae.reconstruct import reconstruct_files

    done, problems = reconstruct_files(vae, images, out)
    for name, problem in problems:
        typer.echo(f"left out: {name}: {problem}", err=True)
    typer.echo(f"{out}: {done} pictures, {len(problems)} left out")


@app.command(rich_help_panel="Train and judge")
def model(
    name: Annotated[str, typer.Argument(help="f16c64, f16c128, f32c128, f32c192 or demo_f16c64.")],
    as_json: Annotated[bool, typer.Option("--json", help="One JSON object.")] = False,
) -> None:
    """Count a model's parameters and the cost of a forward pass, without building it in memory."""
    from vae.family import describe_model

    described = describe_model(name)
    if as_json:
        typer.echo(json.dumps(described))
        return
    for key, value in described.items():
        typer.echo(f"{key:20} {value if isinstance(value, str) else format(value, ',.4g' if value < 1000 else ',')}")


@app.command(rich_help_panel="Around")
def demo(
    out: Annotated[Path, typer.Option(help="Folder for everything; the same command goes on with it.")] = Path(
        "out/demo"
    ),
    executor: Annotated[
        Literal["serial", "ray"], typer.Option(help="ray: all cores; serial: in this process.")
    ] = "ray",
) -> None:
    """The whole chain on embedded defaults: fonts, pictures, OCR, shards, filter, training, one report page."""
    from vae.demo import run_demo

    typer.echo(str(run_demo(out, executor=executor).resolve()))


@tokenbench_app.command("build")
def tokenbench_build(
    pages: Annotated[Path, typer.Option(help="Folder of page pictures.")],
    out: Annotated[Path, typer.Option(help="Folder of the benchmark; the same command goes on with what is in it.")],
    recipe: Recipe = "tokenbench",
    overrides: Overrides = None,
    annotations: Annotated[
        Path | None, typer.Option(help="JSON as OmniDocBench has it; without it blocks are detected.")
    ] = None,
    review: Annotated[list[Path] | None, typer.Option(help="Decisions saved on the review page.")] = None,
    executor: Annotated[
        Literal["serial", "ray"], typer.Option(help="ray: all cores or a cluster; serial: here.")
    ] = "ray",
    workers: Annotated[int | None, typer.Option(min=1, help="Tasks at a time; all cores unless given.")] = None,
) -> None:
    """Cut, read, filter and deduplicate text blocks; write the crops and a page to inspect them by eye."""
    from datagen.progress import show_progress
    from datagen.recipes import find_recipe, load_recipe
    from vae.review import apply_review, write_review
    from vae.tokenbench import TokenBenchRecipe, build

    loaded = load_recipe(find_recipe(recipe, [BUNDLED]), TokenBenchRecipe, overrides or [])
    with show_progress() as progress:
        report = build(loaded, pages, annotations, out, executor=executor, workers=workers, progress=progress)
    if review:
        report = apply_review(out, review)
    _say_build(out, report)
    for path in write_review(out):
        typer.echo(f"to inspect them: {path.resolve()}")


@tokenbench_app.command("apply-review")
def tokenbench_apply_review(
    out: Annotated[Path, typer.Argument(help="Folder of the benchmark.")],
    review: Annotated[list[Path], typer.Option(help="Decisions saved on the review page; later ones overrule.")],
) -> None:
    """Take in the decisions of a human inspection; they hold in every later build of this folder too."""
    from vae.review import apply_review

    _say_build(out, apply_review(out, review))


def _say_build(out: Path, report: "BuildReport") -> None:
    typer.echo(f"{out}: {report.kept:,} of {report.candidates:,} text blocks kept")
    for name, count in report.kept_by.items():
        typer.echo(f"  kept {count:,}: {name}")
    for reason, count in report.reasons.items():
        typer.echo(f"  dropped {count:,}: {reason}")
    for page, problem in report.page_problems.items():
        typer.echo(f"  not read: {page}: {problem}", err=True)
