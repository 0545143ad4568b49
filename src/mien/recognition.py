"""The main path in one place: picture -> faces -> aligned crops -> embeddings. Read this first."""

import os
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, replace
from itertools import islice
from typing import TypeVar

import numpy as np

from mien import cards, decision
from mien.alignment import align, align_views
from mien.detection import Choose, Detector, only
from mien.detection.mtcnn import Mtcnn
from mien.detection.retinaface import RetinaFace, exported
from mien.detection.scrfd import Scrfd
from mien.detection.yunet import YuNet
from mien.embedding import Embedder, NetworkEmbedder, mean_direction, similarity
from mien.errors import InputError, ModelError
from mien.images import Source, read_image
from mien.inference import open_session, open_sessions
from mien.quality import assess
from mien.types import (
    Embedding,
    Face,
    Frame,
    Image,
    OperatingPoint,
    Quality,
    RecognizedFace,
    Vector,
    Verification,
)

DETECTORS: dict[str, Callable[..., Detector]] = {
    "retinaface": RetinaFace,
    "retinaface-export": exported,
    "yunet": YuNet,
    "mtcnn": Mtcnn,
    "scrfd": Scrfd,
}

T = TypeVar("T")
R = TypeVar("R")


def load(
    model: str = "embedded",
    *,
    threads: int | None = None,
    min_face: float | None = None,
    max_face: float | None = None,
    precision: str | None = None,
    provider: str | None = None,
) -> "Recognizer":
    """A recogniser by the id of its bundle; see `mien models list` for the ids.

    `threads` is how many pictures `recognize_batch` works on at once (default: the processors
    this process may use). `min_face` and `max_face` are the widths in pixels of the smallest and
    the largest face sought (see `mien.detection.scan.levels`). `precision`, "int8" or "fp32",
    overrides the choice made for this processor, `provider` what computes (see
    `mien.inference.PROVIDERS`). Raises `UnknownModel`, `CorruptWeights`, `LicenceNotAccepted`,
    `ModelError`, and `InputError` for options that make no sense.
    """
    if threads is not None and threads < 1:
        raise InputError(f"threads is at least 1, got {threads}")
    if min_face is not None and not min_face > 0:
        raise InputError(f"min_face is a width in pixels, got {min_face}")
    bundle = cards.bundle(model)
    detector = load_detector(
        bundle.detector, min_face=min_face, max_face=max_face, provider=provider
    )
    made = []
    for part in bundle.members or (bundle,):
        network = NetworkEmbedder(part.embedder, open_session(part.embedder, precision, provider))
        made.append(Recognizer(part, detector, network, threads or processors()))
    first = made[0]
    if not bundle.members:
        return first
    return Ensemble(bundle, detector, first.embedder, first.threads, tuple(made))


def load_detector(
    card: cards.ModelCard,
    *,
    min_face: float | None = None,
    max_face: float | None = None,
    provider: str | None = None,
) -> Detector:
    """A detector by its card; the rest as for `load`."""
    if card.task != "detection":
        raise ModelError(f"{card.id} is no detector, its task is {card.task}")
    sessions = open_sessions(card, provider=provider)
    return DETECTORS[card.decoder](card, *sessions, min_face=min_face, max_face=max_face)


