"""Build the ONNX graph of dlib's gender classifier from its published `.dat.bz2`.

The network (Antipov et al., "Minimalistic CNN-based ensemble model for gender
prediction from face images", 2016, in the form of Cydral Technology) is a plain
chain: convolutions, average pools and two fully connected layers. The published
file is a training checkpoint: batch normalisation and dropout are frozen on
reading, as dlib does it.
"""

from __future__ import annotations

import bz2

import numpy as np
from onnx import TensorProto

from dlib_stream import (
    Affine,
    Convolution,
    FullyConnected,
    InputLayer,
    Multiply,
    Pool,
    Relu,
    read_network,
)
from onnx_writer import GraphWriter, Signature

SIDE = 32
PIXELS: Signature = {"pixels": (TensorProto.UINT8, ("n", SIDE, SIDE, 3))}
LOGITS: Signature = {"logits": (TensorProto.FLOAT, ("n", 2))}
DOC = (
    "dnn_gender_classifier_v1 by Cydral Technology, published with dlib-models (CC0). pixels: RGB "
    "face chips, 0..255. logits: female, male, before the softmax."
)


def build(published: bytes) -> bytes:
    """The ONNX file of the published one."""
    source, layers = read_network(bz2.decompress(published))
    graph = GraphWriter("dlib-gender-v1")
    x = _normalised(graph, source)
    for position, layer in enumerate(layers):
        name = f"layer{position:02}" if position + 1 < len(layers) else "logits"
        match layer:
            case Convolution():
                window = {
                    "kernel_shape": list(layer.weight.shape[2:]),
                    "strides": [layer.stride] * 2,
                    "pads": [layer.padding] * 4,
                }
                inputs = [x, *_constants(graph, name, weight=layer.weight, bias=layer.bias)]
                x = graph.node("Conv", name, inputs, **window)
            case Affine():
                planes = {"gain": layer.gain[:, None, None], "offset": layer.offset[:, None, None]}
                gain, offset = _constants(graph, name, **planes)
                scaled = graph.node("Mul", f"{name}.scaled", [x, gain])
                x = graph.node("Add", name, [scaled, offset])
            case Relu():
                x = graph.node("Relu", name, [x])
            case Pool(kind="avg"):
                size = [layer.size] * 2
                x = graph.node(
                    "AveragePool", name, [x], kernel_shape=size, strides=[layer.stride] * 2
                )
            case Multiply():
                x = graph.node("Mul", name, [x, *_constants(graph, name, factor=layer.factor)])
            case FullyConnected():
                flat = graph.node("Flatten", f"{name}.flat", [x])
                inputs = [flat, *_constants(graph, name, weight=layer.weight, bias=layer.bias)]
                x = graph.node("Gemm", name, inputs)
            case _:
                raise ValueError(f"{layer} does not belong in the gender classifier")
    return graph.serialize(PIXELS, LOGITS, DOC)


def _normalised(graph: GraphWriter, source: InputLayer) -> str:
    """(pixel - mean) / 256; not folded into the first convolution, which pads with zeros."""
    planes = graph.node("Transpose", "pixels.planes", ["pixels"], perm=[0, 3, 1, 2])
    real = graph.node("Cast", "pixels.float", [planes], to=TensorProto.FLOAT)
    mean = np.array(source.mean_rgb, np.float32)[:, None, None]
    inputs = [real, *_constants(graph, "pixels", mean=mean)]
    centred = graph.node("Sub", "pixels.centred", inputs)
    (step,) = _constants(graph, "pixels", step=1 / 256)
    return graph.node("Mul", "pixels.scaled", [centred, step])


def _constants(graph: GraphWriter, name: str, **values: float | np.ndarray) -> list[str]:
    return [
        graph.constant(f"{name}.{role}", np.asarray(value, np.float32))
        for role, value in values.items()
    ]
