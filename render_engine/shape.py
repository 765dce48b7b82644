"""From text to glyphs: HarfBuzz over a stack of faces, every word shaped once.

Blanks, Chinese characters and Chinese punctuation ("single" characters) are kept in a table by code point; what stands
between them ("words", Latin and everything else) is shaped whole and kept by its spelling. Verified against HarfBuzz
on whole paragraphs: in Noto Sans CJK and WenQuanYi no pair of single characters interacts; dashes do ("——" becomes one
glyph of two em), so U+2014 is no single. Faces that kern blanks get their blanks shaped inside the words.

What is new in a text goes through HarfBuzz in one buffer, its words held apart by a noncharacter that no face maps:
60 words take 20 us so, 450 us one by one.
"""

import functools
import unicodedata
from collections.abc import Sequence
from typing import TypeVar

import numpy as np
import numpy.typing as npt

from render_engine.face import EM, Face, is_ignorable, known_codes
from render_engine.fallback import ANY_FACE, FirstFace
from render_engine.harfbuzz import GlyphRows
from render_engine.inkless import keeps_ink
from render_engine.lexicon import LINE_FEED, UNKNOWN, WORD, cut_rows, enter_words, find_new, find_words
from render_engine.singles import QUOTES, singles
from render_engine.spec import RenderError

SLOT_SHIFT = 16
"""A glyph reference is `slot << 16 | glyph id`; slot is the face's place in the stack."""

APART = "\uffff"
"""Between the words of one buffer: a noncharacter, shaped as .notdef, of which no rule of a face speaks."""

AMBIGUOUS = QUOTES | frozenset("—…‥·")
"""Full-width in Chinese, narrow in English: the letters of their word decide, else the language of the text."""
OPENING = frozenset("“‘（《〈【「『〔［｛〖")
CLOSING = frozenset("”’）》〉】」』〕］｝〗，。、；：！？．")
MARKS = OPENING | CLOSING
FULL_WIDTH = EM * 9 // 10
"""Advance from which a mark counts as full-width."""
QUOTE_SIDE_EM = 0.07
"""Blank on either side of a quotation mark that is made narrow; Noto's own narrow ones have .06 to .07."""
MARK_SIDE_EM = 0.04
"""Blank that stays beside the ink of a mark that is squeezed."""
LANGUAGE_TAGS = {"en": "en", "zh": "zh-Hans", "mixed": "zh-Hans"}
ROOM = 2048
"""Tables grow by so many rows."""
MAX_CACHED_GLYPHS = 1 << 17
"""A stack forgets its words when they hold more glyphs than this (3 MB): 18,000 words."""


