"""datagen.corpus: what is text, in which language, and that a draw never ends inside a word."""

import collections
import io
import json
import mmap
import re
import tempfile
import unicodedata
from pathlib import Path

import datasets
import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pyarrow import parquet as pq

from datagen.corpus import Corpus, CorpusConfig, Paragraphs, TextPlace, open_corpus
from datagen.dictionary import read_dictionary
from datagen.prose import begun, clean, cut, english_prose, is_han, judge_paragraph
from datagen.salad import Words, read_words
from datagen.seeds import rng_for
from fonts_manifest.coverage import gb2312_level_1, gb2312_level_2, general_standard
from fonts_manifest.errors import BadInput

ENGLISH = [
    "The quick brown fox jumps over the lazy dog. It does so every morning, rain or shine!",
    "A second paragraph follows the first one. Who would read a third?",
]
CHINESE = [
    "今天的天气很好,我们一起去公园散步。路上遇到了许多老朋友,大家都很高兴!",
    "图书馆里非常安静，只听见翻书的声音。窗外下起了小雨，谁也没有注意到。",
]
WORDS = "的 1000 uj\n图书馆 50 n\n安静 20 a\n散步 10 v\nT恤 9 n\n饕餮 2 n\n鍐 2 zg\n没有频率 x n\n"


def _corpus(places: list[TextPlace], **settings: object) -> Corpus:
    return open_corpus(CorpusConfig(places=tuple(places), **settings))


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("texts")
    (path / "en.txt").write_text("\n\n".join(text.replace(". ", ".\n") for text in ENGLISH))
    (path / "zh.txt").write_text("\n\n".join(CHINESE), encoding="utf-8")
    (path / "words").mkdir()
    (path / "words" / "dict.txt").write_text(WORDS, encoding="utf-8")
    return path


@pytest.fixture(scope="module")
def corpus(folder: Path) -> Corpus:
    places = [TextPlace(place=str(folder / name), licence="CC0-1.0") for name in ("en.txt", "zh.txt")]
    words = TextPlace(place=str(folder / "words"), format="words", licence="MIT")
    return _corpus([*places, words])


def test_paragraphs_are_joined_over_hard_line_ends_and_told_apart_by_script(corpus: Corpus) -> None:
    pools = {pool.lang: pool for pool in corpus._pools if isinstance(pool, Paragraphs)}
    assert [pools["en"].paragraph(number) for number in range(2)] == ENGLISH
    assert [pools["zh"].paragraph(number) for number in range(2)] == CHINESE
    assert corpus.languages == ("en", "zh", "mixed")


@pytest.mark.parametrize(
    ("text", "lang"),
    [
        ("The cat sat on the mat.", "en"),
        ("Une forêt près de Besançon.", "en"),  # Latin script: taken for English, as documented
        ("猫坐在垫子上。", "zh"),
        ("使用 Python 编写的程序", "mixed"),
        ("Кошка сидит на коврике.", None),
        ("ねこはマットのうえにすわっている", None),
        ("| 1 | 2.50 | 17 | 3e-4 |", None),
        ("x = {1: 2, 3: 4}; y[0] += 1", None),
    ],
)
def test_language_by_script(text: str, lang: str | None) -> None:
    assert judge_paragraph(text, 1)[1] == lang


@given(st.text(max_size=60))
def test_clean_text_is_nfc_on_one_line_without_invisible_characters(text: str) -> None:
    result = clean(text)
    assert unicodedata.is_normalized("NFC", result)
    assert result == " ".join(result.split())
    assert not [c for c in result if unicodedata.category(c) in {"Cc", "Cf", "Co", "Cs", "Zl", "Zp"}]
    assert clean(result) == result


def test_clean_joins_letters_with_their_accents_and_drops_the_byte_order_mark() -> None:
    assert clean("\ufeffcafe\u0301\u00a0\t au\u200b lait\n") == "café au lait"


