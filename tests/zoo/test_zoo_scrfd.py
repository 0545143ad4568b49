"""SCRFD's outputs read by the published rule, on a network whose answers are known.

The network sees faces where a cell of its grids is filled: red on the grid of 8 pixels, green on
that of 16, blue on that of 32. What it says of their edges and landmarks is constant.
"""

import hashlib
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from onnx import TensorProto

from mien.cards import WeightFile, model_card
from mien.detection.scrfd import TYPICAL, Scrfd
from mien.errors import ModelError
from mien.recognition import load_detector
from mien.types import Image
from onnx_writer import GraphWriter

Load = Callable[..., Scrfd]

STRIDES = (8, 16, 32)
EDGES = {8: (1.0, 1.5, 2.0, 2.5), 16: (2.0, 1.0, 1.0, 2.0), 32: (1.0, 1.0, 2.0, 2.0)}
MARKS = np.arange(10, dtype=np.float32) / 4 - 1


def network(marks: bool = True, strides: Sequence[int] = STRIDES, batched: bool = False) -> bytes:
    """The model file."""
    graph = GraphWriter("known answers")
    for name, numbers in (("last", (-1, 1)), ("batch", (0,)), ("none", (0,)), ("one", (1,))):
        kind = np.int64 if name in ("last", "batch") else np.float32
        graph.constant(name, np.array(numbers, kind))
    graph.constant("low", np.array(0, np.float32))
    graph.constant("high", np.array(1, np.float32))
    outputs: dict[str, list[str]] = {"score": [], "edges": [], "marks": []}
    for channel, stride in enumerate(strides):
        own = f"_{stride}"
        for name, at in (("from", channel), ("to", channel + 1), ("axis", 1)):
            graph.constant(name + own, np.array([at], np.int64))
        graph.constant("edge" + own, np.array([EDGES[stride]], np.float32))
        graph.constant("mark" + own, MARKS[None])
        colour = graph.node(
            "Slice", "colour" + own, ["pixels", "from" + own, "to" + own, "axis" + own]
        )
        full = graph.node("AveragePool", "mean" + own, [colour],
                          kernel_shape=[stride, stride], strides=[stride, stride])  # fmt: skip
        filled = graph.node("Clip", "clip" + own, [full, "low", "high"])
        first = graph.node("Reshape", "first" + own, [filled, "last"])
        graph.constant("less" + own, np.array([[1.0, 0.9]], np.float32))  # the second anchor
        both = graph.node("MatMul", "both" + own, [first, "less" + own])
        score = graph.node("Reshape", "score" + own, [both, "last"])
        unit = graph.node("Add", "unit" + own,
                          [graph.node("Mul", "zero" + own, [score, "none"]), "one"])  # fmt: skip
        edges = graph.node("MatMul", "edges" + own, [unit, "edge" + own])
        points = graph.node("MatMul", "marks" + own, [unit, "mark" + own])
        for kind, made in (("score", score), ("edges", edges), ("marks", points)):
            stacked = graph.node("Unsqueeze", f"{made}_batch", [made, "batch"]) if batched else made
            outputs[kind].append(stacked)
    wanted = [*outputs["score"], *outputs["edges"], *(outputs["marks"] if marks else [])]
    width = {"score": 1, "edges": 4, "marks": 10}
    shapes: dict[str, tuple[int, list[int | str | None]]] = {}
    for name in wanted:
        last = width[name.split("_")[0]]
        shapes[name] = (TensorProto.FLOAT, [1, None, last] if batched else [None, last])
    pixels = {"pixels": (TensorProto.FLOAT, [1, 3, None, None])}
    return graph.serialize(pixels, shapes, "")


@pytest.fixture
def load(home: Path) -> Load:
    """The way users take: a card, its verified file, the decoder that the card names."""

    def make(model: bytes, max_face: float | None = None) -> Scrfd:
        file = WeightFile("known.onnx", hashlib.sha256(model).hexdigest(), "fp32")
        (home / "models").mkdir(parents=True, exist_ok=True)
        (home / "models" / file.name).write_bytes(model)
        card = replace(model_card("scrfd-10g"), files=(file,), commercial="yes")
        detector = load_detector(card, max_face=max_face)
        assert isinstance(detector, Scrfd)
        return detector

    return make


def painted(width: int, height: int, *blocks: tuple[int, int, int, int]) -> Image:
    """A black picture with square blocks: channel, left, top, side."""
    pixels = np.zeros((height, width, 3), np.uint8)
    for channel, left, top, side in blocks:
        pixels[top : top + side, left : left + side, channel] = 255
    return Image(pixels)


@pytest.mark.parametrize("batched", [False, True])
@pytest.mark.parametrize("channel", [0, 1, 2])
def test_a_cell_gives_the_box_of_its_anchor(load: Load, channel: int, batched: bool) -> None:
    stride = STRIDES[channel]
    left, top = 5 * stride, 3 * stride
    (face,) = load(network(batched=batched)).detect(painted(250, 190, (channel, left, top, stride)))
    to_left, to_top, to_right, to_bottom = (stride * edge for edge in EDGES[stride])
    box = face.box  # mien counts from the middle of the first pixel, SCRFD from its corner
    assert (box.left, box.top) == pytest.approx((left - to_left - 0.5, top - to_top - 0.5))
    assert (box.right, box.bottom) == pytest.approx((left + to_right - 0.5, top + to_bottom - 0.5))
    expected = np.array([left, top]) + stride * MARKS.reshape(5, 2) - 0.5
    assert face.landmarks.points == pytest.approx(expected, abs=1e-3)
    assert face.confidence == pytest.approx(127.5 / 128, abs=1e-3)


def test_faces_of_all_grids_at_once_best_first(load: Load) -> None:
    picture = painted(
        640, 480, (0, 40, 40, 8), (1, 320, 320, 16), (2, 480, 96, 32), (0, 600, 40, 7)
    )
    faces = load(network()).detect(picture)
    assert {round(face.box.width) for face in faces} == {24, 48, 96}
    assert len(faces) == 4
    assert faces[-1].confidence < 0.6  # a cell filled to 49 parts of 64
    stricter = replace(load(network()), confidence=0.7).detect(picture)
    assert len(stricter) == 3


def test_a_large_face_is_found_on_a_second_pass_at_low_resolution(load: Load) -> None:
    picture = painted(640, 640, (2, 160, 240, 80))  # one cell of 32 pixels at two fifths
    faces = load(network()).detect(picture)
    large = max(faces, key=lambda face: face.box.width)
    assert large.box.width == pytest.approx(2.5 * 96, abs=1)
    assert large.box.left == pytest.approx(160 - 2.5 * 32 - 0.5, abs=1)
    assert large.box.top == pytest.approx(240 - 2.5 * 32 - 0.5, abs=1)
    small = load(network(), max_face=100).detect(picture)
    assert max(face.box.width for face in small) < 100


def test_without_keypoints_the_points_lie_where_they_usually_do(load: Load) -> None:
    (face,) = load(network(marks=False)).detect(painted(250, 190, (2, 96, 64, 32)))
    box = face.box
    shares = (face.landmarks.points - (box.left, box.top)) / (box.width, box.height)
    assert shares == pytest.approx(TYPICAL, abs=1e-4)


def test_nothing_is_found_on_an_empty_picture(load: Load) -> None:
    assert load(network()).detect(painted(33, 70)) == []


def test_another_network_is_refused(load: Load) -> None:
    with pytest.raises(ModelError, match="scrfd-10g does not give what SCRFD gives"):
        load(network(strides=(8, 16))).detect(painted(64, 64))
