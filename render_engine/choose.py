"""Faces, sizes, colours and blocks of one page: what its parts share is drawn once."""

import functools
import re
from collections.abc import Sequence
from typing import Literal

import numpy as np

from fonts_manifest.errors import BadInput
from fonts_manifest.manifest import FontFace
from render_engine.controls import without_controls
from render_engine.distribution import Language, PageDistribution, Photo, SizeBand, TextSource, between, pick
from render_engine.drawable import nearest_drawing, undrawn, without
from render_engine.emphasis import choose_runs, sibling
from render_engine.headlines import trimmed
from render_engine.spec import RGB, Box, PhotoCrop, Role, TextBlock, TextRun

ADVANCE_EM = {"en": 0.52, "zh": 1.0, "mixed": 0.78}
"""Mean advance of a character, blanks included: how much text fills a box (DejaVu .55, STIX .45, Chinese 1)."""
MAX_CHARACTERS = 20_000
PHRASE_EM = 10.0
"""Room for some words, not for a name alone."""
WIDE = re.compile("[\u2e80-\U0010ffff]")
LEAST_DRAW = 60
"""Characters of running text: of fewer the corpus may give the middle of a sentence."""


def usable_faces(faces: Sequence[FontFace], lang: str) -> list[FontFace]:
    """The faces that can be first in a block of that language. Raises BadInput when there is none."""
    script = "latin" if lang == "en" else "han"
    usable = [face for face in faces if script in face.scripts]
    if not usable:
        raise BadInput(
            f"no face of the manifest covers {'printable ASCII' if lang == 'en' else 'GB 2312 level 1'}, which"
            f" language {lang!r} needs; add such fonts to fonts.places or set the weight of {lang!r} to 0"
        )
    return usable


def faces_of_shard(
    rng: np.random.Generator, pages: PageDistribution, faces: Sequence[FontFace]
) -> tuple[FontFace, ...]:
    """`pages.faces_per_shard` of the faces, in the order of `faces`.

    The share of a script follows the weights of the languages; a script with fewer faces leaves its room to the other.
    Every second face brings the bold or the italic face of its family with it, for emphasis inside its paragraphs.
    Raises BadInput when a wanted language has no face.
    """
    wanted = {lang: weight for lang, weight in pages.languages.items() if weight > 0}
    for lang in wanted:
        usable_faces(faces, lang)
    han = [face for face in faces if "han" in face.scripts]
    latin = [face for face in faces if "han" not in face.scripts]
    english = wanted.get("en", 0.0) / sum(wanted.values())
    n_han = 0 if english == 1 else max(1, round(pages.faces_per_shard * (1 - english)))
    n_han = min(max(n_han, pages.faces_per_shard - len(latin)), len(han))
    n_latin = min(pages.faces_per_shard - n_han, len(latin))
    some = [face for group, count in ((han, n_han), (latin, n_latin)) for face in _some(rng, group, count)]
    chosen = {face.face_id for face in some}
    return tuple(face for face in faces if face.face_id in chosen)


def sizes_of_shard(rng: np.random.Generator, pages: PageDistribution) -> PageDistribution:
    """The same pages with `pages.sizes_per_band` sizes of each band, equally often."""
    bands = []
    for band in pages.bands:
        first = int(np.ceil(band.low_px / pages.size_step_px))
        last = int(np.floor(band.high_px / pages.size_step_px))
        steps = rng.permutation(np.arange(first, last + 1))[: pages.sizes_per_band]
        sizes = [pages.size_step_px * step for step in sorted(steps.tolist())] or [band.low_px]
        bands += [SizeBand(low_px=size, high_px=size, weight=band.weight / len(sizes)) for size in sizes]
    return pages.model_copy(update={"size_bands": tuple(bands), "difficulty": None})


def _some(rng: np.random.Generator, faces: Sequence[FontFace], count: int) -> list[FontFace]:
    chosen: dict[str, FontFace] = {}
    for turn, at in enumerate(rng.permutation(len(faces)).tolist()):
        face = faces[at]
        companion = sibling(face, faces, bold=turn % 4 == 0) if turn % 2 == 0 else None
        for one in (face, companion):
            if one is not None and len(chosen) < count:
                chosen[one.face_id] = one
    return list(chosen.values())


