"""Structured pages as data: what a template file may say, read strictly. docs/templates.md explains it by examples."""

import functools
import hashlib
import re
from collections.abc import Iterable
from pathlib import Path
from typing import Literal

import yaml
from pydantic import Field, ValidationError, field_validator, model_validator

from fonts_manifest.config import Config
from fonts_manifest.errors import BadInput
from render_engine.spec import RGB

BUNDLED = Path(__file__).parent / "templates"
SURFACES = ("surfaces/board", "surfaces/label", "surfaces/note", "surfaces/sheet", "surfaces/sign")
"""Templates of what stands on things in photographs; not among the complex pages unless asked for by name."""
MAX_TEMPLATE_BYTES = 1 << 18
MAX_DEPTH = 12
HEX = re.compile(r"#[0-9a-f]{6}")
PLACEHOLDER = re.compile(r"\{[^{}]*\}|[{}]")

Colour = Literal["ground", "ink", "muted", "accent", "soft", "line", "on_accent", "on_photo"]
Slot = Literal[
    "title", "heading", "paragraph", "list", "caption", "header", "footer", "page_number", "label", "field", "button",
    "table", "chart", "figure", "rule",
]  # fmt: skip
Range = tuple[float, float]


class Palette(Config):
    """The colours of a page, each "#rrggbb" in small letters."""

    ground: str = "#ffffff"
    """The page."""
    ink: str = "#1c1c1c"
    """Body text."""
    muted: str = "#5f6368"
    """Captions, headers, what steps back."""
    accent: str = "#1a56a8"
    """Headings, bars, buttons."""
    soft: str = "#eef3fa"
    """Boxes under text."""
    line: str = "#c9ced6"
    """Rules and borders."""
    on_accent: str = "#ffffff"
    """Text on boxes filled with the accent."""
    on_photo: str = "#ffffff"
    """Text on photographs, which a scrim makes darker."""

    @field_validator("*")
    @classmethod
    def _hex(cls, value: str) -> str:
        if not HEX.fullmatch(value):
            raise ValueError(f'a colour is written "#rrggbb" in small letters, got {value!r}')
        return value

    def rgb(self, colour: Colour) -> RGB:
        """8-bit sRGB."""
        value = getattr(self, colour)
        return int(value[1:3], 16), int(value[3:5], 16), int(value[5:7], 16)


