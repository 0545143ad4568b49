"""What should not have been sent: the right status, clear words, nothing lost."""

import io
import struct
import zlib
from urllib.parse import quote

import numpy as np
import pytest
from PIL import Image as Pillow
from starlette.testclient import TestClient

import mien
from mien.types import Image

from .conftest import Serve

TEAM = "/v1/galleries/team"


def chunk(kind: bytes, data: bytes) -> bytes:
    return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))


def png_of(width: int, height: int) -> bytes:
    """A PNG that says it has this size; its pixels are all black."""
    header = struct.pack(">IIBBBBB", width, height, 1, 0, 0, 0, 0)
    pixels = zlib.compress(bytes((width + 7) // 8 + 1) * height, 9)
    return (
        b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", pixels) + chunk(b"IEND", b"")
    )


def files(*pictures: bytes) -> list[tuple[str, tuple[str, bytes]]]:
    return [("image", ("door.jpg", picture)) for picture in pictures]


def expect(reply: object, status: int, kind: str) -> dict[str, object]:
    assert reply.status_code == status, reply.text
    assert reply.headers["content-type"] == "application/problem+json"
    body: dict[str, object] = reply.json()
    assert body["type"] == f"/problems/{kind}"
    assert body["status"] == status
    return body


def test_pictures_that_are_none(client: TestClient, grace_jpg: bytes) -> None:
    html = b"<!doctype html><title>404</title>"
    for data in (b"", html, grace_jpg[: len(grace_jpg) // 2], b"\xff\xd8\xff" + bytes(99)):
        body = expect(client.post("/v1/detect", files=files(data)), 415, "UnreadableImage")
        assert "door.jpg" in str(body["detail"])


def test_a_picture_of_200_megapixels(client: TestClient) -> None:
    """A file of 25 kB that would become 600 MB."""
    bomb = png_of(20_000, 10_000)
    assert len(bomb) < 50_000
    body = expect(client.post("/v1/detect", files=files(bomb)), 413, "ImageTooLarge")
    assert body["size"] == 200_000_000
    assert body["unit"] == "pixels"


def test_a_body_of_50_megabytes(client: TestClient) -> None:
    text = b'{"image": "' + b"A" * 50_000_000 + b'"}'
    headers = {"Content-Type": "application/json"}
    expect(client.post("/v1/detect", content=text, headers=headers), 413, "BodyTooLarge")
    pieces = (text[i : i + 1_000_000] for i in range(0, len(text), 1_000_000))  # length untold
    expect(client.post("/v1/detect", content=pieces, headers=headers), 413, "BodyTooLarge")
    for path in (f"{TEAM}/search", "/v1/group/vectors", f"{TEAM}/subjects/grace/rename"):
        expect(client.post(path, content=text, headers=headers), 413, "BodyTooLarge")


def test_too_many_pictures(serve: Serve, grace_jpg: bytes) -> None:
    client = serve(pictures=2)
    assert client.post("/v1/detect", files=files(grace_jpg, grace_jpg)).status_code == 200
    expect(client.post("/v1/detect", files=files(*[grace_jpg] * 3)), 413, "BodyTooLarge")
    expect(client.post("/v1/detect", json={"image": ["AA=="] * 3}), 413, "BodyTooLarge")


@pytest.mark.parametrize(
    ("kind", "body", "status", "problem"),
    [
        ("text/plain", b"hello", 415, "UnsupportedMedia"),
        ("", b"", 415, "UnsupportedMedia"),
        ("multipart/form-data", b"x", 400, "MalformedRequest"),
        ("multipart/form-data; boundary=b", b"x", 400, "MalformedRequest"),
        ("multipart/form-data; boundary=b", b"--b--\r\n", 400, "MalformedRequest"),
        (
            "multipart/form-data; boundary=b",
            b'--b\r\nContent-Disposition: form-data; name="other"\r\n\r\nx\r\n--b--\r\n',
            400,
            "MalformedRequest",
        ),
        (
            "multipart/form-data; boundary=b",
            b'--b\r\nContent-Disposition: form-data; name="image"\r\n\r\nhalf a pic',
            400,
            "MalformedRequest",
        ),
        ("application/json", b"", 400, "MalformedRequest"),
        ("application/json", b"[1", 400, "MalformedRequest"),
        ("application/json", b'{"image": 5}', 400, "MalformedRequest"),
        ("application/json", b'{"image": []}', 400, "MalformedRequest"),
        ("application/json", b'{"image": "?"}', 400, "MalformedRequest"),
        ("application/json", b'{"image": "AA==", "more": 1}', 400, "MalformedRequest"),
    ],
)
def test_bodies_that_are_not_pictures(
    client: TestClient, kind: str, body: bytes, status: int, problem: str
) -> None:
    reply = client.post("/v1/detect", content=body, headers={"Content-Type": kind})
    expect(reply, status, problem)


def test_verify_wants_two_pictures_with_a_face(
    client: TestClient, grace_jpg: bytes, both_jpg: bytes
) -> None:
    expect(client.post("/v1/verify", files=files(grace_jpg)), 422, "InputError")
    several = client.post("/v1/verify", files=files(grace_jpg, both_jpg))
    assert expect(several, 422, "SeveralFacesFound")["count"] == 2
    none = client.post("/v1/verify", files=files(grace_jpg, png_of(64, 64)))
    expect(none, 422, "NoFaceFound")
    rare = client.post("/v1/verify?fmr=1e-30", files=files(grace_jpg, grace_jpg))
    expect(rare, 503, "NoOperatingPoint")


def test_a_poor_face_is_not_enrolled(client: TestClient, grace_jpg: bytes) -> None:
    url = f"{TEAM}/subjects/grace?min_quality=1"
    soft = client.put(f"{TEAM}/subjects/g?min_quality=1", files=files(_blurred(grace_jpg)))
    assert expect(soft, 422, "LowQuality")["reasons"]
    assert client.get(url).status_code == 404


def _blurred(picture: bytes) -> bytes:
    sharp = Pillow.open(io.BytesIO(picture)).convert("RGB")
    soft = sharp.resize((28, 33)).resize(sharp.size)
    return mien.encode_image(Image(np.asarray(soft)), "png")


@pytest.mark.parametrize("query", ["limit=0", "limit=x", "fpir=0", "fpir=2", "fpir=nan"])
def test_options_out_of_range(client: TestClient, grace_jpg: bytes, query: str) -> None:
    reply = client.post(f"{TEAM}/identify?{query}", files=files(grace_jpg))
    assert query.partition("=")[0] in str(expect(reply, 422, "InputError")["detail"])


@pytest.mark.parametrize("vectors", [[], [[]], [[0, 0]], [[1e999]], [["a"]], "x"])
def test_vectors_that_are_none(client: TestClient, vectors: object) -> None:
    body = str({"vectors": vectors, "contract": "c"}).replace("'", '"').replace("inf", "1e999")
    reply = client.post(f"{TEAM}/search", content=body)
    assert reply.status_code in (409, 422)


# -------------------------------------------------------------------------------------------- names

NAMES = [
    "../../etc/passwd",
    "..%2f..",
    "a/b",
    "/",
    "C:\\nul",
    "con",
    "Ada Lovelace",
    "ada lovelace",
    "Zoë",
    "Zoe\u0308",
    "李小龙",
    "😀" * 12,
    "'; DROP TABLE subject; --",
    "100%",
    "%00",
    "a?b#c",
    ".hidden",
    "x.mien",
]


def test_any_name_is_a_person_and_a_gallery_of_its_own(
    client: TestClient, grace_jpg: bytes, tmp_path: object
) -> None:
    for name in NAMES:
        there = f"/v1/galleries/{quote(name, safe='')}"
        made = client.put(there)
        assert made.status_code == 201, (name, made.text)
        assert made.json()["gallery"] == name
        person = f"{TEAM}/subjects/{quote(name, safe='')}"
        enrolled = client.put(person, files=files(grace_jpg))
        assert enrolled.status_code == 201, name
        assert client.get(person).json()["subject"] == name
    assert client.get("/v1/galleries").json()["galleries"] == sorted([*NAMES, "team"])
    page = client.get(f"{TEAM}/subjects?limit=1000").json()
    assert [row["subject"] for row in page["subjects"]] == sorted(NAMES)
    folder = tmp_path / "galleries"
    assert {path.name for path in tmp_path.iterdir()} == {"galleries"}
    assert all(path.is_file() for path in folder.iterdir())
    for name in NAMES:
        assert client.delete(f"/v1/galleries/{quote(name, safe='')}").status_code == 204
        assert client.delete(f"{TEAM}/subjects/{quote(name, safe='')}").status_code == 200
    assert all(path.name.startswith("team.mien") for path in folder.iterdir())


@pytest.mark.parametrize("name", ["a%0Ab", "%20", "%1b", "x" * 201, "%7f"])
def test_names_that_cannot_be_shown(client: TestClient, grace_jpg: bytes, name: str) -> None:
    expect(client.put(f"{TEAM}/subjects/{name}", files=files(grace_jpg)), 422, "InputError")
    expect(client.put(f"/v1/galleries/{name}"), 422, "InputError")


def test_addresses_that_are_not_unicode(client: TestClient) -> None:
    for name in ("%ff", "%c0%af", "%ed%a0%80", "%00", "a%00%2Fb"):
        expect(client.get(f"{TEAM}/subjects/{name}"), 400, "MalformedRequest")


def test_addresses_and_methods_that_are_not_there(client: TestClient) -> None:
    for address in ("/v1", "/v1/detect/", "/v2/detect", "/v1/analyse", "/docs", "/redoc"):
        expect(client.get(address), 404, "UnknownRoute")
    expect(client.get("/v1/detect"), 405, "MethodNotAllowed")
    expect(client.get("/v1/galleries/none"), 404, "UnknownGallery")
    expect(client.get("/v1/galleries/none/subjects"), 404, "UnknownGallery")
    expect(client.get(f"{TEAM}/subjects/none"), 404, "UnknownSubject")
    expect(client.delete(f"{TEAM}/subjects/none"), 404, "UnknownSubject")
