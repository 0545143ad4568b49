"""mien data check"""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import click

from mien.cli import options
from mien.cli.batch import progress
from mien.cli.data.lists import embed, folder, only, pictures_of
from mien.cli.output import emit, table
from mien.drawing import captioned, contact_sheet
from mien.errors import InputError
from mien.evaluation.vectors import Vectors
from mien.images import read_image, save_image
from mien.recognition import processors
from mien.training.preparation import check as checking
from mien.training.preparation.check import Copy, Looks, Overlap, Suspect
from mien.training.preparation.sets import Listed, write_table
from mien.types import Image

_ON_A_SHEET = 40  # suspects; each is shown beside its person and the one it is like
_SIDE = 150


@click.command()
@click.argument("place", type=folder, metavar="FOLDER")
@click.option("-o", "--output", type=folder, metavar="DIR",
              help="Write tables, suspects.jpg, and keep.csv without what was found.")  # fmt: skip
@click.option("--against", type=folder, metavar="FOLDER",
              help="Look for people and pictures that an evaluation set has too.")  # fmt: skip
@click.option("--near", default=16, show_default=True, type=click.IntRange(0, 64), metavar="BITS",
              help="Pictures whose looks differ in at most so many of 256 bits are copies; "
              "others differ in over 30.")  # fmt: skip
@click.option("--rate", default=0.01, show_default=True, type=click.FloatRange(0, 0.5),
              help="Doubt a picture that is no more like its person than this share of "
              "strangers.")  # fmt: skip
@only
@options.model
@options.threads
@options.as_json
def check(
    place: Path,
    output: Path | None,
    against: Path | None,
    near: int,
    rate: float,
    only: Path | None,
    model: str,
    threads: int | None,
    as_json: bool,
) -> None:
    """Look for what spoils training: copies, wrong names, leaks from an evaluation set, imbalance.

    \b
    mien data check photos/ -o findings/
    mien data check crops/ -o findings/ --against lfw/lfw-deepfunneled

    Nothing is changed. Look at findings/suspects.jpg: each doubtful picture stands beside a typical
    one of the person it is named after, and one of the person it looks more like. keep.csv lists
    what is left without copies, suspects, unreadable pictures and people of the evaluation set.
    """
    pictures = pictures_of(place, only)
    subjects = [picture.subject for picture in pictures]
    spread = checking.balance(subjects)
    looks = checking.look_at(pictures, threads or processors(), progress)
    copies = checking.copies(looks, near)
    vectors = embed(place, pictures, model, threads)
    doubtful = checking.suspects(vectors, subjects, rate=rate)
    shared = _shared(pictures, looks, vectors, against, model, threads) if against else []
    found = _Found(pictures, looks, vectors, copies, doubtful, shared)
    if output is not None:
        found.write(output)
    counts = {
        "pictures": spread.pictures, "subjects": spread.people, "fewest": spread.fewest,
        "median": spread.median, "most": spread.most, "single": spread.single,
        "effective_subjects": round(spread.effective, 1),
        "unreadable": sum(one.looks is None for one in looks),
        "without_face": len(vectors.failures),
        "exact_copies": sum(copy.exact for copy in copies),
        "near_copies": sum(not copy.exact for copy in copies),
        "copies_between_subjects": sum(found.between(copy) for copy in copies),
        "suspects": len(doubtful),
        "overlap": len(shared), "kept": len(found.kept()),
    }  # fmt: skip
    if as_json:
        emit(counts)
    else:
        table(
            ("what", "how many"), [(_WORDS[name], f"{value:,}") for name, value in counts.items()]
        )
        found.show()
    if output is not None:
        click.echo(f"tables and pictures: {output}", err=True)


_WORDS = {
    "pictures": "pictures", "subjects": "people", "fewest": "fewest pictures a person",
    "median": "median", "most": "most", "single": "people with one picture",
    "effective_subjects": "people, as many as these amount to if all had equally many",
    "unreadable": "unreadable pictures", "without_face": "pictures without an embedding",
    "exact_copies": "exact copies", "near_copies": "pairs that look the same",
    "copies_between_subjects": "of these copies, under two names",
    "suspects": "pictures that may bear the wrong name",
    "overlap": "people or pictures that the evaluation set may have too",
    "kept": "pictures without all of that (keep.csv)",
}  # fmt: skip


