"""Typography of documents: divided words, squeezed marks, spaces between scripts, bold and italic words."""

import itertools
import re

import hypothesis.strategies as st
import msgspec
import numpy as np
import pyphen
import pytest
import uharfbuzz as hb
from hypothesis import given, settings

from fonts_manifest.scan import scan_fonts
from render_engine.breaking import find_hyphens
from render_engine.choose import PageChoices, faces_of_shard
from render_engine.distribution import PageDistribution
from render_engine.drawable import undrawn, without
from render_engine.emphasis import sibling
from render_engine.render import Assets, render
from render_engine.sample import sample_spec
from render_engine.spec import PageSpec, PlainGround, RenderError, TextBlock, TextRun

FACES = scan_fonts(["package:matplotlib/mpl-data/fonts/ttf", "package:mpl_font/fonts"])[0].faces
BY_NAME = {(face.family, face.weight, face.italic): face for face in FACES}
SERIF, BOLD, ITALIC = (BY_NAME["DejaVu Serif", *style] for style in ((400, False), (700, False), (400, True)))
NOTO, NOTO_BOLD = BY_NAME["Noto Sans CJK SC", 400, False], BY_NAME["Noto Sans CJK SC", 700, False]
WQY = BY_NAME["WenQuanYi Micro Hei", 400, False]
ASSETS = Assets(FACES)


def page(text: str, *, lang="zh", faces=(NOTO,), width=280, height=480, size=16.0, hinting="none", **choices):
    box = (10.0, 10.0, 10.0 + width, 10.0 + height)
    ids = tuple(face.face_id for face in faces)
    block = TextBlock(text=text, lang=lang, box_px=box, face_ids=ids, size_px=size, **choices)
    white = PlainGround(rgb=(255, 255, 255))
    side = {"width_px": width + 60, "height_px": height + 20}
    return PageSpec(**side, family="pure", background=white, blocks=(block,), hinting=hinting)


def widths_em(text: str, **choices) -> list[float]:
    """Width of every line in em, from its first pen to its last."""
    spec = page(text, **choices)
    render(spec, ASSETS)
    lines = ASSETS.scratch.lines[: ASSETS.scratch.line_count]
    return ((lines[:, 3] - lines[:, 2]) / 64 / spec.blocks[0].size_px).round(3).tolist()


def left_ink_px(text: str, **choices) -> list[float]:
    """Where the ink of every line begins."""
    lines = render(page(text, **choices), ASSETS, glyph_boxes=True).lines
    return [float(line.glyph_boxes_px[0, 0]) for line in lines]


def halt_advance(character: str) -> float:
    """Advance in em of a mark under the face's own half-width feature: the oracle of the squeeze."""
    font = hb.Font(hb.Face(hb.Blob.from_file_path(NOTO.path)))
    buffer = hb.Buffer()
    buffer.add_str(character)
    buffer.script, buffer.language, buffer.direction = "Hani", "zh-Hans", "ltr"
    hb.shape(font, buffer, {"halt": True})
    return buffer.glyph_positions[0].x_advance / font.face.upem


# Squeezed marks


@pytest.mark.parametrize("pair", ["。」", "）。", "」，", "，“", "（「", "“‘", "》（", "：“", "！」"])
def test_two_marks_lose_half_an_em_where_they_meet_as_the_faces_halt_feature_has_it(pair):
    (full,) = widths_em(f"一{pair}一")
    (squeezed,) = widths_em(f"一{pair}一", squeeze=True)
    assert full == 4
    assert squeezed == 3.5
    assert min(map(halt_advance, pair)) == 0.5


def test_marks_beside_characters_keep_their_em():
    assert widths_em("一，一（一）一。", squeeze=True) == [8.0]


def test_an_opening_mark_at_the_head_of_a_line_stands_flush_and_the_indent_of_a_paragraph_stays():
    text = "一二三四五「六七」八九十" * 2
    begins = render(page(text, width=80, squeeze=True), ASSETS).lines
    assert begins[1].text[0] == "「"
    full, squeezed = left_ink_px(text, width=80), left_ink_px(text, width=80, squeeze=True)
    # 「 has its ink on the right half of its em
    assert full[1] - squeezed[1] == pytest.approx(8, abs=1)
    assert squeezed[1] == pytest.approx(10 + 0.15 * 16, abs=1.5)
    quoted = "「一二三四" * 3
    assert left_ink_px(quoted, width=80, squeeze=True)[0] == left_ink_px(quoted, width=80)[0]


