import sqlite3
from pathlib import Path

import pytest
from people import entries, entry, vectors

from mien.errors import GalleryDamaged, GalleryUnavailable, InputError
from mien.gallery import cipher, open_gallery, sound
from mien.gallery.sqlite import SqliteStore

pytest.importorskip("cryptography", reason="needs the extra 'crypto'")

KEY = bytes(range(32))


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "people.mien"


def raw_bytes(folder: Path) -> bytes:
    return b"".join(file.read_bytes() for file in sorted(folder.rglob("*")) if file.is_file())


def test_nothing_about_people_is_readable(path: Path) -> None:
    rows = vectors(5000, 32)
    store = SqliteStore(path, key=KEY)
    store.add(entries(rows))
    secret = entry("Zaphod", rows[0], metadata={"ward": "magrathea"}, source_sha256="ab" * 32)
    store.add([secret, entry("Zaphod", rows[1], negative=True)])
    assert store.search(rows[40:41], 1)[0][0].subject == "person 10"
    assert store.search(rows[:1], 1, {"ward": "magrathea"})[0][0].subject == "Zaphod"
    assert len(store.templates("Zaphod")) == 1
    assert store.check() == []
    raw = raw_bytes(path.parent)
    for needle in (rows[0].tobytes()[:16], b"Zaphod", b"magrathea", b"person 10", b"abababab"):
        assert needle not in raw
    assert not path.with_name("people.mien-index").exists()
    assert store.remove("Zaphod") == 2
    store.close()

    again = SqliteStore(path, key=KEY)
    assert {s.name for s in again.subjects()} == {f"person {i}" for i in range(1250)}
    assert [m[0].subject for m in again.search(rows[::500], 1)] == [
        f"person {i // 4}" for i in range(0, 5000, 500)
    ]
    again.close()


@pytest.mark.parametrize(("key", "why"), [(None, "encrypted"), (bytes(32), "not the one")])
def test_the_wrong_key_says_so(path: Path, key: bytes | None, why: str) -> None:
    SqliteStore(path, key=KEY).close()
    before = path.read_bytes()
    with pytest.raises(GalleryUnavailable, match=why):
        SqliteStore(path, key=key)
    assert path.read_bytes() == before


def test_a_key_does_not_make_a_clear_gallery_secret(path: Path) -> None:
    SqliteStore(path).close()
    with pytest.raises(GalleryUnavailable, match="not encrypted"):
        SqliteStore(path, key=KEY)


def test_another_key_can_take_over(path: Path) -> None:
    store = SqliteStore(path, key=KEY)
    store.add([entry("ada", [1, 0])])
    store.rekey(bytes(32))
    store.close()
    with pytest.raises(GalleryUnavailable, match="not the one"):
        SqliteStore(path, key=KEY)
    again = SqliteStore(path, key=bytes(32))
    assert again.templates("ada")[0].source == "ada.jpg"
    again.close()


@pytest.mark.parametrize("cunning", [False, True])
def test_values_cannot_be_altered_or_swapped_unnoticed(path: Path, cunning: bool) -> None:
    """Not even by somebody who makes the row's checksum right again."""
    store = SqliteStore(path, key=KEY)
    store.add([entry("ada", [1, 0]), entry("bea", [0, 1]), entry("eve", [1, 1])])
    store.close()
    db = sqlite3.connect(path)
    db.execute(
        "UPDATE template SET vector = (SELECT vector FROM template WHERE id = 1) WHERE id = 2"
    )
    if cunning:
        sound.seal_all(db)
    db.commit()
    db.close()
    again = SqliteStore(path, key=KEY)
    assert again.check() == [
        "template 2 is damaged: of 'bea', from bea.jpg", "3 templates are counted and 2 can be read"
    ]  # fmt: skip
    with pytest.warns(GalleryDamaged) as said:
        assert [e.subject for _, e in again.entries()] == ["ada", "eve"]
    assert "template 2 is" in str(said[0].message)
    again.close()


def test_keys_come_from_the_environment(tmp_path: Path) -> None:
    file = tmp_path / "key"
    file.write_text(KEY.hex() + "\n")
    assert cipher.key_from_environment({}) is None
    assert cipher.key_from_environment({"MIEN_GALLERY_KEY": KEY.hex()}) == KEY
    assert cipher.key_from_environment({"MIEN_GALLERY_KEY_FILE": str(file)}) == KEY
    file.write_bytes(KEY)
    assert cipher.read_key(file) == KEY
    for bad in ("", "00", "zz" * 32):
        file.write_text(bad)
        with pytest.raises(InputError, match="not a key"):
            cipher.read_key(file)
    with pytest.raises(InputError, match="cannot read"):
        cipher.read_key(tmp_path / "missing")


def test_a_keyring_that_does_not_answer(monkeypatch: pytest.MonkeyPatch) -> None:
    keyring = pytest.importorskip("keyring")
    fail = pytest.importorskip("keyring.backends.fail")
    monkeypatch.setattr(keyring, "get_password", fail.Keyring().get_password)
    with pytest.raises(InputError, match="keyring cannot be asked"):
        cipher.key_from_environment({"MIEN_GALLERY_KEY_FILE": "keyring:me"})


def test_open_gallery_takes_it_from_there(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MIEN_GALLERY_KEY", KEY.hex())
    with open_gallery(path) as gallery:
        gallery.add([entry("ada", [1, 0])])
    monkeypatch.delenv("MIEN_GALLERY_KEY")
    with pytest.raises(GalleryUnavailable, match="MIEN_GALLERY_KEY_FILE"):
        open_gallery(path)