@given(st.lists(st.text("abc", min_size=1, max_size=9), min_size=1, max_size=20), st.integers(1, 80))
def test_cut_keeps_whole_latin_words(words: list[str], characters: int) -> None:
    result = cut(" ".join(words), characters).split(" ")
    assert result == words[: len(result)]
    kept = " ".join(result)
    assert len(kept) <= characters or len(result) == 1
    if len(result) < len(words):  # the next word would not have fitted
        assert len(kept) + 1 + len(words[len(result)]) > characters


@pytest.mark.parametrize(
    ("text", "characters", "expected"),
    [
        ("今天天气很好，我们去散步。", 9, "今天天气很好，"),
        ("今天天气很好我们去散步了吗真的是这样的", 9, "今天天气很好我们去"),
        ("使用Python编写程序", 4, "使用"),
        ("使用Python编写程序", 8, "使用Python"),
        ("Python编写", 3, "Python"),
        ("他说“（今天很好）”", 4, "他说"),
    ],
)
def test_cut_in_chinese(text: str, characters: int, expected: str) -> None:
    assert cut(text, characters) == expected


@pytest.mark.parametrize("lang", ["en", "zh", "mixed"])
def test_draws_have_about_the_length_asked_for_and_only_known_words(corpus: Corpus, lang: str) -> None:
    known = set(re.findall(r"[A-Za-z]+", " ".join(ENGLISH)))
    for number in range(200):
        characters = 1 + number * 3
        text = corpus.draw(rng_for(7, number, 0), lang, characters)
        assert text == text.strip()
        assert text
        assert unicodedata.is_normalized("NFC", text)
        assert set(re.findall(r"[A-Za-z]+", text)) <= known
        # At most a word more; less by the last word, or where Chinese goes back to a punctuation mark.
        assert len(text) <= characters + 18
        assert len(text) >= min(0.6 * characters, characters - 18)
    assert corpus.draw(rng_for(7, 3, 0), lang, 50) == corpus.draw(rng_for(7, 3, 0), lang, 50)
    assert len({corpus.draw(rng_for(7, number, 0), lang, 50) for number in range(20)}) > 1


def test_mixed_text_holds_chinese_and_english_in_the_share_asked_for(folder: Path) -> None:
    places = [
        TextPlace(place=str(folder / "en.txt"), licence="x"),
        TextPlace(place=str(folder / "words"), format="words", licence="x"),
    ]
    corpus = _corpus(places, english_share=0.4)
    text = "".join(corpus.draw(rng_for(1, number, 0), "mixed", 200) for number in range(50))
    latin = len(re.findall(r"[A-Za-z ]", text))
    assert 0.3 < latin / len(text) < 0.6
    for number in range(50):
        short = corpus.draw(rng_for(2, number, 0), "mixed", 8)
        assert re.search(r"[A-Za-z]", short)
        assert re.search(r"[\u4e00-\u9fff]", short)


def test_dictionary_words_are_drawn_at_their_flattened_frequencies(folder: Path) -> None:
    words = TextPlace(place=str(folder / "words"), format="words", licence="MIT")
    (pool,) = _corpus([words], flatten=0.0)._pools
    assert isinstance(pool, Words)
    assert pool.text == "的\n图书馆\n安静\n散步\n饕餮\n"
    np.testing.assert_allclose(np.diff(pool.cumulative, prepend=0), np.array([1000, 50, 20, 10, 2]) / 1082)
    (level,) = _corpus([words], flatten=1.0)._pools
    np.testing.assert_allclose(np.diff(level.cumulative, prepend=0), 0.2)
    dropped = _corpus([words]).dropped
    assert dropped == {"word_not_han": 1, "word_beyond_gb2312": 1, "word_without_frequency": 1}
    assert "鍐\n" in _corpus([words], beyond_gb2312=True)._pools[0].text


