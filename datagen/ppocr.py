"""PP-OCR without an engine: where its networks lie, what they take, and what their classes mean."""

import functools
import importlib.util
import math
from pathlib import Path
from typing import Literal

import cv2
import numpy as np
import numpy.typing as npt

from fonts_manifest.errors import BadInput

LINE_HEIGHT_PX = 48
"""Height of the recogniser's input."""

LINE_WIDTH_SCALE = 0.85
"""Lines are squeezed so much before reading: a sixth less time at equal NED (real crops against the text layer of their
PDFs: .979 at 1, .981 at .85, .979 at .7; lines of 5 to 20 px over photographs: .886, .881, .857 at .75)."""
WIDTH_STEP_PX = 16
"""Lines are stretched to a multiple of this, mostly by 1 or 2 %, so that many share a batch without padding."""
MAX_LINE_WIDTH_PX = 3200  # 400 steps of 18,710 classes are 30 MB

MODEL_NAME = "PP-OCRv6 small"
_FILES = {"detector": "PP-OCRv6_det_small.onnx", "recogniser": "PP-OCRv6_rec_small.onnx"}


def model_path(network: Literal["detector", "recogniser"]) -> Path:
    """The ONNX file of a network, inside the wheel of rapidocr, which is not imported for it.

    Raises BadInput when rapidocr is not installed, or comes without the file.
    """
    found = importlib.util.find_spec("rapidocr")
    if found is None or found.origin is None:
        raise BadInput("ocr: rapidocr is not installed, and its wheel holds the networks; install glyphmill[ocr]")
    path = Path(found.origin).parent / "models" / _FILES[network]
    if not path.is_file():
        raise BadInput(f"ocr: the installed rapidocr has no {path.name} in its wheel; install the locked version")
    return path


@functools.cache
def characters() -> tuple[str, ...]:
    """The recogniser's classes, 18,710: class 0 is the CTC blank (""), the last one the space."""
    import onnx

    model = onnx.load(str(model_path("recogniser")), load_external_data=False)
    (listed,) = [entry.value for entry in model.metadata_props if entry.key == "character"]
    return ("", *listed.splitlines(), " ")


def resize_line(line_HW3: npt.NDArray[np.uint8]) -> npt.NDArray[np.uint8]:
    """A line of any size -> (48, W, 3) uint8 for the recogniser, W a multiple of 16."""
    height, width = line_HW3.shape[:2]
    return np.asarray(cv2.resize(line_HW3, (input_width(width, height), LINE_HEIGHT_PX)), np.uint8)


def input_width(width_px: float, height_px: float) -> int:
    """Width of the recogniser's input for a line of that size."""
    steps = math.ceil(LINE_HEIGHT_PX * LINE_WIDTH_SCALE * width_px / height_px / WIDTH_STEP_PX)
    return min(max(1, steps) * WIDTH_STEP_PX, MAX_LINE_WIDTH_PX)


def decode_ctc(
    best_T: npt.NDArray[np.intp], probability_T: npt.NDArray[np.floating], names: tuple[str, ...]
) -> tuple[str, float]:
    """Greedy CTC: the best class of every step -> text and the mean probability of its characters, 0 for "".

    best_T: classes. probability_T: of those classes. Repeated classes count once, the blank (0) separates them.
    """
    kept_T = best_T != 0
    kept_T[1:] &= best_T[1:] != best_T[:-1]
    if not kept_T.any():
        return "", 0.0
    return "".join(names[index] for index in best_T[kept_T]), float(probability_T[kept_T].mean())
