"""Pages that nobody should ask for, and pages that users do: Hypothesis strategies over `PageSpec`."""

import math
import string
from collections.abc import Iterator
from dataclasses import dataclass

import msgspec
from hypothesis import strategies as st

from render_engine.spec import (
    Degradation,
    FilledBox,
    GradientGround,
    Outline,
    PageSpec,
    PaperGround,
    PhotoCrop,
    Picture,
    PlainGround,
    Plate,
    Polyline,
    Shadow,
    Surface,
    TextBlock,
    TextRun,
)

PHOTO_ID = "5" * 16


@dataclass(frozen=True)
class Faces:
    """What specs choose from."""

    used: list[str]
    """What a scan lets in, most of it real, one for Chinese first: every plain text can be drawn."""
    broken: list[str]
    """What it does not, what is gone, and a name that no manifest has."""


# Texts


HOSTILE_TEXTS = {
    "empty": "",
    "blanks": " " * 1000,
    "ideographic blanks": "\u3000" * 500 + "a",
    "controls": "".join(map(chr, range(0x20))) + "\x7f" + "".join(map(chr, range(0x80, 0xA0))),
    "a bell": "ring\x07ring",
    "nul": "before\0after",
    "lone surrogates": "a\ud800b\udfff",
    "surrogates the wrong way round": "\udc00\ud800",
    "hebrew": "abc שלום עולם 中文",
    "arabic": "\u0627\u0644\u0633\u0644\u0627\u0645 \ufdfa",
    "overridden": "left \u202eright\u202c \u2067isolated\u2069",
    "emoji": "👍🏽 👨‍👩‍👧‍👦 🇨🇳 1️⃣ ☺️ 🏴󠁧󠁢󠁥󠁮󠁧󠁿",
    "a flood of accents": "Z" + "\u0301" * 500 + "algo " + "e\u0323\u0302\u030a" * 200,
    "accents alone": "\u0301\u0302 \u0303",
    "accents on chinese": "中\u0301文\u20dd",
    "a long word": "a" * 10_000,
    "a long word of all letters": string.ascii_letters * 200,
    "long chinese": "永和九年岁在癸丑" * 1250,
    "long word without a face": "\u0e01" * 10_000,
    "joiners": "a\u200db\u200cc\u200d\u200d\u2060d",
    "joiners alone": "\u200d\u200c\u2060",
    "byte order marks": "\ufeffa\ufeff\ufffe",
    "private use": "\ue000\uf8ff\U000f0000\U0010fffd",
    "noncharacters": "\ufdd0\uffff\U0001ffff\U0010ffff",
    "noncharacters in words": "one\uffffword\uffff中\uffff文",
    "newlines": "a\r\nb\rc\vd\fe\x85f\u2028g\u2029h\n\n\ni",
    "three thousand lines": "a\n" * 3000,
    "empty lines": "\n" * 5000,
    "tabs": "a\tb\tc",
    "soft hyphens": "in\u00adter\u00adna\u00adtion\u00adal" * 50,
    "variation selectors": "中\ufe00文\U000e0100 a\ufe0f",
    "thai": "ภาษาไทย",
    "devanagari": "हिन्दी क्षत्रिय",
    "korean": "한국어 \u1112\u1161\u11ab",
    "mongolian": "ᠮᠣᠩᠭᠣᠯ",
    "tags": "a\U000e0041\U000e007f",
    "not normalised": "e\u0301 \u212b \ufb01 \uff76\uff9e",
    "punctuation alone": "，。、！？……——“”‘’（）《》" * 20,
    "dashes": "—" * 300,
    "no break anywhere": "\u00a0".join("abcdefgh") * 40,
    "break everywhere": "\u200b".join("abcdefgh" * 40),
    "widest": "\ufdfd" * 10,
    "ligatures": "ABABAB fi ffi AB",
    "supplementary chinese": "𠙶𪩘𫚭",
    "hangs over": "a" + " " * 500 + "b",
}

PIECES = st.sampled_from(
    [
        "the ",
        "office ",
        "Quick, ",
        "3.14% ",
        "(AB) ",
        "well-known ",
        "中文",
        "排版，",
        "“引号”",
        "——",
        "\n",
        "\u3000",
        "é",
    ]
)
PLAIN_TEXTS = st.lists(PIECES, min_size=1, max_size=60).map("".join)
ODD_TEXTS = st.one_of(
    st.text(st.characters(min_codepoint=0x20, max_codepoint=0x7E), max_size=80),
    st.text(st.characters(codec="gb2312"), max_size=40),
    st.text(st.characters(exclude_categories=()), max_size=12),
    st.sampled_from(sorted(HOSTILE_TEXTS.values())),
    st.tuples(PIECES, st.sampled_from(sorted(HOSTILE_TEXTS.values())), PIECES).map("".join),
)

