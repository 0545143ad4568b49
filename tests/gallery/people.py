"""Vectors for tests: people in clusters around a few directions, as real embeddings are."""

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from mien.gallery import Entry
from mien.types import Embedding

CONTRACT = "test-contract"


def vectors(
    count: int, dimensions: int = 64, per_person: int = 4, seed: int = 0, squeeze: float = 0.0
) -> NDArray[np.float32]:
    """Unit vectors (count, dimensions), `per_person` in a row of each person.

    `squeeze` is about the cosine of strangers: 0.83 for the embedded default.
    """
    random = np.random.default_rng(seed)
    people = random.standard_normal((-(-count // per_person), dimensions))
    each = np.repeat(people, per_person, axis=0)[:count]
    each = each * 0.8 + 0.6 * random.standard_normal(each.shape)
    each /= np.linalg.norm(each, axis=1, keepdims=True)
    common = random.standard_normal(dimensions)
    common /= np.linalg.norm(common)
    found = np.sqrt(1 - squeeze) * each + np.sqrt(squeeze) * common
    return (found / np.linalg.norm(found, axis=1, keepdims=True)).astype(np.float32)


def entries(
    rows: NDArray[np.float32], per_person: int = 4, first: int = 0, contract: str = CONTRACT
) -> list[Entry]:
    return [
        Entry(f"person {first + i // per_person}", Embedding(row, contract), f"{i}.jpg", 0.5)
        for i, row in enumerate(rows)
    ]


def entry(subject: str, row: Sequence[float] | NDArray[np.float32], **more: object) -> Entry:
    vector = np.asarray(row, np.float32)
    vector = vector / np.linalg.norm(vector)
    return Entry(subject, Embedding(vector, CONTRACT), f"{subject}.jpg", 0.5, **more)
