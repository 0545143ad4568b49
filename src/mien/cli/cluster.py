"""mien cluster"""

import hashlib
import html
import os
import shutil
import zipfile
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path
from urllib.parse import quote

import click
import numpy as np
from numpy.typing import NDArray

from mien.cli import options
from mien.cli.batch import Batch, progress
from mien.cli.output import emit, rounded, table
from mien.clustering import MIN_QUALITY, NONE, cluster, linkage, same_picture
from mien.drawing import contact_sheet
from mien.embedding import require_contract
from mien.errors import InputError, MienError, UnreadableImage
from mien.images import Source, encode_image, read_image
from mien.recognition import Recognizer, load
from mien.types import Image, RecognizedFace

_RECORD = "clusters.npz"
_ON_A_SHEET = 48
_COLUMNS = 8
_MARGIN = 0.3  # of the box's side, around a face on a contact sheet


@click.command()
@click.argument("folder", type=click.Path(path_type=Path), metavar="FOLDER")
@click.option("-o", "--output", type=click.Path(file_okay=False, path_type=Path), metavar="DIR",
              help="Copy the pictures there, one folder a person.")  # fmt: skip
@click.option("--fdr", default=0.02, show_default=True, metavar="RATE",
              help="Of the pairs of faces that pass for one person, the share that may not be one. "
              "Lower it when strangers are mixed, raise it when people are split.")  # fmt: skip
@click.option("--min-quality", default=MIN_QUALITY, show_default=True,
              help="Poorer faces (0 to 1) join groups, but found and connect none.")  # fmt: skip
@options.min_face
@options.model
@options.threads
@options.as_json
def command(
    folder: Path,
    output: Path | None,
    fdr: float,
    min_quality: float,
    min_face: float | None,
    model: str,
    threads: int | None,
    as_json: bool,
) -> None:
    """Group the faces in a folder of pictures by person, without knowing anyone.

    \b
    mien cluster photos/ -o people/
    mien enroll --from people/         # after renaming the folders

    DIR gets a folder a person with copies of their pictures, a contact sheet each, and report.html.
    Run it again when there are new pictures: they join, and nothing else moves. What you correct
    there is kept for ever: rename a folder, move a picture to another folder, or delete it.

    Prints the group of every face; -1 is a face that is alone.
    """
    if not folder.is_dir():
        raise UnreadableImage(str(folder), "it is not a folder")
    if output and output.resolve().is_relative_to(folder.resolve()):
        raise InputError(f"{output} lies inside {folder}: its copies would be grouped again")
    recognizer = load(model, threads=threads, min_face=min_face)
    album = _read(output, recognizer.contract) if output else _Album(recognizer.contract)
    batch = Batch([str(folder)])
    pictures = _look(album, batch, recognizer)
    _group(album, recognizer, fdr, min_quality)
    if output:
        _write(album, output, {digest: name for name, digest in reversed(pictures)})
    _print(album, pictures, as_json)
    batch.finish()


@dataclass
class _Seen:
    """A face of an album. `picture` is the digest of its file, so a moved file is not a new one.

    `copy` is the name of its file in the output, unique there; a face is `gone` when the user
    deleted that file.
    """

    picture: str
    box: tuple[float, float, float, float]
    vector: NDArray[np.float32]
    quality: float
    group: int = NONE
    copy: str = ""
    gone: bool = False


@dataclass
class _Album:
    """The faces of all pictures ever given, and what the folder of each group is called."""

    contract: str
    pictures: set[str] = field(default_factory=set)
    faces: list[_Seen] = field(default_factory=list)
    folders: dict[int, str] = field(default_factory=dict)


def _look(album: _Album, batch: Batch, recognizer: Recognizer) -> list[tuple[str, str]]:
    """Add the pictures not seen before to the album; name and digest of every picture."""

    def work(source: Source) -> tuple[str, list[RecognizedFace]]:
        assert isinstance(source, str)  # a folder was given, not standard input
        digest = _digest(source)
        return digest, [] if digest in album.pictures else recognizer.recognize(source)

    named = []
    for name, (digest, faces) in batch.run(work, recognizer.threads):
        named.append((name, digest))
        if digest in album.pictures:
            continue
        album.pictures.add(digest)
        for face in faces:
            box = face.face.box
            edges = (box.left, box.top, box.right, box.bottom)
            album.faces.append(_Seen(digest, edges, face.embedding.vector, face.quality.value))
    # What is neither in the folder any more nor in the output leaves no trace.
    present = {digest for _, digest in named}
    album.faces = [face for face in album.faces if face.picture in present or _kept(face)]
    album.pictures = present | {face.picture for face in album.faces}
    return named


def _kept(face: _Seen) -> bool:
    return bool(face.copy) and not face.gone


