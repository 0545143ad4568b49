"""Compare the architectures of `mien.networks` with the packages whose checkpoints they take.

    pip download --no-deps -d wheels facenet-pytorch==2.6.0 timm==1.0.31 torchvision==0.28.0
    python tools/reference_networks.py wheels -o tests/networks/reference.json

Each network is built by its package and by mien, both get the same made-up weights, and then the
names and shapes of all tensors and the outputs have to be equal. What the package gave is written
down, so that tests can compare without it. The packages are unpacked and imported from there: their
pins (torch, numpy) do not matter, and nothing is installed.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import sys
import tempfile
import zipfile
import zlib
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from mien import networks

# name in mien: (module of the package, how it is made there, size, options here, classifier)
Case = tuple[str, Callable[[Any], nn.Module], int, dict[str, int], tuple[str, ...]]
CASES: Mapping[str, Case] = {
    "inception_resnet_v1": (
        "facenet_pytorch.models.inception_resnet_v1",
        lambda m: m.InceptionResnetV1(num_classes=10, classify=False), 160, {}, ("logits",),
    ),
    "inception_resnet_v2": (
        "timm.models.inception_resnet_v2", lambda m: m.inception_resnet_v2(), 160, {}, ("classif",),
    ),
    "mobilenet_v2": (
        "torchvision.models", lambda m: m.mobilenet_v2(), 112, {}, ("classifier",),
    ),
    "resnet18": ("torchvision.models", lambda m: m.resnet18(), 112, {}, ("fc",)),
    "resnet34": ("torchvision.models", lambda m: m.resnet34(), 112, {}, ("fc",)),
    "resnet50": ("torchvision.models", lambda m: m.resnet50(), 112, {}, ("fc",)),
    "vgg19": ("torchvision.models", lambda m: m.vgg19(), 112, {}, ("classifier",)),
    "vgg19_bn": ("torchvision.models", lambda m: m.vgg19_bn(), 112, {}, ("classifier",)),
    "vit_tiny": (
        "timm.models.vision_transformer", lambda m: m.vit_tiny_patch16_224(), 224, {"patch": 16},
        ("head",),
    ),
    "vit_small": (
        "timm.models.vision_transformer", lambda m: m.vit_small_patch16_224(), 224, {"patch": 16},
        ("head",),
    ),
}  # fmt: skip


def numbers(name: str, shape: tuple[int, ...]) -> np.ndarray:
    """Numbers in [-1, 1) that follow from a name alone, on every machine and version."""
    raw = np.random.PCG64(zlib.crc32(name.encode())).random_raw(int(np.prod(shape)))
    return (raw.astype(np.float64) / 2.0**63 - 1.0).reshape(shape).astype(np.float32)


def made_up(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Weights for a state dict of any network, from the names of its tensors.

    Scales are such that signals neither die nor explode: (3 / inputs) ** 0.5 for matrices, twice
    the variance for convolutions, 0.5 to 1.5 for scales and variances.
    """
    made = {}
    for name, tensor in state.items():
        shape = tuple(tensor.shape)
        if not tensor.is_floating_point():
            made[name] = torch.zeros_like(tensor)
            continue
        value = numbers(name, shape)
        if len(shape) >= 2:
            inputs = int(np.prod(shape[1:]))
            value = value * (6.0 if len(shape) == 4 else 3.0) ** 0.5 / inputs**0.5
        elif name.endswith(("running_var", "weight")):
            value = 1.0 + value / 2
        else:
            value = value / 10
        made[name] = torch.from_numpy(np.asarray(value, np.float32))
    return made


def picture(size: int) -> Tensor:
    """Two made-up pictures (2, 3, size, size)."""
    return torch.from_numpy(numbers(f"picture {size}", (2, 3, size, size)))


def described(state: Mapping[str, Tensor]) -> str:
    """The SHA-256 of all names and shapes."""
    lines = sorted(f"{name} {tuple(tensor.shape)}\n" for name, tensor in state.items())
    return hashlib.sha256("".join(lines).encode()).hexdigest()


def features(network: nn.Module, name: str, x: Tensor) -> Tensor:
    """What a network of a package gives before its classifier, averaged over the picture."""
    with torch.no_grad():
        if name == "inception_resnet_v1":
            return network(x)
        if name.startswith("vit"):
            return network.forward_features(x)[:, 0]
        if name.startswith("resnet"):
            network.fc = nn.Identity()
            return network(x)
        inner = network.forward_features if name == "inception_resnet_v2" else network.features
        return inner(x).mean(dim=(2, 3))


def ours(name: str, size: int, options: Mapping[str, int]) -> nn.Module:
    """Our network without the embedding that it puts in place of a classifier."""
    network = networks.build(name, 512, size=size, **options)
    if hasattr(network, "embedding"):
        network.embedding = nn.Identity()
    return network.eval()


def compare(name: str) -> dict[str, Any]:
    """Build one network twice; fail unless both are the same; describe what the package gave."""
    module, maker, size, options, classifier = CASES[name]
    reference = maker(__import__(module, fromlist=["_"])).eval()
    state = {
        key: value
        for key, value in reference.state_dict().items()
        if key.split(".")[0] not in classifier
    }
    weights = made_up(state)
    reference.load_state_dict(weights, strict=False)
    network = ours(name, size, options)
    network.load_state_dict(weights, strict=True)  # key by key, shape by shape
    expected = features(reference, name, picture(size))
    with torch.no_grad():
        found = network(picture(size))
    if name == "inception_resnet_v1":  # the package scales to length one, mien leaves that
        found = nn.functional.normalize(found)
    off = float((found - expected).abs().max() / expected.abs().max())
    spread = float((expected[0] - expected[1]).abs().max() / expected.abs().max())
    print(f"{name:<20} {len(state):>4} tensors equal, outputs differ by {off:.1e}, "
          f"two pictures by {spread:.2f}")  # fmt: skip
    if off > 1e-4 or spread < 0.01:
        raise SystemExit(f"{name}: the outputs are not those of {module}")
    return {
        "package": module.split(".")[0], "size": size, "options": options,
        "tensors": len(state), "names_sha256": described(state),
        "length": float(expected.norm()),
        "output": [round(float(value), 7) for value in expected[:, :16].flatten()],
    }  # fmt: skip


def importable(wheels: Path, folder: Path) -> torch.library.Library:
    """Unpack wheels and make them importable on a CPU-only PyTorch, while the result lives."""
    for wheel in wheels.glob("*.whl"):
        with zipfile.ZipFile(wheel) as box:
            box.extractall(folder)
    sys.path.insert(0, str(folder))
    # The compiled operators need CUDA libraries; the two that are looked up by name on import are
    # declared instead, and no network here uses them.
    library = torch.library.Library("torchvision", "DEF")
    for operator in ("nms", "qnms"):
        library.define(f"{operator}(Tensor dets, Tensor scores, float iou_threshold) -> Tensor")
    return library


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("wheels", type=Path, help="folder with the packages' wheels")
    parser.add_argument("-o", "--output", type=Path, required=True)
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        library = importable(arguments.wheels, Path(folder))
        found = {name: compare(name) for name in CASES}
        del library
    arguments.output.write_text(json.dumps(found, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
