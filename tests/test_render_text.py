"""Text: where lines break, how words are shaped, how paragraphs stand in their boxes."""

import re
import string

import hypothesis.strategies as st
import numpy as np
import pytest
import uharfbuzz as hb
from hypothesis import given, settings
from uniseg.linebreak import line_break_breakables

from fonts_manifest.scan import scan_fonts
from render_engine.breaking import break_properties, find_breaks
from render_engine.face import EM, open_face
from render_engine.render import Assets, render
from render_engine.shape import FontStack
from render_engine.singles import singles
from render_engine.spec import PageSpec, PlainGround, RenderError, TextBlock

FACES = scan_fonts(["package:matplotlib/mpl-data/fonts/ttf", "package:mpl_font/fonts"])[0].faces
SERIF = next(face for face in FACES if (face.family, face.weight, face.italic) == ("DejaVu Serif", 400, False))
NOTO = next(face for face in FACES if (face.family, face.style) == ("Noto Sans CJK SC", "Regular"))
WQY = next(face for face in FACES if face.family == "WenQuanYi Micro Hei")
ASSETS = Assets(FACES)

ENGLISH = (
    "AVATAR Tokyo, well-known office fluffy; “quoted” don’t—ever… Type: 3.14 (50%) [e.g.] www.example.org/a-b?c=d "
)
CHINESE = (
    "中文排版需要“避头尾”，不能在行首出现句号。文字——渲染引擎——应当精确；"
    "标点、数字 2024 年与 English words 混排（例如：括号）！"
)

OPENING = "“‘（《〈【「『〔［"
CLOSING = "，。、；：？！”’）》〉】」』〕］…—～"


def page(*blocks: TextBlock, width: int = 300, height: int = 300, **choices: object) -> PageSpec:
    return PageSpec(
        width_px=width,
        height_px=height,
        family="pure",
        background=PlainGround(rgb=(255, 255, 255)),
        blocks=blocks,
        **choices,
    )


def block(text: str, *, lang: str = "zh", box=(10.0, 10.0, 290.0, 290.0), faces=(NOTO,), size: float = 12, **choices):
    return TextBlock(
        text=text, lang=lang, box_px=box, face_ids=tuple(face.face_id for face in faces), size_px=size, **choices
    )


# Breaking


alphabets = st.sampled_from(
    [
        string.printable,
        "ab 1,.-—…“”‘’()!?%$/'\"中文。，、《》（）「」！ー々あっ한\u3000\u00a0\u00ad\u200b\u2060\u200d\u0301é→№℃👍🏽🇨🇳",
        "".join(map(chr, range(0x20, 0x2FF))) + "".join(map(chr, range(0x2000, 0x2070))),
        "".join(map(chr, range(0x3000, 0x3100))) + "".join(map(chr, range(0xFF00, 0xFF60))) + "a1 ",
    ]
)


def break_opportunities(text: str) -> list[int]:
    """1 where a line may (or must) break before that character."""
    codes = np.frombuffer(text.encode("utf-32-le", "surrogatepass"), np.uint32)
    breaks = np.empty(len(codes), np.uint8)
    assert find_breaks(codes, break_properties(codes), breaks)
    return breaks.tolist()


@settings(max_examples=600, deadline=None)
@given(text=alphabets.flatmap(lambda alphabet: st.text(alphabet, max_size=14)))
def test_lines_break_where_uax_14_breaks_them(text):
    assert break_opportunities(text) == list(line_break_breakables(text))


@settings(max_examples=300, deadline=None)
@given(text=st.text(max_size=10))
def test_lines_break_where_uax_14_breaks_them_in_any_script(text):
    assert break_opportunities(text) == list(line_break_breakables(text))


def test_english_breaks_after_blanks_and_hyphens():
    breaks = break_opportunities("a well-known fact.")
    assert [at for at in range(len(breaks)) if breaks[at]] == [2, 7, 13]


