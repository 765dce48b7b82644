"""Whatever is asked for ends in a picture or a labelled drop: any spec, any text, any font file.

Cases run in processes of their own, in batches, under a watchdog: a crash of compiled code or a page that takes more
than five seconds of CPU fails the test with the spec that did it.
"""

import hashlib
import io
import json
import math
import os
import select
import string
import subprocess
import sys
import time
import unicodedata
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import get_args

import freetype
import hostile_fonts
import msgspec
import numpy as np
import pytest
from hypothesis import HealthCheck, Phase, given, seed, settings
from hypothesis import strategies as st

from fonts_manifest.manifest import FontFace, Manifest, load_manifest, save_manifest, sha256_of
from fonts_manifest.scan import scan_fonts
from render_engine.controls import without_controls
from render_engine.render import Assets, render
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
    Reason,
    RenderedPage,
    RenderError,
    Shadow,
    Surface,
    TextBlock,
    TextRun,
    spec_from_json,
    spec_to_json,
)

REAL_FONTS = ("package:matplotlib/mpl-data/fonts/ttf", "package:mpl_font/fonts")
HANG_S = 5.0
"""Of CPU, for one page: the other processes of a busy machine are not counted."""
STALL_S = 60.0
"""Of wall time without any CPU: a page that waits for what never comes."""
PHOTO_ID = "5" * 16

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
def specs(draw: st.DrawFn, faces: "Faces") -> PageSpec:
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


# Fonts and photographs


class Noise:
    """One photograph, 200 x 150, refused as `datagen.photos` refuses."""

    def __init__(self) -> None:
        self.picture = np.random.default_rng(5).integers(0, 256, (150, 200, 3), np.uint8)

    def crop(self, photo_id, box_px, width_px, height_px):
        if photo_id != PHOTO_ID:
            raise KeyError(photo_id)
        x0, y0, x1, y1 = box_px
        if not (0 <= x0 < x1 <= 200 and 0 <= y0 < y1 <= 150):
            raise ValueError(f"box {box_px} leaves the photograph")
        rows = np.linspace(y0, y1 - 1, height_px).astype(int)
        columns = np.linspace(x0, x1 - 1, width_px).astype(int)
        return self.picture[rows][:, columns].copy()


def forged(path: Path, index: int = 0, sha256: str = "") -> FontFace:
    """A manifest's entry for a file that no scan let in."""
    sha256 = sha256 or sha256_of(path)
    return FontFace(
        face_id=f"{sha256[:16]}-{path.stem}-{index}",
        path=str(path),
        face_index=index,
        sha256=sha256,
        family=path.stem,
        style="Regular",
        weight=400,
        italic=False,
        scripts=(),
        licence="ours",
        fs_type=0,
        ascender=0.8,
        descender=-0.2,
        x_height=0.5,
        cap_height=0.7,
    )


