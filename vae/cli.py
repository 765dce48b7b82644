"""The verbs of training and judging; `python -m vae` and `glyphmill` both bind them."""

import json
import os
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import typer
from rich.console import Console

from datagen.bench_cli import bench_app
from datagen.options import FirstUnlessNamed, Overrides, Recipe
from vae.bench_cli import bench_eval, bench_load, bench_vae
from vae.model_cli import model_app

if TYPE_CHECKING:
    from datagen.recipes import R
    from vae.tokenbench import BuildReport

BUNDLED = Path(__file__).parent / "bundled"

app = typer.Typer(no_args_is_help=True, add_completion=False, pretty_exceptions_enable=False)
tokenbench_app = typer.Typer(
    help="Make an OCR benchmark of reconstruction from pages, as OmniDoc-TokenBench was made.", no_args_is_help=True
)
app.add_typer(tokenbench_app, name="tokenbench", rich_help_panel="Train and judge")
for name, verb in (("eval", bench_eval), ("load", bench_load), ("vae", bench_vae)):
    bench_app.command(name)(verb)


train_app = typer.Typer(
    cls=FirstUnlessNamed,
    no_args_is_help=True,
    help="Train a GSC autoencoder: `train RECIPE --out FOLDER`; `train plan RECIPE` shows its stages beforehand.",
)
app.add_typer(train_app, name="train", rich_help_panel="Train and judge")
app.add_typer(model_app, name="model", rich_help_panel="Train and judge")
mix_app = typer.Typer(help="What a training recipe mixes: `mix plan RECIPE`.", no_args_is_help=True)
app.add_typer(mix_app, name="mix", rich_help_panel="Train and judge")


def _load(recipe: str, kind: "type[R]", overrides: list[str] | None) -> "R":
    from datagen.recipes import find_recipe, load_recipe

    return load_recipe(find_recipe(recipe, [BUNDLED]), kind, overrides or [])


@mix_app.callback()
def mix() -> None:
    """What a training recipe mixes."""


@train_app.command("run")
def train(
    recipe: Recipe,
    overrides: Overrides = None,
    out: Annotated[Path, typer.Option(help="Folder of the run; the same command goes on with what is in it.")] = Path(
        "out/vae"
    ),
) -> None:
    """Train on a mixture of finished runs (`run` may be left out); killed and started again it goes on bit for bit.

    Several processes: `torchrun --nproc-per-node 8 -m vae train RECIPE`, or `accelerate launch -m vae train RECIPE`.
    """
    from datagen.progress import show_progress
    from datagen.recipes import recipe_to_yaml
    from vae import train as trainer
    from vae.recipes import TrainRecipe, training_hash

    loaded = _load(recipe, TrainRecipe, overrides)
    is_main = os.environ.get("RANK", "0") == "0"
    with show_progress(None if is_main else Console(quiet=True)) as progress:
        report = trainer.train(
            loaded, training_hash(loaded), out, recipe_yaml=recipe_to_yaml(loaded), progress=progress
        )
    if not is_main:
        return
    for source, after in report.psnr_end_db.items():
        typer.echo(f"{source}: held-out PSNR {report.psnr_start_db[source]:.2f} -> {after:.2f} dB")
    if report.skipped_steps:
        typer.echo(
            f"{report.skipped_steps} steps left out, their loss or gradient not finite or a spike: metrics.jsonl"
        )
    waited = f"{report.data_wait_share:.1%} of {report.seconds:.0f} s of steps"
    typer.echo(f"data wait: {waited}, beside {report.first_data_seconds:.1f} s for the first batch")
    from vae.card import write_model_cards

    if not (out / report.ema / "README.md").is_file():
        write_model_cards(out)
    typer.echo(str(out / report.ema))


@train_app.command("plan")
def plan(
    recipe: Recipe,
    overrides: Overrides = None,
    out: Annotated[Path | None, typer.Option(help="Draw it too: a file ending in .svg or .png.")] = None,
) -> None:
    """Print what changes over the steps of a recipe: crops, batches, sources, learning rate, losses, margins."""
    from vae.plan import draw_plan, plan_table
    from vae.recipes import TrainRecipe

    loaded = _load(recipe, TrainRecipe, overrides)
    for line in plan_table(loaded):
        typer.echo(line)
    if out is not None:
        draw_plan(loaded, out)
        typer.echo(str(out))


