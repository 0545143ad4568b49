"""The web application: routes put together with what guards them."""

import asyncio
import contextlib
import time
import traceback
from collections.abc import AsyncIterator
from importlib import resources
from importlib.metadata import version
from pathlib import Path
from typing import Any
from urllib.parse import unquote

from fastapi import FastAPI, Request, Response
from fastapi.exceptions import RequestValidationError
from fastapi.openapi.utils import get_openapi
from fastapi.responses import PlainTextResponse
from starlette.exceptions import HTTPException
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from mien.errors import InputError, MienError
from mien.recognition import Recognizer
from mien.server.galleries import Galleries
from mien.server.messages import Problem
from mien.server.problems import (
    MalformedRequest,
    MethodNotAllowed,
    NotAllowed,
    Refusal,
    UnknownRoute,
    explanations,
    internal_error,
    problem,
    status_of,
)
from mien.server.routes import ROUTES
from mien.server.service import Service, note
from mien.server.settings import Settings

_SAVE_SECONDS = 5.0  # how often it is written down when keys were last used

_OWN_NAMES = ("localhost", "127.0.0.1", "[::1]")

# FastAPI can send addresses and error messages, with the names in them, to wherever variables of
# the environment say. Versions that cannot ignore this.
_NO_TELEMETRY: Any = dict.fromkeys(
    ("tracing", "metrics", "logs", "operation_spans", "auto_configure"), False
)

_HEADERS = {  # of every answer that does not say otherwise
    b"content-security-policy": (
        b"default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' blob: data:; "
        b"media-src 'self' blob:; connect-src 'self'; base-uri 'none'; form-action 'none'; "
        b"frame-ancestors 'none'"
    ),
    b"x-content-type-options": b"nosniff",
    b"referrer-policy": b"no-referrer",
    b"permissions-policy": b"camera=(self), microphone=(), geolocation=()",
    b"cross-origin-opener-policy": b"same-origin",
    b"cross-origin-resource-policy": b"same-origin",
    b"cache-control": b"no-store",
}

_KINDS = {
    ".html": "text/html; charset=utf-8",
    ".css": "text/css; charset=utf-8",
    ".js": "text/javascript; charset=utf-8",
    ".svg": "image/svg+xml",
}


def create_app(
    recognizer: Recognizer, galleries: Galleries, settings: Settings | None = None
) -> FastAPI:
    """The REST interface and the web page over a recogniser and its galleries.

    Closes the galleries when it shuts down. Without `settings.keys` everybody is an administrator,
    and only requests addressed to this machine by its own name, from its own page, are served.
    """
    service = Service(recognizer, galleries, settings or Settings())

    @contextlib.asynccontextmanager
    async def lifespan(app: FastAPI) -> AsyncIterator[None]:
        saving = asyncio.create_task(_save_now_and_then(service))
        try:
            yield
        finally:
            saving.cancel()
            await asyncio.to_thread(service.close)

    app = _App(
        title="mien",
        version=version("mien"),
        description="Face recognition with a measured error rate on every answer.",
        docs_url=None,  # these pages would load scripts from elsewhere
        redoc_url=None,
        lifespan=lifespan,
        redirect_slashes=False,
        telemetry=_NO_TELEMETRY,
    )
    app.state.service = service
    app.router.routes.extend(ROUTES)
    _serve_page(app)
    _answer_errors(app)
    app.add_middleware(_Frame, service=service)
    return app


async def _save_now_and_then(service: Service) -> None:
    while service.keys is not None:
        await asyncio.sleep(_SAVE_SECONDS)
        try:
            await service.stored(service.keys.save_last_used)
        except OSError as error:  # such as a full disk: it is tried again
            note("keys", error="when they were last used cannot be written", why=error.strerror)


def _serve_page(app: FastAPI) -> None:
    for file in resources.files("mien.server").joinpath("web").iterdir():
        address = "/" if file.name == "index.html" else f"/{file.name}"
        content, kind = file.read_bytes(), _KINDS[Path(file.name).suffix]

        async def page(request: Request, content: bytes = content, kind: str = kind) -> Response:
            return Response(content, headers={"Content-Type": kind})

        app.add_route(address, page, methods=["GET"])

    meanings = explanations()

    async def explain(request: Request) -> Response:
        name = request.path_params["name"]
        if name not in meanings:
            raise UnknownRoute("there is no problem of this name")
        return PlainTextResponse(f"{name}\n\n{meanings[name]}\n")

    app.add_route("/problems/{name}", explain, methods=["GET"])


