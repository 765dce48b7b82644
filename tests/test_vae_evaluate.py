"""Evaluation: codecs of one interface, figures with their spread."""

import json
from dataclasses import asdict
from pathlib import Path

import numpy as np
import pytest
import torch
from vae_runs import SMALL, stripes

from datagen.ocr import PageLine
from fonts_manifest.errors import BadInput
from vae.batch import to_unit_range
from vae.bootstrap import bootstrap
from vae.evaluate import Row, bare_skip, evaluate, network, reconstruct
from vae.family import build_model
from vae.saved import load_model
from vae.skip import LinearSkip

PICTURES = np.stack(stripes(6, side=32))


class Reader:
    """Finds the brightness of the picture, as that many letters; nothing on dark ones."""

    name = "brightness"

    def read_page(self, image_HW3: np.ndarray, order: str = "mended") -> list[PageLine]:
        return [PageLine(text="a" * int(image_HW3.mean() / 10), score=1.0, quad_px=(0.0,) * 8)]


def test_gains_are_measured_picture_by_picture() -> None:
    codecs = {
        "noisy": lambda x: x + 0.1,
        "same": lambda x: x,
        "noisier": lambda x: x + 0.2,
    }
    grey = np.full((3, 32, 32, 3), 100, np.uint8)
    rows = {row.codec: row for row in evaluate(codecs, {"grey": grey}, baseline="noisy")}
    # 0.1 of the range [-1, 1] is 12.75 levels, written as 13: 20 log10(255 / 13).
    assert rows["noisy"].psnr_db.mean == pytest.approx(20 * np.log10(255 / 13), abs=1e-4)
    assert rows["noisier"].gain_db is not None
    assert rows["noisier"].gain_db.mean == pytest.approx(20 * np.log10(13 / 26), abs=0.35)
    assert rows["noisy"].gain_db is not None
    assert (rows["noisy"].gain_db.low, rows["noisy"].gain_db.high) == (0.0, 0.0)
    assert rows["same"].psnr_db.mean == 100
    assert rows["same"].ssim.mean == pytest.approx(1)
    assert rows["same"].ned is None


def test_text_is_read_on_pictures_that_have_some() -> None:
    dark, bright = np.zeros((2, 16, 16, 3), np.uint8), np.full((3, 16, 16, 3), 100, np.uint8)
    calls = []
    rows = evaluate(
        {"darker": lambda x: x - 2 * 20 / 255},
        {"mixed": np.concatenate([dark, bright]), "dark": dark},
        recognizer=Reader(),  # type: ignore[arg-type]
        read_at_most=4,
        advance=lambda: calls.append(1),
    )
    # Two dark originals have no text; of the three bright ones the fourth and fifth picture, one is beyond the limit.
    assert rows[0].ned is not None
    assert rows[0].ned.pictures == 2
    assert rows[0].ned.mean == pytest.approx(0.8)
    assert rows[1].ned is None
    assert [Row.from_dict(json.loads(json.dumps(asdict(row)))) for row in rows] == rows
    assert len(calls) == 2


def test_the_bare_skip_is_the_model_without_its_network() -> None:
    torch.manual_seed(0)
    model = build_model(SMALL)
    skip = LinearSkip(4, 12, "dct")
    x = to_unit_range(PICTURES)
    torch.testing.assert_close(bare_skip(model)(x), skip.decode(skip.encode(x)))
    # Untrained, the whole model is the bare skip to a fraction of a level.
    difference = reconstruct(network(model), PICTURES).astype(int) - reconstruct(bare_skip(model), PICTURES)
    assert np.abs(difference).max() <= 2
    nsc = build_model(SMALL.model_copy(update={"skip": "nsc", "decoder_mirror": False}))
    mean = LinearSkip(4, 12, "mean")
    torch.testing.assert_close(bare_skip(nsc)(x), mean.decode(mean.encode(x)))


def test_a_pca_of_the_pictures_beats_the_dct_on_them() -> None:
    dct, pca = LinearSkip(4, 12, "dct"), LinearSkip(4, 12, "pca")
    pca.fit(to_unit_range(PICTURES))
    rows = evaluate(
        {"dct": lambda x: dct.decode(dct.encode(x)), "pca": lambda x: pca.decode(pca.encode(x))},
        {"stripes": PICTURES},
        baseline="dct",
    )
    assert rows[1].gain_db is not None
    assert rows[1].gain_db.low > 0
    assert rows[1].gain_db.mean > 1


def test_reconstructions_are_those_of_single_pictures() -> None:
    model = build_model(SMALL)
    whole = reconstruct(network(model), PICTURES)
    assert whole.shape == PICTURES.shape
    assert whole.dtype == np.uint8
    one = reconstruct(network(model), PICTURES[5:])
    assert np.abs(whole[5:].astype(int) - one).max() <= 1


def test_bootstrap_intervals_are_as_wide_as_theory_says() -> None:
    values = np.random.default_rng(0).normal(5, 2, 400)
    figure = bootstrap(values)
    assert figure.pictures == 400
    assert figure.mean == pytest.approx(values.mean())
    # 1.96 standard errors on either side.
    assert (figure.high - figure.low) / 2 == pytest.approx(1.96 * values.std() / 20, rel=0.1)
    assert bootstrap(values) == figure


def test_bad_requests_are_refused(tmp_path: Path) -> None:
    with pytest.raises(BadInput, match="the set nothing has no pictures"):
        evaluate({"same": lambda x: x}, {"nothing": PICTURES[:0]})
    with pytest.raises(BadInput, match="the baseline 'dct' is none of the codecs: same"):
        evaluate({"same": lambda x: x}, {"stripes": PICTURES}, baseline="dct")
    with pytest.raises(BadInput, match="holds no model"):
        load_model(tmp_path)
    (tmp_path / "config.json").write_text("{}")
    (tmp_path / "diffusion_pytorch_model.safetensors").write_bytes(b"")
    with pytest.raises(BadInput, match="the model cannot be read"):
        load_model(tmp_path)


def test_a_model_is_loaded_to_reconstruct_the_same(tmp_path: Path) -> None:
    model = build_model(SMALL)
    model.save_pretrained(tmp_path)
    back = load_model(tmp_path)
    assert not back.training
    np.testing.assert_array_equal(reconstruct(network(back), PICTURES), reconstruct(network(model), PICTURES))
