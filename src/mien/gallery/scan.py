"""The coarse stage of a search: who may be the best, from the codes of every template.

Codes give an upper and a lower bound of each score (see `mien.gallery.quantizer`). A template is
left out when as many other people as are asked for have a lower bound above its upper bound; the
caller compares the vectors of the rest exactly.
"""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from mien.gallery.kernels import Kernel
from mien.gallery.quantizer import Codes, Quantizer, Terms

_AT_ONCE = 1 << 19  # templates that are scanned before the marks are raised, at most
_ROOM = 1 << 24  # hits for which there is always room
_FIRST = 128
_GROWTH = 16
_WAITING = 64  # templates for each probe that may wait until it is worth sorting them out
_ALONE = (np.sqrt(2) - 1) / 2  # of the distance of two bounds, for one to be as certain as both are
_GATHERED = 0.1  # share up to which the templates that a filter lets through are copied out


@dataclass(frozen=True, eq=False, slots=True)
class Block:
    """Some templates: ids ascending, the subject of each (0: it takes no part), terms, codes."""

    ids: NDArray[np.int64]
    subjects: NDArray[np.int64]
    terms: Terms
    codes: Codes

    def __len__(self) -> int:
        return len(self.ids)

    def rows(self, chosen: slice | NDArray[np.int64]) -> "Block":
        """Some of them, by position; with a slice the arrays are views."""
        return Block(
            self.ids[chosen], self.subjects[chosen], self.terms[:, chosen], self.codes[chosen]
        )

    def among(self, allowed: NDArray[np.bool_]) -> "Block":
        """A copy of the templates whose ids `allowed` has as true."""
        if len(self) and self.ids[-1] - self.ids[0] == len(self) - 1:  # none is missing
            return self.rows(np.flatnonzero(allowed[self.ids[0] : self.ids[-1] + 1]))
        return self.rows(np.flatnonzero(allowed[self.ids]))


class Found(NamedTuple):
    """Templates, and what the score of each may be at most, the largest first."""

    ids: NDArray[np.int64]
    most: NDArray[np.float32]


def filtered(blocks: list[Block], allowed: NDArray[np.bool_]) -> list[Block]:
    """What has to be scanned for a filter: few templates as a copy, of many all.

    Reading a template is cheaper than copying it, so the others are left out when they are found.
    """
    if np.count_nonzero(allowed) < _GATHERED * len(allowed):
        return [block.among(allowed) for block in blocks]
    return blocks


def people_in(
    blocks: Iterable[Block], enough: int, allowed: NDArray[np.bool_] | None = None
) -> int:
    """How many subjects there are, or `enough` as soon as there are that many."""
    found: set[int] = set()
    for block in _growing(blocks, _AT_ONCE):
        alive = _alive(block.ids, block.subjects, allowed)
        found.update(np.unique(block.subjects[alive]).tolist())
        if len(found) >= enough:
            return enough
    return len(found)


def candidates(
    blocks: Iterable[Block],
    quantizer: Quantizer,
    probes: NDArray[np.float32],
    limit: int,
    kernel: Kernel,
    allowed: NDArray[np.bool_] | None = None,
) -> list[Found]:
    """For each probe (p, dim) every template that may be the best of its subject, for every
    subject that may be among the best `limit`.

    `allowed` has a truth value for every id. It is slow when there are fewer than `limit` subjects.
    """
    asked = quantizer.probes(probes)
    scan = kernel(asked)
    marks = np.full(len(probes), -np.inf, np.float32)
    who, bounds = np.zeros((3, 0), np.int64), np.zeros((2, 0), np.float32)
    waiting = 0
    for block in _growing(blocks, min(_AT_ONCE, _ROOM // len(probes))):
        at, column, upper = scan(block.terms, block.codes, marks)
        if not len(at):
            continue
        ids, subjects = block.ids[at], block.subjects[at]
        lower = upper - asked.margins[column] * block.terms[2, at]
        alive = _alive(ids, subjects, allowed)
        who = np.concatenate([who, np.array([column, subjects, ids])[:, alive]], axis=1)
        bounds = np.concatenate([bounds, np.array([upper, lower])[:, alive]], axis=1)
        waiting += len(at)
        if waiting >= _WAITING * len(probes) or marks.min() == -np.inf:
            who, bounds = _sorted_out(who, bounds, limit, marks)
            waiting = 0
    (probe, _, ids), (upper, lower) = _sorted_out(who, bounds, limit, marks)
    most = upper + _ALONE * (upper - lower)
    most = most / asked.weights[probe, 1] + ((probes - quantizer.mean) @ quantizer.mean)[probe]
    order = np.lexsort((-most, probe))
    parts = np.searchsorted(probe, np.arange(1, len(probes)))  # `probe` itself is in order
    return [*map(Found, np.split(ids[order], parts), np.split(most[order], parts))]


def _alive(
    ids: NDArray[np.int64], subjects: NDArray[np.int64], allowed: NDArray[np.bool_] | None
) -> NDArray[np.bool_]:
    alive: NDArray[np.bool_] = subjects != 0
    return alive if allowed is None else np.logical_and(alive, allowed[ids])


def _growing(blocks: Iterable[Block], most: int) -> Iterator[Block]:
    """The same templates, starting with few: they set the mark that most others do not reach."""
    height = _FIRST
    for block in blocks:
        start = 0
        while start < len(block):
            stop = min(len(block), start + height)
            yield block.rows(slice(start, stop))
            start, height = stop, min(_GROWTH * height, most)


def _sorted_out(
    who: NDArray[np.int64], bounds: NDArray[np.float32], limit: int, marks: NDArray[np.float32]
) -> tuple[NDArray[np.int64], NDArray[np.float32]]:
    """Those that may decide who is among the best `limit` for their probe, by probe.

    `who` (3, n) has the probe, subject and id of each, `bounds` (2, n) the upper and the lower
    bound. Raises the marks, which are the upper bound that later ones must have.
    """
    order = np.lexsort((-bounds[1], who[1], who[0]))  # the best template of each subject first
    who, bounds = who[:, order], bounds[:, order]
    probe, subject, _ = who
    first = np.ones(len(order), np.bool_)
    first[1:] = (subject[1:] != subject[:-1]) | (probe[1:] != probe[:-1])
    best, of = bounds[1, first], probe[first]  # of each subject
    ranked = np.lexsort((-best, of))  # `of` itself is in order
    last = np.flatnonzero(np.arange(len(of)) - np.searchsorted(of, of) == limit - 1)
    marks[of[last]] = best[ranked[last]]
    kept = bounds[0] >= np.maximum(marks[probe], best[np.cumsum(first) - 1])
    return who[:, kept], bounds[:, kept]
