"""The clients against a server that runs: the words and the errors of the library."""

import asyncio
import inspect
import re
import subprocess
import sys
from collections.abc import Iterator
from io import BytesIO
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image as Pillow

import mien
from mien import errors
from mien.attributes import load_analyzer
from mien.client import Access, AsyncRemoteGallery, RemoteGallery
from mien.client.wire import opened
from mien.server.keys import KeyFile
from mien.server.problems import problem

from .conftest import PORTRAITS
from .test_load import free_port, process

httpx2 = pytest.importorskip("httpx2", reason="the client needs its extra")

GRACE, EILEEN = PORTRAITS / "grace-hopper.jpg", PORTRAITS / "eileen-collins.jpg"


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[str, str, str]]:
    """The address of a server, a key that may do everything and one that may look at "team"."""
    folder = tmp_path_factory.mktemp("server")
    keys = KeyFile(folder / "keys.json")
    admin, reader = keys.add("admin", ()), keys.add("read", ("team",))
    with process(folder) as (address, _):
        yield address, admin, reader


@pytest.fixture
def client(server: tuple[str, str, str]) -> Iterator[mien.Client]:
    with mien.Client(server[0], server[1]) as client:
        yield client


@pytest.fixture
def team(client: mien.Client) -> Iterator[RemoteGallery]:
    team = client.gallery("team")
    assert team.create() is True
    yield team
    team.delete()


# --------------------------------------------------------------------------- as the library answers


def test_faces_are_those_of_the_library(client: mien.Client, recognizer: mien.Recognizer) -> None:
    (expected,) = recognizer.recognize(GRACE)
    (face,) = client.detect(GRACE)
    assert face.box.left == pytest.approx(expected.face.box.left, abs=0.01)
    np.testing.assert_allclose(face.landmarks.points, expected.face.landmarks.points, atol=0.01)
    (found,) = client.recognize(GRACE)
    np.testing.assert_allclose(found.embedding.vector, expected.embedding.vector, atol=1e-7)
    assert found.embedding.contract == recognizer.contract == client.contract()
    assert found.quality.reasons == expected.quality.reasons
    assert found.quality.value == pytest.approx(expected.quality.value, abs=1e-4)


def test_any_kind_of_picture_can_be_sent(client: mien.Client) -> None:
    data = GRACE.read_bytes()
    pillow = Pillow.open(GRACE)
    boxes = {
        client.detect(source)[0].box
        for source in (str(GRACE), data, memoryview(data), pillow, np.asarray(pillow),
                       mien.read_image(GRACE))
    }  # fmt: skip
    assert len(boxes) == 1


def test_verify_answers_as_the_library_does(
    client: mien.Client, recognizer: mien.Recognizer
) -> None:
    expected = recognizer.verify(GRACE, EILEEN, fmr=1e-2)
    answer = client.verify(GRACE, EILEEN, fmr=1e-2)
    assert answer.match is expected.match
    assert answer.score == pytest.approx(expected.score, abs=1e-5)
    assert answer.operating_point.fnmr == pytest.approx(expected.operating_point.fnmr)
    assert answer.operating_point.protocol == expected.operating_point.protocol


