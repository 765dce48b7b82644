"""PP-OCR in torch against onnxruntime: the same networks from rapidocr's wheel, on lines and pages drawn here."""

from copy import deepcopy

import matplotlib
import numpy as np
import onnx
import onnxruntime
import pytest
import torch
import torch.nn.functional as F
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image, ImageDraw, ImageFont

from datagen.ocr import open_recognizer
from datagen.ppocr import LINE_HEIGHT_PX, characters, decode_ctc, model_path
from datagen.ppocr_torch import (
    OPERATORS,
    Detector,
    Recogniser,
    load_detector,
    load_recogniser,
    normalise,
    read_logits,
)

DEJAVU = f"{matplotlib.get_data_path()}/fonts/ttf/DejaVuSans.ttf"
LINES = ("Every word of this", "small page is read", "by 2 machines: alike")


def draw_page(lines: tuple[str, ...] = LINES, size_px: float = 14, size: tuple[int, int] = (192, 96)) -> torch.Tensor:
    """RGB in [0, 1], (1, 3, H, W)."""
    image = Image.new("RGB", size, (250, 240, 225))
    pen = ImageDraw.Draw(image)
    for number, line in enumerate(lines):
        pen.text((8, 6 + 28 * number), line, (20, 30, 90), font=ImageFont.truetype(DEJAVU, size_px))
    return torch.from_numpy(np.array(image)).permute(2, 0, 1)[None].float() / 255


def onnx_logits(model: onnx.ModelProto, images: torch.Tensor) -> np.ndarray:
    """What onnxruntime computes before the last operator of the graph."""
    name = model.graph.node[-1].input[0]
    if name not in {output.name for output in model.graph.output}:
        model.graph.output.append(onnx.ValueInfoProto(name=name))
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    session = onnxruntime.InferenceSession(model.SerializeToString(), options, providers=["CPUExecutionProvider"])
    return session.run([name], {session.get_inputs()[0].name: images.numpy()})[0]


@pytest.fixture(scope="module")
def recogniser() -> Recogniser:
    return load_recogniser()


@pytest.fixture(scope="module")
def detector() -> Detector:
    return load_detector()


