"""mien.quality: real faces score well, each spoilt copy scores worse and for the right reason."""

from collections.abc import Callable

import cv2
import numpy as np
import PIL.Image
import PIL.ImageFilter
import pytest
from hypothesis import given
from hypothesis import strategies as st

import mien
from mien.alignment import align
from mien.cards import model_card
from mien.quality import BASE, COSTS, NAMED, assess, chance, costs_of, measures
from mien.types import Box, Face, Image, Landmarks

Spoil = Callable[[Image], Image]


def blurred(image: Image) -> Image:
    return Image(
        np.asarray(PIL.Image.fromarray(image.pixels).filter(PIL.ImageFilter.GaussianBlur(12)))
    )


def noisy(image: Image) -> Image:
    noise = np.random.default_rng(0).normal(0, 40, image.pixels.shape)
    return Image(np.clip(image.pixels + noise, 0, 255).astype(np.uint8))


def scaled(gain: float, offset: float) -> Spoil:
    def spoil(image: Image) -> Image:
        return Image(np.clip(image.pixels * gain + offset, 0, 255).astype(np.uint8))

    return spoil


@pytest.mark.parametrize("picture", ["eileen", "grace"])
def test_portraits_are_good(
    recognizer: mien.Recognizer, picture: str, request: pytest.FixtureRequest
) -> None:
    (face,) = recognizer.recognize(request.getfixturevalue(picture))
    assert face.quality.value > 0.9
    assert face.quality.reasons == ()


@pytest.mark.parametrize(
    ("spoil", "reason", "at_most"),
    [
        (blurred, "blurred", 0.3),
        (noisy, "noisy", 0.8),
        (scaled(0.02, 0), "too dark", 0.5),
        (scaled(0.05, 240), "too bright", 0.5),
        (scaled(0.03, 120), "low contrast", 0.5),
    ],
)
@pytest.mark.parametrize("picture", ["eileen", "grace"])
def test_spoilt_pictures(
    recognizer: mien.Recognizer,
    picture: str,
    spoil: Spoil,
    reason: str,
    at_most: float,
    request: pytest.FixtureRequest,
) -> None:
    image: Image = request.getfixturevalue(picture)
    (face,) = recognizer.detector.detect(image)
    quality = recognizer.assess(spoil(image), face)
    assert reason in quality.reasons
    assert quality.value < at_most


@pytest.mark.parametrize(
    ("points", "size", "reason"),
    [((0, 1), (0.42, 0.3), "eyes unclear"), ((2, 3, 4), (0.6, 0.4), "mouth unclear")],
)
@pytest.mark.parametrize("picture", ["eileen", "grace"])
def test_covered_faces(
    recognizer: mien.Recognizer,
    picture: str,
    points: tuple[int, ...],
    size: tuple[float, float],
    reason: str,
    request: pytest.FixtureRequest,
) -> None:
    """Dark glasses; something flat before the mouth."""
    image: Image = request.getfixturevalue(picture)
    (face,) = recognizer.detector.detect(image)
    marks = face.landmarks.points
    eyes = np.linalg.norm(marks[1] - marks[0])
    pixels = np.ascontiguousarray(image.pixels)
    for point in points:
        axes = tuple(int(s * eyes) for s in size)
        centre = (int(marks[point][0]), int(marks[point][1]))
        pixels = cv2.ellipse(pixels.copy(), centre, axes, 0, 0, 360, (40, 50, 60), -1)
    before, after = (recognizer.assess(picture, face) for picture in (image, Image(pixels)))
    assert after.value < before.value
    assert reason in after.reasons


def test_reasons_are_worst_first(
    recognizer: mien.Recognizer, eileen: Image, eileen_face: Face
) -> None:
    crop = align(blurred(eileen), eileen_face.landmarks, recognizer.frame)
    quality = assess(eileen_face, crop)
    costs = costs_of(measures(eileen_face, crop))
    assert len(quality.reasons) >= 2
    assert list(quality.reasons) == sorted(quality.reasons, key=lambda r: -costs[r])
    assert all(costs[reason] >= NAMED for reason in quality.reasons)


