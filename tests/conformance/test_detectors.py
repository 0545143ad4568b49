"""Every detector that is here: the one inside mien, and those that were fetched or imported."""

import pytest
from detector_suite import DetectorSuite

import mien
from mien.cards import model_card, model_ids
from mien.detection import Detector
from mien.recognition import load_detector
from mien.weights import is_present

HERE = [c for c in map(model_card, model_ids()) if c.task == "detection" and is_present(c)]


STEADY = [card for card in HERE if card.id != "yunet-s"]


class TestDetectors(DetectorSuite):
    @pytest.fixture(scope="class", params=STEADY, ids=[card.id for card in STEADY])
    @classmethod
    def detector(cls, request: pytest.FixtureRequest) -> Detector:
        return load_detector(request.param)


class TestYuNetS(DetectorSuite):
    steady = 0.08  # measured: less steady than its larger sister

    @pytest.fixture(scope="class")
    @classmethod
    def detector(cls) -> Detector:
        card = model_card("yunet-s")
        if card not in HERE:
            pytest.skip("yunet-s is not here: 'mien models fetch yunet-s' brings it")
        return load_detector(card)


class TestRetinaFaceOfSmallFaces(DetectorSuite):
    @pytest.fixture(scope="class")
    @classmethod
    def detector(cls) -> Detector:
        return mien.load(min_face=20).detector
