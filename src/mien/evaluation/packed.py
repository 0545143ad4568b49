"""The `.bin` verification sets of the ArcFace lineage (LFW, CFP-FP, AgeDB-30, CALFW, CPLFW).

Such a file is a Python pickle of `([jpeg, jpeg, ...], [same, same, ...])`: two pictures a pair,
aligned crops of 112 x 112. Unpickling a file runs whatever it says, so this does not: it reads
the few pickle instructions that lists of bytes and truth values need, and refuses all others.
"""

import struct
from pathlib import Path
from typing import Any

import numpy as np

from mien.errors import InputError
from mien.evaluation.protocols import Pairs, Picture
from mien.types import Landmarks

_LIMIT = 4_000_000_000  # bytes of a file; the largest set in use has a fifth of a gigabyte

ARCFACE_112 = (
    (38.2946, 51.6963), (73.5318, 51.5014), (56.0252, 71.7366), (41.5493, 92.3655),
    (70.7299, 92.2041),
)  # fmt: skip
"""Where the five landmarks lie in an aligned crop of 112 x 112 (insightface `arcface_dst`)."""


def read_bin(path: Path) -> Pairs:
    """A `.bin` set as pairs of aligned crops, in ten folds in the order of the file.

    People are not named in these files: every pair stands for people of its own, so intervals
    are those of pairs, narrower than they should be. Raises `InputError` for a file that is not
    such a set, says more than one, or asks for anything to be imported or called.
    """
    pictures, same = unpack(path)
    pairs = len(same)
    index = np.arange(pairs, dtype=np.int64)
    if pairs < 10:
        raise InputError(f"{path} holds {pairs} pairs; ten folds need at least 10")
    return Pairs(
        path.stem,
        tuple(Picture(f"{path.name}, picture {i}", data) for i, data in enumerate(pictures)),
        2 * index,
        2 * index + 1,
        np.array(same, bool),
        index,
        np.where(same, index, pairs + index),
        index * 10 // pairs,
        landmarks=Landmarks(np.array(ARCFACE_112, np.float32)),
    )


def unpack(path: Path) -> tuple[list[bytes], list[bool]]:
    """The pictures (2 n) and truths (n) of a `.bin` file. Raises `InputError`."""
    try:
        size = path.stat().st_size
        if size > _LIMIT:
            raise InputError(f"{path} has {size:,} bytes, over the limit of {_LIMIT:,}")
        data = path.read_bytes()
    except OSError as error:
        raise InputError(f"cannot read {path}: {error.strerror}") from error
    match _Reader(path, data).read():
        case ([*pictures], [*truths]):
            pass
        case _:
            raise InputError(f"{path} is not a list of pictures beside a list of truths")
    if not all(isinstance(picture, bytes) for picture in pictures):
        raise InputError(f"{path}: a picture in it is not bytes")
    if not all(truth in (0, 1) and isinstance(truth, int) for truth in truths):
        raise InputError(f"{path}: a truth value in it is neither true nor false")
    if len(pictures) != 2 * len(truths):
        raise InputError(
            f"{path} has {len(pictures)} pictures for {len(truths)} pairs; two a pair were expected"
        )
    return pictures, [bool(truth) for truth in truths]


_MARK = object()


