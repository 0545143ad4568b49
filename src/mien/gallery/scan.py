"""The coarse stage of a search: who may be the best, from the codes of every template.

Codes give an upper and a lower bound of each score (see `mien.gallery.quantizer`). A template is
left out when as many other people as are asked for have a lower bound above its upper bound; the
caller compares the vectors of the rest exactly.
"""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from mien.gallery.kernels import Kernel
from mien.gallery.quantizer import Codes, Quantizer, Terms

_AT_ONCE = 1 << 18  # templates that are scanned before the marks are raised, at most
_ROOM = 1 << 24  # hits for which there is always room
_FIRST = 256
_WAITING = 64  # templates that may wait until it is worth sorting them out
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
    found = np.zeros(0, np.int64)
    for block in _growing(blocks, _AT_ONCE):
        found = np.union1d(found, block.subjects[_alive(block.ids, block.subjects, allowed)])
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
) -> list[NDArray[np.int64]]:
    """For each probe (p, dim) the ids of every template that may be the best of its subject,
    for every subject that may be among the best `limit`.

    `allowed` has a truth value for every id. It is slow when there are fewer than `limit` subjects.
    """
    asked = quantizer.probes(probes)
    scan = kernel(asked)
    best = [_Best(limit) for _ in probes]
    marks = np.full(len(probes), -np.inf, np.float32)
    for block in _growing(blocks, min(_AT_ONCE, _ROOM // len(probes))):
        at, column, upper = scan(block.terms, block.codes, marks)
        if not len(at):
            continue
        ids, subjects = block.ids[at], block.subjects[at]
        lower = upper - asked.margins[column] * block.terms[2, at]
        alive = _alive(ids, subjects, allowed)
        who, bounds = np.stack([ids, subjects])[:, alive], np.stack([upper, lower])[:, alive]
        column = column[alive]
        for probe in np.unique(column):
            mine = column == probe
            marks[probe] = best[probe].add(who[:, mine], bounds[:, mine])
    return [each.ids() for each in best]


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
            start, height = stop, min(4 * height, most)


class _Best:
    """The templates seen so far that may decide who is among the best `limit` for one probe."""

    def __init__(self, limit: int) -> None:
        self._limit = limit
        self._mark = -np.inf
        self._waiting = 0
        self._who = [np.zeros((2, 0), np.int64)]  # ids and subjects: what is kept, what waits
        self._bounds = [np.zeros((2, 0), np.float32)]  # upper and lower

    def add(self, who: NDArray[np.int64], bounds: NDArray[np.float32]) -> float:
        """Add templates; the upper bound that later ones must have."""
        self._who.append(who)
        self._bounds.append(bounds)
        self._waiting += who.shape[1]
        if self._mark == -np.inf or self._waiting >= _WAITING:
            self._sort_out()
        return self._mark

    def ids(self) -> NDArray[np.int64]:
        """The templates that are left."""
        self._sort_out()
        ids: NDArray[np.int64] = self._who[0][0]
        return ids

    def _sort_out(self) -> None:
        who, bounds = np.concatenate(self._who, axis=1), np.concatenate(self._bounds, axis=1)
        if not who.shape[1]:
            return
        order = np.lexsort((-bounds[1], who[1]))  # the best template of each subject first
        subjects, (upper, lower) = who[1, order], bounds[:, order]
        first = np.concatenate([[True], subjects[1:] != subjects[:-1]])
        best = lower[first]  # of each subject
        if len(best) >= self._limit:
            self._mark = float(np.partition(best, -self._limit)[-self._limit])
        kept = order[upper >= np.maximum(self._mark, best[np.cumsum(first) - 1])]
        self._who, self._bounds, self._waiting = [who[:, kept]], [bounds[:, kept]], 0
