"""Test accuracy of a classifier of people, as systems count it that divide each person's pictures.

    mien data split crops/ -o lists/ --by picture --min-pictures 3
    mien data pack crops/ -o packed-train/ --only lists/train.csv
    mien data pack crops/ -o packed-test/ --only lists/test.csv
    mien train recipes/facenet-softmax.toml --set data.set=packed-train --set data.people= ...
    python benchmarks/closed_set.py facenet-softmax/ packed-test/

Reads the network and the linear layer that training drops afterwards from the checkpoint, and
counts how often the highest of all classes is the right one. Beside it stand what guessing would
give, what naming always the person with the most test pictures would, and the mean over people.

With `--pairs lists/pairsDevTest.csv --set lfw-112` also what the network is worth without that
layer: verification of those pairs in which nobody was learnt from, mirrored crops.
"""

import argparse
import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch

from mien import networks
from mien.training import augmentation, checkpoints
from mien.training.config import from_dict
from mien.training.dataset import read_pairs, select
from mien.training.loop import CHECKPOINT, autocast
from mien.training.preparation.pack import open_packed
from mien.training.validation import validate


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("run", type=Path, help="folder of a run with the objective softmax")
    parser.add_argument("test", type=Path, help="packed set of other pictures of the same people")
    parser.add_argument("--pairs", type=Path, help="pairs of anybody, by source")
    parser.add_argument("--set", type=Path, help="packed set that the pairs are in")
    chosen = parser.parse_args()
    torch.set_num_threads(1)
    tensors, facts = checkpoints.read(chosen.run / CHECKPOINT)
    recipe = from_dict(facts["recipe"])
    options = {"size": recipe.input.size, **recipe.network.options}
    network = networks.build(recipe.network.name, recipe.network.embedding_size, **options)
    checkpoints.scatter("network", network, tensors, chosen.run / CHECKPOINT)
    network.to(memory_format=torch.channels_last)
    learnt = open_packed(Path(recipe.data.set))
    examples = select(learnt, recipe.data, recipe.run.seed)
    number = {name: label for label, name in enumerate(examples.people)}
    test = open_packed(chosen.test)
    rows = np.array([n for n, row in enumerate(test.rows) if row.subject in number])
    truth = np.array([number[test.rows[n].subject] for n in rows])

    weight, bias = (tensors[f"objectives.0.linear.{name}"] for name in ("weight", "bias"))
    network.eval()
    right = np.zeros(len(rows), bool)
    precision = autocast(recipe.run.precision, torch.device("cpu"))
    with torch.inference_mode(), precision():
        for start in range(0, len(rows), 64):
            pixels = torch.from_numpy(test.pixels[rows[start : start + 64]])
            changes = augmentation.unchanged(recipe.input, len(pixels), mirror=False)
            faces = augmentation.apply(pixels, changes, recipe.input.size)
            vectors = network(faces.contiguous(memory_format=torch.channels_last)).float()
            guess = (vectors @ weight.T + bias).argmax(1).numpy()
            right[start : start + 64] = guess == truth[start : start + 64]
    share = np.bincount(truth, minlength=len(number))
    of_each = np.bincount(truth, right)[share > 0] / share[share > 0]
    row: dict[str, float] = {"people": len(number), "learnt from": len(examples.rows)}
    row |= {"tested on": len(rows), "cpu_seconds": round(facts["seconds"], 1)}
    row |= {"accuracy": right.mean(), "stderr": right.std() / len(rows) ** 0.5}
    row |= {"mean over people": of_each.mean(), "largest class": share.max() / len(rows)}
    row |= {"chance": 1 / len(number)}
    print(json.dumps({key: round(float(value), 4) for key, value in row.items()}), flush=True)
    if chosen.pairs:
        anybody = open_packed(chosen.set)
        pairs, used = read_pairs(chosen.pairs, anybody)
        known = np.array([anybody.rows[n].subject in number for n in used.tolist()])
        kept = ~(known[pairs.a] | known[pairs.b])
        columns = ("a", "b", "same", "person_a", "person_b")
        strangers = replace(pairs, **{name: getattr(pairs, name)[kept] for name in columns})
        found = {"genuine": int(strangers.same.sum()), "impostor": int((~strangers.same).sum())}
        found |= validate(network, recipe.input, anybody, strangers, used, precision)
        print(json.dumps(found))


if __name__ == "__main__":
    main()
