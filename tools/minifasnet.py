"""Build the ONNX graphs of the two liveness networks from their published weights.

Each graph computes what the published network does, from raw RGB pixels: the order of the channels
is reversed inside the first convolution, and batch normalisation is folded into the convolutions.
"""

from __future__ import annotations

import io
from typing import Any

import numpy as np
import torch
from onnx import TensorProto
from torch import Tensor, nn

from mien.networks.minifasnet import MiniFasNet, minifasnet_v1_se, minifasnet_v2
from onnx_writer import GraphWriter, Signature

SIDE = 80
PIXELS: Signature = {"pixels": (TensorProto.UINT8, ("n", SIDE, SIDE, 3))}
LOGITS: Signature = {"logits": (TensorProto.FLOAT, ("n", 3))}
DOC = (
    "{name} by Minivision (Apache-2.0). pixels: RGB crops around a face, 0..255. logits: before "
    "the softmax; the second class is a living face."
)


def load(published: bytes) -> MiniFasNet:
    """The network with the weights of a published `.pth`: tensors only, no code is run."""
    state: dict[str, Tensor] = torch.load(io.BytesIO(published), "cpu", weights_only=True)
    state = {name.removeprefix("module."): value for name, value in state.items()}
    excited = any("se_module" in name for name in state)
    net = minifasnet_v1_se() if excited else minifasnet_v2()
    net.load_state_dict(state)
    return net.eval()


def build(net: MiniFasNet, name: str) -> bytes:
    """The ONNX file of a network."""
    return _Writer(name).write(net)


class _Writer:
    def __init__(self, name: str) -> None:
        self._graph = GraphWriter(name)
        self._name = name

    def write(self, net: MiniFasNet) -> bytes:
        graph = self._graph
        planes = graph.node("Transpose", "pixels.planes", ["pixels"], perm=[0, 3, 1, 2])
        x = graph.node("Cast", "pixels.float", [planes], to=TensorProto.FLOAT)
        x = self._unit("conv1", x, net.conv1, reverse=True)
        x = self._unit("conv2_dw", x, net.conv2_dw)
        x = self._inverted("conv_23", x, net.conv_23)
        x = self._stage("conv_3", x, net.conv_3)
        x = self._inverted("conv_34", x, net.conv_34)
        x = self._stage("conv_4", x, net.conv_4)
        x = self._inverted("conv_45", x, net.conv_45)
        x = self._stage("conv_5", x, net.conv_5)
        x = self._unit("conv_6_sep", x, net.conv_6_sep)
        x = self._unit("conv_6_dw", x, net.conv_6_dw)
        x = graph.node("Flatten", "flat", [x])
        gain, offset = _frozen(net.bn)
        weight = _array(net.prob.weight) @ (gain[:, None] * _array(net.linear.weight))
        bias = _array(net.prob.weight) @ offset
        inputs = [x, self._constant("prob.weight", weight.T), self._constant("prob.bias", bias)]
        graph.node("Gemm", "logits", inputs)
        return graph.serialize(PIXELS, LOGITS, DOC.format(name=self._name))

    def _stage(self, name: str, x: str, stage: Any) -> str:
        for number, block in enumerate(stage.model):
            x = self._inverted(f"{name}.{number}", x, block)
        return x

    def _inverted(self, name: str, x: str, block: Any) -> str:
        y = self._unit(f"{name}.conv", x, block.conv)
        y = self._unit(f"{name}.dw", y, block.conv_dw)
        y = self._unit(f"{name}.project", y, block.project)
        if hasattr(block, "se_module"):
            y = self._excitation(f"{name}.se", y, block.se_module)
        return self._graph.node("Add", name, [x, y]) if block.residual else y

    def _excitation(self, name: str, x: str, module: Any) -> str:
        graph = self._graph
        mean = graph.node("GlobalAveragePool", f"{name}.mean", [x])
        inner = self._convolution(f"{name}.fc1", mean, module.fc1, module.bn1)
        inner = graph.node("Relu", f"{name}.relu", [inner])
        outer = self._convolution(f"{name}.fc2", inner, module.fc2, module.bn2)
        gate = graph.node("Sigmoid", f"{name}.gate", [outer])
        return graph.node("Mul", name, [x, gate])

    def _unit(self, name: str, x: str, unit: Any, *, reverse: bool = False) -> str:
        y = self._convolution(f"{name}.linear", x, unit.conv, unit.bn, reverse=reverse)
        if not hasattr(unit, "prelu"):
            return y
        slope = self._constant(f"{name}.slope", _array(unit.prelu.weight)[:, None, None])
        return self._graph.node("PRelu", name, [y, slope])

    def _convolution(
        self, name: str, x: str, conv: nn.Conv2d, bn: nn.BatchNorm2d, *, reverse: bool = False
    ) -> str:
        gain, offset = _frozen(bn)
        weight = _array(conv.weight) * gain[:, None, None, None]
        if reverse:  # trained on BGR
            weight = weight[:, ::-1]
        inputs = [
            x, self._constant(f"{name}.weight", weight), self._constant(f"{name}.bias", offset)
        ]  # fmt: skip
        return self._graph.node(
            "Conv", name, inputs, kernel_shape=list(conv.kernel_size), strides=list(conv.stride),
            pads=list(conv.padding) * 2, group=conv.groups,
        )  # fmt: skip

    def _constant(self, name: str, value: np.ndarray) -> str:
        return self._graph.constant(name, value.astype(np.float32))


def _frozen(bn: nn.BatchNorm1d | nn.BatchNorm2d) -> tuple[np.ndarray, np.ndarray]:
    """Batch normalisation as one gain and one offset a channel."""
    assert bn.running_mean is not None
    assert bn.running_var is not None
    gain = _array(bn.weight) / np.sqrt(_array(bn.running_var) + bn.eps)
    return gain, _array(bn.bias) - gain * _array(bn.running_mean)


def _array(tensor: Tensor) -> np.ndarray:
    return np.asarray(tensor.detach().numpy(), np.float64)
