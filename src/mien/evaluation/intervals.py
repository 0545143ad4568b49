"""How sure a rate is: intervals that respect that comparisons share people.

Comparisons of one person resemble each other, so resampling pairs understates the error. Here
people are resampled: a replicate draws as many people as there are, with replacement, and a
comparison counts as often as the people in it were drawn (the product, for two of them). Sources:
Bolle, Ratha, Pankanti, "Error analysis of pattern recognition systems: the subsets bootstrap"
(2004); Snijders and Borgatti, "Non-parametric standard errors and tests for network statistics"
(1999) for pairs. For few, isolated errors this is on the wide side, never on the narrow one.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray

from mien.errors import InputError
from mien.evaluation.curves import COARSE, Floats, Tally, checked, name

REPLICATES = 1000
_CHUNK = 4_000_000  # weights at a time: a few dozen megabytes

Ints = NDArray[np.int64]


@dataclass(frozen=True, slots=True)
class Interval:
    """A 95% interval."""

    low: float
    high: float

    def __contains__(self, value: float) -> bool:
        return self.low <= value <= self.high


def wilson(wrong: float, total: float) -> Interval:
    """The 95% score interval of a proportion (Wilson 1927); sound at 0 and at 1."""
    if not total > 0:
        raise InputError("a proportion of nothing has no interval")
    z, p = 1.959964, wrong / total
    middle = (p + z * z / (2 * total)) / (1 + z * z / total)
    half = z / (1 + z * z / total) * float(np.sqrt(p * (1 - p) / total + z * z / (4 * total**2)))
    return Interval(max(0.0, middle - half), min(1.0, middle + half))


def multiplicities(subjects: int, replicates: int = REPLICATES, seed: int = 0) -> Floats:
    """How often each person is drawn in each replicate: (replicates, subjects)."""
    rng = np.random.default_rng(seed)
    return rng.multinomial(subjects, np.full(subjects, 1 / subjects), replicates).astype(np.float64)


def percentile(values: ArrayLike) -> Interval:
    """The middle 95% of replicates; those that are not defined (NaN) are left out."""
    array = np.asarray(values, np.float64)
    array = array[np.isfinite(array)]
    if not array.size:
        raise InputError("no replicate has this figure: there are too few people")
    low, high = np.percentile(array, [2.5, 97.5])
    return Interval(float(low), float(high))


def share_interval(
    hits: ArrayLike,
    a: ArrayLike,
    b: ArrayLike | None = None,
    weights: ArrayLike | None = None,
    replicates: int = REPLICATES,
    seed: int = 0,
) -> Interval:
    """The interval of a weighted share: of `hits` (n,), 0 or 1, which belong to people `a` (n,).

    Comparisons of two people belong to `b` (n,) as well. Where no replicate differs (no errors at
    all, or nothing but errors) the bootstrap knows nothing; the Wilson interval on the number of
    people takes its place.
    """
    (interval,) = share_intervals(checked(hits, "given")[:, None], a, b, weights, replicates, seed)
    return interval


def share_intervals(
    hits: ArrayLike,
    a: ArrayLike,
    b: ArrayLike | None = None,
    weights: ArrayLike | None = None,
    replicates: int = REPLICATES,
    seed: int = 0,
) -> list[Interval]:
    """`share_interval` of each column of `hits` (n, k)."""
    hit = np.asarray(hits, np.float64)
    mass = np.ones(len(hit)) if weights is None else np.asarray(weights, np.float64)
    ends = np.concatenate([np.asarray(a), np.asarray(a if b is None else b)])
    _, owner = np.unique(ends, return_inverse=True)
    first, second = np.split(owner.reshape(-1).astype(np.int64), 2)
    people = int(owner.max()) + 1
    drawn = multiplicities(people, replicates, seed)
    step = max(1, _CHUNK // len(hit))
    shares = []
    for start in range(0, replicates, step):
        counted = pair_weights(first, second, drawn[start : start + step])
        shares.append((counted @ (hit * mass[:, None])) / _positive(counted @ mass)[:, None])
    return [_or_wilson(column, people) for column in np.concatenate(shares).T]


def _positive(values: Floats) -> Floats:
    return np.where(values > 0, values, np.nan)


def _or_wilson(values: Floats, people: int) -> Interval:
    known = values[np.isfinite(values)]
    if known.size and np.ptp(known) < 1e-12 and (known[0] < 1e-12 or known[0] > 1 - 1e-12):
        return wilson(known[0] * people, people)
    return percentile(values)


@dataclass(frozen=True, eq=False, slots=True)
class VerificationIntervals:
    """The intervals of the figures of one curve.

    `fmr_grid` (n,) are false match rates for which `fnmr_low` and `fnmr_high` (n,) bound the DET.
    """

    auc: Interval
    eer: Interval
    tar_at_far: Mapping[str, Interval]
    fmr_grid: Floats
    fnmr_low: Floats
    fnmr_high: Floats


def pair_weights(a: Ints, b: Ints, drawn: Floats) -> Floats:
    """How often each comparison of person a with person b (n,) counts: (replicates, n)."""
    product: Floats = drawn[:, a] * np.where(a == b, 1.0, drawn[:, b])
    return product


def verification_intervals(
    scores: ArrayLike,
    same: ArrayLike,
    a: ArrayLike,
    b: ArrayLike,
    fars: Sequence[float],
    replicates: int = REPLICATES,
    seed: int = 0,
) -> VerificationIntervals:
    """Intervals for scores (n,) of pairs of the `same` person or not (n,), of people a and b (n,).

    For up to some millions of pairs; for more see `tally_intervals`.
    """
    values, truth = checked(scores, "given"), np.asarray(same, bool)
    _, owner = np.unique(np.concatenate([np.asarray(a), np.asarray(b)]), return_inverse=True)
    first, second = np.split(owner.reshape(-1).astype(np.int64), 2)
    order = np.argsort(values, kind="stable")
    ranked, truth, first, second = values[order], truth[order], first[order], second[order]
    starts = np.flatnonzero(np.concatenate([[True], ranked[1:] > ranked[:-1]]))
    drawn = multiplicities(int(owner.max()) + 1, replicates, seed)

    def rates(rows: Floats) -> tuple[Floats, Floats]:
        weights = pair_weights(first, second, rows)
        return _upper(weights * ~truth, starts), _lower(weights * truth, starts)

    step = max(1, _CHUNK // values.size)
    return _intervals(
        (rates(drawn[i : i + step]) for i in range(0, replicates, step)),
        _grid(int((~truth).sum())),
        fars,
        people=drawn.shape[1],
    )


def tally_intervals(
    genuine: Tally,
    impostor: Tally,
    fars: Sequence[float],
    replicates: int = REPLICATES,
    seed: int = 0,
) -> VerificationIntervals:
    """Intervals for scores that were tallied by subject, to the resolution of the coarse bins.

    The product of two multiplicities is replaced by its linear part, 1 + (m - 1) + (m' - 1), so
    that each person's histogram is enough (the Hajek projection); what is lost is smaller by a
    factor of the number of people. Raises `InputError` when subjects were not tallied.
    """
    good, bad = genuine.by_subject, impostor.by_subject
    if good is None or bad is None or good.shape != bad.shape:
        raise InputError("tallies without subjects have no intervals: make them with Tally(n)")
    drawn = multiplicities(good.shape[0], replicates, seed)
    starts = np.arange(COARSE)
    total = bad.sum(axis=0) / 2  # every impostor comparison was counted for two people

    def rates(rows: Floats) -> tuple[Floats, Floats]:
        impostors = np.maximum(0.0, total + (rows - 1) @ bad)
        return _upper(impostors, starts), _lower(rows @ good, starts)

    step = max(1, _CHUNK // COARSE)
    return _intervals(
        (rates(drawn[i : i + step]) for i in range(0, replicates, step)),
        _grid(impostor.comparisons),
        fars,
        people=drawn.shape[1],
    )


def _grid(impostors: int) -> Floats:
    lowest = max(1.0 / impostors, 1e-7)
    return np.logspace(np.log10(lowest), 0, 120) if lowest < 1 else np.ones(1)


def _upper(weights: Floats, starts: NDArray[np.intp]) -> Floats:
    """Per row, the share of weight at or above each start, and 0 at the end: (rows, n + 1)."""
    running = np.cumsum(weights, axis=1)
    total = running[:, -1:]
    before = np.where(starts > 0, running[:, np.maximum(starts - 1, 0)], 0.0)
    shares = (total - before) / _positive(total)
    return np.concatenate([shares, np.zeros((len(shares), 1))], axis=1)


def _lower(weights: Floats, starts: NDArray[np.intp]) -> Floats:
    """Per row, the share of weight below each start, and 1 at the end: (rows, n + 1)."""
    return 1.0 - _upper(weights, starts)


def _intervals(
    chunks: Iterable[tuple[Floats, Floats]],
    grid: Floats,
    fars: Sequence[float],
    people: int,
) -> VerificationIntervals:
    areas, crossings, accepted, curves = [], [], [], []
    for fmr, fnmr in chunks:
        hits = 1.0 - fnmr
        areas.append(((fmr[:, :-1] - fmr[:, 1:]) * (hits[:, :-1] + hits[:, 1:])).sum(axis=1) / 2)
        crossings.append(_crossing(fmr, fnmr))
        defined = np.isfinite(fmr[:, 0]) & np.isfinite(fnmr[:, 0])
        accepted.append(_at(fmr[defined], hits[defined], np.array(fars)))
        curves.append(_at(fmr[defined], fnmr[defined], grid))
    tar = np.concatenate(accepted)
    low, high = np.percentile(np.concatenate(curves), [2.5, 97.5], axis=0)
    return VerificationIntervals(
        _or_wilson(np.concatenate(areas), people),
        _or_wilson(np.concatenate(crossings), people),
        {name(far): _or_wilson(tar[:, i], people) for i, far in enumerate(fars)},
        grid,
        low,
        high,
    )


def _crossing(fmr: Floats, fnmr: Floats) -> Floats:
    gap = fmr - fnmr
    after = np.maximum(1, np.argmax(gap <= 0, axis=1))[:, None]
    g0, g1 = (np.take_along_axis(gap, after - 1, 1), np.take_along_axis(gap, after, 1))
    f0, f1 = (np.take_along_axis(fmr, after - 1, 1), np.take_along_axis(fmr, after, 1))
    share = np.clip(g0 / np.where(g0 > g1, g0 - g1, 1.0), 0, 1)
    crossing: Floats = (f0 + share * (f1 - f0))[:, 0]
    return crossing


def _at(fmr: Floats, values: Floats, rates: Floats) -> Floats:
    """Per row, the values where the FMR first is at most each rate: (rows, rates)."""
    limits = -(rates * (1 + 1e-12) + 1e-15)
    rows = zip(fmr, values, strict=True)  # FMR falls along a row
    return np.stack([value[np.searchsorted(-row, limits, side="left")] for row, value in rows])
