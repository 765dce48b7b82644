"""Complex pages: every template draws in every language, blocks keep apart, and a wrong template is refused."""

import re

import numpy as np
import pytest
from test_render_pixels import ASSETS, FACES, PHOTO, TEXTS, digest

from fonts_manifest.errors import BadInput
from render_engine.choose import PageChoices
from render_engine.distribution import PageDistribution, SizeBand
from render_engine.headlines import trimmed
from render_engine.render import render
from render_engine.sample import sample_spec
from render_engine.shapes import draw_shapes
from render_engine.spec import (
    FilledBox,
    GradientGround,
    PageSpec,
    Picture,
    PlainGround,
    Polyline,
    RenderError,
    spec_from_json,
    spec_to_json,
)
from render_engine.template import MAX_DEPTH, Node, Palette, Template, bundled_templates, load_template

BAND = (SizeBand(low_px=7, high_px=14, weight=1),)


def page_of(template: str, lang: str = "en", seed: int = 0, size: tuple[int, int] = (512, 512), photos=(PHOTO,)):
    pages = PageDistribution(
        page_sizes_px=(size,),
        families={"complex": 1},
        templates={template: 1},
        languages={lang: 1},
        size_bands=BAND,
    )
    return sample_spec(np.random.default_rng([4, seed]), pages, FACES, TEXTS, photos)


def overlap(one, other) -> float:
    wide = min(one[2], other[2]) - max(one[0], other[0])
    high = min(one[3], other[3]) - max(one[1], other[1])
    return max(0.0, wide) * max(0.0, high)


def test_the_categories_of_omnidoc_are_all_there():
    assert set(bundled_templates()) == {
        *("slide", "poster", "paper", "newspaper", "magazine", "financial_report", "exam", "textbook", "book"),
        *("notes", "web", "app", "form"),
    }


@pytest.mark.parametrize("template", bundled_templates())
@pytest.mark.parametrize("lang", ["en", "zh", "mixed"])
def test_a_template_draws_blocks_that_keep_apart_inside_their_page(template, lang):
    for seed, size in enumerate([(512, 512), (640, 400), (256, 256)]):
        spec = page_of(template, lang, seed, size)
        assert (spec.family, spec.template) == ("complex", template)
        picture = render(spec, ASSETS)
        boxes = [block.box_px for block in spec.blocks]
        assert len(picture.lines) >= 2
        for at, box in enumerate(boxes):
            assert 0 <= box[0] < box[2] <= size[0]
            assert 0 <= box[1] < box[3] <= size[1]
            for other in boxes[:at]:
                assert overlap(box, other) < 0.05, (spec.blocks[at].text, other)
        # lines of different blocks keep apart too, but for a pixel of tall marks
        for at, line in enumerate(picture.lines):
            x0, y0, x1, _, _, y1, _, _ = line.quad_px
            for other in picture.lines[:at]:
                if other.block != line.block:
                    a0, b0, a1, _, _, b1, _, _ = other.quad_px
                    assert overlap((x0, y0 + 1, x1, y1 - 1), (a0, b0 + 1, a1, b1 - 1)) == 0, (line.text, other.text)


@pytest.mark.parametrize("template", ["poster", "magazine", "book"])
def test_no_paragraph_of_a_small_page_is_a_single_line(template):
    pages = [page_of(template, "zh", seed, (256, 256)) for seed in range(12)]
    blocks = [block for page in pages for block in page.blocks if block.role in ("paragraph", "list")]
    assert len(blocks) >= 8
    for block in blocks:
        high = block.box_px[3] - block.box_px[1]
        assert high >= (1.29 + block.line_pitch_em) * block.size_px, block


@pytest.mark.parametrize("template", bundled_templates())
def test_the_tree_of_parts_holds_its_blocks(template):
    spec = page_of(template, "zh", 7)
    assert spec.layout[0].role == "page"
    for number, node in enumerate(spec.layout):
        assert -1 <= node.parent < number or node.parent == -1 == number - 1
    assert [node.parent for node in spec.layout].count(-1) == 1
    for block in spec.blocks:
        x0, y0, x1, y1 = spec.layout[block.parent].box_px
        assert x0 - 0.1 <= block.box_px[0] <= block.box_px[2] <= x1 + 0.1
        assert y0 - 0.1 <= block.box_px[1] <= block.box_px[3] <= y1 + 0.1


