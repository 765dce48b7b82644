"""datagen.generate and what stands on it: the same bytes however they are made, nothing lost, every row drawn again."""

import multiprocessing
import os
import signal
import subprocess
import sys
import time
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import pytest
import xxhash
from engine_runs import TEXT, DropSome, data_bytes, make_inputs, make_recipe, run
from PIL import Image
from pyarrow import parquet as pq

from datagen import commit
from datagen.codec import decode_png
from datagen.generate import generate, generate_shard
from datagen.plan import Address, Judgement, KeepAll, make_plan
from datagen.preview import contact_sheet, preview, write_preview
from datagen.recipes import recipe_hash, recipe_to_yaml
from datagen.redraw import redraw
from datagen.rows import sample_rows, text_area
from datagen.storage import Folder
from datagen.verdict import Verdict
from datagen.verify import verify_run
from fonts_manifest.errors import BadInput
from render_engine.distribution import PageDistribution
from render_engine.render import Assets
from render_engine.spec import PageSpec, RenderedLine, RenderedPage


@dataclass(frozen=True)
class DropAll:
    """Rejects everything."""

    def __call__(self, page: RenderedPage, spec: PageSpec, assets: Assets, address: Address) -> Judgement:
        return Judgement(verdict=Verdict(keep=False, reason="illegible"), judged_by="none")


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_inputs(tmp_path_factory.mktemp("inputs"))


