"""Who is enrolled, and who a face is most like.

A `Gallery` speaks of pictures and people; the `Store` behind it keeps vectors. Which store it is
follows from the URI given to `open_gallery`, and nothing else changes.
"""

import hashlib
import os
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Self

import numpy as np

from mien import decision
from mien.detection import Choose, only
from mien.embedding import fuse, require_contract
from mien.errors import GalleryUnavailable, InputError, LowQuality, UnknownSubject
from mien.gallery.audit import Receipt
from mien.gallery.cipher import key_from_environment
from mien.gallery.schema import DEFAULT_COLLECTION
from mien.gallery.sqlite import SqliteStore
from mien.gallery.store import Entry, Stats, Store, Subject, Where, check_subject
from mien.images import Source, encode_image, listed, read_image
from mien.recognition import Recognizer
from mien.types import Box, Embedding, Identification, Image, Match, RecognizedFace, Template

__all__ = [
    "MIN_QUALITY", "Entry", "Gallery", "Receipt", "Stats", "Store", "Subject", "Where", "entry_of",
    "open_gallery",
]  # fmt: skip

MIN_QUALITY = 0.2
"""Faces below this quality are not enrolled: they would be recognised one time in five at best."""


def open_gallery(
    uri: str | os.PathLike[str], *, create: bool = True, key: bytes | None = None
) -> "Gallery":
    """Open a gallery: a path, `sqlite:///PATH`, `postgresql://...` or `milvus://HOST:PORT`.

    A collection other than "default" is named after a `#`, as in `people.mien#visitors`:
    collections of one gallery have their own people, contract and retention period. What does not
    exist is created, unless `create` is False. `key`, 32 bytes, opens an encrypted gallery and
    makes a new one encrypted (default: what `MIEN_GALLERY_KEY` or `MIEN_GALLERY_KEY_FILE` gives).
    Raises `GalleryUnavailable`.
    """
    whole = os.fspath(uri)
    text, _, name = (whole, "", "") if os.path.exists(whole) else whole.partition("#")
    collection = name or DEFAULT_COLLECTION
    key = key or key_from_environment()
    scheme, separator, rest = text.partition("://")
    if separator and scheme in ("postgresql", "postgres", "milvus"):
        if key is not None:
            raise GalleryUnavailable(
                scheme, "a key was given, and galleries in a server are not encrypted by mien"
            )
        if scheme == "milvus":
            from mien.gallery.milvus import MilvusStore

            return Gallery(MilvusStore(text, create, collection))
        from mien.gallery.postgres import PostgresStore

        return Gallery(PostgresStore(text, create, collection))
    if separator and scheme != "sqlite":
        raise GalleryUnavailable(
            text,
            f"unknown kind {scheme!r}; known: a path, sqlite:///PATH, postgresql://..., "
            f"milvus://HOST:PORT",
        )
    path = Path((rest[1:] if rest.startswith("/") else rest) if separator else text)
    return Gallery(SqliteStore(path, create, collection, key=key))


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
        metadata: Mapping[str, str] | None = None,
        negative: bool = False,
        keep_crop: bool = False,
    ) -> list[Template]:
        """Add pictures of a person; when this returns they are on disk.

        `metadata` is kept with each template, for `where` of a search. `negative` pictures show
        somebody who was taken for this person and is not: faces closer to them than to the
        person's own pictures no longer match. `keep_crop` also keeps the part of each picture
        around the face, for another model to make a vector from; only an encrypted gallery does.

        All or nothing: a picture that cannot be used raises (`NoFaceFound`, `SeveralFacesFound`,
        `LowQuality`, `UnreadableImage`, ...) and none is enrolled. The first enrolment fixes the
        gallery's contract; a recogniser with another one raises `ContractMismatch`.
        """
        pictures = listed(sources)
        if not pictures:
            raise InputError(f"no pictures given to enrol {subject!r}")
        self.require(recognizer.contract)
        entries = [
            entry_of(
                subject, picture, recognizer, choose=choose, min_quality=min_quality,
                metadata=metadata, negative=negative, keep_crop=keep_crop,
            )
            for picture in pictures
        ]  # fmt: skip
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
        where: Where | None = None,
    ) -> list[Identification]:
        """Who each face of a picture is among the enrolled, or nobody.

        `fpir` is the share of strangers that may be named wrongly, over the whole collection.
        `where` lets only templates with some metadata take part: {"site": "north"}, or
        {"site": ["north", "south"]}.
        Raises `NoOperatingPoint` when the model was never measured.
        """
        return self.identify_faces(
            recognizer.recognize(source), recognizer, fpir=fpir, limit=limit, where=where
        )

    def identify_faces(
        self,
        faces: Sequence[RecognizedFace],
        recognizer: Recognizer,
        *,
        fpir: float = 1e-2,
        limit: int = 5,
        where: Where | None = None,
    ) -> list[Identification]:
        """`identify` for faces that were recognised already."""
        self.require(recognizer.contract)
        size = len(self)
        found = self.search_batch([face.embedding for face in faces], limit, where)
        return [
            decision.identify(face, matches, recognizer.bundle, fpir=fpir, gallery_size=size)
            for face, matches in zip(faces, found, strict=True)
        ]

    def search(self, probe: Embedding, limit: int = 5, where: Where | None = None) -> list[Match]:
        """The subjects most like a probe, best first, each with its best template."""
        return self.search_batch([probe], limit, where)[0]

    def search_batch(
        self, probes: Sequence[Embedding], limit: int = 5, where: Where | None = None
    ) -> list[list[Match]]:
        """`search` for several probes at once. Raises `ContractMismatch`."""
        if limit < 1:
            raise InputError(f"limit must be at least 1, got {limit}")
        for probe in probes:
            self.require(probe.contract)
        if not probes:
            return []
        return self.store.search(np.stack([probe.vector for probe in probes]), limit, where)

    def subjects(self) -> list[Subject]:
        """Everyone enrolled, by name."""
        return self.store.subjects()

    def templates(self, subject: str) -> list[Template]:
        """What is enrolled of one person. Raises `UnknownSubject`."""
        return self.store.templates(subject)

    def entries(self, subject: str | None = None) -> Iterator[Entry]:
        """Everything enrolled, of one person or of all, with vectors; oldest first."""
        return (entry for _, entry in self.store.entries(subject=subject))

    def fused(self, subject: str) -> Embedding:
        """One vector for a person: the direction of the mean of their templates' vectors.

        Raises `UnknownSubject`, also for one with nothing but negatives.
        """
        vectors = [e.embedding for e in self.entries(subject) if not e.negative]
        if not vectors:
            raise UnknownSubject(subject)
        return fuse(vectors)

    def replace(self, subject: str, entries: Sequence[Entry]) -> list[Template]:
        """Put entries in place of all that was enrolled of a person, if anything, in one step.

        The old ones are erased as by `remove`. Raises `ContractMismatch`, and `InputError` unless
        all entries are of that person and there are some.
        """
        for entry in entries:
            require_contract(entries[0].embedding.contract, entry.embedding.contract)
        return self.store.replace(subject, entries)

    def remove(self, subject: str, templates: Collection[int] | None = None) -> int:
        """Forget a person, or only some templates of theirs, by id: how many templates went.

        When this returns, no such vector and, with the last of them, no name is left in the store's
        files. Raises `UnknownSubject`.
        """
        return self.store.remove(subject, templates)

    def rename(self, subject: str, new: str, *, merge: bool = False) -> int:
        """Give a person another name: how many templates they have brought with them.

        When somebody has that name already, `merge` makes the two one; without, raises
        `GalleryError`. Nothing of the old name is left. Raises `UnknownSubject`, and `InputError`
        for an empty name.
        """
        check_subject(new)
        return self.store.rename(subject, new, merge=merge)

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
        return len(self.store)

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