@dataclass(frozen=True, eq=False)
class _Found:
    """Everything that was found, by rows of `pictures`."""

    pictures: Sequence[Listed]
    looks: Sequence[Looks]
    vectors: Vectors
    copies: Sequence[Copy]
    suspects: Sequence[Suspect]
    shared: Sequence[Overlap]

    def between(self, copy: Copy) -> bool:
        """Whether a copy bears another name than its original."""
        return self.pictures[copy.first].subject != self.pictures[copy.second].subject

    def kept(self) -> list[Listed]:
        """What is left without everything that was found; of two copies, the first."""
        gone = {copy.second for copy in self.copies} | {one.row for one in self.suspects}
        gone |= {copy.first for copy in self.copies if self.between(copy)}
        gone |= {row for row, one in enumerate(self.looks) if one.looks is None}
        gone |= self.vectors.failures.keys()
        people = {one.here for one in self.shared}
        return [
            picture
            for row, picture in enumerate(self.pictures)
            if row not in gone and picture.subject not in people and picture.source not in people
        ]

    def show(self, most: int = 10) -> None:
        """The worst of each kind."""
        if self.suspects:
            click.echo()
            table(
                ("may bear the wrong name", "own", "other", "is like"),
                [(self.pictures[s.row].source, f"{s.own:.3f}", f"{s.other:.3f}", s.like)
                 for s in self.suspects[:most]],
            )  # fmt: skip
        if self.shared:
            click.echo()
            table(
                ("here", "in the evaluation set", "by", "score"),
                [(one.here, one.there, one.by, f"{one.score:.3f}") for one in self.shared[:most]],
            )

    def write(self, output: Path) -> None:
        """The tables, and the contact sheet of suspects."""
        source = [picture.source for picture in self.pictures]
        write_table(output / "copies.csv", ("first", "second", "bits", "kind", "two_names"), (
            [source[c.first], source[c.second], str(c.bits), "exact" if c.exact else "near",
             str(int(self.between(c)))] for c in self.copies))  # fmt: skip
        write_table(output / "suspects.csv", ("source", "subject", "own", "other", "like"), (
            [source[s.row], self.pictures[s.row].subject, f"{s.own:.4f}", f"{s.other:.4f}", s.like]
            for s in self.suspects))  # fmt: skip
        write_table(output / "overlap.csv", ("here", "there", "by", "score"), (
            [one.here, one.there, one.by, f"{one.score:.4f}"] for one in self.shared))  # fmt: skip
        reasons = {row: one.reason for row, one in enumerate(self.looks) if one.looks is None}
        reasons = {**self.vectors.failures, **reasons}
        write_table(output / "unusable.csv", ("source", "reason"), (
            [source[row], " ".join(reasons[row].split())] for row in sorted(reasons)))  # fmt: skip
        write_table(output / "keep.csv", ("subject", "source"), (
            [picture.subject, picture.source] for picture in self.kept()))  # fmt: skip
        if self.suspects:
            save_image(self._sheet(), output / "suspects.jpg")

    def _sheet(self) -> Image:
        """Each suspect beside a typical picture of its person and of the one it is like."""
        typical = checking.typical(self.vectors, [picture.subject for picture in self.pictures])
        tiles = []
        for one in self.suspects[:_ON_A_SHEET]:
            picture = self.pictures[one.row]
            name = picture.source.split("/")[-1]
            tiles += [
                captioned(
                    read_image(picture.path), (name, f"{one.own:.3f}, {one.other:.3f}"), _SIDE
                ),
                self._person(typical, picture.subject, "named"),
                self._person(typical, one.like, "is like"),
            ]
        return contact_sheet(tiles, 6 if len(tiles) > 3 else 3, max(tiles[0].height, _SIDE))

    def _person(self, typical: dict[str, int], name: str, label: str) -> Image:
        image = read_image(self.pictures[typical[name]].path)
        return captioned(image, (label, name), _SIDE)


def _shared(
    pictures: Sequence[Listed],
    looks: Sequence[Looks],
    vectors: Vectors,
    against: Path,
    model: str,
    threads: int | None,
) -> list[Overlap]:
    """What an evaluation set has too: the same pictures, names, and faces."""
    others = pictures_of(against, None)
    their_looks = checking.look_at(others, threads or processors(), progress)
    theirs = embed(against, others, model, threads)
    hashes = {one.sha256: other.source for one, other in zip(their_looks, others, strict=True)}
    same = [
        Overlap(picture.source, hashes[one.sha256], "picture", 1.0)
        for picture, one in zip(pictures, looks, strict=True)
        if one.sha256 and one.sha256 in hashes
    ]
    names = [picture.subject for picture in pictures]
    their_names = [other.subject for other in others]
    if not any(names) or not any(their_names):
        raise InputError("people can only be compared where both sets have a sub-folder a person")
    by_face = checking.overlap_by_face((vectors, names), (theirs, their_names))
    return same + checking.overlap_by_name(names, their_names) + by_face
