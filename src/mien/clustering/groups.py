"""The merging: from unit vectors, thresholds and what is certain to the group of each face."""

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import combinations

import numpy as np
from numpy.typing import NDArray

from mien.clustering.thresholds import Linkage
from mien.errors import InputError

Labels = NDArray[np.int64]  # (n,): the number of each face's group, -1 for none
Pairs = NDArray[np.int64]  # (m, 2): indices of two faces

NONE = -1
MIN_QUALITY = 0.1
"""Faces below this quality may join a group but found none and connect none."""

_REMNANT = 8  # a group of up to so many faces may be what was left of a larger one
_BEST = 3  # scores that tell whether they are
_ROUNDS = 3
_LIMIT = 64  # neighbours kept of a face among those before it; bounds memory for famous people
_ROWS, _COLUMNS = 1024, 8192  # of the score matrix at a time: 32 MB
_CHUNK = 1 << 16


def cluster(
    vectors: NDArray[np.float32],
    needs: Linkage,
    *,
    apart: Pairs | None = None,
    together: Pairs | None = None,
    usable: NDArray[np.bool_] | None = None,
    known: Labels | None = None,
) -> Labels:
    """The group of each face: unit vectors (n, dim) to numbers (n,), -1 for a face left alone.

    No group holds two faces that are `apart`; faces that are `together` are in one group. Faces
    that are not `usable` (poor ones, see `MIN_QUALITY`) are added at the end to the group they
    resemble: they neither found groups nor bring two together.

    `known` (n,) carries an earlier result on, with -1 for faces that have no group yet: those join
    groups or found new ones, with numbers above all known ones, and nobody's group changes. Scores
    are then only computed for the faces from the first one on that is -1 and after which no known
    face follows, so put the new ones last. New groups are numbered by size, largest first.

    Memory grows with the number of faces, time with its square: 13,233 faces take about a second.
    Raises `InputError` when what must hold contradicts itself.
    """
    count = len(vectors)
    usable = np.ones(count, bool) if usable is None else usable
    known = np.full(count, NONE) if known is None else known
    apart = _pairs(apart, count)
    together = _pairs(together, count)
    if len(usable) != count or len(known) != count:
        raise InputError(f"{count} faces need as many qualities and earlier groups")

    part, seeds = _certain(count, together, known)
    # A part that somebody vouched for counts as usable, whatever its faces look like.
    good = np.bincount(part, usable, len(seeds)) > 0
    good |= (np.bincount(part, minlength=len(seeds)) > 1) | (seeds != NONE)
    faces, scores = _neighbours(vectors, needs.grouped.threshold, _first_new(known))
    pairs = part[faces]
    groups = _Groups(
        sums=_sums(vectors, part, len(seeds)),
        sizes=np.bincount(part, minlength=len(seeds)).astype(np.float64),
        lock=seeds,
        forbidden=_forbidden(part, apart),
        needs=needs,
    )
    clean = good[pairs].all(axis=1)
    moved = groups.merge(pairs[clean])
    among_good = faces[clean], scores[clean]
    for _ in range(_ROUNDS):
        moved = groups.absorb(moved[part], *among_good)[moved]
    numbers = groups.lock
    # Now the poor ones: with every usable group locked, they can only be added to it.
    groups.lock = np.where(good, np.arange(len(good)), NONE)
    moved = groups.merge(moved[pairs])[moved]
    moved = groups.absorb(moved[part], faces, scores)[moved]
    return _numbered(groups.lock[moved[part]], numbers)


def same_picture(pictures: Sequence[str]) -> Pairs:
    """All pairs (m, 2) of faces that are in the same picture, given the picture of each face."""
    faces_of: dict[str, list[int]] = {}
    for face, picture in enumerate(pictures):
        faces_of.setdefault(picture, []).append(face)
    found = [pair for faces in faces_of.values() for pair in combinations(faces, 2)]
    return np.array(found, np.int64).reshape(-1, 2)


def _pairs(pairs: Pairs | None, count: int) -> Pairs:
    if pairs is None or not len(pairs):
        return np.zeros((0, 2), np.int64)
    if pairs.ndim != 2 or pairs.shape[1] != 2 or pairs.min() < 0 or pairs.max() >= count:
        raise InputError(f"pairs of faces are two indices below {count}, got shape {pairs.shape}")
    return pairs


