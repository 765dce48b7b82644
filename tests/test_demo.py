"""The whole chain, small: fonts, pictures, OCR, shards, filter, training, one page; and nothing is made twice."""

import io
import json
import re
import tarfile
from pathlib import Path

import numpy as np
import pytest
import yaml
from PIL import Image
from rich.console import Console

import vae.demo
from datagen.commit import read_rows
from datagen.verify import verify_run
from vae.demo import DOCUMENTS, run_demo, unpack_documents
from vae.reconstruct import reconstruct_files

GENERATE = {
    "kind": "generate",
    "rows": 12,
    "rows_per_shard": 6,
    "fonts": {"places": ["package:matplotlib/mpl-data/fonts/ttf", "package:mpl_font/fonts/wqy"], "system": False},
    "photos": {"places": [{"place": "package:skimage/data/coffee.png", "licence": "CC0-1.0"}]},
    "texts": {
        "places": [
            {"place": "package:pydoc_data/topics.py", "format": "topics", "licence": "PSF-2.0"},
            {"place": "package:jieba/dict.txt", "format": "words", "licence": "MIT"},
        ]
    },
    "pages": {
        "families": {"background": 1.0},
        "layouts": {"columns": 1.0},
        "columns": {1: 1.0},
        "size_bands": [{"low_px": 14, "high_px": 20, "weight": 1}],
    },
}
FILTER = {
    "kind": "filter",
    "input": {
        "places": [
            {"place": "package:skimage/data/coffee.png", "licence": "CC0-1.0"},
            {"place": "package:skimage/data/chelsea.png", "licence": "CC0-1.0"},
            {"place": "package:skimage/data/page.png", "licence": "sample"},
            {"place": "package:skimage/data/text.png", "licence": "public domain"},
        ],
    },
    "rules": {"sparse_text": "", "too_small": "min_side >= 160"},
}
TEXT = ["sparse", "medium", "dense"]
TRAIN = {
    "kind": "train",
    "sources": [
        {"name": "synthetic", "run": "synthetic"},
        {"name": "real text", "run": "real", "density": TEXT},
        {"name": "photographs", "run": "real", "density": ["none"]},
    ],
    "model": {
        "encoder_widths": [4, 4, 4, 4, 8],
        "decoder_widths": [4, 4, 4, 4, 8],
        "skip_basis": "dct",
        "decoder_mirror": True,
    },
    "steps": 3,
    "batch": 6,
    "crop_px": 64,
    "validate_px": 128,
    "validate_pictures": 2,
}


@pytest.fixture
def small_recipes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name, settings in (("demo-generate", GENERATE), ("demo-filter", FILTER), ("demo-train", TRAIN)):
        (tmp_path / f"{name}.yaml").write_text(yaml.safe_dump(settings))
    monkeypatch.setattr(vae.demo, "find_recipe", lambda name, _: tmp_path / f"{name}.yaml")
    monkeypatch.setattr(vae.demo, "EVALUATED", {"synthetic": 2, "real text": 1, "photographs": 1})
    monkeypatch.setattr(vae.demo, "DOCUMENTS", {})


@pytest.mark.usefixtures("small_recipes")
def test_the_chain_ends_in_a_page_and_runs_once(tmp_path: Path) -> None:
    out = tmp_path / "demo"
    said = io.StringIO()
    report = run_demo(out, executor="serial", console=Console(file=said))
    text = report.read_text(encoding="utf-8")
    kept = read_rows(out / "synthetic", keep=True)
    assert kept.num_rows == 12
    assert verify_run(out / "synthetic", 4).count("drawn again") == 1
    assert "4 of 4" in text  # real pictures kept
    for words in ("Synthetic: pictures", "Training", "What the network adds to its skip", "read in full by OCR"):
        assert words in text
    rows = json.loads((out / "evaluation.json").read_text())
    assert {(row["codec"], row["set_name"]) for row in rows} == {
        (codec, name)
        for codec in ("trained GSC VAE", "untrained linear skip")
        for name in ("synthetic", "real text", "photographs")
    }
    assert not re.search(r"(src|href)=\"(?!data:|#)", text)  # one self-contained page

    pictures = tmp_path / "pictures"
    pictures.mkdir()
    Image.new("RGB", (70, 50), (200, 30, 30)).save(pictures / "red.png")
    (pictures / "broken.png").write_bytes(b"no picture")
    done, problems = reconstruct_files(out / "vae" / "ema", str(pictures), tmp_path / "again")
    assert (done, [Path(name).name for name, _ in problems]) == (1, ["broken.png"])
    with Image.open(tmp_path / "again" / "red.png") as again:
        assert again.size == (70, 50)
        # A plain colour is the first coefficient of every skip: nearly nothing of it may be lost.
        assert np.abs(np.asarray(again).astype(int) - (200, 30, 30)).max() < 24

    before = {path: path.stat().st_mtime_ns for path in out.rglob("*.parquet")}
    steps = (out / "vae" / "metrics.jsonl").read_bytes()
    run_demo(out, executor="serial", console=Console(file=said))
    assert {path: path.stat().st_mtime_ns for path in out.rglob("*.parquet")} == before
    assert (out / "vae" / "metrics.jsonl").read_bytes() == steps


def test_documents_are_unpacked_by_name_and_nothing_else(tmp_path: Path) -> None:
    archive = tmp_path / "documents.tar.gz"
    wanted = next(iter(DOCUMENTS))
    with tarfile.open(archive, "w:gz") as tar:
        for name, data in ((f"pypdf/resources/{wanted}", b"%PDF-1"), ("../../evil.pdf", b"x"), ("setup.py", b"y")):
            member = tarfile.TarInfo(name)
            member.size = len(data)
            tar.addfile(member, io.BytesIO(data))
        link = tarfile.TarInfo(f"links/{list(DOCUMENTS)[1]}")
        link.type, link.linkname = tarfile.SYMTYPE, "/etc/passwd"
        tar.addfile(link)
    (place,) = unpack_documents(archive, tmp_path / "out")
    assert place.place == str(tmp_path / "out" / wanted)
    assert place.licence == DOCUMENTS[wanted]
    assert [path.name for path in (tmp_path / "out").iterdir()] == [wanted]
    assert sorted(path.name for path in tmp_path.iterdir()) == ["documents.tar.gz", "out"]
