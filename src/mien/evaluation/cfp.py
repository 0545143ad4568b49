"""Celebrities in Frontal-Profile in the Wild: frontal-frontal and frontal-profile pairs.

Sengupta and others, "Frontal to profile face verification in the wild" (2016). The folder holds
`Protocol/Pair_list_F.txt` and `Pair_list_P.txt` (number and file), and
`Protocol/Split/{FF,FP}/01 .. 10/{same,diff}.txt` (two numbers a line).
"""

from pathlib import Path
from typing import Literal

import numpy as np

from mien.errors import InputError
from mien.evaluation.protocols import Pairs, Picture, Roll, at_line, existing, read_lines


def read_cfp(data: Path, kind: Literal["FF", "FP"]) -> Pairs:
    """The 7,000 pairs of FF or FP in ten folds. Raises `InputError` that names the line."""
    lists = {side: _files(data, side) for side in "FP"}
    splits = data / "Protocol" / "Split" / kind
    folders = sorted(path for path in splits.glob("*") if path.is_dir())
    if not folders:
        raise InputError(f"{splits} holds no folds (01, 02, ...)")
    pictures, persons = Roll(), Roll()
    a, b, same, fold, person_a, person_b = [], [], [], [], [], []
    for number, folder in enumerate(folders):
        for truth, name in ((True, "same.txt"), (False, "diff.txt")):
            path = folder / name
            for line, text in enumerate(read_lines(path), 1):
                if not text.strip():
                    continue
                ends = [cell.strip() for cell in text.split(",")]
                sides = zip(kind, ends, strict=False)
                known = [lists[side].get(end) for side, end in sides]
                if len(ends) != 2 or None in known:
                    raise at_line(path, line, f"{text!r} is not two numbers of the picture lists")
                first, second = (file for file in known if file is not None)
                people = [_person(file) for file in (first, second)]
                if (people[0] == people[1]) != truth:
                    raise at_line(path, line, f"{first} and {second} do not belong in {name}")
                a.append(pictures(str(first)))
                b.append(pictures(str(second)))
                person_a.append(persons(people[0]))
                person_b.append(persons(people[1]))
                same.append(truth)
                fold.append(number)
    return Pairs(
        f"CFP {kind}",
        tuple(Picture("/".join(Path(file).parts[-3:]), Path(file)) for file in pictures),
        np.array(a, np.int64), np.array(b, np.int64), np.array(same, bool),
        np.array(person_a, np.int64), np.array(person_b, np.int64), np.array(fold, np.int64),
    )  # fmt: skip


def _files(data: Path, side: str) -> dict[str, Path]:
    path = data / "Protocol" / f"Pair_list_{side}.txt"
    files = {}
    for line, text in enumerate(read_lines(path), 1):
        cells = text.split()
        if not cells:
            continue
        if len(cells) != 2:
            raise at_line(path, line, "a line has a number and a file")
        files[cells[0]] = existing(path.parent, cells[1], path, line)
    return files


def _person(file: Path) -> str:
    return file.parent.parent.name  # .../Images/001/frontal/01.jpg
