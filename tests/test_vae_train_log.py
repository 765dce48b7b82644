"""What a training run says of itself: the log by source, events, trackers, its report."""

import io
import json
import sys
import types
from pathlib import Path
from typing import Any

import accelerate.tracking
import numpy as np
import pytest
import torch
from PIL import Image
from train_runs import HASH, recipe
from vae_runs import stripes, write_run

import vae.guard
import vae.train
from fonts_manifest.errors import BadInput
from vae.feed import open_source
from vae.logs import read_metrics, read_report
from vae.recipes import MachineConfig
from vae.source import SourceConfig, held_out_pictures
from vae.train import train


def test_the_output_says_what_made_it(run: Path, tmp_path: Path) -> None:
    calls: list[tuple[object, ...]] = []
    train(recipe(run, steps=2), HASH, tmp_path, recipe_yaml="kind: train", progress=lambda *call: calls.append(call))
    assert (tmp_path / "recipe.yaml").read_text() == "kind: train"
    assert json.loads((tmp_path / "versions.json").read_text())["torch"] == torch.__version__
    assert [call[:3] for call in calls] == [("train", 1, 2), ("train", 2, 2)]


def test_the_log_tells_sources_apart(run: Path, tmp_path: Path) -> None:
    other = write_run(tmp_path / "other", stripes(20, 48, seed=5), origins=[f"p{i}" for i in range(20)])
    sources = (
        SourceConfig(name="stripes", run=str(run), weights=((0, 3.0),)),
        SourceConfig(name="other", run=str(other)),
    )
    train(recipe(run, sources=sources, steps=4), HASH, tmp_path / "out")
    record = read_metrics(tmp_path / "out")[1]
    assert {name: count for name, (count, _) in record["by_source"].items()} == {"stripes": 3, "other": 1}
    mean = sum(count * loss for count, loss in record["by_source"].values()) / 4
    assert mean == pytest.approx(record["loss"], rel=1e-4)
    assert record["terms"] == {"mse": pytest.approx(record["loss"], rel=1e-5)}
    assert list((tmp_path / "out/tensorboard").glob("events.out.tfevents.*"))


def test_events_hold_curves_and_pictures(run: Path, whole: Path) -> None:
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    events = EventAccumulator(str(whole / "tensorboard"), size_guidance={"images": 0})
    events.Reload()
    tags = events.Tags()
    expected = ["train/loss", "train/grad_norm", "terms/mse", "terms_by_source/stripes/mse", "share_realised/stripes"]
    expected += ["speed/images_per_s", "speed/data_wait_share", "validation_psnr_db/stripes", "validation_ssim/stripes"]
    assert set(expected) <= set(tags["scalars"])
    assert [event.step for event in events.Images("original_above_reconstruction/stripes")] == [0, 10, 20, 30]
    assert events.Images("original_above_reconstruction/stripes")[0].height == 96
    assert [event.value for event in events.Scalars("share_realised/stripes")] == [1.0] * 30
    records = [record for record in read_metrics(whole) if record["kind"] == "step"]
    logged = {
        "train/loss": [record["loss"] for record in records],
        "train/lr": [record["lr"] for record in records],
        "train/grad_norm": [record["grad_norm"] for record in records],
        "terms_by_source/stripes/mse": [record["terms_by_source"]["stripes"]["mse"] for record in records],
    }
    for tag, values in logged.items():
        assert [event.step for event in events.Scalars(tag)] == list(range(30)), tag
        assert [event.value for event in events.Scalars(tag)] == pytest.approx(values, rel=1e-6), tag
    waited = [event.value for event in events.Scalars("speed/data_wait_share")]
    seconds, data = (sum(record[name] for record in records) for name in ("seconds", "data_seconds"))
    assert waited[-1] == pytest.approx(data / seconds, rel=1e-3)
    speed = events.Scalars("speed/images_per_s")[-1].value
    assert speed == pytest.approx(sum(record["pictures"] for record in records) / seconds, rel=1e-3)
    # Above the pictures as they were held out, below what the weights of that step make of them.
    first, last = (
        np.asarray(
            Image.open(io.BytesIO(events.Images("original_above_reconstruction/stripes")[i].encoded_image_string))
        )
        for i in (0, -1)
    )
    source = open_source(SourceConfig(name="stripes", run=str(run)), 32, 0.2)
    originals = np.concatenate([picture for _, picture in held_out_pictures(source, 4, 48)], axis=1)
    assert np.array_equal(first[:48], originals)
    assert np.array_equal(last[:48], originals)
    error = [np.square(sheet[48:].astype(float) - originals).mean() for sheet in (first, last)]
    assert error[1] < error[0]