def test_a_closing_mark_that_does_not_fit_its_line_is_halved_instead_of_taking_a_character_along():
    text = "一二三四五，六七八九十。"
    assert [line.text for line in render(page(text, width=88), ASSETS).lines] == ["一二三四", "五，六七八", "九十。"]
    lines = render(page(text, width=88, squeeze=True), ASSETS).lines
    assert [line.text for line in lines] == ["一二三四五，", "六七八九十。"]
    assert widths_em(text, width=88, squeeze=True) == [5.5, 5.5]


def test_a_mark_with_little_blank_is_not_squeezed_into_its_neighbour():
    # WenQuanYi's parenthesis has its ink from .38 to .73 em
    spec = page("（（一））", faces=(WQY,), squeeze=True, size=40)
    boxes = render(spec, ASSETS, glyph_boxes=True).lines[0].glyph_boxes_px
    assert (np.diff(boxes[:, 0]) > 0).all()
    assert (boxes[1:, 0] - boxes[:-1, 2] >= 0).all()
    assert widths_em("（（一））", faces=(WQY,), squeeze=True)[0] < 5


# Chinese and Latin


def test_chinese_and_latin_that_touch_are_a_quarter_em_apart():
    (close,) = widths_em("中文ABC中文12中")
    (spaced,) = widths_em("中文ABC中文12中", autospace_em=0.25)
    assert spaced - close == pytest.approx(4 * 0.25, abs=0.005)
    assert widths_em("中文 ABC，12。", autospace_em=0.25) == widths_em("中文 ABC，12。")


def test_the_space_between_scripts_is_gone_at_the_end_of_a_line():
    lines = widths_em("一二三四五abc", width=84, autospace_em=0.25)
    assert lines[0] == 5
    assert len(lines) == 2


@pytest.mark.parametrize("face", [NOTO, WQY], ids=lambda face: face.family)
def test_apostrophes_and_quotes_of_english_words_are_narrow_in_a_chinese_face_and_chinese_ones_are_not(face):
    for lang in ("en", "mixed"):
        without, apostrophe = widths_em("dont", lang=lang, faces=(face,)) + widths_em("don’t", lang=lang, faces=(face,))
        assert 0.1 < apostrophe - without < 0.4
        bare, quoted = widths_em("word", lang=lang, faces=(face,)) + widths_em("“word”", lang=lang, faces=(face,))
        assert 0.4 < quoted - bare < 1.1
    assert widths_em("一“二”三", lang="mixed", faces=(face,)) == [5.0]


@pytest.mark.parametrize("face", [NOTO, WQY], ids=lambda face: face.family)
def test_narrow_quotes_stand_clear_of_their_word_and_close_to_it(face):
    (line,) = render(page("“word”", lang="en", faces=(face,), size=40.0), ASSETS, glyph_boxes=True).lines
    boxes = line.glyph_boxes_px
    assert 10 <= boxes[0, 0] <= 10 + 0.15 * 40
    gaps = boxes[1:, 0] - boxes[:-1, 2]
    assert (gaps > -1).all()
    assert (gaps < 0.25 * 40).all()


def test_a_word_of_two_faces_keeps_its_clusters():
    close, spaced = (widths_em("aアbイc", faces=(SERIF, NOTO), letter_spacing_em=em)[0] for em in (0.0, 0.5))
    assert spaced - close == pytest.approx(4 * 0.5, abs=0.01)
    lines = render(page("aアbイc" * 3, faces=(SERIF, NOTO), width=60), ASSETS).lines
    assert "".join(line.text for line in lines) == "aアbイc" * 3


def test_chinese_quotes_come_from_the_chinese_face_behind_a_latin_one():
    assert widths_em("一“二”三——四", lang="mixed", faces=(SERIF, NOTO)) == [8.0]
    (english,) = widths_em("“word”", lang="mixed", faces=(SERIF, NOTO))
    assert english == widths_em("“word”", lang="en", faces=(SERIF,))[0]


# Divided words

PROSE = (
    "Typographical considerations notwithstanding, international organisations occasionally demonstrate extraordinary "
    "responsibility concerning documentation, particularly regarding multilingual communication infrastructure. "
)


