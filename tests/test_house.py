"""The command as a user meets it: help, recipes, and one sentence with exit code 2 for bad input."""

import errno
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

import datagen.cli
import datagen.recipes
import glyphmill
import vae.cli
from datagen import storage
from datagen.recipes import bundled_recipes, load_recipe, recipe_hash, recipe_kind, recipe_to_yaml
from fonts_manifest.errors import run

ROOT = Path(__file__).parents[1]
BUNDLED = [(folder, name) for folder in (datagen.recipes.BUNDLED, vae.cli.BUNDLED) for name in bundled_recipes(folder)]


def glyphmill_fails(capsys: pytest.CaptureFixture[str], *words: str) -> str:
    """Run the command in this process; it must end with exit code 2 and one sentence, which is returned."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(sys, "argv", ["glyphmill", *words])
        with pytest.raises(SystemExit) as ended:
            glyphmill.main()
    assert ended.value.code == 2
    (sentence,) = [line for line in capsys.readouterr().err.splitlines() if line.startswith("glyphmill: ")]
    return sentence


def glyphmill_says(capsys: pytest.CaptureFixture[str], *words: str) -> str:
    """Run the command in this process to its good end; returns what it printed."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(sys, "argv", ["glyphmill", *words])
        with pytest.raises(SystemExit) as ended:
            glyphmill.main()
    assert ended.value.code == 0
    return capsys.readouterr().out


@pytest.fixture
def recipe(tmp_path: Path) -> Path:
    """A small recipe of one's own: one font folder, one photograph, one text."""
    (tmp_path / "text.txt").write_text("A miller grinds letters into glyphs, and nothing else is ground here.\n" * 4)
    path = tmp_path / "mine.yaml"
    settings = {
        "kind": "generate",
        "rows": 4,
        "fonts": {"places": ["package:matplotlib/mpl-data/fonts/ttf"], "system": False},
        "photos": {"places": [{"place": "package:skimage/data/coffee.png", "licence": "CC0-1.0"}]},
        "texts": {"places": [{"place": str(tmp_path / "text.txt"), "licence": "ours"}]},
        "pages": {"languages": {"en": 1.0}},
    }
    path.write_text(yaml.safe_dump(settings))
    return path


def test_help_groups_the_verbs(capsys: pytest.CaptureFixture[str]) -> None:
    text = glyphmill_says(capsys, "--help")
    for group in ("Generate", "Filter and inspect", "Train and judge", "Around"):
        assert group in text
    for verb in (
        "generate",
        "preview",
        "redraw",
        "filter",
        "inspect",
        "verify",
        "train",
        "reconstruct",
        "demo",
        "fonts",
    ):
        assert re.search(rf"\b{verb}\b", text)


@pytest.mark.parametrize("module", ["datagen", "vae"])
def test_the_packages_take_the_same_verbs(module: str) -> None:
    done = subprocess.run([sys.executable, "-m", module, "--help"], capture_output=True, text=True, check=True)
    assert ("generate" if module == "datagen" else "train") in done.stdout


def test_starting_the_command_imports_neither_torch_nor_ray_nor_opencv() -> None:
    code = "import sys, glyphmill; print(sorted({'torch', 'ray', 'cv2', 'numba', 'diffusers'} & set(sys.modules)))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


def test_recipes_are_listed_with_a_line_each(capsys: pytest.CaptureFixture[str]) -> None:
    lines = glyphmill_says(capsys, "recipes").splitlines()
    assert [line.split()[0] for line in lines] == [name for _, name in BUNDLED]
    assert all(len(line.split()) > 5 for line in lines)
    assert len({line.index(line.split(maxsplit=1)[1]) for line in lines}) == 1  # one column


