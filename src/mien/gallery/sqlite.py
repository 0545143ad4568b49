"""The embedded store: one SQLite file as the record, and codes of all templates for the search.

Durable: write-ahead log with synchronous=FULL, so what was acknowledged survives a killed process
and a power cut. Erasing: secure_delete overwrites what is deleted, the rows of the index file are
overwritten, and the log is emptied before `remove` returns. Several processes may read and write;
each notices what others did before it searches. Exact: the codes only say whose vectors to fetch
from the record and compare (see `mien.gallery.scan`).

Beside `people.mien` lie `people.mien-index/` (derived; may be deleted at any time),
`people.mien-key` (signs receipts of erasure) and SQLite's `-wal` and `-shm` while it is open.
"""

import json
import secrets
import sqlite3
import threading
import time
from collections.abc import Collection, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from mien.embedding import require_contract
from mien.errors import GalleryUnavailable, InputError, MienError, UnknownSubject
from mien.gallery import audit, cipher
from mien.gallery.audit import Line, Receipt
from mien.gallery.index import Index
from mien.gallery.scan import Kernel, fastest_kernel
from mien.gallery.store import Entry, Stats, Subject, Where
from mien.types import Embedding, Match, Template

DEFAULT_COLLECTION = "default"
OTHER_MODEL = ".other"
"""Ends the name of the collection that has the same people by the model before, or after: who is
erased from one is erased from both."""

_APPLICATION = int.from_bytes(b"mien", "big")  # marks the file as ours in its header
_SCHEMA = 2
_BUSY_SECONDS = 30.0  # how long a writer waits for another process
_BATCH = 4096
_PAGE = 8192  # bytes: three vectors of 512 float32 fit; in pages of 4096 only one

_TABLES = """
CREATE TABLE meta (key TEXT PRIMARY KEY, value TEXT NOT NULL) WITHOUT ROWID;
CREATE TABLE collection (
    id INTEGER PRIMARY KEY,
    name TEXT NOT NULL UNIQUE,
    contract TEXT,                         -- NULL before the first template
    dimensions INTEGER NOT NULL DEFAULT 0,
    version INTEGER NOT NULL DEFAULT 0,    -- one more with every change
    erasures TEXT NOT NULL DEFAULT '',     -- another one with every removal
    subjects INTEGER NOT NULL DEFAULT 0,
    templates INTEGER NOT NULL DEFAULT 0,  -- without negatives
    retention_days REAL,                   -- NULL: for ever
    created TEXT NOT NULL
);
CREATE TABLE subject (
    id INTEGER PRIMARY KEY,
    collection INTEGER NOT NULL REFERENCES collection (id),
    lookup BLOB NOT NULL,                  -- the name, or its digest in an encrypted gallery
    name BLOB NOT NULL,
    created TEXT NOT NULL,
    updated TEXT NOT NULL,
    UNIQUE (collection, lookup)
);
CREATE TABLE template (
    id INTEGER PRIMARY KEY AUTOINCREMENT,  -- never reused: what is new is what is larger
    collection INTEGER NOT NULL REFERENCES collection (id),
    subject INTEGER NOT NULL REFERENCES subject (id),
    negative INTEGER NOT NULL,             -- 1: the subject is not this person
    quality REAL NOT NULL,
    created TEXT NOT NULL,
    vector BLOB NOT NULL,                  -- float32, little-endian, unit length
    source BLOB NOT NULL,
    source_sha256 BLOB NOT NULL,
    metadata BLOB NOT NULL                 -- JSON object of strings
);
CREATE INDEX template_subject ON template (subject, negative);
CREATE INDEX template_collection ON template (collection, negative);
CREATE TABLE tag (                         -- metadata again, for filters
    tag BLOB NOT NULL,                     -- JSON [key, value], or its digest
    template INTEGER NOT NULL,
    PRIMARY KEY (tag, template)
) WITHOUT ROWID;
CREATE INDEX tag_template ON tag (template);
CREATE TABLE audit (
    line INTEGER PRIMARY KEY AUTOINCREMENT,
    time TEXT NOT NULL,
    operation TEXT NOT NULL,
    collection TEXT NOT NULL,
    subject TEXT NOT NULL,
    templates INTEGER NOT NULL,
    chain TEXT NOT NULL
);
"""

_ENTRIES = (
    "SELECT template.id, subject.id, name, vector, source, source_sha256, metadata, quality, "
    "negative, template.created FROM template JOIN subject ON subject.id = template.subject"
)