@pytest.mark.parametrize(
    ("width", "confidence", "reason"), [(20, 0.9999, "too small"), (96, 0.5, "detector unsure")]
)
def test_facts_of_the_detection_count(
    recognizer: mien.Recognizer,
    eileen: Image,
    eileen_face: Face,
    width: float,
    confidence: float,
    reason: str,
) -> None:
    """Little detail is put down to size where the face has fewer pixels than the measure."""
    soft = PIL.Image.fromarray(eileen.pixels).filter(PIL.ImageFilter.GaussianBlur(9))
    image = Image(np.asarray(soft)) if width < 64 else eileen
    aligned = align(image, eileen_face.landmarks, recognizer.frame)
    face = Face(Box(0, 0, width, 120), eileen_face.landmarks, confidence)
    assert reason in assess(face, aligned).reasons
    assert "blurred" not in assess(face, aligned).reasons


def test_turned_away(recognizer: mien.Recognizer, eileen: Image, eileen_face: Face) -> None:
    """The nose moved beyond the right eye, as in a profile."""
    points = eileen_face.landmarks.points.copy()
    points[2] = points[1] + [12, 25]
    face = Face(eileen_face.box, Landmarks(points), 0.9999)
    quality = recognizer.assess(eileen, face)
    assert "turned away" in quality.reasons
    assert quality.value < recognizer.assess(eileen, eileen_face).value


def test_the_smaller_the_worse(recognizer: mien.Recognizer, eileen: Image) -> None:
    values = []
    for side in (512, 256, 128, 96):
        small = PIL.Image.fromarray(eileen.pixels).resize((side, side))
        values.append(recognizer.recognize(small)[0].quality.value)
    assert values == sorted(values, reverse=True)
    assert values[-1] < values[0] - 0.3


@given(st.sampled_from(sorted(COSTS)), st.floats(-10, 300, width=32), st.floats(-10, 300, width=32))
def test_every_cost_only_grows_as_its_measure_gets_worse(reason: str, a: float, b: float) -> None:
    values, costs = COSTS[reason]
    falling = costs[0] > costs[-1]
    low, high = sorted((a, b), reverse=falling)
    assert costs_of({reason: low})[reason] <= costs_of({reason: high})[reason]
    assert list(values) == sorted(set(values))
    assert min(costs) == 0


def test_chance_against_its_formula() -> None:
    assert chance({}) == pytest.approx(1 / (1 + np.exp(BASE)))
    assert chance({"blurred": 1.5, "noisy": 0.5}) == pytest.approx(1 / (1 + np.exp(BASE + 2)))
    assert chance({"blurred": 600}) == pytest.approx(0)


@pytest.mark.parametrize("card", ["sface", "arcface-w600k-r50", "facenet-vggface2"])
def test_whatever_the_embedder(
    recognizer: mien.Recognizer, eileen: Image, eileen_face: Face, card: str
) -> None:
    """Measures are taken on one square, so crops of other embedders give nearly the same."""
    frame = model_card(card).input.frame
    assert frame
    other = assess(eileen_face, align(eileen, eileen_face.landmarks, frame))
    mine = recognizer.assess(eileen, eileen_face)
    assert other.value == pytest.approx(mine.value, abs=0.03)


def test_landmarks_far_outside_the_crop_still_give_an_answer(
    recognizer: mien.Recognizer, eileen: Image, eileen_face: Face
) -> None:
    points = eileen_face.landmarks.points + np.array([5000, -5000], np.float32)
    face = Face(eileen_face.box, Landmarks(points), 0.9)
    quality = recognizer.assess(eileen, face)  # a black crop
    assert 0 <= quality.value < 0.5
