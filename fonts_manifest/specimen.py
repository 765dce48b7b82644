"""A specimen of one face, for the eye."""

from PIL import Image, ImageDraw, ImageFont

from fonts_manifest.manifest import FontFace, embedding

LATIN = "The quick brown fox jumps over the lazy dog. 0123456789 (&?!) AVATAR office"
HAN = "天地玄黄，宇宙洪荒。日月盈昃，辰宿列张。寒来暑往，秋收冬藏。"
SIZES_PX = (8, 10, 12, 16, 24, 32)
MARGIN_PX = 16


def draw_specimen(face: FontFace) -> Image.Image:
    """The name of the face, its licence and sample lines at `SIZES_PX`, black on white, as wide as the longest line."""
    about = f"weight {face.weight}, licence {face.licence}, embedding {embedding(face.fs_type)}"
    lines = [(f"{face.family} {face.style}", 32), (about, 12)]
    for size_px in SIZES_PX:
        lines.append((LATIN, size_px))
        if "han" in face.scripts:
            lines.append((HAN, size_px))
    fonts = {size_px: ImageFont.truetype(face.path, size_px, index=face.face_index) for size_px in {32, *SIZES_PX}}
    width = max(int(fonts[size_px].getlength(text)) for text, size_px in lines) + 2 * MARGIN_PX
    height = sum(round(1.6 * size_px) for _, size_px in lines) + 2 * MARGIN_PX
    picture = Image.new("RGB", (width, height), "white")
    draw = ImageDraw.Draw(picture)
    y = MARGIN_PX
    for text, size_px in lines:
        draw.text((MARGIN_PX, y), text, fill="black", font=fonts[size_px])
        y += round(1.6 * size_px)
    return picture