def _answer_errors(app: FastAPI) -> None:
    async def ours(request: Request, error: Exception) -> Response:
        assert isinstance(error, MienError | Refusal)
        if isinstance(error, MienError) and status_of(type(error)) >= 500:
            note("failed", error=type(error).__name__, detail=str(error))  # names files of ours
        return problem(error)

    async def invalid(request: Request, error: Exception) -> Response:
        assert isinstance(error, RequestValidationError)
        words = "; ".join(
            f"{'.'.join(map(str, entry['loc'][1:])) or 'the body'}: {entry['msg']}"
            for entry in error.errors()[:5]
        )
        return problem(InputError(words))

    async def http(request: Request, error: Exception) -> Response:
        assert isinstance(error, HTTPException)
        match error.status_code:
            case 404:
                return problem(UnknownRoute("there is nothing at this address"))
            case 405:
                headers = error.headers or {}
                return problem(MethodNotAllowed("this address does not know the method", headers))
        return problem(MalformedRequest(str(error.detail)))

    app.add_exception_handler(MienError, ours)
    app.add_exception_handler(Refusal, ours)
    app.add_exception_handler(RequestValidationError, invalid)
    app.add_exception_handler(HTTPException, http)


class _App(FastAPI):
    """With what FastAPI does not know of the routes: how keys are sent, what problems look like."""

    def openapi(self) -> dict[str, Any]:
        """The description of the routes, made once."""
        if self.openapi_schema is None:
            schema = get_openapi(
                title=self.title, version=self.version, description=self.description,
                routes=self.routes,
            )  # fmt: skip
            parts = schema.setdefault("components", {})
            parts.setdefault("schemas", {})["Problem"] = Problem.model_json_schema()
            parts["securitySchemes"] = {"key": {"type": "http", "scheme": "bearer"}}
            schema["security"] = [{"key": []}]
            self.openapi_schema = schema
        return self.openapi_schema


class _Frame:
    """Around every request: its address, where it comes from, headers, log and metrics."""

    def __init__(self, app: ASGIApp, service: Service) -> None:
        self._app = app
        self._service = service

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "websocket":
            await self._socket(scope, receive, send)
            return
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        start, status = time.perf_counter(), 500
        started = False

        async def framed(message: Message) -> None:
            nonlocal status, started
            if message["type"] == "http.response.start":
                started = True
                status = message["status"]
                given = {name.lower() for name, _ in message["headers"]}
                ours = [header for header in _HEADERS.items() if header[0] not in given]
                message["headers"] = [*message["headers"], *ours]
            await send(message)

        try:
            refusal = self._refusal(scope)
            if refusal is not None:
                await problem(refusal)(scope, receive, framed)
            else:
                _keep_segments_whole(scope)
                await self._app(scope, receive, framed)
        except Exception as error:  # the one place where a mistake of ours becomes a reply
            where = [  # without the message, and without lines of code: they may quote
                f"{Path(frame.filename).name}:{frame.lineno} {frame.name}"
                for frame in traceback.extract_tb(error.__traceback__)
            ]
            note("mistake", error=type(error).__name__, where=where)
            if not started:
                await internal_error()(scope, receive, framed)
        finally:
            seconds = time.perf_counter() - start
            route = getattr(scope.get("route"), "path", "none")
            self._service.metrics.answered(scope["method"], route, status, seconds)
            note(
                "request", method=scope["method"], route=route, status=status,
                ms=round(1000 * seconds, 1), key=scope.get("state", {}).get("key"),
                client=(scope.get("client") or (None,))[0],
            )  # fmt: skip

    async def _socket(self, scope: Scope, receive: Receive, send: Send) -> None:
        """A socket is refused as a request would be; a page elsewhere cannot open one."""
        if self._refusal(scope) is not None:
            await receive()
            await send({"type": "websocket.close", "code": 1008})  # before it is accepted: HTTP 403
            return
        _keep_segments_whole(scope)
        await self._app(scope, receive, send)

    def _refusal(self, scope: Scope) -> Refusal | None:
        """Why this request is not even looked at.

        Without keys, any page open in a browser of this machine could reach us: through a name of
        its own that it points here (DNS rebinding), or by a form that it sends here.
        """
        headers = {name: value.decode("latin-1") for name, value in scope["headers"]}
        host = headers.get(b"host", "")
        name = host.rpartition(":")[0] if not host.endswith("]") and ":" in host else host
        if self._service.keys is None and name.lower() not in _OWN_NAMES:
            return NotAllowed(
                "this server asks for no keys and answers only to localhost; "
                "start it without --no-keys"
            )
        origin = headers.get(b"origin")
        if origin is not None and origin.partition("://")[2] != host:
            return NotAllowed("requests from pages of other sites are not served")
        try:
            path = unquote(scope["raw_path"].decode("ascii"), errors="strict")
        except UnicodeDecodeError:
            return MalformedRequest("the address is not UTF-8")
        if "\0" in path:
            return MalformedRequest("the address has a NUL in it")
        return None


def _keep_segments_whole(scope: Scope) -> None:
    """Put a NUL for each "/" inside a name of the path, which `routes` turns back.

    Servers decode %2F before routing, and then a name with a slash would be two segments.
    """
    raw = scope["raw_path"].decode("ascii").partition("?")[0]
    scope["path"] = "/".join(unquote(segment).replace("/", "\0") for segment in raw.split("/"))
