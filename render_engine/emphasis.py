"""Bold and italic words inside a paragraph, from faces of the same family: never slanted or thickened ones."""

import re
from collections.abc import Sequence

import numpy as np

from fonts_manifest.manifest import FontFace
from render_engine.spec import TextRun

STRETCH = re.compile(r"[A-Za-z]+(?:[’'-][A-Za-z]+)*(?: [A-Za-z]+(?:[’'-][A-Za-z]+)*)*|[\u3400-\u9fff]{2,}")
"""Words with single blanks between them, or Chinese characters: no mark, no line feed, no other script."""
CHARACTERS_A_RUN = 250
"""One run for every so many characters of an emphasised text."""


def sibling(face: FontFace, faces: Sequence[FontFace], *, bold: bool) -> FontFace | None:
    """The bold (or else the italic) face of the same family for the same scripts, None when there is none."""
    family = [other for other in faces if other.family == face.family and set(face.scripts) <= set(other.scripts)]
    if bold:
        darker = [one for one in family if one.italic == face.italic and one.weight >= max(600, face.weight + 200)]
        return min(darker, key=lambda one: (abs(one.weight - 700), one.face_id), default=None)
    slanted = [one for one in family if one.italic and not face.italic and abs(one.weight - face.weight) <= 100]
    return min(slanted, key=lambda one: (abs(one.weight - face.weight), one.face_id), default=None)


def choose_runs(rng: np.random.Generator, text: str, stacks: Sequence[tuple[str, ...]]) -> tuple[TextRun, ...]:
    """Some words of `text` in one or the other of `stacks`: up to five English words or eight Chinese characters a run,
    a quarter of the texts with the heads of their paragraphs instead."""
    if not stacks:
        return ()
    heads = rng.random() < 0.25
    face_ids = stacks[int(rng.integers(len(stacks)))]
    stretches = [match.span() for match in STRETCH.finditer(text)]
    if heads:
        stretches = [span for span in stretches if span[0] == 0 or text[span[0] - 1] == "\n"]
    count = min(len(stretches), 6, 1 + len(text) // CHARACTERS_A_RUN)
    runs = []
    for at in sorted(rng.permutation(len(stretches))[:count].tolist()):
        start, end = _part(rng, text, *stretches[at], first=heads)
        if not heads and len(stacks) > 1:
            face_ids = stacks[int(rng.integers(len(stacks)))]
        runs.append(TextRun(start=start, end=end, face_ids=face_ids))
    return tuple(runs)


def _part(rng: np.random.Generator, text: str, start: int, end: int, *, first: bool) -> tuple[int, int]:
    """Some words (or characters) of a stretch; its first ones when asked for."""
    if text[start] >= "\u3400":
        wanted = int(rng.integers(2, 9))
        begin = start if first else int(rng.integers(start, max(start, end - wanted) + 1))
        return begin, min(end, begin + wanted)
    words = [match.span() for match in re.finditer(r"[^ ]+", text[start:end])]
    wanted = int(rng.integers(1, 6))
    at = 0 if first else int(rng.integers(max(0, len(words) - wanted) + 1))
    return start + words[at][0], start + words[min(at + wanted, len(words)) - 1][1]
