"""The coarse stage of a search: who may be the best, from the codes of every template.

Codes give an upper and a lower bound of each score (see `mien.gallery.quantizer`). A template is
left out when as many other people as are asked for have a lower bound above its upper bound; the
caller compares the vectors of the rest exactly.
"""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from mien.gallery.kernels import Kernel, Scores
from mien.gallery.quantizer import Codes, Quantizer, Terms

_AT_ONCE = 1 << 16  # bounds that stay in the second-level cache
_SHARED = 1 << 13  # templates at least that are scanned for all probes of a batch
_FIRST = 1024
_WAITING = 64  # templates that may wait until it is worth sorting them out
_GATHERED = 0.25  # share of a block up to which the templates a filter lets through are copied out


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
        """Only the templates whose ids `allowed` has as true."""
        passes = allowed[self.ids]
        count = np.count_nonzero(passes)
        if count == len(self):
            return self
        if count < _GATHERED * len(self):
            return self.rows(np.flatnonzero(passes))
        return Block(self.ids, np.where(passes, self.subjects, 0), self.terms, self.codes)


def people_in(blocks: Iterable[Block], enough: int) -> int:
    """How many subjects there are, or `enough` as soon as there are that many."""
    found = np.zeros(0, np.int64)
    for block in _growing(blocks, _AT_ONCE):
        found = np.union1d(found, block.subjects[block.subjects != 0])
        if len(found) >= enough:
            return enough
    return len(found)


def candidates(
    blocks: Iterable[Block],
    quantizer: Quantizer,
    probes: NDArray[np.float32],
    limit: int,
    kernel: Kernel,
) -> list[NDArray[np.int64]]:
    """For each probe (p, dim) the ids of every template that may be the best of its subject,
    for every subject that may be among the best `limit`.

    It is slow when there are fewer than `limit` subjects.
    """
    asked = quantizer.probes(probes)
    scan = kernel(asked)
    best = [_Best(limit) for _ in probes]
    marks = np.full(len(probes), -np.inf, np.float32)
    for block in _growing(blocks, max(_SHARED, _AT_ONCE // len(probes))):
        bounds = scan(block.terms, block.codes)
        at, column = np.nonzero(bounds >= marks) if len(probes) > 1 else _only(bounds, marks[0])
        if not len(at):
            continue
        alive = block.subjects[at] != 0
        at, column = at[alive], column[alive]
        upper = bounds[at, column]
        lower = upper - asked.margins[column] * block.terms[2, at]
        found = np.stack([block.ids[at], block.subjects[at]]), np.stack([upper, lower])
        for probe in np.unique(column) if len(probes) > 1 else range(1 if len(at) else 0):
            mine = column == probe if len(probes) > 1 else slice(None)
            marks[probe] = best[probe].add(*(rows[:, mine] for rows in found))
    return [each.ids() for each in best]


def _only(bounds: Scores, mark: float) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """`nonzero` of one column, three times as fast."""
    column = bounds[:, 0]
    at = np.flatnonzero(column >= mark) if column.max() >= mark else np.zeros(0, np.int64)
    return at, np.zeros_like(at)


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
        order = np.argsort(-bounds[1], kind="stable")
        _, first, which = np.unique(who[1, order], return_index=True, return_inverse=True)
        best = bounds[1, order[first]]  # of each subject
        if len(best) >= self._limit:
            self._mark = float(np.partition(best, -self._limit)[-self._limit])
        kept = order[bounds[0, order] >= np.maximum(self._mark, best[which])]
        self._who, self._bounds, self._waiting = [who[:, kept]], [bounds[:, kept]], 0
