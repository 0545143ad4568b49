"""The face that counts in a picture, and pictures and faces as replies tell them."""

from collections.abc import Sequence
from typing import Annotated, Any, Literal

from fastapi import Query

from mien.classification.faces import Described
from mien.detection import Choose, central, largest, only
from mien.errors import NoFaceFound
from mien.server import messages as m
from mien.types import Analysis, Face, Image, Quality, RecognizedFace

ChooseName = Annotated[
    Literal["only", "largest", "central"],
    Query(description="Which face counts when a picture has several: none, and it is refused; the "
          "largest; the most central."),
]  # fmt: skip
At = Annotated[
    str | None,
    Query(pattern=r"^\d{1,6}(\.\d{1,4})?,\d{1,6}(\.\d{1,4})?$", examples=["240.5,130"],
          description="The face that counts is the one at this point, as X,Y in pixels."),
]  # fmt: skip

_CHOICES: dict[str, Choose] = {"only": only, "largest": largest, "central": central}


def chooser(choose: str, at: str | None = None) -> Choose:
    """The policy of this name, or the one that takes the face at a point."""
    if at is None:
        return _CHOICES[choose]
    x, y = map(float, at.split(","))

    def under(faces: Sequence[Face], image: Image) -> Face:
        here = [
            face
            for face in faces
            if face.box.left <= x <= face.box.right and face.box.top <= y <= face.box.bottom
        ]
        if not here:
            raise NoFaceFound(f"{image.source} at {at}")
        return min(here, key=lambda face: face.box.area)

    return under


def picture_of(image: Image, faces: list[m.AnyFace]) -> m.PictureOf[m.AnyFace]:
    """A picture and its faces as a reply tells them."""
    return m.PictureOf(image=image.source, width=image.width, height=image.height, faces=faces)


def found_face(face: Face, quality: Quality) -> m.FoundFace:
    """A face that was not embedded, as a reply tells it."""
    return m.FoundFace(**_place(face), quality=quality.value, reasons=list(quality.reasons))


def _place(face: Face) -> dict[str, Any]:
    box = face.box
    return {
        "box": [round(side, 2) for side in (box.left, box.top, box.right, box.bottom)],
        "landmarks": face.landmarks.points.astype(float).round(2).tolist(),
        "confidence": round(face.confidence, 4),
    }


def facts(face: RecognizedFace | Described | Analysis) -> dict[str, Any]:
    """Where a face is and how usable, as the fields of a reply."""
    return {
        **_place(face.face),
        "quality": round(face.quality.value, 4),
        "reasons": list(face.quality.reasons),
    }


def numbers(face: RecognizedFace) -> list[float]:
    """The vector of a face, to eight decimals."""
    numbers: list[float] = face.embedding.vector.astype(float).round(8).tolist()
    return numbers


def rounded(score: float) -> float:
    """A score to five decimals."""
    return round(score, 5)
