"""mien.quality: real faces score well, each spoilt copy is refused for the right reason."""

from collections.abc import Callable

import numpy as np
import PIL.Image
import PIL.ImageFilter
import pytest

import mien
from mien.alignment import align
from mien.quality import LIMITING, assess
from mien.types import Box, Face, Image, Landmarks

Spoil = Callable[[Image], Image]


def blurred(image: Image) -> Image:
    return Image(
        np.asarray(PIL.Image.fromarray(image.pixels).filter(PIL.ImageFilter.GaussianBlur(12)))
    )


def scaled(gain: float, offset: float) -> Spoil:
    def spoil(image: Image) -> Image:
        return Image(np.clip(image.pixels * gain + offset, 0, 255).astype(np.uint8))

    return spoil


@pytest.mark.parametrize("picture", ["eileen", "grace"])
def test_portraits_are_good(
    recognizer: mien.Recognizer, picture: str, request: pytest.FixtureRequest
) -> None:
    (face,) = recognizer.recognize(request.getfixturevalue(picture))
    assert face.quality.value > 0.8
    assert face.quality.reasons == ()


@pytest.mark.parametrize(
    ("spoil", "reason"),
    [
        (blurred, "blurred"),
        (scaled(0.1, 0), "too dark"),
        (scaled(0.05, 240), "too bright"),
        (scaled(0.05, 120), "low contrast"),
    ],
)
@pytest.mark.parametrize("picture", ["eileen", "grace"])
def test_spoilt_pictures(
    recognizer: mien.Recognizer,
    picture: str,
    spoil: Spoil,
    reason: str,
    request: pytest.FixtureRequest,
) -> None:
    image: Image = request.getfixturevalue(picture)
    (face,) = recognizer.detector.detect(image)
    quality = recognizer.assess(spoil(image), face)
    assert reason in quality.reasons
    assert quality.value < LIMITING


def test_reasons_are_worst_first(
    recognizer: mien.Recognizer, eileen: Image, eileen_face: Face
) -> None:
    dark = scaled(0.02, 0)(eileen)  # darker than the darkest: 0; contrast: nearly 0
    quality = recognizer.assess(dark, eileen_face)
    assert quality.reasons[0] in ("too dark", "low contrast", "blurred")
    assert len(quality.reasons) >= 2
    assert quality.value == 0


@pytest.mark.parametrize(
    ("width", "confidence", "reason"), [(20, 0.99, "too small"), (96, 0.5, "detector unsure")]
)
def test_facts_of_the_detection_count(
    recognizer: mien.Recognizer,
    eileen: Image,
    eileen_face: Face,
    width: float,
    confidence: float,
    reason: str,
) -> None:
    aligned = align(eileen, eileen_face.landmarks, recognizer.frame)
    face = Face(Box(0, 0, width, 120), eileen_face.landmarks, confidence)
    assert assess(face, aligned).reasons == (reason,)


def test_turned_away(recognizer: mien.Recognizer, eileen: Image, eileen_face: Face) -> None:
    """The nose moved towards the right eye, as in a half profile."""
    points = eileen_face.landmarks.points.copy()
    points[2] = points[1] + [0, 25]
    face = Face(eileen_face.box, Landmarks(points), 0.99)
    quality = recognizer.assess(eileen, face)
    assert "turned away" in quality.reasons


def test_the_smaller_the_worse(recognizer: mien.Recognizer, eileen: Image) -> None:
    values = []
    for side in (512, 256, 160, 128):
        small = PIL.Image.fromarray(eileen.pixels).resize((side, side))
        values.append(recognizer.recognize(small)[0].quality.value)
    assert values == sorted(values, reverse=True)
    assert values[-1] < values[0] - 0.3
