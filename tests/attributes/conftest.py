"""Networks small enough to know their answers beforehand, and cards for them."""

import hashlib
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from mien.weights import import_models

Outputs = Mapping[str, Sequence[tuple[str, float]]]
Import = Callable[[str, Outputs], None]

CARD = """\
id = "{id}"
title = "A network whose answers are known"
task = "attributes"
decoder = "softmax"
licence = "CC0-1.0"
commercial = "{commercial}"
origin = "https://example.org/{id}.onnx"
training_data = "None."
cautions = "For tests only."
[input]
channels = "BGR"
layout = "NCHW"
dtype = "float32"
mean = [0, 0, 0]
std = [255, 255, 255]
size = [8, 8]
template = [[2, 2], [5, 2], [3.5, 4], [2.4, 6], [4.6, 6]]
[[files]]
name = "{id}.onnx"
precision = "fp32"
sha256 = "{sha256}"
"""
QUESTION = '[[questions]]\ntask = "{task}"\nlabels = {labels}\n'


@pytest.fixture
def fresh_home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A models folder of its own: what is imported here does not outlive the test."""
    monkeypatch.setenv("MIEN_HOME", str(tmp_path / "home"))
    return tmp_path


@pytest.fixture
def import_network(fresh_home: Path) -> Import:
    """Take in a network that gives its labels fixed logits, plus one thousandth of blue.

    The blue is of the mean colour of the crop, in 0..1: it proves that pixels arrive as the card
    says, and is too little to change an answer.
    """

    def install(name: str, outputs: Outputs, commercial: str = "yes") -> None:
        model = network([[logit for _, logit in labels] for labels in outputs.values()])
        (fresh_home / f"{name}.onnx").write_bytes(model)
        digest = hashlib.sha256(model).hexdigest()
        text = CARD.format(id=name, sha256=digest, commercial=commercial)
        for task, labels in outputs.items():
            names = [label for label, _ in labels]
            text += QUESTION.format(task=task, labels=str(names).replace("'", '"'))
        card = fresh_home / f"{name}.toml"
        card.write_text(text)
        import_models(card)

    return install


def network(outputs: Sequence[Sequence[float]]) -> bytes:
    nodes = [helper.make_node("ReduceMean", ["pixels"], ["colour"], axes=[2, 3], keepdims=0)]
    constants = []
    for number, logits in enumerate(outputs):
        weight = np.zeros((3, len(logits)), np.float32)
        weight[0] = 1e-3  # the first channel of BGR
        constants += [
            numpy_helper.from_array(weight, f"weight{number}"),
            numpy_helper.from_array(np.array(logits, np.float32), f"bias{number}"),
        ]
        inputs = ["colour", f"weight{number}", f"bias{number}"]
        nodes.append(helper.make_node("Gemm", inputs, [f"out{number}"]))
    graph = helper.make_graph(
        nodes, "toy",
        [helper.make_tensor_value_info("pixels", TensorProto.FLOAT, ("n", 3, 8, 8))],
        [helper.make_tensor_value_info(f"out{i}", TensorProto.FLOAT, ("n", len(logits)))
         for i, logits in enumerate(outputs)],
        constants,
    )  # fmt: skip
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    onnx.checker.check_model(model)
    data: bytes = model.SerializeToString()
    return data
