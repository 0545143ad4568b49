"""Fetch one file over HTTP so that what is on disk afterwards is the file that was meant.

The only door to the network. Knows nothing of models: addresses, a hash and a size go in, a
verified file comes out.
"""

import errno
import hashlib
import http.client
import socket
import ssl
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import IO
from urllib.parse import urlsplit

from mien.errors import FetchFailed

Progress = Callable[[int, int | None], None]
"""Called with the bytes that have arrived and, where known, how many there will be."""

MOST_BYTES = 4 << 30  # no published face model comes near; bounds what a hostile server can send
_CHUNK = 1 << 18


@dataclass(frozen=True, slots=True)
class Patience:
    """How long a transfer may stall and how often it is tried again, in seconds and times.

    `timeout` is without a single byte; the pause before a new attempt starts at `pause` and
    doubles. `attempts` are for each address.
    """

    timeout: float = 30.0
    attempts: int = 4
    pause: float = 1.0


def download(
    urls: Sequence[str],
    path: Path,
    *,
    sha256: str | None,
    size: int | None,
    progress: Progress | None = None,
    patience: Patience | None = None,
) -> str:
    """Fetch a file to `path` from the first of `urls` that serves it; return its SHA-256.

    What lies at `path` already is taken for the beginning of the file and continued, but only
    where the hash is known: it is what proves that two halves belong together. Proxies are taken
    from the environment. Raises `FetchFailed` with the reason for each address; `OSError` when
    `path` cannot be written.
    """
    patience = patience or Patience()
    reasons = []
    for url in urls:
        for attempt in range(patience.attempts):
            if attempt:
                time.sleep(patience.pause * 2 ** (attempt - 1))
            try:
                return _attempt(url, path, sha256, size, progress, patience.timeout)
            except _Failure as failure:
                reason = failure
                if not failure.passing:
                    break
        reasons.append(f"{url}: {reason}")
    raise FetchFailed(path.name.removesuffix(".part"), reasons or ["no address is known for it"])


@contextmanager
def locked(path: Path) -> Iterator[None]:
    """Hold a lock file alone among all processes and threads; waits for whoever has it.

    A lock of the operating system, not the existence of the file: it ends with its process,
    however that ends. The file itself stays, since removing it would let two in.
    """
    with path.open("ab") as file:
        _lock(file)
        yield  # closing the file frees the lock


if sys.platform == "win32":
    import msvcrt

    def _lock(file: IO[bytes]) -> None:
        while True:
            try:
                file.seek(0)
                msvcrt.locking(file.fileno(), msvcrt.LK_LOCK, 1)  # gives up after ten seconds
                return
            except OSError as error:
                if error.errno != errno.EDEADLK:
                    raise
else:
    import fcntl

    def _lock(file: IO[bytes]) -> None:
        fcntl.flock(file, fcntl.LOCK_EX)


class _Failure(Exception):
    """One attempt failed; `passing` says whether the next may fare better."""

    def __init__(self, reason: str, passing: bool) -> None:
        super().__init__(reason)
        self.passing = passing


def _attempt(
    url: str,
    path: Path,
    sha256: str | None,
    size: int | None,
    progress: Progress | None,
    timeout: float,
) -> str:
    if sha256 is None or (size is not None and path.is_file() and path.stat().st_size > size):
        path.unlink(missing_ok=True)
    digest, start = _hash_of(path)
    if start and digest.hexdigest() == sha256:
        return digest.hexdigest()  # a former run was stopped after the last byte
    with _open(url, start, timeout, path) as response:
        if response.status == http.HTTPStatus.OK:  # also the answer of servers without ranges
            digest, start = hashlib.sha256(), 0
        total = _announced(response, start)
        if size is not None and total is not None and total != size:
            raise _Failure(f"offers {total:,} bytes where {size:,} are expected", passing=False)
        limit = size or total or MOST_BYTES
        arrived = start
        with path.open("ab" if start else "wb") as file:
            for chunk in _chunks(response):
                arrived += len(chunk)
                if arrived > limit:
                    break
                digest.update(chunk)
                file.write(chunk)
                if progress:
                    progress(arrived, size or total)
    if arrived > limit:
        path.unlink()
        raise _Failure(f"sends more than the {limit:,} bytes expected", passing=False)
    expected = total or size
    if expected is not None and arrived < expected:
        raise _Failure(f"ended after {arrived:,} of {expected:,} bytes", passing=True)
    found = digest.hexdigest()
    if sha256 is not None and found != sha256:
        path.unlink()
        # where the beginning came from an earlier attempt, that may be the wrong part
        raise _Failure(
            f"serves another file (sha256 {found[:12]}..., expected {sha256[:12]}...)",
            passing=start > 0,
        )
    return found


