"""Run an app under uvicorn: where it listens, over what, and how it stops."""

import ipaddress
import logging
import sys
from pathlib import Path

import uvicorn
from fastapi import FastAPI

from mien.errors import InputError

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
    uvicorn.run(
        app,
        host=host,
        port=port,
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


def _is_loopback(host: str) -> bool:
    if host == "localhost":
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False