@pytest.fixture(scope="module")
def manifest(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Real faces, the broken fonts that the scan let in, and entries for those that it did not."""
    folder = tmp_path_factory.mktemp("fonts")
    for name, make in hostile_fonts.FONTS.items():
        (folder / f"{name}.ttf").write_bytes(make())
    (folder / "variable.ttf").write_bytes(hostile_fonts.variable())
    faces = list(scan_fonts([*REAL_FONTS, str(folder)])[0].faces)
    scanned = {face.path for face in faces}
    faces += [forged(path) for path in sorted(folder.iterdir()) if str(path) not in scanned]
    faces += [forged(folder / "lost_face.ttf", index) for index in (1, 2, 7, 255)]
    faces += [forged(folder / "variable.ttf", 99 << 16), forged(folder / "variable.ttf", 3)]
    faces += [forged(folder / "changed.ttf", sha256="c" * 64), forged(folder / "gone.ttf", sha256="d" * 64)]
    (folder / "changed.ttf").write_bytes(hostile_fonts.good_truetype())
    save_manifest(Manifest(tuple(faces)), folder / "fonts.json")
    return folder / "fonts.json"


@dataclass(frozen=True)
class Faces:
    """What specs choose from."""

    used: list[str]
    """What a scan lets in, most of it real, one for Chinese first: every plain text can be drawn."""
    broken: list[str]
    """What it does not, what is gone, and a name that no manifest has."""


def faces_of(faces: tuple[FontFace, ...]) -> Faces:
    real = [face.face_id for face in faces if "han" in face.scripts]
    real += [face.face_id for face in faces if face.scripts == ("latin",) and face.family != "Hostile"]
    odd = [face.face_id for face in faces if face.family == "Hostile"]
    broken = [face.face_id for face in faces if not face.scripts]
    return Faces([*real, *real, *odd], [*broken, *broken[-3:], "no-such-face"])


# What a picture must be


REASONS = frozenset(get_args(Reason))


class TofuCheck:
    """No glyph of a page may be .notdef, or look like it: asked of FreeType, whatever the renderer believes."""

    def __init__(self) -> None:
        self._looks_like_a_box: dict[tuple[str, int], bool] = {}
        self._open: dict[str, freetype.Face] = {}

    def __call__(self, assets: Assets) -> None:
        for key in np.unique(assets.scratch.keys[: assets.scratch.glyph_count]).tolist():
            face, _, _ = assets.atlas._strike_faces[key >> 18]
            glyph = (key >> 2) & 0xFFFF
            assert glyph != 0, f"{face.font.path} is drawn with .notdef"
            assert not self._is_a_box(face.font, glyph), f"{face.font.path}: glyph {glyph} is a copy of .notdef"

    def _is_a_box(self, font: FontFace, glyph: int) -> bool:
        known = self._looks_like_a_box.get((font.face_id, glyph))
        if known is None:
            points = [self._points(font, number) for number in (0, glyph)]
            known = self._looks_like_a_box[font.face_id, glyph] = points[0] == points[1] and bool(points[0])
        return known

    def _points(self, font: FontFace, glyph: int) -> list[tuple[int, int]]:
        if font.face_id not in self._open:
            self._open[font.face_id] = freetype.Face(io.BytesIO(Path(font.path).read_bytes()), font.face_index)
        face = self._open[font.face_id]
        try:
            face.load_glyph(glyph, freetype.FT_LOAD_NO_SCALE | freetype.FT_LOAD_NO_HINTING)
        except freetype.FT_Exception:
            return []
        return list(face.glyph.outline.points)


def assert_sound(page: RenderedPage, spec: PageSpec) -> None:
    """The picture has its size, every line its text, its place and numbers in their ranges."""
    assert page.image_HW3.shape == (spec.height_px, spec.width_px, 3)
    assert page.image_HW3.dtype == np.uint8
    for line in page.lines:
        asked = without_controls(spec.blocks[line.block].text).replace("\u00ad", "")
        assert line.text in asked or line.text.removesuffix("-") in asked  # divided at a hyphen
        assert any(unicodedata.category(character)[0] in "LMNPSC" for character in line.text)
        assert not any(unicodedata.category(character) in ("Cc", "Cs", "Cn", "Co") for character in line.text), (
            line.text
        )
        assert all(map(math.isfinite, (*line.quad_px, line.size_px, line.contrast, line.clutter)))
        assert 1 <= line.contrast <= 21.001
        assert line.ink_height_px > 0
        assert np.isfinite(line.glyph_boxes_px).all()


def digest(page: RenderedPage) -> str:
    """Of pixels and annotations."""
    said = [
        (line.text, line.quad_px, line.ink_rgb, line.contrast, line.clutter, line.glyph_boxes_px.tobytes())
        for line in page.lines
    ]
    return hashlib.sha256(page.image_HW3.tobytes() + repr(said).encode("utf-8", "backslashreplace")).hexdigest()


# The process that draws


def warm_up(assets: Assets) -> None:
    """Draw once with everything: what is compiled now, where no compiled code lies on the disk, is no hang later."""
    face = next(face for face in assets.fonts.values() if "latin" in face.scripts)
    for antialias, blend, hinting in (
        ("grey", "srgb", "none"),
        ("lcd_rgb", "linear", "full"),
        ("grey", "linear", "full"),
    ):
        block = TextBlock(
            text="Warm, warm ABAB words " * 20,
            lang="en",
            box_px=(5.0, 5.0, 190.0, 190.0),
            face_ids=(face.face_id,),
            size_px=12.5,
            min_contrast=2.0,
            align="justify",
            underline=True,
            plate=Plate(rgb=(250, 250, 250), opacity=0.5),
            shadow=Shadow(),
            outline=Outline(),
        )
        for ground in (
            PaperGround(rgb=(200, 200, 200), seed=1, grain=9, cell_px=9),
            GradientGround(start_rgb=(200, 200, 200), end_rgb=(250, 250, 250), direction=(1, 1)),
        ):
            surface = Surface(
                kind="note",
                width_px=200,
                height_px=200,
                ground=ground,
                quad_px=(10.0, 10.0, 180.0, 30.0, 190.0, 190.0, 20.0, 180.0),
                bow=0.1,
                light=(0.5, 1.0, 1.5),
                shadow_opacity=0.5,
            )
            spec = PageSpec(
                width_px=200,
                height_px=200,
                family="pure",
                background=ground,
                blocks=(block,),
                hinting=hinting,
                blend=blend,
                antialias=antialias,
                shapes=(FilledBox(box_px=(0.0, 0.0, 90.0, 90.0), rgb=(9, 9, 9), opacity=0.5, radius_px=9),),
                surface=surface if antialias == "grey" else None,
                degradation=Degradation(blur_sigma_px=1, resample=2, noise_sigma=3, jpeg_quality=80),
            )
            render(spec, assets, glyph_boxes=True)


def draw_cases(manifest: str, number: int, examples: int, folder: str) -> None:
    """Draw `examples` pages; tell of each when it starts and how it ended, a line each on stdout.

    The page being drawn stands in `folder`/case.txt, those that became pictures in `folder`/drawn.jsonl.
    """
    faces = load_manifest(Path(manifest), verify=False).faces
    assets, tofu = Assets(faces, Noise(), atlas_bytes=8_000_000), TofuCheck()
    warm_up(assets)
    case, drawn = Path(folder) / "case.txt", []

    @seed(number)
    @settings(
        max_examples=examples,
        deadline=None,
        database=None,
        phases=(Phase.generate,),
        suppress_health_check=list(HealthCheck),
    )
    @given(spec=specs(faces_of(faces)))
    def draw(spec: PageSpec) -> None:
        case.write_text(ascii(spec))
        print("start", flush=True)
        try:
            page = render(spec, assets, glyph_boxes=True)
        except RenderError as error:
            print(error.reason, flush=True)
            return
        if page.lines:
            tofu(assets)
        assert_sound(page, spec)
        print("picture" if page.lines else "picture without text", flush=True)
        try:
            line = json.dumps([spec_to_json(spec), digest(page)])
            if spec_from_json(json.loads(line)[0]) == spec:
                drawn.append(line)
        except (UnicodeEncodeError, msgspec.MsgspecError):  # a surrogate that was never drawn
            return

    draw()
    (Path(folder) / "drawn.jsonl").write_text("\n".join(drawn))


def draw_again(manifest: str, listed: str) -> None:
    """Print whether every page of a list comes out as its digest says, the last first."""
    assets = Assets(load_manifest(Path(manifest), verify=False).faces, Noise(), atlas_bytes=1)
    for line in reversed(Path(listed).read_text().splitlines()):
        spec, expected = json.loads(line)
        print(digest(render(spec_from_json(spec), assets, glyph_boxes=True)) == expected)


# The watchdog


@dataclass
class Report:
    """How the cases of a process ended."""

    outcomes: Counter[str] = field(default_factory=Counter)
    slowest_s: float = 0.0
    """CPU of the slowest page."""
    failure: str = ""


def cpu_s(pid: int) -> float:
    """CPU that a process has taken, user and system."""
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def watched(code: str, case: Path, hang_s: float = HANG_S, stall_s: float = STALL_S, **environment: str) -> Report:
    """Run Python code that tells of its cases as `draw_cases` does, and end it when one of them takes too long."""
    here = Path(__file__).parent
    path = os.pathsep.join((str(here.parent), str(here)))
    with subprocess.Popen(
        [sys.executable, "-W", "error", "-c", code],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        env=os.environ | {"PYTHONPATH": path, "PYTHONFAULTHANDLER": "1"} | environment,
        cwd=here,
    ) as process:
        report = _follow(process, hang_s, stall_s)
        if report.failure:
            process.kill()
        _, said = process.communicate()
    if not report.failure and process.returncode != 0:
        # Hypothesis repeats the whole spec behind the traceback
        traceback = said.decode(errors="replace").split("Failing test case")[0].split("Falsifying example")[0]
        report.failure = f"ended with {process.returncode}: {traceback[-3000:]}"
    if report.failure and case.exists():
        report.failure += f"\nwhile drawing {case.read_text()[:3000]}"
    return report


def _follow(process: subprocess.Popen[bytes], hang_s: float, stall_s: float) -> Report:
    report, case_cpu_s = Report(), None
    busy_cpu_s, busy_s = 0.0, time.monotonic()  # when it was last seen to do something
    assert process.stdout is not None
    os.set_blocking(process.stdout.fileno(), False)
    rest = b""
    while True:
        ready, _, _ = select.select([process.stdout], [], [], 0.25)
        said = process.stdout.read() if ready else None
        if ready and not said:
            return report
        used_s = cpu_s(process.pid) if process.poll() is None else busy_cpu_s
        *lines, rest = (rest + (said or b"")).split(b"\n")
        for line in lines:
            if line == b"start":
                case_cpu_s = used_s
            else:
                report.outcomes[line.decode()] += 1
                report.slowest_s = max(report.slowest_s, used_s - (used_s if case_cpu_s is None else case_cpu_s))
                case_cpu_s = None
        if case_cpu_s is not None and used_s - case_cpu_s > hang_s:
            report.failure = f"hangs: {used_s - case_cpu_s:.1f} s of CPU and no end"
            return report
        if used_s > busy_cpu_s + 0.02:
            busy_cpu_s, busy_s = used_s, time.monotonic()
        elif time.monotonic() - busy_s > stall_s:
            report.failure = f"stalls: has done nothing for {stall_s:g} s"
            return report


def cases(manifest: Path, number: int, examples: int, folder: Path, **environment: str) -> Report:
    folder.mkdir(parents=True, exist_ok=True)
    code = f"import test_render_fuzz as t; t.draw_cases({str(manifest)!r}, {number}, {examples}, {str(folder)!r})"
    return watched(code, folder / "case.txt", **environment)


# Tests


def test_a_hundred_pages_are_drawn_or_dropped_with_a_label(manifest, tmp_path):
    report = cases(manifest, 1, 100, tmp_path)
    assert report.failure == ""
    assert report.outcomes.total() == 100
    assert report.outcomes["picture"] >= 10
    assert set(report.outcomes) <= REASONS | {"picture", "picture without text"}
    # the same bytes from the specs alone, in another process, in another order, another country and another hash seed
    code = f"import test_render_fuzz as t; t.draw_again({str(manifest)!r}, {str(tmp_path / 'drawn.jsonl')!r})"
    again = watched(code, tmp_path / "none", PYTHONHASHSEED="4711", TZ="Asia/Shanghai", LC_ALL="C")
    assert again.failure == ""
    assert again.outcomes.keys() == {"True"}
    assert again.outcomes["True"] >= 10


@pytest.mark.slow
@pytest.mark.parametrize("batch", range(20))
def test_ten_thousand_pages_are_drawn_or_dropped_with_a_label(manifest, tmp_path, batch):
    report = cases(manifest, 1000 + batch, 500, tmp_path)
    assert report.failure == ""
    assert report.outcomes.total() == 500
    print(f"\nbatch {batch}: {dict(report.outcomes.most_common())}, slowest {report.slowest_s:.2f} s")


@pytest.mark.parametrize("damage", ["changed", "cut", "gone", "a folder", "another font"])
def test_a_font_that_is_damaged_after_the_scan_is_a_label(tmp_path, damage):
    path = tmp_path / "font.ttf"
    path.write_bytes(hostile_fonts.good_truetype())
    faces = scan_fonts([str(path)])[0].faces
    block = TextBlock(text="abc", lang="en", box_px=(0, 0, 90, 30), face_ids=(faces[0].face_id,), size_px=12)
    spec = PageSpec(
        width_px=90, height_px=30, family="pure", background=PlainGround(rgb=(255, 255, 255)), blocks=(block,)
    )
    assert render(spec, Assets(faces)).lines
    data = path.read_bytes()
    path.unlink()
    if damage == "a folder":
        path.mkdir()
    elif damage != "gone":
        others = {"changed": data[:-1] + b"!", "cut": data[:900], "another font": hostile_fonts.good_cff()}
        path.write_bytes(others[damage])
    with pytest.raises(RenderError, match=r"broken_face: .*font\.ttf: (has changed|cannot be read)") as caught:
        render(spec, Assets(faces))
    assert caught.value.reason == "broken_face"


@pytest.mark.parametrize(
    ("code", "failure"),
    [
        ("print('start', flush=True)\nwhile True: pass", "hangs: "),
        ("print('start', flush=True)\nimport time; time.sleep(60)", "stalls: "),
        ("print('start', flush=True)\nimport ctypes; ctypes.string_at(0)", "ended with -11: Fatal Python error"),
        ("print('start', flush=True)\nraise KeyError('no label')", "ended with 1: "),
    ],
    ids=["hang", "stall", "crash", "error"],
)
def test_the_watchdog_barks(tmp_path, code, failure):
    (tmp_path / "case.txt").write_text("THIS CASE")
    report = watched(code, tmp_path / "case.txt", hang_s=0.5, stall_s=2.0)
    assert report.failure.startswith(failure)
    assert report.failure.endswith("while drawing THIS CASE")


def test_the_check_for_boxes_finds_them(tmp_path):
    path = tmp_path / "boxes.ttf"
    path.write_bytes(hostile_fonts.FONTS["mapped_to_nothing"]())
    check, font = TofuCheck(), forged(path)
    assert not check._is_a_box(font, 5)
    assert check._is_a_box(font, 0)
