"""The benchmark made from pages: every candidate has its reason, and a run goes on where it was."""

import json
from pathlib import Path

import numpy as np
import pytest
from benchmark_pages import (
    LONG,
    RECIPE,
    Scribe,
    block,
    decide,
    draw_lines,
    embedded,
    entry,
    one_of_each,
    prose,
    textured,
    wrapped,
    write_annotations,
)
from PIL import Image
from test_house import glyphmill_fails, glyphmill_says

from datagen.ngrams import ngrams, shared_share
from fonts_manifest.errors import BadInput
from vae import textcrops
from vae.candidates import TokenBenchRecipe
from vae.textcrops import cut
from vae.tokenbench import build, read_candidates


def test_every_candidate_has_its_reason(built: tuple[Path, Scribe, Path]) -> None:
    out, scribe, _ = built
    found = {(c.page, c.block_category, c.reason) for c in read_candidates(out)}
    assert found == {
        ("kept.png", "text_block", ""),
        ("few.png", "text_block", "too_few_characters"),
        ("many.png", "text_block", "too_many_characters"),
        ("again.png", "text_block", "same_category_duplicate"),
        ("blank.png", "text_block", "blank"),
        ("soft.png", "text_block", "blurred"),
        ("others.png", "table", "other_category"),
        ("others.png", "text_block", "ignored"),
        ("others.png", "text_block", "turned"),
        ("others.png", "text_block", "unknown_size"),
        ("others.png", "text_block", "other_language"),
        ("others.png", "text_block", "enlarged"),
        ("others.png", "text_block", "beyond_page"),
        ("small.png", "text_block", "expected_too_few"),
    }
    summary = json.loads((out / "candidates.json").read_text())["summary"]
    assert summary["kept"] == 1
    assert summary["page_problems"].keys() == {"missing.png", "broken.png"}
    assert scribe.reads == 4  # nothing is read that a cheaper rule drops


def test_the_kept_crop_is_the_top_left_of_its_block(built: tuple[Path, Scribe, Path], pages: Path) -> None:
    out, _, _ = built
    (record,) = json.loads((out / "benchmark.json").read_text())
    assert record["cell_px"] == pytest.approx(700 / 49, abs=1e-3)
    assert record["scale"] == pytest.approx(10 * 49 / 700, abs=1e-4)
    side = 256 * 700 / 490
    assert record["crop_box_px"] == pytest.approx([0, 0, side, side], abs=0.01)
    assert (record["text"], record["characters"]) == (LONG, len("".join(LONG.split())))
    stored = np.asarray(Image.open(out / "images" / record["file"]))
    assert stored.shape == (256, 256, 3)
    page_HW3 = np.asarray(Image.open(pages / "kept.png"))
    assert (stored == cut(page_HW3, tuple(record["crop_box_px"]), 256)).all()
    assert np.asarray(Image.open(out / "images_512" / record["file"])).shape == (512, 512, 3)
    assert [path.name for path in (out / "images").iterdir()] == [record["file"]]


def test_two_processes_write_what_one_writes(ray_session: None, pages: Path, tmp_path: Path) -> None:
    entries, _ = one_of_each(pages)
    # Pages whose blocks are all dropped unread: workers have a reader of their own.
    cheap = [page for page in entries if page["page_info"]["image_path"] in ("blank.png", "soft.png", "others.png")]
    annotations = write_annotations(tmp_path / "annotations.json", [*cheap, entries[-1]])
    build(RECIPE, pages, annotations, tmp_path / "one")
    build(RECIPE, pages, annotations, tmp_path / "two", executor="ray", workers=2)
    written = [path.relative_to(tmp_path / "one") for path in (tmp_path / "one").rglob("*") if path.is_file()]
    assert len(written) >= 10
    for name in written:
        assert (tmp_path / "two" / name).read_bytes() == (tmp_path / "one" / name).read_bytes(), name


def test_annotations_at_another_resolution_are_scaled(
    built: tuple[Path, Scribe, Path], pages: Path, tmp_path: Path
) -> None:
    out, _, annotations = built
    halved = []
    for page in json.loads(annotations.read_text()):
        page["page_info"] |= {"width": 400, "height": 400}
        for detection in page["layout_dets"]:
            detection["poly"] = [v / 2 for v in detection["poly"]]
        halved.append(page)
    build(RECIPE, pages, write_annotations(tmp_path / "half.json", halved), tmp_path / "half")
    assert (tmp_path / "half/benchmark.json").read_bytes() == (out / "benchmark.json").read_bytes()


def test_a_run_again_reads_nothing_and_changes_no_byte(built: tuple[Path, Scribe, Path], pages: Path) -> None:
    out, scribe, annotations = built
    before = {path: path.read_bytes() for path in out.rglob("*") if path.is_file()}
    reads = scribe.reads
    build(RECIPE, pages, annotations, out)
    assert scribe.reads == reads
    assert {path: path.read_bytes() for path in out.rglob("*") if path.is_file()} == before


