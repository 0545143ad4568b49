"""What a store of templates must do, whatever engine is behind it."""

from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Protocol, runtime_checkable

import numpy as np
from numpy.typing import NDArray

from mien.errors import InputError
from mien.types import Embedding, Match, Template

Where = Mapping[str, str | Collection[str]]
"""A filter on metadata: every key named must have the value, or one of the values, given."""


@dataclass(frozen=True, eq=False, slots=True)
class Entry:
    """One vector to be enrolled.

    `source` names the picture and `source_sha256` is the digest of its bytes, in hex, or empty;
    `quality` is in [0, 1]. A `negative` entry says who the subject is *not*: a probe that is
    closer to it than to the subject's templates does not match the subject. `created` is an
    ISO 8601 time in UTC, or None for now. `crop` is a picture of the face, a whole file of bytes,
    from which another model can make a vector; only an encrypted gallery keeps one.

    Raises `InputError` for a subject whose name is empty or not valid Unicode.
    """

    subject: str
    embedding: Embedding
    source: str
    quality: float
    metadata: Mapping[str, str] = field(default_factory=dict)
    negative: bool = False
    source_sha256: str = ""
    created: str | None = None
    crop: bytes = b""

    def __post_init__(self) -> None:
        check_subject(self.subject)


def check_subject(name: str) -> None:
    """Raise `InputError` for a name that nobody can be enrolled under."""
    if not name.strip():
        raise InputError("a subject needs a name; the one given is empty")
    try:
        name.encode()
    except UnicodeEncodeError as error:  # half a character: a file name of another encoding
        raise InputError(f"the name {name!r} is not valid Unicode") from error


def check_replacement(subject: str, entries: Sequence[Entry]) -> None:
    """Raise `InputError` unless the entries are of that subject and there are some."""
    if not entries:
        raise InputError(f"nothing is given in place of {subject!r}; to forget them, remove them")
    others = {entry.subject for entry in entries} - {subject}
    if others:
        raise InputError(f"entries in place of {subject!r} are of {', '.join(sorted(others))}")


def arrivals(entries: Sequence[Entry], now: str) -> dict[str, str]:
    """By subject, when the earliest of their entries was made: people keep that when they move."""
    found: dict[str, str] = {}
    for entry in entries:
        created = entry.created or now
        if created < found.setdefault(entry.subject, created):
            found[entry.subject] = created
    return found


def taken(subject: str, new: str) -> str:
    """Why a subject cannot get the name of another without being merged."""
    return (
        f"somebody is enrolled as {new!r} already; to make them and {subject!r} one person, "
        f"merge them (--merge, merge=True)"
    )


@dataclass(frozen=True, slots=True)
class Subject:
    """One person enrolled: how many templates, and when the first came (ISO 8601, UTC)."""

    name: str
    templates: int
    created: str


@dataclass(frozen=True, slots=True)
class Stats:
    """Sizes of a store; `bytes` is what its files take on disk."""

    uri: str
    subjects: int
    templates: int
    dimensions: int
    bytes: int
    contract: str | None


@runtime_checkable
class Store(Protocol):
    """Templates on disk. Safe to use from several threads; several processes may share one."""

    def contract(self) -> str | None:
        """The contract of the vectors, or None before the first was added."""
        ...

    def add(self, entries: Sequence[Entry]) -> list[Template]:
        """Enrol all entries, or none; on disk when this returns.

        The entries have one contract. The first ever fixes that of the store; another raises
        `ContractMismatch`.
        """
        ...

    def search(
        self, probes: NDArray[np.float32], limit: int, where: Where | None = None
    ) -> list[list[Match]]:
        """For each probe (n, dim) the `limit` best subjects by their best template, best first.

        Sees everything that any process had added when it was called. Scores are exact. With
        `where`, only templates whose metadata pass it take part. A subject with a negative
        template that is closer to the probe than its best other template is left out.
        """
        ...

    def entries(self, after: int = 0, subject: str | None = None) -> Iterator[tuple[int, Entry]]:
        """Everything enrolled, negatives too, as (template id, entry) with ids over `after`.

        Oldest first, read in batches: a store may change between two of them. With `subject` only
        what is enrolled of that person; nothing of an unknown one.
        """
        ...

    def subjects(self) -> list[Subject]:
        """Everyone enrolled, sorted by name."""
        ...

    def templates(self, subject: str) -> list[Template]:
        """The templates of one subject, oldest first. Raises `UnknownSubject`."""
        ...

    def remove(self, subject: str, templates: Collection[int] | None = None) -> int:
        """Erase a subject, or only these templates of theirs, from every file of the store.

        How many templates went; ids that are not theirs are passed over, and with their last
        template goes the subject. Raises `UnknownSubject`.
        """
        ...

    def replace(self, subject: str, entries: Sequence[Entry]) -> list[Template]:
        """Put entries of a subject in place of all that was enrolled of them, if anything.

        In one transaction: every search finds either the old or the new, and the old is erased as
        by `remove`. Raises `InputError` unless all are of that subject and there are some.
        """
        ...

    def rename(self, subject: str, new: str, *, merge: bool = False) -> int:
        """Enrol all templates of a subject under another name, and erase them under this one.

        All or nothing, in one transaction: how many moved. The templates have new ids and keep
        everything else. Who has the new name already gets them as well with `merge`; without,
        raises `GalleryError`. Raises `UnknownSubject`.
        """
        ...

    def __len__(self) -> int:
        """How many templates there are, without negatives. Fast."""
        ...

    def compact(self) -> None:
        """Rewrite the files without unused room, and empty any log."""
        ...

    def stats(self) -> Stats:
        """Sizes, as they are now."""
        ...

    def close(self) -> None:
        """Release files and memory."""
        ...
