"""Galleries in PostgreSQL with pgvector, beside a team's other data.

Search is exact: a parallel scan of one collection, which has a table of its own, so that a filter
never meets the vectors of others. A graph index would miss 2 to 3 % of enrolled people, and half
the rows under a filter. Measured here at 100,000 templates of 512 numbers a scan takes 25 to 50 ms
of processor time.

Everything lives in the schema `mien` of the database. Credentials, TLS and timeouts come from the
URI and from libpq's environment (PGPASSWORD, PGSSLMODE, PGSSLROOTCERT, ...).

What `remove` deletes is gone for every query at once, and from the tables' files after `compact`;
the server's own log keeps it until it is recycled, as do backups: that is the server's to arrange.
"""

import hashlib
import secrets
import threading
from collections.abc import Callable, Collection, Iterator, Sequence
from contextlib import contextmanager
from datetime import UTC, datetime
from types import ModuleType
from typing import Any, TypeVar
from urllib.parse import urlsplit

import numpy as np
from numpy.typing import NDArray

from mien.embedding import require_contract
from mien.errors import GalleryError, GalleryUnavailable, InputError, MissingExtra, UnknownSubject
from mien.gallery.store import Entry, Stats, Subject, Where, arrivals, check_replacement, taken
from mien.types import Embedding, Match, Template

_SCHEMA = 1
_BATCH = 4096
_TIMEOUT_SECONDS = 30
_LOCK = 0x6D69656E  # "mien": serialises making the tables, and writers of one collection

_TABLES = """
CREATE EXTENSION IF NOT EXISTS vector;
CREATE SCHEMA IF NOT EXISTS mien;
CREATE TABLE mien.meta (key text PRIMARY KEY, value text NOT NULL);
CREATE TABLE mien.collection (
    id integer GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    name text NOT NULL UNIQUE,
    contract text,
    dimensions integer NOT NULL DEFAULT 0,
    subjects bigint NOT NULL DEFAULT 0,
    templates bigint NOT NULL DEFAULT 0,
    created timestamptz NOT NULL DEFAULT now()
);
CREATE TABLE mien.subject (
    id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    collection integer NOT NULL REFERENCES mien.collection,
    name text NOT NULL,
    name_sha256 bytea NOT NULL,  -- names may be longer than what an index can hold
    created timestamptz NOT NULL DEFAULT now(),
    UNIQUE (collection, name_sha256)
);
CREATE SEQUENCE mien.template_id;
"""

_TEMPLATE = """
CREATE TABLE mien.{table} (
    id bigint PRIMARY KEY,
    subject bigint NOT NULL REFERENCES mien.subject,
    negative boolean NOT NULL,
    quality double precision NOT NULL,
    created timestamptz NOT NULL,
    vector vector({dimensions}) NOT NULL,
    source text NOT NULL,
    source_sha256 text NOT NULL,
    metadata jsonb NOT NULL
);
ALTER TABLE mien.{table} ALTER COLUMN vector SET STORAGE PLAIN;
CREATE INDEX ON mien.{table} (subject, negative);
"""  # PLAIN: kept in the row, as long as it fits in a page, and not looked up one by one

T = TypeVar("T")


