"""Faces of every size in pictures of every size, found where they are."""

import numpy as np
import pytest

import mien
from mien.types import Face, Image
from pictures import resized


def expected(face: Face, image: Image, width: int, height: int) -> tuple[float, float, float]:
    """Middle and width of the known face in the picture brought to another size."""
    across, down = width / image.width, height / image.height
    x = (face.box.left + face.box.right + 1) / 2 * across - 0.5
    y = (face.box.top + face.box.bottom + 1) / 2 * down - 0.5
    return x, y, face.box.width * across


@pytest.mark.parametrize("face_width", [18, 20, 24, 32, 48, 96, 200, 400, 700, 1400])
@pytest.mark.parametrize("name", ["eileen", "grace"])
def test_face_of_any_size(
    recognizer: mien.Recognizer, name: str, face_width: int, request: pytest.FixtureRequest
) -> None:
    image: Image = request.getfixturevalue(name)
    (known,) = recognizer.detector.detect(image)
    factor = face_width / known.box.width
    width, height = round(image.width * factor), round(image.height * factor)
    found = recognizer.detector.detect(resized(image, width, height))
    assert found
    x, y, across = expected(known, image, width, height)
    box = found[0].box
    assert abs((box.left + box.right) / 2 - x) < 0.12 * across
    assert abs((box.top + box.bottom) / 2 - y) < 0.12 * across
    assert box.width == pytest.approx(across, rel=0.25)


@pytest.mark.parametrize("name", ["eileen", "grace"])
def test_picture_8000_pixels_wide(
    recognizer: mien.Recognizer, name: str, request: pytest.FixtureRequest
) -> None:
    image: Image = request.getfixturevalue(name)
    (known,) = recognizer.detector.detect(image)
    height = round(image.height * 8000 / image.width)
    large = resized(image, 8000, height)
    (found,) = recognizer.recognize(large)
    x, y, across = expected(known, image, 8000, height)
    box = found.face.box
    assert abs((box.left + box.right) / 2 - x) < 0.05 * across
    assert abs((box.top + box.bottom) / 2 - y) < 0.05 * across
    assert mien.similarity(found.embedding, recognizer.embed(image).embedding) >= 0.99


def test_small_face_in_a_large_picture(recognizer: mien.Recognizer, eileen: Image) -> None:
    """6 megapixels with a face of 24 pixels: found when small faces are asked for."""
    canvas = np.full((2000, 3000, 3), 128, np.uint8)
    canvas[1500:1628, 2000:2128] = resized(eileen, 128, 128).pixels
    picture = Image(canvas)
    assert recognizer.detector.detect(picture) == []
    (face,) = mien.load(min_face=12).detector.detect(picture)
    assert 2030 < face.box.left < face.box.right < 2080
    assert 1500 < face.box.top < face.box.bottom < 1560


@pytest.mark.parametrize("enlarge", [1, 2])
@pytest.mark.parametrize("name", ["eileen", "grace"])
def test_face_that_fills_the_picture(
    recognizer: mien.Recognizer, name: str, enlarge: int, request: pytest.FixtureRequest
) -> None:
    image: Image = request.getfixturevalue(name)
    (known,) = recognizer.detector.detect(image)
    box = known.box
    crop = np.ascontiguousarray(
        image.pixels[int(box.top) : int(box.bottom), int(box.left) : int(box.right)]
    )
    picture = resized(Image(crop), crop.shape[1] * enlarge, crop.shape[0] * enlarge)
    (face,) = recognizer.detector.detect(picture)
    assert face.box.width > 0.8 * picture.width
    assert face.box.height > 0.8 * picture.height


@pytest.mark.parametrize(("name", "enlarge"), [("grace", 4), ("eileen", 8), ("grace", 8)])
def test_large_face_that_fills_the_picture(
    recognizer: mien.Recognizer, name: str, enlarge: int, request: pytest.FixtureRequest
) -> None:
    test_face_that_fills_the_picture(recognizer, name, enlarge, request)


@pytest.mark.parametrize("size", [(40, 40), (40, 1), (64, 2000)])
def test_pictures_without_room_for_a_face(
    recognizer: mien.Recognizer, size: tuple[int, int]
) -> None:
    assert recognizer.recognize(np.full((*size, 3), 100, np.uint8)) == []
    with pytest.raises(mien.NoFaceFound):
        recognizer.embed(np.full((*size, 3), 100, np.uint8))


@pytest.mark.parametrize("name", ["eileen", "grace"])
def test_forty_pixels(
    recognizer: mien.Recognizer, name: str, request: pytest.FixtureRequest
) -> None:
    """A thumbnail of 40 pixels that is nearly all face."""
    image: Image = request.getfixturevalue(name)
    (known,) = recognizer.detector.detect(image)
    box, side = known.box, int(1.1 * known.box.height)
    left = int((box.left + box.right - side) / 2)
    top = int((box.top + box.bottom - side) / 2)
    crop = Image(np.ascontiguousarray(image.pixels[top : top + side, left : left + side]))
    (face,) = recognizer.detector.detect(resized(crop, 40, 40))
    assert 20 < face.box.width < 38
    assert 12 < (face.box.left + face.box.right) / 2 < 28
