"""What stands at the end of training: the card, the statistics of latents, reconstructions of anybody's pictures."""

import json
import shutil
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest
import torch
import yaml
from diffusers import AutoencoderKL
from PIL import Image
from safetensors.torch import load_file, save_file
from typer.testing import CliRunner
from vae_runs import SMALL, stripes, write_run

import vae.card
import vae.channel_statistics
from datagen.decode import decode_image
from datagen.recipes import recipe_to_yaml
from fonts_manifest.errors import BadInput
from vae.batch import to_unit_range
from vae.card import write_model_cards
from vae.cli import app
from vae.logs import read_report
from vae.model import GSCAutoencoder
from vae.recipes import TrainRecipe
from vae.reconstruct import reconstruct_files, reconstruct_picture
from vae.saved import load_model
from vae.source import LiveConfig, SourceConfig


@dataclass(frozen=True)
class Trained:
    data: Path
    run: Path

    @property
    def ema(self) -> Path:
        return self.run / "ema"

    def copy(self, to: Path) -> Path:
        return Path(shutil.copytree(self.ema, to / "model"))


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Trained:
    """Three steps through the verb, on data with a card of their own."""
    folder = tmp_path_factory.mktemp("after")
    data = write_run(folder / "stripes", stripes(20, 48))
    (data / "README.md").write_text("# Data\n\n## Licences\n\nPhotographs\n\n- CC0-1.0: a.png\n\n## More\n\nno\n")
    recipe = TrainRecipe(
        kind="train",
        sources=(SourceConfig(name="stripes", run=str(data)),),
        model=SMALL,
        steps=3,
        batch=4,
        crop_px=32,
        hold_out=0.2,
        validate_pictures=4,
        validate_px=48,
    )
    (folder / "small.yaml").write_text(recipe_to_yaml(recipe))
    result = CliRunner().invoke(app, ["train", str(folder / "small.yaml"), "--out", str(folder / "vae")])
    assert result.exit_code == 0, result.output
    return Trained(data, folder / "vae")


def test_a_card_stands_beside_the_weights_after_training(trained: Trained) -> None:
    report = read_report(trained.run)
    assert report is not None
    for name in ("model", "ema"):
        text = (trained.run / name / "README.md").read_text()
        header = yaml.safe_load(text.split("---")[1])
        assert header["library_name"] == "diffusers"
        assert "f4c12" in header["tags"]
        psnr_db = report.psnr_end_db["stripes"]
        assert f"| stripes | {report.psnr_start_db['stripes']:.2f} | {psnr_db:.2f} |" in text
        counts = report.sources["stripes"]
        assert counts["train"] + counts["held_out"] == 20
        assert f"{counts['train']} pictures for training, {counts['held_out']} held out" in text
        assert "- CC0-1.0: a.png" in text
        assert "## More" not in text
        assert "crop_px: 32" in text
        with Image.open(trained.run / name / "reconstructions.png") as sheet:
            assert sheet.size == (4 * 48, 2 * 48)


def test_a_card_is_written_anew_without_the_data(trained: Trained, tmp_path: Path) -> None:
    run = Path(shutil.copytree(trained.run, tmp_path / "vae"))
    recipe = (run / "recipe.yaml").read_text()
    (run / "recipe.yaml").write_text(recipe.replace(str(trained.data), str(tmp_path / "gone")))
    result = CliRunner().invoke(app, ["model", "card", str(run)])
    assert result.exit_code == 0, result.output
    text = (run / "ema" / "README.md").read_text()
    assert "Its licences are not on record here." in text
    assert "reconstructions.png" not in text
    with pytest.raises(BadInput, match="no finished training run"):
        write_model_cards(tmp_path)


