"""Reading text in pictures. The one file that imports rapidocr and PaddleOCR; everyone else sees `Recognizer`.

The default reader is rapidocr's PP-OCRv6 small (detector 2.5 M, recogniser 5.3 M parameters), whose ONNX files lie in
its wheel: nothing is fetched. Lines whose place is known are cut out and recognised without detection.
"""

import functools
import math
import unicodedata
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal, Protocol

import cv2
import numpy as np
import numpy.typing as npt

from datagen.ppocr import LINE_HEIGHT_PX, MODEL_NAME, decode_ctc, model_path
from fonts_manifest.errors import BadInput

Image = npt.NDArray[np.uint8]
Quad = tuple[float, float, float, float, float, float, float, float]
"""Corners x, y in px: start-top, end-top, end-bottom, start-bottom."""

MAX_PIXELS = 64_000_000
"""Larger pictures are refused; a detector pass keeps about 20 bytes per pixel besides its network."""

LINE_WIDTH_SCALE = 0.85
"""Lines are squeezed so much before reading: a sixth less time at equal NED (real crops against the text layer of their
PDFs: .979 at 1, .981 at .85, .979 at .7; lines of 5 to 20 px over photographs: .886, .881, .857 at .75)."""
MAX_LINE_WIDTH_PX = 3200  # of the recogniser's input: 400 steps of 18,710 classes are 30 MB


@dataclass(frozen=True, slots=True, kw_only=True)
class Reading:
    """What stands in one line."""

    text: str
    score: float
    """Mean probability of its characters, 0 to 1; 0 when nothing was read."""


@dataclass(frozen=True, slots=True, kw_only=True)
class PageLine:
    """A line that was found and read."""

    text: str
    score: float
    quad_px: Quad


class Recognizer(Protocol):
    """A reader. Images are uint8 sRGB (H, W, 3). The same input gives the same output, on any number of processes."""

    @property
    def name(self) -> str:
        """Engine and model, for manifests and results tables."""
        ...

    def read_lines(self, image_HW3: Image, quads: Sequence[Sequence[float]]) -> list[Reading]:
        """One reading per quad, in their order, without detection; an empty quad reads as ""."""
        ...

    def read_page(self, image_HW3: Image, order: Literal["mended", "library"] = "mended") -> list[PageLine]:
        """Find lines and read them.

        mended: by rows, see `reading_order`. library: the order of rapidocr and PaddleOCR, whose rows are 10 px high
        whatever the size of the text: closer lines come shuffled (NED of perfect 6 px print .37 instead of .92).
        """
        ...

    def detect(self, image_HW3: Image, resolution: Literal["native", "library"] = "native") -> list[Quad]:
        """Find lines in mended reading order, without reading them.

        native: at the picture's own size, the long side limited to 1536 px: 10 ms for 256 x 256. library: the short
        side is enlarged to 736 px first, as rapidocr does: 97 ms.
        """
        ...


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
    return len(_without_blanks(text))


def _without_blanks(text: str) -> str:
    return "".join(unicodedata.normalize("NFKC", text).split())


def reading_order(quads: Sequence[Sequence[float]]) -> list[int]:
    """Indices of `quads` row by row, each row from left to right.

    A row takes every line whose centre lies within half the median line height of the row's first (highest) centre.
    """
    if not quads:
        return []
    corners_N42 = np.asarray(quads, np.float64).reshape(-1, 4, 2)
    centre_x, centre_y = corners_N42.mean(axis=1).T
    threshold = np.median(_quad_sizes(corners_N42)[1]) / 2
    rows: list[list[int]] = []
    for index in np.argsort(centre_y, kind="stable"):
        if rows and centre_y[index] - centre_y[rows[-1][0]] <= threshold:
            rows[-1].append(int(index))
        else:
            rows.append([int(index)])
    return [index for row in rows for index in sorted(row, key=lambda i: centre_x[i])]


def quad_heights(quads: Sequence[Sequence[float]]) -> npt.NDArray[np.float64]:
    """Heights of the quads in px, (N,): the longer of the start and the end side."""
    return _quad_sizes(np.asarray(quads, np.float64).reshape(-1, 4, 2))[1]


def _quad_sizes(corners_N42: npt.NDArray[np.float64]) -> tuple[npt.NDArray[np.float64], npt.NDArray[np.float64]]:
    side_N4 = np.linalg.norm(np.roll(corners_N42, -1, axis=1) - corners_N42, axis=2)
    return np.maximum(side_N4[:, 0], side_N4[:, 2]), np.maximum(side_N4[:, 1], side_N4[:, 3])


