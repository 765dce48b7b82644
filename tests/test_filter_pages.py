"""What people look at: the page of a run, the page of its rules, and figures over a labelled set."""

import json
import re
import sys
from pathlib import Path

import cv2
import numpy as np
import pytest
import skimage
from PIL import Image

import glyphmill
from datagen.criteria import FilterRecipe
from datagen.decode import decode_image
from datagen.explain import explain_run
from datagen.filter import filter_corpus
from datagen.ingest import IngestConfig, RealPlace
from datagen.recipes import recipe_to_yaml
from datagen.report import _faces, inspect_run
from datagen.samples import rows_by_id, with_boxes
from datagen.score_labels import Label, auc, labels_recipe, read_labels, score_labels
from fonts_manifest.errors import BadInput

COFFEE = decode_image(f"{skimage.__path__[0]}/data/coffee.png")


@pytest.fixture(scope="module")
def pictures(tmp_path_factory) -> Path:
    root = tmp_path_factory.mktemp("pictures")
    Image.fromarray(COFFEE).save(root / "coffee.png")
    Image.fromarray(COFFEE[:, ::-1]).save(root / "mirrored.png")
    Image.fromarray(cv2.resize(COFFEE, None, fx=0.7, fy=0.7, interpolation=cv2.INTER_AREA)).save(root / "small.png")
    Image.fromarray(cv2.GaussianBlur(COFFEE, (0, 0), 2)).save(root / "soft.png")
    page = np.full((300, 420, 3), 255, np.uint8)
    for row in range(8):
        cv2.putText(page, "Twenty four words", (20, 40 + 30 * row), cv2.FONT_HERSHEY_SIMPLEX, 0.8, 0, 2)
    Image.fromarray(page).save(root / "page.png")
    (root / "torn.png").write_bytes(b"no picture <script>alert(1)</script>")
    return root


@pytest.fixture(scope="module")
def run(pictures: Path, tmp_path_factory) -> Path:
    out = tmp_path_factory.mktemp("out") / "run"
    source = IngestConfig(places=(RealPlace(place=str(pictures), licence="CC0-1.0 <b>"),))
    recipe = FilterRecipe(
        input=source, keep="saturation < 0.9", rules=dict.fromkeys(("repeated_text", "sparse_text", "watermarked"), "")
    )
    report = filter_corpus(recipe, "0" * 16, str(out), executor="serial", recipe_yaml=recipe_to_yaml(recipe))
    assert report.reasons == {"blurred": 1, "near_duplicate": 1, "not_an_image": 1}
    return out


def self_contained(page: Path) -> str:
    text = page.read_text(encoding="utf-8")
    assert not re.search(r"(src|href)=\"(?!data:|#)", text)
    assert "<script>alert" not in text
    return text


def test_the_page_of_the_rules_shows_counts_pictures_copies_and_broken_files(run, tmp_path):
    explain_run(str(run), tmp_path / "explain.html")
    text = self_contained(tmp_path / "explain.html")
    assert re.search(r"<td>blurred</td><td[^>]*>[^<]*sharpness &gt;= -2.4</td><td>1</td><td>\d</td>", text)
    for words in ("saturation &lt; 0.9", "soft.png", "near_duplicate", "small.png", "of this one", "torn.png"):
        assert words in text, words
    dropped = text[text.index("Dropped, nearest to the threshold first") :]
    assert dropped.index("soft.png") < dropped.index("Kept, nearest first") < dropped.index("coffee.png")
    assert 'class="mark"' in text  # the threshold in the histogram


def test_the_page_of_a_run_shows_boxes_both_sides_and_licences(run, tmp_path):
    inspect_run(run, tmp_path / "report.html")
    text = self_contained(tmp_path / "report.html")
    for words in (
        "Where the lines stand",
        "Kept beside dropped",
        "blurred",
        "CC0-1.0 &lt;b&gt;",
        "The resolved recipe",
    ):
        assert words in text, words
    assert "Which faces" not in text  # nobody knows the faces of real pictures


def test_a_run_of_another_kind_is_no_filter_run(tmp_path, run):
    (tmp_path / "run").mkdir()
    for path in run.rglob("*"):
        if path.is_file():
            target = tmp_path / "run" / path.relative_to(run)
            target.parent.mkdir(exist_ok=True)
            target.write_bytes(path.read_bytes())
    (tmp_path / "run" / "recipe.yaml").write_text("kind: generate\n")
    with pytest.raises(BadInput, match="was not made by glyphmill filter"):
        explain_run(str(tmp_path / "run"), tmp_path / "x.html")


def test_rows_are_found_by_their_ids_with_their_pictures(run):
    from datagen.commit import read_rows

    every = {row["row_id"]: row for row in read_rows(run).to_pylist()}
    wanted = sorted(every)[1:3]
    assert rows_by_id(run, wanted) == {key: every[key] for key in wanted}
    assert rows_by_id(run, []) == {}


