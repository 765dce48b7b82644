"""The OCR-perceptual loss: a reader's networks see on the reconstruction what they see on the original.

PP-OCR's recogniser reads the lines whose places are known, cut out of both pictures as it would get them; its detector
looks at the whole pictures. Both are frozen, lie in a wheel, and let gradients through to the pixels. No published
trainer has such a term: a model trained with it must not be judged by the same reader alone.

Legend: B pictures, H W pixels, L lines, T steps along a line, C features, K characters.
"""

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Literal

import numpy as np
import numpy.typing as npt
import torch
import torch.nn.functional as F
from torch import nn

from datagen.ppocr import LINE_HEIGHT_PX

if TYPE_CHECKING:
    from datagen.ppocr_torch import Detector, Recogniser

STRIP_WIDTHS_PX = (64, 128, 256, 512)
"""Lines are laid into the narrowest strip that holds them and padded as PP-OCR pads; longer ones are cut."""

_STEP_PX, _CELL_PX = 8, 4
"""Of a line at that height: a step of the recogniser, and a cell of its first stage."""

_DETECTOR_PX = 32

Quads = npt.NDArray[np.float32]
"""(L, 4, 2) corners x, y in px of the picture: start-top, end-top, end-bottom, start-bottom."""


class ReadingLoss(nn.Module):
    """What a reader makes of a reconstruction, measured against what it makes of the original."""

    def __init__(self, recogniser: "Recogniser", detector: "Detector", lines: int) -> None:
        """lines: read on each picture, at most."""
        super().__init__()
        self.recogniser, self.detector, self.lines = recogniser, detector, lines
        self.eval().requires_grad_(False)

    def forward(
        self, output_B3HW: torch.Tensor, target_B3HW: torch.Tensor, quads: Sequence[Quads]
    ) -> dict[str, torch.Tensor]:
        """Three terms, each (B,), of pictures in [-1, 1] and the lines known on each:

        read_features    mean over lines and steps of |f^_y - f^_x|^2, the recogniser's features at length 1
        read_characters  mean over lines and steps of KL(p_x || p_y) over its 18,710 characters
        read_places      mean over pixels of KL(q_x || q_y), the detector's probability of text

        The first two are 0 for a picture without a visible line.
        """
        features_B, characters_B = _over_lines(output_B3HW, target_B3HW, quads, self.lines, self._compare, 2)
        return {
            "read_features": features_B,
            "read_characters": characters_B,
            "read_places": self._places(output_B3HW, target_B3HW),
        }

    def _compare(self, output_L3HW: torch.Tensor, target_L3HW: torch.Tensor, used_px_L: torch.Tensor) -> torch.Tensor:
        with torch.no_grad():
            _, seen_LTC, logits_LTK = self.recogniser.look(target_L3HW)
        _, again_LTC, logits_again_LTK = self.recogniser.look(output_L3HW)
        share_LT = _share_of_columns(used_px_L, seen_LTC.shape[1], _STEP_PX)
        apart_LT = (F.normalize(again_LTC.float(), dim=2) - F.normalize(seen_LTC.float(), dim=2)).square().sum(2)
        divergence_LT = F.kl_div(
            logits_again_LTK.float().log_softmax(2),
            logits_LTK.float().log_softmax(2),
            log_target=True,
            reduction="none",
        ).sum(2)
        return torch.stack([(apart_LT * share_LT).sum(1), (divergence_LT * share_LT).sum(1)])

    def _places(self, output_B3HW: torch.Tensor, target_B3HW: torch.Tensor) -> torch.Tensor:
        height, width = target_B3HW.shape[2:]
        pads = (0, -width % _DETECTOR_PX, 0, -height % _DETECTOR_PX)

        def look(images_B3HW: torch.Tensor) -> torch.Tensor:
            logits: torch.Tensor = self.detector(F.pad(images_B3HW.flip(1), pads))
            return logits[:, :, :height, :width].float()

        with torch.no_grad():
            target = look(target_B3HW)
            probability = target.sigmoid()
            entropy = F.binary_cross_entropy_with_logits(target, probability, reduction="none")
        crossed = F.binary_cross_entropy_with_logits(look(output_B3HW), probability, reduction="none")
        return (crossed - entropy).flatten(1).mean(1)


