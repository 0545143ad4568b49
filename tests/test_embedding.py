"""mien.embedding: normalising, comparing, fusing."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

import mien
from mien.embedding import mean_direction, normalize
from mien.types import Embedding

rows = hnp.arrays(np.float32, (4, 8), elements=st.floats(-100, 100, width=32)).filter(
    lambda array: bool((np.linalg.norm(array, axis=1) > 1e-3).all())
)


def embedding(*values: float, contract: str = "one") -> Embedding:
    return Embedding(np.array(values, np.float32), contract)


@given(vectors=rows)
def test_normalize(vectors: np.ndarray) -> None:
    unit = normalize(vectors)
    assert unit.dtype == np.float32
    np.testing.assert_allclose(np.linalg.norm(unit, axis=1), 1, atol=1e-5)
    cosines = (unit * vectors).sum(axis=1) / np.linalg.norm(vectors, axis=1)
    np.testing.assert_allclose(cosines, 1, atol=1e-5)


@pytest.mark.parametrize("value", [0.0, np.nan, np.inf])
def test_no_direction(value: float) -> None:
    vectors = np.ones((3, 4), np.float32)
    vectors[1] = value
    with pytest.raises(mien.InputError):
        normalize(vectors)


def test_similarity_known() -> None:
    assert mien.similarity(embedding(1, 0), embedding(1, 0)) == 1
    assert mien.similarity(embedding(1, 0), embedding(-1, 0)) == -1
    assert mien.similarity(embedding(1, 0), embedding(0.6, 0.8)) == pytest.approx(0.6)


@given(vectors=rows)
def test_similarity_properties(vectors: np.ndarray) -> None:
    a, b = (Embedding(vector, "one") for vector in normalize(vectors)[:2])
    assert mien.similarity(a, b) == mien.similarity(b, a)
    assert -1 <= mien.similarity(a, b) <= 1
    assert 1 - 1e-5 <= mien.similarity(a, a) <= 1


def test_contracts_do_not_mix() -> None:
    with pytest.raises(mien.ContractMismatch) as caught:
        mien.similarity(embedding(1, 0), embedding(1, 0, contract="two"))
    assert (caught.value.expected, caught.value.got) == ("one", "two")
    with pytest.raises(mien.ContractMismatch):
        mien.fuse([embedding(1, 0), embedding(1, 0), embedding(1, 0, contract="two")])


def test_fuse_known() -> None:
    fused = mien.fuse([embedding(1, 0), embedding(0, 1)])
    np.testing.assert_allclose(fused.vector, [0.5**0.5] * 2, atol=1e-6)
    assert fused.contract == "one"
    alone = embedding(0.6, 0.8)
    np.testing.assert_allclose(mien.fuse([alone]).vector, alone.vector, atol=1e-7)


def test_nothing_to_fuse() -> None:
    with pytest.raises(mien.InputError, match="at least one"):
        mien.fuse([])
    with pytest.raises(mien.InputError):
        mien.fuse([embedding(1, 0), embedding(-1, 0)])


def person(count: int, strangers: int = 0, seed: int = 0) -> list[Embedding]:
    """Pictures of one person, and some of others at the end, each a step from what all share."""
    random = np.random.default_rng(seed)
    shared, own = np.full(32, 2.0), random.standard_normal(32)
    who = [own] * (count - strangers) + [random.standard_normal(32) for _ in range(strangers)]
    steps = 0.4 * random.standard_normal((count, 32))
    made = normalize((shared + np.array(who) + steps).astype(np.float32))
    return [Embedding(vector, "one") for vector in made]


@pytest.mark.parametrize(("count", "strangers"), [(4, 1), (8, 1), (8, 3)])
def test_fusing_leaves_a_stranger_out(count: int, strangers: int) -> None:
    several = person(count, strangers)
    expected = (True,) * (count - strangers) + (False,) * strangers
    assert mien.agreeing(several) == expected
    good = several[: count - strangers]
    np.testing.assert_allclose(mien.fuse(several).vector, mien.fuse(good).vector, atol=1e-6)


def test_pictures_that_agree_are_all_kept() -> None:
    kept = [mien.agreeing(person(6, seed=seed)) for seed in range(50)]
    assert np.mean(kept) > 0.97
    assert mien.agreeing(person(2, 1)) == (True, True)  # which of two is wrong, nobody knows
    assert mien.agreeing([embedding(1, 0)] * 5) == (True,) * 5


@given(vectors=rows)
def test_most_pictures_are_kept(vectors: np.ndarray) -> None:
    unit = normalize(vectors)
    assert 2 * sum(mien.agreeing([Embedding(row, "one") for row in unit])) > len(unit)


def test_qualities_weigh() -> None:
    sharp, blurred = embedding(1, 0), embedding(0, 1)
    x, y = mien.fuse([sharp, blurred], [1.0, 0.25]).vector
    assert x / y == pytest.approx(2)  # the square root of four times
    assert mien.fuse([sharp, blurred], [1.0, 0.0]).vector[1] > 0
    for bad in ([1.0], [1.0, 2.0], [1.0, float("nan")]):
        with pytest.raises(mien.InputError, match="as many qualities"):
            mien.fuse([sharp, blurred], bad)


@given(vectors=rows, seed=st.integers(0, 9))
def test_mean_direction_ignores_order(vectors: np.ndarray, seed: int) -> None:
    unit = normalize(vectors)
    if np.linalg.norm(unit.mean(axis=0)) < 1e-2:
        return  # they cancel out
    shuffled = np.random.default_rng(seed).permutation(unit)
    np.testing.assert_allclose(mean_direction(unit), mean_direction(shuffled), atol=1e-3)


@pytest.mark.parametrize(
    "vector", [np.array([[1, 0]], np.float32), np.array([np.nan, 0], np.float32)]
)
def test_an_embedding_is_one_finite_vector(vector: np.ndarray) -> None:
    with pytest.raises(mien.InputError):
        Embedding(vector, "one")


def test_fusing_jittered_copies_stays_close(
    recognizer: mien.Recognizer, eileen: mien.Image
) -> None:
    """A fused vector of darker and brighter prints is at least as near as the worst of them."""
    original = recognizer.embed(eileen).embedding
    prints = [
        recognizer.embed(np.clip(eileen.pixels * gain, 0, 255).astype(np.uint8)).embedding
        for gain in (0.6, 0.8, 1.2)
    ]
    scores = [mien.similarity(original, print_) for print_ in prints]
    assert mien.similarity(original, mien.fuse(prints)) > np.mean(scores)
