"""Text blocks of pages: from annotations, from detected lines, cut, told apart by language, without duplicates."""

import re
from pathlib import Path

import numpy as np
import pytest
from benchmark_pages import RECIPE, block, draw_lines, entry, poly, prose, wrapped, write_annotations
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from datagen.ngrams import ngrams, shared_share
from datagen.ocr import open_recognizer
from datagen.recipes import find_recipe, load_recipe
from fonts_manifest.errors import BadInput
from vae.candidates import Candidate, TokenBenchRecipe, drop_duplicates
from vae.cli import BUNDLED
from vae.textblocks import detect_blocks, group_lines, language_of, read_annotations
from vae.textcrops import cut


def test_annotations_as_omnidocbench_has_them(tmp_path: Path) -> None:
    lines = [
        {"category_type": "text_span", "poly": poly(100, 100 + 30 * i, 500, 120 + 30 * i), "text": "x" * 40}
        for i in range(3)
    ]
    # An inline formula splits a line into spans: they are one row.
    lines[2:] = [
        {"category_type": "text_span", "poly": poly(100, 160, 280, 180), "text": "x" * 20},
        {"category_type": "equation_inline", "poly": poly(280, 160, 320, 180), "latex": "$x$"},
        {"category_type": "text_span", "poly": poly(320, 158, 500, 182), "text": "x" * 18},
    ]
    entries = [
        entry(
            "a.png",
            [
                block((0, 400, 100, 500), "abcd " * 20, order=2),
                block((100, 100, 500, 180), "words", order=1, line_with_spans=lines),
                block((0, 0, 10, 10), "标题文字", order=None, attribute={"text_language": "text_en_ch_mixed"}),
                block((0, 600, 9, 700), "turned", order=3, attribute={"text_rotate": "rotate90"}),
                block((0, 600, 9, 700), "", order=4, ignore=True, category_type="figure"),
            ],
        )
    ]
    (page,) = read_annotations(write_annotations(tmp_path / "a.json", entries))
    assert (page.file, page.category, page.size_px) == ("a.png", "book", (800, 800))
    assert page.blocks is not None
    first, second, third, fourth, _ = page.blocks
    assert first.box_px == (100, 100, 500, 180)
    assert first.lines == 3
    # Advance: 400 + 400 + 180 + 180 px... rows span 400 px each; characters 40 + 40 + 38.
    assert first.cell_px == pytest.approx((1200 / 118 * 30) ** 0.5)
    assert second.cell_px == pytest.approx((100 * 100 / 99) ** 0.5)  # 20 words of 4, 19 blanks
    assert third.turned
    assert fourth.ignored
    assert [b.lang for b in page.blocks] == ["en", "en", "en", "en", "zh"]


@pytest.mark.parametrize(
    ("content", "sentence"),
    [
        ("{", "is no JSON"),
        ("{}", "must be a JSON list"),
        ("[]", "must be a JSON list"),
        ('[{"layout_dets": []}]', "entry 0: page_info"),
        (
            '[{"layout_dets": [{"category_type": "text_block", "poly": [1, 2]}], "page_info": {}}]',
            "entry 0: layout_dets.0",
        ),
    ],
)
def test_annotations_in_another_format_are_one_sentence(tmp_path: Path, content: str, sentence: str) -> None:
    path = tmp_path / "a.json"
    path.write_text(content)
    with pytest.raises(BadInput, match=re.escape(sentence)):
        read_annotations(path)


@pytest.mark.parametrize(
    ("text", "lang"),
    [("A page of English.", "en"), ("一页中文，夹着 English words", "zh"), ("12 + 3 = 15", None), ("", None)],
)
def test_languages_are_told_by_their_characters(text: str, lang: str | None) -> None:
    assert language_of(text) == lang


def test_lines_are_joined_to_blocks_by_column() -> None:
    left = [poly(50, 100 + 30 * i, 380, 120 + 30 * i) for i in range(4)]
    left.append(poly(50, 220, 130, 240))  # a short last line
    right = [poly(420, 100 + 30 * i, 750, 120 + 30 * i) for i in range(3)]
    apart = [poly(420, 300 + 30 * i, 750, 320 + 30 * i) for i in range(2)]  # two lines' height below
    title = [poly(200, 20, 600, 70)]
    quads = [*title, *left, *right, *apart]
    assert group_lines(quads) == [[0], [1, 2, 3, 4, 5], [6, 7, 8], [9, 10]]


