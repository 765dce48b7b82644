"""`glyphmill bench render`: its keys, and that its figures belong to what was drawn."""

import json
from collections.abc import Sequence

import numpy as np
import pytest
from PIL import features
from typer.testing import CliRunner

from datagen.bench import STAGES, Measured
from datagen.peers import Run, ratio_to
from fonts_manifest.scan import scan_fonts
from glyphmill import app
from render_engine.render import Assets
from render_engine.spec import PageSpec, PlainGround, TextBlock


@pytest.fixture(scope="module")
def figures() -> dict:
    places = "[package:matplotlib/mpl-data/fonts/ttf, package:mpl_font/fonts]"
    fonts = f"fonts={{places: {places}, system: false}}"
    photos = "photos.places=[{place: package:skimage/data/coffee.png, licence: CC0-1.0}]"
    few = ["--pages", "8", "--warm-up", "1", "--json"]
    ran = CliRunner().invoke(app, ["bench", "render", "background", fonts, photos, *few])
    assert ran.exit_code == 0, ran.output
    return json.loads(ran.output)


def test_the_bench_prints_its_figures(figures: dict) -> None:
    keys = {"text_glyphs_per_s", "rows_per_s_512", "rows_per_s_1024", "ratio_to_pillow", "rss_mb", "first_page_s"}
    assert all(figures[key] > 0 for key in keys)
    assert set(figures["usual_512"]["stage_ms"]) == set(STAGES)
    assert figures["dropped"] == 0
    assert figures["dense_512"]["glyphs"] > 500
    assert figures["warm_up_pages"] == 200


def test_its_rates_are_those_of_its_stages(figures: dict) -> None:
    stages = figures["dense_512"]["stage_ms"]
    assert figures["dense_512"]["rows_per_s_with_sampling"] == pytest.approx(1000 / sum(stages.values()), rel=0.02)
    row_ms = sum(stages.values()) - stages["sample"] - stages["parquet"]
    assert figures["dense_512"]["rows_per_s"] == pytest.approx(1000 / row_ms, rel=0.02)
    text_s = sum(stages[stage] for stage in ("layout", "ink", "composite", "annotate")) / 1000
    assert figures["text_glyphs_per_s"] == pytest.approx(figures["dense_512"]["glyphs"] / text_s, rel=0.02)
    assert figures["rows_per_s_512"] == figures["usual_512"]["rows_per_s"]
    assert figures["floor_ms_512"] < sum(stages.values()) - stages["sample"]


def test_usual_pages_are_the_sparsest_with_enough_glyphs_and_their_own_times_count() -> None:
    glyphs_P = np.array([1500, 400, 1300, 1000, 999, 1100, 5000])
    seconds_PS = np.zeros((7, len(STAGES)))
    seconds_PS[:, STAGES.index("composite")] = glyphs_P / 1e6
    seconds_PS[0, STAGES.index("parquet")] = 0.7
    measured = Measured(numbers=list(range(7)), glyphs_P=glyphs_P, seconds_PS=seconds_PS, dropped=0)
    usual = measured.rows(measured.usual(1000, 1200))
    assert (usual.pages, usual.least_glyphs, usual.glyphs) == (3, 1000, pytest.approx(3400 / 3))
    assert usual.rows_per_s == pytest.approx(1e6 / usual.glyphs)
    assert usual.stage_ms["parquet"] == pytest.approx(100)
    assert usual.rows_per_s_with_sampling == pytest.approx(1 / (usual.glyphs / 1e6 + 0.1))
    assert measured.usual(9000, 9000).tolist() == [6]  # the densest when none is dense enough


def test_pillow_is_measured_with_the_layout_it_takes_by_itself(figures: dict) -> None:
    assert figures["pillow_layout"] == ("raqm" if features.check("raqm") else "basic")
    assert figures["ratio_to_pillow_basic"] > 1


def test_peers_are_given_every_character_in_a_face_that_draws_it() -> None:
    manifest, _ = scan_fonts(["package:matplotlib/mpl-data/fonts/ttf", "package:mpl_font/fonts"])
    sans = next(face for face in manifest.faces if face.family == "DejaVu Sans")
    noto = next(face for face in manifest.faces if face.family == "Noto Sans CJK SC")
    block = TextBlock(
        text="Fine 中文 text", lang="zh", box_px=(0, 0, 400, 40), face_ids=(sans.face_id, noto.face_id), size_px=16
    )
    spec = PageSpec(
        width_px=400, height_px=40, family="pure", background=PlainGround(rgb=(255, 255, 255)), blocks=(block,)
    )
    drawn: list[tuple[str, str]] = []

    def peer(canvas_HW3: np.ndarray, runs: Sequence[Run]) -> float:
        drawn.extend((run.text, run.face_id) for run in runs)
        return 1.0

    ratio = ratio_to(peer, [spec], Assets(manifest.faces))
    assert ratio.drawing > ratio.text_stage > 0
    assert drawn == [("Fine ", sans.face_id), ("中文", noto.face_id), (" text", sans.face_id)]


def test_skia_is_measured_where_it_is_installed(figures: dict) -> None:
    pytest.importorskip("skia")
    assert figures["ratio_to_skia"] > 0
