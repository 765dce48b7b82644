"""Files of text -> raw paragraphs, one after the other: nothing is read whole that can be read in pieces."""

import ast
import json
from collections.abc import Callable, Iterator
from pathlib import Path

import pyarrow as pa
from pyarrow import parquet as pq

from datagen.prose import english_prose, join_lines
from fonts_manifest.errors import BadInput

_MAX_LINE = 1 << 20
"""Characters of one line read at a time: a file without line ends does not fill the memory."""
HUB = "hub:"
"""Before the name of a data set of the Hugging Face hub: nothing else makes the corpus use the network."""


def _lines_of(path: Path) -> Iterator[str]:
    with path.open(encoding="utf-8-sig", newline=None) as file:
        while line := file.readline(_MAX_LINE):
            yield line


def _text_paragraphs(path: Path, _: str) -> Iterator[str]:
    block: list[str] = []
    size = 0
    for line in _lines_of(path):
        if line.strip() and size < _MAX_LINE:
            block.append(line.strip())
            size += len(line)
        else:
            yield join_lines(block)
            block, size = ([line.strip()], len(line)) if line.strip() else ([], 0)
    yield join_lines(block)


def _line_paragraphs(path: Path, _: str) -> Iterator[str]:
    yield from _lines_of(path)


def _jsonl_paragraphs(path: Path, field: str) -> Iterator[str]:
    for line in _lines_of(path):
        try:
            row = json.loads(line)
        except ValueError:
            yield ""  # counted as too short
            continue
        text = row.get(field) if isinstance(row, dict) else None
        yield from text.split("\n") if isinstance(text, str) else ("",)


def _parquet_paragraphs(path: Path, field: str) -> Iterator[str]:
    with pq.ParquetFile(path) as file:
        column = file.schema_arrow.field(field)
        if not (pa.types.is_string(column.type) or pa.types.is_large_string(column.type)):
            raise KeyError(field)
        for batch in file.iter_batches(batch_size=1024, columns=[field]):
            for text in batch.column(0).to_pylist():
                yield from (text or "").split("\n")


def _topic_paragraphs(path: Path, _: str) -> Iterator[str]:
    # Parsed, not imported: the file is one dictionary literal.
    for node in ast.parse(path.read_text(encoding="utf-8")).body:
        if isinstance(node, ast.Assign) and isinstance(node.value, ast.Dict):
            for text in ast.literal_eval(node.value).values():
                yield from english_prose(text)


READERS: dict[str, tuple[Callable[[Path, str], Iterator[str]], frozenset[str]]] = {
    "text": (_text_paragraphs, frozenset({".txt", ".md", ".text"})),
    "lines": (_line_paragraphs, frozenset({".txt", ".text"})),
    "jsonl": (_jsonl_paragraphs, frozenset({".jsonl", ".ndjson"})),
    "parquet": (_parquet_paragraphs, frozenset({".parquet"})),
    "topics": (_topic_paragraphs, frozenset({".py"})),
}
"""Format -> the reader of one file (path, field) and the suffixes of its files."""


def dataset_paragraphs(place: str, field: str, split: str) -> Iterator[str]:
    """Paragraphs of a Hugging Face data set, streamed: a folder that `save_to_disk` wrote, a folder of data files that
    `datasets.load_dataset` reads, or `hub:OWNER/NAME` over the network.

    Raises BadInput when there is no such data set, split or column of texts.
    """
    import datasets

    folder = Path(place)
    try:
        if place.startswith(HUB):
            rows = datasets.load_dataset(place.removeprefix(HUB), split=split, streaming=True)
        elif not folder.is_dir():
            raise BadInput(f"{place}: no such folder; a data set of the hub is named {HUB}OWNER/NAME")
        elif (folder / "dataset_dict.json").exists():
            rows = datasets.load_from_disk(place)[split]
        elif (folder / "dataset_info.json").exists() or (folder / "state.json").exists():
            rows = datasets.load_from_disk(place)
        else:
            rows = datasets.load_dataset(place, split=split, streaming=True)
    except (OSError, ValueError, KeyError, datasets.exceptions.DatasetsError) as error:
        first = (str(error).splitlines() or [""])[0]
        raise BadInput(f"{place}: cannot be opened as a data set with the split {split!r} ({first})") from None
    if rows.column_names is not None and field not in rows.column_names:
        raise BadInput(f"{place}: has no column {field!r}, only {', '.join(sorted(rows.column_names))}")
    # Only this column: pictures and sounds beside it are not decoded.
    for row in rows.select_columns([field]):
        text = row[field]
        yield from text.split("\n") if isinstance(text, str) else ("",)