def test_boxes_are_drawn_where_the_quads_are():
    plain = np.zeros((40, 60, 3), np.uint8)
    drawn = with_boxes(plain, [{"quad_px": [10, 10, 50, 10, 50, 30, 10, 30]}, {"quad_px": None}])
    assert not plain.any()
    assert drawn[10, 30].any()
    assert drawn[20, 10, 0] > drawn[20, 10, 2]  # red where the line starts
    assert not drawn[20, 30].any()


def test_labels_come_from_json_and_csv_and_others_are_refused(tmp_path):
    rows = [{"file": "a.png", "label": "none", "degradation": None}, {"file": "b.png", "label": "dense"}]
    (tmp_path / "a.json").write_text(json.dumps(rows))
    (tmp_path / "a.csv").write_text("file,label,degradation\na.png,none,\nb.png,dense,\n")
    expected = [Label(file="a.png", label="none"), Label(file="b.png", label="dense")]
    assert read_labels(tmp_path / "a.json") == read_labels(tmp_path / "a.csv") == expected
    (tmp_path / "b.csv").write_text("name,label\na.png,none\n")
    with pytest.raises(BadInput, match="no list of objects with file and label"):
        read_labels(tmp_path / "b.csv")
    with pytest.raises(BadInput, match="cannot be read"):
        read_labels(tmp_path / "none.json")


def test_the_area_under_the_curve_counts_pairs():
    assert auc([3, 4], [1, 2]) == 1.0
    assert auc([1, 2], [3, 4]) == 0.0
    assert auc([1, 3], [2, 2]) == 0.5
    assert auc([2], [2]) == 0.5
    assert np.isnan(auc([], [1]))


def test_a_labelled_set_is_measured_and_damage_is_told(pictures):
    labels = [
        Label(file="coffee.png", label="none"),
        Label(file="page.png", label="dense"),
        Label(file="soft.png", label="none", degradation="blurred by hand"),
        Label(file="torn.png", label="none"),
    ]
    figures = score_labels(labels, pictures, labels_recipe(pictures), ["dense"], degrade=True)
    assert (figures.density_auc, figures.median_density["none"]) == (1.0, 0.0)
    assert figures.median_density["dense"] == pytest.approx(8 * 15 / 0.126, rel=0.1)
    assert figures.degradations["blurred by hand"]["sharpness"] == 0.0  # always below the undamaged
    assert figures.degradations["jpeg_q10 (made here)"]["jpeg_history"] <= 0.25  # the drawn page has few blocks
    assert figures.dropped["blurred by hand"] == {"blurred": 1.0}
    assert figures.dropped["jpeg_q30 (made here)"]["jpeg_damage"] >= 0.5
    assert figures.unreadable == ["torn.png: not_an_image"]


def test_faces_are_named_and_their_lines_counted_by_size_and_language():
    def line(face: str | None, size_px: float, lang: str = "en") -> dict:
        return {"face_id": face, "size_px": size_px, "lang": lang}

    rows = [
        {"keep": True, "lines": [line("f1", 6.0), line("f1", 6.5), line("f2", 20.0, "zh")]},
        {"keep": False, "lines": [line("f1", 6.9), line("f1", 7.0), line(None, 9.0)]},
        {"keep": False, "lines": None},
    ]
    html = _faces(rows, {"f1": "Serif Bold"})
    english, chinese = html.split("<h3>zh</h3>")
    assert re.search(r"<td>Serif Bold</td>.*67% <small>3</small>.*0% <small>1</small></td><td></td>", english)
    assert re.search(r"<td>f2</td><td></td><td></td><td></td><td></td>.*100% <small>1</small>", chinese)
    assert _faces([{"keep": True, "lines": [line(None, 9.0)]}], {}) == ""


def said(capsys: pytest.CaptureFixture[str], *words: str) -> tuple[int, str]:
    """Exit code and output of the command."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(sys, "argv", ["glyphmill", *words])
        with pytest.raises(SystemExit) as ended:
            glyphmill.main()
    printed = capsys.readouterr()
    return int(ended.value.code or 0), printed.out + printed.err


def test_the_command_takes_a_recipe_or_a_verb_behind_filter(capsys, pictures, run, tmp_path):
    code, text = said(capsys, "filter", "scores")
    assert (code, "chars_per_mp" in text, "density_class != 'sparse'" in text) == (0, True, True)
    code, text = said(capsys, "filter", "explain", str(run), "--out", str(tmp_path / "e.html"))
    assert (code, (tmp_path / "e.html").is_file()) == (0, True)
    code, text = said(capsys, "filter", "demo-filter", "keep=sharpnes > -2", "--out", str(tmp_path / "x"))
    assert code == 2
    assert "override keep" in text
    assert "no score is called 'sharpnes', did you mean 'sharpness'; there are aspect, blank_share" in text
    words = ("--licence", "CC0-1.0", "--executor", "serial", "--out", str(tmp_path / "in"))
    code, text = said(capsys, "ingest", str(pictures), *words)
    assert (code, "5 of 6 pictures kept" in text, "dropped 1: not_an_image" in text) == (0, True, True)
