"""`glyphmill model ...`: what a model is, its PCA basis, its card, the statistics of its latents; `cli` binds them"""

import json
from pathlib import Path
from typing import Annotated

import typer

from datagen.options import AsJson, FirstUnlessNamed

model_app = typer.Typer(
    cls=FirstUnlessNamed,
    no_args_is_help=True,
    help="What a model is before it is trained: `model NAME`; a PCA basis for its skips: `model fit-basis RUN...`.",
)


@model_app.command("describe")
def model_describe(
    name: Annotated[str, typer.Argument(help="f16c64, f16c128, f32c128, f32c192 or demo_f16c64.")],
    images: Annotated[
        str | None, typer.Option(help="Pictures to measure the bare skip on; the demo's photographs unless given.")
    ] = None,
    basis: Annotated[Path | None, typer.Option(help="A file of `model fit-basis`: the PCA that is measured.")] = None,
    as_json: AsJson = False,
) -> None:
    """Parameters, operations, memory, receptive field, and what its skip keeps without the network."""
    from vae.facts import describe_model
    from vae.yardstick import describe_bare_skip

    described = describe_model(name) | {"bare_skip_psnr_db": describe_bare_skip(name, images, basis)}
    if as_json:
        typer.echo(json.dumps(described))
        return
    for key, value in described.items():
        for part, number in value.items() if isinstance(value, dict) else [("", value)]:
            shown = number if isinstance(number, str | None) else format(number, ",.4g" if number < 1000 else ",")
            typer.echo(f"{f'{key} {part}':30} {'too few pictures' if shown is None else shown}")


@model_app.command("fit-basis")
def model_fit_basis(
    runs: Annotated[list[str], typer.Argument(help="Folders of finished runs, whose shards hold the pictures.")],
    model: Annotated[str, typer.Option(help="The model that the basis is for; others of its compression take it too.")],
    out: Annotated[Path, typer.Option(help="The file, .safetensors: `model.basis_file` in a recipe of training.")],
    cells: Annotated[int | None, typer.Option(min=1, help="Cells to fit to; 30 for each of their numbers.")] = None,
) -> None:
    """Make the PCA basis of a model's skips from the pictures of finished runs."""
    from datagen.progress import show_progress
    from vae.basis import save_basis
    from vae.facts import shape_only
    from vae.family import model_config
    from vae.yardstick import fit_basis

    config = model_config(model)
    shape = shape_only(config)
    rows = max((len(skip.basis) for skip in shape.skips), default=config.latent_channels)
    with show_progress() as progress:
        fitted, facts = fit_basis(
            runs, shape.compression, rows, cells=cells, advance=lambda done, total: progress("fit", done, total, {})
        )
    save_basis(fitted, facts, out)
    typer.echo(f"{out}: {rows} components of {facts.cells:,} cells keep {facts.explained:.2%} of their variance")


@model_app.command("card")
def model_card(
    run: Annotated[Path, typer.Argument(help="Folder of a finished training run.")],
) -> None:
    """Write the model cards of a run anew: recipe, data, licences, figures and pictures, beside its weights."""
    from vae.card import write_model_cards

    for card in write_model_cards(run):
        typer.echo(str(card))


@model_app.command("statistics")
def model_statistics(
    folder: Annotated[Path, typer.Argument(help="Folder of a saved model.")],
    images: Annotated[str, typer.Option(help="A picture, a folder of pictures, or a glob.")],
) -> None:
    """Measure mean and deviation of every latent channel on pictures, and write them into the model's config.json."""
    from vae.channel_statistics import write_channel_statistics

    cells, problems = write_channel_statistics(folder, images)
    for name, problem in problems:
        typer.echo(f"left out: {name}: {problem}", err=True)
    typer.echo(f"{folder / 'config.json'}: latents_mean and latents_std of {cells:,} cells")
