"""`glyphmill eval` against the public script's metrics, and what it says of everything that is not as it should be."""

import csv
import json
import os
from pathlib import Path

import numpy as np
import oracles
import pytest
import torch
from eval_folders import noise, save, score, two_texts
from PIL import Image
from rapidfuzz.distance import Levenshtein
from test_house import glyphmill_fails, glyphmill_says
from test_ocr_read import WORDS, draw_lines
from test_vae_fid import random_inception
from torch import nn

from datagen import reading
from datagen.reading import ReaderChoice
from fonts_manifest.errors import BadInput
from vae import score_bench
from vae.labels import groups_of
from vae.pairs import pair_folders
from vae.perceptual import VGG16Features
from vae.pixels import PixelChoice

# The metrics of the public benchmark's script, pair by pair, as it calls them.
PUBLIC_SCRIPT = """
import sys, json, warnings, numpy, torch
from pathlib import Path
from PIL import Image
from torchvision.transforms.functional import to_tensor
from piq import psnr, ssim
for name in ("normal_", "kaiming_normal_", "kaiming_uniform_", "trunc_normal_"):
    setattr(torch.nn.init, name, lambda tensor, *a, **k: tensor)
import lpips
from pytorch_fid import fid_score, inception
warnings.simplefilter("ignore")
gt, recon, vgg, weights = sys.argv[1:5]
metric = lpips.LPIPS(net="vgg", pnet_rand=True, verbose=False)
known = torch.load(vgg, weights_only=True)
for stage in (metric.net.slice1, metric.net.slice2, metric.net.slice3, metric.net.slice4, metric.net.slice5):
    stage.load_state_dict({name: known["features." + name] for name in stage.state_dict()})
inception.load_state_dict_from_url = lambda *a, **k: torch.load(weights, weights_only=True)
rows = []
with torch.no_grad():
    for path in sorted(Path(gt).iterdir()):
        a, b = (to_tensor(Image.open(p).convert("RGB"))[None] for p in (path, Path(recon) / path.name))
        values = psnr(b, a, data_range=1.0), ssim(b, a, data_range=1.0, downsample=False), metric(b * 2 - 1, a * 2 - 1)
        rows.append([value.item() for value in values])
sys.stdout.write(json.dumps([rows, fid_score.calculate_fid_given_paths([gt, recon], 2, "cpu", 2048, 0)]))
"""


