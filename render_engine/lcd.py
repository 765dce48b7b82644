"""Sub-pixel anti-aliasing: the red, green and blue stripe of a screen's pixel each have a coverage of their own."""

import numpy as np
import numpy.typing as npt
from numba import njit


@njit(cache=True, nogil=True)
def draw_glyphs_lcd(
    image_HW3: npt.NDArray[np.uint8],
    entries: npt.NDArray[np.int32],
    pixels: npt.NDArray[np.uint8],
    found: npt.NDArray[np.int32],
    pens: npt.NDArray[np.int32],
    line_inks: npt.NDArray[np.uint8],
    line_opacities: npt.NDArray[np.int32],
    linear: bool,
    to_linear: npt.NDArray[np.int64],
    from_linear: npt.NDArray[np.uint8],
    blue_first: bool,
) -> None:
    """As `compose.draw_glyphs`, with bitmaps of three coverages a pixel (FreeType's FT_RENDER_MODE_LCD: the left third
    of the pixel first). blue_first: the screen's left stripe is blue."""
    height = image_HW3.shape[0]
    width = image_HW3.shape[1]
    for g in range(len(found)):
        entry = found[g]
        columns = entries[entry, 1]
        x0 = pens[g, 0] + entries[entry, 3]
        y0 = pens[g, 1] - entries[entry, 4]
        line = pens[g, 2]
        opacity = np.int64(line_opacities[line])
        for row in range(max(0, -y0), min(entries[entry, 2], height - y0)):
            for column in range(max(0, -x0), min(columns, width - x0)):
                base = entries[entry, 0] + (row * columns + column) * 3
                for channel in range(3):
                    coverage = np.int64(pixels[base + (2 - channel if blue_first else channel)])
                    if coverage == 0:
                        continue
                    share = (coverage * opacity * 131072 + 65025) // 130050
                    ink = np.int64(line_inks[line, channel])
                    below = np.int64(image_HW3[y0 + row, x0 + column, channel])
                    if linear:
                        light = to_linear[below]
                        mixed = (light * 65536 + (to_linear[ink] - light) * share + 32768) >> 16
                        image_HW3[y0 + row, x0 + column, channel] = from_linear[mixed]
                    else:
                        image_HW3[y0 + row, x0 + column, channel] = (
                            below * 65536 + (ink - below) * share + 32768
                        ) >> 16