def test_long_words_are_divided_where_the_patterns_say_and_no_letter_is_lost():
    spec = page(PROSE, lang="en", faces=(SERIF,), width=150, align="justify", hyphenate=True)
    lines = render(spec, ASSETS).lines
    divided = [at for at, line in enumerate(lines) if line.text.endswith("-")]
    assert len(divided) >= 3
    points = pyphen.Pyphen(lang="en_US", left=2, right=3)
    joined = ""
    for at, line in enumerate(lines):
        if at in divided:
            word = re.sub("[^A-Za-z]", "", line.text.split(" ")[-1] + lines[at + 1].text.split(" ")[0])
            assert len(line.text.split(" ")[-1]) - 1 in points.positions(word.lower())
            joined += line.text[:-1]
        else:
            joined += line.text + " "
    assert joined.strip() == PROSE.strip()
    without = render(page(PROSE, lang="en", faces=(SERIF,), width=150, align="justify"), ASSETS).lines
    assert len(lines) < len(without)


def test_the_hyphen_is_drawn_with_the_line_and_stays_in_its_box():
    lines = render(
        page(PROSE, lang="en", faces=(SERIF,), width=150, align="justify", hyphenate=True), ASSETS, glyph_boxes=True
    ).lines
    for line in lines:
        assert len(line.glyph_boxes_px) == len(line.text.replace(" ", ""))
        assert line.quad_px[2] <= 10 + 150 + 1.5


def test_words_are_divided_only_in_the_blocks_that_ask_for_it():
    divided = page(PROSE, lang="en", faces=(SERIF,), width=150, hyphenate=True)
    block = divided.blocks[0]
    left, _, right, bottom = block.box_px
    other = msgspec.structs.replace(block, box_px=(left + 160, 10.0, right + 160, bottom), hyphenate=False)
    both = msgspec.structs.replace(divided, width_px=400, blocks=(other, block, other))
    lines = render(both, ASSETS).lines
    assert {line.block for line in lines if line.text.endswith("-")} == {1}
    alone = render(divided, ASSETS).lines
    assert [line.text for line in lines if line.block == 1] == [line.text for line in alone]


def test_justification_widens_no_gap_before_a_closing_or_behind_an_opening_mark():
    spec = page("地名，（甲）和乙。这里是一个句子", width=150, align="justify", size=16.0)
    line = render(spec, ASSETS, glyph_boxes=True).lines[0]
    plain = render(page("地名，（甲）和乙。这里是一个句子", width=150), ASSETS, glyph_boxes=True).lines[0]
    wider = (line.glyph_boxes_px - plain.glyph_boxes_px)[:, 0]
    steps = dict(zip(line.text, np.diff(wider, prepend=0).tolist(), strict=True))
    assert wider[-1] > 4
    assert steps["，"] == steps["甲"] == steps["）"] == 0
    assert min(steps["名"], steps["（"], steps["和"], steps["乙"]) > 0


@pytest.mark.parametrize(
    "text", ["甲乙（subject_expression）。丙丁", 'use "collections.namedtuple()" here', "甲（（wwwww）），乙"]
)
def test_no_line_begins_or_ends_with_the_wrong_mark_even_where_a_word_is_longer_than_its_line(text):
    for width in range(80, 220):  # five characters and more
        lines = render(page(text, lang="mixed", width=width), ASSETS).lines
        assert "".join(line.text for line in lines) == text.replace(" ", "") or " " in text
        for line, following in itertools.pairwise(lines):
            assert following.text[0] not in "）。，.)", (width, [one.text for one in lines])
            assert line.text[-1] not in "（(", (width, [one.text for one in lines])


def test_marks_alone_fill_their_lines():
    lines = render(page("。" * 20, width=80), ASSETS).lines
    assert [line.text for line in lines] == ["。" * 5] * 4


def test_no_more_than_two_lines_in_a_row_end_with_a_hyphen():
    text = "incomprehensibility notwithstanding " * 40
    most = 0
    for width in range(150, 300, 10):
        lines = render(page(text, lang="en", faces=(SERIF,), width=width, size=8.0, hyphenate=True), ASSETS).lines
        assert all(" " in line.text for line in lines[:-1])
        ends = "".join("-" if line.text.endswith("-") else "." for line in lines)
        assert "---" not in ends
        most = max(most, ends.count("--"))
    assert most >= 2


def test_a_soft_hyphen_is_seen_only_where_the_line_is_broken_at_it():
    text = "aaaaaaaa bbbb\u00adbbbbbbbbb"
    wide = render(page(text, lang="en", faces=(SERIF,), width=280), ASSETS).lines
    assert [line.text for line in wide] == ["aaaaaaaa bbbbbbbbbbbbb"]
    assert widths_em(text, lang="en", faces=(SERIF,)) == widths_em(
        text.replace("\u00ad", ""), lang="en", faces=(SERIF,)
    )
    narrow = render(page(text, lang="en", faces=(SERIF,), width=150), ASSETS).lines
    assert [line.text for line in narrow] == ["aaaaaaaa bbbb-", "bbbbbbbbb"]


