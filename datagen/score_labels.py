"""`glyphmill filter score-labels`: how well the scores tell apart pictures that a person has labelled."""

import csv
import io
import json
import math
from collections import defaultdict
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import numpy.typing as npt

from datagen.codec import encode_png
from datagen.criteria import FilterRecipe, failing_rule
from datagen.decode import ImageProblem
from datagen.ingest import IngestConfig, RealItem, RealPlace, fingerprint
from datagen.scores import NAMES, SPECTRUM, Picture
from fonts_manifest.errors import BadInput

Image = npt.NDArray[np.uint8]

DEGRADATIONS: dict[str, Callable[[Image], Image]] = {
    "jpeg_q10": lambda image: _jpeg(image, 10),
    "jpeg_q30": lambda image: _jpeg(image, 30),
    "blur_1px": lambda image: cv2.GaussianBlur(image, (0, 0), 1.0),
    "blur_2px": lambda image: cv2.GaussianBlur(image, (0, 0), 2.0),
    "down_up_2x": lambda image: _down_up(image, 2),
    "down_up_3x": lambda image: _down_up(image, 3),
    "noise_16": lambda image: _grain(image, 16.0),
}
"""What `--degrade` does to every picture labelled as undamaged; stored as PNG, so the pixels alone must tell."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Label:
    """One picture of a labelled set."""

    file: str
    label: str
    """Such as none, sparse, medium, dense."""
    degradation: str = ""
    """What was done to it; "" for nothing."""


Measured = tuple[Label, dict[str, Any], str]
"""A label, the scores of its picture, and the reason for which the rules drop it."""


@dataclass(frozen=True, slots=True, kw_only=True)
class LabelFigures:
    """What came out."""

    pictures: int
    unreadable: list[str]
    """Files that could not be read, with the reason."""
    median_density: dict[str, float]
    """Label -> median characters a megapixel, of undamaged pictures."""
    density_auc: float
    """Area under the curve of characters_per_mp for the labels that were named positive, among undamaged pictures."""
    degradations: dict[str, dict[str, float]]
    """Degradation -> score -> area under the curve against the undamaged; below .5 the score falls."""
    dropped: dict[str, dict[str, float]]
    """Label or degradation -> reason -> share of its pictures that the recipe's rules drop for it."""


def read_labels(path: Path) -> list[Label]:
    """Labels from JSON (a list of objects) or CSV with `file`, `label` and, optionally, `degradation`.

    Raises BadInput when the file cannot be read or lacks them.
    """
    try:
        text = path.read_text(encoding="utf-8")
        rows = json.loads(text) if path.suffix == ".json" else list(csv.DictReader(io.StringIO(text)))
        found = [Label(file=row["file"], label=row["label"], degradation=row.get("degradation") or "") for row in rows]
    except OSError as error:
        raise BadInput(f"{path}: cannot be read ({error.strerror})") from None
    except (ValueError, TypeError, KeyError, AttributeError) as error:
        raise BadInput(f"{path}: no list of objects with file and label, as JSON or CSV ({error!r})") from None
    if not found:
        raise BadInput(f"{path}: holds no label")
    return found


def score_labels(
    labels: Sequence[Label],
    pictures: Path,
    recipe: FilterRecipe,
    positive: Iterable[str],
    *,
    degrade: bool = False,
    progress: Callable[[int, int], None] = lambda done, total: None,
) -> LabelFigures:
    """Measure every labelled picture in the folder `pictures` with all scores, and compare.

    positive: labels that a density threshold should keep. degrade: also damage every undamaged picture in each of the
    ways of `DEGRADATIONS` and measure what pixels can tell of it.
    """
    rules = recipe.ordered_rules()
    scores: list[Measured] = []
    unreadable = []
    for number, label in enumerate(labels):
        progress(number, len(labels))
        path = str((pictures / label.file).absolute())
        try:
            item = RealItem(path=path, origin=label.file, licence="", sha256=fingerprint(path))
            picture = Picture(item=item, config=recipe.input, recognizer=recipe.recognizer)
            failed = failing_rule(picture, rules)
            picture.read()
            for name in NAMES:
                picture.lookup(name)
            scores.append((label, picture.known, failed.name if failed else ""))
            if degrade and not label.degradation:
                scores.extend(_damaged(label, picture, recipe))
        except (ImageProblem, BadInput) as problem:
            unreadable.append(f"{label.file}: {problem}")
    progress(len(labels), len(labels))
    return _figures(scores, unreadable, set(positive))


def _damaged(label: Label, picture: Picture, recipe: FilterRecipe) -> list[Measured]:
    """What pixels tell of copies of a picture, damaged in each way."""
    found = []
    pixel_rules = [rule for rule in recipe.ordered_rules() if rule.stage <= SPECTRUM]
    for name, damage in DEGRADATIONS.items():
        copy = Picture.of_bytes(encode_png(damage(picture.image_HW3())), picture)
        failed = failing_rule(copy, pixel_rules)
        for score, known in NAMES.items():
            if known.stage <= SPECTRUM:
                copy.lookup(score)
        made = Label(file=label.file, label=label.label, degradation=f"{name} (made here)")
        found.append((made, copy.known, failed.name if failed else ""))
    return found


