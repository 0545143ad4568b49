"""mien.geometry: known answers, and properties against naive computations."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from mien.geometry import (
    compose,
    inside,
    invert,
    iou,
    scale_of,
    similarity_transform,
    suppress,
    transform_points,
)

coordinates = st.floats(-1000, 1000, width=32)
clouds = hnp.arrays(np.float64, st.tuples(st.integers(2, 12), st.just(2)), elements=coordinates)
shifts = st.tuples(coordinates, coordinates)


def similarity(angle: float, scale: float, shift: tuple[float, float]) -> np.ndarray:
    cosine, sine = scale * np.cos(angle), scale * np.sin(angle)
    return np.array([[cosine, -sine, shift[0]], [sine, cosine, shift[1]]])


@st.composite
def similarities(draw: st.DrawFn) -> np.ndarray:
    return similarity(draw(st.floats(-3.1, 3.1)), draw(st.floats(0.05, 20)), draw(shifts))


@st.composite
def boxes(draw: st.DrawFn) -> np.ndarray:
    """Boxes on a coarse grid, so that many touch, coincide or contain each other."""
    count = draw(st.integers(0, 12))
    rows = [
        (left, top, left + width, top + height)
        for left, top, width, height in draw(
            st.lists(st.tuples(*[st.integers(0, 12)] * 4), min_size=count, max_size=count)
        )
    ]
    return np.array(rows, np.float32).reshape(-1, 4)


def naive_iou(a: np.ndarray, b: np.ndarray) -> float:
    width = max(0.0, min(a[2], b[2]) - max(a[0], b[0]))
    height = max(0.0, min(a[3], b[3]) - max(a[1], b[1]))
    union = (a[2] - a[0]) * (a[3] - a[1]) + (b[2] - b[0]) * (b[3] - b[1]) - width * height
    return width * height / union if union else 0.0


def naive_suppress(found: np.ndarray, scores: np.ndarray, overlap: float) -> list[int]:
    kept: list[int] = []
    for index in sorted(range(len(found)), key=lambda i: -scores[i]):
        if all(naive_iou(found[index], found[better]) <= overlap for better in kept):
            kept.append(index)
    return kept


# ------------------------------------------------------------------------------ transforms


@given(points=clouds, truth=similarities())
def test_similarity_transform_recovers_the_truth(points: np.ndarray, truth: np.ndarray) -> None:
    spread = np.ptp(points, axis=0).max()
    if spread < 1e-3:
        return  # one point says nothing of rotation
    moved = transform_points(truth, points)
    found = similarity_transform(points, moved)
    tolerance = 1e-6 * (1 + np.abs(moved).max() / spread * 1000)
    np.testing.assert_allclose(transform_points(found, points), moved, atol=tolerance)
    np.testing.assert_allclose(found[:, :2], truth[:, :2], atol=tolerance)


def test_similarity_transform_known() -> None:
    source = np.array([[0, 0], [1, 0], [1, 1], [0, 1]], float)
    target = np.array([[5, 7], [5, 9], [3, 9], [3, 7]], float)  # a quarter turn, doubled, shifted
    found = similarity_transform(source, target)
    np.testing.assert_allclose(found, [[0, -2, 5], [2, 0, 7]], atol=1e-12)
    assert scale_of(found) == pytest.approx(2)


@given(points=clouds, target=clouds)
def test_similarity_transform_is_least_squares(points: np.ndarray, target: np.ndarray) -> None:
    """No small change of rotation, scale or shift comes closer."""
    count = min(len(points), len(target))
    points, target = points[:count], target[:count]
    if np.ptp(points, axis=0).max() < 1:
        return

    def miss(transform: np.ndarray) -> float:
        return float(((transform_points(transform, points) - target) ** 2).sum())

    best = similarity_transform(points, target)
    for nudge in (
        similarity(1e-3, 1, (0, 0)), similarity(-1e-3, 1, (0, 0)), similarity(0, 1.001, (0, 0)),
        similarity(0, 0.999, (0, 0)), similarity(0, 1, (0.01, 0)), similarity(0, 1, (0, -0.01)),
    ):  # fmt: skip
        assert miss(best) <= miss(compose(nudge, best)) + 1e-6 * (1 + miss(best))


def test_similarity_transform_never_mirrors() -> None:
    source = np.random.default_rng(0).normal(size=(5, 2))
    found = similarity_transform(source, source * [-1, 1])
    assert np.linalg.det(found[:, :2]) >= 0


def test_coincident_points_give_a_shift() -> None:
    found = similarity_transform(np.full((5, 2), 3.0), np.full((5, 2), 8.0))
    assert np.isfinite(found).all()
    np.testing.assert_allclose(transform_points(found, np.full((1, 2), 3.0)), [[8, 8]])


@given(first=similarities(), second=similarities(), points=clouds)
def test_compose_and_invert(first: np.ndarray, second: np.ndarray, points: np.ndarray) -> None:
    one_by_one = transform_points(second, transform_points(first, points))
    at_once = transform_points(compose(second, first), points)
    np.testing.assert_allclose(at_once, one_by_one, rtol=1e-6, atol=1e-6)
    back = transform_points(invert(first), transform_points(first, points))
    np.testing.assert_allclose(back, points, atol=1e-3, rtol=1e-6)


@given(transform=similarities(), points=clouds)
def test_scale_of(transform: np.ndarray, points: np.ndarray) -> None:
    moved = transform_points(transform, points)
    before, after = np.hypot(*(points[1] - points[0])), np.hypot(*(moved[1] - moved[0]))
    assert after == pytest.approx(before * scale_of(transform), rel=1e-6, abs=1e-4)


# ------------------------------------------------------------------------------ boxes


def test_iou_known() -> None:
    a = np.array([[0, 0, 10, 10], [20, 20, 30, 30]], np.float32)
    b = np.array([[0, 0, 10, 10], [5, 0, 15, 10], [10, 10, 20, 20], [2, 2, 8, 8]], np.float32)
    np.testing.assert_allclose(iou(a, b), [[1, 1 / 3, 0, 0.36], [0, 0, 0, 0]], atol=1e-6)


@given(a=boxes(), b=boxes())
def test_iou_equals_naive(a: np.ndarray, b: np.ndarray) -> None:
    overlap = iou(a, b)
    assert overlap.shape == (len(a), len(b))
    naive = np.array([[naive_iou(x, y) for y in b] for x in a]).reshape(overlap.shape)
    np.testing.assert_allclose(overlap, naive, atol=1e-6)


def test_inside_known() -> None:
    """A small box in a large one is wholly inside; the large one is not inside the small."""
    pair = np.array([[0, 0, 10, 10], [0, 0, 5, 5]], np.float32)
    np.testing.assert_allclose(inside(pair, pair), [[1, 0.25], [1, 1]], atol=1e-6)


@given(found=boxes(), overlap=st.sampled_from([0.0, 0.1, 0.37, 0.5, 0.9]), seed=st.integers(0, 99))
def test_suppress_equals_naive(found: np.ndarray, overlap: float, seed: int) -> None:
    scores = np.random.default_rng(seed).permutation(len(found)).astype(np.float32) / 16
    assert suppress(found, scores, overlap).tolist() == naive_suppress(found, scores, overlap)


def test_suppress_keeps_the_first_of_equals() -> None:
    found = np.array([[0, 0, 10, 10]] * 3, np.float32)
    assert suppress(found, np.full(3, 0.5, np.float32), 0.4).tolist() == [0]
