import sqlite3
from contextlib import closing
from pathlib import Path

import numpy as np
import pytest
from people import CONTRACT, entries, entry, vectors

from mien.errors import GalleryUnavailable, InputError
from mien.gallery import Entry, transfer
from mien.gallery.sqlite import SqliteStore
from mien.types import Box, Embedding, Face, Landmarks, Quality, RecognizedFace


@pytest.fixture
def full(tmp_path: Path) -> SqliteStore:
    store = SqliteStore(tmp_path / "full.mien")
    store.add(entries(vectors(40, 16)))
    store.add([
        entry("名前", [1, *[0] * 15], metadata={"k": "v\0"}, source_sha256="ab",
              created="2020-01-01T00:00:00+00:00"),
        entry("person 1", [0, 1, *[0] * 14], negative=True),
        entry("x" * 3000, [0, 0, 1, *[0] * 13]),
    ])  # fmt: skip
    return store


def listing(store: SqliteStore) -> list[tuple[object, ...]]:
    return [
        (e.subject, e.source, e.source_sha256, e.quality, dict(e.metadata), e.negative, e.created,
         e.embedding.contract, e.embedding.vector.tobytes())
        for _, e in store.entries()
    ]  # fmt: skip


def test_npz_brings_everything_back_once(full: SqliteStore, tmp_path: Path) -> None:
    file = tmp_path / "out.npz"
    assert transfer.export_entries(full, file) == 43
    other = SqliteStore(tmp_path / "other.mien")
    assert transfer.import_entries(other, transfer.exported(file)) == 43
    assert listing(other) == listing(full)
    assert transfer.import_entries(other, transfer.exported(file)) == 0
    assert file.stat().st_size < 60_000  # one long name does not widen all
    full.close()
    other.close()


def test_parquet_brings_everything_back(tmp_path: Path) -> None:
    pytest.importorskip("pyarrow")
    full = SqliteStore(tmp_path / "full.mien")
    full.add(entries(vectors(40, 16)))
    full.add([entry("名前", [1, *[0] * 15], metadata={"k": "v"}, negative=True)])
    file = tmp_path / "out.parquet"
    transfer.export_entries(full, file)
    other = SqliteStore(tmp_path / "other.mien")
    assert transfer.import_entries(other, transfer.exported(file)) == 41
    assert listing(other) == listing(full)
    full.close()
    other.close()


@pytest.mark.parametrize("name", ["x.npz", "x.parquet"])
def test_what_is_no_export_is_refused(full: SqliteStore, tmp_path: Path, name: str) -> None:
    if name.endswith("parquet"):
        pytest.importorskip("pyarrow")
    file = tmp_path / name
    for content in (b"", b"PK\x03\x04rubbish", b"x" * 1000):
        file.write_bytes(content)
        with pytest.raises(InputError, match="not an exported gallery"):
            transfer.import_entries(full, transfer.exported(file))
    with pytest.raises(InputError, match="does not exist"):
        transfer.exported(tmp_path / f"missing{file.suffix}")
    full.close()


def test_an_ending_that_is_no_format_is_refused(full: SqliteStore, tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"\.npz or \.parquet"):
        transfer.export_entries(full, tmp_path / "out.csv")
    full.close()


def test_copying_compares_and_can_be_repeated(full: SqliteStore, tmp_path: Path) -> None:
    other = SqliteStore(tmp_path / "other.mien")
    other.add([next(e for _, e in full.entries())])
    assert transfer.copy_entries(full, other) == 42
    assert transfer.copy_entries(full, other) == 0
    assert len(listing(other)) == 43
    full.close()
    other.close()


