"""`glyphmill bench eval`: what reading a pair costs here, in the public benchmark's loop, and at the very least."""

import functools
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from datagen.decode import decode_plainly
from datagen.ocr import open_recognizer
from datagen.reading import ReaderChoice, read_pages
from vae.pairs import pair_folders

_Image = npt.NDArray[np.uint8]
_Shape = tuple[int, int, int, int]

PRODUCT_MKN = (192, 384, 8640)
"""The matrix product that the networks are compared with: one of their own, a 1x1 convolution of six lines."""


def bench_eval(targets: Path, outputs: Path, pairs: int) -> dict[str, Any]:
    """CPU seconds a page, picture by picture in turns, so that a busy machine slows all alike.

    loop: one `RapidOCR(...)(image)` after the other with its default threads, as the public script calls its reader;
    they wait for one another busily. one_thread: the same on one thread. exact: `glyphmill eval`, whose texts are the
    loop's. fast: `glyphmill eval --fast`. CPU seconds, because processes share the cores evenly; `shared` halves them:
    with `--readings` originals are not read again for another model.

    `networks` is what the reader's networks take of it, which equal texts cannot do without; `limit` is what would be
    left of `exact` if nothing but them ran, at the rate of a plain matrix product.
    """
    from rapidfuzz.distance import Levenshtein
    from rapidocr import RapidOCR

    quiet = {"Global.log_level": "critical", "Global.text_score": 0.0, "Global.use_cls": False}
    loop = RapidOCR(params=quiet)
    threads = {f"EngineConfig.onnxruntime.{kind}_op_num_threads": 1 for kind in ("intra", "inter")}
    one_thread = RapidOCR(params=quiet | threads)
    reader = open_recognizer("rapidocr")

    def theirs(image_HW3: _Image, library: RapidOCR) -> str:
        return "".join(library(np.ascontiguousarray(image_HW3[:, :, ::-1])).txts or ())

    def ours(image_HW3: _Image, *, fast: bool) -> str:
        (lines,) = read_pages(reader, [image_HW3], ReaderChoice(fast=fast))
        return "".join(line.text for line in lines)

    ways: dict[str, Callable[[_Image], str]] = {
        "loop": functools.partial(theirs, library=loop),
        "one_thread": functools.partial(theirs, library=one_thread),
        "exact": functools.partial(ours, fast=False),
        "fast": functools.partial(ours, fast=True),
    }
    chosen = pair_folders(targets, outputs).pairs[:pairs]
    images = [decode_plainly(path)[0] for pair in chosen for path in (pair.target, pair.output)]
    for read in ways.values():
        read(images[0])  # models are loaded at the first picture
    seconds, networks = dict.fromkeys(ways, 0.0), dict.fromkeys(ways, 0.0)
    texts: dict[str, list[str]] = {way: [] for way in ways}
    shapes: list[_Shape] = []
    rates: list[float] = []
    for image_HW3 in images:
        rates.append(_product_gflop_per_s())
        for way, read in ways.items():
            with _watched_networks() as runs:
                start = time.process_time()
                texts[way].append(read(image_HW3))
                seconds[way] += time.process_time() - start
            networks[way] += sum(spent for spent, _ in runs)
            shapes += [shape for _, shape in runs if way == "exact"]
    gflop = sum(_gflop(shape) for shape in shapes)
    limit_s = gflop / max(rates)
    return {
        "pages": len(images),
        "cpu_s_per_page": {way: spent / len(images) for way, spent in seconds.items()},
        "networks_cpu_s_per_page": {way: spent / len(images) for way, spent in networks.items()},
        "networks_gflop_per_page": gflop / len(images),
        "networks_gflop_per_s": gflop / networks["exact"],
        "product_gflop_per_s": max(rates),
        "limit_cpu_s_per_page": limit_s / len(images),
        "speed_up": {way: seconds["loop"] / spent for way, spent in seconds.items()},
        "speed_up_shared": {way: 2 * seconds["loop"] / spent for way, spent in seconds.items()},
        "speed_up_limit": seconds["loop"] / limit_s,
        "pages_with_the_loop_s_text": {
            way: sum(a == b for a, b in zip(read, texts["loop"], strict=True)) for way, read in texts.items()
        },
        "ned": {way: _mean_ned(texts[way], Levenshtein.normalized_similarity) for way in ways},
    }


