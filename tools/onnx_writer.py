"""Write ONNX graphs node by node, the same bytes every time.

The shipped model files are reviewed by their hashes, so nothing that varies
between machines or library versions may reach them: names are chosen here,
producer fields are left empty, and serialisation is deterministic.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
import onnx
from onnx import helper, numpy_helper

# Old enough for ONNX Runtime 1.17, new enough for everything the graphs use.
OPSET = 17
IR_VERSION = 8

# Element type (of onnx.TensorProto) and shape by name; None is an unnamed dimension.
Signature = Mapping[str, tuple[int, Sequence[int | str | None]]]


class GraphWriter:
    """A graph under construction; every value in it goes by the name it was given."""

    def __init__(self, name: str) -> None:
        self._name = name
        self._nodes: list[onnx.NodeProto] = []
        self._constants: list[onnx.TensorProto] = []

    def constant(self, name: str, value: np.ndarray) -> str:
        self._constants.append(numpy_helper.from_array(np.asarray(value, order="C"), name))
        return name

    def node(
        self,
        op: str,
        name: str,
        inputs: Sequence[str],
        **attributes: int | float | str | Sequence[int],
    ) -> str:
        return self.nodes(op, [name], inputs, **attributes)[0]

    def nodes(
        self,
        op: str,
        outputs: Sequence[str],
        inputs: Sequence[str],
        **attributes: int | float | str | Sequence[int],
    ) -> Sequence[str]:
        """A node of several outputs; it is called after the first."""
        node = helper.make_node(op, inputs, outputs, outputs[0])
        for name, value in attributes.items():
            node.attribute.append(helper.make_attribute(name, value))
        self._nodes.append(node)
        return outputs

    def serialize(
        self,
        inputs: Signature,
        outputs: Signature,
        doc: str,
    ) -> bytes:
        """Check the finished graph and return the bytes of the model file."""
        graph = helper.make_graph(
            self._nodes,
            self._name,
            [helper.make_tensor_value_info(n, t, s) for n, (t, s) in inputs.items()],
            [helper.make_tensor_value_info(n, t, s) for n, (t, s) in outputs.items()],
            self._constants,
            doc_string=doc,
        )
        model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", OPSET)])
        model.ir_version = IR_VERSION
        model.producer_name = ""
        onnx.checker.check_model(model, full_check=True)
        return bytes(model.SerializeToString(deterministic=True))
