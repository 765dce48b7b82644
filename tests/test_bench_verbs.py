"""`glyphmill bench scale` and `bench load` as they are run: what they print, and that its figures belong together."""

import json
import os
import subprocess
import sys
from dataclasses import fields

import pytest

from datagen.scaling import ScaleFigures

SMALL_PAGES = (
    "seed=3",
    "rows_per_shard=4",
    "pages.page_sizes_px=[[96, 96]]",
    "pages.languages={en: 1.0}",
    "fonts={places: [package:matplotlib/mpl-data/fonts/ttf/DejaVuSans.ttf], system: false}",
    "photos.places=[{place: package:skimage/data/coffee.png, licence: CC0-1.0}]",
)


def bench(*words: str) -> dict:
    """What `glyphmill bench ... --json` prints in a process of its own."""
    command = [sys.executable, "-m", "glyphmill", "bench", *words, "--json"]
    one_thread = os.environ | {"OMP_NUM_THREADS": "1"}
    done = subprocess.run(command, env=one_thread, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


@pytest.mark.slow
def test_scale_compares_as_many_rows_a_worker_in_each_way() -> None:
    figures = bench("scale", "background", *SMALL_PAGES, "--workers", "2", "--shards", "2", "--repeats", "1")
    assert list(figures) == [field.name for field in fields(ScaleFigures)]
    assert (figures["workers"], figures["rows_per_worker"]) == (2, 2 * 4)
    for way in ("serial", "one", "all"):
        assert figures[f"rows_per_s_{way}"] > 0
        assert figures[f"cpu_ms_per_row_{way}"] > 0
    # of one repeat the medians are its own figures
    assert figures["speedup"] == pytest.approx(figures["rows_per_s_all"] / figures["rows_per_s_one"])
    overhead = figures["cpu_ms_per_row_one"] / figures["cpu_ms_per_row_serial"] - 1
    assert figures["ray_overhead"] == pytest.approx(overhead)
    assert isinstance(figures["driver_bytes_per_task"], float)


@pytest.mark.slow
def test_load_draws_its_pages_when_it_is_given_no_run() -> None:
    figures = bench("load", "--crop-px", "32", "--batch", "4", "--pictures", "8")
    assert (figures["pictures"], figures["crop_px"], figures["batch"]) == (8, 32, 4)
    alone = figures["decoders_images_per_s_per_core"]
    assert figures["decoder"] == max(alone, key=alone.get)
    limit = figures["decode_limit_images_per_s_per_core"]
    assert figures["fraction_of_decode_limit"] == pytest.approx(figures["images_per_s_per_core"] / limit)
