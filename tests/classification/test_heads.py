"""Using a head: its learners, its file, what it refuses."""

import json
import subprocess
import sys
import zipfile
from pathlib import Path

import numpy as np
import pytest
from crowd import MODELS, Crowd, crowd

import mien
from mien.classification import Head, save_head
from mien.classification.fitting import fit
from mien.classification.learners import KINDS, logistic, neighbours
from mien.errors import ContractMismatch, InputError
from mien.types import Embedding


def faces(vectors: list[np.ndarray], rows: int = 4) -> list[list[Embedding]]:
    return [
        [Embedding(v[row], model.contract) for v, model in zip(vectors, MODELS, strict=True)]
        for row in range(rows)
    ]


def test_neighbours_against_a_naive_twin() -> None:
    group = crowd(4, 6, (8,))
    labels = np.repeat(np.arange(4), 6)
    order = np.random.default_rng(0).permutation(24)
    learner = neighbours(group.vectors[0][order], labels[order], 3)
    said = learner.log_probabilities(group.fresh[0])
    sharp = float(learner.sharpness)
    for row, probe in enumerate(group.fresh[0]):
        scores = []
        for person in range(4):
            nearest = sorted(float(probe @ v) for v in group.vectors[0][labels == person])[-3:]
            scores.append(np.mean([np.exp(sharp * cosine) for cosine in nearest]))
        assert np.exp(said[row]) == pytest.approx(np.array(scores) / sum(scores), rel=1e-4)


@pytest.mark.parametrize("people", [2, 5])
def test_linear_says_what_the_library_says(people: int) -> None:
    from sklearn.linear_model import LogisticRegression

    group = crowd(people, 8, (8,))
    labels = np.repeat(np.arange(people), 8)
    vectors = group.vectors[0]
    middle = vectors.mean(axis=0)
    scale = np.sqrt(((vectors - middle) ** 2).mean())
    model = LogisticRegression(C=0.1, class_weight="balanced", max_iter=500, tol=1e-3)
    model.fit((vectors - middle) / scale, labels)
    expected = model.predict_proba((group.fresh[0] - middle) / scale)
    said = logistic(vectors, labels, 0.1).log_probabilities(group.fresh[0])
    assert np.exp(said) == pytest.approx(expected, abs=1e-4)


@pytest.mark.parametrize("kind", [*KINDS, "stack"])
def test_a_file_gives_the_same_head(kind: str, tmp_path: Path) -> None:
    group = crowd(3, 8)
    head = fit(MODELS, group.vectors, group.names, kind=kind, sources=[f"{i}ü" for i in range(24)])
    save_head(head, tmp_path / "a.head")
    again = mien.load_head(tmp_path / "a.head")
    assert np.array_equal(again.probabilities(group.fresh), head.probabilities(group.fresh))
    assert (again.kind, again.labels, again.models) == (head.kind, head.labels, head.models)
    assert again.report.suspects == head.report.suspects
    assert again.report.candidates == head.report.candidates
    assert np.array_equal(again.report.confusion, head.report.confusion)
    assert again.acquaintance.points == head.acquaintance.points
    assert list(tmp_path.iterdir()) == [tmp_path / "a.head"]


def test_using_a_head_needs_numpy_alone(stack: Head, tmp_path: Path) -> None:
    save_head(stack, tmp_path / "a.head")
    script = """
import sys
import numpy as np
import mien
head = mien.load_head(sys.argv[1])
v = [np.ones(m.shape[1], np.float32) / m.shape[1] ** 0.5 for m in head.acquaintance.means]
face = [mien.Embedding(x, m.contract) for x, m in zip(v, head.models)]
print(head.classify([face])[0].label)
print(sorted(m for m in ("sklearn", "scipy", "onnxruntime", "pickle_") if m in sys.modules))
"""
    done = subprocess.run(
        [sys.executable, "-c", script, str(tmp_path / "a.head")],
        capture_output=True, text=True, check=True,
    )  # fmt: skip
    label, modules = done.stdout.splitlines()
    assert label in stack.labels
    assert "sklearn" not in modules
    assert "scipy" not in modules


def test_answers(group: Crowd, stack: Head) -> None:
    said = stack.classify(faces(group.fresh), top=3)
    for answer, row in zip(said, stack.probabilities(group.fresh), strict=False):
        assert answer.label == answer.top[0].label == stack.labels[row.argmax()]
        assert answer.probability == answer.top[0].probability == pytest.approx(row.max())
        assert [likely.probability for likely in answer.top] == sorted(row.tolist())[:-4:-1]
    assert sum(
        likely.probability for likely in stack.classify(faces(group.fresh), top=99)[0].top
    ) == (pytest.approx(1))
    assert stack.classify([]) == []


