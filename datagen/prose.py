"""What is a paragraph, in which language, and where it may be cut: told by scripts alone.

Han is "zh", Latin is taken for English ("en": French would pass for it), both together are "mixed", the rest is left
out.
"""

import collections
import functools
import re
import unicodedata
from collections.abc import Iterator, Sequence
from typing import Literal

Lang = Literal["en", "zh", "mixed"]


def english_prose(text: str) -> Iterator[str]:
    """The running prose of a document as Sphinx's text builder writes it: no headings, grammar, code or tables.

    Bullets and emphasis marks are taken off, lines joined.
    """
    blocks = re.split(r"\n\s*\n", text)
    after_colons = False
    for block in blocks:
        lines = block.strip("\n").split("\n")
        indent = len(lines[0]) - len(lines[0].lstrip())
        code = after_colons and indent >= 3
        after_colons = block.rstrip().endswith("::") or (code and indent >= 3)
        if code:
            continue
        joined = join_lines([line.strip() for line in lines])
        joined = re.sub(r"^(?:[*+-]|\d+\.|\(\d+\)|\[\d+\])\s+", "", joined)
        joined = re.sub(r"(?<![\w*])\*{1,2}([^*\s](?:[^*]*[^*\s])?)\*{1,2}(?![\w*])", r"\1", joined)
        joined = re.sub(r"``([^`]+)``", r"\1", joined).replace("::", ":")
        if _reads_as_english(joined):
            yield joined


_STOP_WORDS = frozenset(
    (
        *("a", "an", "and", "are", "as", "at", "be", "by", "can", "for", "from", "has", "if", "in", "is", "it", "may"),
        *("not", "of", "on", "or", "that", "the", "this", "to", "when", "with"),
    )
)


_PLAIN_WORD = re.compile(r"[\"'“‘(]*[A-Za-z]+(?:[-'’][A-Za-z]+)*[.,;:!?)\"'”’]*")


def _reads_as_english(text: str) -> bool:
    """A capital first, an end mark last, and no more signs of code than a sentence about code holds."""
    words = text.split()
    if len(words) < 6 or not (text[0].isupper() or text[0] in "\"'“(") or text[-1] not in ".!?:)":
        return False
    if re.search(r"::=|>>>|\+--|\|.*\||===|\*\*\*\*|----|\.\. |[{}<>]|\\", text):
        return False
    plain = sum(map(bool, map(_PLAIN_WORD.fullmatch, words)))
    common = sum(word.strip(".,;:()\"'") in _STOP_WORDS for word in text.lower().split())
    return plain >= 0.85 * len(words) and common >= 0.15 * len(words)


def join_lines(lines: Sequence[str]) -> str:
    """Hard-wrapped lines as one; a blank between them, but none between two Chinese characters."""
    joined = ""
    for line in lines:
        no_blank = not joined or not line or (_is_cjk(joined[-1]) and _is_cjk(line[0]))
        # Most text is wrapped behind the hyphens it has ("pre-" / "existing"); hyphens put in by a typesetter stay too.
        compound = joined[-2:-1].isalpha() and joined[-1:] == "-" and line[:1].islower()
        glue = "" if no_blank or compound else " "
        joined += glue + line
    return joined


def clean(text: str) -> str:
    """NFC, blanks of every kind as one " ", without control, format, private and unassigned characters."""
    text = unicodedata.normalize("NFC", text)
    if not text.isascii() or not text.isprintable():
        text = text.translate(_VISIBLE)
    # Taking characters out can bring two together that NFC joins: normalise what stands at the end.
    return unicodedata.normalize("NFC", " ".join(text.split()))


class _Visible(dict[int, str | None]):
    """Code point -> what `clean` makes of it, found when it is first met."""

    def __missing__(self, code: int) -> str | None:
        character = chr(code)
        visible = unicodedata.category(character) not in {"Cc", "Cf", "Co", "Cn", "Cs", "Zl", "Zp"}
        self[code] = found = " " if character.isspace() else character if visible else None
        return found


_VISIBLE = _Visible()


