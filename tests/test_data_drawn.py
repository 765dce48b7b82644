"""`glyphmill coverage`: what a run shows, counted against the texts of its own rows."""

import collections
import json
from pathlib import Path

import pyarrow as pa
import pytest
from pyarrow import parquet as pq

from datagen import drawn
from datagen.commit import read_rows
from datagen.generate import generate
from datagen.plan import GenerateRecipe, KeepAll
from datagen.recipes import load_recipe, recipe_hash, recipe_to_yaml
from fonts_manifest.coverage import general_standard
from fonts_manifest.errors import BadInput

RECIPE = """
kind: generate
rows: 6
rows_per_shard: 3
fonts: {places: ["package:mpl_font/fonts"], system: false}
photos: {places: []}
texts: {places: [{place: dict.txt, format: words, licence: x}]}
pages: {page_sizes_px: [[96, 96]], families: {pure: 1.0}, languages: {zh: 1.0}, size_bands: [
  {low_px: 7, high_px: 7, weight: 1}, {low_px: 14, high_px: 14, weight: 1}]}
"""


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("coverage")
    (folder / "dict.txt").write_text("天地 9 n\n玄黄 5 n\n洪荒 2 n\n", encoding="utf-8")
    (folder / "recipe.yaml").write_text(RECIPE.replace("dict.txt", str(folder / "dict.txt")), encoding="utf-8")
    recipe = load_recipe(folder / "recipe.yaml", GenerateRecipe)
    out = str(folder / "run")
    generate(recipe, recipe_hash(recipe), recipe_to_yaml(recipe), out, executor="serial", judge=KeepAll())
    return folder / "run"


def test_every_character_is_counted_as_often_as_the_rows_have_it_and_at_its_size(run: Path) -> None:
    found = drawn.run_coverage(run)
    lines = [
        line for row in read_rows(run, columns=["keep", "lines"]).to_pylist() if row["keep"] for line in row["lines"]
    ]
    small = collections.Counter("".join(line["text"] for line in lines if line["size_px"] == 7))
    large = collections.Counter("".join(line["text"] for line in lines if line["size_px"] == 14))
    shown = collections.Counter("".join(line["text"] for line in lines))  # headings have sizes between the two
    bands = drawn.band_names()
    for character in "天地玄黄":
        counts = dict(zip(bands, found.counts[character], strict=True))
        assert counts["6 to 8 px"] == small[character]
        assert counts["13 to 16 px"] == large[character]
        assert sum(counts.values()) == shown[character] > 0
    assert found.characters == shown.total() - shown[" "]
    assert found.rows == 6


def test_the_standard_sets_say_what_is_there_and_what_is_missing(run: Path) -> None:
    found = {one.name: one for one in drawn.run_coverage(run).sets}
    level_1, general = found["GB 2312 level 1"], found["8,105 general"]
    assert (level_1.characters, general.characters) == (3755, 8105)
    shown = set("天地玄黄洪荒年月日个万元次人米天第") & set(drawn.run_coverage(run).counts)
    assert shown.isdisjoint(level_1.missing)
    assert level_1.drawn + len(level_1.missing) == 3755
    assert general.median == 0
    assert set("".join(general_standard())) - set(general.missing) >= shown
    assert max(level_1.drawn_at.values()) <= level_1.drawn < 60


def test_text_json_and_page_say_the_same(run: Path, tmp_path: Path) -> None:
    found = drawn.run_coverage(run)
    text = drawn.as_text(found)
    level_1 = next(one for one in found.sets if one.name == "GB 2312 level 1")
    assert f"{level_1.drawn:,} of 3,755 drawn" in text
    decoded = json.loads(drawn.as_json(found))
    assert decoded["counts"]["天"] == found.counts["天"]
    assert len(decoded["bands_px"]) == len(found.counts["天"])
    drawn.write_coverage_page(found, tmp_path / "page.html")
    page = (tmp_path / "page.html").read_text(encoding="utf-8")
    assert f"{level_1.drawn:,}" in page
    assert level_1.missing[:50] in page


def test_lines_without_a_size_are_counted_apart() -> None:
    assert drawn.band_names()[drawn._band(None)] == "size unknown"
    assert drawn.band_names()[drawn._band(5.5)] == "under 6 px"
    assert drawn.band_names()[drawn._band(8.0)] == "8 to 10 px"
    assert drawn.band_names()[drawn._band(64.0)] == "20.5 px and more"


def test_a_folder_that_is_no_finished_run_is_one_sentence(tmp_path: Path) -> None:
    pq.write_table(pa.table({"lines": [1]}), tmp_path / "x.parquet")
    with pytest.raises(BadInput, match="no finished run"):
        drawn.run_coverage(tmp_path)


def test_missing_characters_are_told_apart_by_whether_a_face_of_the_run_draws_them(run: Path) -> None:
    found = {one.name: one for one in drawn.run_coverage(run).sets}
    # Noto Sans CJK draws all of them, so what is missing was only never asked for
    assert found["8,105 general"].without_face == ""
    assert len(found["8,105 general"].missing) > 8000
    assert "drawn by no face of the run: 0 of the 8,09" in drawn.as_text(drawn.run_coverage(run))
