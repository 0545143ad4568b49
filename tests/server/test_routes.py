"""Every route, with the real recogniser on the bundled portraits."""

from base64 import b64encode
from urllib.parse import quote

import pytest
from starlette.testclient import TestClient

import mien

GRACE = "/v1/galleries/team/subjects/grace"


def upload(*pictures: bytes) -> list[tuple[str, tuple[str, bytes]]]:
    return [("image", (f"{i}.jpg", picture)) for i, picture in enumerate(pictures, 1)]


def test_detect_says_what_the_library_says(
    client: TestClient, recognizer: mien.Recognizer, grace_jpg: bytes
) -> None:
    (expected,) = recognizer.recognize(grace_jpg)
    reply = client.post("/v1/detect", files=upload(grace_jpg))
    assert reply.status_code == 200
    (picture,) = reply.json()["images"]
    assert (picture["image"], picture["width"], picture["height"]) == ("1.jpg", 512, 600)
    (face,) = picture["faces"]
    box = expected.face.box
    assert face["box"] == pytest.approx([box.left, box.top, box.right, box.bottom], abs=0.01)
    assert face["confidence"] == pytest.approx(expected.face.confidence, abs=1e-4)
    assert face["quality"] == pytest.approx(expected.quality.value, abs=1e-4)
    assert len(face["landmarks"]) == 5


def test_several_pictures_are_answered_in_their_order(
    client: TestClient, grace_jpg: bytes, eileen_jpg: bytes
) -> None:
    reply = client.post("/v1/detect", files=upload(grace_jpg, eileen_jpg, grace_jpg)).json()
    assert [picture["height"] for picture in reply["images"]] == [600, 512, 600]


@pytest.mark.parametrize("several", [False, True])
def test_base64_is_answered_as_a_form_is(
    client: TestClient, grace_jpg: bytes, several: bool
) -> None:
    text = b64encode(grace_jpg).decode()
    json = client.post("/v1/detect", json={"image": [text] if several else text}).json()
    form = client.post("/v1/detect", files=upload(grace_jpg)).json()
    assert json["images"][0].pop("image") == "image 1"
    form["images"][0].pop("image")
    assert json == form


def test_embed_gives_the_vectors_of_the_library(
    client: TestClient, recognizer: mien.Recognizer, eileen_jpg: bytes
) -> None:
    (expected,) = recognizer.recognize(eileen_jpg)
    reply = client.post("/v1/embed", files=upload(eileen_jpg)).json()
    assert reply["contract"] == recognizer.contract
    (face,) = reply["images"][0]["faces"]
    assert face["vector"] == pytest.approx(expected.embedding.vector.tolist(), abs=1e-6)


def test_verify_decides_as_the_library_does(
    client: TestClient, recognizer: mien.Recognizer, grace_jpg: bytes, eileen_jpg: bytes
) -> None:
    expected = recognizer.verify(grace_jpg, eileen_jpg, fmr=1e-2)
    reply = client.post("/v1/verify?fmr=1e-2", files=upload(grace_jpg, eileen_jpg)).json()
    assert reply["match"] is expected.match is False
    assert reply["score"] == pytest.approx(expected.score, abs=1e-5)
    assert reply["threshold"] == pytest.approx(expected.operating_point.threshold, abs=1e-5)
    assert reply["fmr"] == pytest.approx(1e-2)
    assert 0.01 < reply["fmr_at_score"] < 1
    same = client.post("/v1/verify", files=upload(grace_jpg, grace_jpg)).json()
    assert same["match"] is True
    assert same["score"] == pytest.approx(1, abs=1e-4)


