"""`FontFace`, one face of one font file, and `Manifest`, all that a run may draw with."""

import dataclasses
import hashlib
import json
import os
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from pydantic import ConfigDict, TypeAdapter, ValidationError

from fonts_manifest.errors import BadInput

FORMAT: Literal[1] = 1
"""Version of the JSON file."""
INSTANCE_SHIFT = 16
MAX_METRIC_EM = 8.0


@dataclass(frozen=True, slots=True, kw_only=True)
class FontFace:
    """One face: what specs name by `face_id`, what it can write, and what its licence allows."""

    __pydantic_config__ = ConfigDict(extra="forbid")
    face_id: str
    """First 16 hex digits of the file's SHA-256, "-", the face in the file; ".3" more for its third named instance."""
    path: str
    face_index: int
    """As FreeType, HarfBuzz and Pillow count: the face of a collection, 0 in other files, and from bit `INSTANCE_SHIFT`
    on the named instance of a variable font, from 1; 0 is its default."""
    sha256: str
    """Of the whole file, 64 hex digits."""
    family: str
    style: str
    weight: int
    """100 thin to 900 black, as CSS and OS/2 count."""
    italic: bool
    scripts: tuple[str, ...]
    """"latin": every printable ASCII character is drawn; "han": all 3,755 characters of GB 2312 level 1 are."""
    licence: str
    """SPDX expression when it is known from the name table or the family, else "unknown"."""
    fs_type: int
    """Embedding bits of OS/2, 0 when all is allowed (OpenType, OS/2 `fsType`)."""
    ascender: float
    """Above the baseline, in em, unrounded (`hhea`)."""
    descender: float
    """Below the baseline, in em, negative."""
    x_height: float
    """In em: OS/2 when it says so, else measured on "x"."""
    cap_height: float
    """In em: OS/2 when it says so, else measured on "H"."""
    coordinates: tuple[tuple[str, float], ...] = ()
    """(axis, value) of a named instance, such as ("wght", 700.0); empty for everything else."""

    @property
    def has_sane_metrics(self) -> bool:
        """Whether lines can be set by them: the others are refused by the scan and by the renderer."""
        heights = (self.ascender - self.descender, self.x_height, self.cap_height)
        return all(0 < height <= MAX_METRIC_EM for height in heights) and abs(self.ascender) <= MAX_METRIC_EM


@dataclass(frozen=True, slots=True)
class _Document:
    """The JSON file."""

    __pydantic_config__ = ConfigDict(extra="forbid")
    format: Literal[1]
    digest: str
    faces: tuple[FontFace, ...]


@dataclass(frozen=True, slots=True)
class Manifest:
    """The faces of a run, sorted by family, weight, italic and id."""

    faces: tuple[FontFace, ...]

    @property
    def digest(self) -> str:
        """64 hex digits that depend on the face ids only: the same fonts in another folder are the same manifest."""
        return hashlib.sha256("\n".join(sorted(face.face_id for face in self.faces)).encode()).hexdigest()


def embedding(fs_type: int) -> str:
    """What OS/2 `fsType` allows, in a word. Pictures of text embed no font, so nothing is refused for it."""
    levels = {0x2: "restricted", 0x4: "print", 0x8: "editable"}
    words = [word for bit, word in levels.items() if fs_type & bit][-1:] or ["free"]  # the most permissive bit counts
    return " ".join(words + [word for bit, word in ((0x100, "whole"), (0x200, "bitmap")) if fs_type & bit])


def sha256_of(path: Path) -> str:
    """SHA-256 of a file's bytes, 64 hex digits."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def save_manifest(manifest: Manifest, path: Path) -> None:
    """Write the manifest as JSON; the file appears whole or not at all."""
    document = dataclasses.asdict(_Document(FORMAT, manifest.digest, manifest.faces))
    path.parent.mkdir(parents=True, exist_ok=True)
    descriptor, name = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")
    try:
        with os.fdopen(descriptor, "w", encoding="utf-8") as file:
            os.fchmod(descriptor, 0o644)  # mkstemp gives 0600: others could not read the run folder
            json.dump(document, file, ensure_ascii=False, indent=1)
            file.flush()
            os.fsync(file.fileno())
        os.replace(name, path)
    except BaseException:
        Path(name).unlink(missing_ok=True)
        raise


def load_manifest(path: Path, *, verify: bool = True) -> Manifest:
    """Read what `save_manifest` wrote.

    `verify`: every font file must still be there with the same bytes (reads them all; the fonts of the demo take .1 s).
    Raises BadInput when the file is missing, no manifest, of another format, or does not match the fonts.
    """
    try:
        document = TypeAdapter(_Document).validate_json(path.read_bytes(), strict=True)
    except FileNotFoundError:
        raise BadInput(f"{path}: no such manifest; make one with `glyphmill fonts scan`") from None
    except OSError as error:
        raise BadInput(f"{path}: cannot be read ({error.strerror})") from None
    except ValidationError as error:
        first = error.errors()[0]
        where = ".".join(map(str, first["loc"])) or "the file"
        raise BadInput(
            f"{path}: not a fonts manifest of format {FORMAT}: {where}: {first['msg']}; scan again"
        ) from None
    faces = document.faces
    manifest = Manifest(tuple(faces))
    if manifest.digest != document.digest:
        raise BadInput(f"{path}: the digest does not match the faces; the file was edited, make it again")
    if verify:
        for font, sha256 in {face.path: face.sha256 for face in faces}.items():
            if not Path(font).is_file():
                raise BadInput(f"{path}: the font {font} is missing; scan again where the fonts are")
            if sha256_of(Path(font)) != sha256:
                raise BadInput(f"{path}: the font {font} has changed since the scan; scan again")
    return manifest
