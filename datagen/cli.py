"""The verbs of the data engine; `python -m datagen` and `glyphmill` both bind them."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import typer

from datagen.options import (
    AsJson,
    ExecutorOption,
    FirstUnlessNamed,
    Out,
    Overrides,
    RayAddress,
    Recipe,
    Workers,
    load_named,
)

if TYPE_CHECKING:
    from datagen.criteria import FilterRecipe

app = typer.Typer(no_args_is_help=True, add_completion=False, pretty_exceptions_enable=False)

judge_app = typer.Typer(no_args_is_help=True, help="The OCR judge of synthetic pages: docs/judge.md.")
app.add_typer(judge_app, name="judge", rich_help_panel="Generate")


@judge_app.callback()
def judge() -> None:
    """The OCR judge of synthetic pages: docs/judge.md."""


@judge_app.command("calibrate")
def judge_calibrate(
    recipe: Recipe,
    overrides: Overrides = None,
    out: Annotated[str, typer.Option(help="Folder for calibration.json, report.html and what was read.")] = "out/judge",
    pages: Annotated[int | None, typer.Option(min=50, help="Short for judge.sample_pages=N.")] = None,
    executor: ExecutorOption = "ray",
    workers: Workers = None,
    ray_address: RayAddress = None,
) -> None:
    """Read a sample of a recipe's lines with OCR and fit the model that decides the clear ones; draws its curve.

    The result serves every run of the recipe, whatever its rows and seed: judge.calibration=out/judge/calibration.json.
    """
    from datagen.audit import CALIBRATION, calibrate_recipe
    from datagen.judge_report import describe_calibration, write_calibration_page
    from datagen.plan import GenerateRecipe
    from datagen.progress import show_progress

    loaded = load_named(recipe, GenerateRecipe, overrides, **{"judge.sample_pages": pages})
    with show_progress() as progress:
        calibration = calibrate_recipe(
            loaded, out, executor=executor, workers=workers, address=ray_address, progress=progress
        )
    page = page_of(out, "report.html")
    write_calibration_page(calibration, loaded.judge, page)
    typer.echo(f"{describe_calibration(calibration, loaded.judge)}\n{out}/{CALIBRATION}, {page}")


@app.command(rich_help_panel="Generate")
def generate(
    recipe: Recipe,
    overrides: Overrides = None,
    out: Out = "out/synthetic",
    rows: Annotated[int | None, typer.Option(min=1, help="How many pictures; short for rows=N.")] = None,
    executor: ExecutorOption = "ray",
    workers: Workers = None,
    ray_address: RayAddress = None,
    as_json: Annotated[bool, typer.Option("--json", help="Events as JSON lines, see docs/scale.md.")] = False,
) -> None:
    """Draw pictures by a recipe, judge them with OCR, write Parquet shards; run again to go on after a stop."""
    from datagen import generate as engine
    from datagen.plan import GenerateRecipe
    from datagen.progress import ProgressReport, json_progress, show_progress
    from datagen.recipes import recipe_hash, recipe_to_yaml

    def run(progress: ProgressReport) -> engine.RunReport:
        loaded = load_named(recipe, GenerateRecipe, overrides, rows=rows)
        return engine.generate(
            loaded,
            recipe_hash(loaded),
            recipe_to_yaml(loaded),
            out,
            executor=executor,
            workers=workers,
            address=ray_address,
            progress=progress,
        )

    if as_json:
        with json_progress() as lines:
            report = run(lines)
            lines.event("finished", out=out, **engine.report_to_json(report))
        return
    with show_progress() as bars:
        report = run(bars)
    typer.echo(f"{out}: {report.kept:,} pictures kept in {report.shards} shards, {report.seconds:.1f} s")
    for reason, count in report.reasons.items():
        typer.echo(f"  dropped {count:,}: {reason}")
    if report.judged:
        typer.echo(f"  {engine.describe_judged(report.judged)}")


@app.command(rich_help_panel="Generate")
def preview(
    recipe: Recipe,
    overrides: Overrides = None,
    n: Annotated[int, typer.Option(min=1, max=400, help="How many pictures.")] = 36,
    out: Annotated[Path, typer.Option(help="The PNG file to write.")] = Path("sheet.png"),
    boxes: Annotated[bool, typer.Option(help="Draw quads of lines, order of blocks, parts of the page.")] = False,
) -> None:
    """Show what a recipe draws as one contact sheet, in seconds, without Ray and without OCR."""
    from datagen import preview as sheet
    from datagen.plan import GenerateRecipe

    loaded = load_named(recipe, GenerateRecipe, overrides)
    sheet.write_preview(loaded, n, out, boxes=boxes)
    typer.echo(str(out))


@app.command(rich_help_panel="Generate")
def redraw(
    shard: Annotated[Path, typer.Argument(help="A Parquet shard inside its run folder.")],
    row: Annotated[int, typer.Argument(min=0, help="Row of the shard, from 0.")],
    out: Annotated[Path | None, typer.Option(help="Write the redrawn picture to this PNG file.")] = None,
) -> None:
    """Draw a stored row again from its spec and compare the pixels with the stored ones."""
    from datagen.codec import encode_png
    from datagen.redraw import redraw as draw_again
    from fonts_manifest.errors import BadInput

    stored, redrawn = draw_again(shard, row)
    if out is not None:
        out.write_bytes(encode_png(redrawn))
    if stored.shape != redrawn.shape or (stored != redrawn).any():
        raise BadInput(
            f"{shard}, row {row}: drawn again it differs; fonts, photographs or libraries have changed since"
        )
    typer.echo(f"{shard}, row {row}: identical, {redrawn.shape[1]}x{redrawn.shape[0]} pixels")


@app.command(rich_help_panel="Generate")
def simulate(
    shards: Annotated[int, typer.Option(min=1, help="977,000 of 1,024 pictures are a billion.")] = 20_000,
    workers: Annotated[int, typer.Option(min=1, help="Cores.")] = 1000,
    shard_seconds: Annotated[float, typer.Option(min=0.1, help="Median time of a shard.")] = 8.7,
    request_seconds: Annotated[float, typer.Option(min=0, help="Median time of a small request.")] = 0.05,
    worker_mtbf_hours: Annotated[float, typer.Option(min=0.01, help="Between failures of one worker.")] = 24.0,
    driver_mtbf_hours: Annotated[float, typer.Option(min=0.01, help="Between failures of the driver.")] = 1.0,
    zombies: Annotated[float, typer.Option(min=0, max=1, help="Share of lost workers that still write.")] = 0.1,
    poisoned: Annotated[float, typer.Option(min=0, max=1, help="Share of shards with a row that crashes.")] = 1e-4,
    seed: Annotated[int, typer.Option(min=0, help="Start of all randomness.")] = 0,
    as_json: AsJson = False,
) -> None:
    """Simulate a large run with failures: time, lost work, requests; nothing may be lost or doubled."""
    import json
    from dataclasses import asdict

    from datagen.simulate import Scenario, describe_outcome
    from datagen.simulate import simulate as run

    scenario = Scenario(
        shards=shards,
        workers=workers,
        shard_s=shard_seconds,
        request_s=request_seconds,
        worker_mtbf_h=worker_mtbf_hours,
        driver_mtbf_h=driver_mtbf_hours,
        zombies=zombies,
        poisoned=poisoned,
        seed=seed,
    )
    outcome = run(scenario)
    if as_json:
        typer.echo(json.dumps({"scenario": asdict(scenario), "outcome": asdict(outcome)}))
        return
    typer.echo(describe_outcome(scenario, outcome))


def page_of(run: str, name: str) -> Path:
    """Where a page about a run goes: into its folder, or into this one when the run lies in a bucket."""
    return Path(name) if "://" in run else Path(run) / name


filter_app = typer.Typer(
    cls=FirstUnlessNamed,
    no_args_is_help=True,
    help="Sort real pictures and PDF pages by character density and quality: `filter RECIPE` runs a recipe.",
)
app.add_typer(filter_app, name="filter", rich_help_panel="Filter and inspect")


@filter_app.command("run")
def filter_run(
    recipe: Recipe,
    overrides: Overrides = None,
    out: Out = "out/real",
    executor: ExecutorOption = "ray",
    workers: Workers = None,
    ray_address: RayAddress = None,
) -> None:
    """Keep what passes a recipe's rules; `filter RECIPE` is short for it. Run again to go on after a stop."""
    from datagen.criteria import FilterRecipe

    loaded = load_named(recipe, FilterRecipe, overrides)
    _filter_corpus(loaded, out, executor, workers, ray_address)