def test_a_source_that_is_drawn_on_the_way_is_named_by_its_recipe(
    trained: Trained, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    report = read_report(trained.run)
    assert report is not None
    (tmp_path / "README.md").write_text("## Licences\n\nof another thing\n")
    monkeypatch.chdir(tmp_path)
    live = LiveConfig(recipe="demo-generate", overrides=("rows=5",))
    text = vae.card._data(SourceConfig(name="drawn", live=live), report)
    assert "by the recipe `demo-generate` `rows=5`. Weight" in text
    assert "not on record" in text
    assert "another thing" not in text


def test_training_leaves_the_statistics_of_its_latents(trained: Trained) -> None:
    config = json.loads((trained.ema / "config.json").read_text())
    assert len(config["latents_mean"]) == len(config["latents_std"]) == 12
    assert min(config["latents_std"]) > 0


def test_statistics_are_measured_on_any_pictures(trained: Trained, tmp_path: Path) -> None:
    model_folder, pictures = trained.copy(tmp_path), tmp_path / "pictures"
    pictures.mkdir()
    images = [*stripes(3, 40, seed=5), stripes(1, 23, seed=6)[0]]
    for number, picture in enumerate(images):
        Image.fromarray(picture).save(pictures / f"{number}.png")
    (pictures / "bad.png").write_bytes(b"no picture")
    before = (model_folder / "diffusion_pytorch_model.safetensors").read_bytes()
    result = CliRunner().invoke(app, ["model", "statistics", str(model_folder), "--images", str(pictures)])
    assert result.exit_code == 0, result.output
    assert "of 325 cells" in result.stdout
    assert "bad.png" in result.stderr
    model = load_model(model_folder)
    with torch.no_grad():
        parts = [
            model.encode(to_unit_range(image[None, : len(image) // 4 * 4, : len(image) // 4 * 4])) for image in images
        ]
    cells = torch.cat([part.latent_dist.mode()[0].flatten(1) for part in parts], dim=1)
    np.testing.assert_allclose(model.config.latents_mean, cells.mean(1), atol=1e-5)
    np.testing.assert_allclose(model.config.latents_std, cells.std(1), rtol=1e-4)
    assert (model_folder / "diffusion_pytorch_model.safetensors").read_bytes() == before
    with pytest.raises(BadInput, match="nothing to measure"):
        vae.channel_statistics.measure_channels(model, [np.zeros((3, 3, 3), np.uint8)])


def test_pictures_of_every_kind_and_size_come_back_in_their_size(trained: Trained, tmp_path: Path) -> None:
    places = tmp_path / "原件"
    places.mkdir()
    picture = stripes(1, 61)[0]
    rgb = Image.fromarray(picture)
    rgb.save(places / "图.png")
    rgb.convert("L").save(places / "grey.png")
    rgb.convert("RGBA").resize((3, 70)).save(places / "thin.png")
    rgb.convert("P").save(places / "palette.gif")
    rgb.convert("CMYK").save(places / "cmyk.jpg")
    rgb.convert("1").save(places / "bilevel.tiff")
    rgb.save(places / "grey.webp")
    (places / "broken.jpg").write_bytes(b"\xff\xd8\xff")
    done, problems = reconstruct_files(trained.ema, str(places), tmp_path / "out", tile_cells=4)
    assert done == 6
    assert sorted(Path(name).name for name, _ in problems) == ["broken.jpg", "grey.webp"]
    for name in ("图.png", "grey.png", "thin.png", "palette.gif", "cmyk.jpg", "bilevel.tiff"):
        original = decode_image(places / name)
        output = decode_image(tmp_path / "out" / f"{Path(name).stem}.png")
        assert output.shape == original.shape
    # A picture that needs neither padding nor tiles is the model's own output; tiles and padding change nothing else.
    model = load_model(trained.ema)
    with torch.no_grad():
        whole = model(to_unit_range(picture[None, :60, :60])).sample
    alone = reconstruct_picture(model, picture[:60, :60]).astype(int)
    assert np.abs(alone - whole[0].permute(1, 2, 0).add(1).mul(127.5).round().clamp(0, 255).numpy()).max() == 0
    model.register_to_config(tile_latents=3)
    model.enable_tiling()
    assert np.abs(reconstruct_picture(model, picture[:60, :60]) - alone).max() <= 1


@pytest.mark.parametrize("failure", [torch.OutOfMemoryError("CUDA out of memory"), MemoryError()], ids=["gpu", "numpy"])
def test_memory_that_does_not_suffice_names_what_to_lower(
    trained: Trained, monkeypatch: pytest.MonkeyPatch, failure: Exception
) -> None:
    def full(*_: object, **__: object) -> None:
        raise failure

    monkeypatch.setattr(GSCAutoencoder, "encode", full)
    with pytest.raises(
        BadInput, match=r"memory does not suffice for 9x8 px in tiles of 64 cells: lower --tile \(now 64\)"
    ):
        reconstruct_picture(load_model(trained.ema), np.zeros((8, 9, 3), np.uint8))


def test_a_failure_that_is_not_about_memory_keeps_its_traceback(
    trained: Trained, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(GSCAutoencoder, "encode", lambda *_: torch.zeros(2) @ torch.zeros(3))
    with pytest.raises(RuntimeError, match="inconsistent tensor size") as caught:
        reconstruct_picture(load_model(trained.ema), np.zeros((8, 9, 3), np.uint8))
    assert not isinstance(caught.value, BadInput)


def test_another_models_folder_is_refused(trained: Trained, tmp_path: Path) -> None:
    other = tmp_path / "kl"
    AutoencoderKL(block_out_channels=(32,)).save_pretrained(other)
    with pytest.raises(BadInput, match=r"kl: is an AutoencoderKL, not a GSC autoencoder$"):
        load_model(other)
    folder = trained.copy(tmp_path)
    weights = folder / "diffusion_pytorch_model.safetensors"
    tensors = load_file(weights)
    metadata = {"format": "pt"}
    fewer = {name: value for name, value in tensors.items() if name != "encoder.conv_in.bias"}
    save_file(fewer, weights, metadata)
    with pytest.raises(BadInput, match=r"are another model's: 1 are missing, such as encoder\.conv_in\.bias"):
        load_model(folder)
    save_file(tensors | {"more": torch.zeros(1)}, weights, metadata)
    with pytest.raises(BadInput, match="1 are of no use, such as more"):
        load_model(folder)
    save_file(tensors | {"encoder.conv_in.bias": torch.zeros(3)}, weights, metadata)
    with pytest.raises(BadInput, match="cannot be read"):
        load_model(folder)
    weights.write_bytes(weights.read_bytes()[:100])
    with pytest.raises(BadInput, match="cannot be read"):
        load_model(folder)
    weights.unlink()
    with pytest.raises(BadInput, match="holds no weights"):
        load_model(folder)
