"""What was done to a gallery, without faces or names, and receipts for what was erased.

Every change adds a line to the log inside the gallery. A line names a person only by a keyed digest
and carries the hash of the line before, so lines cannot be changed or dropped unnoticed. The key
(32 random bytes) lies beside the gallery, not in it: a copy of the gallery alone neither betrays
who was in it nor lets anyone write receipts.
"""

import contextlib
import hashlib
import hmac
import json
import os
import secrets
import sqlite3
import tempfile
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Self

from mien.errors import GalleryUnavailable, InputError

KEY_BYTES = 32


@dataclass(frozen=True, slots=True)
class Line:
    """One change: when (ISO 8601, UTC), what, to whom (a digest, or empty for several people)."""

    time: str
    operation: str
    collection: str
    subject: str
    templates: int
    chain: str


@dataclass(frozen=True, slots=True)
class Receipt:
    """Proof that a person was erased: what, when, and the signature of the gallery's key.

    `subject` is the keyed digest of the name: whoever knows the name and holds the key can tell
    that the receipt is about this person. `line` is the log's hash at that moment.
    """

    gallery: str
    collection: str
    subject: str
    templates: int
    time: str
    line: str
    signature: str = ""

    def to_json(self) -> str:
        """What `from_json` reads."""
        return json.dumps(asdict(self), indent=2)

    @classmethod
    def from_json(cls, text: str) -> Self:
        """Raises `InputError`."""
        try:
            return cls(**json.loads(text))
        except (ValueError, TypeError) as error:
            raise InputError(f"this is not an erasure receipt: {error}") from error

    def signed(self, key: bytes) -> "Receipt":
        """The same with the signature of `key`."""
        fields = asdict(self) | {"signature": ""}
        signature = hmac.new(key, _canonical(fields), hashlib.sha256).hexdigest()
        return Receipt(**(fields | {"signature": signature}))

    def genuine(self, key: bytes, subject: str | None = None) -> bool:
        """Whether the holder of `key` signed exactly this, and it is about `subject`, if given."""
        about = subject is None or hmac.compare_digest(self.subject, digest(key, subject))
        return about and hmac.compare_digest(self.signature, self.signed(key).signature)


def line(
    time: str, operation: str, collection: str, subject: str, templates: int, before: str
) -> Line:
    """The next line of a log whose last line has the hash `before`."""
    fields = [time, operation, collection, subject, templates, before]
    return Line(
        time, operation, collection, subject, templates,
        hashlib.sha256(_canonical(fields)).hexdigest(),
    )  # fmt: skip


def written(db: sqlite3.Connection) -> list[Line]:
    """The log of a gallery, oldest line first."""
    rows = db.execute(
        "SELECT time, operation, collection, subject, templates, chain FROM audit ORDER BY line"
    )
    return [Line(*row) for row in rows]


def broken(lines: list[Line]) -> int | None:
    """The number of the first line that does not follow from the one before it, if any."""
    before = ""
    for number, found in enumerate(lines):
        expected = line(
            found.time, found.operation, found.collection, found.subject, found.templates, before
        )
        if expected != found:
            return number
        before = found.chain
    return None


def digest(key: bytes, subject: str) -> str:
    """How the log and receipts name a person."""
    return hmac.new(
        key, b"subject\0" + subject.encode("utf-8", "surrogatepass"), hashlib.sha256
    ).hexdigest()


def key_at(path: Path) -> bytes:
    """The key in a file that only its owner may read; made when it does not exist."""
    if not path.exists():
        try:
            _make_key(path)
        except OSError as error:
            raise GalleryUnavailable(str(path), f"no key can be kept there: {error}") from error
    try:
        key = path.read_bytes()
    except OSError as error:
        raise GalleryUnavailable(str(path), f"its key cannot be read: {error}") from error
    if len(key) != KEY_BYTES:
        raise GalleryUnavailable(
            str(path), f"it should hold {KEY_BYTES} bytes and holds {len(key)}; restore it, or "
            f"delete it to start a new one (older receipts can then not be checked)",
        )  # fmt: skip
    return key


def _make_key(path: Path) -> None:
    """Whole or not at all, and once: the first of several processes wins."""
    handle, name = tempfile.mkstemp(dir=path.parent, prefix=path.name)  # mode 0600
    try:
        with os.fdopen(handle, "wb") as file:
            file.write(secrets.token_bytes(KEY_BYTES))
            file.flush()
            os.fsync(file.fileno())
        with contextlib.suppress(FileExistsError):
            os.link(name, path)
    finally:
        os.unlink(name)


def _canonical(value: object) -> bytes:
    text = json.dumps(value, sort_keys=True, separators=(",", ":"), default=repr)
    return text.encode()
