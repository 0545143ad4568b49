"""The embedded store: one SQLite file as the record, a matrix in memory for the search.

Durable: write-ahead log with synchronous=FULL, so what was acknowledged survives a killed process
and a power cut. Erasing: secure_delete overwrites what is deleted, and the log is emptied before
`remove` returns. Several processes may read and write; each notices what others did before it
searches.
"""

import sqlite3
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from mien.embedding import require_contract
from mien.errors import GalleryUnavailable, InputError, UnknownSubject
from mien.gallery.store import Entry, Stats, Subject
from mien.types import Match, Template

_APPLICATION = int.from_bytes(b"mien", "big")  # marks the file as ours in its header
_SCHEMA = 1
_BUSY_SECONDS = 30.0  # how long a writer waits for another process

_TABLES = """
CREATE TABLE meta (key TEXT PRIMARY KEY, value TEXT NOT NULL) WITHOUT ROWID;
CREATE TABLE subject (
    id INTEGER PRIMARY KEY,
    name TEXT NOT NULL UNIQUE,
    created TEXT NOT NULL
);
CREATE TABLE template (
    id INTEGER PRIMARY KEY AUTOINCREMENT,  -- never reused: what is new is what is larger
    subject INTEGER NOT NULL REFERENCES subject (id),
    vector BLOB NOT NULL,                  -- float32, little-endian, unit length
    source TEXT NOT NULL,
    quality REAL NOT NULL,
    created TEXT NOT NULL
);
CREATE INDEX template_subject ON template (subject);
INSERT INTO meta VALUES ('erasures', '0');
"""