def test_a_gallery_is_used_as_one_on_disk_is(
    client: mien.Client, team: RemoteGallery, recognizer: mien.Recognizer, tmp_path: Path
) -> None:
    name = "Grace/Ćwikła"
    (template,) = team.enroll(name, GRACE)
    assert team.create() is False
    assert client.galleries() == ["team"]
    with mien.open_gallery(tmp_path / "local.mien") as local:
        local.enroll(name, GRACE, recognizer)
        (expected,) = local.identify(GRACE, recognizer, fpir=1e-2)
    (found,) = team.identify(GRACE, fpir=1e-2)
    assert (found.subject, found.fpir, found.gallery_size) == (name, 1e-2, 1)
    assert found.candidates[0].template == template.id
    assert found.score == pytest.approx(expected.score, abs=1e-5)
    points = found.operating_point, expected.operating_point
    assert points[0].threshold == pytest.approx(points[1].threshold, abs=1e-5)
    assert (points[0].fmr, points[0].fnmr) == pytest.approx((points[1].fmr, points[1].fnmr))
    (stranger,) = team.identify(EILEEN)
    assert stranger.subject is None
    (match,) = team.search(client.embed(GRACE).embedding)
    assert (match.subject, match.template) == (name, template.id)
    assert team.search_batch([]) == []

    second = team.enroll(name, [GRACE, EILEEN])[-1]
    assert [t.id for t in team.templates(name)] == [template.id, second.id]
    assert team.remove(name, [second.id]) == 1
    assert [t.subject for t in team.rename(name, "grace")] == ["grace"]
    team.enroll("hopper", EILEEN)
    assert len(team.merge("hopper", "grace")) == 2
    assert [(s.name, s.templates) for s in team.subjects()] == [("grace", 2)]
    assert team.subjects(contains="x") == []
    assert (team.stats().subjects, team.stats().templates) == (1, 2)
    assert team.remove("grace") == 2


def test_faces_are_analysed(client: mien.Client, recognizer: mien.Recognizer) -> None:
    image = mien.read_image(GRACE)
    (expected,) = load_analyzer().analyze(image, recognizer.detector.detect(image))
    (seen,) = client.analyze(GRACE)
    assert expected.liveness is not None
    assert seen.liveness is not None
    assert seen.liveness.live is expected.liveness.live
    assert seen.liveness.operating_point == expected.liveness.operating_point
    assert seen.gender is not None
    assert expected.gender is not None
    assert seen.gender.label == expected.gender.label
    assert seen.pose.yaw == pytest.approx(expected.pose.yaw, abs=0.1)
    (only_pose,) = client.analyze(GRACE, ["pose"])
    assert only_pose.liveness is None
    assert only_pose.quality == seen.quality


def test_faces_are_grouped(client: mien.Client, both_jpg: bytes) -> None:
    (grace,), both = client.group([GRACE, both_jpg])
    assert sorted(number for _, number in both) == [-1, 0]
    assert grace[1] == 0


def test_pages_are_put_together() -> None:
    names = [f"p{number}" for number in range(5)]
    asked = []

    def answer(request: Any) -> Any:
        asked.append(request.url.params["after"])
        rest = [name for name in names if name > asked[-1]]
        rows = [{"subject": name, "templates": 1, "created": "2026"} for name in rest[:2]]
        after = rest[1] if len(rest) > 2 else None
        return httpx2.Response(200, json={"subjects": rows, "total": 5, "next": after})

    with mien.Client("http://h", transport=httpx2.MockTransport(answer)) as client:
        assert [subject.name for subject in client.gallery("g").subjects()] == names
    assert asked == ["", "p1", "p3"]