def _figures(scores: list[Measured], unreadable: list[str], positive: set[str]) -> LabelFigures:
    clean = [(label, known) for label, known, _ in scores if not label.degradation]
    by_label: defaultdict[str, list[float]] = defaultdict(list)
    for label, known in clean:
        by_label[label.label].append(known["characters_per_mp"])
    names = [name for name, score in NAMES.items() if score.kind == "number" and name not in ("width", "height")]
    degradations: dict[str, dict[str, float]] = {}
    for kind in sorted({label.degradation for label, _, _ in scores} - {""}):
        damaged = [known for label, known, _ in scores if label.degradation == kind]
        areas = {name: _area(damaged, [known for _, known in clean], name) for name in names}
        told = {name: area for name, area in areas.items() if not math.isnan(area)}
        degradations[kind] = dict(sorted(told.items(), key=lambda one: -abs(one[1] - 0.5)))
    groups: defaultdict[str, list[str]] = defaultdict(list)
    for label, _, reason in scores:
        groups[label.degradation or label.label].append(reason)
    return LabelFigures(
        pictures=len(scores),
        unreadable=unreadable,
        median_density={label: float(np.median(values)) for label, values in by_label.items()},
        density_auc=auc(
            [known["characters_per_mp"] for label, known in clean if label.label in positive],
            [known["characters_per_mp"] for label, known in clean if label.label not in positive],
        ),
        degradations=degradations,
        dropped={
            group: {reason: reasons.count(reason) / len(reasons) for reason in sorted(set(reasons) - {""})}
            for group, reasons in groups.items()
        },
    )


def _area(damaged: Sequence[Mapping[str, Any]], clean: Sequence[Mapping[str, Any]], name: str) -> float:
    """Of the score `name`; a JPEG quality that a picture does not have is that of an undamaged one, 100."""
    missing = 100.0 if name.startswith("jpeg_") else math.nan
    sides = [[missing if (v := known.get(name)) is None else float(v) for known in side] for side in (damaged, clean)]
    return auc(*([value for value in side if not math.isnan(value)] for side in sides))


def auc(positive: Sequence[float], negative: Sequence[float]) -> float:
    """Chance that a positive lies above a negative, ties counted half (Mann-Whitney U over both counts); nan when one
    side is empty."""
    if not positive or not negative:
        return math.nan
    a, b = np.asarray(positive, np.float64)[:, None], np.asarray(negative, np.float64)[None]
    return float((a > b).mean() + 0.5 * (a == b).mean())


def describe_figures(figures: LabelFigures, positive: Iterable[str]) -> str:
    """The figures as lines for a terminal."""
    lines = [f"{figures.pictures} pictures measured", "", "median characters per megapixel, undamaged:"]
    medians = sorted(figures.median_density.items(), key=lambda one: one[1])
    lines += [f"  {name:10} {value:8.0f}" for name, value in medians]
    lines.append(f"area under the curve for {' or '.join(positive)}: {figures.density_auc:.3f}")
    for kind, areas in figures.degradations.items():
        best = [
            f"{name} {area:.3f}" if area > 0.5 else f"{name} {1 - area:.3f} (falls)" for name, area in areas.items()
        ]
        lines.append(f"{kind} against undamaged: {', '.join(best[:4])}")
    lines += ["", "dropped by the rules:"]
    for group, reasons in figures.dropped.items():
        shares = sorted(reasons.items(), key=lambda one: (-one[1], one[0]))
        lines.append(f"  {group:26} {', '.join(f'{reason} {share:.0%}' for reason, share in shares) or 'none'}")
    return "\n".join([*lines, *(f"not read: {problem}" for problem in figures.unreadable)])


def labels_recipe(pictures: Path) -> FilterRecipe:
    """The default rules, over one folder."""
    return FilterRecipe(input=IngestConfig(places=(RealPlace(place=str(pictures), licence=""),)))


def _jpeg(image_HW3: Image, quality: int) -> Image:
    _, data = cv2.imencode(".jpg", image_HW3[:, :, ::-1], [cv2.IMWRITE_JPEG_QUALITY, quality])
    return np.ascontiguousarray(cv2.imdecode(data, cv2.IMREAD_COLOR)[:, :, ::-1])


def _down_up(image_HW3: Image, factor: int) -> Image:
    height, width = image_HW3.shape[:2]
    small = cv2.resize(image_HW3, (max(1, width // factor), max(1, height // factor)), interpolation=cv2.INTER_AREA)
    return np.asarray(cv2.resize(small, (width, height), interpolation=cv2.INTER_CUBIC), np.uint8)


def _grain(image_HW3: Image, sigma: float) -> Image:
    grain_HW3 = np.random.default_rng(0).normal(0, sigma, image_HW3.shape)
    return np.clip(np.rint(image_HW3 + grain_HW3), 0, 255).astype(np.uint8)
