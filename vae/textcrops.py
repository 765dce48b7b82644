"""One page of a benchmark: its text blocks cut out, scaled to one character size, measured and read"""

import math
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from PIL import Image

from datagen.codec import encode_png
from datagen.decode import ImageProblem, decode_image
from datagen.ocr import count_characters, open_recognizer
from datagen.quality import blank_share, sharpness
from vae.candidates import Candidate, TokenBenchRecipe
from vae.textblocks import Box, Page, TextBlock, detect_blocks

Picture = npt.NDArray[np.uint8]


@dataclass(frozen=True, slots=True, kw_only=True)
class PageTask:
    """What the tasks of all pages share."""

    recipe: TokenBenchRecipe
    pages: str
    reader: str


def crop_page(shared: PageTask, item: tuple[Page, str]) -> tuple[dict[str, Any], dict[str, bytes]]:
    """What one page gives: its record for `readings/`, and the PNG files of its crops by name."""
    page, stem = item
    record: dict[str, Any] = {"page": page.file, "problem": "", "candidates": []}
    try:
        image_HW3 = decode_image(Path(shared.pages) / page.file, int(shared.recipe.max_megapixels * 1e6))
    except ImageProblem as problem:
        return record | {"problem": str(problem)}, {}
    blocks = page.blocks
    if blocks is None:
        blocks = detect_blocks(open_recognizer(shared.reader), image_HW3)
    elif page.size_px is not None:
        # Annotations may refer to another resolution of the page than the picture at hand.
        height, width = image_HW3.shape[:2]
        blocks = tuple(_scaled(block, width / page.size_px[0], height / page.size_px[1]) for block in blocks)
    pictures: dict[str, bytes] = {}
    for number, block in enumerate(blocks):
        candidate = Candidate(
            file=f"{block.lang or 'xx'}_{stem}_{number:03d}.png",
            lang=block.lang,
            category=page.category,
            page=page.file,
            block_category=block.category,
            block_box_px=tuple(round(v, 2) for v in block.box_px),  # type: ignore[arg-type]
            cell_px=None if block.cell_px is None else round(block.cell_px, 3),
        )
        judged, crops = _judge(candidate, block, blocks, image_HW3, shared)
        record["candidates"].append(asdict(judged))
        pictures |= crops
    return record, pictures


def _judge(
    candidate: Candidate, block: TextBlock, blocks: Sequence[TextBlock], image_HW3: Picture, shared: PageTask
) -> tuple[Candidate, dict[str, bytes]]:
    """The candidate with all that could be measured before a rule dropped it, cheapest rule first; and its crops."""
    recipe = shared.recipe
    candidate = _place(candidate, block, blocks, image_HW3.shape, recipe)
    lang, box, scale = candidate.lang, candidate.crop_box_px, candidate.scale
    if candidate.reason or lang is None or box is None or scale is None:
        return candidate, {}
    crop_HW3 = cut(image_HW3, box, recipe.side_px)
    pictures = {candidate.file: encode_png(crop_HW3)}
    if recipe.large_side_px and scale * recipe.large_side_px / recipe.side_px <= recipe.max_large_enlargement:
        candidate = replace(candidate, large=True)
        large_HW3 = cut(image_HW3, box, recipe.large_side_px)
        pictures[large_name(candidate.file)] = encode_png(large_HW3)
    blank, sharp = blank_share(crop_HW3), sharpness(crop_HW3)
    candidate = replace(
        candidate, blank_share=round(blank, 4), sharpness=round(sharp, 4) if math.isfinite(sharp) else None
    )
    if blank > recipe.max_blank_share:
        return candidate.dropped("blank", f"{blank:.2f} of its tiles hold nothing"), pictures
    if not sharp >= recipe.min_sharpness:
        return candidate.dropped("blurred", f"sharpness {sharp:.2f}, below {recipe.min_sharpness:g}"), pictures
    lines = open_recognizer(shared.reader).read_page(crop_HW3)
    counts = [count_characters(line.text) for line in lines]
    characters = sum(counts)
    score = sum(line.score * count for line, count in zip(lines, counts, strict=True)) / max(1, characters)
    candidate = replace(
        candidate, characters=characters, score=round(score, 4), text="\n".join(line.text for line in lines)
    )
    fewest, most = recipe.rule(lang).characters
    if characters < fewest:
        return candidate.dropped("too_few_characters", f"{characters}, below {fewest}"), pictures
    if characters > most:
        return candidate.dropped("too_many_characters", f"{characters}, above {most}"), pictures
    if score < recipe.min_score:
        return candidate.dropped("unsure_reading", f"mean score {score:.2f}, below {recipe.min_score:g}"), pictures
    return candidate, pictures


