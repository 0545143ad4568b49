"""MobileFaceNet: inverted residuals with a global depthwise convolution in place of pooling.

Chen, Liu, Gao, Han, "MobileFaceNets: efficient CNNs for accurate real-time face verification on
mobile devices" (2018): 0.22 G multiply-adds and 1.2 M parameters at 112 pixels and width 1.
"""

import torch
from torch import Tensor, nn

from mien.errors import InputError
from mien.networks import require_size
from mien.networks.layers import ACTIVATIONS, Depthwise

# expansion, channels, repeats, stride of the first: table 1 of the paper
BOTTLENECKS = ((2, 64, 5, 2), (4, 128, 1, 2), (2, 128, 6, 1), (4, 128, 1, 2), (2, 128, 2, 1))


def normalized(convolution: nn.Conv2d, activation: str) -> nn.Sequential:
    """A convolution, batch normalisation and, unless `activation` is empty, what follows."""
    channels = convolution.out_channels
    layers: list[nn.Module] = [convolution, nn.BatchNorm2d(channels)]
    if activation:
        layers.append(ACTIVATIONS[activation](channels))
    return nn.Sequential(*layers)


def pointwise(before: int, after: int) -> nn.Conv2d:
    """A convolution that mixes the channels of each pixel."""
    return nn.Conv2d(before, after, 1, bias=False)


class Bottleneck(nn.Module):
    """Expand, filter each channel by itself, project; added to the input where shapes agree."""

    def __init__(self, before: int, after: int, stride: int, expansion: int, act: str) -> None:
        super().__init__()
        inner = before * expansion
        self.residual = stride == 1 and before == after
        self.layers = nn.Sequential(
            normalized(pointwise(before, inner), act),
            normalized(Depthwise(inner, stride), act),
            normalized(pointwise(inner, after), ""),
        )

    def forward(self, x: Tensor) -> Tensor:
        y = self.layers(x)
        return x + y if self.residual else y


class MobileFaceNet(nn.Module):
    """The network for pictures of one size, which its last convolution is built for."""

    def __init__(
        self, embedding_size: int, size: int, width: float, activation: str, dropout: float
    ) -> None:
        super().__init__()
        require_size("mobilefacenet", size, 32, 16)
        if activation not in ACTIVATIONS:
            raise InputError(f"activation is one of {', '.join(ACTIVATIONS)}, got {activation!r}")

        def scaled(channels: int) -> int:
            return 8 * max(1, round(width * channels / 8))

        first, last = scaled(64), scaled(512)
        layers: list[nn.Module] = [
            normalized(nn.Conv2d(3, first, 3, 2, 1, bias=False), activation),
            normalized(Depthwise(first, 1), activation),
        ]
        before = first
        for expansion, channels, repeats, stride in BOTTLENECKS:
            after = scaled(channels)
            for i in range(repeats):
                layers.append(Bottleneck(before, after, 1 if i else stride, expansion, activation))
                before = after
        whole = nn.Conv2d(last, last, size // 16, groups=last, bias=False)
        layers += [normalized(pointwise(before, last), activation), normalized(whole, "")]
        self.layers = nn.Sequential(*layers)
        self.dropout = nn.Dropout(dropout)
        self.fc = nn.Linear(last, embedding_size, bias=False)
        self.bn = nn.BatchNorm1d(embedding_size)

    def forward(self, x: Tensor) -> Tensor:
        x = torch.flatten(self.layers(x), 1)
        return self.bn(self.fc(self.dropout(x)))


def mobilefacenet(
    embedding_size: int = 128,
    size: int = 112,
    width: float = 1.0,
    activation: str = "prelu",
    dropout: float = 0.0,
) -> nn.Module:
    """`width` scales all channels; `size` is a multiple of 16; "relu" suits int8 better."""
    return MobileFaceNet(embedding_size, size, width, activation, dropout)
