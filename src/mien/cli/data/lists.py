"""mien data split, pairs, triplets, lfw: which pictures go together, written down once."""

from collections.abc import Callable
from pathlib import Path
from typing import Never

import click
from tqdm import tqdm

from mien.cli import options
from mien.cli.batch import progress
from mien.cli.options import Decorator
from mien.cli.output import counted, emit, table
from mien.download import Progress
from mien.errors import InputError
from mien.evaluation import vectors
from mien.evaluation.protocols import Picture
from mien.evaluation.vectors import Vectors
from mien.recognition import load
from mien.training.preparation import lfw, pairs, sets
from mien.training.preparation.sets import Listed, list_set, read_table, write_table
from mien.training.preparation.split import By, select, split
from mien.types import Landmarks

folder = click.Path(file_okay=False, path_type=Path)
file = click.Path(dir_okay=False, path_type=Path)

only: Decorator = click.option(
    "--only", type=file, metavar="LIST.csv",
    help="Use the pictures that a list names in its column 'source' ('mien data split' and 'check' "
    "write such lists).",
)  # fmt: skip
seed: Decorator = click.option(
    "--seed", default=0, show_default=True, help="The same seed draws the same."
)
to_file: Decorator = click.option(
    "-o", "--output", required=True, type=file, metavar="FILE.csv", help="The table to write."
)
people: Decorator = click.argument("place", type=folder, metavar="FOLDER")


def listed_in(path: Path) -> list[str]:
    """The sources that a list names. Raises `InputError`."""
    rows = list(read_table(path))
    if rows and "source" not in rows[0][1]:
        raise InputError(f"{path} has no column 'source'; there are {', '.join(rows[0][1])}")
    return [row["source"] for _, row in rows]


def pictures_of(place: Path, only: Path | None) -> list[Listed]:
    """The pictures of a folder or a set, or those of them that a list names."""
    pictures = list_set(place)
    if only is None:
        return pictures
    wanted = set(listed_in(only))
    found = [picture for picture in pictures if picture.source in wanted]
    if not found:
        raise InputError(f"{place} has none of the {len(wanted)} pictures that {only} names")
    return found


def embed(place: Path, pictures: list[Listed], model: str, threads: int | None) -> Vectors:
    """The embeddings of pictures; of the aligned crops of a set without detecting anew."""
    about = sets.read_about(place) if sets.is_set(place) else None
    landmarks = None
    if about is not None and about.margin is None:
        import numpy as np

        landmarks = Landmarks(np.array(about.template, np.float32))
    return vectors.embed(
        load(model, threads=threads),
        [Picture(picture.source, picture.path) for picture in pictures],
        landmarks=landmarks,
        cache=vectors.default_cache(),
        progress=progress,
    )


# -------------------------------------------------------------------------------------------- split


def _parts(_: click.Context, __: click.Parameter, value: str) -> dict[str, float]:
    try:
        parts = [part.split("=") for part in value.split(",")]
        found = {name.strip(): float(share) for name, share in parts}
    except ValueError:
        raise click.BadParameter(f"{value!r} is not like train=80,test=20") from None
    if len(found) < len(parts) or not all(name and "/" not in name for name in found):
        raise click.BadParameter(f"{value!r} needs a name of its own for each part")
    return found


@click.command("split")
@people
@click.option("-o", "--output", required=True, type=folder, metavar="DIR",
              help="Where PART.csv and PART-people.txt go.")  # fmt: skip
@click.option("--parts", default="train=80,validation=10,test=10", show_default=True,
              callback=_parts, metavar="NAME=SHARE,...", help="With their shares.")  # fmt: skip
@click.option("--by", type=click.Choice(["person", "picture"]), default="person",
              show_default=True, help="By person, nobody is in two parts; by picture, everybody is "
              "in all, as for classifiers of known people.")  # fmt: skip
@click.option("--min-pictures", default=1, show_default=True, type=click.IntRange(min=1),
              help="Leave out people with fewer.")  # fmt: skip
@click.option("--max-pictures", type=click.IntRange(min=1), metavar="N",
              help="Of people with more, draw that many.")  # fmt: skip
@click.option("--balance", is_flag=True,
              help="Of everyone, draw as many as the person with the fewest has.")  # fmt: skip
@only
@seed
@options.as_json
def split_(
    place: Path,
    output: Path,
    parts: dict[str, float],
    by: By,
    min_pictures: int,
    max_pictures: int | None,
    balance: bool,
    only: Path | None,
    seed: int,
    as_json: bool,
) -> None:
    """Divide the pictures of a folder or set into parts, the same way on every machine.

    \b
    mien data split crops/ -o lists/ --min-pictures 3
    mien data split photos/ -o lists/ --by picture --parts train=80,validation=10,test=10

    Writes a list of pictures and a list of people for each part.
    """
    pictures = pictures_of(place, only)
    albums = select(
        pictures, min_pictures=min_pictures, max_pictures=max_pictures, balance=balance, seed=seed
    )
    rows = []
    for part, chosen in split(albums, parts, by=by, seed=seed).items():
        names = list(dict.fromkeys(picture.subject for picture in chosen))
        write_table(output / f"{part}.csv", ("subject", "source"),
                    ([picture.subject, picture.source] for picture in chosen))  # fmt: skip
        with sets.writing(output / f"{part}-people.txt") as stream:
            stream.write("".join(f"{name}\n" for name in names).encode("utf-8", "surrogateescape"))
        rows.append((part, len(names), len(chosen), str(output / f"{part}.csv")))
    used = sum(row[2] for row in rows)
    if as_json:
        for part, number, count, path in rows:
            emit({"part": part, "subjects": number, "pictures": count, "file": path})
    else:
        cells = [(part, f"{number:,}", f"{count:,}", path) for part, number, count, path in rows]
        table(("part", "people", "pictures", "file"), cells)
    if left := len(pictures) - used:
        click.echo(
            f"{counted(left, 'picture')} left out (--min-pictures, --max-pictures)", err=True
        )