@functools.cache
def reachable_contrast(opacity: float) -> float:
    """The WCAG contrast that black or white ink of this opacity reaches on every grey ground, in either blend."""
    ground = np.arange(256) / 255
    light = np.where(ground <= 0.04045, ground / 12.92, ((ground + 0.055) / 1.055) ** 2.4)

    def in_light(
        value: "np.ndarray[tuple[int], np.dtype[np.float64]]",
    ) -> "np.ndarray[tuple[int], np.dtype[np.float64]]":
        return np.where(value <= 0.04045, value / 12.92, ((value + 0.055) / 1.055) ** 2.4)

    worst = 21.0
    for white, black in (
        (in_light(ground * (1 - opacity) + opacity), in_light(ground * (1 - opacity))),
        (light * (1 - opacity) + opacity, light * (1 - opacity)),
    ):
        best = np.maximum((white + 0.05) / (light + 0.05), (light + 0.05) / (black + 0.05))
        worst = min(worst, float(best.min()))
    return worst


def photo_crop(
    rng: np.random.Generator, pages: PageDistribution, photos: Sequence[Photo], width: int, height: int
) -> PhotoCrop:
    if not photos:
        raise BadInput(
            "the families 'background' and 'compositional' need photographs and there are none; name a folder or set"
            " their weights to 0"
        )
    photo = photos[int(rng.integers(len(photos)))]
    largest = min(photo.width_px / width, photo.height_px / height)
    low, high = pages.photo_scale
    scale = min(float(np.exp(rng.uniform(np.log(low), np.log(max(low, min(high, largest)))))), largest)
    crop_width = max(1, min(photo.width_px, round(width * scale)))
    crop_height = max(1, min(photo.height_px, round(height * scale)))
    x0 = int(rng.integers(photo.width_px - crop_width + 1))
    y0 = int(rng.integers(photo.height_px - crop_height + 1))
    return PhotoCrop(
        photo_id=photo.photo_id, box_px=(x0, y0, x0 + crop_width, y0 + crop_height), mirrored=bool(rng.random() < 0.5)
    )


def _is_wide(character: str) -> bool:
    return character >= "\u2e80"


def estimated_em(text: str) -> float:
    """Width of a line, on the safe side: DejaVu Sans, the widest of common faces, has .59 em a letter."""
    return 0.6 * len(text) + (0.0 if text.isascii() else 0.4 * len(WIDE.findall(text)))


def _outside(size: float, least: float, most: float) -> float:
    """How many times too small or too large."""
    return max(least / size, size / most)


