"""FID: how far two sets of pictures lie apart, in the features of the Inception network that everybody uses.

Heusel et al. 2017 (arXiv:1706.08500), with the network of the package `pytorch-fid`: TensorFlow's Inception of 2015,
which differs from torchvision's Inception v3 in its average pools (borders do not count) and in one pool of the last
block (a maximum). Its weight file (pt_inception-2015-12-05-6726825d.pth) is given by path; nothing is fetched.

Legend: B pictures, N pictures of a set, H W pixels, C channels, D features (2,048).
"""

import pickle
from pathlib import Path

import numpy as np
import numpy.typing as npt
import torch
import torch.nn.functional as F
from torch import nn

from fonts_manifest.errors import BadInput

WEIGHTS_FILE = "pt_inception-2015-12-05-6726825d.pth"
"""pytorch-fid's weights, as its download names them."""

FEATURES = 2048
INPUT_PX = 299

_Values = npt.NDArray[np.float64]


class _Convolution(nn.Module):
    """Convolution, batch norm, ReLU."""

    def __init__(
        self,
        source: int,
        target: int,
        kernel: int | tuple[int, int],
        stride: int = 1,
        padding: int | tuple[int, int] = 0,
    ) -> None:
        super().__init__()
        self.conv = nn.Conv2d(source, target, kernel, stride, padding, bias=False)
        self.bn = nn.BatchNorm2d(target, eps=0.001)

    def forward(self, x_BCHW: torch.Tensor) -> torch.Tensor:
        return F.relu(self.bn(self.conv(x_BCHW)), inplace=True)


def _average(x_BCHW: torch.Tensor) -> torch.Tensor:
    return F.avg_pool2d(x_BCHW, 3, stride=1, padding=1, count_include_pad=False)


class _Mixed5(nn.Module):
    """35 x 35: 1x1, 5x5, two 3x3, pool."""

    def __init__(self, source: int, pooled: int) -> None:
        super().__init__()
        self.branch1x1 = _Convolution(source, 64, 1)
        self.branch5x5_1 = _Convolution(source, 48, 1)
        self.branch5x5_2 = _Convolution(48, 64, 5, padding=2)
        self.branch3x3dbl_1 = _Convolution(source, 64, 1)
        self.branch3x3dbl_2 = _Convolution(64, 96, 3, padding=1)
        self.branch3x3dbl_3 = _Convolution(96, 96, 3, padding=1)
        self.branch_pool = _Convolution(source, pooled, 1)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        wide = self.branch5x5_2(self.branch5x5_1(x))
        double = self.branch3x3dbl_3(self.branch3x3dbl_2(self.branch3x3dbl_1(x)))
        return torch.cat([self.branch1x1(x), wide, double, self.branch_pool(_average(x))], 1)


class _Reduction6(nn.Module):
    """35 x 35 to 17 x 17."""

    def __init__(self, source: int) -> None:
        super().__init__()
        self.branch3x3 = _Convolution(source, 384, 3, stride=2)
        self.branch3x3dbl_1 = _Convolution(source, 64, 1)
        self.branch3x3dbl_2 = _Convolution(64, 96, 3, padding=1)
        self.branch3x3dbl_3 = _Convolution(96, 96, 3, stride=2)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        double = self.branch3x3dbl_3(self.branch3x3dbl_2(self.branch3x3dbl_1(x)))
        return torch.cat([self.branch3x3(x), double, F.max_pool2d(x, 3, stride=2)], 1)


