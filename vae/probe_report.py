"""What a probe found, as Markdown and as one page with the samples."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from datagen.charts import lines_svg
from datagen.page import facts, figure, folded, grid, paragraph, table, write_page
from datagen.recipes import recipe_to_yaml
from vae.generator import ProbeRecipe, Trained
from vae.probe_measure import Pictures, Spectra

WHAT_IT_IS_NOT = (
    "A small generator, trained for a short time on these pictures, ranks autoencoders under this probe alone. Its "
    "figures are not the report's Table 2 (SiT-XL, ImageNet, 80 epochs, 50,000 samples) and must not stand beside it; "
    "FID and the Inception Score depend on the number of samples, so only equal numbers compare; gaps smaller than "
    "those between seeds mean nothing; and what learns fastest here may not win after a hundred times the training."
)


def _number(value: float | None, digits: int = 2) -> str:
    return "not measured" if value is None else f"{value:.{digits}f}"


def _generation_rows(report: dict[str, Any]) -> list[list[str]]:
    floors = report["generation"]["floors"]
    rows = [
        [
            "held-out pictures",
            f"{floors['held_out']['pictures']:,}",
            _number(floors["held_out"]["fid"]),
            "",
            _number(floors["held_out"]["latent_frechet"], 3),
        ],
        [
            "held-out pictures, reconstructed (rFID)",
            f"{floors['reconstructed']['pictures']:,}",
            _number(floors["reconstructed"]["fid"]),
            "",
            "",
        ],
    ]
    for name, values in report["generation"]["samplers"].items():
        score = values["inception_score"]
        text = "not measured" if score is None else f"{score['mean']:.2f} +- {score['std']:.2f}"
        frechet = _number(values["latent_frechet"], 3)
        rows.append([f"samples, {name}", f"{values['pictures']:,}", _number(values["fid"]), text, frechet])
        as_many = floors["held_out"]["pictures"]
        if values["pictures"] > as_many:
            fid = _number(values["fid_of_as_many_as_held_out"])
            frechet = _number(values["latent_frechet_of_as_many_as_held_out"], 3)
            rows.append([f"samples, {name}, as many as held out", f"{as_many:,}", fid, "", frechet])
    return rows


_GENERATION = ["set", "pictures", "FID", "Inception Score", "Frechet distance of latent cells"]


def _proxy_rows(report: dict[str, Any]) -> list[list[str]]:
    proxies = report["proxies"]
    rows = [["channels that vary on their own", f"{proxies['effective_channels']:.1f} of {report['vae']['channels']}"]]
    for name, values in (proxies["spectrum"] or {}).items():
        rows.append([f"spectral slope, {name}", f"{values['slope']:.2f}"])
        rows.append(
            [f"power in the upper half of the frequencies, {name}", f"{100 * values['share_above_half']:.1f} %"]
        )
    knn = proxies["knn"]
    if knn is None:
        rows.append(["class by nearest neighbours", f"not measured: {proxies['knn_note']}"])
    else:
        rows.append(
            [
                f"class by {knn['k']} nearest neighbours",
                f"{100 * knn['accuracy']:.1f} % (commonest class: {100 * knn['commonest_class']:.1f} %)",
            ]
        )
    if proxies["equivariance"] is None:
        rows.append(["equivariance", f"not measured: {proxies['equivariance_note']}"])
    for name, values in (proxies["equivariance"] or {}).items():
        rows.append(
            [f"{name}: latent error; decoded", f"{values['latent_error']:.3f}; {values['picture_psnr_db']:.1f} dB"]
        )
    return rows


def probe_markdown(report: dict[str, Any]) -> str:
    """The report as Markdown."""
    vae, training, pictures = report["vae"], report["training"], report["pictures"]
    generator = (
        f"Generator: {training['parameters'] / 1e6:.1f} M parameters, {training['steps']:,} steps of "
        f"{training['batch']} ({training['epochs']:.1f} epochs over {pictures['train']:,} latents, "
        f"{pictures['classes']} classes), {training['seconds']:.0f} s on {training['device']}. Loss "
        f"{training['first_loss']:.3f} to {training['last_loss']:.3f}, held out {training['held_out_loss']:.3f}."
    )
    lines = [
        "# Diffusability probe",
        "",
        f"{vae['folder']} ({vae['class']}, f{vae['compression']:g}c{vae['channels']}, {vae['tokens']} tokens).",
        "",
        generator,
        "",
        report["what_it_is_not"],
        "",
        *_markdown_table(_GENERATION, _generation_rows(report)),
        "",
        f"Reference: {report['generation']['reference']}. {report['generation'].get('note', '')}".rstrip(),
        "",
        *_markdown_table(["proxy", "value"], _proxy_rows(report)),
        "",
    ]
    return "\n".join(lines)


def _markdown_table(header: Sequence[str], rows: Sequence[Sequence[str]]) -> list[str]:
    return [
        "| " + " | ".join(header) + " |",
        "|" + " --- |" * len(header),
        *("| " + " | ".join(row) + " |" for row in rows),
    ]


def write_probe_page(
    path: Path,
    recipe: ProbeRecipe,
    report: dict[str, Any],
    trained: Trained,
    spectra: Spectra,
    shown: dict[str, Pictures],
) -> None:
    """The report as one self-contained page. shown: pictures of each sampler and of the held-out set."""
    vae, training = report["vae"], report["training"]
    best = min((v["fid"] for v in report["generation"]["samplers"].values() if v["fid"] is not None), default=None)
    summary = facts(
        [
            (f"f{vae['compression']:g}c{vae['channels']}", f"{vae['class']}, {vae['tokens']} tokens"),
            (f"{training['parameters'] / 1e6:.1f} M", "parameters of the generator"),
            (f"{training['steps']:,}", f"steps of {training['batch']}, {training['epochs']:.1f} epochs"),
            (f"{training['held_out_loss']:.3f}", "held-out velocity loss; 2 before training"),
            (_number(best), f"best FID of {recipe.samples:,} samples"),
        ]
    )
    smooth = max(1, len(trained.losses) // 200)
    losses = np.array(trained.losses[: len(trained.losses) // smooth * smooth]).reshape(-1, smooth).mean(axis=1)
    steps = (np.arange(len(losses)) * smooth).tolist()
    charts = [lines_svg({"velocity loss": (steps, losses.tolist())}, x_label="step", y_label="velocity loss")]
    if spectra:
        curves = {name: (f.tolist(), p.tolist()) for name, (f, p) in spectra.items()}
        charts.append(lines_svg(curves, x_label="cycles a latent cell", y_label="share of power", log_y=True))
    note = report["generation"].get("note", "")
    sections = [
        ("What this is, and what not", summary + paragraph(WHAT_IT_IS_NOT)),
        (
            "Generation",
            table(_GENERATION, _generation_rows(report))
            + paragraph(f"FID against {report['generation']['reference']}. {note}", note=True)
            + grid(charts, wide=True),
        ),
        *(
            (f"Samples, {name}" if name in recipe.samplers else name.capitalize(), _sheet(pictures))
            for name, pictures in reversed(shown.items())
        ),
        ("Proxies that need no training", table(["proxy", "value"], _proxy_rows(report))),
        ("Recipe", folded("The resolved recipe", recipe_to_yaml(recipe))),
    ]
    write_page(path, "Diffusability probe", recipe.vae, sections)


def _sheet(pictures_NHW3: Pictures) -> str:
    """Up to six pictures a row as one image."""
    columns = min(6, len(pictures_NHW3))
    rows = -(-len(pictures_NHW3) // columns)
    height, width = pictures_NHW3.shape[1:3]
    sheet = np.full((rows * (height + 4) - 4, columns * (width + 4) - 4, 3), 255, np.uint8)
    for number, picture in enumerate(pictures_NHW3):
        top, left = number // columns * (height + 4), number % columns * (width + 4)
        sheet[top : top + height, left : left + width] = picture
    return figure(sheet, f"{len(pictures_NHW3)} pictures, the first ones, not chosen")
