"""What the slots of one page say: words of the corpus or of the template, numbers that go on, sentences that end."""

import re

import numpy as np

from render_engine.choose import ADVANCE_EM, LEAST_DRAW, MAX_CHARACTERS, PageChoices

WORD_EM = 0.66
"""A letter of a bold word, on the safe side."""
SENTENCE_END = re.compile(r"[。！？…][”’」』）]*|[.!?][\"'”’)\]]*(?=\s|$)")
RAGGED_EM = {"en": 1.3, "mixed": 1.0, "zh": 0.3}
"""What a line leaves empty at its end because the next word has no room."""
FLOWING_LINES = 9
"""English of so many lines and more may break off inside a sentence, as columns do that go on elsewhere: there the
width of unknown faces adds up to lines."""
DRAWS = 3


def widest_em(text: str) -> float:
    """Width of a label in DejaVu Sans, the widest of common faces: a short one has no mean letter."""
    return sum(
        1.0 if c in "mMW@%" or c >= "\u2e80" else 0.34 if c in "ijl.,:;'| -" else 0.5 if c == "_" else 0.66
        for c in text
    )


class Wording:
    """Remembers what was said on the page."""

    def __init__(self, page: PageChoices) -> None:
        self.page, self.rng = page, page.rng
        self._unused: dict[tuple[str, ...], list[str]] = {}
        self._counts: dict[str, int] = {}

    def words(self, width_em: float, n_lines: int, taken: int) -> str:
        """A few words for so many lines, of which a prefix of `taken` characters takes its part."""
        if n_lines == 1:
            return self.page.fitted(width_em - taken, 0.9) or self.page.fitted(width_em - taken, 1.0)
        # Lines that are broken between words do not fill their room; a last line that stays empty is a hole.
        longest = ""
        for _ in range(16):
            text = self.page.fitted(n_lines * width_em - taken, 0.8)
            if max(map(len, re.findall("[!-~]+", text)), default=0) * WORD_EM <= width_em:
                longest = max(longest, text, key=len)
            if len(longest) * ADVANCE_EM[self.page.lang] > (n_lines - 0.8) * width_em:
                break
        return longest

    def paragraph(self, width_em: float, n_lines: int, indent_em: float) -> str:
        """Running text that fills so many lines about, from the beginning of a sentence to the end of one: where none
        ends in time, a little more than the lines hold."""
        wanted = n_lines * width_em / ADVANCE_EM[self.page.lang] * 1.1 + 8
        characters = int(np.clip(wanted, LEAST_DRAW, MAX_CHARACTERS))
        text = ""
        for _ in range(DRAWS):
            text = self.page.texts.draw(self.rng, self.page.lang, characters)
            if self.page.lang == "en" and n_lines >= FLOWING_LINES:
                return text
            ends = [match.end() for match in SENTENCE_END.finditer(text)]
            lines = self._lines(text, ends, width_em, indent_em)
            fitting = [end for end, count in zip(ends, lines, strict=True) if count <= n_lines]
            if fitting and lines[len(fitting) - 1] > min(n_lines - 1.5, 0.6 * n_lines):
                return text[: fitting[-1]]
        return text

    def _lines(self, text: str, ends: list[int], width_em: float, indent_em: float) -> list[float]:
        """How many lines, at most and in parts, the text takes up to each of these places."""
        room = max(1.0, width_em - RAGGED_EM[self.page.lang])
        full, at_em, start, found = 0.0, indent_em, 0, []
        for end in ends:
            *before, last = text[start:end].split("\n")
            for paragraph in before:
                full += max(1.0, np.ceil((at_em + self.page.estimated_em(paragraph) * 0.94) / room))
                at_em = indent_em
            at_em += self.page.estimated_em(last) * 0.94
            found.append(full + np.ceil(at_em / room))
            start = end
        return found

    def fixed(self, words: tuple[str, ...], number: int, room_em: float, bold: bool) -> str:
        """One of the words that has room with its placeholders filled, none twice on a page before all were there; ""
        when none has."""
        for _ in range(2 * len(words)):
            text = self.filled(self._next_of(words), number)
            while "____" in text and self._width_em(text, bold) > room_em:
                text = text.replace("____", "___", 1)  # a blank to be filled in is as long as there is room
            if self._width_em(text, bold) <= room_em:
                return text
        return ""

    def _width_em(self, text: str, bold: bool) -> float:
        return max(self.page.estimated_em(text), widest_em(text)) * (1.1 if bold else 1.0)

    def _next_of(self, words: tuple[str, ...]) -> str:
        left = self._unused.setdefault(words, [])
        if not left:
            left += [words[at] for at in self.rng.permutation(len(words)).tolist()]
        return left.pop()

    def filled(self, words: str, number: int) -> str:
        """The words with their placeholders filled: see `Node.text`. number: of the repetition."""
        words = words.replace("{n}", str(number))
        words = re.sub(r"\{p\}", lambda _: str(int(self.rng.integers(1, 10))), words)
        words = re.sub(r"\{d\}", lambda _: str(int(self.rng.integers(10))), words)
        if "{s}" in words:
            words = words.replace("{s}", str(self._counts.get("") or self._counted("")))
        while "{c}" in words:
            head, _, tail = words.partition("{c}")
            words = f"{head}{self._counted((head.split() or [''])[-1])}{tail}"
        return words

    def _counted(self, what: str) -> int:
        """The next number of sections (""), of figures ("Figure"), of parts of a section ("3."); those begin with 1."""
        first = 1 if what[:1].isdigit() else int(self.rng.integers(1, 8))
        self._counts[what] = self._counts.get(what, first - 1) + 1
        return self._counts[what]