def normalise_lines(line_B3HW: torch.Tensor, width_px: int | None = None) -> torch.Tensor:
    """Lines of one size, RGB in [0, 1] -> (B, 3, 48, width_px) for the recogniser, linear as OpenCV resizes.

    width_px: the line's own aspect unless given.
    """
    height, width = line_B3HW.shape[2:]
    size = (LINE_HEIGHT_PX, width_px or max(1, -(-LINE_HEIGHT_PX * width // height)))
    return normalise(F.interpolate(line_B3HW, size, mode="bilinear", align_corners=False))


@pytest.fixture(scope="module")
def lines() -> torch.Tensor:
    page = draw_page()
    return normalise_lines(torch.cat([page[:, :, top : top + 28] for top in (2, 30, 58)]))


def test_the_recogniser_equals_onnxruntime_in_logits_and_texts(recogniser, lines):
    expected_BTK = onnx_logits(onnx.load(str(model_path("recogniser"))), lines)
    with torch.inference_mode():
        logits_BTK = recogniser(lines)
    np.testing.assert_allclose(logits_BTK.numpy(), expected_BTK, rtol=0, atol=1e-4)
    texts = [text for text, _ in read_logits(logits_BTK)]
    assert texts == [text for text, _ in read_logits(torch.from_numpy(expected_BTK))] == list(LINES)


@pytest.mark.parametrize("width_px", [8, 47, 321])
def test_the_recogniser_equals_onnxruntime_at_odd_widths(recogniser, width_px):
    noise = torch.rand(2, 3, 48, width_px, generator=torch.Generator().manual_seed(1)) * 2 - 1
    expected_BTK = onnx_logits(onnx.load(str(model_path("recogniser"))), noise)
    with torch.inference_mode():
        np.testing.assert_allclose(recogniser(noise).numpy(), expected_BTK, rtol=0, atol=1e-4)


def test_on_hard_lines_torch_is_as_near_to_exact_arithmetic_as_onnxruntime(recogniser):
    # Both add in float32, in orders of their own: on photographs of print, logits of +-33 differ by up to 2e-4 between
    # them, and each by up to 1.6e-4 from the same network in float64. What is read from them differs by 4e-5.
    page = draw_page(("Hard to read, this line", "上海 hardly legible, 2026"), 11)
    noise = torch.randn(page.shape, generator=torch.Generator().manual_seed(5)) * 0.15
    lines = normalise_lines(torch.cat([(page + noise).clamp(0, 1)[:, :, top : top + 28] for top in (2, 30)]))
    ours_BTK, theirs_BTK = recogniser(lines), onnx_logits(onnx.load(str(model_path("recogniser"))), lines)
    theirs_BTK = torch.from_numpy(theirs_BTK)
    exact_BTK = deepcopy(recogniser).double()(lines.double())
    ours, theirs = (float((logits.double() - exact_BTK).abs().max()) for logits in (ours_BTK, theirs_BTK))
    assert theirs < 2e-4  # the oracle itself
    assert ours < max(1e-4, 1.5 * theirs)
    torch.testing.assert_close(ours_BTK.softmax(2), theirs_BTK.softmax(2), rtol=0, atol=1e-4)
    assert [text for text, _ in read_logits(ours_BTK)] == [text for text, _ in read_logits(theirs_BTK)]


def test_the_detector_equals_onnxruntime_on_a_batch(detector):
    pages = normalise(torch.cat([draw_page(), draw_page(("one line",), 20), draw_page((), 20)]))
    expected_B1HW = onnx_logits(onnx.load(str(model_path("detector"))), pages)
    with torch.inference_mode():
        logits_B1HW = detector(pages)
    np.testing.assert_allclose(logits_B1HW.numpy(), expected_B1HW, rtol=0, atol=1e-4)
    found_B = (logits_B1HW > 0).flatten(1).sum(1)
    assert found_B[0] > found_B[1] > found_B[2] == 0


def test_a_page_whose_sides_the_detector_cannot_take_is_named(detector):
    with pytest.raises(ValueError, match=r"multiples of 32, got \(96, 200\)"):
        detector(torch.zeros(1, 3, 96, 200))


def test_a_batch_equals_its_lines_one_by_one(recogniser, lines):
    with torch.inference_mode():
        together = recogniser(lines)
        alone = torch.cat([recogniser(line[None]) for line in lines])
    torch.testing.assert_close(together, alone, rtol=0, atol=1e-4)


def test_inner_layers_come_from_the_same_pass(recogniser, lines):
    with torch.inference_mode():
        maps_BChw, features_BTC, logits_BTK = recogniser.look(lines)
        torch.testing.assert_close(recogniser.encode(lines), features_BTC)
        torch.testing.assert_close(recogniser(lines), logits_BTK)
    steps = logits_BTK.shape[1]
    assert maps_BChw.shape == (3, 384, 3, lines.shape[3] // 4 + lines.shape[3] % 4 // 2)
    assert features_BTC.shape == (3, steps, 120)
    assert logits_BTK.shape == (3, steps, len(characters()))


def test_gradients_reach_the_pixels_and_are_right(recogniser, detector):
    # Against a finite difference in float64, along one direction of the picture.
    generator = torch.Generator().manual_seed(3)
    page = draw_page(("word",), size=(64, 32)).double()
    page += 0.01 * torch.randn(page.shape, generator=generator, dtype=torch.float64)  # flat paper ties every max pool
    for network, prepare in ((recogniser, normalise_lines), (detector, normalise)):
        network = deepcopy(network).double()
        pixels = page.clone().requires_grad_()
        value = network(prepare(pixels)).square().mean()
        (gradient,) = torch.autograd.grad(value, pixels)
        direction = torch.randn(page.shape, generator=generator, dtype=torch.float64)
        step = 1e-8
        with torch.inference_mode():
            ahead, behind = (network(prepare(page + sign * step * direction)).square().mean() for sign in (1, -1))
        assert (gradient * direction).sum().item() == pytest.approx((ahead - behind).item() / (2 * step), rel=1e-4)
        assert (gradient != 0).float().mean() > 0.9


def test_the_networks_learn_nothing(recogniser, detector):
    for network, count in ((recogniser, 5_267_683), (detector, 2_453_416)):
        parameters = list(network.parameters())
        assert sum(parameter.numel() for parameter in parameters) == count
        assert not any(parameter.requires_grad for parameter in parameters)


def test_texts_equal_those_of_the_reader_on_onnxruntime(recogniser):
    reader = open_recognizer("rapidocr")
    page_HW3 = (draw_page()[0].permute(1, 2, 0).numpy() * 255).round().astype(np.uint8)
    quads = [(0, top, 192, top, 192, top + 28, 0, top + 28) for top in (2, 30, 58)]
    lines = torch.cat([draw_page()[:, :, top : top + 28] for top in (2, 30, 58)])
    with torch.inference_mode():
        readings = read_logits(recogniser(normalise_lines(lines, width_px=288)))
    for (text, score), other in zip(readings, reader.read_lines(page_HW3, quads), strict=True):
        assert text == other.text
        assert score == pytest.approx(other.score, abs=5e-3)  # cv2 resizes bytes, torch floats


def test_greedy_decoding_counts_repeats_once_and_lets_the_blank_separate_them():
    names = ("", "a", "b")
    best_T = np.array([0, 1, 1, 0, 1, 2, 2, 0])
    probability_T = np.array([0.9, 0.8, 0.1, 0.9, 0.6, 0.4, 0.1, 0.9])
    assert decode_ctc(best_T, probability_T, names) == ("aab", pytest.approx(0.6))
    assert decode_ctc(np.zeros(3, int), np.ones(3), names) == ("", 0.0)


def onnx_operator(kind: str, inputs: list[np.ndarray], attributes: dict) -> np.ndarray:
    names = [f"x{number}" for number in range(len(inputs))]
    values = [
        onnx.helper.make_tensor_value_info(name, onnx.TensorProto.FLOAT, array.shape)
        for name, array in zip(names, inputs, strict=True)
    ]
    output = onnx.helper.make_tensor_value_info("y", onnx.TensorProto.FLOAT, None)
    graph = onnx.helper.make_graph([onnx.helper.make_node(kind, names, ["y"], **attributes)], "one", values, [output])
    model = onnx.helper.make_model(graph, opset_imports=[onnx.helper.make_opsetid("", 11)], ir_version=8)
    session = onnxruntime.InferenceSession(model.SerializeToString(), providers=["CPUExecutionProvider"])
    return session.run(None, dict(zip(names, inputs, strict=True)))[0]


@given(
    height=st.integers(3, 9),
    width=st.integers(3, 9),
    kernel=st.tuples(st.integers(1, 3), st.integers(1, 3)),
    stride=st.integers(1, 3),
    pooled=st.booleans(),
)
def test_same_upper_pads_as_onnxruntime_pads(height, width, kernel, stride, pooled):
    strides = [min(stride, side) for side in kernel]  # onnxruntime refuses longer ones
    rng = np.random.default_rng(height * 10 + width)
    image = -rng.uniform(1, 2, (2, 3, height, width)).astype(np.float32)  # a pool padded with 0 would show
    attributes = {"kernel_shape": list(kernel), "strides": strides, "auto_pad": "SAME_UPPER"}
    inputs = [image]
    if not pooled:
        inputs.append(rng.normal(size=(4, 3, *kernel)).astype(np.float32))
        attributes |= {"dilations": [1, 1], "group": 1}
    kind = "MaxPool" if pooled else "Conv"
    ours = OPERATORS[kind]([torch.from_numpy(x) for x in inputs], attributes | {"auto_pad": b"SAME_UPPER"})
    np.testing.assert_allclose(ours.numpy(), onnx_operator(kind, inputs, attributes), rtol=1e-5, atol=1e-5)
