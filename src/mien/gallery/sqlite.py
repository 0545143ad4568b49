"""The embedded store: one SQLite file as the record, and codes of all templates for the search.

Durable: write-ahead log with synchronous=FULL, so what was acknowledged survives a killed process
and a power cut. Erasing: secure_delete overwrites what is deleted, the rows of the index file are
overwritten, and the log is emptied before `remove` returns. Several processes may read and write;
each notices what others did before it searches. Exact: the codes only say whose vectors to fetch
from the record and compare (see `mien.gallery.scan`).

Beside `people.mien` lie `people.mien-index/` (derived; may be deleted at any time),
`people.mien-key` (signs receipts of erasure) and SQLite's `-wal` and `-shm` while it is open.
"""

import secrets
import sqlite3
from collections.abc import Collection, Iterator, Sequence
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from mien.embedding import require_contract
from mien.errors import GalleryError, GalleryUnavailable, InputError, UnknownSubject
from mien.gallery import audit, damage, schema, sound
from mien.gallery.audit import Line, Receipt
from mien.gallery.cipher import AesGcm
from mien.gallery.database import Database
from mien.gallery.filters import Filters
from mien.gallery.index import Index
from mien.gallery.kernels import Kernel, fastest_kernel
from mien.gallery.rows import Rows
from mien.gallery.schema import DEFAULT_COLLECTION
from mien.gallery.store import Entry, Stats, Subject, Where, check_replacement, taken
from mien.types import Match, Progress, Template, silent