def _filter_corpus(
    recipe: "FilterRecipe", out: str, executor: Literal["serial", "ray"], workers: int | None, ray_address: str | None
) -> None:
    from datagen import filter as engine
    from datagen.progress import show_progress
    from datagen.recipes import recipe_hash, recipe_to_yaml

    with show_progress() as progress:
        report = engine.filter_corpus(
            recipe,
            recipe_hash(recipe),
            out,
            executor=executor,
            workers=workers,
            address=ray_address,
            recipe_yaml=recipe_to_yaml(recipe),
            progress=progress,
        )
    typer.echo(f"{out}: {report.kept:,} of {report.seen:,} pictures kept, {report.seconds:.1f} s")
    for reason, count in report.reasons.items():
        typer.echo(f"  dropped {count:,}: {reason}")


@filter_app.command("scores")
def filter_scores() -> None:
    """List the scores that rules may use, cheapest first, and the default rules."""
    from datagen.criteria import DEFAULT_RULES
    from datagen.scores import ALIASES, NAMES

    short = {name: alias for alias, name in ALIASES.items()}
    for name, score in NAMES.items():
        typer.echo(f"{name:18} {score.meaning}" + (f" (short: {short[name]})" if name in short else ""))
    typer.echo("\nDefault rules; a picture that breaks one is dropped with its name as the reason:")
    for name, text in DEFAULT_RULES.items():
        typer.echo(f"{name:18} {text}")


