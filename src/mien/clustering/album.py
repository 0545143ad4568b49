"""A folder of groups, one sub-folder a person, and the record that carries it from run to run.

What the user does in the folder counts: a folder renamed keeps its number, a picture moved goes to
another group, a picture deleted is in no group any more.
"""

import html
import os
import shutil
import zipfile
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from urllib.parse import quote

import numpy as np
from numpy.typing import NDArray

from mien.clustering.groups import NONE, cluster, same_picture
from mien.clustering.thresholds import linkage
from mien.drawing import contact_sheet
from mien.embedding import require_contract
from mien.errors import InputError, MienError
from mien.images import encode_image, read_image
from mien.types import Image, OperatingPoint, Progress, RecognizedFace

_RECORD = "clusters.npz"
_ON_A_SHEET = 48
_COLUMNS = 8
_MARGIN = 0.3  # of the box's side, around a face on a contact sheet


@dataclass
class Seen:
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
class Album:
    """The faces of all pictures ever given, and what the folder of each group is called."""

    contract: str
    pictures: set[str] = field(default_factory=set)
    faces: list[Seen] = field(default_factory=list)
    folders: dict[int, str] = field(default_factory=dict)


def add_picture(album: Album, digest: str, faces: Iterable[RecognizedFace]) -> None:
    """Take up a picture, named by the digest of its file, with the faces on it."""
    album.pictures.add(digest)
    for face in faces:
        box = face.face.box
        edges = (box.left, box.top, box.right, box.bottom)
        album.faces.append(Seen(digest, edges, face.embedding.vector, face.quality.value))


def keep_pictures(album: Album, present: set[str]) -> None:
    """Leave no trace of pictures that are neither `present` nor in the folder any more."""
    kept = [face for face in album.faces if face.copy and not face.gone]
    wanted = present | {face.picture for face in kept}
    album.faces = [face for face in album.faces if face.picture in wanted]
    album.pictures = present | {face.picture for face in album.faces}


def group_faces(
    album: Album, points: Sequence[OperatingPoint], *, fdr: float, min_quality: float
) -> None:
    """Give groups to the faces that have none; the others stay where they are.

    `points` are those of the recogniser, `fdr` as for `linkage`; faces below `min_quality` are not
    usable, as `cluster` calls it. Raises what these raise.
    """
    faces = [face for face in album.faces if not face.gone]
    if not faces:
        return
    vectors = np.stack([face.vector for face in faces])
    needs = linkage(points, vectors, album.contract, fdr=fdr)
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


def read_album(folder: Path, contract: str) -> Album:
    """The album that an earlier run left in the folder, with what the user changed since."""
    path = folder / _RECORD
    if not path.exists():
        if folder.is_dir() and any(folder.iterdir()):
            raise InputError(f"{folder} is not empty and was not written by 'mien cluster'")
        return Album(contract)
    try:
        with np.load(path) as kept:
            require_contract(str(kept["contract"]), contract)
            album = Album(contract, set(kept["pictures"].tolist()))
            album.folders = dict(zip(kept["ids"].tolist(), kept["folders"].tolist(), strict=True))
            columns = (
                kept["picture"].tolist(),
                map(tuple, kept["box"].tolist()),
                kept["vector"],
                *(kept[name].tolist() for name in ("quality", "group", "copy", "gone")),
            )
            album.faces = [Seen(*row) for row in zip(*columns, strict=True)]
    except (OSError, KeyError, ValueError, zipfile.BadZipFile) as error:
        if isinstance(error, MienError):
            raise
        raise InputError(f"cannot read {path}: {error}; delete it to start afresh") from error
    _follow(album, folder)
    return album


def _follow(album: Album, folder: Path) -> None:
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


def write_album(album: Album, folder: Path, sources: Mapping[str, str], progress: Progress) -> None:
    """Copies, contact sheets, the report and the record; each file is whole or absent.

    `sources` has the file of each picture by its digest. Raises `InputError`.
    """
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
        _draw(album, folder, progress)
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


def _save(album: Album, path: Path) -> None:
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


def _draw(album: Album, folder: Path, progress: Progress) -> None:
    """A contact sheet a group: from its most typical face to its least, where errors show."""
    groups: dict[int, list[Seen]] = {}
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


def _report(album: Album) -> str:
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
