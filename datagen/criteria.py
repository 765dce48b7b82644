"""What a real picture must be to be kept: the recipe of a filter run, and the judgement of one picture."""

from collections.abc import Sequence
from typing import Any, Literal

from pydantic import Field, field_validator

from datagen.decode import ImageProblem
from datagen.dedup import BenchmarkConfig, DuplicatesConfig, perceptual_hash
from datagen.density import Density
from datagen.ingest import IngestConfig, RealItem, pixel_columns, real_row
from datagen.recipes import override
from datagen.rules import UNDECIDED, Rule, conjuncts, parse_rule
from datagen.scores import ALIASES, DETECT, GLANCE, KNOWN, READ, Picture
from fonts_manifest.config import Config

DEFAULT_RULES: dict[str, str] = {
    "too_small": "min_side >= 256",
    "too_narrow": "aspect <= 5",
    "blank": "blank_share <= 0.97",
    "too_dark": "luma_mean >= 12",
    "low_contrast": "luma_range >= 40",
    "noisy": "noise <= 6",
    "jpeg_damage": "jpeg_quality >= 40 and jpeg_history >= 40",
    "blurred": "sharpness is not None and sharpness >= -2.4",
    "upscaled": "upscale <= 2",
    "watermarked": "repeated_marks <= 0.065",
    "sparse_text": "density_class != 'sparse'",
    "repeated_text": "repeated_text <= 0.6",
}
"""Evidence for the thresholds: docs/filtering.md."""


class FilterRecipe(Config):
    """What a real picture must be to be kept. Rules that need cheap scores are asked first; the first that fails is
    the reason. `glyphmill filter scores` lists the names that rules may use."""

    kind: Literal["filter"] = "filter"
    """What this recipe is for."""
    input: IngestConfig
    """The files."""
    rules: dict[str, str] = Field(default={})
    """Reason -> what must be true of a picture that stays, such as blurred: "sharpness >= -2.4". Rules given here
    replace the defaults of their names or come on top; "" switches one off. What is unknown (the jpeg_quality of a PNG)
    drops nothing. sparse_text is on by default: a few words in a photograph serve neither the text set nor the general
    one."""
    keep: str = ""
    """One more expression, such as "chars_per_mp > 2000 and sharpness > -2"; each part joined by `and` is a rule whose
    reason is the part itself."""
    recognizer: str = "rapidocr"
    """The reader that counts characters."""
    read_kept: bool = True
    """Whether kept pictures are read in full, also where no rule needed it: their text is a column, and copies are told
    by it."""
    score_all: bool = False
    """Whether all scores are measured of every picture, those that a cheap rule has dropped too: slow, for finding
    thresholds."""
    duplicates: DuplicatesConfig | None = DuplicatesConfig()
    """When a picture is a copy of another; null: copies stay."""
    benchmark: BenchmarkConfig | None = None
    """Pictures that must not be trained on, and their copies go as "benchmark"."""
    rejected_pictures: bool = True
    """Whether rejected rows keep their pictures, or only scores and reasons."""
    rows_per_shard: int = Field(default=64, ge=1)
    """Pictures looked at by one task; its kept and rejected rows are two files."""

    @field_validator("rules")
    @classmethod
    def _with_defaults(cls, given: dict[str, str]) -> dict[str, str]:
        merged = DEFAULT_RULES | given
        for name, text in merged.items():
            if text.strip():
                parse_rule(name, text, KNOWN)
        return merged

    @field_validator("keep")
    @classmethod
    def _is_expression(cls, keep: str) -> str:
        if keep.strip():
            parse_rule("keep", keep, KNOWN)
        return keep

    def ordered_rules(self) -> list[Rule]:
        """All rules, cheapest first; equal costs in the order of the recipe, `keep` last."""
        rules = [parse_rule(name, text, KNOWN) for name, text in self.rules.items() if text.strip()]
        if self.keep.strip():
            rules += [parse_rule(part, part, KNOWN) for part in conjuncts(self.keep)]
        return sorted(rules, key=lambda rule: rule.stage)