def _line_by_line(dictionary: str, allowed: set[str]) -> tuple[list[tuple[str, int]], collections.Counter[str]]:
    """What a dictionary holds, by the rules in words of one line each."""
    kept, dropped = [], collections.Counter[str]()
    for line in io.StringIO(dictionary, newline=None):
        word, _, rest = line.strip().partition(" ")
        number = rest.partition(" ")[0]
        if not number.isascii() or not number.isdigit() or not int(number):
            dropped["word_without_frequency"] += bool(word)
        elif not all(map(is_han, word)) or len(word) > 12:
            dropped["word_not_han"] += 1
        elif not allowed.issuperset(word):
            dropped["word_beyond_gb2312"] += 1
        else:
            kept.append((unicodedata.normalize("NFC", word), int(number)))
    return kept, +dropped


_PARTS = st.sampled_from(
    ["的", "图书馆", "鍐", "𠀀", "\U0002f801", "a", " ", "  ", "\t", "\u3000", "0", "7", "05", "12x", "３"]
)
_ENTRY = st.tuples(
    st.sampled_from(["的", "\U0002f801", "图书馆" * 4, "图书馆" * 5]), st.sampled_from([" 7", " 0123 n", " 7\t"])
)
_LINE = st.lists(_PARTS, max_size=6).map("".join) | _ENTRY.map("".join)


@settings(deadline=None)
@given(
    lines=st.lists(_LINE, max_size=8), ending=st.sampled_from(["\n", "\r\n", "\r", "\n\n"]), at_once=st.integers(1, 40)
)
def test_a_dictionary_read_in_one_go_is_the_one_read_line_by_line(lines: list[str], ending: str, at_once: int) -> None:
    dictionary = ending.join(lines)
    allowed = gb2312_level_1() + "𠀀\U0002f801"
    with tempfile.TemporaryDirectory() as folder, pytest.MonkeyPatch.context() as patch:
        patch.setattr("datagen.dictionary._CHARACTERS_AT_ONCE", at_once)
        path = Path(folder, "dict.txt")
        path.write_text("\ufeff" + dictionary, encoding="utf-8", newline="")
        dropped: collections.Counter[str] = collections.Counter()
        text, frequencies = read_dictionary([path, path], allowed, dropped)
    expected, left_out = _line_by_line(dictionary, set(allowed))
    assert list(zip(text.split("\n"), frequencies.tolist(), strict=False)) == 2 * expected
    assert text.count("\n") == len(frequencies)
    assert dropped == left_out + left_out


def test_the_coverage_of_gb2312_is_counted(folder: Path) -> None:
    words = TextPlace(place=str(folder / "words"), format="words", licence="MIT")
    (facts,) = _corpus([words], flatten=1.0, rare_share=0.0).facts()["pools"]
    # Level 1: 的 图 书 馆 安 静 散 步; level 2: 饕 餮.
    assert facts["gb2312_level_1_covered"] == "8 of 3755"
    assert facts["gb2312_level_2_covered"] == "2 of 3008"
    assert facts["gb2312_level_2_share"] == pytest.approx(2 / 10)
    assert facts["kind"].startswith("word salad")


def test_jsonl_and_parquet_are_read_by_field_and_bad_files_are_counted(tmp_path: Path) -> None:
    rows = [{"body": ENGLISH[0]}, {"body": 3}, ENGLISH[1], {"body": "short"}, {"body": ENGLISH[0]}]
    (tmp_path / "a.jsonl").write_text("\n".join(map(json.dumps, rows)) + "\n{broken\n")
    pq.write_table(pa.table({"body": CHINESE}), tmp_path / "a.parquet")
    pq.write_table(pa.table({"other": CHINESE}), tmp_path / "b.parquet")
    (tmp_path / "c.parquet").write_bytes(b"PAR1 no")
    (tmp_path / "d.txt").write_bytes("时间".encode("gb18030") * 30)
    corpus = _corpus(
        [
            TextPlace(place=str(tmp_path), format="jsonl", field="body", licence="a"),
            TextPlace(place=str(tmp_path), format="parquet", field="body", licence="b"),
            TextPlace(place=str(tmp_path / "d.txt"), licence="c"),
        ]
    )
    assert [(pool.lang, pool.licence, pool.facts()["paragraphs"]) for pool in corpus._pools] == [
        ("en", "a", 1),
        ("zh", "b", 2),
    ]
    assert corpus.dropped == {
        "too_short": 4,
        "duplicate": 1,
        "file_without_body": 1,
        "file_unreadable": 1,
        "file_not_utf8": 1,
    }