@pytest.mark.parametrize(
    "text", ["www.documentation.org", "NATIONAL", "self-contained", "documentation_index", "short"]
)
def test_addresses_names_and_compounds_are_not_divided(text):
    assert find_hyphens(text) == []


# Bold and italic words


def test_a_run_is_drawn_by_its_own_face_and_the_line_goes_on_behind_it():
    text = "plain bold plain"
    run = TextRun(start=6, end=10, face_ids=(BOLD.face_id,))
    render(page(text, lang="en", faces=(SERIF,), runs=(run,)), ASSETS)
    keys = ASSETS.scratch.keys[: ASSETS.scratch.glyph_count].copy()
    pens = ASSETS.scratch.pens[: len(keys), 0].copy()
    bold_strike = ASSETS.atlas.strike(ASSETS.face(BOLD.face_id), 16 * 64, "none")
    assert (keys >> 18 == bold_strike).tolist() == [False] * 5 + [True] * 4 + [False] * 5
    (alone,) = widths_em("bold", lang="en", faces=(BOLD,))
    (regular,) = widths_em("bold", lang="en", faces=(SERIF,))
    render(page(text, lang="en", faces=(SERIF,)), ASSETS)
    moved = pens[9] - ASSETS.scratch.pens[9, 0]
    assert moved == pytest.approx((alone - regular) * 16, abs=1)


def test_runs_in_several_faces_lose_no_character_and_break_like_plain_text():
    runs = (
        TextRun(start=0, end=5, face_ids=(ITALIC.face_id,)),
        TextRun(start=20, end=60, face_ids=(BOLD.face_id,)),
        TextRun(start=60, end=61, face_ids=(SERIF.face_id, NOTO.face_id)),
    )
    lines = render(page(PROSE, lang="en", faces=(SERIF,), width=200, runs=runs), ASSETS).lines
    assert " ".join(line.text for line in lines) == PROSE.strip()


@pytest.mark.parametrize("runs", [[(5, 3)], [(0, 4), (2, 6)], [(0, 999)]])
def test_runs_out_of_order_or_outside_their_text_are_refused(runs):
    spoiled = tuple(TextRun(start=start, end=end, face_ids=(BOLD.face_id,)) for start, end in runs)
    with pytest.raises(RenderError) as caught:
        render(page("plain text", lang="en", faces=(SERIF,), runs=spoiled), ASSETS)
    assert caught.value.reason == "bad_spec"


# All at once


@settings(max_examples=120, deadline=None)
@given(
    text=st.text("ab 中文，。“”（）「」—-1\n\u00ad", min_size=1, max_size=80).filter(
        lambda text: re.search(r"\w", text)
    ),
    width=st.integers(24, 200),
    align=st.sampled_from(["start", "center", "end", "justify"]),
    size=st.sampled_from([6.0, 9.5, 12.0]),
    hinting=st.sampled_from(["none", "full"]),
    spacing=st.sampled_from([0.0, 0.1]),
    faces=st.sampled_from([(NOTO,), (WQY,), (SERIF, NOTO)]),
    bold=st.tuples(st.integers(0, 80), st.integers(0, 80)),
)
def test_with_everything_on_no_character_is_lost_and_every_line_stays_in_its_box(
    text, width, align, size, hinting, spacing, faces, bold
):
    start, end = sorted(min(at, len(text)) for at in bold)
    spec = page(
        text,
        lang="mixed",
        faces=faces,
        width=width,
        height=20 * (len(text) + 3),
        size=size,
        hinting=hinting,
        align=align,
        squeeze=True,
        autospace_em=0.25,
        hyphenate=True,
        letter_spacing_em=spacing,
        runs=(TextRun(start=start, end=end, face_ids=(NOTO_BOLD.face_id,)),),
    )
    picture = render(spec, ASSETS)
    drawn = "".join(re.sub("-$", "", line.text) for line in picture.lines)
    assert re.sub(r"[\s\u00ad-]", "", drawn) == re.sub(r"[\s\u00ad-]", "", text)
    for line in picture.lines:
        x0, _, _, _, x1, _, _, _ = line.quad_px
        assert 10 - 2 <= x0 <= x1 <= 10 + width + 2


