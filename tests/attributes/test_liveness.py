"""mien.attributes.liveness: the crops of the original, and answers with their error rates."""

from dataclasses import replace

import cv2
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

import mien
from mien import cards
from mien.attributes.liveness import CONTEXTS, MiniFasNet, crop
from mien.errors import ModelError
from mien.inference import open_sessions
from mien.types import Box, Face, Image, LivenessPoint, Pixels

RANDOM = np.random.default_rng(4)
SCENE = cv2.GaussianBlur(RANDOM.integers(0, 256, (300, 400, 3), np.uint8), (0, 0), 1.5)


def original(pixels: Pixels, box: Box, context: float) -> Pixels:
    """What the published code crops, by its own arithmetic and OpenCV."""
    height, width = pixels.shape[:2]
    x, y = int(box.left), int(box.top)
    w, h = int(box.right - box.left + 1), int(box.bottom - box.top + 1)
    scale = min((height - 1) / h, (width - 1) / w, context)
    middle = np.array([w / 2 + x, h / 2 + y])
    half = np.array([w, h]) * scale / 2
    low, high = middle - half, middle + half
    for axis, end in enumerate((width - 1, height - 1)):
        if low[axis] < 0:
            high[axis] -= low[axis]
            low[axis] = 0
        if high[axis] > end:
            low[axis] -= high[axis] - end
            high[axis] = end
    (left, top), (right, bottom) = low.astype(int), high.astype(int)
    part = pixels[max(top, 0) : bottom + 1, max(left, 0) : right + 1]
    return np.asarray(cv2.resize(part, (80, 80)))


@given(
    st.floats(-20, 380), st.floats(-20, 280), st.floats(8, 250), st.floats(8, 250),
    st.sampled_from(CONTEXTS),
)  # fmt: skip
def test_crops_are_those_of_the_original(
    left: float, top: float, width: float, height: float, context: float
) -> None:
    """To one grey level: OpenCV rounds its weights to eleven bits."""
    box = Box(left, top, left + width, top + height)
    expected = original(SCENE, box, context)
    found = crop(Image(SCENE), box, context)
    assert np.abs(found.astype(int) - expected).max() <= 1


def test_scores_hardly_depend_on_that_rounding(eileen: Image, eileen_face: Face) -> None:
    card = cards.model_card("minifasnet")
    network = MiniFasNet(card, open_sessions(card))
    (score,) = network.scores(eileen, [eileen_face])
    shares = []
    for session, context in zip(network.sessions, CONTEXTS, strict=True):
        (logits,) = session(original(eileen.pixels, eileen_face.box, context)[None])
        powers = np.exp(logits[0] - logits.max())
        shares.append(powers[1] / powers.sum())
    assert score == pytest.approx(np.mean(shares), abs=0.01)


def test_answers_carry_their_error_rates(eileen: Image, eileen_face: Face) -> None:
    (seen,) = mien.load_analyzer(["liveness"]).analyze(eileen, [eileen_face])
    assert seen.liveness
    point = seen.liveness.operating_point
    assert seen.liveness.live == (seen.liveness.score >= point.threshold)
    assert 0 < point.threshold < 1
    assert 0 <= point.apcer <= 1
    assert 0 < point.bpcer <= 1
    assert "simulated" in point.protocol


def test_points_of_the_card_agree_with_one_another() -> None:
    """A stricter threshold lets fewer attacks pass and refuses more living people."""
    points = cards.model_card("minifasnet").liveness_points
    assert len(points) >= 2
    by_threshold = sorted(points, key=lambda point: point.threshold)
    assert [p.apcer for p in by_threshold] == sorted((p.apcer for p in points), reverse=True)
    assert [p.bpcer for p in by_threshold] == sorted(p.bpcer for p in points)


def test_the_threshold_is_reached_by_being_equal() -> None:
    point = LivenessPoint(0.5, 0.1, 0.1, "a protocol")
    assert point.accepts(0.5)
    assert not point.accepts(np.nextafter(0.5, 0))


def test_no_answer_without_a_measured_threshold(eileen: Image, eileen_face: Face) -> None:
    card = cards.model_card("minifasnet")
    unmeasured = MiniFasNet(replace(card, liveness_points=()), open_sessions(card))
    with pytest.raises(ModelError, match="was measured"):
        unmeasured.answer(eileen, [eileen_face])


def test_one_network_is_not_two(eileen: Image, eileen_face: Face) -> None:
    card = cards.model_card("minifasnet")
    with pytest.raises(ModelError, match="2 networks"):
        MiniFasNet(card, open_sessions(card)[:1]).answer(eileen, [eileen_face])


@pytest.mark.parametrize("box", [Box(3, 3, 3, 3), Box(-50, -50, -10, -10), Box(900, 900, 990, 990)])
def test_hopeless_boxes_still_crop(eileen: Image, box: Box) -> None:
    assert crop(eileen, box, 2.7).shape == (80, 80, 3)
