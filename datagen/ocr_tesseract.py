"""tesseract as a second opinion: the program of that name, started for every picture; no library is needed."""

import csv
import io
import os
import shutil
import subprocess
from collections.abc import Sequence
from typing import Literal

import cv2

from datagen.lines import Image, Order, PageLine, Quad, Reading, check_image, cut_line, order_by
from fonts_manifest.errors import BadInput

ENLARGE = 2
"""Pictures are enlarged before reading: 5 to 20 px letters are below what tesseract was made for."""
LANGUAGES = ("eng", "chi_sim")
_SECONDS = 120
# Its threads wait for one another: one alone read a page of 512 x 512 px in 1.1 s of CPU where several took 3.6.
_ONE_THREAD = {"OMP_THREAD_LIMIT": "1"}


class TesseractReader:
    """English and, when its data is installed, simplified Chinese. Blanks are dropped: it sets one between hanzi.

    Raises BadInput when the program or both languages are missing.
    """

    def __init__(self) -> None:
        program = shutil.which("tesseract")
        if program is None:
            raise BadInput("ocr: the program tesseract is not installed; install it, or leave this reader out")
        listed = _start([program, "--list-langs"], b"").split()
        found = [language for language in LANGUAGES if language in listed]
        if not found:
            raise BadInput(f"ocr: tesseract has no data for {' or '.join(LANGUAGES)}; install its language packages")
        version = _start([program, "--version"], b"").split()[1]
        self.name = f"tesseract {version} {'+'.join(found)}"
        self._command = [program, "stdin", "stdout", "-l", "+".join(found), "--dpi", "150"]

    def read_lines(self, image_HW3: Image, quads: Sequence[Sequence[float]]) -> list[Reading]:
        """One start of the program a line (.1 s)."""
        check_image(image_HW3)
        readings = []
        for quad in quads:
            line_HW3 = cut_line(image_HW3, quad)
            lines = [] if line_HW3 is None else self._read(line_HW3, "7")
            text = "".join(line.text for line in lines)
            readings.append(Reading(text=text, score=lines[0].score if lines else 0.0))
        return readings

    def read_page(self, image_HW3: Image, order: Order = "mended") -> list[PageLine]:
        """Lines of one uniform block of text (page segmentation 6)."""
        check_image(image_HW3)
        lines = self._read(image_HW3, "6")
        return [lines[index] for index in order_by(order, [line.quad_px for line in lines])]

    def detect(self, image_HW3: Image, resolution: Literal["native", "library"] = "native") -> list[Quad]:
        """Places of the lines of `read_page`."""
        return [line.quad_px for line in self.read_page(image_HW3)]

    def _read(self, image_HW3: Image, segmentation: str) -> list[PageLine]:
        large_HW3 = cv2.resize(image_HW3, None, fx=ENLARGE, fy=ENLARGE, interpolation=cv2.INTER_CUBIC)
        _, encoded = cv2.imencode(".png", large_HW3[:, :, ::-1])
        table = _start([*self._command, "--psm", segmentation, "tsv"], encoded.tobytes())
        words: dict[tuple[str, ...], list[dict[str, str]]] = {}
        for row in csv.DictReader(io.StringIO(table), delimiter="\t", quoting=csv.QUOTE_NONE):
            if row["level"] == "5" and row["text"].strip():
                words.setdefault((row["block_num"], row["par_num"], row["line_num"]), []).append(row)
        return [_as_line(rows) for rows in words.values()]


def _as_line(rows: list[dict[str, str]]) -> PageLine:
    left, top = (min(int(row[side]) for row in rows) / ENLARGE for side in ("left", "top"))
    right = max(int(row["left"]) + int(row["width"]) for row in rows) / ENLARGE
    bottom = max(int(row["top"]) + int(row["height"]) for row in rows) / ENLARGE
    return PageLine(
        text="".join(row["text"].strip() for row in rows),
        score=sum(float(row["conf"]) for row in rows) / len(rows) / 100,
        quad_px=(left, top, right, top, right, bottom, left, bottom),
    )


def _start(command: list[str], source: bytes) -> str:
    """What the program prints. Raises BadInput with its own words when it fails."""
    try:
        done = subprocess.run(
            command, input=source, capture_output=True, timeout=_SECONDS, check=False, env=os.environ | _ONE_THREAD
        )
    except (OSError, subprocess.TimeoutExpired) as error:
        raise BadInput(f"ocr: tesseract gave no answer ({error})") from error
    if done.returncode:
        raise BadInput(f"ocr: tesseract failed ({done.stderr.decode(errors='replace').strip()[-200:]})")
    return done.stdout.decode("utf-8", errors="replace")
