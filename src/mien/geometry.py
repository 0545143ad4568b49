"""Plane geometry on boxes and points: overlap, suppression, similarity transforms."""

import numpy as np
from numpy.typing import NDArray

from mien.types import Affine

Boxes = NDArray[np.float32]  # (n, 4): left, top, right, bottom


def similarity_transform(source: NDArray[np.floating], target: NDArray[np.floating]) -> Affine:
    """The rotation, scale and shift (2, 3) that carry `source` onto `target` with least squares.

    Both are (n, 2) with n >= 2. Source: Umeyama, "Least-squares estimation of transformation
    parameters between two point patterns", 1991, in the closed form for the plane, which needs
    no singular value decomposition and cannot mirror.
    """
    a = np.asarray(source, np.float64)
    b = np.asarray(target, np.float64)
    mean_a, mean_b = a.mean(axis=0), b.mean(axis=0)
    (ax, ay), (bx, by) = (a - mean_a).T, (b - mean_b).T
    spread = max(float(ax @ ax + ay @ ay), 1e-12)  # coincident points: a shift, not a division
    cosine, sine = (ax @ bx + ay @ by) / spread, (ax @ by - ay @ bx) / spread
    linear = np.array([[cosine, -sine], [sine, cosine]])
    return np.column_stack([linear, mean_b - linear @ mean_a])


def invert(transform: Affine) -> Affine:
    """The affine map that undoes `transform`."""
    linear = np.linalg.inv(transform[:, :2])
    return np.column_stack([linear, -linear @ transform[:, 2]])


def compose(second: Affine, first: Affine) -> Affine:
    """The affine map that applies `first`, then `second`."""
    linear = second[:, :2] @ first[:, :2]
    return np.column_stack([linear, second[:, :2] @ first[:, 2] + second[:, 2]])


def transform_points(transform: Affine, points: NDArray[np.floating]) -> NDArray[np.float64]:
    """Apply an affine map to points (n, 2)."""
    moved: NDArray[np.float64] = points @ transform[:, :2].T + transform[:, 2]
    return moved


def scale_of(transform: Affine) -> float:
    """How much a similarity transform enlarges: 2.0 doubles distances."""
    return float(np.hypot(transform[0, 0], transform[1, 0]))


def iou(a: Boxes, b: Boxes) -> NDArray[np.float32]:
    """Intersection over union of every box of `a` (n, 4) with every box of `b` (m, 4): (n, m)."""
    shared = _intersection(a, b)
    union = _area(a)[:, None] + _area(b)[None, :] - shared
    overlap: NDArray[np.float32] = shared / np.maximum(union, np.float32(1e-9))
    return overlap


def giou(a: Boxes, b: Boxes) -> NDArray[np.float32]:
    """Generalised IoU of every box of `a` (n, 4) with every box of `b` (m, 4): (n, m) in (-1, 1].

    `iou` less the share of the smallest box around both that neither covers, so that boxes which
    do not meet still differ by how far apart they are. Source: Rezatofighi and others,
    "Generalized intersection over union", 2019.
    """
    shared = _intersection(a, b)
    union = np.maximum(_area(a)[:, None] + _area(b)[None, :] - shared, np.float32(1e-9))
    near = np.minimum(a[:, None, :2], b[None, :, :2])
    far = np.maximum(a[:, None, 2:], b[None, :, 2:])
    around: NDArray[np.float32] = np.maximum(np.prod(far - near, axis=2), union)
    overlap: NDArray[np.float32] = shared / union - (around - union) / around
    return overlap


def inside(a: Boxes, b: Boxes) -> NDArray[np.float32]:
    """Which share of every box of `a` (n, 4) lies inside every box of `b` (m, 4): (n, m)."""
    area = np.maximum(_area(a), np.float32(1e-9))[:, None]
    return (_intersection(a, b) / area).astype(np.float32, copy=False)


def suppress(boxes: Boxes, scores: NDArray[np.float32], overlap: float) -> NDArray[np.intp]:
    """Greedy non-maximum suppression: indices of the boxes kept, best score first.

    A box goes when a better one that is kept overlaps it by more than `overlap` (IoU).
    """
    order = np.argsort(-scores, kind="stable")
    kept = []
    while order.size:
        best, rest = order[0], order[1:]
        kept.append(best)
        order = rest[iou(boxes[best : best + 1], boxes[rest])[0] <= overlap]
    return np.array(kept, np.intp)


def _area(boxes: Boxes) -> NDArray[np.float32]:
    area: NDArray[np.float32] = np.prod(np.maximum(boxes[:, 2:] - boxes[:, :2], 0), axis=1)
    return area


def _intersection(a: Boxes, b: Boxes) -> NDArray[np.float32]:
    near = np.maximum(a[:, None, :2], b[None, :, :2])
    far = np.minimum(a[:, None, 2:], b[None, :, 2:])
    shared: NDArray[np.float32] = np.prod(np.maximum(far - near, 0), axis=2)
    return shared