def test_a_report_holds_a_table_whose_numbers_stand_on_the_right():
    pages = (page_of("financial_report", "en", seed) for seed in range(20))
    spec = next(page for page in pages if any(node.role == "table" for node in page.layout))
    tables = [number for number, node in enumerate(spec.layout) if node.role == "table"]
    cells = [block for block in spec.blocks if block.parent == tables[0]]
    assert len(cells) >= 6
    numbers = [cell for cell in cells if cell.text[:1] in "(-0123456789"]
    assert numbers
    assert all(cell.align == "end" for cell in numbers)


def test_numbers_that_a_cell_has_no_room_for_are_shorter_numbers():
    pages = [page_of("financial_report", "en", seed, (256, 256)) for seed in range(40)]
    cells = [block.text for page in pages for block in page.blocks if block.role == "cell" and block.align == "end"]
    numbers = [text for text in cells if re.fullmatch(r"[-(\d][-\d,.%)]*", text)]
    assert len(numbers) >= 50
    for text in numbers:
        assert re.fullmatch(r"-?\d+(\.\d+)?%?|\(?\d{1,3}(,\d{3})*\)?", text), text


def test_cards_keep_their_parts_and_have_no_hole_where_they_cannot(tmp_path):
    (tmp_path / "goods.yaml").write_text("""
description: goods
least_em: 10
most_em: 24
page:
  rows:
  - repeat: [2, 2]
    columns:
    - repeat: [2, 2]
      fill: soft
      rows:
      - {slot: figure}
      - {slot: label, lines: [1, 1], size: [1.6, 1.6]}
      - {slot: label, lines: [1, 1], size: [1.6, 1.6], text: {en: [$ 5], zh: [5 元]}}
""")
    for seed, (height, n_labels) in enumerate([(100, 8), (80, 0)]):
        spec = page_of(str(tmp_path / "goods.yaml"), "zh", seed, (300, height))
        cards = [number for number, node in enumerate(spec.layout) if node.role == "card"]
        labels = [block for block in spec.blocks if block.role == "label"]
        assert (len(cards), len(labels)) == (4, n_labels)  # with room for one label there is none
        for card in cards:
            parts = [block.box_px for block in labels if block.parent == card]
            parts += [node.box_px for node in spec.layout if node.role == "figure" and node.parent == card]
            filled = sum(y1 - y0 for _, y0, _, y1 in parts)
            _, top, _, bottom = spec.layout[card].box_px
            assert filled > 0.8 * (bottom - top), "a hole"


def test_the_same_generator_gives_the_same_complex_page_and_the_spec_draws_it_again():
    for template in bundled_templates():
        spec = page_of(template, "mixed", 5)
        assert page_of(template, "mixed", 5) == spec
        again = spec_from_json(spec_to_json(spec))
        assert again == spec
        assert digest(again, ASSETS) == digest(spec, ASSETS)


def test_questions_are_numbered_in_their_order():
    spec = page_of("exam", "en", 1, (512, 900))
    numbers = [block.text.split(".")[0] for block in spec.blocks if block.role == "paragraph"][1:]
    questions = [int(number) for number in numbers if number.isdigit()]
    assert questions == list(range(1, len(questions) + 1))
    assert len(questions) >= 3


def test_a_template_without_photographs_has_grey_boxes():
    pages = [page_of("app", seed=seed, photos=()) for seed in range(3)]
    spec = next(page for page in pages if any(node.role == "figure" for node in page.layout))
    assert not any(isinstance(shape, Picture) for shape in spec.shapes)
    assert render(spec, ASSETS).lines


def test_old_specs_still_decode():
    old = (
        '{"version":1,"width_px":8,"height_px":8,"family":"pure","background":{"type":"plain","rgb":[1,2,3]},'
        '"blocks":[{"text":"a","lang":"en","box_px":[0.0,0.0,8.0,8.0],"face_ids":["x"],"size_px":5.0,'
        '"line_pitch_em":1.4,"align":"start","first_line_indent_em":0.0,"letter_spacing_em":0.0,'
        '"ink_rgb":[0,0,0],"opacity":1.0,"min_contrast":1.0}],"hinting":"none","blend":"srgb"}'
    )
    spec = spec_from_json(old)
    assert (spec.shapes, spec.surface, spec.antialias, spec.blocks[0].role) == ((), None, "grey", "paragraph")


