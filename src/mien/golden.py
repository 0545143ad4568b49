"""Prove that a model computes what its card says: on a real face, whose results the card keeps.

A wrong mean, colour order or crop raises no error and ruins every score. Here it is an error that
names its reason: whichever other input contract does give the card's results.
"""

from collections.abc import Iterator, Sequence
from dataclasses import replace
from importlib import resources

import numpy as np

from mien.alignment import align
from mien.attributes.labels import LabelNetwork
from mien.attributes.liveness import MiniFasNet
from mien.cards import Golden, InputSpec, ModelCard
from mien.embedding import NetworkEmbedder, normalize
from mien.errors import ModelError
from mien.geometry import iou
from mien.images import read_image
from mien.inference import open_session, open_sessions
from mien.recognition import load_detector
from mien.types import Box, Face, Image, Landmarks

COSINE = 0.998  # int8 of the dlib network reaches 0.9997, its float with blue for red 0.994
OVERLAP = 0.99  # IoU of boxes
COMMON = 0.99  # shares of labels: dlib's gender with red for blue keeps 0.988
DRIFT = 0.01  # of landmarks, as a share of the width of the face


def check(card: ModelCard, precision: str | None = None, provider: str | None = None) -> float:
    """Run a model on the picture its card names; return how well it agrees, 1.0 being exactly.

    That is the cosine of the vectors of an embedder, the IoU of the boxes of a detector, and what
    the shares of labels have in common for a network that answers questions. Raises `ModelError`
    with the reason when they disagree, when the card has nothing to compare with, and when the
    model cannot be run.
    """
    golden = card.golden
    if golden is None:
        raise ModelError(f"the card of {card.id} has no golden results to compare with")
    picture = resources.files("mien").joinpath("bundled", "pictures", golden.picture)
    if not picture.is_file():
        raise ModelError(f"the card of {card.id} names {golden.picture}, which mien does not have")
    image = read_image(picture.read_bytes())
    compare, needed = _COMPARISONS[card.task]
    found = compare(card, image, golden, precision, provider)
    if found >= needed:
        return found
    reason = f"{card.id} does not compute what its card says: it agrees to {found:.3f} with the "
    reason += f"results on {golden.picture}, {needed} is needed"
    for what, spec in _others(card.input):
        other = replace(card, input=spec)
        if compare(other, image, golden, precision, provider) >= needed:
            raise ModelError(f"{reason}; with {what} it does, so the card's input is wrong")
    raise ModelError(f"{reason}; the crop, its size or the weights must be others")


def _embedder(
    card: ModelCard, image: Image, golden: Golden, precision: str | None, provider: str | None
) -> float:
    if card.input.frame is None or not golden.vector:
        raise ModelError(f"the card of {card.id} lacks the frame or the golden vector")
    landmarks = Landmarks(np.array(golden.landmarks, np.float32))
    crop = align(image, landmarks, card.input.frame)
    embedder = NetworkEmbedder(card, open_session(card, precision, provider))
    (vector,) = embedder.embed_batch([crop])
    if len(vector) != len(golden.vector):
        raise ModelError(
            f"{card.id} gives {len(vector)} numbers a face where its card has {len(golden.vector)}"
        )
    (expected,) = normalize(np.array([golden.vector], np.float32))
    return float(vector @ expected)


def _detector(
    card: ModelCard, image: Image, golden: Golden, _: str | None, provider: str | None
) -> float:
    """IoU with the golden box of the face that overlaps it most; 0 when its landmarks are off."""
    faces = load_detector(card, provider=provider).detect(image)
    return max((_agreement(face, golden) for face in faces), default=0.0)


def _answers(
    card: ModelCard, image: Image, golden: Golden, precision: str | None, provider: str | None
) -> float:
    """The least that the shares of a question have in common with the golden ones, in [0, 1]."""
    sessions = open_sessions(card, precision, provider)
    if golden.box is None:
        raise ModelError(f"the card of {card.id} lacks the golden box")
    face = Face(Box(*golden.box), Landmarks(np.array(golden.landmarks, np.float32)), 1.0)
    expected: Sequence[Sequence[float]] = golden.shares
    if card.task == "liveness":
        living = MiniFasNet(card, sessions).scores(image, [face])
        found = [np.stack([living, 1 - living], axis=1)]
        expected = [(row[0], 1 - row[0]) for row in golden.shares]
    else:
        found = LabelNetwork(card, *sessions).shares(image, [face])
    if [rows.shape[1] for rows in found] != [len(row) for row in expected]:
        raise ModelError(f"the golden shares of {card.id} are not those of its questions")
    pairs = zip(found, expected, strict=True)
    return min(1 - float(np.abs(rows[0] - row).sum()) / 2 for rows, row in pairs)


def _agreement(face: Face, golden: Golden) -> float:
    box = face.box
    found = np.array([[box.left, box.top, box.right, box.bottom]], np.float32)
    drift = np.abs(face.landmarks.points - np.array(golden.landmarks, np.float32)).max()
    if drift > DRIFT * box.width:
        return 0.0
    return float(iou(found, np.array([golden.box], np.float32))[0, 0])


def _others(spec: InputSpec) -> Iterator[tuple[str, InputSpec]]:
    """The contracts that are mistaken for one another, each with its name."""
    scales = [(0.0, 1.0), (0.0, 255.0), (127.5, 127.5), (127.5, 128.0)]
    for channels in (spec.channels, "BGR" if spec.channels == "RGB" else "RGB"):
        if channels != spec.channels:
            yield f"channels {channels}", replace(spec, channels=channels)
        if spec.dtype == "uint8":
            continue
        for mean, std in scales:
            other = replace(spec, channels=channels, mean=(mean,) * 3, std=(std,) * 3)
            if other != spec:
                yield f"channels {channels}, mean {mean:g} and std {std:g}", other


_COMPARISONS = {
    "detection": (_detector, OVERLAP),
    "embedding": (_embedder, COSINE),
    "attributes": (_answers, COMMON),
    "liveness": (_answers, COMMON),
}