class PostgresStore:
    """One collection in a database. Raises `GalleryUnavailable` when it cannot be used."""

    def __init__(self, uri: str, create: bool = True, collection: str = "default") -> None:
        self._psycopg, self._register = _client()
        self._uri = uri
        self._shown = _without_password(uri)
        self._name = collection
        self._lock = threading.RLock()
        self._closed = False
        self._connection = self._connect()
        try:
            self._prepare(create)
        except BaseException:
            self._connection.close()
            raise

    def contract(self) -> str | None:
        return self._read(lambda db: self._state(db)[0])

    def add(self, entries: Sequence[Entry]) -> list[Template]:
        with self._changing() as db:
            return self._add(db, entries)

    def _add(self, db: Any, entries: Sequence[Entry]) -> list[Template]:
        contract = entries[0].embedding.contract
        dimensions = entries[0].embedding.vector.size
        if any("\0" in text for e in entries for text in (e.subject, e.source)):
            raise InputError("PostgreSQL keeps no text with a NUL character in it")
        if any(entry.crop for entry in entries):
            raise InputError("pictures of faces are only kept in an encrypted, embedded gallery")
        if any(abs(float(e.embedding.vector @ e.embedding.vector) - 1) > 1e-3 for e in entries):
            raise InputError("vectors in a gallery have the length 1; see mien.embedding.normalize")
        known, width = self._state(db)
        if known is not None:
            require_contract(known, contract)
        lengths = {entry.embedding.vector.size for entry in entries} | {width or dimensions}
        if len(lengths) > 1:
            raise InputError(f"vectors of one gallery have one length, got {sorted(lengths)}")
        if known is None:
            db.execute(_TEMPLATE.format(table=self._table, dimensions=int(dimensions)))
        subjects, fresh = self._subjects(db, entries)
        templates = self._insert(db, entries, subjects)
        db.execute(
            "UPDATE mien.collection SET contract = %s, dimensions = %s WHERE id = %s",
            (contract, dimensions, self._collection),
        )
        self._count(db, fresh, sum(not entry.negative for entry in entries))
        return templates

    def search(
        self, probes: NDArray[np.float32], limit: int, where: Where | None = None
    ) -> list[list[Match]]:
        def run(db: Any) -> list[list[Match]]:
            contract, width = self._state(db)
            if contract is None:
                return [[] for _ in probes]
            if probes.shape[1] != width:
                raise InputError(
                    f"the gallery has vectors of {width} numbers, the probe has {probes.shape[1]}"
                )
            return [self._search(db, probe, limit, where or {}) for probe in probes]

        return self._read(run)

    def entries(self, after: int = 0, subject: str | None = None) -> Iterator[tuple[int, Entry]]:
        of, whom = ("", ()) if subject is None else ("AND s.name_sha256 = %s", (_digest(subject),))

        def batch(db: Any) -> tuple[str, list[Any]]:
            contract, _ = self._state(db)
            if contract is None:
                return "", []
            return contract, db.execute(
                f"SELECT t.id, s.name, vector, source, source_sha256, metadata, quality, negative, "
                f"t.created FROM mien.{self._table} t JOIN mien.subject s ON s.id = t.subject "
                f"WHERE t.id > %s {of} ORDER BY t.id LIMIT {_BATCH}", (after, *whom),
            ).fetchall()  # fmt: skip

        while True:
            contract, rows = self._read(batch)
            for id_, name, vector, source, sha256, metadata, quality, negative, created in rows:
                found = Embedding(np.asarray(_numbers(vector), np.float32), contract)
                yield (
                    id_,
                    Entry(name, found, source, quality, metadata, negative, sha256, _iso(created)),
                )
            if len(rows) < _BATCH:
                return
            after = rows[-1][0]

    def subjects(self) -> list[Subject]:
        def run(db: Any) -> list[Subject]:
            if self._state(db)[0] is None:
                return []
            rows = db.execute(
                f"SELECT s.name, count(*) FILTER (WHERE NOT negative), min(s.created) "
                f"FROM mien.subject s JOIN mien.{self._table} t ON t.subject = s.id GROUP BY s.id"
            )
            return sorted(
                (Subject(name, count, _iso(created)) for name, count, created in rows),
                key=lambda subject: subject.name,
            )

        return self._read(run)

    def templates(self, subject: str) -> list[Template]:
        def run(db: Any) -> list[Template]:
            id_ = self._subject(db, subject)
            rows = db.execute(
                f"SELECT id, source, quality, created FROM mien.{self._table} "
                f"WHERE subject = %s AND NOT negative ORDER BY id",
                (id_,),
            )
            return [Template(i, subject, source, q, _iso(made)) for i, source, q, made in rows]

        return self._read(run)

    def remove(self, subject: str, templates: Collection[int] | None = None) -> int:
        with self._changing() as db:
            return self._delete(db, self._subject(db, subject), templates)

    def _delete(self, db: Any, id_: int, templates: Collection[int] | None = None) -> int:
        rows = db.execute(
            f"DELETE FROM mien.{self._table} WHERE subject = %s "
            f"AND (%s::bigint[] IS NULL OR id = ANY(%s)) RETURNING negative",
            (id_, *2 * [None if templates is None else list(templates)]),
        ).fetchall()
        gone = db.execute(
            f"DELETE FROM mien.subject WHERE id = %s AND NOT EXISTS "
            f"(SELECT FROM mien.{self._table} WHERE subject = %s)", (id_, id_)
        ).rowcount  # fmt: skip
        self._count(db, -gone, -sum(not negative for (negative,) in rows))
        return len(rows)

    def replace(self, subject: str, entries: Sequence[Entry]) -> list[Template]:
        check_replacement(subject, entries)
        with self._changing() as db:
            if (id_ := self._find(db, subject)) is not None:
                self._delete(db, id_)
            return self._add(db, entries)

    def rename(self, subject: str, new: str, *, merge: bool = False) -> int:
        if "\0" in new:
            raise InputError("PostgreSQL keeps no text with a NUL character in it")
        with self._changing() as db:
            old = self._subject(db, subject)
            if not merge and self._find(db, new) not in (None, old):
                raise GalleryError(taken(subject, new))
            fresh = db.execute(
                "INSERT INTO mien.subject (collection, name, name_sha256, created) "
                "SELECT collection, %s, %s, created FROM mien.subject WHERE id = %s "
                "ON CONFLICT DO NOTHING", (new, _digest(new), old),
            ).rowcount  # fmt: skip
            moved = db.execute(
                f"UPDATE mien.{self._table} SET id = nextval('mien.template_id'), subject = %s "
                f"WHERE subject = %s", (self._subject(db, new), old),
            ).rowcount  # fmt: skip
            if new != subject:
                db.execute("DELETE FROM mien.subject WHERE id = %s", (old,))
                self._count(db, fresh - 1, 0)
            return int(moved)

    def __len__(self) -> int:
        def run(db: Any) -> int:
            row = db.execute(
                "SELECT templates FROM mien.collection WHERE id = %s", (self._collection,)
            )
            return int(row.fetchone()[0])

        return self._read(run)

    def compact(self) -> None:
        """Rewrite the tables without what was deleted; they are locked meanwhile."""
        with self._lock, self._translated():
            tables = ["mien.subject"]
            if self._read(lambda db: self._state(db)[0]) is not None:
                tables.append(f"mien.{self._table}")
            self._connection.autocommit = True
            try:
                for table in tables:
                    self._connection.execute(f"VACUUM (FULL, ANALYZE) {table}")
            finally:
                self._connection.autocommit = False

    def stats(self) -> Stats:
        def run(db: Any) -> Stats:
            subjects, templates, dimensions, contract, size = db.execute(
                "SELECT subjects, templates, dimensions, contract, "
                "coalesce(pg_total_relation_size(to_regclass(%s)), 0) "
                "FROM mien.collection WHERE id = %s", (f"mien.{self._table}", self._collection),
            ).fetchone()  # fmt: skip
            return Stats(self._shown, subjects, templates, dimensions, size, contract)

        return self._read(run)

    def close(self) -> None:
        with self._lock:
            self._closed = True
            self._connection.close()

    @contextmanager
    def _changing(self) -> Iterator[Any]:
        """A transaction of the one writer that a collection has at a time."""
        with self._writing() as db:
            db.execute("SELECT pg_advisory_xact_lock(%s, %s)", (_LOCK, self._collection))
            yield db

    # -- opening

    def _connect(self) -> Any:
        with self._translated():
            connection = self._psycopg.connect(
                self._uri.replace("postgres://", "postgresql://", 1),
                connect_timeout=10,
                options=f"-c statement_timeout={_TIMEOUT_SECONDS}s -c idle_session_timeout=0",
                application_name="mien",
            )
            connection.isolation_level = self._psycopg.IsolationLevel.READ_COMMITTED
            return connection

    def _prepare(self, create: bool) -> None:
        with self._writing() as db:
            db.execute("SELECT pg_advisory_xact_lock(%s, 0)", (_LOCK,))
            if db.execute("SELECT to_regclass('mien.meta')").fetchone()[0] is None:
                if not create:
                    raise GalleryUnavailable(
                        self._shown, "it has no gallery; 'mien enroll' makes it"
                    )
                db.execute(_TABLES)
                db.execute(
                    "INSERT INTO mien.meta VALUES ('schema', %s), ('gallery', %s)",
                    (str(_SCHEMA), secrets.token_hex(16)),
                )
            schema = int(
                db.execute("SELECT value FROM mien.meta WHERE key = 'schema'").fetchone()[0]
            )
            if schema > _SCHEMA:
                raise GalleryUnavailable(
                    self._shown,
                    f"it was written by a newer mien (format {schema}, this one reads {_SCHEMA}); "
                    f"upgrade mien",
                )
            find = "SELECT id FROM mien.collection WHERE name = %s"
            row = db.execute(find, (self._name,)).fetchone()
            if row is None:
                if not create:
                    raise GalleryUnavailable(
                        self._shown, f"it has no collection {self._name!r}; 'mien enroll' makes it"
                    )
                db.execute("INSERT INTO mien.collection (name) VALUES (%s)", (self._name,))
                row = db.execute(find, (self._name,)).fetchone()
            self._collection = int(row[0])
            self._table = f"template_{self._collection}"

    # -- rows

    def _state(self, db: Any) -> tuple[str | None, int]:
        """Contract and dimensions; there is a table of templates when there is a contract."""
        row: tuple[str | None, int] = db.execute(
            "SELECT contract, dimensions FROM mien.collection WHERE id = %s", (self._collection,)
        ).fetchone()
        return row

    def _count(self, db: Any, subjects: int, templates: int) -> None:
        """Add to what the collection says of its size."""
        db.execute(
            "UPDATE mien.collection SET subjects = subjects + %s, templates = templates + %s "
            "WHERE id = %s", (subjects, templates, self._collection),
        )  # fmt: skip

    def _find(self, db: Any, name: str) -> int | None:
        row = db.execute(
            "SELECT id FROM mien.subject WHERE collection = %s AND name_sha256 = %s",
            (self._collection, _digest(name)),
        ).fetchone()
        return None if row is None else int(row[0])

    def _subject(self, db: Any, name: str) -> int:
        id_ = self._find(db, name)
        if id_ is None:
            raise UnknownSubject(name)
        return id_

    def _subjects(self, db: Any, entries: Sequence[Entry]) -> tuple[dict[str, int], int]:
        """The row of each subject, and how many are new."""
        since = arrivals(entries, datetime.now(UTC).isoformat())
        names = list(since)
        fresh = db.execute(
            "INSERT INTO mien.subject (collection, name, name_sha256, created) SELECT %s, * "
            "FROM unnest(%s::text[], %s::bytea[], %s::timestamptz[]) ON CONFLICT DO NOTHING",
            (self._collection, names, [_digest(name) for name in names], list(since.values())),
        ).rowcount
        rows = db.execute(
            "SELECT name, id FROM mien.subject WHERE collection = %s AND name_sha256 = ANY(%s)",
            (self._collection, [_digest(name) for name in names]),
        )
        return dict(rows.fetchall()), fresh

    def _insert(
        self, db: Any, entries: Sequence[Entry], subjects: dict[str, int]
    ) -> list[Template]:
        now = datetime.now(UTC)
        ids = db.execute(
            "SELECT nextval('mien.template_id') FROM generate_series(1, %s)", (len(entries),)
        ).fetchall()
        types = ["int8", "int8", "bool", "float8", "timestamptz", "vector", "text", "text", "jsonb"]
        from pgvector import Vector
        from psycopg.types.json import Jsonb

        templates = []
        copying = f"COPY mien.{self._table} FROM STDIN WITH (FORMAT BINARY)"
        with db.cursor() as cursor, cursor.copy(copying) as copy:
            copy.set_types(types)
            for (id_,), entry in zip(ids, entries, strict=True):
                created = datetime.fromisoformat(entry.created) if entry.created else now
                source = entry.source.encode("utf-8", "backslashreplace").decode()
                copy.write_row((
                    id_, subjects[entry.subject], entry.negative, entry.quality, created,
                    Vector(entry.embedding.vector), source, entry.source_sha256,
                    Jsonb(dict(entry.metadata)),
                ))  # fmt: skip
                templates.append(Template(id_, entry.subject, source, entry.quality, _iso(created)))
        return templates

    def _search(self, db: Any, probe: NDArray[np.float32], limit: int, where: Where) -> list[Match]:
        from pgvector import Vector

        condition, values = _condition(where)
        asked = Vector(probe)
        wanted = 4 * limit + 16
        while True:
            rows = db.execute(
                f"SELECT id, subject, vector FROM mien.{self._table} "
                f"WHERE NOT negative {condition} ORDER BY vector <#> %s LIMIT %s",
                (*values, asked, wanted),
            ).fetchall()
            if not rows:
                return []
            ids, subjects, vectors = zip(*rows, strict=True)
            scores = np.stack([_numbers(vector) for vector in vectors]) @ probe
            best: dict[int, int] = {}
            for row in np.lexsort((ids, -scores)):
                best.setdefault(subjects[row], int(row))
            against = db.execute(
                f"SELECT subject, max(-(vector <#> %s)) FROM mien.{self._table} "
                f"WHERE negative AND subject = ANY(%s) GROUP BY subject",
                (asked, list(best)),
            ).fetchall()
            ruled_out = {s for s, score in against if score > scores[best[s]]}
            chosen = [(s, row) for s, row in best.items() if s not in ruled_out][:limit]
            if len(chosen) < limit and len(rows) == wanted:
                wanted *= 8
                continue
            names = dict(
                db.execute(
                    "SELECT id, name FROM mien.subject WHERE id = ANY(%s)",
                    ([s for s, _ in chosen],),
                ).fetchall()
            )
            return [
                Match(names[s], ids[row], float(np.clip(scores[row], -1.0, 1.0)))
                for s, row in chosen
            ]

    # -- transactions

    def _read(self, question: Callable[[Any], T]) -> T:
        """The answer from one snapshot; asked once more when the connection had been lost."""
        with self._lock:
            for attempt in (1, 2):
                try:
                    with self._writing("REPEATABLE READ, READ ONLY") as db:
                        return question(db)
                except GalleryUnavailable:
                    if attempt == 2 or self._closed or not self._connection.broken:
                        raise
                    self._connection = self._connect()
        raise AssertionError("unreachable")

    @contextmanager
    def _writing(self, mode: str = "READ COMMITTED, READ WRITE") -> Iterator[Any]:
        """One transaction: committed, and on disk, when the block ends; undone if it raises."""
        with self._lock, self._translated():
            if self._connection.broken and not self._closed:
                self._connection = self._connect()
            with self._connection.transaction():
                self._connection.execute(f"SET TRANSACTION ISOLATION LEVEL {mode}")
                self._ensure_vector()
                yield self._connection

    def _ensure_vector(self) -> None:
        """Teach this connection the type `vector`, once the extension is there."""
        if (
            self._connection.adapters.types.get("vector") is None
            and self._connection.execute(
                "SELECT 1 FROM pg_type WHERE typname = 'vector'"
            ).fetchone()
        ):
            self._register(self._connection)

    @contextmanager
    def _translated(self) -> Iterator[None]:
        try:
            yield
        except self._psycopg.Error as error:
            reason = "it was closed already" if getattr(self, "_closed", False) else str(error)
            raise GalleryUnavailable(self._shown, reason.strip()) from error


def _condition(where: Where) -> tuple[str, list[object]]:
    parts = ""
    values: list[object] = []
    for key, wanted in where.items():
        parts += " AND metadata ->> %s = ANY(%s)"
        values += [key, [wanted] if isinstance(wanted, str) else list(wanted)]
    return parts, values


def _numbers(vector: Any) -> NDArray[np.float32]:
    found = vector if isinstance(vector, np.ndarray) else vector.to_numpy()
    return np.asarray(found, np.float32)


def _digest(name: str) -> bytes:
    return hashlib.sha256(name.encode("utf-8", "surrogatepass")).digest()


def _iso(moment: datetime) -> str:
    return moment.astimezone(UTC).isoformat(timespec="seconds")


def _without_password(uri: str) -> str:
    parts = urlsplit(uri)
    user, at, host = parts.netloc.rpartition("@")
    return f"{parts.scheme}://{user.partition(':')[0]}{at}{host}{parts.path}"


def _client() -> tuple[ModuleType, Any]:
    try:
        import psycopg
        from pgvector.psycopg import register_vector
    except ImportError as error:
        raise MissingExtra("a gallery in PostgreSQL", "postgres") from error
    return psycopg, register_vector