def test_words_for_a_line_are_cut_as_an_editor_would():
    assert trimmed("of the union, and the") == "The union"
    assert trimmed('Added the "typing') == "Added the typing"
    assert trimmed("Division)") == "Division"
    assert trimmed("Object (e.g") == "Object"
    assert trimmed("德下游（objects") == "德下游"
    assert trimmed("that") == ""
    assert trimmed("only if they would") == ""
    assert trimmed("exception classes should also") == "Exception classes"
    assert trimmed("scope. The set of all names") == "The set of all names"


def test_a_heading_has_whole_pairs_of_quotation_marks_and_brackets():
    assert trimmed('"finally" usage') == '"finally" usage'
    assert trimmed('finally" usage') == "Finally usage"
    assert trimmed('the "try" or "except') == "The try or except"
    assert trimmed('*" denotes') == "Denotes"
    assert trimmed("《红楼梦》的人物，和《西游") == "《红楼梦》的人物，和"
    assert trimmed("《红楼梦》") == "《红楼梦》"


def test_a_piece_of_code_at_the_head_of_a_heading_stays_as_it_is():
    assert trimmed("types.resolve_bases() resolves") == "types.resolve_bases() resolves"
    assert trimmed("clear() and copy()") == "clear() and copy()"
    assert trimmed("async with") == "Async"
    assert trimmed("0 or 12") == ""


@pytest.mark.parametrize("lang", ["en", "zh", "mixed"])
def test_words_for_a_line_fit_it(lang):
    page = PageChoices(np.random.default_rng(3), PageDistribution(), FACES, TEXTS, lang, 1.0)
    for width_em in (3, 6, 12, 30):
        texts = [page.fitted(width_em, 0.9) for _ in range(20)]
        assert any(texts) or width_em < 6
        for text in texts:
            wide = sum(1.0 if character >= "\u2e80" else 0.6 for character in text)
            assert wide <= width_em * 0.9 + 1e-9
            assert "\n" not in text


# A template of one's own


def write(tmp_path, text: str) -> str:
    path = tmp_path / "mine.yaml"
    path.write_text(text, encoding="utf-8")
    load_template.cache_clear()
    return str(path)


def test_a_template_of_ones_own_is_drawn(tmp_path):
    name = write(
        tmp_path,
        """
        description: a sign
        palettes: [{ground: "#102030", ink: "#f0f0f0"}]
        page: {rows: [{slot: label, lines: [1, 1], text: {en: ["Room {d}"], zh: ["{d} 号"]}}, {slot: paragraph}]}
        """,
    )
    spec = page_of(name)
    assert spec.background == PlainGround(rgb=(16, 32, 48))
    assert [block.role for block in spec.blocks] == ["label", "paragraph"]
    assert spec.blocks[0].text.startswith("Room ")
    assert spec.blocks[0].text[5:].isdigit()
    assert spec.blocks[0].ink_rgb == (240, 240, 240)


def own_page(tmp_path, page: str, seed: int = 0, size: tuple[int, int] = (512, 512)) -> PageSpec:
    return page_of(write(tmp_path, f"description: x\nleast_em: 20\nmost_em: 60\npage: {page}"), seed=seed, size=size)


def test_one_of_several_parts_is_drawn_as_often_as_its_chance_says(tmp_path):
    page = "{one_of: [{slot: list, chance: 0.25}, {rows: [{slot: label, lines: [1, 1], repeat: [2, 2]}]}]}"
    roles = [tuple(block.role for block in own_page(tmp_path, page, seed).blocks) for seed in range(120)]
    assert set(roles) == {("list",), ("label", "label")}
    assert 12 <= roles.count(("list",)) <= 38  # a fifth, three deviations


def test_flipped_parts_come_in_reverse_order_and_are_read_so(tmp_path):
    words = "text: {en: [%s], zh: [%s]}, lines: [1, 1], slot: label"
    page = "{flip: %s, columns: [{" + words % ("One", "One") + "}, {" + words % ("Two", "Two") + "}]}"
    for flip, order in ((0, ["One", "Two"]), (1, ["Two", "One"])):
        blocks = own_page(tmp_path, page % flip).blocks
        assert [block.text for block in blocks] == order
        assert blocks[0].box_px[0] < blocks[1].box_px[0]


