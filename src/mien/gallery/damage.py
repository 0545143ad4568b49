"""What is damaged in an embedded gallery."""

import re
import sqlite3
import warnings
from collections.abc import Iterator
from itertools import islice

from mien.errors import GalleryDamaged, GalleryUnavailable
from mien.gallery import audit, sound
from mien.gallery.rows import Rows
from mien.gallery.sound import SUBJECT
from mien.gallery.store import Entry
from mien.types import Progress

_BATCH = 4096
_ENOUGH = 100  # problems of a kind


def problems(db: sqlite3.Connection, rows: Rows, progress: Progress) -> list[str]:
    """Everything that is wrong with a collection and its file, in words. Reads every row."""
    found = [*_structure(db), *_name(db), *_log(db)]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", GalleryDamaged)  # it is all said here
        try:
            found += islice(_templates(db, rows, progress), _ENOUGH)
        except (sqlite3.DatabaseError, ValueError) as error:
            if isinstance(error, sqlite3.DatabaseError) and not sound.of_damage(error):
                raise
            found.append(f"the rest cannot be read: {error}")
    return found


def _templates(db: sqlite3.Connection, rows: Rows, progress: Progress) -> Iterator[str]:
    """Of each damaged template, whose it is; and whether all are there."""
    last, seen, stated = 0, 0, rows.field(db, "templates")
    for id_, entry in progress(_entries(db, rows), stated, "template"):
        if entry is None:
            yield f"template {id_} is damaged{_whose(db, rows, id_)}"
        else:
            yield from _contradictions(db, rows, id_, entry)
            last, seen = max(last, id_), seen + (not entry.negative)
    if sound.newest(db) < last:
        yield "the counter of templates is damaged"
    if stated != seen:
        yield f"{stated} templates are counted and {seen} can be read"


def _entries(db: sqlite3.Connection, rows: Rows) -> Iterator[tuple[int, Entry | None]]:
    """Every template by id, None where it is damaged."""
    after = 0
    while page := sound.templates_after(db, rows.collection, after, _BATCH):
        read, after = page
        entries = rows.entries(db, read.rows)
        bad = {row[0] for row in read.rows} - set(entries) | set(read.damaged)
        yield from ((id_, None) for id_ in sorted(bad))
        yield from entries.items()


def _structure(db: sqlite3.Connection) -> Iterator[str]:
    """What SQLite finds, with tables and indexes by name."""
    names = {
        str(root): f"{kind} {name}, "
        for kind, name, root in db.execute("SELECT type, name, rootpage FROM sqlite_master")
    }
    try:
        for (text,) in db.execute(f"PRAGMA integrity_check({_ENOUGH})").fetchall():
            if text != "ok":
                clear = re.sub(r"Tree (\d+) ", lambda tree: names.get(tree[1], tree[0]), text)
                yield f"the file is damaged: {clear}"
    except sqlite3.DatabaseError as error:
        if not sound.of_damage(error):
            raise
        yield f"the file is damaged: {error}"


def _name(db: sqlite3.Connection) -> Iterator[str]:
    """Whether the gallery knows which it is, as receipts and the index file say."""
    row = db.execute("SELECT CAST(value AS BLOB) FROM meta WHERE key = 'gallery'").fetchone()
    if row is None or not re.fullmatch(rb"[0-9a-f]{32}", row[0]):
        yield "the gallery's own identifier is damaged"


def _log(db: sqlite3.Connection) -> Iterator[str]:
    try:
        lines = audit.written(db)
        if (line := audit.broken(lines)) is not None:
            yield f"line {line + 1} of the audit log was changed"
        row = db.execute("SELECT seq FROM sqlite_sequence WHERE name = 'audit'").fetchone()
        if (written := row[0] if row else 0) != len(lines):
            yield f"{written} lines were written to the audit log and {len(lines)} are there"
    except sqlite3.DatabaseError as error:
        if not sound.of_damage(error):
            raise
        yield f"the audit log cannot be read: {error}"


def _contradictions(db: sqlite3.Connection, rows: Rows, id_: int, entry: Entry) -> Iterator[str]:
    vector = entry.embedding.vector
    if not abs(float(vector @ vector) - 1.0) < 2e-3:
        yield f"the vector of template {id_} does not have the length 1"
    if rows.tags_of(db, id_) != rows.tags(entry.metadata):
        yield f"filters do not know the metadata of template {id_} as they are"


def _whose(db: sqlite3.Connection, rows: Rows, id_: int) -> str:
    """Whose template it is, and of which picture, as far as that can still be read."""
    said = []
    try:  # an index knows the subject as well, in another place of the file
        ask = "SELECT subject FROM template INDEXED BY template_subject WHERE id = ?"
        subjects = [subject for (subject,) in db.execute(ask, (id_,))]
        for _, _, _, name, *_ in sound.by_key(db, SUBJECT, subjects).rows:
            said.append(f"of {rows.open_text(name, 'name', subjects[0])!r}")
        ((source,),) = db.execute("SELECT source FROM template WHERE id = ?", (id_,)).fetchall()
        said.append(f"from {rows.open_text(source, 'source', id_)}")
    except (sqlite3.DatabaseError, GalleryUnavailable, ValueError, TypeError, AttributeError):
        pass  # what is left unsaid is damaged
    return f": {', '.join(said)}" if said else ""
