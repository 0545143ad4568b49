"""mien data crop, mien data pack"""

from collections import Counter
from pathlib import Path

import click

from mien import cards
from mien.alignment import resized
from mien.cli import options
from mien.cli.batch import progress
from mien.cli.data.lists import folder, listed_in, only
from mien.cli.output import counted, emit
from mien.errors import InputError, ModelError
from mien.recognition import load_detector, processors
from mien.training.preparation import crop as cropping
from mien.training.preparation import pack as packing
from mien.training.preparation.sets import list_pictures
from mien.types import Frame


@click.command("crop")
@click.argument("pictures", type=folder, metavar="FOLDER")
@click.option("-o", "--output", required=True, type=folder, metavar="DIR",
              help="The set to make, or to go on with.")  # fmt: skip
@click.option("--frame", metavar="CARD", help="Align to the crop that this network expects.  "
              "[default: the one that --model expects]")  # fmt: skip
@click.option("--size", type=click.IntRange(min=16), metavar="PIXELS",
              help="The longer side of a crop.  [default: that of the frame]")  # fmt: skip
@click.option("--margin", type=click.FloatRange(min=0, max=2), metavar="SHARE",
              help="Do not align: cut the box out, this share of it on every side.")  # fmt: skip
@click.option("--choose", type=click.Choice([*options.CHOICES, "all"]), default="central",
              show_default=True, help="Which face, when a picture has several: refuse the picture, "
              "the largest, the most central, or all of them.")  # fmt: skip
@click.option("--min-quality", default=0.0, show_default=True,
              help="Faces below this quality (0 to 1) are refused.")  # fmt: skip
@click.option("--format", "kind", type=click.Choice(["png", "jpeg", "webp"]), default="png",
              show_default=True, help="Of the crops; png loses nothing.")  # fmt: skip
@options.min_face
@click.option("--model", default="embedded", show_default=True, metavar="ID",
              help="The recogniser whose detector finds the faces, or a detector.")  # fmt: skip
@options.threads
@options.as_json
def crop_(
    pictures: Path,
    output: Path,
    frame: str | None,
    size: int | None,
    margin: float | None,
    choose: str,
    min_quality: float,
    kind: cropping.Kind,
    min_face: float | None,
    model: str,
    threads: int | None,
    as_json: bool,
) -> None:
    """Cut the faces out of a folder of pictures, aligned as a network expects them.

    \b
    mien data crop photos/ -o crops/                          # for --model embedded
    mien data crop photos/ -o crops/ --frame sface            # 112 x 112, as ArcFace and SFace
    mien data crop photos/ -o crops/ --margin 0.15 --size 160 # upright boxes

    FOLDER has a sub-folder a person, or just pictures. DIR gets crops/, manifest.csv (where each
    crop came from: hash, box, landmarks, quality), refused.csv (what gave no crop, and why) and
    set.json. Stopped or killed, the same command goes on where it was, and new pictures are added.
    """
    if output.resolve() == pictures.resolve() or pictures.resolve() in output.resolve().parents:
        raise InputError(f"{output} lies inside {pictures}: its crops would be cropped again")
    listed = list_pictures(pictures)
    chosen = cropping.every if choose == "all" else cropping.one(options.CHOICES[choose])
    cutter = cropping.Cutter(
        load_detector(_detector(model), min_face=min_face), _frame(frame or model, size),
        chosen, choose, margin, min_quality, kind,
    )  # fmt: skip
    crops, refused, known, people = 0, Counter[str](), 0, set()
    done = cropping.crop(listed, output, cutter, threads or processors())
    for picture, result in zip(listed, progress(done, len(listed), "picture"), strict=True):
        known += not result.fresh
        crops += len(result.rows)
        if result.rows:
            people.add(picture.subject)
        if result.refused:
            refused[result.refused.reason.split(picture.source)[0].strip()] += 1
        if as_json:
            emit({
                "image": picture.source, "subject": picture.subject, "crops": len(result.rows),
                "files": [row.file for row in result.rows],
                "reason": result.refused.reason if result.refused else None,
            })  # fmt: skip
    if not as_json:
        click.echo(
            f"{counted(crops, 'crop')} of {counted(len(people), 'person', 'people')} in "
            f"{output}" + (f", {counted(known, 'picture')} done before" if known else "")
        )
        for reason, times in refused.most_common(10):
            click.echo(f"refused  {counted(times, 'picture')}: {reason} ...")
    if refused:
        click.echo(f"mien: {counted(sum(refused.values()), 'picture')} gave no crop; "
                   f"{output / 'refused.csv'} says why", err=True)  # fmt: skip
    if not crops:
        raise InputError(f"no picture in {pictures} gave a crop")


@click.command("pack")
@click.argument("cropped", type=folder, metavar="CROPS")
@click.option("-o", "--output", required=True, type=folder, metavar="DIR",
              help="The packed set; a folder that does not exist yet.")  # fmt: skip
@only
@options.threads
@options.as_json
def pack_(
    cropped: Path, output: Path, only: Path | None, threads: int | None, as_json: bool
) -> None:
    """Put the crops of a set into one array, for fast training.

    DIR gets pixels.npy (uint8 RGB, a row a crop), manifest.csv and set.json; NumPy reads it with
    numpy.load("DIR/pixels.npy", mmap_mode="r").
    """
    sources = None if only is None else listed_in(only)
    packing.pack(cropped, output, sources, threads=threads or processors(), progress=progress)
    packed = packing.open_packed(output)
    count, height, width, _ = packed.pixels.shape
    people = len({row.subject for row in packed.rows})
    if as_json:
        emit(
            {
                "folder": str(output),
                "crops": count,
                "subjects": people,
                "width": width,
                "height": height,
                "bytes": packed.pixels.nbytes,
                "contract": packed.about.contract,
            }
        )
    else:
        click.echo(f"{output}: {counted(count, 'crop')} of {counted(people, 'person', 'people')}, "
                   f"{width} x {height}, {packed.pixels.nbytes / 1e6:,.1f} MB")  # fmt: skip


def _detector(model: str) -> cards.ModelCard:
    """The detector of a recogniser, or the detector of that name."""
    if model in cards.model_ids() and (card := cards.model_card(model)).task == "detection":
        return card
    return cards.bundle(model).detector


def _frame(model: str, size: int | None) -> Frame:
    """The crop that a network, or the network of a recogniser, expects; at another size."""
    if model in cards.bundle_ids():
        card = cards.bundle(model).embedder
    else:
        card = cards.model_card(model)
        if card.task == "detection":
            card = cards.bundle("embedded").embedder
    if card.input.frame is None:
        raise ModelError(f"the card of {card.id} has no template to align to; use --margin")
    return card.input.frame if size is None else resized(card.input.frame, size)
