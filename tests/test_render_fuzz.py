"""Whatever is asked for ends in a picture or a labelled drop: any spec, any text, any font file.

Cases run in processes of their own, in batches, under a watchdog: a crash of compiled code or a page that takes more
than five seconds of CPU fails the test with the spec that did it.
"""

import hashlib
import io
import json
import math
import unicodedata
from pathlib import Path
from typing import get_args

import freetype
import hostile_fonts
import msgspec
import numpy as np
import pytest
from hostile_specs import PHOTO_ID, Faces, specs
from hypothesis import HealthCheck, Phase, given, seed, settings
from watchdog import Report, watched

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
    PlainGround,
    Plate,
    Reason,
    RenderedPage,
    RenderError,
    Shadow,
    Surface,
    TextBlock,
    spec_from_json,
    spec_to_json,
)

REAL_FONTS = ("package:matplotlib/mpl-data/fonts/ttf", "package:mpl_font/fonts")
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
