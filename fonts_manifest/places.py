"""Where files of ours come from: a path, a folder, a glob, or `package:NAME/...` for data inside an installed wheel."""

import glob
import importlib.util
from collections.abc import Iterable
from pathlib import Path

from fonts_manifest.errors import BadInput


def resolve_place(place: str) -> Path:
    """The path behind `place`; `package:skimage/data` is the folder `data` of the installed package `skimage`.

    The package is found, not imported. Raises BadInput when it is not installed.
    """
    if not place.startswith("package:"):
        return Path(place).expanduser()
    name, _, inside = place.removeprefix("package:").partition("/")
    spec = importlib.util.find_spec(name)
    if spec is None or not spec.submodule_search_locations:
        raise BadInput(f"{place}: the package {name!r} is not installed; install it or name a folder instead")
    return Path(next(iter(spec.submodule_search_locations))) / inside


def find_files(places: Iterable[str], suffixes: frozenset[str]) -> list[Path]:
    """All files under `places` (files, folders searched to the bottom, globs) with a suffix of `suffixes` (lower case).

    Sorted within each place, each file once; a file that is named outright needs no matching suffix. Raises BadInput
    when a place does not exist.
    """
    found: dict[Path, None] = {}
    for place in places:
        root = resolve_place(place)
        if root.is_file():
            candidates = [root]
        elif root.is_dir():
            candidates = sorted(path for path in root.rglob("*") if path.suffix.lower() in suffixes and path.is_file())
        else:
            candidates = [Path(match) for match in sorted(glob.glob(str(root), recursive=True))]
            candidates = [path for path in candidates if path.suffix.lower() in suffixes and path.is_file()]
            if not candidates:
                raise BadInput(f"{place}: no such file or folder, and as a pattern it matches nothing")
        found.update(dict.fromkeys(candidates))
    return list(found)
