"""Splits, pairs and triplets: what has to be disjoint is, shares are kept, draws are repeatable."""

import csv
from collections import Counter
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from mien.errors import InputError
from mien.evaluation.protocols import read_pairs_csv
from mien.evaluation.vectors import Vectors
from mien.training.preparation.pairs import (
    draw,
    draw_triplets,
    group_of,
    ordered,
    write_pairs,
    write_triplets,
)
from mien.training.preparation.sets import Listed
from mien.training.preparation.split import select, split

sizes = st.lists(st.integers(1, 9), min_size=2, max_size=30)


def album(counts: list[int]) -> list[Listed]:
    """So many pictures of each of so many people."""
    return [
        Listed(f"p{person}", f"p{person}/{number}.jpg", Path(f"p{person}/{number}.jpg"))
        for person, count in enumerate(counts)
        for number in range(count)
    ]


# -------------------------------------------------------------------------------------------- split


@given(counts=sizes, seed=st.integers(0, 3))
def test_by_person_nobody_is_in_two_parts_and_nothing_is_lost(counts: list[int], seed: int) -> None:
    pictures = album(counts)
    parts = split(select(pictures), {"train": 3, "test": 1}, seed=seed)
    people = {name: {p.subject for p in group} for name, group in parts.items()}
    assert not people["train"] & people["test"]
    assert sorted(p.source for g in parts.values() for p in g) == sorted(p.source for p in pictures)
    assert abs(len(people["train"]) - 0.75 * len(counts)) <= 1


@given(counts=st.lists(st.integers(3, 30), min_size=1, max_size=10), seed=st.integers(0, 3))
def test_by_picture_everyone_is_in_every_part_in_its_share(counts: list[int], seed: int) -> None:
    parts = split(
        select(album(counts)), {"train": 80, "val": 10, "test": 10}, by="picture", seed=seed
    )
    for person, count in enumerate(counts):
        own = {n: sum(p.subject == f"p{person}" for p in g) for n, g in parts.items()}
        assert sum(own.values()) == count
        assert all(own.values())
        assert own["train"] >= 0.8 * count - 2
    taken = [p.source for group in parts.values() for p in group]
    assert len(taken) == len(set(taken)) == sum(counts)


def test_the_same_seed_divides_alike_whatever_the_order() -> None:
    pictures = album([3, 1, 4, 1, 5, 9, 2, 6])
    shares = {"train": 1.0, "test": 1.0}
    one = split(select(pictures, max_pictures=4, seed=1), shares, seed=1)
    other = split(select(pictures[::-1], max_pictures=4, seed=1), shares, seed=1)
    assert {n: sorted(p.source for p in g) for n, g in one.items()} == {
        n: sorted(p.source for p in g) for n, g in other.items()
    }
    assert one != split(select(pictures, max_pictures=4, seed=2), shares, seed=2)


@given(counts=sizes, least=st.integers(1, 4), most=st.integers(1, 5), balance=st.booleans())
def test_selection(counts: list[int], least: int, most: int, balance: bool) -> None:
    kept = [count for count in counts if count >= least]
    if not kept:
        with pytest.raises(InputError, match=f"the most that anybody has is {max(counts)}"):
            select(album(counts), min_pictures=least)
        return
    chosen = select(album(counts), min_pictures=least, max_pictures=most, balance=balance)
    found = [len(group) for group in chosen.values()]
    if balance:
        assert found == [min(most, *kept)] * len(kept) if len(kept) > 1 else [min(most, kept[0])]
    else:
        assert found == [min(most, count) for count in kept]


def test_impossible_splits_are_refused() -> None:
    people = select(album([1, 2]))
    with pytest.raises(InputError, match="at least two parts"):
        split(people, {"train": 1})
    with pytest.raises(InputError, match="at least two parts"):
        split(people, {"train": 1, "test": 0})
    with pytest.raises(InputError, match="too few people"):
        split(people, {"train": 1, "validation": 1, "test": 1})
    with pytest.raises(InputError, match="too few pictures a person"):
        split(select(album([1, 1])), {"train": 1, "test": 1}, by="picture")
    with pytest.raises(InputError, match="one sub-folder a person"):
        select([Listed("", "1.jpg", Path("1.jpg"))])


# -------------------------------------------------------------------------------------------- pairs


