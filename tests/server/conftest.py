"""A server over the real recogniser, and the pictures sent to it."""

import sys
from collections.abc import Callable, Iterator
from importlib import resources
from importlib.util import find_spec
from pathlib import Path

import numpy as np
import pytest

import mien
from mien.server.keys import KeyFile, Role
from mien.types import Image

if find_spec("fastapi") is None:  # the rest of the suite runs without the extra
    collect_ignore_glob = ["test_*.py"]
else:
    from starlette.testclient import TestClient

    from mien.server import Galleries, Settings, create_app

PORTRAITS = Path(str(resources.files("mien").joinpath("bundled", "pictures")))

MIEN = (sys.executable, "-c", "from mien.cli import main; main()")

Serve = Callable[..., "TestClient"]


@pytest.fixture(scope="session")
def recognizer() -> mien.Recognizer:
    return mien.load()


@pytest.fixture(scope="session")
def eileen_jpg() -> bytes:
    return (PORTRAITS / "eileen-collins.jpg").read_bytes()


@pytest.fixture(scope="session")
def grace_jpg() -> bytes:
    return (PORTRAITS / "grace-hopper.jpg").read_bytes()


@pytest.fixture
def serve(recognizer: mien.Recognizer, tmp_path: Path) -> Iterator[Serve]:
    """Starts a server over `tmp_path / "galleries"` with the settings given."""
    started: list[TestClient] = []

    def start(**settings: object) -> "TestClient":
        folder = tmp_path / "galleries"
        folder.mkdir(exist_ok=True)
        app = create_app(recognizer, Galleries(folder), Settings(**settings))
        client = TestClient(app, base_url="http://localhost", raise_server_exceptions=True)
        started.append(client.__enter__())
        return started[-1]

    yield start
    for client in started:
        client.__exit__(None, None, None)


@pytest.fixture
def client(serve: Serve) -> "TestClient":
    """A server without keys that has an empty gallery "team"."""
    client = serve()
    assert client.put("/v1/galleries/team").status_code == 201
    return client


@pytest.fixture
def key_file(tmp_path: Path) -> KeyFile:
    return KeyFile(tmp_path / "keys.json")


@pytest.fixture
def bearer(key_file: KeyFile) -> Callable[..., dict[str, str]]:
    """The header of a new key."""

    def make(role: Role, *galleries: str) -> dict[str, str]:
        return {"Authorization": f"Bearer {key_file.add(role, galleries)}"}

    return make


@pytest.fixture(scope="session")
def both_jpg() -> bytes:
    """Eileen on the left and Grace on the right, in one picture of 1024 x 512 pixels."""
    pictures = [mien.read_image(PORTRAITS / f"{n}.jpg").pixels[:512] for n in
                ("eileen-collins", "grace-hopper")]  # fmt: skip
    return mien.encode_image(Image(np.concatenate(pictures, axis=1)), "jpeg", 95)
