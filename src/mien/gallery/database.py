"""One SQLite file: its connection, transactions, and what its errors mean.

Durable: a write-ahead log with synchronous=FULL, so what was committed survives a killed process
and a power cut. Erasing: secure_delete overwrites what is deleted, and `empty_log` clears the log.
"""

import sqlite3
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from mien.errors import GalleryUnavailable, MienError

_BUSY_SECONDS = 30.0  # how long a writer waits for another process
_CACHE_KIB = 32 * 1024  # the inner pages of some millions of templates
_LOG_PAGES = 2048  # of 16 KiB: how long the log may become before it is moved into the file


class Database:
    """A connection to the file at `path`, shared by threads. Raises `GalleryUnavailable`."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.lock = threading.RLock()
        with self.translated():
            self.connection = sqlite3.connect(
                path, timeout=_BUSY_SECONDS, isolation_level=None, check_same_thread=False
            )
            try:
                self.connection.execute("PRAGMA secure_delete = ON")
                self.connection.execute("PRAGMA synchronous = FULL")
                self.connection.execute("PRAGMA foreign_keys = ON")
                self.connection.execute("PRAGMA cell_size_check = ON")  # notice damage sooner
                self.connection.execute(f"PRAGMA cache_size = -{_CACHE_KIB}")
                self.connection.execute(f"PRAGMA wal_autocheckpoint = {_LOG_PAGES}")
            except BaseException:
                self.connection.close()
                raise

    def close(self) -> None:
        """Closing twice is fine."""
        with self.lock:
            self.connection.close()

    def compact(self) -> None:
        """Make the indexes again, then rewrite the file without unused room."""
        with self.lock, self.translated():
            self.connection.execute("REINDEX")  # VACUUM copies them, damage and all
            self.connection.execute("VACUUM")
        self.empty_log()

    def empty_log(self) -> None:
        """Move everything from the log into the file and cut the log to nothing.

        Deleted rows are overwritten in the file, but the log would still hold them.
        """
        end = time.monotonic() + _BUSY_SECONDS
        while True:
            with self.lock, self.translated():
                busy = self.connection.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchone()[0]
            if not busy or time.monotonic() > end:
                break
            time.sleep(0.005)  # another process is emptying it, for which SQLite does not wait
        if busy:
            raise GalleryUnavailable(
                str(self.path),
                "removed, but another process kept the log in use, so traces may remain in it "
                "until that process ends; 'mien gallery compact' then clears them",
            )

    @contextmanager
    def reading(self) -> Iterator[sqlite3.Connection]:
        """One snapshot: what the block reads belongs together."""
        with self.lock, self.translated():
            self.connection.execute("BEGIN")
            try:
                yield self.connection
            finally:
                if self.connection.in_transaction:
                    self.connection.execute("ROLLBACK")  # always works, also after damage

    @contextmanager
    def writing(self) -> Iterator[sqlite3.Connection]:
        """One transaction: committed, and on disk, when the block ends; undone if it raises."""
        with self.lock, self.translated():
            self.connection.execute("BEGIN IMMEDIATE")
            try:
                yield self.connection
                self.connection.execute("COMMIT")
            except BaseException:
                if self.connection.in_transaction:
                    self.connection.execute("ROLLBACK")
                raise

    @contextmanager
    def translated(self) -> Iterator[None]:
        """Errors of SQLite, and of reading what mien did not write, as `GalleryUnavailable`."""
        try:
            yield
        except MienError:
            raise
        except sqlite3.Error as error:
            raise GalleryUnavailable(str(self.path), _in_words(error)) from error
        except (TypeError, ValueError, LookupError, OverflowError) as error:  # in what it read
            reason = f"it holds something that mien did not write ({error}); 'mien gallery verify'"
            raise GalleryUnavailable(str(self.path), reason) from error


_MEANING = {  # a part of SQLite's message: what it means here, and what to do
    "not a database": "the file is not a mien gallery, or it is damaged",
    "malformed": "the file is damaged; 'mien gallery verify' names what, if it still opens; "
    "if not, restore a backup",
    "Could not decode": "a text in it is damaged; 'mien gallery verify' names what is",
    "duplicate column": "its header says that it is older than it is: the file is damaged",
    "no such": "its tables are not those that mien made: the file is damaged",
    "unable to open": "it cannot be opened: its folder has to exist and to be writable, for "
    "reading too; if it may not be, copy the gallery to one that is",
    "readonly": "it may not be written; check the permissions of the file and its folder",
    "locked": f"another process kept it locked for {_BUSY_SECONDS:.0f} seconds; try again",
    "full": "the disk is full; nothing was changed",
    "disk I/O": "the disk failed or is full (reading takes a little room beside the gallery too); "
    "nothing was changed",
    "closed database": "it was closed already",
}


def _in_words(error: sqlite3.Error) -> str:
    text = str(error)
    return next((words for part, words in _MEANING.items() if part in text), text)
