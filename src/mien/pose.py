"""Where a head points, from five landmarks."""

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
    across, down = (_SOLVE @ (points - points.mean(axis=0))).T  # scaled rows of the rotation
    scale = np.linalg.norm(across) + np.linalg.norm(down)
    if scale == 0:
        return Pose(0.0, 0.0, 0.0)
    # The nearest pair of orthogonal rows of equal length (polar decomposition).
    u, _, v = np.linalg.svd(np.stack([across, down]), full_matrices=False)
    rows = u @ v
    forward = np.cross(rows[0], rows[1])
    # Columns of the rotation are where the axes of the head point; it looks along its -z.
    x, y, z = -rows[0, 2], -rows[1, 2], -forward[2]
    yaw = np.degrees(np.arctan2(x, -z))
    pitch = np.degrees(np.arctan2(-y, np.hypot(x, z)))
    roll = np.degrees(np.arctan2(rows[1, 0], rows[0, 0]))
    return Pose(float(yaw), float(pitch), float(roll))
