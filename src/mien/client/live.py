"""A live camera: pictures go to the server over a WebSocket, who is on them comes back."""

import json
import ssl
from collections.abc import AsyncIterator, Iterator, Mapping
from contextlib import AsyncExitStack, ExitStack, asynccontextmanager, contextmanager
from typing import Any

from mien.client.translation import liveness_of
from mien.client.values import LiveEvent, LiveScene, LiveTrack
from mien.client.wire import Json, ServerUnreachable, raised, upload
from mien.errors import MissingExtra
from mien.images import Source
from mien.types import Box, Match


class Live:
    """An open camera. Ask about one picture after the other; use it from one thread."""

    def __init__(self, url: str, socket: Any) -> None:
        self._url, self._socket = url, socket

    def see(self, picture: Source) -> LiveScene:
        """Who is on the camera's next picture, as followed since it was opened.

        Raises `UnreadableImage` and, with the problem "Overloaded", `ServerRefused`: the next
        picture may do better. Any other problem ends the camera.
        """
        data = upload(picture)[1]
        with _reaching(self._url):
            self._socket.send(data)
            answer = self._socket.recv()
        return _scene(_opened(answer))


class AsyncLive:
    """`Live` for `async` code."""

    def __init__(self, url: str, socket: Any) -> None:
        self._url, self._socket = url, socket

    async def see(self, picture: Source) -> LiveScene:
        """See `Live.see`."""
        data = upload(picture)[1]
        with _reaching(self._url):
            await self._socket.send(data)
            answer = await self._socket.recv()
        return _scene(_opened(answer))


@contextmanager
def live(url: str, headers: Mapping[str, str], verify: Any, hello: Json) -> Iterator[Live]:
    """A camera at the address of a gallery, closed after the block."""
    connect = _library().sync.client.connect
    with ExitStack() as stack:
        with _reaching(url):
            socket = stack.enter_context(connect(**_how(url, headers, verify)))
            socket.send(json.dumps(hello))
            answer = socket.recv()
        _opened(answer)
        yield Live(url, socket)


@asynccontextmanager
async def live_async(
    url: str, headers: Mapping[str, str], verify: Any, hello: Json
) -> AsyncIterator[AsyncLive]:
    """`live` for `async` code."""
    connect = _library().asyncio.client.connect
    async with AsyncExitStack() as stack:
        with _reaching(url):
            socket = await stack.enter_async_context(connect(**_how(url, headers, verify)))
            await socket.send(json.dumps(hello))
            answer = await socket.recv()
        _opened(answer)
        yield AsyncLive(url, socket)


@contextmanager
def _reaching(url: str) -> Iterator[None]:
    """Raise `ServerUnreachable` for what goes wrong with the connection."""
    try:
        yield
    except (OSError, _library().exceptions.WebSocketException) as error:
        raise ServerUnreachable(url, str(error)) from error


def _library() -> Any:
    """The module that speaks WebSocket. Raises `MissingExtra`."""
    try:
        import websockets.asyncio.client
        import websockets.exceptions
        import websockets.sync.client
    except ModuleNotFoundError as error:
        raise MissingExtra("a live camera", "client") from error
    return websockets


def _how(url: str, headers: Mapping[str, str], verify: Any) -> dict[str, Any]:
    """Options of a connection, from those of the client."""
    trusted = verify if isinstance(verify, ssl.SSLContext) else ssl.create_default_context()
    return {
        "uri": "ws" + url.removeprefix("http"),
        "additional_headers": headers,
        "ssl": trusted if url.startswith("https") else None,
        "proxy": None,
    }


def _opened(text: str | bytes) -> Json:
    """What a message says. Raises the problem that it tells of."""
    message = json.loads(text)
    if message["kind"] == "problem":
        raise raised({name: v for name, v in message.items() if name not in ("kind", "frame")})
    return message


def _scene(message: Json) -> LiveScene:
    return LiveScene(
        message["frame"],
        message["width"],
        message["height"],
        message["seconds"],
        tuple(_track(facts) for facts in message["tracks"]),
        tuple(
            LiveEvent(
                e["event"], e["track"], e["first_frame"], e["last_frame"], e["subject"], e["score"]
            )
            for e in message["events"]
        ),
    )


def _track(facts: Json) -> LiveTrack:
    return LiveTrack(
        facts["track"],
        Box(*facts["box"]),
        facts["quality"],
        facts["state"],
        facts["subject"],
        facts["score"],
        facts["threshold"],
        tuple(Match(c["subject"], c["template"], c["score"]) for c in facts["candidates"]),
        facts["faces"],
        liveness_of(facts["liveness"]),
    )
