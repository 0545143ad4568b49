"""How well a head tells its labels apart, counted on pictures that were held back."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Counts = NDArray[np.int64]
Rates = NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class Suspect:
    """A picture that may be filed under the wrong name.

    `likelier` is the label that it resembles more, None when it resembles nobody much;
    `probability` is that of the label it has.
    """

    source: str
    label: str
    likelier: str | None
    probability: float


@dataclass(frozen=True, slots=True)
class Candidate:
    """A part that was tried: its name, the setting that was chosen, its accuracy held out."""

    name: str
    setting: str
    accuracy: float


@dataclass(frozen=True, eq=False, slots=True)
class Report:
    """What a head was measured to do.

    `confusion` (classes, classes) counts pictures by their label (row) and by what was said of
    them (column). `ece`, in [0, 1], is the mean gap between stated probabilities and how often
    they came true; `bits` is the mean of -log2 of the probability of the true label: 0 is perfect,
    log2(classes) is what guessing costs. `protocol` says on which pictures.
    """

    protocol: str
    confusion: Counts
    ece: float
    bits: float
    candidates: tuple[Candidate, ...]
    suspects: tuple[Suspect, ...]

    @property
    def pictures(self) -> int:
        return int(self.confusion.sum())

    @property
    def accuracy(self) -> float:
        """The share of pictures given their own label."""
        return float(np.trace(self.confusion) / self.confusion.sum())


def confusion(truth: Counts, said: Counts, classes: int) -> Counts:
    """How often pictures of each class (row) were said to be of each (column): (k, k)."""
    return np.bincount(truth * classes + said, minlength=classes**2).reshape(classes, classes)


def by_class(counts: Counts) -> tuple[Rates, Rates, Rates]:
    """Precision, recall and F1 of each class (k,), NaN where a class has no cases.

    `counts` (k, k or more) has true classes (rows) by what was said; further columns are
    answers that name no class.
    """
    hits, support = np.diag(counts), counts.sum(axis=1)
    claimed = counts[:, : len(counts)].sum(axis=0)
    with np.errstate(invalid="ignore"):
        return hits / claimed, hits / support, 2 * hits / (claimed + support)


def calibration_error(stated: Rates, right: NDArray[np.bool_], bins: int = 10) -> float:
    """The expected calibration error of stated probabilities (n,) (Naeini and others, 2015)."""
    place = np.minimum((stated * bins).astype(np.int64), bins - 1)
    gap = np.bincount(place, stated, bins) - np.bincount(place, right, bins)
    return float(np.abs(gap).sum() / len(stated))
