import os
import sqlite3
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from people import CONTRACT, entries, entry, vectors

from mien.errors import ContractMismatch, GalleryUnavailable, InputError, UnknownSubject
from mien.gallery import Entry, open_gallery
from mien.gallery import index as index_module
from mien.gallery.audit import Receipt
from mien.gallery.sqlite import SqliteStore
from mien.types import Embedding

ZAPHOD = "Zaphod Beeblebrox"
MANY = 5000  # enough for an index file


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "people.mien"


@pytest.fixture(scope="module")
def rows() -> np.ndarray:
    return vectors(MANY, 32, squeeze=0.8)


@pytest.fixture
def store(path: Path, rows: np.ndarray) -> Iterator[SqliteStore]:
    """With an index file that holds everyone."""
    found = SqliteStore(path)
    found.add(entries(rows))
    found.search(rows[:1], 1)
    yield found
    found.close()


def index_file(path: Path) -> Path:
    return path.with_name(path.name + "-index") / "1"


def everyone_is_found(store: SqliteStore, rows: np.ndarray, first: int = 0) -> bool:
    step = max(1, len(rows) // 40) | 1
    found = store.search(rows[::step], 1)
    return [match[0].subject for match in found] == [
        f"person {first + i // 4}" for i in range(0, len(rows), step)
    ]


def raw_bytes(folder: Path) -> bytes:
    return b"".join(file.read_bytes() for file in sorted(folder.rglob("*")) if file.is_file())


class TestIndexFile:
    def test_it_is_made_and_used_by_the_next_process(self, store, path, rows) -> None:
        assert index_file(path).stat().st_size > MANY * 16
        with_file = SqliteStore(path)
        assert everyone_is_found(with_file, rows)
        assert not with_file._index._tail.ids().size  # nothing was read from the record
        with_file.close()

    def test_scores_are_exact(self, store, rows) -> None:
        for probe in rows[:20]:
            exact = np.sort(rows @ probe)[::-1]
            best = store.search(probe[None], 1)[0][0]
            assert best.score == pytest.approx(exact[0], abs=1e-6)

    @pytest.mark.parametrize(
        "harm",
        [
            lambda file: file.unlink(),
            lambda file: file.write_bytes(b""),
            lambda file: file.write_bytes(file.read_bytes()[:70_000]),
            lambda file: file.write_bytes(b"x" + file.read_bytes()[1:]),
            lambda file: file.write_bytes(file.read_bytes()[:400_000].ljust(1_000_000, b"\0")),
            lambda file: file.write_bytes(os.urandom(file.stat().st_size)),
        ],
    )
    def test_whatever_is_wrong_with_it_nobody_is_missed(self, store, path, rows, harm) -> None:
        store.close()
        harm(index_file(path))
        again = SqliteStore(path)
        assert everyone_is_found(again, rows)
        again.close()
        assert index_file(path).exists()

    def test_a_single_changed_byte_is_noticed(self, store, path, rows) -> None:
        store.close()
        raw = bytearray(index_file(path).read_bytes())
        for place in np.random.default_rng(2).integers(0, 65536 + 16384 * 28 + MANY * 16, 12):
            if place < 65536 and not raw[place]:
                continue  # the unused end of the header
            damaged = bytearray(raw)
            damaged[place] ^= 0x41
            index_file(path).write_bytes(damaged)
            again = SqliteStore(path)
            assert everyone_is_found(again, rows)
            again.close()

    def test_another_gallerys_file_is_not_believed(self, store, path, tmp_path, rows) -> None:
        (tmp_path / "other").mkdir()
        other_path = tmp_path / "other" / "people.mien"
        other = SqliteStore(other_path)
        other.add(entries(-rows, first=90_000))
        other.close()
        index_file(other_path).parent.mkdir()
        index_file(other_path).write_bytes(index_file(path).read_bytes())
        other = SqliteStore(other_path)
        assert everyone_is_found(other, -rows, first=90_000)
        other.close()

    def test_it_grows_with_the_gallery(self, store, path, rows) -> None:
        more = vectors(4 * MANY, 32, seed=9, squeeze=0.8)
        before = SqliteStore(path)
        before.search(rows[:1], 1)
        for start in range(0, len(more), 2500):
            store.add(entries(more[start : start + 2500], first=10_000 + start // 4))
            assert everyone_is_found(store, more[start : start + 2500], 10_000 + start // 4)
        assert everyone_is_found(store, rows)
        assert everyone_is_found(before, more, 10_000)
        assert everyone_is_found(before, rows)
        before.close()
        after = SqliteStore(path)
        assert everyone_is_found(after, more, 10_000)
        assert len(after._index._tail) < index_module._FILE_ROWS
        after.close()

    def test_the_copy_of_a_busy_process_follows_the_file(self, store, path, rows) -> None:
        busy = SqliteStore(path)
        for _ in range(2 * index_module._OFTEN):
            assert everyone_is_found(busy, rows)
        assert len(busy._index._file.blocks()) == 1
        code = busy._index._quantizer.encode(rows[:1])[1].tobytes()
        assert code in busy._index._file.blocks()[0].codes.tobytes()
        store.add([entry("later", rows[0])])
        store.remove("person 0")
        for _ in range(2 * index_module._OFTEN):
            assert busy.search(rows[:1], 1)[0][0].subject == "later"
            assert everyone_is_found(busy, rows[4:], first=1)
        assert code not in b"".join(b.codes.tobytes() for b in busy._index._file.blocks())
        busy.remove("person 1")
        assert everyone_is_found(store, rows[8:], first=2)
        busy.close()

    def test_vectors_unlike_all_before_are_found(self, store, rows) -> None:
        strange = np.eye(4, 32, dtype=np.float32)
        store.add([entry(f"strange {i}", row) for i, row in enumerate(strange)])
        assert [m[0].subject for m in store.search(strange, 1)] == [
            f"strange {i}" for i in range(4)
        ]
        assert everyone_is_found(store, rows)

    def test_a_folder_that_cannot_be_written_costs_nothing_but_memory(
        self, path, rows, monkeypatch
    ) -> None:
        def refuse(*_: object) -> None:
            raise OSError(28, "No space left on device")

        monkeypatch.setattr(index_module.IndexFile, "write", refuse)
        store = SqliteStore(path)
        store.add(entries(rows))
        assert everyone_is_found(store, rows)
        store.add([entry("later", rows[0])])
        assert everyone_is_found(store, rows[4:], first=1)
        store.close()


class TestRemove:
    def test_no_byte_is_left_in_any_file(self, path, rows) -> None:
        store = SqliteStore(path)
        store.add(entries(rows))
        secret = {"metadata": {"ward": "magrathea"}, "source_sha256": "ab" * 32}
        unwanted = vectors(4, 32, seed=77, squeeze=0.8)
        gone = [
            Entry(ZAPHOD, Embedding(row, CONTRACT), "/zaphod-secret.jpg", 0.5, **secret)
            for row in unwanted[:3]
        ]
        gone.append(
            Entry(ZAPHOD, Embedding(unwanted[3], CONTRACT), "x", 0.5, negative=True, **secret)
        )
        more = vectors(MANY, 32, seed=5, squeeze=0.8)
        templates = store.add(gone)
        store.add(entries(more, first=50_000))
        store.search(rows[:1], 1)
        reader = SqliteStore(path)
        assert reader.search(gone[0].embedding.vector[None], 1)[0][0].subject == gone[0].subject
        quantizer = reader._index._quantizer
        codes = [quantizer.encode(e.embedding.vector[None])[1].tobytes() for e in gone[:3]]
        needles = [e.embedding.vector.tobytes()[:32] for e in gone]
        needles += [e.embedding.vector.astype("<f2").tobytes()[:32] for e in gone]
        needles += [b"Zaphod", b"zaphod-secret", b"magrathea"]
        before = raw_bytes(path.parent)
        assert all(needle in before for needle in [*codes, needles[0], *needles[-3:]])

        assert store.remove(ZAPHOD) == 4

        after = raw_bytes(path.parent)
        assert not any(needle in after for needle in [*codes, *needles])
        with pytest.raises(UnknownSubject):
            reader.templates(ZAPHOD)
        found = reader.search(gone[0].embedding.vector[None], 5)[0]
        assert not {t.id for t in templates} & {match.template for match in found}
        held = [b.codes.tobytes() for b in reader._index._blocks()]
        assert not any(code in some for code in codes for some in held)
        assert everyone_is_found(reader, rows)
        reader.close()
        store.close()

    def test_removal_by_one_process_killed_before_the_index_file_is_completed_by_the_next(
        self, store, path, rows, monkeypatch
    ) -> None:
        code = store._index._quantizer.encode(rows[:1])[1].tobytes()
        monkeypatch.setattr(store, "_clear_traces", lambda ids: None)
        store.remove("person 0")
        store.close()
        assert code in index_file(path).read_bytes()
        again = SqliteStore(path)
        assert everyone_is_found(again, rows[4:], first=1)
        assert code not in index_file(path).read_bytes()
        again.close()

    def test_the_other_models_vectors_go_too(self, store, path, rows) -> None:
        turned = np.ascontiguousarray(rows[:, ::-1])
        beside = SqliteStore(path, collection="default.other")
        beside.add(entries(turned))
        beside.search(turned[:1], 1)
        code = beside._index._quantizer.encode(turned[:1])[1].tobytes()
        needles = [turned[0].tobytes()[:32], code, b"person 0\x00"]
        assert all(needle in raw_bytes(path.parent) for needle in needles[:2])
        assert store.erase("person 0").templates == 8
        assert not any(needle in raw_bytes(path.parent) for needle in needles)
        assert everyone_is_found(beside, turned[4:], first=1)
        beside.close()

    def test_a_receipt_proves_it(self, store, path) -> None:
        receipt = store.erase("person 7")
        key = store.receipt_key()
        assert Receipt.from_json(receipt.to_json()).genuine(key, "person 7")
        assert not receipt.genuine(key, "person 8")
        assert not receipt.genuine(bytes(32), "person 7")
        text = receipt.to_json()
        assert "person 7" not in text
        forged = Receipt.from_json(text.replace('"templates": 4', '"templates": 5'))
        assert not forged.genuine(key, "person 7")
        assert store.history()[-1].chain == receipt.line
        if os.name == "posix":
            assert path.with_name("people.mien-key").stat().st_mode & 0o077 == 0

    def test_the_log_names_nobody_and_cannot_be_changed_unnoticed(self, store, path) -> None:
        store.remove("person 3")
        assert [line.operation for line in store.history()] == ["add", "remove"]
        assert "person" not in str(store.history())
        assert store.check() == []
        store.close()
        db = sqlite3.connect(path)
        db.execute("UPDATE audit SET templates = 3 WHERE line = 2")
        db.commit()
        db.close()
        again = SqliteStore(path)
        assert again.check() == ["line 2 of the audit log was changed"]
        again.close()

    def test_templates_past_their_retention_period_go(self, path) -> None:
        store = SqliteStore(path)
        old = "2020-01-01T00:00:00+00:00"
        store.add([entry("old", [1, 0], created=old), entry("new", [0, 1])])
        assert store.expire() == 0
        with pytest.raises(InputError):
            store.retain(0)
        store.retain(30)
        assert store.expire() == 1
        assert [subject.name for subject in store.subjects()] == ["new"]
        assert store.stats().templates == 1
        store.retain(None)
        assert store.expire() == 0
        store.close()


class TestNegatives:
    def test_a_closer_negative_rules_the_subject_out(self, path) -> None:
        store = SqliteStore(path)
        store.add([entry("ada", [1, 0.2, 0]), entry("bea", [1, 0, 1])])
        probe = np.array([[1.0, -0.1, 0.0]], np.float32)
        probe /= np.linalg.norm(probe)
        assert [m.subject for m in store.search(probe, 2)[0]] == ["ada", "bea"]
        store.add([entry("ada", [1, -0.2, 0], negative=True)])
        assert [m.subject for m in store.search(probe, 2)[0]] == ["bea"]
        assert store.search(np.array([[1, 0.2, 0]], np.float32) / 1.02, 1)[0][0].subject == "ada"
        assert len(store.templates("ada")) == 1
        assert [s.templates for s in store.subjects()] == [1, 1]
        store.close()

    def test_the_next_best_takes_the_place(self, path) -> None:
        store = SqliteStore(path)
        twins = vectors(400, 16, per_person=400)
        store.add([entry(f"twin {i}", row) for i, row in enumerate(twins)])
        probe = twins[:1]
        ranking = [m.subject for m in store.search(probe, 400)[0]]
        store.add([entry(name, probe[0], negative=True) for name in ranking[1:200]])
        found = [m.subject for m in store.search(probe, 3)[0]]
        assert found == [ranking[0], *ranking[200:202]]
        store.close()


class TestMetadata:
    def test_only_templates_that_pass_the_filter_take_part(self, path, rows) -> None:
        store = SqliteStore(path)
        sites = ["north", "south", "øst"]
        store.add([
            Entry(e.subject, e.embedding, e.source, 0.5, {"site": sites[i % 3], "day": str(i % 2)})
            for i, e in enumerate(entries(rows))
        ])  # fmt: skip
        numbers = np.arange(MANY)
        for where, allowed in [
            ({"site": "øst"}, numbers % 3 == 2),
            ({"site": ["north", "south"], "day": "1"}, (numbers % 3 < 2) & (numbers % 2 == 1)),
            ({"site": "nowhere"}, numbers < 0),
            ({"unknown": "north"}, numbers < 0),
        ]:
            exact = rows[:30] @ rows.T
            exact[:, ~allowed] = -2
            found = store.search(rows[:30], 3, where)
            if not allowed.any():
                assert found == [[]] * 30
                continue
            for some, scores in zip(found, exact, strict=True):
                assert some[0].score == pytest.approx(scores.max(), abs=1e-6)
                assert all(allowed[match.template - 1] for match in some)
        store.close()

    def test_it_comes_back(self, path) -> None:
        store = SqliteStore(path)
        store.add([entry("ada", [1, 0], metadata={"a": "1", "ü": "'\""}, source_sha256="ff")])
        ((_, back),) = store.entries()
        assert dict(back.metadata) == {"a": "1", "ü": "'\""}
        assert back.source_sha256 == "ff"
        store.close()


class TestCollections:
    def test_they_share_a_file_and_nothing_else(self, path) -> None:
        staff = SqliteStore(path, collection="staff")
        guests = SqliteStore(path, collection="guests")
        staff.add([entry("ada", [1, 0])])
        guests.add([Entry("bea", Embedding(np.eye(3, dtype=np.float32)[0], "other"), "b", 0.5)])
        assert [s.name for s in staff.subjects()] == ["ada"]
        assert (staff.contract(), guests.contract()) == (CONTRACT, "other")
        assert staff.search(np.eye(1, 2, dtype=np.float32), 5)[0][0].subject == "ada"
        assert staff.collections() == ["default", "guests", "staff"]
        with pytest.raises(UnknownSubject):
            guests.remove("ada")
        with pytest.raises(ContractMismatch):
            guests.add([entry("eve", [1, 0])])
        staff.close()
        guests.close()

    def test_swapping_is_one_step_and_can_be_undone(self, path) -> None:
        old, new = SqliteStore(path), SqliteStore(path, collection="next")
        old.add([entry("ada", [1, 0])])
        new.add([entry("bea", [0, 1])])
        old.swap("next")
        reopened = SqliteStore(path)
        assert [s.name for s in reopened.subjects()] == ["bea"]
        reopened.swap("next")
        again = SqliteStore(path)
        assert [s.name for s in again.subjects()] == ["ada"]
        for each in (old, new, reopened, again):
            each.close()

    def test_a_number_sign_in_the_uri_names_one(self, tmp_path) -> None:
        with open_gallery(tmp_path / "a.mien#guests") as guests:
            guests.add([entry("ada", [1, 0])])
        with open_gallery(tmp_path / "a.mien#guests", create=False) as guests:
            assert guests.stats().templates == 1
        with open_gallery(tmp_path / "a.mien") as others:
            assert others.stats().templates == 0
        odd = tmp_path / "b#1.mien"
        SqliteStore(odd).close()
        with open_gallery(odd, create=False) as gallery:  # unless it is in the name of a file
            assert gallery.stats().uri == str(odd)

    def test_a_missing_one_is_not_made_for_reading(self, path) -> None:
        SqliteStore(path).close()
        with pytest.raises(GalleryUnavailable, match="no collection 'x'"):
            SqliteStore(path, create=False, collection="x")


FORMAT_1 = """
CREATE TABLE meta (key TEXT PRIMARY KEY, value TEXT NOT NULL) WITHOUT ROWID;
CREATE TABLE subject (
    id INTEGER PRIMARY KEY, name TEXT NOT NULL UNIQUE, created TEXT NOT NULL
);
CREATE TABLE template (
    id INTEGER PRIMARY KEY AUTOINCREMENT, subject INTEGER NOT NULL REFERENCES subject (id),
    vector BLOB NOT NULL, source TEXT NOT NULL, quality REAL NOT NULL, created TEXT NOT NULL
);
CREATE INDEX template_subject ON template (subject);
INSERT INTO meta VALUES ('erasures', '3'), ('contract', 'test-contract');
PRAGMA application_id = 1835623790;
PRAGMA user_version = 1;
PRAGMA journal_mode = WAL;
"""


class TestFormats:
    def test_format_1_is_upgraded(self, path) -> None:
        db = sqlite3.connect(path)
        db.executescript(FORMAT_1)
        people = vectors(8, 16)
        for number in range(2):
            db.execute("INSERT INTO subject VALUES (?, ?, ?)",
                       (number + 1, f"åsa {number}", "2026-01-02T03:04:05+00:00"))  # fmt: skip
        for number, row in enumerate(people):
            db.execute("INSERT INTO template VALUES (?, ?, ?, ?, ?, ?)",
                       (number + 5, number // 4 + 1, row.tobytes(), f"{number}.jpg", 0.25,
                        "2026-01-02T03:04:05+00:00"))  # fmt: skip
        db.execute("DELETE FROM template WHERE id = 12")
        db.commit()
        db.close()

        store = SqliteStore(path)
        assert store.contract() == CONTRACT
        assert [(s.name, s.templates) for s in store.subjects()] == [("åsa 0", 4), ("åsa 1", 3)]
        assert store.templates("åsa 0")[1].source == "1.jpg"
        assert store.templates("åsa 0")[1].created == "2026-01-02T03:04:05+00:00"
        assert store.stats().templates == 7
        assert store.stats().dimensions == 16
        assert store.search(people[5:6], 1)[0][0].template == 10
        (added,) = store.add([entry("new", people[0])])
        assert added.id == 13  # 12 was used once
        assert store.check() == []
        store.close()
        SqliteStore(path).close()

    def test_a_newer_format_is_left_alone(self, path) -> None:
        SqliteStore(path).close()
        db = sqlite3.connect(path)
        db.execute("PRAGMA user_version = 99")
        db.close()
        before = path.read_bytes()
        with pytest.raises(GalleryUnavailable, match="newer mien"):
            SqliteStore(path)
        assert path.read_bytes() == before

    def test_any_name_is_a_name(self, path) -> None:
        names = ["a'b\"; DROP TABLE subject", "名前", "\U0001f600", "a\nb", "x" * 5000]
        store = SqliteStore(path)
        store.add([entry("n", [1, i]) for i in range(1)])
        for number, name in enumerate(names):
            vector = np.eye(2, dtype=np.float32)[number % 2]
            store.add([Entry(name, Embedding(vector, CONTRACT), "s", 0.5)])
        assert {s.name for s in store.subjects()} == {*names, "n"}
        for name in names:
            assert store.remove(name) == 1
        store.close()


def test_vectors_of_another_size_are_refused(path: Path) -> None:
    store = SqliteStore(path)
    store.add([entry("a", [1, 0])])
    with pytest.raises(InputError, match="one length"):
        store.add([entry("b", [1, 0, 0])])
    assert store.stats().templates == 1
    store.close()


def test_another_process_sees_and_is_seen(store: SqliteStore, path: Path, rows: np.ndarray) -> None:
    script = (
        "import sys, numpy as np; from pathlib import Path\n"
        "from mien.gallery import Entry; from mien.gallery.sqlite import SqliteStore\n"
        "from mien.types import Embedding\n"
        "store = SqliteStore(Path(sys.argv[1])); row = np.eye(1, 32, dtype=np.float32)[0]\n"
        "print(store.search(row[None], 1)[0][0].subject)\n"
        "store.add([Entry('from outside', Embedding(row, 'test-contract'), 's', .5)])\n"
        "store.remove('person 1'); store.close()\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", script, path], capture_output=True, text=True, check=True
    )
    assert done.stdout.startswith("person")
    probe = np.eye(1, 32, dtype=np.float32)
    assert store.search(probe, 1)[0][0].subject == "from outside"
    assert all(m.subject != "person 1" for m in store.search(rows[4:5], 20)[0])
