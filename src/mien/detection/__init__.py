"""Find faces: the protocol, and the ways to choose among the faces found."""

from collections.abc import Callable, Sequence
from typing import Protocol, runtime_checkable

from mien.cards import ModelCard
from mien.errors import NoFaceFound, SeveralFacesFound
from mien.types import Face, Image


@runtime_checkable
class Detector(Protocol):
    """Pictures to faces."""

    @property
    def card(self) -> ModelCard: ...

    def detect(self, image: Image) -> list[Face]:
        """All faces, most confident first; an empty list when there is none."""
        ...


Choose = Callable[[Sequence[Face], Image], Face]
"""A policy that picks one of the faces of a picture, or raises an `InputError`."""


def only(faces: Sequence[Face], image: Image) -> Face:
    """The one face there is. Raises `NoFaceFound` and `SeveralFacesFound`."""
    if len(faces) > 1:
        raise SeveralFacesFound(image.source, len(faces))
    return largest(faces, image)


def largest(faces: Sequence[Face], image: Image) -> Face:
    """The face that covers most of the picture, taken to be its subject. Raises `NoFaceFound`."""
    if not faces:
        raise NoFaceFound(image.source)
    return max(faces, key=lambda face: face.box.area)


def central(faces: Sequence[Face], image: Image) -> Face:
    """The face whose middle is nearest to that of the picture, as in portraits and in LFW.

    Raises `NoFaceFound`.
    """
    if not faces:
        raise NoFaceFound(image.source)

    def distance(face: Face) -> float:
        box = face.box
        across = box.left + box.right - (image.width - 1)
        down = box.top + box.bottom - (image.height - 1)
        return across * across + down * down

    return min(faces, key=distance)
