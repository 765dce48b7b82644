"""From text to glyphs: HarfBuzz over a stack of faces, every word shaped once.

Blanks, Chinese characters and Chinese punctuation ("single" characters) are shaped one by one and kept in a table; what
stands between them ("words", Latin and everything else) is shaped whole and kept by its text. Verified against HarfBuzz
on whole paragraphs: in Noto Sans CJK and WenQuanYi no pair of single characters interacts; dashes do ("——" becomes one
glyph of two em), so U+2014 is no single. Faces that kern blanks get their blanks shaped inside the words.
"""

import unicodedata

import numpy as np
import numpy.typing as npt
import uharfbuzz as hb

from render_engine.breaking import break_properties, find_words
from render_engine.face import Face, is_ignorable
from render_engine.spec import RenderError

SLOT_SHIFT = 16
"""A glyph reference is `slot << 16 | glyph id`; slot is the face's place in the stack."""

UNKNOWN = -2
WORD = -1
LINE_FEED = -3

SINGLE_RANGES = (
    (0x20, 0x20),
    (0x3000, 0x3003),
    (0x3005, 0x3011),
    (0x3014, 0x301F),
    (0x3400, 0x4DBF),
    (0x4E00, 0x9FFF),
    (0xFF01, 0xFF60),
    (0xFFE0, 0xFFE6),
)
LANGUAGE_TAGS = {"en": "en", "zh": "zh-Hans", "mixed": "zh-Hans"}
MAX_CACHED_GLYPHS = 1 << 20
"""A stack forgets its words when they hold more glyphs than this (24 MB); real text has a few thousand words a face."""


