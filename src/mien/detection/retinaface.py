"""RetinaFace: one pass over the picture gives boxes, five landmarks and confidences.

Deng et al., "RetinaFace: Single-stage Dense Face Localisation in the Wild", 2019. The network
(MobileNet-0.25, FPN, SSH) looks at each cell of three grids and corrects two anchors in each.
"""

from dataclasses import dataclass
from functools import lru_cache

import numpy as np
from numpy.typing import NDArray

from mien.cards import ModelCard
from mien.detection.scan import Level, Seen, Tile, levels, look, pad_to
from mien.geometry import inside, iou, suppress
from mien.inference import Batch, Session, to_batch
from mien.types import Box, Face, Image, Landmarks, Pixels

_GRIDS = ((8, (16, 32)), (16, (64, 128)), (32, (256, 512)))  # stride, anchor sizes, in pixels
_SAME = 0.6  # anchors whose boxes overlap the winner's this much (IoU) saw the same face
_WITHIN = 0.75  # of a box inside a larger one: a part of the same face
_CENTRE, _SIZE = np.float32(0.1), np.float32(0.2)  # the variances the network was trained with


@dataclass(frozen=True)
class RetinaFace:
    """The detector; `min_face` and `max_face` are the widths of the faces sought, in pixels.

    Faces below `confidence` are dropped; of two boxes that overlap by more than `overlap` (IoU)
    the less confident one is.
    """

    card: ModelCard
    session: Session
    min_face: float | None = None
    max_face: float | None = None
    confidence: float = 0.6
    overlap: float = 0.4

    def detect(self, image: Image) -> list[Face]:
        scales = levels(image.width, image.height, self.min_face, self.max_face)
        scores, boxes, points = look(image.pixels, scales, self._scan)
        winners = suppress(boxes, scores, self.overlap)
        winners = winners[~_parts(boxes[winners])]
        return [self._vote(scores, boxes, points, winner) for winner in winners]

    def _vote(
        self,
        scores: NDArray[np.float32],
        boxes: NDArray[np.float32],
        points: NDArray[np.float32],
        winner: np.intp,
    ) -> Face:
        """The face that a box won, placed by all anchors that saw it.

        Ten or more anchors see the same face; their mean, weighted by confidence, is steadier
        than the place given by the winner alone (box voting: Gidaris and Komodakis, 2015), which
        aligns better.
        """
        voters = iou(boxes[winner : winner + 1], boxes)[0] >= _SAME
        weights = scores[voters] / scores[voters].sum()
        left, top, right, bottom = (float(edge) for edge in weights @ boxes[voters])
        landmarks = np.tensordot(weights, points[voters], axes=1).astype(np.float32)
        return Face(Box(left, top, right, bottom), Landmarks(landmarks), float(scores[winner]))

    def _scan(self, pixels: Pixels, level: Level, tile: Tile) -> Seen:
        """Scores (n,), boxes (n, 4) and landmarks (n, 5, 2) seen in one tile of one scale."""
        left, top, right, bottom = tile.area
        canvas = pad_to(pixels[top:bottom, left:right], 32)
        scores, deltas, marks = self.session(to_batch(self.card.input, canvas[None]))
        anchors = _anchors(canvas.shape[0], canvas.shape[1])
        width = anchors[:, 2]
        (seen,) = np.nonzero(
            (scores[0] >= self.confidence) & (width >= level.smallest) & (width <= level.largest)
        )
        centres, sizes = anchors[seen, :2] + np.array((left, top), np.float32), anchors[seen, 2:]
        delta = deltas[0, seen]
        middle = centres + delta[:, :2] * _CENTRE * sizes
        half = sizes * np.exp(delta[:, 2:] * _SIZE) / 2
        corners = np.stack([middle - half, middle + half], axis=1)
        points = centres[:, None] + marks[0, seen].reshape(-1, 5, 2) * _CENTRE * sizes[:, None]
        own = tile.owns(middle)
        return (
            scores[0, seen][own],
            level.to_picture(corners[own]).reshape(-1, 4),
            level.to_picture(points[own]),
        )


def _parts(boxes: NDArray[np.float32]) -> NDArray[np.bool_]:
    """Which boxes (n, 4) lie within another that is clearly larger.

    Seen from very near, half a face looks like a face; two real faces hardly ever stand so.
    """
    area = np.prod(boxes[:, 2:] - boxes[:, :2], axis=1)
    within = (inside(boxes, boxes) > _WITHIN) & (area[None, :] > 1.5 * area[:, None])
    part: NDArray[np.bool_] = within.any(axis=1)
    return part


def exported(
    card: ModelCard, session: Session, min_face: float | None = None, max_face: float | None = None
) -> RetinaFace:
    """RetinaFace as the scripts of its PyTorch implementations export it.

    The outputs are boxes, probabilities of (no face, face) and landmarks, in this order.
    """

    def scores_first(batch: Batch) -> tuple[NDArray[np.float32], ...]:
        boxes, probabilities, landmarks = session(batch)
        return probabilities[..., 1], boxes, landmarks

    return RetinaFace(card, scores_first, min_face, max_face)


@lru_cache(maxsize=16)
def _anchors(height: int, width: int) -> NDArray[np.float32]:
    """Every anchor as (x, y, width, height) in pixel corners, in the order of the outputs."""
    grids = []
    for stride, sizes in _GRIDS:
        y, x = np.mgrid[0 : height // stride, 0 : width // stride].astype(np.float32)
        centres = (np.stack([x, y], axis=-1).reshape(-1, 1, 2) + np.float32(0.5)) * stride
        centres = np.broadcast_to(centres, (len(centres), len(sizes), 2))
        squares = np.broadcast_to(np.array(sizes, np.float32)[:, None], centres.shape)
        grids.append(np.concatenate([centres, squares], axis=2).reshape(-1, 4))
    return np.concatenate(grids)
