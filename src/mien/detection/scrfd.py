"""SCRFD: two anchors in each cell of three grids; each says how far the four edges of a face are.

Guo et al., "Sample and Computation Redistribution for Efficient Face Detection", 2021. The rule by
which outputs are read is that of the authors' `scrfd.py` in InsightFace: distances and landmarks
are counted from the corner of the cell, in strides. Their weights cannot be had on the machines
that mien is built on: the rule is tested on a made-up network with known answers.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from mien.cards import ModelCard
from mien.detection.scan import Level, Seen, Sight, Tile, distinct, levels, look, pad_to
from mien.errors import ModelError
from mien.inference import Session, to_batch
from mien.types import Face, Image, Pixels

# Faces that fill the picture are missed at its full size, so it is scanned again, smaller, until
# the widest face it can hold is one that the network sees.
SIGHT = Sight(smallest=12.0, largest=256.0, step=2.5)
_STRIDES = (8, 16, 32)

# For networks of boxes alone: where the five points lie in a box, in shares of its width and
# height. The means of the default detector's on 489 faces of LFW, made symmetric; each
# scatters by 0.1.
TYPICAL = np.array(
    [(0.28, 0.38), (0.72, 0.38), (0.50, 0.57), (0.31, 0.74), (0.69, 0.74)], np.float32
)


@dataclass(frozen=True)
class Scrfd:
    """The detector; `min_face` and `max_face` are the widths of the faces sought, in pixels.

    Faces below `confidence` are dropped; of two boxes that overlap by more than `overlap` (IoU)
    the less confident one is. A network without keypoints has landmarks at their usual places in
    the box: enough to cut a face out, too coarse to recognise it by.
    """

    card: ModelCard
    session: Session
    min_face: float | None = None
    max_face: float | None = None
    confidence: float = 0.5
    overlap: float = 0.4

    def detect(self, image: Image) -> list[Face]:
        scales = levels(image.width, image.height, self.min_face, self.max_face, SIGHT)
        return distinct(look(image.pixels, scales, self._scan), self.overlap)

    def _scan(self, pixels: Pixels, level: Level, tile: Tile) -> Seen:
        """Scores (n,), boxes (n, 4) and landmarks (n, 5, 2) seen in one tile of one scale."""
        left, top, right, bottom = tile.area
        canvas = pad_to(pixels[top:bottom, left:right], _STRIDES[-1], (0, 0, 0))
        outputs = self.session(to_batch(self.card.input, canvas[None]))
        scores, edges, marks = _kinds(self.card.id, outputs)
        cells, strides = _cells(canvas.shape[0], canvas.shape[1], [len(s) for s in scores])
        score = np.concatenate(scores)[:, 0]
        (seen,) = np.nonzero(score >= self.confidence)
        cell, stride = cells[seen] + np.array((left, top), np.float32), strides[seen]
        edge = np.concatenate(edges)[seen] * stride
        corners = np.stack([cell - edge[:, :2], cell + edge[:, 2:]], axis=1)
        size = corners[:, 1] - corners[:, 0]
        if marks:
            mark = np.concatenate(marks)[seen].reshape(-1, 5, 2)
            points = cell[:, None] + mark * stride[:, None]
        else:
            points = corners[:, :1] + TYPICAL * size[:, None]
        width = size[:, 0]
        own = tile.owns(corners.mean(axis=1))
        own &= (width > 0) & (width >= level.smallest) & (width <= level.largest)
        return (
            score[seen][own],
            level.to_picture(corners[own]).reshape(-1, 4),
            level.to_picture(points[own]),
        )


_Parts = list[NDArray[np.float32]]


def _kinds(name: str, outputs: Sequence[NDArray[np.float32]]) -> tuple[_Parts, _Parts, _Parts]:
    """Scores, distances and landmarks by stride, told apart by how many numbers an anchor has.

    Some exports have a batch dimension. Raises `ModelError` for outputs of another network.
    """
    flat = [part.reshape(-1, part.shape[-1]) for part in outputs]
    scores, edges, marks = ([part for part in flat if part.shape[1] == n] for n in (1, 4, 10))
    count = len(_STRIDES)
    if (len(scores), len(edges)) != (count, count) or len(marks) not in (0, count):
        shapes = ", ".join(str(part.shape) for part in outputs)
        raise ModelError(f"{name} does not give what SCRFD gives at three strides, but {shapes}")
    return scores, edges, marks


def _cells(
    height: int, width: int, counts: list[int]
) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """Corner (n, 2) of the cell of every anchor, in pixels, and its stride (n, 1)."""
    cells, strides = [], []
    for stride, count in zip(_STRIDES, counts, strict=True):
        rows, columns = np.mgrid[0 : height // stride, 0 : width // stride].astype(np.float32)
        corners = np.stack([columns, rows], axis=-1).reshape(-1, 2) * stride
        cells.append(np.repeat(corners, count // len(corners), axis=0))
        strides.append(np.full((count, 1), stride, np.float32))
    return np.concatenate(cells), np.concatenate(strides)
