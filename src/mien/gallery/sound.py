"""Rows as they were written: each has a checksum of its other columns, and is read with it.

What is read is right, or it is left out and named by a `GalleryDamaged` warning. A page that SQLite
cannot make sense of costs what is on it and no more.
"""

import json
import sqlite3
import struct
import warnings
import zlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from mien.errors import GalleryDamaged

Row = tuple[Any, ...]

_MOST = 1 << 31  # templates: more is a damaged number
_NAMED = 10  # of many damaged rows, how many a warning names
_numbers = struct.Struct("<qqqqd").pack


@dataclass(frozen=True, slots=True)
class Table:
    """A table whose rows have sums: its columns but the last, `sum`, and what makes that of a row.

    The first column is the integer key. The sum is made of a row with or without one.
    """

    name: str
    columns: str
    sum_of: Callable[[Row], int]

    @property
    def select(self) -> str:
        """Reads whole rows, sum last."""
        return f"SELECT {self.columns}, sum FROM {self.name}"


def _template_sum(row: Row) -> int:
    id_, collection, subject, negative, quality, created, vector, source, sha256, metadata = row[
        :10
    ]
    numbers = _numbers(id_, collection, subject, negative, quality)
    return zlib.crc32(vector, zlib.crc32(numbers + created.encode() + source + sha256 + metadata))


def _subject_sum(row: Row) -> int:
    id_, collection, lookup, name, created = row[:5]
    return zlib.crc32(b"%d %d %s %b %b" % (id_, collection, created.encode(), lookup, name))


def _collection_sum(row: Row) -> int:
    return zlib.crc32(repr(row[:10]).encode())


TEMPLATE = Table(
    "template",
    "id, collection, subject, negative, quality, created, vector, source, source_sha256, metadata",
    _template_sum,
)
SUBJECT = Table("subject", "id, collection, lookup, name, created", _subject_sum)
COLLECTION = Table(
    "collection",
    "id, name, contract, dimensions, version, erasures, subjects, templates, retention_days, "
    "created",
    _collection_sum,
)


@dataclass(frozen=True, slots=True)
class Read:
    """Sound rows, and the keys of those that are damaged."""

    rows: list[Row]
    damaged: list[int]

    def told(self, kind: str) -> list[Row]:
        """The rows; with a warning that names the others."""
        if self.damaged:
            warn(f"{named(kind, self.damaged)} damaged and left out")
        return self.rows


def warn(what: str) -> None:
    """Say what is damaged."""
    warnings.warn(GalleryDamaged(what), stacklevel=3)


def named(kind: str, keys: Sequence[int]) -> str:
    """Such as "templates 3, 4 and 12 more are"."""
    some = ", ".join(map(str, keys[:_NAMED]))
    more = f" and {len(keys) - _NAMED:,} more" if len(keys) > _NAMED else ""
    return f"{kind} {some} is" if len(keys) == 1 else f"{kind}s {some}{more} are"


def is_sound(table: Table, row: Row) -> bool:
    """Whether the sum, the last column, is that of the others."""
    try:
        return bool(table.sum_of(row) == row[-1])
    except (TypeError, ValueError, AttributeError, struct.error):  # not even of the right types
        return False


def by_key(db: sqlite3.Connection, table: Table, keys: Sequence[int]) -> Read:
    """The rows with these keys, in no order; keys that are not there are left out."""
    key = table.columns.partition(",")[0]
    try:
        rows = db.execute(
            f"{table.select} WHERE {key} IN (SELECT value FROM json_each(?))",
            (json.dumps(list(keys)),),
        ).fetchall()
    except sqlite3.DatabaseError as error:
        if not of_damage(error):
            raise
        return _one_by_one(db, table, keys)
    return sorted_out(table, rows)