def test_dividers_stand_in_the_gaps_and_a_rule_runs_along_its_box(tmp_path):
    spec = own_page(tmp_path, "{gap: 2, divider: accent, columns: [{slot: paragraph, repeat: [3, 3]}]}")
    lines = [shape.box_px for shape in spec.shapes]
    assert len(lines) == 2
    for line, before, after in zip(lines, spec.blocks, spec.blocks[1:], strict=False):
        assert before.box_px[2] < line[0] < line[2] < after.box_px[0]
        assert line[2] - line[0] == 1
    page = "{columns: [{slot: paragraph}, {slot: rule, ems: [1, 1]}, {slot: paragraph}]}"
    (rule,) = own_page(tmp_path, page).shapes
    assert rule.box_px[3] - rule.box_px[1] > 50 * (rule.box_px[2] - rule.box_px[0])


def test_words_come_once_before_they_come_again(tmp_path):
    page = "{rows: [{slot: label, lines: [1, 1], repeat: [4, 4], text: {en: [A, B, C, D], zh: [A, B, C, D]}}]}"
    for seed in range(5):
        assert sorted(block.text for block in own_page(tmp_path, page, seed).blocks) == ["A", "B", "C", "D"]


def test_a_digit_that_is_not_0(tmp_path):
    page = '{rows: [{slot: label, lines: [1, 1], repeat: [20, 20], text: {en: ["{p}"], zh: ["{p}"]}}]}'
    digits = {block.text for seed in range(4) for block in own_page(tmp_path, page, seed).blocks}
    assert digits == set("123456789")


@pytest.mark.parametrize("slot", ["table", "chart"])
def test_where_a_figure_has_no_room_there_is_text(tmp_path, slot):
    spec = own_page(tmp_path, f"{{columns: [{{slot: {slot}, ems: [6, 6]}}, {{slot: paragraph}}]}}")
    assert [block.role for block in spec.blocks] == ["paragraph", "paragraph"]


def test_a_heading_is_left_out_with_what_it_stands_over(tmp_path):
    page = (
        "{rows: [{slot: paragraph, lines: [2, 2]}, {repeat: [40, 40], gap: 0.5,"
        " rows: [{slot: heading, lines: [1, 1]}, {slot: paragraph, lines: [3, 3]}]}, {ems: [0, 0]}]}"
    )
    for seed in range(6):
        roles = [block.role for block in own_page(tmp_path, page, seed).blocks]
        assert len(roles) > 4
        assert roles[-1] == "paragraph"


def test_no_page_stays_empty_by_chance_or_for_lack_of_room(tmp_path):
    for seed in range(12):
        assert own_page(tmp_path, "{rows: [{slot: paragraph, chance: 0.5}]}", seed).blocks
    spec = page_of(write(tmp_path, "description: x\nmargin: [0.4, 0.4]\npage: {slot: paragraph}"), size=(96, 64))
    assert spec.blocks


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("description: x\npage: {one_of: [{}], gap: 1}", "beside one_of only chance and repeat may stand, not gap"),
        ("description: x\npage: {slot: paragraph, colour: red}", "unknown key 'page.colour'"),
        ("description: x\npages: {}\npage: {}", "unknown key 'pages'"),
        ("page: {slot: paragraph}", "description: Field required"),
        ("description: x\npage: {slot: poem}", "page.slot: Input should be"),
        ("description: x\npage: {slot: paragraph, rows: [{}]}", "not two of them"),
        ("description: x\npage: {share: [0.1, 0.2], lines: [1, 1]}", "not two of them"),
        ("description: x\npage: {share: [0.5, 0.2]}", "two numbers in order"),
        ("description: x\npage: {slot: label, text: {en: [a]}}", "words in both languages"),
        ("description: x\npage: {slot: label, prefix: {en: '{name}'}}", "are placeholders"),
        ("description: x\npalettes: [{ground: white}]\npage: {}", 'a colour is written "#rrggbb"'),
        ("description: x\npage: [", "not valid YAML"),
        ("description: x\npage: &a {rows: [{}]}\n", "anchors and aliases"),
        ("description: x\npage: " + "{rows: [" * 14 + "]}" * 14, f"nested {MAX_DEPTH} deep"),
        ("- 1", "the template: Input should be"),
    ],
)
def test_a_wrong_template_is_refused_with_its_place(tmp_path, text, message):
    with pytest.raises(BadInput, match=message.replace("(", r"\(")):
        load_template(write(tmp_path, text))


