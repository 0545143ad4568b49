"""How usable a face is for recognition, and what limits it.

Each measure costs something: how much likelier, in log-odds, a face that is poor in this respect is
missed when it is compared with another picture of the same person. The costs add up, and quality is
the chance that remains of being recognised. The costs were fitted to error rates
(benchmarks/quality.py --fit), each so that it only grows as its measure gets worse.
"""

import math
from collections.abc import Mapping

import numpy as np
import PIL.Image
from numpy.typing import NDArray

from mien.geometry import transform_points
from mien.pose import head_pose
from mien.types import AlignedFace, Face, Quality

SIDE = 64
FRAME = np.array(
    [[17.74, 19.635], [45.53, 19.575], [31.205, 35.93], [19.745, 49.43], [42.62, 49.425]]
)
"""Where the landmarks lie in the grey square that measures are taken on, whatever the embedder."""

_CENTRE = FRAME.mean(axis=0)
_SPREAD = FRAME - _CENTRE

BASE = -3.02
"""Log-odds that a face without any fault is missed, at FMR 1e-3, against a typical picture."""

COSTS: Mapping[str, tuple[tuple[float, ...], tuple[float, ...]]] = {
    "detector unsure": ((-3.5, -3, -2.5, -2, -1, 0), (0, 0.22, 0.71, 1.21, 2.2, 3.2)),
    "turned away": ((15, 25, 35, 90), (0, 0.09, 0.18, 1.83)),
    "raised or lowered": ((10, 20, 30, 60), (0, 0.34, 1.37, 4.48)),
    "landmarks do not fit": ((0.15, 0.2, 0.25, 0.5), (0, 0.28, 0.57, 3.57)),
    "blurred": ((-6, -3.5, -3, -2.5), (12.6, 2.3, 0.24, 0)),
    "noisy": ((-2.6, -2.2, -1.8, -1.4, 0), (0, 0.06, 1.13, 2.71, 8.22)),
    "eyes unclear": ((-6, -3, -2.4, -1.8, -1.4, -1), (1.64, 0.65, 0.46, 0.26, 0.13, 0)),
    "mouth unclear": ((-6, -2.5, -2, -1.5, -1), (1.51, 0.37, 0.25, 0.12, 0)),
    "too bright": ((190, 205, 220, 235, 255), (0, 1.04, 2.08, 3.12, 4.5)),
    "low contrast": ((-2, 1, 1.8, 2.6, 3.4, 4.3), (15.34, 2.33, 0.69, 0.47, 0.25, 0)),
}
"""For each reason the values of its measure (see `measures`), ascending, and what each costs."""

DARK = 50
"""A mean grey level below which it is for want of light that contrast is low."""

NAMED = math.log(2)
"""A measure that at least doubles the odds of being missed is named as a reason."""


def assess(face: Face, aligned: AlignedFace) -> Quality:
    """The quality of a face in [0, 1] from its detection and its aligned crop.

    It is the estimated chance of being recognised at a false match rate of 1e-3 by the default
    model, against a typical picture of the same person.
    """
    measured = measures(face, aligned)
    costs = costs_of(measured)
    reasons = sorted((r for r, cost in costs.items() if cost >= NAMED), key=lambda r: -costs[r])
    cause = {}
    if min(face.box.width, face.box.height) < SIDE:
        cause["blurred"] = "too small"
    if measured["too bright"] < DARK:
        cause["low contrast"] = "too dark"
    return Quality(chance(costs), tuple(cause.get(reason, reason) for reason in reasons))


def costs_of(measured: Mapping[str, float]) -> dict[str, float]:
    """What each measure costs, in log-odds, by reason."""
    return {reason: float(np.interp(value, *COSTS[reason])) for reason, value in measured.items()}


def chance(costs: Mapping[str, float]) -> float:
    """The chance of being recognised that costs leave."""
    return 1 / (1 + math.exp(BASE + sum(costs.values())))


def measures(face: Face, aligned: AlignedFace) -> dict[str, float]:
    """The measure behind each reason.

    Those of structure are mean differences of neighbouring grey levels on a square in which the
    eyes are 28 pixels apart, as a share of the contrast, so that light does not count twice; the
    binary logarithm makes equal ratios equal steps.
    """
    grey = _square(face, aligned)
    middle = grey[10:54, 10:54]
    deviation = float(middle.std())
    contrast = max(deviation, 2.0)
    down = np.abs(grey[1:] - grey[:-1])
    across = np.abs(grey[26:44, 9:56] - grey[26:44, 8:55])
    bends = np.abs(
        4 * middle[1:-1, 1:-1] - middle[:-2, 1:-1] - middle[2:, 1:-1] - middle[1:-1, :-2]
        - middle[1:-1, 2:]
    )  # fmt: skip
    eyes = float(min(down[15:25, 11:25].mean(), down[15:25, 39:53].mean()))
    pose = head_pose(face.landmarks)
    return {
        "detector unsure": math.log10(max(1 - face.confidence, 1e-5)),
        "turned away": abs(pose.yaw),
        "raised or lowered": abs(pose.pitch),
        "landmarks do not fit": aligned.residual,
        "blurred": _ratio(float(bends.mean()), contrast),
        "noisy": _ratio(float(np.median(across)), contrast),
        "eyes unclear": _ratio(eyes, contrast),
        "mouth unclear": _ratio(float(down[44:55, 19:44].mean()), contrast),
        "too bright": float(middle.mean()),
        "low contrast": math.log2(max(deviation, 0.25)),
    }


def _ratio(change: float, contrast: float) -> float:
    return math.log2(max(change / contrast, 1 / 512))


def _square(face: Face, aligned: AlignedFace) -> NDArray[np.float32]:
    """The face in grey levels (SIDE, SIDE), cut out of the crop of any embedder."""
    points = transform_points(aligned.transform, face.landmarks.points)
    centre = points.mean(axis=0)
    spread = points - centre
    # Crops are upright: the least-squares fit needs no rotation. Pillow counts from pixel corners.
    zoom = float(np.vdot(spread, _SPREAD)) / float(np.vdot(spread, spread))
    left, top = (centre + 0.5 - (_CENTRE + 0.5) / zoom).tolist()
    reach, height, width = SIDE / zoom, *aligned.pixels.shape[:2]
    box = (
        min(max(left, 0), width - 1), min(max(top, 0), height - 1),
        max(min(left + reach, width), 1), max(min(top + reach, height), 1),
    )  # fmt: skip
    grey = PIL.Image.fromarray(aligned.pixels).convert("L")
    return np.asarray(grey.resize((SIDE, SIDE), PIL.Image.Resampling.BOX, box), np.float32)
