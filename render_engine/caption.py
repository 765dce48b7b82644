"""A picture in words, from its spec alone: what it is, what stands on it, how large and in which language."""

import collections
from collections.abc import Sequence

import numpy as np

from render_engine.colours import colour_name, colour_names
from render_engine.spec import FilledBox, GradientGround, PageSpec, PhotoCrop, PlainGround, RenderedLine
from render_engine.template import load_template
from render_engine.warp import project

LANGUAGES = {"en": "English", "zh": "Chinese", "mixed": "Chinese mixed with English"}
THINGS = {
    "sheet": "a sheet of paper",
    "note": "a sticky note",
    "board": "a board",
    "sign": "a sign",
    "label": "a label",
    "screen": "a screen",
}
COUNTED = {
    "table": ("a table", "tables"),
    "chart": ("a chart", "charts"),
    "figure": ("a picture", "pictures"),
    "list": ("a list", "lists"),
    "button": ("a button", "buttons"),
}
NUMBERS = ("no", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine", "ten", "eleven", "twelve")
MAX_QUOTED = 60
"""Longest quotation of the heading, in characters."""


def caption(spec: PageSpec, lines: Sequence[RenderedLine] = ()) -> str:
    """Two to four English sentences; equal specs give equal captions.

    lines: of the picture, when it has been drawn: their seen sizes and colours are told instead of those asked for.

    Example: 'A newspaper page in Chinese, headed "江南日报". The text is 8 to 26 px large, nearly black on a white
    ground, in 20 blocks. It holds two pictures.' Raises BadInput when the spec's template is a file that is gone,
    RenderError when its surface cannot be.
    """
    sentences = [_what(spec), _text(spec, lines), _parts(spec), _finish(spec)]
    return " ".join(sentence for sentence in sentences if sentence)


def _what(spec: PageSpec) -> str:
    languages = sorted({block.lang for block in spec.blocks})
    language = f" in {LANGUAGES[languages[0]] if len(languages) == 1 else 'several languages'}" if languages else ""
    named = load_template(spec.template).description if spec.template else "text"
    if spec.surface is not None:
        bent = ", gently curled," if abs(spec.surface.bow) >= 0.02 else ""
        thing = THINGS[spec.surface.kind]
        shown = "" if spec.template.startswith("surfaces/") else f" showing {named}"
        what = f"{thing}{bent}{shown} in a photograph, with text{language}"
    elif spec.family == "complex":
        what = named + language
    elif spec.family == "background":
        what = f"text{language} straight over a photograph"
    else:
        what = f"text{language} on {_ground(spec)}"
    head = next((block.text for block in spec.blocks if block.role in ("title", "heading")), "")
    head = " ".join(head.split()).replace('"', "'")
    if len(head) > MAX_QUOTED:
        head = head[:MAX_QUOTED].rstrip() + "…"
    quoted = f', headed "{head}"' if head else ""
    return f"{what[0].upper()}{what[1:]}{quoted}."


def _text(spec: PageSpec, lines: Sequence[RenderedLine]) -> str:
    if not spec.blocks:
        return "Nothing is written on it."
    sizes = [line.size_px for line in lines] or _seen_sizes(spec)
    low, high = f"{min(sizes):.3g}", f"{max(sizes):.3g}"
    span = f"{low} px" if low == high else f"{low} to {high} px"
    inks = collections.Counter(colour_names([part.ink_rgb for part in (lines or spec.blocks)]))
    ink = min(inks, key=lambda name: (-inks[name], name))
    count = len({line.block for line in lines}) or len(spec.blocks)
    blocks = f"in {_number(count)} blocks" if count > 1 else "in one block"
    ground = f" on {_ground(spec)}" if spec.family == "complex" else ""
    asked = "meant to be " if not lines and any(block.min_contrast > 1 for block in spec.blocks) else ""
    clear = "" if all(block.opacity == 1 for block in spec.blocks) else ", translucent"
    return f"The text is {span} large, {asked}{ink}{clear}{ground}, {blocks}."


def _parts(spec: PageSpec) -> str:
    roles: collections.Counter[str] = collections.Counter(node.role for node in spec.layout)
    roles.update(block.role for block in spec.blocks if block.role in ("list", "button"))
    parts = [
        one if roles[role] == 1 else f"{_number(roles[role])} {many}"
        for role, (one, many) in COUNTED.items()
        if roles[role]
    ]
    if not parts:
        return ""
    listed = parts[0] if len(parts) == 1 else f"{', '.join(parts[:-1])} and {parts[-1]}"
    return f"It holds {listed}."


def _finish(spec: PageSpec) -> str:
    facts = []
    if any(block.plate for block in spec.blocks):
        facts.append("a plate lies under every line")
    if any(block.shadow for block in spec.blocks):
        facts.append("the letters throw a shadow")
    if any(block.outline for block in spec.blocks):
        facts.append("the letters are outlined")
    if spec.family == "background" and any(isinstance(shape, FilledBox) for shape in spec.shapes):
        facts.append("a veil lies over the photograph")
    damage = spec.degradation
    if damage is not None:
        facts += [
            words
            for is_there, words in (
                (damage.blur_sigma_px > 0, "it is slightly blurred"),
                (damage.resample > 1, "it was enlarged from fewer pixels"),
                (damage.noise_sigma > 0, "it is noisy"),
                (damage.jpeg_quality is not None, f"it was JPEG of quality {damage.jpeg_quality}"),
            )
            if is_there
        ]
    if not facts:
        return ""
    text = "; ".join(facts)
    return f"{text[0].upper()}{text[1:]}."


def _seen_sizes(spec: PageSpec) -> list[float]:
    """The em of every block in px of the picture; on a surface at the middle of its box."""
    if spec.surface is None:
        return [block.size_px for block in spec.blocks]
    projection = project(spec.surface)
    sizes = []
    for block in spec.blocks:
        x0, y0, x1, y1 = block.box_px
        x, y = (x0 + x1) / 2, (y0 + y1) / 2
        middle, right, below = projection(np.array([(x, y), (x + 1, y), (x, y + 1)]))
        (ax, ay), (dx, dy) = right - middle, below - middle
        sizes.append(block.size_px * float(ax * dy - ay * dx) / float(np.hypot(ax, ay)))
    return sizes


def _ground(spec: PageSpec) -> str:
    background = spec.background
    if isinstance(background, PhotoCrop):
        return "a photograph"
    if isinstance(background, PlainGround):
        return f"{_article(colour_name(background.rgb))} ground"
    if isinstance(background, GradientGround):
        first, last = colour_name(background.start_rgb), colour_name(background.end_rgb)
        return f"{_article(first)} ground" if first == last else f"a ground from {first} to {last}"
    return f"{_article(colour_name(background.rgb))} paper ground"


def _article(words: str) -> str:
    return f"{'an' if words[0] in 'aeiou' else 'a'} {words}"


def _number(count: int) -> str:
    return NUMBERS[count] if count < len(NUMBERS) else str(count)