def test_long_paragraphs_are_divided_behind_sentences(tmp_path: Path) -> None:
    sentences = [f"This is the sentence with the number {number} in it." for number in range(20)]
    (tmp_path / "a.txt").write_text(" ".join(sentences))
    (pool,) = _corpus([TextPlace(place=str(tmp_path), licence="x")], max_characters=200)._pools
    parts = [pool.paragraph(number) for number in range(pool.facts()["paragraphs"])]
    assert " ".join(parts) == " ".join(sentences)
    assert all(len(part) <= 200 and part.endswith(".") for part in parts)


def test_empty_corpora_are_one_sentence(tmp_path: Path, corpus: Corpus, folder: Path) -> None:
    (tmp_path / "a.txt").write_text("12 34\n\n" + "| 5 | 6 | 7 | 8 | 9 | 0 |")
    with pytest.raises(BadInput, match=r"no usable text \(1 too_short, 1 not_prose\)"):
        _corpus([TextPlace(place=str(tmp_path), licence="x")])
    with pytest.raises(BadInput, match="no line of the form 'word frequency'"):
        _corpus([TextPlace(place=str(tmp_path), format="words", licence="x")])
    english = _corpus([TextPlace(place=str(folder / "en.txt"), licence="x")])
    with pytest.raises(BadInput, match="holds no 'zh' text, only en"):
        english.draw(rng_for(0, 0, 0), "zh", 10)


def test_the_digest_changes_with_the_contents_and_the_settings_only(tmp_path: Path) -> None:
    def digest(text: str, name: str, **settings: object) -> str:
        (tmp_path / name).write_text(text)
        return _corpus([TextPlace(place=str(tmp_path / name), licence="x")], **settings).digest

    assert digest(ENGLISH[0], "a.txt") == digest(ENGLISH[0], "b.txt")
    assert digest(ENGLISH[0], "a.txt") != digest(ENGLISH[1], "a.txt")
    assert digest(ENGLISH[0], "a.txt") != digest(ENGLISH[0], "a.txt", english_share=0.5)


SPHINX = """Assignment statements
*********************

Assignment statements are used to (re)bind names to values and to modify
attributes or items of *mutable* objects, which must not collide with pre-
existing bindings:

   assignment_stmt ::= (target_list "=")+ (starred_expression)

* If the target list is a single target with no trailing comma, the
  object is assigned to that target.

For example:

   >>> a = 1

is a statement::

      a = the value that is assigned to the name and it is used for this.

+------+------+
| a    | b    |
+------+------+
"""


def test_prose_is_told_from_headings_grammar_code_and_tables() -> None:
    assert list(english_prose(SPHINX)) == [
        (
            "Assignment statements are used to (re)bind names to values and to modify attributes or items of mutable "
            "objects, which must not collide with pre-existing bindings:"
        ),
        "If the target list is a single target with no trailing comma, the object is assigned to that target.",
    ]


def test_the_prose_of_python_s_own_topics_reads_as_english() -> None:
    corpus = _corpus([TextPlace(place="package:pydoc_data/topics.py", format="topics", licence="PSF-2.0")])
    (pool,) = corpus._pools
    assert pool.lang == "en"
    assert pool.facts()["characters"] > 150_000
    text = pool.blob.decode()
    assert not re.search(r"::=|>>>|\+--|\*\*\*\*|===", text)
    assert not re.search(r"\w+_stmt\b.*::", text)


# Data sets, and places larger than the memory


def _dataset(texts: list[str]) -> "datasets.Dataset":
    return datasets.Dataset.from_dict({"text": texts, "id": list(range(len(texts)))})


