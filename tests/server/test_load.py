"""Limits of rate and number, two writers on one person, a killed server, and what logs show."""

import asyncio
import contextlib
import gc
import json
import logging
import os
import signal
import socket
import subprocess
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from http.client import HTTPException
from itertools import count
from pathlib import Path
from typing import Any
from urllib.error import HTTPError
from urllib.request import Request, urlopen

import numpy as np
import pytest
from starlette.testclient import TestClient

import mien
from mien.server import Galleries, create_app
from mien.server.keys import KeyFile
from mien.server.limits import Doors, Places
from mien.server.problems import Overloaded, TooManyRequests
from mien.server.settings import Settings
from mien.types import Image

from .conftest import MIEN, Serve

GRACE = "/v1/galleries/team/subjects/grace"


def test_a_key_that_sends_too_fast_is_told_when_to_come_back(serve: Serve) -> None:
    client = serve(rate=0.5, burst=3)
    statuses = [client.get("/v1/galleries").status_code for _ in range(5)]
    assert statuses == [200] * 3 + [429] * 2
    assert 1 <= int(client.get("/v1/galleries").headers["retry-after"]) <= 2


def test_places_are_refused_at_once_and_given_back() -> None:
    doors = Doors(Settings(queue=3, concurrency=2))
    with doors.enter("a"), doors.enter("a"):
        with pytest.raises(TooManyRequests), doors.enter("a"):
            pass
        with doors.enter("b"), pytest.raises(Overloaded), doors.enter("c"):
            pass
        assert doors.inside == 2
    assert doors.inside == 0
    places = Places(4)
    with places.take(3):
        with pytest.raises(Overloaded), places.take(2):
            pass
        with places.take(1):
            assert places.taken == 4
    with places.take(16):  # more than there are, but nobody waits for it
        pass
    assert places.taken == 0


def test_overload_is_refused_and_what_was_let_in_is_answered(
    serve: Serve, grace_jpg: bytes
) -> None:
    client = serve(queue=2, concurrency=2)
    form = [("image", ("g.jpg", grace_jpg))]
    with ThreadPoolExecutor(16) as pool:
        replies = list(pool.map(lambda _: client.post("/v1/embed", files=form), range(48)))
    statuses = {reply.status_code for reply in replies}
    assert statuses <= {200, 429, 503}
    assert 200 in statuses
    refused = [reply for reply in replies if reply.status_code != 200]
    assert refused
    assert all(reply.headers["retry-after"] == "1" for reply in refused)
    assert client.post("/v1/embed", files=form).status_code == 200


def test_searches_that_arrive_together_are_answered_as_alone(
    client: TestClient, grace_jpg: bytes, eileen_jpg: bytes, both_jpg: bytes
) -> None:
    picture = {"grace": grace_jpg, "eileen": eileen_jpg, "both": both_jpg}
    for gallery, people in {"team": ("grace", "eileen"), "guests": ("eileen",)}.items():
        client.put(f"/v1/galleries/{gallery}")
        for name in people:
            path = f"/v1/galleries/{gallery}/subjects/{name}?choose=largest"
            assert client.put(path, files=[("image", picture[name])]).status_code == 201

    def ask(case: tuple[str, str, int]) -> tuple[int, Any]:
        gallery, name, limit = case
        path = f"/v1/galleries/{gallery}/identify?limit={limit}"
        reply = client.post(path, files=[("image", ("a.jpg", picture[name]))])
        return reply.status_code, reply.json()

    cases = [(gallery, name, limit) for gallery in ("team", "guests", "nobody")
             for name in picture for limit in (1, 2)]  # fmt: skip
    alone = [ask(case) for case in cases]
    assert {status for status, _ in alone} == {200, 404}
    with ThreadPoolExecutor(12) as pool:
        assert list(pool.map(ask, 3 * cases)) == 3 * alone


def test_two_writers_on_one_person(client: TestClient, grace_jpg: bytes, eileen_jpg: bytes) -> None:
    def form(picture: bytes) -> list[tuple[str, tuple[str, bytes]]]:
        return [("image", ("g.jpg", picture))]

    state = client.put(GRACE, files=form(grace_jpg)).headers["etag"]
    with ThreadPoolExecutor(2) as pool:
        replies = list(
            pool.map(
                lambda picture: client.post(
                    f"{GRACE}/images", files=form(picture), headers={"If-Match": state}
                ),
                [eileen_jpg, _mirrored(grace_jpg)],
            )
        )
    assert sorted(reply.status_code for reply in replies) == [201, 412]
    assert len(client.get(GRACE).json()["templates"]) == 2
    assert client.delete(GRACE, headers={"If-Match": state}).status_code == 412
    now = client.get(GRACE).headers["etag"]
    assert client.delete(GRACE, headers={"If-Match": now}).status_code == 200