def test_a_person_is_enrolled_found_listed_and_erased(
    client: TestClient, grace_jpg: bytes, eileen_jpg: bytes
) -> None:
    made = client.put(GRACE, files=upload(grace_jpg))
    assert made.status_code == 201
    assert [image["status"] for image in made.json()["images"]] == ["enrolled"]

    found = client.post("/v1/galleries/team/identify", files=upload(grace_jpg, eileen_jpg)).json()
    (grace,), (eileen,) = (picture["faces"] for picture in found["images"])
    assert (grace["subject"], eileen["subject"]) == ("grace", None)
    assert grace["score"] >= grace["threshold"] > eileen["score"]
    assert grace["fpir_at_score"] <= found["fpir"] < eileen["fpir_at_score"]
    (template,) = made.json()["templates"]
    assert eileen["candidates"] == [
        {"subject": "grace", "score": eileen["score"], "template": template["id"]}
    ]
    assert found["fmr"] <= found["fpir"]
    assert 0 <= found["fnmr"] <= 1
    assert found["gallery_size"] == 1

    listed = client.get("/v1/galleries/team/subjects").json()
    assert [(s["subject"], s["templates"]) for s in listed["subjects"]] == [("grace", 1)]
    shown = client.get(GRACE)
    assert shown.headers["etag"] == made.headers["etag"]
    assert shown.json()["templates"] == made.json()["templates"]

    erased = client.delete(GRACE)
    assert (erased.status_code, erased.json()["templates"]) == (200, 1)
    assert client.get(GRACE).status_code == 404
    again = client.post("/v1/galleries/team/identify", files=upload(grace_jpg)).json()
    assert again["images"][0]["faces"][0]["subject"] is None


def test_put_sent_again_changes_nothing_and_with_other_pictures_is_a_conflict(
    client: TestClient, grace_jpg: bytes, eileen_jpg: bytes
) -> None:
    first = client.put(GRACE, files=upload(grace_jpg))
    again = client.put(GRACE, files=upload(grace_jpg))
    assert (first.status_code, again.status_code) == (201, 200)
    assert again.json()["templates"] == first.json()["templates"]
    assert again.json()["images"][0]["status"] == "present"
    other = client.put(GRACE, files=upload(eileen_jpg))
    assert (other.status_code, other.json()["type"]) == (409, "/problems/Conflict")
    assert client.get(GRACE).json()["templates"] == first.json()["templates"]


def test_pictures_are_added_once_each(
    client: TestClient, grace_jpg: bytes, eileen_jpg: bytes
) -> None:
    added = client.post(f"{GRACE}/images", files=upload(grace_jpg, grace_jpg, eileen_jpg))
    assert added.status_code == 201
    statuses = [image["status"] for image in added.json()["images"]]
    assert sorted(statuses) == ["enrolled", "enrolled", "present"]
    assert len(added.json()["templates"]) == 2
    assert client.post(f"{GRACE}/images", files=upload(grace_jpg)).status_code == 200


def test_all_pictures_are_enrolled_or_none(
    client: TestClient, grace_jpg: bytes, both_jpg: bytes
) -> None:
    refused = client.put(GRACE, files=upload(grace_jpg, both_jpg))
    assert refused.status_code == 422
    assert refused.json()["type"] == "/problems/SeveralFacesFound"
    assert refused.json()["count"] == 2
    assert refused.json()["source"] == "2.jpg"
    assert client.get(GRACE).status_code == 404


def test_a_face_is_chosen_by_policy_or_by_a_point(
    client: TestClient, both_jpg: bytes, eileen_jpg: bytes
) -> None:
    """Eileen is on the left, Grace on the right and larger."""
    people = "/v1/galleries/team/subjects"
    assert client.put(f"{people}/large?choose=largest", files=upload(both_jpg)).status_code == 201
    faces = client.post("/v1/detect", files=upload(both_jpg)).json()["images"][0]["faces"]
    left, top, right, bottom = min(face["box"] for face in faces)
    at = f"{(left + right) / 2:.1f},{(top + bottom) / 2:.1f}"
    assert client.put(f"{people}/eileen?at={at}", files=upload(both_jpg)).status_code == 201
    found = client.post("/v1/galleries/team/identify", files=upload(eileen_jpg)).json()
    assert found["images"][0]["faces"][0]["subject"] == "eileen"
    nobody = client.put(f"{people}/nobody?at=1,1", files=upload(both_jpg))
    assert (nobody.status_code, nobody.json()["type"]) == (422, "/problems/NoFaceFound")


def test_vectors_are_searched_without_a_decision(client: TestClient, grace_jpg: bytes) -> None:
    client.put(GRACE, files=upload(grace_jpg))
    embedded = client.post("/v1/embed", files=upload(grace_jpg)).json()
    vector = embedded["images"][0]["faces"][0]["vector"]
    search = "/v1/galleries/team/search"
    reply = client.post(search, json={"vectors": [vector], "contract": embedded["contract"]})
    ((match,),) = reply.json()["matches"]
    assert match["subject"] == "grace"
    assert match["score"] == pytest.approx(1, abs=1e-4)
    foreign = client.post(search, json={"vectors": [vector], "contract": "another"})
    assert (foreign.status_code, foreign.json()["type"]) == (409, "/problems/ContractMismatch")
    short = client.post(search, json={"vectors": [[1, 2]], "contract": embedded["contract"]})
    assert (short.status_code, short.json()["type"]) == (422, "/problems/InputError")


