"""Charts draw every value they are given."""

import re

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from datagen.charts import histogram_svg, lines_svg, nice_ticks


@given(st.lists(st.floats(-1e6, 1e6), min_size=1, max_size=50), st.integers(1, 40))
def test_a_histogram_counts_every_value_once(values: list[float], bins: int) -> None:
    svg = histogram_svg({"all": values}, label="value", bins=bins)
    assert f"<title>all: {len(values)}</title>" in svg


def test_a_histogram_leaves_out_what_is_not_finite_and_says_when_nothing_is_left() -> None:
    assert "<title>a: 2</title>" in histogram_svg({"a": [1.0, np.nan, 2.0, np.inf]}, label="x")
    assert "nothing measured" in histogram_svg({"a": [np.nan]}, label="x")


def test_a_line_runs_from_the_left_axis_to_the_right_edge() -> None:
    svg = lines_svg({"loss": ([0, 5, 10], [3.0, 2.0, 1.0])}, x_label="step", y_label="loss")
    found = re.search(r'<polyline class="line s0" points="([^"]+)"', svg)
    assert found is not None
    points = [tuple(map(float, point.split(","))) for point in found.group(1).split()]
    assert [x for x, _ in points] == [52.0, 230.0, 408.0]
    assert points[0][1] < points[1][1] < points[2][1]  # SVG's y runs down


def test_labels_are_escaped() -> None:
    assert "<script>" not in histogram_svg({"<script>": [1.0], "b": [2.0]}, label="<script>")


@given(st.floats(-1e5, 1e5), st.floats(1e-3, 1e5), st.integers(2, 8))
def test_ticks_lie_inside_the_range_and_are_few(low: float, width: float, most: int) -> None:
    ticks = nice_ticks(low, low + width, most)
    assert len(ticks) <= most + 1
    assert all(low - 1e-6 * width <= tick <= low + width + 1e-6 * width for tick in ticks)


@pytest.mark.parametrize(
    ("low", "high", "expected"), [(0, 10, [0, 2, 4, 6, 8, 10]), (0.0, 0.9, [0.0, 0.2, 0.4, 0.6, 0.8])]
)
def test_ticks_are_round_numbers(low: float, high: float, expected: list[float]) -> None:
    assert nice_ticks(low, high) == pytest.approx(expected)
