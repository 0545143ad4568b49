"""The policies that pick one face of several."""

import numpy as np
import pytest

import mien
from mien.types import Box, Face, Image, Landmarks

PICTURE = Image(np.zeros((200, 300, 3), np.uint8), "party.jpg")


def face(left: float, top: float, width: float, height: float) -> Face:
    points = np.zeros((5, 2), np.float32)
    return Face(Box(left, top, left + width, top + height), Landmarks(points), 0.9)


SMALL_CENTRAL = face(140, 90, 20, 20)
LARGE_ASIDE = face(0, 0, 80, 80)
WIDE = face(200, 150, 100, 30)
FACES = [SMALL_CENTRAL, LARGE_ASIDE, WIDE]


def test_only() -> None:
    assert mien.only([WIDE], PICTURE) is WIDE
    with pytest.raises(mien.SeveralFacesFound, match=r"3 faces found in party\.jpg") as several:
        mien.only(FACES, PICTURE)
    assert (several.value.count, several.value.source) == (3, "party.jpg")


def test_largest_and_central() -> None:
    assert mien.largest(FACES, PICTURE) is LARGE_ASIDE
    assert mien.central(FACES, PICTURE) is SMALL_CENTRAL


@pytest.mark.parametrize("choose", [mien.only, mien.largest, mien.central])
def test_no_face(choose: mien.detection.Choose) -> None:
    with pytest.raises(mien.NoFaceFound, match=r"party\.jpg") as caught:
        choose([], PICTURE)
    assert caught.value.source == "party.jpg"
