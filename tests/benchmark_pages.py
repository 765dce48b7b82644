"""Pages for the tests of `tokenbench`: drawn, annotated, and a reader that says what it is told."""

import json
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
from PIL import Image, ImageDraw, ImageFont

from datagen.ocr import PageLine, Reading
from vae import textcrops
from vae.candidates import TokenBenchRecipe
from vae.tokenbench import build

RECIPE = TokenBenchRecipe(kind="tokenbench")

WORDS = (
    *("miller", "grain", "wheel", "stone", "water", "morning", "flour", "letter", "press", "glyph", "paper", "margin"),
    *(
        "column",
        "harbour",
        "lantern",
        "winter",
        "orchard",
        "thunder",
        "village",
        "copper",
        "needle",
        "meadow",
        "candle",
    ),
)


def prose(rng: np.random.Generator, words: int) -> str:
    return " ".join(WORDS[i] for i in rng.integers(len(WORDS), size=words))


def draw_lines(image: Image.Image, lines: Sequence[str], left: int, top: int, size_px: int, pitch_px: int) -> None:
    from matplotlib import font_manager

    font = ImageFont.truetype(font_manager.findfont("DejaVu Sans"), size_px)
    for number, line in enumerate(lines):
        ImageDraw.Draw(image).text((left, top + number * pitch_px), line, fill=(20, 20, 20), font=font)


def wrapped(text: str, characters: int) -> list[str]:
    lines, line = [], ""
    for word in text.split():
        if len(line) + len(word) >= characters:
            lines.append(line.strip())
            line = ""
        line += word + " "
    return [*lines, line.strip()]


def poly(left: float, top: float, right: float, bottom: float) -> list[float]:
    return [left, top, right, top, right, bottom, left, bottom]


def block(box: tuple[float, float, float, float], text: str = "", **more: Any) -> dict[str, Any]:
    return {"category_type": "text_block", "poly": poly(*box), "ignore": False, "anno_id": 0, "text": text} | more


def entry(
    image: str, blocks: Sequence[dict[str, Any]], width: int = 800, height: int = 800, **page: Any
) -> dict[str, Any]:
    attribute = {"data_source": "book", "language": "english", "layout": "single_column", "fuzzy_scan": False} | page
    info = {"page_no": 0, "height": height, "width": width, "image_path": image, "page_attribute": attribute}
    return {"layout_dets": list(blocks), "page_info": info, "extra": {"relation": []}}


def write_annotations(path: Path, entries: Sequence[dict[str, Any]]) -> Path:
    path.write_text(json.dumps(entries, ensure_ascii=False), encoding="utf-8")
    return path


class Scribe:
    """A reader that says what it is told, by the mean colour of the picture's first pixel; counts what it reads."""

    name = "scribe"

    def __init__(self, texts: dict[int, str], score: float = 0.99) -> None:
        self.texts, self.score, self.reads = texts, score, 0

    def read_page(self, image_HW3: npt.NDArray[np.uint8], order: str = "mended") -> list[PageLine]:
        self.reads += 1
        text = self.texts.get(int(image_HW3[0, 0, 0]), "")
        return [PageLine(text=line, score=self.score, quad_px=(0,) * 8) for line in text.splitlines()]

    def read_lines(self, image_HW3: npt.NDArray[np.uint8], quads: Sequence[Any]) -> list[Reading]:
        raise AssertionError("annotated pages are not searched for lines")

    detect = read_lines  # type: ignore[assignment]


def textured(value: int, width: int = 800, height: int = 800) -> Image.Image:
    """A page sharp and full everywhere, whose left column of pixels tells the scribe what it is."""
    rng = np.random.default_rng(value)
    # Squares of 3 px: a page is shrunk before its sharpness is measured.
    squares = np.kron(rng.integers(0, 2, (height // 3 + 1, width // 3 + 1)) * 200, np.ones((3, 3), int))
    squares = squares[:height, :width].astype(np.uint8)
    page_HW3 = np.repeat(squares[..., None], 3, axis=2)
    page_HW3[:400, :40] = value
    return Image.fromarray(page_HW3)


LONG = "\n".join(prose(np.random.default_rng(1), 12) for _ in range(6))  # about 440 characters

OTHER = "\n".join(prose(np.random.default_rng(2), 12) for _ in range(6))


def one_of_each(pages: Path) -> tuple[list[dict[str, Any]], Scribe]:
    """A page for every outcome; the reader's texts by the grey that marks each page."""
    big, box = {"order": 1}, (0.0, 0.0, 700.0, 700.0)
    text = "x" * 49 * 49  # cells of 14.3 px: the crop is 366 px of the page
    entries = []

    def page(
        value: int, name: str, blocks: list[dict[str, Any]], picture: Image.Image | None = None, **more: Any
    ) -> None:
        (picture or textured(value)).save(pages / name)
        entries.append(entry(name, blocks, **more))

    page(10, "kept.png", [block(box, text, **big)])
    page(20, "few.png", [block(box, text, **big)])
    page(30, "many.png", [block(box, text, **big)])
    page(40, "again.png", [block(box, text, **big)])
    page(50, "blank.png", [block(box, text, **big)], Image.new("RGB", (800, 800), (50, 50, 50)))
    soft = textured(60).resize((80, 80)).resize((800, 800), Image.Resampling.BICUBIC)
    page(60, "soft.png", [block(box, text, **big)], soft)
    others = [
        block(box, text, category_type="table"),
        block(box, text, ignore=True),
        block(box, text, attribute={"text_rotate": "rotate270"}),
        block(box, ""),
        block(box, text, attribute={"text_language": "text_traditional_chinese"}),
        block((0, 0, 100, 100), "x" * 400),  # cells of 5 px
        block((600, 600, 790, 790), "x" * 170),
    ]
    page(70, "others.png", [b | {"order": n} for n, b in enumerate(others)])
    page(80, "small.png", [block((0, 0, 90, 45), "x" * 20, **big)])
    entries.append(entry("missing.png", [block(box, text, **big)]))
    (pages / "broken.png").write_bytes(b"no picture")
    entries.append(entry("broken.png", [block(box, text, **big)]))
    texts = {10: LONG, 20: "too short", 30: LONG + OTHER, 40: LONG[:-20], 60: OTHER}
    return entries, Scribe(texts)


def build_one_of_each(pages: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> tuple[Path, Scribe, Path]:
    """A benchmark with one candidate of every outcome: its folder, its reader, its annotations."""
    entries, scribe = one_of_each(pages)
    annotations = write_annotations(tmp_path / "annotations.json", entries)
    monkeypatch.setattr(textcrops, "open_recognizer", lambda name: scribe)
    build(RECIPE, pages, annotations, tmp_path / "out")
    return tmp_path / "out", scribe, annotations


def embedded(page: Path) -> dict[str, Any]:
    found = re.search(
        r'<script type="application/json" id="data">(.*?)</script>', page.read_text(encoding="utf-8"), re.DOTALL
    )
    assert found is not None
    loaded: dict[str, Any] = json.loads(found[1])
    return loaded


def decide(path: Path, data: dict[str, Any], decisions: dict[str, dict[str, str]]) -> Path:
    path.write_text(json.dumps({"benchmark": data["benchmark"], "decisions": decisions}))
    return path
