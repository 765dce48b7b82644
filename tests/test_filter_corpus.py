"""Real files end up kept or rejected with the right reason, and the same run gives the same rows."""

from pathlib import Path

import cv2
import matplotlib
import numpy as np
import pytest
import skimage
from PIL import Image, ImageDraw, ImageFont

from datagen import filter as filtering
from datagen.codec import decode_png
from datagen.commit import read_rows
from datagen.criteria import FilterRecipe, score_item
from datagen.decode import ImageProblem, decode_image
from datagen.density import measure_density
from datagen.documents import count_pdf_pages, draw_pdf_page
from datagen.filter import filter_corpus
from datagen.ingest import IngestConfig, RealPlace, list_items, read_item
from datagen.ocr import open_recognizer
from fonts_manifest.errors import BadInput

DEJAVU = f"{matplotlib.get_data_path()}/fonts/ttf/DejaVuSans.ttf"
SENTENCE = "A page of print that nobody drew by hand, repeated until the whole of it is black with letters. "
ENCRYPTED = b"""%%PDF-1.4
1 0 obj <</Type/Catalog/Pages 2 0 R>> endobj
2 0 obj <</Type/Pages/Kids[3 0 R]/Count 1>> endobj
3 0 obj <</Type/Page/Parent 2 0 R/MediaBox[0 0 100 100]>> endobj
4 0 obj <</Filter/Standard/V 1/R 2/O<%s>/U<%s>/P -4>> endobj
trailer <</Root 1 0 R/Size 5/Encrypt 4 0 R/ID[<00><00>]>>
%%%%EOF
""" % (b"11" * 32, b"22" * 32)