def test_many_writers_lose_nothing(client: TestClient, grace_jpg: bytes) -> None:
    def enrol(number: int) -> int:
        url = f"/v1/galleries/team/subjects/{number % 3}/images"
        picture = _tinted(grace_jpg, number)
        return int(client.post(url, files=[("image", ("g.jpg", picture))]).status_code)

    with ThreadPoolExecutor(8) as pool:
        assert set(pool.map(enrol, range(12))) == {201}
    people = client.get("/v1/galleries/team/subjects").json()["subjects"]
    assert [(row["subject"], row["templates"]) for row in people] == [("0", 4), ("1", 4), ("2", 4)]


def _mirrored(picture: bytes) -> bytes:
    pixels = np.ascontiguousarray(mien.read_image(picture).pixels[:, ::-1])
    return mien.encode_image(Image(pixels), "jpeg")


def _tinted(picture: bytes, number: int) -> bytes:
    pixels = mien.read_image(picture).pixels.copy()
    pixels[0, 0] = number
    return mien.encode_image(Image(pixels), "png")


def test_logs_and_audit_name_nobody(
    serve: Serve,
    key_file: KeyFile,
    bearer: Callable[..., dict[str, str]],
    grace_jpg: bytes,
    tmp_path: Path,
    caplog: pytest.LogCaptureFixture,
) -> None:
    caplog.set_level(logging.DEBUG)
    key = bearer("admin")
    audit = tmp_path / "audit.jsonl"
    client = serve(keys=key_file.path, audit=audit)
    client.put("/v1/galleries/team", headers=key)
    form = [("image", ("Grace Hopper.jpg", grace_jpg))]
    person = "/v1/galleries/team/subjects/Grace%20Hopper"
    client.put(person, files=form, headers=key)
    client.post("/v1/galleries/team/identify", files=form, headers=key)
    client.delete(person, headers=key)
    client.get(person, headers={"Authorization": "Bearer mien_nobody_secret"})
    ours = [record.getMessage() for record in caplog.records if record.name == "mien.server"]
    text = "".join(ours) + audit.read_text()
    for secret in ("Grace", "Hopper", key["Authorization"].split("_", 2)[2], "secret"):
        assert secret not in text
    lines = [json.loads(line) for line in audit.read_text().splitlines()]
    actions = [(line["action"], line["count"]) for line in lines]
    assert actions == [("create", 0), ("enrol", 1), ("search", 1), ("erase", 1)]
    assert lines[1]["subject"] == lines[3]["subject"]
    assert lines[2]["subject"] is None
    assert {line["key"] for line in lines} == {key_file.listed()[0].id}
    assert audit.stat().st_mode & 0o777 == 0o600
    requests = [json.loads(message) for message in ours]
    assert [row["status"] for row in requests] == [201, 201, 200, 200, 401]
    assert all(row["route"].startswith("/v1/galleries/{gallery}") for row in requests)


def test_a_mistake_of_ours_is_a_problem_that_tells_nothing(
    client: TestClient, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO)

    def broken(*_: object) -> None:
        raise ZeroDivisionError(" ".join(["Grace", "Hopper"]))

    monkeypatch.setattr("mien.gallery.Gallery.stats", broken)
    reply = client.get("/v1/galleries/team")
    assert (reply.status_code, reply.json()["type"]) == (500, "/problems/InternalError")
    ours = [record.getMessage() for record in caplog.records if record.name == "mien.server"]
    assert "ZeroDivisionError" in ours[0]
    assert "Hopper" not in reply.text + "".join(ours)


# --------------------------------------------------------------------------------- a real process


