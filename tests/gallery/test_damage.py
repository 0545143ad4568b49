"""Bytes overwritten at random places of an embedded gallery: found, named, the rest as it was.

`MIEN_TEST_DAMAGES` is at how many places (default 100); with `-s` the outcomes are printed.
"""

import os
import random
import re
import sqlite3
import subprocess
import sys
import warnings
from collections import Counter
from collections.abc import Callable
from contextlib import closing
from dataclasses import astuple, dataclass
from itertools import count
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from mien.errors import GalleryDamaged, GalleryUnavailable
from mien.gallery import index as index_module
from mien.gallery.sqlite import SqliteStore
from mien.gallery.store import Entry
from mien.types import Embedding

DAMAGES = int(os.environ.get("MIEN_TEST_DAMAGES", "100"))
CONTRACT = "detector+embedder@01234567"
PEOPLE, EACH, DIMENSIONS = 40, 3, 64


def vectors() -> np.ndarray:
    rows = np.random.default_rng(5).normal(size=(PEOPLE * EACH, DIMENSIONS))
    return (rows / np.linalg.norm(rows, axis=1, keepdims=True)).astype(np.float32)


@pytest.fixture(autouse=True)
def _always_the_same_file(monkeypatch: pytest.MonkeyPatch) -> None:
    """No clock and no chance in it: what a test hits, it hits every time."""
    number = count()
    monkeypatch.setattr("secrets.token_bytes", lambda size: next(number).to_bytes(size, "big"))
    monkeypatch.setattr("secrets.token_hex", lambda size: f"{next(number):0{2 * size}x}")
    monkeypatch.setattr("mien.gallery.schema.now", lambda: "2026-11-29T10:00:00+00:00")


def fill(path: Path) -> None:
    """People with three templates each, the third a negative of some, and two removed."""
    entries = []
    for number, vector in enumerate(vectors()):
        whose, which = divmod(number, EACH)
        entries.append(
            Entry(
                f"person {whose:03}", Embedding(vector, CONTRACT), f"{whose}/{which}.jpg",
                number / 1000, {"site": ("north", "south", "east")[whose % 3]},
                negative=which == 2 and whose % 4 == 0, source_sha256=f"{number:064x}",
            )
        )  # fmt: skip
    with closing(SqliteStore(path)) as store:
        store.add(entries)
        store.remove("person 007")
        store.remove("person 023")


@dataclass(frozen=True)
class Seen:
    """What a gallery says, None where it refuses; and whether it said that something is damaged."""

    subjects: dict[str, str] | None
    counts: dict[str, int] | None
    templates: dict[str, list[Any]] | None
    entries: dict[int, tuple[Any, ...]] | None
    searches: list[list[Any]] | None
    filtered: list[list[Any]] | None
    told: dict[str, bool]
    problems: list[str]


ANSWERS = ("subjects", "counts", "templates", "entries", "searches", "filtered")


def plain(entry: Entry) -> tuple[Any, ...]:
    return (
        entry.subject, entry.embedding.vector.tobytes(), entry.embedding.contract, entry.source,
        entry.quality, dict(entry.metadata), entry.negative, entry.source_sha256, entry.created,
    )  # fmt: skip


def look(path: Path) -> Seen:
    probes, told = vectors()[::7], {}
    where = {"site": ["north", "east"]}
    store = SqliteStore(path, create=False)

    def ask(what: str, question: Callable[[], Any]) -> Any:
        with warnings.catch_warnings(record=True) as said:
            warnings.simplefilter("always")
            try:
                answer = question()
            except GalleryUnavailable:
                answer = None
        assert {warning.category for warning in said} <= {GalleryDamaged}
        told[what] = bool(said) or answer is None
        return answer

    with closing(store):
        subjects = ask("subjects", store.subjects)
        names = [subject.name for subject in subjects or []]
        return Seen(
            subjects and {subject.name: subject.created for subject in subjects},
            subjects and {subject.name: subject.templates for subject in subjects},
            ask("templates", lambda: {n: [*map(astuple, store.templates(n))] for n in names}),
            ask("entries", lambda: {id_: plain(entry) for id_, entry in store.entries()}),
            ask("searches", lambda: [[*map(astuple, r)] for r in store.search(probes, 5)]),
            ask("filtered", lambda: [[*map(astuple, r)] for r in store.search(probes, 5, where)]),
            told,
            store.check(),
        )


