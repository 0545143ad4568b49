"""What helps to tell strangers: the runner-up, a cohort, a crowd? Tuned on some, seen on others.

    python benchmarks/evaluation_decision.py --data LFW [--size 500]

Each rule turns a search into one number, on which the threshold is set: the best score itself,
the best less a share of the runner-up's (margin) or of the mean of the next 5 or 20 people's
(the gallery itself as cohort), the best less a share of the mean of the highest scores against a
cohort of other people (adaptive cohort normalisation) or against the means of groups of them (the
crowd, which is what mien does), and against as many vectors drawn from the normal distribution
that fits them. Shares are chosen on half of the people of peopleDevTrain, with the other half as
cohort, and measured on those of peopleDevTest with the same cohort. Also printed: the promise of
the thresholds with the crowd of the card and without it, and what gallery size would make the
rule FPIR = 1 - (1 - FMR)^N exact.
"""

import argparse
import dataclasses
from collections.abc import Callable
from pathlib import Path

import numpy as np

import mien
from mien import decision
from mien.evaluation import identification as searching
from mien.evaluation import lfw, protocols, vectors
from mien.evaluation.crowd import CENTRES, centres_of
from mien.evaluation.curves import Floats
from mien.evaluation.identification import Searches, Split
from mien.evaluation.protocols import People
from mien.evaluation.vectors import Vectors

FPIRS = (1e-2, 1e-1)
SHARES = (0.0, 0.1, 0.2, 0.3, 0.5, 0.7, 1.0)
TOP = 20  # of the cohort
GALLERIES = 20

Aside = dict[str, Floats]  # what each probe gives against each kind of stranger
Rule = Callable[[Searches, Aside], Floats]  # to what is compared with the threshold


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--size", type=int, default=500)
    parser.add_argument("--model", default="embedded")
    given = parser.parse_args()
    recognizer = mien.load(given.model)

    def embedded(group: People) -> tuple[People, Vectors]:
        cache = vectors.default_cache()
        return group, vectors.embed(recognizer, group.pictures, cache=cache)

    tuning, others = protocols.halves(lfw.album(given.data, "DevTrain"))
    cohort, made = embedded(others)
    first = np.unique(cohort.person, return_index=True)[1]
    rng = np.random.default_rng(0)
    faces = made.matrix[first]
    strangers = {
        "cohort": (faces, TOP),
        "crowd": (centres_of(faces, CENTRES, rng), decision.NEAREST),
        "drawn": (drawn_like(faces, rng), TOP),
    }
    parts = [searches(*embedded(group), strangers, given.size)
             for group in (tuning, lfw.album(given.data, "DevTest"))]  # fmt: skip
    for rate in FPIRS:
        print(f"FPIR {rate:g}, galleries of {given.size}: FNIR tuned | FNIR of other people")
        for name, rule in RULES.items():
            tuned = {share: fnir(parts[0], rule(share), rate) for share in SHARES}
            best = min(tuned, key=lambda share: tuned[share].mean())
            plain, changed = (fnir(parts[1], rule(share), rate) for share in (0.0, best))
            gain = plain - changed
            error = gain.std(ddof=1) / np.sqrt(gain.size)
            print(f"  {name:10} share {best:g}: {tuned[0.0].mean():.4f} -> {tuned[best].mean():.4f}"
                  f" | {plain.mean():.4f} -> {changed.mean():.4f} "
                  f"(lower by {gain.mean():.4f}, standard error {error:.4f})")  # fmt: skip
    group, made = embedded(lfw.album(given.data, "DevTest"))
    bare = dataclasses.replace(recognizer.bundle, crowd=None)
    for label, bundle in (("without a crowd", bare), ("with the crowd", recognizer.bundle)):
        print(f"{label}: gallery  FPIR asked  measured  FNIR  size that would be exact  exponent")
        sizes = (10, 50, 100, 200, 500, 1000)
        for promise in searching.check_promise(group, made, bundle, FPIRS, sizes):
            fmr = decision.fmr_for(promise.asked, promise.gallery_size)
            size = np.log1p(-promise.measured) / np.log1p(-fmr)
            exponent = np.log(size) / np.log(promise.gallery_size)
            missed = 0.0 if promise.fnir is None else promise.fnir
            row = f"{promise.gallery_size:7,}  {promise.asked:10g}  {promise.measured:8.4f}"
            print(f"{row}  {missed:6.3f}  {size:24.0f}  {exponent:8.3f}  {promise.verdict}")


def drawn_like(faces: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Unit vectors of nobody, as many as faces and distributed as a normal law says they are."""
    rows = rng.multivariate_normal(faces.mean(axis=0), np.cov(faces.T), len(faces))
    return (rows / np.linalg.norm(rows, axis=1, keepdims=True)).astype(np.float32)


def searches(
    group: People, made: Vectors, strangers: dict[str, tuple[np.ndarray, int]], size: int
) -> list[tuple[Searches, Aside]]:
    """Searches of random galleries, each with the probes' mean of the highest scores aside."""
    rng = np.random.default_rng(0)
    against = {
        kind: np.sort(made.matrix @ rows.T, axis=1)[:, -top:].mean(axis=1).astype(np.float64)
        for kind, (rows, top) in strangers.items()
    }
    result = []
    for _ in range(GALLERIES):
        split: Split = searching.split_by_people(group, size, rng)
        aside = {kind: scores[split.probes] for kind, scores in against.items()}
        result.append((searching.run(group, made, split), aside))
    return result


def margin(share: float) -> Rule:
    return lambda found, _: found.best - share * found.runners_up[:, 0]


def margin_to_five(share: float) -> Rule:
    return lambda found, _: found.best - share * found.runners_up[:, :5].mean(axis=1)


def margin_to_twenty(share: float) -> Rule:
    return lambda found, _: found.best - share * found.runners_up.mean(axis=1)


def normalised(kind: str) -> Callable[[float], Rule]:
    return lambda share: lambda found, aside: found.best - share * aside[kind]


RULES = {
    "margin": margin,
    "next five": margin_to_five,
    "next 20": margin_to_twenty,
    **{kind: normalised(kind) for kind in ("cohort", "crowd", "drawn")},
}


def fnir(parts: list[tuple[Searches, Aside]], rule: Rule, rate: float) -> Floats:
    """FNIR of each gallery at an FPIR measured on its own strangers."""
    values = []
    for found, aside in parts:
        number = rule(found, aside)
        own = np.where(found.rank == 1, number, -9.0)
        changed = dataclasses.replace(found, best=number, own=own)
        values.append(searching.fnir(changed, searching.threshold_for(changed, rate)))
    return np.array(values)


if __name__ == "__main__":
    main()
