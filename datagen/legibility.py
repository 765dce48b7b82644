"""The chance that a line can be read, from how it was drawn and how it looks: a small model fitted to what OCR read.

Reading a line costs tens of milliseconds, this costs a tenth of one. No reader is asked: the renderer knows where
every stroke of ink ought to be, so what is left of it in the finished picture can be measured.
"""

import unicodedata
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import cv2
import numpy as np
import numpy.typing as npt
from numba import njit

from datagen.lines import Image, cut_line
from render_engine.spec import RenderedLine, RenderedPage

# N lines, F features, C cells of a line, h w pixels of a line

FEATURES = (
    "bias",
    # how it was drawn
    "log2 size below 8 px",
    "log2 size above 8 px",
    "Chinese",
    "Chinese below 8 px",
    "ink height / size",
    "log contrast",
    "log colour step",
    "log colour step / clutter",
    "the same below 8 px",
    "clutter / 64",
    # what is written
    "log characters",
    "few characters",
    "share of marks",
    "share of digits",
    "share of capitals",
    "share of Han",
    "share of different characters",
    "advance / size",
    # how it stands
    "tilt",
    "beyond the edge",
    "quad height / ink height",
    "covered by other lines",
    "ink of others in what is read",
    # the ink itself
    "share of ink",
    "log stroke width, px",
    "darkest tenth",
    "ink on the upper or lower edge",
    # ink seen against everything else, cell by cell: levels, then edges
    "log step, mean",
    "log step, worst seventh",
    "log step / noise, mean",
    "log step / noise, worst seventh",
    "log edge, mean",
    "log edge, worst seventh",
    "log edge / noise, mean",
    "log edge / noise, median",
    "log edge / noise, worst seventh",
    "the same below 0.5",
    "log edge / noise, best seventh",
    "log edge / step: sharpness",
    "log noise",
    "log noise of edges",
    "share of cells with an edge below 15",
    "share of cells with more noise than edge",
)
"""What `line_features` returns, in order."""

FEW_CHARACTERS = 4
_MOST_HEIGHTS = 4.0
"""Of the ink: bent lines have quads that high."""
_MOST_INK_OF_OTHERS = 3.0

Array = npt.NDArray[np.float64]


def line_features(page: RenderedPage, ink_HW: npt.NDArray[np.uint8], numbers: Sequence[int] | None = None) -> Array:
    """(N, F) float64, see FEATURES, of the lines `numbers` of a page; of all unless given.

    ink_HW: where the page's ink ought to be, see `render_engine.render.render_ink`.
    WCAG contrast alone misses red on green of equal luminance, which OCR reads well, text over a busy ground, which it
    does not, and all that a camera did afterwards. So each cell of a line, about an em wide, is explained by its ink:
    colour = ground + step x ink + the rest, by least squares, once for levels and once for differences of neighbours.
    """
    lines = page.lines if numbers is None else [page.lines[number] for number in numbers]
    if not lines:
        return np.zeros((0, len(FEATURES)))
    count_HW = _lines_upon(page)
    written_N = np.array([_written(line) for line in lines])
    seen_N = np.array([_seen(line, page.image_HW3, ink_HW, count_HW) for line in lines])
    return np.hstack([_drawn(lines), written_N, seen_N])


def quad_as_read(line: RenderedLine) -> list[float]:
    """The line's quad grown by a fifth of its ink height above and below, a tenth before and behind.

    The reader was trained on boxes with some air: 1,860 drawn lines are read at .788 so and at .777 without, those
    below 8 px at .659 and .640.
    """
    start_top, end_top, end_bottom, start_bottom = np.asarray(line.quad_px, np.float64).reshape(4, 2)
    along, down = end_top - start_top, start_bottom - start_top
    along *= 0.1 * line.ink_height_px / max(1e-6, float(np.linalg.norm(along)))
    down *= 0.2 * line.ink_height_px / max(1e-6, float(np.linalg.norm(down)))
    corners = (start_top - along - down, end_top + along - down, end_bottom + along + down, start_bottom - along + down)
    return np.concatenate(corners).tolist()


