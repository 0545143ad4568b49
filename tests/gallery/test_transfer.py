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
    assert transfer.import_entries(other, file) == 43
    assert listing(other) == listing(full)
    assert transfer.import_entries(other, file) == 0
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
    assert transfer.import_entries(other, file) == 41
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
            transfer.import_entries(full, file)
    with pytest.raises(InputError, match="not an exported gallery"):
        transfer.import_entries(full, tmp_path / f"missing{file.suffix}")
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


def recognized(path: str) -> RecognizedFace:
    """A stand-in for a recogniser of another contract: the vector is in the file."""
    if "blank" in path:
        raise InputError(f"no face in {path}")
    face = Face(Box(0, 0, 1, 1), Landmarks(np.zeros((5, 2), np.float32)), 1.0)
    vector = np.zeros(3, np.float32)
    vector[int(Path(path).read_text()) % 3] = 1.0
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
        dry = {
            r.entry.subject: r.reason for r in transfer.reembed(old, new, recognized, dry_run=True)
        }
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
