"""Identification with 1, 2, 4 and 8 pictures a person: one fused template against best-of.

python benchmarks/templates.py --data ../shared/data [--cache DIR] [--people DevTest] [--wrong 1]

Known are the people with at least ten pictures: eight to enrol from, up to ten others as probes.
Strangers are everybody else, one picture each. FNIR is the share of probes that do not get their
own name, at the threshold that 1% of the strangers reach: the same for every way, so ways compare.
People weigh alike; intervals come from drawing people anew. With `--wrong 1`, one of four or eight
pictures shows somebody else (who is not among the strangers asked about). "Shipped" is what
`mien identify --fpir 1e-2` does with these templates: who is named, and which strangers are.
"""

import argparse
from collections.abc import Callable
from pathlib import Path

import numpy as np
from faces import Faces, embed_people
from numpy.typing import NDArray

import mien
from mien.decision import identification_point
from mien.embedding import mean_direction
from mien.types import Embedding

Way = Callable[[NDArray[np.float32], NDArray[np.float32]], NDArray[np.float32]]


def _fused(vectors: NDArray[np.float32], weights: list[float] | None = None) -> NDArray[np.float32]:
    return mien.fuse([Embedding(vector, "") for vector in vectors], weights).vector[None]


WAYS: dict[str, Way] = {
    "best of the pictures": lambda vectors, _: vectors,
    "plain mean": lambda vectors, _: mean_direction(vectors)[None],
    "mien.fuse": lambda vectors, _: _fused(vectors),
    "mien.fuse, by quality": lambda vectors, quality: _fused(vectors, quality.tolist()),
    "mien.fuse and the pictures": lambda vectors, _: np.concatenate([_fused(vectors), vectors]),
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--cache", type=Path, default=Path("benchmarks-cache"))
    parser.add_argument("--model", default="embedded")
    parser.add_argument("--people", default="DevTest", choices=["DevTrain", "DevTest"])
    parser.add_argument("--wrong", type=int, default=0)
    parser.add_argument("--seeds", type=int, default=10)
    asked = parser.parse_args()
    lfw = embed_people(
        asked.data / "lfw" / "lfw-deepfunneled", asked.cache, asked.model, mien.central
    )
    listed = (asked.data / "lfw" / f"people{asked.people}.txt").read_text().splitlines()[1:]
    names = [line.split("\t")[0] for line in listed]
    points = mien.load(asked.model).bundle.operating_points
    for pictures in (1, 2, 4, 8):
        wrong = asked.wrong if pictures >= 4 else 0
        rounds = [_round(lfw, names, pictures, wrong, seed, points) for seed in range(asked.seeds)]
        missed, lost, shipped = np.mean([one[0] for one in rounds], axis=0)  # (ways, people) each
        strangers = np.mean([one[1] for one in rounds], axis=0)  # (ways,)
        if pictures == 1:
            print(f"{missed.shape[1]} people of {asked.people}, {asked.seeds} seeds, {asked.model}")
        draws = np.random.default_rng(0).integers(0, missed.shape[1], (2000, missed.shape[1]))
        base = missed[list(WAYS).index("plain mean")]
        for number, name in enumerate(WAYS):
            low, high = np.percentile(missed[number][draws].mean(axis=1), [2.5, 97.5])
            d_low, d_high = np.percentile((missed[number] - base)[draws].mean(axis=1), [2.5, 97.5])
            print(
                f"{pictures} pictures{', one wrong' if wrong else '':<12} {name:<27} "
                f"FNIR {missed[number].mean():.2%} ({low:.2%} .. {high:.2%})  "
                f"against plain mean {(missed[number] - base).mean():+.2%} "
                f"({d_low:+.2%} .. {d_high:+.2%})  rank 1 missed {lost[number].mean():.2%}  "
                f"shipped: named {shipped[number].mean():.1%}, strangers {strangers[number]:.2%}",
                flush=True,
            )


def _round(
    lfw: Faces, names: list[str], pictures: int, wrong: int, seed: int,
    points: tuple[mien.OperatingPoint, ...],
) -> tuple[NDArray[np.float64], list[float]]:  # fmt: skip
    """For every way and person, the shares of probes not named, not first, and named at the shipped
    threshold: (3, ways, people); and the share of strangers named there, for every way."""
    rng = np.random.default_rng(seed)
    people, count = np.unique(lfw.people[np.isin(lfw.people, names)], return_counts=True)
    rows = {name: rng.permutation(np.flatnonzero(lfw.people == name)) for name in people}
    known = [rows[name] for name in people[count >= 10]]
    strangers = np.array([rows[name][0] for name in people[count < 10]])
    strangers, mixed_in = np.split(rng.permutation(strangers), [len(strangers) * 4 // 5])
    enrolled = [mine[:pictures].copy() for mine in known]
    for number in range(wrong and len(enrolled)):
        enrolled[number][:wrong] = rng.choice(mixed_in, wrong)
    probes = np.concatenate([mine[8:18] for mine in known])
    who = np.repeat(np.arange(len(known)), [len(mine[8:18]) for mine in known])
    each = np.bincount(who)
    missed, lost, shipped, wrongly = [], [], [], []
    for way in WAYS.values():
        templates = [way(lfw.vectors[mine], lfw.quality[mine]) for mine in enrolled]
        starts = np.cumsum([0, *(len(one) for one in templates[:-1])])
        stacked = np.concatenate(templates).T
        scores = np.maximum.reduceat(lfw.vectors[probes] @ stacked, starts, axis=1)
        best = (lfw.vectors[strangers] @ stacked).max(axis=1)
        first = scores.argmax(axis=1) == who
        named = first & (scores.max(axis=1) > np.quantile(best, 0.99))
        missed.append(1 - np.bincount(who, named) / each)
        lost.append(1 - np.bincount(who, first) / each)
        point = identification_point(points, 0.01, stacked.shape[1], "")
        reached = first & (scores.max(axis=1) >= point.threshold)
        shipped.append(np.bincount(who, reached) / each)
        wrongly.append(float((best >= point.threshold).mean()))
    return np.array([missed, lost, shipped]), wrongly


if __name__ == "__main__":
    main()