def _certain(count: int, together: Pairs, known: Labels) -> tuple[Labels, Labels]:
    """The parts that are given: each face's part, numbered from 0, and each part's known group."""
    root = list(range(count))

    def find(face: int) -> int:
        while root[face] != face:
            root[face] = root[root[face]]
            face = root[face]
        return face

    first_of: dict[int, int] = {}
    given = [
        (int(face), first_of.setdefault(int(known[face]), int(face)))
        for face in np.flatnonzero(known != NONE)
    ]
    for a, b in [*given, *together.tolist()]:
        root[find(a)] = find(b)
    _, part = np.unique([find(face) for face in range(count)], return_inverse=True)
    part = part.astype(np.int64)
    seeds = np.full(part.max() + 1 if count else 0, NONE)
    for group, face in first_of.items():
        if seeds[part[face]] != NONE:
            raise InputError(
                f"groups {seeds[part[face]]} and {group} of the earlier run hold faces that are "
                f"said to be of one person; give them one number first"
            )
        seeds[part[face]] = group
    return part, seeds


def _forbidden(part: Labels, apart: Pairs) -> Pairs:
    ends = part[apart]
    clash = np.flatnonzero(ends[:, 0] == ends[:, 1])
    if len(clash):
        a, b = apart[clash[0]]
        raise InputError(
            f"faces {a} and {b} are to be kept apart, but are known to be of one person"
        )
    return ends


def _first_new(known: Labels) -> int:
    """From which face on scores are needed: all before have been compared in an earlier run."""
    old = np.flatnonzero(known != NONE)
    return int(old[-1]) + 1 if len(old) else 0


def _sums(vectors: NDArray[np.float32], part: Labels, parts: int) -> NDArray[np.float32]:
    sums = np.zeros((parts, *vectors.shape[1:]), np.float32)
    np.add.at(sums, part, vectors)
    return sums


def _neighbours(
    vectors: NDArray[np.float32], floor: float, first: int
) -> tuple[Pairs, NDArray[np.float32]]:
    """Pairs (m, 2) of faces that score at least `floor`, one of them `first` or later; scores (m,).

    Of each face the `_LIMIT` best among those before it are kept.
    """
    found, scores = [np.zeros((0, 2), np.int64)], [np.zeros(0, np.float32)]
    for top in range(first, len(vectors), _ROWS):
        block = vectors[top : top + _ROWS]
        kept = [_NOTHING]
        for left in range(0, top + len(block), _COLUMNS):
            product = block @ vectors[left : min(left + _COLUMNS, top + len(block))].T
            flat = np.flatnonzero(product >= floor)
            row, column = np.divmod(flat, product.shape[1])
            column += left
            before = column < row + top
            kept.append((row[before], column[before], product.ravel()[flat[before]]))
            if sum(len(rows) for rows, _, _ in kept) > 8 * _LIMIT * _ROWS:
                kept = [_best(kept)]
        row, column, score = _best(kept)
        found.append(np.column_stack([column, row + top]))
        scores.append(score)
    return np.concatenate(found), np.concatenate(scores)


_Scored = tuple[NDArray[np.int64], NDArray[np.int64], NDArray[np.float32]]
_NOTHING: _Scored = (np.zeros(0, np.int64), np.zeros(0, np.int64), np.zeros(0, np.float32))


def _best(parts: Sequence[_Scored]) -> _Scored:
    """Rows, columns and scores of several lists as one, the best `_LIMIT` of each row."""
    row, column, score = (np.concatenate(lists) for lists in zip(*parts, strict=True))
    counts = np.bincount(row)
    if counts.max(initial=0) <= _LIMIT:
        return row, column, score
    order = np.lexsort((-score, row))
    starts = np.concatenate([[0], np.cumsum(counts)[:-1]])
    kept = order[np.arange(len(order)) - starts[row[order]] < _LIMIT]
    return row[kept], column[kept], score[kept]