class SqliteStore:
    """One collection of a SQLite file. Raises `GalleryUnavailable` when it cannot be used.

    `key` opens an encrypted gallery, and makes a new one encrypted. `kernel` is for tests.
    """

    def __init__(
        self,
        path: Path,
        create: bool = True,
        collection: str = DEFAULT_COLLECTION,
        *,
        key: bytes | None = None,
        kernel: Kernel | None = None,
    ) -> None:
        self._path = path
        self._lock = threading.RLock()
        self._kernel = kernel or fastest_kernel()
        self._name = collection
        if path.is_dir():
            raise GalleryUnavailable(str(path), "it is a folder; give the path of a file")
        if not path.exists():
            if not create:
                raise GalleryUnavailable(str(path), "it does not exist; 'mien enroll' makes it")
            if not path.parent.is_dir():
                raise GalleryUnavailable(str(path), f"the folder {path.parent} does not exist")
        with self._translated():
            self._db = sqlite3.connect(
                path, timeout=_BUSY_SECONDS, isolation_level=None, check_same_thread=False
            )
        try:
            with self._translated():
                self._prepare(create, key)
        except BaseException:
            self._db.close()
            raise
        self._index = self._new_index(self._collection)

    def contract(self) -> str | None:
        with self._reading() as db:
            contract = self._field(db, "contract")
            return None if contract is None else str(contract)

    def add(self, entries: Sequence[Entry]) -> list[Template]:
        contract = entries[0].embedding.contract
        dimensions = len(entries[0].embedding.vector)
        now = _now()
        if any(abs(float(e.embedding.vector @ e.embedding.vector) - 1) > 1e-3 for e in entries):
            raise InputError("vectors in a gallery have the length 1; see mien.embedding.normalize")
        with self._writing() as db:
            known, width = db.execute(
                "SELECT contract, dimensions FROM collection WHERE id = ?", (self._collection,)
            ).fetchone()
            if known is not None:
                require_contract(known, contract)
            lengths = {entry.embedding.vector.size for entry in entries} | {width or dimensions}
            if len(lengths) > 1:
                raise InputError(f"vectors of one gallery have one length, got {sorted(lengths)}")
            db.execute(
                "UPDATE collection SET contract = ?, dimensions = ? WHERE id = ?",
                (contract, dimensions, self._collection),
            )
            templates = self._insert(db, self._collection, entries, now)
            self._log(db, "add", None, len(entries), now)
        return templates

    def search(
        self, probes: NDArray[np.float32], limit: int, where: Where | None = None
    ) -> list[list[Match]]:
        with self._reading() as db:
            width = self._field(db, "dimensions")
            if width and probes.shape[1] != width:
                raise InputError(
                    f"the gallery has vectors of {width} numbers, the probe has {probes.shape[1]}"
                )
            self._index.refresh(db)
            allowed = self._allowed(db, where) if where else None
            found = self._index.search(db, probes, limit, allowed)
        if self._index.wants_writing:
            self._write_index()
        return found

    def entries(self, after: int = 0) -> Iterator[tuple[int, Entry]]:
        while True:
            with self._reading() as db:
                contract = str(self._field(db, "contract"))
                rows = db.execute(
                    f"{_ENTRIES} WHERE template.collection = ? AND template.id > ? "
                    "ORDER BY template.id LIMIT ?", (self._collection, after, _BATCH),
                ).fetchall()  # fmt: skip
            for row in rows:
                with self._translated():
                    found = self._entry(row, contract)
                yield row[0], found
            if len(rows) < _BATCH:
                return
            after = rows[-1][0]

    def subjects(self) -> list[Subject]:
        with self._reading() as db:
            rows = db.execute(
                "SELECT subject.id, name, sum(1 - negative), subject.created FROM subject "
                "JOIN template ON template.subject = subject.id WHERE subject.collection = ? "
                "GROUP BY subject.id", (self._collection,),
            ).fetchall()  # fmt: skip
            found = [Subject(self._open_text(row[1], f"name:{row[0]}"), *row[2:]) for row in rows]
        return sorted(found, key=lambda subject: subject.name)

    def templates(self, subject: str) -> list[Template]:
        with self._reading() as db:
            rows = db.execute(
                "SELECT template.id, source, quality, template.created, negative FROM template "
                "JOIN subject ON template.subject = subject.id "
                "WHERE subject.collection = ? AND lookup = ? ORDER BY template.id",
                (self._collection, self._cipher.lookup(subject)),
            ).fetchall()
        if not rows:
            raise UnknownSubject(subject)
        with self._translated():
            return [
                Template(id_, subject, self._open_text(source, f"source:{id_}"), quality, created)
                for id_, source, quality, created, negative in rows
                if not negative
            ]

    def remove(self, subject: str, templates: Collection[int] | None = None) -> int:
        return self.erase(subject, templates).templates

    def erase(self, subject: str, templates: Collection[int] | None = None) -> Receipt:
        """`remove`, with a signed receipt. Raises `UnknownSubject`."""
        with self._writing() as db:
            gone: dict[int, list[int]] = {}
            for collection, row in self._rows(db, subject).items():
                rows = db.execute("SELECT id FROM template WHERE subject = ?", (row,))
                gone[collection] = [i for (i,) in rows]
            if templates is not None:
                gone = self._of_same_pictures(db, gone, templates)
            for collection, ids in gone.items():
                self._delete(db, collection, ids)
            count = sum(map(len, gone.values()))
            line = self._log(db, "remove", subject, count, _now())
            gallery = str(_meta(db, "gallery"))
        self._clear_traces(gone)
        receipt = Receipt(gallery, line.collection, line.subject, count, line.time, line.chain)
        return receipt.signed(self.receipt_key())

    def rename(self, subject: str, new: str) -> int:
        with self._writing() as db:
            rows, now = self._rows(db, subject), _now()
            held = {collection: self._held(db, row) for collection, row in rows.items()}
            count = sum(map(len, held.values()))
            if new == subject:
                return count
            for collection, found in held.items():
                since = db.execute(
                    "SELECT created FROM subject WHERE id = ?", (rows[collection],)
                ).fetchone()
                self._delete(db, collection, list(found))
                moved = [replace(entry, subject=new) for entry in found.values()]
                self._insert(db, collection, moved, now)  # new ids: what is new is what is larger
                db.execute(
                    "UPDATE subject SET created = min(created, ?) WHERE id = ?",
                    (*since, self._find(db, collection, new)),
                )
            self._log(db, "rename", subject, count, now)
        self._clear_traces({collection: list(found) for collection, found in held.items()})
        return count

    def expire(self) -> int:
        """Erase what is older than the retention period of the collection: how many templates."""
        with self._writing() as db:
            days = self._field(db, "retention_days")
            if days is None:
                return 0
            oldest = (datetime.now(UTC) - timedelta(days=days)).isoformat(timespec="seconds")
            gone: dict[int, list[int]] = {}
            for collection in self._generations(db):
                rows = db.execute(
                    "SELECT id FROM template WHERE collection = ? AND created < ?",
                    (collection, oldest),
                )
                if ids := [i for (i,) in rows]:
                    gone[collection] = ids
                    self._delete(db, collection, ids)
            count = sum(map(len, gone.values()))
            if count:
                self._log(db, "expire", None, count, _now())
        if count:
            self._clear_traces(gone)
        return count

    def retain(self, days: float | None) -> None:
        """Let templates live for so many days from when they were made; None: for ever."""
        if days is not None and not days > 0:
            raise InputError(f"a retention period is a positive number of days, got {days:g}")
        with self._writing() as db:
            db.execute(
                "UPDATE collection SET retention_days = ? WHERE id = ?", (days, self._collection)
            )
            self._log(db, f"retain {days:g} days" if days else "retain for ever", None, 0, _now())

    def history(self) -> list[Line]:
        """The audit log of the whole file, oldest first."""
        with self._reading() as db:
            rows = db.execute(
                "SELECT time, operation, collection, subject, templates, chain FROM audit "
                "ORDER BY line"
            )
            return [Line(*row) for row in rows]

    def receipt_key(self) -> bytes:
        """What signs receipts and makes the digests of names in the log."""
        return audit.key_at(self._beside("-key"))

    def collections(self) -> list[str]:
        """The names of all collections in the file."""
        with self._reading() as db:
            return [name for (name,) in db.execute("SELECT name FROM collection ORDER BY name")]

    def swap(self, other: str) -> None:
        """Exchange names with another collection of the file, in one step.

        Who opened either by its name keeps what it has open.
        """
        with self._writing() as db:
            row = db.execute("SELECT id FROM collection WHERE name = ?", (other,)).fetchone()
            if row is None:
                raise GalleryUnavailable(str(self._path), f"it has no collection {other!r}")
            mine, days = self._field(db, "name"), self._field(db, "retention_days")
            rename = "UPDATE collection SET name = ?, retention_days = ? WHERE id = ?"
            db.execute(rename, (secrets.token_hex(16), days, row[0]))
            db.execute(rename, (other, days, self._collection))
            db.execute(rename, (mine, days, row[0]))
            self._log(db, f"swap with {other}", None, 0, _now())

    def drop(self) -> int:
        """Erase the whole collection: how many templates."""
        with self._writing() as db:
            rows = db.execute("SELECT id FROM template WHERE collection = ?", (self._collection,))
            ids = [i for (i,) in rows]
            self._delete(db, self._collection, ids)
            self._log(db, "drop", None, len(ids), _now())
        self._clear_traces({self._collection: ids})
        return len(ids)

    def check(self) -> list[str]:
        """What is wrong with the files, in words; nothing when all is well."""
        with self._reading() as db:
            found = [
                f"the record is damaged: {text}"
                for (text,) in db.execute("PRAGMA integrity_check(20)")
                if text != "ok"
            ]
        if (number := audit.broken(self.history())) is not None:
            found.append(f"line {number + 1} of the audit log was changed")
        seen = 0
        for id_, entry in self._readable(found):
            seen += not entry.negative
            length = float(np.linalg.norm(entry.embedding.vector))
            if not abs(length - 1.0) < 1e-3:
                found.append(f"the vector of template {id_} has length {length:g} instead of 1")
        with self._reading() as db:
            if (stated := self._field(db, "templates")) != seen:
                found.append(f"{stated} templates are counted and {seen} can be read")
        return found

    def rekey(self, key: bytes) -> None:
        """Let `key` open the gallery from now on instead of the present key."""
        if not self._cipher.sealed:
            raise GalleryUnavailable(
                str(self._path), "it is not encrypted; 'mien gallery migrate' to one that is"
            )
        with self._writing() as db:
            wrapped = cipher.wrap(self._data_key, key, str(_meta(db, "gallery")))
            db.execute("UPDATE meta SET value = ? WHERE key = 'data_key'", (wrapped.hex(),))
            self._log(db, "rekey", None, 0, _now())
        self._empty_log()

    def compact(self) -> None:
        with self._lock, self._translated():
            self._db.execute("VACUUM")
        self._empty_log()
        self._rebuild_index()

    def stats(self) -> Stats:
        with self._reading() as db:
            row = db.execute(
                "SELECT subjects, templates, dimensions, contract FROM collection WHERE id = ?",
                (self._collection,),
            ).fetchone()
        files = [self._beside(end) for end in ("", "-wal", "-shm", "-key")]
        files += self._beside("-index").glob("*")
        size = sum(file.stat().st_size for file in files if file.exists())
        return Stats(str(self._path), row[0], row[1], row[2], size, row[3])

    def close(self) -> None:
        with self._lock:
            self._db.close()
            self._index.close()

    # -- opening

    def _prepare(self, create: bool, key: bytes | None) -> None:
        db = self._db
        db.execute("PRAGMA secure_delete = ON")
        db.execute("PRAGMA synchronous = FULL")
        db.execute("PRAGMA foreign_keys = ON")
        application = db.execute("PRAGMA application_id").fetchone()[0]
        if application == 0 and not db.execute("SELECT 1 FROM sqlite_master").fetchone():
            self._create(db, key)
        elif application != _APPLICATION:
            raise GalleryUnavailable(str(self._path), "it is a database, but not a mien gallery")
        schema = db.execute("PRAGMA user_version").fetchone()[0]
        if schema > _SCHEMA:
            raise GalleryUnavailable(
                str(self._path),
                f"it was written by a newer mien (format {schema}, this one reads {_SCHEMA}); "
                f"upgrade mien",
            )
        if schema == 1:
            self._upgrade_from_1(db)
        self._cipher = self._open_cipher(db, key)
        find = "SELECT id FROM collection WHERE name = ?"
        row = db.execute(find, (self._name,)).fetchone()
        if row is None:
            if not create:
                raise GalleryUnavailable(
                    str(self._path), f"it has no collection {self._name!r}; 'mien enroll' makes it"
                )
            with self._writing():
                db.execute(
                    "INSERT INTO collection (name, created) VALUES (?, ?) ON CONFLICT DO NOTHING",
                    (self._name, _now()),
                )
            row = db.execute(find, (self._name,)).fetchone()
        self._collection = int(row[0])

    def _create(self, db: sqlite3.Connection, key: bytes | None) -> None:
        db.execute(f"PRAGMA page_size = {_PAGE}")
        db.execute("PRAGMA journal_mode = WAL")
        with self._writing():
            if db.execute("PRAGMA application_id").fetchone()[0] == _APPLICATION:
                return  # another process was faster
            self._make_tables(db)
            if key is not None:
                gallery = str(_meta(db, "gallery"))
                wrapped = cipher.wrap(secrets.token_bytes(cipher.KEY_BYTES), key, gallery)
                db.execute("INSERT INTO meta VALUES ('data_key', ?)", (wrapped.hex(),))

    def _make_tables(self, db: sqlite3.Connection) -> None:
        for statement in _TABLES.split(";\n"):
            db.execute(statement)
        db.execute("INSERT INTO meta VALUES ('gallery', ?)", (secrets.token_hex(16),))
        db.execute(
            "INSERT INTO collection (name, created) VALUES (?, ?)", (DEFAULT_COLLECTION, _now())
        )
        db.execute(f"PRAGMA application_id = {_APPLICATION}")
        db.execute(f"PRAGMA user_version = {_SCHEMA}")

    def _upgrade_from_1(self, db: sqlite3.Connection) -> None:
        """Format 1 had one collection, no negatives and no metadata."""
        db.execute("PRAGMA foreign_keys = OFF")
        with self._writing():
            if db.execute("PRAGMA user_version").fetchone()[0] != 1:
                return  # another process was faster
            contract = _meta(db, "contract")
            db.execute("DROP INDEX template_subject")
            for table in ("meta", "subject", "template"):
                db.execute(f"ALTER TABLE {table} RENAME TO {table}_1")
            self._make_tables(db)
            db.execute(
                "INSERT INTO subject SELECT id, 1, CAST(name AS BLOB), CAST(name AS BLOB), "
                "created, created FROM subject_1"
            )
            db.execute(
                "INSERT INTO template SELECT id, 1, subject, 0, quality, created, vector, "
                "CAST(source AS BLOB), x'', CAST('{}' AS BLOB) FROM template_1"
            )
            db.execute(
                "UPDATE sqlite_sequence SET seq = (SELECT seq FROM sqlite_sequence "
                "WHERE name = 'template_1') WHERE name = 'template'"
            )
            for table in ("template", "subject", "meta"):
                db.execute(f"DROP TABLE {table}_1")
            width = db.execute("SELECT max(length(vector)) / 4 FROM template").fetchone()[0]
            db.execute(
                "UPDATE collection SET contract = ?, dimensions = ?, version = 1, "
                "subjects = (SELECT count(*) FROM subject), "
                "templates = (SELECT count(*) FROM template)", (contract, width or 0),
            )  # fmt: skip
        db.execute("PRAGMA foreign_keys = ON")

    def _open_cipher(self, db: sqlite3.Connection, key: bytes | None) -> cipher.Cipher:
        wrapped = _meta(db, "data_key")
        if wrapped is None:
            if key is not None:
                raise GalleryUnavailable(
                    str(self._path),
                    "a key was given but it is not encrypted; open it without the key, or "
                    "'mien gallery migrate' to a new one with the key",
                )
            return cipher.Clear()
        if key is None:
            raise GalleryUnavailable(
                str(self._path),
                "it is encrypted; give its key with MIEN_GALLERY_KEY_FILE or MIEN_GALLERY_KEY",
            )
        try:
            self._data_key = cipher.unwrap(bytes.fromhex(wrapped), key, str(_meta(db, "gallery")))
        except GalleryUnavailable as error:
            raise GalleryUnavailable(str(self._path), error.reason) from None
        return cipher.AesGcm(self._data_key)

    # -- rows

    def _subjects(
        self, db: sqlite3.Connection, collection: int, entries: Sequence[Entry], now: str
    ) -> tuple[dict[str, int], int]:
        """The row of each subject, and how many are new."""
        rows: dict[str, int] = {}
        next_ = db.execute("SELECT coalesce(max(id), 0) FROM subject").fetchone()[0] + 1
        fresh: list[tuple[int, int, bytes, bytes, str, str]] = []
        for name in dict.fromkeys(entry.subject for entry in entries):
            lookup = self._cipher.lookup(name)
            row = db.execute(
                "SELECT id FROM subject WHERE collection = ? AND lookup = ?",
                (collection, lookup),
            ).fetchone()
            if row is None:
                rows[name] = next_ + len(fresh)
                sealed = self._seal_text(name, f"name:{rows[name]}")
                fresh.append((rows[name], collection, lookup, sealed, now, now))
            else:
                rows[name] = row[0]
                db.execute("UPDATE subject SET updated = ? WHERE id = ?", (now, row[0]))
        db.executemany("INSERT INTO subject VALUES (?, ?, ?, ?, ?, ?)", fresh)
        return rows, len(fresh)

    def _insert(
        self, db: sqlite3.Connection, collection: int, entries: Sequence[Entry], now: str
    ) -> list[Template]:
        """Rows for the entries, and for subjects that are new."""
        subjects, fresh = self._subjects(db, collection, entries, now)
        row = db.execute("SELECT seq FROM sqlite_sequence WHERE name = 'template'").fetchone()
        first = (row[0] if row else 0) + 1
        rows, tags, templates = [], [], []
        for id_, entry in enumerate(entries, first):
            created = entry.created or now
            vector = entry.embedding.vector.astype("<f4", copy=False).tobytes()
            text = json.dumps(dict(entry.metadata)) if entry.metadata else "{}"
            rows.append((
                id_, collection, subjects[entry.subject], int(entry.negative),
                entry.quality, created, self._cipher.seal(vector, f"vector:{id_}"),
                self._seal_text(entry.source, f"source:{id_}"),
                self._seal_text(entry.source_sha256, f"sha256:{id_}"),
                self._seal_text(text, f"metadata:{id_}"),
            ))  # fmt: skip
            tags += [(self._tag(key, value), id_) for key, value in entry.metadata.items()]
            templates.append(Template(id_, entry.subject, entry.source, entry.quality, created))
        db.executemany("INSERT INTO template VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?)", rows)
        db.executemany("INSERT INTO tag VALUES (?, ?)", tags)
        db.execute(
            "UPDATE collection SET version = version + 1, subjects = subjects + ?, "
            "templates = templates + ? WHERE id = ?",
            (fresh, sum(not entry.negative for entry in entries), collection),
        )
        return templates

    def _entry(self, row: tuple[Any, ...], contract: str) -> Entry:
        id_, subject, name, vector, source, sha256, metadata, quality, negative, created = row
        return Entry(
            self._open_text(name, f"name:{subject}"),
            Embedding(self._open_vector(vector, id_), contract),
            self._open_text(source, f"source:{id_}"),
            quality,
            json.loads(self._open_text(metadata, f"metadata:{id_}")),
            bool(negative),
            self._open_text(sha256, f"sha256:{id_}"),
            created,
        )

    def _delete(self, db: sqlite3.Connection, collection: int, ids: list[int]) -> None:
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
        db.execute(f"DELETE FROM template WHERE id IN {among}", (text,))
        gone = db.execute(
            f"DELETE FROM subject WHERE id IN {among} "
            f"AND NOT EXISTS (SELECT 1 FROM template WHERE subject = subject.id)",
            (json.dumps(subjects),),
        ).rowcount
        db.execute(
            "UPDATE collection SET subjects = subjects - ?, templates = templates - ?, "
            "version = version + 1, erasures = ? WHERE id = ?",
            (gone, positive, secrets.token_hex(8), collection),
        )

    def _clear_traces(self, gone: dict[int, list[int]]) -> None:
        """What was deleted from the record goes from the indexes, their files and the log."""
        with self._writing() as db:  # the lock of the index files
            for collection, ids in gone.items():
                mine = collection == self._collection
                index = self._index if mine else self._new_index(collection)
                try:
                    index.forget(db, np.array(sorted(ids), np.int64))
                except OSError as error:
                    raise GalleryUnavailable(
                        str(self._path),
                        f"removed, but its index file could not be overwritten ({error}); "
                        f"delete the folder {self._beside('-index')}",
                    ) from error
                if not mine:
                    index.close()
        self._empty_log()

    def _generations(self, db: sqlite3.Connection) -> list[int]:
        """This collection and the one with the same people by another model, if there is one."""
        base = self._field(db, "name").removesuffix(OTHER_MODEL)
        rows = db.execute(
            "SELECT id FROM collection WHERE name IN (?, ?)", (base, base + OTHER_MODEL)
        )
        return [i for (i,) in rows]

    def _rows(self, db: sqlite3.Connection, subject: str) -> dict[int, int]:
        """The row of a person in each generation that has them. Raises `UnknownSubject`."""
        rows = {collection: self._find(db, collection, subject) for collection in
                self._generations(db)}  # fmt: skip
        if rows[self._collection] is None:
            raise UnknownSubject(subject)
        return {collection: row for collection, row in rows.items() if row is not None}

    def _held(self, db: sqlite3.Connection, subject: int) -> dict[int, Entry]:
        """The templates of a row of `subject`, by id."""
        (contract,) = db.execute(
            "SELECT contract FROM collection JOIN subject ON subject.collection = collection.id "
            "WHERE subject.id = ?", (subject,),
        ).fetchone()  # fmt: skip
        rows = db.execute(f"{_ENTRIES} WHERE subject.id = ? ORDER BY template.id", (subject,))
        return {row[0]: self._entry(row, str(contract)) for row in rows.fetchall()}

    def _of_same_pictures(
        self, db: sqlite3.Connection, gone: dict[int, list[int]], templates: Collection[int]
    ) -> dict[int, list[int]]:
        """Of one person's templates those wanted, and those that another model made of the same."""
        wanted = sorted(set(gone[self._collection]) & set(templates))
        sources = {id_: self._source(db, id_) for ids in gone.values() for id_ in ids}
        pictures = {sources[id_] for id_ in wanted}
        return {
            collection: wanted if collection == self._collection
            else [id_ for id_ in ids if sources[id_] in pictures]
            for collection, ids in gone.items()
        }  # fmt: skip

    def _source(self, db: sqlite3.Connection, id_: int) -> tuple[str, str]:
        """The name and the digest of the picture of a template."""
        source, sha256 = db.execute(
            "SELECT source, source_sha256 FROM template WHERE id = ?", (id_,)
        ).fetchone()
        return self._open_text(source, f"source:{id_}"), self._open_text(sha256, f"sha256:{id_}")

    def _find(self, db: sqlite3.Connection, collection: int, name: str) -> int | None:
        row = db.execute(
            "SELECT id FROM subject WHERE collection = ? AND lookup = ?",
            (collection, self._cipher.lookup(name)),
        ).fetchone()
        return None if row is None else int(row[0])

    def _log(
        self, db: sqlite3.Connection, operation: str, subject: str | None, count: int, now: str
    ) -> Line:
        row = db.execute("SELECT chain FROM audit ORDER BY line DESC LIMIT 1").fetchone()
        whom = "" if subject is None else audit.digest(self.receipt_key(), subject)
        line = audit.line(now, operation, self._name, whom, count, row[0] if row else "")
        db.execute(
            "INSERT INTO audit (time, operation, collection, subject, templates, chain) "
            "VALUES (?, ?, ?, ?, ?, ?)",
            (line.time, line.operation, line.collection, line.subject, line.templates, line.chain),
        )
        return line

    def _allowed(self, db: sqlite3.Connection, where: Where) -> NDArray[np.int64]:
        """The templates whose metadata pass a filter, ascending."""
        allowed: NDArray[np.int64] | None = None
        for key, wanted in where.items():
            values = [wanted] if isinstance(wanted, str) else list(wanted)
            places = ", ".join("?" * len(values))
            rows = db.execute(
                f"SELECT template FROM tag WHERE tag IN ({places})",
                [self._tag(key, value) for value in values],
            )
            ids = np.unique(np.fromiter((i for (i,) in rows), np.int64))
            allowed = ids if allowed is None else np.intersect1d(allowed, ids, assume_unique=True)
        return np.zeros(0, np.int64) if allowed is None else allowed

    def _readable(self, found: list[str]) -> Iterator[tuple[int, Entry]]:
        """`entries`, one at a time, past those that cannot be opened; they are named in `found`."""
        after = 0
        while True:
            try:
                for id_, entry in self.entries(after):
                    after = id_
                    yield id_, entry
                return
            except (GalleryUnavailable, InputError, ValueError) as error:
                with self._reading() as db:
                    row = db.execute(
                        "SELECT min(id) FROM template WHERE collection = ? AND id > ?",
                        (self._collection, after),
                    ).fetchone()
                if row[0] is None:
                    return
                after = row[0]
                found.append(f"template {after} cannot be read: {error}")

    def _field(self, db: sqlite3.Connection, column: str) -> Any:
        return db.execute(
            f"SELECT {column} FROM collection WHERE id = ?", (self._collection,)
        ).fetchone()[0]

    def _tag(self, key: str, value: str) -> bytes:
        return self._cipher.lookup(json.dumps([key, value]))

    def _seal_text(self, text: str, place: str) -> bytes:
        return self._cipher.seal(cipher.to_bytes(text), place)

    def _open_text(self, stored: bytes, place: str) -> str:
        return cipher.to_text(self._cipher.open(stored, place))

    def _open_vector(self, stored: bytes, id_: int) -> NDArray[np.float32]:
        return np.frombuffer(self._cipher.open(stored, f"vector:{id_}"), "<f4")

    # -- index

    def _new_index(self, collection: int) -> Index:
        path = None
        if not self._cipher.sealed:  # codes are as telling as vectors: those of a sealed gallery
            path = self._beside("-index") / str(collection)  # stay in memory
        return Index(collection, path, self._cipher, self._kernel)

    def _write_index(self) -> None:
        try:
            with self._writing() as db:
                self._index.write(db)
        except (GalleryUnavailable, OSError):  # read-only, or a full disk: it is only a copy
            self._index.do_without_file()

    def _rebuild_index(self) -> None:
        with self._lock:
            self._index.close()
            folder = self._beside("-index")
            if folder.is_dir():
                for file in folder.iterdir():
                    file.unlink()
            self._index = self._new_index(self._collection)

    def _beside(self, end: str) -> Path:
        return self._path.with_name(self._path.name + end)

    # -- transactions

    def _empty_log(self) -> None:
        """Move everything from the log into the file and cut the log to nothing.

        Deleted rows are overwritten in the file, but the log would still hold them.
        """
        end = time.monotonic() + _BUSY_SECONDS
        while True:
            with self._lock, self._translated():
                busy = self._db.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchone()[0]
            if not busy or time.monotonic() > end:
                break
            time.sleep(0.005)  # another process is emptying it, for which SQLite does not wait
        if busy:
            raise GalleryUnavailable(
                str(self._path),
                "removed, but another process kept the log in use, so traces may remain in it "
                "until that process ends; 'mien gallery compact' then clears them",
            )

    @contextmanager
    def _reading(self) -> Iterator[sqlite3.Connection]:
        """One snapshot: what the block reads belongs together."""
        with self._lock, self._translated():
            self._db.execute("BEGIN")
            try:
                yield self._db
            finally:
                if self._db.in_transaction:
                    self._db.execute("COMMIT")

    @contextmanager
    def _writing(self) -> Iterator[sqlite3.Connection]:
        """One transaction: committed, and on disk, when the block ends; undone if it raises."""
        with self._lock, self._translated():
            self._db.execute("BEGIN IMMEDIATE")
            try:
                yield self._db
                self._db.execute("COMMIT")
            except BaseException:
                if self._db.in_transaction:
                    self._db.execute("ROLLBACK")
                raise

    @contextmanager
    def _translated(self) -> Iterator[None]:
        try:
            yield
        except MienError:
            raise
        except sqlite3.Error as error:
            raise GalleryUnavailable(str(self._path), _explain(error)) from error
        except (
            TypeError,
            ValueError,
            KeyError,
            OverflowError,
        ) as error:  # in decoding what it read
            reason = f"it holds something that mien did not write ({error}); 'mien gallery verify'"
            raise GalleryUnavailable(str(self._path), reason) from error


def _meta(db: sqlite3.Connection, key: str) -> str | None:
    row = db.execute("SELECT value FROM meta WHERE key = ?", (key,)).fetchone()
    return None if row is None else str(row[0])


def _now() -> str:
    return datetime.now(UTC).isoformat(timespec="seconds")


_MEANING = {  # a part of SQLite's message: what it means here, and what to do
    "not a database": "the file is not a mien gallery, or it is damaged",
    "malformed": "the file is damaged; restore it from a backup, or save what can be read with "
    "'mien gallery export'",
    "unable to open": "it cannot be opened; check that the folder exists and may be written",
    "readonly": "it may not be written; check the permissions of the file and its folder",
    "locked": f"another process kept it locked for {_BUSY_SECONDS:.0f} seconds; try again",
    "full": "the disk is full; nothing was changed",
    "disk I/O": "the disk failed or is full; nothing was changed",
    "closed database": "it was closed already",
}


def _explain(error: sqlite3.Error) -> str:
    text = str(error)
    return next((words for part, words in _MEANING.items() if part in text), text)
