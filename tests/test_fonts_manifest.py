"""Fonts: what is scanned in, what is left out and why, what a face really draws."""

import io
import json
import os
import shutil
import unicodedata
from pathlib import Path

import freetype
import hostile_fonts
import pytest
import uharfbuzz as hb
from fontTools.fontBuilder import FontBuilder
from fontTools.pens.ttGlyphPen import TTGlyphPen
from fontTools.ttLib import TTFont
from fontTools.varLib.instancer import instantiateVariableFont
from PIL import Image
from typer.testing import CliRunner

from fonts_manifest.cli import app
from fonts_manifest.coverage import (
    coverage,
    drawn_characters,
    draws,
    gb2312_level_1,
    gb2312_level_2,
    general_standard,
    named_sets,
    open_freetype,
)
from fonts_manifest.errors import BadInput
from fonts_manifest.examine import examine
from fonts_manifest.manifest import FontFace, embedding, load_manifest, save_manifest, sha256_of
from fonts_manifest.places import resolve_place
from fonts_manifest.scan import FontsConfig, scan_fonts
from fonts_manifest.specimen import draw_specimen
from fonts_manifest.workers import examine_all

DEJAVU = resolve_place("package:matplotlib/mpl-data/fonts/ttf/DejaVuSans.ttf")
CM = resolve_place("package:matplotlib/mpl-data/fonts/ttf")
WQY = resolve_place("package:mpl_font/fonts/wqy/wqy-microhei.ttc")


def build_font(
    path: Path, *, empty: str = "", notdef: str = "", copied: str = "", same: bool = False, without: str = ""
) -> Path:
    """A font of 95 ASCII characters, each a bar as wide as its code.

    `empty` have no outline, `notdef` are glyph 0, `copied` are glyphs of their own that look like it.
    """
    codes = [code for code in range(0x20, 0x7F) if chr(code) not in without]
    names = {code: "bar" if same and code != 0x20 else f"uni{code:04X}" for code in [*codes, *map(ord, empty + copied)]}
    order = [".notdef", *dict.fromkeys(names.values())]

    def bar(width: int) -> object:
        pen = TTGlyphPen(None)
        if width:
            pen.moveTo((0, 0))
            pen.lineTo((0, 700))
            pen.lineTo((width, 700))
            pen.lineTo((width, 0))
            pen.closePath()
        return pen.glyph()

    glyphs = {".notdef": bar(500)} | {name: bar(3 * code) for code, name in names.items()}
    glyphs |= {names[code]: bar(0) for code in [0x20, *map(ord, empty)] if code in names}
    glyphs |= {names[ord(character)]: bar(500) for character in copied}
    builder = FontBuilder(1000)
    builder.setupGlyphOrder(order)
    builder.setupCharacterMap(names | dict.fromkeys(map(ord, notdef), ".notdef"))
    builder.setupGlyf(glyphs)
    builder.setupHorizontalMetrics(dict.fromkeys(order, (600, 0)))
    builder.setupHorizontalHeader(ascent=800, descent=-200)
    builder.setupNameTable(
        {"familyName": "Bars", "styleName": "Regular", "licenseDescription": "SIL Open Font License"}
    )
    builder.setupOS2(sTypoAscender=800, sxHeight=0, sCapHeight=0, version=4, usWeightClass=250, fsType=4)
    builder.setupPost()
    builder.save(path)
    return path


def test_a_scanned_face_is_described_in_unrounded_fractions_of_the_em():
    manifest, left_out = scan_fonts([str(DEJAVU)])
    (face,) = manifest.faces
    assert left_out == []
    assert face.face_id == f"{sha256_of(DEJAVU)[:16]}-0"
    assert (face.family, face.weight, face.italic, face.scripts) == ("DejaVu Sans", 400, False, ("latin",))
    assert face.licence == "Bitstream-Vera"
    assert (face.ascender, face.descender) == (1901 / 2048, -483 / 2048)
    assert (face.x_height, face.cap_height) == (1120 / 2048, 1493 / 2048)


