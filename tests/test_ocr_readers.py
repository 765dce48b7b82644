"""The readers beside rapidocr: torch against it, PaddleOCR on models laid out as it keeps them, tesseract."""

import importlib.util
import shutil
from pathlib import Path

import numpy as np
import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st
from test_ocr_read import WORDS, draw_lines

from datagen import ocr_tesseract
from datagen.lines import library_order
from datagen.ocr import ned, open_recognizer
from datagen.ocr_paddle import find_models
from datagen.ppocr import characters, model_path
from fonts_manifest.errors import BadInput

ROWS = [" ".join(WORDS[start : start + 4]) for start in range(0, 12, 4)]
PAGE = draw_lines(ROWS, 14, 26, (280, 96))
QUADS = [(6, 6 + 26 * n, 274, 6 + 26 * n, 274, 30 + 26 * n, 6, 30 + 26 * n) for n in range(3)]

needs_tesseract = pytest.mark.skipif(
    shutil.which("tesseract") is None, reason="the program tesseract is not installed on this machine"
)


def lay_out_models(root: Path) -> Path:
    """The wheel's networks in the folders that PaddleOCR 3 loads, as its exporter to ONNX writes them."""
    detector = {
        "Global": {"model_name": "PP-OCRv6_small_det"},
        "PreProcess": {
            "transform_ops": [
                {"DetResizeForTest": None},
                {"NormalizeImage": {"mean": [0.5] * 3, "std": [0.5] * 3, "scale": "1./255.", "order": "hwc"}},
                {"ToCHWImage": None},
                {"KeepKeys": {"keep_keys": ["image", "shape"]}},
            ]
        },
        "PostProcess": {
            "name": "DBPostProcess",
            "thresh": 0.3,
            "box_thresh": 0.5,
            "max_candidates": 1000,
            "unclip_ratio": 1.6,
        },
    }
    recogniser = {
        "Global": {"model_name": "PP-OCRv6_small_rec"},
        "PreProcess": {"transform_ops": [{"RecResizeImg": {"image_shape": [3, 48, 320]}}]},
        "PostProcess": {"name": "CTCLabelDecode", "character_dict": list(characters()[1:-1])},
    }
    for network, settings in (("detector", detector), ("recogniser", recogniser)):
        folder = root / settings["Global"]["model_name"]
        folder.mkdir(parents=True)
        (folder / "inference.onnx").symlink_to(model_path(network))
        (folder / "inference.yml").write_text(yaml.safe_dump(settings, allow_unicode=True), encoding="utf-8")
    return root


def test_torch_reads_pages_and_lines_as_rapidocr_reads_them():
    torch_reader, rapidocr = open_recognizer("torch"), open_recognizer("rapidocr")
    small = draw_lines(ROWS[:2], 7, 12, (160, 48))
    assert torch_reader.detect(PAGE) == rapidocr.detect(PAGE)
    pages = torch_reader.read_pages([PAGE, small])
    assert [[line.text for line in page] for page in pages] == [
        [line.text for line in rapidocr.read_page(image)] for image in (PAGE, small)
    ]
    assert [line.text for line in pages[0]] == ROWS
    readings = torch_reader.read_lines(PAGE, [*QUADS, (900, 0, 910, 0, 910, 9, 900, 9)])
    expected = rapidocr.read_lines(PAGE, QUADS)
    assert [reading.text for reading in readings] == [*(reading.text for reading in expected), ""]
    np.testing.assert_allclose([r.score for r in readings[:3]], [r.score for r in expected], atol=1e-4)


def test_a_device_torch_does_not_have_is_one_sentence():
    with pytest.raises(BadInput, match="cannot use the device 'warp'"):
        open_recognizer("torch", device="warp")


@given(st.lists(st.tuples(st.integers(0, 200), st.integers(0, 60)), max_size=12))
def test_the_library_s_order_is_rapidocr_s(corners):
    from rapidocr.ch_ppocr_det.main import TextDetector

    quads = [(x, y, x + 30, y, x + 30, y + 8, x, y + 8) for x, y in corners]
    expected = TextDetector.sorted_boxes(np.array(quads, np.float32).reshape(-1, 4, 2))
    assert [quads[index] for index in library_order(quads)] == [tuple(box) for box in expected.reshape(-1, 8).tolist()]


