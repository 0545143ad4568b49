"""Codes of templates in a file that processes share, and codes in memory.

The file is mapped: opening a million templates reads it once, to check it, and all processes share
one copy. A process that searches often takes a copy of its own (`settle`), in large pages, which
are read half as fast again as those of a file.

    header   64 KiB: CRC-32, length, JSON (identity, quantiser, rows and sum of each chunk)
    chunk    16,384 rows: ids int64, subjects int64, terms 3 x float32, codes 4 bits a dimension;
             each array whole

Whoever writes the file holds the write lock of the record.
"""

import base64
import json
import mmap
import os
import tempfile
import zlib
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import IO, Self

import numpy as np
from numpy.typing import NDArray

from mien.gallery.quantizer import Quantizer
from mien.gallery.scan import Block

ROWS = 16_384
_HEADER = 1 << 16
_FORMAT = 2


@dataclass(frozen=True, slots=True)
class Identity:
    """What an index is of: it is used for nothing else."""

    gallery: str
    collection: int
    contract: str
    dimensions: int


@dataclass(frozen=True, eq=False, slots=True)
class _Header:
    identity: Identity
    erasures: str  # which removals have been carried out here
    quantizer: Quantizer
    counts: tuple[int, ...]
    sums: tuple[int, ...]

    def to_bytes(self) -> bytes:
        identity, quantizer = self.identity, self.quantizer
        text = json.dumps({
            "format": _FORMAT, "gallery": identity.gallery, "collection": identity.collection,
            "contract": identity.contract, "dimensions": identity.dimensions,
            "erasures": self.erasures, "fitted": quantizer.fitted,
            "mean": base64.b64encode(quantizer.mean.astype("<f4").tobytes()).decode(),
            "counts": self.counts, "sums": self.sums,
        }).encode()  # fmt: skip
        check = zlib.crc32(text).to_bytes(4, "little")
        raw = check + len(text).to_bytes(4, "little") + text
        if len(raw) > _HEADER:
            raise ValueError(f"{sum(self.counts):,} templates are more than one index file holds")
        return raw.ljust(_HEADER, b"\0")

    @classmethod
    def from_bytes(cls, raw: bytes) -> Self | None:
        """None unless it was written whole, by this format."""
        text = raw[8 : 8 + int.from_bytes(raw[4:8], "little")]
        if len(raw) < _HEADER or zlib.crc32(text) != int.from_bytes(raw[:4], "little"):
            return None
        fields = json.loads(text)
        if fields["format"] != _FORMAT:
            return None
        identity = Identity(
            fields["gallery"], fields["collection"], fields["contract"], fields["dimensions"]
        )
        mean = np.frombuffer(base64.b64decode(fields["mean"]), "<f4")
        quantizer = Quantizer(mean, fields["fitted"])
        counts, sums = tuple(fields["counts"]), tuple(fields["sums"])
        return cls(identity, fields["erasures"], quantizer, counts, sums)


