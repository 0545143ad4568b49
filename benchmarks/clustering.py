"""Groups of mien against DBSCAN and Chinese whispers on the same embeddings; very many faces.

python benchmarks/clustering.py --data ../shared/data [--cache DIR] [--scale 200000]

DBSCAN is scikit-learn's, as face applications use it. Its radius and the threshold of Chinese
whispers (Biemann, 2006; the version in dlib, with weights) are the best of a grid on the very data
they are scored on, which no user could know; mien's thresholds follow from the album. Its settings
were chosen on the people of LFW's DevTrain and on celebrities/train. `--scale` makes faces from the
covariances between and within people of LFW, so that strangers and the same person score as they do
there.
"""

import argparse
import platform
import resource
import statistics
import time
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from faces import Faces, embed_people
from numpy.typing import NDArray

import mien
from mien.clustering import (
    MIN_QUALITY,
    NONE,
    Agreement,
    Labels,
    agreement,
    cluster,
    linkage,
    same_picture,
)
from mien.embedding import normalize

if TYPE_CHECKING:
    from scipy.sparse import csr_array

ROUNDS = 3


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--data", type=Path, required=True, help="folder with lfw/, celebrities/")
    parser.add_argument("--cache", type=Path, default=Path("benchmarks-cache"))
    parser.add_argument("--model", default="embedded")
    parser.add_argument("--scale", type=int, default=0, metavar="FACES")
    arguments = parser.parse_args()
    print(f"{platform.machine()}, Python {platform.python_version()}, {arguments.model}")
    lfw = embed_people(
        arguments.data / "lfw" / "lfw-deepfunneled", arguments.cache, arguments.model, mien.central
    )
    if arguments.scale:
        _scale(lfw, arguments.scale, arguments.model)
        return
    listed = (arguments.data / "lfw" / "peopleDevTest.txt").read_text().splitlines()[1:]
    held_out = np.isin(lfw.people, [line.split("\t")[0] for line in listed])
    _compare("LFW, all people", lfw, arguments.model)
    _compare("LFW, people of peopleDevTest", _only(lfw, held_out), arguments.model)
    for part in ("train", "validation"):
        folder = arguments.data / "celebrities" / part
        faces = embed_people(folder, arguments.cache, arguments.model, mien.largest)
        _compare(f"celebrities/{part}", faces, arguments.model)


def _only(faces: Faces, rows: NDArray[np.bool_]) -> Faces:
    return Faces(
        faces.people[rows], faces.pictures[rows], faces.vectors[rows], faces.quality[rows],
        faces.alone[rows], faces.missed,
    )  # fmt: skip


def _compare(title: str, faces: Faces, model: str) -> None:
    from sklearn.cluster import DBSCAN

    print(f"\n{title}: {len(faces.people)} faces, {faces.missed} pictures without a face")
    points, contract = mien.load(model).bundle.operating_points, mien.load(model).contract
    usable = faces.quality >= MIN_QUALITY
    vectors = faces.vectors

    def ours() -> Labels:
        return cluster(vectors, linkage(points, vectors, contract), usable=usable)

    def theirs(cosine: float, support: int) -> Callable[[], Labels]:
        scan = DBSCAN(eps=np.sqrt(2 - 2 * cosine), min_samples=support)
        return lambda: scan.fit_predict(vectors)

    def whispering(cosine: float) -> Callable[[], Labels]:
        return lambda: _whispers(_graph(vectors, cosine))

    graph = _graph(vectors, 0.92)  # searching the grids on it gives the same groups, sooner
    far = graph.copy()
    far.data = np.maximum(1 - far.data, 1e-9)  # two of one picture may come to -1e-7
    scans = [
        (agreement(faces.people, DBSCAN(eps=1 - c, min_samples=s, metric="precomputed")
                   .fit_predict(far)), (c, s))
        for c in np.arange(0.935, 0.9701, 0.0025) for s in (1, 2, 3)
    ]  # fmt: skip
    whispers = [
        (agreement(faces.people, _whispers(graph, c)), c) for c in np.arange(0.925, 0.9601, 0.005)
    ]
    contenders: dict[str, Callable[[], Labels]] = {"mien": ours}
    for measure in ("bcubed", "pairwise"):
        best = max(scans, key=lambda row: getattr(row[0], measure).f1)[1]
        contenders[f"DBSCAN, best {measure} (cosine {best[0]:.4f}, {best[1]})"] = theirs(*best)
        cosine = max(whispers, key=lambda row: getattr(row[0], measure).f1)[1]
        contenders[f"whispers, best {measure} (cosine {cosine:.3f})"] = whispering(cosine)
    seconds: dict[str, list[float]] = {name: [] for name in contenders}
    labels = {}
    for _ in range(ROUNDS):
        for name, run in contenders.items():
            start = time.perf_counter()
            labels[name] = run()
            seconds[name].append(time.perf_counter() - start)
    for name, times in seconds.items():
        _print(name, agreement(faces.people, labels[name]), times)


