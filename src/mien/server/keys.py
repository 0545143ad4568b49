"""Bearer keys: random, kept as hashes, each with a role and the galleries it opens.

A key reads `mien_ID_SECRET`. The file keeps ID and the SHA-256 of the whole; the secret has 256
random bits, so a fast hash is enough. When a key was last used stands in a second file, written
by the server alone: it can then never write back a key that was revoked meanwhile.
"""

import contextlib
import hashlib
import hmac
import json
import os
import secrets
import tempfile
import threading
import time
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Literal, get_args

from mien.errors import InputError

Role = Literal["read", "write", "admin"]
ROLES: tuple[Role, ...] = get_args(Role)
"""Each may do what those before it may: look and search; enrol and erase people; make and delete
galleries."""

EVERY_GALLERY = "*"


@dataclass(frozen=True, slots=True)
class Key:
    """What is known of a key. `hash` is the SHA-256 of its text in hex."""

    id: str
    hash: str
    role: Role
    galleries: tuple[str, ...]
    created: str
    note: str = ""

    def may(self, role: Role) -> bool:
        """Whether the key's role includes `role`."""
        return ROLES.index(self.role) >= ROLES.index(role)

    def opens(self, gallery: str) -> bool:
        """Whether the key is for this gallery, or for every one."""
        return EVERY_GALLERY in self.galleries or gallery in self.galleries


ANYBODY = Key("anybody", "", "admin", (EVERY_GALLERY,), "")
"""Who asks a server that has no keys."""


class KeyFile:
    """The keys in one file of mode 0600, which other processes may change at any time.

    Safe to use from several threads.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self._lock = threading.Lock()
        self._version: tuple[int, int, int] | None = None
        self._keys: dict[str, Key] = {}
        self._used: dict[str, str] = {}

    def add(self, role: Role, galleries: tuple[str, ...], note: str = "") -> str:
        """A new key. The text returned is nowhere else: it cannot be shown again."""
        name = secrets.token_hex(4)
        text = f"mien_{name}_{secrets.token_urlsafe(32)}"
        key = Key(name, _digest(text), role, galleries or (EVERY_GALLERY,), _now(), note)
        with self._changing() as keys:
            keys[name] = key
        return text

    def revoke(self, name: str) -> None:
        """Forget a key. Raises `InputError` when there is none of this id."""
        with self._changing() as keys:
            if name not in keys:
                raise InputError(f"there is no key {name!r}; 'mien serve keys list' shows them")
            del keys[name]

    def listed(self) -> list[Key]:
        """All keys, oldest first."""
        with self._lock:
            return list(self._current().values())

    def find(self, text: str) -> Key | None:
        """The key with this text, noting that it was used now."""
        with self._lock:
            keys = self._current()
            key = keys.get(text.split("_")[1]) if text.count("_") >= 2 else None
            if key is None or not hmac.compare_digest(key.hash, _digest(text)):
                return None
            self._used[key.id] = _now()
            return key

    def last_used(self) -> dict[str, str]:
        """When each key was last used, to some seconds: by id, ISO 8601 in UTC."""
        with self._lock:
            used: dict[str, str] = _read(self._used_path, {})
            return used | self._used

    def save_last_used(self) -> None:
        """Write what `find` noted. For the server alone."""
        with self._lock:
            if not self._used:
                return
            used = _read(self._used_path, {}) | self._used
            _write(self._used_path, {name: used[name] for name in used if name in self._keys})
            self._used = {}

    @property
    def _used_path(self) -> Path:
        return self.path.with_name(self.path.name + ".used")

    def _current(self) -> dict[str, Key]:
        """The keys as the file has them now; read again only after it changed."""
        try:
            state = self.path.stat()
        except FileNotFoundError:
            self._version, self._keys = None, {}
            return self._keys
        version = (state.st_mtime_ns, state.st_size, state.st_ino)
        if version != self._version:
            self._keys = {row["id"]: _key(row, self.path) for row in _read(self.path, [])}
            self._version = version
        return self._keys

    @contextlib.contextmanager
    def _changing(self) -> Iterator[dict[str, Key]]:
        """The keys, to be changed; one process at a time, whole or not at all."""
        self.path.parent.mkdir(parents=True, exist_ok=True)
        claim = self.path.with_name(self.path.name + ".lock")
        with self._lock, _claimed(claim):
            self._version = None
            keys = dict(self._current())
            yield keys
            _write(self.path, [asdict(key) for key in keys.values()])


@contextlib.contextmanager
def _claimed(path: Path, patience: float = 10.0) -> Iterator[None]:
    """Holds a lock file. One that was left behind by a killed process is taken over."""
    deadline = time.monotonic() + patience
    while True:
        try:
            os.close(os.open(path, os.O_CREAT | os.O_EXCL, 0o600))
            break
        except FileExistsError:
            if time.monotonic() > deadline:
                break
            time.sleep(0.02)
    try:
        yield
    finally:
        path.unlink(missing_ok=True)


def _key(row: dict[str, Any], path: Path) -> Key:
    try:
        return Key(**{**row, "galleries": tuple(row["galleries"])})
    except (KeyError, TypeError) as error:
        raise InputError(f"{path} is not a file of mien's keys: {error}") from error


def _read(path: Path, default: Any) -> Any:
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        return default
    except (OSError, ValueError) as error:
        raise InputError(f"{path} cannot be read as a file of keys: {error}") from error


def _write(path: Path, content: Any) -> None:
    handle, name = tempfile.mkstemp(dir=path.parent, prefix=path.name)  # mode 0600
    with os.fdopen(handle, "w", encoding="utf-8") as stream:
        json.dump(content, stream, indent=1)
        stream.flush()
        os.fsync(stream.fileno())
    os.replace(name, path)


def _digest(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()


def _now() -> str:
    return datetime.now(UTC).isoformat(timespec="seconds")
