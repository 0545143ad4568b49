"""Build ONNX graphs of dlib's face recognition ResNet.

Two graphs of the same network, both from raw RGB pixels to the descriptor:

* `float_model`: computes in float32; weights stored as float16, which halves
  the file and costs nothing at run time (ONNX Runtime folds the casts at load).
* `int8_model`: statically quantised, uint8 activations and int8 weights per
  output channel, the one combination that ONNX Runtime runs at full speed on
  processors with VNNI. Written by hand rather than by a quantisation tool so
  that the bytes depend on nothing but this file and the committed ranges.

Two habits of dlib decide the shapes. A convolution or pool with a stride above
one is not padded. And the residual addition extends the smaller operand with
zeros in *every* dimension: where a block halves the plane, the shortcut lacks
channels, and in the last two such blocks the main branch also comes out one row
and one column short of the shortcut.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from typing import Protocol, TypeVar

import numpy as np
from onnx import TensorProto

from dlib_stream import (
    AddPrevious,
    Affine,
    Convolution,
    FullyConnected,
    InputLayer,
    Layer,
    Pool,
    Relu,
    Weights,
    read_network,
)
from onnx_writer import GraphWriter, Signature

SIDE = 150
DIMENSIONS = 128
PIXELS: Signature = {"pixels": (TensorProto.UINT8, ("n", SIDE, SIDE, 3))}
EMBEDDING: Signature = {"embedding": (TensorProto.FLOAT, ("n", DIMENSIONS))}
DOC = (
    "dlib_face_recognition_resnet_model_v1 by Davis King (CC0). pixels: RGB face chips, "
    "0..255. embedding: dlib's descriptor, not normalised to unit length."
)

L = TypeVar("L", bound=Layer)
Ranges = Mapping[str, tuple[float, float]]


@dataclass(frozen=True)
class Block:
    """Two convolutions and a shortcut around them."""

    name: str
    first: Convolution
    second: Convolution
    halves: bool  # the plane; the shortcut is then average-pooled 2x2


@dataclass(frozen=True)
class ResNet:
    """The network with normalisation and batch normalisation folded into the convolutions."""

    stem: Convolution
    blocks: tuple[Block, ...]
    head: Weights  # (channels, DIMENSIONS)


# --- from dlib's layers to a ResNet ---------------------------------------------------


def read_resnet(data: bytes) -> ResNet:
    """Fold the layers of a dlib `.dat` stream into a `ResNet`."""
    source, layers = read_network(data)
    rest = _Layers(layers)
    stem = _fold_input(source, rest.folded_convolution())
    rest.take(Relu)
    rest.take(Pool)

    blocks: list[Block] = []
    while isinstance(rest.peek(), Convolution):
        first = rest.folded_convolution()
        rest.take(Relu)
        second = rest.folded_convolution()
        halves = isinstance(rest.peek(), Pool)
        if halves:
            rest.take(Pool)
        rest.take(AddPrevious)
        rest.take(Relu)
        blocks.append(Block(f"block{len(blocks) + 1:02}", first, second, halves))

    rest.take(Pool)
    return ResNet(stem, tuple(blocks), rest.take(FullyConnected).weight)


class _Layers:
    """Take layers one by one, each of the kind that the architecture has next."""

    def __init__(self, layers: Iterable[Layer]) -> None:
        self._left = list(layers)

    def peek(self) -> Layer | None:
        return self._left[0] if self._left else None

    def take(self, kind: type[L]) -> L:
        layer = self.peek()
        if not isinstance(layer, kind):
            raise ValueError(f"{kind.__name__} expected in the network, found {layer}")
        self._left.pop(0)
        return layer

    def folded_convolution(self) -> Convolution:
        """gain * (W x + b) + offset, as one convolution."""
        conv, affine = self.take(Convolution), self.take(Affine)
        gain, offset = (a.astype(np.float64) for a in (affine.gain, affine.offset))
        return replace(
            conv,
            weight=(conv.weight * gain[:, None, None, None]).astype(np.float32),
            bias=(conv.bias * gain + offset).astype(np.float32),
        )


def _fold_input(source: InputLayer, stem: Convolution) -> Convolution:
    """Fold (pixel - mean) / 256: exact because the first convolution is not padded."""
    weight = stem.weight.astype(np.float64) / 256
    mean = np.asarray(source.mean_rgb)[:, None, None]
    bias = stem.bias - (weight * mean).sum(axis=(1, 2, 3))
    return replace(stem, weight=weight.astype(np.float32), bias=bias.astype(np.float32))


# --- the graph, whatever its arithmetic -----------------------------------------------


class _Backend(Protocol):
    """How one kind of arithmetic writes each operation. Tensors are known by name."""

    def convolution(self, name: str, x: str, conv: Convolution, *, relu: bool) -> str: ...
    def max_pool(self, name: str, x: str) -> str: ...
    def average_pool(self, name: str, x: str) -> str: ...
    def extend(self, name: str, x: str, channels: int, side: int) -> str: ...
    def add_relu(self, name: str, main: str, shortcut: str) -> str: ...
    def head(self, main: str, shortcut: str, weight: Weights) -> str: ...


def _write(net: ResNet, to: _Backend, pixels: str) -> None:
    x = to.max_pool("pool", to.convolution("stem", pixels, net.stem, relu=True))
    side = (_side_after(net.stem, SIDE) - 3) // 2 + 1
    for block in net.blocks:
        main = to.convolution(f"{block.name}.first", x, block.first, relu=True)
        main = to.convolution(f"{block.name}.second", main, block.second, relu=False)
        main_side = _side_after(block.second, _side_after(block.first, side))
        shortcut = x
        if block.halves:
            side //= 2
            shortcut = to.average_pool(f"{block.name}.shortcut", x)
            filters, channels = block.first.weight.shape[:2]
            if filters > channels:
                shortcut = to.extend(f"{block.name}.shortcut.wide", shortcut, filters - channels, 0)
        if main_side < side:
            main = to.extend(f"{block.name}.second.tall", main, 0, side - main_side)
        if block is net.blocks[-1]:
            to.head(main, shortcut, net.head)
        else:
            x = to.add_relu(block.name, main, shortcut)


def _side_after(conv: Convolution, side: int) -> int:
    size: int = conv.weight.shape[2]
    return (side + 2 * conv.padding - size) // conv.stride + 1


def _window(conv: Convolution) -> dict[str, list[int]]:
    return {
        "kernel_shape": list(conv.weight.shape[2:]),
        "strides": [conv.stride] * 2,
        "pads": [conv.padding] * 4,
    }


MAX_POOL = {"kernel_shape": [3, 3], "strides": [2, 2]}
AVERAGE_POOL = {"kernel_shape": [2, 2], "strides": [2, 2]}


# --- float32 --------------------------------------------------------------------------


def float_model(net: ResNet, expose: Iterable[str] = ()) -> bytes:
    """The network in float32, weights stored as float16.

    `expose` names inner tensors (see `quantized_tensors`) to add to the outputs.
    """
    graph = GraphWriter("dlib-resnet-v1-fp16")
    planes = graph.node("Transpose", "pixels.planes", ["pixels"], perm=[0, 3, 1, 2])
    pixels = graph.node("Cast", "pixels.float", [planes], to=TensorProto.FLOAT)
    _write(net, _Float(graph), pixels)
    exposed = dict.fromkeys(expose, (TensorProto.FLOAT, ("n", None, None, None)))
    return graph.serialize(PIXELS, {**EMBEDDING, **exposed}, DOC)


class _Float:
    def __init__(self, graph: GraphWriter) -> None:
        self._graph = graph

    def convolution(self, name: str, x: str, conv: Convolution, *, relu: bool) -> str:
        graph = self._graph
        # The stem's weights carry the 1/256 of the input scaling: many would be
        # float16 subnormals and lose most of their digits. It is small: keep it.
        if name == "stem":
            weight = graph.constant(f"{name}.weight", conv.weight)
        else:
            weight = _half(graph, f"{name}.weight", conv.weight)
        bias = graph.constant(f"{name}.bias", conv.bias)
        if not relu:
            return graph.node("Conv", name, [x, weight, bias], **_window(conv))
        linear = graph.node("Conv", f"{name}.linear", [x, weight, bias], **_window(conv))
        return graph.node("Relu", name, [linear])

    def max_pool(self, name: str, x: str) -> str:
        return self._graph.node("MaxPool", name, [x], **MAX_POOL)

    def average_pool(self, name: str, x: str) -> str:
        return self._graph.node("AveragePool", name, [x], **AVERAGE_POOL)

    def extend(self, name: str, x: str, channels: int, side: int) -> str:
        ends = self._graph.constant(f"{name}.pads", _pads(channels, side))
        return self._graph.node("Pad", name, [x, ends])

    def add_relu(self, name: str, main: str, shortcut: str) -> str:
        total = self._graph.node("Add", f"{name}.sum", [main, shortcut])
        return self._graph.node("Relu", name, [total])

    def head(self, main: str, shortcut: str, weight: Weights) -> str:
        return _float_head(self._graph, main, shortcut, weight)


def _half(graph: GraphWriter, name: str, weight: Weights) -> str:
    stored = graph.constant(f"{name}.half", weight.astype(np.float16))
    return graph.node("Cast", name, [stored], to=TensorProto.FLOAT)


def _pads(channels: int, side: int) -> np.ndarray:
    """Nothing before; `channels`, and `side` rows and columns, after."""
    return np.array([0, 0, 0, 0, 0, channels, side, side], np.int64)


def _float_head(graph: GraphWriter, main: str, shortcut: str, weight: Weights) -> str:
    total = graph.node("Add", "head.sum", [main, shortcut])
    features = graph.node("Relu", "head.features", [total])
    mean = graph.node("GlobalAveragePool", "head.mean", [features])
    flat = graph.node("Flatten", "head.flat", [mean])
    return graph.node("MatMul", "embedding", [flat, _half(graph, "head.weight", weight)])


# --- int8 -----------------------------------------------------------------------------


def quantized_tensors(net: ResNet) -> list[str]:
    """The tensors whose ranges `int8_model` needs, under their names in `float_model`."""
    names = ["stem"]
    for block in net.blocks:
        names += [f"{block.name}.first", f"{block.name}.second"]
        if block.halves:
            names.append(f"{block.name}.shortcut")
        if block is not net.blocks[-1]:
            names.append(block.name)
    return names


def int8_model(net: ResNet, ranges: Ranges) -> bytes:
    """The network in uint8 x int8 arithmetic, from the value range of each tensor."""
    graph = GraphWriter("dlib-resnet-v1-int8")
    pixels = graph.node("Transpose", "pixels.planes", ["pixels"], perm=[0, 3, 1, 2])
    _write(net, _Int8(graph, ranges, pixels), pixels)
    return graph.serialize(PIXELS, EMBEDDING, DOC)


@dataclass(frozen=True)
class Scale:
    """A uint8 tensor's meaning: value = (stored - zero) * step."""

    step: np.float32
    zero: np.uint8

    @classmethod
    def covering(cls, low: float, high: float) -> Scale:
        low, high = min(low, 0.0), max(high, 0.0)  # zero must be exact: padding stores it
        step = (high - low) / 255
        return cls(np.float32(step), np.uint8(round(-low / step)))


