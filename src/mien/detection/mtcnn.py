"""MTCNN: three networks in turn propose, refine and settle where faces are.

Zhang et al., "Joint Face Detection and Alignment using Multi-task Cascaded Convolutional
Networks", 2016. The steps and their roundings follow facenet-pytorch, so that the
boxes are the same.
"""

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from mien.cards import ModelCard
from mien.detection.scan import FINEST_AREA
from mien.geometry import Boxes, suppress
from mien.inference import Batch, Session, to_batch
from mien.types import Box, Face, Image, Landmarks, Pixels

Floats = NDArray[np.float32]
Table = NDArray[np.uint32]

_CELL, _STRIDE = 12, 2  # pixels the first network sees at once, and by how many it moves
_FACTOR = 0.709  # from one scale to the next: each has half the area
_SMALLEST = 20.0  # pixels: the smallest face sought unless told otherwise
_CANDIDATES = 5000  # of a scale; more than any picture needs, bounds the time of hostile ones
_BATCH = 128


@dataclass(frozen=True)
class Mtcnn:
    """The detector; `min_face` and `max_face` are the widths of the faces sought, in pixels.

    A candidate below `proposed` after the first network, `refined` after the second or
    `confidence` after the third is dropped. Without `min_face` faces from 20 pixels are sought,
    in pictures of more than 1920 x 1080 pixels from as much more as they are larger.
    """

    card: ModelCard
    proposal: Session
    refinement: Session
    output: Session
    min_face: float | None = None
    max_face: float | None = None
    confidence: float = 0.7
    proposed: float = 0.6
    refined: float = 0.7

    def detect(self, image: Image) -> list[Face]:
        table = _summed(image.pixels)
        boxes = self._propose(table)
        boxes = self._refine(table, boxes)
        scores, boxes, points = self._settle(table, boxes)
        # boxes count pixels from 1
        return [
            Face(Box(*(boxes[kept] - 1).tolist()), Landmarks(points[kept]), float(scores[kept]))
            for kept in _suppress_nested(boxes, scores, 0.7)
        ]

    def _propose(self, table: Table) -> Boxes:
        """Squares that may hold a face, found by the first network on a pyramid of scales."""
        height, width = table.shape[0] - 1, table.shape[1] - 1
        found = [self._scan(table, scale) for scale in self._scales(height, width)]
        scores, boxes, deltas = (np.concatenate(parts) for parts in zip(*found, strict=True))
        kept = suppress(boxes, scores, 0.7)
        sides = boxes[kept, 2:] - boxes[kept, :2]
        return _square(boxes[kept] + deltas[kept] * np.tile(sides, 2))

    def _scales(self, height: int, width: int) -> list[float]:
        reduction = max(1.0, (height * width / FINEST_AREA) ** 0.5)
        scale = _CELL / (self.min_face or _SMALLEST * reduction)
        coarsest = _CELL / min(height, width, self.max_face or float("inf"))
        scales = [scale]  # also where the whole picture is smaller than the smallest face
        while scale * _FACTOR >= coarsest:
            scale *= _FACTOR
            scales.append(scale)
        return scales

    def _scan(self, table: Table, scale: float) -> tuple[Floats, Boxes, Floats]:
        height, width = table.shape[0] - 1, table.shape[1] - 1
        size = (max(_CELL, int(height * scale + 1)), max(_CELL, int(width * scale + 1)))
        whole = np.array([[width, height]])
        batch = to_batch(self.card.input, _average(table, whole * 0, whole, size))
        probabilities, deltas = self.proposal(batch)
        scores = probabilities[0, 1]
        rows, columns = np.nonzero(scores >= self.proposed)
        best = np.argsort(-scores[rows, columns], kind="stable")[:_CANDIDATES]
        rows, columns = rows[best], columns[best]
        corners = np.stack([columns, rows], axis=1).astype(np.float32) * _STRIDE
        # in float32, as the original: the roundings decide which pixels the next network sees
        near = np.floor((corners + 1) / np.float32(scale))
        far = np.floor((corners + _CELL) / np.float32(scale))
        boxes = np.concatenate([near, far], axis=1)
        found = scores[rows, columns]
        kept = suppress(boxes, found, 0.5)
        return found[kept], boxes[kept], deltas[0][:, rows[kept], columns[kept]].T

    def _refine(self, table: Table, boxes: Boxes) -> Boxes:
        """The squares that the second network holds for faces, moved to where it sees them."""
        boxes, batches = self._crops(table, boxes, 24)
        found = [self.refinement(batch) for batch in batches]
        if not found:
            return boxes
        probabilities, deltas = (np.concatenate(parts) for parts in zip(*found, strict=True))
        passed = probabilities[:, 1] > self.refined
        scores, boxes, deltas = probabilities[passed, 1], boxes[passed], deltas[passed]
        kept = suppress(boxes, scores, 0.7)
        return _square(_move(boxes[kept], deltas[kept]))

    def _settle(self, table: Table, boxes: Boxes) -> tuple[Floats, Boxes, Floats]:
        """Scores (n,), boxes (n, 4) and landmarks (n, 5, 2) by the third network."""
        boxes, batches = self._crops(table, boxes, 48)
        found = [self.output(batch) for batch in batches]
        if not found:
            return np.zeros(0, np.float32), boxes, np.zeros((0, 5, 2), np.float32)
        probabilities, deltas, marks = (np.concatenate(parts) for parts in zip(*found, strict=True))
        passed = probabilities[:, 1] > self.confidence
        boxes, deltas = boxes[passed], deltas[passed]
        shares = marks[passed].reshape(-1, 2, 5).transpose(0, 2, 1)
        sides = boxes[:, 2:] - boxes[:, :2] + 1
        # One less than the original says: as it is, the landmarks of a face and of its mirror
        # image lie 1.0 pixel too far right at every size (290 faces of LFW), and too far down.
        points = shares * sides[:, None] + boxes[:, None, :2] - 2
        return probabilities[passed, 1], _move(boxes, deltas), points.astype(np.float32)

    def _crops(self, table: Table, boxes: Boxes, side: int) -> tuple[Boxes, Iterator[Batch]]:
        """The boxes with pixels in the picture, and those pixels in batches."""
        whole = np.trunc(boxes).astype(np.int64)
        near = np.maximum(whole[:, :2], 1) - 1
        far = np.minimum(whole[:, 2:], (table.shape[1] - 1, table.shape[0] - 1))
        inside = (far > near).all(axis=1)
        near, far = near[inside], far[inside]

        def batches() -> Iterator[Batch]:
            for start in range(0, len(near), _BATCH):
                part = slice(start, start + _BATCH)
                crops = _average(table, near[part], far[part], (side, side))
                yield to_batch(self.card.input, crops)

        return boxes[inside], batches()