@filter_app.command("explain")
def filter_explain(
    run: Annotated[str, typer.Argument(help="A finished run folder of filter.")],
    out: Annotated[Path | None, typer.Option(help="The HTML file; RUN/explain.html unless given.")] = None,
) -> None:
    """Show what each rule drops: counts, histograms, and the pictures on both sides of its threshold."""
    from datagen.explain import explain_run

    page = out or page_of(run, "explain.html")
    explain_run(run, page)
    typer.echo(str(page))


@filter_app.command("score-labels")
def filter_score_labels(
    labels: Annotated[Path, typer.Argument(help="JSON or CSV: file, label and, where it applies, degradation.")],
    pictures: Annotated[Path | None, typer.Option(help="Folder of the files; the labels' own unless given.")] = None,
    positive: Annotated[list[str] | None, typer.Option(help="Labels with enough text; may be repeated.")] = None,
    recipe: Annotated[str | None, typer.Option(help="Whose rules to try; the default rules unless given.")] = None,
    degrade: Annotated[bool, typer.Option(help="Damage every undamaged picture too, in seven ways.")] = False,
    as_json: AsJson = False,
) -> None:
    """Measure a labelled set of yours: does density follow the labels, which score tells which damage?"""
    import json
    from dataclasses import asdict

    from datagen.criteria import FilterRecipe
    from datagen.progress import show_progress
    from datagen.score_labels import describe_figures, labels_recipe, read_labels, score_labels

    folder, wanted = pictures or labels.parent, positive or ["medium", "dense"]
    tried = load_named(recipe, FilterRecipe) if recipe else labels_recipe(folder)
    with show_progress() as progress:
        figures = score_labels(
            read_labels(labels),
            folder,
            tried,
            wanted,
            degrade=degrade,
            progress=lambda done, total: progress("pictures", done, total, {}),
        )
    typer.echo(json.dumps(asdict(figures), indent=1) if as_json else describe_figures(figures, wanted))


@app.command(rich_help_panel="Filter and inspect")
def ingest(
    places: Annotated[list[str], typer.Argument(help="Files, folders, globs, s3://..., or http(s):// pages.")],
    licence: Annotated[str, typer.Option(help="Of all of them: an SPDX identifier or a sentence.")],
    out: Out = "out/ingested",
    set_: Annotated[
        list[str] | None, typer.Option("--set", help="pdf_dpi=200, columns.image=jpg, ...: a field of `input`.")
    ] = None,
    executor: ExecutorOption = "ray",
    workers: Workers = None,
    ray_address: RayAddress = None,
) -> None:
    """Bring pictures, tars, tables, PDFs and web pages into the one schema without loss; nothing is judged."""
    from datagen.criteria import ingest_recipe

    _filter_corpus(ingest_recipe(places, licence, set_ or []), out, executor, workers, ray_address)


@app.command(rich_help_panel="Filter and inspect")
def inspect(
    run: Annotated[str, typer.Argument(help="A finished run folder of generate, filter or ingest.")],
    out: Annotated[Path | None, typer.Option(help="The HTML file; RUN/report.html unless given.")] = None,
) -> None:
    """Make one self-contained page about a run: pictures, boxes, histograms, kept beside dropped, faces, licences."""
    from datagen.report import inspect_run

    page = out or page_of(run, "report.html")
    inspect_run(run, page)
    typer.echo(str(page))


@app.command(rich_help_panel="Filter and inspect")
def coverage(
    run: Annotated[str, typer.Argument(help="A finished run folder of generate or filter, here, s3://... or gs://...")],
    html: Annotated[Path | None, typer.Option(help="Write a page with the lists of characters to this file.")] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON object with every character.")] = False,
) -> None:
    """Say which characters a run shows, how often and at which sizes: GB 2312, the 8,105 general standard ones."""
    from datagen import drawn

    found = drawn.run_coverage(run)
    if html is not None:
        drawn.write_coverage_page(found, html)
    typer.echo(drawn.as_json(found) if as_json else drawn.as_text(found))


@app.command(rich_help_panel="Filter and inspect")
def verify(
    run: Annotated[str, typer.Argument(help="A finished run folder.")],
    sample: Annotated[int, typer.Option(min=0, help="How many rows to draw again and compare.")] = 20,
) -> None:
    """Prove a run whole: counts, hashes, and a sample drawn again pixel for pixel."""
    from datagen.verify import verify_run

    typer.echo(verify_run(run, sample))


@app.command(rich_help_panel="Filter and inspect")
def gc(run: Annotated[str, typer.Argument(help="A run folder nobody is writing to.")]) -> None:
    """Remove files that were written and never committed."""
    from datagen.commit import gc as remove

    removed = remove(run)
    typer.echo(f"{run}: {len(removed)} files removed")
