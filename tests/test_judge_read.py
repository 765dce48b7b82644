"""The judge on pages drawn by the renderer and read by the real reader."""

import dataclasses
from pathlib import Path

import cv2
import msgspec
import numpy as np
import pyarrow as pa
import pytest
from engine_runs import data_bytes, make_inputs, make_recipe
from pyarrow import parquet as pq
from test_judge_cascade import sampled

from datagen.agreement import compare
from datagen.audit import (
    calibrate_run,
    calibration_of_run,
    is_read_in_full,
    made_for,
    open_judge,
    read_sample_page,
)
from datagen.cascade import Calibration, SampledLine, calibrate, calibration_to_json
from datagen.commit import MANIFEST_SCHEMA, finish_run, read_manifest, read_rows, run_totals, start_run
from datagen.generate import describe_judged, generate, generate_shard
from datagen.judge import JudgeConfig, judge_read, read_legibility, read_lines
from datagen.legibility import FEATURES
from datagen.ocr import open_recognizer
from datagen.plan import Address, GeneratePlan, describe_run, make_plan
from datagen.recipes import recipe_hash, recipe_to_yaml
from datagen.rows import open_workshop, sample_rows
from datagen.storage import Folder
from datagen.verify import verify_run
from fonts_manifest.errors import BadInput
from fonts_manifest.scan import scan_fonts
from render_engine.distribution import PageDistribution
from render_engine.render import Assets, render
from render_engine.spec import PageSpec, PlainGround, TextBlock

CONFIG = JudgeConfig()
TEXT = "Legible text is read on this page\nand so is the second paragraph of it"


@pytest.fixture(scope="module")
def assets() -> Assets:
    manifest, _ = scan_fonts(["package:matplotlib/mpl-data/fonts/ttf/DejaVuSans.ttf"])
    return Assets(manifest.faces)


@pytest.fixture(scope="module")
def reader():
    return open_recognizer("rapidocr")


def draw(assets: Assets, size_px: float, ink: int = 0):
    block = TextBlock(
        text=TEXT,
        lang="en",
        box_px=(8.0, 8.0, 248.0, 248.0),
        face_ids=tuple(assets.fonts),
        size_px=size_px,
        ink_rgb=(ink, ink, ink),
    )
    ground = PlainGround(rgb=(255, 255, 255))
    return render(PageSpec(width_px=256, height_px=96, family="pure", background=ground, blocks=(block,)), assets)


def test_clean_print_of_12_px_is_read_and_kept_without_drawing_it_again(assets, reader):
    page = draw(assets, 12)
    readings = read_lines(reader, page, assets)
    assert len(readings) == len(page.lines) >= 2
    assert all(reading.read_ned > 0.95 and reading.clean_ned == 1.0 for reading in readings)
    assert judge_read(readings, page, CONFIG).keep


def test_a_blurred_page_is_dropped_as_illegible(assets, reader):
    page = draw(assets, 9)
    blurred = dataclasses.replace(page, image_HW3=cv2.GaussianBlur(page.image_HW3, (0, 0), 4))
    assert judge_read(read_lines(reader, blurred, assets), blurred, CONFIG).reason == "illegible"


def test_an_invisible_page_is_dropped_for_its_contrast(assets, reader):
    page = draw(assets, 12, ink=254)
    readings = read_lines(reader, page, assets)
    assert all(reading.read_ned > 0.9 for reading in readings)  # the reader sees one step of 255; nobody else does
    assert judge_read(readings, page, CONFIG).reason == "low_contrast"


def test_5_px_print_is_measured_against_itself_and_kept(assets, reader):
    page = draw(assets, 5)
    readings = read_lines(reader, page, assets)
    misread = [reading for reading in readings if reading.read_ned < 0.98]
    assert misread, "at 5 px the reader errs; if it does not any more, the clean print need not be read"
    assert all(reading.clean_ned < 1.0 for reading in misread)
    assert np.mean([reading.relative_ned for reading in misread if reading.relative_ned is not None]) > 0.75
    assert judge_read(readings, page, CONFIG).keep


# the cascade, in runs


