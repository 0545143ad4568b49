"""YuNet: a very small network without anchors; each cell of three grids says what is at it.

Wu et al., "YuNet: A Tiny Millisecond-level Face Detector", 2023. It sees faces of about 10 to 300
pixels, so that large pictures of large faces need a coarser scale as well.
"""

from dataclasses import dataclass
from functools import lru_cache

import numpy as np
from numpy.typing import NDArray

from mien.cards import ModelCard
from mien.detection.scan import Level, Sight, levels, pad_to
from mien.geometry import suppress
from mien.inference import Session, to_batch
from mien.types import Box, Face, Image, Landmarks

SIGHT = Sight(smallest=10.0, largest=240.0, step=3.0)
_STRIDES = (8, 16, 32)
_CANDIDATES = 5000  # more than any picture needs; bounds the time that a hostile one can take


@dataclass(frozen=True)
class YuNet:
    """The detector; `min_face` and `max_face` are the widths of the faces sought, in pixels.

    Faces below `confidence` are dropped; of two boxes that overlap by more than `overlap` (IoU)
    the less confident one is.
    """

    card: ModelCard
    session: Session
    min_face: float | None = None
    max_face: float | None = None
    confidence: float = 0.6
    overlap: float = 0.3

    def detect(self, image: Image) -> list[Face]:
        scales = levels(image.width, image.height, SIGHT, self.min_face, self.max_face)
        found = [self._scan(image, level) for level in scales]
        scores, boxes, points = (np.concatenate(parts) for parts in zip(*found, strict=True))
        best = np.argsort(-scores, kind="stable")[:_CANDIDATES]
        scores, boxes, points = scores[best], boxes[best], points[best]
        return [
            Face(Box(*boxes[kept].tolist()), Landmarks(points[kept]), float(scores[kept]))
            for kept in suppress(boxes, scores, self.overlap)
        ]

    def _scan(
        self, image: Image, level: Level
    ) -> tuple[NDArray[np.float32], NDArray[np.float32], NDArray[np.float32]]:
        """Scores (n,), boxes (n, 4) and landmarks (n, 5, 2) seen at one scale."""
        canvas = pad_to(level.render(image.pixels), _STRIDES[-1], (0, 0, 0))
        outputs = self.session(to_batch(self.card.input, canvas[None]))
        # four kinds of output, each for the three strides in turn
        kinds = (outputs[i : i + len(_STRIDES)] for i in range(0, len(outputs), len(_STRIDES)))
        classes, objects, deltas, marks = (np.concatenate(kind, axis=1)[0] for kind in kinds)
        scores = np.sqrt(np.clip(classes[:, 0], 0, 1) * np.clip(objects[:, 0], 0, 1))
        cells, strides = _cells(canvas.shape[0], canvas.shape[1])
        (seen,) = np.nonzero(scores >= self.confidence)
        sizes = np.exp(deltas[seen, 2:]) * strides[seen]
        large = sizes[:, 0] >= level.smallest
        seen, sizes = seen[large], sizes[large]
        middle = (cells[seen] + deltas[seen, :2]) * strides[seen]
        corners = np.stack([middle - sizes / 2, middle + sizes / 2], axis=1)
        points = (cells[seen, None] + marks[seen].reshape(-1, 5, 2)) * strides[seen, None]
        # Counted from the corner of the first pixel: read from its centre, the landmarks of a
        # face and of its mirror image lie about half a pixel too far right (120 faces of LFW).
        return scores[seen], level.to_picture(corners).reshape(-1, 4), level.to_picture(points)


@lru_cache(maxsize=16)
def _cells(height: int, width: int) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """Column and row (n, 2) and stride (n, 1) of every cell, in the order of the outputs."""
    cells, strides = [], []
    for stride in _STRIDES:
        rows, columns = np.mgrid[0 : height // stride, 0 : width // stride].astype(np.float32)
        cells.append(np.stack([columns, rows], axis=-1).reshape(-1, 2))
        strides.append(np.full((len(cells[-1]), 1), stride, np.float32))
    return np.concatenate(cells), np.concatenate(strides)