class _Mixed6(nn.Module):
    """17 x 17: 1x1, 7x7 by its rows and columns, twice that, pool."""

    def __init__(self, inner: int) -> None:
        super().__init__()
        row, column = ((1, 7), (0, 3)), ((7, 1), (3, 0))
        self.branch1x1 = _Convolution(768, 192, 1)
        self.branch7x7_1 = _Convolution(768, inner, 1)
        self.branch7x7_2 = _Convolution(inner, inner, row[0], padding=row[1])
        self.branch7x7_3 = _Convolution(inner, 192, column[0], padding=column[1])
        self.branch7x7dbl_1 = _Convolution(768, inner, 1)
        self.branch7x7dbl_2 = _Convolution(inner, inner, column[0], padding=column[1])
        self.branch7x7dbl_3 = _Convolution(inner, inner, row[0], padding=row[1])
        self.branch7x7dbl_4 = _Convolution(inner, inner, column[0], padding=column[1])
        self.branch7x7dbl_5 = _Convolution(inner, 192, row[0], padding=row[1])
        self.branch_pool = _Convolution(768, 192, 1)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        single = self.branch7x7_3(self.branch7x7_2(self.branch7x7_1(x)))
        double = self.branch7x7dbl_3(self.branch7x7dbl_2(self.branch7x7dbl_1(x)))
        double = self.branch7x7dbl_5(self.branch7x7dbl_4(double))
        return torch.cat([self.branch1x1(x), single, double, self.branch_pool(_average(x))], 1)


class _Reduction7(nn.Module):
    """17 x 17 to 8 x 8."""

    def __init__(self) -> None:
        super().__init__()
        self.branch3x3_1 = _Convolution(768, 192, 1)
        self.branch3x3_2 = _Convolution(192, 320, 3, stride=2)
        self.branch7x7x3_1 = _Convolution(768, 192, 1)
        self.branch7x7x3_2 = _Convolution(192, 192, (1, 7), padding=(0, 3))
        self.branch7x7x3_3 = _Convolution(192, 192, (7, 1), padding=(3, 0))
        self.branch7x7x3_4 = _Convolution(192, 192, 3, stride=2)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        long = self.branch7x7x3_4(self.branch7x7x3_3(self.branch7x7x3_2(self.branch7x7x3_1(x))))
        return torch.cat([self.branch3x3_2(self.branch3x3_1(x)), long, F.max_pool2d(x, 3, stride=2)], 1)


class _Mixed7(nn.Module):
    """8 x 8: 1x1, 3x3 by its rows and columns, twice that, pool."""

    def __init__(self, source: int, *, maximum: bool) -> None:
        super().__init__()
        row, column = ((1, 3), (0, 1)), ((3, 1), (1, 0))
        self.branch1x1 = _Convolution(source, 320, 1)
        self.branch3x3_1 = _Convolution(source, 384, 1)
        self.branch3x3_2a = _Convolution(384, 384, row[0], padding=row[1])
        self.branch3x3_2b = _Convolution(384, 384, column[0], padding=column[1])
        self.branch3x3dbl_1 = _Convolution(source, 448, 1)
        self.branch3x3dbl_2 = _Convolution(448, 384, 3, padding=1)
        self.branch3x3dbl_3a = _Convolution(384, 384, row[0], padding=row[1])
        self.branch3x3dbl_3b = _Convolution(384, 384, column[0], padding=column[1])
        self.branch_pool = _Convolution(source, 192, 1)
        self._maximum = maximum

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        single, double = self.branch3x3_1(x), self.branch3x3dbl_2(self.branch3x3dbl_1(x))
        pooled = F.max_pool2d(x, 3, stride=1, padding=1) if self._maximum else _average(x)
        parts = [self.branch3x3_2a(single), self.branch3x3_2b(single)]
        parts += [self.branch3x3dbl_3a(double), self.branch3x3dbl_3b(double)]
        return torch.cat([self.branch1x1(x), *parts, self.branch_pool(pooled)], 1)


