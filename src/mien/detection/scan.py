"""At which scales a picture is looked at, and the way there and back.

A network finds faces of a certain range of widths, its `Sight`. A picture is scanned at the scale
that brings its smallest faces into that range and, when larger faces would fall out of it at the
other end, at coarser scales too, which cost little.
"""

from collections.abc import Callable, Iterable
from dataclasses import dataclass

import numpy as np
import PIL.Image
from numpy.typing import NDArray

from mien.geometry import suppress
from mien.types import Box, Face, Landmarks, Pixels

Seen = tuple[NDArray[np.float32], NDArray[np.float32], NDArray[np.float32]]
"""Scores (n,), boxes (n, 4) and landmarks (n, 5, 2), in pixels of the picture."""

_CANDIDATES = 5000  # more than any picture needs; bounds the time that a hostile one can take


@dataclass(frozen=True, slots=True)
class Tile:
    """A part of a scale that is looked at in one go: left, top, right, bottom, in its pixels.

    A face belongs to the tile whose `core` its middle is in. Cores do not overlap and tiles do, by
    more than the largest face that is sought in tiles, so each face is seen whole, once.
    """

    area: tuple[int, int, int, int]
    core: tuple[float, float, float, float]

    def owns(self, points: NDArray[np.float32]) -> NDArray[np.bool_]:
        """Which of the points (n, 2), counted from the corner of the scale, lie in the core."""
        left, top, right, bottom = self.core
        x, y = points[:, 0], points[:, 1]
        inside: NDArray[np.bool_] = (left <= x) & (x < right) & (top <= y) & (y < bottom)
        return inside


@dataclass(frozen=True, slots=True)
class Level:
    """One scale: the size a picture is brought to, by which factors (x, y).

    Faces narrower than `smallest` or wider than `largest`, in pixels of this scale, are left to
    the other scales.
    """

    width: int
    height: int
    factors: tuple[float, float]
    smallest: float
    largest: float

    def render(self, pixels: Pixels) -> Pixels:
        """The picture at this scale, averaged over what a pixel covers."""
        if (pixels.shape[1], pixels.shape[0]) == (self.width, self.height):
            return pixels
        picture = PIL.Image.fromarray(pixels).resize(
            (self.width, self.height), PIL.Image.Resampling.BILINEAR, reducing_gap=2.0
        )
        return np.asarray(picture)

    def tiles(self) -> list[Tile]:
        """The parts in which this scale is looked at: itself, unless memory would not do."""
        if self.width * self.height <= UNTILED_AREA:
            return [Tile((0, 0, self.width, self.height), (-np.inf, -np.inf, np.inf, np.inf))]
        return [
            Tile((left, top, right, bottom), (first, upper, last, lower))
            for top, bottom, upper, lower in _spans(self.height)
            for left, right, first, last in _spans(self.width)
        ]

    def to_picture(self, points: NDArray[np.float32]) -> NDArray[np.float32]:
        """Points (..., 2) counted from pixel corners at this scale, as picture coordinates."""
        factors = np.array(self.factors, np.float32)
        return (points / factors - np.float32(0.5)).astype(np.float32, copy=False)


SMALLEST_SEEN = 16.0  # pixels: five of six faces of this width are found, one of two at 11
FINEST_AREA = 1920 * 1080  # pixels: what a picture has at its finest scale, unless asked for more
COARSEST_SIDE = 640.0  # pixels: at this longer side even a face that fills the picture is found
STEP = 4.0  # from one scale to the next
LARGE = 64.0  # pixels: a coarser scale adds only faces this wide; finer ones have seen the rest
UNTILED_AREA = 2 * FINEST_AREA  # pixels: a larger scale is looked at in tiles
TILE, OVERLAP = 1536, 320  # pixels: sides of tiles, and how much neighbours share
TILED_LARGEST = 256.0  # pixels: wider faces could be cut by a tile; the next scale has them


@dataclass(frozen=True, slots=True)
class Sight:
    """Which widths of face a network finds, in the pixels it is given; RetinaFace's by default.

    Narrower faces than `smallest` are found too seldom to rely on, wider ones than `largest` not
    reliably. From one scale to the next goes a factor of `step`; a coarser scale adds only faces
    of at least `overlap`, since finer ones have seen the rest.
    """

    smallest: float = SMALLEST_SEEN
    largest: float = COARSEST_SIDE
    step: float = STEP
    overlap: float = LARGE


_USUAL = Sight()


def levels(
    width: int,
    height: int,
    min_face: float | None = None,
    max_face: float | None = None,
    sight: Sight = _USUAL,
) -> list[Level]:
    """The scales at which a picture is scanned, finest first.

    `min_face` is the width in pixels of the smallest face sought. None scans pictures of up to
    1920 x 1080 pixels as they are, which finds faces from 16 pixels, and larger ones reduced to
    that area, so that the time they take stays the same (12 megapixels: faces from 38 pixels).
    `max_face` is that of the largest; None: as wide as the picture.
    """
    finest = sight.smallest / min_face if min_face else (FINEST_AREA / (width * height)) ** 0.5
    scales = [min(1.0, finest)]
    widest = min(max(width, height), max_face or np.inf)
    while widest * scales[-1] > sight.largest:
        scales.append(scales[-1] / sight.step)
    return [_level(width, height, s, sight.overlap if i else 0.0) for i, s in enumerate(scales)]


def _level(width: int, height: int, scale: float, smallest: float) -> Level:
    size = max(1, round(width * scale)), max(1, round(height * scale))
    largest = np.inf if size[0] * size[1] <= UNTILED_AREA else TILED_LARGEST
    return Level(*size, (size[0] / width, size[1] / height), smallest, largest)


def _spans(length: int) -> list[tuple[int, int, float, float]]:
    """Start, end, and start and end of the core, of the tiles along one side."""
    count = max(1, -(-(length - OVERLAP) // (TILE - OVERLAP)))
    starts = [round(i * (length - TILE) / (count - 1)) for i in range(count)] if count > 1 else [0]
    ends = [min(length, start + TILE) for start in starts]
    seams = [(end + start) / 2 for end, start in zip(ends[:-1], starts[1:], strict=True)]
    return list(zip(starts, ends, [-np.inf, *seams], [*seams, np.inf], strict=True))


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


def look(
    pixels: Pixels, scales: Iterable[Level], scan: Callable[[Pixels, Level, Tile], Seen]
) -> Seen:
    """All that `scan` sees in the tiles of a picture at its scales, most confident first."""
    found = []
    for level in scales:
        rendered = level.render(pixels)
        found += [scan(rendered, level, tile) for tile in level.tiles()]
    scores, boxes, points = (np.concatenate(parts) for parts in zip(*found, strict=True))
    best = np.argsort(-scores, kind="stable")[:_CANDIDATES]
    return scores[best], boxes[best], points[best]


def distinct(seen: Seen, overlap: float) -> list[Face]:
    """The faces seen; of two whose boxes overlap by more than `overlap` (IoU) the surer one."""
    scores, boxes, points = seen
    return [
        Face(Box(*boxes[kept].tolist()), Landmarks(points[kept]), float(scores[kept]))
        for kept in suppress(boxes, scores, overlap)
    ]
