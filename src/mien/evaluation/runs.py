"""One model on one protocol: what was measured, as values and as the JSON that users read."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from mien.cards import Bundle
from mien.evaluation import calibration, verification
from mien.evaluation import identification as searching
from mien.evaluation.calibration import Check, Reliability
from mien.evaluation.crowd import fit_crowd, measured
from mien.evaluation.curves import FARS, Curve, auc, eer, name, supports, tally_curve, tars
from mien.evaluation.identification import OpenSet, Promise, Searches, Split
from mien.evaluation.intervals import VerificationIntervals, tally_intervals
from mien.evaluation.protocols import Pairs, People, folds_of
from mien.evaluation.vectors import Vectors
from mien.evaluation.verification import Accuracy, Slice, Verification, pair, worst_to_best
from mien.types import Crowd, OperatingPoint

Embedded = tuple[People, Vectors]
"""People and the embeddings of their pictures."""


@dataclass(frozen=True, eq=False, slots=True)
class Calibrated:
    """Thresholds measured on some people, and what they gave on others.

    `checks` are of single comparisons. Where searches profit from a `crowd`, `crowd_checks` are
    of its thresholds, and of scores less what the probe demands.
    """

    checks: Sequence[Check]
    crowd: Crowd | None
    crowd_checks: Sequence[Check]

    @property
    def points(self) -> list[OperatingPoint]:
        """The thresholds of single comparisons."""
        return [check.point for check in self.checks]


def calibrate(some: Embedded, others: Embedded, protocol: str) -> Calibrated:
    """Thresholds from all pairs of some people, checked on all pairs of others.

    `protocol` is a text with a place for `{people}`, how many were measured on. Raises
    `InputError` when there are too few of them.
    """
    curves = [tally_curve(*calibration.all_pairs(*people)) for people in (some, others)]
    words = protocol.format(people=len(some[0].names))
    points = calibration.operating_points(curves[0], words, some[1].contract)
    crowd = fit_crowd(*some, protocol)
    checks = calibration.check(points, curves[1])
    if crowd is None:
        return Calibrated(checks, None, ())
    elsewhere = measured(crowd, *others)
    return Calibrated(checks, crowd, calibration.check(crowd.operating_points, elsewhere))


@dataclass(frozen=True, eq=False, slots=True)
class VerificationRun:
    """One model on a verification protocol; what is None or empty was not asked for."""

    model: str
    vectors: Vectors
    figures: Verification
    reliability: Reliability | None = None
    slices: Sequence[Slice] = ()
    calibrated: Calibrated | None = None


def verify(
    bundle: Bundle,
    pairs: Pairs,
    vectors: Vectors,
    accuracy: Accuracy,
    *,
    slices: Sequence[Slice] = (),
    calibrated: Calibrated | None = None,
) -> VerificationRun:
    """The figures of a verification protocol, from embeddings of its pictures.

    The card's thresholds are held against these pairs where their rate can be seen in them.
    """
    scores = vectors.scores(pairs.a, pairs.b)
    impostors = int((~pairs.same).sum())
    points = [point for point in bundle.operating_points if point.fmr * impostors >= 1]
    return VerificationRun(
        bundle.id,
        vectors,
        verification.measure(pairs, scores, accuracy, points),
        calibration.reliability(scores, pairs.same, folds_of(pairs)),
        slices,
        calibrated,
    )


def verification_json(run: VerificationRun) -> dict[str, Any]:
    """The figures as JSON shows them."""
    figures: dict[str, Any] = {
        "contract": run.vectors.contract,
        **verification.summary(run.figures, len(run.vectors.failures)),
    }
    if run.reliability is not None:
        figures["ece"] = round(run.reliability.ece, 6)
        figures["cllr"] = round(run.reliability.cllr, 6)
    if run.slices:
        figures["slices"] = [_slice_json(part) for part in run.slices]
        figures["worst_to_best"] = {
            column: {
                "fmr": worst_to_best([s.fmr for s in run.slices if s.column == column]),
                "fnmr": worst_to_best([s.fnmr for s in run.slices if s.column == column]),
            }
            for column in dict.fromkeys(part.column for part in run.slices)
        }
    if run.calibrated is not None:
        figures["calibration"] = [_check_json(check) for check in run.calibrated.checks]
        if run.calibrated.crowd is not None:
            figures["search_calibration"] = {
                "share": run.calibrated.crowd.share,
                "centres": len(run.calibrated.crowd.centres),
                "thresholds": [_check_json(check) for check in run.calibrated.crowd_checks],
            }
    return figures


def _slice_json(part: Slice) -> dict[str, Any]:
    return {
        "column": part.column,
        "value": part.value,
        "genuine": part.genuine,
        "impostors": part.impostors,
        "fmr": part.fmr,
        "fmr_interval": part.fmr_interval and pair(part.fmr_interval),
        "fnmr": part.fnmr,
        "fnmr_interval": part.fnmr_interval and pair(part.fnmr_interval),
    }


def _check_json(check: Check) -> dict[str, Any]:
    return {
        "fmr": check.point.fmr,
        "threshold": round(check.point.threshold, 5),
        "fnmr": round(check.point.fnmr, 6),
        "other_people_fmr": check.fmr,
        "other_people_fnmr": round(check.fnmr, 6),
    }


@dataclass(frozen=True, eq=False, slots=True)
class StreamedRun:
    """One model on all pairs of a group of people, counted as they stream by.

    Each pair of people counts alike, however many pictures they have.
    """

    model: str
    vectors: Vectors
    curve: Curve
    intervals: VerificationIntervals


def stream(bundle: Bundle, people: Embedded) -> StreamedRun:
    """The figures of all pairs. Raises `InputError` when there are none of a kind."""
    genuine, impostor = calibration.all_pairs(*people, by_subject=True)
    rates = tally_curve(genuine, impostor)
    supported = [far for far in FARS if supports(rates, far)]
    return StreamedRun(bundle.id, people[1], rates, tally_intervals(genuine, impostor, supported))


def streamed_json(run: StreamedRun) -> dict[str, Any]:
    """The figures as JSON shows them; pairs are pairs of people."""
    intervals = run.intervals
    return {
        "contract": run.vectors.contract,
        "auc": round(auc(run.curve), 6),
        "auc_interval": pair(intervals.auc),
        "eer": round(eer(run.curve), 6),
        "eer_interval": pair(intervals.eer),
        "tar_at_far": {
            key: None if tar is None else round(tar, 6) for key, tar in tars(run.curve).items()
        },
        "tar_at_far_intervals": {key: pair(i) for key, i in intervals.tar_at_far.items()},
        "failure_to_enrol": len(run.vectors.failures),
        "n_people_genuine": run.curve.genuine,
        "n_pairs_of_people": run.curve.impostors,
    }


@dataclass(frozen=True, eq=False, slots=True)
class SearchRun:
    """One model on an identification protocol.

    `found` holds scores as the model's searches decide on them: less what each probe demands,
    where the bundle knows its crowd.
    """

    model: str
    vectors: Vectors
    found: Searches
    enrolled: int
    open_set: Sequence[OpenSet]
    promises: Sequence[Promise]


def search(
    bundle: Bundle,
    people: Embedded,
    split: Split,
    rates: Sequence[float],
    sizes: Sequence[int],
    seed: int = 0,
) -> SearchRun:
    """An open-set search of a split, and the promise of the thresholds in galleries of `sizes`.

    Rates that the strangers cannot support are left out. A bundle without measured thresholds
    promises nothing: its `promises` are empty.
    """
    found = searching.run(*people, split, bundle.crowd)
    strangers = np.unique(found.person[~found.mated]).size
    at = [searching.open_set(found, rate, seed) for rate in rates if rate * strangers >= 1]
    promises = []
    if bundle.search_points:
        promises = searching.check_promise(*people, bundle, rates, sizes, seed=seed)
    return SearchRun(bundle.id, people[1], found, len(split.enrolled), at, promises)


def search_json(run: SearchRun) -> dict[str, Any]:
    """The figures as JSON shows them."""
    shares = searching.cmc(run.found, 5)
    mated = int(run.found.mated.sum())
    return {
        "contract": run.vectors.contract,
        "rank_1": round(float(shares[0]), 6),
        "rank_1_interval": pair(searching.rank_interval(run.found, 1)),
        "rank_5": round(float(shares[4]), 6),
        "rank_5_interval": pair(searching.rank_interval(run.found, 5)),
        "dir_at_far": {name(at.fpir): round(1 - at.fnir, 6) for at in run.open_set},
        "fnir_at_fpir": {name(at.fpir): round(at.fnir, 6) for at in run.open_set},
        "fnir_at_fpir_intervals": {name(at.fpir): pair(at.fnir_interval) for at in run.open_set},
        "failure_to_enrol": len(run.vectors.failures),
        "n_enrolled": run.enrolled,
        "n_mated": mated,
        "n_unknown": int(run.found.mated.size - mated),
        "promises": [_promise_json(promise) for promise in run.promises],
    }


def _promise_json(promise: Promise) -> dict[str, Any]:
    return {
        "gallery_size": promise.gallery_size,
        "fpir": promise.asked,
        "threshold": round(promise.threshold, 5),
        "measured_fpir": round(promise.measured, 6),
        "measured_fpir_interval": pair(promise.interval),
        "verdict": promise.verdict,
        "fnir": None if promise.fnir is None else round(promise.fnir, 6),
    }
