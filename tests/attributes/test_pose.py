"""mien.head_pose: the rotation that made the landmarks; on pictures, what turning them does."""

import numpy as np
import PIL.Image
import pytest
from hypothesis import given
from hypothesis import strategies as st

import mien
from mien.pose import HEAD
from mien.types import Image, Landmarks


def seen(yaw: float, pitch: float, roll: float, scale: float = 60, far: float = 1e9) -> Landmarks:
    """The mean head, turned by angles in degrees and photographed from `far` eye distances."""
    y, p, r = np.radians([yaw, pitch, roll])
    # about the vertical (to the right of the picture), the ears' axis (up), the line of sight
    vertical = [[np.cos(y), 0, -np.sin(y)], [0, 1, 0], [np.sin(y), 0, np.cos(y)]]
    ears = [[1, 0, 0], [0, np.cos(p), np.sin(p)], [0, -np.sin(p), np.cos(p)]]
    sight = [[np.cos(r), -np.sin(r), 0], [np.sin(r), np.cos(r), 0], [0, 0, 1]]
    head = HEAD @ (np.array(sight) @ np.array(vertical) @ np.array(ears)).T
    flat = head[:, :2] * far / (far + head[:, 2:])
    return Landmarks((scale * flat + [300, 200]).astype(np.float32))


angles = st.floats(-60, 60)


@given(angles, angles)
def test_yaw_and_pitch_without_roll(yaw: float, pitch: float) -> None:
    """Which way the face looks: the direction, whatever made it."""
    pose = mien.head_pose(seen(yaw, 0, 0))
    assert (pose.yaw, pose.pitch, pose.roll) == pytest.approx((yaw, 0, 0), abs=0.01)
    pose = mien.head_pose(seen(0, pitch, 0))
    assert (pose.yaw, pose.pitch, pose.roll) == pytest.approx((0, pitch, 0), abs=0.01)


@given(st.floats(-170, 170))
def test_roll(roll: float) -> None:
    pose = mien.head_pose(seen(0, 0, roll))
    assert (pose.yaw, pose.pitch, pose.roll) == pytest.approx((0, 0, roll), abs=0.01)


@given(angles, st.floats(-40, 40), st.floats(-40, 40), st.floats(1, 500))
def test_size_and_place_do_not_matter(yaw: float, pitch: float, roll: float, scale: float) -> None:
    one, other = (mien.head_pose(seen(yaw, pitch, roll, s)) for s in (60, scale))
    assert (one.yaw, one.pitch, one.roll) == pytest.approx(
        (other.yaw, other.pitch, other.roll), abs=0.05
    )


def test_a_near_camera_costs_little() -> None:
    """At 60 cm (ten eye distances) perspective is real; the method takes the camera to be far."""
    for yaw in (-30, 0, 30):
        pose = mien.head_pose(seen(yaw, 10, 0, far=10))
        assert pose.yaw == pytest.approx(yaw, abs=3)
        assert pose.pitch == pytest.approx(10, abs=4)


def test_landmarks_in_one_place() -> None:
    pose = mien.head_pose(Landmarks(np.full((5, 2), 7, np.float32)))
    assert (pose.yaw, pose.pitch, pose.roll) == (0, 0, 0)


@pytest.mark.parametrize("angle", [-20, 12])
def test_a_turned_picture(recognizer: mien.Recognizer, eileen: Image, angle: float) -> None:
    before = mien.head_pose(recognizer.detector.detect(eileen)[0].landmarks)
    turned = PIL.Image.fromarray(eileen.pixels).rotate(-angle, PIL.Image.Resampling.BICUBIC)
    (face, *_) = recognizer.detector.detect(Image(np.asarray(turned)))
    after = mien.head_pose(face.landmarks)
    assert after.roll - before.roll == pytest.approx(angle, abs=4)


@pytest.mark.parametrize("portrait", ["eileen", "grace"])
def test_a_mirrored_picture(
    recognizer: mien.Recognizer, portrait: str, request: pytest.FixtureRequest
) -> None:
    image: Image = request.getfixturevalue(portrait)
    mirrored = Image(np.ascontiguousarray(image.pixels[:, ::-1]))
    one, other = (
        mien.head_pose(recognizer.detector.detect(picture)[0].landmarks)
        for picture in (image, mirrored)
    )
    assert one.yaw == pytest.approx(-other.yaw, abs=3)
    assert one.roll == pytest.approx(-other.roll, abs=3)
    assert one.pitch == pytest.approx(other.pitch, abs=5)
