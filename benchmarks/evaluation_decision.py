"""Would the runner-up or a cohort help to tell strangers? Tuned on some people, measured on others.

    python benchmarks/evaluation_decision.py --data LFW [--size 500]

Each rule turns a search into one number, on which the threshold is set: the best score itself,
the best less a share of the runner-up's (margin) or of the mean of the next 5 or 20 people's
(the gallery itself as cohort), the best less a share of the mean of the highest scores against a
cohort of other people (adaptive cohort normalisation). Shares are chosen
on half of the people of peopleDevTrain, with the other half as cohort, and measured on those of
peopleDevTest with the same cohort. Also printed: what gallery size would make the rule FPIR =
1 - (1 - FMR)^N exact.
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
from mien.evaluation.curves import Floats
from mien.evaluation.identification import Searches, Split
from mien.evaluation.protocols import People
from mien.evaluation.vectors import Vectors

FPIRS = (1e-2, 1e-1)
SHARES = (0.0, 0.1, 0.2, 0.3, 0.5, 0.7, 1.0)
TOP = 20  # of the cohort
GALLERIES = 20

Rule = Callable[[Searches, Floats], Floats]  # a search and its cohort scores to what is compared


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
    reference = made.matrix[first]
    parts = [searches(*embedded(group), reference, given.size)
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
    print("gallery  FPIR asked  measured  size that would be exact  exponent")
    points = recognizer.bundle.operating_points
    for promise in searching.check_promise(
        group, made, points, FPIRS, (10, 50, 100, 200, 500, 1000)
    ):
        fmr = decision.fmr_for(promise.asked, promise.gallery_size)
        size = np.log1p(-promise.measured) / np.log1p(-fmr)
        exponent = np.log(size) / np.log(promise.gallery_size)
        row = f"{promise.gallery_size:7,}  {promise.asked:10g}  {promise.measured:8.4f}"
        print(f"{row}  {size:24.0f}  {exponent:8.3f}")


def searches(
    group: People, made: Vectors, reference: np.ndarray, size: int
) -> list[tuple[Searches, Floats]]:
    """Searches of random galleries, each with the probes' mean of the highest cohort scores."""
    rng = np.random.default_rng(0)
    against = np.sort(made.matrix @ reference.T, axis=1)[:, -TOP:].mean(axis=1).astype(np.float64)
    result = []
    for _ in range(GALLERIES):
        split: Split = searching.split_by_people(group, size, rng)
        result.append((searching.run(group, made, split), against[split.probes]))
    return result


def margin(share: float) -> Rule:
    return lambda found, _: found.best - share * found.runners_up[:, 0]


def margin_to_five(share: float) -> Rule:
    return lambda found, _: found.best - share * found.runners_up[:, :5].mean(axis=1)


def margin_to_twenty(share: float) -> Rule:
    return lambda found, _: found.best - share * found.runners_up.mean(axis=1)


def normalised(share: float) -> Rule:
    return lambda found, cohort: found.best - share * cohort


RULES = {
    "margin": margin,
    "next five": margin_to_five,
    "next 20": margin_to_twenty,
    "cohort": normalised,
}


def fnir(parts: list[tuple[Searches, Floats]], rule: Rule, rate: float) -> Floats:
    """FNIR of each gallery at an FPIR measured on its own strangers."""
    values = []
    for found, cohort in parts:
        number = rule(found, cohort)
        own = np.where(found.rank == 1, number, -9.0)
        changed = dataclasses.replace(found, best=number, own=own)
        values.append(searching.fnir(changed, searching.threshold_for(changed, rate)))
    return np.array(values)


if __name__ == "__main__":
    main()