def text_page(width: int = 420, height: int = 300) -> Image.Image:
    page = Image.new("RGB", (width, height), "white")
    pen, font = ImageDraw.Draw(page), ImageFont.truetype(DEJAVU, 13)
    for number in range(height // 24 - 1):
        pen.text((12, 10 + 24 * number), (SENTENCE * 2)[number * 7 :][:50], "black", font=font)
    return page


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> Path:
    root = tmp_path_factory.mktemp("real")
    photo = Image.fromarray(decode_image(f"{skimage.__path__[0]}/data/chelsea.png"))
    (root / "deep").mkdir()
    photo.save(root / "deep" / "cat.png")
    photo.save(root / "deep" / "cat_again.png")
    photo.save(root / "ugly.jpg", quality=10)
    Image.fromarray(cv2.GaussianBlur(np.array(photo), (0, 0), 3)).save(root / "soft.png")
    photo.resize((100, 80)).save(root / "thumb.png")
    photo.crop((0, 0, 451, 60)).resize((1804, 260)).save(root / "strip.png")
    Image.new("RGB", (300, 300), "white").save(root / "white.png")
    (root / "broken.png").write_bytes((root / "deep" / "cat.png").read_bytes()[:9000])
    (root / "empty.jpg").touch()
    (root / "readme.txt").write_text("not looked at")
    text_page().save(root / "two_pages.pdf", save_all=True, append_images=[text_page(300, 420)], resolution=72)
    (root / "secret.pdf").write_bytes(ENCRYPTED)
    (root / "torn.pdf").write_bytes(b"%PDF-1.4\nnothing of use")
    return root


def config_for(folder: Path, **settings: object) -> FilterRecipe:
    source = IngestConfig(places=(RealPlace(place=str(folder), licence="CC0-1.0"),), pdf_dpi=72)
    rules = {"too_narrow": "aspect <= 4", "repeated_text": ""} | settings.pop("rules", {})
    return FilterRecipe(input=source, rules=rules, rows_per_shard=5, **settings)


@pytest.fixture(scope="module")
def run(folder: Path, tmp_path_factory) -> tuple[Path, filtering.FilterReport]:
    out = tmp_path_factory.mktemp("out") / "run"
    return out, filter_corpus(config_for(folder), "0123456789abcdef", str(out), executor="serial")


def test_every_file_is_kept_or_has_its_reason(folder, run):
    out, report = run
    rows = {row["origin"].removeprefix(f"{folder}/"): row for row in read_rows(out).to_pylist()}
    assert {name: row["reason"] for name, row in rows.items()} == {
        "broken.png": "damaged",
        "deep/cat.png": "",
        "deep/cat_again.png": "duplicate",
        "empty.jpg": "empty_file",
        "secret.pdf": "encrypted",
        "soft.png": "blurred",
        "strip.png": "too_narrow",
        "thumb.png": "too_small",
        "torn.pdf": "damaged",
        "two_pages.pdf#page=1": "",
        "two_pages.pdf#page=2": "",
        "ugly.jpg": "jpeg_damage",
        "white.png": "blank",
    }
    assert (report.seen, report.kept) == (13, 3)
    assert report.reasons["damaged"] == 2
    assert sum(report.reasons.values()) == 10
    assert all(row["keep"] == (row["reason"] == "") for row in rows.values())


def test_kept_rows_tell_text_from_general_pictures(folder, run):
    rows = {row["origin"].removeprefix(f"{folder}/"): row for row in read_rows(run[0], keep=True).to_pylist()}
    cat, page = rows["deep/cat.png"], rows["two_pages.pdf#page=1"]
    assert (cat["density_class"], cat["characters"], cat["lang"], cat["lines"]) == ("none", 0, None, [])
    assert (page["density_class"], page["lang"]) == ("dense", "en")
    drawn = sum(len((SENTENCE * 2)[number * 7 :][:50].replace(" ", "")) for number in range(11))
    assert page["characters"] == pytest.approx(drawn, rel=0.05)
    assert page["characters_per_mp"] == pytest.approx(page["characters"] / 0.126)
    assert page["text"].startswith("A page of print that nobody drew")
    assert all(line["size_px"] is None and line["quad_px"] is not None for line in page["lines"])
    assert {row["judged_by"] for row in rows.values()} == {"ocr"}


def test_pictures_are_stored_without_loss_and_with_their_licence(folder, run):
    row = next(r for r in read_rows(run[0], keep=True).to_pylist() if r["origin"].endswith("cat.png"))
    np.testing.assert_array_equal(decode_png(row["image"]["bytes"]), decode_image(folder / "deep" / "cat.png"))
    assert (row["width"], row["height"], row["source"], row["licence"]) == (451, 300, "real", "CC0-1.0")


def test_a_second_run_is_equal_to_the_byte_and_a_finished_one_is_not_repeated(folder, run, tmp_path, monkeypatch):
    files = {path.name: path.read_bytes() for path in run[0].rglob("*.parquet")}
    filter_corpus(config_for(folder), "0123456789abcdef", str(tmp_path / "b"), executor="serial")
    assert {path.name: path.read_bytes() for path in (tmp_path / "b").rglob("*.parquet")} == files
    monkeypatch.setattr(filtering, "score_item", None)
    again = filter_corpus(config_for(folder), "0123456789abcdef", str(tmp_path / "b"), executor="serial")
    assert (again.shards_before, again.kept, again.reasons) == (3, 3, run[1].reasons)


def test_a_run_that_was_cut_off_goes_on_where_it_was(folder, run, tmp_path, monkeypatch):
    class Stop(Exception):
        pass

    def stop(stage, done, total, reasons):
        if stage == "write" and done >= 5:
            raise Stop

    with pytest.raises(Stop):
        filter_corpus(config_for(folder), "0123456789abcdef", str(tmp_path), executor="serial", progress=stop)
    report = filter_corpus(config_for(folder), "0123456789abcdef", str(tmp_path), executor="serial")
    assert (report.shards_before, report.shards, report.kept) == (1, 3, 3)
    for path in run[0].rglob("*.parquet"):
        assert (tmp_path / path.relative_to(run[0])).read_bytes() == path.read_bytes()


def test_a_changed_folder_cannot_continue_a_run(folder, tmp_path):
    source = tmp_path / "in"
    source.mkdir()
    Image.new("RGB", (20, 20)).save(source / "a.png")
    filter_corpus(config_for(source), "0123456789abcdef", str(tmp_path / "out"), executor="serial")
    Image.new("RGB", (20, 20), "red").save(source / "a.png")
    with pytest.raises(BadInput, match="digest of files was"):
        filter_corpus(config_for(source), "0123456789abcdef", str(tmp_path / "out"), executor="serial")


def test_only_the_classes_asked_for_are_kept(folder):
    config = config_for(folder, keep="density_class == 'dense'")
    cat, page = (
        next(item for item in list_items(config.input) if item.origin.endswith(end)) for end in ("cat.png", "page=1")
    )
    row = score_item(config, cat)
    assert (row["reason"], row["judged_by"]) == ("density_class == 'dense'", "ocr")
    assert score_item(config, page)["keep"]
    general = config_for(folder, keep="density_class in ('none', 'sparse')")
    assert score_item(general, page)["reason"] == "density_class in ('none', 'sparse')"


def test_text_of_a_picture_is_counted_located_and_told_by_script():
    density = measure_density(open_recognizer(), np.array(text_page(420, 80)))
    assert [line.text for line in density.lines][:1] == ["A page of print that nobody drew by hand, repeated"]
    assert density.characters == sum(len(line.text.replace(" ", "")) for line in density.lines)
    assert 0.1 < density.text_area < 0.9
    assert 9 < density.median_glyph_height_px < 26
    assert density.han_share == 0.0


def test_pdf_pages_are_drawn_at_the_resolution_asked_for(folder):
    data = (folder / "two_pages.pdf").read_bytes()
    assert count_pdf_pages(data) == 2
    assert draw_pdf_page(data, 0, 72, 1_000_000).shape == (300, 420, 3)
    assert draw_pdf_page(data, 1, 144, 1_000_000).shape == (840, 600, 3)
    with pytest.raises(ImageProblem, match="too_many_pixels"):
        draw_pdf_page(data, 0, 600, 1_000_000)


def test_only_the_first_pages_of_a_long_document_are_listed(folder):
    source = IngestConfig(places=(RealPlace(place=str(folder / "two_pages.pdf"), licence="x"),), max_pdf_pages=1)
    (item,) = list_items(source)
    assert item.origin == f"{folder}/two_pages.pdf#page=1"


def test_large_files_are_not_even_read(folder, monkeypatch):
    place = RealPlace(place=str(folder / "deep" / "cat.png"), licence="x")
    (item,) = list_items(IngestConfig(places=(place,), max_file_megabytes=0.1))
    assert (item.problem, item.sha256) == ("file_too_large", "")


def test_a_file_that_changes_during_a_run_ends_it(tmp_path):
    path = tmp_path / "a.png"
    Image.new("RGB", (20, 20)).save(path)
    source = IngestConfig(places=(RealPlace(place=str(path), licence="x"),))
    (item,) = list_items(source)
    Image.new("RGB", (20, 20), "red").save(path)
    with pytest.raises(BadInput, match="has changed since this run listed it"):
        read_item(item, source)


def test_a_place_without_pictures_is_bad_input(tmp_path):
    (tmp_path / "notes.txt").touch()
    with pytest.raises(BadInput, match="no picture, PDF, tar, Parquet or Arrow file found"):
        list_items(IngestConfig(places=(RealPlace(place=str(tmp_path), licence="x"),)))
