"""The package's only randomness: from a distribution over pages to one `PageSpec`."""

import functools
from collections.abc import Mapping, Sequence
from typing import Literal, Protocol, TypeVar

import numpy as np
from pydantic import Field, PositiveFloat, model_validator

from fonts_manifest.config import Config
from fonts_manifest.errors import BadInput
from fonts_manifest.manifest import FontFace
from render_engine.spec import RGB, Box, PageSpec, PhotoCrop, PlainGround, TextBlock

Language = Literal["en", "zh", "mixed"]
T = TypeVar("T")

ADVANCE_EM = {"en": 0.52, "zh": 1.0, "mixed": 0.78}
"""Mean advance of a character, blanks included: how much text fills a box (DejaVu .55, STIX .45, Chinese 1)."""
MAX_CHARACTERS = 20_000


class TextSource(Protocol):
    """Where texts come from."""

    def draw(self, rng: np.random.Generator, lang: str, characters: int) -> str:
        """About `characters` characters of NFC text, paragraphs separated by a line feed, never cut inside a word."""
        ...


class Photo(Protocol):
    """What the sampler must know of a photograph."""

    @property
    def photo_id(self) -> str:
        """First 16 hex digits of the SHA-256 of its file."""
        ...

    @property
    def width_px(self) -> int:
        """Width of the whole photograph."""
        ...

    @property
    def height_px(self) -> int:
        """Height of the whole photograph."""
        ...


class SizeBand(Config):
    """A range of text sizes and how often it is drawn."""

    low_px: float = Field(ge=2, le=200)
    """Smallest em in px."""
    high_px: float = Field(ge=2, le=200)
    """Largest em in px, itself included."""
    weight: float = Field(gt=0)
    """Relative frequency of the band among the blocks of body text."""

    @model_validator(mode="after")
    def _ordered(self) -> "SizeBand":
        if self.high_px < self.low_px:
            raise ValueError(f"high_px must not be less than low_px, got {self.low_px} to {self.high_px}")
        return self


