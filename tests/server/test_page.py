"""The web page in a real browser, with a fake camera: every section, by mouse and by keyboard."""

import base64
import itertools
import json
import os
import shutil
from collections.abc import Callable, Iterator
from io import BytesIO
from pathlib import Path
from urllib.parse import quote
from urllib.request import Request, urlopen

import numpy as np
import PIL.Image
import PIL.ImageFilter
import pytest

import mien
from mien.server.keys import KeyFile
from mien.types import Image

from .conftest import PORTRAITS
from .test_load import process

sync_api = pytest.importorskip("playwright.sync_api", reason="the page is tested with playwright")
axe = pytest.importorskip("axe_core_python.sync_playwright", reason="and with axe-core-python")

expect = sync_api.expect
expect.set_options(timeout=30_000)  # a machine may be busy
CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser")
pytestmark = pytest.mark.skipif(
    CHROMIUM is None, reason="no Chromium; with Debian: apt-get install chromium"
)

GRACE, EILEEN = PORTRAITS / "grace-hopper.jpg", PORTRAITS / "eileen-collins.jpg"
NUMBERS = itertools.count(1)
SECTIONS = ("recognise", "people", "live", "compare", "match", "groups", "review", "models")


@pytest.fixture(scope="module")
def shots(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Where screenshots go: the folder that MIEN_SCREENSHOTS names, else a temporary one."""
    folder = os.environ.get("MIEN_SCREENSHOTS")
    return Path(folder) if folder else tmp_path_factory.mktemp("screenshots")


@pytest.fixture(scope="module")
def browser(tmp_path_factory: pytest.TempPathFactory) -> Iterator["sync_api.Browser"]:
    """Chromium with a camera before which Eileen and Grace sway from side to side."""
    film = tmp_path_factory.mktemp("camera") / "both.mjpeg"
    portraits = [mien.read_image(path).pixels[:480] for path in (EILEEN, GRACE)]
    wide = np.pad(np.concatenate(portraits, axis=1), ((0, 0), (64, 64), (0, 0)), "edge")
    swaying = [round(64 + 60 * np.sin(2 * np.pi * n / 90)) for n in range(90)]
    frames = (Image(np.ascontiguousarray(wide[:, left : left + 1024])) for left in swaying)
    film.write_bytes(b"".join(mien.encode_image(frame, "jpeg", 88) for frame in frames))
    with sync_api.sync_playwright() as playwright:
        browser = playwright.chromium.launch(
            executable_path=CHROMIUM,
            args=[
                "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run",
                "--disable-background-networking", "--disable-component-update", "--disable-sync",
                "--use-fake-ui-for-media-stream", "--use-fake-device-for-media-stream",
                f"--use-file-for-fake-video-capture={film}",
            ],
        )  # fmt: skip
        yield browser
        browser.close()


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("server")


@pytest.fixture(scope="module")
def server(folder: Path, recognizer: mien.Recognizer) -> Iterator[tuple[str, str]]:
    """A server's address, and a key that may do everything on it; its head knows two people."""
    pytest.importorskip("sklearn", reason="a head is fitted with scikit-learn")
    from .test_classify import fitted

    (folder / "heads").mkdir()
    fitted([recognizer], folder / "heads" / "pioneers.head")
    key = KeyFile(folder / "keys.json").add("admin", ())
    with process(folder, "--heads", str(folder / "heads")) as (address, _):
        yield address, key


@pytest.fixture
def reader(folder: Path) -> str:
    """A key that may only look."""
    return KeyFile(folder / "keys.json").add("read", ())


Opener = Callable[..., "sync_api.Page"]


@pytest.fixture
def opened(browser: "sync_api.Browser", server: tuple[str, str]) -> Iterator[Opener]:
    """Opens the page with a key and a new gallery; what the browser complains of fails the test."""
    address, key = server
    gallery = f"Team {next(NUMBERS)}"
    put = Request(f"{address}/v1/galleries/{quote(gallery, safe='')}", method="PUT",
                  headers={"Authorization": f"Bearer {key}"})  # fmt: skip
    urlopen(put, timeout=20).close()
    complaints: list[str] = []
    contexts = []

    def watch(page: "sync_api.Page") -> None:
        page.on("pageerror", lambda error: complaints.append(str(error)))
        page.on(
            "console",
            lambda message: (
                complaints.append(message.text)
                if message.type == "error" and not message.text.startswith("Failed to load")
                else None
            ),
        )
        ours = (address, address.replace("http", "ws"), "blob:", "data:")
        page.on(
            "request",
            lambda request: (
                None if request.url.startswith(ours) else complaints.append(f"asked {request.url}")
            ),
        )

    def start(key: str = key, **options: object) -> "sync_api.Page":
        options = {"viewport": {"width": 1200, "height": 860}, "reduced_motion": "reduce"} | options
        context = browser.new_context(**options)
        contexts.append(context)
        page = context.new_page()
        page.set_default_timeout(30_000)
        watch(page)
        page.add_init_script(f"sessionStorage.setItem('mien-gallery', {gallery!r})")
        page.goto(address)
        page.fill("#key-text", key)
        page.click("#ask-key [type=submit]")
        page.wait_for_selector("#ask-key", state="hidden")
        return page

    yield start
    for context in contexts:
        context.close()
    assert complaints == []


@pytest.fixture
def page(opened: Opener) -> "sync_api.Page":
    return opened()


def accessible(page: "sync_api.Page") -> None:
    found = axe.Axe().run(page)["violations"]
    assert [(rule["id"], [node["html"] for node in rule["nodes"]]) for rule in found] == []


def section(page: "sync_api.Page", name: str) -> None:
    page.click(f"nav a[href='#{name}']")
    expect(page.locator(f"#view-{name}")).to_be_visible()


def lists(page: "sync_api.Page", *names: str) -> None:
    """The people are these, soon."""
    expect(page.locator("#people-list .name")).to_have_text([*names])


def enrolled(page: "sync_api.Page", name: str, *pictures: Path) -> None:
    """Enrol somebody in the section of people."""
    section(page, "people")
    page.click("#add")
    page.fill("#person-name", name)
    page.set_input_files("#person-pictures", pictures)
    expect(page.locator("#person-checks li")).to_have_count(len(pictures))
    page.click("#person-save:enabled")
    expect(page.locator("#people-list .name", has_text=name)).to_be_visible()


def test_a_key_is_asked_for_and_a_wrong_one_refused(
    browser: "sync_api.Browser", server: tuple[str, str], shots: Path
) -> None:
    page = browser.new_page(reduced_motion="reduce")
    page.goto(server[0])
    page.fill("#key-text", "mien_00000000_wrong")
    page.click("#ask-key [type=submit]")
    expect(page.locator("#key-error")).to_contain_text("revoked")
    page.screenshot(path=shots / "01-key.png")
    accessible(page)
    page.close()


def test_enrol_recognise_live_match_erase(page: "sync_api.Page", shots: Path) -> None:
    """The walk through the whole page, with one person enrolled on the way."""
    page.screenshot(path=shots / "02-empty.png")
    accessible(page)

    page.set_input_files("#pictures", EILEEN)
    page.wait_for_selector("article .face")
    page.click("article canvas", position=_middle_of_face(page))
    page.wait_for_selector("#enrol[open]")
    expect(page.locator("#enrol-quality")).to_contain_text("Good quality")
    page.fill("#enrol-name", "Eileen Collins")
    page.screenshot(path=shots / "03-enrol.png")
    accessible(page)
    page.click("#enrol-save")
    page.wait_for_selector("article .face.known")
    expect(page.locator("article .who")).to_contain_text("Eileen Collins")

    page.set_input_files("#pictures", GRACE)
    expect(page.locator("article")).to_have_count(2)
    expect(page.locator("article:first-child .who")).to_contain_text("Unknown")
    expect(page.locator("article:first-child .face")).to_contain_text(
        "strangers would score this high"
    )
    assert _drawn(page, "article:first-child canvas")
    page.screenshot(path=shots / "04-recognised.png", full_page=True)
    accessible(page)

    section(page, "live")
    page.screenshot(path=shots / "05-live-before.png")
    page.click("#live-start")
    rows = page.locator("#live-tracks .face")
    expect(rows.filter(has_text="Eileen Collins")).to_have_count(1)
    expect(rows.filter(has_text="Unknown")).to_have_count(1)
    expect(page.locator(".box.named")).to_have_text("Eileen Collins")
    expect(page.locator("#live-events")).to_contain_text("Eileen Collins is here")
    expect(page.locator("#live-rate")).to_contain_text("frames a second")
    _inside(page, ".box.named", "#live-stage")
    page.screenshot(path=shots / "06-live.png")
    accessible(page)
    rows.filter(has_text="Unknown").locator("button").click()
    page.fill("#enrol-name", "Grace Hopper")
    page.screenshot(path=shots / "07-live-enrol.png")
    page.click("#enrol-save:enabled")
    page.wait_for_selector("#enrol", state="hidden")
    page.click("#live-stop")
    page.click("#live-start")  # as a new track, she is known
    expect(rows.filter(has_text="Grace Hopper")).to_have_count(1)
    page.click("nav a[href='#match']")  # and leaving the section releases the camera
    page.wait_for_function("document.getElementById('live-video').srcObject === null")

    expect(page.locator("#head-about")).to_contain_text("Knows 2 people")
    page.set_input_files("#match-picture", GRACE)
    expect(page.locator("#matches .who")).to_have_text("Grace Hopper")
    expect(page.locator("#matches .bars li")).to_have_count(2)
    page.screenshot(path=shots / "08-match.png")
    accessible(page)

    section(page, "people")
    lists(page, "Eileen Collins", "Grace Hopper")
    page.click("[aria-label='Erase Eileen Collins']")
    page.screenshot(path=shots / "09-erase.png")
    page.click("#remove >> text=Keep")
    lists(page, "Eileen Collins", "Grace Hopper")
    page.click("[aria-label='Erase Eileen Collins']")
    page.click("#remove-yes")
    page.wait_for_selector(".receipt")
    expect(page.locator(".receipt")).to_contain_text("Eileen Collins, 1 template")
    with page.expect_download() as download:
        page.click(".receipt a")
    assert "signature" in download.value.path().read_text()
    assert "Eileen" not in download.value.path().read_text()
    lists(page, "Grace Hopper")
    page.screenshot(path=shots / "10-erased.png")
    accessible(page)

    section(page, "recognise")
    page.click("#camera")
    page.wait_for_selector("#shoot-take:enabled")
    page.wait_for_timeout(500)
    page.screenshot(path=shots / "11-camera.png")
    page.click("#shoot-take")
    expect(page.locator("article")).to_have_count(3)
    expect(page.locator("article:first-child .face.known .who")).to_contain_text("Grace Hopper")
    expect(page.locator("article:first-child .face:not(.known) .who")).to_contain_text("Unknown")


def test_compare(page: "sync_api.Page", shots: Path) -> None:
    section(page, "compare")
    page.set_input_files("#slot-a input", GRACE)
    page.set_input_files("#slot-b input", EILEEN)
    page.wait_for_selector(".verdict")
    expect(page.locator(".verdict")).to_contain_text("Not shown to be the same person")
    page.set_input_files("#slot-b input", GRACE)
    page.wait_for_selector(".verdict.match")
    page.screenshot(path=shots / "12-compare.png")
    accessible(page)


def test_people_are_added_renamed_and_merged(page: "sync_api.Page", shots: Path) -> None:
    section(page, "people")
    page.click("#add")
    page.fill("#person-name", "Grace Hooper")
    page.set_input_files("#person-pictures", [GRACE, EILEEN])
    expect(page.locator("#person-checks .good")).to_have_count(2)
    page.click("[aria-label='Leave out eileen-collins.jpg']")
    page.screenshot(path=shots / "13-add.png")
    accessible(page)
    page.click("#person-save")
    enrolled(page, "Amazing Grace", GRACE)
    lists(page, "Amazing Grace", "Grace Hooper")

    page.click("[aria-label='Details of Grace Hooper']")
    expect(page.locator("#details-templates li")).to_contain_text("grace-hopper.jpg")
    page.screenshot(path=shots / "14-details.png")
    accessible(page)
    page.fill("#details-name", "Grace Hopper")
    page.click("#details-rename")
    expect(page.locator("#status")).to_have_text("Grace Hooper is Grace Hopper now.")
    lists(page, "Amazing Grace", "Grace Hopper")

    page.click("[aria-label='Details of Amazing Grace']")
    page.fill("#details-name", "Grace Hopper")
    page.click("#details-rename")
    expect(page.locator("#merge-words")).to_contain_text("enrolled as Grace Hopper already")
    page.screenshot(path=shots / "15-merge.png")
    accessible(page)
    page.click("#merge-yes")
    expect(page.locator("#status")).to_contain_text("who has 2 pictures now")
    lists(page, "Grace Hopper")

    page.click("[aria-label='Details of Grace Hopper']")
    page.locator("#details-templates button").first.click()
    expect(page.locator("#details-templates li")).to_have_count(1)
    page.click("#details >> text=Close")
    page.screenshot(path=shots / "16-people.png")
    page.fill("#search", "nobody of this name")
    expect(page.locator("#people-count")).to_have_text("Nobody has such a name.")


def test_pictures_that_cannot_be_enrolled_say_why(
    page: "sync_api.Page", tmp_path: Path, both_jpg: bytes, shots: Path
) -> None:
    (tmp_path / "both.jpg").write_bytes(both_jpg)
    PIL.Image.new("RGB", (200, 200), "grey").save(tmp_path / "nobody.png")
    small = PIL.Image.open(EILEEN).resize((90, 90))
    canvas = PIL.Image.new("RGB", (300, 300), "grey")
    canvas.paste(small, (100, 100))
    canvas.save(tmp_path / "small.png")
    section(page, "people")
    page.click("#add")
    page.fill("#person-name", "Eileen")
    files = [tmp_path / name for name in ("both.jpg", "nobody.png", "small.png")]
    page.set_input_files("#person-pictures", files)
    words = page.locator("#person-checks .poor")
    expect(words).to_have_count(3)
    texts = words.all_inner_texts()
    assert "2 faces" in texts[0]
    assert "No face" in texts[1]
    assert "too small" in texts[2]
    page.screenshot(path=shots / "17-quality.png")
    accessible(page)


def test_groups_are_found_named_and_enrolled(
    page: "sync_api.Page", tmp_path: Path, shots: Path
) -> None:
    album = tmp_path / "album"
    album.mkdir()
    for name, path in (("g", GRACE), ("e", EILEEN)):
        picture = PIL.Image.open(path)
        for number, light in enumerate((1.0, 0.85, 0.7)):
            picture.point(lambda level, light=light: level * light).save(
                album / f"{name}{number}.jpg", quality=92
            )
    (album / "letter.jpg").write_bytes(b"<html>no picture</html>")
    (album / "notes.txt").write_text("no picture at all")
    section(page, "groups")
    accessible(page)
    page.set_input_files("#group-folder", album)
    cards = page.locator("#groups article.group")
    expect(cards).to_have_count(2)
    expect(page.locator("#groups [role=status]")).to_contain_text(
        "6 faces in 7 pictures: 2 people seen more than once, 0 faces seen once."
    )
    expect(page.locator("#groups [role=status]")).to_contain_text("letter.jpg")
    cards.first.locator("input").fill("First of the album")
    page.screenshot(path=shots / "18-groups.png", full_page=True)
    accessible(page)
    cards.first.locator("button").click()
    expect(cards.first.locator(".good")).to_contain_text("enrolled with 3 pictures")
    section(page, "people")
    lists(page, "First of the album")


def test_borderline_faces_are_reviewed(page: "sync_api.Page", tmp_path: Path, shots: Path) -> None:
    """Eileen blurred, and coarse: confirmed she is enrolled, rejected she is not."""
    clear = PIL.Image.open(EILEEN)
    clear.filter(PIL.ImageFilter.GaussianBlur(4.25)).save(tmp_path / "blurred.png")
    small = clear.resize((64, 64 * clear.height // clear.width))
    small.resize(clear.size).save(tmp_path / "coarse.png")
    enrolled(page, "Eileen", EILEEN)
    section(page, "review")
    expect(page.locator("#review-none")).to_be_visible()
    section(page, "recognise")
    page.set_input_files("#pictures", [EILEEN, tmp_path / "blurred.png", tmp_path / "coarse.png"])
    expect(page.locator("article")).to_have_count(3)
    expect(page.locator("nav a[href='#review']")).to_have_text("Review (2)")
    section(page, "review")
    expect(page.locator("#review-list li h2")).to_have_text(["Is this Eileen?"] * 2)
    page.screenshot(path=shots / "19-review.png")
    accessible(page)
    page.locator("#review-list li").first.locator("text=No, somebody else").click()
    expect(page.locator("#status")).to_contain_text("no longer taken for Eileen")
    page.locator("#review-list li").first.locator("text=Yes").click()
    expect(page.locator("#status")).to_contain_text("Eileen has another picture")
    expect(page.locator("nav a[href='#review']")).to_have_text("Review")
    section(page, "people")
    expect(page.locator("#people-list li")).to_contain_text("2 pictures")
    section(page, "recognise")
    page.set_input_files("#pictures", tmp_path / "coarse.png")
    expect(page.locator("article")).to_have_count(4)
    expect(page.locator("article:first-child .who")).to_contain_text("Unknown")


def test_reviews_that_the_server_keeps(
    browser: "sync_api.Browser",
    recognizer: mien.Recognizer,
    tmp_path: Path,
    shots: Path,
) -> None:
    """They come from everybody who asks it, here from a program, with a crop of the face."""
    (tmp_path / "galleries").mkdir()
    with mien.open_gallery(tmp_path / "galleries" / "people.mien") as gallery:
        gallery.enroll("Eileen", EILEEN, recognizer)
    body = BytesIO()
    PIL.Image.open(EILEEN).filter(PIL.ImageFilter.GaussianBlur(5)).save(body, "PNG")
    picture = json.dumps({"image": base64.b64encode(body.getvalue()).decode()}).encode()
    with process(tmp_path) as (address, _):
        asked = Request(f"{address}/v1/galleries/people/identify?review=true", picture,
                        {"Content-Type": "application/json"})  # fmt: skip
        urlopen(asked, timeout=30).close()
        page = browser.new_page(reduced_motion="reduce")
        page.set_default_timeout(30_000)
        page.goto(address)
        section(page, "review")
        expect(page.locator("#review-list li h2")).to_have_text("Is this Eileen?")
        page.wait_for_function(
            """() => document.querySelector("#review-list canvas").getContext("2d")
                .getImageData(96, 96, 1, 1).data[3] === 255"""
        )
        page.screenshot(path=shots / "19-review-kept.png")
        page.click("text=No, somebody else")
        expect(page.locator("#review-none")).to_be_visible()
        page.close()


def test_what_is_loaded(page: "sync_api.Page", shots: Path) -> None:
    section(page, "models")
    page.wait_for_selector("#models table")
    text = page.inner_text("#models")
    assert "ready" in text
    assert "commercial use allowed" in text
    page.screenshot(path=shots / "20-models.png", full_page=True)
    accessible(page)


def test_a_reader_is_offered_nothing_to_write(opened: Opener, reader: str) -> None:
    page = opened(key=reader)
    page.set_input_files("#pictures", GRACE)
    page.wait_for_selector("article .face")
    assert page.locator("article button").count() == 0
    section(page, "people")
    expect(page.locator("#people-count")).to_have_text("Nobody is enrolled yet.")
    expect(page.locator("#add")).to_be_hidden()
    expect(page.locator("nav a[href='#review']")).to_be_hidden()
    expect(page.locator("#new-gallery")).to_be_hidden()


def test_the_page_says_what_is_wrong_with_a_picture(page: "sync_api.Page", tmp_path: Path) -> None:
    (tmp_path / "letter.jpg").write_bytes(b"<html>no picture</html>")
    page.set_input_files("#pictures", tmp_path / "letter.jpg")
    page.wait_for_selector("#status.bad")
    expect(page.locator("#status")).to_contain_text("letter.jpg")


def test_a_picture_chosen_while_the_page_starts_is_not_lost(page: "sync_api.Page") -> None:
    held: list[sync_api.Route] = []

    def hold(route: "sync_api.Route") -> None:
        held.append(route)

    page.route("**/v1/models", hold)
    page.reload()
    page.set_input_files("#pictures", EILEEN)
    page.wait_for_timeout(300)
    expect(page.locator("#results .who")).to_have_count(0)
    for request in held:
        request.continue_()
    expect(page.locator("#results .who")).to_have_count(1)


def test_everything_can_be_reached_by_keyboard(page: "sync_api.Page") -> None:
    page.focus("body")
    reached = []
    for _ in range(16):
        page.keyboard.press("Tab")
        reached.append(
            page.evaluate("document.activeElement.id || document.activeElement.innerText")
        )
    for wanted in ("People", "Live", "Compare", "Match", "Groups", "Review", "Models", "gallery",
                   "pictures", "camera", "fpir"):  # fmt: skip
        assert wanted in reached


def test_leaving_while_the_camera_starts_leaves_nothing_on(page: "sync_api.Page") -> None:
    section(page, "live")
    page.click("#live-start")
    section(page, "people")
    page.wait_for_timeout(800)
    assert page.evaluate("document.getElementById('live-video').srcObject") is None


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_phone(opened: Opener, shots: Path, scheme: str) -> None:
    page = opened(
        viewport={"width": 390, "height": 844}, color_scheme=scheme, device_scale_factor=2
    )
    enrolled(page, "Grace Hopper", GRACE)
    section(page, "recognise")
    page.set_input_files("#pictures", EILEEN)
    page.wait_for_selector("article .face")
    page.screenshot(path=shots / f"21-phone-{scheme}.png", full_page=True)
    section(page, "live")
    page.click("#live-start")
    expect(page.locator(".box.named")).to_have_text("Grace Hopper")
    page.screenshot(path=shots / f"22-phone-{scheme}-live.png", full_page=True)
    section(page, "match")
    page.set_input_files("#match-picture", GRACE)
    expect(page.locator("#matches .who")).to_have_text("Grace Hopper")
    page.screenshot(path=shots / f"23-phone-{scheme}-match.png", full_page=True)
    for name in SECTIONS:
        section(page, name)
        page.wait_for_timeout(300)
        assert page.evaluate("document.documentElement.scrollWidth") <= 390, name
        for person in page.locator(".people .name:visible").all():
            assert person.bounding_box()["width"] > 200, "names are not squeezed"
        page.screenshot(path=shots / f"24-phone-{scheme}-{name}.png")
        accessible(page)


def test_desktop_in_the_dark(opened: Opener, shots: Path) -> None:
    page = opened(color_scheme="dark")
    page.set_input_files("#pictures", GRACE)
    page.wait_for_selector("article .face")
    for name in ("recognise", "live", "groups", "models"):
        section(page, name)
        if name == "live":
            page.check("#live-liveness")
            page.click("#live-start")
            expect(page.locator(".box.unknown")).to_have_count(2)
            expect(page.locator("#live-tracks .face").first).to_contain_text("face")
        page.wait_for_timeout(300)
        page.screenshot(path=shots / f"25-dark-{name}.png")
        accessible(page)


def _inside(page: "sync_api.Page", inner: str, outer: str) -> None:
    a, b = page.locator(inner).bounding_box(), page.locator(outer).bounding_box()
    assert b["x"] <= a["x"] < a["x"] + a["width"] <= b["x"] + b["width"]
    assert b["y"] <= a["y"] < a["y"] + a["height"] <= b["y"] + b["height"]


def _middle_of_face(page: "sync_api.Page") -> dict[str, float]:
    """Where Eileen's face is on the canvas as it is shown."""
    width = page.evaluate("document.querySelector('article canvas').clientWidth")
    return {"x": 226 / 512 * width, "y": 116 / 512 * width}


def _drawn(page: "sync_api.Page", canvas: str) -> bool:
    """Whether a box was drawn: the amber of unknown faces occurs on the canvas."""
    return bool(
        page.evaluate(
            """selector => {
                const canvas = document.querySelector(selector);
                const { width, height } = canvas;
                const { data } = canvas.getContext("2d").getImageData(0, 0, width, height);
                let amber = 0;
                for (let i = 0; i < data.length; i += 4)
                    amber += data[i] === 251 && data[i + 1] === 191 && data[i + 2] === 36;
                return amber > 200;
            }""",
            canvas,
        )
    )