def test_embeddings_come_in_any_order_and_some_may_be_missing(group: Crowd, stack: Head) -> None:
    ordered = faces(group.fresh)
    turned = [face[::-1] for face in ordered]
    assert stack.classify(turned) == stack.classify(ordered)
    part = stack.classify([face[:1] for face in ordered], unknown=0.05)
    assert all(0 < answer.probability <= 1 for answer in part)
    with pytest.raises(InputError, match="no vector of one@1"):
        stack.classify([face[1:] for face in ordered])


def test_faces_of_another_model_are_refused(group: Crowd, stack: Head) -> None:
    vector = group.fresh[0][0]
    with pytest.raises(ContractMismatch) as caught:
        stack.classify([[Embedding(vector, "other@2")]])
    assert (caught.value.expected, caught.value.got) == ("one@1", "other@2")
    with pytest.raises(ContractMismatch):  # two faces, made in two ways
        stack.classify([*faces(group.fresh, 1), [Embedding(vector, "other@2")]])
    with pytest.raises(InputError, match="have 16 numbers, this one has 3"):
        stack.classify([[Embedding(vector[:3], "one@1")]])
    with pytest.raises(InputError, match="top"):
        stack.classify(faces(group.fresh), top=0)


def test_a_torn_file_is_refused(stack: Head, tmp_path: Path) -> None:
    whole = tmp_path / "whole.head"
    save_head(stack, whole)
    data = whole.read_bytes()
    torn = tmp_path / "torn.head"
    for length in (0, 1, 100, len(data) // 2, len(data) - 1):
        torn.write_bytes(data[:length])
        with pytest.raises(InputError, match="not a head, or is damaged"):
            mien.load_head(torn)
    for place in range(60, len(data), len(data) // 40):
        torn.write_bytes(data[:place] + bytes([data[place] ^ 0x55]) + data[place + 1 :])
        try:  # a flipped bit is found, or lies where nothing is read
            again = mien.load_head(torn)
        except InputError:
            continue
        assert again.labels == stack.labels


def test_other_files_are_refused(stack: Head, tmp_path: Path) -> None:
    path = tmp_path / "a.head"
    with pytest.raises(InputError, match="cannot read"):
        mien.load_head(path)
    with pytest.raises(InputError, match="cannot read"):
        mien.load_head(tmp_path)
    path.write_bytes(b"\x80\x04K\x01.")  # a pickle
    with pytest.raises(InputError, match="not a head"):
        mien.load_head(path)
    np.save(path.with_suffix(".npy"), np.zeros(3))
    with pytest.raises(InputError, match="not a head"):
        mien.load_head(path.with_suffix(".npy"))
    np.savez(tmp_path / "b.npz", vector=np.zeros(3))
    with pytest.raises(InputError, match="not a head"):
        mien.load_head(tmp_path / "b.npz")
    np.savez(tmp_path / "c.npz", head=np.array([object()]))
    with pytest.raises(InputError, match="not a head"):
        mien.load_head(tmp_path / "c.npz")
    with pytest.raises(InputError, match="cannot write"):
        save_head(stack, tmp_path / "absent" / "a.head")


@pytest.mark.parametrize(
    ("field", "value", "message"),
    [
        ("version", 99, "format version 99"),
        ("format", "something", "'something'"),
        ("labels", ["a"], "do not fit"),
        ("models", [], "not a head"),
        ("weights", [float("nan")] * 4, "not finite"),
        ("weights", [1.0], "not a head"),
        ("middle", [0.0], "not a head"),
        ("parts", [{"name": "x", "model": 7, "learner": "linear"}], "not a head"),
        ("parts", [{"name": "x", "model": 0, "learner": "os.system"}], "not a head"),
        ("points", [{"threshold": 1}], "not a head"),
    ],
)  # fmt: skip
def test_a_file_that_contradicts_itself_is_refused(
    field: str, value: object, message: str, stack: Head, tmp_path: Path
) -> None:
    save_head(stack, tmp_path / "a.head")
    with np.load(tmp_path / "a.head") as found:
        arrays = dict(found)
    text = json.loads(arrays["head"].tobytes())
    assert field in text
    arrays["head"] = np.frombuffer(json.dumps({**text, field: value}).encode(), np.uint8)
    np.savez(tmp_path / "b.npz", **arrays)
    with pytest.raises(InputError, match=message):
        mien.load_head(tmp_path / "b.npz")


def test_a_file_holds_nothing_that_runs(stack: Head, tmp_path: Path) -> None:
    save_head(stack, tmp_path / "a.head")
    with zipfile.ZipFile(tmp_path / "a.head") as archive:
        assert all(name.endswith(".npy") for name in archive.namelist())
    with np.load(tmp_path / "a.head", allow_pickle=False) as found:
        assert all(found[name].dtype.hasobject is False for name in found.files)