class InceptionV3(nn.Module):
    """Pictures in [0, 1] -> 2,048 features; parameters are named as in pytorch-fid's weight file."""

    def __init__(self) -> None:
        super().__init__()
        self.Conv2d_1a_3x3 = _Convolution(3, 32, 3, stride=2)
        self.Conv2d_2a_3x3 = _Convolution(32, 32, 3)
        self.Conv2d_2b_3x3 = _Convolution(32, 64, 3, padding=1)
        self.Conv2d_3b_1x1 = _Convolution(64, 80, 1)
        self.Conv2d_4a_3x3 = _Convolution(80, 192, 3)
        self.Mixed_5b = _Mixed5(192, 32)
        self.Mixed_5c = _Mixed5(256, 64)
        self.Mixed_5d = _Mixed5(288, 64)
        self.Mixed_6a = _Reduction6(288)
        self.Mixed_6b = _Mixed6(128)
        self.Mixed_6c = _Mixed6(160)
        self.Mixed_6d = _Mixed6(160)
        self.Mixed_6e = _Mixed6(192)
        self.Mixed_7a = _Reduction7()
        self.Mixed_7b = _Mixed7(1280, maximum=False)
        self.Mixed_7c = _Mixed7(2048, maximum=True)
        self.fc = nn.Linear(FEATURES, 1008)
        """The classes, for the Inception Score; FID does not ask for them."""
        self.eval().requires_grad_(False)

    def forward(self, image_B3HW: torch.Tensor) -> torch.Tensor:
        """Features (B, 2048), float32. Pictures of any size are resized to 299 px, bilinear, as pytorch-fid does."""
        x = F.interpolate(image_B3HW, (INPUT_PX, INPUT_PX), mode="bilinear", align_corners=False) * 2 - 1
        x = self.Conv2d_2b_3x3(self.Conv2d_2a_3x3(self.Conv2d_1a_3x3(x)))
        x = self.Conv2d_4a_3x3(self.Conv2d_3b_1x1(F.max_pool2d(x, 3, stride=2)))
        x = self.Mixed_5d(self.Mixed_5c(self.Mixed_5b(F.max_pool2d(x, 3, stride=2))))
        x = self.Mixed_6d(self.Mixed_6c(self.Mixed_6b(self.Mixed_6a(x))))
        x = self.Mixed_7c(self.Mixed_7b(self.Mixed_7a(self.Mixed_6e(x))))
        return x.mean((2, 3))


def load_inception(weights: Path) -> InceptionV3:
    """The network with pytorch-fid's weights. Raises BadInput when the file is missing or holds something else."""
    if not weights.is_file():
        raise BadInput(f"{weights}: the weights of the Inception network are missing, which FID needs ({WEIGHTS_FILE})")
    try:
        found = torch.load(weights, map_location="cpu", weights_only=True)
        model = InceptionV3()
        model.load_state_dict(found)
    except (OSError, RuntimeError, EOFError, TypeError, AttributeError, pickle.UnpicklingError) as error:
        raise BadInput(
            f"{weights}: no weights of the Inception network ({' '.join(str(error).split())[:300]})"
        ) from error
    return model


def frechet_distance(first_ND: npt.NDArray[np.floating], second_ND: npt.NDArray[np.floating]) -> float:
    """|m1 - m2|^2 + Tr(C1 + C2 - 2 sqrt(C1 C2)) of two sets of features, each of at least two pictures.

    sqrt(C1 C2) has the eigenvalues' roots of C1 C2, whose sum is the nuclear norm of X1 X2^T / sqrt((n1 - 1)(n2 - 1)),
    X the centred features: exact where pytorch-fid's `sqrtm` of a singular product loses digits, and much faster for
    fewer pictures than features. Raises ValueError for fewer than two pictures.
    """
    if min(len(first_ND), len(second_ND)) < 2:
        raise ValueError(f"FID compares sets of at least 2 pictures, got {len(first_ND)} and {len(second_ND)}")
    first, second = (np.asarray(features, np.float64) for features in (first_ND, second_ND))
    mean_first, mean_second = first.mean(axis=0), second.mean(axis=0)
    first, second = (first - mean_first) / np.sqrt(len(first) - 1), (second - mean_second) / np.sqrt(len(second) - 1)
    traces = (first**2).sum() + (second**2).sum()
    return float(((mean_first - mean_second) ** 2).sum() + traces - 2 * _root_trace(first, second))


def _root_trace(first_ND: _Values, second_ND: _Values) -> float:
    """Tr sqrt(A^T A B^T B) = the sum of the singular values of A B^T, by whichever side is smaller."""
    return float(np.linalg.svd(_shortened(first_ND) @ _shortened(second_ND).T, compute_uv=False).sum())


def _shortened(features_ND: _Values) -> _Values:
    """At most D rows with the same A^T A: the R of A = Q R."""
    if len(features_ND) <= features_ND.shape[1]:
        return features_ND
    return np.asarray(np.linalg.qr(features_ND, mode="r"), np.float64)
