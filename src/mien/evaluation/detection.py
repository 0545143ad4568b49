"""Detected boxes to average precision, by the rules of WIDER FACE.

A detection matches the annotated face that it overlaps most, at an IoU of at least 0.5. Matching
a face that is to be ignored, it is neither right nor wrong; matching one that was found already,
it is wrong. Precision and recall are taken at 1,000 thresholds over the scores as scaled to 0..1,
and the area is that under the precision made monotone (as in `eval_tools` of WIDER FACE and in
Pascal VOC 2010).
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from mien.errors import InputError
from mien.evaluation.curves import Floats
from mien.evaluation.intervals import Interval, multiplicities, percentile
from mien.evaluation.wider import Scene
from mien.geometry import Boxes, iou
from mien.types import Face

THRESHOLDS = 1000
OVERLAP = 0.5


@dataclass(frozen=True, eq=False, slots=True)
class Detections:
    """What a detector found in one picture: `boxes` (n, 4) and `scores` (n,), best first."""

    boxes: Boxes
    scores: NDArray[np.float32]


def detections(faces: Sequence[Face]) -> Detections:
    """Faces as arrays, best first."""
    ranked = sorted(faces, key=lambda face: -face.confidence)
    edges = [(f.box.left, f.box.top, f.box.right, f.box.bottom) for f in ranked]
    scores = np.array([face.confidence for face in ranked], np.float32)
    return Detections(np.array(edges, np.float32).reshape(-1, 4), scores)


@dataclass(frozen=True, eq=False, slots=True)
class Precision:
    """Average precision with its interval over pictures, and the curve behind it (n,)."""

    ap: float
    interval: Interval
    precision: Floats
    recall: Floats
    faces: int


def match(scene: Scene, found: Detections) -> tuple[NDArray[np.int64], NDArray[np.bool_]]:
    """For each detection (n,), the faces found up to it, and whether it counts as a proposal."""
    recalled = np.zeros(len(scene.boxes), bool)
    running = np.zeros(len(found.scores), np.int64)
    proposal = np.ones(len(found.scores), bool)
    if len(scene.boxes) and len(found.scores):
        overlap = iou(found.boxes, scene.boxes)
        best = overlap.argmax(axis=1)
        for i, face in enumerate(best):
            if overlap[i, face] >= OVERLAP:
                if not scene.counts[face]:
                    proposal[i] = False
                else:
                    recalled[face] = True
            running[i] = recalled.sum()
    return running, proposal


def average_precision(scenes: Sequence[Scene], found: Sequence[Detections]) -> Precision:
    """Average precision over scenes. Raises `InputError` when no face counts."""
    faces = np.array([int(scene.counts.sum()) for scene in scenes])
    if not faces.sum():
        raise InputError("no annotated face counts: there is no precision to measure")
    every = np.concatenate([item.scores for item in found]) if found else np.zeros(0)
    if not every.size:
        nothing = np.zeros(1)
        return Precision(0.0, Interval(0.0, 0.0), nothing, nothing, int(faces.sum()))
    low, high = float(every.min()), float(every.max())
    steps = 1 - np.arange(1, THRESHOLDS + 1) / THRESHOLDS
    right = np.zeros((len(scenes), THRESHOLDS))
    proposed = np.zeros((len(scenes), THRESHOLDS))
    for row, (scene, item) in enumerate(zip(scenes, found, strict=True)):
        running, proposal = match(scene, item)
        scaled = (item.scores - low) / (high - low if high > low else 1.0)
        last = np.searchsorted(-scaled, -steps, side="right")  # how many reach each threshold
        right[row] = np.concatenate([[0], running])[last]
        proposed[row] = np.concatenate([[0], np.cumsum(proposal)])[last]
    precision, recall = _curve(right.sum(axis=0), proposed.sum(axis=0), float(faces.sum()))
    replicates = [
        _area(*_curve(drawn @ right, drawn @ proposed, float(drawn @ faces)))
        for drawn in multiplicities(len(scenes))
    ]
    ap = _area(precision, recall)
    return Precision(ap, percentile(replicates), precision, recall, int(faces.sum()))


def _curve(right: Floats, proposed: Floats, faces: float) -> tuple[Floats, Floats]:
    return right / np.maximum(proposed, 1e-12), right / max(faces, 1e-12)


def _area(precision: Floats, recall: Floats) -> float:
    steps = np.diff(np.concatenate([[0.0], recall]))
    envelope = np.maximum.accumulate(precision[::-1])[::-1]
    return float((steps * envelope).sum())
