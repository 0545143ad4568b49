"""Ways to learn a head's part from labelled vectors: neighbours, linear models, a perceptron."""

import warnings
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from mien.classification.heads import Layers, Learner, Linear, Neighbours, Vectors

Labels = NDArray[np.int64]  # (n,)
Learn = Callable[[Vectors, Labels, float], Learner]


def neighbours(vectors: Vectors, labels: Labels, count: float) -> Neighbours:
    """The `count` nearest pictures; cosines are measured in halves of their standard deviation."""
    order = np.argsort(labels, kind="stable")
    some = vectors[:: max(1, len(vectors) // 500)]
    spread = max(float((some @ vectors.T).std()), 1e-6)
    return Neighbours(
        vectors[order],
        np.searchsorted(labels[order], np.arange(labels.max() + 1)),
        np.array(int(count)),
        np.array(2 / spread),
    )


def logistic(vectors: Vectors, labels: Labels, strength: float) -> Linear:
    """Multinomial logistic regression, classes weighted alike; `strength` is the inverse of L2."""
    from sklearn.linear_model import LogisticRegression

    middle, scale = _centre(vectors)
    model = LogisticRegression(C=strength, class_weight="balanced", max_iter=500, tol=1e-3)
    model.fit((vectors - middle) / scale, labels)
    return _linear(model.coef_, model.intercept_, middle, scale)


def svm(vectors: Vectors, labels: Labels, strength: float) -> Linear:
    """One linear support vector machine a class against all others, classes weighted alike."""
    from sklearn.svm import LinearSVC

    middle, scale = _centre(vectors)
    model = LinearSVC(C=strength, class_weight="balanced", random_state=0, max_iter=5000)
    model.fit((vectors - middle) / scale, labels)
    return _linear(model.coef_, model.intercept_, middle, scale)


def perceptron(vectors: Vectors, labels: Labels, penalty: float) -> Layers:
    """A perceptron with 128 hidden units; small classes are repeated to the size of the largest."""
    from sklearn.neural_network import MLPClassifier

    middle, scale = _centre(vectors)
    rows = _balanced(labels)
    model = MLPClassifier((128,), alpha=penalty, max_iter=60, tol=1e-3, random_state=0)
    with warnings.catch_warnings():  # it stops after 60 rounds on purpose
        warnings.simplefilter("ignore")
        model.fit((vectors[rows] - middle) / scale, labels[rows])
    first, last = model.coefs_
    offsets, out_offsets = model.intercepts_
    if last.shape[1] == 1:  # two classes share one output
        last, out_offsets = _both(last.T).T, _both(out_offsets)
    first = first / scale
    return Layers(
        first.astype(np.float32),
        (offsets - middle @ first).astype(np.float32),
        last.astype(np.float32),
        out_offsets.astype(np.float32),
    )


def _centre(vectors: Vectors) -> tuple[Vectors, float]:
    """The mean, and the root mean square distance from it in one dimension."""
    middle = vectors.mean(axis=0)
    return middle, max(float(np.sqrt(((vectors - middle) ** 2).mean())), 1e-6)


def _linear(
    directions: NDArray[np.floating], offsets: NDArray[np.floating], middle: Vectors, scale: float
) -> Linear:
    """For vectors as they are, from a model of centred and scaled ones."""
    if len(directions) == 1:  # two classes share one direction
        directions, offsets = _both(directions), _both(offsets)
    weights = directions.T / scale
    return Linear(weights.astype(np.float32), (offsets - middle @ weights).astype(np.float32))


def _both(second: NDArray[np.floating]) -> NDArray[np.floating]:
    """What is said for the second of two classes, as two rows: half against, half for."""
    both: NDArray[np.floating] = np.concatenate([-second / 2, second / 2])
    return both


def _balanced(labels: Labels) -> Labels:
    """Row numbers in which every class occurs as often as the largest."""
    most = int(np.bincount(labels).max())
    rows = [np.resize(np.flatnonzero(labels == number), most) for number in np.unique(labels)]
    return np.concatenate(rows)


@dataclass(frozen=True, slots=True)
class Kind:
    """A way to learn, and the settings among which cross-validation chooses."""

    learn: Learn
    setting: str
    settings: tuple[float, ...]


KINDS = {
    "knn": Kind(neighbours, "neighbours", (1, 3, 8)),
    "logistic": Kind(logistic, "C", (0.001, 0.01, 0.1)),
    "svm": Kind(svm, "C", (0.001, 0.01)),
    "mlp": Kind(perceptron, "alpha", (1.0, 10.0)),
}
STACK = ("knn", "logistic")
"""The kinds of which a stack has one for each model."""
