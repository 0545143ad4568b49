"""Borderline identifications, kept for a person to confirm or reject.

Only those of requests that ask for it, and in memory only: what nobody has decided is gone when the
server stops. A confirmed face becomes a template of the person, a rejected one a negative.
"""

import secrets
import threading
from collections import OrderedDict, defaultdict
from collections.abc import Iterable
from dataclasses import dataclass, replace
from datetime import UTC, datetime

from mien.embedding import similarity
from mien.server.problems import UnknownReview
from mien.types import Identification, RecognizedFace

FACTOR = 4.0
"""How many times more, or less, often than may be named strangers score as high as a borderline
answer."""

_SAME = 0.99  # cosine of two frames of one moment: a camera must not fill the list with one face


@dataclass(frozen=True, eq=False, slots=True)
class Review:
    """A face, and of whom it cannot be said for sure that it is theirs.

    `named` is whether the server gave the name, `crop` a JPEG of the face as it was aligned.
    """

    id: str
    gallery: str
    subject: str
    named: bool
    score: float
    fpir_at_score: float
    image: str
    face: RecognizedFace
    crop: bytes
    created: str


def borderline(answer: Identification, fpir_at_score: float) -> bool:
    """Whether a person should look at an answer."""
    asked = answer.fpir
    return bool(answer.candidates) and asked / FACTOR <= fpir_at_score <= asked * FACTOR


class Reviews:
    """The latest `most` reviews of each gallery, 0 to keep none. Thread-safe."""

    def __init__(self, most: int) -> None:
        self._most = most
        self._lock = threading.Lock()
        self._kept: defaultdict[str, OrderedDict[str, Review]] = defaultdict(OrderedDict)

    def add(
        self,
        gallery: str,
        image: str,
        face: RecognizedFace,
        answer: Identification,
        fpir_at_score: float,
        crop: bytes,
    ) -> str | None:
        """Keep an answer in the place of one about the same face, else of the oldest: its id.

        None from a server that keeps none.
        """
        if not self._most:
            return None
        review = Review(
            secrets.token_hex(8), gallery, answer.candidates[0].subject,
            answer.subject is not None, answer.score, fpir_at_score, image, face, crop,
            datetime.now(UTC).isoformat(timespec="seconds"),
        )  # fmt: skip
        with self._lock:
            kept = self._kept[gallery]
            _drop(kept, [
                one.id for one in kept.values()
                if one.subject == review.subject
                and similarity(one.face.embedding, face.embedding) >= _SAME
            ])  # fmt: skip
            kept[review.id] = review
            while len(kept) > self._most:
                kept.popitem(last=False)
        return review.id

    def listed(self, gallery: str) -> list[Review]:
        """Those of a gallery, latest first."""
        with self._lock:
            return list(reversed(self._kept[gallery].values()))

    def find(self, gallery: str, name: str) -> Review:
        """One of a gallery, by its id. Raises `UnknownReview`."""
        with self._lock:
            review = self._kept[gallery].get(name)
        if review is None:
            raise UnknownReview("there is no such review; it was decided, or made room for others")
        return review

    def drop(self, review: Review) -> None:
        """Forget one, when it is decided."""
        with self._lock:
            self._kept.get(review.gallery, OrderedDict()).pop(review.id, None)

    def forget(self, gallery: str, subject: str | None = None) -> None:
        """Forget all of a gallery, or those that name one person."""
        with self._lock:
            kept = self._kept[gallery]
            _drop(kept, [r.id for r in kept.values() if subject in (None, r.subject)])

    def rename(self, gallery: str, subject: str, new: str) -> None:
        """Let what names a person name them by their new name."""
        with self._lock:
            kept = self._kept[gallery]
            for review in list(kept.values()):
                if review.subject == subject:
                    kept[review.id] = replace(review, subject=new)


def _drop(kept: OrderedDict[str, Review], names: Iterable[str]) -> None:
    for name in names:
        del kept[name]