def _hash_of(path: Path) -> "tuple[hashlib._Hash, int]":
    digest, length = hashlib.sha256(), 0
    if path.is_file():
        with path.open("rb") as file:
            while chunk := file.read(_CHUNK):
                digest.update(chunk)
                length += len(chunk)
    return digest, length


def _open(url: str, start: int, timeout: float, path: Path) -> http.client.HTTPResponse:
    headers = {"User-Agent": "mien", "Accept-Encoding": "identity"}
    if start:
        headers["Range"] = f"bytes={start}-"
    try:
        response: http.client.HTTPResponse = _opener().open(
            urllib.request.Request(url, headers=headers), timeout=timeout
        )
    except urllib.error.HTTPError as error:
        error.close()
        if error.code == http.HTTPStatus.REQUESTED_RANGE_NOT_SATISFIABLE:
            path.unlink()  # what is here is no beginning of that file
            raise _Failure("has no more bytes than are here already", passing=True) from error
        busy = error.code in {408, 425, 429} or error.code >= 500
        raise _Failure(f"answers {error.code} {error.reason}", passing=busy) from error
    except (OSError, http.client.HTTPException, ValueError) as error:
        raise _network_failure(error) from error
    if response.status not in {200, 206}:
        response.close()
        raise _Failure(f"answers {response.status}", passing=False)
    return response


def _opener() -> urllib.request.OpenerDirector:
    """HTTP and HTTPS only: no file:, ftp: or data:, at first or after a redirect."""
    opener = urllib.request.OpenerDirector()
    for handler in (
        urllib.request.ProxyHandler(),
        urllib.request.HTTPHandler(),
        urllib.request.HTTPSHandler(),
        urllib.request.HTTPDefaultErrorHandler(),
        urllib.request.HTTPErrorProcessor(),
        urllib.request.UnknownHandler(),
        _Redirects(),
    ):
        opener.add_handler(handler)
    return opener


class _Redirects(urllib.request.HTTPRedirectHandler):
    def redirect_request(
        self,
        req: urllib.request.Request,
        fp: IO[bytes],
        code: int,
        msg: str,
        headers: http.client.HTTPMessage,
        newurl: str,
    ) -> urllib.request.Request | None:
        was, now = urlsplit(req.full_url).scheme, urlsplit(newurl).scheme
        if now not in {"http", "https"} or (was == "https" and now == "http"):
            reason = f"redirects to {newurl!r}, which is not allowed"
            raise urllib.error.HTTPError(req.full_url, code, reason, headers, fp)
        return super().redirect_request(req, fp, code, msg, headers, newurl)


def _announced(response: http.client.HTTPResponse, start: int) -> int | None:
    """How long the whole file will be, by the server's word."""
    if start and not response.headers.get("Content-Range", "").startswith(f"bytes {start}-"):
        raise _Failure("answers with another part than the one asked for", passing=False)
    length = response.headers.get("Content-Length", "")
    return start + int(length) if length.isdecimal() else None


def _chunks(response: http.client.HTTPResponse) -> Iterator[bytes]:
    while True:
        try:
            chunk = response.read1(_CHUNK)
        except (OSError, http.client.HTTPException) as error:
            raise _network_failure(error) from error
        if not chunk:
            return
        yield chunk


def _network_failure(error: Exception) -> _Failure:
    cause = error.reason if isinstance(error, urllib.error.URLError) else error
    if isinstance(cause, TimeoutError):
        return _Failure("stalled", passing=True)
    if isinstance(cause, socket.gaierror):
        return _Failure("its name is not found (is there a network?)", passing=False)
    unreachable = {errno.ENETUNREACH, errno.EHOSTUNREACH, errno.ECONNREFUSED}
    hopeless = isinstance(cause, ssl.SSLCertVerificationError | ValueError) or (
        isinstance(cause, OSError) and cause.errno in unreachable
    )
    broken = isinstance(cause, OSError | http.client.HTTPException)
    return _Failure(str(cause) or type(cause).__name__, passing=broken and not hopeless)
