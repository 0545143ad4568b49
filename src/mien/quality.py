"""How usable a face is for recognition, and what limits it.

Each measure is a ramp from 0 (useless) to 1 (nothing to wish for); the quality of a face is that
of its weakest measure, so a reader can always be told why. The ramps are first estimates, not yet
fitted to error rates.
"""

import numpy as np
from numpy.typing import NDArray

from mien.types import AlignedFace, Face, Quality

LIMITING = 0.5  # a measure below this is named as a reason


def assess(face: Face, aligned: AlignedFace) -> Quality:
    """The quality of a face in [0, 1] from its detection and its aligned crop."""
    grey: NDArray[np.float32] = aligned.pixels.astype(np.float32) @ _LUMA
    measures = {
        "too small": _ramp(min(face.box.width, face.box.height), 12, 64),
        "detector unsure": _ramp(face.confidence, 0.4, 0.95),
        "turned away": _ramp(_yaw(face), 1.0, 0.35),
        "landmarks do not fit": _ramp(aligned.residual, 0.35, 0.12),
        "blurred": _ramp(_sharpness(grey), 0.5, 3.0),
        "too dark": _ramp(float(grey.mean()), 15, 60),
        "too bright": _ramp(float(grey.mean()), 250, 215),
        "low contrast": _ramp(float(grey.std()), 5, 25),
    }
    reasons = sorted((n for n, v in measures.items() if v < LIMITING), key=measures.__getitem__)
    return Quality(min(measures.values()), tuple(reasons))


_LUMA = np.array([0.299, 0.587, 0.114], np.float32)  # ITU-R BT.601


def _ramp(value: float, worst: float, best: float) -> float:
    """0 at or beyond `worst`, 1 at or beyond `best`, straight in between."""
    return float(np.clip((value - worst) / (best - worst), 0.0, 1.0))


def _yaw(face: Face) -> float:
    """How far the nose lies from the middle of the eyes, as a share of half their distance.

    About 0 for a frontal face and 1 when the nose has reached an eye, as in a half profile.
    """
    left, right, nose = face.landmarks.points[:3].astype(np.float64)
    across = right - left
    distance = float(across @ across)
    if distance == 0:
        return 1.0
    return abs(2 * float((nose - (left + right) / 2) @ across) / distance)


def _sharpness(grey: NDArray[np.float32]) -> float:
    """Mean absolute Laplacian in grey levels over the middle of the crop."""
    height, width = grey.shape
    g = grey[height // 5 : -(height // 5), width // 5 : -(width // 5)]
    laplacian = 4 * g[1:-1, 1:-1] - g[:-2, 1:-1] - g[2:, 1:-1] - g[1:-1, :-2] - g[1:-1, 2:]
    return float(np.abs(laplacian).mean())
