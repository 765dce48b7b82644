"""`glyphmill bench eval|load|vae`: the verbs that measure scoring, feeding and the model; `cli` binds them."""

import json
from pathlib import Path
from typing import Annotated, Any, Literal

import typer

from datagen.options import AsJson
from fonts_manifest.errors import BadInput


def bench_eval(
    gt: Annotated[Path, typer.Option(help="Folder of originals.")],
    recon: Annotated[Path, typer.Option(help="Folder of reconstructions.")],
    pairs: Annotated[int, typer.Option(min=1, help="How many pairs are read.")] = 4,
    as_json: AsJson = False,
) -> None:
    """Reading for NED: CPU seconds a page of `eval` and `eval --fast` against the public benchmark's loop."""
    from vae import score_bench

    figures = score_bench.bench_eval(gt, recon, pairs)
    typer.echo(json.dumps(figures) if as_json else score_bench.as_table(figures))


def bench_load(
    run: Annotated[Path | None, typer.Argument(help="A finished run; unless given, pages are drawn for it.")] = None,
    crop_px: Annotated[int, typer.Option(min=1, help="Side of the crops.")] = 256,
    batch: Annotated[int, typer.Option(min=1, help="Pictures a batch.")] = 16,
    pictures: Annotated[int, typer.Option(min=1, help="At most; best an epoch, as row groups are read whole.")] = 4096,
    as_json: AsJson = False,
) -> None:
    """Feed training from Parquet on one core: decoded images/s, beside decoding the same files and nothing else."""
    from tempfile import TemporaryDirectory

    from vae import load_bench

    with TemporaryDirectory() as temporary:
        place = run or load_bench.drawn_run(Path(temporary, "run"), crop_px, min(pictures, 256))
        figures = load_bench.bench_load(place, crop_px=crop_px, batch=batch, pictures=pictures)
    typer.echo(json.dumps(figures) if as_json else load_bench.as_text(figures))


def bench_vae(
    models: Annotated[str, typer.Option(help="Members of the family, with commas.")] = "f16c64,f32c192",
    sizes: Annotated[str | None, typer.Option(help="Sides in px, with commas; 256,1024 on a GPU, 64 on a CPU.")] = None,
    shrink: Annotated[int | None, typer.Option(min=1, help="Divide all widths by 1, 2 or 4; 4 on a CPU.")] = None,
    rounds: Annotated[int | None, typer.Option(min=1, help="Everything is measured so often, turn about.")] = None,
    compiled: Annotated[
        bool | None, typer.Option(help="Ours as compiled by torch.compile too; on a GPU unless said otherwise.")
    ] = None,
    device: Annotated[Literal["auto", "cpu", "cuda"], typer.Option(help="auto: CUDA when there is one.")] = "auto",
    as_json: AsJson = False,
) -> None:
    """Encode, decode and train: images/s beside FLUX's autoencoder, DC-AE and our own plain form, in one run."""
    from dataclasses import replace

    from datagen.progress import show_progress
    from vae import model_bench
    from vae.probe import pick_device

    place = pick_device(device)
    choice = model_bench.default_choice(place)
    asked: dict[str, Any] = {"shrink": shrink, "rounds": rounds, "compiled": compiled}
    choice = replace(choice, models=tuple(models.split(",")), **{k: v for k, v in asked.items() if v is not None})
    if sizes is not None:
        choice = replace(choice, sizes_px=tuple(_whole_numbers("--sizes", sizes)))
    steps = choice.steps()
    with show_progress() as progress:
        done = iter(range(1, steps + 1))
        report = model_bench.bench_vae(choice, place, lambda what: progress("bench", next(done), steps, {"": what}))
    for line in [json.dumps(report)] if as_json else model_bench.bench_table(report):
        typer.echo(line)


def _whole_numbers(option: str, text: str) -> list[int]:
    try:
        return [int(part) for part in text.split(",")]
    except ValueError:
        raise BadInput(f"{option}: whole numbers with commas between them, got {text!r}") from None
