"""OpenFace's nn4.small2: 3.7 M parameters at 128 numbers and 96 pixels.

Amos, Ludwiczuk, Satyanarayanan, "OpenFace: a general-purpose face recognition library with mobile
applications" (2016): NN4 of Schroff et al., "FaceNet" (2015), without some of its blocks. Its Torch
modules are counted here as there, so that nn4.small2.v1.t7 fits as `mien.training.torch7` reads it.
"""

from collections.abc import Mapping, Sequence

import torch
from torch import Tensor, nn

from mien.networks import require_size
from mien.networks.head import initialize


def nn4_small2(embedding_size: int = 128, size: int = 96, dropout: float = 0.0) -> nn.Module:
    """The network for squares of at least 65 pixels; the published weights are for 96."""
    require_size("nn4_small2", size, 65)
    return Nn4Small2(embedding_size, dropout)


class Nn4Small2(nn.Sequential):
    def __init__(self, embedding_size: int, dropout: float) -> None:
        super().__init__(
            *_convolution(3, 64, 7, 2),
            nn.MaxPool2d(3, 2, 1),
            nn.LocalResponseNorm(5),
            *_convolution(64, 64, 1),
            *_convolution(64, 192, 3),
            nn.LocalResponseNorm(5),
            nn.MaxPool2d(3, 2, 1),
            _inception(192, {3: (96, 128), 5: (16, 32)}, nn.MaxPool2d(3, 2), 32, 64),
            _inception(256, {3: (96, 128), 5: (32, 64)}, _root_mean_square(), 64, 64),
            _inception(320, {3: (128, 256), 5: (32, 64)}, nn.MaxPool2d(3, 2), stride=2),
            _inception(640, {3: (96, 192), 5: (32, 64)}, _root_mean_square(), 128, 256),
            _inception(640, {3: (160, 256), 5: (64, 128)}, nn.MaxPool2d(3, 2), stride=2),
            _inception(1024, {3: (96, 384)}, _root_mean_square(), 96, 256),
            nn.Identity(),
            _inception(736, {3: (96, 384)}, nn.MaxPool2d(3, 2), 96, 256),
            nn.AdaptiveAvgPool2d(1),
            nn.Flatten(),
            nn.Dropout(dropout),
            nn.Linear(736, embedding_size),
        )
        initialize(self)

    def fitted(self, state: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """Torch keeps the kernels of a convolution as rows of a matrix."""
        own = self.state_dict()
        return {
            name: value.reshape(own[name].shape)
            if name in own and value.numel() == own[name].numel()
            else value
            for name, value in state.items()
        }


def _convolution(inputs: int, filters: int, kernel: int, stride: int = 1) -> list[nn.Module]:
    return [
        nn.Conv2d(inputs, filters, kernel, stride, kernel // 2),
        nn.BatchNorm2d(filters),
        nn.ReLU(),
    ]


def _inception(
    inputs: int,
    kernels: Mapping[int, tuple[int, int]],
    pool: nn.Module,
    pooled: int = 0,
    alone: int = 0,
    stride: int = 1,
) -> nn.Module:
    """A branch for each kernel (channels before it and after), one that pools, one of 1 x 1."""
    branches = [
        nn.Sequential(
            *_convolution(inputs, before, 1), *_convolution(before, after, kernel, stride)
        )
        for kernel, (before, after) in kernels.items()
    ]
    branches.append(nn.Sequential(pool, *(_convolution(inputs, pooled, 1) if pooled else [])))
    if alone:
        branches.append(nn.Sequential(*_convolution(inputs, alone, 1)))
    return nn.Sequential(Joined(branches))  # the block and what it holds are two in the count


class Joined(nn.Module):
    """Branches over the same input, their channels one after the other.

    Smaller planes get zeros around them, the odd row at the end: nn.DepthConcat.
    """

    def __init__(self, branches: Sequence[nn.Module]) -> None:
        super().__init__()
        for number, branch in enumerate(branches):
            self.add_module(str(number), branch)

    def forward(self, x: Tensor) -> Tensor:
        made = [branch(x) for branch in self.children()]
        height, width = (max(y.shape[axis] for y in made) for axis in (2, 3))
        return torch.cat([_padded(y, height, width) for y in made], dim=1)


def _padded(x: Tensor, height: int, width: int) -> Tensor:
    down, right = height - x.shape[2], width - x.shape[3]
    if not down and not right:
        return x
    edges = (right // 2, right - right // 2, down // 2, down - down // 2)
    return nn.functional.pad(x, edges)


def _root_mean_square() -> nn.Module:
    """nn.SpatialLPPooling(2, 3, 3): the root of the sum of squares of every third 3 x 3 pixels."""
    return nn.Sequential(Squared(), nn.AvgPool2d(3, 3), Scaled(9.0), Root())


class Squared(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        return x.square()


class Scaled(nn.Module):
    """Times a number that is not learnt, called as in nn.MulConstant."""

    constant_scalar: Tensor

    def __init__(self, factor: float) -> None:
        super().__init__()
        self.register_buffer("constant_scalar", torch.tensor(factor))

    def forward(self, x: Tensor) -> Tensor:
        return x * self.constant_scalar


class Root(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        return torch.sqrt(x + 1e-20)  # its slope at zero is finite: it can be trained
