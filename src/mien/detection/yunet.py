"""YuNet: a very small network without anchors; each cell of three grids says what is at it.

Wu et al., "YuNet: A Tiny Millisecond-level Face Detector", 2023. It sees faces of about 10 to 300
pixels, so that large pictures of large faces need a coarser scale as well.
"""

from dataclasses import dataclass
from functools import lru_cache

import numpy as np
from numpy.typing import NDArray

from mien.cards import ModelCard
from mien.detection.scan import Level, Seen, Sight, Tile, distinct, levels, look, pad_to
from mien.inference import Session, to_batch
from mien.types import Face, Image, Pixels

SIGHT = Sight(smallest=10.0, largest=240.0, step=3.0)
_STRIDES = (8, 16, 32)


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
        scales = levels(image.width, image.height, self.min_face, self.max_face, SIGHT)
        return distinct(look(image.pixels, scales, self._scan), self.overlap)

    def _scan(self, pixels: Pixels, level: Level, tile: Tile) -> Seen:
        """Scores (n,), boxes (n, 4) and landmarks (n, 5, 2) seen in one tile of one scale."""
        left, top, right, bottom = tile.area
        canvas = pad_to(pixels[top:bottom, left:right], _STRIDES[-1], (0, 0, 0))
        outputs = self.session(to_batch(self.card.input, canvas[None]))
        # four kinds of output, each for the three strides in turn
        kinds = (outputs[i : i + len(_STRIDES)] for i in range(0, len(outputs), len(_STRIDES)))
        classes, objects, deltas, marks = (np.concatenate(kind, axis=1)[0] for kind in kinds)
        scores = np.sqrt(np.clip(classes[:, 0], 0, 1) * np.clip(objects[:, 0], 0, 1))
        cells, strides = _cells(canvas.shape[0], canvas.shape[1])
        (seen,) = np.nonzero(scores >= self.confidence)
        origin = np.array((left, top), np.float32)
        stride = strides[seen]
        sizes = np.exp(deltas[seen, 2:]) * stride
        middle = (cells[seen] + deltas[seen, :2]) * stride + origin
        width = sizes[:, 0]
        own = tile.owns(middle) & (width >= level.smallest) & (width <= level.largest)
        corners = np.stack([middle - sizes / 2, middle + sizes / 2], axis=1)
        points = (cells[seen, None] + marks[seen].reshape(-1, 5, 2)) * stride[:, None] + origin
        # Counted from the corner of the first pixel: read from its centre, the landmarks of a
        # face and of its mirror image lie about half a pixel too far right (120 faces of LFW).
        return (
            scores[seen][own],
            level.to_picture(corners[own]).reshape(-1, 4),
            level.to_picture(points[own]),
        )


@lru_cache(maxsize=16)
def _cells(height: int, width: int) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """Column and row (n, 2) and stride (n, 1) of every cell, in the order of the outputs."""
    cells, strides = [], []
    for stride in _STRIDES:
        rows, columns = np.mgrid[0 : height // stride, 0 : width // stride].astype(np.float32)
        cells.append(np.stack([columns, rows], axis=-1).reshape(-1, 2))
        strides.append(np.full((len(cells[-1]), 1), stride, np.float32))
    return np.concatenate(cells), np.concatenate(strides)
