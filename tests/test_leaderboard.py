"""The leaderboard: originals cut, codecs reconstructed once, scored as `glyphmill eval` does, failures told apart."""

import csv
import json
import shutil
import sys
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest
import skimage.data
from PIL import Image
from pyarrow import parquet as pq

from datagen.decode import decode_image
from fonts_manifest.errors import BadInput
from vae.leaderboard import LeaderboardRecipe, SetConfig, run_leaderboard, write_set
from vae.leaderboard_page import differences, write_leaderboard_page
from vae.leaderboard_tables import Entry, interval_table, paired_table
from vae.pairs import Folders
from vae.scorecard import PairScore, Report

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser")


@pytest.fixture(scope="module")
def photographs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("photographs")
    for name, image_HW3 in (("ästronaut", skimage.data.astronaut()), ("coffee", skimage.data.coffee())):
        Image.fromarray(image_HW3[:300, 100:350]).save(folder / f"{name}.png")
    (folder / "broken.png").write_bytes(b"no picture")
    return folder


def make_recipe(photographs: Path, **changes) -> LeaderboardRecipe:
    settings = {
        "kind": "leaderboard",
        "sets": [{"name": "small", "place": str(photographs), "size_px": 96, "text": False}],
        "codecs": [
            {"kind": "jpeg", "name": "JPEG", "bits_per_pixel": 1.0},
            {"kind": "linear", "name": "DCT", "factor": 16, "channels": 64},
            {"kind": "diffusers", "name": "FLUX", "class_name": "AutoencoderKL", "path": str(photographs)},
        ],
        "second_reader": "none",
        "workers": 1,
    }
    return LeaderboardRecipe.model_validate(settings | changes)


def test_sets_are_scaled_to_the_shorter_side_and_cut_in_the_middle(photographs: Path, tmp_path: Path) -> None:
    write_set(SetConfig(name="s", place=str(photographs), size_px=125), tmp_path / "s")
    cut_HW3 = decode_image(tmp_path / "s" / "coffee.png")
    whole = Image.open(photographs / "coffee.png").resize((125, 150), Image.Resampling.BICUBIC)
    np.testing.assert_array_equal(cut_HW3, np.asarray(whole)[12:137])
    assert {path.name for path in (tmp_path / "s").iterdir()} == {"coffee.png", "ästronaut.png"}


def test_sets_come_from_parquet_as_datasets_writes_it(photographs: Path, tmp_path: Path) -> None:
    images = [{"bytes": path.read_bytes(), "path": None} for path in sorted(photographs.iterdir())]
    pq.write_table(pa.table({"image": images}), tmp_path / "part.parquet")
    write_set(SetConfig(name="s", place=str(tmp_path), size_px=64, limit=1), tmp_path / "s")
    assert [path.name for path in (tmp_path / "s").iterdir()] == ["000001.png"], "the first, broken, is passed over"


def test_pictures_of_different_sizes_are_no_set(photographs: Path, tmp_path: Path) -> None:
    for side in (64, 128):
        Image.new("RGB", (side, 64)).save(tmp_path / f"{side}.png")
    with pytest.raises(BadInput, match=r"these differ: 128x64 .*64x64 .*give size_px"):
        write_set(SetConfig(name="s", place=str(tmp_path)), tmp_path / "out")
    Image.new("RGB", (64, 64)).save(tmp_path / "128.webp")
    with pytest.raises(BadInput, match=r"two pictures of the set would be called 128\.png"):
        write_set(SetConfig(name="s", place=str(tmp_path), size_px=64), tmp_path / "out")
    with pytest.raises(BadInput, match="no picture that can be used"):
        write_set(SetConfig(name="s", place=str(photographs / "broken.png"), size_px=64), tmp_path / "out")


