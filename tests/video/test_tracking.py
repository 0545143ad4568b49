"""Motion, overlap, resemblance and assignment, against naive twins and known answers."""

import itertools

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

import mien
from mien import cards, decision
from mien.geometry import giou, iou
from mien.types import Box, OperatingPoint
from mien.video.tracking import COASTING, Motion, assign, resemblance

coordinates = st.integers(-50, 50)
box = st.builds(
    lambda left, top, width, height: (left, top, left + width, top + height),
    coordinates, coordinates, st.integers(1, 60), st.integers(1, 60),
)  # fmt: skip


def naive_giou(a: tuple[int, ...], b: tuple[int, ...]) -> float:
    """By counting the unit squares that each box covers."""

    def cells(edges: tuple[int, ...]) -> set[tuple[int, int]]:
        left, top, right, bottom = edges
        return set(itertools.product(range(left, right), range(top, bottom)))

    one, two = cells(a), cells(b)
    around = cells((min(a[0], b[0]), min(a[1], b[1]), max(a[2], b[2]), max(a[3], b[3])))
    union = one | two
    return len(one & two) / len(union) - len(around - union) / len(around)


@given(box, box)
def test_giou_is_that_of_counted_squares(a: tuple[int, ...], b: tuple[int, ...]) -> None:
    one, two = np.array([a], np.float32), np.array([b], np.float32)
    assert giou(one, two)[0, 0] == pytest.approx(naive_giou(a, b), abs=1e-5)
    assert giou(one, two)[0, 0] <= iou(one, two)[0, 0] + 1e-6


def test_giou_of_many_is_a_table() -> None:
    a = np.array([[0, 0, 2, 2], [4, 0, 6, 2]], np.float32)
    b = np.array([[0, 0, 2, 2], [0, 0, 2, 2], [8, 0, 10, 2]], np.float32)
    expected = np.array([[1, 1, -0.6], [-1 / 3, -1 / 3, -1 / 3]])
    assert giou(a, b) == pytest.approx(expected, abs=1e-6)


@given(st.floats(-200, 200), st.floats(-200, 200), st.integers(2, 20), st.floats(0.02, 0.5))
def test_a_steady_walk_is_foreseen(x: float, y: float, steps: int, interval: float) -> None:
    def at(time: float) -> Box:
        return Box(x * time, y * time, x * time + 50, y * time + 60)

    motion = Motion(at(0), 0.0)
    for step in range(1, steps):
        motion = motion.seen(at(step * interval), step * interval)
    ahead = motion.at(steps * interval)
    assert ahead.left == pytest.approx(at(steps * interval).left, abs=1e-6)
    assert ahead.top == pytest.approx(at(steps * interval).top, abs=1e-6)


def test_a_face_out_of_sight_does_not_walk_on_for_ever() -> None:
    motion = Motion(Box(0, 0, 10, 10), 0.0).seen(Box(5, 0, 15, 10), 0.5)
    assert motion.at(0.5 + COASTING) == motion.at(60.0) == Box(15, 0, 25, 10)
    again = motion.seen(Box(100, 0, 110, 10), 5.0)  # and did not race there in one leap
    assert again.velocity is None


def test_two_detections_at_one_time_do_not_divide_by_zero() -> None:
    motion = Motion(Box(0, 0, 10, 10), 1.0).seen(Box(5, 0, 15, 10), 1.0)
    assert motion.at(1.0) == Box(5, 0, 15, 10)


tables = st.tuples(st.integers(0, 5), st.integers(0, 5)).flatmap(
    lambda shape: arrays(np.float64, shape, elements=st.floats(-2, 2))
)


@given(tables)
def test_each_is_assigned_at_most_once_and_nothing_good_is_left_over(
    affinity: np.ndarray,
) -> None:
    before = affinity.copy()
    pairs = assign(affinity)
    assert np.array_equal(affinity, before)
    rows, columns = [i for i, _ in pairs], [j for _, j in pairs]
    assert len(set(rows)) == len(rows)
    assert len(set(columns)) == len(columns)
    assert all(affinity[pair] > 0 for pair in pairs)
    for i, j in np.ndindex(*affinity.shape):
        assert affinity[i, j] <= 0 or i in rows or j in columns


def test_where_places_say_nothing_looks_decide() -> None:
    places = np.array([[0.9, 0.8], [0.8, 0.9]])  # two people in front of each other
    looks = np.array([[-1.0, 1.0], [1.0, -1.0]])  # who swap
    assert sorted(assign(places + looks)) == [(0, 1), (1, 0)]


@pytest.mark.parametrize("name", sorted(cards.bundle_ids()))
def test_resemblance_rises_from_strangers_to_the_same(name: str) -> None:
    bundle = cards.bundle(name)
    points = bundle.operating_points
    if not points:
        with pytest.raises(mien.NoOperatingPoint):
            resemblance(points, bundle.contract)
        return
    alike = resemblance(points, bundle.contract)
    assert alike(-1.0) == -1.0
    assert alike(1.0) == 1.0
    values = [alike(score) for score in np.linspace(-1, 1, 400)]
    assert values == sorted(values)
    even = np.interp(0.0, values, np.linspace(-1, 1, 400))
    assert 0.0005 < decision.impostor_rate(points, even) < 0.1


def test_resemblance_of_known_points() -> None:
    points = [
        OperatingPoint(threshold, fmr, fnmr, "made up", "one")
        for threshold, fmr, fnmr in ((0.3, 0.1, 0.02), (0.5, 0.01, 0.01), (0.7, 0.001, 0.3))
    ]
    alike = resemblance(points, "one")
    assert [round(alike(score), 6) for score in (0.2, 0.4, 0.5, 0.6, 0.7, 0.9)] == [
        -1.0, -0.5, 0.0, 0.5, 1.0, 1.0,
    ]  # fmt: skip