@pytest.mark.parametrize("width", range(80, 200, 7))
def test_no_line_begins_with_a_closing_mark_or_ends_with_an_opening_one(width):
    text = "他说：“排版（尤其是‘中文’）——要讲究……对吗？”《规则》写道：【禁止】行首。" * 3
    picture = render(page(block(text, box=(10.0, 0.0, 10.0 + width, 300.0))), ASSETS)
    assert len(picture.lines) >= 8
    for line, after in zip(picture.lines, picture.lines[1:], strict=False):
        assert line.text[-1] not in OPENING
        # A dash may open a line, whole: the two halves of it stay together.
        assert after.text[0] not in CLOSING.replace("—", "")
        assert not (line.text[-1] == "—" and after.text[0] == "—")


# Shaping


def word_rows(stack: FontStack, word: int) -> list[list[int]]:
    """(reference, cluster, advance, x and y offset, 1 where it holds on) of every glyph of a word by its index."""
    rows = stack.word_glyphs[stack.word_first[word] : stack.word_first[word + 1]]
    columns = (rows[:, 0], rows[:, 1] >> 1, rows[:, 2], *stack.offsets[rows[:, 3]].T, rows[:, 1] & 1)
    return np.stack(columns, axis=1).tolist()


def single_row(stack: FontStack, character: str) -> list[int]:
    """(reference, advance) of a character that is set alone."""
    return stack.singles[singles().row_of[ord(character)], :2].tolist()


def glyphs_of(stack: FontStack, text: str) -> list[tuple[int, int, int, int]]:
    """(glyph, character, advance and x offset in font units) of a text as the layout sees it, in order."""
    codes = np.frombuffer(text.encode("utf-32-le"), np.uint32)
    starts, ends, words = stack.words_of(text, codes, np.array([[0, len(codes)]], np.int32), break_properties(codes))
    upem = stack.faces[0].units_per_em
    glyphs, inside = [], set()
    for start, end, word in zip(starts.tolist(), ends.tolist(), words.tolist(), strict=True):
        inside.update(range(start, end))
        for reference, cluster, advance, x, _, _ in word_rows(stack, word):
            glyphs.append((reference & 0xFFFF, start + cluster, round(advance * upem / EM), round(x * upem / EM)))
    for at, code in enumerate(codes.tolist()):
        if at not in inside:
            reference, advance = single_row(stack, chr(code))
            glyphs.append((reference & 0xFFFF, at, round(advance * upem / EM), 0))
    return sorted(glyphs, key=lambda glyph: glyph[1])


def harfbuzz(stack: FontStack, text: str, script: str) -> list[tuple[int, int, int, int]]:
    """The same by HarfBuzz for the whole text at once, in font units."""
    buffer = hb.Buffer()
    buffer.add_codepoints(list(map(ord, text)))
    buffer.script, buffer.language, buffer.direction = script, stack.language, "ltr"
    font = stack.faces[0].font
    hb.shape(hb.Font(hb.Face(hb.Blob.from_file_path(font.path), font.face_index)), buffer)
    return [
        (info.codepoint, info.cluster, position.x_advance, position.x_offset)
        for info, position in zip(buffer.glyph_infos, buffer.glyph_positions, strict=True)
    ]


@pytest.mark.parametrize("face", [face for face in FACES if face.scripts == ("latin",)], ids=lambda face: face.face_id)
def test_glyphs_and_advances_of_english_equal_harfbuzz_on_the_whole_text(face):
    stack = FontStack((open_face(face),), "en")
    text = "".join(character for character in ENGLISH if stack.faces[0].draws(ord(character)))
    assert glyphs_of(stack, text) == harfbuzz(stack, text, "Latn")


@pytest.mark.parametrize("face", [NOTO, WQY], ids=lambda face: face.family)
def test_glyphs_and_advances_of_chinese_equal_harfbuzz_on_the_whole_text(face):
    stack = FontStack((open_face(face),), "zh-Hans")
    # HarfBuzz is given one script: without the English words, which it would be given apart.
    text = re.sub("[A-Za-z]+", "", CHINESE)
    assert glyphs_of(stack, text) == harfbuzz(stack, text, "Hani")


