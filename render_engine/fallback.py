"""Which face of a stack draws a character: the first that really can."""

import unicodedata

from render_engine.face import Face, is_ignorable
from render_engine.spec import RenderError

ANY_FACE = -1
"""Of what is invisible by definition."""


class FirstFace(dict[str, int]):
    """Character -> place of the first face that draws it, ANY_FACE for what is invisible by definition."""

    def __init__(self, faces: tuple[Face, ...]) -> None:
        super().__init__()
        self.faces = faces

    def __missing__(self, character: str) -> int:
        slot = self[character] = self.find(character)
        return slot

    def find(self, character: str) -> int:
        """The same without remembering it."""
        if unicodedata.bidirectional(character) in ("R", "AL"):
            raise RenderError("right_to_left", f"{character!r} belongs to a script that runs from right to left")
        return ANY_FACE if is_ignorable(ord(character)) else self.common(character)

    def common(self, cluster: str) -> int:
        """The first face that draws every visible character of the cluster."""
        codes = [code for code in map(ord, cluster) if not is_ignorable(code)]
        for slot, face in enumerate(self.faces):
            if all(map(face.draws, codes)):
                return slot
        listed = " ".join(f"U+{code:04X}" for code in codes)
        raise RenderError("missing_glyph", f"{listed} is drawn by none of {[face.font.family for face in self.faces]}")
