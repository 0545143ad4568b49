"""One-to-one protocols run to their figures."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from mien.errors import InputError
from mien.evaluation.curves import (
    FAILED,
    FARS,
    Curve,
    Floats,
    auc,
    best_threshold,
    checked,
    curve,
    d_prime,
    decide,
    eer,
    rates_at,
    supports,
    tars,
)
from mien.evaluation.intervals import (
    REPLICATES,
    Interval,
    VerificationIntervals,
    multiplicities,
    pair_weights,
    percentile,
    share_interval,
    share_intervals,
    verification_intervals,
    wilson,
)
from mien.evaluation.protocols import Bools, Ints, Pairs, folds_of
from mien.types import OperatingPoint

FEW = 30
"""A slice with fewer pairs of a kind has no rate of its own; it is named all the same."""


@dataclass(frozen=True, slots=True)
class Accuracy:
    """The share of right answers with a threshold that was chosen on other pairs.

    `stderr` is the standard error of the mean over folds (or that of a proportion where there is
    one fold), `folds` the accuracy and `thresholds` the threshold of each.
    """

    mean: float
    stderr: float
    interval: Interval
    folds: tuple[float, ...]
    thresholds: tuple[float, ...]


@dataclass(frozen=True, slots=True)
class Kept:
    """What an operating point promises and what these pairs gave, with its interval."""

    point: OperatingPoint
    fmr: float
    fmr_interval: Interval
    fnmr: float
    fnmr_interval: Interval


@dataclass(frozen=True, slots=True)
class Slice:
    """One value of a column at the threshold common to all: rates None where pairs are too few."""

    column: str
    value: str
    genuine: int
    impostors: int
    fmr: float | None
    fmr_interval: Interval | None
    fnmr: float | None
    fnmr_interval: Interval | None


@dataclass(frozen=True, eq=False, slots=True)
class Verification:
    """The figures of a verification protocol; see `curves` for what they mean.

    `scores` (n,) are those of the pairs in the order of the protocol, `FAILED` where a picture
    could not be used; `failed` counts such pairs.
    """

    scores: Floats
    same: Bools
    failed: int
    curve: Curve
    accuracy: Accuracy
    auc: float
    eer: float
    d_prime: float | None
    tar_at_far: dict[str, float | None]
    intervals: VerificationIntervals
    kept: tuple[Kept, ...]


def measure(
    pairs: Pairs, scores: Floats, accuracy: Accuracy, points: Sequence[OperatingPoint] = ()
) -> Verification:
    """The figures of scores (n,) of a protocol's pairs. Raises `InputError` for bad scores."""
    values = checked(scores, "given")
    if values.shape != pairs.same.shape:
        raise InputError(f"{values.size} scores for the {len(pairs)} pairs of {pairs.name}")
    rates = curve(values[pairs.same], values[~pairs.same])
    alive = values > FAILED
    kinds = [values[alive & pairs.same], values[alive & ~pairs.same]]
    spread = all(kind.size > 1 for kind in kinds) and sum(kind.var() for kind in kinds) > 0
    return Verification(
        values,
        pairs.same,
        int((~alive).sum()),
        rates,
        accuracy,
        auc(rates),
        eer(rates),
        d_prime(*kinds) if spread else None,
        tars(rates, FARS),
        verification_intervals(
            values,
            pairs.same,
            pairs.person_a,
            pairs.person_b,
            [far for far in FARS if supports(rates, far)],
        ),
        _kept(pairs, values, rates, points),
    )


def _kept(
    pairs: Pairs, scores: Floats, rates: Curve, points: Sequence[OperatingPoint]
) -> tuple[Kept, ...]:
    good, bad = pairs.same, ~pairs.same
    thresholds = np.array([point.threshold for point in points])
    fmr, fnmr = rates_at(rates, thresholds)
    fmr_intervals = share_intervals(
        scores[bad][:, None] >= thresholds, pairs.person_a[bad], pairs.person_b[bad]
    )
    fnmr_intervals = share_intervals(scores[good][:, None] < thresholds, pairs.person_a[good])
    return tuple(
        Kept(point, float(fmr[i]), fmr_intervals[i], float(fnmr[i]), fnmr_intervals[i])
        for i, point in enumerate(points)
    )


def cross_validated(pairs: Pairs, scores: Floats) -> Accuracy:
    """Accuracy fold by fold, with the threshold that is best on all the others.

    Where the protocol has no folds, ten are drawn. The interval is a bootstrap over people in
    which every threshold is chosen again. Raises `InputError` when a fold has no pairs, or the
    rest of them is all of one kind.
    """
    fold = folds_of(pairs)
    count = int(fold.max()) + 1
    if count < 2:
        raise InputError(f"{pairs.name} has one fold; the threshold needs others to be chosen on")
    values = checked(scores, "given")
    rights, thresholds = [], []
    for number in range(count):
        inside = fold == number
        if not inside.any():
            raise InputError(f"{pairs.name}: fold {number} is empty")
        threshold = best_threshold(values[~inside], pairs.same[~inside])
        rights.append(decide(values[inside], pairs.same[inside], threshold).accuracy)
        thresholds.append(threshold)
    return Accuracy(
        float(np.mean(rights)),
        float(np.std(rights, ddof=1) / np.sqrt(count)),
        _accuracy_interval(pairs, values, fold, count),
        tuple(rights),
        tuple(thresholds),
    )


