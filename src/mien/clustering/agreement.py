"""How well groups agree with the people that are really there."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from mien.clustering.groups import NONE, Labels
from mien.errors import InputError


@dataclass(frozen=True, slots=True)
class Rates:
    """Precision and recall, both in [0, 1]."""

    precision: float
    recall: float

    @property
    def f1(self) -> float:
        """Their harmonic mean."""
        both = self.precision + self.recall
        return 2 * self.precision * self.recall / both if both else 0.0


@dataclass(frozen=True, slots=True)
class Agreement:
    """How well groups agree with the people that are really there.

    `pairwise` counts pairs of faces, so that large groups count most; `bcubed` looks from each face
    at its own group, so that every face counts alike (Bagga and Baldwin, 1998). `purity` is the
    share of faces that belong to the commonest person of their group; `groups` counts all of them
    and `people` the true ones, single faces included.
    """

    pairwise: Rates
    bcubed: Rates
    purity: float
    groups: int
    people: int


def agreement(people: Sequence[str] | NDArray[np.str_], labels: Labels) -> Agreement:
    """Compare groups (n,) with the true people (n,). A face labelled -1 is a group of its own.

    Without any pair of faces to be right or wrong about, pairwise precision or recall is 1. Raises
    `InputError` when there are no faces.
    """
    count = len(labels)
    if not count or len(people) != count:
        raise InputError(f"{count} groups and {len(people)} people: give one of each for each face")
    _, person = np.unique(people, return_inverse=True)
    lone = labels == NONE
    _, group = np.unique(
        np.where(lone, labels.max() + 1 + np.arange(count), labels), return_inverse=True
    )
    cells, both = np.unique((person.astype(np.int64) << 32) | group, return_counts=True)
    of_person, of_group = np.bincount(person), np.bincount(group)
    p, g = cells >> 32, cells & 0xFFFFFFFF
    largest = np.zeros(len(of_group), np.int64)
    np.maximum.at(largest, g, both)
    together = _pairs_in(both)
    return Agreement(
        pairwise=Rates(
            together / _pairs_in(of_group) if _pairs_in(of_group) else 1.0,
            together / _pairs_in(of_person) if _pairs_in(of_person) else 1.0,
        ),
        bcubed=Rates(
            float((both * (both / of_group[g])).sum() / count),
            float((both * (both / of_person[p])).sum() / count),
        ),
        purity=float(largest.sum() / count),
        groups=len(of_group),
        people=len(of_person),
    )


def _pairs_in(sizes: NDArray[np.int64]) -> int:
    return int((sizes * (sizes - 1)).sum())
