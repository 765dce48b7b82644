"""`glyphmill bench ...`: measured, not promised."""

from pathlib import Path
from typing import Annotated

import typer

app = typer.Typer(no_args_is_help=True, help="Measure speed on this machine.")


@app.callback()
def bench() -> None:
    """Measure speed on this machine."""


@app.command()
def render(
    fonts: Annotated[
        list[str] | None,
        typer.Argument(help="Font folders, files, globs, package:NAME/folder, or one manifest (.json)."),
    ] = None,
    pages: Annotated[int, typer.Option(min=8, help="Distinct pages of 512 px in the measured pass.")] = 400,
    seed: Annotated[int, typer.Option(min=0, help="Seed of the pages.")] = 0,
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON object.")] = False,
) -> None:
    """Draw a stream of distinct pages on one core and print glyphs, rows, shares and the ratio to Pillow."""
    import tempfile

    from fonts_manifest.manifest import save_manifest
    from fonts_manifest.scan import FontsConfig, scan_fonts
    from render_engine.bench import as_json as to_json
    from render_engine.bench import bench_render

    with tempfile.TemporaryDirectory() as folder:
        if fonts is not None and len(fonts) == 1 and fonts[0].endswith(".json"):
            manifest_path = Path(fonts[0])
        else:
            places = FontsConfig(places=tuple(fonts or ()), system=not fonts).all_places()
            manifest_path = Path(folder) / "fonts.json"
            save_manifest(scan_fonts(places)[0], manifest_path)
        figures = bench_render(manifest_path, pages=pages, seed=seed)
    if as_json:
        typer.echo(to_json(figures))
        return
    typer.echo(f"text stage      {figures.text_glyphs_per_s:12,.0f} glyphs/s, {figures.glyphs_per_page_512:.0f} a page")
    typer.echo(f"whole rows      {figures.rows_per_s_512:12,.0f} /s of 512 x 512")
    typer.echo(f"                {figures.rows_per_s_1024:12,.0f} /s of 1024 x 1024")
    typer.echo(f"against Pillow  {figures.ratio_to_pillow:12.1f} times as fast")
    typer.echo(f"memory          {figures.rss_mb:12,.0f} MB resident at most")
    typer.echo(f"first page      {figures.first_page_s:12.2f} s after the start of a process")
    for name, milliseconds in figures.stage_ms_512.items():
        typer.echo(f"  {name:14}{milliseconds:12.3f} ms a page")
    if figures.dropped:
        typer.echo(f"  {figures.dropped} pages were dropped with a label")
