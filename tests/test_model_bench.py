"""The bench of the autoencoders: who takes part, that plain and fast forms are one model, what stands in the table."""

import json
from dataclasses import replace

import pytest
import torch
from typer.testing import CliRunner

from fonts_manifest.errors import BadInput
from vae import model_bench
from vae.cli import app
from vae.facts import tflop
from vae.family import build_model, model_config
from vae.model_bench import BenchChoice, bench_vae, write_out

TINY = BenchChoice(
    models=("demo_f16c64",), sizes_px=(32,), shrink=4, megapixels=2 * 32 * 32 / 1e6, rounds=1, compiled=False
)


def test_the_plain_form_is_the_same_model() -> None:
    torch.manual_seed(0)
    model = build_model(model_config("demo_f16c64")).eval()
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(torch.randn_like(parameter) * 0.05)
        x = torch.rand(1, 3, 32, 48) * 2 - 1
        fast, fast_tflop = model(x).sample, tflop(model.decode, torch.zeros(1, 64, 2, 3))
        plain = write_out(model)
        torch.testing.assert_close(plain(x).sample, fast, atol=1e-5, rtol=1e-5)
        assert tflop(plain.decode, torch.zeros(1, 64, 2, 3)) > 1.2 * fast_tflop  # type: ignore[operator, arg-type]


def test_the_others_are_of_the_published_size() -> None:
    with torch.device("meta"):
        found = dict(model_bench._contestants(replace(TINY, shrink=1)))
    millions = {
        name: tuple(
            round(sum(p.numel() for p in part.parameters()) / 1e6, 1) for part in (model.encoder, model.decoder)
        )
        for name, model in found.items()
        if name in (model_bench.FLUX, model_bench.DC_AE)
    }
    assert millions == {model_bench.FLUX: (34.3, 49.5), model_bench.DC_AE: (153.0, 159.2)}


def test_ratios_are_those_of_the_speeds_beside_them() -> None:
    report = json.loads(json.dumps(bench_vae(TINY, torch.device("cpu"))))
    by_name = {one["name"]: one for one in report["figures"]}
    assert list(by_name) == ["demo_f16c64", "demo_f16c64 plain", model_bench.FLUX, model_bench.DC_AE]
    flux = by_name[model_bench.FLUX]
    for one in by_name.values():
        assert one["batch"] == 2
        assert one["saved_gib_per_image"] > 0
        for what in ("encode", "decode", "train"):
            speed = f"{what}_images_per_s"
            assert one["over_flux"][what] == pytest.approx(one[speed] / flux[speed])
        assert one["encode_tflop_per_s"] == pytest.approx(one["encode_images_per_s"] * one["encode_tflop"])
    assert by_name["demo_f16c64"]["saved_gib_per_image"] < 0.7 * by_name["demo_f16c64 plain"]["saved_gib_per_image"]
    assert report["matrix_tflop_per_s"] > 0


def test_a_batch_is_halved_until_memory_suffices(monkeypatch: pytest.MonkeyPatch) -> None:
    encode = model_bench._Entrant._encode

    def small_memory(self: model_bench._Entrant, images: torch.Tensor) -> torch.Tensor:
        if len(images) > 2:
            raise torch.OutOfMemoryError("CUDA out of memory")
        return encode(self, images)

    monkeypatch.setattr(model_bench._Entrant, "_encode", small_memory)
    report = bench_vae(replace(TINY, megapixels=9 * 32 * 32 / 1e6), torch.device("cpu"))
    assert {one["batch"] for one in report["figures"]} == {2}


def test_the_verb_says_what_it_cannot_do() -> None:
    with pytest.raises(BadInput, match="multiples of 32 px for all to take them, got 40"):
        bench_vae(replace(TINY, sizes_px=(40,)), torch.device("cpu"))
    with pytest.raises(BadInput, match="divide by 1, 2 or 4, got 8"):
        bench_vae(replace(TINY, shrink=8), torch.device("cpu"))
    result = CliRunner().invoke(app, ["model", "f8c4"])
    assert isinstance(result.exception, BadInput)
    empty = {"device": "cpu", "arithmetic": "float32", "torch": "2", "matrix_tflop_per_s": 0.1, "figures": []}
    assert "all widths divided by 4" in model_bench.bench_table(empty | {"widths_divided_by": 4})[0]
