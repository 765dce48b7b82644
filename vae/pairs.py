"""Which files of two folders belong together: originals and their reconstructions."""

from dataclasses import dataclass
from pathlib import Path

from fonts_manifest.errors import BadInput

SUFFIXES = frozenset({".png", ".jpg", ".jpeg", ".bmp", ".tiff", ".webp"})
"""What the public benchmark's script takes as pictures."""


@dataclass(frozen=True, slots=True)
class Pair:
    """An original and its reconstruction."""

    name: str
    """File name of the original, for reports."""
    target: Path
    output: Path


@dataclass(frozen=True, slots=True, kw_only=True)
class Folders:
    """All files of both folders, each in one place."""

    pairs: tuple[Pair, ...]
    missing: tuple[str, ...]
    """Originals without a reconstruction."""
    extra: tuple[str, ...]
    """Reconstructions of nothing."""
    ignored: tuple[str, ...]
    """Files of the folder of originals that the suffix does not make pictures."""


def pair_folders(targets: Path, outputs: Path) -> Folders:
    """Pairs by file name, sorted; one of another format pairs when nothing else has its name before the suffix.

    Folders inside the folders are not looked at. Raises BadInput when a folder or every pair is missing.
    """
    target_names, ignored = _pictures(targets)
    output_names, _ = _pictures(outputs)
    if not target_names:
        raise BadInput(f"{targets}: holds no pictures ({', '.join(sorted(SUFFIXES))})")
    free = set(output_names)
    chosen = {name: name for name in target_names if name in free}
    free -= set(chosen)
    by_stem: dict[str, list[str]] = {}
    for name in sorted(free):
        by_stem.setdefault(Path(name).stem, []).append(name)
    stems = [Path(name).stem for name in target_names]
    for name in target_names:
        candidates = by_stem.get(Path(name).stem, [])
        if name not in chosen and len(candidates) == 1 and stems.count(Path(name).stem) == 1:
            chosen[name] = candidates[0]
            free.remove(candidates[0])
    if not chosen:
        raise BadInput(f"{outputs}: none of its {len(output_names)} pictures is named as one of {targets}")
    return Folders(
        pairs=tuple(
            Pair(_shown(name), targets / name, outputs / chosen[name]) for name in target_names if name in chosen
        ),
        missing=tuple(_shown(name) for name in target_names if name not in chosen),
        extra=tuple(_shown(name) for name in sorted(free)),
        ignored=tuple(_shown(name) for name in ignored),
    )


def _shown(name: str) -> str:
    """The name as text: bytes that are no UTF-8 become `\\udcff`, which every file and terminal takes."""
    return name.encode("utf-8", "backslashreplace").decode()


def _pictures(folder: Path) -> tuple[list[str], list[str]]:
    """Names of the pictures, sorted, and of the other files."""
    try:
        files = sorted(path.name for path in folder.iterdir() if path.is_file())
    except OSError as error:
        raise BadInput(f"{folder}: no folder that can be listed ({error.strerror})") from error
    pictures = [name for name in files if Path(name).suffix.lower() in SUFFIXES]
    return pictures, [name for name in files if Path(name).suffix.lower() not in SUFFIXES]
