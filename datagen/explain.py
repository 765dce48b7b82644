"""`glyphmill filter explain`: what each rule of a run drops, with the pictures at its threshold on both sides."""

from collections import Counter
from html import escape
from pathlib import Path
from typing import Any

import yaml

from datagen.charts import histogram_svg
from datagen.criteria import FilterRecipe
from datagen.decode import PROBLEMS
from datagen.page import facts, figure, grid, paragraph, table, write_page
from datagen.rules import Rule, Value, thresholds
from datagen.samples import light_rows, picture_of, rows_by_id
from datagen.scores import ALIASES, COLUMNS, NAMES
from datagen.storage import Folder
from fonts_manifest.errors import BadInput

_NEAREST = 6
_COPIES = 8
_A_SIDE = 2
ROW_COLUMNS = ("row_id", "keep", "reason", "detail", "duplicate_of", *COLUMNS)
COPIES = ("duplicate", "near_duplicate", "same_text", "benchmark")


def explain_run(run: str, out: Path) -> None:
    """Write one self-contained page about the rules of the filter run `run` to `out`.

    Raises BadInput when `run` is no finished run of `glyphmill filter`.
    """
    rows = light_rows(run, ROW_COLUMNS)
    rules = filter_recipe(run).ordered_rules()
    sections = [("The rules", _overview(rows, rules))]
    pictures = rows_by_id(run, _wanted(rows, rules))
    for rule in rules:
        if any(row["reason"] == rule.name for row in rows):
            sections.append((rule.name, _about(rule, rows, pictures)))
    copies = [row for row in rows if row["reason"] in COPIES]
    if copies:
        sections.append(("Copies", _copies(copies, pictures)))
    problems = [row for row in rows if row["reason"] in (*PROBLEMS, "crashed") and row["reason"] not in COPIES]
    if problems:
        sections.append(("Files without a picture", _problems(problems)))
    write_page(out, f"{Path(run).name}: what each rule drops", str(run), sections)


def threshold_figures(run: str) -> str:
    """Per rule of a filter run the dropped pictures nearest to its threshold and the kept ones, a few of each."""
    rows = light_rows(run, ROW_COLUMNS)
    rules = [rule for rule in filter_recipe(run).ordered_rules() if any(row["reason"] == rule.name for row in rows)]
    pictures = rows_by_id(
        run, [row["row_id"] for rule in rules for keep in (True, False) for row in _nearest(rule, rows, keep)[:_A_SIDE]]
    )
    parts = []
    for rule in rules:
        chosen = [row for keep in (False, True) for row in _nearest(rule, rows, keep)[:_A_SIDE]]
        parts.append(f"<h3><code>{escape(rule.text)}</code>, or {escape(rule.name)}</h3>")
        parts.append(grid([_figure(rule, row, pictures) for row in chosen]))
    return "".join(parts)


def filter_recipe(run: str) -> FilterRecipe:
    """The recipe of a run. Raises BadInput when `glyphmill filter` did not make it."""
    recipe = yaml.safe_load(Folder(run).read("recipe.yaml"))
    if not isinstance(recipe, dict) or recipe.get("kind") != "filter":
        raise BadInput(f"{run}: was not made by glyphmill filter; glyphmill inspect shows runs of any kind")
    return FilterRecipe.model_validate(recipe)


def _score(row: dict[str, Any], name: str) -> Value:
    """A score of a stored row, as rules see it."""
    name = ALIASES.get(name, name)
    if name not in ("min_side", "megapixels", "aspect"):
        value: Value = row[name]
        return value
    width, height = row["width"], row["height"]
    if width is None or height is None:
        return None
    if name == "megapixels":
        return float(width * height / 1e6)
    return float(min(width, height) if name == "min_side" else max(width, height) / min(width, height))


def _overview(rows: list[dict[str, Any]], rules: list[Rule]) -> str:
    kept = sum(row["keep"] for row in rows)
    reasons = Counter(row["reason"] for row in rows if not row["keep"])
    figures = [
        (f"{len(rows):,}", "pictures and pages seen"),
        (f"{kept:,}", "kept"),
        (f"{len(rows) - kept:,}", "dropped"),
    ]
    lines = []
    for rule in rules:
        failing = sum(rule.holds(lambda name, row=row: _score(row, name)) is False for row in rows)  # type: ignore[misc]
        lines.append([rule.name, rule.text, f"{reasons[rule.name]:,}", f"{failing:,}"])
    others = [
        [reason, "", f"{n:,}", ""] for reason, n in reasons.most_common() if reason not in {r.name for r in rules}
    ]
    note = (
        "In the order in which they are asked. A picture goes by the first rule that it breaks; the last column counts "
        "all that are known to break it, also those that went before (scores that nobody asked for are not known)."
    )
    return (
        facts(figures)
        + table(["rule", "what must be true", "dropped by it", "break it"], [*lines, *others])
        + paragraph(note, note=True)
    )


