"""The embedded store on disk: erasing, durability, several processes, damaged and foreign files."""

import os
import random
import shutil
import signal
import sqlite3
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import numpy as np
import pytest

from mien.errors import GalleryUnavailable, MienError
from mien.gallery.sqlite import SqliteStore
from mien.gallery.store import Entry
from mien.types import Embedding

CONTRACT = "detector+embedder@01234567"


def unit_vectors(count: int, seed: int, dim: int = 128) -> np.ndarray:
    vectors = np.random.default_rng(seed).normal(size=(count, dim))
    return (vectors / np.linalg.norm(vectors, axis=1, keepdims=True)).astype(np.float32)


def entry(subject: str, vector: np.ndarray, source: str = "x.jpg") -> Entry:
    return Entry(subject, Embedding(vector, CONTRACT), source, 0.5)


def filled(path: Path, people: int, seed: int = 0) -> np.ndarray:
    """A gallery of people "p000", "p001", ..., one template each, made and closed."""
    vectors = unit_vectors(people, seed)
    with closing(SqliteStore(path)) as store:
        store.add([entry(f"p{n:03}", vector) for n, vector in enumerate(vectors)])
    return vectors


def names(path: Path) -> list[str]:
    with closing(SqliteStore(path, create=False)) as store:
        return [subject.name for subject in store.subjects()]


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "people.mien"


# ------------------------------------------------------------------------------ erasing


def traces(folder: Path, name: str, vector: np.ndarray) -> list[str]:
    """Which files of the folder still hold the name, or a good part of the vector."""
    pieces = [name.encode(), vector[:32].tobytes(), vector[48:80].tobytes(), vector[-32:].tobytes()]
    return [
        file.name
        for file in folder.iterdir()
        if any(piece in content for content in [file.read_bytes()] for piece in pieces)
    ]


