"""One-to-many search: who is found, who is missed, and which strangers are named.

The rates are those of ISO/IEC 19795-1 and of NIST FRTE 1:N. A **mated** probe shows somebody who
is enrolled, an **unknown** one a stranger. At a threshold, FNIR is the share of mated probes whose
own person is not first or does not reach it; FPIR is the share of unknown probes for whom anybody
does. A probe that gave no embedding is missed when mated and names nobody when unknown; a person
of whom nothing could be enrolled is missed by every probe. All of them count.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from mien import decision
from mien.cards import Bundle
from mien.errors import InputError
from mien.evaluation.curves import FAILED, Floats
from mien.evaluation.intervals import (
    REPLICATES,
    Interval,
    multiplicities,
    percentile,
    share_interval,
)
from mien.evaluation.protocols import Bools, Ints, People
from mien.evaluation.vectors import Vectors
from mien.types import Crowd

NEVER = int(np.iinfo(np.int64).max)
"""The rank of an own person who cannot be found: they, or the probe, gave no embedding."""

RUNNERS_UP = 20
"""How many people after the best are kept of each search."""

_CHUNK = 2_000_000  # scores at a time


@dataclass(frozen=True, eq=False, slots=True)
class Searches:
    """What searching one gallery with n probes gave, each array of shape (n,) unless said.

    `best` is the highest score of anybody enrolled, `runners_up` (n, k) those of the next people,
    highest first (k is 20, or one less than are enrolled), `own` that
    of the probe's own person (`FAILED` for a stranger), `rank` the own person's place from 1 (a
    tie counts against them; `NEVER` when there is none; 0 for a stranger). `mated` says whether
    the probe's person is meant to be enrolled, `person` who it is, `weights` how much the probe
    counts.
    """

    best: Floats
    runners_up: Floats
    own: Floats
    rank: Ints
    mated: Bools
    person: Ints
    weights: Floats


def search(
    gallery: NDArray[np.float32],
    gallery_person: Ints,
    probes: NDArray[np.float32],
    probe_person: Ints,
    mated: Bools,
    weights: Floats | None = None,
) -> Searches:
    """Search unit vectors (m, dim) with probes (n, dim); a row of zeros is one that failed.

    The score of a person is that of their best template. By default every probe counts alike.
    """
    usable = (gallery != 0).any(axis=1)
    order = np.argsort(gallery_person[usable], kind="stable")
    ranked, owners = gallery[usable][order], gallery_person[usable][order]
    people, starts = np.unique(owners, return_index=True)
    if people.size < 2:
        raise InputError(f"{people.size} people could be enrolled; a search needs at least two")
    count = len(probes)
    best, own = np.full(count, FAILED), np.full(count, FAILED)
    top = min(RUNNERS_UP + 1, people.size)
    runners_up = np.full((count, top - 1), FAILED)
    rank = np.zeros(count, np.int64)
    rank[mated] = NEVER  # until found
    place = np.searchsorted(people, probe_person)
    place = np.where(place < people.size, place, 0)
    enrolled = mated & (people[place] == probe_person)
    alive = (probes != 0).any(axis=1)
    step = max(1, _CHUNK // len(ranked))
    for start in range(0, count, step):
        rows = np.flatnonzero(alive[start : start + step]) + start
        if not rows.size:
            continue
        scores = np.maximum.reduceat(probes[rows] @ ranked.T, starts, axis=1)
        ranked_scores = -np.sort(-np.partition(scores, -top, axis=1)[:, -top:], axis=1)
        best[rows], runners_up[rows] = ranked_scores[:, 0], ranked_scores[:, 1:]
        known = enrolled[rows]
        mine = scores[known, place[rows[known]]]
        own[rows[known]] = mine
        rank[rows[known]] = (scores[known] >= mine[:, None]).sum(axis=1)
    mass = np.ones(count) if weights is None else weights
    return Searches(best, runners_up, own, rank, mated, probe_person, mass)


def per_person(person: Ints) -> Floats:
    """Weights (n,) that let every person count alike, however many pictures they have."""
    weights: Floats = 1.0 / np.bincount(person)[person]
    return weights


def fnir(found: Searches, threshold: float, rank: int = 1) -> float:
    """The share of mated probes whose person is not among the first `rank` at the threshold."""
    if not found.mated.any():
        raise InputError("no probe is of an enrolled person: FNIR cannot be measured")
    return _share(missed(found, threshold, rank), found.weights[found.mated])


def missed(found: Searches, threshold: float, rank: int = 1) -> Bools:
    """Which mated probes were not identified, in their order."""
    hit = (found.rank <= rank) & (found.own >= threshold)
    miss: Bools = ~hit[found.mated]
    return miss


def fpir(found: Searches, threshold: float) -> float:
    """The share of unknown probes for whom somebody reaches the threshold."""
    return _share(found.best[_unknown(found)] >= threshold, found.weights[~found.mated])


def _unknown(found: Searches) -> Bools:
    unknown: Bools = ~found.mated
    if not unknown.any():
        raise InputError("there are no unknown probes: FPIR cannot be measured")
    return unknown


def _share(flags: Bools, weights: Floats) -> float:
    return float((flags * weights).sum() / weights.sum())


def threshold_for(found: Searches, rate: float) -> float:
    """The lowest threshold at which the FPIR is at most `rate`.

    Raises `InputError` when there are fewer than 1 / rate unknown people: nothing is
    extrapolated.
    """
    unknown = _unknown(found)
    strangers = np.unique(found.person[unknown]).size
    if strangers * rate < 1 - 1e-9:
        raise InputError(
            f"an FPIR of {rate:g} needs at least {1 / rate:,.0f} unknown people; "
            f"there are {strangers:,}"
        )
    order = np.argsort(-found.best[unknown], kind="stable")
    scores = found.best[unknown][order]
    above = np.cumsum(found.weights[unknown][order]) / found.weights[unknown].sum()
    ends = np.concatenate([scores[1:] < scores[:-1], [True]])  # ties stand or fall together
    allowed = scores[ends & (above <= rate + 1e-12)]
    forbidden = scores[ends & (above > rate + 1e-12)]
    if not forbidden.size:
        return float(scores[-1])
    floor = float(forbidden[0])
    return float(np.nextafter(floor, 2.0)) if not allowed.size else (floor + float(allowed[-1])) / 2


def cmc(found: Searches, ranks: int = 20) -> Floats:
    """The share (ranks,) of mated probes whose person is among the first 1, 2, ... found."""
    rows = found.mated
    weights = found.weights[rows]
    hits = found.rank[rows][:, None] <= np.arange(1, ranks + 1)
    shares: Floats = (hits * weights[:, None]).sum(axis=0) / weights.sum()
    return shares


def rank_interval(found: Searches, rank: int, seed: int = 0) -> Interval:
    """The interval of one point of `cmc`, people resampled."""
    rows = found.mated
    hits = found.rank[rows] <= rank
    return share_interval(hits, found.person[rows], weights=found.weights[rows], seed=seed)


def tradeoff(found: Searches) -> tuple[Floats, Floats, Floats]:
    """Thresholds, FPIR and FNIR (each (n,)) over every threshold that changes the FPIR."""
    unknown = _unknown(found)
    thresholds = np.unique(found.best[unknown])
    order = np.argsort(found.best[unknown])
    ranked = found.best[unknown][order]
    running = np.concatenate([[0.0], np.cumsum(found.weights[unknown][order])])
    false = 1 - running[np.searchsorted(ranked, thresholds)] / running[-1]
    mated = found.mated
    score = np.where(found.rank[mated] == 1, found.own[mated], -np.inf)
    order = np.argsort(score)
    running = np.concatenate([[0.0], np.cumsum(found.weights[mated][order])])
    miss = running[np.searchsorted(score[order], thresholds)] / running[-1]
    return thresholds, false, miss


@dataclass(frozen=True, slots=True)
class OpenSet:
    """FNIR where the FPIR is `fpir`, both measured on the same probes, with intervals.

    The threshold is chosen on the unknown probes; `fnir_interval` includes that choice.
    """

    fpir: float
    threshold: float
    fnir: float
    fnir_interval: Interval


def open_set(found: Searches, rate: float, seed: int = 0) -> OpenSet:
    """FNIR at an FPIR, with a bootstrap over people. Raises as `threshold_for`."""
    threshold = threshold_for(found, rate)
    people, owner = np.unique(found.person, return_inverse=True)
    owner = owner.reshape(-1)
    unknown, mated = ~found.mated, found.mated
    order = np.argsort(-found.best[unknown], kind="stable")
    scores, owners = found.best[unknown][order], owner[unknown][order]
    base = found.weights[unknown][order]
    right = np.where(found.rank == 1, found.own, -np.inf)[mated]
    values = []
    for row in multiplicities(people.size, REPLICATES, seed):
        above = np.cumsum(base * row[owners])
        if not above[-1]:
            continue
        over = int(np.argmax(above > rate * above[-1] + 1e-12))
        weights = found.weights[mated] * row[owner[mated]]
        if weights.sum():
            values.append(_share(right <= scores[over], weights))
    return OpenSet(rate, threshold, fnir(found, threshold), percentile(values))


@dataclass(frozen=True, eq=False, slots=True)
class Split:
    """Rows of a set of pictures, parted into those enrolled and those searched with."""

    enrolled: Ints
    probes: Ints
    mated: Bools  # of `probes`


def split_by_pictures(group: People, keep_back: int = 1, seed: int = 0) -> Split:
    """Enrol everybody with more than `keep_back` pictures, but for that many; the rest are unknown.

    Which pictures are kept back as probes is drawn with `seed`. Raises `InputError` when nobody
    has enough pictures or everybody has.
    """
    rng = np.random.default_rng(seed)
    shuffled = rng.permutation(group.person.size)
    order = shuffled[np.argsort(group.person[shuffled], kind="stable")]
    owner = group.person[order]
    sizes = np.bincount(owner, minlength=len(group.names))
    turn = np.arange(owner.size) - np.concatenate([[0], np.cumsum(sizes)[:-1]])[owner]
    known = sizes[owner] > keep_back
    if not known.any() or known.all():
        whom = "nobody" if not known.any() else "everybody"
        raise InputError(
            f"{whom} in {group.name} has more than {keep_back} pictures; "
            f"an open-set search needs some who do and some who do not"
        )
    enrolled = known & (turn >= keep_back)
    probes = ~enrolled
    return Split(order[enrolled], order[probes], known[probes])


def split_by_people(group: People, enrolled: int, rng: np.random.Generator) -> Split:
    """Enrol one picture of each of `enrolled` people drawn at random; all else is searched with."""
    if not 2 <= enrolled < len(group.names):
        raise InputError(
            f"{enrolled} of the {len(group.names)} people of {group.name} cannot be enrolled: "
            f"at least 2 must be, and at least 1 left unknown"
        )
    chosen = np.isin(group.person, rng.choice(len(group.names), enrolled, replace=False))
    shuffled = rng.permutation(np.flatnonzero(chosen))
    first = shuffled[np.unique(group.person[shuffled], return_index=True)[1]]
    probes = np.setdiff1d(np.arange(group.person.size), first)
    return Split(first, probes, chosen[probes])


def run(group: People, vectors: Vectors, split: Split, crowd: Crowd | None = None) -> Searches:
    """Search a split; every person counts alike among the mated, and among the unknown.

    With a crowd, scores are those less what each probe demands: what one threshold decides on.
    """
    person = group.person[split.probes]
    probes = vectors.matrix[split.probes]
    found = search(
        vectors.matrix[split.enrolled],
        group.person[split.enrolled],
        probes,
        person,
        split.mated,
        per_person(person),
    )
    if crowd is None:
        return found
    more = decision.demand(crowd, probes)

    def less(scores: Floats, by: Floats) -> Floats:
        return np.where(scores > FAILED, scores - by, FAILED)

    return replace(
        found,
        best=less(found.best, more),
        runners_up=less(found.runners_up, more[:, None]),
        own=less(found.own, more),
    )


@dataclass(frozen=True, slots=True)
class Promise:
    """The FPIR that a threshold promises in a gallery of a size, and what was measured.

    `threshold` is that of a usual face. `measured` is the mean over random galleries,
    `interval` where the FPIR of one such gallery lies 95% of the time (people and galleries both
    drawn anew); `fnir` is the mean likewise, None when nobody enrolled has a second picture.
    """

    asked: float
    gallery_size: int
    threshold: float
    measured: float
    interval: Interval
    fnir: float | None
    unknown_people: int

    @property
    def verdict(self) -> str:
        """Whether the FPIR asked for lies in the interval measured, or on the safe side of it."""
        if self.asked in self.interval:
            return "kept"
        return "kept, too strictly" if self.asked > self.interval.high else "BROKEN"


def check_promise(
    group: People,
    vectors: Vectors,
    bundle: Bundle,
    rates: Sequence[float],
    sizes: Sequence[int],
    galleries: int = 20,
    seed: int = 0,
    progress: Callable[[str], None] = lambda _: None,
) -> list[Promise]:
    """Measure the FPIR of `decision.search_point` on people whom the bundle was not measured on.

    For each size, `galleries` random ones are enrolled with one picture a person; everybody else
    in `group` is unknown and counts alike. Raises `NoOperatingPoint` when nothing was measured.
    """
    rng = np.random.default_rng(seed)
    promises = []
    for size in sizes:
        searches = [
            run(group, vectors, split_by_people(group, size, rng), bundle.crowd)
            for _ in range(galleries)
        ]
        progress(f"{galleries} galleries of {size} searched")
        for rate in rates:
            point = decision.identification_point(
                bundle.search_points, rate, size, vectors.contract
            )
            draws, rates_of, misses = [], [], []
            for number, found in enumerate(searches):
                unknown = ~found.mated
                hits = (found.best[unknown] >= point.threshold).astype(np.float64)
                rates_of.append(fpir(found, point.threshold))
                if found.mated.any():  # small galleries may hold nobody with a second picture
                    misses.append(fnir(found, point.threshold))
                owners = np.unique(found.person[unknown], return_inverse=True)[1].reshape(-1)
                weights = found.weights[unknown]
                rows = multiplicities(int(owners.max()) + 1, REPLICATES // galleries, seed + number)
                whole = rows @ np.bincount(owners, weights)
                draws.append((rows @ np.bincount(owners, hits * weights)) / whole)
            promises.append(
                Promise(
                    rate, size, point.threshold, float(np.mean(rates_of)),
                    percentile(np.concatenate(draws)), float(np.mean(misses)) if misses else None,
                    len(group.names) - size,
                )
            )  # fmt: skip
    return promises
