"""The tables of an embedded gallery: made, recognised, and brought up from older formats."""

import secrets
import sqlite3
from datetime import UTC, datetime

from mien.errors import GalleryUnavailable
from mien.gallery import cipher, sound
from mien.gallery.database import Database

DEFAULT_COLLECTION = "default"
_APPLICATION = int.from_bytes(b"mien", "big")  # marks the file as ours in its header
_SCHEMA = 4
_PAGE = 16384  # bytes: seven vectors of 512 float32 fit and little is left over; in 8192 three

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
    created TEXT NOT NULL,
    sum INTEGER NOT NULL DEFAULT 0         -- of all other columns
);
CREATE TABLE subject (
    id INTEGER PRIMARY KEY,
    collection INTEGER NOT NULL REFERENCES collection (id),
    lookup BLOB NOT NULL,                  -- the name, or its digest in an encrypted gallery
    name BLOB NOT NULL,
    created TEXT NOT NULL,
    updated TEXT NOT NULL,
    sum INTEGER NOT NULL,                  -- of all other columns but `updated`
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
    metadata BLOB NOT NULL,                -- JSON object of strings
    sum INTEGER NOT NULL                   -- of all other columns
);
CREATE INDEX template_subject ON template (subject, negative);
CREATE INDEX template_collection ON template (collection, negative);
CREATE TABLE tag (                         -- metadata again, for filters
    tag BLOB NOT NULL,                     -- JSON [key, value], or its digest
    template INTEGER NOT NULL,
    PRIMARY KEY (tag, template)
) WITHOUT ROWID;
CREATE INDEX tag_template ON tag (template);
CREATE TABLE crop (
    template INTEGER PRIMARY KEY,
    picture BLOB NOT NULL                  -- sealed: there are none in a gallery without a key
);
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


def prepare(
    database: Database, create: bool, name: str, key: bytes | None
) -> tuple[int, cipher.Cipher]:
    """The collection of that name and what its values are sealed with.

    Makes the tables in an empty file, and upgrades older ones. With `key` a new gallery is
    encrypted. Raises `GalleryUnavailable` for files of other programs and of newer versions.
    """
    db, path = database.connection, str(database.path)
    application = db.execute("PRAGMA application_id").fetchone()[0]
    if application == 0 and not db.execute("SELECT 1 FROM sqlite_master").fetchone():
        _create(database, key)
    elif application != _APPLICATION:
        raise GalleryUnavailable(path, "it is a database, but not a mien gallery")
    schema = db.execute("PRAGMA user_version").fetchone()[0]
    if schema > _SCHEMA:
        raise GalleryUnavailable(
            path,
            f"it was written by a newer mien (format {schema}, this one reads {_SCHEMA}); "
            f"upgrade mien",
        )
    for older, upgrade in _UPGRADES.items():
        if db.execute("PRAGMA user_version").fetchone()[0] == older:
            upgrade(database)
    sealed = _open_cipher(database, key)
    find = "SELECT id FROM collection WHERE name = ?"
    row = db.execute(find, (name,)).fetchone()
    if row is None:
        if not create:
            raise GalleryUnavailable(path, f"it has no collection {name!r}; 'mien enroll' makes it")
        with database.writing():
            db.execute(
                "INSERT INTO collection (name, created) VALUES (?, ?) ON CONFLICT DO NOTHING",
                (name, now()),
            )
            sound.seal(db, db.execute(find, (name,)).fetchone()[0])
        row = db.execute(find, (name,)).fetchone()
    return int(row[0]), sealed


def meta(db: sqlite3.Connection, key: str) -> str | None:
    """A value that belongs to the whole gallery."""
    row = db.execute("SELECT value FROM meta WHERE key = ?", (key,)).fetchone()
    return None if row is None else str(row[0])


def now() -> str:
    """The time, as everything in a gallery states it: ISO 8601, UTC, whole seconds."""
    return datetime.now(UTC).isoformat(timespec="seconds")


