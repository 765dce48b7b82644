"""What enters a page without being seen: control characters in its texts, substitutions that make letters vanish."""

import io

import hostile_fonts
import msgspec
import numpy as np
import pytest
from fontTools.feaLib.builder import addOpenTypeFeaturesFromString
from fontTools.ttLib import TTFont
from hypothesis import given
from hypothesis import strategies as st

from fonts_manifest.manifest import FontFace
from fonts_manifest.scan import scan_fonts
from render_engine.choose import PageChoices
from render_engine.controls import without_controls
from render_engine.distribution import PageDistribution
from render_engine.render import Assets, render
from render_engine.spec import PageSpec, PlainGround, RenderedPage, RenderError, TextBlock, TextRun

NAMES = hostile_fonts.NAMES | hostile_fonts.NAMES_EXTRA


def with_features(features: str) -> bytes:
    font = TTFont(io.BytesIO(hostile_fonts.good_truetype()))
    addOpenTypeFeaturesFromString(font, features)
    file = io.BytesIO()
    font.save(file)
    return file.getvalue()


@pytest.fixture(scope="module")
def faces(tmp_path_factory) -> dict[str, FontFace]:
    folder = tmp_path_factory.mktemp("fonts")
    a, b, c, blank, chinese = (NAMES[ord(character)] for character in "ABC 中")
    fonts = {
        "whole": "",
        "ligature": f"feature liga {{ sub {a} {b} by {blank}; }} liga;",
        "letter": f"feature ccmp {{ sub {a} by {blank}; sub {chinese} by {blank}; }} ccmp;",
        "notdef": f"feature liga {{ sub {a} {b} by .notdef; }} liga;",
        # as faces for programmers write "->": an empty glyph, then a wide one that reaches back
        "arrow": f"""lookup EMPTY {{ sub {a} by {blank}; }} EMPTY;
            lookup WIDE {{ sub {b} by {c}; }} WIDE;
            feature calt {{ sub {a}' lookup EMPTY {b}; sub {blank} {b}' lookup WIDE; }} calt;""",
    }
    found = {}
    for name, features in fonts.items():
        path = folder / f"{name}.ttf"
        path.write_bytes(with_features(features) if features else hostile_fonts.good_truetype())
        (found[name],) = scan_fonts([str(path)])[0].faces
    return found


def drawn(text: str, *faces: FontFace, lang: str = "en", **choices: object) -> RenderedPage:
    block = TextBlock(
        text=text,
        lang=lang,
        box_px=(5, 5, 295, 95),
        face_ids=tuple(face.face_id for face in faces),
        size_px=20,
        **choices,
    )
    white = PlainGround(rgb=(255, 255, 255))
    spec = PageSpec(width_px=300, height_px=100, family="pure", background=white, blocks=(block,))
    return render(spec, Assets(faces), glyph_boxes=True)


# Substitutions


@pytest.mark.parametrize(
    ("face", "text"), [("ligature", "CABC"), ("letter", "CAC"), ("letter", "中"), ("notdef", "AB")]
)
def test_letters_that_a_face_makes_vanish_come_from_the_next_face(faces, face, text):
    lang = "zh" if text == "中" else "en"
    mended = drawn(text, faces[face], faces["whole"], lang=lang)
    np.testing.assert_array_equal(mended.image_HW3, drawn(text, faces["whole"], lang=lang).image_HW3)
    assert len(mended.lines[0].glyph_boxes_px) == len(text)


@pytest.mark.parametrize(
    ("face", "text"), [("ligature", "CABC"), ("letter", "CAC"), ("letter", "中"), ("notdef", "AB")]
)
def test_without_another_face_the_page_is_dropped_with_the_reason(faces, face, text):
    with pytest.raises(RenderError, match=r"missing_glyph: .* empty glyphs"):
        drawn(text, faces[face], faces[face], lang="zh" if text == "中" else "en")


def test_words_beside_them_stay_in_their_face(faces):
    other = drawn("CC BB", faces["ligature"], faces["whole"])
    mixed = drawn("CC BB CABC", faces["ligature"], faces["whole"])
    np.testing.assert_array_equal(mixed.lines[0].glyph_boxes_px[:4], other.lines[0].glyph_boxes_px)


def test_a_ligature_that_reaches_back_over_an_empty_glyph_is_whole(faces):
    page = drawn("CABC", faces["arrow"], faces["whole"])
    # C, nothing, C for AB, C
    assert len(page.lines[0].glyph_boxes_px) == 3


# Controls


@given(st.text(st.sampled_from("ab中\r\n\t\v\f\x85\u2028\0\x07\x7f\x9f\ud800"), max_size=20))
def test_only_line_feeds_are_left_and_every_letter(text):
    plain = without_controls(text)
    assert not [one for one in plain if (one < " " and one != "\n") or "\x7f" <= one < "\xa0" or one in "\u2028\u2029"]
    assert [one for one in plain if one in "ab中\ud800"] == [one for one in text if one in "ab中\ud800"]
    assert without_controls(plain) is plain
    assert plain.count(" ") == text.count("\t")


def test_line_ends_of_every_kind_are_one_line_feed():
    assert without_controls("a\r\nb\rc\vd\fe\x85f\u2028g\u2029h\n\ni\tj\0k") == "a\nb\nc\nd\ne\nf\ng\nh\n\ni jk"


def test_a_page_with_controls_is_drawn_as_without_them(faces):
    rough, plain = drawn("A\tB\r\nC\x07C", faces["whole"]), drawn("A B\nCC", faces["whole"])
    np.testing.assert_array_equal(rough.image_HW3, plain.image_HW3)
    assert [line.text for line in rough.lines] == ["A B", "CC"]


def test_runs_move_with_their_letters(faces):
    whole, ligature = faces["whole"], faces["letter"]
    run = TextRun(start=4, end=6, face_ids=(whole.face_id,))
    rough = drawn("\0B\r\nAAC", ligature, whole, runs=(run,))
    plain = drawn("B\nAAC", ligature, whole, runs=(msgspec.structs.replace(run, start=2, end=4),))
    np.testing.assert_array_equal(rough.image_HW3, plain.image_HW3)


def test_a_text_source_with_tabs_loses_no_paragraph(faces):
    class Tabbed:
        def draw(self, rng: np.random.Generator, lang: str, characters: int) -> str:
            return "A\tB\r\nC"

    page = PageChoices(np.random.default_rng(0), PageDistribution(), [faces["whole"]], Tabbed(), "en", 1.0)
    made = page.block((0, 0, 90, 90), 12, face_ids=page.body_faces, ink_rgb=(0, 0, 0), align="start", pitch_em=1.4)
    assert made.text == "A B\nC"
