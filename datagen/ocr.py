"""Reading text in pictures: the readers by name, and how texts are compared.

The default reader is rapidocr's PP-OCRv6 small (detector 2.5 M, recogniser 5.3 M parameters), whose ONNX files lie in
its wheel: nothing is fetched. Lines whose place is known are cut out and recognised without detection.
"""

import functools
import re
import unicodedata
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Literal

import numpy as np

from datagen.lines import (
    Image,
    Order,
    PageLine,
    Quad,
    Reading,
    Recognizer,
    as_quad,
    check_image,
    cut_line,
    quad_heights,
    reading_order,
)
from datagen.ppocr import MODEL_NAME, decode_ctc, model_path, resize_line
from fonts_manifest.errors import BadInput

__all__ = [
    "READERS",
    "Image",
    "PageLine",
    "Quad",
    "Reading",
    "Recognizer",
    "check_image",
    "count_characters",
    "cut_line",
    "ned",
    "open_recognizer",
    "quad_heights",
    "reading_order",
]

READERS = ("rapidocr", "paddleocr", "torch", "tesseract")


def ned(truth: str, read: str) -> float:
    """1 - Levenshtein / length of the longer, in [0, 1], 1 is a perfect reading; two empty strings give 1.0.

    Both are NFKC-normalised and freed of blanks first: readers confuse full-width and half-width marks and guess at
    spaces. (OmniDoc-TokenBench's NED does neither; it belongs to evaluation, not to judging.)
    """
    from rapidfuzz.distance import Levenshtein

    truth, read = (_without_blanks(text) for text in (truth, read))
    longest = max(len(truth), len(read))
    return 1.0 - Levenshtein.distance(truth, read) / longest if longest else 1.0


def count_characters(text: str) -> int:
    """Characters of `text` without blanks, after NFKC."""
    if _ONE_EACH.fullmatch(text):
        return len(text) - text.count(" ") - text.count("\n")
    return len(_without_blanks(text))


_ONE_EACH = re.compile("[ \n!-~“”‘’—·、。《》「」【】\u4e00-\u9fff\uff01-\uff5e]*")
"""Texts that stay as long as they are: each character of theirs is one after NFKC, whatever stands beside it."""


def _without_blanks(text: str) -> str:
    return "".join(unicodedata.normalize("NFKC", text).split())


@functools.cache
def open_recognizer(
    name: str = "rapidocr", threads: int = 1, *, models: str | Path | None = None, device: str = "cpu"
) -> Recognizer:
    """The reader called `name`, loaded once a process (rapidocr .3 s, torch .4 s, paddleocr 10 s).

    threads: per inference; fixed, because another number adds in another order and moves the last bits.
    models: for paddleocr, see `datagen.ocr_paddle`. device: for torch.
    Raises BadInput for an unknown name, or when the reader or its models are not there.
    """
    match name:
        case "rapidocr":
            return _RapidOcr(threads)
        case "torch":
            from datagen.ocr_torch import TorchReader

            return TorchReader(device)
        case "paddleocr":
            from datagen.ocr_paddle import PaddleReader

            return PaddleReader(models, threads)
        case "tesseract":
            from datagen.ocr_tesseract import TesseractReader

            return TesseractReader()
    raise BadInput(f"ocr: no reader is called {name!r}; there is {', '.join(READERS)}")


