"""mien enroll"""

from itertools import islice
from pathlib import Path

import click

from mien.cli import options
from mien.cli.batch import STDIN, UNUSABLE, Unusable, expand, progress
from mien.cli.output import counted, emit
from mien.embedding import fuse
from mien.errors import InputError, UnreadableImage
from mien.gallery import MIN_QUALITY, Entry, entry_of, open_gallery
from mien.images import find_images
from mien.recognition import load, ordered_map

_AT_ONCE = 64  # faces a transaction: each is on disk before its row is printed


@click.command()
@click.argument("name", required=False)
@click.argument("paths", nargs=-1, type=click.Path(), metavar="PICTURE...")
@click.option("--from", "folder", type=click.Path(path_type=Path), metavar="FOLDER",
              help="Enrol everyone in a folder that has one sub-folder a person.")  # fmt: skip
@click.option("--min-quality", default=MIN_QUALITY, show_default=True,
              help="Faces below this quality (0 to 1) are refused.")  # fmt: skip
@click.option("--keep-crop", is_flag=True,
              help="Also keep the part of each picture around the face, sealed, so that another "
                   "model can make vectors from it; needs an encrypted gallery.")  # fmt: skip
@click.option("--fuse", "fused", is_flag=True,
              help="Add a template fused of all pictures, where there are several.")  # fmt: skip
@options.choose
@options.min_face
@options.gallery
@options.model
@options.threads
@options.as_json
def command(
    name: str | None,
    paths: tuple[str, ...],
    folder: Path | None,
    min_quality: float,
    keep_crop: bool,
    fused: bool,
    choose: str,
    min_face: float | None,
    uri: str,
    model: str,
    threads: int | None,
    as_json: bool,
) -> None:
    """Add people to the gallery, and report each picture: enrolled, or why it was refused.

    \b
    mien enroll ada ada1.jpg ada2.jpg
    mien enroll --from staff/          # staff/ada/*.jpg, staff/grace/*.jpg, ...

    The face of a picture is kept as a vector, not as a picture (but see --keep-crop). What is
    reported as enrolled is on disk, whatever happens next.
    """
    people = _people(name, paths, folder)
    recognizer = load(model, threads=threads, min_face=min_face)

    def attempt(item: tuple[str, str]) -> Entry | Unusable:
        try:
            return entry_of(
                *item, recognizer, choose=options.CHOICES[choose], min_quality=min_quality,
                keep_crop=keep_crop,
            )  # fmt: skip
        except UNUSABLE as error:
            return Unusable(error)

    counts = {"enrolled": 0, "refused": 0}
    taken: dict[str, list[Entry]] = {}
    with open_gallery(uri) as gallery:
        gallery.require(recognizer.contract)
        results = progress(ordered_map(attempt, people, recognizer.threads), len(people), "picture")
        stream = zip(people, results, strict=True)
        while chunk := list(islice(stream, _AT_ONCE)):
            gallery.add([result for _, result in chunk if isinstance(result, Entry)])
            for (subject, picture), result in chunk:
                status = "enrolled" if isinstance(result, Entry) else "refused"
                counts[status] += 1
                reason = str(result.error) if isinstance(result, Unusable) else ""
                _report(subject, picture, status, reason, as_json)
                if isinstance(result, Entry):
                    taken.setdefault(subject, []).append(result)
        together = [_fused(own) for own in taken.values() if fused and len(own) > 1]
        gallery.add(together)
        for entry in together:
            _report(entry.subject, entry.source, "enrolled", "", as_json)
    click.echo(
        f"{counted(counts['enrolled'], 'picture')} enrolled, {counts['refused']} refused, in {uri}",
        err=True,
    )
    if counts["refused"]:
        click.get_current_context().exit(2)


def _fused(own: list[Entry]) -> Entry:
    """All pictures of one person as one template; fewer errors than the best of them alone."""
    embedding = fuse([entry.embedding for entry in own])
    quality = sum(entry.quality for entry in own) / len(own)
    return Entry(own[0].subject, embedding, f"fused from {len(own)} pictures", quality)


def _people(name: str | None, paths: tuple[str, ...], folder: Path | None) -> list[tuple[str, str]]:
    """(subject, picture) for everything to enrol, from either form of the command."""
    if folder is not None:
        if name is not None:
            raise click.UsageError("give either NAME and pictures, or --from FOLDER, not both")
        if not folder.is_dir():
            raise UnreadableImage(str(folder), "it is not a folder")
        people = [
            (person.name, str(picture))
            for person in sorted(folder.iterdir())
            if person.is_dir() and not person.name.startswith(".")
            for picture in find_images([person])
        ]
        hint = f"no pictures in sub-folders of {folder}; it needs one sub-folder a person"
    else:
        if name is None or not paths:
            raise click.UsageError("give NAME and at least one picture, or --from FOLDER")
        if STDIN in paths:
            raise click.UsageError("enrol from files: a template records which picture it is from")
        people = [(name, picture) for path in paths for picture in expand(path)]
        hint = f"no pictures in {', '.join(paths)}"
    if not people:
        raise InputError(hint)
    return people


def _report(subject: str, picture: str, status: str, reason: str, as_json: bool) -> None:
    if as_json:
        emit({"subject": subject, "image": picture, "status": status, "reason": reason or None})
    elif reason:
        click.echo(click.style("refused ", fg="red") + f"  {subject}  {picture}: {reason}")
    else:
        click.echo(f"{status}  {subject}  {picture}")
