"""Many pictures in, one row each out: in parallel, in order, past bad files, with progress."""

import sys
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

import click

from mien.cli.output import counted
from mien.errors import InputError, MissingExtra
from mien.images import Source, encode_image, find_images
from mien.recognition import ordered_map
from mien.types import Image

R = TypeVar("R")

STDIN = "-"

# What one picture of many may fail with while the rest goes on. MissingExtra: a HEIC picture.
UNUSABLE = (InputError, MissingExtra)


@dataclass(frozen=True, slots=True)
class Unusable:
    """In place of a result: why there is none."""

    error: InputError | MissingExtra


class Batch:
    """The pictures named on the command line, and how many of them could not be used."""

    def __init__(self, paths: Sequence[str]) -> None:
        self.refused = 0
        self.items = [item for path in paths for item in expand(path)]

    def run(self, work: Callable[[Source], R], threads: int) -> Iterator[tuple[str, R]]:
        """`work` on every picture, as (name, result) in order; what it refuses is reported."""

        def attempt(name: str) -> R | Unusable:
            try:
                return work(sys.stdin.buffer.read() if name == STDIN else name)
            except UNUSABLE as error:
                return Unusable(error)

        results = ordered_map(attempt, self.items, threads)
        results = progress(results, len(self.items), "picture")
        for name, result in zip(self.items, results, strict=True):
            if isinstance(result, Unusable):
                self.refused += 1
                click.echo(f"mien: {result.error}", err=True)
            else:
                yield name, result

    def finish(self) -> None:
        """Exit with status 2 if a picture was refused."""
        if not self.items:
            raise InputError("no pictures found there (jpg, png, webp, tiff, bmp, gif, avif, heic)")
        if self.refused:
            click.echo(
                f"mien: {counted(self.refused, 'picture')} could not be used (see above)", err=True
            )
            click.get_current_context().exit(2)


def expand(path: str) -> list[str]:
    """The pictures that a path on the command line stands for.

    A folder stands for what is in it, anything else for itself, even if it does not exist: reading
    it then fails in its place, past which a batch goes on.
    """
    if path == STDIN or not Path(path).is_dir():
        return [path]
    return [str(found) for found in find_images([path])]


def progress(items: Iterable[R], total: int | None, unit: str) -> Iterator[R]:
    """Show rate and remaining time on a terminal, for what takes longer than two seconds."""
    from tqdm import tqdm

    with tqdm(items, total=total, unit=unit, delay=2, leave=False, disable=None) as bar:
        yield from bar


class Album:
    """A folder of annotated pictures; none overwrites another, or one of the originals."""

    def __init__(self, folder: Path, originals: Iterable[str]) -> None:
        self._folder = folder
        self._originals = {Path(original).resolve() for original in originals}
        self._taken: set[str] = set()

    def save(self, name: str, image: Image) -> Path:
        """Write a picture as JPEG; returns where."""
        stem = "picture" if name == STDIN else Path(name).stem
        free, number = stem, 1
        while (
            free.casefold() in self._taken
            or (self._folder / f"{free}.jpg").resolve() in self._originals
        ):
            number += 1
            free = f"{stem}-{number}"
        self._taken.add(free.casefold())
        try:
            self._folder.mkdir(parents=True, exist_ok=True)
            target = self._folder / f"{free}.jpg"
            target.write_bytes(encode_image(image, "jpeg", quality=92))
        except OSError as error:
            raise InputError(f"cannot write to {self._folder}: {error.strerror}") from error
        return target
