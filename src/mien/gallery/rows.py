"""The rows of one collection in the record: values to columns and back, sealed where asked."""

import json
import secrets
import sqlite3
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from itertools import count, islice
from typing import Any

import numpy as np
from numpy.typing import NDArray

from mien.errors import GalleryUnavailable, InputError, UnknownSubject
from mien.gallery import sound
from mien.gallery.cipher import Cipher, to_bytes, to_text
from mien.gallery.sound import SUBJECT, TEMPLATE, Read, Row
from mien.gallery.store import Entry, arrivals
from mien.types import Embedding, Template

_quoted = json.JSONEncoder().encode  # of one text: of an object it takes ten times as long
_PARAMETERS = 500  # of one statement: every SQLite allows 999

OTHER_MODEL = ".other"
"""Ends the name of the collection that has the same people by the model before, or after: who is
erased from one is erased from both."""


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
                f"{SUBJECT.select} WHERE collection = ? "
                f"AND lookup IN ({', '.join('?' * len(some))})",
                (self.collection, *some),
            )
            for row in known:
                rows[lookups[row[2]]] = _sound_subject(row)
        db.executemany(
            "UPDATE subject SET updated = ? WHERE id = ?", [(now, id_) for id_ in rows.values()]
        )
        next_ = db.execute("SELECT coalesce(max(id), 0) FROM subject").fetchone()[0] + 1
        fresh = [(lookup, name) for lookup, name in lookups.items() if name not in rows]
        rows |= {name: id_ for id_, (_, name) in enumerate(fresh, next_)}
        since = arrivals(entries, now)
        made = [
            (id_, self.collection, lookup, self.cipher.seal(to_bytes(name), "name", id_),
             since[name])
            for id_, (lookup, name) in enumerate(fresh, next_)
        ]  # fmt: skip
        db.executemany(
            f"INSERT INTO subject ({SUBJECT.columns}, updated, sum) VALUES (?, ?, ?, ?, ?, ?, ?)",
            [(*row, now, SUBJECT.sum_of(row)) for row in made],
        )
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
            row = (
                id_, self.collection, subjects[entry.subject], int(entry.negative),
                entry.quality, created, seal(vector.tobytes(), "vector", id_),
                seal(to_bytes(entry.source), "source", id_),
                seal(to_bytes(entry.source_sha256), "sha256", id_),
                seal(to_bytes(text), "metadata", id_),
            )  # fmt: skip
            rows.append((*row, TEMPLATE.sum_of(row)))
            tags += [(self._tag(key, value), id_) for key, value in pairs]
            if entry.crop:
                crops.append((id_, seal(entry.crop, "crop", id_)))
            templates.append(Template(id_, entry.subject, entry.source, entry.quality, created))
        db.executemany(
            f"INSERT INTO template ({TEMPLATE.columns}, sum) "
            f"VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)",
            rows,
        )
        db.executemany("INSERT INTO tag VALUES (?, ?)", tags)
        db.executemany("INSERT INTO crop VALUES (?, ?)", crops)
        db.execute(
            "UPDATE collection SET version = version + 1, subjects = subjects + ?, "
            "templates = templates + ? WHERE id = ?",
            (fresh, sum(not entry.negative for entry in entries), self.collection),
        )
        sound.seal(db, self.collection)
        return templates

    def entries(self, db: sqlite3.Connection, templates: Sequence[Row]) -> dict[int, Entry]:
        """What was enrolled, by template id, of rows of templates. What is damaged is left out."""
        names = self.names(db, {row[2] for row in templates})
        crops = self._crops(db, [row[0] for row in templates]) if self.cipher.sealed else {}
        contract = str(self.field(db, "contract"))
        found: dict[int, Entry] = {}
        altered = []
        for row in templates:
            try:
                if row[2] in names:
                    found[row[0]] = self._entry(row, names[row[2]], contract, crops)
            except GalleryUnavailable:  # sealed, and altered by somebody who made a sum for it
                altered.append(row[0])
        if altered:
            sound.warn(f"{sound.named('template', altered)} altered and left out")
        return found

    def _entry(self, row: Row, name: str, contract: str, crops: Mapping[int, bytes]) -> Entry:
        id_, _, _, negative, quality, made, vector, *texts, _ = row
        (plain,) = self.open_vectors([id_], [vector])
        source, sha256, metadata = (
            self.open_text(text, kind, id_)
            for kind, text in zip(("source", "sha256", "metadata"), texts, strict=True)
        )
        return Entry(
            name, Embedding(np.frombuffer(plain, "<f4"), contract), source, quality,
            json.loads(metadata), bool(negative), sha256, made,
            self.cipher.open(crops[id_], "crop", id_) if id_ in crops else b"",
        )  # fmt: skip

    def names(self, db: sqlite3.Connection, subjects: Collection[int]) -> dict[int, str]:
        """By row, the names of subjects, which there should be. What is damaged is left out."""
        return {id_: name for id_, (name, _) in self.people(db, subjects).items()}

    def people(
        self, db: sqlite3.Connection, subjects: Collection[int]
    ) -> dict[int, tuple[str, str]]:
        """`names`, and when each was enrolled first."""
        read = sound.by_key(db, SUBJECT, list(subjects))
        if gone := sorted(set(subjects) - {row[0] for row in read.rows}):
            sound.warn(f"{sound.named('subject', gone)} damaged and left out")
        return {
            id_: (self.open_text(name, "name", id_), created)
            for id_, _, _, name, created, _ in read.rows
        }

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
        sound.seal(db, self.collection)

    def generations(self, db: sqlite3.Connection) -> list["Rows"]:
        """This collection and the one with the same people by another model, if there is one."""
        base = self.field(db, "name").removesuffix(OTHER_MODEL)
        rows = db.execute(
            "SELECT id FROM collection WHERE name IN (?, ?)", (base, base + OTHER_MODEL)
        )
        return [Rows(id_, self.cipher) for (id_,) in rows]

    def everywhere(self, db: sqlite3.Connection, name: str) -> "list[tuple[Rows, int]]":
        """A person's row in each generation that has them. Raises `UnknownSubject`."""
        self.known(db, name)
        found = [(rows, rows.find(db, name)) for rows in self.generations(db)]
        return [(rows, row) for rows, row in found if row is not None]

    def counts(self, db: sqlite3.Connection) -> dict[int, int]:
        """How many templates, without negatives, each subject has, by its row.

        By the index, which is small; along the table where that does not add up.
        """
        stated = sound.collection(db, self.collection)
        for way in (
            "subject JOIN template INDEXED BY template_subject ON template.subject = subject.id "
            "WHERE subject.collection = ? GROUP BY subject.id",
            "template NOT INDEXED WHERE collection = ? GROUP BY subject",
        ):
            found: dict[int, int] = {}
            try:
                found |= db.execute(
                    f"SELECT template.subject, sum(1 - negative) FROM {way}", (self.collection,)
                ).fetchall()
            except sqlite3.DatabaseError as error:
                if not sound.of_damage(error):
                    raise
            if (len(found), sum(found.values())) == (stated["subjects"], stated["templates"]):
                return found
        sound.warn(
            f"{stated['subjects']:,} subjects and {stated['templates']:,} templates are counted, "
            f"{len(found):,} and {sum(found.values()):,} can be read"
        )
        return found

    def since(self, db: sqlite3.Connection, name: str, created: str) -> None:
        """Let a subject have been enrolled at that time, if it is earlier."""
        row = self.known(db, name)
        ((*rest, now, _),) = sound.by_key(db, SUBJECT, [row]).rows
        first = min(now, created)
        db.execute(
            "UPDATE subject SET created = ?, sum = ? WHERE id = ?",
            (first, SUBJECT.sum_of((*rest, first)), row),
        )

    def ids_of(self, db: sqlite3.Connection, subject: int) -> list[int]:
        """The templates of the subject in a row, ascending, sound or not."""
        read = self.templates_of(db, subject)
        return sorted([*(row[0] for row in read.rows), *read.damaged])

    def templates_of(self, db: sqlite3.Connection, subject: int) -> Read:
        """Their rows. What only a damaged index says to be of this subject is not among them."""
        read = sound.by_key(db, TEMPLATE, self._ids(db, "subject = ?", subject))
        return Read(sorted(row for row in read.rows if row[2] == subject), read.damaged)

    def positives(self, db: sqlite3.Connection) -> list[int]:
        """All templates but negatives, ascending, sound or not."""
        return self._ids(db, "collection = ? AND negative = 0", self.collection)

    def negatives_of(self, db: sqlite3.Connection, subjects: list[int]) -> list[int]:
        """The templates that say who these subjects are not."""
        if not self._ids(db, "collection = ? AND negative = 1", self.collection, limit=1):
            return []
        return self._ids(
            db, "subject IN (SELECT value FROM json_each(?)) AND negative = 1", json.dumps(subjects)
        )

    def held(self, db: sqlite3.Connection, subject: int) -> dict[int, Entry]:
        """The sound templates of the subject in a row, by id, ascending."""
        return self.entries(db, self.templates_of(db, subject).told("template"))

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

    def find(self, db: sqlite3.Connection, name: str, way: str = "") -> int | None:
        """The row of a subject, if there is one of that name, by the index of names."""
        row = db.execute(
            f"{SUBJECT.select} {way} WHERE collection = ? AND lookup = ?",
            (self.collection, self.cipher.lookup(name)),
        ).fetchone()
        return None if row is None else _sound_subject(row)

    def known(self, db: sqlite3.Connection, name: str) -> int:
        """The row of a subject. Raises `UnknownSubject`.

        That is only said when the table has no such row either: `ValueError` when the index has
        lost it.
        """
        row = self.find(db, name)
        if row is None:
            if self.find(db, name, "NOT INDEXED") is not None:
                raise ValueError("the index of names is damaged")
            raise UnknownSubject(name)
        return row

    def tagged(self, db: sqlite3.Connection, key: str, value: str, after: int) -> NDArray[np.int64]:
        """The templates with that metadata and ids over `after`, ascending."""
        rows = db.execute(
            "SELECT template FROM tag WHERE tag = ? AND template > ?",
            (self._tag(_quoted(key), _quoted(value)), after),
        )
        return np.fromiter((i for (i,) in rows), np.int64)

    def newest(self, db: sqlite3.Connection) -> int:
        """The largest template id that was ever given in the file."""
        return sound.newest(db)

    def field(self, db: sqlite3.Connection, column: str) -> Any:
        """A column of the collection itself."""
        return sound.collection(db, self.collection)[column]

    def open_vectors(self, ids: Sequence[int], stored: Sequence[bytes]) -> Sequence[bytes]:
        """Vectors of templates, as bytes."""
        if not self.cipher.sealed:
            return stored
        return [
            self.cipher.open(value, "vector", id_) for id_, value in zip(ids, stored, strict=True)
        ]

    def open_text(self, stored: bytes, column: str, row: int) -> str:
        """A text that was sealed for that place."""
        return to_text(self.cipher.open(stored, column, row))

    def _crops(self, db: sqlite3.Connection, ids: list[int]) -> dict[int, bytes]:
        """The kept pictures of templates, sealed; one that cannot be read is empty."""
        found: dict[int, bytes] = {}
        for id_ in ids:
            try:
                row = db.execute("SELECT picture FROM crop WHERE template = ?", (id_,)).fetchone()
                if row is not None:
                    found[id_] = row[0]
            except sqlite3.DatabaseError as error:
                if not sound.of_damage(error):
                    raise
                found[id_] = b""
        return found

    def _ids(
        self, db: sqlite3.Connection, condition: str, value: object, limit: int = -1
    ) -> list[int]:
        """Of templates, ascending: by an index, or along the table where that is damaged."""

        def along(way: str) -> list[int]:
            rows = db.execute(
                f"SELECT id FROM template {way} WHERE {condition} ORDER BY id LIMIT {limit}",
                (value,),
            )
            return [id_ for (id_,) in rows]

        try:
            return along("")
        except sqlite3.DatabaseError as error:
            if not sound.of_damage(error):
                raise
            return along("NOT INDEXED")

    def metadata(self, row: Row) -> dict[str, str]:
        """The metadata in a row of templates."""
        found: dict[str, str] = json.loads(self.open_text(row[9], "metadata", row[0]))
        return found

    def tags(self, metadata: Mapping[str, str]) -> set[bytes]:
        """What a filter looks for."""
        return {self._tag(_quoted(key), _quoted(value)) for key, value in metadata.items()}

    def tags_of(self, db: sqlite3.Connection, template: int) -> set[bytes] | None:
        """What a filter finds of a template; None where that is damaged."""
        try:
            rows = db.execute("SELECT tag FROM tag WHERE template = ?", (template,)).fetchall()
        except sqlite3.DatabaseError as error:
            if not sound.of_damage(error):
                raise
            return None
        return {tag for (tag,) in rows}

    def _tag(self, key: str, value: str) -> bytes:
        return self.cipher.lookup(f"[{key}, {value}]")


def _sound_subject(row: Row) -> int:
    """The key of a row of `SUBJECT`. Raises `ValueError` when it is damaged."""
    if not sound.is_sound(SUBJECT, row):
        raise ValueError(f"the row of subject {row[0]} is damaged")
    return int(row[0])


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
