"""Language and category of pictures: from a list beside them, or from their file names."""

import json
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from fonts_manifest.errors import BadInput

KINDS = {"language": ("language", "lang"), "category": ("category", "data_source", "type")}
"""Kind of group -> the fields of a record that name it, the first that is there."""
_FILE_FIELDS = ("file", "file_name", "image", "name")
_PREFIX = re.compile(r"([A-Za-z]{2,})[_-]")


def groups_of(names: Sequence[str], folder: Path, labels: Path | None = None) -> dict[str, dict[str, str]]:
    """File name -> kind -> group.

    labels: a JSON list of records with a file name and `language` (`lang`) or `category`, or an object from file names
    to such records; FOLDER.json beside the folder unless given. Without a list, letters before the first `_` or `-` of
    the name are the group (`zh_000.png`: prefix zh). Raises BadInput when `labels` cannot be read.
    """
    beside = folder.resolve().parent / f"{folder.resolve().name}.json"
    if labels is None and beside.is_file():
        labels = beside
    if labels is None:
        found = {name: _PREFIX.match(name) for name in names}
        return {name: {"prefix": match[1]} if match else {} for name, match in found.items()}
    records = _load(labels)
    return {name: _kinds(records.get(name, {})) for name in names}


def _kinds(record: dict[str, Any]) -> dict[str, str]:
    chosen = {kind: next((record[f] for f in fields if record.get(f)), None) for kind, fields in KINDS.items()}
    return {kind: str(value) for kind, value in chosen.items() if value is not None}


def _load(path: Path) -> dict[str, dict[str, Any]]:
    try:
        listed = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise BadInput(f"{path}: cannot be read as JSON ({error})") from error
    if isinstance(listed, dict):
        return {Path(name).name: record for name, record in listed.items() if isinstance(record, dict)}
    if not isinstance(listed, list):
        raise BadInput(f"{path}: must hold a list of records, or an object from file names to records")
    named = {}
    for record in listed:
        name = next((record[f] for f in _FILE_FIELDS if f in record), None) if isinstance(record, dict) else None
        if isinstance(name, str):
            named[Path(name).name] = record
    return named
