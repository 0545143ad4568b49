"""Inception-ResNet v1 with the widths of FaceNet: 23.5 M parameters, 1.42 G multiplications.

Szegedy et al., "Inception-v4, Inception-ResNet and the Impact of Residual Connections on
Learning" (2016), as David Sandberg's facenet changed it. Parameters are called as in the
facenet-pytorch package, so that its checkpoints 20180402-114759-vggface2.pt and
20180408-102900-casia-webface.pt fit at 512 numbers; their classifier ("logits") is not part of it.
"""

from torch import Tensor, nn

from mien.networks import require_size
from mien.networks.head import initialize
from mien.networks.inception import Branches, Convolution, Residual, path


def inception_resnet_v1(
    embedding_size: int = 512, size: int = 160, dropout: float = 0.6
) -> nn.Module:
    """FaceNet's network. `size` is at least 75 pixels; the published weights are for 160."""
    require_size("inception_resnet_v1", size, 75)
    return InceptionResnetV1(embedding_size, dropout)


class InceptionResnetV1(nn.Module):
    def __init__(self, embedding_size: int, dropout: float) -> None:
        super().__init__()
        self.conv2d_1a = Convolution(3, 32, 3, stride=2)
        self.conv2d_2a = Convolution(32, 32, 3)
        self.conv2d_2b = Convolution(32, 64, 3, padding=1)
        self.maxpool_3a = nn.MaxPool2d(3, 2)
        self.conv2d_3b = Convolution(64, 80, 1)
        self.conv2d_4a = Convolution(80, 192, 3)
        self.conv2d_4b = Convolution(192, 256, 3, stride=2)
        self.repeat_1 = nn.Sequential(*(_block35() for _ in range(5)))
        self.mixed_6a = Branches([
            path(256, (384, 3, 2, 0)),
            path(256, (192, 1, 1, 0), (192, 3, 1, 1), (256, 3, 2, 0)),
            nn.MaxPool2d(3, 2),
        ])  # fmt: skip
        self.repeat_2 = nn.Sequential(*(_block17() for _ in range(10)))
        self.mixed_7a = Branches([
            path(896, (256, 1, 1, 0), (384, 3, 2, 0)),
            path(896, (256, 1, 1, 0), (256, 3, 2, 0)),
            path(896, (256, 1, 1, 0), (256, 3, 1, 1), (256, 3, 2, 0)),
            nn.MaxPool2d(3, 2),
        ])  # fmt: skip
        self.repeat_3 = nn.Sequential(*(_block8(0.20) for _ in range(5)))
        self.block8 = _block8(1.0, rectified=False)
        self.avgpool_1a = nn.AdaptiveAvgPool2d(1)
        self.dropout = nn.Dropout(dropout)
        self.last_linear = nn.Linear(1792, embedding_size, bias=False)
        self.last_bn = nn.BatchNorm1d(embedding_size, eps=1e-3)
        initialize(self)

    def forward(self, x: Tensor) -> Tensor:
        x = self.maxpool_3a(self.conv2d_2b(self.conv2d_2a(self.conv2d_1a(x))))
        x = self.conv2d_4b(self.conv2d_4a(self.conv2d_3b(x)))
        x = self.mixed_6a(self.repeat_1(x))
        x = self.mixed_7a(self.repeat_2(x))
        x = self.block8(self.repeat_3(x))
        x = self.dropout(self.avgpool_1a(x).flatten(1))
        return self.last_bn(self.last_linear(x))


def _block35() -> Residual:
    branches = [
        path(256, (32, 1, 1, 0)),
        path(256, (32, 1, 1, 0), (32, 3, 1, 1)),
        path(256, (32, 1, 1, 0), (32, 3, 1, 1), (32, 3, 1, 1)),
    ]
    return Residual(branches, 96, 256, 0.17)


def _block17() -> Residual:
    branches = [
        path(896, (128, 1, 1, 0)),
        path(896, (128, 1, 1, 0), (128, (1, 7), 1, (0, 3)), (128, (7, 1), 1, (3, 0))),
    ]
    return Residual(branches, 256, 896, 0.10)


def _block8(scale: float, rectified: bool = True) -> Residual:
    branches = [
        path(1792, (192, 1, 1, 0)),
        path(1792, (192, 1, 1, 0), (192, (1, 3), 1, (0, 1)), (192, (3, 1), 1, (1, 0))),
    ]
    return Residual(branches, 384, 1792, scale, rectified)