def at_threshold(pairs: Pairs, scores: Floats, threshold: float) -> Accuracy:
    """Accuracy at a threshold that was chosen elsewhere (View 1 of LFW: on the other people)."""
    right = decide(scores, pairs.same, threshold).accuracy
    hits = (scores >= threshold) == pairs.same
    return Accuracy(
        right,
        float(np.sqrt(right * (1 - right) / len(pairs))),
        share_interval(hits, pairs.person_a, pairs.person_b),
        (right,),
        (threshold,),
    )


def _accuracy_interval(pairs: Pairs, scores: Floats, fold: Ints, count: int) -> Interval:
    order = np.argsort(scores, kind="stable")
    ranked, truth, fold = scores[order], pairs.same[order], fold[order]
    ends = np.concatenate([pairs.person_a[order], pairs.person_b[order]])
    _, owner = np.unique(ends, return_inverse=True)
    a, b = np.split(owner.reshape(-1).astype(np.int64), 2)
    cuts = np.flatnonzero(np.concatenate([[True], ranked[1:] > ranked[:-1], [True]]))
    member = fold == np.arange(count)[:, None]
    rows = np.arange(count)
    means = []
    for drawn in multiplicities(int(owner.max()) + 1, REPLICATES):
        weight = pair_weights(a, b, drawn[None])[0]
        signed = np.where(truth, -weight, weight) * member
        gain = np.concatenate([np.zeros((count, 1)), np.cumsum(signed, axis=1)], axis=1)[:, cuts]
        best = np.argmax(gain.sum(axis=0) - gain, axis=1)
        base, total = (truth * weight * member).sum(axis=1), (weight * member).sum(axis=1)
        drawn_at_all = total > 0  # small folds may lose all their people
        if drawn_at_all.any():
            right = (base + gain[rows, best])[drawn_at_all] / total[drawn_at_all]
            means.append(float(right.mean()))
    interval = percentile(means)
    if interval.high == interval.low == 1.0:
        return wilson(int(owner.max()) + 1, int(owner.max()) + 1)
    return interval


def slices(pairs: Pairs, scores: Floats, column: str, threshold: float) -> list[Slice]:
    """FMR and FNMR for each value of a column, all at one threshold.

    Raises `InputError` when there is no such column.
    """
    if column not in pairs.columns:
        known = ", ".join(pairs.columns) or "none"
        raise InputError(f"{pairs.name} has no column {column!r}; there are: {known}")
    cells = np.array(pairs.columns[column])
    return [
        _slice(pairs, scores, column, str(value), cells, threshold) for value in np.unique(cells)
    ]


def _slice(
    pairs: Pairs, scores: Floats, column: str, value: str, cells: NDArray[np.str_], threshold: float
) -> Slice:
    inside = cells == value
    good, bad = inside & pairs.same, inside & ~pairs.same
    fmr = fnmr = fmr_interval = fnmr_interval = None
    if bad.sum() >= FEW:
        wrong = scores[bad] >= threshold
        fmr = float(wrong.mean())
        fmr_interval = share_interval(wrong, pairs.person_a[bad], pairs.person_b[bad])
    if good.sum() >= FEW:
        wrong = scores[good] < threshold
        fnmr = float(wrong.mean())
        fnmr_interval = share_interval(wrong, pairs.person_a[good])
    return Slice(
        column, value, int(good.sum()), int(bad.sum()), fmr, fmr_interval, fnmr, fnmr_interval
    )


def worst_to_best(rates: Sequence[float | None]) -> float | None:
    """The ratio of the highest to the lowest rate of slices; None unless two are known above 0."""
    known = [rate for rate in rates if rate is not None]
    if len(known) < 2 or min(known) <= 0:
        return None
    return max(known) / min(known)


def summary(figures: Verification, failure_to_enrol: int) -> dict[str, object]:
    """The figures as JSON shows them; the keys are a contract."""
    intervals = figures.intervals
    threshold = float(np.mean(figures.accuracy.thresholds))
    at = decide(figures.scores, figures.same, threshold)
    return {
        "accuracy": round(figures.accuracy.mean, 6),
        "accuracy_stderr": round(figures.accuracy.stderr, 6),
        "accuracy_interval": pair(figures.accuracy.interval),
        "auc": round(figures.auc, 6),
        "auc_interval": pair(intervals.auc),
        "eer": round(figures.eer, 6),
        "eer_interval": pair(intervals.eer),
        "tar_at_far": {
            key: None if tar is None else round(tar, 6) for key, tar in figures.tar_at_far.items()
        },
        "tar_at_far_intervals": {key: pair(i) for key, i in intervals.tar_at_far.items()},
        "d_prime": None if figures.d_prime is None else round(figures.d_prime, 4),
        "threshold": round(threshold, 5),
        "at_threshold": {
            key: None if value is None else round(value, 6)
            for key, value in (
                ("accuracy", at.accuracy),
                ("precision", at.precision),
                ("recall", at.recall),
                ("f1", at.f1),
                ("fmr", at.fmr),
                ("fnmr", at.fnmr),
            )
        },
        "failure_to_enrol": failure_to_enrol,
        "n_pairs": len(figures.scores),
        "n_pairs_failed": figures.failed,
        "operating_points": [
            {
                "fmr": kept.point.fmr,
                "threshold": round(kept.point.threshold, 5),
                "measured_fmr": round(kept.fmr, 6),
                "measured_fmr_interval": pair(kept.fmr_interval),
                "measured_fnmr": round(kept.fnmr, 6),
                "measured_fnmr_interval": pair(kept.fnmr_interval),
            }
            for kept in figures.kept
        ],
    }


def pair(interval: Interval) -> list[float]:
    """An interval as JSON shows it."""
    return [round(interval.low, 6), round(interval.high, 6)]