@pytest.mark.parametrize(
    ("face", "lang", "script", "text"),
    [(SERIF, "en", "Latn", ENGLISH), (NOTO, "zh", "Hani", re.sub("[A-Za-z0-9 ]+", "", CHINESE))],
    ids=["english", "chinese"],
)
def test_pens_stand_where_harfbuzz_puts_them_at_the_size_drawn(face, lang, script, text):
    size_26_6 = round(9.3 * 64)
    line = block(text, lang=lang, faces=(face,), size=9.3, box=(0.0, 0.0, 4000.0, 40.0))
    render(page(line, width=4000, height=40), ASSETS)
    keys = ASSETS.scratch.keys[: ASSETS.scratch.glyph_count]
    pens_px = ASSETS.scratch.pens[: len(keys), 0] + (keys & 3) / 4
    shaper = hb.Font(hb.Face(hb.Blob.from_file_path(face.path)))
    shaper.scale = (size_26_6, size_26_6)
    buffer = hb.Buffer()
    buffer.add_codepoints(list(map(ord, text)))
    buffer.script, buffer.language, buffer.direction = script, {"en": "en", "zh": "zh-Hans"}[lang], "ltr"
    hb.shape(shaper, buffer)
    pen, expected = 0, []
    for info, position in zip(buffer.glyph_infos, buffer.glyph_positions, strict=True):
        if text[info.cluster] != " ":
            expected.append((pen + position.x_offset) / 64)
        pen += position.x_advance
    assert len(expected) == len(pens_px) > 40
    # an eighth of a pixel to the nearest phase, and 1/128 px of HarfBuzz's rounding a glyph
    assert np.abs(pens_px - expected).max() <= 1 / 8 + len(expected) / 128
    assert np.abs(np.diff(pens_px - expected)).max() <= 1 / 4 + 1 / 32


@settings(max_examples=60, deadline=None)
@given(
    face=st.sampled_from(FACES),
    words=st.lists(st.text("abfijlTAVy'“”—-.,()/12中文。 ", min_size=1, max_size=8), min_size=1, max_size=30),
)
def test_a_word_is_shaped_as_if_it_were_alone_whatever_stands_around_it(face, words):
    together, fallback = FontStack((open_face(face), open_face(NOTO)), "zh-Hans"), []
    rows = spelled_rows(together, "\n".join(words))
    for word in words:
        fallback.append(spelled_rows(FontStack((open_face(face), open_face(NOTO)), "zh-Hans"), word))
    for alone in fallback:
        assert alone.items() <= rows.items()


def spelled_rows(stack: FontStack, text: str) -> dict[str, list[list[int]]]:
    """Word or single character -> its rows of glyphs, as the stack knows them after this text."""
    codes = np.frombuffer(text.encode("utf-32-le"), np.uint32)
    starts, ends, words = stack.words_of(text, codes, np.array([[0, len(codes)]], np.int32), break_properties(codes))
    rows, spelled = {}, {}
    for start, end, word in zip(starts.tolist(), ends.tolist(), words.tolist(), strict=True):
        assert spelled.setdefault(word, text[start:end]) == text[start:end]
        rows[text[start:end]] = word_rows(stack, word)
    alone = {one: single_row(stack, one) for one in text if one <= "\uffff"}
    return rows | {one: [row] for one, row in alone.items() if row[0] >= 0}


def test_thousands_of_words_are_told_apart():
    stack = FontStack((open_face(SERIF),), "en")
    rng = np.random.default_rng(5)
    words = ["".join(rng.choice(list("abc"), int(rng.integers(1, 9))).tolist()) for _ in range(6000)]
    first = spelled_rows(stack, " ".join(words[:3000]))
    both = spelled_rows(stack, " ".join(words))
    assert len(both) > 2000
    assert first.items() <= both.items()
    assert [row[1] for row in both["abc"]] == [0, 1, 2]