def test_codecs_are_scored_and_a_missing_one_has_its_reason(photographs: Path, tmp_path: Path) -> None:
    recipe = make_recipe(photographs)
    lines, stages = [], set()

    def progress(stage: str, done: int, total: int, counts: object) -> None:
        stages.add(stage)
        if stage == "codecs" and done:
            lines.append((tmp_path / "leaderboard.csv").read_text(encoding="utf-8").count("\n"))

    entries = run_leaderboard(recipe, tmp_path, progress)
    assert lines == [2, 3, 4], "the header and what is known so far"
    assert "DCT, small: pixels" in stages
    assert [entry.codec for entry in entries] == ["JPEG", "DCT", "FLUX"]
    assert "FLUX" in entries[2].problem
    assert "config.json" in entries[2].problem
    for entry in entries[:2]:
        squares = []
        for path in sorted((tmp_path / "sets" / "small").glob("*.png")):
            output_HW3 = decode_image(tmp_path / "reconstructed" / entry.codec / "small" / path.name)
            squares.append(np.square(output_HW3.astype(float) - decode_image(path)).mean() / 255**2)
        assert entry.report.results["PSNR"] == pytest.approx(np.mean(-10 * np.log10(squares)), abs=1e-3)
        assert entry.images_per_s > 0
    assert entries[0].facts.bits_per_pixel <= 1
    assert (entries[1].facts.compression, entries[1].facts.channels) == (16, 64)
    rows = list(csv.DictReader((tmp_path / "leaderboard.csv").read_text(encoding="utf-8").splitlines()))
    assert [row["Codec"] for row in rows] == ["JPEG", "DCT", "FLUX"]
    assert float(rows[1]["PSNR"]) == pytest.approx(entries[1].report.results["PSNR"], abs=0.006)
    assert rows[2]["PSNR"] == ""
    markdown = (tmp_path / "leaderboard.md").read_text(encoding="utf-8")
    assert markdown.count("LPIPS is null") == 1
    assert "\n- 1 pictures of the set cannot be opened and are left out: broken (not_an_image)\n" in markdown
    figure = entries[1].report.figures["psnr_db"]
    interval = f"{figure.mean:.2f} ({figure.low:.2f} to {figure.high:.2f})"
    assert interval_table(entries)[1][1][:3] == ["DCT", "small", interval]
    assert f"| DCT | small | {interval} |" in markdown
    jpeg, dct = ([pair.psnr_db for pair in entry.report.pairs] for entry in entries[:2])
    assert f"| DCT | JPEG | small | {np.mean(dct) - np.mean(jpeg):+.2f} (" in markdown
    assert [row["Left out"][:1] for row in rows] == ["1", "1", entries[2].problem[:1]]
    page = write_leaderboard_page(entries, recipe, tmp_path).read_text(encoding="utf-8")
    assert page.count("<figure>") == 2 * 3, "two originals, each beside two reconstructions"
    assert "FLUX on small: FLUX" in page
    assert page.index("<th>PSNR") < page.index("<th>Images/s") < page.index("<th>Encoder M")
    assert "<th>Set" not in page


def made_up(codec: str, **metrics: list[float | None]) -> Entry:
    """A codec with these values picture by picture."""
    count = len(next(iter(metrics.values())))
    pairs = [
        PairScore(name=f"{n}.png", groups={}, **{name: values[n] for name, values in metrics.items()})
        for n in range(count)
    ]
    folders = Folders(pairs=(), missing=(), extra=(), ignored=(), not_entered=())
    report = Report(
        results={}, figures={}, groups={}, pairs=pairs, folders=folders, readers={}, notes=[], ned_details=None
    )
    return Entry(codec=codec, set_name="s", report=report)


def test_codecs_are_compared_picture_by_picture_with_the_first() -> None:
    first = made_up("first", ned=[0.1, 0.5, 0.9, None], lpips=[0.4, 0.2, 0.3, 0.1])
    second = made_up("second", ned=[0.2, 0.6, 1.0, 1.0], lpips=[0.3, 0.1, 0.4, 0.1])
    header, rows = paired_table([Entry(codec="failed", set_name="s", problem="p"), first, second])
    assert header == ["Codec", "above", "Set", "NED", "better, worse", "LPIPS", "better, worse"]
    ((codec, above, _, ned, ned_counts, _, lpips_counts),) = rows
    assert (codec, above) == ("second", "first")
    assert (ned, ned_counts) == ("+0.100 (+0.100 to +0.100)", "3, 0"), "equal gains on unequal pictures: no doubt"
    assert lpips_counts == "2, 1", "less LPIPS is better"
    assert paired_table([first])[1] == []


@pytest.mark.skipif(CHROMIUM is None, reason="needs Chromium")
@pytest.mark.filterwarnings("ignore::ResourceWarning")  # playwright's own transport
def test_arrow_keys_change_pictures_in_one_place(photographs: Path, tmp_path: Path) -> None:
    sync_api = pytest.importorskip("playwright.sync_api")
    recipe = make_recipe(photographs)
    page_file = write_leaderboard_page(run_leaderboard(recipe, tmp_path), recipe, tmp_path)
    with sync_api.sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"])
        page = browser.new_page()
        page.goto(page_file.resolve().as_uri())
        small = [picture.get_attribute("src") for picture in page.locator("figure img").all()]
        page.locator("figure img").nth(1).click()
        seen = []
        for key in ("ArrowRight", "ArrowRight", "ArrowRight", "ArrowLeft"):
            seen.append((page.locator("dialog img").get_attribute("src"), page.locator("dialog p").inner_text()))
            page.keyboard.press(key)
        assert [small.index(source) for source, _ in seen] == [1, 2, 0, 1], "round and round the row of one original"
        assert "JPEG" in seen[0][1]
        assert "DCT" in seen[1][1]
        page.keyboard.press("Escape")
        assert not page.locator("dialog").is_visible()
        browser.close()


