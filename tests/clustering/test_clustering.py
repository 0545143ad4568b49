"""mien.clustering: what must hold holds, linkage is exact, the measures match their names."""

from collections import Counter
from itertools import combinations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mien import cards
from mien.clustering import (
    NONE,
    Linkage,
    Rates,
    agreement,
    cluster,
    linkage,
    same_picture,
    thresholds,
)
from mien.clustering import groups as merging
from mien.errors import InputError, NoOperatingPoint
from mien.types import OperatingPoint

RANDOM = settings(deadline=None, database=None, derandomize=True, max_examples=60)
seeds = st.integers(0, 10_000)


def needing(alone: float, grouped: float) -> Linkage:
    def point(threshold: float) -> OperatingPoint:
        return OperatingPoint(threshold, 1e-4, 0.1, "made up", "test")

    return Linkage(point(alone), point(grouped))


def people(seed: int, persons: int = 6, most: int = 7, spread: float = 0.6) -> np.ndarray:
    """Unit vectors (n, 16) of faces around as many directions, in random order."""
    random = np.random.default_rng(seed)
    centres = random.standard_normal((persons, 16))
    who = np.repeat(np.arange(persons), random.integers(1, most, persons))
    faces = centres[random.permutation(who)] + spread * random.standard_normal((len(who), 16))
    return (faces / np.linalg.norm(faces, axis=1, keepdims=True)).astype(np.float32)


def naive_average_linkage(vectors: np.ndarray, threshold: float) -> set[frozenset[int]]:
    """Join the pair of groups with the highest mean score while it reaches the threshold."""
    scores = vectors.astype(np.float64) @ vectors.T.astype(np.float64)
    groups = [frozenset([face]) for face in range(len(vectors))]
    while len(groups) > 1:
        mean, a, b = max(
            (float(np.mean([scores[i, j] for i in a for j in b])), a, b)
            for a, b in combinations(groups, 2)
        )
        if mean < threshold:
            break
        groups = [group for group in groups if group not in (a, b)] + [a | b]
    return set(groups)


def as_sets(labels: np.ndarray) -> set[frozenset[int]]:
    """Groups as sets of faces; those labelled -1 alone."""
    groups = {
        frozenset(map(int, np.flatnonzero(labels == n))) for n in set(labels.tolist()) - {NONE}
    }
    return groups | {frozenset([int(face)]) for face in np.flatnonzero(labels == NONE)}


@RANDOM
@given(seeds, st.floats(0.2, 0.9))
def test_with_one_threshold_it_is_exactly_average_linkage(seed: int, threshold: float) -> None:
    vectors = people(seed)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(merging, "_ROUNDS", 0)  # nothing left over is looked at again
        labels = cluster(vectors, needing(threshold, threshold))
    assert as_sets(labels) == naive_average_linkage(vectors, threshold)


@RANDOM
@given(seeds)
def test_what_must_hold_holds(seed: int) -> None:
    random = np.random.default_rng(seed)
    vectors = people(seed)
    count = len(vectors)
    together = random.integers(0, count, (3, 2))
    tied = np.zeros((count, count), bool)
    np.fill_diagonal(tied, True)
    for a, b in together:
        tied |= np.outer(tied[a] | tied[b], tied[a] | tied[b])
    apart = random.integers(0, count, (12, 2))
    apart = apart[~tied[apart[:, 0], apart[:, 1]]]
    usable = random.random(count) < 0.7
    labels = cluster(vectors, needing(0.5, 0.3), apart=apart, together=together, usable=usable)
    lone = labels == NONE
    for a, b in apart:
        assert labels[a] != labels[b] or lone[a]
    for a, b in together:
        assert labels[a] == labels[b]
        assert a == b or not lone[a]


@RANDOM
@given(seeds)
def test_poor_faces_never_bring_groups_together(seed: int) -> None:
    random = np.random.default_rng(seed)
    vectors = people(seed, spread=0.9)
    usable = random.random(len(vectors)) < 0.6
    labels = cluster(vectors, needing(0.5, 0.4), usable=usable)
    without = cluster(vectors[usable], needing(0.5, 0.4))
    # Among the usable faces, groups are what they are without the poor ones.
    assert as_sets(np.array(_relabelled(labels[usable]))) == as_sets(without)
    for group in set(labels.tolist()) - {NONE}:
        assert usable[labels == group].any()


def _relabelled(labels: np.ndarray) -> list[int]:
    sizes = Counter(labels.tolist())
    return [label if sizes[label] > 1 else NONE for label in labels.tolist()]


@RANDOM
@given(seeds)
def test_new_faces_leave_earlier_groups_as_they_were(seed: int) -> None:
    vectors = people(seed, persons=8)
    old = len(vectors) // 2
    needs = needing(0.55, 0.45)
    first = cluster(vectors[:old], needs)
    known = np.concatenate([first, np.full(len(vectors) - old, NONE)])
    labels = cluster(vectors, needs, known=known)
    grouped = np.flatnonzero(known != NONE)
    assert (labels[grouped] == known[grouped]).all()
    new = set(labels.tolist()) - set(first.tolist()) - {NONE}
    assert all(number > first.max() for number in new)