def _digest(path: str) -> str:
    try:
        with open(path, "rb") as stream:
            return hashlib.file_digest(stream, "sha256").hexdigest()
    except OSError as error:
        raise UnreadableImage(path, error.strerror or str(error)) from error


def _group(album: _Album, recognizer: Recognizer, fdr: float, min_quality: float) -> None:
    """Give groups to the faces that have none; the others stay where they are."""
    faces = [face for face in album.faces if not face.gone]
    points, contract = recognizer.bundle.operating_points, recognizer.contract
    if not faces:
        return
    vectors = np.stack([face.vector for face in faces])
    needs = linkage(points, vectors, contract, fdr=fdr)
    known = np.array([face.group for face in faces])
    apart = same_picture([face.picture for face in faces])
    a, b = known[apart].T
    labels = cluster(
        vectors,
        needs,
        apart=apart[(a != b) | (a == NONE)],  # the user knows better: a collage, or a mirror
        usable=np.array([face.quality >= min_quality for face in faces]),
        known=known,
    )
    for face, label in zip(faces, labels, strict=True):
        face.group = int(label)


def _print(album: _Album, pictures: list[tuple[str, str]], as_json: bool) -> None:
    if not as_json:
        faces_of = Counter(face.group for face in album.faces if not face.gone)
        pictures_of = Counter(
            group for group, _ in {(face.group, face.picture) for face in album.faces}
        )
        table(
            ("cluster", "faces", "pictures", "folder"),
            (
                (str(group), str(faces_of[group]), str(pictures_of[group]),
                 album.folders.get(group, ""))
                for group in sorted(faces_of, key=lambda group: (group == NONE, group))
            ),
        )  # fmt: skip
        return
    of_picture: dict[str, list[_Seen]] = {}
    for face in album.faces:
        of_picture.setdefault(face.picture, []).append(face)
    for name, digest in pictures:
        for face in of_picture.get(digest, []):
            emit({"image": name, "box": rounded(face.box), "cluster": face.group})


# ------------------------------------------------------------------------------------- the folder


def _read(folder: Path, contract: str) -> _Album:
    """The album that an earlier run left in the folder, with what the user changed since."""
    path = folder / _RECORD
    if not path.exists():
        if folder.is_dir() and any(folder.iterdir()):
            raise InputError(f"{folder} is not empty and was not written by 'mien cluster'")
        return _Album(contract)
    try:
        with np.load(path) as kept:
            require_contract(str(kept["contract"]), contract)
            album = _Album(contract, set(kept["pictures"].tolist()))
            album.folders = dict(zip(kept["ids"].tolist(), kept["folders"].tolist(), strict=True))
            columns = (
                kept["picture"].tolist(),
                map(tuple, kept["box"].tolist()),
                kept["vector"],
                *(kept[name].tolist() for name in ("quality", "group", "copy", "gone")),
            )
            album.faces = [_Seen(*row) for row in zip(*columns, strict=True)]
    except (OSError, KeyError, ValueError, zipfile.BadZipFile) as error:
        if isinstance(error, MienError):
            raise
        raise InputError(f"cannot read {path}: {error}; delete it to start afresh") from error
    _follow(album, folder)
    return album


def _follow(album: _Album, folder: Path) -> None:
    """Take over what the user did: folders renamed, pictures moved or deleted."""
    where = {
        file.name: place.name
        for place in sorted(folder.iterdir())
        if place.is_dir() and not place.name.startswith(".")
        for file in place.iterdir()
    }
    face_of = {face.copy: face for face in album.faces if face.copy}
    held: dict[str, Counter[int]] = {}
    for copy, place in where.items():
        if copy in face_of:
            held.setdefault(place, Counter())[face_of[copy].group] += 1
    number_of = {place: number for number, place in album.folders.items() if place in held}
    free = set(album.folders) - set(number_of.values())
    for place in sorted(held.keys() - number_of.keys()):
        # A folder of another name: a group renamed, if most of what it holds is of one that went.
        number = next((n for n, _ in held[place].most_common() if n in free), None)
        if number is None:
            number = max(album.folders, default=NONE) + 1
        free.discard(number)
        number_of[place] = number
        album.folders[number] = place
    for copy, face in face_of.items():
        if copy in where:
            face.group = number_of[where[copy]]
        elif not face.gone:
            face.group, face.gone, face.vector = NONE, True, np.zeros_like(face.vector)


