"""The OCR-perceptual loss: the right pixels are read, by the right networks, and gradients come back to them."""

import cv2
import numpy as np
import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st
from test_ppocr_torch import normalise_lines

from vae.batch import to_unit_range
from vae.reading import ReadingLoss, StrokeLoss, _grid, _perspective, _visible, load_reading_loss

LINE = np.array([[8, 20], [104, 20], [104, 36], [8, 36]], np.float32)
"""Around the words of `page`."""


@pytest.fixture(scope="module")
def reading() -> ReadingLoss:
    found = load_reading_loss(lines=2, depth="all")
    assert isinstance(found, ReadingLoss)
    return found


@pytest.fixture(scope="module")
def strokes() -> StrokeLoss:
    found = load_reading_loss(lines=2, depth="early")
    assert isinstance(found, StrokeLoss)
    return found


def page(words: str = "glyph mill") -> np.ndarray:
    image = np.full((64, 112, 3), 230, np.uint8)
    cv2.putText(image, words, (10, 32), cv2.FONT_HERSHEY_SIMPLEX, 0.5, (30, 20, 90), 1, cv2.LINE_AA)
    return image


def images(*pictures: np.ndarray) -> torch.Tensor:
    return to_unit_range(np.stack(pictures))


def test_damage_to_letters_costs_more_than_to_paper(reading: ReadingLoss) -> None:
    plain = page()
    blurred = plain.copy()
    blurred[20:36, 8:104] = cv2.GaussianBlur(plain, (0, 0), 2)[20:36, 8:104]
    spotted = plain.copy()
    spotted[44:60, 8:104] = 255 - plain[44:60, 8:104]
    quads = [LINE[None]] * 3
    terms = reading(images(plain, blurred, spotted), images(plain, plain, plain), quads)
    assert list(terms) == ["read_features", "read_characters", "read_places"]
    for name, (same, blur, spot) in ((name, term.tolist()) for name, term in terms.items()):
        assert same == pytest.approx(0, abs=1e-5), name
        assert blur > (0.01 if name == "read_places" else 0.1), name
        if name != "read_places":
            assert spot == pytest.approx(0, abs=1e-5), name


def test_terms_are_those_of_the_readers_own_view(reading: ReadingLoss) -> None:
    plain, other = page(), page("glad milk")
    terms = reading(images(other), images(plain), [LINE[None]])
    cuts = [torch.from_numpy(p[20:36, 8:104]).permute(2, 0, 1)[None].float() / 255 for p in (other, plain)]
    seen = []
    for cut in cuts:
        strip = F.pad(normalise_lines(cut, 288), (0, 512 - 288))
        features, logits = reading.recogniser.look(strip)[1:]
        seen.append((features[0, :36].numpy(), torch.softmax(logits[0, :36].double(), 1).numpy()))
    (feature_y, chance_y), (feature_x, chance_x) = seen
    unit_y, unit_x = (f / np.linalg.norm(f, axis=1, keepdims=True) for f in (feature_y, feature_x))
    # The cut of the picture sees half a pixel beyond its edge where the cut array repeats its last.
    assert float(terms["read_features"]) == pytest.approx(((unit_y - unit_x) ** 2).sum(1).mean(), rel=0.05)
    divergence = (chance_x * np.log(chance_x / chance_y)).sum(1).mean()
    assert float(terms["read_characters"]) == pytest.approx(divergence, rel=0.1)
    maps = [reading.detector(images(p).flip(1)[:, :, :, :96]).sigmoid()[0, 0].double() for p in (other, plain)]
    y, x = (m.clamp(1e-9, 1 - 1e-9) for m in maps)
    places = reading._places(images(other)[:, :, :, :96], images(plain)[:, :, :, :96])
    expected = (x * (x / y).log() + (1 - x) * ((1 - x) / (1 - y)).log()).mean()
    assert float(places) == pytest.approx(float(expected), rel=1e-2)


def test_gradients_reach_the_pixels_of_the_lines_and_no_others(reading: ReadingLoss) -> None:
    output = images(page("glad milk"), page()).requires_grad_()
    terms = reading(output, images(page(), page()), [LINE[None], np.empty((0, 4, 2), np.float32)])
    (gradient,) = torch.autograd.grad(
        (terms["read_features"] + terms["read_characters"]).sum(), output, retain_graph=True
    )
    assert gradient.isfinite().all()
    reached = gradient.abs().sum(1) > 0
    assert reached[0, 20:36, 8:104].float().mean() > 0.95
    assert not reached[0, :18].any()
    assert not reached[0, 38:].any()
    assert not reached[1].any()  # no line is known there
    assert terms["read_features"][1] == terms["read_characters"][1] == 0
    (gradient,) = torch.autograd.grad(terms["read_places"].sum(), output)
    assert (gradient[0].abs().sum(0) > 0).float().mean() > 0.9
    assert not any(parameter.requires_grad for parameter in reading.parameters())


