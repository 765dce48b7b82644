"""One font file: the faces in it that can be drawn with, and why the others cannot."""

import os
import re
import struct
from dataclasses import dataclass
from pathlib import Path

import freetype
import uharfbuzz as hb
from fontTools.agl import AGL2UV

from fonts_manifest.coverage import ASCII, LOAD_FLAGS, draws, gb2312_level_1, open_freetype
from fonts_manifest.errors import BadInput
from fonts_manifest.manifest import INSTANCE_SHIFT, FontFace, sha256_of

MAX_FILE_BYTES = 200_000_000
"""The largest open collection (Noto Sans CJK, all regions and weights) has 120 MB."""
MAX_FACES_PER_FILE = 256
WEB_FONTS = frozenset({".woff", ".woff2"})
MAX_EXTENT_EM = 8.0
"""Of anything a usable face draws in ASCII; the widest real glyphs (U+FDFD) reach 7 em."""

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


@dataclass(frozen=True, slots=True)
class FontFile:
    """What was found in one file."""

    sha256: str
    """Of the file; empty when it could not be read."""
    faces: tuple[FontFace, ...]
    left_out: tuple[tuple[str, str], ...]
    """(path, or path#face or path#face.instance, reason)."""


def examine(path: Path) -> FontFile:
    """Every face of a file, the named instances of variable fonts among them; nothing in it is fatal."""
    try:
        if not _is_utf_8(path):
            raise BadInput("its path is not UTF-8, so no manifest can name it; rename it")
        if path.suffix.lower() in WEB_FONTS:
            raise BadInput("compressed for the web, which HarfBuzz does not read; unpack it to TTF or OTF")
        if path.stat().st_size > MAX_FILE_BYTES:
            raise BadInput(f"larger than {MAX_FILE_BYTES} bytes")
        sha256 = sha256_of(path)
    except OSError as error:
        return FontFile("", (), ((str(path), f"cannot be read ({error.strerror})"),))
    except BadInput as error:
        return FontFile("", (), ((_readable(path), str(error)),))
    faces: list[FontFace] = []
    left_out: list[tuple[str, str]] = []
    # UnicodeDecodeError: uharfbuzz reads tags and names as UTF-8, which in a damaged table they are not.
    try:
        indices = _indices(path)
    except (BadInput, UnicodeDecodeError) as error:
        return FontFile(sha256, (), ((str(path), f"{error}"),))
    for index in indices:
        try:
            faces.append(_face(path, index, sha256))
        except (BadInput, UnicodeDecodeError) as error:
            left_out.append((f"{path}#{face_number(index)}", str(error).removeprefix(f"{path}: ")))
    return FontFile(sha256, tuple(faces), tuple(left_out))


def _is_utf_8(path: Path) -> bool:
    return _readable(path) == str(path)


def _readable(path: Path) -> str:
    """The path with a mark for every byte of it that is no UTF-8."""
    return os.fsencode(path).decode("utf-8", "replace")


def face_number(face_index: int) -> str:
    """ "1" for the second face of a collection, "0.3" for the third named instance of a variable font."""
    instance = face_index >> INSTANCE_SHIFT
    number = str(face_index & ((1 << INSTANCE_SHIFT) - 1))
    return f"{number}.{instance}" if instance else number


def _indices(path: Path) -> list[int]:
    """`FontFace.face_index` of all faces of a file. Raises BadInput when it cannot be opened or has too many."""
    try:
        count = freetype.Face(str(path), -1).num_faces
    except freetype.FT_Exception as error:
        raise BadInput(f"not a font that FreeType can open ({error})") from None
    if count > MAX_FACES_PER_FILE:
        raise BadInput(f"{count} faces in one file, more than {MAX_FACES_PER_FILE}")
    indices: list[int] = []
    for index in range(count):
        # The default of a variable font comes first, then the named instances that are not the default again.
        known = {_default_coordinates(path, index)}
        indices.append(index)
        for number, instance in enumerate(_shaper_face(path, index).named_instances, 1):
            if tuple(instance.design_coords) not in known:
                known.add(tuple(instance.design_coords))
                indices.append(index | number << INSTANCE_SHIFT)
    if len(indices) > MAX_FACES_PER_FILE:
        raise BadInput(f"{len(indices)} faces and named instances in one file, more than {MAX_FACES_PER_FILE}")
    return indices


def _shaper_face(path: Path, index: int) -> hb.Face:
    return hb.Face(hb.Blob.from_file_path(str(path)), index)