# Specs


def within(low: float, high: float) -> st.SearchStrategy[float]:
    return st.floats(low, high, allow_nan=False)


COLOURS = st.tuples(*[st.integers(0, 255)] * 3)
SIZES = st.one_of(within(5, 20), st.sampled_from([5.0, 8.0, 9.5, 12.0, 16.0, 20.0]), within(5, 20), within(1, 90))


def corners(width: int, height: int) -> st.SearchStrategy[tuple[float, float, float, float]]:
    """Boxes that may leave the page, most of them large enough to write in."""
    return st.tuples(
        within(-20, width / 3), within(-20, height / 3), within(width / 2, width + 60), within(height / 2, height + 60)
    )


CROPS = st.builds(
    PhotoCrop,
    photo_id=st.just(PHOTO_ID),
    box_px=st.tuples(st.integers(0, 100), st.integers(0, 80), st.integers(101, 200), st.integers(81, 150)),
    mirrored=st.booleans(),
)
GROUNDS = st.one_of(
    st.builds(PlainGround, rgb=COLOURS),
    CROPS,
    st.builds(
        GradientGround,
        start_rgb=COLOURS,
        end_rgb=COLOURS,
        direction=st.sampled_from([(1, 0), (0, 1), (-1, 1), (16, -3), (0, -16)]),
    ),
    st.builds(
        PaperGround, rgb=COLOURS, seed=st.integers(0, 2**31 - 1), grain=st.integers(0, 64), cell_px=st.integers(2, 256)
    ),
)


def shapes(width: int, height: int) -> st.SearchStrategy[FilledBox | Polyline | Picture]:
    box = corners(width, height)
    return st.one_of(
        st.builds(
            FilledBox,
            box_px=box,
            rgb=st.none() | COLOURS,
            opacity=within(0, 1),
            radius_px=st.integers(0, 40),
            border_rgb=st.none() | COLOURS,
            border_px=st.integers(1, 9),
        ),
        st.builds(
            Polyline,
            points_px=st.lists(
                st.tuples(within(-50, width + 50), within(-50, height + 50)), min_size=2, max_size=9
            ).map(tuple),
            rgb=COLOURS,
            width_px=st.integers(1, 9),
        ),
        st.builds(Picture, box_px=box, crop=CROPS, radius_px=st.integers(0, 40)),
    )


def blocks(
    texts: st.SearchStrategy[str], face_ids: list[str], last: str, width: int, height: int
) -> st.SearchStrategy[TextBlock]:
    return st.builds(
        TextBlock,
        text=texts,
        lang=st.sampled_from(["en", "zh", "mixed"]),
        box_px=corners(width, height),
        face_ids=st.lists(st.integers(0, len(face_ids) - 1).map(face_ids.__getitem__), min_size=1, max_size=2).map(
            lambda chosen: (*chosen, last)
        ),
        size_px=SIZES,
        line_pitch_em=within(0.8, 3),
        align=st.sampled_from(["start", "center", "end", "justify"]),
        first_line_indent_em=st.sampled_from([0.0, 0.0, 2.0, -1.0]),
        letter_spacing_em=st.sampled_from([0.0, 0.0, 0.1, -0.2]),
        hyphenate=st.booleans(),
        squeeze=st.booleans(),
        autospace_em=st.sampled_from([0.0, 0.25, 1.0]),
        ink_rgb=COLOURS,
        opacity=st.sampled_from([1.0, 1.0, 1.0, 0.7, 0.0]),
        min_contrast=st.sampled_from([1.0, 1.0, 1.0, 1.0, 1.5, 3.0, 21.0]),
        underline=st.booleans(),
        plate=st.none() | st.builds(Plate, rgb=COLOURS, opacity=within(0, 1), pad_em=within(0, 2)),
        shadow=st.none() | st.builds(Shadow, opacity=within(0, 1), offset_px=st.tuples(*[st.integers(-9, 9)] * 2)),
        outline=st.none() | st.builds(Outline, rgb=st.none() | COLOURS),
    )


def surfaces(width: int, height: int, own: tuple[int, int]) -> st.SearchStrategy[Surface]:
    """Convex and not: the corners of a quad are moved freely."""
    jolts = st.tuples(*[within(-0.2 * min(width, height), 0.2 * min(width, height))] * 8)
    flat = (20, 20, width - 20, 20, width - 20, height - 20, 20, height - 20)
    return st.builds(
        Surface,
        kind=st.sampled_from(["sheet", "note", "screen"]),
        width_px=st.just(own[0]),
        height_px=st.just(own[1]),
        ground=GROUNDS,
        quad_px=jolts.map(lambda moves: tuple(at + move for at, move in zip(flat, moves, strict=True))),
        bow=within(-0.2, 0.2),
        light=st.tuples(*[within(0, 2)] * 3),
        shadow_opacity=within(0, 1),
        shadow_offset_px=st.tuples(*[st.integers(-20, 20)] * 2),
        shadow_blur_px=within(0.1, 9),
    )


