"""At which scales a picture is looked at, and the way there and back.

A network finds faces between about 12 and 500 pixels wide. A picture is scanned at the scale
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


SMALLEST_SEEN = 12.0  # pixels: narrower faces are found too seldom to rely on
FINEST_AREA = 1920 * 1080  # pixels: what a picture has at its finest scale, unless asked for more
COARSEST_SIDE = 640.0  # pixels: at this longer side even a face that fills the picture is found
STEP = 4.0  # from one scale to the next
LARGE = 64.0  # pixels: a coarser scale adds only faces this wide; finer ones have seen the rest


def levels(width: int, height: int, min_face: float | None = None) -> list[Level]:
    """The scales at which a picture is scanned, finest first.

    `min_face` is the width in pixels of the smallest face sought. None scans pictures of up to
    1920 x 1080 pixels as they are, which finds faces from 12 pixels, and larger ones reduced to
    that area, so that the time they take stays the same (12 megapixels: faces from 29 pixels).
    """
    finest = SMALLEST_SEEN / min_face if min_face else (FINEST_AREA / (width * height)) ** 0.5
    scales = [min(1.0, finest)]
    while max(width, height) * scales[-1] > COARSEST_SIDE:
        scales.append(scales[-1] / STEP)
    return [_level(width, height, s, LARGE if i else 0.0) for i, s in enumerate(scales)]


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
