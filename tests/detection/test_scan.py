"""mien.detection.scan: which scales a picture is looked at, and the way back."""

from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from mien.detection.scan import COARSEST_SIDE, FINEST_AREA, SMALLEST_SEEN, levels, pad_to

sides = st.integers(1, 20_000)


@given(width=sides, height=sides, min_face=st.none() | st.floats(8, 500))
def test_levels_promise(width: int, height: int, min_face: float | None) -> None:
    """Finest first, never enlarged, never above the area; the coarsest holds the whole picture."""
    found = levels(width, height, min_face)
    areas = [level.width * level.height for level in found]
    assert areas == sorted(areas, reverse=True)
    assert all(level.width <= width and level.height <= height for level in found)
    assert max(found[-1].width, found[-1].height) <= max(COARSEST_SIDE, 1) + 1
    if min_face is None:
        slack = 1 + (width + height) / FINEST_AREA  # sides are whole pixels, at least one
        assert areas[0] <= FINEST_AREA * slack + 1
    else:
        assert found[0].factors[0] <= max(1.0, SMALLEST_SEEN / min_face) + 1 / width
    assert found[0].smallest == 0
    assert all(level.smallest > 0 for level in found[1:])


@pytest.mark.parametrize("size", [(1, 1), (640, 480), (640, 640)])
def test_small_pictures_are_scanned_once_as_they_are(size: tuple[int, int]) -> None:
    (level,) = levels(*size)
    assert (level.width, level.height) == size
    assert level.factors == (1.0, 1.0)


def test_no_face_size_falls_between_levels() -> None:
    """The largest face one level sees is larger than the smallest the next one adds."""
    for width, height in ((1280, 720), (4000, 3000), (12_000, 9000)):
        found = levels(width, height)
        for fine, coarse in pairwise(found):
            assert coarse.smallest / coarse.factors[0] < 500 / fine.factors[0]


@given(width=sides, height=sides, x=st.floats(-0.5, 100), y=st.floats(-0.5, 100))
def test_points_come_back(width: int, height: int, x: float, y: float) -> None:
    """Pixel corners of the level to pixel centres of the picture."""
    for level in levels(width, height):
        there = np.array([[(x + 0.5) * level.factors[0], (y + 0.5) * level.factors[1]]], np.float32)
        np.testing.assert_allclose(level.to_picture(there), [[x, y]], atol=0.01, rtol=1e-4)


def test_render_keeps_places() -> None:
    """The centre of mass of a bright spot is where `to_picture` says."""
    y, x = np.mgrid[0:1500, 0:2400]
    spot = np.exp(-((x - 1700.0) ** 2 + (y - 400.0) ** 2) / (2 * 60**2))
    pixels = np.repeat((200 * spot)[..., None], 3, axis=2).astype(np.uint8)
    for level in levels(2400, 1500):
        rendered = level.render(pixels)[..., 0].astype(float)
        assert rendered.shape == (level.height, level.width)
        rows, columns = np.mgrid[0 : level.height, 0 : level.width]
        total = rendered.sum()
        middle = (columns * rendered).sum() / total + 0.5, (rows * rendered).sum() / total + 0.5
        np.testing.assert_allclose(
            level.to_picture(np.array([middle], np.float32)), [[1700, 400]], atol=1
        )


def test_render_at_full_size_copies_nothing() -> None:
    pixels = np.zeros((100, 200, 3), np.uint8)
    (level,) = levels(200, 100)
    assert level.render(pixels) is pixels


@given(width=st.integers(1, 70), height=st.integers(1, 70))
def test_pad_to(width: int, height: int) -> None:
    pixels = np.full((height, width, 3), 7, np.uint8)
    padded = pad_to(pixels, 32, (1, 2, 3))
    assert padded.shape[0] % 32 == padded.shape[1] % 32 == 0
    assert padded.shape[0] - height < 32
    assert padded.shape[1] - width < 32
    assert np.array_equal(padded[:height, :width], pixels)
    assert (padded[height:] == (1, 2, 3)).all()
    assert (padded[:, width:] == (1, 2, 3)).all()