def test_a_ligature_is_one_glyph_and_two_dashes_are_one_in_noto():
    assert len(glyphs_of(FontStack((open_face(SERIF),), "en"), "fi")) == 1
    assert [glyph[2] for glyph in glyphs_of(FontStack((open_face(NOTO),), "zh-Hans"), "——")] == [2000]


def test_a_character_no_face_draws_is_an_error_and_never_a_box():
    with pytest.raises(RenderError, match=r"missing_glyph: U\+4E2D") as caught:
        render(page(block("plain 中 text", lang="en", faces=(SERIF,))), ASSETS)
    assert caught.value.reason == "missing_glyph"
    for text in ("\ue000", "\U0010ffff", "\ud800"):
        with pytest.raises(RenderError) as caught:
            render(page(block("a" + text, faces=(NOTO, SERIF))), ASSETS)
        assert caught.value.reason == "missing_glyph"


def test_a_character_the_first_face_lacks_is_drawn_by_the_next():
    mixed = render(page(block("中", faces=(SERIF, WQY), size=16)), ASSETS)
    alone = render(page(block("中", faces=(WQY,), size=16)), ASSETS)
    ink = [np.argwhere(picture.image_HW3[..., 0] < 255) for picture in (mixed, alone)]
    # the baseline follows the first face, so only the shape is compared
    shape = [points - points.min(axis=0) for points in ink]
    assert len(shape[0]) > 50
    assert (shape[0] == shape[1]).all()
    assert mixed.lines[0].face_id == SERIF.face_id


def test_scripts_from_right_to_left_are_refused():
    with pytest.raises(RenderError) as caught:
        render(page(block("abc שלום", faces=(SERIF,), lang="en")), ASSETS)
    assert caught.value.reason == "right_to_left"


def test_invisible_characters_leave_no_ink():
    plain = render(page(block("ab", lang="en", faces=(SERIF,))), ASSETS)
    joined = render(page(block("a\u200bb\ufe0f", lang="en", faces=(SERIF,))), ASSETS)
    assert np.array_equal(plain.image_HW3, joined.image_HW3)


def test_a_word_that_failed_once_fails_again_and_spoils_no_other():
    assets = Assets(FACES)
    for _ in range(2):
        with pytest.raises(RenderError):
            render(page(block("good bad中 word", lang="en", faces=(SERIF,))), assets)
    after = render(page(block("good word", lang="en", faces=(SERIF,))), assets)
    assert np.array_equal(
        after.image_HW3, render(page(block("good word", lang="en", faces=(SERIF,))), Assets(FACES)).image_HW3
    )


# Layout


def test_lines_say_what_was_drawn_in_order_without_the_blanks_at_their_ends():
    picture = render(page(block(ENGLISH * 3, lang="en", faces=(SERIF,), box=(10.0, 10.0, 120.0, 290.0))), ASSETS)
    texts = [line.text for line in picture.lines]
    assert all(text == text.strip(" ") for text in texts)
    drawn = "".join(texts).replace(" ", "")
    assert len(drawn) == 200
    assert (ENGLISH * 3).replace(" ", "").startswith(drawn)


@settings(max_examples=60, deadline=None)
@given(
    text=st.text("ab 中文，。“”-1\n\u3000", min_size=1, max_size=80).filter(lambda text: text.strip(" \n\u3000")),
    width=st.integers(14, 200),
    align=st.sampled_from(["start", "center", "end", "justify"]),
    size=st.sampled_from([6.0, 9.5, 12.0]),
    hinting=st.sampled_from(["none", "full"]),
)
def test_no_character_is_lost_and_every_line_stays_in_its_box(text, width, align, size, hinting):
    height = 20 * (len(text) + 3)
    box = (20.0, 20.0, 20.0 + width, 20.0 + height)
    spec = page(block(text, box=box, align=align, size=size), width=width + 60, height=height + 40, hinting=hinting)
    picture = render(spec, ASSETS)
    drawn = "".join(line.text for line in picture.lines)
    assert re.sub(r"\s", "", drawn) == re.sub(r"\s", "", text)
    for line in picture.lines:
        x0, y0, _, _, x1, y1, _, _ = line.quad_px
        # a quarter of a pixel of phase, one of anti-aliasing
        assert box[0] - 2 <= x0 <= x1 <= box[2] + 2
        assert box[1] - 1 <= y0 < y1 <= box[3] + 1


