"""Which crops stand in which batch: planned for a whole epoch, from the seed and its number alone.

So a run that was killed finds its place by counting, and processes that share a batch agree on it
without a word.
"""

import numpy as np

from mien.errors import InputError
from mien.evaluation.protocols import Ints
from mien.training.config import Sampling
from mien.training.dataset import Examples


def plan(config: Sampling, examples: Examples, groups: Ints | None, seed: int, epoch: int) -> Ints:
    """The batches (steps, batch) of one epoch, as indices of `examples`.

    `groups` (n, 2 or 3) are the pairs or triplets. What does not fill the last batch is left out:
    another shuffle brings it next time. Raises `InputError` when there is not one batch.
    """
    random = np.random.default_rng((seed, 2, epoch))
    if config.kind == "people":
        flat = _by_people(examples, config.pictures, random)
    elif groups is not None:
        flat = groups[random.permutation(len(groups))].reshape(-1)
    else:
        flat = random.permutation(len(examples.rows))
    steps = len(flat) // config.batch
    if not steps:
        raise InputError(
            f"an epoch has {len(flat)} crops and does not fill one batch of {config.batch}: "
            f"make sampling.batch smaller"
        )
    batches: Ints = flat[: steps * config.batch].reshape(steps, config.batch)
    return batches


def _by_people(examples: Examples, pictures: int, random: np.random.Generator) -> Ints:
    """Passes over the people, in random order, with up to `pictures` crops that stand side by side:
    as many whole passes as there are crops for, and at least one."""
    order = np.argsort(examples.labels, kind="stable")
    counts = np.bincount(examples.labels)
    albums = np.split(order, np.cumsum(counts)[:-1])
    passes = max(1, len(order) // int(np.minimum(counts, pictures).sum()))
    drawn = [
        random.permutation(albums[person])[:pictures]
        for _ in range(passes)
        for person in random.permutation(len(albums))
    ]
    return np.concatenate(drawn).astype(np.int64)
