"""The command `glyphmill`: binds verbs to the functions of the four packages, nothing else."""

from pathlib import Path
from typing import Annotated

import typer

import datagen.bench_cli
import datagen.cli
import datagen.recipes
import fonts_manifest.cli
import vae.cli
from datagen.recipes import bundled_recipes, describe_recipe, find_recipe, load_recipe, recipe_kind
from fonts_manifest.config import Config
from fonts_manifest.errors import BadInput, run

_FOLDERS = (datagen.recipes.BUNDLED, vae.cli.BUNDLED)

app = typer.Typer(
    help="Draw text-rich pictures, filter real ones, train and judge the autoencoder that keeps them readable.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
)
recipes_app = typer.Typer(help="List the bundled recipes, or show one with the meaning of every field.")
app.add_typer(datagen.cli.app)
app.add_typer(vae.cli.app)
app.add_typer(fonts_manifest.cli.app, name="fonts", rich_help_panel="Around")
app.add_typer(datagen.bench_cli.bench_app, name="bench", rich_help_panel="Around")
app.add_typer(recipes_app, name="recipes", rich_help_panel="Around")


def recipe_class(kind: str) -> type[Config]:
    """The configuration class of a recipe's `kind`. Raises BadInput for an unknown kind."""
    match kind:
        case "generate":
            from datagen.plan import GenerateRecipe

            return GenerateRecipe
        case "filter":
            from datagen.criteria import FilterRecipe

            return FilterRecipe
        case "train":
            from vae.recipes import TrainRecipe

            return TrainRecipe
        case "tokenbench":
            from vae.candidates import TokenBenchRecipe

            return TokenBenchRecipe
        case "probe":
            from vae.generator import ProbeRecipe

            return ProbeRecipe
        case "ablate":
            from vae.ablate import AblationRecipe

            return AblationRecipe
        case "leaderboard":
            from vae.leaderboard import LeaderboardRecipe

            return LeaderboardRecipe
    kinds = "generate, filter, train, ablate, tokenbench, probe or leaderboard"
    raise BadInput(f"kind: {kind!r} is no kind of recipe; it is {kinds}")


@recipes_app.callback(invoke_without_command=True)
def list_recipes(context: typer.Context) -> None:
    """List the bundled recipes with a line each."""
    if context.invoked_subcommand is not None:
        return
    summaries = {name: line for folder in _FOLDERS for name, line in bundled_recipes(folder).items()}
    width = max(map(len, summaries))
    for name, summary in summaries.items():
        typer.echo(f"{name:{width}}  {summary}")


@recipes_app.command("show")
def show_recipe(
    recipe: Annotated[str, typer.Argument(help="A bundled recipe's name, or a .yaml file.")],
    overrides: Annotated[list[str] | None, typer.Argument(help="key.sub=value ...")] = None,
) -> None:
    """Print a recipe with every default written out and the meaning of every field."""
    path: Path = find_recipe(recipe, _FOLDERS)
    typer.echo(describe_recipe(load_recipe(path, recipe_class(recipe_kind(path)), overrides or [])))


def main() -> None:
    """The console script."""
    run(app)


if __name__ == "__main__":
    main()
