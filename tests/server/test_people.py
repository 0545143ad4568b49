"""Rename, merge, and erase single templates: over the wire, with states, receipts and the log."""

import json
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from starlette.testclient import TestClient

import mien
from mien.gallery import Receipt
from mien.gallery.sqlite import SqliteStore
from mien.server.keys import KeyFile

from .conftest import Serve
from .test_bad_input import expect
from .test_routes import upload

PEOPLE = "/v1/galleries/team/subjects"
GRACE = f"{PEOPLE}/grace"


def enrol(client: TestClient, name: str, *pictures: bytes) -> None:
    assert client.put(f"{PEOPLE}/{name}", files=upload(*pictures)).status_code == 201


def names(client: TestClient) -> list[tuple[str, int]]:
    rows = client.get(PEOPLE).json()["subjects"]
    return [(row["subject"], row["templates"]) for row in rows]


def who(client: TestClient, picture: bytes) -> str | None:
    reply = client.post("/v1/galleries/team/identify", files=upload(picture)).json()
    found: str | None = reply["images"][0]["faces"][0]["subject"]
    return found


def test_one_template_is_erased_and_with_the_last_the_person(
    client: TestClient, grace_jpg: bytes, eileen_jpg: bytes
) -> None:
    enrol(client, "grace", grace_jpg, eileen_jpg)
    first, second = client.get(GRACE).json()["templates"]
    state = client.get(GRACE).headers["etag"]
    wrong = f"{GRACE}/templates/{second['id']}"
    erased = client.delete(wrong, headers={"If-Match": state})
    assert (erased.status_code, erased.json()["templates"]) == (200, 1)
    assert client.get(GRACE).json()["templates"] == [first]
    assert who(client, eileen_jpg) is None
    assert who(client, grace_jpg) == "grace"
    expect(client.delete(wrong), 404, "UnknownTemplate")
    expect(client.delete(f"{PEOPLE}/nobody/templates/1"), 404, "UnknownSubject")
    expect(client.delete(f"{GRACE}/templates/0"), 422, "InputError")
    stale = client.delete(f"{GRACE}/templates/{first['id']}", headers={"If-Match": state})
    expect(stale, 412, "PreconditionFailed")
    assert client.delete(f"{GRACE}/templates/{first['id']}").status_code == 200
    expect(client.get(GRACE), 404, "UnknownSubject")


def test_a_person_is_renamed(client: TestClient, grace_jpg: bytes, eileen_jpg: bytes) -> None:
    enrol(client, "grace", grace_jpg)
    enrol(client, "eileen", eileen_jpg)
    created = client.get(GRACE).json()["created"]
    taken = client.post(f"{GRACE}/rename", json={"subject": "eileen"})
    expect(taken, 409, "Conflict")
    renamed = client.post(f"{GRACE}/rename", json={"subject": "Grace Ćwikła/Hopper"})
    assert renamed.status_code == 200
    assert renamed.json()["subject"] == "Grace Ćwikła/Hopper"
    assert renamed.json()["created"] == created
    there = client.get(f"{PEOPLE}/Grace%20%C4%86wik%C5%82a%2FHopper")
    assert there.headers["etag"] == renamed.headers["etag"]
    assert there.json() == renamed.json()
    assert who(client, grace_jpg) == "Grace Ćwikła/Hopper"
    expect(client.get(GRACE), 404, "UnknownSubject")
    expect(client.post(f"{GRACE}/rename", json={"subject": "g"}), 404, "UnknownSubject")
    eileen = f"{PEOPLE}/eileen/rename"
    for body in ({}, {"subject": ""}, {"subject": "a\nb"}, {"subject": "x" * 201}, {"name": "g"}):
        expect(client.post(eileen, json=body), 422, "InputError")
    expect(client.post(eileen, content=b"{"), 422, "InputError")
    stale = client.post(eileen, json={"subject": "e"}, headers={"If-Match": '"0"'})
    expect(stale, 412, "PreconditionFailed")


def test_two_names_become_one_person(
    client: TestClient, grace_jpg: bytes, eileen_jpg: bytes
) -> None:
    enrol(client, "grace", grace_jpg)
    enrol(client, "hopper", eileen_jpg)
    expect(client.post(f"{GRACE}/merge", json={"subject": "none"}), 404, "UnknownSubject")
    merged = client.post(f"{GRACE}/merge", json={"subject": "hopper"})
    assert (merged.status_code, len(merged.json()["templates"])) == (200, 2)
    assert names(client) == [("hopper", 2)]
    assert who(client, grace_jpg) == who(client, eileen_jpg) == "hopper"


def test_of_many_who_rename_one_wins(client: TestClient, grace_jpg: bytes) -> None:
    enrol(client, "grace", grace_jpg)
    with ThreadPoolExecutor(6) as pool:
        replies = list(
            pool.map(lambda n: client.post(f"{GRACE}/rename", json={"subject": f"g{n}"}), range(6))
        )
    assert sorted(reply.status_code for reply in replies) == [200, *[404] * 5]
    assert len(names(client)) == 1


def test_who_moves_and_erases_is_logged_and_erasure_has_a_receipt(
    serve: Serve, key_file: KeyFile, bearer: Callable[..., dict[str, str]], grace_jpg: bytes,
    tmp_path: Path,
) -> None:  # fmt: skip
    reader, writer = bearer("read", "team"), bearer("write", "team")
    client = serve(keys=key_file.path, audit=tmp_path / "audit.jsonl")
    client.put("/v1/galleries/team", headers=bearer("admin"))
    client.put(GRACE, files=upload(grace_jpg), headers=writer)
    for method, path in (
        ("POST", f"{GRACE}/rename"), ("POST", f"{GRACE}/merge"), ("DELETE", f"{GRACE}/templates/1")
    ):  # fmt: skip
        refused = client.request(method, path, headers=reader)
        expect(refused, 403, "NotAllowed")
    client.post(f"{GRACE}/rename", json={"subject": "Amazing"}, headers=writer)
    erased = client.delete(f"{PEOPLE}/Amazing", headers=writer).json()
    receipt = Receipt.from_json(json.dumps(erased["receipt"]))
    with mien.open_gallery(tmp_path / "galleries" / "team.mien") as gallery:
        assert isinstance(gallery.store, SqliteStore)
        assert receipt.genuine(gallery.store.receipt_key(), "Amazing")
    text = (tmp_path / "audit.jsonl").read_text()
    lines = [json.loads(line) for line in text.splitlines()]
    assert [line["action"] for line in lines] == ["create", "enrol", "rename", "erase"]
    assert lines[1]["subject"] == lines[2]["subject"]
    assert lines[2]["new"] == lines[3]["subject"]
    assert "Amazing" not in text
