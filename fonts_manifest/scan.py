"""From font folders to a manifest: what opens and can write is in, everything else is listed with its reason."""

from collections.abc import Callable, Iterable
from pathlib import Path

from fonts_manifest.config import Config
from fonts_manifest.errors import BadInput
from fonts_manifest.examine import WEB_FONTS
from fonts_manifest.manifest import FontFace, Manifest
from fonts_manifest.places import find_files
from fonts_manifest.workers import examine_all

SUFFIXES = frozenset({".ttf", ".otf", ".ttc", ".otc"}) | WEB_FONTS
SYSTEM_PLACES = ("/usr/share/fonts", "/usr/local/share/fonts", "~/.local/share/fonts", "~/.fonts")


class FontsConfig(Config):
    """Where a run finds its fonts."""

    places: tuple[str, ...] = ()
    """Folders (searched to the bottom), files, globs or `package:NAME/folder` for fonts inside an installed package."""
    system: bool = True
    """Search the usual system font folders as well, those that exist."""

    def all_places(self) -> list[str]:
        """`places` and, with `system`, the system folders of this machine."""
        system = [place for place in SYSTEM_PLACES if self.system and Path(place).expanduser().is_dir()]
        return [*self.places, *system]


def scan_fonts(
    places: Iterable[str], progress: Callable[[int, int], None] | None = None, *, processes: int | None = None
) -> tuple[Manifest, list[tuple[str, str]]]:
    """The manifest of every usable face under `places`, and (path, reason) of every file or face left out.

    Equal files count once (the first path wins). `progress` is called with (files done, files in all). The files are
    opened in `processes` processes of their own (None: as many as there is work and CPUs for), so a font that crashes
    a library is one more that is left out. Raises BadInput when a place does not exist or no face is usable.
    """
    named = list(places)
    files = find_files(named, SUFFIXES)
    faces: dict[str, FontFace] = {}
    left_out: list[tuple[str, str]] = []
    seen: dict[str, Path] = {}
    for path, found in zip(files, examine_all(files, processes, progress), strict=True):
        if found.sha256 in seen:
            left_out.append((str(path), f"the same file as {seen[found.sha256]}"))
            continue
        if found.sha256:
            seen[found.sha256] = path
        faces.update((face.face_id, face) for face in found.faces)
        left_out += found.left_out
    if not faces:
        raise BadInput(
            f"no usable font face under {', '.join(named) or 'no place at all'} ({len(left_out)} left out);"
            " name a folder with TTF or OTF fonts, or install the extra [demo]"
        )
    order = sorted(faces.values(), key=lambda face: (face.family, face.weight, face.italic, face.face_id))
    return Manifest(tuple(order)), left_out
