"""Processes killed at any moment, while they enrol, remove, compact and search.

`MIEN_TEST_KILLS` is how many (default 15; 200 takes about two minutes).
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

WORKER = """
import hashlib, random, sys
from pathlib import Path
import numpy as np
from mien.gallery import Entry, index
from mien.gallery.sqlite import SqliteStore
from mien.types import Embedding
index._FILE_ROWS = 40  # a file for few people, appended to often
path, life = sys.argv[1:]
store, dice, mine, number = SqliteStore(Path(path)), random.Random(life), [], 0

def vector(name):
    seed = int.from_bytes(hashlib.sha256(name.encode()).digest()[:4], "big")
    found = np.random.default_rng(seed).standard_normal(32).astype(np.float32)
    return found / np.linalg.norm(found)

def entry(name):
    return Entry(name, Embedding(vector(name), "test-contract"), name, .5, {"life": life})

print("up", flush=True)
while True:
    what = dice.random()
    if what < 0.5 or len(mine) < 10:
        names = [f"{life}-{number}-{part}" for part in range(5)]
        number += 1
        print("adding", *names, flush=True)
        store.add([entry(name) for name in names])
        print("added", *names, flush=True)
        mine += names
    elif what < 0.75:
        name = mine.pop(dice.randrange(len(mine)))
        print("removing", name, flush=True)
        store.remove(name)
        print("removed", name, flush=True)
    elif what < 0.8:
        store.compact()
    else:
        name = dice.choice(mine)
        assert store.search(vector(name)[None], 1)[0][0].subject == name, name
"""


def vector(name: str) -> np.ndarray:
    seed = int.from_bytes(hashlib.sha256(name.encode()).digest()[:4], "big")
    found = np.random.default_rng(seed).standard_normal(32).astype(np.float32)
    return found / np.linalg.norm(found)


class Worker:
    """A process that says what it does in a file, so that nothing said is lost with it."""

    def __init__(self, path: Path, life: str) -> None:
        self._said = path.parent.parent / f"{life}.said"
        self._failed = path.parent.parent / f"{life}.failed"
        with self._said.open("w") as out, self._failed.open("w") as err:
            self.process = subprocess.Popen(
                [sys.executable, "-c", WORKER, path, life], stdout=out, stderr=err
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
    """Names by the last thing that was said of them."""
    said: dict[str, set[str]] = {word: set() for word in ("adding", "added", "removing", "removed")}
    for line in lines:
        word, *names = line.split()
        if word in said:
            for others in said.values():
                others.difference_update(names)
            said[word].update(names)
    return said


def check(path: Path, said: dict[str, set[str]]) -> None:
    with closing(SqliteStore(path)) as store:
        names = {subject.name for subject in store.subjects()}
        assert said["added"] <= names
        assert not said["removed"] & names
        unsure = said["adding"] | said["removing"]
        assert names <= said["added"] | unsure
        for start_ in {name.rpartition("-")[0] for name in said["adding"]}:
            batch = {f"{start_}-{part}" for part in range(5)}
            assert len(batch & names) in (0, 5)  # whole or not at all
        assert store.stats().templates == len(names)
        assert store.stats().subjects == len(names)
        probes = sorted(names)[:: max(1, len(names) // 60)]
        found = store.search(np.stack([vector(name) for name in probes]), 1)
        assert [matches[0].subject for matches in found] == probes
        assert store.check() == []
        found = store.search(vector("nobody")[None], 10_000, {"life": probes[0].split("-")[0]})
        assert {m.subject for m in found[0]} == {
            name for name in names if name.split("-")[0] == probes[0].split("-")[0]
        }
    with closing(sqlite3.connect(path)) as db:
        assert db.execute("PRAGMA foreign_key_check").fetchall() == []
    raw = b"".join(f.read_bytes() for f in path.parent.rglob("*") if f.is_file())
    left = [name for name in said["removed"] if vector(name).tobytes() in raw]
    assert left == []


@pytest.mark.skipif(sys.platform == "win32", reason="kill -9 of POSIX")
def test_killed_at_any_moment(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Nothing acknowledged is lost, nothing removed comes back, and no state is torn."""
    monkeypatch.setattr(index_module, "_FILE_ROWS", 40)
    (tmp_path / "gallery").mkdir()
    path, dice, lines = tmp_path / "gallery" / "people.mien", random.Random(4), []
    for life in range(KILLS):
        worker = Worker(path, f"life{life}")
        time.sleep(dice.uniform(0, 0.25))
        lines += worker.kill()
    said = last_words(lines)
    assert len(said["added"]) > 2 * KILLS
    check(path, said)


@pytest.mark.skipif(sys.platform == "win32", reason="kill -9 of POSIX")
def test_two_writers_and_a_searcher(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(index_module, "_FILE_ROWS", 40)
    (tmp_path / "gallery").mkdir()
    path = tmp_path / "gallery" / "people.mien"
    workers = [Worker(path, "ann"), Worker(path, "bob")]
    end = time.monotonic() + 4
    with closing(SqliteStore(path)) as store:
        while time.monotonic() < end:
            known = store.subjects()
            if known:
                name = known[len(known) // 2].name
                (found,) = store.search(vector(name)[None], 1)
                assert not found or found[0].subject == name or found[0].score < 0.99
            time.sleep(0.01)
    said = last_words([line for worker in workers for line in worker.kill()])
    assert len(said["added"]) > 20
    check(path, said)