@pytest.mark.parametrize("form", ["saved", "dictionary", "files"])
def test_a_hugging_face_data_set_reads_like_its_texts_in_a_file(tmp_path: Path, folder: Path, form: str) -> None:
    place = tmp_path / "set"
    rows = _dataset(ENGLISH + CHINESE)
    if form == "saved":
        rows.save_to_disk(str(place))
    elif form == "dictionary":
        datasets.DatasetDict({"train": rows, "test": _dataset(["Nothing of this may be read here."])}).save_to_disk(
            str(place)
        )
    else:
        place.mkdir()
        rows.to_parquet(str(place / "data.parquet"))
    found = _corpus([TextPlace(place=str(place), format="dataset", licence="CC0-1.0")])
    plain = _corpus([TextPlace(place=str(folder / name), licence="CC0-1.0") for name in ("en.txt", "zh.txt")])
    for lang in ("en", "zh"):
        drawn = [corpus.draw(rng_for(1, 2, 3, 0), lang, 150) for corpus in (found, plain)]
        assert drawn[0] == drawn[1]


def test_a_data_set_without_its_folder_split_or_column_is_one_sentence(tmp_path: Path) -> None:
    _dataset(ENGLISH).save_to_disk(str(tmp_path / "set"))
    with pytest.raises(BadInput, match=r"no such folder.*hub:OWNER/NAME"):
        _corpus([TextPlace(place="someone/texts", format="dataset", licence="x")])
    with pytest.raises(BadInput, match="has no column 'body', only id, text"):
        _corpus([TextPlace(place=str(tmp_path / "set"), format="dataset", field="body", licence="x")])
    datasets.DatasetDict({"train": _dataset(ENGLISH)}).save_to_disk(str(tmp_path / "sets"))
    with pytest.raises(BadInput, match="split 'validation'"):
        _corpus([TextPlace(place=str(tmp_path / "sets"), format="dataset", split="validation", licence="x")])


def test_only_the_first_paragraphs_of_a_place_are_taken_when_it_says_so(tmp_path: Path) -> None:
    (tmp_path / "long.txt").write_text("".join(f"This is the paragraph with the number {n}.\n" for n in range(1000)))
    place = TextPlace(place=str(tmp_path / "long.txt"), format="lines", licence="x", most=10)
    (pool,) = _corpus([place]).facts()["pools"]
    assert pool["paragraphs"] == 10


