"""Processes killed amid enrolling, removing, renaming, compacting, re-embedding, switching and
copying, and two that write while a third searches.

A process says when each of these begins and ends; the one that was hit least so far is waited for
and killed after a random part of the time that it usually takes. `MIEN_TEST_KILLS` is how many
(default 15; 200 take some minutes), `MIEN_TEST_SECONDS` how long two write while a third searches
(default 4). With `-s` the landings are printed.
"""

import hashlib
import os
import random
import shutil
import sqlite3
import subprocess
import sys
import time
from collections import Counter
from contextlib import closing
from pathlib import Path
from statistics import median

import numpy as np
import pytest

from mien.gallery import index as index_module
from mien.gallery.sqlite import SqliteStore
from mien.gallery.store import Entry
from mien.types import Embedding

KILLS = int(os.environ.get("MIEN_TEST_KILLS", "15"))
SECONDS = float(os.environ.get("MIEN_TEST_SECONDS", "4"))
OF_ONE_GALLERY = 20  # kills, then another one: a large gallery makes the rest slow
KINDS = ("enrol", "remove", "rename", "compact", "migrate", "switch", "copy")

WORKER = """
import hashlib, random, sys, time
from contextlib import closing, contextmanager
from pathlib import Path
import numpy as np
from mien.gallery import Entry, index, transfer
from mien.gallery.sqlite import SqliteStore
from mien.types import Box, Embedding, Face, Landmarks, Quality, RecognizedFace
index._FILE_ROWS = 40  # a file for few people, appended to often
path, life, aim = Path(sys.argv[1]), sys.argv[2], sys.argv[3]
pictures = path.parent.parent / "pictures"
pictures.mkdir(exist_ok=True)
store, dice, mine, number = SqliteStore(path), random.Random(life), [], 0

@contextmanager
def amid(kind):
    print("begin", kind, flush=True)
    start = time.monotonic()
    yield
    print("end", kind, time.monotonic() - start, flush=True)

def vector(name, contract):
    seed = int.from_bytes(hashlib.sha256((contract + name).encode()).digest()[:4], "big")
    found = np.random.default_rng(seed).standard_normal(32).astype(np.float32)
    return found / np.linalg.norm(found)

def entry(name):
    picture = pictures / name
    picture.write_text(name)
    embedding = Embedding(vector(name, contract), contract)
    return Entry(name, embedding, str(picture), .5, {"life": life})

def embedder(contract):
    def embed(picture):
        made = Embedding(vector(Path(picture).read_text(), contract), contract)
        points = Landmarks(np.zeros((5, 2), np.float32))
        return RecognizedFace(Face(Box(0, 0, 1, 1), points, 1.0), Quality(.5), made)
    return embed

contract = store.contract() or "one"
shares = {"enrol": 8, "remove": 12, "rename": 2, "compact": 2, "search": 12}
if aim:
    shares |= {"migrate": 1, "copy": 1}
print("up", flush=True)
while True:
    (what,) = dice.choices(list(shares), shares.values())
    if aim and dice.random() < 0.2:
        what = aim
    if what == "enrol" or len(mine) < 10:
        names = [f"{life}-{number}-{part}" for part in range(5)]
        number += 1
        entries = [entry(name) for name in names]
        print("adding", *names, flush=True)
        with amid("enrol"):
            store.add(entries)
        print("added", *names, flush=True)
        mine += names
    elif what == "remove":
        name = mine.pop(dice.randrange(len(mine)))
        print("removing", name, flush=True)
        with amid("remove"):
            store.remove(name)
        print("removed", name, flush=True)
    elif what == "rename":
        old, new = dice.choice(mine), f"{life}-{number}x-0"
        number += 1
        print("renaming", old, new, flush=True)
        (pictures / new).write_text(old)
        with amid("rename"):
            store.replace(old, [entry(old)])
            store.rename(old, new)
            store.rename(new, old)
        print("kept", old, new, flush=True)
    elif what == "compact":
        with amid("compact"):
            store.compact()
    elif what in ("migrate", "switch"):
        with closing(SqliteStore(path, collection="default.other")) as other:
            following = other.contract() or "two"
            with amid("migrate"):
                for done in transfer.reembed(store, other, embedder(following)):
                    assert done.reason is None, done.reason
        with amid("switch"):
            store.swap("default.other")
        store.close()
        store = SqliteStore(path)
        contract = store.contract()
        assert contract == following
    elif what == "copy":
        with closing(SqliteStore(path.parent.parent / f"copy-{contract}.mien")) as copy:
            with amid("copy"):
                transfer.copy_entries(store, copy)
    else:
        name = dice.choice(mine)
        assert store.search(vector(name, contract)[None], 1)[0][0].subject == name, name
"""