def test_what_does_not_fit_the_box_is_not_drawn():
    picture = render(page(block("字" * 500, box=(10.0, 10.0, 100.0, 60.0))), ASSETS)
    assert len(picture.lines) == 3
    assert max(line.quad_px[5] for line in picture.lines) <= 60
    assert (picture.image_HW3[61:] == 255).all()


def test_alignment_moves_lines_to_their_edge():
    ends = {}
    for align in ("start", "center", "end"):
        (line,) = render(page(block("一二三", box=(50.0, 10.0, 150.0, 40.0), align=align)), ASSETS).lines
        ends[align] = (line.quad_px[0], line.quad_px[2])
    assert ends == {"start": (50.0, 86.0), "center": (82.0, 118.0), "end": (114.0, 150.0)}


@pytest.mark.parametrize(
    ("text", "lang", "face"),
    [("every line of this text ends at its edge " * 6, "en", SERIF), (CHINESE * 2, "zh", NOTO)],
)
def test_justified_lines_reach_both_edges_but_the_last(text, lang, face):
    spec = page(block(text, lang=lang, faces=(face,), box=(20.0, 10.0, 220.0, 290.0), align="justify", size=10))
    lines = render(spec, ASSETS).lines
    assert len(lines) >= 4
    for line in lines[:-1]:
        assert abs(line.quad_px[0] - 20) <= 1.5
        assert abs(line.quad_px[2] - 220) <= 1.5
    assert lines[-1].quad_px[2] < 215


def test_the_first_line_of_a_paragraph_is_indented_by_two_em():
    spec = page(block("段" * 40 + "\n" + "落" * 40, box=(10.0, 10.0, 130.0, 290.0), first_line_indent_em=2.0))
    lines = render(spec, ASSETS).lines
    assert [line.quad_px[0] for line in lines] == [34, 10, 10, 10, 10, 34, 10, 10, 10, 10][: len(lines)]
    assert [len(line.text) for line in lines] == [8, 10, 10, 10, 2, 8, 10, 10, 10, 2]


def test_letter_spacing_widens_every_gap_by_its_em():
    plain = render(page(block("一二三四五", size=10)), ASSETS).lines[0]
    spaced = render(page(block("一二三四五", size=10, letter_spacing_em=0.2)), ASSETS).lines[0]
    assert plain.quad_px[2] - plain.quad_px[0] == 50
    assert spaced.quad_px[2] - spaced.quad_px[0] == 58


def test_the_first_baseline_leaves_half_the_leading_above_it():
    render(page(block("H", lang="en", faces=(SERIF,), size=20)), ASSETS)
    # 1.4 em of pitch less (.928 + .236) em of face, halved, plus .928 em, at 20 px under y = 10: 10 + 2.36 + 18.56
    assert ASSETS.scratch.pens[0, 1] == 31


def test_baselines_are_one_pitch_apart_on_whole_pixels():
    lines = render(page(block("字" * 200, line_pitch_em=1.5)), ASSETS).lines
    tops = [line.quad_px[1] for line in lines]
    assert np.diff(tops).tolist() == [18.0] * (len(lines) - 1)


def test_a_word_longer_than_its_line_is_broken_where_it_must():
    picture = render(page(block("a" * 120, lang="en", faces=(SERIF,), box=(10.0, 10.0, 110.0, 290.0))), ASSETS)
    assert sum(len(line.text) for line in picture.lines) == 120
    assert len(picture.lines) > 5


def test_a_box_too_small_for_any_text_is_labelled():
    for box in ((10.0, 10.0, 14.0, 290.0), (10.0, 10.0, 290.0, 15.0), (20.0, 20.0, 10.0, 10.0)):
        with pytest.raises(RenderError) as caught:
            render(page(block("字", box=box)), ASSETS)
        assert caught.value.reason == "no_text"