class Node(Config):
    """A part of a page: a stack of others (`rows`), others side by side (`columns`), `one_of` several, or a `slot`.

    Without any of them it is empty room. Lengths are em of the page's body text where nothing else is said.
    """

    rows: tuple["Node", ...] = ()
    """Parts from top to bottom."""
    columns: tuple["Node", ...] = ()
    """Parts from left to right."""
    one_of: tuple["Node", ...] = ()
    """One of these is drawn in its place, as often as their `chance` says; beside it only `chance` and `repeat`."""
    slot: Slot | None = None
    """What is put here: a kind of text, a table, a chart, a figure (a crop of a photograph), a rule."""
    share: Range | None = None
    """Least and largest fraction of the parent's length that the part takes (height in rows, width in columns)."""
    ems: Range | None = None
    """The same in em of the body text."""
    lines: tuple[int, int] | None = None
    """Height as a number of lines of the slot's own text."""
    weight: float = Field(default=1.0, gt=0, le=100)
    """Parts without `share`, `ems` and `lines` divide what is left in this proportion."""
    repeat: tuple[int, int] = (1, 1)
    """The part comes so many times; those that do not fit are left out, so [50, 50] means "as many as fit"."""
    chance: float = Field(default=1.0, gt=0, le=1)
    """Probability that the part is there at all; inside `one_of` its weight among the others."""
    flip: float = Field(default=0.0, ge=0, le=1)
    """Probability that its parts come in reverse order: the picture on the left, not on the right."""
    gap: float = Field(default=0.0, ge=0, le=50)
    """Room between the children."""
    divider: Colour | None = None
    """Colour of a line in the middle of every gap."""
    pad: float = Field(default=0.0, ge=0, le=50)
    """Room inside, on all four sides."""
    size: Range = (1.0, 1.0)
    """Least and largest size of the slot's text, times the body text."""
    pitch: float | None = Field(default=None, ge=0.9, le=4)
    """Distance of two baselines in em; None takes the page's for body text, 1.25 for the rest."""
    align: Literal["start", "center", "end", "justify"] | None = None
    """None: paragraphs as the page's body text, everything else at the start."""
    indent: bool | None = None
    """Whether the first lines of its paragraphs are indented; None: as the template says."""
    bold: bool = False
    """In a bold face, if there is one."""
    underline: bool = False
    """With a rule under every line."""
    ink: Colour = "ink"
    """Colour of the slot's text, rule or bars."""
    fill: Colour | Literal["photo"] | None = None
    """Colour of the part's box; "photo" lays a crop of a photograph under it."""
    scrim: Range | None = None
    """Least and largest opacity of a black veil over the fill, so that light text can be read on a photograph."""
    border: Colour | None = None
    """Colour of a line around the part's box."""
    border_em: float = Field(default=0.0, ge=0, le=4)
    """Width of that line; it is one pixel at least."""
    radius: float = Field(default=0.0, ge=0, le=20)
    """Of the corners of the box and of a figure."""
    text: dict[Literal["en", "zh"], tuple[str, ...]] = Field(default={})
    """Words to choose from instead of text of the corpus; pages of mixed text take the Chinese ones. "{n}" is the
    number of the repetition, "{d}" a random digit, "{p}" one that is not 0, "{c}" counts on through the page whatever
    the word in front of it names (sections where there is none), "{s}" is the number of the last section. Words that
    have no room are passed over. Of a table: labels of its rows."""
    prefix: dict[Literal["en", "zh"], str] = Field(default={})
    """What stands before text of the corpus, with the same placeholders: "{n}. "."""

    @model_validator(mode="after")
    def _sensible(self) -> "Node":
        if sum((bool(self.rows), bool(self.columns), bool(self.one_of), self.slot is not None)) > 1:
            raise ValueError("a part has rows, columns, one_of or a slot, not two of them")
        if self.one_of and not self.model_fields_set <= {"one_of", "chance", "repeat"}:
            beside = ", ".join(sorted(self.model_fields_set - {"one_of", "chance", "repeat"}))
            raise ValueError(f"beside one_of only chance and repeat may stand, not {beside}")
        if sum(given is not None for given in (self.share, self.ems, self.lines)) > 1:
            raise ValueError("a part has share, ems or lines, not two of them")
        for name, least, most in (
            ("share", 0.0, 1.0),
            ("ems", 0.0, 400.0),
            ("lines", 1, 400),
            ("repeat", 1, 400),
            ("size", 0.3, 12.0),
            ("scrim", 0.0, 1.0),
        ):
            limits = getattr(self, name)
            if limits is not None and not least <= limits[0] <= limits[1] <= most:
                raise ValueError(f"{name} must hold two numbers in order between {least} and {most}, got {limits}")
        for words in (*self.text.values(), tuple(self.prefix.values())):
            for word in words:
                for placeholder in PLACEHOLDER.findall(word):
                    if placeholder not in ("{n}", "{d}", "{p}", "{c}", "{s}"):
                        raise ValueError(f'{word!r}: only "{{n}}", "{{d}}", "{{p}}", "{{c}}", "{{s}}" are placeholders')
        if self.text and (set(self.text) != {"en", "zh"} or not all(self.text.values())):
            raise ValueError("text needs words in both languages, en and zh")
        return self

    @property
    def children(self) -> tuple["Node", ...]:
        """What is in it, in reading order, or may be."""
        return self.rows or self.columns or self.one_of


