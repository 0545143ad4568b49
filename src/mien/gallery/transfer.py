"""Galleries to files and back, from one store to another, and from one model to another.

The open format has a row for each template: subject, vector, source, source_sha256, quality,
metadata (JSON), negative, created; and the contract once. As `.parquet` (the extra `parquet`), or
as `.npz` (NumPy, an array a column; the texts of a column are UTF-8 bytes in a row, and
`NAME_offsets` says where each starts, as Arrow lays them out).
"""

import hashlib
import json
import os
import tempfile
import zipfile
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import islice, pairwise
from pathlib import Path
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from mien.errors import GalleryUnavailable, InputError, MissingExtra
from mien.gallery.cipher import to_bytes, to_text
from mien.gallery.store import Entry, Store
from mien.types import Embedding, Progress, RecognizedFace, silent

BATCH = 4096
_NUMBERS = {"quality": np.float64, "negative": np.bool_}
_COLUMNS = (
    "subject", "source", "source_sha256", "quality", "metadata", "negative", "created",
)  # fmt: skip


def export_entries(store: Store, path: Path, progress: Progress = silent) -> int:
    """Write a collection to a file, whole or not at all: how many templates.

    The file's ending, `.npz` or `.parquet`, chooses the format. It holds names and vectors in the
    clear, also those of an encrypted gallery, but no crops. Raises `InputError` when it cannot be
    written.
    """
    write = _writer(path)
    entries = list(_shown(store, progress))
    contract = store.contract() or ""
    try:
        _replace(path, lambda name: write(name, entries, contract))
    except OSError as error:
        raise InputError(f"cannot write {path}: {error.strerror or error}") from error
    return len(entries)


def exported(path: Path) -> Iterator[Entry]:
    """What is in an exported file. Raises `InputError` at once when it is none."""
    read = _read_parquet if path.suffix == ".parquet" else _read_npz
    try:
        return _entries(*read(path))
    except FileNotFoundError as error:
        raise InputError(f"{path} does not exist") from error


def import_entries(store: Store, entries: Iterable[Entry]) -> int:
    """Enrol everything that was `exported`: how many templates.

    In batches, each durable. Templates that the store has already, with the same subject, vector,
    source and kind, are passed over: an import that was interrupted can be run again. Raises
    `InputError` and `ContractMismatch`.
    """
    return _copy(entries, store)


def copy_entries(
    source: Store, target: Store, *, crops: bool = True, progress: Progress = silent
) -> int:
    """Enrol everything of one store in another, then compare row by row: how many were added.

    Can be run again after an interruption. Without `crops` the pictures of faces stay behind;
    with them, raises `InputError` when there are some and the target keeps none. Raises
    `GalleryUnavailable` when the comparison fails.
    """

    def given() -> Iterator[Entry]:
        entries = _shown(source, progress)
        return (entry if crops else replace(entry, crop=b"") for entry in entries)

    added = _copy(given(), target)
    missing = {_digest(entry) for entry in given()} - _digests(target)
    if missing:
        raise GalleryUnavailable(
            target.stats().uri, f"{len(missing)} templates did not arrive as they were; "
            f"the source was not changed",
        )  # fmt: skip
    return added


class Embeds(Protocol):
    """What makes vectors of another contract: a `Recognizer` and a policy for choosing a face."""

    def __call__(self, source: str | bytes) -> RecognizedFace: ...


@dataclass(frozen=True, slots=True)
class Reembedded:
    """One template brought to another contract, or why it could not be."""

    entry: Entry
    reason: str | None


def pictures(source: Store) -> Iterator[Reembedded]:
    """Which templates `reembed` has a picture of, without looking at it."""
    for _, entry in source.entries():
        yield Reembedded(entry, None if entry.crop else _unusable(entry))


