"""Runs of all families: rows say what they show, are drawn again from their specs, and know their templates."""

from pathlib import Path

import numpy as np
import pytest
from pyarrow import parquet as pq
from test_data_generate import folder, make_recipe  # noqa: F401 - `folder` is a fixture

from datagen import rows
from datagen.generate import generate
from datagen.plan import Address, GenerateRecipe, KeepAll, make_plan
from datagen.recipes import bundled_recipes, load_recipe, recipe_hash
from datagen.redraw import redraw
from datagen.rows import sample_rows
from fonts_manifest.errors import BadInput
from render_engine.distribution import PageDistribution
from render_engine.template import load_template

BUNDLED = Path(__file__).parent.parent / "datagen" / "bundled"
FAMILIES = {"background": 1.0, "pure": 1.0, "compositional": 1.0, "complex": 1.0}


def recipe_of(folder: Path, rows: int = 12, **pages: object) -> GenerateRecipe:  # noqa: F811
    distribution = PageDistribution.model_validate(
        {"page_sizes_px": ((256, 224),), "languages": {"en": 1.0}, "difficulty": "f8"} | pages
    )
    return make_recipe(folder, rows=rows, rows_per_shard=rows, pages=distribution)


def test_rows_of_every_family_are_told_in_words_and_drawn_again(folder, tmp_path):  # noqa: F811
    recipe = recipe_of(folder, families=FAMILIES)
    generate(recipe, recipe_hash(recipe), "", str(tmp_path), executor="serial", judge=KeepAll())
    (shard,) = (tmp_path / "data").glob("*.parquet")
    stored_rows = pq.read_table(shard).to_pylist()
    families = set()
    for number, row in enumerate(stored_rows):
        families.add(row["spec"].split('"family":"')[1].split('"')[0])
        assert "English" in row["caption"]
        assert " px large" in row["caption"]
        assert all(line["role"] for line in row["lines"])
        assert (row["licence"] == "CC0-1.0") == (row["photo_id"] is not None)
        stored, again = redraw(shard, number)
        assert np.array_equal(stored, again)
    assert families == set(FAMILIES)


def test_two_runs_in_one_process_each_draw_what_they_would_alone(folder):  # noqa: F811
    def pages(large: float, seed: int) -> list[str]:
        bands = ({"low_px": large, "high_px": large, "weight": 1},)
        recipe = recipe_of(folder, rows=3, families={"pure": 1.0}, difficulty=None, size_bands=bands)
        plan = make_plan(recipe.model_copy(update={"seed": seed}), f"{large} {seed}", "")
        return [repr(sampled.spec) for sampled in sample_rows(plan, [Address(0, row) for row in range(3)])]

    rows._workshops.clear()
    first = pages(8, 0)
    others = pages(12, 0), pages(8, 1)
    rows._workshops.clear()
    assert pages(8, 1) == others[1]
    rows._workshops.clear()
    assert pages(12, 0) == others[0]
    assert len({tuple(first), *map(tuple, others)}) == 3


def test_photographs_are_looked_for_only_where_pages_show_them(folder):  # noqa: F811
    def photos(**families: float) -> int:
        return len(make_plan(recipe_of(folder, families=families), "", "").photos.photos)

    assert photos(pure=1.0) == 0
    assert photos(complex=1.0) == photos(compositional=1.0) == photos(background=1.0) == 2


def test_a_run_does_not_go_on_with_another_template(folder, tmp_path):  # noqa: F811
    template = tmp_path / "mine.yaml"
    template.write_text("description: a note\npage: {slot: paragraph}\n")
    recipe = recipe_of(folder, rows=2, families={"complex": 1.0}, templates={str(template): 1.0})
    first = make_plan(recipe, "", "").identity
    assert make_plan(recipe, "", "").identity == first
    template.write_text("description: a note\npage: {slot: list}\n")
    load_template.cache_clear()
    assert make_plan(recipe, "", "").identity != first
    template.write_text("description: a note\npage: {slot: lisp}\n")
    load_template.cache_clear()
    with pytest.raises(BadInput, match=r"mine.yaml: page.slot"):
        make_plan(recipe, "", "")


@pytest.mark.parametrize("name", ["background", "pure", "compositional", "complex", "mixed"])
def test_the_bundled_recipes_of_the_families_say_what_they_are(name):
    recipe = load_recipe(BUNDLED / f"{name}.yaml", GenerateRecipe)
    assert set(recipe.pages.families) == (set(FAMILIES) if name == "mixed" else {name})
    assert bundled_recipes(BUNDLED)[name]
