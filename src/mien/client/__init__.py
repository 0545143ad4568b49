"""A server of mien from Python: the words of the library, over REST, waiting or with `await`.

What a method asks and what it makes of the reply is written once, in `of_server` and `of_gallery`,
as a generator that yields requests and is sent replies. `Client` and `AsyncClient` carry them out,
one by blocking and one by awaiting, and take their methods, signatures and docstrings from them.
"""

import asyncio
import inspect
import time
from collections.abc import Callable, Coroutine, Mapping
from contextlib import AbstractAsyncContextManager, AbstractContextManager
from dataclasses import dataclass
from types import TracebackType
from typing import Any, Concatenate, ParamSpec, Protocol, Self, TypeVar, get_args

from mien.client import of_gallery, of_server
from mien.client.live import AsyncLive, Live, live, live_async
from mien.client.values import Access, KnownModel, LiveEvent, LiveScene, LiveTrack, Review
from mien.client.wire import (
    Json,
    Operation,
    Request,
    ServerRefused,
    ServerUnreachable,
    http_library,
    opened,
    prepared,
    settings,
    wait_before_next,
)

__all__ = [
    "Access", "AsyncClient", "AsyncLive", "AsyncRemoteGallery", "Client", "KnownModel", "Live",
    "LiveEvent", "LiveScene", "LiveTrack", "RemoteGallery", "Review", "ServerRefused",
    "ServerUnreachable",
]  # fmt: skip

P = ParamSpec("P")
R = TypeVar("R")
F = TypeVar("F", bound=Callable[..., Any])


class _Sends(Protocol):
    def _send(self, operation: Operation[R]) -> R: ...


class _SendsAsync(Protocol):
    async def _send(self, operation: Operation[R]) -> R: ...


class _OfGallery(_Sends, Protocol):
    @property
    def name(self) -> str: ...


class _OfGalleryAsync(_SendsAsync, Protocol):
    @property
    def name(self) -> str: ...


def _method(ask: Callable[P, Operation[R]]) -> Callable[Concatenate[_Sends, P], R]:
    def method(self: _Sends, /, *args: P.args, **kwargs: P.kwargs) -> R:
        return self._send(ask(*args, **kwargs))

    return _dressed(method, ask)


def _coroutine(
    ask: Callable[P, Operation[R]],
) -> Callable[Concatenate[_SendsAsync, P], Coroutine[Any, Any, R]]:
    async def method(self: _SendsAsync, /, *args: P.args, **kwargs: P.kwargs) -> R:
        return await self._send(ask(*args, **kwargs))

    return _dressed(method, ask)


def _gallery_method(
    ask: Callable[Concatenate[str, P], Operation[R]],
) -> Callable[Concatenate[_OfGallery, P], R]:
    def method(self: _OfGallery, /, *args: P.args, **kwargs: P.kwargs) -> R:
        return self._send(ask(self.name, *args, **kwargs))

    return _dressed(method, ask, of_gallery=1)


def _gallery_coroutine(
    ask: Callable[Concatenate[str, P], Operation[R]],
) -> Callable[Concatenate[_OfGalleryAsync, P], Coroutine[Any, Any, R]]:
    async def method(self: _OfGalleryAsync, /, *args: P.args, **kwargs: P.kwargs) -> R:
        return await self._send(ask(self.name, *args, **kwargs))

    return _dressed(method, ask, of_gallery=1)


def _dressed(method: F, ask: Callable[..., Any], of_gallery: int = 0) -> F:
    """A method with the name, the words and the parameters of what it asks."""
    asked = inspect.signature(ask)
    (result,) = get_args(asked.return_annotation)[2:]
    this = inspect.Parameter("self", inspect.Parameter.POSITIONAL_ONLY)
    rest = list(asked.parameters.values())[of_gallery:]
    facts = {
        "__name__": ask.__name__,
        "__doc__": ask.__doc__,
        "__signature__": inspect.Signature([this, *rest], return_annotation=result),
    }
    for name, value in facts.items():
        setattr(method, name, value)
    return method


def _camera_of(
    url: str, gallery: str, headers: Mapping[str, str], verify: Any
) -> tuple[str, dict[str, str], Any]:
    key = headers.get("Authorization")
    return f"{url}{of_gallery.at(gallery, 'live')}", {"Authorization": key} if key else {}, verify


