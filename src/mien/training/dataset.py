"""Packed sets: aligned crops of people in one memory-mapped array, and which of them to use.

A packed set is a folder with `pixels.npy` (n, h, w, 3) uint8 RGB, `manifest.csv` whose row i
describes crop i, and `set.json` with the frame the crops were aligned to.
"""

import csv
import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from mien.errors import InputError
from mien.evaluation.protocols import TRUTH, Ints, Pairs, Picture, at_line, read_lines
from mien.training.config import Data
from mien.types import Frame


@dataclass(frozen=True, eq=False, slots=True)
class PackedSet:
    """Crops and what is known of them. `subjects`, `sources` and `quality` have n entries.

    `digest` is the SHA-256 of the manifest, which has that of every picture.
    """

    folder: Path
    pixels: NDArray[np.uint8]
    subjects: tuple[str, ...]
    sources: tuple[str, ...]
    quality: NDArray[np.float32]
    frame: Frame
    contract: str
    digest: str

    def row(self, name: str, path: Path, line: int) -> int:
        """The row that a table names, by its number or its source. Raises `InputError`."""
        if name.isdecimal() and int(name) < len(self.sources):
            return int(name)
        try:
            return self.sources.index(name)
        except ValueError:
            raise at_line(path, line, f"{self.folder} has no crop {name!r}") from None


@dataclass(frozen=True, eq=False, slots=True)
class Examples:
    """What is learnt from: `rows` (n,) of the packed set, `labels` (n,) numbering `people`."""

    rows: Ints
    labels: Ints
    people: tuple[str, ...]


def open_set(folder: Path) -> PackedSet:
    """A packed set, its pixels left on disk. Raises `InputError` saying what is wrong with it."""
    try:
        pixels = np.load(folder / "pixels.npy", mmap_mode="r", allow_pickle=False)
        manifest = (folder / "manifest.csv").read_bytes()
        about = json.loads((folder / "set.json").read_text(encoding="utf-8"))
        frame = Frame(
            (int(about["size"][0]), int(about["size"][1])),
            tuple((float(x), float(y)) for x, y in about["template"]),
        )
        rows = list(csv.DictReader(manifest.decode("utf-8").splitlines(), strict=True))
        subjects = tuple(row["subject"] for row in rows)
        sources = tuple(row["source"] for row in rows)
        quality = np.array([float(row["quality"]) for row in rows], np.float32)
        contract = str(about["contract"])
    except OSError as error:
        raise InputError(
            f"{folder} is no packed set ({error.strerror or error}: {error.filename}); "
            f"'mien data pack' makes one"
        ) from error
    except (ValueError, KeyError, TypeError, IndexError, csv.Error) as error:
        raise InputError(f"the packed set {folder} is damaged: {error!r}") from error
    expected = (len(rows), frame.size[1], frame.size[0], 3)
    if pixels.shape != expected or pixels.dtype != np.uint8:
        raise InputError(
            f"the packed set {folder} is damaged: pixels are {pixels.dtype} of shape "
            f"{pixels.shape}, its other files promise uint8 of shape {expected}"
        )
    digest = hashlib.sha256(manifest).hexdigest()
    return PackedSet(folder, pixels, subjects, sources, quality, frame, contract, digest)


def read_people(path: Path) -> tuple[str, ...]:
    """The subjects of a list: the first tab-separated cell of each line, LFW's counts left out."""
    cells = (line.split("\t")[0].strip() for line in read_lines(path))
    return tuple(name for name in cells if name and not name.isdecimal())


def select(packed: PackedSet, config: Data, seed: int) -> Examples:
    """The crops that a recipe learns from. Raises `InputError` when they are of fewer than two
    people."""
    wanted = set(read_people(Path(config.people))) if config.people else set(packed.subjects)
    if config.exclude:
        wanted -= set(read_people(Path(config.exclude)))
    albums: dict[str, list[int]] = {}
    for row, subject in enumerate(packed.subjects):
        if subject in wanted and packed.quality[row] >= config.min_quality:
            albums.setdefault(subject, []).append(row)
    people = sorted(name for name, rows in albums.items() if len(rows) >= config.min_pictures)
    if len(people) < 2:
        raise InputError(
            f"{packed.folder} has {len(people)} of the wanted people with at least "
            f"{config.min_pictures} pictures: a network learns from two people at least"
        )
    random = np.random.default_rng((seed, 1))
    rows, labels = [], []
    for label, name in enumerate(people):
        album = albums[name]
        if config.max_pictures and len(album) > config.max_pictures:
            album = sorted(random.choice(album, config.max_pictures, replace=False).tolist())
        rows += album
        labels += [label] * len(album)
    return Examples(np.array(rows, np.int64), np.array(labels, np.int64), tuple(people))


def read_groups(path: Path, packed: PackedSet, columns: Sequence[str]) -> Ints:
    """Rows (n, len(columns)) of the packed set from a CSV table. Raises `InputError`."""
    found = [
        [index(row[column], line) for column in columns]
        for index in [_finder(packed, path)]
        for line, row in _rows(path, columns)
    ]
    if not found:
        raise InputError(f"{path} has no rows")
    return np.array(found, np.int64)


def read_pairs(path: Path, packed: PackedSet) -> Pairs:
    """The pairs of a table as a protocol over a packed set; `pictures` name the crops used.

    Columns `file1, file2, same` and optionally `fold`. Raises `InputError`.
    """
    columns = ("file1", "file2", "same")
    groups = read_groups(path, packed, columns[:2])
    rows = [row for _, row in _rows(path, columns)]
    truth = []
    for line, row in enumerate(rows, 2):
        if row["same"].strip().lower() not in TRUTH:
            raise at_line(path, line, f"same is {row['same']!r}; write 1 or 0")
        truth.append(TRUTH[row["same"].strip().lower()])
    used, place = np.unique(groups, return_inverse=True)
    place = place.reshape(groups.shape)
    person = np.unique([packed.subjects[row] for row in used], return_inverse=True)[1]
    folds = None
    if rows and "fold" in rows[0]:
        folds = np.unique([row["fold"] for row in rows], return_inverse=True)[1].astype(np.int64)
    return Pairs(
        path.name,
        tuple(Picture(packed.sources[row], packed.folder / str(row)) for row in used),
        place[:, 0], place[:, 1], np.array(truth, bool),
        person[place[:, 0]], person[place[:, 1]], folds,
    )  # fmt: skip


def rows_of(pairs: Pairs) -> Ints:
    """The rows of the packed set that the pictures of `read_pairs` are."""
    return np.array([int(Path(str(picture.source)).name) for picture in pairs.pictures], np.int64)


def _rows(path: Path, columns: Sequence[str]) -> list[tuple[int, Mapping[str, str]]]:
    rows = list(csv.DictReader(read_lines(path)))
    for line, row in enumerate(rows, 2):
        missing = next((column for column in columns if not row.get(column)), None)
        if missing:
            raise at_line(path, line, f"the column {missing!r} is missing or empty")
    return list(enumerate(rows, 2))


def _finder(packed: PackedSet, path: Path):
    numbers = {source: row for row, source in enumerate(packed.sources)}

    def index(name: str, line: int) -> int:
        found = numbers.get(name)
        if found is None and name.isdecimal() and int(name) < len(packed.sources):
            found = int(name)
        if found is None:
            raise at_line(path, line, f"{packed.folder} has no crop {name!r}")
        return found

    return index
