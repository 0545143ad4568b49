"""Layers whose gradients PyTorch has, but slowly in bfloat16 on a processor: here by a faster way.

The outputs and gradients are the same up to rounding, as are the names of parameters; anywhere
else, and once trained, they are PyTorch's own.
"""

from collections.abc import Callable

import torch
from torch import Tensor, nn
from torch.nn import functional


class PReLU(nn.PReLU):
    """max(x, 0) + slope min(x, 0) (He et al., 2015), as two rectifiers while it learns: their
    gradients, which at 0 are 0, take less than half the time of that of `torch.nn.PReLU`."""

    def forward(self, x: Tensor) -> Tensor:
        if not (self.training and _in_bfloat16(x)):
            return super().forward(x)
        slopes = self.weight.to(x.dtype)[:, None, None]
        return torch.relu(x) - slopes * torch.relu(-x)


class Depthwise(nn.Conv2d):
    """A 3 x 3 convolution of each channel by itself, the size kept or halved, without bias.

    Where it is halved it is computed in float32: oneDNN's gradient of a strided one in bfloat16
    takes two to twenty times as long.
    """

    def __init__(self, channels: int, stride: int) -> None:
        super().__init__(channels, channels, 3, stride, padding=1, groups=channels, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        if self.stride == (1, 1) or not _in_bfloat16(x):
            return super().forward(x)
        with torch.autocast("cpu", enabled=False):
            return super().forward(x.float()).to(x.dtype)


def attention(query: Tensor, key: Tensor, value: Tensor) -> Tensor:
    """What each token takes from all others, (n, heads, tokens, width) from three of that shape.

    Vaswani et al. (2017), equation 1, as two products while it learns: PyTorch's fused one saves
    memory, but its gradient takes two to five times as long.
    """
    if not (torch.is_grad_enabled() and _in_bfloat16(query)):
        return functional.scaled_dot_product_attention(query, key, value)
    logits = (query * query.shape[-1] ** -0.5) @ key.transpose(-2, -1)
    return logits.softmax(-1).to(value.dtype) @ value


def _in_bfloat16(x: Tensor) -> bool:
    return x.dtype == torch.bfloat16 and x.device.type == "cpu"


ACTIVATIONS: dict[str, Callable[[int], nn.Module]] = {
    "prelu": PReLU,
    "relu": lambda channels: nn.ReLU(inplace=True),
}
"""What follows a convolution, by name, made for a number of channels."""