@dataclass
class _Groups:
    """Groups as they grow: sums of vectors (g, dim), sizes (g,), locks (g,), forbidden pairs.

    Two groups with a lock are never joined. When two groups are joined everything moves to the
    first; the second stays behind, and no pair names it any more.
    """

    sums: NDArray[np.float32]
    sizes: NDArray[np.float64]
    lock: Labels
    forbidden: Pairs
    needs: Linkage

    def merge(self, pairs: Pairs) -> Labels:
        """Join groups until none of the pairs may be; where each group went (g,).

        Every round joins all pairs of groups that are each other's best; large groups take in more
        (see `_more`). A pair whose mean falls below the floor is forgotten: it cannot rise again
        unless another pair lifts it.
        """
        moved = np.arange(len(self.lock))
        a, b, margin = self._scored(pairs)
        while True:
            best = np.zeros(len(self.lock))
            np.maximum.at(best, a, margin)
            np.maximum.at(best, b, margin)
            chosen = np.flatnonzero((margin >= 0) & (margin == best[a]) & (margin == best[b]))
            if not len(chosen):
                return moved
            chosen = _disjoint(a, b, chosen, len(self.lock))
            larger = self.sizes[a[chosen]] >= self.sizes[b[chosen]]
            hub = np.where(larger, a[chosen], b[chosen])
            joins = np.where(larger, b[chosen], a[chosen])
            step = np.arange(len(self.lock))
            step[joins] = hub
            joins = np.concatenate([joins, self._more(a, b, margin, best, hub, joins, step)])
            self._join(joins, step)
            moved = step[moved]
            changed = np.zeros(len(self.lock), bool)
            changed[hub] = True
            a, b = step[a], step[b]
            stale = changed[a] | changed[b]
            fresh = self._scored(np.column_stack([a[stale], b[stale]]))
            a, b, margin = (
                np.concatenate([old[~stale], new])
                for old, new in zip((a, b, margin), fresh, strict=True)
            )

    def _more(
        self,
        a: Labels,
        b: Labels,
        margin: NDArray[np.float64],
        best: NDArray[np.float64],
        hub: Labels,
        joins: Labels,
        step: Labels,
    ) -> Labels:
        """What else a hub takes in this round, which `step` is told: else the famous take for ever.

        Those whose best is the hub, in order, as long as all that joins it stays within a tenth
        of its size: they hardly change each other's mean. They are free of locks and of conflicts
        among themselves, or wait for a later round.
        """
        room = np.zeros(len(step))
        room[hub] = self.sizes[hub] / 10 - self.sizes[joins]
        busy = np.zeros(len(step), bool)
        busy[hub] = busy[joins] = True
        ends = np.concatenate([np.column_stack([a, b]), np.column_stack([b, a])])
        margins = np.concatenate([margin, margin])
        one, other = ends.T  # one joins other
        fits = (margins >= 0) & (margins == best[one]) & ~busy[one] & (self.lock[one] == NONE)
        fits &= self.sizes[one] <= room[other]
        one, other, margins = one[fits], other[fits], margins[fits]
        order = np.lexsort((-margins, other))
        one, other = one[order], other[order]
        filled = np.cumsum(self.sizes[one])
        before = np.searchsorted(other, other)
        filled -= np.concatenate([[0], filled])[before]
        one, other = one[filled <= room[other]], other[filled <= room[other]]
        one, first = np.unique(one, return_index=True)
        step[one] = other[first]
        return self._without_conflict(one, step)

    def absorb(self, home: Labels, faces: Pairs, scores: NDArray[np.float32]) -> Labels:
        """Join what is left over to larger groups that it resembles; where each group went (g,).

        `home` (n,) is the group of each face; `scores` (m,) are those of the pairs in `faces`
        (m, 2), and pairs that are not named count as the floor. How much a face resembles a group
        is the mean of its `_BEST` best scores there. A group of up to `_REMNANT` faces joins where
        the mean of its faces reaches what single faces need.
        """
        floor = self.needs.grouped.threshold
        free = (self.sizes <= _REMNANT) & (self.lock == NONE)
        found = []
        for one, other in (faces.T, faces.T[::-1]):
            mine, group = home[one], home[other]
            left = free[mine] & (self.sizes[group] > self.sizes[mine])
            found.append((one[left], group[left], scores[left].astype(np.float64)))
        face, group, score = (np.concatenate(both) for both in zip(*found, strict=True))
        order = np.lexsort((-score, group, face))
        face, group, score = face[order], group[order], score[order]
        first = np.flatnonzero(np.diff(face, prepend=-1) | np.diff(group, prepend=-1))
        rank = np.arange(len(face)) - np.repeat(first, np.diff(first, append=len(face)))
        best = np.where(rank < _BEST, score - floor, 0)
        above = np.add.reduceat(best, first) if len(first) else best
        above /= np.minimum(_BEST, self.sizes[group[first]])
        one, other = home[face[first]], group[first]
        both, number = np.unique((one << 32) | other, return_inverse=True)
        one, other = both >> 32, both & 0xFFFFFFFF
        mean = floor + np.bincount(number, above, len(both)) / self.sizes[one]
        fits = (mean >= self.needs.alone.threshold) & ~np.isin(
            _keys(np.column_stack([one, other])), _keys(self.forbidden)
        )
        one, other, mean = one[fits], other[fits], mean[fits]
        order = np.lexsort((-mean, one))
        one, first = np.unique(one[order], return_index=True)
        other = other[order][first]
        settled = ~np.isin(other, one)  # who moves itself takes nobody in before it has arrived
        step = np.arange(len(self.lock))
        step[one[settled]] = other[settled]
        joins = self._without_conflict(one[settled], step)
        self._join(joins, step)
        return step

    def _without_conflict(self, joins: Labels, step: Labels) -> Labels:
        """Those that `step` does not bring together with what they are to be kept apart from.

        The others stay where they are, as `step` is told.
        """
        p, q = self.forbidden[step[self.forbidden[:, 0]] == step[self.forbidden[:, 1]]].T
        conflict = np.intersect1d(joins, np.concatenate([p, q]))
        step[conflict] = conflict
        return np.setdiff1d(joins, conflict)

    def _scored(self, pairs: Pairs) -> tuple[Labels, Labels, NDArray[np.float64]]:
        """Both ends, and by how much the mean exceeds what is needed, of pairs that may count."""
        pairs = _unique(pairs)
        a, b = pairs.T
        free = (self.lock[a] == NONE) | (self.lock[b] == NONE)
        free &= ~np.isin(_keys(pairs), _keys(self.forbidden))
        a, b = a[free], b[free]
        mean = _dots(self.sums, a, self.sums, b) / (self.sizes[a] * self.sizes[b])
        high = mean >= self.needs.grouped.threshold
        a, b, mean = a[high], b[high], mean[high]
        return a, b, mean - self.needs.needed(self.sizes[a], self.sizes[b])

    def _join(self, joins: Labels, step: Labels) -> None:
        """Move groups to where `step` says; `joins` are those that move."""
        np.add.at(self.sums, step[joins], self.sums[joins])
        np.add.at(self.sizes, step[joins], self.sizes[joins])
        np.maximum.at(self.lock, step[joins], self.lock[joins])
        self.forbidden = step[self.forbidden]