# ---------------------------------------------------------------------------------- pairs, triplets


@click.command("pairs")
@people
@to_file
@click.option("--count", default=3000, show_default=True, type=click.IntRange(min=1),
              help="Of either kind; fewer where there are no more.")  # fmt: skip
@click.option("--folds", default=0, metavar="K",
              help="Draw from K groups of people with nobody in two, and number them.")  # fmt: skip
@only
@seed
@options.as_json
def pairs_(
    place: Path, output: Path, count: int, folds: int, only: Path | None, seed: int, as_json: bool
) -> None:
    """Draw pairs of pictures of the same person and of different people, and write them down.

    \b
    mien data pairs photos/ -o pairs.csv
    mien evaluate pairs pairs.csv --root photos/

    People are drawn first, then their pictures, so that those with many are not all of it.
    """
    drawn = pairs.draw(place.name, pictures_of(place, only), count, folds=folds, seed=seed)
    written = pairs.write_pairs(output, drawn)
    genuine = sum(int(part.same.sum()) for part, _ in drawn)
    if as_json:
        emit({"file": str(output), "genuine": genuine, "impostor": written - genuine})
    else:
        click.echo(f"{output}: {genuine:,} genuine and {written - genuine:,} impostor pairs")


@click.command("triplets")
@people
@to_file
@click.option("--count", default=10_000, show_default=True, type=click.IntRange(min=1),
              help="How many; fewer where there are no more.")  # fmt: skip
@click.option("--mine", "model", metavar="MODEL",
              help="Take strangers whom this recogniser finds alike (semi-hard).")  # fmt: skip
@only
@seed
@options.threads
@options.as_json
def triplets_(
    place: Path,
    output: Path,
    count: int,
    model: str | None,
    only: Path | None,
    seed: int,
    threads: int | None,
    as_json: bool,
) -> None:
    """Draw triplets: a picture, another of that person, and one of somebody else.

    \b
    mien data triplets crops/ -o triplets.csv --count 20000 --mine embedded
    """
    pictures = pairs.ordered(pictures_of(place, only))
    group = pairs.group_of(place.name, pictures)
    found = None if model is None else embed(place, pictures, model, threads)
    drawn = pairs.draw_triplets(group, count, seed=seed, vectors=found)
    written = pairs.write_triplets(output, drawn, pictures)
    if as_json:
        emit({"file": str(output), "triplets": written, "mined": model})
    else:
        click.echo(f"{output}: {counted(written, 'triplet')}")


# ---------------------------------------------------------------------------------------------- lfw


@click.command("lfw")
@click.argument("place", type=folder, metavar="DIR")
@click.option("--fetch", is_flag=True,
              help="Download what is missing. For research only.")  # fmt: skip
@click.option("--variant", type=click.Choice(list(lfw.VARIANTS)), default="deepfunneled",
              show_default=True, help="Which alignment of the pictures to download.")  # fmt: skip
@click.option("-o", "--output", type=folder, metavar="LISTS",
              help="Write the protocols as lists of pictures, people and pairs.")  # fmt: skip
@options.as_json
def lfw_(place: Path, fetch: bool, variant: str, output: Path | None, as_json: bool) -> None:
    """Check a copy of Labeled Faces in the Wild, or fetch it; write its protocols as lists.

    \b
    mien data lfw lfw/                        # is this copy whole, and the published one?
    mien data lfw lfw/ --fetch                # about 110 MB, for research only
    mien data lfw lfw/ -o lists/              # pairsDevTest.csv, view2.csv, train-people.txt, ...

    Pictures that are there are adopted; every downloaded file is compared with its hash.
    """
    fetched: list[str] = []
    if fetch:
        with tqdm(unit="B", unit_scale=True, disable=None, leave=False) as bar:
            fetched = lfw.fetch(place, lfw.VARIANTS[variant], progress=_shows(bar))
    missing = [remote.name for remote in lfw.missing_files(place)]
    found = lfw.inspect(place)
    lists = lfw.write_lists(place, output) if output is not None and not missing else []
    if as_json:
        emit({"folder": str(place), "pictures": found.pictures, "subjects": found.people,
              "complete": found.complete, "variant": found.variant or None, "missing": missing,
              "fetched": fetched, "lists": dict(lists)})  # fmt: skip
    else:
        which = (
            f"they are {found.variant} as published"
            if found.variant
            else "of a variant mien \
has no digest of"
        )
        click.echo(f"{place}: {found.pictures:,} pictures of {found.people:,} people, {which}")
        table(("list", "rows"), [(name, f"{rows:,}") for name, rows in lists]) if lists else None
    if missing or not found.complete:
        lacks = [*missing, *(["pictures"] if not found.complete else [])]
        raise InputError(f"{place} lacks {', '.join(lacks)}; --fetch brings what is missing "
                         f"(from {lfw.OFFICIAL} and {lfw.MIRROR})")  # fmt: skip


def _shows(bar: "tqdm[Never]") -> Callable[[str], Progress]:
    """A progress bar that each file in turn takes over."""

    def begin(name: str) -> Progress:
        bar.reset()
        bar.set_description(name)

        def show(arrived: int, total: int | None) -> None:
            bar.total = total
            bar.update(arrived - bar.n)

        return show

    return begin
