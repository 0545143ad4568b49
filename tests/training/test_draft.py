"""A trained network becomes a model that mien imports, proves and uses."""

import json
from pathlib import Path

import numpy as np
import onnx
import pytest
import torch
from click.testing import CliRunner

import mien
from mien import cards, networks
from mien.cli import cli
from mien.training import draft
from mien.training.config import Input, parse
from mien.training.preparation.pack import Packed
from mien.types import Image, OperatingPoint


def test_mien_train_makes_a_model_for_every_verb(
    recipe_text: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    eileen: Image,
    eileen_file: Path,
    grace_file: Path,
) -> None:
    monkeypatch.setenv("MIEN_HOME", str(tmp_path / "home"))
    recipe = tmp_path / "small.toml"
    recipe.write_text(recipe_text)
    output = tmp_path / "small-model"
    run = CliRunner().invoke(
        cli, ["train", str(recipe), "--set", "run.epochs=2", "-o", str(output), "--json"]
    )
    assert run.exit_code == 0, run.output
    rows = [json.loads(line) for line in run.stdout.splitlines()]
    assert [row.get("epoch") for row in rows] == [1, 2, None]
    assert {"loss", "accuracy", "auc", "cpu_seconds", "idle_seconds"} <= rows[1].keys()
    assert (output / "metrics.csv").is_file()
    assert (output / "curves.png").is_file()
    card = output / "small-model.toml"
    assert rows[2] == {"card": str(card), "epochs": 2, "lowest_fmr": None}  # two people: too few
    taken = CliRunner().invoke(cli, ["models", "import", str(card)])
    assert taken.exit_code == 0, taken.output
    proof = CliRunner().invoke(cli, ["models", "verify", "small-model"])
    assert "agrees with its card to 1.000" in proof.output
    recognizer = mien.load("small-model")
    face = recognizer.embed(eileen)
    assert face.embedding.vector.shape == (8,)
    gallery = str(tmp_path / "people.mien")
    enrolled = CliRunner().invoke(
        cli, ["enroll", "ada", str(eileen_file), "--model", "small-model", "--gallery", gallery]
    )
    assert enrolled.exit_code == 0, enrolled.output


@pytest.mark.parametrize(
    ("folder", "name"),
    [("My Run 1.5", "my-run-1.5"), ("a_b-c", "a_b-c"), ("._x (2)", "x-2"), ("лица", "resnet18")],
)
def test_any_folder_gives_a_model_its_name(folder: str, name: str, tmp_path: Path) -> None:
    text = '[data]\nset = ""\n[network]\nname = "resnet18"\n[[objectives]]\nname = "softmax"\n'
    recipe = parse(text, "test.toml")
    assert draft.name_of(recipe, tmp_path / folder) == name
    named = parse(text, "test.toml", ["card.id=Other"])
    assert draft.name_of(named, tmp_path / folder) == "Other"


def test_the_frame_of_the_card_is_what_training_saw(packed: Packed, eileen: Image) -> None:
    """Packing, then the middle, gives the crop that the card's frame gives directly."""
    shape = Input(40, 0.8)
    frame = draft.frame_of(packed.about.frame, shape)
    scale = 40 / (0.8 * 48)
    for (x, y), (u, v) in zip(packed.about.frame.template, frame.template, strict=True):
        assert u == pytest.approx((x + 0.5 - 0.1 * 48) * scale - 0.5, abs=1e-3)
        assert v == pytest.approx((y + 0.5 - 0.1 * 48) * scale - 0.5, abs=1e-3)


def test_an_onnx_file_of_half_weights_computes_what_the_network_does() -> None:
    from onnx.reference import ReferenceEvaluator

    torch.manual_seed(0)
    network = networks.build("mobilefacenet", 8, size=32, width=0.125).eval()
    for module in network.modules():
        if isinstance(module, torch.nn.BatchNorm2d | torch.nn.BatchNorm1d):
            module.running_mean.normal_(std=0.1)
            module.running_var.uniform_(0.5, 1.5)
    data = draft.to_onnx(network, 32, half=True)
    model = onnx.load_from_string(data)
    onnx.checker.check_model(model)
    faces = torch.rand(3, 3, 32, 32) * 2 - 1
    with torch.inference_mode():
        expected = network(faces).numpy()
    (found,) = ReferenceEvaluator(model).run(None, {"faces": faces.numpy()})
    cosine = (found * expected).sum(1) / np.linalg.norm(found, axis=1)
    cosine /= np.linalg.norm(expected, axis=1)
    assert found.shape == (3, 8)
    assert cosine.min() > 0.9999
    halves = [t for t in model.graph.initializer if t.data_type == onnx.TensorProto.FLOAT16]
    assert len(halves) > 10
    assert b".py" not in data  # no paths of the machine it was made on
    assert len(data) < 2.5 * sum(p.numel() for p in network.parameters()) + 100_000


def test_the_thresholds_of_a_draft_are_those_of_its_recogniser(
    recipe_text: str, packed: Packed, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MIEN_HOME", str(tmp_path))
    model = tmp_path / "own.onnx"
    model.write_bytes(b"not looked into")
    points = [
        OperatingPoint(0.3, 0.01, 0.2, "some pairs", ""),
        OperatingPoint(0.5, 1e-3, 0.4, "", ""),
    ]
    recipe = parse(recipe_text, "test.toml", ["network.start=some/weights.safetensors"])
    frame = draft.frame_of(packed.about.frame, recipe.input)
    facts = {
        "pictures": 12, "people": 2, "manifest_sha256": "ab", "teacher": "embedded@1",
        "history": [{"epoch": 1, "accuracy": 0.9, "auc": 0.95}],
    }  # fmt: skip
    text = draft.card_text("own", recipe, frame, model, [0.5, 0.5], points, facts)
    (tmp_path / "cards").mkdir()
    (tmp_path / "cards" / "own.toml").write_text(text)
    bundle = cards.bundle("own")
    assert [(p.threshold, p.fmr, p.fnmr) for p in bundle.operating_points] == [
        (0.3, 0.01, 0.2), (0.5, 0.001, 0.4),
    ]  # fmt: skip
    assert bundle.operating_points[0].contract == bundle.contract
    assert bundle.operating_points[0].protocol == "some pairs"
    assert bundle.detector.id == "retinaface-mobilenet025"
    learnt = bundle.embedder.training_data
    assert learnt.startswith("12 pictures of 2 people")
    assert "learnt from the vectors of embedded@1" in learnt
    assert "started from weights.safetensors" in learnt
    assert bundle.embedder.figures["accuracy"] == "0.9"