def _graph(vectors: NDArray[np.float32], cosine: float) -> "csr_array":
    """The scores of all pairs that reach a cosine, as a sparse matrix."""
    from scipy.sparse import coo_array

    pairs, weights = [], []
    for top in range(0, len(vectors), 1024):
        scores = vectors[top : top + 1024] @ vectors.T
        row, column = np.nonzero(scores >= cosine)
        other = row + top != column
        pairs.append(np.column_stack([row[other] + top, column[other]]))
        weights.append(scores[row[other], column[other]])
    ends = np.concatenate(pairs).T
    size = (len(vectors), len(vectors))
    return coo_array((np.concatenate(weights), (ends[0], ends[1])), shape=size).tocsr()


def _whispers(graph: "csr_array", cosine: float = -1.0, rounds: int = 20) -> Labels:
    """Chinese whispers: in random order, each face takes the label with the most weight around."""
    weights = np.where(graph.data >= cosine, graph.data, 0)
    faces = graph.shape[0]
    labels, rng = np.arange(faces), np.random.default_rng(0)
    for _ in range(rounds):
        changed = 0
        for face in rng.permutation(faces):
            near = slice(graph.indptr[face], graph.indptr[face + 1])
            weight = weights[near]
            if not weight.any():
                continue
            found, place = np.unique(labels[graph.indices[near]], return_inverse=True)
            best = found[np.bincount(place, weight).argmax()]
            changed += best != labels[face]
            labels[face] = best
        if not changed:
            break
    return labels


def _print(name: str, found: Agreement, times: list[float]) -> None:
    b, p = found.bcubed, found.pairwise
    print(f"  {name:<44} BCubed {b.f1:.4f} ({b.precision:.4f} {b.recall:.4f})  "
          f"pairwise {p.f1:.4f} ({p.precision:.4f} {p.recall:.4f})  purity {found.purity:.4f}  "
          f"{found.groups} groups of {found.people}  "
          f"{statistics.median(times):.2f} s ({min(times):.2f} to {max(times):.2f})")  # fmt: skip


def _scale(lfw: Faces, count: int, model: str) -> None:
    """Time, memory and agreement for faces made up in the likeness of LFW's, two to a picture."""
    generator = np.random.default_rng(7)
    _, person, sizes = np.unique(lfw.people, return_inverse=True, return_counts=True)
    means = np.zeros((len(sizes), lfw.vectors.shape[1]))
    np.add.at(means, person, lfw.vectors)
    means /= sizes[:, None]
    middle = lfw.vectors.mean(axis=0)
    several = sizes[person] >= 4
    within = np.cov((lfw.vectors - means[person])[several].T) * 4 / 3
    root = np.linalg.cholesky(within + 1e-9 * np.eye(len(within)))
    people = np.repeat(np.arange(count), np.minimum(generator.zipf(1.7, count), 5000))[:count]
    # A made-up person lies between two real ones; some pictures stray further than others. The
    # three constants were chosen so that strangers score as in LFW (printed below).
    a, b = generator.integers(0, len(means), (2, people.max() + 1))
    centres = (0.65 * means[a] + 0.35 * means[b] - middle) / np.hypot(0.65, 0.35) * 0.85
    vectors = np.empty((count, len(root)), np.float32)
    for start in range(0, count, 10_000):
        who = people[start : start + 10_000]
        stray = np.exp(0.3 * generator.standard_normal((len(who), 1)) - 0.25)
        noise = stray * (generator.standard_normal((len(who), len(root))) @ root.T)
        made = (middle + centres[who] + noise).astype(np.float32)
        vectors[start : start + 10_000] = normalize(made)
    order = generator.permutation(count)
    people, vectors = people[order], vectors[order]
    pictures = np.arange(count) // 2
    apart = same_picture([str(picture) for picture in pictures])
    apart = apart[people[apart[:, 0]] != people[apart[:, 1]]]
    _print_rates(vectors[:10_000], people[:10_000], model)
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    recognizer = mien.load(model)
    start, cpu = time.perf_counter(), time.process_time()
    needs = linkage(recognizer.bundle.operating_points, vectors, recognizer.contract)
    labels = cluster(vectors, needs, apart=apart)
    wall, cpu = time.perf_counter() - start, time.process_time() - cpu
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    one, other = apart[labels[apart[:, 0]] != NONE].T
    print(f"\n{count} faces of {people.max() + 1} people, the most pictured with "
          f"{np.bincount(people).max()}: {wall:.0f} s wall, {cpu:.0f} s CPU, peak "
          f"{peak / 1e6:.2f} GB (before: {before / 1e6:.2f})")  # fmt: skip
    print(f"pairs kept apart: {len(apart)}, violated: {(labels[one] == labels[other]).sum()}")
    _print("mien", agreement(people.astype(np.str_), labels), [wall])


def _print_rates(vectors: NDArray[np.float32], people: NDArray[np.int64], model: str) -> None:
    scores = vectors @ vectors.T
    same = people[:, None] == people
    for point in mien.load(model).bundle.operating_points[::3]:
        high = scores >= point.threshold
        print(f"at {point.threshold:.4f} strangers match {high[~same].mean():.1e} ({point.fmr:g} "
              f"in LFW), the same do not {1 - high[same].mean():.3f} ({point.fnmr:g})")  # fmt: skip


if __name__ == "__main__":
    main()