def test_every_route_has_a_method(
    server: tuple[str, str, str], eileen_jpg: bytes, both_jpg: bytes
) -> None:
    """Each is asked here, and the server is asked nothing that it does not describe."""
    asked: set[tuple[str, str]] = set()

    def note(request: Any) -> None:
        asked.add((request.method.lower(), request.url.raw_path.decode().partition("?")[0]))

    with mien.Client(server[0], server[1], event_hooks={"request": [note]}) as client:
        assert client.alive()
        assert client.ready()
        assert client.access() == Access(client.access().key, "admin", ("*",), True)
        assert "mien_requests_total" in client.metrics()
        assert client.heads() == []
        assert any(model.present for model in client.models())
        with pytest.raises(mien.ServerRefused) as head:
            client.classify(GRACE, "celebrities")
        assert head.value.problem == "UnknownHead"
        client.detect(GRACE)
        client.verify(GRACE, GRACE)
        client.analyze(GRACE, ["pose"])
        client.group([GRACE])
        faces = [face for picture in (GRACE, both_jpg) for face in client.recognize(picture)]
        assert sorted(client.group_faces(faces, ["a", "b", "b"])) == [-1, 0, 0]
        assert client.group_faces([]) == []

        gallery = client.gallery("every route")
        gallery.create()
        (first,) = gallery.enroll_new("grace", GRACE)
        assert [t.id for t in gallery.enroll_new("grace", GRACE)] == [first.id]
        with pytest.raises(mien.ServerRefused) as conflict:
            gallery.enroll_new("grace", EILEEN)
        assert conflict.value.problem == "Conflict"
        (template,) = gallery.enroll("hopper", GRACE)
        gallery.remove("hopper", [template.id])
        gallery.search(faces[0].embedding)
        gallery.rename("grace", "hopper")
        gallery.enroll("grace", GRACE)
        gallery.merge("grace", "hopper")
        assert gallery.templates("hopper")[0].subject == "hopper"
        assert (gallery.stats().subjects, len(gallery.subjects())) == (1, 1)

        assert gallery.enroll_negatives("hopper", EILEEN) == 1
        (stranger,) = gallery.identify(EILEEN)
        assert stranger.candidates == ()
        with pytest.raises(mien.UnknownSubject):
            gallery.enroll_negatives("nobody", EILEEN)
        _review(gallery)
        gallery.remove("hopper")
        gallery.delete()
        described = client._http.get("/openapi.json").json()["paths"]
    there = {(method, path) for path, methods in described.items() for method in methods}
    asked.discard(("get", "/openapi.json"))
    hit = {(method, _route(path, described)) for method, path in asked}
    assert hit == there


def _route(path: str, described: dict[str, Any]) -> str:
    """The route of an address; names in it that have slashes are encoded."""
    fits = [
        route
        for route in described
        if re.fullmatch(re.sub(r"\\{\w+\\}", "[^/]+", re.escape(route)), path)
    ]
    return min(fits, key=lambda route: route.count("{"))