def test_a_row_that_arrives_changed_is_an_error(
    full: SqliteStore, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    other = SqliteStore(tmp_path / "other.mien")
    add = other.add
    monkeypatch.setattr(other, "add", lambda batch: add(batch[1:]))
    with pytest.raises(GalleryUnavailable, match="1 templates did not arrive"):
        transfer.copy_entries(full, other)
    full.close()
    other.close()


def recognized(picture: str | bytes) -> RecognizedFace:
    """A stand-in for a recogniser of another contract: the vector is in the file."""
    if isinstance(picture, str) and "blank" in picture:
        raise InputError(f"no face in {picture}")
    content = picture if isinstance(picture, bytes) else Path(picture).read_bytes()
    face = Face(Box(0, 0, 1, 1), Landmarks(np.zeros((5, 2), np.float32)), 1.0)
    vector = np.zeros(3, np.float32)
    vector[int(content) % 3] = 1.0
    return RecognizedFace(face, Quality(0.75), Embedding(vector, "new-contract"))


class TestReembed:
    @pytest.fixture
    def old(self, tmp_path: Path) -> SqliteStore:
        store = SqliteStore(tmp_path / "people.mien")
        for name, content in [("a", "0"), ("b", "1"), ("blank", "2"), ("lost", "2"), ("new", "2")]:
            file = tmp_path / f"{name}.jpg"
            file.write_text(content)
            digest = transfer.hashlib.sha256(content.encode()).hexdigest()
            vector = Embedding(np.eye(1, 4, dtype=np.float32)[0], CONTRACT)
            store.add([Entry(name, vector, str(file), 0.5, {"n": name}, False, digest)])
        (tmp_path / "lost.jpg").unlink()
        (tmp_path / "new.jpg").write_text("0")
        return store

    def test_from_original_files_with_reasons_and_resumable(
        self, old: SqliteStore, tmp_path: Path
    ) -> None:
        new = SqliteStore(tmp_path / "people.mien", collection="default.other")
        dry = {r.entry.subject: r.reason for r in transfer.pictures(old)}
        assert [name for name, reason in dry.items() if reason] == ["lost", "new"]
        assert new.stats().templates == 0

        done = {r.entry.subject: r.reason for r in transfer.reembed(old, new, recognized)}
        assert [name for name, reason in done.items() if reason is None] == ["a", "b"]
        assert "changed" in str(done["new"])
        assert "cannot be read" in str(done["lost"])
        assert new.contract() == "new-contract"
        assert [(e.subject, dict(e.metadata), e.quality) for _, e in new.entries()] == [
            ("a", {"n": "a"}, 0.75), ("b", {"n": "b"}, 0.75),
        ]  # fmt: skip
        again = [r.entry.subject for r in transfer.reembed(old, new, recognized)]
        assert again == ["blank", "lost", "new"]
        assert transfer.self_search(new) == 1.0
        assert len(list(old.entries())) == 5  # the old generation is as it was
        old.close()
        new.close()

    def test_from_the_crop_where_the_original_is_gone(self, tmp_path: Path) -> None:
        pytest.importorskip("cryptography")
        path, key = tmp_path / "people.mien", bytes(32)
        with closing(SqliteStore(path, key=key)) as old:
            (tmp_path / "here.jpg").write_text("1")
            for name, crop in [("here", b"2"), ("gone", b"2"), ("lost", b"")]:
                vector = Embedding(np.eye(1, 4, dtype=np.float32)[0], CONTRACT)
                old.add([Entry(name, vector, str(tmp_path / f"{name}.jpg"), 0.5, crop=crop)])
            with closing(SqliteStore(path, collection="default.other", key=key)) as new:
                done = {r.entry.subject: r.reason for r in transfer.reembed(old, new, recognized)}
                assert [name for name, reason in done.items() if reason] == ["lost"]
                found = {e.subject: e for _, e in new.entries()}
                assert found["here"].embedding.vector[1] == 1  # the original, which is better
                assert found["gone"].embedding.vector[2] == 1
                assert found["gone"].crop == b"2"


class TestCrops:
    def test_only_a_gallery_with_a_key_keeps_them(self, tmp_path: Path) -> None:
        (vector,) = vectors(1, 16)
        given = Entry("ada", Embedding(vector, CONTRACT), "x", 0.5, crop=b"a picture")
        with (
            closing(SqliteStore(tmp_path / "plain.mien")) as plain,
            pytest.raises(InputError, match="encrypted"),
        ):
            plain.add([given])
        assert SqliteStore(tmp_path / "plain.mien").stats().templates == 0

    def test_they_are_sealed_come_back_move_and_are_erased(self, tmp_path: Path) -> None:
        pytest.importorskip("cryptography")
        picture, path = b"a picture of somebody" * 3000, tmp_path / "sealed.mien"
        (vector,) = vectors(1, 16)
        given = Entry("ada", Embedding(vector, CONTRACT), "x", 0.5, crop=picture)
        with closing(SqliteStore(path, key=bytes(32))) as store:
            store.add([given, Entry("bob", given.embedding, "y", 0.5)])
            assert [e.crop for _, e in store.entries()] == [picture, b""]
            assert b"picture of" not in b"".join(f.read_bytes() for f in tmp_path.iterdir())
            with closing(SqliteStore(tmp_path / "next.mien", key=bytes(31) + b"x")) as other:
                assert transfer.copy_entries(store, other) == 2
                assert [e.crop for _, e in other.entries()] == [picture, b""]
            with closing(SqliteStore(tmp_path / "clear.mien")) as clear:
                with pytest.raises(InputError, match="encrypted"):
                    transfer.copy_entries(store, clear)
                assert transfer.copy_entries(store, clear, crops=False) == 2
            with closing(sqlite3.connect(path)) as db:
                (sealed,) = db.execute("SELECT picture FROM crop").fetchone()
            store.remove("ada")
            assert store.check() == []
        for file in tmp_path.glob("sealed.mien*"):
            assert sealed[40:400] not in file.read_bytes()