def test_new_faces_join_their_groups_and_found_new_ones() -> None:
    a, b, c = np.eye(3, 8, dtype=np.float32)
    known = np.array([4, 4, NONE, NONE, NONE, NONE])
    labels = cluster(np.stack([a, a, b, a, b, c]), needing(0.9, 0.9), known=known)
    assert labels.tolist() == [4, 4, 5, 4, 5, NONE]


def test_two_known_groups_stay_two_even_when_they_look_the_same() -> None:
    vectors = np.ones((3, 4), np.float32) / 2
    labels = cluster(vectors, needing(0.9, 0.9), known=np.array([0, 1, NONE]))
    assert labels[:2].tolist() == [0, 1]
    assert labels[2] in (0, 1)


def test_two_faces_of_a_picture_are_two_people() -> None:
    vectors = np.ones((4, 4), np.float32) / 2
    apart = same_picture(["a.jpg", "b.jpg", "a.jpg", "c.jpg"])
    assert apart.tolist() == [[0, 2]]
    labels = cluster(vectors, needing(0.9, 0.9), apart=apart)
    assert labels[0] != labels[2]


def test_a_vouched_pair_of_poor_faces_is_a_group() -> None:
    vectors = np.ones((3, 4), np.float32) / 2
    poor = np.zeros(3, bool)
    assert cluster(vectors, needing(0.9, 0.9), usable=poor).tolist() == [NONE] * 3
    labels = cluster(vectors, needing(0.9, 0.9), usable=poor, together=np.array([[0, 1]]))
    assert labels.tolist() == [0, 0, 0]


def test_duplicates_of_one_picture_end_up_together() -> None:
    vectors = np.repeat(people(3, persons=2, most=2), 300, axis=0)
    labels = cluster(vectors, needing(0.95, 0.95))
    assert as_sets(labels) == {
        frozenset(range(i, i + 300)) for i in range(0, len(vectors), 300)
    }  # more than the neighbours kept of a face


def test_blocks_do_not_change_the_result(monkeypatch: pytest.MonkeyPatch) -> None:
    vectors = people(5, persons=30, most=9)
    whole = cluster(vectors, needing(0.6, 0.5))
    monkeypatch.setattr(merging, "_ROWS", 7)
    monkeypatch.setattr(merging, "_COLUMNS", 11)
    monkeypatch.setattr(merging, "_CHUNK", 5)
    assert cluster(vectors, needing(0.6, 0.5)).tolist() == whole.tolist()


@pytest.mark.parametrize("count", [0, 1])
def test_too_few_faces_for_a_group(count: int) -> None:
    assert (
        cluster(np.ones((count, 4), np.float32) / 2, needing(0.9, 0.9)).tolist() == [NONE] * count
    )


def test_contradictions_are_refused() -> None:
    vectors = np.ones((3, 4), np.float32) / 2
    needs = needing(0.9, 0.9)
    with pytest.raises(InputError, match="kept apart"):
        cluster(vectors, needs, apart=np.array([[0, 2]]), together=np.array([[0, 1], [1, 2]]))
    with pytest.raises(InputError, match="earlier run"):
        cluster(vectors, needs, together=np.array([[0, 1]]), known=np.array([0, 1, NONE]))
    with pytest.raises(InputError, match="below 3"):
        cluster(vectors, needs, apart=np.array([[0, 3]]))
    with pytest.raises(InputError, match="as many"):
        cluster(vectors, needs, known=np.array([0]))


def naive_absorption(
    vectors: np.ndarray, groups: set[frozenset[int]], alone: float, floor: float
) -> set[frozenset[int]]:
    """One round: every small group goes to the larger one in which its best scores are high."""
    scores = vectors.astype(np.float64) @ vectors.T.astype(np.float64)

    def likeness(small: frozenset[int], large: frozenset[int]) -> float:
        best = [sorted(max(scores[i, j], floor) for j in large)[-3:] for i in small]
        return float(np.mean([np.mean(three) for three in best]))

    goal = {}
    for small in groups:
        larger = [group for group in groups if len(group) > len(small)]
        if len(small) <= 8 and larger:
            best = max(larger, key=lambda group: likeness(small, group))
            if likeness(small, best) >= alone:
                goal[small] = best
    goal = {small: large for small, large in goal.items() if large not in goal}
    joined = {group: set(group) for group in groups if group not in goal}
    for small, large in goal.items():
        joined[large] |= small
    return {frozenset(group) for group in joined.values()}


@RANDOM
@given(seeds)
def test_what_is_left_over_goes_where_its_best_scores_are(seed: int) -> None:
    vectors = people(seed, persons=5, most=12, spread=0.8)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(merging, "_ROUNDS", 0)
        before = as_sets(cluster(vectors, needing(0.6, 0.5)))
        patch.setattr(merging, "_ROUNDS", 1)
        labels = cluster(vectors, needing(0.6, 0.5))
    assert as_sets(labels) == naive_absorption(vectors, before, 0.6, 0.5)


