"""Errors as RFC 9457 problems: one table from error class to status, one way to write them.

Besides mien's own errors there are those that only a server has: the tree under `Refusal`. A
problem's `type` is /problems/NAME with the name of the error class, and that address explains it.
Facts of the error (`count`, `reasons`, `limit`, ...) are members beside `detail`.
"""

from collections.abc import Mapping

from starlette.responses import JSONResponse

from mien import errors
from mien.errors import MienError


class Refusal(Exception):
    """A request that the server does not serve, whatever is in its pictures."""

    status = 400

    def __init__(self, detail: str, headers: Mapping[str, str] | None = None) -> None:
        super().__init__(detail)
        self.headers = dict(headers or {})


class MalformedRequest(Refusal):
    """The request is not built as the interface asks for."""


class NotAuthenticated(Refusal):
    """No key was sent, or it is not known, or it was revoked."""

    status = 401

    def __init__(self, detail: str) -> None:
        super().__init__(detail, {"WWW-Authenticate": "Bearer"})


class NotAllowed(Refusal):
    """The key is known, and may not do this."""

    status = 403


class UnknownRoute(Refusal):
    """There is nothing at this address."""

    status = 404


class UnknownGallery(Refusal):
    """There is no gallery of this name."""

    status = 404


class UnknownHead(Refusal):
    """This server has no head of this name."""

    status = 404


class UnknownReview(Refusal):
    """There is no such identification to be reviewed."""

    status = 404


class UnknownTemplate(Refusal):
    """The subject has no template of this number."""

    status = 404


class MethodNotAllowed(Refusal):
    """This address does not know this method."""

    status = 405


class UploadTimeout(Refusal):
    """The body of the request took too long to arrive."""

    status = 408


class Conflict(Refusal):
    """What is there already stands in the way of the request."""

    status = 409


class PreconditionFailed(Refusal):
    """The subject was changed since the state that If-Match names."""

    status = 412


class BodyTooLarge(Refusal):
    """The request has more bytes or more pictures than this server takes."""

    status = 413


class UnsupportedMedia(Refusal):
    """The body is neither multipart/form-data nor JSON."""

    status = 415


class TooManyRequests(Refusal):
    """This key sends more than its share; `Retry-After` says when to come back."""

    status = 429


class Overloaded(Refusal):
    """The server has as much work as it takes on; `Retry-After` says when to come back."""

    status = 503


STATUS: dict[type[MienError], int] = {
    errors.InputError: 422,
    errors.UnreadableImage: 415,
    errors.ImageTooLarge: 413,
    errors.ModelError: 503,
    errors.GalleryError: 409,
    errors.UnknownSubject: 404,
    errors.GalleryUnavailable: 503,
}
"""The status of an error is that of its nearest listed ancestor."""

MEDIA_TYPE = "application/problem+json"

_OURS = ("uri", "path")  # facts about the server's own files: for its log, not for its callers


def status_of(error: type[MienError]) -> int:
    """The HTTP status of an error."""
    return next(STATUS[kind] for kind in error.__mro__ if kind in STATUS)


def problem(error: MienError | Refusal) -> JSONResponse:
    """The reply for an error."""
    if isinstance(error, Refusal):
        return _reply(type(error).__name__, error.status, str(error), {}, error.headers)
    facts = {name: value for name, value in vars(error).items() if name not in _OURS}
    detail = str(error)
    if any(name in vars(error) for name in _OURS):  # the whole message names the file
        detail = str(facts.get("reason", "see the log of the server"))
    return _reply(type(error).__name__, status_of(type(error)), detail, facts, {})


def internal_error() -> JSONResponse:
    """The reply when the server itself is at fault: it says nothing of what happened inside."""
    return _reply("InternalError", 500, "the server failed; its log says more", {}, {})


def explanations() -> dict[str, str]:
    """What each problem means, by the name that its `type` ends in."""
    kinds = {kind.__name__: kind for root in (MienError, Refusal) for kind in _tree(root)}
    return {name: (kind.__doc__ or "").strip() for name, kind in kinds.items()} | {
        "InternalError": "The server failed. It is a mistake in the server, not in the request."
    }


def _tree(kind: type[Exception]) -> list[type[Exception]]:
    return [kind, *(below for child in kind.__subclasses__() for below in _tree(child))]


def _reply(
    name: str, status: int, detail: str, facts: Mapping[str, object], headers: Mapping[str, str]
) -> JSONResponse:
    body = {
        **facts,
        "type": f"/problems/{name}",
        "title": explanations()[name].splitlines()[0],
        "status": status,
        "detail": detail,
    }
    return JSONResponse(body, status, dict(headers), MEDIA_TYPE)