class StrokeLoss(nn.Module):
    """The early look: only what the recogniser's first stage makes of lines, for a fraction of the cost."""

    def __init__(self, recogniser: "Recogniser", lines: int) -> None:
        """lines: looked at on each picture, at most."""
        super().__init__()
        self.recogniser, self.lines = recogniser, lines
        self.eval().requires_grad_(False)

    def forward(
        self, output_B3HW: torch.Tensor, target_B3HW: torch.Tensor, quads: Sequence[Quads]
    ) -> dict[str, torch.Tensor]:
        """One term, (B,), of pictures in [-1, 1] and the lines known on each, 0 for a picture without a visible one:

        read_strokes  mean over lines and cells of |m^_y - m^_x|^2, the maps of the first stage at length 1
        """
        (strokes_B,) = _over_lines(output_B3HW, target_B3HW, quads, self.lines, self._compare, 1)
        return {"read_strokes": strokes_B}

    def _compare(self, output_L3HW: torch.Tensor, target_L3HW: torch.Tensor, used_px_L: torch.Tensor) -> torch.Tensor:
        with torch.no_grad():
            seen_LChw = F.normalize(self.recogniser.glance(target_L3HW).float(), dim=1)
        again_LChw = F.normalize(self.recogniser.glance(output_L3HW).float(), dim=1)
        share_Lw = _share_of_columns(used_px_L, seen_LChw.shape[3], _CELL_PX)
        apart_Lw = (again_LChw - seen_LChw).square().sum(1).mean(1)
        return (apart_Lw * share_Lw).sum(1)[None]


Depth = Literal["all", "early"]


def load_reading_loss(lines: int, depth: Depth) -> ReadingLoss | StrokeLoss:
    """With the networks of rapidocr's wheel. Raises BadInput when the wheel lacks them."""
    from datagen.ppocr_torch import load_detector, load_recogniser  # onnx's graphs: only where the term is used

    if depth == "early":
        return StrokeLoss(load_recogniser(), lines)
    return ReadingLoss(load_recogniser(), load_detector(), lines)


_Compare = Callable[[torch.Tensor, torch.Tensor, torch.Tensor], torch.Tensor]
"""Strips of the reconstruction, of the original, and their used widths in px -> (terms, L)."""


def _over_lines(
    output_B3HW: torch.Tensor,
    target_B3HW: torch.Tensor,
    quads: Sequence[Quads],
    most: int,
    compare: _Compare,
    terms: int,
) -> torch.Tensor:
    """(terms, B): `compare` on the first `most` visible lines of each picture, their mean."""
    height, width = target_B3HW.shape[2:]
    placed = [(i, line) for i, some in enumerate(quads) for line in _visible(some, height, width)[:most]]
    totals = target_B3HW.new_zeros(terms, len(quads))
    counts = np.bincount([i for i, _ in placed], minlength=len(quads))
    for strip_px in STRIP_WIDTHS_PX:
        own = [(i, line) for i, line in placed if _strip_width(line) == strip_px]
        if not own:
            continue
        owners = torch.tensor([i for i, _ in own], device=totals.device)
        used_px = torch.tensor([min(_line_width(line), strip_px) for _, line in own], device=totals.device)
        grids = np.stack([_grid(line, strip_px, height, width) for _, line in own])
        output_L3HW, target_L3HW = (_cut(images, owners, grids, used_px) for images in (output_B3HW, target_B3HW))
        totals = totals.index_add(1, owners, compare(output_L3HW, target_L3HW, used_px))
    return totals / torch.from_numpy(counts).to(totals.device).clamp_min(1)


def _cut(
    images_B3HW: torch.Tensor, owners: torch.Tensor, grids: npt.NDArray[np.float32], used_px: torch.Tensor
) -> torch.Tensor:
    """(L, 3, 48, W): the lines laid into strips, as PP-OCR was trained: red and blue exchanged, 0 behind their end."""
    grid_LHW2 = torch.from_numpy(grids).to(images_B3HW.device)
    strips = []
    for i in owners.unique().tolist():  # picture by picture: none is copied for every one of its lines
        own_1HW2 = grid_LHW2[owners == i].flatten(0, 1)[None]
        cut = F.grid_sample(images_B3HW[i : i + 1].float(), own_1HW2, padding_mode="border", align_corners=False)
        strips.append(cut[0].unflatten(1, (-1, LINE_HEIGHT_PX)).transpose(0, 1))
    columns = torch.arange(grid_LHW2.shape[2], device=used_px.device)
    inside_L11W = (columns < used_px[:, None])[:, None, None]
    return torch.cat(strips).flip(1) * inside_L11W


