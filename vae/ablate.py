"""Ablations: variants of one training from equal seeds on equal pictures, and how their figures move with the steps."""

import functools
import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from statistics import mean, stdev
from typing import Any, Literal, Self

from pydantic import Field, ValidationError, field_validator, model_validator

from datagen.criteria import keep_all
from datagen.filter import filter_corpus
from datagen.generate import generate
from datagen.ingest import IngestConfig
from datagen.plan import GenerateRecipe, KeepAll
from datagen.progress import ProgressReport, silent
from datagen.recipes import recipe_hash, recipe_to_yaml
from fonts_manifest.config import Config
from vae.logs import explained, read_metrics
from vae.recipes import TrainRecipe, training_hash
from vae.train import train

METRICS = {"psnr_db": "PSNR, dB", "ned": "NED", "ssim": "SSIM"}
"""Key of a validation's record -> what tables and axes call it."""

_DIGITS = {"psnr_db": 2, "ned": 3, "ssim": 3}


class AblationRecipe(Config):
    """Train variants of one recipe and compare them."""

    kind: Literal["ablate"]
    """Which command reads this recipe."""
    drawn: dict[str, GenerateRecipe] = Field(default={})
    """Name of a run -> what is drawn for it. No page is judged, so text must be legible by how it is drawn."""
    real: dict[str, IngestConfig] = Field(default={})
    """Name of a run -> the files it is made of; every picture that can be decoded."""
    train: TrainRecipe
    """What all variants have in common. `run` of a source is a name from above, or the folder of a finished run."""
    variants: dict[str, dict[str, Any]] = Field(min_length=2)
    """Name -> the fields of `train` that are different in it; the others are compared with the first."""
    seeds: tuple[int, ...] = Field(default=(0, 1, 2), min_length=1)
    """Each variant is trained once from each: initial weights, order of the pictures, crops."""

    @field_validator("variants")
    @classmethod
    def _are_folder_names(cls, given: dict[str, dict[str, Any]]) -> dict[str, dict[str, Any]]:
        for name in given:
            if not name.strip() or name.startswith(".") or not all(c.isalnum() or c in " .,_+-()" for c in name):
                raise ValueError(f"{name!r} is no name for a folder: letters, digits, blanks and .,_+-() only")
        return given

    @model_validator(mode="after")
    def _variants_are_recipes(self) -> Self:
        for name in self.variants:
            try:
                self.variant(name, self.seeds[0])
            except ValidationError as problem:
                error = problem.errors()[0]
                where = ".".join(str(part) for part in error["loc"])
                raise ValueError(f"variant {name}: {where + ': ' if where else ''}{error['msg']}") from None
        return self

    def variant(self, name: str, seed: int) -> TrainRecipe:
        """What is trained under this name from this seed."""
        return TrainRecipe.model_validate(_merged(self.train.model_dump(), self.variants[name]) | {"seed": seed})


def _merged(base: Any, changes: Any) -> Any:
    """Mappings are merged key by key, everything else is replaced."""
    if not isinstance(base, dict) or not isinstance(changes, dict):
        return changes
    return base | {key: _merged(base.get(key), value) for key, value in changes.items()}


@dataclass(frozen=True, slots=True, kw_only=True)
class Curve:
    """What one training measured on held-out pictures."""

    variant: str
    seed: int
    steps: list[int]
    """Steps finished at each measurement."""
    values: dict[str, dict[str, list[float]]]
    """Metric (`METRICS`) -> source -> a number for each of `steps`."""
    seconds: float
    """Wall time of its steps: comparable within an undisturbed run on one machine."""


def run_ablation(recipe: AblationRecipe, out: Path, progress: ProgressReport = silent) -> list[Curve]:
    """Make the pictures, train every variant from every seed, seed by seed; write tables and a plot after each.

    `out` holds `data/`, `runs/`, `ablation.md`, `ablation.json` and `ablation.png`. Cut off at any moment, the same
    call goes on. Raises BadInput as the data engine and the trainer do.
    """
    folders = {name: out / "data" / name for name in (*recipe.drawn, *recipe.real)}
    for name, drawn in recipe.drawn.items():
        generate(
            drawn,
            recipe_hash(drawn),
            recipe_to_yaml(drawn),
            str(folders[name]),
            executor="serial",
            judge=KeepAll(),
            progress=progress,
        )
    for name, files in recipe.real.items():
        real = keep_all(files)
        filter_corpus(
            real,
            recipe_hash(real),
            str(folders[name]),
            executor="serial",
            recipe_yaml=recipe_to_yaml(real),
            progress=progress,
        )
    curves = []
    for name, seed in ((name, seed) for seed in recipe.seeds for name in recipe.variants):
        asked = recipe.variant(name, seed)
        sources = tuple(s.model_copy(update={"run": str(folders.get(s.run, s.run))}) for s in asked.sources)
        asked = asked.model_copy(update={"sources": sources})
        label = f"{name}, seed {seed}"
        place = out / "runs" / label
        told = functools.partial(_tell, progress, label)
        report = train(asked, training_hash(asked), place, recipe_yaml=recipe_to_yaml(asked), progress=told)
        curves.append(_curve(name, seed, place, report.seconds))
        _write(curves, out)
    return curves