_BATCH = 4096


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
        self._kernel = kernel or fastest_kernel()
        self._name = collection
        if path.is_dir():
            raise GalleryUnavailable(str(path), "it is a folder; give the path of a file")
        if not path.exists():
            if not create:
                raise GalleryUnavailable(str(path), "it does not exist; 'mien enroll' makes it")
            if not path.parent.is_dir():
                raise GalleryUnavailable(str(path), f"the folder {path.parent} does not exist")
        self._database = Database(path)
        try:
            with self._database.translated():
                number, self._cipher = schema.prepare(self._database, create, collection, key)
        except BaseException:
            self._database.close()
            raise
        self._rows = Rows(number, self._cipher)
        self._filters = Filters(self._rows)
        self._index = self._new_index(number)

    def contract(self) -> str | None:
        with self._database.reading() as db:
            contract = self._rows.field(db, "contract")
            return None if contract is None else str(contract)

    def add(self, entries: Sequence[Entry]) -> list[Template]:
        with self._database.writing() as db:
            now = schema.now()
            templates = self._insert(db, entries, now)
            self._log(db, "add", None, len(entries), now)
        return templates

    def search(
        self, probes: NDArray[np.float32], limit: int, where: Where | None = None
    ) -> list[list[Match]]:
        with self._database.reading() as db:
            width = self._rows.field(db, "dimensions")
            if width and probes.shape[1] != width:
                raise InputError(
                    f"the gallery has vectors of {width} numbers, the probe has {probes.shape[1]}"
                )
            self._index.refresh(db)
            allowed = self._filters.allowed(db, where) if where else None
            found = self._index.search(db, probes, limit, allowed, where or {})
            missing = self._index.missing(db) if self._index.unchecked else 0
        if missing:
            self._tell_missing(missing)
        if self._index.wants_writing:
            self._write_index()
        return found

    def entries(self, after: int = 0, subject: str | None = None) -> Iterator[tuple[int, Entry]]:
        if subject is not None:
            with self._database.reading() as db:
                try:
                    found = self._rows.held(db, self._rows.known(db, subject))
                except UnknownSubject:
                    return
            yield from ((id_, entry) for id_, entry in found.items() if id_ > after)
            return
        whole, count, version = after == 0, 0, None
        while True:
            with self._database.reading() as db:
                stated = sound.collection(db, self._rows.collection)
                whole = whole and version in (None, stated["version"])
                version = stated["version"]
                page = sound.templates_after(db, self._rows.collection, after, _BATCH)
                if page is None:
                    break
                read, after = page
                found = self._rows.entries(db, read.told("template"))
            count += sum(not entry.negative for entry in found.values())
            yield from found.items()
        if whole and count != stated["templates"]:
            sound.warn(f"{count:,} of {stated['templates']:,} templates could be read")

    def subjects(self) -> list[Subject]:
        with self._database.reading() as db:
            counts = self._rows.counts(db)
            found = [
                Subject(name, counts[id_], created)
                for id_, (name, created) in self._rows.people(db, counts).items()
            ]
        return sorted(found, key=lambda subject: subject.name)

    def templates(self, subject: str) -> list[Template]:
        with self._database.reading() as db:
            row = self._rows.known(db, subject)
            rows = self._rows.templates_of(db, row).told("template")
        with self._database.translated():
            return [
                Template(
                    id_, subject, self._rows.open_text(source, "source", id_), quality, created
                )
                for id_, _, _, negative, quality, created, _, source, *_ in rows
                if not negative
            ]

    def remove(self, subject: str, templates: Collection[int] | None = None) -> int:
        return self.erase(subject, templates).templates

    def erase(self, subject: str, templates: Collection[int] | None = None) -> Receipt:
        """`remove`, with a signed receipt. Raises `UnknownSubject`."""
        with self._database.writing() as db:
            places = self._rows.everywhere(db, subject)
            gone = {rows.collection: rows.ids_of(db, row) for rows, row in places}
            if templates is not None:
                held = {rows.collection: rows.held(db, row) for rows, row in places}
                same = self._rows.of_same_pictures(held, templates)
                mine = set(gone[self._rows.collection]) & set(templates)  # also damaged ones
                gone = same | {self._rows.collection: sorted(mine)}
            for rows, _ in places:
                rows.delete(db, gone[rows.collection])
            count = sum(map(len, gone.values()))
            line = self._log(db, "remove", subject, count, schema.now())
            gallery = str(schema.meta(db, "gallery"))
        self._clear_traces(gone)
        receipt = Receipt(gallery, line.collection, line.subject, count, line.time, line.chain)
        return receipt.signed(self.receipt_key())

    def replace(self, subject: str, entries: Sequence[Entry]) -> list[Template]:
        check_replacement(subject, entries)
        gone: dict[int, list[int]] = {}
        with self._database.writing() as db:
            now = schema.now()
            if self._rows.find(db, subject) is not None:
                for rows, row in self._rows.everywhere(db, subject):
                    gone[rows.collection] = rows.ids_of(db, row)
                    rows.delete(db, gone[rows.collection])
            templates = self._insert(db, entries, now)
            self._log(db, "replace", subject, len(entries), now)
        if gone:
            self._clear_traces(gone)
        return templates

    def rename(self, subject: str, new: str, *, merge: bool = False) -> int:
        with self._database.writing() as db:
            places, now = self._rows.everywhere(db, subject), schema.now()
            held = {rows.collection: rows.held(db, row) for rows, row in places}
            for rows, row in places:
                if damaged := set(rows.ids_of(db, row)) - set(held[rows.collection]):
                    raise GalleryUnavailable(
                        str(self._path), f"{sound.named('template', sorted(damaged))} damaged; "
                        f"'mien gallery verify' says what to do",
                    )  # fmt: skip
            count = sum(map(len, held.values()))
            if new == subject:
                return count
            if not merge and self._rows.find(db, new) is not None:
                raise GalleryError(taken(subject, new))
            for rows, row in places:
                (since,) = db.execute("SELECT created FROM subject WHERE id = ?", (row,)).fetchone()
                found = held[rows.collection]
                rows.delete(db, list(found))
                moved = [replace(entry, subject=new) for entry in found.values()]
                rows.insert(db, moved, now)  # new ids: what is new is what is larger
                rows.since(db, new, since)
            self._log(db, "rename", subject, count, now)
        self._clear_traces({collection: list(found) for collection, found in held.items()})
        return count

    def expire(self) -> int:
        """Erase what is older than the retention period of the collection: how many templates."""
        with self._database.writing() as db:
            days = self._rows.field(db, "retention_days")
            if days is None:
                return 0
            oldest = (datetime.now(UTC) - timedelta(days=days)).isoformat(timespec="seconds")
            gone: dict[int, list[int]] = {}
            for rows in self._rows.generations(db):
                found = db.execute(
                    "SELECT id FROM template WHERE collection = ? AND created < ?",
                    (rows.collection, oldest),
                )
                if ids := [i for (i,) in found]:
                    gone[rows.collection] = ids
                    rows.delete(db, ids)
            count = sum(map(len, gone.values()))
            if count:
                self._log(db, "expire", None, count, schema.now())
        if count:
            self._clear_traces(gone)
        return count

    def retain(self, days: float | None) -> None:
        """Let templates live for so many days from when they were made; None: for ever."""
        if days is not None and not days > 0:
            raise InputError(f"a retention period is a positive number of days, got {days:g}")
        with self._database.writing() as db:
            sound.collection(db, self._rows.collection)
            db.execute(
                "UPDATE collection SET retention_days = ? WHERE id = ?",
                (days, self._rows.collection),
            )
            sound.seal(db, self._rows.collection)
            words = f"retain {days:g} days" if days else "retain for ever"
            self._log(db, words, None, 0, schema.now())

    def retention(self) -> float | None:
        """How many days templates live; None: for ever."""
        with self._database.reading() as db:
            days: float | None = self._rows.field(db, "retention_days")
            return days

    def history(self) -> list[Line]:
        """The audit log of the whole file, oldest first."""
        with self._database.reading() as db:
            lines = audit.written(db)
        if (number := audit.broken(lines)) is not None:
            sound.warn(f"line {number + 1} of the audit log was changed")
        return lines

    def receipt_key(self) -> bytes:
        """What signs receipts and makes the digests of names in the log."""
        return audit.key_at(self._beside("-key"))

    def collections(self) -> list[str]:
        """The names of all collections in the file."""
        with self._database.reading() as db:
            return [name for (name,) in db.execute("SELECT name FROM collection ORDER BY name")]

    def swap(self, other: str) -> None:
        """Exchange names with another collection of the file, in one step.

        Who opened either by its name keeps what it has open.
        """
        with self._database.writing() as db:
            row = db.execute("SELECT id FROM collection WHERE name = ?", (other,)).fetchone()
            if row is None:
                raise GalleryUnavailable(str(self._path), f"it has no collection {other!r}")
            mine, days = self._rows.field(db, "name"), self._rows.field(db, "retention_days")
            sound.collection(db, row[0])
            rename = "UPDATE collection SET name = ?, retention_days = ? WHERE id = ?"
            db.execute(rename, (secrets.token_hex(16), days, row[0]))
            db.execute(rename, (other, days, self._rows.collection))
            db.execute(rename, (mine, days, row[0]))
            for id_ in (self._rows.collection, row[0]):
                sound.seal(db, id_)
            self._log(db, f"swap with {other}", None, 0, schema.now())

    def drop(self) -> int:
        """Erase the whole collection: how many templates."""
        with self._database.writing() as db:
            rows = db.execute(
                "SELECT id FROM template WHERE collection = ?", (self._rows.collection,)
            )
            ids = [i for (i,) in rows]
            self._rows.delete(db, ids)
            self._log(db, "drop", None, len(ids), schema.now())
        self._clear_traces({self._rows.collection: ids})
        return len(ids)

    def check(self, progress: Progress = silent) -> list[str]:
        """What is wrong with the files, in words; nothing when all is well."""
        with self._database.reading() as db:
            return damage.problems(db, self._rows, progress)

    def rekey(self, key: bytes) -> None:
        """Let `key` open the gallery from now on instead of the present key."""
        if not isinstance(self._cipher, AesGcm):
            raise GalleryUnavailable(
                str(self._path), "it is not encrypted; 'mien gallery migrate' to one that is"
            )
        with self._database.writing() as db:
            wrapped = self._cipher.wrapped(key, str(schema.meta(db, "gallery")))
            db.execute("UPDATE meta SET value = ? WHERE key = 'data_key'", (wrapped.hex(),))
            self._log(db, "rekey", None, 0, schema.now())
        self._database.empty_log()

    def __len__(self) -> int:
        with self._database.reading() as db:
            return int(self._rows.field(db, "templates"))

    def compact(self) -> None:
        self._database.compact()
        self._rebuild_index()

    def stats(self) -> Stats:
        with self._database.reading() as db:
            row = sound.collection(db, self._rows.collection)
        files = [self._beside(end) for end in ("", "-wal", "-shm", "-key")]
        files += self._beside("-index").glob("*")
        size = sum(file.stat().st_size for file in files if file.exists())
        return Stats(
            str(self._path), row["subjects"], row["templates"], row["dimensions"], size,
            row["contract"],
        )  # fmt: skip

    def close(self) -> None:
        with self._database.lock:
            self._database.close()
            self._index.close()

    # -- traces and the log

    def _insert(self, db: sqlite3.Connection, entries: Sequence[Entry], now: str) -> list[Template]:
        contract = entries[0].embedding.contract
        dimensions = len(entries[0].embedding.vector)
        if any(entry.crop for entry in entries) and not self._cipher.sealed:
            raise InputError("pictures of faces are only kept in an encrypted gallery")
        collection = sound.collection(db, self._rows.collection)
        known, width = collection["contract"], collection["dimensions"]
        if known is not None:
            require_contract(known, contract)
        lengths = {entry.embedding.vector.size for entry in entries} | {width or dimensions}
        if len(lengths) > 1:
            raise InputError(f"vectors of one gallery have one length, got {sorted(lengths)}")
        db.execute(
            "UPDATE collection SET contract = ?, dimensions = ? WHERE id = ?",
            (contract, dimensions, self._rows.collection),
        )
        return self._rows.insert(db, entries, now)

    def _clear_traces(self, gone: dict[int, list[int]]) -> None:
        """What was deleted from the record goes from the indexes, their files and the log."""
        with self._database.writing() as db:  # the lock of the index files
            for collection, ids in gone.items():
                mine = collection == self._rows.collection
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
        self._database.empty_log()

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

    # -- index

    def _new_index(self, collection: int) -> Index:
        path = None
        if not self._cipher.sealed:  # codes are as telling as vectors: those of a sealed gallery
            path = self._beside("-index") / str(collection)  # stay in memory
        return Index(Rows(collection, self._cipher), path, self._kernel)

    def _tell_missing(self, missing: int) -> None:
        try:
            with self._database.writing() as db:  # while nobody erases
                self._index.refresh(db)
                missing = self._index.missing(db)
        except GalleryUnavailable:  # it may only be read
            pass
        if missing > 0:
            sound.warn(f"{missing:,} of its templates take no part in searches")

    def _write_index(self) -> None:
        try:
            with self._database.writing() as db:
                self._index.write(db)
        except (GalleryUnavailable, OSError):  # read-only, or a full disk: it is only a copy
            self._index.do_without_file()

    def _rebuild_index(self) -> None:
        with self._database.lock:
            self._index.close()
            folder = self._beside("-index")
            if folder.is_dir():
                for file in folder.iterdir():
                    file.unlink()
            self._index = self._new_index(self._rows.collection)

    def _beside(self, end: str) -> Path:
        return self._path.with_name(self._path.name + end)