def test_a_large_place_lies_in_a_file_and_draws_the_same(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    text = "".join(f"Paragraph {n} says that the number {n * n} is a square. 这是第{n}段文字。\n" for n in range(3000))
    (tmp_path / "large.txt").write_text(text, encoding="utf-8")
    places = [TextPlace(place=str(tmp_path / "large.txt"), format="lines", licence="x")]
    in_memory = _corpus(places)
    monkeypatch.setattr("datagen.corpus.SPOOL_BYTES", 10_000)
    spooled = _corpus(places)
    assert isinstance(spooled._pools[0].blob, mmap.mmap)
    assert isinstance(in_memory._pools[0].blob, bytes)
    assert spooled.digest == in_memory.digest
    assert spooled.facts() == in_memory.facts()
    for row in range(20):
        draws = [corpus.draw(rng_for(0, 0, row, 0), "mixed", 300) for corpus in (in_memory, spooled)]
        assert draws[0] == draws[1]


def test_chinese_salad_has_marks_side_by_side() -> None:
    dictionary = "".join(f"{a}{b} 10 n\n" for a in "天地玄黄" for b in "宇宙洪荒")
    text = "".join(_salad(dictionary).draw(rng_for(0, 0, row, 0), 400) for row in range(20))
    pairs = re.findall(r"[”》）」】][，。、；：！？“《（「【]", text)
    assert len(pairs) > 10
    for opening, closing in ("“”", "《》", "（）", "「」", "【】"):
        assert text.count(opening) == text.count(closing)


@pytest.mark.parametrize(
    ("text", "begun_text"),
    [
        ("，而且如此", "而且如此"),
        ("……”他说", "他说"),
        (") and so on", "and so on"),
        ("— he said", "he said"),
        ("- item", "item"),
        ("“高山”之下", "“高山”之下"),
        ("（一）总则", "（一）总则"),
        ("-5 degrees", "-5 degrees"),
        ("__slots__ then", "__slots__ then"),
        ("。", "。"),
    ],
)
def test_marks_that_no_text_begins_with_are_taken_off(text: str, begun_text: str) -> None:
    assert begun(text) == begun_text


def test_no_text_begins_with_a_closing_mark(folder: Path, tmp_path: Path) -> None:
    odd = "）他没有说完……，后来的事情谁也不知道。”！山高水长，月明星稀……；如此而已，不过这样。"
    (tmp_path / "odd.txt").write_text(
        odd + "\n\n" + ', so it went on. "No!" - he cried ) and left . . .  The end of it.'
    )
    places = [TextPlace(place=str(path), licence="CC0-1.0") for path in (tmp_path, folder / "zh.txt")]
    corpus = _corpus(places)
    texts = [corpus.draw(rng_for(0, 0, row, 0), lang, 4 + row) for row in range(150) for lang in ("en", "zh", "mixed")]
    heads = {text[0] for text in texts}
    assert len(heads) > 10
    assert not heads & set("，。、；：！？…）”’),.;:!?- ")


def _salad(dictionary: str, rare_share: float = 0.0) -> Words:
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "dict.txt"
        path.write_text(dictionary, encoding="utf-8")
        return read_words([path], folder, "x", 1.0, 0.3, rare_share, False, dropped=collections.Counter())


def test_the_balance_reaches_characters_that_no_word_holds(tmp_path: Path) -> None:
    (tmp_path / "dict.txt").write_text("的 1000000 u\n天地 9 n\n鍐 2 zg\n", encoding="utf-8")
    place = TextPlace(place=str(tmp_path), format="words", licence="x")
    rare = _corpus([place], balance="general", rare_share=0.5)
    text = "".join(rare.draw(rng_for(0, 0, row, 0), "zh", 10_000) for row in range(20))
    counts = collections.Counter(text)
    general = "".join(general_standard())
    assert sum(counts[character] > 0 for character in general) > 8000  # 100,000 draws of one of 8,105
    assert sum(ord(character) > 0xFFFF for character in counts) > 180  # of 196 beyond the first plane
    assert not counts["鍐"]  # in neither set
    # but for those of dates and quantities none comes more often than another by more than chance
    assert sorted(counts[character] for character in general)[-40] < 40
    level = _corpus([place], balance="gb2312", rare_share=0.5)
    drawn = set("".join(level.draw(rng_for(0, 0, row, 0), "zh", 10_000) for row in range(5)))
    assert not drawn & (set(general) - set(gb2312_level_1() + gb2312_level_2()))
    assert len({rare.digest, level.digest, _corpus([place], rare_share=0.5).digest}) == 3


def test_every_character_of_the_dictionary_is_drawn_equally_often_for_its_own_sake() -> None:
    dictionary = "的 1000000 u\n天的 900000 n\n" + "".join(f"{one}的 1 n\n" for one in "啊嗪噢皑捌")
    rare = _salad(dictionary, rare_share=0.5)
    usual = _salad(dictionary)
    counts = []
    for salad in (rare, usual):
        counts.append(collections.Counter("".join(salad.draw(rng_for(0, 0, row, 0), 2000) for row in range(20))))
    seldom = [word[0] for word in rare.text.split() if word not in ("的", "天的")]
    assert len(seldom) >= 4
    shown = [counts[0][character] for character in seldom]
    assert min(shown) > 300
    assert max(shown) < 1.5 * min(shown)
    assert max(counts[1][character] for character in seldom) < 100
    # what the manifest promises is what is drawn
    chances = {character: 0.5 / (len(seldom) + 2) for character in seldom}
    words = sum(counts[0][character] for character in seldom) / sum(chances.values())
    for character in seldom:
        assert counts[0][character] == pytest.approx(words * chances[character], rel=0.25)
    assert rare.digest != usual.digest