@pytest.fixture
def fake_reader(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    """Readings come from the pictures' text chunks; the log of what was read."""
    monkeypatch.setattr(reading, "WORKER", "eval_worker")
    monkeypatch.setenv("EVAL_WORKER_LOG", str(tmp_path / "read.log"))
    return tmp_path / "read.log"


def test_pixel_metrics_are_those_of_the_public_script(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    for number, sigma in enumerate((0, 2, 12, 60)):
        page = draw_lines([" ".join(WORDS[number : number + 3])] * 2, 9, 14, (96, 64))
        save(tmp_path / "gt" / f"{number}.png", page)
        damaged = np.clip(page + rng.normal(0, sigma, page.shape), 0, 255).round().astype(np.uint8)
        save(tmp_path / "recon" / f"{number}.png", damaged)
    with torch.random.fork_rng():
        torch.manual_seed(0)
        vgg = VGG16Features()
        for layer in vgg.features:
            if isinstance(layer, nn.Conv2d):
                nn.init.kaiming_normal_(layer.weight)
    weights = PixelChoice(vgg_weights=str(tmp_path / "vgg.pth"), inception_weights=str(tmp_path / "inception.pth"))
    torch.save(vgg.state_dict(), tmp_path / "vgg.pth")
    torch.save(random_inception().state_dict(), tmp_path / "inception.pth")
    folders = [str(tmp_path / name) for name in ("gt", "recon", "vgg.pth", "inception.pth")]
    rows, fid = json.loads(oracles.ask(PUBLIC_SCRIPT, *folders).splitlines()[-1])
    report = score(tmp_path, pixels=weights, batch=3)
    found = [[pair.psnr_db, pair.ssim, pair.lpips] for pair in report.pairs]
    np.testing.assert_allclose([row[:2] for row in found], [row[:2] for row in rows], rtol=0, atol=1e-4)
    lpips = np.array(rows)[:, 2]
    assert lpips.max() > 1e-3
    np.testing.assert_allclose([row[2] for row in found], lpips, rtol=1e-4, atol=1e-7)
    assert found[0] == [pytest.approx(80), pytest.approx(1), pytest.approx(0)]  # piq's ceiling, not infinity
    assert report.results["FID"] == pytest.approx(fid, rel=1e-4)
    means = np.mean(rows, axis=0)
    for name, mean in zip(("PSNR", "SSIM", "LPIPS"), means, strict=True):
        assert report.results[name] == pytest.approx(mean, abs=1e-4)
    assert any("1 pairs are equal to the last bit; each counts as 80 dB" in note for note in report.notes)


def test_ned_is_levenshtein_over_the_library_s_own_text(tmp_path: Path) -> None:
    from rapidocr import RapidOCR

    library = RapidOCR(params={"Global.log_level": "critical", "Global.text_score": 0.0, "Global.use_cls": False})
    page = draw_lines([" ".join(WORDS[:4]), " ".join(WORDS[4:8])], 11, 16, (200, 48))
    damaged = np.clip(page + np.random.default_rng(0).normal(0, 70, page.shape), 0, 255).astype(np.uint8)
    save(tmp_path / "gt" / "a.png", page)
    save(tmp_path / "recon" / "a.png", damaged)
    truth, read = ("".join(library(np.ascontiguousarray(image[:, :, ::-1])).txts or ()) for image in (page, damaged))
    expected = 1 - Levenshtein.distance(truth, read) / max(len(truth), len(read))
    report = score(tmp_path, "ned")
    assert truth != read
    assert report.pairs[0].ned == expected
    assert report.results["NED"] == round(expected, 4)
    details = json.loads((tmp_path / "out" / "ned_details.json").read_text())
    assert details["details"] == [
        {
            "file": "a.png",
            "gt_text": truth,
            "rec_text": read,
            "ned": round(expected, 4),
            "ned_mended": round(expected, 4),
        }
    ]
    assert (details["avg_ned"], details["total_samples"], details["valid_samples"]) == (round(expected, 4), 1, 1)


def test_the_mended_order_stands_beside_the_library_s(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def line(text: str, x: float, y: float) -> reading.PageLine:
        return reading.PageLine(text=text, score=1.0, quad_px=(x, y, x + 50, y, x + 50, y + 8, x, y + 8))

    shuffled = reading.PageReading(reader="r", lines=(line("second", 0, 9), line("first", 5, 0)))
    straight = reading.PageReading(reader="r", lines=(line("first", 5, 0), line("second", 5, 9)))
    monkeypatch.setattr("vae.score.read_files", lambda paths, *_, **__: enumerate([straight, shuffled][: len(paths)]))
    two_texts(tmp_path, {"a.png": ("", "")})
    report = score(tmp_path, "ned")
    assert report.pairs[0].ned == 1 - Levenshtein.distance("firstsecond", "secondfirst") / 11
    assert report.pairs[0].ned_mended == 1


def test_results_have_the_public_script_s_keys(tmp_path: Path, fake_reader: Path) -> None:
    two_texts(tmp_path, {"zh_0.png": ("abcd", "abxd"), "en_1.png": ("ab\ncd", "abcd"), "en_2.png": ("", "ghost")})
    report = score(tmp_path, "all", second=ReaderChoice(name="tesseract"))
    results = json.loads((tmp_path / "out" / "results.json").read_text())
    assert results == report.results
    public = {"num_samples": 3, "NED": 0.875, "NED_samples": 2, "LPIPS": None, "FID": None}
    assert public.items() <= results.items()
    assert {"PSNR", "SSIM", "NED_mended", "NED_second", "notes"} <= results.keys()
    assert any(note.startswith("LPIPS is null: it needs VGG16's weights") for note in results["notes"])
    assert any(note.startswith("FID is null: it needs pytorch-fid's Inception weights") for note in results["notes"])
    assert "1 of 3 pairs have no NED: nothing is read on the original: en_2.png" in results["notes"]
    details = json.loads((tmp_path / "out" / "ned_details.json").read_text())
    assert [entry["file"] for entry in details["details"]] == ["en_1.png", "zh_0.png"]
    assert {"file", "gt_text", "rec_text", "ned"} <= details["details"][0].keys()
    assert report.readers == {"ned": "fake rapidocr", "ned_second": "fake tesseract"}
    with (tmp_path / "out" / "pairs.csv").open(encoding="utf-8") as file:
        rows = {row["file"]: row for row in csv.DictReader(file)}
    assert rows["zh_0.png"]["ned"] == "0.75"
    assert rows["en_2.png"]["left_out"].startswith("ned: nothing is read on the original")


def test_figures_come_by_language_and_category_with_intervals(tmp_path: Path, fake_reader: Path) -> None:
    two_texts(tmp_path, {f"{n}.png": ("abcd", "abcd" if n < 6 else "wxyz") for n in range(12)})
    records = [{"file": f"gt/{n}.png", "lang": "zh" if n < 6 else "en", "category": "book"} for n in range(12)]
    (tmp_path / "gt.json").write_text(json.dumps(records))
    report = score(tmp_path, "ned")
    languages = report.groups["language"]
    assert (languages["zh"]["ned"].mean, languages["en"]["ned"].mean) == (1, 0)
    book = report.groups["category"]["book"]["ned"]
    assert (book.mean, book.pictures) == (0.5, 12)
    assert 0.15 < book.low < 0.35 < 0.65 < book.high < 0.85


def test_labels_come_from_a_list_an_object_or_the_file_names(tmp_path: Path) -> None:
    folder = tmp_path / "set"
    folder.mkdir()
    assert groups_of(["zh_0.png", "0001.png"], folder) == {"zh_0.png": {"prefix": "zh"}, "0001.png": {}}
    (tmp_path / "set.json").write_text(json.dumps({"a/0001.png": {"language": "en", "type": "note"}, "x": 3}))
    assert groups_of(["0001.png", "b.png"], folder) == {"0001.png": {"language": "en", "category": "note"}, "b.png": {}}
    (tmp_path / "bad.json").write_text("{")
    with pytest.raises(BadInput, match="cannot be read as JSON"):
        groups_of(["a.png"], folder, tmp_path / "bad.json")


def test_missing_extra_and_ignored_files_are_named(tmp_path: Path) -> None:
    for name in ("a.png", "b.png", "c.png"):
        save(tmp_path / "gt" / name, noise(1))
    (tmp_path / "gt" / "list.txt").write_text("")
    save(tmp_path / "gt" / "more" / "d.png", noise(1))
    save(tmp_path / "recon" / "a.png", noise(2))
    save(tmp_path / "recon" / "b.bmp", noise(2))  # pairs with b.png
    save(tmp_path / "recon" / "ghost.png", noise(2))
    report = score(tmp_path)
    assert [pair.name for pair in report.pairs] == ["a.png", "b.png"]
    assert report.results["num_samples"] == 3
    assert "1 originals have no reconstruction and are left out: c.png" in report.notes
    assert "1 reconstructions belong to no original and are left out: ghost.png" in report.notes
    assert "1 files beside the originals are no pictures by their suffix: list.txt" in report.notes
    assert "1 folders beside the originals are not looked into: more" in report.notes


def test_an_ambiguous_name_is_no_pair(tmp_path: Path) -> None:
    for name in ("gt/a.png", "gt/b.png", "recon/a.png", "recon/b.bmp", "recon/b.webp"):
        save(tmp_path / name, noise(1))
    folders = pair_folders(tmp_path / "gt", tmp_path / "recon")
    assert (folders.missing, folders.extra) == (("b.png",), ("b.bmp", "b.webp"))


def test_folders_without_pictures_in_common_are_one_sentence(tmp_path: Path) -> None:
    save(tmp_path / "gt" / "a.png", noise(1))
    (tmp_path / "recon").mkdir()
    with pytest.raises(BadInput, match="none of its 0 pictures is named as one of"):
        score(tmp_path)
    with pytest.raises(BadInput, match="holds no pictures"):
        pair_folders(tmp_path / "recon", tmp_path / "gt")
    save(tmp_path / "nested" / "class" / "a.png", noise(1))
    with pytest.raises(BadInput, match="the 1 folders in it are not looked into, give one of them"):
        pair_folders(tmp_path / "nested", tmp_path / "gt")
    with pytest.raises(BadInput, match="no folder that can be listed"):
        pair_folders(tmp_path / "nowhere", tmp_path / "gt")


def test_other_sizes_are_left_out_with_their_sizes_or_resized_on_request(tmp_path: Path) -> None:
    save(tmp_path / "gt" / "a.png", noise(1))
    save(tmp_path / "gt" / "b.png", noise(2))
    save(tmp_path / "recon" / "a.png", noise(3))
    save(tmp_path / "recon" / "b.png", noise(2, (32, 48)))
    report = score(tmp_path)
    assert report.results["PSNR"] == round(report.pairs[0].psnr_db, 4)
    assert report.pairs[1].psnr_db is None
    sentence = (
        "1 of 2 pairs have no PSNR, SSIM, LPIPS and FID: sizes differ: original 24x16, reconstruction 48x32: b.png"
    )
    assert sentence in report.notes
    resized = score(tmp_path, pixels=PixelChoice(vgg_weights=None, inception_weights=None, resize=True))
    reduced = np.array(Image.fromarray(noise(2, (32, 48))).resize((24, 16), Image.Resampling.BICUBIC), float)
    assert resized.pairs[1].psnr_db == pytest.approx(-10 * np.log10(((reduced - noise(2)) ** 2).mean() / 255**2 + 1e-8))
    assert "1 pairs: reconstruction: resized: b.png" in resized.notes


def test_alpha_grey_palette_and_16_bit_pictures_are_compared_as_the_public_script_does_and_named(
    tmp_path: Path,
) -> None:
    grey = noise(1)[:, :, 0]
    sheer = np.dstack([noise(2), np.full((16, 24), 9, np.uint8)])
    pictures = {
        "alpha.png": Image.fromarray(sheer),
        "grey.png": Image.fromarray(grey),
        "opaque.png": Image.fromarray(np.dstack([noise(2), np.full((16, 24), 255, np.uint8)])),
        "palette.png": Image.fromarray(noise(3)).quantize(16),
        "sixteen.png": Image.fromarray(grey.astype(np.uint16) * 257),
    }
    for name, picture in pictures.items():
        save(tmp_path / "gt" / name, picture)
        plain = np.dstack([grey] * 3) if name == "sixteen.png" else np.array(picture.convert("RGB"))
        save(tmp_path / "recon" / name, plain)
    report = score(tmp_path)
    assert all(pair.equal for pair in report.pairs)
    assert "1 pairs: original: transparency dropped: alpha.png" in report.notes
    assert "1 pairs: original: 16 bits scaled to 8: sixteen.png" in report.notes
    assert not any("opaque" in note for note in report.notes if "transparency" in note)


def test_unreadable_pictures_cost_their_own_pair_alone(tmp_path: Path) -> None:
    for name in ("fine.png", "empty.png", "lies.png", "cut.png", "bad output.png", "link.png"):
        save(tmp_path / "gt" / name, noise(1))
        save(tmp_path / "recon" / name, noise(2))
    (tmp_path / "gt" / "empty.png").write_bytes(b"")
    (tmp_path / "gt" / "lies.png").write_bytes(b"no picture")
    cut = tmp_path / "gt" / "cut.png"
    cut.write_bytes(cut.read_bytes()[:300])
    (tmp_path / "recon" / "bad output.png").write_bytes(b"\x89PNG")
    (tmp_path / "gt" / "link.png").unlink()
    (tmp_path / "gt" / "link.png").symlink_to(tmp_path / "nowhere.png")
    report = score(tmp_path)
    reasons = {pair.name: pair.left_out.get("pixels") for pair in report.pairs}
    assert reasons["fine.png"] is None
    assert reasons["empty.png"] == "the original cannot be opened: empty_file"
    assert reasons["lies.png"] == "the original cannot be opened: not_an_image"
    assert reasons["cut.png"].startswith("the original cannot be opened: damaged")
    assert reasons["bad output.png"].startswith("the reconstruction cannot be opened")
    assert reasons["link.png"].startswith("the original cannot be opened")
    assert len(json.loads((tmp_path / "out" / "report.json").read_text())["left_out"]) == 5


def test_names_in_any_script_and_with_blanks_come_back_whole(tmp_path: Path, fake_reader: Path) -> None:
    names = ["磨坊 字.png", "ñandú 'x'.png", "🅰 b\tc.png", "a;b,c.png", os.fsdecode(b"\xff.png")]
    two_texts(tmp_path, dict.fromkeys(names, ("abcd", "abcx")))
    report = score(tmp_path, "all")
    names = [name.replace("\udcff", "\\udcff") for name in names]  # bytes that are no UTF-8 are spelled out
    assert sorted(pair.name for pair in report.pairs) == sorted(names)
    assert all(pair.ned == 0.75 and pair.psnr_db for pair in report.pairs)
    details = json.loads((tmp_path / "out" / "ned_details.json").read_text(encoding="utf-8"))["details"]
    assert sorted(entry["file"] for entry in details) == sorted(names)
    with (tmp_path / "out" / "pairs.csv").open(encoding="utf-8", newline="") as file:
        assert sorted(row["file"] for row in csv.DictReader(file)) == sorted(names)


def test_pictures_too_small_for_a_window_have_no_ssim_and_say_so(tmp_path: Path) -> None:
    save(tmp_path / "gt" / "tiny.png", noise(1, (8, 8)))
    save(tmp_path / "recon" / "tiny.png", noise(2, (8, 8)))
    report = score(tmp_path)
    assert report.results["PSNR"] is not None
    assert report.results["SSIM"] is None
    assert "1 pairs have no SSIM: it needs 11x11 px: tiny.png" in report.notes


def test_the_command_takes_the_public_script_s_words(
    tmp_path: Path, fake_reader: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    two_texts(tmp_path, {"a.png": ("abcd", "abcx"), "b.png": ("", "")})
    words = ["--gt_dir", str(tmp_path / "gt"), "--recon_dir", str(tmp_path / "recon")]
    printed = glyphmill_says(capsys, "eval", *words, "--save_path", str(tmp_path / "saved"), "--second", "none")
    assert "NED: 0.75" in printed
    assert "- 1 of 2 pairs have no NED: nothing is read on the original: b.png" in printed
    assert json.loads((tmp_path / "saved" / "results.json").read_text())["NED_samples"] == 1
    out = ["--mode", "pixel", "--out", str(tmp_path / "out"), "--json"]
    assert json.loads(glyphmill_says(capsys, "eval", *words, *out))["num_samples"] == 2


def test_weights_that_are_not_there_are_one_sentence(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    two_texts(tmp_path, {"a.png": ("", "")})
    words = ["--gt", str(tmp_path / "gt"), "--recon", str(tmp_path / "recon"), "--out", str(tmp_path / "out")]
    sentence = glyphmill_fails(capsys, "eval", *words, "--mode", "pixel", "--inception-weights", str(tmp_path / "no"))
    assert "the weights cannot be read" in sentence


@pytest.mark.slow
def test_the_bench_times_the_networks_of_each_way_and_says_what_is_the_least(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    onnxruntime = pytest.importorskip("onnxruntime")
    page_HW3 = draw_lines(list(WORDS[:3]), 12, 16, (96, 96))
    save(tmp_path / "gt" / "a.png", page_HW3)
    save(tmp_path / "recon" / "a.png", page_HW3 // 2 + 100)
    run = onnxruntime.InferenceSession.run
    monkeypatch.setattr(score_bench, "PRODUCT_MKN", (64, 64, 640))
    figures = score_bench.bench_eval(tmp_path / "gt", tmp_path / "recon", 1)
    assert onnxruntime.InferenceSession.run is run
    assert figures["pages_with_the_loop_s_text"]["exact"] == figures["pages"] == 2
    for way, seconds in figures["cpu_s_per_page"].items():
        assert 0.3 * seconds < figures["networks_cpu_s_per_page"][way] < seconds
    gflop = 2 * figures["networks_gflop_per_page"]
    rate = gflop / 2 / figures["networks_cpu_s_per_page"]["exact"]
    assert figures["networks_gflop_per_s"] == pytest.approx(rate)
    assert figures["speed_up_limit"] == pytest.approx(
        2 * figures["cpu_s_per_page"]["loop"] * figures["product_gflop_per_s"] / gflop
    )


def test_the_work_of_a_batch_is_that_of_its_lines() -> None:
    # 18,710 classes from 120 features at every eighth pixel: a part of the whole that is known by heart
    head = 2 * 120 * 18_710 * (320 // 8) / 1e9
    one = score_bench._gflop((1, 3, 48, 320))
    assert head < one < 20 * head
    assert score_bench._gflop((6, 3, 48, 320)) == pytest.approx(6 * one)
