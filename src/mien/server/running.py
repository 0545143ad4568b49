"""Run an app under uvicorn: where it listens, over what, and how it stops."""

import asyncio
import ipaddress
import logging
import sys
import warnings
from pathlib import Path
from typing import cast

import uvicorn
from fastapi import FastAPI
from uvicorn.protocols.http.h11_impl import H11Protocol

from mien.errors import InputError
from mien.server.service import note

HEAD_SECONDS = 10.0  # how long the head of a request may take to arrive

STOP_SECONDS = 30  # how long requests in work may take to finish when the server is stopped


def require_loopback(host: str) -> None:
    """Raise `InputError` unless `host` is this machine, the only one served without keys."""
    if not _is_loopback(host):
        raise InputError(
            f"will not listen on {host} without keys: everybody there could search and erase people"
        )


def run(
    app: FastAPI,
    host: str,
    port: int,
    certificate: Path | None = None,
    private_key: Path | None = None,
    proxies: str | None = None,
) -> None:
    """Serve until SIGINT or SIGTERM; requests in work are finished first.

    `proxies` are the addresses whose X-Forwarded-For is believed, None for nobody's.
    """
    logger = logging.getLogger("mien.server")
    if not logger.handlers:
        handler = logging.StreamHandler(sys.stderr)
        handler.setFormatter(logging.Formatter('{"time":"%(asctime)s","log":%(message)s}'))
        logger.addHandler(handler)
        logger.setLevel(logging.INFO)
        logger.propagate = False
    warnings.showwarning = _note_warning
    config = configured(app, host, port, certificate, private_key, proxies)
    uvicorn.Server(config).run()


def configured(
    app: FastAPI,
    host: str,
    port: int,
    certificate: Path | None = None,
    private_key: Path | None = None,
    proxies: str | None = None,
) -> uvicorn.Config:
    """How uvicorn is to serve an app."""
    return uvicorn.Config(
        app,
        host=host,
        port=port,
        http=Impatient,
        ssl_certfile=certificate,
        ssl_keyfile=private_key,
        proxy_headers=proxies is not None,
        forwarded_allow_ips=proxies,
        access_log=False,  # ours has no addresses of pages: they may name people
        log_level="warning",
        server_header=False,
        timeout_graceful_shutdown=STOP_SECONDS,
        ws_max_size=app.state.service.settings.frame_bytes,
        limit_concurrency=1000,  # connections: beyond, a plain 503
    )


def _note_warning(
    message: Warning | str, category: type[Warning], *_: object, **__: object
) -> None:
    """Such as a damaged gallery's: once for each text, not for each request."""
    note("warning", kind=category.__name__, what=str(message))


class Impatient(H11Protocol):
    """Ends a connection on which the head of a request takes too long, which uvicorn does not."""

    _late: asyncio.TimerHandle | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Start to wait for a request."""
        super().connection_made(cast("asyncio.Transport", transport))
        self._expect()

    def data_received(self, data: bytes) -> None:
        """Wait until the head of a request is whole, for HEAD_SECONDS."""
        super().data_received(data)
        if self._late is not None and not self._waits():
            self._late.cancel()
            self._late = None
        elif self._late is None and self._waits():
            self._expect()

    def _expect(self) -> None:
        self._late = self.loop.call_later(HEAD_SECONDS, self._hang_up)

    def _waits(self) -> bool:
        here = self in self.connections  # and not turned into a WebSocket
        return here and (self.cycle is None or self.cycle.response_complete)

    def _hang_up(self) -> None:
        if self._waits():
            self.transport.close()


def _is_loopback(host: str) -> bool:
    if host == "localhost":
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False
