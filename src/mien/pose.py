"""Where a head points, from five landmarks."""

import math

import numpy as np
from numpy.typing import NDArray

from mien.types import Landmarks, Pose

# Left eye, right eye, nose tip, mouth corners of a mean head that looks into the camera, in units
# of the eye distance: x to the right and y down as in a picture, z away from the camera. Found as
# the rigid shape that explains the landmarks of 13,000 faces of LFW best (tools/fit_head.py);
# what counts as looking straight ahead is their median pitch.
HEAD: NDArray[np.float64] = np.array(
    [[-0.5, 0, 0], [0.5, 0, 0], [0, 0.570, -0.507], [-0.414, 1.033, 0.118], [0.414, 1.033, 0.118]]
)
_SHAPE = HEAD - HEAD.mean(axis=0)
_SOLVE = np.linalg.pinv(_SHAPE)  # (3, 5)


def head_pose(landmarks: Landmarks) -> Pose:
    """Yaw, pitch and roll in degrees: the rotation of a mean head that explains the landmarks.

    The camera is taken to be far off (scaled orthographic projection), which makes the rotation
    the solution of linear equations (DeMenthon and Davis, "Model-based object pose in 25 lines of
    code", 1995, first iteration). One mean head stands for everybody: see the documentation for
    what that costs. Landmarks that all lie in one place give a pose of zeros.
    """
    points = landmarks.points.astype(np.float64)
    rows = _SOLVE @ (points - points[2])  # a shift changes nothing: _SOLVE sums to 0
    (ax, bx), (ay, by), (az, bz) = rows.tolist()  # two scaled rows of the rotation: a, b
    aa, ab, bb = (
        ax * ax + ay * ay + az * az,
        ax * bx + ay * by + az * bz,
        bx * bx + by * by + bz * bz,
    )
    root = math.sqrt(max(aa * bb - ab * ab, 0.0))
    if root <= 1e-12 * (aa + bb):
        return Pose(0.0, 0.0, 0.0)
    # The nearest two rows at right angles and of length one (polar decomposition): the inverse
    # square root of the matrix [aa ab; ab bb], which for two by two needs no eigenvalues.
    share = root * math.sqrt(aa + bb + 2 * root)
    p, q, r = (bb + root) / share, -ab / share, (aa + root) / share
    ax, ay, az, bx, by, bz = (
        p * ax + q * bx, p * ay + q * by, p * az + q * bz,
        q * ax + r * bx, q * ay + r * by, q * az + r * bz,
    )  # fmt: skip
    # The head looks along its -z axis: towards (-az, -bz, -(a x b)z) in the picture.
    ahead = ax * by - ay * bx
    yaw = math.atan2(-az, ahead)
    pitch = math.atan2(bz, math.hypot(az, ahead))
    roll = math.atan2(bx, ax)
    return Pose(math.degrees(yaw), math.degrees(pitch), math.degrees(roll))
