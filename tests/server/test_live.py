"""A live camera over the WebSocket: who is told to be there, and who may look."""

import json
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from starlette.testclient import TestClient, WebSocketDenialResponse, WebSocketTestSession
from starlette.websockets import WebSocketDisconnect

import mien
from mien.server.keys import KeyFile
from mien.types import Image

from .conftest import Serve

TEAM = "ws://localhost/v1/galleries/team/live"
TRACK = {
    "track", "box", "quality", "state", "subject", "score", "threshold", "fmr_at_score",
    "fpir_at_score", "candidates", "faces", "liveness",
}  # fmt: skip


@contextmanager
def live(
    client: TestClient, gallery: str = "team", **first: object
) -> Iterator[WebSocketTestSession]:
    with client.websocket_connect(f"ws://localhost/v1/galleries/{gallery}/live") as socket:
        socket.send_text(json.dumps(first))
        yield socket


def scene(socket: WebSocketTestSession, frame: bytes) -> dict[str, Any]:
    socket.send_bytes(frame)
    reply: dict[str, Any] = socket.receive_json()
    return reply


def closed(socket: WebSocketTestSession) -> tuple[dict[str, Any], int]:
    """The problem that is told, and the code that the socket is closed with."""
    problem = socket.receive_json()
    with pytest.raises(WebSocketDisconnect) as end:
        socket.receive_json()
    assert problem["kind"] == "problem"
    return problem, end.value.code


@pytest.fixture
def knows_eileen(client: TestClient, eileen_jpg: bytes) -> TestClient:
    client.put("/v1/galleries/team/subjects/Eileen", files={"image": eileen_jpg})
    return client


def test_two_people_are_followed_and_one_is_known(
    knows_eileen: TestClient, both_jpg: bytes
) -> None:
    with live(knows_eileen, fpir=0.001) as socket:
        ready = socket.receive_json()
        assert ready == {
            "kind": "ready", "gallery": "team", "gallery_size": 1, "fpir": 0.001,
            "frame_bytes": 4_000_000,
        }  # fmt: skip
        scenes = [scene(socket, both_jpg) for _ in range(9)]
    assert [s["frame"] for s in scenes] == list(range(9))
    assert [(s["kind"], s["width"], s["height"], s["dropped"]) for s in scenes] == [
        ("scene", 1024, 512, 0)
    ] * 9
    assert scenes[0]["tracks"] == []  # a face is believed when it was found twice
    last = {track["subject"]: track for track in scenes[-1]["tracks"]}
    assert set(last) == {"Eileen", None}
    assert all(set(track) == TRACK for track in last.values())
    assert last["Eileen"]["state"] == "named"
    assert last["Eileen"]["score"] > last["Eileen"]["threshold"] > last[None]["score"]
    assert last["Eileen"]["fpir_at_score"] < last[None]["fpir_at_score"]
    assert last["Eileen"]["box"][2] < 512 < last[None]["box"][0]
    decided = [(e["event"], e["subject"]) for s in scenes for e in s["events"]]
    assert sorted(decided, key=str) == [("decided", "Eileen"), ("decided", None)]


def test_liveness_is_told_where_it_is_asked_for(
    knows_eileen: TestClient, eileen_jpg: bytes
) -> None:
    with live(knows_eileen) as socket:
        socket.receive_json()
        scenes = [scene(socket, eileen_jpg) for _ in range(2)]
        assert scenes[-1]["tracks"][0]["liveness"] is None
    with live(knows_eileen, liveness=True) as socket:
        socket.receive_json()
        for _ in range(3):
            reply = scene(socket, eileen_jpg)
    told = reply["tracks"][0]["liveness"]
    alone = knows_eileen.post("/v1/analyze?tasks=liveness", files={"image": eileen_jpg}).json()
    assert told == alone["images"][0]["faces"][0]["liveness"]  # the mean of the same thrice


def test_who_is_enrolled_meanwhile_is_known_at_the_next_look(
    client: TestClient, eileen_jpg: bytes, grace_jpg: bytes
) -> None:
    with live(client) as socket:
        assert socket.receive_json()["gallery_size"] == 0
        for _ in range(3):
            reply = scene(socket, eileen_jpg)
        assert reply["tracks"][0]["state"] == "unknown"
        client.put("/v1/galleries/team/subjects/Eileen", files={"image": eileen_jpg})
        darker = mien.encode_image(
            Image((mien.read_image(eileen_jpg).pixels * 0.9).astype(np.uint8)), "jpeg", 95
        )
        for _ in range(6):
            reply = scene(socket, darker)
    assert reply["tracks"][0]["subject"] == "Eileen"


def test_frames_are_dropped_rather_than_delayed(
    knows_eileen: TestClient, eileen_jpg: bytes, monkeypatch: pytest.MonkeyPatch
) -> None:
    """While one frame is at work twenty come; of these the newest is the next to be answered."""
    service = knows_eileen.app.state.service
    entered, leave, read = threading.Event(), threading.Event(), service.read

    def slow(picture: Any) -> Any:
        entered.set()
        assert leave.wait(20)
        return read(picture)

    monkeypatch.setattr(service, "read", slow)
    with live(knows_eileen) as socket:
        socket.receive_json()
        socket.send_bytes(eileen_jpg)
        assert entered.wait(20)
        for _ in range(20):
            socket.send_bytes(eileen_jpg)
        knows_eileen.get("/healthz")  # the server has gone round its loop, and has read them
        leave.set()
        first, second = socket.receive_json(), socket.receive_json()
    assert (first["frame"], second["frame"]) == (0, 20)
    assert second["dropped"] == 19