def test_other_trackers_come_through_accelerate(run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("wandb", "trackio"):
        with pytest.raises(BadInput, match=rf"machine\.trackers: {name} is not installed"):
            train(recipe(run, steps=1, machine=MachineConfig(trackers=(name,))), HASH, tmp_path / "none")  # type: ignore[arg-type]
    seen: list[tuple[str, object]] = []
    run_of = types.SimpleNamespace(
        log=lambda values, step: seen.append(("log", values)), finish=lambda: seen.append(("finish", None))
    )
    settings = types.SimpleNamespace(update=lambda values, allow_val_change: seen.append(("settings", values)))
    trackio = types.SimpleNamespace(init=lambda project: run_of, config=settings)
    monkeypatch.setitem(sys.modules, "trackio", trackio)
    monkeypatch.setattr(accelerate.tracking, "get_available_trackers", lambda: ["trackio"])
    train(recipe(run, steps=1, machine=MachineConfig(trackers=("trackio",))), HASH, tmp_path / "out")
    assert [kind for kind, _ in seen] == ["settings", "log", "log", "log", "finish"]
    assert seen[0][1]["steps"] == 1  # type: ignore[index]
    assert "validation_psnr_db/stripes" in seen[1][1]  # type: ignore[operator]
    assert "train/loss" in seen[2][1]  # type: ignore[operator]


def test_text_is_read_at_a_validation(run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    class Reader:
        def read_page(self, image_HW3: np.ndarray) -> list[Any]:
            word = "abcdefgh"[: 6 + int(image_HW3.mean()) % 2]
            return [types.SimpleNamespace(text=word)]

    monkeypatch.setattr(vae.train, "open_recognizer", lambda name, threads: Reader())
    train(recipe(run, steps=1, validate_read=2), HASH, tmp_path / "out")
    ends = [r["ned"]["stripes"] for r in read_metrics(tmp_path / "out") if r["kind"] == "validation"]
    assert len(ends) == 2
    assert all(6 / 7 <= ned <= 1 for ned in ends)
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    events = EventAccumulator(str(tmp_path / "out/tensorboard"))
    events.Reload()
    assert [event.value for event in events.Scalars("validation_ned/stripes")] == pytest.approx(ends)


def test_a_damaged_report_is_named(tmp_path: Path) -> None:
    (tmp_path / "report.json").write_text("{")
    with pytest.raises(BadInput, match=r"report\.json: is no report"):
        read_report(tmp_path)


def test_figures_in_the_log_are_numbers_of_finished_pictures(whole: Path) -> None:
    report = read_report(whole)
    assert report is not None
    assert report.sources["stripes"]["train"] + report.sources["stripes"]["held_out"] == 40
    assert 0 < report.data_seconds < report.seconds
    first, *others = [record for record in read_metrics(whole) if record["kind"] == "step"]
    assert report.first_data_seconds == pytest.approx(first["data_seconds"], abs=1e-3)
    waited = sum(record["data_seconds"] for record in others)
    used = sum(record["seconds"] - record["data_seconds"] for record in (first, *others))
    assert report.data_wait_share == pytest.approx(waited / (waited + used), abs=2e-3 / used)
    assert np.isfinite(list(report.psnr_end_db.values())).all()
