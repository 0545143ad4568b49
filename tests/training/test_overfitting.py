"""Every objective and every light network can learn a few pictures by heart, step by step.

The people are dealt out among the crops, so that nothing but learning by heart tells them apart.
What cannot do it is broken: a wrong sign, a wrong default, a gradient that does not arrive.
"""

import shutil
from dataclasses import replace
from itertools import product
from pathlib import Path

import numpy as np
import pytest
import torch

from mien.training.config import parse
from mien.training.learner import build
from mien.training.loop import autocast, planned, rate_at, step
from mien.training.material import prepare
from mien.training.parallel import Team
from mien.training.preparation.pack import open_packed
from mien.training.preparation.sets import Crop, cells, header, write_table
from mien.training.validation import embed_rows

STEPS = 40
SHUFFLED = (
    "softmax", "arcface", "cosface", "adaface", "triplet-semi-hard", "triplet-batch-hard",
    "supervised-contrastive",
)  # fmt: skip


@pytest.fixture(scope="session")
def dealt(packed_folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The packed set with another person on each crop than on the one before."""
    folder = tmp_path_factory.mktemp("dealt")
    shutil.copytree(packed_folder, folder, dirs_exist_ok=True)
    rows = [replace(row, subject=f"p{n % 4}") for n, row in enumerate(open_packed(folder).rows)]
    write_table(folder / "manifest.csv", header(Crop), [cells(row) for row in rows])
    return folder


def learnt(
    folder: Path, network: str, objective: str, sampling: str, rate: float = 1e-3
) -> tuple[float, float]:
    """The share of the 24 crops whose nearest other is of the same of the four people, by chance a
    quarter; and the last loss as a share of the first."""
    text = f"""
[data]
set = "{folder}"
[input]
size = 32
[network]
{network}
embedding_size = 16
[sampling]
{sampling}
[augmentation]
flip = false
[[objectives]]
name = "{objective}"
[optimiser]
name = "adamw"
rate = {rate}
[run]
threads = 1
"""
    recipe = parse(text, "overfit.toml")
    material = prepare(recipe, lambda items, total, unit: iter(items))
    learner = build(recipe, material, Team())
    precision, losses = autocast("auto", Team().device()), []
    for number in range(STEPS):
        (batch,) = planned(recipe, material, number)
        pixels = torch.from_numpy(material.packed.pixels[material.examples.rows[batch]])
        now = rate_at(recipe.optimiser, number, STEPS)
        found = step(
            recipe, learner, learner.network, material, batch, pixels, now, Team(), precision
        )
        losses.append(found["loss"])
    rows, labels = material.examples.rows, material.examples.labels
    vectors = embed_rows(learner.network, material.packed, rows, recipe.input, views=(False,))
    scores = vectors @ vectors.T
    np.fill_diagonal(scores, -2)
    right = (labels[scores.argmax(1)] == labels).mean()
    return float(right), losses[-1] / losses[0]


NETWORK = 'name = "iresnet18"\noptions = { channels = [8, 16, 32, 64] }'


@pytest.mark.parametrize("objective", SHUFFLED)
def test_every_objective_learns_by_heart(dealt: Path, objective: str) -> None:
    right, _ = learnt(dealt, NETWORK, objective, "batch = 24")
    assert right > 0.9


@pytest.mark.parametrize(("objective", "kind"), [("contrastive", "pairs"), ("triplet", "triplets")])
def test_listed_pairs_and_triplets_are_learnt_by_heart(
    dealt: Path, tmp_path: Path, objective: str, kind: str
) -> None:
    crops = [(row.source, row.subject) for row in open_packed(dealt).rows]
    if kind == "pairs":
        groups = [(a, b) for (a, p), (b, q) in product(crops, crops) if a < b]
        table = "file1,file2\n"
    else:
        groups = [(a, b, c) for (a, p), (b, q), (c, r) in product(crops, crops, crops)
                  if a != b and p == q and p != r]  # fmt: skip
        table = "anchor,positive,negative\n"
    chosen = np.random.default_rng(0).permutation(len(groups))[:24]
    file = tmp_path / "groups.csv"
    file.write_text(table + "".join(",".join(groups[n]) + "\n" for n in chosen))
    sampling = f'kind = "{kind}"\nfile = "{file}"\nbatch = {24 * len(groups[0])}'
    _, left = learnt(dealt, NETWORK, objective, sampling)
    assert left < 0.1


@pytest.mark.parametrize("name", ["resnet18", "mobilenet_v2", "mobilefacenet", "vit_tiny"])
def test_light_networks_learn_by_heart(dealt: Path, name: str) -> None:
    right, _ = learnt(dealt, f'name = "{name}"', "softmax", "batch = 24", rate=3e-4)
    assert right > 0.5
