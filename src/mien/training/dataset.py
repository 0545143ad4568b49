"""Which crops of a packed set are learnt from, and the tables that name crops of it."""

import csv
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from mien.errors import InputError
from mien.evaluation.protocols import TRUTH, Ints, Pairs, Picture, at_line, read_lines
from mien.training.config import Data
from mien.training.preparation.pack import Packed


@dataclass(frozen=True, eq=False, slots=True)
class Examples:
    """What is learnt from: `rows` (n,) of the packed set, `labels` (n,) numbering `people`."""

    rows: Ints
    labels: Ints
    people: tuple[str, ...]


def read_people(path: Path) -> tuple[str, ...]:
    """The subjects of a list: the first tab-separated cell of each line, LFW's counts left out."""
    cells = (line.split("\t")[0].strip() for line in read_lines(path))
    return tuple(name for name in cells if name and not name.isdecimal())


def select(packed: Packed, config: Data, seed: int) -> Examples:
    """The crops that a recipe learns from.

    Raises `InputError` when they are of fewer than two people.
    """
    names = [row.subject for row in packed.rows]
    wanted = set(read_people(Path(config.people))) if config.people else set(names)
    if config.exclude:
        wanted -= set(read_people(Path(config.exclude)))
    albums: dict[str, list[int]] = {}
    for row, subject in enumerate(names):
        if subject in wanted:
            albums.setdefault(subject, []).append(row)
    people = sorted(name for name, rows in albums.items() if len(rows) >= config.min_pictures)
    if len(people) < 2:
        raise InputError(
            f"people of {config.set} who are wanted and have data.min_pictures "
            f"({config.min_pictures}): {len(people)}; a network learns from two people at least"
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


def read_groups(path: Path, packed: Packed, columns: Sequence[str]) -> Ints:
    """Rows (n, len(columns)) of the packed set that a CSV table names, by source or by number.

    Raises `InputError` that names the line.
    """
    numbers = {row.source: number for number, row in enumerate(packed.rows)}

    def number(name: str, line: int) -> int:
        found = numbers.get(name)
        if found is None and name.isdecimal() and int(name) < len(packed.rows):
            found = int(name)
        if found is None:
            raise at_line(path, line, f"the packed set has no crop {name!r}")
        return found

    found = [[number(row[key], line) for key in columns] for line, row in _rows(path, columns)]
    return np.array(found, np.int64)


def read_pairs(path: Path, packed: Packed) -> tuple[Pairs, Ints]:
    """The pairs of a table as a protocol, and the rows of the packed set that its pictures are.

    Columns `file1, file2, same` and optionally `fold`. Raises `InputError`.
    """
    columns = ("file1", "file2", "same")
    groups = read_groups(path, packed, columns[:2])
    truth, folds = [], []
    for line, row in _rows(path, columns):
        same = TRUTH.get(row["same"].strip().lower())
        if same is None:
            raise at_line(path, line, f"same is {row['same']!r}; write 1 or 0")
        truth.append(same)
        folds.append(row.get("fold", ""))
    used, place = np.unique(groups, return_inverse=True)
    place = place.reshape(groups.shape)
    crops = [packed.rows[row] for row in used.tolist()]
    person = np.unique([crop.subject for crop in crops], return_inverse=True)[1]
    pairs = Pairs(
        path.name,
        tuple(Picture(crop.source, Path(crop.source)) for crop in crops),
        place[:, 0], place[:, 1], np.array(truth, bool),
        person[place[:, 0]], person[place[:, 1]],
        np.unique(folds, return_inverse=True)[1].astype(np.int64) if all(folds) else None,
    )  # fmt: skip
    return pairs, used


def _rows(path: Path, columns: Sequence[str]) -> list[tuple[int, Mapping[str, str]]]:
    rows: list[tuple[int, Mapping[str, str]]] = [*enumerate(csv.DictReader(read_lines(path)), 2)]
    if not rows:
        raise InputError(f"{path} has no rows")
    for line, row in rows:
        missing = next((column for column in columns if not row.get(column)), None)
        if missing:
            raise at_line(path, line, f"the column {missing!r} is missing or empty")
    return rows
