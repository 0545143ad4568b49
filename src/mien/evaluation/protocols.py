"""Which pictures to compare: protocols as data, and the readers of pair lists and folders.

The formats of particular data sets have files of their own: `lfw`, `cfp`, `packed` (the `.bin`
sets), `ijb` and `wider`. Every reader names the file and the line that it cannot use.
"""

import csv
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from mien.errors import InputError
from mien.images import find_images
from mien.types import Landmarks

Ints = NDArray[np.int64]
Bools = NDArray[np.bool_]


@dataclass(frozen=True, slots=True)
class Picture:
    """One picture of a protocol: what it is called, and its file or its bytes."""

    name: str
    source: Path | bytes


@dataclass(frozen=True, eq=False, slots=True)
class Pairs:
    """A verification protocol: pairs of pictures that show the same person or not.

    `a` and `b` (n,) index `pictures`; `same` (n,) is the truth; `person_a` and `person_b` (n,)
    number the people, for intervals. `fold` (n,) numbers the folds from 0, or is None. `columns`
    holds further facts by pair, for slices. `landmarks` are given when the pictures are aligned
    crops in which nothing has to be detected.
    """

    name: str
    pictures: tuple[Picture, ...]
    a: Ints
    b: Ints
    same: Bools
    person_a: Ints
    person_b: Ints
    fold: Ints | None = None
    columns: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    landmarks: Landmarks | None = None

    def __post_init__(self) -> None:
        require_both_kinds(self.name, self.same)
        if self.fold is not None:
            for fold in range(int(self.fold.max()) + 1):
                inside = self.same[self.fold == fold]
                if not inside.size:
                    raise InputError(f"{self.name}: fold {fold} is empty")

    def __len__(self) -> int:
        return len(self.same)


def require_both_kinds(name: str, same: Bools) -> None:
    """Raise `InputError` unless there are genuine and impostor pairs."""
    if not same.size:
        raise InputError(f"{name} has no pairs")
    if same.all():
        raise InputError(f"{name} has only genuine pairs: no false match can be seen; add others")
    if not same.any():
        raise InputError(f"{name} has only impostor pairs: no non-match can be seen; add others")


@dataclass(frozen=True, eq=False, slots=True)
class People:
    """A set of pictures of known people: `person` (n,) indexes `names`, for each of `pictures`."""

    name: str
    pictures: tuple[Picture, ...]
    names: tuple[str, ...]
    person: Ints


class Roll:
    """Numbers things in the order in which they are first named."""

    def __init__(self) -> None:
        self._number: dict[str, int] = {}

    def __call__(self, name: str) -> int:
        return self._number.setdefault(name, len(self._number))

    def __iter__(self) -> Iterator[str]:
        return iter(self._number)

    def __len__(self) -> int:
        return len(self._number)


# ------------------------------------------------------------------------------------- text tables


def read_lines(path: Path) -> list[str]:
    """The lines of a text file. Raises `InputError`."""
    try:
        return path.read_text(encoding="utf-8-sig").splitlines()
    except OSError as error:
        raise InputError(f"cannot read {path}: {error.strerror}") from error
    except UnicodeDecodeError as error:
        raise InputError(f"cannot read {path}: it is not UTF-8 text ({error.reason})") from error


def at_line(path: Path, line: int, problem: str) -> InputError:
    """The error of a line of a file, counted from 1."""
    return InputError(f"{path}, line {line}: {problem}")


def existing(root: Path, relative: str, path: Path, line: int) -> Path:
    """The file that a line names, below `root`. Raises `InputError` when there is none."""
    found = root / relative
    if not found.is_file():
        raise at_line(path, line, f"the picture {found} does not exist")
    return found


TRUTH = {
    **dict.fromkeys(("1", "true", "yes", "same", "genuine"), True),
    **dict.fromkeys(("0", "false", "no", "different", "impostor"), False),
}