def entry_of(
    subject: str,
    picture: Source,
    recognizer: Recognizer,
    *,
    choose: Choose = only,
    min_quality: float = MIN_QUALITY,
    metadata: Mapping[str, str] | None = None,
    negative: bool = False,
    keep_crop: bool = False,
) -> Entry:
    """What `Gallery.enroll` makes of a picture. Raises as that does."""
    image = read_image(picture)
    face = usable(recognizer.embed(image, choose), image.source, min_quality)
    return Entry(
        subject, face.embedding, image.source, face.quality.value, metadata or {}, negative,
        _sha256(picture), crop=_crop(image, face.face.box) if keep_crop else b"",
    )  # fmt: skip


def _crop(image: Image, box: Box) -> bytes:
    """The face with half its size on every side, as a JPEG: any detector finds it again there."""
    left, top = box.left - box.width / 2, box.top - box.height / 2
    rows = slice(max(0, int(top)), max(1, int(top + 2 * box.height)))
    columns = slice(max(0, int(left)), max(1, int(left + 2 * box.width)))
    return encode_image(Image(np.ascontiguousarray(image.pixels[rows, columns])), "jpeg", 95)


def _sha256(source: Source) -> str:
    """The digest of a picture's bytes, which tells later whether a file is still the same."""
    if isinstance(source, str | os.PathLike):
        with open(source, "rb") as file:
            return hashlib.file_digest(file, "sha256").hexdigest()
    if isinstance(source, bytes | bytearray | memoryview):
        return hashlib.sha256(source).hexdigest()
    return ""


def usable(face: RecognizedFace, source: str, min_quality: float) -> RecognizedFace:
    """The face itself, if it is good enough to be enrolled. Raises `LowQuality`."""
    if face.quality.value < min_quality:
        raise LowQuality(source, face.quality.value, face.quality.reasons)
    return face
