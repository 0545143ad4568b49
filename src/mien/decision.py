"""Scores to answers: operating points, correction for the size of a gallery, unknown rejection.

The rates are those of ISO/IEC 19795-1: FMR (false match rate) and FNMR (false non-match rate) for
one-to-one comparison, FPIR (false positive identification rate) for one-to-many search.
"""

from collections.abc import Sequence

import numpy as np

from mien.errors import InputError, NoOperatingPoint
from mien.types import Face, Identification, Match, OperatingPoint


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
    rates = np.log([point.fmr for point in ordered])
    return float(np.exp(np.interp(score, [point.threshold for point in ordered], rates)))


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


def identify(
    face: Face,
    candidates: Sequence[Match],
    points: Sequence[OperatingPoint],
    *,
    fpir: float,
    gallery_size: int,
    contract: str,
) -> Identification:
    """Name the best candidate, or nobody: the open-set decision.

    `candidates` are the best subjects, best first. The threshold is the one at which strangers
    are named at a rate of at most `fpir` in a gallery of `gallery_size` templates. Raises
    `NoOperatingPoint` when the model was never measured.
    """
    point = identification_point(points, fpir, gallery_size, contract)
    best = candidates[0] if candidates else None
    named = best is not None and point.accepts(best.score)
    return Identification(
        face,
        best.subject if best and named else None,
        best.score if best else -1.0,
        tuple(candidates),
        point,
        fpir,
        gallery_size,
    )