@pytest.fixture(scope="module")
def finished(folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("finished")
    report = run(folder, out)
    assert (report.kept, report.shards, report.shards_before) == (30, 5, 0)
    assert report.reasons["tired"] == 10  # rows 1 and 5 of six, in five shards
    return out


def test_two_ray_workers_write_the_same_bytes_as_one_process(
    ray_session: None, folder: Path, finished: Path, tmp_path: Path
) -> None:
    run(folder, tmp_path, executor="ray", workers=2)
    assert data_bytes(tmp_path) == data_bytes(finished)


def test_shards_in_any_order_and_twice_are_the_same_bytes(folder: Path, finished: Path, tmp_path: Path) -> None:
    recipe = make_recipe(folder)
    plan = make_plan(recipe, recipe_hash(recipe), recipe_to_yaml(recipe), str(tmp_path))
    plan = replace(plan, judge=DropSome())
    for shard in (3, 0, 4, 1, 3, 2):
        generate_shard(plan, shard)
    for path, sha256 in data_bytes(tmp_path).items():
        assert sha256 == data_bytes(finished)[path]
    assert commit.committed_shards(Folder(str(tmp_path))) == {0, 1, 2, 3, 4}


def test_a_worker_loads_no_pandas_until_someone_asks_for_it(folder: Path, tmp_path: Path) -> None:
    pytest.importorskip("pandas")
    recipe = make_recipe(folder)
    plan = make_plan(recipe, recipe_hash(recipe), recipe_to_yaml(recipe), str(tmp_path))
    with ProcessPoolExecutor(1, multiprocessing.get_context("spawn")) as worker:
        assert worker.submit(generate_shard, plan, 0).result().files
        assert not worker.submit(eval, "'pandas' in __import__('sys').modules").result()
        frame = worker.submit(eval, "__import__('pyarrow').table({'a': [1, 2]}).to_pandas()").result()
    assert frame["a"].tolist() == [1, 2]


@pytest.mark.parametrize("executor", ["serial", pytest.param("ray", marks=pytest.mark.slow)])
def test_a_driver_killed_in_the_middle_loses_nothing(
    folder: Path, finished: Path, tmp_path: Path, executor: str
) -> None:
    script = (
        "import sys; from pathlib import Path; from engine_runs import DropSome, run\n"
        f"run(Path({str(folder)!r}), Path({str(tmp_path)!r}), executor={executor!r}, judge=DropSome(seconds=0.05))\n"
    )
    environment = os.environ | {"PYTHONPATH": str(Path(__file__).parent)}
    driver = subprocess.Popen([sys.executable, "-c", script], env=environment)
    deadline = time.monotonic() + 120
    commits = tmp_path / "_commits"
    while not (commits.is_dir() and any(path.suffix == ".json" for path in commits.iterdir())):
        assert driver.poll() is None, "the run ended before it was killed"
        assert time.monotonic() < deadline
        time.sleep(0.01)
    driver.send_signal(signal.SIGKILL)
    driver.wait()
    before = commit.committed_shards(Folder(str(tmp_path)))
    assert 1 <= len(before) < 5
    with pytest.raises(BadInput, match="no finished run"):
        commit.read_manifest(tmp_path)
    # What is visible is complete: every Parquet file opens, and is the file of the uninterrupted run.
    for path in (*(tmp_path / "data").glob("*.parquet"), *(tmp_path / "rejected").glob("*.parquet")):
        assert pq.ParquetFile(path).metadata.num_rows > 0
    report = run(folder, tmp_path)
    assert report.shards_before >= len(before)
    assert report.kept == 30
    commit.gc(tmp_path)
    assert data_bytes(tmp_path) == data_bytes(finished)


def test_a_finished_run_is_not_made_again(folder: Path, finished: Path) -> None:
    before = data_bytes(finished)
    times = [path.stat().st_mtime_ns for path in sorted((finished / "data").iterdir())]
    assert run(folder, finished).shards_before == 5
    assert data_bytes(finished) == before
    assert [path.stat().st_mtime_ns for path in sorted((finished / "data").iterdir())] == times


def test_another_recipe_is_refused_in_the_same_folder(folder: Path, finished: Path) -> None:
    other = make_recipe(folder, seed=6)
    with pytest.raises(BadInput, match=f"the recipe hash was .* and is {recipe_hash(other)}"):
        generate(other, recipe_hash(other), "", str(finished), executor="serial", judge=KeepAll())


def test_changed_texts_are_refused_in_the_same_folder(folder: Path, finished: Path) -> None:
    path = folder / "texts" / "a.txt"
    path.write_text(TEXT.replace("Tuesday", "Monday"))
    try:
        with pytest.raises(BadInput, match="the digest of texts was"):
            run(folder, finished)
    finally:
        path.write_text(TEXT)


def test_every_row_is_complete_and_rejected_ones_stand_beside_with_their_reason(folder: Path, finished: Path) -> None:
    kept = commit.read_rows(finished, keep=True).to_pylist()
    assert [(row["shard"], row["row"]) for row in kept] == [(shard, row) for shard in range(5) for row in range(6)]
    for row in kept:
        image_HW3 = decode_png(row["image"]["bytes"])
        assert image_HW3.shape == (row["height"], row["width"], 3) == (80, 96, 3)
        assert xxhash.xxh3_128_hexdigest(image_HW3) == row["pixels_xxh3"]
        assert row["text"] == "\n".join(line["text"] for line in row["lines"])
        assert row["characters"] == len("".join(row["text"].split()))
        assert row["characters_per_mp"] == pytest.approx(row["characters"] / 0.00768, rel=1e-6)
        assert 0 < row["text_area"] <= 1
        assert (row["keep"], row["reason"], row["source"], row["lang"]) == (True, "", "synthetic", "en")
        assert row["licence"] == ("CC0-1.0" if row["photo_id"] else None)
    rejected = commit.read_rows(finished, keep=False).to_pylist()
    tired = {(row["shard"], row["row"]) for row in rejected if row["reason"] == "tired"}
    assert tired == {(shard, row) for shard in range(5) for row in (1, 5)}
    assert not any(row["keep"] for row in rejected)
    assert {row["attempt"] for row in kept if (row["shard"], row["row"]) in tired} >= {1}
    metadata = pq.read_schema(next((finished / "data").iterdir())).metadata
    assert metadata[b"recipe"].decode() == (finished / "recipe.yaml").read_text()


def test_the_folder_names_its_fonts_photographs_texts_and_versions(finished: Path) -> None:
    names = {path.name for path in finished.iterdir() if path.is_file()}
    assert names == {
        "README.md",
        *("recipe.yaml", "fonts.json", "photos.json", "texts.json", "versions.json"),
        *("run.json", "manifest.parquet", "_SUCCESS"),
    }
    assert "broken.jpg" in (finished / "photos.json").read_text()


def test_a_row_that_is_always_rejected_ends_the_run_with_one_sentence(folder: Path, tmp_path: Path) -> None:
    with pytest.raises(BadInput, match=r"shard 0, row 0: 20 pages in a row were rejected \(.*illegible"):
        run(folder, tmp_path, judge=DropAll())
    assert not (tmp_path / "data").exists()


def test_a_full_disk_ends_the_run_and_keeps_what_is_finished(
    folder: Path, finished: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    fsync = os.fsync
    calls: list[int] = []

    def full_after_a_while(descriptor: int) -> None:
        calls.append(descriptor)
        if len(calls) > 30:
            raise OSError(28, "No space left on device")
        fsync(descriptor)

    with monkeypatch.context() as patched:
        patched.setattr(os, "fsync", full_after_a_while)
        with pytest.raises(BadInput, match="the disk is full; make room and run the same command again"):
            run(folder, tmp_path)
    assert not list(tmp_path.rglob(".part-*"))
    assert 1 <= len(commit.committed_shards(Folder(str(tmp_path)))) < 5
    run(folder, tmp_path)
    assert data_bytes(tmp_path) == data_bytes(finished)


# redraw and verify


def test_every_picture_is_drawn_again_pixel_for_pixel(finished: Path) -> None:
    for path in ((finished / "data").iterdir().__next__(), (finished / "rejected").iterdir().__next__()):
        for row in range(pq.ParquetFile(path).metadata.num_rows):
            stored_HW3, redrawn_HW3 = redraw(path, row)
            np.testing.assert_array_equal(stored_HW3, redrawn_HW3)
    with pytest.raises(BadInput, match="has rows 0 to 5, there is no row 6"):
        redraw(next((finished / "data").iterdir()), 6)
    with pytest.raises(BadInput, match="cannot be read as a Parquet file"):
        redraw(finished / "fonts.json", 0)


def test_verify_counts_what_is_whole_and_names_what_is_not(folder: Path, tmp_path: Path) -> None:
    run(folder, tmp_path)
    rejected = commit.read_rows(tmp_path, ["row_id"], keep=False).num_rows
    assert f"30 rows kept, {rejected} rejected; 9 pictures decoded, 9 of them drawn again" in verify_run(tmp_path, 9)
    shards = sorted((tmp_path / "data").iterdir())
    raw = shards[2].read_bytes()
    shards[2].write_bytes(raw[:1000] + bytes([raw[1000] ^ 1]) + raw[1001:])
    with pytest.raises(BadInput, match=f"{shards[2].name}: its {len(raw)} bytes are not those"):
        verify_run(tmp_path)
    shards[2].write_bytes(raw)
    (folder / "photos" / "0.png").rename(folder / "photos" / "0.bak")
    try:
        with pytest.raises(BadInput, match=r"0\.png: the photograph cannot be read any more"):
            verify_run(tmp_path, 40)
    finally:
        (folder / "photos" / "0.bak").rename(folder / "photos" / "0.png")
    shards[4].unlink()
    with pytest.raises(BadInput, match=f"{shards[4].name}: no such file"):
        verify_run(tmp_path)


def test_verify_sees_a_row_that_is_kept_twice_or_lost(folder: Path, tmp_path: Path) -> None:
    recipe = make_recipe(folder, rows=12)
    digest = recipe_hash(recipe)
    generate(recipe, digest, "", str(tmp_path), executor="serial", judge=KeepAll())
    record, other = (tmp_path / "_commits" / f"0000000{shard}.json" for shard in range(2))
    original, name = other.read_text(), digest[:12]

    def finish_with(text: str) -> None:
        other.write_text(text)
        (tmp_path / "_SUCCESS").unlink()
        commit.finish_run(Folder(str(tmp_path)), 2)

    # The second shard is replaced, record and all, by the first, by a copy of the first, by nothing: every file is as
    # its record says.
    copied = record.read_text().replace('"shard":0', '"shard":1')
    finish_with(copied)
    with pytest.raises(BadInput, match="names a file twice"):
        verify_run(tmp_path)
    for kind in ("data", "rejected"):
        for path in (tmp_path / kind).glob(f"{name}-00000000.parquet"):
            path.with_name(f"{name}-00000009.parquet").write_bytes(path.read_bytes())
    finish_with(copied.replace("-00000000.parquet", "-00000009.parquet"))
    with pytest.raises(BadInput, match=rf"the id {name}-0-0-\d+ is not that of its address in shard 1"):
        verify_run(tmp_path)
    finish_with('{"shard":1,"files":[]}')
    with pytest.raises(BadInput, match="1 of 2 shards are not in it, the first is 1"):
        verify_run(tmp_path)
    finish_with(original)
    assert "12 rows kept" in verify_run(tmp_path)


# sampling, preview


def test_a_page_depends_on_its_address_only(folder: Path) -> None:
    recipe = make_recipe(folder)
    plan = make_plan(recipe, "0" * 16, "")
    addresses = [Address(1, 2), Address(0, 0), Address(1, 2, 1), Address(4, 5)]
    forwards = {page.address: page for page in sample_rows(plan, addresses)}
    backwards = {page.address: page for page in sample_rows(plan, addresses[::-1])}
    for address in addresses:
        assert forwards[address].spec == backwards[address].spec
        np.testing.assert_array_equal(forwards[address].page.image_HW3, backwards[address].page.image_HW3)
    assert len({page.spec for page in forwards.values()}) == 4


def test_a_language_without_text_is_refused_before_anything_is_drawn(folder: Path, tmp_path: Path) -> None:
    recipe = make_recipe(folder, pages=PageDistribution(languages={"en": 0.5, "zh": 0.5}))
    with pytest.raises(BadInput, match="no 'zh' text in the places named"):
        generate(recipe, "0" * 16, "", str(tmp_path / "out"), executor="serial", judge=KeepAll())
    assert not (tmp_path / "out").exists()


def test_text_area_is_the_share_of_pixels_in_quads_with_overlaps_counted_once() -> None:
    def line(x0: float, y0: float, x1: float, y1: float) -> RenderedLine:
        return RenderedLine(
            text="x",
            lang="en",
            quad_px=(x0, y0, x1, y0, x1, y1, x0, y1),
            size_px=8,
            ink_height_px=5,
            face_id="f-0",
            ink_rgb=(0, 0, 0),
            ground_rgb=(255, 255, 255),
            contrast=21,
            clutter=0,
            opacity=1,
            block=0,
        )

    image_HW3 = np.zeros((50, 100, 3), np.uint8)
    assert text_area(RenderedPage(image_HW3=image_HW3, lines=())) == 0
    one = RenderedPage(image_HW3=image_HW3, lines=(line(10, 10, 60, 30),))
    assert text_area(one) == pytest.approx(50 * 20 / 5000)
    two = RenderedPage(image_HW3=image_HW3, lines=(line(10, 10, 60, 30), line(40, 20, 80, 40)))
    assert text_area(two) == pytest.approx((50 * 20 + 40 * 20 - 20 * 10) / 5000)
    beyond = RenderedPage(image_HW3=image_HW3, lines=(line(-10, -10, 200, 200),))
    assert text_area(beyond) == 1
    assert text_area(RenderedPage(image_HW3=image_HW3, lines=(line(-30, 5, -10, 20),))) == 0


def test_a_contact_sheet_shows_every_picture_pixel_for_pixel() -> None:
    images = [np.full((20 + number, 30, 3), 10 * number, np.uint8) for number in range(5)]
    sheet_HW3 = contact_sheet(images, 2, ["a", "b", "c", "d", "e"])
    assert sheet_HW3.shape == (3 * (24 + 16 + 6) + 6, 2 * (30 + 6) + 6, 3)
    for number, image_HW3 in enumerate(images):
        top, left = 6 + number // 2 * 46, 6 + number % 2 * 36
        np.testing.assert_array_equal(sheet_HW3[top : top + 20 + number, left : left + 30], image_HW3)
    assert contact_sheet(images[:1], 4).shape == (20 + 12, 30 + 12, 3)
    with pytest.raises(ValueError, match="5 pictures need as many labels, got 1"):
        contact_sheet(images, 2, ["a"])


def test_a_preview_shows_the_first_rows_of_the_run(folder: Path, finished: Path, tmp_path: Path) -> None:
    recipe = make_recipe(folder)
    pages = preview(recipe, 6)
    drawn = {
        row["row"]: row["pixels_xxh3"]
        for row in commit.read_rows(finished).to_pylist()
        if row["attempt"] == 0 and row["shard"] == 0
    }
    for page in pages:
        if page.address.shard == 0:
            assert xxhash.xxh3_128_hexdigest(page.page.image_HW3) == drawn[page.address.row]
    write_preview(recipe, 4, tmp_path / "plain.png")
    write_preview(recipe, 4, tmp_path / "boxes.png", boxes=True)
    plain, boxes = (np.asarray(Image.open(tmp_path / name)) for name in ("plain.png", "boxes.png"))
    assert plain.shape == boxes.shape == (2 * (80 + 16 + 6) + 6, 2 * (96 + 6) + 6, 3)
    assert (plain != boxes).any()
