"""LFW fetched from a server on loopback, adopted from a folder, and written as lists."""

import csv
import hashlib
import io
import socket
import tarfile
import threading
from collections.abc import Iterator
from dataclasses import replace
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import PIL.Image
import pytest

from mien.download import Patience
from mien.errors import FetchFailed, InputError
from mien.evaluation.protocols import read_pairs_csv
from mien.training.preparation import lfw
from mien.training.preparation.lfw import Remote, Variant

HASTE = Patience(timeout=0.5, attempts=2, pause=0.01)
NAMES = {"Ada_Lovelace": 3, "Grace_Hopper": 2, "Noa_One": 1}
COUNTS = (6, 3)


def jpeg(seed: int) -> bytes:
    stream = io.BytesIO()
    PIL.Image.new("RGB", (8, 8), (seed, 2 * seed, 3 * seed)).save(stream, "JPEG")
    return stream.getvalue()


def content() -> dict[str, bytes]:
    names = [(name, number) for name, count in NAMES.items() for number in range(1, count + 1)]
    return {f"{n}/{n}_{i:04d}.jpg": jpeg(k) for k, (n, i) in enumerate(names)}


def archive(files: dict[str, bytes], *, links: bool = False) -> bytes:
    stream = io.BytesIO()
    with tarfile.open(fileobj=stream, mode="w:gz") as box:
        for name, data in files.items():
            member = tarfile.TarInfo(name)
            member.size = len(data)
            box.addfile(member, io.BytesIO(data))
        if links:
            for name in ("lfw/Ada_Lovelace/Ada_Lovelace_0009.jpg", "evil"):
                member = tarfile.TarInfo(name)
                member.type, member.linkname = tarfile.SYMTYPE, "/etc/passwd"
                box.addfile(member)
    return stream.getvalue()


DIGEST = hashlib.sha256(
    "".join(
        f"{hashlib.sha256(data).hexdigest()}  {name}\n" for name, data in sorted(content().items())
    ).encode()
).hexdigest()


@pytest.fixture
def lfw_copy(request: pytest.FixtureRequest) -> Path:
    """The folder of LFW, or a skip; the module of that name is what is tested here."""
    return Path(request.getfixturevalue("lfw"))


@pytest.fixture
def site(tmp_path: Path) -> Iterator[tuple[Path, str]]:
    """A folder that is served on loopback, and its address."""
    root = tmp_path / "site"
    root.mkdir()

    class Quiet(SimpleHTTPRequestHandler):
        def __init__(self, *args: object, **kwargs: object) -> None:
            super().__init__(*args, directory=str(root), **kwargs)

        def log_message(self, *_: object) -> None: ...

    server = ThreadingHTTPServer(("127.0.0.1", 0), Quiet)
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02})
    thread.start()
    yield root, f"http://127.0.0.1:{server.server_port}/"
    server.shutdown()
    server.server_close()
    thread.join()


def remote(site: tuple[Path, str], name: str, data: bytes, hashed: bool = True) -> Remote:
    root, address = site
    (root / name).write_bytes(data)
    digest = hashlib.sha256(data).hexdigest() if hashed else None
    return Remote(name, digest, (address + name,))


def test_fetched_by_hash_and_put_in_place_whole(site: tuple[Path, str], tmp_path: Path) -> None:
    packed = archive({f"lfw/{name}": data for name, data in content().items()})
    variant = Variant(remote(site, "lfw.tgz", packed), DIGEST)
    files = [remote(site, "pairs.txt", b"1\t1\n")]
    place = tmp_path / "lfw"
    assert lfw.fetch(place, variant, files, counts=COUNTS, patience=HASTE) == [
        "pairs.txt", "lfw.tgz",
    ]  # fmt: skip
    found = {p.relative_to(place / "lfw").as_posix(): p for p in (place / "lfw").glob("*/*")}
    assert {name: path.read_bytes() for name, path in found.items()} == content()
    assert (place / "pairs.txt").read_bytes() == b"1\t1\n"
    assert sorted(path.name for path in place.iterdir()) == ["lfw", "pairs.txt"]
    assert lfw.fetch(place, variant, files, counts=COUNTS, patience=HASTE) == []  # adopted