class Client:
    """A server of mien, asked by blocking calls. Use it as a context manager, or `close` it.

    `key` is a bearer key (default: the environment's MIEN_KEY), `timeout` is in seconds for each
    request. A request that is refused because the server is busy (429, 503) is sent again after
    the time that the server names, up to `retries` times, if sending it twice does no harm.
    `options` are further ones of `httpx2.Client`, such as `verify` for the authority of a
    certificate. Safe to use from several threads.

    Methods raise the library's errors, with their facts; `ServerRefused` for what only a server
    can object to; and `ServerUnreachable`.
    """

    def __init__(
        self,
        url: str,
        key: str | None = None,
        *,
        timeout: float = 30.0,
        retries: int = 4,
        **options: Any,
    ) -> None:
        self._url, self._retries, self._verify = url.rstrip("/"), retries, options.get("verify")
        self._httpx = http_library()
        self._http = self._httpx.Client(**settings(url, key, timeout, options))

    detect = _method(of_server.detect)
    recognize = _method(of_server.recognize)
    embed = _method(of_server.embed)
    verify = _method(of_server.verify)
    analyze = _method(of_server.analyze)
    classify = _method(of_server.classify)
    group = _method(of_server.group)
    group_faces = _method(of_server.group_faces)
    contract = _method(of_server.contract)
    galleries = _method(of_server.galleries)
    models = _method(of_server.models)
    heads = _method(of_server.heads)
    access = _method(of_server.access)
    alive = _method(of_server.alive)
    ready = _method(of_server.ready)
    metrics = _method(of_server.metrics)

    def gallery(self, name: str) -> "RemoteGallery":
        """A gallery on the server; whether there is one of this name is seen when it is used."""
        return RemoteGallery(self, name)

    def _camera(self, gallery: str) -> tuple[str, dict[str, str], Any]:
        """What `live` needs: address, headers, whose certificates are trusted."""
        return _camera_of(self._url, gallery, self._http.headers, self._verify)

    def close(self) -> None:
        """Close the connections."""
        self._http.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()

    def _send(self, operation: Operation[R]) -> R:
        try:
            request = next(operation)
            while True:
                request = operation.send(self._answer(request))
        except StopIteration as end:
            result: R = end.value
            return result

    def _answer(self, request: Request) -> Json:
        sent = prepared(request)
        for attempt in range(self._retries + 1):
            try:
                reply = self._http.request(**sent)
            except self._httpx.TransportError as error:
                raise ServerUnreachable(self._url, str(error) or type(error).__name__) from error
            wait = wait_before_next(request, reply, attempt, self._retries)
            if wait is None:
                break
            time.sleep(wait)
        return opened(reply)


class AsyncClient:
    """`Client` for `async` code: the same methods, each to be awaited."""

    def __init__(
        self,
        url: str,
        key: str | None = None,
        *,
        timeout: float = 30.0,
        retries: int = 4,
        **options: Any,
    ) -> None:
        self._url, self._retries, self._verify = url.rstrip("/"), retries, options.get("verify")
        self._httpx = http_library()
        self._http = self._httpx.AsyncClient(**settings(url, key, timeout, options))

    detect = _coroutine(of_server.detect)
    recognize = _coroutine(of_server.recognize)
    embed = _coroutine(of_server.embed)
    verify = _coroutine(of_server.verify)
    analyze = _coroutine(of_server.analyze)
    classify = _coroutine(of_server.classify)
    group = _coroutine(of_server.group)
    group_faces = _coroutine(of_server.group_faces)
    contract = _coroutine(of_server.contract)
    galleries = _coroutine(of_server.galleries)
    models = _coroutine(of_server.models)
    heads = _coroutine(of_server.heads)
    access = _coroutine(of_server.access)
    alive = _coroutine(of_server.alive)
    ready = _coroutine(of_server.ready)
    metrics = _coroutine(of_server.metrics)

    def gallery(self, name: str) -> "AsyncRemoteGallery":
        """A gallery on the server; whether there is one of this name is seen when it is used."""
        return AsyncRemoteGallery(self, name)

    def _camera(self, gallery: str) -> tuple[str, dict[str, str], Any]:
        """What `live` needs: address, headers, whose certificates are trusted."""
        return _camera_of(self._url, gallery, self._http.headers, self._verify)

    async def close(self) -> None:
        """Close the connections."""
        await self._http.aclose()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        await self.close()

    async def _send(self, operation: Operation[R]) -> R:
        try:
            request = next(operation)
            while True:
                request = operation.send(await self._answer(request))
        except StopIteration as end:
            result: R = end.value
            return result

    async def _answer(self, request: Request) -> Json:
        sent = await asyncio.to_thread(prepared, request)  # reads files, encodes arrays
        for attempt in range(self._retries + 1):
            try:
                reply = await self._http.request(**sent)
            except self._httpx.TransportError as error:
                raise ServerUnreachable(self._url, str(error) or type(error).__name__) from error
            wait = wait_before_next(request, reply, attempt, self._retries)
            if wait is None:
                break
            await asyncio.sleep(wait)
        return opened(reply)


