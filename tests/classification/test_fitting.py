"""Fitting: it learns, what it says of itself is true, and nothing is judged by what it has seen."""

import numpy as np
import pytest
from crowd import MODELS, Crowd, crowd

from mien.classification import Head
from mien.classification.fitting import NEVER, Task, assign_folds, fit, held_out, out_of_fold
from mien.classification.heads import log_softmax, pool
from mien.classification.learners import KINDS
from mien.embedding import normalize
from mien.errors import InputError, NoOperatingPoint
from mien.evaluation import plots
from mien.evaluation.classification import most_confused, of_confusion
from mien.types import Embedding

ALL_KINDS = [*KINDS, "stack"]


def accuracy(head: Head, vectors: list[np.ndarray], names: list[str]) -> float:
    said = head.probabilities(vectors).argmax(axis=1)
    return float(np.mean([head.labels[i] == name for i, name in zip(said, names, strict=True)]))


@pytest.mark.parametrize("kind", ALL_KINDS)
def test_what_it_says_of_itself_holds_for_other_pictures(kind: str, group: Crowd) -> None:
    head = fit(MODELS, group.vectors, group.names, kind=kind)
    assert head.report.pictures == len(group.names)
    right = accuracy(head, group.fresh, group.fresh_names)
    assert right > 0.9
    assert abs(head.report.accuracy - right) < 0.06
    stated = head.probabilities(group.fresh).max(axis=1).mean()
    assert abs(stated - right) < 0.06  # probabilities mean what they say
    assert head.report.ece < 0.06


@pytest.mark.parametrize("kind", ALL_KINDS)
def test_labels_without_meaning_are_not_learnt(kind: str) -> None:
    """One nearest neighbour is always right about what it was fitted on: not so when held back."""
    random = np.random.default_rng(3)
    vectors = [normalize(random.standard_normal((120, d)).astype(np.float32)) for d in (9, 7)]
    names = random.permutation(np.repeat(["a", "b", "c", "d"], 30)).tolist()
    head = fit(MODELS, vectors, names, kind=kind)
    assert head.report.accuracy < 0.4  # a quarter by chance
    assert head.report.bits > 1.9  # two bits by chance, and it does not claim to know better
    assert all(candidate.accuracy < 0.42 for candidate in head.report.candidates)


@pytest.mark.parametrize("kind", list(KINDS))
def test_no_learner_answers_about_its_own_pictures(kind: str) -> None:
    """What is said of a fold does not depend on the labels in it."""
    group = crowd(people=5, pictures=9, spread=2.0, seed=4)
    labels = np.unique(group.names, return_inverse=True)[1].astype(np.int64)
    fold = assign_folds(labels, np.arange(len(labels)), 3, seed=0)
    task = Task(0, kind, KINDS[kind].settings[0])
    said = out_of_fold(task, group.vectors, labels, fold)
    other = labels.copy()
    other[fold == 1] = (labels[fold == 1] + 1) % 5
    again = out_of_fold(task, group.vectors, other, fold)
    assert np.array_equal(said[fold == 1], again[fold == 1])
    assert not np.allclose(said[fold == 0], again[fold == 0])  # those have learnt from them


def test_no_weight_is_measured_on_its_own_pictures() -> None:
    """The same of the weights of a stack."""
    random = np.random.default_rng(5)
    said = [log_softmax(random.standard_normal((60, 4))) for _ in range(2)]
    truth, fold = random.integers(0, 4, 60), np.arange(60) % 3
    answers = held_out(said, truth, fold)
    other = np.where(fold == 1, said[0].argmax(axis=1), truth)
    again = held_out(said, other, fold)
    assert np.array_equal(answers[fold == 1], again[fold == 1])
    assert not np.allclose(answers[fold == 0], again[fold == 0])


def test_folds_leave_everybody_somebody_to_learn_from() -> None:
    labels = np.array([0] * 11 + [1] * 2 + [2] + [3] * 3)
    copies = np.arange(17)
    copies[16] = 15  # two copies of one picture of person 3
    fold = assign_folds(labels, copies, 5, seed=1)
    assert fold[labels == 2] == NEVER
    assert fold[15] == fold[16]
    for number in range(fold.max() + 1):
        assert set(labels[fold != number]) == {0, 1, 2, 3}
    sizes = np.bincount(fold[(labels == 0)], minlength=5)
    assert sizes.max() - sizes.min() <= 1


def test_copies_do_not_flatter() -> None:
    """Each picture twice, under a random name: a copy held back alone would be recognised."""
    random = np.random.default_rng(6)
    once = normalize(random.standard_normal((60, 8)).astype(np.float32))
    names = random.permutation(np.repeat(["a", "b", "c"], 20)).tolist()
    head = fit(MODELS[:1], [np.concatenate([once, once])], names * 2, kind="knn")
    assert head.report.accuracy < 0.5


def test_a_model_that_sees_nothing_does_no_harm() -> None:
    group, noise = crowd(8, 12, (16,), spread=0.8, seed=1), crowd(8, 12, (16,), spread=50, seed=2)
    alone = fit(MODELS[:1], group.vectors, group.names)
    head = fit(MODELS, [group.vectors[0], noise.vectors[0]], group.names)
    assert max(one.accuracy for one in head.report.candidates[2:]) < 0.4
    assert head.report.bits < alone.report.bits + 0.05
    right = accuracy(head, [group.fresh[0], noise.fresh[0]], group.fresh_names)
    assert right >= accuracy(alone, group.fresh, group.fresh_names) - 0.05