def test_terms_of_a_picture_do_not_depend_on_its_neighbours(reading: ReadingLoss) -> None:
    tilted = LINE + np.array([[0, 4], [0, 0], [0, 0], [0, 4]], np.float32)
    short = LINE * [0.4, 1] + [4, 0]
    quads = [np.stack([LINE, short]).astype(np.float32), tilted[None]]
    pair = images(page("glad milk"), page("glyph null"))
    together = reading(pair, images(page(), page()), quads)
    for i in range(2):
        alone = reading(pair[i : i + 1], images(page()), quads[i : i + 1])
        for name, term in together.items():
            assert float(term[i]) == pytest.approx(float(alone[name]), rel=1e-4, abs=1e-6)


def test_the_early_look_is_at_the_first_stage_of_the_reader(strokes: StrokeLoss) -> None:
    plain, other = page(), page("glad milk")
    (term,) = strokes(images(other), images(plain), [LINE[None]]).values()
    maps = []
    for picture in (other, plain):
        cut = torch.from_numpy(picture[20:36, 8:104]).permute(2, 0, 1)[None].float() / 255
        strip = F.pad(normalise_lines(cut, 288), (0, 512 - 288))
        found = strokes.recogniser.glance(strip)
        assert found.shape == (1, 96, 12, 128)
        maps.append(found[0, :, :, :72].numpy())
    unit_y, unit_x = (m / np.linalg.norm(m, axis=0) for m in maps)
    assert float(term) == pytest.approx(((unit_y - unit_x) ** 2).sum(0).mean(), rel=0.05)


def test_the_early_look_tells_letters_from_paper_and_reaches_their_pixels(strokes: StrokeLoss) -> None:
    plain = page()
    blurred = plain.copy()
    blurred[20:36, 8:104] = cv2.GaussianBlur(plain, (0, 0), 1)[20:36, 8:104]
    spotted = plain.copy()
    spotted[44:60, 8:104] = 255 - plain[44:60, 8:104]
    output = images(plain, blurred, spotted, blurred).requires_grad_()
    quads = [*[LINE[None]] * 3, np.empty((0, 4, 2), np.float32)]
    term = strokes(output, images(*[plain] * 4), quads)["read_strokes"]
    same, blur, spot, unknown = term.tolist()
    assert max(same, spot, unknown) == pytest.approx(0, abs=1e-6)
    assert blur > 0.05
    (gradient,) = torch.autograd.grad(term.sum(), output)
    reached = gradient.abs().sum(1) > 0
    assert reached[1, 20:36, 8:104].float().mean() > 0.9
    assert not reached[1, :18].any()
    assert not reached[1, 38:].any()
    assert not reached[3].any()
    alone = strokes(output[1:2], images(plain), quads[1:2])["read_strokes"]
    assert alone.item() == pytest.approx(blur, rel=1e-4)


@given(st.lists(st.floats(-0.3, 0.3), min_size=8, max_size=8), st.floats(1, 200))
@settings(max_examples=60, deadline=None)
def test_the_perspective_is_opencvs(moves: list[float], scale: float) -> None:
    square = np.array([[0, 0], [1, 0], [1, 1], [0, 1]], np.float32)
    quad = ((square + np.reshape(moves, (4, 2))) * scale + 5).astype(np.float32)
    expected = cv2.getPerspectiveTransform(square, quad)
    np.testing.assert_allclose(_perspective(quad), expected, rtol=1e-3, atol=1e-3 * scale)


def test_a_strip_is_the_line_at_the_readers_height() -> None:
    picture = images(page())
    strip = F.grid_sample(picture, torch.from_numpy(_grid(LINE, 512, 64, 112))[None], align_corners=False)
    expected = F.interpolate(picture[:, :, 20:36, 8:104], (48, 288), mode="bilinear", align_corners=False)
    torch.testing.assert_close(strip[:, :, 2:-2, 2:286], expected[:, :, 2:-2, 2:286], atol=1e-4, rtol=0)


def moved(across: float, down: float) -> np.ndarray:
    return np.add(LINE, [across, down], dtype=np.float32)[None]


def test_lines_are_cut_where_the_picture_ends() -> None:
    (cut,) = _visible(moved(40, 0), 64, 112)
    assert cut[0].tolist() == [48, 20]
    assert cut[1][0] == pytest.approx(112, abs=96 / 64)
    assert _visible(moved(0, 60), 64, 112) == []
    assert _visible(moved(0, 40), 64, 112) == []  # its foot is outside: half letters are not read
    assert _visible(moved(100, 0), 64, 112) == []  # less than a square of it is left