# What the sampler makes of it


class Texts:
    """Pieces of one text with rare characters, marks of both scripts and words that no face here draws."""

    def __init__(self, text: str) -> None:
        self.text = text

    def draw(self, rng: np.random.Generator, lang: str, characters: int) -> str:
        first = int(rng.integers(len(self.text)))
        return (self.text + "\n" + self.text)[first:][:characters].strip() or "中"


MIXED = (
    "排版（typesetting）的“规则”不少：don’t 与 “don’t”，镕、珺和堃，3.5%的人……\n不知道——真的！「引号」。Documentation "
    "notwithstanding, particularly responsible organisations demonstrate communication.\nЭто ещё кириллица и 𓀀.\n"
)


def sampled(faces, **choices) -> list[PageSpec]:
    pages = PageDistribution(page_sizes_px=((256, 256),), families={"pure": 1.0}, **choices)
    return [sample_spec(np.random.default_rng(at), pages, faces, Texts(MIXED), []) for at in range(60)]


def test_a_sampled_page_is_drawn_without_a_box_and_without_a_drop():
    for spec in sampled(FACES, emphasis=1.0, squeezed=1.0, autospaced=1.0, hyphenation=1.0):
        picture = render(spec, ASSETS)
        keys = ASSETS.scratch.keys[: ASSETS.scratch.glyph_count]
        assert len(keys) > 0
        assert ((keys >> 2) & 0xFFFF != 0).all()
        assert "𓀀" not in "".join(line.text for line in picture.lines)


def test_a_rare_character_finds_its_fallback_among_the_faces_of_the_page():
    # Cyrillic stands in every one of these faces, Greek and ℃ in some
    faces = [face for face in FACES if face.family in ("STIXGeneral", "WenQuanYi Micro Hei")]
    spec = sampled(faces, languages={"en": 1.0})[0]
    chooser = PageChoices(np.random.default_rng(0), PageDistribution(), faces, Texts("x"), "en", 1.0)
    stix = tuple(face.face_id for face in faces if face.family == "STIXGeneral" and face.weight == 400)[:1]
    stack, text = chooser.drawable(stix, "x 镕 y")
    assert text == "x 镕 y"
    assert len(stack) == 2
    assert spec.blocks


@pytest.mark.parametrize(
    ("text", "left"),
    [("good\nbad𓀀 one\ngood", "good\ngood"), ("one bad𓀀 word", "one word"), ("中𓀀文", "中文"), ("𓀀", "")],
)
def test_paragraphs_with_what_no_face_draws_are_left_out_and_words_where_there_is_no_other(text, left):
    assert undrawn(text, [NOTO, SERIF]) == {"𓀀"}
    assert without(text, frozenset("𓀀")) == left


def test_the_sampler_uses_every_habit_at_its_rate():
    pages = sampled(FACES, emphasis=0.5, squeezed=0.5, autospaced=0.5, hyphenation=1.0)
    blocks = [block for spec in pages for block in spec.blocks if block.lang != "en"]
    assert 0.2 < np.mean([block.squeeze for block in blocks]) < 0.8
    assert {block.autospace_em for block in blocks} == {0.0, 0.125, 0.25}
    english = [block for spec in pages for block in spec.blocks if block.lang == "en" and block.align == "justify"]
    assert all(block.hyphenate for block in english if block.role == "paragraph")
    runs = [(block, run) for spec in pages for block in spec.blocks for run in block.runs]
    assert len(runs) > 10
    faces = {face.face_id: face for face in FACES}
    for block, run in runs:
        plain, styled = faces[block.face_ids[0]], faces[run.face_ids[0]]
        assert plain.family == styled.family
        assert styled.italic != plain.italic or styled.weight >= 600 > plain.weight
        assert "\n" not in block.text[run.start : run.end]
    off = sampled(FACES, emphasis=0.0, squeezed=0.0, autospaced=0.0, hyphenation=0.0)
    assert not any(
        block.runs or block.squeeze or block.autospace_em or block.hyphenate for spec in off for block in spec.blocks
    )


def test_faces_of_a_shard_come_with_bold_or_italic_ones_of_their_family():
    pages = PageDistribution()
    with_sibling = 0
    for shard in range(20):
        faces = faces_of_shard(np.random.default_rng(shard), pages, FACES)
        with_sibling += any(sibling(face, faces, bold=bold) for face in faces for bold in (True, False))
    assert with_sibling == 20
