"""mien identify"""

from pathlib import Path

import click

from mien import decision
from mien.cards import Bundle
from mien.cli import options
from mien.cli.batch import Album, Batch
from mien.cli.output import counted, emit, one_in, rarity, rounded
from mien.drawing import NAMED, UNKNOWN, Mark, annotate
from mien.gallery import Gallery, open_gallery
from mien.images import Source, read_image
from mien.recognition import load
from mien.types import Identification, Image, RecognizedFace


@click.command()
@options.pictures
@options.save
@click.option("--limit", default=5, show_default=True, type=click.IntRange(min=1), metavar="K",
              help="Candidates shown for each face.")  # fmt: skip
@click.option("--fpir", default=1e-2, show_default=True, metavar="RATE",
              help="Share of strangers that may be given a name by the gallery.")  # fmt: skip
@options.min_face
@options.gallery
@options.model
@options.threads
@options.as_json
def command(
    paths: tuple[str, ...],
    save: Path | None,
    limit: int,
    fpir: float,
    min_face: float | None,
    uri: str,
    model: str,
    threads: int | None,
    as_json: bool,
) -> None:
    """Name the people in pictures, or call them unknown.

    The threshold follows from the rate of false names you accept (FPIR), the size of your
    gallery (the number of templates, one for each picture enrolled) and the face: one that
    resembles many people needs more. The lower the rate, the more enrolled people stay unknown;
    'mien models info embedded' shows what was measured.

    \b
    mien identify door.jpg
    mien identify party/ --save named/ --fpir 1e-3
    """
    recognizer = load(model, threads=threads, min_face=min_face)
    batch = Batch(paths)
    album = Album(save, batch.items) if save else None

    def work(source: Source) -> tuple[Image, list[RecognizedFace]]:
        image = read_image(source)
        return image, recognizer.recognize(image)

    needed: list[float] = []
    with open_gallery(uri, create=False) as gallery:
        for name, (image, faces) in batch.run(work, recognizer.threads):
            found = gallery.identify_faces(faces, recognizer, fpir=fpir, limit=limit)
            if album:
                marks = [
                    _mark(answer, face, recognizer.bundle)
                    for answer, face in zip(found, faces, strict=True)
                ]
                album.save(name, annotate(image, marks))
            if as_json:
                emit({"image": name, "faces": list(map(_row, found, faces))})
            else:
                _print(name, found, faces)
            needed += [answer.operating_point.threshold for answer in found]
        _explain(gallery, needed, fpir)
    batch.finish()


def _explain(gallery: Gallery, needed: list[float], fpir: float) -> None:
    """Where the thresholds come from, once, for the reader of the table."""
    size = len(gallery)
    if not size:
        click.echo("mien: nobody is enrolled yet, so everybody is unknown", err=True)
        return
    if not needed:
        return
    ends = dict.fromkeys(f"{end:.3f}" for end in (min(needed), max(needed)))
    click.echo(
        f"A name needs {'..'.join(ends)}: with {counted(size, 'template')} enrolled, "
        f"{one_in(fpir)} strangers reach that.",
        err=True,
    )


def _row(answer: Identification, face: RecognizedFace) -> dict[str, object]:
    box = answer.face.box
    return {
        "box": rounded((box.left, box.top, box.right, box.bottom)),
        "quality": round(face.quality.value, 3),
        "reasons": list(face.quality.reasons),
        "subject": answer.subject,
        "score": round(answer.score, 5),
        "threshold": round(answer.operating_point.threshold, 5),
        "fpir": answer.fpir,
        "candidates": [
            {"subject": match.subject, "score": round(match.score, 5)}
            for match in answer.candidates
        ],
    }


def _print(name: str, found: list[Identification], faces: list[RecognizedFace]) -> None:
    """A line a face; of one that stays unknown also what its picture lacks."""
    click.echo(name if found else f"{name}  no face")
    for answer, face in zip(found, faces, strict=True):
        subject = click.style(answer.subject or "unknown", bold=True,
                              fg="green" if answer.subject else "yellow")  # fmt: skip
        others = answer.candidates[1 if answer.subject else 0 :][:2]
        rest = ", ".join(f"{match.subject} {match.score:.3f}" for match in others)
        lacks = "" if answer.subject else ", ".join(face.quality.reasons)
        box = answer.face.box
        score = f"score {answer.score:.3f}, needs " if answer.candidates else "needs "
        click.echo(
            f"  at ({box.left:.0f}, {box.top:.0f})  {subject}  "
            f"{score}{answer.operating_point.threshold:.3f}"
            + (f"  next: {rest}" if rest else "")
            + (f"  poor picture: {lacks}" if lacks else "")
        )


def _mark(answer: Identification, face: RecognizedFace, bundle: Bundle) -> Mark:
    if not answer.candidates:
        return Mark(answer.face.box, ("unknown", "nobody is enrolled"), UNKNOWN)
    detail = f"{answer.score:.3f}, needs {answer.operating_point.threshold:.3f}"
    score = answer.score - decision.demanded(bundle, face.embedding)
    chance = f"by chance {rarity(bundle.search_points, score, answer.gallery_size)}"
    lines = (answer.subject or "unknown", detail, chance)
    return Mark(answer.face.box, lines, NAMED if answer.subject else UNKNOWN)