def _default_coordinates(path: Path, index: int) -> tuple[float, ...]:
    return tuple(axis.default_value for axis in _shaper_face(path, index).axis_infos)


def _face(path: Path, index: int, sha256: str) -> FontFace:
    """One face of a file. Raises BadInput with the reason when it cannot be used."""
    handle = open_freetype(path, index)
    if not handle.is_scalable:
        raise BadInput("bitmap only: it has no outlines")
    shaper_face = _shaper_face(path, index)
    shaper = hb.Font(shaper_face)
    if shaper_face.glyph_count == 0:
        raise BadInput("HarfBuzz finds no glyphs in it")
    if not 16 <= handle.units_per_EM <= 16384 or handle.units_per_EM != shaper_face.upem:
        raise BadInput(f"{handle.units_per_EM} units per em, OpenType allows 16 to 16384")
    missing = [character for character in ASCII if not draws(handle, ord(character))]
    if missing:
        raise BadInput(f"lacks {len(missing)} of 95 ASCII characters, {missing[0]!r} among them")
    coordinates = _coordinates(handle, shaper_face, shaper)
    _refuse_foreign_glyphs(handle, shaper)
    _refuse_disagreement(handle, shaper)
    os2 = shaper_face.reference_table("OS/2").data or b""
    weight, fs_type = struct.unpack_from(">H2xH", os2, 4) if len(os2) >= 10 else (400, 0)
    selection = struct.unpack_from(">H", os2, 62)[0] if len(os2) >= 64 else 0
    version = struct.unpack_from(">H", os2, 0)[0] if len(os2) >= 2 else 0
    x_height, cap_height = struct.unpack_from(">hh", os2, 86) if version >= 2 and len(os2) >= 90 else (0, 0)
    instance = index >> INSTANCE_SHIFT
    if instance:  # OS/2 speaks of the default
        x_height = cap_height = 0
        weight = round(coordinates.get("wght", weight))
    em = handle.units_per_EM
    family = _name(shaper_face, "TYPOGRAPHIC_FAMILY", "FONT_FAMILY") or _decoded(handle.family_name) or path.stem
    style = _name(shaper_face, "TYPOGRAPHIC_SUBFAMILY", "FONT_SUBFAMILY") or _decoded(handle.style_name) or "Regular"
    if instance:
        named = shaper_face.get_name(shaper_face.named_instances[instance - 1].subfamily_name_id, "en")
        style = _printable(named) or f"Instance {instance}"
    flags = int(handle._FT_Face.contents.style_flags)
    slanted = coordinates.get("ital", 0) >= 0.5 or coordinates.get("slnt", 0) < 0
    face = FontFace(
        face_id=f"{sha256[:16]}-{face_number(index)}",
        path=str(path),
        face_index=index,
        sha256=sha256,
        family=family,
        style=style,
        weight=weight if 100 <= weight <= 900 else 700 if flags & freetype.FT_STYLE_FLAG_BOLD else 400,
        italic=slanted or bool(flags & freetype.FT_STYLE_FLAG_ITALIC) or bool(selection & 0x201),
        scripts=("latin", "han") if all(draws(handle, ord(han)) for han in gb2312_level_1()) else ("latin",),
        licence=_licence(shaper_face, family),
        fs_type=fs_type,
        ascender=handle.ascender / em,
        descender=handle.descender / em,
        x_height=(x_height if x_height > 0 else _height_of(handle, "x")) / em,
        cap_height=(cap_height if cap_height > 0 else _height_of(handle, "H")) / em,
        coordinates=tuple(coordinates.items()) if instance else (),
    )
    if not face.has_sane_metrics:
        raise BadInput(f"ascender {face.ascender:g} and descender {face.descender:g} em leave no line to write on")
    return face


def _coordinates(handle: freetype.Face, shaper_face: hb.Face, shaper: hb.Font) -> dict[str, float]:
    """Axis tag -> value of the open instance, {} for a font without axes.

    Raises BadInput when FreeType and HarfBuzz do not stand at the same point: letters would not fit their advances.
    """
    axes = shaper_face.axis_infos
    if not axes:
        return {}
    shaped = shaper.get_var_coords_design() or tuple(axis.default_value for axis in axes)
    # The raw call: freetype-py's own falls over broken name tables.
    fixed = (freetype.FT_Fixed * len(axes))()
    error = freetype.FT_Get_Var_Design_Coordinates(handle._FT_Face, len(axes), fixed)
    if error:
        raise BadInput(f"its variations cannot be read (FreeType error {error})")
    drawn = [value / 65536 for value in fixed]
    if any(abs(one - other) > 1e-3 for one, other in zip(drawn, shaped, strict=True)):
        raise BadInput(f"FreeType stands at {drawn} of its axes, HarfBuzz at {list(shaped)}")
    return {axis.tag: float(value) for axis, value in zip(axes, shaped, strict=True)}