def _place(
    candidate: Candidate,
    block: TextBlock,
    blocks: Sequence[TextBlock],
    page_shape: tuple[int, ...],
    recipe: TokenBenchRecipe,
) -> Candidate:
    """Where the crop of a block lies on its page, or why there is none."""
    if block.category not in recipe.categories:
        return candidate.dropped("other_category", block.category)
    if block.ignored:
        return candidate.dropped("ignored")
    if block.turned:
        return candidate.dropped("turned")
    if block.lines is not None and block.lines < recipe.min_lines:
        return candidate.dropped("too_few_lines", f"{block.lines}, below {recipe.min_lines}")
    if block.cell_px is None:
        return candidate.dropped("unknown_size")
    if block.lang is None:
        return candidate.dropped("other_language", "neither Chinese nor English, or without a letter")
    rule = recipe.rule(block.lang)
    scale = rule.cell_px / block.cell_px
    side = recipe.side_px / scale
    left, top = max(0.0, block.box_px[0]), max(0.0, block.box_px[1])
    box: Box = (left, top, left + side, top + side)
    expected = round(sum(_cells_inside(other, box) for other in blocks))
    candidate = replace(
        candidate,
        scale=round(scale, 4),
        crop_box_px=tuple(round(v, 2) for v in box),  # type: ignore[arg-type]
        expected_characters=expected,
    )
    if scale > recipe.max_enlargement:
        return candidate.dropped("enlarged", f"by {scale:.2f}, above {recipe.max_enlargement:g}")
    height, width = page_shape[:2]
    if box[2] > width or box[3] > height:
        return candidate.dropped(
            "beyond_page", f"needs {box[2]:.0f} x {box[3]:.0f} px, the page has {width} x {height}"
        )
    # Half: areas of annotated blocks tell the number of characters to a third or so, and reading decides.
    if expected < rule.characters[0] / 2:
        return candidate.dropped("expected_too_few", f"about {expected}, half of {rule.characters[0]} is needed")
    return candidate


def _cells_inside(block: TextBlock, box: Box) -> float:
    """How many character cells of a block lie in `box`."""
    if block.cell_px is None:
        return 0.0
    width = min(block.box_px[2], box[2]) - max(block.box_px[0], box[0])
    height = min(block.box_px[3], box[3]) - max(block.box_px[1], box[1])
    return max(0.0, width) * max(0.0, height) / block.cell_px**2


def cut(image_HW3: Picture, box_px: Box, side_px: int) -> Picture:
    """The region of a page as a square of `side_px`, uint8 sRGB, antialiased (Lanczos, corners at fractions of px)."""
    resized = Image.fromarray(image_HW3).resize((side_px, side_px), Image.Resampling.LANCZOS, box=box_px)
    return np.asarray(resized)


def _scaled(block: TextBlock, x: float, y: float) -> TextBlock:
    left, top, right, bottom = block.box_px
    cell = None if block.cell_px is None else block.cell_px * math.sqrt(x * y)
    return replace(block, box_px=(left * x, top * y, right * x, bottom * y), cell_px=cell)


def large_name(file: str) -> str:
    """Of the large variant, in `candidates/`."""
    return f"{file.removesuffix('.png')}.large.png"
