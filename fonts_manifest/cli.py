"""`glyphmill fonts ...`: scan folders, list what was found, show a specimen, check a text."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

if TYPE_CHECKING:
    from fonts_manifest.manifest import Manifest

app = typer.Typer(no_args_is_help=True, help="Which fonts there are, what they can write, under which licence.")

Places = Annotated[
    list[str] | None,
    typer.Argument(help="Font folders, files, globs or package:NAME/folder; a manifest (.json) can stand alone."),
]
System = Annotated[bool, typer.Option("--system/--no-system", help="Search the system's font folders as well.")]


def _faces(places: list[str] | None, system: bool) -> "tuple[Manifest, list[tuple[str, str]]]":
    """The manifest named by `places`, or a scan of them with a progress bar."""
    from rich.console import Console
    from rich.progress import Progress

    from fonts_manifest.manifest import load_manifest
    from fonts_manifest.scan import FontsConfig, scan_fonts

    named = tuple(places or ())
    if len(named) == 1 and named[0].endswith(".json"):
        return load_manifest(Path(named[0])), []
    console = Console(stderr=True)
    with Progress(console=console, transient=True, disable=not console.is_terminal) as progress:
        bar = progress.add_task("scanning fonts", total=None)

        def advance(done: int, total: int) -> None:
            progress.update(bar, completed=done, total=total)

        return scan_fonts(FontsConfig(places=named, system=system).all_places(), advance)


@app.command()
def scan(
    places: Places = None,
    out: Annotated[Path, typer.Option(help="Where the manifest is written.")] = Path("fonts.json"),
    system: System = True,
) -> None:
    """Write a manifest of every usable face; what is left out is listed with its reason."""
    from rich.console import Console
    from rich.markup import escape

    from fonts_manifest.manifest import save_manifest

    manifest, left_out = _faces(places, system)
    save_manifest(manifest, out)
    console = Console(soft_wrap=True)
    for path, reason in left_out:
        console.print(f"[dim]left out[/] {escape(path)}: {escape(reason)}", highlight=False)
    console.print(
        f"{len(manifest.faces)} faces, {len(left_out)} left out; written to {escape(str(out))}", highlight=False
    )


@app.command("list")
def list_faces(places: Places = None, system: System = True) -> None:
    """Faces with their licence, embedding bits and the share of each character set they draw."""
    from rich.console import Console
    from rich.progress import track
    from rich.table import Table

    from fonts_manifest.coverage import coverage, named_sets
    from fonts_manifest.manifest import embedding

    manifest, _ = _faces(places, system)
    table = Table("id", "family", "style", "weight", "licence", "embedding", *named_sets(), box=None)
    console = Console(stderr=True)
    silent = not console.is_terminal
    for face in track(manifest.faces, "measuring coverage", console=console, transient=True, disable=silent):
        # cut, not rounded: 100 % means all
        shares = [f"{1000 * drawn // total / 10:.1f} %" for drawn, total in coverage(face).values()]
        table.add_row(
            *(face.face_id, face.family, face.style, str(face.weight), face.licence, embedding(face.fs_type)), *shares
        )
    Console(width=max(180, Console().width)).print(table)


@app.command()
def show(
    face_id: Annotated[str, typer.Argument(help="The id (or the beginning of the family name) of a face.")],
    places: Places = None,
    out: Annotated[Path, typer.Option(help="The PNG to write.")] = Path("specimen.png"),
    system: System = True,
) -> None:
    """Draw a specimen of one face: alphabets, figures, Chinese when it has it, at 8 to 32 px."""
    from fonts_manifest.errors import BadInput
    from fonts_manifest.specimen import draw_specimen

    manifest, _ = _faces(places, system)
    wanted = face_id.lower()
    faces = [face for face in manifest.faces if face.face_id == wanted or face.family.lower().startswith(wanted)]
    if not faces:
        raise BadInput(
            f"no face has the id or family {face_id!r}; `glyphmill fonts list` names all {len(manifest.faces)}"
        )
    out.parent.mkdir(parents=True, exist_ok=True)
    draw_specimen(faces[0]).save(out)
    typer.echo(f"{faces[0].family} {faces[0].style}: {out}")


@app.command()
def check(
    text: Annotated[str, typer.Argument(help="The text that is to be written.")],
    places: Places = None,
    system: System = True,
) -> None:
    """Which faces draw every character of a text, and what the others lack."""
    from fonts_manifest.coverage import drawn_characters

    manifest, _ = _faces(places, system)
    characters = dict.fromkeys("".join(text.splitlines()).replace("\t", " "))
    for face in manifest.faces:
        drawn = drawn_characters(face, characters)
        missing = "".join(character for character in characters if character not in drawn)
        typer.echo(f"{face.face_id}  {face.family} {face.style}: {'lacks ' + missing if missing else 'draws all'}")
