"""The probe of diffusability: a cache that goes on, a generator that learns, the figures of the whole."""

import json
from pathlib import Path

import numpy as np
import pytest
import torch
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st
from test_house import glyphmill_fails, glyphmill_says
from vae_runs import stripes, write_run

from datagen.codec import encode_png
from fonts_manifest.errors import BadInput
from vae import latents as latents_module
from vae import probe as probe_module
from vae import probe_measure
from vae.family import GSCConfig, build_model
from vae.fid import InceptionV3
from vae.generator import (
    ProbeRecipe,
    batch_indices,
    draw_samples,
    held_out_loss,
    prepare,
    read_samples,
    train_generator,
)
from vae.latents import Autoencoder, PictureSet, cache_latents, fit_square, list_pictures, open_autoencoder
from vae.probe import pick_device
from vae.probe_measure import inception_score
from vae.probe_report import WHAT_IT_IS_NOT

CPU = torch.device("cpu")


def silent(stage: str, done: int, total: int, counts: object) -> None:
    """A progress report to nobody."""


def tiny_vae(folder: Path) -> Path:
    torch.manual_seed(0)
    config = GSCConfig(
        encoder_widths=(4, 8, 8),
        decoder_widths=(4, 8, 8),
        latent_channels=6,
        encoder_blocks=1,
        decoder_blocks=1,
        skip_basis="dct",
        decoder_mirror=True,
    )
    build_model(config).save_pretrained(folder)
    return folder


@pytest.fixture(scope="module")
def vae_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny_vae(tmp_path_factory.mktemp("vae"))


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """24 pictures of two classes, one file that is none."""
    for label, seed in (("a", 0), ("b", 1)):
        (tmp_path / "pictures" / label).mkdir(parents=True)
        for number, picture in enumerate(stripes(12, side=40, seed=seed)):
            (tmp_path / "pictures" / label / f"{number:02d}.png").write_bytes(encode_png(picture))
    (tmp_path / "pictures/b/broken.png").write_bytes(b"none")
    return tmp_path / "pictures"


def recipe(folder: Path, vae: Path, **changes: object) -> ProbeRecipe:
    settings_ = {
        "kind": "probe",
        "vae": str(vae),
        "pictures": {"place": str(folder), "size_px": 32},
        "hold_out": 6,
        "model": {"width": 32, "depth": 2, "heads": 4},
        "steps": 80,
        "batch": 8,
        "lr": 3e-3,
        "ema_decay": 0.9,
        "checkpoint_every": 30,
        "samples": 10,
        "sampling_steps": 4,
        "encode_batch": 4,
    }
    return ProbeRecipe.model_validate(settings_ | changes)


def test_labels_are_the_first_folders(folder: Path) -> None:
    listed = list_pictures(PictureSet(place=str(folder)))
    assert [(item.name, item.label) for item in listed[:2]] == [("a/00.png", "a"), ("a/01.png", "a")]
    assert len(listed) == 25
    assert [item.name for item in list_pictures(PictureSet(place=str(folder), at_most=3))] == [
        "a/00.png",
        "b/00.png",
        "b/broken.png",
    ]


def test_pictures_of_a_run_are_listed_by_their_rows(tmp_path: Path) -> None:
    run = write_run(tmp_path / "run", stripes(6, side=40), shards=2, rejected=stripes(1, side=40))
    listed = list_pictures(PictureSet(place=str(run), size_px=32, label_column="source"))
    assert {item.name for item in listed} == {f"r{n}" for n in range(6)}
    assert {item.label for item in listed} == {"synthetic"}
    pictures = dict(latents_module.read_pictures(listed, PictureSet(place=str(run), size_px=32, fit="crop")))
    first = stripes(6, side=40)[int(listed[0].name[1:])]
    assert (pictures[0] == first[4:36, 4:36]).all()
    with pytest.raises(BadInput, match="0 usable pictures"):
        list_pictures(PictureSet(place=str(run), size_px=64))
    with pytest.raises(BadInput, match="no column 'mood'"):
        list_pictures(PictureSet(place=str(run), size_px=32, label_column="mood"))


def test_the_middle_of_a_picture() -> None:
    image = np.zeros((20, 60, 3), np.uint8)
    image[:, 20:40] = 200
    assert (fit_square(image, 10, "resize") == 200).all()
    assert fit_square(image, 10, "crop").shape == (10, 10, 3)
    with pytest.raises(ValueError, match="60 x 20 px has no middle of 30 px"):
        fit_square(image, 30, "crop")