@pytest.mark.parametrize("people", [1, 40, 600])
def test_removing_leaves_no_trace(path: Path, people: int) -> None:
    """Not in the file, not in the log, with another connection open and after all have closed.

    Names, paths of pictures (which tend to hold the name) and vectors; added one by one in random
    order, so that pages of the file were split and cells moved.
    """
    vectors = unit_vectors(people, 1)
    order = np.random.default_rng(2).permutation(people)
    everyone = [f"Zoë Ångström {number * 7919 % 1009:04}" for number in range(people)]
    with closing(SqliteStore(path)) as store, closing(SqliteStore(path)) as other:
        for number in order:
            source = f"/staff/{everyone[number]}/1.jpg"
            store.add([entry(everyone[number], vectors[number], source)])
        victims = [int(number) for number in order[:: max(1, people // 25)]]
        for victim in victims:
            assert traces(path.parent, everyone[victim], vectors[victim])  # the test can see them
            other.search(vectors[:1], 1)
            store.remove(everyone[victim])
            assert traces(path.parent, everyone[victim], vectors[victim]) == []
        other.search(vectors[:1], 1)
    for victim in victims:
        assert traces(path.parent, everyone[victim], vectors[victim]) == []
    survivors = sorted(set(everyone) - {everyone[victim] for victim in victims})
    assert names(path) == survivors


def test_removing_one_of_two_templates_of_a_name(path: Path) -> None:
    """A subject goes with all of its templates."""
    vectors = unit_vectors(2, 3)
    with closing(SqliteStore(path)) as store:
        store.add([entry("Adalbert", vectors[0]), entry("Adalbert", vectors[1])])
        assert store.remove("Adalbert") == 2
        for vector in vectors:
            assert traces(path.parent, "Adalbert", vector) == []


def test_a_reader_that_holds_the_log_is_reported(
    path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Traces that could not be cleared are not passed over in silence; compact clears them."""
    monkeypatch.setattr("mien.gallery.database._BUSY_SECONDS", 0.2)
    vectors = filled(path, 3)
    with closing(SqliteStore(path)) as store:
        with closing(sqlite3.connect(path, isolation_level=None)) as reader:
            store.add([entry("Adalbert", unit_vectors(1, 9)[0])])
            reader.execute("BEGIN")
            reader.execute("SELECT count(*) FROM template").fetchone()
            with pytest.raises(GalleryUnavailable, match="compact"):
                store.remove("Adalbert")
            reader.execute("COMMIT")
        assert names(path) == ["p000", "p001", "p002"]  # gone from every answer all the same
        assert store.search(vectors[:1], 9)[0][0].subject == "p000"
        store.compact()
        assert traces(path.parent, "Adalbert", unit_vectors(1, 9)[0]) == []


def test_compact_gives_room_back(path: Path) -> None:
    filled(path, 400)
    with closing(SqliteStore(path)) as store:
        for number in range(0, 400, 2):
            store.remove(f"p{number:03}")
        before = store.stats().bytes
        store.compact()
        assert store.stats().bytes < 0.8 * before  # the log of removals stays
        assert len(store.subjects()) == 200


def test_a_batch_is_added_whole_or_not_at_all(path: Path) -> None:
    """The third of four is of another length: none of them is there."""
    filled(path, 2)
    vectors = unit_vectors(4, 4)
    batch = [entry(f"new{number}", vector) for number, vector in enumerate(vectors)]
    batch[2] = entry("new2", vectors[2][:64])
    with closing(SqliteStore(path)) as store, pytest.raises(MienError):
        store.add(batch)
    assert names(path) == ["p000", "p001"]


# ------------------------------------------------------------------------------ what is not ours


def test_a_folder(tmp_path: Path) -> None:
    with pytest.raises(GalleryUnavailable, match="folder"):
        SqliteStore(tmp_path)


def test_parent_is_missing(tmp_path: Path) -> None:
    with pytest.raises(GalleryUnavailable, match="does not exist") as caught:
        SqliteStore(tmp_path / "no" / "such" / "people.mien")
    assert str(tmp_path / "no" / "such") in str(caught.value)
    assert list(tmp_path.iterdir()) == []


def test_parent_is_a_file(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(GalleryUnavailable):
        SqliteStore(tmp_path / "file" / "people.mien")


@pytest.mark.parametrize("content", [b"Dear diary,\n" * 500, b"xy", b"\xff\xd8\xff" + bytes(9000)])
def test_not_a_database(path: Path, content: bytes) -> None:
    path.write_bytes(content)
    with pytest.raises(GalleryUnavailable, match="not a mien gallery"):
        SqliteStore(path)
    assert path.read_bytes() == content


@pytest.mark.parametrize("application", [0, 0x12345678])
def test_database_of_another_program(path: Path, application: int) -> None:
    with closing(sqlite3.connect(path)) as db:
        db.execute(f"PRAGMA application_id = {application}")
        db.execute("CREATE TABLE bookmark (url TEXT)")
        db.execute("INSERT INTO bookmark VALUES ('somewhere')")
        db.commit()
    before = path.read_bytes()
    with pytest.raises(GalleryUnavailable, match="not a mien gallery"):
        SqliteStore(path)
    assert path.read_bytes() == before


def test_newer_format(path: Path) -> None:
    filled(path, 1)
    with closing(sqlite3.connect(path)) as db:
        db.execute("PRAGMA user_version = 99")
    with pytest.raises(GalleryUnavailable, match="newer mien"):
        SqliteStore(path)


@pytest.mark.parametrize("format_", [2, 3])
def test_older_formats_are_upgraded(path: Path, format_: int) -> None:
    """Format 2 had no crops, and neither had checksums."""
    filled(path, 3)
    with closing(sqlite3.connect(path)) as db:
        if format_ == 2:
            db.execute("DROP TABLE crop")
        for table in ("collection", "subject", "template"):
            db.execute(f"ALTER TABLE {table} DROP COLUMN sum")
        db.execute(f"PRAGMA user_version = {format_}")
    assert names(path) == ["p000", "p001", "p002"]
    with closing(SqliteStore(path)) as store:
        assert store.check() == []
        assert len(list(store.entries())) == 3
        assert store.remove("p001") == 1
        store.add([entry("p9", unit_vectors(1, 9)[0])])
        assert store.check() == []


def test_no_trace_is_left_by_renaming_and_replacing(path: Path) -> None:
    filled(path, 3)
    with closing(SqliteStore(path)) as store:
        for name in ("Adalbert Zufall", "Grimwald Zufall"):
            store.add([Entry(name, Embedding(unit_vectors(1, 9)[0], CONTRACT), "x.jpg", 0.5)])
        store.search(unit_vectors(1, 9), 1)
        store.rename("Adalbert Zufall", "p9")
        store.rename("Grimwald Zufall", "p9", merge=True)
        store.replace("p9", [entry("p9", unit_vectors(1, 10)[0])])
        assert traces(path.parent, "Zufall", unit_vectors(1, 9)[0]) == []
        assert [line.operation for line in store.history()][-3:] == ["rename", "rename", "replace"]


def test_an_empty_file_becomes_a_gallery(path: Path) -> None:
    """As `tempfile` makes one."""
    path.touch()
    with closing(SqliteStore(path)) as store:
        store.add([entry("ada", unit_vectors(1, 0)[0])])
    assert names(path) == ["ada"]


def test_file_names_of_another_encoding(path: Path) -> None:
    """The picture has a name that is no text; its template is kept, with the name spelt out."""
    with closing(SqliteStore(path)) as store:
        odd = os.fsdecode(b"caf\xe9.jpg")
        (added,) = store.add([entry("ada", unit_vectors(1, 0)[0], odd)])
        (template,) = store.templates("ada")
    assert template.source == added.source
    assert template.source.startswith("caf")


@pytest.mark.parametrize("name", ["with space.mien", "käse.mien", "a%20b?mode=ro#x.mien", "file:x"])
def test_odd_paths(tmp_path: Path, name: str) -> None:
    vectors = filled(tmp_path / name, 2)
    assert sorted(file.name for file in tmp_path.iterdir()) == [name]
    with closing(SqliteStore(tmp_path / name)) as store:
        assert store.search(vectors[1:], 1)[0][0].subject == "p001"


# ------------------------------------------------------------------------------ permissions


AS_NOBODY = """
import os, sys
from pathlib import Path
import numpy as np
from mien.gallery.sqlite import SqliteStore
from mien.gallery.store import Entry
from mien.errors import GalleryUnavailable
from mien.types import Embedding
if os.getuid() == 0:
    os.setgroups([]); os.setgid(65534); os.setuid(65534)
vector = np.eye(128, dtype=np.float32)[0]
try:
    store = SqliteStore(Path(sys.argv[1]))
    print("opened", len(store.subjects()))
    store.add([Entry("eve", Embedding(vector, sys.argv[2]), "x.jpg", 0.5)])
    print("added")
except GalleryUnavailable as error:
    print("refused:", error.reason)
"""


def as_nobody(path: Path) -> str:
    """What a process without rights is told that opens the gallery and adds to it."""
    run = subprocess.run(
        [sys.executable, "-c", AS_NOBODY, str(path), CONTRACT],
        capture_output=True, text=True, check=False, cwd="/",
    )  # fmt: skip
    if "PermissionError" in run.stderr or "ModuleNotFoundError" in run.stderr:
        pytest.skip("a process without rights cannot read this checkout")
    assert run.stderr == ""
    return run.stdout


@pytest.fixture
def open_folder(tmp_path: Path) -> Iterator[Path]:
    """A folder that other users can reach (pytest's own are for their owner only)."""
    closed = [p for p in (tmp_path, *tmp_path.parents) if p.exists() and not p.stat().st_mode & 1]
    if os.getuid():  # not root: this process has no other user to become, and needs none
        closed = []
    modes = [(p, p.stat().st_mode) for p in closed]
    for p in closed:
        p.chmod(p.stat().st_mode | 0o055)
    yield tmp_path
    for p, mode in modes:
        p.chmod(mode)


@pytest.mark.skipif(os.name != "posix", reason="permissions of POSIX")
@pytest.mark.parametrize(("file", "folder"), [(0o444, 0o755), (0o444, 0o555), (0o000, 0o755)])
def test_no_permission(open_folder: Path, file: int, folder: int) -> None:
    """A file or folder that may not be written, or read: a clear refusal, nothing changed."""
    place = open_folder / "place"
    place.mkdir()
    path = place / "people.mien"
    filled(path, 2)
    before = path.read_bytes()
    path.chmod(file)
    place.chmod(folder)
    try:
        answer = as_nobody(path)
    finally:
        place.chmod(0o755)
    assert "added" not in answer
    assert "refused:" in answer
    assert "permission" in answer or "writable" in answer
    assert path.read_bytes() == before
    assert names(path) == ["p000", "p001"]


# ------------------------------------------------------------------------------ a full disk


def test_full_disk(path: Path) -> None:
    """No room for more pages: refused in words, and what was there is still there."""
    filled(path, 50)
    with closing(SqliteStore(path)) as store:
        pages = store._database.connection.execute("PRAGMA page_count").fetchone()[0]
        store._database.connection.execute(f"PRAGMA max_page_count = {pages + 2}")
        with pytest.raises(GalleryUnavailable, match="disk is full"):
            store.add([entry(f"new{n}", v) for n, v in enumerate(unit_vectors(200, 5))])
        assert len(store.subjects()) == 50
        store.add([entry("one more", unit_vectors(1, 6)[0])])  # what fits is still taken
    assert len(names(path)) == 51


ON_A_FULL_DISK = """
import resource, signal, sys
from pathlib import Path
import numpy as np
from mien.gallery.sqlite import SqliteStore
from mien.gallery.store import Entry
from mien.errors import GalleryUnavailable
from mien.types import Embedding
signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
store = SqliteStore(Path(sys.argv[1]))
resource.setrlimit(resource.RLIMIT_FSIZE, (3_000_000, 3_000_000))
vector = np.eye(128, dtype=np.float32)[0]
for number in range(10_000):
    try:
        store.add([Entry(f"q{number}", Embedding(vector, sys.argv[2]), "x.jpg", 0.5)])
    except GalleryUnavailable as error:
        print("refused:", error.reason)
        break
    print(f"q{number}", flush=True)
"""


@pytest.mark.skipif(sys.platform == "win32", reason="limits of POSIX")
def test_disk_fills_up_while_enrolling(path: Path) -> None:
    filled(path, 10)
    run = subprocess.run(
        [sys.executable, "-c", ON_A_FULL_DISK, str(path), CONTRACT],
        capture_output=True, text=True, check=False,
    )  # fmt: skip
    *added, last = run.stdout.split("\n")[:-1]
    assert last.startswith("refused:"), run.stderr
    assert len(added) > 20
    found = names(path)
    assert set(added) <= set(found)
    assert len(found) <= 10 + len(added) + 1  # the refused one is not half there
    with closing(sqlite3.connect(path)) as db:
        assert db.execute("PRAGMA integrity_check").fetchone() == ("ok",)


# ------------------------------------------------------------------------------ damage


def test_cut_off_file(path: Path) -> None:
    filled(path, 200)
    whole = path.read_bytes()
    for size in (100, 512, 4096, 5000, len(whole) // 2, len(whole) - 1):
        path.write_bytes(whole[:size])
        use_everything(path)


def use_everything(path: Path) -> bool:
    """Open and ask for all there is; True if it was refused. Any other exception is a failure."""
    probe = unit_vectors(1, 7)
    try:
        with closing(SqliteStore(path)) as store:
            store.contract()
            store.stats()
            store.search(probe, 3)
            for subject in store.subjects():
                store.templates(subject.name)
            store.add([entry("late", probe[0])])
            store.remove("late")
    except MienError:
        return True
    return False


@pytest.mark.parametrize("seed", range(4))
def test_damaged_file(path: Path, seed: int) -> None:
    """Bytes overwritten in many places, and then written to: no error that is not ours.

    What is answered after less damage is in test_damage.py.
    """
    filled(path, 120)
    whole = path.read_bytes()
    dice = random.Random(seed)
    refused = 0
    for _ in range(60):
        damaged = bytearray(whole)
        for _ in range(dice.choice([1, 8, 64])):
            at = dice.randrange(len(damaged))
            size = dice.choice([1, 4, 100])
            damaged[at : at + size] = dice.randbytes(size)
        path.write_bytes(damaged[: len(whole)])
        for log in path.parent.glob("people.mien-*"):
            log.unlink()
        refused += use_everything(path)
    assert refused  # some of it must have hit something that matters


@pytest.mark.parametrize(
    ("damage", "said"),
    [
        ("UPDATE template SET vector = x'0011' WHERE id = 2", "template 2 is damaged: of 'p001'"),
        ("UPDATE template SET vector = 'text' WHERE id = 2", "template 2 is damaged: of 'p001'"),
        ("UPDATE template SET vector = 7 WHERE id = 2", "template 2 is damaged: of 'p001'"),
        ("UPDATE template SET subject = 1 WHERE id = 2", "template 2 is damaged: of 'p000'"),
        ("UPDATE template SET negative = 1 WHERE id = 2", "template 2 is damaged: of 'p001'"),
        ("UPDATE template SET vector = zeroblob(0)", "template 5 is damaged: of 'p004'"),
        ("UPDATE template SET vector = zeroblob(511)", "template 5 is damaged: of 'p004'"),
        ("UPDATE subject SET name = x'ff00ff' WHERE id = 1", "template 1 is damaged: from x.jpg"),
        ("UPDATE subject SET name = CAST(x'ff' AS TEXT) WHERE id = 1", "template 1 is damaged"),
        ("DELETE FROM subject WHERE id = 1", "template 1 is damaged: from x.jpg"),
        ("DELETE FROM template WHERE id = 1", "5 templates are counted and 4 can be read"),
        ("UPDATE collection SET templates = 7", "the row of collection 1 is damaged"),
        ("UPDATE sqlite_sequence SET seq = 2 WHERE name = 'template'", "the counter of templates"),
        ("UPDATE meta SET value = 'x'", "the gallery's own identifier is damaged"),
        ("DELETE FROM audit", "1 lines were written to the audit log and 0 are there"),
        ("UPDATE audit SET templates = 4", "line 1 of the audit log was changed"),
    ],
)
def test_damaged_content(path: Path, damage: str, said: str) -> None:
    """A database that SQLite finds sound, with content that mien would not have written."""
    filled(path, 5)
    with closing(sqlite3.connect(path)) as db:
        db.execute(damage)
        db.commit()
    use_everything(path)
    filled(path.with_name("other.mien"), 5)
    with closing(sqlite3.connect(path.with_name("other.mien"))) as db:
        db.execute(damage)
        db.commit()
    with closing(SqliteStore(path.with_name("other.mien"))) as store:
        assert said in "; ".join(store.check())


def test_a_change_does_not_make_a_damaged_collection_sound(path: Path) -> None:
    filled(path, 5)
    with closing(sqlite3.connect(path)) as db:
        db.execute("UPDATE collection SET templates = 7")
        db.commit()
    with closing(SqliteStore(path)) as store:
        for change in (
            lambda: store.retain(3),
            lambda: store.remove("p001"),
            lambda: store.add([entry("x", unit_vectors(1, 1)[0])]),
            lambda: store.rename("p001", "x"),
            store.expire,
            lambda: store.replace("p001", [entry("p001", unit_vectors(1, 1)[0])]),
        ):
            with pytest.raises(GalleryUnavailable, match="collection 1 is damaged"):
                change()
        assert "collection 1 is damaged" in "; ".join(store.check())


@pytest.mark.parametrize("damage", ["DELETE FROM meta", "DROP TABLE template", "DROP TABLE meta"])
def test_what_is_no_gallery_any_more_is_refused(path: Path, damage: str) -> None:
    filled(path, 5)
    with closing(sqlite3.connect(path)) as db:
        db.execute(damage)
        db.commit()
    assert use_everything(path)


# ------------------------------------------------------------------------------ several processes


ENROL = """
import sys, time
from pathlib import Path
import numpy as np
from mien.gallery.sqlite import SqliteStore
from mien.gallery.store import Entry
from mien.types import Embedding
path, who, contract, seconds = sys.argv[1:]
store = SqliteStore(Path(path))
rng = np.random.default_rng(abs(hash(who)))
end, number = time.monotonic() + float(seconds), 0
while time.monotonic() < end and number < 3000:  # more lines would fill the pipe unread
    vector = rng.normal(size=128).astype(np.float32)
    vector /= np.linalg.norm(vector)
    entries = [
        Entry(f"{who}-{number}-{part}", Embedding(vector, contract), "x.jpg", 0.5)
        for part in range(3)
    ]
    store.add(entries)
    print(f"{who}-{number}", flush=True)
    number += 1
"""


def enrolling(path: Path, who: str, seconds: float) -> "subprocess.Popen[str]":
    """A process that adds three entries at a time, and says so after each `add` returned."""
    return subprocess.Popen(
        [sys.executable, "-c", ENROL, str(path), who, CONTRACT, str(seconds)],
        stdout=subprocess.PIPE, text=True,
    )  # fmt: skip


def test_two_processes_enrol_while_a_third_searches(path: Path) -> None:
    filled(path, 1)
    workers = [enrolling(path, who, 2.5) for who in ("ann", "bob")]
    counts = []
    with closing(SqliteStore(path)) as store:
        while any(worker.poll() is None for worker in workers):
            found = store.search(unit_vectors(2, 8), 5)
            assert all(len(matches) in (1, 4, 5) for matches in found)
            counts.append(store.stats().templates)
            time.sleep(0.02)
        acknowledged = [line for w in workers for line in w.communicate()[0].split()]
        assert [worker.returncode for worker in workers] == [0, 0]
        assert {line.split("-")[0] for line in acknowledged} == {"ann", "bob"}
        stored = {subject.name for subject in store.subjects()}
        expected = {f"{line}-{part}" for line in acknowledged for part in range(3)}
        assert stored == expected | {"p000"}
        ((first, *_),) = store.search(unit_vectors(1, 8), 1)
        assert first.subject in stored
    assert counts == sorted(counts)
    assert all((count - 1) % 3 == 0 for count in counts)  # never half a transaction
    assert len(set(counts)) > 3  # the searches did see it grow


@pytest.mark.skipif(sys.platform == "win32", reason="kill -9 of POSIX")
def test_killed_at_any_moment(path: Path, tmp_path: Path) -> None:
    """kill -9 in twelve random places: what was acknowledged is there, and whole."""
    dice = random.Random(0)
    acknowledged: list[str] = []
    for life in range(12):
        worker = enrolling(path, f"life{life}", 60)
        assert worker.stdout is not None
        with worker.stdout as out:
            acknowledged.append(out.readline().strip())
            time.sleep(dice.uniform(0, 0.1))
            worker.send_signal(signal.SIGKILL)
            acknowledged += out.read().split("\n")[:-1]  # whole lines only
        worker.wait()
    copy = tmp_path / "copy.mien"
    for file in path.parent.glob("people.mien*"):  # as the killed process left it
        shutil.copy(file, copy.with_name(file.name.replace("people", "copy")))
    stored = names(path)
    assert names(copy) == stored
    lost = [f"{a}-{part}" for a in acknowledged for part in range(3) if f"{a}-{part}" not in stored]
    assert lost == []
    assert len(stored) % 3 == 0
    assert len(acknowledged) > 24
    with closing(sqlite3.connect(path)) as db:
        assert db.execute("PRAGMA integrity_check").fetchone() == ("ok",)
        assert db.execute("PRAGMA foreign_key_check").fetchall() == []


def test_every_commit_is_forced_to_disk(path: Path) -> None:
    """What a killed process cannot show, and a power cut would: the settings that matter."""
    with closing(SqliteStore(path)) as store:
        assert store._database.connection.execute("PRAGMA journal_mode").fetchone() == ("wal",)
        assert store._database.connection.execute("PRAGMA synchronous").fetchone() == (2,)  # FULL
        assert store._database.connection.execute("PRAGMA secure_delete").fetchone() == (1,)
