"""The model card of a training run: what was trained, how, on which data and licences, how well, with pictures."""

import json
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import yaml

from datagen.codec import encode_png
from datagen.recipes import load_recipe
from fonts_manifest.errors import BadInput
from vae.evaluate import network, reconstruct
from vae.feed import open_source
from vae.logs import TrainReport, explained, read_metrics, read_report
from vae.model import GSCAutoencoder
from vae.recipes import TrainRecipe
from vae.saved import load_model
from vae.source import SourceConfig, held_out_pictures

CARD = "README.md"
SHEET = "reconstructions.png"

SHOWN = 4
"""Pictures of each source above their reconstructions."""


def write_model_cards(run: Path) -> list[Path]:
    """`README.md` and a sheet of held-out pictures beside the weights of a finished run: `model/` and `ema/`.

    Returns the cards. Raises BadInput when the run is not finished or cannot be written.
    """
    report = read_report(run)
    if report is None:
        raise BadInput(f"{run}: no finished training run (report.json is missing)")
    if not (run / "recipe.yaml").is_file():
        raise BadInput(f"{run}: holds no recipe.yaml; runs of `glyphmill train` have one")
    recipe = load_recipe(run / "recipe.yaml", TrainRecipe, [])
    pictures = {source.name: _held_out(source, recipe) for source in recipe.sources}
    cards = []
    for name in (report.model, report.ema):
        model = load_model(run / name)
        with explained(run / name):
            shown = [found for found in pictures.values() if len(found)]
            if shown:
                (run / name / SHEET).write_bytes(encode_png(_sheet(model, shown)))
            card = run / name / CARD
            card.write_text(_card(run, name, recipe, report, model, list(pictures) if shown else []), encoding="utf-8")
        cards.append(card)
    return cards


def _held_out(source: SourceConfig, recipe: TrainRecipe) -> list[npt.NDArray[np.uint8]]:
    """Pictures that were never trained on; none where the data are no longer where they were."""
    try:
        opened = open_source(source, recipe.crop_px, recipe.hold_out)
    except BadInput:
        return []
    return [image_HW3 for _, image_HW3 in held_out_pictures(opened, SHOWN, recipe.validate_px)]


def _sheet(model: GSCAutoencoder, groups: Sequence[Sequence[npt.NDArray[np.uint8]]]) -> npt.NDArray[np.uint8]:
    """A row of originals and a row of reconstructions for each source."""
    rows = []
    for pictures in groups:
        originals = np.stack(pictures)
        for row in (originals, reconstruct(network(model), originals)):
            padded = np.full((SHOWN, *originals.shape[1:]), 255, np.uint8)
            padded[: len(row)] = row
            rows.append(np.concatenate(list(padded), axis=1))
    return np.ascontiguousarray(np.concatenate(rows, axis=0))


def _card(
    run: Path, name: str, recipe: TrainRecipe, report: TrainReport, model: GSCAutoencoder, shown: Sequence[str]
) -> str:
    config = model.config
    kind = f"f{model.compression}c{config.latent_channels}"
    header = {
        "library_name": "diffusers",
        "pipeline_tag": "image-to-image",
        "tags": ["autoencoder", "text-rendering", "glyphmill", kind],
        "license": "other",
        "license_name": "see-licences-of-the-data",
    }
    average = "The moving average of the weights" if name == report.ema else "The weights after the last step"
    encoder, decoder = (sum(p.numel() for p in part.parameters()) for part in (model.encoder, model.decoder))
    use = (
        "```python\nimport diffusers\n\n"
        "vae = diffusers.AutoModel.from_pretrained(FOLDER, trust_remote_code=True).eval()  # this folder\n"
        "latents = vae.encode(pictures).latent_dist.mode()  # pictures: (B, 3, H, W) in [-1, 1], sides multiples of "
        f"{model.compression}\npictures = vae.decode(latents).sample\n```\n"
    )
    summary = (
        f"{average} of a run of {report.steps:,} steps over {report.pictures:,} crops: {encoder:,} parameters in the "
        f"encoder, {decoder:,} in the decoder, skip `{config.skip}`, basis `{config.skip_basis}`; no KL, no GAN.\n"
    )
    recipe_yaml = _text(run / "recipe.yaml").strip()
    parts = [
        f"---\n{yaml.safe_dump(header, sort_keys=False)}---\n",
        f"# A GSC autoencoder, {kind}\n",
        summary,
        use,
        "Latents are raw; `latents_mean` and `latents_std` in `config.json` standardise them channel by channel.\n",
        f"## Held-out pictures\n\n{_figures(run, report)}\n",
        f"![originals above reconstructions: {', '.join(shown)}]({SHEET})\n" if shown else "",
        f"## Data\n\n{''.join(_data(source, report) for source in recipe.sources)}",
        f"## Recipe\n\nHash `{report.recipe_hash}`.\n\n```yaml\n{recipe_yaml}\n```\n",
        f"Libraries: {_versions(run)}.\n",
    ]
    return "\n".join(part for part in parts if part)


def _figures(run: Path, report: TrainReport) -> str:
    """PSNR, SSIM and NED of every source before and after training."""
    validations = [record for record in read_metrics(run) if record["kind"] == "validation"]
    first, last = validations[0], validations[-1]
    rows = [
        f"| {name} | {report.psnr_start_db[name]:.2f} | {after:.2f} | {last['ssim'][name]:.4f} | {_ned(last, name)} |"
        for name, after in report.psnr_end_db.items()
    ]
    how = (
        "Measured on crops of pictures that were never trained on, with the moving average of the weights, after "
        f"{last['step']:,} steps; before: after {first['step']:,}."
    )
    head = ["| source | PSNR before, dB | PSNR, dB | SSIM | NED |", "|---|---|---|---|---|"]
    return "\n".join([*head, *rows, "", how])


def _ned(record: dict[str, Any], source: str) -> str:
    value = (record.get("ned") or {}).get(source)
    return "-" if value is None else f"{value:.3f}"


def _data(source: SourceConfig, report: TrainReport) -> str:
    """A source, its counts, and the licences that its data card names."""
    shares = ", ".join(f"{weight:g} from step {step:,}" for step, weight in source.weights)
    if source.live is None:
        counts, folder = report.sources.get(source.name, {}), source.run
        what = (
            f"`{source.run}`: {counts.get('train', 0):,} pictures for training, {counts.get('held_out', 0):,} held out"
        )
    else:
        changes = "".join(f" `{change}`" for change in source.live.overrides)
        what = f"Drawn while it was trained on, by the recipe `{source.live.recipe}`{changes}"
    folder = source.run if source.live is None else (source.live.tee or source.live.judge or "")
    card = _text(Path(folder) / "README.md") if folder else ""
    licences = re.search(r"^## Licences\n(.*?)(?=^## |\Z)", card, re.DOTALL | re.MULTILINE)
    known = licences[1].strip() if licences else "Its licences are not on record here."
    return f"### {source.name}\n\n{what}. Weight in the mixture: {shares}.\n\n{known}\n\n"


def _versions(run: Path) -> str:
    try:
        versions = json.loads(_text(run / "versions.json") or "{}")
    except ValueError:
        versions = {}
    return ", ".join(f"{name} {version}" for name, version in versions.items()) or "not on record"


def _text(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError):
        return ""
