"""Prove the reading of OpenFace's nn4.small2.v1.t7 on a file like it, with made-up weights.

    pip install "opencv-python-headless<5"      # the last that reads Torch's files
    python tools/openface.py [--keep FILE.t7]

The published file could not be had where this was written. So its network is written as Torch
writes it, with weights made up; OpenCV, which has its own reader and its own layers, computes
vectors of real faces from that file, and so does the ONNX file that mien converts it to.
"""

from __future__ import annotations

import argparse
import struct
import sys
import tempfile
from collections.abc import Mapping
from importlib import resources
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn

from mien import cards, networks
from mien.alignment import align
from mien.images import read_image
from mien.inference import session_of, to_batch
from mien.networks.nn4_small2 import Joined, Root, Scaled, Squared
from mien.training.conversion import convert
from mien.types import Landmarks

CARD = "openface-nn4-small2"
AGREEMENT = 1e-5  # of numbers of vectors of length one


def made_up() -> nn.Module:
    """The network with weights that keep numbers in range, and uneven statistics."""
    torch.manual_seed(7)
    network = networks.build("nn4_small2", 128, size=96).eval()
    for module in network.modules():
        if isinstance(module, nn.BatchNorm2d):
            nn.init.uniform_(module.weight, 0.5, 1.5)
            nn.init.normal_(module.bias, std=0.2)
            nn.init.normal_(module.running_mean, std=0.2)
            nn.init.uniform_(module.running_var, 0.5, 1.5)
    return network


# --- writing as Torch does ---------------------------------------------------------------


class Lua:
    """An object of a Lua class: written as its name and the table of its fields."""

    def __init__(self, name: str, /, **fields: Any) -> None:
        self.name, self.fields = name, fields


def written(value: object, after: int = 0) -> bytes:
    """A value as `torch.save` writes it in binary, objects numbered from `after` on."""
    return _Writer(after).value(value)