def made_up_calibration(plan: GeneratePlan, threshold: float) -> Calibration:
    """Fitted to nothing but the size: half of all lines uncertain, and read above the threshold."""
    rng = np.random.default_rng(0)
    sizes = FEATURES.index("log2 size above 8 px")
    pages = []
    for _ in range(60):
        features = np.zeros((5, len(FEATURES)))
        features[:, 0], features[:, sizes] = 1, rng.uniform(0, 1.3, 5)
        pages.append(
            [
                SampledLine(
                    features=tuple(row.tolist()),
                    legibility=float(good),
                    legible=bool(good),
                    visible=True,
                    read_ned=float(good),
                    price_px=200,
                    clean_px=0,
                    weight=1.0,
                )
                for row, good in zip(features, rng.random(5) < features[:, sizes] / 1.3, strict=True)
            ]
        )
    found = calibrate(pages, plan.judge_config, made_for=made_for(plan))
    point = msgspec.structs.replace(found.curve[0], threshold=threshold)
    return msgspec.structs.replace(found, curve=(point,))


@pytest.fixture(scope="module")
def inputs(tmp_path_factory) -> Path:
    return make_inputs(tmp_path_factory.mktemp("inputs"))


def plan_of(inputs: Path, threshold: float, audit: float, out: str = "", **changes: object) -> GeneratePlan:
    """12 plain pages in two shards, judged by a made-up calibration."""
    pages = PageDistribution(page_sizes_px=((128, 64),), languages={"en": 1.0}, families={"pure": 1.0})
    recipe = make_recipe(inputs, rows=12, pages=pages, judge=JudgeConfig(audit=audit), **changes)
    plan = make_plan(recipe, recipe_hash(recipe), recipe_to_yaml(recipe), out)
    calibration = made_up_calibration(plan, threshold)
    return dataclasses.replace(plan, judge=open_judge(plan, calibration), calibration=calibration.digest)


def judgements(plan: GeneratePlan):
    workshop = open_workshop(plan)
    for each in sample_rows(plan, [Address(0, row) for row in range(4)]):
        yield each.page, plan.judge(each.page, each.spec, workshop.assets, each.address), workshop.assets


def test_a_cascade_that_reads_everything_decides_as_full_ocr(inputs, reader):
    for page, judgement, assets in judgements(plan_of(inputs, threshold=-1.0, audit=0.0)):
        assert judgement.judged_by == "cascade"
        readings = read_lines(reader, page, assets)
        assert list(judgement.readings) == readings
        assert judgement.verdict == judge_read(readings, page, CONFIG)


def test_a_cascade_that_reads_nothing_asks_no_reader(inputs, monkeypatch):
    monkeypatch.setattr("datagen.audit.open_recognizer", lambda name: pytest.fail("a reader was opened"))
    for page, judgement, _ in judgements(plan_of(inputs, threshold=1e9, audit=0.0)):
        assert judgement.readings == (None,) * len(page.lines)
        assert all(0 < chance < 1 for chance in judgement.legibility)


def test_an_audited_page_is_judged_by_ocr_and_says_what_the_cascade_made_of_it(inputs, reader):
    for page, judgement, assets in judgements(plan_of(inputs, threshold=1e9, audit=1.0)):
        readings = read_lines(reader, page, assets)
        assert (judgement.judged_by, judgement.verdict) == ("ocr", judge_read(readings, page, CONFIG))
        truth = [read_legibility(r, line, CONFIG) >= 0.6 for r, line in zip(readings, page.lines, strict=True)]
        assert judgement.audit.lines == compare([chance >= 0.5 for chance in judgement.legibility], truth)
        assert judgement.ned is not None


def test_shards_judged_by_the_cascade_are_the_same_bytes_in_any_order_and_verify_counts_again(inputs, tmp_path):
    # Worth of reading: 1000 x uncertainty / price; at 0.9 some lines are read and some are not.
    found = {}
    for name, order in (("forwards", (0, 1)), ("backwards", (1, 0))):
        plan = plan_of(inputs, threshold=0.9, audit=0.3, out=str(tmp_path / name))
        folder = Folder(plan.out)
        start_run(folder, plan.identity)
        describe_run(folder, plan, "kind: generate\nrows: 12\n")
        for shard in order:
            generate_shard(plan, shard)
        finish_run(folder, plan.shards)
        found[name] = {path: sha for path, sha in data_bytes(plan.out).items() if path.startswith("data")}
    assert found["forwards"] == found["backwards"]
    totals = run_totals(tmp_path / "forwards").judged
    assert 0 < totals["audited_pages"] < totals["pages"]
    assert totals["audited_lines"] < totals["lines_read"] < totals["lines"]
    assert read_manifest(tmp_path / "forwards")["judged"][0]["calibration"].as_py() == plan.calibration
    assert "whole" in verify_run(tmp_path / "forwards", 0)
    manifest = read_manifest(tmp_path / "forwards").to_pylist()
    manifest[0]["judged"]["lines_false_keep"] += 1
    pq.write_table(pa.Table.from_pylist(manifest, MANIFEST_SCHEMA), tmp_path / "forwards" / "manifest.parquet")
    with pytest.raises(BadInput, match="what was read and audited is not what the manifest says"):
        verify_run(tmp_path / "forwards", 0)