@pytest.mark.parametrize(("folder", "name"), BUNDLED, ids=[name for _, name in BUNDLED])
def test_a_bundled_recipe_loads_and_shows_the_meaning_of_every_field(
    folder: Path, name: str, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    path = folder / f"{name}.yaml"
    model = glyphmill.recipe_class(recipe_kind(path))
    loaded = load_recipe(path, model)
    shown = tmp_path / "shown.yaml"
    shown.write_text(glyphmill_says(capsys, "recipes", "show", name), encoding="utf-8")
    assert recipe_hash(load_recipe(shown, model)) == recipe_hash(loaded)
    for field in model.model_fields:
        assert re.search(rf"^# .*\n(# .*\n)*{field}:", shown.read_text(encoding="utf-8"), re.MULTILINE), field
    resolved = tmp_path / "resolved.yaml"
    resolved.write_text(recipe_to_yaml(loaded), encoding="utf-8")
    assert load_recipe(resolved, model) == loaded


def test_a_misspelled_key_is_refused_with_its_line(capsys: pytest.CaptureFixture[str], recipe: Path) -> None:
    recipe.write_text(recipe.read_text().replace("rows: 4", "rwos: 4"))
    line = recipe.read_text().splitlines().index("rwos: 4") + 1
    sentence = glyphmill_fails(capsys, "generate", str(recipe))
    assert f"mine.yaml, line {line}: unknown key 'rwos'; the nearest known key is 'rows'" in sentence


def test_no_fonts_are_one_sentence(capsys: pytest.CaptureFixture[str], recipe: Path, tmp_path: Path) -> None:
    (tmp_path / "fonts").mkdir()
    sentence = glyphmill_fails(capsys, "preview", str(recipe), f"fonts.places=[{tmp_path / 'fonts'}]")
    assert "font" in sentence


def test_a_folder_of_broken_images_is_one_sentence(
    capsys: pytest.CaptureFixture[str], recipe: Path, tmp_path: Path
) -> None:
    photos = tmp_path / "photos"
    photos.mkdir()
    (photos / "empty.jpg").write_bytes(b"")
    (photos / "lies.png").write_bytes(b"no picture at all")
    sentence = glyphmill_fails(capsys, "preview", str(recipe), f"photos.places.0.place={photos}")
    assert str(photos) in sentence or "photograph" in sentence


def test_an_empty_corpus_is_one_sentence(capsys: pytest.CaptureFixture[str], recipe: Path, tmp_path: Path) -> None:
    (tmp_path / "text.txt").write_text("\n\n")
    assert "text" in glyphmill_fails(capsys, "preview", str(recipe))


def test_a_full_disk_is_one_sentence(
    capsys: pytest.CaptureFixture[str], recipe: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*_: object) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(storage, "_publish_here", refuse)
    sentence = glyphmill_fails(capsys, "generate", str(recipe), "--out", str(tmp_path / "run"), "--executor", "serial")
    assert "the disk is full" in sentence


def test_no_ray_cluster_is_one_sentence(capsys: pytest.CaptureFixture[str], recipe: Path, tmp_path: Path) -> None:
    out = str(tmp_path / "run")
    sentence = glyphmill_fails(capsys, "generate", str(recipe), "--out", out, "--ray-address", "127.0.0.1:1")
    assert "127.0.0.1:1: no Ray cluster answers there" in sentence


def test_training_on_a_folder_without_a_run_is_one_sentence(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    words = ("train", "demo-train", f"sources.0.run={tmp_path}", "--out", str(tmp_path / "vae"))
    assert "no finished run" in glyphmill_fails(capsys, *words)


def test_an_unknown_model_is_one_sentence(capsys: pytest.CaptureFixture[str]) -> None:
    assert "no model is called 'f8c4'" in glyphmill_fails(capsys, "model", "f8c4")


def test_redraw_of_a_missing_shard_is_one_sentence(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    assert "none.parquet" in glyphmill_fails(capsys, "redraw", str(tmp_path / "none.parquet"), "0")


def test_ctrl_c_ends_with_130_and_no_traceback(capsys: pytest.CaptureFixture[str]) -> None:
    def interrupted() -> None:
        raise KeyboardInterrupt

    with pytest.raises(SystemExit) as ended:
        run(interrupted)
    assert ended.value.code == 130
    assert "interrupted" in capsys.readouterr().err


def test_preview_writes_a_sheet_of_the_pictures_asked_for(
    capsys: pytest.CaptureFixture[str], recipe: Path, tmp_path: Path
) -> None:
    from PIL import Image

    sheet = tmp_path / "sheet.png"
    assert glyphmill_says(capsys, "preview", str(recipe), "--n", "6", "--out", str(sheet)).strip() == str(sheet)
    with Image.open(sheet) as image:
        assert image.width * image.height >= 6 * 256 * 256


def test_the_readme_names_every_file_of_the_house() -> None:
    readme = (ROOT / "README.md").read_text(encoding="utf-8")
    packages = ("fonts_manifest", "render_engine", "datagen", "vae")
    files = [path for package in packages for path in (ROOT / package).glob("*.py") if not path.name.startswith("__")]
    assert [str(path) for path in files if f"`{path.name}`" not in readme] == []
