"""The suite on a real Milvus, the one of the package `milvus` (2.3.5, Linux on x86-64).

That server listens on every address, so it runs in a network namespace where there is only the
loopback, and so do the tests of it. With `MIEN_TEST_MILVUS=start`, the package, root and
iproute2, a namespace is made, the server started there (up to a minute), this file run in it and
both ended. An address in `MIEN_TEST_MILVUS`, such as milvus://127.0.0.1:19530, runs the tests
against a server that is there; without either they are skipped. They take two to five minutes,
more under load, most of it waiting, as every search waits for a clock tick.
"""

import os
import secrets
import select
import shutil
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import closing, suppress
from pathlib import Path
from typing import IO

import pytest

from mien.errors import GalleryUnavailable, InputError

pytest.importorskip("pymilvus", reason="needs the extra 'milvus'")

from store_suite import CONTRACT, Make, StoreSuite, entry, unit_vectors

from mien.gallery import Entry, open_gallery, transfer
from mien.gallery.milvus import MilvusStore
from mien.gallery.sqlite import SqliteStore
from mien.types import Embedding

START_SECONDS = 180
WHERE = os.environ.get("MIEN_TEST_MILVUS", "off")
there = pytest.mark.skipif(
    "://" not in WHERE, reason="run in a namespace, or where MIEN_TEST_MILVUS names a server"
)

SERVER = """
import sys, time
from milvus import MilvusServer
server = MilvusServer(data_dir=sys.argv[1])
for part in "rootCoord proxy queryCoord queryNode indexNode dataCoord dataNode".split():
    server.config.set(f"{part}.ip", "127.0.0.1")
server.start()
print("up", server.listen_port, flush=True)
sys.stdin.read()  # until the tests are over
server.stop()
"""


@pytest.mark.skipif(WHERE != "start", reason="MIEN_TEST_MILVUS is not 'start'")
def test_in_a_namespace_of_its_own(tmp_path: Path) -> None:
    pytest.importorskip("milvus", reason="no Milvus server to start")
    if os.getuid() != 0 or shutil.which("ip") is None:
        pytest.skip("a network namespace needs root and iproute2")
    space = f"mien{os.getpid()}"
    inside = ["ip", "netns", "exec", space]
    made = _ip("netns", "add", space)
    if made.returncode:
        pytest.skip(f"no network namespace can be made: {made.stderr.strip()}")
    try:
        up = _ip("netns", "exec", space, "ip", "link", "set", "lo", "up")
        if up.returncode:
            pytest.skip(f"the namespace has no loopback: {up.stderr.strip()}")
        with (tmp_path / "server.log").open("w+") as words:
            server = subprocess.Popen(
                [*inside, sys.executable, "-c", SERVER, str(tmp_path / "data")],
                stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=words, text=True,
                start_new_session=True,
            )  # fmt: skip
            try:
                address = f"milvus://127.0.0.1:{_port(server, words)}"
                tests = subprocess.run(
                    [*inside, sys.executable, "-m", "pytest", "-q", __file__],
                    env=os.environ | {"MIEN_TEST_MILVUS": address},
                    stdout=subprocess.PIPE, text=True, timeout=900, check=False,
                )  # fmt: skip
                assert tests.returncode == 0, tests.stdout
            finally:
                _end(server)
    finally:
        _ip("netns", "delete", space).check_returncode()


def _ip(*words: str) -> "subprocess.CompletedProcess[str]":
    return subprocess.run(["ip", *words], capture_output=True, text=True, check=False)


def _port(server: "subprocess.Popen[str]", words: IO[str]) -> str:
    """Where the server listens; skips when it does not come up in time."""
    assert server.stdout
    ready, _, _ = select.select([server.stdout], [], [], START_SECONDS)
    line = server.stdout.readline() if ready else ""
    if not line.startswith("up "):
        words.seek(0)
        said = words.read().strip()[-500:]
        why = "ended" if ready else f"did not start within {START_SECONDS} s"
        pytest.skip(f"the Milvus server {why}: {said or 'it said nothing'}")
    return line.split()[-1]


def _end(server: "subprocess.Popen[str]") -> None:
    assert server.stdin
    assert server.stdout
    server.stdin.close()
    with suppress(subprocess.TimeoutExpired):
        server.wait(60)
    with suppress(ProcessLookupError):
        os.killpg(server.pid, signal.SIGKILL)  # with the engine that it started
    server.wait()
    server.stdout.close()


