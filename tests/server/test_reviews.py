"""Borderline identifications: kept only where switched on, to be confirmed or rejected."""

import io
from collections.abc import Callable

import numpy as np
import pytest
from PIL import Image as Pillow
from starlette.testclient import TestClient

import mien
from mien import decision
from mien.server.keys import KeyFile
from mien.types import Image

from .conftest import Serve
from .test_bad_input import expect
from .test_routes import upload

TEAM = "/v1/galleries/team"
GRACE = f"{TEAM}/subjects/grace"


@pytest.fixture(scope="module")
def veiled_jpg(recognizer: mien.Recognizer) -> bytes:
    """Grace, coarser and paler, so that her score lies near the threshold of a small gallery."""
    from .conftest import PORTRAITS

    picture = Pillow.open(PORTRAITS / "grace-hopper.jpg").convert("RGB")
    clear = recognizer.embed(Image(np.asarray(picture))).embedding
    bundle = recognizer.bundle
    for side in range(60, 24, -2):
        small = picture.resize((side, side * 600 // 512)).resize(picture.size)
        probe = recognizer.embed(Image(np.asarray(small))).embedding
        score = mien.similarity(probe, clear) - decision.demanded(bundle, probe)
        if 4e-3 < decision.impostor_rate(bundle.search_points, score) < 2.5e-2:
            return mien.encode_image(Image(np.asarray(small)), "png")
    pytest.fail("no version of the portrait is borderline")


@pytest.fixture
def client(serve: Serve, grace_jpg: bytes) -> TestClient:
    client = serve(reviews=3)
    client.put(TEAM)
    assert client.put(GRACE, files=upload(grace_jpg)).status_code == 201
    return client


def reviews(client: TestClient) -> list[dict[str, object]]:
    found: list[dict[str, object]] = client.get(f"{TEAM}/reviews").json()["reviews"]
    return found


def test_only_what_is_borderline_is_kept(
    client: TestClient, grace_jpg: bytes, eileen_jpg: bytes, veiled_jpg: bytes
) -> None:
    client.post(f"{TEAM}/identify?review=true", files=upload(grace_jpg, eileen_jpg))
    assert reviews(client) == []
    client.post(f"{TEAM}/identify?review=true", files=upload(veiled_jpg))
    client.post(f"{TEAM}/identify?review=true", files=upload(veiled_jpg))  # kept once
    (review,) = reviews(client)
    assert (review["subject"], review["image"]) == ("grace", "1.jpg")
    assert 2.5e-3 <= float(str(review["fpir_at_score"])) <= 4e-2
    crop = client.get(f"{TEAM}/reviews/{review['review']}/crop")
    assert crop.headers["content-type"] == "image/jpeg"
    assert Pillow.open(io.BytesIO(crop.content)).size == (150, 150)


def test_a_confirmed_face_becomes_a_template(client: TestClient, veiled_jpg: bytes) -> None:
    before = client.post(f"{TEAM}/identify?review=true", files=upload(veiled_jpg)).json()
    (review,) = reviews(client)
    done = client.post(f"{TEAM}/reviews/{review['review']}/confirm")
    assert done.json() == {"subject": "grace", "templates": 2, "negative": False}
    after = client.post(f"{TEAM}/identify?review=true", files=upload(veiled_jpg)).json()
    scores = [reply["images"][0]["faces"][0]["score"] for reply in (before, after)]
    assert scores[0] < scores[1] == pytest.approx(1, abs=1e-4)
    assert reviews(client) == []
    expect(client.post(f"{TEAM}/reviews/{review['review']}/reject"), 404, "UnknownReview")


def test_a_rejected_face_is_never_that_person(client: TestClient, veiled_jpg: bytes) -> None:
    client.post(f"{TEAM}/identify?review=true", files=upload(veiled_jpg))
    (review,) = reviews(client)
    done = client.post(f"{TEAM}/reviews/{review['review']}/reject")
    assert done.json() == {"subject": "grace", "templates": 1, "negative": True}
    again = client.post(f"{TEAM}/identify?review=true", files=upload(veiled_jpg)).json()
    assert again["images"][0]["faces"][0]["candidates"] == []


def test_a_face_may_be_somebody_elses_or_nobodys(client: TestClient, veiled_jpg: bytes) -> None:
    client.post(f"{TEAM}/identify?review=true", files=upload(veiled_jpg))
    path = f"{TEAM}/reviews/{reviews(client)[0]['review']}"
    expect(client.post(f"{path}/confirm?subject=%20"), 422, "InputError")
    done = client.post(f"{path}/confirm?subject=hopper")
    assert (done.json()["subject"], done.json()["templates"]) == ("hopper", 1)
    client.delete(f"{TEAM}/subjects/hopper")
    client.post(f"{TEAM}/identify?review=true", files=upload(veiled_jpg))
    path = f"{TEAM}/reviews/{reviews(client)[0]['review']}"
    assert client.delete(path).status_code == 204
    expect(client.delete(path), 404, "UnknownReview")


def test_reviews_follow_the_person_and_go_with_them(client: TestClient, veiled_jpg: bytes) -> None:
    client.post(f"{TEAM}/identify?review=true", files=upload(veiled_jpg))
    client.post(f"{GRACE}/rename", json={"subject": "hopper"})
    assert reviews(client)[0]["subject"] == "hopper"
    client.delete(f"{TEAM}/subjects/hopper")
    assert reviews(client) == []
    client.delete(TEAM)
    expect(client.get(f"{TEAM}/reviews"), 404, "UnknownGallery")


def test_nothing_is_kept_unless_asked_for(
    serve: Serve, grace_jpg: bytes, veiled_jpg: bytes,
    key_file: KeyFile, bearer: Callable[..., dict[str, str]],
) -> None:  # fmt: skip
    client = serve()
    client.put(TEAM)
    client.put(GRACE, files=upload(grace_jpg))
    plain = client.post(f"{TEAM}/identify", files=upload(veiled_jpg)).json()
    assert plain["images"][0]["faces"][0]["review"] is None
    assert client.get(f"{TEAM}/reviews").json() == {"kept": 200, "reviews": []}
    asked = client.post(f"{TEAM}/identify?review=true", files=upload(veiled_jpg)).json()
    (review,) = reviews(client)
    assert asked["images"][0]["faces"][0]["review"] == review["review"]

    never = serve(reviews=0)
    refused = never.post(f"{TEAM}/identify?review=true", files=upload(veiled_jpg)).json()
    assert refused["images"][0]["faces"][0]["review"] is None
    assert never.get(f"{TEAM}/reviews").json() == {"kept": 0, "reviews": []}

    reader = bearer("read")
    closed = serve(keys=key_file.path, reviews=3)
    expect(closed.get(f"{TEAM}/reviews", headers=reader), 403, "NotAllowed")


def test_the_oldest_make_room(recognizer: mien.Recognizer, grace_jpg: bytes) -> None:
    from mien.server.review import Reviews
    from mien.types import Embedding, Identification, Match, RecognizedFace

    face = recognizer.embed(grace_jpg)
    point = recognizer.operating_point(1e-3)
    kept = Reviews(2)
    for number in range(4):
        vector = np.zeros(4, np.float32)
        vector[number] = 1
        other = RecognizedFace(face.face, face.quality, Embedding(vector, "c"))
        answer = Identification(
            face.face, None, 0.9, (Match(f"p{number}", 1, 0.9),), point, 0.01, 1
        )
        kept.add("g", "x.jpg", other, answer, 0.01, b"")
    assert [review.subject for review in kept.listed("g")] == ["p3", "p2"]
    assert kept.listed("h") == []