def test_pairs_are_read_by_the_evaluation(tmp_path: Path) -> None:
    pictures = album([3, 4, 1, 2])
    for picture in pictures:
        (tmp_path / picture.source).parent.mkdir(exist_ok=True)
        (tmp_path / picture.source).write_bytes(b"")
    count = write_pairs(tmp_path / "pairs.csv", draw("set", pictures, 8, seed=3))
    pairs = read_pairs_csv(tmp_path / "pairs.csv")
    assert count == len(pairs) == 16
    assert pairs.same.sum() == 8
    for a, b, same in zip(pairs.a, pairs.b, pairs.same, strict=True):
        one, other = (Path(str(pairs.pictures[i].source)) for i in (a, b))
        assert (one.parent == other.parent) == same
        assert one != other


def test_folds_of_pairs_share_nobody(tmp_path: Path) -> None:
    write_pairs(tmp_path / "pairs.csv", draw("set", album([3] * 12), 12, folds=4))
    with (tmp_path / "pairs.csv").open() as stream:
        rows = list(csv.DictReader(stream))
    assert {row["fold"] for row in rows} == set("0123")
    where: dict[str, set[str]] = {}
    for row in rows:
        for person in (row["person1"], row["person2"]):
            where.setdefault(person, set()).add(row["fold"])
    assert all(len(folds) == 1 for folds in where.values())


def test_pairs_of_people_with_one_picture_each_are_refused() -> None:
    with pytest.raises(InputError, match="nobody in set has two pictures"):
        draw("set", album([1, 1, 1]), 5)
    with pytest.raises(InputError, match="one person only"):
        draw("set", album([4]), 5)


# ----------------------------------------------------------------------------------------- triplets


@given(counts=sizes, count=st.integers(1, 40), seed=st.integers(0, 3))
def test_triplets_are_what_they_are_called(counts: list[int], count: int, seed: int) -> None:
    group = group_of("set", album(counts))
    if max(counts) < 2:
        with pytest.raises(InputError, match="two pictures of one person"):
            draw_triplets(group, count, seed=seed)
        return
    triplets = draw_triplets(group, count, seed=seed)
    anchor, positive, negative = triplets.T
    assert (group.person[anchor] == group.person[positive]).all()
    assert (group.person[anchor] != group.person[negative]).all()
    assert (anchor != positive).all()
    assert len({tuple(row) for row in triplets.tolist()}) == len(triplets)
    possible = sum(n * (n - 1) * (sum(counts) - n) for n in counts)
    assert len(triplets) == min(count, possible)


def test_every_negative_is_as_likely() -> None:
    group = group_of("set", album([2, 2, 2]))
    found = Counter(tuple(row) for row in draw_triplets(group, 24).tolist())
    assert len(found) == 3 * 2 * 4  # all that are possible


def test_mined_negatives_are_semi_hard() -> None:
    """Against a loop over everyone, with made-up vectors and pictures without one."""
    pictures = album([4, 3, 5, 2, 4])
    group = group_of("set", pictures)
    random = np.random.default_rng(0)
    matrix = random.standard_normal((len(pictures), 3)).astype(np.float32)
    matrix[12] = -matrix[13]  # a person whose two pictures are less alike than any strangers
    matrix /= np.linalg.norm(matrix, axis=1, keepdims=True)
    vectors = Vectors(matrix, {2: "no face", 11: "no face"}, "made-up", len(pictures))
    triplets = draw_triplets(group, 38, vectors=vectors)  # all there are
    kinds = set()
    for anchor, positive, negative in triplets.tolist():
        others = [
            i for i in range(len(pictures))
            if group.person[i] != group.person[anchor] and i not in vectors.failures
        ]  # fmt: skip
        to = matrix @ matrix[anchor]
        below = [i for i in others if to[i] < to[positive]]
        best = max(below, key=to.__getitem__) if below else min(others, key=to.__getitem__)
        assert negative == best
        kinds.add(bool(below))
        assert not {anchor, positive, negative} & vectors.failures.keys()
    assert kinds == {True, False}  # both rules were at work


def test_triplets_name_pictures(tmp_path: Path) -> None:
    pictures = album([2, 2])[::-1]
    group = group_of("set", pictures)
    write_triplets(tmp_path / "t.csv", draw_triplets(group, 2), ordered(pictures))
    with (tmp_path / "t.csv").open() as stream:
        rows = list(csv.DictReader(stream))
    assert len(rows) == 2
    for row in rows:
        assert row["anchor"].split("/")[0] == row["positive"].split("/")[0]
        assert row["anchor"].split("/")[0] != row["negative"].split("/")[0]
