"""The legibility of a line from how it was drawn: a small model, fitted to what OCR read, in place of OCR.

Reading a page costs a hundred times its drawing; this costs microseconds.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from render_engine.spec import RenderedLine

# N lines, F features

FEATURES = (
    "bias",
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
    "thin",
    # from the pixels, over cells about as wide as high
    "log step seen, mean",
    "log step seen, worst seventh",
    "the same below 20",
    "log step / noise seen, mean",
    "log step / noise seen, worst seventh",
    "the same below 1",
    "log colour left in the ink",
    "share of cells with a step below 15",
)
"""What `line_features` returns, in order."""

_RIDGE = 0.3
"""Prior precision of each standardised coefficient but the bias, in lines: keeps a one-sided sample finite."""

Array = npt.NDArray[np.float64]


def line_features(lines: Sequence[RenderedLine], image_HW3: npt.NDArray[np.uint8]) -> Array:
    """(N, F) float64, see FEATURES; image_HW3 is the finished page. 0.1 ms a line.

    WCAG contrast alone misses red on green of equal luminance, which OCR reads well, and text over a busy ground, which
    it does not: hence colour steps (0 to 255), and their ratio to what else is going on. The mean over a line misses
    the one place where it crosses its own colour: hence the pixels, cell by cell. On 1,245 lines of 5 to 20 px over
    photographs without any floor of contrast, the area under the curve for lines that OCR reads rises from .90 to .94.
    """
    if not lines:
        return np.zeros((0, len(FEATURES)))
    size = np.array([line.size_px for line in lines])
    below = np.minimum(np.log2(np.maximum(size, 1.0) / 8), 0)
    above = np.clip(np.log2(np.maximum(size, 1.0) / 8), 0, 1.5)
    chinese = np.array([{"zh": 1.0, "mixed": 0.7}.get(line.lang, 0.0) for line in lines])
    ink_N3 = np.array([line.ink_rgb for line in lines], np.float64)
    ground_N3 = np.array([line.ground_rgb for line in lines], np.float64)
    opacity = np.array([line.opacity for line in lines])
    step = opacity * np.sqrt(((ink_N3 - ground_N3) ** 2).mean(axis=1))
    clutter = np.array([line.clutter for line in lines])
    signal = np.log((step + 2) / (clutter + 8))
    ink_share = np.array([line.ink_height_px for line in lines]) / np.maximum(size, 1.0)
    contrast = np.log(np.maximum([line.contrast for line in lines], 1.0))
    thin = np.array(["light" in line.face_id.lower() or "thin" in line.face_id.lower() for line in lines], np.float64)
    columns = (
        np.ones(len(lines)),
        below,
        above,
        chinese,
        chinese * below,
        np.clip(ink_share, 0.3, 1.6),
        contrast,
        np.log(step + 2),
        signal,
        signal * below,
        clutter / 64,
        thin,
    )
    seen_NG = np.array([_seen(line, image_HW3) for line in lines])
    return np.hstack([np.stack(columns, axis=1), seen_NG])


def _seen(line: RenderedLine, image_HW3: npt.NDArray[np.uint8]) -> tuple[float, ...]:
    """The last eight features of one line, from the pixels inside the box around its quad."""
    height, width = image_HW3.shape[:2]
    corners_42 = np.asarray(line.quad_px, np.float64).reshape(4, 2)
    left, top = np.floor(corners_42.min(axis=0)).astype(int).clip(0, (width - 1, height - 1))
    right, bottom = np.ceil(corners_42.max(axis=0)).astype(int).clip((left + 1, top + 1), (width, height))
    line_3hw = np.ascontiguousarray(image_HW3[top:bottom, left:right].transpose(2, 0, 1))
    ink_311 = np.array(line.ink_rgb, np.uint8)[:, None, None]
    distance_3hw = np.maximum(line_3hw, ink_311) - np.minimum(line_3hw, ink_311)
    distance_hw = np.maximum(np.maximum(distance_3hw[0], distance_3hw[1]), distance_3hw[2])
    h, w = distance_hw.shape
    cells = max(1, w // max(4, round(line.size_px)))
    cell_px = w // cells
    distance_cells = np.ascontiguousarray(
        distance_hw[:, : cells * cell_px].reshape(h, cells, cell_px).transpose(1, 0, 2)
    ).reshape(cells, h * cell_px)
    # Glyphs cover less than half of a cell: its median is ground, its lowest twentieth the ink.
    at = [h * cell_px // 20, h * cell_px // 2, h * cell_px * 9 // 10]
    ink, ground, far = np.partition(distance_cells, at, axis=1)[:, at].astype(np.float64).T
    step = np.log(ground - ink + 2)
    against_noise = np.log((ground - ink + 2) / (far - ground + 6))
    worst_step, worst_noise = float(np.percentile(step, 15)), float(np.percentile(against_noise, 15))
    return (
        float(step.mean()),
        worst_step,
        min(worst_step - 3.0, 0.0),
        float(against_noise.mean()),
        worst_noise,
        min(worst_noise, 0.0),
        float(np.log(ink.mean() + 2)),
        float((ground - ink < 15).mean()),
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class LegibilityModel:
    """legibility = logistic(coefficients . (features - mean) / scale)."""

    mean: tuple[float, ...]
    scale: tuple[float, ...]
    coefficients: tuple[float, ...]

    def predict(self, features_NF: Array) -> Array:
        """Expected relative NED of each line, (N,) in (0, 1)."""
        standard_NF = (features_NF - np.array(self.mean)) / np.array(self.scale)
        return _logistic(standard_NF @ np.array(self.coefficients))


def fit_legibility(features_NF: Array, legibility_N: Array, weight_N: Array) -> LegibilityModel:
    """Fractional logistic regression (Papke & Wooldridge 1996) by iteratively reweighted least squares, with a ridge.

    legibility_N in [0, 1]; weight_N positive, for instance the square root of the characters of a line.
    """
    mean, scale = features_NF.mean(axis=0), features_NF.std(axis=0)
    mean[0], scale[0] = 0.0, 1.0
    scale[scale < 1e-6] = 1.0
    x_NF = (features_NF - mean) / scale
    weight_N = weight_N / weight_N.mean()
    ridge_F = np.full(x_NF.shape[1], _RIDGE)
    ridge_F[0] = 1e-3
    beta_F = np.zeros(x_NF.shape[1])
    for _ in range(50):
        expected_N = _logistic(x_NF @ beta_F)
        curvature_N = weight_N * np.maximum(expected_N * (1 - expected_N), 1e-6)
        gradient_F = x_NF.T @ (weight_N * (legibility_N - expected_N)) - ridge_F * beta_F
        step_F = np.linalg.solve((x_NF.T * curvature_N) @ x_NF + np.diag(ridge_F), gradient_F)
        # A whole Newton step can overshoot where nearly every line is legible; 2 logits are far enough at a time.
        beta_F = beta_F + step_F * min(1.0, 2.0 / max(1e-12, float(np.abs(step_F).max())))
        if np.abs(step_F).max() < 1e-9:
            break
    return LegibilityModel(mean=_floats(mean), scale=_floats(scale), coefficients=_floats(beta_F))


def wilson_interval(hits: int, trials: int) -> tuple[float, float]:
    """95 % interval of a share (Wilson 1927); (0, 1) without trials."""
    if trials == 0:
        return 0.0, 1.0
    z = 1.959964
    share = hits / trials
    centre = (share + z * z / (2 * trials)) / (1 + z * z / trials)
    half = z / (1 + z * z / trials) * np.sqrt(share * (1 - share) / trials + z * z / (4 * trials * trials))
    return max(0.0, float(centre - half)), min(1.0, float(centre + half))


def _logistic(logit: Array) -> Array:
    return 1.0 / (1.0 + np.exp(-np.clip(logit, -40, 40)))


def _floats(values: Array) -> tuple[float, ...]:
    # Nine digits: a change of BLAS moves the last bits, and a digest over them would call equal calibrations different.
    return tuple(float(f"{value:.9g}") for value in values)
