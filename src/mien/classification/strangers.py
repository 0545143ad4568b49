"""How much pictures resemble their own person and others: thresholds for "somebody else"."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from mien import decision
from mien.classification.heads import Vectors
from mien.classification.learners import Labels
from mien.embedding import normalize
from mien.types import OperatingPoint

RATES = (0.1, 0.05, 0.02, 0.01, 0.005, 0.002, 0.001)
EVIDENCE = 10  # strangers who must have reached a threshold, for its rate to be stated


@dataclass(frozen=True, eq=False, slots=True)
class Meeting:
    """How much every picture resembles its own person, and how much anybody else.

    `means`, `middle` and `spread` are those of `Acquaintance`. `own` (n,) is its likeness to the
    other pictures of its person, NaN where there are none; `other` (n,) the likeness to whom else
    it resembles most.
    """

    means: tuple[Vectors, ...]
    middle: tuple[float, ...]
    spread: tuple[float, ...]
    own: NDArray[np.float64]
    other: NDArray[np.float64]

    def points(self, kind: str) -> tuple[OperatingPoint, ...]:
        """Thresholds at the rates that were supported by `EVIDENCE` strangers.

        Everybody is a stranger once: to a head that had been fitted on all others.
        """
        met = ~np.isnan(self.own)
        known = np.maximum(self.own[met], self.other[met])
        return tuple(
            decision.fit_threshold(
                known, self.other, rate, f"this head ({kind})",
                "own pictures, each person in turn a stranger to all others", EVIDENCE,
            )
            for rate in RATES
            if self.other.size * rate >= EVIDENCE
        )  # fmt: skip


def meet(vectors: Sequence[Vectors], labels: Labels, people: int) -> Meeting:
    """How pictures (one matrix a model, and the class of each row) resemble the people in them."""
    count = np.bincount(labels, minlength=people)
    row = np.arange(len(labels))
    means, middles, spreads = [], [], []
    likeness = np.zeros((len(labels), people))
    for rows in vectors:
        sums = np.zeros((people, rows.shape[1]), np.float32)
        np.add.at(sums, labels, rows)
        means.append(normalize(sums))
        scores = (rows @ means[-1].T).astype(np.float64)
        rest = sums[labels] - rows  # a picture is not compared with itself
        norm = np.linalg.norm(rest, axis=1)
        with np.errstate(invalid="ignore", divide="ignore"):
            scores[row, labels] = np.where(
                count[labels] > 1, np.einsum("ij,ij->i", rest, rows) / norm, np.nan
            )
        others = scores[labels[:, None] != np.arange(people)]
        middles.append(float(others.mean()))
        spreads.append(max(float(others.std()), 1e-6))
        likeness += (scores - middles[-1]) / spreads[-1] / len(vectors)
    own = likeness[row, labels]
    likeness[row, labels] = -np.inf
    return Meeting(tuple(means), tuple(middles), tuple(spreads), own, likeness.max(axis=1))
