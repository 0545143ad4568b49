"""Whether a network and an objective learn a few real pictures by heart, and how fast.

    python benchmarks/by_heart.py packed/ five-people.txt resnet18:64 triplet --rate 1e-4

Ten pictures of each person of the list, batches of 30 of them (ten triplets, 15 pairs), AdamW at a
constant rate after three steps. Prints the mean loss of every ten steps, and after each how many
of the pictures have one of their own person as the nearest; stops when all have.
"""

import argparse
import json
from pathlib import Path

import numpy as np
import torch

from mien.evaluation.protocols import Ints
from mien.training.config import parse
from mien.training.learner import build
from mien.training.loop import autocast, step
from mien.training.material import prepare
from mien.training.parallel import Team
from mien.training.validation import embed_rows

BATCH = 30


def batch(labels: Ints, objective: str, random: np.random.Generator) -> Ints:
    """Indices of the crops of one batch, as the objective wants them to stand."""
    if objective not in ("contrastive", "triplet"):
        return random.permutation(len(labels))[:BATCH]
    order: list[int] = []
    while len(order) < BATCH:
        anchor = int(random.integers(len(labels)))
        same, other = labels == labels[anchor], labels != labels[anchor]
        same[anchor] = False
        drawn = [int(random.choice(np.flatnonzero(kind))) for kind in (same, other)]
        if objective == "triplet":
            order += [anchor, *drawn]
        else:
            order += [anchor, drawn[len(order) // 2 % 2]]
    return np.array(order)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("set", type=Path, help="packed set")
    parser.add_argument("people", type=Path, help="list of people of it")
    parser.add_argument("network", help="NAME:PIXELS")
    parser.add_argument("objective")
    parser.add_argument("--rate", type=float, default=1e-3)
    parser.add_argument("--precision", default="auto")
    parser.add_argument("--steps", type=int, default=50)
    chosen = parser.parse_args()
    torch.set_num_threads(1)
    name, _, size = chosen.network.partition(":")
    text = f"""
data = {{ set = "{chosen.set}", people = "{chosen.people}", max_pictures = 10 }}
input = {{ size = {size} }}
network = {{ name = "{name}", embedding_size = 128 }}
sampling = {{ batch = {BATCH} }}
augmentation = {{ flip = false }}
objectives = [{{ name = "{chosen.objective}" }}]
optimiser = {{ name = "adamw", weight_decay = 0.01 }}
"""
    recipe = parse(text, "by heart")
    material = prepare(recipe, lambda items, total, unit: iter(items))
    learner, random = build(recipe, material, Team()), np.random.default_rng(0)
    labels, crops = material.examples.labels, material.examples.rows
    precision = autocast(chosen.precision, torch.device("cpu"))
    losses: list[float] = []
    while len(losses) < chosen.steps:
        rows = batch(labels, chosen.objective, random)
        pixels = torch.from_numpy(material.packed.pixels[crops[rows]])
        rate = chosen.rate * min(1.0, (len(losses) + 1) / 3)
        found = step(
            recipe, learner, learner.network, material, rows, pixels, rate, Team(), precision
        )
        losses.append(found["loss"])
        learner.step += 1
        if len(losses) % 10 == 0:
            vectors = embed_rows(
                learner.network, material.packed, crops, recipe.input, precision, (False,)
            )
            scores = vectors @ vectors.T
            np.fill_diagonal(scores, -2)
            known = float((labels[scores.argmax(1)] == labels).mean())
            row = {"step": len(losses), "loss": float(np.mean(losses[-10:])), "known": known}
            print(json.dumps({key: round(value, 3) for key, value in row.items()}), flush=True)
            if known == 1.0:
                break


if __name__ == "__main__":
    main()