def test_an_unknown_template_is_refused():
    with pytest.raises(BadInput, match="'slid' is no bundled template"):
        load_template("slid")
    with pytest.raises(BadInput, match="no such template file"):
        load_template("not/there.yaml")


def test_every_key_of_a_template_says_what_it_means():
    for config in (Template, Node, Palette):
        for name, field in config.model_fields.items():
            assert field.description, name


# Shapes


def drawn(*shapes) -> np.ndarray:
    image_HW3 = np.full((20, 30, 3), 100, np.uint8)
    draw_shapes(image_HW3, shapes, lambda crop, width, height: PHOTO.crop(crop.photo_id, crop.box_px, width, height))
    return image_HW3


def test_a_box_covers_its_whole_pixels_and_nothing_else():
    picture = drawn(FilledBox(box_px=(3.4, 2.0, 10.0, 5.6), rgb=(200, 0, 50)))
    assert (picture[2:6, 3:10] == (200, 0, 50)).all()
    assert (picture != 100).any(axis=2).sum() == 4 * 7


def test_a_scrim_mixes_and_a_border_leaves_the_inside():
    assert (drawn(FilledBox(box_px=(0, 0, 30, 20), rgb=(0, 0, 0), opacity=0.5)) == 50).all()
    framed = drawn(FilledBox(box_px=(2, 2, 12, 12), border_rgb=(255, 0, 0), border_px=2))
    assert (framed[2:12, 2:12].reshape(-1, 3) == (255, 0, 0)).all(axis=1).sum() == 100 - 36
    assert (framed[4:10, 4:10] == 100).all()


def test_round_corners_cover_their_part_of_the_square():
    picture = drawn(FilledBox(box_px=(0, 0, 20, 20), rgb=(0, 0, 0), radius_px=10))
    covered = (100 - picture[:20, :20, 0].astype(float)).sum() / 100
    assert covered == pytest.approx(np.pi * 100, rel=0.005)
    assert np.array_equal(picture[:20, :20], picture[19::-1, :20])


def test_shapes_beyond_the_page_are_cut():
    inside = drawn(FilledBox(box_px=(-5, -5, 8, 8), rgb=(1, 2, 3), radius_px=4))
    assert (inside[0:3, 0:3] == (1, 2, 3)).all()
    assert (inside[8:] == 100).all()


@pytest.mark.parametrize(
    "shape",
    [
        FilledBox(box_px=(0, 0, float("nan"), 3), rgb=(0, 0, 0)),
        FilledBox(box_px=(0, 0, 3, 3), rgb=(0, 0, 0), opacity=2),
        Polyline(points_px=((0, 0),), rgb=(0, 0, 0)),
        Polyline(points_px=((0, 0), (1e9, 2)), rgb=(0, 0, 0)),
    ],
)
def test_a_shape_out_of_range_is_labelled(shape):
    spec = PageSpec(
        width_px=20, height_px=20, family="pure", background=PlainGround(rgb=(0, 0, 0)), blocks=(), shapes=(shape,)
    )
    with pytest.raises(RenderError) as caught:
        render(spec, ASSETS)
    assert caught.value.reason == "bad_spec"


# Grounds


def ground(background, width=40, height=20) -> np.ndarray:
    spec = PageSpec(width_px=width, height_px=height, family="pure", background=background, blocks=())
    return render(spec, ASSETS).image_HW3


def test_a_gradient_runs_from_its_start_to_its_end():
    right = ground(GradientGround(start_rgb=(0, 10, 200), end_rgb=(255, 10, 0), direction=(1, 0)))
    assert (right[:, 0] == (0, 10, 200)).all()
    assert (right[:, -1] == (255, 10, 0)).all()
    assert (np.diff(right[0, :, 0].astype(int)) >= 0).all()
    assert np.abs(right[0, :, 0] - np.linspace(0, 255, 40)).max() <= 0.5
    up = ground(GradientGround(start_rgb=(0, 10, 200), end_rgb=(255, 10, 0), direction=(0, -2)))
    assert (up[-1] == (0, 10, 200)).all()
    assert (up[0] == (255, 10, 0)).all()
