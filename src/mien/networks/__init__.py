"""Architectures to train, in plain PyTorch: one family a file, no training and no files read.

Every network takes float pictures (n, 3, size, size), normalised as its user decides, and gives
embeddings (n, embedding_size) that are not scaled to length one. Names of parameters follow the
published checkpoints that each family's file names, so that `adopt` can start from them.
"""

from collections.abc import Mapping
from importlib import import_module
from typing import TYPE_CHECKING, Any

from mien.errors import InputError, MissingExtra, ModelError

if TYPE_CHECKING:
    import torch

_FAMILY = {
    "inception_resnet_v1": "inception_resnet_v1",
    "inception_resnet_v2": "inception_resnet_v2",
    "iresnet18": "iresnet",
    "iresnet50": "iresnet",
    "iresnet100": "iresnet",
    "mobilefacenet": "mobilefacenet",
    "mobilenet_v2": "mobilenet_v2",
    "nn4_small2": "nn4_small2",
    "resnet18": "resnet",
    "resnet34": "resnet",
    "resnet50": "resnet",
    "vgg19": "vgg",
    "vgg19_bn": "vgg",
    "vit_tiny": "vit",
    "vit_small": "vit",
}
"""The module of each network, in which a function of that name builds it."""

NAMES = tuple(_FAMILY)


def build(name: str, embedding_size: int = 512, **options: Any) -> "torch.nn.Module":
    """A network by its name, one of `NAMES`, with random weights.

    Every network takes `size`, the side in pixels of the square pictures it will be given, and
    `dropout`, the share of features left out before the embedding while it is trained; what else
    one takes stands at the function of its name. Raises `InputError` for another name, an option
    that it does not take and a size below what it can work on; `MissingExtra` without PyTorch.
    """
    if name not in _FAMILY:
        raise InputError(f"unknown network {name!r}; known: {', '.join(NAMES)}")
    if embedding_size < 1:
        raise InputError(f"an embedding has at least one number, got {embedding_size}")
    try:
        import torch  # noqa: F401 - to tell its absence from a fault of ours
    except ImportError as error:
        raise MissingExtra("building a network", "train") from error
    maker = getattr(import_module(f"{__name__}.{_FAMILY[name]}"), name)
    known = tuple(maker.__annotations__)[1:-1]  # without embedding_size and what it returns
    if other := sorted(options.keys() - set(known)):
        raise InputError(f"{name} takes no option {other[0]!r}; it takes {', '.join(known)}")
    return maker(embedding_size, **options)


def require_size(name: str, size: int, least: int, step: int = 1) -> None:
    """Raise `InputError` unless a network can work on squares of that side."""
    if size < least or size % step:
        steps = f" and a multiple of {step}" if step > 1 else ""
        raise InputError(f"{name} needs pictures of at least {least} pixels{steps}, got {size}")


def adopt(
    network: "torch.nn.Module", state: Mapping[str, "torch.Tensor"]
) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """Start a network from a published state dict: (names left as they were, names not used).

    What stands in the state under the same name and in the same shape is copied, in place. A
    prefix that all names share ("module.", "backbone.") is dropped. The embedding of another size
    and the classifier of the checkpoint stay behind. Raises `ModelError`, with nothing changed,
    when less than half of the network's numbers are there: then the checkpoint is of another one.
    """
    own = network.state_dict()
    given = _without_prefix(state, own)
    if fitted := getattr(network, "fitted", None):  # of those whose tensors depend on the size
        given = fitted(given)
    fitting = {
        name: value
        for name, value in given.items()
        if name in own and value.shape == own[name].shape
    }
    found = sum(own[name].numel() for name in fitting)
    total = sum(value.numel() for value in own.values())
    if 2 * found < total:
        raise ModelError(
            f"this checkpoint is of another network: of {len(own)} tensors of "
            f"{type(network).__name__}, {len(fitting)} are there in the same shape; "
            f"it begins with {', '.join(list(state)[:3]) or 'nothing'}"
        )
    network.load_state_dict(fitting, strict=False)
    return tuple(own.keys() - fitting.keys()), tuple(given.keys() - fitting.keys())


def _without_prefix(
    state: Mapping[str, "torch.Tensor"], own: Mapping[str, "torch.Tensor"]
) -> dict[str, "torch.Tensor"]:
    """The state under the names that fit best: as they are, or without their first words."""
    prefixes = {""}
    for name in state:
        words = name.split(".")
        prefixes |= {".".join(words[:count]) + "." for count in range(1, min(3, len(words)))}
    best = max(sorted(prefixes), key=lambda p: sum(p + name in state for name in own))
    return {n.removeprefix(best): value for n, value in state.items() if n.startswith(best)}