class _Int8:
    """Writes QuantizeLinear / DequantizeLinear around every operation.

    Tensor names stand for the uint8 tensors; `_scales` knows what each means.
    There is no Relu: a tensor that follows one has zero point 0, and quantising
    saturates there, which is the same thing at no cost.
    """

    def __init__(self, graph: GraphWriter, ranges: Ranges, pixels: str) -> None:
        self._graph = graph
        self._ranges = ranges
        # Pixels are already the quantised tensor, of step 1.
        self._scales = {pixels: Scale(np.float32(1), np.uint8(0))}
        self._explained: set[str] = set()  # tensors whose constants are written

    def convolution(self, name: str, x: str, conv: Convolution, *, relu: bool) -> str:
        graph = self._graph
        steps = np.abs(conv.weight).max(axis=(1, 2, 3)) / np.float32(127)
        weight = np.rint(conv.weight / steps[:, None, None, None]).astype(np.int8)
        bias_steps = steps * self._scales[x].step
        bias = np.rint(conv.bias.astype(np.float64) / bias_steps).astype(np.int32)
        inputs = [
            self._dequantized(x, f"{name}.in"),
            self._constant(f"{name}.weight", weight, steps),
            self._constant(f"{name}.bias", bias, bias_steps),
        ]
        linear = graph.node("Conv", f"{name}.float", inputs, **_window(conv))
        return self._quantized(name, linear, self._range(name, relu))

    def max_pool(self, name: str, x: str) -> str:
        self._scales[name] = self._scales[x]
        return self._graph.node("MaxPool", name, [x], **MAX_POOL)

    def average_pool(self, name: str, x: str) -> str:
        real = self._dequantized(x, f"{name}.in")
        mean = self._graph.node("AveragePool", f"{name}.float", [real], **AVERAGE_POOL)
        return self._quantized(name, mean, self._range(name, relu=True))

    def extend(self, name: str, x: str, channels: int, side: int) -> str:
        scale = self._scales[name] = self._scales[x]
        ends = self._graph.constant(f"{name}.pads", _pads(channels, side))
        fill = self._graph.constant(f"{name}.fill", np.array(scale.zero))
        return self._graph.node("Pad", name, [x, ends, fill])

    def add_relu(self, name: str, main: str, shortcut: str) -> str:
        terms = [
            self._dequantized(main, f"{name}.sum.main"),
            self._dequantized(shortcut, f"{name}.sum.shortcut"),
        ]
        total = self._graph.node("Add", f"{name}.float", terms)
        return self._quantized(name, total, self._range(name, relu=True))

    def head(self, main: str, shortcut: str, weight: Weights) -> str:
        """In float: 0.01% of the work, and its rounding would go straight into the result."""
        main = self._dequantized(main, "head.main")
        shortcut = self._dequantized(shortcut, "head.shortcut")
        return _float_head(self._graph, main, shortcut, weight)

    def _range(self, name: str, relu: bool) -> Scale:
        low, high = self._ranges[name]
        return Scale.covering(0.0 if relu else low, high)

    def _quantized(self, name: str, real: str, scale: Scale) -> str:
        self._scales[name] = scale
        return self._graph.node("QuantizeLinear", name, [real, *self._meaning(name)])

    def _dequantized(self, x: str, name: str) -> str:
        return self._graph.node("DequantizeLinear", name, [x, *self._meaning(x)])

    def _meaning(self, tensor: str) -> list[str]:
        step, zero = f"{tensor}.step", f"{tensor}.zero"
        if tensor not in self._explained:
            self._explained.add(tensor)
            self._graph.constant(step, np.array(self._scales[tensor].step))
            self._graph.constant(zero, np.array(self._scales[tensor].zero))
        return [step, zero]

    def _constant(self, name: str, stored: np.ndarray, steps: Weights) -> str:
        """A constant with one step a channel and zero points of 0."""
        graph = self._graph
        inputs = [
            graph.constant(f"{name}.stored", stored),
            graph.constant(f"{name}.steps", steps.astype(np.float32)),
            graph.constant(f"{name}.zeros", np.zeros(len(steps), stored.dtype)),
        ]
        return graph.node("DequantizeLinear", name, inputs, axis=0)
