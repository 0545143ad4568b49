"""Scores to answers: operating points, correction for the size of a gallery, unknown rejection.

The rates are those of ISO/IEC 19795-1: FMR (false match rate) and FNMR (false non-match rate) for
one-to-one comparison, FPIR (false positive identification rate) for one-to-many search.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import ArrayLike, NDArray

from mien.cards import Bundle
from mien.errors import InputError, NoOperatingPoint
from mien.types import Crowd, Embedding, Identification, Match, OperatingPoint, RecognizedFace


def operating_point(points: Sequence[OperatingPoint], fmr: float, contract: str) -> OperatingPoint:
    """The threshold at which a share `fmr` of impostor comparisons match.

    Between measured points the threshold is interpolated along log(FMR), in which the tail of
    impostor scores is close to straight, and the FNMR with it. Nothing is extrapolated: below the
    lowest measured rate this raises `NoOperatingPoint`; above the highest, the highest is
    returned, which keeps the promise.
    """
    if not 0 < fmr < 1:
        raise InputError(f"a false match rate lies between 0 and 1, got {fmr:g}")
    ordered = _measured(points, contract, fmr)
    if fmr < ordered[0].fmr * (1 - 1e-9):
        raise NoOperatingPoint(contract, fmr, ordered[0].fmr)
    if fmr >= ordered[-1].fmr:
        return ordered[-1]
    rates = np.log([point.fmr for point in ordered])
    threshold = np.interp(np.log(fmr), rates, [point.threshold for point in ordered])
    fnmr = np.interp(np.log(fmr), rates, [point.fnmr for point in ordered])
    first = ordered[0]
    return OperatingPoint(float(threshold), fmr, float(fnmr), first.protocol, first.contract)


def identification_point(
    points: Sequence[OperatingPoint], fpir: float, gallery_size: int, contract: str
) -> OperatingPoint:
    """The threshold at which strangers are named at a rate of at most `fpir`.

    Large galleries need rates below the lowest that was measured. Refusing would leave nothing,
    and the strictest measured threshold would break the promise, so the last measured decade is
    extended in a straight line along log(FMR): the true tail falls off faster than that, so the
    threshold errs on the side of "unknown". The protocol of the point then says that it was
    extrapolated, and its FNMR, that of the strictest measured point, is a lower bound. Raises
    `NoOperatingPoint` when the model has no measured points at all.
    """
    fmr = fmr_for(fpir, gallery_size)
    ordered = _measured(points, contract, fmr)
    strictest = ordered[0]
    if fmr >= strictest.fmr:
        return operating_point(points, fmr, contract)
    decade = operating_point(points, min(10 * strictest.fmr, ordered[-1].fmr), contract)
    width = np.log(decade.fmr / strictest.fmr)  # 0 when one rate was measured: it has no slope
    step = (strictest.threshold - decade.threshold) / width if width else np.inf
    threshold = strictest.threshold + step * np.log(strictest.fmr / fmr)
    protocol = (
        f"{strictest.protocol}; extrapolated below FMR {strictest.fmr:g}, FNMR is a lower bound"
    )
    return OperatingPoint(
        min(1.0, float(threshold)), fmr, strictest.fnmr, protocol, strictest.contract
    )


def _measured(points: Sequence[OperatingPoint], contract: str, fmr: float) -> list[OperatingPoint]:
    if not points:
        raise NoOperatingPoint(contract, fmr, None)
    return sorted(points, key=lambda point: point.fmr)


def impostor_rate(points: Sequence[OperatingPoint], score: float) -> float:
    """How often two different people score at least this: the FMR at a threshold of `score`.

    Clipped to the measured range, so the result is "at most" at the low end and "at least" at the
    high end. Raises `NoOperatingPoint` when nothing was measured.
    """
    ordered = sorted(points, key=lambda point: point.threshold)
    if not ordered:
        raise NoOperatingPoint("this model", 0.0, None)
    rates = np.log10([point.fmr for point in ordered])
    rate = 10 ** np.interp(score, [point.threshold for point in ordered], rates)
    return float(np.clip(rate, ordered[-1].fmr, ordered[0].fmr))


def fmr_for(fpir: float, gallery_size: int) -> float:
    """The FMR each comparison may have so that a search of a whole gallery has `fpir`.

    A stranger is named when any of N comparisons matches: FPIR = 1 - (1 - FMR)^N for independent
    comparisons. Templates of one person are not independent, which only makes the true FPIR
    lower (Grother and others, NIST FRTE 1:N; Daugman 2000 for the same bound).
    """
    if not 0 < fpir < 1:
        raise InputError(f"a false positive identification rate lies between 0 and 1, got {fpir:g}")
    return -float(np.expm1(np.log1p(-fpir) / max(1, gallery_size)))


def fpir_for(fmr: float, gallery_size: int) -> float:
    """The FPIR of a search of `gallery_size` templates whose comparisons have `fmr`."""
    return -float(np.expm1(np.log1p(-fmr) * max(1, gallery_size)))


NEAREST = 2
"""How many centres of a crowd a face is held against."""


def nearness(centres: NDArray[np.float32], probes: NDArray[np.float32]) -> NDArray[np.float64]:
    """How near probes (n, dim) lie to groups of people: the mean (n,) of their highest scores."""
    scores = np.atleast_2d(probes) @ centres.T
    count = min(NEAREST, len(centres))
    mean: NDArray[np.float64] = np.partition(scores, -count, axis=1)[:, -count:].mean(
        axis=1, dtype=np.float64
    )
    return mean


def demand(crowd: Crowd, probes: NDArray[np.float32]) -> NDArray[np.float64]:
    """How much more than a usual face probes (n, dim) have to score: (n,), at least 0.

    A face that resembles many people scores high against some of any gallery. Cohort
    normalisation (Auckenthaler and others, "Score normalization for text-independent speaker
    verification systems", 2000) subtracts from a score what strangers give for the same probe;
    here the strangers are the centres of groups of people. No face gets by with less: one may lie
    far from this crowd because its camera is another, and still near to others of that camera.
    """
    beyond = nearness(crowd.centres, probes) - crowd.usual
    more: NDArray[np.float64] = crowd.share * np.maximum(0.0, beyond)
    return more


def search_point(
    bundle: Bundle, probe: Embedding, fpir: float, gallery_size: int
) -> OperatingPoint:
    """The threshold for this probe at which strangers are named at a rate of at most `fpir`.

    That of `identification_point`, moved by what its resemblance to many people demands where the
    bundle knows its crowd. Raises `NoOperatingPoint` when the model was never measured.
    """
    point = identification_point(bundle.search_points, fpir, gallery_size, bundle.contract)
    return replace(point, threshold=min(1.0, point.threshold + demanded(bundle, probe)))


def demanded(bundle: Bundle, probe: Embedding) -> float:
    """`demand` of one probe; 0 where the bundle knows no crowd.

    What is left of a score is read through the bundle's `search_points`.
    """
    return 0.0 if bundle.crowd is None else float(demand(bundle.crowd, probe.vector)[0])


def identify(
    face: RecognizedFace,
    candidates: Sequence[Match],
    bundle: Bundle,
    *,
    fpir: float,
    gallery_size: int,
) -> Identification:
    """Name the best candidate, or nobody: the open-set decision.

    `candidates` are the best subjects, best first; `bundle` is what made the embeddings. The
    threshold is the one at which strangers are named at a rate of at most `fpir` in a gallery of
    `gallery_size` templates. Raises `NoOperatingPoint` when the model was never measured.
    """
    point = search_point(bundle, face.embedding, fpir, gallery_size)
    best = candidates[0] if candidates else None
    named = best is not None and point.accepts(best.score)
    return Identification(
        face.face,
        best.subject if best and named else None,
        best.score if best else -1.0,
        tuple(candidates),
        point,
        fpir,
        gallery_size,
    )


# ---------------------------------------------------------------------- one decision, asked again


def repeated(fpir: float) -> float:
    """The FPIR of each of many looks at one person that keeps `fpir` for all of them together.

    Whoever is looked up again and again has many chances to be named wrongly, but the mean of the
    scores of more and more faces wanders less and less: means of exchangeable scores are a reverse
    martingale. By Doob's inequality for the excess over c, the largest mean ever reaches t with
    probability at most E[(score - c)+] / (t - c). Where the logarithm of the false match rate falls
    in a straight line or faster, as between operating points, the best c makes that e times the
    rate of one score at t, however many looks there are. So each look has `fpir` / e.
    """
    if not 0 < fpir < 1:
        raise InputError(f"a false positive identification rate lies between 0 and 1, got {fpir:g}")
    return fpir / float(np.e)


def steady(
    before: Identification | None, now: Identification, bundle: Bundle, probe: Embedding
) -> Identification:
    """The decision after another look, with hysteresis: a name once given is not dropped lightly.

    It stays while its person still scores what half of all strangers would not reach in this
    gallery (FPIR 0.5); then the new look decides alone. To be named takes the full threshold.
    `probe` is what was looked up now.
    """
    if before is None or before.subject is None or now.subject == before.subject:
        return now
    leave = search_point(bundle, probe, 0.5, now.gallery_size)
    scores = [match.score for match in now.candidates if match.subject == before.subject]
    return before if scores and leave.accepts(scores[0]) else now


# ------------------------------------------------------------------------- the user's own pairs


def fit_threshold(
    genuine: ArrayLike,
    impostor: ArrayLike,
    fmr: float,
    contract: str,
    protocol: str = "own pairs",
    evidence: int = 30,
) -> OperatingPoint:
    """The threshold at which a share `fmr` of one's own impostor scores match.

    `genuine` and `impostor` are scores of pairs of the same and of different people. A threshold
    has to rest on `evidence` false matches: with 30, the true rate is within 30% of `fmr` nine
    times in ten (Doddington's rule of 30); with fewer it may well be twice as high. Raises
    `InputError` when there are not enough impostor scores for that, or a score is not finite.
    """
    if not 0 < fmr < 1:
        raise InputError(f"a false match rate lies between 0 and 1, got {fmr:g}")
    good, bad = _scores(genuine, "genuine"), np.sort(_scores(impostor, "impostor"))
    if bad.size * fmr < evidence * (1 - 1e-9):
        raise InputError(
            f"a threshold at a false match rate of {fmr:g} needs {evidence / fmr:,.0f} pairs of "
            f"different people, there are {bad.size:,}: compare everybody with everybody, or ask "
            f"for a rate of {evidence / bad.size:.1g}"
        )
    allowed = int(bad.size * fmr * (1 + 1e-9))  # this many of the highest may match
    above = bad[bad.size - allowed :] if allowed else bad[:0]
    barred = bad[bad.size - allowed - 1]
    above = above[above > barred]  # those equal to a score that must not match cannot either
    threshold = float((barred + above[0]) / 2 if above.size else np.nextafter(barred, np.inf))
    if threshold <= barred:  # halfway between neighbouring numbers rounds down
        threshold = float(np.nextafter(barred, np.inf))
    return OperatingPoint(threshold, fmr, float((good < threshold).mean()), protocol, contract)


@dataclass(frozen=True, slots=True)
class Calibration:
    """What a score says about two pictures, as evidence for "the same person".

    `llrs` are the natural logarithms of the likelihood ratio at `scores` (ascending): how many
    times likelier such a score is for the same person than for different people. Between them it
    is interpolated, outside held. `method` is "logistic" or "isotonic".
    """

    method: str
    scores: tuple[float, ...]
    llrs: tuple[float, ...]

    def llr(self, score: ArrayLike) -> NDArray[np.float64]:
        """The log-likelihood ratio of one score or several."""
        return np.interp(np.asarray(score, np.float64), self.scores, self.llrs)

    def probability(self, score: ArrayLike, prior: float = 0.5) -> NDArray[np.float64]:
        """The probability that it is the same person, who was expected with `prior`."""
        if not 0 < prior < 1:
            raise InputError(f"a prior lies between 0 and 1, got {prior:g}")
        odds = self.llr(score) + np.log(prior / (1 - prior))
        probability: NDArray[np.float64] = np.exp(-np.logaddexp(0, -odds))
        return probability


def fit_calibration(
    genuine: ArrayLike, impostor: ArrayLike, folds: int = 5, seed: int = 0
) -> Calibration:
    """Turn scores into probabilities, by the better of two ways on held-out folds.

    Logistic regression (two numbers, for little data) or isotonic regression (any rising curve);
    the better one has the lower `cllr` on scores it was not fitted to. Raises `InputError` when
    there are fewer than `folds` scores of a kind.
    """
    good, bad = _scores(genuine, "genuine"), _scores(impostor, "impostor")
    if min(good.size, bad.size) < folds:
        raise InputError(f"calibration needs at least {folds} scores of each kind")
    rng = np.random.default_rng(seed)
    part = [rng.permutation(scores.size) % folds for scores in (good, bad)]

    def held_out(fit: Callable[[_Array, _Array], Calibration]) -> float:
        costs = []
        for fold in range(folds):
            inside = [p == fold for p in part]
            made = fit(good[~inside[0]], bad[~inside[1]])
            costs.append(cllr(made.llr(good[inside[0]]), made.llr(bad[inside[1]])))
        return float(np.mean(costs))

    best = min((_logistic, _isotonic), key=held_out)
    return best(good, bad)


def cllr(genuine_llrs: ArrayLike, impostor_llrs: ArrayLike) -> float:
    """The cost of log-likelihood ratios in bits: 0 is perfect, 1 says nothing, more misleads.

    Source: Brummer and du Preez, "Application-independent evaluation of speaker detection", 2006.
    """
    good = _scores(genuine_llrs, "genuine")
    bad = _scores(impostor_llrs, "impostor")
    cost = np.logaddexp(0, -good).mean() + np.logaddexp(0, bad).mean()
    return float(cost / (2 * np.log(2)))


_Array = NDArray[np.float64]


def _scores(values: ArrayLike, what: str) -> _Array:
    array = np.asarray(values, np.float64).ravel()
    if not array.size or not np.isfinite(array).all():
        raise InputError(f"{what} scores must be finite numbers, and at least one")
    return array


def _logistic(good: _Array, bad: _Array) -> Calibration:
    """Both kinds weighted alike, so that the log-odds are log-likelihood ratios (Platt scaling)."""
    scores = np.concatenate([good, bad])
    truth = np.concatenate([np.ones(good.size), np.zeros(bad.size)])
    weight = np.where(truth > 0, 0.5 / good.size, 0.5 / bad.size)
    middle, spread = scores.mean(), max(float(scores.std()), 1e-12)
    design = np.column_stack([(scores - middle) / spread, np.ones(scores.size)])
    ridge = np.diag([1e-6, 0.0])  # perfectly parted scores have no finite optimum without
    beta = np.zeros(2)
    for _ in range(100):  # Newton's method, halving steps that overshoot
        p = 1 / (1 + np.exp(-np.clip(design @ beta, -500, 500)))
        slope = design.T @ (weight * (truth - p)) - ridge @ beta
        curvature = (design * (weight * np.maximum(p * (1 - p), 1e-12))[:, None]).T @ design
        step = np.linalg.solve(curvature + ridge + 1e-12 * np.eye(2), slope)
        beta += step * min(1.0, 4.0 / max(float(np.abs(step).max()), 1e-12))
        if np.abs(step).max() < 1e-9:
            break
    slope_, offset = max(0.0, beta[0]) / spread, beta[1] - max(0.0, beta[0]) * middle / spread
    ends = (min(-1.0, float(scores.min())), max(1.0, float(scores.max())))
    return Calibration("logistic", ends, tuple(float(offset + slope_ * end) for end in ends))


def _isotonic(good: _Array, bad: _Array) -> Calibration:
    """Pool adjacent violators; half a case is added to each block, so that none is certain."""
    scores = np.concatenate([good, bad])
    values, inverse = np.unique(scores, return_inverse=True)
    hits = np.bincount(inverse.ravel()[: good.size], minlength=values.size)
    misses = np.bincount(inverse.ravel()[good.size :], minlength=values.size)
    blocks: list[list[float]] = []  # genuine, impostor, sum of scores, scores
    for value, hit, miss in zip(values.tolist(), hits.tolist(), misses.tolist(), strict=True):
        blocks.append([hit, miss, value * (hit + miss), hit + miss])
        while len(blocks) > 1 and blocks[-2][0] * blocks[-1][1] >= blocks[-1][0] * blocks[-2][1]:
            last = blocks.pop()
            blocks[-1] = [x + y for x, y in zip(blocks[-1], last, strict=True)]
    table = np.array(blocks)
    ratio = ((table[:, 0] + 0.5) / (good.size + 1)) / ((table[:, 1] + 0.5) / (bad.size + 1))
    llrs = np.maximum.accumulate(np.log(ratio))
    centres = table[:, 2] / table[:, 3]
    return Calibration("isotonic", tuple(centres.tolist()), tuple(llrs.tolist()))