def _refuse_disagreement(handle: freetype.Face, shaper: hb.Font) -> None:
    """Raises BadInput when FreeType's advance of an ASCII character is not HarfBuzz's, or it reaches too far."""
    limit = MAX_EXTENT_EM * handle.units_per_EM
    for character in ASCII:
        glyph = freetype.FT_Get_Char_Index(handle._FT_Face, ord(character))
        if glyph != shaper.get_nominal_glyph(ord(character)):
            raise BadInput(f"FreeType and HarfBuzz find different glyphs for {character!r}")
        handle.load_glyph(glyph, LOAD_FLAGS)
        advance = handle.glyph.metrics.horiAdvance
        # each rounds the variation of an advance in its own way
        if abs(advance - shaper.get_glyph_h_advance(glyph)) > 1:
            raise BadInput(f"FreeType and HarfBuzz find different advances for {character!r}")
        box = handle.glyph.outline.get_bbox()
        if advance == 0 and character != " ":
            raise BadInput(f"{character!r} advances by nothing: letters would stand on each other")
        if not 0 <= advance <= limit or max(map(abs, (box.xMin, box.yMin, box.xMax, box.yMax))) > limit:
            raise BadInput(f"{character!r} is more than {MAX_EXTENT_EM:g} em large")


def _refuse_foreign_glyphs(handle: freetype.Face, shaper: hb.Font) -> None:
    """Raises BadInput when ASCII characters show something else: what is drawn would not be what the label says.

    Measured: BaKoMa's cmr10 draws an inverted exclamation mark for "<", cmsy10 arrows for "!", cmex10 big brackets for
    letters, and LastResort one and the same box for all.
    """
    glyphs = {character: freetype.FT_Get_Char_Index(handle._FT_Face, ord(character)) for character in ASCII[1:]}
    if len(set(glyphs.values())) < len(glyphs) // 2:
        raise BadInput("draws the same glyph for many ASCII characters: a last-resort font")
    for character, glyph in glyphs.items():
        name = _glyph_name(shaper, glyph).split(".")[0]
        named = AGL2UV.get(name)
        if named is not None and named != ord(character) and named > 0x20:
            raise BadInput(f"draws {name!r} for {character!r}: the labels of its pictures would be wrong")
        if named is None and character.isalpha() and name and not NEUTRAL_GLYPH_NAME.fullmatch(name):
            raise BadInput(f"draws {name!r} for {character!r}: a symbol font")


def _glyph_name(shaper: hb.Font, glyph: int) -> str:
    """What the font calls a glyph; "" when it says nothing, or nothing in UTF-8."""
    try:
        return shaper.get_glyph_name(glyph) or ""
    except UnicodeDecodeError:
        return ""


def _height_of(handle: freetype.Face, character: str) -> int:
    """Height of a character's outline above the baseline in font units."""
    glyph = freetype.FT_Get_Char_Index(handle._FT_Face, ord(character))
    handle.load_glyph(glyph, LOAD_FLAGS)
    return int(handle.glyph.outline.get_bbox().yMax)


def _name(face: hb.Face, *records: str) -> str:
    """The first of the name records that is not empty, in English."""
    return next(filter(None, (_printable(face.get_name(hb.OTNameIdPredefined[name], "en")) for name in records)), "")


def _printable(text: str | None) -> str:
    """The text without control characters: it is printed on terminals."""
    return "".join(character for character in text or "" if character.isprintable()).strip()


def _decoded(name: bytes | None) -> str:
    return _printable(name.decode("latin-1")) if name else ""


def _licence(face: hb.Face, family: str) -> str:
    for prefix, licence in FAMILY_LICENCES:
        if family.lower().startswith(prefix):
            return licence
    said = " ".join(_name(face, record) for record in ("LICENSE", "LICENSE_URL")).lower()
    for mark, licence in LICENCE_MARKS:
        if mark in said:
            return licence
    return "unknown"
