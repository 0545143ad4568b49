"""Which face is which from one detection to the next: pure functions on boxes and vectors.

A track moves on with constant velocity between detections (an alpha-beta filter: Kalata, "The
tracking index", 1984). A detection belongs to the track that it overlaps and resembles most. Both
are numbers in [-1, 1], added: generalised IoU (Rezatofighi and others, 2019) for the place, and for
the look a score read on the scale of the model's own operating points. A pair needs a sum above 0:
where two people cross, the places say nothing and the looks decide; a cut to another person in the
same place starts a new track; a person who was hidden is found again elsewhere.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from mien import decision
from mien.errors import NoOperatingPoint
from mien.types import Box, OperatingPoint

COASTING = 1.0
"""Seconds for which a face that is not seen is taken to move on; then it waits where it is."""

_GAIN = 0.5  # of the filter's velocity: smooths the jitter of boxes, follows a turn in 2 or 3 steps

Affinity = NDArray[np.float64]  # (tracks, detections), in [-2, 2]; a pair needs more than 0


@dataclass(frozen=True, slots=True)
class Motion:
    """Where a face was last seen, and how it moves, in pixels and seconds."""

    box: Box
    time: float
    velocity: tuple[float, float] | None = None  # None: seen once

    def at(self, time: float) -> Box:
        """Where the face is expected at a time."""
        ahead = min(max(0.0, time - self.time), COASTING)
        x, y = (speed * ahead for speed in self.velocity or (0.0, 0.0))
        box = self.box
        return Box(box.left + x, box.top + y, box.right + x, box.bottom + y)

    def seen(self, box: Box, time: float) -> "Motion":
        """The motion after a detection. What was lost for longer than it coasts starts anew."""
        passed = time - self.time
        if passed <= 0 or passed > COASTING:
            return Motion(box, time, self.velocity if passed <= 0 else None)
        expected = self.at(time)
        wrong = _centre(box) - _centre(expected)
        gain = 1.0 if self.velocity is None else _GAIN
        x, y = np.array(self.velocity or (0.0, 0.0)) + gain * wrong / passed
        return replace(self, box=box, time=time, velocity=(float(x), float(y)))


def resemblance(points: Sequence[OperatingPoint], contract: str) -> Callable[[float], float]:
    """Scores to [-1, 1] on a model's own scale: 0 where both errors are equally likely, 1 where
    false matches are ten times rarer than there, and in a straight line on to -1.

    Raises `NoOperatingPoint` when the model was never measured.
    """
    even, sure = _landmarks(points, contract)
    return lambda score: float(np.clip((score - even) / (sure - even), -1.0, 1.0))


def all_but_the_same(points: Sequence[OperatingPoint], contract: str) -> float:
    """The score of two faces of one person that hardly differ, as on neighbouring frames: three
    quarters of the way from where `resemblance` is 1 to identical."""
    return 0.25 * _landmarks(points, contract)[1] + 0.75


def _landmarks(points: Sequence[OperatingPoint], contract: str) -> tuple[float, float]:
    """Where both errors are equally likely, and where false matches are ten times rarer."""
    if not points:
        raise NoOperatingPoint(contract, 0.01, None)
    ordered = sorted(points, key=lambda point: point.threshold)
    excess = [point.fnmr - point.fmr for point in ordered]  # rises with the threshold
    even = float(np.interp(0.0, excess, [point.threshold for point in ordered]))
    rarer = max(decision.impostor_rate(points, even) / 10, min(point.fmr for point in points))
    sure = decision.operating_point(points, rarer, contract).threshold
    return even, max(sure, even + 1e-6)


def assign(affinity: Affinity) -> list[tuple[int, int]]:
    """Pairs of (track, detection), each at most once, the best first, all above 0."""
    pairs = []
    left = affinity.copy()
    while left.size and left.max() > 0:
        track, detection = map(int, np.unravel_index(left.argmax(), left.shape))
        pairs.append((track, detection))
        left[track, :] = left[:, detection] = -np.inf
    return pairs


def _centre(box: Box) -> NDArray[np.float64]:
    return np.array([(box.left + box.right) / 2, (box.top + box.bottom) / 2])
