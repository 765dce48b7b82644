"""Charts as inline SVG: no script, no font of their own, colours from the page's CSS variables."""

import math
from collections.abc import Callable, Mapping, Sequence
from html import escape

import numpy as np
import numpy.typing as npt

_WIDTH, _HEIGHT = 420, 210
_LEFT, _RIGHT, _TOP, _BOTTOM = 52, 12, 26, 40


def histogram_svg(
    groups: Mapping[str, Sequence[float] | npt.NDArray[np.floating]],
    *,
    label: str,
    bins: int = 30,
    value_range: tuple[float, float] | None = None,
    counted: str = "pictures",
    marks: Sequence[float] = (),
) -> str:
    """Counts of each group's values over shared bins, one translucent step area a group.

    `label` stands under the x axis and names the unit, `counted` beside the y axis; `marks` are upright lines.
    Groups without values are left out; no value gives a note.
    """
    arrays = {name: np.asarray(values, dtype=np.float64) for name, values in groups.items()}
    arrays = {name: values[np.isfinite(values)] for name, values in arrays.items()}
    everything = np.concatenate([*arrays.values(), np.empty(0)])
    if everything.size == 0:
        return f'<p class="note">{escape(label)}: nothing measured.</p>'
    low, high = value_range or (float(everything.min()), float(everything.max()))
    if high <= low:
        high = low + 1.0
    edges = np.linspace(low, high, bins + 1)
    counts = {name: np.histogram(values, edges)[0] for name, values in arrays.items() if values.size}
    top = max(int(count.max()) for count in counts.values()) or 1
    axes, to_x, to_y = _axes((low, high), (0.0, float(top)), label, counted)
    shapes = []
    for number, (name, count) in enumerate(counts.items()):
        corners = [f"{to_x(low):.1f},{to_y(0):.1f}"]
        for left, right, value in zip(edges[:-1], edges[1:], count, strict=True):
            corners += [f"{to_x(left):.1f},{to_y(value):.1f}", f"{to_x(right):.1f},{to_y(value):.1f}"]
        corners.append(f"{to_x(high):.1f},{to_y(0):.1f}")
        title = f"<title>{escape(name)}: {int(count.sum())}</title>"
        shapes.append(f'<polygon class="area s{number % 5}" points="{" ".join(corners)}">{title}</polygon>')
    for mark in marks:
        if low <= mark <= high:
            x = f"{to_x(mark):.1f}"
            title = f"<title>{mark:g}</title>"
            shapes.append(f'<line class="mark" x1="{x}" x2="{x}" y1="{_TOP}" y2="{_HEIGHT - _BOTTOM}">{title}</line>')
    return _svg([*shapes, *axes, *_legend(list(counts))])


def lines_svg(
    series: Mapping[str, tuple[Sequence[float], Sequence[float]]], *, x_label: str, y_label: str, log_y: bool = False
) -> str:
    """One polyline a series of (xs, ys); values that are not finite (or not positive with `log_y`) are left out."""
    cleaned: dict[str, tuple[npt.NDArray[np.float64], npt.NDArray[np.float64]]] = {}
    for name, (xs_given, ys_given) in series.items():
        xs, ys = np.asarray(xs_given, dtype=np.float64), np.asarray(ys_given, dtype=np.float64)
        good = np.isfinite(xs) & np.isfinite(ys) & ((ys > 0) if log_y else True)
        if good.any():
            cleaned[name] = (xs[good], np.log10(ys[good]) if log_y else ys[good])
    if not cleaned:
        return f'<p class="note">{escape(y_label)}: nothing measured.</p>'
    all_x = np.concatenate([xs for xs, _ in cleaned.values()])
    all_y = np.concatenate([ys for _, ys in cleaned.values()])
    margin = 0.05 * float(np.ptp(all_y)) or 0.5
    x_range = (float(all_x.min()), float(all_x.max()) if np.ptp(all_x) else float(all_x.min()) + 1)
    y_range = (float(all_y.min()) - margin, float(all_y.max()) + margin)
    axes, to_x, to_y = _axes(x_range, y_range, x_label, y_label, log_y=log_y)
    shapes = []
    for number, (name, (xs, ys)) in enumerate(cleaned.items()):
        points = " ".join(f"{to_x(x):.1f},{to_y(y):.1f}" for x, y in zip(xs, ys, strict=True))
        shapes.append(
            f'<polyline class="line s{number % 5}" points="{points}"><title>{escape(name)}</title></polyline>'
        )
    return _svg([*axes, *shapes, *_legend(list(cleaned))])


