"""Every detector of ours."""

import pytest
from detector_suite import DetectorSuite

import mien
from mien.cards import model_card
from mien.detection import Detector
from mien.detection.retinaface import RetinaFace
from mien.inference import open_session


class TestRetinaFace(DetectorSuite):
    @pytest.fixture(scope="class")
    @classmethod
    def detector(cls) -> Detector:
        card = model_card("retinaface-mobilenet025")
        return RetinaFace(card, open_session(card))


class TestRetinaFaceOfSmallFaces(DetectorSuite):
    @pytest.fixture(scope="class")
    @classmethod
    def detector(cls) -> Detector:
        return mien.load(min_face=20).detector