class FontStack(dict[str, int]):
    """Faces in order of preference for one language, and all that was ever shaped with them: word -> index of the word.

    A missing word is shaped when it is looked up. Raises RenderError("missing_glyph") for a character that no face
    draws, RenderError("right_to_left") for scripts that run so.
    """

    def __init__(self, faces: tuple[Face, ...], lang: str) -> None:
        super().__init__()
        if not 1 <= len(faces) <= 128:
            raise RenderError("bad_spec", f"a block needs 1 to 128 faces, got {len(faces)}")
        self.faces = faces
        self.language = LANGUAGE_TAGS[lang]
        self.single_glyph = np.full(0x10000, WORD, np.int32)
        """By code point: glyph reference, or UNKNOWN (look it up first), WORD (shape it in a word), LINE_FEED."""
        self.single_advance = np.zeros(0x10000, np.int32)
        """By code point, in 1 / EM of an em."""
        for first, last in SINGLE_RANGES:
            self.single_glyph[first : last + 1] = UNKNOWN
        if faces[0].kerns_blanks:
            self.single_glyph[0x20] = WORD
        self.single_glyph[0x0A] = LINE_FEED
        self._reset_words()

    def _reset_words(self) -> None:
        self.clear()
        self._glyphs = 0
        self.word_first = np.zeros(256, np.int32)
        self.word_count = np.zeros(256, np.int32)
        self.word_glyphs = np.zeros((2048, 6), np.int32)
        """A row a glyph: reference, cluster (character in the word), advance, x and y offset (1 / EM of an em, y up),
        and 1 where the line must not be broken before it (HarfBuzz would shape the parts otherwise)."""

    def words_of(
        self, text: str, codes: npt.NDArray[np.uint32]
    ) -> tuple[npt.NDArray[np.int32], npt.NDArray[np.int32], npt.NDArray[np.uint16]]:
        """(start of each word, index of each word, table of break properties) of a text; shapes what is new in it."""
        table = break_properties(codes)
        starts = np.empty(len(codes), np.int32)
        ends = np.empty(len(codes), np.int32)
        count, unknown = find_words(codes, table, self.single_glyph, starts, ends)
        if unknown:
            for code in np.unique(codes[codes < 0x10000]).tolist():
                if self.single_glyph[code] == UNKNOWN:
                    self._shape_single(code)
        if self._glyphs > MAX_CACHED_GLYPHS:
            self._reset_words()
        words = [text[start:end] for start, end in zip(starts[:count].tolist(), ends[:count].tolist(), strict=True)]
        return starts[:count], np.array(list(map(self.__getitem__, words)), np.int32), table

    def __missing__(self, word: str) -> int:
        rows: list[tuple[int, int, int, int, int, int]] = []
        for first, last, slot in self._runs(word):
            rows.extend(self._shape(word[first:last], first, slot))
        index = len(self)
        if index == len(self.word_first):
            self.word_first = np.concatenate((self.word_first, np.zeros_like(self.word_first)))
            self.word_count = np.concatenate((self.word_count, np.zeros_like(self.word_count)))
        while self._glyphs + len(rows) > len(self.word_glyphs):
            self.word_glyphs = np.concatenate((self.word_glyphs, np.zeros_like(self.word_glyphs)))
        self.word_first[index] = self._glyphs
        self.word_count[index] = len(rows)
        self.word_glyphs[self._glyphs : self._glyphs + len(rows)] = rows
        self._glyphs += len(rows)
        self[word] = index
        return index

    def _shape_single(self, code: int) -> None:
        rows = self._shape(chr(code), 0, self._slot_for(chr(code)))
        if len(rows) == 1 and rows[0][3:5] == (0, 0):
            self.single_glyph[code] = rows[0][0]
            self.single_advance[code] = rows[0][2]
        else:  # a face that spells it with several glyphs
            self.single_glyph[code] = WORD

    def _slot_for(self, cluster: str) -> int:
        """The first face that draws every visible character of `cluster`."""
        codes = [code for code in map(ord, cluster) if not is_ignorable(code)]
        for slot, face in enumerate(self.faces):
            if all(map(face.draws, codes)):
                return slot
        listed = " ".join(f"U+{code:04X}" for code in codes)
        raise RenderError("missing_glyph", f"{listed} is drawn by none of {[face.font.family for face in self.faces]}")

    def _runs(self, word: str) -> list[tuple[int, int, int]]:
        """(first, last, slot): the word cut where the face changes, never inside a base with its marks."""
        runs: list[tuple[int, int, int]] = []
        first = 0
        while first < len(word):
            last = first + 1
            while last < len(word) and (
                unicodedata.category(word[last]).startswith("M")
                or is_ignorable(ord(word[last]))
                or word[last - 1] == "\u200d"
            ):
                last += 1
            slot = self._slot_for(word[first:last])
            if runs and runs[-1][2] == slot:
                runs[-1] = (runs[-1][0], last, slot)
            else:
                runs.append((first, last, slot))
            first = last
        return runs

    def _shape(self, text: str, offset: int, slot: int) -> list[tuple[int, int, int, int, int, int]]:
        """Rows of `word_glyphs`; clusters count from `offset`."""
        face = self.faces[slot]
        buffer = hb.Buffer()
        buffer.add_codepoints(list(map(ord, text)))
        buffer.guess_segment_properties()
        if buffer.direction == "rtl" or any(unicodedata.bidirectional(character) in ("R", "AL") for character in text):
            raise RenderError("right_to_left", f"{text!r} runs from right to left")
        buffer.direction = "ltr"
        if buffer.script in ("Zyyy", "Zinh", "Zzzz"):
            buffer.script = "Latn" if self.language == "en" else "Hani"
        buffer.language = self.language
        hb.shape(face.shaper, buffer)
        rows = []
        for info, position in zip(buffer.glyph_infos, buffer.glyph_positions, strict=True):
            if info.codepoint == 0:
                raise RenderError("missing_glyph", f"{face.font.family} shapes {text!r} with .notdef")
            rows.append(
                (
                    slot << SLOT_SHIFT | info.codepoint,
                    info.cluster + offset,
                    face.in_em(position.x_advance),
                    face.in_em(position.x_offset),
                    face.in_em(position.y_offset),
                    int(info.flags) & 1,
                )
            )
        return rows