def ingest_recipe(places: Sequence[str], licence: str, settings: Sequence[str] = ()) -> FilterRecipe:
    """The recipe that keeps every picture that can be decoded, unread. settings: `key=value` of `IngestConfig`.

    Raises BadInput for a setting that there is not.
    """
    raw: dict[str, Any] = {"places": [{"place": place, "licence": licence} for place in places]}
    return keep_all(override(raw, settings, IngestConfig))


def keep_all(config: IngestConfig) -> FilterRecipe:
    """The recipe that keeps every picture of these files that can be decoded, unread."""
    return FilterRecipe(input=config, rules=dict.fromkeys(DEFAULT_RULES, ""), read_kept=False, duplicates=None)


def score_item(config: FilterRecipe, item: RealItem) -> dict[str, Any]:
    """The row of one picture without the picture (columns of `schema.SCHEMA`); scores that nobody asked for are
    missing."""
    rules = config.ordered_rules()
    picture = Picture(item=item, config=config.input, recognizer=config.recognizer)
    row = {name: value for name, value in real_row(item, None).items() if name != "image"}
    try:
        failed = failing_rule(picture, rules)
        if config.score_all:
            _measure_all(picture)
        if failed is None:
            row |= _kept_columns(picture, config)
    except ImageProblem as problem:
        return row | picture.columns() | _verdict(problem.reason, "none", problem.detail)
    row |= picture.columns()
    if picture.density is not None:
        row |= density_columns(picture.density)
    judged_by = "ocr" if picture.density is not None else "rules"
    if failed is None:
        return row | _verdict("", judged_by, "")
    return row | _verdict(failed.name, judged_by, _evidence(failed, picture))


def crashed_row(item: RealItem, detail: str) -> dict[str, Any]:
    """The row of a picture that ended the process which looked at it."""
    row = {name: value for name, value in real_row(item, None).items() if name != "image"}
    return row | _verdict("crashed", "none", detail)


def failing_rule(picture: Picture, rules: list[Rule]) -> Rule | None:
    """The first rule that the picture breaks, None when it stays. Raises ImageProblem.

    Text is known by intervals first: a rule that they leave undecided waits until the others have been asked, then the
    detector looks at the whole picture, then everything is read.
    """
    waiting = rules
    for precision in (GLANCE, DETECT, READ):
        picture.precision = precision
        undecided = []
        for rule in waiting:
            truth = rule.holds(picture.lookup)
            if truth is False:
                return rule
            if truth is UNDECIDED:
                undecided.append(rule)
        if not undecided:
            return None
        waiting = undecided
    raise AssertionError("what has been read is decided")


def _measure_all(picture: Picture) -> None:
    picture.read()
    for name in KNOWN:
        picture.lookup(name)


def _kept_columns(picture: Picture, config: FilterRecipe) -> dict[str, Any]:
    image_HW3 = picture.image_HW3()
    row = pixel_columns(image_HW3)
    if config.read_kept:
        picture.read()
    picture.lookup("width")
    if config.duplicates is not None or config.benchmark is not None:
        row["phash"] = perceptual_hash(image_HW3)
    return row


def _evidence(rule: Rule, picture: Picture) -> str:
    """The scores that made a rule fail: "sharpness = -2.71"."""
    found = ((name, picture.known.get(ALIASES.get(name, name))) for name in sorted(rule.names))
    shown = [
        f"{name} = {value:.4g}" if isinstance(value, int | float) else f"{name} = {value}"
        for name, value in found
        if value is not None
    ]
    return ", ".join(shown) if shown else rule.text


def _verdict(reason: str, judged_by: str, detail: str) -> dict[str, Any]:
    return {"keep": not reason, "reason": reason, "judged_by": judged_by, "detail": detail or None}


def density_columns(density: Density) -> dict[str, Any]:
    """The columns of `schema.SCHEMA` that reading the picture fills besides its scores."""
    lang = None
    if density.characters:
        lang = "zh" if density.han_share >= 0.5 else "en" if density.han_share < 0.05 else "mixed"
    lines = [{"text": line.text, "lang": lang, "quad_px": list(line.quad_px), "block": 0} for line in density.lines]
    return {"lang": lang, "text": "\n".join(line.text for line in density.lines), "lines": lines}