def test_a_first_address_that_is_gone_is_passed_over(
    site: tuple[Path, str], tmp_path: Path
) -> None:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        gone = f"http://127.0.0.1:{free.getsockname()[1]}/x"
    good = remote(site, "pairs.txt", b"text")
    both = replace(good, urls=(gone, *good.urls))
    variant = Variant(remote(site, "lfw.tgz", archive(content())))
    lfw.fetch(tmp_path / "lfw", variant, [both], counts=COUNTS, patience=HASTE)
    assert (tmp_path / "lfw" / "pairs.txt").read_bytes() == b"text"


def test_another_file_than_the_published_is_refused(site: tuple[Path, str], tmp_path: Path) -> None:
    served = remote(site, "pairs.txt", b"tampered")
    wrong = replace(served, sha256=hashlib.sha256(b"published").hexdigest())
    variant = Variant(remote(site, "lfw.tgz", archive(content())))
    with pytest.raises(FetchFailed, match="serves another file"):
        lfw.fetch(tmp_path / "lfw", variant, [wrong], counts=COUNTS, patience=HASTE)
    (tmp_path / "lfw" / "pairs.txt").write_bytes(b"edited")
    with pytest.raises(InputError, match="not the published file"):
        lfw.missing_files(tmp_path / "lfw", [wrong])


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda files: {**files, "Ada_Lovelace/Ada_Lovelace_0001.jpg": jpeg(99)}, "not those of"),
        (lambda files: dict(list(files.items())[:4]), "4 pictures of 2 people where 6 of 3"),
        (lambda files: {"readme.txt": b"sorry"}, "0 pictures"),
    ],
)  # fmt: skip
def test_an_archive_of_other_pictures_is_refused(
    site: tuple[Path, str], tmp_path: Path, change: object, message: str
) -> None:
    assert callable(change)
    packed = archive(change(content()))
    variant = Variant(remote(site, "lfw.tgz", packed, hashed=False), DIGEST)
    with pytest.raises(InputError, match=message):
        lfw.fetch(tmp_path / "lfw", variant, [], counts=COUNTS, patience=HASTE)
    assert not (tmp_path / "lfw" / "lfw").exists()


def test_a_damaged_archive_is_refused(site: tuple[Path, str], tmp_path: Path) -> None:
    packed = archive(content())
    variant = Variant(remote(site, "lfw.tgz", packed[: len(packed) // 2], hashed=False))
    with pytest.raises(InputError, match="damaged"):
        lfw.fetch(tmp_path / "lfw", variant, [], counts=COUNTS, patience=HASTE)


def test_only_pictures_leave_the_archive(site: tuple[Path, str], tmp_path: Path) -> None:
    """Links, paths upwards and other files of an archive are not unpacked."""
    files = {f"lfw/{name}": data for name, data in content().items()}
    files["../../Ada_Lovelace/../evil.jpg"] = b"x"
    variant = Variant(remote(site, "lfw.tgz", archive(files, links=True)), DIGEST)
    lfw.fetch(tmp_path / "a" / "b" / "lfw", variant, [], counts=COUNTS, patience=HASTE)
    outside = [p for p in tmp_path.rglob("*") if p.is_symlink() or p.name == "evil.jpg"]
    assert outside == []


def test_a_real_copy_and_its_protocols(lfw_copy: Path, tmp_path: Path) -> None:
    assert lfw.missing_files(lfw_copy) == []
    found = lfw.inspect(lfw_copy)
    assert found.complete
    assert found.variant == "deepfunneled"
    rows = dict(lfw.write_lists(lfw_copy, tmp_path))
    assert rows["train.csv"] == 9525
    assert rows["train-people.txt"] == 4038
    assert rows["test-people.txt"] == 1711
    view2 = read_pairs_csv(tmp_path / "view2.csv", lfw_copy / "lfw-deepfunneled")
    assert len(view2) == 6000
    assert view2.fold is not None
    with (tmp_path / "view2.csv").open() as stream:
        tested = [row for row in csv.DictReader(stream) if row["fold"] == "3"]
    learnt = set((tmp_path / "train-fold-3-people.txt").read_text().split("\n"))
    assert not {row[key] for row in tested for key in ("person1", "person2")} & learnt
    strangers = read_pairs_csv(tmp_path / "view2-strangers.csv", lfw_copy / "lfw-deepfunneled")
    assert (len(strangers), int(strangers.same.sum())) == (1147, 870)
    with (tmp_path / "view2-strangers.csv").open() as stream:
        tested = list(csv.DictReader(stream))
    learnt = set((tmp_path / "train-people.txt").read_text().split("\n"))
    assert not {row[key] for row in tested for key in ("person1", "person2")} & learnt