def read_pairs_csv(path: Path, root: Path | None = None) -> Pairs:
    """A table of pairs: columns `file1, file2, same`, optionally `fold`, and any others.

    Files are relative to `root` (default: the folder of the table). `same` is 1 or 0 (or true,
    yes, genuine, ...). People are taken from the columns `person1` and `person2` where both
    exist; else pictures that genuine pairs link, directly or in a chain, are one person.
    Every further column can be used for slices. Raises `InputError` that names the line.
    """
    rows = list(_table(path, ("file1", "file2", "same")))
    base = root or path.parent
    pictures, folds, named = Roll(), Roll(), Roll()
    a, b, same, fold, first, second = [], [], [], [], [], []
    header = list(rows[0][1]) if rows else []
    has_people = "person1" in header and "person2" in header
    for line, row in rows:
        truth = TRUTH.get(row["same"].lower())
        if truth is None:
            raise at_line(path, line, f"same is {row['same']!r}; write 1 or 0")
        files = [str(existing(base, row[key], path, line)) for key in ("file1", "file2")]
        a.append(pictures(files[0]))
        b.append(pictures(files[1]))
        same.append(truth)
        if "fold" in header:
            if not row["fold"]:
                raise at_line(path, line, "the fold is missing")
            fold.append(folds(row["fold"]))
        if has_people:
            first.append(named(row["person1"]))
            second.append(named(row["person2"]))
            if (first[-1] == second[-1]) != truth:
                raise at_line(path, line, f"same is {row['same']!r} but the people say otherwise")
    lines = [line for line, _ in rows]
    left, right, truths = np.array(a, np.int64), np.array(b, np.int64), np.array(same, bool)
    if has_people:
        person_a, person_b = np.array(first, np.int64), np.array(second, np.int64)
    else:
        person = linked(len(pictures), left[truths], right[truths])
        person_a, person_b = person[left], person[right]
        wrong = np.flatnonzero((person_a == person_b) & ~truths)
        if wrong.size:
            raise at_line(
                path,
                lines[int(wrong[0])],
                "this pair is said to be of different people, but genuine pairs of the same table "
                "link its two pictures",
            )
    others = [key for key in header if key not in ("file1", "file2", "same", "fold")]
    return Pairs(
        path.name,
        tuple(Picture(str(Path(file).name), Path(file)) for file in pictures),
        left,
        right,
        truths,
        person_a,
        person_b,
        np.array(fold, np.int64) if fold else None,
        {key: tuple(row[key] for _, row in rows) for key in others},
    )


def _table(path: Path, required: Sequence[str]) -> Iterator[tuple[int, dict[str, str]]]:
    """Rows of a CSV file with their line numbers; blank rows are skipped."""
    lines = read_lines(path)
    reader = csv.reader(lines, strict=True)
    try:
        header = [cell.strip().lower() for cell in next(reader)]
    except StopIteration:
        raise InputError(f"{path} is empty") from None
    except csv.Error as error:
        raise at_line(path, reader.line_num, str(error)) from error
    while header and not header[-1]:
        header.pop()
    twice = next((cell for cell in header if header.count(cell) > 1), None)
    if twice is not None:
        raise at_line(path, 1, f"two columns are called {twice!r}")
    missing = [cell for cell in required if cell not in header]
    if missing:
        raise at_line(path, 1, f"no column {missing[0]!r}; there are {', '.join(header) or 'none'}")
    try:
        for cells in reader:
            values = [cell.strip() for cell in cells]
            if not any(values):
                continue
            while len(values) > len(header) and not values[-1]:
                values.pop()
            if len(values) != len(header):
                problem = f"{len(values)} cells where the header has {len(header)}"
                raise at_line(path, reader.line_num, problem)
            row = dict(zip(header, values, strict=True))
            empty = [cell for cell in required if not row[cell]]
            if empty:
                raise at_line(path, reader.line_num, f"{empty[0]} is empty")
            yield reader.line_num, row
    except csv.Error as error:
        raise at_line(path, reader.line_num, str(error)) from error


def linked(count: int, a: Ints, b: Ints) -> Ints:
    """The connected component (count,) of each of `count` nodes under the edges a (n,), b (n,)."""
    parent = np.arange(count)

    def root(node: int) -> int:
        while parent[node] != node:
            parent[node] = parent[parent[node]]
            node = int(parent[node])
        return node

    for x, y in zip(a.tolist(), b.tolist(), strict=True):
        parent[root(x)] = root(y)
    return np.array([root(node) for node in range(count)], np.int64)


# ------------------------------------------------------------------------------------------ folders


def read_people(folder: Path) -> People:
    """A folder with one sub-folder a person, named after them. Raises `InputError`."""
    if not folder.is_dir():
        raise InputError(f"{folder} is not a folder")
    folders = sorted(entry for entry in folder.iterdir() if entry.is_dir())
    albums = {entry.name: list(find_images([entry])) for entry in folders}
    albums = {person: paths for person, paths in albums.items() if paths}
    if len(albums) < 2:
        raise InputError(
            f"{folder} holds pictures of {len(albums)} people; give one sub-folder a person, and "
            f"at least two"
        )
    return people(folder.name, albums)


def people(name: str, albums: Mapping[str, Sequence[Path]]) -> People:
    """The people of a mapping from name to pictures, in its order."""
    pictures = [
        Picture(f"{person}/{path.name}", path) for person, paths in albums.items() for path in paths
    ]
    person = np.repeat(np.arange(len(albums)), [len(paths) for paths in albums.values()])
    return People(name, tuple(pictures), tuple(albums), person.astype(np.int64))


