"""A model that does not compute what its card says is found out, with the reason."""

import hashlib
from dataclasses import replace
from importlib import resources
from pathlib import Path

import numpy as np
import pytest
from click.testing import CliRunner
from onnx import TensorProto, helper, numpy_helper

import mien
from mien import cards, golden
from mien.cards import Golden, InputSpec, ModelCard
from mien.cli import cli
from mien.embedding import NetworkEmbedder
from mien.errors import ModelError
from mien.inference import open_session
from mien.types import Frame, Landmarks

EMBEDDER = cards.model_card("dlib-resnet-v1")
DETECTOR = cards.model_card("retinaface-mobilenet025")


@pytest.mark.parametrize("precision", ["int8", "fp32"])
def test_the_embedder_inside_agrees_with_its_card(precision: str) -> None:
    assert golden.check(EMBEDDER, precision) > 0.999


def test_the_detector_inside_agrees_with_its_card() -> None:
    assert golden.check(DETECTOR) > 0.995


@pytest.mark.parametrize("card", [EMBEDDER, DETECTOR], ids=["embedder", "detector"])
def test_a_wrong_colour_order_is_named(card: ModelCard) -> None:
    wrong = replace(card, input=replace(card.input, channels="BGR"))
    with pytest.raises(ModelError, match="with channels RGB it does"):
        golden.check(wrong, "fp32")


def test_a_wrong_size_is_named() -> None:
    frame = EMBEDDER.input.frame
    assert frame is not None
    small = replace(EMBEDDER.input, frame=Frame((112, 112), frame.template))
    with pytest.raises(ModelError, match=r"112, 112"):
        golden.check(replace(EMBEDDER, input=small), "fp32")


def test_a_wrong_template_is_found() -> None:
    frame = EMBEDDER.input.frame
    assert frame is not None
    lower = tuple((x, y + 8) for x, y in frame.template)
    shifted = replace(EMBEDDER.input, frame=Frame(frame.size, lower))
    with pytest.raises(ModelError, match="the crop, its size or the weights"):
        golden.check(replace(EMBEDDER, input=shifted), "fp32")


def test_other_weights_are_found() -> None:
    assert EMBEDDER.golden is not None
    turned = tuple(np.roll(EMBEDDER.golden.vector, 1))
    with pytest.raises(ModelError, match="the weights must be others"):
        golden.check(replace(EMBEDDER, golden=replace(EMBEDDER.golden, vector=turned)), "fp32")
    short = replace(EMBEDDER.golden, vector=EMBEDDER.golden.vector[:64])
    with pytest.raises(ModelError, match="gives 128 numbers a face where its card has 64"):
        golden.check(replace(EMBEDDER, golden=short), "fp32")


def test_a_card_without_golden_results_proves_nothing() -> None:
    with pytest.raises(ModelError, match="no golden results"):
        golden.check(replace(EMBEDDER, golden=None))


TEMPLATE = ((19.1, 25.8), (36.8, 25.8), (28.0, 35.9), (20.8, 46.2), (35.4, 46.1))
RIGHT = InputSpec(
    "BGR", "NCHW", "float32", (127.5,) * 3, (128.0,) * 3, Frame((56, 56), TEMPLATE)
)  # fmt: skip


@pytest.fixture
def floats(home: Path) -> ModelCard:
    """An embedder on scaled floats: sums of rectified pixels over a grid, for each colour."""
    planes = np.diag(np.array([1, 2, 3], np.float32)).reshape(3, 3, 1, 1)
    graph = helper.make_graph(
        [
            helper.make_node("Conv", ["x", "planes"], ["y"]),
            helper.make_node("Relu", ["y"], ["z"]),
            helper.make_node("AveragePool", ["z"], ["p"], kernel_shape=[7, 7], strides=[7, 7]),
            helper.make_node("Flatten", ["p"], ["vector"]),
        ],
        "floats",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, [1, 3, 56, 56])],
        [helper.make_tensor_value_info("vector", TensorProto.FLOAT, [1, 192])],
        [numpy_helper.from_array(planes, "planes")],
    )  # fmt: skip
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    (home / "models").mkdir(parents=True)
    (home / "models" / "floats.onnx").write_bytes(model.SerializeToString())
    digest = hashlib.sha256(model.SerializeToString()).hexdigest()
    file = cards.WeightFile("floats.onnx", digest, "fp32")
    assert EMBEDDER.golden is not None
    card = replace(
        EMBEDDER, id="floats", input=RIGHT, files=(file,),
        golden=replace(EMBEDDER.golden, vector=()),
    )  # fmt: skip
    return replace(card, golden=_golden_of(card))