def _share_of_columns(used_px_L: torch.Tensor, columns: int, column_px: int) -> torch.Tensor:
    """(L, columns): equal weights that sum to 1 over the columns that begin inside the line, 0 behind it."""
    valid_LT = torch.arange(columns, device=used_px_L.device) * column_px < used_px_L[:, None]
    return valid_LT / valid_LT.sum(1, keepdim=True)


def _visible(quads_px: Quads, height: int, width: int) -> list[Quads]:
    """The lines as far as they stand inside the picture, those that show at least a square of themselves.

    A line that leaves the picture is cut across where its head or foot does: both pictures are cut alike.
    """
    along = np.linspace(0, 1, 65, dtype=np.float32)[:, None]
    found = []
    for quad_42 in quads_px:
        head_N2, foot_N2 = (quad_42[a] * (1 - along) + quad_42[b] * along for a, b in ((0, 1), (3, 2)))
        points_N22 = np.stack([head_N2, foot_N2], axis=1)
        inside_N = ((points_N22 >= 0) & (points_N22 <= [width, height])).all(axis=(1, 2))
        places = np.flatnonzero(inside_N)
        if len(places) < 2 or places[-1] - places[0] + 1 != len(places):
            continue
        first, last = places[0], places[-1]
        line_42 = np.stack([head_N2[first], head_N2[last], foot_N2[last], foot_N2[first]])
        long, high = _sides(line_42)
        if high >= 1 and long >= high:
            found.append(line_42)
    return found


def _sides(quad_42: Quads) -> tuple[float, float]:
    """Mean length and height in px."""
    edges = np.linalg.norm(quad_42 - np.roll(quad_42, -1, axis=0), axis=1)
    return float(edges[0] + edges[2]) / 2, float(edges[1] + edges[3]) / 2


def _line_width(quad_42: Quads) -> int:
    """Columns that a line fills at the recogniser's height."""
    long, high = _sides(quad_42)
    return max(_STEP_PX, round(LINE_HEIGHT_PX * long / high))


def _strip_width(quad_42: Quads) -> int:
    width = _line_width(quad_42)
    return next((strip for strip in STRIP_WIDTHS_PX if width <= strip), STRIP_WIDTHS_PX[-1])


def _grid(quad_42: Quads, strip_px: int, height: int, width: int) -> npt.NDArray[np.float32]:
    """(48, strip_px, 2) places for `grid_sample`: the strip's pixel centres through the quad's perspective."""
    columns = (np.arange(strip_px) + 0.5) / _line_width(quad_42)
    rows = (np.arange(LINE_HEIGHT_PX) + 0.5) / LINE_HEIGHT_PX
    u_HW, v_HW = np.meshgrid(columns, rows)
    square_HW3 = np.stack([u_HW, v_HW, np.ones_like(u_HW)], axis=2)
    x, y, scale = np.moveaxis(square_HW3 @ _perspective(quad_42).T, 2, 0)
    return np.stack([2 * x / scale / width - 1, 2 * y / scale / height - 1], axis=2).astype(np.float32)


def _perspective(quad_42: Quads) -> npt.NDArray[np.float64]:
    """The homography from the unit square to the quad (Heckbert 1989, "Fundamentals of Texture Mapping", 2.2.3)."""
    p0, p1, p2, p3 = quad_42.astype(np.float64)
    d1, d2, s = p1 - p2, p3 - p2, p0 - p1 + p2 - p3
    divisor = d1[0] * d2[1] - d2[0] * d1[1]
    g = (s[0] * d2[1] - d2[0] * s[1]) / divisor
    h = (d1[0] * s[1] - s[0] * d1[1]) / divisor
    across, down = p1 - p0 + g * p1, p3 - p0 + h * p3
    return np.array([[across[0], down[0], p0[0]], [across[1], down[1], p0[1]], [g, h, 1.0]])