def as_table(figures: dict[str, Any]) -> str:
    """What `bench_eval` found, for a terminal."""
    lines = []
    for way, seconds in figures["cpu_s_per_page"].items():
        same, ned = figures["pages_with_the_loop_s_text"][way], figures["ned"][way]
        alone, shared = figures["speed_up"][way], figures["speed_up_shared"][way]
        share = figures["networks_cpu_s_per_page"][way] / seconds
        lines += [
            f"{way:10} {seconds:.3f} CPU s a page, {alone:.2f} times the loop, {shared:.2f} with shared originals",
            f"{'':10} networks {share:.0%}; the loop's text on {same} of {figures['pages']} pages; NED {ned:.4f}",
        ]
    limit_s, limit = figures["limit_cpu_s_per_page"], figures["speed_up_limit"]
    lines.append(
        f"{'limit':10} {limit_s:.3f} CPU s a page, {limit:.2f} times the loop, {2 * limit:.2f} with shared ones"
    )
    gflop, rate = figures["networks_gflop_per_page"], figures["networks_gflop_per_s"]
    lines.append(
        f"{'':10} the networks of `exact` alone, {gflop:.0f} GFLOP a page, now at {rate:.0f} GFLOP/s, "
        f"at the {figures['product_gflop_per_s']:.0f} of a matrix product"
    )
    return "\n".join(lines)


def _mean_ned(texts: list[str], similarity: Callable[[str, str], float]) -> float:
    """Of originals (even places) and reconstructions (odd ones), over originals with text."""
    values = [similarity(a, b) for a, b in zip(texts[::2], texts[1::2], strict=True) if a]
    return float(np.mean(values)) if values else float("nan")


@contextmanager
def _watched_networks() -> Iterator[list[tuple[float, _Shape]]]:
    """CPU seconds and input of every network that onnxruntime runs meanwhile, whoever opened it."""
    from onnxruntime import InferenceSession

    runs: list[tuple[float, _Shape]] = []
    run = InferenceSession.run

    def watched(session: InferenceSession, names: Any, inputs: dict[str, Any], *more: Any) -> Any:
        start = time.process_time()
        outputs = run(session, names, inputs, *more)
        (batch_B3HW,) = inputs.values()
        runs.append((time.process_time() - start, batch_B3HW.shape))
        return outputs

    InferenceSession.run = watched
    try:
        yield runs
    finally:
        InferenceSession.run = run


@functools.cache
def _gflop(shape_B3HW: _Shape) -> float:
    """Of the network that takes such an input: lines have the recogniser's height, pages sides of whole cells."""
    import torch
    from torch.utils.flop_counter import FlopCounterMode

    from datagen.ppocr import LINE_HEIGHT_PX
    from datagen.ppocr_torch import load_detector, load_recogniser

    count, _, height, width = shape_B3HW
    network = load_recogniser() if height == LINE_HEIGHT_PX else load_detector()
    with torch.inference_mode(), FlopCounterMode(display=False) as counter:
        network.eval()(torch.zeros(1, 3, height, width))
    return count * counter.get_total_flops() / 1e9


def _product_gflop_per_s() -> float:
    """What one core does in float32 when it does nothing else."""
    import torch

    rows, inner, columns = PRODUCT_MKN
    left, right = torch.ones(rows, inner), torch.ones(inner, columns)
    torch.set_num_threads(1)
    best = float("inf")
    for _ in range(3):
        start = time.process_time()
        torch.mm(left, right)
        best = min(best, time.process_time() - start)
    return 2 * rows * inner * columns / best / 1e9
