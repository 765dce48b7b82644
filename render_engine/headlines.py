"""Words that stand alone, as headings, labels and items do: a piece of running text, cut as an editor would cut it."""

import re

PAIRS = tuple(zip("(（[「『《〈【“", ")）]」』》〉】”", strict=True))
MARKS = "，、；：,;:-—‘'·。. &/*+="
"""Nothing begins or ends with one of these; quotation marks and brackets are looked at in pairs."""
OPENING = frozenset(
    re.findall("[a-z]+", "of to at by for from with as and or but if is are was be has have its that not than which s")
)
"""No heading begins with one of these."""
DANGLING = OPENING | frozenset(
    re.findall("[a-z]+", "a an the in on it this these those such some any each no every other another same their your")
    + re.findall("[a-z]+", "they we he she you there so because while whenever when where then before after until")
    + re.findall("[a-z]+", "unless were been being had do does did will would may might must can could should shall")
    + re.findall("[a-z]+", "into over under about through via per upon within without between both either neither only")
    + re.findall("[a-z]+", "also how what who whose why just even rather very more most following")
    + ["e.g", "i.e"]
)
"""And none ends with one of these."""
PLAIN_WORD = re.compile(r"[a-z]+(?=[,:;.]?(?:\s|$))")
SENTENCES = re.compile(r"(?<=[a-z])[.!?][\"”)]*\s+(?=\S)")
A_WORD = re.compile(r"[^\W\d_]{3}|[\u3400-\u9fff\U00020000-\U000323af]")


def trimmed(text: str) -> str:
    """A cut text without the words, marks and halves of pairs that nobody would begin or end a heading with, its first
    letter a capital unless it is a piece of code; of several English sentences the longest. "" when nothing is left."""
    text = max(SENTENCES.split(text), key=len)
    before = None
    while text != before:
        before = text
        text = _without_ends(_balanced(text))
    if PLAIN_WORD.match(text):
        text = text[0].upper() + text[1:]
    return text if A_WORD.search(text) else ""


def _balanced(text: str) -> str:
    for opening, closing in PAIRS:
        if text.count(opening) > text.count(closing):
            head, _, tail = text.rpartition(opening)
            text = head or tail
        elif text.count(opening) < text.count(closing):
            text = text.replace(closing, "")
    if text.count('"') % 2:
        text = text.replace('"', "")
    return text


def _without_ends(text: str) -> str:
    words = text.strip(MARKS).split(" ")
    while words and _bare(words[-1]) in DANGLING:
        words.pop()
    while words and _bare(words[0]) in OPENING:
        words.pop(0)
    return " ".join(words).strip(MARKS)


def _bare(word: str) -> str:
    return word.lower().strip(MARKS + '"()“”')
