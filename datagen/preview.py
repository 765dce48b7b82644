"""What a recipe draws, as one picture, in seconds: no Ray, no OCR, nothing stored."""

from collections.abc import Sequence
from pathlib import Path

import cv2
import numpy as np
import numpy.typing as npt

from datagen.codec import encode_png
from datagen.plan import Address, GenerateRecipe, make_plan
from datagen.rows import SampledPage, sample_rows
from datagen.storage import Folder
from fonts_manifest.errors import BadInput
from render_engine.spec import Surface
from render_engine.warp import project

_MARGIN_PX = 6
_LABEL_PX = 16
_PAPER = 245
_BOX_RGB = (255, 0, 90)
_PART_RGB = (40, 120, 255)


def preview(recipe: GenerateRecipe, n: int) -> list[SampledPage]:
    """The first `n` pages of the recipe that can be drawn, not judged.

    Raises BadInput as `make_plan` does, or when fewer than a third of the pages can be drawn.
    """
    plan = make_plan(recipe, "", "")
    numbers = range(3 * n)
    pages: list[SampledPage] = []
    reasons: list[str] = []
    for sampled in sample_rows(plan, (Address(*divmod(number, recipe.rows_per_shard)) for number in numbers)):
        if sampled.page is None:
            reasons.append(sampled.reason)
            continue
        pages.append(sampled)
        if len(pages) == n:
            return pages
    raise BadInput(
        f"only {len(pages)} of {len(numbers)} pages can be drawn, most fail for {max(reasons, key=reasons.count)}"
    )


def write_preview(recipe: GenerateRecipe, n: int, out: Path, *, boxes: bool = False) -> None:
    """Write a contact sheet of `n` pages as PNG. boxes: with the annotations. Raises BadInput."""
    pages = preview(recipe, n)
    images = [boxed(sampled) if boxes else sampled.page.image_HW3 for sampled in pages if sampled.page is not None]
    columns = max(1, round(n**0.5))
    sheet_HW3 = contact_sheet(images, columns, [label(sampled) for sampled in pages])
    Folder(str(out.absolute().parent)).publish(out.name, encode_png(sheet_HW3))


def label(sampled: SampledPage) -> str:
    """Address, language and sizes of a page as seen in a few ASCII characters."""
    page = sampled.page
    sizes = sorted({round(line.size_px * 2) / 2 for line in page.lines}) if page and page.lines else [0.0]
    span = f"{sizes[0]:g}" if len(sizes) == 1 else f"{sizes[0]:g}-{sizes[-1]:g}"
    languages = "/".join(sorted({block.lang for block in sampled.spec.blocks}))
    return f"{sampled.address.shard}:{sampled.address.row} {languages} {span} px"


def boxed(sampled: SampledPage) -> npt.NDArray[np.uint8]:
    """A copy of the page with its annotations: the parts of its tree in blue, the quad of every line in red, and the
    place of every block in reading order at its first line."""
    assert sampled.page is not None  # noqa: S101 - callers pass pages that were drawn
    image_HW3 = sampled.page.image_HW3.copy()
    surface = sampled.spec.surface
    for node in sampled.spec.layout:
        x0, y0, x1, y1 = node.box_px
        corners_42 = np.array([(x0, y0), (x1, y0), (x1, y1), (x0, y1)])
        _draw_outline(image_HW3, corners_42 if surface is None else bent_outline(corners_42, surface), _PART_RGB)
    seen = -1
    for line in sampled.page.lines:
        _draw_outline(image_HW3, np.array(line.quad_px).reshape(4, 2), _BOX_RGB)
        if line.block != seen:
            at = (int(line.quad_px[0]), int(line.quad_px[1]))
            cv2.putText(image_HW3, str(line.block), at, cv2.FONT_HERSHEY_SIMPLEX, 0.32, _BOX_RGB, 1, cv2.LINE_AA)
            seen = line.block
    return image_HW3


def bent_outline(corners_42: npt.NDArray[np.float64], surface: Surface) -> npt.NDArray[np.float64]:
    """The outline of a part of a thing as seen, with points between its corners: its edges are bent with the thing."""
    shares_s1 = np.linspace(0, 1, 16, endpoint=False)[:, None]
    sides = zip(corners_42, np.roll(corners_42, -1, axis=0), strict=True)
    return project(surface)(np.concatenate([start + shares_s1 * (end - start) for start, end in sides]))


def _draw_outline(
    image_HW3: npt.NDArray[np.uint8], corners_n2: npt.NDArray[np.float64], rgb: tuple[int, int, int]
) -> None:
    points_n2 = np.round(corners_n2 * 16 - 8).astype(np.int32)
    cv2.polylines(image_HW3, [points_n2], isClosed=True, color=rgb, lineType=cv2.LINE_AA, shift=4)


def contact_sheet(
    images: Sequence[npt.NDArray[np.uint8]], columns: int, labels: Sequence[str] = ()
) -> npt.NDArray[np.uint8]:
    """Pictures (uint8 sRGB, of any sizes) in rows of `columns`, pixel for pixel, each in the corner of its cell.

    labels: ASCII, one for each picture, set under it. Raises ValueError without pictures or when the counts differ.
    """
    if not images or columns < 1:
        raise ValueError(f"a sheet needs pictures and at least one column, got {len(images)} and {columns}")
    if labels and len(labels) != len(images):
        raise ValueError(f"{len(images)} pictures need as many labels, got {len(labels)}")
    columns = min(columns, len(images))
    cell_height = max(image.shape[0] for image in images) + (_LABEL_PX if labels else 0) + _MARGIN_PX
    cell_width = max(image.shape[1] for image in images) + _MARGIN_PX
    rows = -(-len(images) // columns)
    sheet_HW3 = np.full((rows * cell_height + _MARGIN_PX, columns * cell_width + _MARGIN_PX, 3), _PAPER, np.uint8)
    for number, image_HW3 in enumerate(images):
        top = number // columns * cell_height + _MARGIN_PX
        left = number % columns * cell_width + _MARGIN_PX
        height, width = image_HW3.shape[:2]
        sheet_HW3[top : top + height, left : left + width] = image_HW3
        if labels:
            # Anti-aliased strokes of OpenCV's built-in face: a sheet needs no font file.
            strip_HW3 = np.full((_LABEL_PX, cell_width - _MARGIN_PX, 3), _PAPER, np.uint8)
            cv2.putText(
                strip_HW3, labels[number], (0, 11), cv2.FONT_HERSHEY_SIMPLEX, 0.35, (90, 90, 90), 1, cv2.LINE_AA
            )
            sheet_HW3[top + height : top + height + _LABEL_PX, left : left + strip_HW3.shape[1]] = strip_HW3
    return sheet_HW3
