"""Closed-set classification: which of the known people, and how often right."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray

from mien.classification.report import by_class
from mien.errors import InputError
from mien.evaluation.curves import Floats
from mien.evaluation.intervals import Interval, wilson
from mien.evaluation.protocols import Ints


@dataclass(frozen=True, eq=False, slots=True)
class Classes:
    """A confusion matrix with what follows from it.

    `matrix` (k, k + 1) counts the probes of each true class (row) by the class that was said
    (column); the last column holds those for which nothing could be said. `precision`, `recall`
    and `f1` are (k,), NaN where a class has no cases. `support` (k,) is the number of probes.
    """

    names: tuple[str, ...]
    matrix: NDArray[np.int64]
    precision: Floats
    recall: Floats
    f1: Floats
    support: Ints

    @property
    def accuracy(self) -> float:
        """The share of probes given their own class; those without an answer are wrong."""
        return float(np.trace(self.matrix) / self.matrix.sum())

    @property
    def accuracy_interval(self) -> Interval:
        return wilson(float(np.trace(self.matrix)), float(self.matrix.sum()))

    @property
    def macro_f1(self) -> float:
        """The mean of the F1 of the classes that have probes."""
        return float(np.mean(self.f1[self.support > 0]))


def classify(truth: ArrayLike, said: ArrayLike, names: tuple[str, ...]) -> Classes:
    """Count answers: class numbers `truth` (n,), and `said` (n,) with -1 for no answer."""
    right, answer = np.asarray(truth, np.int64), np.asarray(said, np.int64)
    count = len(names)
    if not right.size:
        raise InputError("there are no probes to classify")
    if right.shape != answer.shape or right.min() < 0 or max(right.max(), answer.max()) >= count:
        raise InputError(f"classes are numbers from 0 to {count - 1}, one answer for each probe")
    column = np.where(answer < 0, count, answer)
    matrix = np.bincount(right * (count + 1) + column, minlength=count * (count + 1))
    matrix = matrix.reshape(count, count + 1).astype(np.int64)
    return of_confusion(names, matrix)


def of_confusion(names: tuple[str, ...], matrix: NDArray[np.int64]) -> Classes:
    """What follows from a confusion matrix; (k, k) when there is an answer for every probe."""
    if matrix.shape[1] == len(names):
        matrix = np.pad(matrix, ((0, 0), (0, 1)))
    return Classes(names, matrix, *by_class(matrix), matrix.sum(axis=1))


def most_confused(classes: Classes, count: int) -> Classes:
    """The `count` classes with the most mistakes, among themselves."""
    counts = classes.matrix[:, :-1]
    mistakes = counts.sum(axis=0) + classes.matrix.sum(axis=1) - 2 * np.diag(counts)
    kept = np.sort(np.argsort(-mistakes, kind="stable")[:count])
    rows = classes.matrix[kept]
    names = tuple(classes.names[number] for number in kept)
    return of_confusion(names, np.column_stack([rows[:, kept], rows[:, -1]]))


def nearest(
    gallery: NDArray[np.float32], labels: Ints, probes: NDArray[np.float32], count: int
) -> Ints:
    """The class (n,) whose mean direction is most like each probe; -1 for a row of zeros."""
    sums = np.zeros((count, gallery.shape[1]))
    np.add.at(sums, labels, gallery)
    norms = np.linalg.norm(sums, axis=1, keepdims=True)
    means = sums / np.where(norms > 0, norms, 1.0)
    scores = np.where(norms[:, 0] > 0, probes @ means.T, -np.inf)
    answer: Ints = np.where(probes.any(axis=1), scores.argmax(axis=1), -1).astype(np.int64)
    return answer
