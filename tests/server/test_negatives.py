"""A face that was taken for somebody and is not: what a reviewer rejects."""

from io import BytesIO

import PIL.Image
import pytest
from PIL.ImageFilter import GaussianBlur
from starlette.testclient import TestClient

from .test_bad_input import expect
from .test_routes import upload

EILEEN = "/v1/galleries/team/subjects/Eileen"


@pytest.fixture
def blurred(eileen_jpg: bytes) -> bytes:
    """A picture of Eileen that is named, not by much."""
    stream = BytesIO()
    PIL.Image.open(BytesIO(eileen_jpg)).filter(GaussianBlur(5)).save(stream, "PNG")
    return stream.getvalue()


def test_a_rejected_face_no_longer_matches_and_the_person_still_does(
    client: TestClient, eileen_jpg: bytes, blurred: bytes
) -> None:
    def named(picture: bytes) -> str | None:
        reply = client.post("/v1/galleries/team/identify", files=upload(picture)).json()
        subject: str | None = reply["images"][0]["faces"][0]["subject"]
        return subject

    client.put(EILEEN, files=upload(eileen_jpg))
    assert (named(eileen_jpg), named(blurred)) == ("Eileen", "Eileen")
    reply = client.post(f"{EILEEN}/negatives", files=upload(blurred))
    assert (reply.status_code, reply.json()) == (201, {"subject": "Eileen", "added": 1})
    assert (named(eileen_jpg), named(blurred)) == ("Eileen", None)
    assert len(client.get(EILEEN).json()["templates"]) == 1  # it is not a picture of hers
    assert client.delete(EILEEN).status_code == 200
    assert client.get("/v1/galleries/team").json()["templates"] == 0


def test_what_cannot_be_rejected(
    client: TestClient, eileen_jpg: bytes, both_jpg: bytes, blurred: bytes
) -> None:
    expect(client.post(f"{EILEEN}/negatives", files=upload(blurred)), 404, "UnknownSubject")
    client.put(EILEEN, files=upload(eileen_jpg))
    expect(client.post(f"{EILEEN}/negatives", files=upload(both_jpg)), 422, "SeveralFacesFound")
    point = client.post(f"{EILEEN}/negatives?at=700,250", files=upload(both_jpg))
    assert point.status_code == 201
    quality = f"{EILEEN}/negatives?min_quality=0.9"
    expect(client.post(quality, files=upload(blurred)), 422, "LowQuality")
