"""Renaming and removing single templates in the embedded store: traces, models, encryption."""

from pathlib import Path

import numpy as np
import pytest

import mien
from mien.gallery import Entry
from mien.gallery.rows import OTHER_MODEL
from mien.gallery.sqlite import SqliteStore
from mien.types import Embedding


def entry(name: str, seed: int, picture: str, contract: str = "a+b@1") -> Entry:
    vector = np.random.default_rng(seed).normal(size=64)
    unit = (vector / np.linalg.norm(vector)).astype(np.float32)
    return Entry(name, Embedding(unit, contract), picture, 0.5, {}, False, picture * 8)


def files(folder: Path) -> bytes:
    return b"".join(path.read_bytes() for path in folder.rglob("*") if path.is_file())


@pytest.mark.parametrize("key", [None, bytes(range(32))])
def test_nothing_of_an_old_name_or_a_removed_template_is_left(
    tmp_path: Path, key: bytes | None
) -> None:
    pytest.importorskip("cryptography")
    with mien.open_gallery(tmp_path / "g.mien", key=key) as gallery:
        gallery.add(
            [entry("Wanda Nowakowska", 1, "IMG_1st"), entry("Wanda Nowakowska", 2, "IMG_2nd")]
        )
        gallery.add([entry("eve", n, "more") for n in range(3, 9)])
        assert gallery.rename("Wanda Nowakowska", "W. Kowalska") == 2
        first, second = gallery.templates("W. Kowalska")
        assert (first.source, second.source) == ("IMG_1st", "IMG_2nd")
        assert gallery.remove("W. Kowalska", [first.id]) == 1
        with pytest.raises(mien.InputError):
            gallery.rename("eve", " ")
    vector = entry("x", 1, "IMG_1st").embedding.vector.tobytes()
    for trace in (b"Nowakowska", b"IMG_1st", vector):
        assert trace not in files(tmp_path)
    with mien.open_gallery(tmp_path / "g.mien", key=key) as gallery:
        (match, *_) = gallery.search(entry("x", 2, "IMG_2nd").embedding, 1)
        assert (match.subject, match.template) == ("W. Kowalska", second.id)
        assert isinstance(gallery.store, SqliteStore)
        assert gallery.store.check() == []


def test_the_same_people_by_another_model_follow(tmp_path: Path) -> None:
    mine = SqliteStore(tmp_path / "g.mien")
    theirs = SqliteStore(tmp_path / "g.mien", collection="default" + OTHER_MODEL)
    mine.add([entry("ada", 1, "p"), entry("ada", 2, "q"), entry("bob", 3, "p")])
    theirs.add([entry("ada", 4, "p", "c+d@2"), entry("ada", 5, "q", "c+d@2")])
    assert mine.rename("ada", "bob", merge=True) == 4
    assert [(s.name, s.templates) for s in theirs.subjects()] == [("bob", 2)]
    first = mine.templates("bob")[-1]
    assert first.source == "q"
    assert mine.remove("bob", [first.id]) == 2
    assert [t.source for t in theirs.templates("bob")] == ["p"]
    mine.close()
    theirs.close()