def _lines_upon(page: RenderedPage) -> npt.NDArray[np.uint8]:
    """(H, W) of how many lines' quads cover each pixel; the quads of a bent page lie over one another."""
    height, width = page.image_HW3.shape[:2]
    count_HW = np.zeros((height, width), np.uint8)
    for line in page.lines:
        corners_42 = np.round(np.asarray(line.quad_px, np.float64).reshape(4, 2)).astype(np.int32)
        left, top = np.clip(corners_42.min(axis=0), 0, (width, height))
        right, bottom = np.clip(corners_42.max(axis=0) + 1, 0, (width, height))
        if left < right and top < bottom:
            # Its own box only: filling a mask of the whole page for every line would cost more than all the rest.
            box_hw = np.zeros((bottom - top, right - left), np.uint8)
            cv2.fillConvexPoly(box_hw, corners_42 - np.array([left, top], np.int32), 1)
            there_hw = count_HW[top:bottom, left:right]
            cv2.add(there_hw, box_hw, dst=there_hw)
    return count_HW


def _drawn(lines: Sequence[RenderedLine]) -> Array:
    size = np.array([line.size_px for line in lines])
    below = np.minimum(np.log2(np.maximum(size, 1.0) / 8), 0)
    above = np.clip(np.log2(np.maximum(size, 1.0) / 8), 0, 1.5)
    chinese = np.array([{"zh": 1.0, "mixed": 0.7}.get(line.lang, 0.0) for line in lines])
    step = np.array([colour_step(line) for line in lines])
    clutter = np.array([line.clutter for line in lines])
    signal = np.log((step + 2) / (clutter + 8))
    ink_share = np.array([line.ink_height_px for line in lines]) / np.maximum(size, 1.0)
    columns = (
        np.ones(len(lines)),
        below,
        above,
        chinese,
        chinese * below,
        np.clip(ink_share, 0.3, 1.6),
        np.log(np.maximum([line.contrast for line in lines], 1.0)),
        np.log(step + 2),
        signal,
        signal * below,
        clutter / 64,
    )
    return np.stack(columns, axis=1)


def colour_step(line: RenderedLine) -> float:
    """Difference of ink (at its opacity) and mean ground, RMS over RGB, 0 to 255."""
    difference_3 = np.subtract(line.ink_rgb, line.ground_rgb, dtype=np.float64)
    return float(line.opacity * np.sqrt((difference_3**2).mean()))


def _written(line: RenderedLine) -> tuple[float, ...]:
    text = "".join(unicodedata.normalize("NFKC", line.text).split())
    count = max(1, len(text))
    kinds = [unicodedata.category(character) for character in text]
    start_top, end_top = np.asarray(line.quad_px[:4], np.float64).reshape(2, 2)
    x_px, y_px = end_top - start_top
    return (
        float(np.log(count)),
        max(0.0, 1 - count / FEW_CHARACTERS),
        sum(kind[0] in "PS" for kind in kinds) / count,
        kinds.count("Nd") / count,
        kinds.count("Lu") / count,
        kinds.count("Lo") / count,
        len(set(text)) / count,
        float(min(4.0, np.hypot(x_px, y_px) / count / max(1.0, line.size_px))),
        float(min(0.5, abs(np.arctan2(y_px, max(abs(x_px), 1e-6))))),
    )


def _seen(
    line: RenderedLine, image_HW3: Image, ink_HW: npt.NDArray[np.uint8], count_HW: npt.NDArray[np.uint8]
) -> tuple[float, ...]:
    """The features from "beyond the edge" on, from the pixels inside the line's quad, and those around it that the
    reader gets to see."""
    height, width = image_HW3.shape[:2]
    corners_42 = np.asarray(line.quad_px, np.float64).reshape(4, 2)
    beyond = float(((corners_42 < -1) | (corners_42 > (width + 1, height + 1))).any())
    line_hw3, ink_hw, count_hw = (cut_line(each, line.quad_px) for each in (image_HW3, ink_HW, count_HW))
    read_hw = cut_line(ink_HW, quad_as_read(line))
    if line_hw3 is None or ink_hw is None or count_hw is None or read_hw is None:
        return (beyond, *(0.0,) * (len(FEATURES) - FEATURES.index("beyond the edge") - 1))
    ink_hw, line_hw3 = np.ascontiguousarray(ink_hw), np.ascontiguousarray(line_hw3)
    cells_C5 = explain_by_ink(line_hw3, ink_hw, max(4, round(line.size_px)))
    own, read = float(ink_hw.sum()), float(read_hw.sum())
    return (
        beyond,
        min(_MOST_HEIGHTS, ink_hw.shape[0] / max(1.0, line.ink_height_px)),
        float((count_hw > 1).mean()),
        min(_MOST_INK_OF_OTHERS, max(0.0, read - own) / (own + 1)),
        *_ink(ink_hw),
        *_over_cells(cells_C5),
    )


