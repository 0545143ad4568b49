"""IResNet, the residual network that ArcFace made the standard one of face recognition.

Deng, Guo, Xue, Zafeiriou, "ArcFace" (2019), the "improved residual unit" BN-conv-BN-act-conv-BN.
The names of the parameters are those of the public `arcface_torch` checkpoints, which load as
they are with the default `channels` and `activation`.
"""

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from mien.errors import InputError
from mien.networks import require_size
from mien.networks.layers import ACTIVATIONS

CHANNELS = (64, 128, 256, 512)


class Block(nn.Module):
    """BN, convolution, BN, activation, convolution with the stride, BN; added to the shortcut."""

    def __init__(self, before: int, after: int, stride: int, activation: str) -> None:
        super().__init__()
        self.bn1 = nn.BatchNorm2d(before)
        self.conv1 = nn.Conv2d(before, after, 3, padding=1, bias=False)
        self.bn2 = nn.BatchNorm2d(after)
        self.prelu = ACTIVATIONS[activation](after)
        self.conv2 = nn.Conv2d(after, after, 3, stride, padding=1, bias=False)
        self.bn3 = nn.BatchNorm2d(after)
        self.downsample: nn.Module | None = None
        if stride > 1 or before != after:
            self.downsample = nn.Sequential(
                nn.Conv2d(before, after, 1, stride, bias=False), nn.BatchNorm2d(after)
            )

    def forward(self, x: Tensor) -> Tensor:
        shortcut = x if self.downsample is None else self.downsample(x)
        y = self.conv1(self.bn1(x))
        y = self.bn3(self.conv2(self.prelu(self.bn2(y))))
        return y + shortcut


class IResNet(nn.Module):
    """The network for pictures of one size, which its last layer is built for."""

    def __init__(
        self,
        layers: tuple[int, ...],
        embedding_size: int,
        size: int,
        channels: Sequence[int],
        activation: str,
        dropout: float,
        stem_stride: int,
    ) -> None:
        super().__init__()
        require_size("iresnet", size, 16)
        if activation not in ACTIVATIONS:
            raise InputError(f"activation is one of {', '.join(ACTIVATIONS)}, got {activation!r}")
        if len(channels) != 4:
            raise InputError(f"an IResNet has four stages, got channels {channels}")
        channels = [channels[0], *channels]
        self.conv1 = nn.Conv2d(3, channels[0], 3, stem_stride, padding=1, bias=False)
        self.bn1 = nn.BatchNorm2d(channels[0])
        self.prelu = ACTIVATIONS[activation](channels[0])
        for stage, count in enumerate(layers, 1):
            before, after = channels[stage - 1 : stage + 1]
            blocks = [
                Block(after if i else before, after, 1 if i else 2, activation)
                for i in range(count)
            ]
            setattr(self, f"layer{stage}", nn.Sequential(*blocks))
        self.bn2 = nn.BatchNorm2d(channels[-1])
        self.dropout = nn.Dropout(dropout)
        side = size
        for stride in (stem_stride, 2, 2, 2, 2):
            side = (side - 1) // stride + 1
        self.fc = nn.Linear(channels[-1] * side * side, embedding_size)
        self.features = nn.BatchNorm1d(embedding_size)
        nn.init.constant_(self.features.weight, 1.0)
        self.features.weight.requires_grad = False
        for module in self.modules():
            if isinstance(module, nn.Conv2d):
                nn.init.normal_(module.weight, 0, 0.1)

    def forward(self, x: Tensor) -> Tensor:
        x = self.prelu(self.bn1(self.conv1(x)))
        x = self.layer4(self.layer3(self.layer2(self.layer1(x))))
        x = self.dropout(torch.flatten(self.bn2(x), 1))
        return self.features(self.fc(x))


def iresnet18(
    embedding_size: int = 512,
    size: int = 112,
    channels: Sequence[int] = CHANNELS,
    activation: str = "prelu",
    dropout: float = 0.0,
    stem_stride: int = 1,
) -> nn.Module:
    """24 M parameters, 2.6 G multiply-adds at 112 pixels.

    `channels` are those of the four stages, the first also that of the stem. With `activation`
    "relu" the whole network runs in int8 after quantisation; the published ones have "prelu".
    `stem_stride` 2 halves the size once more at the start, for a quarter of the cost.
    """
    return IResNet((2, 2, 2, 2), embedding_size, size, channels, activation, dropout, stem_stride)


def iresnet50(
    embedding_size: int = 512,
    size: int = 112,
    channels: Sequence[int] = CHANNELS,
    activation: str = "prelu",
    dropout: float = 0.0,
    stem_stride: int = 1,
) -> nn.Module:
    """44 M parameters, 6.3 G multiply-adds at 112 pixels; options as for `iresnet18`."""
    return IResNet((3, 4, 14, 3), embedding_size, size, channels, activation, dropout, stem_stride)


def iresnet100(
    embedding_size: int = 512,
    size: int = 112,
    channels: Sequence[int] = CHANNELS,
    activation: str = "prelu",
    dropout: float = 0.0,
    stem_stride: int = 1,
) -> nn.Module:
    """65 M parameters, 12 G multiply-adds at 112 pixels; options as for `iresnet18`."""
    return IResNet((3, 13, 30, 3), embedding_size, size, channels, activation, dropout, stem_stride)
