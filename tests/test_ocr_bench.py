"""What `glyphmill bench ocr` says of a small run: its arithmetic, on pages that are really read."""

import json

import msgspec
import pytest
from engine_runs import make_inputs, make_recipe
from test_judge_read import made_up_calibration

from datagen import ocr_bench
from datagen.audit import SAMPLE_SHARD, TEST_SHARD
from datagen.cascade import calibration_to_json
from datagen.judge import JudgeConfig
from datagen.plan import make_plan
from datagen.recipes import recipe_hash, recipe_to_yaml
from render_engine.distribution import PageDistribution


@pytest.fixture(scope="module")
def figures(tmp_path_factory) -> ocr_bench.OcrFigures:
    folder = tmp_path_factory.mktemp("bench")
    inputs = make_inputs(tmp_path_factory.mktemp("inputs"))
    pages = PageDistribution(page_sizes_px=((128, 64),), languages={"en": 1.0}, families={"pure": 1.0})
    judge = JudgeConfig(calibration=str(folder / "calibration.json"), audit=0.25)
    recipe = make_recipe(inputs, rows=12, pages=pages, judge=judge)
    plan = make_plan(recipe, recipe_hash(recipe), recipe_to_yaml(recipe))
    everything = made_up_calibration(plan, threshold=-1.0)
    (folder / "calibration.json").write_bytes(calibration_to_json(everything))
    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(ocr_bench, "READERS", ("rapidocr", "another"))
        return ocr_bench.bench_ocr(recipe, pages=2)


def test_a_cascade_that_reads_everything_agrees_on_everything_and_costs_as_much(figures):
    assert (figures.agreement, figures.page_agreement) == (1.0, 1.0)
    assert figures.lines_read == figures.lines > figures.pages == 2
    assert 0.5 < figures.cost_ratio < 3
    assert figures.cost_ratio_with_audit == pytest.approx(figures.cost_ratio + 0.25)
    assert figures.pages_per_s / figures.full_ocr_pages_per_s == pytest.approx(1 / figures.cost_ratio)
    assert figures.pages_per_s / figures.plain_pages_per_s == pytest.approx(1 / figures.cost_ratio_to_plain)


def test_the_figures_are_one_json_object_and_a_table(figures):
    found = json.loads(ocr_bench.as_json(figures))
    assert {"agreement", "cost_ratio", "pages_per_s"} <= found.keys()
    assert found["backends"]["rapidocr"]["lines_per_s"] > 0
    assert found["backends"]["rapidocr"]["mean_ned"] > 0.5
    assert "no reader is called" in found["backends"]["another"]["missing"]
    text = ocr_bench.as_text(figures)
    assert "another" in text
    assert "not measured" in text
    assert msgspec.json.decode(ocr_bench.as_json(figures)) == found


def test_pages_to_try_a_calibration_on_are_none_of_its_own():
    assert TEST_SHARD - SAMPLE_SHARD > 10**8
    assert TEST_SHARD + 10**8 < 2**31
