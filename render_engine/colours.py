"""Plain names of colours, as people would say them: the nearest of some hundred examples in a perceptual space."""

import functools
from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from render_engine.spec import RGB

EXAMPLES = {
    "black": "000000",
    "nearly black": "141414 1f1f1f 2c2c2c 1d2026 231d1b 0a1416 15150a",
    "dark grey": "3d3d3d 555555 474c55 56524a 4d4346",
    "grey": "80a0b0 777777 929591 7d8594 8c8578 6e7e86 6a706a 76877a",
    "light grey": "b5b5b5 d8dcd6 bfc4cc cbc7ba b2c0c0 b4bfa8",
    "off-white": "f3f3f0 e0f0e0",
    "white": "ffffff",
    "red": "e50000 ff000d c44240 9e2c38 a8565c",
    "dark red": "840000 650021 3d0008",
    "pink": "ff81c0 ff028d d5869d c9446e cb416b",
    "pale pink": "ffd1df ffb7ce fee6fb e0b0b8",
    "orange": "f97306 ff964f c65102",
    "pale orange": "ffb07c fdc691",
    "brown": "653700 964b00 8a6240 a0522d 764b38 7a5046 60511f",
    "pale brown": "ad8150",
    "dark brown": "341c02 3c2f20 56383a",
    "beige": "e6daa6 d1b26f c8ac80",
    "yellow": "ffff14 ffd20a d5b60a c7b446",
    "pale yellow": "ffff84 fffcc4",
    "olive": "6e750e 8f8a3c a3ab4b c3c271 9bb41d b0c050 60602f",
    "dark olive": "373e02 25290d 50502e 30301f",
    "green": "15b01a 39ad48 5a9a55 02c14d 7bd44a 127d58 7eb68c 50805f 506040 60705a 40604f",
    "pale green": "e0ffe0 96f97b c7fdb5 a9d6a0 bcdcca",
    "dark green": "033500 0b4008 1f3d2a 255c2e 011f02",
    "blue": "0343df 0000ff 2976bb 4a6fae 5b7fc4 40a8e8 1f6288 62a4cf 51598a 0d6888 60bff0 4080a0 407080 a0b0ff 404078 "
    "88b0d0",
    "pale blue": "95d0fc c5dcf5 a2bfe0 b8e8f8 a0d0e0 b4d2dc c8e0e8 d0f0ff d0ffff d0f0f0 b0e0e0",
    "dark blue": "000020 00035b 061a44 03396b 1f3a5f 232036 003040 105070",
    "turquoise": "06c2ac 00ffff 13bbd0 4fa8a0 029386 477d7c 80b0b0",
    "dark turquoise": "045c5a 00393b",
    "pale turquoise": "a5fbd5 b8ece8 a7cac4 cef3ee 80e0e0 a4e0e0",
    "purple": "7e1e9c 9a0eea 7d5a94 6241c7 c20cc8 a442a0 5d4577 9974c1 94607a 673e5f",
    "pale purple": "c79fef b790d4 dcc8ee c5b5d2 c8a8d8",
    "dark purple": "35063e 100018 3b1a55 4b2e4f 580e45 302030 30081f 402030",
}
"""Name -> sRGB colours that are called so, from those that people named in a survey of 200,000 (xkcd, 2010)."""

# Ottosson, "A perceptual color space for image processing" (2020)
_TO_CONES = np.array(
    [
        [0.4122214708, 0.5363325363, 0.0514459929],
        [0.2119034982, 0.6806995451, 0.1073969566],
        [0.0883024619, 0.2817188376, 0.6299787005],
    ]
)
_TO_LAB = np.array(
    [
        [0.2104542553, 0.7936177850, -0.0040720468],
        [1.9779984951, -2.4285922050, 0.4505937099],
        [0.0259040371, 0.7827717662, -0.8086757660],
    ]
)


_KNOWN: dict[RGB, str] = {}
_MOST_KNOWN = 1 << 16


def colour_name(rgb: RGB) -> str:
    """The name of an 8-bit sRGB colour: that of the nearest example in Oklab."""
    return colour_names((rgb,))[0]


def colour_names(rgbs: Sequence[RGB]) -> list[str]:
    """The same for many: 15 us when one is new, 1 for each of 40 that are."""
    new = [rgb for rgb in dict.fromkeys(rgbs) if rgb not in _KNOWN]
    if new:
        if len(_KNOWN) + len(new) > _MOST_KNOWN:
            _KNOWN.clear()
            new = list(dict.fromkeys(rgbs))
        names, examples_N3 = _examples()
        # |a - b|^2 = |a|^2 - 2ab + |b|^2, of which the first is the same for every example
        distances_nN = (examples_N3**2).sum(axis=1) - 2 * (_oklab(np.array(new)) @ examples_N3.T)
        _KNOWN.update(zip(new, (names[at] for at in distances_nN.argmin(axis=1).tolist()), strict=True))
    return [_KNOWN[rgb] for rgb in rgbs]


@functools.cache
def _examples() -> tuple[list[str], npt.NDArray[np.float64]]:
    pairs = [(name, bytes.fromhex(code)) for name, codes in EXAMPLES.items() for code in codes.split()]
    return [name for name, _ in pairs], _oklab(np.array([list(code) for _, code in pairs]))


def _oklab(rgb_n3: npt.NDArray[np.int_]) -> npt.NDArray[np.float64]:
    """Lightness, green to red, blue to yellow, of 8-bit sRGB."""
    value = rgb_n3 / 255
    light = np.where(value <= 0.04045, value / 12.92, ((value + 0.055) / 1.055) ** 2.4)
    lab_n3: npt.NDArray[np.float64] = np.cbrt(light @ _TO_CONES.T) @ _TO_LAB.T
    return lab_n3
