"""Faces of pictures, and vectors, grouped by person; nothing is kept."""

import numpy as np
import pytest
from starlette.testclient import TestClient

import mien
from mien.types import Image

from .test_bad_input import expect, png_of
from .test_routes import upload


def test_pictures_are_grouped_by_person(
    client: TestClient, grace_jpg: bytes, eileen_jpg: bytes, both_jpg: bytes
) -> None:
    pixels = np.ascontiguousarray(mien.read_image(eileen_jpg).pixels[:, ::-1])
    mirrored = mien.encode_image(Image(pixels), "jpeg")
    reply = client.post(
        "/v1/group", files=upload(grace_jpg, both_jpg, eileen_jpg, mirrored, png_of(64, 64))
    ).json()
    grace, both, eileen, again, empty = (picture["faces"] for picture in reply["images"])
    assert empty == []
    left, right = sorted(both, key=lambda face: face["box"][0])
    assert reply["clusters"] == 2
    assert left["cluster"] == eileen[0]["cluster"] == again[0]["cluster"] == 0  # the larger group
    assert right["cluster"] == grace[0]["cluster"] == 1


def test_strangers_stay_alone_and_no_face_is_no_group(
    client: TestClient, grace_jpg: bytes, eileen_jpg: bytes
) -> None:
    reply = client.post("/v1/group", files=upload(grace_jpg, eileen_jpg)).json()
    assert [picture["faces"][0]["cluster"] for picture in reply["images"]] == [-1, -1]
    assert reply["clusters"] == 0
    assert client.post("/v1/group", files=upload(png_of(64, 64))).json()["clusters"] == 0


def test_vectors_are_grouped_as_their_pictures_are(
    client: TestClient, grace_jpg: bytes, both_jpg: bytes
) -> None:
    pictures = upload(grace_jpg, both_jpg)
    expected = client.post("/v1/group", files=pictures).json()
    embedded = client.post("/v1/embed", files=pictures).json()
    faces = [
        (picture["image"], face) for picture in embedded["images"] for face in picture["faces"]
    ]
    body = {
        "contract": embedded["contract"],
        "vectors": [face["vector"] for _, face in faces],
        "pictures": [name for name, _ in faces],
        "qualities": [face["quality"] for _, face in faces],
    }
    reply = client.post("/v1/group/vectors", json=body)
    assert reply.status_code == 200
    assert reply.json()["numbers"] == [
        face["cluster"] for picture in expected["images"] for face in picture["faces"]
    ]
    same = body | {"vectors": [faces[0][1]["vector"]] * 3, "pictures": ["a", "a", "b"]}
    numbers = client.post("/v1/group/vectors", json=same).json()["numbers"]
    assert sorted(numbers) == [-1, 0, 0], "two faces of one picture are two people"


@pytest.mark.parametrize(
    "wrong",
    [
        {"pictures": ["a"]}, {"qualities": [1.0]}, {"vectors": [[1.0], [1.0, 0.0]]},
        {"vectors": [[0.0], [0.0]]}, {"vectors": []},
        {"vectors": [[1.0]] * 3000, "pictures": ["a"] * 3000},
    ],
)  # fmt: skip
def test_what_cannot_be_grouped(
    client: TestClient, recognizer: mien.Recognizer, wrong: dict[str, object]
) -> None:
    body = {"contract": recognizer.contract, "vectors": [[1.0, 0.0], [0.0, 1.0]]} | wrong
    expect(client.post("/v1/group/vectors", json=body), 422, "InputError")


def test_foreign_vectors_are_not_grouped(client: TestClient) -> None:
    body = {"contract": "another", "vectors": [[1.0, 0.0]]}
    expect(client.post("/v1/group/vectors", json=body), 409, "ContractMismatch")
