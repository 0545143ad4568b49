"""Every head on every recogniser, and the stack of them, side by side.

python benchmarks/heads.py celebrities --data ../shared/data
python benchmarks/heads.py lfw --data ../shared/data --least 3 [--seed 0]

`celebrities`: fitted on celebrities/train, asked about celebrities/validation. `lfw`: people with
at least so many pictures; those of each person are split 80/10/10 by the seed into train,
validation and test, at least one in each of the last two. Test pictures have no part in anything
but the last column. Embeddings are cached as by `mien evaluate`; seconds are for fitting alone.
"""

import argparse
import platform
import time
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

import mien
from mien.classification import Head, Model
from mien.classification.fitting import KINDS, fit
from mien.classification.report import calibration_error
from mien.detection import Choose
from mien.evaluation import vectors
from mien.evaluation.intervals import wilson
from mien.evaluation.protocols import People, read_people
from mien.evaluation.report import percent

Part = tuple[
    list[NDArray[np.float32]], list[str]
]  # a matrix for each model, and who is on each row


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("task", choices=["celebrities", "lfw"])
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--models", default="embedded,embedded-accurate")
    parser.add_argument("--heads", default=",".join([*KINDS, "stack"]))
    parser.add_argument("--least", type=int, default=3, help="pictures of each person of LFW")
    parser.add_argument("--seed", type=int, default=0)
    arguments = parser.parse_args()
    models = arguments.models.split(",")
    if arguments.task == "celebrities":
        train = _embed(read_people(arguments.data / "celebrities" / "train"), models, mien.largest)
        asked = {"validation": _embed(
            read_people(arguments.data / "celebrities" / "validation"), models, mien.largest
        )}  # fmt: skip
    else:
        people = read_people(arguments.data / "lfw" / "lfw-deepfunneled")
        train, asked = _split(people, models, arguments.least, arguments.seed)
    print(f"{platform.machine()}, Python {platform.python_version()}; {len(set(train[1]))} people, "
          f"{len(train[1])} pictures to fit on; "
          + ", ".join(f"{len(part[1])} {name}" for name, part in asked.items()))  # fmt: skip
    for name, use in _combinations(models):
        for kind in arguments.heads.split(","):
            start, cpu = time.perf_counter(), time.process_time()
            head = fit(
                [Model(models[i], models[i]) for i in use], [train[0][i] for i in use], train[1],
                kind=kind,
            )  # fmt: skip
            seconds, cpu = time.perf_counter() - start, time.process_time() - cpu
            words = [f"{name:<26} {kind:<9} held back {head.report.accuracy:.2%}"]
            words += [
                f"{title} {_measured(head, ([rows[i] for i in use], who))}"
                for title, (rows, who) in asked.items()
            ]
            print("  ".join([*words, f"{seconds:.1f} s ({cpu:.1f} CPU)"]), flush=True)


def _combinations(models: Sequence[str]) -> Iterator[tuple[str, list[int]]]:
    yield from ((model, [number]) for number, model in enumerate(models))
    if len(models) > 1:
        yield "+".join(models), list(range(len(models)))


def _measured(head: Head, part: Part) -> str:
    rows, who = part
    place = {label: number for number, label in enumerate(head.labels)}
    truth = np.array([place[name] for name in who])
    stated = head.probabilities(rows)
    right = stated.argmax(axis=1) == truth
    bits = float(-np.log2(np.maximum(stated[np.arange(len(truth)), truth], 1e-300)).mean())
    interval = wilson(float(right.sum()), len(truth))
    error = calibration_error(stated.max(axis=1), right)
    return f"{percent(float(right.mean()), interval)} ece {error:.3f} bits {bits:.3f}"


def _embed(people: People, models: Sequence[str], choose: Choose) -> Part:
    made = [
        vectors.embed(
            mien.load(model), people.pictures, choose=choose, cache=vectors.default_cache()
        )
        for model in models
    ]  # fmt: skip
    usable = np.logical_and.reduce([one.usable for one in made])
    print(f"{people.name}: {int((~usable).sum())} of {len(usable)} pictures without a face")
    who = [people.names[number] for number in people.person[usable]]
    return [one.matrix[usable] for one in made], who


def _split(
    people: People, models: Sequence[str], least: int, seed: int
) -> tuple[Part, dict[str, Part]]:
    rows, who = _embed(people, models, mien.central)
    names = np.array(who)
    rng = np.random.default_rng(seed)
    parts: dict[str, list[int]] = {"train": [], "validation": [], "test": []}
    for name, count in zip(*np.unique(names, return_counts=True), strict=True):
        if count < least:
            continue
        mine = rng.permutation(np.flatnonzero(names == name))
        tenth = max(1, round(count / 10))
        parts["test"] += mine[:tenth].tolist()
        parts["validation"] += mine[tenth : 2 * tenth].tolist()
        parts["train"] += mine[2 * tenth :].tolist()
    made = {
        part: ([matrix[chosen] for matrix in rows], names[chosen].tolist())
        for part, chosen in parts.items()
    }
    return made.pop("train"), made


if __name__ == "__main__":
    main()
