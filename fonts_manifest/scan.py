"""From font folders to a manifest: what opens and can write is in, everything else is listed with its reason."""

import re
import struct
from collections.abc import Callable, Iterable
from pathlib import Path

import freetype
import uharfbuzz as hb
from fontTools.agl import AGL2UV

from fonts_manifest.config import Config
from fonts_manifest.coverage import ASCII, LOAD_FLAGS, draws, gb2312_level_1, open_freetype
from fonts_manifest.errors import BadInput
from fonts_manifest.manifest import FontFace, Manifest, sha256_of
from fonts_manifest.places import find_files

SUFFIXES = frozenset({".ttf", ".otf", ".ttc", ".otc"})
SYSTEM_PLACES = ("/usr/share/fonts", "/usr/local/share/fonts", "~/.local/share/fonts", "~/.fonts")
MAX_FILE_BYTES = 200_000_000
"""The largest open collection (Noto Sans CJK, all regions and weights) has 120 MB."""
MAX_FACES_PER_FILE = 256

LICENCE_MARKS = (
    ("open font license", "OFL-1.1"),
    ("scripts.sil.org/ofl", "OFL-1.1"),
    ("openfontlicense.org", "OFL-1.1"),
    ("bitstream vera", "Bitstream-Vera"),
    ("ubuntu font licence", "Ubuntu-font-1.0"),
    ("gust font licen", "GUST-Font-License-1.0"),
    ("apache license", "Apache-2.0"),
    ("apache.org/licenses", "Apache-2.0"),
    ("mit license", "MIT"),
    ("cc0", "CC0-1.0"),
)
"""Marks searched in name records 13 and 14 (licence and its address), in lower case, first match wins."""

FAMILY_LICENCES = (
    ("dejavu math", "GUST-Font-License-1.0"),
    ("dejavu ", "Bitstream-Vera"),
    ("bitstream vera", "Bitstream-Vera"),
    ("noto ", "OFL-1.1"),
    ("source han", "OFL-1.1"),
    ("wenquanyi micro hei", "Apache-2.0 OR GPL-3.0-with-font-exception"),
    ("stix", "OFL-1.1"),
)
"""Families whose licence their name tables do not say, or say by halves (WenQuanYi names one of its two)."""

NEUTRAL_GLYPH_NAME = re.compile(r"(gid|cid|glyph|index|g)\.?\d+|u(ni)?[0-9A-Fa-f]{4,6}", re.IGNORECASE)


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
    places: Iterable[str], progress: Callable[[int, int], None] | None = None
) -> tuple[Manifest, list[tuple[str, str]]]:
    """The manifest of every usable face under `places`, and (path, reason) of every file or face left out.

    Equal files count once (the first path wins). `progress` is called with (files done, files in all).
    Raises BadInput when a place does not exist or no face is usable.
    """
    named = list(places)
    files = find_files(named, SUFFIXES)
    faces: dict[str, FontFace] = {}
    left_out: list[tuple[str, str]] = []
    seen: dict[str, Path] = {}
    for done, path in enumerate(files):
        if progress is not None:
            progress(done, len(files))
        try:
            if path.stat().st_size > MAX_FILE_BYTES:
                raise BadInput(f"larger than {MAX_FILE_BYTES} bytes")
            sha256 = sha256_of(path)
        except (OSError, BadInput) as error:
            left_out.append((str(path), str(error)))
            continue
        if sha256 in seen:
            left_out.append((str(path), f"the same file as {seen[sha256]}"))
            continue
        seen[sha256] = path
        for index, face in _faces_of_file(path, sha256):
            if isinstance(face, FontFace):
                faces[face.face_id] = face
            else:
                left_out.append((str(path) if index is None else f"{path}#{index}", face))
    if progress is not None:
        progress(len(files), len(files))
    if not faces:
        raise BadInput(
            f"no usable font face under {', '.join(named) or 'no place at all'} ({len(left_out)} left out);"
            " name a folder with TTF or OTF fonts, or install the extra [demo]"
        )
    order = sorted(faces.values(), key=lambda face: (face.family, face.weight, face.italic, face.face_id))
    return Manifest(tuple(order)), left_out


def _faces_of_file(path: Path, sha256: str) -> list[tuple[int | None, FontFace | str]]:
    """(index, face or the reason why it is left out) of each face; index None when the whole file is unreadable."""
    try:
        count = freetype.Face(str(path), 0).num_faces
    except freetype.FT_Exception as error:
        return [(None, f"not a font that FreeType can open ({error})")]
    if count > MAX_FACES_PER_FILE:
        return [(None, f"{count} faces in one file, more than {MAX_FACES_PER_FILE}")]
    faces: list[tuple[int | None, FontFace | str]] = []
    for index in range(count):
        try:
            faces.append((index, _face(path, index, sha256)))
        except BadInput as error:
            faces.append((index, str(error)))
    return faces