def reembed(source: Store, target: Store, embed: Embeds) -> Iterator[Reembedded]:
    """Make every template of a collection anew, into another store.

    From its original file; where that is missing or has changed since (by its digest), from the
    crop that was kept. Resumable: what the target has is not made again. What has neither, or
    shows no usable face, is reported and left out.
    """
    done = {_key(entry) for _, entry in target.entries()}
    batch: list[Entry] = []
    for _, entry in source.entries():
        if _key(entry) in done:
            continue
        reason = _unusable(entry)
        picture: str | bytes = entry.source
        if reason is not None and entry.crop:
            reason, picture = None, entry.crop
        if reason is None:
            try:
                face = embed(picture)
            except InputError as error:
                reason = str(error)
            else:
                quality = face.quality.value
                batch.append(replace(entry, embedding=face.embedding, quality=quality))
        if len(batch) >= 64:
            target.add(batch)
            batch = []
        yield Reembedded(entry, reason)
    if batch:
        target.add(batch)


def self_search(store: Store, sample: int = 500) -> float:
    """The share of templates that find their own subject: 1.0 unless two people share a face."""
    entries = [entry for _, entry in store.entries() if not entry.negative]
    chosen = entries[:: max(1, len(entries) // sample)]
    if not chosen:
        return 1.0
    found = store.search(np.stack([entry.embedding.vector for entry in chosen]), 1)
    hits = (
        bool(matches) and matches[0].subject == entry.subject
        for entry, matches in zip(chosen, found, strict=True)
    )
    return sum(hits) / len(chosen)


def _shown(store: Store, progress: Progress) -> Iterator[Entry]:
    """Everything in a store, while it is shown how far that is."""
    total = store.stats().templates
    return (entry for _, entry in progress(store.entries(), total, "template"))


def _copy(entries: Iterable[Entry], target: Store) -> int:
    known = _digests(target)
    fresh = (entry for entry in entries if _digest(entry) not in known)
    count = 0
    while batch := list(islice(fresh, BATCH)):
        target.add(batch)
        count += len(batch)
    return count


def _digests(store: Store) -> set[bytes]:
    return {_digest(entry) for _, entry in store.entries()}


def _digest(entry: Entry) -> bytes:
    """Of everything in an entry but when it was made and how it is stored."""
    text = json.dumps([
        entry.subject, entry.source, entry.source_sha256, entry.negative,
        entry.embedding.contract, sorted(entry.metadata.items()), float(np.float32(entry.quality)),
    ])  # fmt: skip
    vector = entry.embedding.vector.astype("<f4").tobytes()
    return hashlib.sha256(text.encode() + vector + hashlib.sha256(entry.crop).digest()).digest()


def _key(entry: Entry) -> tuple[str, str, bool]:
    return entry.subject, entry.source, entry.negative


def _unusable(entry: Entry) -> str | None:
    """Why the original file of a template cannot be used, if so."""
    try:
        with open(entry.source, "rb") as file:
            digest = hashlib.file_digest(file, "sha256").hexdigest()
    except (OSError, ValueError):
        return f"{entry.source} cannot be read; only original files can be embedded anew"
    if entry.source_sha256 and digest != entry.source_sha256:
        return f"{entry.source} is not the file that was enrolled: its contents have changed"
    return None


def _replace(path: Path, write: Callable[[Path], None]) -> None:
    """Put what is written to another name in place of whatever is there, in one step."""
    handle, name = tempfile.mkstemp(dir=path.parent, prefix=path.name, suffix=path.suffix)
    os.close(handle)
    try:
        write(Path(name))
        os.replace(name, path)
    except BaseException:
        Path(name).unlink(missing_ok=True)
        raise


Writer = Callable[[Path, Sequence[Entry], str], None]


def _writer(path: Path) -> Writer:
    if path.suffix == ".npz":
        return _write_npz
    if path.suffix == ".parquet":
        return _write_parquet
    raise InputError(f"{path} should end in .npz or .parquet, which chooses the format")


def _columns(entries: Sequence[Entry]) -> dict[str, list[object]]:
    return {
        "subject": [e.subject for e in entries],
        "source": [e.source for e in entries],
        "source_sha256": [e.source_sha256 for e in entries],
        "quality": [e.quality for e in entries],
        "metadata": [json.dumps(dict(e.metadata)) for e in entries],
        "negative": [e.negative for e in entries],
        "created": [e.created or "" for e in entries],
    }


def _vectors(entries: Sequence[Entry]) -> NDArray[np.float32]:
    if not entries:
        return np.zeros((0, 0), np.float32)
    return np.stack([entry.embedding.vector for entry in entries])


def _write_npz(path: Path, entries: Sequence[Entry], contract: str) -> None:
    columns: dict[str, Any] = {}
    for name, values in _columns(entries).items():
        if name in _NUMBERS:
            columns[name] = np.array(values, _NUMBERS[name])
        else:  # NumPy's own texts are all as wide as the widest
            texts = [to_bytes(str(value)) for value in values]
            ends = np.cumsum([0, *map(len, texts)], dtype=np.int64)
            columns[name] = np.frombuffer(b"".join(texts), np.uint8)
            columns[f"{name}_offsets"] = ends
    with path.open("wb") as file:
        np.savez(file, contract=np.array(contract), vector=_vectors(entries), **columns)


def _write_parquet(path: Path, entries: Sequence[Entry], contract: str) -> None:
    arrow, parquet = _arrow()
    vectors = _vectors(entries)
    flat = arrow.array(vectors.reshape(-1), arrow.float32())
    columns = dict(_columns(entries))
    table = arrow.table(columns).append_column(
        "vector", arrow.FixedSizeListArray.from_arrays(flat, max(1, vectors.shape[1]))
    )
    parquet.write_table(table.replace_schema_metadata({"contract": contract}), path)


def _entries(
    columns: dict[str, list[Any]], vectors: NDArray[np.float32], contract: str
) -> Iterator[Entry]:
    for row in range(len(vectors)):
        subject, source, sha256, quality, metadata, negative, created = (
            columns[name][row] for name in _COLUMNS
        )
        yield Entry(
            str(subject), Embedding(vectors[row], contract), str(source), float(quality),
            json.loads(str(metadata)), bool(negative), str(sha256), str(created) or None,
        )  # fmt: skip


Read = tuple[dict[str, list[Any]], NDArray[np.float32], str]


def _read_npz(path: Path) -> Read:
    try:
        with path.open("rb") as raw, zipfile.ZipFile(raw), np.load(raw) as file:
            columns = {name: _npz_column(file, name) for name in _COLUMNS}
            return columns, file["vector"].astype(np.float32, copy=False), str(file["contract"])
    except FileNotFoundError:
        raise
    except (OSError, ValueError, KeyError, zipfile.BadZipFile, EOFError) as error:
        raise InputError(f"{path} is not an exported gallery: {error}") from error


def _npz_column(file: Any, name: str) -> list[Any]:
    values = file[name]
    if name in _NUMBERS:
        column: list[Any] = values.tolist()
        return column
    raw, ends = values.tobytes(), file[f"{name}_offsets"].tolist()
    return [to_text(raw[start:end]) for start, end in pairwise(ends)]


def _read_parquet(path: Path) -> Read:
    arrow, parquet = _arrow()
    try:
        table = parquet.read_table(path)
        columns = {name: table.column(name).to_pylist() for name in _COLUMNS}
        lists = table.column("vector").combine_chunks()
        vectors = lists.values.to_numpy(zero_copy_only=False).reshape(len(lists), -1)
        contract = (table.schema.metadata or {})[b"contract"].decode()
    except FileNotFoundError:
        raise
    except (OSError, ValueError, KeyError, arrow.ArrowException) as error:
        raise InputError(f"{path} is not an exported gallery: {error}") from error
    return columns, vectors, contract


def _arrow() -> tuple[Any, Any]:
    try:
        import pyarrow
        import pyarrow.parquet
    except ImportError as error:
        raise MissingExtra("Parquet", "parquet") from error
    return pyarrow, pyarrow.parquet
