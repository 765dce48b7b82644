"""What slots say: paragraphs end where sentences end, numbers go on, words that have no room are passed over."""

import re
from collections import Counter

import numpy as np
import pytest
from test_render_pixels import FACES
from test_render_templates import own_page, page_of, write

from render_engine.choose import PageChoices, estimated_em
from render_engine.distribution import PageDistribution
from render_engine.figures import column_texts
from render_engine.wording import Wording


class Sentences:
    """Sentences of 10 to 60 letters, cut behind a word as a corpus does."""

    def draw(self, rng: np.random.Generator, lang: str, characters: int) -> str:
        text = ""
        while len(text) < characters:
            size = int(rng.integers(2, 12))
            text += "风雨山川" * size + "。" if lang == "zh" else "Rain" + " falls" * size + ". "
        return text[:characters].rpartition(" ")[0] if lang == "en" else text[:characters]


def wording(lang: str, seed: int = 0) -> Wording:
    return Wording(PageChoices(np.random.default_rng(seed), PageDistribution(), FACES, Sentences(), lang, 1.0))


@pytest.mark.parametrize("lang", ["en", "zh"])
def test_a_paragraph_ends_with_a_sentence_and_fits_its_lines(lang):
    said = wording(lang)
    for width_em, n_lines in [(30, 2), (25, 4), (40, 8)] * 20:
        text = said.paragraph(width_em, n_lines, 2.0)
        if text[-1] in ".。":
            assert 2.0 + estimated_em(text) <= (n_lines + 0.5) * width_em
    texts = [said.paragraph(30, 4, 2.0) for _ in range(40)]
    assert sum(text[-1] in ".。" for text in texts) >= 36


def test_long_english_columns_are_filled_to_their_last_line():
    for _ in range(10):
        assert len(wording("en").paragraph(20, 30, 0.0)) >= 20 * 30 / 0.52


def test_counters_go_on_through_the_page():
    said = wording("en")
    figures = [int(said.filled("Figure {c}. ", 1)[7:-2]) for _ in range(4)]
    assert figures == list(range(figures[0], figures[0] + 4))
    first = int(said.filled("{c}. ", 1)[:-2])
    assert [said.filled("{s}.{c} ", 1) for _ in range(2)] == [f"{first}.1 ", f"{first}.2 "]
    assert said.filled("{c}. ", 1) == f"{first + 1}. "
    assert said.filled("{s}.{c} ", 1) == f"{first + 1}.1 "
    equations = [said.filled("E = m c²  ({c})", 1), said.filled("y = a x  ({c})", 1)]
    assert int(equations[0][-2]) + 1 == int(equations[1][-2])


def test_words_without_room_are_passed_over():
    said = wording("en")
    assert {said.fixed(("Passport number", "Age"), 1, 4.0, False) for _ in range(6)} == {"Age"}
    assert said.fixed(("Passport number",), 1, 4.0, False) == ""
    assert said.fixed(("Name: ____________",), 1, 6.0, False) == "Name: ____"


def test_a_page_whose_words_have_no_room_is_drawn_smaller(tmp_path):
    page = "{rows: [{slot: button, lines: [1, 1], size: [2, 2], text: {en: [Passport number], zh: [护照号码]}}]}"
    spec = own_page(tmp_path, page)
    assert [block.text for block in spec.blocks] == ["Passport number"]


def test_sections_and_figures_of_a_paper_come_in_order():
    seen = 0
    for seed in range(12):
        heads = [block.text for block in page_of("paper", "zh", seed).blocks if block.role == "heading"]
        numbers = [int(head.split(" ")[0]) for head in heads if head.split(" ")[0].isdigit()]
        assert numbers == list(range(numbers[0], numbers[0] + len(numbers))) if numbers else True
        seen += len(numbers) > 1
        captions = [block.text for block in page_of("paper", "zh", seed).blocks if block.text.startswith("图 ")]
        figures = [int(text.split(" ")[1]) for text in captions]
        assert len(set(figures)) == len(figures)
    assert seen > 3


@pytest.mark.parametrize("style", ["money", "count"])
def test_the_last_row_of_a_column_is_the_sum_of_the_others(style):
    rng = np.random.default_rng(3)
    for most in (4, 6, 12) * 30:
        texts = column_texts(rng, style, 6, most, summed=True)
        values = [int(re.sub(r"\D", "", text)) * (-1 if text.startswith("(") else 1) for text in texts]
        assert sum(values[:-1]) == values[-1]
        assert max(map(len, texts)) <= most


def test_the_tables_of_a_report_have_rows_of_reports_and_a_total():
    rows = Counter(
        block.text
        for seed in range(12)
        for block in page_of("financial_report", "en", seed).blocks
        if block.role == "cell" and block.align == "start"
    )
    assert rows["Total"] >= 3
    assert rows["Revenue"] + rows["Goodwill"] + rows["Inventories"] >= 3


def test_every_point_of_a_chart_has_its_label():
    seen = 0
    for seed in range(30):
        spec = page_of("financial_report", "en", seed)
        charts = [number for number, node in enumerate(spec.layout) if node.role == "chart"]
        for chart in charts:
            names = [block for block in spec.blocks if block.parent == chart and block.align == "center"]
            steps = np.diff([(block.box_px[0] + block.box_px[2]) / 2 for block in names])
            assert len(names) >= 3
            assert np.ptp(steps) < 0.1
            seen += 1
    assert seen >= 5


def test_borders_and_dividers_lie_over_the_fills_of_what_they_surround(tmp_path):
    page = (
        "{border: ink, divider: line, rows: [{repeat: [2, 2], ems: [3, 3], fill: soft,"
        " rows: [{slot: label, lines: [1, 1]}]}]}"
    )
    shapes = own_page(tmp_path, page).shapes
    fills = [at for at, shape in enumerate(shapes) if shape.rgb == (238, 243, 250)]
    others = [at for at, shape in enumerate(shapes) if at not in fills]
    assert len(fills) == 2
    assert len(others) == 2
    assert min(others) > max(fills)


def test_a_paragraph_may_go_without_the_indent_of_its_page(tmp_path):
    page = "indent: true\npage: {rows: [{slot: paragraph}, {slot: paragraph, indent: false}]}"
    spec = page_of(write(tmp_path, f"description: x\n{page}"), "zh")
    assert [block.first_line_indent_em for block in spec.blocks] == [2.0, 0.0]


def test_a_button_without_words_is_not_drawn(tmp_path):
    button = "{slot: button, lines: [1, 1], fill: accent, text: {en: [Passport number], zh: [护照号码]}}"
    for ems, n_shapes in ((3, 0), (12, 1)):
        page = f"{{columns: [{{ems: [{ems}, {ems}], rows: [{button}]}}, {{slot: paragraph}}]}}"
        assert len(own_page(tmp_path, page).shapes) == n_shapes
