"""Which characters of a text a stack of faces cannot draw, and the text without them: asked before a page is drawn."""

import functools
import re
import unicodedata
from collections.abc import Sequence

from fonts_manifest.errors import BadInput
from fonts_manifest.manifest import FontFace
from render_engine.face import Face, is_ignorable, known_codes, open_face

TOKEN = re.compile(r"[^\s\u2e80-\uffff]+|[\u2e80-\uffff]|\s")
"""A word between blanks, one wide character, or one blank."""

CLOSING = "，。、；：！？．…）》〉】」』〕］｝〗”’)]},.;:!? "


def _opened(font: FontFace) -> Face | None:
    """The open face; None when its file is gone or broken, which the renderer will label."""
    try:
        return open_face(font)
    except BadInput:
        return None


def undrawn(text: str, fonts: Sequence[FontFace]) -> frozenset[str]:
    """The characters of `text` that none of the faces draws. 10 us for 1,000 characters that the manifest knows of."""
    left = set(text) - _known(frozenset(font.scripts for font in fonts))
    faces = [_opened(font) for font in fonts] if left else []
    return frozenset(character for character in left if not _drawn(character, faces))


@functools.cache
def _known(scripts: frozenset[tuple[str, ...]]) -> frozenset[str]:
    """The characters that faces of these scripts draw among them, and the line feed."""
    return frozenset(chr(code) for one in scripts for code in known_codes(one)) | {"\n"}


def _drawn(character: str, faces: Sequence[Face | None]) -> bool:
    code = ord(character)
    return any(face is None or face.draws(code) for face in faces) or is_ignorable(code)


def nearest_drawing(character: str, fonts: Sequence[FontFace]) -> FontFace | None:
    """The first of the faces that draws the character."""
    return next((font for font in fonts if _drawn(character, [_opened(font)])), None)


def without(text: str, characters: frozenset[str]) -> str:
    """The text without the paragraphs that hold one of the characters, as Qwen-Image discards them (section 3.4); when
    that would be all, without the words and wide characters that do."""
    kept = [paragraph for paragraph in text.split("\n") if characters.isdisjoint(paragraph)]
    if any(paragraph.strip() for paragraph in kept):
        return "\n".join(kept)
    words = [token for token in TOKEN.findall(text) if characters.isdisjoint(token)]
    # What is left must not begin with the mark that stood behind a word that is gone.
    return unicodedata.normalize("NFC", re.sub(" {2,}", " ", "".join(words)).strip(" ").lstrip(CLOSING))
