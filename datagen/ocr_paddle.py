"""PaddleOCR 3 as a reader: PP-OCRv5, PP-OCRv6 and others, from models that lie on this machine. Nothing is fetched.

Models are given as a folder that holds a detector's and a recogniser's folder (`..._det`, `..._rec`), or as the name of
a pair (PP-OCRv5_mobile, PP-OCRv5_server, PP-OCRv6_small, ...) that PaddleOCR has fetched before. A folder with
`inference.onnx` runs in onnxruntime, others in paddlepaddle; both hold an `inference.yml`.
"""

import contextlib
import importlib.metadata
import os
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, Literal
from unittest import mock

import numpy as np
import yaml

from datagen.lines import Image, Order, PageLine, Quad, Reading, as_quad, check_image, cut_line, reading_order
from fonts_manifest.errors import BadInput

DEFAULT_MODELS = "PP-OCRv5_server"
"""What the public benchmark's `PaddleOCR()` reads with."""


class PaddleReader:
    """PaddleOCR's detection and recognition, without its steps for turned pages, bent pages and turned lines.

    Raises BadInput when PaddleOCR or the models are missing.
    """

    def __init__(self, models: str | Path | None = None, threads: int = 1) -> None:
        self._detector_folder, self._recogniser_folder = find_models(models or DEFAULT_MODELS)
        self._threads = threads
        self.name = f"paddleocr {_model_name(self._recogniser_folder)}"
        self._pipeline = self._open("PaddleOCR")
        self._parts: dict[str, Any] = {}

    def read_page(self, image_HW3: Image, order: Order = "mended") -> list[PageLine]:
        """What `PaddleOCR(...).predict` finds and reads, in its own order or in the mended one."""
        check_image(image_HW3)
        (page,) = self._pipeline.predict(np.ascontiguousarray(image_HW3))  # as the public benchmark calls it
        lines = [
            PageLine(text=text, score=float(score), quad_px=as_quad(corners))
            for text, score, corners in zip(page["rec_texts"], page["rec_scores"], page["rec_polys"], strict=True)
        ]
        if order == "library":
            return lines
        return [lines[index] for index in reading_order([line.quad_px for line in lines])]

    def read_lines(self, image_HW3: Image, quads: Sequence[Sequence[float]]) -> list[Reading]:
        """One reading per quad, without detection."""
        check_image(image_HW3)
        cuts = [cut_line(image_HW3, quad) for quad in quads]
        kept = [np.ascontiguousarray(cut[:, :, ::-1]) for cut in cuts if cut is not None]
        read = iter(self._part("TextRecognition").predict(kept) if kept else ())
        readings = []
        for cut in cuts:
            line = None if cut is None else next(read)
            readings.append(
                Reading(text="", score=0.0)
                if line is None or not line["rec_text"]
                else Reading(text=line["rec_text"], score=float(line["rec_score"]))
            )
        return readings

    def detect(self, image_HW3: Image, resolution: Literal["native", "library"] = "native") -> list[Quad]:
        """Places of lines, in mended order; PaddleOCR's own resolution is the native one."""
        check_image(image_HW3)
        (found,) = self._part("TextDetection").predict(np.ascontiguousarray(image_HW3[:, :, ::-1]))
        quads = [as_quad(corners) for corners in found["dt_polys"]]
        return [quads[index] for index in reading_order(quads)]

    def _part(self, kind: str) -> Any:
        if kind not in self._parts:
            self._parts[kind] = self._open(kind)
        return self._parts[kind]

    def _open(self, kind: str) -> Any:
        """PaddleOCR's class of that name over our models."""
        folders = {"text_detection": self._detector_folder, "text_recognition": self._recogniser_folder}
        common: dict[str, Any] = {"device": "cpu", "cpu_threads": self._threads}
        if all((folder / "inference.onnx").is_file() for folder in folders.values()):
            common["engine"] = "onnxruntime"
        else:
            common["enable_mkldnn"] = False  # with it paddlepaddle 3.3 ends in a native error
        with _paddleocr() as library:
            if kind == "PaddleOCR":
                for step, folder in folders.items():
                    common |= {f"{step}_model_name": _model_name(folder), f"{step}_model_dir": str(folder)}
                steps = ("use_doc_orientation_classify", "use_doc_unwarping", "use_textline_orientation")
                return library.PaddleOCR(**common, **dict.fromkeys(steps, False))
            folder = folders["text_detection" if kind == "TextDetection" else "text_recognition"]
            return getattr(library, kind)(model_name=_model_name(folder), model_dir=str(folder), **common)


def find_models(models: str | Path) -> tuple[Path, Path]:
    """Folders of the detector and the recogniser. Raises BadInput when they are not on this machine."""
    root = Path(models)
    if not root.is_dir():
        fetched = Path(os.environ.get("PADDLE_PDX_CACHE_HOME", Path.home() / ".paddlex")) / "official_models"
        pair = tuple(fetched / f"{models}_{end}" for end in ("det", "rec"))
        if not all(folder.is_dir() for folder in pair):
            raise BadInput(
                f"ocr: {models}: no folder, and no models that PaddleOCR fetched before ({pair[0]}, {pair[1].name});"
                " give a folder that holds a ..._det and a ..._rec folder"
            )
        return pair[0], pair[1]
    found = []
    for end in ("det", "rec"):
        folders = sorted(folder for folder in root.glob(f"*_{end}*") if (folder / "inference.yml").is_file())
        if len(folders) != 1:
            raise BadInput(
                f"ocr: {root}: holds {len(folders)} folders *_{end}* with an inference.yml; it must hold one"
            )
        found.append(folders[0])
    return found[0], found[1]


def _model_name(folder: Path) -> str:
    try:
        name = yaml.safe_load((folder / "inference.yml").read_text(encoding="utf-8"))["Global"]["model_name"]
    except (OSError, UnicodeDecodeError, yaml.YAMLError, KeyError, TypeError) as error:
        raise BadInput(f"ocr: {folder}/inference.yml does not say Global.model_name ({error})") from error
    return str(name)


@contextlib.contextmanager
def _paddleocr() -> Iterator[Any]:
    """The library, imported without a look at its hub, and content with any OpenCV.

    It asks whether the distribution `opencv-contrib-python` is installed, not whether `cv2` is; text needs nothing of
    contrib, and the four distributions of OpenCV overwrite one another. Raises BadInput when it is not installed or
    refuses the models.
    """
    asked = importlib.metadata.version

    def version(name: str) -> str:
        return asked("opencv-python") if name == "opencv-contrib-python" else asked(name)

    with mock.patch.dict(os.environ, PADDLE_PDX_DISABLE_MODEL_SOURCE_CHECK="True"):
        with mock.patch.object(importlib.metadata, "version", version):
            try:
                import paddleocr
                from paddlex.utils import deps

                deps.is_dep_available("opencv-contrib-python")  # it remembers the answer
            except ImportError as error:
                raise BadInput(f"ocr: {error.name} is not installed; install glyphmill[paddleocr]") from error
        try:
            yield paddleocr
        except (RuntimeError, ValueError, OSError) as error:
            raise BadInput(f"ocr: PaddleOCR refuses the models ({error.__cause__ or error})") from error