def _face(path: Path, index: int, sha256: str) -> FontFace:
    """One face of a file. Raises BadInput with the reason when it cannot be used."""
    handle = open_freetype(path, index)
    if not handle.is_scalable or handle.units_per_EM <= 0:
        raise BadInput("bitmap only: it has no outlines")
    shaper_face = hb.Face(hb.Blob.from_file_path(str(path)), index)
    shaper = hb.Font(shaper_face)
    missing = [character for character in ASCII if not draws(handle, ord(character))]
    if missing:
        raise BadInput(f"lacks {len(missing)} of 95 ASCII characters, {missing[0]!r} among them")
    _refuse_foreign_glyphs(handle, shaper)
    os2 = shaper_face.reference_table("OS/2").data or b""
    weight, fs_type = struct.unpack_from(">H2xH", os2, 4) if len(os2) >= 10 else (400, 0)
    selection = struct.unpack_from(">H", os2, 62)[0] if len(os2) >= 64 else 0
    version = struct.unpack_from(">H", os2, 0)[0] if len(os2) >= 2 else 0
    x_height, cap_height = struct.unpack_from(">hh", os2, 86) if version >= 2 and len(os2) >= 90 else (0, 0)
    em = handle.units_per_EM
    family = _name(shaper_face, "TYPOGRAPHIC_FAMILY", "FONT_FAMILY") or _decoded(handle.family_name) or path.stem
    style = _name(shaper_face, "TYPOGRAPHIC_SUBFAMILY", "FONT_SUBFAMILY") or _decoded(handle.style_name) or "Regular"
    bold = bool(handle.style_flags & freetype.FT_STYLE_FLAG_BOLD)
    return FontFace(
        face_id=f"{sha256[:16]}-{index}",
        path=str(path),
        face_index=index,
        sha256=sha256,
        family=family,
        style=style,
        weight=weight if 100 <= weight <= 900 else 700 if bold else 400,
        italic=bool(handle.style_flags & freetype.FT_STYLE_FLAG_ITALIC) or bool(selection & 0x201),
        scripts=("latin", "han") if all(draws(handle, ord(han)) for han in gb2312_level_1()) else ("latin",),
        licence=_licence(shaper_face, family),
        fs_type=fs_type,
        ascender=handle.ascender / em,
        descender=handle.descender / em,
        x_height=(x_height or _height_of(handle, "x")) / em,
        cap_height=(cap_height or _height_of(handle, "H")) / em,
    )


def _refuse_foreign_glyphs(handle: freetype.Face, shaper: hb.Font) -> None:
    """Raises BadInput when ASCII characters show something else: what is drawn would not be what the label says.

    Measured: BaKoMa's cmr10 draws an inverted exclamation mark for "<", cmsy10 arrows for "!", cmex10 big brackets for
    letters, and LastResort one and the same box for all.
    """
    glyphs = {character: freetype.FT_Get_Char_Index(handle._FT_Face, ord(character)) for character in ASCII[1:]}
    if len(set(glyphs.values())) < len(glyphs) // 2:
        raise BadInput("draws the same glyph for many ASCII characters: a last-resort font")
    for character, glyph in glyphs.items():
        name = (shaper.get_glyph_name(glyph) or "").split(".")[0]
        named = AGL2UV.get(name)
        if named is not None and named != ord(character) and named > 0x20:
            raise BadInput(f"draws {name!r} for {character!r}: the labels of its pictures would be wrong")
        if named is None and character.isalpha() and name and not NEUTRAL_GLYPH_NAME.fullmatch(name):
            raise BadInput(f"draws {name!r} for {character!r}: a symbol font")


def _height_of(handle: freetype.Face, character: str) -> int:
    """Height of a character's outline above the baseline in font units."""
    glyph = freetype.FT_Get_Char_Index(handle._FT_Face, ord(character))
    handle.load_glyph(glyph, LOAD_FLAGS)
    return int(handle.glyph.outline.get_bbox().yMax)


def _name(face: hb.Face, *records: str) -> str:
    """The first of the name records that is not empty, in English."""
    for record in records:
        text = face.get_name(hb.OTNameIdPredefined[record], "en")
        if text and text.strip():
            return str(text).strip()
    return ""


def _decoded(name: bytes | None) -> str:
    return name.decode("latin-1") if name else ""


def _licence(face: hb.Face, family: str) -> str:
    for prefix, licence in FAMILY_LICENCES:
        if family.lower().startswith(prefix):
            return licence
    said = " ".join(_name(face, record) for record in ("LICENSE", "LICENSE_URL")).lower()
    for mark, licence in LICENCE_MARKS:
        if mark in said:
            return licence
    return "unknown"
