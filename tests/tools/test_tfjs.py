"""TensorFlow.js graphs become ONNX that computes the same, as a naive twin in NHWC says."""

import base64
import io
import json
import tarfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

import tfjs
from mien.inference import session_of

Floats = NDArray[np.float32]
SIDE = 12
RNG = np.random.default_rng(4)
KERNEL = RNG.normal(size=(3, 3, 3, 4)).astype(np.float32)
BIAS = RNG.normal(size=4).astype(np.float32)
DEPTHWISE = RNG.normal(size=(3, 3, 4, 1)).astype(np.float16)  # kept as half floats
SCALE = RNG.integers(0, 256, 4).astype(np.uint8)  # kept as bytes: value * scale + min
DENSE = RNG.normal(size=(4, 2)).astype(np.float32)
LIMIT = np.array(2.5, np.float32)


def text(value: str) -> str:
    return base64.b64encode(value.encode()).decode()


def node(name: str, op: str, *inputs: str, **attributes: Any) -> dict[str, Any]:
    def packed(value: Any) -> dict[str, Any]:
        if isinstance(value, str):
            return {"s": text(value)}
        if isinstance(value[0], str):
            return {"list": {"s": [text(item) for item in value]}}
        return {"list": {"i": [str(number) for number in value]}}

    attr = {key: packed(value) for key, value in attributes.items()}
    return {"name": name, "op": op, "input": list(inputs), "attr": attr}


def window(stride: int, padding: str) -> dict[str, Any]:
    return {"strides": [1, stride, stride, 1], "padding": padding}


NODES = [
    node("pixels", "Placeholder"),
    node("first", "_FusedConv2D", "pixels", "kernel", "bias",
         fused_ops=["BiasAdd", "Relu"], **window(2, "SAME")),
    node("second", "DepthwiseConv2dNative", "first", "depthwise", **window(1, "SAME")),
    node("scaled", "Mul", "second", "scale"),
    node("least", "Minimum", "scaled", "limit"),
    node("most", "Maximum", "least", "zero"),
    node("sum", "AddV2", "most", "first"),
    node("pooled", "MaxPool", "sum", ksize=[1, 2, 2, 1], **window(2, "VALID")),
    node("mean", "Mean", "pooled", "axes"),
    node("answer", "_FusedMatMul", "mean", "dense", "dense bias", fused_ops=["BiasAdd"]),
    node("unused", "Softmax", "answer"),
]  # fmt: skip


def manifest(**changed: Any) -> tuple[bytes, bytes]:
    kept: list[tuple[dict[str, Any], NDArray[Any]]] = [
        ({"name": "kernel", "dtype": "float32"}, KERNEL),
        ({"name": "bias", "dtype": "float32"}, BIAS),
        ({"name": "depthwise", "dtype": "float32", "quantization": {"dtype": "float16"}},
         DEPTHWISE),
        ({"name": "scale", "dtype": "float32",
          "quantization": {"dtype": "uint8", "scale": 0.01, "min": -1.0}}, SCALE),
        ({"name": "limit", "dtype": "float32"}, LIMIT),
        ({"name": "zero", "dtype": "float32"}, np.zeros((), np.float32)),
        ({"name": "axes", "dtype": "int32"}, np.array([1, 2], np.int32)),
        ({"name": "dense", "dtype": "float32"}, DENSE),
        ({"name": "dense bias", "dtype": "float32"}, BIAS[:2]),
    ]  # fmt: skip
    weights = [{**spec, "shape": list(array.shape)} for spec, array in kept]
    model = {
        "format": "graph-model",
        "modelTopology": {"node": NODES},
        "weightsManifest": [{"weights": weights[:4]}, {"weights": weights[4:]}],
    }
    return json.dumps(model | changed).encode(), b"".join(array.tobytes() for _, array in kept)


RECIPE = tfjs.Recipe("made-up", "", "", SIDE, {"vector": "mean", "label": "answer"})


