"""Names of colours against those that people gave: matplotlib's copy of the survey, compared in CIEDE2000."""

import itertools
import re

import matplotlib.colors
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from skimage.color import deltaE_ciede2000, rgb2lab

from render_engine.colours import EXAMPLES, _examples, _oklab, colour_name, colour_names

_SAID = """
black white red green grey yellow blue brown orange pink purple beige olive turquoise
teal:turquoise cyan:turquoise aqua:turquoise violet:purple lavender:purple lilac:purple navy:blue maroon:red
tan:beige,brown magenta:pink,purple mauve:purple,pink rose:pink,red salmon:pink,red,orange peach:orange,beige,pink
mustard:yellow,olive khaki:olive,beige cream:white,yellow,beige gold:yellow,orange crimson:red burgundy:red plum:purple
lime:green,yellow mint:green,turquoise slate:grey,blue sky:blue charcoal:grey,black taupe:brown,grey,beige
rust:brown,red,orange ivory:white,yellow seafoam:green,turquoise sand:beige indigo:purple,blue fuchsia:pink,purple
"""
SAID = {word: (ours or word).split(",") for word, _, ours in (entry.partition(":") for entry in _SAID.split())}
"""Word of a name in the survey -> what we would call it."""
ALSO = {"black": {"black", "grey"}, "off-white": {"white", "grey"}, "olive": {"olive", "green", "brown", "yellow"}}
"""Last word of our name -> what people may say."""


def survey() -> tuple[np.ndarray, list[set[str]]]:
    colours, words = [(0.0, 0.0, 0.0), (1.0, 1.0, 1.0)], [{"black"}, {"white"}]
    for name, code in matplotlib.colors.XKCD_COLORS.items():
        parts = re.split("[ /:]", name)
        if said := {one for part in parts for one in SAID.get(part, ())}:
            colours.append(matplotlib.colors.to_rgb(code))
            words.append(said)
    return rgb2lab(np.array(colours)[None])[0], words


LABS, WORDS = survey()


def said_near(rgb: tuple[int, int, int], count: int) -> set[str]:
    lab = rgb2lab(np.array(rgb)[None, None] / 255)[0]
    distances = deltaE_ciede2000(LABS, np.broadcast_to(lab, LABS.shape))
    return set().union(*(WORDS[at] for at in np.argpartition(distances, count)[:count]))


def agrees(rgb: tuple[int, int, int], count: int) -> bool:
    name = colour_name(rgb)
    return bool(ALSO.get(name.split()[-1], {name.split()[-1]}) & said_near(rgb, count))


def test_every_colour_has_a_name_that_people_give_to_colours_beside_it():
    grid = list(itertools.product((0, 28, 57, 85, 113, 142, 170, 198, 227, 255), repeat=3))
    wrong = [(rgb, colour_name(rgb), sorted(said_near(rgb, 8))) for rgb in grid if not agrees(rgb, 8)]
    assert len(wrong) <= 0.01 * len(grid), wrong


@given(st.tuples(*[st.integers(0, 255)] * 3))
def test_no_name_is_far_from_what_people_say(rgb):
    assert agrees(rgb, 30), (rgb, colour_name(rgb), said_near(rgb, 30))


@pytest.mark.parametrize(
    ("rgb", "name"),
    [
        ((0, 0, 0), "black"),
        ((30, 30, 30), "nearly black"),
        ((128, 128, 128), "grey"),
        ((255, 255, 255), "white"),
        ((245, 244, 240), "off-white"),
        ((101, 67, 33), "brown"),
        ((255, 192, 203), "pale pink"),
        ((0, 0, 128), "dark blue"),
        ((110, 60, 150), "purple"),
        ((200, 180, 140), "beige"),
        ((255, 165, 0), "orange"),
        ((0, 128, 128), "turquoise"),
    ],
)
def test_colours_that_nobody_disputes(rgb, name):
    assert colour_name(rgb) == name


def test_examples_are_called_what_they_are_examples_of():
    codes = [code for codes in EXAMPLES.values() for code in codes.split()]
    assert len(codes) == len(set(codes))
    for name, own in EXAMPLES.items():
        assert {colour_name(tuple(bytes.fromhex(code))) for code in own.split()} == {name}


def test_many_colours_at_once_are_named_as_one_by_one() -> None:
    rgbs = [tuple(rgb) for rgb in np.random.default_rng(0).integers(0, 256, (300, 3)).tolist()]
    names, examples_N3 = _examples()
    expected = [names[int(((examples_N3 - _oklab(np.array(rgb))) ** 2).sum(axis=1).argmin())] for rgb in rgbs]
    assert colour_names([*rgbs, *rgbs]) == [*expected, *expected]
    assert [colour_name(rgb) for rgb in rgbs] == expected
