"""ResNet-18, -34 and -50: 11.2, 21.3 and 23.5 M parameters before the embedding.

He et al., "Deep Residual Learning for Image Recognition" (2016), with the stride of a bottleneck
in its 3 x 3 convolution. Parameters are called as in torchvision and timm, whose checkpoints fit
without their classifier ("fc").
"""

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from mien.networks import require_size
from mien.networks.head import Head, initialize


def resnet18(embedding_size: int = 512, size: int = 112, dropout: float = 0.0) -> nn.Module:
    """`size` is at least 32 pixels."""
    require_size("resnet18", size, 32)
    return ResNet(_Basic, (2, 2, 2, 2), embedding_size, dropout)


def resnet34(embedding_size: int = 512, size: int = 112, dropout: float = 0.0) -> nn.Module:
    """`size` is at least 32 pixels."""
    require_size("resnet34", size, 32)
    return ResNet(_Basic, (3, 4, 6, 3), embedding_size, dropout)


def resnet50(embedding_size: int = 512, size: int = 112, dropout: float = 0.0) -> nn.Module:
    """`size` is at least 32 pixels."""
    require_size("resnet50", size, 32)
    return ResNet(_Bottleneck, (3, 4, 6, 3), embedding_size, dropout)


class _Basic(nn.Module):
    expansion = 1

    def __init__(self, inputs: int, filters: int, stride: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(inputs, filters, 3, stride, 1, bias=False)
        self.bn1 = nn.BatchNorm2d(filters)
        self.conv2 = nn.Conv2d(filters, filters, 3, 1, 1, bias=False)
        self.bn2 = nn.BatchNorm2d(filters)
        self.downsample = _shortcut(inputs, filters, stride)

    def forward(self, x: Tensor) -> Tensor:
        y = torch.relu(self.bn1(self.conv1(x)))
        y = self.bn2(self.conv2(y))
        return torch.relu(y + (x if self.downsample is None else self.downsample(x)))


class _Bottleneck(nn.Module):
    expansion = 4

    def __init__(self, inputs: int, filters: int, stride: int) -> None:
        super().__init__()
        outputs = filters * self.expansion
        self.conv1 = nn.Conv2d(inputs, filters, 1, bias=False)
        self.bn1 = nn.BatchNorm2d(filters)
        self.conv2 = nn.Conv2d(filters, filters, 3, stride, 1, bias=False)
        self.bn2 = nn.BatchNorm2d(filters)
        self.conv3 = nn.Conv2d(filters, outputs, 1, bias=False)
        self.bn3 = nn.BatchNorm2d(outputs)
        self.downsample = _shortcut(inputs, outputs, stride)

    def forward(self, x: Tensor) -> Tensor:
        y = torch.relu(self.bn1(self.conv1(x)))
        y = torch.relu(self.bn2(self.conv2(y)))
        y = self.bn3(self.conv3(y))
        return torch.relu(y + (x if self.downsample is None else self.downsample(x)))


class ResNet(nn.Module):
    def __init__(
        self,
        block: type[_Basic] | type[_Bottleneck],
        depths: Sequence[int],
        embedding_size: int,
        dropout: float,
    ) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(3, 64, 7, 2, 3, bias=False)
        self.bn1 = nn.BatchNorm2d(64)
        self.maxpool = nn.MaxPool2d(3, 2, 1)
        inputs = 64
        for number, depth in enumerate(depths):
            filters = 64 << number
            blocks = []
            for index in range(depth):
                blocks.append(block(inputs, filters, 2 if number and not index else 1))
                inputs = filters * block.expansion
            self.add_module(f"layer{number + 1}", nn.Sequential(*blocks))
        self.embedding = Head(inputs, embedding_size, dropout)
        initialize(self)

    def forward(self, x: Tensor) -> Tensor:
        x = self.maxpool(torch.relu(self.bn1(self.conv1(x))))
        x = self.layer4(self.layer3(self.layer2(self.layer1(x))))
        return self.embedding(x.mean(dim=(2, 3)))


def _shortcut(inputs: int, outputs: int, stride: int) -> nn.Module | None:
    """What brings the input of a block to the shape of its output, where they differ."""
    if stride == 1 and inputs == outputs:
        return None
    return nn.Sequential(nn.Conv2d(inputs, outputs, 1, stride, bias=False), nn.BatchNorm2d(outputs))