class PageDistribution(Config):
    """Which pages are drawn, and how often. Weights need not sum to 1."""

    page_sizes_px: tuple[tuple[int, int], ...] = Field(default=((256, 256),), min_length=1)
    """Width and height of the pictures; each is as likely as the others."""
    size_bands: tuple[SizeBand, ...] = Field(
        default=(
            SizeBand(low_px=5, high_px=8, weight=0.3),
            SizeBand(low_px=8, high_px=12, weight=0.4),
            SizeBand(low_px=12, high_px=20, weight=0.3),
        ),
        min_length=1,
    )
    """Sizes of body text, the em in px (5 to 20 in the paper, section 3). Headings may be larger, up to the largest."""
    size_step_px: PositiveFloat = 0.5
    """Sizes are multiples of this: each size of a face is a strike that must be rasterised once a process."""
    languages: dict[Language, float] = Field(default={"en": 0.4, "zh": 0.4, "mixed": 0.2})
    """Weights of English, Chinese and Chinese with English words."""
    families: dict[Literal["background", "pure"], float] = Field(default={"background": 0.7, "pure": 0.3})
    """Weights of text over photographs (paper, section 3) and over plain grounds (Qwen-Image, section 3.4)."""
    layouts: dict[Literal["columns", "list", "mosaic", "sparse"], float] = Field(
        default={
            "columns": 0.5,
            "list": 0.15,
            "mosaic": 0.25,
            "sparse": 0.1,
        }
    )
    """Weights of body text in columns, lists, many blocks of different sizes and colours, and a few lines alone."""
    columns: dict[int, float] = Field(default={1: 0.6, 2: 0.3, 3: 0.1})
    """Weights of the number of columns (1 to 6); a column narrower than ten em is given up."""
    heading: float = Field(default=0.4, ge=0, le=1)
    """Probability of a heading over columns and lists."""
    margin_px: tuple[int, int] = (4, 20)
    """Least and largest margin at every edge."""
    align: dict[Literal["start", "center", "end", "justify"], float] = Field(
        default={
            "start": 0.5,
            "justify": 0.35,
            "center": 0.1,
            "end": 0.05,
        }
    )
    """Weights of the alignment of body text."""
    line_pitch_em: tuple[float, float] = (1.15, 1.8)
    """Least and largest distance of two baselines, in em."""
    letter_spacing: float = Field(default=0.1, ge=0, le=1)
    """Probability that a block is spaced out or in, by -0.02 to 0.1 em."""
    inks: dict[Literal["dark", "light", "colour"], float] = Field(default={"dark": 0.5, "light": 0.3, "colour": 0.2})
    """Weights of nearly black, nearly white and coloured ink; the contrast floor moves each when it must."""
    min_contrast: tuple[float, float] = (3.0, 4.5)
    """Least and largest floor of the WCAG contrast of a block; any ground allows 4.58 at full opacity."""
    translucent: float = Field(default=0.2, ge=0, le=1)
    """Probability that the text of a page is not opaque."""
    opacity: tuple[float, float] = (0.7, 0.98)
    """Least and largest opacity of translucent text."""
    hinting: dict[Literal["none", "light", "full"], float] = Field(default={"none": 0.7, "light": 0.2, "full": 0.1})
    """Weights of the hinting of a page."""
    blend: dict[Literal["srgb", "linear"], float] = Field(default={"srgb": 0.8, "linear": 0.2})
    """Weights of mixing coverage in sRGB, as desktops do, or in linear light."""
    faces_per_shard: int = Field(default=12, ge=2)
    """Faces drawn for one shard (`faces_of_shard`): every face at every size is a strike to rasterise, and 1,000 pages
    over 64 strikes cost 1 ms a page for it; the next shard has others."""
    photo_scale: tuple[float, float] = (0.8, 3.0)
    """Least and largest number of photograph pixels to a picture pixel, as far as the photograph is large enough."""

    @model_validator(mode="after")
    def _sensible(self) -> "PageDistribution":
        for name in ("languages", "families", "layouts", "columns", "align", "inks", "hinting", "blend"):
            weights = getattr(self, name)
            if not weights or min(weights.values()) < 0 or sum(weights.values()) <= 0:
                raise ValueError(f"{name} must hold weights of at least 0 that do not sum to 0, got {weights}")
        for name, least, most in (
            ("margin_px", 0, 1000),
            ("line_pitch_em", 0.8, 10),
            ("min_contrast", 1, 21),
            ("opacity", 0.05, 1),
            ("photo_scale", 0.05, 100),
        ):
            low, high = getattr(self, name)
            if not least <= low <= high <= most:
                raise ValueError(
                    f"{name} must hold two numbers in order between {least} and {most}, got {low} and {high}"
                )
        if not all(1 <= count <= 6 for count in self.columns):
            raise ValueError(f"columns must be 1 to 6, got {sorted(self.columns)}")
        if not all(32 <= side <= 4096 for size in self.page_sizes_px for side in size):
            raise ValueError(f"page_sizes_px must lie between 32 and 4096, got {self.page_sizes_px}")
        return self