class PageChoices:
    """The blocks of one page: what they share is drawn once."""

    def __init__(
        self,
        rng: np.random.Generator,
        pages: PageDistribution,
        faces: Sequence[FontFace],
        texts: TextSource,
        lang: Language,
        opacity: float,
    ) -> None:
        self.rng = rng
        self.pages = pages
        self.faces = faces
        self.texts = texts
        self.lang = lang
        self.opacity = opacity
        self._by_id = {face.face_id: face for face in faces}
        self.body_faces = self.face_ids()
        self.ink_kind = pick(rng, pages.inks)
        self.least_px = min(band.low_px for band in pages.bands)
        self.spacing_em: float | None = None
        """Letter spacing of all blocks; None draws one for each."""
        # A stream of its own: a habit of typesetting moves nothing else of the page.
        self.habits = rng.spawn(1)[0]
        chances = self.habits.random(3) < (pages.hyphenation, pages.squeezed, pages.autospaced)
        ragged = self.habits.random() < 0.25
        self.hyphenated = {"justify", "start"} if ragged else {"justify"}
        if not chances[0] or lang != "en":
            self.hyphenated = set()
        self.squeezes = bool(chances[1]) and lang != "en"
        self.autospace_em = float(self.habits.choice((0.25, 0.25, 0.125))) if chances[2] and lang != "en" else 0.0

    def face_ids(self) -> tuple[str, ...]:
        """A face for the language and its fallbacks: families are equally likely, then the faces of the family."""
        first = self._face_of(usable_faces(self.faces, self.lang))
        if self.lang == "mixed" and self.rng.random() < 0.5:
            first = self._face_of(usable_faces(self.faces, "en"))
        # The fallbacks follow from the first face: every stack of faces keeps what it shaped, so there must be few.
        han = [face for face in self.faces if "han" in face.scripts and face != first]
        han.sort(key=lambda face: (abs(face.weight - first.weight), face.face_id))
        other = next((face for face in han if face.sha256 != first.sha256), None)
        nearest = [] if "han" in first.scripts else han[:1]
        return tuple(dict.fromkeys(face.face_id for face in (first, *nearest, *([other] if other else []))))

    def text_face_ids(self) -> tuple[str, ...]:
        """The same for the body text of a document: upright and of normal weight where there is such a face."""
        for _ in range(6):
            face_ids = self.face_ids()
            first = next(face for face in self.faces if face.face_id == face_ids[0])
            if first.weight < 500 and not first.italic:
                break
        return face_ids

    def _face_of(self, usable: Sequence[FontFace]) -> FontFace:
        families = sorted({face.family for face in usable})
        family = families[int(self.rng.integers(len(families)))]
        members = sorted((face for face in usable if face.family == family), key=lambda face: face.face_id)
        # Body text is mostly upright and of normal weight.
        weights = {at: 3.0 if face.weight == 400 and not face.italic else 1.0 for at, face in enumerate(members)}
        return members[pick(self.rng, weights)]

    def size_px(self) -> float:
        """A size of body text."""
        band = self.pages.bands[pick(self.rng, {at: band.weight for at, band in enumerate(self.pages.bands)})]
        step = self.pages.size_step_px
        first, last = int(np.ceil(band.low_px / step)), int(np.floor(band.high_px / step))
        return step * int(self.rng.integers(first, last + 1)) if first <= last else band.low_px

    def body_size_px(self, least_px: float, most_px: float) -> float:
        """A size of body text between the two, or the nearest of a dozen draws when such sizes are rare."""
        nearest = min(band.low_px for band in self.pages.bands)
        for _ in range(12):
            size = self.size_px()
            if least_px <= size <= most_px:
                return size
            if _outside(size, least_px, most_px) < _outside(nearest, least_px, most_px):
                nearest = size
        return nearest

    def on_grid(self, size_px: float) -> float:
        """The nearest multiple of the size step that is not below the least size of all."""
        step = self.pages.size_step_px
        return max(step * round(size_px / step), self.least_px)

    def bold(self, face_ids: tuple[str, ...]) -> tuple[str, ...]:
        """The same stack behind a bold face: of the family of its first face, or else one for the same scripts."""
        first = next(face for face in self.faces if face.face_id == face_ids[0])
        usable = [
            face
            for face in self.faces
            if face.weight >= 600 and face.italic == first.italic and set(first.scripts) <= set(face.scripts)
        ]
        usable.sort(key=lambda face: (face.family != first.family, abs(face.weight - 700), face.face_id))
        return tuple(dict.fromkeys((usable[0].face_id, *face_ids))) if usable else face_ids

    def estimated_em(self, text: str) -> float:
        """Width of a line of the page, on the safe side, with the letter spacing that all its blocks have."""
        return estimated_em(text) + max(0.0, self.spacing_em or 0.0) * len(text)

    def fitted(self, width_em: float, fill: float) -> str:
        """Text for one line that is at most about `fill` of `width_em` wide; "" when not even a word fits."""
        most_em = width_em * fill
        wanted = max(2, int(most_em / ADVANCE_EM[self.lang] * float(self.rng.uniform(0.5, 1.0))))
        if self.lang == "en" and most_em > PHRASE_EM:  # the beginning of a sentence says more than its middle
            most_em, wanted = min(most_em, wanted * 0.6), max(wanted, LEAST_DRAW)
        for _ in range(6):
            text = self.texts.draw(self.rng, self.lang, wanted).split("\n")[0].strip()
            while text and self.estimated_em(text) > most_em:
                # whole words go, and Chinese characters one by one
                head, blank, tail = text.rpartition(" ")
                text = head if blank and not _is_wide(tail[-1:]) else text[:-1] if _is_wide(text[-1]) else ""
                text = text.rstrip()
            text = trimmed(text)
            if text:
                return text
        return ""

    def items(self, width_em: float, n_lines: int) -> str:
        """A list of at most about so many lines, its items with numbers or marks."""
        numbered = self.rng.random() < 0.4
        mark = ("- ", "• ", "· ", "– ")[int(self.rng.integers(4))]
        longest = float(self.rng.uniform(0.8, 2.2))
        lines: list[str] = []
        used = 0.0
        while used < n_lines and len(lines) < 100:
            # an item of one word is no item
            item = self.fitted(max(12.0, (width_em - 2) * float(self.rng.uniform(0.5, longest))), 0.95)
            if not item:
                used += 1.0
                continue
            lines.append(f"{len(lines) + 1}. {item}" if numbered else mark + item)
            used += np.ceil((estimated_em(item) * 0.95 + 1.5) / width_em)
        return "\n".join(lines)

    def ink(self, kind: str) -> RGB:
        """A colour of that kind."""
        if kind == "dark":
            red, green, blue = (self.rng.integers(0, 60) + self.rng.integers(-8, 9, 3)).clip(0, 255).tolist()
        elif kind == "light":
            red, green, blue = (self.rng.integers(200, 256) + self.rng.integers(-8, 9, 3)).clip(0, 255).tolist()
        else:
            red, green, blue = self.rng.integers(0, 256, 3).tolist()
        return red, green, blue

    def block(
        self,
        box_px: Box,
        size_px: float,
        *,
        face_ids: tuple[str, ...],
        ink_rgb: RGB,
        align: Literal["start", "center", "end", "justify"],
        pitch_em: float,
        text: str | None = None,
        indent_em: float = 0.0,
        role: Role = "paragraph",
        parent: int = -1,
        underline: bool = False,
    ) -> TextBlock:
        """A block filled with text; with `text` None as much as the box holds is drawn."""
        if text is None:
            rows = (box_px[3] - box_px[1]) / (pitch_em * size_px)
            characters = rows * (box_px[2] - box_px[0]) / (size_px * ADVANCE_EM[self.lang])
            # A tenth more: short last lines of paragraphs take room without filling it.
            text = self.texts.draw(self.rng, self.lang, int(np.clip(characters * 1.1 + 10, LEAST_DRAW, MAX_CHARACTERS)))
        face_ids, text = self.drawable(face_ids, without_controls(text))
        runs: tuple[TextRun, ...] = ()
        if role in ("paragraph", "list") and self.habits.random() < self.pages.emphasis:
            runs = choose_runs(self.habits, text, self.emphasised(face_ids))
        spacing = self.drawn_spacing_em() if self.spacing_em is None else self.spacing_em
        floor = min(between(self.rng, self.pages.min_contrast), 0.93 * reachable_contrast(self.opacity))
        return TextBlock(
            text=text,
            lang=self.lang,
            box_px=box_px,
            face_ids=face_ids,
            size_px=size_px,
            line_pitch_em=round(pitch_em, 3),
            align=align,
            first_line_indent_em=indent_em,
            letter_spacing_em=spacing,
            hyphenate=role == "paragraph" and align in self.hyphenated,
            squeeze=self.squeezes,
            autospace_em=self.autospace_em,
            runs=runs,
            ink_rgb=ink_rgb,
            opacity=self.opacity,
            min_contrast=round(max(1.0, floor), 2),
            role=role,
            parent=parent,
            underline=underline,
        )

    def drawn_spacing_em(self) -> float:
        """A letter spacing, mostly none."""
        return round(float(self.rng.uniform(-0.02, 0.1)), 3) if self.rng.random() < self.pages.letter_spacing else 0.0

    def drawable(self, face_ids: tuple[str, ...], text: str) -> tuple[tuple[str, ...], str]:
        """The stack with a further fallback for what it cannot draw, and the text without what no face draws."""
        missing = undrawn(text, [self._by_id[face_id] for face_id in face_ids])
        for character in sorted(missing):
            if undrawn(character, [self._by_id[face_id] for face_id in face_ids]):
                other = nearest_drawing(character, self.faces)
                face_ids = face_ids if other is None else (*face_ids, other.face_id)
        if missing:
            missing = undrawn(text, [self._by_id[face_id] for face_id in face_ids])
        return face_ids, without(text, missing) if missing else text

    def emphasised(self, face_ids: tuple[str, ...]) -> list[tuple[str, ...]]:
        """The stack in bold and in italics, as far as the family of its first face has them."""
        stacks = []
        for bold in (True, False):
            others = [sibling(self._by_id[face_id], self.faces, bold=bold) for face_id in face_ids]
            if others[0] is not None:
                pairs = zip(face_ids, others, strict=True)
                stacks.append(
                    tuple(dict.fromkeys(face_id if other is None else other.face_id for face_id, other in pairs))
                )
        return stacks

    def one_line(self, characters: float) -> str:
        """Text that fits one line of so many characters: the first words of a draw, whole and by themselves."""
        wanted = max(4, int(characters * float(self.rng.uniform(0.4, 0.85))))
        for _ in range(3):
            if text := trimmed(self.texts.draw(self.rng, self.lang, wanted).split("\n")[0]):
                return text
        return self.texts.draw(self.rng, self.lang, wanted).replace("\n", " ")

    def list_text(self, box: Box, size_px: float, pitch_em: float) -> str:
        """Items with marks, as many as the box holds."""
        rows = max(1, int((box[3] - box[1]) / (pitch_em * size_px)))
        per_row = (box[2] - box[0]) / (size_px * ADVANCE_EM[self.lang])
        numbered = self.rng.random() < 0.5
        mark = ("- ", "* ", "• ", "· ")[int(self.rng.integers(4))]
        items: list[str] = []
        used = 0.0
        while used < rows and len(items) < 200:
            item = self.one_line(per_row * float(self.rng.uniform(0.6, 2.0)))
            items.append(f"{len(items) + 1}. {item}" if numbered else mark + item)
            used += np.ceil((len(item) + 3) / per_row)
        return "\n".join(items)
