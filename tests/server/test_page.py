"""The web page in a real browser: enrol, recognise, compare, erase, with keys and a camera."""

import os
import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest

from mien.server.keys import KeyFile

from .conftest import PORTRAITS
from .test_load import process

sync_api = pytest.importorskip("playwright.sync_api", reason="the page is tested with playwright")
axe = pytest.importorskip("axe_core_python.sync_playwright", reason="and with axe-core-python")

expect = sync_api.expect
CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser")
pytestmark = pytest.mark.skipif(
    CHROMIUM is None, reason="no Chromium; with Debian: apt-get install chromium"
)

GRACE, EILEEN = PORTRAITS / "grace-hopper.jpg", PORTRAITS / "eileen-collins.jpg"


@pytest.fixture(scope="module")
def shots(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Where screenshots go: the folder that MIEN_SCREENSHOTS names, else a temporary one."""
    folder = os.environ.get("MIEN_SCREENSHOTS")
    return Path(folder) if folder else tmp_path_factory.mktemp("screenshots")


@pytest.fixture(scope="module")
def browser(tmp_path_factory: pytest.TempPathFactory) -> Iterator["sync_api.Browser"]:
    """Chromium with a camera that shows Grace Hopper."""
    film = tmp_path_factory.mktemp("camera") / "grace.mjpeg"
    film.write_bytes(GRACE.read_bytes() * 10)
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
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[str, str]]:
    """A server's address, and a key that may do everything on it."""
    folder = tmp_path_factory.mktemp("server")
    key = KeyFile(folder / "keys.json").add("admin", ())
    with process(folder) as (address, _):
        yield address, key


@pytest.fixture
def page(browser: "sync_api.Browser", server: tuple[str, str]) -> Iterator["sync_api.Page"]:
    """The page, opened with a key; anything the browser complains of fails the test."""
    context = browser.new_context(viewport={"width": 1200, "height": 860}, reduced_motion="reduce")
    page = context.new_page()
    page.set_default_timeout(15_000)
    complaints: list[str] = []
    page.on("pageerror", lambda error: complaints.append(str(error)))
    page.on(
        "console",
        lambda message: (
            complaints.append(message.text)
            if message.type == "error" and not message.text.startswith("Failed to load")
            else None
        ),
    )
    page.on(
        "request",
        lambda request: (
            None
            if request.url.startswith((server[0], "blob:", "data:"))
            else complaints.append(f"asked {request.url}")
        ),
    )
    page.goto(server[0])
    page.fill("#key-text", server[1])
    page.click("#ask-key [type=submit]")
    page.wait_for_selector("#ask-key", state="hidden")
    yield page
    context.close()
    assert complaints == []


def accessible(page: "sync_api.Page") -> None:
    found = axe.Axe().run(page)["violations"]
    assert [(rule["id"], [node["html"] for node in rule["nodes"]]) for rule in found] == []


def test_a_key_is_asked_for_and_a_wrong_one_refused(
    browser: "sync_api.Browser", server: tuple[str, str], shots: Path
) -> None:
    page = browser.new_page(reduced_motion="reduce")
    page.goto(server[0])
    page.fill("#key-text", "mien_00000000_wrong")
    page.click("#ask-key [type=submit]")
    expect(page.locator("#key-error")).to_contain_text("revoked")
    page.screenshot(path=shots / "1-key.png")
    accessible(page)
    page.close()


def test_enrol_recognise_compare_erase(
    page: "sync_api.Page", server: tuple[str, str], shots: Path
) -> None:
    page.screenshot(path=shots / "2-empty.png")
    accessible(page)

    page.set_input_files("#pictures", EILEEN)
    page.wait_for_selector("article .face")
    page.click("article canvas", position=_middle_of_face(page))
    page.wait_for_selector("#enrol[open]")
    assert "Good quality" in page.inner_text("#enrol-quality")
    page.fill("#enrol-name", "Eileen Collins")
    page.screenshot(path=shots / "3-enrol.png")
    accessible(page)
    page.click("#enrol-save")
    page.wait_for_selector("article .face.known")
    assert "Eileen Collins" in page.inner_text("article .who")

    page.set_input_files("#pictures", GRACE)
    expect(page.locator("article")).to_have_count(2)
    assert "Unknown" in page.inner_text("article:first-child .who")
    assert "strangers would score this high" in page.inner_text("article:first-child .face")
    assert _drawn(page, "article:first-child canvas")
    page.screenshot(path=shots / "4-recognised.png", full_page=True)
    accessible(page)

    page.click("nav >> text=Compare")
    page.set_input_files("#slot-a input", GRACE)
    page.set_input_files("#slot-b input", EILEEN)
    page.wait_for_selector(".verdict")
    assert "Not shown to be the same person" in page.inner_text(".verdict")
    page.set_input_files("#slot-b input", GRACE)
    page.wait_for_selector(".verdict.match")
    page.screenshot(path=shots / "5-compare.png")
    accessible(page)

    page.click("nav >> text=People")
    page.click("#add")
    page.fill("#person-name", "Grace Hopper")
    page.set_input_files("#person-pictures", [GRACE, EILEEN])
    expect(page.locator("#person-checks .good")).to_have_count(2)
    page.click("[aria-label='Leave out eileen-collins.jpg']")
    page.screenshot(path=shots / "6-add.png")
    accessible(page)
    page.click("#person-save")
    expect(page.locator("#people-list li")).to_have_count(2)
    page.screenshot(path=shots / "7-people.png")
    accessible(page)

    page.click("[aria-label='Erase Eileen Collins']")
    page.screenshot(path=shots / "8-erase.png")
    page.click("#remove >> text=Keep")
    assert page.locator("#people-list li").count() == 2
    page.click("[aria-label='Erase Eileen Collins']")
    page.click("#remove-yes")
    page.wait_for_selector(".receipt")
    assert "Eileen Collins, 1 template" in page.inner_text(".receipt")
    assert page.locator("#people-list li").all_inner_texts()[0].startswith("Grace Hopper")

    page.click("nav >> text=Recognise")
    page.set_input_files("#pictures", EILEEN)
    expect(page.locator("article")).to_have_count(3)
    assert "Unknown" in page.inner_text("article:first-child .who")

    page.click("#camera")
    page.wait_for_selector("#shoot-take:enabled")
    page.wait_for_timeout(500)
    page.screenshot(path=shots / "9-camera.png")
    page.click("#shoot-take")
    expect(page.locator("article")).to_have_count(4)
    assert "Grace Hopper" in page.inner_text("article:first-child .who")

    page.click("nav >> text=Models")
    page.wait_for_selector("#models table")
    assert "ready" in page.inner_text("#models")
    page.screenshot(path=shots / "10-models.png")
    accessible(page)


def test_the_page_says_what_is_wrong_with_a_picture(page: "sync_api.Page", tmp_path: Path) -> None:
    (tmp_path / "letter.jpg").write_bytes(b"<html>no picture</html>")
    page.set_input_files("#pictures", tmp_path / "letter.jpg")
    page.wait_for_selector("#status.bad")
    assert "letter.jpg" in page.inner_text("#status")


def test_everything_can_be_reached_by_keyboard(page: "sync_api.Page") -> None:
    page.focus("body")
    reached = []
    for _ in range(12):
        page.keyboard.press("Tab")
        reached.append(
            page.evaluate("document.activeElement.id || document.activeElement.innerText")
        )
    for wanted in ("People", "Compare", "Models", "gallery", "pictures", "camera", "fpir"):
        assert wanted in reached


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_phone(
    browser: "sync_api.Browser", server: tuple[str, str], shots: Path, scheme: str
) -> None:
    context = browser.new_context(
        viewport={"width": 390, "height": 844},
        color_scheme=scheme,
        device_scale_factor=2,
        reduced_motion="reduce",
    )
    page = context.new_page()
    page.goto(server[0])
    page.fill("#key-text", server[1])
    page.click("#ask-key [type=submit]")
    page.wait_for_selector("#ask-key", state="hidden")
    page.set_input_files("#pictures", GRACE)
    page.wait_for_selector("article .face")
    page.screenshot(path=shots / f"11-phone-{scheme}.png", full_page=True)
    accessible(page)
    for view in ("people", "compare", "models"):
        page.click(f"nav a[href='#{view}']")
        page.wait_for_timeout(300)
        assert page.evaluate("document.documentElement.scrollWidth") <= 390, view
        for name in page.locator(".people .name:visible").all():
            assert name.bounding_box()["width"] > 200, "names are not squeezed"
        page.screenshot(path=shots / f"12-phone-{scheme}-{view}.png")
        accessible(page)
    context.close()


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
