"""From the features of a backbone to an embedding."""

from torch import nn


class Head(nn.Sequential):
    """Dropout, a linear map without bias, and batch normalisation: (n, features) to (n, size).

    Batch normalisation of the embedding keeps its numbers of one scale, whatever the backbone
    (Deng et al., "ArcFace", 2019, section 3.2, output option E without the first normalisation).
    """

    def __init__(self, features: int, embedding_size: int, dropout: float) -> None:
        super().__init__()
        self.dropout = nn.Dropout(dropout)
        self.linear = nn.Linear(features, embedding_size, bias=False)
        self.norm = nn.BatchNorm1d(embedding_size)


def initialize(network: nn.Module) -> None:
    """Random weights that keep variance through rectified layers (He et al., 2015), in place.

    Every scale of a normalisation starts at one, also the last of a residual branch: with zeros
    there an untrained network is the identity, and neither a test of its export nor of its
    gradients would mean anything.
    """
    for module in network.modules():
        if isinstance(module, nn.Conv2d):
            nn.init.kaiming_normal_(module.weight, nonlinearity="relu")  # fan in: of one group
            if module.bias is not None:
                nn.init.zeros_(module.bias)
        elif isinstance(module, nn.BatchNorm2d | nn.BatchNorm1d):
            nn.init.ones_(module.weight)
            nn.init.zeros_(module.bias)
        elif isinstance(module, nn.Linear):
            nn.init.normal_(module.weight, std=module.in_features**-0.5)
            if module.bias is not None:
                nn.init.zeros_(module.bias)