class IndexFile:
    """A mapped index file.

    Raises `StaleIndex` when it is not a whole index of that identity, and `OSError` or
    `ValueError` when it cannot be read, written or mapped.
    """

    def __init__(self, path: Path, identity: Identity) -> None:
        self.path = path
        self._file, self._writable = _open(path)
        try:
            self._inode = os.fstat(self._file.fileno()).st_ino
            header = self._read_header()
            if header is None or header.identity != identity:
                raise StaleIndex
            self._header = header
            self._chunks: list[Block] = []
            self._copy: Block | None = None
            self._map()
            if any(
                _sum(chunk) != total for chunk, total in zip(self._chunks, header.sums, strict=True)
            ):
                raise StaleIndex
        except BaseException:
            self._file.close()
            raise

    @staticmethod
    def write(
        path: Path, identity: Identity, erasures: str, quantizer: Quantizer, blocks: list[Block]
    ) -> None:
        """Put a new file in place of whatever is there, in one step."""
        path.parent.mkdir(exist_ok=True)
        handle, name = tempfile.mkstemp(dir=path.parent, prefix=path.name, suffix=".new")
        try:
            with os.fdopen(handle, "wb") as file:
                file.truncate(_HEADER)
            header = _Header(identity, erasures, quantizer, (), ())
            with open(name, "r+b") as file:
                file.write(header.to_bytes())
            fresh = IndexFile(Path(name), identity)
            try:
                fresh.append(blocks)
                fresh.sync()
            finally:
                fresh.close()
            os.replace(name, path)
        except BaseException:
            Path(name).unlink(missing_ok=True)
            raise

    @property
    def quantizer(self) -> Quantizer:
        return self._header.quantizer

    @property
    def erasures(self) -> str:
        return self._header.erasures

    @property
    def last(self) -> int:
        """The newest template in it."""
        chunks = [chunk for chunk in self._chunks if len(chunk)]
        return int(chunks[-1].ids[-1]) if chunks else 0

    def blocks(self) -> list[Block]:
        """All templates; the arrays are views of the file, or the copy of them."""
        return self._chunks if self._copy is None else [self._copy]

    def settle(self) -> None:
        """Keep a copy in memory until the file changes."""
        if self._copy is None and self._chunks:
            self._copy = joined(self._chunks)

    def replaced(self) -> bool:
        """Whether another process has put a new file in this one's place."""
        try:
            return self.path.stat().st_ino != self._inode
        except OSError:
            return True

    def reload(self) -> None:
        """See what another process has appended or erased. Raises `StaleIndex`."""
        header = self._read_header()
        if header is None:
            raise StaleIndex
        if header.sums != self._header.sums or header.erasures != self._header.erasures:
            self._header = header
            self._map()

    def append(self, blocks: list[Block]) -> None:
        """Add templates, newer than all in it. A crash within leaves a file that is made again."""
        if not self._writable:
            raise PermissionError(f"{self.path} may not be written")
        header, chunk = self._header, None
        size, dimensions = _chunk_bytes(header.identity.dimensions), header.identity.dimensions
        counts, sums = list(header.counts), list(header.sums)
        for block in blocks:
            done = 0
            while done < len(block):
                if not counts or counts[-1] == ROWS:
                    counts.append(0)
                    sums.append(0)
                    self._file.truncate(_HEADER + len(counts) * size)
                    self._map_whole()
                chunk = _chunk(self._mapped, len(counts) - 1, ROWS, dimensions)
                start = counts[-1]
                stop = min(ROWS, start + len(block) - done)
                _copy(block.rows(slice(done, done + stop - start)), chunk, slice(start, stop))
                done += stop - start
                counts[-1] = stop
                sums[-1] = _sum(_chunk(self._mapped, len(counts) - 1, stop, dimensions))
        self._write_header(replace(header, counts=tuple(counts), sums=tuple(sums)))
        self._map()

    def forget(self, ids: NDArray[np.int64], erasures: str) -> None:
        """Overwrite templates with zeros, on disk when this returns; absent ids are fine."""
        if not self._writable:
            raise PermissionError(f"{self.path} may not be written")
        sums = list(self._header.sums)
        for number, chunk in enumerate(self._chunks):
            if _zero(chunk, ids):
                sums[number] = _sum(chunk)
        if self._copy is not None:
            _zero(self._copy, ids)
        self._write_header(replace(self._header, sums=tuple(sums), erasures=erasures))
        self.sync()

    def sync(self) -> None:
        """Force everything to disk."""
        self._mapped.flush()
        os.fsync(self._file.fileno())

    def close(self) -> None:
        """Let go; the memory is unmapped when nobody looks at a block of it any more."""
        self._chunks, self._copy = [], None
        self._file.close()

    def _read_header(self) -> _Header | None:
        self._file.seek(0)
        return _Header.from_bytes(self._file.read(_HEADER))

    def _write_header(self, header: _Header) -> None:
        self._mapped[:_HEADER] = header.to_bytes()
        self._header = header

    def _map(self) -> None:
        self._map_whole()
        counts, dimensions = self._header.counts, self._header.identity.dimensions
        if len(self._mapped) < _HEADER + len(counts) * _chunk_bytes(dimensions):
            raise StaleIndex
        self._copy = None
        self._chunks = [
            _chunk(self._mapped, number, count, dimensions) for number, count in enumerate(counts)
        ]

    def _map_whole(self) -> None:
        access = mmap.ACCESS_WRITE if self._writable else mmap.ACCESS_READ
        self._mapped = mmap.mmap(self._file.fileno(), 0, access=access)


