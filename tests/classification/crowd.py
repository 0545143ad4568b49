"""People made of vectors, for heads: each a direction, each picture a step away from it."""

from dataclasses import dataclass

import numpy as np

from mien.classification import Model
from mien.embedding import normalize

MODELS = (Model("one", "one@1"), Model("two", "two@1"))


@dataclass(frozen=True, eq=False)
class Crowd:
    """Pictures of people as two models see them, and the same people's other pictures."""

    names: list[str]
    vectors: list[np.ndarray]
    fresh_names: list[str]
    fresh: list[np.ndarray]
    strangers: list[np.ndarray]


def crowd(
    people: int, pictures: int, dims: tuple[int, ...] = (16, 12), spread: float = 1.0, seed: int = 0
) -> Crowd:
    """`spread` is how far pictures lie from their person, where people lie 1 from the middle."""
    random = np.random.default_rng(seed)

    def see(centres: np.ndarray, who: np.ndarray) -> np.ndarray:
        step = random.standard_normal((len(who), centres.shape[1])) / np.sqrt(centres.shape[1])
        return normalize((centres[who] + spread * step + 1).astype(np.float32))

    who, others = (
        np.repeat(np.arange(people), pictures),
        np.repeat(np.arange(people, 2 * people), 5),
    )
    fresh = np.repeat(np.arange(people), 5)
    views = []
    for dim in dims:
        centres = random.standard_normal((2 * people, dim))
        centres /= np.linalg.norm(centres, axis=1, keepdims=True)
        views.append([see(centres, group) for group in (who, fresh, others)])
    name = np.array([f"person {number:02d}" for number in range(2 * people)])
    return Crowd(
        name[who].tolist(), [view[0] for view in views],
        name[fresh].tolist(), [view[1] for view in views], [view[2] for view in views],
    )  # fmt: skip
