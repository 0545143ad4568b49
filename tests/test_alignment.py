"""mien.alignment: where the warp samples, how exactly, and the fixed jitter."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import mien
from mien.alignment import align, align_views
from mien.cards import model_card
from mien.geometry import invert, transform_points
from mien.types import Frame, Image, Landmarks

FRAME = model_card("dlib-resnet-v1").input.frame
assert FRAME is not None
TEMPLATE = np.array(FRAME.template)


def placed(scale: float, degrees: float, x: float, y: float) -> Landmarks:
    """The template enlarged, turned about its middle and put at (x, y) in a picture."""
    angle = np.radians(degrees)
    turn = scale * np.array([[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]])
    points = (TEMPLATE - TEMPLATE.mean(axis=0)) @ turn.T + [x, y]
    return Landmarks(points.astype(np.float32))


def gradient(width: int, height: int) -> Image:
    """Red grows to the right and green downwards by a whole number a pixel; blue is flat."""
    y, x = np.mgrid[0:height, 0:width]
    return Image(np.stack([x, y, np.full_like(x, 100)], -1).astype(np.uint8))


def pixel_centres(frame: Frame) -> np.ndarray:
    width, height = frame.size
    y, x = np.mgrid[0:height, 0:width]
    return np.stack([x, y], -1).reshape(-1, 2).astype(float)


# ------------------------------------------------------------------------------ exactness


@pytest.mark.parametrize("degrees", [0.7, 17, -40, 91, 181])
@pytest.mark.parametrize("scale", [0.31, 0.73, 1.07, 1.33])
def test_warp_samples_where_the_transform_says(scale: float, degrees: float) -> None:
    """A gradient has the value of the place: half a pixel off would be half a level off.

    Pillow rounds the blend of four pixels down, so half a level is expected, with either sign of
    the gradient; that tells rounding from displacement, which changes sign.
    """
    image = gradient(250, 250)
    backwards = Image(np.ascontiguousarray(255 - image.pixels))
    offsets = []
    for picture in (image, backwards):
        crop = align(picture, placed(scale, degrees, 125, 125), FRAME)
        places = transform_points(invert(crop.transform), pixel_centres(FRAME))
        inside = ((places > 2) & (places < 247)).all(axis=1)
        assert inside.sum() > 10_000
        exact = places if picture is image else 255 - places
        miss = crop.pixels.reshape(-1, 3)[:, :2][inside] - exact[inside]
        assert miss.min() > -1.01
        assert miss.max() < 0.01
        offsets.append(miss.mean(axis=0))
    displacement = (offsets[0] - offsets[1]) / 2
    assert np.abs(displacement).max() < 0.06


@pytest.mark.parametrize("scale", [2.0, 2.5, 3.7, 5.0])
def test_warp_of_large_faces_is_not_displaced(scale: float) -> None:
    """Large faces are reduced by whole factors first; the gradient has a slope of 1/4 here."""
    side = 1000
    y, x = np.mgrid[0:side, 0:side] / 4
    image = Image(np.stack([x, y, y], -1).round().astype(np.uint8))
    backwards = Image(np.ascontiguousarray(255 - image.pixels))
    landmarks = placed(scale, 11, 501.3, 498.6)
    offsets = []
    for picture in (image, backwards):
        crop = align(picture, landmarks, FRAME)
        places = transform_points(invert(crop.transform), pixel_centres(FRAME))
        inside = ((places > 20) & (places < side - 20)).all(axis=1)
        exact = places / 4 if picture is image else 255 - places / 4
        miss = crop.pixels.reshape(-1, 3)[:, :2][inside] - exact[inside]
        assert np.abs(miss).max() < 1.5
        offsets.append(miss.mean(axis=0))
    displacement = 4 * (offsets[0] - offsets[1]) / 2  # in pixels of the picture
    assert np.abs(displacement).max() < 0.15


def test_identity_copies_pixels() -> None:
    """Landmarks that lie on the template already: the crop is the picture, to the last bit."""
    pixels = np.random.default_rng(0).integers(0, 256, (150, 150, 3), np.uint8)
    crop = align(Image(pixels), Landmarks(TEMPLATE.astype(np.float32)), FRAME)
    inner = np.abs(crop.pixels[1:-1, 1:-1].astype(int) - pixels[1:-1, 1:-1])
    assert inner.max() <= 1  # the landmarks are float32
    assert crop.residual < 1e-6


def test_outside_the_picture_is_black(eileen: Image) -> None:
    crop = align(eileen, placed(1.0, 0, 0, 250), FRAME)
    places = transform_points(invert(crop.transform), pixel_centres(FRAME))
    outside = (places[:, 0] < -1).reshape(crop.pixels.shape[:2])
    assert 5_000 < outside.sum() < 20_000
    assert not crop.pixels[outside].any()
    assert crop.pixels[~outside].any()


@pytest.mark.parametrize("where", [(-5000, 100), (100, 90000), (5000, -5000)])
def test_face_wholly_outside_is_black(eileen: Image, where: tuple[float, float]) -> None:
    crop = align(eileen, placed(1.0, 10, *where), FRAME)
    assert crop.pixels.shape == (150, 150, 3)
    assert not crop.pixels.any()


@pytest.mark.parametrize("size", [(1, 1), (1, 500), (500, 1), (7, 9)])
@pytest.mark.parametrize("scale", [0.01, 1, 40])
def test_any_size(size: tuple[int, int], scale: float) -> None:
    pixels = np.full((*size, 3), 200, np.uint8)
    crop = align(Image(pixels), placed(scale, 30, size[1] / 2, size[0] / 2), FRAME)
    assert crop.pixels.shape == (150, 150, 3)
    assert crop.pixels.dtype == np.uint8


# ------------------------------------------------------------------------------ landmarks


@settings(max_examples=30, deadline=None)
@given(
    scale=st.floats(0.2, 4),
    degrees=st.floats(-180, 180),
    x=st.floats(-100, 600),
    y=st.floats(-100, 600),
)
def test_landmarks_land_on_the_template(
    eileen: Image, scale: float, degrees: float, x: float, y: float
) -> None:
    landmarks = placed(scale, degrees, x, y)
    crop = align(eileen, landmarks, FRAME)
    np.testing.assert_allclose(
        transform_points(crop.transform, landmarks.points), TEMPLATE, atol=0.01
    )
    assert crop.residual < 1e-3


def test_residual_is_a_share_of_the_eye_distance() -> None:
    """Against the least-squares fit of (a, b, x, y) in x' = a x - b y + x0, y' = b x + a y + y0."""
    points = (TEMPLATE + np.random.default_rng(0).normal(0, 6, (5, 2))).astype(np.float32)
    x, y = points.T.astype(float)
    one, zero = np.ones(5), np.zeros(5)
    system = np.concatenate(
        [np.stack([x, -y, one, zero], axis=1), np.stack([y, x, zero, one], axis=1)]
    )
    target = TEMPLATE.T.ravel()
    solution = np.linalg.lstsq(system, target)[0]
    squares = ((system @ solution - target) ** 2).sum()
    eyes = np.linalg.norm(TEMPLATE[1] - TEMPLATE[0])
    crop = align(gradient(200, 200), Landmarks(points), FRAME)
    assert crop.residual == pytest.approx(np.sqrt(squares / 5) / eyes, rel=1e-5)
    assert crop.residual > 0.02


@pytest.mark.parametrize("degrees", [-25, -10, 10, 25])
def test_a_turned_picture_gives_the_same_crop(
    eileen: Image, recognizer: mien.Recognizer, degrees: float
) -> None:
    """Turned by exact arithmetic on the landmarks, not by detecting again."""
    import PIL.Image

    (face,) = recognizer.detector.detect(eileen)
    middle = np.array([(eileen.width - 1) / 2, (eileen.height - 1) / 2])
    angle = np.radians(degrees)
    turn = np.array([[np.cos(angle), np.sin(angle)], [-np.sin(angle), np.cos(angle)]])
    points = (face.landmarks.points - middle) @ turn.T + middle
    turned = PIL.Image.fromarray(eileen.pixels).rotate(degrees, PIL.Image.Resampling.BICUBIC)
    straight = align(eileen, face.landmarks, FRAME).pixels.astype(float)
    again = align(
        Image(np.asarray(turned)), Landmarks(points.astype(np.float32)), FRAME
    ).pixels.astype(float)
    assert np.abs(straight - again).mean() < 3


# ------------------------------------------------------------------------------ views


def test_views_start_with_the_exact_crop(eileen: Image, recognizer: mien.Recognizer) -> None:
    (face,) = recognizer.detector.detect(eileen)
    exact = align(eileen, face.landmarks, FRAME)
    views = align_views(eileen, face.landmarks, FRAME, 8)
    assert len(views) == 8
    assert np.array_equal(views[0].pixels, exact.pixels)
    assert np.array_equal(views[0].transform, exact.transform)
    assert len({view.pixels.tobytes() for view in views}) == 8


def test_views_are_the_same_every_time(eileen: Image, recognizer: mien.Recognizer) -> None:
    (face,) = recognizer.detector.detect(eileen)
    few, many = (align_views(eileen, face.landmarks, FRAME, count) for count in (3, 8))
    for a, b in zip(few, many, strict=False):
        assert np.array_equal(a.pixels, b.pixels)


def test_views_stay_close_and_every_second_is_mirrored(eileen: Image) -> None:
    landmarks = placed(1.0, 0, 250, 250)
    for number, view in enumerate(align_views(eileen, landmarks, FRAME, 12)):
        linear = view.transform[:, :2]
        mirrored = np.linalg.det(linear) < 0
        assert mirrored == bool(number % 2)
        assert 0.95 < abs(np.linalg.det(linear)) ** 0.5 < 1.08
        middle = transform_points(view.transform, np.array([[250.0, 250.0]]))[0]
        straight = TEMPLATE.mean(axis=0)
        if mirrored:
            straight = np.array([149 - straight[0], straight[1]])
        assert np.abs(middle - straight).max() < 10


def test_coincident_landmarks_are_refused(eileen: Image) -> None:
    """Five times the same point is no face; the answer is mien's, not numpy's."""
    points = Landmarks(np.full((5, 2), 100, np.float32))
    with pytest.raises(mien.InputError, match="one place"):
        align(eileen, points, FRAME)
