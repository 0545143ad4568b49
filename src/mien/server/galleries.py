"""Galleries by name: files in one folder, or a few that were named when the server started."""

import contextlib
import os
import re
import shutil
import threading
import unicodedata
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from urllib.parse import unquote

from mien.errors import GalleryUnavailable, InputError
from mien.gallery import Gallery, open_gallery
from mien.server.problems import Conflict, UnknownGallery

_SUFFIX = ".mien"
_LONGEST = 200  # bytes of a file name, leaving room for SQLite's own endings


@dataclass
class _Opened:
    gallery: Gallery
    users: int = 0
    writing: threading.Lock = field(default_factory=threading.Lock)


class Galleries:
    """Opens galleries when they are first asked for and keeps them open. Thread-safe.

    `folder` holds one file a gallery and new ones are made there; `fixed` gives the URI of
    galleries that exist apart from it and are never deleted. One of the two is enough.
    """

    def __init__(self, folder: Path | None, fixed: Mapping[str, str] | None = None) -> None:
        self._folder = folder
        self._fixed = dict(fixed or {})
        self._changed = threading.Condition()
        self._opened: dict[str, _Opened] = {}
        self._deleting: set[str] = set()

    def names(self) -> list[str]:
        """Every gallery there is, sorted."""
        found = set(self._fixed)
        if self._folder is not None and self._folder.is_dir():
            found |= {name_of(path) for path in self._folder.glob(f"*{_SUFFIX}")}
        return sorted(found)

    @contextmanager
    def use(self, name: str) -> Iterator[Gallery]:
        """An open gallery, which is not deleted under the block. Raises `UnknownGallery`."""
        opened = self._enter(name, create=False)
        try:
            yield opened.gallery
        finally:
            self._leave(opened)

    @contextmanager
    def change(self, name: str) -> Iterator[Gallery]:
        """`use` for one writer at a time: what the block checks stays true while it writes."""
        opened = self._enter(name, create=False)
        try:
            with opened.writing:
                yield opened.gallery
        finally:
            self._leave(opened)

    def create(self, name: str) -> bool:
        """Make a gallery. False when it was there already. Raises `InputError`, `Conflict`."""
        check_name(name, "gallery")
        there = name in self.names()
        if self._folder is None and name not in self._fixed:
            raise Conflict(
                "this server was started for certain galleries: "
                f"{', '.join(sorted(self._fixed))}; start it with a folder to make others"
            )
        self._leave(self._enter(name, create=True))
        return not there

    def delete(self, name: str) -> None:
        """Delete a gallery with everyone in it, when whoever uses it now is done.

        Raises `UnknownGallery` and `Conflict`.
        """
        if name in self._fixed:
            raise Conflict(f"the gallery {name!r} belongs to the start of this server")
        with self._changed:
            if name not in self.names() or name in self._deleting:
                raise _unknown(name)
            self._deleting.add(name)
            opened = self._opened.pop(name, None)
            self._changed.wait_for(lambda: opened is None or not opened.users)
        try:
            if opened is not None:
                opened.gallery.close()
            path = Path(self._uri(name))
            for beside in path.parent.glob(f"{path.name}*"):  # also SQLite's own, key and index
                if beside.is_dir():
                    shutil.rmtree(beside)
                else:
                    beside.unlink(missing_ok=True)
        except OSError as error:
            raise GalleryUnavailable(str(path), f"it cannot be deleted: {error}") from error
        finally:
            with self._changed:
                self._deleting.discard(name)

    def close(self) -> None:
        """Close all, when whoever uses them is done."""
        with self._changed:
            self._changed.wait_for(lambda: not any(o.users for o in self._opened.values()))
            for opened in self._opened.values():
                opened.gallery.close()
            self._opened.clear()

    def check(self) -> None:
        """Raise `GalleryUnavailable` unless galleries can be kept, and the open ones answer."""
        if self._folder is not None and not self._folder.is_dir():
            raise GalleryUnavailable(str(self._folder), "its folder does not exist")
        if self._folder is not None and not os.access(self._folder, os.W_OK):
            raise GalleryUnavailable(str(self._folder), "its folder may not be written")
        with self._changed:
            names = [*self._fixed, *self._opened]
        for name in dict.fromkeys(names):
            with (
                contextlib.suppress(UnknownGallery),
                self.use(name) as gallery,
            ):  # deleted meanwhile
                gallery.stats()

    def _enter(self, name: str, create: bool) -> _Opened:
        with self._changed:
            if name in self._deleting or not (create or self._exists(name)):
                raise _unknown(name)
            if name not in self._opened:
                self._opened[name] = _Opened(open_gallery(self._uri(name), create=True))
            opened = self._opened[name]
            opened.users += 1
            return opened

    def _leave(self, opened: _Opened) -> None:
        with self._changed:
            opened.users -= 1
            self._changed.notify_all()

    def _exists(self, name: str) -> bool:
        return name in self._fixed or (self._folder is not None and Path(self._uri(name)).exists())

    def _uri(self, name: str) -> str:
        if name in self._fixed:
            return self._fixed[name]
        assert self._folder is not None
        plain = self._folder / f"{name}{_SUFFIX}"  # as `mien enroll --gallery Staff.mien` makes it
        if re.fullmatch(r"[A-Za-z0-9_-]+", name) and plain.exists():
            return str(plain)
        return str(self._folder / file_name(name))


def check_name(name: str, what: str) -> None:
    """Raise `InputError` for a name that an address or a list could not show as it is."""
    if not name.strip() or name in (".", ".."):
        raise InputError(f"{name!r} cannot be the name of a {what}")
    if len(name) > 200:
        raise InputError(f"the name of a {what} has at most 200 characters, not {len(name)}")
    if any(unicodedata.category(letter) in ("Cc", "Cs") for letter in name):
        raise InputError(f"the name of a {what} has no control characters")


def file_name(name: str) -> str:
    """The file of a gallery: small letters, digits, '-' and '_' as they are, all else as %XX.

    Capitals are encoded too, since some file systems take "Staff" and "staff" for one.
    """
    text = re.sub(rb"[^a-z0-9_-]", lambda match: b"%%%02X" % match[0][0], name.encode()).decode()
    if len(text) > _LONGEST:
        raise InputError(f"the name of the gallery is too long: {len(name)} characters")
    return text + _SUFFIX


def name_of(path: Path) -> str:
    """The gallery of a file."""
    return unquote(path.name.removesuffix(_SUFFIX))


def _unknown(name: str) -> UnknownGallery:
    return UnknownGallery(f"there is no gallery {name!r}; PUT makes one")
