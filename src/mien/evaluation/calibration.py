"""Thresholds at false match rates measured on every pair of people, for single comparisons and for
searches, and how far scores can be read as probabilities.

Each pair of *people* counts once, however many pictures they have: otherwise the 530 pictures of
one president would be most of the evidence. Rates that rest on fewer than 30 wrong pairs of
people are left out (Doddington's rule of 30).
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from mien import decision
from mien.errors import InputError
from mien.evaluation.curves import Curve, Floats, Tally, rates_at, supports, threshold_at
from mien.evaluation.intervals import wilson
from mien.evaluation.protocols import Bools, Ints, People
from mien.evaluation.vectors import Vectors
from mien.types import OperatingPoint

RATES = (1e-1, 5e-2, 2e-2, 1e-2, 5e-3, 2e-3, 1e-3, 5e-4, 2e-4, 1e-4, 5e-5, 2e-5, 1e-5, 5e-6)

_ROWS = 512


def all_pairs(
    group: People, vectors: Vectors, by_subject: bool = False, demand: Floats | None = None
) -> tuple[Tally, Tally]:
    """Tallies of every genuine and every impostor comparison, people weighted alike.

    `comparisons` is the number of people with two pictures, and of pairs of people. With
    `by_subject`, intervals can be drawn. A pair with a failed picture counts as one that never
    matches. With `demand` (n,), scores are those less what the probe demands, and either picture
    of a pair is the probe half of the time.
    """
    subjects = len(group.names) if by_subject else 0
    genuine, impostor = Tally(subjects), Tally(subjects)
    sizes = np.bincount(group.person, minlength=len(group.names))
    if (sizes > 1).sum() == 0 or (sizes > 0).sum() < 2:
        raise InputError(f"{group.name} needs two people, and two pictures of one, to measure on")
    share = 1.0 / np.maximum(1, sizes)[group.person]
    genuine_share = np.where(sizes > 1, 2.0 / np.maximum(1, sizes * (sizes - 1)), 0.0)
    usable = vectors.usable
    index = np.arange(group.person.size)
    for start in range(0, index.size, _ROWS):
        rows = index[start : start + _ROWS]
        scores = vectors.matrix[rows] @ vectors.matrix[start:].T
        scores[~(usable[rows][:, None] & usable[start:])] = -1.0
        later = rows[:, None] < index[start:]
        same = group.person[rows][:, None] == group.person[start:]
        for tally, kind in ((impostor, later & ~same), (genuine, later & same)):
            i, j = np.nonzero(kind)
            a, b = rows[i], start + j
            owners = [group.person[a], group.person[b]]
            weights = share[a] * share[b]
            if tally is genuine:  # both pictures are one person's
                owners, weights = owners[:1], genuine_share[owners[0]]
            for less in (0.0,) if demand is None else (demand[a], demand[b]):
                tally.add(scores[i, j] - less, weights, owners if by_subject else (), 0)
    people = int((sizes > 0).sum())
    genuine.comparisons, impostor.comparisons = int((sizes > 1).sum()), people * (people - 1) // 2
    return genuine, impostor


def operating_points(
    measured: Curve, protocol: str, contract: str, rates: Sequence[float] = RATES
) -> list[OperatingPoint]:
    """A threshold for each rate that 30 wrong pairs support, highest rate first.

    Raises `InputError` when not even the highest has that many.
    """
    points = []
    for rate in rates:
        if supports(measured, rate, wrong=30):
            threshold = threshold_at(measured, rate)
            fnmr = float(rates_at(measured, threshold)[1])
            points.append(OperatingPoint(threshold, rate, fnmr, protocol, contract))
    if not points:
        raise InputError(
            f"{measured.impostors:,} pairs of people are too few for a threshold: a false match "
            f"rate of {rates[0]:g} needs {30 / rates[0]:,.0f}"
        )
    return points


@dataclass(frozen=True, slots=True)
class Check:
    """What an operating point promises and what other people's pairs gave."""

    point: OperatingPoint
    fmr: float
    fnmr: float


def check(points: Sequence[OperatingPoint], other: Curve) -> list[Check]:
    """The rates of thresholds on people that they were not chosen on."""
    return [
        Check(point, *(float(rate) for rate in rates_at(other, point.threshold)))
        for point in points
    ]


@dataclass(frozen=True, eq=False, slots=True)
class Reliability:
    """How far stated probabilities (bins,) agree with what happened, on pairs not fitted to.

    `stated` is the mean probability of a bin, `share` how many of its pairs are the same person,
    `low` and `high` its 95% interval, `count` its pairs. `ece` is the mean gap weighted by count,
    at the proportion of genuine pairs in the data; `cllr` is in bits (see `decision.cllr`).
    """

    stated: Floats
    share: Floats
    low: Floats
    high: Floats
    count: Ints
    ece: float
    cllr: float


def reliability(scores: Floats, same: Bools, fold: Ints, bins: int = 10) -> Reliability | None:
    """Fit a calibration on all folds but one, state probabilities for that one, for each in turn.

    None when there are fewer than 50 pairs of a kind: nothing could be seen in so few.
    """
    if min(same.sum(), (~same).sum()) < 50:
        return None
    llrs = np.zeros(scores.size)
    stated = np.zeros(scores.size)
    for number in np.unique(fold):
        inside = fold == number
        good, bad = scores[~inside & same], scores[~inside & ~same]
        fitted = decision.fit_calibration(good, bad)
        prior = good.size / (good.size + bad.size)
        llrs[inside] = fitted.llr(scores[inside])
        stated[inside] = fitted.probability(scores[inside], prior)
    place = np.minimum((stated * bins).astype(np.int64), bins - 1)
    count = np.bincount(place, minlength=bins)
    filled = np.maximum(1, count)
    share = np.bincount(place, same, bins) / filled
    mean = np.bincount(place, stated, bins) / filled
    bounds = [wilson(share[i] * count[i], count[i]) if count[i] else None for i in range(bins)]
    return Reliability(
        mean,
        share,
        np.array([bound.low if bound else 0.0 for bound in bounds]),
        np.array([bound.high if bound else 1.0 for bound in bounds]),
        count,
        float((np.abs(mean - share) * count).sum() / scores.size),
        decision.cllr(llrs[same], llrs[~same]),
    )