def test_cached_latents_are_the_encoders_and_standardised(folder: Path, vae_folder: Path, tmp_path: Path) -> None:
    pictures = PictureSet(place=str(folder), size_px=32, fit="crop", mirror=True)
    autoencoder = open_autoencoder(vae_folder, CPU, 32)
    listed = list_pictures(pictures)
    cached = cache_latents(autoencoder, listed, pictures, ("a", "b"), tmp_path / "cache", 5, silent)
    assert (len(cached), cached.left_out, cached.labels_N.tolist()) == (48, 2, [0] * 24 + [1] * 24)
    everything = cached.read(list(range(48)))
    assert everything.mean(dim=(0, 2, 3)) == pytest.approx(0, abs=1e-3)
    assert everything.std(dim=(0, 2, 3)) == pytest.approx(1, abs=1e-2)
    picture = stripes(12, side=40, seed=1)[3][4:36, 4:36]
    for row, version in ((30, picture), (31, picture[:, ::-1])):
        direct = autoencoder.encode(torch.from_numpy(version.copy()).permute(2, 0, 1)[None].float() / 127.5 - 1)
        torch.testing.assert_close(cached.restore(cached.read([row])), direct, atol=2e-3, rtol=2e-3)
    picked = cached.read([40, 3, 40])
    assert torch.equal(picked, everything[[40, 3, 40]])


