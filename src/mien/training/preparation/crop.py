"""Pictures to a cropped set: find the face, cut it out, keep where it came from, go on if killed.

The two tables are written as the work proceeds, picture by picture in a fixed order, and are all
the state there is. A run that was stopped is therefore continued by the same command, and ends
with the same bytes as one that was not.
"""

import csv
import hashlib
import io
import json
import os
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import IO, Literal

import numpy as np

from mien.alignment import align, box_transform, cut
from mien.cards import PREPROCESSING
from mien.detection import Choose, Detector
from mien.download import locked
from mien.errors import InputError, LowQuality, MissingExtra, NoFaceFound, UnreadableImage
from mien.geometry import transform_points
from mien.images import read_image, save_image
from mien.quality import assess
from mien.recognition import ordered_map
from mien.training.preparation.sets import (
    ABOUT,
    MANIFEST,
    REFUSED,
    About,
    Crop,
    Listed,
    Refused,
    cannot_write,
    cells,
    header,
    lines,
    mean_template,
    read_about,
    read_manifest,
    write_about,
    writing,
)
from mien.types import AlignedFace, Face, Frame, Image

Choice = Callable[[Sequence[Face], Image], Sequence[Face]]
"""A policy that picks the faces of a picture to cut out, or raises an `InputError`."""

Kind = Literal["png", "jpeg", "webp"]

UNUSABLE = (InputError, MissingExtra)


@dataclass(frozen=True, slots=True)
class Cutter:
    """How a face is cut out.

    Its landmarks are brought onto the template of `frame`, or, with `margin`, the box is cut out
    upright with that share of its side added all around, at the size of `frame`. `called` names
    the choice among several faces in `set.json`. Faces of a quality below `min_quality` are
    refused.
    """

    detector: Detector
    frame: Frame
    choose: Choice
    called: str
    margin: float | None = None
    min_quality: float = 0.0
    kind: Kind = "png"

    @property
    def about(self) -> About:
        """What `set.json` says of the crops, before there are any."""
        card = self.detector.card
        parts = [card.origin_sha256, self.frame.size, self.frame.template, self.margin]
        digest = hashlib.sha256(json.dumps([*parts, PREPROCESSING]).encode()).hexdigest()[:8]
        width, height = self.frame.size
        how = "aligned" if self.margin is None else f"box{self.margin:+g}"
        return About(
            self.frame.size, self.frame.template if self.margin is None else (),
            f"{card.id}+{how}-{width}x{height}@{digest}", card.id,
            self.called, self.margin, self.min_quality,
        )  # fmt: skip

    def cut(self, image: Image, face: Face) -> tuple[AlignedFace, float]:
        """The crop of a face and its quality. Raises `InputError`, `LowQuality` among them."""
        aligned = align(image, face.landmarks, self.frame)
        quality = assess(face, aligned)
        if quality.value < self.min_quality:
            raise LowQuality(image.source, quality.value, quality.reasons)
        if self.margin is None:
            return aligned, quality.value
        boxed = cut(image, face.box, self.frame.size, self.margin)
        return replace(boxed, residual=aligned.residual), quality.value


def one(choose: Choose) -> Choice:
    """The policy that cuts out the one face that `choose` picks."""
    return lambda faces, image: [choose(faces, image)]


def every(faces: Sequence[Face], image: Image) -> Sequence[Face]:
    """The policy that cuts out all faces. Raises `NoFaceFound`."""
    if not faces:
        raise NoFaceFound(image.source)
    return faces


@dataclass(frozen=True, slots=True)
class Done:
    """What became of one picture: its crops, or why there is none; `fresh` if it is of this run."""

    rows: tuple[Crop, ...] = ()
    refused: Refused | None = None
    fresh: bool = True