class SqliteStore:
    """A store in one SQLite file. Raises `GalleryUnavailable` when it cannot be used."""

    def __init__(self, path: Path, create: bool = True) -> None:
        self._path = path
        self._lock = threading.RLock()
        self._index = _Index()
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
                self._prepare()
        except BaseException:
            self._db.close()
            raise

    def contract(self) -> str | None:
        with self._reading() as db:
            return _meta(db, "contract")

    def add(self, entries: Sequence[Entry]) -> list[Template]:
        contract = entries[0].embedding.contract
        now = datetime.now(UTC).isoformat(timespec="seconds")
        with self._writing() as db:
            known = _meta(db, "contract")
            if known is None:
                db.execute("INSERT INTO meta VALUES ('contract', ?)", (contract,))
            else:
                require_contract(known, contract)
            lengths = {entry.embedding.vector.size for entry in entries}
            for (stored,) in db.execute("SELECT length(vector) / 4 FROM template LIMIT 1"):
                lengths.add(stored)
            if len(lengths) > 1:
                raise InputError(f"vectors of one gallery have one length, got {sorted(lengths)}")
            return [self._insert(db, entry, now) for entry in entries]

    def search(self, probes: NDArray[np.float32], limit: int) -> list[list[Match]]:
        with self._reading() as db:
            self._index.refresh(db)
            return self._index.search(probes, limit)

    def subjects(self) -> list[Subject]:
        with self._reading() as db:
            rows = db.execute(
                "SELECT name, count(template.id), subject.created FROM subject "
                "JOIN template ON template.subject = subject.id GROUP BY subject.id ORDER BY name"
            )
            return [Subject(*row) for row in rows]

    def templates(self, subject: str) -> list[Template]:
        with self._reading() as db:
            rows = db.execute(
                "SELECT template.id, name, source, quality, template.created FROM template "
                "JOIN subject ON template.subject = subject.id WHERE name = ? "
                "ORDER BY template.id",
                (subject,),
            ).fetchall()
        if not rows:
            raise UnknownSubject(subject)
        return [Template(*row) for row in rows]

    def remove(self, subject: str) -> int:
        with self._writing() as db:
            row = db.execute("SELECT id FROM subject WHERE name = ?", (subject,)).fetchone()
            if row is None:
                raise UnknownSubject(subject)
            count = db.execute("DELETE FROM template WHERE subject = ?", row).rowcount
            db.execute("DELETE FROM subject WHERE id = ?", row)
            db.execute("UPDATE meta SET value = value + 1 WHERE key = 'erasures'")
        self._empty_log()
        with self._lock:
            self._index = _Index()  # nor must the vectors stay in memory
        return count

    def compact(self) -> None:
        with self._lock, self._translated():
            self._db.execute("VACUUM")
        self._empty_log()

    def stats(self) -> Stats:
        with self._reading() as db:
            subjects = db.execute("SELECT count(*) FROM subject").fetchone()[0]
            templates = db.execute("SELECT count(*) FROM template").fetchone()[0]
            width = db.execute("SELECT length(vector) FROM template LIMIT 1").fetchone()
            contract = _meta(db, "contract")
        files = (self._path.with_name(self._path.name + end) for end in ("", "-wal", "-shm"))
        size = sum(file.stat().st_size for file in files if file.exists())
        dimensions = width[0] // 4 if width else 0
        return Stats(str(self._path), subjects, templates, dimensions, size, contract)

    def close(self) -> None:
        with self._lock:
            self._db.close()
            self._index = _Index()

    def _prepare(self) -> None:
        db = self._db
        db.execute("PRAGMA secure_delete = ON")
        db.execute("PRAGMA synchronous = FULL")
        db.execute("PRAGMA foreign_keys = ON")
        application = db.execute("PRAGMA application_id").fetchone()[0]
        if application == 0 and not db.execute("SELECT 1 FROM sqlite_master").fetchone():
            self._create(db)
        elif application != _APPLICATION:
            raise GalleryUnavailable(str(self._path), "it is a database, but not a mien gallery")
        schema = db.execute("PRAGMA user_version").fetchone()[0]
        if schema > _SCHEMA:
            raise GalleryUnavailable(
                str(self._path),
                f"it was written by a newer mien (format {schema}, this one reads {_SCHEMA}); "
                f"upgrade mien",
            )

    def _create(self, db: sqlite3.Connection) -> None:
        db.execute("PRAGMA journal_mode = WAL")
        with self._writing():
            if db.execute("PRAGMA application_id").fetchone()[0] == _APPLICATION:
                return  # another process was faster
            for statement in _TABLES.split(";\n"):
                db.execute(statement)
            db.execute(f"PRAGMA application_id = {_APPLICATION}")
            db.execute(f"PRAGMA user_version = {_SCHEMA}")

    def _insert(self, db: sqlite3.Connection, entry: Entry, now: str) -> Template:
        db.execute(
            "INSERT INTO subject (name, created) VALUES (?, ?) ON CONFLICT DO NOTHING",
            (entry.subject, now),
        )
        vector = entry.embedding.vector.astype("<f4").tobytes()
        source = entry.source.encode(errors="backslashreplace").decode()  # any file name there is
        cursor = db.execute(
            "INSERT INTO template (subject, vector, source, quality, created) "
            "SELECT id, ?, ?, ?, ? FROM subject WHERE name = ?",
            (vector, source, entry.quality, now, entry.subject),
        )
        assert cursor.lastrowid is not None
        return Template(cursor.lastrowid, entry.subject, source, entry.quality, now)

    def _empty_log(self) -> None:
        """Move everything from the log into the file and cut the log to nothing.

        Deleted rows are overwritten in the file, but the log would still hold them.
        """
        with self._lock, self._translated():
            busy = self._db.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchone()[0]
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
        except (sqlite3.Error, UnicodeDecodeError) as error:
            raise GalleryUnavailable(str(self._path), _explain(error)) from error


def _meta(db: sqlite3.Connection, key: str) -> str | None:
    row = db.execute("SELECT value FROM meta WHERE key = ?", (key,)).fetchone()
    return None if row is None else str(row[0])