def test_a_cache_goes_on_and_refuses_other_latents(
    folder: Path, vae_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(latents_module, "SHARD_ROWS", 10)
    pictures = PictureSet(place=str(folder), size_px=32)
    autoencoder = open_autoencoder(vae_folder, CPU, 32)
    listed = list_pictures(pictures)

    def cache() -> list[Path]:
        return list(cache_latents(autoencoder, listed, pictures, ("a", "b"), tmp_path / "c", 4, silent).shards)

    first = {path: path.read_bytes() for path in cache()}
    assert len(first) == 3
    middle = sorted(first)[1]
    middle.write_bytes(first[middle][:100])  # cut off
    times = {path: path.stat().st_mtime_ns for path in first}
    assert {path: path.read_bytes() for path in cache()} == first
    assert [path for path in first if path.stat().st_mtime_ns != times[path]] == [middle]
    with pytest.raises(BadInput, match="another model or other pictures"):
        cache_latents(autoencoder, listed[1:], pictures, ("a", "b"), tmp_path / "c", 4, silent)


def test_models_of_diffusers_are_opened_too(tmp_path: Path) -> None:
    import diffusers

    torch.manual_seed(0)
    config = {"block_out_channels": (8, 8), "norm_num_groups": 4, "latent_channels": 4}
    blocks = {"down_block_types": ("DownEncoderBlock2D",) * 2, "up_block_types": ("UpDecoderBlock2D",) * 2}
    diffusers.AutoencoderKL(**config, **blocks).save_pretrained(tmp_path / "kl")
    opened = open_autoencoder(tmp_path / "kl", CPU, 32)
    assert (opened.channels, opened.cells) == (4, 16)
    assert opened.decode(opened.encode(torch.zeros(1, 3, 32, 32))).shape == (1, 3, 32, 32)
    with pytest.raises(BadInput, match=r"config\.json"):
        open_autoencoder(tmp_path, CPU, 32)
    (tmp_path / "config.json").write_text('{"_class_name": "UNet2DModel"}')
    with pytest.raises(BadInput, match="no autoencoder"):
        open_autoencoder(tmp_path, CPU, 32)


def test_a_video_autoencoder_sees_a_picture_as_one_frame(tmp_path: Path) -> None:
    import diffusers

    torch.manual_seed(0)
    model = diffusers.AutoencoderKLWan(
        base_dim=8, z_dim=4, dim_mult=[1, 1, 1, 1], num_res_blocks=1, temperal_downsample=[False, True, True]
    ).eval()
    model.save_pretrained(tmp_path)
    opened = open_autoencoder(tmp_path, CPU, 32)
    assert (opened.channels, opened.cells) == (4, 4)
    image = torch.rand(2, 3, 32, 32) * 2 - 1
    latent = opened.encode(image)
    with torch.no_grad():
        frames = model.encode(image[:, :, None]).latent_dist.mode()
        assert torch.equal(latent, frames[:, :, 0])
        assert torch.equal(opened.decode(latent), model.decode(frames).sample[:, :, 0])


@settings(max_examples=30, deadline=None)
@given(st.integers(0, 5), st.integers(1, 9), st.integers(2, 12))
def test_every_epoch_takes_every_latent_once(seed: int, batch: int, rows: int) -> None:
    taken = [index for step in range(2 * rows) for index in batch_indices(seed, step, batch, rows)]
    for epoch in range(2 * batch):
        assert sorted(taken[epoch * rows : (epoch + 1) * rows]) == list(range(rows))


def test_a_generator_learns_and_goes_on_bit_for_bit(folder: Path, vae_folder: Path, tmp_path: Path) -> None:
    wanted = recipe(folder, vae_folder)
    autoencoder = open_autoencoder(vae_folder, CPU, 32)
    prepared = prepare(wanted, autoencoder, tmp_path, silent)
    assert (len(prepared.train) + len(prepared.held_out), len(prepared.held_out_listed)) == (24, 6)
    shape = (autoencoder.channels, autoencoder.cells, autoencoder.cells)
    whole = train_generator(wanted, prepared.train, shape, tmp_path, CPU)
    # Standardised latents and noise of variance 1: a network that knows nothing has a loss of 2.
    assert whole.losses[0] == pytest.approx(2, abs=0.2)
    assert np.mean(whole.losses[-10:]) < 1.5
    untrained = train_generator(
        recipe(folder, vae_folder, steps=1, lr=1e-9), prepared.train, shape, tmp_path / "untrained", CPU
    )
    assert held_out_loss(wanted, whole, prepared, CPU) < 0.85 * held_out_loss(wanted, untrained, prepared, CPU)
    # Stopped after 30 of its steps (a checkpoint) and at 37 (lost), it ends with the same weights.
    cut = tmp_path / "cut"
    cut.mkdir()

    def stop(stage: str, done: int, total: int, counts: object) -> None:
        if done == 37:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        train_generator(wanted, prepared.train, shape, cut, CPU, stop)
    resumed = train_generator(wanted, prepared.train, shape, cut, CPU)
    assert resumed.losses == pytest.approx(whole.losses, abs=1e-6)
    for name, tensor in whole.model.state_dict().items():
        assert torch.equal(tensor, resumed.model.state_dict()[name]), name


def test_samples_are_kept_and_the_same_again(folder: Path, vae_folder: Path, tmp_path: Path) -> None:
    wanted = recipe(folder, vae_folder, steps=3)
    autoencoder = open_autoencoder(vae_folder, CPU, 32)
    prepared = prepare(wanted, autoencoder, tmp_path, silent)
    trained = train_generator(wanted, prepared.train, (6, 8, 8), tmp_path, CPU)
    for sampler in wanted.samplers:
        files = draw_samples(wanted, trained, prepared, sampler, tmp_path, CPU)
        contents = [path.read_bytes() for path in files]
        assert [len(read_samples(path)) for path in files] == [4, 4, 2]
        assert read_samples(files[0]).shape == (4, 6, 8, 8)
        files[1].unlink()
        again = draw_samples(wanted, trained, prepared, sampler, tmp_path, CPU)
        assert [path.read_bytes() for path in again] == contents


def test_a_device_that_is_not_there_is_one_sentence() -> None:
    assert pick_device("cpu") == CPU
    if not torch.cuda.is_available():
        assert pick_device("auto") == CPU
        with pytest.raises(BadInput, match="no CUDA device"):
            pick_device("cuda")


def test_an_autoencoder_needs_flat_latents(vae_folder: Path) -> None:
    class Video(torch.nn.Module):
        def encode(self, x: torch.Tensor) -> object:
            return type("Encoded", (), {"latent": x[:, :, None]})

    with pytest.raises(BadInput, match="no \\(B, C, h, w\\)"):
        Autoencoder(Video(), CPU, 32)


def test_the_inception_score_of_known_classes() -> None:
    sure = np.full((40, 4), -50.0)
    sure[np.arange(40), np.arange(40) % 4] = 50.0
    assert inception_score(sure, 1)[0] == pytest.approx(4)  # four classes, equally often, each beyond doubt
    assert inception_score(np.tile([3.0, 1, 0, 0], (40, 1)), 1)[0] == pytest.approx(1)  # always the same guess
    assert inception_score(sure + 7, 2) == (pytest.approx(4), pytest.approx(0))


def test_the_probe_from_pictures_to_pages(
    folder: Path, vae_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    config = recipe(folder, vae_folder, steps=6, checkpoint_every=3).model_dump(mode="json")
    path = tmp_path / "mine.yaml"
    path.write_text(yaml.safe_dump(config))
    out = tmp_path / "out"
    said = glyphmill_says(capsys, "probe", str(path), "--out", str(out), "--device", "cpu")
    assert "not measured" in said
    report = json.loads((out / "report.json").read_text())
    assert report["vae"]["class"] == "GSCAutoencoder"
    assert (report["vae"]["channels"], report["vae"]["compression"], report["vae"]["tokens"]) == (6, 4, 64)
    assert report["pictures"]["train"] + report["pictures"]["held_out"] == 24
    assert report["pictures"]["left_out"] == 1
    of_heun = [int(line.split("|")[2]) for line in said.splitlines() if "heun" in line]
    assert of_heun == [10, report["pictures"]["held_out"]]
    assert report["generation"]["samplers"]["heun"]["fid"] is None
    assert "--inception" in report["generation"]["note"]
    assert report["proxies"]["knn"]["commonest_class"] < 1
    html = (out / "report.html").read_text()
    assert WHAT_IT_IS_NOT.split(".")[0] in html
    assert html.count("data:image/webp") == 4  # two samplers, held out, reconstructed
    # With Inception weights later: nothing is trained or drawn again, FID and IS appear.
    made = {file: file.stat().st_mtime_ns for file in out.rglob("*.safetensors")}
    monkeypatch.setattr(probe_module, "open_inception", lambda weights, device: colours)
    said = glyphmill_says(
        capsys, "probe", str(path), "--out", str(out), "--device", "cpu", "--inception", "weights.pth"
    )
    assert {file: file.stat().st_mtime_ns for file in out.rglob("*.safetensors")} == made
    again = json.loads((out / "report.json").read_text())
    assert again["training"]["held_out_loss"] == report["training"]["held_out_loss"]
    values = again["generation"]
    assert values["samplers"]["heun"]["fid"] > values["floors"]["reconstructed"]["fid"] >= 0
    assert values["samplers"]["sde"]["inception_score"]["splits"] == 1
    assert "not measured" not in said
    path.write_text(yaml.safe_dump(config | {"seed": 5}))
    assert "another recipe" in glyphmill_fails(capsys, "probe", str(path), "--out", str(out), "--device", "cpu")


def colours(pictures_BHW3: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """In place of Inception: mean and spread of the colours as features, the mean as logits."""
    flat = pictures_BHW3.reshape(len(pictures_BHW3), -1, 3).astype(np.float64) / 255
    return np.concatenate([flat.mean(1), flat.std(1)], axis=1), 4 * flat.mean(1)


def test_inception_sees_pictures_as_fid_does_and_gives_logits_without_bias(tmp_path: Path) -> None:
    torch.manual_seed(0)
    inception = InceptionV3()
    torch.save(inception.state_dict(), tmp_path / "weights.pth")
    pictures = np.random.default_rng(0).integers(0, 256, (2, 40, 40, 3), np.uint8)
    features, logits = probe_measure.open_inception(tmp_path / "weights.pth", CPU)(pictures)
    direct = inception(torch.from_numpy(pictures).permute(0, 3, 1, 2).float() / 255)
    assert features == pytest.approx(direct.numpy(), abs=1e-4)
    assert logits == pytest.approx((inception.fc(direct) - inception.fc.bias).detach().numpy(), abs=1e-4)
    assert logits.shape == (2, 1008)


@pytest.mark.gpu
def test_a_generator_learns_on_a_gpu(folder: Path, vae_folder: Path, tmp_path: Path) -> None:
    wanted, cuda = recipe(folder, vae_folder), torch.device("cuda")
    prepared = prepare(wanted, open_autoencoder(vae_folder, cuda, 32), tmp_path, silent)
    trained = train_generator(wanted, prepared.train, (6, 8, 8), tmp_path, cuda)
    assert np.mean(trained.losses[-10:]) < 1.5
    for sampler in wanted.samplers:
        files = draw_samples(wanted, trained, prepared, sampler, tmp_path, cuda)
        assert all(bool(torch.isfinite(read_samples(path)).all()) for path in files)
    # One step of the run that goes on from its checkpoint.
    longer = wanted.model_copy(update={"steps": wanted.steps + 1})
    assert len(train_generator(longer, prepared.train, (6, 8, 8), tmp_path, cuda).losses) == wanted.steps + 1


def test_what_does_not_fit_is_one_sentence(
    folder: Path, vae_folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path, out = tmp_path / "mine.yaml", str(tmp_path / "out")
    path.write_text(yaml.safe_dump(recipe(folder, vae_folder, hold_out=24).model_dump(mode="json")))
    assert "nothing is left to train on" in glyphmill_fails(capsys, "probe", str(path), "--out", out, "--device", "cpu")
    words = ("probe", str(path), f"vae={tmp_path}", "--out", out + "2", "--device", "cpu")
    assert "holds no model" in glyphmill_fails(capsys, *words)
    words = ("probe", str(path), "--out", out + "3", "--device", "cpu", "--inception", str(tmp_path / "none"))
    assert "weights of the Inception network are missing" in glyphmill_fails(capsys, *words)
    assert "unknown key 'samplez'" in glyphmill_fails(capsys, "probe", str(path), "samplez=3", "--out", out)
