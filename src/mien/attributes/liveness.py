"""Passive liveness: does one picture show a person, or a print or a screen that shows one?

Two networks look at the face from near and from farther off, and the mean of what they say is the
score. Source: Minivision, Silent-Face-Anti-Spoofing (Apache-2.0), whose crops are followed to the
pixel.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from mien.attributes.labels import softmax
from mien.cards import ModelCard
from mien.errors import ModelError
from mien.inference import Session, to_batch
from mien.types import Answer, Box, Face, Image, Liveness, LivenessPoint, Pixels

SIDE = 80
CONTEXTS = (2.7, 4.0)  # how many times the face box each network sees
LIVING = 1  # the class of a living face; 0 and 2 are two kinds of attack


@dataclass(frozen=True)
class MiniFasNet:
    """The two networks, in the order of `CONTEXTS`."""

    card: ModelCard
    sessions: tuple[Session, ...]

    def answer(self, image: Image, faces: Sequence[Face]) -> list[dict[str, Answer]]:
        """See `Attribute`. Raises `ModelError` for a card without a measured threshold."""
        point = self._point()
        return [
            {"liveness": Liveness(point.accepts(score), score, point)}
            for score in self.scores(image, faces).tolist()
        ]

    def scores(self, image: Image, faces: Sequence[Face]) -> NDArray[np.float64]:
        """How living each face looks, (n,) in [0, 1]; raises `ModelError` for a wrong card."""
        if len(self.sessions) != len(CONTEXTS):
            raise ModelError(f"{self.card.id} must have {len(CONTEXTS)} networks")
        shares = []
        for context, session in zip(CONTEXTS, self.sessions, strict=True):
            crops = np.stack([crop(image, face.box, context) for face in faces])
            (logits,) = session(to_batch(self.card.input, crops))
            shares.append(softmax(logits)[:, LIVING])
        mean: NDArray[np.float64] = np.mean(shares, axis=0)
        return mean

    def _point(self) -> LivenessPoint:
        """The first on the card; without a measured threshold there is no answer."""
        if not self.card.liveness_points:
            raise ModelError(
                f"no threshold of {self.card.id} was measured: its scores mean nothing"
            )
        return self.card.liveness_points[0]


def crop(image: Image, box: Box, context: float) -> Pixels:
    """The surroundings of a face, `context` times its box, as 80 x 80 pixels.

    Where they reach over the border of the picture they are moved inside, and where they are
    larger than the picture, reduced to it; the sides are then scaled each for itself.
    """
    left, top, width, height = (
        int(edge) for edge in (box.left, box.top, box.width + 1, box.height + 1)
    )
    width, height = max(width, 1), max(height, 1)
    context = min((image.height - 1) / height, (image.width - 1) / width, context)
    x0, x1 = _inside(left + width / 2, width * context, image.width)
    y0, y1 = _inside(top + height / 2, height * context, image.height)
    return _resized(image.pixels[y0 : y1 + 1, x0 : x1 + 1])


def _inside(middle: float, length: float, limit: int) -> tuple[int, int]:
    """First and last pixel of a stretch, shifted into 0 .. limit - 1."""
    start, end = middle - length / 2, middle + length / 2
    if start < 0:
        start, end = 0.0, end - start
    if end > limit - 1:
        start, end = start - (end - limit + 1), limit - 1.0
    return max(0, int(start)), int(end)


def _resized(pixels: Pixels) -> Pixels:
    """Bilinear from the four nearest pixels, whatever the scale, as the networks learnt it.

    Pillow's filters widen when they reduce; these must not.
    """
    y0, y1, down = _neighbours(pixels.shape[0])
    x0, x1, right = _neighbours(pixels.shape[1])
    rows = pixels[y0].astype(np.float32)
    rows += (pixels[y1].astype(np.float32) - rows) * down[:, None, None]
    columns = rows[:, x0]
    columns += (rows[:, x1] - columns) * right[:, None]
    return np.rint(columns).astype(np.uint8)


def _neighbours(
    length: int,
) -> tuple[NDArray[np.intp], NDArray[np.intp], NDArray[np.float32]]:
    """For each of the pixels asked for: the two it lies between, and how far towards the second."""
    place = np.clip((np.arange(SIDE) + 0.5) * length / SIDE - 0.5, 0, length - 1)
    first = place.astype(np.intp)
    return first, np.minimum(first + 1, length - 1), (place - first).astype(np.float32)