def _square(boxes: Boxes) -> Boxes:
    """Boxes widened to squares about their middle."""
    sides = boxes[:, 2:] - boxes[:, :2]
    side = sides.max(axis=1, keepdims=True, initial=0)
    near = boxes[:, :2] + sides * np.float32(0.5) - side * np.float32(0.5)
    return np.concatenate([near, near + side], axis=1)


def _move(boxes: Boxes, deltas: Floats) -> Boxes:
    sides = boxes[:, 2:] - boxes[:, :2] + 1
    return boxes + deltas * np.tile(sides, 2)


def _suppress_nested(boxes: Boxes, scores: Floats, overlap: float) -> list[np.intp]:
    """`suppress`, but by the share of the smaller box that is covered, so that a box within
    another goes as well."""
    sides = boxes[:, 2:] - boxes[:, :2] + 1
    areas = sides.prod(axis=1)
    order = np.argsort(-scores, kind="stable")
    kept = []
    while order.size:
        best, rest = order[0], order[1:]
        kept.append(best)
        near = np.maximum(boxes[best, :2], boxes[rest, :2])
        far = np.minimum(boxes[best, 2:], boxes[rest, 2:])
        inside = np.maximum(far - near + 1, 0).prod(axis=1)
        order = rest[inside / np.minimum(areas[best], areas[rest]) <= overlap]
    return kept


def _summed(pixels: Pixels) -> Table:
    """The summed-area table of a picture, (height + 1, width + 1, 3): entry (y, x) is the sum of
    all pixels above and to the left (Crow, 1984).

    It may overflow: differences are right all the same, as long as they fit.
    """
    table = np.zeros((pixels.shape[0] + 1, pixels.shape[1] + 1, 3), np.uint32)
    np.cumsum(pixels, axis=0, dtype=np.uint32, out=table[1:, 1:])
    np.cumsum(table[1:, 1:], axis=1, dtype=np.uint32, out=table[1:, 1:])
    return table


def _average(
    table: Table, near: NDArray[np.int64], far: NDArray[np.int64], size: tuple[int, int]
) -> Floats:
    """Parts of a picture brought to `size` (rows, columns), as (n, rows, columns, 3).

    `near` and `far` (n, 2) are their corners (x, y). Each new pixel is the mean of all that it
    touches, however little.
    """
    left, right = _bins(near[:, 0], far[:, 0], size[1])
    top, bottom = _bins(near[:, 1], far[:, 1], size[0])

    def above(y: NDArray[np.int64], x: NDArray[np.int64]) -> Table:
        corner: Table = table[y[:, :, None], x[:, None, :]]
        return corner

    sums = above(bottom, right) - above(top, right) - above(bottom, left) + above(top, left)
    areas = (bottom - top)[:, :, None] * (right - left)[:, None, :]
    means: Floats = sums.astype(np.float32)
    means /= areas[..., None]
    return means


def _bins(
    start: NDArray[np.int64], end: NDArray[np.int64], count: int
) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """First and one past the last pixel (n, count) of equal bins, rounded outwards."""
    length, bins = (end - start)[:, None], np.arange(count)
    return start[:, None] + bins * length // count, start[:, None] - (-(bins + 1) * length // count)