class Template(Config):
    """A kind of page."""

    description: str
    """One noun phrase with its article, for captions: "a company's financial report"."""
    palettes: tuple[Palette, ...] = (Palette(),)
    """One is drawn for every page."""
    margin: Range = (0.03, 0.07)
    """Least and largest margin, as a fraction of the shorter side."""
    least_em: float = Field(default=20.0, ge=4, le=200)
    """Least width of the page in em of its body text: sizes for which it would be less are drawn again."""
    most_em: float = Field(default=200.0, ge=4, le=400)
    """Largest width of the page in em, likewise; when the distribution has no size between the two, the nearest."""
    pitch: Range = (1.25, 1.6)
    """Distance of two baselines of body text, in em."""
    align: tuple[Literal["start", "center", "end", "justify"], ...] = Field(default=("start", "justify"), min_length=1)
    """Alignments of body text, each as likely as the others."""
    indent: bool = False
    """Whether paragraphs begin with an indent: two em in Chinese, one and a half in English."""
    paper: float = Field(default=0.0, ge=0, le=1)
    """Probability that the ground is textured like paper."""
    page: Node
    """The whole page inside its margins."""

    @model_validator(mode="after")
    def _shallow(self) -> "Template":
        level, depth = [self.page], 0
        while level:
            level, depth = [child for node in level for child in node.children], depth + 1
        if depth > MAX_DEPTH:
            raise ValueError(f"parts may be nested {MAX_DEPTH} deep, got {depth}")
        if not (0 <= self.margin[0] <= self.margin[1] <= 0.4 and 0.9 <= self.pitch[0] <= self.pitch[1] <= 4):
            raise ValueError("margin (0 to 0.4) and pitch (0.9 to 4) must hold two numbers in order")
        if self.most_em < self.least_em:
            raise ValueError(f"most_em must not be less than least_em, got {self.most_em} and {self.least_em}")
        return self


def bundled_templates() -> tuple[str, ...]:
    """Names of the templates that come with the package, in order."""
    return tuple(sorted(path.stem for path in BUNDLED.glob("*.yaml")))


def template_path(name: str) -> Path:
    """The file of a bundled template by name, or of the user's own by a path that ends in .yaml, .yml or .json.

    Raises BadInput when there is none.
    """
    if Path(name).suffix in {".yaml", ".yml", ".json"}:
        path = Path(name)
    elif name in (*bundled_templates(), *SURFACES):
        path = BUNDLED / f"{name}.yaml"
    else:
        raise BadInput(
            f"{name!r} is no bundled template ({', '.join(bundled_templates())}) and no path to a .yaml file"
        )
    if not path.is_file():
        raise BadInput(f"{path}: no such template file")
    return path


def templates_digest(names: Iterable[str]) -> str:
    """SHA-256 of the files of these templates and of those for things in photographs. Raises BadInput."""
    sha256 = hashlib.sha256()
    for name in sorted({*names, *SURFACES}):
        load_template(name)
        sha256.update(name.encode() + b"\0" + template_path(name).read_bytes())
    return sha256.hexdigest()


@functools.cache
def load_template(name: str) -> Template:
    """Read a template, once a process. Raises BadInput with the place of what is wrong in it."""
    path = template_path(name)
    try:
        if path.stat().st_size > MAX_TEMPLATE_BYTES:
            raise BadInput(f"{path}: over 256 KiB, this is no template")
        text = path.read_text(encoding="utf-8")
        if any(getattr(event, "anchor", None) for event in yaml.parse(text, Loader=yaml.SafeLoader)):
            # An alias inside an alias is a bomb of nodes, and a template needs none.
            raise BadInput(f"{path}: anchors and aliases (& and *) are not allowed in a template")
        data = yaml.safe_load(text)
        return Template.model_validate(data)
    except (OSError, UnicodeDecodeError) as error:
        raise BadInput(f"{path}: cannot be read ({error})") from None
    except yaml.YAMLError as error:
        raise BadInput(f"{path}: not valid YAML ({' '.join(str(error).split())})") from None
    except RecursionError:
        raise BadInput(f"{path}: nested too deeply") from None
    except ValidationError as problem:
        errors = sorted(problem.errors(), key=lambda error: error["type"] != "extra_forbidden")
        place = ".".join(map(str, errors[0]["loc"])) or "the template"
        if errors[0]["type"] == "extra_forbidden":
            raise BadInput(f"{path}: unknown key {place!r}; docs/templates.md lists the keys") from None
        message = errors[0]["msg"].removeprefix("Value error, ")
        raise BadInput(f"{path}: {place}: {message}, got {str(errors[0]['input'])[:80]!r}") from None
