"""The judge on pages drawn by the renderer and read by the real reader."""

import dataclasses

import cv2
import numpy as np
import pytest

from datagen.judge import JudgeConfig, judge_read, read_lines
from datagen.ocr import open_recognizer
from fonts_manifest.scan import scan_fonts
from render_engine.render import Assets, render
from render_engine.spec import PageSpec, PlainGround, TextBlock

CONFIG = JudgeConfig()
TEXT = "Legible text is read on this page\nand so is the second paragraph of it"


@pytest.fixture(scope="module")
def assets() -> Assets:
    manifest, _ = scan_fonts(["package:matplotlib/mpl-data/fonts/ttf/DejaVuSans.ttf"])
    return Assets(manifest.faces)


@pytest.fixture(scope="module")
def reader():
    return open_recognizer("rapidocr")


def draw(assets: Assets, size_px: float, ink: int = 0):
    block = TextBlock(
        text=TEXT,
        lang="en",
        box_px=(8.0, 8.0, 248.0, 248.0),
        face_ids=tuple(assets.fonts),
        size_px=size_px,
        ink_rgb=(ink, ink, ink),
    )
    ground = PlainGround(rgb=(255, 255, 255))
    return render(PageSpec(width_px=256, height_px=96, family="pure", background=ground, blocks=(block,)), assets)


def test_clean_print_of_12_px_is_read_and_kept_without_drawing_it_again(assets, reader):
    page = draw(assets, 12)
    readings = read_lines(reader, page, assets)
    assert len(readings) == len(page.lines) >= 2
    assert all(reading.read_ned > 0.95 and reading.clean_ned == 1.0 for reading in readings)
    assert judge_read(readings, page, CONFIG).keep


def test_a_blurred_page_is_dropped_as_illegible(assets, reader):
    page = draw(assets, 9)
    blurred = dataclasses.replace(page, image_HW3=cv2.GaussianBlur(page.image_HW3, (0, 0), 4))
    assert judge_read(read_lines(reader, blurred, assets), blurred, CONFIG).reason == "illegible"


def test_an_invisible_page_is_dropped_for_its_contrast(assets, reader):
    page = draw(assets, 12, ink=254)
    readings = read_lines(reader, page, assets)
    assert all(reading.read_ned > 0.9 for reading in readings)  # the reader sees one step of 255; nobody else does
    assert judge_read(readings, page, CONFIG).reason == "low_contrast"


def test_5_px_print_is_measured_against_itself_and_kept(assets, reader):
    page = draw(assets, 5)
    readings = read_lines(reader, page, assets)
    misread = [reading for reading in readings if reading.read_ned < 0.98]
    assert misread, "at 5 px the reader errs; if it does not any more, the clean print need not be read"
    assert all(reading.clean_ned < 1.0 for reading in misread)
    assert np.mean([reading.relative_ned for reading in misread if reading.relative_ned is not None]) > 0.75
    assert judge_read(readings, page, CONFIG).keep
