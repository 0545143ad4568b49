"""mien classify"""

from pathlib import Path

import click

from mien.classification import Classification, describe, load_head, recognizers
from mien.classification.faces import Described
from mien.cli import options
from mien.cli.batch import Album, Batch
from mien.cli.output import emit, rounded
from mien.drawing import NAMED, UNKNOWN, Mark, annotate
from mien.images import Source, read_image
from mien.types import Image


@click.command()
@options.pictures
@click.option("--with", "path", required=True, type=click.Path(dir_okay=False, path_type=Path),
              metavar="HEAD", help="The file that 'mien fit' wrote.")  # fmt: skip
@click.option("--limit", default=5, show_default=True, type=click.IntRange(min=1), metavar="K",
              help="Labels shown for each face.")  # fmt: skip
@click.option("--unknown", type=float, metavar="RATE",
              help="Call a face unknown that resembles none of the labels; this share of strangers "
              "will still be given one.  [default: every face gets a label]")  # fmt: skip
@options.save
@options.min_face
@options.threads
@options.as_json
def command(
    paths: tuple[str, ...],
    path: Path,
    limit: int,
    unknown: float | None,
    save: Path | None,
    min_face: float | None,
    threads: int | None,
    as_json: bool,
) -> None:
    """Say which of the people a head was fitted on each face shows, or resembles.

    Each face gets the likeliest label and its probability. A head knows nobody else: without
    --unknown a stranger gets the label of whom they resemble most, and the probability is
    that among these people.

    \b
    mien fit celebrities/ -o celebrities.head
    mien classify me.jpg --with celebrities.head
    mien classify party/ --with celebrities.head --unknown 0.02 --save named/
    """
    head = load_head(path)
    if unknown is not None:
        head.operating_point(unknown)  # refused at once, not once a picture
    models = recognizers(head, threads=threads, min_face=min_face)
    batch = Batch(paths)
    album = Album(save, batch.items) if save else None

    def work(source: Source) -> tuple[Image, list[Described], list[Classification]]:
        image = read_image(source)
        faces = describe(image, models)
        said = head.classify([face.embeddings for face in faces], top=limit, unknown=unknown)
        return image, faces, said

    for name, (image, faces, said) in batch.run(work, models[0].threads):
        found = list(zip(faces, said, strict=True))
        if album:
            album.save(name, annotate(image, [_mark(face, answer) for face, answer in found]))
        if as_json:
            emit({"image": name, "faces": [_row(face, answer) for face, answer in found]})
        else:
            _print(name, found)
    batch.finish()


def _row(face: Described, answer: Classification) -> dict[str, object]:
    box = face.face.box
    return {
        "box": rounded((box.left, box.top, box.right, box.bottom)),
        "label": answer.label,
        "probability": round(answer.probability, 5),
        "top": [
            {"label": likely.label, "probability": round(likely.probability, 5)}
            for likely in answer.top
        ],
    }


def _print(name: str, found: list[tuple[Described, Classification]]) -> None:
    click.echo(name if found else f"{name}  no face")
    for face, answer in found:
        label = click.style(answer.label or "unknown", bold=True,
                            fg="green" if answer.label else "yellow")  # fmt: skip
        others = answer.top[1 if answer.label else 0 :][:2]
        rest = ", ".join(f"{likely.label} {likely.probability:.1%}" for likely in others)
        sure = f"  {answer.probability:.1%}" if answer.label else ""
        box = face.face.box
        click.echo(
            f"  at ({box.left:.0f}, {box.top:.0f})  {label}{sure}"
            + (f"  next: {rest}" if rest and answer.label else f"  likest: {rest}" if rest else "")
        )


def _mark(face: Described, answer: Classification) -> Mark:
    lines = [answer.label or "unknown"]
    lines += [f"{likely.label} {likely.probability:.1%}" for likely in answer.top[:2]]
    return Mark(face.face.box, tuple(lines), NAMED if answer.label else UNKNOWN)
