"""What a set of crops is on disk, and how to read one.

A set is a folder with

- `set.json`: how the crops were made (`About`);
- `manifest.csv`: one row a crop (`Crop`), in the order of the pictures;
- `refused.csv`: `subject, source, sha256, reason` of every picture that gave no crop;
- the pixels: in a *cropped* set one picture a crop, at `file`; in a *packed* set `pixels.npy`,
  uint8 RGB (n, height, width, 3), whose row i belongs to row i of the manifest.

`source` is the path of the picture below the folder it was found in: lists of pairs, triplets and
splits name pictures by it, so that they hold for the originals, the crops and the packed set.
"""

import csv
import json
import os
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import IO, Any

import numpy as np

from mien.errors import InputError
from mien.images import find_images
from mien.types import Box, Frame

ABOUT, MANIFEST, REFUSED, PIXELS = "set.json", "manifest.csv", "refused.csv", "pixels.npy"

# File names need not be text: the bytes that are not are kept as they are.
_TEXT: Mapping[str, Any] = {"encoding": "utf-8", "errors": "surrogateescape", "newline": ""}


@dataclass(frozen=True, slots=True)
class Listed:
    """A picture of a set: whom it shows ("" in a set without folders), its name and its file."""

    subject: str
    source: str
    path: Path


@dataclass(frozen=True, slots=True)
class Crop:
    """One row of a manifest.

    `sha256` is that of the picture's file. The box and `points` (x y of the five landmarks) are
    in pixels of the picture. `quality` is 0 to 1, `residual` as in `AlignedFace`. `file` is the
    path of the crop below the folder of the set.
    """

    subject: str
    source: str
    sha256: str
    quality: float
    left: float
    top: float
    right: float
    bottom: float
    residual: float
    points: tuple[float, ...]
    file: str

    @property
    def box(self) -> Box:
        return Box(self.left, self.top, self.right, self.bottom)


@dataclass(frozen=True, slots=True)
class Refused:
    """A picture that gave no crop, and why."""

    subject: str
    source: str
    sha256: str
    reason: str


@dataclass(frozen=True, slots=True)
class About:
    """How the crops of a set were made; `set.json` has these fields.

    `size` is (width, height). With `margin`, that share of the face's box was added on every side
    and nothing was turned: `template` is then where the landmarks lie on average, known when the
    set is `complete`, so that a network that learnt from it can be given aligned faces too.
    """

    size: tuple[int, int]
    template: tuple[tuple[float, float], ...]
    contract: str
    detector: str
    choose: str
    margin: float | None = None
    min_quality: float = 0.0
    complete: bool = False
    version: int = 1

    @property
    def frame(self) -> Frame:
        return Frame(self.size, self.template)


# ------------------------------------------------------------------------------------------ finding


def list_pictures(folder: Path) -> list[Listed]:
    """The pictures below a folder, in order of name; the first folder on the way is the subject.

    A folder without sub-folders is a set without people. Raises `InputError` when there are none.
    """
    if not folder.is_dir():
        raise InputError(f"{folder} is not a folder")
    found = []
    for path in find_images([folder]):
        relative = path.relative_to(folder)
        subject = relative.parts[0] if len(relative.parts) > 1 else ""
        found.append(Listed(subject, relative.as_posix(), path))
    if not found:
        raise InputError(f"there are no pictures in {folder}")
    return sorted(found, key=lambda picture: (picture.subject, picture.source))


def list_set(folder: Path) -> list[Listed]:
    """The pictures of a cropped set, or those of any folder with one sub-folder a person."""
    if not is_set(folder):
        return list_pictures(folder)
    return [Listed(crop.subject, crop.source, folder / crop.file) for crop in read_manifest(folder)]


# ------------------------------------------------------------------------------------------ reading


def is_set(folder: Path) -> bool:
    """Whether a folder is a set of crops."""
    return (folder / ABOUT).is_file()


def read_about(folder: Path) -> About:
    """How a set was made. Raises `InputError` when the folder is none."""
    path = folder / ABOUT
    try:
        data = json.loads(path.read_text(encoding="utf-8"))
        names = {field.name for field in fields(About)}
        given = {name: value for name, value in data.items() if name in names}
        width, height = data["size"]
        template = tuple((float(x), float(y)) for x, y in data["template"])
        return About(**{**given, "size": (int(width), int(height)), "template": template})
    except FileNotFoundError:
        raise InputError(f"{folder} is no set of crops; 'mien data crop' makes one") from None
    except OSError as error:
        raise InputError(f"cannot read {path}: {error.strerror}") from error
    except (ValueError, KeyError, TypeError) as error:
        raise InputError(f"{path} is damaged ({error}); make the set again") from error