def test_a_run_takes_the_calibration_that_its_recipe_names_and_no_other(inputs, tmp_path):
    plan = plan_of(inputs, threshold=1e9, audit=0.0)
    path = tmp_path / "calibration.json"
    path.write_bytes(calibration_to_json(plan.judge.calibration))
    judge = JudgeConfig(calibration=str(path), audit=0.0)
    named = dataclasses.replace(plan, judge_config=judge, out=str(tmp_path / "run"))
    assert calibration_of_run(named).digest == plan.calibration
    assert (tmp_path / "run" / "calibration.json").read_bytes() == path.read_bytes()
    other = dataclasses.replace(named, pages=PageDistribution(languages={"en": 1.0}))
    with pytest.raises(BadInput, match=r"made for another recipe \(pages differ\)"):
        calibration_of_run(other)
    changed = msgspec.structs.replace(plan.judge.calibration, legibility_bad=0.1)
    path.write_bytes(calibration_to_json(changed))
    with pytest.raises(BadInput, match=r"is not the calibration that the run in .* began with"):
        calibration_of_run(named)
    path.unlink()
    with pytest.raises(BadInput, match=r"cannot be read .*`glyphmill judge calibrate` makes one"):
        calibration_of_run(named)


def test_the_pages_of_a_calibration_are_none_of_the_run_and_are_read_once(inputs, tmp_path, monkeypatch):
    recipe = make_recipe(inputs, judge=JudgeConfig(sample_pages=50))
    plan = make_plan(recipe, recipe_hash(recipe), recipe_to_yaml(recipe), str(tmp_path))
    drawn = []

    def read(plan: GeneratePlan, address: Address) -> list[SampledLine]:
        drawn.append(address)
        return [sampled(float(address.shard % 2), bool(address.shard % 2))] * 8

    monkeypatch.setattr("datagen.audit.read_sample_page", read)
    first = calibrate_run(plan, executor="serial")
    assert len(set(drawn)) == len(drawn) == 50
    assert not {address.shard for address in drawn} & set(range(plan.shards))
    assert len({address.shard for address in drawn}) == 50  # a shard has few faces and sizes
    (tmp_path / "calibration.json").unlink()
    (tmp_path / "readings" / "00003.json").unlink()
    drawn.clear()
    assert calibrate_run(plan, executor="serial") == first
    assert len(drawn) == 8
    assert (first.pages, first.lines) == (50, 400)


def test_lines_of_a_sampled_page_are_read_with_their_weight(inputs):
    plan = plan_of(inputs, threshold=0, audit=0)
    found = read_sample_page(plan, Address(1 << 30, 0))
    assert found == read_sample_page(plan, Address(1 << 30, 0))
    assert 1 <= len(found) <= 8
    assert all(one.weight >= 1 and len(one.features) == len(FEATURES) and one.price_px >= 16 for one in found)
    assert np.mean([one.legible for one in found]) > 0.5  # plain print


def test_a_small_run_is_read_in_full(inputs, tmp_path):
    pages = PageDistribution(page_sizes_px=((128, 64),), languages={"en": 1.0}, families={"pure": 1.0})
    recipe = make_recipe(inputs, rows=2, pages=pages)
    report = generate(recipe, recipe_hash(recipe), recipe_to_yaml(recipe), str(tmp_path), executor="serial")
    assert report.judged["lines_read"] == report.judged["lines"] > 2
    assert describe_judged(report.judged) == f"judged: all {report.judged['lines']} lines read by OCR"
    assert not (tmp_path / "calibration.json").exists()
    assert {row["judged_by"] for row in read_rows(tmp_path).to_pylist()} == {"ocr"}
    assert "whole" in verify_run(tmp_path, 0)
    larger = make_plan(make_recipe(inputs, rows=101), "", "")
    assert not is_read_in_full(larger)
    assert is_read_in_full(dataclasses.replace(larger, rows=100))