class _RapidOcr:
    """PP-OCRv6 small: rapidocr's detector as it is, and its recogniser in a plain onnxruntime session.

    Past the library's wrapper, which pads every line to 320 px and batches six of different widths, a line costs its
    own width: 55 us a px of input on one core, and batches only cost more (batch 16: 1.5 times batch 1).
    """

    def __init__(self, threads: int) -> None:
        try:
            import onnxruntime
        except ImportError as error:
            raise BadInput(f"ocr: {error.name} is not installed; install glyphmill[ocr]") from error
        path = model_path("recogniser")
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = threads
        options.inter_op_num_threads = 1
        options.log_severity_level = 3
        self.name = f"rapidocr {MODEL_NAME}"
        self._threads = threads
        self._session = onnxruntime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
        self._input = self._session.get_inputs()[0].name
        # Class 0 is the CTC blank, the last one the space.
        listed = self._session.get_modelmeta().custom_metadata_map["character"].splitlines()
        self._characters = ("", *listed, " ")
        self._libraries: dict[str, Any] = {}

    def read_lines(self, image_HW3: Image, quads: Sequence[Sequence[float]]) -> list[Reading]:
        check_image(image_HW3)
        return [self._recognise(cut_line(image_HW3, quad)) for quad in quads]

    def read_page(self, image_HW3: Image, order: Order = "mended") -> list[PageLine]:
        check_image(image_HW3)
        if order == "library":
            return self._read_as_library(image_HW3)
        quads = self.detect(image_HW3, "library")
        readings = self.read_lines(image_HW3, quads)
        return [
            PageLine(text=reading.text, score=reading.score, quad_px=quad)
            for reading, quad in zip(readings, quads, strict=True)
            if reading.text.strip()
        ]

    def detect(self, image_HW3: Image, resolution: Literal["native", "library"] = "native") -> list[Quad]:
        check_image(image_HW3)
        quads = self._find(image_HW3, resolution)
        return [quads[index] for index in reading_order(quads)]

    def _read_as_library(self, image_HW3: Image) -> list[PageLine]:
        """What `RapidOCR(text_score=0)` reads, to the letter: it pads lines and batches them, which moves a few."""
        read = self._open("read")(np.ascontiguousarray(image_HW3[:, :, ::-1]))
        if read.boxes is None or read.txts is None:
            return []
        return [
            PageLine(text=text, score=float(score), quad_px=as_quad(box_42))
            for text, score, box_42 in zip(read.txts, read.scores, read.boxes, strict=True)
        ]

    def _find(self, image_HW3: Image, resolution: Literal["native", "library"]) -> list[Quad]:
        boxes_N42 = self._open(resolution)(np.ascontiguousarray(image_HW3[:, :, ::-1])).boxes
        return [] if boxes_N42 is None else [as_quad(box_42) for box_42 in boxes_N42]

    def _open(self, use: Literal["native", "library", "read"]) -> Any:
        """The library: its detector at two resolutions, or the whole of it."""
        if use not in self._libraries:
            from rapidocr import RapidOCR

            limit_type, limit_px = ("max", 1536) if use == "native" else ("min", 736)
            self._libraries[use] = RapidOCR(
                params={
                    "Global.log_level": "critical",
                    "Global.use_cls": False,
                    "Global.use_rec": use == "read",
                    "Global.text_score": 0.0,
                    "Det.limit_type": limit_type,
                    "Det.limit_side_len": limit_px,
                    "EngineConfig.onnxruntime.intra_op_num_threads": self._threads,
                    "EngineConfig.onnxruntime.inter_op_num_threads": 1,
                    "EngineConfig.onnxruntime.enable_cpu_mem_arena": True,  # a sixth less time, the same bits
                }
            )
        return self._libraries[use]

    def _recognise(self, line_HW3: Image | None) -> Reading:
        if line_HW3 is None:
            return Reading(text="", score=0.0)
        scaled_HW3 = resize_line(line_HW3)[:, :, ::-1]  # BGR, as PP-OCR was trained
        batch_B3HW = np.ascontiguousarray((scaled_HW3.astype(np.float32) / 127.5 - 1.0).transpose(2, 0, 1)[None])
        probability_TV = self._session.run(None, {self._input: batch_B3HW})[0][0]
        best_T = probability_TV.argmax(axis=1)
        text, score = decode_ctc(best_T, probability_TV[np.arange(len(best_T)), best_T], self._characters)
        return Reading(text=text, score=score)
