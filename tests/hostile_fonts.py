"""Fonts that are broken on purpose, made from small good ones. Every function gives the bytes of a font file."""

import io
import struct
from collections.abc import Callable, Mapping, Sequence

import numpy as np
from fontTools.feaLib.builder import addOpenTypeFeaturesFromString
from fontTools.fontBuilder import FontBuilder
from fontTools.misc.psCharStrings import T2CharString
from fontTools.pens.t2CharStringPen import T2CharStringPen
from fontTools.pens.ttGlyphPen import TTGlyphPen
from fontTools.ttLib import TTFont
from fontTools.ttLib.sfnt import SFNTReader, SFNTWriter
from fontTools.ttLib.tables.TupleVariation import TupleVariation

ASCII = range(0x20, 0x7F)
EM = 1000
NAMES = {code: f"uni{code:04X}" for code in ASCII}
NAMES_EXTRA = {0xE9: "uni00E9", 0x301: "uni0301", 0x4E2D: "uni4E2D", 0x5D0: "uni05D0"}
Tables = dict[str, bytes]


def _draw(pen: object, width: int, height: int = 700, count: int = 1) -> None:
    """`count` bars that stand beside each other, together `width` wide."""
    for bar in range(count):
        left = width * bar // count
        pen.moveTo((left, 0))
        pen.lineTo((left, height))
        pen.lineTo((left + width // (2 * count), height))
        pen.lineTo((left + width // (2 * count), 0))
        pen.closePath()


def _width(code: int) -> int:
    return 150 + 3 * code % 600


def _builder(is_ttf: bool, names: Mapping[int, str]) -> FontBuilder:
    builder = FontBuilder(EM, isTTF=is_ttf)
    order = [".notdef", *dict.fromkeys(names.values())]
    builder.setupGlyphOrder(order)
    builder.setupCharacterMap(dict(names))
    return builder


def _finish(builder: FontBuilder, advances: Mapping[str, int]) -> None:
    builder.setupHorizontalMetrics({name: (advances.get(name, 600), 0) for name in builder.font.getGlyphOrder()})
    builder.setupHorizontalHeader(ascent=800, descent=-200)
    builder.setupNameTable({"familyName": "Hostile", "styleName": "Regular"})
    builder.setupOS2(sTypoAscender=800, sTypoDescender=-200, usWeightClass=400)
    builder.setupPost()


def _bytes(font: TTFont) -> bytes:
    file = io.BytesIO()
    font.save(file)
    return file.getvalue()


def _truetype(names: Mapping[int, str] = NAMES, advances: Mapping[str, int] | None = None) -> FontBuilder:
    """95 (or other) characters as bars, .notdef a box."""
    builder = _builder(True, names)
    glyphs = {}
    for name, code in [(".notdef", 200), *((name, code) for code, name in names.items())]:
        pen = TTGlyphPen(None)
        if code != 0x20:
            _draw(pen, _width(code), count=1 + code % 3)
        glyphs[name] = pen.glyph()
    builder.setupGlyf(glyphs)
    _finish(builder, advances or {})
    return builder


def good_truetype() -> bytes:
    """A font with nothing wrong: 95 characters of ASCII, é, a combining accent, one Chinese and one Hebrew letter."""
    return _bytes(_truetype(NAMES | NAMES_EXTRA).font)


def _cff(programs: Mapping[str, Sequence[object]] | None = None, subroutines: Sequence[Sequence[object]] = ()) -> bytes:
    """The same with cubic outlines; `programs` replace charstrings, `subroutines` are the global ones."""
    builder = _builder(False, NAMES)
    charstrings = {}
    for name, code in [(".notdef", 200), *((name, code) for code, name in NAMES.items())]:
        pen = T2CharStringPen(600, None)
        if code != 0x20:
            _draw(pen, _width(code))
        charstrings[name] = pen.getCharString()
    builder.setupCFF("Hostile", {}, charstrings, {})
    cff = builder.font["CFF "].cff
    for program in subroutines:
        cff.GlobalSubrs.append(T2CharString(program=list(program)))
    top = cff.topDictIndex[0]
    for name, program in (programs or {}).items():
        top.CharStrings[name] = T2CharString(program=list(program), private=top.Private, globalSubrs=cff.GlobalSubrs)
    _finish(builder, {})
    builder.font.recalcBBoxes = not programs  # fontTools would run the programs
    return _bytes(builder.font)


def good_cff() -> bytes:
    """A font with nothing wrong."""
    return _cff()


def variable(instances: Sequence[tuple[str, float]] = (("Thin", 100), ("Regular", 400), ("Bold", 900))) -> bytes:
    """An axis of weight from 100 to 900, 400 by default: at 900 letters are twice as wide and advance by half more."""
    builder = _truetype()
    axes = [("wght", 100, 400, 900, "Weight")]
    builder.setupFvar(axes, [{"location": {"wght": weight}, "stylename": name} for name, weight in instances])
    glyf = builder.font["glyf"]
    variations = {}
    for name in builder.font.getGlyphOrder():
        points = len(glyf[name].getCoordinates(glyf)[0])
        wider = [(x, 0) for x, _ in glyf[name].getCoordinates(glyf)[0]] + [(0, 0), (300, 0), (0, 0), (0, 0)]
        thinner = [(-x // 2, 0) for x, _ in glyf[name].getCoordinates(glyf)[0]] + [(0, 0), (-201, 0), (0, 0), (0, 0)]
        assert len(wider) == points + 4
        variations[name] = [
            TupleVariation({"wght": (0.0, 1.0, 1.0)}, wider),
            TupleVariation({"wght": (-1.0, -1.0, 0.0)}, thinner),
        ]
    builder.setupGvar(variations)
    return _bytes(builder.font)


# What is done to them


def tables_of(data: bytes) -> Tables:
    """Tag -> bytes of a single font."""
    reader = SFNTReader(io.BytesIO(data))
    return {tag: reader[tag] for tag in reader.keys()}  # noqa: SIM118  it is no dictionary


def put_together(tables: Tables, sfnt_version: str = "\x00\x01\x00\x00") -> bytes:
    """The font of these tables, whatever they say."""
    file = io.BytesIO()
    writer = SFNTWriter(file, len(tables), sfntVersion=sfnt_version)
    for tag, table in tables.items():
        writer[tag] = table
    writer.close()
    return file.getvalue()


def patched(data: bytes, tag: str, offset: int, format: str, *values: int) -> bytes:
    """The font with numbers of a table overwritten."""
    tables = tables_of(data)
    table = bytearray(tables[tag])
    struct.pack_into(">" + format, table, offset, *values)
    return put_together(tables | {tag: bytes(table)})


def without(data: bytes, *tags: str) -> bytes:
    """The font without these tables."""
    return put_together({tag: table for tag, table in tables_of(data).items() if tag not in tags})


def scrambled(data: bytes, tag: str, seed: int = 0) -> bytes:
    """The font with one table of noise, its first four bytes kept."""
    tables = tables_of(data)
    noise = np.random.default_rng(seed).integers(0, 256, len(tables[tag]), np.uint8).tobytes()
    return put_together(tables | {tag: tables[tag][:4] + noise[4:]})


def flipped(data: bytes, seed: int, share: float = 0.003) -> bytes:
    """The font with some bytes behind its header changed."""
    rng = np.random.default_rng(seed)
    octets = np.frombuffer(data, np.uint8).copy()
    at = rng.integers(256, len(octets), max(1, round(share * len(octets))))
    octets[at] = rng.integers(0, 256, len(at))
    return octets.tobytes()


def _flipped(seed: int) -> bytes:
    return flipped((good_truetype, good_cff, variable)[seed % 3](), seed)


def collection(fonts: Sequence[bytes], lost: int = 0) -> bytes:
    """A TTC of these fonts and `lost` more that lie behind the end of the file."""
    header = 12 + 4 * (len(fonts) + lost)
    offsets, body = [], b""
    for data in fonts:
        start = header + len(body)
        offsets.append(start)
        moved = bytearray(data)
        for record in range(struct.unpack_from(">H", data, 4)[0]):
            at = 12 + 16 * record + 8
            struct.pack_into(">I", moved, at, struct.unpack_from(">I", data, at)[0] + start)
        body += bytes(moved) + b"\0" * (-len(moved) % 4)
    offsets += [header + len(body) + 1000 * number for number in range(1, lost + 1)]
    return b"ttcf" + struct.pack(f">HHI{len(offsets)}I", 1, 0, len(offsets), *offsets) + body


def _composite(components: Mapping[str, Sequence[str]]) -> bytes:
    """The good font with characters put together from others, by glyph name."""
    font = TTFont(io.BytesIO(good_truetype()))
    glyf = font["glyf"]
    for name, parts in components.items():
        pen = TTGlyphPen(dict.fromkeys(font.getGlyphOrder()))
        for number, part in enumerate(parts):
            pen.addComponent(part, (1, 0, 0, 1, 10 * number, 0))
        glyf.glyphs[name] = pen.glyph()
    # fontTools would fall over the cycles itself when it measures boxes
    for name in components:
        glyph = glyf.glyphs[name]
        glyph.xMin = glyph.yMin = glyph.xMax = glyph.yMax = 0
    font.recalcBBoxes = False
    font["maxp"].maxComponentDepth = 64
    return _bytes(font)


def _many_glyphs() -> bytes:
    """65,535 glyphs, the most there can be; ASCII are the last of them."""
    tables = tables_of(good_truetype())
    count = struct.unpack_from(">H", tables["maxp"], 4)[0]
    long_offsets = struct.unpack_from(">h", tables["head"], 50)[0]
    loca = np.frombuffer(tables["loca"], ">u4" if long_offsets else ">u2").astype(np.int64) * (1 if long_offsets else 2)
    first = 65535 - count
    tables["loca"] = np.concatenate((np.zeros(first, np.int64), loca)).astype(">u4").tobytes()
    tables["head"] = tables["head"][:50] + struct.pack(">h", 1) + tables["head"][52:]
    tables["maxp"] = tables["maxp"][:4] + struct.pack(">H", 65535) + tables["maxp"][6:]
    tables["hmtx"] = struct.pack(">Hh", 600, 0) + b"\0\0" * 65534
    tables["hhea"] = tables["hhea"][:34] + struct.pack(">H", 1)
    tables["post"] = struct.pack(">I", 0x30000) + tables["post"][4:32]
    groups = struct.pack(">III", 0x20, 0x7E, first + 1)
    table = struct.pack(">HHIII", 12, 0, 16 + len(groups), 0, 1) + groups
    tables["cmap"] = struct.pack(">HHHHI", 0, 1, 3, 10, 12) + table
    return put_together(tables)


def _with_features(features: str, names: Mapping[int, str] = NAMES) -> bytes:
    font = TTFont(io.BytesIO(_bytes(_truetype(names).font)))
    addOpenTypeFeaturesFromString(font, features)
    return _bytes(font)


def _mapped(characters: Mapping[int, str]) -> bytes:
    """The good font with characters mapped to glyphs of others."""
    font = TTFont(io.BytesIO(good_truetype()))
    for table in font["cmap"].tables:
        table.cmap.update(characters)
    return _bytes(font)


def _bitmaps() -> bytes:
    """A font of bitmaps (BDF), which FreeType opens and cannot scale."""
    glyphs = "\n".join(
        f"STARTCHAR u{code}\nENCODING {code}\nSWIDTH 500 0\nDWIDTH 8 0\nBBX 8 8 0 0\nBITMAP\n" + "3C\n" * 8 + "ENDCHAR"
        for code in ASCII
    )
    header = "STARTFONT 2.1\nFONT -a-b-medium-r-normal--8-80-75-75-c-80-iso10646-1\nSIZE 8 75 75\n"
    properties = (
        'FONTBOUNDINGBOX 8 8 0 0\nSTARTPROPERTIES 4\nFONT_ASCENT 8\nFONT_DESCENT 0\nCHARSET_REGISTRY "ISO10646"\n'
    )
    return f'{header}{properties}CHARSET_ENCODING "1"\nENDPROPERTIES\nCHARS {len(ASCII)}\n{glyphs}\nENDFONT\n'.encode()


def _program(code: int, program: bytes) -> bytes:
    """The good font with TrueType instructions in one character."""
    from fontTools.ttLib.tables.ttProgram import Program

    font = TTFont(io.BytesIO(good_truetype()))
    glyph = font["glyf"][NAMES[code]]
    glyph.program = Program()
    glyph.program.fromBytecode(program)
    font["maxp"].maxSizeOfInstructions = 64
    font["maxp"].maxStackElements = 64
    return _bytes(font)


A, B, C, E_ACUTE = "uni0041", "uni0042", "uni0043", "uni00E9"
_CALL_SELF = [-107, "callgsubr"]
"""Global subroutine 0: the bias of few subroutines is 107."""

FONTS: dict[str, Callable[[], bytes]] = {
    "empty": lambda: b"",
    "no_font": lambda: b"I am no font at all, whatever my name says.\n" * 20,
    "only_a_header": lambda: good_truetype()[:12],
    "truncated": lambda: good_truetype()[: len(good_truetype()) // 2],
    "truncated_late": lambda: good_truetype()[:-400],
    "truncated_cff": lambda: good_cff()[:-700],
    "zero_em": lambda: patched(good_truetype(), "head", 18, "H", 0),
    "em_of_one": lambda: patched(good_truetype(), "head", 18, "H", 1),
    "huge_em": lambda: patched(good_truetype(), "head", 18, "H", 65535),
    "bitmaps": _bitmaps,
    "no_outlines": lambda: without(good_truetype(), "glyf", "loca"),
    "cyclic": lambda: _composite({A: [B], B: [A], E_ACUTE: [E_ACUTE]}),
    "deep_composites": lambda: _composite({NAMES[code]: [NAMES[code + 1]] for code in range(0x41, 0x7A)}),
    "no_cmap": lambda: without(good_truetype(), "cmap"),
    "noise_in_cmap": lambda: scrambled(good_truetype(), "cmap"),
    "symbol_cmap": lambda: patched(good_truetype(), "cmap", 4, "HH", 3, 0),
    "cmap_beyond_the_glyphs": lambda: patched(_many_glyphs(), "cmap", 12 + 16 + 8, "I", 65530),
    "65535_glyphs": _many_glyphs,
    "no_glyphs": lambda: patched(good_truetype(), "maxp", 4, "H", 0),
    "fewer_glyphs_than_said": lambda: patched(good_truetype(), "maxp", 4, "H", 60000),
    "lost_face": lambda: collection([good_truetype()], lost=2),
    "collection_of_nothing": lambda: collection([], lost=3),
    "huge_advance": lambda: _bytes(_truetype(advances={A: 65535}).font),
    "advances_of_0": lambda: _bytes(_truetype(advances=dict.fromkeys(NAMES.values(), 0)).font),
    "negative_bbox": lambda: patched(good_truetype(), "head", 36, "hhhh", 900, 900, -900, -900),
    "noise_in_glyf": lambda: scrambled(good_truetype(), "glyf"),
    "noise_in_loca": lambda: scrambled(good_truetype(), "loca"),
    "noise_in_hmtx": lambda: scrambled(good_truetype(), "hmtx"),
    "noise_in_cff": lambda: scrambled(good_cff(), "CFF "),
    "no_metrics": lambda: without(good_truetype(), "hhea", "hmtx"),
    "no_names_no_os2": lambda: without(good_truetype(), "name", "OS/2", "post"),
    "flat": lambda: patched(patched(good_truetype(), "hhea", 4, "hh", 0, 0), "OS/2", 68, "hhhHH", 0, 0, 0, 0, 0),
    "upside_down": lambda: patched(good_truetype(), "hhea", 4, "hh", -32768, 32767),
    "cff_calls_itself": lambda: _cff({A: _CALL_SELF}, [_CALL_SELF]),
    # 10 ** 9 calls, were there no limit
    "cff_bomb": lambda: _cff(
        {A: [-107, "callgsubr", "endchar"]},
        [*([[level - 106, "callgsubr"] * 10 + ["return"] for level in range(9)]), [1, "hmoveto", "return"]],
    ),
    "mapped_to_nothing": lambda: _mapped({0xE9: NAMES[0x20], 0x4E2D: ".notdef"}),
    "no_fvar_data": lambda: put_together(tables_of(variable()) | {"fvar": tables_of(variable())["fvar"][:16]}),
    "noise_in_fvar": lambda: scrambled(variable(), "fvar"),
    "noise_in_gvar": lambda: scrambled(variable(), "gvar"),
    "no_gvar": lambda: without(variable(), "gvar"),
    "endless_program": lambda: _program(0x41, bytes((0xB8, 0xFF, 0xFD, 0x1C))),
    "stack_overflow": lambda: _program(0x41, bytes((0xB7, *range(8))) * 40),
    "gsub_bomb": lambda: _with_features(
        "".join(f"lookup L{n} {{ sub {A} by {A} {A} {A} {A}; }} L{n};\n" for n in range(6))
        + "feature ccmp { "
        + "".join(f"lookup L{n}; " for n in range(6))
        + "} ccmp;"
    ),
    "gsub_to_notdef": lambda: _with_features(f"feature liga {{ sub {A} {B} by .notdef; }} liga;"),
    "gsub_to_nothing": lambda: _with_features(f"feature liga {{ sub {A} {B} by {NAMES[0x20]}; }} liga;"),
    "gpos_far_away": lambda: _with_features(
        f"feature kern {{ pos {A} {B} <-32768 32767 -32768 0>; pos {B} {A} <32767 -32768 32767 0>; }} kern;"
    ),
    "noise_in_gsub": lambda: scrambled(_with_features(f"feature liga {{ sub {A} {B} by {C}; }} liga;"), "GSUB"),
} | {
    f"flipped_{seed}": (lambda seed=seed: flipped((good_truetype, good_cff, variable)[seed % 3](), seed))
    for seed in range(9)
}
"""Name -> how it is made."""
