"""Who is enrolled, and who a face is most like.

A `Gallery` speaks of pictures and people; the `Store` behind it keeps vectors. Which store it is
follows from the URI given to `open_gallery`, and nothing else changes.
"""

import os
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Self

import numpy as np
import PIL.Image

from mien import decision
from mien.detection import Choose, only
from mien.embedding import require_contract
from mien.errors import GalleryUnavailable, InputError, LowQuality
from mien.gallery.sqlite import SqliteStore
from mien.gallery.store import Entry, Stats, Store, Subject
from mien.images import Source, read_image
from mien.recognition import Recognizer
from mien.types import Embedding, Identification, Image, Match, RecognizedFace, Template

__all__ = ["MIN_QUALITY", "Entry", "Gallery", "Stats", "Store", "Subject", "open_gallery"]

MIN_QUALITY = 0.1
"""Faces below this quality are not enrolled: a poor template attracts strangers for ever."""


def open_gallery(uri: str | os.PathLike[str], *, create: bool = True) -> "Gallery":
    """Open a gallery: a path, or `sqlite:///PATH`.

    It is created when it does not exist, unless `create` is False. Raises `GalleryUnavailable`.
    """
    text = os.fspath(uri)
    scheme, separator, rest = text.partition("://")
    if not separator:
        return Gallery(SqliteStore(Path(text), create))
    if scheme == "sqlite":
        return Gallery(SqliteStore(Path(rest[1:] if rest.startswith("/") else rest), create))
    raise GalleryUnavailable(text, f"unknown kind {scheme!r}; known: a path, sqlite:///PATH")


@dataclass(frozen=True)
class Gallery:
    """The people enrolled in a store. Use it as a context manager, or `close` it."""

    store: Store

    def enroll(
        self,
        subject: str,
        sources: Source | Iterable[Source],
        recognizer: Recognizer,
        *,
        choose: Choose = only,
        min_quality: float = MIN_QUALITY,
    ) -> list[Template]:
        """Add pictures of a person; when this returns they are on disk.

        All or nothing: a picture that cannot be used raises (`NoFaceFound`, `SeveralFacesFound`,
        `LowQuality`, `UnreadableImage`, ...) and none is enrolled. The first enrolment fixes the
        gallery's contract; a recogniser with another one raises `ContractMismatch`.
        """
        pictures = _listed(sources)
        if not pictures:
            raise InputError(f"no pictures given to enrol {subject!r}")
        self.require(recognizer.contract)
        entries = []
        for picture in pictures:
            image = read_image(picture)
            face = usable(recognizer.embed(image, choose), image.source, min_quality)
            entries.append(Entry(subject, face.embedding, image.source, face.quality.value))
        return self.add(entries)

    def add(self, entries: Sequence[Entry]) -> list[Template]:
        """Enrol vectors, in one durable transaction. Raises `ContractMismatch`."""
        for entry in entries:
            require_contract(entries[0].embedding.contract, entry.embedding.contract)
        return self.store.add(entries) if entries else []

    def identify(
        self,
        source: Source,
        recognizer: Recognizer,
        *,
        fpir: float = 1e-2,
        limit: int = 5,
    ) -> list[Identification]:
        """Who each face of a picture is among the enrolled, or nobody.

        `fpir` is the share of strangers that may be named wrongly, over the whole gallery.
        Raises `NoOperatingPoint` when the model was never measured.
        """
        return self.identify_faces(recognizer.recognize(source), recognizer, fpir=fpir, limit=limit)

    def identify_faces(
        self,
        faces: Sequence[RecognizedFace],
        recognizer: Recognizer,
        *,
        fpir: float = 1e-2,
        limit: int = 5,
    ) -> list[Identification]:
        """`identify` for faces that were recognised already."""
        self.require(recognizer.contract)
        size = len(self)
        found = self.search_batch([face.embedding for face in faces], limit)
        return [
            decision.identify(
                face.face,
                matches,
                recognizer.bundle.operating_points,
                fpir=fpir,
                gallery_size=size,
                contract=recognizer.contract,
            )
            for face, matches in zip(faces, found, strict=True)
        ]

    def search(self, probe: Embedding, limit: int = 5) -> list[Match]:
        """The subjects most like a probe, best first, each with its best template."""
        return self.search_batch([probe], limit)[0]

    def search_batch(self, probes: Sequence[Embedding], limit: int = 5) -> list[list[Match]]:
        """`search` for several probes at once. Raises `ContractMismatch`."""
        if limit < 1:
            raise InputError(f"limit must be at least 1, got {limit}")
        for probe in probes:
            self.require(probe.contract)
        if not probes:
            return []
        return self.store.search(np.stack([probe.vector for probe in probes]), limit)

    def subjects(self) -> list[Subject]:
        """Everyone enrolled, by name."""
        return self.store.subjects()

    def templates(self, subject: str) -> list[Template]:
        """What is enrolled of one person. Raises `UnknownSubject`."""
        return self.store.templates(subject)

    def remove(self, subject: str) -> int:
        """Forget a person: how many templates went. Raises `UnknownSubject`.

        When this returns, no vector and no name of theirs is left in the store's files.
        """
        return self.store.remove(subject)

    def require(self, contract: str) -> None:
        """Raise `ContractMismatch` unless vectors of `contract` belong in this gallery."""
        mine = self.contract
        if mine is not None:
            require_contract(mine, contract)

    def compact(self) -> None:
        """Give back the room that removed people left, and clear every trace of them."""
        self.store.compact()

    def stats(self) -> Stats:
        """Sizes and contract of the gallery."""
        return self.store.stats()

    @property
    def contract(self) -> str | None:
        """What made the vectors, or None while the gallery is empty and new."""
        return self.store.contract()

    def __len__(self) -> int:
        """The number of templates."""
        return self.store.stats().templates

    def close(self) -> None:
        """Release the store's files. Closing twice is fine."""
        self.store.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()


def usable(face: RecognizedFace, source: str, min_quality: float) -> RecognizedFace:
    """The face itself, if it is good enough to be enrolled. Raises `LowQuality`."""
    if face.quality.value < min_quality:
        raise LowQuality(source, face.quality.value, face.quality.reasons)
    return face


_ONE = (
    str, os.PathLike, bytes, bytearray, memoryview, np.ndarray, Image, PIL.Image.Image,
)  # fmt: skip


def _listed(sources: Source | Iterable[Source]) -> list[Source]:
    """One picture or several, as a list; a path or an array is one although it can be iterated."""
    if isinstance(sources, _ONE):
        return [sources]
    return list(sources)