def _golden_of(card: ModelCard) -> Golden:
    """What a card's network gives today, by the ordinary path."""
    assert card.golden is not None
    assert card.input.frame is not None
    data = resources.files("mien").joinpath("bundled", "pictures", card.golden.picture)
    image = mien.read_image(data.read_bytes())
    marks = Landmarks(np.array(card.golden.landmarks, np.float32))
    crop = mien.align(image, marks, card.input.frame)
    embedder = NetworkEmbedder(card, open_session(card))
    both = embedder.embed_batch([crop, crop])  # the network takes one at a time
    np.testing.assert_array_equal(both[0], both[1])
    return replace(card.golden, vector=tuple(map(float, both[0])))


@pytest.mark.parametrize(
    ("wrong", "reason"),
    [
        ({"mean": (0.0,) * 3, "std": (1.0,) * 3}, "mean 127.5 and std 12[78]"),
        ({"mean": (0.0,) * 3, "std": (255.0,) * 3}, "mean 127.5 and std 12[78]"),
        ({"channels": "RGB"}, "channels BGR"),
        ({"channels": "RGB", "mean": (0.0,) * 3}, "channels BGR, mean 127.5"),
    ],
)
def test_a_wrong_scale_is_named(floats: ModelCard, wrong: dict[str, object], reason: str) -> None:
    assert golden.check(floats) > 0.9999
    spec = replace(floats.input, **wrong)
    with pytest.raises(ModelError, match=f"with .*{reason}.* it does"):
        golden.check(replace(floats, input=spec))


def test_a_wrong_layout_is_an_error_with_shapes(floats: ModelCard) -> None:
    with pytest.raises(ModelError, match=r"\(1, 56, 56, 3\)"):
        golden.check(replace(floats, input=replace(floats.input, layout="NHWC")))


def test_verify_fails_with_the_reason(home: Path) -> None:
    """The same weights under a card that says BGR: the hash is right, the check is not."""
    text = cards.card_text("dlib-resnet-v1").replace('"RGB"', '"BGR"')
    (home / "cards").mkdir(parents=True)
    (home / "cards" / "mine.toml").write_text(
        text.replace('id = "dlib-resnet-v1"', 'id = "mine"', 1)
    )
    result = CliRunner().invoke(cli, ["models", "verify", "mine"])
    assert isinstance(result.exception, ModelError)
    assert "with channels RGB it does" in str(result.exception)
    good = CliRunner().invoke(cli, ["models", "verify"])
    assert "ok  dlib-resnet-v1" in good.output
    assert "agrees with its card" in good.output


@pytest.mark.parametrize("name", ["dlib-gender-v1", "minifasnet"])
def test_networks_that_answer_questions_agree_with_their_cards(name: str) -> None:
    card = cards.model_card(name)
    assert golden.check(card) > 0.999
    wrong = replace(card, input=replace(card.input, channels="BGR"))
    with pytest.raises(ModelError, match="with channels RGB it does"):
        golden.check(wrong)
    assert card.golden is not None
    with pytest.raises(ModelError, match="not those of its questions"):
        golden.check(replace(card, golden=replace(card.golden, shares=())))
    with pytest.raises(ModelError, match="lacks the golden box"):
        golden.check(replace(card, golden=replace(card.golden, box=None)))