def read_manifest(folder: Path) -> list[Crop]:
    """The rows of a set's manifest. Raises `InputError` that names the line."""
    return [_crop(row, folder / MANIFEST, line) for line, row in read_table(folder / MANIFEST)]


def read_refused(folder: Path) -> list[Refused]:
    """The pictures that gave no crop. Raises `InputError`."""
    path = folder / REFUSED
    if not path.is_file():
        return []
    return [
        Refused(**{f.name: row[f.name] for f in fields(Refused)}) for _, row in read_table(path)
    ]


def read_table(path: Path) -> Iterator[tuple[int, dict[str, str]]]:
    """The rows of a table with their line numbers. Raises `InputError`."""
    try:
        with path.open(**_TEXT) as stream:
            reader = csv.reader(stream, strict=True)
            header = next(reader, None)
            if not header:
                raise InputError(f"{path} is empty")
            for cells in reader:
                if len(cells) != len(header):
                    raise InputError(
                        f"{path}, line {reader.line_num}: {len(cells)} cells where the header has "
                        f"{len(header)}"
                    )
                yield reader.line_num, dict(zip(header, cells, strict=True))
    except OSError as error:
        raise InputError(f"cannot read {path}: {error.strerror}") from error
    except csv.Error as error:
        raise InputError(f"{path} is damaged: {error}") from error


def _crop(row: Mapping[str, str], path: Path, line: int) -> Crop:
    try:
        numbers = {name: float(row[name]) for name in _NUMBERS}
        points = tuple(float(number) for number in row["points"].split())
        return Crop(row["subject"], row["source"], row["sha256"], **numbers, points=points,
                    file=row["file"])  # fmt: skip
    except (KeyError, ValueError) as error:
        raise InputError(f"{path}, line {line}: {error}") from error


_NUMBERS = ("quality", "left", "top", "right", "bottom", "residual")


# ------------------------------------------------------------------------------------------ writing


def cells(row: Crop | Refused) -> list[str]:
    """A row as it stands in its table: pixels to a hundredth, shares to four digits."""
    if isinstance(row, Refused):
        return [row.subject, row.source, row.sha256, row.reason]
    return [
        row.subject, row.source, row.sha256, f"{row.quality:.4f}",
        *(f"{edge:.2f}" for edge in (row.left, row.top, row.right, row.bottom)),
        f"{row.residual:.4f}", " ".join(f"{number:.2f}" for number in row.points), row.file,
    ]  # fmt: skip


def header(kind: type[Crop] | type[Refused]) -> list[str]:
    """The names of the columns of a table."""
    return [field.name for field in fields(kind)]


def write_about(folder: Path, about: About) -> None:
    """Write `set.json`, whole or not at all. Raises `InputError`."""
    with writing(folder / ABOUT) as stream:
        stream.write((json.dumps(asdict(about), indent=2) + "\n").encode())


def write_table(path: Path, columns: Sequence[str], rows: Iterable[Sequence[str]]) -> None:
    """Write a CSV file, whole or not at all. Raises `InputError`."""
    with writing(path) as stream:
        stream.write(lines([columns]))
        for row in rows:
            stream.write(lines([row]))


def lines(rows: Iterable[Sequence[str]]) -> bytes:
    """Rows as CSV."""
    return "".join(_line(row) for row in rows).encode("utf-8", "surrogateescape")


def _line(row: Sequence[str]) -> str:
    return ",".join(_quoted(cell) for cell in row) + "\n"


def _quoted(cell: str) -> str:
    special = any(character in cell for character in ',"\r\n')
    return '"' + cell.replace('"', '""') + '"' if special else cell


@contextmanager
def writing(path: Path) -> Iterator[IO[bytes]]:
    """A new file that takes the place of `path` once it is whole and on the disk.

    Raises `InputError` when it cannot be written; what stood there then still does.
    """
    partial = path.with_name(f".{path.name}.{os.getpid()}.partial")
    try:
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            with partial.open("wb") as stream:
                yield stream
                stream.flush()
                os.fsync(stream.fileno())
            os.replace(partial, path)
        finally:
            partial.unlink(missing_ok=True)
    except OSError as error:
        raise cannot_write(path, error) from error


def cannot_write(path: Path, error: OSError) -> InputError:
    """The error of a disk that is full, or of a place that may not be written to."""
    return InputError(
        f"cannot write {path}: {error.strerror or error}; make room or choose another"
    )


def mean_template(points: np.ndarray) -> tuple[tuple[float, float], ...]:
    """The mean (5, 2) of landmarks (n, 5, 2), to a hundredth of a pixel."""
    return tuple((round(float(x), 2), round(float(y), 2)) for x, y in points.mean(axis=0))
