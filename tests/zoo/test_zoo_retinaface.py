"""RetinaFace as its PyTorch scripts export it, for every card that is of one.

The weights of these are not here. What stands in for them is the network inside mien behind the
published contract: planes of blue, green and red less their means in, boxes, probabilities and
landmarks out. A detector that reads a card and the outputs right gives the default's faces.
"""

from collections.abc import Sequence

import numpy as np
import pytest
from numpy.typing import NDArray

import mien
from mien.cards import ModelCard, model_card, model_ids
from mien.detection.retinaface import RetinaFace, exported
from mien.inference import Batch, open_session
from mien.types import Image

EXPORTS = [card for card in map(model_card, model_ids()) if card.decoder == "retinaface-export"]
MEANS = np.array([104, 117, 123], np.float32).reshape(3, 1, 1)  # as published: blue, green, red


@pytest.fixture(scope="module")
def inside() -> RetinaFace:
    detector = mien.load().detector
    assert isinstance(detector, RetinaFace)
    return detector


def as_published(batch: Batch) -> Sequence[NDArray[np.float32]]:
    """The outputs of an export, in its order, from the input of an export."""
    assert batch.dtype == np.float32
    planes = batch + MEANS
    pixels = planes[:, ::-1].transpose(0, 2, 3, 1)  # red first, channels last
    session = open_session(model_card("retinaface-mobilenet025"))
    scores, boxes, marks = session(np.ascontiguousarray(pixels.round().astype(np.uint8)))
    return boxes, np.stack([1 - scores, scores], axis=-1), marks


def test_there_are_exports() -> None:
    assert {"retinaface-r50", "retinaface-mobilenet050"} <= {card.id for card in EXPORTS}


@pytest.mark.parametrize("card", EXPORTS, ids=[card.id for card in EXPORTS])
def test_an_export_finds_what_the_default_finds(
    card: ModelCard, inside: RetinaFace, both: Image, eileen: Image
) -> None:
    detector = exported(card, as_published)
    for image in (eileen, both):
        expected, found = inside.detect(image), detector.detect(image)
        assert len(found) == len(expected) > 0
        for ours, theirs in zip(found, expected, strict=True):
            assert ours.box == theirs.box
            assert ours.confidence == theirs.confidence
            np.testing.assert_array_equal(ours.landmarks.points, theirs.landmarks.points)