def damaged(whole: bytes, dice: random.Random) -> bytes:
    """One bit, one byte or up to a hundred, where something is: much of a small file is empty."""
    content = bytearray(whole)
    at, size = int(dice.choice(np.flatnonzero(np.frombuffer(whole, np.uint8)))), 1
    if dice.random() < 0.3:
        content[at] ^= 1 << dice.randrange(8)
    else:
        size = dice.choice([1, 8, 100])
        content[at : at + size] = dice.randbytes(size)
    return bytes(content[: len(whole)])


def expected(
    entries: dict[int, tuple[Any, ...]], probe: np.ndarray, sites: tuple[str, ...]
) -> list[tuple[str, int]]:
    """The best of these by comparing everything: subject and template."""
    best: dict[str, tuple[float, int]] = {}
    against: dict[str, float] = {}
    for id_, (subject, vector, *_, metadata, negative, _, _) in entries.items():
        score = float(np.frombuffer(vector, np.float32) @ probe)
        if negative:
            against[subject] = max(score, against.get(subject, -1.0))
        elif metadata["site"] in sites and score > best.get(subject, (-2.0, 0))[0]:
            best[subject] = (score, id_)
    kept = [(s, id_) for s, (score, id_) in best.items() if score >= against.get(s, -1.0)]
    return sorted(kept, key=lambda found: -best[found[0]][0])[:5]


def within_reach(
    seen: Seen, ranking: list[Any], entries: dict[int, tuple[Any, ...]]
) -> dict[int, tuple[Any, ...]]:
    """What a search can find: what is read by its id. (Reading in a row goes another way.)"""
    listed = {template[0] for each in (seen.templates or {}).values() for template in each}
    found = {template for _, template, _ in ranking}
    return {
        id_: entry for id_, entry in entries.items()
        if id_ in found or (id_ in (seen.entries or {}) and (entry[6] or id_ in listed))
    }  # fmt: skip


def compare(truth: Seen, seen: Seen) -> None:
    """Nothing is wrong that was said, and what is left out is named."""
    assert truth.subjects
    assert truth.templates
    assert truth.entries
    for name, created in (seen.subjects or {}).items():
        assert truth.subjects[name] == created
    for name, templates in (seen.templates or {}).items():
        assert [t for t in truth.templates[name] if t in templates] == templates
    for id_, entry in (seen.entries or {}).items():
        assert truth.entries[id_] == entry
    for what, sites in (("searches", ("north", "south", "east")), ("filtered", ("north", "east"))):
        for probe, ranking in zip(vectors()[::7], getattr(seen, what) or [], strict=False):
            for subject, template, score in ranking:
                assert truth.entries[template][0] == subject
                vector = np.frombuffer(truth.entries[template][1], np.float32)
                assert abs(float(vector @ probe) - score) < 1e-6
            if seen.entries is not None and what == "searches":
                best = expected(within_reach(seen, ranking, truth.entries), probe, sites)
                assert [(s, t) for s, t, _ in ranking] == best[: len(ranking)]
    for what in ("subjects", "entries", "searches"):  # these say at once that something is missing
        assert seen.told[what] or getattr(seen, what) == getattr(truth, what), what
    if any(getattr(seen, what) != getattr(truth, what) for what in ANSWERS):
        assert seen.problems
    if seen.entries is not None and len(seen.problems) < 80:
        named = {int(n) for text in seen.problems for n in re.findall(r"template (\d+) is d", text)}
        assert truth.entries.keys() - seen.entries.keys() <= named


@pytest.mark.parametrize("with_index", [False, True])
def test_what_is_damaged_is_named_and_the_rest_is_as_it_was(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, with_index: bool
) -> None:
    if with_index:
        monkeypatch.setattr(index_module, "_FILE_ROWS", 40)
    path, dice = tmp_path / "people.mien", random.Random(with_index)
    fill(path)
    truth, whole = look(path), path.read_bytes()
    assert truth.problems == []
    assert not any(truth.told.values())
    outcomes: Counter[str] = Counter()
    for _ in range(DAMAGES):
        path.write_bytes(damaged(whole, dice))
        for log in path.parent.glob("people.mien-*"):
            if log.is_file():
                log.unlink()
        try:
            seen = look(path)
        except GalleryUnavailable:
            outcomes["not opened"] += 1
            continue
        compare(truth, seen)
        if not seen.problems:
            outcomes["no effect"] += 1
        elif None in (seen.subjects, seen.entries, seen.searches):
            outcomes["opened, something refused"] += 1
        elif len(seen.entries or {}) < len(truth.entries or {}):
            outcomes["some left out and named"] += 1
        else:
            outcomes["all read, damage named"] += 1
    print(", ".join(f"{count} {what}" for what, count in outcomes.most_common()))
    assert outcomes["some left out and named"] > DAMAGES // 10


