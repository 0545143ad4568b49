"""Slow and broken connections, on real sockets: the place is given back, others are served."""

import contextlib
import json
import socket
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from urllib.request import urlopen

import pytest
import uvicorn

import mien
from mien.server import Galleries, Settings, create_app
from mien.server.running import configured

from .test_load import free_port


@contextlib.contextmanager
def running(
    recognizer: mien.Recognizer, folder: Path, **settings: object
) -> Iterator[tuple[str, int]]:
    """A server in a thread of this process: its host and port."""
    app = create_app(recognizer, Galleries(folder), Settings(**settings))
    port = free_port()
    server = uvicorn.Server(configured(app, "127.0.0.1", port))
    thread = threading.Thread(target=server.run)
    thread.start()
    try:
        while not server.started:
            assert thread.is_alive()
            time.sleep(0.01)
        yield "127.0.0.1", port
    finally:
        server.should_exit = True
        thread.join(60)


def received(connection: socket.socket) -> bytes:
    """Everything until the server ends the connection."""
    return b"".join(iter(lambda: connection.recv(65536), b""))


def test_heads_that_never_end_are_hung_up_on(
    recognizer: mien.Recognizer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("mien.server.running.HEAD_SECONDS", 0.3)
    with running(recognizer, tmp_path) as address:
        connections = [socket.create_connection(address, timeout=30) for _ in range(20)]
        for number, connection in enumerate(connections):
            connection.sendall(
                b"POST /v1/detect HTTP/1.1\r\nHost: localhost\r\nX-A: "[: number * 3]
            )
        with urlopen(f"http://127.0.0.1:{address[1]}/healthz", timeout=30) as reply:
            assert json.load(reply) == {"status": "ok"}
        for connection in connections:
            assert received(connection) == b""
            connection.close()


def test_a_second_request_may_be_as_slow_as_the_first_and_no_slower(
    recognizer: mien.Recognizer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("mien.server.running.HEAD_SECONDS", 0.5)
    whole = b"GET /healthz HTTP/1.1\r\nHost: localhost\r\n\r\n"
    with (
        running(recognizer, tmp_path) as address,
        socket.create_connection(address, timeout=30) as connection,
    ):
        for _ in range(3):  # together longer than one may take
            time.sleep(0.25)
            connection.sendall(whole)
            answer = b""
            while not answer.endswith(b'{"status":"ok"}'):
                answer += connection.recv(65536)
        connection.sendall(whole[:20])
        assert received(connection) == b""


def test_a_body_that_drips_is_refused_and_others_are_served(
    recognizer: mien.Recognizer, tmp_path: Path, grace_jpg: bytes
) -> None:
    head = (
        b"POST /v1/detect HTTP/1.1\r\nHost: localhost\r\nContent-Type: multipart/form-data; "
        b"boundary=XX\r\nContent-Length: 100000\r\nConnection: close\r\n\r\n"
    )
    with running(recognizer, tmp_path, upload_seconds=0.5, concurrency=30) as address:
        connections = [socket.create_connection(address, timeout=30) for _ in range(10)]
        for connection in connections:
            connection.sendall(head + b"--XX\r\n")
        with mien.Client(f"http://127.0.0.1:{address[1]}") as client:
            assert len(client.detect(grace_jpg)) == 1
        for connection in connections:
            answer = received(connection)
            assert answer.startswith(b"HTTP/1.1 408")
            assert b"/problems/UploadTimeout" in answer
            connection.close()


def test_who_hangs_up_in_the_middle_leaves_nothing_behind(
    recognizer: mien.Recognizer, tmp_path: Path, grace_jpg: bytes
) -> None:
    half = (
        b"PUT /v1/galleries/team/subjects/grace HTTP/1.1\r\nHost: localhost\r\n"
        b"Content-Type: multipart/form-data; boundary=XX\r\n"
        b"Content-Length: 100000\r\n\r\n--XX\r\n" + grace_jpg[:5000]
    )
    with (
        running(recognizer, tmp_path, queue=4, concurrency=4) as address,
        mien.Client(f"http://127.0.0.1:{address[1]}") as client,
    ):
        team = client.gallery("team")
        team.create()
        for _ in range(8):
            with socket.create_connection(address, timeout=30) as connection:
                connection.sendall(half)
        assert team.subjects() == []
        assert len(team.enroll("grace", grace_jpg)) == 1