def free_port() -> int:
    """A port of this machine that nobody listens on."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
    return port


@contextlib.contextmanager
def process(folder: Path, *options: str) -> Iterator[tuple[str, subprocess.Popen[str]]]:
    """`mien serve` over a folder, with keys if it has some: its address, and the process.

    What it prints is added to `printed` in the folder.
    """
    port = free_port()
    (folder / "galleries").mkdir(exist_ok=True)
    access = () if (folder / "keys.json").exists() else ("--no-keys",)
    with (folder / "printed").open("a") as printed:
        server = subprocess.Popen(
            [*MIEN, "serve", "--gallery", str(folder / "galleries"),
             "--port", str(port), *access, *options],
            env=os.environ | {"MIEN_HOME": str(folder)},
            stdout=printed, stderr=printed, text=True,
        )  # fmt: skip
    address = f"http://127.0.0.1:{port}"
    try:
        wait_for(address, server)
        yield address, server
    finally:
        if server.poll() is None:
            server.kill()
        server.wait()


def wait_for(address: str, server: subprocess.Popen[str]) -> None:
    """Until the server answers that it is ready."""
    for _ in range(600):
        assert server.poll() is None, "the server ended"
        try:
            with urlopen(f"{address}/readyz", timeout=5):
                return
        except OSError:
            time.sleep(0.05)
    pytest.fail("the server did not become ready")


def send(method: str, url: str, *pictures: bytes, key: str = "") -> dict[str, Any]:
    body, headers = None, {"Authorization": f"Bearer {key}"} if key else {}
    if pictures:
        headers["Content-Type"] = "multipart/form-data; boundary=XX"
        head = 'Content-Disposition: form-data; name="image"; filename="Grace Hopper.jpg"'
        parts = [f"--XX\r\n{head}\r\n\r\n".encode() + picture + b"\r\n" for picture in pictures]
        body = b"".join(parts) + b"--XX--\r\n"
    with urlopen(Request(url, body, headers, method=method), timeout=30) as reply:
        result: dict[str, Any] = json.load(reply)
        return result


def test_what_was_acknowledged_survives_a_killed_server(tmp_path: Path, grace_jpg: bytes) -> None:
    """And what was not is there whole, with both pictures, or not at all."""
    acknowledged: list[str] = []
    mirrored = _mirrored(grace_jpg)
    with process(tmp_path) as (address, server):
        team = f"{address}/v1/galleries/team"
        send("PUT", team)

        def enrol() -> None:
            for number in range(1000):
                try:
                    send("PUT", f"{team}/subjects/{number}", grace_jpg, mirrored)
                except OSError:
                    return
                acknowledged.append(str(number))

        writer = threading.Thread(target=enrol)
        writer.start()
        while len(acknowledged) < 10:
            time.sleep(0.01)
        server.kill()
        writer.join()
    with process(tmp_path) as (address, _):
        page = send("GET", f"{address}/v1/galleries/team/subjects?limit=1000")
        there = {row["subject"]: row["templates"] for row in page["subjects"]}
    assert set(acknowledged) <= set(there)
    assert len(there) <= len(acknowledged) + 1
    assert set(there.values()) == {2}


def test_no_file_of_a_process_has_a_face_or_a_key(
    tmp_path: Path, key_file: KeyFile, grace_jpg: bytes, eileen_jpg: bytes
) -> None:
    """Neither while it works, nor with bad input, nor after it was killed in the middle."""
    key = key_file.add("admin", ())
    with process(tmp_path, "--reviews", "9") as (address, server):
        team = f"{address}/v1/galleries/team"
        send("PUT", team, key=key)
        found = send("POST", f"{address}/v1/embed", grace_jpg, key=key)
        send("PUT", f"{team}/subjects/Grace%20Hopper", grace_jpg, key=key)
        send("POST", f"{team}/identify?review=true", eileen_jpg, key=key)
        refused = [
            ("POST", f"{team}/identify?key={key}", grace_jpg[:5000], key),
            ("POST", f"{team}/subjects/Grace%20Hopper/images", b"<html>", key),
            ("GET", f"{team}/subjects/Eileen%20Collins", b"", key),
            ("PUT", f"{team}/subjects/Grace%20Hopper", eileen_jpg, key),
            ("PUT", f"{team}/subjects/Grace%20Hopper", eileen_jpg, key[:-1]),
        ]
        for method, url, picture, text in refused:
            with pytest.raises(HTTPError):
                send(method, url, *([picture] if picture else []), key=text)

        def enrol() -> None:
            with contextlib.suppress(OSError, HTTPException):
                for number in count():
                    send("PUT", f"{team}/subjects/Eileen%20Collins%20{number}", eileen_jpg, key=key)

        writer = threading.Thread(target=enrol)
        writer.start()
        time.sleep(0.3)
        server.kill()
        writer.join()
    vector = np.array(found["images"][0]["faces"][0]["vector"], np.float32)
    written = {
        file: file.read_bytes() for file in tmp_path.rglob("*")
        if file.is_file() and "galleries" not in file.parts
    }  # fmt: skip
    assert written[tmp_path / "printed"].count(b"/identify") == 2
    assert written[tmp_path / "audit.jsonl"].count(b"\n") >= 3
    secrets = [b"Grace", b"Eileen", key.encode(), key.split("_", 2)[2].encode()[:-1]]
    secrets += [picture[at : at + 24] for picture in (grace_jpg, eileen_jpg) for at in (0, 9000)]
    secrets += [vector.tobytes()[:24], f"{vector[0]:.5f}".encode()]
    for file, content in written.items():
        assert not [secret for secret in secrets if secret in content], file
    assert secrets[0] in b"".join(  # what is looked for would be found
        file.read_bytes() for file in (tmp_path / "galleries").iterdir() if file.is_file()
    )


def test_a_stopped_server_finishes_what_it_began(tmp_path: Path, grace_jpg: bytes) -> None:
    with process(tmp_path) as (address, server):
        send("PUT", f"{address}/v1/galleries/team")
        url = f"{address}/v1/galleries/team/subjects/grace"
        host, port = address.removeprefix("http://").split(":")
        head = b'--XX\r\nContent-Disposition: form-data; name="image"\r\n\r\n'
        body = head + grace_jpg + b"\r\n--XX--\r\n"
        with socket.create_connection((host, int(port)), timeout=30) as connection:
            connection.sendall(
                f"PUT {url.removeprefix(address)} HTTP/1.1\r\nHost: {host}:{port}\r\n"
                "Content-Type: multipart/form-data; boundary=XX\r\n"
                f"Content-Length: {len(body)}\r\nConnection: close\r\n\r\n".encode()
                + body[:1000]
            )
            time.sleep(0.3)  # the request has begun
            server.send_signal(signal.SIGTERM)
            time.sleep(0.3)
            connection.sendall(body[1000:])
            answer = b"".join(iter(lambda: connection.recv(65536), b""))
        assert answer.startswith(b"HTTP/1.1 201")
        server.wait(30)
    with process(tmp_path) as (address, _):
        assert send("GET", f"{address}/v1/galleries/team/subjects/grace")["subject"] == "grace"


def test_a_slow_upload_is_ended(recognizer: mien.Recognizer, tmp_path: Path) -> None:
    """A body that stops arriving gives its place back."""
    app = create_app(recognizer, Galleries(tmp_path), Settings(upload_seconds=0.2, queue=1))
    sent: list[dict[str, object]] = []
    pieces = iter([{"type": "http.request", "body": b'{"image": "', "more_body": True}])

    async def receive() -> dict[str, object]:
        for piece in pieces:
            return piece
        await asyncio.sleep(3600)
        raise AssertionError

    async def send(message: dict[str, object]) -> None:
        sent.append(message)

    scope = {
        "type": "http", "method": "POST", "path": "/v1/detect", "raw_path": b"/v1/detect",
        "query_string": b"", "scheme": "http", "http_version": "1.1", "root_path": "",
        "headers": [(b"host", b"localhost"), (b"content-type", b"application/json")],
    }  # fmt: skip
    asyncio.run(asyncio.wait_for(app(scope, receive, send), 30))
    assert sent[0]["status"] == 408
    assert json.loads(bytes(sent[1]["body"]))["type"] == "/problems/UploadTimeout"
    assert app.state.service.doors.inside == 0
    app.state.service.close()


def test_a_second_bad_picture_is_not_logged(
    client: TestClient, caplog: pytest.LogCaptureFixture
) -> None:
    files = [("image", (f"Grace {i}.jpg", b"<html>")) for i in range(3)]
    assert client.post("/v1/detect", files=files).status_code == 415
    gc.collect()
    others = [r for r in caplog.records if not r.name.startswith(("httpx", "mien"))]
    assert "Grace" not in "".join(record.getMessage() for record in others)


def test_nothing_is_sent_to_collectors_of_telemetry(client: TestClient) -> None:
    """FastAPI would send addresses and messages, and with them names, to OpenTelemetry."""
    native = getattr(client.app, "_native_telemetry", None)
    if native is None:
        pytest.skip("this FastAPI has no telemetry")
    assert not native.enabled()