def _edge(rule: Rule, row: dict[str, Any]) -> float | None:
    """How far a row lies from the nearest threshold of a rule, in shares of it; None when that cannot be said."""
    distances = []
    for name, number in thresholds(rule):
        value = _score(row, name)
        if isinstance(value, int | float):
            distances.append(abs(value - number) / (abs(number) or 1.0))
    return min(distances, default=None)


def _nearest(rule: Rule, rows: list[dict[str, Any]], keep: bool) -> list[dict[str, Any]]:
    mine = [row for row in rows if (row["keep"] if keep else row["reason"] == rule.name)]
    ordered = sorted(
        ((edge, row["row_id"], row) for row in mine if (edge := _edge(rule, row)) is not None), key=lambda one: one[:2]
    )
    if not ordered and not keep:
        return mine[:_NEAREST]
    return [row for _, _, row in ordered[:_NEAREST]]


def _wanted(rows: list[dict[str, Any]], rules: list[Rule]) -> list[str]:
    wanted = [row["row_id"] for rule in rules for keep in (True, False) for row in _nearest(rule, rows, keep)]
    for row in [row for row in rows if row["reason"] in COPIES][:_COPIES]:
        wanted += [row["row_id"], row["duplicate_of"] or ""]
    return wanted


def _about(rule: Rule, rows: list[dict[str, Any]], pictures: dict[str, dict[str, Any]]) -> str:
    meanings = [f"{name}: {NAMES[ALIASES.get(name, name)].meaning}." for name in sorted(rule.names)]
    parts = [f"<p><code>{escape(rule.text)}</code></p>", paragraph(" ".join(meanings), note=True)]
    charts = []
    for name in sorted(rule.names):
        if NAMES[ALIASES.get(name, name)].kind != "number":
            continue
        groups = {
            "kept": [v for row in rows if row["keep"] and isinstance(v := _score(row, name), int | float)],
            f"dropped by {rule.name}": [
                v for row in rows if row["reason"] == rule.name and isinstance(v := _score(row, name), int | float)
            ],
        }
        marks = [number for score, number in thresholds(rule) if score == name]
        if any(groups.values()):
            charts.append(histogram_svg(groups, label=name, marks=marks))
    parts.append(grid(charts, wide=True))
    for keep, heading in ((False, "Dropped, nearest to the threshold first"), (True, "Kept, nearest first")):
        chosen = _nearest(rule, rows, keep)
        figures = [_figure(rule, row, pictures) for row in chosen]
        if figures:
            parts.append(f"<h3>{heading}</h3>" + grid(figures))
    return "".join(parts)


def _figure(rule: Rule, row: dict[str, Any], pictures: dict[str, dict[str, Any]]) -> str:
    values = ((name, _score(row, name)) for name in sorted(rule.names))
    shown = ", ".join(
        f"{name} {value:.4g}" if isinstance(value, int | float) else f"{name} {value}"
        for name, value in values
        if value is not None
    )
    verdict = '<span class="keep">kept</span>' if row["keep"] else f'<span class="drop">{escape(row["reason"])}</span>'
    return _shown(pictures.get(row["row_id"]), f"{escape(shown)}<br>{escape(_short(row['origin']))}<br>{verdict}")


def _shown(stored: dict[str, Any] | None, caption: str) -> str:
    image_HW3 = picture_of(stored) if stored is not None else None
    return (
        f"<figure><figcaption>(no picture stored) {caption}</figcaption></figure>"
        if image_HW3 is None
        else figure(image_HW3, caption)
    )


def _short(origin: str) -> str:
    return origin.rsplit("/", 1)[-1]


def _copies(copies: list[dict[str, Any]], pictures: dict[str, dict[str, Any]]) -> str:
    pairs = []
    for row in copies[:_COPIES]:
        original = pictures.get(row["duplicate_of"] or "")
        pairs.append(
            _shown(
                pictures.get(row["row_id"]),
                f'{escape(_short(row["origin"]))}<br><span class="drop">{row["reason"]}</span>',
            )
        )
        name = original["origin"] if original else row["duplicate_of"]
        pairs.append(_shown(original, f'{escape(_short(name or ""))}<br><span class="keep">of this one</span>'))
    counts = Counter(row["reason"] for row in copies)
    return table(["reason", "pictures"], [[reason, f"{n:,}"] for reason, n in counts.most_common()]) + grid(pairs)


def _problems(problems: list[dict[str, Any]]) -> str:
    lines = [[_short(row["origin"]), row["reason"], row["detail"] or ""] for row in problems[:200]]
    return table(["file", "reason", "what was wrong"], lines)