def test_words_of_one_row_belong_together() -> None:
    quads = [poly(0, 0, 100, 20), poly(110, 1, 200, 21), poly(260, 0, 400, 20)]
    assert group_lines(quads) == [[0, 1], [2]]
    assert group_lines([]) == []


def test_a_cut_is_scaled_to_its_corners() -> None:
    page_HW3 = np.full((400, 400, 3), 255, np.uint8)
    page_HW3[100:200, 50:150] = 0
    crop_HW3 = cut(page_HW3, (50.0, 100.0, 250.0, 300.0), 100)
    assert crop_HW3.shape == (100, 100, 3)
    assert crop_HW3[2:46, 2:46].max() < 5
    assert crop_HW3[54:, 54:].min() > 250


def candidate(number: int, text: str, page: str, category: str) -> Candidate:
    return Candidate(
        file=f"{number}.png",
        lang="en",
        category=category,
        page=page,
        block_category="text_block",
        block_box_px=(0, 0, 1, 1),
        cell_px=10,
        characters=len(text),
        text=text,
    )


@pytest.mark.parametrize(
    ("common", "page", "category", "reason"),
    [
        (7, "p", "book", "same_page_duplicate"),  # 3 of 12 runs of 5 letters: .25
        (6, "p", "book", ""),  # 2 of 12
        (7, "q", "book", ""),
        (8, "q", "book", "same_category_duplicate"),  # 4 of 12
        (16, "q", "note", ""),
    ],
)
def test_pages_are_stricter_than_categories(common: int, page: str, category: str, reason: str) -> None:
    first = candidate(0, "abcdefghijklmnop", "p", "book")
    second = candidate(1, "abcdefghijklmnop"[:common] + "QRSTUVWXYZ"[: 16 - common], page, category)
    assert [c.reason for c in drop_duplicates([first, second], RECIPE)] == ["", reason]


@settings(deadline=None)
@given(
    st.lists(
        st.tuples(
            st.text(alphabet="abcd", min_size=6, max_size=24),
            st.sampled_from(["p", "q"]),
            st.sampled_from(["book", "note"]),
        ),
        max_size=12,
    )
)
def test_of_crops_that_overlap_only_the_longest_stays(drawn: list[tuple[str, str, str]]) -> None:
    candidates = [candidate(number, *one) for number, one in enumerate(drawn)]
    judged = drop_duplicates(candidates, RECIPE)
    assert [c.file for c in judged] == [c.file for c in candidates]
    kept = {c.file: c for c in judged if not c.reason}

    def too_close(a: Candidate, b: Candidate) -> bool:
        limit = 0.2 if a.page == b.page else 0.3
        share = shared_share(ngrams(a.text or "", 5), ngrams(b.text or "", 5))
        return a.category == b.category and share > limit

    assert not any(too_close(a, b) for a in kept.values() for b in kept.values() if a is not b)
    for dropped in judged:
        if dropped.reason:
            other = kept[dropped.detail.split()[-1]]
            assert too_close(dropped, other)
            assert (other.characters or 0) >= (dropped.characters or 0)
            assert dropped.reason == (
                "same_page_duplicate" if other.page == dropped.page else "same_category_duplicate"
            )


def test_one_figure_of_a_rule_can_be_changed_alone() -> None:
    bundled = find_recipe("tokenbench", [BUNDLED])
    assert load_recipe(bundled, TokenBenchRecipe, []) == RECIPE
    changed = load_recipe(bundled, TokenBenchRecipe, ["zh.cell_px=14"])
    assert changed.zh == RECIPE.zh.model_copy(update={"cell_px": 14})
    assert changed.en == RECIPE.en


def test_blocks_of_a_drawn_page_are_found_and_measured() -> None:
    image = Image.new("RGB", (700, 420), (255, 255, 255))
    rng = np.random.default_rng(0)
    draw_lines(image, wrapped(prose(rng, 50), 38)[:6], 40, 30, 16, 24)
    draw_lines(image, wrapped(prose(rng, 50), 30)[:5], 40, 250, 16, 24)
    first, second = detect_blocks(open_recognizer(), np.asarray(image))
    assert (first.lines, second.lines, first.lang) == (6, 5, "en")
    assert first.box_px[:2] == pytest.approx((40, 30), abs=8)
    # DejaVu Sans at 16 px: an advance of about 9.6 px in this text, lines 24 px apart.
    assert first.cell_px == pytest.approx((9.6 * 24) ** 0.5, rel=0.1)