@functools.cache
def open_recognizer(name: str = "rapidocr", threads: int = 1) -> Recognizer:
    """The reader called `name`, loaded once a process (0.3 s).

    threads: per inference; fixed, because another number adds in another order and moves the last bits.
    Raises BadInput for an unknown name or when the reader is not installed.
    """
    if name == "rapidocr":
        return _RapidOcr(threads)
    raise BadInput(f"ocr: no reader is called {name!r}; there is rapidocr")


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
        self._detectors: dict[str, Any] = {}

    def read_lines(self, image_HW3: Image, quads: Sequence[Sequence[float]]) -> list[Reading]:
        check_image(image_HW3)
        return [self._recognise(cut_line(image_HW3, quad)) for quad in quads]

    def read_page(self, image_HW3: Image, order: Literal["mended", "library"] = "mended") -> list[PageLine]:
        check_image(image_HW3)
        quads = self._find(image_HW3, "library")  # they come in the library's order
        if order == "mended":
            quads = [quads[index] for index in reading_order(quads)]
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

    def _find(self, image_HW3: Image, resolution: Literal["native", "library"]) -> list[Quad]:
        if resolution not in self._detectors:
            from rapidocr import RapidOCR

            limit = {"library": ("min", 736), "native": ("max", 1536)}[resolution]
            self._detectors[resolution] = RapidOCR(
                params={
                    "Global.log_level": "critical",
                    "Global.use_cls": False,
                    "Global.use_rec": False,
                    "Det.limit_type": limit[0],
                    "Det.limit_side_len": limit[1],
                    "EngineConfig.onnxruntime.intra_op_num_threads": self._threads,
                    "EngineConfig.onnxruntime.inter_op_num_threads": 1,
                }
            )
        boxes_N42 = self._detectors[resolution](np.ascontiguousarray(image_HW3[:, :, ::-1])).boxes
        if boxes_N42 is None:
            return []
        return [tuple(float(v) for v in box_42.ravel()) for box_42 in boxes_N42]  # type: ignore[misc]

    def _recognise(self, line_HW3: Image | None) -> Reading:
        if line_HW3 is None:
            return Reading(text="", score=0.0)
        height, width = line_HW3.shape[:2]
        new_width = min(max(1, math.ceil(LINE_HEIGHT_PX * LINE_WIDTH_SCALE * width / height)), MAX_LINE_WIDTH_PX)
        scaled_HW3 = cv2.resize(line_HW3[:, :, ::-1], (new_width, LINE_HEIGHT_PX))  # BGR, as PP-OCR was trained
        batch_B3HW = np.ascontiguousarray((scaled_HW3.astype(np.float32) / 127.5 - 1.0).transpose(2, 0, 1)[None])
        probability_TV = self._session.run(None, {self._input: batch_B3HW})[0][0]
        best_T = probability_TV.argmax(axis=1)
        text, score = decode_ctc(best_T, probability_TV[np.arange(len(best_T)), best_T], self._characters)
        return Reading(text=text, score=score)


def check_image(image_HW3: Image) -> None:
    """Raise ValueError when it is no uint8 (H, W, 3), BadInput when it has more than MAX_PIXELS."""
    if image_HW3.dtype != np.uint8 or image_HW3.ndim != 3 or image_HW3.shape[2] != 3:
        raise ValueError(f"a picture must be uint8 (H, W, 3), got {image_HW3.dtype} {image_HW3.shape}")
    height, width = image_HW3.shape[:2]
    if height * width > MAX_PIXELS:
        raise BadInput(
            f"ocr: a picture of {width} x {height} px is too large to read; the limit is {MAX_PIXELS} pixels"
        )


def cut_line(image_HW3: Image, quad: Sequence[float]) -> Image | None:
    """The line inside `quad`, upright, uint8 (h, w, 3); None when nothing of it lies in the picture.

    An axis-parallel quad is a slice, grown to whole pixels; others are unwarped by a homography (cubic). Lines at least
    1.5 times as high as wide are turned by 90 degrees counter-clockwise, as PP-OCR does with vertical text.
    """
    height, width = image_HW3.shape[:2]
    corners_42 = np.asarray(quad, np.float64).reshape(4, 2)
    (x0, y0), (x1, y1), (x2, y2), (x3, y3) = corners_42
    if y0 == y1 and y2 == y3 and x0 == x3 and x1 == x2 and x0 < x1 and y0 < y2:
        left, right = max(0, math.floor(x0)), min(width, math.ceil(x1))
        top, bottom = max(0, math.floor(y0)), min(height, math.ceil(y2))
        if left >= right or top >= bottom:
            return None
        line_HW3: Image = image_HW3[top:bottom, left:right]
    else:
        if not ((corners_42 >= 0).all(axis=1) & (corners_42 <= (width, height)).all(axis=1)).any():
            return None
        widths_1, heights_1 = _quad_sizes(corners_42[None])
        line_width, line_height = int(widths_1[0]), int(heights_1[0])
        if line_width < 1 or line_height < 1:
            return None
        target_42 = np.array([[0, 0], [line_width, 0], [line_width, line_height], [0, line_height]], np.float32)
        matrix_33 = cv2.getPerspectiveTransform(corners_42.astype(np.float32), target_42)
        line_HW3 = cv2.warpPerspective(
            image_HW3, matrix_33, (line_width, line_height), flags=cv2.INTER_CUBIC, borderMode=cv2.BORDER_REPLICATE
        )
    return np.rot90(line_HW3) if line_HW3.shape[0] >= 1.5 * line_HW3.shape[1] else line_HW3