class FontStack:
    """Faces in order of preference for one language, and all that was ever shaped with them.

    A word in which a face substitutes letters by nothing is set in the next one. Raises RenderError("missing_glyph")
    for a character that no face draws, RenderError("right_to_left") for scripts that run so.
    """

    def __init__(self, faces: tuple[Face, ...], language: str) -> None:
        if not 1 <= len(faces) <= 128:
            raise RenderError("bad_spec", f"a block needs 1 to 128 faces, got {len(faces)}")
        self.faces = faces
        self._slot_of = FirstFace(faces)
        self.language = language
        self._row_of = singles().row_of
        self.singles = np.zeros((0, 4), np.int32)
        """By row: glyph reference, or UNKNOWN (look it up first), WORD (shape it in a word), LINE_FEED; its advance;
        the blank that a full-width mark can lose on its left and on its right. In 1 / EM of an em."""
        self._reserve_singles()
        self._forget_words()

    def _reserve_singles(self) -> None:
        """Make room for all single characters that the process has met."""
        rows = singles().rows
        if rows <= len(self.singles):
            return
        old = len(self.singles)
        self.singles = np.concatenate((self.singles, np.zeros((-(-rows // ROOM) * ROOM - old, 4), np.int32)))
        self.singles[old:, 0] = UNKNOWN
        if old == 0:
            self.singles[[0, *(self._row_of[ord(quote)] for quote in QUOTES)], 0] = WORD
            self.singles[self._row_of[0x0A], 0] = LINE_FEED
            if self.faces[0].kerns_blanks:
                self.singles[self._row_of[0x20], 0] = WORD

    def _forget_words(self) -> None:
        self.word_first = np.zeros(257, np.int32)
        """(words + 1,) first row of each word in `word_glyphs`."""
        self.word_glyphs = np.zeros((2048, 4), np.int32)
        """(glyphs, 4): reference, cluster (character in the word) times 2 and 1 more where the line must not be broken
        before the glyph, advance in 1 / EM of an em, row of `offsets`."""
        self.offsets = np.zeros((1, 2), np.int32)
        """(offsets, 2) x and y, up, in 1 / EM of an em; none in the first row."""
        self._spelling_first = np.zeros(257, np.int32)
        self._spellings = np.zeros(2048, np.uint32)
        self._slots = np.zeros(1024, np.int32)
        self._words = 0

    def slot_of(self, character: str) -> int:
        """Place of the face in the stack that a character by itself comes from, the first where it is invisible."""
        return max(0, self._slot_of[character])

    def words_of(
        self,
        text: str,
        codes: npt.NDArray[np.uint32],
        ranges: npt.NDArray[np.int32],
        table: npt.NDArray[np.uint16],
    ) -> tuple[npt.NDArray[np.int32], npt.NDArray[np.int32], npt.NDArray[np.int32]]:
        """(start, end and index of each word) of a text; shapes what is new in it.

        codes: the text's code points. ranges: (parts, 2 or more) first and last character of the parts that this stack
        sets. table: `break_properties` of the codes.
        """
        if self.word_first[self._words] > MAX_CACHED_GLYPHS:
            self._forget_words()
        found = np.empty((3, len(codes)), np.int32)
        count, unknown, missing = self._find(codes, ranges, table, found)
        if unknown:
            self._shape_singles(np.concatenate([codes[first:last] for first, last in ranges[:, :2].tolist()]))
            # A character that its face spells with several glyphs is a word from now on.
            count, _, missing = self._find(codes, ranges, table, found)
        if missing:
            new = np.flatnonzero(found[2, :count] < 0)
            spans = zip(found[0, new].tolist(), found[1, new].tolist(), strict=True)
            self._store(list(dict.fromkeys([text[start:end] for start, end in spans])))
            find_new(codes, self._slots, self._spelling_first, self._spellings, found[:, :count])
        return found[0, :count], found[1, :count], found[2, :count]

    def _find(
        self,
        codes: npt.NDArray[np.uint32],
        ranges: npt.NDArray[np.int32],
        table: npt.NDArray[np.uint16],
        found: npt.NDArray[np.int32],
    ) -> tuple[int, bool, bool]:
        known = (self._row_of, self.singles, self._slots, self._spelling_first, self._spellings)
        count, unknown, missing = find_words(codes, ranges, table, *known, found)
        return count, unknown, missing

    def _store(self, words: Sequence[str]) -> None:
        """Shape new words and keep them; when one of them cannot be shaped, none is kept."""
        latin = "latin" in self.faces[0].font.scripts
        plain = [word for word in words if latin and word.isascii() and word.isprintable()]
        others = [word for word in words if not (latin and word.isascii() and word.isprintable())]
        parts = [self._shape_apart(plain, 0, "Latn")] if plain else []
        if plain and (lost := self._without_ink(plain, *parts[0])):
            others += [plain[at] for at in lost]
            plain = [word for at, word in enumerate(plain) if at not in lost]
            parts = [self._shape_apart(plain, 0, "Latn")] if plain else []
        parts += [self._shape_runs(word) for word in others]
        rows = np.concatenate([rows for rows, _ in parts])
        counts = np.concatenate([counts for _, counts in parts])
        spelled = np.frombuffer("".join((*plain, *others)).encode("utf-32-le"), np.uint32)
        lengths = np.array([len(word) for word in (*plain, *others)])

        old, new = self._words, self._words + len(words)
        glyphs, letters = int(self.word_first[old]), int(self._spelling_first[old])
        self.word_first = _with_room(self.word_first, new + 1)
        self._spelling_first = _with_room(self._spelling_first, new + 1)
        self.word_glyphs = _with_room(self.word_glyphs, glyphs + len(rows))
        self._spellings = _with_room(self._spellings, letters + len(spelled))
        self.word_first[old + 1 : new + 1] = glyphs + np.cumsum(counts)
        self._spelling_first[old + 1 : new + 1] = letters + np.cumsum(lengths)
        self.word_glyphs[glyphs : glyphs + len(rows)] = self._packed(rows)
        self._spellings[letters : letters + len(spelled)] = spelled
        self._words = new
        if 2 * new > len(self._slots):
            self._slots = np.zeros(1 << (4 * new - 1).bit_length(), np.int32)
            old = 0
        enter_words(self._slots, self._spelling_first, self._spellings, old, new)

    def _packed(self, rows: GlyphRows) -> GlyphRows:
        """The rows as `word_glyphs` has them; hardly a glyph is moved, and those that are share few offsets."""
        packed = np.zeros((len(rows), 4), np.int32)
        packed[:, 0] = rows[:, 0]
        packed[:, 1] = rows[:, 1] << 1 | rows[:, 5]
        packed[:, 2] = rows[:, 2]
        moved = np.flatnonzero(rows[:, 3] | rows[:, 4])
        if len(moved):
            packed[moved, 3] = np.arange(len(self.offsets), len(self.offsets) + len(moved))
            self.offsets = np.concatenate((self.offsets, rows[moved, 3:5]))
        return packed

    def _shape_singles(self, codes: npt.NDArray[np.uint32]) -> None:
        """Enter the unknown ones of `codes` into the table of single characters."""
        codes = codes[codes < 0x10000]
        singles().enter(codes)
        self._reserve_singles()
        new = np.unique(codes[self.singles[self._row_of[codes], 0] == UNKNOWN])
        groups: dict[tuple[int, str], list[int]] = {}
        known = known_codes(self.faces[0].font.scripts)
        for code in new.tolist():
            slot = 0 if code in known else self._slot_of.find(chr(code))
            groups.setdefault((slot, self._script(code)), []).append(code)
        for (slot, script), group in groups.items():
            characters = list(map(chr, group))
            rows, counts = self._shape_apart(characters, slot, script)
            first = np.cumsum(counts) - counts
            group_codes = np.array(group, np.uint32)
            # A character that its face spells with several glyphs, moves, or makes vanish, is a word.
            alone = counts == 1
            own = rows[first[alone]]
            alone[alone] = (own[:, 3] == 0) & (own[:, 4] == 0)
            # A glyph of its own was looked at before; the others are few.
            nominal = self.faces[slot].shaper.nominal_glyphs(group_codes)
            for at in np.flatnonzero(alone).tolist():
                row = rows[first[at] : first[at] + 1]
                if row[0, 0] & 0xFFFF != nominal[at] and not keeps_ink(self.faces[slot], characters[at], row):
                    alone[at] = False
            table_rows = self._row_of[group_codes]
            self.singles[table_rows] = (WORD, 0, 0, 0)
            self.singles[table_rows[alone], :2] = rows[first[alone]][:, [0, 2]]
            for at in np.flatnonzero(alone).tolist():
                if characters[at] in MARKS:
                    self._measure_mark(characters[at], int(rows[first[at], 0]), int(rows[first[at], 2]))

    def _measure_mark(self, character: str, reference: int, advance: int) -> None:
        """Note how much blank a full-width mark can lose: half an em, or what its face leaves beside the ink."""
        if advance >= FULL_WIDTH and character in MARKS:
            left, right = self._blanks(reference, advance)
            blank, side = (left, 2) if character in OPENING else (right, 3)
            row = self._row_of[ord(character)]
            self.singles[row, side] = max(0, min(EM // 2, blank - int(MARK_SIDE_EM * EM)))

    def _blanks(self, reference: int, advance: int) -> tuple[int, int]:
        """Blank on the left and on the right of a glyph's ink, in 1 / EM of an em."""
        face = self.faces[reference >> SLOT_SHIFT]
        bearing, width, _ = face.shaper.ink(reference & 0xFFFF)
        left = bearing * EM // face.units_per_em
        return left, advance - left - width * EM // face.units_per_em

    @functools.cached_property
    def hyphen(self) -> tuple[int, int]:
        """(glyph reference, advance) of the hyphen that divides a word."""
        rows, _ = self._shape_runs("-")
        return int(rows[0, 0]), int(rows[0, 2])

    def _script(self, code: int) -> str:
        """What HarfBuzz's guess comes to for a single character: the text's own script where it has none."""
        if code < 0x80 or 0xFF21 <= code <= 0xFF3A or 0xFF41 <= code <= 0xFF5A:
            return "Latn"
        han = (code >= 0x3400 and code < 0xFF00) or code in (0x3005, 0x3007)
        return "Hani" if han or self.language != "en" else "Latn"

    def _shape_apart(self, texts: Sequence[str], slot: int, script: str) -> tuple[GlyphRows, npt.NDArray[np.int64]]:
        """(rows of all texts one behind the other, glyphs of each): one call of HarfBuzz, no text sees another.

        texts: of characters below U+FFFF, none of them a mark.
        """
        face = self.faces[slot]
        codes = np.frombuffer(APART.join(("", *texts, "")).encode("utf-32-le"), np.uint32)
        rows = face.shaper.shape(codes, self.language, script=script)
        ends = np.flatnonzero(codes == ord(APART))
        counts = np.zeros(len(texts), np.int64)
        count = cut_rows(rows, ends, counts)
        return self._in_em(rows[:count], slot), counts

    def _in_em(self, rows: GlyphRows, slot: int) -> GlyphRows:
        """Rows of a face of the stack: references for glyphs, and font units in 1 / EM of an em, rounded half up."""
        upem = self.faces[slot].units_per_em
        rows[:, 0] |= slot << SLOT_SHIFT
        rows[:, 2:5] = (rows[:, 2:5].astype(np.int64) * (2 * EM) + upem) // (2 * upem)
        return rows

    def _without_ink(self, texts: Sequence[str], rows: GlyphRows, counts: npt.NDArray[np.int64]) -> list[int]:
        """Which of the texts, shaped with the first face, have letters that do not show."""
        face = self.faces[0]
        if face.inked(rows[:, 0] & 0xFFFF).all():
            return []
        parts = np.split(rows, np.cumsum(counts)[:-1])
        return [at for at, text in enumerate(texts) if not keeps_ink(face, text, parts[at])]

    def _shape_runs(self, word: str) -> tuple[GlyphRows, npt.NDArray[np.int64]]:
        """(rows, (their number,)) of a word of any characters from any faces of the stack."""
        latin = self.language == "en" or any(map(_is_narrow_letter, word))
        parts = []
        for first, last, slot in self._runs(word, latin):
            part = word[first:last]
            quoted = not QUOTES.isdisjoint(part)
            own = self._shape_with_ink(part, slot, [("pwid", 1)] if latin and quoted else [])
            for row in own if quoted else ():
                character = part[row[1]]
                if character in QUOTES and latin:
                    self._make_narrow(row)
                elif character in QUOTES:
                    self._measure_mark(character, int(row[0]), int(row[2]))
            own[:, 1] += first
            parts.append(own)
        rows = np.concatenate(parts)
        return rows, np.array([len(rows)])

    def _make_narrow(self, row: npt.NDArray[np.int32]) -> None:
        """Take the blank off a full-width quotation mark, in place."""
        if row[2] >= FULL_WIDTH:
            left, right = self._blanks(int(row[0]), int(row[2]))
            side = int(QUOTE_SIDE_EM * EM)
            row[3] -= left - side
            row[2] -= left + right - 2 * side

    def _runs(self, word: str, latin: bool) -> list[tuple[int, int, int]]:
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
            slot = self._slot_of_cluster(word[first:last], latin)
            if slot == ANY_FACE:
                slot = runs[-1][2] if runs else 0
            if runs and runs[-1][2] == slot:
                runs[-1] = (runs[-1][0], last, slot)
            else:
                runs.append((first, last, slot))
            first = last
        return runs

    def _slot_of_cluster(self, cluster: str, latin: bool) -> int:
        if len(cluster) == 1 and not latin and cluster in AMBIGUOUS:
            for slot, face in enumerate(self.faces):
                if "han" in face.font.scripts and face.draws(ord(cluster)):
                    return slot
        if len(cluster) == 1:
            return self._slot_of[cluster]
        for character in cluster:
            self._slot_of[character]  # refuses scripts from right to left
        return self._slot_of.common(cluster)

    def _shape_with_ink(self, text: str, slot: int, features: Sequence[tuple[str, int]]) -> GlyphRows:
        """Rows of a text in the face of that slot, or in the first behind it that shows every character."""
        visible = [code for code in map(ord, text) if not is_ignorable(code)]
        for at in range(slot, len(self.faces)):
            if at == slot or all(map(self.faces[at].draws, visible)):
                rows = self._shape(text, at, features)
                if keeps_ink(self.faces[at], text, rows):
                    return rows
        family = self.faces[slot].font.family
        raise RenderError(
            "missing_glyph", f"{family} shapes {text!r} with .notdef or empty glyphs, and so do the others"
        )

    def _shape(self, text: str, slot: int, features: Sequence[tuple[str, int]]) -> GlyphRows:
        """Rows of a text by itself, in one face."""
        codes = np.array([*map(ord, text)], np.uint32)
        default = "Latn" if self.language == "en" or text.isascii() else "Hani"
        rows = self.faces[slot].shaper.shape(codes, self.language, default_script=default, features=features)
        return self._in_em(rows, slot)


def _is_narrow_letter(character: str) -> bool:
    return character.isalnum() and unicodedata.east_asian_width(character) not in "WF"


T = TypeVar("T", bound=np.generic)


def _with_room(array: npt.NDArray[T], rows: int) -> npt.NDArray[T]:
    """The array, or a longer copy when it has not so many rows."""
    if rows <= len(array):
        return array
    longer = np.zeros((max(rows, len(array) * 5 // 4), *array.shape[1:]), array.dtype)
    longer[: len(array)] = array
    return longer
