"""The reader of .bin sets: what Python's own pickle writes, and nothing that could run."""

import os
import pickle
import pickletools
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from mien.errors import InputError
from mien.evaluation.packed import read_bin, unpack

PICTURES = [bytes([n % 256]) * (n * 37 % 500 + 1) for n in range(40)]
SAME = [True, False] * 10


def written(tmp_path: Path, data: bytes) -> Path:
    path = tmp_path / "set.bin"
    path.write_bytes(data)
    return path


@pytest.mark.parametrize("protocol", range(1, 6))
@pytest.mark.parametrize("kind", [tuple, list])
def test_reads_what_python_3_writes(tmp_path: Path, protocol: int, kind: type) -> None:
    data = pickle.dumps(kind([PICTURES, SAME]), protocol=protocol)
    assert unpack(written(tmp_path, data)) == (PICTURES, SAME)


def test_reads_what_python_2_wrote(tmp_path: Path) -> None:
    """cPickle of Python 2, protocol 2: str is BINSTRING, bool is NEWTRUE and NEWFALSE."""
    body = b"\x80\x02]q\x01("
    for picture in PICTURES:
        short = len(picture) < 256
        head = b"U" + bytes([len(picture)]) if short else b"T" + len(picture).to_bytes(4, "little")
        body += head + picture
    body += b"e]q\x02(" + b"".join(b"\x88" if same else b"\x89" for same in SAME) + b"e\x86q\x03."
    assert unpack(written(tmp_path, body)) == (PICTURES, SAME)
    assert pickle.loads(body, encoding="bytes") == (PICTURES, SAME)


def test_the_same_picture_twice_is_a_reference(tmp_path: Path) -> None:
    data = pickle.dumps(([PICTURES[3]] * 40, SAME), protocol=4)
    assert unpack(written(tmp_path, data))[0] == [PICTURES[3]] * 40


def test_becomes_pairs_in_ten_folds(tmp_path: Path) -> None:
    pairs = read_bin(written(tmp_path, pickle.dumps((PICTURES, SAME))))
    assert len(pairs) == 20
    assert pairs.fold is not None
    assert np.bincount(pairs.fold).tolist() == [2] * 10
    assert pairs.pictures[pairs.b[3]].source == PICTURES[7]
    assert pairs.landmarks is not None


class Bomb:
    def __init__(self, target: Path) -> None:
        self.target = target

    def __reduce__(self) -> Any:
        return os.system, (f"touch {self.target}",)


@pytest.mark.parametrize("protocol", range(6))
def test_a_bomb_does_not_go_off(tmp_path: Path, protocol: int) -> None:
    target = tmp_path / "ran"
    data = pickle.dumps(([Bomb(target)], [True]), protocol=protocol)
    with pytest.raises(InputError, match=r"could run anything|not one that data needs"):
        unpack(written(tmp_path, data))
    assert not target.exists()
    pickle.loads(data)
    assert target.exists()


def test_instructions_that_build_objects_are_refused(tmp_path: Path) -> None:
    allowed = set("(])taeKMJICBUTXqrhjcR.") | {
        "\x80", "\x95", "\x85", "\x86", "\x87", "\x88", "\x89", "\x8e", "\x8c", "\x8d", "\x94",
        "\x93",
    }  # fmt: skip
    for operation in pickletools.opcodes:
        if operation.code not in allowed:
            data = b"\x80\x04" + operation.code.encode("latin-1") + b"0\n" * 20
            with pytest.raises(InputError, match="not one that data needs"):
                unpack(written(tmp_path, data))


def test_codecs_encode_may_only_be_latin_1(tmp_path: Path) -> None:
    for arguments in (
        b"X\x01\x00\x00\x00aX\x03\x00\x00\x00rot\x86",
        b"K\x01X\x06\x00\x00\x00latin1\x86",
    ):
        data = b"\x80\x02c_codecs\nencode\n" + arguments + b"R."
        with pytest.raises(InputError, match="damaged"):
            unpack(written(tmp_path, data))


def test_trailing_garbage_is_refused(tmp_path: Path) -> None:
    data = pickle.dumps((PICTURES, SAME))
    with pytest.raises(InputError, match=r"5 bytes follow after the end"):
        unpack(written(tmp_path, data + b"extra"))


def test_every_cut_is_refused(tmp_path: Path) -> None:
    data = pickle.dumps((PICTURES[:4], SAME[:2]))
    for end in range(len(data)):
        with pytest.raises(InputError, match=r"set\.bin"):
            unpack(written(tmp_path, data[:end]))


def test_random_damage_never_escapes_as_another_error(tmp_path: Path) -> None:
    data = pickle.dumps((PICTURES, SAME), protocol=2)
    rng = np.random.default_rng(0)
    for _ in range(400):
        broken = bytearray(data)
        for at in rng.integers(0, len(data), 3):
            broken[at] = rng.integers(0, 256)
        try:
            pictures, same = unpack(written(tmp_path, bytes(broken)))
        except InputError:
            continue
        assert len(pictures) == 2 * len(same)


@pytest.mark.parametrize(
    ("content", "problem"),
    [
        ((PICTURES, SAME[:-1]), "40 pictures for 19 pairs"),
        ((["text"] * 40, SAME), "is not bytes"),
        ((PICTURES, [2] * 20), "neither true nor false"),
        (PICTURES, "not a list of pictures beside"),
        (([], []), "0 pairs"),
        ((PICTURES, [True] * 20), "only genuine"),
    ],
)
def test_other_content_is_refused(tmp_path: Path, content: object, problem: str) -> None:
    with pytest.raises(InputError, match=problem):
        read_bin(written(tmp_path, pickle.dumps(content)))


def test_no_file(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="cannot read"):
        unpack(tmp_path / "none.bin")