def sample_spec(
    rng: np.random.Generator,
    pages: PageDistribution,
    faces: Sequence[FontFace],
    texts: TextSource,
    photos: Sequence[Photo],
) -> PageSpec:
    """One page: every choice behind it is made here.

    Raises BadInput when a language has no face that covers it, or photographs are wanted and there are none.
    """
    width, height = pages.page_sizes_px[int(rng.integers(len(pages.page_sizes_px)))]
    lang = pick(rng, pages.languages)
    family = pick(rng, pages.families)
    background = _photo_crop(rng, pages, photos, width, height) if family == "background" else _plain(rng)
    opacity = 1.0
    if rng.random() < pages.translucent:
        opacity = round(_between(rng, pages.opacity), 2)
    page = _PageSampler(rng, pages, faces, texts, lang, opacity)
    margin = int(rng.integers(pages.margin_px[0], pages.margin_px[1] + 1))
    margin = min(margin, min(width, height) // 6)
    area = (float(margin), float(margin), float(width - margin), float(height - margin))
    layout = pick(rng, pages.layouts)
    if layout == "mosaic":
        blocks = page.mosaic(area)
    elif layout == "sparse":
        blocks = page.sparse(area)
    else:
        blocks = page.columns(area, listed=layout == "list")
    return PageSpec(
        width_px=width,
        height_px=height,
        family=family,
        background=background,
        blocks=tuple(blocks),
        hinting=pick(rng, pages.hinting),
        blend=pick(rng, pages.blend),
    )


def pick(rng: np.random.Generator, weights: Mapping[T, float]) -> T:
    """One of the keys, as often as its weight says."""
    keys = list(weights)
    total = np.cumsum([weights[key] for key in keys])
    return keys[int(np.searchsorted(total, rng.random() * total[-1], side="right"))]


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
    """`pages.faces_per_shard` of the faces, in the order of `faces`: half for each of the scripts that are wanted.

    The share of a script follows the weights of the languages; a script with fewer faces leaves its room to the other.
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
    chosen = {face.face_id for group, count in ((han, n_han), (latin, n_latin)) for face in _some(rng, group, count)}
    return tuple(face for face in faces if face.face_id in chosen)


def _some(rng: np.random.Generator, faces: Sequence[FontFace], count: int) -> list[FontFace]:
    return [faces[at] for at in rng.permutation(len(faces))[:count].tolist()]


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


def _between(rng: np.random.Generator, limits: tuple[float, float]) -> float:
    return float(rng.uniform(limits[0], limits[1]))


def _photo_crop(
    rng: np.random.Generator, pages: PageDistribution, photos: Sequence[Photo], width: int, height: int
) -> PhotoCrop:
    if not photos:
        raise BadInput(
            "the family 'background' needs photographs and there are none; name a folder or set its weight to 0"
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


def _plain(rng: np.random.Generator) -> PlainGround:
    """White, paper, dark screen or any colour."""
    kind = pick(rng, {"white": 0.4, "paper": 0.3, "dark": 0.15, "colour": 0.15})
    if kind == "white":
        return PlainGround(rgb=(255, 255, 255))
    if kind == "paper":
        level = int(rng.integers(225, 253))
        warmth = int(rng.integers(0, 22))
        return PlainGround(rgb=(level, level - warmth // 2, level - warmth))
    low, high = (0, 60) if kind == "dark" else (0, 256)
    red, green, blue = rng.integers(low, high, 3).tolist()
    return PlainGround(rgb=(red, green, blue))


class _PageSampler:
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
        self.body_faces = self.face_ids()
        self.ink_kind = pick(rng, pages.inks)

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

    def _face_of(self, usable: Sequence[FontFace]) -> FontFace:
        families = sorted({face.family for face in usable})
        family = families[int(self.rng.integers(len(families)))]
        members = sorted((face for face in usable if face.family == family), key=lambda face: face.face_id)
        # Body text is mostly upright and of normal weight.
        weights = {at: 3.0 if face.weight == 400 and not face.italic else 1.0 for at, face in enumerate(members)}
        return members[pick(self.rng, weights)]

    def size_px(self) -> float:
        """A size of body text."""
        band = self.pages.size_bands[pick(self.rng, {at: band.weight for at, band in enumerate(self.pages.size_bands)})]
        step = self.pages.size_step_px
        first, last = int(np.ceil(band.low_px / step)), int(np.floor(band.high_px / step))
        return step * int(self.rng.integers(first, last + 1)) if first <= last else band.low_px

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
    ) -> TextBlock:
        """A block filled with text; with `text` None as much as the box holds is drawn."""
        if text is None:
            rows = (box_px[3] - box_px[1]) / (pitch_em * size_px)
            characters = rows * (box_px[2] - box_px[0]) / (size_px * ADVANCE_EM[self.lang])
            # A tenth more: short last lines of paragraphs take room without filling it.
            text = self.texts.draw(self.rng, self.lang, int(np.clip(characters * 1.1 + 10, 4, MAX_CHARACTERS)))
        spacing = 0.0
        if self.rng.random() < self.pages.letter_spacing:
            spacing = round(float(self.rng.uniform(-0.02, 0.1)), 3)
        floor = min(_between(self.rng, self.pages.min_contrast), 0.93 * reachable_contrast(self.opacity))
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
            ink_rgb=ink_rgb,
            opacity=self.opacity,
            min_contrast=round(max(1.0, floor), 2),
        )

    def columns(self, area: Box, *, listed: bool) -> list[TextBlock]:
        """Body text (or lists) in columns, often under a heading, filling the area."""
        x0, y0, x1, y1 = area
        size = self.size_px()
        pitch = _between(self.rng, self.pages.line_pitch_em)
        ink = self.ink(self.ink_kind)
        blocks: list[TextBlock] = []
        if self.rng.random() < self.pages.heading:
            largest = max(band.high_px for band in self.pages.size_bands)
            step = self.pages.size_step_px
            head = max(size, step * round(min(largest, size * float(self.rng.uniform(1.2, 2.0))) / step))
            text = self.one_line((x1 - x0) / (head * ADVANCE_EM[self.lang]))
            box = (x0, y0, x1, min(y1, y0 + 1.5 * head))
            align: Literal["start", "center"] = "center" if self.rng.random() < 0.5 else "start"
            head_ink = self.ink("colour") if self.rng.random() < 0.3 else ink
            faces = self.face_ids() if self.rng.random() < 0.5 else self.body_faces
            blocks.append(self.block(box, head, face_ids=faces, ink_rgb=head_ink, align=align, pitch_em=1.4, text=text))
            y0 = min(y1, y0 + 1.5 * head + 0.5 * size)
        count = pick(self.rng, self.pages.columns)
        gutter = size * float(self.rng.uniform(1.0, 2.5))
        while count > 1 and (x1 - x0 - (count - 1) * gutter) / count < 10 * size:
            count -= 1
        wide = (x1 - x0 - (count - 1) * gutter) / count
        alignment = "start" if listed else pick(self.rng, self.pages.align)
        indent = 2.0 if self.lang != "en" and not listed and self.rng.random() < 0.6 else 0.0
        for column in range(count):
            left = x0 + column * (wide + gutter)
            box = (round(left, 2), round(y0, 2), round(left + wide, 2), y1)
            text_of_list = self.list_text(box, size, pitch) if listed else None
            blocks.append(
                self.block(
                    box,
                    size,
                    face_ids=self.body_faces,
                    ink_rgb=ink,
                    align=alignment,
                    pitch_em=pitch,
                    text=text_of_list,
                    indent_em=indent,
                )
            )
        return blocks

    def one_line(self, characters: float) -> str:
        """Text that fits one line of so many characters: the first words of a draw."""
        wanted = max(4, int(characters * float(self.rng.uniform(0.4, 0.85))))
        text = self.texts.draw(self.rng, self.lang, wanted).split("\n")[0].strip()
        return text or self.texts.draw(self.rng, self.lang, wanted).replace("\n", " ")

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

    def mosaic(self, area: Box) -> list[TextBlock]:
        """The area cut into cells, each a block of its own size, face, colour and alignment."""
        cells = self._cut(area, depth=0)
        blocks = []
        for cell in cells:
            size = self.size_px()
            if cell[3] - cell[1] < 1.4 * size or cell[2] - cell[0] < 5 * size:
                size = min(band.low_px for band in self.pages.size_bands)
            faces = self.face_ids() if self.rng.random() < 0.5 else self.body_faces
            blocks.append(
                self.block(
                    cell,
                    size,
                    face_ids=faces,
                    ink_rgb=self.ink(pick(self.rng, self.pages.inks)),
                    align=pick(self.rng, self.pages.align),
                    pitch_em=_between(self.rng, self.pages.line_pitch_em),
                )
            )
        return blocks

    def _cut(self, area: Box, depth: int) -> list[Box]:
        x0, y0, x1, y1 = area
        wide, high = x1 - x0, y1 - y0
        if depth == 4 or (depth >= 2 and self.rng.random() < 0.35) or max(wide, high) < 100:
            return [area]
        gutter = float(self.rng.integers(3, 11))
        share = float(self.rng.uniform(0.3, 0.7))
        # Cells are kept wider than high: lines need room.
        if wide > 1.6 * high or (wide > 120 and self.rng.random() < 0.35):
            middle = round(x0 + wide * share)
            parts = [(x0, y0, middle - gutter / 2, y1), (middle + gutter / 2, y0, x1, y1)]
        else:
            middle = round(y0 + high * share)
            parts = [(x0, y0, x1, middle - gutter / 2), (x0, middle + gutter / 2, x1, y1)]
        return [cell for part in parts for cell in self._cut(part, depth + 1)]

    def sparse(self, area: Box) -> list[TextBlock]:
        """One to three short blocks somewhere on the page."""
        x0, y0, x1, y1 = area
        blocks: list[TextBlock] = []
        count = int(self.rng.integers(1, 4))
        band = (y1 - y0) / count
        for at in range(count):
            size = self.size_px()
            pitch = _between(self.rng, self.pages.line_pitch_em)
            wide = (x1 - x0) * float(self.rng.uniform(0.4, 1.0))
            high = min(band, pitch * size * int(self.rng.integers(1, 5)) + size)
            left = float(self.rng.uniform(x0, x1 - wide))
            top = y0 + at * band + float(self.rng.uniform(0, band - high))
            box = (round(left, 2), round(top, 2), round(left + wide, 2), round(top + high, 2))
            blocks.append(
                self.block(
                    box,
                    size,
                    face_ids=self.body_faces,
                    ink_rgb=self.ink(pick(self.rng, self.pages.inks)),
                    align=pick(self.rng, self.pages.align),
                    pitch_em=pitch,
                )
            )
        return blocks