def test_strangers_get_a_label_at_the_rate_that_was_asked_for() -> None:
    group = crowd(people=80, pictures=5, spread=0.8)
    head = fit(MODELS, group.vectors, group.names, kind="knn")

    def unknown(vectors: list[np.ndarray]) -> float:
        faces = [
            [Embedding(v, model.contract) for v, model in zip(views, MODELS, strict=True)]
            for views in zip(*vectors, strict=True)
        ]
        said = head.classify(faces, unknown=0.1)
        assert all(answer.label in (None, answer.top[0].label) for answer in said)
        return float(np.mean([answer.label is None for answer in said]))

    assert 0.84 < unknown(group.strangers) < 0.96
    assert abs(unknown(group.fresh) - head.operating_point(0.1).fnmr) < 0.05
    with pytest.raises(NoOperatingPoint, match=r"0\.001"):
        head.operating_point(0.001)


def test_wrong_names_are_suspected(group: Crowd) -> None:
    names = list(group.names)
    names[3], names[50] = names[70], names[100]
    vectors = [rows.copy() for rows in group.vectors]
    for rows, strange in zip(vectors, group.strangers, strict=True):
        rows[130] = strange[0]  # somebody who is nowhere else
    head = fit(MODELS, vectors, names, sources=[f"{row}.jpg" for row in range(len(names))])
    found = {suspect.source: suspect for suspect in head.report.suspects}
    assert {"3.jpg", "50.jpg", "130.jpg"} <= set(found)
    assert len(found) < 15
    assert found["3.jpg"].likelier == group.names[3]
    assert found["3.jpg"].label == group.names[70]
    assert found["3.jpg"].probability < 0.5


def test_somebody_with_one_picture_is_learnt_but_not_measured(group: Crowd) -> None:
    rows = [*range(40), 60]
    head = fit(MODELS, [v[rows] for v in group.vectors], [group.names[row] for row in rows])
    assert len(head.labels) == 3
    assert head.report.pictures == 40
    own = head.probabilities([v[[60]] for v in group.vectors])
    assert head.labels[own.argmax()] == group.names[60]


def test_two_people_with_two_pictures_each() -> None:
    group = crowd(2, 2, spread=0.3)
    head = fit(MODELS, group.vectors, group.names)
    assert accuracy(head, group.fresh, group.fresh_names) == 1
    with pytest.raises(InputError, match="too few pictures"):
        head.operating_point(0.1)


def test_too_little_is_refused() -> None:
    group = crowd(3, 2)
    one = [rows[:2] for rows in group.vectors]
    with pytest.raises(InputError, match=r"show 1 person, and a head needs at least two"):
        fit(MODELS, one, group.names[:2])  # one person twice
    with pytest.raises(InputError, match="each of the 2 people has one picture"):
        fit(MODELS, [rows[[0, 2]] for rows in group.vectors], ["a", "b"])
    same = [rows[[0, 0, 2, 2]] for rows in group.vectors]
    with pytest.raises(InputError, match="two different pictures"):
        fit(MODELS, same, ["a", "a", "b", "b"])
    with pytest.raises(InputError, match="unknown kind of head 'forest'"):
        fit(MODELS, group.vectors, group.names, kind="forest")
    with pytest.raises(InputError, match="one contract"):
        fit((MODELS[0], MODELS[0]), group.vectors, group.names)
    with pytest.raises(InputError, match="one for each of the 5 pictures"):
        fit(MODELS, group.vectors, group.names[:5])
    with pytest.raises(InputError, match="folds"):
        fit(MODELS, group.vectors, group.names, folds=1)


def test_pool_of_parts_is_the_weighted_sum_of_their_logarithms() -> None:
    random = np.random.default_rng(8)
    logs = [log_softmax(random.standard_normal((5, 3))) for _ in range(2)]
    logs[1][4] = np.nan  # the second model has not found this face
    weights = np.array([0.5, 1.5])
    mixed = np.exp(pool(logs, weights))
    for row in range(4):
        product = np.exp(logs[0][row]) ** 0.5 * np.exp(logs[1][row]) ** 1.5
        assert mixed[row] == pytest.approx(product / product.sum())
    alone = np.exp(logs[0][4]) ** 2.0  # the first speaks for both
    assert mixed[4] == pytest.approx(alone / alone.sum())


def test_a_large_confusion_is_cut_down_to_its_mistakes() -> None:
    matrix = 5 * np.eye(100, dtype=np.int64)
    matrix[7, 90], matrix[20, 3] = 2, 4
    classes = of_confusion(tuple(f"{number:02d}" for number in range(100)), matrix)
    cut = most_confused(classes, 4)
    assert cut.names == ("03", "07", "20", "90")
    assert cut.matrix.tolist() == [
        [5, 0, 0, 0, 0], [0, 5, 0, 2, 0], [4, 0, 5, 0, 0], [0, 0, 0, 5, 0],
    ]  # fmt: skip
    assert "60 of 100 classes" in plots.confusion(classes).axes[0].get_title()
