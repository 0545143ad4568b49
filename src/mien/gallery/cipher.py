"""Encryption of what a gallery keeps about people: vectors, names, sources and metadata.

AES-256-GCM with a random nonce for each value, bound to the place where the value belongs, so that
values cannot be swapped unnoticed. Values are sealed with a data key that is made with the gallery
and kept in it, itself sealed with the key of whoever may open it: changing that key rewrites 60
bytes. Names and metadata are found through a keyed digest (HMAC-SHA256 with a key of its own).
"""

import hmac
import os
import secrets
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Protocol

from mien.errors import GalleryUnavailable, InputError, MissingExtra

KEY_BYTES = 32
_NONCE_BYTES = 12


class Cipher(Protocol):
    """How values are written to a store."""

    sealed: bool

    def seal(self, plain: bytes, column: str, row: int) -> bytes:
        """What to store of a value that belongs there."""
        ...

    def open(self, stored: bytes, column: str, row: int) -> bytes:
        """The value again. Raises `GalleryUnavailable` when it was altered or moved."""
        ...

    def lookup(self, text: str) -> bytes:
        """What to store of a text so that it can be found again by equality."""
        ...


class Clear:
    """No encryption."""

    sealed = False

    def seal(self, plain: bytes, column: str, row: int) -> bytes:
        """The value as it is."""
        return plain

    def open(self, stored: bytes, column: str, row: int) -> bytes:
        """The value as it is."""
        return stored

    def lookup(self, text: str) -> bytes:
        """The text in UTF-8."""
        return to_bytes(text)


class AesGcm:
    """Sealed with a data key of 32 bytes. Needs the extra `crypto`."""

    sealed = True

    def __init__(self, key: bytes) -> None:
        self._key = key
        self._cipher = _aesgcm(key)
        self._digest_key = hmac.digest(key, b"mien gallery lookup", "sha256")

    def seal(self, plain: bytes, column: str, row: int) -> bytes:
        """Nonce (12 bytes), ciphertext, tag (16 bytes)."""
        nonce = secrets.token_bytes(_NONCE_BYTES)
        return nonce + bytes(self._cipher.encrypt(nonce, plain, f"{column}:{row}".encode()))

    def open(self, stored: bytes, column: str, row: int) -> bytes:
        """Raises `GalleryUnavailable` when it was altered or moved."""
        return _open(
            self._cipher, stored, f"{column}:{row}", "a value was altered since it was written"
        )

    def lookup(self, text: str) -> bytes:
        """A keyed digest (32 bytes)."""
        return hmac.digest(self._digest_key, to_bytes(text), "sha256")

    def wrapped(self, key: bytes, gallery: str) -> bytes:
        """The data key, for a gallery that `key` opens."""
        return wrap(self._key, key, gallery)


def to_bytes(text: str) -> bytes:
    """UTF-8, also of names of files that are not: Python gives those as lone surrogates."""
    return text.encode("utf-8", "surrogatepass")


def to_text(raw: bytes) -> str:
    """What `to_bytes` made them of."""
    return raw.decode("utf-8", "surrogatepass")


def wrap(data_key: bytes, key: bytes, gallery: str) -> bytes:
    """The data key of a gallery, sealed with the key of its owner."""
    nonce = secrets.token_bytes(_NONCE_BYTES)
    return nonce + bytes(_aesgcm(key).encrypt(nonce, data_key, gallery.encode()))


def unwrap(wrapped: bytes, key: bytes, gallery: str) -> bytes:
    """Raises `GalleryUnavailable` when `key` is not the one it was sealed with."""
    return _open(_aesgcm(key), wrapped, gallery, "the key is not the one it was encrypted with")


def key_from_environment(environ: Mapping[str, str] = os.environ) -> bytes | None:
    """The key that `MIEN_GALLERY_KEY` (64 hex digits) or `MIEN_GALLERY_KEY_FILE` gives, if any.

    `MIEN_GALLERY_KEY_FILE=keyring:NAME` asks the operating system's keyring for the password of
    the service `mien` and the user NAME (needs the package `keyring`). Raises `InputError`.
    """
    if text := environ.get("MIEN_GALLERY_KEY"):
        return parse_key(text, "MIEN_GALLERY_KEY")
    place = environ.get("MIEN_GALLERY_KEY_FILE")
    if not place:
        return None
    if place.startswith("keyring:"):
        return _key_from_keyring(place.removeprefix("keyring:"))
    return read_key(Path(place))


def read_key(path: Path) -> bytes:
    """A key from a file: 32 bytes, or 64 hex digits. Raises `InputError`."""
    try:
        raw = path.read_bytes()
    except OSError as error:
        raise InputError(f"cannot read the key file {path}: {error.strerror}") from error
    return raw if len(raw) == KEY_BYTES else parse_key(raw.decode("ascii", "replace"), str(path))


def parse_key(text: str, origin: str) -> bytes:
    """A key from 64 hex digits. Raises `InputError`."""
    try:
        key = bytes.fromhex(text.strip())
    except ValueError:
        key = b""
    if len(key) != KEY_BYTES:
        raise InputError(
            f"{origin} is not a key: give 64 hex digits; "
            f"'mien gallery new-key FILE' makes a file with one"
        )
    return key


def _key_from_keyring(name: str) -> bytes:
    try:
        import keyring
        from keyring.errors import KeyringError
    except ImportError as error:
        raise MissingExtra("a key in the keyring", "crypto") from error
    try:
        text = keyring.get_password("mien", name)
    except KeyringError as error:  # locked, or there is none on this machine
        raise InputError(f"the keyring cannot be asked for a key: {error}") from error
    if text is None:
        raise InputError(f"the keyring has no password of service 'mien' for user {name!r}")
    return parse_key(text, f"the keyring's password {name!r}")


def _aesgcm(key: bytes) -> Any:  # its type is an optional dependency's
    try:
        from cryptography.hazmat.primitives.ciphers.aead import AESGCM
    except ImportError as error:
        raise MissingExtra("an encrypted gallery", "crypto") from error
    return AESGCM(key)


def _open(cipher: Any, stored: bytes, place: str, reason: str) -> bytes:
    from cryptography.exceptions import InvalidTag

    try:
        return bytes(cipher.decrypt(stored[:_NONCE_BYTES], stored[_NONCE_BYTES:], place.encode()))
    except (InvalidTag, ValueError) as error:  # the second for what is too short
        raise GalleryUnavailable(place, reason) from error
