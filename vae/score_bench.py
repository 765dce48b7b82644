"""`glyphmill bench eval`: what reading a pair costs here, and in the public benchmark's loop, in the same run."""

import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from datagen.decode import decode_plainly
from datagen.ocr import open_recognizer
from datagen.reading import ReaderChoice, read_pages
from vae.pairs import pair_folders

_Image = npt.NDArray[np.uint8]


def bench_eval(targets: Path, outputs: Path, pairs: int) -> dict[str, Any]:
    """CPU seconds a page, picture by picture in turns, so that a busy machine slows all alike.

    loop: one `RapidOCR(...)(image)` after the other with its default threads, as the public script calls its reader.
    exact: `glyphmill eval`, whose texts are the loop's. fast: `glyphmill eval --fast`. CPU seconds, because processes
    share the cores evenly; `shared` halves them: with `--readings` originals are not read again for another model.
    """
    from rapidfuzz.distance import Levenshtein
    from rapidocr import RapidOCR

    library = RapidOCR(params={"Global.log_level": "critical", "Global.text_score": 0.0, "Global.use_cls": False})
    reader = open_recognizer("rapidocr")

    def ours(image_HW3: _Image, *, fast: bool) -> str:
        (lines,) = read_pages(reader, [image_HW3], ReaderChoice(fast=fast))
        return "".join(line.text for line in lines)

    ways: dict[str, Callable[[_Image], str]] = {
        "loop": lambda image_HW3: "".join(library(np.ascontiguousarray(image_HW3[:, :, ::-1])).txts or ()),
        "exact": lambda image_HW3: ours(image_HW3, fast=False),
        "fast": lambda image_HW3: ours(image_HW3, fast=True),
    }
    chosen = pair_folders(targets, outputs).pairs[:pairs]
    images = [decode_plainly(path)[0] for pair in chosen for path in (pair.target, pair.output)]
    for read in ways.values():
        read(images[0])  # models are loaded at the first picture
    seconds = dict.fromkeys(ways, 0.0)
    texts: dict[str, list[str]] = {way: [] for way in ways}
    for image_HW3 in images:
        for way, read in ways.items():
            start = time.process_time()
            texts[way].append(read(image_HW3))
            seconds[way] += time.process_time() - start
    neds = {way: _mean_ned(texts[way], Levenshtein.normalized_similarity) for way in ways}
    return {
        "pages": len(images),
        "cpu_s_per_page": {way: spent / len(images) for way, spent in seconds.items()},
        "speed_up": {way: seconds["loop"] / spent for way, spent in seconds.items()},
        "speed_up_shared": {way: 2 * seconds["loop"] / spent for way, spent in seconds.items()},
        "pages_with_the_loop_s_text": {
            way: sum(a == b for a, b in zip(read, texts["loop"], strict=True)) for way, read in texts.items()
        },
        "ned": neds,
    }


def _mean_ned(texts: list[str], similarity: Callable[[str, str], float]) -> float:
    """Of originals (even places) and reconstructions (odd ones), over originals with text."""
    values = [similarity(a, b) for a, b in zip(texts[::2], texts[1::2], strict=True) if a]
    return float(np.mean(values)) if values else float("nan")
