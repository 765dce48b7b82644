"""Reading with the real reader: PP-OCRv6 from rapidocr's wheel, on lines drawn with fonts from matplotlib's."""

import cv2
import matplotlib
import numpy as np
import pytest
from PIL import Image, ImageDraw, ImageFont

from datagen import lines
from datagen.ocr import cut_line, ned, open_recognizer
from fonts_manifest.errors import BadInput

DEJAVU = f"{matplotlib.get_data_path()}/fonts/ttf/DejaVuSans.ttf"
TEXT = "Every word of this small page can be read by a patient eye and by a machine that was taught to read print"
WORDS = TEXT.split()


def draw_lines(lines: list[str], size_px: float, pitch_px: int, size: tuple[int, int]) -> np.ndarray:
    image = Image.new("RGB", size, "white")
    pen = ImageDraw.Draw(image)
    font = ImageFont.truetype(DEJAVU, size_px)
    for number, line in enumerate(lines):
        pen.text((10, 10 + number * pitch_px), line, "black", font=font)
    return np.array(image)


@pytest.fixture(scope="module")
def reader():
    return open_recognizer("rapidocr")


def test_known_lines_are_read_in_the_order_of_their_quads(reader):
    image = draw_lines(["Hello world 42", "second line"], 16, 30, (200, 80))
    quads = [(8, 36, 190, 36, 190, 64, 8, 64), (8, 6, 190, 6, 190, 34, 8, 34)]
    second, first = reader.read_lines(image, quads)
    assert (first.text, second.text) == ("Hello world 42", "second line")
    assert min(first.score, second.score) > 0.9


def test_a_turned_line_is_read_through_its_quad(reader):
    upright = draw_lines(["turned by twenty degrees"], 18, 30, (260, 44))
    matrix = cv2.getRotationMatrix2D((130, 22), 20, 1.0)
    matrix[:, 2] += (20, 80)
    turned = cv2.warpAffine(upright, matrix, (300, 220), flags=cv2.INTER_CUBIC, borderValue=(255, 255, 255))
    corners = np.array([[5, 5, 1], [255, 5, 1], [255, 38, 1], [5, 38, 1]]) @ matrix.T
    (reading,) = reader.read_lines(turned, [corners.ravel().tolist()])
    assert ned("turned by twenty degrees", reading.text) > 0.95


def test_quads_outside_the_picture_read_as_nothing(reader):
    image = draw_lines(["word"], 16, 30, (80, 40))
    outside = [
        (100, 0, 140, 0, 140, 20, 100, 20),
        (10, 10, 10, 10, 10, 10, 10, 10),
        (-50, -9, -40, -8, -40, 0, -50, -1),
    ]
    assert [(r.text, r.score) for r in reader.read_lines(image, outside)] == [("", 0.0)] * 3


def test_reading_twice_gives_the_same_to_the_last_bit(reader):
    image = draw_lines(["same again 7"], 9, 20, (100, 30))
    quad = (8, 8, 90, 8, 90, 24, 8, 24)
    assert reader.read_lines(image, [quad]) == reader.read_lines(image, [quad])


def test_small_lines_keep_their_order_where_the_library_shuffles_them(reader):
    # 7 px text, lines 9 px apart, each starting left of the one above: rapidocr sorts rows of 10 px by x, from below.
    rows = [" ".join(WORDS[start : start + 4]) for start in range(0, 16, 4)]
    image = np.full((260, 260, 3), 255, np.uint8)  # rapidocr enlarges the short side to 736 px
    for number, row in enumerate(rows):
        line = draw_lines([row], 7, 9, (190, 20))[8:20]
        top, left = 6 + 9 * number, 60 - 18 * number
        image[top : top + 12, left : left + 190] = np.minimum(image[top : top + 12, left : left + 190], line)
    mended = "".join(line.text for line in reader.read_page(image))
    library = "".join(line.text for line in reader.read_page(image, order="library"))
    assert ned("".join(rows), mended) > 0.9
    assert ned("".join(rows), library) < 0.6


def test_pages_read_as_rapidocr_reads_them(reader):
    from rapidocr import RapidOCR

    image = draw_lines([" ".join(WORDS[i : i + 5]) for i in range(0, 15, 5)], 14, 26, (330, 330))
    library = RapidOCR(params={"Global.log_level": "critical", "Global.text_score": 0.0, "Global.use_cls": False})(
        np.ascontiguousarray(image[:, :, ::-1])
    )
    ours = reader.read_page(image, order="library")
    assert [line.text for line in ours] == list(library.txts)
    np.testing.assert_array_equal([line.quad_px for line in ours], library.boxes.reshape(-1, 8))


def test_detection_finds_the_lines_at_native_resolution(reader):
    image = draw_lines([" ".join(WORDS[:4]), " ".join(WORDS[4:8])], 12, 40, (256, 128))
    first, second = reader.detect(image)
    assert first[1] < 10 + 12 < first[5]
    assert second[1] < 50 + 12 < second[5]
    assert reader.detect(np.full((96, 96, 3), 127, np.uint8)) == []


def test_huge_pictures_are_refused_and_wrong_arrays_named(reader, monkeypatch):
    monkeypatch.setattr(lines, "MAX_PIXELS", 1000)
    with pytest.raises(BadInput, match="40 x 26 px is too large"):
        reader.detect(np.zeros((26, 40, 3), np.uint8))
    with pytest.raises(ValueError, match="float64"):
        reader.read_lines(np.zeros((4, 4, 3)), [])


def test_an_unknown_reader_is_bad_input():
    with pytest.raises(BadInput, match="tessaract"):
        open_recognizer("tessaract")


def test_a_straight_quad_is_cut_at_whole_pixels_around_it():
    image = np.arange(20 * 30 * 3, dtype=np.uint8).reshape(20, 30, 3)
    line = cut_line(image, (2.4, 3.6, 12.2, 3.6, 12.2, 7.5, 2.4, 7.5))
    np.testing.assert_array_equal(line, image[3:8, 2:13])


def test_an_upright_line_is_laid_down():
    image = np.zeros((40, 20, 3), np.uint8)
    image[:20] = 255
    line = cut_line(image, (5, 0, 15, 0, 15, 40, 5, 40))
    assert line.shape == (10, 40, 3)
    assert line[:, 0].max() == 255  # turned counter-clockwise: the top becomes the start
