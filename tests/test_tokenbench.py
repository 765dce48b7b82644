"""The benchmark made from pages: blocks, crops, rules, duplicates, the human inspection."""

import json
import re
import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image, ImageDraw, ImageFont
from test_house import glyphmill_fails, glyphmill_says

from datagen.ngrams import ngram_overlap
from datagen.ocr import PageLine, Reading, open_recognizer
from datagen.recipes import find_recipe, load_recipe
from fonts_manifest.errors import BadInput
from vae import textcrops
from vae.candidates import Candidate, TokenBenchRecipe, drop_duplicates
from vae.cli import BUNDLED
from vae.review import apply_review, write_review
from vae.textblocks import detect_blocks, group_lines, language_of, read_annotations
from vae.textcrops import cut
from vae.tokenbench import assemble, build, read_candidates

RECIPE = TokenBenchRecipe(kind="tokenbench")
WORDS = (
    *("miller", "grain", "wheel", "stone", "water", "morning", "flour", "letter", "press", "glyph", "paper", "margin"),
    *(
        "column",
        "harbour",
        "lantern",
        "winter",
        "orchard",
        "thunder",
        "village",
        "copper",
        "needle",
        "meadow",
        "candle",
    ),
)


def prose(rng: np.random.Generator, words: int) -> str:
    return " ".join(WORDS[i] for i in rng.integers(len(WORDS), size=words))


def draw_lines(image: Image.Image, lines: Sequence[str], left: int, top: int, size_px: int, pitch_px: int) -> None:
    from matplotlib import font_manager

    font = ImageFont.truetype(font_manager.findfont("DejaVu Sans"), size_px)
    for number, line in enumerate(lines):
        ImageDraw.Draw(image).text((left, top + number * pitch_px), line, fill=(20, 20, 20), font=font)


def wrapped(text: str, characters: int) -> list[str]:
    lines, line = [], ""
    for word in text.split():
        if len(line) + len(word) >= characters:
            lines.append(line.strip())
            line = ""
        line += word + " "
    return [*lines, line.strip()]


def poly(left: float, top: float, right: float, bottom: float) -> list[float]:
    return [left, top, right, top, right, bottom, left, bottom]


def block(box: tuple[float, float, float, float], text: str = "", **more: Any) -> dict[str, Any]:
    return {"category_type": "text_block", "poly": poly(*box), "ignore": False, "anno_id": 0, "text": text} | more


def entry(
    image: str, blocks: Sequence[dict[str, Any]], width: int = 800, height: int = 800, **page: Any
) -> dict[str, Any]:
    attribute = {"data_source": "book", "language": "english", "layout": "single_column", "fuzzy_scan": False} | page
    info = {"page_no": 0, "height": height, "width": width, "image_path": image, "page_attribute": attribute}
    return {"layout_dets": list(blocks), "page_info": info, "extra": {"relation": []}}


def write_annotations(path: Path, entries: Sequence[dict[str, Any]]) -> Path:
    path.write_text(json.dumps(entries, ensure_ascii=False), encoding="utf-8")
    return path


class Scribe:
    """A reader that says what it is told, by the mean colour of the picture's first pixel; counts what it reads."""

    name = "scribe"

    def __init__(self, texts: dict[int, str], score: float = 0.99) -> None:
        self.texts, self.score, self.reads = texts, score, 0

    def read_page(self, image_HW3: npt.NDArray[np.uint8], order: str = "mended") -> list[PageLine]:
        self.reads += 1
        text = self.texts.get(int(image_HW3[0, 0, 0]), "")
        return [PageLine(text=line, score=self.score, quad_px=(0,) * 8) for line in text.splitlines()]

    def read_lines(self, image_HW3: npt.NDArray[np.uint8], quads: Sequence[Any]) -> list[Reading]:
        raise AssertionError("annotated pages are not searched for lines")

    detect = read_lines  # type: ignore[assignment]


