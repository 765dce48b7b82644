"""Recipes are strict: what is misspelled is refused with its line, what is equal has equal hashes."""

from pathlib import Path
from typing import Literal

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

from datagen.recipes import describe_recipe, find_recipe, load_recipe, recipe_hash, recipe_kind, recipe_to_yaml
from fonts_manifest.config import Config
from fonts_manifest.errors import BadInput


class Band(Config):
    """A band of sizes."""

    low_px: float = 5.0
    """Smallest em in px."""
    weight: float = 1.0
    """Relative frequency."""


class Pages(Config):
    """What a page looks like."""

    size_px: tuple[float, float] = (5.0, 20.0)
    """Range of the em."""
    bands: tuple[Band, ...] = (Band(),)
    """Bands of difficulty."""


class Recipe(Config):
    """A recipe for these tests."""

    kind: Literal["generate"] = "generate"
    """What it is."""
    rows: int = 10
    """How many pictures."""
    pages: Pages = Pages()
    """The pages."""


def write(tmp_path: Path, text: str) -> Path:
    path = tmp_path / "mine.yaml"
    path.write_text(text, encoding="utf-8")
    return path


def test_unknown_key_is_refused_with_its_line_and_the_nearest_known_key(tmp_path: Path) -> None:
    path = write(tmp_path, "kind: generate\nrows: 3\npages:\n  sise_px: [5, 9]\n")
    with pytest.raises(
        BadInput, match=r"mine.yaml, line 4: unknown key 'sise_px' in pages; the nearest known key is 'size_px'"
    ):
        load_recipe(path, Recipe)


def test_unknown_key_inside_a_list_is_refused_with_its_line(tmp_path: Path) -> None:
    path = write(tmp_path, "pages:\n  bands:\n  - low_px: 5\n  - low_px: 8\n    wieght: 2\n")
    with pytest.raises(
        BadInput, match=r"line 5: unknown key 'wieght' in pages.bands.1; the nearest known key is 'weight'"
    ):
        load_recipe(path, Recipe)


def test_a_wrong_value_is_refused_with_its_line_and_itself(tmp_path: Path) -> None:
    path = write(tmp_path, "kind: generate\n\nrows: many\n")
    with pytest.raises(BadInput, match=r"line 3: rows: .*integer.* got 'many'"):
        load_recipe(path, Recipe)


def test_a_key_given_twice_is_refused(tmp_path: Path) -> None:
    with pytest.raises(BadInput, match=r"line 2: .*'rows' is given twice"):
        load_recipe(write(tmp_path, "rows: 1\nrows: 2\n"), Recipe)


@pytest.mark.parametrize("text", ["[1, 2]", "rows: [", "", "plain words"])
def test_what_is_no_mapping_is_one_sentence(tmp_path: Path, text: str) -> None:
    with pytest.raises(BadInput, match=r"mine\.yaml"):
        load_recipe(write(tmp_path, text), Recipe)


def test_a_missing_file_and_a_missing_name_are_named(tmp_path: Path) -> None:
    with pytest.raises(BadInput, match="no such recipe file"):
        find_recipe(str(tmp_path / "none.yaml"), [])
    write(tmp_path, "# mine\nkind: generate\n")
    with pytest.raises(BadInput, match="did you mean 'mine'"):
        find_recipe("mime", [tmp_path])


def test_overrides_reach_nested_keys_and_list_items(tmp_path: Path) -> None:
    path = write(tmp_path, "rows: 3\npages:\n  bands: [{low_px: 5}, {low_px: 8}]\n")
    recipe = load_recipe(path, Recipe, ["rows=7", "pages.bands.1.low_px=9", "pages.size_px=[6, 7]"])
    assert (recipe.rows, recipe.pages.bands[1].low_px, recipe.pages.size_px) == (7, 9.0, (6.0, 7.0))


def test_overrides_reach_keys_that_the_file_leaves_out(tmp_path: Path) -> None:
    assert load_recipe(write(tmp_path, "rows: 3\n"), Recipe, ["pages.size_px=[6, 7]"]).pages.size_px == (6.0, 7.0)


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("rows", "key.sub=value"),
        ("rosw=3", "override rosw: unknown key 'rosw'; the nearest known key is 'rows'"),
        ("rows.x=3", "rows is a single value"),
        ("pages.bands.5.low_px=3", "is a list of 1"),
        ("rows=[", "not valid YAML"),
    ],
)
def test_a_wrong_override_is_one_sentence(tmp_path: Path, override: str, message: str) -> None:
    with pytest.raises(BadInput, match=message.replace("[", r"\[")):
        load_recipe(write(tmp_path, "rows: 3\npages:\n  bands: [{low_px: 5}]\n"), Recipe, [override])


@given(rows=st.integers(1, 10**9), low=st.floats(5, 20), weight=st.floats(0, 1e6))
def test_the_resolved_recipe_reads_back_equal_with_an_equal_hash(rows: int, low: float, weight: float) -> None:
    recipe = Recipe(rows=rows, pages=Pages(bands=(Band(low_px=low, weight=weight),)))
    again = Recipe.model_validate(yaml.safe_load(recipe_to_yaml(recipe)))
    assert again == recipe
    assert recipe_hash(again) == recipe_hash(recipe)


def test_the_hash_depends_on_values_and_not_on_how_the_file_is_written(tmp_path: Path) -> None:
    short = load_recipe(write(tmp_path, "rows: 10\n"), Recipe)
    assert recipe_hash(short) == recipe_hash(Recipe())
    assert recipe_hash(Recipe(rows=11)) != recipe_hash(Recipe())


def test_describe_explains_every_field_and_stays_a_valid_recipe() -> None:
    text = describe_recipe(Recipe(pages=Pages(bands=(Band(), Band(low_px=8)))))
    for meaning in ("How many pictures.", "Range of the em.", "Smallest em in px."):
        assert f"# {meaning}" in text
    assert Recipe.model_validate(yaml.safe_load(text)).pages.bands[1].low_px == 8


def test_kind_is_read_without_knowing_the_rest(tmp_path: Path) -> None:
    assert recipe_kind(write(tmp_path, "kind: train\nwhatever: 1\n")) == "train"
    with pytest.raises(BadInput, match="'kind' is missing"):
        recipe_kind(write(tmp_path, "rows: 1\n"))
