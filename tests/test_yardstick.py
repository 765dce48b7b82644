"""Linear maps as yardsticks: bases from shards as files, and what a bare skip keeps of pictures."""

from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from sklearn.decomposition import PCA
from typer.testing import CliRunner
from vae_runs import SMALL as DCT
from vae_runs import stripes, write_run

from fonts_manifest.errors import BadInput
from vae.basis import BasisFacts, load_basis, save_basis
from vae.batch import to_unit_range
from vae.cli import app
from vae.codecs import LinearCodec, open_codec
from vae.family import build_model
from vae.skip import Basis, CellMoments, LinearSkip, cells_of
from vae.yardstick import bare_skip_psnr_db, fit_basis, read_pictures

SMALL = DCT.model_copy(update={"skip": "gsc_both", "skip_basis": "pca"})


def test_moments_of_parts_are_those_of_the_whole() -> None:
    cells = np.random.default_rng(0).normal(size=(5000, 6)).astype(np.float32) * [1, 2, 3, 4, 5, 6] + 3
    moments = CellMoments(6)
    for part in np.array_split(cells, [1, 700, 4900]):
        moments.add(part.astype(np.float32))
    oracle = PCA(3, svd_solver="full").fit(cells)
    basis = moments.components(3)
    np.testing.assert_allclose(np.abs((basis.rows_CD * oracle.components_).sum(1)), 1, atol=1e-6)
    np.testing.assert_allclose(basis.scales_C**2, oracle.explained_variance_ * 4999 / 5000, rtol=1e-5)
    assert moments.variance == pytest.approx(cells.var(axis=0).sum(), rel=1e-6)
    with pytest.raises(ValueError, match="7 components need as many cells of as many numbers at least, got 5000 of 6"):
        moments.components(7)


def test_a_basis_of_shards_is_the_one_of_their_pictures(tmp_path: Path) -> None:
    run = write_run(tmp_path / "run", stripes(40))
    basis, facts = fit_basis([str(run)], 4, 16)
    again, _ = fit_basis([str(run)], 4, 16)
    assert basis.rows_CD.tobytes() == again.rows_CD.tobytes()
    assert facts.cells == 30 * 48
    whole = LinearSkip(4, 16, "pca")
    whole.fit(to_unit_range(np.stack(stripes(40))))
    sampled = LinearSkip(4, 16, "pca")
    sampled.use(basis)
    pictures = to_unit_range(np.stack(stripes(40)))
    errors = [
        float((skip.decode(skip.encode(pictures)) - pictures).square().mean())
        for skip in (whole, sampled, LinearSkip(4, 16, "dct"))
    ]
    assert errors[0] < errors[1] < 1.07 * errors[0] < errors[2]
    assert 0.9 < facts.explained < 1
    with pytest.raises(BadInput, match="too little for a PCA"):
        fit_basis([str(run)], 4, 16, cells=8)


def test_models_and_codecs_take_a_basis_file(tmp_path: Path) -> None:
    run, file = write_run(tmp_path / "run", stripes(40)), tmp_path / "new" / "basis.safetensors"
    basis, facts = fit_basis([str(run)], 4, 16)
    save_basis(basis, facts, file)
    model = build_model(SMALL.model_copy(update={"basis_file": str(file)}))
    assert model.linear_skip is not None
    assert torch.equal(model.linear_skip.basis, torch.from_numpy(basis.rows_CD[:12]))
    assert all(torch.equal(skip.basis[:12], model.linear_skip.basis) for skip in model.skips)
    pictures = np.stack(stripes(2))
    bare = model.linear_skip.decode(model.linear_skip.encode(to_unit_range(pictures)))
    codec = open_codec(LinearCodec(kind="linear", name="pca", basis="pca", factor=4, channels=12, basis_file=file))
    from_codec = codec.reconstruct(pictures)
    assert np.abs(from_codec - bare.add(1).mul(127.5).round().clamp(0, 255).permute(0, 2, 3, 1).numpy()).max() <= 1


def test_another_basis_is_refused_with_its_shape(tmp_path: Path) -> None:
    file = tmp_path / "basis.safetensors"
    rows = np.eye(5, 48, dtype=np.float32)
    save_basis(
        Basis(rows, np.ones(5, np.float32), np.zeros(48, np.float32)), BasisFacts(factor=4, cells=9, explained=1), file
    )
    with pytest.raises(BadInput, match=r"12 rows for cells of 4x4 px are needed, it has 5 of 48 numbers"):
        load_basis(file, 4, 12)
    with pytest.raises(BadInput, match="cells of 8x8 px are needed"):
        load_basis(file, 8, 4)
    file.write_bytes(b"text")
    with pytest.raises(BadInput, match="cannot be read as a basis"):
        load_basis(file, 4, 4)
    with pytest.raises(BadInput, match="cannot be read as a basis"):
        load_basis(tmp_path / "none", 4, 4)
    with pytest.raises(BadInput, match="basis_file is for skip_basis pca, this model has dct"):
        build_model(SMALL.model_copy(update={"basis_file": str(file), "skip_basis": "dct"}))


def test_the_bare_skip_is_measured_as_psnr_of_its_pictures() -> None:
    pictures = stripes(16, side=70)
    found = bare_skip_psnr_db(4, 12, pictures)
    skip = LinearSkip(4, 12, "mean")
    by_hand = []
    for picture in pictures:
        x = to_unit_range(picture[None, :68, :68])
        error = (skip.decode(skip.encode(x)).clamp(-1, 1) - x).mul(127.5).square().mean()
        by_hand.append(10 * np.log10(255**2 / float(error)))
    assert found["mean"] == pytest.approx(np.mean(by_hand), abs=0.01)
    assert None not in found.values()
    assert found["pca"] > found["dct"] > found["mean"]  # type: ignore[operator]
    assert bare_skip_psnr_db(4, 12, pictures[:1])["pca"] is None
    assert bare_skip_psnr_db(4, 48, pictures)["dct"] == pytest.approx(100)
    fitted = LinearSkip(4, 12, "pca")
    fitted.fit(torch.cat([to_unit_range(picture[None, :68, :68]) for picture in pictures]))
    basis = Basis(fitted.basis.numpy(), fitted.scale.numpy(), fitted.centre.numpy())
    assert bare_skip_psnr_db(4, 12, pictures, basis)["pca"] >= found["pca"]  # type: ignore[operator]
    assert cells_of(to_unit_range(pictures[0][None, :68, :68]), 4).shape == (17 * 17, 48)


def test_the_verbs_make_and_measure_a_basis(tmp_path: Path) -> None:
    pictures, out = tmp_path / "pictures", tmp_path / "b.safetensors"
    pictures.mkdir()
    for number, picture in enumerate(stripes(4, side=64)):
        Image.fromarray(picture).save(pictures / f"{number}.png")
    run = write_run(tmp_path / "run", stripes(60))
    runner = CliRunner()
    made = runner.invoke(app, ["model", "fit-basis", str(run), "--model", "f16c64", "--out", str(out)])
    assert made.exit_code == 0, made.output
    assert "64 components of" in made.stdout
    measured = runner.invoke(app, ["model", "f16c64", "--images", str(pictures), "--basis", str(out)])
    assert measured.exit_code == 0, measured.output
    lines = dict(line.rsplit(maxsplit=1) for line in measured.stdout.splitlines())
    assert float(lines["bare_skip_psnr_db pca"]) > float(lines["bare_skip_psnr_db mean"])
    assert lines["encoder_params"] == "75,536,192"
    with pytest.raises(BadInput, match="no picture found"):
        read_pictures([str(run)])