def test_the_library_s_page_is_what_the_library_reads_to_the_letter():
    from rapidocr import RapidOCR

    library = RapidOCR(params={"Global.log_level": "critical", "Global.text_score": 0.0, "Global.use_cls": False})
    noisy = np.clip(PAGE.astype(int) + np.random.default_rng(0).normal(0, 60, PAGE.shape), 0, 255).astype(np.uint8)
    for image in (PAGE, noisy):
        read = library(np.ascontiguousarray(image[:, :, ::-1]))
        assert [line.text for line in open_recognizer("rapidocr").read_page(image, "library")] == list(read.txts)


@pytest.fixture(scope="module")
def paddle(tmp_path_factory: pytest.TempPathFactory):
    if importlib.util.find_spec("paddleocr") is None:
        pytest.skip("paddleocr is not installed; it is an extra of its own (glyphmill[paddleocr])")
    return open_recognizer("paddleocr", models=lay_out_models(tmp_path_factory.mktemp("models")))


@pytest.mark.filterwarnings("ignore")  # its imports warn, of their own dependencies
def test_paddleocr_reads_with_models_from_a_folder(paddle):
    assert paddle.name == "paddleocr PP-OCRv6_small_rec"
    for order in ("library", "mended"):
        assert ned("".join(ROWS), "".join(line.text for line in paddle.read_page(PAGE, order))) > 0.98
    readings = paddle.read_lines(PAGE, [*QUADS, (900, 0, 910, 0, 910, 9, 900, 9)])
    assert [reading.text for reading in readings] == [*ROWS, ""]
    first, *_ = paddle.detect(PAGE)
    assert first[1] < 10 + 7 < first[5]
    assert paddle.read_page(np.full((64, 64, 3), 255, np.uint8)) == []


def test_models_of_paddleocr_that_are_not_there_are_one_sentence(tmp_path, monkeypatch):
    monkeypatch.setenv("PADDLE_PDX_CACHE_HOME", str(tmp_path))
    with pytest.raises(BadInput, match=r"PP-OCRv5_server: no folder, and no models that PaddleOCR fetched before"):
        open_recognizer("paddleocr")
    with pytest.raises(BadInput, match="holds 0 folders"):
        find_models(tmp_path)
    for end in ("det", "rec"):
        folder = tmp_path / "official_models" / f"PP-OCRv5_mobile_{end}"
        folder.mkdir(parents=True)
        (folder / "inference.yml").write_text("Global: {}")
    assert [folder.name for folder in find_models("PP-OCRv5_mobile")] == ["PP-OCRv5_mobile_det", "PP-OCRv5_mobile_rec"]
    with pytest.raises(BadInput, match=r"does not say Global\.model_name"):
        open_recognizer("paddleocr", models="PP-OCRv5_mobile")


@needs_tesseract
def test_tesseract_reads_pages_and_lines():
    reader = open_recognizer("tesseract")
    lines = reader.read_page(PAGE)
    assert ned("".join(ROWS), "".join(line.text for line in lines)) > 0.95
    assert all(0 < line.score <= 1 for line in lines)
    for line, quad in zip(lines, QUADS, strict=True):
        assert quad[1] - 2 <= line.quad_px[1] < line.quad_px[5] <= quad[5] + 2
    assert ned(ROWS[1], reader.read_lines(PAGE, QUADS[1:2])[0].text) > 0.9
    assert reader.read_page(np.full((64, 64, 3), 255, np.uint8)) == []


def test_a_machine_without_tesseract_is_told_so(monkeypatch):
    monkeypatch.setenv("PATH", "/nowhere")
    with pytest.raises(BadInput, match="tesseract is not installed"):
        ocr_tesseract.TesseractReader()


def test_a_tesseract_that_fails_is_one_sentence(monkeypatch, tmp_path):
    program = tmp_path / "tesseract"
    program.write_text(
        '#!/bin/sh\ncase "$*" in\n'
        "*--list-langs) echo eng;;\n*--version) echo tesseract 5;;\n*) echo lost >&2; exit 3;;\nesac\n"
    )
    program.chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}:/bin:/usr/bin")
    reader = ocr_tesseract.TesseractReader()
    assert reader.name == "tesseract 5 eng"
    with pytest.raises(BadInput, match=r"tesseract failed \(lost\)"):
        reader.read_page(PAGE)