def twin(pictures: Floats) -> tuple[Floats, Floats]:
    """The same network, loop by loop, on (n, height, width, channels)."""

    def windows(x: Floats, kernel: int, stride: int, same: bool) -> Floats:
        size = x.shape[1]
        count = -(-size // stride) if same else (size - kernel) // stride + 1
        lack = max((count - 1) * stride + kernel - size, 0) if same else 0
        edges = (lack // 2, lack - lack // 2)  # the odd row at the end
        x = np.pad(x, ((0, 0), edges, edges, (0, 0)))
        at = [i * stride for i in range(count)]
        return np.stack(
            [np.stack([x[:, i : i + kernel, j : j + kernel] for j in at], 1) for i in at], 1
        )

    first = np.einsum("nijabc,abcd->nijd", windows(pictures, 3, 2, True), KERNEL) + BIAS
    first = np.maximum(first, 0)
    second = np.einsum(
        "nijabc,abc->nijc", windows(first, 3, 1, True), DEPTHWISE[..., 0].astype(np.float32)
    )
    scaled = second * (SCALE * np.float32(0.01) - 1)
    total = np.clip(scaled, 0, LIMIT) + first
    mean = windows(total, 2, 2, False).max(axis=(3, 4)).mean(axis=(1, 2))
    return mean, mean @ DENSE + BIAS[:2]


def test_a_graph_computes_what_its_twin_does() -> None:
    model = tfjs.convert("made-up", tfjs.read_graph(*manifest()), RECIPE)
    assert model == tfjs.convert("made-up", tfjs.read_graph(*manifest()), RECIPE)
    pictures = RNG.normal(size=(3, SIDE, SIDE, 3)).astype(np.float32)
    planes = np.ascontiguousarray(pictures.transpose(0, 3, 1, 2))
    found = session_of("made-up", model)(planes)
    for ours, expected in zip(found, twin(pictures), strict=True):
        np.testing.assert_allclose(ours, expected, atol=2e-5)


def test_one_logit_becomes_two() -> None:
    nodes = [*NODES[:-2], node("one", "MatMul", "mean", "column")]
    topology, weights = manifest(modelTopology={"node": nodes})
    given = tfjs.read_graph(topology, weights)
    graph = tfjs.Graph(given.nodes, {**given.weights, "column": DENSE[:, :1]})
    recipe = tfjs.Recipe("made-up", "", "", SIDE, {"gender": "one"}, frozenset({"gender"}))
    pictures = RNG.normal(size=(2, SIDE, SIDE, 3)).astype(np.float32)
    planes = np.ascontiguousarray(pictures.transpose(0, 3, 1, 2))
    (found,) = session_of("made-up", tfjs.convert("made-up", graph, recipe))(planes)
    mean, _ = twin(pictures)
    np.testing.assert_allclose(found[:, 0], 0, atol=1e-6)
    np.testing.assert_allclose(found[:, 1], (mean @ DENSE)[:, 0], atol=2e-5)


@pytest.mark.parametrize(
    ("made", "reason"),
    [
        (lambda: manifest(format="layers-model"), "layers-model"),
        (lambda: (manifest()[0], manifest()[1][:-1]), "end before dense bias"),
        (lambda: (manifest()[0], manifest()[1] + b"0"), "1 bytes of weights belong to nothing"),
    ],
)
def test_other_files_are_refused(made: Callable[[], tuple[bytes, bytes]], reason: str) -> None:
    with pytest.raises(tfjs.UnexpectedOriginal, match=reason):
        tfjs.read_graph(*made())


@pytest.mark.parametrize(
    ("changed", "reason"),
    [
        (node("first", "ResizeBilinear", "pixels"), "a ResizeBilinear, which"),
        (node("mean", "Mean", "pooled", "limit"), "no constant|no mean over whole planes"),
        (node("first", "Conv2D", "pixels", "pixels", **window(1, "SAME")), "no constant"),
        (node("first", "_FusedConv2D", "pixels", "kernel", "bias",
              fused_ops=["BiasAdd", "Elu"], **window(2, "SAME")), "Elu"),
    ],
)  # fmt: skip
def test_what_it_does_not_know_it_says(changed: dict[str, Any], reason: str) -> None:
    graph = tfjs.read_graph(*manifest())
    other = tfjs.Graph({**graph.nodes, changed["name"]: changed}, graph.weights)
    with pytest.raises(tfjs.UnexpectedOriginal, match=reason):
        tfjs.convert("made-up", other, RECIPE)


def test_another_file_than_the_known_one_is_refused(tmp_path: Path) -> None:
    archive = tmp_path / "package.tgz"
    with tarfile.open(archive, "w:gz") as box:
        for name, data in zip(("faceres.json", "faceres.bin"), manifest(), strict=True):
            entry = tarfile.TarInfo(f"package/models/{name}")
            entry.size = len(data)
            box.addfile(entry, io.BytesIO(data))
    with pytest.raises(tfjs.UnexpectedOriginal, match=r"faceres\.json has sha256"):
        tfjs.main(["--out", str(tmp_path), "--from", str(archive), "hse-faceres"])