@dataclass(frozen=True)
class Recognizer:
    """A detector and an embedder that belong together, and what was measured of them.

    Safe to use from several threads.
    """

    bundle: cards.Bundle
    detector: Detector
    embedder: Embedder
    threads: int = 1

    @property
    def contract(self) -> str:
        """Names the way this recogniser makes vectors; only equal contracts are compared."""
        return self.bundle.contract

    @property
    def frame(self) -> Frame:
        """The crop that the embedder expects, for `mien.align`."""
        frame = self.bundle.embedder.input.frame
        assert frame is not None  # the cards of embedders are tested to have one
        return frame

    def recognize(self, source: Source) -> list[RecognizedFace]:
        """Every face of a picture with its embedding, most confident first.

        Raises `UnreadableImage` and `ImageTooLarge`; a picture without a face gives an empty list.
        """
        image = read_image(source)
        return self.describe(image, self.detector.detect(image))

    def recognize_batch(
        self,
        sources: Iterable[Source],
        on_error: Callable[[Source, InputError], list[RecognizedFace]] | None = None,
    ) -> Iterator[list[RecognizedFace]]:
        """`recognize` for a stream of pictures: in order, in parallel, in bounded memory.

        A picture that cannot be used raises, unless `on_error(source, error)` gives a list to
        yield in its place.
        """

        def one(source: Source) -> list[RecognizedFace]:
            try:
                return self.recognize(source)
            except InputError as error:
                if on_error is None:
                    raise
                return on_error(source, error)

        return ordered_map(one, sources, self.threads)

    def embed(self, source: Source, choose: Choose = only) -> RecognizedFace:
        """The one face of a picture that `choose` picks, with its embedding.

        Raises `NoFaceFound` and, with the default policy, `SeveralFacesFound`.
        """
        image = read_image(source)
        (face,) = self.describe(image, [choose(self.detector.detect(image), image)])
        return face

    def describe(self, image: Image, faces: list[Face]) -> list[RecognizedFace]:
        """Align and embed the faces that a detector found in a picture, in one batch."""
        return self.describe_batch([(image, faces)])[0]

    def describe_batch(
        self, found: Sequence[tuple[Image, list[Face]]]
    ) -> list[list[RecognizedFace]]:
        """`describe` for several pictures, all their faces in one batch."""
        views = self.bundle.views
        crops = [
            [align_views(image, face.landmarks, self.frame, views) for face in faces]
            for image, faces in found
        ]
        flat = [view for faces in crops for crop in faces for view in crop]
        vectors = self.embedder.embed_batch(flat)
        of_face = iter([vectors[i : i + views] for i in range(0, len(flat), views)])
        return [
            [
                RecognizedFace(
                    face,
                    assess(face, crop[0]),
                    Embedding(mean_direction(next(of_face)), self.contract),
                )
                for face, crop in zip(faces, aligned, strict=True)
            ]
            for (_, faces), aligned in zip(found, crops, strict=True)
        ]

    def assess(self, image: Image, face: Face) -> Quality:
        """How usable a detected face is, without embedding it."""
        return assess(face, align(image, face.landmarks, self.frame))

    def verify(
        self, a: Source, b: Source, *, fmr: float = 1e-3, choose: Choose = only
    ) -> Verification:
        """Whether two pictures show the same person.

        `fmr` is the share of pairs of different people that may be taken for the same one; the
        answer carries the threshold measured at that rate. Raises `NoOperatingPoint` and what
        `embed` raises.
        """
        point = self.operating_point(fmr)
        score = similarity(self.embed(a, choose).embedding, self.embed(b, choose).embedding)
        return Verification(point.accepts(score), score, point)

    def operating_point(self, fmr: float) -> OperatingPoint:
        """The threshold measured at a false match rate. Raises `NoOperatingPoint`."""
        return decision.operating_point(self.bundle.operating_points, fmr, self.contract)


@dataclass(frozen=True)
class Ensemble(Recognizer):
    """Several embedders behind one detector: a score is the weighted mean of their scores.

    Their vectors, scaled by the roots of the weights, are joined to one: its length is one again,
    and its products are those means.
    """

    members: tuple[Recognizer, ...] = ()

    def describe_batch(
        self, found: Sequence[tuple[Image, list[Face]]]
    ) -> list[list[RecognizedFace]]:
        scales = np.sqrt(np.array(self.bundle.weights, np.float32))
        by_member = [member.describe_batch(found) for member in self.members]
        return [
            [self._join(views, scales) for views in zip(*pictures, strict=True)]
            for pictures in zip(*by_member, strict=True)
        ]

    def _join(self, views: tuple[RecognizedFace, ...], scales: Vector) -> RecognizedFace:
        parts = [scale * view.embedding.vector for scale, view in zip(scales, views, strict=True)]
        vector = mean_direction(np.concatenate(parts)[None])  # weights are rounded: length 1 again
        return replace(views[0], embedding=Embedding(vector, self.contract))


def ordered_map(
    function: Callable[[T], R], items: Iterable[T], threads: int, ahead: int = 2
) -> Iterator[R]:
    """`map` on several threads: results in order, at most `ahead` items a thread in flight.

    The first exception of `function` ends the iteration. Decoding, scaling and inference release
    the interpreter lock, so threads scale with processors.
    """
    if threads == 1:
        yield from map(function, items)
        return
    stream = iter(items)
    with ThreadPoolExecutor(threads, thread_name_prefix="mien") as pool:
        waiting: deque[Future[R]] = deque(
            pool.submit(function, item) for item in islice(stream, threads * ahead)
        )
        try:
            while waiting:
                yield waiting.popleft().result()
                waiting.extend(pool.submit(function, item) for item in islice(stream, 1))
        finally:  # the consumer stopped or an item failed: do not start the rest
            for future in waiting:
                future.cancel()


def processors() -> int:
    """How many processors this process may run on."""
    try:
        return len(os.sched_getaffinity(0))
    except AttributeError:  # not on macOS and Windows
        return os.cpu_count() or 1
