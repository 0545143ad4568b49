"""The rows of one collection in the record: values to columns and back, sealed where asked."""

import json
import secrets
import sqlite3
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from itertools import count, islice
from typing import Any

import numpy as np
from numpy.typing import NDArray

from mien.errors import InputError, UnknownSubject
from mien.gallery.cipher import Cipher, to_bytes, to_text
from mien.gallery.store import Entry
from mien.types import Embedding, Template

_quoted = json.JSONEncoder().encode  # of one text: of an object it takes ten times as long
_PARAMETERS = 500  # of one statement: every SQLite allows 999

OTHER_MODEL = ".other"
"""Ends the name of the collection that has the same people by the model before, or after: who is
erased from one is erased from both."""

_ENTRIES = (
    "SELECT template.id, subject.id, name, vector, source, source_sha256, metadata, quality, "
    "negative, template.created, picture FROM template "
    "JOIN subject ON subject.id = template.subject "
    "LEFT JOIN crop ON crop.template = template.id"
)


@dataclass(frozen=True, slots=True)
class Rows:
    """The rows of a collection. Every method works within the transaction of its caller."""

    collection: int
    cipher: Cipher

    def _subjects(
        self, db: sqlite3.Connection, entries: Sequence[Entry], now: str
    ) -> tuple[dict[str, int], int]:
        """The row of each subject, and how many are new."""
        lookups = {self.cipher.lookup(entry.subject): entry.subject for entry in entries}
        rows: dict[str, int] = {}
        asked = iter(lookups)
        while some := tuple(islice(asked, _PARAMETERS)):
            known = db.execute(
                f"SELECT lookup, id FROM subject WHERE collection = ? "
                f"AND lookup IN ({', '.join('?' * len(some))})",
                (self.collection, *some),
            )
            rows |= {lookups[lookup]: id_ for lookup, id_ in known}
        db.executemany(
            "UPDATE subject SET updated = ? WHERE id = ?", [(now, id_) for id_ in rows.values()]
        )
        next_ = db.execute("SELECT coalesce(max(id), 0) FROM subject").fetchone()[0] + 1
        fresh = [(lookup, name) for lookup, name in lookups.items() if name not in rows]
        rows |= {name: id_ for id_, (_, name) in enumerate(fresh, next_)}
        db.executemany(
            "INSERT INTO subject VALUES (?, ?, ?, ?, ?, ?)",
            [
                (rows[name], self.collection, lookup,
                 self.cipher.seal(to_bytes(name), "name", rows[name]), now, now)
                for lookup, name in fresh
            ],
        )  # fmt: skip
        return rows, len(fresh)

    def insert(self, db: sqlite3.Connection, entries: Sequence[Entry], now: str) -> list[Template]:
        """New templates, and rows for subjects that are new."""
        subjects, fresh = self._subjects(db, entries, now)
        first = self.newest(db) + 1
        seal, vectors = self.cipher.seal, _unit_vectors(entries)
        rows, tags, crops, templates = [], [], [], []
        for id_, entry, vector in zip(count(first), entries, vectors, strict=False):
            created = entry.created or now
            pairs = [(_quoted(key), _quoted(value)) for key, value in entry.metadata.items()]
            text = f"{{{', '.join([f'{key}: {value}' for key, value in pairs])}}}"
            rows.append((
                id_, self.collection, subjects[entry.subject], int(entry.negative),
                entry.quality, created, seal(vector.tobytes(), "vector", id_),
                seal(to_bytes(entry.source), "source", id_),
                seal(to_bytes(entry.source_sha256), "sha256", id_),
                seal(to_bytes(text), "metadata", id_),
            ))  # fmt: skip
            tags += [(self._tag(key, value), id_) for key, value in pairs]
            if entry.crop:
                crops.append((id_, seal(entry.crop, "crop", id_)))
            templates.append(Template(id_, entry.subject, entry.source, entry.quality, created))
        db.executemany("INSERT INTO template VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?)", rows)
        db.executemany("INSERT INTO tag VALUES (?, ?)", tags)
        db.executemany("INSERT INTO crop VALUES (?, ?)", crops)
        db.execute(
            "UPDATE collection SET version = version + 1, subjects = subjects + ?, "
            "templates = templates + ? WHERE id = ?",
            (fresh, sum(not entry.negative for entry in entries), self.collection),
        )
        return templates

    def entries(
        self, db: sqlite3.Connection, after: int, limit: int, subject: str | None
    ) -> tuple[list[tuple[Any, ...]], str]:
        """Rows for `entry`, of the templates after one, oldest first; and their contract."""
        whose = None if subject is None else self.cipher.lookup(subject)
        rows = db.execute(
            f"{_ENTRIES} WHERE template.collection = ? AND template.id > ? "
            f"{'' if whose is None else 'AND lookup = ?'} ORDER BY template.id LIMIT ?",
            (self.collection, after, *([] if whose is None else [whose]), limit),
        ).fetchall()
        return rows, str(self.field(db, "contract"))

    def entry(self, row: tuple[Any, ...], contract: str) -> Entry:
        """What was enrolled, from one of the rows of `entries`."""
        id_, subject, name, vector, source, sha256, metadata, quality, negative, made, crop = row
        return Entry(
            self.open_text(name, "name", subject),
            Embedding(self._open_vector(vector, id_), contract),
            self.open_text(source, "source", id_),
            quality,
            json.loads(self.open_text(metadata, "metadata", id_)),
            bool(negative),
            self.open_text(sha256, "sha256", id_),
            made,
            b"" if crop is None else self.cipher.open(crop, "crop", id_),
        )

    def delete(self, db: sqlite3.Connection, ids: list[int]) -> None:
        """Templates, and the subjects that have none left."""
        text = json.dumps(ids)
        among = "(SELECT value FROM json_each(?))"
        subjects = [
            i for (i,) in db.execute(
                f"SELECT DISTINCT subject FROM template WHERE id IN {among}", (text,)
            )
        ]  # fmt: skip
        positive = db.execute(
            f"SELECT count(*) FROM template WHERE negative = 0 AND id IN {among}", (text,)
        ).fetchone()[0]
        db.execute(f"DELETE FROM tag WHERE template IN {among}", (text,))
        db.execute(f"DELETE FROM crop WHERE template IN {among}", (text,))
        db.execute(f"DELETE FROM template WHERE id IN {among}", (text,))
        gone = db.execute(
            f"DELETE FROM subject WHERE id IN {among} "
            f"AND NOT EXISTS (SELECT 1 FROM template WHERE subject = subject.id)",
            (json.dumps(subjects),),
        ).rowcount
        db.execute(
            "UPDATE collection SET subjects = subjects - ?, templates = templates - ?, "
            "version = version + 1, erasures = ? WHERE id = ?",
            (gone, positive, secrets.token_hex(8), self.collection),
        )

    def generations(self, db: sqlite3.Connection) -> list["Rows"]:
        """This collection and the one with the same people by another model, if there is one."""
        base = self.field(db, "name").removesuffix(OTHER_MODEL)
        rows = db.execute(
            "SELECT id FROM collection WHERE name IN (?, ?)", (base, base + OTHER_MODEL)
        )
        return [Rows(id_, self.cipher) for (id_,) in rows]

    def everywhere(self, db: sqlite3.Connection, name: str) -> "list[tuple[Rows, int]]":
        """A person's row in each generation that has them. Raises `UnknownSubject`."""
        if self.find(db, name) is None:
            raise UnknownSubject(name)
        found = [(rows, rows.find(db, name)) for rows in self.generations(db)]
        return [(rows, row) for rows, row in found if row is not None]

    def held(self, db: sqlite3.Connection, subject: int) -> dict[int, Entry]:
        """The templates of the subject in a row, by id."""
        contract = str(self.field(db, "contract"))
        rows = db.execute(f"{_ENTRIES} WHERE subject.id = ? ORDER BY template.id", (subject,))
        return {row[0]: self.entry(row, contract) for row in rows.fetchall()}

    def of_same_pictures(
        self, held: dict[int, dict[int, Entry]], wanted: Collection[int]
    ) -> dict[int, list[int]]:
        """Of one person's templates, by collection: those wanted of this collection, and those that
        another model made of the same pictures."""
        mine = held[self.collection]
        pictures = {_picture(mine[id_]) for id_ in set(mine) & set(wanted)}
        return {
            collection: [
                id_ for id_, entry in entries.items()
                if (id_ in wanted if collection == self.collection else _picture(entry) in pictures)
            ]
            for collection, entries in held.items()
        }  # fmt: skip

    def find(self, db: sqlite3.Connection, name: str) -> int | None:
        """The row of a subject, if there is one of that name."""
        row = db.execute(
            "SELECT id FROM subject WHERE collection = ? AND lookup = ?",
            (self.collection, self.cipher.lookup(name)),
        ).fetchone()
        return None if row is None else int(row[0])

    def tagged(self, db: sqlite3.Connection, key: str, value: str, after: int) -> NDArray[np.int64]:
        """The templates with that metadata and ids over `after`, ascending."""
        rows = db.execute(
            "SELECT template FROM tag WHERE tag = ? AND template > ?",
            (self._tag(_quoted(key), _quoted(value)), after),
        )
        return np.fromiter((i for (i,) in rows), np.int64)

    def newest(self, db: sqlite3.Connection) -> int:
        """The largest template id that was ever given in the file."""
        row = db.execute("SELECT seq FROM sqlite_sequence WHERE name = 'template'").fetchone()
        return int(row[0]) if row else 0

    def field(self, db: sqlite3.Connection, column: str) -> Any:
        """A column of the collection itself."""
        return db.execute(
            f"SELECT {column} FROM collection WHERE id = ?", (self.collection,)
        ).fetchone()[0]

    def open_text(self, stored: bytes, column: str, row: int) -> str:
        """A text that was sealed for that place."""
        return to_text(self.cipher.open(stored, column, row))

    def _tag(self, key: str, value: str) -> bytes:
        return self.cipher.lookup(f"[{key}, {value}]")

    def _open_vector(self, stored: bytes, id_: int) -> NDArray[np.float32]:
        return np.frombuffer(self.cipher.open(stored, "vector", id_), "<f4")


def _picture(entry: Entry) -> tuple[str, str]:
    """The name and the digest of the picture of a template."""
    return entry.source, entry.source_sha256


def _unit_vectors(entries: Sequence[Entry]) -> NDArray[np.float32]:
    """Their vectors (n, dim). Raises `InputError` unless each has the length 1."""
    vectors = np.concatenate([entry.embedding.vector for entry in entries], dtype="<f4")
    vectors = vectors.reshape(len(entries), -1)
    with np.errstate(over="ignore"):
        if (np.abs(np.vecdot(vectors, vectors) - 1) > 1e-3).any():
            raise InputError("vectors in a gallery have the length 1; see mien.embedding.normalize")
    return vectors