def judge_paragraph(paragraph: str, min_characters: int) -> tuple[str, Lang | None]:
    """("", language by script), or (why the paragraph is left out, None)."""
    if len(paragraph) < min_characters:
        return "too_short", None
    if "\ufffd" in paragraph:
        return "damaged_characters", None
    han = latin = letters = 0
    visible = len(paragraph) - paragraph.count(" ")
    for character, count in collections.Counter(paragraph).items():
        if character.isalpha():
            letters += count
            if character.isascii():
                latin += count
            elif is_han(character):
                han += count
            elif unicodedata.name(character, "").startswith("LATIN"):
                latin += count
    if letters < 0.6 * visible:
        return "not_prose", None  # tables, code, numbers
    if han + latin < 0.95 * letters:
        return "other_script", None
    if han >= 0.9 * letters:
        return "", "zh"
    return "", "en" if not han else "mixed"


HAN = ((0x4E00, 0x9FFF), (0x3400, 0x4DBF), (0x20000, 0x323AF))
"""First and last of the code points that are Chinese characters."""


def is_han(character: str) -> bool:
    """Whether it is a Chinese character."""
    code = ord(character)
    return any(first <= code <= last for first, last in HAN)


@functools.cache
def _is_cjk(character: str) -> bool:
    """Han, or punctuation that stands with it."""
    code = ord(character)
    return is_han(character) or 0x3000 <= code <= 0x303F or 0xFF00 <= code <= 0xFF60 or character in "“”‘’…—"


SENTENCE_START = re.compile(r"[.!?][\"'”’)\]]*\s+(?=[\"'“‘(\[]*[A-Z])|[。！？…]+[”’」』）]*(?=.)")
WORD_START = re.compile(r"\s+|[，。！？；：、…]+[”’」』）]*(?=.)")
_ENDS = "。！？；，、：…”』」）.!?;,"


def cut(text: str, characters: int) -> str:
    """The longest beginning of at most `characters` characters that ends with a whole word (one word at least).

    In Chinese it ends behind a punctuation mark when there is one among the last 12 characters.
    """
    if len(text) <= characters:
        return text.rstrip()
    end = characters
    while end > 0 and not _may_end(text, end):
        end -= 1
    if end == 0:  # the first word is longer than that
        end = characters
        while end < len(text) and not _may_end(text, end):
            end += 1
    if _is_cjk(text[end - 1]):
        for earlier in range(end, max(end - 12, 1), -1):
            if text[earlier - 1] in _ENDS:
                end = earlier
                break
    return text[:end].rstrip().rstrip("（(《“‘「『[") or text[:end]


def _may_end(text: str, end: int) -> bool:
    before, after = text[end - 1], text[end]
    return before.isspace() or after.isspace() or _is_cjk(before) or _is_cjk(after)


def phrase(text: str) -> str:
    """English words as they stand inside a Chinese sentence: without brackets, and without marks and stop words around
    them, though never without a word."""
    words = re.sub(r"[()\[\]{}\"“”]", "", text).strip(" ,;:.!?'").split()
    first, last = 0, len(words)
    while last - first > 1 and words[first].lower() in _STOP_WORDS:
        first += 1
    while last - first > 1 and words[last - 1].lower().strip(",;:.") in _STOP_WORDS:
        last -= 1
    return " ".join(words[first:last]).strip(" ,;:.!?'")


_NO_BEGINNING = re.compile(r"(?:[\s，。、；：！？．…·—–～）》〉】」』〕］｝〗”’)\]},.;:!?&|/*+=]|-+(?!\w))+")


def begun(text: str) -> str:
    """The text without the marks at its head that no text begins with: commas, full stops, closing brackets, dashes."""
    found = _NO_BEGINNING.match(text)
    return text[found.end() :] if found and found.end() < len(text) else text


def divided(paragraph: str, max_characters: int) -> Iterator[str]:
    """The paragraph in parts of at most so many characters, behind a sentence where that is possible."""
    while len(paragraph) > max_characters:
        borders = [match.end() for match in SENTENCE_START.finditer(paragraph, max_characters // 2, max_characters)]
        head = paragraph[: borders[-1]] if borders else cut(paragraph, max_characters)
        yield head.rstrip()
        paragraph = paragraph[len(head) :].lstrip()
    yield paragraph