def nice_ticks(low: float, high: float, most: int = 6) -> list[float]:
    """At most `most` + 1 multiples of 1, 2 or 5 times a power of ten inside [low, high]."""
    step = 10.0 ** math.floor(math.log10((high - low) / most))
    step *= next(factor for factor in (1, 2, 5, 10) if (high - low) / (step * factor) <= most)
    first = math.ceil(low / step - 1e-9)
    last = math.floor(high / step + 1e-9)
    return [number * step for number in range(first, last + 1)]


def _axes(
    x_range: tuple[float, float], y_range: tuple[float, float], x_label: str, y_label: str, *, log_y: bool = False
) -> tuple[list[str], Callable[[float], float], Callable[[float], float]]:
    """The SVG of both axes, and the functions from values to SVG x and y."""

    def to_x(value: float) -> float:
        return _LEFT + (value - x_range[0]) / (x_range[1] - x_range[0]) * (_WIDTH - _LEFT - _RIGHT)

    def to_y(value: float) -> float:
        return _HEIGHT - _BOTTOM - (value - y_range[0]) / (y_range[1] - y_range[0]) * (_HEIGHT - _TOP - _BOTTOM)

    parts = []
    for tick in nice_ticks(*y_range, most=4):
        text = f"{10**tick:.3g}" if log_y else f"{tick:g}"
        y = f"{to_y(tick):.1f}"
        parts.append(f'<line class="grid" x1="{_LEFT}" x2="{_WIDTH - _RIGHT}" y1="{y}" y2="{y}"/>')
        parts.append(f'<text x="{_LEFT - 6}" y="{to_y(tick) + 4:.1f}" text-anchor="end">{text}</text>')
    for tick in nice_ticks(*x_range):
        parts.append(f'<text x="{to_x(tick):.1f}" y="{_HEIGHT - _BOTTOM + 15}" text-anchor="middle">{tick:g}</text>')
    base = _HEIGHT - _BOTTOM
    parts.append(f'<line class="axis" x1="{_LEFT}" x2="{_WIDTH - _RIGHT}" y1="{base}" y2="{base}"/>')
    middle = (_LEFT + _WIDTH - _RIGHT) / 2
    parts.append(f'<text class="label" x="{middle}" y="{_HEIGHT - 6}" text-anchor="middle">{escape(x_label)}</text>')
    turn = f"translate(12 {(_TOP + base) / 2}) rotate(-90)"
    parts.append(f'<text class="label" transform="{turn}" text-anchor="middle">{escape(y_label)}</text>')
    return parts, to_x, to_y


def _legend(names: list[str]) -> list[str]:
    """Names above the plot, each behind its colour; none for a single series."""
    if len(names) < 2:
        return []
    parts, x = [], float(_LEFT)
    for number, name in enumerate(names):
        parts.append(f'<rect class="area s{number % 5}" x="{x:.0f}" y="5" width="10" height="10"/>')
        parts.append(f'<text x="{x + 15:.0f}" y="14">{escape(name)}</text>')
        x += 32 + 6.2 * len(name)
    return parts


def _svg(parts: Sequence[str]) -> str:
    return f'<svg class="chart" viewBox="0 0 {_WIDTH} {_HEIGHT}" role="img">{"".join(parts)}</svg>'
