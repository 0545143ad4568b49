from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mien import cards
from mien.errors import InputError
from mien.evaluation import identification as idn
from mien.evaluation.protocols import People, Picture
from mien.evaluation.vectors import Vectors
from mien.types import OperatingPoint


def world(
    seed: int, people: int = 30, most: int = 4, dim: int = 8, noise: float = 0.5
) -> tuple[People, Vectors]:
    """People with one to `most` pictures each; some pictures failed."""
    rng = np.random.default_rng(seed)
    sizes = rng.integers(1, most + 1, people)
    person = np.repeat(np.arange(people), sizes)
    rows = rng.normal(size=(people, dim))[person] + noise * rng.normal(size=(person.size, dim))
    matrix = (rows / np.linalg.norm(rows, axis=1, keepdims=True)).astype(np.float32)
    failed = rng.random(person.size) < 0.05
    matrix[failed] = 0
    pictures = tuple(Picture(f"{i}", b"") for i in range(person.size))
    names = tuple(f"p{i}" for i in range(people))
    failures = {int(i): "no face" for i in np.flatnonzero(failed)}
    return People("world", pictures, names, person), Vectors(matrix, failures, "c", 0)


def naive(
    group: People, vectors: Vectors, split: idn.Split, threshold: float
) -> tuple[float, float, list[int]]:
    """FNIR, FPIR and ranks, by loops; every person counts alike."""
    missed: dict[int, list[bool]] = {}
    named: dict[int, list[bool]] = {}
    ranks = []
    for row, mated in zip(split.probes.tolist(), split.mated.tolist(), strict=True):
        me = int(group.person[row])
        best: dict[int, float] = {}
        if row not in vectors.failures:
            for other in split.enrolled.tolist():
                if other not in vectors.failures:
                    score = float(vectors.matrix[row] @ vectors.matrix[other])
                    whom = int(group.person[other])
                    best[whom] = max(best.get(whom, -2.0), score)
        if mated:
            rank = sum(s >= best[me] for s in best.values()) if me in best else 10**6
            ranks.append(rank)
            missed.setdefault(me, []).append(not (rank == 1 and best[me] >= threshold))
        else:
            named.setdefault(me, []).append(any(s >= threshold for s in best.values()))
    return (
        float(np.mean([np.mean(v) for v in missed.values()])),
        float(np.mean([np.mean(v) for v in named.values()])),
        ranks,
    )


@settings(deadline=None, max_examples=40)
@given(st.integers(0, 10**6), st.floats(-0.2, 1))
def test_as_loops(seed: int, threshold: float) -> None:
    group, vectors = world(seed)
    split = idn.split_by_pictures(group, seed=seed)
    found = idn.run(group, vectors, split)
    fnir, fpir, ranks = naive(group, vectors, split, threshold)
    assert idn.fnir(found, threshold) == pytest.approx(fnir)
    assert idn.fpir(found, threshold) == pytest.approx(fpir)
    mine = found.rank[found.mated].tolist()
    assert [r for r in mine if r <= 20] == [r for r in ranks if r <= 20]


def test_a_split_enrols_all_but_those_kept_back() -> None:
    group, _ = world(1)
    split = idn.split_by_pictures(group, keep_back=1, seed=5)
    assert sorted([*split.enrolled.tolist(), *split.probes.tolist()]) == list(
        range(group.person.size)
    )
    enrolled = set(group.person[split.enrolled].tolist())
    for row, mated in zip(split.probes.tolist(), split.mated.tolist(), strict=True):
        assert mated == (int(group.person[row]) in enrolled)
    sizes = np.bincount(group.person)
    assert enrolled == set(np.flatnonzero(sizes > 1).tolist())
    assert np.bincount(group.person[split.probes[split.mated]]).max() == 1
    again = idn.split_by_pictures(group, keep_back=1, seed=5)
    assert np.array_equal(split.probes, again.probes)


def test_splits_that_cannot_be_open() -> None:
    group, _ = world(1)
    with pytest.raises(InputError, match="nobody in world has more than 4"):
        idn.split_by_pictures(group, keep_back=4)
    everybody = People("all", group.pictures[:4], ("a", "b"), np.array([0, 0, 1, 1]))
    with pytest.raises(InputError, match="everybody in all"):
        idn.split_by_pictures(everybody)
    with pytest.raises(InputError, match="cannot be enrolled"):
        idn.split_by_people(group, 30, np.random.default_rng(0))


def test_one_picture_each_is_enrolled_by_people() -> None:
    group, _ = world(2)
    split = idn.split_by_people(group, 10, np.random.default_rng(3))
    people = group.person[split.enrolled]
    assert np.unique(people).size == people.size == 10
    assert np.array_equal(np.isin(group.person[split.probes], people), split.mated)