def crop(
    pictures: Sequence[Listed], folder: Path, cutter: Cutter, threads: int = 1
) -> Iterator[Done]:
    """Cut the faces out of `pictures` into the set at `folder`; yields what became of each.

    Pictures that `folder` has from an earlier run, finished or killed, are not looked at again.
    Raises `InputError` when the set there was made in another way, when `folder` holds something
    else, and when it cannot be written.
    """
    _claim(folder)
    with locked(folder / _LOCK):  # two runs at once: the second finds everything done
        known = _known(*_begin(folder, cutter.about))
        names = _names(pictures)

        def work(picture: Listed) -> Done:
            place = names[picture]
            return known.get(picture.source) or _cut_out(picture, folder, place, cutter)

        with _appending(folder / MANIFEST) as kept, _appending(folder / REFUSED) as lost:
            for done in ordered_map(work, pictures, threads):
                if done.fresh and done.refused:
                    _append(lost, folder / REFUSED, [done.refused])
                elif done.fresh:
                    _append(kept, folder / MANIFEST, done.rows)
                yield done
        _finish(folder, cutter)


def _known(rows: Sequence[Crop], refused: Sequence[Refused]) -> dict[str, Done]:
    """What became of pictures in an earlier run, by source."""
    known: dict[str, Done] = {}
    for row in rows:
        before = known.get(row.source, Done())
        known[row.source] = Done((*before.rows, row), fresh=False)
    return known | {row.source: Done(refused=row, fresh=False) for row in refused}


# ---------------------------------------------------------------------------------- one picture


def _cut_out(picture: Listed, folder: Path, place: Path, cutter: Cutter) -> Done:
    digest = ""
    try:
        data = _bytes(picture)
        digest = hashlib.sha256(data).hexdigest()
        image = Image(read_image(data).pixels, picture.source)
        faces = cutter.choose(cutter.detector.detect(image), image)
        cuts = [(face, *cutter.cut(image, face)) for face in faces]
    except UNUSABLE as error:
        return Done(refused=Refused(picture.subject, picture.source, digest, _one_line(error)))
    rows = []
    for number, (face, aligned, quality) in enumerate(cuts, 1):
        name = place.name if number == 1 else f"{place.name}-face{number}"
        file = place.with_name(f"{name}.{'jpg' if cutter.kind == 'jpeg' else cutter.kind}")
        _save(Image(aligned.pixels), folder / file)
        box = face.box
        rows.append(Crop(
            picture.subject, picture.source, digest, quality,
            box.left, box.top, box.right, box.bottom, aligned.residual,
            tuple(face.landmarks.points.ravel().tolist()), file.as_posix(),
        ))  # fmt: skip
    return Done(tuple(rows))


def _bytes(picture: Listed) -> bytes:
    try:
        return picture.path.read_bytes()
    except OSError as error:
        raise UnreadableImage(picture.source, error.strerror or str(error)) from error


def _one_line(error: Exception) -> str:
    return " ".join(str(error).split())


def _save(image: Image, file: Path) -> None:
    try:
        file.parent.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise cannot_write(file.parent, error) from error
    save_image(image, file, quality=95)


def _names(pictures: Sequence[Listed]) -> dict[Listed, Path]:
    """Where the crop of each picture goes, without its suffix: SUBJECT/NAME.

    Names that several pictures of a subject share get a digest of their source, also where they
    differ in case only. The rule looks at one name at a time, so that pictures which are added
    later never take the place of others.
    """
    plain = {p: Path("crops", p.subject, Path(p.source).stem) for p in pictures}
    times = Counter(str(path).casefold() for path in plain.values())
    return {
        picture: path
        if times[str(path).casefold()] == 1
        else path.with_name(f"{path.name}-{_short(picture.source)}")
        for picture, path in plain.items()
    }


def _short(source: str) -> str:
    return hashlib.sha256(source.encode("utf-8", "surrogateescape")).hexdigest()[:8]


# ------------------------------------------------------------------------------------ the folder


_LOCK = ".lock"