@pytest.fixture
def collection() -> Iterator[str]:
    import pymilvus

    name = secrets.token_hex(8)
    yield name
    with closing(MilvusStore(WHERE, collection=name)) as store:
        client = pymilvus.MilvusClient(WHERE.replace("milvus", "http", 1))
        client.drop_collection(store._collection)
        client.close()


@there
class TestMilvusStore(StoreSuite):
    @pytest.fixture
    def make(self, collection: str) -> Make:
        return lambda: MilvusStore(WHERE, collection=collection)


@there
class TestMilvus:
    def test_by_uri_and_back(self, collection: str, tmp_path: Path) -> None:
        """A gallery moves there, answers the same, and moves back unchanged."""
        rows = unit_vectors(60, 1)
        here = SqliteStore(tmp_path / "here.mien")
        here.add([
            Entry(f"p{n // 2}", Embedding(v, CONTRACT), "x.jpg", 0.5, {"n": str(n % 3)}, n % 7 == 0)
            for n, v in enumerate(rows)
        ])  # fmt: skip
        with open_gallery(f"{WHERE}#{collection}") as gallery:
            assert transfer.copy_entries(here, gallery.store) == 60
            assert transfer.copy_entries(here, gallery.store) == 0
            for where in (None, {"n": "1"}, {"n": ["0", "2"]}):
                ours, theirs = (s.search(rows[:9], 4, where) for s in (here, gallery.store))
                assert [[m.subject for m in f] for f in ours] == [
                    [m.subject for m in f] for f in theirs
                ]
            back = SqliteStore(tmp_path / "back.mien")
            assert transfer.copy_entries(gallery.store, back) == 60
        with pytest.raises(GalleryUnavailable, match="no collection"):
            MilvusStore(WHERE, create=False, collection=collection + "x")
        here.close()
        back.close()

    def test_what_it_cannot_keep_is_refused(self, collection: str) -> None:
        with closing(MilvusStore(WHERE, collection=collection)) as store:
            (vector,) = unit_vectors(1, 2)
            for wrong in (
                entry("x" * 70_000, vector),
                entry("x", vector * 2),
                Entry("x", Embedding(vector, CONTRACT), "x", 0.5, crop=b"x"),
            ):
                with pytest.raises(InputError):
                    store.add([wrong])
            assert store.stats().templates == 0

    def test_a_large_batch_that_fails_leaves_nothing(
        self, collection: str, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        with closing(MilvusStore(WHERE, collection=collection)) as store:
            rows = unit_vectors(5000, 3, dim=8)
            insert = store._insert

            def fail_later(some: list[dict[str, object]]) -> list[int]:
                if len(some) < 4096:
                    raise GalleryUnavailable("milvus", "gone")
                return insert(some)

            monkeypatch.setattr(store, "_insert", fail_later)
            with pytest.raises(GalleryUnavailable):
                store.add([entry(str(n), v) for n, v in enumerate(rows)])
            assert len(store) == 0


def test_nobody_answers(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("mien.gallery.milvus._TIMEOUT_SECONDS", 1.0)
    with pytest.raises(GalleryUnavailable, match=r"milvus://127\.0\.0\.1:9"):
        MilvusStore("milvus://127.0.0.1:9")


@pytest.mark.parametrize("uri", ["milvus://a:b@h:1", "milvus://h:1?consistency=never"])
def test_addresses_that_are_refused(uri: str) -> None:
    with pytest.raises(InputError):
        MilvusStore(uri)


def test_what_the_client_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    """Credentials and TLS come from the environment."""
    from urllib.parse import urlsplit

    from mien.gallery.milvus import _address

    assert _address(urlsplit("milvus://h/db")) == {
        "timeout": 30.0, "uri": "http://h:19530", "db_name": "db"
    }  # fmt: skip
    monkeypatch.setenv("MIEN_MILVUS_TOKEN", "user:secret")
    monkeypatch.setenv("MIEN_MILVUS_CA", "/etc/ca.pem")
    assert _address(urlsplit("milvus://h:5")) == {
        "timeout": 30.0, "uri": "https://h:5", "token": "user:secret", "secure": True,
        "server_pem_path": "/etc/ca.pem",
    }  # fmt: skip
