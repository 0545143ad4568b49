"""Processes killed at any moment, while they enrol, remove, replace, rename, compact, search and
move everything to another model or another file.

`MIEN_TEST_KILLS` is how many (default 15; 200 take some minutes), `MIEN_TEST_SECONDS` how
long two write while a third searches (default 4).
"""

import hashlib
import os
import random
import sqlite3
import subprocess
import sys
import time
from contextlib import closing
from pathlib import Path

import numpy as np
import pytest

from mien.gallery import index as index_module
from mien.gallery.sqlite import SqliteStore

KILLS = int(os.environ.get("MIEN_TEST_KILLS", "15"))
SECONDS = float(os.environ.get("MIEN_TEST_SECONDS", "4"))

WORKER = """
import hashlib, random, sys
from contextlib import closing
from pathlib import Path
import numpy as np
from mien.gallery import Entry, index, transfer
from mien.gallery.sqlite import SqliteStore
from mien.types import Box, Embedding, Face, Landmarks, Quality, RecognizedFace
index._FILE_ROWS = 40  # a file for few people, appended to often
path, life, moves = Path(sys.argv[1]), sys.argv[2], sys.argv[3] == "moves"
pictures = path.parent.parent / "pictures"
pictures.mkdir(exist_ok=True)
store, dice, mine, number = SqliteStore(path), random.Random(life), [], 0

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
print("up", flush=True)
while True:
    what = dice.random()
    if what < 0.45 or len(mine) < 10:
        names = [f"{life}-{number}-{part}" for part in range(5)]
        number += 1
        print("adding", *names, flush=True)
        store.add([entry(name) for name in names])
        print("added", *names, flush=True)
        mine += names
    elif what < 0.65:
        name = mine.pop(dice.randrange(len(mine)))
        print("removing", name, flush=True)
        store.remove(name)
        print("removed", name, flush=True)
    elif what < 0.7:
        old, new = dice.choice(mine), f"{life}-{number}x-0"
        number += 1
        print("renaming", old, new, flush=True)
        (pictures / new).write_text(old)
        store.replace(old, [entry(old)])
        store.rename(old, new)
        mine[mine.index(old)] = new
        store.rename(new, old)
        mine[mine.index(new)] = old
        print("kept", old, new, flush=True)
    elif what < 0.75:
        store.compact()
    elif moves and what < 0.79:
        with closing(SqliteStore(path, collection="default.other")) as other:
            following = other.contract() or "two"
            for done in transfer.reembed(store, other, embedder(following)):
                assert done.reason is None, done.reason
        store.swap("default.other")
        store.close()
        store = SqliteStore(path)
        contract = store.contract()
        assert contract == following
    elif moves and what < 0.8:
        with closing(SqliteStore(path.parent.parent / "copy.mien")) as copy:
            if copy.contract() in (None, contract):
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
    """A process that says what it does in a file, so that nothing said is lost with it."""

    def __init__(self, path: Path, life: str, does: str = "") -> None:
        self._said = path.parent.parent / f"{life}.said"
        self._failed = path.parent.parent / f"{life}.failed"
        with self._said.open("w") as out, self._failed.open("w") as err:
            self.process = subprocess.Popen(
                [sys.executable, "-c", WORKER, path, life, does], stdout=out, stderr=err
            )
        while not self._said.read_text():
            assert self.process.poll() is None, self._failed.read_text()
            time.sleep(0.005)

    def kill(self) -> list[str]:
        """The whole lines that it said."""
        assert self.process.poll() is None, self._failed.read_text()
        self.process.kill()
        self.process.wait()
        return self._said.read_text().split("\n")[:-1]


def last_words(lines: list[str]) -> dict[str, set[str]]:
    """Names by the last thing that was said of them.

    Who was being renamed to and fro has one of two names; both are then in "renaming".
    """
    words = ("adding", "added", "removing", "removed", "renaming")
    said: dict[str, set[str]] = {word: set() for word in words}
    for line in lines:
        word, *names = line.split()
        if word == "kept":
            said["renaming"].difference_update(names)
            said["added"].add(names[0])
        elif word in said:
            for others in said.values():
                others.difference_update(names)
            said[word].update(names)
    return said


def check(path: Path, said: dict[str, set[str]]) -> None:
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
        found = store.search(np.stack([vector(name, contract) for name in probes]), 1)
        assert [matches[0].subject for matches in found] == probes
        assert store.check() == []
        found = store.search(
            vector("nobody", contract)[None], 10_000, {"life": probes[0].split("-")[0]}
        )
        assert {m.subject for m in found[0]} == {
            name for name in names if name.split("-")[0] == probes[0].split("-")[0]
        }
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


@pytest.mark.skipif(sys.platform == "win32", reason="kill -9 of POSIX")
def test_killed_at_any_moment(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Nothing acknowledged is lost, nothing removed comes back, and no state is torn."""
    monkeypatch.setattr(index_module, "_FILE_ROWS", 40)
    (tmp_path / "gallery").mkdir()
    path, dice, lines = tmp_path / "gallery" / "people.mien", random.Random(4), []
    for life in range(KILLS):
        worker = Worker(path, f"life{life}", "moves")
        time.sleep(dice.uniform(0, 0.6))
        lines += worker.kill()
    said = last_words(lines)
    assert len(said["added"]) > 2 * KILLS
    check(path, said)
    copy = SqliteStore(tmp_path / "copy.mien")  # killed in the middle of copying, it is sound too
    assert copy.check() == []
    copy.close()


@pytest.mark.skipif(sys.platform == "win32", reason="kill -9 of POSIX")
def test_two_writers_and_a_searcher(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(index_module, "_FILE_ROWS", 40)
    (tmp_path / "gallery").mkdir()
    path = tmp_path / "gallery" / "people.mien"
    workers = [Worker(path, "ann"), Worker(path, "bob")]
    end = time.monotonic() + SECONDS
    with closing(SqliteStore(path)) as store:
        while time.monotonic() < end:
            known = store.subjects()
            if known:
                name = known[len(known) // 2].name
                (found,) = store.search(vector(name, "one")[None], 1)
                assert not found or found[0].subject == name or found[0].score < 0.99
            time.sleep(0.01)
    said = last_words([line for worker in workers for line in worker.kill()])
    assert len(said["added"]) > 20
    check(path, said)