def vector(name: str, contract: str) -> np.ndarray:
    seed = int.from_bytes(hashlib.sha256((contract + name).encode()).digest()[:4], "big")
    found = np.random.default_rng(seed).standard_normal(32).astype(np.float32)
    return found / np.linalg.norm(found)


class Worker:
    """A process that says what it does in a file, so that nothing said is lost with it.

    It does everything, or, without an `aim`, what leaves the people of others alone.
    """

    def __init__(self, path: Path, life: str, aim: str = "") -> None:
        said = path.parent.parent / f"{life}.said"
        self._failed = path.parent.parent / f"{life}.failed"
        with said.open("w") as out, self._failed.open("w") as err:
            self._process = subprocess.Popen(
                [sys.executable, "-c", WORKER, path, life, aim], stdout=out, stderr=err
            )
        self._said = said.open()
        self._lines = [""]  # the last one may not be whole yet
        self.hear("up")

    def _listen(self) -> list[str]:
        """The whole lines said since the last time."""
        heard = len(self._lines) - 1
        self._lines[-1:] = (self._lines[-1] + self._said.read()).split("\n")
        return self._lines[heard:-1]

    def hear(self, line: str) -> None:
        """Wait until it says this, for two minutes at most."""
        end = time.monotonic() + 120
        while line not in self._listen():
            assert self._process.poll() is None, self._failed.read_text()
            assert time.monotonic() < end, f"it never said {line!r}"
            time.sleep(0.0005)

    def kill(self) -> list[str]:
        """The whole lines that it ever said."""
        assert self._process.poll() is None, self._failed.read_text()
        self._process.kill()
        self._process.wait()
        self._listen()
        self._said.close()
        return self._lines[:-1]


def landing(lines: list[str]) -> str:
    """What had begun and not ended."""
    word, kind, *_ = [line for line in lines if line.startswith(("begin ", "end "))][-1].split()
    return kind if word == "begin" else "in between"


class Said(dict[str, set[str]]):
    """Names by the last thing that was said of them.

    Who was being renamed to and fro has one of two names; both are then in "renaming".
    """

    WORDS = ("adding", "added", "removing", "removed", "renaming")

    def __init__(self) -> None:
        super().__init__({word: set() for word in self.WORDS})

    def add(self, lines: list[str]) -> None:
        for line in lines:
            word, *names = line.split()
            if word == "kept":
                self["renaming"].difference_update(names)
                self["added"].add(names[0])
            elif word in self:
                for others in self.values():
                    others.difference_update(names)
                self[word].update(names)

    def settle(self, names: set[str]) -> None:
        """What was unsure is as it was found, and must stay so."""
        self["added"] |= (self["adding"] | self["removing"]) & names
        self["removed"] |= self["removing"] - names
        self["adding"].clear()
        self["removing"].clear()


