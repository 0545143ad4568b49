"""The vectors of a teacher for the crops of a packed set: computed once, kept, and learnt from."""

from dataclasses import replace
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from mien.cards import contract_of
from mien.errors import InputError
from mien.evaluation.protocols import Ints, Picture
from mien.evaluation.vectors import default_cache, embed
from mien.recognition import Recognizer, load
from mien.training.config import Teacher
from mien.training.preparation.pack import Packed
from mien.types import Progress


def recogniser(config: Teacher, threads: int) -> Recognizer:
    """The teacher with the number of crops that the recipe asks for; vectors are thrown away, so
    that nobody measured this number together with the model does no harm."""
    found = load(config.model, threads=threads)
    bundle = found.bundle
    contract = contract_of(bundle.detector, bundle.embedder, config.views)
    return replace(found, bundle=replace(bundle, views=config.views, contract=contract))


def targets(
    config: Teacher, packed: Packed, rows: Ints, threads: int, progress: Progress
) -> tuple[NDArray[np.float32], str]:
    """The teacher's unit vectors (n, t) of the pictures that `rows` were cut from, its contract.

    The teacher detects and aligns for itself, in the original pictures below `config.pictures`:
    it sees what it would see in use. Vectors are kept in the cache of evaluations, by the content
    of the picture. Raises `InputError` when a picture is missing or the teacher finds no face.
    """
    teacher = recogniser(config, threads)
    root = Path(config.pictures)
    sources = [packed.rows[row].source for row in rows.tolist()]
    pictures = [Picture(source, root / source) for source in sources]
    vectors = embed(teacher, pictures, cache=default_cache(), progress=progress)
    if vectors.failures:
        row, reason = next(iter(vectors.failures.items()))
        raise InputError(
            f"the teacher cannot use {len(vectors.failures)} of {len(rows)} pictures; leave them "
            f"out of the packed set. The first: {pictures[row].name}: {reason}"
        )
    return vectors.matrix, vectors.contract
