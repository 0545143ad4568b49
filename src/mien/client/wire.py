"""Requests and replies: how a request is sent, when it is sent again, what error a reply tells."""

import inspect
import json
import os
import random
from collections.abc import Generator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol, TypeVar

from mien import errors
from mien.errors import MienError, MissingExtra
from mien.images import Source, encode_image, read_image

R = TypeVar("R")
Query = Mapping[str, str | int | float]
Json = Any  # what a reply says: objects, lists, strings, numbers

_LONGEST_WAIT = 60.0  # seconds that a server may ask us to wait before we give up instead
_BUSY = (429, 503)


class ServerUnreachable(MienError):
    """No answer came: the address is wrong, the server is down, or it took too long."""

    def __init__(self, url: str, reason: str) -> None:
        super().__init__(f"the server at {url} does not answer: {reason}")
        self.url = url
        self.reason = reason


class ServerRefused(MienError):
    """The server did not serve a request, for a reason that only servers have.

    `problem` names it, as in "NotAuthenticated", "UnknownGallery", "Conflict" or "Overloaded" (the
    address URL/problems/NAME explains it); `status` is that of HTTP.
    """

    def __init__(self, problem: str, status: int, detail: str) -> None:
        super().__init__(f"the server refused: {detail} ({problem}, {status})")
        self.problem = problem
        self.status = status
        self.detail = detail


@dataclass(frozen=True)
class Request:
    """One request; `again` says whether sending it twice does no more than sending it once."""

    method: str
    path: str
    query: Query = field(default_factory=dict)
    pictures: Sequence[Source] = ()
    json: Json = None
    again: bool = True


Operation = Generator[Request, Json, R]
"""Asks for one thing: yields requests, is sent what the replies say, returns the value."""


class Reply(Protocol):
    """What is read of a reply of the HTTP library."""

    @property
    def status_code(self) -> int: ...
    @property
    def headers(self) -> Mapping[str, str]: ...
    @property
    def content(self) -> bytes: ...


def upload(source: Source) -> tuple[str, bytes]:
    """The name and the bytes of a picture; one that is no file yet becomes a PNG."""
    if isinstance(source, str | os.PathLike):
        try:
            return Path(source).name, Path(source).read_bytes()
        except OSError as error:
            raise errors.UnreadableImage(str(source), error.strerror or str(error)) from error
    if isinstance(source, bytes | bytearray | memoryview):
        return "picture", bytes(source)
    image = read_image(source)
    return image.source, encode_image(image, "png")


def prepared(request: Request) -> dict[str, Any]:
    """A request as the HTTP library takes it."""
    files = [("image", upload(picture)) for picture in request.pictures]
    return {
        "method": request.method,
        "url": request.path,
        "params": {name: f"{value}" for name, value in request.query.items()},
        "files": files or None,
        "json": request.json,
    }


def wait_before_next(request: Request, reply: Reply, attempt: int, retries: int) -> float | None:
    """Seconds after which a request is sent again, None when it is not."""
    if reply.status_code not in _BUSY or not request.again or attempt >= retries:
        return None
    asked = reply.headers.get("Retry-After", "")
    if not asked.isdecimal():  # also a 503 that waiting does not mend, such as NoOperatingPoint
        return None
    seconds = float(asked)
    return seconds + random.uniform(0, 0.1 * seconds) if seconds <= _LONGEST_WAIT else None


def opened(reply: Reply) -> Json:
    """What a reply says: JSON read, other content as bytes. Raises the error that it tells of."""
    if reply.status_code < 400:
        if not reply.content or "json" not in reply.headers.get("Content-Type", ""):
            return reply.content
        return json.loads(reply.content)
    try:
        error = raised({"status": reply.status_code, **json.loads(reply.content)})
    except (ValueError, KeyError, TypeError):  # from a proxy, or no server of mien
        text = f"an answer of status {reply.status_code} that is not of mien"
        raise ServerRefused("UnknownProblem", reply.status_code, text) from None
    raise error


def raised(problem: Mapping[str, Json]) -> MienError:
    """The error that a problem (RFC 9457) tells of. Raises `KeyError` for what is none."""
    name = str(problem["type"]).rpartition("/")[2]
    detail = str(problem["detail"])
    kind = getattr(errors, name, None)
    if not (isinstance(kind, type) and issubclass(kind, MienError)):
        return ServerRefused(name, int(problem["status"]), detail)
    facts = {n: v for n, v in problem.items() if n not in ("type", "title", "status", "detail")}
    return _rebuilt(kind, detail, facts)


def _rebuilt(kind: type[MienError], detail: str, facts: Mapping[str, Json]) -> MienError:
    """An error of the library with its facts; what the server keeps to itself is left blank."""
    error = kind.__new__(kind, detail)
    names = [name for name in inspect.signature(kind.__init__).parameters if name != "self"]
    blanks = dict.fromkeys((name for name in names if name not in ("args", "kwargs")), "")
    given = {name: tuple(v) if isinstance(v, list) else v for name, v in facts.items()}
    vars(error).update(blanks | given)
    return error


def http_library() -> Any:
    """The module that sends requests. Raises `MissingExtra`."""
    try:
        import httpx2
    except ModuleNotFoundError as error:
        raise MissingExtra("the client", "client") from error
    return httpx2


def settings(url: str, key: str | None, timeout: float, options: Mapping[str, Any]) -> Any:
    """What its clients are made with."""
    key = key if key is not None else os.environ.get("MIEN_KEY")
    headers = {"Authorization": f"Bearer {key}"} if key else {}
    return {"base_url": url, "headers": headers, "timeout": timeout, **options}