def check(path: Path, said: Said) -> None:
    with closing(SqliteStore(path)) as store:
        names = {subject.name for subject in store.subjects()}
        assert said["added"] <= names
        assert not said["removed"] & names
        unsure = said["adding"] | said["removing"] | said["renaming"]
        contract = str(store.contract())
        moving = {name.split("-")[0] for name in said["renaming"]}
        for life in moving:  # exactly one of the two names
            assert len({n for n in said["renaming"] if n.startswith(f"{life}-")} & names) == 1
        assert names <= said["added"] | unsure
        for start_ in {name.rpartition("-")[0] for name in said["adding"]}:
            batch = {f"{start_}-{part}" for part in range(5)}
            assert len(batch & names) in (0, 5)  # whole or not at all
        assert store.stats().templates == len(names)
        assert store.stats().subjects == len(names)
        probes = sorted(names)[:: max(1, len(names) // 60)]
        probes = [name for name in probes if name not in said["renaming"]]
        assert store.check() == []
        if probes:
            found = store.search(np.stack([vector(name, contract) for name in probes]), 1)
            assert [matches[0].subject for matches in found] == probes
            life = probes[0].split("-")[0]
            (matches,) = store.search(vector("nobody", contract)[None], 10_000, {"life": life})
            assert {m.subject for m in matches} == {n for n in names if n.startswith(f"{life}-")}
    with closing(sqlite3.connect(path)) as db:
        assert db.execute("PRAGMA foreign_key_check").fetchall() == []
    with closing(SqliteStore(path, collection="default.other")) as other:  # the other model
        there = {subject.name for subject in other.subjects()}
        assert there <= names | said["renaming"]
        assert other.check() == []
        if there:
            some = sorted(there - said["renaming"])[:20]
            probes = np.stack([vector(name, str(other.contract())) for name in some])
            assert [found[0].subject for found in other.search(probes, 1)] == some
    raw = b"".join(f.read_bytes() for f in path.parent.rglob("*") if f.is_file())
    for contract in ("one", "two"):
        assert not [n for n in said["removed"] if vector(n, contract).tobytes() in raw]
    said.settle(names)


@pytest.mark.skipif(sys.platform == "win32", reason="kill -9 of POSIX")
def test_killed_in_the_middle_of_everything(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Nothing acknowledged is lost, nothing removed comes back, and no state is torn."""
    monkeypatch.setattr(index_module, "_FILE_ROWS", 40)
    dice, took = random.Random(4), {kind: [0.003] for kind in KINDS}
    amid: Counter[str] = Counter()
    kills = 0
    while kills < KILLS or (set(KINDS) - set(amid) and kills < 4 * KILLS):
        if kills % OF_ONE_GALLERY == 0:
            folder = tmp_path / f"gallery{kills}"
            (folder / "files").mkdir(parents=True)
            path, said = folder / "files" / "people.mien", Said()
        aim = min(KINDS, key=lambda kind: (amid[kind], dice.random()))
        worker = Worker(path, f"life{kills}", aim)
        time.sleep(dice.uniform(0, 0.1))
        worker.hear(f"begin {aim}")
        time.sleep(dice.uniform(0, median(took[aim])))
        lines = worker.kill()
        kills += 1
        amid[landing(lines)] += 1
        for _, kind, seconds in (line.split() for line in lines if line.startswith("end ")):
            took[kind].append(float(seconds))
        said.add(lines)
        check(path, said)
        for copy in folder.glob("copy-*.mien"):  # killed in the middle of copying, it is sound too
            with closing(SqliteStore(copy)) as store:
                assert store.check() == []
    print(f"{kills} kills amid:", ", ".join(f"{kind} {n}" for kind, n in amid.most_common()))
    assert set(KINDS) <= set(amid)


@pytest.mark.skipif(sys.platform == "win32", reason="kill -9 of POSIX")
def test_two_writers_and_a_searcher(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(index_module, "_FILE_ROWS", 40)
    (tmp_path / "gallery").mkdir()
    path = tmp_path / "gallery" / "people.mien"
    workers = [Worker(path, "ann"), Worker(path, "bob")]
    end, searches = time.monotonic() + SECONDS, 0
    with closing(SqliteStore(path)) as store:
        while time.monotonic() < end:
            known = store.subjects()
            if known:
                name = known[len(known) // 2].name
                (found,) = store.search(vector(name, "one")[None], 1)
                assert not found or found[0].subject == name or found[0].score < 0.99
                searches += 1
            time.sleep(0.01)
    said = Said()
    for worker in workers:
        lines = worker.kill()
        assert any(line.startswith("end compact") for line in lines) or SECONDS < 30
        print(f"{len(lines)} lines said by a writer")
        said.add(lines)
    print(f"{searches} searches meanwhile, {len(said['added'])} people in the end")
    assert len(said["added"]) > 20
    check(path, said)


UPGRADE = """
import sys
from pathlib import Path
from mien.gallery.sqlite import SqliteStore
print("begin", flush=True)
store = SqliteStore(Path(sys.argv[1]))
print("end", flush=True)
"""


@pytest.mark.skipif(sys.platform == "win32", reason="kill -9 of POSIX")
def test_killed_while_an_older_format_is_upgraded(tmp_path: Path) -> None:
    """It is of the old format or of the new one, whole; the next process has it of the new."""
    old, path, dice = tmp_path / "old.mien", tmp_path / "people.mien", random.Random(6)
    names = [f"p{number}" for number in range(3000)]
    entries = [Entry(name, Embedding(vector(name, "one"), "one"), "x.jpg", 0.5) for name in names]
    with closing(SqliteStore(old)) as store:
        store.add(entries)
    with closing(sqlite3.connect(old)) as db:
        for table in ("collection", "subject", "template"):
            db.execute(f"ALTER TABLE {table} DROP COLUMN sum")
        db.execute("PRAGMA user_version = 3")
    took, amid = 0.1, 0
    for _ in range(8):
        for file in tmp_path.glob("people.mien*"):
            file.unlink()
        shutil.copy(old, path)
        with subprocess.Popen(
            [sys.executable, "-c", UPGRADE, path], stdout=subprocess.PIPE, text=True
        ) as process:
            assert process.stdout
            assert process.stdout.readline() == "begin\n"
            time.sleep(dice.uniform(0, took))
            process.kill()
            amid += "end" not in process.stdout.read()
            took *= 1 if amid else 0.7  # until one lands
        with closing(SqliteStore(path)) as store:
            assert [subject.name for subject in store.subjects()] == sorted(names)
            assert store.check() == []
    assert amid