def _claim(folder: Path) -> None:
    """Make the folder. Raises `InputError` when it holds something else."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
        others = [path.name for path in folder.iterdir() if not path.name.startswith(".")]
    except OSError as error:
        raise cannot_write(folder, error) from error
    if others and ABOUT not in others:
        raise InputError(f"{folder} is not empty and was not written by 'mien data crop'")


def _begin(folder: Path, about: About) -> tuple[list[Crop], list[Refused]]:
    """What an earlier run left whole, with whatever it was just writing taken back."""
    if not (folder / ABOUT).exists():
        write_about(folder, about)
    before = read_about(folder)
    if replace(before, complete=False, template=about.template) != about:
        raise InputError(
            f"the crops in {folder} were made in another way ({before.contract}, choose "
            f"{before.choose}); use the same options or another folder"
        )
    write_about(folder, about)  # not complete while this run lasts
    kept = _whole(folder / MANIFEST, header(Crop))
    lost = _whole(folder / REFUSED, header(Refused))
    if not before.complete:  # several crops of one picture are several lines: some may lack
        kept = kept[: next((i for i, row in enumerate(kept) if row[1] == kept[-1][1]), 0)]
    _rewrite(folder / MANIFEST, header(Crop), kept)
    _rewrite(folder / REFUSED, header(Refused), lost)
    for partial in folder.glob("crops/**/.mien-*.tmp"):  # of `save_image`
        partial.unlink(missing_ok=True)
    rows = [row for row in read_manifest(folder) if _is_there(folder / row.file)]
    if len(rows) < len(kept):
        _rewrite(folder / MANIFEST, header(Crop), [cells(row) for row in rows])
    return rows, [Refused(*row) for row in lost]


def _whole(path: Path, columns: list[str]) -> list[list[str]]:
    """The rows of a table that was being written, without a last one that is torn."""
    try:
        text = path.read_bytes().decode("utf-8", "surrogateescape")
    except FileNotFoundError:
        return []
    except OSError as error:
        raise InputError(f"cannot read {path}: {error.strerror}") from error
    torn = not text.endswith("\n") or text.count('"') % 2
    rows = [row for row in csv.reader(io.StringIO(text, newline="")) if row]
    if torn and rows:
        rows.pop()
    if rows and (rows[0] != columns or any(len(row) != len(columns) for row in rows)):
        raise InputError(f"{path} was changed by something else; start in another folder")
    return rows[1:]


def _rewrite(path: Path, columns: Sequence[str], rows: Sequence[Sequence[str]]) -> None:
    with writing(path) as stream:
        stream.write(lines([columns, *rows]))


def _is_there(file: Path) -> bool:
    try:
        return file.stat().st_size > 0
    except OSError:
        return False


@contextmanager
def _appending(path: Path) -> Iterator[IO[bytes]]:
    """A table open for more rows."""
    try:
        stream = path.open("ab")
    except OSError as error:
        raise cannot_write(path, error) from error
    with stream:
        yield stream


def _append(stream: IO[bytes], path: Path, rows: Sequence[Crop | Refused]) -> None:
    try:
        stream.write(lines(cells(row) for row in rows))
        stream.flush()
    except OSError as error:
        raise cannot_write(path, error) from error


def _finish(folder: Path, cutter: Cutter) -> None:
    """Say that the set is complete, and where the landmarks of upright crops lie on average."""
    about = cutter.about
    rows = read_manifest(folder)
    if cutter.margin is not None and rows:
        about = replace(about, template=mean_template(np.stack([_placed(r, cutter) for r in rows])))
    for name in (MANIFEST, REFUSED):
        with (folder / name).open("rb") as stream:
            os.fsync(stream.fileno())
    write_about(folder, replace(about, complete=True))


def _placed(row: Crop, cutter: Cutter) -> np.ndarray:
    """Where the landmarks (5, 2) of a crop that was cut out upright lie in it."""
    transform = box_transform(row.box, cutter.frame.size, cutter.margin or 0.0)
    return transform_points(transform, np.array(row.points).reshape(5, 2))