def test_nothing_left_over_goes_where_it_may_not() -> None:
    """Two odd faces resemble the others of a group more than each other: one is kept from it."""
    a, b = np.eye(2, 8, dtype=np.float32)
    odd = (0.75 * a + np.sqrt(1 - 0.75**2) * b).astype(np.float32)
    near = (0.99 * a + np.sqrt(1 - 0.99**2) * np.eye(8, dtype=np.float32)[2]).astype(np.float32)
    vectors = np.stack([near, a, a, a, odd])
    needs = needing(0.74, 0.73)
    assert cluster(vectors, needs).tolist() == [0] * 5
    apart = np.array([[0, 4]])
    assert cluster(vectors, needs, apart=apart).tolist() == [0, 0, 0, 0, NONE]


def crowd(persons: int, pictures: int) -> np.ndarray:
    """Vectors whose strangers score as those of the default model do."""
    random = np.random.default_rng(11)
    centres = random.standard_normal((persons, 64)) * 0.04
    steps = random.standard_normal((persons * pictures, 64)) * 0.02
    faces = np.repeat(centres, pictures, axis=0) + steps + 0.125
    return (faces / np.linalg.norm(faces, axis=1, keepdims=True)).astype(np.float32)


def test_thresholds_are_operating_points_that_follow_the_album() -> None:
    bundle = cards.bundle("embedded")
    points, contract = bundle.operating_points, bundle.contract
    few, many = crowd(10, 40), crowd(400, 1)
    family, strangers = linkage(points, few, contract), linkage(points, many, contract)
    assert family.alone.contract == contract
    assert family.grouped.threshold < family.alone.threshold < strangers.alone.threshold
    assert strangers.grouped.fmr == pytest.approx(5 * strangers.alone.fmr, rel=1e-3)
    for album, needs in ((few, family), (many, strangers)):
        pairs = len(album) * (len(album) - 1) / 2
        reached = (np.triu(album @ album.T, 1) >= needs.alone.threshold).sum()
        assert needs.alone.fmr * pairs <= 0.021 * max(1, reached)
    strict = linkage(points, few, contract, fdr=1e-4)
    assert strict.alone.threshold > family.alone.threshold
    with pytest.raises(NoOperatingPoint):
        linkage((), few, "unmeasured")
    with pytest.raises(InputError, match="false discovery rate"):
        linkage(points, few, contract, fdr=0)


def test_a_sample_of_the_faces_tells_what_all_would(monkeypatch: pytest.MonkeyPatch) -> None:
    bundle = cards.bundle("embedded")
    album = crowd(60, 15)
    whole = linkage(bundle.operating_points, album, bundle.contract)
    monkeypatch.setattr(thresholds, "_SAMPLE", 100)
    some = linkage(bundle.operating_points, album, bundle.contract)
    assert some.alone.threshold == pytest.approx(whole.alone.threshold, abs=0.003)


@pytest.mark.parametrize("count", [1, 2])
def test_an_album_of_one_or_two_faces_has_thresholds(count: int) -> None:
    bundle = cards.bundle("embedded")
    needs = linkage(bundle.operating_points, crowd(count, 1), bundle.contract)
    assert needs.alone.fmr <= 1.01e-3


def naive_agreement(who: list[str], labels: list[int]) -> tuple[float, ...]:
    groups = [label if label != NONE else -2 - face for face, label in enumerate(labels)]
    faces = range(len(who))
    precision, recall = [], []
    for face in faces:
        mine = {other for other in faces if groups[other] == groups[face]}
        own = {other for other in faces if who[other] == who[face]}
        precision.append(len(mine & own) / len(mine))
        recall.append(len(mine & own) / len(own))
    grouped = [pair for pair in combinations(faces, 2) if groups[pair[0]] == groups[pair[1]]]
    true = [pair for pair in combinations(faces, 2) if who[pair[0]] == who[pair[1]]]
    hits = len(set(grouped) & set(true))
    purity = sum(
        max(Counter(who[f] for f in faces if groups[f] == group).values()) for group in set(groups)
    )
    return (
        float(np.mean(precision)), float(np.mean(recall)),
        hits / len(grouped) if grouped else 1.0, hits / len(true) if true else 1.0,
        purity / len(who), len(set(groups)), len(set(who)),
    )  # fmt: skip


@RANDOM
@given(st.lists(st.tuples(st.sampled_from("abcd"), st.integers(-1, 3)), min_size=1, max_size=14))
def test_measures_match_naive_loops(faces: list[tuple[str, int]]) -> None:
    who, labels = [person for person, _ in faces], [label for _, label in faces]
    found = agreement(who, np.array(labels))
    assert (
        found.bcubed.precision, found.bcubed.recall,
        found.pairwise.precision, found.pairwise.recall,
        found.purity, found.groups, found.people,
    ) == pytest.approx(naive_agreement(who, labels))  # fmt: skip


def test_f1_is_the_harmonic_mean() -> None:
    assert Rates(0.5, 1.0).f1 == pytest.approx(2 / 3)
    assert Rates(0.0, 0.0).f1 == 0.0
    with pytest.raises(InputError, match="one of each"):
        agreement([], np.array([], np.int64))