def draw_pairs(group: People, count: int = 3000, seed: int = 0) -> Pairs:
    """Up to `count` genuine and as many impostor pairs, the same ones for the same seed.

    First people are drawn, then their pictures, so that those with many pictures are not all of
    the evidence; no pair is drawn twice. Raises `InputError` when nobody has two pictures.
    """
    rng = np.random.default_rng(seed)
    order = np.argsort(group.person, kind="stable")
    sizes = np.bincount(group.person, minlength=len(group.names))
    starts = np.concatenate([[0], np.cumsum(sizes)[:-1]])
    several = np.flatnonzero(sizes > 1)
    if not several.size:
        raise InputError(f"nobody in {group.name} has two pictures: there are no genuine pairs")
    possible = int((sizes * (sizes - 1) // 2).sum())
    others = (group.person.size**2 - int((sizes**2).sum())) // 2

    def pick(persons: Ints) -> Ints:
        chosen: Ints = order[starts[persons] + rng.integers(0, sizes[persons])]
        return chosen

    def genuine(number: int) -> tuple[Ints, Ints]:
        persons = rng.choice(several, number)
        return pick(persons), pick(persons)

    def impostor(number: int) -> tuple[Ints, Ints]:
        first = rng.integers(0, len(sizes), number)
        second = (first + rng.integers(1, len(sizes), number)) % len(sizes)
        return pick(first), pick(second)

    good = _distinct(genuine, min(count, possible), group.person.size)
    bad = _distinct(impostor, min(count, others), group.person.size)
    a, b = np.concatenate([good, bad]).T
    same = np.arange(len(a)) < len(good)
    return Pairs(
        f"{group.name}: {len(good)} + {len(bad)} pairs drawn with seed {seed}",
        group.pictures, a, b, same, group.person[a], group.person[b],
    )  # fmt: skip


def _distinct(draw: Callable[[int], tuple[Ints, Ints]], wanted: int, size: int) -> Ints:
    """Draw until `wanted` distinct pairs of distinct pictures are found: (wanted, 2)."""
    found = np.zeros(0, np.int64)
    while found.size < wanted:
        a, b = draw(2 * wanted)
        fresh = np.where(a < b, a * size + b, b * size + a)[a != b]
        merged = np.concatenate([found, fresh])
        first = np.sort(np.unique(merged, return_index=True)[1])  # in the order drawn
        found = merged[first]
    return np.stack(np.divmod(found[:wanted], size), axis=1)


def folds_of(pairs: Pairs, count: int = 10, seed: int = 0) -> Ints:
    """The folds (n,) of a protocol; where it has none, `count` are drawn, alike in both kinds."""
    if pairs.fold is not None:
        return pairs.fold
    rng = np.random.default_rng(seed)
    fold = np.zeros(len(pairs), np.int64)
    for kind in (True, False):
        rows = rng.permutation(np.flatnonzero(pairs.same == kind))
        fold[rows] = np.arange(rows.size) % count
    return fold


def subset(pairs: Pairs, rows: Iterable[int] | Ints | Bools, name: str) -> Pairs:
    """Some of the pairs of a protocol, under another name, without folds."""
    index = np.arange(len(pairs))[np.asarray(rows)]
    return Pairs(
        name, pairs.pictures, pairs.a[index], pairs.b[index], pairs.same[index],
        pairs.person_a[index], pairs.person_b[index], None,
        {key: tuple(cells[i] for i in index) for key, cells in pairs.columns.items()},
        pairs.landmarks,
    )  # fmt: skip


def read_names(path: Path) -> list[str]:
    """Names, one a line; what follows a tab or comma is ignored, and so is a line with a number.

    Takes LFW's own lists of people, whose first line is a count.
    """
    cells = [line.replace(",", "\t").split("\t")[0].strip() for line in read_lines(path)]
    return [cell for cell in cells if cell and not cell.isdecimal() and cell != "name"]


def only(group: People, names: Sequence[str], label: str) -> People:
    """Some of the people of a group. Raises `InputError` for a name that is not among them."""
    known = set(group.names)
    missing = next((name for name in names if name not in known), None)
    if missing is not None:
        raise InputError(f"{label} names {missing!r}, of whom {group.name} has no pictures")
    wanted = dict.fromkeys(names)
    place = {name: number for number, name in enumerate(wanted)}
    rows = [row for row, p in enumerate(group.person.tolist()) if group.names[p] in place]
    return People(
        f"{group.name} ({label})",
        tuple(group.pictures[row] for row in rows),
        tuple(wanted),
        np.array([place[group.names[group.person[row]]] for row in rows], np.int64),
    )


def halves(group: People, seed: int = 0) -> tuple[People, People]:
    """The people of a group in two parts, drawn with `seed`; each keeps all its pictures."""
    shuffled = np.random.default_rng(seed).permutation(len(group.names))
    middle = (len(shuffled) + 1) // 2
    first, second = (
        only(group, [group.names[i] for i in np.sort(part).tolist()], label)
        for part, label in ((shuffled[:middle], "one half"), (shuffled[middle:], "the other half"))
    )
    return first, second