@dataclass(frozen=True)
class RemoteGallery:
    """A gallery on a server, in the words of `mien.Gallery`; see `Client.gallery`."""

    client: Client
    name: str

    create = _gallery_method(of_gallery.create)
    delete = _gallery_method(of_gallery.delete)
    stats = _gallery_method(of_gallery.stats)
    enroll = _gallery_method(of_gallery.enroll)
    enroll_new = _gallery_method(of_gallery.enroll_new)
    enroll_negatives = _gallery_method(of_gallery.enroll_negatives)
    identify = _gallery_method(of_gallery.identify)
    search = _gallery_method(of_gallery.search)
    search_batch = _gallery_method(of_gallery.search_batch)
    subjects = _gallery_method(of_gallery.subjects)
    templates = _gallery_method(of_gallery.templates)
    remove = _gallery_method(of_gallery.remove)
    rename = _gallery_method(of_gallery.rename)
    merge = _gallery_method(of_gallery.merge)
    reviews = _gallery_method(of_gallery.reviews)
    crop = _gallery_method(of_gallery.crop)
    confirm = _gallery_method(of_gallery.confirm)
    reject = _gallery_method(of_gallery.reject)
    dismiss = _gallery_method(of_gallery.dismiss)

    def live(self, *, fpir: float = 1e-2, liveness: bool = False) -> AbstractContextManager[Live]:
        """A live camera: `with gallery.live() as camera`, then `camera.see(picture)`.

        People are followed from picture to picture and decided once; `fpir` is the share of
        strangers that get a name, however long they are seen. `liveness` also tells living faces
        from pictures of faces, if the server has a model for it.
        """
        return live(*self.client._camera(self.name), {"fpir": fpir, "liveness": liveness})

    def _send(self, operation: Operation[R]) -> R:
        return self.client._send(operation)


@dataclass(frozen=True)
class AsyncRemoteGallery:
    """`RemoteGallery` for `async` code; see `AsyncClient.gallery`."""

    client: AsyncClient
    name: str

    create = _gallery_coroutine(of_gallery.create)
    delete = _gallery_coroutine(of_gallery.delete)
    stats = _gallery_coroutine(of_gallery.stats)
    enroll = _gallery_coroutine(of_gallery.enroll)
    enroll_new = _gallery_coroutine(of_gallery.enroll_new)
    enroll_negatives = _gallery_coroutine(of_gallery.enroll_negatives)
    identify = _gallery_coroutine(of_gallery.identify)
    search = _gallery_coroutine(of_gallery.search)
    search_batch = _gallery_coroutine(of_gallery.search_batch)
    subjects = _gallery_coroutine(of_gallery.subjects)
    templates = _gallery_coroutine(of_gallery.templates)
    remove = _gallery_coroutine(of_gallery.remove)
    rename = _gallery_coroutine(of_gallery.rename)
    merge = _gallery_coroutine(of_gallery.merge)
    reviews = _gallery_coroutine(of_gallery.reviews)
    crop = _gallery_coroutine(of_gallery.crop)
    confirm = _gallery_coroutine(of_gallery.confirm)
    reject = _gallery_coroutine(of_gallery.reject)
    dismiss = _gallery_coroutine(of_gallery.dismiss)

    def live(
        self, *, fpir: float = 1e-2, liveness: bool = False
    ) -> AbstractAsyncContextManager[AsyncLive]:
        """A live camera: `async with gallery.live() as camera`, then `await camera.see(picture)`.

        People are followed from picture to picture and decided once; `fpir` is the share of
        strangers that get a name, however long they are seen. `liveness` also tells living faces
        from pictures of faces, if the server has a model for it.
        """
        return live_async(*self.client._camera(self.name), {"fpir": fpir, "liveness": liveness})

    async def _send(self, operation: Operation[R]) -> R:
        return await self.client._send(operation)
