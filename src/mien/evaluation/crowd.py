"""How strangers lie about a probe: fitted on some people, thresholds measured on others.

A face that resembles many people scores high against some of any gallery, and one threshold for
all lets it name strangers that another face would not. What `decision.demand` takes off a score
makes them alike; which share of it helps is chosen here, and none may be the answer.
"""

import numpy as np
from numpy.typing import NDArray

from mien import decision
from mien.evaluation.calibration import RATES, all_pairs, operating_points
from mien.evaluation.curves import Curve, rates_at, supports, tally_curve, threshold_at
from mien.evaluation.protocols import Bools, Ints, People
from mien.evaluation.vectors import Vectors
from mien.types import Crowd

CENTRES = 64
"""At most so many groups of people; and no more than one for twenty people."""

LEAST = 10
"""People in a group at least: the mean of fewer is left out, so that it describes nobody."""

USUAL = 0.84
"""The share of faces that are no nearer to the crowd than is usual: nothing is demanded of them."""

SHARES = (0.0, 0.2, 0.4, 0.6, 0.8)

_STEPS = 50


def fit_crowd(group: People, vectors: Vectors, protocol: str, seed: int = 0) -> Crowd | None:
    """The crowd of one third of a group's people, with thresholds of the other two thirds.

    `protocol` is a text with a place for `{people}`, the number of people measured on. None when
    there are too few people, or when no share of the demand lowers the FNMR at the strictest FMR
    that their pairs support.
    """
    rng = np.random.default_rng(seed)
    count = len(group.names)
    learnt = np.isin(group.person, rng.permutation(count)[: count // 3])
    faces = _faces(group.person[learnt], vectors.matrix[learnt])
    wanted = min(CENTRES, len(faces) // 20)
    if wanted < decision.NEAREST:
        return None
    centres = centres_of(faces, wanted, rng).astype(np.float16).astype(np.float32)  # as on a card
    if len(centres) < decision.NEAREST:
        return None
    others = part(group, vectors, ~learnt)
    usual = _usual(centres, *others)
    crowds = [Crowd(centres, share, usual, ()) for share in SHARES]
    curves = [measured(crowd, *others) for crowd in crowds]
    supported = [rate for rate in RATES if supports(curves[0], rate, wrong=30)]
    if not supported:
        return None
    misses = [_fnmr(rates, supported[-1]) for rates in curves]
    best = int(np.argmin(misses))
    if SHARES[best] == 0:
        return None
    words = (
        f"{protocol.format(people=len(np.unique(others[0].person)))}; less what resembling a crowd "
        f"of {len(faces):,} others demands"
    )
    points = operating_points(curves[best], words, vectors.contract)
    return Crowd(centres, SHARES[best], usual, tuple(points))


def measured(crowd: Crowd, group: People, vectors: Vectors) -> Curve:
    """The curve of all pairs of a group, of scores less what the probe demands."""
    demand = np.where(vectors.usable, decision.demand(crowd, vectors.matrix), 0.0)
    return tally_curve(*all_pairs(group, vectors, demand=demand))


def centres_of(
    faces: NDArray[np.float32], count: int, rng: np.random.Generator
) -> NDArray[np.float32]:
    """The means (n, dim) of up to `count` groups of faces (m, dim) by k-means (Lloyd, 1982).

    Groups of fewer than `LEAST` are left out, so there may be fewer, or none.
    """
    centres = faces[rng.choice(len(faces), count, replace=False)]
    for _ in range(_STEPS):
        owner = _owner(faces, centres)
        size = np.bincount(owner, minlength=count)
        sums = np.zeros_like(centres)
        np.add.at(sums, owner, faces)
        moved = np.where(size[:, None] > 0, sums / np.maximum(1, size)[:, None], centres)
        if np.array_equal(moved, centres):
            break
        centres = moved
    kept: NDArray[np.float32] = centres[
        np.bincount(_owner(faces, centres), minlength=count) >= LEAST
    ]
    return kept


def _owner(faces: NDArray[np.float32], centres: NDArray[np.float32]) -> Ints:
    near: Ints = np.argmax(faces @ centres.T - (centres**2).sum(axis=1) / 2, axis=1)
    return near


def _faces(person: Ints, matrix: NDArray[np.float32]) -> NDArray[np.float32]:
    """The mean direction of each person (n, dim); those of whom nothing could be embedded lack."""
    _, owner = np.unique(person, return_inverse=True)
    sums = np.zeros((int(owner.max(initial=-1)) + 1, matrix.shape[1]), np.float32)
    np.add.at(sums, owner.reshape(-1), matrix)
    norms = np.linalg.norm(sums, axis=1, keepdims=True)
    means: NDArray[np.float32] = (sums / np.maximum(norms, 1e-12))[norms[:, 0] > 0]
    return means


def _usual(centres: NDArray[np.float32], group: People, vectors: Vectors) -> float:
    """The nearness that a share `USUAL` of faces does not exceed, people weighted alike."""
    near = decision.nearness(centres, vectors.matrix[vectors.usable])
    weights = 1.0 / np.bincount(group.person)[group.person[vectors.usable]]
    order = np.argsort(near)
    running = np.cumsum(weights[order])
    return float(near[order][np.searchsorted(running, USUAL * running[-1])])


def _fnmr(rates: Curve, fmr: float) -> float:
    return float(rates_at(rates, threshold_at(rates, fmr))[1])


def part(group: People, vectors: Vectors, rows: Bools) -> tuple[People, Vectors]:
    """Some of the pictures of a group with their embeddings."""
    kept = np.flatnonzero(rows)
    place = {row: number for number, row in enumerate(kept.tolist())}
    return (
        People(
            group.name, tuple(group.pictures[row] for row in kept), group.names, group.person[kept]
        ),
        Vectors(
            vectors.matrix[kept],
            {place[row]: why for row, why in vectors.failures.items() if row in place},
            vectors.contract,
            0,
        ),
    )
