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
    not_entered: tuple[str, ...]
    """Folders inside the folder of originals."""


def pair_folders(targets: Path, outputs: Path) -> Folders:
    """Pairs by file name, sorted; one of another format pairs when nothing else has its name before the suffix.

    Folders inside the folders are not looked into. Raises BadInput when a folder or every pair is missing.
    """
    target_names, ignored, not_entered = _listed(targets)
    output_names, _, _ = _listed(outputs)
    if not target_names:
        inside = f"; the {len(not_entered)} folders in it are not looked into, give one of them" if not_entered else ""
        raise BadInput(f"{targets}: holds no pictures ({', '.join(sorted(SUFFIXES))}){inside}")
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
        not_entered=tuple(_shown(name) for name in not_entered),
    )


def _shown(name: str) -> str:
    """The name as text: bytes that are no UTF-8 become `\\udcff`, which every file and terminal takes."""
    return name.encode("utf-8", "backslashreplace").decode()


def _listed(folder: Path) -> tuple[list[str], list[str], list[str]]:
    """Names of the pictures, of the other files and of the folders in it, each sorted.

    Links that lead nowhere are listed: they have a reason why they cannot be opened.
    """
    try:
        inside = sorted(folder.iterdir())
    except OSError as error:
        raise BadInput(f"{folder}: no folder that can be listed ({error.strerror})") from error
    files = [path for path in inside if path.is_file() or (path.is_symlink() and not path.exists())]
    return (
        [path.name for path in files if path.suffix.lower() in SUFFIXES],
        [path.name for path in files if path.suffix.lower() not in SUFFIXES],
        [path.name for path in inside if path.is_dir()],
    )
