"""Several embedders behind one detector, as one recogniser."""

import hashlib
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from onnx import TensorProto

import mien
from mien import cards
from mien.errors import ContractMismatch, ModelError, NoOperatingPoint
from mien.evaluation import card
from mien.types import Image, OperatingPoint
from onnx_writer import GraphWriter


@pytest.fixture
def tiny(home: Path) -> str:
    """An embedder of one's own: the mean colours of the quarters of a crop of 64 pixels."""
    graph = GraphWriter("quarters")
    graph.constant("flat", np.array([0, -1], np.int64))
    pooled = graph.node(
        "AveragePool", "pooled", ["pixels"], kernel_shape=[32, 32], strides=[32, 32]
    )
    graph.node("Reshape", "vectors", [pooled, "flat"])
    model = graph.serialize(
        {"pixels": (TensorProto.FLOAT, ["n", 3, 64, 64])},
        {"vectors": (TensorProto.FLOAT, ["n", 12])}, "",
    )  # fmt: skip
    digest = hashlib.sha256(model).hexdigest()
    (home / "cards").mkdir(parents=True)
    (home / "models").mkdir()
    (home / "models" / "tiny.onnx").write_bytes(model)
    (home / "cards" / "tiny.toml").write_text(f"""
id = "tiny"
title = "Quarters"
task = "embedding"
decoder = "vector"
licence = "CC0-1.0"
commercial = "yes"
origin = "made up"
training_data = "none"
cautions = "none"
[input]
channels = "RGB"
layout = "NCHW"
dtype = "float32"
mean = [90, 90, 90]
std = [1, 1, 1]
size = [64, 64]
template = [[20, 25], [44, 25], [32, 38], [22, 48], [42, 48]]
[[files]]
name = "tiny.onnx"
precision = "fp32"
sha256 = "{digest}"
""")
    return "tiny"


def test_a_score_is_the_weighted_mean_of_the_members(
    tiny: str, eileen: Image, grace: Image, both: Image
) -> None:
    recognizer = mien.load(f"embedded+{tiny}")
    assert recognizer.bundle.weights == (0.5, 0.5)  # one of them was never measured
    members = [mien.load("embedded"), mien.load(tiny)]
    a, b = (recognizer.embed(image).embedding for image in (eileen, grace))
    assert a.vector.shape == (128 + 12,)
    assert np.linalg.norm(a.vector) == pytest.approx(1, abs=1e-6)
    each = [mien.similarity(m.embed(eileen).embedding, m.embed(grace).embedding) for m in members]
    assert mien.similarity(a, b) == pytest.approx(np.mean(each), abs=1e-5)
    faces = recognizer.recognize(both)
    alone = members[0].recognize(both)
    assert [face.face.box for face in faces] == [face.face.box for face in alone]
    pair = recognizer.describe_batch([(eileen, []), (both, [face.face for face in faces])])
    assert [len(described) for described in pair] == [0, 2]
    assert np.array_equal(pair[1][0].embedding.vector, faces[0].embedding.vector)


def test_it_is_not_measured_until_it_is_kept(tiny: str, eileen: Image, tmp_path: Path) -> None:
    recognizer = mien.load(f"embedded+{tiny}")
    with pytest.raises(NoOperatingPoint):
        recognizer.operating_point(1e-3)
    points = [OperatingPoint(0.9, 1e-2, 0.1, "made up", recognizer.contract)]
    heavier = replace(recognizer.bundle, weights=(0.7, 0.3))
    card.keep("two", heavier, points, None)
    kept = mien.load("two")
    assert kept.bundle.weights == (0.7, 0.3)
    assert kept.operating_point(1e-2).threshold == 0.9
    assert kept.contract != recognizer.contract  # other weights, other vectors
    with mien.open_gallery(tmp_path / "g.mien") as gallery:
        gallery.enroll("eileen", eileen, kept)
        (found,) = gallery.identify(eileen, kept, fpir=1e-2)
        assert found.subject == "eileen"
        with pytest.raises(ContractMismatch):
            gallery.identify(eileen, recognizer)


def test_measured_members_count_by_their_quality() -> None:
    bundle = cards.bundle("embedded+embedded-accurate")
    assert sum(bundle.weights) == pytest.approx(1, abs=2e-3)
    assert bundle.weights[1] > bundle.weights[0]  # fewer misses, tighter scores
    assert cards.bundle("embedded-accurate+embedded").weights == bundle.weights[::-1]


def test_the_ensemble_that_comes_with_mien_has_thresholds_of_its_own() -> None:
    """Its weights follow from the thresholds of its members; at strict ones it misses fewer."""
    bundle = cards.bundle("embedded-faceres")
    made = cards.bundle("embedded+faceres")
    assert (bundle.weights, bundle.contract) == (made.weights, made.contract)
    assert made.operating_points == ()
    assert all(point.contract == bundle.contract for point in bundle.operating_points)
    for member in bundle.members:
        for own, alone in zip(bundle.operating_points, member.operating_points, strict=True):
            assert own.fmr == alone.fmr
            assert own.threshold != alone.threshold
            assert own.fnmr < alone.fnmr or own.fmr > 1e-3


@pytest.mark.parametrize(
    ("name", "problem"),
    [
        ("embedded+embedded", "each another"),
        ("embedded+permissive", "share a detector"),
        ("embedded+nonesuch", "unknown model 'nonesuch'"),
        ("embedded+", "unknown model ''"),
    ],
)
def test_what_is_no_ensemble(name: str, problem: str) -> None:
    with pytest.raises(ModelError, match=problem):
        mien.load(name)


def test_an_ensemble_is_no_member(tiny: str) -> None:
    bundle = cards.bundle(f"embedded+{tiny}")
    point = OperatingPoint(0.9, 1e-2, 0.1, "made up", bundle.contract)
    card.keep("two", bundle, [point], None)
    with pytest.raises(ModelError, match="not itself one"):
        cards.bundle("two+embedded-accurate")
