"""Downloads from servers that truncate, corrupt, stall, redirect and lie."""

import hashlib
import os
import socket
import subprocess
import sys
import threading
from pathlib import Path

import pytest
from misbehaving import (
    HASTE,
    Handler,
    Server,
    in_turn,
    ranged,
    redirect,
    stalls,
    status,
    whole,
)

from mien.download import download, locked
from mien.errors import FetchFailed

DATA = os.urandom(700_001)
SHA256 = hashlib.sha256(DATA).hexdigest()


def get(server: Server, path: Path, *names: str, sha256: str | None = SHA256,
        size: int | None = len(DATA)) -> str:  # fmt: skip
    urls = [server.url(name) for name in names or ("/file",)]
    return download(urls, path, sha256=sha256, size=size, patience=HASTE)


def test_fetches_and_reports_progress(server: Server, tmp_path: Path) -> None:
    server.replies["/file"] = ranged(DATA)
    seen: list[tuple[int, int | None]] = []
    digest = download(
        [server.url("/file")], tmp_path / "f", sha256=SHA256, size=len(DATA),
        progress=lambda done, total: seen.append((done, total)), patience=HASTE,
    )  # fmt: skip
    assert digest == SHA256
    assert (tmp_path / "f").read_bytes() == DATA
    assert seen[-1] == (len(DATA), len(DATA))
    assert seen == sorted(seen)


def test_goes_on_where_the_connection_broke(server: Server, tmp_path: Path) -> None:
    server.replies["/file"] = ranged(DATA, cut=300_000)
    assert get(server, tmp_path / "f") == SHA256
    assert server.ranges() == [None, "bytes=300000-", "bytes=600000-"]


def test_goes_on_in_a_later_run(server: Server, tmp_path: Path) -> None:
    (tmp_path / "f").write_bytes(DATA[:123_456])
    server.replies["/file"] = ranged(DATA)
    assert get(server, tmp_path / "f") == SHA256
    assert server.ranges() == ["bytes=123456-"]


def test_asks_for_nothing_when_all_of_it_had_arrived(server: Server, tmp_path: Path) -> None:
    (tmp_path / "f").write_bytes(DATA)
    assert get(server, tmp_path / "f") == SHA256
    assert server.asked == []


def test_starts_over_where_the_server_knows_no_ranges(server: Server, tmp_path: Path) -> None:
    (tmp_path / "f").write_bytes(DATA[:123_456])
    server.replies["/file"] = whole(DATA)
    assert get(server, tmp_path / "f") == SHA256
    assert (tmp_path / "f").read_bytes() == DATA


@pytest.mark.parametrize("length", [1000, len(DATA), len(DATA) + 5])
def test_recovers_from_a_foreign_beginning(server: Server, tmp_path: Path, length: int) -> None:
    (tmp_path / "f").write_bytes(b"x" * length)
    server.replies["/file"] = ranged(DATA)
    assert get(server, tmp_path / "f") == SHA256
    assert (tmp_path / "f").read_bytes() == DATA


def test_without_a_hash_nothing_is_continued(server: Server, tmp_path: Path) -> None:
    (tmp_path / "f").write_bytes(b"x" * 1000)
    server.replies["/file"] = ranged(DATA)
    assert get(server, tmp_path / "f", sha256=None) == SHA256
    assert server.ranges() == [None]


def test_a_corrupt_mirror_is_passed_over(server: Server, tmp_path: Path) -> None:
    server.replies["/bad"] = ranged(DATA[:-1] + bytes([DATA[-1] ^ 1]))
    server.replies["/good"] = ranged(DATA)
    assert get(server, tmp_path / "f", "/bad", "/good") == SHA256
    assert [path for path, _ in server.asked] == ["/bad", "/good"]


def test_corrupt_bytes_are_refused_and_removed(server: Server, tmp_path: Path) -> None:
    server.replies["/file"] = whole(DATA[::-1])
    with pytest.raises(FetchFailed, match="another file"):
        get(server, tmp_path / "f")
    assert not (tmp_path / "f").exists()


def test_a_truncating_server_without_ranges_is_given_up(server: Server, tmp_path: Path) -> None:
    def cut(handler: Handler) -> None:
        handler.head(200, Content_Length=len(DATA))
        handler.wfile.write(DATA[:1000])

    server.replies["/file"] = cut
    with pytest.raises(FetchFailed, match=r"ended after 1,000 of 700,001 bytes"):
        get(server, tmp_path / "f")
    assert len(server.asked) == HASTE.attempts


def test_a_size_other_than_the_cards_is_refused_unread(server: Server, tmp_path: Path) -> None:
    server.replies["/file"] = whole(DATA + b"more")
    with pytest.raises(FetchFailed, match=r"offers 700,005 bytes where 700,001 are expected"):
        get(server, tmp_path / "f")
    assert not (tmp_path / "f").exists()
    assert len(server.asked) == 1


