"""A file server on loopback, and a `MIEN_HOME` of one's own."""

import sys
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest
from misbehaving import Server

TESTS = Path(__file__).resolve().parents[1]
# The tools are scripts and the suites ordinary modules: tests import them by their names.
sys.path += [str(TESTS.parent / "tools"), str(TESTS / "conformance")]
pytest.register_assert_rewrite("detector_suite")


@pytest.fixture
def server() -> Iterator[Server]:
    with Server() as server:
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        yield server
        server.stopping.set()
        server.shutdown()
        thread.join()


@pytest.fixture(autouse=True)
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("MIEN_HOME", str(tmp_path / "home"))
    for name in ("http_proxy", "HTTP_PROXY", "all_proxy", "ALL_PROXY", "MIEN_PROVIDER"):
        monkeypatch.delenv(name, raising=False)
    return tmp_path / "home"
