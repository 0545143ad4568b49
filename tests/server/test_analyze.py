"""POST /v1/analyze: the answers of the library, and what is left out is said."""

import pytest
from starlette.testclient import TestClient

import mien
from mien.attributes import MODELS, load_analyzer

from .test_bad_input import expect, png_of
from .test_routes import upload


def test_faces_are_analysed_as_the_library_does(
    client: TestClient, recognizer: mien.Recognizer, both_jpg: bytes
) -> None:
    analyzer = load_analyzer()
    image = mien.read_image(both_jpg)
    expected = analyzer.analyze(image, recognizer.detector.detect(image))
    reply = client.post("/v1/analyze", files=upload(both_jpg, png_of(64, 64)))
    assert reply.status_code == 200
    both, empty = reply.json()["images"]
    assert empty["faces"] == []
    assert reply.json()["missing"].keys() == analyzer.missing.keys()
    for face, seen in zip(both["faces"], expected, strict=True):
        assert face["pose"]["yaw"] == pytest.approx(seen.pose.yaw, abs=0.1)
        assert seen.gender is not None
        assert seen.liveness is not None
        assert face["gender"]["label"] == seen.gender.label
        assert face["liveness"]["live"] is seen.liveness.live
        assert face["liveness"]["score"] == pytest.approx(seen.liveness.score, abs=1e-3)
        assert 0 < face["liveness"]["apcer"] < 1
        assert face["ethnicity"] is None


def test_only_what_is_asked_for_is_answered(client: TestClient, grace_jpg: bytes) -> None:
    reply = client.post("/v1/analyze?tasks=pose,liveness", files=upload(grace_jpg)).json()
    (face,) = reply["images"][0]["faces"]
    assert face["liveness"] is not None
    assert face["gender"] is face["age"] is None
    assert reply["missing"] == {}


def test_tasks_that_cannot_be_done(client: TestClient, grace_jpg: bytes) -> None:
    unknown = client.post("/v1/analyze?tasks=mood", files=upload(grace_jpg))
    assert "liveness" in str(expect(unknown, 422, "InputError")["detail"])
    none = client.post("/v1/analyze?tasks=age%3Dnone", files=upload(grace_jpg))
    expect(none, 503, "UnknownModel")
    missing = [task for task in load_analyzer().missing if MODELS[task] != MODELS["liveness"]]
    for task in missing:
        reply = client.post(f"/v1/analyze?tasks={task}", files=upload(grace_jpg))
        assert reply.status_code == 503, task
        assert reply.json()["type"].rpartition("/")[2] in ("LicenceNotAccepted", "CorruptWeights")