def _disjoint(a: Labels, b: Labels, chosen: Labels, groups: int) -> Labels:
    """Of the chosen pairs, those in which neither end occurs in an earlier one (ties of scores)."""
    first = np.full(groups, len(a))
    np.minimum.at(first, a[chosen], chosen)
    np.minimum.at(first, b[chosen], chosen)
    kept: Labels = chosen[(first[a[chosen]] == chosen) & (first[b[chosen]] == chosen)]
    return kept


def _keys(pairs: Pairs) -> NDArray[np.int64]:
    """One number for each pair, the same in either order."""
    keys: NDArray[np.int64] = (pairs.min(axis=1) << 32) | pairs.max(axis=1)
    return keys


def _unique(pairs: Pairs) -> Pairs:
    """Each pair of two different groups once, the smaller number first, in order."""
    keys = np.unique(_keys(pairs)) if len(pairs) else np.zeros(0, np.int64)
    both = np.column_stack([keys >> 32, keys & 0xFFFFFFFF])
    different: Pairs = both[both[:, 0] != both[:, 1]]
    return different


def _dots(
    x: NDArray[np.float32], rows: Labels, y: NDArray[np.float32], others: Labels
) -> NDArray[np.float64]:
    """The products of `rows` of x with `others` of y, one by one."""
    dots = np.empty(len(rows))
    for start in range(0, len(rows), _CHUNK):
        some = slice(start, start + _CHUNK)
        dots[some] = np.einsum("ij,ij->i", x[rows[some]], y[others[some]])
    return dots


def _numbered(home: Labels, numbers: Labels) -> Labels:
    """The number of each face's group: `home` (n,) is which one, `numbers` what some are called.

    The others are numbered by size and then by their first face; -1 for those of one face.
    """
    homes, first, index, sizes = np.unique(
        home, return_index=True, return_inverse=True, return_counts=True
    )
    number = np.where(homes == NONE, NONE, numbers[homes])
    new = np.flatnonzero((number == NONE) & (homes != NONE) & (sizes > 1))
    order = new[np.lexsort((first[new], -sizes[new]))]
    number[order] = np.arange(len(order)) + numbers.max(initial=NONE) + 1
    labels: Labels = number[index]
    return labels
