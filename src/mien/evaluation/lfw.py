"""Labeled Faces in the Wild: View 1 and View 2, in the official text files or the CSV layout.

Huang, Ramesh, Berg, Learned-Miller, "Labeled Faces in the Wild" (2007). The folder holds the
protocol files and, in it or in one of its folders, pictures as
NAME/NAME_0001.jpg.
"""

from pathlib import Path

import numpy as np

from mien.errors import InputError
from mien.evaluation.protocols import (
    Bools,
    Ints,
    Pairs,
    People,
    Picture,
    Roll,
    at_line,
    existing,
    people,
    read_lines,
)

_Row = tuple[int, list[str]]  # line number and cells


def view2(data: Path) -> Pairs:
    """The 6,000 pairs in ten folds that results are reported on. Raises `InputError`."""
    path = _either(data, "pairs.txt", "pairs.csv")
    return _pairs("LFW View 2", data, [(path, _cells(path))], folds=True)


def view1(data: Path, part: str) -> Pairs:
    """The pairs for development: `part` is "Train" (2,200) or "Test" (1,000)."""
    text = data / f"pairsDev{part}.txt"
    if text.is_file():
        return _pairs(f"LFW View 1 {part}", data, [(text, _cells(text))], folds=False)
    files = [data / f"{kind}pairsDev{part}.csv" for kind in ("match", "mismatch")]
    missing = next((path for path in files if not path.is_file()), None)
    if missing is not None:
        raise InputError(f"{data} has neither {text.name} nor {missing.name}")
    return _pairs(f"LFW View 1 {part}", data, [(p, _cells(p)) for p in files], folds=False)


def album(data: Path, part: str | None = None) -> People:
    """Every picture of LFW by person, or those of the people of `part`: "DevTrain", "DevTest"."""
    pictures = picture_folder(data)
    if part is None:
        names = sorted(entry.name for entry in pictures.iterdir() if entry.is_dir())
    else:
        names = sorted(_people_list(_either(data, f"people{part}.txt", f"people{part}.csv")))
    albums = {name: sorted((pictures / name).glob("*.jpg")) for name in names}
    empty = next((name for name, paths in albums.items() if not paths), None)
    if empty is not None:
        raise InputError(f"{pictures / empty} holds no pictures")
    return people(f"LFW {part or 'all'}", albums)


def picture_folder(data: Path) -> Path:
    """The folder that holds one folder a person. Raises `InputError`."""
    if not data.is_dir():
        raise InputError(f"{data} is not a folder")
    for folder in (data, *sorted(data.glob("*/"))):
        if next(folder.glob("*/*_0001.jpg"), None) is not None:
            return folder
    raise InputError(f"{data} holds no LFW pictures: a folder with NAME/NAME_0001.jpg was expected")


def _people_list(path: Path) -> list[str]:
    return [cells[0] for _, cells in _cells(path)[1:] if len(cells) == 2]


def _either(data: Path, *names: str) -> Path:
    for name in names:
        if (data / name).is_file():
            return data / name
    raise InputError(f"{data} has no {' and no '.join(names)}")


def _cells(path: Path) -> list[_Row]:
    """Rows with their line numbers; trailing empty cells and blank rows go."""
    separator = "\t" if path.suffix == ".txt" else ","
    rows = []
    for number, line in enumerate(read_lines(path), 1):
        cells = [cell.strip() for cell in line.split(separator)]
        while cells and not cells[-1]:
            cells.pop()
        if cells:
            rows.append((number, cells))
    return rows


def _pairs(name: str, data: Path, tables: list[tuple[Path, list[_Row]]], folds: bool) -> Pairs:
    root = picture_folder(data)
    pictures, persons = Roll(), Roll()
    a, b, same, person_a, person_b = [], [], [], [], []

    def add(path: Path, line: int, person: str, number: str) -> tuple[int, int]:
        if not number.isdecimal():
            raise at_line(path, line, f"{number!r} is not the number of a picture")
        file = existing(root, f"{person}/{person}_{int(number):04d}.jpg", path, line)
        return pictures(str(file)), persons(person)

    for path, rows in tables:
        for line, cells in rows[1:]:  # the first row is a header in every layout
            match cells:
                case [person, first, second]:
                    ends = [(person, first), (person, second)]
                case [one, first, other, second]:
                    ends = [(one, first), (other, second)]
                    if one == other:
                        raise at_line(path, line, f"a pair of different people names {one} twice")
                case _:
                    raise at_line(path, line, f"{len(cells)} cells; a pair has 3 or 4")
            (i, p), (j, q) = (add(path, line, *end) for end in ends)
            a.append(i)
            b.append(j)
            person_a.append(p)
            person_b.append(q)
            same.append(len(cells) == 3)
    truth = np.array(same, bool)
    path, rows = tables[0]
    if len(tables) == 1:
        _check_counts(path, rows[0][1], truth)
    return Pairs(
        name,
        tuple(Picture(Path(file).name, Path(file)) for file in pictures),
        np.array(a, np.int64),
        np.array(b, np.int64),
        truth,
        np.array(person_a, np.int64),
        np.array(person_b, np.int64),
        _blocks(truth) if folds else None,
    )


def _blocks(truth: Bools) -> Ints:
    """Each run of genuine pairs begins another fold."""
    begins = truth & ~np.concatenate([[False], truth[:-1]])
    fold: Ints = np.maximum(0, np.cumsum(begins) - 1)
    return fold


def _check_counts(path: Path, header: list[str], truth: Bools) -> None:
    """Compare with what the first line of a text file promises: [folds,] pairs of each kind."""
    if not all(cell.isdecimal() for cell in header):
        return  # the header of a CSV table names columns
    folds, each = (1, int(header[0])) if len(header) == 1 else (int(header[0]), int(header[1]))
    expected = np.tile(np.repeat([True, False], each), folds)
    if not np.array_equal(truth, expected):
        raise at_line(
            path,
            1,
            f"{folds} x ({each} + {each}) pairs were promised, "
            f"but {int(truth.sum())} genuine and {int((~truth).sum())} impostor pairs follow, "
            f"or not in that order",
        )