class _Reader:
    """The subset of the pickle machine that builds lists, tuples, bytes, ints and truth values.

    Python 2 wrote the original files (protocol 2: strings of bytes), Python 3 others: protocols 1
    and 2 with `_codecs.encode` of Latin-1 text, for which the one call is allowed and done here,
    or protocols 3 to 5 with bytes. Protocol 0, which is text, is refused. The memo is a table;
    nothing is imported; each instruction reads bytes that must be there.
    """

    def __init__(self, path: Path, data: bytes) -> None:
        self._path = path
        self._data = data
        self._at = 0
        self._stack: list[Any] = []
        self._memo: dict[int, Any] = {}

    def read(self) -> Any:
        while True:
            start = self._at
            code = self._take(1)
            if code == b".":
                break
            step = _STEPS.get(code)
            if step is None:
                raise self._error(start, f"the instruction {code!r} is not one that data needs")
            try:
                step(self)
            except (IndexError, KeyError, TypeError, ValueError, OverflowError) as error:
                if isinstance(error, InputError):
                    raise
                raise self._error(start, "the file is damaged") from error
        if self._at != len(self._data):
            extra = len(self._data) - self._at
            raise self._error(self._at, f"{extra:,} bytes follow after the end of the data")
        if len(self._stack) != 1:
            raise self._error(start, "the file is damaged")
        return self._stack[0]

    def _error(self, at: int, problem: str) -> InputError:
        return InputError(f"{self._path}, byte {at}: {problem}; it is not a safe .bin set")

    def _take(self, count: int) -> bytes:
        end = self._at + count
        if count < 0 or end > len(self._data):
            raise self._error(self._at, "the file is cut short")
        taken = self._data[self._at : end]
        self._at = end
        return taken

    def _number(self, form: str) -> int:
        (value,) = struct.unpack(form, self._take(struct.calcsize(form)))
        return int(value)

    def _line(self) -> bytes:
        end = self._data.find(b"\n", self._at, self._at + 256)
        if end < 0:
            raise self._error(self._at, "the file is cut short")
        line = self._data[self._at : end]
        self._at = end + 1
        return line

    def _above_mark(self) -> list[Any]:
        place = len(self._stack) - 1
        while self._stack[place] is not _MARK:
            place -= 1
            if place < 0:
                raise IndexError
        items = self._stack[place + 1 :]
        del self._stack[place:]
        return items

    # ------------------------------------------------------------------------------ instructions

    def _protocol(self) -> None:
        if self._take(1)[0] > 5:
            raise self._error(self._at - 1, "the pickle protocol is newer than 5")

    def _frame(self) -> None:
        self._take(8)  # frames only say how much to buffer

    def _push(self, value: Any) -> None:
        self._stack.append(value)

    def _integer(self) -> None:
        line = self._line()
        self._push({b"00": False, b"01": True}[line] if line in (b"00", b"01") else int(line))

    def _tuple(self, count: int) -> None:
        items = tuple(self._stack[len(self._stack) - count :])
        if len(items) != count or _MARK in items:
            raise IndexError
        del self._stack[len(self._stack) - count :]
        self._push(items)

    def _append(self) -> None:
        item = self._stack.pop()
        self._list().append(item)

    def _extend(self) -> None:
        items = self._above_mark()
        self._list().extend(items)

    def _list(self) -> list[Any]:
        top = self._stack[-1]
        if not isinstance(top, list):
            raise TypeError
        return top

    def _global(self) -> None:
        self._named(self._line().decode(), self._line().decode())

    def _stack_global(self) -> None:
        name, module = self._stack.pop(), self._stack.pop()
        self._named(module, name)

    def _named(self, module: object, name: object) -> None:
        if (module, name) != ("_codecs", "encode"):
            problem = f"it wants to import {module}.{name}, which could run anything"
            raise self._error(self._at, problem)
        self._push(_ENCODE)

    def _call(self) -> None:
        arguments, function = self._stack.pop(), self._stack.pop()
        if function is not _ENCODE:
            raise TypeError
        text, encoding = arguments
        if encoding not in ("latin1", "latin-1") or not isinstance(text, str):
            raise ValueError
        self._push(text.encode("latin-1"))


_ENCODE = object()

_STEPS = {
    b"\x80": _Reader._protocol,
    b"\x95": _Reader._frame,
    b"(": lambda r: r._push(_MARK),
    b"]": lambda r: r._push([]),
    b")": lambda r: r._push(()),
    b"t": lambda r: r._push(tuple(r._above_mark())),
    b"\x85": lambda r: r._tuple(1),
    b"\x86": lambda r: r._tuple(2),
    b"\x87": lambda r: r._tuple(3),
    b"a": _Reader._append,
    b"e": _Reader._extend,
    b"\x88": lambda r: r._push(True),
    b"\x89": lambda r: r._push(False),
    b"K": lambda r: r._push(r._number("<B")),
    b"M": lambda r: r._push(r._number("<H")),
    b"J": lambda r: r._push(r._number("<i")),
    b"I": _Reader._integer,
    b"C": lambda r: r._push(r._take(r._number("<B"))),
    b"B": lambda r: r._push(r._take(r._number("<I"))),
    b"\x8e": lambda r: r._push(r._take(r._number("<Q"))),
    b"U": lambda r: r._push(r._take(r._number("<B"))),
    b"T": lambda r: r._push(r._take(r._number("<i"))),
    b"X": lambda r: r._push(r._take(r._number("<I")).decode("utf-8", "surrogatepass")),
    b"\x8c": lambda r: r._push(r._take(r._number("<B")).decode("utf-8", "surrogatepass")),
    b"\x8d": lambda r: r._push(r._take(r._number("<Q")).decode("utf-8", "surrogatepass")),
    b"q": lambda r: r._memo.__setitem__(r._number("<B"), r._stack[-1]),
    b"r": lambda r: r._memo.__setitem__(r._number("<I"), r._stack[-1]),
    b"\x94": lambda r: r._memo.__setitem__(len(r._memo), r._stack[-1]),
    b"h": lambda r: r._push(r._memo[r._number("<B")]),
    b"j": lambda r: r._push(r._memo[r._number("<I")]),
    b"c": _Reader._global,
    b"\x93": _Reader._stack_global,
    b"R": _Reader._call,
}
"""What each instruction does; those of Python's pickletools that are not here are refused."""