@app.command(rich_help_panel="Train and judge")
def ablate(
    recipe: Annotated[str, typer.Argument(help="A bundled recipe's name, or a .yaml file: pictures, variants, seeds.")],
    overrides: Overrides = None,
    out: Annotated[Path, typer.Option(help="Folder of the runs; the same command goes on with what is in it.")] = Path(
        "out/ablation"
    ),
) -> None:
    """Train variants of one recipe from equal seeds on equal pictures; tables and a plot of their figures by step."""
    from datagen.progress import show_progress
    from vae.ablate import AblationRecipe, run_ablation

    loaded = _load(recipe, AblationRecipe, overrides)
    with show_progress() as progress:
        run_ablation(loaded, out, progress)
    typer.echo((out / "ablation.md").read_text(encoding="utf-8"))
    typer.echo(str(out / "ablation.png"))


@mix_app.command("plan")
def mix_plan(
    recipe: Recipe,
    overrides: Overrides = None,
    out: Annotated[Path | None, typer.Option(help="Draw it too: a file ending in .svg or .png.")] = None,
) -> None:
    """Print the ratios of the sources over the steps and how many epochs of each a training run takes."""
    from vae.mix_plan import draw_mixture, mixture_table, supplies
    from vae.recipes import TrainRecipe

    loaded = _load(recipe, TrainRecipe, overrides)
    found = supplies(loaded)
    for line in mixture_table(loaded, found):
        typer.echo(line)
    if out is not None:
        draw_mixture(loaded, found, out)
        typer.echo(str(out))


@app.command(rich_help_panel="Train and judge")
def reconstruct(
    vae: Annotated[Path, typer.Option(help="Folder of a saved model.")],
    images: Annotated[str, typer.Option(help="A picture, a folder of pictures, or a glob.")],
    out: Annotated[Path, typer.Option(help="Folder for the reconstructions, PNG under the same names.")],
    tile: Annotated[int, typer.Option(min=1, help="Side of a tile in latent cells; fewer need less memory.")] = 64,
    device: Annotated[Literal["auto", "cpu", "cuda"], typer.Option(help="auto: CUDA when there is one.")] = "auto",
) -> None:
    """Encode and decode pictures of any size; large ones in tiles, with the same result."""
    from vae.probe import pick_device
    from vae.reconstruct import reconstruct_files

    done, problems = reconstruct_files(vae, images, out, device=str(pick_device(device)), tile_cells=tile)
    for name, problem in problems:
        typer.echo(f"left out: {name}: {problem}", err=True)
    typer.echo(f"{out}: {done} pictures, {len(problems)} left out")


@app.command(rich_help_panel="Train and judge")
def leaderboard(
    recipe: Annotated[str, typer.Argument(help="A bundled recipe's name, or a .yaml file: codecs, sets, readers.")],
    overrides: Overrides = None,
    out: Annotated[
        Path, typer.Option(help="Folder of the tables; the same command goes on with what is in it.")
    ] = Path("out/leaderboard"),
) -> None:
    """Reconstruct and score any list of autoencoders, picture formats and linear maps on any list of sets."""
    from datagen.progress import show_progress
    from vae.leaderboard import LeaderboardRecipe, run_leaderboard
    from vae.leaderboard_page import write_leaderboard_page

    loaded = _load(recipe, LeaderboardRecipe, overrides)
    with show_progress() as progress:
        entries = run_leaderboard(loaded, out, progress)
    typer.echo((out / "leaderboard.md").read_text(encoding="utf-8"))
    typer.echo(f"{write_leaderboard_page(entries, loaded, out)}")


