"""Files of pages -> what a reader reads on them, in processes of their own; `python -m datagen.reading` is one."""

import dataclasses
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

from datagen.decode import ImageProblem, decode_plainly
from datagen.lines import Image, PageLine, Recognizer, check_image, library_order
from datagen.ocr import open_recognizer
from fonts_manifest.apart import Died, answers_in_groups, serve
from fonts_manifest.errors import BadInput

WORKER = "datagen.reading"
"""The module that a worker process runs."""

LIMIT_S = 600.0
"""For one file, or one group on a GPU. A page of 20 Mpx takes a minute on a busy machine."""

PAGES_AT_ONCE = 16
"""Files of a task on a GPU, where lines of many pages share a batch."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ReaderChoice:
    """A reader and how it reads."""

    name: str = "rapidocr"
    models: str | None = None
    """For paddleocr: a folder, or the name of models fetched before."""
    device: str = "cpu"
    """For torch."""
    fast: bool = False
    """Lines are found at the picture's own size and read one by one: about twice as fast as the library, whose texts
    differ in a few characters of a hundred. Without it every letter is the library's."""


@dataclass(frozen=True, slots=True, kw_only=True)
class PageReading:
    """What was read on one file."""

    reader: str
    """Engine and models."""
    lines: tuple[PageLine, ...]
    """In the library's order."""

    @classmethod
    def from_dict(cls, record: dict[str, Any]) -> "PageReading":
        """Back from `dataclasses.asdict`, through JSON."""
        lines = tuple(PageLine(**line | {"quad_px": tuple(line["quad_px"])}) for line in record["lines"])
        return cls(reader=record["reader"], lines=lines)


def read_files(
    paths: Sequence[Path], choice: ReaderChoice, *, processes: int = 1, limit_s: float | None = None
) -> Iterator[tuple[int, PageReading | Died]]:
    """(number of the file, its reading) as they come; `Died` with the reason where the file or the reader failed.

    Pixels are those of `decode_plainly`. Raises BadInput when the reader cannot be opened.
    """
    size = PAGES_AT_ONCE if choice.name == "torch" and choice.device != "cpu" else 1
    setup, tasks = dataclasses.asdict(choice), [str(path) for path in paths]
    for number, answer in answers_in_groups(
        WORKER, setup, tasks, size=size, processes=processes, limit_s=limit_s or LIMIT_S
    ):
        if isinstance(answer, Died):
            yield number, Died(f"the reader {answer.reason}")
        elif isinstance(answer, str):
            yield number, Died(answer)
        else:
            yield number, PageReading.from_dict(answer)


def read_pages(reader: Recognizer, images: Sequence[Image], choice: ReaderChoice) -> list[list[PageLine]]:
    """Lines of every picture in the library's order: read as the library reads, or the fast way."""
    if choice.name == "torch":
        from datagen.ocr_torch import TorchReader

        return cast(TorchReader, reader).read_pages(images, "library", "native" if choice.fast else "library")
    if not choice.fast:
        return [reader.read_page(image_HW3, "library") for image_HW3 in images]
    pages = []
    for image_HW3 in images:
        quads = reader.detect(image_HW3)
        quads = [quads[place] for place in library_order(quads)]
        lines = zip(reader.read_lines(image_HW3, quads), quads, strict=True)
        pages.append([PageLine(text=r.text, score=r.score, quad_px=quad) for r, quad in lines if r.text.strip()])
    return pages


def _open(setup: dict[str, Any]) -> Callable[[list[str]], list[Any]]:
    choice = ReaderChoice(**setup)
    reader = open_recognizer(choice.name, models=choice.models, device=choice.device)

    def answer(paths: list[str]) -> list[Any]:
        found: list[Any] = []
        images: dict[int, Image] = {}
        for index, path in enumerate(paths):
            try:
                image_HW3, _ = decode_plainly(path)
                check_image(image_HW3)
            except (ImageProblem, BadInput) as problem:
                found.append(str(problem))
                continue
            found.append(None)
            images[index] = image_HW3
        pages = read_pages(reader, list(images.values()), choice) if images else []
        for index, lines in zip(images, pages, strict=True):
            found[index] = dataclasses.asdict(PageReading(reader=reader.name, lines=tuple(lines)))
        return found

    return answer


if __name__ == "__main__":
    serve(_open)
