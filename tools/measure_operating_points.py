"""Measure the thresholds of a bundle on LFW and write them into its card.

    python tools/measure_operating_points.py --data DIR embedded

DIR is LFW with its protocol files. Thresholds are chosen on the people of View 1 (peopleDevTrain):
every pair of pictures of different people counts as an impostor comparison, weighted so that each
pair of *people* counts once; otherwise the 530 pictures of one president would be most of the
evidence. They are then checked on people they were not chosen on (peopleDevTest) and on the pairs
of View 2. Rates that rest on fewer than 30 wrong pairs are not written (Doddington's rule of 30).
"""

import argparse
import re
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

import mien
from mien import cards
from mien.recognition import Recognizer, ordered_map
from mien.types import Embedding

RATES = (1e-1, 5e-2, 2e-2, 1e-2, 5e-3, 2e-3, 1e-3, 5e-4, 2e-4, 1e-4, 5e-5, 2e-5, 1e-5, 5e-6)
BINS = 200_000  # of a score from 0 to 1: finer than the fifth decimal
CARDS = Path(cards.__file__).parent / "bundles"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--data", type=Path, required=True, help="folder of LFW")
    parser.add_argument("bundle", nargs="+")
    arguments = parser.parse_args()
    for name in arguments.bundle:
        _measure(arguments.data, name)


def _measure(data: Path, name: str) -> None:
    recognizer = mien.load(name)
    pictures = {p: sorted((data / "lfw-deepfunneled" / p).glob("*.jpg")) for p in _people(data)}
    vectors = _embed(recognizer, [path for paths in pictures.values() for path in paths])
    train = {person: pictures[person] for person in _list(data / "peopleDevTrain.txt")}
    test = {person: pictures[person] for person in _list(data / "peopleDevTest.txt")}
    fmr, fnmr = _rates(train, vectors)
    fmr_test, fnmr_test = _rates(test, vectors)
    impostors = _impostor_scores(data / "pairs.txt", data, vectors)
    supported = 30 / (len(train) * (len(train) - 1) / 2)
    print(f"{name}: {len(train)} people, rates down to {supported:.1e}")
    print("     FMR  threshold     FNMR | other people: FMR      FNMR | View 2 FMR (95% interval)")
    rows = []
    for rate in (r for r in RATES if r >= supported):
        index = int(np.argmax(fmr <= rate))
        threshold = index / BINS
        wrong = int((impostors >= threshold).sum())
        low, high = _wilson(wrong, len(impostors))
        print(f"{rate:8.0e}   {threshold:.5f}  {fnmr[index]:.5f} |        {fmr_test[index]:.2e}   "
              f"{fnmr_test[index]:.5f} | {wrong / len(impostors):.5f} "
              f"({low:.5f} .. {high:.5f})")  # fmt: skip
        rows.append(f"    [{rate:g}, {threshold:.5f}, {fnmr[index]:.5f}],")
    path = CARDS / f"{name}.toml"
    text = path.read_text(encoding="utf-8")
    table = "operating_points = [\n" + "\n".join(rows) + "\n]"
    path.write_text(re.sub(r"operating_points = \[.*?\n?\]\n", table + "\n", text, flags=re.S))


def _people(data: Path) -> list[str]:
    return sorted(_list(data / "peopleDevTrain.txt") | _list(data / "peopleDevTest.txt"))


def _list(path: Path) -> set[str]:
    lines = path.read_text(encoding="utf-8").splitlines()[1:]
    return {line.split("\t")[0] for line in lines if line.strip()}


def _embed(recognizer: Recognizer, paths: list[Path]) -> dict[Path, NDArray[np.float32]]:
    def one(path: Path) -> Embedding:
        return recognizer.embed(path, mien.central).embedding

    results = ordered_map(one, paths, recognizer.threads)
    return {path: e.vector for path, e in zip(paths, results, strict=True)}


def _rates(
    people: dict[str, list[Path]], vectors: dict[Path, NDArray[np.float32]]
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """FMR and FNMR at the thresholds i / BINS, each person or pair of people weighted alike."""
    paths = [path for album in people.values() for path in album]
    owner = np.repeat(np.arange(len(people)), [len(album) for album in people.values()])
    counts = np.bincount(owner)
    matrix = np.stack([vectors[path] for path in paths])
    weight = 1.0 / counts[owner]
    genuine_weight = np.where(counts > 1, 2.0 / np.maximum(1, counts * (counts - 1)), 0.0)[owner]
    impostor, genuine = np.zeros(BINS), np.zeros(BINS)
    for start in range(0, len(paths), 512):
        rows = slice(start, start + 512)
        scores = matrix[rows] @ matrix.T
        bins = np.clip((scores * BINS).astype(np.int64), 0, BINS - 1)
        once = np.arange(len(paths))[rows, None] < np.arange(len(paths))
        same = owner[rows, None] == owner
        pick = once & ~same
        weights = weight[rows, None] * weight
        impostor += np.bincount(bins[pick], weights[pick], BINS)
        pick = once & same
        weights = np.broadcast_to(genuine_weight[rows, None], scores.shape)
        genuine += np.bincount(bins[pick], weights[pick], BINS)
    fmr = np.cumsum(impostor[::-1])[::-1] / impostor.sum()
    below = np.concatenate([[0.0], np.cumsum(genuine)[:-1]])
    return fmr, below / genuine.sum()


def _impostor_scores(
    pairs: Path, data: Path, vectors: dict[Path, NDArray[np.float32]]
) -> NDArray[np.float64]:
    def picture(name: str, number: str) -> NDArray[np.float32]:
        return vectors[data / "lfw-deepfunneled" / name / f"{name}_{int(number):04d}.jpg"]

    rows = [line.split("\t") for line in pairs.read_text(encoding="utf-8").splitlines()]
    different = [row for row in rows if len(row) == 4]
    return np.array([picture(a, i) @ picture(b, j) for a, i, b, j in different], np.float64)


def _wilson(wrong: int, total: int) -> tuple[float, float]:
    """The 95% score interval of a proportion (Wilson 1927)."""
    z, p = 1.96, wrong / total
    middle = (p + z * z / (2 * total)) / (1 + z * z / total)
    half = z / (1 + z * z / total) * np.sqrt(p * (1 - p) / total + z * z / (4 * total**2))
    return float(middle - half), float(middle + half)


if __name__ == "__main__":
    main()
