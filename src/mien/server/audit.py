"""Who searched, enrolled and erased: an append-only log without pictures, vectors or names.

People enrolled or erased are named by a keyed digest, so the log can prove that a given person was
erased and cannot tell who was. The key lies beside the log; searches name nobody at all.
"""

import contextlib
import hashlib
import hmac
import json
import os
import secrets
from datetime import UTC, datetime
from pathlib import Path

from mien.errors import InputError

_DURABLE = ("enrol", "erase", "rename", "merge", "reject", "create", "delete")


class AuditLog:
    """One JSON object a line, in a file of mode 0600. Safe to use from several threads."""

    def __init__(self, path: Path) -> None:
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            self._key = _key(path.with_name(path.name + ".key"))
            self._file = os.open(path, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o600)
        except OSError as error:
            raise InputError(f"the audit log {path} cannot be written: {error}") from error

    def write(
        self, action: str, key: str, gallery: str, subject: str = "", count: int = 0, new: str = ""
    ) -> None:
        """Add a line; what changes a gallery is on disk when this returns.

        `key` is the id of the bearer key, `count` the number of faces or templates, `new`
        the name that a person has from now on.
        """
        line = {
            "time": datetime.now(UTC).isoformat(timespec="milliseconds"),
            "action": action,
            "key": key,
            "gallery": gallery,
            "subject": self.digest(subject) if subject else None,
            "count": count,
        } | ({"new": self.digest(new)} if new else {})
        os.write(self._file, (json.dumps(line, ensure_ascii=False) + "\n").encode())
        if action in _DURABLE:
            os.fsync(self._file)

    def digest(self, subject: str) -> str:
        """How the log names a person."""
        return hmac.new(self._key, subject.encode(), hashlib.sha256).hexdigest()[:32]

    def close(self) -> None:
        """Release the file."""
        os.close(self._file)


def _key(path: Path) -> bytes:
    """The key in a file of mode 0600, made when it is not there."""
    with contextlib.suppress(FileExistsError):
        handle = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
        with os.fdopen(handle, "wb") as stream:
            stream.write(secrets.token_bytes(32))
            os.fsync(handle)
    return path.read_bytes()
