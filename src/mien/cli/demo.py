"""mien demo"""

import tempfile
from dataclasses import dataclass
from importlib import resources
from pathlib import Path
from typing import TypeVar

import click
import numpy as np

from mien.cli.output import counted, one_in
from mien.detection import largest
from mien.drawing import NAMED, UNKNOWN, Mark, annotate, contact_sheet
from mien.errors import InputError
from mien.gallery import open_gallery
from mien.images import encode_image, find_images, read_image, save_image
from mien.recognition import load
from mien.types import Identification, Image

T = TypeVar("T")

_PEOPLE, _STRANGERS = 6, 6


@dataclass(frozen=True)
class Scene:
    """Who is enrolled from which pictures, what is then shown, and which pairs are compared."""

    enrolled: dict[str, list[Image]]
    shown: list[tuple[str, Image]]  # caption, picture
    pairs: list[tuple[str, Image, Image]]  # caption, picture, picture


@click.command()
@click.argument("folder", required=False, type=click.Path(path_type=Path), metavar="[DIR]")
@click.option("--save", default="mien-demo", show_default=True, metavar="DIR",
              type=click.Path(file_okay=False, path_type=Path),
              help="Where the annotated picture goes.")  # fmt: skip
def command(folder: Path | None, save: Path) -> None:
    """See it work: enrol people, name them, leave strangers unnamed.

    Without DIR it uses two portraits in the public domain that come with mien. DIR is a folder of
    your own with one sub-folder a person: a few people are enrolled from all pictures but one and
    looked for in the one kept back; others are not enrolled and should stay unknown.

    The gallery is a temporary one and is deleted at the end.
    """
    try:
        save.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise InputError(f"cannot write to {save}: {error.strerror}") from error
    scene = _from_folder(folder) if folder else _portraits()
    recognizer = load()
    tiles = []
    with (
        tempfile.TemporaryDirectory() as place,
        open_gallery(Path(place) / "demo.mien") as gallery,
    ):
        _step("1. Enrol")
        for name, pictures in scene.enrolled.items():
            gallery.enroll(name, pictures, recognizer, choose=largest)
            click.echo(f"   {name}, from {counted(len(pictures), 'picture')}")
        _step("2. Identify", "the threshold lets at most 1 stranger in 100 through")
        for caption, picture in scene.shown:
            answers = gallery.identify(picture, recognizer)
            answers.sort(key=lambda answer: answer.face.box.left)
            click.echo(f"   {caption}: " + ("; ".join(map(_sentence, answers)) or "no face found"))
            tiles.append(annotate(picture, [_mark(answer) for answer in answers]))
    _step("3. Verify", "one face against one, at 1 false match in 1,000")
    for caption, a, b in scene.pairs:
        answer = recognizer.verify(a, b, fmr=1e-3, choose=largest)
        verdict = "same person" if answer.match else "different people"
        click.echo(
            f"   {caption}: {verdict} "
            f"({answer.score:.3f}, needs {answer.operating_point.threshold:.3f})"
        )
    target = save / "identified.jpg"
    save_image(tiles[0] if len(tiles) == 1 else contact_sheet(tiles, 4, 480), target)
    click.echo(f"\nThe pictures with names on them: {target}")
    missed = one_in(recognizer.operating_point(1e-3).fnmr)
    click.echo(_NEXT.format(missed=missed))


_NEXT = """
What it means: a score says how alike two faces look to the model. The threshold is the score that
only the share of strangers you asked for reaches, as measured; at 1 in 1,000 about {missed} pairs
of the same person fall short of it too. Who does not reach it is "unknown".

Try next
  mien demo DIR                on your own pictures, one sub-folder a person
  mien verify a.jpg b.jpg      the same person? exit status 0 or 1
  mien enroll ada ada1.jpg     then: mien identify party.jpg --save named/
  mien models info embedded    how often it is wrong, as measured"""


def _portraits() -> Scene:
    """Eileen Collins enrolled; shown in a darker, mirrored, recompressed print with a stranger."""
    folder = resources.files("mien").joinpath("bundled", "pictures")
    eileen = read_image(folder.joinpath("eileen-collins.jpg").read_bytes())
    grace = read_image(folder.joinpath("grace-hopper.jpg").read_bytes())
    both = np.concatenate([eileen.pixels[:500, ::-1], grace.pixels[:500, ::-1]], axis=1)
    dark = Image((both * 0.7).astype(np.uint8))
    print_ = read_image(encode_image(dark, "jpeg", quality=60))
    click.echo(
        "Two portraits in the public domain: Eileen Collins (NASA) and Grace Hopper (US Navy).\n"
        "Eileen is enrolled. Then both are shown, darkened, mirrored and recompressed.\n"
    )
    return Scene(
        {"Eileen Collins": [eileen]},
        [("left, right", print_)],
        [("Eileen, and her print", eileen, Image(print_.pixels[:, :512])),
         ("Eileen, and Grace", eileen, grace)],
    )  # fmt: skip


def _from_folder(folder: Path) -> Scene:
    """A few people with several pictures enrolled, a few others kept as strangers."""
    if not folder.is_dir():
        raise InputError(f"{folder} is not a folder; give one that has one sub-folder a person")
    albums = {
        person.name: list(find_images([person]))[:4]
        for person in sorted(folder.iterdir())
        if person.is_dir()
    }
    known = _spread([name for name, album in albums.items() if len(album) > 1], _PEOPLE)
    if not known:
        raise InputError(f"no sub-folder of {folder} has two pictures: one to enrol, one to show")
    others = _spread([name for name, album in albums.items() if album and name not in known],
                     _STRANGERS)  # fmt: skip
    last = {name: read_image(albums[name][-1]) for name in (*known, *others)}
    enrolled = {name: [read_image(path) for path in albums[name][:-1]] for name in known}
    click.echo(
        f"{counted(len(known), 'person', 'people')} of {folder} enrolled, "
        f"{counted(len(others), 'stranger')} not.\n"
    )
    first, *rest = known
    pairs = [(f"{first}, two pictures", enrolled[first][0], last[first])]
    if other := (*rest, *others)[:1]:
        pairs.append((f"{first}, and {other[0]}", last[first], last[other[0]]))
    shown = [(name, last[name]) for name in known]
    return Scene(
        enrolled, shown + [(f"{name} (not enrolled)", last[name]) for name in others], pairs
    )


def _spread(items: list[T], count: int) -> list[T]:
    """`count` items evenly spread over all, so that the same folder gives the same demo."""
    return items[:: max(1, len(items) // count)][:count]


def _step(title: str, words: str = "") -> None:
    click.echo(click.style(title, bold=True) + (f" ({words})" if words else ""))


def _sentence(answer: Identification) -> str:
    return f"{answer.subject or 'unknown'} {_numbers(answer)}"


def _numbers(answer: Identification) -> str:
    return f"({answer.score:.3f}, needs {answer.operating_point.threshold:.3f})"


def _mark(answer: Identification) -> Mark:
    lines = (answer.subject or "unknown", _numbers(answer).strip("()"))
    return Mark(answer.face.box, lines, NAMED if answer.subject else UNKNOWN)