@settings(deadline=None, max_examples=40)
@given(st.integers(0, 10**6), st.sampled_from([0.1, 0.2, 0.5]))
def test_the_threshold_is_the_lowest_that_keeps_the_fpir(seed: int, rate: float) -> None:
    group, vectors = world(seed, people=120)
    found = idn.run(group, vectors, idn.split_by_pictures(group, seed=seed))
    threshold = idn.threshold_for(found, rate)
    assert idn.fpir(found, threshold) <= rate + 1e-12
    scores = np.unique(found.best[~found.mated])
    lower = scores[scores < threshold]
    if lower.size:
        assert idn.fpir(found, float(lower[-1])) > rate


def test_a_rate_needs_strangers() -> None:
    group, vectors = world(3)
    found = idn.run(group, vectors, idn.split_by_pictures(group))
    with pytest.raises(InputError, match=r"at least 1,000 unknown people"):
        idn.threshold_for(found, 1e-3)


def test_failures_are_missed_and_never_named() -> None:
    gallery = np.eye(4, dtype=np.float32)
    gallery[1] = 0  # person 1 could not be enrolled
    probes = np.stack([np.eye(4, dtype=np.float32)[i] for i in (0, 1, 2)] + [np.zeros(4)] * 2)
    mated = np.array([True, True, True, True, False])
    found = idn.search(
        gallery, np.arange(4), probes.astype(np.float32), np.array([0, 1, 2, 3, 9]), mated
    )
    assert idn.missed(found, 0.5).tolist() == [False, True, False, True]
    assert idn.fpir(found, -0.5) == 0
    assert idn.cmc(found, 4).tolist() == [0.5] * 4


def test_everybody_failed() -> None:
    nobody = np.zeros((3, 4), np.float32)
    with pytest.raises(InputError, match="0 people could be enrolled"):
        idn.search(nobody, np.arange(3), nobody, np.arange(3), np.ones(3, bool))


def test_ties_count_against() -> None:
    gallery = np.array([[1, 0], [1, 0]], np.float32)
    found = idn.search(gallery, np.array([0, 1]), gallery[:1], np.array([0]), np.array([True]))
    assert found.rank.tolist() == [2]


def test_without_a_kind_of_probe_its_rate_is_refused() -> None:
    gallery = np.eye(3, dtype=np.float32)
    known = idn.search(gallery, np.arange(3), gallery, np.arange(3), np.ones(3, bool))
    with pytest.raises(InputError, match="no unknown probes"):
        idn.fpir(known, 0.5)
    strangers = idn.search(gallery, np.arange(3), gallery, np.arange(3) + 9, np.zeros(3, bool))
    with pytest.raises(InputError, match="FNIR cannot be measured"):
        idn.fnir(strangers, 0.5)


def test_open_set_contains_its_own_figure() -> None:
    group, vectors = world(4, people=200, noise=0.3)
    found = idn.run(group, vectors, idn.split_by_pictures(group))
    figure = idn.open_set(found, 0.1)
    assert figure.fnir in figure.fnir_interval
    assert figure.fnir == pytest.approx(idn.fnir(found, figure.threshold))
    thresholds, false, miss = idn.tradeoff(found)
    for i in (0, thresholds.size // 2, thresholds.size - 1):
        assert false[i] == pytest.approx(idn.fpir(found, thresholds[i]))
        assert miss[i] == pytest.approx(idn.fnir(found, thresholds[i]))


def test_a_right_threshold_keeps_its_promise_and_a_wrong_one_is_seen() -> None:
    group, vectors = world(5, people=600, most=2, dim=32)
    sample = vectors.matrix[vectors.usable]
    owner = group.person[vectors.usable]
    scores = (sample @ sample.T)[owner[:, None] != owner]
    fmrs = [1e-1, 1e-2, 1e-3, 2e-4]

    def measured(offset: float) -> cards.Bundle:
        points = tuple(
            OperatingPoint(float(np.quantile(scores, 1 - f)) + offset, f, 0.0, "p", "c")
            for f in fmrs
        )
        return replace(cards.bundle("embedded"), operating_points=points, crowd=None)

    for promise in idn.check_promise(group, vectors, measured(0), [0.1], [20, 100]):
        assert promise.verdict == "kept"
        assert promise.asked in promise.interval
        assert promise.unknown_people == 600 - promise.gallery_size
    for promise in idn.check_promise(group, vectors, measured(-0.1), [0.1], [20, 100]):
        assert promise.verdict == "BROKEN"
        assert promise.interval.low > promise.asked
    for promise in idn.check_promise(group, vectors, measured(0.1), [0.1], [20]):
        assert promise.verdict == "kept, too strictly"