class _Writer:
    def __init__(self, count: int) -> None:
        self._count = count

    def value(self, value: object) -> bytes:
        match value:
            case None:
                return struct.pack("<i", 0)
            case bool():
                return struct.pack("<ii", 5, value)
            case int() | float():
                return struct.pack("<id", 1, value)
            case str():
                return struct.pack("<i", 2) + self._text(value)
            case list():
                return self.value(dict(enumerate(value, 1)))
            case dict():
                start = struct.pack("<iii", 3, self._number(), len(value))
                return start + b"".join(self.value(k) + self.value(v) for k, v in value.items())
            case np.ndarray():
                return self._tensor(value)
            case tuple():
                return self._storage(np.array(value, np.int64))
            case Lua():
                return self._object(value.name) + self.value(value.fields)
        raise TypeError(f"{type(value).__name__} is not written")

    def _tensor(self, array: np.ndarray) -> bytes:
        array = np.ascontiguousarray(array, np.float32)
        steps = [step // array.itemsize for step in array.strides]
        shape = struct.pack(f"<i{2 * array.ndim}q", array.ndim, *array.shape, *steps)
        head = self._object("torch.FloatTensor")
        return head + shape + struct.pack("<q", 1) + self._storage(array.ravel())

    def _storage(self, numbers: np.ndarray) -> bytes:
        kind = {"float32": "Float", "int64": "Long"}[numbers.dtype.name]
        return (
            self._object(f"torch.{kind}Storage")
            + struct.pack("<q", numbers.size) + numbers.tobytes()
        )  # fmt: skip

    def _object(self, name: str) -> bytes:
        return struct.pack("<ii", 4, self._number()) + self._text("V 1") + self._text(name)

    def _text(self, text: str) -> bytes:
        return struct.pack("<i", len(text)) + text.encode("latin-1")

    def _number(self) -> int:
        self._count += 1
        return self._count


def as_lua(module: nn.Module) -> Lua:
    """A module of the network as the Torch module that it stands for."""
    tensors = {name: value.numpy() for name, value in module.state_dict().items()}
    children = [as_lua(child) for child in module.children()]
    match module:
        case nn.Conv2d(kernel_size=(kernel, _), stride=(stride, _), padding=(padding, _)):
            matrix = tensors["weight"].reshape(module.out_channels, -1)
            return Lua(
                "nn.SpatialConvolutionMM", nInputPlane=module.in_channels,
                nOutputPlane=module.out_channels, kW=kernel, kH=kernel, dW=stride, dH=stride,
                padW=padding, padH=padding, weight=matrix, bias=tensors["bias"],
            )  # fmt: skip
        case nn.BatchNorm2d():
            del tensors["num_batches_tracked"]
            return Lua("nn.SpatialBatchNormalization", eps=module.eps, affine=True, **tensors)
        case nn.MaxPool2d(kernel_size=kernel, stride=stride, padding=padding):
            return Lua(
                "nn.SpatialMaxPooling", kW=kernel, kH=kernel, dW=stride, dH=stride,
                padW=padding, padH=padding, ceil_mode=False,
            )  # fmt: skip
        case nn.LocalResponseNorm():
            return Lua("nn.SpatialCrossMapLRN", size=5, alpha=1e-4, beta=0.75, k=1)
        case nn.AvgPool2d() | nn.AdaptiveAvgPool2d():
            return _average(3, 3)
        case nn.Linear():
            return Lua("nn.Linear", **tensors)
        case Scaled():
            return Lua("nn.MulConstant", constant_scalar=float(tensors["constant_scalar"]))
        case Joined():
            return Lua("nn.DepthConcat", dimension=2, modules=children)
        case nn.Sequential():
            return Lua(f"nn.{_container(module)}", modules=children)
        case nn.Identity():
            return Lua("nn.Reshape", size=(736, 3, 3), nelement=6624)
        case nn.Flatten() | nn.Dropout():
            return Lua("nn.View", size=(736,), numElements=736)
    plain: Mapping[type, str] = {nn.ReLU: "ReLU", Squared: "Square", Root: "Sqrt"}
    return Lua(f"nn.{plain[type(module)]}")


def _container(module: nn.Sequential) -> str:
    if isinstance(module[0], Joined):
        return "Inception"
    return "SpatialLPPooling" if isinstance(module[0], Squared) else "Sequential"


def _average(kernel: int, stride: int) -> Lua:
    return Lua(
        "nn.SpatialAveragePooling", kW=kernel, kH=kernel, dW=stride, dH=stride, padW=0, padH=0,
        ceil_mode=False, count_include_pad=True, divide=True,
    )  # fmt: skip


def file_of(network: nn.Module) -> bytes:
    """The network as a .t7 file, with the scaling to length one that is its last module."""
    whole = as_lua(network)
    whole.fields["modules"].append(Lua("nn.Normalize", p=2, eps=1e-10))
    return written(whole)


# --- the comparison ----------------------------------------------------------------------


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--keep", type=Path, metavar="FILE.t7", help="keep the file made up")
    given = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        path = given.keep or Path(folder) / "made-up.t7"
        path.write_bytes(file_of(made_up()))
        card = cards.model_card(CARD)
        ours = session_of(CARD, convert(card, card.files[0], path))
        theirs = opencv(path)
        batch = faces(card)
        (found,) = ours(batch)
        found = found / np.linalg.norm(found, axis=1, keepdims=True)
        expected = np.concatenate([theirs(face[None]) for face in batch])
        off = float(np.abs(found - expected).max())
        print(f"{len(batch)} faces: vectors of OpenCV and of ours differ by at most {off:.1e}")
        return 0 if off < AGREEMENT else 1


def opencv(path: Path) -> Any:
    import cv2

    network = cv2.dnn.readNetFromTorch(str(path))

    def run(batch: np.ndarray) -> np.ndarray:
        network.setInput(batch)
        return np.asarray(network.forward()).reshape(len(batch), -1)

    return run


def faces(card: cards.ModelCard) -> np.ndarray:
    """The faces of the pictures inside mien as the network is given them, and mirrored."""
    frame = card.input.frame
    if frame is None:
        raise SystemExit(f"the card of {card.id} does not say which crop it wants")
    crops = []
    for name in ("dlib-resnet-v1", "retinaface-mobilenet025"):
        golden = cards.model_card(name).golden
        if golden is None:
            raise SystemExit(f"the card of {name} has no golden results")
        picture = resources.files("mien").joinpath("bundled", "pictures", golden.picture)
        points = Landmarks(np.array(golden.landmarks, np.float32))
        pixels = align(read_image(picture.read_bytes()), points, frame).pixels
        crops += [pixels, pixels[:, ::-1]]
    return to_batch(card.input, np.stack(crops))


if __name__ == "__main__":
    sys.exit(main())
