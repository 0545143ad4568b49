"""What a recipe names, opened and checked before the first step; and batches of it."""

import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from hashlib import sha256
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from mien.errors import InputError
from mien.evaluation.protocols import Ints, Pairs
from mien.training import parallel, teaching
from mien.training.config import Recipe
from mien.training.dataset import Examples, read_groups, read_pairs, select
from mien.training.preparation.pack import Packed, open_packed
from mien.training.preparation.sets import MANIFEST
from mien.types import Progress


@dataclass(frozen=True, eq=False)
class Material:
    """What is learnt from and measured on; it does not change."""

    packed: Packed
    examples: Examples
    groups: Ints | None
    targets: Tensor | None
    validation: tuple[Packed, Pairs, Ints] | None
    facts: dict[str, Any]


def prepare(recipe: Recipe, progress: Progress) -> Material:
    """Open what a recipe names and check that it fits together. Raises `InputError`."""
    packed = open_packed(Path(recipe.data.set))
    examples = select(packed, recipe.data, recipe.run.seed)
    groups = None
    if recipe.sampling.file:
        columns = {"pairs": ("file1", "file2"), "triplets": ("anchor", "positive", "negative")}
        named = read_groups(Path(recipe.sampling.file), packed, columns[recipe.sampling.kind])
        place = np.full(len(packed.rows), -1, np.int64)
        place[examples.rows] = np.arange(len(examples.rows))
        groups = place[named]
        if (groups < 0).any():
            stranger = packed.rows[int(named[groups < 0][0])].source
            raise InputError(
                f"{recipe.sampling.file} uses {stranger}, which the [data] of the recipe leaves out"
            )
    sizes = np.bincount(examples.labels)
    if sizes.max() == 1 and not any(term.name.startswith("distil") for term in recipe.objectives):
        raise InputError(
            f"each of the {len(sizes)} people of {recipe.data.set} has one picture: nothing shows "
            f"what stays the same in a person; add pictures, or distil from a teacher"
        )
    validation = None
    if recipe.validation.pairs:
        held = open_packed(Path(recipe.validation.set)) if recipe.validation.set else packed
        pairs, rows = read_pairs(Path(recipe.validation.pairs), held)
        seen = {held.rows[row].subject for row in rows.tolist()} & set(examples.people)
        if seen:
            raise InputError(
                f"{len(seen)} people of {recipe.validation.pairs} are also learnt from, "
                f"{min(seen)} for one: accuracy on them would mean nothing; leave them out with "
                f"data.exclude or data.people"
            )
        validation = (held, pairs, rows)
    facts: dict[str, Any] = {
        "pictures": len(examples.rows), "people": len(examples.people),
        "manifest_sha256": sha256((Path(recipe.data.set) / MANIFEST).read_bytes()).hexdigest(),
        "packed_with": packed.about.contract,
    }  # fmt: skip
    targets = None
    if recipe.teacher:
        vectors, contract = teaching.targets(
            recipe.teacher, packed, examples.rows, recipe.run.threads or 1, progress
        )
        targets, facts["teacher"] = torch.from_numpy(vectors), contract
    return Material(packed, examples, groups, targets, validation, facts)


def batches(
    material: Material, plan: Ints, team: parallel.Team
) -> Iterator[tuple[Ints, Tensor, float]]:
    """Batches with this process's pixels, read one ahead, and the seconds waited for each."""

    def read(rows: Ints) -> Tensor:
        mine = material.examples.rows[rows[team.part(len(rows))]]
        return torch.from_numpy(material.packed.pixels[mine])

    with ThreadPoolExecutor(1, thread_name_prefix="mien-data") as pool:
        ahead = pool.submit(read, plan[0])
        for number, rows in enumerate(plan):
            begun = time.perf_counter()
            pixels = ahead.result()
            idle = time.perf_counter() - begun
            if number + 1 < len(plan):
                ahead = pool.submit(read, plan[number + 1])
            yield rows, pixels, idle
