"""Find the mean head of `mien.pose`: the rigid shape that explains many sets of landmarks best.

    python tools/fit_head.py --data LFW

For a given shape each face has a best rotation and scale (scaled orthographic projection); the
shape is the symmetric one that leaves the smallest mean residual. Prints it, turned so that the
median pitch of the faces is 0, and what the faces' poses then are. Needs scipy.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from scipy.optimize import minimize

import mien
from mien.recognition import ordered_map

Floats = NDArray[np.float64]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n", maxsplit=1)[0])
    parser.add_argument("--data", type=Path, required=True, help="folder of lfw-deepfunneled")
    parser.add_argument("--every", type=int, default=3, help="take one picture in so many")
    options = parser.parse_args()
    files = sorted((options.data / "lfw-deepfunneled").rglob("*.jpg"))[:: options.every]
    points = landmarks(files)
    points -= points.mean(axis=1, keepdims=True)
    points /= np.linalg.norm(points, axis=(1, 2), keepdims=True)
    starts = [(depth, 0.0, 0.55, 1.0, 0.42) for depth in (-0.3, -0.7)]
    found = [
        minimize(lambda p: residual(p, points), start, method="Nelder-Mead") for start in starts
    ]
    best = min(found, key=lambda result: result.fun)
    head = shape(best.x)
    pitch = np.median(pitches(rotations(head, points)))
    head = turned(head, -np.radians(pitch))
    print(
        f"{len(points)} faces, mean residual", *(round(r.fun, 4) for r in found), "from each start"
    )
    print(np.round(head, 3).tolist())
    print(
        "pitch, percentiles 5, 50, 95:",
        np.percentile(pitches(rotations(head, points)), [5, 50, 95]),
    )


def landmarks(files: list[Path]) -> Floats:
    detector = mien.load().detector

    def one(path: Path) -> Floats | None:
        image = mien.read_image(path)
        faces = detector.detect(image)
        return mien.central(faces, image).landmarks.points.astype(np.float64) if faces else None

    return np.stack([points for points in ordered_map(one, files, 2) if points is not None])


def shape(parameters: Floats) -> Floats:
    nose_depth, mouth_depth, nose_down, mouth_down, mouth_half = parameters
    return np.array(
        [[-0.5, 0, 0], [0.5, 0, 0], [0, nose_down, nose_depth],
         [-mouth_half, mouth_down, mouth_depth], [mouth_half, mouth_down, mouth_depth]]
    )  # fmt: skip


def rotations(head: Floats, points: Floats) -> Floats:
    """The first two rows (n, 2, 3) of the rotation of each face."""
    centred = head - head.mean(axis=0)
    rows = np.einsum("ij,njk->nki", np.linalg.pinv(centred), points)
    u, _, v = np.linalg.svd(rows, full_matrices=False)
    return np.asarray(u @ v)


def residual(parameters: Floats, points: Floats) -> float:
    head = shape(parameters)
    seen = np.einsum("nki,ji->njk", rotations(head, points), head - head.mean(axis=0))
    scale = (seen * points).sum(axis=(1, 2)) / (seen**2).sum(axis=(1, 2))
    rest = points - scale[:, None, None] * seen
    return float(np.linalg.norm(rest, axis=(1, 2)).mean())


def pitches(rows: Floats) -> Floats:
    forward = np.cross(rows[:, 0], rows[:, 1])[:, 2]
    return np.asarray(np.degrees(np.arctan2(rows[:, 1, 2], np.hypot(rows[:, 0, 2], forward))))


def turned(head: Floats, angle: float) -> Floats:
    """The head nodded by `angle` radians, its eyes' middle kept at the origin."""
    c, s = np.cos(angle), np.sin(angle)
    nodded = head @ np.array([[1, 0, 0], [0, c, -s], [0, s, c]]).T
    return nodded - nodded[:2].mean(axis=0)


if __name__ == "__main__":
    main()