def test_a_run_cut_off_goes_on_to_the_same_end(built: tuple[Path, Scribe, Path], pages: Path, tmp_path: Path) -> None:
    out, scribe, annotations = built
    before = (out / "candidates.json").read_bytes()
    (out / "readings/kept.json").unlink()
    (out / "readings/few.json").write_bytes(b'{"key": ')
    (out / "candidates.json").unlink()
    reads = scribe.reads
    build(RECIPE, pages, annotations, out)
    assert scribe.reads == reads + 2
    assert (out / "candidates.json").read_bytes() == before


def test_a_page_that_changed_is_read_again(built: tuple[Path, Scribe, Path], pages: Path) -> None:
    out, _, annotations = built
    textured(20).save(pages / "kept.png")
    report = build(RECIPE, pages, annotations, out)
    # "again" had been dropped for it.
    assert [c.page for c in read_candidates(out) if not c.reason] == ["again.png"]
    assert report.reasons["too_few_characters"] == 2
    assert len(list((out / "images").iterdir())) == 1


def test_another_recipe_wants_another_folder(built: tuple[Path, Scribe, Path], pages: Path) -> None:
    out, _, annotations = built
    with pytest.raises(BadInput, match="made otherwise"):
        build(RECIPE.model_copy(update={"min_lines": 5}), pages, annotations, out)


@pytest.mark.parametrize("name", ["../secret.png", "/etc/hostname"])
def test_annotations_cannot_point_outside_the_pages(pages: Path, tmp_path: Path, name: str) -> None:
    annotations = write_annotations(tmp_path / "a.json", [entry(name, [])])
    with pytest.raises(BadInput, match="lies outside"):
        build(RECIPE, pages, annotations, tmp_path / "out")


def test_names_that_no_file_system_likes_stay_apart(
    pages: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(textcrops, "open_recognizer", lambda name: Scribe({10: LONG}))
    text, box = "x" * 49 * 49, (0.0, 0.0, 700.0, 700.0)
    names = ["第 一页?.png", "第 一页!.png", "sub/第 一页.png"]
    for name in names:
        (pages / name).parent.mkdir(exist_ok=True)
        textured(10).save(pages / name)
    entries = [entry(name, [block(box, text)], data_source=f"kind {n}") for n, name in enumerate(names)]
    build(RECIPE, pages, write_annotations(tmp_path / "a.json", entries), tmp_path / "out")
    files = [c.file for c in read_candidates(tmp_path / "out")]
    assert files == ["en_第_一页_000.png", "en_第_一页~2_000.png", "en_sub_第_一页_000.png"]
    assert {path.name for path in (tmp_path / "out/images").iterdir()} == set(files)


def test_a_drawn_page_becomes_a_benchmark_at_the_command_line(
    capsys: pytest.CaptureFixture[str], pages: Path, tmp_path: Path
) -> None:
    image = Image.new("RGB", (640, 620), (255, 255, 255))
    lines = wrapped(prose(np.random.default_rng(0), 200), 52)[:22]
    draw_lines(image, lines, 40, 40, 17, 25)
    image.save(pages / "page.png")
    words = ("tokenbench", "build", "--pages", str(pages), "--out", str(tmp_path / "out"), "--executor", "serial")
    assert "1 of 1 text blocks kept" in glyphmill_says(capsys, *words)
    (record,) = json.loads((tmp_path / "out/benchmark.json").read_text())
    assert record["lang"] == "en"
    assert 300 <= record["characters"] <= 600
    # The crop holds the beginning of each line, and it was read well.
    assert shared_share(ngrams(record["text"], 5), ngrams(" ".join(lines), 5)) > 0.8
    data = embedded(tmp_path / "out/review.html")
    path = decide(tmp_path / "d.json", data, {record["file"]: {"decision": "drop"}})
    said = glyphmill_says(capsys, "tokenbench", "apply-review", str(tmp_path / "out"), "--review", str(path))
    assert "0 of 1 text blocks kept" in said


def test_bad_folders_are_one_sentence(capsys: pytest.CaptureFixture[str], pages: Path, tmp_path: Path) -> None:
    out = ("--out", str(tmp_path / "out"), "--executor", "serial")
    assert "holds no picture" in glyphmill_fails(capsys, "tokenbench", "build", "--pages", str(pages), *out)
    assert "no folder" in glyphmill_fails(capsys, "tokenbench", "build", "--pages", str(tmp_path / "x"), *out)
    annotations = write_annotations(tmp_path / "a.json", [entry("gone.png", [])])
    words = ("tokenbench", "build", "--pages", str(pages), "--annotations", str(annotations), *out)
    assert "none of its 1 pages lies in" in glyphmill_fails(capsys, *words)
    review = str(tmp_path / "none.json")
    assert "no such file" in glyphmill_fails(capsys, "tokenbench", "apply-review", str(tmp_path), "--review", review)


def test_the_score_rule_and_the_range_are_checked(
    built: tuple[Path, Scribe, Path], pages: Path, tmp_path: Path
) -> None:
    _, scribe, annotations = built
    scribe.score = 0.5
    report = build(RECIPE, pages, annotations, tmp_path / "unsure")
    assert report.reasons["unsure_reading"] == 2
    with pytest.raises(ValueError, match="fewest, most"):
        TokenBenchRecipe(kind="tokenbench", en={"cell_px": 10, "characters": (600, 300), "ngram": 5})  # type: ignore[arg-type]
