"""A fitted head, and how it answers: from the vectors of a face to labels with probabilities.

Whatever was fitted, using it needs NumPy alone. A head has one or several *parts*: a learner on
the vectors of one model. Their log-probabilities are added up with a weight each and normalised
(a logarithmic opinion pool: Genest and Zidek, 1986). With one part the weight is its calibration
(temperature scaling: Guo and others, 2017); with several it is the meta-learner of a stack.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from mien import decision
from mien.classification.report import Report
from mien.errors import ContractMismatch, InputError
from mien.types import Embedding, OperatingPoint

Scores = NDArray[np.float64]  # (n, classes)
Vectors = NDArray[np.float32]  # (n, dim), unit rows


@dataclass(frozen=True, eq=False, slots=True)
class Linear:
    """A direction and an offset for each class: `weights` (dim, classes), `offsets` (classes,)."""

    weights: NDArray[np.float32]
    offsets: NDArray[np.float32]

    def log_probabilities(self, vectors: Vectors) -> Scores:
        """(n, dim) to (n, classes): natural logarithms."""
        return log_softmax(vectors @ self.weights + self.offsets)


@dataclass(frozen=True, eq=False, slots=True)
class Layers:
    """A perceptron with one hidden layer of rectified units."""

    weights: NDArray[np.float32]  # (dim, hidden)
    offsets: NDArray[np.float32]  # (hidden,)
    out_weights: NDArray[np.float32]  # (hidden, classes)
    out_offsets: NDArray[np.float32]  # (classes,)

    def log_probabilities(self, vectors: Vectors) -> Scores:
        """(n, dim) to (n, classes): natural logarithms."""
        hidden = np.maximum(vectors @ self.weights + self.offsets, 0)
        return log_softmax(hidden @ self.out_weights + self.out_offsets)


@dataclass(frozen=True, eq=False, slots=True)
class Neighbours:
    """The pictures themselves: a class is as near as its `count` nearest pictures.

    `vectors` (m, dim) are sorted by class and `starts` (classes,) says where each begins. The score
    of a class is the mean of exp(`sharpness` x cosine) over those pictures, so that a class
    with many of them has no advantage.
    """

    vectors: Vectors
    starts: NDArray[np.int64]
    count: NDArray[np.int64]  # ()
    sharpness: NDArray[np.float64]  # ()

    def log_probabilities(self, vectors: Vectors) -> Scores:
        """(n, dim) to (n, classes): natural logarithms."""
        likeness = vectors @ self.vectors.T
        scores = np.empty((len(vectors), len(self.starts)))
        for number, one in enumerate(np.split(likeness, self.starts[1:], axis=1)):
            nearest = -np.partition(-one, min(int(self.count), one.shape[1]) - 1, axis=1)
            nearest = self.sharpness * nearest[:, : int(self.count)].astype(np.float64)
            top = nearest.max(axis=1)
            scores[:, number] = top + np.log(np.exp(nearest - top[:, None]).mean(axis=1))
        return log_softmax(scores)


Learner = Linear | Layers | Neighbours
"""Vectors (n, dim) of one model to natural logarithms of a probability for each class."""


def log_softmax(scores: NDArray[np.floating]) -> Scores:
    """Scores (n, classes) to log-probabilities."""
    shifted = scores.astype(np.float64) - scores.max(axis=1, keepdims=True)
    logs: Scores = shifted - np.log(np.exp(shifted).sum(axis=1, keepdims=True))
    return logs


@dataclass(frozen=True, slots=True)
class Model:
    """A recogniser whose vectors a head takes: the id of its bundle, and the contract."""

    id: str
    contract: str


@dataclass(frozen=True, eq=False, slots=True)
class Part:
    """One learner of a head; `model` is the number of the model whose vectors it takes."""

    name: str
    model: int
    learner: Learner


@dataclass(frozen=True, eq=False, slots=True)
class Acquaintance:
    """How far a face resembles anybody of the classes: what tells strangers apart.

    For each model: `means` holds the mean direction (classes, dim) of every class, `middle` and
    `spread` are the mean and the standard deviation of cosines of a face with classes of others.
    Likeness is counted in such deviations (Z-norm: Auckenthaler and others, 2000) and averaged
    over the models. `points` are thresholds on it, at the share of strangers who reach them; there
    is none when there were too few pictures to measure one.
    """

    means: tuple[Vectors, ...]
    middle: tuple[float, ...]
    spread: tuple[float, ...]
    points: tuple[OperatingPoint, ...]

    def scores(self, vectors: Sequence[Vectors]) -> NDArray[np.float64]:
        """The likeness (n,) to the class that each face resembles most; one matrix a model."""
        found = [
            (rows @ means.T - middle) / spread
            for rows, means, middle, spread in zip(
                vectors, self.means, self.middle, self.spread, strict=True
            )
        ]
        best: NDArray[np.float64] = np.nanmean(found, axis=0).max(axis=1)
        return best


@dataclass(frozen=True, slots=True)
class Likely:
    """A label and its probability, in [0, 1]."""

    label: str
    probability: float


@dataclass(frozen=True, slots=True)
class Classification:
    """Who a face is among the labels of a head.

    `top` are the likeliest labels, best first, and `probability` is that of the first. `label`
    is the first of them as well, or None for a face that resembles none of them enough.
    """

    label: str | None
    probability: float
    top: tuple[Likely, ...]


@dataclass(frozen=True, eq=False, slots=True)
class Head:
    """What `mien fit` learnt: which labels there are, and how to tell them apart.

    `weights` has one number for each part. `report` says how well it did on pictures that were
    held back from it. `kind` is what was asked for: "knn", "logistic", "svm", "mlp" or "stack".
    """

    kind: str
    labels: tuple[str, ...]
    models: tuple[Model, ...]
    parts: tuple[Part, ...]
    weights: NDArray[np.float64]
    acquaintance: Acquaintance
    report: Report

    def probabilities(self, vectors: Sequence[Vectors]) -> Scores:
        """The probability of each label (n, classes), from one matrix (n, dim) for each model.

        A row of NaN says that a model has no vector of that face; the others then speak for it.
        """
        logs = [part.learner.log_probabilities(vectors[part.model]) for part in self.parts]
        return np.exp(pool(logs, self.weights))

    def classify(
        self, faces: Sequence[Sequence[Embedding]], *, top: int = 5, unknown: float | None = None
    ) -> list[Classification]:
        """Label faces, each given by its embeddings by the models of this head, in any order.

        With `unknown`, a rate between 0 and 1, a face that resembles nobody is labelled None: the
        threshold is the one that this share of strangers reach. Raises `ContractMismatch` for
        embeddings of a model that the head was not fitted on, `InputError` when that of its first
        model is missing, and what `operating_point` raises.
        """
        if top < 1:
            raise InputError(f"top is at least 1, got {top}")
        if not faces:
            return []
        vectors = self._matrices(faces)
        point = None if unknown is None else self.operating_point(unknown)
        met = self.acquaintance.scores(vectors)
        answers = []
        for row, score in zip(self.probabilities(vectors), met.tolist(), strict=True):
            best = np.argsort(-row, kind="stable")[:top]
            likely = tuple(Likely(self.labels[i], float(row[i])) for i in best)
            stranger = point is not None and not point.accepts(score)
            label = None if stranger else likely[0].label
            answers.append(Classification(label, likely[0].probability, likely))
        return answers

    def operating_point(self, unknown: float) -> OperatingPoint:
        """The likeness that a share `unknown` of strangers reach, and what it costs the known.

        Raises `NoOperatingPoint` when so low a rate was not measured, `InputError` when none was.
        """
        points = self.acquaintance.points
        if not points:
            raise InputError(
                "this head was fitted on too few pictures to know how often strangers resemble "
                "somebody: leave out the rate for unknown faces, or fit it on more pictures"
            )
        return decision.operating_point(points, unknown, f"this head ({self.kind})")

    def _matrices(self, faces: Sequence[Sequence[Embedding]]) -> list[Vectors]:
        """One matrix for each model, with rows of NaN where a face has no vector of it."""
        known = {model.contract: number for number, model in enumerate(self.models)}
        dims = [means.shape[1] for means in self.acquaintance.means]
        matrices = [np.full((len(faces), dim), np.nan, np.float32) for dim in dims]
        for row, face in enumerate(faces):
            for embedding in face:
                number = known.get(embedding.contract)
                if number is None:
                    raise ContractMismatch(self.models[0].contract, embedding.contract)
                if embedding.vector.size != dims[number]:
                    raise InputError(
                        f"vectors of {embedding.contract} have {dims[number]} numbers, this one "
                        f"has {embedding.vector.size}"
                    )
                matrices[number][row] = embedding.vector
            if np.isnan(matrices[0][row, 0]):
                raise InputError(f"a face has no vector of {self.models[0].contract}")
        return matrices


def pool(logs: Sequence[Scores], weights: NDArray[np.float64]) -> Scores:
    """The log-probabilities (n, classes) that several parts together give.

    Where one part says nothing (NaN) the weight of the others grows, so that the whole is as sure.
    """
    said = np.stack(logs)
    there = np.isfinite(said[:, :, :1])
    lift = weights.sum() / np.maximum((weights[:, None, None] * there).sum(axis=0), 1e-12)
    mixed = (weights[:, None, None] * np.where(there, said, 0.0)).sum(axis=0) * lift
    return log_softmax(mixed)