def _tell(progress: ProgressReport, label: str, _: str, done: int, total: int, counts: Mapping[str, Any]) -> None:
    progress(label, done, total, counts)


def _curve(variant: str, seed: int, place: Path, seconds: float) -> Curve:
    records = [record for record in read_metrics(place) if record["kind"] == "validation"]
    values = {
        metric: {source: [record[metric][source] for record in records] for source in records[0][metric]}
        for metric in METRICS
    }
    return Curve(
        variant=variant, seed=seed, steps=[record["step"] for record in records], values=values, seconds=seconds
    )


def _write(curves: Sequence[Curve], out: Path) -> None:
    with explained(out):
        (out / "ablation.json").write_text(json.dumps([asdict(curve) for curve in curves], indent=1))
        (out / "ablation.md").write_text(ablation_markdown(curves))
        draw_ablation(curves, out / "ablation.png")


def ablation_markdown(curves: Sequence[Curve]) -> str:
    """A table for every metric and source: steps down, variants across, mean and standard deviation over the seeds;
    then what each variant is above the first, paired by seed, at the last step."""
    names = list(dict.fromkeys(curve.variant for curve in curves))
    seeds = sorted({curve.seed for curve in curves})
    lines = [f"Seeds: {', '.join(map(str, seeds))}. Mean ± standard deviation over the seeds."]
    for metric, source in _panels(curves):
        by_variant = {name: _by_step(curves, name, metric, source) for name in names}
        steps = sorted({step for found in by_variant.values() for step in found})
        lines += ["", f"**{METRICS[metric]}, {source}**", "", _row(["step", *names]), _row(["---:"] * (len(names) + 1))]
        for step in steps:
            cells = [_figure(list(found.get(step, {}).values()), metric) for found in by_variant.values()]
            lines.append(_row([f"{step:,}", *cells]))
        gains = [_gain(by_variant, names[0], name, metric) for name in names[1:]]
        lines.append(_row([f"above {names[0]}", "", *gains]))
    times = [_times([curve.seconds for curve in curves if curve.variant == name]) for name in names]
    lines += ["", _row(["", *names]), _row(["---:"] * (len(names) + 1)), _row(["s of steps", *times]), ""]
    return "\n".join(lines)


def _panels(curves: Sequence[Curve]) -> Iterator[tuple[str, str]]:
    """Every metric and source that was measured."""
    for metric in METRICS:
        for source in dict.fromkeys(source for curve in curves for source in curve.values[metric]):
            yield metric, source


def _by_step(curves: Sequence[Curve], variant: str, metric: str, source: str) -> dict[int, dict[int, float]]:
    """Step -> seed -> value."""
    found: dict[int, dict[int, float]] = {}
    for curve in curves:
        if curve.variant == variant:
            for step, value in zip(curve.steps, curve.values[metric].get(source, []), strict=False):
                found.setdefault(step, {})[curve.seed] = value
    return found


def _gain(by_variant: Mapping[str, dict[int, dict[int, float]]], first: str, other: str, metric: str) -> str:
    """At the last step of each, over the seeds that both have."""
    if not by_variant[first] or not by_variant[other]:
        return ""
    base, found = (by_variant[name][max(by_variant[name])] for name in (first, other))
    return _figure([found[seed] - base[seed] for seed in found if seed in base], metric, sign="+")


def _figure(values: Sequence[float], metric: str, sign: str = "") -> str:
    digits = _DIGITS[metric]
    if not values:
        return ""
    spread = f" ± {stdev(values):.{digits}f}" if len(values) > 1 else ""
    return f"{mean(values):{sign}.{digits}f}{spread}"


def _times(seconds: Sequence[float]) -> str:
    return f"{mean(seconds):.0f}"


def _row(cells: Sequence[str]) -> str:
    return f"| {' | '.join(cells)} |"


def draw_ablation(curves: Sequence[Curve], path: Path) -> None:
    """PSNR and NED of every source over the steps: lines of means, bands from the lowest to the highest seed."""
    from matplotlib.figure import Figure

    panels = [panel for panel in _panels(curves) if panel[0] != "ssim"]
    figure = Figure(figsize=(4.5 * len(panels), 3.6), layout="constrained")
    for axes, (metric, source) in zip(figure.subplots(1, len(panels), squeeze=False)[0], panels, strict=True):
        for name in dict.fromkeys(curve.variant for curve in curves):
            found = sorted(_by_step(curves, name, metric, source).items())
            steps, values = [step for step, _ in found], [list(of.values()) for _, of in found]
            (line,) = axes.plot(steps, [mean(of) for of in values], marker="o", markersize=3, label=name)
            axes.fill_between(steps, list(map(min, values)), list(map(max, values)), alpha=0.2, color=line.get_color())
        axes.set(xlabel="step", ylabel=METRICS[metric], title=source)
        axes.grid(alpha=0.3)
    figure.legend(*axes.get_legend_handles_labels(), loc="outside right center", frameon=False)
    figure.savefig(path, dpi=110, metadata={"Software": None})
