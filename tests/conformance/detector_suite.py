"""What any `mien.detection.Detector` must do. Run it on yours:

class TestMyDetector(DetectorSuite):
    @pytest.fixture(scope="class")
    @classmethod
    def detector(cls):
        return MyDetector()
"""

from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest

from mien.detection import Detector
from mien.types import Face, Image


def same(a: Face, b: Face) -> bool:
    return (
        a.box == b.box
        and a.confidence == b.confidence
        and np.array_equal(a.landmarks.points, b.landmarks.points)
    )


class DetectorSuite:
    """A subclass says how to make the detector, and how far a landmark may tremble.

    `steady` is that share of the width of a face; half of it where all of them move together.
    """

    steady = 0.05

    @pytest.fixture(scope="class")
    @classmethod
    def detector(cls) -> Detector:
        raise NotImplementedError("say how to make the detector")

    def test_is_a_detector(self, detector: Detector) -> None:
        assert isinstance(detector, Detector)
        assert detector.card.task == "detection"

    @pytest.mark.parametrize("picture", ["eileen", "grace"])
    def test_finds_the_face(
        self, detector: Detector, picture: str, request: pytest.FixtureRequest
    ) -> None:
        image: Image = request.getfixturevalue(picture)
        (face,) = detector.detect(image)
        assert 0.9 < face.confidence <= 1
        assert face.landmarks.points.dtype == np.float32
        box = face.box
        assert 0.1 * image.width < box.width < 0.5 * image.width
        left, right, nose, mouth_left, mouth_right = face.landmarks.points
        for x, y in face.landmarks.points:
            assert box.left < x < box.right
            assert box.top < y < box.bottom
        assert left[0] < nose[0] < right[0]  # left and right are as seen in the picture
        assert mouth_left[0] < mouth_right[0]
        assert max(left[1], right[1]) < nose[1] < min(mouth_left[1], mouth_right[1])

    def test_mirrored_points_change_sides(self, detector: Detector, eileen: Image) -> None:
        (face,) = detector.detect(eileen)
        (mirror,) = detector.detect(Image(np.ascontiguousarray(eileen.pixels[:, ::-1])))
        back = mirror.landmarks.points * [-1, 1] + [eileen.width - 1, 0]
        gap = np.abs(back[[1, 0, 2, 4, 3]] - face.landmarks.points)
        assert gap.max() < self.steady * face.box.width

    def test_most_confident_first(self, detector: Detector, both: Image) -> None:
        faces = detector.detect(both)
        assert len(faces) == 2
        assert faces[0].confidence >= faces[1].confidence
        assert sorted(face.box.left > 512 for face in faces) == [False, True]

    @pytest.mark.parametrize("grey", [0, 127, 255])
    def test_no_face(self, detector: Detector, grey: int) -> None:
        assert detector.detect(Image(np.full((300, 400, 3), grey, np.uint8))) == []

    def test_no_face_in_noise(self, detector: Detector) -> None:
        noise = np.random.default_rng(0).integers(0, 256, (300, 400, 3), np.uint8)
        assert detector.detect(Image(noise)) == []

    @pytest.mark.parametrize(
        "size", [(1, 1), (1, 500), (500, 1), (2, 3), (31, 33), (1, 5000), (40, 40)]
    )
    def test_any_size(self, detector: Detector, size: tuple[int, int]) -> None:
        assert detector.detect(Image(np.full((*size, 3), 90, np.uint8))) == []

    def test_same_every_time_from_any_thread(self, detector: Detector, both: Image) -> None:
        expected = detector.detect(both)
        with ThreadPoolExecutor(4) as pool:
            for faces in pool.map(detector.detect, [both] * 8):
                assert len(faces) == len(expected)
                assert all(map(same, faces, expected))

    def test_leaves_the_picture_alone(self, detector: Detector, eileen: Image) -> None:
        mine = Image(eileen.pixels.copy())
        detector.detect(mine)
        assert np.array_equal(mine.pixels, eileen.pixels)

    @pytest.mark.parametrize("shift", [(1, 0), (0, 5), (40, 17), (333, 100)])
    def test_face_moves_with_the_picture(
        self, detector: Detector, eileen: Image, shift: tuple[int, int]
    ) -> None:
        right, down = shift
        padded = np.pad(eileen.pixels, ((down, 0), (right, 0), (0, 0)), constant_values=128)
        (face,), (moved,) = detector.detect(eileen), detector.detect(Image(padded))
        gap = moved.landmarks.points - shift - face.landmarks.points
        assert np.abs(gap).max() < self.steady * face.box.width
        assert abs(gap.mean(axis=0)).max() < self.steady / 2 * face.box.width
