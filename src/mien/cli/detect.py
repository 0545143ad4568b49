"""mien detect"""

from pathlib import Path

import click

from mien.cli import options
from mien.cli.batch import Album, Batch
from mien.cli.output import counted, emit, rounded
from mien.drawing import FOUND, Mark, annotate
from mien.images import Source, read_image
from mien.recognition import load
from mien.types import Face, Image, Quality

Found = tuple[Face, Quality]


@click.command()
@options.pictures
@options.save
@options.min_face
@options.model
@options.threads
@options.as_json
def command(
    paths: tuple[str, ...],
    save: Path | None,
    min_face: float | None,
    model: str,
    threads: int | None,
    as_json: bool,
) -> None:
    """Find the faces in pictures: box, five landmarks, confidence, quality.

    \b
    mien detect photo.jpg
    mien detect holiday/ --save marked/
    mien detect scan.tiff --min-face 20 --json
    """
    recognizer = load(model, threads=threads, min_face=min_face)
    batch = Batch(paths)
    album = Album(save, batch.items) if save else None

    def work(source: Source) -> tuple[Image, list[Found]]:
        image = read_image(source)
        faces = recognizer.detector.detect(image)
        return image, [(face, recognizer.assess(image, face)) for face in faces]

    for name, (image, faces) in batch.run(work, recognizer.threads):
        if album:
            album.save(name, annotate(image, [_mark(*found) for found in faces]))
        if as_json:
            emit({"image": name, "width": image.width, "height": image.height,
                  "faces": [_row(*found) for found in faces]})  # fmt: skip
        else:
            _print(name, image, faces)
    batch.finish()


def _row(face: Face, quality: Quality) -> dict[str, object]:
    box = face.box
    return {
        "box": rounded((box.left, box.top, box.right, box.bottom)),
        "landmarks": [rounded(point) for point in face.landmarks.points],
        "confidence": round(face.confidence, 4),
        "quality": round(quality.value, 3),
        "reasons": list(quality.reasons),
    }


def _print(name: str, image: Image, faces: list[Found]) -> None:
    many = counted(len(faces), "face") if faces else "no face"
    click.echo(f"{name}  {image.width} x {image.height}  {many}")
    for face, quality in faces:
        box = face.box
        why = f"  ({', '.join(quality.reasons)})" if quality.reasons else ""
        click.echo(
            f"  {box.width:.0f} x {box.height:.0f} at ({box.left:.0f}, {box.top:.0f})"
            f"  confidence {face.confidence:.2f}  quality {quality.value:.2f}{why}"
        )


def _mark(face: Face, quality: Quality) -> Mark:
    lines = (f"{face.confidence:.2f}", f"quality {quality.value:.2f}")
    return Mark(face.box, lines, FOUND, face.landmarks)
