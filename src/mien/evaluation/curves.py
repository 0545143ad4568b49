"""Scores to error rates: pure functions on arrays, exact, with ties and weights.

A comparison is **genuine** when both pictures show one person, else **impostor**. It matches when
its score is at least the threshold. FMR is the share of impostor comparisons that match, FNMR the
share of genuine ones that do not (ISO/IEC 19795-1). Weights say how much each comparison counts;
only their ratios matter.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray

from mien.errors import InputError

Floats = NDArray[np.float64]

FAILED = -1.0
"""The score of a comparison in which a picture could not be used: below every threshold in use."""

FARS = (1e-1, 1e-2, 1e-3, 1e-4, 1e-5, 1e-6)
"""The false accept rates at which the true accept rate is reported, where the data allow."""


@dataclass(frozen=True, eq=False, slots=True)
class Curve:
    """FMR and FNMR as step functions of the threshold: everything verification figures need.

    `thresholds` (n,) ascend; `fmr` (n,) falls to 0 and `fnmr` (n,) rises to 1. Entry i holds for
    every threshold above `thresholds[i - 1]` up to and including `thresholds[i]`. `genuine` and
    `impostors` are the numbers of comparisons that the rates rest on.
    """

    thresholds: Floats
    fmr: Floats
    fnmr: Floats
    genuine: int
    impostors: int


def checked(scores: ArrayLike, what: str) -> Floats:
    """Scores as a flat float64 array. Raises `InputError` when empty or not finite."""
    array = np.asarray(scores, np.float64).ravel()
    if not array.size:
        raise InputError(f"there are no {what} scores; error rates need at least one")
    if not np.isfinite(array).all():
        first = int(np.flatnonzero(~np.isfinite(array))[0])
        raise InputError(f"{what} score number {first} is {array[first]}; scores must be finite")
    return array


def curve(
    genuine: ArrayLike,
    impostor: ArrayLike,
    genuine_weights: ArrayLike | None = None,
    impostor_weights: ArrayLike | None = None,
) -> Curve:
    """The exact curve of two sets of scores. Raises `InputError` for empty or non-finite ones."""
    good, bad = checked(genuine, "genuine"), checked(impostor, "impostor")
    thresholds = np.unique(np.concatenate([good, bad]))
    thresholds = np.append(thresholds, np.nextafter(thresholds[-1], np.inf))
    return Curve(
        thresholds,
        1.0 - _below(bad, impostor_weights, thresholds),
        _below(good, genuine_weights, thresholds),
        good.size,
        bad.size,
    )


def _below(scores: Floats, weights: ArrayLike | None, thresholds: Floats) -> Floats:
    """The weighted share of scores below each threshold."""
    order = np.argsort(scores, kind="stable")
    index = np.searchsorted(scores[order], thresholds, side="left")
    if weights is None:
        return index / scores.size
    given = np.asarray(weights, np.float64).ravel()
    if given.shape != scores.shape or not np.isfinite(given).all() or (given < 0).any():
        raise InputError("weights are finite numbers of at least 0, one for each score")
    if not given.sum() > 0:
        raise InputError("at least one weight must be above 0")
    running = np.concatenate([[0.0], np.cumsum(given[order])])
    below: Floats = running[index] / running[-1]
    return below


def rates_at(rates: Curve, threshold: ArrayLike) -> tuple[Floats, Floats]:
    """FMR and FNMR at one or several thresholds."""
    index = np.searchsorted(rates.thresholds, np.asarray(threshold, np.float64), side="left")
    beyond = index >= rates.thresholds.size
    inside = np.minimum(index, rates.thresholds.size - 1)
    return np.where(beyond, 0.0, rates.fmr[inside]), np.where(beyond, 1.0, rates.fnmr[inside])


def supports(rates: Curve, fmr: float, wrong: float = 1.0) -> bool:
    """Whether a rate rests on at least `wrong` expected false matches.

    With 1 the threshold lies among the scores and is not extrapolated: enough to report a figure
    beside its interval. With 30 the measured rate is within 30% of the true one, nine times in
    ten (Doddington's rule of 30): what a threshold that others rely on needs.
    """
    return fmr * rates.impostors >= wrong * (1 - 1e-9)


def threshold_at(rates: Curve, fmr: float) -> float:
    """The lowest threshold at which the FMR is at most `fmr`.

    Raises `InputError` when there are fewer than 1 / fmr impostor comparisons: nothing is
    extrapolated.
    """
    if not 0 < fmr <= 1:
        raise InputError(f"a false match rate lies above 0 and up to 1, got {fmr:g}")
    if not supports(rates, fmr):
        raise InputError(
            f"a false match rate of {fmr:g} needs at least {1 / fmr:,.0f} impostor comparisons; "
            f"there are {rates.impostors:,}"
        )
    return float(rates.thresholds[np.argmax(rates.fmr <= fmr * (1 + 1e-12))])


def tar_at_far(rates: Curve, far: float) -> float:
    """The share of genuine comparisons that match where at most `far` of impostor ones do.

    Raises `InputError` as `threshold_at` does.
    """
    return 1.0 - float(rates_at(rates, threshold_at(rates, far))[1])


def tars(rates: Curve, fars: Sequence[float] = FARS) -> dict[str, float | None]:
    """`tar_at_far` at several rates, by their names "1e-03"; None where it is refused."""
    return {name(far): tar_at_far(rates, far) if supports(rates, far) else None for far in fars}


def name(rate: float) -> str:
    """How a rate is written as a key: 0.001 is "1e-3"."""
    mantissa, exponent = f"{rate:.0e}".split("e")
    return f"{mantissa}e{int(exponent)}"


def eer(rates: Curve) -> float:
    """The equal error rate: where FMR and FNMR cross, along the straight line between points."""
    gap = rates.fmr - rates.fnmr
    after = int(np.argmax(gap <= 0))
    if after == 0:
        return float(max(rates.fmr[0], rates.fnmr[0]))
    before = after - 1
    share = gap[before] / (gap[before] - gap[after])
    return float(rates.fmr[before] + share * (rates.fmr[after] - rates.fmr[before]))


def auc(rates: Curve) -> float:
    """The area under the ROC: how often a genuine score beats an impostor one; ties count half."""
    hits = 1.0 - rates.fnmr
    widths = rates.fmr[:-1] - rates.fmr[1:]
    first = (1.0 - rates.fmr[0]) * (1.0 + hits[0]) / 2  # nothing, unless weights begin at 0
    return float(first + (widths * (hits[:-1] + hits[1:])).sum() / 2)


def d_prime(genuine: ArrayLike, impostor: ArrayLike) -> float:
    """Distance of the two means in pooled standard deviations.

    Leave failures out: a score that stands for "no face" has no place in a mean. Raises
    `InputError` when neither set varies.
    """
    good, bad = checked(genuine, "genuine"), checked(impostor, "impostor")
    spread = float(np.sqrt((good.var() + bad.var()) / 2))
    if spread == 0:
        raise InputError("all scores of a kind are equal: d' is not defined")
    return float((good.mean() - bad.mean()) / spread)


@dataclass(frozen=True, slots=True)
class Decisions:
    """What one threshold does to a set of comparisons. A rate that has no cases is None."""

    true_matches: int
    false_non_matches: int
    false_matches: int
    true_non_matches: int

    @property
    def accuracy(self) -> float:
        right = self.true_matches + self.true_non_matches
        return right / (right + self.false_matches + self.false_non_matches)

    @property
    def precision(self) -> float | None:
        return _ratio(self.true_matches, self.true_matches + self.false_matches)

    @property
    def recall(self) -> float | None:
        return _ratio(self.true_matches, self.true_matches + self.false_non_matches)

    @property
    def f1(self) -> float | None:
        wrong = self.false_matches + self.false_non_matches
        return _ratio(2 * self.true_matches, 2 * self.true_matches + wrong)

    @property
    def fmr(self) -> float | None:
        return _ratio(self.false_matches, self.false_matches + self.true_non_matches)

    @property
    def fnmr(self) -> float | None:
        return _ratio(self.false_non_matches, self.false_non_matches + self.true_matches)


def _ratio(part: int, whole: int) -> float | None:
    return part / whole if whole else None


def decide(scores: ArrayLike, same: ArrayLike, threshold: float) -> Decisions:
    """Apply a threshold to scores (n,) of pairs that are the `same` person or not (n,)."""
    matched = checked(scores, "given") >= threshold
    truth = np.asarray(same, bool)
    return Decisions(
        int((matched & truth).sum()),
        int((~matched & truth).sum()),
        int((matched & ~truth).sum()),
        int((~matched & ~truth).sum()),
    )


def best_threshold(scores: ArrayLike, same: ArrayLike, weights: ArrayLike | None = None) -> float:
    """The threshold with the highest accuracy on these scores, halfway between two of them.

    Several are often equally good: then it is the middle one of them. Raises `InputError` unless
    there are scores of both kinds.
    """
    array, truth = checked(scores, "given"), np.asarray(same, bool)
    if truth.all() or not truth.any():
        kind = "genuine" if truth.all() else "impostor"
        raise InputError(f"all comparisons are {kind}: no threshold can be chosen on them")
    mass = np.ones(array.size) if weights is None else np.asarray(weights, np.float64)
    order = np.argsort(array, kind="stable")
    ranked = array[order]
    # gain of moving the threshold above score i: impostors become right, genuine ones wrong
    gain = np.concatenate([[0.0], np.cumsum(np.where(truth[order], -mass[order], mass[order]))])
    cut = np.flatnonzero(np.concatenate([[True], ranked[1:] > ranked[:-1], [True]]))
    gains = gain[cut]
    best = cut[np.flatnonzero(gains >= gains.max() - 1e-9 * mass.sum())]
    middle = best[(best.size - 1) // 2]
    if middle == 0:
        return float(ranked[0])
    if middle == ranked.size:
        return float(np.nextafter(ranked[-1], np.inf))
    return float((ranked[middle - 1] + ranked[middle]) / 2)


# ---------------------------------------------------------------------------- very many scores

BINS = 400_000  # of a score from -1 to 1: finer than the fifth decimal
COARSE = 2_000  # bins a subject, for intervals
_PER_COARSE = BINS // COARSE


class Tally:
    """Scores counted into fine bins as they stream by: 10^8 of them in constant memory.

    With `subjects` above 0 it also keeps a coarse histogram for each person, in which every
    comparison counts for both people in it; intervals are drawn from those (see
    `intervals.tally_intervals`). `comparisons` is the number that the rates may claim to rest on:
    by default every score added.
    """

    def __init__(self, subjects: int = 0) -> None:
        self.counts = np.zeros(BINS, np.float64)
        self.by_subject = np.zeros((subjects, COARSE), np.float64) if subjects else None
        self.comparisons = 0

    def add(
        self,
        scores: NDArray[np.floating],
        weights: NDArray[np.floating] | None = None,
        subjects: Sequence[NDArray[np.integer]] = (),
        comparisons: int | None = None,
    ) -> None:
        """Count scores (n,), each in [-1, 1], with weights (n,).

        `subjects` holds the arrays (n,) of the people compared: one for genuine scores, two for
        impostor scores. Raises `InputError` for scores that are not finite.
        """
        scaled = np.floor(np.asarray(scores).ravel() * np.float32(BINS // 2))
        if not np.isfinite(scaled).all():
            raise InputError("a score is not a number; scores must be finite")
        bins = np.clip(scaled.astype(np.int64) + BINS // 2, 0, BINS - 1)
        self.counts += np.bincount(bins, weights, BINS)
        self.comparisons += bins.size if comparisons is None else comparisons
        if self.by_subject is not None:
            flat = self.by_subject.reshape(-1)
            coarse = bins // _PER_COARSE
            for owner in subjects:
                np.add.at(flat, owner * COARSE + coarse, 1.0 if weights is None else weights)


def tally_curve(genuine: Tally, impostor: Tally) -> Curve:
    """The curve of two tallies: that of the scores rounded down to a 200,000th."""
    if not genuine.counts.any() or not impostor.counts.any():
        raise InputError("error rates need at least one genuine and one impostor score")
    above = np.cumsum(impostor.counts[::-1])[::-1]
    below = np.concatenate([[0.0], np.cumsum(genuine.counts)])
    return Curve(
        (np.arange(BINS + 1) - BINS // 2) / (BINS // 2),
        np.append(above / above[0], 0.0),
        below / below[-1],
        genuine.comparisons,
        impostor.comparisons,
    )
