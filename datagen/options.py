"""What verbs have in common: arguments and options that mean the same everywhere, and a recipe by its name."""

from typing import Annotated, Any, Literal

import typer
from typer.core import TyperGroup

from datagen.recipes import BUNDLED, R, find_recipe, load_recipe

Recipe = Annotated[str, typer.Argument(help="A bundled recipe's name (see `glyphmill recipes`), or a .yaml file.")]
Overrides = Annotated[list[str] | None, typer.Argument(help="key.sub=value: change a field of the recipe.")]
Out = Annotated[
    str,
    typer.Option(help="Folder of the run, here, s3://... or gs://...; the same command goes on with what is in it."),
]
ExecutorOption = Annotated[Literal["serial", "ray"], typer.Option(help="ray: all cores or a cluster; serial: here.")]
Workers = Annotated[int | None, typer.Option(min=1, help="Tasks at a time; all cores unless given.")]
RayAddress = Annotated[str | None, typer.Option(help="A running Ray cluster, ray://HOST:PORT or HOST:PORT.")]
AsJson = Annotated[bool, typer.Option("--json", help="Print one JSON object.")]


class FirstUnlessNamed(TyperGroup):
    """Words that name no command are those of the first: `filter RECIPE` is `filter run RECIPE`."""

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        """Put the first command's name before words that name none."""
        named = bool(args) and (args[0] in self.commands or args[0] in ("--help", "-h"))
        return super().parse_args(ctx, args if named or not args else [next(iter(self.commands)), *args])


def load_named(recipe: str, kind: type[R], overrides: list[str] | None = None, **short: object) -> R:
    """A recipe of the data engine as a command line names it.

    short: fields that have an option of their own, None where it was not given. Raises BadInput.
    """
    given = [f"{field}={value}" for field, value in short.items() if value is not None]
    return load_recipe(find_recipe(recipe, [BUNDLED]), kind, [*(overrides or []), *given])
