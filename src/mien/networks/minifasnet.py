"""MiniFASNet: the two small networks of passive liveness, in PyTorch.

Minivision's pruned MobileFaceNet (Apache-2.0, github.com/minivision-ai/Silent-Face-Anti-Spoofing):
inverted residuals on 80 x 80 crops, three classes, of which the second is a living face. Module
names are those of the published weights, so that these load as they are. Dropout and the Fourier
branch serve training only and are left out.
"""

from collections.abc import Iterator

import torch
from torch import Tensor, nn

# Channels of each layer after pruning, in the order of the network.
_V1 = """
    32 32 103 103 64 13 13 64 26 26 64 13 13 64 52 52 64 231 231 128 154 154 128 52 52 128
    26 26 128 52 52 128 26 26 128 26 26 128 308 308 128 26 26 128 26 26 128 512 512
"""
_V2 = """
    32 32 103 103 64 13 13 64 13 13 64 13 13 64 13 13 64 231 231 128 231 231 128 52 52 128
    26 26 128 77 77 128 26 26 128 26 26 128 308 308 128 26 26 128 26 26 128 512 512
"""


def minifasnet_v2() -> "MiniFasNet":
    """Network 1 of 2: looks at 2.7 times the face box."""
    return MiniFasNet(_V2, excite=False)


def minifasnet_v1_se() -> "MiniFasNet":
    """Network 2 of 2: looks at 4 times the face box; with squeeze and excitation."""
    return MiniFasNet(_V1, excite=True)


class MiniFasNet(nn.Module):
    """BGR pixels 0..255, (n, 3, 80, 80), to the logits of three classes (n, 3)."""

    def __init__(self, widths: str, excite: bool) -> None:
        super().__init__()
        width = [int(number) for number in widths.split()]
        steps = iter(zip(width[1::3], width[2::3], width[4::3], strict=False))
        self.conv1 = _Unit(3, width[0], 3, stride=2)
        self.conv2_dw = _Unit(width[0], width[1], 3, groups=width[1])
        self.conv_23 = _Inverted(*next(steps), stride=2)
        self.conv_3 = _stage(steps, 4, excite)
        self.conv_34 = _Inverted(*next(steps), stride=2)
        self.conv_4 = _stage(steps, 6, excite)
        self.conv_45 = _Inverted(*next(steps), stride=2)
        self.conv_5 = _stage(steps, 2, excite)
        self.conv_6_sep = _Unit(width[46], width[47], 1)
        self.conv_6_dw = _Unit(width[47], width[48], 5, groups=width[48], padding=0, linear=True)
        self.linear = nn.Linear(width[48], 128, bias=False)
        self.bn = nn.BatchNorm1d(128)
        self.prob = nn.Linear(128, 3, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        x = self.conv_23(self.conv2_dw(self.conv1(x)))
        x = self.conv_34(self.conv_3(x))
        x = self.conv_45(self.conv_4(x))
        x = self.conv_6_dw(self.conv_6_sep(self.conv_5(x)))
        return self.prob(self.bn(self.linear(x.flatten(1))))


class _Unit(nn.Module):
    """Convolution, batch normalisation and, unless `linear`, PReLU."""

    def __init__(
        self, inputs: int, outputs: int, size: int, *, stride: int = 1, groups: int = 1,
        padding: int | None = None, linear: bool = False,
    ) -> None:  # fmt: skip
        super().__init__()
        around = size // 2 if padding is None else padding
        self.conv = nn.Conv2d(inputs, outputs, size, stride, around, groups=groups, bias=False)
        self.bn = nn.BatchNorm2d(outputs)
        if not linear:
            self.prelu = nn.PReLU(outputs)

    def forward(self, x: Tensor) -> Tensor:
        x = self.bn(self.conv(x))
        return self.prelu(x) if hasattr(self, "prelu") else x


class _Inverted(nn.Module):
    """Widen, convolve each channel, narrow; `residual` adds the input."""

    def __init__(
        self, inputs: int, middle: int, outputs: int, *, stride: int = 1, residual: bool = False,
        excite: bool = False,
    ) -> None:  # fmt: skip
        super().__init__()
        self.conv = _Unit(inputs, middle, 1)
        self.conv_dw = _Unit(middle, middle, 3, stride=stride, groups=middle)
        self.project = _Unit(middle, outputs, 1, linear=True)
        self.residual = residual
        if excite:
            self.se_module = _Excitation(outputs)

    def forward(self, x: Tensor) -> Tensor:
        y = self.project(self.conv_dw(self.conv(x)))
        if hasattr(self, "se_module"):
            y = self.se_module(y)
        return x + y if self.residual else y


class _Excitation(nn.Module):
    """Scale each channel by what the means of all channels say of it (Hu et al., 2018)."""

    def __init__(self, channels: int, reduction: int = 4) -> None:
        super().__init__()
        self.fc1 = nn.Conv2d(channels, channels // reduction, 1, bias=False)
        self.bn1 = nn.BatchNorm2d(channels // reduction)
        self.fc2 = nn.Conv2d(channels // reduction, channels, 1, bias=False)
        self.bn2 = nn.BatchNorm2d(channels)

    def forward(self, x: Tensor) -> Tensor:
        y = torch.relu(self.bn1(self.fc1(x.mean((2, 3), keepdim=True))))
        return x * torch.sigmoid(self.bn2(self.fc2(y)))


class _Stage(nn.Module):
    def __init__(self, blocks: list[_Inverted]) -> None:
        super().__init__()
        self.model = nn.Sequential(*blocks)

    def forward(self, x: Tensor) -> Tensor:
        return self.model(x)


def _stage(steps: Iterator[tuple[int, int, int]], count: int, excite: bool) -> _Stage:
    """Residual blocks, the last of which is excited where the network is."""
    return _Stage(
        [
            _Inverted(*next(steps), residual=True, excite=excite and left == 1)
            for left in range(count, 0, -1)
        ]
    )
