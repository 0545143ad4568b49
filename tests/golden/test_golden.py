"""Known answers on the two portraits, and proof that the usual mistakes would change them."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import PIL.Image
import pytest

import mien
from mien.types import AlignedFace, Face, Image, Landmarks

GOLDEN = json.loads(Path(__file__).with_name("golden.json").read_text(encoding="utf-8"))
NAMES = list(GOLDEN["pictures"])
SAME_WEIGHTS = 0.999  # cosine: other processors round otherwise, and no more than that
OTHER_PRECISION = 0.995


@pytest.fixture(scope="module")
def exact() -> mien.Recognizer:
    return mien.load(precision="fp32")


@pytest.fixture(scope="module")
def quantised() -> mien.Recognizer:
    return mien.load(precision="int8")


@pytest.fixture(params=NAMES)
def golden(request: pytest.FixtureRequest) -> Any:
    return GOLDEN["pictures"][request.param] | {"name": request.param}


@pytest.fixture
def image(golden: Any, eileen_file: Path) -> Image:
    return mien.read_image(eileen_file.with_name(golden["name"]))


@pytest.fixture
def face(golden: Any) -> Face:
    """The face as it was found when the answers were written down."""
    landmarks = Landmarks(np.array(golden["landmarks"], np.float32))
    return Face(mien.Box(*golden["box"]), landmarks, golden["confidence"])


def cosine(golden: Any, vector: np.ndarray) -> float:
    known = np.array(golden["vector"])
    return float(vector @ known / np.linalg.norm(known))


def of_crop(recognizer: mien.Recognizer, golden: Any, pixels: np.ndarray) -> float:
    crop = AlignedFace(np.ascontiguousarray(pixels), np.eye(2, 3), 0.0)
    return cosine(golden, recognizer.embedder.embed_batch([crop])[0])


def test_contract(exact: mien.Recognizer) -> None:
    """Vectors that were stored yesterday are compared with those of today."""
    assert exact.contract == GOLDEN["contract"]


def test_box_and_landmarks(exact: mien.Recognizer, golden: Any, image: Image) -> None:
    (found,) = exact.detector.detect(image)
    box = found.box
    np.testing.assert_allclose((box.left, box.top, box.right, box.bottom), golden["box"], atol=1)
    np.testing.assert_allclose(found.landmarks.points, golden["landmarks"], atol=1)
    assert found.confidence == pytest.approx(golden["confidence"], abs=0.01)


def test_vector(exact: mien.Recognizer, golden: Any, image: Image) -> None:
    assert cosine(golden, exact.embed(image).embedding.vector) >= SAME_WEIGHTS


def test_vector_of_int8(quantised: mien.Recognizer, golden: Any, image: Image) -> None:
    assert cosine(golden, quantised.embed(image).embedding.vector) >= OTHER_PRECISION


# ------------------------------------------------------------ mistakes that must not go unnoticed


def test_swapped_colours_would_fail(
    exact: mien.Recognizer, golden: Any, image: Image, face: Face
) -> None:
    crop = mien.align(image, face.landmarks, exact.frame)
    assert of_crop(exact, golden, crop.pixels) >= SAME_WEIGHTS
    assert of_crop(exact, golden, crop.pixels[..., ::-1]) < SAME_WEIGHTS


def test_a_mirrored_crop_would_fail(
    exact: mien.Recognizer, golden: Any, image: Image, face: Face
) -> None:
    crop = mien.align(image, face.landmarks, exact.frame)
    assert of_crop(exact, golden, crop.pixels[:, ::-1]) < SAME_WEIGHTS


def test_skipping_alignment_would_fail(
    exact: mien.Recognizer, golden: Any, image: Image, face: Face
) -> None:
    box = (face.box.left, face.box.top, face.box.right, face.box.bottom)
    crop = PIL.Image.fromarray(image.pixels).resize(exact.frame.size, box=box)
    assert of_crop(exact, golden, np.asarray(crop)) < OTHER_PRECISION


@pytest.mark.parametrize("towards", [(1, 0), (0, 1), (-1, 0), (0, -1)])
def test_shifted_landmarks_would_fail(
    exact: mien.Recognizer, golden: Any, image: Image, face: Face, towards: tuple[int, int]
) -> None:
    """By 5% of the distance between the eyes: 2 to 4 pixels here."""
    points = face.landmarks.points
    step = 0.05 * np.linalg.norm(points[1] - points[0]) * np.array(towards)
    shifted = Landmarks((points + step).astype(np.float32))
    crop = mien.align(image, shifted, exact.frame)
    assert of_crop(exact, golden, crop.pixels) < SAME_WEIGHTS


def test_eyes_swapped_would_fail(
    exact: mien.Recognizer, golden: Any, image: Image, face: Face
) -> None:
    swapped = Landmarks(face.landmarks.points[[1, 0, 2, 4, 3]])
    crop = mien.align(image, swapped, exact.frame)
    assert of_crop(exact, golden, crop.pixels) < OTHER_PRECISION
