"""mien cluster"""

import hashlib
from collections import Counter
from pathlib import Path

import click

from mien.cli import options
from mien.cli.batch import Batch, progress
from mien.cli.output import emit, rounded, table
from mien.clustering import MIN_QUALITY, NONE
from mien.clustering.album import (
    Album,
    Seen,
    add_picture,
    group_faces,
    keep_pictures,
    read_album,
    write_album,
)
from mien.errors import InputError, UnreadableImage
from mien.images import Source
from mien.recognition import Recognizer, load
from mien.types import RecognizedFace


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
    album = read_album(output, recognizer.contract) if output else Album(recognizer.contract)
    batch = Batch([str(folder)])
    pictures = _look(album, batch, recognizer)
    group_faces(album, recognizer.bundle.operating_points, fdr=fdr, min_quality=min_quality)
    if output:
        write_album(album, output, {digest: name for name, digest in reversed(pictures)}, progress)
    _print(album, pictures, as_json)
    batch.finish()


def _look(album: Album, batch: Batch, recognizer: Recognizer) -> list[tuple[str, str]]:
    """Add the pictures not seen before to the album; name and digest of every picture."""

    def work(source: Source) -> tuple[str, list[RecognizedFace]]:
        assert isinstance(source, str)  # a folder was given, not standard input
        digest = _digest(source)
        return digest, [] if digest in album.pictures else recognizer.recognize(source)

    named = []
    for name, (digest, faces) in batch.run(work, recognizer.threads):
        named.append((name, digest))
        if digest not in album.pictures:
            add_picture(album, digest, faces)
    keep_pictures(album, {digest for _, digest in named})
    return named


def _digest(path: str) -> str:
    try:
        with open(path, "rb") as stream:
            return hashlib.file_digest(stream, "sha256").hexdigest()
    except OSError as error:
        raise UnreadableImage(path, error.strerror or str(error)) from error


def _print(album: Album, pictures: list[tuple[str, str]], as_json: bool) -> None:
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
    of_picture: dict[str, list[Seen]] = {}
    for face in album.faces:
        of_picture.setdefault(face.picture, []).append(face)
    for name, digest in pictures:
        for face in of_picture.get(digest, []):
            emit({"image": name, "box": rounded(face.box), "cluster": face.group})