@app.command("eval", rich_help_panel="Train and judge")
def eval_(
    gt: Annotated[Path, typer.Option("--gt", "--gt_dir", help="Folder of the originals.")],
    recon: Annotated[Path, typer.Option("--recon", "--recon_dir", help="Folder of the reconstructions, same names.")],
    mode: Annotated[
        Literal["ned", "pixel", "all"], typer.Option(help="ned: by OCR; pixel: PSNR, SSIM, LPIPS, FID; all: both.")
    ] = "ned",
    out: Annotated[
        Path, typer.Option("--out", "--save_path", help="Folder of the results; the same command goes on with it.")
    ] = Path("eval_results"),
    reader: Annotated[
        Literal["rapidocr", "paddleocr", "torch", "tesseract"], typer.Option(help="Who reads for NED.")
    ] = "rapidocr",
    reader_models: Annotated[
        str | None, typer.Option(help="For paddleocr: a folder of models, or the name of models it fetched before.")
    ] = None,
    second: Annotated[
        Literal["auto", "none", "rapidocr", "paddleocr", "torch", "tesseract"],
        typer.Option(help="A second reader for NED_second; auto: tesseract when it is installed."),
    ] = "auto",
    fast: Annotated[
        bool, typer.Option(help="Read about twice as fast; texts differ a little from the library's own.")
    ] = False,
    vgg_weights: Annotated[Path | None, typer.Option(help="torchvision's VGG16 weights, for LPIPS.")] = None,
    inception_weights: Annotated[Path | None, typer.Option(help="pytorch-fid's Inception weights, for FID.")] = None,
    resize: Annotated[
        bool, typer.Option(help="Resize reconstructions of another size (bicubic) instead of leaving them out.")
    ] = False,
    labels: Annotated[
        Path | None, typer.Option(help="JSON with language and category of the originals; GT.json unless given.")
    ] = None,
    readings: Annotated[
        Path | None, typer.Option(help="File of readings shared between runs: originals are then read once.")
    ] = None,
    workers: Annotated[
        int | None, typer.Option(min=1, help="Processes; one for each CPU unless given, at most two share a GPU.")
    ] = None,
    device: Annotated[str, typer.Option(help="cpu or cuda: for LPIPS, FID and the torch reader.")] = "cpu",
    as_json: Annotated[bool, typer.Option("--json", help="Print results.json.")] = False,
) -> None:
    """Score reconstructions against originals: a drop-in for OmniDoc-TokenBench's eval_metrics.py, with reasons."""
    from datagen.progress import show_progress
    from datagen.reading import ReaderChoice
    from vae.pixels import PixelChoice
    from vae.score import choose_second, find_weights, score_folders
    from vae.scorecard import ScoreChoice, as_table

    vgg, inception = find_weights(vgg_weights, inception_weights)
    choice = ScoreChoice(
        mode=mode,
        reader=ReaderChoice(name=reader, models=reader_models, device=device, fast=fast),
        second=choose_second(second, reader),
        pixels=PixelChoice(vgg_weights=vgg, inception_weights=inception, resize=resize, device=device),
        processes=workers or len(os.sched_getaffinity(0)),
        batch=8 if device == "cpu" else 64,
        labels=labels,
        readings=readings,
    )
    with show_progress() as progress:
        report = score_folders(gt, recon, out, choice, progress)
    typer.echo(json.dumps(report.results, ensure_ascii=False) if as_json else as_table(report))
    for note in [] if as_json else report.notes:
        typer.echo(f"- {note}")


@app.command(rich_help_panel="Train and judge")
def probe(
    recipe: Recipe,
    overrides: Overrides = None,
    out: Annotated[Path, typer.Option(help="Folder of the probe; the same command goes on with what is in it.")] = Path(
        "out/probe"
    ),
    inception: Annotated[
        Path | None, typer.Option(help="Weights of FID's Inception network; without them gFID and IS stay empty.")
    ] = None,
    device: Annotated[Literal["auto", "cpu", "cuda"], typer.Option(help="auto: CUDA when there is one.")] = "auto",
) -> None:
    """How easily a diffusion model learns an autoencoder's latents: a small SiT, its samples, and cheap proxies."""
    from datagen.progress import show_progress
    from datagen.recipes import recipe_hash
    from vae.generator import ProbeRecipe
    from vae.probe import run_probe
    from vae.probe_report import probe_markdown

    loaded = _load(recipe, ProbeRecipe, overrides)
    with show_progress() as progress:
        report = run_probe(loaded, recipe_hash(loaded), out, device=device, inception=inception, progress=progress)
    typer.echo(probe_markdown(report))
    typer.echo(str((out / "report.html").resolve()))


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
    reader: Annotated[
        Literal["rapidocr", "torch", "paddleocr", "tesseract"], typer.Option(help="Who reads the crops.")
    ] = "rapidocr",
    executor: Annotated[
        Literal["serial", "ray"], typer.Option(help="ray: all cores or a cluster; serial: here.")
    ] = "ray",
    workers: Annotated[int | None, typer.Option(min=1, help="Tasks at a time; all cores unless given.")] = None,
) -> None:
    """Cut, read, filter and deduplicate text blocks; write the crops and a page to inspect them by eye."""
    from datagen.progress import show_progress
    from vae.candidates import TokenBenchRecipe
    from vae.review import apply_review, write_review
    from vae.tokenbench import build

    loaded = _load(recipe, TokenBenchRecipe, overrides)
    with show_progress() as progress:
        report = build(
            loaded, pages, annotations, out, executor=executor, workers=workers, reader=reader, progress=progress
        )
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
