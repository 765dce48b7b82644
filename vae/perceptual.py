"""LPIPS: how different two pictures look, measured on the features of a VGG16; trained through, not only looked at.

Zhang et al. 2018, "The Unreasonable Effectiveness of Deep Features as a Perceptual Metric" (arXiv:1801.03924), version
0.1 of the package `lpips`, whose linear layers are read here. The package itself imports torchvision, which a trainer
does not need: the thirteen convolutions stand below.

Legend: B pictures, H W pixels, C features, h w their grid.
"""

import pickle
from pathlib import Path

import torch
from torch import nn

from fonts_manifest.errors import BadInput
from fonts_manifest.places import resolve_place

VGG_FILE = "vgg16-397923af.pth"
"""torchvision's file of the ImageNet weights (`VGG16_Weights.IMAGENET1K_V1`), as its download names it."""

LINEAR_FILE = "package:lpips/weights/v0.1/vgg.pth"
"""The learned weight of every feature, inside the installed package."""

_STAGES = ((64, 64), (128, 128), (256, 256, 256), (512, 512, 512), (512, 512, 512))
"""Widths of the convolutions of VGG16 (configuration D) between its poolings; the last of each stage is compared."""

MIN_SIDE_PX = 2 ** (len(_STAGES) - 1)


class VGG16Features(nn.Module):
    """The convolutions of torchvision's `vgg16().features` up to relu5_3, under the same parameter names."""

    def __init__(self) -> None:
        super().__init__()
        layers: list[nn.Module] = []
        self.taps: list[int] = []
        channels = 3
        for number, widths in enumerate(_STAGES):
            if number:
                layers.append(nn.MaxPool2d(2))
            for width in widths:
                layers += [nn.Conv2d(channels, width, 3, padding=1), nn.ReLU(inplace=True)]
                channels = width
            self.taps.append(len(layers) - 1)
        self.features = nn.Sequential(*layers)

    def forward(self, x_B3HW: torch.Tensor) -> list[torch.Tensor]:
        """relu1_2, relu2_2, relu3_3, relu4_3, relu5_3: (B, C, h, w) at 1, 1/2, 1/4, 1/8 and 1/16 of the size."""
        found = []
        for index, layer in enumerate(self.features):
            x_B3HW = layer(x_B3HW)
            if index in self.taps:
                found.append(x_B3HW)
        return found


class LPIPS(nn.Module):
    """The perceptual distance; its weights are frozen, gradients go through it to the pictures."""

    shift: torch.Tensor
    scale: torch.Tensor

    def __init__(self) -> None:
        super().__init__()
        self.vgg = VGG16Features()
        self.linear = nn.ParameterList(nn.Parameter(torch.zeros(1, widths[-1], 1, 1)) for widths in _STAGES)
        # ImageNet's mean and deviation, for pictures in [-1, 1] instead of [0, 1].
        self.register_buffer("shift", torch.tensor([-0.030, -0.088, -0.188]).view(1, 3, 1, 1))
        self.register_buffer("scale", torch.tensor([0.458, 0.448, 0.450]).view(1, 3, 1, 1))
        self.eval().requires_grad_(False)

    def forward(self, output_B3HW: torch.Tensor, target_B3HW: torch.Tensor) -> torch.Tensor:
        """(B,) distances, float32, of pictures in [-1, 1]:

        d = sum_l mean_hw sum_c w_lc (y^_lchw - x^_lchw)^2, with y^, x^ the features of layer l divided by their length
        over channels (equation 1 of the paper). Raises ValueError for pictures under 16 px a side.
        """
        if output_B3HW.shape != target_B3HW.shape or min(output_B3HW.shape[2:]) < MIN_SIDE_PX:
            raise ValueError(
                f"LPIPS compares pictures of one shape of at least {MIN_SIDE_PX} px a side, got "
                f"{tuple(output_B3HW.shape)} and {tuple(target_B3HW.shape)}"
            )
        pairs = zip(self._features(output_B3HW), self._features(target_B3HW), self.linear, strict=True)
        distances = [((_unit(y) - _unit(x)).square() * weight).sum(1).flatten(1).mean(1) for y, x, weight in pairs]
        return torch.stack(distances).sum(0)

    def _features(self, images_B3HW: torch.Tensor) -> list[torch.Tensor]:
        features: list[torch.Tensor] = self.vgg((images_B3HW - self.shift) / self.scale)
        return features


def _unit(features_BChw: torch.Tensor) -> torch.Tensor:
    """Features of length 1 over channels, float32.

    The package takes the root of a sum of squares, whose gradient is not a number where no feature is active; the
    norm's is zero there, and the values are equal.
    """
    features = features_BChw.float()
    return features / (torch.linalg.vector_norm(features, dim=1, keepdim=True) + 1e-10)


def load_lpips(vgg_weights: Path | None = None) -> LPIPS:
    """LPIPS with its published weights.

    vgg_weights: torchvision's state dict of VGG16; without it the file is looked for where torch keeps downloads
    (`$TORCH_HOME/hub/checkpoints`). Nothing is downloaded and nothing unpickled but tensors. Raises BadInput when a
    file is missing or holds something else.
    """
    path = vgg_weights or Path(torch.hub.get_dir()) / "checkpoints" / VGG_FILE
    if not path.is_file():
        raise BadInput(
            f"{path}: the weights of VGG16 are missing, which the LPIPS term needs; fetch {VGG_FILE} from "
            "https://download.pytorch.org/models/ and name it as losses.vgg_weights, or set losses.lpips to 0"
        )
    model = LPIPS()
    weights = _read(path)
    _fill(model.vgg, {name: weights[name] for name in model.vgg.state_dict() if name in weights}, path)
    linear_path = resolve_place(LINEAR_FILE)
    linear = _read(linear_path)
    _fill(
        model.linear,
        {str(i): linear[key] for i in range(len(_STAGES)) if (key := f"lin{i}.model.1.weight") in linear},
        linear_path,
    )
    return model


def _read(path: Path) -> dict[str, torch.Tensor]:
    try:
        found = torch.load(path, map_location="cpu", weights_only=True)
    except (OSError, RuntimeError, EOFError, pickle.UnpicklingError) as error:
        raise BadInput(f"{path}: cannot be read as weights ({error})") from error
    if not isinstance(found, dict):
        raise BadInput(f"{path}: holds {type(found).__name__}, not the state dict of a network")
    return found


def _fill(module: nn.Module, weights: dict[str, torch.Tensor], path: Path) -> None:
    try:
        module.load_state_dict(weights)
    except RuntimeError as error:
        raise BadInput(f"{path}: does not fit ({' '.join(str(error).split())})") from error
