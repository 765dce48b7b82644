"""What may become a crop of a benchmark: the rules, a candidate with the reason why it is out, and duplicates"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any, Literal

from pydantic import Field, model_validator

from datagen.ngrams import ngrams, shared_share
from fonts_manifest.config import Config
from vae.textblocks import Box, Lang

Reason = Literal[
    "",  # kept
    "other_category",  # no block of running text
    "ignored",  # by the annotators
    "turned",  # rotated, or lines from top to bottom
    "other_language",
    "unknown_size",  # no text to learn the size of a character from
    "too_few_lines",
    "enlarged",  # its characters are smaller than the reference: enlarging them shows nothing but blur
    "beyond_page",
    "expected_too_few",  # the blocks inside the crop cannot hold enough characters: not read
    "blank",
    "blurred",
    "too_few_characters",
    "too_many_characters",
    "unsure_reading",
    "same_page_duplicate",
    "same_category_duplicate",
    "human_dropped",
]


class LanguageRule(Config):
    """What holds for the crops of one language."""

    cell_px: float = Field(gt=0)
    """Side of the square that a character takes in the crop, its advance times the line pitch; the em is smaller."""
    characters: tuple[int, int]
    """Fewest and most characters that may be read in a crop, blanks not counted."""
    ngram: int = Field(ge=1)
    """Length of the character runs by which duplicates are told."""


class TokenBenchRecipe(Config):
    """Make an OCR benchmark of reconstruction from pages."""

    kind: Literal["tokenbench"]
    """Which command reads this recipe."""
    zh: LanguageRule = LanguageRule(cell_px=16, characters=(200, 600), ngram=3)
    """Chinese."""
    en: LanguageRule = LanguageRule(cell_px=10, characters=(300, 600), ngram=5)
    """English."""
    side_px: int = Field(default=256, ge=64)
    """Side of a crop."""
    large_side_px: int | None = Field(default=512, ge=64)
    """Side of the variant for f32: the same region, so an f32 latent is as many cells as an f16 one; null for none."""
    categories: tuple[str, ...] = ("text_block", "detected")
    """Annotated categories that are running text; detected blocks are called "detected"."""
    min_lines: int = Field(default=3, ge=1)
    """Of blocks whose lines are known: fewer are titles and captions."""
    max_enlargement: float = Field(default=1.0, gt=0)
    """Largest scale from page to crop."""
    max_large_enlargement: float = Field(default=1.5, gt=0)
    """The same for the large variant; a crop beyond it has none."""
    max_blank_share: float = Field(default=0.35, ge=0, le=1)
    """Share of 32 px tiles without structure."""
    min_sharpness: float = -1.5
    """As `datagen.quality.sharpness` measures it: 90 real crops lie above -0.85, blurred by 1 px all below -2.0."""
    min_score: float = Field(default=0.85, ge=0, le=1)
    """Mean probability of the characters read; below it the reader is no judge of this print."""
    page_overlap: float = Field(default=0.2, ge=0, le=1)
    """Two crops of one page sharing more of their n-grams are duplicates."""
    category_overlap: float = Field(default=0.3, ge=0, le=1)
    """The same for two crops of one category and language."""
    max_megapixels: float = Field(default=64.0, gt=0, le=64)
    """Larger pages are left out undecoded."""

    @model_validator(mode="after")
    def _ranges_rise(self) -> "TokenBenchRecipe":
        for name, rule in (("zh", self.zh), ("en", self.en)):
            if not 0 <= rule.characters[0] <= rule.characters[1]:
                raise ValueError(f"{name}.characters must be [fewest, most], got {list(rule.characters)}")
        return self

    def rule(self, lang: Lang) -> LanguageRule:
        """The rule of a language."""
        return self.zh if lang == "zh" else self.en


@dataclass(frozen=True, slots=True, kw_only=True)
class Candidate:
    """One text block of one page, and what became of it. What was not measured because it was out before is None."""

    file: str
    """Of the crop, in `images/` or `candidates/`; unique."""
    lang: Lang | None
    category: str
    """Kind of document."""
    page: str
    block_category: str
    block_box_px: Box
    """On the page."""
    cell_px: float | None
    """On the page."""
    reason: Reason = ""
    detail: str = ""
    """Of the reason: which rule, which value."""
    crop_box_px: Box | None = None
    scale: float | None = None
    """From page to crop."""
    expected_characters: int | None = None
    characters: int | None = None
    score: float | None = None
    text: str | None = None
    """Lines in mended reading order, joined by line feeds."""
    sharpness: float | None = None
    blank_share: float | None = None
    large: bool = False
    """Whether there is a large variant."""

    def dropped(self, reason: Reason, detail: str = "") -> "Candidate":
        """The same with a reason."""
        return replace(self, reason=reason, detail=detail)

    @classmethod
    def from_dict(cls, record: dict[str, Any]) -> "Candidate":
        """Back from `dataclasses.asdict`, through JSON, where tuples are lists."""
        boxes = {name: record[name] and tuple(record[name]) for name in ("block_box_px", "crop_box_px")}
        return cls(**(record | boxes))


def drop_duplicates(candidates: Sequence[Candidate], recipe: TokenBenchRecipe) -> list[Candidate]:
    """The candidates in their order, of those that overlap only the one with the most characters kept.

    Greedy from the most characters down (ties: by name): a crop is dropped when it overlaps a kept one. So no two kept
    ones overlap, every dropped one names a kept one with at least as many characters, and of a chain A-B-C whose ends
    have nothing in common both ends stay.
    """
    usable = [c for c in candidates if not c.reason]
    grams = {c.file: ngrams(c.text or "", recipe.rule(c.lang).ngram) for c in usable if c.lang}
    kept: list[Candidate] = []
    verdicts: dict[str, Candidate] = {}
    for candidate in sorted(usable, key=lambda c: (-(c.characters or 0), c.file)):
        verdict = candidate
        for other in kept:
            if other.lang != candidate.lang or other.category != candidate.category:
                continue
            share = shared_share(grams[candidate.file], grams[other.file])
            same_page = other.page == candidate.page
            if share > (recipe.page_overlap if same_page else recipe.category_overlap):
                reason: Reason = "same_page_duplicate" if same_page else "same_category_duplicate"
                verdict = candidate.dropped(reason, f"shares {share:.2f} of its n-grams with {other.file}")
                break
        if not verdict.reason:
            kept.append(candidate)
        verdicts[candidate.file] = verdict
    return [verdicts.get(candidate.file, candidate) for candidate in candidates]