def templates_after(
    db: sqlite3.Connection, collection: int, after: int, limit: int
) -> tuple[Read, int] | None:
    """The next templates of a collection, by id, at most `limit`, and the last id looked at.

    None when there are no more. They are read along the table and held against the index, which
    has pages of its own: what either has lost is found by the other.
    """
    listed = _listed(db, collection, after, limit)
    read, last = Read([], []), None
    try:
        rows = db.execute(
            f"{TEMPLATE.select} NOT INDEXED WHERE id > ? ORDER BY id LIMIT ?", (after, limit)
        ).fetchall()
        read, last = sorted_out(TEMPLATE, rows), rows[-1][0] if len(rows) == limit else _MOST
    except sqlite3.DatabaseError as error:
        if not of_damage(error):
            raise
    mine = [row for row in read.rows if row[1] == collection]
    ids = [row[0] for row in mine]
    agreed = last is not None and (listed is None or ids == [id_ for id_ in listed if id_ <= last])
    if agreed and not read.damaged:
        return (Read(mine, []), rows[-1][0]) if rows else None
    if listed is None:
        wanted: Sequence[int] = range(after + 1, min(after + limit, newest(db)) + 1)
    else:
        wanted = sorted({*listed, *ids})[:limit]
    if not wanted:
        return None
    read = _one_by_one(db, TEMPLATE, wanted)
    lost = read.damaged if listed is None else {*wanted}.difference(row[0] for row in read.rows)
    return Read([row for row in read.rows if row[1] == collection], sorted(lost)), wanted[-1]


def newest(db: sqlite3.Connection) -> int:
    """The largest template id that was ever given in the file."""
    row = db.execute("SELECT seq FROM sqlite_sequence WHERE name = 'template'").fetchone()
    last = int(row[0]) if row else 0
    if not 0 <= last < _MOST:
        raise ValueError(f"{last:,} templates were never enrolled")
    return last


def collection(db: sqlite3.Connection, id_: int) -> dict[str, Any]:
    """The row of a collection, by column. Raises `ValueError` when it is damaged."""
    row = db.execute(f"{COLLECTION.select} WHERE id = ?", (id_,)).fetchone()
    if row is None or not is_sound(COLLECTION, row):
        raise ValueError(f"the row of collection {id_} is damaged")
    return dict(zip(COLLECTION.columns.split(", "), row, strict=False))


def seal(db: sqlite3.Connection, id_: int) -> None:
    """Give the row of a collection, which was sound and has been changed, its sum."""
    select = f"SELECT {COLLECTION.columns} FROM collection WHERE id = ?"
    total = COLLECTION.sum_of(db.execute(select, (id_,)).fetchone())
    db.execute("UPDATE collection SET sum = ? WHERE id = ?", (total, id_))


def seal_all(db: sqlite3.Connection) -> None:
    """Give every row its sum, whatever it holds: rows of an older format had none."""
    for table in (COLLECTION, SUBJECT, TEMPLATE):
        keys = [key for (key,) in db.execute(f"SELECT id FROM {table.name}")]
        for key in keys:
            row = db.execute(f"SELECT {table.columns} FROM {table.name} WHERE id = ?", (key,))
            total = table.sum_of(row.fetchone())
            db.execute(f"UPDATE {table.name} SET sum = ? WHERE id = ?", (total, key))


def of_damage(error: sqlite3.Error) -> bool:
    """Whether the error says that what is in the file makes no sense."""
    code = getattr(error, "sqlite_errorcode", None)  # none: raised by Python, over a text
    return code is None or code & 0xFF in (sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_TOOBIG)


def sorted_out(table: Table, rows: list[Row]) -> Read:
    """Which of some rows are sound."""
    sound = [row for row in rows if is_sound(table, row)]
    if len(sound) == len(rows):
        return Read(sound, [])
    return Read(sound, [row[0] for row in rows if not is_sound(table, row)])


def _one_by_one(db: sqlite3.Connection, table: Table, keys: Sequence[int]) -> Read:
    key = table.columns.partition(",")[0]
    rows: list[Row] = []
    damaged = []
    for each in keys:
        try:
            rows += db.execute(f"{table.select} WHERE {key} = ?", (each,)).fetchall()
        except sqlite3.DatabaseError as error:
            if not of_damage(error):
                raise
            damaged.append(each)
    read = sorted_out(table, rows)
    return Read(read.rows, sorted(read.damaged + damaged))


def _listed(db: sqlite3.Connection, collection: int, after: int, limit: int) -> list[int] | None:
    """The next ids, at most `limit`, as the index has them; None where it is damaged."""
    found: list[int] = []
    try:
        for negative in (0, 1):
            rows = db.execute(
                "SELECT id FROM template INDEXED BY template_collection "
                "WHERE collection = ? AND negative = ? AND id > ? ORDER BY id LIMIT ?",
                (collection, negative, after, limit),
            )
            found += [id_ for (id_,) in rows]
    except sqlite3.DatabaseError as error:
        if not of_damage(error):
            raise
        return None
    return sorted(found)[:limit]
