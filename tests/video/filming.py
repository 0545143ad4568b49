"""Films made of real pictures, so that who is where on each frame is known."""

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import PIL.Image

from mien.types import Box, Face, Image
from mien.video import Film, VideoFrame

RATE = 25
GROUND = (96, 104, 112)


@dataclass(frozen=True)
class Sprite:
    """A person cut out of a picture, and where the face is in it, at 100% size."""

    name: str
    picture: PIL.Image.Image
    face: Box


def sprite(name: str, image: Image, face: Face, side: int = 160) -> Sprite:
    """The surroundings of a face as a square of `side` pixels, in an ellipse."""
    box = face.box
    reach = 1.9 * max(box.width, box.height)
    left = (box.left + box.right - reach) / 2
    top = (box.top + box.bottom - reach) / 2
    scale = side / reach
    picture = PIL.Image.fromarray(image.pixels).crop(
        (round(left), round(top), round(left + reach), round(top + reach))
    )
    inside = Box(*(
        (edge - start) * scale
        for edge, start in zip(
            (box.left, box.top, box.right, box.bottom), (left, top, left, top), strict=True
        )
    ))  # fmt: skip
    return Sprite(name, picture.resize((side, side), PIL.Image.Resampling.LANCZOS), inside)


Places = list[tuple[Sprite, float, float, float]]
"""Who is on a frame, from back to front: sprite, left, top, size (1.0 is its own)."""


def drawn(places: Places, size: tuple[int, int]) -> Image:
    canvas = PIL.Image.new("RGB", size, GROUND)
    for one, left, top, scale in places:
        side = max(1, round(one.picture.width * scale))
        picture = one.picture.resize((side, side), PIL.Image.Resampling.LANCZOS)
        canvas.paste(picture, (round(left), round(top)))
    return Image(np.asarray(canvas), "frame")


def filmed(
    count: int, scene: Callable[[int], Places], size: tuple[int, int] = (640, 360)
) -> Iterator[VideoFrame]:
    """So many frames of a scene, 25 a second."""
    for number in range(count):

        def decode(number: int = number) -> Image:
            return drawn(scene(number), size)

        yield VideoFrame(number, number / RATE, decode)


def saved(frames: Iterable[VideoFrame], path: Path) -> Path:
    """The same as a file."""
    with Film(path) as film:
        for frame in frames:
            film.add(frame.decode(), frame.time)
    return path


def crossing(a: Sprite, b: Sprite, frames: int = 75) -> Iterator[VideoFrame]:
    """`a` walks to the right, `b` to the left, behind `a`."""

    def scene(number: int) -> Places:
        way = 480 * number / (frames - 1)
        return [(b, 480 - way, 100, 1.0), (a, way, 100, 1.0)]

    return filmed(frames, scene)


def zooming(a: Sprite, frames: int = 75) -> Iterator[VideoFrame]:
    """`a` comes nearer, from a quarter of the size to twice the size."""

    def scene(number: int) -> Places:
        scale = 0.25 * 8 ** (number / (frames - 1))
        side = a.picture.width * scale
        return [(a, 320 - side / 2, 180 - side / 2, scale)]

    return filmed(frames, scene)


def panning(
    image: Image, frames: int = 75, size: tuple[int, int] = (480, 480)
) -> Iterator[VideoFrame]:
    """The camera moves over a picture, from its left edge to its right."""
    for number in range(frames):

        def decode(number: int = number) -> Image:
            left = round((image.width - size[0]) * number / (frames - 1))
            return Image(np.ascontiguousarray(image.pixels[: size[1], left : left + size[0]]))

        yield VideoFrame(number, number / RATE, decode)