def test_a_second_run_makes_only_what_has_changed(photographs: Path, tmp_path: Path) -> None:
    run_leaderboard(make_recipe(photographs), tmp_path)
    made = {path: path.stat().st_mtime_ns for path in (tmp_path / "reconstructed").rglob("*.png")}
    changed = make_recipe(photographs)
    jpeg = changed.codecs[0].model_copy(update={"bits_per_pixel": 2.0})
    run_leaderboard(changed.model_copy(update={"codecs": (jpeg, *changed.codecs[1:])}), tmp_path)
    again = {path for path in made if path.stat().st_mtime_ns != made[path]}
    assert {path.parts[-3] for path in again} == {"JPEG"}
    assert len(again) == 2


def test_pictures_made_elsewhere_are_scored_where_they_lie(photographs: Path, tmp_path: Path) -> None:
    recipe = make_recipe(photographs)
    run_leaderboard(recipe, tmp_path / "first")
    folder = {"kind": "folder", "name": "elsewhere", "path": str(tmp_path / "first" / "reconstructed" / "DCT")}
    (entry,) = run_leaderboard(make_recipe(photographs, codecs=[folder]), tmp_path / "second")
    first = json.loads((tmp_path / "first/scores/DCT/small/results.json").read_text())
    assert entry.report.results["PSNR"] == first["PSNR"]
    assert entry.images_per_s is None


INVERT = """
import sys
from pathlib import Path
from PIL import Image, ImageOps
for path in Path(sys.argv[1]).glob("*.png"):
    if "astronaut" not in path.name.replace("\u00e4", "a") or sys.argv[3] == "all":
        ImageOps.invert(Image.open(path).convert("RGB")).save(Path(sys.argv[2]) / path.name)
"""


def test_a_program_of_one_s_own_is_a_codec(photographs: Path, tmp_path: Path) -> None:
    (tmp_path / "invert.py").write_text(INVERT)

    def program(*words: str) -> dict[str, object]:
        command = [sys.executable, *words]
        return {"kind": "program", "name": "mine", "command": command, "compression": 8, "channels": 4}

    whole = program(str(tmp_path / "invert.py"), "{originals}", "{outputs}", "all")
    (entry,) = run_leaderboard(make_recipe(photographs, codecs=[whole]), tmp_path / "out")
    original = decode_image(tmp_path / "out/sets/small/coffee.png")
    np.testing.assert_array_equal(decode_image(tmp_path / "out/reconstructed/mine/small/coffee.png"), 255 - original)
    assert (entry.facts.compression, entry.facts.channels, entry.images_per_s) == (8, 4, None)
    assert entry.report.results["num_samples"] == 2
    for words, sentence in (
        ((str(tmp_path / "invert.py"), "{originals}", "{outputs}", "some"), "1 pictures were not made"),
        (("-c", "raise SystemExit('no weights')"), "failed (no weights)"),
    ):
        (entry,) = run_leaderboard(make_recipe(photographs, codecs=[program(*words)]), tmp_path / "out")
        assert sentence in entry.problem
    absent = program() | {"command": [str(tmp_path / "absent")]}
    (entry,) = run_leaderboard(make_recipe(photographs, codecs=[absent]), tmp_path / "out")
    assert "cannot be started" in entry.problem


def test_figures_come_by_group_for_sets_of_any_name(photographs: Path, tmp_path: Path) -> None:
    places = {name: tmp_path / name for name in ("v1.0", "v1.1")}
    for number, place in enumerate(places.values()):
        place.mkdir()
        for lang in ("en", "zh"):
            Image.open(photographs / "coffee.png").rotate(90 * number).save(place / f"{lang}_0.png")
    records = [{"file": "en_0.png", "category": "letter"}, {"file": "zh_0.png", "category": "book"}]
    (tmp_path / "v1.1.json").write_text(json.dumps(records))
    sets = [{"name": name, "place": str(place), "size_px": 96, "text": False} for name, place in places.items()]
    linear = {"kind": "linear", "name": "DCT", "factor": 16, "channels": 64}
    first, second = run_leaderboard(make_recipe(photographs, sets=sets, codecs=[linear]), tmp_path / "out")
    assert [pair.groups for pair in first.report.pairs] == [{"prefix": "en"}, {"prefix": "zh"}]
    assert [pair.groups for pair in second.report.pairs] == [{"category": "letter"}, {"category": "book"}]
    assert first.report.results["PSNR"] != second.report.results["PSNR"]


def test_differences_strike_out_what_was_lost_and_underline_what_is_new() -> None:
    assert differences("cat & dog", "cut & dogs") == "c<del>a</del><ins>u</ins>t &amp; dog<ins>s</ins>"
