"""MobileNetV2: 2.2 M parameters before the embedding, 0.3 G multiplications at 224.

Sandler et al., "MobileNetV2: Inverted Residuals and Linear Bottlenecks" (2018). Parameters are
called as in torchvision, whose checkpoints fit without their classifier ("classifier").
"""

from torch import Tensor, nn

from mien.networks import require_size
from mien.networks.head import Head, initialize
from mien.networks.layers import Depthwise

# expansion, channels, blocks, stride: table 2 of the paper
_STAGES = (
    (1, 16, 1, 1), (6, 24, 2, 2), (6, 32, 3, 2), (6, 64, 4, 2), (6, 96, 3, 1), (6, 160, 3, 2),
    (6, 320, 1, 1),
)  # fmt: skip


def mobilenet_v2(
    embedding_size: int = 512, size: int = 112, dropout: float = 0.0, width: float = 1.0
) -> nn.Module:
    """`size` is at least 32 pixels; `width` scales the channels of every layer."""
    require_size("mobilenet_v2", size, 32)
    return MobileNetV2(embedding_size, dropout, width)


class MobileNetV2(nn.Module):
    def __init__(self, embedding_size: int, dropout: float, width: float) -> None:
        super().__init__()
        inputs = _round(32 * width)
        last = _round(1280 * max(1.0, width))
        layers = [_normalized(nn.Conv2d(3, inputs, 3, 2, padding=1, bias=False))]
        for expansion, channels, blocks, stride in _STAGES:
            outputs = _round(channels * width)
            for index in range(blocks):
                layers.append(_Inverted(inputs, outputs, 1 if index else stride, expansion))
                inputs = outputs
        layers.append(_normalized(nn.Conv2d(inputs, last, 1, bias=False)))
        self.features = nn.Sequential(*layers)
        self.embedding = Head(last, embedding_size, dropout)
        initialize(self)

    def forward(self, x: Tensor) -> Tensor:
        return self.embedding(self.features(x).mean(dim=(2, 3)))


class _Inverted(nn.Module):
    """Widen, convolve channel by channel, narrow; added to the input where the shapes agree."""

    def __init__(self, inputs: int, outputs: int, stride: int, expansion: int) -> None:
        super().__init__()
        hidden = inputs * expansion
        widen = [_normalized(nn.Conv2d(inputs, hidden, 1, bias=False))] if expansion > 1 else []
        self.conv = nn.Sequential(
            *widen,
            _normalized(Depthwise(hidden, stride)),
            nn.Conv2d(hidden, outputs, 1, bias=False),
            nn.BatchNorm2d(outputs),
        )
        self._residual = stride == 1 and inputs == outputs

    def forward(self, x: Tensor) -> Tensor:
        return x + self.conv(x) if self._residual else self.conv(x)


def _normalized(convolution: nn.Conv2d) -> nn.Module:
    """A convolution, batch normalisation and the rectifier that ends at 6."""
    return nn.Sequential(
        convolution, nn.BatchNorm2d(convolution.out_channels), nn.ReLU6(inplace=True)
    )


def _round(channels: float) -> int:
    """To a multiple of eight, and never down by more than a tenth."""
    rounded = max(8, int(channels + 4) // 8 * 8)
    return rounded if rounded >= 0.9 * channels else rounded + 8
