"""Pictures to the vectors that a head takes: one for each of its models, for each face."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from mien.classification.heads import Head
from mien.embedding import require_contract
from mien.geometry import Boxes, iou
from mien.images import Source, read_image
from mien.recognition import Recognizer, load
from mien.types import Embedding, Face, Quality


@dataclass(frozen=True, eq=False, slots=True)
class Described:
    """A face, its quality, and its embeddings by several models, the first one always there."""

    face: Face
    quality: Quality
    embeddings: tuple[Embedding, ...]


def recognizers(
    head: Head, *, threads: int | None = None, min_face: float | None = None
) -> tuple[Recognizer, ...]:
    """The recognisers whose vectors a head takes, in its order.

    Raises `ContractMismatch` when a model makes other vectors today than when the head was
    fitted, and what `mien.load` raises.
    """
    loaded = tuple(load(model.id, threads=threads, min_face=min_face) for model in head.models)
    for model, recognizer in zip(head.models, loaded, strict=True):
        require_contract(model.contract, recognizer.contract)
    return loaded


def describe(source: Source, models: Sequence[Recognizer]) -> list[Described]:
    """The faces that the first model's detector finds in a picture, embedded by every model.

    A model with another detector embeds what that detector finds at the same place, if anything.
    """
    image = read_image(source)
    found: dict[str, list[Face]] = {}
    for model in models:
        detector = model.bundle.detector.id
        if detector not in found:
            found[detector] = model.detector.detect(image)
    faces = found[models[0].bundle.detector.id]
    first = models[0].describe(image, faces)
    embeddings = [[face.embedding] for face in first]
    for model in models[1:]:
        seen = found[model.bundle.detector.id]
        places = _same_faces(faces, seen)
        chosen = [(row, seen[place]) for row, place in enumerate(places) if place != NOWHERE]
        described = model.describe(image, [face for _, face in chosen])
        for (row, _), face in zip(chosen, described, strict=True):
            embeddings[row].append(face.embedding)
    return [
        Described(face.face, face.quality, tuple(vectors))
        for face, vectors in zip(first, embeddings, strict=True)
    ]


NOWHERE = -1
OVERLAP = 0.3  # boxes of two detectors around one face overlap by more, intersection over union


def _same_faces(faces: Sequence[Face], seen: Sequence[Face]) -> list[int]:
    """Which of `seen` each of `faces` is, the best overlaps first, each given once."""
    if faces is seen:
        return list(range(len(faces)))
    places = [NOWHERE] * len(faces)
    overlaps = iou(_boxes(faces), _boxes(seen))
    for _ in range(min(overlaps.shape)):
        row, place = np.unravel_index(overlaps.argmax(), overlaps.shape)
        if overlaps[row, place] < OVERLAP:
            break
        places[row] = int(place)
        overlaps[row], overlaps[:, place] = 0, 0
    return places


def _boxes(faces: Sequence[Face]) -> Boxes:
    edges = [(f.box.left, f.box.top, f.box.right, f.box.bottom) for f in faces]
    return np.array(edges, np.float32).reshape(-1, 4)