DEGRADATIONS = st.builds(
    Degradation,
    blur_sigma_px=within(0, 20),
    resample=within(1, 8),
    noise_sigma=within(0, 64),
    noise_seed=st.integers(0, 2**31 - 1),
    jpeg_quality=st.none() | st.integers(1, 100),
)

WILD = st.sampled_from(
    [math.nan, math.inf, -math.inf, 1e308, -1e308, 5e-324, 2**31, -(2**31), 2**63, -1, 0, 1, 256, 8193, -0.5, 1e9]
)
"""What stands in place of a number somewhere in every seventh spec."""


def numbers_in(value: object, path: tuple[object, ...] = ()) -> Iterator[tuple[object, ...]]:
    """Where numbers stand in a spec: field names and places in tuples."""
    if isinstance(value, msgspec.Struct):
        for name in value.__struct_fields__:
            if name != "version":
                yield from numbers_in(getattr(value, name), (*path, name))
    elif isinstance(value, tuple):
        for at, part in enumerate(value):
            yield from numbers_in(part, (*path, at))
    elif isinstance(value, int | float) and not isinstance(value, bool):
        yield path


def replaced(value: object, path: tuple[object, ...], number: float) -> object:
    """The spec with another number at one place, an integer where one stood."""
    if not path:
        whole = isinstance(value, int) and math.isfinite(number)
        return int(number) if whole else float(number) if isinstance(value, float) else value
    step, *rest = path
    if isinstance(value, tuple):
        return (*value[:step], replaced(value[step], tuple(rest), number), *value[step + 1 :])
    return msgspec.structs.replace(value, **{step: replaced(getattr(value, step), tuple(rest), number)})


def with_runs(draw: st.DrawFn, block: TextBlock, face_ids: list[str], last: str) -> TextBlock:
    """The block with up to two parts of its text in other faces."""
    cuts = sorted(draw(st.lists(st.integers(0, len(block.text)), max_size=4)))
    faces = [(draw(st.integers(0, len(face_ids) - 1).map(face_ids.__getitem__)), last) for _ in cuts[1::2]]
    pairs = zip(cuts[::2], cuts[1::2], faces, strict=False)
    runs = tuple(TextRun(start=start, end=end, face_ids=chosen) for start, end, chosen in pairs)
    return msgspec.structs.replace(block, runs=runs)


TWISTS = st.sampled_from(["nothing", "nothing", "nothing", "text", "text", "face", "number"])


@st.composite
def specs(draw: st.DrawFn, faces: Faces) -> PageSpec:
    """Pages of every kind: three of seven are such as users draw, the others have odd texts, faces that are broken or
    not there, or a number that cannot be."""
    twist = draw(TWISTS)
    width, height = draw(st.sampled_from([(200, 120), (256, 256), (64, 300), (480, 320), (1, 1)]))
    carried = draw(st.integers(0, 3)) == 3
    own = draw(st.sampled_from([(200, 150), (90, 240), (1, 1)])) if carried else (width, height)
    texts = ODD_TEXTS if twist == "text" else PLAIN_TEXTS
    face_ids = faces.broken if twist == "face" else faces.used
    texts_in = draw(st.lists(blocks(texts, face_ids, faces.used[0], *own), min_size=twist != "number", max_size=2))
    spec = PageSpec(
        width_px=width,
        height_px=height,
        family=draw(st.sampled_from(["background", "pure", "compositional", "complex"])),
        background=draw(GROUNDS),
        blocks=tuple(with_runs(draw, block, face_ids, faces.used[0]) for block in texts_in),
        hinting=draw(st.sampled_from(["none", "light", "full"])),
        blend=draw(st.sampled_from(["srgb", "linear"])),
        antialias="grey" if carried else draw(st.sampled_from(["grey", "grey", "lcd_rgb", "lcd_bgr"])),
        shapes=draw(st.lists(shapes(*own), max_size=2).map(tuple)),
        surface=draw(surfaces(width, height, own)) if carried else None,
        degradation=draw(st.none() | st.none() | DEGRADATIONS),
    )
    if twist == "number":
        spec = replaced(spec, draw(st.sampled_from(sorted(numbers_in(spec), key=repr))), draw(WILD))
    return spec