@njit(cache=True, nogil=True)
def _ink(ink_hw: npt.NDArray[np.uint8]) -> tuple[float, float, float, float]:
    """Share of ink, log width of the strokes in px (twice the area over the length of the edges), darkness of the
    darkest tenth of the ink, share of ink on the two edge rows."""
    h, w = ink_hw.shape
    counts = np.zeros(256, np.int64)
    area, edges, border = 0.0, 0.0, 0.0
    for y in range(h):
        for x in range(w):
            ink = float(ink_hw[y, x])
            counts[ink_hw[y, x]] += 1
            area += ink
            if y == 0 or y == h - 1:
                border += ink
            if x + 1 < w:
                edges += abs(float(ink_hw[y, x + 1]) - ink)
            if y + 1 < h:
                edges += abs(float(ink_hw[y + 1, x]) - ink)
    beneath, inked = counts[33:].sum() * 9 // 10, 0
    darkest = 0
    for level in range(33, 256):
        inked += counts[level]
        if inked > beneath:
            darkest = level
            break
    stroke_px = 2 * area / (edges + 1e-3)
    return area / (255 * h * w), np.log(stroke_px + 0.1), darkest / 255, border / (255 * w * min(h, 2))


@njit(cache=True, nogil=True)
def _over_cells(cells_C5: Array) -> tuple[float, ...]:
    """The last features of FEATURES from the cells that hold ink, or from all when none does."""
    inky_C = cells_C5[:, 4] > 0.01
    if inky_C.any():
        cells_C5 = cells_C5[inky_C]
    step, noise = np.log(cells_C5[:, 0] + 2), np.log(cells_C5[:, 1] + 2)
    edge, edge_noise = np.log(cells_C5[:, 2] + 2), np.log(cells_C5[:, 3] + 2)
    clear, edge_clear = np.sort(step - noise), np.sort(edge - edge_noise)
    seventh, half = len(step) // 7, len(step) // 2
    return (
        step.mean(),
        np.sort(step)[seventh],
        clear.mean(),
        clear[seventh],
        edge.mean(),
        np.sort(edge)[seventh],
        edge_clear.mean(),
        edge_clear[half],
        edge_clear[seventh],
        min(edge_clear[seventh] - 0.5, 0.0),
        edge_clear[-1 - seventh],
        (edge - step).mean(),
        noise.mean(),
        edge_noise.mean(),
        (cells_C5[:, 2] < 15).mean(),
        (edge_clear < 0).mean(),
    )