def test_a_frame_that_is_no_picture_is_told_and_passed(
    knows_eileen: TestClient, eileen_jpg: bytes
) -> None:
    with live(knows_eileen) as socket:
        socket.receive_json()
        problem = scene(socket, b"<html>no picture</html>")
        assert (problem["kind"], problem["type"], problem["frame"], problem["status"]) == (
            "problem", "/problems/UnreadableImage", 0, 415,
        )  # fmt: skip
        assert scene(socket, eileen_jpg)["frame"] == 1


@pytest.mark.parametrize(
    ("first", "name", "code"),
    [
        ("not json", "InputError", 4422),
        ('{"fpir": 0}', "InputError", 4422),
        ('{"faster": true}', "InputError", 4422),
        ("[]", "InputError", 4422),
    ],
)
def test_a_first_message_that_is_none(client: TestClient, first: str, name: str, code: int) -> None:
    with client.websocket_connect(TEAM) as socket:
        socket.send_text(first)
        problem, got = closed(socket)
    assert (problem["type"], got) == (f"/problems/{name}", code)


def test_what_ends_the_connection(serve: Serve, eileen_jpg: bytes) -> None:
    client = serve(frame_bytes=100_000, pixels=300 * 300)
    client.put("/v1/galleries/team")
    with client.websocket_connect(TEAM) as socket:
        socket.send_bytes(eileen_jpg)
        assert closed(socket)[1] == 4400
    with live(client) as socket:
        socket.receive_json()
        socket.send_text("words")
        assert closed(socket)[1] == 4400
    with live(client) as socket:
        socket.receive_json()
        socket.send_bytes(bytes(100_001))
        assert closed(socket)[1] == 4413
    with live(client) as socket:
        socket.receive_json()
        socket.send_bytes(eileen_jpg)
        problem, code = closed(socket)
        assert (problem["type"], code) == ("/problems/ImageTooLarge", 4413)
    with live(client, "nobody") as socket:
        assert closed(socket)[1] == 4404


def test_a_gallery_deleted_under_a_camera_ends_it(
    knows_eileen: TestClient, eileen_jpg: bytes
) -> None:
    with live(knows_eileen) as socket:
        socket.receive_json()
        scene(socket, eileen_jpg)
        assert knows_eileen.delete("/v1/galleries/team").status_code == 204
        socket.send_bytes(eileen_jpg)  # the second sighting asks the gallery
        assert closed(socket)[1] == 4404


def test_only_so_many_cameras(serve: Serve) -> None:
    client = serve(cameras=1)
    client.put("/v1/galleries/team")
    with live(client) as one:
        one.receive_json()
        with live(client) as two:
            problem, code = closed(two)
            assert code == 4503
            assert "cameras" in problem["detail"]
    with live(client) as three:
        assert three.receive_json()["kind"] == "ready"


# ---------------------------------------------------------------------------------------- who may


def test_keys(
    serve: Serve,
    key_file: KeyFile,
    bearer: Callable[..., dict[str, str]],
    eileen_jpg: bytes,
    tmp_path: Path,
    caplog: pytest.LogCaptureFixture,
) -> None:
    client = serve(keys=key_file.path, audit=tmp_path / "audit.jsonl")
    admin = bearer("admin")
    client.put("/v1/galleries/team", headers=admin)
    text = admin["Authorization"].split()[1]
    with live(client) as socket:
        assert closed(socket)[1] == 4401
    with live(client, key="mien_00000000_wrong") as socket:
        problem, code = closed(socket)
        assert code == 4401
        assert "wrong" not in str(problem)
    with live(client, key=bearer("read", "other")["Authorization"].split()[1]) as socket:
        assert closed(socket)[1] == 4403
    with live(client, key="x" * 300) as socket:
        problem, code = closed(socket)
        assert code == 4422
        assert "xxx" not in str(problem)
    with client.websocket_connect(TEAM, headers=admin) as socket:
        socket.send_text("{}")  # programs can send a header
        assert socket.receive_json()["kind"] == "ready"
    with caplog.at_level("INFO", "mien.server"), live(client, key=text) as socket:
        assert socket.receive_json()["kind"] == "ready"
        for _ in range(3):
            scene(socket, eileen_jpg)
        key_file.revoke(text.split("_")[1])
        socket.send_bytes(eileen_jpg)
        assert closed(socket)[1] == 4401
    lines = [json.loads(line) for line in (tmp_path / "audit.jsonl").read_text().splitlines()]
    assert [(line["action"], line["count"]) for line in lines][-1] == ("watch", 1)
    told = [json.loads(record.message) for record in caplog.records]
    (note,) = [line for line in told if line["event"] == "live"]
    assert (note["frames"], note["tracks"], note["key"]) == (3, 1, text.split("_")[1])
    assert text not in caplog.text


@pytest.mark.parametrize("headers", [{"Host": "evil.example"}, {"Origin": "https://evil.example"}])
def test_pages_of_others_cannot_open_a_camera(client: TestClient, headers: dict[str, str]) -> None:
    with (
        pytest.raises((WebSocketDisconnect, WebSocketDenialResponse)),
        client.websocket_connect(TEAM, headers=headers),
    ):
        pass


def test_any_name_of_a_gallery(client: TestClient) -> None:
    client.put("/v1/galleries/a%2Fb %C3%A9")
    with live(client, "a%2Fb %C3%A9") as socket:
        assert socket.receive_json()["gallery"] == "a/b é"