def test_galleries_are_made_shown_and_deleted(client: TestClient, grace_jpg: bytes) -> None:
    assert client.put("/v1/galleries/team").status_code == 200
    client.put(GRACE, files=upload(grace_jpg))
    assert client.put("/v1/galleries/guests").status_code == 201
    assert client.get("/v1/galleries").json() == {"galleries": ["guests", "team"]}
    assert client.get("/v1/galleries/team").json()["templates"] == 1
    assert client.get("/v1/galleries/guests").json()["templates"] == 0
    assert client.delete("/v1/galleries/team").status_code == 204
    for reply in (client.get("/v1/galleries/team"), client.delete("/v1/galleries/team")):
        assert (reply.status_code, reply.json()["type"]) == (404, "/problems/UnknownGallery")
    assert client.put("/v1/galleries/team").status_code == 201
    assert client.get(GRACE).status_code == 404


def test_people_come_a_page_at_a_time(client: TestClient, grace_jpg: bytes) -> None:
    names = ["Ada", "Bob", "Bobby", "Ćwikła", "Zoë"]
    for name in names:
        url = f"/v1/galleries/team/subjects/{quote(name)}"
        assert client.put(url, files=upload(grace_jpg)).status_code == 201
    seen: list[str] = []
    page = {"next": ""}
    while page["next"] is not None:
        page = client.get(
            "/v1/galleries/team/subjects", params={"limit": 2, "after": page["next"]}
        ).json()
        seen += [row["subject"] for row in page["subjects"]]
    assert seen == sorted(names)  # by code point
    bobs = client.get("/v1/galleries/team/subjects", params={"contains": "BOB"}).json()
    assert [row["subject"] for row in bobs["subjects"]] == ["Bob", "Bobby"]
    assert bobs["total"] == 2


def test_models_say_what_is_loaded_and_measured(
    client: TestClient, recognizer: mien.Recognizer
) -> None:
    reply = client.get("/v1/models").json()
    assert reply["loaded"]["contract"] == recognizer.contract
    points = recognizer.bundle.operating_points
    assert len(reply["loaded"]["operating_points"]) == len(points)
    loaded = {recognizer.bundle.detector.id, recognizer.bundle.embedder.id}
    assert loaded <= {model["id"] for model in reply["models"] if model["present"]}


def test_health_readiness_and_metrics(
    client: TestClient, grace_jpg: bytes, tmp_path: object
) -> None:
    assert client.get("/healthz").json() == {"status": "ok"}
    assert client.get("/readyz").json() == {"status": "ok"}
    client.put(GRACE, files=upload(grace_jpg))
    text = client.get("/metrics").text
    assert 'mien_gallery_templates{gallery="team"} 1.0' in text
    assert 'mien_stage_seconds_count{stage="embed"} 1.0' in text
    route = 'route="/v1/galleries/{gallery}/subjects/{subject}"'
    assert f'mien_requests_total{{method="PUT",{route},status="201"}} 1.0' in text
    assert "grace" not in text


def test_a_server_without_its_folder_is_not_ready(client: TestClient, tmp_path: object) -> None:
    (tmp_path / "galleries").rename(tmp_path / "away")
    reply = client.get("/readyz")
    assert reply.status_code == 503
    assert reply.json()["type"] == "/problems/GalleryUnavailable"
    assert "galleries" not in reply.json()["detail"], "where the files lie is nobody's business"
    assert client.get("/healthz").status_code == 200


@pytest.mark.parametrize(
    ("address", "kind"),
    [("/", "text/html"), ("/app.js", "text/javascript"), ("/app.css", "text/css")],
)
def test_the_page_loads_nothing_from_elsewhere(client: TestClient, address: str, kind: str) -> None:
    reply = client.get(address)
    assert reply.headers["content-type"].startswith(kind)
    policy = reply.headers["content-security-policy"]
    assert "default-src 'none'" in policy
    assert "unsafe" not in policy
    assert "http://" not in reply.text.replace("http://www.w3.org/", "")
    assert "https://" not in reply.text


def test_every_problem_is_explained(client: TestClient) -> None:
    assert "none was detected" in client.get("/problems/NoFaceFound").text
    assert client.get("/problems/None").status_code == 404
