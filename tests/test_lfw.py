"""On people of LFW View 1 (DevTest), whom no setting or threshold of mien has seen."""

from dataclasses import dataclass
from functools import partial
from pathlib import Path

import numpy as np
import pytest

import mien
from mien.recognition import ordered_map

PAIRS = 300  # of each kind, from the start of the list


@dataclass(frozen=True)
class Pairs:
    """Scores of pairs of the same person and of different people, and who is on each picture."""

    genuine: np.ndarray
    impostor: np.ndarray
    vectors: np.ndarray
    people: np.ndarray


@pytest.fixture(scope="module")
def pairs(lfw: Path, recognizer: mien.Recognizer) -> Pairs:
    rows = [
        line.split("\t")
        for line in (lfw / "pairsDevTest.txt").read_text(encoding="utf-8").splitlines()[1:]
    ]
    genuine = [((a, i), (a, j)) for a, i, j in (r for r in rows if len(r) == 3)][:PAIRS]
    impostor = [((a, i), (b, j)) for a, i, b, j in (r for r in rows if len(r) == 4)][:PAIRS]
    assert len(genuine) == len(impostor) == PAIRS
    pictures = sorted({picture for pair in genuine + impostor for picture in pair})
    files = [
        lfw / "lfw-deepfunneled" / name / f"{name}_{int(number):04}.jpg"
        for name, number in pictures
    ]
    embed = partial(recognizer.embed, choose=mien.central)  # raises where there is no face
    found = list(ordered_map(embed, files, 2))
    vectors = np.stack([face.embedding.vector for face in found])
    row = {picture: number for number, picture in enumerate(pictures)}

    def scores(of: list[tuple[tuple[str, str], tuple[str, str]]]) -> np.ndarray:
        a, b = (np.array([row[pair[side]] for pair in of]) for side in (0, 1))
        return (vectors[a] * vectors[b]).sum(axis=1)

    people = np.array([name for name, _ in pictures])
    return Pairs(scores(genuine), scores(impostor), vectors, people)


def test_accuracy(pairs: Pairs) -> None:
    """The share of right answers at the best threshold; 0.975 leaves room for these few pairs."""
    thresholds = np.concatenate([pairs.genuine, pairs.impostor])
    right = [(pairs.genuine >= t).sum() + (pairs.impostor < t).sum() for t in thresholds]
    assert max(right) / (2 * PAIRS) >= 0.975


def test_threshold_keeps_its_promise(pairs: Pairs, recognizer: mien.Recognizer) -> None:
    """At FMR 1e-2, among 300 pairs of strangers 0 to 9 match (99.7% of a binomial law do)."""
    point = recognizer.operating_point(1e-2)
    assert (pairs.impostor >= point.threshold).sum() <= 9
    assert (pairs.genuine < point.threshold).mean() <= 0.03
    assert point.fnmr < 0.02


@pytest.mark.parametrize("fmr", [1e-1, 1e-2, 1e-3])
def test_all_strangers_against_all(pairs: Pairs, recognizer: mien.Recognizer, fmr: float) -> None:
    """Hundreds of thousands of comparisons that share people: the rate within a factor of two."""
    first, second = np.triu_indices(len(pairs.people), 1)
    strangers = pairs.people[first] != pairs.people[second]
    scores = (pairs.vectors @ pairs.vectors.T)[first, second][strangers]
    assert len(scores) > 200_000
    rate = (scores >= recognizer.operating_point(fmr).threshold).mean()
    assert fmr / 2 <= rate <= 2 * fmr


def test_strangers_stay_unknown(pairs: Pairs, recognizer: mien.Recognizer, tmp_path: Path) -> None:
    """Half of the people enrolled; of the other half, at most about the promised share is named."""
    names = sorted(set(pairs.people))
    known = set(names[::2])
    with mien.open_gallery(tmp_path / "lfw.mien") as gallery:
        entries = [
            mien.gallery.Entry(name, mien.Embedding(vector, recognizer.contract), "x", 1.0)
            for name, vector in zip(pairs.people, pairs.vectors, strict=True)
            if name in known
        ]
        gallery.add(entries)
        probes = [
            mien.Embedding(vector, recognizer.contract)
            for name, vector in zip(pairs.people, pairs.vectors, strict=True)
            if name not in known
        ]
        assert min(len(entries), len(probes)) > 250
        found = gallery.search_batch(probes, limit=1)
    points = [
        mien.decision.search_point(recognizer.bundle, probe, 0.1, len(entries)) for probe in probes
    ]
    named = np.mean(
        [point.accepts(matches[0].score) for point, matches in zip(points, found, strict=True)]
    )
    assert named <= 0.1 + 2.58 * (0.1 * 0.9 / len(probes)) ** 0.5
