"""Who may do what: keys, roles, galleries, and what is open without any."""

import errno
import json
import stat
import subprocess
import sys
import time
from collections.abc import Callable
from itertools import count
from pathlib import Path

import pytest
from click.testing import CliRunner
from starlette.testclient import TestClient

from mien.cli import cli
from mien.server.keys import KeyFile

from .conftest import MIEN, Serve

Bearer = Callable[..., dict[str, str]]


@pytest.fixture
def closed(serve: Serve, key_file: KeyFile, bearer: Bearer) -> TestClient:
    """A server with keys and two galleries."""
    admin = bearer("admin")
    client = serve(keys=key_file.path)
    for name in ("team", "guests"):
        assert client.put(f"/v1/galleries/{name}", headers=admin).status_code == 201
    return client


def test_without_a_key_nothing_but_health_is_answered(closed: TestClient, grace_jpg: bytes) -> None:
    schema = closed.get("/openapi.json").json()
    asked = 0
    for path, methods in schema["paths"].items():
        for method in methods:
            address = path.replace("{gallery}", "team").replace("{subject}", "grace")
            reply = closed.request(method, address)
            if path in ("/healthz", "/readyz"):
                assert reply.status_code == 200
            else:
                assert reply.status_code == 401, (method, path)
                assert reply.headers["www-authenticate"] == "Bearer"
                asked += 1
    assert asked >= 15


@pytest.mark.parametrize(
    "header", ["", "Bearer", "Bearer ", "Bearer x", "Basic YTpi", "Bearer mien_00000000_x"]
)
def test_keys_that_are_none(closed: TestClient, header: str) -> None:
    reply = closed.get("/v1/galleries", headers={"Authorization": header})
    assert (reply.status_code, reply.json()["type"]) == (401, "/problems/NotAuthenticated")


def test_roles(closed: TestClient, bearer: Bearer, grace_jpg: bytes) -> None:
    form = [("image", ("g.jpg", grace_jpg))]
    grace = "/v1/galleries/team/subjects/grace"
    requests = [
        ("read", "POST", "/v1/detect", form, 200),
        ("read", "POST", "/v1/galleries/team/identify", form, 200),
        ("read", "GET", "/v1/galleries/team/subjects", None, 200),
        ("write", "PUT", grace, form, 201),
        ("write", "POST", f"{grace}/images", form, 200),
        ("write", "DELETE", grace, None, 200),
        ("admin", "PUT", "/v1/galleries/new", None, 201),
        ("admin", "DELETE", "/v1/galleries/new", None, 204),
    ]
    order = ["read", "write", "admin"]
    keys = {role: bearer(role) for role in order}
    for needed, method, address, files, expected in requests:
        for role in order:
            reply = closed.request(method, address, files=files, headers=keys[role])
            if order.index(role) < order.index(needed):
                assert (reply.status_code, reply.json()["type"]) == (403, "/problems/NotAllowed")
            else:
                assert reply.status_code == expected, (role, method, address, reply.text)
                break  # the stronger roles would find it done


def test_a_key_opens_only_its_galleries(closed: TestClient, bearer: Bearer) -> None:
    key = bearer("admin", "team")
    assert closed.get("/v1/galleries", headers=key).json() == {"galleries": ["team"]}
    assert closed.get("/v1/galleries/team", headers=key).status_code == 200
    for method in ("GET", "PUT", "DELETE"):
        assert closed.request(method, "/v1/galleries/guests", headers=key).status_code == 403
    assert "guests" not in closed.get("/metrics", headers=key).text
    assert closed.get("/v1/me", headers=key).json()["galleries"] == ["team"]


def test_a_revoked_key_is_refused_at_once(
    closed: TestClient, key_file: KeyFile, bearer: Bearer
) -> None:
    key = bearer("read")
    assert closed.get("/v1/galleries", headers=key).status_code == 200
    KeyFile(key_file.path).revoke(key_file.listed()[-1].id)  # as another process would
    assert closed.get("/v1/galleries", headers=key).status_code == 401


def test_the_file_holds_hashes_for_its_owner_alone(key_file: KeyFile) -> None:
    text = key_file.add("read", ())
    assert stat.S_IMODE(key_file.path.stat().st_mode) == 0o600
    assert text.split("_", 2)[2] not in key_file.path.read_text()
    assert len(json.loads(key_file.path.read_text())[0]["hash"]) == 64
    found = key_file.find(text)
    assert found is not None
    assert found.galleries == ("*",)
    assert key_file.find(text[:-1] + ("A" if text[-1] != "A" else "B")) is None


