"""Pairs and triplets of pictures, drawn once and written down, so that every run uses the same."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from mien.errors import InputError
from mien.evaluation.protocols import Ints, Pairs, People, draw_pairs, people
from mien.evaluation.vectors import Vectors
from mien.training.preparation.sets import Listed, write_table
from mien.training.preparation.split import by_subject, split

Triplets = NDArray[np.int64]  # (n, 3): anchor, positive, negative, as rows of the pictures

PAIRS = ("file1", "file2", "same", "person1", "person2")
TRIPLETS = ("anchor", "positive", "negative")


def group_of(name: str, pictures: Sequence[Listed]) -> People:
    """Pictures as people, in the order of `pictures` grouped by subject. Raises `InputError`."""
    albums = by_subject(pictures)
    if len(albums) < 2:
        raise InputError(f"{name} has pictures of one person only; strangers are needed too")
    return people(name, {subject: [p.path for p in album] for subject, album in albums.items()})


def ordered(pictures: Sequence[Listed]) -> list[Listed]:
    """Pictures in the order of `group_of`."""
    return [picture for album in by_subject(pictures).values() for picture in album]


def draw(
    name: str, pictures: Sequence[Listed], count: int, *, folds: int = 0, seed: int = 0
) -> list[tuple[Pairs, list[Listed]]]:
    """Up to `count` genuine and as many impostor pairs; with `folds`, as many sets of pairs.

    Nobody is in two folds, as in View 2 of LFW, so what is fitted on some is tested on others.
    Each comes with the pictures that its numbers mean. Raises `InputError` where there are too few
    people.
    """
    if folds < 2:
        return [(draw_pairs(group_of(name, pictures), count, seed), ordered(pictures))]
    shares = {str(fold): 1.0 for fold in range(folds)}
    parts = split(by_subject(pictures), shares, seed=seed)
    return [
        (draw_pairs(group_of(f"fold {fold} of {name}", part), count // folds, seed), ordered(part))
        for fold, part in parts.items()
    ]


def write_pairs(path: Path, drawn: Sequence[tuple[Pairs, list[Listed]]]) -> int:
    """Write pairs as `file1, file2, same, person1, person2`, and `fold` where there are several.

    `mien evaluate pairs FILE --root FOLDER` reads it. Returns how many pairs there are.
    """
    rows = []
    for fold, (pairs, pictures) in enumerate(drawn):
        for a, b, same in zip(pairs.a.tolist(), pairs.b.tolist(), pairs.same.tolist(), strict=True):
            one, other = pictures[a], pictures[b]
            row = [one.source, other.source, str(int(same)), one.subject, other.subject]
            rows.append([*row, str(fold)] if len(drawn) > 1 else row)
    write_table(path, (*PAIRS, "fold") if len(drawn) > 1 else PAIRS, rows)
    return len(rows)


def draw_triplets(
    group: People, count: int, *, seed: int = 0, vectors: Vectors | None = None
) -> Triplets:
    """Up to `count` triplets of an anchor, another picture of that person, and one of another.

    First people are drawn, then their pictures. Without `vectors` the negative is anyone's. With
    them it is the most alike of those that are less like the anchor than the positive is
    ("semi-hard": Schroff et al., FaceNet, 2015, section 3.2); where every stranger is more alike,
    the least alike of them. Pictures without an embedding are left out then. No triplet is drawn
    twice. Raises `InputError` when nobody has two pictures, or there is one person only.
    """
    usable = np.ones(group.person.size, bool) if vectors is None else vectors.usable
    rows = np.flatnonzero(usable)
    person = group.person[rows]
    sizes = np.bincount(person, minlength=len(group.names))
    several = np.flatnonzero(sizes > 1)
    if not several.size or np.count_nonzero(sizes) < 2:
        raise InputError(f"{group.name}: triplets need two pictures of one person and a stranger")
    order = np.argsort(person, kind="stable")
    starts = np.concatenate([[0], np.cumsum(sizes)[:-1]])
    random = np.random.default_rng(seed)
    sides = sizes[several] * (sizes[several] - 1)
    choices = 1 if vectors is not None else len(rows) - sizes[several]
    wanted = min(count, int((sides * choices).sum()))
    found = np.zeros((0, 3), np.int64)
    while len(found) < wanted:
        drawn = random.choice(several, 2 * wanted)
        first = random.integers(0, sizes[drawn])
        second = (first + random.integers(1, sizes[drawn])) % sizes[drawn]
        anchor, positive = order[starts[drawn] + first], order[starts[drawn] + second]
        if vectors is None:
            shift = random.integers(0, len(rows) - sizes[drawn])
            negative = order[np.where(shift < starts[drawn], shift, shift + sizes[drawn])]
        else:
            negative = _semi_hard(vectors.matrix[rows], person, anchor, positive)
        merged = np.concatenate([found, np.stack([anchor, positive, negative], axis=1)])
        once = np.sort(np.unique(merged, axis=0, return_index=True)[1])  # in the order drawn
        found = merged[once]
    return rows[found[:wanted]]


def write_triplets(path: Path, triplets: Triplets, pictures: Sequence[Listed]) -> int:
    """Write triplets as `anchor, positive, negative`; returns how many there are."""
    rows = [[pictures[row].source for row in triplet] for triplet in triplets.tolist()]
    write_table(path, TRIPLETS, rows)
    return len(rows)


_CHUNK = 512  # anchors compared with everyone at once


def _semi_hard(matrix: NDArray[np.float32], person: Ints, anchor: Ints, positive: Ints) -> Ints:
    """The stranger for each anchor and positive, as `draw_triplets` says."""
    found = np.zeros(len(anchor), np.int64)
    for start in range(0, len(anchor), _CHUNK):
        a, p = anchor[start : start + _CHUNK], positive[start : start + _CHUNK]
        scores = matrix[a] @ matrix.T
        needed = np.einsum("ij,ij->i", matrix[a], matrix[p])[:, None]
        strangers = person[a][:, None] != person[None]
        below = np.where(strangers & (scores < needed), scores, -np.inf)
        above = np.where(strangers & (scores >= needed), scores, np.inf)
        semi = np.isfinite(below).any(axis=1)
        found[start : start + _CHUNK] = np.where(semi, below.argmax(axis=1), above.argmin(axis=1))
    return found
