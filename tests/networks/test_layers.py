"""Layers computed another way in bfloat16 are, up to its rounding, those of PyTorch in float32."""

import pytest

torch = pytest.importorskip("torch", reason="networks need mien[train]")

from torch import Tensor, nn  # noqa: E402

from mien.networks.layers import Depthwise, PReLU, attention  # noqa: E402

CHANNELS = 8


def gradients(layer: nn.Module, x: Tensor, bfloat16: bool) -> tuple[Tensor, ...]:
    """Output, and gradients of the input and of the parameter, for weights that differ by place."""
    x = x.clone().requires_grad_()
    with torch.autocast("cpu", torch.bfloat16, enabled=bfloat16):
        y = layer(x.bfloat16() if bfloat16 else x)
    assert y.dtype == (torch.bfloat16 if bfloat16 else torch.float32)
    (y.float() * torch.linspace(-1, 1, y.numel()).view_as(y)).sum().backward()
    (parameter,) = layer.parameters()
    assert x.grad is not None
    assert parameter.grad is not None
    return y.detach(), x.grad, parameter.grad


@pytest.mark.parametrize("stride", [1, 2])
@pytest.mark.parametrize("side", [7, 8])
@pytest.mark.parametrize("training", [True, False])
def test_they_are_those_of_torch(stride: int, side: int, training: bool) -> None:
    torch.manual_seed(0)
    x = torch.randn(4, CHANNELS, side, side).bfloat16().float()
    convolution = nn.Conv2d(CHANNELS, CHANNELS, 3, stride, 1, groups=CHANNELS, bias=False)
    slopes = nn.PReLU(CHANNELS)
    nn.init.uniform_(slopes.weight, -0.5, 0.5)
    for theirs, ours in ((convolution, Depthwise(CHANNELS, stride)), (slopes, PReLU(CHANNELS))):
        for layer in (theirs, ours):
            layer.load_state_dict(
                {name: value.bfloat16() for name, value in theirs.state_dict().items()}
            )
            layer.train(training)
        expected = gradients(theirs, x, bfloat16=False)
        for bfloat16 in (True, False):
            ours.zero_grad()
            found = gradients(ours, x, bfloat16)
            for mine, right in zip(found, expected, strict=True):
                gap = (mine.float() - right).abs().max() / right.abs().max()
                assert gap < (0.02 if bfloat16 else 1e-6)


def test_the_gradient_at_nothing_is_finite() -> None:
    layer = PReLU(CHANNELS)
    for value in gradients(layer, torch.zeros(2, CHANNELS, 3, 3), bfloat16=True):
        assert value.isfinite().all()


def test_attention_is_that_of_torch() -> None:
    torch.manual_seed(0)
    parts = [torch.randn(2, 3, 5, 8).bfloat16().float().requires_grad_() for _ in range(3)]
    weights = torch.linspace(-1, 1, 240).view(2, 3, 5, 8)
    found = []
    for bfloat16 in (False, True):
        with torch.autocast("cpu", torch.bfloat16, enabled=bfloat16):
            given = [part.bfloat16() if bfloat16 else part for part in parts]
            mixed = attention(*given)
        found.append([mixed.float(), *torch.autograd.grad((mixed.float() * weights).sum(), parts)])
    for right, mine in zip(*found, strict=True):
        assert (mine - right).abs().max() < 0.02 * right.abs().max()
