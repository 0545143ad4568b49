"""Apparent age from the shares that a network gives to years or to ranges of years."""

import re
from collections.abc import Mapping

import numpy as np

from mien.errors import ModelError
from mien.types import Age

OLDEST = 90.0
"""Where an open range such as "70+" is taken to end."""


def age(shares: Mapping[str, float]) -> Age:
    """The mean, and the 10th and 90th percentile, of a distribution over years of life.

    Each label stands for the years of its range, all equally likely: "20-29" is [20, 30). The mean
    of the distribution errs less than its largest label (Rothe et al., "Deep expectation of real
    and apparent age", 2018). Raises `ModelError` for labels that are no ages, lowest first.
    """
    spans = [_span(label) for label in shares]
    edges = np.array([spans[0][0], *(end for _, end in spans)])
    if not np.allclose(edges[:-1], [start for start, _ in spans]) or (np.diff(edges) <= 0).any():
        raise ModelError(f"labels of ages must follow one another, got {', '.join(shares)}")
    weights = np.array(list(shares.values()), np.float64)
    reached = np.concatenate([[0.0], weights.cumsum() / weights.sum()])
    low, high = np.interp((0.1, 0.9), reached, edges)
    years = float(weights @ (edges[:-1] + edges[1:]) / 2 / weights.sum())
    return Age(years, float(low), float(high))


def _span(label: str) -> tuple[float, float]:
    found = re.fullmatch(r"(\d+)(?:-(\d+)|(\+))?", label)
    if found is None:
        raise ModelError(f"{label!r} is no age: write 34, 20-29 or 70+")
    start = float(found[1])
    if found[3]:
        return start, max(OLDEST, start + 1)
    return start, float(found[2] or found[1]) + 1
