"""How alike two faces, and two groups, have to be in one particular album."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from mien import decision
from mien.errors import InputError
from mien.types import OperatingPoint

_LOOSEST = 1e-3  # no threshold is looser than this false match rate, whatever the album
_STEP = 5  # groups need a mean that single faces reach at this many times the false match rate
_SAMPLE = 2048  # faces whose scores with all others tell what an album is like
_COLUMNS = 8192  # of the score matrix at a time: 64 MB


@dataclass(frozen=True, slots=True)
class Linkage:
    """What two groups need to be one: `alone` for single faces, nearing `grouped` for large ones.

    `grouped` is the lower of the two; no pair of faces below it is ever looked at.
    """

    alone: OperatingPoint
    grouped: OperatingPoint

    def needed(self, a: NDArray[np.float64], b: NDArray[np.float64]) -> NDArray[np.float64]:
        """The mean score that groups of `a` and `b` faces need, elementwise."""
        floor = self.grouped.threshold
        needed: NDArray[np.float64] = floor + (self.alone.threshold - floor) / (a * b)
        return needed


def linkage(
    points: Sequence[OperatingPoint],
    vectors: NDArray[np.float32],
    contract: str,
    *,
    fdr: float = 0.02,
) -> Linkage:
    """The thresholds for an album, by its unit vectors (n, dim).

    `fdr` is the false discovery rate: of all pairs of faces that reach the threshold, the share
    that are not the same person. How many strangers reach it follows from the false match rate,
    how many pairs do is counted, on a sample of the faces; so an album of few people with many
    pictures gets a lower threshold than a crowd in which everybody is seen once. The settings
    here were chosen on the people of LFW's development training set and on the training pictures
    of 29 celebrities. Raises `NoOperatingPoint`, and `InputError` for a rate that is none.
    """
    if not 0 < fdr < 1:
        raise InputError(f"a false discovery rate lies between 0 and 1, got {fdr:g}")
    rates = np.geomspace(_LOOSEST, 1e-15, 241)
    alone = [decision.identification_point(points, float(rate), 1, contract) for rate in rates]
    reached = _pairs_reaching(vectors, [point.threshold for point in alone])
    false = rates * len(vectors) * (len(vectors) - 1) / 2
    fits = np.flatnonzero(false <= fdr * np.maximum(1, reached))
    chosen = int(fits[0]) if len(fits) else len(rates) - 1
    grouped = decision.identification_point(points, float(_STEP * rates[chosen]), 1, contract)
    return Linkage(alone[chosen], grouped)


def _pairs_reaching(
    vectors: NDArray[np.float32], thresholds: Sequence[float]
) -> NDArray[np.float64]:
    """How many pairs of faces reach each of the rising thresholds, from a sample of the faces."""
    count = len(vectors)
    rows = np.linspace(0, count - 1, min(count, _SAMPLE)).astype(np.int64)
    between = np.zeros(len(thresholds) + 1)
    for start in range(0, count, _COLUMNS):
        scores = vectors[rows] @ vectors[start : start + _COLUMNS].T
        high = scores[scores >= thresholds[0]]
        between += np.bincount(np.searchsorted(thresholds, high, "right"), minlength=len(between))
    at_least: NDArray[np.float64] = between[::-1].cumsum()[::-1][1:]
    return np.maximum(at_least - len(rows), 0) * count / max(1, len(rows)) / 2  # none with itself