def test_last_use_is_kept_and_brings_no_revoked_key_back(key_file: KeyFile) -> None:
    text = key_file.add("read", ())
    server = KeyFile(key_file.path)
    key = server.find(text)
    assert key is not None
    key_file.revoke(key.id)
    server.save_last_used()
    assert KeyFile(key_file.path).listed() == []
    other = key_file.add("read", ())
    assert server.find(other) is not None
    server.save_last_used()
    assert KeyFile(key_file.path).last_used().keys() >= {key_file.listed()[0].id}


def test_many_processes_may_make_keys_at_once(key_file: KeyFile) -> None:
    code = (
        "import sys, pathlib; from mien.server.keys import KeyFile\n"
        "for _ in range(10): KeyFile(pathlib.Path(sys.argv[1])).add('read', ())"
    )
    makers = [subprocess.Popen([sys.executable, "-c", code, key_file.path]) for _ in range(4)]
    assert [maker.wait(60) for maker in makers] == [0] * 4
    assert len(key_file.listed()) == 40


def test_without_keys_only_this_machine_and_its_own_page_are_answered(client: TestClient) -> None:
    for host in ("localhost", "localhost:8000", "127.0.0.1:8000", "[::1]:8000", "[::1]"):
        assert client.get("/v1/galleries", headers={"Host": host}).status_code == 200
    for host in ("evil.example", "localhost.evil.example", "192.168.1.5:8000", ""):
        reply = client.get("/v1/galleries", headers={"Host": host})
        assert (reply.status_code, reply.json()["type"]) == (403, "/problems/NotAllowed")
    own = {"Host": "localhost:8000", "Origin": "http://localhost:8000"}
    assert client.put("/v1/galleries/team", headers=own).status_code == 200
    for origin in ("https://evil.example", "null", "http://localhost:9000"):
        reply = client.put("/v1/galleries/team", headers=own | {"Origin": origin})
        assert reply.status_code == 403


def test_the_command_line_makes_lists_and_revokes(tmp_path: Path) -> None:
    keys = ["--keys", str(tmp_path / "k.json")]
    runner = CliRunner()
    made = runner.invoke(
        cli, ["serve", "keys", "add", "--role", "write", "--gallery", "team", *keys]
    ).stdout.strip()
    (row,) = map(json.loads, runner.invoke(cli, ["serve", "keys", "list", "--json", *keys]).stdout.split("\n")[:-1])  # fmt: skip  # noqa: E501
    assert (row["role"], row["galleries"], row["last_used"]) == ("write", ["team"], None)
    assert made.startswith(f"mien_{row['id']}_")
    assert runner.invoke(cli, ["serve", "keys", "revoke", row["id"], *keys]).exit_code == 0
    assert runner.invoke(cli, ["serve", "keys", "list", "--json", *keys]).stdout == ""


def test_no_keys_no_other_machine(tmp_path: Path) -> None:
    keys = ["--no-keys", "--keys", str(tmp_path / "k.json")]
    done = subprocess.run(
        [*MIEN, "serve", "--host", "0.0.0.0", *keys],
        capture_output=True, text=True, timeout=60, check=False,
    )  # fmt: skip
    assert done.returncode == 2
    assert "will not listen on 0.0.0.0 without keys" in done.stderr
    assert not (tmp_path / "k.json").exists()


def test_use_is_noted_again_after_the_disk_was_full(
    serve: Serve, key_file: KeyFile, bearer: Bearer, monkeypatch: pytest.MonkeyPatch
) -> None:
    save, tries = KeyFile.save_last_used, count()

    def full_at_first(keys: KeyFile) -> None:
        if next(tries) == 0:
            raise OSError(errno.ENOSPC, "No space left on device")
        save(keys)

    monkeypatch.setattr(KeyFile, "save_last_used", full_at_first)
    monkeypatch.setattr("mien.server.app._SAVE_SECONDS", 0.02)
    header = bearer("read")
    assert serve(keys=key_file.path).get("/v1/galleries", headers=header).status_code == 200
    end = time.monotonic() + 30
    while not KeyFile(key_file.path).last_used() and time.monotonic() < end:
        time.sleep(0.02)
    assert list(KeyFile(key_file.path).last_used()) == [key_file.listed()[0].id]