def textured(value: int, width: int = 800, height: int = 800) -> Image.Image:
    """A page sharp and full everywhere, whose left column of pixels tells the scribe what it is."""
    rng = np.random.default_rng(value)
    # Squares of 3 px: a page is shrunk before its sharpness is measured.
    squares = np.kron(rng.integers(0, 2, (height // 3 + 1, width // 3 + 1)) * 200, np.ones((3, 3), int))
    squares = squares[:height, :width].astype(np.uint8)
    page_HW3 = np.repeat(squares[..., None], 3, axis=2)
    page_HW3[:400, :40] = value
    return Image.fromarray(page_HW3)


@pytest.fixture
def pages(tmp_path: Path) -> Path:
    folder = tmp_path / "pages"
    folder.mkdir()
    return folder


# ---- blocks


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


# ---- crops


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
        return a.category == b.category and ngram_overlap(a.text or "", b.text or "", 5) > limit

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


LONG = "\n".join(prose(np.random.default_rng(1), 12) for _ in range(6))  # about 440 characters
OTHER = "\n".join(prose(np.random.default_rng(2), 12) for _ in range(6))


def one_of_each(pages: Path) -> tuple[list[dict[str, Any]], Scribe]:
    """A page for every outcome; the reader's texts by the grey that marks each page."""
    big, box = {"order": 1}, (0.0, 0.0, 700.0, 700.0)
    text = "x" * 49 * 49  # cells of 14.3 px: the crop is 366 px of the page
    entries = []

    def page(
        value: int, name: str, blocks: list[dict[str, Any]], picture: Image.Image | None = None, **more: Any
    ) -> None:
        (picture or textured(value)).save(pages / name)
        entries.append(entry(name, blocks, **more))

    page(10, "kept.png", [block(box, text, **big)])
    page(20, "few.png", [block(box, text, **big)])
    page(30, "many.png", [block(box, text, **big)])
    page(40, "again.png", [block(box, text, **big)])
    page(50, "blank.png", [block(box, text, **big)], Image.new("RGB", (800, 800), (50, 50, 50)))
    soft = textured(60).resize((80, 80)).resize((800, 800), Image.Resampling.BICUBIC)
    page(60, "soft.png", [block(box, text, **big)], soft)
    others = [
        block(box, text, category_type="table"),
        block(box, text, ignore=True),
        block(box, text, attribute={"text_rotate": "rotate270"}),
        block(box, ""),
        block(box, text, attribute={"text_language": "text_traditional_chinese"}),
        block((0, 0, 100, 100), "x" * 400),  # cells of 5 px
        block((600, 600, 790, 790), "x" * 170),
    ]
    page(70, "others.png", [b | {"order": n} for n, b in enumerate(others)])
    page(80, "small.png", [block((0, 0, 90, 45), "x" * 20, **big)])
    entries.append(entry("missing.png", [block(box, text, **big)]))
    (pages / "broken.png").write_bytes(b"no picture")
    entries.append(entry("broken.png", [block(box, text, **big)]))
    texts = {10: LONG, 20: "too short", 30: LONG + OTHER, 40: LONG[:-20], 60: OTHER}
    return entries, Scribe(texts)


@pytest.fixture
def built(pages: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> tuple[Path, Scribe, Path]:
    """A benchmark with one candidate of every outcome: its folder, its reader, its annotations."""
    entries, scribe = one_of_each(pages)
    annotations = write_annotations(tmp_path / "annotations.json", entries)
    monkeypatch.setattr(textcrops, "open_recognizer", lambda name: scribe)
    build(RECIPE, pages, annotations, tmp_path / "out")
    return tmp_path / "out", scribe, annotations


def test_every_candidate_has_its_reason(built: tuple[Path, Scribe, Path]) -> None:
    out, scribe, _ = built
    found = {(c.page, c.block_category, c.reason) for c in read_candidates(out)}
    assert found == {
        ("kept.png", "text_block", ""),
        ("few.png", "text_block", "too_few_characters"),
        ("many.png", "text_block", "too_many_characters"),
        ("again.png", "text_block", "same_category_duplicate"),
        ("blank.png", "text_block", "blank"),
        ("soft.png", "text_block", "blurred"),
        ("others.png", "table", "other_category"),
        ("others.png", "text_block", "ignored"),
        ("others.png", "text_block", "turned"),
        ("others.png", "text_block", "unknown_size"),
        ("others.png", "text_block", "other_language"),
        ("others.png", "text_block", "enlarged"),
        ("others.png", "text_block", "beyond_page"),
        ("small.png", "text_block", "expected_too_few"),
    }
    summary = json.loads((out / "candidates.json").read_text())["summary"]
    assert summary["kept"] == 1
    assert summary["page_problems"].keys() == {"missing.png", "broken.png"}
    assert scribe.reads == 4  # nothing is read that a cheaper rule drops


def test_the_kept_crop_is_the_top_left_of_its_block(built: tuple[Path, Scribe, Path], pages: Path) -> None:
    out, _, _ = built
    (record,) = json.loads((out / "benchmark.json").read_text())
    assert record["cell_px"] == pytest.approx(700 / 49, abs=1e-3)
    assert record["scale"] == pytest.approx(10 * 49 / 700, abs=1e-4)
    side = 256 * 700 / 490
    assert record["crop_box_px"] == pytest.approx([0, 0, side, side], abs=0.01)
    assert (record["text"], record["characters"]) == (LONG, len("".join(LONG.split())))
    stored = np.asarray(Image.open(out / "images" / record["file"]))
    assert stored.shape == (256, 256, 3)
    page_HW3 = np.asarray(Image.open(pages / "kept.png"))
    assert (stored == cut(page_HW3, tuple(record["crop_box_px"]), 256)).all()
    assert np.asarray(Image.open(out / "images_512" / record["file"])).shape == (512, 512, 3)
    assert [path.name for path in (out / "images").iterdir()] == [record["file"]]


def test_two_processes_write_what_one_writes(ray_session: None, pages: Path, tmp_path: Path) -> None:
    entries, _ = one_of_each(pages)
    # Pages whose blocks are all dropped unread: workers have a reader of their own.
    cheap = [page for page in entries if page["page_info"]["image_path"] in ("blank.png", "soft.png", "others.png")]
    annotations = write_annotations(tmp_path / "annotations.json", [*cheap, entries[-1]])
    build(RECIPE, pages, annotations, tmp_path / "one")
    build(RECIPE, pages, annotations, tmp_path / "two", executor="ray", workers=2)
    written = [path.relative_to(tmp_path / "one") for path in (tmp_path / "one").rglob("*") if path.is_file()]
    assert len(written) >= 10
    for name in written:
        assert (tmp_path / "two" / name).read_bytes() == (tmp_path / "one" / name).read_bytes(), name


def test_annotations_at_another_resolution_are_scaled(
    built: tuple[Path, Scribe, Path], pages: Path, tmp_path: Path
) -> None:
    out, _, annotations = built
    halved = []
    for page in json.loads(annotations.read_text()):
        page["page_info"] |= {"width": 400, "height": 400}
        for detection in page["layout_dets"]:
            detection["poly"] = [v / 2 for v in detection["poly"]]
        halved.append(page)
    build(RECIPE, pages, write_annotations(tmp_path / "half.json", halved), tmp_path / "half")
    assert (tmp_path / "half/benchmark.json").read_bytes() == (out / "benchmark.json").read_bytes()


def test_a_run_again_reads_nothing_and_changes_no_byte(built: tuple[Path, Scribe, Path], pages: Path) -> None:
    out, scribe, annotations = built
    before = {path: path.read_bytes() for path in out.rglob("*") if path.is_file()}
    reads = scribe.reads
    build(RECIPE, pages, annotations, out)
    assert scribe.reads == reads
    assert {path: path.read_bytes() for path in out.rglob("*") if path.is_file()} == before


def test_a_run_cut_off_goes_on_to_the_same_end(built: tuple[Path, Scribe, Path], pages: Path, tmp_path: Path) -> None:
    out, scribe, annotations = built
    before = (out / "candidates.json").read_bytes()
    (out / "readings/kept.json").unlink()
    (out / "readings/few.json").write_bytes(b'{"key": ')
    (out / "candidates.json").unlink()
    reads = scribe.reads
    build(RECIPE, pages, annotations, out)
    assert scribe.reads == reads + 2
    assert (out / "candidates.json").read_bytes() == before


def test_a_page_that_changed_is_read_again(built: tuple[Path, Scribe, Path], pages: Path) -> None:
    out, _, annotations = built
    textured(20).save(pages / "kept.png")
    report = build(RECIPE, pages, annotations, out)
    # "again" had been dropped for it.
    assert [c.page for c in read_candidates(out) if not c.reason] == ["again.png"]
    assert report.reasons["too_few_characters"] == 2
    assert len(list((out / "images").iterdir())) == 1


def test_another_recipe_wants_another_folder(built: tuple[Path, Scribe, Path], pages: Path) -> None:
    out, _, annotations = built
    with pytest.raises(BadInput, match="made otherwise"):
        build(RECIPE.model_copy(update={"min_lines": 5}), pages, annotations, out)


@pytest.mark.parametrize("name", ["../secret.png", "/etc/hostname"])
def test_annotations_cannot_point_outside_the_pages(pages: Path, tmp_path: Path, name: str) -> None:
    annotations = write_annotations(tmp_path / "a.json", [entry(name, [])])
    with pytest.raises(BadInput, match="lies outside"):
        build(RECIPE, pages, annotations, tmp_path / "out")


def test_names_that_no_file_system_likes_stay_apart(
    pages: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(textcrops, "open_recognizer", lambda name: Scribe({10: LONG}))
    text, box = "x" * 49 * 49, (0.0, 0.0, 700.0, 700.0)
    names = ["第 一页?.png", "第 一页!.png", "sub/第 一页.png"]
    for name in names:
        (pages / name).parent.mkdir(exist_ok=True)
        textured(10).save(pages / name)
    entries = [entry(name, [block(box, text)], data_source=f"kind {n}") for n, name in enumerate(names)]
    build(RECIPE, pages, write_annotations(tmp_path / "a.json", entries), tmp_path / "out")
    files = [c.file for c in read_candidates(tmp_path / "out")]
    assert files == ["en_第_一页_000.png", "en_第_一页~2_000.png", "en_sub_第_一页_000.png"]
    assert {path.name for path in (tmp_path / "out/images").iterdir()} == set(files)


# ---- the human inspection


def embedded(page: Path) -> dict[str, Any]:
    found = re.search(
        r'<script type="application/json" id="data">(.*?)</script>', page.read_text(encoding="utf-8"), re.DOTALL
    )
    assert found is not None
    loaded: dict[str, Any] = json.loads(found[1])
    return loaded


def decide(path: Path, data: dict[str, Any], decisions: dict[str, dict[str, str]]) -> Path:
    path.write_text(json.dumps({"benchmark": data["benchmark"], "decisions": decisions}))
    return path


def test_decisions_are_applied_and_hold(built: tuple[Path, Scribe, Path], pages: Path, tmp_path: Path) -> None:
    out, _, annotations = built
    (page,) = write_review(out)
    data = embedded(page)
    assert [(crop["file"], crop["reason"]) for crop in data["crops"]] == [
        ("en_kept_000.png", ""),
        ("en_again_000.png", "same_category_duplicate"),
        ("en_few_000.png", "too_few_characters"),
        ("en_many_000.png", "too_many_characters"),
    ]
    choice = {"en_kept_000.png": {"decision": "drop", "why": "blurred"}, "en_again_000.png": {"decision": "keep"}}
    report = apply_review(out, [decide(tmp_path / "d.json", data, choice)])
    assert (report.kept, report.reasons["human_dropped"]) == (1, 1)
    assert [path.name for path in (out / "images").iterdir()] == ["en_again_000.png"]
    by_file = {c.file: c for c in read_candidates(out)}
    assert (by_file["en_kept_000.png"].reason, by_file["en_kept_000.png"].detail) == ("human_dropped", "blurred")
    assert by_file["en_again_000.png"].detail == "kept by hand, was same_category_duplicate"
    # Built again, and the page made again: the same decisions, the same benchmark.
    build(RECIPE, pages, annotations, out)
    assert [path.name for path in (out / "images").iterdir()] == ["en_again_000.png"]
    assert embedded(write_review(out)[0])["benchmark"] == data["benchmark"]
    # A later file takes one back.
    report = apply_review(out, [decide(tmp_path / "d.json", data, {"en_kept_000.png": {"decision": "keep"}})])
    assert report.kept == 2


def test_decisions_of_another_benchmark_are_refused(built: tuple[Path, Scribe, Path], tmp_path: Path) -> None:
    out, _, _ = built
    data = embedded(write_review(out)[0])
    with pytest.raises(BadInput, match="another benchmark"):
        apply_review(out, [decide(tmp_path / "d.json", {"benchmark": "0" * 16}, {})])
    with pytest.raises(BadInput, match=re.escape("'../x.png' is no crop")):
        apply_review(out, [decide(tmp_path / "d.json", data, {"../x.png": {"decision": "drop"}})])
    with pytest.raises(BadInput, match="decision"):
        apply_review(out, [decide(tmp_path / "d.json", data, {"en_kept_000.png": {"decision": "burn"}})])
    with pytest.raises(BadInput, match="cannot be read"):
        apply_review(out, [tmp_path / "none.json"])


def test_text_cannot_leave_its_place_in_the_page(built: tuple[Path, Scribe, Path]) -> None:
    out, _, _ = built
    record = json.loads((out / "readings/kept.json").read_text())
    evil = "</script><script>alert(1)</script><!-- " + LONG
    record["candidates"][0]["text"] = evil
    (out / "readings/kept.json").write_text(json.dumps(record))
    assemble(out)
    (page,) = write_review(out)
    assert embedded(page)["crops"][0]["text"] == evil
    assert page.read_text().count("<script") == 2


def test_a_large_benchmark_is_inspected_in_parts(built: tuple[Path, Scribe, Path]) -> None:
    out, _, _ = built
    first, second = write_review(out, crops_a_page=3)
    assert (first.name, second.name) == ("review.html", "review-2.html")
    assert [len(embedded(page)["crops"]) for page in (first, second)] == [3, 1]
    assert embedded(first)["benchmark"] == embedded(second)["benchmark"]


CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser")


@pytest.mark.skipif(CHROMIUM is None, reason="needs Chromium")
@pytest.mark.filterwarnings("ignore::ResourceWarning")  # playwright's own transport
def test_keys_pressed_in_a_browser_become_decisions(built: tuple[Path, Scribe, Path], tmp_path: Path) -> None:
    sync_api = pytest.importorskip("playwright.sync_api")
    out, _, _ = built
    (page_file,) = write_review(out)
    with sync_api.sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"])
        page = browser.new_context(accept_downloads=True).new_page()
        errors: list[str] = []
        page.on("pageerror", lambda error: errors.append(str(error)))
        page.goto(page_file.as_uri())
        # However many crops stand in the strip, it scrolls and the page does not.
        page.evaluate("for (let i = 0; i < 99; i++) strip.append(strip.firstChild.cloneNode())")
        assert page.evaluate("document.documentElement.scrollWidth <= innerWidth && big.clientWidth > 300")
        page.reload()
        page.keyboard.press("1")  # the only kept one: blurred
        page.keyboard.press("u")
        page.keyboard.press("d")
        page.select_option("#show", "rejected")
        page.keyboard.press("ArrowRight")
        page.keyboard.press("k")  # "few"
        page.reload()  # decisions outlive it
        with page.expect_download() as download:
            page.keyboard.press("s")
        download.value.save_as(tmp_path / "decisions.json")
        browser.close()
    assert errors == []
    saved = json.loads((tmp_path / "decisions.json").read_text())
    assert saved["decisions"] == {"en_kept_000.png": {"decision": "drop"}, "en_few_000.png": {"decision": "keep"}}
    apply_review(out, [tmp_path / "decisions.json"])
    assert [path.name for path in (out / "images").iterdir()] == ["en_few_000.png"]


# ---- with a real reader


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


def test_a_drawn_page_becomes_a_benchmark_at_the_command_line(
    capsys: pytest.CaptureFixture[str], pages: Path, tmp_path: Path
) -> None:
    image = Image.new("RGB", (640, 620), (255, 255, 255))
    lines = wrapped(prose(np.random.default_rng(0), 200), 52)[:22]
    draw_lines(image, lines, 40, 40, 17, 25)
    image.save(pages / "page.png")
    words = ("tokenbench", "build", "--pages", str(pages), "--out", str(tmp_path / "out"), "--executor", "serial")
    assert "1 of 1 text blocks kept" in glyphmill_says(capsys, *words)
    (record,) = json.loads((tmp_path / "out/benchmark.json").read_text())
    assert record["lang"] == "en"
    assert 300 <= record["characters"] <= 600
    # The crop holds the beginning of each line, and it was read well.
    assert ngram_overlap(record["text"], " ".join(lines), 5) > 0.8
    data = embedded(tmp_path / "out/review.html")
    path = decide(tmp_path / "d.json", data, {record["file"]: {"decision": "drop"}})
    said = glyphmill_says(capsys, "tokenbench", "apply-review", str(tmp_path / "out"), "--review", str(path))
    assert "0 of 1 text blocks kept" in said


def test_bad_folders_are_one_sentence(capsys: pytest.CaptureFixture[str], pages: Path, tmp_path: Path) -> None:
    out = ("--out", str(tmp_path / "out"), "--executor", "serial")
    assert "holds no picture" in glyphmill_fails(capsys, "tokenbench", "build", "--pages", str(pages), *out)
    assert "no folder" in glyphmill_fails(capsys, "tokenbench", "build", "--pages", str(tmp_path / "x"), *out)
    annotations = write_annotations(tmp_path / "a.json", [entry("gone.png", [])])
    words = ("tokenbench", "build", "--pages", str(pages), "--annotations", str(annotations), *out)
    assert "none of its 1 pages lies in" in glyphmill_fails(capsys, *words)
    review = str(tmp_path / "none.json")
    assert "no such file" in glyphmill_fails(capsys, "tokenbench", "apply-review", str(tmp_path), "--review", review)


def test_the_score_rule_and_the_range_are_checked(
    built: tuple[Path, Scribe, Path], pages: Path, tmp_path: Path
) -> None:
    _, scribe, annotations = built
    scribe.score = 0.5
    report = build(RECIPE, pages, annotations, tmp_path / "unsure")
    assert report.reasons["unsure_reading"] == 2
    with pytest.raises(ValueError, match="fewest, most"):
        TokenBenchRecipe(kind="tokenbench", en={"cell_px": 10, "characters": (600, 300), "ngram": 5})  # type: ignore[arg-type]