def _review(gallery: RemoteGallery) -> None:
    """Eileen, taken for somebody by a picture that is coarse, is decided in all four ways."""
    clear = Pillow.open(EILEEN)
    coarse = [
        clear.resize((side, side * clear.height // clear.width)).resize(clear.size)
        for side in (48, 64, 72)
    ]
    gallery.enroll("eileen", EILEEN)
    gallery.identify(coarse[0])
    assert gallery.reviews() == []
    for picture in coarse:
        gallery.identify(picture, fpir=0.03, review=True)
    third, second, first = gallery.reviews()
    assert (first.subject, first.image, first.named) == ("eileen", "the picture", False)
    assert Pillow.open(BytesIO(gallery.crop(first))).size == (150, 150)
    assert gallery.confirm(first) == 2
    gallery.reject(second)
    gallery.dismiss(third)
    assert gallery.reviews() == []
    with pytest.raises(mien.ServerRefused) as gone:
        gallery.confirm(third)
    assert gone.value.problem == "UnknownReview"


def test_a_live_camera_names_people_once(
    client: mien.Client, team: RemoteGallery, both_jpg: bytes
) -> None:
    team.enroll("grace", GRACE)
    events = []
    with team.live(fpir=1e-2) as camera:
        for _ in range(9):
            scene = camera.see(both_jpg)
            events += scene.events
        with pytest.raises(mien.UnreadableImage):
            camera.see(b"no picture")
        assert camera.see(both_jpg).frame == 10
    assert (scene.width, scene.height) == (1024, 512)
    states = {track.subject: track.state for track in scene.tracks}
    assert states == {"grace": "named", None: "unknown"}
    named = next(track for track in scene.tracks if track.subject == "grace")
    assert named.threshold is not None
    assert named.score >= named.threshold
    assert named.candidates[0].subject == "grace"
    assert named.liveness is None
    assert sorted((event.kind, event.subject or "") for event in events) == [
        ("decided", ""), ("decided", "grace"),
    ]  # fmt: skip


def test_a_live_camera_says_what_is_wrong(server: tuple[str, str, str]) -> None:
    for key, gallery, why in (
        ("mien_0_0", "team", "NotAuthenticated"), (server[1], "none", "UnknownGallery"),
    ):  # fmt: skip
        with (
            mien.Client(server[0], key) as client,
            pytest.raises(mien.ServerRefused) as refused,
            client.gallery(gallery).live(),
        ):
            pass
        assert refused.value.problem == why
    nobody = mien.Client(f"http://127.0.0.1:{free_port()}")
    with nobody, pytest.raises(mien.ServerUnreachable), nobody.gallery("team").live():
        pass


def test_an_error_of_the_program_is_not_taken_for_one_of_the_camera(
    client: mien.Client, team: RemoteGallery
) -> None:
    with pytest.raises(FileNotFoundError), team.live():
        raise FileNotFoundError("a file of the program")


def test_a_live_camera_can_be_awaited(server: tuple[str, str, str]) -> None:
    async def work() -> str:
        async with mien.AsyncClient(server[0], server[1]) as client:
            gallery = client.gallery("awaited camera")
            await gallery.create()
            async with gallery.live(liveness=True) as camera:
                for _ in range(3):
                    scene = await camera.see(GRACE)
            await gallery.delete()
            (track,) = scene.tracks
            assert track.liveness is not None
            return track.state

    assert asyncio.run(work()) == "unknown"


# ------------------------------------------------------------------------------------------- errors


def test_errors_are_those_of_the_library(
    client: mien.Client, team: RemoteGallery, both_jpg: bytes, tmp_path: Path
) -> None:
    with pytest.raises(mien.SeveralFacesFound) as several:
        team.enroll("grace", both_jpg)
    assert several.value.count == 2
    with pytest.raises(mien.SeveralFacesFound):
        client.embed(both_jpg)
    assert client.embed(both_jpg, mien.largest).face.confidence > 0.9
    with pytest.raises(mien.UnreadableImage) as unreadable:
        client.detect(b"not a picture")
    assert unreadable.value.reason
    with pytest.raises(mien.UnreadableImage):
        client.detect(tmp_path / "missing.jpg")
    with pytest.raises(mien.UnknownSubject) as unknown:
        team.templates("nobody")
    assert unknown.value.subject == "nobody"
    with pytest.raises(mien.NoOperatingPoint) as rate:
        client.verify(GRACE, GRACE, fmr=1e-30)
    assert rate.value.fmr == 1e-30
    with pytest.raises(mien.InputError, match=r"mien\.largest"):
        client.verify(GRACE, GRACE, choose=lambda faces, image: faces[0])
    team.enroll("grace", GRACE)
    foreign = mien.Embedding(np.array([1, 0], np.float32), "another@1")
    with pytest.raises(mien.ContractMismatch) as mismatch:
        team.search(foreign)
    assert mismatch.value.got == "another@1"


def every_error() -> list[mien.MienError]:
    return [
        errors.UnreadableImage("a.jpg", "it is a poem"),
        errors.ImageTooLarge("a.jpg", 9, 3, "pixels"),
        errors.NoFaceFound("a.jpg"),
        errors.SeveralFacesFound("a.jpg", 3),
        errors.LowQuality("a.jpg", 0.1, ["blurred", "small"]),
        errors.UnknownModel("x", ["y", "z"]),
        errors.CorruptWeights("/srv/w", "it is torn"),
        errors.FetchFailed("w", ["no route"]),
        errors.LicenceNotAccepted("x", "GPL"),
        errors.NoOperatingPoint("c", 1e-9, None),
        errors.MissingExtra("the x", "x"),
        errors.UnknownSubject("ada"),
        errors.ContractMismatch("a", "b"),
        errors.GalleryUnavailable("/srv/g.mien", "the disk is full"),
        errors.GalleryDamaged("template 3 is damaged"),
        errors.InputError("too small"),
        errors.ModelError("broken"),
        errors.GalleryError("no"),
    ]


@pytest.mark.parametrize("error", every_error(), ids=lambda error: type(error).__name__)
def test_every_error_comes_back_with_its_facts(error: mien.MienError) -> None:
    """All classes of the tree; only where the server's own files lie is left blank."""
    reply = problem(error)
    with pytest.raises(type(error)) as caught:
        opened(httpx2.Response(reply.status_code, content=bytes(reply.body)))
    assert type(caught.value) is type(error)
    hidden = {"uri", "path"}
    for name, value in vars(error).items():
        assert getattr(caught.value, name) == ("" if name in hidden else value)
    if not hidden & vars(error).keys():
        assert str(caught.value) == str(error)


def test_the_list_above_is_whole() -> None:
    kinds = {k for k in vars(errors).values() if isinstance(k, type)} - {errors.MienError}
    assert {type(error) for error in every_error()} == {
        kind for kind in kinds if issubclass(kind, errors.MienError)
    }


def test_what_only_servers_object_to(server: tuple[str, str, str], client: mien.Client) -> None:
    with pytest.raises(mien.ServerRefused) as unknown:
        client.gallery("none").identify(GRACE)
    assert (unknown.value.problem, unknown.value.status) == ("UnknownGallery", 404)
    with mien.Client(server[0], "mien_0_0") as stranger, pytest.raises(mien.ServerRefused) as who:
        stranger.galleries()
    assert who.value.problem == "NotAuthenticated"
    with mien.Client(server[0], server[2]) as reader, pytest.raises(mien.ServerRefused) as may:
        reader.gallery("team").delete()
    assert (may.value.problem, may.value.status) == ("NotAllowed", 403)
    port = free_port()
    nobody = mien.Client(f"http://127.0.0.1:{port}")
    with nobody, pytest.raises(mien.ServerUnreachable) as silent:
        nobody.galleries()
    assert str(port) in silent.value.url


def test_an_answer_of_something_else_is_no_answer() -> None:
    for content in (b"<html>502</html>", b"[]", b"{}", b'{"type": 5}'):
        with pytest.raises(mien.ServerRefused, match="not of mien"):
            opened(httpx2.Response(502, content=content))
    with pytest.raises(mien.ServerRefused) as caught:  # no name of theirs becomes a class of ours
        opened(httpx2.Response(400, json={"type": "/problems/Sequence", "detail": "?"}))
    assert caught.value.problem == "Sequence"


# ------------------------------------------------------------------------------------------ retries


def busy(*answers: tuple[int, dict[str, str]]) -> tuple[Any, list[str]]:
    """A server that gives these answers, then says yes; and what it was asked."""
    asked: list[str] = []
    script = list(answers)

    def answer(request: Any) -> Any:
        asked.append(f"{request.method} {request.url.path}")
        if not script:
            body = {"galleries": [], "subject": "b", "templates": []}
            return httpx2.Response(200, json=body)
        status, headers = script.pop(0)
        return httpx2.Response(
            status, headers=headers, json={"type": "/problems/Overloaded", "detail": "busy"}
        )

    return httpx2.MockTransport(answer), asked


@pytest.fixture
def slept(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    waits: list[float] = []

    async def sleep(seconds: float) -> None:
        waits.append(seconds)

    monkeypatch.setattr("mien.client.time.sleep", waits.append)
    monkeypatch.setattr("mien.client.asyncio.sleep", sleep)
    return waits


AFTER = {"Retry-After": "2"}


def test_a_busy_server_is_asked_again_when_it_says(slept: list[float]) -> None:
    transport, asked = busy((503, AFTER), (429, AFTER))
    with mien.Client("http://h", transport=transport) as client:
        assert client.galleries() == []
    assert asked == ["GET /v1/galleries"] * 3
    assert all(2 <= wait <= 2.2 for wait in slept)
    assert len(slept) == 2


def test_awaiting_asks_again_as_well(slept: list[float]) -> None:
    transport, asked = busy((503, AFTER))

    async def ask() -> list[str]:
        async with mien.AsyncClient("http://h", transport=transport) as client:
            return await client.galleries()

    assert asyncio.run(ask()) == []
    assert len(asked) == 2
    assert len(slept) == 1


@pytest.mark.parametrize(
    "answers",
    [[(503, AFTER)] * 9, [(503, {})], [(503, {"Retry-After": "3600"})], [(500, AFTER)]],
)
def test_patience_ends(answers: list[tuple[int, dict[str, str]]], slept: list[float]) -> None:
    transport, asked = busy(*answers)
    client = mien.Client("http://h", transport=transport, retries=2)
    with client, pytest.raises(mien.ServerRefused):
        client.galleries()
    assert len(asked) == (3 if len(answers) == 9 else 1)


def test_what_changes_more_when_sent_twice_is_sent_once(slept: list[float]) -> None:
    transport, asked = busy((503, AFTER))
    with mien.Client("http://h", transport=transport) as client:
        with pytest.raises(mien.ServerRefused):
            client.gallery("g").rename("a", "b")
        assert client.gallery("g").rename("a", "b") == []
    assert asked == ["POST /v1/galleries/g/subjects/a/rename"] * 2
    assert slept == []


# -------------------------------------------------------------------------------------------- async


def test_awaited_it_does_the_same(server: tuple[str, str, str]) -> None:
    async def work() -> tuple[bool, list[str | None]]:
        async with mien.AsyncClient(server[0], server[1]) as client:
            gallery = client.gallery("awaited")
            await gallery.create()
            await gallery.enroll("grace", [GRACE])
            verified, *found = await asyncio.gather(
                client.verify(GRACE, GRACE), gallery.identify(GRACE), gallery.identify(EILEEN)
            )
            with pytest.raises(mien.UnknownSubject):
                await gallery.remove("nobody")
            await gallery.delete()
            return verified.match, [faces[0].subject for faces in found]

    assert asyncio.run(work()) == (True, ["grace", None])


@pytest.mark.parametrize(
    ("blocking", "awaited"),
    [(mien.Client, mien.AsyncClient), (RemoteGallery, AsyncRemoteGallery)],
)
def test_both_clients_offer_the_same(blocking: type, awaited: type) -> None:
    def offered(kind: type) -> dict[str, str]:
        return {
            name: str(inspect.signature(value)).replace("Async", "")
            for name, value in vars(kind).items()
            if callable(value) and not name.startswith("_")
        }

    assert offered(blocking) == offered(awaited)
    for name in offered(blocking):
        assert getattr(blocking, name).__doc__, name


def test_signatures_are_those_of_what_is_asked() -> None:
    verify = inspect.signature(mien.Client.verify)
    assert list(verify.parameters) == ["self", "a", "b", "fmr", "choose"]
    assert verify.return_annotation is mien.Verification
    enroll = inspect.signature(RemoteGallery.enroll)
    assert list(enroll.parameters)[:3] == ["self", "subject", "sources"]


def test_without_the_extra_it_says_how_to_install_it() -> None:
    code = (
        "import sys; sys.modules['httpx2'] = None\nimport mien\n"
        "try:\n    mien.Client('http://localhost')\n"
        "except mien.MissingExtra as error:\n    print(error.install)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "pip install 'mien[client]'"


def test_a_key_may_come_from_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MIEN_KEY", "mien_1_2")
    seen = []

    def answer(request: Any) -> Any:
        seen.append(request.headers["authorization"])
        return httpx2.Response(200, json={"galleries": []})

    with mien.Client("http://h", transport=httpx2.MockTransport(answer)) as client:
        client.galleries()
    assert seen == ["Bearer mien_1_2"]
