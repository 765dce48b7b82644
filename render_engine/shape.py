"""From text to glyphs: HarfBuzz over a stack of faces, every word shaped once.

Blanks, Chinese characters and Chinese punctuation ("single" characters) are shaped one by one and kept in a table; what
stands between them ("words", Latin and everything else) is shaped whole and kept by its text. Verified against HarfBuzz
on whole paragraphs: in Noto Sans CJK and WenQuanYi no pair of single characters interacts; dashes do ("——" becomes one
glyph of two em), so U+2014 is no single. Faces that kern blanks get their blanks shaped inside the words.
"""

import re
import unicodedata

import numpy as np
import numpy.typing as npt
import uharfbuzz as hb

from render_engine.breaking import break_properties, find_words
from render_engine.face import EM, Face, is_ignorable
from render_engine.spec import RenderError

SLOT_SHIFT = 16
"""A glyph reference is `slot << 16 | glyph id`; slot is the face's place in the stack."""

ANY_FACE = -1
PLAIN_WORD = re.compile(r"""[("']*[A-Za-z0-9_.,:;'"]*[)"'.,:;!?]*""")
"""Words that UAX #14 never breaks: reading HarfBuzz's flags costs as much as all the rest of a glyph."""

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
        self._slot_of = _FirstFace(faces)
        self._buffer = hb.Buffer()
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
        self.word_first = np.zeros(256, np.int32)
        self.word_count = np.zeros(256, np.int32)
        self.word_glyphs = np.zeros((2048, 6), np.int32)
        """A row a glyph: reference, cluster (character in the word), advance, x and y offset (1 / EM of an em, y up),
        and 1 where the line must not be broken before it (HarfBuzz would shape the parts otherwise)."""
        self._stored_words = self._stored_glyphs = 0
        self._new_rows: list[tuple[int, int, int, int, int, int]] = []
        self._new_counts: list[int] = []

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
            # A character that its face spells with several glyphs is a word from now on.
            count, _ = find_words(codes, table, self.single_glyph, starts, ends)
        if self._stored_glyphs > MAX_CACHED_GLYPHS:
            self._reset_words()
        words = [text[start:end] for start, end in zip(starts[:count].tolist(), ends[:count].tolist(), strict=True)]
        try:
            indices = np.array(list(map(self.__getitem__, words)), np.int32)
        finally:
            self._store_new()
        return starts[:count], indices, table

    def __missing__(self, word: str) -> int:
        before = len(self._new_rows)
        for first, last, slot in self._runs(word):
            self._new_rows += self._shape(word[first:last], first, slot)
        self._new_counts.append(len(self._new_rows) - before)
        index = self[word] = len(self)
        return index

    def _store_new(self) -> None:
        """Move what was shaped since the last call into the arrays: one copy a block, not one a word."""
        words = self._stored_words + len(self._new_counts)
        # A word that raised half-way left rows and no count: they belong to nobody.
        new_glyphs = sum(self._new_counts)
        glyphs = self._stored_glyphs + new_glyphs
        while words > len(self.word_first):
            self.word_first = np.concatenate((self.word_first, np.zeros_like(self.word_first)))
            self.word_count = np.concatenate((self.word_count, np.zeros_like(self.word_count)))
        while glyphs > len(self.word_glyphs):
            self.word_glyphs = np.concatenate((self.word_glyphs, np.zeros_like(self.word_glyphs)))
        if self._new_counts:
            counts = np.array(self._new_counts, np.int32)
            self.word_count[self._stored_words : words] = counts
            self.word_first[self._stored_words : words] = self._stored_glyphs + np.cumsum(counts) - counts
            if new_glyphs:
                self.word_glyphs[self._stored_glyphs : glyphs] = self._new_rows[:new_glyphs]
        self._stored_words, self._stored_glyphs = words, glyphs
        self._new_rows, self._new_counts = [], []

    def _shape_single(self, code: int) -> None:
        rows = self._shape(chr(code), 0, self._slot_of[chr(code)])
        if len(rows) == 1 and rows[0][3:5] == (0, 0):
            self.single_glyph[code] = rows[0][0]
            self.single_advance[code] = rows[0][2]
        else:  # a face that spells it with several glyphs
            self.single_glyph[code] = WORD

    def _runs(self, word: str) -> list[tuple[int, int, int]]:
        """(first, last, slot): the word cut where the face changes, never inside a base with its marks."""
        slots = set(map(self._slot_of.__getitem__, word))
        slots.discard(ANY_FACE)
        if len(slots) <= 1:
            return [(0, len(word), max(slots, default=0))]
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
            slot = self._slot_of.common(word[first:last])
            if runs and runs[-1][2] == slot:
                runs[-1] = (runs[-1][0], last, slot)
            else:
                runs.append((first, last, slot))
            first = last
        return runs

    def _shape(self, text: str, offset: int, slot: int) -> list[tuple[int, int, int, int, int, int]]:
        """Rows of `word_glyphs`; clusters count from `offset`. HarfBuzz itself takes 1 us of the 8 a word costs."""
        face = self.faces[slot]
        buffer = self._buffer
        buffer.clear_contents()
        buffer.add_codepoints(list(map(ord, text)))
        if text.isascii():
            buffer.script = "Latn"
        else:
            buffer.guess_segment_properties()
            if buffer.script in (None, "Zyyy", "Zinh", "Zzzz"):
                buffer.script = "Latn" if self.language == "en" else "Hani"
        buffer.direction = "ltr"
        buffer.language = self.language
        hb.shape(face.shaper, buffer)
        shift = slot << SLOT_SHIFT
        doubled, half = 2 * face.units_per_em, face.units_per_em
        unbroken = len(text) == 1 or PLAIN_WORD.fullmatch(text) is not None
        rows = []
        for info, position in zip(buffer.glyph_infos, buffer.glyph_positions, strict=True):
            glyph = info.codepoint
            if glyph == 0:
                raise RenderError("missing_glyph", f"{face.font.family} shapes {text!r} with .notdef")
            x_offset, y_offset, x_advance, _ = position.position
            rows.append(
                (
                    shift | glyph,
                    info.cluster + offset,
                    (x_advance * 2 * EM + half) // doubled,
                    (x_offset * 2 * EM + half) // doubled if x_offset else 0,
                    (y_offset * 2 * EM + half) // doubled if y_offset else 0,
                    0 if unbroken else int(info.flags) & 1,
                )
            )
        return rows


class _FirstFace(dict[str, int]):
    """Character -> place of the first face that draws it, ANY_FACE for what is invisible by definition."""

    def __init__(self, faces: tuple[Face, ...]) -> None:
        super().__init__()
        self.faces = faces

    def __missing__(self, character: str) -> int:
        if unicodedata.bidirectional(character) in ("R", "AL"):
            raise RenderError("right_to_left", f"{character!r} belongs to a script that runs from right to left")
        slot = ANY_FACE if is_ignorable(ord(character)) else self.common(character)
        self[character] = slot
        return slot

    def common(self, cluster: str) -> int:
        """The first face that draws every visible character of the cluster."""
        codes = [code for code in map(ord, cluster) if not is_ignorable(code)]
        for slot, face in enumerate(self.faces):
            if all(map(face.draws, codes)):
                return slot
        listed = " ".join(f"U+{code:04X}" for code in codes)
        raise RenderError("missing_glyph", f"{listed} is drawn by none of {[face.font.family for face in self.faces]}")