def test_the_command_line_says_what_is_damaged_and_what_to_do(tmp_path: Path) -> None:
    path = tmp_path / "people.mien"
    fill(path)
    content = bytearray(path.read_bytes())
    content[content.find(vectors()[31].tobytes()) + 7] ^= 16  # of template 32
    path.write_bytes(content)

    def run(*words: str) -> "subprocess.CompletedProcess[str]":
        return subprocess.run(
            [Path(sys.executable).with_name("mien"), "gallery", *words],
            capture_output=True, text=True, check=False, cwd=tmp_path,
            env=os.environ | {"MIEN_GALLERY": "people.mien"},
        )  # fmt: skip

    verify = run("verify")
    assert verify.returncode == 1
    assert "template 32 is damaged: of 'person 010', from 10/1.jpg" in verify.stdout
    assert "migrate --to NEW.mien --accept-loss" in verify.stderr
    show = run("show", "person 010")
    assert show.returncode == 0
    assert "10/2.jpg" in show.stdout
    assert "10/1.jpg" not in show.stdout
    assert "mien: the gallery is damaged: template 32 is damaged and left out" in show.stderr
    for words in (["export", "all.npz"], ["migrate", "--to", "new.mien"]):
        refused = run(*words)
        assert refused.returncode == 4
        assert "template 32" in refused.stderr
        assert "--accept-loss" in refused.stderr
        assert run(*words, "--accept-loss").returncode == 0
    assert "all well" in run("verify", "--gallery", "new.mien").stdout
    with closing(SqliteStore(path)) as old, closing(SqliteStore(tmp_path / "new.mien")) as new:
        with pytest.warns(GalleryDamaged):
            kept = [plain(entry) for _, entry in old.entries()]
        assert [plain(entry) for _, entry in new.entries()] == kept
        assert len(kept) == (PEOPLE - 2) * EACH - 1
    assert run("remove", "person 010", "--yes").returncode == 0  # the damaged template with it
    assert "all well" in run("verify").stdout


def test_compact_makes_a_damaged_index_again(tmp_path: Path) -> None:
    path = tmp_path / "people.mien"
    fill(path)
    with closing(sqlite3.connect(path)) as db:
        root = db.execute("SELECT rootpage FROM sqlite_master WHERE name = 'tag_template'")
        ((page,), (size,)) = root.fetchone(), db.execute("PRAGMA page_size").fetchone()
    content = bytearray(path.read_bytes())
    content[page * size - 30 : page * size] = bytes(30)  # keys are at the end of a page
    path.write_bytes(content)
    with closing(SqliteStore(path)) as store:
        assert store.check()
        store.compact()
        assert store.check() == []


def test_a_damaged_log_costs_the_newest_writes_and_tears_none(tmp_path: Path) -> None:
    """What a killed process leaves: SQLite takes the log up to where its checksums agree."""
    path, dice = tmp_path / "people.mien", random.Random(3)
    rows = [Entry(str(n), Embedding(v, CONTRACT), "x.jpg", 0.5) for n, v in enumerate(vectors())]
    copy = tmp_path / "killed" / "people.mien"
    copy.parent.mkdir()
    with closing(SqliteStore(path)) as store:
        for first in range(0, 40, 4):
            store.add(rows[first : first + 4])
        whole, log = path.read_bytes(), path.with_name("people.mien-wal").read_bytes()
    found = set()
    for _ in range(30):
        for file in copy.parent.iterdir():
            file.unlink()
        copy.write_bytes(whole)
        copy.with_name("people.mien-wal").write_bytes(damaged(log, dice))
        with closing(SqliteStore(copy)) as store:
            names = {subject.name for subject in store.subjects()}
            assert store.check() == []
        assert len(names) % 4 == 0
        assert names == {str(n) for n in range(len(names))}
        found.add(len(names))
    assert len(found) > 3