class StaleIndex(Exception):
    """The file is not a whole index of the collection. Never leaves the gallery."""


class Tail:
    """Templates in memory, growing."""

    def __init__(self) -> None:
        self._count = 0
        self._arrays: Block | None = None

    def __len__(self) -> int:
        return self._count

    @property
    def last(self) -> int:
        return int(self._arrays.ids[self._count - 1]) if self._arrays and self._count else 0

    def ids(self) -> NDArray[np.int64]:
        """Of all templates, ascending."""
        return self._arrays.ids[: self._count] if self._arrays else np.zeros(0, np.int64)

    def forget(self, ids: NDArray[np.int64]) -> None:
        """Overwrite templates with zeros."""
        for block in self.blocks():
            _zero(block, ids)

    def append(self, block: Block) -> None:
        """Add templates, newer than all in it."""
        needed = self._count + len(block)
        old = self._arrays
        if old is None or needed > len(old):  # grow by half: n additions copy about 3n rows in all
            room = max(needed, self._count * 3 // 2)
            grown = Block(
                np.zeros(room, np.int64),
                np.zeros(room, np.int64),
                np.zeros((3, room), np.float32),
                np.zeros((room, block.codes.shape[1]), np.uint8),
            )
            if old is not None:
                _copy(old.rows(slice(self._count)), grown, slice(self._count))
            self._arrays = old = grown
        _copy(block, old, slice(self._count, needed))
        self._count = needed

    def blocks(self) -> Iterator[Block]:
        """Everything, as a view."""
        if self._arrays is not None:
            yield self._arrays.rows(slice(self._count))


def joined(blocks: list[Block]) -> Block:
    """Several blocks as one, a copy."""
    return Block(
        np.concatenate([block.ids for block in blocks]),
        np.concatenate([block.subjects for block in blocks]),
        np.concatenate([block.terms for block in blocks], axis=1),
        np.concatenate([block.codes for block in blocks]),
    )


def _open(path: Path) -> tuple[IO[bytes], bool]:
    """The file, and whether it may be written."""
    try:
        return path.open("r+b"), True
    except FileNotFoundError:
        raise
    except OSError:  # a gallery that may only be read
        return path.open("rb"), False


def _zero(block: Block, ids: NDArray[np.int64]) -> bool:
    """Overwrite those of `ids` that are in a block; whether there were any."""
    if not len(block):
        return False
    rows = np.minimum(np.searchsorted(block.ids, ids), len(block) - 1)
    rows = rows[block.ids[rows] == ids]
    block.subjects[rows] = 0
    block.terms[:, rows] = 0
    block.codes[rows] = 0
    return bool(len(rows))


def _copy(source: Block, target: Block, to: slice) -> None:
    target.ids[to] = source.ids
    target.subjects[to] = source.subjects
    target.terms[:, to] = source.terms
    target.codes[to] = source.codes


def _chunk_bytes(dimensions: int) -> int:
    return ROWS * (8 + 8 + 3 * 4 + (dimensions + 1) // 2)


def _chunk(mapped: mmap.mmap, number: int, count: int, dimensions: int) -> Block:
    start, width = _HEADER + number * _chunk_bytes(dimensions), (dimensions + 1) // 2
    ids = np.frombuffer(mapped, "<i8", count, start)
    subjects = np.frombuffer(mapped, "<i8", count, start + 8 * ROWS)
    terms = np.frombuffer(mapped, "<f4", 3 * ROWS, start + 16 * ROWS).reshape(3, ROWS)[:, :count]
    codes = np.frombuffer(mapped, np.uint8, count * width, start + 28 * ROWS)
    return Block(ids, subjects, terms, codes.reshape(count, width))


def _sum(block: Block) -> int:
    """A sum of 64-bit words modulo 2**64: catches every single damaged word, at memory speed."""
    with np.errstate(over="ignore"):
        total = block.ids.view(np.uint64).sum() + block.subjects.view(np.uint64).sum()
        total += block.terms.view(np.uint32).sum(dtype=np.uint64)
        codes = block.codes.reshape(-1)
        whole = len(codes) // 8 * 8
        total += codes[:whole].view(np.uint64).sum() + codes[whole:].view(np.uint8).sum()
    return int(total)
