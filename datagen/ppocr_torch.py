"""PP-OCR's detector and recogniser as torch modules: frozen, batched, on any device, gradients reach the pixels.

The networks are read from the ONNX files in rapidocr's wheel and run operator by operator, so what they compute equals
onnxruntime: logits to 1e-4 on print, to 2e-4 on photographs of it, where either is as far from float64 (see the tests).
The one file of this package that imports torch and onnx's graphs.

Legend: B pictures or lines, H W pixels, h w cells of the backbone, T steps along a line, C channels, K classes.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from torch import nn

from datagen.ppocr import characters, decode_ctc, model_path

Tensor = torch.Tensor
Attributes = dict[str, Any]


class Recogniser(nn.Module):
    """PP-OCRv6 small's recogniser, 5.3 M frozen parameters. Lines in, 48 px high, as `normalise` makes them.

    Called, it gives logits (B, T, K) before the softmax, T = W / 8 rounded, K as in `ppocr.characters()`.
    """

    def __init__(self, path: Path) -> None:
        super().__init__()
        graph = _read_graph(path)
        pooled = next(step for step in graph.steps if step.operator == "AveragePool")
        classified = [step for step in graph.steps if step.operator == "MatMul"][-1]
        lowered = next(s for s in graph.steps if s.operator == "Conv" and list(s.attributes["strides"]) == [2, 1])
        self._first_stage = lowered.inputs[0]
        self._maps, self._encoded, self._logits = pooled.inputs[0], classified.inputs[0], graph.steps[-1].inputs[0]
        self.network = Network(graph)

    def forward(self, lines_B3HW: Tensor) -> Tensor:
        """Logits (B, T, K)."""
        return self.network(lines_B3HW, self._logits)[0]

    def encode(self, lines_B3HW: Tensor) -> Tensor:
        """Features (B, T, 120) that the classes are told from: what the reader knows of every step of a line."""
        return self.network(lines_B3HW, self._encoded)[0]

    def glance(self, lines_B3HW: Tensor) -> Tensor:
        """Maps (B, 96, 12, W / 4) of the backbone's first stage: edges and strokes, for a quarter of the whole cost."""
        return self.network(lines_B3HW, self._first_stage)[0]

    def look(self, lines_B3HW: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Of one pass: the backbone's maps (B, C, 3, w), the features (B, T, 120) and the logits (B, T, K)."""
        maps_BChw, features_BTC, logits_BTK = self.network(lines_B3HW, self._maps, self._encoded, self._logits)
        return maps_BChw, features_BTC, logits_BTK


class Detector(nn.Module):
    """PP-OCRv6 small's detector (DB), 2.5 M frozen parameters. Pictures in, as `normalise` makes them.

    Called on (B, 3, H, W), H and W multiples of 32, it gives logits (B, 1, H, W); their sigmoid is the probability that
    a pixel belongs to the shrunk core of a line.
    """

    def __init__(self, path: Path) -> None:
        super().__init__()
        graph = _read_graph(path)
        self._logits = graph.steps[-1].inputs[0]
        self.network = Network(graph)

    def forward(self, image_B3HW: Tensor) -> Tensor:
        """Logits (B, 1, H, W). Raises ValueError for sides that are no multiple of 32."""
        if image_B3HW.shape[2] % 32 or image_B3HW.shape[3] % 32:
            raise ValueError(f"the detector's sides must be multiples of 32, got {tuple(image_B3HW.shape[2:])}")
        return self.network(image_B3HW, self._logits)[0]


def load_recogniser() -> Recogniser:
    """The recogniser of rapidocr's wheel, on the CPU, in evaluation mode. Raises BadInput when the wheel lacks it."""
    return Recogniser(model_path("recogniser")).eval()


def load_detector() -> Detector:
    """The detector of rapidocr's wheel, on the CPU, in evaluation mode. Raises BadInput when the wheel lacks it."""
    return Detector(model_path("detector")).eval()


def normalise(image_B3HW: Tensor) -> Tensor:
    """RGB in [0, 1] -> what both networks take: BGR in [-1, 1], as PP-OCR was trained."""
    return image_B3HW.flip(1) * 2 - 1


def read_logits(logits_BTK: Tensor) -> list[tuple[str, float]]:
    """Greedy CTC of every line: its text, and the mean probability of its characters (0 for "")."""
    names = characters()
    probability_BT, best_BT = logits_BTK.detach().float().softmax(2).max(2)
    pairs = zip(best_BT.cpu().numpy(), probability_BT.cpu().numpy(), strict=True)
    return [decode_ctc(best_T, probability_T, names) for best_T, probability_T in pairs]


# ---- an ONNX graph, run by torch ----


@dataclass(frozen=True, slots=True, kw_only=True)
class _Step:
    operator: str
    inputs: tuple[str, ...]
    output: str
    attributes: Attributes


@dataclass(frozen=True, slots=True, kw_only=True)
class _Graph:
    source: str
    steps: tuple[_Step, ...]
    weights: dict[str, Tensor]
    integers: dict[str, Tensor]
    """Axes, sizes and indices: they stay on the CPU."""


class Network(nn.Module):
    """The steps of an ONNX graph with one input; its float constants are parameters without gradient."""

    def __init__(self, graph: _Graph) -> None:
        super().__init__()
        missing = sorted({step.operator for step in graph.steps} - OPERATORS.keys())
        if missing:
            raise ValueError(f"the graph uses operators that are not written here: {', '.join(missing)}")
        self._source = graph.source
        self._steps = graph.steps
        self._integers = graph.integers
        self._names = tuple(graph.weights)
        self.weights = nn.ParameterList([nn.Parameter(w, requires_grad=False) for w in graph.weights.values()])

    def forward(self, source: Tensor, *wanted: str) -> tuple[Tensor, ...]:
        """The values called `wanted`; steps after the last of them are not run, values not needed again are dropped."""
        steps = self._steps_until(wanted)
        last_use = {name: number for number, step in enumerate(steps) for name in step.inputs}
        values = dict(zip(self._names, self.weights, strict=True)) | self._integers | {self._source: source}
        for number, step in enumerate(steps):
            inputs = [values[name] for name in step.inputs]
            values[step.output] = OPERATORS[step.operator](inputs, step.attributes)
            for name in set(step.inputs) - set(wanted):
                if last_use[name] == number:
                    del values[name]
        return tuple(values[name] for name in wanted)

    def _steps_until(self, wanted: Sequence[str]) -> tuple[_Step, ...]:
        end = max(number for number, step in enumerate(self._steps) if step.output in wanted)
        return self._steps[: end + 1]


def _read_graph(path: Path) -> _Graph:
    """The graph of an ONNX file without its identities (a third of PP-OCR's nodes)."""
    import onnx
    from onnx import numpy_helper

    graph = onnx.load(str(path)).graph
    same: dict[str, str] = {}
    steps = []
    for node in graph.node:
        inputs = tuple(same.get(name, name) for name in node.input)
        if node.op_type == "Identity":
            same[node.output[0]] = inputs[0]
            continue
        attributes = {entry.name: onnx.helper.get_attribute_value(entry) for entry in node.attribute}
        steps.append(_Step(operator=node.op_type, inputs=inputs, output=node.output[0], attributes=attributes))
    constants = {entry.name: torch.from_numpy(numpy_helper.to_array(entry).copy()) for entry in graph.initializer}
    return _Graph(
        source=graph.input[0].name,
        steps=tuple(steps),
        weights={name: value for name, value in constants.items() if value.is_floating_point()},
        integers={name: value for name, value in constants.items() if not value.is_floating_point()},
    )


def _pads(image: Tensor, attributes: Attributes) -> tuple[int, int, int, int]:
    """Padding of a convolution or pool in torch's order: left, right, top, bottom."""
    if attributes.get("auto_pad", b"NOTSET") == b"NOTSET":
        top, left, bottom, right = attributes.get("pads", (0, 0, 0, 0))
        return left, right, top, bottom
    if attributes["auto_pad"] != b"SAME_UPPER":
        raise ValueError(f"auto_pad {attributes['auto_pad']!r} is not written here")
    both = []
    for side, kernel, stride in zip(image.shape[2:], attributes["kernel_shape"], attributes["strides"], strict=True):
        total = max((-(-side // stride) - 1) * stride + kernel - side, 0)
        both.append((total // 2, total - total // 2))
    (top, bottom), (left, right) = both
    return left, right, top, bottom


def _convolve(inputs: list[Tensor], attributes: Attributes) -> Tensor:
    image, weight, *bias = inputs
    left, right, top, bottom = _pads(image, attributes)
    padding = (top, left)
    if (left, top) != (right, bottom):
        image, padding = F.pad(image, (left, right, top, bottom)), (0, 0)
    return F.conv2d(
        image,
        weight,
        bias[0] if bias else None,
        stride=tuple(attributes["strides"]),
        padding=padding,
        dilation=tuple(attributes["dilations"]),
        groups=attributes["group"],
    )


def _convolve_transposed(inputs: list[Tensor], attributes: Attributes) -> Tensor:
    image, weight, *bias = inputs
    if any(attributes["pads"]):
        raise ValueError("a padded ConvTranspose is not written here")
    stride, groups = tuple(attributes["strides"]), attributes["group"]
    return F.conv_transpose2d(image, weight, bias[0] if bias else None, stride=stride, groups=groups)


def _max_pool(inputs: list[Tensor], attributes: Attributes) -> Tensor:
    image = F.pad(inputs[0], _pads(inputs[0], attributes), value=float("-inf"))
    return F.max_pool2d(image, tuple(attributes["kernel_shape"]), tuple(attributes["strides"]))


def _average_pool(inputs: list[Tensor], attributes: Attributes) -> Tensor:
    if any(_pads(inputs[0], attributes)):
        raise ValueError("a padded AveragePool is not written here")
    return F.avg_pool2d(inputs[0], tuple(attributes["kernel_shape"]), tuple(attributes["strides"]))


def _resize(inputs: list[Tensor], attributes: Attributes) -> Tensor:
    if attributes["mode"] != b"nearest" or attributes["nearest_mode"] != b"floor" or len(inputs) != 3:
        raise ValueError("only a nearest Resize by factors, rounding down, is written here")
    factors = inputs[2].tolist()
    return F.interpolate(inputs[0], scale_factor=factors[2:], mode="nearest")


def _reshape(inputs: list[Tensor], attributes: Attributes) -> Tensor:
    source, shape = inputs
    return source.reshape([source.shape[axis] if side == 0 else side for axis, side in enumerate(shape.tolist())])


def _slice(inputs: list[Tensor], attributes: Attributes) -> Tensor:
    source, *ranges = inputs
    starts, ends, axes, *strides = (entry.tolist() for entry in ranges)
    cuts = [slice(None)] * source.dim()
    for start, end, axis, stride in zip(starts, ends, axes, strides[0] if strides else [1] * len(axes), strict=True):
        cuts[axis] = slice(start, end, stride)
    return source[tuple(cuts)]


def _squeeze(inputs: list[Tensor], attributes: Attributes) -> Tensor:
    return inputs[0].squeeze(tuple(attributes["axes"]))


def _unsqueeze(inputs: list[Tensor], attributes: Attributes) -> Tensor:
    source = inputs[0]
    for axis in sorted(attributes["axes"]):
        source = source.unsqueeze(axis)
    return source


def _normalise_batch(inputs: list[Tensor], attributes: Attributes) -> Tensor:
    # Written out: the CPU backward of torch 2.13's `batch_norm` in evaluation mode reads a transposed gradient, as it
    # comes from the classifier, in the wrong order (errors as large as the gradient; found by a finite difference).
    image, scale, offset, mean, variance = inputs
    factor = scale / torch.sqrt(variance + attributes["epsilon"])
    return image * factor[:, None, None] + (offset - mean * factor)[:, None, None]


OPERATORS: dict[str, Callable[[list[Tensor], Attributes], Tensor]] = {
    "Add": lambda x, _: x[0] + x[1],
    "AveragePool": _average_pool,
    "BatchNormalization": _normalise_batch,
    "Concat": lambda x, a: torch.cat(x, a["axis"]),
    "Conv": _convolve,
    "ConvTranspose": _convolve_transposed,
    "Div": lambda x, _: x[0] / x[1],
    "Erf": lambda x, _: torch.erf(x[0]),
    "GlobalAveragePool": lambda x, _: x[0].mean((2, 3), keepdim=True),
    "HardSigmoid": lambda x, a: (x[0] * a["alpha"] + a["beta"]).clamp(0, 1),
    "MatMul": lambda x, _: x[0] @ x[1],
    "MaxPool": _max_pool,
    "Mul": lambda x, _: x[0] * x[1],
    "Pow": lambda x, _: x[0] ** x[1],
    "ReduceMean": lambda x, a: x[0].mean(tuple(a["axes"]), keepdim=bool(a.get("keepdims", 1))),
    "Relu": lambda x, _: F.relu(x[0]),
    "Reshape": _reshape,
    "Resize": _resize,
    # Axes of PP-OCR's softmaxes are the last ones, where the old operator (flattened from the axis on) is the new one.
    "Softmax": lambda x, a: x[0].softmax(a["axis"]),
    "Shape": lambda x, _: torch.tensor(x[0].shape),
    "Sigmoid": lambda x, _: torch.sigmoid(x[0]),
    "Slice": _slice,
    "Sqrt": lambda x, _: torch.sqrt(x[0]),
    "Squeeze": _squeeze,
    "Sub": lambda x, _: x[0] - x[1],
    "Transpose": lambda x, a: x[0].permute(tuple(a["perm"])),
    "Unsqueeze": _unsqueeze,
}
"""The operators of opset 11 that PP-OCR's networks use: inputs and attributes in, the one output back."""
