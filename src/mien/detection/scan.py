"""At which scales a picture is looked at, and the way there and back.

A network finds faces in a certain range of widths, its `Sight`. A picture is scanned at the scale
that brings its smallest faces into that range and, when larger faces would fall out of it at the
other end, at coarser scales too, which cost little.
"""

from dataclasses import dataclass

import numpy as np
import PIL.Image
from numpy.typing import NDArray

from mien.types import Pixels


@dataclass(frozen=True, slots=True)
class Level:
    """One scale: the size a picture is brought to, by which factors (x, y).

    Faces narrower than `smallest`, in pixels of this scale, are left to the finer scales.
    """

    width: int
    height: int
    factors: tuple[float, float]
    smallest: float

    def render(self, pixels: Pixels) -> Pixels:
        """The picture at this scale, averaged over what a pixel covers."""
        if (pixels.shape[1], pixels.shape[0]) == (self.width, self.height):
            return pixels
        picture = PIL.Image.fromarray(pixels).resize(
            (self.width, self.height), PIL.Image.Resampling.BILINEAR, reducing_gap=2.0
        )
        return np.asarray(picture)

    def to_picture(self, points: NDArray[np.float32]) -> NDArray[np.float32]:
        """Points (..., 2) counted from pixel corners at this scale, as picture coordinates."""
        factors = np.array(self.factors, np.float32)
        return (points / factors - np.float32(0.5)).astype(np.float32, copy=False)


@dataclass(frozen=True, slots=True)
class Sight:
    """Which widths of face a network finds, in the pixels it is given.

    Narrower faces than `smallest` are found too seldom to rely on, wider ones than `largest` not
    reliably. From one scale to the next goes a factor of `step`; of a coarser scale only faces
    from `overlap` count, since finer ones have seen the rest.
    """

    smallest: float
    largest: float
    step: float = 4.0
    overlap: float = 64.0


FINEST_AREA = 1920 * 1080  # pixels: what a picture has at its finest scale, unless asked for more


def levels(
    width: int,
    height: int,
    sight: Sight,
    min_face: float | None = None,
    max_face: float | None = None,
) -> list[Level]:
    """The scales at which a picture is scanned, finest first.

    `min_face` is the width in pixels of the smallest face sought. None scans pictures of up to
    1920 x 1080 pixels as they are, which finds faces from `sight.smallest`, and larger ones
    reduced to that area, so that the time they take stays the same (12 megapixels: faces 2.4
    times as wide). `max_face` is that of the largest; None: as large as the picture.
    """
    finest = sight.smallest / min_face if min_face else (FINEST_AREA / (width * height)) ** 0.5
    scales = [min(1.0, finest)]
    largest = min(max(width, height), max_face or float("inf"))
    while largest * scales[-1] > sight.largest:
        scales.append(scales[-1] / sight.step)
    return [_level(width, height, s, sight.overlap if i else 0.0) for i, s in enumerate(scales)]


def _level(width: int, height: int, scale: float, smallest: float) -> Level:
    size = max(1, round(width * scale)), max(1, round(height * scale))
    return Level(*size, (size[0] / width, size[1] / height), smallest)


def pad_to(pixels: Pixels, multiple: int, colour: tuple[int, int, int] = (123, 117, 104)) -> Pixels:
    """The picture on a canvas whose sides are multiples of `multiple`, rest in `colour`."""
    height, width = pixels.shape[:2]
    rows, columns = -height % multiple, -width % multiple
    if not rows and not columns:
        return pixels
    canvas = np.empty((height + rows, width + columns, 3), np.uint8)
    canvas[:height, :width] = pixels
    canvas[height:] = colour
    canvas[:height, width:] = colour
    return canvas
