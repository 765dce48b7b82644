"""What a run says of itself: a table on a terminal, lines in a log, JSON lines for programs."""

import io
import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
from engine_runs import make_inputs, make_recipe
from rich.console import Console

from datagen import progress
from datagen.progress import Bars, JsonLines, show_progress
from datagen.recipes import recipe_to_yaml


class Clock:
    """A clock that is set by hand."""

    def __init__(self) -> None:
        self.now = 100.0

    def __call__(self) -> float:
        return self.now


def test_a_log_has_a_line_when_a_stage_begins_and_ends_with_rate_and_time_left() -> None:
    stream, clock = io.StringIO(), Clock()
    bars = Bars(Console(file=stream, width=200), clock)
    bars("draw", 100, 500, {})
    clock.now += 10
    bars("draw", 300, 500, {"illegible": 3})
    assert stream.getvalue().splitlines() == ["draw: 100 of 500"]
    bars.print_line()  # what the ticker does
    clock.now += 10
    bars("draw", 500, 500, {"illegible": 7, "crashed": 1})
    assert stream.getvalue().splitlines() == [
        "draw: 100 of 500",
        "draw: 300 of 500, 20/s, 10 s left; illegible 3",
        "draw: 500 of 500, 20/s; illegible 7; crashed 1",
    ]


def test_a_log_has_a_line_every_so_often_even_when_nothing_is_finished(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(progress, "_LOG_SECONDS", 0.05)
    stream = io.StringIO()
    with show_progress(Console(file=stream, width=200)) as bars:
        bars("draw", 0, 5, {})
        while stream.getvalue().count("draw: 0 of 5") < 4:
            pass
    assert set(stream.getvalue().splitlines()) == {"draw: 0 of 5"}


def test_a_terminal_shows_rates_time_left_and_each_reason_with_its_share() -> None:
    clock, stream = Clock(), io.StringIO()
    bars = Bars(Console(file=io.StringIO(), force_terminal=True), clock)
    bars("read", 8, 8, {})
    bars("draw", 0, 4000, {})
    clock.now += 5
    bars("draw", 300, 4000, {"illegible": 90, "crashed": 10})
    Console(file=stream, width=120).print(bars.table())
    read, draw, illegible, crashed, *_ = stream.getvalue().splitlines()
    assert "8 of 8" in read
    assert "left" not in read
    assert "300 of 4,000" in draw
    assert "60/s" in draw
    assert "62 s left" in draw
    assert illegible.split() == ["illegible", "90", "22.5%"]
    assert crashed.split() == ["crashed", "10", "2.5%"]


def test_json_lines_come_at_most_once_a_second_but_the_last_always() -> None:
    stream, clock = io.StringIO(), Clock()
    lines = JsonLines(stream, clock)
    for done in range(11):
        lines("draw", done, 10, {"illegible": done})
        clock.now += 0.25
    events = [json.loads(line) for line in stream.getvalue().splitlines()]
    assert [event["done"] for event in events] == [0, 4, 8, 10]
    assert events[0]["seconds_left"] is None
    assert events[1] == {
        "event": "progress", "stage": "draw", "done": 4, "total": 10, "per_s": 4.0, "seconds_left": 1.5,
        "counts": {"illegible": 4},
    }  # fmt: skip


def test_the_command_writes_events_and_nothing_else(tmp_path: Path) -> None:
    recipe = make_recipe(make_inputs(tmp_path), rows=3)
    (tmp_path / "mine.yaml").write_text(recipe_to_yaml(recipe))
    command = [
        sys.executable,
        "-m",
        "datagen",
        "generate",
        str(tmp_path / "mine.yaml"),
        "--executor",
        "serial",
        "--json",
    ]
    environment = os.environ | {"AWS_EC2_METADATA_DISABLED": "true"}
    place = "s3://mill/run?endpoint_override=127.0.0.1:1&scheme=ftp"
    done = subprocess.run([*command, "--out", place], capture_output=True, text=True, env=environment, check=False)
    (event,) = [json.loads(line) for line in done.stdout.splitlines()]
    assert event["event"] == "failed"
    assert event["reason"].startswith("s3://mill/run")
    assert done.returncode == 2
    assert done.stderr.strip().splitlines() == [f"glyphmill: {event['reason']}"]
