"""Inception-ResNet v2: 54.3 M parameters before the embedding, 13.2 G multiplications at 299.

Szegedy et al., "Inception-v4, Inception-ResNet and the Impact of Residual Connections on
Learning" (2016). Parameters are called as in timm's `inception_resnet_v2`, whose checkpoints fit
without their classifier ("classif").
"""

from torch import Tensor, nn

from mien.networks import require_size
from mien.networks.head import Head, initialize
from mien.networks.inception import Branches, Convolution, Residual, path


def inception_resnet_v2(
    embedding_size: int = 512, size: int = 160, dropout: float = 0.2
) -> nn.Module:
    """`size` is at least 75 pixels; the checkpoints of ImageNet are for 299."""
    require_size("inception_resnet_v2", size, 75)
    return InceptionResnetV2(embedding_size, dropout)


class InceptionResnetV2(nn.Module):
    def __init__(self, embedding_size: int, dropout: float) -> None:
        super().__init__()
        self.conv2d_1a = Convolution(3, 32, 3, stride=2)
        self.conv2d_2a = Convolution(32, 32, 3)
        self.conv2d_2b = Convolution(32, 64, 3, padding=1)
        self.maxpool_3a = nn.MaxPool2d(3, 2)
        self.conv2d_3b = Convolution(64, 80, 1)
        self.conv2d_4a = Convolution(80, 192, 3)
        self.maxpool_5a = nn.MaxPool2d(3, 2)
        pooled = nn.Sequential(
            nn.AvgPool2d(3, 1, 1, count_include_pad=False), path(192, (64, 1, 1, 0))
        )
        self.mixed_5b = Branches([
            path(192, (96, 1, 1, 0)),
            path(192, (48, 1, 1, 0), (64, 5, 1, 2)),
            path(192, (64, 1, 1, 0), (96, 3, 1, 1), (96, 3, 1, 1)),
            pooled,
        ])  # fmt: skip
        self.repeat = nn.Sequential(*(_block35() for _ in range(10)))
        self.mixed_6a = Branches([
            path(320, (384, 3, 2, 0)),
            path(320, (256, 1, 1, 0), (256, 3, 1, 1), (384, 3, 2, 0)),
            nn.MaxPool2d(3, 2),
        ])  # fmt: skip
        self.repeat_1 = nn.Sequential(*(_block17() for _ in range(20)))
        self.mixed_7a = Branches([
            path(1088, (256, 1, 1, 0), (384, 3, 2, 0)),
            path(1088, (256, 1, 1, 0), (288, 3, 2, 0)),
            path(1088, (256, 1, 1, 0), (288, 3, 1, 1), (320, 3, 2, 0)),
            nn.MaxPool2d(3, 2),
        ])  # fmt: skip
        self.repeat_2 = nn.Sequential(*(_block8(0.20) for _ in range(9)))
        self.block8 = _block8(1.0, rectified=False)
        self.conv2d_7b = Convolution(2080, 1536, 1)
        self.embedding = Head(1536, embedding_size, dropout)
        initialize(self)

    def forward(self, x: Tensor) -> Tensor:
        x = self.maxpool_3a(self.conv2d_2b(self.conv2d_2a(self.conv2d_1a(x))))
        x = self.maxpool_5a(self.conv2d_4a(self.conv2d_3b(x)))
        x = self.mixed_6a(self.repeat(self.mixed_5b(x)))
        x = self.mixed_7a(self.repeat_1(x))
        x = self.conv2d_7b(self.block8(self.repeat_2(x)))
        return self.embedding(x.mean(dim=(2, 3)))


def _block35() -> Residual:
    branches = [
        path(320, (32, 1, 1, 0)),
        path(320, (32, 1, 1, 0), (32, 3, 1, 1)),
        path(320, (32, 1, 1, 0), (48, 3, 1, 1), (64, 3, 1, 1)),
    ]
    return Residual(branches, 128, 320, 0.17)


def _block17() -> Residual:
    branches = [
        path(1088, (192, 1, 1, 0)),
        path(1088, (128, 1, 1, 0), (160, (1, 7), 1, (0, 3)), (192, (7, 1), 1, (3, 0))),
    ]
    return Residual(branches, 384, 1088, 0.10)


def _block8(scale: float, rectified: bool = True) -> Residual:
    branches = [
        path(2080, (192, 1, 1, 0)),
        path(2080, (192, 1, 1, 0), (224, (1, 3), 1, (0, 1)), (256, (3, 1), 1, (1, 0))),
    ]
    return Residual(branches, 448, 2080, scale, rectified)