@njit(cache=True, nogil=True)
def explain_by_ink(line_hw3: Image, ink_hw: npt.NDArray[np.uint8], cell_px: int) -> Array:
    """(C, 5) of cells from the start of the line to its end: step and noise of levels, step and noise of edges, 0 to
    255 (RMS over RGB; the steps are those of full ink), and the mean ink, 0 to 1.

    Noise is what least squares leave: of colours on ink, and of differences between neighbours (right, below) on those
    of the ink, through the origin. A photograph's slow changes are noise to the first and not to the second.
    """
    h, w = ink_hw.shape
    cells = max(1, w // cell_px)
    found_C5 = np.zeros((cells, 5))
    cross, total_3, edge_cross = np.zeros(3), np.zeros(3), np.zeros(3)
    for cell in range(cells):
        first, last = cell * w // cells, (cell + 1) * w // cells
        count = float(h * (last - first))
        ink_sum, ink_square, square, edge_ink, edge_square, edges = 0.0, 0.0, 0.0, 0.0, 0.0, 0.0
        cross[:], total_3[:], edge_cross[:] = 0.0, 0.0, 0.0
        for y in range(h):
            for x in range(first, last):
                ink = float(ink_hw[y, x])
                ink_sum += ink
                ink_square += ink * ink
                for channel in range(3):
                    value = float(line_hw3[y, x, channel])
                    total_3[channel] += value
                    cross[channel] += value * ink
                    square += value * value
                for y2, x2 in ((y, x + 1), (y + 1, x)):
                    if y2 < h and x2 < w:
                        change = float(ink_hw[y2, x2]) - ink
                        edge_ink += change * change
                        edges += 1.0
                        for channel in range(3):
                            seen = float(line_hw3[y2, x2, channel]) - float(line_hw3[y, x, channel])
                            edge_cross[channel] += seen * change
                            edge_square += seen * seen
        spread = ink_square - ink_sum * ink_sum / count
        left, step, edge_left, edge_step = square, 0.0, edge_square, 0.0
        for channel in range(3):
            left -= total_3[channel] ** 2 / count
            if spread > 0:
                slope = (cross[channel] - ink_sum * total_3[channel] / count) / spread
                left -= slope * slope * spread
                step += slope * slope
            if edge_ink > 0:
                edge_left -= edge_cross[channel] ** 2 / edge_ink
                edge_step += (edge_cross[channel] / edge_ink) ** 2
        found_C5[cell, 0] = 255 * np.sqrt(step / 3)
        found_C5[cell, 1] = np.sqrt(max(0.0, left) / (3 * count))
        found_C5[cell, 2] = 255 * np.sqrt(edge_step / 3)
        found_C5[cell, 3] = np.sqrt(max(0.0, edge_left) / (3 * max(1.0, edges)))
        found_C5[cell, 4] = ink_sum / count / 255
    return found_C5


@dataclass(frozen=True, slots=True, kw_only=True)
class LegibilityModel:
    """chance = logistic(coefficients . (features - mean) / scale)."""

    mean: tuple[float, ...]
    scale: tuple[float, ...]
    coefficients: tuple[float, ...]

    def logits(self, features_NF: Array) -> Array:
        """(N,), to six digits: the last bits are the processor's."""
        standard_NF = (features_NF - np.array(self.mean)) / np.array(self.scale)
        return np.round((standard_NF * np.array(self.coefficients)).sum(axis=1), 6)

    def predict(self, features_NF: Array) -> Array:
        """Chance that each line is legible, (N,) in [0, 1]."""
        return _logistic(self.logits(features_NF))


def fit_legibility(
    features_NF: Array, legible_N: npt.NDArray[Any], weight_N: Array, ridge: float = 3.0
) -> LegibilityModel:
    """Logistic regression by iteratively reweighted least squares, with a ridge.

    legible_N: 0 or 1, or a share between (Papke & Wooldridge 1996). weight_N: positive, 1 for an ordinary line. ridge:
    prior precision of each standardised coefficient but the bias, in lines; keeps a one-sided sample finite.
    """
    mean, scale = features_NF.mean(axis=0), features_NF.std(axis=0)
    mean[0], scale[0] = 0.0, 1.0
    scale[scale < 1e-6] = 1.0
    x_NF = (features_NF - mean) / scale
    weight_N = weight_N / weight_N.mean()
    ridge_F = np.full(x_NF.shape[1], ridge)
    ridge_F[0] = 1e-3
    beta_F = np.zeros(x_NF.shape[1])
    for _ in range(50):
        expected_N = _logistic(x_NF @ beta_F)
        curvature_N = weight_N * np.maximum(expected_N * (1 - expected_N), 1e-6)
        gradient_F = x_NF.T @ (weight_N * (legible_N - expected_N)) - ridge_F * beta_F
        step_F = np.linalg.solve((x_NF.T * curvature_N) @ x_NF + np.diag(ridge_F), gradient_F)
        # A whole Newton step can overshoot where nearly every line is legible; 2 logits are far enough at a time.
        beta_F = beta_F + step_F * min(1.0, 2.0 / max(1e-12, float(np.abs(step_F).max())))
        if np.abs(step_F).max() < 1e-9:
            break
    return LegibilityModel(mean=_floats(mean), scale=_floats(scale), coefficients=_floats(beta_F))


def _logistic(logit: Array) -> Array:
    return 1.0 / (1.0 + np.exp(-np.clip(logit, -40, 40)))


def _floats(values: Array) -> tuple[float, ...]:
    # Nine digits: a change of BLAS moves the last bits, and a digest over them would call equal calibrations different.
    return tuple(float(f"{value:.9g}") for value in values)