def test_bytes_without_end_are_stopped(server: Server, tmp_path: Path) -> None:
    def endless(handler: Handler) -> None:
        handler.head(200)
        try:
            while not handler.server.stopping.is_set():
                handler.wfile.write(b"x" * 65536)
        except OSError:
            pass  # the client hung up, as it should

    server.replies["/file"] = endless
    with pytest.raises(FetchFailed, match="sends more than"):
        get(server, tmp_path / "f")
    assert not (tmp_path / "f").exists()


def test_a_stall_is_tried_again(server: Server, tmp_path: Path) -> None:
    server.replies["/file"] = in_turn(stalls(DATA, 200_000), ranged(DATA))
    assert get(server, tmp_path / "f") == SHA256
    assert server.ranges() == [None, "bytes=200000-"]


def test_a_server_that_only_stalls_is_given_up(server: Server, tmp_path: Path) -> None:
    server.replies["/file"] = stalls(DATA, 0)
    with pytest.raises(FetchFailed, match="stalled"):
        get(server, tmp_path / "f")


def test_errors_that_pass_are_tried_again_and_others_not(server: Server, tmp_path: Path) -> None:
    server.replies["/file"] = in_turn(status(503), status(429), ranged(DATA))
    assert get(server, tmp_path / "f") == SHA256
    server.replies["/gone"] = status(404)
    with pytest.raises(FetchFailed, match="answers 404"):
        get(server, tmp_path / "g", "/gone")
    assert [path for path, _ in server.asked].count("/gone") == 1


def test_follows_redirects_and_keeps_the_range(server: Server, tmp_path: Path) -> None:
    (tmp_path / "f").write_bytes(DATA[:1000])
    server.replies["/file"] = redirect(server.url("/there"))
    server.replies["/there"] = ranged(DATA)
    assert get(server, tmp_path / "f") == SHA256
    assert server.asked[-1] == ("/there", "bytes=1000-")


@pytest.mark.parametrize("scheme", ["file", "ftp", "data"])
def test_redirects_out_of_http_are_refused(server: Server, tmp_path: Path, scheme: str) -> None:
    secret = tmp_path / "secret"
    secret.write_bytes(DATA)
    server.replies["/file"] = redirect(f"{scheme}://{secret}")
    with pytest.raises(FetchFailed, match="not allowed"):
        get(server, tmp_path / "f")
    assert not (tmp_path / "f").exists()


def test_addresses_out_of_http_are_refused(tmp_path: Path) -> None:
    (tmp_path / "secret").write_bytes(DATA)
    with pytest.raises(FetchFailed, match="unknown url type: file"):
        download([(tmp_path / "secret").as_uri()], tmp_path / "f", sha256=None, size=None)


def test_redirects_in_a_circle_end(server: Server, tmp_path: Path) -> None:
    server.replies["/file"] = redirect(server.url("/file"))
    with pytest.raises(FetchFailed, match="infinite loop"):
        get(server, tmp_path / "f")


def test_uses_the_proxy_of_the_environment(
    server: Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("http_proxy", server.url(""))
    monkeypatch.delenv("no_proxy", raising=False)
    monkeypatch.delenv("NO_PROXY", raising=False)
    server.replies["http://models.example/file"] = whole(DATA)
    url = "http://models.example/file"
    assert download([url], tmp_path / "f", sha256=SHA256, size=None, patience=HASTE) == SHA256


def test_offline_says_what_to_do(tmp_path: Path) -> None:
    with socket.socket() as unused:  # a port on which nobody listens
        unused.bind(("127.0.0.1", 0))
        url = f"http://127.0.0.1:{unused.getsockname()[1]}/model.onnx"
        with pytest.raises(FetchFailed, match="mien models import"):
            download([url], tmp_path / "f", sha256=SHA256, size=None)


def test_a_wrong_part_is_refused(server: Server, tmp_path: Path) -> None:
    def other_part(handler: Handler) -> None:
        handler.head(206, Content_Length=10, Content_Range=f"bytes 0-9/{len(DATA)}")
        handler.wfile.write(DATA[:10])

    (tmp_path / "f").write_bytes(DATA[:1000])
    server.replies["/file"] = other_part
    with pytest.raises(FetchFailed, match="another part"):
        get(server, tmp_path / "f")


def test_one_at_a_time_holds_the_lock(tmp_path: Path) -> None:
    inside, most = 0, 0
    guard = threading.Lock()

    def enter() -> None:
        nonlocal inside, most
        for _ in range(20):
            with locked(tmp_path / "lock"):
                with guard:
                    inside += 1
                    most = max(most, inside)
                threading.Event().wait(0.0005)
                with guard:
                    inside -= 1

    threads = [threading.Thread(target=enter) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert most == 1


def test_a_killed_process_leaves_no_lock(tmp_path: Path) -> None:
    script = (
        "import sys, pathlib; from mien.download import locked\n"
        "with locked(pathlib.Path(sys.argv[1])):\n    print('held', flush=True); input()\n"
    )
    holder = subprocess.Popen(
        [sys.executable, "-c", script, str(tmp_path / "lock")],
        stdin=subprocess.PIPE, stdout=subprocess.PIPE,
    )  # fmt: skip
    with holder:
        assert holder.stdout is not None
        assert holder.stdout.readline().strip() == b"held"
        holder.kill()
    with locked(tmp_path / "lock"):
        pass
