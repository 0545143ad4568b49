"""VGG-19, with and without batch normalisation: 20.0 M parameters before the embedding.

Simonyan and Zisserman, "Very Deep Convolutional Networks for Large-Scale Image Recognition"
(2014). The features are called as in torchvision, whose checkpoints fit without their three fully
connected layers ("classifier"): here the features are averaged instead, so any size will do.
"""

from torch import Tensor, nn

from mien.networks import require_size
from mien.networks.head import Head, initialize

_BLOCKS = ((64, 2), (128, 2), (256, 4), (512, 4), (512, 4))  # filters, convolutions


def vgg19(embedding_size: int = 512, size: int = 112, dropout: float = 0.0) -> nn.Module:
    """`size` is at least 32 pixels. Without normalisation it learns slowly from nothing."""
    require_size("vgg19", size, 32)
    return Vgg(embedding_size, dropout, normalized=False)


def vgg19_bn(embedding_size: int = 512, size: int = 112, dropout: float = 0.0) -> nn.Module:
    """The same with batch normalisation after every convolution."""
    require_size("vgg19_bn", size, 32)
    return Vgg(embedding_size, dropout, normalized=True)


class Vgg(nn.Module):
    def __init__(self, embedding_size: int, dropout: float, normalized: bool) -> None:
        super().__init__()
        layers: list[nn.Module] = []
        inputs = 3
        for filters, convolutions in _BLOCKS:
            for _ in range(convolutions):
                layers.append(nn.Conv2d(inputs, filters, 3, padding=1))
                if normalized:
                    layers.append(nn.BatchNorm2d(filters))
                layers.append(nn.ReLU(inplace=True))
                inputs = filters
            layers.append(nn.MaxPool2d(2))
        self.features = nn.Sequential(*layers)
        self.embedding = Head(inputs, embedding_size, dropout)
        initialize(self)

    def forward(self, x: Tensor) -> Tensor:
        return self.embedding(self.features(x).mean(dim=(2, 3)))