def test_licence_weight_and_embedding_bits_come_from_the_file(tmp_path):
    (face,) = scan_fonts([str(build_font(tmp_path / "bars.ttf"))])[0].faces
    assert (face.licence, face.weight, face.fs_type) == ("OFL-1.1", 250, 4)
    assert (face.x_height, face.cap_height) == (0.7, 0.7)  # measured: OS/2 does not say


def test_every_face_of_a_collection_is_found_and_writes_chinese():
    manifest, _ = scan_fonts([str(WQY)])
    assert [face.face_id[16:] for face in manifest.faces] == ["-0", "-1"]
    assert {face.family for face in manifest.faces} == {"WenQuanYi Micro Hei", "WenQuanYi Micro Hei Mono"}
    assert all(face.scripts == ("latin", "han") for face in manifest.faces)
    assert {face.licence for face in manifest.faces} == {"Apache-2.0 OR GPL-3.0-with-font-exception"}


def test_broken_files_are_listed_and_the_good_one_is_kept(tmp_path):
    good = build_font(tmp_path / "good.ttf")
    (tmp_path / "empty.ttf").write_bytes(b"")
    (tmp_path / "text.ttf").write_text("I am no font")
    (tmp_path / "truncated.ttf").write_bytes(DEJAVU.read_bytes()[:50_000])
    (tmp_path / "half.ttf").write_bytes(good.read_bytes()[: good.stat().st_size // 2])
    (tmp_path / "ignored.txt").write_text("not even called a font")
    manifest, left_out = scan_fonts([str(tmp_path)])
    assert [face.family for face in manifest.faces] == ["Bars"]
    assert sorted(Path(path.split("#")[0]).name for path, _ in left_out) == [
        "empty.ttf",
        "half.ttf",
        "text.ttf",
        "truncated.ttf",
    ]
    assert all(reason for _, reason in left_out)


def test_equal_files_count_once(tmp_path):
    build_font(tmp_path / "a.ttf")
    shutil.copy(tmp_path / "a.ttf", tmp_path / "b.ttf")
    manifest, left_out = scan_fonts([str(tmp_path)])
    assert len(manifest.faces) == 1
    assert left_out == [(str(tmp_path / "b.ttf"), f"the same file as {tmp_path / 'a.ttf'}")]


@pytest.mark.parametrize(
    ("name", "reason"),
    [
        ("cmr10.ttf", "draws 'quotedblright' for '\"'"),
        ("cmsy10.ttf", "draws 'arrowright' for '!'"),
        ("cmex10.ttf", "a symbol font"),
        ("STIXSizOneSymReg.ttf", "lacks 85 of 95 ASCII characters"),
        ("LastResortHE-Regular.ttf", "ASCII"),
    ],
)
def test_a_font_whose_ascii_shows_something_else_is_left_out(name, reason):
    manifest, left_out = scan_fonts([str(CM / name), str(DEJAVU)])
    assert [face.family for face in manifest.faces] == ["DejaVu Sans"]
    assert [Path(path.split("#")[0]).name for path, _ in left_out] == [name]
    assert reason in left_out[0][1]


def test_a_font_that_draws_one_glyph_for_all_is_left_out(tmp_path):
    build_font(tmp_path / "same.ttf", same=True)
    with pytest.raises(BadInput, match=r"no usable font face .* \(1 left out\)"):
        scan_fonts([str(tmp_path)])


def test_a_font_that_lacks_one_ascii_character_is_left_out(tmp_path):
    build_font(tmp_path / "lacks.ttf", without="~")
    build_font(tmp_path / "whole.ttf")
    _, left_out = scan_fonts([str(tmp_path)])
    assert left_out == [(f"{tmp_path / 'lacks.ttf'}#0", "lacks 1 of 95 ASCII characters, '~' among them")]


def test_no_place_and_a_missing_place_are_bad_input(tmp_path):
    with pytest.raises(BadInput, match="no usable font face under no place at all"):
        scan_fonts([])
    with pytest.raises(BadInput, match="no such file or folder"):
        scan_fonts([str(tmp_path / "nowhere")])


def test_progress_counts_every_file(tmp_path):
    build_font(tmp_path / "a.ttf")
    build_font(tmp_path / "b.ttf", empty="é")
    seen = []
    scan_fonts([str(tmp_path)], lambda done, total: seen.append((done, total)))
    assert seen == [(0, 2), (1, 2), (2, 2)]


# Files that are broken on purpose


LEFT_OUT = {
    "empty": "not a font",
    "no_font": "not a font",
    "only_a_header": "not a font",
    "truncated": "lacks 94 of 95",
    "truncated_cff": "cannot be opened",
    "zero_em": "cannot be opened",
    "em_of_one": "cannot be opened",
    "huge_em": "cannot be opened",
    "bitmaps": "bitmap only",
    "no_outlines": "cannot be opened",
    "cyclic": "lacks 2 of 95 ASCII characters, 'A' among them",
    "no_cmap": "different glyphs for ' '",  # FreeType makes one up from the names of glyphs
    "noise_in_cmap": "different glyphs for ' '",
    "cmap_beyond_the_glyphs": "lacks 90 of 95",
    "no_glyphs": "",
    "lost_face": "HarfBuzz finds no glyphs",
    "collection_of_nothing": "not a font",
    "huge_advance": "'A' is more than 8 em large",
    "advances_of_0": "'!' advances by nothing",
    "noise_in_glyf": "lacks 94 of 95",
    "noise_in_loca": "lacks",
    "noise_in_hmtx": "",
    "noise_in_cff": "cannot be opened",
    "no_metrics": "cannot be opened",
    "flat": "leave no line to write on",
    "upside_down": "leave no line to write on",
    "cff_calls_itself": "lacks 1 of 95",
    "cff_bomb": "lacks 1 of 95",
    "noise_in_gvar": "variations cannot be read",
}
"""The others are used, as far as they can be; test_render_fuzz.py draws with them."""


def test_every_broken_font_is_left_out_with_its_reason_or_used(tmp_path):
    for name, make in hostile_fonts.FONTS.items():
        (tmp_path / f"{name}.ttf").write_bytes(make())
    manifest, left_out = scan_fonts([str(tmp_path)])
    reasons = {}
    for path, reason in reversed(left_out):
        reasons[Path(path).name.split(".")[0]] = reason
    used = {Path(face.path).stem for face in manifest.faces}
    assert {name: reasons[name] for name, reason in LEFT_OUT.items() if reason not in reasons[name]} == {}
    assert used & set(LEFT_OUT) == set()
    assert used | set(reasons) == set(hostile_fonts.FONTS)
    assert {"65535_glyphs", "negative_bbox", "no_fvar_data", "no_names_no_os2", "mapped_to_nothing"} <= used


def test_a_good_font_is_not_left_out(tmp_path):
    for name, make in (("ttf", hostile_fonts.good_truetype), ("cff", hostile_fonts.good_cff)):
        (tmp_path / f"{name}.otf").write_bytes(make())
    manifest, left_out = scan_fonts([str(tmp_path)])
    assert len(manifest.faces) == 2
    assert left_out == []


def test_of_a_collection_the_good_faces_are_kept(tmp_path):
    broken = hostile_fonts.patched(hostile_fonts.good_truetype(), "head", 18, "H", 0)
    data = hostile_fonts.collection([broken, hostile_fonts.good_truetype(), hostile_fonts.FONTS["flat"]()])
    (tmp_path / "three.ttc").write_bytes(data)
    manifest, left_out = scan_fonts([str(tmp_path)])
    assert [face.face_id[16:] for face in manifest.faces] == ["-1"]
    assert [path[-2:] for path, _ in left_out] == ["#0", "#2"]


def test_files_that_cannot_be_read_are_listed(tmp_path):
    build_font(tmp_path / "good.ttf")
    (tmp_path / "folder.ttf").mkdir()
    (tmp_path / "nowhere.ttf").symlink_to(tmp_path / "gone.ttf")
    (tmp_path / "itself.ttf").symlink_to(tmp_path / "itself.ttf")
    os.mkfifo(tmp_path / "waits_for_ever.ttf")
    shutil.copy(tmp_path / "good.ttf", os.fsencode(tmp_path) + b"/\xff.ttf")
    (tmp_path / "web.woff2").write_bytes(b"wOF2" + bytes(60))
    manifest, left_out = scan_fonts([str(tmp_path)])
    assert [Path(face.path).name for face in manifest.faces] == ["good.ttf"]
    assert [(Path(path).name, reason.split(",")[0]) for path, reason in left_out] == [
        ("web.woff2", "compressed for the web"),
        ("\ufffd.ttf", "its path is not UTF-8"),
    ]
    save_manifest(manifest, tmp_path / "fonts.json")


CRASHES = """
import os, signal, time
from pathlib import Path
from fonts_manifest.apart import serve
from fonts_manifest.workers import open_examiner


def open_crashing(setup):
    real = open_examiner(setup)

    def examine(path):
        name = Path(path).stem
        if name == "crash":
            os.kill(os.getpid(), signal.SIGSEGV)
        if name == "stall":
            time.sleep(60)
        if name == "bug":
            raise TypeError("ours")
        return real(path)

    return examine


serve(open_crashing)
"""


def crashing_examiner(folder, monkeypatch):
    (folder / "crashing_examiner.py").write_text(CRASHES)
    monkeypatch.syspath_prepend(folder)
    monkeypatch.setattr("fonts_manifest.workers.MODULE", "crashing_examiner")


@pytest.mark.parametrize("processes", [1, 2])
def test_a_font_that_crashes_or_stalls_its_library_costs_one_file(tmp_path, monkeypatch, processes):
    crashing_examiner(tmp_path, monkeypatch)
    monkeypatch.setattr("fonts_manifest.workers.LIMIT_S", 2.0)
    names = ["a", "crash", "stall", "z"]
    for number, name in enumerate(names):
        build_font(tmp_path / f"{name}.ttf", empty=chr(0xC0 + number))
    seen = []
    found = examine_all(
        [tmp_path / f"{name}.ttf" for name in names], processes, lambda done, total: seen.append((done, total))
    )
    assert [len(file.faces) for file in found] == [1, 0, 0, 1]
    assert found[1].left_out == ((str(tmp_path / "crash.ttf"), "ended the process (signal 11)"),)
    assert found[2].left_out == ((str(tmp_path / "stall.ttf"), "took longer than 2 s"),)
    assert seen == [(done, 4) for done in range(5)]


def test_a_bug_of_ours_is_not_blamed_on_the_font(tmp_path, monkeypatch):
    crashing_examiner(tmp_path, monkeypatch)
    with pytest.raises(RuntimeError, match="exit code 1"):
        examine_all([build_font(tmp_path / "bug.ttf")])


def test_any_number_of_processes_finds_the_same(tmp_path):
    for number in range(9):
        build_font(tmp_path / f"{number}.ttf", empty=chr(0xC0 + number % 7))
    assert scan_fonts([str(tmp_path)], processes=1) == scan_fonts([str(tmp_path)], processes=3)


# Variable fonts


@pytest.fixture(scope="module")
def variable(tmp_path_factory) -> tuple[FontFace, ...]:
    path = tmp_path_factory.mktemp("variable") / "variable.ttf"
    path.write_bytes(hostile_fonts.variable())
    return scan_fonts([str(path)])[0].faces


def test_every_named_instance_is_a_face(variable):
    described = [(face.face_id[16:], face.style, face.weight, face.coordinates) for face in variable]
    assert described == [
        ("-0.1", "Thin", 100, (("wght", 100.0),)),
        ("-0", "Regular", 400, ()),  # the instance Regular is the default once more
        ("-0.3", "Bold", 900, (("wght", 900.0),)),
    ]


def test_an_instance_is_drawn_and_measured_at_its_coordinates_by_both_libraries(variable):
    for face in variable:
        # fontTools cuts the instance out of the font: a font without axes, read anew
        instance = instantiateVariableFont(TTFont(face.path), dict(face.coordinates) or {"wght": 400})
        file = io.BytesIO()
        instance.save(file)
        shaper = hb.Font(hb.Face(hb.Blob.from_file_path(face.path), face.face_index))
        handle, oracle = open_freetype(face.path, face.face_index), freetype.Face(io.BytesIO(file.getvalue()))
        for character in "AZaz09~":
            glyph = handle.get_char_index(character)
            advance = instance["hmtx"][instance.getBestCmap()[ord(character)]][0]
            assert shaper.get_glyph_h_advance(glyph) == advance
            handle.load_glyph(glyph, freetype.FT_LOAD_NO_SCALE)
            oracle.load_glyph(oracle.get_char_index(character), freetype.FT_LOAD_NO_SCALE)
            assert handle.glyph.outline.points == oracle.glyph.outline.points
            assert handle.glyph.metrics.horiAdvance == advance
    widths = [hb.Font(hb.Face(hb.Blob.from_file_path(f.path), f.face_index)).get_glyph_h_advance(9) for f in variable]
    assert widths == [399, 600, 900]


def test_a_font_whose_libraries_disagree_is_left_out(tmp_path):
    # without a single advance HarfBuzz takes an em each, FreeType nothing
    (tmp_path / "odd.ttf").write_bytes(hostile_fonts.patched(hostile_fonts.good_truetype(), "hhea", 34, "H", 0))
    (left_out,) = examine(tmp_path / "odd.ttf").left_out
    assert left_out[1] == "FreeType and HarfBuzz find different advances for ' '"


def test_embedding_bits_are_said_in_a_word():
    said = [embedding(bits) for bits in (0, 2, 4, 8, 0xC, 0x104, 0x202)]
    assert said == ["free", "restricted", "print", "editable", "editable", "print whole", "restricted bitmap"]


def test_system_folders_are_searched_only_when_asked():
    assert FontsConfig(places=("x",), system=False).all_places() == ["x"]
    assert set(FontsConfig(places=("x",)).all_places()) >= {"x"}


def test_a_character_without_outline_or_mapped_to_notdef_is_not_drawn(tmp_path):
    handle = open_freetype(build_font(tmp_path / "holes.ttf", empty="é\u00a0", notdef="中", copied="国"), 0)
    assert draws(handle, ord("A"))
    assert draws(handle, ord(" "))  # a blank may be empty
    assert draws(handle, 0xA0)
    assert not draws(handle, ord("é"))  # in the cmap, but nothing would be seen
    assert not draws(handle, ord("中"))
    assert not draws(handle, ord("国"))  # the box under another number
    assert not draws(handle, ord("文"))


def test_gb2312_has_its_6763_characters_in_its_own_order():
    assert (len(gb2312_level_1()), gb2312_level_1()[0], gb2312_level_1()[-1]) == (3755, "啊", "座")
    assert (len(gb2312_level_2()), gb2312_level_2()[0], gb2312_level_2()[-1]) == (3008, "亍", "齄")
    assert not set(gb2312_level_1()) & set(gb2312_level_2())
    assert {name: len(characters) for name, characters in named_sets().items()} == {
        "ASCII": 95,
        "Latin-1": 190,
        "GB 2312 level 1": 3755,
        "GB 2312 level 2": 3008,
        "8,105 general": 8105,
    }


def test_the_general_standard_characters_are_the_lists_own():
    common, less_common, special = general_standard()
    assert (len(common), len(less_common), len(special)) == (3500, 3000, 1605)
    assert len(set(common + less_common + special)) == 8105
    # first and last of each level
    assert [level[0] + level[-1] for level in (common, less_common, special)] == ["一矗", "乂齉", "亍蠼"]
    assert all(unicodedata.name(character).startswith("CJK UNIFIED") for character in common + less_common + special)
    # level 1 of GB 2312 chose the same everyday characters thirty years earlier
    assert len(set(common) & set(gb2312_level_1() + gb2312_level_2())) > 3450


def test_coverage_counts_real_glyphs():
    (face,) = scan_fonts([str(DEJAVU)])[0].faces
    assert coverage(face)["ASCII"] == (95, 95)
    assert coverage(face)["GB 2312 level 1"] == (0, 3755)
    assert drawn_characters(face, "aé中☃") == {"a", "é", "☃"}


def test_the_digest_depends_on_the_fonts_and_not_on_their_folder(tmp_path):
    (tmp_path / "one").mkdir()
    (tmp_path / "two").mkdir()
    build_font(tmp_path / "one" / "a.ttf")
    shutil.copy(tmp_path / "one" / "a.ttf", tmp_path / "two" / "b.ttf")
    one, two = (scan_fonts([str(tmp_path / name)])[0] for name in ("one", "two"))
    assert one.faces != two.faces
    assert one.digest == two.digest
    assert scan_fonts([str(DEJAVU)])[0].digest != one.digest


def test_a_saved_manifest_is_read_back_whole(tmp_path):
    manifest, _ = scan_fonts([str(DEJAVU), str(WQY)])
    save_manifest(manifest, tmp_path / "deep" / "fonts.json")
    assert load_manifest(tmp_path / "deep" / "fonts.json") == manifest
    assert [path.name for path in (tmp_path / "deep").iterdir()] == ["fonts.json"]


def test_a_manifest_that_does_not_hold_is_refused(tmp_path):
    font, path = build_font(tmp_path / "a.ttf"), tmp_path / "fonts.json"
    manifest, _ = scan_fonts([str(font)])
    with pytest.raises(BadInput, match="no such manifest"):
        load_manifest(path)
    path.write_text("{")
    with pytest.raises(BadInput, match="not a fonts manifest"):
        load_manifest(path)
    save_manifest(manifest, path)
    document = json.loads(path.read_text())
    document["faces"][0]["weight"] = "400"
    path.write_text(json.dumps(document))
    with pytest.raises(BadInput, match=r"faces\.0\.weight"):
        load_manifest(path)
    document["faces"][0]["weight"] = 400
    document["faces"][0]["face_id"] = "0" * 16 + "-0"
    path.write_text(json.dumps(document))
    with pytest.raises(BadInput, match="digest does not match"):
        load_manifest(path)
    save_manifest(manifest, path)
    font.write_bytes(font.read_bytes() + b"\0")
    with pytest.raises(BadInput, match="has changed"):
        load_manifest(path)
    font.unlink()
    with pytest.raises(BadInput, match="is missing"):
        load_manifest(path)
    assert load_manifest(path, verify=False) == manifest


def test_the_specimen_has_ink():
    (face,) = scan_fonts([str(DEJAVU)])[0].faces
    picture = draw_specimen(face)
    assert picture.mode == "RGB"
    assert picture.convert("L").getextrema() == (0, 255)


def test_the_commands_scan_list_show_and_check(tmp_path):
    build_font(tmp_path / "bars.ttf")
    (tmp_path / "broken.otf").write_text("x")
    manifest, specimen = str(tmp_path / "fonts.json"), tmp_path / "specimen.png"
    runner = CliRunner()
    scanned = runner.invoke(app, ["scan", str(tmp_path), "--no-system", "--out", manifest])
    assert scanned.exit_code == 0
    assert "1 faces, 1 left out" in scanned.output
    assert "broken.otf" in scanned.output
    listed = runner.invoke(app, ["list", manifest])
    assert "100.0 %" in listed.output
    assert "Bars" in listed.output
    assert runner.invoke(app, ["show", "bars", manifest, "--out", str(specimen)]).exit_code == 0
    with Image.open(specimen) as picture:
        assert picture.size[0] > 100
    assert "lacks 中" in runner.invoke(app, ["check", "a中", manifest]).output
    missing = runner.invoke(app, ["show", "nothing", manifest])
    assert isinstance(missing.exception, BadInput)
