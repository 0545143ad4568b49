"""What the two Inception-ResNets are made of (Szegedy et al., 2016), by parameter names too."""

from collections.abc import Sequence

import torch
from torch import Tensor, nn

Pair = int | tuple[int, int]


class Convolution(nn.Module):
    """Convolution without bias, batch normalisation, rectifier."""

    def __init__(
        self, inputs: int, filters: int, kernel: Pair, stride: int = 1, padding: Pair = 0
    ) -> None:
        super().__init__()
        self.conv = nn.Conv2d(inputs, filters, kernel, stride, padding, bias=False)
        self.bn = nn.BatchNorm2d(filters, eps=1e-3)

    def forward(self, x: Tensor) -> Tensor:
        return torch.relu(self.bn(self.conv(x)))


class Branches(nn.Module):
    """Several paths over the same input, their channels one after the other."""

    def __init__(self, branches: Sequence[nn.Module]) -> None:
        super().__init__()
        self._names = [f"branch{number}" for number in range(len(branches))]
        for name, branch in zip(self._names, branches, strict=True):
            self.add_module(name, branch)

    def forward(self, x: Tensor) -> Tensor:
        return torch.cat([getattr(self, name)(x) for name in self._names], dim=1)


class Residual(Branches):
    """`x + scale * convolution(branches(x))`; the last block of a network is not rectified."""

    def __init__(
        self,
        branches: Sequence[nn.Module],
        joined: int,
        channels: int,
        scale: float,
        rectified: bool = True,
    ) -> None:
        super().__init__(branches)
        self.conv2d = nn.Conv2d(joined, channels, 1)
        self._scale = scale
        self._rectified = rectified

    def forward(self, x: Tensor) -> Tensor:
        y = x + self._scale * self.conv2d(super().forward(x))
        return torch.relu(y) if self._rectified else y


def path(inputs: int, *steps: tuple[int, Pair, int, Pair]) -> nn.Module:
    """Convolutions one after the other: (filters, kernel, stride, padding) each."""
    layers = []
    for filters, kernel, stride, padding in steps:
        layers.append(Convolution(inputs, filters, kernel, stride, padding))
        inputs = filters
    return layers[0] if len(layers) == 1 else nn.Sequential(*layers)