def _write(album: _Album, folder: Path, sources: dict[str, str]) -> None:
    """Copies, contact sheets, the report and the record; each file is whole or absent."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
        taken = {face.copy.casefold() for face in album.faces}
        grouped = [face for face in album.faces if face.group != NONE]
        for face in progress(grouped, len(grouped), "copy"):
            place = folder / album.folders.setdefault(face.group, f"person-{face.group:04d}")
            if not face.copy:
                source = Path(sources[face.picture])
                face.copy = _free_name(source, taken)
                place.mkdir(exist_ok=True)
                partial = folder / ".partial"
                shutil.copyfile(source, partial)
                os.replace(partial, place / face.copy)
        _save(album, folder / _RECORD)
        _draw(album, folder)
        (folder / "report.html").write_text(_report(album), encoding="utf-8")
    except OSError as error:
        raise InputError(f"cannot write to {folder}: {error.strerror}") from error


def _free_name(source: Path, taken: set[str]) -> str:
    name, number = source.name, 1
    while name.casefold() in taken:
        number += 1
        name = f"{source.stem}-{number}{source.suffix}"
    taken.add(name.casefold())
    return name


def _save(album: _Album, path: Path) -> None:
    faces = album.faces
    partial = path.with_name(path.name + ".partial")
    with partial.open("wb") as file:
        np.savez(
            file,
            contract=album.contract,
            pictures=np.array(sorted(album.pictures), np.str_),
            ids=np.array(list(album.folders), np.int64),
            folders=np.array(list(album.folders.values()), np.str_),
            picture=np.array([face.picture for face in faces], np.str_),
            box=np.array([face.box for face in faces], np.float64).reshape(-1, 4),
            vector=np.array([face.vector for face in faces], np.float32),
            quality=np.array([face.quality for face in faces], np.float64),
            group=np.array([face.group for face in faces], np.int64),
            copy=np.array([face.copy for face in faces], np.str_),
            gone=np.array([face.gone for face in faces], np.bool_),
        )
    os.replace(partial, path)


def _draw(album: _Album, folder: Path) -> None:
    """A contact sheet a group: from its most typical face to its least, where errors show."""
    groups: dict[int, list[_Seen]] = {}
    for face in album.faces:
        if face.group != NONE:
            groups.setdefault(face.group, []).append(face)
    for number, faces in progress(groups.items(), len(groups), "sheet"):
        middle = np.mean([face.vector for face in faces], axis=0)
        faces.sort(key=lambda face: -float(face.vector @ middle))
        shown = np.linspace(0, len(faces) - 1, min(len(faces), _ON_A_SHEET)).round().astype(int)
        place = album.folders[number]
        crops = [_crop(folder / place / faces[i].copy, faces[i].box) for i in shown]
        sheet = contact_sheet(crops, min(_COLUMNS, len(crops)), 128)
        (folder / f"{place}.jpg").write_bytes(encode_image(sheet, "jpeg"))


def _crop(path: Path, box: tuple[float, float, float, float]) -> Image:
    image = read_image(path)
    left, top, right, bottom = box
    across, down = _MARGIN * (right - left), _MARGIN * (bottom - top)
    rows = slice(max(0, round(top - down)), max(1, round(bottom + down)))
    columns = slice(max(0, round(left - across)), max(1, round(right + across)))
    return Image(np.ascontiguousarray(image.pixels[rows, columns]), image.source)


def _report(album: _Album) -> str:
    """A page that shows every group, largest first; needs nothing from the network."""
    sizes = Counter(face.group for face in album.faces if not face.gone)
    alone = sizes.pop(NONE, 0)
    with_faces = len({face.picture for face in album.faces})
    sections = "\n".join(
        f'<section><h2><a href="{html.escape(quote(place))}/">{html.escape(place)}</a></h2>'
        f"<p>{size} {'face' if size == 1 else 'faces'}, cluster {number}</p>"
        f'<img src="{html.escape(quote(place))}.jpg" alt="{html.escape(place)}"></section>'
        for number, size in sizes.most_common()
        for place in [album.folders[number]]
    )
    return _PAGE.format(
        sections=sections,
        summary=f"{len(album.pictures)} pictures, {len(album.pictures) - with_faces} of them "
        f"without a face; {sum(sizes.values())} faces in {len(sizes)} groups, {alone} alone.",
    )


_PAGE = """<!doctype html>
<html lang="en"><meta charset="utf-8"><title>People</title>
<style>
body {{ font: 16px/1.5 system-ui, sans-serif; margin: 2rem auto; max-width: 66rem }}
section {{ border-top: 1px solid #ccc }} h2 {{ margin-bottom: 0 }} p {{ margin-top: 0 }}
img {{ max-width: 100% }}
</style>
<h1>People</h1><p>{summary}</p>
<p>Each sheet goes from the most typical face to the least: look for mistakes at its end. To correct
one, rename a folder, move a picture to another, or delete it, and run mien cluster again.</p>
{sections}
</html>
"""