_MEANING = {  # a part of SQLite's message: what it means here, and what to do
    "not a database": "the file is not a mien gallery, or it is damaged",
    "malformed": "the file is damaged; restore it from a backup",
    "codec can't decode": "the file is damaged; restore it from a backup",
    "unable to open": "it cannot be opened; check that the folder exists and may be written",
    "readonly": "it may not be written; check the permissions of the file and its folder",
    "locked": f"another process kept it locked for {_BUSY_SECONDS:.0f} seconds; try again",
    "full": "the disk is full; nothing was changed",
    "closed database": "it was closed already",
}


def _explain(error: Exception) -> str:
    text = str(error)
    return next((words for part, words in _MEANING.items() if part in text), text)


def _matrix(blobs: list[bytes]) -> NDArray[np.float32]:
    """Stored vectors as rows; the file may be damaged where SQLite does not look."""
    try:
        (length,) = set(map(len, blobs))
        vectors = np.frombuffer(b"".join(blobs), "<f4").reshape(len(blobs), length // 4)
    except (TypeError, ValueError) as error:
        raise sqlite3.DatabaseError("malformed vectors") from error
    if not np.isfinite(vectors).all():
        raise sqlite3.DatabaseError("malformed vectors")
    return vectors


class _Index:
    """The vectors of all templates as one matrix, kept in step with the file."""

    def __init__(self) -> None:
        self._vectors = np.zeros((0, 0), np.float32)
        self._count = 0
        self._templates: list[int] = []
        self._subjects: list[str] = []
        self._last = 0
        self._erasures: str | None = None

    def refresh(self, db: sqlite3.Connection) -> None:
        """Load what any process added since; start again when one has erased."""
        erasures = _meta(db, "erasures")
        if erasures != self._erasures:
            self._erasures = erasures
            self._count = self._last = 0
            self._templates, self._subjects = [], []
        rows = db.execute(
            "SELECT template.id, name, vector FROM template "
            "JOIN subject ON subject.id = template.subject WHERE template.id > ? "
            "ORDER BY template.id",
            (self._last,),
        ).fetchall()
        if not rows:
            return
        fresh = _matrix([row[2] for row in rows])
        if self._count and fresh.shape[1] != self._vectors.shape[1]:
            raise sqlite3.DatabaseError("malformed vectors")
        self._append(fresh)
        self._templates += [row[0] for row in rows]
        self._subjects += [row[1] for row in rows]
        self._last = rows[-1][0]

    def search(self, probes: NDArray[np.float32], limit: int) -> list[list[Match]]:
        if not self._count:
            return [[] for _ in probes]
        if probes.shape[1] != self._vectors.shape[1]:
            raise InputError(
                f"the gallery has vectors of {self._vectors.shape[1]} numbers, "
                f"the probe has {probes.shape[1]}"
            )
        scores = probes @ self._vectors[: self._count].T
        return [self._best(row, limit) for row in scores]

    def _append(self, fresh: NDArray[np.float32]) -> None:
        needed = self._count + len(fresh)
        if needed > len(self._vectors):  # grow by doubling: n additions copy 2n rows in all
            grown = np.empty((max(needed, 2 * len(self._vectors)), fresh.shape[1]), np.float32)
            if self._count:
                grown[: self._count] = self._vectors[: self._count]
            self._vectors = grown
        self._vectors[self._count : needed] = fresh
        self._count = needed

    def _best(self, scores: NDArray[np.float32], limit: int) -> list[Match]:
        """The best template of each of the `limit` best subjects."""
        wanted = 4 * limit
        while True:
            wanted = min(wanted, len(scores))
            rows = np.argpartition(-scores, wanted - 1)[:wanted]
            found: dict[str, Match] = {}
            for row in rows[np.argsort(-scores[rows], kind="stable")]:
                subject = self._subjects[row]
                if subject not in found:
                    score = float(np.clip(scores[row], -1.0, 1.0))
                    found[subject] = Match(subject, self._templates[row], score)
            if len(found) >= limit or wanted == len(scores):
                return list(found.values())[:limit]
            wanted *= 4
