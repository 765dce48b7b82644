"""Lines of text in a picture: where they stand, in which order they are read, and how one is cut out.

What every reader takes and gives stands here, so that readers need not know one another.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal, Protocol

import cv2
import numpy as np
import numpy.typing as npt

from fonts_manifest.errors import BadInput

Image = npt.NDArray[np.uint8]
Quad = tuple[float, float, float, float, float, float, float, float]
"""Corners x, y in px: start-top, end-top, end-bottom, start-bottom."""

Order = Literal["mended", "library"]
"""Of lines: ours, see `reading_order`, or that of rapidocr and PaddleOCR, see `library_order`."""

MAX_PIXELS = 64_000_000
"""Larger pictures are refused; a detector pass keeps about 20 bytes per pixel besides its network."""

LIBRARY_ROW_PX = 10
"""Height of a row in rapidocr and PaddleOCR, whatever the size of the text."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Reading:
    """What stands in one line."""

    text: str
    score: float
    """Mean probability of its characters, 0 to 1; 0 when nothing was read."""


@dataclass(frozen=True, slots=True, kw_only=True)
class PageLine:
    """A line that was found and read."""

    text: str
    score: float
    quad_px: Quad


class Recognizer(Protocol):
    """A reader. Images are uint8 sRGB (H, W, 3). The same input gives the same output, on any number of processes."""

    @property
    def name(self) -> str:
        """Engine and model, for manifests and results tables."""
        ...

    def read_lines(self, image_HW3: Image, quads: Sequence[Sequence[float]]) -> list[Reading]:
        """One reading per quad, in their order, without detection; an empty quad reads as ""."""
        ...

    def read_page(self, image_HW3: Image, order: Order = "mended") -> list[PageLine]:
        """Find lines and read them.

        mended: in `reading_order`. library: as the library itself does by default, in `library_order`: NED of perfect
        6 px print .37 instead of .92. The public benchmark reads so.
        """
        ...

    def detect(self, image_HW3: Image, resolution: Literal["native", "library"] = "native") -> list[Quad]:
        """Find lines in mended reading order, without reading them.

        native: at the picture's own size, the long side limited to 1536 px: 10 ms for 256 x 256. library: the short
        side is enlarged to 736 px first, as rapidocr does: 97 ms.
        """
        ...


def reading_order(quads: Sequence[Sequence[float]]) -> list[int]:
    """Indices of `quads` row by row, each row from left to right.

    A row takes every line whose centre lies within half the median line height of the row's first (highest) centre.
    """
    if not quads:
        return []
    corners_N42 = np.asarray(quads, np.float64).reshape(-1, 4, 2)
    centre_x, centre_y = corners_N42.mean(axis=1).T
    threshold = np.median(_quad_sizes(corners_N42)[1]) / 2
    rows: list[list[int]] = []
    for index in np.argsort(centre_y, kind="stable"):
        if rows and centre_y[index] - centre_y[rows[-1][0]] <= threshold:
            rows[-1].append(int(index))
        else:
            rows.append([int(index)])
    return [index for row in rows for index in sorted(row, key=lambda i: centre_x[i])]


def library_order(quads: Sequence[Sequence[float]]) -> list[int]:
    """Indices of `quads` as rapidocr and PaddleOCR sort them: by y, then by x where the next line starts within 10 px.

    Text whose lines are closer than that comes shuffled: the public benchmark's NED is computed in this order.
    """
    if not quads:
        return []
    x_N, y_N = np.asarray(quads, np.float64).reshape(-1, 4, 2)[:, 0].T
    by_y = np.argsort(y_N, kind="stable")
    row_N = np.concatenate([[0], np.cumsum(np.diff(y_N[by_y]) >= LIBRARY_ROW_PX)])
    return [int(by_y[place]) for place in np.lexsort((x_N[by_y], row_N))]


def order_by(order: Order, quads: Sequence[Sequence[float]]) -> list[int]:
    """Indices of `quads` in that order."""
    return reading_order(quads) if order == "mended" else library_order(quads)


def as_quad(corners: npt.ArrayLike) -> Quad:
    """Any array of four corners as a quad."""
    return tuple(float(value) for value in np.asarray(corners).reshape(8))  # type: ignore[return-value]


def quad_heights(quads: Sequence[Sequence[float]]) -> npt.NDArray[np.float64]:
    """Heights of the quads in px, (N,): the longer of the start and the end side."""
    return _quad_sizes(np.asarray(quads, np.float64).reshape(-1, 4, 2))[1]


def _quad_sizes(corners_N42: npt.NDArray[np.float64]) -> tuple[npt.NDArray[np.float64], npt.NDArray[np.float64]]:
    side_N4 = np.linalg.norm(np.roll(corners_N42, -1, axis=1) - corners_N42, axis=2)
    return np.maximum(side_N4[:, 0], side_N4[:, 2]), np.maximum(side_N4[:, 1], side_N4[:, 3])


def check_image(image_HW3: Image) -> None:
    """Raise ValueError when it is no uint8 (H, W, 3), BadInput when it has more than MAX_PIXELS."""
    if image_HW3.dtype != np.uint8 or image_HW3.ndim != 3 or image_HW3.shape[2] != 3:
        raise ValueError(f"a picture must be uint8 (H, W, 3), got {image_HW3.dtype} {image_HW3.shape}")
    height, width = image_HW3.shape[:2]
    if height * width > MAX_PIXELS:
        raise BadInput(
            f"ocr: a picture of {width} x {height} px is too large to read; the limit is {MAX_PIXELS} pixels"
        )


def cut_line(image_HW3: Image, quad: Sequence[float]) -> Image | None:
    """The line inside `quad`, upright, uint8 (h, w, 3); None when nothing of it lies in the picture.

    An axis-parallel quad is a slice, grown to whole pixels; others are unwarped by a homography (cubic). Lines at least
    1.5 times as high as wide are turned by 90 degrees counter-clockwise, as PP-OCR does with vertical text.
    """
    height, width = image_HW3.shape[:2]
    corners_42 = np.asarray(quad, np.float64).reshape(4, 2)
    (x0, y0), (x1, y1), (x2, y2), (x3, y3) = corners_42
    if y0 == y1 and y2 == y3 and x0 == x3 and x1 == x2 and x0 < x1 and y0 < y2:
        left, right = max(0, math.floor(x0)), min(width, math.ceil(x1))
        top, bottom = max(0, math.floor(y0)), min(height, math.ceil(y2))
        if left >= right or top >= bottom:
            return None
        line_HW3: Image = image_HW3[top:bottom, left:right]
    else:
        if not ((corners_42 >= 0).all(axis=1) & (corners_42 <= (width, height)).all(axis=1)).any():
            return None
        widths_1, heights_1 = _quad_sizes(corners_42[None])
        line_width, line_height = int(widths_1[0]), int(heights_1[0])
        if line_width < 1 or line_height < 1:
            return None
        target_42 = np.array([[0, 0], [line_width, 0], [line_width, line_height], [0, line_height]], np.float32)
        matrix_33 = cv2.getPerspectiveTransform(corners_42.astype(np.float32), target_42)
        line_HW3 = cv2.warpPerspective(
            image_HW3, matrix_33, (line_width, line_height), flags=cv2.INTER_CUBIC, borderMode=cv2.BORDER_REPLICATE
        )
    return np.rot90(line_HW3) if line_HW3.shape[0] >= 1.5 * line_HW3.shape[1] else line_HW3