def _create(database: Database, key: bytes | None) -> None:
    db = database.connection
    db.execute(f"PRAGMA page_size = {_PAGE}")
    db.execute("PRAGMA journal_mode = WAL")
    with database.writing():
        if db.execute("PRAGMA application_id").fetchone()[0] == _APPLICATION:
            return  # another process was faster
        _make_tables(db)
        if key is not None:
            gallery = str(meta(db, "gallery"))
            wrapped = cipher.wrap(secrets.token_bytes(cipher.KEY_BYTES), key, gallery)
            db.execute("INSERT INTO meta VALUES ('data_key', ?)", (wrapped.hex(),))


def _make_tables(db: sqlite3.Connection) -> None:
    for statement in _TABLES.split(";\n"):
        db.execute(statement)
    db.execute("INSERT INTO meta VALUES ('gallery', ?)", (secrets.token_hex(16),))
    db.execute("INSERT INTO collection (name, created) VALUES (?, ?)", (DEFAULT_COLLECTION, now()))
    sound.seal(db, 1)
    db.execute(f"PRAGMA application_id = {_APPLICATION}")
    db.execute(f"PRAGMA user_version = {_SCHEMA}")


def _upgrade_from_1(database: Database) -> None:
    """Format 1 had one collection, no negatives and no metadata."""
    db = database.connection
    db.execute("PRAGMA foreign_keys = OFF")
    with database.writing():
        if db.execute("PRAGMA user_version").fetchone()[0] != 1:
            return  # another process was faster
        contract = meta(db, "contract")
        db.execute("DROP INDEX template_subject")
        for table in ("meta", "subject", "template"):
            db.execute(f"ALTER TABLE {table} RENAME TO {table}_1")
        _make_tables(db)
        db.execute(
            "INSERT INTO subject SELECT id, 1, CAST(name AS BLOB), CAST(name AS BLOB), "
            "created, created, 0 FROM subject_1"
        )
        db.execute(
            "INSERT INTO template SELECT id, 1, subject, 0, quality, created, vector, "
            "CAST(source AS BLOB), x'', CAST('{}' AS BLOB), 0 FROM template_1"
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
        sound.seal_all(db)
    db.execute("PRAGMA foreign_keys = ON")


def _upgrade_from_2(database: Database) -> None:
    """Format 2 had no crops."""
    with database.writing() as db:
        if db.execute("PRAGMA user_version").fetchone()[0] != 2:
            return
        db.execute(
            "CREATE TABLE IF NOT EXISTS crop (template INTEGER PRIMARY KEY, picture BLOB NOT NULL)"
        )
        db.execute("PRAGMA user_version = 3")


def _upgrade_from_3(database: Database) -> None:
    """Format 3 had no sums."""
    with database.writing() as db:
        if db.execute("PRAGMA user_version").fetchone()[0] != 3:
            return
        for table in ("collection", "subject", "template"):
            db.execute(f"ALTER TABLE {table} ADD COLUMN sum INTEGER NOT NULL DEFAULT 0")
        sound.seal_all(db)
        db.execute("PRAGMA user_version = 4")


_UPGRADES = {1: _upgrade_from_1, 2: _upgrade_from_2, 3: _upgrade_from_3}


def _open_cipher(database: Database, key: bytes | None) -> cipher.Cipher:
    db, path = database.connection, str(database.path)
    wrapped = meta(db, "data_key")
    if wrapped is None:
        if key is not None:
            raise GalleryUnavailable(
                path,
                "a key was given but it is not encrypted; open it without the key, or "
                "'mien gallery migrate' to a new one with the key",
            )
        return cipher.Clear()
    if key is None:
        raise GalleryUnavailable(
            path,
            "it is encrypted; give its key with MIEN_GALLERY_KEY_FILE or MIEN_GALLERY_KEY",
        )
    try:
        data_key = cipher.unwrap(bytes.fromhex(wrapped), key, str(meta(db, "gallery")))
    except GalleryUnavailable as error:
        raise GalleryUnavailable(path, error.reason) from None
    return cipher.AesGcm(data_key)
